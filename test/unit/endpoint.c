/* HOST:PORT, numbers, and what names a server to connect to. */
#include "test/lib/unit.h"

#include "pure/endpoint.h"

static struct text said;

static void numbers(void **state)
{
	static const struct {
		const char *text;
		uint64_t least, most, want;
		const char *refusal;
	} rows[] = {
		{ "0", 0, 9, 0, NULL }, { "9", 0, 9, 9, NULL }, { "007", 0, 9, 7, NULL },
		{ "18446744073709551615", 0, UINT64_MAX, UINT64_MAX, NULL }, { "10", 0, 9, 0, "takes a number from 0 to 9" },
		{ "4", 5, 6, 0, "takes a number from 5 to 6" }, { "", 0, 9, 0, "takes a number from 0 to 9" },
		{ "-1", 0, UINT64_MAX, 0, "takes a number from 0 to 18446744073709551615" },
		{ "18446744073709551616", 0, UINT64_MAX, 0, "takes a number from 0 to 18446744073709551615" },
		{ " 1", 0, 9, 0, "takes a number from 0 to 9" }, { "1 ", 0, 9, 0, "takes a number from 0 to 9" },
		{ "0x1", 0, 9, 0, "takes a number from 0 to 9" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		uint64_t n;
		const char *want = endpoint_number(rows[i].text, rows[i].least, rows[i].most, &n);

		expect_text(rows[i].text, want ? want : "", rows[i].refusal ? rows[i].refusal : "");
		assert_true(want || n == rows[i].want);
	}
}

/* "HOST PORT", "-": it is none. */
static const char *split(const char *text, uint16_t standard)
{
	static char host[16];
	uint16_t port;

	clear(&said);
	if (endpoint_split(text, host, sizeof host, standard, &port))
		say(&said, "%s %u", host, port);
	else
		say(&said, "-");
	return said.bytes;
}

static void hosts_and_ports(void **state)
{
	static const struct {
		const char *text;
		uint16_t standard;
		const char *want;
	} rows[] = {
		{ "mx.example:587", 25, "mx.example 587" }, { "mx.example", 25, "mx.example 25" }, { "mx.example", 0, "-" },
		{ "192.0.2.1:1", 0, "192.0.2.1 1" }, { "192.0.2.1", 25, "192.0.2.1 25" }, { "[::1]:65535", 0, "::1 65535" },
		{ "[::1]", 25, "::1 25" }, { "[::1]", 0, "-" }, { "::1", 25, "::1 25" }, { "::1:25", 25, "::1:25 25" },
		{ "*:25", 0, "* 25" }, { "[mx]:25", 0, "mx 25" },
		{ "", 25, "-" }, { ":25", 25, "-" }, { "[]:25", 0, "-" }, { "mx:", 25, "-" }, { "mx:0", 25, "-" },
		{ "mx:65536", 25, "-" }, { "mx:+5", 25, "-" }, { "mx:x", 25, "-" }, { "[::1", 25, "-" }, { "[", 25, "-" },
		{ "[::1]x", 25, "-" }, { "[::1]25", 25, "-" }, { "mx example", 25, "-" }, { "mx/x", 25, "-" }, { "m%x", 25, "-" },
		{ "host-of-15-octs", 25, "host-of-15-octs 25" }, { "host-of-16-octet", 25, "-" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		expect_text(rows[i].text, split(rows[i].text, rows[i].standard), rows[i].want);
}

/* "[tls ][lmtp ]HOST PORT", or what it should have been. */
static const char *upstream(const char *text)
{
	struct upstream u;
	const char *want = endpoint_upstream(&u, text);

	clear(&said);
	if (want)
		say(&said, "%.30s", want);
	else
		say(&said, "%s%s%s %u", u.implicit_tls ? "tls " : "", u.lmtp ? "lmtp " : "", u.host, u.port);
	return said.bytes;
}

static void upstreams(void **state)
{
	static const char refusal[] = "takes HOST, HOST:PORT, [IPv6]:";
	static const struct {
		const char *text, *want;
	} rows[] = {
		{ "mx.example", "mx.example 25" }, { "mx.example:587", "mx.example 587" }, { "::1", "::1 25" },
		{ "smtp://mx", "mx 25" }, { "smtp://mx:26/", "mx 26" }, { "smtps://mx", "tls mx 465" },
		{ "smtps://[::1]:1", "tls ::1 1" }, { "lmtp://mx", "lmtp mx 24" }, { "lmtp://mx:25", "lmtp mx 25" },
		{ "lmtp:unix:/run/lmtp", "lmtp /run/lmtp 0" }, { "mx/", "mx 25" },
		{ "", refusal }, { "/", refusal }, { "*", refusal }, { "*:25", refusal }, { "http://mx", refusal },
		{ "SMTP://mx", refusal }, { "smtp://", refusal }, { "smtp:///", refusal }, { "smtp://mx//", refusal },
		{ "lmtp:unix:run", refusal }, { "lmtp:unix:", refusal }, { "unix:/run/lmtp", refusal }, { "mx:0", refusal },
		{ "smtps://mx:x", refusal },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		expect_text(rows[i].text, upstream(rows[i].text), rows[i].want);
}

/* A host has 255 octets at most, a path 107. */
static void longest_ones(void **state)
{
	char text[400], want[400];

	(void)state;
	for (int n = 254; n <= 300; n++) {
		snprintf(text, sizeof text, "smtps://%0*d", n, 0);
		snprintf(want, sizeof want, "tls %0*d 465", n, 0);
		expect_text("host", upstream(text), n <= 255 ? want : 8 + n < 272 ? "takes HOST, HOST:PORT, [IPv6]:" :
										     "names a host that is too long");
	}
	for (int n = 105; n <= 109; n++) {
		snprintf(text, sizeof text, "lmtp:unix:/%0*d", n - 1, 0);
		snprintf(want, sizeof want, "lmtp /%0*d 0", n - 1, 0);
		expect_text("path", upstream(text), n < NET_PATH_MAX ? want : "takes HOST, HOST:PORT, [IPv6]:");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(numbers), cmocka_unit_test(hosts_and_ports), cmocka_unit_test(upstreams),
		cmocka_unit_test(longest_ones) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
