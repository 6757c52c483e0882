/* Base64 (RFC 4648 4) and the blocks of PEM text (RFC 7468), pure functions. */
#ifndef BASE64_H
#define BASE64_H

#include <stdbool.h>
#include <stddef.h>

/* Decode n octets of text, skipping blanks and line ends. Stops at '=', at any other octet that is not base64, and when out is
 * full. Returns octets put into out. */
size_t base64_decode(const unsigned char *in, size_t n, unsigned char *out, size_t cap);

/* Encode n octets, padded with '='. Returns octets put into out: 4 for every 3 or fewer. */
size_t base64_encode(const unsigned char *in, size_t n, char *out);

/* A block of PEM: its label (after BEGIN) and the text up to END. Both lead into the caller's text. */
struct pem {
	const unsigned char *label, *body;
	size_t label_len, body_len;
};

/* The next block at or after *at, whatever is around it and however lines end. *at moves past it. false: there is none. A block
 * needs an END with its own label before another begins. */
bool pem_next(const unsigned char **at, const unsigned char *end, struct pem *p);

bool pem_is(const struct pem *p, const char *label);

#endif
