/* TLS with the client, as --client-tls has it: STARTTLS that smtpwarp serves (RFC 3207), TLS from the first octet (RFC 8314 3.3), and
 * passthrough, where client and server speak TLS with each other and smtpwarp carries the octets.
 *
 * Invariants: nothing that was read in the clear counts as said inside TLS; if anything was, the session ends. TLS with the server is
 * server.c's, certificates are io/keys.c's.
 */
#ifndef CLIENTTLS_H
#define CLIENTTLS_H

#include "session/state.h"

/* Whether this is a STARTTLS that smtpwarp answers itself, not the server. */
bool clienttls_is_ours(const struct session *s, enum smtp_verb verb);

/* Whether the client is offered STARTTLS. */
bool clienttls_offers(const struct session *s);

/* --client-tls implicit: begin the handshake, GATE_SHAKE. */
void clienttls_begin(struct session *s);

/* In GATE_STARTTLS and GATE_SHAKE: go on as far as possible. `secured` becomes true when the handshake is done. */
void clienttls_turn(struct session *s);

/* Clear `secured`; note and record the client's TLS. */
void clienttls_accept(struct session *s);

/* The handshake has failed: record it, and end the session. reason: static storage. */
void clienttls_failed(struct session *s, const char *reason);

/* Passthrough: the server has answered STARTTLS with this code. 220: GATE_TUNNEL; else GATE_OPEN. false: somebody has tampered with the
 * connection, and the session has ended. */
bool clienttls_answered(struct session *s, int code);

/* In GATE_TUNNEL: carry octets from each side to the other. true: there were some. */
bool clienttls_carry(struct session *s);

/* In GATE_TUNNEL, when octets were flushed: tell one side when the other has closed; when both have, the session ends. */
void clienttls_carry_ends(struct session *s);

#endif
