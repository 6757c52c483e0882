/* The dialer: a process beside a listener's sessions that connects to their server for them, once they have left the network (passes.h): after
 * a handshake that failed, for one. What it connects to, it finds out by itself, from the client's connection.
 */
#ifndef DIALER_H
#define DIALER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Fork it; sessions that are forked from now on can ask it. dial: begins a connection for the session whose client's connection this is, to
 * its server of that number, and does not wait; it runs in the dialer, and returns a descriptor, or -1 with errno set. false: errno says
 * why there is none. SIGCHLD must be blocked. */
bool dialer_start(int (*dial)(int client, uint32_t which));

/* Whether this process can ask one. */
bool dialer_is_there(void);

/* Ask it, and wait, 10 seconds at most. Returns the descriptor of a connection that is being made, as net_connect() does, or -1 with errno set:
 * EPERM, there is no dialer. */
int dialer_ask(int client, uint32_t which);

/* A child has ended: if it was the dialer, forget it, and return true. Sessions that were forked before cannot reach another one. */
bool dialer_ended(pid_t pid);

/* The listener ends, and has no sessions left: wait for the dialer's end, a second at most. */
void dialer_stop(void);

#endif
