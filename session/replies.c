/* What becomes of what the server says. See replies.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "session/replies.h"
#include "session/clienttls.h"
#include "session/gate.h"
#include "session/hello.h"
#include "session/identity.h"
#include "session/maildata.h"
#include "session/recipient.h"
#include "session/record.h"
#include "session/refusal.h"
#include "session/server.h"
#include "session/serverstate.h"
#include "session/talk.h"
#include "session/transaction.h"

#include <stdio.h>

/* --connect-on recipient: whether the server is being connected to and greeted for a command that waits. */
static bool is_chosen(const struct session *s)
{
	return s->gate.stage == GATE_SERVER || s->gate.stage == GATE_LIST;
}

/* --connect-on recipient: whether no transaction and no authenticated client needs the server. */
static bool is_unneeded(const struct session *s)
{
	return s->o->limits.on_recipient && s->tx.server != TRANSACTION_BOUND && s->server.auth != SERVER_AUTH_SAID;
}

/* ---- the server is gone ---- */

/* Whether the server cannot have the whole of the message that is under way. */
static bool lacks_message(const struct session *s)
{
	const struct dialogue *d = &s->dialogue;
	bool unsent = d->tx.complete && s->server.leg.lost && d->queued == 1;

	return unsent || transaction_is_whole(s) || (dialogue_in_content(d) && d->queued <= 1);
}

static void end_unknown(struct session *s, const char *reason)
{
	transaction_end(s, TRANSACTION_UNKNOWN);
	talk_end(s, END_SILENT, END_BY_SERVER, reason);
}

/* Whether the server knows no EHLO, perhaps, and has ended the session over ours, where the client says HELO. */
static bool wants_helo_only(const struct session *s)
{
	return s->server.state == SERVER_EHLO && s->server.leg.eof && s->hello.verb == SMTP_HELO && !s->o->limits.on_recipient &&
	    !s->dialogue.lmtp && !s->dialogue.greeted && !s->hello.own_ehlo && !server_needs_tls(s);
}

/* The server is lost, and no message with it: give the client the reply that the server owes, and end the session. */
static void end_lost(struct session *s, const char *reason)
{
	enum smtp_verb awaited = dialogue_awaited(&s->dialogue);
	bool refused_ehlo = s->server.state == SERVER_HELO && s->hello.text->ehlo_refusal[0];
	bool refused = s->server.refused && s->dialogue.queued == 0;
	char error[400];

	server_close(s);
	if (refused) /* the server has said why in its banner: SERVER_GONE answers what comes */
		return;
	if (refused_ehlo) { /* the server's refusal of EHLO was its last reply: the session goes on, and SERVER_GONE answers what comes */
		dialogue_forget_server(&s->dialogue);
		talk_reply(s, s->hello.text->ehlo_refusal);
		return;
	}
	if (awaited == SMTP_QUIT) {
		talk_bye(s);
		return;
	}
	snprintf(error, sizeof error, "%s: %s", s->server.host, reason);
	record_error(s, error);
	talk_replyf(s, "421 4.4.2 %s: %s", s->server.host, reason);
	talk_end(s, END_LINGER, END_BY_SERVER, reason);
}

void replies_server_lost(struct session *s, const char *reason)
{
	char reply[400];

	if (dialogue_awaited(&s->dialogue) == SMTP_GREETING || is_chosen(s)) {
		server_failed(s, "4.4.1", reason);
	} else if (is_unneeded(s)) {
		server_close(s);
		dialogue_forget_server(&s->dialogue);
	} else if (lacks_message(s)) {
		snprintf(reply, sizeof reply, "451 4.4.2 %s: %s", s->server.host, reason);
		record_error(s, reply + 10);
		maildata_give_up(s, reply);
	} else if (transaction_outcome_due(s)) {
		end_unknown(s, "connection lost before the reply to a message: its outcome is unknown");
	} else if (wants_helo_only(s)) {
		server_redial_for_helo(s);
	} else {
		end_lost(s, reason);
	}
}

static void end_by_server(struct session *s, const struct dialogue_reply *r)
{
	bool unknown = transaction_outcome_due(s); /* LMTP: other recipients of the message have no reply yet */

	transaction_end(s, unknown ? TRANSACTION_UNKNOWN : TRANSACTION_BY_REPLIES);
	talk_end(s, END_LINGER, END_BY_SERVER, talk_refusal("reply", &r->line));
}

/* ---- replies out of turn ---- */

/* A reply while the server is being sent a message means that it will not take the message. It has not seen the end, so no code can mean
 * that it has accepted it. */
static void handle_early_reply(struct session *s, const struct dialogue_reply *r)
{
	char reply[TALK_QUOTE(480)];

	if (r->line.code >= 400)
		talk_quote(&r->line, reply, sizeof reply);
	else
		snprintf(reply, sizeof reply, "451 4.5.0 %s: reply in the middle of a message", s->server.host);
	record_error(s, reply);
	maildata_give_up(s, reply);
}

/* The server has broken the protocol: close the connection to it and end the session. silent: without a reply to the client. */
static void handle_violation(struct session *s, const char *why, bool silent)
{
	char error[400];

	snprintf(error, sizeof error, "%s: %s", s->server.host, why);
	record_error(s, error);
	if (dialogue_awaited(&s->dialogue) == SMTP_GREETING || is_chosen(s)) {
		server_failed(s, "4.5.0", why);
		return;
	}
	if (transaction_outcome_due(s)) {
		silent = true;
		transaction_end(s, TRANSACTION_UNKNOWN);
	} else if (!silent) {
		talk_replyf(s, "421 4.5.0 %s: %s", s->server.host, why);
	}
	server_close(s);
	talk_end(s, silent ? END_SILENT : END_LINGER, END_BY_SERVER, why);
}

/* A message was accepted before all of it was sent: the server has broken the protocol. */
static void handle_early_acceptance(struct session *s)
{
	bool lost = s->server.leg.lost; /* else the rest may still have reached the server, and the outcome is unknown */

	dialogue_decide(&s->dialogue, 0, NULL, 0);
	transaction_end(s, lost ? TRANSACTION_ABORTED : TRANSACTION_UNKNOWN);
	handle_violation(s, "a message was accepted before all of it was sent", !lost);
}

/* Whether this reply comes while the server is being sent a message. */
static bool is_early(const struct session *s, const struct dialogue_reply *r)
{
	const struct dialogue *d = &s->dialogue;

	if ((d->client == DIALOGUE_DATA || transaction_is_whole(s)) && r->verb == SMTP_NOTHING)
		return true;
	return r->verb == SMTP_BDAT &&
	    ((d->client == DIALOGUE_CHUNK && d->queued == 0) || s->tx.content == CONTENT_SENDING_CHUNK);
}

/* Handle a reply that nobody needs, or that must not come now. false: it is neither. */
static bool handle_out_of_turn(struct session *s, const struct dialogue_reply *r)
{
	bool idle = is_unneeded(s), unneeded = idle && !is_chosen(s);

	if (r->line.code == 421 && (unneeded || (idle && r->verb == SMTP_NOTHING))) { /* an idle connection was closed */
		if (r->line.last)
			replies_server_lost(s, talk_refusal("reply", &r->line));
	} else if (r->violation && unneeded) {
		record_error(s, r->violation);
		replies_server_lost(s, r->violation);
	} else if (is_early(s, r)) {
		if (r->line.last) {
			refusal_note_early(s, r);
			handle_early_reply(s, r);
		}
	} else if (r->violation) {
		handle_violation(s, r->violation, false);
	} else {
		return false;
	}
	return true;
}

/* Whether more octets follow a reply after which the server owes none. After STARTTLS that is an attack, which hello.c deals with. */
static bool is_followed(const struct session *s, const struct dialogue_reply *r)
{
	return (is_chosen(s) || r->verb == SMTP_XCLIENT || r->verb == SMTP_XFORWARD) && r->line.last &&
	    s->dialogue.queued == 0 && leg_count(&s->server.leg) && r->verb != SMTP_STARTTLS;
}

/* ---- replies in turn ---- */

/* The client has pipelined DATA, no recipient was accepted, and yet the server has answered 354: the server gets an empty message, the
 * client a refusal (RFC 2920 3.1). */
static void refuse_without_recipients(struct session *s)
{
	static const char reply[] = "554 5.5.1 No valid recipients";

	talk_own_command(s, SMTP_CONTENT, ".", 1);
	dialogue_decide(&s->dialogue, 554, (const unsigned char *)reply + 4, sizeof reply - 5);
	transaction_end(s, TRANSACTION_BY_REPLIES);
	talk_reply(s, reply);
}

/* The last line of a reply was passed on: what it changes, beyond the dialogue. */
static void after_reply(struct session *s, const struct dialogue_reply *r)
{
	bool positive = r->line.code < 400;

	if (r->line.code == 421) {
		end_by_server(s, r);
		return;
	}
	if (!r->content_end)
		transaction_answered(s, r->verb);
	if (r->verb == SMTP_DATA && positive)
		maildata_passes(s);
	if (r->content_end && !r->more) {
		transaction_answered(s, SMTP_CONTENT);
		transaction_end(s, TRANSACTION_BY_REPLIES);
	}
	if (r->verb == SMTP_BDAT && !r->content_end && !positive && s->dialogue.lmtp)
		transaction_reset_server(s); /* how many replies the next chunk would have is not known */
	if (r->verb == SMTP_RSET && positive)
		transaction_end(s, TRANSACTION_BY_REPLIES);
	if (r->verb == SMTP_QUIT && positive)
		talk_end(s, END_FLUSH, END_BY_CLIENT, "QUIT");
}

static void pass_reply(struct session *s, const struct dialogue_reply *r)
{
	char reply[TALK_QUOTE(480)];

	talk_pass(s, r);
	if (r->content_end && !s->dialogue.lmtp) {
		talk_quote(&r->line, reply, sizeof reply);
		talk_repeat(s, reply); /* this one, which need not be what decided the transaction */
	}
	after_reply(s, r);
}

/* Handle the last line of a reply to a command of ours, outside of hello.c. */
static void handle_own(struct session *s, const struct dialogue_reply *r)
{
	bool goes_on = r->line.code != 421;

	if (r->verb == SMTP_XFORWARD && goes_on)
		identity_forwarded(s, r);
	else if (s->gate.stage == GATE_SERVER && (r->verb == SMTP_MAIL || r->verb == SMTP_XFORWARD))
		recipient_mail_answered(s, r);
	else if (!goes_on)
		pass_reply(s, r);
	else if (s->tx.content == CONTENT_ASKED && r->verb == SMTP_DATA)
		maildata_data_answered(s, r);
}

static void log_reply(struct session *s, const struct dialogue_reply *r, enum record_direction direction)
{
	bool secret = r->verb == SMTP_AUTH || r->verb == SMTP_AUTH_RESPONSE;

	talk_comm(s, direction, r->line.raw, secret && r->line.code == 334 ? 3 : r->line.raw_len);
}

static void handle_in_turn(struct session *s, const struct dialogue_reply *r)
{
	bool last = r->line.last;

	if (is_followed(s, r)) {
		handle_violation(s, "a reply that nothing was asked for", false);
	} else if (r->verb == SMTP_GREETING || serverstate_in_hello(s)) {
		hello_reply(s, r);
		if (last && r->line.code == 421 && serverstate_is_open(s))
			end_by_server(s, r);
	} else if (last && r->hidden) {
		handle_own(s, r);
	} else if (last && r->verb == SMTP_DATA && r->line.code == 354 && !s->dialogue.tx.accepted) {
		refuse_without_recipients(s);
	} else if (last && (r->verb != SMTP_STARTTLS || clienttls_answered(s, r->line.code))) {
		pass_reply(s, r);
	}
}

static void handle_reply(struct session *s, const struct dialogue_reply *r)
{
	bool ours = r->hidden || serverstate_in_hello(s);
	bool unsent = leg_pending(&s->server.leg) || s->server.leg.lost || s->tx.content == CONTENT_SENT_LATE;

	if (handle_out_of_turn(s, r))
		return;
	talk_gather(s, r, !ours || s->tx.content == CONTENT_ASKED);
	if (r->content_end && r->line.code < 400 && unsent) {
		handle_early_acceptance(s);
		return;
	}
	log_reply(s, r, ours ? COMM_OWN_REPLY : COMM_BACK);
	if (r->line.last)
		refusal_note(s, r);
	handle_in_turn(s, r);
}

/* Whether the server's next line may be handled now. A reply to a chunk waits until all of the chunk was sent, unless the server has closed
 * its side: else replies and commands would get out of step. */
static bool may_handle_reply(const struct session *s)
{
	const struct dialogue *d = &s->dialogue;

	if (talk_ended(s) || !serverstate_is_open(s) || s->server.state == SERVER_TUNNEL || gate_has_news(s) ||
	    leg_write_room(&s->client.leg) <= REPLIES_ROOM)
		return false;
	if (s->tx.content == CONTENT_SENDING_CHUNK)
		return s->server.leg.eof;
	return d->client != DIALOGUE_CHUNK || dialogue_awaited(d) != SMTP_BDAT || d->queued > 1 || s->server.leg.eof;
}

/* Between replies they mean nothing, as Postfix and others have it. Behind STARTTLS they would be plaintext that somebody injected. */
static void pass_over_empty_lines(struct session *s)
{
	if (!s->dialogue.reply_code)
		leg_consume(&s->server.leg, smtp_empty_lines(leg_bytes(&s->server.leg), leg_count(&s->server.leg)));
}

bool replies_turn(struct session *s)
{
	struct dialogue_reply r;
	bool handled = false;
	size_t used;

	talk_local_replies(s);
	s->replies.starved = false;
	while (may_handle_reply(s)) {
		pass_over_empty_lines(s);
		s->replies.starved = !dialogue_server_next(&s->dialogue, leg_bytes(&s->server.leg), leg_count(&s->server.leg), &used, &r);
		if (s->replies.starved)
			break;
		leg_consume(&s->server.leg, used); /* r leads into the leg, where the line stays until the next read */
		if (r.line.last && r.verb != SMTP_STARTTLS)
			pass_over_empty_lines(s);
		handled = true;
		s->replies.count += r.line.last;
		handle_reply(s, &r);
		talk_local_replies(s);
	}
	return handled;
}
