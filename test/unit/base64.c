/* Base64, there and back, and blocks of PEM text. */
#include "test/lib/unit.h"

#include "pure/base64.h"

static struct text got;

/* What n octets of text decode to, with room for `room`. */
static const char *decoded(const char *text, size_t room)
{
	static unsigned char out[64];
	size_t n = base64_decode((const unsigned char *)guarded(text, strlen(text)), strlen(text), out, room);

	clear(&got);
	say_bytes(&got, out, n);
	return got.bytes;
}

static void decoding(void **state)
{
	static const struct {
		const char *text, *want;
	} rows[] = {
		{ "", "" }, { "Zg==", "f" }, { "Zm8=", "fo" }, { "Zm9v", "foo" }, { "Zm9vYmFy", "foobar" }, /* RFC 4648 10 */
		{ "Zm9vYg", "foob" }, { "Zm9v YmFy", "foobar" }, { "Zm9v\r\n\tYmFy\r\n", "foobar" }, { "+/+/", "\373\377\277" },
		{ "Z", "" }, { "Zm9vY", "foo" }, { "Zm9v=YmFy", "foo" }, { "Zm9v!YmFy", "foo" }, { "*", "" }, { "=", "" },
		{ "Zm9v\303\244", "foo" }, { "Zm9v-_", "foo" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		if (strcmp(rows[i].want, "\373\377\277") == 0)
			assert_memory_equal(decoded(rows[i].text, 64), rows[i].want, 3);
		else
			expect_text(rows[i].text, decoded(rows[i].text, 64), rows[i].want);
	for (size_t room = 0; room < 7; room++)
		assert_int_equal(strlen(decoded("Zm9vYmFy", room)), room < 6 ? room : 6);
}

static void there_and_back(void **state)
{
	unsigned char in[48], out[48];
	char text[65];

	(void)state;
	for (unsigned round = 0; round < 2000; round++) {
		size_t n = round % sizeof in, len;

		for (size_t i = 0; i < n; i++)
			in[i] = (unsigned char)any(256);
		len = base64_encode(guarded((const char *)in, n), n, text);
		assert_int_equal(len, (n + 2) / 3 * 4);
		assert_int_equal(base64_decode((const unsigned char *)guarded(text, len), len, out, n), n);
		assert_memory_equal(in, out, n);
	}
}

/* "LABEL:octets of the body" of each block. */
static const char *blocks(const char *text)
{
	const unsigned char *at = guarded(text, strlen(text)), *end = at + strlen(text);
	struct pem p;

	clear(&got);
	while (pem_next(&at, end, &p)) {
		assert_true(at <= end && p.body + p.body_len <= end);
		say(&got, "%.*s:%u ", (int)p.label_len, p.label, (unsigned)p.body_len);
	}
	return got.bytes;
}

static void pem(void **state)
{
#define BLOCK "-----BEGIN X-----\nZg==\n-----END X-----"
	static const struct {
		const char *text, *want;
	} rows[] = {
		{ "", "" }, { BLOCK, "X:6 " }, { "text\n" BLOCK "\nmore\n" BLOCK, "X:6 X:6 " }, { BLOCK BLOCK, "X:6 X:6 " },
		{ "-----BEGIN A B-----\r\n-----END A B-----", "A B:2 " }, { "-----BEGIN -----x-----END -----", ":1 " },
		{ "-----BEGIN X-----\nZg==\n", "" }, { "-----BEGIN X-----\n-----END X----", "" },
		{ "-----BEGIN X-----\n-----END Y-----\n" BLOCK, "X:6 " }, { "-----BEGIN X", "" }, { "-----BEGIN X-----", "" },
		{ "-----BEGIN X-----\n-----END XX-----", "" }, { "-----END X-----", "" },
		{ "-----BEGIN X-----\nZg==\n" BLOCK, "X:6 " }, { "-----BEGIN Y-----\n" BLOCK "-----END Y-----", "X:6 " },
	};
	const unsigned char *at;
	struct pem p;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		expect_text(rows[i].text, blocks(rows[i].text), rows[i].want);
	at = guarded(BLOCK, sizeof BLOCK - 1);
	assert_true(pem_next(&at, at + sizeof BLOCK - 1, &p));
	assert_true(pem_is(&p, "X") && !pem_is(&p, "") && !pem_is(&p, "XX") && !pem_is(&p, "x"));
	for (size_t n = 0; n < sizeof BLOCK - 1; n++) {
		at = guarded(BLOCK, n);
		assert_false(pem_next(&at, at + n, &p));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(decoding), cmocka_unit_test(there_and_back), cmocka_unit_test(pem) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
