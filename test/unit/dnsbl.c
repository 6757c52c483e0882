/* Values of --dnsbl: ZONE[=FILTER][*WEIGHT]. */
#include "test/lib/unit.h"

#include "pure/dnsbl.h"

static const char refusal[] = "takes ZONE, ZONE=127.0.0.[2;4..11] or ZONE=127.0.0.2*WEIGHT";

static struct dnsbl list;

static bool lets_through(const char *answer)
{
	unsigned a, b, c, d;

	assert_int_equal(sscanf(answer, "%u.%u.%u.%u", &a, &b, &c, &d), 4);
	return dnsbl_matches(&list, a << 24 | b << 16 | c << 8 | d);
}

static void good_values(void **state)
{
	static const struct {
		const char *value, *zone;
		int weight;
		const char *inside[3], *outside[4];
	} rows[] = {
		{ "bl.test", "bl.test", 1, { "127.0.0.2", "0.0.0.0", "255.255.255.255" }, { NULL } },
		{ "bl.test*-3", "bl.test", -3, { "127.0.0.2" }, { NULL } },
		{ "bl.test*1000", "bl.test", 1000, { "127.0.0.2" }, { NULL } },
		{ "bl.test*+2", "bl.test", 2, { "127.0.0.2" }, { NULL } },
		{ "bl.test=127.0.0.2", "bl.test", 1, { "127.0.0.2" }, { "127.0.0.3", "127.0.1.2", "127.1.0.2", "126.0.0.2" } },
		{ "bl.test=127.0.0.[2;4..11]*5", "bl.test", 5, { "127.0.0.2", "127.0.0.4", "127.0.0.11" },
		    { "127.0.0.3", "127.0.0.12", "127.0.0.1", "127.0.1.4" } },
		{ "bl.test=127.[0..255].[1;3].0", "bl.test", 1, { "127.0.1.0", "127.255.3.0", "127.9.1.0" },
		    { "127.0.2.0", "127.0.1.1", NULL } },
		{ "A_b-1.bl.test=127.0.0.[7]", "A_b-1.bl.test", 1, { "127.0.0.7" }, { "127.0.0.6" } },
		{ "bl.test=127.0.0.[5..5]", "bl.test", 1, { "127.0.0.5" }, { "127.0.0.4", "127.0.0.6" } },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		const char *want = dnsbl_parse(&list, rows[i].value);

		expect_text(rows[i].value, want ? want : "", "");
		expect_text(rows[i].value, list.zone, rows[i].zone);
		assert_int_equal(list.weight, rows[i].weight);
		for (size_t k = 0; k < COUNT(rows[i].inside) && rows[i].inside[k]; k++)
			assert_true(lets_through(rows[i].inside[k]));
		for (size_t k = 0; k < COUNT(rows[i].outside) && rows[i].outside[k]; k++)
			assert_false(lets_through(rows[i].outside[k]));
	}
}

static void bad_values(void **state)
{
	static const char *const rows[] = { "", "bl", "bl.", ".bl", "a..b", "b l.test", "bl.test:53", "bl.test=", "bl.test=127",
		"bl.test=127.0.0", "bl.test=127.0.0.", "bl.test=127.0.0.2.", "bl.test=127.0.0.256", "bl.test=127.0.0.x",
		"bl.test=127.0.0.[]", "bl.test=127.0.0.[2", "bl.test=127.0.0.2]", "bl.test=127.0.0.[2;]", "bl.test=127.0.0.[2..]",
		"bl.test=127.0.0.[3..2]", "bl.test=127.0.0.[2,3]", "bl.test=127.0.0.2..3", "bl.test=127.0.0.[2.3]",
		"bl.test=127.0.0.-1", "bl.test= 127.0.0.2", "bl.test*", "bl.test*x", "bl.test*1x", "bl.test* 1", "bl.test*1001",
		"bl.test*-1001", "bl.test*1*1", "bl.test*1=127.0.0.2", "bl.test*99999999999999999999" };

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		const char *want = dnsbl_parse(&list, rows[i]);

		expect_text(rows[i], want ? want : "", refusal);
	}
}

/* A zone leaves room for a reversed IPv6 address, and its labels are ones that can be asked for. */
static void longest_zone(void **state)
{
	char zone[DNSBL_ZONE_MAX + 2];
	const char *want;

	(void)state;
	for (size_t n = DNSBL_ZONE_MAX - 1; n <= DNSBL_ZONE_MAX + 1; n++) {
		memset(zone, 'z', n);
		zone[n] = 0;
		for (size_t dot = 62; dot < n - 1; dot += 63)
			zone[dot] = '.';
		want = dnsbl_parse(&list, zone);
		expect_text("longest", want ? want : "", n <= DNSBL_ZONE_MAX ? "" : "names a zone that is too long");
	}
	memset(zone, 'z', 64);
	strcpy(zone + 64, ".test");
	want = dnsbl_parse(&list, zone);
	expect_text("a label of 64 octets", want ? want : "", refusal);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(good_values), cmocka_unit_test(bad_values), cmocka_unit_test(longest_zone) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
