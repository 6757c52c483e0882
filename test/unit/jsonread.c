/* Unit tests of pure/jsonread.c. */
#include "test/lib/unit.h"

#include "pure/jsonread.h"

#include <stdlib.h>
#include <string.h>

/* A copy without anything behind it, so that a sanitizer sees what is read too far. */
static char *exact(const char *text, size_t n)
{
	char *copy = malloc(n ? n : 1);

	assert_non_null(copy);
	memcpy(copy, text, n);
	return copy;
}

static bool valid(const char *text, size_t n)
{
	char *copy = exact(text, n);
	struct jsonread r;
	struct jsonread_text value;

	jsonread_begin(&r, copy, n);
	jsonread_any(&r, &value);
	bool good = jsonread_end(&r);
	free(copy);
	return good;
}

static void test_grammar(void **state)
{
	static const char *good[] = { "{}", "[]", " [1, -2.5e+3 ,\"\\u00e4\\n\",true,false,null] ", "{\"a\":{\"b\":[{}]},\"c\":0}", "\"\"", "0",
		"[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]" };
	static const char *wrong[] = { "", "{", "}", "[1,]", "[,1]", "{\"a\"}", "{\"a\":}", "{a:1}", "{\"a\":1,}", "{\"a\":1 \"b\":2}", "01", "-",
		"1.", "1e", ".5", "+1", "\"\\x\"", "\"\\u12g4\"", "\"\n\"", "\"a", "tru", "nul", "[1]]", "{}{}", "[}", "{]", "1 2", "\"\\",
		"[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]" };
	(void)state;

	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		assert_true(valid(good[i], strlen(good[i])));
		for (size_t n = 0; n + 2 < strlen(good[i]); n++)
			if (good[i][0] == '{' || good[i][0] == '[')
				assert_false(valid(good[i], n));
	}
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_false(valid(wrong[i], strlen(wrong[i])));
	assert_false(valid("\"\0\"", 3));
}

static void test_values(void **state)
{
	static const char line[] = "{\"s\":\"x\\u0041\",\"n\":12.3456,\"t\":true,\"l\":[1,\"two\",{\"three\":3}],\"z\":null,\"big\":1234567890123456789}";
	struct jsonread r;
	struct jsonread_text name, text = { 0 };
	int64_t n = 0, sum = 0;
	bool flag = false;
	(void)state;

	jsonread_begin(&r, line, sizeof line - 1);
	assert_true(jsonread_object(&r));
	assert_true(jsonread_member(&r, &name) && jsonread_is(&name, "s"));
	assert_true(jsonread_string(&r, &text));
	assert_int_equal(text.n, 7);
	assert_true(jsonread_member(&r, &name) && jsonread_thousandths(&r, &n));
	assert_int_equal(n, 12345);
	assert_true(jsonread_member(&r, &name) && jsonread_bool(&r, &flag) && flag);
	assert_true(jsonread_member(&r, &name) && jsonread_array(&r));
	while (jsonread_element(&r))
		sum += jsonread_thousandths(&r, &n) ? n : 10;
	assert_int_equal(sum, 1020);
	assert_true(jsonread_member(&r, &name) && !jsonread_string(&r, &text) && text.n == 7);
	assert_true(jsonread_member(&r, &name) && jsonread_thousandths(&r, &n) && n > 0);
	assert_false(jsonread_member(&r, &name));
	assert_true(jsonread_end(&r));
}

static void unescapes(const char *in, size_t cap, const char *expected)
{
	struct jsonread_text text = { in, strlen(in) };
	char out[64];

	assert_int_equal(jsonread_unescape(&text, out, cap), strlen(expected));
	assert_string_equal(out, expected);
}

static void test_unescape(void **state)
{
	(void)state;
	unescapes("a\\\"\\\\\\/\\b\\f\\n\\r\\t", 64, "a\"\\/\b\f\n\r\t");
	unescapes("\\u00e4\\u20ac\\ud83d\\ude00", 64, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
	unescapes("\\ud83dx\\ude00\\u0000", 64, "\xef\xbf\xbdx\xef\xbf\xbd\xef\xbf\xbd");
	unescapes("\xff\xc3", 64, "\xef\xbf\xbd\xef\xbf\xbd");
	unescapes("abcdef", 4, "abc");
	unescapes("ab\\u20ac", 5, "ab");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_grammar), cmocka_unit_test(test_values), cmocka_unit_test(test_unescape) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
