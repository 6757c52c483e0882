/* A stub resolver: each query asks one question of one type, over UDP, and over TCP if the answer is truncated (RFC 1035 4.2,
 * RFC 7766). pure/dnsmessage.c writes and reads the messages; the session polls the sockets. An answer counts only if it comes
 * from the server that was asked (over a connected socket, from a port that the kernel chose), has the random id of this
 * attempt and repeats the question: RFC 5452.
 */
#ifndef DNS_H
#define DNS_H

#include "pure/dnsmessage.h"

#include <poll.h>

enum dns_state { DNS_IDLE, DNS_RUNNING, DNS_DONE };

/* Times are in microseconds of the caller's clock. */
struct dns_query {
	enum dns_state state;
	const char *failure; /* DONE: why there is no answer (static storage); NULL: see result */
	enum dns_result result; /* DNS_FOUND or DNS_NOTHING */
	const struct dns_servers *servers;
	int fd;
	bool tcp;
	bool authentic; /* it asks for what the server has validated */
	unsigned attempt; /* attempts so far */
	unsigned server;  /* which of servers is asked */
	int64_t began, patience, retry_at;
	size_t question_len, query_len, sent, got; /* octets; query_len: with what dns_extend() adds, without the length */
	struct dns_answer answer; /* TLSA: it leads into `in` */
	unsigned char question[2 + DNS_QUERY]; /* after its length, which TCP needs */
	unsigned char in[2 + DNS_MESSAGE];
};

/* Read resolv.conf(5). given: name servers that take the place of its own, if there are any; if there are none its `trusted` adds to
 * what the file says. Without either: 127.0.0.1. */
void dns_settings_choose(struct dns_settings *s, const struct dns_servers *given);

/* The same for name servers alone. */
void dns_servers_choose(struct dns_servers *s, const struct dns_servers *given);

/* Begin to ask. Each attempt has a quarter of patience; then the next server is asked, the first one again after the last.
 * servers must stay. The state is DNS_DONE at once if the name cannot be asked for. */
void dns_start(struct dns_query *q, const struct dns_servers *servers, const char *name, enum dns_type type, int64_t now,
    int64_t patience);

/* The same, asking for what a server has validated. `authentic` of the answer says so if the server that said it is to be believed: it is on
 * this host's loopback, or `trusted`. All others only look it up, and are not asked if there is one to be believed. */
void dns_start_authentic(struct dns_query *q, const struct dns_servers *servers, const char *name, enum dns_type type, int64_t now,
    int64_t patience);

/* Go on as far as possible without waiting. */
void dns_turn(struct dns_query *q, int64_t now);

/* When to call dns_turn() though nothing comes in. */
int64_t dns_deadline(const struct dns_query *q);

/* The descriptor to poll. Returns how many there are: 0 or 1. */
unsigned dns_watch(const struct dns_query *q, struct pollfd *p);

/* Give the query up. */
void dns_stop(struct dns_query *q);

#endif
