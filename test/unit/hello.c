/* The greeting: the server's banner, EHLO, HELO and LHLO, and what is said to the server between them. */
#define _GNU_SOURCE
#include "test/lib/fake_session.h"

#define ONE "--upstream 192.0.2.25 --verbose "
#define BANNER "220 mx.test ESMTP"

/* Up to the banner; up to the server having heard EHLO. */
static void to_banner(const char *options)
{
	session_begins(options);
	server_connects();
	server(BANNER);
}

static void to_ehlo(const char *options)
{
	to_banner(options);
	client_gets(BANNER);
	client("EHLO c.test");
	server_gets("EHLO c.test");
	stands_at(OPEN, EHLO);
}

static const char *with(const char *options, const char *more)
{
	static char text[500];

	snprintf(text, sizeof text, "%s%s%s", options, *more ? " " : "", more);
	return text;
}

/* --upstream-auth with a password for every server. */
static const char *with_password(const char *options)
{
	static char text[500];

	snprintf(text, sizeof text, "%s --upstream-auth %s", options, file_of("* user:secret\n"));
	return text;
}

/* ---- the banner ---- */

static void banner_accepts(void **state)
{
	(void)state;
	session_begins(ONE);
	server_is_dialled("192.0.2.25:25", 1);
	server_connects();
	stands_at(OPEN, BANNER);
	passes(0.25);
	server("220-mx.test");
	client_gets("");
	server("220 ESMTP");
	client_gets("220-mx.test\n220 ESMTP");
	recorded("connect 192.0.2.25:25: ESMTP");
	assert_string_equal(member_of("connect", "banner_ms"), "250.000");
	stands_at(OPEN, IDLE);
}

/* With nobody else to try, the client hears what the server says; and the server is left without QUIT, RFC 5321 3.1. */
static void banner_refuses(void **state)
{
	(void)state;
	session_begins(ONE);
	server_connects();
	server("554-mx.test\n554 no service");
	client_gets("554-mx.test\n554 no service");
	recorded("connect 192.0.2.25:25: no service");
	stands_at(OPEN, IDLE);
	client_closes();
	server_gets("");
	ended(FLUSH, "client", "connection closed");
}

static void banner_is_421(void **state)
{
	(void)state;
	session_begins(ONE);
	server_connects();
	server("421 too busy");
	client_gets("421 too busy");
	ended(LINGER, "upstream", "reply 421 too busy");
}

/* Another candidate may greet better; the last one's word is the client's. */
static void banner_of_next(void **state)
{
	(void)state;
	world_name("mx.test", "192.0.2.25 192.0.2.26");
	session_begins("--upstream mx.test --tls none");
	server_connects();
	server("554-mx.test\n554 not here");
	recorded("error: 4.4.1 mx.test: greeting 554 not here");
	server_is_dialled("192.0.2.26:25", 2);
	server_connects();
	server("550 nor here");
	client_gets("550 nor here");
	recorded("connect 192.0.2.26:25: nor here");
	stands_at(OPEN, IDLE);
}

static void banner_is_no_reply(void **state)
{
	(void)state;
	session_begins(ONE);
	server_connects();
	server("SSH-2.0-x");
	recorded("error: 192.0.2.25: a line that is no SMTP reply");
	client_gets("421 4.5.0 192.0.2.25: a line that is no SMTP reply");
	stands_at(OPEN, GONE);
	ended(LINGER, "smtpwarp", "4.5.0 192.0.2.25: a line that is no SMTP reply");
}

/* What comes behind a reply of the greeting belongs to nothing. */
static void banner_and_more(void **state)
{
	(void)state;
	session_begins(ONE "--tls none");
	server_connects();
	server(BANNER "\n250 and more");
	client_gets(BANNER "\n421 4.5.0 192.0.2.25: a reply that nothing was asked for");
	ended(LINGER, "upstream", "a reply that nothing was asked for");
}

/* --greet-delay: the first line of a greeting of ours has been said. */
static void banner_after_tease(void **state)
{
	(void)state;
	session_begins(ONE "--greet-delay 5");
	stands_at(CHECKS, NONE);
	client_gets("220-warp.test ESMTP");
	passes(5);
	server_connects();
	server(BANNER);
	client_gets(BANNER);
	stands_at(OPEN, IDLE);
}

/* Clients that go by the first line would go on. */
static void banner_refuses_after_tease(void **state)
{
	(void)state;
	session_begins(ONE "--greet-delay 5");
	client_gets("220-warp.test ESMTP");
	passes(5);
	server_connects();
	server("554 no");
	client_gets("554 no");
	ended(LINGER, "upstream", "it refused in its greeting");
}

/* The client speaks while the server is still to greet. */
static void banner_too_late(void **state)
{
	(void)state;
	session_begins(ONE "--greet-delay 5");
	client_gets("220-warp.test ESMTP");
	passes(5);
	server_connects();
	client("EHLO spam.test");
	server(BANNER);
	client_gets("554 5.5.1 Protocol error: you spoke too early");
	recorded("verdict greeting - reject: 5.5.1 Protocol error: you spoke too early");
	server_gets("QUIT");
	ended(LINGER, "smtpwarp", "spoke too early");
}

/* ---- EHLO and HELO ---- */

static void ehlo(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls none");
	server("250-mx.test hello\n250-SIZE 1000\n250-STARTTLS\n250-PIPELINING\n250 X-OWN");
	client_gets("250-mx.test hello\n250-SIZE 1000\n250 PIPELINING");
	recorded(">| EHLO c.test");
	recorded("|> EHLO c.test");
	recorded("|< 250 X-OWN");
	recorded("<| 250-mx.test hello\\u000d\\u000a250-SIZE 1000\\u000d\\u000a250 PIPELINING");
	stands_at(OPEN, READY);
	client("EHLO again.test"); /* RFC 5321 4.1.4 */
	server_gets("EHLO again.test");
	server("250 mx.test");
	client_gets("250-mx.test\n250 PIPELINING");
	client("HELO third.test");
	server_gets("HELO third.test");
	stands_at(OPEN, HELO);
	server("250 mx.test");
	client_gets("250 mx.test");
	stands_at(OPEN, READY);
}

/* HELO goes straight to a server of which nothing is wanted. */
static void helo(void **state)
{
	(void)state;
	to_banner(ONE "--tls none");
	client_gets(BANNER);
	client("HELO c.test");
	server_gets("HELO c.test");
	stands_at(OPEN, HELO);
	server("250-mx.test\n250 hello");
	client_gets("250-mx.test\n250 hello");
	stands_at(OPEN, READY);
}

static void helo_refused(void **state)
{
	(void)state;
	to_banner(ONE "--tls none");
	client_heard();
	client("HELO c.test");
	server_gets("HELO c.test");
	server("550 whoever you are");
	client_gets("550 whoever you are");
	stands_at(OPEN, IDLE);
	client("MAIL FROM:<a@b.test>");
	client_gets("503 5.5.1 EHLO or HELO first");
}

/* The list is asked for all the same, for STARTTLS; then the client's own word. */
static void helo_after_list(void **state)
{
	(void)state;
	to_banner(ONE "--tls may");
	client_heard();
	client("HELO c.test");
	server_gets("EHLO c.test");
	server("250 mx.test");
	server_gets("HELO c.test");
	client_gets("");
	server("250 mx.test hello");
	client_gets("250 mx.test hello");
	stands_at(OPEN, READY);
}

static void ehlo_put_off(void **state)
{
	(void)state;
	to_ehlo(ONE);
	server("450 not now");
	client_gets("450 not now");
	stands_at(OPEN, IDLE);
	client("EHLO c.test");
	server_gets("EHLO c.test");
}

/* A server of RFC 821. */
static void ehlo_unknown(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls none");
	server("500 what");
	server_gets("HELO c.test");
	client_gets("");
	stands_at(OPEN, HELO);
	server("250 mx.test hello");
	client_gets("250-mx.test hello\n250 PIPELINING");
	stands_at(OPEN, READY);
}

static void ehlo_and_helo_refused(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls none");
	server("500 what");
	server("550 no");
	client_gets("550 no");
	stands_at(OPEN, IDLE);
}

/* Its word on EHLO was its last. */
static void closes_after_ehlo(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls none");
	server("550 5.7.1 go away");
	server_closes();
	client_gets("550 5.7.1 go away");
	stands_at(OPEN, GONE);
	goes_still();
	client("HELO c.test");
	client_gets("421 4.4.2 192.0.2.25: connection is closed");
	ended(LINGER, "upstream", "connection is closed");
}

/* A refusal of EHLO that is past is no reply to HELO. */
static void closes_after_past_refusal(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls may");
	server("500 what");
	server("250 mx.test");
	client("HELO c.test");
	server("250 mx.test"); /* it knows EHLO after all */
	server_gets("HELO c.test\nEHLO c.test\nHELO c.test");
	client_heard();
	server_closes();
	client_gets("421 4.4.2 192.0.2.25: connection closed");
}

/* The same, where HELO goes straight to the server. */
static void closes_after_past_refusal_in_plain(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls none");
	server("500 what");
	server("250 mx.test");
	client("HELO c.test");
	server_gets("HELO c.test\nHELO c.test");
	client_heard();
	server_closes();
	client_gets("421 4.4.2 192.0.2.25: connection closed");
}

/* The list that the client sees when the server has this one. client_tls: it speaks TLS to us; server_tls: we do to the server. */
struct offer {
	const char *from, *options, *list, *want;
	bool client_tls, server_tls;
};

static void is_offered(void **state)
{
	const struct offer *o = *state;
	char options[300];

	client_is(o->from);
	snprintf(options, sizeof options, "--tls none --client-tls may --cert /cert %s", o->options);
	session_begins(options);
	server_connects();
	if (o->server_tls)
		server_shakes();
	server(BANNER);
	client("EHLO c.test");
	server("250 mx.test");
	if (o->client_tls) {
		client("STARTTLS");
		client_shakes();
	}
	client_heard();
	client("EHLO c.test");
	server(o->list);
	client_gets(o->want);
}

/* A password must not cross the network in the clear, RFC 4954 9, on either side of us; and a message with REQUIRETLS must not come in
 * the clear, RFC 8689. */
static void offers(void **state)
{
#define MX "--upstream 192.0.2.25 "
#define MXS "--upstream smtps://mx.test "
#define AUTH_LIST "250-mx.test\n250 AUTH PLAIN"
#define NO_AUTH "250-mx.test\n250-STARTTLS\n250 PIPELINING"
#define WITH_AUTH "250-mx.test\n250-AUTH PLAIN\n250-STARTTLS\n250 PIPELINING"
#define NO_AUTH_IN_TLS "250-mx.test\n250 PIPELINING"
#define AUTH_IN_TLS "250-mx.test\n250-AUTH PLAIN\n250 PIPELINING"
#define TLS_LIST "250-mx.test\n250 REQUIRETLS"
	static const struct offer rows[] = {
		{ "192.0.2.7", MX, AUTH_LIST, NO_AUTH, false, false },
		{ "192.0.2.7", MX "--plain-auth", AUTH_LIST, WITH_AUTH, false, false },
		{ "127.0.0.2", MX, AUTH_LIST, WITH_AUTH, false, false },
		{ "192.0.2.7", MX, AUTH_LIST, NO_AUTH_IN_TLS, true, false },
		{ "192.0.2.7", MX "--plain-auth", AUTH_LIST, AUTH_IN_TLS, true, false },
		{ "192.0.2.7", "--upstream 127.0.0.25", AUTH_LIST, AUTH_IN_TLS, true, false },
		{ "192.0.2.7", MXS, AUTH_LIST, AUTH_IN_TLS, true, true },
		{ "192.0.2.7", MXS, AUTH_LIST, NO_AUTH, false, true },
		{ "192.0.2.7", MXS, TLS_LIST, NO_AUTH, false, true },
		{ "192.0.2.7", MXS, TLS_LIST, "250-mx.test\n250-REQUIRETLS\n250 PIPELINING", true, true },
		{ "192.0.2.7", MX, TLS_LIST, NO_AUTH_IN_TLS, true, false },
	};

	(void)state;
	world_name("mx.test", "192.0.2.25");
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i].options, is_offered, &rows[i]);
}

/* ---- TLS ---- */

/* How each level takes a server without STARTTLS, one that refuses it, and one whose handshake fails. NULL: plain, at once, or on
 * another connection. */
static const struct level {
	const char *level, *without, *refused, *failed;
} levels[] = {
	{ "may", NULL, NULL, NULL },
	{ "verify-if-offered", NULL, "STARTTLS was refused: 454 no", "no shared cipher" },
	{ "encrypt", "STARTTLS is not offered", "STARTTLS was refused: 454 no", "no shared cipher" },
	{ "verify", "STARTTLS is not offered", "STARTTLS was refused: 454 no", "no shared cipher" },
};

/* The client was told why there is no session without TLS, and what it says next is refused. */
static void is_unusable(const struct level *l, const char *why)
{
	char line[200];

	snprintf(line, sizeof line, "tls upstream %s failed: %s", l->level, why);
	recorded(line);
	snprintf(line, sizeof line, "451 4.7.5 192.0.2.25: %s", why);
	client_gets(line);
	stands_at(OPEN, GONE);
	client("EHLO c.test");
	client_gets("421 4.7.5 192.0.2.25: no TLS");
	ended(LINGER, "smtpwarp", "no TLS");
}

static void without_starttls(void **state)
{
	const struct level *l = *state;

	to_ehlo(with(ONE "--tls", l->level));
	server("250 mx.test");
	if (l->without) {
		is_unusable(l, l->without);
		return;
	}
	client_gets("250-mx.test\n250 PIPELINING");
	not_recorded("tls");
	stands_at(OPEN, READY);
}

static void starttls_refused(void **state)
{
	const struct level *l = *state;

	to_ehlo(with(ONE "--tls", l->level));
	server("250-mx.test\n250 STARTTLS");
	server_gets("STARTTLS");
	server("454 no");
	if (l->refused) {
		is_unusable(l, l->refused);
		return;
	}
	recorded("tls upstream may fallback: STARTTLS was refused");
	client_gets("250-mx.test\n250 PIPELINING");
	stands_at(OPEN, READY);
}

static void handshake_failed(void **state)
{
	const struct level *l = *state;

	to_ehlo(with(ONE "--tls", l->level));
	server("250-mx.test\n250 STARTTLS");
	server_gets("STARTTLS");
	server("220 go");
	stands_at(OPEN, SHAKE);
	server_shake_fails("no shared cipher");
	if (l->failed) {
		is_unusable(l, l->failed);
		return;
	}
	recorded("tls upstream may fallback: no shared cipher");
	server_is_dialled("192.0.2.25:25", 2);
	server_connects();
	server("220 mx.test again");
	server_gets("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	client_gets("250-mx.test\n250 PIPELINING");
	stands_at(OPEN, READY);
}

static void handshake_done(void **state)
{
	const struct level *l = *state;

	to_ehlo(with(ONE "--tls", l->level));
	server("250-mx.test\n250-SIZE 1\n250 STARTTLS");
	server_gets("STARTTLS");
	server("220 go");
	server_shakes();
	server_gets("EHLO c.test");
	stands_at(OPEN, EHLO_TLS);
	server("250-mx.test\n250-STARTTLS\n250 SIZE 2"); /* what was said in the clear is forgotten; a second STARTTLS is not asked for */
	client_gets("250-mx.test\n250-SIZE 2\n250 PIPELINING");
	stands_at(OPEN, READY);
}

static void tls_levels(void **state)
{
	static void (*const tests[])(void **) = { without_starttls, starttls_refused, handshake_failed, handshake_done };

	(void)state;
	for (size_t i = 0; i < COUNT(levels); i++)
		for (size_t t = 0; t < COUNT(tests); t++)
			apart(levels[i].level, tests[t], &levels[i]);
}

/* No handshake can begin. */
static void tls_cannot_begin(void **state)
{
	(void)state;
	world_tls_server.cannot = "no name is known to verify";
	to_ehlo(ONE "--tls verify");
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	client_gets("451 4.7.5 192.0.2.25: no name is known to verify");
	recorded("tls upstream verify failed: no name is known to verify");
}

/* EHLO refused where TLS is a must: HELO has none either. */
static void tls_without_ehlo(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls encrypt");
	server("500 what");
	client_gets("451 4.7.5 192.0.2.25: STARTTLS is not offered");
}

/* RFC 3207 6, CVE-2021-38371. */
static void tls_injected(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls may");
	server("250-mx.test\n250 STARTTLS");
	server("220 go\n250 mx.evil.test");
	recorded("error: plaintext after the reply to STARTTLS: somebody injected it");
	client_gets("421 4.7.0 upstream's reply to STARTTLS is not to be trusted");
	stands_at(OPEN, GONE);
	ended(LINGER, "smtpwarp", "4.7.0 upstream's reply to STARTTLS is not to be trusted");
}

/* Its 220 comes before STARTTLS has left, which would go inside TLS then: to a server that somebody has asked for TLS himself, perhaps. */
static void tls_answered_before_it_is_asked_for(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls verify --tls-name mx.test");
	server("250-mx.test\n250 STARTTLS\n220 go");
	recorded("error: plaintext after the reply to STARTTLS: somebody injected it");
	client_gets("421 4.7.0 upstream's reply to STARTTLS is not to be trusted");
	server_gets("");
	stands_at(OPEN, GONE);
	ended(LINGER, "smtpwarp", "4.7.0 upstream's reply to STARTTLS is not to be trusted");
}

/* A client that says HELO has TLS as well. */
static void tls_for_helo(void **state)
{
	(void)state;
	to_banner(ONE "--tls encrypt");
	client_heard();
	client("HELO c.test");
	server_gets("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	server_gets("STARTTLS");
	server("220 go");
	server_shakes();
	server_gets("HELO c.test");
	stands_at(OPEN, HELO);
	server("250 mx.test");
	client_gets("250 mx.test");
}

static void helo_after_starttls_refused(void **state)
{
	(void)state;
	to_banner(ONE "--tls may");
	client_heard();
	client("HELO c.test");
	server("250-mx.test\n250 STARTTLS");
	server("454 no");
	server_gets("EHLO c.test\nSTARTTLS\nHELO c.test");
	server("250 mx.test");
	client_gets("250 mx.test");
}

/* The second connection is greeted with the client's own word at once. */
static void helo_after_handshake_failed(void **state)
{
	(void)state;
	to_banner(ONE "--tls may");
	client_heard();
	client("HELO c.test");
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	server_shake_fails("bad record");
	server_heard();
	server_connects();
	server(BANNER);
	server_gets("HELO c.test");
	stands_at(OPEN, HELO);
	server("250 mx.test");
	client_gets("250 mx.test");
}

static void ehlo_refused_in_tls(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls encrypt");
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	server_shakes();
	server("502 not here");
	server_gets("STARTTLS\nEHLO c.test\nHELO c.test");
	server("250 mx.test");
	client_gets("250-mx.test\n250 PIPELINING");
	stands_at(OPEN, READY);
}

static void ehlo_put_off_in_tls(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls encrypt");
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	server_shakes();
	server("450 not now");
	client_gets("450 not now");
	stands_at(OPEN, IDLE);
}

/* smtps:// */
static void tls_first(void **state)
{
	(void)state;
	session_begins("--upstream smtps://192.0.2.25 --tls none");
	server_is_dialled("192.0.2.25:465", 1);
	server_connects();
	stands_at(OPEN, SHAKE_FIRST);
	server_shakes();
	recorded("tls upstream none ok verified");
	stands_at(OPEN, BANNER);
	server(BANNER);
	client_gets(BANNER);
	client("EHLO c.test");
	server_gets("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	client_gets("250-mx.test\n250 PIPELINING");
	server_gets("");
}

/* ---- XCLIENT ---- */

static void xclient(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls none --xclient --client-names none");
	server("250-mx.test\n250 XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT FOO");
	server_gets("XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.7 PORT=1234 PROTO=ESMTP HELO=c.test DESTADDR=192.0.2.99 DESTPORT=25");
	stands_at(OPEN, XCLIENT);
	server("220 mx.test ESMTP again");
	server_gets("EHLO c.test");
	stands_at(OPEN, EHLO_AGAIN);
	server("250-mx.test\n250-SIZE 5\n250 XCLIENT ADDR");
	client_gets("250-mx.test\n250-SIZE 5\n250 PIPELINING");
	server_gets("");
	stands_at(OPEN, READY);
}

/* Attributes that one command cannot hold go into a second one. */
static void xclient_in_parts(void **state)
{
	static char name[251], line[300], want[300];

	(void)state;
	memset(name, 'n', 250);
	world_dns("7.2.0.192.in-addr.arpa", DNS_PTR, name, NULL);
	world_dns(name, DNS_A, "192.0.2.7", NULL);
	to_banner(ONE "--tls none --xclient");
	client_heard();
	snprintf(line, sizeof line, "EHLO %s", name);
	client(line);
	server_heard();
	server("250-mx.test\n250 XCLIENT NAME REVERSE_NAME HELO PORT");
	snprintf(want, sizeof want, "XCLIENT NAME=%s", name);
	server_gets(want);
	server("220 more");
	snprintf(want, sizeof want, "XCLIENT REVERSE_NAME=%s PORT=1234", name);
	server_gets(want);
	stands_at(OPEN, XCLIENT);
	server("220 more");
	snprintf(want, sizeof want, "XCLIENT HELO=%s", name);
	server_gets(want);
	server("220 " BANNER);
	server_gets(line);
	stands_at(OPEN, EHLO_AGAIN);
}

/* The host name of the client is not known yet when the server wants to hear it. */
static void xclient_waits_for_name(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls none --xclient");
	server("250-mx.test\n250 XCLIENT NAME REVERSE_NAME ADDR");
	server_gets("");
	stands_at(OPEN, XCLIENT);
	passes(1);
	dns_says("7.2.0.192.in-addr.arpa", DNS_PTR, "h.test", NULL);
	server_gets("");
	dns_says("h.test", DNS_A, "192.0.2.8", NULL);
	server_gets("XCLIENT NAME=[UNAVAILABLE] REVERSE_NAME=h.test ADDR=192.0.2.7");
	server(BANNER);
	server_gets("EHLO c.test");
}

static void xclient_name_put_off(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls none --xclient --dnsbl-timeout 3");
	server("250-mx.test\n250 XCLIENT NAME ADDR");
	falls_due_in(3, "");
	passes(3);
	server_gets("XCLIENT NAME=[TEMPUNAVAIL] ADDR=192.0.2.7");
}

/* The connection that the name was due on is gone before it comes. */
static void xclient_server_goes(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls none --xclient");
	server("250-mx.test\n250 XCLIENT NAME");
	server_closes();
	client_gets("421 4.4.2 192.0.2.25: connection closed");
	ended(LINGER, "upstream", "connection closed");
}

/* A server that does not hear who the client is would judge it by our address. */
static void xclient_refused(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls none --xclient --client-names none");
	server("250-mx.test\n250 XCLIENT ADDR");
	server("550 not from you");
	client_gets("451 4.3.5 192.0.2.25: XCLIENT was refused: 550 not from you");
	recorded("error: 4.3.5 192.0.2.25: XCLIENT was refused: 550 not from you");
	stands_at(OPEN, GONE);
	client("EHLO c.test");
	client_gets("421 4.3.5 192.0.2.25: XCLIENT was refused");
	ended(LINGER, "upstream", "connection is closed");
}

static void xclient_for_helo(void **state)
{
	(void)state;
	to_banner(ONE "--tls none --xclient --client-names none");
	client_heard();
	client("HELO c.test");
	server("250-mx.test\n250 XCLIENT PROTO");
	server(BANNER);
	server_gets("EHLO c.test\nXCLIENT PROTO=SMTP\nHELO c.test");
	stands_at(OPEN, HELO);
	server("250 mx.test");
	client_gets("250 mx.test");
}

static void xclient_then_ehlo(void **state)
{
	const char *const *row = *state;

	to_ehlo(ONE "--tls none --xclient --client-names none");
	server("250-mx.test\n250 XCLIENT ADDR");
	server(BANNER);
	server_heard();
	server(row[0]);
	server_gets(row[1]);
	client_gets(row[2]);
}

/* EHLO behind XCLIENT is a greeting like any other. */
static void xclient_and_after(void **state)
{
	static const char *const rows[][3] = {
		{ "450 not now", "", "450 not now" },
		{ "500 what", "HELO c.test", "" },
		{ "421 bye", "QUIT", "421 bye" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], xclient_then_ehlo, rows[i]);
}

/* A server that lists no attribute that is known is told nothing. */
static void xclient_of_nothing(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls none --xclient --client-names none");
	server("250-mx.test\n250 XCLIENT FOO BAR");
	server_gets("");
	client_gets("250-mx.test\n250 PIPELINING");
}

static void xclient_after_starttls_refused(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls may --xclient --client-names none");
	server("250-mx.test\n250-STARTTLS\n250 XCLIENT ADDR");
	server("454 no");
	server_gets("STARTTLS\nXCLIENT ADDR=192.0.2.7");
	stands_at(OPEN, XCLIENT);
}

/* A server that offers STARTTLS once it knows the client. */
static void xclient_then_starttls(void **state)
{
	(void)state;
	to_ehlo(ONE "--tls may --xclient --client-names none");
	server("250-mx.test\n250 XCLIENT ADDR");
	server(BANNER);
	server("250-mx.test\n250 STARTTLS");
	server_gets("XCLIENT ADDR=192.0.2.7\nEHLO c.test\nSTARTTLS");
	stands_at(OPEN, STARTTLS);
	server("220 go");
	server_shakes();
	server_gets("EHLO c.test");
	server("250 mx.test");
	client_gets("250-mx.test\n250 PIPELINING");
	stands_at(OPEN, READY);
}

/* ---- --upstream-auth ---- */

/* Up to AUTH, which is the last that the server heard. */
static void to_auth(const char *options, const char *word, const char *mechanisms)
{
	char line[100];

	to_banner(with_password(options));
	client_gets(BANNER);
	client(word);
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	server_shakes();
	server_heard();
	snprintf(line, sizeof line, "250-mx.test\n250%s%s", *mechanisms ? " AUTH " : " SIZE", mechanisms);
	server(line);
}

static void auth_plain(void **state)
{
	(void)state;
	to_auth(ONE "--tls may", "EHLO c.test", "CRAM-MD5 PLAIN LOGIN");
	server_gets("AUTH PLAIN AHVzZXIAc2VjcmV0");
	stands_at(OPEN, AUTH);
	recorded("|> AUTH PLAIN");
	client_gets("");
	server("235 welcome");
	client_gets("250-mx.test\n250 PIPELINING");
	stands_at(OPEN, READY);
	client("EHLO again.test"); /* AUTH once, RFC 4954 4 */
	server("250-mx.test\n250 AUTH PLAIN");
	client_gets("250-mx.test\n250 PIPELINING");
	server_gets("EHLO again.test");
}

/* The server trusts us, not a client that it does not know: RFC 4954 5. */
static void auth_and_whose_mail_it_is(void **state)
{
	(void)state;
	to_auth(ONE "--tls may", "EHLO c.test", "PLAIN");
	server("235 welcome");
	server_heard();
	client_heard();
	client("MAIL FROM:<a@b.test> AUTH=boss@b.test");
	server_gets("");
	client_gets("555 5.5.4 A parameter is not offered here");
	client("MAIL FROM:<a@b.test>");
	server_gets("MAIL FROM:<a@b.test>");
}

static void auth_login(void **state)
{
	(void)state;
	to_auth(ONE "--tls may", "EHLO c.test", "LOGIN");
	server_gets("AUTH LOGIN");
	server("334 VXNlcm5hbWU6");
	server_gets("dXNlcg==");
	stands_at(OPEN, AUTH);
	server("334 UGFzc3dvcmQ6");
	server_gets("c2VjcmV0");
	recorded("|> (answer to AUTH)");
	recorded("|> (answer to AUTH)");
	server("235 welcome");
	client_gets("250-mx.test\n250 PIPELINING");
}

static void auth_for_helo(void **state)
{
	(void)state;
	to_auth(ONE "--tls may", "HELO c.test", "PLAIN");
	server_heard();
	server("235 welcome");
	server_gets("HELO c.test");
	stands_at(OPEN, HELO);
	server("250 mx.test");
	client_gets("250 mx.test");
	stands_at(OPEN, READY);
}

static void auth_fails(void **state)
{
	const char *const *row = *state;

	to_auth(ONE "--tls may", "EHLO c.test", row[0]);
	if (*row[1])
		server(row[1]);
	client_gets(row[2]);
	recorded(row[3]);
	stands_at(OPEN, GONE);
	client("EHLO c.test");
	client_gets(row[4]);
	ended(LINGER, "upstream", "connection is closed");
}

static void auth_refused(void **state)
{
	static const char *const rows[][5] = {
		{ "PLAIN", "535 wrong", "451 4.7.8 192.0.2.25: authentication failed",
		    "error: 4.7.8 192.0.2.25: authentication failed: 535 wrong", "421 4.7.8 192.0.2.25: authentication failed" },
		{ "PLAIN", "334 more", "451 4.7.8 192.0.2.25: authentication failed",
		    "error: 4.7.8 192.0.2.25: authentication failed: 334 more", "421 4.7.8 192.0.2.25: authentication failed" },
		{ "LOGIN", "334 a\n334 b\n334 c", "451 4.7.8 192.0.2.25: authentication failed",
		    "error: 4.7.8 192.0.2.25: authentication failed: 334 c", "421 4.7.8 192.0.2.25: authentication failed" },
		{ "CRAM-MD5", "", "451 4.7.4 192.0.2.25: neither AUTH PLAIN nor LOGIN is offered",
		    "error: 4.7.4 192.0.2.25: neither AUTH PLAIN nor LOGIN is offered",
		    "421 4.7.4 192.0.2.25: neither AUTH PLAIN nor LOGIN is offered" },
		{ "", "", "451 4.7.4 192.0.2.25: neither AUTH PLAIN nor LOGIN is offered",
		    "error: 4.7.4 192.0.2.25: neither AUTH PLAIN nor LOGIN is offered",
		    "421 4.7.4 192.0.2.25: neither AUTH PLAIN nor LOGIN is offered" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][1], auth_fails, rows[i]);
}

/* Whom the server's certificate names, and what the file says of that. */
static const struct trust {
	const char *upstream, *line;
	bool verified;
	const char *want; /* the reply and why; NULL: the password is said */
} trusts[] = {
	{ "192.0.2.25", "* user:secret\n", true, NULL },
	{ "192.0.2.25", "* user:secret\n", false, "certificate is not verified" },
	{ "127.0.0.25", "* user:secret\n", false, NULL },
	{ "192.0.2.25", "* unverified user:secret\n", false, NULL },
	{ "192.0.2.25", "* fingerprint=5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a user:secret\n", false, NULL },
	{ "192.0.2.25", "* fingerprint=a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5 user:secret\n", true,
	    "certificate has another fingerprint" },
};

static void auth_to_whom(void **state)
{
	const struct trust *t = *state;
	char text[300];

	snprintf(text, sizeof text, "--upstream %s --tls may --upstream-auth %s", t->upstream, file_of(t->line));
	world_tls_server.facts.verified = t->verified;
	to_ehlo(text);
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	server_shakes();
	server_heard();
	server("250-mx.test\n250 AUTH PLAIN");
	if (!t->want) {
		server_gets("AUTH PLAIN AHVzZXIAc2VjcmV0");
		return;
	}
	server_gets("");
	snprintf(text, sizeof text, "451 4.7.5 %s: %s", t->upstream, t->want);
	client_gets(text);
	snprintf(text, sizeof text, "error: 4.7.5 %s: %s: there is a password for it; the certificate has fingerprint=%s%s", t->upstream,
	    t->want, "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a", "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a");
	recorded(text);
	stands_at(OPEN, GONE);
}

static void auth_to_the_right_one(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(trusts); i++)
		apart(trusts[i].line, auth_to_whom, &trusts[i]);
}

/* "*" is no line for a server that the client has chosen. */
static void auth_to_original_destination(void **state)
{
	(void)state;
	to_ehlo(with_password("--tls none"));
	server("250-mx.test\n250 AUTH PLAIN");
	client_gets("250-mx.test\n250 PIPELINING");
}

/* A password does not cross the network in the clear, whatever --tls is. */
static void auth_without_tls(void **state)
{
	static const struct level may = { "may", NULL, NULL, NULL };

	(void)state;
	to_ehlo(with_password(ONE "--tls may"));
	server("250-mx.test\n250 AUTH PLAIN");
	is_unusable(&may, "STARTTLS is not offered");
}

static void auth_after_starttls_refused(void **state)
{
	static const struct level may = { "may", NULL, NULL, NULL };

	(void)state;
	to_ehlo(with_password(ONE "--tls may"));
	server("250-mx.test\n250-STARTTLS\n250 AUTH PLAIN");
	server("454 no");
	is_unusable(&may, "STARTTLS was refused: 454 no");
}

/* --tls none with a password: no STARTTLS is asked for, and so nothing can be said. */
static void auth_with_tls_none(void **state)
{
	(void)state;
	to_ehlo(with_password(ONE "--tls none"));
	server("250-mx.test\n250-STARTTLS\n250 AUTH PLAIN");
	client_gets("451 4.7.5 192.0.2.25: no TLS");
	recorded("error: 4.7.5 192.0.2.25: no TLS: there is a password for it");
	client("EHLO c.test");
	client_gets("421 4.7.5 192.0.2.25: no TLS");
	ended(LINGER, "smtpwarp", "no TLS");
}

static void auth_for_server_of_helo(void **state)
{
	(void)state;
	to_banner(with_password(ONE "--tls none"));
	client_heard();
	client("EHLO c.test");
	server("500 what");
	client_gets("451 4.7.5 192.0.2.25: no TLS");
}

static void auth_first_of_all(void **state)
{
	(void)state;
	session_begins(with_password("--upstream smtps://192.0.2.25"));
	server_connects();
	server_shakes();
	server(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250 AUTH PLAIN");
	server_gets("EHLO c.test\nAUTH PLAIN AHVzZXIAc2VjcmV0");
	stands_at(OPEN, AUTH);
}

/* The server has forgotten us with XCLIENT: AUTH comes behind it. */
static void auth_after_xclient(void **state)
{
	(void)state;
	to_banner(with_password(ONE "--tls may --xclient --client-names none"));
	client("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	server_shakes();
	server("250-mx.test\n250-XCLIENT ADDR\n250 AUTH PLAIN");
	server(BANNER);
	server_heard();
	server("250-mx.test\n250 AUTH PLAIN");
	server_gets("AUTH PLAIN AHVzZXIAc2VjcmV0");
	stands_at(OPEN, AUTH);
}

/* No line of the file is for this server. */
static void auth_for_another(void **state)
{
	static char options[200];

	(void)state;
	snprintf(options, sizeof options, ONE "--tls none --upstream-auth %s", file_of("other.test user:secret\n"));
	to_ehlo(options);
	server("250-mx.test\n250 AUTH PLAIN");
	client_gets("250-mx.test\n250 PIPELINING");
	server_gets("");
}

/* ---- LMTP ---- */

static void lmtp(void **state)
{
	(void)state;
	session_begins("--upstream lmtp://192.0.2.25 --tls none");
	server_is_dialled("192.0.2.25:24", 1);
	server_connects();
	server("220 mda.test LMTP");
	client_heard();
	client("EHLO c.test");
	server_gets("LHLO c.test");
	server("250-mda.test\n250 SIZE 7");
	client_gets("250-mda.test\n250-SIZE 7\n250-LIMITS RCPTMAX=1\n250 PIPELINING");
	client("LHLO c.test");
	server_gets("LHLO c.test");
	server("250 mda.test");
	client_gets("250-mda.test\n250 PIPELINING");
	client("HELO c.test"); /* no extensions then */
	server_gets("LHLO c.test");
	server("250-mda.test\n250 SIZE 7");
	client_gets("250 mda.test");
}

/* There is but one way, RFC 2033 4.1. */
static void lmtp_refused(void **state)
{
	(void)state;
	session_begins("--upstream lmtp://192.0.2.25 --tls none");
	server_connects();
	server("220 mda.test LMTP");
	client_heard();
	client("EHLO c.test");
	server_gets("LHLO c.test");
	server("500 what");
	server_gets("");
	client_gets("500 what");
	stands_at(OPEN, IDLE);
}

static void lmtp_at_a_socket(void **state)
{
	(void)state;
	session_begins("--upstream lmtp:unix:/run/lmtp --tls none");
	server_is_dialled("/run/lmtp", 1);
	server_connects();
	server("220 mda.test LMTP");
	client_gets("220 mda.test LMTP");
}

/* ---- 421, and servers that close, at each point of the way ---- */

static const char all[] = "--upstream 192.0.2.25 --tls encrypt --xclient --client-names none";
static const char list[] = "250-mx.test\n250-STARTTLS\n250-XCLIENT ADDR\n250 AUTH PLAIN";

/* The whole way, up to this state. */
static void go_to(enum server_state wanted)
{
	static const struct {
		enum server_state reached;
		const char *by;
	} way[] = {
		{ SERVER_EHLO, NULL }, { SERVER_STARTTLS, list }, { SERVER_SHAKE, "220 go" }, { SERVER_EHLO_TLS, NULL },
		{ SERVER_XCLIENT, list }, { SERVER_EHLO_AGAIN, BANNER }, { SERVER_AUTH, list }, { SERVER_READY, "235 in" },
	};
	bool by_helo = wanted == SERVER_HELO;

	session_begins(by_helo ? ONE "--tls none" : with_password(all));
	server_connects();
	if (wanted == SERVER_BANNER)
		return;
	server(BANNER);
	client_gets(BANNER);
	if (wanted != SERVER_IDLE)
		client(by_helo ? "HELO c.test" : "EHLO c.test");
	for (size_t i = 0; wanted != SERVER_IDLE && !by_helo; i++) {
		if (way[i].by)
			server(way[i].by);
		else if (way[i].reached == SERVER_EHLO_TLS)
			server_shakes();
		assert_int_equal(the_session()->server.state, way[i].reached);
		if (way[i].reached == wanted)
			break;
	}
	assert_int_equal(the_session()->server.state, wanted);
	if (wanted != SERVER_READY)
		client_gets("");
	client_heard();
	server_heard();
}

static const enum server_state points[] = { SERVER_BANNER, SERVER_IDLE, SERVER_EHLO, SERVER_STARTTLS, SERVER_EHLO_TLS, SERVER_XCLIENT,
	SERVER_EHLO_AGAIN, SERVER_AUTH, SERVER_HELO, SERVER_READY };

/* RFC 5321 3.8: it goes on to the client, who can say nothing better; whether it was asked for or not. */
static void says_421(void **state)
{
	go_to(*(const enum server_state *)*state);
	server("421-4.3.2 mx.test\n421 4.3.2 shutting down");
	client_gets("421-4.3.2 mx.test\n421 4.3.2 shutting down");
	ended(LINGER, "upstream", "reply 421 4.3.2 shutting down");
}

static void says_421_anywhere(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(points); i++)
		apart("421", says_421, &points[i]);
}

static void server_closes_at(void **state)
{
	enum server_state point = *(const enum server_state *)*state;

	go_to(point);
	server_closes();
	if (point == SERVER_BANNER) {
		client_gets("421 4.4.1 192.0.2.25: connection closed");
		recorded("error: 4.4.1 192.0.2.25: connection closed");
		ended(LINGER, "smtpwarp", "4.4.1 192.0.2.25: connection closed");
		return;
	}
	client_gets("421 4.4.2 192.0.2.25: connection closed");
	recorded("error: 192.0.2.25: connection closed");
	ended(LINGER, "upstream", "connection closed");
}

static void server_breaks_at(void **state)
{
	enum server_state point = *(const enum server_state *)*state;

	go_to(point);
	server_breaks();
	client_gets(point == SERVER_BANNER ? "421 4.4.1 192.0.2.25: connection reset" : "421 4.4.2 192.0.2.25: connection reset");
}

/* Half a reply is none. */
static void server_closes_within_reply(void **state)
{
	go_to(*(const enum server_state *)*state);
	server("250-mx.test");
	server_closes();
	client_gets("421 4.4.2 192.0.2.25: connection closed");
}

static void server_closes_anywhere(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(points); i++) {
		apart("closes", server_closes_at, &points[i]);
		apart("breaks", server_breaks_at, &points[i]);
		if (points[i] >= SERVER_EHLO && points[i] != SERVER_READY)
			apart("closes within a reply", server_closes_within_reply, &points[i]);
	}
}

/* The client was greeted before: 421 finds it so. */
static void says_421_to_greeted(void **state)
{
	static const char *const way[] = { list, BANNER };
	size_t length = (size_t)(*(const char *const *)*state)[0] - '0';

	to_ehlo(ONE "--tls none --xclient --client-names none");
	for (size_t i = 0; i < COUNT(way); i++)
		server(way[i]);
	server(list);
	stands_at(OPEN, READY);
	client("EHLO again.test");
	client_heard();
	for (size_t i = 0; i < length; i++)
		server(way[i]);
	server("421 bye");
	client_gets("421 bye");
	ended(LINGER, "upstream", "reply 421 bye");
}

static void says_421_after_second_ehlo(void **state)
{
	static const char *const lengths[] = { "0", "1", "2" };

	(void)state;
	for (size_t i = 0; i < COUNT(lengths); i++)
		apart(lengths[i], says_421_to_greeted, &lengths[i]);
}

/* ---- --connect-on recipient ---- */

#define LATE "--upstream 192.0.2.25 --tls none --connect-on recipient "

static void late_greeting(void **state)
{
	(void)state;
	session_begins(LATE);
	client_gets("220 warp.test ESMTP");
	stands_at(OPEN, NONE);
	client("EHLO c.test");
	client_gets("250-warp.test\n250-ENHANCEDSTATUSCODES\n250-SIZE 10240000\n250-8BITMIME\n250-SMTPUTF8\n250-CHUNKING\n250 PIPELINING");
	client("HELO c.test");
	client_gets("250 warp.test");
	assert_int_equal(world_net.attempts, 0);
}

/* Up to the server for the first recipient being greeted. */
static void late_to_ehlo(const char *options)
{
	session_begins(options);
	client("EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	client_heard();
	stands_at(SERVER, CONNECTING);
	server_connects();
	server(BANNER);
	server_gets("EHLO c.test");
	stands_at(SERVER, EHLO);
}

static void late_server(void **state)
{
	(void)state;
	late_to_ehlo(LATE);
	server("250 mx.test");
	server_gets("MAIL FROM:<a@b.test>");
	server("250 sender ok");
	server_gets("RCPT TO:<r@d.test>");
	stands_at(OPEN, READY);
	server("250 recipient ok");
	client_gets("250 recipient ok");
}

static void late_server_refuses(void **state)
{
	const char *const *row = *state;

	session_begins(LATE);
	client("EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	client_heard();
	server_connects();
	server(row[0]);
	if (row[1])
		server(row[1]);
	client_gets(row[2]);
	stands_at(OPEN, NONE);
	goes_still();
}

static void late_server_leaves_at_starttls(void **state)
{
	(void)state;
	session_begins(LATE "--tls may ");
	client("EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	client_heard();
	server_connects();
	server(BANNER);
	server("250-mx.test\n250 STARTTLS");
	server("421 bye");
	client_gets("451 4.4.1 192.0.2.25: STARTTLS was refused: 421 bye");
}

/* The recipient is put off, not the session. */
static void late_refusals(void **state)
{
	static const char *const rows[][3] = {
		{ "554 no", NULL, "451 4.4.1 192.0.2.25: greeting 554 no" },
		{ BANNER, "450 not now", "451 4.4.1 192.0.2.25: EHLO was refused: 450 not now" },
		{ BANNER, "421 bye", "451 4.4.1 192.0.2.25: EHLO was refused: 421 bye" },
		{ BANNER, "250-mx.test\n250 SIZE\n250 and more", "451 4.5.0 192.0.2.25: a reply that nothing was asked for" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][2], late_server_refuses, rows[i]);
}

/* --auth: which mechanisms there are, the server for the session knows. */
static void late_list(void **state)
{
	(void)state;
	redirected_from("192.0.2.99");
	session_begins(LATE "--auth --plain-auth");
	client_gets("220 warp.test ESMTP");
	client("EHLO c.test");
	stands_at(LIST, CONNECTING);
	client_gets("");
	server_connects();
	server(BANNER);
	server("250-mx.test\n250 AUTH PLAIN LOGIN");
	stands_at(OPEN, READY);
	client_gets("250-warp.test\n250-ENHANCEDSTATUSCODES\n250-SIZE 10240000\n250-8BITMIME\n250-SMTPUTF8\n250-CHUNKING\n"
		    "250-AUTH PLAIN LOGIN\n250 PIPELINING");
	client("EHLO again.test"); /* the server that is here is asked again */
	server_gets("EHLO c.test\nEHLO again.test");
	stands_at(LIST, EHLO);
	server("250-mx.test\n250 AUTH PLAIN");
	client_heard();
	stands_at(OPEN, READY);
}

static void late_list_refused(void **state)
{
	(void)state;
	session_begins(LATE "--auth --plain-auth");
	client_heard();
	client("EHLO c.test");
	server_connects();
	server("554 no");
	client_gets("421 4.4.1 192.0.2.25: greeting 554 no");
	ended(LINGER, "smtpwarp", "4.4.1 192.0.2.25: greeting 554 no");
}

/* ---- --client-tls auto ---- */

#define AUTO "--upstream 192.0.2.25 --client-tls auto --allow-clients 192.0.2.0/24 "
#define OFFERED "250-mx.test\n250-AUTH PLAIN\n250 STARTTLS"

/* The client has begun a message without TLS. */
static void to_mail(const char *options)
{
	session_begins(options);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server(OFFERED);
	client_heard();
	server_heard();
	client("MAIL FROM:<a@b.test>");
	stands_at(SECURE, STARTTLS);
	server_gets("STARTTLS");
	client_gets("");
}

static void message_without_tls(void **state)
{
	(void)state;
	session_begins(AUTO);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server_gets("EHLO c.test");
	server(OFFERED);
	client_gets("220 mx.test ESMTP\n250-mx.test\n250-STARTTLS\n250 PIPELINING"); /* AUTH is for clients on this host */
	client("MAIL FROM:<a@b.test>");
	stands_at(SECURE, STARTTLS);
	server("220 go");
	server_shakes();
	server("250 mx.test");
	server_gets("STARTTLS\nEHLO c.test\nMAIL FROM:<a@b.test>");
	server("250 ok");
	client_gets("250 ok");
	stands_at(OPEN, READY);
	client("RSET");
	server("250 ok");
	client_heard();
	server_heard();
	client("STARTTLS"); /* which the client was shown */
	client_gets("502 5.5.1 Not offered");
	server_gets("");
	client("MAIL FROM:<c@b.test>");
	stands_at(OPEN, READY);
}

static void starttls_is_refused_for_a_message(void **state)
{
	(void)state;
	to_mail(AUTO);
	server("454 no");
	server_gets("MAIL FROM:<a@b.test>");
	stands_at(OPEN, READY);
}

static void tls_that_a_message_must_have(void **state)
{
	(void)state;
	to_mail(AUTO "--tls encrypt ");
	server("454 no");
	client_gets("451 4.7.5 192.0.2.25: STARTTLS was refused: 454 no");
	server_gets("");
	stands_at(OPEN, GONE);
	client("RSET");
	client_gets("421 4.7.5 192.0.2.25: no TLS");
}

static void upstream_is_silent_after_starttls(void **state)
{
	(void)state;
	to_mail(AUTO);
	passes(300);
	client_gets("421 4.4.2 192.0.2.25: upstream did not reply in time");
}

static void greeting_is_refused_inside_of_tls(void **state)
{
	(void)state;
	to_mail(AUTO);
	server("220 go");
	server_shakes();
	server("451 later");
	client_gets("451 4.4.1 192.0.2.25: EHLO was refused: 451 later");
}

#define SECRET "AHVzZXIAc2VjcmV0"

static bool holds_secret(void)
{
	const struct held *h = the_session()->held;

	return memmem(h->line, sizeof h->line, SECRET, sizeof SECRET - 1);
}

/* The password of an AUTH that waits for TLS is nowhere when the session is over, whoever ends it. */
static void ends_while_auth_waits(void **state)
{
	static void (*const ends[])(void) = { client_breaks, server_closes };
	static const char *const closes[] = { "close client: connection reset", "close upstream: connection closed" };
	const size_t i = *(const size_t *)*state;

	session_begins(AUTO "--plain-auth --tls encrypt");
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server(OFFERED);
	client("AUTH PLAIN " SECRET);
	stands_at(SECURE, STARTTLS);
	assert_true(holds_secret());
	ends[i]();
	recorded(closes[i]);
	assert_false(holds_secret());
}

static void secret_of_auth_that_waits(void **state)
{
	static const size_t each[] = { 0, 1 };

	(void)state;
	for (size_t i = 0; i < COUNT(each); i++)
		apart("the session ends", ends_while_auth_waits, &each[i]);
}

static void helo_cannot_ask_for_tls(void **state)
{
	(void)state;
	session_begins(AUTO);
	server_connects();
	server(BANNER);
	client("HELO c.test");
	server_gets("EHLO c.test");
	server(OFFERED);
	server_gets("STARTTLS");
}

/* ---- --tls-on recipient ---- */

/* A server that takes one greeting: the EHLO that was for XCLIENT. What it says to those for the recipient is no word for the client. */
static void helo_of_a_server_that_was_greeted(void **state)
{
	(void)state;
	session_begins(ONE "--tls-on recipient --tls may --xclient");
	server_connects();
	server(BANNER);
	client("HELO c.test");
	server("250 mx.test");
	server("503 duplicate");
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	server_gets("EHLO c.test\nHELO c.test\nEHLO c.test");
	stands_at(SERVER, EHLO);
	server("503 duplicate");
	client_heard();
	server("503 duplicate");
	client_gets("");
	server_is_dialled("192.0.2.25:25", 2);
	server_connects();
	server_heard();
	server(BANNER);
	server("250 mx.test");
	server_gets("EHLO c.test\nMAIL FROM:<a@b.test>");
	server("250 ok");
	server_gets("RCPT TO:<r@d.test>");
	server("250 ok");
	client_gets("250 ok");
	stands_at(OPEN, READY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(banner_accepts), cmocka_unit_test(banner_refuses), cmocka_unit_test(banner_is_421),
		cmocka_unit_test(banner_of_next), cmocka_unit_test(banner_is_no_reply), cmocka_unit_test(banner_and_more),
		cmocka_unit_test(banner_after_tease), cmocka_unit_test(banner_refuses_after_tease),
		cmocka_unit_test(banner_too_late), cmocka_unit_test(ehlo), cmocka_unit_test(helo),
		cmocka_unit_test(helo_refused), cmocka_unit_test(helo_after_list), cmocka_unit_test(ehlo_put_off),
		cmocka_unit_test(ehlo_unknown), cmocka_unit_test(ehlo_and_helo_refused), cmocka_unit_test(closes_after_ehlo),
		cmocka_unit_test(closes_after_past_refusal), cmocka_unit_test(closes_after_past_refusal_in_plain),
		cmocka_unit_test(offers), cmocka_unit_test(tls_levels), cmocka_unit_test(tls_cannot_begin),
		cmocka_unit_test(tls_without_ehlo), cmocka_unit_test(tls_injected),
		cmocka_unit_test(tls_answered_before_it_is_asked_for), cmocka_unit_test(tls_for_helo),
		cmocka_unit_test(helo_after_starttls_refused), cmocka_unit_test(helo_after_handshake_failed),
		cmocka_unit_test(ehlo_refused_in_tls), cmocka_unit_test(ehlo_put_off_in_tls), cmocka_unit_test(tls_first),
		cmocka_unit_test(xclient), cmocka_unit_test(xclient_in_parts), cmocka_unit_test(xclient_waits_for_name),
		cmocka_unit_test(xclient_name_put_off), cmocka_unit_test(xclient_server_goes),
		cmocka_unit_test(xclient_refused), cmocka_unit_test(xclient_for_helo), cmocka_unit_test(xclient_and_after),
		cmocka_unit_test(xclient_of_nothing), cmocka_unit_test(xclient_after_starttls_refused),
		cmocka_unit_test(xclient_then_starttls), cmocka_unit_test(auth_plain), cmocka_unit_test(auth_and_whose_mail_it_is),
		cmocka_unit_test(auth_login),
		cmocka_unit_test(auth_for_helo), cmocka_unit_test(auth_refused), cmocka_unit_test(auth_to_the_right_one),
		cmocka_unit_test(auth_to_original_destination), cmocka_unit_test(auth_without_tls),
		cmocka_unit_test(auth_after_starttls_refused), cmocka_unit_test(auth_with_tls_none),
		cmocka_unit_test(auth_for_server_of_helo), cmocka_unit_test(auth_first_of_all),
		cmocka_unit_test(auth_after_xclient), cmocka_unit_test(auth_for_another), cmocka_unit_test(lmtp),
		cmocka_unit_test(lmtp_refused), cmocka_unit_test(lmtp_at_a_socket), cmocka_unit_test(says_421_anywhere),
		cmocka_unit_test(server_closes_anywhere), cmocka_unit_test(says_421_after_second_ehlo),
		cmocka_unit_test(late_greeting), cmocka_unit_test(late_server), cmocka_unit_test(late_server_leaves_at_starttls),
		cmocka_unit_test(late_refusals),
		cmocka_unit_test(late_list), cmocka_unit_test(late_list_refused),
		cmocka_unit_test(message_without_tls), cmocka_unit_test(starttls_is_refused_for_a_message),
		cmocka_unit_test(tls_that_a_message_must_have), cmocka_unit_test(upstream_is_silent_after_starttls),
		cmocka_unit_test(greeting_is_refused_inside_of_tls), cmocka_unit_test(helo_cannot_ask_for_tls),
		cmocka_unit_test(secret_of_auth_that_waits), cmocka_unit_test(helo_of_a_server_that_was_greeted),
	};

	return run_session_tests(tests);
}
