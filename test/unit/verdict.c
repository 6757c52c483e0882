/* Unit tests of verdict.c: each verdict ends at a PROT_NONE page and is read to its end. What is written is written
 * into exactly the room that the contract names, with such a page behind it. */
#include "test/lib/unit.h"

#include "smtp.h"
#include "pure/verdict.h"

static struct text got;

/* ---- reading ---- */

static void say_named(const char *mark, const unsigned char *bytes, size_t n)
{
	if (!bytes)
		return;
	say(&got, "%s", mark);
	say_bytes(&got, bytes, n);
	say(&got, "]");
}

/* The word, then what belongs to it. */
static void say_verdict(const struct verdict *v)
{
	say(&got, "%s", verdict_word_name(v->word));
	if (v->code)
		say(&got, " %d %u.%u.%u", v->code, v->enhanced[0], v->enhanced[1], v->enhanced[2]);
	if (v->word == VERDICT_TARPIT)
		say(&got, " %u", v->seconds);
	say_named(" name[", v->name, v->name_len);
	if (v->text_len && v->word != VERDICT_TARPIT)
		say_named(" [", v->text, v->text_len);
	say(&got, ";");
}

/* Read a verdict to its end, or to what is no verdict. */
static void read_all(enum hook_event event, const void *verdict, size_t n)
{
	const unsigned char *in = guarded(verdict, n);
	enum verdict_status status;
	size_t at = 0, before = 0;
	const char *why = NULL;
	struct verdict v;

	clear(&got);
	while ((status = verdict_next(event, in, n, &at, &v, &why)) == VERDICT_LINE) {
		assert_true(at > before && at <= n && why == NULL);
		before = at;
		say_verdict(&v);
	}
	if (status == VERDICT_BAD)
		say(&got, "!%s", why);
	else
		assert_int_equal(at, n);
}

struct row {
	enum hook_event event;
	struct input in;
	const char *want;
};

static void run_rows(const struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		read_all(rows[i].event, rows[i].in.bytes, rows[i].in.len);
		expect_text(rows[i].in.bytes, got.bytes, rows[i].want);
	}
}

/* Which words an event has: exactly those of DESIGN 6, and close and log read no verdict at all. */
static void test_every_word_for_every_event(void **state)
{
	static const char *const lines[] = { "accept", "reject", "defer", "close", "discard", "tarpit 1", "source a",
		"upstream a", "tls may", "rewrite a", "add-header A: b", "remove-header A", "replace-message", "log k v" };
	static const char *const has[] = {
		[HOOK_CONNECT] = "accept reject defer close tarpit source upstream tls log",
		[HOOK_EHLO] = "accept reject defer close tarpit log",
		[HOOK_MAIL] = "accept reject defer close source upstream tls log",
		[HOOK_RCPT] = "accept reject defer close source upstream tls rewrite log",
		[HOOK_DATA] = "accept reject defer close discard add-header remove-header replace-message log",
		[HOOK_CLOSE] = "",
		[HOOK_LOG] = "",
		[HOOK_EVENT_COUNT] = "",
	};
	static const char *const names[] = { "connect", "ehlo", "mail", "rcpt", "data", "close", "log" };

	(void)state;
	for (size_t event = 0; event < COUNT(has); event++) {
		struct text list = { .len = 0 };

		for (size_t i = 0; i < COUNT(lines); i++) {
			const unsigned char *in = guarded(lines[i], strlen(lines[i]));
			size_t at = 0;
			const char *why;
			struct verdict v;

			if (verdict_next((enum hook_event)event, in, strlen(lines[i]), &at, &v, &why) == VERDICT_LINE)
				say(&list, "%s%s", list.len ? " " : "", verdict_word_name(v.word));
			else
				assert_string_equal(why, "a word that is not for this event");
			assert_memory_equal(lines[i], verdict_word_name((enum verdict_word)i),
			    strlen(verdict_word_name((enum verdict_word)i)));
		}
		expect_text(event < COUNT(names) ? names[event] : "none", list.bytes, has[event]);
	}
	for (size_t event = 0; event < HOOK_EVENT_COUNT; event++)
		assert_string_equal(hook_event_name((enum hook_event)event), names[event]);
}

static void test_which_words_end_a_verdict(void **state)
{
	static const enum verdict_word final[] = { VERDICT_ACCEPT, VERDICT_REJECT, VERDICT_DEFER, VERDICT_SHUT,
		VERDICT_DISCARD, VERDICT_REPLACE_MESSAGE };
	unsigned want = 0;

	(void)state;
	for (size_t i = 0; i < COUNT(final); i++)
		want |= 1u << final[i];
	for (unsigned word = VERDICT_ACCEPT; word <= VERDICT_LOG; word++)
		assert_int_equal(verdict_is_final((enum verdict_word)word), want >> word & 1);
}

#define UNKNOWN "!an unknown word"
#define ARGUMENT "!a word that takes no argument has one"
#define CLASS "!a reply code that does not go with the word"
#define OTHER_CLASS "!an enhanced code of another class than the reply code"
#define SECONDS "!tarpit takes a whole number of seconds, up to 300"
#define ADD "!add-header takes NAME: VALUE"
#define REMOVE "!remove-header takes NAME"
#define KEY "!log takes KEY VALUE, the key of letters, digits and _.-"
#define CONTROL "!a NUL or carriage return"

static void test_lines_and_words(void **state)
{
	static const struct row rows[] = {
		{ HOOK_MAIL, IN(""), "" },
		{ HOOK_MAIL, IN("\n\r\n \t\n"), "" },
		{ HOOK_MAIL, IN("accept"), "accept;" },
		{ HOOK_MAIL, IN("accept\n"), "accept;" },
		{ HOOK_MAIL, IN("accept\r\n"), "accept;" },
		{ HOOK_MAIL, IN("accept\r"), "accept;" },
		{ HOOK_MAIL, IN(" \taccept \t\r\n\n"), "accept;" },
		{ HOOK_MAIL, IN("\n\nlog a b\r\n\r\nlog c d\naccept"), "log name[a] [b];log name[c] [d];accept;" },
		{ HOOK_MAIL, IN("accept now\n"), ARGUMENT },
		{ HOOK_DATA, IN("discard it\n"), ARGUMENT },
		{ HOOK_DATA, IN("replace-message x\n"), "!replace-message takes a number of octets, if anything" },
		{ HOOK_MAIL, IN("frob\n"), UNKNOWN },
		{ HOOK_MAIL, IN("Accept\n"), UNKNOWN },
		{ HOOK_MAIL, IN("accepted\n"), UNKNOWN },
		{ HOOK_MAIL, IN("acc\n"), UNKNOWN },
		{ HOOK_MAIL, IN("accept\vnow\n"), UNKNOWN },
		{ HOOK_MAIL, IN("\xef\xbb\xbf" "accept\n"), UNKNOWN },
		{ HOOK_MAIL, IN("log a b\nfrob\naccept\n"), "log name[a] [b];" UNKNOWN },
		{ HOOK_MAIL, IN("accept\0\n"), CONTROL },
		{ HOOK_MAIL, IN("\0\n"), CONTROL },
		{ HOOK_MAIL, IN("\r\r\n"), CONTROL },
		{ HOOK_MAIL, IN("accept\r\r\n"), CONTROL },
		{ HOOK_MAIL, IN("reject a\rb\n"), CONTROL },
		{ HOOK_MAIL, IN("reject a\0b\n"), CONTROL },
		{ HOOK_MAIL, IN("\raccept\n"), CONTROL },
		{ HOOK_DATA, IN("add-header A: b\r\r\n"), CONTROL },
	};

	(void)state;
	run_rows(rows, COUNT(rows));
}

static void test_replies(void **state)
{
	static const struct row rows[] = {
		{ HOOK_RCPT, IN("reject\n"), "reject 550 5.7.1 [Refused by policy];" },
		{ HOOK_RCPT, IN("defer\n"), "defer 451 4.7.1 [Try again later];" },
		{ HOOK_RCPT, IN("close\n"), "close 421 4.7.0 [Try again later];" },
		{ HOOK_RCPT, IN("reject go away\n"), "reject 550 5.7.1 [go away];" },
		{ HOOK_RCPT, IN("reject 554 go\n"), "reject 554 5.7.1 [go];" },
		{ HOOK_RCPT, IN("reject 554\n"), "reject 554 5.7.1 [Refused by policy];" },
		{ HOOK_RCPT, IN("reject 5.1.1 go\n"), "reject 550 5.1.1 [go];" },
		{ HOOK_RCPT, IN("reject 5.1.1\n"), "reject 550 5.1.1 [Refused by policy];" },
		{ HOOK_RCPT, IN("reject\t551 \t5.123.456 \t a  b \n"), "reject 551 5.123.456 [a  b];" },
		{ HOOK_RCPT, IN("reject 5.1.1 554 x\n"), "reject 550 5.1.1 [554 x];" },
		{ HOOK_RCPT, IN("reject 550 551 x\n"), "reject 550 5.7.1 [551 x];" },
		{ HOOK_RCPT, IN("reject 5.1 x\n"), "reject 550 5.7.1 [5.1 x];" },
		{ HOOK_RCPT, IN("reject 5.1.1x\n"), "reject 550 5.7.1 [5.1.1x];" },
		{ HOOK_RCPT, IN("reject 3.1.1 x\n"), "reject 550 5.7.1 [3.1.1 x];" },
		{ HOOK_RCPT, IN("reject 5500 x\n"), "reject 550 5.7.1 [5500 x];" },
		{ HOOK_RCPT, IN("reject 55 x\n"), "reject 550 5.7.1 [55 x];" },
		{ HOOK_RCPT, IN("reject 55x\n"), "reject 550 5.7.1 [55x];" },
		{ HOOK_RCPT, IN("reject \033[2J\xff\n"), "reject 550 5.7.1 [\\33[2J\xff];" },
		{ HOOK_RCPT, IN("reject 4.7.1 x\n"), OTHER_CLASS },
		{ HOOK_RCPT, IN("reject 2.0.0 x\n"), OTHER_CLASS },
		{ HOOK_RCPT, IN("defer 5.7.1 x\n"), OTHER_CLASS },
		{ HOOK_RCPT, IN("close 5.7.1 x\n"), OTHER_CLASS },
		{ HOOK_RCPT, IN("reject 550 4.7.1 x\n"), OTHER_CLASS },
		{ HOOK_RCPT, IN("defer 421 4.3.2 x\n"), "defer 421 4.3.2 [x];" },
		{ HOOK_RCPT, IN("close 4.3.2 x\n"), "close 421 4.3.2 [x];" },
		{ HOOK_RCPT, IN("close 450 x\n"), "close 421 4.7.0 [450 x];" },
		{ HOOK_RCPT, IN("close 550\n"), "close 421 4.7.0 [550];" },
	};

	(void)state;
	run_rows(rows, COUNT(rows));
}

/* All numbers of three digits: a code is one of the word's class, or a failure, or no code and so text. */
static void test_every_code(void **state)
{
	static const struct {
		const char *word;
		int class, usual;
	} words[] = { { "reject", 5, 550 }, { "defer", 4, 451 } };
	char line[32];

	(void)state;
	for (size_t i = 0; i < COUNT(words); i++)
		for (int code = 0; code < 1000; code++) {
			size_t n = (size_t)snprintf(line, sizeof line, "%s %03d x", words[i].word, code), at = 0;
			bool is_code = code >= 200 && code < 600;
			bool good = code / 100 == words[i].class && code / 10 % 10 <= 5;
			struct verdict v;
			const char *why;
			enum verdict_status status = verdict_next(HOOK_DATA, guarded(line, n), n, &at, &v, &why);

			assert_int_equal(status, is_code && !good ? VERDICT_BAD : VERDICT_LINE);
			if (status == VERDICT_BAD)
				continue;
			assert_int_equal(v.code, good ? code : words[i].usual);
			assert_int_equal(v.text_len, good ? 1 : 5);
		}
}

#define TEN "1234567890"
#define SIXTY TEN TEN TEN TEN TEN TEN

static void test_arguments(void **state)
{
	static const struct row rows[] = {
		{ HOOK_EHLO, IN("tarpit 0\n"), "tarpit 0;" },
		{ HOOK_EHLO, IN("tarpit 300\n"), "tarpit 300;" },
		{ HOOK_EHLO, IN("tarpit 007\n"), "tarpit 7;" },
		{ HOOK_EHLO, IN("tarpit 301\n"), SECONDS },
		{ HOOK_EHLO, IN("tarpit 4294967296\n"), SECONDS },
		{ HOOK_EHLO, IN("tarpit 99999999999999999999999\n"), SECONDS },
		{ HOOK_EHLO, IN("tarpit\n"), SECONDS },
		{ HOOK_EHLO, IN("tarpit -1\n"), SECONDS },
		{ HOOK_EHLO, IN("tarpit 1.5\n"), SECONDS },
		{ HOOK_EHLO, IN("tarpit 1 2\n"), SECONDS },
		{ HOOK_MAIL, IN("source  192.0.2.1 \n"), "source [192.0.2.1];" },
		{ HOOK_MAIL, IN("source\n"), "!an address is missing" },
		{ HOOK_MAIL, IN("upstream [::1]:25\n"), "upstream [[::1]:25];" },
		{ HOOK_MAIL, IN("upstream \n"), "!an address is missing" },
		{ HOOK_RCPT, IN("rewrite \"a b\"@c\n"), "rewrite [\"a b\"@c];" },
		{ HOOK_RCPT, IN("rewrite\n"), "!an address is missing" },
		{ HOOK_MAIL, IN("tls\n"), "tls name[];" },
		{ HOOK_MAIL, IN("tls verify\n"), "tls name[verify];" },
		{ HOOK_MAIL, IN("tls verify  mx.example \n"), "tls name[verify] [mx.example];" },
		{ HOOK_MAIL, IN("log a\n"), "log name[a];" },
		{ HOOK_MAIL, IN("log aZ0_.-  b \t c \n"), "log name[aZ0_.-] [b \\11 c];" },
		{ HOOK_MAIL, IN("log " SIXTY "1234 x\n"), "log name[" SIXTY "1234] [x];" },
		{ HOOK_MAIL, IN("log " SIXTY "12345 x\n"), KEY },
		{ HOOK_MAIL, IN("log\n"), KEY },
		{ HOOK_MAIL, IN("log a:b x\n"), KEY },
		{ HOOK_MAIL, IN("log \"a\" x\n"), KEY },
		{ HOOK_MAIL, IN("log \xc3\xa9 x\n"), KEY },
		{ HOOK_DATA, IN("add-header A: b\n"), "add-header name[A] [b];" },
		{ HOOK_DATA, IN("add-header A:b:c\n"), "add-header name[A] [b:c];" },
		{ HOOK_DATA, IN("add-header A:\n"), "add-header name[A];" },
		{ HOOK_DATA, IN("add-header A: \t b  c \r\n"), "add-header name[A] [b  c];" },
		{ HOOK_DATA, IN("add-header " SIXTY TEN "123456: x\n"), "add-header name[" SIXTY TEN "123456] [x];" },
		{ HOOK_DATA, IN("add-header " SIXTY TEN "1234567: x\n"), ADD },
		{ HOOK_DATA, IN("add-header\n"), ADD },
		{ HOOK_DATA, IN("add-header A\n"), ADD },
		{ HOOK_DATA, IN("add-header : b\n"), ADD },
		{ HOOK_DATA, IN("add-header A : b\n"), ADD },
		{ HOOK_DATA, IN("add-header A B: c\n"), ADD },
		{ HOOK_DATA, IN("add-header \xc3\xa9: c\n"), ADD },
		{ HOOK_DATA, IN("add-header A\033: c\n"), ADD },
		{ HOOK_DATA, IN("add-header A\177: c\n"), ADD },
		{ HOOK_DATA, IN("remove-header A\n"), "remove-header name[A] [A];" },
		{ HOOK_DATA, IN("remove-header A:\n"), "remove-header name[A] [A:];" },
		{ HOOK_DATA, IN("remove-header\n"), REMOVE },
		{ HOOK_DATA, IN("remove-header :\n"), REMOVE },
		{ HOOK_DATA, IN("remove-header A::\n"), REMOVE },
		{ HOOK_DATA, IN("remove-header A: b\n"), REMOVE },
		{ HOOK_DATA, IN("remove-header A B\n"), REMOVE },
	};

	(void)state;
	run_rows(rows, COUNT(rows));
}

/* 64 KiB: of short lines, of one line, and of no line at all. */
static void test_long_verdicts(void **state)
{
	static unsigned char verdict[VERDICT_MAX];
	size_t at = 0, lines = 0;
	const char *why;
	struct verdict v;

	(void)state;
	for (size_t i = 0; i < sizeof verdict; i++)
		verdict[i] = (unsigned char)"log a\n"[i % 6];
	verdict[VERDICT_MAX - 4] = verdict[VERDICT_MAX - 3] = verdict[VERDICT_MAX - 2] = verdict[VERDICT_MAX - 1] = '\n';
	while (verdict_next(HOOK_DATA, guarded(verdict, sizeof verdict), sizeof verdict, &at, &v, &why) == VERDICT_LINE)
		lines++;
	assert_int_equal(lines, VERDICT_MAX / 6);
	assert_int_equal(at, sizeof verdict);
	memset(verdict, 'x', sizeof verdict);
	memcpy(verdict, "reject 554 ", 11);
	at = 0;
	assert_int_equal(verdict_next(HOOK_DATA, guarded(verdict, sizeof verdict), sizeof verdict, &at, &v, &why),
	    VERDICT_LINE);
	assert_int_equal(v.text_len, sizeof verdict - 11);
	memset(verdict, ' ', sizeof verdict);
	at = 0;
	assert_int_equal(verdict_next(HOOK_DATA, guarded(verdict, sizeof verdict), sizeof verdict, &at, &v, &why),
	    VERDICT_END);
}

/* ---- replace-message ---- */

/* As the verdict comes in octet by octet: nothing is found before its line is whole, and then nothing else ever. */
static void test_where_the_message_begins(void **state)
{
	static const struct {
		struct input in;
		size_t want;
	} rows[] = {
		{ IN(""), 0 },
		{ IN("replace-message"), 0 },
		{ IN("replace-message\r"), 0 },
		{ IN("replace-message\nA: b\n"), 16 },
		{ IN("replace-message\r\nA: b\r\n"), 17 },
		{ IN("replace-message 5\nA: b\n"), 18 },
		{ IN(" \treplace-message \t\n\n"), 20 },
		{ IN("\n\nlog a b\nadd-header A: replace-message\nreplace-message\nreplace-message\n"), 56 },
		{ IN("replace-messages\n"), 0 },
		{ IN("Replace-Message\n"), 0 },
		{ IN("replace-message x\nreplace-message\n"), 34 }, /* no verdict, whatever follows */
		{ IN("log a replace-message\n"), 0 },
		{ IN("replace-message\0\n"), 0 },
		/* what follows the line that ends a verdict is not looked at */
		{ IN("accept\nreplace-message\nA: b\n"), 0 },
		{ IN("log a b\nreject 550 x\nreplace-message\nA: b\n"), 0 },
		{ IN("discard\nreplace-message\n"), 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		for (size_t n = 0; n <= rows[i].in.len; n++) {
			size_t want = rows[i].want && n >= rows[i].want ? rows[i].want : 0;
			size_t at = verdict_message_at(guarded(rows[i].in.bytes, n), n);

			if (at != want)
				fail_msg("%.60s: %zu of the first %zu octets, not %zu", rows[i].in.bytes, at, n, want);
		}
}

/* ---- headers ---- */

/* A field written into exactly the room it needs, with a page behind it that nobody may touch. */
static size_t write_field(const struct verdict *v, unsigned char **out)
{
	size_t cap = 2 * (v->name_len + v->text_len) + 8, n;
	unsigned char none[1] = { 'x' };

	*out = (unsigned char *)(uintptr_t)guarded("", 0) - cap;
	assert_int_equal(verdict_header_write(v, none, cap - 1), 0);
	assert_int_equal(none[0], 'x');
	n = verdict_header_write(v, *out, cap);
	assert_true(n > 0 && n <= cap);
	return n;
}

static bool is_written_blank(unsigned char c)
{
	return c == ' ' || c == '\t';
}

/* Lines of at most 998 octets, none of blanks alone, each but the first begins with a blank: RFC 5322 2.1.1, 2.2.3,
 * 3.2.2. No CR or LF stands anywhere else, and no other control. */
static void expect_field_lines(const unsigned char *out, size_t n)
{
	assert_true(n >= 2 && out[n - 2] == '\r' && out[n - 1] == '\n');
	for (size_t at = 0, len; at < n; at += len) {
		bool text = false;

		len = smtp_find_line(out + at, n - at);
		assert_true(len >= 2 && len <= 998 + 2 && out[at + len - 2] == '\r');
		assert_true(at == 0 || is_written_blank(out[at]));
		for (size_t i = 0; i < len - 2; i++) {
			assert_true(out[at + i] >= ' ' && out[at + i] != 0x7f);
			text = text || out[at + i] != ' ';
		}
		assert_true(text);
	}
}

/* What a reader makes of the field: CR LF in front of a blank is nothing, RFC 5322 2.2.3. */
static size_t unfold(const unsigned char *out, size_t n, unsigned char *value)
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++)
		if (out[i] != '\r' && out[i] != '\n')
			value[len++] = out[i];
	return len;
}

static struct verdict field_of(const char *name, const void *text, size_t n)
{
	return (struct verdict){ .word = VERDICT_ADD_HEADER, .name = (const unsigned char *)name,
		.name_len = strlen(name), .text = text, .text_len = n };
}

#define FIFTY TEN TEN TEN TEN TEN

static void test_header_fields(void **state)
{
	static const struct {
		const char *name;
		struct input text;
		const char *want;
	} rows[] = {
		{ "A", IN("b"), "A: b\\r\\n" },
		{ "A", IN(""), "A: \\r\\n" },
		{ "X-Long", IN(SIXTY " " TEN), "X-Long: " SIXTY "\\r\\n " TEN "\\r\\n" },
		{ "X-Long", IN(FIFTY TEN " 123456789"), "X-Long: " FIFTY TEN " 123456789\\r\\n" },
		{ "X-Long", IN(FIFTY TEN " " TEN), "X-Long: " FIFTY TEN "\\r\\n " TEN "\\r\\n" },
		{ "X-Long", IN(SIXTY TEN " a  b"), "X-Long: " SIXTY TEN "\\r\\n a  b\\r\\n" },
		{ "X-Long", IN(SIXTY SIXTY), "X-Long: " SIXTY SIXTY "\\r\\n" },
		{ "X-Long", IN(SIXTY SIXTY " " SIXTY SIXTY " b"),
		    "X-Long: " SIXTY SIXTY "\\r\\n " SIXTY SIXTY "\\r\\n b\\r\\n" },
		{ "A", IN("b\tc\033d\177e\001"), "A: b c d e\\r\\n" },
		{ "A", IN("b\r\nB: c\r\n\r\nbody"), "A: b  B: c    body\\r\\n" },
		{ "A", IN("\001\002"), "A: \\r\\n" },
		{ "A", IN("\001" SIXTY SIXTY), "A:  " SIXTY SIXTY "\\r\\n" }, /* broken in front, its first line were empty */
		{ "A", IN(SIXTY TEN "12345 \001\001\001"), "A: " SIXTY TEN "12345\\r\\n" },
		{ "A", IN(SIXTY TEN "12345 \001\001\001 b"), "A: " SIXTY TEN "12345\\r\\n     b\\r\\n" },
		{ "A", IN("caf\xc3\xa9"), "A: caf\xc3\xa9\\r\\n" },
		{ SIXTY TEN "123456", IN("b c"), SIXTY TEN "123456: b\\r\\n c\\r\\n" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct verdict v = field_of(rows[i].name, rows[i].text.bytes, rows[i].text.len);
		unsigned char *out;
		size_t n = write_field(&v, &out);

		expect_field_lines(out, n);
		clear(&got);
		say_bytes(&got, out, n);
		expect_text(rows[i].name, got.bytes, rows[i].want);
	}
}

/* A value of words and blanks whose lengths lie around where lines end. wild: longer than a line can be. */
static size_t make_value(unsigned char *text, size_t cap, bool wild)
{
	static const uint32_t lengths[] = { 1, 1, 2, 3, 10, 37, 38, 39, 75, 76, 77, 78, 79, 300, 995, 996, 997, 998, 999,
		1994, 3000 };
	static const char blanks[] = " \t\001\177";
	uint32_t parts = any(12);
	size_t n = 0;

	while (parts--) {
		size_t word = lengths[any(wild ? COUNT(lengths) : COUNT(lengths) - 7)];
		size_t run = any(4) ? 1 : lengths[any(wild ? COUNT(lengths) : COUNT(lengths) - 8)];

		if (n + word + run > cap)
			break;
		memset(text + n, (int)('a' + any(26)), word);
		n += word;
		for (size_t i = 0; i < run; i++)
			text[n++] = (unsigned char)blanks[any(4) ? 0 : any(4)];
	}
	return n;
}

/* Unfolding gives the value back: blanks for controls, none at the end. */
static void test_unfolding_gives_the_value_back(void **state)
{
	static unsigned char text[1 << 16], value[1 << 17], want[1 << 16];

	(void)state;
	for (int round = 0; round < 20000; round++) {
		size_t n = make_value(text, 4000, false), len = 3, n_value;
		struct verdict v = field_of("A", text, n);
		unsigned char *out;

		memcpy(want, "A: ", 3);
		for (size_t i = 0; i < n; i++)
			want[len++] = text[i] < ' ' || text[i] == 0x7f ? ' ' : text[i];
		while (len > 3 && want[len - 1] == ' ')
			len--;
		n = write_field(&v, &out);
		expect_field_lines(out, n);
		n_value = unfold(out, n, value);
		assert_int_equal(n_value, len);
		assert_memory_equal(value, want, len);
	}
}

/* What no line can hold is broken all the same, and nothing but blanks is added or lost. */
static void test_values_that_no_line_can_hold(void **state)
{
	static unsigned char text[1 << 16];

	(void)state;
	for (int round = 0; round < 20000; round++) {
		size_t n = make_value(text, 20000, true), at = 0;
		struct verdict v = field_of(round % 2 ? SIXTY TEN "123456" : "A", text, n);
		unsigned char *out;

		n = write_field(&v, &out);
		expect_field_lines(out, n);
		for (size_t i = v.name_len + 1; i < n; i++) {
			if (out[i] <= ' ')
				continue;
			while (at < v.text_len && (text[at] <= ' ' || text[at] == 0x7f))
				at++;
			assert_true(at < v.text_len && out[i] == text[at++]);
		}
		while (at < v.text_len && (text[at] <= ' ' || text[at] == 0x7f))
			at++;
		assert_int_equal(at, v.text_len);
	}
}

/* The longest value that a verdict has room for, of one word, of blanks, and of words that are broken most often. */
static void test_longest_value(void **state)
{
	static unsigned char text[VERDICT_MAX];

	(void)state;
	for (size_t word = 0; word <= 200; word++) {
		struct verdict v = field_of("A", text, sizeof text - 14);
		unsigned char *out;
		size_t n;

		memset(text, word == 1 ? ' ' : 'x', sizeof text);
		text[0] = text[v.text_len - 1] = 'x';
		for (size_t i = word; word > 1 && i < v.text_len - 1; i += word)
			text[i] = ' ';
		n = write_field(&v, &out);
		expect_field_lines(out, n);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_word_for_every_event),
		cmocka_unit_test(test_which_words_end_a_verdict),
		cmocka_unit_test(test_lines_and_words),
		cmocka_unit_test(test_replies),
		cmocka_unit_test(test_every_code),
		cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_long_verdicts),
		cmocka_unit_test(test_where_the_message_begins),
		cmocka_unit_test(test_header_fields),
		cmocka_unit_test(test_unfolding_gives_the_value_back),
		cmocka_unit_test(test_values_that_no_line_can_hold),
		cmocka_unit_test(test_longest_value),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
