/* The clock of a session: s->now, by which all of it tells the time. It stands still between calls of clock_tick(). */
#ifndef CLOCK_H
#define CLOCK_H

#include "session/state.h"

/* Set s->now to CLOCK_MONOTONIC in microseconds: clock_gettime(2). */
void clock_tick(struct session *s);

#endif
