/* make_state FILE SLOTS: a file of --state in which so many sites have been counted; "mx0" throttles, "mx1" is slow. */
#define _GNU_SOURCE
#include "io/statefile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void count(struct statemap_slot *s, unsigned i)
{
	for (unsigned c = 0; c < STATEMAP_COUNTERS_END; c++)
		statemap_add(&s->counter[c], 1 + (i * 7 + c) % 50);
	statemap_add(&s->counter[STATEMAP_MESSAGE_ACCEPTED], 100000 - 50 * i);
	for (unsigned p = 0; p < STATEMAP_PHASES_END; p++)
		for (unsigned n = 0; n < 20; n++)
			statemap_time(s, (enum statemap_phase)p, 5000ull << n % 15);
}

static void observe(struct statemap_slot *s, unsigned i, uint64_t now)
{
	struct detector before, after;

	statemap_detector(s, &before);
	after = before;
	for (unsigned n = 0; i == 0 && n < 5; n++)
		detector_reply(&after, REPLY_THROTTLE, REPLY_OF_IP, now + n);
	for (unsigned n = 0; i == 1 && n < 60; n++)
		detector_delay(&after, DETECTOR_DATA, n < 20 ? 100000 : 5000000, now + n);
	statemap_detected(s, &before, &after);
	statemap_say(s, REPLY_THROTTLE, "4.7.28 rate of mail from \"us\" \\ \033[31m", 38);
}

int main(int argc, char **argv)
{
	char why[STATEFILE_WHY], site[48], source[48];
	struct statemap *m = argc == 3 && statefile_use(argv[1], why) ? statefile_current() : NULL;
	uint64_t now = statefile_now();

	if (!m) {
		fprintf(stderr, "%s\n", why);
		return 1;
	}
	for (unsigned i = 0; i < (unsigned)atoi(argv[2]); i++) {
		snprintf(site, sizeof site, "mx%u", i / 2 * 2 + (i < 2 ? i : 0));
		snprintf(source, sizeof source, "192.0.2.%u", 1 + i % 2);
		struct statemap_slot *s = &m->slot[statemap_claim(m, site, source, now)];
		count(s, i);
		observe(s, i, now);
	}
	for (unsigned t = 0; t < STATEMAP_TOTALS_END; t++)
		statemap_add(&m->total[t], 10 + t);
	statemap_hook(m, 3, "rspamd", 20000, false);
	statemap_hook(m, 3, "rspamd", 3000000, true);
	statefile_enter();
	getchar(); /* a session until it ends */
	return 0;
}
