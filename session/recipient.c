/* --connect-on recipient: the client is greeted and its MAIL taken in our name; the server is chosen and connected to when
 * a recipient is known, and may be another for the next message. See session.h.
 */
#define _GNU_SOURCE
#include "session/session.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- routes ---- */

/* Whether this route is that of the connection which the client's AUTH was said on, of whichever --upstream it is. */
static bool is_home(const struct session *s, const struct route *r)
{
	const struct route *home = &s->text->home;
	struct route first = *r;

	if (!r->upstream.host[0])
		first.upstream = home->upstream;
	first.others[0] = 0;
	return s->dialogue.authenticated && same_route(&first, home);
}

/* ---- lines of --routes ---- */

/* What the file has for the held recipient. false: it was refused. */
static bool find_route(struct session *s)
{
	const struct smtp_command *cmd = &s->held->cmd;
	const char *delimiters = s->o->recipient_delimiter ? s->o->recipient_delimiter : "";
	char why[500] = "--routes ";
	const size_t n = strlen(why);

	if (!s->o->routes || s->text->wanted.upstream.host[0])
		return true;
	switch (routes_find(s->o->routes, cmd->address, cmd->address_len, delimiters, take_line, &s->text->wanted,
	    why + n, sizeof why - n)) {
	case ROUTES_FOUND:
		return true;
	case ROUTES_NONE:
		if (s->o->upstreams || s->origin != NET_DIRECT)
			return true;
		relay_refuse_held(s, "550 5.1.2 No route to this recipient");
		return false;
	case ROUTES_FAILED:
		break;
	}
	record_error(&s->view, why);
	relay_refuse_held(s, "451 4.3.5 Routes cannot be read, try again later");
	return false;
}

/* ---- a recipient ---- */

/* What a server must know to be told this parameter of MAIL; 0: it is not to be. AUTH= is a word on the client that only the
 * server which it has authenticated with can judge, RFC 4954 5. */
static unsigned extension_of(const struct session *s, const struct smtp_param *p)
{
	if (smtp_is(p->keyword, p->keyword_len, "SIZE"))
		return SMTP_EXT_SIZE;
	if (smtp_is(p->keyword, p->keyword_len, "BODY"))
		return SMTP_EXT_8BITMIME;
	if (smtp_is(p->keyword, p->keyword_len, "AUTH"))
		return s->auth_said ? SMTP_EXT_AUTH : 0;
	return SMTP_EXT_SMTPUTF8;
}

/* MAIL as the server can take it. Size and body are the client's words; what it cannot be told of is judged later. */
void late_send_mail(struct session *s)
{
	const struct dialogue_transaction *tx = &s->dialogue.tx;
	const unsigned extensions = s->dialogue.ehlo.extensions;
	const unsigned char *params = tx->text + tx->sender.params;
	unsigned char line[SMTP_AUTH_LINE_MAX + 64];
	struct smtp_param p;
	size_t at = 0, n = (size_t)sprintf((char *)line, "MAIL FROM:<");

	memcpy(line + n, tx->text + tx->sender.address, tx->sender.address_len);
	n += tx->sender.address_len;
	line[n++] = '>';
	while (smtp_param_next(params, tx->sender.params_len, &at, &p)) {
		if (!(extensions & extension_of(s, &p)))
			continue;
		line[n++] = ' ';
		memcpy(line + n, p.keyword, (size_t)(params + at - p.keyword));
		n += (size_t)(params + at - p.keyword);
	}
	s->mail_at = s->now;
	relay_own_command(s, SMTP_MAIL, (const char *)line, n);
}

void late_unreachable(struct session *s, int code, const char *text)
{
	s->stage = STAGE_NONE;
	s->greet = GREET_NONE;
	dialogue_forget_server(&s->dialogue);
	s->text->unreachable = s->route;
	snprintf(s->text->unreachable_why, sizeof s->text->unreachable_why, "%d %s", code, text);
	relay_refuse_held(s, s->text->unreachable_why);
	s->handled++;
}

void late_server_ready(struct session *s)
{
	if (s->dialogue.tx.smtputf8 && !(s->dialogue.ehlo.extensions & SMTP_EXT_SMTPUTF8)) { /* RFC 6531 3.5 */
		s->stage = STAGE_NONE;
		relay_refuse_held(s, "553 5.6.7 The recipient's server does not know SMTPUTF8");
		s->handled++;
		return;
	}
	s->mail_at = s->now;
	if (!identity_forward(s))
		late_send_mail(s);
}

/* The reply to the MAIL that went before the held RCPT. Refused, it is RCPT's reply. */
void late_mail_answered(struct session *s, const struct dialogue_reply *r)
{
	char why[300];

	s->times.mail = s->now - s->mail_at;
	if (r->line.code == 421) {
		snprintf(why, sizeof why, "%.*s", (int)(r->line.text_len < 256 ? r->line.text_len : 256),
		    (const char *)r->line.text);
		upstream_failed(s, "4.4.1", why);
		return;
	}
	s->stage = STAGE_NONE;
	s->active_at = s->now;
	if (r->line.code / 100 == 2) {
		s->bound = true;
		relay_send_held(s);
		return;
	}
	relay_pass(s, r);
	dialogue_refused(&s->dialogue, &s->held->cmd, r->line.code, r->line.text, r->line.text_len);
}

void late_end(struct session *s, const char *by, const char *reply)
{
	if (s->asking)
		session_reply(s, reply);
	else
		relay_refuse_held(s, reply);
	session_end(s, by, "the connection that was authenticated is closed");
	s->linger = true;
}

/* The connection that carried AUTH is for its own server only, and no other one to that server is as good. */
static void route_rcpt(struct session *s, const struct smtp_command *cmd)
{
	const struct route *wanted = &s->text->wanted;
	bool home, here;

	relay_hold(s, cmd);
	if (!find_route(s))
		return;
	home = is_home(s, wanted);
	here = s->state == SERVER_OPEN && (home ? s->auth_said : same_route(wanted, &s->route));
	if (s->bound && here) {
		relay_send_held(s);
	} else if (s->bound && (s->dialogue.tx.accepted || s->dialogue.tx.unanswered)) {
		relay_refuse_held(s, "452 4.5.3 This recipient's mail goes another way: send it in a transaction of its own");
	} else if (home && !here) {
		late_end(s, "smtpwarp", "421 4.7.0 The connection that was authenticated is closed: come again");
	} else if (s->text->unreachable_why[0] && same_route(wanted, &s->text->unreachable)) {
		relay_refuse_held(s, s->text->unreachable_why);
	} else {
		s->stage = STAGE_OPEN;
		s->bound = false;
		s->reused = here;
		if (here) {
			late_server_ready(s);
			return;
		}
		s->route = *wanted;
		upstream_open(s);
	}
}

/* What is answered here as long as no server is known, or has a say. false: it goes on. */
bool late_command(struct session *s, const struct smtp_command *cmd)
{
	switch (cmd->verb) {
	case SMTP_MAIL:
		dialogue_opened(&s->dialogue, cmd);
		session_reply(s, "250 2.1.0 Ok");
		return true;
	case SMTP_RCPT:
		route_rcpt(s, cmd);
		return true;
	case SMTP_AUTH: /* see `for_auth` */
		s->auth_said = true;
		s->text->home = s->route;
		s->text->home.upstream = *s->upstream;
		return false;
	case SMTP_RSET:
		late_reset_server(s);
		relay_end_transaction(s, NULL);
		session_reply(s, "250 2.0.0 Ok");
		return true;
	case SMTP_QUIT:
		session_reply(s, "221 2.0.0 Bye");
		session_end(s, "client", "QUIT");
		return true;
	default:
		return false;
	}
}

/* Whose routes verdicts change: MAIL's for all its recipients, RCPT's for one. */
void late_prepare_route(struct session *s, enum smtp_verb verb)
{
	if (!s->late)
		return;
	if (verb == SMTP_MAIL) {
		s->text->of_mail = s->text->of_session;
		if (s->state == SERVER_NONE) /* the last one is no longer there to be told of */
			s->view.server.sa.sa_family = AF_UNSPEC;
	}
	if (verb == SMTP_RCPT)
		s->text->wanted = s->text->of_mail;
}
