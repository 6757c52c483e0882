/* What a session says to either side, and writes down of it: the floor that all rooms of a session stand on. */
#define _GNU_SOURCE
#include "session/session.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SECOND INT64_C(1000000)

static unsigned char held[HELD_MAX];

int64_t clock_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND + t.tv_nsec / 1000;
}

void session_tick(struct session *s)
{
	s->now = clock_us();
}

void session_comm(struct session *s, const char *direction, const void *bytes, size_t n)
{
	if (log_detailed())
		record_comm(&s->view, direction, bytes, n);
}

void session_reply(struct session *s, const char *reply)
{
	struct smtp_line parsed;
	size_t n = strlen(reply) + 6;
	unsigned char *line;

	if (s->client.broken || s->silent || !smtp_parse_reply((const unsigned char *)reply, strlen(reply), &parsed))
		return;
	line = leg_room(&s->client, n);
	n = smtp_reply_write(parsed.code, parsed.last, parsed.text, parsed.text_len, line, n);
	session_comm(s, "<|", line, n - 2);
	leg_wrote(&s->client, n);
	s->active_at = s->now;
}

void session_replyf(struct session *s, const char *format, ...)
{
	char reply[500];
	va_list args;

	va_start(args, format);
	vsnprintf(reply, sizeof reply, format, args);
	va_end(args);
	session_reply(s, reply);
}

void session_end(struct session *s, const char *by, const char *reason)
{
	if (s->ending)
		return;
	s->ending = true;
	s->end_at = s->now;
	s->totals.by = by;
	s->totals.reason = reason;
}

bool relay_outcome_due(const struct session *s)
{
	const struct dialogue *d = &s->dialogue;

	return s->state == SERVER_OPEN && d->tx.complete && !s->server.lost && dialogue_awaited(d) != SMTP_NOTHING;
}

static const char *result_of(const struct dialogue_transaction *tx)
{
	int code = tx->decision.code;

	if (code)
		return code >= 500 ? "rejected" : code >= 400 ? "deferred" : "accepted";
	if (!tx->rcpts || tx->accepted || tx->unanswered)
		return "aborted";
	for (uint32_t i = 0; i < tx->rcpts; i++)
		if (tx->rcpt[i].code < 500)
			return "deferred";
	return "rejected";
}

void relay_end_transaction(struct session *s, const char *result)
{
	struct dialogue_transaction *tx = &s->dialogue.tx;

	if (tx->mail == DIALOGUE_NO_MAIL)
		return;
	result = result ? result : result_of(tx);
	if (strcmp(result, "accepted") == 0) {
		s->totals.messages++;
		s->totals.recipients += tx->accepted;
	}
	record_message(&s->view, result, &s->times);
	dialogue_end_transaction(&s->dialogue);
	message_drop(&s->message);
	s->keeping = s->bound = false;
	s->spoiled = NULL;
	s->text->unreachable_why[0] = 0;
	s->times.mail = s->times.rcpt = s->times.data = s->times.accept = -1;
}

void relay_own_command(struct session *s, enum smtp_verb verb, const char *line, size_t n)
{
	session_comm(s, "|>", line, n);
	leg_write(&s->server, line, n);
	leg_write(&s->server, "\r\n", 2);
	dialogue_expect(&s->dialogue, verb, true);
}

void local_replies(struct session *s)
{
	const char *reply;

	while ((reply = dialogue_local_reply(&s->dialogue)))
		session_reply(s, reply);
}

void relay_repeat(struct session *s, const char *reply)
{
	const struct dialogue_decision *decision = &s->dialogue.tx.decision;
	char line[sizeof decision->text + 8];

	snprintf(line, sizeof line, "%d %.*s", decision->code, (int)decision->text_len, (const char *)decision->text);
	for (uint32_t due = dialogue_replies_due(&s->dialogue); due > 1; due--)
		session_reply(s, reply ? reply : line);
}

/* Octets of a message come next from the client. */
void relay_begin_octets(struct session *s)
{
	s->content_at = s->client_read_at = s->now;
	s->content_from = s->client.received;
	s->early = false;
}

/* Why a message in DATA cannot go on, as far as it is known; NULL: it can. */
const char *relay_fault(const struct session *s)
{
	const struct dialogue *d = &s->dialogue;
	uint64_t limit = s->o->limits.message_size;

	if (d->client != DIALOGUE_DATA)
		return NULL;
	if (limit && d->tx.octets > limit)
		return "552 5.3.4 Message is larger than this server takes";
	if (d->scanner.broken && s->o->limits.newline == SMTP_NL_REJECT)
		return "554 5.6.0 A bare carriage return or line feed is not allowed in a message";
	return NULL;
}

static void pass_line(struct session *s, const struct smtp_line *line)
{
	size_t n = line->text_len + 6;

	if (!s->client.broken)
		leg_wrote(&s->client,
		    smtp_reply_write(line->code, line->last, line->text, line->text_len, leg_room(&s->client, n), n));
}

void relay_pass(struct session *s, const struct dialogue_reply *r)
{
	leg_write(&s->client, held, s->held_reply);
	s->held_reply = 0;
	pass_line(s, &r->line);
}

/* Lines of a reply are kept until the last one is in: a reply that breaks off, or turns out to be none, must not have
 * begun to look like a success. One of enormous length goes on in parts. */
void hold_line(struct session *s, const struct dialogue_reply *r, bool for_client)
{
	size_t n;

	if (r->first)
		s->held_reply = 0;
	if (r->line.last || r->list) /* the latter becomes one of ours */
		return;
	n = smtp_reply_write(r->line.code, r->line.last, r->line.text, r->line.text_len, held + s->held_reply,
	    sizeof held - s->held_reply);
	if (n) {
		s->held_reply += n;
		return;
	}
	if (for_client)
		relay_pass(s, r);
	s->held_reply = 0;
}

/* A reply of ours to the held command, nothing being owed before it. */
void reply_wrapped(struct session *s, int code, const uint16_t enhanced[3], const unsigned char *text, size_t n)
{
	unsigned char *out;
	size_t len;

	if (s->client.broken)
		return;
	out = leg_room(&s->client, SMTP_WRAP_MAX);
	len = smtp_reply_wrap(code, enhanced, text, n, out, SMTP_WRAP_MAX);
	session_comm(s, "<|", out, len - 2);
	leg_wrote(&s->client, len);
	s->active_at = s->now;
}

const char *upstream_own_name(const struct session *s)
{
	static char name[256];

	if (!name[0] && gethostname(name, sizeof name - 1) < 0)
		strcpy(name, "localhost");
	return s->o->hostname ? s->o->hostname : name;
}

void late_reset_server(struct session *s)
{
	if (s->state == SERVER_OPEN && (!s->late || s->bound))
		relay_own_command(s, SMTP_RSET, "RSET", 4);
	s->bound = false;
}

bool filter_wants(const struct session *s, enum hook_event event)
{
	return s->hooks->events & 1u << event;
}
