/* What is said in an AUTH exchange (SASL, RFC 4422, as in RFC 4954): by clients, read for the log; to an upstream, written. No
 * I/O.
 */
#ifndef SASL_H
#define SASL_H

#include <stddef.h>

#define SASL_WORD_MAX 255 /* octets of a name or a password, as in RFC 4616 2 */
#define SASL_LINE_MAX 704 /* octets of what sasl_plain() writes */

/* A user's name and password; both lead into the caller's text. */
struct sasl_pair {
	const char *user, *password;
	size_t user_len, password_len;
};

/* Octets of the mechanism that an argument of AUTH begins with, 0 if no such mechanism is known: then the word may be a secret
 * that a client put in the wrong place. */
size_t sasl_mechanism(const unsigned char *arg, size_t n);

/* Name of the user in an AUTH exchange, for the log, never the secret. mech: as given after AUTH; b64: the n octets
 * of the client's step'th line with data, 0 being the initial response or, without one, the first answer to 334.
 * Returns octets of the name put into name, 0: none. */
size_t sasl_user(const unsigned char *mech, size_t mech_len, unsigned step, const unsigned char *b64, size_t n,
    unsigned char *name, size_t cap);

/* The response of PLAIN (RFC 4616 2), in base64. Both words have SASL_WORD_MAX octets at most. Returns octets written, at most
 * SASL_LINE_MAX. */
size_t sasl_plain(const struct sasl_pair *p, char *out);

/* One word, as LOGIN has it, in base64. Returns octets written: 4 for 3 octets of the word or less. */
size_t sasl_word(const char *word, size_t n, char *out);

#endif
