/* Base64 (RFC 4648 4), a pure function. */
#ifndef BASE64_H
#define BASE64_H

#include <stddef.h>

/* Decode n octets of text; blanks and line ends are passed over. Stops at '=', at anything else that is no base64, and
 * when out has no room. Returns octets put into out. */
size_t base64_decode(const unsigned char *in, size_t n, unsigned char *out, size_t cap);

#endif
