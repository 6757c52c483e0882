/* The tarpit. See tarpit.h for the contract.
 *
 * A place is a Unix socket, see net_take_share(). So all sessions are counted together, however they were started, and the kernel frees
 * the place of a process that has died.
 */
#define _GNU_SOURCE
#include "session/tarpit.h"
#include "session/gate.h"
#include "session/record.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int place = -1; /* the socket of this session's place; -1: it has none */

/* Half of --max-sessions are left for clients that are not delayed. */
static bool take_place(const struct session *s)
{
	const struct options *o = s->o;
	uint32_t places = o->max_tarpits < o->max_sessions / 2 ? o->max_tarpits : o->max_sessions / 2;
	char error[120];

	if (!places)
		return false;
	place = net_take_share("tarpit", 1, places);
	if (place < 0 && errno != EAGAIN) {
		snprintf(error, sizeof error, "held clients cannot be counted, so none is held: %s", strerror(errno));
		record_error(s, error);
	}
	return place >= 0;
}

bool tarpit_delay(struct session *s, int64_t time)
{
	if (!time || !take_place(s))
		return false;
	gate_delay(s, s->now + time);
	return true;
}

void tarpit_release(void)
{
	if (place < 0)
		return;
	close(place);
	place = -1;
}

bool tarpit_delays(const struct session *s)
{
	return s->gate.stage == GATE_TARPIT;
}
