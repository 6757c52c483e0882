/* Certificates: names and extensions, whatever DER it is. The certificates are made here, of their parts. */
#include "test/lib/unit.h"

#include "pure/certificate.h"

/* ---- making them ---- */

/* The element of this tag with n octets of content. Returns its octets. */
static size_t element(unsigned char *out, unsigned tag, const void *content, size_t n)
{
	unsigned char header[4] = { (unsigned char)tag };
	size_t len = 2;

	if (n < 0x80) {
		header[1] = (unsigned char)n;
	} else if (n < 0x100) {
		header[1] = 0x81;
		header[2] = (unsigned char)n;
		len = 3;
	} else {
		header[1] = 0x82;
		header[2] = (unsigned char)(n >> 8);
		header[3] = (unsigned char)n;
		len = 4;
	}
	memmove(out + len, content, n);
	memcpy(out, header, len);
	return len + n;
}

static size_t put(unsigned char *out, size_t at, unsigned tag, const void *content, size_t n)
{
	return at + element(out + at, tag, content, n);
}

#define ISSUER "the issuer's name"
#define SUBJECT "the subject's name, which is longer"

/* A certificate with these octets between the subject's key and the end. */
static size_t make_with(unsigned char *out, const void *rest, size_t rest_len, bool version)
{
	size_t n = version ? put(out, 0, 0xa0, "\x02\x01\x02", 3) : 0, body;

	n = put(out, n, 0x02, "\x01\x02\x03", 3);
	n = put(out, n, 0x30, "algorithm", 9);
	n = put(out, n, 0x30, ISSUER, sizeof ISSUER - 1);
	n = put(out, n, 0x30, "validity", 8);
	n = put(out, n, 0x30, SUBJECT, sizeof SUBJECT - 1);
	n = put(out, n, 0x30, "key", 3);
	memcpy(out + n, rest, rest_len);
	body = element(out, 0x30, out, n + rest_len);
	body = put(out, body, 0x30, "algorithm", 9);
	body = put(out, body, 0x03, "\0signature", 10);
	return element(out, 0x30, out, body);
}

static size_t extension(unsigned char *out, size_t at, const char *oid, bool critical, const void *value, size_t n)
{
	unsigned char inner[512];
	size_t len = put(inner, 0, 0x06, oid, 3);

	if (critical)
		len = put(inner, len, 0x01, "\xff", 1);
	len = put(inner, len, 0x04, value, n);
	return put(out, at, 0x30, inner, len);
}

/* A certificate with these extensions, n octets. */
static size_t make(unsigned char *out, const unsigned char *extensions, size_t n)
{
	unsigned char list[1024], rest[1100];
	size_t len = element(list, 0x30, extensions, n);

	return make_with(out, rest, element(rest, 0xa3, list, len), true);
}

#define NAMES "\x55\x1d\x11"
#define CONSTRAINTS "\x55\x1d\x1e"
#define PURPOSES "\x55\x1d\x25"
#define OTHER "\x55\x1d\x0e"
#define SERVER_AUTH "\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01"
#define CLIENT_AUTH "\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02"
#define ANY_PURPOSE "\x06\x04\x55\x1d\x25\x00"

static struct text got;

/* What is read of n octets, at the end of a page that nobody may read behind. "-": nothing. */
static const char *read_all(const unsigned char *der, size_t n)
{
	const unsigned char *in = guarded(der, n);
	struct certificate c;

	clear(&got);
	if (!certificate_read(&c, in, n)) {
		say(&got, "-");
		return got.bytes;
	}
	assert_true(c.der.bytes == in && c.der.len <= n);
	assert_true(c.issuer.bytes > in && c.issuer.bytes + c.issuer.len < c.subject.bytes && c.subject.bytes + c.subject.len < in + n);
	assert_true(c.key.bytes > c.subject.bytes && c.key.bytes + c.key.len < in + n);
	certificate_is_for(&c, "example.org");
	certificate_is_for(&c, ".example.org");
	say(&got, "%s%s%s", c.named ? "n" : "", c.constrained ? "c" : "", c.for_others ? "o" : "");
	return got.bytes;
}

/* ---- tests ---- */

static void test_names(void **state)
{
	unsigned char der[256];
	size_t n = make_with(der, "", 0, false);
	struct certificate c;
	struct certificate_span other;

	(void)state;
	memcpy(der + n, "more", 4);
	assert_true(certificate_read(&c, der, n + 4));
	assert_true(c.der.bytes == der && c.der.len == n);
	assert_int_equal(c.issuer.len, sizeof ISSUER - 1 + 2);
	assert_memory_equal(c.issuer.bytes + 2, ISSUER, sizeof ISSUER - 1);
	assert_memory_equal(c.subject.bytes + 2, SUBJECT, sizeof SUBJECT - 1);
	assert_int_equal(c.key.len, 5);
	assert_memory_equal(c.key.bytes, "\x30\x03key", 5);
	assert_int_equal(c.names.len, 0);
	assert_true(certificate_same_name(&c.issuer, &c.issuer) && !certificate_same_name(&c.issuer, &c.subject));
	other = (struct certificate_span){ c.issuer.bytes, c.issuer.len - 1 };
	assert_false(certificate_same_name(&c.issuer, &other));
}

/* Value and octets of an extension's content: a sequence of what is given. */
static size_t sequence(unsigned char *out, const void *content, size_t n)
{
	return element(out, 0x30, content, n);
}

static void test_60_extensions(void **state)
{
	static const struct {
		const char *name, *oid;
		struct input value;
		const char *want;
	} rows[] = {
		{ "alternative names", NAMES, IN("\x30\x00"), "n" },
		{ "constraints", CONSTRAINTS, IN("\x30\x00"), "c" },
		{ "another", OTHER, IN("whatever"), "" },
		{ "for servers", PURPOSES, IN("\x30\x0a" SERVER_AUTH), "" },
		{ "for clients and servers", PURPOSES, IN("\x30\x14" CLIENT_AUTH SERVER_AUTH), "" },
		{ "for clients", PURPOSES, IN("\x30\x0a" CLIENT_AUTH), "o" },
		{ "for all", PURPOSES, IN("\x30\x06" ANY_PURPOSE), "o" },
		{ "for nothing", PURPOSES, IN("\x30\x00"), "o" },
		{ "for what only begins so", PURPOSES, IN("\x30\x09\x06\x07\x2b\x06\x01\x05\x05\x07\x03"), "o" },
		{ "for what begins so", PURPOSES, IN("\x30\x0b\x06\x09\x2b\x06\x01\x05\x05\x07\x03\x01\x01"), "o" },
		{ "purposes that are no list", PURPOSES, IN("\x31\x0a" SERVER_AUTH), "-" },
		{ "purposes that are no identifiers", PURPOSES, IN("\x30\x02\x05\x00"), "-" },
		{ "purposes that are cut", PURPOSES, IN("\x30\x0b" SERVER_AUTH "\x06"), "-" },
		{ "purposes and more", PURPOSES, IN("\x30\x0a" SERVER_AUTH "\x00"), "-" },
		{ "purposes of no length", PURPOSES, IN("\x30\x80" SERVER_AUTH "\x00\x00"), "-" },
		{ "purposes of a length too long", PURPOSES, IN("\x30\x84\x00\x00\x00\x0a" SERVER_AUTH), "-" },
		{ "purposes beyond the end", PURPOSES, IN("\x30\x7f" SERVER_AUTH), "-" },
		{ "purposes far beyond the end", PURPOSES, IN("\x30\x83\xff\xff\xff" SERVER_AUTH), "-" },
	};
	unsigned char list[512], der[2048];

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		for (int critical = 0; critical < 2; critical++) {
			size_t n = extension(list, 0, rows[i].oid, critical, rows[i].value.bytes, rows[i].value.len);

			expect_text(rows[i].name, read_all(der, make(der, list, n)), rows[i].want);
		}
}

/* Each counts, and the first that is strict remains so. */
static void test_60_several_extensions(void **state)
{
	unsigned char value[64], list[512], der[2048];
	size_t n = sequence(value, CLIENT_AUTH, 10), len;

	(void)state;
	len = extension(list, 0, PURPOSES, false, value, n);
	len = extension(list, len, OTHER, true, "x", 1);
	len = extension(list, len, CONSTRAINTS, true, value, n);
	n = sequence(value, SERVER_AUTH, 10);
	len = extension(list, len, PURPOSES, false, value, n);
	len = extension(list, len, NAMES, false, value, n);
	expect_text("all", read_all(der, make(der, list, len)), "nco");
}

#define DNS(n, name) "\x82" n name
#define HOST_NAME DNS("\x10", "MAIL.example.Org")
#define ANY_HOST DNS("\x0d", "*.example.org")

/* RFC 6125 6.4, RFC 8461 4.1. */
static void test_whom_it_is_for(void **state)
{
	static const struct {
		struct input names; /* in their list */
		const char *name;
		bool want;
	} rows[] = {
		{ IN(HOST_NAME), "mail.example.org", true },
		{ IN(HOST_NAME), "mail.example.or", false },
		{ IN(HOST_NAME), "xmail.example.org", false },
		{ IN(HOST_NAME), ".example.org", true },
		{ IN(HOST_NAME), "*.EXAMPLE.org", true },
		{ IN(HOST_NAME), ".org", false },
		{ IN(HOST_NAME), "*.org", false },
		{ IN(HOST_NAME), ".mail.example.org", false },
		{ IN(HOST_NAME), "", false },
		{ IN(HOST_NAME), ".", false },
		{ IN(HOST_NAME), "*.", false },
		{ IN(HOST_NAME), "*", false },
		{ IN(ANY_HOST), "mail.example.org", true },
		{ IN(ANY_HOST), "a.mail.example.org", false },
		{ IN(ANY_HOST), "example.org", false },
		{ IN(ANY_HOST), ".example.org", true },
		{ IN(ANY_HOST), "*.example.org", true },
		{ IN(ANY_HOST), ".org", false },
		{ IN(DNS("\x01", "*")), "org", false },
		{ IN(DNS("\x01", "*")), "", false },
		{ IN(DNS("\x02", "*.")), "org", false },
		{ IN(DNS("\x0c", ".example.org")), ".example.org", false },
		{ IN(DNS("\x0c", ".example.org")), ".org", false },
		{ IN(DNS("\x0e", "m*.example.org")), "mail.example.org", false },
		{ IN(DNS("\x12", "mail.example.org\0x")), "mail.example.org", false },
		{ IN(DNS("\x00", "") "\x87\x04\x7f\x00\x00\x01" HOST_NAME), "mail.example.org", true },
		{ IN("\x81\x10mail.example.org"), "mail.example.org", false },
		{ IN("\x82\x11mail.example.org"), "mail.example.org", false },
		{ IN("\x82"), "mail.example.org", false },
		{ IN(""), "mail.example.org", false },
	};
	unsigned char value[256], list[512], der[2048];
	struct certificate c;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		size_t n = extension(list, 0, NAMES, false, value, sequence(value, rows[i].names.bytes, rows[i].names.len));

		n = make(der, list, n);
		assert_true(certificate_read(&c, guarded(der, n), n));
		if (certificate_is_for(&c, rows[i].name) != rows[i].want)
			fail_msg("row %zu: %s", i, rows[i].name);
	}
	assert_true(certificate_read(&c, der, make_with(der, "", 0, true)));
	assert_false(certificate_is_for(&c, "mail.example.org"));
}

/* The first list counts: there may be one. */
static void test_two_lists_of_names(void **state)
{
	unsigned char value[256], list[512], der[2048];
	struct certificate c;
	size_t n;

	(void)state;
	n = extension(list, 0, NAMES, false, value, sequence(value, ANY_HOST, sizeof ANY_HOST - 1));
	n = extension(list, n, NAMES, false, value, sequence(value, DNS("\x03", "a.b"), 5));
	assert_true(certificate_read(&c, der, make(der, list, n)));
	assert_true(certificate_is_for(&c, "mail.example.org"));
	assert_false(certificate_is_for(&c, "a.b"));
}

static void test_signatures(void **state)
{
	static const struct {
		struct input algorithm;
		const char *want;
	} rows[] = {
		{ IN("\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00"), "RSA-SHA256" },
		{ IN("\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03"), "ecdsa-with-SHA384" },
		{ IN("\x06\x03\x2b\x65\x70"), "ED25519" },
		{ IN("\x06\x03\x2b\x65\x71"), NULL },
		{ IN("\x06\x00"), NULL },
		{ IN("\x06\x09\x2b\x65\x70"), NULL },
		{ IN("\x05\x00"), NULL },
		{ IN(""), NULL },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		const unsigned char *in = guarded(rows[i].algorithm.bytes, rows[i].algorithm.len);
		const char *name = certificate_signature(&(struct certificate){ .algorithm = { in, rows[i].algorithm.len } });

		expect_text("name", name ? name : "none", rows[i].want ? rows[i].want : "none");
	}
}

static void test_optional_parts(void **state)
{
	static const struct {
		const char *name;
		struct input rest;
		const char *want;
	} rows[] = {
		{ "nothing", IN(""), "" },
		{ "ids", IN("\x81\x01x\x82\x01y"), "" },
		{ "one id", IN("\x82\x01y"), "" },
		{ "ids and no extension", IN("\x81\x01x\x82\x01y\xa3\x02\x30\x00"), "" },
		{ "extensions that are no list", IN("\xa3\x02\x31\x00"), "-" },
		{ "an extension that is none", IN("\xa3\x04\x30\x02\x31\x00"), "-" },
		{ "an extension without a value", IN("\xa3\x09\x30\x07\x30\x05\x06\x03" OTHER), "-" },
		{ "a value of another kind", IN("\xa3\x0b\x30\x09\x30\x07\x06\x03" OTHER "\x03\x00"), "-" },
		{ "an extension and more", IN("\xa3\x0d\x30\x0b\x30\x09\x06\x03" OTHER "\x04\x00\x05\x00"), "-" },
		{ "extensions and more", IN("\xa3\x02\x30\x00\x05\x00"), "-" },
		{ "more in the extensions", IN("\xa3\x04\x30\x00\x05\x00"), "-" },
		{ "ids the other way round", IN("\x82\x01y\x81\x01x"), "-" },
		{ "something else", IN("\xa4\x00"), "-" },
	};
	unsigned char der[512];

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		for (int version = 0; version < 2; version++)
			expect_text(rows[i].name, read_all(der, make_with(der, rows[i].rest.bytes, rows[i].rest.len, version)),
			    rows[i].want);
}

static size_t make_rich(unsigned char *der)
{
	unsigned char value[400], list[900], names[300];
	size_t len;

	memset(names, 'x', sizeof names);
	len = extension(list, 0, NAMES, false, value, sequence(value, names, sizeof names));
	len = extension(list, len, PURPOSES, true, value, sequence(value, SERVER_AUTH, 10));
	return make(der, list, len);
}

/* Cut anywhere, it is no certificate, and nothing behind is read. */
static void test_every_beginning(void **state)
{
	unsigned char der[2048];
	size_t n = make_rich(der);

	(void)state;
	expect_text("whole", read_all(der, n), "n");
	for (size_t i = 0; i < n; i++)
		expect_text("cut", read_all(der, i), "-");
}

/* Whatever stands at any place: spans are within, as read_all() has it, and nothing behind is read. */
static void test_hostile_octets(void **state)
{
	unsigned char der[2048];
	size_t n = make_rich(der);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		unsigned char was = der[i];

		for (unsigned value = 0; value < 256; value++) {
			der[i] = (unsigned char)value;
			read_all(der, n);
		}
		der[i] = was;
	}
	for (unsigned round = 0; round < 100000; round++) {
		unsigned char copy[2048];

		memcpy(copy, der, n);
		for (unsigned k = 0; k <= round % 4; k++)
			copy[any((uint32_t)n)] = (unsigned char)any(256);
		read_all(copy, n - (round % 8 ? 0 : any((uint32_t)n)));
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_60_extensions),
		cmocka_unit_test(test_60_several_extensions),
		cmocka_unit_test(test_whom_it_is_for),
		cmocka_unit_test(test_two_lists_of_names),
		cmocka_unit_test(test_signatures),
		cmocka_unit_test(test_optional_parts),
		cmocka_unit_test(test_every_beginning),
		cmocka_unit_test(test_hostile_octets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
