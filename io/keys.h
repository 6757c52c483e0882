/* The certificates and keys that smtpwarp shows to clients and to upstreams: read, looked at, kept, and read again when the
 * files change.
 */
#ifndef KEYS_H
#define KEYS_H

#include <bearssl.h>
#include <stdbool.h>
#include <stddef.h>

#define KEYS_CHAIN_MAX 10 /* certificates */

enum keys_side { KEYS_CLIENTS, KEYS_UPSTREAM, KEYS_SIDES };

/* Pointers lead into storage that keys_parse() was given, and into the decoder. */
struct keys {
	br_x509_certificate chain[KEYS_CHAIN_MAX]; /* the first is for the key */
	size_t certificates;
	br_skey_decoder_context decoder;
	const br_rsa_private_key *rsa; /* or NULL */
	const br_ec_private_key *ec;   /* then this */
};

/* Take a chain and a key from PEM texts, which are overwritten and must stay: keys are PKCS#1, PKCS#8 or SEC1; of RSA 2048 to
 * 4096 bits, P-256 or P-384. What else stands in the texts is passed over. k: all zero. Returns NULL, or what is wrong
 * (static storage) with *about_key saying with which of the two. */
const char *keys_parse(struct keys *k, unsigned char *cert, size_t cert_len, unsigned char *key, size_t key_len,
    bool *about_key);

/* "cert", "tls-key" and so on: the option that names the file. */
const char *keys_option(enum keys_side side, bool key);

/* Read the two files, which may be one. What was read before stays good for processes that were forked with it. The names
 * must stay. Returns true, or false with everything as before and why filled: "--cert FILE: reason". */
bool keys_load(enum keys_side side, const char *cert, const char *key, char *why, size_t why_cap);

/* Read them again if they have been replaced since they were last looked at (or, with force, in any case). false: as
 * keys_load(); a file that is no good is complained of once. */
bool keys_refresh(enum keys_side side, bool force, char *why, size_t why_cap);

/* What was read last; NULL: nothing. In memory that forked processes share, and that dumps leave out. */
const struct keys *keys_current(enum keys_side side);

/* The key's file, if users other than its owner and group may read it; else NULL. */
const char *keys_exposed(enum keys_side side);

/* Overwrite and forget them, for all processes that have them. */
void keys_wipe(void);

#endif
