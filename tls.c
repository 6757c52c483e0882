/* TLS on either side. See tls.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "tls.h"
#include "io/agent.h"
#include "io/keys.h"
#include "io/trust.h"
#include "pure/text.h"

#include <bearssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* Distributions build BearSSL for glibc with _FORTIFY_SOURCE. It then needs these functions, which musl lacks. */
#ifdef SMTPWARP_FORTIFY_SHIMS
void *__memcpy_chk(void *to, const void *from, size_t n, size_t room);
void *__memmove_chk(void *to, const void *from, size_t n, size_t room);
void *__memset_chk(void *to, int c, size_t n, size_t room);

void *__memcpy_chk(void *to, const void *from, size_t n, size_t room)
{
	if (n > room)
		abort();
	return memcpy(to, from, n);
}

void *__memmove_chk(void *to, const void *from, size_t n, size_t room)
{
	if (n > room)
		abort();
	return memmove(to, from, n);
}

void *__memset_chk(void *to, int c, size_t n, size_t room)
{
	if (n > room)
		abort();
	return memset(to, c, n);
}
#endif

#define CHAIN_MAX 16   /* certificates of a chain */
#define CHAIN_STEPS 16 /* to find the way to a CA in it */

/* Judges the peer's chain as br_x509_minimal does, but the level decides what the result means. It takes the peer's key from
 * the first certificate itself: br_x509_minimal stops reading, and has no key, if a certificate is expired or has another name,
 * and opportunistic TLS must work with those (RFC 7435 3). The whole chain is collected first: it may be out of order, and only
 * the trust anchors that it needs are decoded. With TLSA records a CA that they name is the only trust anchor, and a certificate that they
 * name needs none. */
struct chain {
	const br_x509_class *vtable; /* must be first: BearSSL calls us through it */
	br_x509_minimal_context minimal;
	br_x509_decoder_context leaf;
	const char *names[TLS_NAMES];
	size_t count;
	const struct dane_set *tlsa;
	const struct certificate *anchor; /* TLSA records: a CA that they name, which is tried now */
	bool by_leaf; /* they name the server's certificate itself */
	bool enforce;
	bool too_long;
	unsigned verdict;
	unsigned steps; /* left */
	size_t certificates;
	br_name_element holder;
	char holder_text[256];
	struct certificate certificate[CHAIN_MAX];
	const struct certificate *path[CHAIN_MAX]; /* from the server's certificate towards a CA's */
	size_t len;
	unsigned char der[32768];
};

/* A session with an upstream that may be resumed: with whom, its secrets, and what was found of its certificate. */
struct past {
	union net_address server; /* AF_UNSPEC: none is here */
	unsigned char demand[br_sha256_SIZE];
	br_ssl_session_parameters secrets;
	unsigned verdict;
	int status; /* of the holder, as in br_name_element */
	char holder[256];
	unsigned char fingerprint[TLS_FINGERPRINT];
};

struct tls {
	union { /* client and server begin with common */
		br_ssl_engine_context common;
		br_ssl_client_context client;
		br_ssl_server_context server;
	} engine;
	union net_address server; /* of the upstream, for find_past() */
	unsigned char demand[br_sha256_SIZE];
	const struct past *resumed; /* until the upstream begins a handshake in full */
	bool handshake_done;
	bool used;
	unsigned char first; /* first octet from the peer; 0: none yet */
	unsigned char in[BR_SSL_BUFSIZE_INPUT];
	unsigned char out[BR_SSL_BUFSIZE_OUTPUT];
};

static struct tls towards_upstream, towards_client;
static struct chain chain; /* of the upstream */
static struct past pasts[4];
static const struct keys *shown_pair; /* to the client */
static bool unsigned_; /* by our key: its agent has not answered */
/* Beside BearSSL's codes of errors, and TRUST_CONSTRAINED. */
enum { UNMATCHED = TRUST_CONSTRAINED + 1, UNUSABLE };

static const char no_name[] = "no name is known to check the certificate against";

int tls_load_anchors(const char *path, const char **why)
{
	return trust_load(path, why);
}

bool tls_has_anchors(void)
{
	return trust_loaded();
}

/* ---- the peer's chain ---- */

static const struct {
	int id;
	const br_hash_class *hash;
} hashes[] = {
	{ br_md5_ID, &br_md5_vtable },
	{ br_sha1_ID, &br_sha1_vtable },
	{ br_sha224_ID, &br_sha224_vtable },
	{ br_sha256_ID, &br_sha256_vtable },
	{ br_sha384_ID, &br_sha384_vtable },
	{ br_sha512_ID, &br_sha512_vtable },
};

#define FIRST_SHA256 3 /* index in hashes */
#define EC_SIGNATURE_MAX 139 /* octets that BearSSL has room for */
#define HANDSHAKE 22 /* content type of a record, RFC 5246 6.2.1 */

static void x509_start_chain(const br_x509_class **context, const char *name)
{
	struct chain *c = (struct chain *)(void *)context;

	towards_upstream.resumed = NULL;
	(void)name; /* that for SNI: there may be several to look for */
	c->len = 0;
	c->certificates = 0;
	c->too_long = false;
}

static void x509_start_cert(const br_x509_class **context, uint32_t length)
{
	struct chain *c = (struct chain *)(void *)context;

	if (c->certificates == CHAIN_MAX || length > sizeof c->der - c->len)
		c->too_long = true;
	else
		c->certificate[c->certificates++].der = (struct certificate_span){ c->der + c->len, length };
}

static void x509_append(const br_x509_class **context, const unsigned char *bytes, size_t n)
{
	struct chain *c = (struct chain *)(void *)context;

	if (c->too_long)
		return;
	memcpy(c->der + c->len, bytes, n);
	c->len += n;
}

static void x509_end_cert(const br_x509_class **context)
{
	(void)context;
}

static const unsigned char dns_name[] = { 0, 2 }; /* in subjectAltName, RFC 5280 4.2.1.6 */

static void prepare_minimal(struct chain *c, const br_x509_trust_anchor *anchors, size_t count)
{
	br_x509_minimal_init(&c->minimal, &br_sha256_vtable, anchors, count);
	br_x509_minimal_set_rsa(&c->minimal, br_rsa_pkcs1_vrfy_get_default());
	br_x509_minimal_set_minrsa(&c->minimal, 256);
	c->holder = (br_name_element){ dns_name, c->holder_text, sizeof c->holder_text, 0 };
	br_x509_minimal_set_name_elements(&c->minimal, &c->holder, 1);
	br_x509_minimal_set_ecdsa(&c->minimal, br_ec_get_default(), br_ecdsa_vrfy_asn1_get_default());
	for (size_t i = FIRST_SHA256; i < sizeof hashes / sizeof *hashes; i++)
		br_x509_minimal_set_hash(&c->minimal, hashes[i].id, hashes[i].hash);
}

/* What br_x509_minimal says of the first n certificates of the path. */
static unsigned run_minimal(struct chain *c, size_t n)
{
	const br_x509_class **x = &c->minimal.vtable;

	(*x)->start_chain(x, NULL);
	for (size_t i = 0; i < n; i++) {
		const struct certificate_span *der = &c->path[i]->der;

		(*x)->start_cert(x, (uint32_t)der->len);
		(*x)->append(x, der->bytes, der->len);
		(*x)->end_cert(x);
	}
	return (*x)->end_chain(x);
}

/* Whether the server's certificate is for one of the names. A server that TLSA records of CAs are to verify must have one: anybody else
 * may have a certificate of such a CA. */
static bool is_expected(const struct chain *c)
{
	for (size_t i = 0; i < c->count; i++)
		if (certificate_is_for(c->path[0], c->names[i]))
			return true;
	return !c->count && !c->tlsa;
}

/* And what it does not look at: several names, names that a CA may vouch for, what certificates are for, a key
 * that must not sign, as it does with ECDHE. It rejects names' constraints that are critical, but without saying so. */
static unsigned judge_path(struct chain *c, size_t n, unsigned left_out)
{
	const br_x509_class *const *x = &c->minimal.vtable;
	unsigned verdict, usages = 0;

	for (size_t i = 0; i < n; i++)
		if (c->path[i]->constrained)
			return TRUST_CONSTRAINED;
		else if (c->path[i]->for_others)
			return BR_ERR_X509_FORBIDDEN_KEY_USAGE;
	verdict = run_minimal(c, n);
	if ((!verdict || verdict == BR_ERR_X509_NOT_TRUSTED) && !is_expected(c))
		return BR_ERR_X509_BAD_SERVER_NAME;
	if (verdict == BR_ERR_X509_NOT_TRUSTED && left_out)
		return left_out;
	if (verdict)
		return verdict;
	(*x)->get_pkey(x, &usages);
	return usages & BR_KEYTYPE_SIGN ? 0 : BR_ERR_X509_FORBIDDEN_KEY_USAGE;
}

static bool is_on_path(const struct chain *c, size_t n, const struct certificate *one)
{
	for (size_t i = 0; i < n; i++)
		if (c->path[i] == one)
			return true;
	return false;
}

/* For the first n certificates of the path. */
static size_t find_anchors(const struct chain *c, size_t n, const br_x509_trust_anchor **anchors, unsigned *left_out)
{
	if (!c->tlsa)
		return trust_find(c->path, n, anchors, left_out);
	*left_out = 0;
	if (!certificate_same_name(&c->anchor->subject, &c->path[n - 1]->issuer))
		return 0;
	return trust_make(c->anchor, anchors, left_out);
}

/* Go on from the first n certificates of the path by issuers' names, in whatever order the others came and whatever else came with them,
 * up to one that a trusted CA has signed. The first reason why none is found remains. */
static bool find_path(struct chain *c, size_t n)
{
	const br_x509_trust_anchor *anchors;
	unsigned left_out, verdict;
	size_t count = find_anchors(c, n, &anchors, &left_out);

	if (count || left_out) {
		prepare_minimal(c, anchors, count);
		verdict = judge_path(c, n, left_out);
		if (!verdict || c->verdict == BR_ERR_X509_EMPTY_CHAIN)
			c->verdict = verdict;
		if (!verdict)
			return true;
	}
	for (size_t i = 1; i < c->certificates && c->steps; i++) {
		const struct certificate *next = &c->certificate[i];

		if (!certificate_same_name(&next->subject, &c->path[n - 1]->issuer) || is_on_path(c, n, next))
			continue;
		c->steps--;
		c->path[n] = next;
		if (find_path(c, n + 1))
			return true;
	}
	return false;
}

/* One that is malformed has no name, and so is on no path. */
static bool read_certificate(struct certificate *c)
{
	struct certificate_span der = c->der;

	if (certificate_read(c, der.bytes, der.len) && c->der.len == der.len)
		return true;
	*c = (struct certificate){ .der = der };
	return false;
}

static void judge_by_cas(struct chain *c)
{
	if (find_path(c, 1) || c->verdict != BR_ERR_X509_EMPTY_CHAIN)
		return;
	prepare_minimal(c, NULL, 0); /* no CA is known: what is wrong otherwise? */
	c->verdict = judge_path(c, 1, 0);
}

static void sha256(const struct certificate_span *in, unsigned char *out)
{
	br_sha256_context h;

	br_sha256_init(&h);
	br_sha256_update(&h, in->bytes, in->len);
	br_sha256_out(&h, out);
}

static void sha512(const struct certificate_span *in, unsigned char *out)
{
	br_sha512_context h;

	br_sha512_init(&h);
	br_sha512_update(&h, in->bytes, in->len);
	br_sha512_out(&h, out);
}

/* Whether a TLSA record of this usage names the certificate. */
static bool is_named(const struct chain *c, enum dane_usage usage, const struct certificate *one)
{
	struct dane_subject s = { .part = { [DANE_CERTIFICATE] = one->der, [DANE_KEY] = one->key } };

	if (!c->tlsa)
		return false;
	for (unsigned i = 0; i < DANE_SELECTORS; i++) {
		sha256(&s.part[i], s.sha256[i]);
		sha512(&s.part[i], s.sha512[i]);
	}
	return dane_matches(c->tlsa, usage, &s);
}

static bool leads_to(struct chain *c, const struct certificate *anchor)
{
	if (!c->steps)
		return false;
	c->steps--;
	c->anchor = anchor;
	return find_path(c, 1);
}

/* RFC 7672 3.1.2: by a CA that a TLSA record names, which the server sends, RFC 7671 5.2.2, unless the record is its certificate. */
static void judge_by_tlsa(struct chain *c)
{
	struct certificate own;

	for (size_t i = 1; i < c->certificates; i++)
		if (is_named(c, DANE_TA, &c->certificate[i]) && leads_to(c, &c->certificate[i]))
			return;
	for (unsigned i = 0; i < c->tlsa->count; i++)
		if (dane_anchor(c->tlsa, i, &own) && leads_to(c, &own))
			return;
	if (c->verdict == BR_ERR_X509_EMPTY_CHAIN)
		c->verdict = UNMATCHED;
}

static void judge_chain(struct chain *c)
{
	bool readable = c->certificates && read_certificate(&c->certificate[0]);

	c->verdict = !c->certificates ? BR_ERR_X509_EMPTY_CHAIN : c->too_long ? BR_ERR_X509_LIMIT_EXCEEDED : BR_ERR_X509_INVALID_VALUE;
	c->by_leaf = readable && is_named(c, DANE_EE, &c->certificate[0]);
	if (c->by_leaf) /* nothing else counts, RFC 7672 3.1.1 */
		c->verdict = 0;
	if (c->by_leaf || c->too_long || !readable)
		return;
	for (size_t i = 1; i < c->certificates; i++)
		read_certificate(&c->certificate[i]);
	c->verdict = BR_ERR_X509_EMPTY_CHAIN;
	c->steps = CHAIN_STEPS;
	c->path[0] = &c->certificate[0];
	(c->tlsa ? judge_by_tlsa : judge_by_cas)(c);
}

/* Why the key of the server's certificate cannot be used; 0: it can. */
static unsigned key_fault(struct chain *c)
{
	int error;

	br_x509_decoder_init(&c->leaf, NULL, NULL);
	if (!c->certificates)
		return BR_ERR_X509_EMPTY_CHAIN;
	br_x509_decoder_push(&c->leaf, c->certificate[0].der.bytes, c->certificate[0].der.len);
	if (br_x509_decoder_get_pkey(&c->leaf))
		return 0;
	error = br_x509_decoder_last_error(&c->leaf);
	return error == BR_ERR_X509_UNSUPPORTED || error == BR_ERR_X509_LIMIT_EXCEEDED ? UNUSABLE : (unsigned)error;
}

static unsigned x509_end_chain(const br_x509_class **context)
{
	struct chain *c = (struct chain *)(void *)context;
	unsigned fault = key_fault(c);

	judge_chain(c);
	if (fault && (!c->verdict || (fault == UNUSABLE && !c->tlsa)))
		c->verdict = fault;
	return c->enforce ? c->verdict : fault;
}

static const br_x509_pkey *x509_get_pkey(const br_x509_class *const *context, unsigned *usages)
{
	const struct chain *c = (const struct chain *)(const void *)context;
	br_x509_decoder_context *leaf = (br_x509_decoder_context *)&c->leaf; /* the accessor's type lacks const */
	const br_x509_class *const *minimal = &c->minimal.vtable;

	if (c->enforce && !c->by_leaf) /* including what the certificate allows the key to be used for */
		return (*minimal)->get_pkey(minimal, usages);
	if (usages)
		*usages = BR_KEYTYPE_KEYX | BR_KEYTYPE_SIGN;
	return br_x509_decoder_get_pkey(leaf);
}

static const br_x509_class chain_class = { sizeof(struct chain), x509_start_chain, x509_start_cert, x509_append, x509_end_cert,
	x509_end_chain, x509_get_pkey };

/* ---- the engine ---- */

/* Cipher suites for upstreams that are verified: ephemeral keys and AEAD. */
#define STRONG_SUITES(X)                                                                                               \
	X(TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)                                                                     \
	X(TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)                                                                       \
	X(TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384)                                                                     \
	X(TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384)                                                                       \
	X(TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256)                                                               \
	X(TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)

/* For clients: those, and others with ephemeral keys and SHA-2. */
#define GOOD_SUITES(X)                                                                                                 \
	STRONG_SUITES(X)                                                                                               \
	X(TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256)                                                                     \
	X(TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256)                                                                       \
	X(TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384)                                                                     \
	X(TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384)

/* For upstreams: those, and what old servers need. */
#define SUITES(X)                                                                                                      \
	GOOD_SUITES(X)                                                                                                 \
	X(TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA)                                                                        \
	X(TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA)                                                                          \
	X(TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA)                                                                        \
	X(TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA)                                                                          \
	X(TLS_RSA_WITH_AES_128_GCM_SHA256)                                                                             \
	X(TLS_RSA_WITH_AES_256_GCM_SHA384)                                                                             \
	X(TLS_RSA_WITH_AES_128_CBC_SHA256)                                                                             \
	X(TLS_RSA_WITH_AES_256_CBC_SHA256)                                                                             \
	X(TLS_RSA_WITH_AES_128_CBC_SHA)                                                                                \
	X(TLS_RSA_WITH_AES_256_CBC_SHA)

static const uint16_t suites[] = {
#define X(suite) BR_##suite,
	SUITES(X)
#undef X
};

enum {
#define X(suite) STRONG_##suite,
	STRONG_SUITES(X)
#undef X
	    STRONG_COUNT
};

enum {
#define X(suite) GOOD_##suite,
	GOOD_SUITES(X)
#undef X
	    GOOD_COUNT
};

static const char suite_names[][48] = {
#define X(suite) #suite,
	SUITES(X)
#undef X
};

/* Use the first suite_count suites of the list above, and the hashes from first_hash on. */
static void set_algorithms(br_ssl_engine_context *e, size_t suite_count, size_t first_hash)
{
	br_ssl_engine_set_suites(e, suites, suite_count);
	for (size_t i = first_hash; i < sizeof hashes / sizeof *hashes; i++)
		br_ssl_engine_set_hash(e, hashes[i].id, hashes[i].hash);
	br_ssl_engine_set_prf_sha256(e, &br_tls12_sha256_prf);
	br_ssl_engine_set_prf_sha384(e, &br_tls12_sha384_prf);
	br_ssl_engine_set_default_aes_cbc(e);
	br_ssl_engine_set_default_aes_gcm(e);
	br_ssl_engine_set_default_chapol(e);
}

/* How many of the list suffice for an upstream that counts as verified. One that publishes TLSA records promises a certificate, and no more
 * than TLS: with ciphers that are good for clients it gets its mail. */
static size_t enough_suites(void)
{
	return chain.tlsa ? GOOD_COUNT : STRONG_COUNT;
}

/* The last steps for both sides. Versions and algorithms must be set. false: there are no random numbers. */
static bool make_ready(struct tls *t, uint32_t flags)
{
	br_ssl_engine_context *e = &t->engine.common;
	unsigned char seed[32];

	t->handshake_done = false;
	unsigned_ = false;
	t->first = 0;
	t->used = true;
	br_ssl_engine_set_buffers_bidi(e, t->in, sizeof t->in, t->out, sizeof t->out);
	br_ssl_engine_add_flags(e, flags | BR_OPT_NO_RENEGOTIATION);
	/* BearSSL's own seeding needs /dev/urandom or RDRAND; a chroot or an old processor may lack them. The engine accepts a
	 * seed only now, with the hashes set. */
	if (getrandom(seed, sizeof seed, 0) != (ssize_t)sizeof seed)
		return false;
	br_ssl_engine_inject_entropy(e, seed, sizeof seed);
	explicit_bzero(seed, sizeof seed);
	return true;
}

/* ---- our keys ---- */

/* The pair that a key belongs to. BearSSL calls us with the key that it was given: only its place says which one is meant, for an agent has
 * the key itself. */
static enum keys_pair pair_of(const void *key)
{
	enum keys_pair pair = KEYS_CLIENTS;
	const struct keys *k = keys_current(pair);

	while (pair < KEYS_UPSTREAM && (!k || (key != &k->rsa && key != &k->ec)))
		k = keys_current(++pair);
	return pair;
}

/* A hash's size says which it is. */
static size_t sign(const void *key, const unsigned char *hash, size_t n, unsigned char signature[AGENT_SIGNATURE_MAX])
{
	size_t len = agent_sign(pair_of(key), hash, n, signature);

	unsigned_ = !len;
	return len;
}

static uint32_t sign_rsa(const unsigned char *oid, const unsigned char *hash, size_t n, const br_rsa_private_key *key,
    unsigned char *signature)
{
	unsigned char whole[AGENT_SIGNATURE_MAX];
	size_t len = (key->n_bitlen + 7) / 8;

	(void)oid;
	if (sign(key, hash, n, whole) != len)
		return 0;
	memcpy(signature, whole, len);
	return 1;
}

static size_t sign_ec(const br_ec_impl *impl, const br_hash_class *hash_class, const void *hash, const br_ec_private_key *key,
    void *signature)
{
	unsigned char whole[AGENT_SIGNATURE_MAX];
	size_t len = sign(key, hash, hash_class->desc >> BR_HASHDESC_OUT_OFF & BR_HASHDESC_OUT_MASK, whole);

	(void)impl;
	if (len > EC_SIGNATURE_MAX)
		return 0;
	memcpy(signature, whole, len);
	return len;
}

/* For an upstream that asks for a certificate. */
static void set_own_certificate(br_ssl_client_context *c)
{
	const struct keys *k = keys_current(KEYS_UPSTREAM);

	if (k && k->type == BR_KEYTYPE_RSA)
		br_ssl_client_set_single_rsa(c, k->chain, k->certificates, &k->rsa, sign_rsa);
	else if (k)
		br_ssl_client_set_single_ec(c, k->chain, k->certificates, &k->ec, BR_KEYTYPE_SIGN, 0, br_ec_get_default(), sign_ec);
}

/* What the next chain is judged by. */
static void prepare_chain(const struct tls_demand *demand)
{
	chain.vtable = &chain_class;
	chain.enforce = tls_level_verifies(demand->level);
	chain.verdict = BR_ERR_X509_EMPTY_CHAIN;
	chain.by_leaf = false;
	chain.tlsa = demand->tlsa;
	chain.count = demand->count < TLS_NAMES ? demand->count : TLS_NAMES;
	for (size_t i = 0; i < chain.count; i++)
		chain.names[i] = demand->names[i];
}

/* ---- resumption ---- */

/* What decides whether a server may be resumed, but for its address. */
static void digest(const struct tls_demand *demand, unsigned char out[br_sha256_SIZE])
{
	br_sha256_context h;

	br_sha256_init(&h);
	br_sha256_update(&h, &demand->level, sizeof demand->level);
	if (demand->sni)
		br_sha256_update(&h, demand->sni, strlen(demand->sni));
	for (size_t i = 0; i < demand->count; i++) {
		br_sha256_update(&h, "", 1);
		br_sha256_update(&h, demand->names[i], strlen(demand->names[i]));
	}
	br_sha256_out(&h, out);
}

/* NULL: there is none. */
static struct past *find_past(const struct tls *t)
{
	for (size_t i = 0; i < sizeof pasts / sizeof *pasts; i++)
		if (net_same(&pasts[i].server, &t->server) && memcmp(pasts[i].demand, t->demand, sizeof t->demand) == 0)
			return &pasts[i];
	return NULL;
}

/* The last connection is over, and its engine is about to be used again. What has failed is not resumed (RFC 5246 7.2.2), nor what was to be
 * resumed and failed. */
static void remember(const struct tls *t)
{
	static unsigned next;
	struct past *past = find_past(t);
	bool good = t->handshake_done && !tls_failure(t) && t->engine.common.session.session_id_len;

	if (past && !good)
		explicit_bzero(past, sizeof *past);
	if (!good || t->resumed || t->server.sa.sa_family == AF_UNSPEC)
		return;
	past = past ? past : &pasts[next++ % (sizeof pasts / sizeof *pasts)];
	past->server = t->server;
	memcpy(past->demand, t->demand, sizeof past->demand);
	br_ssl_engine_get_session_parameters(&t->engine.common, &past->secrets);
	past->verdict = chain.verdict;
	past->status = chain.holder.status;
	memcpy(past->holder, chain.holder_text, sizeof past->holder);
	tls_fingerprint(t, past->fingerprint);
}

/* Whose TLSA records have decided, those may decide otherwise later. The path of a Unix socket is not known here. */
static void find_resumed(struct tls *t, const struct tls_demand *demand)
{
	t->resumed = NULL;
	t->server.sa.sa_family = AF_UNSPEC;
	if (!demand->server || demand->server->sa.sa_family == AF_UNIX || demand->tlsa)
		return;
	t->server = *demand->server;
	digest(demand, t->demand);
	t->resumed = find_past(t);
	if (!t->resumed)
		return;
	chain.verdict = t->resumed->verdict;
	chain.holder.status = t->resumed->status;
	memcpy(chain.holder_text, t->resumed->holder, sizeof chain.holder_text);
	br_ssl_engine_set_session_parameters(&t->engine.common, &t->resumed->secrets);
}

bool tls_resumes(const struct tls *t)
{
	return t->resumed && !t->handshake_done;
}

struct tls *tls_start(const struct tls_demand *demand, const char **why)
{
	struct tls *t = &towards_upstream;
	br_ssl_engine_context *e = &t->engine.common;

	remember(t);
	br_ssl_client_zero(&t->engine.client);
	br_ssl_engine_set_versions(e, demand->level == TLS_MAY ? BR_TLS10 : BR_TLS12, BR_TLS12);
	prepare_chain(demand);
	if (chain.enforce)
		set_algorithms(e, enough_suites(), FIRST_SHA256);
	else
		set_algorithms(e, sizeof suites / sizeof *suites, 0);
	br_ssl_engine_set_prf10(e, &br_tls10_prf);
	br_ssl_client_set_default_rsapub(&t->engine.client);
	br_ssl_engine_set_default_rsavrfy(e);
	br_ssl_engine_set_default_ecdsa(e);
	set_own_certificate(&t->engine.client);
	br_ssl_engine_set_x509(e, &chain.vtable);
	*why = no_name;
	if (chain.enforce && !chain.count && !chain.tlsa) /* without a name BearSSL accepts a certificate for any name */
		return NULL;
	*why = "no random numbers";
	if (!make_ready(t, 0))
		return NULL;
	*why = "the name is too long for TLS";
	find_resumed(t, demand);
	return br_ssl_client_reset(&t->engine.client, demand->sni, t->resumed != NULL) ? t : NULL;
}

static void show_pair(br_ssl_server_context *s, const struct keys *k)
{
	shown_pair = k;
	if (k->type == BR_KEYTYPE_RSA) /* with ECDHE the key only signs, so nothing is needed that decrypts */
		br_ssl_server_set_single_rsa(s, k->chain, k->certificates, &k->rsa, BR_KEYTYPE_SIGN, NULL, sign_rsa);
	else
		br_ssl_server_set_single_ec(s, k->chain, k->certificates, &k->ec, BR_KEYTYPE_SIGN, 0, br_ec_get_default(), sign_ec);
}

/* BearSSL asks what to show once it knows the client's name for us and its algorithms. The name decides (RFC 6066 3); of several pairs that
 * have it, and of all if none has, the first whose kind of key the client takes. From then on BearSSL asks what show_pair() has put in our
 * place. */
static int choose(const br_ssl_server_policy_class **policy, const br_ssl_server_context *asker, br_ssl_server_choices *choices)
{
	br_ssl_server_context *s = &towards_client.engine.server;
	const char *name = tls_asked_name(&towards_client);

	(void)policy;
	(void)asker;
	for (unsigned any = name ? 0 : 1; any <= 1; any++)
		for (enum keys_pair pair = KEYS_CLIENTS; pair < KEYS_UPSTREAM && keys_current(pair); pair++) {
			if (!any && !keys_have_name(keys_current(pair), name))
				continue;
			show_pair(s, keys_current(pair));
			if ((*s->policy_vtable)->choose(s->policy_vtable, s, choices))
				return 1;
		}
	return 0;
}

struct tls *tls_serve(const char **why)
{
	static const br_ssl_server_policy_class by_name = { .context_size = sizeof(void *), .choose = choose };
	static const br_ssl_server_policy_class *policy = &by_name;
	struct tls *t = &towards_client;
	br_ssl_server_context *s = &t->engine.server;

	br_ssl_server_zero(s);
	br_ssl_engine_set_versions(&s->eng, BR_TLS12, BR_TLS12);
	set_algorithms(&s->eng, GOOD_COUNT, FIRST_SHA256);
	br_ssl_engine_set_default_ec(&s->eng);
	if (keys_current(KEYS_CLIENTS + 1))
		br_ssl_server_set_policy(s, &policy);
	else
		show_pair(s, keys_current(KEYS_CLIENTS));
	*why = "no random numbers";
	return make_ready(t, BR_OPT_ENFORCE_SERVER_PREFERENCES) && br_ssl_server_reset(s) ? t : NULL;
}

void tls_wipe(void)
{
	if (towards_upstream.used)
		explicit_bzero(&towards_upstream, sizeof towards_upstream);
	for (size_t i = 0; i < sizeof pasts / sizeof *pasts; i++)
		if (pasts[i].server.sa.sa_family != AF_UNSPEC)
			explicit_bzero(&pasts[i], sizeof pasts[i]);
	if (towards_client.used)
		explicit_bzero(&towards_client, sizeof towards_client);
}

static unsigned state(const struct tls *t)
{
	return br_ssl_engine_current_state(&t->engine.common);
}

/* The engine offers SENDAPP first when the handshake is over, and may withdraw it while a record is full. */
static void note_handshake(struct tls *t)
{
	if (!t->handshake_done && (state(t) & (BR_SSL_SENDAPP | BR_SSL_RECVAPP)))
		t->handshake_done = true;
}

size_t tls_put_record(struct tls *t, const unsigned char *in, size_t n)
{
	size_t done = 0, room;

	if (n && !t->first)
		t->first = in[0];
	while (done < n && (state(t) & BR_SSL_RECVREC)) {
		unsigned char *p = br_ssl_engine_recvrec_buf(&t->engine.common, &room);

		room = n - done < room ? n - done : room;
		memcpy(p, in + done, room);
		br_ssl_engine_recvrec_ack(&t->engine.common, room);
		done += room;
		note_handshake(t);
	}
	return done;
}

size_t tls_get_record(struct tls *t, const unsigned char **out)
{
	size_t n = 0;

	if (state(t) & BR_SSL_SENDREC)
		*out = br_ssl_engine_sendrec_buf(&t->engine.common, &n);
	return n;
}

void tls_sent(struct tls *t, size_t n)
{
	br_ssl_engine_sendrec_ack(&t->engine.common, n);
	note_handshake(t);
}

size_t tls_read(struct tls *t, unsigned char *out, size_t cap)
{
	size_t done = 0, n;

	while (done < cap && (state(t) & BR_SSL_RECVAPP)) {
		const unsigned char *p = br_ssl_engine_recvapp_buf(&t->engine.common, &n);

		n = cap - done < n ? cap - done : n;
		memcpy(out + done, p, n);
		br_ssl_engine_recvapp_ack(&t->engine.common, n);
		done += n;
	}
	return done;
}

bool tls_readable(const struct tls *t)
{
	return (state(t) & BR_SSL_RECVAPP) != 0;
}

size_t tls_write(struct tls *t, const unsigned char *in, size_t n)
{
	size_t done = 0, room;

	while (done < n && (state(t) & BR_SSL_SENDAPP)) {
		unsigned char *p = br_ssl_engine_sendapp_buf(&t->engine.common, &room);

		room = n - done < room ? n - done : room;
		memcpy(p, in + done, room);
		br_ssl_engine_sendapp_ack(&t->engine.common, room);
		done += room;
	}
	return done;
}

void tls_flush(struct tls *t)
{
	br_ssl_engine_flush(&t->engine.common, 0);
}

void tls_close(struct tls *t)
{
	br_ssl_engine_close(&t->engine.common);
}

const char *tls_asked_name(const struct tls *t)
{
	const char *name = br_ssl_engine_get_server_name(&t->engine.common);

	return *name ? name : NULL;
}

bool tls_began_otherwise(const struct tls *t)
{
	return t->first && t->first != HANDSHAKE;
}

bool tls_handshake_done(const struct tls *t)
{
	return t->handshake_done;
}

bool tls_closed(const struct tls *t)
{
	return state(t) == BR_SSL_CLOSED;
}

bool tls_owes_close(const struct tls *t)
{
	/* the engine takes nothing, has nothing to give, and is not closed */
	return tls_handshake_done(t) && !(state(t) & (BR_SSL_RECVREC | BR_SSL_RECVAPP | BR_SSL_CLOSED));
}

/* ---- what happened ---- */

/* What a code means, and whose fault it is: session/tlsreport.c tells domains of theirs. What may be either's is not ours: an algorithm that is
 * not supported may be SHA-1, and a peer that finds nothing in common may have no certificate. */
#define REASONS(X) \
	X(BR_ERR_BAD_PARAM, TLS_OTHERWISE, "the peer's TLS parameters are invalid") \
	X(BR_ERR_UNSUPPORTED_VERSION, TLS_OTHERWISE, "no TLS version in common (or the peer did not speak TLS)") \
	X(BR_ERR_BAD_VERSION, TLS_OTHERWISE, "records of different TLS versions") \
	X(BR_ERR_TOO_LARGE, TLS_OTHERWISE, "a record that is too large") \
	X(BR_ERR_BAD_MAC, TLS_OTHERWISE, "a record's integrity check failed") \
	X(BR_ERR_NO_RANDOM, TLS_OURS, "no random numbers") \
	X(BR_ERR_UNKNOWN_TYPE, TLS_OTHERWISE, "a record of unknown type (the peer may not have spoken TLS)") \
	X(BR_ERR_UNEXPECTED, TLS_OTHERWISE, "an unexpected message") \
	X(BR_ERR_BAD_CCS, TLS_OTHERWISE, "a malformed change-cipher-spec") \
	X(BR_ERR_BAD_ALERT, TLS_OTHERWISE, "a malformed alert") \
	X(BR_ERR_BAD_HANDSHAKE, TLS_OTHERWISE, "a malformed handshake") \
	X(BR_ERR_BAD_CIPHER_SUITE, TLS_OTHERWISE, "no cipher suite in common") \
	X(BR_ERR_BAD_COMPRESSION, TLS_OTHERWISE, "compression was demanded") \
	X(BR_ERR_BAD_FINISHED, TLS_OTHERWISE, "the handshake's integrity check failed") \
	X(BR_ERR_INVALID_ALGORITHM, TLS_OTHERWISE, "an algorithm that is not supported") \
	X(BR_ERR_BAD_SIGNATURE, TLS_OTHERWISE, "the handshake's signature is wrong") \
	X(BR_ERR_WRONG_KEY_USAGE, TLS_OTHERWISE, "a key of the wrong kind") \
	X(BR_ERR_X509_EXPIRED, TLS_EXPIRED, "certificate is expired or not yet valid") \
	X(BR_ERR_X509_BAD_SERVER_NAME, TLS_MISNAMED, "certificate is for another name") \
	X(BR_ERR_X509_NOT_TRUSTED, TLS_UNTRUSTED, "certificate is not signed by a trusted CA") \
	X(BR_ERR_X509_BAD_SIGNATURE, TLS_OTHERWISE, "certificate's signature is wrong") \
	X(BR_ERR_X509_UNSUPPORTED, TLS_OTHERWISE, "certificate's key or algorithm is not supported") \
	X(BR_ERR_X509_WEAK_PUBLIC_KEY, TLS_OTHERWISE, "certificate's key is too weak") \
	X(BR_ERR_X509_NOT_CA, TLS_OTHERWISE, "an issuing certificate is not a CA's") \
	X(BR_ERR_X509_FORBIDDEN_KEY_USAGE, TLS_OTHERWISE, "certificate is not meant for this use") \
	X(BR_ERR_X509_CRITICAL_EXTENSION, TLS_OURS, "certificate has an unknown critical extension") \
	X(BR_ERR_X509_WRONG_KEY_TYPE, TLS_OTHERWISE, "certificate's key has the wrong type") \
	X(BR_ERR_X509_EMPTY_CHAIN, TLS_OTHERWISE, "no certificate") \
	X(UNMATCHED, TLS_UNMATCHED, "no TLSA record matches the certificate, nor a CA of its chain") \
	X(UNUSABLE, TLS_OURS, "the certificate's key cannot be used: RSA of more than 4096 bits, or neither RSA nor ECDSA") \
	X(TRUST_CONSTRAINED, TLS_OURS, "a CA of the chain may vouch for certain names only (name constraints), which is not checked") \
	X(BR_ERR_X509_INVALID_VALUE, TLS_OTHERWISE, "certificate is malformed") \
	X(BR_ERR_X509_TRUNCATED, TLS_OTHERWISE, "certificate is malformed") \
	X(BR_ERR_X509_BAD_TAG_CLASS, TLS_OTHERWISE, "certificate is malformed") \
	X(BR_ERR_X509_BAD_TAG_VALUE, TLS_OTHERWISE, "certificate is malformed") \
	X(BR_ERR_X509_UNEXPECTED, TLS_OTHERWISE, "certificate is malformed") \
	X(BR_ERR_X509_BAD_TIME, TLS_OTHERWISE, "certificate is malformed") \
	X(BR_ERR_X509_LIMIT_EXCEEDED, TLS_OTHERWISE, "certificate chain is too long") \
	X(BR_ERR_RECV_FATAL_ALERT + 40, TLS_OTHERWISE, "the peer found no common parameters, or has only kinds of keys that are not supported") \
	X(BR_ERR_RECV_FATAL_ALERT + 42, TLS_OURS, "the peer refused our certificate") \
	X(BR_ERR_RECV_FATAL_ALERT + 43, TLS_OURS, "the peer knows no certificates of our kind") \
	X(BR_ERR_RECV_FATAL_ALERT + 44, TLS_OURS, "the peer refused our certificate: it is revoked") \
	X(BR_ERR_RECV_FATAL_ALERT + 45, TLS_OURS, "the peer refused our certificate: it is expired") \
	X(BR_ERR_RECV_FATAL_ALERT + 46, TLS_OURS, "the peer refused our certificate") \
	X(BR_ERR_RECV_FATAL_ALERT + 48, TLS_OURS, "the peer does not trust our certificate") \
	X(BR_ERR_RECV_FATAL_ALERT + 49, TLS_OURS, "the peer refused us by our certificate") \
	X(BR_ERR_RECV_FATAL_ALERT + 70, TLS_OURS, "the peer takes no TLS version of ours (perhaps only TLS 1.3)") \
	X(BR_ERR_RECV_FATAL_ALERT + 71, TLS_OURS, "the peer wants stronger cipher suites") \
	X(BR_ERR_RECV_FATAL_ALERT + 80, TLS_OTHERWISE, "the peer had an internal error") \
	X(BR_ERR_RECV_FATAL_ALERT + 112, TLS_OTHERWISE, "the peer does not know the name it was asked for") \
	X(BR_ERR_X509_TIME_UNKNOWN, TLS_OURS, "the time is unknown") \
	X(BR_ERR_SEND_FATAL_ALERT + 40, TLS_OTHERWISE, "no cipher suite or curve in common (perhaps the peer takes only TLS 1.3)") \
	X(BR_ERR_SEND_FATAL_ALERT + 70, TLS_OTHERWISE, "no TLS version in common")

static const struct {
	uint16_t code;
	unsigned char fault; /* enum tls_fault */
} reasons[] = {
#define X(code, fault, text) { code, fault },
	REASONS(X)
#undef X
};

/* The text of each, one behind the other. */
static const char reason_texts[] =
#define X(code, fault, text) text "\0"
	REASONS(X)
#undef X
	;

#define N_REASONS (sizeof reasons / sizeof *reasons)

/* Its index among them; N_REASONS: it is none of them. */
static size_t find_reason(int code)
{
	size_t i = 0;

	while (i < N_REASONS && reasons[i].code != code)
		i++;
	return i;
}

static const char *reason_text(int code)
{
	static char other[48];
	const size_t reason = find_reason(code);

	if (reason < N_REASONS)
		return text_nth(reason_texts, reason);
	if (code >= BR_ERR_SEND_FATAL_ALERT)
		snprintf(other, sizeof other, "TLS alert %d sent", code - BR_ERR_SEND_FATAL_ALERT);
	else if (code >= BR_ERR_RECV_FATAL_ALERT)
		snprintf(other, sizeof other, "the peer sent TLS alert %d", code - BR_ERR_RECV_FATAL_ALERT);
	else
		snprintf(other, sizeof other, "TLS error %d", code);
	return other;
}

const char *tls_failure(const struct tls *t)
{
	int code = br_ssl_engine_last_error(&t->engine.common);

	return code == BR_ERR_OK ? NULL : unsigned_ ? "the process that keeps our key did not sign" : reason_text(code);
}

bool tls_fingerprint(const struct tls *t, unsigned char fingerprint[TLS_FINGERPRINT])
{
	if (t->resumed) {
		memcpy(fingerprint, t->resumed->fingerprint, TLS_FINGERPRINT);
		return true;
	}
	if (t != &towards_upstream || !chain.certificates)
		return false;
	sha256(&chain.certificate[0].der, fingerprint);
	return true;
}

/* Why the upstream would not pass as verified; NULL: it would. */
static const char *reason_against(unsigned version, size_t suite)
{
	if (chain.verdict)
		return reason_text((int)chain.verdict);
	if (!chain.count && !chain.tlsa)
		return no_name;
	return version != BR_TLS12 || suite >= enough_suites() ? "TLS version or cipher suite is too weak" : NULL;
}

/* Without CAs to trust, which is said where they are read, no chain leads to one. */
static enum tls_fault fault_of(int code)
{
	const size_t reason = find_reason(code);
	const enum tls_fault fault = reason < N_REASONS ? (enum tls_fault)reasons[reason].fault : TLS_OTHERWISE;

	return fault == TLS_UNTRUSTED && !chain.tlsa && !trust_loaded() ? TLS_OURS : fault;
}

enum tls_fault tls_fault(const struct tls *t)
{
	int code = br_ssl_engine_last_error(&t->engine.common);

	if (code != BR_ERR_OK)
		return unsigned_ ? TLS_OURS : fault_of(code);
	if (!t->handshake_done)
		return TLS_OTHERWISE;
	if (chain.verdict)
		return fault_of((int)chain.verdict);
	return chain.count || chain.tlsa ? TLS_FAULTLESS : TLS_OURS;
}

void tls_facts(const struct tls *t, struct tls_facts *facts)
{
	br_ssl_session_parameters session;
	unsigned version = br_ssl_engine_get_version(&t->engine.common);
	size_t suite;

	br_ssl_engine_get_session_parameters(&t->engine.common, &session);
	facts->version = version == BR_TLS12 ? "TLSv1.2" : version == BR_TLS11 ? "TLSv1.1" : "TLSv1.0";
	for (suite = 0; suite < sizeof suites / sizeof *suites && suites[suite] != session.cipher_suite; suite++)
		;
	facts->cipher = suite < sizeof suites / sizeof *suites ? suite_names[suite] : "unknown";
	explicit_bzero(&session, sizeof session);
	facts->verified = facts->resumed = false;
	facts->proof = TLS_UNPROVEN;
	facts->reason = facts->cn = facts->holder = facts->signature = facts->key = NULL;
	if (t == &towards_client) { /* clients are not asked for certificates */
		facts->signature = shown_pair->signature;
		facts->key = shown_pair->kind;
		return;
	}
	facts->reason = reason_against(version, suite);
	facts->verified = !facts->reason;
	facts->resumed = t->resumed != NULL;
	if (facts->verified)
		facts->proof = !chain.tlsa ? TLS_BY_CA : chain.by_leaf ? TLS_BY_EE : TLS_BY_TA;
	if (!chain.verdict && !chain.tlsa && chain.holder.status == 1)
		facts->holder = chain.holder_text;
}
