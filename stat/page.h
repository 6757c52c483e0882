/* An HTML page on standard output that needs nothing else: no script, no file, no server. Reads well in the light and in the dark, on a
 * phone and on paper.
 */
#ifndef PAGE_H
#define PAGE_H

#include <stdint.h>

void page_begin(const char *title);
void page_end(void);

/* As printf(3), for what is ours. */
__attribute__((format(printf, 1, 2))) void page_put(const char *format, ...);

/* Text of others, escaped for an element or an attribute in quotes. */
void page_text(const char *text);

/* A number with its thousands apart; octets as kB, MB or GB; a share in percent; milliseconds (below 0: a dash). */
void page_number(uint64_t n);
void page_octets(uint64_t n);
void page_percent(uint64_t part, uint64_t of);
void page_delay(double ms);

/* A moment, seconds since 1970 in UTC: "Wed 25 Nov 2026 12:05", "Wed 25 Nov 12:05", "12:05", or "Wed 25 Nov". */
void page_date(int64_t second);
void page_time(int64_t second);
void page_clock(int64_t second);
void page_day(int64_t second);

#endif
