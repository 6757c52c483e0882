/* The TLS policy of a recipient's domain. See policy.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "session/policy.h"
#include "io/policyfile.h"
#include "io/socketmap.h"
#include "pure/idna.h"
#include "session/record.h"
#include "session/routing.h"
#include "session/serverstate.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define PATIENCE INT64_C(5000000) /* for each of the lookups */
#define LASTS INT64_C(300000000)  /* what was found; a session may go on for a day, and servers get new keys meanwhile */

/* What sessions with policies alone touch. */
static struct {
	_Alignas(4096) const struct dane_answer *dane; /* of `domain`; NULL: it has not been asked for, or has no say */
	bool has_rule;
	struct tlspolicy rule;
	struct tlspolicy_names names;
	struct upstream other; /* the server of route.others that is asked about */
	char undotted[256]; /* for server_name() */
	char server[256]; /* its name, by the operator or by signed records of MX; "": not known. To which names may lead */
	struct socketmap_query query;
	char refusal[480];
} known;

void policy_prepare(struct session *s)
{
	static struct policy policy;

	s->policy = &policy;
}

/* ---- what is asked ---- */

static bool wants_dane(enum tls_level level)
{
	return level == TLS_DANE || level == TLS_DANE_ONLY;
}

static bool has_policies(const struct options *o)
{
	return o->limits.mail_late && (wants_dane(o->tls) || o->policy_file || o->policy_map);
}

bool policy_promises(const struct session *s)
{
	return has_policies(s->o) || (s->o->limits.mail_late && s->o->tls == TLS_VERIFY);
}

bool policy_may_refuse(const struct session *s)
{
	bool by_verdict = s->hooks->events & HOOK_ROUTING;

	return has_policies(s->o) || (s->o->limits.mail_late && by_verdict);
}

/* A verdict that names a level, other than one of DANE's, is the operator's last word. */
bool policy_is_due(const struct session *s, const struct route *wanted)
{
	return wants_dane(wanted->tls) || (!wanted->tls_given && (s->o->policy_file || s->o->policy_map));
}

/* The server that the policy is about, where the operator has named it. NULL: the client has chosen it. */
static const struct upstream *named_server(const struct session *s)
{
	return s->o->tls_on_recipient ? s->server.upstream : routing_server(s, &s->policy->wanted, s->policy->nth, &known.other);
}

/* Whether it is by the address of the server that gets the mail. One that is still to be looked up has none. */
static bool is_exempt(const struct session *s)
{
	const struct upstream *u = named_server(s);
	union net_address a = s->o->tls_on_recipient ? s->server.address : s->server.original;

	if (u && !s->o->tls_on_recipient && !net_parse(u->host, u->port, &a))
		return false;
	for (unsigned i = 0; i < s->o->dane_exempts; i++)
		if (net_in_block(&a, &s->o->dane_exempt[i]))
			return true;
	return false;
}

/* The name of that server, without a dot at its end; NULL: it is not known. */
static const char *server_name(const struct session *s)
{
	const struct upstream *u = named_server(s);

	return u && net_is_name(u->host) ? net_undotted(u->host, known.undotted, sizeof known.undotted) : NULL;
}

/* The domain of the held recipient as policies have it; "": it has none. The operator may have a word for one that is none in the DNS.
 * false: nobody can look it up. */
static bool take_domain(const struct smtp_command *cmd, char domain[DNS_NAME_MAX + 1])
{
	bool has_any = cmd->address_len && memchr(cmd->address, '@', cmd->address_len);
	size_t n = idna_domain_of(cmd->address, cmd->address_len, domain);

	if (domain[0] == '[')
		domain[0] = 0;
	return n || !has_any;
}

/* host: NULL if this does not say. */
static void set_server(const char *host)
{
	if (host)
		snprintf(known.server, sizeof known.server, "%s", host);
}

/* ---- what it comes to ---- */

static void settle(struct session *s, enum tls_level level, const char *word)
{
	s->policy->now = (struct policy_terms){ .level = level, .word = word };
	s->policy->stage = POLICY_IDLE;
	s->policy->news = true;
}

/* The same, by names or records of the domain. */
static void settle_by_domain(struct session *s, enum tls_level level, const char *word, enum policy_source source)
{
	settle(s, level, word);
	s->policy->now.source = source;
	snprintf(s->policy->now.of, sizeof s->policy->now.of, "%s", s->policy->domain);
}

/* The same, by TLSA records: those of a host that the operator has named are the same for all domains. */
static void settle_by_dane(struct session *s, enum tls_level level, const char *word)
{
	const struct upstream *u = named_server(s);

	settle_by_domain(s, level, word, POLICY_BY_DANE);
	if (u)
		snprintf(s->policy->now.of, sizeof s->policy->now.of, "%.*s:%u", DNS_NAME_MAX, u->host, u->port);
}

static void refuse(struct session *s, const char *what, const char *why)
{
	snprintf(known.refusal, sizeof known.refusal, "451 4.7.5 %s%s%.300s", what, *why ? ": " : "", why);
	record_error(s, known.refusal + 4);
	settle(s, TLS_VERIFY, "dane-only");
	s->policy->refused = true;
}

static void refuse_by_rule(struct session *s, const char *why)
{
	char what[DNS_NAME_MAX + 40];

	snprintf(what, sizeof what, "TLS policy of %s", s->policy->domain[0] ? s->policy->domain : "the recipient's domain");
	refuse(s, what, why);
}

static void refuse_by_dane(struct session *s, const char *what, const char *why, enum tlsrpt_code code)
{
	refuse(s, what, why);
	s->policy->failure = code;
}

static void ask_map(struct session *s)
{
	s->policy->stage = POLICY_MAP;
	socketmap_start(&known.query, s->o->policy_map, s->policy->domain, s->now, PATIENCE);
}

static void ask_dane(struct session *s)
{
	const struct upstream *u = named_server(s);
	const char *host = server_name(s);

	s->policy->stage = POLICY_DANE;
	s->policy->dane_asked = true;
	if (u ? host != NULL : dns_is_domain(s->policy->domain))
		dane_ask(host ? NULL : s->policy->domain, host, &s->server.original, host ? u->port : net_port(&s->server.original), &s->o->dns,
		    s->now, PATIENCE);
	else
		s->policy->stage = POLICY_NO_DANE; /* there is no name to ask about */
}

/* Whether the map is to be asked after DANE. */
static bool map_is_due(const struct session *s)
{
	return !known.has_rule && s->o->policy_map && s->policy->domain[0] && !s->policy->wanted.tls_given && !s->policy->map_asked;
}

/* DANE has no say. */
static void go_without_dane(struct session *s)
{
	if (known.has_rule)
		settle(s, known.rule.level == TLSPOLICY_DANE_ONLY ? TLS_DANE_ONLY : TLS_MAY, "may");
	else if (map_is_due(s))
		ask_map(s);
	else
		settle(s, s->policy->wanted.tls == TLS_DANE_ONLY ? TLS_DANE_ONLY : TLS_MAY, "may");
	if (s->policy->news && s->policy->now.level == TLS_DANE_ONLY && !is_exempt(s))
		refuse_by_dane(s, "dane-only", "there are no signed TLSA records for the server", TLSRPT_DANE_REQUIRED);
	else if (s->policy->news && s->policy->now.level == TLS_DANE_ONLY)
		settle(s, TLS_MAY, "may");
}

/* A server that is none of those that the domain has, if not all of those have records, may be one of the others: it is not held to them.
 * If all have some, but not all of use, it may be one with which TLS is enough. */
static void take_dane(struct session *s, const struct dane_answer *a)
{
	bool only = known.has_rule ? known.rule.level == TLSPOLICY_DANE_ONLY : s->policy->wanted.tls == TLS_DANE_ONLY;
	bool held = a->identified || a->every || only;

	set_server(a->mx);
	switch (a->word == DANE_USABLE && !held && a->demanded ? DANE_UNUSABLE : a->word) {
	case DANE_USABLE:
		if (!held && map_is_due(s))
			break;
		known.dane = a;
		if (held)
			settle_by_dane(s, TLS_VERIFY, a->half ? "dane:halfdane" : "dane");
		else
			settle_by_dane(s, TLS_MAY, "dane?");
		s->policy->now.half = a->half;
		return;
	case DANE_UNUSABLE:
		dane_end();
		if (only)
			refuse(s, "dane-only", "none of the server's TLSA records can be used");
		else
			settle(s, TLS_ENCRYPT, "dane:encrypt");
		s->policy->failure = TLSRPT_TLSA_INVALID;
		return;
	case DANE_FAILED:
		refuse_by_dane(s, "DANE", a->why, TLSRPT_DNSSEC_INVALID);
		dane_end();
		return;
	case DANE_NONE:
		break;
	}
	dane_end();
	go_without_dane(s);
}

/* There is no policy of the file or of the map, or one that asks for less than --tls. */
static void go_without_rule(struct session *s)
{
	enum tls_level level = s->policy->wanted.tls;

	known.has_rule = false;
	if (!wants_dane(level))
		settle(s, level, tls_level_name(level));
	else if (!s->policy->dane_asked && !is_exempt(s))
		ask_dane(s);
	else
		go_without_dane(s);
}

/* A policy of the file or of the map. One in testing lets mail go as if there were none, RFC 8461 5: what --tls demands still counts. */
static void take_rule(struct session *s)
{
	const struct tlspolicy *p = &known.rule;
	const char *host = server_name(s);
	enum tls_level level = tlspolicy_tls(p), own = s->policy->wanted.tls;
	bool unlisted;

	bool dane_first = own == TLS_DANE && !s->policy->dane_asked && !is_exempt(s);

	if (p->testing && (own == TLS_DANE_ONLY || dane_first || tls_level_verifies(own))) {
		go_without_rule(s);
		return;
	}
	if (p->testing && own == TLS_ENCRYPT)
		level = own;
	known.has_rule = true;
	if ((p->level == TLSPOLICY_DANE || p->level == TLSPOLICY_DANE_ONLY) && !s->policy->dane_asked && !is_exempt(s)) {
		ask_dane(s);
		return;
	}
	if (p->level == TLSPOLICY_DANE || p->level == TLSPOLICY_DANE_ONLY) {
		go_without_dane(s);
		return;
	}
	set_server(host);
	host = known.server[0] ? known.server : NULL;
	unlisted = host && !tlspolicy_permits(p, host);
	if (unlisted && (level == TLS_VERIFY || p->testing))
		s->policy->failure = TLSRPT_VALIDATION_FAILURE;
	if (unlisted && level == TLS_VERIFY) {
		refuse_by_rule(s, "its mail must not go to this server");
		return;
	}
	tlspolicy_names(p, host, s->policy->domain, &known.names);
	if (level == TLS_VERIFY && !known.names.count) {
		refuse_by_rule(s, "it names no certificate: give match=");
		return;
	}
	if (level == TLS_VERIFY || p->level == TLSPOLICY_FINGERPRINT || p->testing)
		settle_by_domain(s, level, tlspolicy_level_name(p->level), POLICY_BY_RULE);
	else
		settle(s, level, tlspolicy_level_name(p->level));
}

static void take_map(struct session *s)
{
	const struct socketmap_query *q = &known.query;
	const char *why = q->failure;

	s->policy->map_asked = true;
	switch (q->result) {
	case SOCKETMAP_FOUND:
		why = tlspolicy_parse(&known.rule, q->text, q->text_len);
		if (!why) {
			take_rule(s);
			return;
		}
		break;
	case SOCKETMAP_NOTHING:
		go_without_rule(s);
		return;
	case SOCKETMAP_MORE:
	case SOCKETMAP_FAILED:
	case SOCKETMAP_BAD:
		break;
	}
	refuse_by_rule(s, why);
	s->policy->everywhere = true;
}

/* ---- asking ---- */

/* Where no listener has read the file. false: it cannot be read, and the recipient is refused. */
static bool has_file(struct session *s)
{
	char why[300];

	if (policyfile_loaded() || policyfile_load(s->o->policy_file, why, sizeof why))
		return true;
	refuse(s, "TLS policies cannot be read", why);
	s->policy->everywhere = true;
	return false;
}

static void forget(struct session *s)
{
	if (known.dane)
		dane_end();
	known.dane = NULL;
	known.has_rule = false;
	known.server[0] = 0;
	s->policy->failure = TLSRPT_NO_FAILURE;
	s->policy->dane_asked = s->policy->map_asked = s->policy->refused = s->policy->everywhere = false;
}

/* The file comes first, for in it the operator exempts what is broken elsewhere. */
static void ask(struct session *s)
{
	const struct route *wanted = &s->policy->wanted;
	bool by_operator = wanted->tls_given || !s->policy->domain[0];

	s->policy->asked_at = s->now;
	if (s->policy->nameless && !wanted->tls_given && (s->o->policy_file || s->o->policy_map)) {
		refuse_by_rule(s, "it cannot be looked up");
		s->policy->everywhere = true;
		return;
	}
	if (!by_operator && s->o->policy_file && !has_file(s))
		return;
	if (!by_operator && s->o->policy_file && policyfile_find(s->policy->domain, &known.rule))
		take_rule(s);
	else if (wants_dane(wanted->tls) && !is_exempt(s))
		ask_dane(s);
	else if (wants_dane(wanted->tls))
		go_without_dane(s);
	else if (!by_operator && s->o->policy_map)
		ask_map(s);
	else
		settle(s, wanted->tls, tls_level_name(wanted->tls));
}

/* The server that the recipient's mail goes to, if it can be reached: the one that is connected, else the first of the route. */
static unsigned server_of(const struct session *s, const struct route *wanted)
{
	bool connected = s->o->limits.on_recipient && serverstate_is_open(s) && route_is_same(wanted, &s->server.route);

	return connected && s->server.next_upstream ? s->server.next_upstream - 1 : 0;
}

/* Whether that was asked for last, and may be used. A level that a verdict has named leaves out what counts else. */
static bool is_known(const struct session *s, const struct route *wanted, const char *domain, unsigned nth)
{
	const struct policy *p = s->policy;
	bool same = route_is_same(wanted, &p->wanted) && wanted->tls_given == p->wanted.tls_given && s->now < p->asked_at + LASTS;

	return domain[0] && strcmp(domain, p->domain) == 0 && same && nth == p->nth && !p->refused;
}

void policy_ask(struct session *s, const struct route *wanted)
{
	const struct smtp_command *cmd = &s->held->cmd;
	unsigned nth = server_of(s, wanted);
	char domain[DNS_NAME_MAX + 1];
	bool nameless = !take_domain(cmd, domain);

	if (is_known(s, wanted, domain, nth)) {
		s->policy->news = true; /* it is known */
		return;
	}
	forget(s);
	s->policy->wanted = *wanted;
	s->policy->nth = nth;
	s->policy->nameless = nameless;
	snprintf(s->policy->domain, sizeof s->policy->domain, "%s", domain);
	ask(s);
	policy_turn(s);
}

bool policy_is_about(const struct session *s, unsigned nth)
{
	return !s->o->limits.on_recipient || !s->policy->now.word || nth == s->policy->nth;
}

void policy_ask_again(struct session *s, unsigned nth)
{
	forget(s);
	s->policy->nth = nth;
	ask(s);
	policy_turn(s);
}

void policy_turn(struct session *s)
{
	const struct dane_answer *a;
	enum policy_stage before;

	if (!s->policy)
		return;
	do {
		before = s->policy->stage;
		if (before == POLICY_NO_DANE) {
			go_without_dane(s);
		} else if (before == POLICY_DANE && (a = dane_turn(s->now))) {
			take_dane(s, a);
		} else if (before == POLICY_MAP) {
			socketmap_turn(&known.query, s->now);
			if (known.query.state == SOCKETMAP_DONE)
				take_map(s);
		}
	} while (s->policy->stage != before);
}

unsigned policy_watch(const struct session *s, struct pollfd *p)
{
	if (!s->policy || s->policy->stage == POLICY_IDLE || s->end.how != END_NOT)
		return 0;
	return s->policy->stage == POLICY_DANE ? dane_watch(p) : socketmap_watch(&known.query, p);
}

int64_t policy_deadline(const struct session *s)
{
	if (!s->policy || s->policy->stage == POLICY_IDLE)
		return INT64_MAX;
	return s->policy->stage == POLICY_DANE ? dane_deadline() : socketmap_deadline(&known.query);
}

/* Descriptors would stay open as long as `log` and `close` hooks run. */
void policy_end(struct session *s)
{
	if (!s->policy || s->policy->stage == POLICY_IDLE)
		return;
	if (s->policy->stage == POLICY_MAP)
		socketmap_stop(&known.query);
	else
		dane_end();
	s->policy->stage = POLICY_IDLE;
}

const char *policy_take(struct session *s)
{
	s->policy->news = false;
	return s->policy->refused ? known.refusal : NULL;
}

/* Sessions without policies write nothing here. */
void policy_of_route(struct session *s)
{
	if (!s->policy->now.word)
		return;
	forget(s);
	s->policy->domain[0] = 0;
	s->policy->now = (struct policy_terms){ .word = NULL };
}

/* `now` says no more than that there is something to ask. */
void policy_of_list(struct session *s, const struct route *route)
{
	policy_of_route(s);
	if (!wants_dane(route->tls) || !(s->o->upstreams || route->upstream.host[0]))
		return;
	s->policy->wanted = *route;
	s->policy->nth = UINT_MAX;
	s->policy->nameless = false;
	s->policy->now = (struct policy_terms){ .level = TLS_MAY, .word = "may" };
}

/* ---- the connection ---- */

static bool are_same(const struct policy_terms *a, const struct policy_terms *b)
{
	return !a->word == !b->word && a->level == b->level && a->source == b->source && strcmp(a->of, b->of) == 0;
}

bool policy_is_same(const struct session *s, const struct policy_terms *terms)
{
	return are_same(&s->policy->now, terms);
}

/* TLS that was begun for "may" may be weaker than what "encrypt" takes. A certificate was judged by the names of one policy only. */
bool policy_is_met(const struct session *s)
{
	const struct policy_terms *now = &s->policy->now;
	bool may = now->level == TLS_MAY || (now->level == TLS_ENCRYPT && policy_level(s) > TLS_MAY);

	if (now->word && now->source == POLICY_BY_LEVEL && may && s->server.leg.tls)
		return true;
	return are_same(now, &s->policy->agreed);
}

void policy_agree(struct session *s)
{
	if (s->policy && (s->policy->now.word || s->policy->agreed.word))
		s->policy->agreed = s->policy->now;
}

void policy_raise(struct session *s)
{
	if (!s->server.leg.tls)
		policy_agree(s);
}

bool policy_is_proven(const struct session *s)
{
	return s->server.leg.tls && s->server.facts.verified && !s->policy->now.half && are_same(&s->policy->now, &s->policy->agreed);
}

/* Before a recipient is known nothing is agreed on. */
static bool has_terms(const struct session *s)
{
	return s->policy && s->policy->agreed.word;
}

enum tls_level policy_level(const struct session *s)
{
	enum tls_level level = has_terms(s) ? s->policy->agreed.level : s->server.route.tls;

	return level == TLS_DANE ? TLS_MAY : level == TLS_DANE_ONLY ? TLS_ENCRYPT : level;
}

void policy_demand(const struct session *s, const char *const *name, struct tls_demand *demand)
{
	enum policy_source source = has_terms(s) ? s->policy->agreed.source : POLICY_BY_LEVEL;
	enum tls_level level = policy_level(s);

	*demand = (struct tls_demand){ .level = level == TLS_NONE ? TLS_MAY : level, .sni = *name, .names = name, .count = *name != NULL };
	if (source != POLICY_BY_LEVEL)
		demand->count = 0;
	if (source == POLICY_BY_DANE && known.dane) {
		demand->sni = known.dane->host;
		demand->names = known.dane->names;
		demand->count = known.dane->count;
		demand->tlsa = &known.dane->set;
	} else if (source == POLICY_BY_RULE && known.has_rule) {
		const char *sni = tlspolicy_servername(&known.rule, known.server[0] ? known.server : NULL, s->policy->domain);

		demand->sni = sni ? sni : *name;
		demand->names = known.names.name;
		demand->count = known.names.count;
	}
}

void policy_show(const struct session *s, struct policy_view *v)
{
	const struct tlspolicy *rule = known.has_rule ? &known.rule : NULL;

	*v = (struct policy_view){ .type = TLSRPT_NO_POLICY };
	if (!s->policy || !s->policy->now.word)
		return;
	v->failure = rule && rule->failure ? rule->failure : s->policy->failure;
	if (s->policy->now.source == POLICY_BY_DANE && known.dane) {
		v->type = TLSRPT_TLSA;
		v->set = &known.dane->set;
		v->host = v->domain = known.dane->identified ? known.dane->host : NULL;
	} else if (s->policy->failure && s->policy->failure != TLSRPT_VALIDATION_FAILURE) {
		v->type = TLSRPT_TLSA;
		v->host = server_name(s);
	} else if (rule && rule->type == TLSPOLICY_STS) {
		v->type = TLSRPT_STS;
		v->rule = rule;
		v->testing = rule->testing;
		v->domain = rule->domain[0] ? rule->domain : NULL;
		v->host = known.server[0] ? known.server : NULL;
	}
}

const char *policy_fault(const struct session *s)
{
	unsigned char fingerprint[TLS_FINGERPRINT];

	if (!has_terms(s) || s->policy->agreed.source != POLICY_BY_RULE || known.rule.level != TLSPOLICY_FINGERPRINT || known.rule.testing)
		return NULL;
	return tls_fingerprint(s->server.leg.tls, fingerprint) && tlspolicy_has_fingerprint(&known.rule, fingerprint) ? NULL :
	    "the certificate's fingerprint is not one that the policy names";
}

const char *policy_word(const struct session *s, bool violated, bool plain)
{
	static char word[32];

	if (!has_terms(s))
		return NULL;
	snprintf(word, sizeof word, "%s%s%s", violated ? "!" : "", s->policy->agreed.word, plain ? ":none" : "");
	return word;
}
