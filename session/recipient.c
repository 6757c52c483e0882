/* --connect-on recipient, --tls-on recipient. See recipient.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "session/recipient.h"
#include "session/gate.h"
#include "session/held.h"
#include "session/hello.h"
#include "session/identity.h"
#include "session/policy.h"
#include "session/record.h"
#include "session/refusal.h"
#include "session/routing.h"
#include "session/server.h"
#include "session/serverstate.h"
#include "session/talk.h"
#include "session/tlsreport.h"
#include "session/transaction.h"

#include <stdio.h>
#include <string.h>

void recipient_prepare(struct session *s)
{
	static struct recipient recipient;

	s->recipient = &recipient;
}

/* Whether the client is authenticated, and this is the route of the connection that carried its AUTH. A route that names no server counts
 * as one to the --upstream of that connection. With --tls-on recipient there is no other server. */
static bool is_home(const struct session *s, const struct route *r)
{
	const struct route *home = &s->recipient->home;
	struct route first = *r;

	if (s->o->tls_on_recipient)
		return s->dialogue.authenticated;
	if (!r->upstream.host[0])
		first.upstream = home->upstream;
	first.others[0] = 0;
	return s->dialogue.authenticated && route_is_same(&first, home);
}

/* Look the held recipient up in --routes. false: it was refused. */
static bool find_route(struct session *s)
{
	char why[500] = "--routes ";
	const size_t n = strlen(why);

	switch (routing_find(s, why + n, sizeof why - n)) {
	case ROUTES_FOUND:
		return true;
	case ROUTES_NONE:
		if (s->o->upstreams || s->server.origin != NET_DIRECT)
			return true;
		held_refuse(s, "550 5.1.2 No route to this recipient");
		return false;
	case ROUTES_FAILED:
		break;
	}
	record_error(s, why);
	held_refuse(s, "451 4.3.5 Routes cannot be read, try again later");
	return false;
}

/* The extension that a server must know to be sent this parameter of MAIL; 0: no server is. AUTH= is only for the server that the client
 * has authenticated with, which alone can judge whether to trust it, RFC 4954 5. */
static unsigned extension_of(const struct session *s, const struct smtp_param *p)
{
	if (smtp_is(p->keyword, p->keyword_len, "SIZE"))
		return SMTP_EXT_SIZE;
	if (smtp_is(p->keyword, p->keyword_len, "BODY"))
		return SMTP_EXT_8BITMIME;
	if (smtp_is(p->keyword, p->keyword_len, "REQUIRETLS"))
		return SMTP_EXT_REQUIRETLS;
	if (smtp_is(p->keyword, p->keyword_len, "AUTH"))
		return s->server.auth == SERVER_AUTH_SAID ? SMTP_EXT_AUTH : 0;
	return SMTP_EXT_SMTPUTF8;
}

/* With --tls-on recipient the client was shown the server's own list, and what else it says goes on as it is. */
static bool takes_param(const struct session *s, const struct smtp_param *p)
{
	unsigned extension = extension_of(s, p);

	if (!s->o->limits.on_recipient && extension == SMTP_EXT_SMTPUTF8 && !smtp_is(p->keyword, p->keyword_len, "SMTPUTF8"))
		return true;
	return s->dialogue.ehlo.extensions & extension;
}

/* The server gets the client's parameters as far as it knows them. Those it does not get are dealt with elsewhere: SMTPUTF8 in
 * recipient_server_ready(), 8BITMIME when the message comes. */
void recipient_send_mail(struct session *s)
{
	const struct dialogue_transaction *tx = &s->dialogue.tx;
	const unsigned char *params = tx->text + tx->sender.params;
	unsigned char line[SMTP_AUTH_LINE_MAX + 64];
	struct smtp_param p;
	size_t at = 0, n = (size_t)sprintf((char *)line, "MAIL FROM:<");

	memcpy(line + n, tx->text + tx->sender.address, tx->sender.address_len);
	n += tx->sender.address_len;
	line[n++] = '>';
	while (smtp_param_next(params, tx->sender.params_len, &at, &p)) {
		if (!takes_param(s, &p))
			continue;
		n += held_write_param(s, &p, (size_t)(params + at - p.keyword), line + n);
	}
	transaction_sent(s, SMTP_MAIL);
	talk_own_command(s, SMTP_MAIL, (const char *)line, n);
}

void recipient_unreachable(struct session *s, const char *text)
{
	struct recipient *r = s->recipient;

	gate_enter(s, GATE_OPEN);
	dialogue_forget_server(&s->dialogue);
	r->unreachable = s->server.route;
	r->terms = r->asked;
	r->unreachable_in = s->dialogue.transactions;
	snprintf(r->unreachable_why, sizeof r->unreachable_why, "451 %s", text);
	held_refuse(s, r->unreachable_why);
}

/* Whether the held recipient's server can be given a message that must not leave TLS, RFC 8689 4.2.1. A 5xx reply would keep the client from
 * trying the domain's other servers. false: the recipient is refused. */
static bool keeps_requiretls(struct session *s)
{
	static const char reply[] = "451 4.7.30 REQUIRETLS cannot be kept on the way to this server";

	if (!s->dialogue.tx.requiretls || (policy_is_proven(s) && s->dialogue.ehlo.extensions & SMTP_EXT_REQUIRETLS))
		return true;
	if (s->gate.stage != GATE_OPEN)
		gate_enter(s, GATE_OPEN);
	held_refuse(s, reply);
	return false;
}

void recipient_server_ready(struct session *s)
{
	if (!keeps_requiretls(s))
		return;
	if (s->dialogue.tx.smtputf8 && !(s->dialogue.ehlo.extensions & SMTP_EXT_SMTPUTF8)) { /* RFC 6531 3.5 */
		gate_enter(s, GATE_OPEN);
		held_refuse(s, "553 5.6.7 The recipient's server does not know SMTPUTF8");
		return;
	}
	transaction_sent(s, SMTP_MAIL); /* already now: a 421 to XFORWARD counts as the answer to MAIL */
	if (!identity_forward(s))
		recipient_send_mail(s);
}

/* A refusal of MAIL is passed on as the reply to RCPT, for the client's MAIL was answered long ago. */
void recipient_mail_answered(struct session *s, const struct dialogue_reply *r)
{
	transaction_answered(s, SMTP_MAIL);
	if (r->line.code == 421) {
		server_failed(s, "4.4.1", talk_refusal("reply", &r->line));
		return;
	}
	gate_enter(s, GATE_OPEN);
	if (r->line.code / 100 == 2) {
		transaction_bind(s, TRANSACTION_BOUND);
		held_send(s);
		return;
	}
	talk_pass(s, r);
	held_note_reply(s, &r->line);
	refusal_passed_on(s, SMTP_RCPT);
}

void recipient_end(struct session *s, enum end_by by, const char *reply)
{
	if (s->gate.stage == GATE_LIST)
		talk_reply(s, reply);
	else
		held_refuse(s, reply);
	talk_end(s, END_LINGER, by, "the connection that was authenticated is closed");
}

/* Whether the server of this route could not be reached or used earlier in this transaction. */
static bool is_unreachable(const struct session *s, const struct route *wanted)
{
	const struct recipient *r = s->recipient;

	return r->unreachable_in == s->dialogue.transactions && route_is_same(wanted, &r->unreachable) && policy_is_same(s, &r->terms);
}

/* Ask the server of this route about the held RCPT, over the open connection if `here`, else over a new one. */
static void ask_server(struct session *s, const struct route *wanted, bool here)
{
	gate_enter(s, GATE_SERVER);
	s->recipient->asked = s->policy->now;
	transaction_bind(s, here ? TRANSACTION_REUSES : TRANSACTION_DIALS);
	if (!here || (s->o->tls_on_recipient && !s->dialogue.authenticated))
		server_take_route(s, wanted);
	if (!here)
		policy_agree(s);
	else if (!s->dialogue.authenticated)
		policy_raise(s);
	if (here) {
		tlsreport_uses(s);
		hello_secure(s);
	} else if (s->o->limits.on_recipient) {
		server_open(s);
	} else {
		server_again(s);
	}
}

/* Whether the open connection will do for this route. With --tls-on recipient it is to the right server, but TLS on it, or the lack of
 * TLS, may be what another recipient wanted. */
static bool is_here(const struct session *s, const struct route *wanted)
{
	bool undecided = s->o->tls_on_recipient && !s->server.leg.tls && !s->server.no_tls && s->tx.server != TRANSACTION_BOUND;

	if (!serverstate_is_open(s) || s->policy->refused)
		return false;
	if (undecided)
		return true;
	return policy_is_met(s) && ((s->o->tls_on_recipient && s->policy->now.word) || route_is_same(wanted, &s->server.route));
}

/* Whether the connection that carried the client's AUTH is there. */
static bool has_home(const struct session *s)
{
	return serverstate_is_open(s) && (s->o->tls_on_recipient || s->server.auth == SERVER_AUTH_SAID);
}

/* Whether TLS on that connection, which stays as it is, is what the recipient on this route wants. A certificate was judged by names of the
 * route then, or by a policy. */
static bool is_safe_at_home(const struct session *s, const struct route *wanted)
{
	const struct policy_terms *now = &s->policy->now, *agreed = &s->policy->agreed;
	enum tls_level level = now->word ? now->level : wanted->tls, has = policy_level(s);
	bool same_name = agreed->source == POLICY_BY_LEVEL && strcmp(wanted->tls_name, s->server.route.tls_name) == 0;

	if (now->word && policy_is_met(s))
		return true;
	if (now->source != POLICY_BY_LEVEL)
		return false;
	return level <= TLS_MAY || (level == TLS_ENCRYPT && has > TLS_MAY && s->server.leg.tls) ||
	    (level == has && (same_name || !tls_level_verifies(level)));
}

/* A recipient on the route of the authenticated connection must go over that connection: on another the server would not know the client.
 * The session ends if it is closed. */
static void route_held(struct session *s)
{
	const struct route *wanted = &s->routes->wanted;
	bool bound = s->tx.server == TRANSACTION_BOUND, home, here;

	home = is_home(s, wanted);
	here = home ? has_home(s) : is_here(s, wanted);
	if (home && here && !is_safe_at_home(s, wanted))
		held_refuse(s, "451 4.7.5 The policy for this recipient wants other TLS than the connection that was authenticated has");
	else if (bound && here && keeps_requiretls(s))
		held_send(s);
	else if (bound && here)
		return;
	else if (bound && (s->dialogue.tx.accepted || s->dialogue.tx.unanswered))
		held_refuse(s, "452 4.5.3 This recipient's mail goes another way: send it in a transaction of its own");
	else if (home && !here)
		recipient_end(s, END_BY_SMTPWARP, "421 4.7.0 The connection that was authenticated is closed: come again");
	else if (is_unreachable(s, wanted))
		held_refuse(s, s->recipient->unreachable_why);
	else
		ask_server(s, wanted, here);
}

/* Whether the policy, which refuses the recipient at one server of its route, may let it go to another. */
static bool has_other_server(const struct session *s)
{
	const struct route *wanted = &s->routes->wanted;
	struct upstream room;

	return s->o->limits.on_recipient && !s->policy->everywhere && !is_home(s, wanted) && routing_server(s, wanted, 1, &room);
}

void recipient_policy_known(struct session *s, const char *refusal)
{
	if (refusal && !has_other_server(s)) {
		tlsreport_refused(s, refusal);
		held_refuse(s, refusal);
	} else {
		route_held(s);
	}
}

static void route_rcpt(struct session *s, const struct smtp_command *cmd)
{
	const struct route *wanted = &s->routes->wanted;

	held_put(s, cmd);
	if (!find_route(s))
		return;
	tlsreport_held(s);
	if (policy_is_due(s, wanted)) {
		gate_enter(s, GATE_POLICY);
		policy_ask(s, wanted);
		return;
	}
	policy_of_route(s);
	route_held(s);
}

/* The client's AUTH goes to this server. */
static void note_home(struct session *s)
{
	server_auth_said(s);
	s->recipient->home = s->server.route;
	s->recipient->home.upstream = *s->server.upstream;
}

bool recipient_command(struct session *s, const struct smtp_command *cmd)
{
	switch (cmd->verb) {
	case SMTP_MAIL:
		dialogue_opened(&s->dialogue, cmd);
		talk_reply(s, "250 2.1.0 Ok");
		return true;
	case SMTP_RCPT:
		route_rcpt(s, cmd);
		return true;
	case SMTP_AUTH:
		if (s->o->limits.on_recipient)
			note_home(s);
		return false;
	case SMTP_RSET:
		if (!s->o->limits.on_recipient && (s->tx.server == TRANSACTION_BOUND || s->dialogue.tx.mail == DIALOGUE_NO_MAIL))
			return false; /* the server has the transaction, or there is none: let it answer */
		transaction_reset_server(s);
		transaction_end(s, TRANSACTION_BY_REPLIES);
		talk_reply(s, TALK_OK);
		return true;
	case SMTP_QUIT:
		if (!s->o->limits.on_recipient)
			return false;
		talk_bye(s);
		return true;
	default:
		return false;
	}
}

void recipient_prepare_route(struct session *s, enum smtp_verb verb)
{
	if (!s->o->limits.mail_late)
		return;
	if (verb == SMTP_MAIL) {
		routing_begin_mail(s);
		server_forget_gone(s);
	}
	if (verb == SMTP_RCPT)
		routing_begin_recipient(s);
}
