/* Messages of the DNS (RFC 1035), written and read, and lines of resolv.conf(5). No I/O: whatever a server says comes to an
 * end here, and within the buffers.
 */
#ifndef DNSMESSAGE_H
#define DNSMESSAGE_H

#include "pure/address.h"

#define DNS_NAME_MAX 253   /* octets of a name as text, RFC 1035 2.3.4 */
#define DNS_MESSAGE 4096   /* octets of an answer; what is longer counts as none */
#define DNS_QUERY 272	   /* header, question */
#define DNS_ADDRESSES 64   /* of an answer that are looked at */
#define DNS_TEXT 200	   /* octets of a TXT record that are kept */
#define DNS_SERVERS 3	   /* as resolv.conf(5) */

enum dns_type { DNS_A = 1, DNS_PTR = 12, DNS_TXT = 16, DNS_AAAA = 28 };

struct dns_servers {
	unsigned count;
	union net_address server[DNS_SERVERS];
};

/* What resolv.conf(5) says. */
struct dns_settings {
	struct dns_servers servers;
	unsigned ndots;
	char search[256]; /* suffixes with a blank between them; "": none */
};

struct dns_answer {
	bool named; /* there is such a name, though perhaps nothing of this type */
	unsigned count;
	union {
		uint32_t address[DNS_ADDRESSES]; /* A: in host order */
		unsigned char address6[DNS_ADDRESSES][16]; /* AAAA */
	};
	/* TXT: of the first record, its strings joined; what is not printable ASCII became '?'. PTR: the first of these names that
	 * can be a host's; 0 octets: none. */
	size_t text_len;
	char text[DNS_NAME_MAX + 1];
};

enum dns_result {
	DNS_FOREIGN,   /* it answers something else: to be passed over */
	DNS_FOUND,     /* answer has what there is of this type */
	DNS_NOTHING,   /* there is no such name, or nothing of this type */
	DNS_CUT,       /* the whole is to be had over TCP */
	DNS_BAD	       /* the server failed, or its answer is not to be understood */
};

/* Numbers of 16 bits in the network's order. */
void dns_put16(unsigned char *out, unsigned value);
unsigned dns_get16(const unsigned char *in);

/* Write a question for name, "example.org". Returns octets, 0: it is no name, or longer than one can be. */
size_t dns_ask(uint16_t id, const char *name, enum dns_type type, unsigned char out[DNS_QUERY]);

/* Read n octets as the answer to this question. CNAMEs are followed as far as the answer has them. */
enum dns_result dns_read(const unsigned char *in, size_t n, const unsigned char *question, size_t question_len,
    struct dns_answer *answer);

/* Whether "mail.example.org" can be the name of a host: letters, digits, inner hyphens, and underlines, which hosts have, too;
 * not all of it digits, as an address is (RFC 1123 2.1). */
bool dns_is_host(const char *name);

/* The name under which a zone lists this address, RFC 5782 2.1 and 2.4. false: it has no room, or the address is not IP. */
bool dns_reversed(const union net_address *a, const char *zone, char name[DNS_NAME_MAX + 1]);

/* Whether the address, IPv4 or IPv6, is among those of an answer of its type. */
bool dns_has(const struct dns_answer *answer, const union net_address *a);

/* Take a line of resolv.conf(5) into account, or pass it over. It is written to. */
void dns_settings_line(struct dns_settings *s, char *line);

#endif
