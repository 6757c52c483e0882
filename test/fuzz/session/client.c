/* The client of the session fuzzer: grammatical commands in mostly sensible order, pipelined and cut as chance has it. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <stdio.h>
#include <string.h>

#define C (&fuzz.client)

static void queue(const void *p, size_t n)
{
	buf_add(&C->unsent, p, n);
	C->queued += n;
}

static void expect(enum what what, int message, int rcpt, bool last)
{
	if (C->pendings < PENDING_MAX)
		C->pending[C->pendings++] = (struct pending){ what, message, rcpt, 0, last };
}

static void say(enum what what, int message, int rcpt, const char *line)
{
	queue(line, strlen(line));
	if (percent(97) || what == W_STARTTLS || fuzz.tunnel)
		queue("\r\n", 2);
	else
		queue("\n", 1);
	expect(what, message, rcpt, false);
}

static void proxy_header(void)
{
	static const unsigned char v2[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x08\x10\x00\x00\x19";
	static const unsigned char named[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x1a\xc0\0\x02\x07\xc0\0\x02\x08\x10\x00\x00\x19\2\0\4a.bc\1\0\4smtp";
	static const unsigned char local[] = "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
	static const char v1[] = "PROXY TCP4 192.0.2.7 192.0.2.8 4096 25\r\n", unknown[] = "PROXY UNKNOWN\r\n";
	static const char wrong[] = "PROXY TCP4 192.0.2.7\r\n";

	switch (below(fuzz.plan.client_wild == 2 ? 5 : 4)) {
	case 0:
		if (percent(50))
			queue(v2, sizeof v2 - 1);
		else
			queue(named, sizeof named - 1);
		return;
	case 1:
		queue(local, sizeof local - 1);
		return;
	case 2:
		queue(unknown, sizeof unknown - 1);
		return;
	case 3:
		queue(v1, sizeof v1 - 1);
		return;
	default:
		queue(wrong, sizeof wrong - 1);
	}
}

void client_begin(int fd)
{
	memset(C, 0, sizeof *C);
	link_open(&C->link, fd);
	C->current = -1;
	C->lmtp = fuzz.plan.lmtp_client;
	expect(W_GREETING, -1, -1, false);
	if (fuzz.plan.accept_proxy)
		proxy_header();
	if (fuzz.plan.client_tls == CT_IMPLICIT && !fuzz.plan.accept_proxy) {
		fuzz.any_tls = true;
		link_tls(&C->link, tls_client, false);
		C->tls = true;
	}
}

/* ---- messages ---- */

static void add_line(struct buf *b)
{
	static const char *const lines[] = { "A line of text", "", ".", "..", ".dot", "From: a@b.example", "QUIT", "RSET",
		"MAIL FROM:<x@y.example>", "250 2.0.0 Ok", ". ", "   blanks", "\t", "\xc3\xa4\xc3\xb6", "\xff\xfe" };
	uint32_t kind = below(100);

	if (kind < 94)
		buf_text(b, "%s", lines[below(sizeof lines / sizeof *lines - (percent(80) ? 2 : 0))]);
	else if (kind < 97)
		for (uint32_t n = below(2500); n; n--)
			buf_add(b, "x", 1);
	else
		buf_add(b, "nul\0nul", 7);
	buf_add(b, "\r\n", 2);
}

static void add_bare(struct buf *b)
{
	static const char *const bares[] = { "lf\n.\n", "\n.\r\n", "\r.\r", "cr\rcr", "\r\r\n", "\n\n", ".\r.\r\n", "\n.\r\nMAIL",
		"\r\n.\n", "\r\n.\rx\r\n" };
	const char *s = bares[below(sizeof bares / sizeof *bares)];

	buf_add(b, s, strlen(s));
	buf_add(b, "\r\n", 2);
}

static void make_content(struct message *m, int number)
{
	struct buf *b = &m->content;
	uint32_t lines = below(8);

	if (percent(5))
		return;
	if (!fuzz.plan.hooks && percent(4)) /* below which hooks put their fields */
		buf_text(b, "%sFrom s%d@c.example\r\n", percent(30) ? ">" : "", number);
	if (percent(80))
		buf_text(b, "Message-ID: <%d@client.example>\r\nSubject: token%d.\r\nX-Old: gone\r\n folded\r\n\r\n", number, number);
	while (lines--)
		add_line(b);
	if (percent(3)) {
		unsigned char text[977];

		memset(text, 'a' + number % 26, sizeof text);
		text[975] = '\r';
		text[976] = '\n';
		for (uint32_t n = below(400); n; n--)
			buf_add(b, text, sizeof text);
	}
	m->bare = percent(10);
	if (m->bare)
		add_bare(b);
	m->bare = m->bare || memmem(b->p, b->n, "nul", 3) != NULL;
	if (m->bdat && percent(20))
		buf_add(b, percent(50) ? "no end" : "\r", percent(50) ? 6 : 1);
}

static void begin_message(void)
{
	int number = fuzz.message_count++;
	struct message *m = &fuzz.messages[number];
	char line[400] = "", params[200] = "";
	size_t n = 0;

	memset(m, 0, sizeof *m);
	C->current = number;
	m->bdat = (C->offers_chunking && percent(35)) || permille(5);
	if (!percent(10))
		snprintf(m->sender, sizeof m->sender, "s%d@c.example", number);
	make_content(m, number);
	if (percent(15))
		n += (size_t)snprintf(params, sizeof params, " SIZE=%zu", m->content.n);
	if (percent(15)) {
		const char *body = percent(80) ? "8BITMIME" : m->bdat ? "BINARYMIME" : "7BIT";

		m->binary = strcmp(body, "BINARYMIME") == 0;
		n += (size_t)snprintf(params + n, sizeof params - n, " BODY=%s", body);
	}
	if (percent(4))
		n += (size_t)snprintf(params + n, sizeof params - n, " SMTPUTF8");
	if (percent(4))
		n += (size_t)snprintf(params + n, sizeof params - n, " RET=HDRS ENVID=abc");
	if (percent(2))
		n += (size_t)snprintf(params + n, sizeof params - n, " AUTH=<>");
	if (fuzz.plan.client_wild && percent(2))
		n += (size_t)snprintf(params + n, sizeof params - n, " %s", percent(50) ? "SIZE=x" : "FOO=bar");
	snprintf(line, sizeof line, "%s%s%s>%s", percent(90) ? "MAIL FROM:<" : "mail from: <", percent(2) ? "@relay.example:" : "",
	    m->sender, params);
	say(W_MAIL, number, -1, line);
}

static void add_recipient(struct message *m, int number)
{
	char line[300];
	int i = m->rcpts++;

	snprintf(m->rcpt[i].address, sizeof m->rcpt[i].address, "r%d.%d%s@%sd%u.example", number, i, percent(5) ? "+ext" : "",
	    percent(5) ? "sub." : "", percent(70) ? 0 : below(5));
	snprintf(line, sizeof line, "RCPT TO:<%s>%s", m->rcpt[i].address, percent(3) ? " NOTIFY=NEVER" : "");
	say(W_RCPT, number, i, line);
}

/* The message as DATA has it, with dots stuffed. */
static void send_content(struct message *m)
{
	struct buf stuffed = { NULL, 0, 0 };

	for (size_t i = 0; i < m->content.n; i++) {
		if (m->content.p[i] == '.' && (i == 0 || (i > 1 && m->content.p[i - 1] == '\n' && m->content.p[i - 2] == '\r')))
			buf_add(&stuffed, ".", 1);
		buf_add(&stuffed, m->content.p + i, 1);
	}
	buf_add(&stuffed, ".\r\n", 3);
	queue(stuffed.p, stuffed.n);
	m->end_at = C->queued;
	buf_free(&stuffed);
}

static void send_chunk(struct message *m, int number)
{
	size_t left = m->content.n - m->chunk_at, n = percent(50) ? left : below((uint32_t)left + 1);
	bool last = n == left && percent(70);
	char line[64];

	snprintf(line, sizeof line, "BDAT %zu%s\r\n", n, last ? " LAST" : "");
	queue(line, strlen(line));
	queue(m->content.p + m->chunk_at, n);
	m->chunk_at += n;
	expect(W_BDAT, number, -1, last);
	if (!last)
		return;
	m->end_at = C->queued;
	m->over = true;
}

/* ---- commands ---- */

static void say_hello(void)
{
	const char *verb = C->lmtp ? "LHLO" : percent(88) ? "EHLO" : "HELO";
	char line[80];

	snprintf(line, sizeof line, "%s %s", verb, percent(95) ? "client.example" : "[127.0.0.1]");
	say(W_HELLO, -1, -1, line);
}

/* true: nothing may follow before its reply. */
static bool say_something(void)
{
	static const char *const lines[] = { "NOOP", "noop  x ", "RSET", "VRFY joe", "HELP", "EXPN list", "ETRN x", "NOOP", "RSET" };
	/* None is ever taken; the last ones are not where there is no transaction. */
	static const char *const wrong[] = { "FOO", "MAIL", "MAIL FROM:<a b>", "RCPT TO:<>", "RCPT TO:<x@d0.example", "DATA now",
		"XCLIENT ADDR=1.2.3.4", "XFORWARD NAME=x", "EHLO", "", "\tx", "BDAT x", "AUTH", "STARTTLS x", "QUIT now",
		"MAIL FROM:<a@b> SIZE=1 SIZE=2", "VRFY", "RCPT TO:<x@d1.example> X", "DATA", "BDAT 0 LAST",
		"RCPT TO:<x@d0.example>", "BDAT 3" };
	const char *line;
	char longest[3000];

	if (!fuzz.plan.client_wild || fuzz.tunnel || percent(60)) {
		line = lines[below(sizeof lines / sizeof *lines)];
		say(W_OTHER, -1, -1, line);
		if (*line == 'R' && C->current >= 0) {
			fuzz.messages[C->current].over = true;
			C->current = -1;
		}
		return *line == 'V' || *line == 'E';
	}
	if (percent(5)) {
		memset(longest, 'L', sizeof longest);
		longest[500 + below(2400)] = 0;
		say(W_OTHER, -1, -1, longest);
		return false;
	}
	line = wrong[below(sizeof wrong / sizeof *wrong - (C->current >= 0 || C->reset_due ? 5 : 0))];
	say(W_OTHER, -1, -1, line);
	if (strcmp(line, "BDAT 3") == 0)
		queue("abc", 3);
	return true;
}

static void say_auth(void)
{
	static const char *const lines[] = { "AUTH PLAIN AGpvZQBzZWNyZXQ=", "AUTH LOGIN", "AUTH PLAIN", "AUTH LOGIN am9l", "AUTH PLAIN =",
		"AUTH X-NONE" };

	say(W_AUTH, -1, -1, lines[below(fuzz.plan.client_wild ? 6 : 4)]);
	C->auth_step = 0;
}

/* One command or more. true: the group ends. */
static bool say_next(void)
{
	int number = C->current;
	struct message *m = number >= 0 ? &fuzz.messages[number] : NULL;

	if (percent(4))
		return say_something();
	if (!m && fuzz.message_count >= fuzz.plan.messages) {
		say(W_QUIT, -1, -1, "QUIT");
		C->quit = true;
		return true;
	}
	if (!m) {
		begin_message();
		return percent(20);
	}
	if (!m->rcpts || (m->rcpts < RCPTS_MAX && !m->chunk_at && percent(45))) {
		add_recipient(m, number);
		return percent(20);
	}
	if (percent(3) && fuzz.plan.client_wild) {
		say(W_OTHER, -1, -1, "RSET");
		m->over = true;
		C->current = -1;
		return false;
	}
	if (m->bdat) {
		send_chunk(m, number);
		if (m->over)
			C->current = -1;
		return percent(50);
	}
	say(W_DATA, number, -1, "DATA");
	return true;
}

/* Nothing may be said before the reply to what was said last. */
static bool holds_back(void)
{
	for (int i = 0; i < C->pendings; i++)
		if (C->pending[i].what >= W_HELLO)
			return true;
	return false;
}

bool client_can_speak(void)
{
	if (!link_ready(&C->link) || C->unsent.n || holds_back() || C->closing || C->link.eof || C->pendings > PENDING_MAX - 20)
		return false;
	if (!C->greeted) /* to speak now is bold */
		return fuzz.plan.client_wild == 2 && C->pendings == 1 && permille(20);
	return !C->quit;
}

/* A transaction that has come to nothing by what the server said. */
static void drop_failed(void)
{
	struct message *m = C->current >= 0 ? &fuzz.messages[C->current] : NULL;
	bool hopeless;

	if (!m || C->pendings)
		return;
	hopeless = m->mail_code >= 400 || m->failed;
	if (m->rcpts && m->mail_code && m->mail_code < 400) {
		hopeless = true;
		for (int i = 0; i < m->rcpts; i++)
			if (m->rcpt[i].code < 300)
				hopeless = m->failed;
	}
	if (!hopeless || (fuzz.plan.client_wild && percent(20)))
		return;
	C->reset_due = m->mail_code < 400;
	m->over = true;
	C->current = -1;
}

void client_speak(void)
{
	unsigned group = percent(60) ? 1 + below(6) : 1;

	drop_failed();
	if (C->reset_due) {
		C->reset_due = false;
		say(W_OTHER, -1, -1, "RSET");
	}
	if (!C->hello) {
		say_hello();
		if (fuzz.plan.client_wild < 2 || percent(90))
			return;
	}
	if (C->offers_tls && !C->tls && C->current < 0 && percent(60)) {
		say(W_STARTTLS, -1, -1, "STARTTLS");
			return;
	}
	if (C->offers_auth && !C->authenticated && C->current < 0 && percent(30)) {
		say_auth();
		return;
	}
	while (group-- && fuzz.message_count < MESSAGES_MAX && !say_next())
		;
	if (fuzz.message_count >= MESSAGES_MAX && !C->unsent.n && !C->quit) {
		say(W_QUIT, -1, -1, "QUIT");
		C->quit = true;
	}
}

bool client_can_send(void)
{
	return C->unsent.n && link_ready(&C->link);
}

void client_send(void)
{
	size_t n = percent(70) ? C->unsent.n : 1 + below((uint32_t)C->unsent.n);
	uint64_t out = C->queued - C->unsent.n + n;

	note("C>", C->unsent.p, n);
	link_send(&C->link, C->unsent.p, n);
	buf_drop(&C->unsent, n);
	for (int i = 0; i < fuzz.message_count; i++)
		if (fuzz.messages[i].end_at && out >= fuzz.messages[i].end_at)
			fuzz.messages[i].ended = true;
	if (fuzz.plan.client_tls == CT_IMPLICIT && fuzz.plan.accept_proxy && !C->tls && !C->unsent.n) {
		fuzz.any_tls = C->tls = true;
		link_tls(&C->link, tls_client, false);
	}
}

/* ---- replies ---- */

static void take_keywords(const unsigned char *p, size_t n)
{
	C->offers_chunking = memmem(p, n, "CHUNKING", 8) != NULL;
	C->offers_auth = memmem(p, n, "AUTH ", 5) != NULL;
	C->offers_tls = memmem(p, n, "STARTTLS", 8) != NULL;
}

/* The session begins anew inside of TLS. */
static void begin_tls(void)
{
	fuzz.any_tls = C->tls = true;
	fuzz.tunnel = fuzz.plan.client_tls == CT_PASSTHROUGH;
	C->hello = C->reset_due = false;
	C->current = -1;
	C->offers_tls = C->offers_auth = false;
	fuzz.again = true;
	notef("C>", "handshake");
	link_tls(&C->link, tls_client, false);
}

/* Further replies to the end of a message are due to a client that speaks LMTP, unless it is told that there is none. */
static bool content_answered(struct pending *p, int code, const unsigned char *reply, size_t n)
{
	struct message *m = &fuzz.messages[p->message];

	if (m->finals < RCPTS_MAX)
		m->final[m->finals++] = code;
	C->reset_due = C->reset_due || (m->bdat && code >= 300);
	p->replies++;
	return !(C->lmtp && p->replies < C->taken) || memmem(reply, n, " MAIL first", 11);
}

static void mail_answered(struct pending *p, int code)
{
	struct message *m = &fuzz.messages[p->message];

	if (p->what == W_MAIL) {
		m->mail_code = code;
		C->taken = code < 400 ? 0 : C->taken;
		if (code >= 400) { /* perhaps the transaction before is still open, and gets these recipients and this text */
			C->reset_due = true;
			for (int i = 0; i <= p->message; i++)
				fuzz.messages[i].tangled |= i == p->message || !fuzz.messages[i].finals || fuzz.messages[i].final[0] >= 300;
		}
	} else {
		m->rcpt[p->rcpt].code = code;
		C->taken += code < 300;
	}
}

static void data_answered(struct pending *p, int code)
{
	struct message *m = &fuzz.messages[p->message];

	if (code != 354) {
		m->over = C->reset_due = true;
		if (C->current == p->message)
			C->current = -1;
		return;
	}
	send_content(m);
	m->over = true;
	C->current = -1;
	expect(W_CONTENT, p->message, -1, false);
}

static bool chunk_answered(struct pending *p, int code, const unsigned char *reply, size_t n)
{
	struct message *m = &fuzz.messages[p->message];

	if (p->last)
		return content_answered(p, code, reply, n);
	if (code >= 400)
		m->failed = true;
	return true;
}

/* false: this command goes on. */
static bool auth_answered(int code)
{
	if (code == 334) {
		const char *answer = fuzz.plan.client_wild && percent(15) ? "*" : C->auth_step++ ? "c2VjcmV0" : "AGpvZQBzZWNyZXQ=";

		queue(answer, strlen(answer));
		queue("\r\n", 2);
		return false;
	}
	C->authenticated = code == 235;
	C->offers_auth = C->offers_auth && fuzz.plan.client_wild;
	return true;
}

static bool answered(struct pending *p, int code, const unsigned char *reply, size_t n)
{
	switch (p->what) {
	case W_GREETING:
		C->greeted = true;
		C->closing = code != 220;
		return true;
	case W_HELLO:
			C->hello = code == 250;
		if (!C->hello && C->lmtp)
			C->lmtp = false;
		else if (!C->hello && percent(50))
			C->quit = true;
		if (C->hello)
			take_keywords(reply, n);
		return true;
	case W_MAIL:
	case W_RCPT:
		mail_answered(p, code);
		return true;
	case W_DATA:
		data_answered(p, code);
		return true;
	case W_CONTENT:
		return content_answered(p, code, reply, n);
	case W_BDAT:
		return chunk_answered(p, code, reply, n);
	case W_AUTH:
		return auth_answered(code);
	case W_STARTTLS:
			C->offers_tls = false;
		if (code == 220)
			begin_tls();
		return true;
	case W_QUIT:
		C->closing = true;
		return true;
	case W_OTHER:
		return true;
	}
	return true;
}

/* Octets of the first reply, all its lines; 0: it is not whole. */
static size_t whole_reply(const unsigned char *p, size_t n)
{
	size_t at = 0;

	for (;;) {
		const unsigned char *end = memmem(p + at, n - at, "\r\n", 2);

		if (!end)
			return 0;
		if (end - (p + at) < 3 || p[at] < '2' || p[at] > '5') {
			if (!fuzz.tunnel || !fuzz.confused)
				fault("the client got what is no reply: %.*s", (int)(end - (p + at)), p + at);
			return (size_t)(end - p) + 2;
		}
		if (p[at + 3] != '-')
			return (size_t)(end - p) + 2;
		at = (size_t)(end - p) + 2;
	}
}

static int code_of(const unsigned char *p, size_t n)
{
	size_t at = 0;

	for (size_t i = 0; i + 2 < n; i++)
		if (p[i] == '\n')
			at = i + 1;
	return (p[at] - '0') * 100 + (p[at + 1] - '0') * 10 + p[at + 2] - '0';
}

static void take_reply(const unsigned char *p, size_t n)
{
	int code = code_of(p, n);
	struct pending first;

	if (code == 421)
		C->closing = true;
	if (!C->pendings) {
		if (code != 421 && !(fuzz.tunnel && fuzz.confused))
			fault("a reply to nothing: %.*s", (int)(n < 200 ? n : 200), p);
		return;
	}
	first = C->pending[0];
	if (!answered(&first, code, p, n)) {
		C->pending[0] = first;
		return;
	}
	C->pendings--; /* what was expected meanwhile stands at the end */
	memmove(C->pending, C->pending + 1, (size_t)C->pendings * sizeof *C->pending);
}

void client_take(void)
{
	size_t n;

	while (C->link.in.n && !(C->link.ssl && !C->link.tls_done) && (n = whole_reply(C->link.in.p, C->link.in.n))) {
		struct buf reply = { NULL, 0, 0 };

		buf_add(&reply, C->link.in.p, n);
		buf_drop(&C->link.in, n);
		take_reply(reply.p, n);
		buf_free(&reply);
	}
}

bool client_waits(void)
{
	return C->pendings && !(C->link.ssl && C->link.tls_failed);
}
