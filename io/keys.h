/* The certificates and keys that smtpwarp shows to clients and to upstreams: read, checked, kept, and read again when the files
 * change.
 */
#ifndef KEYS_H
#define KEYS_H

#include <bearssl.h>
#include <stdbool.h>
#include <stddef.h>

#define KEYS_CHAIN_MAX 10 /* certificates */
#define KEYS_CLIENTS_MAX 8 /* pairs of a certificate and its key */

/* The first pair for clients, after which the others come without a gap, and that for upstreams. */
enum keys_pair { KEYS_CLIENTS, KEYS_UPSTREAM = KEYS_CLIENTS + KEYS_CLIENTS_MAX, KEYS_PAIRS };

/* A chain, and what its key is, without the key. Pointers lead into the text given to keys_parse(). */
struct keys {
	br_x509_certificate chain[KEYS_CHAIN_MAX]; /* the first belongs to the key */
	size_t certificates;
	unsigned type;		/* BR_KEYTYPE_RSA or BR_KEYTYPE_EC */
	br_rsa_private_key rsa; /* its size in bits alone */
	br_ec_private_key ec;	/* its curve alone */
	char kind[8];		/* of key and its bits, as HAProxy has it: RSA2048, EC256 */
	const char *signature;	/* how the first certificate was signed, as certificate_signature() says */
};

/* The key itself. Pointers lead into the decoder. */
struct keys_secret {
	br_skey_decoder_context decoder;
	const br_rsa_private_key *rsa; /* NULL: ec is set */
	const br_ec_private_key *ec;   /* NULL: rsa is set */
};

/* Take a certificate chain and a key from PEM texts, which are overwritten; that of the chain must stay, and has nothing left in it but
 * the chain. Keys may be PKCS#1, PKCS#8 or SEC1: RSA of 2048 to 4096 bits, P-256 or P-384. Anything else in the texts is skipped. k and
 * secret must be all zero. Returns NULL, or what is wrong (static storage); *about_key says in which of the two texts. */
const char *keys_parse(struct keys *k, struct keys_secret *secret, unsigned char *cert, size_t cert_len, unsigned char *key,
    size_t key_len, bool *about_key);

/* The option that names the file: "cert", "key", "tls-cert" or "tls-key". */
const char *keys_option(enum keys_pair pair, bool key);

/* Read the two files, which may be the same one. What was read before stays valid in processes that were forked with it. The
 * names must stay. Returns true, or false with everything as before and why filled: "--cert FILE: reason". */
bool keys_load(enum keys_pair pair, const char *cert, const char *key, char *why, size_t why_cap);

/* Read them again if they have changed since they were last looked at, or in any case with force. Returns as keys_load();
 * complains of a bad file once. */
bool keys_refresh(enum keys_pair pair, bool force, char *why, size_t why_cap);

/* What was read last; NULL: nothing. Lies in memory that forked processes share, that none of them can change for
 * another, and that core dumps omit. */
const struct keys *keys_current(enum keys_pair pair);

/* Whether its first certificate has this host name, as certificate_is_for() says. */
bool keys_have_name(const struct keys *k, const char *name);

/* Its key, in such memory, too; NULL: it is forgotten, or there is none. */
const struct keys_secret *keys_secret(enum keys_pair pair);

/* This process, and what it forks from now on, has the key no longer. What keys_load() reads next it has again. */
void keys_forget(enum keys_pair pair);

/* The key's file, if users other than its owner and group can read or write it; else NULL. */
const char *keys_exposed(enum keys_pair pair);

#endif
