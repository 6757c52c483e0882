/* Checks of clients and recipients. See checks.h for the contract.
 *
 * At connect, in this order: --allow-clients; --dnsbl and --greet-delay, at the same time; then hooks. At RCPT: --valid-recipients, then
 * hooks.
 */
#define _GNU_SOURCE
#include "session/checks.h"
#include "io/dns.h"
#include "session/gate.h"
#include "session/held.h"
#include "session/record.h"
#include "session/talk.h"
#include "session/tarpit.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

#define EARLY_LOGGED 100 /* most octets recorded of what a client said too early */

/* How far the checks of this session are. */
static struct checks {
	int64_t began, greet_at;   /* greet_at: when --greet-delay is over */
	bool refused;		   /* `reply` is to be given */
	const char *reason;	   /* why the session then ends; NULL: only the held RCPT is refused */
	char reply[500];
	struct dns_servers servers;
	unsigned asked[OPTIONS_DNSBL_MAX]; /* for each of --dnsbl: the index of the query that asks its zone */
	unsigned queries;
	int worst; /* index of the listing that counts most, once the client is to be refused for it; -1: not so */
	int score;
	struct record_listing listing[OPTIONS_DNSBL_MAX];
} checks;

static _Alignas(4096) struct dns_query query[OPTIONS_DNSBL_MAX];

/* ---- refusals ---- */

/* No list is asked any more: give back the whole pages that queries have touched. */
static void end_asking(void)
{
	struct checks *c = &checks;
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = ((uintptr_t)query + page - 1) / page * page,
		  to = (uintptr_t)(query + OPTIONS_DNSBL_MAX) / page * page;

	if (!c->queries)
		return;
	for (unsigned i = 0; i < c->queries; i++)
		dns_stop(&query[i]);
	c->queries = 0;
	if (to > from)
		madvise((void *)from, to - from, MADV_DONTNEED);
}

void checks_give_reply(struct session *s)
{
	struct checks *c = &checks;

	c->refused = false;
	if (!c->reason) {
		held_refuse_recipient(s, c->reply);
		return;
	}
	dialogue_forget_server(&s->dialogue);
	talk_reply(s, c->reply);
	talk_end(s, END_LINGER, END_BY_SMTPWARP, c->reason);
}

bool checks_have_reply(void)
{
	return checks.refused;
}

/* Give checks.reply at once, or after --tarpit if a place is free. reason: see the member. */
static void refuse(struct session *s, const char *reason)
{
	end_asking();
	checks.reason = reason;
	checks.refused = true;
	if (tarpit_delay(s, s->o->tarpit))
		return;
	if (s->gate.stage == GATE_CHECKS)
		gate_enter(s, GATE_OPEN);
	checks_give_reply(s);
}

static void record_result(struct session *s, const char *on, struct record_check *r)
{
	r->on = on;
	r->verdict = r->text ? "reject" : "accept";
	r->us = s->now - checks.began;
	record_check(s, r);
}

/* ---- lists ---- */

/* Begin a query for each zone. A zone that is given more than once, with other filters, is asked once. */
static void ask(struct session *s)
{
	struct checks *c = &checks;
	const struct options *o = s->o;
	char name[DNS_NAME_MAX + 1];

	dns_servers_choose(&c->servers, &o->dns);
	for (unsigned i = 0; i < o->dnsbls; i++) {
		unsigned before = 0;

		while (strcasecmp(o->dnsbl[before].zone, o->dnsbl[i].zone) != 0)
			before++;
		c->asked[i] = before < i ? c->asked[before] : c->queries;
		if (before < i || !dns_reversed(&s->client.address, o->dnsbl[i].zone, name))
			continue;
		dns_start(&query[c->queries++], &c->servers, name, DNS_A, s->now, o->dnsbl_timeout);
	}
}

/* Judge the answer of one zone. Listings are in 127.0.0.0/8, RFC 5782 2.1. Other addresses are errors, e.g. of a name server that answers
 * every unknown name with its own web site; so is 127.255.255.x, by which lists refuse to serve a client. */
static void judge(const struct dnsbl *d, const struct dns_query *q, struct record_listing *l)
{
	l->zone = d->zone;
	l->failure = q->failure;
	l->weight = 0;
	l->answered = !q->failure && q->result == DNS_FOUND;
	l->address = l->answered ? q->answer.address[0] : 0;
	for (unsigned i = 0; l->answered && i < q->answer.count; i++) {
		uint32_t a = q->answer.address[i];

		if (a >> 24 != 127)
			l->failure = "an answer that is not in 127.0.0.0/8";
		else if (a >> 8 == 0x7fffff)
			l->failure = "an answer in 127.255.255.0/24: the list does not serve us";
		else if (!dnsbl_matches(d, a))
			continue;
		l->address = a;
		l->weight = l->failure ? 0 : d->weight;
		return;
	}
}

/* Judge all zones together: set c->score, and c->worst if the score reaches --dnsbl-threshold. */
static void judge_all(struct session *s)
{
	struct checks *c = &checks;
	const struct options *o = s->o;
	int most = 0;

	for (unsigned i = 0; i < o->dnsbls; i++) {
		struct record_listing *l = &c->listing[i];

		judge(&o->dnsbl[i], &query[c->asked[i]], l);
		c->score += l->weight;
		if (l->weight > most) {
			most = l->weight;
			c->worst = (int)i;
		}
	}
	if (c->score < (int)o->dnsbl_threshold)
		c->worst = -1;
}

static void record_lists(struct session *s, const char *text)
{
	struct checks *c = &checks;
	struct record_check r = { .text = text, .listing = c->listing, .listings = s->o->dnsbls, .score = c->score };

	for (unsigned i = 0; i < r.listings; i++)
		if (c->listing[i].answered || c->listing[i].failure) {
			record_result(s, "dnsbl", &r);
			return;
		}
}

/* Ask the list for its reason, which goes into the reply. */
static void ask_text(struct session *s)
{
	struct checks *c = &checks;
	char name[DNS_NAME_MAX + 1];

	dns_reversed(&s->client.address, c->listing[c->worst].zone, name);
	dns_start(&query[0], &c->servers, name, DNS_TXT, s->now, s->o->dnsbl_timeout);
}

static void refuse_listed(struct session *s)
{
	struct checks *c = &checks;
	const struct dns_answer *a = &query[0].answer;
	char text[NET_TEXT];
	bool told = !query[0].failure && query[0].result == DNS_FOUND && a->text_len;

	snprintf(c->reply, sizeof c->reply, "554 5.7.1 Client %s is listed by %s%s%.*s", net_text(&s->client.address, text),
	    c->listing[c->worst].zone, told ? ": " : "", told ? (int)a->text_len : 0, a->text);
	record_lists(s, c->reply + 4);
	refuse(s, "listed by --dnsbl");
}

/* ---- at connect ---- */

/* Refuse a client that has spoken before the last line of the banner. */
static void refuse_early(struct session *s)
{
	static const char reply[] = "554 5.5.1 Protocol error: you spoke too early";
	size_t n = leg_count(&s->client.leg);
	struct record_check r = { .text = reply + 4, .data = leg_bytes(&s->client.leg),
		.data_len = n < EARLY_LOGGED ? n : EARLY_LOGGED };

	strcpy(checks.reply, reply);
	record_result(s, "greeting", &r);
	refuse(s, "spoke too early");
}

bool checks_too_early(struct session *s)
{
	if (!s->checks.teased || !leg_count(&s->client.leg))
		return false;
	refuse_early(s);
	return true;
}

static const char not_allowed[] = "client is not allowed";

/* Put the reply to a client that is not allowed together, and record it. */
static void note_stranger(struct session *s)
{
	struct record_check r = { .text = checks.reply + 4 };
	char text[NET_TEXT];

	checks.began = s->now;

	snprintf(checks.reply, sizeof checks.reply, "554 5.7.1 Client %s is not allowed here (--allow-clients)",
	    net_text(&s->client.address, text));
	record_result(s, "clients", &r);
}

static bool is_allowed(const struct options *o, const union net_address *client)
{
	for (unsigned i = 0; i < o->allows; i++)
		if (net_in_block(client, &o->allow[i]))
			return true;
	return false;
}

/* End the session if this configuration would relay for anybody. Only a direct connection can: for a redirected one the firewall has
 * decided who may go where. */
static bool relays_openly(struct session *s)
{
	bool asks = s->hooks->events & 1u << HOOK_RCPT, named = s->client.proxy.sa.sa_family != AF_UNSPEC;
	const union net_address *reached = named ? &s->client.address : &s->client.local; /* a proxy on loopback is none of its client's */
	const char *why = s->server.origin == NET_DIRECT ? options_open_relay(s->o, asks, reached) : NULL;

	if (!why)
		return false;
	record_error(s, why);
	talk_reply(s, "421 4.3.5 Service is not configured rightly");
	talk_end(s, END_LINGER, END_BY_SMTPWARP, "open relay");
	return true;
}

bool checks_admit(struct session *s)
{
	if (!s->o->allows || is_allowed(s->o, &s->client.address))
		return true;
	note_stranger(s);
	talk_end(s, END_SILENT, END_BY_SMTPWARP, not_allowed);
	return false;
}

void checks_start(struct session *s)
{
	const struct options *o = s->o;
	const union net_address *client = &s->client.address;
	bool allowed = is_allowed(o, client);

	if (relays_openly(s))
		return;
	if (!o->allows && !o->dnsbls && !o->greet_delay) { /* before any page of `checks` is touched */
		s->checks.passed = true;
		return;
	}
	checks.began = s->now;
	checks.worst = -1;
	if (o->allows && !allowed) {
		note_stranger(s);
		refuse(s, not_allowed);
		return;
	}
	if (o->dnsbls && !allowed && client->sa.sa_family != AF_UNSPEC && !net_is_loopback(client))
		ask(s);
	if (o->greet_delay) {
		s->checks.teased = true;
		checks.greet_at = s->now + o->greet_delay;
		talk_replyf(s, "220-%s ESMTP", talk_own_name(s));
	}
	gate_enter(s, GATE_CHECKS);
}

static bool is_asking(void)
{
	for (unsigned i = 0; i < checks.queries; i++)
		if (query[i].state == DNS_RUNNING)
			return true;
	return false;
}

void checks_turn(struct session *s)
{
	struct checks *c = &checks;

	if (s->gate.stage != GATE_CHECKS)
		return;
	for (unsigned i = 0; i < c->queries; i++)
		dns_turn(&query[i], s->now);
	if (checks_too_early(s) || is_asking())
		return;
	if (c->worst >= 0) { /* the queries that are over were for its reason */
		refuse_listed(s);
		return;
	}
	if (s->now < c->greet_at)
		return;
	if (c->queries)
		judge_all(s);
	if (c->worst >= 0) {
		ask_text(s);
		return;
	}
	if (c->queries)
		record_lists(s, NULL);
	end_asking();
	gate_enter(s, GATE_OPEN);
	s->checks.passed = true;
}

void checks_take_passed(struct session *s)
{
	s->checks.passed = false;
}

int64_t checks_deadline(const struct session *s)
{
	int64_t at = s->now < checks.greet_at ? checks.greet_at : INT64_MAX;

	for (unsigned i = 0; i < checks.queries; i++) {
		int64_t due = dns_deadline(&query[i]);

		at = due < at ? due : at;
	}
	return at;
}

unsigned checks_watch(const struct session *s, struct pollfd *p)
{
	unsigned n = 0;

	for (unsigned i = 0; s->gate.stage == GATE_CHECKS && i < checks.queries; i++)
		n += dns_watch(&query[i], p + n);
	return n;
}

/* ---- recipients ---- */

bool checks_recipient(const struct session *s, const struct smtp_command *cmd)
{
	return !s->o->valid_recipients || ere_match(s->o->valid_recipients, cmd->address, cmd->address_len);
}

void checks_refuse_recipient(struct session *s)
{
	strcpy(checks.reply, "550 5.1.1 There is no such recipient here");
	refuse(s, NULL);
}
