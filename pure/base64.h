/* Base64 (RFC 4648 4) and the blocks of PEM text (RFC 7468), pure functions. */
#ifndef BASE64_H
#define BASE64_H

#include <stdbool.h>
#include <stddef.h>

/* Decode n octets of text; blanks and line ends are passed over. Stops at '=', at anything else that is no base64, and
 * when out has no room. Returns octets put into out. */
size_t base64_decode(const unsigned char *in, size_t n, unsigned char *out, size_t cap);

/* Encode n octets, with '=' at the end where 3 do not divide them. Returns octets put into out: 4 for each 3 or less. */
size_t base64_encode(const unsigned char *in, size_t n, char *out);

/* A block: what stands after BEGIN, and the text up to END. Both lead into the caller's text. */
struct pem {
	const unsigned char *label, *body;
	size_t label_len, body_len;
};

/* The next block at or behind *at, whatever stands around it and however lines end; *at moves over it. false: there is
 * none. A block that has no end of its own label is none. */
bool pem_next(const unsigned char **at, const unsigned char *end, struct pem *p);

bool pem_is(const struct pem *p, const char *label);

#endif
