/* The server of a session: where it is, the attempts to reach it, and which one is tried next. */
#include "test/lib/fake_session.h"

#include <errno.h>

#define BANNER "220 mx.test ESMTP"

/* ---- where to ---- */

static void original_destination(void **state)
{
	(void)state;
	session_begins("--tls none");
	server_is_dialled("192.0.2.99:25", 1);
	server_connects();
	server(BANNER);
	client_gets(BANNER);
	recorded("connect 192.0.2.99:25: mx.test ESMTP");
}

static void no_destination(void **state)
{
	static const char why[] = "4.3.5 No destination: this connection was not redirected here, and there is no --upstream";
	char line[200];

	(void)state;
	redirected_from("");
	session_begins("--tls none");
	snprintf(line, sizeof line, "421 %s", why);
	client_gets(line);
	snprintf(line, sizeof line, "error: %s", why);
	recorded(line);
	ended(LINGER, "smtpwarp", why);
	assert_int_equal(world_net.attempts, 0);
}

/* --upstream without a word on who may use it. */
static void open_relay(void **state)
{
	(void)state;
	redirected_from("");
	session_begins("--upstream 192.0.2.25");
	client_gets("421 4.3.5 Service is not configured rightly");
	ended(LINGER, "smtpwarp", "open relay");
	assert_int_equal(world_net.attempts, 0);
}

/* The redirect caught a connection of an smtpwarp: it would go round for ever. No record is written of such a session. */
static void caught_own(void **state)
{
	(void)state;
	world_net.caught = true;
	session_begins("--tls none");
	client_gets("421 4.3.5 smtpwarp's own connection was redirected to it");
	recorded("error: this connection is smtpwarp's own, caught by the redirect: exempt smtpwarp's user or --mark in the firewall "
		 "rule");
	not_recorded("close");
	ended(FLUSH, "", "");
	assert_int_equal(world_net.attempts, 0);
}

/* A client that came directly is none that a redirect caught. */
static void direct_is_not_caught(void **state)
{
	(void)state;
	redirected_from("");
	world_net.caught = true;
	session_begins("--upstream 192.0.2.25 --allow-clients 192.0.2.0/24");
	server_is_dialled("192.0.2.25:25", 1);
}

static void own_address(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.1 --upstream 192.0.2.26 --tls none");
	recorded("error: 4.3.5 192.0.2.1: this is the address of smtpwarp itself");
	server_is_dialled("192.0.2.26:25", 1);
}

/* By TPROXY the local end of the client's socket is the destination, and no address of ours. */
static void tproxy(void **state)
{
	(void)state;
	world_net.tproxy = true;
	session_begins("--tls none");
	server_is_dialled("192.0.2.99:25", 1);
}

/* ---- attempts ---- */

static void each_candidate(void **state)
{
	(void)state;
	world_name("a.test", "192.0.2.25 2001:db8::25");
	session_begins("--upstream a.test --upstream 192.0.2.26 --upstream b.test --tls none");
	server_is_dialled("192.0.2.25:25", 1);
	server_connect_fails(ECONNREFUSED);
	recorded("error: 4.4.1 a.test: Connection refused");
	server_is_dialled("2001:db8::25:25", 2);
	falls_due_in(30, "connection timed out");
	passes(30);
	recorded("error: 4.4.1 a.test: connection timed out");
	server_is_dialled("192.0.2.26:25", 3);
	server_connect_fails(EHOSTUNREACH);
	recorded("error: 4.4.1 192.0.2.26: No route to host");
	stands_at(OPEN, RESOLVING);
	client_gets("");
	name_is("b.test", "");
	recorded("error: 4.4.3 b.test: name lookup: no such host");
	client_gets("421 4.4.3 b.test: name lookup: no such host");
	stands_at(OPEN, GONE);
	ended(LINGER, "smtpwarp", "4.4.3 b.test: name lookup: no such host");
}

/* What it says before its banner is complete is no word of the session's. */
static void next_after_silence(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --upstream 192.0.2.26 --tls none --banner-timeout 20");
	server_connects();
	server("220-mx.test");
	falls_due_in(20, "upstream did not reply in time");
	passes(20);
	recorded("error: 4.4.1 192.0.2.25: upstream did not reply in time");
	server_is_dialled("192.0.2.26:25", 2);
	server_connects();
	server(BANNER);
	client_gets(BANNER);
}

/* The name is looked up for 10 seconds at most, or for as long as a connection may take. */
static void lookup_takes_long(void **state)
{
	(void)state;
	session_begins("--upstream a.test --upstream b.test --tls none");
	falls_due_in(10, "");
	passes(10);
	recorded("error: 4.4.3 a.test: name lookup: no answer in time");
	stands_at(OPEN, RESOLVING);
	name_is("b.test", "192.0.2.26");
	server_is_dialled("192.0.2.26:25", 1);
}

static void lookup_is_patient(void **state)
{
	(void)state;
	session_begins("--upstream a.test --tls none --connect-timeout 4");
	falls_due_in(4, "");
}

static void client_leaves_in_lookup(void **state)
{
	(void)state;
	session_begins("--upstream a.test --tls none");
	stands_at(OPEN, RESOLVING);
	client_closes();
	stands_at(OPEN, GONE);
	ended(FLUSH, "client", "connection closed");
}

static void client_leaves_in_connect(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --tls none");
	client_closes();
	stands_at(OPEN, GONE);
	assert_int_equal(world_server.fd, -1);
	ended(FLUSH, "client", "connection closed");
}

/* Attempts that cannot even begin. */
static void cannot_begin(void **state)
{
	static const struct {
		const char *step, *options, *want;
		int error;
	} rows[] = {
		{ "connect", "", "4.4.1 192.0.2.25: connect: Network is unreachable", ENETUNREACH },
		{ "socket", "", "4.3.5 192.0.2.25: socket: Too many open files", EMFILE },
		{ "mark", "--mark 7", "4.3.5 192.0.2.25: mark: Operation not permitted", EPERM },
		{ "source address", "--outbound-ip 192.0.2.77",
		    "4.3.5 192.0.2.25: the source address 192.0.2.77 is not on this host", EADDRNOTAVAIL },
		{ "source address", "--outbound-ip 192.0.2.77", "4.3.5 192.0.2.25: source address: Operation not permitted", EPERM },
	};
	size_t i = (size_t)*(const char *)*state;
	char line[200];

	world_net.fails_at = rows[i].step;
	world_net.fails_with = rows[i].error;
	snprintf(line, sizeof line, "--upstream 192.0.2.25 --tls none %s", rows[i].options);
	session_begins(line);
	snprintf(line, sizeof line, "error: %s", rows[i].want);
	recorded(line);
	snprintf(line, sizeof line, "421 %s", rows[i].want);
	client_gets(line);
	stands_at(OPEN, GONE);
}

static void attempts_that_cannot_begin(void **state)
{
	static const char rows[] = { 0, 1, 2, 3, 4 };

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart("an attempt", cannot_begin, &rows[i]);
}

/* ---- source addresses ---- */

static const char *source(void)
{
	static char text[NET_TEXT];

	return net_text(&world_net.source, text);
}

static void source_of_options(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --upstream [2001:db8::25]:25 --tls none --outbound-ip 192.0.2.77 --outbound-ip 2001:db8::77");
	assert_string_equal(source(), "192.0.2.77");
	assert_false(world_net.transparent);
	server_connect_fails(ECONNREFUSED);
	assert_string_equal(source(), "2001:db8::77");
}

static void source_is_client(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --tls none --outbound-ip client");
	assert_string_equal(source(), "192.0.2.7");
	assert_int_equal(net_port(&world_net.source), 0);
	assert_true(world_net.transparent);
}

static void source_is_client_of_ipv6(void **state)
{
	(void)state;
	client_is("2001:db8::7");
	session_begins("--upstream [2001:db8::25]:25 --tls none --outbound-ip client");
	assert_string_equal(source(), "2001:db8::7");
	assert_int_equal(net_port(&world_net.source), 0);
	assert_true(world_net.transparent);
}

/* A verdict's takes the place of the client's. */
static void source_of_verdict(void **state)
{
	(void)state;
	hook_is_there(HOOK_CONNECT, "where");
	session_begins("--upstream 192.0.2.25 --tls none --outbound-ip client");
	stands_at(HOOKS, NONE);
	hook_says("source 192.0.2.78\n");
	assert_string_equal(source(), "192.0.2.78");
	assert_false(world_net.transparent);
}

/* A connection from any address would not be what the verdict asked for. */
static void source_of_other_family(void **state)
{
	(void)state;
	hook_is_there(HOOK_CONNECT, "where");
	session_begins("--upstream 192.0.2.25 --tls none");
	hook_says("source 2001:db8::78\n");
	recorded("error: 4.3.5 192.0.2.25: the source address is of the other family of addresses");
	client_gets("421 4.3.5 192.0.2.25: the source address is of the other family of addresses");
	assert_int_equal(world_net.attempts, 0);
}

/* Options have one of this family. */
static void source_of_both(void **state)
{
	(void)state;
	hook_is_there(HOOK_CONNECT, "where");
	session_begins("--upstream 192.0.2.25 --upstream [2001:db8::25]:25 --tls none --outbound-ip 192.0.2.77");
	hook_says("source 2001:db8::78\n");
	assert_string_equal(source(), "192.0.2.77");
	server_connect_fails(ECONNREFUSED);
	assert_string_equal(source(), "2001:db8::78");
}

static void source_of_socket(void **state)
{
	(void)state;
	hook_is_there(HOOK_CONNECT, "where");
	session_begins("--upstream lmtp:unix:/run/lmtp --tls none");
	hook_says("source 2001:db8::78\n");
	server_is_dialled("/run/lmtp", 1);
}

static void upstream_of_verdict(void **state)
{
	(void)state;
	hook_is_there(HOOK_CONNECT, "where");
	session_begins("--upstream 192.0.2.25 --tls none");
	hook_says("upstream 192.0.2.44:2525\ntls encrypt mx.other.test\n");
	server_is_dialled("192.0.2.44:2525", 1);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	assert_string_equal(world_tls_server.name, "mx.other.test");
	assert_int_equal(world_tls_server.level, TLS_ENCRYPT);
}

/* ---- the same server again, for a handshake in full ---- */

/* Its banner is for the client, which had none yet. */
static void resumed_before_the_banner(void **state)
{
	(void)state;
	session_begins("--upstream smtps://192.0.2.25 --upstream smtps://192.0.2.25 --tls none");
	server_connects();
	server_shakes();
	server("421 mx.test busy");
	server_is_dialled("192.0.2.25:465", 2);
	world_tls_server.resumes = true;
	server_connects();
	server_shake_fails("an unexpected message");
	recorded("error: 192.0.2.25: its TLS session could not be resumed: an unexpected message");
	server_is_dialled("192.0.2.25:465", 3);
	world_tls_server.resumes = false;
	server_connects();
	server_shakes();
	server(BANNER);
	server_gets("");
	client_gets(BANNER);
	stands_at(OPEN, IDLE);
}

/* The client has had one. */
static void resumed_after_the_banner(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --tls may --tls-on recipient");
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	world_tls_server.resumes = true;
	server("220 go");
	client_heard();
	server_heard();
	server_shake_fails("an unexpected message");
	server_is_dialled("192.0.2.25:25", 2);
	world_tls_server.resumes = false;
	server_connects();
	server(BANNER);
	server_gets("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	server_gets("STARTTLS");
	client_gets("");
}

/* ---- the same server again, in plain ---- */

static void to_failed_handshake(const char *options)
{
	session_begins(options);
	server_connects();
	server(BANNER);
	client_gets(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	server_heard();
	server_shake_fails("bad certificate");
	recorded("tls upstream may fallback: bad certificate");
	server_is_dialled("192.0.2.25:25", 2);
	client_gets("");
}

/* Of its second banner the client hears nothing. */
static void redial(void **state)
{
	(void)state;
	to_failed_handshake("--upstream 192.0.2.25 --upstream 192.0.2.26 --tls may");
	server_connects();
	server("220-mx.test\n220 ESMTP");
	not_recorded("connect");
	server_gets("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	client_gets("250-mx.test\n250 PIPELINING");
	server_gets("");
}

/* A client that has seen this one's banner is not for another. */
static void redial_refused(void **state)
{
	(void)state;
	to_failed_handshake("--upstream 192.0.2.25 --upstream 192.0.2.26 --tls may");
	server_connect_fails(ECONNREFUSED);
	client_gets("421 4.4.1 192.0.2.25: Connection refused");
	stands_at(OPEN, GONE);
	ended(LINGER, "smtpwarp", "4.4.1 192.0.2.25: Connection refused");
}

static void redial_cannot_begin(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --upstream 192.0.2.26 --tls may");
	server_connects();
	server(BANNER);
	client_gets(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	world_net.fails_at = "connect";
	world_net.fails_with = ENETUNREACH;
	server_shake_fails("bad certificate");
	recorded("error: 4.4.1 192.0.2.25: connect: Network is unreachable");
	client_gets("421 4.4.1 192.0.2.25: connect: Network is unreachable");
}

static void redial_greets_otherwise(void **state)
{
	(void)state;
	to_failed_handshake("--upstream 192.0.2.25 --upstream 192.0.2.26 --tls may");
	server_connects();
	server("554-no\n554 more");
	recorded("error: 4.4.1 192.0.2.25: greeting 554 more");
	client_gets("421 4.4.1 192.0.2.25: greeting 554 more");
	ended(LINGER, "smtpwarp", "4.4.1 192.0.2.25: greeting 554 more");
}

static void redial_closes(void **state)
{
	(void)state;
	to_failed_handshake("--upstream 192.0.2.25 --upstream 192.0.2.26 --tls may");
	server_connects();
	server_closes();
	client_gets("421 4.4.1 192.0.2.25: connection closed");
}

/* Whatever ends the handshake. */
static void handshake_closed(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --tls may");
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	server_closes();
	recorded("tls upstream may fallback: connection closed");
	server_is_dialled("192.0.2.25:25", 2);
}

static void handshake_breaks(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --tls may");
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	server_breaks();
	recorded("tls upstream may fallback: connection reset");
	server_is_dialled("192.0.2.25:25", 2);
}

static void handshake_takes_long(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --tls may --tls-timeout 7");
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	falls_due_in(7, "TLS handshake timed out");
	passes(7);
	recorded("tls upstream may fallback: TLS handshake timed out");
	assert_string_equal(member_of("tls", "tls_ms"), "7000.000");
	server_is_dialled("192.0.2.25:25", 2);
}

/* smtps:// has no plain; but there may be another server. */
static void first_handshake_failed(void **state)
{
	(void)state;
	session_begins("--upstream smtps://192.0.2.25 --upstream 192.0.2.26 --tls may");
	server_connects();
	server_shake_fails("bad certificate");
	recorded("tls upstream may failed: bad certificate");
	recorded("error: 4.7.5 192.0.2.25: bad certificate");
	server_is_dialled("192.0.2.26:25", 2);
}

static void first_handshake_cannot_begin(void **state)
{
	(void)state;
	world_tls_server.cannot = "no random numbers";
	session_begins("--upstream smtps://192.0.2.25 --tls none");
	server_connects();
	recorded("tls upstream none failed: no random numbers");
	client_gets("421 4.7.5 192.0.2.25: no random numbers");
	stands_at(OPEN, GONE);
	assert_int_equal(world_tls_server.level, TLS_MAY);
}

/* The name that the certificate must have: --tls-name, or the upstream's own; an address is none. */
static void tls_names(void **state)
{
	(void)state;
	world_name("a.test", "192.0.2.25");
	session_begins("--upstream smtps://a.test --upstream smtps://192.0.2.26 --tls verify");
	server_connects();
	assert_string_equal(world_tls_server.name, "a.test");
	server_shake_fails("x");
	server_connects();
	assert_string_equal(world_tls_server.name, "");
}

static void tls_name_of_options(void **state)
{
	(void)state;
	session_begins("--upstream smtps://192.0.2.26 --tls verify --tls-name mx.test");
	server_connects();
	assert_string_equal(world_tls_server.name, "mx.test");
}

/* ---- leaving ---- */

static void leave(void **state)
{
	static const struct {
		const char *server, *client, *more, *want;
	} rows[] = {
		{ BANNER, NULL, NULL, "QUIT" },
		{ BANNER, "EHLO c.test", "250 mx.test", "EHLO c.test\nQUIT" },
		{ BANNER, "EHLO c.test", NULL, "EHLO c.test" },		     /* it owes a reply */
		{ "554 no", NULL, NULL, "" },				     /* it wants nobody */
		{ BANNER, "EHLO c.test\nQUIT", "250 mx.test\n500 what", "EHLO c.test\nQUIT\nQUIT" },
		{ BANNER, "EHLO c.test\nMAIL FROM:<a@b.test>", "250 mx.test\n250 ok", "EHLO c.test\nMAIL FROM:<a@b.test>\nQUIT" },
		{ BANNER, "EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nDATA\nhalf",
		    "250 mx.test\n250 ok\n250 ok\n354 go",
		    "EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nDATA\nhalf" },
	};
	size_t i = (size_t)*(const char *)*state;

	session_begins("--upstream 192.0.2.25 --tls none");
	server_connects();
	server(rows[i].server);
	if (rows[i].client)
		client(rows[i].client);
	for (const char *at = rows[i].more; at && *at;) {
		size_t n = strcspn(at, "\n");
		char line[100];

		snprintf(line, sizeof line, "%.*s", (int)n, at);
		server(line);
		at += n + (at[n] == '\n');
	}
	client_breaks();
	server_gets(rows[i].want);
	ended(FLUSH, "client", "connection reset");
	assert_int_equal(world_server.fd, -1);
}

/* QUIT is said where it can be said at once. */
static void leaves(void **state)
{
	static const char rows[] = { 0, 1, 2, 3, 4, 5, 6 };

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart("leaving", leave, &rows[i]);
}

/* ---- --connect-on recipient ---- */

#define LATE "--upstream 192.0.2.25 --tls none --connect-on recipient "

static void accept_recipient(void)
{
	server_connects();
	server(BANNER);
	server("250 mx.test");
	server("250 sender ok");
	server("250 recipient ok");
	client_heard();
	server_heard();
	stands_at(OPEN, READY);
}

/* The server of one transaction is asked in the next; one that has had enough is dialled anew. */
static void reuse(const char *by)
{
	session_begins(LATE);
	client("EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	accept_recipient();
	client("RSET\nMAIL FROM:<a@b.test>");
	server_gets("RSET");
	server("250 ok");
	client("RCPT TO:<r@d.test>");
	server_gets("MAIL FROM:<a@b.test>");
	stands_at(SERVER, READY);
	client_heard();
	if (by)
		server(by);
	else
		server_closes();
	server_is_dialled("192.0.2.25:25", 2);
	stands_at(SERVER, CONNECTING);
	client_gets("");
}

static void reused_closes(void **state)
{
	(void)state;
	reuse(NULL);
	recorded("error: 4.4.1 192.0.2.25: connection closed");
	accept_recipient();
}

static void reused_says_421(void **state)
{
	(void)state;
	reuse("421 enough");
	recorded("error: 4.4.1 192.0.2.25: reply 421 enough");
	server_connect_fails(ECONNREFUSED); /* no third time */
	client_gets("451 4.4.1 192.0.2.25: Connection refused");
	stands_at(OPEN, NONE);
	goes_still();
}

/* There is another for this recipient. */
static void late_candidates(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --upstream 192.0.2.26 --tls may --connect-on recipient");
	client("EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	client_heard();
	server_connects();
	server("554 no");
	recorded("error: 4.4.1 192.0.2.25: greeting 554 no");
	server_is_dialled("192.0.2.26:25", 2);
	server_connects();
	server(BANNER);
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	server_shake_fails("bad certificate");
	server_is_dialled("192.0.2.26:25", 3);
	server_connect_fails(ECONNREFUSED);
	client_gets("451 4.4.1 192.0.2.26: Connection refused");
	stands_at(OPEN, NONE);
	client("RCPT TO:<s@d.test>"); /* not tried again in this transaction */
	client_gets("451 4.4.1 192.0.2.26: Connection refused");
	server_is_dialled("192.0.2.26:25", 3);
	client("RSET\nMAIL FROM:<a@b.test>\nRCPT TO:<s@d.test>");
	server_is_dialled("192.0.2.25:25", 4);
}

/* The first recipient's server does not want the sender; the next recipient is another server's. */
static void late_other_server(void **state)
{
	char options[200];

	(void)state;
	snprintf(options, sizeof options, "--tls none --connect-on recipient --valid-recipients . --routes %s",
	    file_of("r@d.test;192.0.2.31\ns@d.test;192.0.2.32\n"));
	session_begins(options);
	client("EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	server_is_dialled("192.0.2.31:25", 1);
	server_connects();
	server(BANNER);
	server("250 mx.test");
	client_heard();
	server("550 not you");
	client_gets("550 not you");
	server_heard();
	client("RCPT TO:<s@d.test>");
	server_gets("QUIT");
	server_is_dialled("192.0.2.32:25", 2);
}

/* The second connection is the first one's, in plain; then it may be another server's. */
static void late_redial(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --upstream 192.0.2.26 --tls may --connect-on recipient");
	client("EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	server_connects();
	server(BANNER);
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	server_shake_fails("bad certificate");
	server_is_dialled("192.0.2.25:25", 2);
	server_connect_fails(ECONNREFUSED);
	server_is_dialled("192.0.2.26:25", 3);
	server_connects();
	server(BANNER);
	server_heard();
	server("250-mx.test\n250 STARTTLS");
	server_gets("STARTTLS"); /* this one may know TLS */
}

static void late_without_tls(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --tls encrypt --connect-on recipient");
	client("EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	client_heard();
	server_connects();
	server(BANNER);
	server("250 mx.test");
	client_gets("451 4.7.5 192.0.2.25: STARTTLS is not offered");
	stands_at(OPEN, NONE);
	goes_still();
}

static void late_injected(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --tls may --connect-on recipient");
	client("EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	client_heard();
	server_connects();
	server(BANNER);
	server("250-mx.test\n250 STARTTLS");
	server("220 go\n250 mx.evil.test");
	client_gets("451 4.7.0 upstream's reply to STARTTLS is not to be trusted");
	stands_at(OPEN, NONE);
}

static void late_no_destination(void **state)
{
	(void)state;
	redirected_from("");
	session_begins("--tls none --connect-on recipient");
	client("EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	client_gets("220 warp.test ESMTP\n250-warp.test\n250-ENHANCEDSTATUSCODES\n250-SIZE 10240000\n250-8BITMIME\n250-SMTPUTF8\n"
		    "250-CHUNKING\n250 PIPELINING\n250 2.1.0 Ok\n"
		    "451 4.3.5 No destination: this connection was not redirected here, and there is no --upstream");
	stands_at(OPEN, NONE);
	goes_still();
}

/* The server that the client's password went to is the only one. */
static void authenticated_is_lost(void **state)
{
	(void)state;
	session_begins(LATE "--auth --plain-auth");
	client("EHLO c.test");
	server_connects();
	server(BANNER);
	server("250-mx.test\n250 AUTH PLAIN");
	client("AUTH PLAIN AHVzZXIAc2VjcmV0");
	server_heard();
	server("235 welcome");
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	server_gets("MAIL FROM:<a@b.test>");
	client_heard();
	server("421 enough");
	client_gets("421 4.4.1 192.0.2.25: reply 421 enough");
	ended(LINGER, "upstream", "the connection that was authenticated is closed");
}

/* Its password is for no other server than was asked. */
static void listed_is_lost(void **state)
{
	(void)state;
	session_begins(LATE "--auth --plain-auth");
	client("EHLO c.test");
	server_connects();
	server(BANNER);
	server("250-mx.test\n250 AUTH PLAIN");
	client_heard();
	server_closes();
	stands_at(OPEN, NONE);
	client("AUTH PLAIN AHVzZXIAc2VjcmV0");
	client_gets("421 4.4.2 192.0.2.25: connection is closed");
	ended(LINGER, "upstream", "connection is closed");
	assert_int_equal(world_net.attempts, 1);
}

/* --upstream-auth: a connection of its own for the next transaction knows nobody. */
static void late_password(void **state)
{
	char options[200];

	(void)state;
	snprintf(options, sizeof options, "--upstream smtps://192.0.2.25 --connect-on recipient --upstream-auth %s",
	    file_of("* user:secret\n"));
	session_begins(options);
	client("EHLO c.test");
	for (unsigned i = 1; i <= 2; i++) {
		client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
		server_is_dialled("192.0.2.25:465", i);
		server_connects();
		server_shakes();
		server(BANNER);
		server("250-mx.test\n250 AUTH PLAIN");
		server_gets("EHLO c.test\nAUTH PLAIN AHVzZXIAc2VjcmV0");
		server("235 welcome");
		server_gets("MAIL FROM:<a@b.test>");
		server("250 ok");
		server("250 ok");
		client("RSET");
		server("250 ok");
		server_heard();
		server_closes();
		stands_at(OPEN, NONE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(original_destination), cmocka_unit_test(no_destination), cmocka_unit_test(open_relay),
		cmocka_unit_test(caught_own), cmocka_unit_test(direct_is_not_caught), cmocka_unit_test(own_address),
		cmocka_unit_test(tproxy), cmocka_unit_test(each_candidate), cmocka_unit_test(next_after_silence),
		cmocka_unit_test(lookup_takes_long), cmocka_unit_test(lookup_is_patient),
		cmocka_unit_test(client_leaves_in_lookup), cmocka_unit_test(client_leaves_in_connect),
		cmocka_unit_test(attempts_that_cannot_begin), cmocka_unit_test(source_of_options),
		cmocka_unit_test(source_is_client), cmocka_unit_test(source_is_client_of_ipv6),
		cmocka_unit_test(source_of_verdict), cmocka_unit_test(source_of_other_family),
		cmocka_unit_test(source_of_both), cmocka_unit_test(source_of_socket), cmocka_unit_test(upstream_of_verdict),
		cmocka_unit_test(resumed_before_the_banner), cmocka_unit_test(resumed_after_the_banner), cmocka_unit_test(redial),
		cmocka_unit_test(redial_refused), cmocka_unit_test(redial_cannot_begin),
		cmocka_unit_test(redial_greets_otherwise), cmocka_unit_test(redial_closes), cmocka_unit_test(handshake_closed),
		cmocka_unit_test(handshake_breaks), cmocka_unit_test(handshake_takes_long),
		cmocka_unit_test(first_handshake_failed), cmocka_unit_test(first_handshake_cannot_begin),
		cmocka_unit_test(tls_names), cmocka_unit_test(tls_name_of_options), cmocka_unit_test(leaves),
		cmocka_unit_test(reused_closes), cmocka_unit_test(reused_says_421), cmocka_unit_test(late_candidates),
		cmocka_unit_test(late_other_server), cmocka_unit_test(late_redial), cmocka_unit_test(late_without_tls),
		cmocka_unit_test(late_injected), cmocka_unit_test(late_no_destination),
		cmocka_unit_test(authenticated_is_lost), cmocka_unit_test(listed_is_lost), cmocka_unit_test(late_password),
	};

	return run_session_tests(tests);
}
