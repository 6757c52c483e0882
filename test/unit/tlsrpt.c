/* Reports for TLSRPT: each result type by a schema, octets, the record of a domain, and sending to a socket whose owner is the test. */
#define _GNU_SOURCE
#include "io/tlsrpt.h"
#include "pure/jsonread.h"
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char out[TLSRPT_MAX];

static const char *written(const struct tlsrpt_report *r)
{
	size_t n = tlsrpt_write(r, out, sizeof out);

	assert_true(n > 0 && n < sizeof out);
	out[n] = 0;
	return out;
}

static void octets(void **state)
{
	static const struct tlsrpt_failure failures[] = {
		{ TLSRPT_EXPIRED, "192.0.2.1", "mx.a.example", "mx \"1\"", "2001:db8::1", "since \xff", "expired" },
		{ .code = TLSRPT_NO_STARTTLS },
	};
	static const char strings[] = "version: STSv1\0mode: enforce", mx[] = "mx.a.example\0*.b.example";
	static const struct tlsrpt_policy policies[] = {
		{ TLSRPT_STS, "a.example", strings, mx, sizeof strings, sizeof mx, failures, 2, true },
		{ .type = TLSRPT_NO_POLICY, .domain = "a.example" },
	};
	static const struct tlsrpt_report report = { "a.example", "v=TLSRPTv1; rua=mailto:tls@a.example", policies, 2 };
	static const char want[] =
	    "{\"dpv\":\"1\",\"d\":\"a.example\",\"pr\":\"v=TLSRPTv1; rua=mailto:tls@a.example\",\"policies\":["
	    "{\"policy-type\":2,\"policy-domain\":\"a.example\",\"policy-string\":[\"version: STSv1\",\"mode: enforce\"],"
	    "\"mx-host\":[\"mx.a.example\",\"*.b.example\"],\"failure-details\":["
	    "{\"c\":204,\"s\":\"192.0.2.1\",\"n\":\"mx.a.example\",\"h\":\"mx \\\"1\\\"\",\"r\":\"2001:db8::1\","
	    "\"a\":\"since \xef\xbf\xbd\",\"f\":\"expired\"},{\"c\":201}],\"t\":2,\"f\":1},"
	    "{\"policy-type\":9,\"policy-domain\":\"a.example\",\"t\":0,\"f\":0}]}\n";

	(void)state;
	expect_text("report", written(&report), want);
	assert_int_equal(tlsrpt_write(&report, out, sizeof want - 1), sizeof want - 1);
	assert_int_equal(tlsrpt_write(&report, out, sizeof want - 2), 0);
}

/* ---- the schema: what a collector reads ---- */

/* kind: 's' a string, 'n' a number, 'l' a list of strings, 'p' and 'f' lists of objects with the rules of policies and of failures. */
struct rule {
	const char *name;
	char kind;
	bool needed;
};

static const struct rule report_rules[] = { { "dpv", 's', true }, { "d", 's', true }, { "pr", 's', true }, { "policies", 'p', true } };
static const struct rule policy_rules[] = {
	{ "policy-type", 'n', true }, { "policy-domain", 's', true }, { "policy-string", 'l', false }, { "mx-host", 'l', false },
	{ "failure-details", 'f', false }, { "t", 'n', true }, { "f", 'n', true },
};
static const struct rule failure_rules[] = {
	{ "c", 'n', true }, { "s", 's', false }, { "n", 's', false }, { "h", 's', false }, { "r", 's', false }, { "a", 's', false },
	{ "f", 's', false },
};

static int64_t numbers[3]; /* the last values of "c", "t" and policy's "f" */

static void check_object(struct jsonread *r, const struct rule *rules, size_t count);

static void check_value(struct jsonread *r, const struct rule *rule)
{
	struct jsonread_text text = { NULL, 0 };
	int64_t number = -1;

	switch (rule->kind) {
	case 's':
		assert_true(jsonread_string(r, &text));
		break;
	case 'n':
		assert_true(jsonread_thousandths(r, &number) && number >= 0 && number % 1000 == 0);
		numbers[*rule->name == 'c' ? 0 : *rule->name == 't' ? 1 : 2] = number / 1000;
		break;
	default:
		assert_true(jsonread_array(r));
		while (jsonread_element(r)) {
			if (rule->kind == 'l')
				assert_true(jsonread_string(r, &text));
			else if (rule->kind == 'p')
				check_object(r, policy_rules, COUNT(policy_rules));
			else
				check_object(r, failure_rules, COUNT(failure_rules));
		}
	}
}

static void check_object(struct jsonread *r, const struct rule *rules, size_t count)
{
	struct jsonread_text name;
	unsigned seen = 0;

	assert_true(jsonread_object(r));
	while (jsonread_member(r, &name)) {
		size_t i = 0;

		while (i < count && !jsonread_is(&name, rules[i].name))
			i++;
		if (i == count)
			fail_msg("a member that there is not: %.*s", (int)name.n, name.at);
		assert_false(seen >> i & 1);
		seen |= 1u << i;
		check_value(r, &rules[i]);
	}
	for (size_t i = 0; i < count; i++)
		assert_true(!rules[i].needed || seen >> i & 1);
}

static void schema(void **state)
{
	static const unsigned codes[] = { 201, 202, 203, 204, 205, 301, 302, 303, 304, 305, 306 };
	static const enum tlsrpt_code ours[] = { TLSRPT_NO_STARTTLS, TLSRPT_HOST_MISMATCH, TLSRPT_NOT_TRUSTED, TLSRPT_EXPIRED,
		TLSRPT_VALIDATION_FAILURE, TLSRPT_STS_FETCH_ERROR, TLSRPT_STS_INVALID, TLSRPT_STS_WEBPKI_INVALID, TLSRPT_TLSA_INVALID,
		TLSRPT_DNSSEC_INVALID, TLSRPT_DANE_REQUIRED };
	static const enum tlsrpt_type types[] = { TLSRPT_TLSA, TLSRPT_STS, TLSRPT_NO_POLICY };
	static const char strings[] = "3 1 1 00ff";

	(void)state;
	for (size_t i = 0; i < COUNT(codes) * COUNT(types); i++) {
		const char *mx = i & 1 ? "mx.a.example" : NULL, *info = i & 2 ? "x" : NULL;
		struct tlsrpt_failure failure = { ours[i / 3], "192.0.2.1", mx, NULL, "192.0.2.2", info, "y" };
		struct tlsrpt_policy policy = { types[i % 3], "a.example", strings, NULL, i & 4 ? sizeof strings : 0, 0, &failure, i != 1,
			i & 1 };
		struct tlsrpt_report report = { "a.example", "v=TLSRPTv1;rua=mailto:a@a.example", &policy, 1 };
		struct jsonread r;
		const char *text = written(&report);

		jsonread_begin(&r, text, strlen(text));
		check_object(&r, report_rules, COUNT(report_rules));
		assert_true(jsonread_end(&r));
		assert_true(i == 1 || numbers[0] == codes[i / 3]);
		assert_int_equal(numbers[1], i != 1);
		assert_int_equal(numbers[2], i & 1);
	}
}

/* ---- the record of a domain ---- */

static const char *record(const char *texts, size_t len, unsigned count)
{
	struct dns_answer a = { .count = count, .texts_len = len };
	const char *found;

	memcpy(a.texts, texts, len);
	found = tlsrpt_record(&a);
	if (!found)
		return "none";
	snprintf(out, sizeof out, "%s", found);
	return out;
}

#define TEXTS(t) t, sizeof t

static void records(void **state)
{
	(void)state;
	expect_text("none", record("", 0, 0), "none");
	expect_text("one", record(TEXTS("v=TLSRPTv1;rua=mailto:a@a.example"), 1), "v=TLSRPTv1;rua=mailto:a@a.example");
	expect_text("among others", record(TEXTS("x\0v=TLSRPTv1; rua=https://a.example/\0"), 3), "v=TLSRPTv1; rua=https://a.example/");
	expect_text("two", record(TEXTS("v=TLSRPTv1;rua=a\0v=TLSRPTv1;rua=b"), 2), "none");
	expect_text("of tomorrow", record(TEXTS("v=TLSRPTv10;rua=a"), 1), "none");
	expect_text("within", record(TEXTS(" v=TLSRPTv1;rua=a"), 1), "none");
	expect_text("in capitals", record(TEXTS("V=TLSRPTV1;rua=a"), 1), "none");
	expect_text("one that is left out", record(TEXTS("v=TLSRPTv1;rua=a"), 2), "none");
}

/* ---- sending ---- */

static char dir[] = "/tmp/tlsrpt.XXXXXX", path[108];
static int collector;

static int make_collector(void **state)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };

	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof path, "%s/socket", dir);
	strcpy(name.sun_path, path);
	collector = socket(AF_UNIX, SOCK_DGRAM, 0);
	return bind(collector, (const struct sockaddr *)&name, sizeof name);
}

static int remove_collector(void **state)
{
	(void)state;
	close(collector);
	unlink(path);
	return rmdir(dir);
}

static void sends(void **state)
{
	static const struct tlsrpt_policy policy = { .type = TLSRPT_NO_POLICY, .domain = "a.example" };
	static struct tlsrpt_report report = { "a.example", "v=TLSRPTv1;", &policy, 1 };
	static char in[TLSRPT_MAX], domain[TLSRPT_MAX];
	unsigned sent = 0;

	(void)state;
	assert_true(tlsrpt_send(path, &report));
	assert_int_equal(recv(collector, in, sizeof in, MSG_DONTWAIT), strlen(written(&report)));
	expect_text("as written", in, out);
	while (tlsrpt_send(path, &report)) /* until the collector is behind: nobody waits for it */
		assert_true(++sent < 1000000);
	assert_int_equal(errno, EAGAIN);
	assert_true(sent > 0);
	memset(domain, 'x', sizeof domain - 300);
	report.domain = domain;
	while (recv(collector, in, sizeof in, MSG_DONTWAIT) > 0)
		;
	assert_true(tlsrpt_send(path, &report));
	memset(domain, 'x', sizeof domain - 1);
	assert_false(tlsrpt_send(path, &report));
	assert_int_equal(errno, EMSGSIZE);
	report.domain = "a.example";
	assert_false(tlsrpt_send("/nowhere/socket", &report));
	assert_int_equal(errno, ENOENT);
	memset(in, 'x', 200);
	in[200] = 0;
	assert_false(tlsrpt_send(in, &report));
	assert_int_equal(errno, ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(octets),
		cmocka_unit_test(schema),
		cmocka_unit_test(records),
		cmocka_unit_test_setup_teardown(sends, make_collector, remove_collector),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
