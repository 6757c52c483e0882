/* What becomes of what the client says. See commands.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "session/commands.h"
#include "session/checks.h"
#include "session/clienttls.h"
#include "session/filter.h"
#include "session/gate.h"
#include "session/held.h"
#include "session/hello.h"
#include "session/identity.h"
#include "session/kept.h"
#include "session/maildata.h"
#include "session/observe.h"
#include "session/recipient.h"
#include "session/replies.h"
#include "session/serverstate.h"
#include "session/talk.h"
#include "session/tlsreport.h"
#include "session/trace.h"
#include "session/transaction.h"

#include <stdio.h>
#include <string.h>

#define COMMAND_ROOM (SMTP_AUTH_LINE_MAX + 64) /* octets that the server's leg must have room for before a command is handled */

/* Whether the command is refused for a refusal before it, of MAIL or of each RCPT, which a client that pipelines learns too late: that is no
 * mistake of the client. */
static bool is_consequence(const struct session *s, const struct smtp_command *cmd)
{
	const struct dialogue_transaction *tx = &s->dialogue.tx;
	bool content = cmd->verb == SMTP_DATA || cmd->verb == SMTP_BDAT;

	if (cmd->refusal)
		return false;
	return (tx->mail == DIALOGUE_MAIL_REFUSED && (content || cmd->verb == SMTP_RCPT)) ||
	    (content && tx->rcpts && !tx->accepted && !tx->unanswered);
}

/* Refuse the command with this reply (static storage), which is given when its turn comes. */
static void refuse_command(struct session *s, const struct smtp_command *cmd, const char *reply)
{
	bool too_large = cmd->verb == SMTP_BDAT && strncmp(reply, "552", 3) == 0, consequence = is_consequence(s, cmd);

	dialogue_refuse(&s->dialogue, cmd, reply);
	if (cmd->verb == SMTP_BDAT && cmd->last && s->dialogue.lmtp_client) {
		talk_local_replies(s);
		talk_repeat(s, reply);
	}
	if (s->dialogue.client == DIALOGUE_SWALLOW)
		transaction_octets_begin(s);
	if (!consequence)
		talk_count_refusal(s, reply, cmd->fatal);
	if (too_large) { /* the server may have chunks already, and must forget them */
		dialogue_decide(&s->dialogue, 552, (const unsigned char *)reply + 4, strlen(reply) - 4);
		transaction_reset_server(s);
		transaction_end(s, TRANSACTION_BY_REPLIES);
	}
	talk_local_replies(s);
}

/* Answer a command that no server can answer. */
static void answer_alone(struct session *s, const struct smtp_command *cmd)
{
	if (cmd->verb == SMTP_QUIT) {
		talk_bye(s);
		return;
	}
	talk_reply(s, s->server.text->gone);
	if (s->server.no_tls)
		talk_end(s, END_LINGER, END_BY_SMTPWARP, "no TLS");
	else
		talk_end(s, END_LINGER, END_BY_SERVER, "connection is closed");
}

static enum hook_event event_of(enum smtp_verb verb)
{
	switch (verb) {
	case SMTP_EHLO:
	case SMTP_HELO:
	case SMTP_LHLO:
		return HOOK_EHLO;
	case SMTP_MAIL:
		return HOOK_MAIL;
	case SMTP_RCPT:
		return HOOK_RCPT;
	default:
		return HOOK_EVENT_COUNT;
	}
}

/* Whether records show the command as taken (COMM_TAKEN): what the server is told in its place is a command of ours. */
static bool is_taken(const struct session *s, const struct smtp_command *cmd)
{
	bool goes_on = cmd->verb == SMTP_DATA || cmd->verb == SMTP_BDAT || cmd->verb == SMTP_AUTH;

	return event_of(cmd->verb) == HOOK_EHLO || maildata_is_kept(s, cmd) || clienttls_is_ours(s, cmd->verb) ||
	    (s->o->limits.on_recipient && !goes_on) || (s->o->limits.mail_late && (cmd->verb == SMTP_MAIL || cmd->verb == SMTP_RCPT));
}

/* MAIL goes to the server, behind XFORWARD if that is due. */
static void send_mail(struct session *s, const struct smtp_command *cmd)
{
	if (identity_forward(s)) {
		held_put(s, cmd);
		gate_enter(s, GATE_TOLD);
		return;
	}
	held_send_command(s, cmd);
	transaction_sent(s, SMTP_MAIL);
}

void commands_secured(struct session *s)
{
	const struct smtp_command *cmd = &s->held->cmd;

	gate_enter(s, GATE_OPEN);
	if (cmd->verb == SMTP_MAIL) {
		send_mail(s, cmd);
		return;
	}
	if (s->dialogue.ehlo.extensions & SMTP_EXT_AUTH)
		held_send_command(s, cmd);
	else
		talk_reply(s, "454 4.7.0 The server has no AUTH inside of TLS");
	held_wipe(s);
}

void commands_not_secured(struct session *s, const char *reason)
{
	bool mail = s->held->cmd.verb == SMTP_MAIL;
	char reply[300];

	gate_enter(s, GATE_OPEN);
	snprintf(reply, sizeof reply, "%s %s", mail ? "451" : "454", reason);
	if (mail) {
		held_refuse(s, reply);
		return;
	}
	talk_reply(s, reply);
	held_wipe(s);
}

/* Pass the command on: to the server, or to the part that answers it in the server's place. */
static void pass_command(struct session *s, const struct smtp_command *cmd)
{
	static const char tolerated[] = "blanks or missing brackets in the path were put right";

	held_comm(s, cmd, is_taken(s, cmd) ? COMM_TAKEN : COMM_ON);
	if (cmd->tolerated)
		talk_comm(s, COMM_NOTE, tolerated, sizeof tolerated - 1);
	if (event_of(cmd->verb) == HOOK_EHLO) {
		hello_said(s, cmd);
		return;
	}
	if (maildata_is_kept(s, cmd)) {
		maildata_keep(s, cmd);
		return;
	}
	if (cmd->verb == SMTP_STARTTLS)
		gate_enter(s, GATE_STARTTLS);
	if (clienttls_is_ours(s, cmd->verb) || (s->o->limits.mail_late && recipient_command(s, cmd)))
		return;
	if ((cmd->verb == SMTP_MAIL || cmd->verb == SMTP_AUTH) && hello_owes_tls(s)) {
		held_put(s, cmd);
		gate_enter(s, GATE_SECURE);
		hello_secure(s);
		return;
	}
	if (cmd->verb == SMTP_MAIL) {
		send_mail(s, cmd);
		return;
	}
	held_send_command(s, cmd);
	transaction_sent(s, cmd->verb);
}

void commands_pass_held(struct session *s)
{
	const struct smtp_command *cmd = &s->held->cmd;
	const char *other = cmd->verb == SMTP_RCPT ? s->o->override_recipient : NULL;

	if (other && !held_rewrite(s, (const unsigned char *)other, strlen(other))) {
		held_comm(s, cmd, COMM_TAKEN);
		held_refuse(s, "500 5.5.2 Line too long");
	} else if (s->held->original_len && !s->dialogue.tx.smtputf8 && !smtp_is_seven_bit(cmd->address, cmd->address_len)) {
		held_comm(s, cmd, COMM_TAKEN); /* RFC 6531 3.7.4.2 */
		held_refuse(s, "553 5.6.7 The recipient was rewritten to an address that takes SMTPUTF8");
	} else if (s->held->original_len && !s->o->limits.mail_late) {
		held_comm(s, cmd, COMM_ON);
		held_send(s);
	} else {
		pass_command(s, cmd);
	}
}

/* Why the command is refused without a question to anybody: a reply in static storage; NULL: it is not. */
static const char *refusal_of(struct session *s, const struct smtp_command *cmd)
{
	const char *refusal = dialogue_check(&s->dialogue, cmd);

	if (refusal || cmd->verb != SMTP_MAIL)
		return refusal;
	if (cmd->auth && s->auth.authenticated) /* the server trusts us, not the client, RFC 4954 5 */
		return DIALOGUE_NOT_OFFERED;
	return filter_wants(s, HOOK_DATA) ? kept_cannot(s, cmd->octets) : NULL;
}

/* Refuse, or answer here, a command that is out of order or that no server can answer. false: it is neither. */
static bool is_out_of_place(struct session *s, const struct smtp_command *cmd)
{
	const char *refusal;

	if (s->server.state == SERVER_GONE) {
		held_comm(s, cmd, COMM_TAKEN);
		answer_alone(s, cmd);
		return true;
	}
	if (cmd->verb == SMTP_MAIL && !cmd->refusal && s->dialogue.tx.decision.code) {
		if (s->o->limits.mail_late) /* this MAIL is answered here, so the server would not know that the last transaction is over */
			transaction_reset_server(s);
		transaction_end(s, TRANSACTION_BY_REPLIES);
	}
	refusal = refusal_of(s, cmd);
	if (refusal) {
		held_comm(s, cmd, COMM_TAKEN);
		refuse_command(s, cmd, refusal);
		return true;
	}
	if (cmd->verb == SMTP_AUTH && s->o->limits.on_recipient && s->server.auth == SERVER_AUTH_NOBODY) {
		held_comm(s, cmd, COMM_TAKEN); /* the server whose AUTH the client was shown is gone: no other gets the password */
		answer_alone(s, cmd);
		return true;
	}
	return false;
}

static void handle_command(struct session *s, const struct smtp_command *cmd)
{
	enum hook_event event = event_of(cmd->verb);
	bool filtered = event != HOOK_EVENT_COUNT && filter_wants(s, event);
	bool overridden = cmd->verb == SMTP_RCPT && s->o->override_recipient;

	s->commands.auth_seen = s->commands.auth_seen || cmd->verb == SMTP_AUTH;
	if (is_out_of_place(s, cmd))
		return;
	if (cmd->verb == SMTP_RCPT && !checks_recipient(s, cmd)) {
		held_comm(s, cmd, COMM_TAKEN);
		held_put(s, cmd);
		checks_refuse_recipient(s);
		return;
	}
	if (cmd->verb == SMTP_RCPT) {
		observe_recipient(s, cmd);
		tlsreport_recipient(s, cmd);
	}
	recipient_prepare_route(s, cmd->verb);
	if (!filtered && !overridden) {
		pass_command(s, cmd);
		return;
	}
	held_put(s, cmd);
	if (!filtered) {
		commands_pass_held(s);
		return;
	}
	if (event == HOOK_EHLO)
		hello_try_name(s, &s->held->cmd);
	filter_run(s, event);
}

/* Handle the client's answer to 334, which may be a password and is in no record. */
static void handle_answer(struct session *s, const struct smtp_command *cmd)
{
	if (s->server.state == SERVER_GONE) {
		answer_alone(s, cmd);
		return;
	}
	talk_comm_answer(s, COMM_ON);
	held_send_command(s, cmd);
}

static void handle_piece(struct session *s, const struct smtp_piece *piece)
{
	if (!maildata_piece(s, piece))
		return;
	if (filter_wants(s, HOOK_DATA))
		filter_run(s, HOOK_DATA);
	else
		maildata_send_kept(s);
}

/* Whether the client's next octets may be handled now: the client waits for nothing, and there is room for all that they can cause. */
static bool may_handle_command(const struct session *s)
{
	const struct leg *client = &s->client.leg, *server = &s->server.leg;

	if (s->end.how != END_NOT || !gate_is_open(s) || serverstate_in_hello(s) || serverstate_is_shaking(s))
		return false;
	if (dialogue_in_content(&s->dialogue) && !transaction_is_kept(s) && serverstate_is_open(s))
		return !server->blocked && leg_write_room(server) > leg_count(client) + TRACE_ROOM;
	return leg_write_room(client) > REPLIES_ROOM && (!serverstate_is_open(s) || leg_write_room(server) > COMMAND_ROOM);
}

/* Handle the next command, line or piece of what the client sent. *used: how many octets of it are spent. */
static enum dialogue_status handle_next(struct session *s, size_t *used)
{
	const struct leg *client = &s->client.leg;
	struct smtp_command cmd;
	struct smtp_piece piece;
	enum dialogue_status status = dialogue_client_next(&s->dialogue, leg_bytes(client), leg_count(client), used, &cmd, &piece);

	if (status == DIALOGUE_LINE)
		handle_command(s, &cmd);
	else if (status == DIALOGUE_ANSWER)
		handle_answer(s, &cmd);
	else if (status == DIALOGUE_PIECE)
		handle_piece(s, &piece);
	return status;
}

bool commands_turn(struct session *s)
{
	enum dialogue_status status = DIALOGUE_MORE;
	bool handled = false;
	size_t used;

	s->commands.starved = false;
	while (may_handle_command(s)) {
		status = handle_next(s, &used);
		if (status == DIALOGUE_PIECE)
			leg_consume(&s->client.leg, used);
		else
			leg_consume_secret(&s->client.leg, used); /* AUTH, whatever becomes of it, and however badly it is spelt */
		s->commands.starved = status == DIALOGUE_MORE && !used;
		if (status == DIALOGUE_WAIT || s->commands.starved)
			break;
		handled = true;
	}
	if (status != DIALOGUE_MORE || (!leg_count(&s->client.leg) && !s->dialogue.skipping))
		s->commands.partial_since = 0;
	else if (!s->commands.partial_since)
		s->commands.partial_since = s->now;
	return handled;
}
