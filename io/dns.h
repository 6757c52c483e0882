/* A stub for the DNS: one question of one type at a time each, over UDP, over TCP when the answer is cut (RFC 1035 4.2,
 * RFC 7766). Messages are built and read by pure functions, whatever a server says; sockets are polled by the session.
 *
 * An answer counts only if it comes from the server that was asked (a connected socket of a port of the kernel's choice), has
 * the random id of this attempt, and repeats the question: RFC 5452.
 */
#ifndef DNS_H
#define DNS_H

#include "io/net.h"

#include <poll.h>

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

/* ---- messages ---- */

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

/* ---- asking ---- */

enum dns_state { DNS_IDLE, DNS_RUNNING, DNS_DONE };

/* Times are in microseconds of the caller's clock. */
struct dns_query {
	enum dns_state state;
	const char *failure; /* DONE: why there is no answer (static storage); NULL: result says what there is */
	enum dns_result result; /* DNS_FOUND or DNS_NOTHING */
	const struct dns_servers *servers;
	int fd;
	bool tcp;
	unsigned attempt; /* made so far */
	int64_t began, patience, retry_at;
	size_t question_len, sent, got;
	struct dns_answer answer;
	unsigned char question[2 + DNS_QUERY]; /* behind its length, as TCP wants it */
	unsigned char in[2 + DNS_MESSAGE];
};

/* Take a line of resolv.conf(5) into account, or pass it over. It is written to. */
void dns_settings_line(struct dns_settings *s, char *line);

/* What resolv.conf(5) says, but for the name servers if some are given; 127.0.0.1 if there are none. */
void dns_settings_choose(struct dns_settings *s, const struct dns_servers *given);

/* The name servers of that alone. */
void dns_servers_choose(struct dns_servers *s, const struct dns_servers *given);

/* Each line of a file of settings, without its LF; none if it cannot be read. Lines of 4 KB and more are passed over, and what
 * comes behind 16 MB. */
void dns_lines(const char *path, void (*take)(void *arg, char *line), void *arg);

/* Begin to ask. A server that does not answer in a quarter of patience makes room for the next, and so on round and round.
 * servers must stay. State DNS_DONE at once: the name is none. */
void dns_start(struct dns_query *q, const struct dns_servers *servers, const char *name, enum dns_type type, int64_t now,
    int64_t patience);

/* Go on as far as it goes without waiting. */
void dns_turn(struct dns_query *q, int64_t now);

/* When dns_turn() has something to do though nothing comes. */
int64_t dns_deadline(const struct dns_query *q);

/* What to poll; returns how many entries, 0 or 1. */
unsigned dns_watch(const struct dns_query *q, struct pollfd *p);

/* Not to be asked any more. */
void dns_stop(struct dns_query *q);

#endif
