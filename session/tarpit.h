/* Holding clients back before they get an answer, a bounded number of them. */
#ifndef TARPIT_H
#define TARPIT_H

#include "session/state.h"

/* Hold the client back for a time in microseconds, or until it closes its side: GATE_TARPIT, in which the client's octets wait. Each
 * held client takes one of --max-tarpits places, which sessions share however they were started. false: it is not held, for the time
 * is 0, or no place is free. */
bool tarpit_delay(struct session *s, int64_t time);

/* Give its place to another. */
void tarpit_release(void);

/* Whether it is held: an answer is ready for it. */
bool tarpit_delays(const struct session *s);

#endif
