/* Metrics as text: Prometheus's format 0.0.4, or OpenMetrics 1.0.0.
 */
#ifndef EXPOSITION_H
#define EXPOSITION_H

#include "stat/snapshot.h"

#include <stdio.h>

#define EXPOSITION_SITES 200 /* by traffic; what further ones have is "other" */
#define EXPOSITION_TEXT "text/plain; version=0.0.4; charset=utf-8"
#define EXPOSITION_OPEN "application/openmetrics-text; version=1.0.0; charset=utf-8"

/* Write all metrics. The snapshot's rows are not the same afterwards. */
void exposition_write(FILE *out, struct snapshot *s, bool open_metrics);

#endif
