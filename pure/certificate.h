/* What BearSSL does not tell of an X.509 certificate (RFC 5280): its names as they stand, and extensions that its verification passes
 * over. No I/O.
 */
#ifndef CERTIFICATE_H
#define CERTIFICATE_H

#include <stdbool.h>
#include <stddef.h>

struct certificate_span {
	const unsigned char *bytes;
	size_t len;
};

/* The spans lead into the caller's octets. */
struct certificate {
	struct certificate_span der;		 /* all of it */
	struct certificate_span issuer, subject; /* distinguished names, DER */
	struct certificate_span key;		 /* SubjectPublicKeyInfo, DER, RFC 5280 4.1.2.7 */
	struct certificate_span names;		 /* the value of its alternative names; empty: it has none */
	struct certificate_span algorithm;	 /* of its signature, DER: an identifier, and parameters */
	bool named;	  /* it has alternative names: the common name does not count, RFC 6125 6.4.4 */
	bool constrained; /* it is a CA's that may vouch for certain names only, RFC 5280 4.2.1.10 */
	bool for_others;  /* it says what it is for, and servers are not among that, RFC 5280 4.2.1.12 */
};

/* Read the certificate at the start of n octets of DER. false: it is malformed, or cut. */
bool certificate_read(struct certificate *c, const unsigned char *der, size_t n);

/* Whether the certificate is for this host name, RFC 6125 6.4: by its alternative names alone, in which "*." stands for one label.
 * ".example.org" and "*.example.org" stand for all names with one label before, as in policies of MTA-STS, RFC 8461 4.1. */
bool certificate_is_for(const struct certificate *c, const char *name);

/* The algorithm that it was signed with, as OpenSSL calls it: RSA-SHA256. NULL: one that is not known. Static storage. */
const char *certificate_signature(const struct certificate *c);

/* Whether two names are the same, octet for octet. */
bool certificate_same_name(const struct certificate_span *a, const struct certificate_span *b);

#endif
