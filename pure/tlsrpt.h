/* How TLS with a domain's servers went, for reports that the domain has asked for (TLSRPT, RFC 8460): datagrams as the library libtlsrpt
 * writes them to the program that collects them, protocol version 1. No I/O.
 */
#ifndef PURE_TLSRPT_H
#define PURE_TLSRPT_H

#include "pure/dnsmessage.h"

#define TLSRPT_MAX 65536 /* octets of a datagram */

/* Whose policy it was; the numbers are those of the protocol. */
enum tlsrpt_type { TLSRPT_TLSA = 1, TLSRPT_STS = 2, TLSRPT_NO_POLICY = 9 };

/* What failed, RFC 8460 4.3; the numbers are those of the protocol. */
enum tlsrpt_code {
	TLSRPT_NO_FAILURE = 0,
	TLSRPT_NO_STARTTLS = 201,
	TLSRPT_HOST_MISMATCH,	   /* the certificate is for another name */
	TLSRPT_NOT_TRUSTED,	   /* nobody who is trusted has signed it */
	TLSRPT_EXPIRED,
	TLSRPT_VALIDATION_FAILURE, /* anything else about TLS */
	TLSRPT_STS_FETCH_ERROR = 301,
	TLSRPT_STS_INVALID,
	TLSRPT_STS_WEBPKI_INVALID,
	TLSRPT_TLSA_INVALID,
	TLSRPT_DNSSEC_INVALID,
	TLSRPT_DANE_REQUIRED
};

/* Texts that are NULL are left out. */
struct tlsrpt_failure {
	enum tlsrpt_code code;
	const char *source; /* our address */
	const char *mx;	    /* the server's name, as the MX has it */
	const char *helo;   /* what it calls itself in its reply to EHLO */
	const char *server; /* its address */
	const char *info, *reason; /* more, in words; a code of our own */
};

struct tlsrpt_policy {
	enum tlsrpt_type type;
	const char *domain; /* NULL: it is left out */
	/* The policy itself, and the patterns of servers: strings one after another, each with a NUL behind it; so many octets. */
	const char *strings, *mx_hosts;
	size_t strings_len, mx_hosts_len;
	const struct tlsrpt_failure *failure;
	unsigned failures;
	bool failed; /* the connection counts among those that failed, RFC 8460 4.2, though mail may have gone all the same */
};

struct tlsrpt_report {
	const char *domain; /* the recipient's */
	const char *record; /* of the DNS, which says where reports go */
	const struct tlsrpt_policy *policy;
	unsigned policies;
};

/* Write the datagram. Returns octets; 0: they do not fit into cap. */
size_t tlsrpt_write(const struct tlsrpt_report *r, char *out, size_t cap);

/* The record of a domain that wants reports, from the answer to a question for TXT at _smtp._tls.DOMAIN; NULL: it wants none. There must be
 * exactly one that begins as such a record does, RFC 8460 3. It leads into the answer. */
const char *tlsrpt_record(const struct dns_answer *answer);

#endif
