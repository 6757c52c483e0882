/* The listener: accepts connections and forks a process for each, within the limits of --max-sessions; reaps them, and ends them when it is
 * told to end: nothing that a session does can harm it. Looks for files that have been replaced, loaded.h.
 */
#ifndef LISTENER_H
#define LISTENER_H

#include "pure/options.h"

#include <signal.h>
#include <stdbool.h>

#ifndef SMTPWARP_VERSION
#define SMTPWARP_VERSION "unreleased"
#endif

#define LISTENER_SOCKETS_MAX OPTIONS_LISTEN_MAX

struct listener_sockets {
	int socket[LISTENER_SOCKETS_MAX];
	unsigned count;
	bool exits_idle; /* inetd passed a listening socket as fd 0: exit when idle, --idle-exit */
};

/* Block and catch the signals that smtpwarp knows, for the listener and for sessions. Returns what counts SIGTERM and SIGINT. */
const volatile sig_atomic_t *listener_catch_signals(void);

/* Before the listener says that it has started: start the processes that keep secrets, and the one that starts others, io/keeper.h. Options,
 * command line and the value of NOTIFY_SOCKET (NULL: none) must stay. Ends smtpwarp if that fails. */
void listener_begin(const struct options *o, char **argv, const char *notify_path);

/* Serve these sockets, which become the listener's, until SIGTERM or SIGINT, or until there is nothing to do, and never will be. SIGUSR2:
 * upgrade.h. */
_Noreturn void listener_run(struct listener_sockets *sockets);

#endif
