/* The tarpit: delaying clients before they get their reply, a limited number of them at a time.
 *
 * Invariants: a delayed client has one of --max-tarpits places, or of half as many as --max-sessions if that is less. All sessions of one
 * user share the places, however they were started. Who is delayed, and what follows, is decided elsewhere: checks.c, filter.c, steps.c.
 */
#ifndef TARPIT_H
#define TARPIT_H

#include "session/state.h"

/* Delay the client for a time in microseconds, or until it closes its side: GATE_TARPIT. false: it is not delayed, for the time is 0 or
 * no place is free. */
bool tarpit_delay(struct session *s, int64_t time);

/* Give up the place of this session, if it has one. */
void tarpit_release(void);

/* Whether the client is being delayed. */
bool tarpit_delays(const struct session *s);

#endif
