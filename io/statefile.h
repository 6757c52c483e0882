/* The file of --state: making, mapping and locking it. pure/statemap.h has what is in it.
 *
 * How many sessions there are is told by locks (fcntl(2), F_SETLK), for those end with a process however it ends: each session locks an octet
 * far behind the end of the file.
 */
#ifndef STATEFILE_H
#define STATEFILE_H

#include "pure/statemap.h"

#define STATEFILE_WHY 200 /* octets of a reason */

/* Map the file, shared, for this process and those that it forks. It is made if it is missing: whole, so that the memory for it is there,
 * for its owner to write and its group to read. false with the reason in why, which names no file: it belongs to somebody else, is no such
 * map, or cannot be made; what was in use before still is; errno is EINVAL if the file itself is wrong. If it is cut short later, what it
 * had is lost to this process, which counts for itself from then on. */
bool statefile_use(const char *file, char why[STATEFILE_WHY]);

/* Whether statefile_use() would do, or could make the file: nothing is made or used. false: as there. */
bool statefile_check(const char *file, char why[STATEFILE_WHY]);

/* What statefile_use() has mapped; NULL: nothing. */
struct statemap *statefile_current(void);

/* Map an existing one to be read. *fd: the descriptor, for statefile_sessions(). NULL: the reason is in why. */
const struct statemap *statefile_view(const char *file, int *fd, char why[STATEFILE_WHY]);

/* This process, or the one that it was forked from, has used a file: it is a session of that until it ends. If that fails it is not
 * counted. Whoever closes another descriptor of the file loses the lock, fcntl(2). */
void statefile_enter(void);

/* How many sessions hold a lock. */
unsigned statefile_sessions(int fd);

/* The time now, for functions of pure/statemap.h. */
uint64_t statefile_now(void);

#endif
