/* The banner, EHLO, HELO and LHLO. See hello.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "session/hello.h"
#include "session/checks.h"
#include "session/clienttls.h"
#include "session/gate.h"
#include "session/identity.h"
#include "session/inspect.h"
#include "session/observe.h"
#include "session/policy.h"
#include "session/record.h"
#include "session/server.h"
#include "session/serverstate.h"
#include "session/talk.h"
#include "session/tlsreport.h"
#include "session/transaction.h"
#include "session/upstreamauth.h"

#include <stdio.h>
#include <string.h>

static const char no_starttls[] = "STARTTLS is not offered";

void hello_prepare(struct session *s)
{
	static struct hello_texts text;

	s->hello.text = &text;
	s->hello.banner = -1;
}

/* Send the client's name to the server. In LMTP only LHLO does that, RFC 2033 4.1. */
static void say_name(struct session *s, enum smtp_verb verb, enum server_state state)
{
	unsigned char line[sizeof s->hello.name + 8];
	size_t n;

	if (s->dialogue.lmtp)
		verb = SMTP_LHLO;
	n = (size_t)snprintf((char *)line, 6, "%s ", smtp_verb_name(verb));
	memcpy(line + n, s->hello.name, s->hello.name_len);
	serverstate_enter(s, state);
	talk_own_command(s, verb, (const char *)line, n + s->hello.name_len);
}

/* Whether the server is greeted behind the client's back: a command of the client's waits for it. */
static bool is_behind(const struct session *s)
{
	return s->gate.stage == GATE_SERVER || s->gate.stage == GATE_SECURE;
}

/* Whether the last thing that the server is told is EHLO or LHLO, so that it answers with its list of extensions. */
static bool ends_with_list(const struct session *s)
{
	return s->hello.verb != SMTP_HELO || s->o->limits.on_recipient || s->dialogue.lmtp || is_behind(s);
}

/* Whether the list of extensions is wanted: for the client, or to know what the server has for us. */
static bool wants_list(const struct session *s)
{
	return ends_with_list(s) || (!s->server.no_ehlo && (s->o->xclient || s->o->xforward || upstreamauth_is_due(s)));
}

/* Begin to greet the server. Only a refusal of the EHLO that follows counts, so an earlier one is forgotten. */
static void begin_hello(struct session *s)
{
	char *refusal = s->hello.text->ehlo_refusal;

	if (*refusal) /* written only then: other sessions do not touch its page */
		*refusal = 0;
	identity_forget_forward(s);
	if (wants_list(s) || (!s->server.no_ehlo && server_wants_tls(s)))
		say_name(s, SMTP_EHLO, SERVER_EHLO);
	else
		say_name(s, SMTP_HELO, SERVER_HELO);
}

static void note_name(struct session *s, const struct smtp_command *cmd)
{
	s->hello.verb = cmd->verb;
	s->hello.name_len = cmd->arg_len < sizeof s->hello.name ? cmd->arg_len : sizeof s->hello.name;
	memcpy(s->hello.name, cmd->arg, s->hello.name_len);
}

void hello_try_name(struct session *s, const struct smtp_command *cmd)
{
	memcpy(s->hello.text->name, s->hello.name, s->hello.name_len);
	s->hello.text->name_len = s->hello.name_len;
	s->hello.text->verb = s->hello.verb;
	note_name(s, cmd);
}

void hello_restore_name(struct session *s)
{
	if (!s->dialogue.greeted) /* there is none before it: records have the refused one */
		return;
	memcpy(s->hello.name, s->hello.text->name, s->hello.text->name_len);
	s->hello.name_len = s->hello.text->name_len;
	s->hello.verb = s->hello.text->verb;
}

void hello_forget(struct session *s)
{
	s->hello.name_len = 0;
}

/* The client's EHLO, HELO or LHLO was answered 250: it ends a transaction, RFC 5321 4.1.4. */
static void greeted(struct session *s)
{
	dialogue_greeted(&s->dialogue, s->hello.verb == SMTP_LHLO);
	transaction_end(s, TRANSACTION_BY_REPLIES);
}

static bool is_on_this_host(const union net_address *a)
{
	return a->sa.sa_family == AF_UNSPEC || a->sa.sa_family == AF_UNIX || net_is_local(a);
}

/* A password must not cross the network in the clear between the client and us, RFC 4954 9. */
static bool client_may_authenticate(const struct session *s)
{
	if (s->dialogue.encrypted)
		return true;
	return !s->dialogue.limits.require_tls && (s->o->plain_auth || is_on_this_host(&s->client.address));
}

/* --tls-on recipient: whether the server has no TLS, though --tls wants some. What a recipient's policy has left out is left out for it alone. */
static bool lacks_tls(const struct session *s)
{
	enum tls_level level = s->o->tls_on_recipient ? s->routes->of_session.tls : TLS_NONE;

	return !s->server.leg.tls && level != TLS_NONE && (level >= TLS_ENCRYPT || !s->server.no_tls);
}

/* Nor behind us, if the client sends it inside TLS. A client without TLS would say it to this server in the clear without us, too. */
static bool may_authenticate(const struct session *s)
{
	bool exposed = s->dialogue.encrypted && !s->server.leg.tls && !is_on_this_host(&s->server.address);

	return client_may_authenticate(s) && (!exposed || s->o->plain_auth) && !lacks_tls(s);
}

/* Whether TLS with the server begins later: with the client's next AUTH or MAIL, or with its recipient. */
static bool tls_comes_later(const struct session *s)
{
	return inspect_waits(s) && policy_level(s) != TLS_NONE && !s->server.no_tls && !s->server.leg.tls;
}

static void end_hello(struct session *s)
{
	if (serverstate_in_hello(s))
		serverstate_enter(s, SERVER_READY);
}

/* Answer the client with this list of extensions, less what is not for it. */
static void send_list(struct session *s, const struct smtp_ehlo *e)
{
	const struct dialogue *d = &s->dialogue;
	const struct smtp_offer offer = {
		.size_limit = s->o->limits.message_size,
		.requiretls = d->encrypted && s->server.facts.verified && s->server.leg.tls, /* RFC 8689 2 */
		.requires_later = d->encrypted && policy_promises(s),
		.auth = (e->extensions & SMTP_EXT_AUTH) && may_authenticate(s),
		.starttls = clienttls_offers(s),
		.single = d->lmtp && s->hello.verb == SMTP_EHLO && !s->o->limits.on_recipient,
	};
	size_t n = smtp_ehlo_bound(e);
	unsigned char *list;

	dialogue_offers(&s->dialogue, &offer, s->o->auth && !client_may_authenticate(s));
	list = leg_room(&s->client.leg, n);
	n = smtp_ehlo_write(e, &d->offer, list, n);
	talk_comm(s, COMM_ANSWERED, list, n - 2);
	leg_wrote(&s->client.leg, n);
	end_hello(s);
	greeted(s);
}

/* A client that says HELO hears of no extensions, and uses none, where the server was told EHLO or LHLO alone. */
static void answer_helo(struct session *s)
{
	const struct smtp_ehlo *e = &s->dialogue.ehlo;

	if (s->dialogue.tx.mail != DIALOGUE_NO_MAIL) /* which the client's HELO ends, RFC 5321 4.1.4 */
		transaction_reset_server(s);
	talk_replyf(s, "250 %.*s", (int)e->domain_len, (const char *)e->domain);
	dialogue_no_extensions(&s->dialogue);
	end_hello(s);
	greeted(s);
}

static void put_line(struct session *s, struct smtp_ehlo *list, bool first, const char *text)
{
	if (list)
		smtp_ehlo_line(list, first, (const unsigned char *)text, strlen(text));
	else
		dialogue_ehlo_line(&s->dialogue, first, (const unsigned char *)text, strlen(text));
}

/* --connect-on recipient: list the extensions that do not depend on a server, in *list, or if that is NULL in the dialogue. */
static void list_own(struct session *s, struct smtp_ehlo *list)
{
	static const char lines[][20] = { "ENHANCEDSTATUSCODES", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING" };

	put_line(s, list, true, talk_own_name(s));
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		put_line(s, list, false, lines[i]);
}

/* --connect-on recipient with --auth: answer the client with our own list, and AUTH as the server lists it. The server's list stays in the
 * dialogue, for commands that go to the server. */
static void answer_with_auth(struct session *s)
{
	static struct smtp_ehlo list; /* static: only sessions that need it touch its page */
	char line[300];
	size_t n = 0;
	const unsigned char *mechanisms = smtp_ehlo_args(&s->dialogue.ehlo, SMTP_EXT_AUTH, &n);

	list_own(s, &list);
	if (mechanisms) {
		n = (size_t)snprintf(line, sizeof line, "AUTH %.*s", (int)n, (const char *)mechanisms);
		smtp_ehlo_line(&list, false, (const unsigned char *)line, n);
	}
	gate_enter(s, GATE_OPEN);
	send_list(s, &list);
	server_auth_listed(s);
}

/* Behind the client's back: STARTTLS, which it was shown, may be none that the server has now; and AUTH was that of a connection with TLS,
 * perhaps, which this one has not. With --connect-on recipient AUTH goes to no other connection than the one that it was shown of. */
static void review_offer(struct session *s)
{
	struct smtp_offer offer = s->dialogue.offer;

	offer.starttls = offer.starttls && clienttls_offers(s);
	offer.auth = offer.auth && (s->o->limits.on_recipient || may_authenticate(s));
	dialogue_offers(&s->dialogue, &offer, s->dialogue.auth_later);
}

/* The server's list is in. With --connect-on recipient the client is not shown it. */
static void answer_with_list(struct session *s)
{
	if (s->auth.authenticated) /* AUTH can succeed once, RFC 4954 4: the client cannot use it any more */
		dialogue_withdraw(&s->dialogue, SMTP_EXT_AUTH);
	if (s->gate.stage == GATE_LIST) {
		answer_with_auth(s);
	} else if (is_behind(s)) {
		review_offer(s);
		end_hello(s);
		s->hello.ready = true;
	} else {
		send_list(s, &s->dialogue.ehlo);
	}
}

/* --connect-on recipient with --auth: only the server knows which mechanisms there are. */
static void ask_for_list(struct session *s)
{
	bool reuses = serverstate_is_open(s);

	gate_enter(s, GATE_LIST);
	transaction_bind(s, reuses ? TRANSACTION_REUSES : TRANSACTION_DIALS);
	if (reuses) {
		begin_hello(s);
		return;
	}
	policy_of_list(s, &s->routes->of_session);
	policy_agree(s);
	server_take_route(s, &s->routes->of_session);
	server_open(s);
}

/* --connect-on recipient: answer HELO in our own name, without extensions. */
static void answer_own_helo(struct session *s)
{
	struct smtp_offer offer = s->dialogue.offer;

	offer.auth = false;
	dialogue_offers(&s->dialogue, &offer, false);
	transaction_reset_server(s);
	talk_replyf(s, "250 %s", talk_own_name(s));
	greeted(s);
}

/* --connect-on recipient. A client that says EHLO or HELO again leaves the server that there is, unless it is the one for AUTH, where the
 * client may be authenticated. */
static void answer_in_own_name(struct session *s)
{
	bool asks = s->hello.verb != SMTP_HELO && s->o->auth && client_may_authenticate(s);
	bool stays = asks ? s->server.auth != SERVER_AUTH_NOBODY : s->server.auth == SERVER_AUTH_SAID;

	if (!stays)
		server_leave(s);
	if (asks) {
		ask_for_list(s);
	} else if (s->hello.verb != SMTP_HELO) {
		list_own(s, NULL);
		send_list(s, &s->dialogue.ehlo);
	} else {
		answer_own_helo(s);
	}
}

void hello_said(struct session *s, const struct smtp_command *cmd)
{
	note_name(s, cmd);
	if (s->o->limits.on_recipient)
		answer_in_own_name(s);
	else
		begin_hello(s);
}

void hello_banner(struct session *s)
{
	dialogue_forget_server(&s->dialogue);
	talk_replyf(s, "220 %s ESMTP", talk_own_name(s));
}

void hello_take_ready(struct session *s)
{
	s->hello.ready = false;
}

/* ---- what the server says ---- */

/* The client gets the server's own reply to its EHLO, HELO or LHLO. While a server is greeted for the held RCPT, or for its list, such a
 * reply makes it useless. */
static void answer_with_reply(struct session *s, const struct dialogue_reply *r)
{
	bool tls = s->server.state == SERVER_STARTTLS;
	const char *what = tls ? "STARTTLS was refused:" : "EHLO was refused:";

	if (s->gate.stage == GATE_SERVER || s->gate.stage == GATE_LIST) {
		server_failed(s, "4.4.1", talk_refusal(what, &r->line));
		return;
	}
	if (s->gate.stage == GATE_SECURE) {
		server_unusable(s, "4.4.1", talk_refusal(what, &r->line), tls ? "STARTTLS was refused" : "EHLO was refused");
		return;
	}
	talk_comm(s, COMM_ANSWERED, r->line.raw, r->line.raw_len);
	talk_pass(s, r);
	if (r->line.code / 100 == 2)
		greeted(s);
	serverstate_enter(s, s->dialogue.greeted ? SERVER_READY : SERVER_IDLE);
}

/* Greet the server again, as the client did. */
static void say_again(struct session *s, enum server_state state)
{
	bool list = ends_with_list(s);

	say_name(s, list ? SMTP_EHLO : SMTP_HELO, list ? state : SERVER_HELO);
}

/* XCLIENT and AUTH of ours are done, or not due: answer the client, or say HELO to the server if that is what the client said. */
static void answer_hello(struct session *s)
{
	if (s->dialogue.lmtp && s->hello.verb == SMTP_HELO && !s->o->limits.on_recipient && !is_behind(s))
		answer_helo(s);
	else if (ends_with_list(s))
		answer_with_list(s);
	else
		say_again(s, SERVER_HELO);
}

/* --upstream-auth: begin (r NULL), or go on with the server's reply. false: it is done, or not due. true: a reply is awaited, or the server
 * cannot be used and the client was told. */
static bool authenticate(struct session *s, const struct dialogue_reply *r)
{
	struct upstreamauth_refusal refusal;
	char error[sizeof s->server.text->failure + sizeof refusal.more + 2];

	switch (r ? upstreamauth_answered(s, r, &refusal) : upstreamauth_begin(s, &refusal)) {
	case UPSTREAMAUTH_NOT_DUE:
	case UPSTREAMAUTH_LET_IN:
		return false;
	case UPSTREAMAUTH_GOES_ON:
		if (s->server.state != SERVER_AUTH)
			serverstate_enter(s, SERVER_AUTH);
		return true;
	case UPSTREAMAUTH_NO_TLS:
		server_lacks_tls(s);
		break;
	case UPSTREAMAUTH_REFUSED:
		break;
	}
	server_unusable(s, refusal.enhanced, refusal.reason, refusal.reason);
	snprintf(error, sizeof error, "%s%s%s", s->server.text->failure, *refusal.more ? ": " : "", refusal.more);
	record_error(s, error);
	return true;
}

/* The server's list is in, and TLS stays as it is: XCLIENT comes first, then AUTH, then the answer to the client. */
static void introduce(struct session *s)
{
	if (identity_introduce(s))
		serverstate_enter(s, SERVER_XCLIENT);
	else if (!authenticate(s, NULL))
		answer_hello(s);
}

/* The same where TLS may be wanted, and is not offered: mail goes without. */
static void introduce_plain(struct session *s)
{
	if (server_wants_tls(s))
		tlsreport_tls(s, true, no_starttls);
	introduce(s);
}

/* A server that refuses XCLIENT would judge the client by our address: it cannot be used. */
static void after_xclient(struct session *s, const struct dialogue_reply *r)
{
	const char *reason;

	if (r->line.code == 220) {
		s->hello.own_ehlo = false;
		upstreamauth_forget(s); /* XCLIENT makes the server forget AUTH */
		if (!identity_more(s))
			say_again(s, SERVER_EHLO_AGAIN);
		return;
	}
	reason = talk_refusal("XCLIENT was refused:", &r->line);
	server_unusable(s, "4.3.5", reason, "XCLIENT was refused");
	record_error(s, s->server.text->failure);
}

/* A server that refuses EHLO may know only HELO. Its refusal is noted, for a server that closes the connection at HELO. */
static void try_helo(struct session *s, const struct dialogue_reply *r)
{
	char *refusal = s->hello.text->ehlo_refusal;
	size_t cap = sizeof s->hello.text->ehlo_refusal;

	dialogue_withdraw(&s->dialogue, ~0u);
	if (authenticate(s, NULL))
		return;
	snprintf(refusal, cap, "%.*s", r->line.raw_len < cap ? (int)r->line.raw_len : 0, (const char *)r->line.raw);
	say_name(s, SMTP_HELO, SERVER_HELO);
}

static void after_ehlo(struct session *s, const struct dialogue_reply *r)
{
	bool offered = s->dialogue.ehlo.extensions & SMTP_EXT_STARTTLS;
	bool refused = r->line.code >= 500;

	if (r->line.code == 250 && !ends_with_list(s))
		s->hello.own_ehlo = true;
	if (r->line.code == 250 && server_wants_tls(s) && offered)
		server_starttls(s);
	else if (server_wants_tls(s) && server_needs_tls(s) && (r->line.code == 250 || refused))
		server_tls_failed(s, no_starttls);
	else if (r->line.code == 250)
		introduce_plain(s);
	else if (refused && !s->dialogue.lmtp)
		try_helo(s, r);
	else
		answer_with_reply(s, r);
}

/* RFC 3207 6, CVE-2021-38371. A STARTTLS that has not left when its 220 is here would go inside TLS, and each reply there would be taken for
 * that of the next command. */
static bool is_injected(const struct session *s)
{
	return leg_count(&s->server.leg) || leg_pending(&s->server.leg);
}

static void after_starttls(struct session *s, const struct dialogue_reply *r)
{
	if (r->line.code == 220 && is_injected(s)) {
		record_error(s, SERVER_INJECTED);
		server_close(s);
		server_refuse(s, SERVER_UNTRUSTED);
	} else if (r->line.code == 220) {
		server_start_handshake(s);
	} else if (server_needs_tls(s)) {
		server_tls_failed(s, talk_refusal("STARTTLS was refused:", &r->line));
	} else if (server_goes_plain(s, talk_refusal("STARTTLS was refused:", &r->line))) {
		introduce(s);
	}
}

bool hello_owes_tls(const struct session *s)
{
	return s->server.state == SERVER_READY && tls_comes_later(s);
}

static void go_plain(struct session *s)
{
	tlsreport_tls(s, true, no_starttls);
	s->hello.ready = true;
}

/* TLS that begins after AUTH makes the server forget the client, RFC 3207 4.2. */
void hello_secure(struct session *s)
{
	if (!server_wants_tls(s) || s->dialogue.authenticated)
		s->hello.ready = true;
	else if (s->hello.verb == SMTP_HELO) /* the server has not shown its list yet */
		begin_hello(s);
	else if (s->dialogue.ehlo.extensions & SMTP_EXT_STARTTLS)
		server_starttls(s);
	else if (server_needs_tls(s))
		server_tls_failed(s, no_starttls);
	else
		go_plain(s);
}

void hello_secured(struct session *s)
{
	s->hello.own_ehlo = false;
	if (wants_list(s))
		say_name(s, SMTP_EHLO, SERVER_EHLO_TLS);
	else
		say_name(s, SMTP_HELO, SERVER_HELO);
}

static void after_helo(struct session *s, const struct dialogue_reply *r)
{
	if (r->line.code == 503 && s->hello.own_ehlo && s->hello.verb == SMTP_HELO && !is_behind(s)) {
		answer_helo(s);
		return;
	}
	dialogue_no_extensions(&s->dialogue);
	if (r->line.code == 250 && server_wants_tls(s))
		tlsreport_tls(s, true, no_starttls);
	if (r->line.code != 250 || (s->hello.verb == SMTP_HELO && !s->o->limits.on_recipient && !is_behind(s))) {
		answer_with_reply(s, r);
		return;
	}
	dialogue_ehlo_line(&s->dialogue, true, r->line.text, r->line.text_len);
	answer_with_list(s);
}

/* Whether the banner is not for the client, and the server is greeted at once: with --connect-on recipient, and on a second connection. */
static bool is_ours(const struct session *s)
{
	return s->server.redialing || s->o->limits.on_recipient || is_behind(s);
}

/* The banner's last line is in. */
static void after_banner(struct session *s, const struct dialogue_reply *r)
{
	bool redialing = s->server.redialing, accepted = r->line.code == 220, ours = is_ours(s);

	if (ours && !accepted) {
		record_refusal(s);
		server_failed(s, "4.4.1", talk_refusal("greeting", &r->line));
		return;
	}
	s->hello.own_ehlo = false;
	if (accepted)
		observe_banner(s);
	server_note_banner(s, !accepted);
	if (!redialing) {
		s->hello.banner = s->now - s->server.connected_at;
		record_connect(s, &r->line);
	}
	if (ours)
		begin_hello(s);
	else
		serverstate_enter(s, SERVER_IDLE);
}

/* If the banner is not 220, the next server may do better. true: this banner is not for the client. */
static bool try_another(struct session *s, const struct dialogue_reply *r)
{
	if (s->server.redialing || r->line.code == 220 || !server_has_more(s))
		return false;
	if (r->line.last) {
		record_refusal(s);
		server_failed(s, "4.4.1", talk_refusal("greeting", &r->line));
	}
	return true;
}

/* With --greet-delay the client has a first line of ours, 220. If the server's code is another, the session ends, because some clients go
 * by the first line. */
static void pass_banner(struct session *s, const struct dialogue_reply *r)
{
	talk_pass(s, r);
	if (s->checks.teased && s->server.refused)
		talk_end(s, END_LINGER, END_BY_SERVER, "it refused in its greeting");
}

static void take_banner(struct session *s, const struct dialogue_reply *r)
{
	bool ours = is_ours(s);

	if (try_another(s, r) || !r->line.last)
		return;
	after_banner(s, r);
	if (ours)
		return;
	if (checks_too_early(s))
		server_leave(s);
	else
		pass_banner(s, r);
}

void hello_reply(struct session *s, const struct dialogue_reply *r)
{
	if (r->verb == SMTP_GREETING) {
		take_banner(s, r);
		return;
	}
	if (!r->line.last)
		return;
	if (r->line.code == 421) {
		answer_with_reply(s, r);
		return;
	}
	switch (s->server.state) {
	case SERVER_EHLO:
	case SERVER_EHLO_TLS:
	case SERVER_EHLO_AGAIN:
		after_ehlo(s, r);
		return;
	case SERVER_XCLIENT:
		after_xclient(s, r);
		return;
	case SERVER_AUTH:
		if (!authenticate(s, r))
			answer_hello(s);
		return;
	case SERVER_STARTTLS:
		after_starttls(s, r);
		return;
	case SERVER_HELO:
		after_helo(s, r);
		return;
	case SERVER_NONE:
	case SERVER_RESOLVING:
	case SERVER_CONNECTING:
	case SERVER_SHAKE_FIRST:
	case SERVER_SHAKE:
	case SERVER_BANNER:
	case SERVER_IDLE:
	case SERVER_READY:
	case SERVER_TUNNEL:
	case SERVER_GONE:
		return;
	}
}
