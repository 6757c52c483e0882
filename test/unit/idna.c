/* Domains as the DNS has them. */
#include "test/lib/unit.h"

#include "pure/idna.h"

#include <stdlib.h>

/* What becomes of n octets; "": nothing. */
static const char *ascii_of(const void *bytes, size_t n)
{
	static char text[DNS_NAME_MAX + 1];
	size_t len;

	memset(text, 'x', sizeof text);
	len = idna_ascii(guarded(bytes, n), n, text);
	assert_int_equal(strlen(text), len);
	return text;
}

static void become(const char *const (*rows)[2], size_t n)
{
	for (size_t i = 0; i < n; i++)
		assert_string_equal(ascii_of(rows[i][0], strlen(rows[i][0])), rows[i][1]);
}

/* RFC 3492 7.1, (A) to (R) in lower case, but for (H), which is too long for a label. */
static void vectors(void **state)
{
	static const char *const rows[][2] = {
		{ "ليهمابتكلموشعربي؟", "xn--egbpdaj6bu4bxfgehfvwxn" },
		{ "他们为什么不说中文", "xn--ihqwcrb4cv8a8dqg056pqjye" },
		{ "他們爲什麽不說中文", "xn--ihqwctvzc91f659drss3x8bo0yb" },
		{ "pročprostěnemluvíčesky", "xn--proprostnemluvesky-uyb24dma41a" },
		{ "למההםפשוטלאמדבריםעברית", "xn--4dbcagdahymbxekheh6e0a7fei0b" },
		{ "यहलोगहिन्दीक्योंनहींबोलसकतेहैं", "xn--i1baa7eci9glrd9b2ae1bj0hfcgg6iyaf8o0a1dig0cd" },
		{ "なぜみんな日本語を話してくれないのか", "xn--n8jok5ay5dzabd5bym9f0cm5685rrjetr6pdxa" },
		{ "почемужеонинеговорятпорусски", "xn--b1abfaaepdrnnbgefbadotcwatmq2g4l" },
		{ "porquénopuedensimplementehablarenespañol", "xn--porqunopuedensimplementehablarenespaol-fmd56a" },
		{ "tạisaohọkhôngthểchỉnóitiếngviệt", "xn--tisaohkhngthchnitingvit-kjcr8268qyxafd2f1b9g" },
		{ "3年b組金八先生", "xn--3b-ww4c5e180e575a65lsy2b" },
		{ "安室奈美恵-with-super-monkeys", "xn---with-super-monkeys-pc58ag80a8qai00g7n9n" },
		{ "hello-another-way-それぞれの場所", "xn--hello-another-way--fc4qua05auwb3674vfr0b" },
		{ "ひとつ屋根の下2", "xn--2-u9tlzr9756bt3uc0v" },
		{ "majiでkoiする5秒前", "xn--majikoi5-783gue6qz075azm5e" },
		{ "パフィーdeルンバ", "xn--de-jg4avhby1noc0d" },
		{ "そのスピードで", "xn--d9juau41awczczp" },
		{ "세계의모든사람들이한국어를이해한다면얼마나좋을까", "" },
	};

	(void)state;
	become(rows, COUNT(rows));
}

static void domains(void **state)
{
	static const char *const rows[][2] = {
		{ "Example.ORG", "example.org" }, { "example.org.", "example.org" }, { "localhost", "localhost" }, { "a_b.test", "a_b.test" },
		{ "XN--bcher-kva.example", "xn--bcher-kva.example" }, { "[192.0.2.1]", "[192.0.2.1]" },
		{ "bücher.example", "xn--bcher-kva.example" }, { "Bücher.Example.", "xn--bcher-kva.example" },
		{ "mx.bücher.straße", "mx.xn--bcher-kva.xn--strae-oqa" }, { "ü", "xn--tda" }, { "例え.テスト", "xn--r8jz45g.xn--zckzah" },
		{ "łódź.test", "xn--d-uga0v4h.test" }, { "ÿ.test", "xn--wda.test" }, { "💩.test", "xn--ls8h.test" },
		{ "", "" }, { ".", "" }, { ".test", "" }, { "a..test", "" }, { "a.test..", "" }, { "ü..test", "" }, { ".ü", "" },
	};

	(void)state;
	become(rows, COUNT(rows));
	assert_string_equal(ascii_of("a\0b", 3), "");
	assert_string_equal(ascii_of("a\0\xc3\xbc", 4), "");
}

/* What can be in no label, as far as it is told. */
static void no_labels(void **state)
{
	static const char *const rows[] = {
		"\xc3", "a\xc3.test", "\xfc.test", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80", /* no UTF-8 */
		"BÜCHER.test", "Łódź.test", "ŹRÓDŁO.test", "ΑΘΗΝΑ.test", "МОСКВА.test", "ẞ.test", "Ỹ.test",			 /* capitals */
		"bu\xcc\x88" "cher.test", "\xcc\x88" "a.test",								   /* no NFC */
		"a\xe3\x80\x82test", "a\xef\xbc\x8etest", "\xef\xbd\x82.test", "\xc2\xa0.test", "\xe2\x80\x8b.test", "\xe2\x80\xae.test",
		"\xee\x80\x80.test", "\xef\xbb\xbf.test",
		"-ü.test", "ü-.test", "xn--ü.test", "ab--ü.test",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		if (*ascii_of(rows[i], strlen(rows[i])))
			fail_msg("%s", rows[i]);
}

/* A label has 63 octets, a name 253. */
static void lengths(void **state)
{
	char text[600];
	size_t n = 0;

	(void)state;
	memset(text, 'a', sizeof text);
	for (size_t i = 1; i < sizeof text; i++)
		assert_int_equal(strlen(ascii_of(text, i)), i < 64 ? i : 0);
	for (size_t i = 0; i < sizeof text; i += 64)
		text[i] = '.';
	for (size_t i = 1; i < sizeof text; i++)
		if (i != 64 && (i - 1) % 64)
			assert_int_equal(strlen(ascii_of(text + 1, i - 1)), i - 1 > 253 ? 0 : i - 1);
	for (size_t i = 0; i < 100; i++) { /* "a" and one point: "xn--a...-" and some digits */
		memset(text, 'a', i);
		memcpy(text + i, "\xc3\xbc", 2);
		n = strlen(ascii_of(text, i + 2));
		assert_true(n ? n > i + 5 && n <= 63 : i > 50);
	}
	for (size_t i = 0; i + 2 <= sizeof text; i += 2)
		memcpy(text + i, "\xc3\xbc", 2);
	for (size_t i = 2; i <= sizeof text; i += 2)
		assert_true((*ascii_of(text, i) != 0) == (i / 2 <= 57));
}

/* Whatever comes, it ends, and stays within the buffers; what comes out is ASCII. */
static void hostile(void **state)
{
	unsigned char bytes[300];
	const char *text;

	(void)state;
	srand(1);
	for (unsigned round = 0; round < 30000; round++) {
		size_t n = (size_t)rand() % sizeof bytes;
		static const unsigned char pieces[][5] = { "ü", "語", "💩", ".", "a", "\xff", "-", "\xf4\x8f\xbf\xbf" };

		for (size_t i = 0; i < n; i++)
			bytes[i] = (unsigned char)rand();
		for (size_t i = 0; round % 2 && i + 5 < n;) {
			const unsigned char *piece = pieces[rand() % (round % 3 ? 5 : 8)];

			memcpy(bytes + i, piece, strlen((const char *)piece));
			i += strlen((const char *)piece);
		}
		for (text = ascii_of(bytes, n); *text; text++)
			assert_true(!(*text & 0x80));
	}
}

static void of_mailboxes(void **state)
{
	static const char *const rows[][2] = {
		{ "user@bücher.example", "xn--bcher-kva.example" }, { "ü@D.test.", "d.test" }, { "\"a@b\"@c.test", "c.test" }, { "postmaster", "" },
		{ "", "" }, { "a@", "" }, { "a@BÜ.test", "" },
	};
	char text[DNS_NAME_MAX + 1];

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		size_t n = strlen(rows[i][0]);

		assert_int_equal(idna_domain_of(guarded(rows[i][0], n), n, text), strlen(rows[i][1]));
		assert_string_equal(text, rows[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(vectors), cmocka_unit_test(domains), cmocka_unit_test(no_labels),
		cmocka_unit_test(lengths), cmocka_unit_test(hostile), cmocka_unit_test(of_mailboxes) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
