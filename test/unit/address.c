/* IP addresses: as text and back, what is the same, and blocks. */
#include "test/lib/unit.h"

#include "pure/address.h"

#include <arpa/inet.h>

static unsigned zone_index(const char *name)
{
	return strcmp(name, "lo") == 0 ? 1 : strcmp(name, "a-name-of-15-oc") == 0 ? 2 : 0;
}

static char *zone_name(unsigned index, char *name)
{
	return index == 1 ? strcpy(name, "lo") : index == 2 ? strcpy(name, "a-name-of-15-oc") : NULL;
}

/* The text of what a text is parsed as, "-": nothing. */
static const char *again(const char *text)
{
	static char out[NET_TEXT];
	union net_address a;

	return net_parse(text, 25, &a) ? net_text(&a, out) : "-";
}

static void texts(void **state)
{
	static const struct {
		const char *text, *want;
	} rows[] = {
		{ "192.0.2.1", "192.0.2.1" }, { "0.0.0.0", "0.0.0.0" }, { "255.255.255.255", "255.255.255.255" },
		{ "::", "::" }, { "2001:DB8::0001", "2001:db8::1" }, { "::ffff:192.0.2.1", "::ffff:192.0.2.1" },
		{ "fe80::1%lo", "fe80::1%lo" },
		{ "fe80:1111:2222:3333:4444:5555:6666:7777%a-name-of-15-oc", "fe80:1111:2222:3333:4444:5555:6666:7777%a-name-of-15-oc" },
		{ "2001:db8:1111:2222:3333:4444:5555:6666", "2001:db8:1111:2222:3333:4444:5555:6666" },
		{ "", "-" }, { "192.0.2", "-" }, { "192.0.2.256", "-" }, { "192.0.2.1.1", "-" }, { " 192.0.2.1", "-" },
		{ "192.0.2.1:25", "-" }, { "[::1]", "-" }, { ":", "-" }, { "1::2::3", "-" }, { "mx.example", "-" }, { "*", "-" },
		{ "192.0.2.1%lo", "-" }, { "fe80::1%", "-" }, { "fe80::1%nonsense", "-" }, { "%lo", "-" },
		{ "00000000000000000000000000000000000000000000000000000000000000000000001", "-" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		expect_text(rows[i].text, again(rows[i].text), rows[i].want);
}

/* Without names of interfaces there are no zones. */
static void no_zones(void **state)
{
	const struct net_zones saved = net_zones;
	union net_address a;
	char text[NET_TEXT];

	(void)state;
	assert_true(net_parse("fe80::1%lo", 25, &a));
	net_zones = (struct net_zones){ NULL, NULL };
	expect_text("a zone", again("fe80::1%lo"), "-");
	expect_text("none", again("fe80::1"), "fe80::1");
	expect_text("left out", net_text(&a, text), "fe80::1");
	net_zones = saved;
	a.v6.sin6_scope_id = 99;
	expect_text("an interface that is gone", net_text(&a, text), "fe80::1");
}

static void ports(void **state)
{
	union net_address a, none = { .sa.sa_family = AF_UNSPEC };
	char text[NET_TEXT];

	(void)state;
	assert_true(net_parse("192.0.2.1", 65535, &a));
	assert_int_equal(net_port(&a), 65535);
	assert_true(net_parse("2001:db8::1", 25, &a));
	assert_int_equal(net_port(&a), 25);
	assert_int_equal(net_port(&none), 0);
	expect_text("no address", net_text(&none, text), "");
}

/* What two addresses have in common: "" nothing, "host", or "all" with the port. */
static void the_same(void **state)
{
	static const struct {
		const char *a, *b;
		uint16_t ports[2];
		const char *want;
	} rows[] = {
		{ "192.0.2.1", "192.0.2.1", { 1, 1 }, "all" }, { "192.0.2.1", "192.0.2.1", { 1, 2 }, "host" },
		{ "192.0.2.1", "192.0.2.2", { 1, 1 }, "" }, { "::1", "::1", { 1, 1 }, "all" }, { "::1", "::1", { 1, 2 }, "host" },
		{ "::1", "::2", { 1, 1 }, "" }, { "::ffff:192.0.2.1", "192.0.2.1", { 1, 1 }, "" },
		{ "fe80::1%lo", "fe80::1", { 1, 1 }, "" }, { "fe80::1%lo", "fe80::1%lo", { 1, 1 }, "all" },
	};
	static const struct {
		const char *a, *b;
		bool same;
	} sources[] = {
		{ "192.0.2.1", "192.0.2.1", true }, { "192.0.2.1", "192.0.2.2", false }, { "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true },
		{ "2001:db8::1", "2001:db8:0:1::1", false }, { "::ffff:192.0.2.1", "::ffff:192.0.2.2", false },
		{ "::ffff:192.0.2.1", "::ffff:192.0.2.1", true }, { "::1", "192.0.2.1", false },
	};
	union net_address a, b;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		assert_true(net_parse(rows[i].a, rows[i].ports[0], &a) && net_parse(rows[i].b, rows[i].ports[1], &b));
		assert_int_equal(net_same_host(&a, &b), rows[i].want[0] != 0);
		assert_int_equal(net_same(&a, &b), rows[i].want[0] == 'a');
		assert_int_equal(net_same(&b, &a), net_same(&a, &b));
	}
	for (size_t i = 0; i < COUNT(sources); i++) {
		assert_true(net_parse(sources[i].a, 1, &a) && net_parse(sources[i].b, 2, &b));
		assert_int_equal(net_same_source(&a, &b), sources[i].same);
	}
	memset(&a, 0, sizeof a);
	assert_false(net_same_host(&a, &a)); /* nothing is no address */
}

static void what_they_are(void **state)
{
	static const struct {
		const char *text;
		bool loopback;
		const char *unmapped;
	} rows[] = {
		{ "127.0.0.1", true, "127.0.0.1" }, { "127.255.255.255", true, "127.255.255.255" },
		{ "128.0.0.1", false, "128.0.0.1" }, { "126.255.255.255", false, "126.255.255.255" }, { "::1", true, "::1" },
		{ "::2", false, "::2" }, { "::", false, "::" }, { "::ffff:127.0.0.1", false, "127.0.0.1" },
		{ "::127.0.0.1", false, "::127.0.0.1" },
	};
	union net_address a;
	char text[NET_TEXT];

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		assert_true(net_parse(rows[i].text, 25, &a));
		assert_int_equal(net_is_loopback(&a), rows[i].loopback);
		net_unmap(&a);
		expect_text(rows[i].text, net_text(&a, text), rows[i].unmapped);
		assert_int_equal(net_port(&a), 25);
	}
	memset(&a, 0, sizeof a);
	assert_false(net_is_loopback(&a));
}

static void names(void **state)
{
	static const char *const good[] = { "mx.example", "localhost", "1.2.3", "", "a:b" },
				 *const bad[] = { "192.0.2.1", "::1", "fe80::1%lo", "/run/lmtp" };

	(void)state;
	for (size_t i = 0; i < COUNT(good); i++)
		assert_true(net_is_name(good[i]));
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_false(net_is_name(bad[i]));
}

static void names_with_a_dot(void **state)
{
	static const char name[] = "mx.example.";
	char room[sizeof name - 1];

	(void)state;
	assert_string_equal(net_undotted(name, room, sizeof room), "mx.example");
	assert_ptr_equal(net_undotted(name, room, sizeof room - 1), name);
	assert_string_equal(net_undotted(".", room, sizeof room), "");
	assert_string_equal(net_undotted("", room, sizeof room), "");
	assert_string_equal(net_undotted("mx", room, sizeof room), "mx");
}

static void ranges(void **state)
{
	static const struct {
		const char *range, *inside, *outside;
	} rows[] = { { "10.0.0.0/8", "10.255.0.1", "11.0.0.0" }, { "192.0.2.128/25", "192.0.2.128", "192.0.2.127" },
		{ "192.0.2.1", "192.0.2.1", "192.0.2.2" }, { "0.0.0.0/0", "255.255.255.255", "::1" },
		{ "::/0", "2001:db8::1", "10.0.0.1" }, { "2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1" },
		{ "2001:db8::8000/113", "2001:db8::8001", "2001:db8::7fff" }, { "::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2" } };
	static const char *const bad[] = { "", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8x", "10.0.0.0/ 8",
		"10.0.0.1/8", "10/8", "::1/64", "::/129", "x/8", "10.0.0.0/4294967304", "10.0.0.0/99999999999999999999" };
	struct net_block r;
	union net_address a;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		assert_true(net_block_parse(rows[i].range, &r));
		assert_true(net_parse(rows[i].inside, 0, &a) && net_in_block(&a, &r));
		assert_true(net_parse(rows[i].outside, 0, &a));
		assert_false(net_in_block(&a, &r));
		memset(&a, 0, sizeof a);
		assert_false(net_in_block(&a, &r));
	}
	for (size_t i = 0; i < COUNT(bad); i++)
		if (net_block_parse(bad[i], &r))
			fail_msg("'%s' was taken", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(texts), cmocka_unit_test(no_zones), cmocka_unit_test(ports),
		cmocka_unit_test(the_same), cmocka_unit_test(what_they_are), cmocka_unit_test(names), cmocka_unit_test(names_with_a_dot), cmocka_unit_test(ranges) };

	net_zones = (struct net_zones){ zone_index, zone_name };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
