/* TLS policies: what Postfix's words mean, and which names fit. */
#include "test/lib/unit.h"

#include "pure/tlspolicy.h"

static const char *parse(struct tlspolicy *p, const char *text)
{
	memset(p, 0xa5, sizeof *p);
	return tlspolicy_parse(p, (const char *)guarded(text, strlen(text)), strlen(text));
}

static void say_list(struct text *t, const struct tlspolicy *p, enum tlspolicy_list list, const char *name)
{
	const char *s = tlspolicy_first(p, list);

	if (!s)
		return;
	say(t, " %s", name);
	for (; s; s = tlspolicy_next(p, list, s))
		say(t, "[%s]", s);
}

/* All that a policy says. */
static const char *told(const char *policy)
{
	static const char *const types[] = { "", " sts", " not-found" };
	static struct text t;
	struct tlspolicy p;
	const char *why = parse(&p, policy);

	clear(&t);
	if (why)
		return why;
	say(&t, "%s%s%s", tlspolicy_level_name(p.level), types[p.type], p.testing ? " testing" : "");
	if (p.failure)
		say(&t, " failure %u", p.failure);
	if (*p.servername)
		say(&t, " sni %s", p.servername);
	if (*p.domain)
		say(&t, " of %s", p.domain);
	say_list(&t, &p, TLSPOLICY_MATCH, "match");
	say_list(&t, &p, TLSPOLICY_MX, "mx");
	say_list(&t, &p, TLSPOLICY_STRINGS, "strings");
	return t.bytes;
}

static void words(void **state)
{
	static const char *const known[][2] = {
		{ "none", "none" },
		{ "may", "may" },
		{ "  May ", "may" },
		{ "encrypt protocols=>=TLSv1.2 ciphers=high", "encrypt" },
		{ "dane", "dane" },
		{ "dane-only", "dane-only" },
		{ "verify", "verify" },
		{ "secure", "secure" },
		{ "secure match=a.example:.b.example", "secure match[a.example][.b.example]" },
		{ "secure,match=a.example,match=nexthop:dot-nexthop", "secure match[a.example][nexthop][dot-nexthop]" },
		{ "verify\tMATCH=hostname\r\n", "verify match[hostname]" },
		{ "secure servername=hostname", "secure sni hostname" },
		{ "secure match=.google.com servername=hostname exclude=3DES", "secure sni hostname match[.google.com]" },
		{ "secure match=mx.a.example servername=hostname policy_type=sts policy_domain=a.example policy_ttl=86400 "
		  "mx_host_pattern=mx.a.example mx_host_pattern=*.b.example { policy_string = version: STSv1 } "
		  "{ policy_string = mode: enforce } { policy_string = max_age: 86400 }",
		    "secure sts sni hostname of a.example match[mx.a.example] mx[mx.a.example][*.b.example] "
		    "strings[version: STSv1][mode: enforce][max_age: 86400]" },
		{ "secure {mx_host_pattern=a.example} policy_type=sts {policy_string=a\tb{c}d}{",
		    "braces are for one attribute, { NAME = VALUE }" },
		{ "secure mx_host_pattern=a.example { policy_string = a\tb{c}d }, policy_type=sts mx_host_pattern=b.example "
		  "policy_string=e",
		    "secure sts mx[a.example][b.example] strings[a b{c}d][e]" },
		{ "secure policy_type=sts { policy_string = mode: testing }", "secure sts testing strings[mode: testing]" },
		{ "secure policy_type=sts { policy_string = MODE:testing}", "secure sts testing strings[MODE:testing]" },
		{ "secure policy_type=sts { policy_string = mode: testing2 }", "secure sts strings[mode: testing2]" },
		{ "secure { policy_string = mode: testing }", "secure strings[mode: testing]" },
		{ "may policy_type=sts policy_failure=sts-policy-fetch-error", "may sts failure 301" },
		{ "may policy_type=sts policy_failure=sts-policy-invalid", "may sts failure 302" },
		{ "may policy_type=sts policy_failure=sts-webpki-invalid", "may sts failure 303" },
		{ "may policy_type=sts policy_failure=validation-failure", "may sts failure 205" },
		{ "may policy_type=sts policy_failure=of-tomorrow", "may sts failure 205" },
		{ "may policy_type=no-policy-found", "may not-found" },
		{ "fingerprint match=00:11:22:33:44:55:66:77:88:99:aa:bb:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:aa:bb:CC:DD:EE:FF",
		    "fingerprint match[00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff]" },
		{ "fingerprint match=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff|"
		  "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF",
		    "fingerprint match[00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff]"
		    "[ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff]" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++)
		expect_text(known[i][0], told(known[i][0]), known[i][1]);
}

static void faults(void **state)
{
	static const char level[] = "a policy begins with none, may, encrypt, dane, dane-only, fingerprint, verify or secure";
	static const char match[] = "match= takes names, .NAME, nexthop, dot-nexthop and hostname";
	static const char fingerprint[] =
	    "a fingerprint is the SHA-256 of a certificate, 32 pairs of hexadecimal digits with colons between";
	static const char *const known[][2] = {
		{ "", level },
		{ " , ", level },
		{ "half-dane", level },
		{ "secure:", level },
		{ "match=a.example secure", level },
		{ "secure match", "an attribute is NAME=VALUE" },
		{ "secure { match }", "an attribute is NAME=VALUE" },
		{ "secure match=", "an attribute has no value" },
		{ "secure { match = }", "an attribute has no value" },
		{ "secure match=a.example:", match },
		{ "secure match=*.example", match },
		{ "secure match=.", match },
		{ "secure match=a..example", match },
		{ "secure match=192.0.2.1", match },
		{ "secure match=\xc3\xa4.example", match },
		{ "encrypt match=a.example", "match= is for the levels fingerprint, verify and secure" },
		{ "dane match=a.example", "match= is for the levels fingerprint, verify and secure" },
		{ "fingerprint", "fingerprint needs match=" },
		{ "fingerprint match=00:11:22:33:44:55:66:77:88:99:aa:bb:CC:DD:EE:FF:00:11:22:33", fingerprint },
		{ "fingerprint match=0:011:22:33:44:55:66:77:88:99:aa:bb:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:aa:bb:CC:DD:EE:FF",
		    fingerprint },
		{ "fingerprint match=gg112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", fingerprint },
		{ "fingerprint match=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff|", fingerprint },
		{ "secure servername=a_b!", "servername= takes a name, nexthop or hostname" },
		{ "secure policy_domain=[192.0.2.1]", "policy_domain= takes a name" },
		{ "secure policy_type=STSv1", "policy_type= takes sts or no-policy-found" },
		{ "secure policy_type=sts mx_host_pattern=a.*.example", "mx_host_pattern= takes a name or *.NAME" },
		{ "secure policy_type=sts mx_host_pattern=.example", "mx_host_pattern= takes a name or *.NAME" },
		{ "secure policy_type=sts mx_host_pattern=*.", "mx_host_pattern= takes a name or *.NAME" },
		{ "secure mx_host_pattern=a.example", "mx_host_pattern= needs policy_type=sts" },
		{ "secure { policy_string = a", "a { has no }" },
		{ "secure {{ policy_string = a }", "a { has no }" },
		{ "secure {", "a { has no }" },
		{ "secure { } match=a.example", "braces are for one attribute, { NAME = VALUE }" },
		{ "secure { policy_string=a }match=a.example", "braces are for one attribute, { NAME = VALUE }" },
		{ "secure tafile=/etc/ssl/ca.pem", "tafile= is not known: the file of --tls-ca says whom to trust" },
	};
	struct tlspolicy p;

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++)
		expect_text(known[i][0], told(known[i][0]), known[i][1]);
	assert_non_null(tlspolicy_parse(&p, "secure match=a\0.example", 23));
	assert_non_null(tlspolicy_parse(&p, "secure { policy_string = a\0b }", 30));
}

/* As much as fits, and not an octet more. */
static void room(void **state)
{
	static char text[2 * TLSPOLICY_TEXT + 100];
	size_t n = (size_t)sprintf(text, "secure match=a.example policy_type=sts { policy_string = ");
	size_t left = TLSPOLICY_TEXT - sizeof "a.example" - 1;
	struct tlspolicy p;

	(void)state;
	memset(text + n, 'x', left);
	strcpy(text + n + left, " }");
	assert_null(parse(&p, text));
	assert_int_equal(p.list[TLSPOLICY_STRINGS].len, left + 1);
	strcpy(text + n + left, "x }");
	expect_text("too long", parse(&p, text), "the policy is too long");
	n = (size_t)sprintf(text, "secure policy_type=sts mx_host_pattern=a.example match=a");
	while (n < TLSPOLICY_TEXT + 50)
		n += (size_t)sprintf(text + n, ":a");
	expect_text("names alone", parse(&p, text), "the policy is too long");
}

static void levels(void **state)
{
	static const struct {
		const char *policy;
		enum tls_level level;
	} known[] = {
		{ "none", TLS_NONE },
		{ "may", TLS_MAY },
		{ "encrypt", TLS_ENCRYPT },
		{ "dane", TLS_MAY },
		{ "dane-only", TLS_ENCRYPT },
		{ "fingerprint match=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", TLS_ENCRYPT },
		{ "verify", TLS_VERIFY },
		{ "secure", TLS_VERIFY },
		{ "secure policy_type=sts { policy_string = mode: enforce }", TLS_VERIFY },
		{ "secure policy_type=sts { policy_string = mode: testing }", TLS_MAY },
	};
	struct tlspolicy p;

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++) {
		assert_null(parse(&p, known[i].policy));
		assert_int_equal(tlspolicy_tls(&p), known[i].level);
	}
}

/* RFC 8461 4.1: the asterisk stands for one label. */
static void patterns(void **state)
{
	static const struct {
		const char *pattern, *name;
		bool fits;
	} known[] = {
		{ "*.example.com", "mail.example.com", true },
		{ "*.example.com", "MAIL.Example.COM", true },
		{ "*.example.com", "a.b.example.com", false },
		{ "*.example.com", "example.com", false },
		{ "*.example.com", ".example.com", false },
		{ "*.example.com", "mail.example.com.evil.org", false },
		{ "*.example.com", "*.example.com", true },
		{ "mail.example.com", "mail.example.com", true },
		{ "mail.example.com", "Mail.example.com", true },
		{ "mail.example.com", "x.mail.example.com", false },
		{ "mail.example.com", "*.example.com", false },
		{ "*.com", "com", false },
		{ "*.example.com", "", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++)
		if (tlspolicy_fits(known[i].pattern, known[i].name) != known[i].fits)
			fail_msg("%s and %s", known[i].pattern, known[i].name);
}

#define STS "secure match=mx.a.example:.b.example policy_type=sts mx_host_pattern=mx.a.example mx_host_pattern=*.b.example"

static void servers(void **state)
{
	static const struct {
		const char *policy, *server;
		bool permitted;
	} known[] = {
		{ STS, "mx.a.example", true },
		{ STS, "MX1.b.example", true },
		{ STS, "b.example", false },
		{ STS, "x.mx1.b.example", false },
		{ STS, "mx2.a.example", false },
		{ "secure match=mx.a.example", "elsewhere.example", true },
	};
	struct tlspolicy p;

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++) {
		assert_null(parse(&p, known[i].policy));
		if (tlspolicy_permits(&p, known[i].server) != known[i].permitted)
			fail_msg("%s: %s", known[i].policy, known[i].server);
	}
}

/* Of which a certificate must have one. */
static void certificates(void **state)
{
	static const struct {
		const char *policy, *server, *names;
	} known[] = {
		/* Where patterns say which servers there are, the certificate is the server's. */
		{ STS, "mx.a.example", " mx.a.example" },
		{ STS, "elsewhere.example", " elsewhere.example" },
		{ STS, NULL, " mx.a.example *.b.example" },
		{ "secure match=mx.a.example:.b.example", "other.example", " mx.a.example .b.example" },
		{ "secure match=hostname", "mx.a.example", " mx.a.example" },
		{ "secure match=hostname", NULL, "" },
		{ "secure match=nexthop:Hostname", "mx.a.example", " domain.example mx.a.example" },
		{ "secure match=dot-nexthop", "mx.a.example", " .domain.example" },
		/* Postfix's defaults */
		{ "secure", "mx.a.example", " domain.example .domain.example" },
		{ "verify", "mx.a.example", " mx.a.example" },
		{ "verify", NULL, "" },
		{ "verify match=nexthop", "mx.a.example", " domain.example" },
		/* 24 at most */
		{ "secure match=a:b:c:d:e:f:g:h:i:j:k:l:m:n:o:p:q:r:s:t:u:v:w:x:y", NULL,
		    " a b c d e f g h i j k l m n o p q r s t u v w x" },
	};
	struct tlspolicy_names names;
	struct tlspolicy p;

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++) {
		char said[200] = "";

		assert_null(parse(&p, known[i].policy));
		tlspolicy_names(&p, known[i].server, "domain.example", &names);
		for (size_t j = 0; j < names.count; j++)
			snprintf(said + strlen(said), sizeof said - strlen(said), " %s", names.name[j]);
		expect_text(known[i].policy, said, known[i].names);
	}
}

static void fingerprints(void **state)
{
	unsigned char fingerprint[TLSPOLICY_SHA256] = { 0xfe, 0x00, 0x0a };
	char policy[200] = "fingerprint match=ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff|fe000A";
	struct tlspolicy p;

	(void)state;
	for (unsigned i = 3; i < TLSPOLICY_SHA256; i++)
		strcat(policy, "00");
	assert_null(parse(&p, policy));
	assert_true(tlspolicy_has_fingerprint(&p, fingerprint));
	fingerprint[31] = 1;
	assert_false(tlspolicy_has_fingerprint(&p, fingerprint));
	assert_null(parse(&p, "secure match=a.example"));
	assert_false(tlspolicy_has_fingerprint(&p, fingerprint));
}

static void server_names(void **state)
{
	static const struct {
		const char *policy, *server, *name;
	} known[] = {
		{ "secure", "mx.a.example", NULL }, { "secure servername=hostname", "mx.a.example", "mx.a.example" },
		{ "secure servername=hostname", NULL, NULL }, { "secure servername=nexthop", NULL, "domain.example" },
		{ "secure servername=sni.example", "mx.a.example", "sni.example" },
	};
	struct tlspolicy p;

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++) {
		const char *name;

		assert_null(parse(&p, known[i].policy));
		name = tlspolicy_servername(&p, known[i].server, "domain.example");
		expect_text(known[i].policy, name ? name : "", known[i].name ? known[i].name : "");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words),
		cmocka_unit_test(faults),
		cmocka_unit_test(room),
		cmocka_unit_test(levels),
		cmocka_unit_test(patterns),
		cmocka_unit_test(servers),
		cmocka_unit_test(certificates),
		cmocka_unit_test(fingerprints),
		cmocka_unit_test(server_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
