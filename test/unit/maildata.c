/* The octets of a message: passed on, kept and sent, drained; each state of a message, and how it comes from one to the next. */
#include "test/lib/fake_session.h"
#include "test/lib/fake_story.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>

#define LIMITED ONE "--message-size-limit 20 "
#define TOO_LARGE "552 5.3.4 Message is larger than this server takes"
#define BARE "554 5.6.0 A bare carriage return or line feed is not allowed in a message"
#define LOST "451 4.4.2 192.0.2.25: connection closed"
#define LARGE 200000   /* more octets than are sent at a time */
#define LARGER 800000  /* more than fit into the buffers between client and server */

/* A client's lines, without a CR LF at the end. */
static void client_says(const char *text)
{
	client_bytes(text, strlen(text));
}

/* ---- passed on ---- */

static void passes_as_it_is(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	client("Subject: x\n\n..stuffed\nline");
	server_gets("Subject: x\n\n..stuffed\nline");
	content_is(PASSING);
	client(".");
	server_gets(".");
	content_is(SENT);
	client_gets("");
	server("250 accepted");
	client_gets("250 accepted");
	content_is(NONE);
	recorded("message accepted a@b.test to r@d.test 250: 250 accepted");
	assert_string_equal(member_of("message", "size"), "30");
}

static void passes_octet_by_octet(void **state)
{
	static const char text[] = "a\r\n..\r\n.\r\nNOOP\r\n";

	(void)state;
	to_data(ONE, PLAIN);
	for (size_t i = 0; i < sizeof text - 1; i++)
		client_bytes(text + i, 1);
	server_gets("a\n..\n."); /* NOOP waits for the reply to the message */
	server("250 accepted");
	server_gets("NOOP");
}

static void passes_nothing(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	client(".");
	server_gets(".");
	server("250 accepted");
	client_gets("250 accepted");
}

/* The client's octets wait in its socket while the server takes none. */
static void passes_as_server_takes(void **state)
{
	static char line[LARGE];

	(void)state;
	memset(line, 'x', sizeof line);
	to_data(ONE, PLAIN);
	server_takes(1000);
	client_bytes(line, sizeof line);
	client("\n.");
	assert_int_equal(world_server.out_len, 1000);
	assert_true(world_client.in_at < world_client.in_len);
	server_takes(WORLD_FOREVER);
	assert_int_equal(world_client.in_at, world_client.in_len);
	assert_int_equal(world_server.out_len, sizeof line + 2 + 3);
	content_is(SENT);
}

static void passes_trace(void **state)
{
	(void)state;
	to_recipient(ONE "--received --client-names none", PLAIN);
	client("DATA");
	server_heard();
	server("354 go");
	client_heard();
	client("x\n.");
	assert_memory_equal(world_server.out, "Received: from c.test ([192.0.2.7])\r\n", 37);
	server("250 accepted");
	client_gets("250 accepted");
}

/* What the server has got since it was looked at, with "[R]" for the Received field. */
static void with_trace_server_got(const char *want)
{
	static struct text got;
	char *field, *end;

	clear(&got);
	say_bytes(&got, world_server.out, world_server.out_len);
	field = strstr(got.bytes, "Received: from c.test ");
	assert_non_null(field);
	end = strstr(field, " +0000\\r\\n");
	assert_non_null(end);
	memcpy(field, "[R]", 3);
	memmove(field + 3, end + 10, strlen(end + 10) + 1);
	expect_text("with the field", got.bytes, want);
}

struct traced {
	const char *message, *want; /* without the final dot */
};

#define MBOX "From a@b.test Thu Jan  1 00:00:00 1970\r\n"
#define MBOX_SAID "From a@b.test Thu Jan  1 00:00:00 1970\\r\\n"
#define LONG_FROM "From " LONG_512 LONG_512
#define LONG_64 "................................................................"
#define LONG_512 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64

static const struct traced traced[] = {
	{ "Subject: x\r\n\r\n", "[R]Subject: x\\r\\n\\r\\n" },
	{ "", "[R]" },
	{ "..\r\n", "[R]..\\r\\n" },
	{ MBOX "Subject: x\r\n", MBOX_SAID "[R]Subject: x\\r\\n" },
	{ ">" MBOX "..\r\n", ">" MBOX_SAID "[R]..\\r\\n" },
	{ MBOX, MBOX_SAID "[R]" },
	{ "From\r\nx\r\n", "[R]From\\r\\nx\\r\\n" },
	{ "Froms x\r\n", "[R]Froms x\\r\\n" },
	{ "From: x\r\n", "[R]From: x\\r\\n" },
	{ "From : x\r\n", "[R]From : x\\r\\n" },
	{ ">>From x\r\n", "[R]>>From x\\r\\n" },
	{ " " MBOX, "[R] " MBOX_SAID },
	{ LONG_FROM "\r\n", "[R]" LONG_FROM "\\r\\n" },
};

static void to_traced(const char *options)
{
	to_recipient(options, CHUNKS);
	client("DATA");
	server_heard();
	server("354 go");
	client_heard();
}

static void trace_in_passing(void **state)
{
	const struct traced *t = *state;
	struct text want = { 0 };

	to_traced(ONE "--received --client-names none");
	client_says(t->message);
	client_bytes(".\r\n", 3);
	snprintf(want.bytes, sizeof want.bytes, "%s.\\r\\n", t->want);
	with_trace_server_got(want.bytes);
}

static void trace_in_pieces(void **state)
{
	const struct traced *t = *state;
	struct text want = { 0 };

	to_traced(ONE "--received --client-names none");
	for (const char *at = t->message; *at; at++)
		client_bytes(at, 1);
	client_bytes(".\r\n", 3);
	snprintf(want.bytes, sizeof want.bytes, "%s.\\r\\n", t->want);
	with_trace_server_got(want.bytes);
}

static void trace_when_kept(void **state)
{
	const struct traced *t = *state;
	struct text want = { 0 };

	hook_is_there(HOOK_DATA, "d");
	to_recipient(ONE "--received --client-names none", CHUNKS);
	client("DATA");
	client_says(t->message);
	client_bytes(".\r\n", 3);
	server_heard();
	hook_says("");
	server("354 go");
	snprintf(want.bytes, sizeof want.bytes, "DATA\\r\\n%s.\\r\\n", t->want);
	with_trace_server_got(want.bytes);
}

/* The header begins below the line that a mailbox's file has before each message. */
static void traces(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(traced); i++) {
		apart("in passing", trace_in_passing, &traced[i]);
		apart("octet by octet", trace_in_pieces, &traced[i]);
		apart("kept", trace_when_kept, &traced[i]);
	}
}

/* A line that ends in LF alone: below the field the dot would be the first of a line. */
static void trace_and_bare_newline(void **state)
{
	(void)state;
	to_traced(ONE "--received --client-names none --bare-newline pass");
	client_bytes("From x\n.\r\n.\r\n", 14);
	with_trace_server_got("[R]From x\\n.\\r\\n.\\r\\n");
}

/* Take BDAT's line from the front of what the server has got. Returns its count. */
static unsigned long take_bdat(void)
{
	char *end = memchr(world_server.out, '\n', world_server.out_len);
	unsigned long counted = strtoul((char *)world_server.out + 5, NULL, 10);

	assert_non_null(end);
	world_server.out_len -= (size_t)(end + 1 - (char *)world_server.out);
	memmove(world_server.out, end + 1, world_server.out_len);
	return counted;
}

static void trace_in_chunk(void **state)
{
	const struct traced *t = *state;
	unsigned long counted;

	to_recipient(ONE "--received --client-names none", CHUNKS);
	client_says(t->message);
	counted = take_bdat();
	if (!strstr(t->message + 1, "BDAT"))
		assert_int_equal(world_server.out_len, counted);
	with_trace_server_got(t->want);
}

/* Its octets are counted before those of the chunk have come, so that it cannot go into the next. */
static void traces_in_chunks(void **state)
{
	static const struct traced rows[] = {
		{ "BDAT 8 LAST\r\nFrom x\r\n", "From x\\r\\n[R]" },
		{ "BDAT 10 LAST\r\nFrom x\r\n.a", "From x\\r\\n[R].a" },
		{ "BDAT 2 LAST\r\nab", "[R]ab" },
		{ "BDAT 0 LAST\r\n", "[R]" },
		{ "BDAT 4\r\nFromBDAT 4 LAST\r\n x\r\n", "[R]FromBDAT 4 LAST\\r\\n x\\r\\n" },
		{ "BDAT 6\r\nFrom xBDAT 2 LAST\r\n\r\n", "[R]From xBDAT 2 LAST\\r\\n\\r\\n" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i].message, trace_in_chunk, &rows[i]);
}

static void kept_chunk_below_separator(void **state)
{
	unsigned long counted;

	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_recipient(ONE "--received --client-names none", CHUNKS);
	client_says("BDAT 12 LAST\r\nFrom x\r\n.a\r\n");
	hook_says("");
	counted = take_bdat();
	assert_int_equal(world_server.out_len, counted);
	with_trace_server_got("From x\\r\\n[R].a\\r\\n");
}

/* RSET has ended the transaction before the chunk's octets came: what was counted must come all the same. */
static void trace_after_reset(void **state)
{
	(void)state;
	to_recipient(ONE "--received --client-names none", CHUNKS);
	client_says("RSET\r\nBDAT 10 LAST\r\nFrom");
	server_heard();
	server("250 reset");
	client_says(" x\r\nab");
	with_trace_server_got("From x\\r\\n[R]ab");
}

/* ---- drained ---- */

static void too_large_in_passing(void **state)
{
	(void)state;
	to_data(LIMITED, PLAIN);
	client("this is one line\nand another");
	assert_int_equal(world_server.fd, -1); /* it never gets the end */
	content_is(DRAINING);
	stands_at(OPEN, GONE);
	client("and more of it\n.");
	client_gets(TOO_LARGE);
	content_is(NONE);
	recorded("message rejected a@b.test to r@d.test 250: 552 5.3.4 Message is larger than this server takes");
	goes_still();
	client("NOOP");
	client_gets("421 4.4.2 192.0.2.25: connection is closed");
	ended(LINGER, "upstream", "connection is closed");
}

static void bare_newline_in_passing(void **state)
{
	(void)state;
	to_data(ONE "--bare-newline reject", PLAIN);
	client_says("one\ntwo\r\n");
	content_is(DRAINING);
	client(".");
	client_gets(BARE);
	recorded("message rejected a@b.test to r@d.test 250: 554 5.6.0 A bare carriage return or line feed is not allowed in a message");
}

static void bare_newline_is_normalized(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	client_says("one\n.\ntwo\r\n.\r\n");
	server_gets("one\n..\ntwo\n.");
}

/* PROTOCOL 9. */
static void server_lost_in_passing(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	client("hello");
	server_closes();
	client_gets("");
	content_is(DRAINING);
	stands_at(OPEN, GONE);
	client("more\n.");
	client_gets(LOST);
	content_is(NONE);
	recorded("error: 192.0.2.25: connection closed");
	recorded("message deferred a@b.test to r@d.test 250: 451 4.4.2 192.0.2.25: connection closed");
	goes_still();
}

/* PROTOCOL 8. */
static void client_lost_in_passing(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	client("hello");
	client_closes();
	server_gets("hello");
	assert_int_equal(world_server.fd, -1);
	recorded("message aborted a@b.test to r@d.test 250");
	ended(FLUSH, "client", "connection closed");
}

static void client_lost_in_draining(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	server_closes();
	client_closes();
	client_gets("");
	recorded("message aborted a@b.test to r@d.test 250");
	ended(FLUSH, "client", "connection closed");
}

/* The end of the message was written, but not taken: so the server cannot have it. */
static void server_lost_before_end(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	server_takes(0);
	client("hello\n.");
	content_is(SENT);
	server_breaks();
	client_gets("451 4.4.2 192.0.2.25: connection reset");
	content_is(NONE);
	recorded("message deferred a@b.test to r@d.test 250: 451 4.4.2 192.0.2.25: connection reset");
	goes_still();
}

/* The same, where it has begun to say something. */
static void server_lost_before_end_late(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	server_takes(0);
	server_bytes("55", 2);
	client("hello\n.");
	content_is(SENT_LATE);
	server_breaks();
	client_gets("451 4.4.2 192.0.2.25: connection reset");
	recorded("message deferred a@b.test to r@d.test 250: 451 4.4.2 192.0.2.25: connection reset");
}

/* It had the end, perhaps. */
static void server_lost_after_end(void **state)
{
	(void)state;
	to_data(ONE, PLAIN);
	client("hello\n.");
	server_closes();
	client_gets("");
	recorded("message unknown a@b.test to r@d.test 250");
	ended(SILENT, "upstream", "connection lost before the reply to a message: its outcome is unknown");
}

/* ---- chunks that are passed on ---- */

static void chunks_pass(void **state)
{
	(void)state;
	to_recipient(ONE, CHUNKS);
	client_says("BDAT 5\r\n.\r\nab");
	server_gets("BDAT 5\n.\nab...");
	content_is(SENT);
	client_says("BDAT 2 LAST\r\n\r\n"); /* RFC 3030 4.2: the next chunk need not wait */
	server_gets("BDAT 2 LAST\n");
	content_is(SENT);
	server("250 five\n250 all");
	client_gets("250 five\n250 all");
	content_is(NONE);
	recorded("message accepted a@b.test to r@d.test 250: 250 all");
	assert_string_equal(member_of("message", "size"), "7");
}

static void chunk_of_nothing_ends_message(void **state)
{
	(void)state;
	to_recipient(ONE, CHUNKS);
	client_says("BDAT 3\r\nabcBDAT 0 LAST\r\nNOOP\r\n");
	server_gets("BDAT 3\nabcBDAT 0 LAST");
	server("250 ok\n250 accepted");
	client_gets("250 ok\n250 accepted");
	server_gets("NOOP");
}

/* The reply to a chunk waits until the client has sent the chunk. */
static void chunk_is_answered_early(void **state)
{
	(void)state;
	to_recipient(ONE, CHUNKS);
	client_says("BDAT 5\r\nab");
	server("250 five");
	client_gets("");
	content_is(PASSING);
	client_says("cde");
	content_is(SENT_LATE);
	client_gets("250 five");
	client_says("BDAT 1 LAST\r\n");
	content_is(PASSING);
	client_says("x");
	content_is(SENT);
	server("250 all");
	client_gets("250 all");
}

/* A client that speaks LMTP, a server that does not: each recipient has the server's last reply, not that of the first chunk. */
static void chunk_is_refused_for_each(void **state)
{
	(void)state;
	session_begins(LATE);
	client("LHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	server_connects();
	server(BANNER);
	server(CHUNKS);
	server("250 ok");
	server("250 ok");
	client("RCPT TO:<s@d.test>");
	server("250 ok");
	nothing_said_yet();
	client_says("BDAT 3\r\nabc");
	server("452 full");
	client_gets("452 full");
	client_says("BDAT 3 LAST\r\ndef");
	server("503 no");
	client_gets("503 no\n503 no");
	recorded("message deferred a@b.test to r@d.test 250, s@d.test 250: 452 full");
}

/* PROTOCOL 45: its octets are consumed all the same. */
static void chunk_is_refused(void **state)
{
	(void)state;
	to_recipient(ONE, CHUNKS);
	client_says("BDAT 3\r\nabcBDAT 3 LAST\r\ndef");
	server_heard();
	server("452 no\n503 no");
	client_gets("452 no\n503 no");
	recorded("message deferred a@b.test to r@d.test 250: 452 no");
	client("NOOP");
	server_gets("NOOP");
}

static void chunk_before_recipient(void **state)
{
	(void)state;
	to_ready(ONE, CHUNKS);
	client_says("BDAT 4 LAST\r\nRSETNOOP\r\n");
	client_gets("503 5.5.1 MAIL first");
	server_gets("NOOP");
}

/* Chunks that the server has already are forgotten by RSET. */
static void chunk_is_too_large(void **state)
{
	(void)state;
	to_recipient(LIMITED, CHUNKS);
	client_says("BDAT 15\r\n0123456789abcdeBDAT 6 LAST\r\nfghijk");
	server_gets("BDAT 15\n0123456789abcdeRSET");
	client_gets("");
	server("250 ok\n250 reset");
	client_gets("250 ok\n" TOO_LARGE);
	recorded("message rejected a@b.test to r@d.test 250: 552 5.3.4 Message is larger than this server takes");
	stands_at(OPEN, READY);
}

static void server_lost_in_chunk(void **state)
{
	(void)state;
	to_recipient(ONE, CHUNKS);
	client_says("BDAT 5 LAST\r\nab");
	server_closes();
	client_gets("");
	content_is(DRAINING);
	client_says("cde");
	client_gets(LOST);
	recorded("message deferred a@b.test to r@d.test 250: 451 4.4.2 192.0.2.25: connection closed");
}

/* It owes a reply to the chunk before as well: which chunks it has is not known. */
static void server_lost_in_second_chunk(void **state)
{
	(void)state;
	to_recipient(ONE, CHUNKS);
	client_says("BDAT 2\r\nabBDAT 5 LAST\r\nab");
	server_closes();
	client_gets("421 4.4.2 192.0.2.25: connection closed");
	recorded("message aborted a@b.test to r@d.test 250");
	ended(LINGER, "upstream", "connection closed");
}

/* The server refuses a chunk and closes: that is its reply. */
static void server_refuses_chunk_and_closes(void **state)
{
	(void)state;
	to_recipient(ONE, CHUNKS);
	client_says("BDAT 5 LAST\r\nab");
	world_says(&world_server, "552 too large\r\n", 15);
	server_closes();
	client_gets("");
	client_says("cde");
	client_gets("552 too large");
	recorded("message rejected a@b.test to r@d.test 250: 552 too large");
}

/* RSET, and a chunk behind it: the reply to RSET ends the transaction while the chunk is being sent. */
static void to_reset_chunk(void)
{
	to_recipient(ONE, CHUNKS);
	client_says("RSET\r\nBDAT 5\r\nab");
	server_gets("RSET\nBDAT 5\nab...");
	content_is(PASSING);
	server("250 reset");
	client_gets("250 reset");
	content_is(NONE);
	recorded("message aborted a@b.test to r@d.test 250");
}

static void reset_before_chunk(void **state)
{
	(void)state;
	to_reset_chunk();
	client_says("cde");
	content_is(SENT);
	server("503 no");
	client_gets("503 no");
	stands_at(OPEN, READY);
	server_heard();
	client("MAIL FROM:<b@b.test>\nRCPT TO:<r@d.test>");
	server("250 ok");
	server("250 ok");
	client("DATA");
	server("354 go");
	content_is(PASSING);
	client("hello\n.");
	client_heard();
	server("250 accepted");
	client_gets("250 accepted");
	recorded("message accepted b@b.test to r@d.test 250: 250 accepted");
}

static void reset_before_chunk_answered_early(void **state)
{
	(void)state;
	to_reset_chunk();
	server("503 no");
	client_gets("");
	client_says("cde");
	client_gets("503 no");
	content_is(SENT_LATE);
	client("MAIL FROM:<b@b.test>\nRCPT TO:<r@d.test>");
	server("250 ok\n250 ok");
	client("DATA");
	server("354 go");
	client("hello\n.");
	client_heard();
	server("250 accepted");
	client_gets("250 accepted");
}

static void reset_before_chunk_and_lost(void **state)
{
	(void)state;
	to_reset_chunk();
	server_closes();
	content_is(DRAINING);
	client_gets("");
	client_says("cde");
	client_gets(LOST);
	not_recorded("message");
	goes_still();
}

/* ---- kept ---- */

static void keep_for_hook(const char *options, const char *list)
{
	hook_is_there(HOOK_DATA, "d");
	to_recipient(options, list);
	client("DATA");
	client_gets(GO_AHEAD);
	server_gets("");
	content_is(KEEPING);
}

/* What the hook is given on its third descriptor. */
static void hook_reads(const char *want)
{
	const struct message *m = world_hook ? world_hook->input.message : NULL;

	assert_non_null(m);
	assert_int_equal(m->size, strlen(want));
	assert_memory_equal(m->bytes, want, m->size);
}

/* PROTOCOL 4: dots are unstuffed for hooks, and stuffed for the server. */
static void keeps_and_sends(void **state)
{
	(void)state;
	keep_for_hook(ONE, PLAIN);
	client("..a\n.\n"); /* and an empty command */
	hook_reads(".a\r\n");
	content_is(WHOLE);
	hook_says("");
	server_gets("DATA");
	content_is(ASKED);
	server("354 go");
	server_gets("..a\n.");
	content_is(SENT);
	server("250 accepted");
	client_gets("250 accepted\n500 5.5.2 Empty command");
	content_is(NONE);
}

static void sends_with_dots_stuffed(void **state)
{
	static const struct {
		const char *message, *want;
	} rows[] = {
		{ "", "." },
		{ ".", "..\n." },
		{ ".\r\n", "..\n." },
		{ "a", "a\n." },
		{ "a\r\n.b\r\n..\r\n\r\n.", "a\n..b\n...\n\n..\n." },
		{ "a.\r\nb.c", "a.\nb.c\n." },
	};
	size_t i = (size_t)*(const char *)*state;

	keep_for_hook(ONE, PLAIN);
	client("x\n.");
	hook_replaces("replace-message\n", rows[i].message);
	server("354 go");
	assert_memory_equal(world_server.out, "DATA\r\n", 6);
	memmove(world_server.out, world_server.out + 6, world_server.out_len -= 6);
	server_gets(rows[i].want);
}

static void dots(void **state)
{
	static const char rows[] = { 0, 1, 2, 3, 4, 5 };

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart("a message", sends_with_dots_stuffed, &rows[i]);
}

static void hooks_see_edits(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "first");
	keep_for_hook(ONE, PLAIN);
	client("Subject: x\n\nhello\n.");
	hook_says("remove-header subject\nadd-header X-One: 1\n");
	hook_reads("X-One: 1\r\n\r\nhello\r\n");
	hook_replaces("add-header X-Two: 2\nreplace-message\n", "Message-ID: <n@b.test>\r\n\r\nbye\r\n");
	server_heard();
	server("354 go");
	server_gets("X-Two: 2\nMessage-ID: <n@b.test>\n\nbye\n.");
	server("250 accepted");
	assert_string_equal(member_of("message", "message_id"), "\"<n@b.test>\"");
	assert_string_equal(member_of("message", "size"), "41");
}

static void kept_too_large(void **state)
{
	(void)state;
	keep_for_hook(LIMITED, PLAIN);
	client("this is one line\nand another");
	content_is(SPOILED);
	client(".");
	assert_null(world_hook);
	client_gets(TOO_LARGE);
	server_gets("RSET");
	content_is(NONE);
	stands_at(OPEN, READY);
	recorded("message rejected a@b.test to r@d.test 250: 552 5.3.4 Message is larger than this server takes");
}

static void kept_with_bare_newline(void **state)
{
	(void)state;
	keep_for_hook(ONE "--bare-newline reject", PLAIN);
	client_says("one\ntwo\r\n.\r\n");
	client_gets(BARE);
	server_gets("RSET");
}

static void no_room_to_keep(void **state)
{
	const struct rlimit none = { 3, 3 };

	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_recipient(ONE, PLAIN);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	client("DATA");
	client(MESSAGE);
	client_gets(GO_AHEAD "\n452 4.3.1 No room for a message of this size");
	server_gets("RSET");
	content_is(NONE);
	recorded("message deferred a@b.test to r@d.test 250: 452 4.3.1 No room for a message of this size");
}

/* ---- --max-kept ---- */

#define NO_ROOM "452 4.3.1 No room for this message beside those of other sessions (--max-kept)"
#define SIZED "EHLO c.test", "250-mx.test\n250-SIZE 0\n250 8BITMIME"
#define MIB (1 << 20)

/* The client sends so many octets of a message. */
static void client_sends(size_t octets)
{
	static char line[1000];

	memset(line, 'x', sizeof line);
	memcpy(line + sizeof line - 2, "\r\n", 2);
	for (; octets; octets -= octets < sizeof line ? octets : sizeof line)
		client_bytes(line, octets < sizeof line ? octets : sizeof line);
}

static uint64_t room_taken(void)
{
	uint64_t n;

	assert_true(net_shares("kept", &n));
	return n - world_net.kept_by_others;
}

/* Most messages are small: they take no room, and ask nobody. */
static void small_needs_no_room(void **state)
{
	(void)state;
	world_net.kept_by_others = UINT64_MAX / 2;
	keep_for_hook(ONE "--max-kept 1000000", PLAIN);
	client_sends((256 << 10) - 2);
	assert_int_equal(room_taken(), 0);
	client("\n.");
	assert_non_null(world_hook);
	hook_says("");
	server_gets("DATA");
}

static void room_doubles(void **state)
{
	(void)state;
	keep_for_hook(ONE "--max-kept 20000000", PLAIN);
	client_sends((256 << 10) + 1);
	assert_int_equal(room_taken(), 512 << 10);
	client_sends(256 << 10);
	assert_int_equal(room_taken(), MIB);
	client_sends(4 * MIB);
	assert_int_equal(room_taken(), 8 * MIB);
	client_sends(4 * MIB);
	assert_int_equal(room_taken(), 10240000); /* --message-size-limit: it will not be larger */
}

static void sent_needs_no_room(void **state)
{
	(void)state;
	keep_for_hook(ONE, PLAIN);
	client_sends(MIB);
	client("\n.");
	assert_int_equal(room_taken(), 2 * MIB);
	hook_says("");
	server_gets("DATA");
	server("354 go");
	assert_int_equal(room_taken(), 0);
	content_is(SENT);
}

static void no_room_beside_others(void **state)
{
	(void)state;
	world_net.kept_by_others = 9 * MIB;
	keep_for_hook(ONE "--max-kept 10485760", PLAIN);
	client_sends(MIB);
	content_is(KEEPING);
	assert_int_equal(room_taken(), MIB);
	client_sends(1);
	content_is(SPOILED); /* and what is here of it is forgotten */
	assert_int_equal(room_taken(), 0);
	assert_int_equal(the_session()->tx.message.fd, -1);
	client_sends(3 * MIB);
	client_gets("");
	client("\n.");
	assert_null(world_hook);
	client_gets(NO_ROOM);
	server_gets("RSET");
	server("250 ok");
	content_is(NONE);
	stands_at(OPEN, READY);
	recorded("message deferred a@b.test to r@d.test 250: " NO_ROOM);
	world_net.kept_by_others = 0; /* the same client tries again */
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	client("RCPT TO:<r@d.test>");
	server("250 ok");
	client("DATA");
	client_sends(2 * MIB);
	client("\n.");
	assert_non_null(world_hook);
}

/* The default is 25 % of the memory, here 10,485,750 octets. */
static void never_room_for_it(void **state)
{
	(void)state;
	keep_for_hook(ONE "--message-size-limit 0", PLAIN);
	client_sends(10485750);
	content_is(KEEPING);
	assert_int_equal(room_taken(), 10485750);
	client_sends(1);
	content_is(SPOILED);
	client("\n.");
	client_gets(TOO_LARGE);
	assert_int_equal(room_taken(), 0);
}

static void no_limit_to_keep(void **state)
{
	(void)state;
	world_net.kept_by_others = UINT64_MAX / 2;
	keep_for_hook(ONE "--max-kept 0", PLAIN);
	client_sends(2 * MIB);
	content_is(KEEPING);
	assert_int_equal(room_taken(), 0);
}

/* Mail goes on, and the log says it once. */
static void room_cannot_be_counted(void **state)
{
	(void)state;
	world_net.no_shares = EACCES;
	keep_for_hook(ONE, PLAIN);
	client_sends(4 * MIB);
	content_is(KEEPING);
	recorded("error: kept messages cannot be counted for --max-kept: Permission denied");
	not_recorded("error");
}

static void no_room_for_chunks(void **state)
{
	static char chunk[MIB];

	(void)state;
	hook_is_there(HOOK_DATA, "d");
	world_net.kept_by_others = 10 * MIB;
	to_recipient(ONE, CHUNKS);
	client("BDAT 1000000");
	client_bytes(chunk, 1000000);
	client_gets("250 2.0.0 Go on");
	content_is(SPOILED);
	client("BDAT 1 LAST");
	client_says("x");
	client_gets(NO_ROOM);
	server_gets("RSET");
	content_is(NONE);
}

static void size_finds_no_room(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "d");
	world_net.kept_by_others = 9 * MIB;
	to_hello(ONE "--max-kept 10485760", SIZED);
	client("MAIL FROM:<a@b.test> SIZE=1048577");
	client_gets(NO_ROOM);
	server_gets("");
	client("MAIL FROM:<a@b.test> SIZE=1048576");
	recorded("message deferred a@b.test: " NO_ROOM);
	server_heard();
	server("250 ok");
	client_gets("250 ok");
	assert_int_equal(room_taken(), 0); /* a word takes no room */
}

static void size_never_has_room(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_hello(ONE "--max-kept 5000000", SIZED);
	client("MAIL FROM:<a@b.test> SIZE=5000001");
	client_gets(TOO_LARGE);
}

/* A message that passes through needs none. */
static void size_is_no_matter_without_hooks(void **state)
{
	(void)state;
	world_net.kept_by_others = 10 * MIB;
	to_hello(ONE, SIZED);
	client("MAIL FROM:<a@b.test> SIZE=5000001");
	server_heard();
	server("250 ok");
	client_gets("250 ok");
}

static void room_of_drained_is_free(void **state)
{
	(void)state;
	keep_for_hook(ONE, PLAIN);
	client_sends(2 * MIB);
	assert_int_equal(room_taken(), 2 * MIB);
	server_closes();
	content_is(DRAINING);
	assert_int_equal(room_taken(), 0);
	client("\n.");
	client_gets(LOST);
}

static void server_lost_in_keeping(void **state)
{
	(void)state;
	keep_for_hook(ONE, PLAIN);
	client("hello");
	server_closes();
	content_is(DRAINING);
	client_gets("");
	client(".");
	client_gets(LOST);
	assert_null(world_hook);
	recorded("message deferred a@b.test to r@d.test 250: 451 4.4.2 192.0.2.25: connection closed");
}

static void server_lost_in_spoiled(void **state)
{
	(void)state;
	keep_for_hook(LIMITED, PLAIN);
	client("this is one line\nand another");
	content_is(SPOILED);
	server_closes();
	content_is(DRAINING);
	client(".");
	client_gets(LOST);
}

static void client_lost_in_keeping(void **state)
{
	(void)state;
	keep_for_hook(ONE, PLAIN);
	client("hello");
	client_closes();
	server_gets("QUIT");
	assert_int_equal(world_server.fd, -1);
	recorded("message aborted a@b.test to r@d.test 250");
	ended(FLUSH, "client", "connection closed");
}

static void server_lost_in_hooks(void **state)
{
	(void)state;
	keep_for_hook(ONE, PLAIN);
	client(MESSAGE);
	content_is(WHOLE);
	server_closes();
	assert_null(world_hook);
	client_gets(LOST);
	content_is(NONE);
	stands_at(OPEN, GONE);
	goes_still();
}

static void server_lost_before_354(void **state)
{
	(void)state;
	keep_for_hook(ONE, PLAIN);
	client(MESSAGE);
	hook_says("");
	content_is(ASKED);
	server_closes();
	client_gets(LOST);
	content_is(NONE);
	stands_at(OPEN, GONE);
}

/* ---- sending what was kept ---- */

/* A message that is larger than the server takes at once: it is being sent. */
static void to_sending(void)
{
	static char line[LARGE];

	memset(line, 'x', sizeof line);
	keep_for_hook(ONE, PLAIN);
	client_bytes(line, sizeof line);
	client("\n.");
	hook_says("");
	server_heard();
	server_takes(1000);
	server("354 go");
	stands_at(KEPT, READY);
	content_is(SENDING);
	server_heard();
}

static void sends_as_server_takes(void **state)
{
	(void)state;
	to_sending();
	server_takes(10);
	stands_at(KEPT, READY);
	server_gets("xxxxxxxxxx...");
	server_takes(WORLD_FOREVER);
	assert_int_equal(world_server.out_len, LARGE + 5 - 1010);
	stands_at(OPEN, READY);
	content_is(SENT);
	server("250 accepted");
	client_gets("250 accepted");
}

static void server_lost_in_sending(void **state)
{
	(void)state;
	to_sending();
	server_breaks();
	client_gets("451 4.4.2 192.0.2.25: connection reset");
	content_is(NONE);
	stands_at(OPEN, GONE);
	recorded("message deferred a@b.test to r@d.test 250: 451 4.4.2 192.0.2.25: connection reset");
	goes_still();
}

static void client_lost_in_sending(void **state)
{
	(void)state;
	to_sending();
	client_breaks();
	assert_int_equal(world_server.fd, -1);
	content_is(NONE);
	recorded("message aborted a@b.test to r@d.test 250");
	ended(FLUSH, "client", "connection reset");
}

/* PROTOCOL 66: what it says began before it had the end. */
static void server_speaks_in_sending(void **state)
{
	(void)state;
	to_sending();
	server_bytes("25", 2);
	server_takes(WORLD_FOREVER);
	content_is(SENT_LATE);
	server_bytes("0 accepted\r\n", 12);
	client_gets("");
	recorded("message unknown a@b.test to r@d.test 250");
	ended(SILENT, "upstream", "a message was accepted before all of it was sent");
}

static void server_refuses_in_sending(void **state)
{
	(void)state;
	to_sending();
	server_bytes("5", 1);
	server_takes(WORLD_FOREVER);
	server_bytes("54 spam\r\n", 9);
	client_gets("554 spam");
	recorded("message rejected a@b.test to r@d.test 250: 554 spam");
	stands_at(OPEN, READY);
}

/* ---- chunks that are kept ---- */

static void chunks_are_kept(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_recipient(ONE, CHUNKS);
	client_says("BDAT 4\r\n.\r\na");
	client_gets("250 2.0.0 Go on");
	content_is(KEEPING);
	client_says("BDAT 1 LAST\r\nb");
	hook_reads(".\r\nab");
	server_gets("");
	hook_says("");
	server_gets("BDAT 5 LAST\n.\nab...");
	content_is(SENT);
	client_gets("");
	server("250 accepted");
	client_gets("250 accepted");
	recorded("message accepted a@b.test to r@d.test 250: 250 accepted");
}

/* Chunks that end with one of no octets. */
static void chunk_of_nothing_ends_kept(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_recipient(ONE, CHUNKS);
	client_says("BDAT 2\r\nabBDAT 0 LAST\r\n");
	hook_reads("ab");
	hook_says("");
	server_gets("BDAT 2 LAST\nab...");
}

static void empty_message_in_chunk(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_recipient(ONE, CHUNKS);
	client("BDAT 0 LAST");
	hook_says("");
	server_gets("BDAT 0 LAST");
	server("250 ok");
	client_gets("250 ok");
}

/* The server has heard of no message, but of its sender. */
static void kept_chunk_is_too_large(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_recipient(ONE "--message-size-limit 20", CHUNKS);
	client_bytes("BDAT 10\r\n0123456789", 19);
	client_heard();
	client_bytes("BDAT 11 LAST\r\n0123456789a", 25);
	client_gets("552 5.3.4 Message is larger than this server takes");
	server_gets("RSET");
	content_is(NONE);
}

static void kept_chunk_with_trace(void **state)
{
	char line[40], *trace;

	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_recipient(ONE "--received --client-names none", CHUNKS);
	client_says("BDAT 4 LAST\r\nab\r\n");
	hook_says("");
	trace = memchr(world_server.out, '\n', world_server.out_len);
	assert_non_null(trace);
	snprintf(line, sizeof line, "BDAT %zu LAST\r\n", world_server.out_len - (size_t)(trace + 1 - (char *)world_server.out));
	assert_memory_equal(world_server.out, line, strlen(line));
	assert_memory_equal(trace + 1, "Received: from c.test", 21);
}

static void to_sending_chunk(void)
{
	static char octets[LARGER];

	memset(octets, 'x', sizeof octets);
	hook_is_there(HOOK_DATA, "d");
	to_recipient(ONE, CHUNKS);
	client("BDAT 800000 LAST");
	client_bytes(octets, sizeof octets);
	server_takes(1000);
	hook_says("");
	stands_at(KEPT, READY);
	content_is(SENDING_CHUNK);
	server_heard();
}

static void server_lost_in_sending_chunk(void **state)
{
	(void)state;
	to_sending_chunk();
	server_breaks();
	client_gets("451 4.4.2 192.0.2.25: connection reset");
	content_is(NONE);
	recorded("message deferred a@b.test to r@d.test 250: 451 4.4.2 192.0.2.25: connection reset");
	goes_still();
}

static void client_lost_in_sending_chunk(void **state)
{
	(void)state;
	to_sending_chunk();
	client_breaks();
	content_is(NONE);
	recorded("message aborted a@b.test to r@d.test 250");
	ended(FLUSH, "client", "connection reset");
}

/* Its reply waits until the chunk was sent; then no 2xx can be true. */
static void server_accepts_in_sending_chunk(void **state)
{
	(void)state;
	to_sending_chunk();
	server("250 accepted");
	content_is(SENDING_CHUNK);
	server_takes(WORLD_FOREVER);
	client_gets("");
	recorded("message unknown a@b.test to r@d.test 250");
	ended(SILENT, "upstream", "a message was accepted before all of it was sent");
}

static void server_refuses_in_sending_chunk(void **state)
{
	(void)state;
	to_sending_chunk();
	server("552 too large");
	client_gets("");
	server_takes(WORLD_FOREVER);
	client_gets("552 too large");
	stands_at(OPEN, READY);
	recorded("message rejected a@b.test to r@d.test 250: 552 too large");
}

static void server_refuses_in_sending_chunk_and_closes(void **state)
{
	(void)state;
	to_sending_chunk();
	world_says(&world_server, "552 too large\r\n", 15);
	server_closes();
	client_gets("552 too large");
	stands_at(OPEN, GONE);
	recorded("message rejected a@b.test to r@d.test 250: 552 too large");
	goes_still();
}

/* ---- --connect-on recipient: for a server that was not known when the client was greeted ---- */

/* PROTOCOL 47. */
static void chunks_become_data(void **state)
{
	(void)state;
	to_late_recipient(LATE, PLAIN);
	client_says("BDAT 5\r\n.a\r\nbBDAT 2 LAST\r\n\r\n");
	client_gets("250 2.0.0 Go on");
	server_gets("DATA");
	server("354 go");
	server_gets("..a\nb\n.");
	server("250 accepted");
	client_gets("250 accepted");
}

static void empty_chunk_becomes_data(void **state)
{
	(void)state;
	to_late_recipient(LATE, PLAIN);
	client("BDAT 0 LAST");
	server_gets("DATA");
	server("354 go");
	server_gets(".");
}

static void chunks_pass_late(void **state)
{
	(void)state;
	to_late_recipient(LATE, CHUNKS);
	client_says("BDAT 4 LAST\r\n.a\r\n");
	server_gets("BDAT 4 LAST\n.a");
	server("250 accepted");
	client_gets("250 accepted");
}

static void chunks_with_bare_newline(void **state)
{
	const char *const *row = *state;

	to_late_recipient(LATE, PLAIN);
	client_says(row[0]);
	client_gets("554 5.6.1 The recipient's server cannot be sent a bare carriage return or line feed");
	server_gets("RSET");
	recorded("message rejected a@b.test to r@d.test 250: 554 5.6.1 The recipient's server cannot be sent a bare carriage return or "
		 "line feed");
}

static void bare_newlines_in_chunks(void **state)
{
	static const char *const rows[][1] = {
		{ "BDAT 3 LAST\r\na\nb" }, { "BDAT 3 LAST\r\na\rb" }, { "BDAT 2 LAST\r\na\r" }, { "BDAT 2 LAST\r\na\n" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], chunks_with_bare_newline, rows[i]);
}

/* PROTOCOL 43. */
static void eight_bits_in_passing(void **state)
{
	(void)state;
	to_late_recipient(LATE, PLAIN);
	client("DATA");
	server("354 go");
	nothing_said_yet();
	client("seven");
	server_gets("seven");
	client("\xc3\xa4");
	content_is(DRAINING);
	stands_at(OPEN, NONE);
	client(".");
	client_gets("554 5.6.3 The recipient's server does not know 8BITMIME");
	recorded("message rejected a@b.test to r@d.test 250: 554 5.6.3 The recipient's server does not know 8BITMIME");
	goes_still();
}

static void eight_bits_in_kept(void **state)
{
	(void)state;
	to_late_recipient(LATE, PLAIN);
	client_says("BDAT 2 LAST\r\n\xc3\xa4");
	client_gets("554 5.6.3 The recipient's server does not know 8BITMIME");
	server_gets("RSET");
}

/* The connection is closed over them: the reply to the chunk before must have come. */
static void eight_bits_in_a_chunk_behind_another(void **state)
{
	(void)state;
	session_begins("--tls-on recipient --tls none");
	server_connects();
	server("220 mx.test ESMTP");
	client("EHLO c.test");
	server("250-mx.test\n250-PIPELINING\n250 CHUNKING");
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	server("250 ok");
	server("250 ok");
	nothing_said_yet();
	client_says("BDAT 1\r\naBDAT 2 LAST\r\n\xc3\xa4");
	server_heard();
	server("250 chunk");
	client_gets("250 chunk\n554 5.6.3 The recipient's server does not know 8BITMIME");
}

static void eight_bits_are_known(void **state)
{
	(void)state;
	to_late_recipient(LATE, "250-mx.test\n250 8BITMIME");
	client("DATA");
	server("354 go");
	server_heard();
	client("\xc3\xa4\n.");
	server_gets("\xc3\xa4\n.");
}

/* The connection was closed to spoil the message: the next one gets another. */
static void next_message_after_drain(void **state)
{
	(void)state;
	to_late_recipient(LATE, PLAIN);
	client("DATA");
	server("354 go");
	server_closes();
	client("hello\n.");
	client_heard();
	client("MAIL FROM:<b@b.test>\nRCPT TO:<r@d.test>");
	client_gets("250 2.1.0 Ok");
	server_is_dialled("192.0.2.25:25", 2);
}

/* ---- LMTP: a reply for each recipient, RFC 2033 4.2 ---- */

static void lmtp_passes(void **state)
{
	(void)state;
	to_lmtp_recipients(LMTP, PIPES);
	client("DATA");
	server("354 go");
	client(MESSAGE);
	client_heard();
	server("250 for r");
	client_gets("250 for r");
	content_is(SENT);
	server("452 full");
	client_gets("452 full");
	content_is(NONE);
	recorded("message accepted a@b.test to r@d.test 250, no@d.test 550, s@d.test 452: 250 for r");
}

static void lmtp_is_drained(void **state)
{
	(void)state;
	to_lmtp_recipients(LMTP, PIPES);
	client("DATA");
	server("354 go");
	server_closes();
	client_heard();
	client(MESSAGE);
	client_gets(LOST "\n" LOST);
}

/* A chunk that is not the last has one reply. */
static void lmtp_chunk_is_drained(void **state)
{
	(void)state;
	to_lmtp_recipients(LMTP, CHUNKS);
	client_says("BDAT 5\r\nab");
	server_closes();
	client_says("cde");
	client_gets(LOST);
}

static void lmtp_last_chunk_is_drained(void **state)
{
	(void)state;
	to_lmtp_recipients(LMTP, CHUNKS);
	client_says("BDAT 5 LAST\r\nab");
	server_closes();
	client_says("cde");
	client_gets(LOST "\n" LOST);
}

static void lmtp_kept_too_large(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_lmtp_recipients(LMTP "--message-size-limit 20", PIPES);
	client("DATA\nthis is one line\nand another\n.");
	client_gets(GO_AHEAD "\n" TOO_LARGE "\n" TOO_LARGE);
}

static void lmtp_kept_is_refused(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_lmtp_recipients(LMTP, PIPES);
	client("DATA\n" MESSAGE);
	hook_says("");
	client_heard();
	server("451 not now");
	client_gets("451 not now\n451 not now");
}

static void lmtp_is_discarded(void **state)
{
	(void)state;
	hook_is_there(HOOK_DATA, "d");
	to_lmtp_recipients(LMTP, PIPES);
	client("DATA\n" MESSAGE);
	client_heard();
	hook_says("discard\n");
	client_gets("250 2.0.0 Ok\n250 2.0.0 Ok");
	server_gets("RSET");
}

static void lmtp_chunk_is_too_large(void **state)
{
	(void)state;
	to_lmtp_recipients(LMTP "--message-size-limit 20", CHUNKS);
	client_says("BDAT 21 LAST\r\n0123456789abcdefghijk");
	client_gets(TOO_LARGE "\n" TOO_LARGE);
	server_gets("RSET");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(passes_as_it_is), cmocka_unit_test(passes_octet_by_octet), cmocka_unit_test(passes_nothing),
		cmocka_unit_test(passes_as_server_takes), cmocka_unit_test(passes_trace), cmocka_unit_test(traces),
		cmocka_unit_test(trace_and_bare_newline), cmocka_unit_test(traces_in_chunks),
		cmocka_unit_test(kept_chunk_below_separator), cmocka_unit_test(trace_after_reset), cmocka_unit_test(too_large_in_passing),
		cmocka_unit_test(bare_newline_in_passing), cmocka_unit_test(bare_newline_is_normalized),
		cmocka_unit_test(server_lost_in_passing), cmocka_unit_test(client_lost_in_passing),
		cmocka_unit_test(client_lost_in_draining), cmocka_unit_test(server_lost_before_end),
		cmocka_unit_test(server_lost_before_end_late), cmocka_unit_test(server_lost_after_end),
		cmocka_unit_test(chunks_pass), cmocka_unit_test(chunk_of_nothing_ends_message),
		cmocka_unit_test(chunk_is_answered_early), cmocka_unit_test(chunk_is_refused), cmocka_unit_test(chunk_is_refused_for_each),
		cmocka_unit_test(chunk_before_recipient), cmocka_unit_test(chunk_is_too_large),
		cmocka_unit_test(server_lost_in_chunk), cmocka_unit_test(server_refuses_chunk_and_closes),
		cmocka_unit_test(reset_before_chunk), cmocka_unit_test(reset_before_chunk_answered_early),
		cmocka_unit_test(reset_before_chunk_and_lost), cmocka_unit_test(keeps_and_sends), cmocka_unit_test(dots),
		cmocka_unit_test(hooks_see_edits), cmocka_unit_test(kept_too_large), cmocka_unit_test(kept_with_bare_newline),
		cmocka_unit_test(no_room_to_keep), cmocka_unit_test(server_lost_in_keeping),
		cmocka_unit_test(server_lost_in_spoiled), cmocka_unit_test(client_lost_in_keeping),
		cmocka_unit_test(server_lost_in_hooks), cmocka_unit_test(server_lost_before_354),
		cmocka_unit_test(sends_as_server_takes), cmocka_unit_test(server_lost_in_sending),
		cmocka_unit_test(client_lost_in_sending), cmocka_unit_test(server_speaks_in_sending),
		cmocka_unit_test(server_refuses_in_sending), cmocka_unit_test(chunks_are_kept),
		cmocka_unit_test(chunk_of_nothing_ends_kept), cmocka_unit_test(kept_chunk_with_trace),
		cmocka_unit_test(server_lost_in_sending_chunk), cmocka_unit_test(client_lost_in_sending_chunk),
		cmocka_unit_test(server_accepts_in_sending_chunk), cmocka_unit_test(server_refuses_in_sending_chunk),
		cmocka_unit_test(server_refuses_in_sending_chunk_and_closes), cmocka_unit_test(chunks_become_data),
		cmocka_unit_test(chunks_pass_late), cmocka_unit_test(bare_newlines_in_chunks),
		cmocka_unit_test(eight_bits_in_passing), cmocka_unit_test(eight_bits_in_kept),
		cmocka_unit_test(eight_bits_in_a_chunk_behind_another),
		cmocka_unit_test(eight_bits_are_known), cmocka_unit_test(next_message_after_drain),
		cmocka_unit_test(lmtp_passes), cmocka_unit_test(lmtp_is_drained), cmocka_unit_test(lmtp_chunk_is_drained),
		cmocka_unit_test(lmtp_last_chunk_is_drained), cmocka_unit_test(lmtp_kept_too_large),
		cmocka_unit_test(lmtp_kept_is_refused), cmocka_unit_test(lmtp_is_discarded),
		cmocka_unit_test(small_needs_no_room),
		cmocka_unit_test(room_doubles),
		cmocka_unit_test(sent_needs_no_room),
		cmocka_unit_test(no_room_beside_others),
		cmocka_unit_test(never_room_for_it),
		cmocka_unit_test(no_limit_to_keep),
		cmocka_unit_test(room_cannot_be_counted),
		cmocka_unit_test(no_room_for_chunks),
		cmocka_unit_test(size_finds_no_room),
		cmocka_unit_test(size_never_has_room),
		cmocka_unit_test(size_is_no_matter_without_hooks),
		cmocka_unit_test(room_of_drained_is_free),
		cmocka_unit_test(lmtp_chunk_is_too_large),
		cmocka_unit_test(empty_message_in_chunk), cmocka_unit_test(kept_chunk_is_too_large),
		cmocka_unit_test(empty_chunk_becomes_data),
		cmocka_unit_test(server_lost_in_second_chunk),
	};

	return run_session_tests(tests);
}
