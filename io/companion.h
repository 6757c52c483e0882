/* Companions: processes that smtpwarp forks to stand beside its sessions, and which are none: the keeper, the broker, agents, the dialer. */
#ifndef COMPANION_H
#define COMPANION_H

#include <sys/types.h>

/* passes_fork(), with another name (prctl(2), at most 15 octets) from the first moment on. */
pid_t companion_fork(const char *name);

/* In the companion: SIGTERM and the like come to all processes of a service or a terminal, but sessions under way still need it. SIGCHLD
 * interrupts ppoll(2), SIGALRM any call that waits. */
void companion_prepare(void);

/* In the companion: requests becomes descriptor 0, and all but that, 1 and 2 are closed: connections, listening sockets. */
void companion_keep(int requests);

/* Wait for the end of one that has been told to end, a second at most. SIGCHLD must be blocked. */
void companion_wait(pid_t pid);

#endif
