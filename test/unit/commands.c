/* What becomes of what the client says: each verb, with a server from the start and with --connect-on recipient; refusals, --max-errors,
 * AUTH and its secrets, commands that wait for hooks.
 */
#define _GNU_SOURCE
#include "test/lib/fake_session.h"
#include "test/lib/fake_story.h"

#define OK "250 2.0.0 Ok"
#define AUTHS "250-mx.test\n250-PIPELINING\n250 AUTH PLAIN LOGIN"
#define SECRET "AHVzZXIAc2VjcmV0"
#define TOO_MANY "421 4.7.0 Too many bad commands, or one too bad"
#define LONG_64 "................................................................"
#define LONG_512 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64

/* No octet of the secret is left in what the session has read, or has to write. */
static void is_wiped(void)
{
	const struct session *s = the_session();
	const struct buffer *buffers[] = { &s->client.leg.in, &s->client.leg.out, &s->server.leg.in, &s->server.leg.out };

	for (size_t i = 0; i < COUNT(buffers); i++) {
		assert_null(memmem(buffers[i]->small, sizeof buffers[i]->small, SECRET, sizeof SECRET - 1));
		assert_null(memmem(buffers[i]->large, buffers[i]->large_cap, SECRET, sizeof SECRET - 1));
	}
}

/* Nor of one that was not handled when the session ended. */
static void unread_when_it_ends(void **state)
{
	(void)state;
	session_begins(ONE);
	server_connects();
	server(BANNER);
	client("EHLO c.test\nAUTH PLAIN " SECRET);
	server_closes();
	recorded("close upstream: connection closed");
	is_wiped();
}

/* ---- each verb ---- */

/* What the client says, what the server is told, and what the client is told at once. */
struct verb {
	const char *says, *server, *client;
};

static void first_word(void **state)
{
	const struct verb *v = *state;

	session_begins(ONE);
	server_connects();
	server(BANNER);
	client_heard();
	client(v->says);
	server_gets(v->server);
	client_gets(v->client);
	is_wiped(); /* a password that is refused, too */
}

/* PROTOCOL 18: NOOP, HELP, VRFY, EXPN and RSET before EHLO are no order errors. */
static void first_words(void **state)
{
	static const struct verb rows[] = {
		{ "EHLO c.test", "EHLO c.test", "" },
		{ "HELO c.test", "HELO c.test", "" },
		{ "ehlo\tc.test ", "EHLO c.test", "" },
		{ "LHLO c.test", "", "500 5.5.1 Command not recognized" },
		{ "EHLO", "", "501 5.5.4 A host name is missing or too long" },
		{ "MAIL FROM:<a@b.test>", "", "503 5.5.1 EHLO or HELO first" },
		{ "RCPT TO:<r@d.test>", "", "503 5.5.1 EHLO or HELO first" },
		{ "DATA", "", "503 5.5.1 EHLO or HELO first" },
		{ "BDAT 5 LAST\nabc", "", "503 5.5.1 EHLO or HELO first" },
		{ "AUTH PLAIN " SECRET, "", "503 5.5.1 EHLO or HELO first" },
		{ "NOOP", "", OK },
		{ "RSET", "", OK },
		{ "STARTTLS", "", "502 5.5.1 Not offered" },
		{ "XCLIENT ADDR=192.0.2.1", "", "502 5.5.1 Not offered" },
		{ "QUIT", "QUIT", "" },
		{ "", "", "500 5.5.2 Empty command" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i].says, first_word, &rows[i]);
}

static void word(void **state)
{
	const struct verb *v = *state;

	to_ready(ONE, PIPES);
	client(v->says);
	server_gets(v->server);
	client_gets(v->client);
}

static void words(void **state)
{
	static const struct verb rows[] = {
		{ "EHLO d.test", "EHLO d.test", "" },
		{ "HELO d.test", "HELO d.test", "" },
		{ "MAIL FROM:<a@b.test>", "MAIL FROM:<a@b.test>", "" },
		{ "mail from: a@b.test  SIZE=5 FOO=bar", "MAIL FROM:<a@b.test> SIZE=5 FOO=bar", "" },
		{ "MAIL FROM:<>", "MAIL FROM:<>", "" },
		{ "MAIL FROM:<a@b.test> SIZE=99999999999", "", "552 5.3.4 Message is larger than this server takes" },
		{ "MAIL TO:<a@b.test>", "", "501 5.5.4 Syntax: MAIL FROM:<address> or RCPT TO:<address>" },
		{ "RCPT TO:<r@d.test>", "", "503 5.5.1 MAIL first" },
		{ "DATA", "", "503 5.5.1 MAIL first" },
		{ "BDAT 5 LAST\nabc", "", "503 5.5.1 MAIL first" },
		{ "RSET", "RSET", "" },
		{ "NOOP with words", "NOOP with words", "" },
		{ "HELP", "HELP", "" },
		{ "VRFY joe", "VRFY joe", "" },
		{ "EXPN joe", "EXPN joe", "" },
		{ "ETRN d.test", "ETRN d.test", "" },
		{ "WHAT is this", "", "500 5.5.1 Command not recognized" },
		{ "QUIT", "QUIT", "" },
		{ "AUTH PLAIN " SECRET, "", "502 5.5.1 AUTH is not offered" },
		{ "STARTTLS", "", "502 5.5.1 Not offered" },
		{ "XCLIENT ADDR=192.0.2.1", "", "502 5.5.1 Not offered" },
		{ "XFORWARD ADDR=192.0.2.1", "", "502 5.5.1 Not offered" },
		{ "LHLO c.test", "", "500 5.5.1 Command not recognized" },
		{ "", "", "500 5.5.2 Empty command" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i].says, word, &rows[i]);
}

static void word_in_transaction(void **state)
{
	const struct verb *v = *state;

	to_recipient(ONE, AUTHS);
	client(v->says);
	server_gets(v->server);
	client_gets(v->client);
}

static void words_in_transaction(void **state)
{
	static const struct verb rows[] = {
		{ "MAIL FROM:<c@b.test>", "", "503 5.5.1 A message is open already" },
		{ "RCPT TO:<s@d.test>", "RCPT TO:<s@d.test>", "" },
		{ "BDAT 5 LAST\nabc", "", "502 5.5.1 CHUNKING is not offered" },
		{ "AUTH PLAIN " SECRET, "", "503 5.5.1 Not during a message" },
		{ "DATA", "DATA", "" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i].says, word_in_transaction, &rows[i]);
}

#define OUR_LIST "250-warp.test\n250-ENHANCEDSTATUSCODES\n250-SIZE 10240000\n250-8BITMIME\n250-SMTPUTF8\n250-CHUNKING\n250 PIPELINING"

/* No server is asked. */
static void word_late(void **state)
{
	const struct verb *v = *state;

	session_begins(LATE);
	client("EHLO c.test");
	client_heard();
	client(v->says);
	client_gets(v->client);
	assert_int_equal(world_net.attempts, 0);
}

static void words_late(void **state)
{
	static const struct verb rows[] = {
		{ "EHLO d.test", NULL, OUR_LIST },
		{ "HELO d.test", NULL, "250 warp.test" },
		{ "LHLO d.test", NULL, OUR_LIST },
		{ "MAIL FROM:<a@b.test>", NULL, "250 2.1.0 Ok" },
		{ "MAIL FROM:<a@b.test> RET=FULL", NULL, "555 5.5.4 A parameter is not offered here" },
		{ "MAIL FROM:<a@b.test> AUTH=<>", NULL, "555 5.5.4 A parameter is not offered here" },
		{ "MAIL FROM:<a@b.test>\nMAIL FROM:<c@b.test>", NULL, "250 2.1.0 Ok\n503 5.5.1 A message is open already" },
		{ "MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test> NOTIFY=NEVER", NULL,
		    "250 2.1.0 Ok\n555 5.5.4 A parameter is not offered here" },
		{ "MAIL FROM:<a@b.test>\nDATA", NULL, "250 2.1.0 Ok\n503 5.5.1 RCPT first" },
		{ "MAIL FROM:<a@b.test>\nRSET\nMAIL FROM:<c@b.test>", NULL, "250 2.1.0 Ok\n" OK "\n250 2.1.0 Ok" },
		{ "RCPT TO:<r@d.test>", NULL, "503 5.5.1 MAIL first" },
		{ "RSET", NULL, OK },
		{ "NOOP", NULL, OK },
		{ "HELP", NULL, "214 2.0.0 RFC 5321 has it all" },
		{ "VRFY joe", NULL, "252 2.1.5 Send a message to find out" },
		{ "EXPN joe", NULL, "502 5.5.1 Not offered" },
		{ "WHAT is this", NULL, "500 5.5.1 Command not recognized" },
		{ "AUTH PLAIN " SECRET, NULL, "502 5.5.1 AUTH is not offered" },
		{ "STARTTLS", NULL, "502 5.5.1 Not offered" },
		{ "QUIT", NULL, "221 2.0.0 Bye" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i].says, word_late, &rows[i]);
}

/* --client-tls require, RFC 3207 4. */
static void word_before_tls(void **state)
{
	const struct verb *v = *state;

	to_ready(ONE "--client-tls require --cert /cert", PLAIN);
	client(v->says);
	server_gets(v->server);
	client_gets(v->client);
}

static void words_before_tls(void **state)
{
	static const struct verb rows[] = {
		{ "MAIL FROM:<a@b.test>", "", "530 5.7.0 Must issue a STARTTLS command first" },
		{ "RSET", "", "530 5.7.0 Must issue a STARTTLS command first" },
		{ "WHAT", "", "500 5.5.1 Command not recognized" },
		{ "NOOP", "NOOP", "" },
		{ "EHLO d.test", "EHLO d.test", "" },
		{ "QUIT", "QUIT", "" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i].says, word_before_tls, &rows[i]);
}

/* ---- lines ---- */

/* PROTOCOL 1: a command that ends with a bare LF goes on with CR LF; a bare CR is refused. */
static void line_ends(void **state)
{
	(void)state;
	to_ready(ONE, PIPES);
	client_bytes("NOOP\n", 5);
	server_gets("NOOP");
	server("250 ok");
	client_heard();
	client_bytes("NO\rOP\r\n", 7);
	server_gets("");
	client_gets("500 5.5.2 Carriage return or NUL inside a command line");
}

static void line_in_pieces(void **state)
{
	(void)state;
	to_ready(ONE, PIPES);
	client_bytes("NO", 2);
	server_gets("");
	client_bytes("OP\r", 3);
	server_gets("");
	client_bytes("\nMAIL", 5);
	server_gets("NOOP");
	server("250 ok");
	client_bytes(" FROM:<a@b.test>\r\n", 18);
	server_gets("MAIL FROM:<a@b.test>");
}

/* What is too long is skipped to its end, and not sent on. */
static void line_is_too_long(void **state)
{
	(void)state;
	to_ready(ONE "--command-length 512", PIPES);
	client_bytes("NOOP " LONG_512, 517);
	client_gets("");
	client(LONG_512 "\nNOOP");
	client_gets("500 5.5.2 Line too long");
	server_gets("NOOP");
}

/* Its octets would be taken for commands. */
static void bdat_line_is_too_long(void **state)
{
	(void)state;
	to_ready(ONE "--command-length 512", CHUNKS);
	client("BDAT 10 " LONG_512 "\nRSET");
	client_gets("500 5.5.2 Line too long\n" TOO_MANY);
	server_gets("QUIT");
	ended(LINGER, "smtpwarp", "bad commands");
}

static void tolerated_is_noted(void **state)
{
	(void)state;
	to_ready(ONE "--verbose", PIPES);
	client("MAIL FROM: a@b.test");
	recorded("-> MAIL FROM: a@b.test");
	recorded("-- blanks or missing brackets in the path were put right");
	server_gets("MAIL FROM:<a@b.test>");
}

static void comm_of_own_answers(void **state)
{
	(void)state;
	to_ready(ONE "--verbose", PIPES);
	client("STARTTLS");
	recorded(">| STARTTLS");
	recorded("<| 502 5.5.1 Not offered");
}

/* ---- pipelining ---- */

/* A server without PIPELINING gets one command at a time, though the client was offered PIPELINING. */
static void one_at_a_time(void **state)
{
	(void)state;
	to_ready(ONE, PLAIN);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nDATA");
	server_gets("MAIL FROM:<a@b.test>");
	server("250 ok");
	server_gets("RCPT TO:<r@d.test>");
	server("250 ok");
	server_gets("DATA");
}

static void so_many_at_a_time(void **state)
{
	(void)state;
	to_ready(ONE "--max-pipeline 2", PIPES);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nRCPT TO:<s@d.test>");
	server_gets("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	server("250 ok");
	server_gets("RCPT TO:<s@d.test>");
}

/* PROTOCOL 35. */
static void group_ends(void **state)
{
	const char *const *row = *state;

	to_ready(ONE, PIPES);
	client(row[0]);
	client("NOOP");
	server_gets(row[0]);
	server("250 ok");
	server_gets("NOOP");
}

static void groups_end(void **state)
{
	static const char *const rows[][1] = { { "NOOP" }, { "HELP" }, { "VRFY joe" }, { "EXPN joe" }, { "ETRN d.test" } };

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], group_ends, rows[i]);
}

/* EHLO and MAIL wait until all before them is answered. */
static void group_begins(void **state)
{
	const char *const *row = *state;

	to_ready(ONE, PIPES);
	client("RSET");
	client(row[0]);
	server_gets("RSET");
	server("250 ok");
	server_gets(row[0]);
}

static void groups_begin(void **state)
{
	static const char *const rows[][1] = { { "EHLO d.test" }, { "HELO d.test" }, { "MAIL FROM:<a@b.test>" } };

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], group_begins, rows[i]);
}

/* PROTOCOL 38: a client that takes no replies is read no further. */
static void client_takes_nothing(void **state)
{
	const size_t commands = 40000;

	(void)state;
	to_ready(ONE "--max-errors 0", PIPES);
	client_takes(0);
	for (size_t i = 0; i < commands; i++)
		world_says(&world_client, "XCLIENT a=b\r\n", 13);
	goes_on();
	assert_true(world_client.in_at < world_client.in_len);
	client_takes(WORLD_FOREVER);
	assert_int_equal(world_client.in_at, world_client.in_len);
	assert_int_equal(world_client.out_len, commands * (sizeof "502 5.5.1 Not offered\r\n" - 1));
	goes_still();
}

/* The longest commands, as many as may be under way: those that do not fit into our buffers wait. */
static void server_takes_nothing(void **state)
{
	static char rcpt[12000];

	(void)state;
	to_ready(ONE "--command-length 12288", PIPES);
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	nothing_said_yet();
	memset(rcpt, 'x', sizeof rcpt);
	memcpy(rcpt, "RCPT TO:<r@d.test> X=", 21);
	memcpy(rcpt + sizeof rcpt - 2, "\r\n", 2);
	server_takes(0);
	for (int i = 0; i < 60; i++)
		world_says(&world_client, rcpt, sizeof rcpt);
	goes_on();
	assert_true(leg_count(&the_session()->client.leg));
	server_takes(WORLD_FOREVER);
	assert_int_equal(world_server.out_len, 60 * sizeof rcpt);
}

/* PROTOCOL 70: who has closed its side gets the replies to what it said. */
static void client_closes_after_commands(void **state)
{
	(void)state;
	to_ready(ONE, PIPES);
	world_says(&world_client, "NOOP\r\nQUIT\r\n", 12);
	client_closes();
	server_gets("NOOP");
	server("250 ok");
	server_gets("QUIT");
	server("221 bye");
	client_gets("250 ok\n221 bye");
	ended(FLUSH, "client", "QUIT");
}

static void client_closes_in_command(void **state)
{
	(void)state;
	to_ready(ONE, PIPES);
	world_says(&world_client, "NOO", 3);
	client_closes();
	server_gets("QUIT");
	ended(FLUSH, "client", "connection closed");
}

/* ---- --max-errors ---- */

static void too_many_errors(void **state)
{
	(void)state;
	to_ready(ONE "--max-errors 3", PIPES);
	client("STARTTLS\nSTARTTLS");
	client_gets("502 5.5.1 Not offered\n502 5.5.1 Not offered");
	client("VRFY joe");
	server("500 unknown"); /* the server's refusals do not count */
	client_heard();
	client("STARTTLS\nNOOP");
	client_gets("502 5.5.1 Not offered\n" TOO_MANY);
	ended(LINGER, "smtpwarp", "bad commands");
}

/* A refusal for now is no error of the client's. */
static void deferrals_are_no_errors(void **state)
{
	(void)state;
	to_recipient(ONE "--max-errors 1 --max-recipients 1", PIPES);
	client("RCPT TO:<s@d.test>\nRCPT TO:<t@d.test>");
	client_gets("452 4.5.3 Too many recipients\n452 4.5.3 Too many recipients");
	goes_still();
}

/* The server's replies to what was said before come first. */
static void errors_after_pipelined_commands(void **state)
{
	(void)state;
	to_ready(ONE "--max-errors 1", PIPES);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nRCPT\nRCPT TO:<s@d.test>");
	server("250 ok");
	client_gets("250 ok");
	goes_still();
	server("250 ok");
	client_gets("250 ok\n501 5.5.4 Syntax: MAIL FROM:<address> or RCPT TO:<address>\n" TOO_MANY);
	recorded("message aborted a@b.test to r@d.test 250");
	ended(LINGER, "smtpwarp", "bad commands");
}

static void errors_have_no_limit(void **state)
{
	(void)state;
	to_ready(ONE "--max-errors 0", PIPES);
	for (int i = 0; i < 100; i++)
		client("STARTTLS");
	goes_still();
}

/* What is no count cannot be followed. */
static void bdat_without_count(void **state)
{
	(void)state;
	to_recipient(ONE, CHUNKS);
	client("BDAT many LAST\nRSET");
	client_gets("501 5.5.4 Syntax: BDAT octets [LAST]\n" TOO_MANY);
	ended(LINGER, "smtpwarp", "bad commands");
}

/* ---- AUTH ---- */

static void auth(void **state)
{
	(void)state;
	to_ready(ONE "--plain-auth --verbose", AUTHS);
	client("AUTH PLAIN " SECRET);
	server_gets("AUTH PLAIN " SECRET);
	is_wiped();
	recorded("-> AUTH PLAIN");
	server("235 welcome");
	client_gets("235 welcome");
	client("AUTH PLAIN " SECRET);
	client_gets("503 5.5.1 Already authenticated");
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	client("RSET");
	server("250 ok");
	recorded("message aborted a@b.test");
	assert_string_equal(member_of("message", "auth"), "\"user\"");
}

static void auth_in_steps(void **state)
{
	(void)state;
	to_ready(ONE "--plain-auth --verbose", AUTHS);
	client("AUTH LOGIN");
	server_gets("AUTH LOGIN");
	client("dXNlcg=="); /* too early: it waits for 334 */
	server_gets("");
	server("334 VXNlcm5hbWU6");
	client_gets("334 VXNlcm5hbWU6");
	server_gets("dXNlcg==");
	server("334 UGFzc3dvcmQ6");
	client(SECRET);
	server_gets(SECRET);
	is_wiped();
	recorded("-> (answer to AUTH)");
	not_recorded("-> " SECRET);
	server("535 no");
	client("NOOP");
	server_gets("NOOP");
}

static void auth_is_cancelled(void **state)
{
	(void)state;
	to_ready(ONE "--plain-auth", AUTHS);
	client("AUTH LOGIN");
	server("334 ");
	server_heard();
	client("*");
	server_gets("*");
	server("501 cancelled");
	client("NOOP");
	server_gets("NOOP");
}

/* What cannot be sent on becomes "*". */
static void auth_answer_with_nul(void **state)
{
	(void)state;
	to_ready(ONE "--plain-auth", AUTHS);
	client("AUTH LOGIN");
	server("334 ");
	server_heard();
	client_bytes("a\0b\r\n", 5);
	server_gets("*");
}

static void auth_answer_is_too_long(void **state)
{
	static char line[SMTP_AUTH_LINE_MAX + 100];

	(void)state;
	to_ready(ONE "--plain-auth", AUTHS);
	client("AUTH LOGIN");
	server("334 ");
	server_heard();
	memset(line, 'x', sizeof line);
	client_bytes(line, sizeof line);
	client("\nNOOP");
	server_gets("*");
	server("501 cancelled");
	server_gets("NOOP");
}

/* The server takes it later: it is wiped then. */
static void auth_is_wiped_when_taken(void **state)
{
	(void)state;
	to_ready(ONE "--plain-auth", AUTHS);
	server_takes(5);
	client("AUTH PLAIN " SECRET);
	server_gets("AUTH ...");
	assert_int_equal(world_client.in_at, world_client.in_len);
	server_takes(WORLD_FOREVER);
	server_gets("PLAIN " SECRET);
	is_wiped();
}

static void auth_is_wiped_when_lost(void **state)
{
	(void)state;
	to_ready(ONE "--plain-auth", AUTHS);
	server_takes(5);
	client("AUTH PLAIN " SECRET);
	server_closes();
	client_gets("421 4.4.2 192.0.2.25: connection closed");
	is_wiped();
}

/* The line comes in two parts, with many octets before it. */
static void auth_in_parts(void **state)
{
	static const char line[] = "NOOP " LONG_512 "\r\nAUTH PLAIN " SECRET "\r\n";
	const char *from = line + *(const size_t *)*state;
	size_t first = strlen(from) - 8;

	to_ready(ONE "--plain-auth", AUTHS);
	client_bytes("NOOP ", 5);
	client_bytes(from, first);
	client_bytes(from + first, 8);
	server_heard();
	server("250 ok");
	server_gets("AUTH PLAIN " SECRET);
	is_wiped();
}

static void auth_is_wiped_in_parts(void **state)
{
	(void)state;
	for (size_t skipped = 4; skipped < 512; skipped++)
		apart("however it lies in the buffers", auth_in_parts, &skipped);
}

/* A password must not cross the network in the clear, RFC 4954 9. */
static void auth_needs_tls(void **state)
{
	(void)state;
	to_ready(ONE, AUTHS);
	client("AUTH PLAIN " SECRET);
	server_gets("");
	client_gets("538 5.7.11 AUTH needs encryption");
	is_wiped();
}

static void auth_of_local_client(void **state)
{
	(void)state;
	client_is("127.0.0.1");
	to_ready(ONE, AUTHS);
	client("AUTH PLAIN " SECRET);
	server_gets("AUTH PLAIN " SECRET);
}

/* A stray password is an unknown command: it is no more in a record. */
static void unknown_after_auth(void **state)
{
	(void)state;
	to_ready(ONE "--plain-auth --verbose", AUTHS);
	client("WHAT 1");
	recorded(">| WHAT 1");
	client("AUTH PLAIN");
	server("535 no");
	client(SECRET);
	recorded(">| ");
	not_recorded(">| " SECRET);
	server_gets("AUTH PLAIN");
}

static void auth_late(void **state)
{
	(void)state;
	session_begins(LATE "--auth --plain-auth --verbose");
	client("EHLO c.test");
	server_connects();
	server(BANNER);
	server(AUTHS);
	nothing_said_yet();
	client("AUTH PLAIN " SECRET);
	server_gets("AUTH PLAIN " SECRET);
	is_wiped();
	recorded("-> AUTH PLAIN");
	server("235 welcome");
	client_gets("235 welcome");
}

/* The server whose AUTH the client was shown is gone: no other gets the password. */
static void auth_late_server_gone(void **state)
{
	(void)state;
	session_begins(LATE "--auth --plain-auth");
	client("EHLO c.test");
	server_connects();
	server(BANNER);
	server(AUTHS);
	nothing_said_yet();
	server_closes();
	stands_at(OPEN, NONE);
	goes_still();
	client("AUTH PLAIN " SECRET);
	client_gets("421 4.4.2 192.0.2.25: connection is closed");
	ended(LINGER, "upstream", "connection is closed");
}

/* ---- no server any more ---- */

static void to_gone(void)
{
	to_data(ONE, PLAIN);
	server_closes();
	client(".");
	client_heard();
	stands_at(OPEN, GONE);
}

static void command_to_gone_server(void **state)
{
	(void)state;
	to_gone();
	client("MAIL FROM:<a@b.test>");
	client_gets("421 4.4.2 192.0.2.25: connection is closed");
	ended(LINGER, "upstream", "connection is closed");
}

static void quit_to_gone_server(void **state)
{
	(void)state;
	to_gone();
	client("QUIT");
	client_gets("221 2.0.0 Bye");
	ended(FLUSH, "client", "QUIT");
}

static void command_after_no_tls(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --tls encrypt");
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	client_heard();
	server(PLAIN);
	client_gets("451 4.7.5 192.0.2.25: STARTTLS is not offered");
	client("HELO c.test");
	client_gets("421 4.7.5 192.0.2.25: no TLS");
	ended(LINGER, "smtpwarp", "no TLS");
}

/* ---- hooks' verdicts ---- */

static void hook_decides(void **state)
{
	const char *const *row = *state;

	hook_is_there(HOOK_MAIL, "m");
	hook_is_there(HOOK_RCPT, "r");
	to_ready(ONE, PIPES);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test> X=y");
	hook_says(row[0]);
	client_gets(row[1]);
	if (row[2]) {
		server("250 ok");
		client_heard();
		hook_says(row[2]);
		client_gets(row[3]);
	}
	server_gets(row[4]);
	if (row[5])
		ended(LINGER, "smtpwarp", "a hook closed it");
	else
		goes_still();
}

static void hooks_decide(void **state)
{
	static const char *const rows[][6] = {
		{ "", "", "accept\n", "", "MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test> X=y", NULL },
		{ "reject\n", "550 5.7.1 Refused by policy\n503 5.5.1 MAIL first", NULL, NULL, "", NULL },
		{ "reject 553 5.1.8 not you\n", "553 5.1.8 not you\n503 5.5.1 MAIL first", NULL, NULL, "", NULL },
		{ "defer 450 4.2.0 later\n", "450 4.2.0 later\n503 5.5.1 MAIL first", NULL, NULL, "", NULL },
		{ "close\n", "421 4.7.0 Try again later", NULL, NULL, "QUIT", "" },
		{ "defer 421 4.7.1 no\n", "421 4.7.1 no", NULL, NULL, "QUIT", "" },
		{ "", "", "reject 550 5.1.1 nobody\n", "550 5.1.1 nobody", "MAIL FROM:<a@b.test>", NULL },
		{ "", "", "close go away\n", "421 4.7.0 go away", "MAIL FROM:<a@b.test>\nQUIT", "" },
		{ "", "", "rewrite s@e.test\n", "", "MAIL FROM:<a@b.test>\nRCPT TO:<s@e.test> X=y", NULL },
		{ "", "", "rewrite not an address\n", "451 4.3.0 A filter is out of order, try again later",
		    "MAIL FROM:<a@b.test>", NULL },
		{ "upstream 192.0.2.26\n",
		    "451 4.3.0 A filter is out of order, try again later\n503 5.5.1 MAIL first", NULL, NULL, "", NULL },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][2] ? rows[i][2] : rows[i][0], hook_decides, rows[i]);
}

/* A command waits for hooks until all before it is answered: they are told which recipients were accepted. */
static void hook_is_told(void **state)
{
	(void)state;
	hook_is_there(HOOK_RCPT, "r");
	to_ready(ONE, PIPES);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nRCPT TO:<no@d.test>\nRCPT TO:<s@d.test>");
	assert_null(world_hook);
	server("250 ok");
	hook_says("rewrite r@e.test\n");
	server_gets("MAIL FROM:<a@b.test>\nRCPT TO:<r@e.test>");
	server("250 ok");
	hook_says("");
	server("550 no");
	assert_non_null(strstr(world_hook_line, "\"rcpt\":{\"address\":\"s@d.test\""));
	assert_non_null(strstr(world_hook_line, "r@e.test"));
	assert_null(strstr(world_hook_line, "no@d.test"));
	hook_says("reject no\n");
	client("RSET");
	server("250 ok");
	recorded("message aborted a@b.test to r@e.test 250, no@d.test 550, s@d.test 550");
}

/* What the client says meanwhile waits. */
static void commands_wait_for_hook(void **state)
{
	(void)state;
	hook_is_there(HOOK_EHLO, "e");
	session_begins(ONE);
	server_connects();
	server(BANNER);
	client_heard();
	client("EHLO c.test\nNOOP");
	client("NOOP");
	stands_at(HOOKS, IDLE);
	client_gets("");
	server_gets("");
	hook_says("");
	server_gets("EHLO c.test");
	server(PLAIN);
	client_gets("250-mx.test\n250 PIPELINING");
	server_gets("NOOP");
}

static void hook_closes_at_ehlo(void **state)
{
	(void)state;
	hook_is_there(HOOK_EHLO, "e");
	session_begins(ONE);
	server_connects();
	server(BANNER);
	client_heard();
	client("HELO c.test");
	hook_says("close\n");
	client_gets("421 4.7.0 Try again later");
	ended(LINGER, "smtpwarp", "a hook closed it");
}

/* ---- --override-recipient ---- */

static void recipient_is_overridden(void **state)
{
	(void)state;
	to_ready(ONE "--override-recipient all@warp.test", PIPES);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nRCPT TO:<s@d.test> X=y");
	server_heard();
	server("250 ok");
	server_gets("RCPT TO:<all@warp.test>"); /* one after the other: that they may be told apart */
	server("250 ok");
	server_gets("RCPT TO:<all@warp.test> X=y");
	server("250 ok");
	client("RSET");
	server("250 ok");
	recorded("message aborted a@b.test to all@warp.test 250, all@warp.test 250");
	assert_non_null(strstr(member_of("message", "rcpt_to"), "\"original\":\"r@d.test\""));
}

static void override_comes_after_hooks(void **state)
{
	(void)state;
	hook_is_there(HOOK_RCPT, "r");
	to_ready(ONE "--override-recipient all@warp.test", PIPES);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	server_heard();
	server("250 ok");
	hook_says("rewrite s@d.test\n");
	server_gets("RCPT TO:<all@warp.test>");
}

static void override_late(void **state)
{
	(void)state;
	session_begins(LATE "--override-recipient all@warp.test");
	client("EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nRCPT TO:<s@d.test>");
	server_connects();
	server(BANNER);
	server(PIPES);
	server("250 ok");
	server_gets("EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<all@warp.test>");
	server("250 ok");
	server_gets("RCPT TO:<all@warp.test>");
	server("250 ok");
	client("RSET");
	recorded("message aborted a@b.test to all@warp.test 250, all@warp.test 250");
	assert_non_null(strstr(member_of("message", "rcpt_to"), "\"original\":\"s@d.test\""));
}

static void override_is_too_long(void **state)
{
	static char line[12288];

	(void)state;
	to_ready(ONE "--command-length 12288 --override-recipient everybody@a.long.name.warp.test", PIPES);
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	nothing_said_yet();
	memset(line, 'x', sizeof line);
	memcpy(line, "RCPT TO:<r> X=", 14);
	memcpy(line + sizeof line - 2, "\r\n", 2);
	client_bytes(line, sizeof line);
	client_gets("500 5.5.2 Line too long");
	server_gets("");
}

/* ---- what ends a transaction that is refused ---- */

/* PROTOCOL 28: a new MAIL after a refused DATA begins anew; here, where MAIL is answered, the server is told. */
static void mail_after_refused_data(void **state)
{
	(void)state;
	to_recipient(ONE, PIPES);
	client("DATA");
	server("554 no");
	nothing_said_yet();
	client("MAIL FROM:<c@b.test>");
	server_gets("MAIL FROM:<c@b.test>");
	recorded("message rejected a@b.test to r@d.test 250: 554 no");
}

static void mail_after_refused_data_late(void **state)
{
	(void)state;
	to_late_recipient(LATE, PIPES);
	client("DATA");
	server("554 no");
	nothing_said_yet();
	client("MAIL FROM:<c@b.test>");
	server_gets("RSET");
	client_gets("250 2.1.0 Ok");
	recorded("message rejected a@b.test to r@d.test 250: 554 no");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unread_when_it_ends), cmocka_unit_test(first_words), cmocka_unit_test(words),
		cmocka_unit_test(words_in_transaction),
		cmocka_unit_test(words_late), cmocka_unit_test(words_before_tls), cmocka_unit_test(line_ends),
		cmocka_unit_test(line_in_pieces), cmocka_unit_test(line_is_too_long), cmocka_unit_test(bdat_line_is_too_long),
		cmocka_unit_test(tolerated_is_noted), cmocka_unit_test(comm_of_own_answers), cmocka_unit_test(one_at_a_time),
		cmocka_unit_test(so_many_at_a_time), cmocka_unit_test(groups_end), cmocka_unit_test(groups_begin),
		cmocka_unit_test(client_takes_nothing), cmocka_unit_test(server_takes_nothing),
		cmocka_unit_test(client_closes_after_commands), cmocka_unit_test(client_closes_in_command),
		cmocka_unit_test(too_many_errors), cmocka_unit_test(deferrals_are_no_errors),
		cmocka_unit_test(errors_after_pipelined_commands), cmocka_unit_test(errors_have_no_limit),
		cmocka_unit_test(bdat_without_count), cmocka_unit_test(auth), cmocka_unit_test(auth_in_steps),
		cmocka_unit_test(auth_is_cancelled), cmocka_unit_test(auth_answer_with_nul),
		cmocka_unit_test(auth_answer_is_too_long), cmocka_unit_test(auth_is_wiped_when_taken),
		cmocka_unit_test(auth_is_wiped_when_lost), cmocka_unit_test(auth_is_wiped_in_parts),
		cmocka_unit_test(auth_needs_tls), cmocka_unit_test(auth_of_local_client), cmocka_unit_test(unknown_after_auth),
		cmocka_unit_test(auth_late), cmocka_unit_test(auth_late_server_gone), cmocka_unit_test(command_to_gone_server),
		cmocka_unit_test(quit_to_gone_server), cmocka_unit_test(command_after_no_tls), cmocka_unit_test(hooks_decide),
		cmocka_unit_test(hook_is_told), cmocka_unit_test(commands_wait_for_hook), cmocka_unit_test(hook_closes_at_ehlo),
		cmocka_unit_test(recipient_is_overridden), cmocka_unit_test(override_comes_after_hooks),
		cmocka_unit_test(override_is_too_long), cmocka_unit_test(mail_after_refused_data),
		cmocka_unit_test(mail_after_refused_data_late),
		cmocka_unit_test(override_late),
	};

	return run_session_tests(tests);
}
