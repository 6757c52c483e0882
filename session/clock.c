/* The clock of a session. See clock.h for the contract. */
#define _GNU_SOURCE
#include "session/clock.h"

#include <time.h>

void clock_tick(struct session *s)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	s->now = t.tv_sec * INT64_C(1000000) + t.tv_nsec / 1000;
}
