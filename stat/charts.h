/* Charts of the report, as SVG within the page.
 */
#ifndef CHARTS_H
#define CHARTS_H

#include "stat/findings.h"

/* Messages by hour and result, of all sites. */
void charts_volume(const struct findings *f);

/* A site's messages by hour, its delays, and the times when it was slow, throttled or blocked. */
void charts_site(const struct findings *f, const struct findings_site *s);

/* Which classes replies had, of a site or source. */
void charts_classes(const struct findings *f, const uint64_t class[FINDINGS_CLASSES]);

#endif
