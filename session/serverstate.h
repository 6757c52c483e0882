/* The state of the server: its only writer, and questions about it. state.h lists the states and which may follow which. What follows a
 * state, and how long it may last, is not known here: see steps.c, server.c and hello.c.
 */
#ifndef SERVERSTATE_H
#define SERVERSTATE_H

#include "session/state.h"

/* Change the state. */
void serverstate_enter(struct session *s, enum server_state state);

/* Whether the server is connected and not in a TLS handshake: SERVER_BANNER to SERVER_TUNNEL. */
bool serverstate_is_open(const struct session *s);

/* Whether a reply to EHLO, LHLO or HELO, or to what stands between them (STARTTLS, XCLIENT, AUTH of ours), is awaited: SERVER_EHLO to
 * SERVER_HELO. */
bool serverstate_in_hello(const struct session *s);

/* Whether a TLS handshake with the server is under way. */
bool serverstate_is_shaking(const struct session *s);

#endif
