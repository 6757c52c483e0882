/* The name of a server by the DNS. See mxname.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "session/mxname.h"
#include "pure/idna.h"
#include "pure/site.h"

#include <string.h>
#include <sys/mman.h>

/* One query at a time, on pages of its own, which mxname_end() gives back. */
static struct {
	_Alignas(4096) bool others; /* those of providers have been asked for: now the other names */
	bool has_list;	  /* the answer to MX is in */
	bool failed;	  /* the addresses of a name could not be had: it may have been the one */
	size_t at;	  /* in that list: the next name */
	int64_t until;
	const char *providers;
	size_t providers_len;
	struct mxname_answer answer;
	struct dns_answer list;
	struct dns_servers servers;
	struct dns_query query;
} mx;

bool mxname_domain(const unsigned char *address, size_t n, char domain[DNS_NAME_MAX + 1])
{
	return idna_domain_of(address, n, domain) && dns_is_domain(domain);
}

static void ask_for(const struct session *s, const char *name, enum dns_type type)
{
	dns_start(&mx.query, &mx.servers, name, type, s->now, mx.until - s->now);
}

void mxname_ask(struct session *s, const char *domain, const union net_address *address, const char *providers, size_t n)
{
	s->mxname.asked = s->mxname.asking = true;
	mx.until = s->now + s->o->dnsbl_timeout;
	mx.providers = providers;
	mx.providers_len = n;
	mx.answer.address = *address;
	strcpy(mx.answer.domain, domain);
	dns_servers_choose(&mx.servers, &s->o->dns);
	ask_for(s, domain, DNS_MX);
}

void mxname_end(struct session *s)
{
	dns_stop(&mx.query);
	s->mxname.asking = false;
	madvise(&mx, sizeof mx, MADV_DONTNEED); /* has no effect where pages are larger */
}

/* A name without a dot could be read as that of a provider. */
static bool is_next(const char *name)
{
	char site[STATEMAP_SITE];

	return strchr(name, '.') && site_of_name(mx.providers, mx.providers_len, name, site) != mx.others;
}

/* The next name whose addresses are to be asked for; NULL: there is none left. Those of providers come first, so that a domain hides no
 * provider's name behind one of its own. */
static const char *next_name(void)
{
	const char *name;

	for (;;) {
		while ((name = dns_exchange(&mx.list, &mx.at)))
			if (is_next(name))
				return name;
		if (mx.others)
			return NULL;
		mx.others = true;
		mx.at = 0;
	}
}

/* The answer to MX is in: note the list. A domain without MX is its own exchange, RFC 5321 5.1. */
static void take_list(const struct dns_query *q)
{
	mx.has_list = true;
	mx.list = q->answer;
	if (q->result == DNS_FOUND || !q->answer.named)
		return;
	strcpy(mx.list.exchange + 2, mx.answer.domain);
	mx.list.text_len = 2 + strlen(mx.answer.domain) + 1;
}

/* A query is over. Returns whether the answer is complete; else the next query has begun, or `asking` is false, for none can be had. */
static bool take_result(struct session *s)
{
	const struct dns_query *q = &mx.query;
	const char *name;

	if (q->failure && !mx.has_list) {
		s->mxname.asking = false;
		return false;
	}
	if (!mx.has_list)
		take_list(q);
	else if (q->failure)
		mx.failed = true;
	else if (q->result == DNS_FOUND && dns_has(&q->answer, &mx.answer.address))
		return true;
	mx.failed = mx.failed || s->now >= mx.until;
	name = s->now < mx.until ? next_name() : NULL;
	if (name) {
		strcpy(mx.answer.name, name);
		ask_for(s, name, mx.answer.address.sa.sa_family == AF_INET6 ? DNS_AAAA : DNS_A);
		return false;
	}
	mx.answer.name[0] = 0;
	s->mxname.asking = !mx.failed;
	return s->mxname.asking;
}

const struct mxname_answer *mxname_turn(struct session *s)
{
	while (s->mxname.asking) {
		dns_turn(&mx.query, s->now);
		if (mx.query.state == DNS_RUNNING)
			return NULL;
		if (take_result(s))
			return &mx.answer;
		if (!s->mxname.asking)
			mxname_end(s);
	}
	return NULL;
}

unsigned mxname_watch(const struct session *s, struct pollfd *p)
{
	return s->mxname.asking ? dns_watch(&mx.query, p) : 0;
}

int64_t mxname_deadline(const struct session *s)
{
	return s->mxname.asking ? dns_deadline(&mx.query) : INT64_MAX;
}
