/* TLS with BearSSL: trust anchors, and engines between two byte streams. Owns no descriptor and, but for
 * the trust anchors, no heap. There is one upstream connection at a time, and one client, so there is one engine for
 * each; their storage is static and its pages stay untouched until TLS starts.
 */
#ifndef TLS_H
#define TLS_H

#include "pure/levels.h"

#include <stdbool.h>
#include <stddef.h>

struct tls; /* an engine */

/* Read the certificates in a PEM file as trust anchors, in place of those that were there. Returns 0, or -1 with *why a
 * static string and the old ones kept. */
int tls_load_anchors(const char *path, const char **why);

bool tls_has_anchors(void);

/* Begin a handshake at this level (not TLS_NONE). name: for SNI and to check the certificate against; NULL: none is
 * known, then nothing counts as verified, and what must be cannot begin. Returns NULL with *why set if it cannot. */
struct tls *tls_start(enum tls_level level, const char *name, const char **why);

/* Begin to serve a client's handshake with the keys of keys.h, which must be there: TLS 1.2 (RFC 8996), ECDHE, the order of
 * suites ours (RFC 9325 4.2). NULL with *why set: there are no random numbers. */
struct tls *tls_serve(const char **why);

/* Forget all that engines know: secrets must not outlive a session. No struct tls is good any more. */
void tls_wipe(void);

/* Give bytes from the peer; returns how many were taken. */
size_t tls_put_record(struct tls *t, const unsigned char *in, size_t n);

/* Bytes for the peer: returns how many stand at *out; say with tls_sent() how many went. */
size_t tls_get_record(struct tls *t, const unsigned char **out);
void tls_sent(struct tls *t, size_t n);

/* Decrypted bytes into out; returns how many. */
size_t tls_read(struct tls *t, unsigned char *out, size_t cap);

/* Whether tls_read() has something to give. */
bool tls_readable(const struct tls *t);

/* Bytes to be encrypted; returns how many were taken. They go out with the next full record or tls_flush(). */
size_t tls_write(struct tls *t, const unsigned char *in, size_t n);
void tls_flush(struct tls *t);

/* Begin an orderly end: close_notify. */
void tls_close(struct tls *t);

bool tls_handshake_done(const struct tls *t);

/* The name that a client asked for, NULL: none. In the engine; not to be trusted. */
const char *tls_asked_name(const struct tls *t);

/* Whether the peer's first octet was not that of a handshake: it did not speak TLS. */
bool tls_began_otherwise(const struct tls *t);

/* Ended, orderly or not. */
bool tls_closed(const struct tls *t);

/* Why the handshake or the connection failed; NULL: it did not. Static storage. */
const char *tls_failure(const struct tls *t);

/* After the handshake. reason: why the certificate would not verify, NULL if it does. Static storage. Of a client's TLS that a
 * proxy before us has ended: version and cipher as it names them, NULL if it does not, and cn, the name in the certificate that
 * the client has shown to it; else NULL. */
struct tls_facts {
	const char *version, *cipher, *reason, *cn;
	bool verified;
};
void tls_facts(const struct tls *t, struct tls_facts *facts);

#endif
