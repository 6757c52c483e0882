/* What is said in an AUTH exchange (SASL, RFC 4422, as in RFC 4954): read from clients, for the log; written for upstreams. No
 * I/O.
 */
#ifndef SASL_H
#define SASL_H

#include <stddef.h>

#define SASL_WORD_MAX 255 /* octets of a name or a password, as in RFC 4616 2 */
#define SASL_LINE_MAX 704 /* octets that sasl_plain() writes, at most */

/* A user's name and password; both lead into the caller's text. */
struct sasl_pair {
	const char *user, *password;
	size_t user_len, password_len;
};

/* Octets of the mechanism at the start of an argument of AUTH; 0 if it is unknown: then the word may be a secret that a client
 * put in the wrong place. */
size_t sasl_mechanism(const unsigned char *arg, size_t n);

/* The user's name in an AUTH exchange, for the log, never the secret. mech: as given after AUTH. b64: n octets, the client's
 * line with data number `step`, 0 being the initial response or, without one, the first answer to 334. Returns octets put into
 * name; 0: there is no name. */
size_t sasl_user(const unsigned char *mech, size_t mech_len, unsigned step, const unsigned char *b64, size_t n,
    unsigned char *name, size_t cap);

/* Write the response of PLAIN (RFC 4616 2) in base64. Both words have at most SASL_WORD_MAX octets. Returns octets written, at
 * most SASL_LINE_MAX. */
size_t sasl_plain(const struct sasl_pair *p, char *out);

/* Write one word in base64, as LOGIN wants it. Returns octets written: 4 for every 3 of the word or fewer. */
size_t sasl_word(const char *word, size_t n, char *out);

#endif
