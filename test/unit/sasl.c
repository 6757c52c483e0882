/* AUTH exchanges: the user's name in what a client says, and what smtpwarp says to an upstream. */
#include "test/lib/unit.h"

#include "pure/sasl.h"

static struct text got;

/* ---- what clients say ---- */

static void test_49_mechanisms(void **state)
{
	static const struct {
		const char *argument;
		size_t want;
	} rows[] = {
		{ "PLAIN", 5 }, { "plain AGpvZQBzZWNyZXQ=", 5 }, { "SCRAM-SHA-256-PLUS x", 18 }, { "XOAUTH2\t=", 7 },
		{ "", 0 }, { " PLAIN", 0 }, { "PLAI", 0 }, { "PLAIN2", 0 }, { "AGpvZQBzZWNyZXQ=", 0 }, { "SCRAM-SHA", 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		size_t n = strlen(rows[i].argument);

		if (sasl_mechanism(guarded(rows[i].argument, n), n) != rows[i].want)
			fail_msg("%s", rows[i].argument);
	}
}

static size_t base64(const char *in, size_t n, char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t len = 0;

	for (size_t i = 0; i < n; i += 3) {
		uint32_t bits = 0;

		for (size_t k = 0; k < 3; k++)
			bits = bits << 8 | (i + k < n ? (unsigned char)in[i + k] : 0);
		for (size_t k = 0; k < 4; k++)
			out[len++] = i + k > n ? '=' : digits[bits >> (18 - 6 * k) & 63];
	}
	return len;
}

static void test_49_user(void **state)
{
	static const struct {
		const char *name, *mech;
		unsigned step;
		struct input plain;
		const char *want;
	} rows[] = {
		{ "plain", "PLAIN", 0, IN("\0joe\0secret"), "joe" },
		{ "plain with authzid", "plain", 0, IN("boss\0joe\0secret"), "joe" },
		{ "plain without password", "PLAIN", 0, IN("\0joe\0"), "joe" },
		{ "plain, no user", "PLAIN", 0, IN("\0\0secret"), "" },
		{ "plain with one NUL: that is user and password", "PLAIN", 0, IN("joe\0secret"), "" },
		{ "plain without NUL", "PLAIN", 0, IN("joesecret"), "" },
		{ "login, user", "LOGIN", 0, IN("joe"), "joe" },
		{ "login, password", "LOGIN", 1, IN("secret"), "" },
		{ "login, later", "LOGIN", 2, IN("secret"), "" },
		{ "cram-md5", "CRAM-MD5", 0, IN("joe 0123abcd"), "joe" },
		{ "cram-md5, blank in the name", "cram-md5", 0, IN("joe doe 0123abcd"), "joe doe" },
		{ "cram-md5 without user", "CRAM-MD5", 0, IN("0123abcd"), "" },
		{ "scram", "SCRAM-SHA-256", 0, IN("n,,n=joe,r=abc"), "joe" },
		{ "scram with authzid", "SCRAM-SHA-1-PLUS", 0, IN("p=tls-unique,a=x,n=joe,r=abc"), "joe" },
		{ "scram, proof", "SCRAM-SHA-1", 1, IN("c=biws,r=abc,p=secret"), "" },
		{ "scram, a name with escapes", "SCRAM-SHA-1", 0, IN("n,,n=a=2Cb=3Dc,r=abc"), "a,b=c" },
		{ "scram, bad escapes", "SCRAM-SHA-1", 0, IN("n,,n=a=2cb,r=abc"), "" },
		{ "scram, an escape that is cut", "SCRAM-SHA-1", 0, IN("n,,n=a=3,r=abc"), "" },
		{ "scram, empty name", "SCRAM-SHA-1", 0, IN("n,,n=,r=abc"), "" },
		{ "scram, name in the nonce", "SCRAM-SHA-1", 0, IN("n,,r=abc,n=boss,"), "" },
		{ "scram, second name", "SCRAM-SHA-1", 0, IN("y,,n=joe,n=boss,r=abc"), "joe" },
		{ "scram, name in the type of binding", "SCRAM-SHA-1-PLUS", 0, IN("p=x,n=boss,n=joe,r=abc"), "" },
		{ "scram, an extension that we do not know", "SCRAM-SHA-1", 0, IN("n,,m=x,n=boss,r=abc"), "" },
		{ "scram without a header", "SCRAM-SHA-1", 0, IN("n=joe,r=abc"), "" },
		{ "scram without type of binding", "SCRAM-SHA-1-PLUS", 0, IN("p=,,n=joe,r=abc"), "" },
		{ "scram, first in a later line", "SCRAM-SHA-1", 1, IN("n,,n=boss,r=abc"), "" },
		{ "oauthbearer, first in a later line", "OAUTHBEARER", 1, IN("n,a=boss,\001auth=Bearer x\001\001"), "" },
		{ "scram, cut short", "SCRAM-SHA-1", 0, IN("n,,n=joe"), "" },
		{ "xoauth2", "XOAUTH2", 0, IN("user=joe@x\001auth=Bearer secret\001\001"), "joe@x" },
		{ "xoauth2 without separator", "XOAUTH2", 0, IN("user=joe@x auth=Bearer secret"), "" },
		{ "xoauth2, user= in the token", "XOAUTH2", 0, IN("auth=Bearer user=secret\001\001"), "" },
		{ "oauthbearer", "OAUTHBEARER", 0, IN("n,a=joe@x,\001host=h\001auth=Bearer secret\001\001"),
		    "joe@x" },
		{ "oauthbearer, a name with escapes", "OAUTHBEARER", 0, IN("F,y,a==3D=2C,\001auth=Bearer x\001\001"), "=," },
		{ "oauthbearer, name in the token", "OAUTHBEARER", 0, IN("n,,\001auth=Bearer x,a=boss,\001\001"), "" },
		{ "oauthbearer, name behind the header", "OAUTHBEARER", 0, IN("n,,a=boss,\001auth=Bearer x\001\001"), "" },
		{ "oauthbearer, name before the header", "OAUTHBEARER", 0, IN("x,a=boss,n,,\001auth=Bearer x\001\001"), "" },
		{ "oauthbearer that ends with the header", "OAUTHBEARER", 0, IN("n,a=joe,"), "" },
		{ "oauthbearer after an error", "OAUTHBEARER", 0, IN("\001"), "" },
		{ "oauthbearer without separator", "OAUTHBEARER", 0, IN("n,a=joe@x\001auth=Bearer secret\001\001"),
		    "" },
		{ "oauthbearer without user", "OAUTHBEARER", 0, IN("n,,\001auth=Bearer secret\001\001"), "" },
		{ "unknown mechanism", "GSSAPI", 0, IN("joe\0secret"), "" },
		{ "external", "EXTERNAL", 0, IN("joe"), "" },
		{ "no text", "LOGIN", 0, IN(""), "" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		char b64[256];
		unsigned char name[64];
		size_t n = base64(rows[i].plain.bytes, rows[i].plain.len, b64), len;

		len = sasl_user((const unsigned char *)rows[i].mech, strlen(rows[i].mech), rows[i].step,
		    guarded(b64, n), n, name, sizeof name);
		clear(&got);
		say_bytes(&got, name, len);
		expect_text(rows[i].name, got.bytes, rows[i].want);
	}
}

static void test_49_user_limits(void **state)
{
	char plain[3000], b64[4100];
	unsigned char name[16];
	const unsigned char *login = (const unsigned char *)"LOGIN", *plain_mech = (const unsigned char *)"PLAIN";
	size_t n;

	(void)state;
	memset(plain, 'x', sizeof plain);
	n = base64(plain, sizeof plain, b64);
	assert_int_equal(sasl_user(login, 5, 0, guarded(b64, n), n, name, sizeof name), sizeof name);
	assert_memory_equal(name, plain, sizeof name);
	plain[0] = plain[2000] = 0; /* where the name ends cannot be seen: no guess, it might be the password */
	n = base64(plain, sizeof plain, b64);
	assert_int_equal(sasl_user(plain_mech, 5, 0, guarded(b64, n), n, name, sizeof name), 0);
	for (const char *const *bad = (const char *const[]){ "*", "=", "", "!!!!", NULL }; *bad; bad++)
		assert_int_equal(sasl_user(login, 5, 0, guarded(*bad, strlen(*bad)), strlen(*bad), name,
				     sizeof name), 0);
}

/* ---- what smtpwarp says ---- */

static void test_49_responses(void **state)
{
	static const struct {
		const char *word, *want;
	} rows[] = { /* RFC 4648 10 */
		{ "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" },
		{ "foobar", "Zm9vYmFy" }, { "\376\377\277\357\277", "/v+/778=" },
	};
	static const struct sasl_pair tim = { "tim", "tanstaaftanstaaf", 3, 16 }; /* RFC 4616 4 */
	char line[SASL_LINE_MAX + 1];

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		line[sasl_word((const char *)guarded(rows[i].word, strlen(rows[i].word)), strlen(rows[i].word), line)] = 0;
		expect_text(rows[i].word, line, rows[i].want);
	}
	line[sasl_plain(&tim, line)] = 0;
	expect_text("PLAIN", line, "AHRpbQB0YW5zdGFhZnRhbnN0YWFm");
}

static void test_49_longest_response(void **state)
{
	static char text[2 * SASL_WORD_MAX];
	const struct sasl_pair longest = { text, text + SASL_WORD_MAX, SASL_WORD_MAX, SASL_WORD_MAX }, shorter = { text, text, 254, 255 };
	char line[SASL_LINE_MAX];

	(void)state;
	memset(text, 'x', sizeof text);
	assert_int_equal(sasl_plain(&longest, line), (2 * SASL_WORD_MAX + 2 + 2) / 3 * 4);
	assert_in_range(sasl_plain(&longest, line), 1, SASL_LINE_MAX);
	assert_int_equal(sasl_plain(&shorter, line), (511 + 2) / 3 * 4);
	assert_int_equal(line[683], '=');
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_49_mechanisms),
		cmocka_unit_test(test_49_user),
		cmocka_unit_test(test_49_user_limits),
		cmocka_unit_test(test_49_responses),
		cmocka_unit_test(test_49_longest_response),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
