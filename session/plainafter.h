/* --plain-after: a server whose TLS fails is not spoken to in plain before its TLS has failed for so long. Since when it has is remembered in
 * the map of --state, by its address and port, for all sessions; TLS that is there ends it.
 *
 * Where the map has forgotten it, its time begins anew: mail waits longer, and goes in plain no sooner.
 */
#ifndef PLAINAFTER_H
#define PLAINAFTER_H

#include "session/state.h"

/* Note that TLS with the server, which might be used in plain, has failed, or that it is there. Returns how long mail has to wait for plain,
 * microseconds; 0: no longer, or there is TLS. */
int64_t plainafter_note(const struct session *s, bool failed);

#endif
