/* How much TLS an operator asks for, as words: towards upstreams (--tls, routes, verdicts) and towards clients
 * (--client-tls). No I/O.
 */
#ifndef LEVELS_H
#define LEVELS_H

#include <stdbool.h>

/* From TLS_ENCRYPT on nothing goes in plain text. DANE, DANE_ONLY: until the recipient is known. */
#define TLS_LEVELS(X)                                                                                                  \
	X(NONE, "none") X(MAY, "may") X(OFFERED, "verify-if-offered") X(DANE, "dane") X(ENCRYPT, "encrypt")             \
	X(DANE_ONLY, "dane-only") X(VERIFY, "verify")
#define TLS_LEVEL_WORDS "none, may, verify-if-offered, dane, encrypt, dane-only or verify"

enum tls_level {
#define X(level, name) TLS_##level,
	TLS_LEVELS(X)
#undef X
};

/* The level's word. Static storage. */
const char *tls_level_name(enum tls_level level);

/* false: there is no such level, and *level stays as it was. */
bool tls_level_parse(const char *name, enum tls_level *level);

/* Whether a handshake at this level fails if the certificate does not verify. */
bool tls_level_verifies(enum tls_level level);

/* NONE: --client-tls was not given. */
#define CLIENT_TLS(X)                                                                                                  \
	X(NONE, "none") X(MAY, "may") X(REQUIRE, "require") X(IMPLICIT, "implicit") X(PASSTHROUGH, "passthrough") \
	X(AUTO, "auto")
#define CLIENT_TLS_WORDS "may, require, implicit, passthrough or auto"

enum client_tls {
#define X(how, name) CLIENT_TLS_##how,
	CLIENT_TLS(X)
#undef X
};

/* The word for it. Static storage. */
const char *client_tls_name(enum client_tls how);

#endif
