/* The way of a message: each state of it and what may follow, and what the record of its transaction says. */
#include "test/lib/fake_session.h"

#define ONE "--upstream 192.0.2.25 --tls none "
#define BANNER "220 mx.test ESMTP"

/* Up to a recipient that the server has accepted. */
static void to_recipient(const char *options, const char *list)
{
	session_begins(options);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server(list);
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	client("RCPT TO:<r@d.test>");
	server("250 ok");
	client_heard();
	server_heard();
	stands_at(OPEN, READY);
	content_is(NONE);
}

static void to_data(const char *options)
{
	to_recipient(options, "250 mx.test");
	client("DATA");
	server("354 go");
	client_gets("354 go");
	server_gets("DATA");
	content_is(PASSING);
}

/* A kept message is coming in. */
static void to_keeping(const char *options)
{
	hook_is_there(HOOK_DATA, "d");
	to_recipient(options, "250 mx.test");
	client("DATA");
	client_gets("354 End data with <CR><LF>.<CR><LF>");
	content_is(KEEPING);
}

/* ---- passed through ---- */

static void passes_whole(void **state)
{
	(void)state;
	to_data(ONE);
	client("Message-ID: <1@b.test>\n\n..dot\n.");
	server_gets("Message-ID: <1@b.test>\n\n..dot\n.");
	content_is(SENT);
	passes(0.125);
	server("250 2.0.0 queued");
	client_gets("250 2.0.0 queued");
	recorded("message accepted a@b.test to r@d.test 250: 250 2.0.0 queued");
	assert_string_equal(member_of("message", "message_id"), "\"<1@b.test>\"");
	assert_string_equal(member_of("message", "accept_ms"), "125.000");
	assert_string_equal(member_of("message", "size"), "32");
	content_is(NONE);
}

/* Whatever the server says in the middle of a message, it will not take it. */
static void server_speaks(void **state)
{
	const char *const *row = *state;

	to_data(ONE);
	client("half");
	server(row[0]);
	content_is(DRAINING);
	stands_at(OPEN, GONE);
	client("more\n.");
	server_gets("half");
	client_gets(row[1]);
	recorded(row[2]);
	content_is(NONE);
	if (row[3])
		ended(LINGER, "upstream", row[3]);
	else
		goes_still();
}

static void server_speaks_within(void **state)
{
	static const char *const rows[][4] = {
		{ "552 5.3.4 too large", "552 5.3.4 too large", "message rejected a@b.test to r@d.test 250: 552 5.3.4 too large", NULL },
		{ "250 2.0.0 queued", "451 4.5.0 192.0.2.25: reply in the middle of a message",
		    "message deferred a@b.test to r@d.test 250: 451 4.5.0 192.0.2.25: reply in the middle of a message", NULL },
		{ "421 4.3.2 bye", "421 4.3.2 bye", "message deferred a@b.test to r@d.test 250: 421 4.3.2 bye", "reply 421 4.3.2 bye" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], server_speaks, rows[i]);
}

static void server_goes_within(void **state)
{
	(void)state;
	to_data(ONE);
	client("half");
	server_closes();
	content_is(DRAINING);
	client("more\n.");
	client_gets("451 4.4.2 192.0.2.25: connection closed");
	recorded("message deferred a@b.test to r@d.test 250: 451 4.4.2 192.0.2.25: connection closed");
	content_is(NONE);
}

static void too_large(void **state)
{
	(void)state;
	to_data(ONE "--message-size-limit 10");
	client("hello");
	content_is(PASSING);
	client("hello again");
	content_is(DRAINING);
	server_gets("hello"); /* and no final dot */
	assert_int_equal(world_server.fd, -1);
	client("more\n.");
	client_gets("552 5.3.4 Message is larger than this server takes");
	recorded("message rejected a@b.test to r@d.test 250: 552 5.3.4 Message is larger than this server takes");
}

/* Half a line of the server's before the end of the message: whatever it will be, it was said too early to mean 250. */
static void accepted_before_end(void **state)
{
	(void)state;
	to_data(ONE);
	client("half");
	server_bytes("25", 2);
	client(".");
	content_is(SENT_LATE);
	server_bytes("0 queued\r\n", 10);
	recorded("message unknown a@b.test to r@d.test 250");
	client_gets("");
	ended(SILENT, "upstream", "a message was accepted before all of it was sent");
}

static void refused_before_end(void **state)
{
	(void)state;
	to_data(ONE);
	client("half");
	server_bytes("55", 2);
	client(".");
	content_is(SENT_LATE);
	server_bytes("2 no\r\n", 6);
	client_gets("552 no");
	recorded("message rejected a@b.test to r@d.test 250: 552 no");
	content_is(NONE);
}

/* The last octets never left: the server cannot have the message. */
static void unsent(void **state)
{
	(void)state;
	to_data(ONE);
	server_takes(3);
	client("hello\n.");
	content_is(SENT);
	server_breaks();
	client_gets("451 4.4.2 192.0.2.25: connection reset");
	recorded("message deferred a@b.test to r@d.test 250: 451 4.4.2 192.0.2.25: connection reset");
	content_is(NONE);
	goes_still();
}

static void unsent_late(void **state)
{
	(void)state;
	to_data(ONE);
	server_bytes("25", 2);
	server_takes(3);
	client("hello\n.");
	content_is(SENT_LATE);
	server_breaks();
	client_gets("451 4.4.2 192.0.2.25: connection reset");
	content_is(NONE);
}

/* All of it left, and nothing came back. */
static void outcome_unknown(void **state)
{
	(void)state;
	to_data(ONE);
	client("hello\n.");
	server_closes();
	client_gets("");
	recorded("message unknown a@b.test to r@d.test 250");
	ended(SILENT, "upstream", "connection lost before the reply to a message: its outcome is unknown");
}

/* ---- in chunks ---- */

#define CHUNKING "250-mx.test\n250-PIPELINING\n250 CHUNKING"

static void chunks(void **state)
{
	(void)state;
	to_recipient(ONE, CHUNKING);
	client("BDAT 7\nhello");
	server_gets("BDAT 7\nhello");
	content_is(SENT);
	server("250 got it");
	client("BDAT 4");
	content_is(PASSING);
	client("ab");
	content_is(SENT);
	server("250 got it");
	client("BDAT 0 LAST");
	server("250 queued");
	client_gets("250 got it\n250 got it\n250 queued");
	recorded("message accepted a@b.test to r@d.test 250: 250 queued");
	content_is(NONE);
}

/* The reply to a chunk waits until the chunk is through, or both sides would be out of step. */
static void chunk_answered_early(void **state)
{
	(void)state;
	to_recipient(ONE, CHUNKING);
	client("BDAT 7\nhe");
	content_is(PASSING);
	server("250 got it");
	client_gets("");
	client_bytes("lloBDAT 4\r\nab", 13);
	content_is(PASSING);
	client_gets("250 got it");
	client_bytes("cd", 2);
	server("250 got it");
	client_gets("250 got it");
}

static void last_chunk_accepted_early(void **state)
{
	(void)state;
	to_recipient(ONE, CHUNKING);
	client("BDAT 7 LAST\nhe");
	server("250 queued");
	client_bytes("llo", 3);
	recorded("message unknown a@b.test to r@d.test 250");
	client_gets("");
	ended(SILENT, "upstream", "a message was accepted before all of it was sent");
}

static void last_chunk_refused_early(void **state)
{
	(void)state;
	to_recipient(ONE, CHUNKING);
	client("BDAT 7 LAST\nhe");
	server("552 no");
	client_bytes("llo", 3);
	client_gets("552 no");
	recorded("message rejected a@b.test to r@d.test 250: 552 no");
	content_is(NONE);
}

static void chunk_server_goes(void **state)
{
	(void)state;
	to_recipient(ONE, CHUNKING);
	client("BDAT 7 LAST\nhe");
	server_closes();
	content_is(DRAINING);
	client_bytes("llo", 3);
	client_gets("451 4.4.2 192.0.2.25: connection closed");
	content_is(NONE);
}

/* RSET, and the next chunk behind it before it is answered: the transaction ends while octets come that belong to none. */
static void to_chunk_after_rset(void)
{
	to_recipient(ONE, CHUNKING);
	client_bytes("BDAT 3\r\nabcRSET\r\nBDAT 6\r\nab", 27);
	server_gets("BDAT 3\nabcRSET\nBDAT 6\nab...");
	content_is(PASSING);
	server("250 got it\n250 reset");
	client_gets("250 got it\n250 reset");
	content_is(NONE);
}

static void chunk_after_rset(void **state)
{
	(void)state;
	to_chunk_after_rset();
	client_bytes("cdef", 4);
	content_is(SENT);
	server("503 no transaction");
	client_gets("503 no transaction");
	server_gets("cdef...");
}

static void chunk_after_rset_answered_early(void **state)
{
	(void)state;
	to_chunk_after_rset();
	server("503 no transaction");
	client_bytes("cdef", 4);
	client_gets("503 no transaction");
	goes_still();
}

static void chunk_after_rset_server_goes(void **state)
{
	(void)state;
	to_chunk_after_rset();
	server_closes();
	content_is(DRAINING);
	client_bytes("cdef", 4);
	client_gets("451 4.4.2 192.0.2.25: connection closed");
	goes_still();
}

/* ---- kept ---- */

static void kept_client_goes(void **state)
{
	(void)state;
	to_keeping(ONE);
	client("half");
	client_closes();
	server_gets("QUIT"); /* it has nothing of the message */
	recorded("message aborted a@b.test to r@d.test 250");
	ended(FLUSH, "client", "connection closed");
	content_is(NONE);
}

static void kept_server_goes(void **state)
{
	(void)state;
	to_keeping(ONE);
	client("half");
	server_closes();
	content_is(DRAINING);
	client("more\n.");
	client_gets("451 4.4.2 192.0.2.25: connection closed");
	assert_null(world_hook);
}

static void to_spoiled(void)
{
	to_keeping(ONE "--message-size-limit 10");
	client("hello");
	client("hello again");
	content_is(SPOILED);
}

static void kept_too_large(void **state)
{
	(void)state;
	to_spoiled();
	client(".");
	client_gets("552 5.3.4 Message is larger than this server takes");
	server_gets("RSET");
	assert_null(world_hook);
	content_is(NONE);
}

static void kept_too_large_server_goes(void **state)
{
	(void)state;
	to_spoiled();
	server_closes();
	content_is(DRAINING);
	client(".");
	client_gets("451 4.4.2 192.0.2.25: connection closed");
}

/* What a bare newline comes to is the operator's choice. */
static void kept_bare_newline(void **state)
{
	(void)state;
	to_keeping(ONE "--bare-newline reject");
	client_bytes("a\nb\r\n.\r\n", 8);
	client_gets("554 5.6.0 A bare carriage return or line feed is not allowed in a message");
}

static void kept_client_goes_in_hooks(void **state)
{
	(void)state;
	to_keeping(ONE);
	client("hello\n.");
	content_is(WHOLE);
	client_breaks();
	recorded("message aborted a@b.test to r@d.test 250");
	content_is(NONE);
}

/* ---- kept, on its way to the server ---- */

#define LARGE 700000 /* more than our buffers take */

static void say_large(const char *end)
{
	static char bytes[LARGE + 10];

	for (size_t i = 0; i < LARGE; i++)
		bytes[i] = i % 50 == 48 ? '\r' : i % 50 == 49 ? '\n' : 'x';
	client_bytes(bytes, LARGE);
	client_bytes(end, strlen(end));
	content_is(WHOLE);
}

/* A large message is with the server in part, which takes no more for now. */
static void to_sending(void)
{
	to_keeping(ONE);
	say_large(".\r\n");
	hook_says("");
	content_is(ASKED);
	server_takes(4);
	stands_at(KEPT, READY);
	server("354 go");
	content_is(SENDING);
}

static void sends(void **state)
{
	(void)state;
	to_sending();
	server_takes(WORLD_FOREVER);
	content_is(SENT);
	assert_int_equal(world_server.out_len, 6 + LARGE + 3); /* DATA, and the dot */
	server("250 queued");
	client_gets("250 queued");
}

static void sending_refused(void **state)
{
	(void)state;
	to_sending();
	server("552 no");
	client_gets("552 no");
	stands_at(OPEN, GONE);
	content_is(NONE);
	recorded("message rejected a@b.test to r@d.test 250: 552 no");
}

static void sending_server_goes(void **state)
{
	(void)state;
	to_sending();
	server_closes();
	client_gets("451 4.4.2 192.0.2.25: connection closed");
	recorded("message deferred a@b.test to r@d.test 250: 451 4.4.2 192.0.2.25: connection closed");
}

static void sending_client_goes(void **state)
{
	(void)state;
	to_sending();
	client_breaks();
	recorded("message aborted a@b.test to r@d.test 250");
	content_is(NONE);
	ended(FLUSH, "client", "connection reset");
}

static void sending_answered_early(void **state)
{
	(void)state;
	to_sending();
	server_bytes("25", 2);
	server_takes(WORLD_FOREVER);
	content_is(SENT_LATE);
	server_bytes("0 queued\r\n", 10);
	client_gets("");
	ended(SILENT, "upstream", "a message was accepted before all of it was sent");
}

static void to_sending_chunk(void)
{
	hook_is_there(HOOK_DATA, "d");
	to_recipient(ONE, CHUNKING);
	client("BDAT 700000 LAST");
	content_is(KEEPING);
	say_large("");
	server_takes(4);
	hook_says("");
	content_is(SENDING_CHUNK);
	stands_at(KEPT, READY);
}

static void sends_chunk(void **state)
{
	(void)state;
	to_sending_chunk();
	server_takes(WORLD_FOREVER);
	content_is(SENT);
	assert_int_equal(world_server.out_len, sizeof "BDAT 700000 LAST\r\n" - 1 + LARGE);
	server("250 queued");
	client_gets("250 queued");
	recorded("message accepted a@b.test to r@d.test 250: 250 queued");
}

static void sending_chunk_answered_early(void **state)
{
	(void)state;
	to_sending_chunk();
	server("250 queued");
	content_is(SENDING_CHUNK);
	server_takes(WORLD_FOREVER);
	client_gets("");
	ended(SILENT, "upstream", "a message was accepted before all of it was sent");
}

/* Its last word is heard. */
static void sending_chunk_refused(void **state)
{
	(void)state;
	to_sending_chunk();
	server("552 no");
	client_gets("");
	server_closes();
	client_gets("552 no");
	recorded("message rejected a@b.test to r@d.test 250: 552 no");
	content_is(NONE);
}

static void sending_chunk_client_goes(void **state)
{
	(void)state;
	to_sending_chunk();
	client_breaks();
	recorded("message aborted a@b.test to r@d.test 250");
	content_is(NONE);
}

/* ---- records ---- */

/* Every recipient refused. */
static void all_refused(void **state)
{
	const char *const *row = *state;

	session_begins(ONE);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server("250 mx.test");
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	client("RCPT TO:<r@d.test>");
	server(row[0]);
	client("RCPT TO:<s@d.test>");
	server(row[1]);
	client("RSET");
	server("250 ok");
	recorded(row[2]);
}

static void results(void **state)
{
	static const char *const rows[][3] = {
		{ "550 no", "550 no", "message rejected a@b.test to r@d.test 550, s@d.test 550" },
		{ "550 no", "450 later", "message deferred a@b.test to r@d.test 550, s@d.test 450" },
		{ "550 no", "250 ok", "message aborted a@b.test to r@d.test 550, s@d.test 250" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][2], all_refused, rows[i]);
}

/* MAIL, RCPT and DATA in one segment: what DATA gets behind a refusal does not change what was refused, and how. */
static void pipelined_result(void **state)
{
	const char *const *row = *state;

	session_begins(ONE);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250-PIPELINING\n250 CHUNKING");
	client_heard();
	client(row[0]);
	server(row[1]);
	client("RSET");
	server("250 ok");
	recorded(row[2]);
}

#define PIPELINED "MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>\n"

static void pipelined_results(void **state)
{
	static const char *const rows[][3] = {
		{ PIPELINED "DATA", "451 4.7.1 busy\n503 mail\n503 rcpt",
		    "message deferred a@b.test to r@d.test 503: 451 4.7.1 busy" },
		{ PIPELINED "DATA", "550 5.7.1 no\n451 mail\n451 rcpt",
		    "message rejected a@b.test to r@d.test 451: 550 5.7.1 no" },
		{ PIPELINED "BDAT 2 LAST\n", "451 4.7.1 busy\n503 mail\n503 rcpt",
		    "message deferred a@b.test to r@d.test 503: 451 4.7.1 busy" },
		{ PIPELINED "DATA", "250 ok\n451 4.2.0 grey\n503 rcpt",
		    "message deferred a@b.test to r@d.test 451: 503 rcpt" },
		{ PIPELINED "BDAT 2 LAST\n", "250 ok\n451 4.2.0 grey\n503 rcpt",
		    "message deferred a@b.test to r@d.test 451: 503 rcpt" },
		{ PIPELINED "BDAT 2\n\nBDAT 2 LAST\n", "250 ok\n250 ok\n452 4.3.1 full\n503 chunk",
		    "message deferred a@b.test to r@d.test 250: 452 4.3.1 full" },
		{ PIPELINED "BDAT 2\n\nBDAT 2 LAST\n", "250 ok\n250 ok\n452 4.3.1 full\n250 all the same",
		    "message accepted a@b.test to r@d.test 250: 250 all the same" },
		{ PIPELINED "DATA", "250 ok\n550 no\n451 rcpt", "message rejected a@b.test to r@d.test 550: 451 rcpt" },
		{ PIPELINED "RCPT TO:<s@d.test>\nDATA", "250 ok\n550 no\n450 later\n554 rcpt",
		    "message deferred a@b.test to r@d.test 550, s@d.test 450: 554 rcpt" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][2], pipelined_result, rows[i]);
}

/* MAIL and RCPT are not yet answered when BDAT is refused: their replies come to a transaction that has been given up. */
static void given_up_before_its_replies(void **state)
{
	(void)state;
	session_begins(ONE "--message-size-limit 20");
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250-PIPELINING\n250 CHUNKING");
	client(PIPELINED "BDAT 21 LAST\n012345678901234567890");
	server("250 mail");
	server("250 rcpt");
	server("250 reset");
	client_heard();
	server_heard();
	client("MAIL FROM:<d@b.test> SIZE=21\nRSET");
	server("250 reset");
	recorded("message rejected a@b.test to r@d.test 0: 552 5.3.4 Message is larger than this server takes");
	recorded("message rejected d@b.test: 552 5.3.4 Message is larger than this server takes");
	assert_string_equal(member_of("message", "mail_ms"), "null");
	client_heard();
	server_heard();
	client("MAIL FROM:<c@b.test>");
	server_gets("MAIL FROM:<c@b.test>");
	server("250 ok");
	client_gets("250 ok");
}

static void pipelined_data_taken(void **state)
{
	(void)state;
	session_begins(ONE);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250 PIPELINING");
	client(PIPELINED "DATA");
	server("250 ok\n451 4.2.0 grey\n354 go");
	recorded("message deferred a@b.test to r@d.test 451: 554 5.5.1 No valid recipients");
}

static void no_recipient(void **state)
{
	(void)state;
	session_begins(ONE);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server("250 mx.test");
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	client_closes();
	recorded("message aborted a@b.test");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(passes_whole), cmocka_unit_test(server_speaks_within), cmocka_unit_test(server_goes_within),
		cmocka_unit_test(too_large), cmocka_unit_test(accepted_before_end), cmocka_unit_test(refused_before_end),
		cmocka_unit_test(unsent), cmocka_unit_test(unsent_late), cmocka_unit_test(outcome_unknown),
		cmocka_unit_test(chunks), cmocka_unit_test(chunk_answered_early), cmocka_unit_test(last_chunk_accepted_early),
		cmocka_unit_test(last_chunk_refused_early), cmocka_unit_test(chunk_server_goes),
		cmocka_unit_test(chunk_after_rset), cmocka_unit_test(chunk_after_rset_answered_early),
		cmocka_unit_test(chunk_after_rset_server_goes), cmocka_unit_test(kept_client_goes),
		cmocka_unit_test(kept_server_goes), cmocka_unit_test(kept_too_large),
		cmocka_unit_test(kept_too_large_server_goes), cmocka_unit_test(kept_bare_newline),
		cmocka_unit_test(kept_client_goes_in_hooks), cmocka_unit_test(sends), cmocka_unit_test(sending_refused),
		cmocka_unit_test(sending_server_goes), cmocka_unit_test(sending_client_goes),
		cmocka_unit_test(sending_answered_early), cmocka_unit_test(sends_chunk),
		cmocka_unit_test(sending_chunk_answered_early), cmocka_unit_test(sending_chunk_refused),
		cmocka_unit_test(sending_chunk_client_goes), cmocka_unit_test(results), cmocka_unit_test(pipelined_results),
		cmocka_unit_test(given_up_before_its_replies),
		cmocka_unit_test(pipelined_data_taken), cmocka_unit_test(no_recipient),
	};

	return run_session_tests(tests);
}
