/* Hooks in a session: which ones an event asks, what their verdicts do, and what follows when they fail. */
#include "test/lib/fake_session.h"
#include "test/lib/fake_story.h"

#include <fcntl.h>

#define FAILED "451 4.3.0 A filter is out of order, try again later"
#define MAIL "MAIL FROM:<a@b.test>"

static const char *hook_that_runs(void)
{
	return world_hook ? world_hook->hook->name : "";
}

static void is_told(const char *text)
{
	if (!strstr(world_hook_line, text))
		fail_msg("the hook is told %s\n  want %s", world_hook_line, text);
}

/* ---- chains ---- */

/* In the order of the list, up to the first that does not accept; hooks of other events have nothing to say. */
static void chain(void **state)
{
	(void)state;
	hook_is_there(HOOK_RCPT, "r");
	hook_is_there(HOOK_MAIL, "10-first");
	hook_is_there(HOOK_DATA, "d");
	hook_is_there(HOOK_MAIL, "20-second");
	hook_is_there(HOOK_MAIL, "30-third");
	to_ready(ONE, PLAIN);
	client(MAIL);
	assert_string_equal(hook_that_runs(), "10-first");
	hook_says("");
	assert_string_equal(hook_that_runs(), "20-second");
	client_gets("");
	hook_says("reject no\n");
	assert_string_equal(hook_that_runs(), "");
	client_gets("550 5.7.1 no");
	recorded("verdict mail 20-second reject: no");
	not_recorded("verdict");
	client(MAIL); /* from the beginning */
	assert_string_equal(hook_that_runs(), "10-first");
}

static void event_without_hook(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_ready(ONE, PLAIN);
	client(MAIL);
	server_gets(MAIL);
}

/* What each event is told. */
static void events_are_told(void **state)
{
	(void)state;
	hook_is_there(HOOK_CONNECT, "c");
	hook_is_there(HOOK_EHLO, "e");
	hook_is_there(HOOK_MAIL, "m");
	hook_is_there(HOOK_RCPT, "r");
	hook_is_there(HOOK_DATA, "d");
	session_begins(ONE);
	is_told("\"event\":\"connect\"");
	is_told("\"ip\":\"192.0.2.7\",\"port\":1234");
	hook_says("");
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	is_told("\"event\":\"ehlo\"");
	is_told("\"helo\":\"c.test\"");
	hook_says("");
	server(PLAIN);
	client(MAIL " SIZE=9");
	is_told("\"event\":\"mail\"");
	is_told("\"mail_from\":{\"address\":\"a@b.test\",\"params\":{\"SIZE\":\"9\"}}");
	hook_says("");
	server("250 ok");
	client("RCPT TO:<r@d.test>");
	is_told("\"event\":\"rcpt\"");
	is_told("\"rcpt\":{\"address\":\"r@d.test\"");
	is_told("\"rcpt_to\":[]");
	hook_says("");
	server("250 ok");
	client("DATA\nMessage-ID: <x@b.test>\n\nhello\n.");
	is_told("\"event\":\"data\"");
	is_told("\"rcpt_to\":[{\"address\":\"r@d.test\"");
	is_told("\"message_id\":\"<x@b.test>\"");
	is_told("\"message\":\"/dev/fd/3\"");
	hook_says("");
	server("354 go");
	server("250 accepted");
	recorded("message accepted a@b.test to r@d.test 250: 250 accepted");
}

/* ---- records ---- */

/* A hook that says nothing is not worth a record, but with --verbose. */
static void silent_hook(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	to_ready(ONE, PLAIN);
	client(MAIL);
	hook_says("");
	not_recorded("verdict");
}

static void silent_hook_verbose(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	to_ready(ONE "--verbose", PLAIN);
	client(MAIL);
	hook_says("");
	recorded("verdict mail m accept");
}

static void speaking_hook(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	to_ready(ONE, PLAIN);
	client(MAIL);
	passes(2);
	hook_says("log score 7\naccept\n");
	recorded("verdict mail m accept");
	assert_string_equal(member_of("verdict", "lines"), "[\"log score 7\",\"accept\"]");
}

/* `log` joins the records of the transaction, or from connect and EHLO on of the session. */
static void notes(void **state)
{
	(void)state;
	hook_is_there(HOOK_CONNECT, "c");
	hook_is_there(HOOK_MAIL, "m");
	session_begins(ONE);
	hook_says("log country de\n");
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server(PLAIN);
	client(MAIL);
	hook_says("log score 6\nlog score 7\n");
	server("250 ok");
	client("RSET");
	server("250 ok");
	recorded("message aborted a@b.test");
	assert_string_equal(member_of("message", "hooks"), "{\"country\":\"de\",\"score\":\"7\"}");
	client(MAIL);
	hook_says("");
	server("250 ok");
	client("RSET");
	server("250 ok");
	recorded("message aborted a@b.test");
	assert_string_equal(member_of("message", "hooks"), "{\"country\":\"de\"}");
	client_closes();
	assert_string_equal(member_of("close", "hooks"), "{\"country\":\"de\",\"score\":\"7\"}");
}

static void too_many_notes(void **state)
{
	char line[4200] = "log key ";

	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	to_ready(ONE, PLAIN);
	client(MAIL);
	memset(line + 8, 'x', 4096);
	strcpy(line + 8 + 4096, "\n");
	hook_says(line);
	recorded("error: log verdicts of hooks are longer than 4096 octets: one is left out");
	server_gets(MAIL);
}

/* ---- failures ---- */

/* The record of a verdict whose last line is at fault; it has no octet that records escape. */
static void failed_at_last_line(const char *whose, const char *why, const char *verdict)
{
	size_t n = strlen(verdict) - (verdict[strlen(verdict) - 1] == '\n');
	const char *at = verdict + n;
	unsigned number = 1;
	char want[400];

	while (at > verdict && at[-1] != '\n')
		at--;
	for (const char *p = verdict; p < at; p++)
		number += *p == '\n';
	snprintf(want, sizeof want, "verdict %s failed: %s, in line %u: %.*s", whose, why, number, (int)(verdict + n - at), at);
	recorded(want);
}

static void hook_has_failed(void **state)
{
	const char *const *row = *state;

	hook_is_there(HOOK_MAIL, "m");
	hook_is_there(HOOK_MAIL, "next");
	to_ready(ONE, PLAIN);
	client(MAIL);
	hook_says(row[0]);
	failed_at_last_line("mail m", row[1], row[0]);
	client_gets(FAILED);
	server_gets("");
	assert_null(world_hook);
	stands_at(OPEN, READY);
}

/* A verdict is checked as a whole before any line of it has an effect. */
static void hooks_have_failed(void **state)
{
	static const char *const rows[][2] = {
		{ "maybe\n", "an unknown word" },
		{ "discard\n", "a word that is not for this event" },
		{ "rewrite x@y.test\n", "a word that is not for this event" },
		{ "reject 250 fine\n", "a reply code that does not go with the word" },
		{ "reject 550 4.7.1 fine\n", "an enhanced code of another class than the reply code" },
		{ "tarpit 5\n", "a word that is not for this event" },
		{ "source 192.0.2.77\n", "the server is connected already: this word needs --connect-on recipient" },
		{ "log a b\nupstream x.test\n", "the server is connected already: this word needs --connect-on recipient" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], hook_has_failed, rows[i]);
}

static void hook_says_carriage_return(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	to_ready(ONE, PLAIN);
	client(MAIL);
	hook_says("log a b\rc\n");
	recorded("verdict mail m failed: a NUL or carriage return, in line 1: log a b\\u000dc");
	client_gets(FAILED);
}

static void route_is_bad(void **state)
{
	const char *const *row = *state;

	hook_is_there(HOOK_CONNECT, "c");
	session_begins(ONE);
	hook_says(row[0]);
	failed_at_last_line("connect c", row[1], row[0]);
	client_gets("421 4.3.0 A filter is out of order, try again later");
	assert_int_equal(world_net.attempts, 0);
}

static void routes_are_bad(void **state)
{
	static const char *const rows[][2] = {
		{ "source here\n", "source takes an IP address" },
		{ "upstream x.test:port\n", "upstream takes " ENDPOINT_WORDS },
		{ "tarpit soon\n", "tarpit takes a whole number of seconds, up to 300" },
		{ "tls perhaps\n", "tls takes " TLS_LEVEL_WORDS },
		{ "upstream 192.0.2.44\nsource here\n", "source takes an IP address" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], route_is_bad, rows[i]);
}

static void rewrite_is_bad(void **state)
{
	(void)state;
	hook_is_there(HOOK_RCPT, "r");
	to_ready(ONE, PLAIN);
	client(MAIL "\nRCPT TO:<r@d.test>");
	server("250 ok");
	hook_says("rewrite s@d.test> NOTIFY=NEVER\n");
	recorded("verdict rcpt r failed: rewrite takes an address, in line 1: rewrite s@d.test> NOTIFY=NEVER");
	client_gets("250 ok\n" FAILED);
}

/* With the last line of its stderr. */
static void hook_dies(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	to_ready(ONE, PLAIN);
	client(MAIL);
	strcpy(world_hook->error, "no such table");
	hook_fails("exit status 1");
	recorded("verdict mail m failed: exit status 1: no such table");
	client_gets(FAILED);
}

/* --hook-failure accept: as if it had said nothing; the next one is asked. */
static void hook_dies_and_accepts(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	hook_is_there(HOOK_MAIL, "next");
	to_ready(ONE "--hook-failure accept", PLAIN);
	client(MAIL);
	hook_says("log a b\nmaybe\n");
	recorded("verdict mail m failed: an unknown word, in line 2: maybe");
	assert_string_equal(hook_that_runs(), "next");
	hook_says("");
	server_gets(MAIL);
	server("250 ok");
	client("RSET");
	server("250 ok");
	recorded("message aborted a@b.test");
	assert_string_equal(member_of("message", "hooks"), "{}");
}

/* How many descriptors are open. */
static unsigned descriptors(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1000; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* What a failed hook returned is not sent, what those before it did is. */
static void failed_hook_returns_message(void **state)
{
	unsigned before;

	(void)state;
	hook_is_there(HOOK_DATA, "one");
	hook_is_there(HOOK_DATA, "two");
	to_recipient(ONE "--hook-failure accept", PLAIN);
	client("DATA\nSubject: x\n\nhello\n.");
	hook_says("add-header X-One: 1\n");
	before = descriptors();
	hook_replaces("log ? x\nreplace-message\n", "evil\r\n");
	recorded("verdict data two failed: log takes KEY VALUE, the key of letters, digits and _.-, in line 1: log ? x");
	assert_int_equal(descriptors(), before);
	server_heard();
	server("354 go");
	server_gets("X-One: 1\nSubject: x\n\nhello\n.");
}

static void hook_dies_at_data(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_recipient(ONE, PLAIN);
	client("DATA\n" MESSAGE);
	client_heard();
	hook_fails("killed by signal 9");
	client_gets(FAILED);
	server_gets("RSET");
	recorded("message deferred a@b.test to r@d.test 250: 451 A filter is out of order, try again later");
}

/* ---- the tarpit ---- */

/* The longest that a hook of the chain has asked for; the reply comes after it. */
static void longest_tarpit(void **state)
{
	(void)state;
	hook_is_there(HOOK_EHLO, "one");
	hook_is_there(HOOK_EHLO, "two");
	session_begins(ONE);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	client_heard();
	hook_says("tarpit 20\ntarpit 10\n");
	stands_at(HOOKS, IDLE);
	hook_says("tarpit 5\nreject no\n");
	stands_at(TARPIT, IDLE);
	falls_due_in(20, "");
	client_gets("");
	passes(20);
	client_gets("550 5.7.1 no");
	client("EHLO c.test"); /* which is over then */
	hook_says("");
	hook_says("");
	stands_at(OPEN, EHLO);
}

static void tarpit_without_place(void **state)
{
	(void)state;
	hook_is_there(HOOK_CONNECT, "c");
	session_begins(ONE "--max-tarpits 0");
	hook_says("tarpit 20\n");
	stands_at(OPEN, CONNECTING);
}

/* ---- replies ---- */

/* PROTOCOL 10: a text can be long, but no line of a reply is. */
static void long_text(void **state)
{
	static char verdict[3000] = "reject 550 5.7.1 ";

	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	to_ready(ONE, PLAIN);
	client(MAIL);
	for (size_t i = strlen(verdict); i < 2000; i += 5)
		memcpy(verdict + i, "word ", 5);
	strcat(verdict, "\n");
	hook_says(verdict);
	for (size_t at = 0, lines = 0; at < world_client.out_len; lines++) {
		const unsigned char *end = memchr(world_client.out + at, '\n', world_client.out_len - at);
		size_t n = (size_t)(end + 1 - world_client.out) - at;
		bool last = at + n == world_client.out_len;

		assert_true(n <= 512 && lines < 10);
		assert_memory_equal(world_client.out + at, last ? "550 5.7.1 " : "550-5.7.1 ", 10);
		at += n;
	}
	goes_still();
}

/* ---- the session ends while a hook runs ---- */

static void server_lost_in_hook(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	to_ready(ONE, PLAIN);
	client(MAIL);
	server_closes();
	client_gets("421 4.4.2 192.0.2.25: connection closed");
	assert_null(world_hook);
	ended(LINGER, "upstream", "connection closed");
}

static void terminated_in_hook(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	to_ready(ONE, PLAIN);
	client(MAIL);
	terminate(1);
	client_gets("421 4.3.2 Service is shutting down");
	assert_null(world_hook);
}

/* One that closes its side is still to get its reply. */
static void client_closes_in_hook(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	to_ready(ONE, PLAIN);
	world_says(&world_client, MAIL "\r\nQUIT\r\n", sizeof MAIL - 1 + 8);
	client_closes();
	goes_still();
	hook_says("reject no\n");
	client_gets("550 5.7.1 no");
	server_gets("QUIT");
	server("221 bye");
	client_gets("221 bye");
	ended(FLUSH, "client", "QUIT");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chain), cmocka_unit_test(event_without_hook), cmocka_unit_test(events_are_told),
		cmocka_unit_test(silent_hook), cmocka_unit_test(silent_hook_verbose), cmocka_unit_test(speaking_hook),
		cmocka_unit_test(notes), cmocka_unit_test(too_many_notes), cmocka_unit_test(hooks_have_failed),
		cmocka_unit_test(hook_says_carriage_return),
		cmocka_unit_test(routes_are_bad), cmocka_unit_test(rewrite_is_bad), cmocka_unit_test(hook_dies),
		cmocka_unit_test(hook_dies_and_accepts), cmocka_unit_test(failed_hook_returns_message),
		cmocka_unit_test(hook_dies_at_data), cmocka_unit_test(longest_tarpit), cmocka_unit_test(tarpit_without_place),
		cmocka_unit_test(long_text), cmocka_unit_test(server_lost_in_hook), cmocka_unit_test(terminated_in_hook),
		cmocka_unit_test(client_closes_in_hook),
	};

	return run_session_tests(tests);
}
