/* The smallest session that obeys dialogue.h: it refuses what dialogue_check refuses, sends the rest, answers 354 with
 * a message, and checks what must hold after every step. unit_dialogue.c and both fuzzers drive it; the first writes
 * down what happens. CHECK aborts unless it is defined already, so that a fuzzer keeps the input. */
#ifndef MINIMAL_SESSION_H
#define MINIMAL_SESSION_H

#include <stdlib.h>
#include <string.h>

#include "pure/dialogue.h"

#ifndef CHECK
#define CHECK(condition) ((condition) ? (void)0 : abort())
#endif

struct minimal_session {
	struct dialogue d;
	void (*note)(const char *event, const unsigned char *bytes, size_t n); /* NULL: nobody listens */
	bool over;			/* the server broke the protocol */
	bool deaf;			/* a command was fatal: nothing more is read from the client */
	bool lone_dot;			/* 354 came though no recipient was accepted */
	unsigned char last;		/* octet of the message that went on */
	enum { MINIMAL_START, MINIMAL_DOT, MINIMAL_OTHER } line; /* of that message, NULs left out */
};

static inline void minimal_note(struct minimal_session *m, const char *event, const void *bytes, size_t n)
{
	if (m->note)
		m->note(event, bytes, n);
}

static inline void minimal_note_code(struct minimal_session *m, const char *event, int code)
{
	unsigned char digits[3] = { (unsigned char)('0' + code / 100), (unsigned char)('0' + code / 10 % 10),
		(unsigned char)('0' + code % 10) };

	minimal_note(m, event, digits, sizeof digits);
}

/* dialogue_init wants zeroed storage; the recipients and their text are never looked at before they are written. */
static inline void minimal_init(struct minimal_session *m, const struct dialogue_limits *limits,
    void (*note)(const char *, const unsigned char *, size_t))
{
	memset(&m->d, 0, offsetof(struct dialogue, tx.rcpt));
	memset(&m->d.tx.header, 0, sizeof m->d.tx.header);
	memset(&m->d.tx.decision, 0, sizeof m->d.tx.decision);
	m->note = note;
	m->over = m->deaf = m->lone_dot = false;
	dialogue_init(&m->d, limits);
}

static inline void minimal_invariants(const struct minimal_session *m)
{
	const struct dialogue_transaction *tx = &m->d.tx;

	CHECK(m->d.queued <= DIALOGUE_QUEUE_MAX && m->d.head < DIALOGUE_QUEUE_MAX);
	CHECK(m->d.queued <= (m->d.limits.pipeline ? m->d.limits.pipeline : 1));
	CHECK(tx->text_len <= DIALOGUE_TEXT_MAX);
	CHECK(tx->rcpts <= m->d.limits.recipients && tx->rcpts <= DIALOGUE_RCPT_MAX);
	CHECK(tx->accepted + tx->unanswered <= tx->rcpts && tx->settled <= tx->rcpts);
	if (m->d.lmtp && !m->d.lmtp_client) /* whose one reply is for one recipient */
		CHECK(tx->accepted + tx->unanswered <= 1);
	CHECK(m->d.ehlo.text_len <= sizeof m->d.ehlo.text && m->d.ehlo.domain_len <= sizeof m->d.ehlo.domain);
	CHECK(m->d.user_len <= sizeof m->d.user && m->d.mech_len <= sizeof m->d.mech);
	if (m->d.client == DIALOGUE_DATA)
		CHECK(!m->d.queued);
	for (unsigned i = 0; i < m->d.queued; i++)
		CHECK(m->d.queue[(m->d.head + i) % DIALOGUE_QUEUE_MAX].replies > 0);
}

static inline bool minimal_within(const unsigned char *part, size_t len, const unsigned char *in, size_t n)
{
	return !len || (part >= in && part <= in + n && len <= (size_t)(in + n - part));
}

/* No server may find a line end, or an end, in the message that is not the client's. */
static inline void minimal_watch(struct minimal_session *m, const struct smtp_piece *piece)
{
	for (size_t i = 0; i < piece->len; i++) {
		unsigned char c = piece->bytes[i];

		CHECK((m->last == '\r') == (c == '\n'));
		if (c == '\n')
			CHECK(m->line != MINIMAL_DOT || (piece->end && i + 1 == piece->len));
		m->last = c;
		if (c == '\n')
			m->line = MINIMAL_START;
		else if (c && c != '\r')
			m->line = m->line == MINIMAL_START && c == '.' ? MINIMAL_DOT : MINIMAL_OTHER;
	}
	CHECK(!piece->end || (piece->len >= 3 && memcmp(piece->bytes + piece->len - 3, ".\r\n", 3) == 0));
}

static inline void minimal_piece(struct minimal_session *m, const struct smtp_piece *piece, const unsigned char *in, size_t used,
    bool data)
{
	CHECK(minimal_within(piece->bytes, piece->len, in, used) || (data && piece->len <= 4));
	if (data && m->d.limits.newline != SMTP_NL_PASS)
		minimal_watch(m, piece);
	dialogue_scan(&m->d, piece->bytes, piece->len);
	minimal_note(m, "piece", piece->bytes, piece->len);
	if (!piece->end)
		return;
	minimal_note(m, data ? "dot" : "chunk", NULL, 0);
	if (data) {
		dialogue_complete(&m->d);
		dialogue_end_data(&m->d);
		dialogue_expect(&m->d, SMTP_CONTENT, false);
	}
}

/* What goes on is one clean line that says the same when it is read again. */
static inline void minimal_written(const struct smtp_command *cmd)
{
	static unsigned char out[SMTP_AUTH_LINE_MAX + 16], again[SMTP_AUTH_LINE_MAX + 16];
	size_t n = smtp_command_write(cmd, out, sizeof out);
	struct smtp_command c;

	CHECK(n >= 2 && n <= cmd->line_len + 16);
	CHECK(smtp_find_line(out, n) == n && memchr(out, '\r', n) == out + n - 2 && !memchr(out, 0, n));
	smtp_parse(out, n, &c);
	CHECK(c.verb == cmd->verb && !c.refusal);
	CHECK(c.octets == cmd->octets && c.last == cmd->last &&
	    c.binarymime == cmd->binarymime && c.requiretls == cmd->requiretls);
	CHECK(c.address_len == cmd->address_len && c.params_len == cmd->params_len);
	CHECK(!c.address_len || memcmp(c.address, cmd->address, c.address_len) == 0);
	CHECK(!c.params_len || memcmp(c.params, cmd->params, c.params_len) == 0);
	CHECK(smtp_command_write(&c, again, sizeof again) == n && memcmp(again, out, n) == 0);
}

static inline bool minimal_is_greeting(enum smtp_verb verb)
{
	return verb == SMTP_EHLO || verb == SMTP_HELO || verb == SMTP_LHLO;
}

static inline void minimal_command(struct minimal_session *m, const struct smtp_command *cmd)
{
	const char *refusal = dialogue_check(&m->d, cmd);

	if (refusal) {
		CHECK(refusal[0] >= '2' && refusal[0] <= '5' && !strpbrk(refusal, "\r\n"));
		minimal_note(m, "refuse", (const unsigned char *)refusal, 3);
		dialogue_refuse(&m->d, cmd, refusal);
		m->deaf = cmd->fatal;
		return;
	}
	minimal_written(cmd);
	minimal_note(m, "send", (const unsigned char *)smtp_verb_name(cmd->verb), strlen(smtp_verb_name(cmd->verb)));
	if (minimal_is_greeting(cmd->verb)) /* the session greets in its own way */
		dialogue_expect(&m->d, cmd->verb, true);
	else
		dialogue_sent(&m->d, cmd);
}

static inline void minimal_local_replies(struct minimal_session *m)
{
	for (const char *reply; (reply = dialogue_local_reply(&m->d));)
		minimal_note(m, "local", (const unsigned char *)reply, 3);
}

/* Offer the client's bytes once and do what comes of it. Returns octets used; *again: there may be more to take. */
static inline size_t minimal_client_step(struct minimal_session *m, const unsigned char *in, size_t n, bool *again)
{
	bool data = m->d.client == DIALOGUE_DATA;
	struct smtp_command cmd;
	struct smtp_piece piece;
	size_t used = SIZE_MAX;
	enum dialogue_status status = dialogue_client_next(&m->d, in, n, &used, &cmd, &piece);

	CHECK(used <= n);
	*again = true;
	switch (status) {
	case DIALOGUE_MORE:
		CHECK(used || (n < SMTP_AUTH_LINE_MAX && (!data || n <= 3)));
		*again = used > 0;
		break;
	case DIALOGUE_WAIT:
		CHECK(m->d.queued > 0);
		*again = false;
		break;
	case DIALOGUE_LINE:
		CHECK(used > 0 && minimal_within(cmd.line, cmd.line_len, in, used));
		CHECK(minimal_within(cmd.arg, cmd.arg_len, cmd.line, cmd.line_len));
		CHECK(minimal_within(cmd.path, cmd.path_len, cmd.line, cmd.line_len));
		CHECK(minimal_within(cmd.address, cmd.address_len, cmd.line, cmd.line_len));
		CHECK(minimal_within(cmd.params, cmd.params_len, cmd.line, cmd.line_len));
		minimal_command(m, &cmd);
		break;
	case DIALOGUE_ANSWER:
		CHECK(used > 0);
		CHECK(minimal_within(cmd.line, cmd.line_len, in, used) || (cmd.line_len == 1 && *cmd.line == '*'));
		CHECK(!cmd.line_len || (!memchr(cmd.line, '\r', cmd.line_len) && !memchr(cmd.line, 0, cmd.line_len)));
		minimal_note(m, "answer", cmd.line, cmd.line_len);
		cmd.verb = SMTP_AUTH_RESPONSE;
		dialogue_sent(&m->d, &cmd);
		break;
	case DIALOGUE_PIECE:
		minimal_piece(m, &piece, in, used, data);
		break;
	}
	minimal_invariants(m);
	return used;
}

/* Take what can be taken of the client's bytes now. */
static inline size_t minimal_client(struct minimal_session *m, const unsigned char *in, size_t n)
{
	size_t at = 0;

	for (bool again = true; again && !m->over && !m->deaf;) {
		minimal_local_replies(m);
		at += minimal_client_step(m, in + at, n - at, &again);
	}
	minimal_local_replies(m);
	return at;
}

static inline bool minimal_ends_transaction(const struct dialogue_reply *r)
{
	return (r->content_end && !r->more) ||
	    ((r->verb == SMTP_RSET || minimal_is_greeting(r->verb)) && r->line.code < 400);
}

static inline void minimal_data_answered(struct minimal_session *m)
{
	m->last = '\n';
	m->line = MINIMAL_START;
	m->lone_dot = !m->d.tx.accepted;
	if (m->lone_dot)
		dialogue_expect(&m->d, SMTP_CONTENT, true);
	else
		dialogue_begin_data(&m->d, false);
}

/* A reply line goes on as one clean line of the same code and length. */
static inline void minimal_reply_written(const struct smtp_line *line)
{
	static unsigned char out[SMTP_REPLY_MAX + 8];
	size_t n = smtp_reply_write(line->code, line->last, line->text, line->text_len, out, sizeof out);
	struct smtp_line again;

	CHECK(n == line->text_len + 6 && smtp_find_line(out, n) == n);
	CHECK(memchr(out, '\r', n) == out + n - 2 && !memchr(out, 0, n));
	CHECK(smtp_parse_reply(out, n, &again) && again.code == line->code && again.last == line->last &&
	    again.text_len == line->text_len);
}

static inline void minimal_reply(struct minimal_session *m, const struct dialogue_reply *r)
{
	if (!r->line.last)
		return;
	minimal_note_code(m, "reply", r->line.code);
	if (r->verb == SMTP_DATA && r->line.code == 354)
		minimal_data_answered(m);
	if (minimal_is_greeting(r->verb) && r->line.code == 250) {
		m->d.greeted = true;
		m->d.lmtp_client = r->verb == SMTP_LHLO;
	}
	if (!minimal_ends_transaction(r))
		return;
	for (uint32_t i = 0; i < m->d.tx.rcpts; i++)
		minimal_note_code(m, "rcpt", m->d.tx.rcpt[i].code);
	dialogue_end_transaction(&m->d);
}

/* Take what can be taken of the server's bytes. */
static inline size_t minimal_server(struct minimal_session *m, const unsigned char *in, size_t n)
{
	size_t at = 0, used;
	struct dialogue_reply r;

	for (; !m->over; at += used) {
		enum smtp_verb awaited;

		minimal_local_replies(m);
		awaited = dialogue_awaited(&m->d);
		used = SIZE_MAX;
		if (!dialogue_server_next(&m->d, in + at, n - at, &used, &r)) {
			CHECK(used == 0 && n - at < SMTP_REPLY_MAX);
			break;
		}
		CHECK(used <= n - at && (used > 0 || r.violation) && r.verb == awaited);
		if (r.violation) {
			minimal_note(m, "violation", (const unsigned char *)r.violation, strlen(r.violation));
			m->over = true;
			break;
		}
		CHECK(r.line.code >= 200 && r.line.code <= 599);
		CHECK(minimal_within(r.line.text, r.line.text_len, in + at, used));
		minimal_reply_written(&r.line);
		minimal_reply(m, &r);
		minimal_invariants(m);
	}
	minimal_local_replies(m);
	return at;
}

#endif
