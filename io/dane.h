/* Whether TLSA records name a server's certificate, and which: RFC 7672 2, without knowing the server's name. Of the mail exchanges of a
 * recipient's domain it is the one that has the address that the client wanted to reach; if none has, any of the best DANE_HOSTS will do.
 * Nothing here waits; the session polls. A process asks one question at a time.
 */
#ifndef IO_DANE_H
#define IO_DANE_H

#include "io/dns.h"
#include "pure/dane.h"

#define DANE_HOSTS DNS_EXCHANGES
#define DANE_NAMES (2 * DANE_HOSTS + 1)
#define DANE_POLLED DANE_HOSTS

enum dane_word {
	DANE_NONE,     /* there are no records, or nobody has signed what leads to them: DANE has no say */
	DANE_USABLE,   /* the certificate must be one that the set names */
	DANE_UNUSABLE, /* there are records, and none can be used: TLS, with any certificate, RFC 7672 2.2 */
	DANE_FAILED     /* there may be records, and they cannot be had: no mail, RFC 7672 2.1.2 */
};

struct dane_answer {
	enum dane_word word;
	bool half;	 /* who may serve the domain is not signed: records vouch for the host alone */
	bool identified; /* it is known which host it is: else the set has the records of all */
	bool every;	 /* USABLE: each host that it may be has records, or one's cannot be had: what matches none must get no mail */
	const char *mx;	 /* the one mail exchange that has the address, if who may serve the domain is signed; NULL: not known */
	bool demanded;	 /* USABLE: each host that it may be has records, of use or not: there must be TLS */
	char why[2 * DNS_NAME_MAX]; /* FAILED: what, of which name, and why */
	/* USABLE: for SNI, RFC 7672 8.1, and the names of which a certificate must have one if a CA's is named, RFC 7672 3.2.2. */
	const char *host;
	const char *names[DANE_NAMES];
	size_t count;
	struct dane_set set;
};

/* Begin to ask about the servers of a domain, one of which has this address, or (domain is NULL) about this host alone. Names are copied.
 * port: for which the records are. given: the servers of --dns-server. patience: for all of it; times as in dns.h. */
void dane_ask(const char *domain, const char *host, const union net_address *address, uint16_t port, const struct dns_servers *given,
    int64_t now, int64_t patience);

/* Go on as far as possible without waiting. Returns the answer; NULL: there is none yet. It stays until dane_end(). */
const struct dane_answer *dane_turn(int64_t now);

/* When to call dane_turn() though nothing comes in, and the descriptors to poll, at most DANE_POLLED (returns how many). */
int64_t dane_deadline(void);
unsigned dane_watch(struct pollfd *p);

/* Forget question and answer. */
void dane_end(void);

#endif
