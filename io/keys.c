/* Certificates and keys. See keys.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/keys.h"
#include "io/file.h"
#include "pure/base64.h"
#include "pure/certificate.h"
#include "pure/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILE_MAX (1 << 20) /* octets */

/* ---- PEM ---- */

static const char *take_chain(struct keys *k, unsigned char *text, size_t n)
{
	const unsigned char *at = text;
	unsigned char *out = text; /* DER is shorter than its text, so it never overtakes what is read */
	struct pem p;
	size_t len;

	while (pem_next(&at, text + n, &p)) {
		if (!pem_is(&p, "CERTIFICATE"))
			continue;
		if (k->certificates == KEYS_CHAIN_MAX)
			return "more than " TEXT_OF(KEYS_CHAIN_MAX) " certificates";
		len = base64_decode(p.body, p.body_len, out, p.body_len);
		k->chain[k->certificates++] = (br_x509_certificate){ out, len };
		out += len;
	}
	explicit_bzero(out, (size_t)(text + n - out)); /* the key may be in the same file */
	return k->certificates ? NULL : "no certificate in it";
}

static const char *decode_key(struct keys_secret *k, const unsigned char *der, size_t n)
{
	static const char other[] = "a kind of key that is not supported: it must be RSA of 2048 to 4096 bits, P-256 or P-384";

	br_skey_decoder_init(&k->decoder);
	br_skey_decoder_push(&k->decoder, der, n);
	k->rsa = br_skey_decoder_get_rsa(&k->decoder);
	k->ec = br_skey_decoder_get_ec(&k->decoder);
	if (k->rsa)
		return k->rsa->n_bitlen < 2048 || k->rsa->n_bitlen > 4096 ? other : NULL;
	if (k->ec)
		return k->ec->curve != BR_EC_secp256r1 && k->ec->curve != BR_EC_secp384r1 ? other : NULL;
	return br_skey_decoder_last_error(&k->decoder) == BR_ERR_X509_UNSUPPORTED ? other : "the key in it is malformed, "
	    "or of a kind that is not supported";
}

static const char *take_key(struct keys_secret *k, unsigned char *text, size_t n)
{
	static const char encrypted[] = "the key is encrypted, and nobody is there to be asked for its password";
	const unsigned char *at = text;
	struct pem p;

	while (pem_next(&at, text + n, &p)) {
		if (pem_is(&p, "ENCRYPTED PRIVATE KEY"))
			return encrypted;
		if (!pem_is(&p, "PRIVATE KEY") && !pem_is(&p, "RSA PRIVATE KEY") && !pem_is(&p, "EC PRIVATE KEY"))
			continue;
		if (memmem(p.body, p.body_len, "ENCRYPTED", 9)) /* Proc-Type: 4,ENCRYPTED, RFC 1421 4.6.1.1 */
			return encrypted;
		return decode_key(k, text, base64_decode(p.body, p.body_len, text, p.body_len));
	}
	return "no private key in it";
}

/* ---- whether certificate and key match ---- */

/* The modulus is p times q. BearSSL 0.6 has a function for that, but it fails for 4096 bits. */
static bool is_rsa_of(const br_rsa_private_key *private, const br_rsa_public_key *public)
{
	unsigned char n[BR_X509_BUFSIZE_KEY] = { 0 };
	size_t len = private->plen + private->qlen, zeros = 0;

	if (len > sizeof n)
		return false;
	for (size_t i = private->plen; i-- > 0;) {
		unsigned carry = 0;

		for (size_t k = private->qlen; k-- > 0; carry >>= 8) {
			carry += n[i + k + 1] + (unsigned)private->p[i] * private->q[k];
			n[i + k + 1] = (unsigned char)carry;
		}
		n[i] = (unsigned char)carry;
	}
	while (zeros < len && !n[zeros])
		zeros++;
	return len - zeros == public->nlen && memcmp(n + zeros, public->n, public->nlen) == 0;
}

static bool is_ec_of(const br_ec_private_key *private, const br_ec_public_key *public)
{
	unsigned char q[BR_EC_KBUF_PUB_MAX_SIZE];

	return private->curve == public->curve && br_ec_compute_pub(br_ec_get_default(), NULL, q, private) == public->qlen &&
	    memcmp(q, public->q, public->qlen) == 0;
}

static bool match(const struct keys *k, const struct keys_secret *secret)
{
	br_x509_decoder_context leaf;
	const br_x509_pkey *public;

	br_x509_decoder_init(&leaf, NULL, NULL);
	br_x509_decoder_push(&leaf, k->chain[0].data, k->chain[0].data_len);
	public = br_x509_decoder_get_pkey(&leaf);
	if (!public || (public->key_type == BR_KEYTYPE_RSA) != (secret->rsa != NULL))
		return false;
	return secret->rsa ? is_rsa_of(secret->rsa, &public->key.rsa) : is_ec_of(secret->ec, &public->key.ec);
}

static const char mismatch[] = "the key is not that of the first certificate";

static void describe(struct keys *k, const struct keys_secret *secret)
{
	struct certificate leaf;

	k->signature = certificate_read(&leaf, k->chain[0].data, k->chain[0].data_len) ? certificate_signature(&leaf) : NULL;
	snprintf(k->kind, sizeof k->kind, secret->rsa ? "RSA%u" : "EC%u",
	    secret->rsa ? (unsigned)secret->rsa->n_bitlen : secret->ec->curve == BR_EC_secp256r1 ? 256 : 384);
	k->type = secret->rsa ? BR_KEYTYPE_RSA : BR_KEYTYPE_EC;
	if (secret->rsa)
		k->rsa.n_bitlen = secret->rsa->n_bitlen;
	else
		k->ec.curve = secret->ec->curve;
}

const char *keys_parse(struct keys *k, struct keys_secret *secret, unsigned char *cert, size_t cert_len, unsigned char *key,
    size_t key_len, bool *about_key)
{
	const char *why = take_chain(k, cert, cert_len);

	*about_key = !why;
	if (why)
		return why;
	why = take_key(secret, key, key_len);
	explicit_bzero(key, key_len);
	if (why)
		return why;
	describe(k, secret);
	return match(k, secret) ? NULL : mismatch;
}

/* ---- the files ---- */

/* Tells whether a file has changed. */
struct stamp {
	int error;
	dev_t device;
	ino_t inode;
	off_t size;
	struct timespec changed;
};

static struct store {
	const char *cert, *key; /* names of the files */
	struct stamp stamp[2];
	bool exposed;
	struct keys *keys;	    /* the text follows it */
	struct keys_secret *secret; /* in a file of its own: mremap(2) would give a process all of one file that it has a part of */
} stores[KEYS_PAIRS];

/* Pages that are not used cost nothing. */
#define KEYS_ROOM (sizeof(struct keys) + FILE_MAX)
#define SECRET_ROOM (sizeof(struct keys_secret) + FILE_MAX)

const char *keys_option(enum keys_pair pair, bool key)
{
	static const char names[] = "tls-cert\0tls-key";

	return names + (key ? 9 : 0) + (pair == KEYS_UPSTREAM ? 0 : 4);
}

static void take_stamp(const char *path, struct stamp *s, mode_t *mode)
{
	struct stat st;

	memset(s, 0, sizeof *s);
	if (stat(path, &st) < 0) {
		s->error = errno;
		return;
	}
	*mode = st.st_mode;
	s->device = st.st_dev;
	s->inode = st.st_ino;
	s->size = st.st_size;
	s->changed = st.st_ctim; /* the change time: chown(1) sets it, too */
}

/* Returns octets read, at most cap; -1 with errno set. */
static ssize_t read_pem(const char *path, unsigned char *into, size_t cap)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n = fd < 0 ? -1 : file_read(fd, into, cap);

	if (fd >= 0)
		close(fd);
	return n;
}

/* Read both files into the memory after k and secret. Returns NULL, or what is wrong, with *about_key saying in which file. */
static const char *read_both(struct keys *k, struct keys_secret *secret, const char *cert, const char *key, bool *about_key)
{
	unsigned char *cert_text = (unsigned char *)(k + 1), *key_text = (unsigned char *)(secret + 1);
	ssize_t cert_len = read_pem(cert, cert_text, FILE_MAX), key_len;

	*about_key = false;
	if (cert_len < 0)
		return strerror(errno);
	*about_key = true;
	key_len = read_pem(key, key_text, FILE_MAX);
	if (key_len < 0)
		return strerror(errno);
	return keys_parse(k, secret, cert_text, (size_t)cert_len, key_text, (size_t)key_len, about_key);
}

/* Read both as they are now. If they do not match, a new pair may be coming, one file after the other; with no old pair to go
 * on with, wait a moment for the second file. */
static const char *read_pair(struct store *store, struct keys *k, struct keys_secret *secret, bool *about_key, mode_t *mode)
{
	for (unsigned tries = 0;; tries++) {
		const char *why;

		take_stamp(store->cert, &store->stamp[0], mode);
		take_stamp(store->key, &store->stamp[1], mode);
		why = read_both(k, secret, store->cert, store->key, about_key);
		if (why != mismatch || store->keys || tries == 20)
			return why;
		nanosleep(&(struct timespec){ 0, 25000000 }, NULL);
		memset(k, 0, sizeof *k);
		explicit_bzero(secret, sizeof *secret);
	}
}

/* Read both files into memory of their own. Returns NULL, or what is wrong, and then everything is as before. */
static const char *load(struct store *store, bool *about_key, mode_t *mode)
{
	int fd, secret_fd;
	struct keys *k = file_new_shared("certificates", KEYS_ROOM, &fd);
	struct keys_secret *secret = k ? file_new_shared("keys", SECRET_ROOM, &secret_fd) : NULL;
	const char *reason = secret ? read_pair(store, k, secret, about_key, mode) : file_fault();

	if (!reason && !file_share(k, KEYS_ROOM, fd)) {
		k = NULL;
		reason = file_fault();
	}
	if (!reason && !file_share(secret, SECRET_ROOM, secret_fd)) {
		munmap(k, KEYS_ROOM);
		return file_fault();
	}
	if (reason && k)
		file_unshare(k, KEYS_ROOM, fd);
	if (reason && secret) {
		explicit_bzero(secret, sizeof *secret);
		file_unshare(secret, SECRET_ROOM, secret_fd);
	}
	if (reason)
		return reason;
	keys_forget((enum keys_pair)(store - stores));
	if (store->keys)
		munmap(store->keys, KEYS_ROOM); /* sessions may still use it */
	store->keys = k;
	store->secret = secret;
	return NULL;
}

bool keys_load(enum keys_pair pair, const char *cert, const char *key, char *why, size_t why_cap)
{
	struct store *store = &stores[pair];
	bool about_key = false;
	const char *reason;
	mode_t mode = 0;

	store->cert = cert;
	store->key = key;
	reason = load(store, &about_key, &mode);
	if (reason)
		snprintf(why, why_cap, "--%s %s: %s", keys_option(pair, about_key), about_key ? key : cert, reason);
	else
		store->exposed = mode & (S_IROTH | S_IWOTH);
	return !reason;
}

bool keys_refresh(enum keys_pair pair, bool force, char *why, size_t why_cap)
{
	struct store *store = &stores[pair];
	struct stamp now[2];
	mode_t mode;

	take_stamp(store->cert, &now[0], &mode);
	take_stamp(store->key, &now[1], &mode);
	return (!force && memcmp(now, store->stamp, sizeof now) == 0) || keys_load(pair, store->cert, store->key, why, why_cap);
}

const struct keys *keys_current(enum keys_pair pair)
{
	return stores[pair].keys;
}

bool keys_have_name(const struct keys *k, const char *name)
{
	struct certificate leaf;

	return certificate_read(&leaf, k->chain[0].data, k->chain[0].data_len) && certificate_is_for(&leaf, name);
}

const struct keys_secret *keys_secret(enum keys_pair pair)
{
	return stores[pair].secret;
}

void keys_forget(enum keys_pair pair)
{
	if (stores[pair].secret)
		munmap(stores[pair].secret, SECRET_ROOM);
	stores[pair].secret = NULL;
}

const char *keys_exposed(enum keys_pair pair)
{
	return stores[pair].keys && stores[pair].exposed ? stores[pair].key : NULL;
}
