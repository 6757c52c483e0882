/* What the file of --state says at one moment, in memory of our own: nothing that a session writes there meanwhile, or has written wrong, does
 * harm.
 */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

#include "pure/statemap.h"

/* One site and one of our addresses. */
struct snapshot_row {
	char site[STATEMAP_SITE], source[STATEMAP_SOURCE];
	uint64_t counter[STATEMAP_COUNTERS_END];
	uint64_t bucket[STATEMAP_PHASES_END][STATEMAP_BUCKET_COUNT], sum[STATEMAP_PHASES_END];
	uint64_t first, last; /* microseconds of the map's clock */
	struct detector detector;
	bool said; /* class and text are those of the last refusal */
	enum reply_class class;
	char text[STATEMAP_TEXT];
};

struct snapshot_hook {
	char name[STATEMAP_HOOK_NAME];
	uint32_t event; /* enum hook_event; HOOK_EVENT_COUNT: none that we know */
	uint64_t failures, sum, bucket[STATEMAP_BUCKET_COUNT];
};

/* Rows differ in site or source, and are in their order; hooks in name or event. Times: as statemap.h has them. */
struct snapshot {
	struct snapshot_row row[STATEMAP_SLOTS];
	unsigned rows;
	struct snapshot_hook hook[STATEMAP_HOOKS];
	unsigned hooks;
	uint64_t total[STATEMAP_TOTALS_END], now;
	int64_t created; /* seconds since 1970 of the map's moment 0 */
	unsigned sessions;
};

/* Take one of the file. NULL: why says what is wrong with it. Static storage: the next one takes its place. */
struct snapshot *snapshot_take(const char *file, char *why, unsigned cap);

/* Messages and connections of a row: how busy it is. */
uint64_t snapshot_traffic(const struct snapshot_row *r);

/* Add the counters, buckets and sums of one row to another. */
void snapshot_add(struct snapshot_row *to, const struct snapshot_row *from);

/* Milliseconds that so many percent of these durations are below; -1: there are none. */
double snapshot_percentile(const uint64_t bucket[STATEMAP_BUCKET_COUNT], unsigned percent);

#endif
