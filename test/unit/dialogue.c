/* Unit tests of dialogue.c: scripts of what client and server say, each run with every step whole, byte by byte and cut
 * in two at every place, and always the same record of what happens wanted. Inputs end at a PROT_NONE page.
 *
 * The record: >VERB sent on; !code refused; =code that reply in its turn; * an answer to 334; <code reply of the
 * server; "bytes" of a message, a dot after them: the final dot; rcode of each recipient when the transaction ends;
 * #violation. */
#include "test/lib/unit.h"

#define CHECK(condition) assert_true(condition)
#include "test/lib/minimal_session.h"

static struct text got;
static struct minimal_session model;
static bool in_message;

static const struct dialogue_limits usual = {
	.message_size = 1000,
	.recipients = 3,
	.pipeline = 8,
	.command_line = 512,
	.newline = SMTP_NL_NORMALIZE,
};

static void close_message(void)
{
	if (in_message)
		say(&got, "\"");
	in_message = false;
}

static void note_message(const unsigned char *bytes, size_t n)
{
	if (!in_message)
		say(&got, " \"");
	in_message = true;
	say_bytes(&got, bytes, n);
}

static void note(const char *event, const unsigned char *bytes, size_t n)
{
	static const struct {
		const char *event, *mark;
		bool shown;
	} marks[] = { { "send", ">", true }, { "refuse", "!", true }, { "local", "=", true }, { "answer", "*", false },
		{ "reply", "<", true }, { "rcpt", "r", true }, { "violation", "#", true } };

	if (strcmp(event, "piece") == 0) {
		note_message(bytes, n);
		return;
	}
	close_message();
	if (strcmp(event, "dot") == 0)
		say(&got, ".");
	for (size_t i = 0; i < COUNT(marks); i++)
		if (strcmp(event, marks[i].event) == 0)
			say(&got, " %s%.*s", marks[i].mark, marks[i].shown ? (int)n : 0, bytes);
}

/* ---- scripts ---- */

enum who { END, CLIENT, SERVER };

struct step {
	enum who who;
	struct input in;
};

#define C(s) { CLIENT, IN(s) }
#define S(s) { SERVER, IN(s) }
#define STEPS_MAX 16

struct script {
	const char *name;
	const char *ehlo; /* what the server answers to EHLO; NULL: the script begins before the greeting */
	struct step steps[STEPS_MAX];
	const char *want;
};

struct stream {
	size_t len;
	unsigned char bytes[1 << 16];
};

static struct stream from_client, from_server;

static void drop(struct stream *s, size_t n)
{
	assert_true(n <= s->len);
	s->len -= n;
	memmove(s->bytes, s->bytes + n, s->len);
}

static size_t say_to_both(void)
{
	size_t client = minimal_client(&model, guarded(from_client.bytes, from_client.len), from_client.len), server;

	drop(&from_client, client);
	server = minimal_server(&model, guarded(from_server.bytes, from_server.len), from_server.len);
	drop(&from_server, server);
	return client + server;
}

static void arrive(enum who who, const char *bytes, size_t n)
{
	struct stream *s = who == CLIENT ? &from_client : &from_server;

	assert_true(n <= sizeof s->bytes - s->len);
	memcpy(s->bytes + s->len, bytes, n);
	s->len += n;
	while (say_to_both())
		;
}

/* way as in offer(). */
static void play_step(const struct step *step, size_t way)
{
	size_t n = step->in.len, cut = way == 0 ? n : way == n ? 1 : way;

	arrive(step->who, step->in.bytes, cut);
	for (size_t at = cut; at < n; at += way == n ? 1 : n - cut)
		arrive(step->who, step->in.bytes + at, way == n ? 1 : n - cut);
}

#define RICH "250-mx\r\n250-PIPELINING\r\n250-SIZE 5000\r\n250-CHUNKING\r\n250 AUTH PLAIN LOGIN\r\n"
#define POOR "250 mx\r\n"
#define OPEN "MAIL FROM:<a@b>\r\n"
#define RCPT "RCPT TO:<c@d>\r\n"

/* Who speaks LMTP. */
static bool server_lmtp, client_lmtp;

static void begin(const struct dialogue_limits *limits, const char *ehlo)
{
	static const struct step greeting = S("220 mx\r\n"), hello[] = { C("EHLO c\r\n"), C("LHLO c\r\n") };

	from_client.len = from_server.len = 0;
	clear(&got);
	in_message = false;
	minimal_init(&model, limits, note);
	model.d.offer.auth = true;
	model.d.lmtp = server_lmtp;
	if (!ehlo)
		return;
	play_step(&greeting, 0);
	play_step(&hello[client_lmtp], 0);
	arrive(SERVER, ehlo, strlen(ehlo));
	assert_true(model.d.greeted && !model.over);
	clear(&got);
}

/* Play with step number `which` cut in that way; COUNT of steps or more: all of them. */
static void play(const struct script *script, size_t which, size_t way)
{
	begin(&usual, script->ehlo);
	for (size_t i = 0; i < STEPS_MAX && script->steps[i].who != END; i++)
		play_step(&script->steps[i], which >= STEPS_MAX ? script->steps[i].in.len : i == which ? way : 0);
	close_message();
	expect_text(script->name, got.bytes, script->want);
}

static void play_all(const struct script *scripts, size_t n)
{
	for (size_t k = 0; k < n; k++) {
		play(&scripts[k], 0, 0);
		play(&scripts[k], STEPS_MAX, 0);
		for (size_t i = 0; i < STEPS_MAX && scripts[k].steps[i].who != END; i++)
			for (size_t way = 1; way <= scripts[k].steps[i].in.len; way++)
				play(&scripts[k], i, way);
	}
}

static void test_34_35_38_pipelining(void **state)
{
	static const struct script scripts[] = {
		{ "a group goes at once, replies in order", RICH,
		    { C(OPEN RCPT RCPT "DATA\r\n"), S("250 a\r\n250 b\r\n550 c\r\n354 d\r\n"), C("x\r\n.\r\n"),
			S("250 ok\r\n") },
		    " >MAIL >RCPT >RCPT >DATA <250 <250 <550 <354 \"x\\r\\n.\\r\\n\". <250 r250 r550" },
		{ "DATA holds what follows back", RICH,
		    { C(OPEN RCPT "DATA\r\nRSET\r\n"), S("250 a\r\n250 b\r\n"), S("451 c\r\n"), S("250 d\r\n") },
		    " >MAIL >RCPT >DATA <250 <250 <451 >RSET <250 r250" },
		{ "MAIL waits for all before it", RICH,
		    { C("RSET\r\n" OPEN RCPT), S("250 a\r\n"), S("250 b\r\n250 c\r\n") },
		    " >RSET <250 >MAIL >RCPT <250 <250" },
		{ "EHLO ends a group and waits", RICH,
		    { C("RSET\r\nEHLO c\r\nNOOP\r\n"), S("250 a\r\n"), S("250 b\r\n") },
		    " >RSET <250 >EHLO <250 >NOOP" },
		{ "STARTTLS waits", RICH, { C("RSET\r\nSTARTTLS\r\n"), S("250 a\r\n") }, " >RSET <250 !502 =502" },
		{ "QUIT ends a group", RICH, { C("RSET\r\nQUIT\r\nNOOP\r\n"), S("250 a\r\n"), S("221 b\r\n") },
		    " >RSET >QUIT <250 <221 >NOOP" },
		{ "one at a time without PIPELINING", POOR,
		    { C(OPEN RCPT RCPT), S("250 a\r\n"), S("250 b\r\n"), S("550 c\r\n") },
		    " >MAIL <250 >RCPT <250 >RCPT <550" },
		{ "local replies in their turn", RICH,
		    { C(OPEN RCPT "XCLIENT\r\n" RCPT "FROB\r\n"), S("250 a\r\n"), S("250 b\r\n"), S("250 c\r\n") },
		    " >MAIL >RCPT !502 >RCPT !500 <250 <250 =502 <250 =500" },
		{ "local replies without any other", RICH, { C("FROB\r\nDATA\r\n") }, " !500 =500 !503 =503" },
		{ "local reply, nothing else, without PIPELINING", POOR, { C(OPEN "FROB\r\n"), S("250 a\r\n") },
		    " >MAIL <250 !500 =500" },
		{ "no more than --max-pipeline", RICH,
		    { C(OPEN), S("250 a\r\n"),
			C("RSET\r\nRSET\r\nRSET\r\nRSET\r\nRSET\r\nRSET\r\nRSET\r\nRSET\r\nRSET\r\n"),
			S("250 b\r\n") },
		    " >MAIL <250 >RSET >RSET >RSET >RSET >RSET >RSET >RSET >RSET <250 >RSET" },
		{ "a multi-line reply belongs to one command", RICH,
		    { C(OPEN RCPT), S("250-a\r\n250-\r\n250 c\r\n550-d\r\n550\r\n") }, " >MAIL >RCPT <250 <550" },
		{ "commands behind the dot wait for its reply", RICH,
		    { C(OPEN RCPT "DATA\r\n"), S("250 a\r\n250 b\r\n354 c\r\n"), C("x\r\n.\r\nQUIT\r\n"),
			S("250 d\r\n"), S("221 e\r\n") },
		    " >MAIL >RCPT >DATA <250 <250 <354 \"x\\r\\n.\\r\\n\". <250 r250 >QUIT <221" },
	};

	(void)state;
	play_all(scripts, COUNT(scripts));
}

static void test_18_25_28_order(void **state)
{
	static const struct script scripts[] = {
		{ "before EHLO", NULL,
		    { S("220 mx\r\n"), C(OPEN RCPT "DATA\r\nAUTH PLAIN x\r\nVRFY x\r\nNOOP\r\nRSET\r\nSTARTTLS\r\n") },
		    " <220 !503 =503 !503 =503 !503 =503 !503 =503 !252 =252 !250 =250 !250 =250 !502 =502" },
		{ "nothing before the greeting", NULL, { C("EHLO c\r\n"), S("220 mx\r\n"), S("250 mx\r\n") },
		    " <220 >EHLO <250" },
		{ "QUIT at once", NULL, { S("220 mx\r\n"), C("QUIT\r\n"), S("221 bye\r\n") }, " <220 >QUIT <221" },
		{ "greeting of 554", NULL, { S("554-no\r\n554 no\r\n"), C("QUIT\r\n") }, " <554 >QUIT" },
		{ "MAIL twice", RICH, { C(OPEN), S("250 a\r\n"), C(OPEN) }, " >MAIL <250 !503 =503" },
		{ "MAIL again after it was refused", RICH, { C(OPEN), S("550 a\r\n"), C(OPEN), S("250 b\r\n") },
		    " >MAIL <550 >MAIL <250" },
		{ "RCPT and DATA without MAIL", RICH, { C(RCPT "DATA\r\n") }, " !503 =503 !503 =503" },
		{ "DATA without RCPT", RICH, { C(OPEN "DATA\r\n"), S("250 a\r\n") }, " >MAIL !503 <250 =503" },
		{ "DATA when all were refused", RICH, { C(OPEN RCPT), S("250 a\r\n550 b\r\n"), C("DATA\r\n") },
		    " >MAIL >RCPT <250 <550 !554 =554" },
		{ "RCPT after MAIL was refused", RICH, { C(OPEN), S("550 a\r\n"), C(RCPT) },
		    " >MAIL <550 !503 =503" },
		{ "EHLO ends a transaction", RICH, { C(OPEN), S("250 a\r\n"), C("EHLO c\r\n"), S(RICH), C(RCPT) },
		    " >MAIL <250 >EHLO <250 !503 =503" },
		{ "refused EHLO does not", RICH, { C(OPEN), S("250 a\r\n"), C("EHLO c\r\n"), S("501 x\r\n"), C(RCPT) },
		    " >MAIL <250 >EHLO <501 >RCPT" },
		{ "RSET ends a transaction", RICH,
		    { C(OPEN RCPT), S("250 a\r\n250 b\r\n"), C("RSET\r\n"), S("250 c\r\n"), C("DATA\r\n" OPEN) },
		    " >MAIL >RCPT <250 <250 >RSET <250 r250 !503 =503 >MAIL" },
		{ "two messages", RICH,
		    { C(OPEN RCPT RCPT "DATA\r\n"), S("250 a\r\n250 b\r\n450 c\r\n354 d\r\n"), C("x\r\n.\r\n"),
			S("250 e\r\n"), C(OPEN RCPT "DATA\r\n"), S("250 f\r\n251 g\r\n354 h\r\n"), C(".\r\n"),
			S("550 i\r\n") },
		    " >MAIL >RCPT >RCPT >DATA <250 <250 <450 <354 \"x\\r\\n.\\r\\n\". <250 r250 r450"
		    " >MAIL >RCPT >DATA <250 <251 <354 \".\\r\\n\". <550 r251" },
		{ "XCLIENT, XFORWARD", RICH, { C("XCLIENT A=b\r\nXFORWARD A=b\r\n") }, " !502 =502 !502 =502" },
	};

	(void)state;
	play_all(scripts, COUNT(scripts));
}

static void test_13_19_data(void **state)
{
	static const struct script scripts[] = {
		{ "refused DATA leaves commands", RICH,
		    { C(OPEN RCPT "DATA\r\n"), S("250 a\r\n250 b\r\n554 c\r\n"), C("NOOP\r\n"), S("250 d\r\n") },
		    " >MAIL >RCPT >DATA <250 <250 <554 >NOOP <250" },
		{ "250 to DATA", RICH, { C(OPEN RCPT "DATA\r\n"), S("250 a\r\n250 b\r\n250 c\r\n") },
		    " >MAIL >RCPT >DATA <250 <250 #a reply that does not fit the command" },
		{ "354 to RCPT", RICH, { C(OPEN RCPT), S("250 a\r\n354 b\r\n") },
		    " >MAIL >RCPT <250 #a reply that does not fit the command" },
		{ "all refused, yet 354: a lone dot goes", RICH,
		    { C(OPEN RCPT "DATA\r\n"), S("250 a\r\n550 b\r\n354 c\r\n"), S("554 d\r\n"), C("NOOP\r\n") },
		    " >MAIL >RCPT >DATA <250 <550 <354 <554 r550 >NOOP" },
		{ "354 of several lines", RICH,
		    { C(OPEN RCPT "DATA\r\n"), S("250 a\r\n250 b\r\n354-c\r\n354 d\r\n"), C(".\r\n"), S("250 e\r\n") },
		    " >MAIL >RCPT >DATA <250 <250 <354 \".\\r\\n\". <250 r250" },
		{ "a body full of commands changes nothing: PROTOCOL 77", RICH,
		    { C(OPEN RCPT "DATA\r\n"), S("250 a\r\n250 b\r\n354 c\r\n"),
			C("MAIL FROM:<x@y>\r\nRCPT TO:<x@y>\n.\nQUIT\r\n.\r\n"), S("250 d\r\n") },
		    " >MAIL >RCPT >DATA <250 <250 <354"
		    " \"MAIL FROM:<x@y>\\r\\nRCPT TO:<x@y>\\r\\n..\\r\\nQUIT\\r\\n.\\r\\n\". <250 r250" },
	};

	(void)state;
	play_all(scripts, COUNT(scripts));
	assert_string_equal((play(&scripts[3], 0, 0), model.lone_dot ? "lone dot" : ""), "lone dot");
}

static void test_45_46_bdat(void **state)
{
	static const struct script scripts[] = {
		{ "two chunks", RICH,
		    { C(OPEN RCPT "BDAT 5\r\na\n.\r\nBDAT 3 LAST\r\nQUIQUIT\r\n"),
			S("250 a\r\n250 b\r\n250 c\r\n250 d\r\n"), S("221 e\r\n") },
		    " >MAIL >RCPT >BDAT \"a\\n.\\r\\n\" >BDAT \"QUI\" <250 <250 <250 <250 r250 >QUIT <221" },
		{ "BDAT 0 LAST", RICH,
		    { C(OPEN RCPT "BDAT 2\r\nabBDAT 0 LAST\r\n"), S("250 a\r\n250 b\r\n250 c\r\n250 d\r\n") },
		    " >MAIL >RCPT >BDAT \"ab\" >BDAT \"\" <250 <250 <250 <250 r250" },
		{ "BDAT 0", RICH,
		    { C(OPEN RCPT "BDAT 0\r\nBDAT 1 LAST\r\nx"), S("250 a\r\n250 b\r\n250 c\r\n250 d\r\n") },
		    " >MAIL >RCPT >BDAT \"\" >BDAT \"x\" <250 <250 <250 <250 r250" },
		{ "refused by the server: the octets go all the same", RICH,
		    { C(OPEN RCPT "BDAT 3\r\nabcRSET\r\n"), S("250 a\r\n250 b\r\n554 c\r\n"), S("250 d\r\n") },
		    " >MAIL >RCPT >BDAT \"abc\" >RSET <250 <250 <554 <250 r250" },
		{ "refused here: the octets are swallowed, the next command is not", RICH,
		    { C("BDAT 6\r\nQUIT\r\nFROB\r\n") }, " !503 =503 !500 =500" },
		{ "refused here, no octets", RICH, { C("BDAT 0 LAST\r\nFROB\r\n") }, " !503 =503 !500 =500" },
		{ "not offered", POOR, { C(OPEN), S("250 a\r\n"), C(RCPT), S("250 b\r\n"), C("BDAT 4 LAST\r\nabcd") },
		    " >MAIL <250 >RCPT <250 !502 =502" },
		{ "no DATA, RCPT or MAIL after BDAT", RICH,
		    { C(OPEN RCPT), S("250 a\r\n250 b\r\n"), C("BDAT 1\r\nx"), S("250 c\r\n"),
			C("DATA\r\n" RCPT OPEN) },
		    " >MAIL >RCPT <250 <250 >BDAT \"x\" <250 !503 =503 !503 =503 !503 =503" },
		{ "RSET between chunks", RICH,
		    { C(OPEN RCPT), S("250 a\r\n250 b\r\n"), C("BDAT 1\r\nxRSET\r\n"), S("250 c\r\n250 d\r\n"),
			C(OPEN RCPT "DATA\r\n") },
		    " >MAIL >RCPT <250 <250 >BDAT \"x\" >RSET <250 <250 r250 >MAIL >RCPT >DATA" },
		{ "only BDAT for BINARYMIME", RICH,
		    { C("MAIL FROM:<a@b> BODY=BINARYMIME\r\n" RCPT "DATA\r\n"), S("250 a\r\n250 b\r\n") },
		    " >MAIL >RCPT !503 <250 <250 =503" },
		{ "unreadable size", RICH, { C(OPEN RCPT "BDAT x\r\nabc\r\n"), S("250 a\r\n250 b\r\n") },
		    " >MAIL >RCPT !501 <250 <250 =501" },
		{ "larger than the limit: PROTOCOL 42", RICH,
		    { C(OPEN RCPT), S("250 a\r\n250 b\r\n"), C("BDAT 1001 LAST\r\n") },
		    " >MAIL >RCPT <250 <250 !552 =552" },
		{ "the sum of sizes larger than the limit", RICH,
		    { C(OPEN RCPT), S("250 a\r\n250 b\r\n"), C("BDAT 3\r\nabc"), S("250 c\r\n"),
			C("BDAT 998 LAST\r\n") },
		    " >MAIL >RCPT <250 <250 >BDAT \"abc\" <250 !552 =552" },
		{ "largest size", RICH,
		    { C(OPEN RCPT), S("250 a\r\n250 b\r\n"), C("BDAT 3\r\nabc"), S("250 c\r\n"),
			C("BDAT 9999999999999999999 LAST\r\n") },
		    " >MAIL >RCPT <250 <250 >BDAT \"abc\" <250 !552 =552" },
	};

	(void)state;
	play_all(scripts, COUNT(scripts));
}

static void test_49_auth(void **state)
{
	static const struct script scripts[] = {
		{ "initial response", RICH, { C("AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n" OPEN), S("235 ok\r\n") },
		    " >AUTH <235 >MAIL" },
		{ "answers to 334", RICH,
		    { C("AUTH LOGIN\r\n"), S("334 VXNlcm5hbWU6\r\n"), C("am9l\r\n"), S("334 UGFzc3dvcmQ6\r\n"),
			C("c2VjcmV0\r\n"), S("235 ok\r\n"), C("AUTH LOGIN\r\n") },
		    " >AUTH <334 * <334 * <235 !503 =503" },
		{ "cancelled", RICH, { C("AUTH LOGIN\r\n"), S("334 x\r\n"), C("*\r\n"), S("501 x\r\n"), C("NOOP\r\n") },
		    " >AUTH <334 * <501 >NOOP" },
		{ "failed, once more", RICH, { C("AUTH PLAIN x\r\n"), S("535 x\r\n"), C("AUTH PLAIN y\r\n") },
		    " >AUTH <535 >AUTH" },
		{ "answers that read like commands", RICH,
		    { C("AUTH LOGIN\r\n"), S("334 x\r\n"), C("QUIT\r\n"), S("334 x\r\n"), C("MAIL FROM:a@b\r\n"),
			S("334 x\r\n"), C("BDAT\r\n"), S("535 x\r\n"), C("NOOP\r\n") },
		    " >AUTH <334 * <334 * <334 * <535 >NOOP" },
		{ "what follows waits", RICH, { C("AUTH LOGIN\r\nam9l\r\n"), S("334 x\r\n"), S("535 x\r\n") },
		    " >AUTH <334 * <535" },
		{ "empty answer", RICH, { C("AUTH LOGIN\r\n"), S("334 \r\n"), C("\r\n"), S("535 x\r\n") },
		    " >AUTH <334 * <535" },
		{ "334 to the wrong command", RICH, { C("NOOP\r\n"), S("334 x\r\n") },
		    " >NOOP #a reply that does not fit the command" },
		{ "354 to AUTH", RICH, { C("AUTH PLAIN x\r\n"), S("354 x\r\n") },
		    " >AUTH #a reply that does not fit the command" },
		{ "not offered", POOR, { C("AUTH PLAIN x\r\n") }, " !502 =502" },
		{ "not during a message", RICH, { C(OPEN), S("250 a\r\n"), C("AUTH PLAIN x\r\n") },
		    " >MAIL <250 !503 =503" },
	};

	(void)state;
	play_all(scripts, COUNT(scripts));
	begin(&usual, RICH);
	model.d.offer.auth = false;
	arrive(CLIENT, "AUTH PLAIN x\r\n", 14);
	expect_text("plain connection", got.bytes, " !538 =538");
}

static void test_49_user_but_never_the_password(void **state)
{
	static const struct {
		const char *name;
		struct step steps[STEPS_MAX];
		const char *user;
	} rows[] = {
		{ "plain", { C("AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n"), S("235 ok\r\n") }, "joe" },
		{ "plain after 334",
		    { C("AUTH PLAIN\r\n"), S("334 \r\n"), C("AGpvZQBzZWNyZXQ=\r\n"), S("235 ok\r\n") }, "joe" },
		{ "plain after =",
		    { C("AUTH PLAIN =\r\n"), S("334 \r\n"), C("AGpvZQBzZWNyZXQ=\r\n"), S("235 ok\r\n") }, "joe" },
		{ "plain after a tab", { C("AUTH PLAIN\tAGpvZQBzZWNyZXQ=\r\n"), S("235 ok\r\n") }, "joe" },
		{ "plain after two blanks", { C("AUTH PLAIN  AGpvZQBzZWNyZXQ=\r\n"), S("235 ok\r\n") }, "joe" },
		{ "login",
		    { C("AUTH LOGIN\r\n"), S("334 x\r\n"), C("am9l\r\n"), S("334 x\r\n"), C("c2VjcmV0\r\n"),
			S("235 ok\r\n") },
		    "joe" },
		{ "login with initial response",
		    { C("AUTH LOGIN am9l\r\n"), S("334 x\r\n"), C("c2VjcmV0\r\n"), S("235 ok\r\n") }, "joe" },
		{ "cram-md5",
		    { C("AUTH CRAM-MD5\r\n"), S("334 x\r\n"), C("am9lIGFiY2Q=\r\n"), S("235 ok\r\n") }, "joe" },
		{ "failed", { C("AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n"), S("535 no\r\n") }, "" },
		{ "cancelled",
		    { C("AUTH LOGIN\r\n"), S("334 x\r\n"), C("am9l\r\n"), S("334 x\r\n"), C("*\r\n"),
			S("501 ok\r\n") }, "" },
		{ "a second try by another",
		    { C("AUTH LOGIN am9l\r\n"), S("535 x\r\n"), C("AUTH GSSAPI x\r\n"), S("235 x\r\n") }, "" },
		{ "a long mechanism",
		    { C("AUTH A-MECHANISM-NAMED-AT-GREAT-LENGTH c2VjcmV0\r\n"), S("235 x\r\n") }, "" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		begin(&usual, RICH);
		for (const struct step *s = rows[i].steps; s->who != END; s++)
			play_step(s, 0);
		clear(&got);
		say_bytes(&got, model.d.user, model.d.user_len);
		expect_text(rows[i].name, got.bytes, rows[i].user);
	}
}

static void test_1_33_lines_that_are_no_good(void **state)
{
	static const struct script scripts[] = {
		{ "bare LF", RICH, { C("NOOP\nRSET\n") }, " >NOOP" },
		{ "CR and NUL", RICH, { C("NO\rOP\r\nNO\0OP\r\nNOOP\r\r\nNOOP\r\n") },
		    " !500 =500 !500 =500 !500 =500 >NOOP" },
		{ "empty lines", RICH, { C("\r\n\n \r\nNOOP\r\n") }, " !500 =500 !500 =500 !500 =500 >NOOP" },
		{ "CR LF in an answer to 334 is none, CR alone does not go on", RICH,
		    { C("AUTH LOGIN\r\n"), S("334 x\r\n"), C("a\rb\r\n"), S("501 x\r\n"), C("NOOP\r\n") },
		    " >AUTH <334 * <501 >NOOP" },
		{ "NUL in an answer to 334", RICH,
		    { C("AUTH LOGIN\r\n"), S("334 x\r\n"), C("a\0b\r\n"), S("501 x\r\n"), C("NOOP\r\n") },
		    " >AUTH <334 * <501 >NOOP" },
	};

	(void)state;
	play_all(scripts, COUNT(scripts));
}

/* n octets of x, with text before and after. */
static size_t long_line(char *out, const char *before, size_t n, const char *after)
{
	size_t head = strlen(before);

	memcpy(out, before, head);
	memset(out + head, 'x', n - head - strlen(after));
	memcpy(out + n - strlen(after), after, strlen(after));
	return n;
}

static void expect_lines(const char *name, const char *lines, size_t n, const char *want)
{
	for (size_t way = 0; way <= n; way += n > 3000 && way + 1000 < n ? 500 : 1) {
		struct step step = { CLIENT, { lines, n } };

		begin(&usual, RICH);
		play_step(&step, way);
		expect_text(name, got.bytes, want);
	}
}

static void test_32_command_line_limit(void **state)
{
	static char lines[SMTP_AUTH_LINE_MAX + 4096];
	size_t n;

	(void)state;
	n = long_line(lines, "NOOP ", 512, "\r\n");
	expect_lines("512 octets", lines, n, " >NOOP");
	n = long_line(lines, "NOOP ", 513, "\r\n");
	n += long_line(lines + n, "RSET", 6, "\r\n");
	expect_lines("513 octets", lines, n, " !500 =500 >RSET");
	n = long_line(lines, "NOOP ", 512, "\n");
	expect_lines("512 octets, bare LF", lines, n, " >NOOP");
	n = long_line(lines, "x", 2000, "\r\n");
	n += long_line(lines + n, "RSET", 6, "\r\n");
	expect_lines("a flood", lines, n, " !500 =500 >RSET");
	n = long_line(lines, "x", 2000, "BDAT x\r\n");
	n += long_line(lines + n, "RSET", 6, "\r\n");
	expect_lines("the rest of a long line is no command", lines, n, " !500 =500 >RSET");
	n = long_line(lines, "AUTH PLAIN ", SMTP_AUTH_LINE_MAX, "\r\n");
	expect_lines("longest AUTH", lines, n, " >AUTH");
	n = long_line(lines, "AUTH PLAIN ", SMTP_AUTH_LINE_MAX + 1, "\r\n");
	n += long_line(lines + n, "RSET", 6, "\r\n");
	expect_lines("longer AUTH", lines, n, " !500 =500 >RSET");
}

/* What is refused as too long may be a secret; its bytes must not be there for a log to show. */
static void test_49_long_line_shows_nothing(void **state)
{
	static char line[SMTP_AUTH_LINE_MAX + 100];
	static const char *const starts[] = { "AUTH PLAIN ", "NOOP " };
	struct smtp_command cmd;
	struct smtp_piece piece;
	size_t used;

	(void)state;
	for (size_t i = 0; i < COUNT(starts); i++) {
		long_line(line, starts[i], sizeof line, "\r\n");
		begin(&usual, RICH);
		assert_int_equal(dialogue_client_next(&model.d, guarded(line, sizeof line), sizeof line, &used, &cmd,
				     &piece), DIALOGUE_LINE);
		assert_int_equal(used, sizeof line);
		assert_non_null(cmd.refusal);
		assert_int_equal(cmd.line_len, 0);
		assert_int_equal(cmd.arg_len, 0);
	}
}

/* A line of an AUTH exchange that is too long ends the exchange: the client must be back at commands, and the server
 * too, or the next command is taken for a secret and the other way round. */
static void test_49_long_answer(void **state)
{
	static char line[SMTP_AUTH_LINE_MAX + 1];

	(void)state;
	long_line(line, "x", sizeof line, "\r\n");
	begin(&usual, RICH);
	arrive(CLIENT, "AUTH LOGIN\r\n", 12);
	arrive(SERVER, "334 x\r\n", 7);
	arrive(CLIENT, line, sizeof line);
	if (dialogue_awaited(&model.d) == SMTP_AUTH_RESPONSE)
		arrive(SERVER, "501 cancelled\r\n", 15); /* "*" was sent in its place */
	assert_int_equal(model.d.client, DIALOGUE_COMMAND);
	clear(&got);
	arrive(CLIENT, "RSET\r\n", 6);
	expect_text("command after it", got.bytes, " >RSET");
}

static void test_12_15_16_replies(void **state)
{
	static const struct script scripts[] = {
		{ "extra reply", RICH, { C("NOOP\r\n"), S("250 a\r\n250 b\r\n") },
		    " >NOOP <250 #a reply that nothing was asked for" },
		{ "unsolicited reply", RICH, { S("250 a\r\n") }, " #a reply that nothing was asked for" },
		{ "421 unasked", RICH, { S("421-a\r\n421 b\r\n") }, " <421" },
		{ "421 to a command", RICH, { C(OPEN), S("421 a\r\n") }, " >MAIL <421" },
		{ "421 as greeting", NULL, { S("421 a\r\n") }, " <421" },
		{ "reply before its command", RICH, { S("250 a\r\n"), C("NOOP\r\n") },
		    " #a reply that nothing was asked for" },
		{ "different codes", RICH, { C("NOOP\r\n"), S("250-a\r\n251 b\r\n") }, " >NOOP <251" },
		{ "421 behind others", RICH, { C("NOOP\r\n"), S("250-a\r\n421 b\r\n") }, " >NOOP <421" },
		{ "354 behind others", RICH, { C("NOOP\r\n"), S("250-a\r\n354 b\r\n") },
		    " >NOOP #a reply that does not fit the command" },
		{ "a greeting that refuses at its end", NULL, { S("220-a\r\n521 b\r\n") }, " <521" },
		{ "EHLO that turns into 251", RICH, { C("EHLO c\r\n"), S("250-a\r\n251 STARTTLS\r\n") },
		    " >EHLO #a reply that does not fit the command" },
		{ "no reply", RICH, { C("NOOP\r\n"), S("hello\r\n") }, " >NOOP #a line that is no SMTP reply" },
		{ "empty line", RICH, { C("NOOP\r\n"), S("\r\n") }, " >NOOP #a line that is no SMTP reply" },
		{ "100", RICH, { C("NOOP\r\n"), S("100 x\r\n") }, " >NOOP #a line that is no SMTP reply" },
		{ "greeting of 250", NULL, { S("250 a\r\n") }, " #a reply that does not fit the command" },
		{ "EHLO of 251", RICH, { C("EHLO c\r\n"), S("251-a\r\n251 STARTTLS\r\n") },
		    " >EHLO #a reply that does not fit the command" },
		{ "HELO of 220", RICH, { C("HELO c\r\n"), S("220 a\r\n") }, " >HELO #a reply that does not fit the command" },
		{ "2xx of other kinds", RICH,
		    { C("NOOP\r\n"), S("299 a\r\n"), C("VRFY x\r\n"), S("252 b\r\n"), C("HELP\r\n"),
			S("214-c\r\n214 d\r\n") },
		    " >NOOP <299 >VRFY <252 >HELP <214" },
		{ "bare codes", RICH, { C(OPEN RCPT), S("250\r\n250\n") }, " >MAIL >RCPT <250 <250" },
		{ "reply to content is not 354", RICH,
		    { C(OPEN RCPT "DATA\r\n"), S("250 a\r\n250 b\r\n354 c\r\n"), C(".\r\n"), S("354 d\r\n") },
		    " >MAIL >RCPT >DATA <250 <250 <354 \".\\r\\n\". #a reply that does not fit the command" },
	};

	(void)state;
	play_all(scripts, COUNT(scripts));
}

static void test_11_long_replies(void **state)
{
	static char lines[SMTP_REPLY_MAX + 64];
	static const struct {
		size_t n;
		const char *want;
	} rows[] = {
		{ SMTP_REPLY_MAX, " >NOOP <250" },
		{ SMTP_REPLY_MAX + 1, " >NOOP #a reply line that is too long" },
		{ SMTP_REPLY_MAX + 50, " >NOOP #a reply line that is too long" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		long_line(lines, "250 ", rows[i].n, "\r\n");
		for (size_t way = 0; way <= rows[i].n; way += way + 150 < rows[i].n ? 100 : 1) {
			begin(&usual, RICH);
			arrive(CLIENT, "NOOP\r\n", 6);
			play_step(&(struct step){ SERVER, { lines, rows[i].n } }, way);
			expect_text("long reply", got.bytes, rows[i].want);
		}
	}
	begin(&usual, RICH);
	arrive(CLIENT, "HELP\r\n", 6);
	for (int i = 0; i < 1000; i++)
		arrive(SERVER, "214-line\r\n", 10);
	arrive(SERVER, "214 end\r\n", 9);
	expect_text("1000 lines", got.bytes, " >HELP <214");
}

static void expect_mailbox(const struct dialogue_mailbox *m, const char *want)
{
	clear(&got);
	say(&got, "%.*s {%.*s} %u %u.%u.%u", m->address_len, model.d.tx.text + m->address, m->params_len,
	    model.d.tx.text + m->params, m->code, m->enhanced[0], m->enhanced[1], m->enhanced[2]);
	expect_text("mailbox", got.bytes, want);
}

static void test_31_recipients_and_their_codes(void **state)
{
	static const char client[] = "MAIL FROM:<a@b> SIZE=9 BODY=8BITMIME\r\nRCPT TO:<1@x> NOTIFY=NEVER\r\nFROB\r\n"
				     "RCPT TO:<@r:2@x>\r\nRCPT TO: 3@x\r\nRCPT TO:<4@x>\r\n";
	static const char server[] = "250 2.1.0 a\r\n250-2.1.5 b\r\n250 2.1.5 b\r\n550 5.1.1 c\r\n451 d\r\n";

	(void)state;
	begin(&usual, RICH);
	arrive(CLIENT, client, sizeof client - 1);
	arrive(SERVER, server, sizeof server - 1);
	expect_text("one too many", got.bytes, " >MAIL >RCPT !500 >RCPT >RCPT !452 <250 <250 =500 <550 <451 =452");
	assert_int_equal(model.d.tx.rcpts, 3);
	assert_int_equal(model.d.tx.accepted, 1);
	assert_int_equal(model.d.tx.unanswered, 0);
	assert_int_equal(model.d.tx.mail, DIALOGUE_MAIL_OPEN);
	expect_mailbox(&model.d.tx.sender, "a@b {SIZE=9 BODY=8BITMIME} 0 0.0.0");
	expect_mailbox(&model.d.tx.rcpt[0], "1@x {NOTIFY=NEVER} 250 2.1.5");
	expect_mailbox(&model.d.tx.rcpt[1], "2@x {} 550 5.1.1");
	expect_mailbox(&model.d.tx.rcpt[2], "3@x {} 451 0.0.0");
}

/* Replies to recipients of a transaction that is over do not count for the next: PROTOCOL 28. */
static void test_28_replies_of_an_ended_transaction(void **state)
{
	begin(&usual, RICH);
	arrive(CLIENT, OPEN "RSET\r\n" RCPT OPEN, sizeof OPEN "RSET\r\n" RCPT OPEN - 1);
	arrive(SERVER, "250 a\r\n250 b\r\n503 c\r\n", 21);
	assert_int_equal(model.d.tx.rcpts, 0);
	assert_int_equal(model.d.tx.unanswered, 0);
	arrive(SERVER, "250 d\r\n", 7);
	arrive(CLIENT, RCPT, sizeof RCPT - 1);
	arrive(SERVER, "250 e\r\n", 7);
	assert_int_equal(model.d.tx.rcpts, 1);
	expect_mailbox(&model.d.tx.rcpt[0], "c@d {} 250 0.0.0");
	(void)state;
}

/* The reply that decided one transaction does not stick to the next. */
static void test_28_decision_of_another_transaction(void **state)
{
	(void)state;
	begin(&usual, RICH);
	arrive(CLIENT, OPEN RCPT "RSET\r\nDATA\r\n", sizeof OPEN RCPT "RSET\r\nDATA\r\n" - 1);
	arrive(SERVER, "250 a\r\n250 b\r\n250 c\r\n503 d\r\n", 28);
	arrive(CLIENT, OPEN, sizeof OPEN - 1);
	arrive(SERVER, "250 e\r\n", 7);
	assert_int_equal(model.d.tx.decision.code, 0);
	begin(&usual, RICH);
	arrive(CLIENT, OPEN, sizeof OPEN - 1);
	arrive(SERVER, "550 a\r\n", 7);
	assert_int_equal(model.d.tx.decision.code, 550);
	arrive(CLIENT, OPEN, sizeof OPEN - 1);
	arrive(SERVER, "250 b\r\n", 7);
	assert_int_equal(model.d.tx.decision.code, 0);
}

static void test_66_decisions(void **state)
{
	static const struct {
		const char *client, *server;
		int code;
		uint16_t enhanced;
		const char *text;
	} rows[] = {
		{ OPEN, "550-5.7.1 no\r\n550 5.7.2 never\r\n", 550, 2, "5.7.2 never" },
		{ OPEN RCPT "DATA\r\n", "250 a\r\n250 b\r\n451 4.3.0 later\r\n", 451, 0, "4.3.0 later" },
		{ OPEN RCPT "BDAT 1\r\nx", "250 a\r\n250 b\r\n554 5.3.4 large\r\n", 554, 4, "5.3.4 large" },
		{ OPEN RCPT "BDAT 1\r\nx", "250 a\r\n250 b\r\n250 2.0.0 go on\r\n", 0, 0, "" },
		{ OPEN RCPT, "250 a\r\n550 b\r\n", 0, 0, "" },
	};
	struct dialogue_decision *decision = &model.d.tx.decision;
	unsigned char text[600] = "2.0.0 ok";

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		begin(&usual, RICH);
		arrive(CLIENT, rows[i].client, strlen(rows[i].client));
		arrive(SERVER, rows[i].server, strlen(rows[i].server));
		assert_int_equal(decision->code, rows[i].code);
		if (!decision->code)
			continue;
		assert_int_equal(decision->enhanced[2], rows[i].enhanced);
		assert_int_equal(decision->text_len, strlen(rows[i].text));
		assert_memory_equal(decision->text, rows[i].text, decision->text_len);
	}
	dialogue_decide(&model.d, 250, guarded(text, sizeof text), sizeof text);
	assert_int_equal(decision->text_len, sizeof decision->text);
	assert_int_equal(decision->enhanced[0], 2);
	dialogue_decide(&model.d, 421, NULL, 0);
	assert_int_equal(decision->code, 421);
	assert_int_equal(decision->text_len, 0);
	dialogue_end_transaction(&model.d);
	assert_int_equal(decision->code, 0);
}

static void test_2_bare_newlines_as_configured(void **state)
{
	static const char *const want[] = {
		[SMTP_NL_NORMALIZE] = " >MAIL >RCPT >DATA <250 <250 <354 \"a\\r\\n..\\r\\n.\\r\\n\".",
		[SMTP_NL_REJECT] = " >MAIL >RCPT >DATA <250 <250 <354 \"a\\r\\n..\\r\\n.\\r\\n\".",
		[SMTP_NL_PASS] = " >MAIL >RCPT >DATA <250 <250 <354 \"a\\n.\\r\\n.\\r\\n\".",
	};
	struct dialogue_limits limits = usual;

	(void)state;
	for (size_t mode = 0; mode < COUNT(want); mode++) {
		limits.newline = (enum smtp_newline)mode;
		begin(&limits, RICH);
		arrive(CLIENT, OPEN RCPT "DATA\r\n", sizeof OPEN RCPT "DATA\r\n" - 1);
		arrive(SERVER, "250 a\r\n250 b\r\n354 c\r\n", 21);
		arrive(CLIENT, "a\n.\r\n.\r\n", 8);
		expect_text("bare newline", got.bytes, want[mode]);
		assert_int_equal(model.d.scanner.broken, mode != SMTP_NL_PASS);
	}
}

static void test_42_50_mail_parameters(void **state)
{
	static const struct {
		const char *ehlo, *line;
		bool verified;
		const char *want;
	} rows[] = {
		{ RICH, "MAIL FROM:<a@b> SIZE=1000\r\n", false, " >MAIL" },
		{ RICH, "MAIL FROM:<a@b> SIZE=1001\r\n", false, " !552 =552" },
		{ RICH, "MAIL FROM:<a@b> SIZE=x\r\n", false, " !501 =501" },
		{ RICH, "MAIL FROM:<a@b> REQUIRETLS\r\n", true, " !530 =530" },
		{ "250-mx\r\n250 REQUIRETLS\r\n", "MAIL FROM:<a@b> REQUIRETLS\r\n", false, " !530 =530" },
		{ "250-mx\r\n250 REQUIRETLS\r\n", "MAIL FROM:<a@b> REQUIRETLS\r\n", true, " >MAIL" },
	};
	struct dialogue_limits limits = usual;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		begin(&usual, rows[i].ehlo);
		model.d.offer.requiretls = rows[i].verified;
		arrive(CLIENT, rows[i].line, strlen(rows[i].line));
		expect_text(rows[i].line, got.bytes, rows[i].want);
	}
	limits.message_size = 0;
	begin(&limits, RICH);
	arrive(CLIENT, "MAIL FROM:<a@b> SIZE=9999999999999999999\r\n", 43);
	expect_text("the server's limit is the lower", got.bytes, " !552 =552");
	begin(&limits, POOR);
	arrive(CLIENT, "MAIL FROM:<a@b> SIZE=9999999999999999999\r\n", 43);
	expect_text("no limit", got.bytes, " >MAIL");
}

/* A MAIL that was in order and is refused here leaves a record of its sender and why. */
static void test_42_mail_refused_here(void **state)
{
	static const struct {
		const char *line;
		enum dialogue_mail mail;
		int code;
	} rows[] = {
		{ "MAIL FROM:<a@b> SIZE=1001\r\n", DIALOGUE_MAIL_REFUSED, 552 },
		{ "MAIL FROM:<a@b> REQUIRETLS\r\n", DIALOGUE_MAIL_REFUSED, 530 },
		{ "MAIL FROM:<a@b\r\n", DIALOGUE_NO_MAIL, 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		begin(&usual, RICH);
		arrive(CLIENT, rows[i].line, strlen(rows[i].line));
		assert_int_equal(model.d.tx.mail, rows[i].mail);
		assert_int_equal(model.d.tx.decision.code, rows[i].code);
		if (rows[i].code)
			assert_memory_equal(model.d.tx.text + model.d.tx.sender.address, "a@b", 3);
	}
	begin(&usual, NULL); /* before EHLO there is no transaction */
	arrive(SERVER, "220 mx\r\n", 8);
	arrive(CLIENT, OPEN, sizeof OPEN - 1);
	assert_int_equal(model.d.tx.mail, DIALOGUE_NO_MAIL);
	begin(&usual, RICH); /* the open one stays as it is */
	arrive(CLIENT, OPEN, sizeof OPEN - 1);
	arrive(SERVER, "250 a\r\n", 7);
	arrive(CLIENT, "MAIL FROM:<x@y>\r\n", 17);
	assert_int_equal(model.d.tx.mail, DIALOGUE_MAIL_OPEN);
	assert_memory_equal(model.d.tx.text + model.d.tx.sender.address, "a@b", 3);
}

/* What no client can make grow: the text of addresses and parameters. */
static void test_38_text_of_a_transaction(void **state)
{
	struct dialogue_limits limits = usual;
	char line[512];
	uint32_t rcpts;

	(void)state;
	limits.recipients = DIALOGUE_RCPT_MAX;
	begin(&limits, RICH);
	long_line(line, "MAIL FROM:<a@b> X=", sizeof line, "\r\n");
	for (int i = 0; i < 3000; i++) { /* refused again and again: more than fits in all */
		arrive(CLIENT, line, sizeof line);
		arrive(SERVER, "550 a\r\n", 7);
		assert_true(model.d.tx.text_len <= DIALOGUE_TEXT_MAX);
	}
	arrive(CLIENT, OPEN, sizeof OPEN - 1);
	arrive(SERVER, "250 a\r\n", 7);
	long_line(line, "RCPT TO:<a@b> X=", sizeof line, "\r\n");
	for (clear(&got), rcpts = 0; !strstr(got.bytes, "=452"); rcpts++) {
		clear(&got);
		arrive(CLIENT, line, sizeof line);
		if (dialogue_awaited(&model.d) == SMTP_RCPT)
			arrive(SERVER, "250 a\r\n", 7);
		assert_true(model.d.tx.text_len <= DIALOGUE_TEXT_MAX);
	}
	assert_true(rcpts > 2000);
}

static void test_31_most_recipients(void **state)
{
	struct dialogue_limits limits = usual;

	(void)state;
	limits.recipients = DIALOGUE_RCPT_MAX;
	begin(&limits, RICH);
	arrive(CLIENT, OPEN, sizeof OPEN - 1);
	arrive(SERVER, "250 a\r\n", 7);
	for (int i = 0; i < DIALOGUE_RCPT_MAX; i++) {
		arrive(CLIENT, RCPT, sizeof RCPT - 1);
		arrive(SERVER, "250 a\r\n", 7);
		clear(&got);
	}
	assert_int_equal(model.d.tx.accepted, DIALOGUE_RCPT_MAX);
	arrive(CLIENT, RCPT, sizeof RCPT - 1);
	expect_text("one more", got.bytes, " !452 =452");
}

static void test_8_9_content_is_counted(void **state)
{
	(void)state;
	begin(&usual, RICH);
	arrive(CLIENT, OPEN RCPT "DATA\r\n", sizeof OPEN RCPT "DATA\r\n" - 1);
	arrive(SERVER, "250 a\r\n250 b\r\n354 c\r\n", 21);
	arrive(CLIENT, "Message-ID: <i@d>\r\n\r\n..\r\nb\n", 27);
	assert_int_equal(model.d.tx.octets, 19 + 2 + 3 + 3);
	assert_false(model.d.tx.complete);
	assert_int_equal(model.d.tx.header.id_len, 5);
	/* the server goes: what the client sends is still a message up to its end, then commands */
	dialogue_forget_server(&model.d);
	assert_int_equal(dialogue_awaited(&model.d), SMTP_NOTHING);
	assert_int_equal(model.d.client, DIALOGUE_DATA);
	arrive(CLIENT, "QUIT\r\n.\r\n", 9);
	assert_int_equal(model.d.client, DIALOGUE_COMMAND);
	begin(&usual, RICH);
	arrive(CLIENT, OPEN RCPT "BDAT 6 LAST\r\nab", sizeof OPEN RCPT "BDAT 6 LAST\r\nab" - 1);
	assert_int_equal(model.d.tx.octets, 2);
	dialogue_forget_server(&model.d);
	arrive(CLIENT, "QUITQUIT\r\n", 10);
	assert_true(model.d.tx.complete);
	expect_text("chunk", got.bytes, " >MAIL >RCPT >BDAT \"abQUIT\" >QUIT");
}

/* Half a reply of the old server, and what it owed, have no part in what the next one says. */
static void test_57_forget_server(void **state)
{
	(void)state;
	begin(&usual, RICH);
	arrive(CLIENT, OPEN RCPT, sizeof OPEN RCPT - 1);
	arrive(SERVER, "250 a\r\n250-b\r\n", 14);
	dialogue_forget_server(&model.d);
	assert_int_equal(model.d.queued, 0);
	clear(&got);
	dialogue_expect(&model.d, SMTP_GREETING, true);
	arrive(CLIENT, "NOOP\r\n", 6);
	arrive(SERVER, "220-c\r\n220 c\r\n", 14);
	expect_text("another greeting", got.bytes, " <220 >NOOP");
}

/* A hidden reply is marked; the client waits for it as for its own: PROTOCOL 56, 58. */
static void test_35_hidden_commands(void **state)
{
	struct dialogue_reply r;
	size_t used;

	(void)state;
	begin(&usual, RICH);
	dialogue_expect(&model.d, SMTP_STARTTLS, true);
	assert_int_equal(dialogue_awaited(&model.d), SMTP_STARTTLS);
	arrive(CLIENT, "NOOP\r\n", 6);
	expect_text("held back", got.bytes, "");
	assert_true(dialogue_server_next(&model.d, guarded("220 go\r\nx", 9), 9, &used, &r));
	assert_int_equal(used, 8); /* what follows is for the caller to see */
	assert_true(r.hidden && r.first && r.line.last && !r.content_end && !r.violation);
	assert_int_equal(r.verb, SMTP_STARTTLS);
	arrive(CLIENT, "", 0);
	expect_text("let go", got.bytes, " >NOOP");
}

/* An EHLO list counts from the reply's first line; lines of a refusal do not touch it. */
static void test_25_57_ehlo_list(void **state)
{
	(void)state;
	begin(&usual, RICH);
	assert_int_equal(model.d.ehlo.extensions,
	    SMTP_EXT_PIPELINING | SMTP_EXT_SIZE | SMTP_EXT_CHUNKING | SMTP_EXT_AUTH);
	assert_int_equal(model.d.ehlo.size, 5000);
	arrive(CLIENT, "EHLO c\r\n", 8);
	arrive(SERVER, "550-STARTTLS\r\n550 STARTTLS\r\n", 28);
	assert_int_equal(model.d.ehlo.size, 5000);
	assert_false(model.d.ehlo.extensions & SMTP_EXT_STARTTLS);
	arrive(CLIENT, "EHLO c\r\n", 8);
	arrive(SERVER, "250-mx STARTTLS\r\n250-CHUNKING\r\n250 STARTTLS\r\n", 45);
	assert_int_equal(model.d.ehlo.extensions, SMTP_EXT_CHUNKING | SMTP_EXT_STARTTLS);
	assert_int_equal(model.d.ehlo.size, 0);
}

/* ---- what is decided or kept here ---- */

static struct smtp_command parsed(const char *line)
{
	struct smtp_command cmd;

	smtp_parse(guarded(line, strlen(line)), strlen(line), &cmd);
	assert_null(cmd.refusal);
	return cmd;
}

/* What dialogue_check() says to this line, "" if it may go. */
static const char *check(const char *line)
{
	struct smtp_command cmd;
	const char *refusal;

	smtp_parse(guarded(line, strlen(line)), strlen(line), &cmd);
	refusal = dialogue_check(&model.d, &cmd);
	return refusal ? refusal : "";
}

static void refuse(const char *line, int code, const char *text)
{
	struct smtp_command cmd = parsed(line);

	dialogue_refused(&model.d, &cmd, code, (const unsigned char *)text, strlen(text));
}

static void open_here(const char *line)
{
	struct smtp_command cmd = parsed(line);

	dialogue_opened(&model.d, &cmd);
}

/* A MAIL that is refused here leaves sender and reply for the record, and no transaction. */
static void test_mail_that_a_hook_refuses(void **state)
{
	struct dialogue_transaction *tx = &model.d.tx;

	(void)state;
	begin(&usual, RICH);
	refuse("MAIL FROM:<a@b> SIZE=9\r\n", 550, "5.7.1 no");
	assert_int_equal(model.d.transactions, 1);
	assert_int_equal(tx->mail, DIALOGUE_MAIL_REFUSED);
	expect_mailbox(&tx->sender, "a@b {SIZE=9} 0 0.0.0");
	assert_int_equal(tx->decision.code, 550);
	assert_int_equal(tx->decision.enhanced[2], 1);
	assert_memory_equal(tx->decision.text, "5.7.1 no", tx->decision.text_len);
	assert_int_equal(model.d.queued, 0);
	assert_string_equal(check(RCPT), "503 5.5.1 MAIL first");
	assert_string_equal(check(OPEN), "");
	refuse(OPEN, 451, "");
	assert_int_equal(model.d.transactions, 2);
	assert_int_equal(tx->decision.code, 451);
	assert_int_equal(tx->decision.text_len, 0);
	arrive(CLIENT, OPEN, sizeof OPEN - 1); /* and the next is a new one */
	assert_int_equal(tx->decision.code, 0);
	assert_int_equal(model.d.transactions, 3);
}

/* Recipients that are refused here stand between those that the server answers, each with its own code: PROTOCOL 31. */
static void test_31_recipients_that_a_hook_refuses(void **state)
{
	struct dialogue_transaction *tx = &model.d.tx;

	(void)state;
	begin(&usual, RICH);
	arrive(CLIENT, OPEN "RCPT TO:<1@x>\r\n", sizeof OPEN "RCPT TO:<1@x>\r\n" - 1);
	arrive(SERVER, "250 a\r\n250 2.1.5 b\r\n", 20);
	refuse("RCPT TO:<2@x> NOTIFY=NEVER\r\n", 554, "5.7.7 not you");
	assert_int_equal(tx->rcpts, 2);
	assert_int_equal(tx->accepted, 1);
	arrive(CLIENT, "RCPT TO:<3@x>\r\n", 15);
	arrive(SERVER, "451 4.2.0 c\r\n", 13);
	expect_mailbox(&tx->rcpt[0], "1@x {} 250 2.1.5");
	expect_mailbox(&tx->rcpt[1], "2@x {NOTIFY=NEVER} 554 5.7.7");
	expect_mailbox(&tx->rcpt[2], "3@x {} 451 4.2.0");
	assert_int_equal(tx->unanswered, 0);
	assert_int_equal(tx->decision.code, 0);
	assert_string_equal(check(RCPT), "452 4.5.3 Too many recipients"); /* they count */
	begin(&usual, RICH);
	arrive(CLIENT, OPEN, sizeof OPEN - 1);
	arrive(SERVER, "250 a\r\n", 7);
	refuse(RCPT, 550, "no");
	assert_string_equal(check("DATA\r\n"), "554 5.5.1 No valid recipients");
}

/* A MAIL that is answered here opens a transaction; the hidden reply to it has no effect on that. */
static void test_mail_that_is_answered_here(void **state)
{
	struct dialogue_transaction *tx = &model.d.tx;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		begin(&usual, RICH);
		open_here("MAIL FROM:<a@b> BODY=8BITMIME SMTPUTF8\r\n");
		assert_int_equal(tx->mail, DIALOGUE_MAIL_OPEN);
		assert_true(tx->eightbit && tx->smtputf8 && !tx->binarymime);
		expect_mailbox(&tx->sender, "a@b {BODY=8BITMIME SMTPUTF8} 0 0.0.0");
		assert_int_equal(model.d.transactions, 1);
		assert_int_equal(model.d.queued, 0);
		assert_string_equal(check(OPEN), "503 5.5.1 A message is open already");
		assert_string_equal(check(RCPT), "");
		assert_string_equal(check("AUTH PLAIN\r\n"), "503 5.5.1 Not during a message");
		dialogue_expect(&model.d, SMTP_MAIL, true);
		arrive(SERVER, i ? "550 no\r\n" : "250 ok\r\n", 8);
		assert_int_equal(tx->mail, DIALOGUE_MAIL_OPEN);
		assert_int_equal(tx->decision.code, 0);
		open_here(OPEN);
		assert_false(tx->eightbit || tx->smtputf8);
	}
}

static void test_rewritten_recipients(void **state)
{
	static const char client[] = OPEN "RCPT TO:<1@x>\r\nRCPT TO:<new@x>\r\n";
	static const struct {
		uint32_t room;
		uint16_t want;
	} rows[] = { { 100, 3 }, { 3, 3 }, { 2, 0 }, { 0, 0 } };
	const struct dialogue_mailbox *rcpt = &model.d.tx.rcpt[1];

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		begin(&usual, RICH);
		arrive(CLIENT, client, sizeof client - 1);
		model.d.tx.text_len = DIALOGUE_TEXT_MAX - rows[i].room;
		dialogue_rewritten(&model.d, guarded("2@x", 3), 3);
		assert_int_equal(rcpt->original_len, rows[i].want);
		assert_int_equal(model.d.tx.rcpt[0].original_len, 0);
		assert_memory_equal(model.d.tx.text + rcpt->original, "2@x", rcpt->original_len);
		assert_true(model.d.tx.text_len <= DIALOGUE_TEXT_MAX);
		expect_mailbox(rcpt, "new@x {} 0 0.0.0");
	}
}

static size_t take_kept(void *state, const unsigned char *in, size_t n)
{
	bool *ended = state;
	struct smtp_command cmd;
	struct smtp_piece piece;
	size_t at = 0, used;

	while (!*ended && dialogue_client_next(&model.d, in + at, n - at, &used, &cmd, &piece) == DIALOGUE_PIECE) {
		assert_true(used <= n - at);
		say_bytes(&got, piece.bytes, piece.len);
		*ended = piece.end;
		at += used;
	}
	return at;
}

/* A message in DATA that is kept is the message itself: PROTOCOL 3, 4, 5. */
static void test_3_4_5_kept_data(void **state)
{
	static const struct {
		struct input in;
		const char *want;
		uint64_t octets;
	} rows[] = {
		{ IN(".\r\n"), "", 0 },
		{ IN("a\r\n.\r\n"), "a\\r\\n", 3 },
		{ IN("..\r\n...a\r\nb.\r\n.\r\n"), ".\\r\\n..a\\r\\nb.\\r\\n", 12 },
		{ IN("a\n.\r\n.\nb\r\n.\r\n"), "a\\r\\n.\\r\\n.\\r\\nb\\r\\n", 12 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		for (size_t n = rows[i].in.len, way = 0; way <= n + 6; way++) {
			char in[64];
			bool ended = false;

			memcpy(in, rows[i].in.bytes, n);
			memcpy(in + n, "QUIT\r\n", 6);
			begin(&usual, RICH);
			open_here(OPEN);
			model.d.scanner.plain = true; /* what an earlier message left behind */
			dialogue_begin_data(&model.d, true);
			assert_true(model.d.kept && model.d.client == DIALOGUE_DATA);
			assert_int_equal(offer(in, n + 6, way, take_kept, &ended), n);
			expect_text("kept", got.bytes, rows[i].want);
			assert_true(ended);
			assert_int_equal(model.d.tx.octets, rows[i].octets);
			dialogue_end_data(&model.d);
			dialogue_end_transaction(&model.d);
			assert_false(model.d.kept || model.d.tx.complete);
		}
}

/* Chunks that are kept: whole octets, summed up for the limit, complete only when they have gone: PROTOCOL 42, 45. */
static void test_42_45_kept_chunks(void **state)
{
	static const char chunk[] = "a\n.\r\n..\r\n", line[] = "BDAT 9 LAST\r\n";

	(void)state;
	for (size_t way = 0; way < sizeof chunk; way++) {
		struct smtp_command cmd = parsed("BDAT 500\r\n");
		static unsigned char first[500];
		bool ended = false;

		begin(&usual, POOR);
		open_here(OPEN);
		arrive(CLIENT, RCPT, sizeof RCPT - 1);
		arrive(SERVER, "250 a\r\n", 7);
		dialogue_keep_chunk(&model.d, &cmd);
		assert_true(model.d.kept && model.d.tx.chunks && model.d.client == DIALOGUE_CHUNK && !model.d.queued);
		assert_int_equal(offer(first, sizeof first, 0, take_kept, &ended), sizeof first);
		assert_true(ended && model.d.client == DIALOGUE_COMMAND && !model.d.chunk_last);
		assert_string_equal(check("DATA\r\n"), "503 5.5.1 BDAT has begun");
		assert_string_equal(check(RCPT), "503 5.5.1 The message has begun");
		model.d.limits.on_recipient = true;
		assert_string_equal(check("BDAT 501\r\n"), "552 5.3.4 Message is larger than this server takes");
		assert_string_equal(check("BDAT 500 LAST\r\n"), "");
		cmd = parsed(line);
		clear(&got);
		dialogue_keep_chunk(&model.d, &cmd);
		ended = false;
		assert_int_equal(offer(chunk, sizeof chunk - 1, way, take_kept, &ended), sizeof chunk - 1);
		expect_text("kept", got.bytes, "a\\n.\\r\\n..\\r\\n");
		assert_true(ended && model.d.chunk_last && !model.d.tx.complete);
		assert_int_equal(model.d.tx.octets, 509);
		dialogue_end_transaction(&model.d);
		assert_false(model.d.kept || model.d.tx.chunks);
	}
}

/* An empty last chunk ends a kept message, too. */
static void test_45_kept_chunk_of_nothing(void **state)
{
	struct smtp_command cmd = parsed("BDAT 0 LAST\r\n");
	struct smtp_piece piece;
	size_t used;

	(void)state;
	begin(&usual, RICH);
	open_here(OPEN);
	dialogue_keep_chunk(&model.d, &cmd);
	assert_int_equal(dialogue_client_next(&model.d, guarded("", 0), 0, &used, &cmd, &piece), DIALOGUE_PIECE);
	assert_true(piece.end && piece.len == 0 && used == 0 && model.d.client == DIALOGUE_COMMAND);
}

/* What is refused before the client speaks TLS, and what is forgotten then. RFC 3207 4, 4.2. */
static void test_57_59_starttls(void **state)
{
	static const char must[] = "530 5.7.0 Must issue a STARTTLS command first";
	static const struct {
		const char *line, *may, *require, *inside;
	} rows[] = {
		{ "EHLO c\r\n", "", "", "" },
		{ "HELO c\r\n", "", "", "" },
		{ "QUIT\r\n", "", "", "" },
		{ "NOOP\r\n", "", "", "250 2.0.0 Ok" },
		{ "STARTTLS\r\n", "", "", "503 5.5.1 TLS is in use already" },
		{ "STARTTLS x\r\n", "501 5.5.4 No parameters allowed", "501 5.5.4 No parameters allowed", "501 5.5.4 No parameters allowed" },
		{ "RSET\r\n", "", must, "250 2.0.0 Ok" },
		{ "MAIL FROM:<a@b>\r\n", "", must, "503 5.5.1 EHLO or HELO first" },
		{ "RCPT TO:<a@b>\r\n", "503 5.5.1 MAIL first", must, "503 5.5.1 EHLO or HELO first" },
		{ "DATA\r\n", "503 5.5.1 MAIL first", must, "503 5.5.1 EHLO or HELO first" },
		{ "AUTH PLAIN\r\n", "", must, "503 5.5.1 EHLO or HELO first" },
		{ "ETRN a\r\n", "", must, "503 5.5.1 EHLO or HELO first" },
		{ "VRFY a\r\n", "", must, "252 2.1.5 Send a message to find out" },
		{ "FROB\r\n", "500 5.5.1 Command not recognized", "500 5.5.1 Command not recognized",
		    "500 5.5.1 Command not recognized" },
	};
	struct dialogue_limits limits = usual;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		limits.require_tls = false;
		begin(&limits, RICH);
		model.d.offer.starttls = true;
		expect_text(rows[i].line, check(rows[i].line), rows[i].may);
		model.d.limits.require_tls = true;
		expect_text(rows[i].line, check(rows[i].line), rows[i].require);
		dialogue_encrypted(&model.d);
		expect_text(rows[i].line, check(rows[i].line), rows[i].inside);
	}
	begin(&usual, RICH);
	model.d.offer.starttls = true;
	arrive(CLIENT, OPEN, strlen(OPEN));
	assert_string_equal(check("STARTTLS\r\n"), "503 5.5.1 Not during a message");
	arrive(SERVER, "550 a\r\n", 7);
	assert_string_equal(check("STARTTLS\r\n"), "");
	arrive(CLIENT, "AUTH PLAIN x\r\n", 14);
	arrive(SERVER, "235 a\r\n", 7);
	assert_string_equal(check("STARTTLS\r\n"), "503 5.5.1 Already authenticated");
}

/* No server is known before the first recipient: what is ours to answer, and what nobody could keep is not offered. */
static void test_what_is_answered_late(void **state)
{
	static const struct {
		const char *line, *want, *want_late;
	} rows[] = {
		{ "NOOP\r\n", "", "250 2.0.0 Ok" },
		{ "RSET\r\n", "", "" },
		{ "QUIT\r\n", "", "" },
		{ "EHLO c\r\n", "", "" },
		{ "HELP\r\n", "", "214 2.0.0 RFC 5321 has it all" },
		{ "VRFY a\r\n", "", "252 2.1.5 Send a message to find out" },
		{ "EXPN a\r\n", "", "502 5.5.1 Not offered" },
		{ "ETRN a\r\n", "", "502 5.5.1 Not offered" },
		{ "STARTTLS\r\n", "502 5.5.1 Not offered", "502 5.5.1 Not offered" },
		{ "AUTH PLAIN\r\n", "", "502 5.5.1 AUTH is not offered" },
		{ "MAIL FROM:<a@b> SIZE=1000 BODY=8BITMIME SMTPUTF8\r\n", "", "" },
		{ "MAIL FROM:<a@b> BODY=7bit\r\n", "", "" },
		{ "MAIL FROM:<a@b> SIZE=1001\r\n", "552 5.3.4 Message is larger than this server takes",
		    "552 5.3.4 Message is larger than this server takes" },
		{ "MAIL FROM:<a@b> BODY=BINARYMIME\r\n", "", "555 5.5.4 A parameter is not offered here" },
		{ "MAIL FROM:<a@b> BODY\r\n", "", "555 5.5.4 A parameter is not offered here" },
		{ "MAIL FROM:<a@b> RET=HDRS\r\n", "", "555 5.5.4 A parameter is not offered here" },
		{ "MAIL FROM:<a@b> SIZE=1 AUTH=<>\r\n", "", "555 5.5.4 A parameter is not offered here" },
		{ "RCPT TO:<a@b> NOTIFY=NEVER\r\n", "503 5.5.1 MAIL first", "555 5.5.4 A parameter is not offered here" },
		{ "RCPT TO:<a@b>\r\n", "503 5.5.1 MAIL first", "503 5.5.1 MAIL first" },
		{ "BDAT 1\r\n", "503 5.5.1 MAIL first", "503 5.5.1 MAIL first" },
		{ "FROB\r\n", "500 5.5.1 Command not recognized", "500 5.5.1 Command not recognized" },
	};

	(void)state;
	begin(&usual, RICH);
	for (size_t i = 0; i < COUNT(rows); i++) {
		model.d.limits.on_recipient = false;
		model.d.offer.auth = true;
		expect_text(rows[i].line, check(rows[i].line), rows[i].want);
		model.d.limits.on_recipient = true;
		model.d.offer.auth = false;
		expect_text(rows[i].line, check(rows[i].line), rows[i].want_late);
	}
	model.d.limits.message_size = 0; /* a server's SIZE is not known yet, whatever an earlier one said */
	assert_string_equal(check("MAIL FROM:<a@b> SIZE=5001\r\n"), "");
	model.d.limits.on_recipient = false;
	assert_string_equal(check("MAIL FROM:<a@b> SIZE=5001\r\n"), "552 5.3.4 Message is larger than this server takes");
	model.d.greeted = false;
	model.d.limits.on_recipient = true;
	assert_string_equal(check("HELP\r\n"), "214 2.0.0 RFC 5321 has it all");
}

/* What the list of the server that is connected has is not what the client was shown. */
static void test_49_auth_late(void **state)
{
	(void)state;
	for (int rich = 0; rich < 2; rich++) {
		begin(&usual, rich ? RICH : POOR);
		model.d.limits.on_recipient = true;
		assert_string_equal(check("AUTH PLAIN\r\n"), "");
		assert_string_equal(check("MAIL FROM:<a@b> AUTH=<> SIZE=1\r\n"), "");
		assert_string_equal(check("MAIL FROM:<a@b> AUTH=<> RET=HDRS\r\n"), "555 5.5.4 A parameter is not offered here");
		model.d.offer.auth = false;
		assert_string_equal(check("AUTH PLAIN\r\n"), "502 5.5.1 AUTH is not offered");
		assert_string_equal(check("MAIL FROM:<a@b> AUTH=<>\r\n"), "555 5.5.4 A parameter is not offered here");
		model.d.auth_later = true;
		assert_string_equal(check("AUTH PLAIN\r\n"), "538 5.7.11 AUTH needs encryption");
		model.d.offer.auth = true;
		model.d.authenticated = true;
		assert_string_equal(check("AUTH PLAIN\r\n"), "503 5.5.1 Already authenticated");
	}
}

/* BDAT is ours to offer: whether the server knows it does not count. */
static void test_45_chunks_late(void **state)
{
	(void)state;
	begin(&usual, POOR);
	open_here(OPEN);
	arrive(CLIENT, RCPT, sizeof RCPT - 1);
	arrive(SERVER, "250 a\r\n", 7);
	assert_string_equal(check("BDAT 5\r\n"), "502 5.5.1 CHUNKING is not offered");
	model.d.limits.on_recipient = true;
	assert_string_equal(check("BDAT 5\r\n"), "");
	assert_string_equal(check("BDAT 1001\r\n"), "552 5.3.4 Message is larger than this server takes");
}

/* A command that hooks are asked about waits until nothing is owed, however the client sends it: PROTOCOL 34. */
static void test_34_commands_that_go_alone(void **state)
{
	static const struct script scripts[] = {
		{ "each RCPT waits, what may follow it does not", RICH,
		    { C(OPEN RCPT RCPT "DATA\r\n"), S("250 a\r\n"), S("250 b\r\n"), S("550 c\r\n"), S("354 d\r\n"),
			C(".\r\n"), S("250 e\r\n") },
		    " >MAIL <250 >RCPT <250 >RCPT >DATA <550 <354 \".\\r\\n\". <250 r250 r550" },
		{ "RSET waits for RCPT", RICH,
		    { C(OPEN), S("250 a\r\n"), C(RCPT "RSET\r\nFROB\r\n"), S("250 b\r\n"), S("250 c\r\n") },
		    " >MAIL <250 >RCPT <250 >RSET !500 <250 r250 =500" },
		{ "behind a reply of ours, too", RICH, { C("RSET\r\nFROB\r\n" RCPT), S("250 a\r\n") },
		    " >RSET !500 <250 =500 !503 =503" },
		{ "alone already", RICH, { C("NOOP\r\n"), S("250 a\r\n") }, " >NOOP <250" },
	};
	struct dialogue_limits limits = usual;

	(void)state;
	limits.alone = 1u << SMTP_RCPT | 1u << SMTP_RSET | 1u << SMTP_NOOP;
	for (size_t k = 0; k < COUNT(scripts); k++)
		for (size_t way = 0; way < 3; way++) {
			begin(&limits, scripts[k].ehlo);
			for (size_t i = 0; i < STEPS_MAX && scripts[k].steps[i].who != END; i++)
				play_step(&scripts[k].steps[i], way == 2 ? scripts[k].steps[i].in.len : way);
			close_message();
			expect_text(scripts[k].name, got.bytes, scripts[k].want);
		}
}

static void play_lmtp(bool client, const struct script *scripts, size_t n)
{
	server_lmtp = true;
	client_lmtp = client;
	play_all(scripts, n);
	server_lmtp = client_lmtp = false;
}

/* A client that speaks SMTP has one reply to a message, so each message has one recipient. */
static void test_53_smtp_to_lmtp(void **state)
{
	static const struct script scripts[] = {
		{ "one recipient", RICH,
		    { C(OPEN RCPT "DATA\r\n"), S("250 a\r\n"), S("250 b\r\n354 c\r\n"), C("x\r\n.\r\n"), S("250 d\r\n") },
		    " >MAIL <250 >RCPT >DATA <250 <354 \"x\\r\\n.\\r\\n\". <250 r250" },
		{ "a second one has to wait", RICH,
		    { C(OPEN RCPT RCPT RCPT "DATA\r\n"), S("250 a\r\n"), S("250 b\r\n"), S("354 c\r\n"), C(".\r\n"),
			S("452 d\r\n") },
		    " >MAIL <250 >RCPT <250 !452 =452 !452 =452 >DATA <354 \".\\r\\n\". <452 r452" },
		{ "not behind one that was refused", RICH,
		    { C(OPEN RCPT RCPT "DATA\r\n"), S("250 a\r\n"), S("550 b\r\n"), S("250 c\r\n354 d\r\n"), C(".\r\n"),
			S("250-e\r\n250 f\r\n") },
		    " >MAIL <250 >RCPT <550 >RCPT >DATA <250 <354 \".\\r\\n\". <250 r550 r250" },
		{ "DATA for nobody", RICH, { C(OPEN RCPT "DATA\r\n"), S("250 a\r\n"), S("550 b\r\n503 c\r\n") },
		    " >MAIL <250 >RCPT >DATA <550 <503" },
		{ "and a server that takes it", RICH, { C(OPEN RCPT "DATA\r\n"), S("250 a\r\n"), S("550 b\r\n354 c\r\n") },
		    " >MAIL <250 >RCPT >DATA <550 #a reply that does not fit the command" },
		{ "DATA for nobody, known here", RICH, { C(OPEN RCPT), S("250 a\r\n"), S("550 b\r\n"), C("DATA\r\n") },
		    " >MAIL <250 >RCPT <550 !554 =554" },
		{ "a reply too many, 16", RICH,
		    { C(OPEN RCPT "DATA\r\n"), S("250 a\r\n"), S("250 b\r\n354 c\r\n"), C(".\r\n"), S("250 d\r\n250 e\r\n") },
		    " >MAIL <250 >RCPT >DATA <250 <354 \".\\r\\n\". <250 r250 #a reply that nothing was asked for" },
		{ "BDAT", RICH,
		    { C(OPEN RCPT RCPT "BDAT 2\r\nhiBDAT 0 LAST\r\n"), S("250 a\r\n"), S("250 b\r\n"), S("250 c\r\n"),
			S("550 d\r\n") },
		    " >MAIL <250 >RCPT <250 !452 =452 >BDAT \"hi\" <250 >BDAT \"\" <550 r550" },
		{ "BDAT for nobody", RICH, { C(OPEN RCPT "BDAT 2 LAST\r\nhi"), S("250 a\r\n"), S("550 b\r\n") },
		    " >MAIL <250 >RCPT <550 !554 =554" },
		{ "BDAT behind one that was refused", RICH,
		    { C(OPEN RCPT "BDAT 2\r\nhiBDAT 2 LAST\r\nho"), S("250 a\r\n"), S("250 b\r\n"), S("452 c\r\n") },
		    " >MAIL <250 >RCPT <250 >BDAT \"hi\" <452 !503 =503" },
		{ "RSET", RICH, { C(OPEN RCPT "RSET\r\n" OPEN RCPT), S("250 a\r\n"), S("250 b\r\n250 c\r\n"), S("250 d\r\n") },
		    " >MAIL <250 >RCPT >RSET <250 <250 r250 >MAIL <250 >RCPT" },
		{ "HELO", RICH, { C("HELO c\r\n"), S("250 a\r\n"), C("LHLO c\r\n"), S("250 b\r\n") }, " >HELO <250 >LHLO <250" },
	};

	(void)state;
	play_lmtp(false, scripts, COUNT(scripts));
}

static void test_53_lmtp_to_lmtp(void **state)
{
	static const struct script scripts[] = {
		{ "a reply for each that was accepted, in order", RICH,
		    { C(OPEN RCPT RCPT RCPT "DATA\r\n"), S("250 a\r\n250 b\r\n550 c\r\n250 d\r\n354 e\r\n"), C("x\r\n.\r\n"),
			S("452 f\r\n250-g\r\n250 h\r\n") },
		    " >MAIL >RCPT >RCPT >RCPT >DATA <250 <250 <550 <250 <354 \"x\\r\\n.\\r\\n\". <452 <250 r452 r550 r250" },
		{ "nothing goes before the last of them", RICH,
		    { C(OPEN RCPT RCPT "DATA\r\n"), S("250 a\r\n250 b\r\n250 c\r\n354 d\r\n"), C(".\r\nRSET\r\n"),
			S("250 e\r\n"), S("550 f\r\n") },
		    " >MAIL >RCPT >RCPT >DATA <250 <250 <250 <354 \".\\r\\n\". <250 <550 r250 r550 >RSET" },
		{ "one too many, 16", RICH,
		    { C(OPEN RCPT RCPT "DATA\r\n"), S("250 a\r\n250 b\r\n250 c\r\n354 d\r\n"), C(".\r\n"),
			S("250 e\r\n250 f\r\n250 g\r\n") },
		    " >MAIL >RCPT >RCPT >DATA <250 <250 <250 <354 \".\\r\\n\". <250 <250 r250 r250"
		    " #a reply that nothing was asked for" },
		{ "BDAT: to all but the last chunk there is one", RICH,
		    { C(OPEN RCPT RCPT "BDAT 2\r\nhiBDAT 2 LAST\r\nho"), S("250 a\r\n250 b\r\n250 c\r\n"), S("250 d\r\n"),
			S("250 e\r\n"), S("452 f\r\n") },
		    " >MAIL >RCPT >RCPT <250 <250 <250 >BDAT \"hi\" <250 >BDAT \"ho\" <250 <452 r250 r452" },
		{ "DATA for nobody", RICH, { C(OPEN RCPT), S("250 a\r\n550 b\r\n"), C("DATA\r\n") },
		    " >MAIL >RCPT <250 <550 !503 =503" },
		{ "DATA that is refused has one reply", RICH,
		    { C(OPEN RCPT RCPT "DATA\r\n"), S("250 a\r\n250 b\r\n250 c\r\n451 d\r\n"), C("RSET\r\n"), S("250 e\r\n") },
		    " >MAIL >RCPT >RCPT >DATA <250 <250 <250 <451 >RSET <250 r250 r250" },
		{ "EHLO ends it", RICH, { C("EHLO c\r\n"), S("250-a\r\n250 PIPELINING\r\n"), C(OPEN RCPT RCPT), S("250 b\r\n"), S("250 c\r\n") },
		    " >EHLO <250 >MAIL <250 >RCPT <250 !452 =452" },
	};

	(void)state;
	play_lmtp(true, scripts, COUNT(scripts));
	begin(&usual, RICH);
	arrive(CLIENT, "LHLO c\r\n", 8);
	expect_text("LHLO on the way to a server of SMTP", got.bytes, " !500 =500");
}

/* What is left to be answered, and which reply decides: the best. */
static void test_53_replies_due(void **state)
{
	static const char replies[] = "550 5.1.1 a\r\n", *const more[] = { "250 2.0.0 b\r\n", "452 4.2.2 c\r\n" };
	static const char first[] = "250 2.1.0 a\r\n250 2.1.5 b\r\n250 2.1.5 c\r\n250 2.1.5 d\r\n354 e\r\n";

	(void)state;
	server_lmtp = client_lmtp = true;
	begin(&usual, RICH);
	server_lmtp = client_lmtp = false;
	assert_int_equal(dialogue_replies_due(&model.d), 1);
	arrive(CLIENT, OPEN RCPT RCPT RCPT "DATA\r\n", sizeof OPEN RCPT RCPT RCPT "DATA\r\n" - 1);
	arrive(SERVER, first, sizeof first - 1);
	assert_int_equal(dialogue_replies_due(&model.d), 3);
	arrive(CLIENT, ".\r\n", 3);
	arrive(SERVER, replies, sizeof replies - 1);
	assert_int_equal(dialogue_replies_due(&model.d), 2);
	assert_int_equal(model.d.tx.accepted, 2);
	assert_int_equal(model.d.tx.decision.code, 550);
	expect_mailbox(&model.d.tx.rcpt[0], "c@d {} 550 5.1.1");
	expect_mailbox(&model.d.tx.rcpt[1], "c@d {} 250 2.1.5");
	arrive(SERVER, more[0], strlen(more[0]));
	assert_int_equal(dialogue_replies_due(&model.d), 1);
	assert_int_equal(model.d.tx.decision.code, 250);
	assert_int_equal(dialogue_awaited(&model.d), SMTP_CONTENT);
	arrive(SERVER, more[1], strlen(more[1]));
	assert_int_equal(dialogue_awaited(&model.d), SMTP_NOTHING);
}

static void test_31_53_most_recipients(void **state)
{
	struct dialogue_limits limits = usual;

	(void)state;
	limits.recipients = 1000;
	server_lmtp = client_lmtp = true;
	begin(&limits, RICH);
	server_lmtp = client_lmtp = false;
	arrive(CLIENT, OPEN, sizeof OPEN - 1);
	arrive(SERVER, "250 a\r\n", 7);
	for (unsigned i = 0; i < DIALOGUE_LMTP_MAX; i++) {
		arrive(CLIENT, RCPT, sizeof RCPT - 1);
		arrive(SERVER, "250 b\r\n", 7);
	}
	clear(&got);
	arrive(CLIENT, RCPT, sizeof RCPT - 1);
	expect_text("one more", got.bytes, " !452 =452");
	assert_int_equal(model.d.tx.accepted, DIALOGUE_LMTP_MAX);
}

/* ---- what a session tells the dialogue ---- */

/* One chunk of a kept message: its octets do not come from the client, whose next line waits for the reply. */
static void test_42_45_kept_message_as_one_chunk(void **state)
{
	(void)state;
	begin(&usual, RICH);
	arrive(CLIENT, OPEN RCPT, sizeof OPEN RCPT - 1);
	arrive(SERVER, "250 a\r\n250 b\r\n", 14);
	clear(&got);
	dialogue_sent_kept(&model.d);
	assert_true(model.d.tx.chunks && model.d.client == DIALOGUE_COMMAND && !model.d.tx.complete);
	assert_int_equal(dialogue_awaited(&model.d), SMTP_BDAT);
	dialogue_complete(&model.d);
	assert_true(model.d.tx.complete);
	arrive(CLIENT, "NOOP\r\n", 6);
	expect_text("waits", got.bytes, "");
	arrive(SERVER, "250 2.0.0 c\r\n", 13);
	close_message();
	expect_text("one reply ends it", got.bytes, " <250 r250 >NOOP");
}

/* By LMTP it has a reply for each recipient. */
static void test_53_kept_message_as_one_chunk(void **state)
{
	(void)state;
	begin(&usual, RICH);
	dialogue_server_speaks(&model.d, true);
	dialogue_greeted(&model.d, true);
	assert_true(model.d.lmtp && model.d.lmtp_client && model.d.greeted);
	arrive(CLIENT, OPEN RCPT RCPT, sizeof OPEN RCPT RCPT - 1);
	arrive(SERVER, "250 a\r\n250 b\r\n250 c\r\n", 21);
	dialogue_sent_kept(&model.d);
	arrive(SERVER, "250 d\r\n", 7);
	assert_int_equal(dialogue_awaited(&model.d), SMTP_BDAT);
	arrive(SERVER, "250 e\r\n", 7);
	assert_int_equal(dialogue_awaited(&model.d), SMTP_NOTHING);
	dialogue_server_speaks(&model.d, false);
	dialogue_greeted(&model.d, false);
	assert_true(!model.d.lmtp && !model.d.lmtp_client && model.d.greeted);
}

/* Whoever edits a message gives all of it: size and Message-ID are the new ones. */
static void test_66_edited_message(void **state)
{
	static const char before[] = "Message-ID: <1@a>\r\n\r\nlong enough to be in the middle", after[] = "message-id:<2@b>\r\n\r\n";
	const struct smtp_header *header = &model.d.tx.header;

	(void)state;
	begin(&usual, RICH);
	open_here(OPEN);
	dialogue_scan(&model.d, (const unsigned char *)before, 12);
	dialogue_scan(&model.d, (const unsigned char *)before + 12, sizeof before - 13);
	assert_int_equal(header->id_len, 5);
	assert_memory_equal(header->id, "<1@a>", 5);
	dialogue_edited(&model.d, (const unsigned char *)after, sizeof after - 1);
	assert_int_equal(model.d.tx.octets, sizeof after - 1);
	assert_int_equal(header->id_len, 5);
	assert_memory_equal(header->id, "<2@b>", 5);
	dialogue_edited(&model.d, (const unsigned char *)"\r\n", 2);
	assert_int_equal(header->id_len, 0);
}

static void test_66_enhanced_code_beside_the_text(void **state)
{
	static const uint16_t enhanced[] = { 5, 7, 1 };
	const struct dialogue_decision *decision = &model.d.tx.decision;
	unsigned char large[600];

	(void)state;
	begin(&usual, RICH);
	dialogue_decide_enhanced(&model.d, 554, enhanced, (const unsigned char *)"no", 2);
	assert_int_equal(decision->code, 0); /* no transaction, no decision */
	open_here(OPEN);
	dialogue_decide_enhanced(&model.d, 554, enhanced, (const unsigned char *)"4.0.0 no", 8);
	assert_int_equal(decision->code, 554);
	assert_memory_equal(decision->enhanced, enhanced, sizeof enhanced);
	assert_int_equal(decision->text_len, 8);
	dialogue_decide(&model.d, 451, (const unsigned char *)"4.2.0 later", 11);
	assert_int_equal(decision->enhanced[1], 2);
	memset(large, 'x', sizeof large);
	dialogue_decide_enhanced(&model.d, 554, enhanced, large, sizeof large);
	assert_int_equal(decision->text_len, sizeof decision->text);
}

static void test_quitting(void **state)
{
	(void)state;
	begin(&usual, RICH);
	assert_false(dialogue_quitting(&model.d));
	arrive(CLIENT, "QUIT\r\n", 6);
	assert_true(dialogue_quitting(&model.d)); /* unanswered */
	arrive(SERVER, "500-no\r\n", 8);
	assert_true(dialogue_quitting(&model.d)); /* half answered */
	arrive(SERVER, "500 no\r\n", 8);
	assert_false(dialogue_quitting(&model.d));
	arrive(CLIENT, "NOOP\r\nQUIT\r\n", 12);
	arrive(SERVER, "250 a\r\n", 7); /* that of NOOP */
	assert_true(dialogue_quitting(&model.d));
	arrive(SERVER, "221 bye\r\n", 9);
	assert_true(dialogue_quitting(&model.d));
	arrive(CLIENT, "RSET\r\n", 6);
	assert_false(dialogue_quitting(&model.d));
	arrive(SERVER, "250 a\r\n", 7);
	arrive(CLIENT, "QUIT\r\n", 6);
	arrive(SERVER, "421 bye\r\n", 9); /* it leaves all the same */
	assert_true(dialogue_quitting(&model.d));
	arrive(CLIENT, "QUIT\r\n", 6);
	dialogue_forget_server(&model.d);
	assert_false(dialogue_quitting(&model.d));
	arrive(CLIENT, "QUIT\r\n", 6);
	dialogue_init(&model.d, &usual);
	assert_false(dialogue_quitting(&model.d));
}

/* A QUIT of ours is not the client's. */
static void test_quit_of_ours(void **state)
{
	(void)state;
	begin(&usual, RICH);
	dialogue_expect(&model.d, SMTP_QUIT, true);
	assert_false(dialogue_quitting(&model.d));
	arrive(SERVER, "221 bye\r\n", 9);
	assert_false(dialogue_quitting(&model.d));
}

/* The list can come from elsewhere than the server's EHLO, and be taken back in part or as a whole. */
static void test_25_57_list_that_a_session_makes(void **state)
{
	static const char *const lines[] = { "mx", "SIZE 700", "CHUNKING", "AUTH PLAIN" };
	const struct smtp_ehlo *e = &model.d.ehlo;

	(void)state;
	begin(&usual, POOR);
	for (size_t i = 0; i < COUNT(lines); i++)
		dialogue_ehlo_line(&model.d, i == 0, (const unsigned char *)lines[i], strlen(lines[i]));
	assert_int_equal(e->extensions, SMTP_EXT_SIZE | SMTP_EXT_CHUNKING | SMTP_EXT_AUTH);
	assert_int_equal(e->domain_len, 2);
	assert_string_equal(check("MAIL FROM:<a@b> SIZE=701\r\n"), "552 5.3.4 Message is larger than this server takes");
	dialogue_withdraw(&model.d, SMTP_EXT_AUTH | SMTP_EXT_PIPELINING);
	assert_int_equal(e->extensions, SMTP_EXT_SIZE | SMTP_EXT_CHUNKING);
	assert_string_equal(check("AUTH PLAIN\r\n"), "502 5.5.1 AUTH is not offered");
	dialogue_no_extensions(&model.d);
	assert_int_equal(e->extensions, 0);
	assert_string_equal(check("MAIL FROM:<a@b> SIZE=701\r\n"), "");
}

static void test_49_57_what_the_client_is_offered(void **state)
{
	struct smtp_offer offer = { .auth = true, .starttls = true };

	(void)state;
	begin(&usual, RICH);
	dialogue_offers(&model.d, &offer, false);
	assert_string_equal(check("AUTH PLAIN\r\n"), "");
	assert_string_equal(check("STARTTLS\r\n"), "");
	offer = (struct smtp_offer){ .auth = false };
	dialogue_offers(&model.d, &offer, true);
	assert_string_equal(check("AUTH PLAIN\r\n"), "538 5.7.11 AUTH needs encryption");
	assert_string_equal(check("STARTTLS\r\n"), "502 5.5.1 Not offered");
	model.d.encrypted = true;
	assert_string_equal(check("AUTH PLAIN\r\n"), "538 5.7.11 AUTH needs encryption up to the server");
	model.d.encrypted = false;
	model.d.limits.on_recipient = true;
	assert_string_equal(check("AUTH PLAIN\r\n"), "538 5.7.11 AUTH needs encryption");
	dialogue_offers(&model.d, &offer, false);
	assert_string_equal(check("AUTH PLAIN\r\n"), "502 5.5.1 AUTH is not offered");
}

static void test_34_more_commands_that_go_alone(void **state)
{
	struct dialogue_limits limits = usual;

	(void)state;
	limits.alone = 1u << SMTP_NOOP;
	begin(&limits, RICH);
	dialogue_set_alone(&model.d, 1u << SMTP_RSET);
	arrive(CLIENT, OPEN "RSET\r\nNOOP\r\n", sizeof OPEN - 1 + 12);
	expect_text("one by one", got.bytes, " >MAIL");
	arrive(SERVER, "250 a\r\n", 7);
	arrive(SERVER, "250 b\r\n", 7);
	close_message();
	expect_text("one by one", got.bytes, " >MAIL <250 >RSET <250 >NOOP");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_34_35_38_pipelining),
		cmocka_unit_test(test_18_25_28_order),
		cmocka_unit_test(test_13_19_data),
		cmocka_unit_test(test_45_46_bdat),
		cmocka_unit_test(test_49_auth),
		cmocka_unit_test(test_49_user_but_never_the_password),
		cmocka_unit_test(test_1_33_lines_that_are_no_good),
		cmocka_unit_test(test_32_command_line_limit),
		cmocka_unit_test(test_49_long_line_shows_nothing),
		cmocka_unit_test(test_49_long_answer),
		cmocka_unit_test(test_12_15_16_replies),
		cmocka_unit_test(test_11_long_replies),
		cmocka_unit_test(test_31_recipients_and_their_codes),
		cmocka_unit_test(test_28_replies_of_an_ended_transaction),
		cmocka_unit_test(test_28_decision_of_another_transaction),
		cmocka_unit_test(test_66_decisions),
		cmocka_unit_test(test_2_bare_newlines_as_configured),
		cmocka_unit_test(test_42_50_mail_parameters),
		cmocka_unit_test(test_42_mail_refused_here),
		cmocka_unit_test(test_38_text_of_a_transaction),
		cmocka_unit_test(test_31_most_recipients),
		cmocka_unit_test(test_8_9_content_is_counted),
		cmocka_unit_test(test_57_forget_server),
		cmocka_unit_test(test_35_hidden_commands),
		cmocka_unit_test(test_25_57_ehlo_list),
		cmocka_unit_test(test_mail_that_a_hook_refuses),
		cmocka_unit_test(test_31_recipients_that_a_hook_refuses),
		cmocka_unit_test(test_mail_that_is_answered_here),
		cmocka_unit_test(test_rewritten_recipients),
		cmocka_unit_test(test_3_4_5_kept_data),
		cmocka_unit_test(test_42_45_kept_chunks),
		cmocka_unit_test(test_45_kept_chunk_of_nothing),
		cmocka_unit_test(test_57_59_starttls),
		cmocka_unit_test(test_what_is_answered_late),
		cmocka_unit_test(test_49_auth_late),
		cmocka_unit_test(test_45_chunks_late),
		cmocka_unit_test(test_34_commands_that_go_alone),
		cmocka_unit_test(test_53_smtp_to_lmtp),
		cmocka_unit_test(test_53_lmtp_to_lmtp),
		cmocka_unit_test(test_53_replies_due),
		cmocka_unit_test(test_31_53_most_recipients),
		cmocka_unit_test(test_42_45_kept_message_as_one_chunk),
		cmocka_unit_test(test_53_kept_message_as_one_chunk),
		cmocka_unit_test(test_66_edited_message),
		cmocka_unit_test(test_66_enhanced_code_beside_the_text),
		cmocka_unit_test(test_quitting),
		cmocka_unit_test(test_quit_of_ours),
		cmocka_unit_test(test_25_57_list_that_a_session_makes),
		cmocka_unit_test(test_49_57_what_the_client_is_offered),
		cmocka_unit_test(test_34_more_commands_that_go_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
