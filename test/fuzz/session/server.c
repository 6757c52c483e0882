/* The servers of the session fuzzer: each keeps to SMTP or LMTP, refuses what chance says, and now and then misbehaves. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void label(const struct server *s, char who[20], char mark)
{
	snprintf(who, 20, "S%d%c", s->number, mark);
}

void server_accept(int fd, enum kind kind, int port)
{
	struct server *s = &fuzz.servers[fuzz.server_count];

	if (fuzz.server_count == SERVERS_MAX) {
		fault("too many connections to servers");
		abort();
	}
	memset(s, 0, sizeof *s);
	link_open(&s->link, fd);
	s->number = fuzz.server_count++;
	s->kind = kind;
	s->port = port;
	s->delivery = s->reply_final = -1;
	s->lmtp = kind == K_LMTP || kind == K_UNIX;
	s->got_proxy = !fuzz.plan.send_proxy;
	notef("--", "server %d: a connection to port %d", s->number, port);
	if (kind == K_SMTPS && s->got_proxy) {
		fuzz.any_tls = true;
		link_tls(&s->link, tls_server, true);
	}
}

static struct delivery *delivery(struct server *s)
{
	return s->delivery >= 0 ? &fuzz.deliveries[s->delivery] : NULL;
}

/* ---- replies ---- */

static void finished(struct server *s)
{
	struct delivery *d = s->reply_delivery >= 0 ? &fuzz.deliveries[s->reply_delivery] : NULL;

	if (d && s->reply_final >= 0 && d->finals < RCPTS_MAX)
		d->final[d->finals++] = s->reply_code;
	s->reply_final = -1;
	if (s->tls_next) {
		s->tls_next = false;
		s->delivery = -1;
		fuzz.any_tls = true;
		link_tls(&s->link, tls_server, true);
	}
}

/* What it says is over; wholly closed it is when smtpwarp does that too: what that says on would be answered by a reset, at some
 * time. */
static void leave(struct server *s)
{
	notef("S!", "server %d closes", s->number);
	s->left = link_half_close(&s->link);
}

/* What is left of the reply, or a part of it. */
static void send_part(struct server *s)
{
	size_t n = percent(90) ? s->reply.n : 1 + below((uint32_t)s->reply.n);
	char who[20];

	label(s, who, '>');
	note(who, s->reply.p, n);
	if (s->closing && n == s->reply.n && percent(50) && link_last(&s->link, s->reply.p, n)) {
		notef("S!", "server %d closes with that", s->number);
		s->left = true;
	} else {
		link_send(&s->link, s->reply.p, n);
	}
	buf_drop(&s->reply, n);
	if (!s->reply.n)
		finished(s);
}

/* Lines of text, `\n` between them; the last begins with the code. Chance puts lines before it. */
static void reply(struct server *s, int code, const char *text)
{
	static const char *const enhanced[] = { "2.0.0 ", "4.3.0 ", "5.7.1 " };
	bool plain = code < 250 || code == 354 || code == 334 || percent(30);
	const char *e = plain ? "" : enhanced[code < 300 ? 0 : code < 500 ? 1 : 2];

	if (percent(8) && code != 334)
		buf_text(&s->reply, "%d-%sfirst line\r\n", code, e);
	if (permille(3))
		buf_text(&s->reply, "%d\r\n", code);
	else
		buf_text(&s->reply, "%d %s%s\r\n", code, e, text);
	s->reply_code = code;
	if (code == 421)
		s->closing = true;
}

/* A refusal at random, by how wild servers are. */
static bool refuses(struct server *s, unsigned often)
{
	static const int codes[] = { 450, 451, 452, 550, 554, 553, 421 };

	if (!fuzz.plan.server_wild || !percent(often))
		return false;
	reply(s, codes[below(sizeof codes / sizeof *codes - (percent(80) ? 1 : 0))], "refused");
	return true;
}

static void greet(struct server *s)
{
	s->greeted = true;
	if (!refuses(s, 6))
		reply(s, 220, s->lmtp ? "mx.example LMTP" : "mx.example ESMTP");
}

/* ---- EHLO ---- */

static void list(struct server *s, const char *const *words, unsigned n)
{
	unsigned start = below(n);

	buf_text(&s->reply, "250-mx.example\r\n");
	for (unsigned i = 0; i < n; i++)
		if (percent(65))
			buf_text(&s->reply, "250-%s\r\n", words[(start + i) % n]);
}

static bool offers(const struct server *s, const char *word)
{
	return memmem(s->reply.p, s->reply.n, word, strlen(word)) != NULL;
}

static void answer_ehlo(struct server *s)
{
	static const char *const words[] = { "PIPELINING", "SIZE 1000000", "8BITMIME", "SMTPUTF8", "CHUNKING", "BINARYMIME", "DSN",
		"ENHANCEDSTATUSCODES", "AUTH PLAIN LOGIN", "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT",
		"XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE", "VRFY", "ETRN", "X-UNKNOWN foo", "HELP", "LIMITS RCPTMAX=5" };

	s->reply.n = 0;
	list(s, words, sizeof words / sizeof *words);
	s->pipelining = offers(s, "PIPELINING");
	s->chunking = offers(s, "CHUNKING");
	s->auth = offers(s, "AUTH");
	s->xclient = offers(s, "XCLIENT");
	s->starttls = !s->link.ssl && percent(60);
	buf_text(&s->reply, s->starttls ? "250 STARTTLS\r\n" : "250 NOOP\r\n");
	s->reply_code = 250;
	s->mail = false;
}

static void hello(struct server *s, const char *verb)
{
	bool ehlo = strcasecmp(verb, "HELO") != 0;

	if (!fuzz.tunnel && s->lmtp != (strcasecmp(verb, "LHLO") == 0))
		fault("server %d, which speaks %s, got %s", s->number, s->lmtp ? "LMTP" : "SMTP", verb);
	s->delivery = -1;
	s->mail = false;
	if (refuses(s, 4))
		return;
	if (ehlo && !s->lmtp && (s->helo_only || (fuzz.plan.server_wild && percent(5)))) {
		s->helo_only = true;
		reply(s, 502, "5.5.1 which command is that?");
	} else if (ehlo) {
		answer_ehlo(s);
	} else {
		s->pipelining = false;
		reply(s, 250, "mx.example");
	}
}

/* ---- transactions ---- */

/* The address in a path, as far as there is room. */
static void take_address(const char *line, char out[64])
{
	const char *from = strchr(line, '<'), *to = from ? strchr(from, '>') : NULL;
	size_t n = to ? (size_t)(to - from - 1) : 0;

	n = n < 63 ? n : 63;
	if (n)
		memcpy(out, from + 1, n);
	out[n] = 0;
}

const char *address_digits(const char *address)
{
	return strncmp(address, "w\xc3\xa4", 3) == 0 ? address + 3 : *address ? address + 1 : address;
}

/* Whose message an address tells, or -1. */
static int message_of(const char *address)
{
	const char *digits = address_digits(address);

	if (!strchr("srw", address[0]) || !address[0])
		return -1;
	return *digits >= '0' && *digits <= '9' ? atoi(digits) : -1;
}

static void take_mail(struct server *s, const char *line)
{
	char address[64];
	struct delivery *d;

	if (refuses(s, 6))
		return;
	if (fuzz.delivery_count == DELIVERIES_MAX)
		abort();
	take_address(line, address);
	s->mail = true;
	s->delivery = fuzz.delivery_count++;
	d = delivery(s);
	memset(d, 0, sizeof *d);
	d->server = s->number;
	d->tunnel = fuzz.tunnel;
	d->utf8 = strcasestr(line, " SMTPUTF8") != NULL;
	d->message = message_of(address);
	reply(s, 250, "sender");
}

/* Neither a recipient whose domain's policy demands TLS (see tls.c) nor a password, where --tls does, comes without. */
static void check_tls(const struct server *s, const char *address)
{
	const char *domain = address ? strchr(address, '@') : NULL;
	bool demanded = domain ? fuzz.plan.policies && !fuzz.plan.override && (strcmp(domain, "@d1.example") == 0 || strcmp(domain, "@d2.example") == 0) :
				 fuzz.plan.encrypts && !address;

	if (demanded && !s->link.ssl && !fuzz.tunnel && !fuzz.exempt)
		fault("server %d got %s without TLS", s->number, address ? address : "AUTH");
}

static void take_rcpt(struct server *s, const char *line)
{
	struct delivery *d = delivery(s);
	bool refused = !d || d->rcpts == RCPTS_MAX;

	if (strchr(line, '\xc3') && !(d && d->utf8) && !fuzz.tunnel)
		fault("server %d, in a transaction without SMTPUTF8, got %s", s->number, line);
	if (!refused) {
		take_address(line, d->rcpt[d->rcpts]);
		check_tls(s, d->rcpt[d->rcpts]);
		if (d->message < 0)
			d->message = message_of(d->rcpt[d->rcpts]);
	}
	if (refused)
		reply(s, 503, "no sender");
	else if (!refuses(s, 12))
		reply(s, percent(95) ? 250 : 251, "recipient");
	if (refused)
		return;
	d->codes[d->rcpts++] = s->reply_code;
	d->accepted += s->reply_code / 100 == 2;
}

/* The verdict on a message, for each recipient by LMTP. */
static void judge(struct server *s)
{
	s->reply_final = 1;
	s->reply_delivery = s->delivery;
	if (!refuses(s, 12))
		reply(s, 250, "queued");
	if (s->owed)
		s->owed--;
	if (!s->owed) {
		s->delivery = -1;
		s->mail = false;
	}
}

static void message_ends(struct server *s)
{
	struct delivery *d = delivery(s);

	s->in_data = s->in_chunk = false;
	if (!d) {
		reply(s, 503, "no message");
		return;
	}
	d->complete = true;
	s->owed = s->lmtp && d->accepted ? d->accepted : 1;
	if (s->early) { /* it has been answered */
		s->early = false;
		s->owed = 0;
		s->delivery = -1;
		s->mail = false;
		return;
	}
	judge(s);
}

static void take_data(struct server *s)
{
	struct delivery *d = delivery(s);

	if (!d)
		reply(s, 503, "no sender");
	else if (!d->accepted && percent(80))
		reply(s, 554, "no recipients");
	else if (!refuses(s, 6)) {
		reply(s, 354, "go on");
		s->in_data = true;
	}
}

/* Lines of a message up to the dot. true: it has ended. */
static bool take_content(struct server *s)
{
	struct buf *in = &s->link.in;
	struct delivery *d = delivery(s);
	size_t n;

	while ((n = buf_line(in))) {
		bool end = n == 3 && in->p[0] == '.';
		size_t skip = n > 0 && in->p[0] == '.' ? 1 : 0;

		if (!end)
			buf_add(&d->content, in->p + skip, n - skip);
		buf_drop(in, n);
		if (end)
			return true;
	}
	return false;
}

static void take_bdat(struct server *s, const char *line)
{
	struct delivery *d = delivery(s);

	s->chunk_left = strtoull(line + 5, NULL, 10);
	s->chunk_last = strcasestr(line, "LAST") != NULL;
	s->in_chunk = true;
	s->swallow = !d || !d->accepted || !s->chunking;
	if (!s->chunking && !fuzz.tunnel)
		fault("server %d, which does not know CHUNKING, got BDAT", s->number);
}

static void chunk_ends(struct server *s)
{
	s->in_chunk = false;
	if (s->swallow) {
		reply(s, 503, "no message for a chunk");
		return;
	}
	if (s->chunk_last)
		message_ends(s);
	else if (!refuses(s, 5))
		reply(s, 250, "chunk");
	else {
		s->delivery = -1;
		s->mail = false;
	}
}

/* ---- commands ---- */

static void starttls(struct server *s)
{
	if (!s->starttls && !fuzz.tunnel)
		fault("server %d, which does not offer STARTTLS, got it", s->number);
	if (fuzz.plan.server_wild && percent(15)) {
		reply(s, percent(50) ? 454 : 502, "no TLS now");
		return;
	}
	buf_text(&s->reply, "220 go ahead\r\n");
	if (fuzz.plan.server_wild == 2 && percent(5)) {
		buf_text(&s->reply, "250 injected\r\n");
		return;
	}
	if (fuzz.plan.server_wild == 2 && percent(10)) {
		s->closing = percent(50);
		s->mute = !s->closing; /* it answers the handshake with what is none */
		return;
	}
	s->tls_next = true;
}

static void auth(struct server *s, const char *line)
{
	s->auth_step = 0;
	check_tls(s, NULL);
	if (strcasestr(line, "PLAIN ")) {
		s->authenticated = !refuses(s, 20);
		if (s->authenticated)
			reply(s, 235, "welcome");
	} else if (strcasestr(line, "PLAIN") || strcasestr(line, "LOGIN")) {
		s->auth_step = strcasestr(line, "LOGIN") && !strcasestr(line, "LOGIN ") ? 2 : 1;
		reply(s, 334, "VXNlcm5hbWU6");
	} else {
		reply(s, 504, "unknown mechanism");
	}
}

static void auth_answer(struct server *s, const char *line)
{
	if (strcmp(line, "*") == 0) {
		s->auth_step = 0;
		reply(s, 501, "cancelled");
	} else if (--s->auth_step) {
		reply(s, 334, "UGFzc3dvcmQ6");
	} else if (!refuses(s, 20)) {
		reply(s, 235, "welcome");
	}
}

static void xclient(struct server *s)
{
	if (!s->xclient && !fuzz.tunnel && !fuzz.confused)
		fault("server %d, which does not offer XCLIENT, got it", s->number);
	if (!refuses(s, 10)) {
		reply(s, 220, "mx.example ESMTP again");
		s->delivery = -1;
	}
}

static bool is(const char *line, const char *verb)
{
	size_t n = strlen(verb);

	return strncasecmp(line, verb, n) == 0 && (!line[n] || line[n] == ' ');
}

static void command(struct server *s, const char *line)
{
	static const char *const others[] = { "NOOP", "VRFY", "EXPN", "HELP", "ETRN", "XFORWARD" };

	if (s->auth_step)
		auth_answer(s, line);
	else if (is(line, "EHLO") || is(line, "HELO") || is(line, "LHLO"))
		hello(s, (char[]){ line[0], line[1], line[2], line[3], 0 });
	else if (strncasecmp(line, "MAIL FROM:", 10) == 0)
		take_mail(s, line);
	else if (strncasecmp(line, "RCPT TO:", 8) == 0)
		take_rcpt(s, line);
	else if (is(line, "DATA"))
		take_data(s);
	else if (is(line, "BDAT"))
		take_bdat(s, line);
	else if (is(line, "STARTTLS"))
		starttls(s);
	else if (is(line, "AUTH"))
		auth(s, line);
	else if (is(line, "XCLIENT"))
		xclient(s);
	else if (is(line, "RSET")) {
		s->delivery = -1;
		s->mail = false;
		reply(s, 250, "reset");
	} else if (is(line, "QUIT")) {
		if (!refuses(s, 3)) {
			reply(s, 221, "bye");
			s->closing = true;
		}
	} else {
		bool known = false;

		for (size_t i = 0; i < sizeof others / sizeof *others; i++)
			known = known || is(line, others[i]);
		if (!known && !fuzz.tunnel)
			fault("server %d got what is no command: %s", s->number, line);
		if (!refuses(s, 5))
			reply(s, 250, "Ok");
	}
}

/* ---- what may be done, and is ---- */

/* Octets of the PROXY header; 0: it is not whole, or none. */
static size_t proxy_header(const struct server *s)
{
	const struct buf *in = &s->link.in;

	if (fuzz.plan.send_proxy == 1)
		return buf_line(in);
	if (in->n < 16)
		return 0;
	return 16 + (size_t)in->p[14] * 256 + in->p[15] <= in->n ? 16 + (size_t)in->p[14] * 256 + in->p[15] : 0;
}

static void take_proxy(struct server *s)
{
	size_t n = proxy_header(s);
	char who[20];

	if (!n)
		return;
	if (memcmp(s->link.in.p, fuzz.plan.send_proxy == 1 ? "PROXY " : "\r\n\r\n\0\r\nQUIT\n", fuzz.plan.send_proxy == 1 ? 6 : 12) != 0)
		fault("server %d got no PROXY header first", s->number);
	label(s, who, '<');
	note(who, s->link.in.p, n);
	buf_drop(&s->link.in, n);
	buf_drop(&s->link.fresh, n);
	s->got_proxy = true;
	if (s->kind == K_SMTPS) {
		fuzz.any_tls = fuzz.again = true;
		link_tls(&s->link, tls_server, true);
	}
}

void server_look(struct server *s)
{
	unsigned lines = 0;

	if (s->link.fd < 0 || s->left)
		return;
	if (!s->got_proxy)
		take_proxy(s);
	if (s->pipelining || fuzz.tunnel || fuzz.confused || s->in_data || s->in_chunk || s->mute || s->closing || s->link.in.n > 4096)
		return;
	if (s->link.in.n > 1 && memcmp(s->link.in.p, "\x16\x03", 2) == 0) /* a handshake, to a server that promised TLS and has none */
		return;
	for (size_t i = 0; i < s->link.in.n; i++)
		lines += s->link.in.p[i] == '\n';
	if (s->link.in.n >= 6 && memcmp(s->link.in.p + s->link.in.n - 6, "QUIT\r\n", 6) == 0) /* it is left */
		lines--;
	if (lines > 1 && strncasecmp((char *)s->link.in.p, "BDAT", s->link.in.n < 4 ? s->link.in.n : 4) != 0)
		fault("server %d, which does not know PIPELINING, got several commands", s->number);
}

bool server_can_act(const struct server *s)
{
	if (!link_ready(&s->link) || s->left)
		return false;
	if (s->reply.n || s->owed || s->mute || s->closing)
		return true;
	if (!s->got_proxy)
		return false;
	if (!s->greeted)
		return true;
	if (s->in_chunk)
		return s->link.in.n > 0 || !s->chunk_left;
	return buf_line(&s->link.in) > 0;
}

static void take_line(struct server *s)
{
	size_t n = buf_line(&s->link.in);
	char line[13000];

	snprintf(line, sizeof line, "%.*s", (int)(n - 2), (char *)s->link.in.p);
	if (strlen(line) != n - 2 && !fuzz.tunnel)
		fault("server %d got a command with a NUL", s->number);
	buf_drop(&s->link.in, n);
	command(s, line);
	if (s->in_chunk && !s->chunk_left)
		chunk_ends(s);
}

static void take_chunk(struct server *s)
{
	struct delivery *d = delivery(s);
	size_t n = s->link.in.n < s->chunk_left ? s->link.in.n : (size_t)s->chunk_left;

	if (d && !s->swallow)
		buf_add(&d->content, s->link.in.p, n);
	buf_drop(&s->link.in, n);
	s->chunk_left -= n;
	if (!s->chunk_left)
		chunk_ends(s);
}

static void answer_handshake_badly(struct server *s)
{
	static const char text[] = "no handshake\r\n";

	link_raw(&s->link, text, sizeof text - 1);
	s->mute = false;
	s->closing = true;
}

/* One thing: a part of a reply, or what comes next and the reply to it. */
void server_act(struct server *s)
{
	if (!s->reply.n) {
		if (s->closing) {
			leave(s);
			return;
		}
		if (s->mute)
			answer_handshake_badly(s);
		else if (s->owed)
			judge(s);
		else if (!s->greeted)
			greet(s);
		else if (s->in_data && take_content(s))
			message_ends(s);
		else if (s->in_chunk)
			take_chunk(s);
		else if (!s->in_data)
			take_line(s);
	}
	if (s->reply.n && (percent(95) || s->tls_next))
		send_part(s);
}

void server_fault(struct server *s)
{
	static const char *const words[] = { "421 4.3.2 going down\r\n", "250 unasked\r\n", "451 4.3.0 no more\r\n", "no reply\r\n", "\r\n",
		"552 5.3.4 too much\r\n", "250-x\r\n" };
	const char *word = words[below(sizeof words / sizeof *words)];
	char who[20];

	label(s, who, '>');
	if (s->left)
		return;
	if (percent(50)) {
		bool reset = percent(30);

		notef(who, "%s", reset ? "reset" : "close");
		link_close(&s->link, reset);
		return;
	}
	if (!link_ready(&s->link) || s->reply.n)
		return;
	note(who, word, strlen(word));
	fuzz.confused = true;
	s->closing = strncmp(word, "421", 3) == 0;
	if (s->closing && link_last(&s->link, word, strlen(word)))
		s->left = true;
	else
		link_send(&s->link, word, strlen(word));
	s->early = (s->in_data || s->in_chunk) && (word[0] == '4' || word[0] == '5');
}
