/* Routes: their parts from text, which of their servers is which, whether two are one, and lines of --routes. */
#include "test/lib/unit.h"

#include "pure/route.h"

static struct text said;

static void sources(void **state)
{
	static const char *const bad[] = { "", "mx.example", "192.0.2.1:25", "192.0.2.0/24", "client" };
	struct route r = { .tls = TLS_MAY };

	(void)state;
	assert_true(route_source(&r, "192.0.2.1"));
	assert_true(route_source(&r, "2001:db8::1"));
	assert_int_equal(r.source4.sa.sa_family, AF_INET);
	assert_int_equal(r.source6.sa.sa_family, AF_INET6);
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_false(route_source(&r, bad[i]));
}

/* Every server of a route, "?" for one that cannot be read. */
static const char *servers(const struct route *r)
{
	const struct upstream *server;
	struct upstream other;

	clear(&said);
	for (unsigned n = 0; (server = route_server(r, n, &other)); n++)
		say(&said, server->host[0] ? "%s%s:%u" : "%s?", n ? " " : "", server->host, server->port);
	return said.bytes;
}

static void lists_of_servers(void **state)
{
	static const struct {
		const char *others, *want;
	} rows[] = {
		{ "", "a:25" }, { " b", "a:25 b:25" }, { ",b:26, c", "a:25 b:26 c:25" }, { "\t,, b ,c:1,", "a:25 b:25 c:1" },
		{ " smtps://b lmtp:unix:/c", "a:25 b:465 /c:0" }, { " b c:x d", "a:25 b:25 ? d:25" }, { " ,", "a:25" },
	};
	struct route r;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		memset(&r, 0, sizeof r);
		assert_true(route_upstream(&r, "a"));
		strcpy(r.others, rows[i].others);
		expect_text(rows[i].others, servers(&r), rows[i].want);
	}
	assert_false(route_upstream(&r, "a b"));
	assert_false(route_upstream(&r, ""));
}

/* A line for an operator's --tls LEVEL, "may" if none is said: the servers, level and name, or what is wrong. */
static const char *taken(const char *server, const char *tls, enum tls_level level)
{
	static struct text all;
	struct routes_line line = { (const unsigned char *)"x", 1, server, tls };
	struct route r = { .tls = level };
	const char *fault = route_take_line(&line, &r);

	clear(&all);
	if (fault)
		say(&all, "! %s", fault);
	else
		say(&all, "%s %s '%s'", servers(&r), tls_level_name(r.tls), r.tls_name);
	return all.bytes;
}

#define SERVER "! its server must be " ENDPOINT_WORDS
#define LEVEL "! its tls_verify must be true, false, " TLS_LEVEL_WORDS ", with a name or not, or nothing"
#define NAME "! its tls_verify has a name that can be none"
#define ADDRESS "! a certificate cannot be verified for an address: write verify NAME, or the server's name"

static void lines(void **state)
{
	static const struct {
		const char *server, *tls;
		enum tls_level level;
		const char *want;
	} rows[] = {
		{ "mx", "", TLS_MAY, "mx:25 may ''" },
		{ "mx", "", TLS_ENCRYPT, "mx:25 encrypt ''" },
		{ "mx, b:26", "verify", TLS_MAY, "mx:25 b:26 verify ''" },
		{ "mx", "none", TLS_VERIFY, "mx:25 none ''" },
		{ "mx", "encrypt  mx.example", TLS_MAY, "mx:25 encrypt 'mx.example'" },
		{ "192.0.2.1", "verify\tmx.example", TLS_MAY, "192.0.2.1:25 verify 'mx.example'" },
		{ "192.0.2.1", "verify-if-offered", TLS_MAY, "192.0.2.1:25 verify-if-offered ''" },
		/* Go's booleans */
		{ "mx", "true", TLS_MAY, "mx:25 verify-if-offered ''" },
		{ "mx", "T", TLS_MAY, "mx:25 verify-if-offered ''" },
		{ "mx", "1", TLS_MAY, "mx:25 verify-if-offered ''" },
		{ "mx", "False", TLS_VERIFY, "mx:25 may ''" },
		{ "mx", "f", TLS_VERIFY, "mx:25 may ''" },
		{ "mx", "0", TLS_VERIFY, "mx:25 may ''" },
		/* malformed ones */
		{ "", "", TLS_MAY, SERVER },
		{ "mx:x", "", TLS_MAY, SERVER },
		{ "mx b:x", "", TLS_MAY, SERVER },
		{ "http://mx", "", TLS_MAY, SERVER },
		{ "mx", "perhaps", TLS_MAY, LEVEL },
		{ "mx", "2", TLS_MAY, LEVEL },
		{ "mx", "May", TLS_MAY, LEVEL },
		{ "mx", "a-word-of-more-than-23-octets", TLS_MAY, LEVEL },
		{ "mx", "verify a b", TLS_MAY, NAME },
		{ "192.0.2.1", "verify", TLS_MAY, ADDRESS },
		{ "192.0.2.1", "", TLS_VERIFY, ADDRESS },
		{ "mx ::1", "verify", TLS_MAY, ADDRESS },
		{ "lmtp:unix:/x", "verify", TLS_MAY, ADDRESS },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		expect_text(rows[i].server, taken(rows[i].server, rows[i].tls, rows[i].level), rows[i].want);
}

static void longest_lines(void **state)
{
	static char text[600];

	(void)state;
	for (int n = 250; n < 260; n++) { /* " " and the others have 255 octets */
		snprintf(text, sizeof text, "mx %0*d", n, 0);
		if (n >= 255)
			expect_text("servers", taken(text, "", TLS_MAY), "! its list of servers is too long");
		else
			assert_int_equal(taken(text, "", TLS_MAY)[0], 'm');
		snprintf(text, sizeof text, "may %0*d", n, 0);
		if (n > 255)
			expect_text("name", taken("mx", text, TLS_MAY), NAME);
		else
			assert_int_equal(taken("mx", text, TLS_MAY)[0], 'm');
	}
}

/* A verdict's level goes before that of a line; its server does not. */
static void verdicts_go_first(void **state)
{
	struct routes_line line = { (const unsigned char *)"x", 1, "192.0.2.1", "verify" };
	struct route r = { .tls = TLS_NONE, .tls_given = true };

	(void)state;
	assert_true(route_upstream(&r, "mx"));
	assert_null(route_take_line(&line, &r));
	expect_text("server", servers(&r), "192.0.2.1:25");
	assert_int_equal(r.tls, TLS_NONE);
	line.tls = "nonsense"; /* nor is it looked at */
	assert_null(route_take_line(&line, &r));
}

/* By itself a line is checked with what the options say. */
static void lines_by_themselves(void **state)
{
	struct routes_line line = { (const unsigned char *)"x", 1, "192.0.2.1", "" };
	struct options o = { .tls = TLS_VERIFY };

	(void)state;
	assert_non_null(route_check_line(&line, &o));
	o.tls_name = "mx.example";
	assert_null(route_check_line(&line, &o));
	o = (struct options){ .tls = TLS_MAY };
	assert_null(route_check_line(&line, &o));
}

static void the_same(void **state)
{
	static const struct {
		const char *a, *b, *others_a, *others_b;
		bool same;
	} rows[] = {
		{ "mx", "MX:25", "", "", true }, { "mx", "mx:26", "", "", false }, { "mx", "my", "", "", false },
		{ "smtps://mx:25", "mx:25", "", "", false }, { "lmtp://mx:25", "mx:25", "", "", false },
		{ "lmtp:unix:/x", "lmtp:unix:/x", "", "", true }, { "lmtp:unix:/x", "lmtp:unix:/X", "", "", false },
		{ "mx", "mx", " b", " b", true }, { "mx", "mx", " b", "", false },
	};
	struct route a, b;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		memset(&a, 0, sizeof a);
		memset(&b, 0, sizeof b);
		assert_true(route_upstream(&a, rows[i].a) && route_upstream(&b, rows[i].b));
		strcpy(a.others, rows[i].others_a);
		strcpy(b.others, rows[i].others_b);
		if (route_is_same(&a, &b) != rows[i].same || route_is_same(&b, &a) != rows[i].same)
			fail_msg("%s and %s", rows[i].a, rows[i].b);
	}
	a = b;
	assert_true(route_is_same(&a, &b));
	a.tls = TLS_VERIFY;
	assert_false(route_is_same(&a, &b));
	a = b;
	strcpy(a.tls_name, "n");
	assert_false(route_is_same(&a, &b));
	a = b;
	assert_true(route_source(&a, "192.0.2.1"));
	assert_false(route_is_same(&a, &b));
	assert_true(route_source(&b, "192.0.2.1"));
	assert_true(route_is_same(&a, &b));
	assert_true(route_source(&a, "::1") && route_source(&b, "::2"));
	assert_false(route_is_same(&a, &b));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(sources), cmocka_unit_test(lists_of_servers), cmocka_unit_test(lines),
		cmocka_unit_test(longest_lines), cmocka_unit_test(verdicts_go_first), cmocka_unit_test(lines_by_themselves),
		cmocka_unit_test(the_same) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
