/* One proxied connection. HACKING.md has the map of session/. */
#ifndef SESSION_H
#define SESSION_H

#include "hooks.h"
#include "pure/options.h"

#include <signal.h>

/* Serve the connected socket fd until its end. SIGTERM must be blocked, and its handler count in *terminated: it ends
 * the session after the message that is under way, or --drain-timeout; a second one at once. Only the reply to a whole
 * message is always waited for. SIGPIPE must be ignored, SIGCHLD blocked and caught: hooks are run. */
void session_run(int fd, const struct options *o, const struct hook_list *hooks, const volatile sig_atomic_t *terminated);

#endif
