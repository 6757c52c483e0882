/* Lines of hosts(5), good ones and others, whose last octet is at a page that nobody may touch. */
#include "test/lib/unit.h"

#include "io/lookup.h"
#include "io/net.h"

/* The address of "mail.test" in a line, "" if it is not there. */
static const char *address_in(const char *line, size_t n)
{
	static char text[NET_TEXT];
	char *copy = (char *)guarded((const unsigned char *)line, n + 1);
	union net_address a;

	copy[n] = 0;
	text[0] = 0;
	if (lookup_hosts_line(copy, "mail.test", 25, &a)) {
		net_text(&a, text);
		assert_int_equal(net_port(&a), 25);
	}
	return text;
}

static void lines(void **state)
{
	static const struct {
		const char *line, *want;
	} rows[] = {
		{ "10.0.0.1 mail.test", "10.0.0.1" }, { "10.0.0.1\tother\t Mail.TEST  ", "10.0.0.1" },
		{ "  10.0.0.1 mail.test # x", "10.0.0.1" }, { "10.0.0.1 mail.test\r", "10.0.0.1" },
		{ "2001:db8::1 a b c mail.test d", "2001:db8::1" }, { "::ffff:10.0.0.1 mail.test", "::ffff:10.0.0.1" },
		{ "fe80::1%lo mail.test", "fe80::1%lo" }, { "10.0.0.1 mail.test#x", "10.0.0.1" },
		{ "", "" }, { " \t ", "" }, { "#10.0.0.1 mail.test", "" }, { "10.0.0.1 # mail.test", "" },
		{ "10.0.0.1", "" }, { "mail.test", "" }, { "mail.test mail.test", "" }, { "10.0.0.1 mail.tes", "" },
		{ "10.0.0.1 xmail.test mail.test.", "" }, { "10.0.0.256 mail.test", "" }, { "10.0.0.1/8 mail.test", "" },
		{ "fe80::1%nonsense mail.test", "" }, { "10.0.0.1,mail.test", "" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		expect_text(rows[i].line, address_in(rows[i].line, strlen(rows[i].line)), rows[i].want);
}

/* What no editor writes: each octet of a line replaced by each other one, and a line cut everywhere. */
static void octets(void **state)
{
	static const char good[] = "fe80::1%lo mail.test x";
	char line[sizeof good];

	(void)state;
	for (size_t i = 0; i < sizeof good - 1; i++) {
		memcpy(line, good, sizeof good);
		for (unsigned c = 0; c < 256; c++) {
			line[i] = (char)c;
			address_in(line, sizeof good - 1);
		}
		expect_text("cut", address_in(good, i), i < 20 ? "" : "fe80::1%lo");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(lines), cmocka_unit_test(octets) };

	net_use_zones();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
