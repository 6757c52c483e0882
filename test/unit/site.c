/* Whose server it is. */
#define _GNU_SOURCE
#include "pure/site.h"
#include "test/lib/unit.h"

#include <stdlib.h>

static const char *of(const char *providers, const char *host)
{
	static char site[STATEMAP_SITE];

	memset(site, 'x', sizeof site);
	site_of_name(providers, strlen(providers), host, site);
	return site;
}

static void addresses(void **state)
{
	static const char *const rows[][2] = {
		{ "203.0.113.77", "203.0.113.0/24" }, { "2001:db8:1:2:3::4", "2001:db8:1::/48" }, { "::ffff:192.0.2.5", "192.0.2.0/24" },
		{ "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff::/48" },
	};
	char site[STATEMAP_SITE];
	union net_address a = { .sa.sa_family = AF_UNIX };

	(void)state;
	site_of_address(&a, site);
	assert_string_equal(site, "unix");
	for (size_t i = 0; i < COUNT(rows); i++) {
		assert_true(net_parse(rows[i][0], 25, &a));
		site_of_address(&a, site);
		assert_string_equal(site, rows[i][1]);
	}
}

static void providers(void **state)
{
	static const char text[] = "# those\n\ngmail .google.com\t.googlemail.com # and so on\r\nbig mx.big.example .big.test\nlast .google.com .last";

	(void)state;
	assert_string_equal(of(text, "aspmx.l.Google.COM"), "gmail");
	assert_string_equal(of(text, "google.com."), "gmail");
	assert_string_equal(of(text, "notgoogle.com"), "notgoogle.com");
	assert_string_equal(of(text, "mx.big.example"), "big");
	assert_string_equal(of(text, "a.mx.big.example"), "mx.big.example");
	assert_string_equal(of(text, "x.last"), "last");
	assert_string_equal(of("", "mx1.host.example"), "host.example");
	assert_string_equal(of("", "host.example"), "host.example");
	assert_string_equal(of("", "localhost"), "localhost");
	assert_string_equal(of("", "example.co.uk"), "example.co.uk");
	assert_string_equal(of("", "mx.example.co.uk"), "example.co.uk");
	assert_string_equal(of("", "*.host.example"), "host.example");
	assert_string_equal(of("", "a.b.c.d."), "b.c.d");
	assert_string_equal(of("", ""), "");
	assert_string_equal(of("", "."), "");
	assert_string_equal(of("", "mx.\r\n.test"), "mx.??.test");
}

static void long_name(void **state)
{
	char host[300];

	(void)state;
	memset(host, 'h', sizeof host - 1);
	host[sizeof host - 1] = 0;
	assert_int_equal(strlen(of("", host)), STATEMAP_SITE - 1);
	host[2] = '.';
	memcpy(host + sizeof host - 1 - 13, ".evil.example", 13); /* its end tells whose it is */
	assert_int_equal(strlen(of("", host)), STATEMAP_SITE - 1);
	assert_string_equal(of("", host) + STATEMAP_SITE - 1 - 12, "evil.example");
}

static void faults(void **state)
{
	const char *why;

	(void)state;
	assert_int_equal(site_check("a .b\n# c\n\n  \r\n", 14, &why), 0);
	assert_int_equal(site_check("a .b\nc", 6, &why), 2);
	assert_int_equal(site_check("a .b\nc #.d", 10, &why), 2);
	assert_int_equal(site_check("a .", 3, &why), 1);
	assert_int_equal(site_check("a *.google.com", 14, &why), 1);
	assert_int_equal(site_check("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa .b", 53, &why), 1);
}

static void hostile_octets(void **state)
{
	static char text[400];
	const char *why;
	char site[STATEMAP_SITE];

	(void)state;
	srand(3);
	for (unsigned run = 0; run < 20000; run++) {
		size_t n = (size_t)rand() % sizeof text;

		for (size_t i = 0; i < n; i++)
			text[i] = "ab. \t\n\r#\0\377"[rand() % 10];
		site_of_name(text, n, "a.b.a", site);
		assert_true(strlen(site) < sizeof site);
		site_check(text, n, &why);
	}
}

/* What ships is in order, and no line hides another. */
static void shipped(void **state)
{
	static char text[16384];
	FILE *f = fopen("rules/providers", "r");
	size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
	const char *why = "";

	(void)state;
	assert_true(n > 1000);
	fclose(f);
	assert_int_equal(site_check(text, n, &why), 0);
	assert_string_equal(of(text, "gmail-smtp-in.l.google.com"), "gmail");
	assert_string_equal(of(text, "example-com.mail.protection.outlook.com"), "office365");
	assert_string_equal(of(text, "hotmail-com.olc.protection.outlook.com"), "outlook");
	assert_string_equal(of(text, "mta7.am0.yahoodns.net"), "yahoo");
	assert_string_equal(of(text, "mx01.mail.icloud.com"), "icloud");
	assert_string_equal(of(text, "mx00.gmx.net"), "gmx");
	assert_string_equal(of(text, "mx-ha02.web.de"), "gmx");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses), cmocka_unit_test(providers), cmocka_unit_test(long_name), cmocka_unit_test(faults),
		cmocka_unit_test(hostile_octets), cmocka_unit_test(shipped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
