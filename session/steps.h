/* What follows when a part of the session has come to something: here, and nowhere else. And how long each wait may last. */
#ifndef STEPS_H
#define STEPS_H

#include "session/state.h"

enum steps_overdue {
	STEPS_NOT_OVERDUE, /* a part of the session has something to do */
	STEPS_HOOK_OVERDUE,
	STEPS_TARPIT_OVER,
	STEPS_SHAKE_OVERDUE,
	STEPS_CONNECT_OVERDUE,
	STEPS_SERVER_OVERDUE,
	STEPS_CLIENT_OVERDUE,
	STEPS_STALLED /* octets that are not taken, or silence in a tunnel: the session ends without a word */
};

struct steps_deadline {
	int64_t at; /* INT64_MAX: none */
	enum steps_overdue what;
	const char *reason; /* static storage */
};

/* The client is known: its TLS, or the checks, come first. */
void steps_begin(struct session *s);

/* Take what the parts have come to, and begin what follows. true: there was something. */
bool steps_take(struct session *s);

/* When the next wait is over; and what to do when it is. */
struct steps_deadline steps_deadline(const struct session *s);
void steps_overdue(struct session *s, const struct steps_deadline *d);

/* Whether the client's next octets belong to a message, be it swallowed. */
bool steps_in_message(const struct session *s);

#endif
