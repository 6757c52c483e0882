/* Certificates and keys as files have them: PEM in its variants, and what must be refused. The keys were made for this test;
 * RSA and more kinds: test_client_tls.py. */
#include "test/lib/unit.h"

#include "io/keys.h"
#include "test/lib/key_pair.h"

#define SEC1 \
	"-----BEGIN EC PRIVATE KEY-----\n" \
	"MHcCAQEEIO8vJFsGKqD/5iVE9Y8q6RB8QunpREBuNJYZ0o5q6SmKoAoGCCqGSM49\n" \
	"AwEHoUQDQgAEuvCJJF2m7p5YU2acgfHFTUjJVj4EEX2Imi01zXnBqOpEkwFH/beu\n" \
	"eALbGElARRfTUg8Fj5/iRbts340qP1lFFA==\n" \
	"-----END EC PRIVATE KEY-----\n"

#define OTHER \
	"-----BEGIN PRIVATE KEY-----\n" \
	"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjhW7zp9lYg9PXqNx\n" \
	"SuzT7s0BTrRDL2WTPha16819/hyhRANCAATG/HGN/xmCMtUHKAvN3rJ+OvYP7Bsh\n" \
	"4I6L2XtBMqbQm9hIhHDY4SNtrmdTkZyFIPrbGYrQB8B2K8XOSMueRMqF\n" \
	"-----END PRIVATE KEY-----\n"

#define P521 \
	"-----BEGIN PRIVATE KEY-----\n" \
	"MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIA3YJycFs9BCZubbxI\n" \
	"6l4YUi0ed8kv1yAA27lfnOBuYHfowgAWPfrONhfIURmIispjzRpNKe9d/DBW3Y+K\n" \
	"b5FhLLOhgYkDgYYABAEQQbIemxpEACttZk2vm/vHSj0+51CjjjdF/xhsT0tw2fGO\n" \
	"2vrFtRx084XZ9arB/fNbH6Lvb1yHxI+aKIfHV4Pa1wA0f7GyE0rh8uo5kfRPX9xp\n" \
	"Isf5TzMdl0uOr/otZhOX8u/ajFjHZ/T7IOWWCXTblcIEO8bFDVu3An/G+JuNJNMn\n" \
	"sw==\n" \
	"-----END PRIVATE KEY-----\n"

#define ED25519 \
	"-----BEGIN PRIVATE KEY-----\n" \
	"MC4CAQAwBQYDK2VwBCIEIMr47ktCJuB9bSfl5kFKOijiIgqdvKmU7W/hZX/9LE7R\n" \
	"-----END PRIVATE KEY-----\n"

#define ENCRYPTED \
	"-----BEGIN ENCRYPTED PRIVATE KEY-----\n" \
	"MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhg1+epZP11TQICCAAw\n" \
	"DAYIKoZIhvcNAgkFADAdBglghkgBZQMEAQIEENhgLnhr0m0pohjve7VBgOwEgZC4\n" \
	"AzRNzHTrhXfD5gY7skwu1VFboo180rj7e0VQdJmsJZFXmGzn/P21dkh6L+bVQM9D\n" \
	"u0eKvS2zGq/LnOFfpxKIHwh1mF3VW5FZq2ypmOZOU9o7Sx8pgTp+gjrlqUkUvfv4\n" \
	"06iWJwbgngiV4BNILD1aVVEtwkdc6R9136Y88EMZMCVpt/cxiPXUdoVocEA/UPk=\n" \
	"-----END ENCRYPTED PRIVATE KEY-----\n"

#define ENCRYPTED_SEC1 \
	"-----BEGIN EC PRIVATE KEY-----\n" \
	"Proc-Type: 4,ENCRYPTED\n" \
	"DEK-Info: AES-128-CBC,9E2FCC229C704F6D9AF140031A9FDB27\n" \
	"\n" \
	"2//YhLiWzLzGrEfKxwH2rplFFzgr260vy974Abi2XERVrmUeYTAGnK5p86d0ZQsA\n" \
	"8TS84OEz1eyzAOq0lD2NWHw+vvbhALfwvVG/AqrQ6XpzTXGV3EB1XPk5pHmkSZWJ\n" \
	"J615lsj0ENwQYAXGvk+5pstbzkMMIGMnz3fEpUvhR3E=\n" \
	"-----END EC PRIVATE KEY-----\n"

#define PARAMETERS "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"

static struct keys keys;
static struct keys_secret secret;
static bool about_key;

/* Both texts at the end of a page that nobody may read behind. */
static const char *parse(const char *cert, size_t cert_len, const char *key, size_t key_len)
{
	static unsigned char copy[1 << 16];

	assert_true(cert_len <= sizeof copy);
	memcpy(copy, cert, cert_len);
	memset(&keys, 0, sizeof keys);
	memset(&secret, 0, sizeof secret);
	return keys_parse(&keys, &secret, copy, cert_len, (unsigned char *)(uintptr_t)guarded(key, key_len), key_len, &about_key);
}

static const char *parse_text(const char *cert, const char *key)
{
	return parse(cert, strlen(cert), key, strlen(key));
}

static void with_crlf(const char *text, char *out)
{
	for (; *text; text++) {
		if (*text == '\n')
			*out++ = '\r';
		*out++ = *text;
	}
	*out = 0;
}

static void test_what_tools_write(void **state)
{
	static const struct {
		const char *name, *cert, *key;
		size_t certificates;
	} rows[] = {
		{ "PKCS#8", CERT, KEY, 1 },
		{ "SEC1", CERT, SEC1, 1 },
		{ "parameters ahead", CERT, PARAMETERS SEC1, 1 },
		{ "a chain", CERT CERT CERT, KEY, 3 },
		{ "all in one", KEY CERT CERT, KEY CERT CERT, 2 },
		{ "all in one, the other way", CERT SEC1, CERT SEC1, 1 },
		{ "text around", "subject=/CN=a\nissuer=----- b -----\n" CERT "\n\n# the end\n",
		    "Bag Attributes\n  localKeyID: 01\n" KEY "trailer", 1 },
		{ "dashes that are no block", "-----BEGIN x\n-----BEGIN ONE-----\n-----END TWO-----\n" CERT, KEY, 1 },
		{ "no newline at the end", CERT "-----", KEY "-----BEGIN ", 1 },
		{ "the first key counts", CERT, KEY OTHER, 1 },
	};
	static char cert[1 << 14], key[1 << 14];

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		const char *why = parse_text(rows[i].cert, rows[i].key);

		if (why || keys.certificates != rows[i].certificates || keys.type != BR_KEYTYPE_EC || !secret.ec || secret.rsa)
			fail_msg("%s: %s", rows[i].name, why ? why : "not what was wanted");
		with_crlf(rows[i].cert, cert);
		with_crlf(rows[i].key, key);
		if (parse_text(cert, key) || keys.certificates != rows[i].certificates)
			fail_msg("%s with CR LF", rows[i].name);
	}
}

static void test_what_is_refused(void **state)
{
	static const struct {
		const char *cert, *key, *why;
		bool about_key;
	} rows[] = {
		{ "", KEY, "no certificate in it", false },
		{ KEY, KEY, "no certificate in it", false },
		{ "-----BEGIN CERTIFICATE-----\nMII=\n", KEY, "no certificate in it", false },
		{ CERT CERT CERT CERT CERT CERT CERT CERT CERT CERT CERT, KEY, "more than 10 certificates", false },
		{ CERT, "", "no private key in it", true },
		{ CERT, CERT, "no private key in it", true },
		{ CERT, ENCRYPTED, "the key is encrypted, and nobody is there to be asked for its password", true },
		{ CERT, ENCRYPTED_SEC1, "the key is encrypted, and nobody is there to be asked for its password", true },
		{ CERT, OTHER, "the key is not that of the first certificate", true },
		{ "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n" CERT, KEY,
		    "the key is not that of the first certificate", true },
		{ CERT, P521, "a kind of key that is not supported: it must be RSA of 2048 to 4096 bits, P-256 or P-384", true },
		{ CERT, "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
		    "the key in it is malformed, or of a kind that is not supported", true },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		const char *why = parse_text(rows[i].cert, rows[i].key);

		expect_text(rows[i].why, why ? why : "none", rows[i].why);
		assert_int_equal(about_key, rows[i].about_key);
	}
	assert_non_null(parse_text(CERT, ED25519));
}

/* The text is wiped, whatever came of it. */
static void test_no_copy_of_a_key_stays(void **state)
{
	static char cert[] = CERT, key[] = KEY, other[] = OTHER;

	(void)state;
	memset(&keys, 0, sizeof keys);
	memset(&secret, 0, sizeof secret);
	assert_null(keys_parse(&keys, &secret, (unsigned char *)cert, strlen(cert), (unsigned char *)key, strlen(key), &about_key));
	for (size_t i = 0; i < sizeof key; i++)
		assert_int_equal(key[i], 0);
	memset(&keys, 0, sizeof keys);
	memset(&secret, 0, sizeof secret);
	memcpy(cert, CERT, sizeof cert);
	assert_non_null(keys_parse(&keys, &secret, (unsigned char *)cert, strlen(cert), (unsigned char *)other, strlen(other),
	    &about_key));
	for (size_t i = 0; i < sizeof other; i++)
		assert_int_equal(other[i], 0);
}

/* Sessions have the text of the certificates in memory, and the key may be in the same file. */
static void test_only_certificates_stay(void **state)
{
	static const char *const texts[] = { KEY CERT, CERT KEY, CERT SEC1 CERT };

	(void)state;
	for (size_t i = 0; i < COUNT(texts); i++) {
		static char cert[4000], key[4000];
		size_t n = strlen(texts[i]), left = 0;

		memcpy(cert, texts[i], n);
		memcpy(key, texts[i], n);
		memset(&keys, 0, sizeof keys);
		memset(&secret, 0, sizeof secret);
		assert_null(keys_parse(&keys, &secret, (unsigned char *)cert, n, (unsigned char *)key, n, &about_key));
		for (size_t k = 0; k < keys.certificates; k++)
			left += keys.chain[k].data_len;
		for (; left < n; left++)
			assert_int_equal(cert[left], 0);
		assert_int_equal(cert[0], 0x30); /* SEQUENCE */
	}
}

/* Nothing is read beyond the end, and no part of a file passes for all of it. */
static void test_every_beginning(void **state)
{
	static const char cert[] = CERT, key[] = KEY;

	(void)state;
	for (size_t n = 0; n < sizeof key - 1; n++)
		assert_true((parse(cert, sizeof cert - 1, key, n) == NULL) == (n >= sizeof key - 2));
	for (size_t n = 0; n < sizeof cert - 1; n++)
		assert_true((parse(cert, n, key, sizeof key - 1) == NULL) == (n >= sizeof cert - 2));
}

/* A key that was damaged is refused, or at least none that fits is made of it: it must match the certificate. */
static void test_every_octet_damaged(void **state)
{
	static char key[] = KEY;
	size_t accepted = 0;

	(void)state;
	for (size_t i = 28; i < sizeof key - 28; i++) {
		char was = key[i];

		key[i] = was == 'A' ? 'B' : 'A';
		accepted += parse_text(CERT, key) == NULL;
		key[i] = was;
	}
	assert_true(accepted < sizeof key / 2); /* the public key in it is not looked at */
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_tools_write),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_no_copy_of_a_key_stays),
		cmocka_unit_test(test_only_certificates_stay),
		cmocka_unit_test(test_every_beginning),
		cmocka_unit_test(test_every_octet_damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
