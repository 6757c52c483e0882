/* The octets of a message. See maildata.h for the contract.
 *
 * A message that has begun to pass through cannot be taken back by a command: when it must not reach the server after all, the connection
 * is closed before the final dot, so that the server throws it away (RFC 5321 4.1.1.10).
 */
#define _GNU_SOURCE
#include "session/maildata.h"
#include "session/filter.h"
#include "session/gate.h"
#include "session/refusal.h"
#include "session/server.h"
#include "session/serverstate.h"
#include "session/talk.h"
#include "session/trace.h"
#include "session/transaction.h"

#include <stdio.h>
#include <string.h>

#define SEND_MAX (128 << 10) /* octets that are sent to the server at a time */
#define SMALL (16 << 10)     /* so few octets wait for the final dot */

static const char not_eightbit[] = "554 5.6.3 The recipient's server does not know 8BITMIME"; /* RFC 6152 3 */

/* Whether the server takes octets above 127. Only where MAIL is sent late may the client send them to one that does not: it was
 * offered 8BITMIME before the server had been asked, or had TLS. */
static bool takes_eightbit(const struct session *s)
{
	return !s->o->limits.mail_late || (s->dialogue.ehlo.extensions & SMTP_EXT_8BITMIME);
}

/* ---- drained ---- */

static void drain(struct session *s, const char *reply)
{
	transaction_drain(s, reply);
	trace_forget(s);
	server_close(s);
	dialogue_forget_server(&s->dialogue);
}

static void end_drain(struct session *s)
{
	const char *reply = s->tx.drained;
	struct smtp_line line = { .code = 451 };

	transaction_enter(s, CONTENT_NONE);
	if (s->dialogue.client == DIALOGUE_DATA)
		dialogue_end_data(&s->dialogue);
	talk_reply(s, reply);
	smtp_parse_reply((const unsigned char *)reply, strlen(reply), &line);
	dialogue_decide(&s->dialogue, line.code, line.text, line.text_len);
	refusal_early_decided(s);
	if (!s->dialogue.tx.chunks || s->dialogue.chunk_last)
		talk_repeat(s, NULL);
	transaction_end(s, TRANSACTION_BY_REPLIES);
	if (line.code == 421)
		talk_end(s, END_LINGER, END_BY_SERVER, talk_refusal("reply", &line));
}

void maildata_give_up(struct session *s, const char *reply)
{
	drain(s, reply);
	if (dialogue_in_content(&s->dialogue))
		return;
	filter_abort(s);
	if (s->gate.stage != GATE_OPEN)
		gate_enter(s, GATE_OPEN);
	end_drain(s);
}

/* ---- passed through ---- */

void maildata_passes(struct session *s)
{
	transaction_data_begins(s);
	transaction_octets_begin(s);
	transaction_enter(s, CONTENT_PASSING);
	dialogue_begin_data(&s->dialogue, false);
	trace_begin(s);
}

static void pass_piece(struct session *s, const struct smtp_piece *piece)
{
	const char *reply = transaction_fault(s);

	if (!reply && !takes_eightbit(s) && !smtp_is_seven_bit(piece->bytes, piece->len))
		reply = not_eightbit;
	if (reply) {
		drain(s, reply);
		return;
	}
	dialogue_scan(&s->dialogue, piece->bytes, piece->len);
	trace_pass(s, piece->bytes, piece->len, piece->end);
}

static void end_passing(struct session *s)
{
	struct dialogue *d = &s->dialogue;

	if (d->client == DIALOGUE_DATA) {
		dialogue_end_data(d);
		dialogue_complete(d);
		dialogue_expect(d, SMTP_CONTENT, false);
	}
	transaction_content_sent(s);
}

/* ---- kept: from the client ---- */

bool maildata_is_kept(const struct session *s, const struct smtp_command *cmd)
{
	if (cmd->verb != SMTP_DATA && cmd->verb != SMTP_BDAT)
		return false;
	return filter_wants(s, HOOK_DATA) || (cmd->verb == SMTP_BDAT && s->o->limits.on_recipient &&
	    !(s->dialogue.ehlo.extensions & SMTP_EXT_CHUNKING));
}

void maildata_keep(struct session *s, const struct smtp_command *cmd)
{
	transaction_keep(s);
	if (cmd->verb == SMTP_BDAT) {
		dialogue_keep_chunk(&s->dialogue, cmd);
		return;
	}
	talk_reply(s, "354 End data with <CR><LF>.<CR><LF>");
	dialogue_begin_data(&s->dialogue, true);
}

void maildata_end(struct session *s, enum transaction_result result)
{
	transaction_reset_server(s);
	transaction_end(s, result);
	if (s->gate.stage == GATE_KEPT)
		gate_enter(s, GATE_OPEN);
}

static void refuse_kept(struct session *s, const char *reply)
{
	struct smtp_line line;

	talk_reply(s, reply);
	if (smtp_parse_reply((const unsigned char *)reply, strlen(reply), &line))
		dialogue_decide(&s->dialogue, line.code, line.text, line.text_len);
	talk_repeat(s, reply);
	maildata_end(s, TRANSACTION_BY_REPLIES);
}

/* All of a kept message is here: refuse it if it is spoiled, or if there was no room. true: it may be judged. */
static bool end_keeping(struct session *s)
{
	if (s->dialogue.client == DIALOGUE_DATA)
		dialogue_end_data(&s->dialogue);
	if (s->tx.content == CONTENT_SPOILED)
		refuse_kept(s, s->tx.spoiled);
	else if (!transaction_seal(s))
		refuse_kept(s, transaction_no_memory);
	else
		return true;
	return false;
}

static bool keep_piece(struct session *s, const struct smtp_piece *piece)
{
	const char *fault = transaction_fault(s);

	if (s->tx.content != CONTENT_SPOILED) {
		if (!fault) {
			dialogue_scan(&s->dialogue, piece->bytes, piece->len);
			fault = transaction_add(s, piece->bytes, piece->len);
		}
		if (fault)
			transaction_spoil(s, fault);
	}
	if (!piece->end)
		return false;
	if (!s->dialogue.tx.chunks || s->dialogue.chunk_last)
		return end_keeping(s);
	talk_reply(s, "250 2.0.0 Go on");
	return false;
}

bool maildata_piece(struct session *s, const struct smtp_piece *piece)
{
	if (transaction_is_kept(s))
		return keep_piece(s, piece);
	if (s->tx.content != CONTENT_DRAINING)
		pass_piece(s, piece);
	if (piece->end && s->tx.content == CONTENT_DRAINING)
		end_drain(s);
	else if (piece->end)
		end_passing(s);
	return false;
}

/* ---- kept: to the server ---- */

/* Why the kept message cannot be sent to this server: a reply in static storage; NULL: it can. */
static const char *unfit(const struct session *s, bool chunked)
{
	const struct message *m = &s->tx.message;

	if (s->dialogue.tx.chunks && !chunked && message_has_bare_newline(m))
		return "554 5.6.1 The recipient's server cannot be sent a bare carriage return or line feed";
	if ((!takes_eightbit(s) || (s->tx.made_eightbit && !(s->dialogue.ehlo.extensions & SMTP_EXT_8BITMIME))) &&
	    !smtp_is_seven_bit(m->bytes, m->size))
		return not_eightbit;
	return NULL;
}

static void send_chunk(struct session *s)
{
	char line[48];
	int n = snprintf(line, sizeof line, "BDAT %llu LAST\r\n", (unsigned long long)s->tx.message.size + trace_begin(s));

	transaction_data_begins(s);
	talk_comm(s, COMM_OWN, line, (size_t)n - 2);
	leg_write(&s->server.leg, line, (size_t)n);
	dialogue_sent_kept(&s->dialogue);
	transaction_enter(s, CONTENT_SENDING_CHUNK);
	transaction_progress(s, trace_send(s, &s->tx.message));
}

void maildata_send_kept(struct session *s)
{
	bool chunked = s->dialogue.tx.chunks && (s->dialogue.ehlo.extensions & SMTP_EXT_CHUNKING);
	const char *reply = unfit(s, chunked);

	if (reply) {
		refuse_kept(s, reply);
		return;
	}
	gate_enter(s, GATE_KEPT);
	if (chunked) {
		send_chunk(s);
		return;
	}
	transaction_enter(s, CONTENT_ASKED);
	talk_own_command(s, SMTP_DATA, "DATA", 4);
	transaction_sent(s, SMTP_DATA);
}

void maildata_data_answered(struct session *s, const struct dialogue_reply *r)
{
	if (r->line.code == 354) {
		transaction_data_begins(s);
		transaction_enter(s, CONTENT_SENDING);
		trace_begin(s);
		transaction_progress(s, trace_send(s, &s->tx.message));
		return;
	}
	talk_pass(s, r);
	talk_repeat(s, NULL);
	maildata_end(s, TRANSACTION_BY_REPLIES);
}

/* All of the kept message was written: end it. From now on only the server knows its outcome. */
static void end_sending(struct session *s)
{
	static const char end[] = "\r\n.\r\n";
	const struct message *m = &s->tx.message;
	bool ended = !m->size || m->bytes[m->size - 1] == '\n';

	if (s->tx.content == CONTENT_SENDING) {
		leg_write(&s->server.leg, end + (ended ? 2 : 0), sizeof end - 1 - (ended ? 2 : 0));
		dialogue_expect(&s->dialogue, SMTP_CONTENT, false);
	}
	dialogue_complete(&s->dialogue);
	transaction_content_sent(s);
	gate_enter(s, GATE_OPEN);
}

/* The last octets of a message, or all of a small one, are only buffered: with the final dot they make one segment and one system call. */
static void write_run(struct session *s, const unsigned char *bytes, size_t n)
{
	if (s->tx.message.size - s->tx.sent > SMALL) {
		leg_write(&s->server.leg, bytes, n);
		return;
	}
	memcpy(leg_room(&s->server.leg, n), bytes, n);
	leg_wrote(&s->server.leg, n);
}

/* Send some of the kept message; by DATA with a dot before each line that begins with one (RFC 5321 4.5.2). */
static void send_run(struct session *s)
{
	const struct message *m = &s->tx.message;
	const unsigned char *at = m->bytes + s->tx.sent;
	size_t left = (size_t)(m->size - s->tx.sent), n = left < SEND_MAX ? left : SEND_MAX;
	bool stuffed = s->tx.content == CONTENT_SENDING;

	if (stuffed && *at == '.' && (!s->tx.sent || (s->tx.sent > 1 && at[-1] == '\n' && at[-2] == '\r')))
		leg_write(&s->server.leg, ".", 1);
	if (stuffed)
		n = smtp_dot_free(at, n);
	write_run(s, at, n);
	transaction_progress(s, n);
}

static bool may_send(const struct session *s)
{
	const struct leg *server = &s->server.leg;
	bool sending = s->tx.content == CONTENT_SENDING || s->tx.content == CONTENT_SENDING_CHUNK;

	return sending && serverstate_is_open(s) && !server->broken && !server->blocked && leg_write_room(server) > SEND_MAX + 8;
}

bool maildata_send(struct session *s)
{
	bool sent = false;

	while (may_send(s)) {
		sent = true;
		if (s->tx.sent == s->tx.message.size) {
			end_sending(s);
			break;
		}
		send_run(s);
	}
	return sent;
}
