/* TLS towards the client: STARTTLS (RFC 3207) that smtpwarp serves itself, TLS from the first octet (RFC 8314 3.3), and STARTTLS
 * that is left to the two ends (--client-tls passthrough).
 */
#ifndef CLIENTTLS_H
#define CLIENTTLS_H

#include "session/state.h"

/* Whether this is a STARTTLS that smtpwarp itself answers, and not the upstream. */
bool clienttls_is_ours(const struct session *s, enum smtp_verb verb);

/* Whether the client's list of extensions has STARTTLS. */
bool clienttls_offers(const struct session *s);

/* TLS from the first octet. */
void clienttls_begin(struct session *s);

/* GATE_STARTTLS, GATE_SHAKE: go on as far as can be. `secured` becomes true when the handshake is done. */
void clienttls_turn(struct session *s);

/* `secured` is taken: the client's TLS becomes known, and is recorded. */
void clienttls_accept(struct session *s);

/* The handshake with the client has failed. reason: static storage. */
void clienttls_failed(struct session *s, const char *reason);

/* The upstream's last line to a STARTTLS that was passed through. false: somebody tampers with it, and the session is over. */
bool clienttls_answered(struct session *s, int code);

/* GATE_TUNNEL: octets from each side to the other, true if there were some; and then, once they are sent, the end of either side. */
bool clienttls_carry(struct session *s);
void clienttls_carry_ends(struct session *s);

#endif
