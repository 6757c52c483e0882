/* Walls around a session: what it cannot do even if its client or its server has taken it over.
 *
 * - System calls: an allow-list, seccomp(2), set in the listener once its sockets are open and inherited by its sessions. No program can be
 *   executed, no memory become code, no socket be made but streams and datagrams of Unix, IP and
 *   Netlink.
 * - Files, TCP ports, signals: a ruleset, landlock(7), that each session takes up. It opens no files (readable.h has what it may still
 *   read), connects to no TCP ports but those given, signals no process, not even by fcntl(2), and connects to no abstract Unix sockets of
 *   others.
 * - Processes and the network: passes.h. A session starts and signals no process, and makes and connects no IP sockets once it needs none.
 *   Where the kernel has no seccomp(2), RLIMIT_NPROC keeps it from starting processes.
 * - Capabilities: a session gives up those that it does not need, capabilities(7).
 *
 * Where the kernel lacks one, the others stand. Builds with AddressSanitizer have none.
 */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SANDBOX_PORTS 40
#define SANDBOX_WALLS 96 /* octets of sandbox_walls() */

/* The walls of the sessions to come. port: n TCP ports that they may connect to, at most SANDBOX_PORTS. mark: they set firewall marks. */
void sandbox_prepare(const uint16_t *port, unsigned n, bool mark);

/* Filter this process's system calls, and those of all that it forks. A session that makes another call calls tell() with words that name
 * it, and ends; its listener calls tell(), and the call fails, ENOSYS. The kernel refuses the call before that, by SIGSYS: code that has
 * taken a session over and handles the signal itself goes on without the call, and nothing tells. */
void sandbox_filter(void (*tell)(const char *what));

/* This process is a session from now on. any_port: it may connect to all TCP ports; else port is one more, 0: none. Does nothing without
 * sandbox_prepare(). */
void sandbox_enter(bool any_port, uint16_t port);

/* Which walls this kernel lets us build, as words such as "calls files ports signals processes". */
const char *sandbox_walls(char text[SANDBOX_WALLS]);

#endif
