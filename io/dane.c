/* TLSA records of a server. See dane.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/dane.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define GRACE INT64_C(1000000) /* for the addresses of other hosts, once one has the address */

struct host {
	/* What its query is about: whether its alias is signed; TLSA records of what that leads to, of the name itself. */
	enum { ADDRESSES, ALIASED, EXPANDED, ORIGINAL, KNOWN } step;
	enum dane_word word; /* KNOWN */
	bool holds;	     /* it has the address */
	const char *failure; /* FAILED */
	char name[DNS_NAME_MAX + 1];
	char alias[DNS_NAME_MAX + 1]; /* to which it leads; "": it is none, or the records are those of the name itself */
	struct dns_query query;	      /* of the first, before there are hosts: about MX */
};

/* On pages of its own, which dane_end() gives back. */
static struct {
	_Alignas(4096) enum { IDLE, EXCHANGES, HOSTS, RECORDS, OVER } phase;
	bool alone;    /* a host was given, no domain */
	bool secure;   /* who may serve the domain is signed */
	union net_address address;
	uint16_t port;
	int64_t until, hurry_at; /* hurry_at: when not to wait for the addresses of other hosts any more; 0: none has the address yet */
	unsigned count;
	char domain[DNS_NAME_MAX + 1];
	struct dns_servers servers;
	struct dane_answer answer;
	struct host host[DANE_HOSTS];
} dane;

/* ---- asking ---- */

static void start(struct host *h, const char *name, enum dns_type type, int64_t now)
{
	dns_start_authentic(&h->query, &dane.servers, name, type, now, dane.until > now ? dane.until - now : 1);
}

static void add_host(const char *name)
{
	struct host *h = &dane.host[dane.count++];

	h->holds = false;
	h->failure = NULL;
	h->alias[0] = 0;
	snprintf(h->name, sizeof h->name, "%s", name);
}

static void ask_for_addresses(int64_t now)
{
	dane.phase = HOSTS;
	for (unsigned i = 0; i < dane.count; i++) {
		dane.host[i].step = ADDRESSES;
		start(&dane.host[i], dane.host[i].name, dane.address.sa.sa_family == AF_INET6 ? DNS_AAAA : DNS_A, now);
	}
}

void dane_ask(const char *domain, const char *host, const union net_address *address, uint16_t port, const struct dns_servers *given,
    int64_t now, int64_t patience)
{
	dane.alone = !domain;
	dane.secure = false;
	dane.address = *address;
	dane.port = port;
	dane.until = now + patience;
	dane.hurry_at = 0;
	dane.count = 0;
	memset(&dane.answer, 0, offsetof(struct dane_answer, set.record));
	dns_servers_choose(&dane.servers, given);
	snprintf(dane.domain, sizeof dane.domain, "%s", domain ? domain : "");
	if (dane.alone) {
		add_host(host);
		ask_for_addresses(now);
	} else {
		dane.phase = EXCHANGES;
		start(&dane.host[0], domain, DNS_MX, now);
	}
}

static void conclude(enum dane_word word)
{
	dane.phase = OVER;
	dane.answer.word = word;
}

static void fail(const char *what, const char *name, const char *why)
{
	snprintf(dane.answer.why, sizeof dane.answer.why, "%s of %s: %s", what, name, why);
	conclude(DANE_FAILED);
}

/* ---- who may serve the domain ---- */

/* A domain without MX is its own exchange, RFC 5321 5.1. */
static void take_exchanges(int64_t now)
{
	const struct dns_query *q = &dane.host[0].query;
	struct dns_answer list = q->answer; /* the first host's query has the next answer */
	const char *name;
	size_t at = 0;

	if (q->failure) {
		fail("MX", dane.domain, q->failure);
		return;
	}
	dane.secure = q->answer.authentic;
	if (q->result == DNS_NOTHING && q->answer.named)
		add_host(dane.domain);
	while (q->result == DNS_FOUND && dane.count < DANE_HOSTS && (name = dns_exchange(&list, &at)))
		add_host(name);
	if (dane.count)
		ask_for_addresses(now);
	else
		conclude(DANE_NONE);
}

/* ---- which of them it is ---- */

static bool has_address(const struct dns_query *q)
{
	return q->state == DNS_DONE && !q->failure && q->result == DNS_FOUND && dns_has(&q->answer, &dane.address);
}

/* Whether to wait for more addresses. */
static bool waits(int64_t now)
{
	unsigned running = 0;

	for (unsigned i = 0; i < dane.count; i++) {
		struct host *h = &dane.host[i];

		dns_turn(&h->query, now);
		running += h->query.state == DNS_RUNNING;
		h->holds = has_address(&h->query);
		if (h->holds && !dane.hurry_at)
			dane.hurry_at = now + GRACE;
	}
	return running && (!dane.hurry_at || now < dane.hurry_at);
}

static void set_known(struct host *h, enum dane_word word, const char *failure)
{
	h->step = KNOWN;
	h->word = word;
	h->failure = failure;
}

/* Ask for the records of the alias, or of the name; a name that is too long for that has none. */
static void ask_for_records(struct host *h, int64_t now)
{
	char name[DNS_NAME_MAX + 16];
	int n;

	h->step = h->step == ADDRESSES && h->alias[0] ? EXPANDED : ORIGINAL;
	n = snprintf(name, sizeof name, "_%u._tcp.%s", dane.port, h->step == EXPANDED ? h->alias : h->name);
	if (n <= DNS_NAME_MAX)
		start(h, name, DNS_TLSA, now);
	else if (h->step == EXPANDED)
		ask_for_records(h, now);
	else
		set_known(h, DANE_NONE, NULL);
}

/* The addresses of a host are known, or cannot be had. If they are not signed, nor are its records, and servers that do not know of TLSA
 * must not be asked, unless it is a signed alias: RFC 7672 2.2.2. */
static void take_addresses(struct host *h, int64_t now)
{
	struct dns_query *q = &h->query;
	bool lost = q->state == DNS_RUNNING;

	dns_stop(q);
	if (dane.answer.identified && !h->holds && !dane.alone) {
		set_known(h, DANE_NONE, NULL);
	} else if (q->failure) {
		set_known(h, DANE_FAILED, lost ? "no answer in time" : q->failure);
	} else if (dane.answer.half && !dane.answer.identified) { /* names that nobody has signed prove nothing */
		set_known(h, DANE_NONE, NULL);
	} else if (!q->answer.authentic && q->answer.aliased) {
		h->step = ALIASED;
		start(h, h->name, DNS_CNAME, now);
	} else if (!q->answer.authentic) {
		set_known(h, DANE_NONE, NULL);
	} else {
		memcpy(h->alias, q->answer.text, q->answer.text_len);
		h->alias[q->answer.text_len] = 0;
		ask_for_records(h, now);
	}
}

static void choose(int64_t now)
{
	const struct host *one = NULL;
	unsigned holding = 0;

	for (unsigned i = 0; i < dane.count; i++)
		if (dane.host[i].holds) {
			one = &dane.host[i];
			holding++;
		}
	dane.answer.identified = dane.alone || holding;
	dane.answer.mx = dane.secure && holding == 1 ? one->name : NULL;
	dane.answer.half = !dane.alone && !dane.secure;
	dane.phase = RECORDS;
	for (unsigned i = 0; i < dane.count; i++)
		take_addresses(&dane.host[i], now);
}

/* ---- its records ---- */

static void take_records(struct host *h, int64_t now)
{
	const struct dns_query *q = &h->query;
	int usable;

	if (q->failure) {
		set_known(h, DANE_FAILED, q->failure);
	} else if (h->step == ALIASED && !q->answer.authentic) {
		set_known(h, DANE_NONE, NULL);
	} else if (h->step == ALIASED || (q->result == DNS_NOTHING && h->step == EXPANDED)) { /* RFC 7672 2.2.2 */
		ask_for_records(h, now);
	} else if (q->result == DNS_NOTHING) { /* signed, or not, as where names are left out of what is signed, RFC 5155 6 */
		set_known(h, DANE_NONE, NULL);
	} else if (!q->answer.authentic) {
		set_known(h, DANE_FAILED, "the name server has validated the address, but not the TLSA records");
	} else {
		if (h->step == ORIGINAL)
			h->alias[0] = 0;
		usable = dane_take(&dane.answer.set, (unsigned)(h - dane.host), &q->answer);
		if (usable < 0)
			set_known(h, DANE_FAILED, "too many TLSA records");
		else
			set_known(h, usable ? DANE_USABLE : DANE_UNUSABLE, NULL);
	}
}

static bool records_are_known(int64_t now)
{
	unsigned running = 0;

	for (unsigned i = 0; i < dane.count; i++) {
		struct host *h = &dane.host[i];

		while (h->step != KNOWN) {
			dns_turn(&h->query, now);
			if (h->query.state == DNS_RUNNING)
				break;
			take_records(h, now);
		}
		running += h->step != KNOWN;
	}
	return !running;
}

/* ---- the answer ---- */

static void add_name(const char *name)
{
	if (name[0])
		dane.answer.names[dane.answer.count++] = name;
}

/* Whether the host may be the one. */
static bool counts(const struct host *h)
{
	return dane.alone || !dane.answer.identified || h->holds;
}

/* Among several a host whose records cannot be had is one that matches none of the others': it may be the one, so the server must match. */
static void put_together(void)
{
	unsigned hosts[DANE_FAILED + 1] = { 0 };
	const struct host *failed = NULL;

	for (unsigned i = 0; i < dane.count; i++) {
		const struct host *h = &dane.host[i];

		if (!counts(h))
			continue;
		hosts[h->word]++;
		failed = h->word == DANE_FAILED && !failed ? h : failed;
		if (h->word != DANE_USABLE)
			continue;
		add_name(h->alias);
		add_name(h->name);
	}
	if (dane.secure)
		add_name(dane.domain);
	dane.answer.host = dane.answer.names[0];
	dane.answer.demanded = !hosts[DANE_NONE];
	dane.answer.every = hosts[DANE_FAILED] || (dane.answer.demanded && !hosts[DANE_UNUSABLE]);
	if (hosts[DANE_USABLE])
		conclude(DANE_USABLE);
	else if (failed)
		fail("records", failed->name, failed->failure);
	else
		conclude(hosts[DANE_UNUSABLE] && !hosts[DANE_NONE] ? DANE_UNUSABLE : DANE_NONE);
}

const struct dane_answer *dane_turn(int64_t now)
{
	while (dane.phase != OVER) {
		if (dane.phase == EXCHANGES) {
			dns_turn(&dane.host[0].query, now);
			if (dane.host[0].query.state == DNS_RUNNING)
				return NULL;
			take_exchanges(now);
		} else if (dane.phase == HOSTS) {
			if (waits(now))
				return NULL;
			choose(now);
		} else {
			if (!records_are_known(now))
				return NULL;
			put_together();
		}
	}
	return &dane.answer;
}

/* How many queries may be under way. */
static unsigned queries(void)
{
	return dane.phase == EXCHANGES ? 1 : dane.phase == HOSTS || dane.phase == RECORDS ? dane.count : 0;
}

int64_t dane_deadline(void)
{
	int64_t at = dane.phase == HOSTS && dane.hurry_at ? dane.hurry_at : INT64_MAX;

	for (unsigned i = 0; i < queries(); i++) {
		int64_t one = dns_deadline(&dane.host[i].query);

		at = one < at ? one : at;
	}
	return at;
}

unsigned dane_watch(struct pollfd *p)
{
	unsigned n = 0;

	for (unsigned i = 0; i < queries(); i++)
		n += dns_watch(&dane.host[i].query, p + n);
	return n;
}

void dane_end(void)
{
	for (unsigned i = 0; i < queries(); i++)
		dns_stop(&dane.host[i].query);
	dane.phase = IDLE;
	madvise(&dane, sizeof dane, MADV_DONTNEED); /* has no effect where pages are larger */
}
