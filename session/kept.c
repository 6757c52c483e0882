/* Room for messages that are kept. See kept.h for the contract. */
#define _GNU_SOURCE
#include "session/kept.h"
#include "io/memory.h"
#include "session/record.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SMALL (256 << 10) /* octets of a message that needs no room: most never ask */
#define SHARES_MAX 24	  /* the last one ends at 4 TB */

static int share[SHARES_MAX]; /* sockets */
static uint64_t room; /* octets of all shares */
static bool uncounted;

static const char full[] = "452 4.3.1 No room for this message beside those of other sessions (--max-kept)";

/* 0: no limit. */
static uint64_t budget(const struct options *o)
{
	static uint64_t memory;

	if (!o->max_kept_percent)
		return o->max_kept;
	memory = memory ? memory : memory_total();
	return memory / 100 * o->max_kept_percent;
}

/* Memory that cannot be counted is no reason to refuse mail. */
static void note_uncounted(struct session *s)
{
	char error[120];

	snprintf(error, sizeof error, "kept messages cannot be counted for --max-kept: %s", strerror(errno));
	record_error(s, error);
	uncounted = true;
}

static bool is_free(const struct session *s, uint64_t octets)
{
	return octets <= SMALL || octets <= room || uncounted || !budget(s->o);
}

const char *kept_cannot(struct session *s, uint64_t octets)
{
	uint64_t all, taken;

	if (is_free(s, octets))
		return NULL;
	all = budget(s->o);
	if (octets > all)
		return DIALOGUE_TOO_LARGE;
	if (net_shares("kept", &taken))
		return taken > all - octets ? full : NULL;
	note_uncounted(s);
	return NULL;
}

/* How much room a message of so many octets is to have: no more than it can use. */
static uint64_t wanted(const struct session *s, uint64_t octets, uint64_t all)
{
	uint64_t limit = s->o->limits.message_size, want = room ? room : SMALL;

	do
		want *= 2;
	while (want < octets);
	if (limit && want > limit)
		want = limit > octets ? limit : octets;
	return want < all ? want : all;
}

const char *kept_grow(struct session *s, uint64_t octets)
{
	uint64_t all, want;

	if (is_free(s, octets))
		return NULL;
	all = budget(s->o);
	if (octets > all)
		return DIALOGUE_TOO_LARGE;
	if (s->kept_shares == SHARES_MAX)
		return full;
	want = wanted(s, octets, all);
	share[s->kept_shares] = net_take_share("kept", want - room, all);
	if (share[s->kept_shares] >= 0) {
		s->kept_shares++;
		room = want;
		return NULL;
	}
	if (errno == EAGAIN)
		return full;
	note_uncounted(s);
	return NULL;
}

/* Most sessions have no share, and touch nothing here: a page of theirs alone is a fault and a page table. */
void kept_release(struct session *s)
{
	if (!s->kept_shares)
		return;
	while (s->kept_shares)
		close(share[--s->kept_shares]);
	room = 0;
}
