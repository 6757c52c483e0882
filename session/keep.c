/* Messages that are kept here until they are whole: for hooks to judge, or because a server without CHUNKING wants to be
 * sent the end of a message last. Only then the server hears of them. See session.h.
 */
#define _GNU_SOURCE
#include "session/session.h"

#include <stdio.h>
#include <string.h>

#define SEND_MAX (128 << 10) /* octets at a time to the server */
#define SMALL (16 << 10)     /* what is left goes together with the final dot */

/* The client has sent all of a message that has not gone on to the server. */
bool keep_is_whole(const struct session *s)
{
	return s->keeping && !dialogue_in_content(&s->dialogue) && s->stage != STAGE_NONE;
}

/* ---- from the client ---- */

/* For hooks, or because a server without CHUNKING wants to be sent the end of a message last. */
bool keep_wants(const struct session *s, const struct smtp_command *cmd)
{
	if (cmd->verb != SMTP_DATA && cmd->verb != SMTP_BDAT)
		return false;
	return filter_wants(s, HOOK_DATA) ||
	    (cmd->verb == SMTP_BDAT && s->late && !(s->dialogue.ehlo.extensions & SMTP_EXT_CHUNKING));
}

void keep_begin(struct session *s, const struct smtp_command *cmd)
{
	if (!s->keeping)
		message_begin(&s->message);
	s->keeping = true;
	relay_begin_octets(s);
	if (cmd->verb == SMTP_BDAT) {
		dialogue_keep_chunk(&s->dialogue, cmd);
		return;
	}
	session_reply(s, "354 End data with <CR><LF>.<CR><LF>");
	dialogue_begin_data(&s->dialogue, true);
}

/* A message that stays here: the client's reply, and the server is to forget the envelope. */
void keep_end(struct session *s, const char *result)
{
	late_reset_server(s);
	relay_end_transaction(s, result);
	s->stage = STAGE_NONE;
}

static void refuse_kept(struct session *s, const char *reply)
{
	struct smtp_line line;

	session_reply(s, reply);
	if (smtp_parse_reply((const unsigned char *)reply, strlen(reply), &line))
		dialogue_decide(&s->dialogue, line.code, line.text, line.text_len);
	relay_repeat(s, reply);
	keep_end(s, NULL);
}

static bool has_bare_newline(const struct message *m)
{
	struct smtp_scanner scanner = { .plain = true, .unstuff = true };
	struct smtp_piece piece;
	size_t at = 0, used;

	while (at < m->size && !scanner.broken && smtp_scan(&scanner, m->bytes + at, m->size - at, &used, &piece))
		at += used;
	return scanner.broken || (at < m->size && m->bytes[m->size - 1] == '\r');
}

/* It may go on: by BDAT if it came so and the server knows it, else by DATA, RFC 3030 2. */
void keep_pass(struct session *s)
{
	const struct dialogue *d = &s->dialogue;
	const char *trace = "";
	size_t traced;
	bool eightbit = (d->ehlo.extensions & SMTP_EXT_8BITMIME) || !s->late;
	char line[48];
	int n;

	s->sent = 0;
	s->chunked = d->tx.chunks && (d->ehlo.extensions & SMTP_EXT_CHUNKING);
	if (d->tx.chunks && !s->chunked && has_bare_newline(&s->message)) {
		refuse_kept(s, "554 5.6.1 The recipient's server cannot be sent a bare carriage return or line feed");
		return;
	}
	if (!eightbit && !smtp_is_seven_bit(s->message.bytes, s->message.size)) { /* RFC 6152 3 */
		refuse_kept(s, "554 5.6.3 The recipient's server does not know 8BITMIME");
		return;
	}
	if (!s->chunked) {
		s->stage = STAGE_ASK;
		relay_own_command(s, SMTP_DATA, "DATA", 4);
		return;
	}
	s->times.data = s->now - s->connected_at;
	traced = identity_trace(s, &trace); /* once: a second call may write another date */
	n = snprintf(line, sizeof line, "BDAT %llu LAST\r\n", (unsigned long long)s->message.size + traced);
	session_comm(s, "|>", line, (size_t)n - 2);
	leg_write(&s->server, line, (size_t)n);
	leg_write(&s->server, trace, traced);
	dialogue_sent(&s->dialogue, &(struct smtp_command){ .verb = SMTP_BDAT, .last = true });
	s->dialogue.client = DIALOGUE_COMMAND; /* its octets do not come from the client */
	s->stage = STAGE_SEND;
}

/* The reply to the DATA of a kept message: if it is no 354, it is the client's. */
void keep_data_answered(struct session *s, const struct dialogue_reply *r)
{
	if (r->line.code == 354) {
		identity_send_trace(s);
		s->times.data = s->now - s->connected_at;
		s->stage = STAGE_SEND;
		return;
	}
	relay_pass(s, r);
	relay_repeat(s, NULL);
	keep_end(s, NULL);
	s->handled++;
}

/* All of it is written: now, and only now, it is the server's to take or to refuse. */
static void end_sending(struct session *s)
{
	static const char end[] = "\r\n.\r\n";
	const struct message *m = &s->message;
	bool ended = !m->size || m->bytes[m->size - 1] == '\n';

	if (!s->chunked) {
		leg_write(&s->server, end + (ended ? 2 : 0), sizeof end - 1 - (ended ? 2 : 0));
		dialogue_expect(&s->dialogue, SMTP_CONTENT, false);
	}
	s->stage = STAGE_NONE;
	s->dialogue.tx.complete = true;
	s->early = s->dialogue.queued <= 1 && (leg_count(&s->server) || leg_has_more(&s->server));
	s->sent_at = s->now;
	message_drop(&s->message);
}

/* The end of a message, or all of a small one, waits for what follows it, so that it is one segment and one system call. */
static void write_run(struct session *s, const unsigned char *bytes, size_t n)
{
	if (s->message.size - s->sent > SMALL) {
		leg_write(&s->server, bytes, n);
		return;
	}
	memcpy(leg_room(&s->server, n), bytes, n);
	leg_wrote(&s->server, n);
}

void keep_send(struct session *s)
{
	const struct message *m = &s->message;

	while (s->stage == STAGE_SEND && s->state == SERVER_OPEN && !s->server.broken && !s->server.blocked &&
	    leg_write_room(&s->server) > SEND_MAX + 8) {
		const unsigned char *at = m->bytes + s->sent;
		size_t n = (size_t)(m->size - s->sent), run;

		if (!n) {
			end_sending(s);
			return;
		}
		n = n < SEND_MAX ? n : SEND_MAX;
		run = s->chunked ? n : smtp_dot_free(at, n);
		if (!s->chunked && *at == '.' && (!s->sent || (s->sent > 1 && at[-1] == '\n' && at[-2] == '\r')))
			leg_write(&s->server, ".", 1);
		write_run(s, at, run);
		s->sent += run;
		s->active_at = s->now;
	}
}

/* All of a kept message is there. */
static void end_keeping(struct session *s)
{
	if (s->dialogue.client == DIALOGUE_DATA)
		dialogue_end_data(&s->dialogue);
	if (s->spoiled)
		refuse_kept(s, s->spoiled);
	else if (!message_seal(&s->message))
		refuse_kept(s, "452 4.3.1 No room for a message of this size");
	else if (filter_wants(s, HOOK_DATA))
		filter_run(s, HOOK_DATA);
	else
		keep_pass(s);
}

void keep_piece(struct session *s, const struct smtp_piece *piece)
{
	s->spoiled = s->spoiled ? s->spoiled : relay_fault(s);
	if (!s->spoiled) {
		smtp_header_scan(&s->dialogue.tx.header, piece->bytes, piece->len);
		message_add(&s->message, piece->bytes, piece->len);
	}
	if (!piece->end)
		return;
	if (s->dialogue.tx.chunks && !s->dialogue.chunk_last)
		session_reply(s, "250 2.0.0 Go on");
	else
		end_keeping(s);
}
