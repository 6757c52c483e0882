/* The tarpit. See tarpit.h for the contract.
 *
 * A place is the name of an abstract Unix socket (unix(7)). So all sessions are counted together, however they were started, and the
 * kernel frees the place of a process that has died.
 */
#define _GNU_SOURCE
#include "session/tarpit.h"
#include "session/gate.h"
#include "session/record.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/un.h>
#include <unistd.h>

#define PLACES_TRIED 128 /* in a search for a free one: less than 0.1 ms */

static int place = -1; /* the socket of this session's place; -1: it has none */

static bool bind_place(uint32_t number)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int n = sprintf(name.sun_path + 1, "smtpwarp-tarpit-%u-%u", getuid(), number);

	return bind(place, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) == 0;
}

/* Sessions begin their search at different places, so that it is short while many are free. Half of --max-sessions are left for clients
 * that are not delayed. */
static bool take_place(const struct session *s)
{
	const struct options *o = s->o;
	uint32_t places = o->max_tarpits < o->max_sessions / 2 ? o->max_tarpits : o->max_sessions / 2;

	if (!places)
		return false;
	place = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	for (uint32_t i = 0; i < places && i < PLACES_TRIED; i++) {
		if (bind_place(((uint32_t)s->now + i) % places))
			return true;
		if (errno == EADDRINUSE)
			continue;
		record_error(s, "no Unix socket to count held clients by");
		break;
	}
	tarpit_release();
	return false;
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
	if (place >= 0)
		close(place);
	place = -1;
}

bool tarpit_delays(const struct session *s)
{
	return s->gate.stage == GATE_TARPIT;
}
