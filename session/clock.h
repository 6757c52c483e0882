/* The clock of a session. */
#ifndef CLOCK_H
#define CLOCK_H

#include "session/state.h"

/* Set s->now to CLOCK_MONOTONIC in microseconds: clock_gettime(2). */
void clock_tick(struct session *s);

#endif
