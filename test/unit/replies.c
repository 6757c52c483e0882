/* What becomes of what the server says: replies in turn, out of turn, too early; a server that is lost, or breaks the protocol. */
#include "test/lib/fake_session.h"
#include "test/lib/fake_story.h"

#include <errno.h>
#include <unistd.h>

#define UNASKED "a reply that nothing was asked for"
#define MISFIT "a reply that does not fit the command"
#define EARLY "a message was accepted before all of it was sent"
#define CLOSED "421 4.4.2 192.0.2.25: connection closed"

/* ---- in turn ---- */

static void passes_reply(void **state)
{
	(void)state;
	to_ready(ONE, PLAIN);
	client("NOOP");
	server_gets("NOOP");
	server("250 2.0.0 fine");
	client_gets("250 2.0.0 fine");
}

/* PROTOCOL 11, 12: nothing of a reply goes on before its last line. */
static void passes_lines(void **state)
{
	(void)state;
	to_ready(ONE, PLAIN);
	client("HELP");
	server("214-one\n214-");
	client_gets("");
	server_bytes("214", 3);
	client_gets("");
	server_bytes("\r\n", 2);
	client_gets("214-one\n214-\n214 ");
}

static void passes_several(void **state)
{
	(void)state;
	to_ready(ONE, PIPES);
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	client("RCPT TO:<r@d.test>\nRCPT TO:<s@d.test>\nDATA");
	server_gets("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nRCPT TO:<s@d.test>\nDATA");
	client_heard();
	server("250-r\n250 ok\n550 s\n354 go");
	client_gets("250-r\n250 ok\n550 s\n354 go");
	content_is(PASSING);
}

/* One that is longer than what is gathered goes on in parts. */
static void passes_long_reply(void **state)
{
	char line[200];
	size_t n = 0;

	(void)state;
	to_ready(ONE, PLAIN);
	client("HELP");
	for (int i = 0; i < 400; i++) {
		snprintf(line, sizeof line, "214-%0100d", i);
		server(line);
		n += strlen(line) + 2;
	}
	assert_true(world_client.out_len > 0 && world_client.out_len < n);
	server("214 end");
	assert_int_equal(world_client.out_len, n + 9);
	assert_memory_equal(world_client.out, "214-000", 7);
	goes_still();
}

/* PROTOCOL 34. */
static void own_replies_wait_their_turn(void **state)
{
	(void)state;
	to_ready(ONE, PIPES);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nRCPT FROM:<x>\nRCPT TO:<s@d.test>");
	server_gets("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nRCPT TO:<s@d.test>");
	client_gets("");
	server("250 mail");
	client_gets("250 mail");
	server("250 r");
	client_gets("250 r\n501 5.5.4 Syntax: MAIL FROM:<address> or RCPT TO:<address>");
	server("250 s");
	client_gets("250 s");
}

static void data_is_refused(void **state)
{
	(void)state;
	to_recipient(ONE, PLAIN);
	client("DATA");
	server("554 5.7.1 no");
	client_gets("554 5.7.1 no");
	content_is(NONE);
	client("RSET");
	server("250 ok");
	recorded("message rejected a@b.test to r@d.test 250: 554 5.7.1 no");
}

/* PROTOCOL 36: MAIL is refused, and what was pipelined behind it has its replies. */
static void mail_is_refused(void **state)
{
	(void)state;
	to_ready(ONE, PIPES);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nDATA");
	server("550 5.7.1 not you\n503 mail\n503 rcpt");
	client_gets("550 5.7.1 not you\n503 mail\n503 rcpt");
	server_heard();
	client("MAIL FROM:<c@b.test>");
	server_gets("MAIL FROM:<c@b.test>");
}

/* ---- DATA without recipients: RFC 2920 3.1, PROTOCOL 19 ---- */

static void to_data_without_recipients(const char *options)
{
	to_ready(options, PIPES);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nDATA");
	server("250 ok\n550 no");
	client_gets("250 ok\n550 no");
	server_heard();
}

static void data_without_recipients(void **state)
{
	(void)state;
	to_data_without_recipients(ONE);
	server("354 go");
	server_gets(".");
	client_gets("554 5.5.1 No valid recipients");
	recorded("message rejected a@b.test to r@d.test 550: 554 5.5.1 No valid recipients");
	client("MAIL FROM:<c@b.test>"); /* waits: what the server says to the dot is not for the client */
	server_gets("");
	server("250 accepted an empty one");
	client_gets("");
	server_gets("MAIL FROM:<c@b.test>");
	server("250 ok");
	client_gets("250 ok");
}

static void data_without_recipients_refused(void **state)
{
	(void)state;
	to_data_without_recipients(ONE);
	server("554 no recipients");
	server_gets("");
	client_gets("554 no recipients");
	client("NOOP");
	server_gets("NOOP");
}

static void data_without_recipients_and_421(void **state)
{
	(void)state;
	to_data_without_recipients(ONE);
	server("354 go");
	client_heard();
	server("421 enough");
	client_gets("421 enough");
	ended(LINGER, "upstream", "reply 421 enough");
}

/* In LMTP there would be no reply to such a message. */
static void lmtp_data_without_recipients(void **state)
{
	(void)state;
	to_hello(LMTP, "LHLO c.test", PIPES);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nDATA");
	server("250 ok\n550 no");
	client_heard();
	server("354 go");
	client_gets("421 4.5.0 192.0.2.25: " MISFIT);
	ended(LINGER, "upstream", MISFIT);
}

/* ---- violations ---- */

static void violates(void **state)
{
	const char *const *row = *state;
	char line[200];

	to_ready(ONE, PLAIN);
	if (row[0])
		client(row[0]);
	client_heard();
	server(row[1]);
	snprintf(line, sizeof line, "421 4.5.0 192.0.2.25: %s", row[2]);
	client_gets(line);
	stands_at(OPEN, GONE);
	recorded("connect 192.0.2.25:25: mx.test ESMTP");
	snprintf(line, sizeof line, "error: 192.0.2.25: %s", row[2]);
	recorded(line);
	ended(LINGER, "upstream", row[2]);
}

/* PROTOCOL 16. */
static void violations(void **state)
{
	static const char *const rows[][3] = {
		{ NULL, "250 what?", UNASKED },
		{ NULL, "221 bye", UNASKED },
		{ "NOOP", "hello", "a line that is no SMTP reply" },
		{ "NOOP", "2500 ok", "a line that is no SMTP reply" },
		{ "NOOP", "150 ok", "a line that is no SMTP reply" },
		{ "NOOP", "354 go", MISFIT },
		{ "MAIL FROM:<a@b.test>", "354 go", MISFIT },
		{ "NOOP", "250-one\n354 two", MISFIT },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][1], violates, rows[i]);
}

static void replies_twice(void **state)
{
	(void)state;
	to_ready(ONE, PLAIN);
	client("NOOP");
	server("250 ok\n250 ok");
	client_gets("250 ok\n421 4.5.0 192.0.2.25: " UNASKED);
	ended(LINGER, "upstream", UNASKED);
}

/* PROTOCOL 16: they are no replies. */
static void empty_lines(void **state)
{
	(void)state;
	to_ready(ONE, PLAIN);
	client("NOOP");
	server("\n250 ok\n\n");
	client_gets("250 ok");
	server("");
	client("NOOP");
	server("250-one\n251 two"); /* PROTOCOL 82 */
	client_gets("251-one\n251 two");
	goes_still();
}

static void line_is_too_long(void **state)
{
	static char line[SMTP_REPLY_MAX];

	(void)state;
	to_ready(ONE, PLAIN);
	client("NOOP");
	memset(line, 'x', sizeof line);
	memcpy(line, "250 ", 4);
	server_bytes(line, sizeof line);
	client_gets("421 4.5.0 192.0.2.25: a reply line that is too long");
	ended(LINGER, "upstream", "a reply line that is too long");
}

static void data_is_accepted_at_once(void **state)
{
	(void)state;
	to_recipient(ONE, PLAIN);
	client("DATA");
	server("250 accepted");
	client_gets("421 4.5.0 192.0.2.25: " MISFIT);
	recorded("message aborted a@b.test to r@d.test 250");
	ended(LINGER, "upstream", MISFIT);
}

/* The outcome of the message is not known: no reply of ours may stand where the server's belongs. */
static void violates_after_message(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	client(MESSAGE);
	server("hello");
	client_gets("");
	recorded("error: 192.0.2.25: a line that is no SMTP reply");
	recorded("message unknown a@b.test to r@d.test 250");
	ended(SILENT, "upstream", "a line that is no SMTP reply");
}

static void banner_is_none(void **state)
{
	(void)state;
	session_begins(ONE "--upstream 192.0.2.26");
	server_connects();
	server("SSH-2.0-x");
	recorded("error: 4.5.0 192.0.2.25: a line that is no SMTP reply");
	server_is_dialled("192.0.2.26:25", 2);
	client_gets("");
}

static void banner_is_another_reply(void **state)
{
	(void)state;
	session_begins(ONE);
	server_connects();
	server("250 hello");
	client_gets("421 4.5.0 192.0.2.25: " MISFIT);
	stands_at(OPEN, GONE);
}

/* More octets after the reply after which it owes none. */
static void speaks_on_after_xforward(void **state)
{
	(void)state;
	to_ready(ONE "--xforward --client-names none", "250-mx.test\n250-PIPELINING\n250 XFORWARD ADDR");
	client("MAIL FROM:<a@b.test>");
	server("250 ok\n250 ok");
	client_gets("421 4.5.0 192.0.2.25: " UNASKED);
	ended(LINGER, "upstream", UNASKED);
}

static void speaks_on_after_xclient(void **state)
{
	(void)state;
	session_begins(ONE "--xclient --client-names none");
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	client_heard();
	server("250-mx.test\n250 XCLIENT ADDR");
	server("220 mx.test\n250 evil");
	client_gets("421 4.5.0 192.0.2.25: " UNASKED);
}

static void speaks_on_while_greeted_late(void **state)
{
	(void)state;
	to_waiting_rcpt(LATE "--upstream 192.0.2.26");
	server_connects();
	server(BANNER "\n250 mx.test");
	recorded("error: 4.5.0 192.0.2.25: " UNASKED);
	server_is_dialled("192.0.2.26:25", 2);
}

/* ---- too early ---- */

/* The client sends all of its message before it is told. */
static void refused_in_message(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	client("hello");
	server("554-5.7.1 spam\n554 5.7.1 I said");
	client_gets("");
	content_is(DRAINING);
	stands_at(OPEN, GONE);
	server_gets("hello");
	client("more\n.");
	client_gets("554 5.7.1 I said"); /* PROTOCOL 82: the last line of a reply counts */
	recorded("error: 554 5.7.1 I said");
	recorded("message rejected a@b.test to r@d.test 250: 554 5.7.1 I said");
	goes_still();
}

static void accepted_in_message(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	client("hello");
	server("250 accepted");
	client(".");
	client_gets("451 4.5.0 192.0.2.25: reply in the middle of a message");
	recorded("message deferred a@b.test to r@d.test 250: 451 4.5.0 192.0.2.25: reply in the middle of a message");
}

static void closes_in_message(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	client("hello");
	server("421 bye");
	client_gets("");
	client(".");
	client_gets("421 bye");
	recorded("message deferred a@b.test to r@d.test 250: 421 bye");
	ended(LINGER, "upstream", "reply 421 bye");
}

static void closes_in_chunk(void **state)
{
	(void)state;
	to_recipient(ONE, CHUNKS);
	client_bytes("BDAT 5\r\nab", 10);
	server("421 bye");
	client_bytes("cde", 3);
	client_gets("421 bye");
	recorded("message deferred a@b.test to r@d.test 250: 421 bye");
}

static void nonsense_in_message(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	client("hello");
	server("hello");
	client(".");
	client_gets("451 4.5.0 192.0.2.25: reply in the middle of a message");
}

/* A line that never ends must not be looked at for ever. */
static void endless_line(void **state)
{
	static char line[SMTP_REPLY_MAX + 100];

	memset(line, 'x', sizeof line);
	alarm(10);
	if (*state) {
		hook_is_there(HOOK_DATA, "d");
		to_recipient(ONE, PLAIN);
		client("DATA\n" MESSAGE);
		client_heard();
		server_bytes(line, sizeof line);
	} else {
		to_data(ONE, PLAIN);
		server_bytes(line, sizeof line);
		client(MESSAGE);
	}
	client_gets("451 4.5.0 192.0.2.25: reply in the middle of a message");
}

static void endless_lines(void **state)
{
	static const char kept;

	(void)state;
	apart("in a message that passes", endless_line, NULL);
	apart("while hooks decide on a message", endless_line, &kept);
}

/* A kept message: all of it is here, so the client is told at once. */
static void speaks_while_kept(void **state)
{
	const char *const *row = *state;

	hook_is_there(HOOK_DATA, "d");
	to_recipient(ONE, PLAIN);
	client("DATA\n" MESSAGE);
	client_heard();
	stands_at(HOOKS, READY);
	server(row[0]);
	client_gets(row[1]);
	assert_null(world_hook);
	stands_at(OPEN, GONE);
}

static void speaks_while_hooks_decide(void **state)
{
	static const char *const rows[][2] = {
		{ "554 timeout", "554 timeout" },
		{ "421 timeout", "421 timeout" },
		{ "250 ok", "451 4.5.0 192.0.2.25: reply in the middle of a message" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], speaks_while_kept, rows[i]);
}

/* ---- a message that is accepted before the server can have all of it ---- */

static void accepted_before_end(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	server_takes(0);
	client(MESSAGE);
	content_is(SENT);
	server("250 accepted");
	client_gets("");
	recorded("error: 192.0.2.25: " EARLY);
	ended(SILENT, "upstream", EARLY);
	assert_string_equal(member_of("message", "result"), "\"unknown\"");
}

/* The rest of it was lost for certain, so the client is told. */
static void accepted_and_lost(void **state)
{
	static char line[700];

	(void)state;
	to_data(ONE, PLAIN);
	server_takes(0);
	client(MESSAGE);
	memset(line, 'x', sizeof line);
	memcpy(line, "250 ", 4);
	memcpy(line + sizeof line - 2, "\r\n", 2);
	world_says(&world_server, line, sizeof line); /* two reads, and between them sending fails */
	world_server.error = EPIPE;
	goes_on();
	client_gets("421 4.5.0 192.0.2.25: " EARLY);
	recorded("message aborted a@b.test to r@d.test 250");
	ended(LINGER, "upstream", EARLY);
}

static void refused_before_end(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	server_takes(0);
	client(MESSAGE);
	server("554 spam");
	client_gets("554 spam");
	recorded("message rejected a@b.test to r@d.test 250: 554 spam");
	goes_still();
}

/* It was said before the end was sent, and read after it. */
static void accepted_late(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	server_bytes("2", 1);
	client(MESSAGE);
	content_is(SENT_LATE);
	server_bytes("50 accepted\r\n", 13);
	client_gets("");
	recorded("message unknown a@b.test to r@d.test 250");
	ended(SILENT, "upstream", EARLY);
}

static void last_chunk_is_accepted_early(void **state)
{
	(void)state;
	to_recipient(ONE, CHUNKS);
	client("BDAT 5 LAST");
	server("250 accepted");
	client_gets("");
	client_bytes("hello", 5);
	client_gets("");
	recorded("message unknown a@b.test to r@d.test 250");
	ended(SILENT, "upstream", EARLY);
}

/* ---- 421, at any time: PROTOCOL 15 ---- */

static void says_421(void **state)
{
	const char *const *row = *state;

	to_ready(ONE, PIPES);
	if (row[0])
		client(row[0]);
	if (row[1])
		server(row[1]);
	client_heard();
	server("421-4.3.2 going\n421 4.3.2 down");
	client_gets("421-4.3.2 going\n421 4.3.2 down");
	stands_at(OPEN, GONE);
	if (row[2])
		recorded(row[2]);
	ended(LINGER, "upstream", "reply 421 4.3.2 down");
}

static void replies_421(void **state)
{
	static const char *const rows[][3] = {
		{ NULL, NULL, NULL },
		{ "NOOP", NULL, NULL },
		{ "QUIT", NULL, NULL },
		{ "RSET", NULL, NULL },
		{ "EHLO d.test", NULL, NULL },
		{ "HELO d.test", NULL, NULL },
		{ "MAIL FROM:<a@b.test>", NULL, "message deferred a@b.test: 421 4.3.2 down" },
		{ "MAIL FROM:<a@b.test>", "250 ok", "message aborted a@b.test" },
		{ "MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>", "250 ok", "message deferred a@b.test to r@d.test 421" },
		{ "MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nDATA", "250 ok\n250 ok",
		    "message deferred a@b.test to r@d.test 250: 421 4.3.2 down" },
		{ "MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nDATA\n" MESSAGE, "250 ok\n250 ok\n354 go",
		    "message deferred a@b.test to r@d.test 250: 421 4.3.2 down" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0] ? rows[i][0] : "nothing", says_421, rows[i]);
}

static void banner_is_421(void **state)
{
	(void)state;
	session_begins(ONE);
	server_connects();
	server("421-busy\n421 come again");
	client_gets("421-busy\n421 come again");
	recorded("connect 192.0.2.25:25: come again");
	ended(LINGER, "upstream", "reply 421 come again");
}

static void xforward_is_421(void **state)
{
	(void)state;
	to_ready(ONE "--xforward --client-names none", "250-mx.test\n250 XFORWARD ADDR");
	client("MAIL FROM:<a@b.test>");
	server("421 enough");
	client_gets("421 enough");
	ended(LINGER, "upstream", "reply 421 enough");
}

static void kept_data_is_421(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_recipient(ONE, PLAIN);
	client("DATA\n" MESSAGE);
	hook_says("");
	client_heard();
	server("421 enough");
	client_gets("421 enough");
	recorded("message deferred a@b.test to r@d.test 250: 421 enough");
	ended(LINGER, "upstream", "reply 421 enough");
}

static void own_rset_is_421(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_recipient(ONE, PLAIN);
	client("DATA\n" MESSAGE);
	hook_says("reject no\n");
	client_heard();
	server("421 enough");
	client_gets("421 enough");
	ended(LINGER, "upstream", "reply 421 enough");
}

/* LMTP: what became of the message for the other recipient is not known. */
static void lmtp_says_421(void **state)
{
	(void)state;
	to_lmtp_recipients(LMTP, PIPES);
	client("DATA");
	server("354 go");
	client(MESSAGE);
	server("250 for r");
	client_heard();
	server("421 enough");
	client_gets("421 enough");
	recorded("message accepted a@b.test to r@d.test 250, no@d.test 550, s@d.test 421: 250 for r");
	ended(LINGER, "upstream", "reply 421 enough");
}

static void lmtp_says_421_first(void **state)
{
	(void)state;
	to_lmtp_recipients(LMTP, PIPES);
	client("DATA");
	server("354 go");
	client(MESSAGE);
	client_heard();
	server("421 enough");
	client_gets("421 enough");
	recorded("message unknown a@b.test to r@d.test 421, no@d.test 550, s@d.test 250: 421 enough");
	ended(LINGER, "upstream", "reply 421 enough");
}

/* ---- the server is lost ---- */

static void is_lost(void **state)
{
	const char *const *row = *state;

	to_ready(ONE, PIPES);
	if (row[0])
		client(row[0]);
	if (row[1])
		server(row[1]);
	client_heard();
	server_closes();
	client_gets(CLOSED);
	stands_at(OPEN, GONE);
	recorded("error: 192.0.2.25: connection closed");
	if (row[2])
		recorded(row[2]);
	ended(LINGER, "upstream", "connection closed");
}

static void lost(void **state)
{
	static const char *const rows[][3] = {
		{ NULL, NULL, NULL },
		{ "NOOP", NULL, NULL },
		{ "NOOP", "250-half", NULL },
		{ "RSET", NULL, NULL },
		{ "EHLO d.test", NULL, NULL },
		{ "EHLO d.test", "250-mx.test", NULL },
		{ "HELO d.test", NULL, NULL },
		{ "MAIL FROM:<a@b.test>", NULL, "message aborted a@b.test" },
		{ "MAIL FROM:<a@b.test>", "250 ok", "message aborted a@b.test" },
		{ "MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>", "250 ok", "message aborted a@b.test to r@d.test 0" },
		{ "MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\nDATA", "250 ok\n250 ok", "message aborted a@b.test to r@d.test 250" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0] ? rows[i][0] : "nothing", is_lost, rows[i]);
}

/* What it said before counts. */
static void says_and_closes(void **state)
{
	(void)state;
	to_ready(ONE, PLAIN);
	client("NOOP");
	world_says(&world_server, "250 ok\r\n", 8);
	server_closes();
	client_gets("250 ok\n" CLOSED);
}

static void lost_before_banner(void **state)
{
	(void)state;
	session_begins(ONE);
	server_connects();
	server_closes();
	client_gets("421 4.4.1 192.0.2.25: connection closed");
	stands_at(OPEN, GONE);
	ended(LINGER, "smtpwarp", "4.4.1 192.0.2.25: connection closed");
}

/* The client wanted to go: so it may. */
static void lost_at_quit(void **state)
{
	(void)state;
	to_ready(ONE, PLAIN);
	client("QUIT");
	server_closes();
	client_gets("221 2.0.0 Bye");
	ended(FLUSH, "client", "QUIT");
}

static void quits(void **state)
{
	(void)state;
	to_ready(ONE, PLAIN);
	client("QUIT");
	server_gets("QUIT");
	server("221 bye");
	client_gets("221 bye");
	ended(FLUSH, "client", "QUIT");
}

static void quit_is_refused(void **state)
{
	(void)state;
	to_ready(ONE, PLAIN);
	client("QUIT");
	server("500 what");
	client_gets("500 what");
	goes_still();
}

/* A server that closes the connection at HELO had said its last word before. */
static void lost_at_helo(void **state)
{
	(void)state;
	session_begins(ONE);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	client_heard();
	server("554 5.7.1 not you");
	server_closes();
	client_gets("554 5.7.1 not you");
	goes_still();
	client("NOOP");
	client_gets("421 4.4.2 192.0.2.25: connection is closed");
}

/* With --connect-on recipient nobody needs a server between messages. */
static void lost_while_unneeded(void **state)
{
	const char *const *row = *state;

	to_late_recipient(LATE, PLAIN);
	client("RSET");
	client_gets("250 2.0.0 Ok");
	server("250 reset");
	if (row[0])
		server(row[0]);
	else
		server_closes();
	client_gets("");
	stands_at(OPEN, NONE);
	goes_still();
	if (row[1])
		recorded(row[1]);
	client("MAIL FROM:<c@b.test>\nRCPT TO:<r@d.test>");
	server_is_dialled("192.0.2.25:25", 2);
}

static void unneeded_is_lost(void **state)
{
	static const char *const rows[][2] = {
		{ NULL, NULL }, { "421 too long", NULL }, { "250 what?", "error: " UNASKED },
		{ "x", "error: a line that is no SMTP reply" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0] ? rows[i][0] : "closes", lost_while_unneeded, rows[i]);
}

/* It is needed from the first recipient to the end of the message. */
static void needed_is_lost(void **state)
{
	(void)state;
	to_late_recipient(LATE, PLAIN);
	server_closes();
	client_gets(CLOSED);
	recorded("message aborted a@b.test to r@d.test 250");
	ended(LINGER, "upstream", "connection closed");
}

static void lost_while_greeted_late(void **state)
{
	(void)state;
	to_waiting_rcpt(LATE "--upstream 192.0.2.26");
	server_connects();
	server(BANNER);
	server_closes();
	recorded("error: 4.4.1 192.0.2.25: connection closed");
	server_is_dialled("192.0.2.26:25", 2);
	client_gets("");
}

static void breaks_after_message(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	client(MESSAGE);
	client_heard();
	server_breaks();
	client_gets("");
	recorded("message unknown a@b.test to r@d.test 250");
	ended(SILENT, "upstream", "connection lost before the reply to a message: its outcome is unknown");
}

/* ---- LMTP: RFC 2033 4.2 ---- */

static void lmtp_to_message(void)
{
	to_lmtp_recipients(LMTP, PIPES);
	client("DATA");
	server("354 go");
	client(MESSAGE);
	client_heard();
}

static void lmtp_replies(void **state)
{
	(void)state;
	lmtp_to_message();
	server("452 r is full\n250 s");
	client_gets("452 r is full\n250 s");
	recorded("message accepted a@b.test to r@d.test 452, no@d.test 550, s@d.test 250: 250 s");
	assert_string_equal(member_of("message", "result"), "\"accepted\"");
	client("NOOP");
	server("250 ok");
	client_gets("250 ok");
}

static void lmtp_replies_once_more(void **state)
{
	(void)state;
	lmtp_to_message();
	server("250 r\n250 s\n250 t");
	client_gets("250 r\n250 s\n421 4.5.0 192.0.2.25: " UNASKED);
	ended(LINGER, "upstream", UNASKED);
}

static void lmtp_lost_between_replies(void **state)
{
	(void)state;
	lmtp_to_message();
	server("250 r");
	client_gets("250 r");
	server_closes();
	client_gets("");
	recorded("message unknown a@b.test to r@d.test 250, no@d.test 550, s@d.test 250: 250 r");
	ended(SILENT, "upstream", "connection lost before the reply to a message: its outcome is unknown");
}

/* A client that speaks SMTP has one recipient, and one reply. */
static void lmtp_for_smtp(void **state)
{
	(void)state;
	to_recipient(LMTP, PIPES);
	client("RCPT TO:<s@d.test>");
	client_gets("452 4.5.3 One recipient at a time: send this one in a transaction of its own");
	client("DATA");
	server("354 go");
	client(MESSAGE);
	client_heard();
	server("250 r");
	client_gets("250 r");
	recorded("message accepted a@b.test to r@d.test 250: 250 r");
}

/* How many replies the next chunk would have is not known. */
static void lmtp_refuses_chunk(void **state)
{
	(void)state;
	to_lmtp_recipients(LMTP, CHUNKS);
	client_bytes("BDAT 2\r\nab", 10);
	server_heard();
	server("452 no");
	client_gets("452 no");
	server_gets("RSET");
	client_bytes("BDAT 2 LAST\r\nab", 15);
	client_gets("");
	server("250 reset");
	client_gets("503 5.5.1 A chunk was refused\n503 5.5.1 A chunk was refused");
	server_gets("");
}

/* ---- records of what was said ---- */

static void secrets_are_not_recorded(void **state)
{
	(void)state;
	to_ready(ONE "--verbose --plain-auth", "250-mx.test\n250 AUTH LOGIN");
	client("AUTH LOGIN");
	server("334 VXNlcm5hbWU6");
	recorded("-> AUTH LOGIN");
	recorded("<- 334");
	client("c2VjcmV0");
	recorded("-> (answer to AUTH)");
	server("535 no");
	recorded("<- 535 no");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(passes_reply), cmocka_unit_test(passes_lines), cmocka_unit_test(passes_several),
		cmocka_unit_test(passes_long_reply), cmocka_unit_test(own_replies_wait_their_turn),
		cmocka_unit_test(data_is_refused), cmocka_unit_test(mail_is_refused), cmocka_unit_test(data_without_recipients),
		cmocka_unit_test(data_without_recipients_refused), cmocka_unit_test(data_without_recipients_and_421),
		cmocka_unit_test(lmtp_data_without_recipients), cmocka_unit_test(violations),
		cmocka_unit_test(replies_twice), cmocka_unit_test(empty_lines), cmocka_unit_test(line_is_too_long),
		cmocka_unit_test(data_is_accepted_at_once), cmocka_unit_test(violates_after_message),
		cmocka_unit_test(banner_is_none), cmocka_unit_test(banner_is_another_reply),
		cmocka_unit_test(speaks_on_after_xforward), cmocka_unit_test(speaks_on_after_xclient),
		cmocka_unit_test(speaks_on_while_greeted_late), cmocka_unit_test(refused_in_message),
		cmocka_unit_test(accepted_in_message), cmocka_unit_test(closes_in_message),
		cmocka_unit_test(speaks_while_hooks_decide),
		cmocka_unit_test(accepted_before_end), cmocka_unit_test(accepted_and_lost), cmocka_unit_test(refused_before_end),
		cmocka_unit_test(accepted_late), cmocka_unit_test(last_chunk_is_accepted_early), cmocka_unit_test(replies_421),
		cmocka_unit_test(banner_is_421), cmocka_unit_test(xforward_is_421), cmocka_unit_test(kept_data_is_421),
		cmocka_unit_test(own_rset_is_421), cmocka_unit_test(lmtp_says_421), cmocka_unit_test(lmtp_says_421_first),
		cmocka_unit_test(lost), cmocka_unit_test(says_and_closes), cmocka_unit_test(lost_before_banner),
		cmocka_unit_test(lost_at_quit), cmocka_unit_test(quits), cmocka_unit_test(quit_is_refused),
		cmocka_unit_test(lost_at_helo), cmocka_unit_test(unneeded_is_lost), cmocka_unit_test(needed_is_lost),
		cmocka_unit_test(lost_while_greeted_late), cmocka_unit_test(breaks_after_message),
		cmocka_unit_test(lmtp_replies), cmocka_unit_test(lmtp_replies_once_more),
		cmocka_unit_test(lmtp_lost_between_replies), cmocka_unit_test(lmtp_for_smtp),
		cmocka_unit_test(lmtp_refuses_chunk), cmocka_unit_test(secrets_are_not_recorded),
		cmocka_unit_test(closes_in_chunk),
		cmocka_unit_test(nonsense_in_message), cmocka_unit_test(endless_lines),
	};

	return run_session_tests(tests);
}
