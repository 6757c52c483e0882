/* Checks of the client and of recipients, and the tarpit: who comes in, who is refused, and when the refused one is told. */
#include "test/lib/fake_session.h"
#include "test/lib/fake_story.h"

#define LISTED "7.2.0.192.bl.test"
#define STRANGER ONE "--allow-clients 198.51.100.0/24 "
#define NOT_ALLOWED "554 5.7.1 Client 192.0.2.7 is not allowed here (--allow-clients)"
#define NOBODY "550 5.1.1 There is no such recipient here"
#define TOO_EARLY "554 5.5.1 Protocol error: you spoke too early"

/* ---- --allow-clients ---- */

static void client_may_come(void **state)
{
	const char *const *row = *state;
	char line[200];

	client_is(row[0]);
	snprintf(line, sizeof line, ONE "--allow-clients 192.0.2.0/25 --allow-clients 2001:db8::/32 %s", row[1]);
	session_begins(line);
	stands_at(OPEN, CONNECTING);
	not_recorded("verdict");
}

/* Who is allowed is on no list. */
static void clients_may_come(void **state)
{
	static const char *const rows[][2] = {
		{ "192.0.2.7", "" }, { "192.0.2.127", "" }, { "2001:db8::7", "" }, { "192.0.2.7", "--dnsbl bl.test" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], client_may_come, rows[i]);
}

static void stranger(void **state)
{
	(void)state;
	session_begins(STRANGER);
	client_gets(NOT_ALLOWED);
	recorded("verdict clients - reject: 5.7.1 Client 192.0.2.7 is not allowed here (--allow-clients)");
	assert_int_equal(world_net.attempts, 0);
	ended(LINGER, "smtpwarp", "client is not allowed");
}

static void stranger_of_ipv6(void **state)
{
	(void)state;
	client_is("2001:db8::7");
	session_begins(STRANGER);
	client_gets("554 5.7.1 Client 2001:db8::7 is not allowed here (--allow-clients)");
}

/* ---- --dnsbl ---- */

/* Options, the answer of the list, its text, and what the client gets: NULL if it may come in. */
static void list_says(void **state)
{
	const char *const *row = *state;
	char line[200];

	snprintf(line, sizeof line, ONE "%s", row[0]);
	world_dns(LISTED, DNS_A, row[1], NULL);
	world_dns(LISTED, DNS_TXT, row[2], NULL);
	session_begins(line);
	client_gets(row[3] ? row[3] : "");
	if (row[3])
		ended(LINGER, "smtpwarp", "listed by --dnsbl");
	else
		stands_at(OPEN, CONNECTING);
	if (row[4])
		recorded(row[4]);
	else
		not_recorded("verdict");
}

/* PROTOCOL 79. */
static void lists_say(void **state)
{
	static const char *const rows[][5] = {
		{ "--dnsbl bl.test", NULL, NULL, NULL, NULL },
		{ "--dnsbl bl.test", "127.0.0.2", NULL, "554 5.7.1 Client 192.0.2.7 is listed by bl.test",
		    "verdict dnsbl - reject: 5.7.1 Client 192.0.2.7 is listed by bl.test" },
		{ "--dnsbl bl.test", "127.0.0.2", "see http://bl.test/",
		    "554 5.7.1 Client 192.0.2.7 is listed by bl.test: see http://bl.test/",
		    "verdict dnsbl - reject: 5.7.1 Client 192.0.2.7 is listed by bl.test: see http://bl.test/" },
		{ "--dnsbl bl.test=127.0.0.[2..4]", "127.0.0.4", NULL, "554 5.7.1 Client 192.0.2.7 is listed by bl.test",
		    "verdict dnsbl - reject: 5.7.1 Client 192.0.2.7 is listed by bl.test" },
		{ "--dnsbl bl.test=127.0.0.[2..4]", "127.0.0.5", "x", NULL, "verdict dnsbl - accept" },
		{ "--dnsbl bl.test", "127.255.255.254", "x", NULL, "verdict dnsbl - accept" },
		{ "--dnsbl bl.test", "192.0.2.80", "x", NULL, "verdict dnsbl - accept" },
		{ "--dnsbl bl.test*2 --dnsbl-threshold 3", "127.0.0.2", "x", NULL, "verdict dnsbl - accept" },
		{ "--dnsbl bl.test*3 --dnsbl-threshold 3", "127.0.0.2", NULL, "554 5.7.1 Client 192.0.2.7 is listed by bl.test",
		    "verdict dnsbl - reject: 5.7.1 Client 192.0.2.7 is listed by bl.test" },
		{ "--dnsbl bl.test=127.0.0.2*1 --dnsbl bl.test*2 --dnsbl-threshold 3", "127.0.0.2", NULL,
		    "554 5.7.1 Client 192.0.2.7 is listed by bl.test",
		    "verdict dnsbl - reject: 5.7.1 Client 192.0.2.7 is listed by bl.test" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], list_says, rows[i]);
}

/* The reply names the list that counts most. */
static void several_lists(void **state)
{
	(void)state;
	session_begins(ONE "--dnsbl bl.test --dnsbl worst.test*3 --dnsbl last.test*2 --dnsbl good.test*-1 --dnsbl-threshold 5");
	stands_at(CHECKS, NONE);
	dns_says(LISTED, DNS_A, "127.0.0.2", NULL);
	dns_says("7.2.0.192.worst.test", DNS_A, "127.0.0.2", NULL);
	dns_says("7.2.0.192.last.test", DNS_A, "127.0.0.2", NULL);
	stands_at(CHECKS, NONE);
	dns_says("7.2.0.192.good.test", DNS_A, "127.0.0.9", NULL);
	dns_says("7.2.0.192.worst.test", DNS_TXT, "spam", NULL);
	client_gets("554 5.7.1 Client 192.0.2.7 is listed by worst.test: spam");
	assert_string_equal(member_of("verdict", "score"), "5");
}

static void list_that_is_for_the_client(void **state)
{
	(void)state;
	world_dns(LISTED, DNS_A, "127.0.0.2", NULL);
	world_dns("7.2.0.192.good.test", DNS_A, "127.0.0.2", NULL);
	session_begins(ONE "--dnsbl bl.test --dnsbl good.test*-1");
	stands_at(OPEN, CONNECTING);
	recorded("verdict dnsbl - accept");
}

static void list_fails(void **state)
{
	(void)state;
	world_dns(LISTED, DNS_A, NULL, "SERVFAIL");
	session_begins(ONE "--dnsbl bl.test");
	stands_at(OPEN, CONNECTING);
	recorded("verdict dnsbl - accept");
	assert_non_null(strstr(member_of("verdict", "lists"), "SERVFAIL"));
}

/* A text is asked for as long as an answer. */
static void text_is_late(void **state)
{
	(void)state;
	session_begins(ONE "--dnsbl bl.test --dnsbl-timeout 3");
	passes(2);
	dns_says(LISTED, DNS_A, "127.0.0.2", NULL);
	falls_due_in(3, "");
	passes(3);
	client_gets("554 5.7.1 Client 192.0.2.7 is listed by bl.test");
}

static void lists_of_ipv6(void **state)
{
	(void)state;
	client_is("2001:db8::7");
	world_dns("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.test", DNS_A, "127.0.0.2", NULL);
	session_begins(ONE "--dnsbl bl.test --dnsbl-timeout 3");
	passes(3);
	client_gets("554 5.7.1 Client 2001:db8::7 is listed by bl.test");
}

/* Nobody lists an address of ours. */
static void lists_and_loopback(void **state)
{
	(void)state;
	client_is("127.0.0.1");
	session_begins(ONE "--dnsbl bl.test");
	stands_at(OPEN, CONNECTING);
}

/* ---- --greet-delay ---- */

static void client_waits(void **state)
{
	(void)state;
	session_begins(ONE "--greet-delay 5");
	client_gets("220-warp.test ESMTP");
	passes(5);
	stands_at(OPEN, CONNECTING);
	server_connects();
	server("220-mx.test\n220 hello");
	client_gets("220-mx.test\n220 hello");
}

static void client_waits_late(void **state)
{
	(void)state;
	session_begins(LATE "--greet-delay 5");
	client_gets("220-warp.test ESMTP");
	passes(5);
	client_gets("220 warp.test ESMTP");
}

static void client_speaks_at_once(void **state)
{
	(void)state;
	client("EHLO spam.test");
	session_begins(ONE "--greet-delay 5");
	client_gets("220-warp.test ESMTP\n" TOO_EARLY);
	recorded("verdict greeting - reject: 5.5.1 Protocol error: you spoke too early");
	assert_string_equal(member_of("verdict", "data"), "\"EHLO spam.test\\u000d\\u000a\"");
	ended(LINGER, "smtpwarp", "spoke too early");
}

/* The delay is over, and yet the client has not been greeted. */
static void client_speaks_before_banner(void **state)
{
	(void)state;
	session_begins(ONE "--greet-delay 5");
	passes(5);
	server_connects();
	client_heard();
	client("EHLO spam.test");
	client_gets("");
	server(BANNER);
	client_gets(TOO_EARLY);
	server_gets("QUIT");
	ended(LINGER, "smtpwarp", "spoke too early");
}

/* A client that speaks before it is greeted is none of ours to judge without --greet-delay. */
static void client_speaks_without_delay(void **state)
{
	(void)state;
	client("EHLO c.test");
	session_begins(ONE);
	server_connects();
	server(BANNER);
	client_gets(BANNER);
	server_gets("EHLO c.test");
}

/* Both go on at the same time. */
static void delay_and_list(void **state)
{
	(void)state;
	session_begins(ONE "--greet-delay 5 --dnsbl bl.test --dnsbl-timeout 8");
	client_heard();
	falls_due_in(5, "");
	passes(5);
	stands_at(CHECKS, NONE);
	falls_due_in(3, "");
	dns_says(LISTED, DNS_A, NULL, NULL);
	stands_at(OPEN, CONNECTING);
}

static void delay_and_listed(void **state)
{
	(void)state;
	world_dns(LISTED, DNS_A, "127.0.0.2", NULL);
	world_dns(LISTED, DNS_TXT, NULL, NULL);
	session_begins(ONE "--greet-delay 5 --dnsbl bl.test");
	client_gets("220-warp.test ESMTP");
	stands_at(CHECKS, NONE); /* a list can wait for the delay */
	passes(5);
	client_gets("554 5.7.1 Client 192.0.2.7 is listed by bl.test");
}

static void early_and_listed(void **state)
{
	(void)state;
	world_dns(LISTED, DNS_A, "127.0.0.2", NULL);
	session_begins(ONE "--greet-delay 5 --dnsbl bl.test");
	client_heard();
	client("EHLO spam.test");
	client_gets(TOO_EARLY);
}

/* ---- the tarpit ---- */

static void early_then_tarpit(void **state)
{
	(void)state;
	session_begins(ONE "--greet-delay 5 --tarpit 20");
	client_heard();
	client("EHLO spam.test");
	stands_at(TARPIT, NONE);
	falls_due_in(20, "");
	passes(20);
	client_gets(TOO_EARLY);
	ended(LINGER, "smtpwarp", "spoke too early");
}

/* Of a client that is delayed little is read. */
static void tarpit_reads_little(void **state)
{
	static char line[100000];

	(void)state;
	session_begins(STRANGER "--tarpit 20");
	memset(line, 'x', sizeof line);
	client_bytes(line, sizeof line);
	assert_true(world_client.in_at <= LEG_SMALL);
	passes(20);
	client_gets(NOT_ALLOWED);
	assert_int_equal(world_client.in_at, sizeof line); /* the close is not to reset the reply away */
}

static void tarpit_without_places(void **state)
{
	const char *const *row = *state;
	char line[200];

	snprintf(line, sizeof line, STRANGER "--tarpit 20 %s", row[0]);
	session_begins(line);
	client_gets(NOT_ALLOWED);
	ended(LINGER, "smtpwarp", "client is not allowed");
}

/* Half of the sessions must be free of it. */
static void tarpits_without_places(void **state)
{
	static const char *const rows[][1] = { { "--max-tarpits 0" }, { "--max-sessions 1" } };

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], tarpit_without_places, rows[i]);
}

static void client_is_told_when_it_closes(void **state)
{
	(void)state;
	session_begins(STRANGER "--tarpit 20");
	passes(3);
	world_says(&world_client, "EHLO spam.test\r\n", 16);
	client_closes();
	client_gets(NOT_ALLOWED);
	ended(LINGER, "smtpwarp", "client is not allowed");
}

/* Verdicts of hooks use it, too, and leave its place to the next. */
static void tarpit_twice(void **state)
{
	(void)state;
	hook_is_there(HOOK_CONNECT, "c");
	hook_is_there(HOOK_EHLO, "e");
	session_begins(ONE);
	hook_says("tarpit 30\n");
	stands_at(TARPIT, NONE);
	falls_due_in(30, "");
	passes(30);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	hook_says("tarpit 40\n");
	stands_at(TARPIT, IDLE);
	falls_due_in(40, "");
	server_gets("");
	passes(40);
	server_gets("EHLO c.test");
}

static void server_speaks_in_tarpit(void **state)
{
	(void)state;
	hook_is_there(HOOK_EHLO, "e");
	session_begins(ONE);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	hook_says("tarpit 40\n");
	client_heard();
	server("421 bye");
	client_gets("421 bye");
	ended(LINGER, "upstream", "reply 421 bye");
}

/* ---- --valid-recipients ---- */

static void recipients(void **state)
{
	(void)state;
	to_ready(ONE "--valid-recipients ^(r|s)@d\\.test$ --max-errors 2", PIPES);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nRCPT TO:<no@d.test>\nRCPT TO:<S@D.TEST>");
	server("250 ok");
	client_gets("250 ok");
	server("250 r");
	client_gets("250 r\n" NOBODY);
	server("250 s");
	client_gets("250 s");
	server_gets("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nRCPT TO:<S@D.TEST>");
	client("RCPT TO:<no@d.test>"); /* harvesting is an error, and one too many */
	client_gets(NOBODY "\n421 4.7.0 Too many bad commands, or one too bad");
	recorded("message aborted a@b.test to r@d.test 250, no@d.test 550, S@D.TEST 250, no@d.test 550");
	ended(LINGER, "smtpwarp", "bad commands");
}

/* They come before hooks, and before routes. */
static void recipient_and_hooks(void **state)
{
	(void)state;
	hook_is_there(HOOK_RCPT, "r");
	to_ready(ONE "--valid-recipients ^r@", PIPES);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<no@d.test>");
	server("250 ok");
	assert_null(world_hook);
	client_gets("250 ok\n" NOBODY);
}

static void recipient_late(void **state)
{
	(void)state;
	session_begins(LATE "--valid-recipients ^r@ --tarpit 20");
	client("EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<no@d.test>\nRCPT TO:<r@d.test>");
	client_heard();
	stands_at(TARPIT, NONE);
	passes(20);
	client_gets(NOBODY);
	stands_at(SERVER, CONNECTING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clients_may_come), cmocka_unit_test(stranger), cmocka_unit_test(stranger_of_ipv6),
		cmocka_unit_test(lists_say), cmocka_unit_test(several_lists), cmocka_unit_test(list_that_is_for_the_client),
		cmocka_unit_test(list_fails), cmocka_unit_test(text_is_late), cmocka_unit_test(lists_of_ipv6),
		cmocka_unit_test(lists_and_loopback), cmocka_unit_test(client_waits), cmocka_unit_test(client_waits_late),
		cmocka_unit_test(client_speaks_at_once), cmocka_unit_test(client_speaks_before_banner),
		cmocka_unit_test(client_speaks_without_delay), cmocka_unit_test(delay_and_list), cmocka_unit_test(delay_and_listed),
		cmocka_unit_test(early_and_listed), cmocka_unit_test(early_then_tarpit), cmocka_unit_test(tarpit_reads_little),
		cmocka_unit_test(tarpits_without_places), cmocka_unit_test(client_is_told_when_it_closes),
		cmocka_unit_test(tarpit_twice), cmocka_unit_test(server_speaks_in_tarpit), cmocka_unit_test(recipients),
		cmocka_unit_test(recipient_and_hooks), cmocka_unit_test(recipient_late),
	};

	return run_session_tests(tests);
}
