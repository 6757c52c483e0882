/* TLS with BearSSL: trust anchors, and engines between two byte streams. Owns no descriptor and, except for the trust anchors,
 * no heap. A process has one upstream connection and one client at a time, so there is one engine for each. Their storage is
 * static, and its pages stay untouched until TLS starts.
 */
#ifndef TLS_H
#define TLS_H

#include "pure/address.h"
#include "pure/dane.h"
#include "pure/levels.h"

#include <stdbool.h>
#include <stddef.h>

struct tls; /* an engine */

/* Read the certificates in a PEM file as trust anchors, in place of the former ones. Returns 0, with *why NULL or a warning about
 * malformed ones, which are skipped; or -1 with *why set and the former ones kept. *why is static storage. */
int tls_load_anchors(const char *path, const char **why);

bool tls_has_anchors(void);

#define TLS_NAMES 24 /* more are left out */

/* What is demanded of an upstream. The names themselves and the TLSA records must stay until the handshake is over; the rest is copied. */
struct tls_demand {
	enum tls_level level; /* not TLS_NONE */
	const char *sni;      /* NULL: none */
	/* The certificate must be for one of these, as certificate_is_for() has it. None: no certificate counts as verified, but by a TLSA
	 * record of usage DANE_EE. */
	const char *const *names;
	size_t count;
	const struct dane_set *tlsa; /* they decide, and trusted CAs do not count: RFC 7672 3.1. NULL: CAs */
	/* Whom it is demanded of. Up to four servers are remembered whose last connection has ended without a fault: if the same is demanded of
	 * one again, without TLSA records, its session is resumed (RFC 5246 F.1.4), should it agree. Then facts and fingerprint are those of
	 * the handshake that was in full. NULL: of nobody who may be remembered. */
	const union net_address *server;
};

/* Begin a handshake with the upstream. A level that verifies fails here if there is nothing to verify by. Returns NULL with *why set if
 * the handshake cannot begin. */
struct tls *tls_start(const struct tls_demand *demand, const char **why);

/* Whether a session is to be resumed, and that is not done: if it fails, the server is remembered no longer. */
bool tls_resumes(const struct tls *t);

/* Begin to serve a client's handshake with the keys of keys.h, of which the first must be loaded, and of several those whose certificate has
 * the name that the client asks for (SNI, RFC 6066 3), else the first: TLS 1.2 (RFC 8996), ECDHE, cipher suites
 * in our order (RFC 9325 4.2). Returns NULL with *why set if there are no random numbers. */
struct tls *tls_serve(const char **why);

/* Overwrite both engines, and what is remembered: secrets must not outlive a session. Every struct tls is invalid afterwards. */
void tls_wipe(void);

/* Give bytes from the peer. Returns how many were taken. */
size_t tls_put_record(struct tls *t, const unsigned char *in, size_t n);

/* Bytes for the peer. Returns how many are at *out; tls_sent() says how many of them were sent. */
size_t tls_get_record(struct tls *t, const unsigned char **out);
void tls_sent(struct tls *t, size_t n);

/* Decrypted bytes. Returns how many were put into out. */
size_t tls_read(struct tls *t, unsigned char *out, size_t cap);

/* Whether tls_read() has bytes to give. */
bool tls_readable(const struct tls *t);

/* Give bytes to encrypt. Returns how many were taken. They are sent with the next full record, or after tls_flush(). */
size_t tls_write(struct tls *t, const unsigned char *in, size_t n);
void tls_flush(struct tls *t);

/* Begin an orderly end: close_notify. */
void tls_close(struct tls *t);

bool tls_handshake_done(const struct tls *t);

/* The name that the client asked for (SNI); NULL: none. Points into the engine. Not to be trusted. */
const char *tls_asked_name(const struct tls *t);

/* Whether the peer's first octet does not begin a handshake: it does not speak TLS. */
bool tls_began_otherwise(const struct tls *t);

/* Whether the connection has ended, in order or not. */
bool tls_closed(const struct tls *t);

/* Whether the peer has sent close_notify after the handshake, and ours, which is the answer, was not sent yet. */
bool tls_owes_close(const struct tls *t);

/* Why the handshake or the connection failed; NULL: it did not fail. Static storage. */
const char *tls_failure(const struct tls *t);

/* SHA-256 of the upstream's certificate, after the handshake. false: there is none. */
#define TLS_FINGERPRINT 32
bool tls_fingerprint(const struct tls *t, unsigned char fingerprint[TLS_FINGERPRINT]);

/* By what an upstream's certificate is verified. */
enum tls_proof { TLS_UNPROVEN, TLS_BY_CA, TLS_BY_EE, TLS_BY_TA };

/* Whose fault it is that a handshake has failed, or if it is done, that the upstream's certificate does not verify. UNMATCHED: no TLSA record
 * names the certificate, nor a CA of its chain. MISNAMED: it is for other names. UNTRUSTED: no trusted CA has signed it. OURS: what we lack
 * (keys and algorithms that BearSSL does not know, TLS 1.3), or what is wrong on this side (no CAs to trust, no random numbers, a certificate
 * of ours that the upstream refuses). OTHERWISE: whatever else, of which a handshake that was broken off is some. */
enum tls_fault { TLS_FAULTLESS, TLS_UNMATCHED, TLS_MISNAMED, TLS_UNTRUSTED, TLS_EXPIRED, TLS_OTHERWISE, TLS_OURS };
enum tls_fault tls_fault(const struct tls *t);

/* What is known after the handshake. reason: why the certificate does not verify; NULL: it does. Static storage. If a proxy
 * before us ended the client's TLS: version and cipher are what it says, NULL if it says nothing, and cn is the name in the
 * client's certificate. Otherwise cn is NULL. holder: the first host name in the upstream's certificate, if a trusted CA has signed
 * it; else NULL, also if it is verified by TLSA records. signature, key: of the certificate that the client was shown, as keys.h says, or as
 * the proxy does; NULL: not known. */
struct tls_facts {
	const char *version, *cipher, *reason, *cn, *signature, *key;
	bool verified;
	bool resumed; /* the session of an earlier connection */
	enum tls_proof proof;
	const char *holder;
};
void tls_facts(const struct tls *t, struct tls_facts *facts);

#endif
