/* How far a session is with its server: the states of state.h, their only writer, and what several rooms ask of them. */
#ifndef SERVERSTATE_H
#define SERVERSTATE_H

#include "session/state.h"

/* The only writer of the state. */
void serverstate_enter(struct session *s, enum server_state state);

/* Whether it is connected, and not in a TLS handshake: what it says can be read as SMTP (or is a tunnel's). */
bool serverstate_is_open(const struct session *s);

/* Whether our EHLO, or what follows it up to the last word of a greeting, is under way. */
bool serverstate_in_hello(const struct session *s);

/* Whether a TLS handshake is. */
bool serverstate_is_shaking(const struct session *s);

#endif
