/* Where the Received field stands. See trace.h for the contract. */
#include "session/trace.h"
#include "session/identity.h"

#include <string.h>

#define FIRST_MAX 1024 /* a longer first line is no separator */

static unsigned char first[FIRST_MAX];

size_t trace_begin(struct session *s)
{
	s->trace.held = 0;
	s->trace.len = identity_trace(s, &s->trace.field);
	return s->trace.len;
}

void trace_forget(struct session *s)
{
	s->trace.len = 0;
}

/* Octets of the first line if the field goes below it, else 0. In a message without CR there it could not: a dot behind it would become
 * the first of a line. */
static size_t octets_above(const unsigned char *bytes, size_t n)
{
	size_t above = message_separator(bytes, n);

	return above > 1 && above <= sizeof first && bytes[above - 2] == '\r' ? above : 0;
}

/* Put octets up to the end of the first line into `first`. Returns how many. */
static size_t hold(struct session *s, const unsigned char *bytes, size_t n)
{
	size_t line = smtp_find_line(bytes, n), room = sizeof first - s->trace.held;

	n = line ? line : n;
	n = n < room ? n : room;
	memcpy(first + s->trace.held, bytes, n);
	s->trace.held += n;
	return n;
}

/* Whether what is held may become the whole of a separator. */
static bool may_go_on(const struct session *s)
{
	static const char quoted[] = ">From ";
	size_t n = s->trace.held < sizeof quoted - 2 ? s->trace.held : sizeof quoted - 2;
	bool begins = memcmp(first, quoted + 1, n) == 0 || memcmp(first, quoted, n) == 0;

	return begins && s->trace.held < sizeof first && first[s->trace.held - 1] != '\n';
}

void trace_pass(struct session *s, const unsigned char *bytes, size_t n, bool end)
{
	size_t taken = 0, above;

	if (s->trace.len) {
		taken = hold(s, bytes, n);
		if (!end && (!s->trace.held || may_go_on(s)))
			return;
		above = octets_above(first, s->trace.held);
		leg_write(&s->server.leg, first, above);
		leg_write(&s->server.leg, s->trace.field, s->trace.len);
		leg_write(&s->server.leg, first + above, s->trace.held - above);
		s->trace.len = 0;
	}
	leg_write(&s->server.leg, bytes + taken, n - taken);
}

size_t trace_send(struct session *s, const struct message *m)
{
	size_t above = s->trace.len && m->size ? octets_above(m->bytes, m->size) : 0;

	leg_write(&s->server.leg, m->bytes, above);
	leg_write(&s->server.leg, s->trace.field, s->trace.len);
	s->trace.len = 0;
	return above;
}
