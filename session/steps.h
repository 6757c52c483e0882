/* What follows when a part of the session has come to something, and how long each wait may last.
 *
 * A part that needs time (checks, hooks, TLS, the server, XFORWARD) never calls what comes after it: it sets a word in its own state, and
 * steps_take() begins what follows. Deadlines are worked out anew each time from the times in state.h: there are no timers to set or
 * cancel.
 */
#ifndef STEPS_H
#define STEPS_H

#include "session/state.h"

enum steps_overdue {
	STEPS_NOT_OVERDUE,     /* nothing is: a part has something to do then, or SIGTERM's --drain-timeout is over */
	STEPS_HOOK_OVERDUE,
	STEPS_TARPIT_OVER,
	STEPS_SHAKE_OVERDUE,   /* the TLS handshake with the client */
	STEPS_CONNECT_OVERDUE, /* the connection to the server, or its TLS handshake */
	STEPS_SERVER_OVERDUE,
	STEPS_CLIENT_OVERDUE,
	STEPS_STALLED /* the client takes no replies, or a tunnel stands still: the session ends without a reply */
};

struct steps_deadline {
	int64_t at; /* INT64_MAX: none */
	enum steps_overdue what;
	const char *reason; /* for replies and records; static storage */
};

/* The client is known: begin with its TLS, if that comes first, else with the checks. */
void steps_begin(struct session *s);

/* Take what the parts have come to, and begin what follows. true: there was something. */
bool steps_take(struct session *s);

/* The next deadline. */
struct steps_deadline steps_deadline(const struct session *s);

/* This deadline has passed: do what follows. */
void steps_overdue(struct session *s, const struct steps_deadline *d);

/* Whether the client's next octets belong to a message, or to a BDAT that was refused. */
bool steps_in_message(const struct session *s);

#endif
