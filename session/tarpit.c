/* Holding clients back, a bounded number of them. */
#define _GNU_SOURCE
#include "session/session.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/un.h>
#include <unistd.h>

#define PLACES_TRIED 128

static int place = -1;

static bool bind_place(uint32_t number)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int n = sprintf(name.sun_path + 1, "smtpwarp-tarpit-%u-%u", getuid(), number);

	return bind(place, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) == 0;
}

/* Sessions begin their search at different places, so that it is short as long as many are free. Half of --max-sessions are left to
 * others. */
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
		record_error(&s->view, "no Unix socket to count held clients by");
		break;
	}
	checks_release();
	return false;
}

bool checks_hold(struct session *s, enum session_stage stage, int64_t time)
{
	if (!time || !take_place(s))
		return false;
	s->stage = stage;
	s->tarpit_until = s->now + time;
	return true;
}

void checks_release(void)
{
	if (place >= 0)
		close(place);
	place = -1;
}
