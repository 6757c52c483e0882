/* DANE for SMTP (RFC 7672): TLSA records, and whether a certificate is one that they name. No I/O, and no hashing: the caller brings the
 * digests.
 */
#ifndef DANE_H
#define DANE_H

#include "pure/certificate.h"
#include "pure/dnsmessage.h"

#define DANE_RECORDS 64 /* records of a set */
#define DANE_DATA 6144	/* octets of their data: all that fit into a message of the DNS, DNS_MESSAGE, do */

/* RFC 7218 2.1. Records of other usages cannot be used for SMTP, RFC 7672 3.1.3. */
enum dane_usage { DANE_TA = 2, DANE_EE = 3 };

/* RFC 7218 2.2, 2.3. */
enum { DANE_CERTIFICATE, DANE_KEY, DANE_SELECTORS };
enum { DANE_FULL, DANE_SHA256, DANE_SHA512 };

struct dane_record {
	unsigned char host, usage, selector, matching;
	uint16_t at, len; /* in data */
};

/* The records that can be used, of one host or of several any of which will do. Starts as zeros. */
struct dane_set {
	unsigned count;
	bool cut; /* there was no room for one that can be used: the set must not count as the whole */
	size_t len;
	struct dane_record record[DANE_RECORDS];
	unsigned char data[DANE_DATA];
};

/* Add a record of a host, which has any number below 256; false: it cannot be used, or there is no room. Its octets are copied. */
bool dane_add(struct dane_set *set, unsigned host, const struct dns_tlsa *record);

/* Add those of an answer to a question about a host's TLSA records. Returns how many can be used, or -1 if there is no room for all: none
 * of them is kept then. */
int dane_take(struct dane_set *set, unsigned host, const struct dns_answer *answer);

/* A certificate as records name it: whole, and its key. */
struct dane_subject {
	struct certificate_span part[DANE_SELECTORS];
	unsigned char sha256[DANE_SELECTORS][32], sha512[DANE_SELECTORS][64];
};

/* Whether a record of this usage names the certificate. Of a host's digests of one usage and selector the strongest algorithm counts alone,
 * RFC 7671 9. What else is to be checked is the caller's: RFC 7672 3.1.1 for DANE_EE, 3.1.2 for DANE_TA. */
bool dane_matches(const struct dane_set *set, enum dane_usage usage, const struct dane_subject *subject);

/* Record i, if it is the certificate of a trust anchor itself: *c leads into the set. */
bool dane_anchor(const struct dane_set *set, unsigned i, struct certificate *c);

#endif
