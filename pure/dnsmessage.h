/* Messages of the DNS (RFC 1035), written and read, and lines of resolv.conf(5). No I/O. Reading ends, and stays within the
 * buffers, whatever a server says.
 */
#ifndef DNSMESSAGE_H
#define DNSMESSAGE_H

#include "pure/address.h"

#define DNS_NAME_MAX 253   /* octets of a name as text, RFC 1035 2.3.4 */
#define DNS_MESSAGE 4096   /* octets of an answer; a longer one counts as none */
#define DNS_QUERY 284	   /* octets of a header, a question, and what dns_extend() adds */
#define DNS_ADDRESSES 64   /* addresses of an answer that are used */
#define DNS_TEXT 200	   /* octets of a TXT record that are kept */
#define DNS_EXCHANGES 10   /* mail exchanges of an answer that are used: the best, as far as there is room */
#define DNS_TLSAS 256	   /* TLSA records of an answer that are used */
#define DNS_SERVERS 3	   /* the limit of resolv.conf(5) */

enum dns_type { DNS_A = 1, DNS_NS = 2, DNS_CNAME = 5, DNS_PTR = 12, DNS_MX = 15, DNS_TXT = 16, DNS_AAAA = 28, DNS_TLSA = 52 };

struct dns_servers {
	unsigned count;
	bool trusted; /* to validate, and so is the way to them: `options trust-ad` of resolv.conf(5), or --dns-trust-ad */
	union net_address server[DNS_SERVERS];
};

/* The contents of resolv.conf(5). */
struct dns_settings {
	struct dns_servers servers;
	unsigned ndots;
	char search[256]; /* suffixes, separated by blanks; "": none */
	bool unnamed;	  /* nobody names a server: it is the one on this host */
};

struct dns_answer {
	bool named; /* the name exists, perhaps without records of this type */
	bool authentic; /* the server says that it has validated all of it, RFC 4035 3.2.3: whether to believe that is the caller's to say */
	bool aliased; /* A, AAAA: a CNAME leads on from the name */
	bool cut; /* TLSA: there were more records than are used */
	unsigned count; /* of records; A, AAAA: of addresses that follow */
	union {
		uint32_t address[DNS_ADDRESSES]; /* A: in host order */
		unsigned char address6[DNS_ADDRESSES][16]; /* AAAA */
		char exchange[DNS_ADDRESSES * 16]; /* MX: for dns_exchange() */
		struct {
			uint16_t at, len;
		} tlsa[DNS_TLSAS]; /* TLSA: for dns_tlsa() */
		char texts[DNS_ADDRESSES * 16]; /* TXT: all records, each whole and with a NUL behind it; what does not fit is left out */
	};
	const unsigned char *message; /* as it was given to dns_read() */
	/* TXT: the strings of the first record, joined; what is not printable ASCII became '?'. PTR: the first name that can be
	 * a host's; 0 octets: there is none. MX: octets of exchange. A, AAAA: the name that CNAMEs lead to; 0 octets: there is no
	 * CNAME, or that name cannot be a host's. */
	size_t text_len;
	char text[DNS_NAME_MAX + 1];
	size_t texts_len; /* TXT: octets of texts */
};

enum dns_result {
	DNS_FOREIGN,   /* it answers another question: skip it */
	DNS_FOUND,     /* answer has the records of this type */
	DNS_NOTHING,   /* the name does not exist, or has no records of this type */
	DNS_CUT,       /* truncated: ask again over TCP */
	DNS_BAD	       /* the server failed, or its answer is malformed */
};

/* Numbers of 16 bits in network byte order. */
void dns_put16(unsigned char *out, unsigned value);
unsigned dns_get16(const unsigned char *in);

/* Write a question about a name such as "example.org", or "." for the root. Returns octets; 0: it is no name, or too long. */
size_t dns_ask(uint16_t id, const char *name, enum dns_type type, unsigned char out[DNS_QUERY]);

/* Ask in this question, n octets, for what the server has validated (AD, RFC 6840 5.7), and for answers of up to 1232 octets in a
 * datagram (RFC 6891). Returns octets of the whole query. dns_read() takes the question without what was added. */
size_t dns_extend(unsigned char query[DNS_QUERY], size_t n);

/* Whether n octets say that the server cannot read this query (FORMERR): it may not know RFC 6891. Take back what it does not know of
 * dns_extend(). The query is n octets without it. */
bool dns_is_unread(const unsigned char *in, size_t n, const unsigned char *query);
void dns_shorten(unsigned char query[DNS_QUERY]);

/* Read n octets as the answer to this question. Follows CNAMEs, in any order, as far as the answer contains them. */
enum dns_result dns_read(const unsigned char *in, size_t n, const unsigned char *question, size_t question_len,
    struct dns_answer *answer);

/* The next mail exchange of an answer to MX, in lower case; NULL: there is none left. *at begins as 0. They come as RFC 5321 5.1 has them tried,
 * those of one preference by name, however the server had them; names that cannot be a host's are left out: "." (RFC 7505), too. */
const char *dns_exchange(const struct dns_answer *answer, size_t *at);

/* A TLSA record of an answer, RFC 6698 2.1. Its data lead into the message. */
struct dns_tlsa {
	unsigned char usage, selector, matching;
	const unsigned char *data;
	size_t len;
};

/* That record, below count. The message must still be there. */
struct dns_tlsa dns_tlsa(const struct dns_answer *answer, unsigned i);

/* Whether a domain can be asked about: a host name with a dot in it. */
bool dns_is_domain(const char *name);

/* Whether it can be a host name: letters, digits, inner hyphens, and underscores, which real hosts have; not all digits, as in
 * an address (RFC 1123 2.1). */
bool dns_is_host(const char *name);

/* The name that lists this address in a zone, RFC 5782 2.1 and 2.4. false: the zone is too long, or it is no IP address. */
bool dns_reversed(const union net_address *a, const char *zone, char name[DNS_NAME_MAX + 1]);

/* Whether the address, IPv4 or IPv6, is in an answer of its type. */
bool dns_has(const struct dns_answer *answer, const union net_address *a);

/* Take a line of resolv.conf(5), or ignore it. The line is written to. */
void dns_settings_line(struct dns_settings *s, char *line);

#endif
