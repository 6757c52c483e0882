/* One proxied connection, from its accepted socket to its close record; all that main needs of session/. HACKING.md has the map of the
 * other files. There is one session per process, in static storage.
 */
#ifndef SESSION_H
#define SESSION_H

#include "hooks.h"
#include "pure/options.h"

#include <signal.h>

/* Serve the connected socket fd until the session has ended; fd is closed. Call it once in a process.
 *
 * SIGTERM must be blocked, and its handler must count up *terminated: the first one ends the session after the transaction that is under
 * way, or after --drain-timeout; the second one at once. The reply to a message that was sent as a whole is waited for in any case.
 * SIGPIPE must be ignored. Where there are hooks that are programs, io/broker.h must have been started. */
void session_run(int fd, const struct options *o, const struct hook_list *hooks, const volatile sig_atomic_t *terminated);

/* --try-hook: run the one hook of the list as a session would, judge it, and tell on standard output what came of it. sample: n octets, what
 * the hook gets, as smtpwarp-hooks(7) has it: a line; for the event log any number of them; for data a line or a message; NULL: one of ours.
 * Signals as for session_run(). Returns whether the hook works: a verdict of any kind is one. */
bool session_try(const struct options *o, const struct hook_list *hooks, const volatile sig_atomic_t *terminated, const char *sample, size_t n);

#endif
