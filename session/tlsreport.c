/* --tlsrpt. See tlsreport.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "session/tlsreport.h"
#include "io/dns.h"
#include "io/event.h"
#include "io/tlsrpt.h"
#include "pure/tlspolicy.h"
#include "session/mxname.h"
#include "session/policy.h"
#include "session/record.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PATIENCE INT64_C(10000000) /* for the record */
#define TOLD_MAX 16
#define FAILED_MAX 8

/* What failed with one server. */
struct failed {
	enum tlsrpt_code code;
	union net_address source, server; /* AF_UNSPEC: there was no connection */
	char mx[256], helo[256], reason[256]; /* "": not known */
};

/* What sessions with reports alone touch. */
static struct {
	_Alignas(4096) bool concluded; /* TLS has come to something */
	bool failing;		       /* a failure, in the end */
	bool refused;		       /* the recipient was, by the policy */
	bool testing;
	enum tlsrpt_type type; /* 0: no policy was asked for */
	enum tlsrpt_code policy_code;
	char domain[DNS_NAME_MAX + 1]; /* of the recipient; "": there is none yet */
	char policy_domain[DNS_NAME_MAX + 1]; /* "": the same */
	char mx[256]; /* by the policy; "": not known */
	unsigned failures;
	struct failed failed[FAILED_MAX]; /* in turn; the last one is of the server that was tried last */
	struct tlspolicy_span strings, patterns; /* in text */
	struct dns_servers servers;
	struct dns_query query;
	char text[TLSPOLICY_TEXT];
	unsigned told; /* domains whose failures were reported */
	char told_domain[TOLD_MAX][DNS_NAME_MAX + 1];
} r;

/* ---- whose ---- */

static void forget_domain(void)
{
	dns_stop(&r.query);
	r.domain[0] = 0;
}

/* The record is asked for once, however many reports the domain gets. */
static void take_domain(const struct session *s, const struct smtp_command *cmd)
{
	char domain[DNS_NAME_MAX + 1], name[DNS_NAME_MAX + 16];

	if (!mxname_domain(cmd->address, cmd->address_len, domain)) {
		forget_domain();
		return;
	}
	if (strcmp(domain, r.domain) == 0)
		return;
	forget_domain();
	strcpy(r.domain, domain);
	snprintf(name, sizeof name, "_smtp._tls.%s", domain);
	dns_servers_choose(&r.servers, &s->o->dns);
	dns_start(&r.query, &r.servers, name, DNS_TXT, s->now, PATIENCE);
}

/* ---- by which policy ---- */

/* "3 1 1 HEX", as RFC 8460 4.4 has it. Those of a set fit. */
static void copy_records(const struct dane_set *set)
{
	size_t at = 0;

	for (unsigned i = 0; i < set->count; i++) {
		const struct dane_record *d = &set->record[i];

		if (sizeof r.text - at < 10 + 2 * (size_t)d->len)
			break;
		at += (size_t)sprintf(r.text + at, "%u %u %u ", d->usage, d->selector, d->matching);
		for (unsigned j = 0; j < d->len; j++)
			at += (size_t)sprintf(r.text + at, "%02x", set->data[d->at + j]);
		at++;
	}
	r.strings = (struct tlspolicy_span){ 0, (uint16_t)at };
}

static void describe(const struct session *s)
{
	struct policy_view v;

	policy_show(s, &v);
	r.type = v.type;
	r.testing = v.testing;
	r.policy_code = v.failure;
	if (v.host)
		snprintf(r.mx, sizeof r.mx, "%s", v.host);
	snprintf(r.policy_domain, sizeof r.policy_domain, "%s", v.domain ? v.domain : "");
	if (v.rule) {
		memcpy(r.text, v.rule->text, sizeof r.text);
		r.strings = v.rule->list[TLSPOLICY_STRINGS];
		r.patterns = v.rule->list[TLSPOLICY_MX];
	} else if (v.set) {
		copy_records(v.set);
	}
}

/* ---- sending ---- */

/* Whether failures of the domain were reported already, or those of too many domains. A client that asks for recipients of failing domains
 * in turn makes a report of each, and no flood. A connection that works counts once, too, however many messages go over it. */
static bool was_told(void)
{
	for (unsigned i = 0; i < r.told; i++)
		if (strcmp(r.told_domain[i], r.domain) == 0)
			return true;
	if (r.told == TOLD_MAX)
		return true;
	strcpy(r.told_domain[r.told++], r.domain);
	return false;
}

static const char *given(const char *text)
{
	return *text ? text : NULL;
}

static const char *address_text(const union net_address *a, char text[NET_TEXT])
{
	return given(net_text(a, text));
}

static void send_to(const struct session *s, const char *record)
{
	struct tlsrpt_failure failure[1 + FAILED_MAX];
	char source[FAILED_MAX][NET_TEXT], server[FAILED_MAX][NET_TEXT], error[300];
	struct tlsrpt_policy policy = { .type = r.type ? r.type : TLSRPT_NO_POLICY, .domain = r.policy_domain[0] ? r.policy_domain : r.domain,
		.strings = r.text + r.strings.at, .strings_len = r.strings.len, .mx_hosts = r.text + r.patterns.at,
		.mx_hosts_len = r.patterns.len, .failure = failure, .failed = r.policy_code || r.failing };
	const struct tlsrpt_report report = { r.domain, record, &policy, 1 };

	if (r.policy_code)
		failure[policy.failures++] = (struct tlsrpt_failure){ .code = r.policy_code, .mx = given(r.mx) };
	for (unsigned i = 0; i < r.failures; i++) {
		const struct failed *f = &r.failed[i];

		failure[policy.failures++] = (struct tlsrpt_failure){ f->code, address_text(&f->source, source[i]), given(f->mx),
			given(f->helo), address_text(&f->server, server[i]), NULL, given(f->reason) };
	}
	if ((policy.failed && was_told()) || tlsrpt_send(s->o->tlsrpt, &report))
		return;
	snprintf(error, sizeof error, "--tlsrpt %.200s: %s", s->o->tlsrpt, strerror(errno));
	if (event_is_due(error))
		record_error(s, error);
}

/* The report, if it is complete and wanted, is sent and the next one begins. */
static void finish(const struct session *s)
{
	const char *record;

	if (r.concluded && r.domain[0]) {
		dns_turn(&r.query, s->now);
		record = r.query.state == DNS_DONE && !r.query.failure && r.query.result == DNS_FOUND ? tlsrpt_record(&r.query.answer) : NULL;
		if (record)
			send_to(s, record);
	}
	r.concluded = r.failing = r.refused = r.testing = false;
	r.type = 0;
	r.policy_code = TLSRPT_NO_FAILURE;
	r.failures = 0;
	r.policy_domain[0] = r.mx[0] = 0;
	r.strings.len = r.patterns.len = 0;
}

/* ---- the session goes on ---- */

/* Begin the report of the held recipient's domain. */
static void begin(const struct session *s)
{
	finish(s);
	take_domain(s, &s->held->cmd);
	describe(s);
}

void tlsreport_recipient(struct session *s, const struct smtp_command *cmd)
{
	if (s->o->tlsrpt && !s->o->limits.mail_late && r.concluded && !r.domain[0])
		take_domain(s, cmd);
}

/* What has come to an end already is another domain's, or that of a connection that this recipient may not use. */
void tlsreport_held(struct session *s)
{
	if (s->o->tlsrpt && !r.concluded)
		take_domain(s, &s->held->cmd);
}

void tlsreport_uses(struct session *s)
{
	if (!s->o->tlsrpt)
		return;
	if (!r.concluded || r.refused) {
		begin(s);
	} else if (!r.domain[0]) { /* made for no recipient: the first one's policy is met */
		take_domain(s, &s->held->cmd);
		describe(s);
	}
}

void tlsreport_connects(struct session *s)
{
	if (!s->o->tlsrpt)
		return;
	if (s->gate.stage == GATE_SERVER) {
		begin(s);
	} else { /* for no recipient, but for the server's AUTH */
		finish(s);
		forget_domain();
	}
}

/* ---- what came of it ---- */

static void conclude(bool failing)
{
	r.concluded = true;
	r.failing = failing;
}

static struct failed *add_failure(enum tlsrpt_code code, const char *reason)
{
	struct failed *f = &r.failed[r.failures < FAILED_MAX ? r.failures++ : FAILED_MAX - 1];

	*f = (struct failed){ .code = code };
	snprintf(f->mx, sizeof f->mx, "%s", r.mx);
	snprintf(f->reason, sizeof f->reason, "%s", reason ? reason : "");
	return f;
}

/* What it comes to with a server is its last word: a client may say EHLO twice, and hear of STARTTLS with the second only. */
static void forget_failure(const union net_address *server)
{
	const union net_address *last = r.failures ? &r.failed[r.failures - 1].server : NULL;

	if (last && (net_same(last, server) || (last->sa.sa_family == AF_UNIX && server->sa.sa_family == AF_UNIX)))
		r.failures--;
}

/* Who the server is, by the name that the operator has for it, and what it calls itself. */
static void note_server(const struct session *s, struct failed *f)
{
	const struct smtp_ehlo *e = &s->dialogue.ehlo;
	const unsigned char *blank = memchr(e->domain, ' ', e->domain_len);

	if (s->server.upstream && net_is_name(s->server.upstream->host))
		snprintf(f->mx, sizeof f->mx, "%s", s->server.upstream->host);
	f->source = s->server.source;
	f->server = s->server.address;
	if (s->server.state != SERVER_SHAKE_FIRST)
		snprintf(f->helo, sizeof f->helo, "%.*s", (int)(blank ? (size_t)(blank - e->domain) : e->domain_len), (const char *)e->domain);
}

/* A refused recipient may come again and again: that is one report. */
void tlsreport_refused(struct session *s, const char *reply)
{
	const struct smtp_command *cmd = &s->held->cmd;
	char domain[DNS_NAME_MAX + 1];

	if (!s->o->tlsrpt || !s->policy->failure || s->policy->wanted.tls_given)
		return;
	if (r.refused && mxname_domain(cmd->address, cmd->address_len, domain) && strcmp(domain, r.domain) == 0)
		return;
	begin(s);
	r.refused = true;
	r.policy_code = TLSRPT_NO_FAILURE;
	conclude(true);
	add_failure(s->policy->failure, reply);
}

/* What a fault is to the domain, RFC 8460 4.3; NO_FAILURE: nothing, it is ours. tls.c says which is which. */
static enum tlsrpt_code code_of_fault(enum tls_fault fault)
{
	switch (fault) {
	case TLS_MISNAMED:
		return TLSRPT_HOST_MISMATCH;
	case TLS_UNTRUSTED:
		return TLSRPT_NOT_TRUSTED;
	case TLS_EXPIRED:
		return TLSRPT_EXPIRED;
	case TLS_OURS:
		return TLSRPT_NO_FAILURE;
	case TLS_FAULTLESS:
	case TLS_UNMATCHED:
	case TLS_OTHERWISE:
		break;
	}
	return TLSRPT_VALIDATION_FAILURE;
}

/* A handshake that could not begin failed for want of something here. One that is over failed by what was looked at later. */
static enum tlsrpt_code code_of_failure(const struct session *s)
{
	const struct tls *t = s->server.leg.tls;
	bool begun = s->server.state == SERVER_SHAKE || s->server.state == SERVER_SHAKE_FIRST;

	if (!begun)
		return TLSRPT_NO_STARTTLS;
	if (!t)
		return TLSRPT_NO_FAILURE;
	return tls_handshake_done(t) ? TLSRPT_VALIDATION_FAILURE : code_of_fault(tls_fault(t));
}

void tlsreport_tls(struct session *s, bool failed, const char *reason)
{
	bool is_failure = failed || (r.testing && reason);
	enum tlsrpt_code code = TLSRPT_NO_FAILURE;

	if (!s->o->tlsrpt || s->server.route.tls_given)
		return;
	if (is_failure)
		code = failed ? code_of_failure(s) : code_of_fault(tls_fault(s->server.leg.tls));
	if (is_failure && !code)
		return;
	forget_failure(&s->server.address);
	conclude(is_failure);
	if (is_failure)
		note_server(s, add_failure(code, reason));
}

/* ---- the DNS ---- */

void tlsreport_turn(struct session *s)
{
	if (s->o->tlsrpt)
		dns_turn(&r.query, s->now);
}

unsigned tlsreport_watch(const struct session *s, struct pollfd *p)
{
	return s->o->tlsrpt && s->end.how == END_NOT ? dns_watch(&r.query, p) : 0;
}

int64_t tlsreport_deadline(const struct session *s)
{
	return s->o->tlsrpt ? dns_deadline(&r.query) : INT64_MAX;
}

/* An answer of the DNS that is not in yet may come while octets go through. */
void tlsreport_passes(struct session *s)
{
	if (!s->o->tlsrpt || r.query.state == DNS_RUNNING)
		return;
	finish(s);
	forget_domain();
}

void tlsreport_end(struct session *s)
{
	if (!s->o->tlsrpt)
		return;
	finish(s);
	forget_domain();
}
