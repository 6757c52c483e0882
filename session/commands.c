/* Commands, replies and messages between client and server. See session.h.
 *
 * What is promised here: a client hears 250 for a message only as the server's own reply to all of it; the server gets
 * a final dot only for a message that the client ended and that may go on. When neither can be had, the connection
 * that is in doubt is dropped.
 */
#define _GNU_SOURCE
#include "session/session.h"

#include <stdio.h>
#include <string.h>

/* Room that must be there before a reply or command is handled, so that nothing is ever cut. */
#define REPLY_ROOM                                                                                                     \
	(HELD_MAX + SMTP_EHLO_WRITTEN + SMTP_REPLY_MAX + DIALOGUE_QUEUE_MAX * LOCAL_REPLY_MAX +                          \
	    DIALOGUE_LMTP_MAX * REPEATED_MAX + 1024)
#define REPEATED_MAX 560 /* of relay_repeat() */
#define LOCAL_REPLY_MAX 128 /* longer than any of ours of static storage */
#define COMMAND_ROOM (SMTP_AUTH_LINE_MAX + 64)

/* ---- transactions ---- */

/* ---- the server is gone ---- */

/* Read the client's message to its end without sending any more of it. The server, if it is still there, sees the
 * connection close in the middle: no dot (RFC 5321 4.1.1.10). reply: to give at the end. */
static void begin_drain(struct session *s, const char *reply)
{
	snprintf(s->text->drained, sizeof s->text->drained, "%s", reply);
	s->drain = true;
	upstream_close(s);
	dialogue_forget_server(&s->dialogue);
}

static void end_drain(struct session *s)
{
	struct smtp_line line = { .code = 451 };

	s->drain = false;
	if (s->dialogue.client == DIALOGUE_DATA)
		dialogue_end_data(&s->dialogue);
	session_reply(s, s->text->drained);
	smtp_parse_reply((const unsigned char *)s->text->drained, strlen(s->text->drained), &line);
	dialogue_decide(&s->dialogue, line.code, line.text, line.text_len);
	if (!s->dialogue.tx.chunks || s->dialogue.chunk_last)
		relay_repeat(s, NULL);
	relay_end_transaction(s, NULL);
	if (line.code == 421) {
		session_end(s, "upstream", "reply 421");
		s->linger = true;
	}
}

/* The message that is under way cannot reach the server any more. */
static void give_up_message(struct session *s, const char *reply)
{
	begin_drain(s, reply);
	if (!dialogue_in_content(&s->dialogue)) {
		filter_abort(s);
		end_drain(s);
	}
}

void relay_server_lost(struct session *s, const char *reason)
{
	enum smtp_verb awaited = dialogue_awaited(&s->dialogue);
	bool unsent = s->dialogue.tx.complete && s->server.lost && s->dialogue.queued == 1; /* it cannot have all of a message */
	char reply[400];

	if (awaited == SMTP_GREETING || s->stage == STAGE_OPEN) {
		upstream_failed(s, "4.4.1", reason);
		return;
	}
	if (s->late && !s->bound && !s->auth_said) { /* nobody waits for it */
		upstream_close(s);
		dialogue_forget_server(&s->dialogue);
		return;
	}
	snprintf(reply, sizeof reply, "%s: %s", s->host, reason);
	if (unsent || keep_is_whole(s) || (dialogue_in_content(&s->dialogue) && s->dialogue.queued <= 1)) {
		record_error(&s->view, reply);
		snprintf(reply, sizeof reply, "451 4.4.2 %s: %s", s->host, reason);
		give_up_message(s, reply);
		return;
	}
	if (relay_outcome_due(s)) {
		s->silent = true;
		relay_end_transaction(s, "unknown");
		session_end(s, "upstream", "connection lost before the reply to a message: its outcome is unknown");
		return;
	}
	upstream_close(s);
	if (s->refused && s->dialogue.queued == 0) /* it said why in its greeting */
		return;
	if (s->greet == GREET_HELO && s->text->ehlo_refusal[0]) { /* its word on EHLO was its last */
		s->greet = GREET_NONE;
		dialogue_forget_server(&s->dialogue);
		session_reply(s, s->text->ehlo_refusal);
		return;
	}
	if (awaited == SMTP_QUIT) {
		session_reply(s, "221 2.0.0 Bye");
		session_end(s, "client", "QUIT");
		return;
	}
	record_error(&s->view, reply);
	session_replyf(s, "421 4.4.2 %s: %s", s->host, reason);
	session_end(s, "upstream", reason);
	s->linger = true;
}

/* ---- from the client ---- */

static void refuse(struct session *s, const struct smtp_command *cmd, const char *reply)
{
	bool too_large = cmd->verb == SMTP_BDAT && strncmp(reply, "552", 3) == 0;

	dialogue_refuse(&s->dialogue, cmd, reply);
	if (cmd->verb == SMTP_BDAT && cmd->last && s->dialogue.lmtp_client) {
		local_replies(s);
		relay_repeat(s, reply);
	}
	if (s->dialogue.client == DIALOGUE_SWALLOW)
		relay_begin_octets(s);
	count_refusal(s, reply, cmd->fatal);
	if (too_large) { /* chunks may be there already: the server must forget them */
		dialogue_decide(&s->dialogue, 552, (const unsigned char *)reply + 4, strlen(reply) - 4);
		late_reset_server(s);
		relay_end_transaction(s, NULL);
	}
	local_replies(s);
}

/* There is no server any more. */
static void answer_alone(struct session *s, const struct smtp_command *cmd)
{
	bool quit = cmd->verb == SMTP_QUIT;

	session_reply(s, quit ? "221 2.0.0 Bye" : s->text->gone);
	session_end(s, quit ? "client" : s->no_tls ? "smtpwarp" : "upstream",
	    quit ? "QUIT" : s->no_tls ? "no TLS" : "connection is closed");
	s->linger = !quit;
}

/* ---- commands that wait ---- */

/* ---- from the client ---- */

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

/* The command goes its way: to the server, or to what speaks for one. */
static void pass_command(struct session *s, const struct smtp_command *cmd)
{
	static const char tolerated[] = "blanks or missing brackets in the path were put right";
	bool greeting = event_of(cmd->verb) == HOOK_EHLO;
	bool local = greeting || keep_wants(s, cmd) || secure_is_ours(s, cmd->verb) ||
	    (s->late && cmd->verb != SMTP_DATA && cmd->verb != SMTP_BDAT && cmd->verb != SMTP_AUTH);

	log_command(s, cmd, local ? ">|" : "->");
	if (cmd->tolerated)
		session_comm(s, "--", tolerated, sizeof tolerated - 1);
	if (greeting) {
		upstream_greet(s, cmd);
		return;
	}
	if (keep_wants(s, cmd)) {
		keep_begin(s, cmd);
		return;
	}
	if (cmd->verb == SMTP_STARTTLS)
		s->stage = STAGE_STARTTLS;
	if (secure_is_ours(s, cmd->verb) || (s->late && late_command(s, cmd)))
		return;
	if (cmd->verb == SMTP_MAIL && identity_forward(s)) {
		relay_hold(s, cmd);
		return;
	}
	send_command(s, cmd);
	note_sent(s, cmd->verb);
}

/* The held command, which nothing here refuses, goes on: RCPT perhaps with another address. */
static void pass_held(struct session *s)
{
	const struct smtp_command *cmd = &s->held->cmd;
	const char *other = cmd->verb == SMTP_RCPT ? s->o->override_recipient : NULL;

	if (other && !relay_rewrite(s, (const unsigned char *)other, strlen(other))) {
		log_command(s, cmd, ">|");
		relay_refuse_held(s, "500 5.5.2 Line too long");
	} else if (s->held->original_len && !s->late) {
		log_command(s, cmd, "->");
		relay_send_held(s);
	} else {
		pass_command(s, cmd);
	}
}

/* The one place where it is decided what becomes of a command. */
static void handle_command(struct session *s, const struct smtp_command *cmd)
{
	enum hook_event event = event_of(cmd->verb);
	bool filtered = event != HOOK_EVENT_COUNT && filter_wants(s, event);
	bool overridden = cmd->verb == SMTP_RCPT && s->o->override_recipient;
	const char *refusal;

	s->auth_seen = s->auth_seen || cmd->verb == SMTP_AUTH;
	if (s->state == SERVER_GONE) {
		log_command(s, cmd, ">|");
		answer_alone(s, cmd);
		return;
	}
	if (cmd->verb == SMTP_MAIL && !cmd->refusal && s->dialogue.tx.decision.code) {
		if (s->late) /* MAIL is answered here: the server's word on what it still has open would come too late */
			late_reset_server(s);
		relay_end_transaction(s, NULL);
	}
	refusal = dialogue_check(&s->dialogue, cmd);
	if (refusal) {
		log_command(s, cmd, ">|");
		refuse(s, cmd, refusal);
		return;
	}
	if (cmd->verb == SMTP_AUTH && s->late && !s->for_auth) { /* a password is for no other server than was asked */
		log_command(s, cmd, ">|");
		answer_alone(s, cmd);
		return;
	}
	if (cmd->verb == SMTP_RCPT && !checks_recipient(s, cmd)) {
		log_command(s, cmd, ">|");
		relay_hold(s, cmd);
		checks_refuse_recipient(s);
		return;
	}
	late_prepare_route(s, cmd->verb);
	if (!filtered && !overridden) {
		pass_command(s, cmd);
		return;
	}
	relay_hold(s, cmd);
	if (!filtered) {
		pass_held(s);
		return;
	}
	if (event == HOOK_EHLO)
		upstream_try_name(s, &s->held->cmd);
	filter_run(s, event);
}

/* ---- what hooks decided ---- */

static void end_by_filter(struct session *s)
{
	session_end(s, "smtpwarp", "a hook closed it");
	s->linger = true;
}

/* RFC 5321 3.1: a greeting that refuses is 554, or 421 when it is for now. */
static void filtered_connect(struct session *s, const struct filter_outcome *o)
{
	if (o->word == FILTER_ACCEPT) {
		upstream_start(s);
		return;
	}
	dialogue_forget_server(&s->dialogue);
	reply_wrapped(s, o->code == 550 ? 554 : o->code / 100 == 4 ? 421 : o->code, o->enhanced, o->text, o->text_len);
	end_by_filter(s);
}

static void filtered_command(struct session *s, const struct filter_outcome *o)
{
	const struct smtp_command *cmd = &s->held->cmd;

	if (o->word == FILTER_ACCEPT) {
		pass_held(s);
		return;
	}
	log_command(s, cmd, ">|");
	reply_wrapped(s, o->code, o->enhanced, o->text, o->text_len);
	if (cmd->verb == SMTP_MAIL || cmd->verb == SMTP_RCPT)
		note_refused(s, o->code, o->enhanced, o->text, o->text_len);
	else
		upstream_keep_name(s);
	if (o->word == FILTER_CLOSE)
		end_by_filter(s);
}

static void filtered_message(struct session *s, const struct filter_outcome *o)
{
	switch (o->word) {
	case FILTER_ACCEPT:
		keep_pass(s);
		return;
	case FILTER_DISCARD:
		session_reply(s, "250 2.0.0 Ok");
		dialogue_decide(&s->dialogue, 250, (const unsigned char *)"2.0.0 Ok", 8);
		relay_repeat(s, NULL);
		keep_end(s, "discarded");
		return;
	case FILTER_REFUSE:
	case FILTER_CLOSE:
		for (uint32_t due = dialogue_replies_due(&s->dialogue); due > 1; due--) /* a line each */
			reply_wrapped(s, o->code, o->enhanced, o->text, o->text_len < 480 ? o->text_len : 480);
		reply_wrapped(s, o->code, o->enhanced, o->text, o->text_len);
		dialogue_decide(&s->dialogue, o->code, o->text, o->text_len);
		memcpy(s->dialogue.tx.decision.enhanced, o->enhanced, sizeof o->enhanced);
		keep_end(s, NULL);
		if (o->word == FILTER_CLOSE)
			end_by_filter(s);
	}
}

void relay_filtered(struct session *s, enum hook_event event, const struct filter_outcome *outcome)
{
	if (event == HOOK_CONNECT)
		filtered_connect(s, outcome);
	else if (event == HOOK_DATA)
		filtered_message(s, outcome);
	else
		filtered_command(s, outcome);
}

static void handle_answer(struct session *s, const struct smtp_command *cmd)
{
	if (s->state == SERVER_GONE) {
		answer_alone(s, cmd);
		return;
	}
	session_comm(s, "->", "(answer to AUTH)", 16);
	send_command(s, cmd);
}

static void end_content(struct session *s)
{
	struct dialogue *d = &s->dialogue;

	/* What the server has said by now, and is no reply to an earlier command, it said too early. */
	s->early = d->queued <= 1 && (leg_count(&s->server) || leg_has_more(&s->server));
	if (d->client == DIALOGUE_DATA) {
		dialogue_end_data(d);
		d->tx.complete = true;
		dialogue_expect(d, SMTP_CONTENT, false);
	}
	s->sent_at = s->now;
}

static void pass_piece(struct session *s, const struct smtp_piece *piece)
{
	struct dialogue_transaction *tx = &s->dialogue.tx;
	const char *reply = relay_fault(s);

	if (!reply && s->late && !(s->dialogue.ehlo.extensions & SMTP_EXT_8BITMIME) &&
	    !smtp_is_seven_bit(piece->bytes, piece->len)) /* RFC 6152 3 */
		reply = "554 5.6.3 The recipient's server does not know 8BITMIME";
	if (reply) {
		begin_drain(s, reply);
		return;
	}
	smtp_header_scan(&tx->header, piece->bytes, piece->len);
	leg_write(&s->server, piece->bytes, piece->len);
}

static void handle_piece(struct session *s, const struct smtp_piece *piece)
{
	if (!s->drain && s->keeping) {
		keep_piece(s, piece);
		return;
	}
	if (!s->drain)
		pass_piece(s, piece);
	if (piece->end && s->drain)
		end_drain(s);
	else if (piece->end)
		end_content(s);
}

/* Whether the client's next bytes may be handled now: there is room for what comes of them. */
static bool may_handle_client(const struct session *s)
{
	if (s->ending || s->closing || s->stage != STAGE_NONE || s->greet != GREET_NONE || s->state == SERVER_HANDSHAKE)
		return false;
	if (dialogue_in_content(&s->dialogue) && !s->keeping && s->state == SERVER_OPEN)
		return !s->server.blocked && leg_write_room(&s->server) > leg_count(&s->client) + 8;
	return leg_write_room(&s->client) > REPLY_ROOM &&
	    (s->state != SERVER_OPEN || leg_write_room(&s->server) > COMMAND_ROOM);
}

void relay_client(struct session *s)
{
	enum dialogue_status status = DIALOGUE_MORE;
	struct smtp_command cmd;
	struct smtp_piece piece;
	size_t used;

	s->client_starved = false;
	while (may_handle_client(s)) {
		status = dialogue_client_next(&s->dialogue, leg_bytes(&s->client), leg_count(&s->client), &used, &cmd,
		    &piece);
		if (status == DIALOGUE_LINE)
			handle_command(s, &cmd);
		else if (status == DIALOGUE_ANSWER)
			handle_answer(s, &cmd);
		else if (status == DIALOGUE_PIECE)
			handle_piece(s, &piece);
		if (s->server.secret)
			explicit_bzero(s->client.in.bytes + s->client.in.start, used);
		leg_consume(&s->client, used);
		s->client_starved = status == DIALOGUE_MORE && !used;
		if (status == DIALOGUE_WAIT || s->client_starved)
			break;
		s->active_at = s->now;
		s->handled++;
	}
	if (status != DIALOGUE_MORE || (!leg_count(&s->client) && !s->dialogue.skipping))
		s->partial_since = 0;
	else if (!s->partial_since)
		s->partial_since = s->now;
}

/* ---- from the server ---- */


static void end_by_server(struct session *s)
{
	relay_end_transaction(s, relay_outcome_due(s) ? "unknown" : NULL); /* of other recipients */
	session_end(s, "upstream", "reply 421");
	s->linger = true;
}

/* DATA was pipelined behind recipients of which none was accepted, and the server wants the message all the same: it
 * gets an empty one, the client a refusal (RFC 2920 3.1). */
static void refuse_without_recipients(struct session *s)
{
	static const char reply[] = "554 5.5.1 No valid recipients";

	relay_own_command(s, SMTP_CONTENT, ".", 1);
	dialogue_decide(&s->dialogue, 554, (const unsigned char *)reply + 4, sizeof reply - 5);
	relay_end_transaction(s, NULL);
	session_reply(s, reply);
}

static void begin_content(struct session *s)
{
	s->times.data = s->now - s->connected_at;
	relay_begin_octets(s);
	dialogue_begin_data(&s->dialogue, false);
	identity_send_trace(s);
}

/* What a reply's last line changes beside the dialogue. */
static void after_reply(struct session *s, const struct dialogue_reply *r)
{
	bool positive = r->line.code < 400;

	if (r->line.code == 421) {
		end_by_server(s);
		return;
	}
	if (r->verb == SMTP_MAIL)
		s->times.mail = s->now - s->mail_at;
	if (r->verb == SMTP_RCPT)
		s->times.rcpt = s->now - s->rcpt_at;
	if (r->verb == SMTP_DATA && positive)
		begin_content(s);
	if (r->content_end && !r->more) {
		s->times.accept = s->now - s->sent_at;
		relay_end_transaction(s, NULL);
	}
	if (r->verb == SMTP_BDAT && !r->content_end && !positive && s->dialogue.lmtp)
		late_reset_server(s); /* how many replies a next chunk would have is not known */
	if (r->verb == SMTP_RSET && positive)
		relay_end_transaction(s, NULL);
	if (r->verb == SMTP_QUIT && positive)
		session_end(s, "client", "QUIT");
	else if (r->verb == SMTP_QUIT)
		s->quit = false;
}

/* The server says something while it is sent a message: it will not take it. Whatever it says, it has not seen the
 * end, so nothing of it can mean that the message was accepted. */
static void handle_early_reply(struct session *s, const struct dialogue_reply *r)
{
	char reply[560];
	int n = (int)(r->line.text_len < 480 ? r->line.text_len : 480);

	if (r->line.code >= 400)
		snprintf(reply, sizeof reply, "%d %.*s", r->line.code, n, (const char *)r->line.text);
	else
		snprintf(reply, sizeof reply, "451 4.5.0 %s: reply in the middle of a message", s->host);
	record_error(&s->view, reply);
	give_up_message(s, reply);
}

static void handle_violation(struct session *s, const char *why)
{
	char error[400];

	snprintf(error, sizeof error, "%s: %s", s->host, why);
	record_error(&s->view, error);
	if (dialogue_awaited(&s->dialogue) == SMTP_GREETING || s->stage == STAGE_OPEN) {
		upstream_failed(s, "4.5.0", why);
		return;
	}
	if (relay_outcome_due(s)) {
		s->silent = true;
		relay_end_transaction(s, "unknown");
	} else if (!s->silent) {
		session_replyf(s, "421 4.5.0 %s: %s", s->host, why);
	}
	upstream_close(s);
	session_end(s, "upstream", why);
	s->linger = true;
}

static void log_reply(struct session *s, const struct dialogue_reply *r, const char *direction)
{
	bool secret = r->verb == SMTP_AUTH || r->verb == SMTP_AUTH_RESPONSE;

	session_comm(s, direction, r->line.raw, secret && r->line.code == 334 ? 3 : r->line.raw_len);
}

/* A reply that nobody needs, or that must not come now. true: it is dealt with. */
static bool handle_out_of_turn(struct session *s, const struct dialogue_reply *r)
{
	bool idle = s->late && !s->bound && !s->auth_said, unneeded = idle && s->stage != STAGE_OPEN;

	if (r->line.code == 421 && (unneeded || (idle && r->verb == SMTP_NOTHING))) { /* it has waited long enough */
		if (r->line.last)
			relay_server_lost(s, "reply 421");
	} else if (r->violation && unneeded) {
		record_error(&s->view, r->violation);
		relay_server_lost(s, r->violation);
	} else if (((s->dialogue.client == DIALOGUE_DATA || keep_is_whole(s)) && r->verb == SMTP_NOTHING) ||
	    (s->dialogue.client == DIALOGUE_CHUNK && r->verb == SMTP_BDAT && s->dialogue.queued == 0) ||
	    (s->stage == STAGE_SEND && r->verb == SMTP_BDAT)) {
		handle_early_reply(s, r);
	} else if (r->violation) {
		handle_violation(s, r->violation);
	} else {
		return false;
	}
	return true;
}

static void handle_early_acceptance(struct session *s)
{
	dialogue_decide(&s->dialogue, 0, NULL, 0);
	s->silent = !s->server.lost; /* else it may have all of it after all, and have taken it */
	relay_end_transaction(s, s->server.lost ? "aborted" : "unknown");
	handle_violation(s, "a message was accepted before all of it was sent");
}

/* What is said next is not what it answers. Behind STARTTLS it is worse, see after_starttls(). */
static bool is_followed(const struct session *s, const struct dialogue_reply *r)
{
	return (s->stage == STAGE_OPEN || r->verb == SMTP_XCLIENT || r->verb == SMTP_XFORWARD) && r->line.last &&
	    s->dialogue.queued == 0 && leg_count(&s->server) && r->verb != SMTP_STARTTLS;
}

static void pass_reply(struct session *s, const struct dialogue_reply *r)
{
	relay_pass(s, r);
	if (r->content_end && !s->dialogue.lmtp)
		relay_repeat(s, NULL);
	after_reply(s, r);
}

/* The last line of a reply to a command of ours, after the greeting. */
static void handle_own(struct session *s, const struct dialogue_reply *r)
{
	bool goes_on = r->line.code != 421;

	if (r->verb == SMTP_XFORWARD && goes_on)
		identity_forwarded(s, r);
	else if (s->stage == STAGE_OPEN && (r->verb == SMTP_MAIL || r->verb == SMTP_XFORWARD))
		late_mail_answered(s, r);
	else if (!goes_on)
		pass_reply(s, r);
	else if (s->stage == STAGE_ASK && r->verb == SMTP_DATA)
		keep_data_answered(s, r);
}

static void handle_reply(struct session *s, const struct dialogue_reply *r)
{
	bool ours = r->hidden || s->greet != GREET_NONE, last = r->line.last;

	if (handle_out_of_turn(s, r))
		return;
	hold_line(s, r, !ours || s->stage == STAGE_ASK);
	if (r->content_end && r->line.code < 400 && (leg_pending(&s->server) || s->server.lost || s->early)) {
		handle_early_acceptance(s);
		return;
	}
	log_reply(s, r, ours ? "|<" : "<-");
	if (is_followed(s, r)) {
		handle_violation(s, "a reply that nothing was asked for");
	} else if (r->verb == SMTP_GREETING || s->greet != GREET_NONE) {
		upstream_reply(s, r);
		if (last && r->line.code == 421 && s->state == SERVER_OPEN)
			end_by_server(s);
	} else if (last && r->hidden) {
		handle_own(s, r);
	} else if (last && r->verb == SMTP_DATA && r->line.code == 354 && !s->dialogue.tx.accepted) {
		refuse_without_recipients(s);
	} else if (last && (r->verb != SMTP_STARTTLS || secure_answered(s, r->line.code))) {
		pass_reply(s, r);
	}
}

/* A reply to a chunk that is still being sent waits until the chunk is through, else both would be out of step. */
static bool may_handle_server(const struct session *s)
{
	if (s->ending || s->state != SERVER_OPEN || s->stage == STAGE_TUNNEL || leg_write_room(&s->client) <= REPLY_ROOM)
		return false;
	if (s->stage == STAGE_SEND && s->chunked)
		return s->server.eof;
	return s->dialogue.client != DIALOGUE_CHUNK || dialogue_awaited(&s->dialogue) != SMTP_BDAT ||
	    s->dialogue.queued > 1 || s->server.eof;
}

void relay_server(struct session *s)
{
	struct dialogue_reply r;
	size_t used;

	local_replies(s);
	s->server_starved = false;
	while (may_handle_server(s)) {
		s->server_starved = !dialogue_server_next(&s->dialogue, leg_bytes(&s->server),
		    leg_count(&s->server), &used, &r);
		if (s->server_starved)
			break;
		leg_consume(&s->server, used); /* the line stays where it is until the next read */
		s->active_at = s->now;
		s->handled++;
		s->replies += r.line.last;
		handle_reply(s, &r);
		local_replies(s);
	}
}
