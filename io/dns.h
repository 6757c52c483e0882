/* A stub for the DNS: one question of one type at a time each, over UDP, over TCP when the answer is cut (RFC 1035 4.2,
 * RFC 7766). Messages are built and read by pure functions, whatever a server says; sockets are polled by the session.
 *
 * An answer counts only if it comes from the server that was asked (a connected socket of a port of the kernel's choice), has
 * the random id of this attempt, and repeats the question: RFC 5452.
 */
#ifndef DNS_H
#define DNS_H

#include "pure/dnsmessage.h"

#include <poll.h>

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

/* What resolv.conf(5) says, but for the name servers if some are given; 127.0.0.1 if there are none. */
void dns_settings_choose(struct dns_settings *s, const struct dns_servers *given);

/* The name servers of that alone. */
void dns_servers_choose(struct dns_servers *s, const struct dns_servers *given);

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
