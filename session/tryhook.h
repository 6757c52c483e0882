/* --try-hook: a session that is made up, for one hook to judge, and what came of it in words for a person.
 *
 * Invariants: no socket is involved, and no record goes to the log. The hook is run and judged by filter.c, and answered by steps.c, as in
 * any session; nothing here knows what a verdict means.
 */
#ifndef TRYHOOK_H
#define TRYHOOK_H

#include "session/state.h"

/* Make up the session up to the event of its one hook, and run the hook: GATE_HOOKS until it has answered. A `close` or `log` hook has ended
 * on return. sample: as session_try() has it; it must stay. */
void tryhook_begin(struct session *s, const char *sample, size_t n);

/* Tell what came of it on standard output. Returns whether the hook works. */
bool tryhook_report(struct session *s);

#endif
