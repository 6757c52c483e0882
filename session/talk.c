/* What smtpwarp itself says, and the end of the session. See talk.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "session/talk.h"
#include "io/log.h"
#include "session/observe.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static unsigned char gathered[TALK_GATHERED];

const char *talk_own_name(const struct session *s)
{
	static char name[256];

	if (!name[0] && (gethostname(name, sizeof name - 1) < 0 || !endpoint_is_host(name))) /* "(none)": the kernel was given no name */
		strcpy(name, "localhost");
	return s->o->hostname ? s->o->hostname : name;
}

void talk_comm(struct session *s, enum record_direction direction, const void *bytes, size_t n)
{
	if (log_detailed())
		record_comm(s, direction, bytes, n);
}

void talk_comm_answer(struct session *s, enum record_direction direction)
{
	static const char note[] = "(answer to AUTH)";

	talk_comm(s, direction, note, sizeof note - 1);
}

void talk_quote(const struct smtp_line *line, char *out, size_t cap)
{
	snprintf(out, cap, "%d %.*s", line->code, (int)(line->text_len < cap ? line->text_len : cap), (const char *)line->text);
}

/* ---- to the client ---- */

void talk_reply(struct session *s, const char *reply)
{
	struct smtp_line parsed;
	size_t n = strlen(reply) + 6;
	unsigned char *line;

	if (s->client.leg.broken || s->end.how == END_SILENT || s->gate.stage == GATE_TUNNEL ||
	    !smtp_parse_reply((const unsigned char *)reply, strlen(reply), &parsed))
		return;
	line = leg_room(&s->client.leg, n);
	n = smtp_reply_write(parsed.code, parsed.last, parsed.text, parsed.text_len, line, n);
	talk_comm(s, COMM_ANSWERED, line, n - 2);
	leg_wrote(&s->client.leg, n);
}

void talk_replyf(struct session *s, const char *format, ...)
{
	char reply[500];
	va_list args;

	va_start(args, format);
	vsnprintf(reply, sizeof reply, format, args);
	va_end(args);
	talk_reply(s, reply);
}

void talk_wrapped(struct session *s, int code, const uint16_t enhanced[3], const unsigned char *text, size_t n)
{
	unsigned char *out;
	size_t len;

	if (s->client.leg.broken)
		return;
	out = leg_room(&s->client.leg, SMTP_WRAP_MAX);
	len = smtp_reply_wrap(code, enhanced, text, n, out, SMTP_WRAP_MAX);
	talk_comm(s, COMM_ANSWERED, out, len - 2);
	leg_wrote(&s->client.leg, len);
}

void talk_local_replies(struct session *s)
{
	const char *reply;

	while ((reply = dialogue_local_reply(&s->dialogue)))
		talk_reply(s, reply);
}

void talk_count_refusal(struct session *s, const char *reply, bool fatal)
{
	s->errors += *reply == '5';
	if (!fatal && (!s->o->max_errors || s->errors < s->o->max_errors))
		return;
	observe_limit(STATEMAP_LIMIT_ERRORS);
	talk_end(s, END_AFTER_REPLIES, END_BY_SMTPWARP, "bad commands");
	dialogue_refuse(&s->dialogue, &(struct smtp_command){ .verb = SMTP_UNKNOWN },
	    "421 4.7.0 Too many bad commands, or one too bad");
}

void talk_repeat(struct session *s, const char *reply)
{
	const struct dialogue_decision *decision = &s->dialogue.tx.decision;
	char line[sizeof decision->text + 8];

	snprintf(line, sizeof line, "%d %.*s", decision->code, (int)decision->text_len, (const char *)decision->text);
	for (uint32_t due = dialogue_replies_due(&s->dialogue); due > 1; due--)
		talk_reply(s, reply ? reply : line);
}

static void pass_line(struct session *s, const struct smtp_line *line)
{
	size_t n = line->text_len + 6;

	if (!s->client.leg.broken)
		leg_wrote(&s->client.leg,
		    smtp_reply_write(line->code, line->last, line->text, line->text_len, leg_room(&s->client.leg, n), n));
}

/* The code of the last line is that of all: clients may go by any of them, RFC 5321 4.2.1. */
static void put_code(unsigned char *lines, size_t n, const unsigned char code[3])
{
	while (n) {
		size_t len = smtp_find_line(lines, n);

		memcpy(lines, code, 3);
		lines += len;
		n -= len;
	}
}

void talk_gathered(const struct session *s, struct reply_line *line)
{
	struct smtp_line l;
	size_t n;

	for (size_t at = 0; at < s->gathered; at += n) {
		n = smtp_find_line(gathered + at, s->gathered - at);
		if (smtp_parse_reply(gathered + at, n, &l))
			replyclass_add(line, l.code, l.text, l.text_len);
	}
}

void talk_pass(struct session *s, const struct dialogue_reply *r)
{
	put_code(gathered, s->gathered, r->line.raw);
	leg_write(&s->client.leg, gathered, s->gathered);
	s->gathered = 0;
	pass_line(s, &r->line);
}

const char *talk_refusal(const char *what, const struct smtp_line *line)
{
	static char words[200];
	char quoted[TALK_QUOTE(160)];

	talk_quote(line, quoted, sizeof quoted);
	snprintf(words, sizeof words, "%s %s", what, quoted);
	return words;
}

void talk_gather(struct session *s, const struct dialogue_reply *r, bool for_client)
{
	size_t n;

	if (r->first)
		s->gathered = 0;
	if (r->line.last || r->list) /* a list of extensions becomes one of ours */
		return;
	n = smtp_reply_write(r->line.code, r->line.last, r->line.text, r->line.text_len, gathered + s->gathered,
	    sizeof gathered - s->gathered);
	if (n) {
		s->gathered += n;
		return;
	}
	if (for_client)
		talk_pass(s, r);
	s->gathered = 0;
}

/* ---- to the server ---- */

void talk_own_command(struct session *s, enum smtp_verb verb, const char *line, size_t n)
{
	talk_comm(s, COMM_OWN, line, n);
	leg_write(&s->server.leg, line, n);
	leg_write(&s->server.leg, "\r\n", 2);
	dialogue_expect(&s->dialogue, verb, true);
}

/* ---- the end ---- */

bool talk_ended(const struct session *s)
{
	return s->end.how > END_AFTER_REPLIES;
}

void talk_end(struct session *s, enum end_how how, enum end_by by, const char *reason)
{
	if (talk_ended(s) || how == s->end.how)
		return;
	if (s->gate.stage == GATE_TUNNEL) /* a reply in clear text has no place in TLS */
		how = END_SILENT;
	s->end.how = how;
	s->end.by = by;
	s->end.reason = reason;
	s->end.at = s->now;
}

void talk_bye(struct session *s)
{
	talk_reply(s, "221 2.0.0 Bye");
	talk_end(s, END_FLUSH, END_BY_CLIENT, "QUIT");
}

void talk_over(struct session *s)
{
	s->end.over = s->now;
	s->end.dropped = log_dropped();
}
