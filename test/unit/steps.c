/* What follows what: each stage of the gate, how the session comes to it and what comes next; each deadline, and what happens when it is
 * over.
 */
#include "test/lib/fake_session.h"

#define ONE "--upstream 192.0.2.25 --tls none "
#define LATE ONE "--connect-on recipient "
#define BANNER "220 mx.test ESMTP"
#define MESSAGE "Subject: x\n\nhello\n."

/* Up to the client being greeted by a server with this list; nothing of it is left to be heard. */
static void to_ready(const char *options, const char *list)
{
	session_begins(options);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server(list);
	stands_at(OPEN, READY);
	client_heard();
	server_heard();
}

/* Up to a recipient that the server has accepted. */
static void to_recipient(const char *options)
{
	to_ready(options, "250 mx.test");
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	client("RCPT TO:<r@d.test>");
	server("250 ok");
	client_heard();
	server_heard();
}

/* ---- CHECKS ---- */

static void checks_pass_at_once(void **state)
{
	(void)state;
	session_begins(ONE);
	stands_at(OPEN, CONNECTING);
}

static void checks_allow(void **state)
{
	(void)state;
	session_begins(ONE "--allow-clients 192.0.2.0/24");
	stands_at(OPEN, CONNECTING);
}

static void checks_wait_for_list(void **state)
{
	(void)state;
	session_begins(ONE "--dnsbl bl.test --dnsbl-timeout 3");
	stands_at(CHECKS, NONE);
	falls_due_in(3, "");
	dns_says("7.2.0.192.bl.test", DNS_A, NULL, NULL);
	stands_at(OPEN, CONNECTING);
}

/* A list that does not answer lists nobody. */
static void checks_list_is_silent(void **state)
{
	(void)state;
	session_begins(ONE "--dnsbl bl.test --dnsbl-timeout 3");
	passes(3);
	stands_at(OPEN, CONNECTING);
	recorded("verdict dnsbl - accept");
}

static void checks_refuse(void **state)
{
	(void)state;
	session_begins(ONE "--dnsbl bl.test");
	dns_says("7.2.0.192.bl.test", DNS_A, "127.0.0.2", NULL);
	stands_at(CHECKS, NONE); /* the list's own words are asked for */
	dns_says("7.2.0.192.bl.test", DNS_TXT, "spam", NULL);
	client_gets("554 5.7.1 Client 192.0.2.7 is listed by bl.test: spam");
	ended(LINGER, "smtpwarp", "listed by --dnsbl");
}

static void checks_then_tarpit(void **state)
{
	(void)state;
	world_dns("7.2.0.192.bl.test", DNS_A, "127.0.0.2", NULL);
	world_dns("7.2.0.192.bl.test", DNS_TXT, NULL, NULL);
	session_begins(ONE "--dnsbl bl.test --tarpit 20");
	stands_at(TARPIT, NONE);
	falls_due_in(20, "");
	passes(19.9);
	client_gets("");
	passes(0.1);
	client_gets("554 5.7.1 Client 192.0.2.7 is listed by bl.test");
	ended(LINGER, "smtpwarp", "listed by --dnsbl");
}

static void checks_delay(void **state)
{
	(void)state;
	session_begins(ONE "--greet-delay 5");
	client_gets("220-warp.test ESMTP");
	stands_at(CHECKS, NONE);
	falls_due_in(5, "");
	passes(4);
	falls_due_in(1, "");
	client("EHLO spam.test");
	client_gets("554 5.5.1 Protocol error: you spoke too early");
	ended(LINGER, "smtpwarp", "spoke too early");
}

/* Nobody waits for a greeting. */
static void client_leaves_in_checks(void **state)
{
	(void)state;
	session_begins(ONE "--greet-delay 5");
	client_closes();
	assert_int_equal(world_net.attempts, 0);
	ended(FLUSH, "client", "connection closed");
}

/* ---- TARPIT ---- */

static void tarpit_for_stranger(void **state)
{
	(void)state;
	session_begins(ONE "--allow-clients 198.51.100.0/24 --tarpit 20");
	stands_at(TARPIT, NONE);
	client("EHLO spam.test");
	passes(20);
	client_gets("554 5.7.1 Client 192.0.2.7 is not allowed here (--allow-clients)");
	ended(LINGER, "smtpwarp", "client is not allowed");
}

/* Whoever closes its side is held no longer. */
static void tarpit_client_closes(void **state)
{
	(void)state;
	session_begins(ONE "--allow-clients 198.51.100.0/24 --tarpit 20");
	client_closes();
	client_gets("554 5.7.1 Client 192.0.2.7 is not allowed here (--allow-clients)");
	ended(LINGER, "smtpwarp", "client is not allowed");
}

static void tarpit_client_breaks(void **state)
{
	(void)state;
	session_begins(ONE "--allow-clients 198.51.100.0/24 --tarpit 20");
	client_breaks();
	ended(FLUSH, "client", "connection reset");
}

/* All places are taken. */
static void tarpit_is_full(void **state)
{
	(void)state;
	world_net.no_place = true;
	session_begins(ONE "--allow-clients 198.51.100.0/24 --tarpit 20");
	client_gets("554 5.7.1 Client 192.0.2.7 is not allowed here (--allow-clients)");
	ended(LINGER, "smtpwarp", "client is not allowed");
}

static void tarpit_for_recipient(void **state)
{
	(void)state;
	to_ready(ONE "--valid-recipients ^known@ --tarpit 20", "250 mx.test");
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	client_heard();
	client("RCPT TO:<unknown@d.test>\nRSET");
	stands_at(TARPIT, READY);
	falls_due_in(20, "");
	passes(20);
	client_gets("550 5.1.1 There is no such recipient here");
	stands_at(OPEN, READY);
	server_gets("MAIL FROM:<a@b.test>\nRSET");
}

/* ---- HOOKS ---- */

static void hooks_accept(void **state)
{
	(void)state;
	hook_is_there(HOOK_CONNECT, "one");
	hook_is_there(HOOK_CONNECT, "two");
	session_begins(ONE "--hook-timeout 9");
	stands_at(HOOKS, NONE);
	falls_due_in(9, "");
	passes(5);
	hook_says("accept\n");
	stands_at(HOOKS, NONE);
	falls_due_in(9, "");
	assert_string_equal(world_hook->hook->name, "two");
	hook_says("");
	stands_at(OPEN, CONNECTING);
}

/* Nobody waits for a greeting when the hooks have decided. */
static void client_leaves_before_greeting(void **state)
{
	(void)state;
	hook_is_there(HOOK_CONNECT, "one");
	session_begins(ONE);
	world_client.eof = true;
	hook_says("");
	assert_int_equal(world_net.attempts, 0);
	ended(FLUSH, "client", "connection closed");
}

/* RFC 5321 3.1: a greeting that refuses is 554, or 421 when it is for now. */
static void hooks_refuse_connection(void **state)
{
	const char *const *row = *state;

	hook_is_there(HOOK_CONNECT, "one");
	session_begins(ONE);
	hook_says(row[0]);
	client_gets(row[1]);
	ended(LINGER, "smtpwarp", "a hook closed it");
}

static void hooks_refuse_connections(void **state)
{
	static const char *const rows[][2] = {
		{ "reject 550 5.7.1 no\n", "554 5.7.1 no" },
		{ "reject no\n", "554 5.7.1 no" },
		{ "defer 451 4.7.1 later\n", "421 4.7.1 later" },
		{ "close\n", "421 4.7.0 Try again later" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], hooks_refuse_connection, rows[i]);
}

static void hooks_then_tarpit(void **state)
{
	(void)state;
	hook_is_there(HOOK_CONNECT, "one");
	session_begins(ONE);
	hook_says("tarpit 30\nreject no\n");
	stands_at(TARPIT, NONE);
	falls_due_in(30, "");
	client_gets("");
	passes(30);
	client_gets("554 5.7.1 no");
}

/* What is accepted can be held back, too. */
static void hooks_tarpit_and_accept(void **state)
{
	(void)state;
	hook_is_there(HOOK_CONNECT, "one");
	session_begins(ONE);
	hook_says("tarpit 30\n");
	stands_at(TARPIT, NONE);
	passes(30);
	stands_at(OPEN, CONNECTING);
}

static void hooks_on_commands(void **state)
{
	(void)state;
	hook_is_there(HOOK_EHLO, "e");
	hook_is_there(HOOK_MAIL, "m");
	hook_is_there(HOOK_RCPT, "r");
	session_begins(ONE);
	server_connects();
	server(BANNER);
	client_heard();
	client("EHLO bad.test");
	stands_at(HOOKS, IDLE);
	hook_says("reject 550 5.7.1 no such name\n");
	client_gets("550 5.7.1 no such name");
	client("EHLO c.test");
	hook_says("");
	server_gets("EHLO c.test");
	server("250 mx.test");
	client_heard();
	client("EHLO bad.test"); /* the name that stands is the one before, RFC 5321 4.1.4 */
	hook_says("reject 550 5.7.1 no such name\n");
	client_heard();
	client("MAIL FROM:<bad@b.test>");
	assert_non_null(strstr(world_hook_line, "\"helo\":\"c.test\""));
	stands_at(HOOKS, READY);
	hook_says("defer later\n");
	client_gets("451 4.7.1 later");
	client("MAIL FROM:<a@b.test>");
	recorded("message deferred bad@b.test: 451 4.7.1 later");
	hook_says("");
	server_gets("MAIL FROM:<a@b.test>");
	server("250 ok");
	client_heard();
	client("RCPT TO:<r@d.test>");
	stands_at(HOOKS, READY);
	hook_says("close enough\n");
	client_gets("421 4.7.0 enough");
	recorded("message deferred a@b.test to r@d.test 421");
	ended(LINGER, "smtpwarp", "a hook closed it");
}

static void hook_is_overdue(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	to_ready(ONE "--hook-timeout 9", "250 mx.test");
	client("MAIL FROM:<a@b.test>");
	falls_due_in(9, "");
	passes(9);
	client_gets("451 4.3.0 A filter is out of order, try again later");
	recorded("verdict mail m failed: it did not end in time (--hook-timeout)");
	stands_at(OPEN, READY);
}

static void hook_is_overdue_and_accepts(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	to_ready(ONE "--hook-timeout 9 --hook-failure accept", "250 mx.test");
	client("MAIL FROM:<a@b.test>");
	passes(9);
	server_gets("MAIL FROM:<a@b.test>");
}

/* All hooks of an event have 9 minutes, whatever --hook-timeout is: a client waits for 10. */
static void chain_is_overdue(void **state)
{
	(void)state;
	hook_is_there(HOOK_CONNECT, "one");
	hook_is_there(HOOK_CONNECT, "two");
	session_begins(ONE "--hook-timeout 0");
	falls_due_in(540, "");
	passes(500);
	hook_says("");
	falls_due_in(40, "");
	passes(40);
	client_gets("421 4.3.0 A filter is out of order, try again later");
}

static void hooks_broken(void **state)
{
	(void)state;
	hooks_are_broken("hooks: Permission denied");
	session_begins(ONE);
	recorded("error: hooks: Permission denied");
	client_gets("421 4.3.0 A filter is out of order, try again later");
	ended(LINGER, "smtpwarp", "a hook closed it");
}

static void hooks_broken_and_accept(void **state)
{
	(void)state;
	hooks_are_broken("hooks: Permission denied");
	session_begins(ONE "--hook-failure accept");
	recorded("error: hooks: Permission denied");
	stands_at(OPEN, CONNECTING);
}

static void client_leaves_in_hooks(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	to_ready(ONE, "250 mx.test");
	client("MAIL FROM:<a@b.test>");
	client_breaks();
	assert_null(world_hook);
	ended(FLUSH, "client", "connection reset");
}

/* The server says something while hooks decide on the message that it is to have. */
static void server_speaks_in_hooks(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_recipient(ONE);
	client("DATA");
	client_gets("354 End data with <CR><LF>.<CR><LF>");
	client(MESSAGE);
	stands_at(HOOKS, READY);
	server("421 bye");
	client_gets("421 bye");
	stands_at(OPEN, GONE);
	assert_null(world_hook);
	recorded("message deferred a@b.test to r@d.test 250: 421 bye");
	ended(LINGER, "upstream", "reply 421 bye");
}

/* ---- KEPT ---- */

static void to_kept(const char *options)
{
	hook_is_there(HOOK_DATA, "d");
	to_recipient(options);
	client("DATA");
	client_gets("354 End data with <CR><LF>.<CR><LF>");
	client(MESSAGE);
	stands_at(HOOKS, READY);
}

static void kept_is_sent(void **state)
{
	(void)state;
	to_kept(ONE "--data-timeout 11 --dot-timeout 12");
	hook_says("");
	stands_at(KEPT, READY);
	server_gets("DATA");
	falls_due_in(11, "upstream did not reply in time");
	server("354 go");
	server_gets("Subject: x\n\nhello\n.");
	stands_at(OPEN, READY);
	falls_due_in(12, "upstream did not reply in time");
	server("250 accepted");
	client_gets("250 accepted");
	recorded("message accepted a@b.test to r@d.test 250: 250 accepted");
}

static void kept_is_refused(void **state)
{
	(void)state;
	to_kept(ONE);
	hook_says("");
	server_heard();
	server("554 no");
	client_gets("554 no");
	stands_at(OPEN, READY);
	server_gets("RSET");
	recorded("message rejected a@b.test to r@d.test 250: 554 no");
}

static void kept_server_overdue(void **state)
{
	(void)state;
	to_kept(ONE "--data-timeout 11");
	hook_says("");
	passes(11);
	client_gets("451 4.4.2 192.0.2.25: upstream did not reply in time");
	stands_at(OPEN, GONE);
	goes_still();
}

static void kept_decided(void **state)
{
	const char *const *row = *state;

	to_kept(ONE);
	hook_says(row[0]);
	client_gets(row[1]);
	recorded(row[2]);
	server_gets(row[3]);
	if (row[4])
		ended(LINGER, "smtpwarp", row[4]);
	else
		stands_at(OPEN, READY);
}

static void kept_verdicts(void **state)
{
	static const char *const rows[][5] = {
		{ "discard\n", "250 2.0.0 Ok", "message discarded a@b.test to r@d.test 250: 250 2.0.0 Ok", "RSET", NULL },
		{ "reject 550 5.7.1 spam\n", "550 5.7.1 spam", "message rejected a@b.test to r@d.test 250: 550 spam", "RSET", NULL },
		{ "defer later\n", "451 4.7.1 later", "message deferred a@b.test to r@d.test 250: 451 later", "RSET", NULL },
		{ "close\n", "421 4.7.0 Try again later",
		    "message deferred a@b.test to r@d.test 250: 421 Try again later", "RSET", "a hook closed it" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], kept_decided, rows[i]);
}

/* A client that speaks LMTP hears a reply for each recipient. */
static void kept_refused_by_lmtp(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "d");
	session_begins("--upstream lmtp://192.0.2.25 --tls none");
	server_connects();
	server(BANNER);
	client("LHLO c.test");
	server("250-mx.test\n250 PIPELINING");
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nRCPT TO:<s@d.test>");
	server("250 ok\n250 ok\n250 ok");
	client("DATA");
	client_heard();
	client(MESSAGE);
	hook_says("reject 550 5.7.1 spam\n");
	client_gets("550 5.7.1 spam\n550 5.7.1 spam");
}

/* ---- SERVER and LIST ---- */

static void to_server(const char *options)
{
	session_begins(options);
	client("EHLO c.test");
	client("MAIL FROM:<a@b.test>");
	client("RCPT TO:<r@d.test>\nRSET");
	client_heard();
	stands_at(SERVER, CONNECTING);
}

static void server_for_recipient(void **state)
{
	(void)state;
	to_server(LATE "--banner-timeout 11 --command-timeout 12 --mail-timeout 13 --rcpt-timeout 14");
	falls_due_in(30, "connection timed out");
	server_connects();
	falls_due_in(11, "upstream did not reply in time");
	server(BANNER);
	falls_due_in(12, "upstream did not reply in time");
	server("250 mx.test");
	stands_at(SERVER, READY);
	falls_due_in(13, "upstream did not reply in time");
	server("250 ok");
	stands_at(OPEN, READY);
	falls_due_in(14, "upstream did not reply in time");
	server("250 ok");
	client_gets("250 ok\n250 2.0.0 Ok");
}

static void server_is_overdue(void **state)
{
	(void)state;
	to_server(LATE);
	passes(30);
	client_gets("451 4.4.1 192.0.2.25: connection timed out\n250 2.0.0 Ok");
	stands_at(OPEN, NONE);
}

static void server_refuses_sender(void **state)
{
	(void)state;
	to_server(LATE);
	server_connects();
	server(BANNER);
	server("250 mx.test");
	server("550 not you");
	client_gets("550 not you\n250 2.0.0 Ok");
	stands_at(OPEN, READY);
}

static void client_leaves_in_server(void **state)
{
	(void)state;
	to_server(LATE);
	client_breaks();
	assert_int_equal(world_server.fd, -1);
	ended(FLUSH, "client", "connection reset");
}

static void list_for_client(void **state)
{
	(void)state;
	session_begins(LATE "--auth --plain-auth --command-timeout 12");
	client("EHLO c.test");
	stands_at(LIST, CONNECTING);
	server_connects();
	server(BANNER);
	falls_due_in(12, "upstream did not reply in time");
	server("250 mx.test");
	stands_at(OPEN, READY);
}

static void list_is_overdue(void **state)
{
	(void)state;
	session_begins(LATE "--auth --plain-auth");
	client_heard();
	client("EHLO c.test");
	passes(30);
	client_gets("421 4.4.1 192.0.2.25: connection timed out");
	ended(LINGER, "smtpwarp", "4.4.1 192.0.2.25: connection timed out");
}

/* ---- TOLD ---- */

#define FORWARD "250-mx.test\n250-PIPELINING\n250 XFORWARD ADDR"

static void told_before_mail(void **state)
{
	(void)state;
	to_ready(ONE "--xforward --client-names none --command-timeout 12", FORWARD);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	stands_at(TOLD, READY);
	server_gets("XFORWARD ADDR=192.0.2.7");
	falls_due_in(12, "upstream did not reply in time");
	server("250 ok");
	stands_at(OPEN, READY);
	server_gets("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
}

/* Mail does not wait for a server that does not want to hear it. */
static void told_is_refused(void **state)
{
	(void)state;
	to_ready(ONE "--xforward --client-names none", FORWARD);
	client("MAIL FROM:<a@b.test>");
	server_heard();
	server("550 no");
	recorded("error: 192.0.2.25: XFORWARD was refused: 550 no");
	server_gets("MAIL FROM:<a@b.test>");
	server("250 ok");
	client_gets("250 ok");
}

static void told_is_overdue(void **state)
{
	(void)state;
	to_ready(ONE "--xforward --client-names none --command-timeout 12", FORWARD);
	client("MAIL FROM:<a@b.test>");
	passes(12);
	client_gets("421 4.4.2 192.0.2.25: upstream did not reply in time");
	ended(LINGER, "upstream", "upstream did not reply in time");
}

/* --received: the name is to stand in the message. Nobody but the DNS is to blame for the time that passes. */
static void told_waits_for_name(void **state)
{
	(void)state;
	to_ready(ONE "--received --dnsbl-timeout 5 --idle-timeout 3", "250 mx.test");
	passes(1);
	client("MAIL FROM:<a@b.test>");
	stands_at(TOLD, READY);
	server_gets("");
	falls_due_in(4, "");
	passes(4);
	stands_at(OPEN, READY);
	server_gets("MAIL FROM:<a@b.test>");
}

/* The connection that the name was due on is gone. */
static void told_server_closes(void **state)
{
	(void)state;
	to_ready(ONE "--received --dnsbl-timeout 5", "250 mx.test");
	client("MAIL FROM:<a@b.test>");
	server_closes();
	client_gets("421 4.4.2 192.0.2.25: connection closed");
	ended(LINGER, "upstream", "connection closed");
}

static void told_in_server(void **state)
{
	(void)state;
	to_server(LATE "--xforward --client-names none");
	server_connects();
	server(BANNER);
	server_heard();
	server(FORWARD);
	stands_at(SERVER, READY);
	server_gets("XFORWARD ADDR=192.0.2.7");
	server("250 ok");
	stands_at(SERVER, READY);
	server_gets("MAIL FROM:<a@b.test>");
}

/* ---- STARTTLS and SHAKE ---- */

#define TLS ONE "--client-tls may --cert /cert "

static void to_shake(const char *options)
{
	to_ready(options, "250 mx.test");
	client("STARTTLS");
	client_gets("220 Go ahead");
	stands_at(SHAKE, READY);
}

static void starttls(void **state)
{
	(void)state;
	to_shake(TLS "--tls-timeout 7");
	falls_due_in(7, "TLS handshake timed out");
	passes(2);
	client_shakes();
	recorded("tls client may ok verified");
	stands_at(OPEN, READY);
	client("MAIL FROM:<a@b.test>"); /* as if the client had just come, RFC 3207 4.2 */
	client_gets("503 5.5.1 EHLO or HELO first");
	client("EHLO c.test");
	server_gets("EHLO c.test");
	server("250 mx.test");
	client_gets("250-mx.test\n250 PIPELINING"); /* no STARTTLS */
}

/* The client takes 220 when it likes to. */
static void starttls_waits(void **state)
{
	(void)state;
	to_ready(TLS "--block-timeout 8", "250 mx.test");
	client_takes(0);
	client("STARTTLS");
	stands_at(STARTTLS, READY);
	falls_due_in(8, "client does not take replies");
	client_takes(WORLD_FOREVER);
	client_gets("220 Go ahead");
	stands_at(SHAKE, READY);
}

static void starttls_cannot_begin(void **state)
{
	(void)state;
	world_tls_client.cannot = "no random numbers";
	to_ready(TLS, "250 mx.test");
	client("STARTTLS");
	recorded("tls client may failed: no random numbers");
	client_gets("454 4.7.0 TLS is not available now");
	stands_at(OPEN, READY);
}

/* RFC 3207 6, CVE-2011-0411. */
static void starttls_injected(void **state)
{
	(void)state;
	to_ready(TLS, "250 mx.test");
	client("STARTTLS\nMAIL FROM:<evil@b.test>");
	recorded("error: plaintext behind STARTTLS: the client spoke, or somebody for it, before TLS was there");
	client_gets("421 4.7.0 Nothing may follow STARTTLS before TLS is there");
	server_gets("QUIT");
	ended(LINGER, "smtpwarp", "plaintext behind STARTTLS: the client spoke, or somebody for it, before TLS was there");
}

static void shake_fails(void **state)
{
	(void)state;
	to_shake(TLS);
	client_shake_fails("no shared cipher");
	recorded("tls client may failed: no shared cipher");
	client_gets("");
	ended(SILENT, "client", "TLS handshake failed");
}

static void shake_is_overdue(void **state)
{
	(void)state;
	to_shake(TLS "--tls-timeout 7");
	passes(7);
	recorded("tls client may failed: TLS handshake timed out");
	ended(SILENT, "client", "TLS handshake failed");
}

static void shake_is_left(void **state)
{
	(void)state;
	to_shake(TLS);
	client_closes();
	recorded("tls client may failed: connection closed");
	ended(SILENT, "client", "TLS handshake failed");
}

static void shake_breaks(void **state)
{
	(void)state;
	to_shake(TLS);
	client_breaks();
	recorded("tls client may failed: connection reset");
	ended(SILENT, "client", "TLS handshake failed");
}

static void shake_is_none(void **state)
{
	(void)state;
	to_shake(TLS);
	world_tls_client.otherwise = true;
	client_shake_fails("not TLS");
	recorded("error: plaintext behind STARTTLS: the client spoke, or somebody for it, before TLS was there");
	recorded("tls client may failed: not TLS");
}

/* The session ends for another reason: so does the handshake. */
static void shake_is_ended(void **state)
{
	(void)state;
	to_shake(TLS "--tls-timeout 0 --session-timeout 50");
	falls_due_in(50, "session too long");
	passes(50);
	recorded("tls client may failed: session too long");
	client_gets("");
	ended(LINGER, "smtpwarp", "session too long");
}

static void transaction_before_starttls(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	to_ready(TLS, "250 mx.test");
	client("MAIL FROM:<a@b.test>");
	hook_says("reject no\n");
	client_heard();
	client("STARTTLS");
	client_shakes();
	recorded("message rejected a@b.test: 550 5.7.1 no");
}

#define IMPLICIT ONE "--client-tls implicit --cert /cert "

static void implicit_tls(void **state)
{
	(void)state;
	session_begins(IMPLICIT "--greet-delay 5");
	stands_at(SHAKE, NONE);
	client_shakes();
	recorded("tls client implicit ok verified");
	stands_at(CHECKS, NONE);
	client_gets("220-warp.test ESMTP");
}

static void implicit_tls_and_allowed(void **state)
{
	(void)state;
	session_begins(IMPLICIT "--allow-clients 192.0.2.0/24");
	client_shakes();
	stands_at(OPEN, CONNECTING);
	server_connects();
	server(BANNER);
	client_gets(BANNER);
}

static void implicit_tls_cannot_begin(void **state)
{
	(void)state;
	world_tls_client.cannot = "no random numbers";
	session_begins(IMPLICIT);
	recorded("tls client implicit failed: no random numbers");
	ended(SILENT, "smtpwarp", "no random numbers");
}

static void implicit_tls_fails(void **state)
{
	(void)state;
	session_begins(IMPLICIT);
	world_tls_client.otherwise = true;
	client_shake_fails("not TLS");
	not_recorded("error");
	ended(SILENT, "client", "TLS handshake failed");
}

/* ---- TUNNEL ---- */

#define THROUGH ONE "--client-tls passthrough "

static void to_tunnel(const char *options)
{
	to_ready(options, "250-mx.test\n250 STARTTLS");
	client("STARTTLS");
	server_gets("STARTTLS");
	stands_at(STARTTLS, READY);
	server("220 go");
	client_gets("220 go");
	recorded("tls client passthrough passthrough");
	stands_at(TUNNEL, TUNNEL);
}

static void tunnel(void **state)
{
	(void)state;
	to_tunnel(THROUGH "--idle-timeout 20 --dot-timeout 30");
	falls_due_in(30, "silence inside of TLS");
	passes(10);
	client_bytes("\x16\x03hello", 7);
	server_gets("\\26\\3hello...");
	falls_due_in(30, "silence inside of TLS");
	server_bytes("\x16\x03there", 7);
	client_gets("\\26\\3there...");
	client_closes(); /* each side closes for itself */
	assert_true(world_server.shut);
	server_bytes("more", 4);
	client_gets("more...");
	server_closes();
	client_gets("");
	ended(SILENT, "client", "connection closed");
}

static void tunnel_server_closes_first(void **state)
{
	(void)state;
	to_tunnel(THROUGH);
	client_bytes("\x16", 1);
	server_closes();
	assert_true(world_client.shut);
	client_closes();
	ended(SILENT, "upstream", "connection closed");
}

static void tunnel_is_silent(void **state)
{
	(void)state;
	to_tunnel(THROUGH "--idle-timeout 40 --dot-timeout 30");
	passes(40);
	client_gets("");
	ended(SILENT, "smtpwarp", "silence inside of TLS");
}

/* 0 is no limit. */
static void tunnel_may_be_silent(void **state)
{
	(void)state;
	to_tunnel(THROUGH "--idle-timeout 0 --session-timeout 0");
	never_due();
}

static void tunnel_stalls(void **state)
{
	(void)state;
	to_tunnel(THROUGH "--block-timeout 8");
	server_takes(0);
	client_bytes("\x16", 1);
	falls_due_in(8, "upstream does not take what is sent");
	passes(8);
	ended(SILENT, "smtpwarp", "upstream does not take what is sent");
}

static void tunnel_breaks(void **state)
{
	(void)state;
	to_tunnel(THROUGH);
	server_breaks();
	ended(SILENT, "upstream", "connection reset");
}

static void tunnel_client_breaks(void **state)
{
	(void)state;
	to_tunnel(THROUGH);
	client_breaks();
	ended(SILENT, "client", "connection reset");
}

/* In TLS the client speaks first. */
static void tunnel_injected(void **state)
{
	(void)state;
	to_tunnel(THROUGH);
	server("250 evil");
	recorded("error: the upstream spoke before the client's handshake: somebody injected it");
	client_gets("");
	ended(SILENT, "smtpwarp", "the upstream spoke before the client's handshake: somebody injected it");
}

static void tunnel_is_terminated(void **state)
{
	(void)state;
	to_tunnel(THROUGH "--drain-timeout 15");
	terminate(1);
	falls_due_in(15, "");
	passes(15);
	client_gets("");
	ended(SILENT, "smtpwarp", "shutting down");
}

static void passthrough_refused(void **state)
{
	(void)state;
	to_ready(THROUGH, "250-mx.test\n250 STARTTLS");
	client("STARTTLS");
	server("454 no");
	client_gets("454 no");
	stands_at(OPEN, READY);
}

static void passthrough_injected(void **state)
{
	(void)state;
	to_ready(THROUGH, "250-mx.test\n250 STARTTLS");
	client("STARTTLS");
	server("220 go\n250 evil");
	recorded("error: plaintext after the reply to STARTTLS: somebody injected it");
	client_gets("421 4.7.0 upstream's reply to STARTTLS is not to be trusted");
	ended(LINGER, "smtpwarp", "plaintext after the reply to STARTTLS: somebody injected it");
}

static void passthrough_injected_by_client(void **state)
{
	(void)state;
	to_ready(THROUGH, "250-mx.test\n250 STARTTLS");
	client("STARTTLS");
	client("MAIL FROM:<evil@b.test>");
	client_gets("421 4.7.0 Nothing may follow STARTTLS before TLS is there");
	ended(LINGER, "smtpwarp", "plaintext behind STARTTLS: the client spoke, or somebody for it, before TLS was there");
}

static void passthrough_is_overdue(void **state)
{
	(void)state;
	to_ready(THROUGH "--command-timeout 12", "250-mx.test\n250 STARTTLS");
	client("STARTTLS");
	falls_due_in(12, "upstream did not reply in time");
	passes(12);
	client_gets("421 4.4.2 192.0.2.25: upstream did not reply in time");
}

/* ---- deadlines of the client ---- */

static void client_is_idle(void **state)
{
	(void)state;
	to_ready(ONE "--idle-timeout 20", "250 mx.test");
	falls_due_in(20, "client idle");
	passes(15);
	client("NOOP");
	server("250 ok");
	falls_due_in(20, "client idle");
	client_heard();
	passes(20);
	client_gets("421 4.4.2 client idle");
	server_gets("NOOP\nQUIT");
	ended(LINGER, "smtpwarp", "client idle");
}

static void client_is_idle_without_server(void **state)
{
	(void)state;
	session_begins(LATE "--idle-timeout 20");
	client_heard();
	falls_due_in(20, "client idle");
	passes(20);
	client_gets("421 4.4.2 client idle");
}

static void client_never_finishes(void **state)
{
	(void)state;
	to_ready(ONE "--idle-timeout 20 --command-timeout 12", "250 mx.test");
	passes(1);
	client_bytes("NOO", 3);
	falls_due_in(12, "client slow to finish a command");
	passes(10);
	client_bytes("P", 1);
	falls_due_in(2, "client slow to finish a command");
	passes(2);
	client_gets("421 4.4.2 client slow to finish a command");
}

static void to_message(const char *options)
{
	to_recipient(options);
	client("DATA");
	server("354 go");
	client_gets("354 go");
}

static void client_is_silent_in_message(void **state)
{
	(void)state;
	to_message(ONE "--block-timeout 8 --min-rate 0");
	passes(1);
	client("hello");
	falls_due_in(8, "client silent within a message");
	passes(8);
	client_gets("421 4.4.2 client silent within a message");
	recorded("message aborted a@b.test to r@d.test 250");
	ended(LINGER, "smtpwarp", "client silent within a message");
}

/* 10 octets a second: with each of them more time. */
static void client_is_slow_in_message(void **state)
{
	(void)state;
	to_message(ONE "--block-timeout 8 --min-rate 10");
	for (int i = 0; i < 4; i++) {
		passes(2);
		client("abc");
	}
	falls_due_in(2, "client slow within a message");
	passes(2);
	client_gets("421 4.4.2 client slow within a message");
	ended(LINGER, "smtpwarp", "client slow within a message");
}

/* The time that the server takes is not the client's. */
static void message_waits_for_server(void **state)
{
	(void)state;
	to_message(ONE "--block-timeout 8 --min-rate 10");
	server_takes(0);
	client("hello");
	falls_due_in(8, "upstream does not take what is sent");
	passes(5);
	server_takes(WORLD_FOREVER);
	falls_due_in(8, "client silent within a message");
}

static void client_takes_nothing(void **state)
{
	(void)state;
	to_ready(ONE "--block-timeout 8", "250 mx.test");
	client_takes(0);
	client("NOOP");
	server("250 ok");
	falls_due_in(8, "client does not take replies");
	passes(8);
	ended(SILENT, "smtpwarp", "client does not take replies");
}

static void session_is_too_long(void **state)
{
	(void)state;
	to_ready(ONE "--session-timeout 50 --idle-timeout 0", "250 mx.test");
	falls_due_in(50, "session too long");
	passes(50);
	client_gets("421 4.4.2 session too long");
	ended(LINGER, "smtpwarp", "session too long");
}

/* No reply of ours may stand where the server's belongs. */
static void session_is_too_long_for_message(void **state)
{
	(void)state;
	to_message(ONE "--session-timeout 50");
	client(MESSAGE);
	passes(50);
	client_gets("");
	recorded("message unknown a@b.test to r@d.test 250");
	ended(SILENT, "smtpwarp", "session too long");
}

/* ---- deadlines of the server ---- */

static void server_replies_late(void **state)
{
	(void)state;
	to_ready(ONE "--command-timeout 11 --mail-timeout 12 --rcpt-timeout 13 --data-timeout 14 --dot-timeout 15 --idle-timeout 0",
	    "250-mx.test\n250 PIPELINING");
	client("NOOP");
	falls_due_in(11, "upstream did not reply in time");
	server("250 ok");
	client("MAIL FROM:<a@b.test>");
	falls_due_in(12, "upstream did not reply in time");
	passes(11);
	server("250 ok");
	client("RCPT TO:<r@d.test>\nRCPT TO:<s@d.test>");
	falls_due_in(13, "upstream did not reply in time");
	passes(12);
	server("250 ok");
	falls_due_in(13, "upstream did not reply in time"); /* for the second one */
	server("250 ok");
	client("DATA");
	falls_due_in(14, "upstream did not reply in time");
	server("354 go");
	client(MESSAGE);
	falls_due_in(15, "upstream did not reply in time");
	client_heard();
	passes(15); /* what became of the message is not known */
	client_gets("");
	recorded("message unknown a@b.test to r@d.test 250, s@d.test 250");
	ended(SILENT, "upstream", "connection lost before the reply to a message: its outcome is unknown");
}

static void server_replies_never(void **state)
{
	(void)state;
	to_ready(ONE "--mail-timeout 12", "250 mx.test");
	client("MAIL FROM:<a@b.test>");
	passes(12);
	client_gets("421 4.4.2 192.0.2.25: upstream did not reply in time");
	recorded("error: 192.0.2.25: upstream did not reply in time");
	ended(LINGER, "upstream", "upstream did not reply in time");
}

static void server_takes_nothing(void **state)
{
	(void)state;
	to_ready(ONE "--block-timeout 8", "250 mx.test");
	server_takes(0);
	client("NOOP");
	falls_due_in(8, "upstream does not take what is sent");
	passes(8);
	client_gets("421 4.4.2 192.0.2.25: upstream does not take what is sent");
	ended(LINGER, "upstream", "upstream does not take what is sent");
}

/* What is still being written cannot be answered: the reply is awaited from its end on. */
static void reply_is_awaited_from(void **state)
{
	(void)state;
	to_ready(ONE "--block-timeout 8 --command-timeout 11", "250 mx.test");
	server_takes(0);
	client("NOOP");
	passes(5);
	server_takes(WORLD_FOREVER);
	falls_due_in(11, "upstream did not reply in time");
}

/* ---- SIGTERM ---- */

static void terminated_at_once(void **state)
{
	(void)state;
	to_ready(ONE, "250 mx.test");
	terminate(1);
	client_gets("421 4.3.2 Service is shutting down");
	server_gets("QUIT");
	ended(LINGER, "smtpwarp", "shutting down");
}

static void terminated_after_message(void **state)
{
	(void)state;
	to_message(ONE "--drain-timeout 15");
	terminate(1);
	falls_due_in(15, "");
	client(MESSAGE);
	server("250 accepted");
	client_gets("250 accepted\n421 4.3.2 Service is shutting down");
	ended(LINGER, "smtpwarp", "shutting down");
}

static void terminated_in_message(void **state)
{
	(void)state;
	to_message(ONE "--drain-timeout 15");
	terminate(1);
	passes(15);
	client_gets("421 4.3.2 Service is shutting down");
	ended(LINGER, "smtpwarp", "shutting down");
}

static void terminated_twice(void **state)
{
	(void)state;
	to_message(ONE "--drain-timeout 15");
	terminate(2);
	client_gets("421 4.3.2 Service is shutting down");
}

/* Only the reply to a whole message is always waited for. */
static void terminated_before_outcome(void **state)
{
	(void)state;
	to_message(ONE "--drain-timeout 15 --dot-timeout 40");
	client(MESSAGE);
	terminate(2);
	goes_still();
	falls_due_in(40, "upstream did not reply in time");
	server("250 accepted");
	client_gets("250 accepted\n421 4.3.2 Service is shutting down");
}

/* ---- the last of it ---- */

/* A last reply is given 10 seconds to be taken, and 2 to be read. */
static void lingers(void **state)
{
	int64_t before;

	(void)state;
	to_ready(ONE, "250 mx.test");
	before = world_now;
	terminate(1);
	assert_int_equal(world_now - before, 2000000);
}

static void last_reply_is_not_taken(void **state)
{
	int64_t before;

	(void)state;
	to_ready(ONE, "250 mx.test");
	client_takes(5);
	before = world_now;
	terminate(1);
	client_gets("421 4...");
	assert_int_equal(world_now - before, 10000000);
}

/* A log hook, and hooks of `close`. */
static void close_hooks_run(void **state)
{
	int64_t before;

	(void)state;
	hook_is_there(HOOK_CLOSE, "c");
	to_ready(ONE "--hook-timeout 9", "250 mx.test");
	before = world_now;
	client_closes();
	assert_non_null(strstr(world_hook_line, "\"event\":\"close\""));
	recorded("verdict close c failed: it did not end in time (--hook-timeout)");
	assert_int_equal((world_now - before) / 1000000, 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(checks_pass_at_once), cmocka_unit_test(checks_allow), cmocka_unit_test(checks_wait_for_list),
		cmocka_unit_test(checks_list_is_silent), cmocka_unit_test(checks_refuse), cmocka_unit_test(checks_then_tarpit),
		cmocka_unit_test(checks_delay), cmocka_unit_test(client_leaves_in_checks),
		cmocka_unit_test(tarpit_for_stranger), cmocka_unit_test(tarpit_client_closes),
		cmocka_unit_test(tarpit_client_breaks), cmocka_unit_test(tarpit_is_full),
		cmocka_unit_test(tarpit_for_recipient), cmocka_unit_test(hooks_accept),
		cmocka_unit_test(client_leaves_before_greeting), cmocka_unit_test(hooks_refuse_connections),
		cmocka_unit_test(hooks_then_tarpit), cmocka_unit_test(hooks_tarpit_and_accept),
		cmocka_unit_test(hooks_on_commands), cmocka_unit_test(hook_is_overdue),
		cmocka_unit_test(hook_is_overdue_and_accepts), cmocka_unit_test(chain_is_overdue),
		cmocka_unit_test(hooks_broken), cmocka_unit_test(hooks_broken_and_accept),
		cmocka_unit_test(client_leaves_in_hooks), cmocka_unit_test(server_speaks_in_hooks),
		cmocka_unit_test(kept_is_sent), cmocka_unit_test(kept_is_refused), cmocka_unit_test(kept_server_overdue),
		cmocka_unit_test(kept_verdicts), cmocka_unit_test(kept_refused_by_lmtp),
		cmocka_unit_test(server_for_recipient), cmocka_unit_test(server_is_overdue),
		cmocka_unit_test(server_refuses_sender), cmocka_unit_test(client_leaves_in_server),
		cmocka_unit_test(list_for_client), cmocka_unit_test(list_is_overdue), cmocka_unit_test(told_before_mail),
		cmocka_unit_test(told_is_refused), cmocka_unit_test(told_is_overdue), cmocka_unit_test(told_waits_for_name),
		cmocka_unit_test(told_server_closes), cmocka_unit_test(told_in_server), cmocka_unit_test(starttls),
		cmocka_unit_test(starttls_waits), cmocka_unit_test(starttls_cannot_begin), cmocka_unit_test(starttls_injected),
		cmocka_unit_test(shake_fails), cmocka_unit_test(shake_is_overdue), cmocka_unit_test(shake_is_left),
		cmocka_unit_test(shake_breaks), cmocka_unit_test(shake_is_none), cmocka_unit_test(shake_is_ended),
		cmocka_unit_test(transaction_before_starttls), cmocka_unit_test(implicit_tls),
		cmocka_unit_test(implicit_tls_and_allowed), cmocka_unit_test(implicit_tls_cannot_begin),
		cmocka_unit_test(implicit_tls_fails), cmocka_unit_test(tunnel), cmocka_unit_test(tunnel_server_closes_first),
		cmocka_unit_test(tunnel_is_silent), cmocka_unit_test(tunnel_may_be_silent), cmocka_unit_test(tunnel_stalls),
		cmocka_unit_test(tunnel_breaks), cmocka_unit_test(tunnel_client_breaks), cmocka_unit_test(tunnel_injected),
		cmocka_unit_test(tunnel_is_terminated), cmocka_unit_test(passthrough_refused),
		cmocka_unit_test(passthrough_injected), cmocka_unit_test(passthrough_injected_by_client),
		cmocka_unit_test(passthrough_is_overdue), cmocka_unit_test(client_is_idle),
		cmocka_unit_test(client_is_idle_without_server), cmocka_unit_test(client_never_finishes),
		cmocka_unit_test(client_is_silent_in_message), cmocka_unit_test(client_is_slow_in_message),
		cmocka_unit_test(message_waits_for_server), cmocka_unit_test(client_takes_nothing),
		cmocka_unit_test(session_is_too_long), cmocka_unit_test(session_is_too_long_for_message),
		cmocka_unit_test(server_replies_late), cmocka_unit_test(server_replies_never),
		cmocka_unit_test(server_takes_nothing), cmocka_unit_test(reply_is_awaited_from),
		cmocka_unit_test(terminated_at_once), cmocka_unit_test(terminated_after_message),
		cmocka_unit_test(terminated_in_message), cmocka_unit_test(terminated_twice),
		cmocka_unit_test(terminated_before_outcome), cmocka_unit_test(lingers),
		cmocka_unit_test(last_reply_is_not_taken), cmocka_unit_test(close_hooks_run),
	};

	return run_session_tests(tests);
}
