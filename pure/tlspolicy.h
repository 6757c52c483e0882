/* TLS policies in Postfix's words, as smtp_tls_policy_maps has them, postconf(5): "secure match=.example.org:mx.example.net". No I/O.
 *
 * Attributes that count: match, servername, policy_type, policy_domain, mx_host_pattern, policy_string, policy_failure. A mistake in one of
 * them, or a level that does not go with it, is a fault: what is passed over could be what security rests on. Attributes of other names
 * are ignored, but for tafile, which says whom to trust.
 */
#ifndef TLSPOLICY_H
#define TLSPOLICY_H

#include "pure/dnsmessage.h"
#include "pure/levels.h"
#include "pure/tlsrpt.h"

#define TLSPOLICY_TEXT 16384   /* octets of the lists of a policy: those of an MTA-STS policy with 100 patterns fit */
#define TLSPOLICY_SHA256 32 /* octets of a fingerprint */

/* FINGERPRINT and all after it ask for a certificate that proves who the server is, not only for encryption. */
#define TLSPOLICY_LEVELS(X)                                                                                            \
	X(NONE, "none") X(MAY, "may") X(ENCRYPT, "encrypt") X(DANE, "dane") X(DANE_ONLY, "dane-only")                  \
	X(FINGERPRINT, "fingerprint") X(VERIFY, "verify") X(SECURE, "secure")

enum tlspolicy_level {
#define X(level, name) TLSPOLICY_##level,
	TLSPOLICY_LEVELS(X)
#undef X
};

/* Whose policy it is, policy_type=. OWN: the operator's, who has set none. */
enum tlspolicy_type { TLSPOLICY_OWN, TLSPOLICY_STS, TLSPOLICY_NOT_FOUND };

enum tlspolicy_list { TLSPOLICY_MATCH, TLSPOLICY_MX, TLSPOLICY_STRINGS, TLSPOLICY_LISTS };

struct tlspolicy {
	enum tlspolicy_level level;
	enum tlspolicy_type type;
	bool testing;	  /* MTA-STS, "mode: testing": failures are reported, and mail goes all the same, RFC 8461 5 */
	enum tlsrpt_code failure; /* policy_failure=: why there is no better policy. A word that is not known: TLSRPT_VALIDATION_FAILURE */
	char servername[DNS_NAME_MAX + 1]; /* "": none. "hostname" and "nexthop" stand for others, see tlspolicy_servername() */
	char domain[DNS_NAME_MAX + 1];	   /* policy_domain=; "": none */
	/* Strings one after another, each with a NUL behind it: len octets from text + at on. MATCH at level FINGERPRINT: 64 hexadecimal
	 * digits each, in lower case. */
	struct tlspolicy_span {
		uint16_t at, len;
	} list[TLSPOLICY_LISTS];
	char text[TLSPOLICY_TEXT];
};

/* Read n octets, "LEVEL NAME=VALUE ...", separated by blanks, commas or line ends; what stands in { } is one attribute, blanks and all.
 * Returns NULL, or what is wrong (static storage); then *p is not to be used. */
const char *tlspolicy_parse(struct tlspolicy *p, const char *text, size_t n);

/* The level's word. Static storage. */
const char *tlspolicy_level_name(enum tlspolicy_level level);

/* What a handshake must come to before mail may go: NONE, MAY, ENCRYPT or VERIFY. FINGERPRINT is ENCRYPT, with tlspolicy_has_fingerprint()
 * to be asked after it; DANE is MAY and DANE_ONLY is ENCRYPT until TLSA records say more. MAY if testing. */
enum tls_level tlspolicy_tls(const struct tlspolicy *p);

/* The first string of a list, and the one after s; NULL: there is none. */
const char *tlspolicy_first(const struct tlspolicy *p, enum tlspolicy_list list);
const char *tlspolicy_next(const struct tlspolicy *p, enum tlspolicy_list list, const char *s);

/* Whether the domain's policy lets a server of this name have its mail, RFC 8461 4.1. It does if it has no mx_host_pattern=. */
bool tlspolicy_permits(const struct tlspolicy *p, const char *server);

/* Names of which a certificate must have one, as certificate.h has them: "*.NAME" and ".NAME" are for all names with one label before. They
 * lead into the policy, to what the caller gave, and to below. */
#define TLSPOLICY_NAMES 24 /* more are left out */
struct tlspolicy_names {
	size_t count;
	const char *name[TLSPOLICY_NAMES];
	char below[DNS_NAME_MAX + 2];
};

/* The names by which a server proves that it may have the mail of a domain. server: its name by the MX; NULL: not known. With
 * mx_host_pattern= that is the name, or what the patterns permit if it is not known, RFC 8461 4.2; otherwise what match= says. Without
 * match= it is the server's name at level verify, at others the domain and the names below it. None: it cannot prove it. */
void tlspolicy_names(const struct tlspolicy *p, const char *server, const char *domain, struct tlspolicy_names *names);

/* Whether match= has this SHA-256 of a certificate. */
bool tlspolicy_has_fingerprint(const struct tlspolicy *p, const unsigned char fingerprint[TLSPOLICY_SHA256]);

/* The name for SNI; NULL: the policy names none, or one that is not known. server, domain: as above. */
const char *tlspolicy_servername(const struct tlspolicy *p, const char *server, const char *domain);

/* Whether a name fits a pattern: "*.example.org" is for names with one label more than example.org (RFC 8461 4.1, RFC 6125 6.4.3), others
 * for themselves. Case does not count. */
bool tlspolicy_fits(const char *pattern, const char *name);

#endif
