/* Room for messages that are kept: --max-kept, which the sessions of one user in a network namespace have together.
 *
 * Invariants: a message that is kept has a share of at least its octets, or is so small that it needs none; shares grow by doubling. They are
 * sockets, net_take_share(), so however a session was started it counts, and one that has died does not.
 */
#ifndef KEPT_H
#define KEPT_H

#include "session/state.h"

/* A message that a client announces with so many octets (SIZE= of MAIL, RFC 1870; 0: unknown) cannot be kept now: the reply, in static
 * storage. NULL: it can, or nobody knows. */
const char *kept_cannot(struct session *s, uint64_t octets);

/* Have room for a kept message of so many octets. Returns NULL, or the reply in static storage: there is none. */
const char *kept_grow(struct session *s, uint64_t octets);

/* The message is gone: give its room to others. */
void kept_release(struct session *s);

#endif
