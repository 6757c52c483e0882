/* The table of options: every limit, every word and every refusal; where values come from; defaults and --help. */
#include "test/lib/unit.h"

#include "pure/options.h"

static struct options o;
static char why[512];

static char *environment[8];

/* With no other variable in the environment. */
static void set_variable(const char *name, const char *value)
{
	static char text[200];

	snprintf(text, sizeof text, "%s=%s", name, value);
	environment[0] = text;
	environment[1] = NULL;
}

static enum options_word read_word(char **arguments)
{
	int n = 0;

	while (arguments[n])
		n++;
	why[0] = 0;
	return options_read(&o, n, arguments, environment, why, sizeof why);
}

/* Read these arguments, NULL at the end. Returns what is wrong with them, "": nothing. */
static const char *read_all(char **arguments)
{
	enum options_word word = read_word(arguments);

	assert_int_equal(word, why[0] ? OPTIONS_BAD : OPTIONS_GOOD);
	return why;
}

#define READ(...) read_all((char *[]){ "smtpwarp", __VA_ARGS__ __VA_OPT__(,) NULL })

static const char *read_one(const char *name, const char *value)
{
	static char option[64];

	snprintf(option, sizeof option, "--%s", name);
	return READ(option, (char *)(uintptr_t)value);
}

/* The whole complaint about a value. */
static const char *about(const char *name, const char *value, const char *want)
{
	static char text[512];

	snprintf(text, sizeof text, "--%s %s: it %s", name, value, want);
	return text;
}

static void expect_refused(const char *name, const char *value, const char *want)
{
	expect_text(name, read_one(name, value), about(name, value, want));
}

static void expect_taken(const char *name, const char *value)
{
	expect_text(name, read_one(name, value), "");
}

/* ---- kinds of values ---- */

static void test_numbers(void **state)
{
	static const struct {
		const char *name;
		uint64_t least, most;
		const uint32_t *member;
	} rows[] = {
		{ "port", 1, 65535, &o.warp_port },
		{ "max-sessions", 1, 100000, &o.max_sessions },
		{ "max-sessions-per-source", 0, UINT32_MAX, &o.max_sessions_per_source },
		{ "mark", 0, UINT32_MAX, &o.outbound.mark },
		{ "max-recipients", 1, DIALOGUE_RCPT_MAX, &o.limits.recipients },
		{ "max-errors", 0, UINT32_MAX, &o.max_errors },
		{ "max-pipeline", 1, DIALOGUE_QUEUE_MAX - 2, &o.limits.pipeline },
		{ "dnsbl-threshold", 1, 100000, &o.dnsbl_threshold },
		{ "max-tarpits", 0, 100000, &o.max_tarpits },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		const uint64_t values[] = { rows[i].least, rows[i].most, rows[i].least - 1, rows[i].most + 1 };
		char text[32], want[80];

		snprintf(want, sizeof want, "takes a number from %llu to %llu", (unsigned long long)rows[i].least,
		    (unsigned long long)rows[i].most);
		for (size_t k = 0; k < COUNT(values); k++) {
			snprintf(text, sizeof text, "%llu", (unsigned long long)values[k]);
			if (k < 2) {
				expect_taken(rows[i].name, text);
				assert_int_equal(*rows[i].member, values[k]);
			} else {
				expect_refused(rows[i].name, text, want);
			}
		}
		for (const char *const *bad = (const char *const[]){ "", "-1", "+1", " 1", "1 ", "1x", "x", "1.5", "0x10",
			 "18446744073709551616", NULL }; *bad; bad++)
			expect_refused(rows[i].name, *bad, want);
	}
}

static void test_octets(void **state)
{
	static const char length[] = "takes octets from 512 to 12288, also in K, M or G";
	static const char rate[] = "takes octets from 0 to 4294967295, also in K, M or G";

	(void)state;
	expect_taken("command-length", "512");
	assert_int_equal(o.limits.command_line, 512);
	expect_taken("command-length", "12K");
	assert_int_equal(o.limits.command_line, 12288);
	for (const char *const *bad = (const char *const[]){ "511", "12289", "13K", "0K", "1M", "4194305K", "", "K", "-1K", "1x", "1KK",
		 NULL }; *bad; bad++)
		expect_refused("command-length", *bad, length);
	expect_taken("min-rate", "4294967295");
	assert_true(o.min_rate == UINT32_MAX);
	expect_taken("min-rate", "4095M");
	assert_true(o.min_rate == 4095u << 20);
	expect_refused("min-rate", "4G", rate);
	expect_refused("min-rate", "4294967296", rate);
}

static void test_size(void **state)
{
	static const char want[] = "takes octets from 0 to 9223372036854775807, also in K, M or G";
	static const struct {
		const char *value;
		uint64_t octets;
	} good[] = { { "1K", 1024 }, { "1k", 1024 }, { "10M", 10485760 }, { "10m", 10485760 }, { "2G", UINT64_C(2) << 30 },
		{ "3g", UINT64_C(3) << 30 }, { "0G", 0 }, { "8589934591G", INT64_MAX - (1 << 30) + 1 } };

	(void)state;
	expect_taken("message-size-limit", "9223372036854775807");
	assert_true(o.limits.message_size == INT64_MAX);
	expect_taken("message-size-limit", "0");
	assert_true(o.limits.message_size == 0);
	expect_refused("message-size-limit", "9223372036854775808", want);
	for (size_t i = 0; i < COUNT(good); i++) {
		expect_taken("message-size-limit", good[i].value);
		assert_true(o.limits.message_size == good[i].octets);
	}
	for (const char *const *bad = (const char *const[]){ "", "M", "10x", "10MB", "10 M", "1.5M", "M10", "10KM", "-1M", "8589934592G",
		 "9007199254740992K", "18446744073709551615G", "000000000000000000000001", "10000000000000000000000000000001K", NULL };
	     *bad; bad++)
		expect_refused("message-size-limit", *bad, want);
}

static void test_kept(void **state)
{
	static const char want[] = "takes octets such as 100M, or percent of the memory such as 25%";
	static const char range[] = "takes octets such as 100M, or percent of the memory from 1% to 100%";

	(void)state;
	expect_taken("max-kept", "100%");
	assert_true(o.max_kept_percent == 100 && o.max_kept == 0);
	expect_taken("max-kept", "1%");
	assert_true(o.max_kept_percent == 1);
	expect_taken("max-kept", "9223372036854775807");
	assert_true(o.max_kept_percent == 0 && o.max_kept == INT64_MAX);
	expect_taken("max-kept", "0");
	assert_true(o.max_kept_percent == 0 && o.max_kept == 0);
	expect_refused("max-kept", "0%", range);
	expect_refused("max-kept", "101%", range);
	expect_refused("max-kept", "4294967297%", range);
	expect_refused("max-kept", "%", want);
	expect_taken("max-kept", "10M");
	assert_true(o.max_kept_percent == 0 && o.max_kept == 10485760);
	expect_refused("max-kept", "10X", want);
	expect_refused("max-kept", "10M%", want);
	expect_refused("max-kept", "10%%", want);
	expect_refused("max-kept", "9223372036854775808", want);
}

static void test_seconds(void **state)
{
	static const struct {
		const char *value;
		int64_t us;
	} good[] = { { "0", 0 }, { "300", 300000000 }, { "0.5", 500000 }, { "1.", 1000000 }, { "0.000001", 1 },
		{ "0.0000019", 1 }, { "12345678", INT64_C(12345678000000) }, { "007.25", 7250000 },
		{ "30s", 30000000 }, { "5m", 300000000 }, { "2h", INT64_C(7200000000) }, { "1d", INT64_C(86400000000) }, { "0.5m", 30000000 },
		{ "0s", 0 }, { "99999999", INT64_C(99999999000000) }, { "1157d", INT64_C(99964800000000) } };
	static const struct {
		const char *name;
		const int64_t *member;
	} rows[] = {
		{ "drain-timeout", &o.timeouts.drain }, { "idle-exit", &o.timeouts.idle_exit },
		{ "connect-timeout", &o.timeouts.connect }, { "tls-timeout", &o.timeouts.tls },
		{ "proxy-timeout", &o.timeouts.proxy }, { "hook-timeout", &o.timeouts.hook },
		{ "banner-timeout", &o.timeouts.banner }, { "mail-timeout", &o.timeouts.mail },
		{ "rcpt-timeout", &o.timeouts.rcpt }, { "data-timeout", &o.timeouts.data }, { "dot-timeout", &o.timeouts.dot },
		{ "command-timeout", &o.timeouts.command }, { "block-timeout", &o.timeouts.block },
		{ "idle-timeout", &o.timeouts.idle }, { "session-timeout", &o.timeouts.session },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		for (size_t k = 0; k < COUNT(good); k++) {
			expect_taken(rows[i].name, good[k].value);
			assert_true(*rows[i].member == good[k].us);
		}
		for (const char *const *bad = (const char *const[]){ "", "-1", ".5", "5x", "5S", "5ms", "5 m", "m", "1h30m", "1e3", "1.2.3", "123456789", "1158d",
			 "99999999d", "99999999.1", "soon", NULL };
		     *bad; bad++)
			expect_refused(rows[i].name, *bad, "takes seconds, such as 300 or 0.5, or a time such as 30s, 5m, 2h or 1d");
	}
}

static void test_seconds_within_limits(void **state)
{
	static const struct {
		const char *name, *good[2], *bad[4], *want;
		const int64_t *member;
		int64_t us[2];
	} rows[] = {
		{ "greet-delay", { "0", "5m" }, { "300.000001", "301", "-1", "" }, "takes seconds from 0 to 300", &o.greet_delay,
		    { 0, 300000000 } },
		{ "tarpit", { "0", "300s" }, { "6m", "99999999", "x", "" }, "takes seconds from 0 to 300", &o.tarpit,
		    { 0, 300000000 } },
		{ "dnsbl-timeout", { "0.1", "60" }, { "0.09", "60.01", "0", "" }, "takes seconds from 0.1 to 60", &o.dnsbl_timeout,
		    { 100000, 60000000 } },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		for (size_t k = 0; k < COUNT(rows[i].good); k++) {
			expect_taken(rows[i].name, rows[i].good[k]);
			assert_true(*rows[i].member == rows[i].us[k]);
		}
		for (size_t k = 0; k < COUNT(rows[i].bad); k++)
			expect_refused(rows[i].name, rows[i].bad[k], rows[i].want);
	}
}

static void test_texts(void **state)
{
	static const struct {
		const char *name;
		const char **member;
	} rows[] = {
		{ "user", &o.user }, { "routes", &o.routes }, { "compile-routes", &o.compile_routes }, { "tls-ca", &o.tls_ca },
		{ "tls-name", &o.tls_name }, { "tls-cert", &o.tls_cert }, { "tls-key", &o.tls_key },
		{ "upstream-auth", &o.upstream_auth }, { "hooks", &o.hooks },
		{ "plugins", &o.plugins }, { "plugins-dir", &o.plugins_dir },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		expect_taken(rows[i].name, "any text");
		expect_text(rows[i].name, *rows[i].member, "any text");
		expect_refused(rows[i].name, "", "must not be empty");
	}
}

static void test_switches(void **state)
{
	static const struct {
		const char *name;
		const bool *member;
	} rows[] = { { "auth", &o.auth }, { "xclient", &o.xclient }, { "xforward", &o.xforward }, { "received", &o.received },
		{ "verbose", &o.verbose }, { "plain-auth", &o.plain_auth }, { "check", &o.check } };
	static const struct {
		const char *value;
		bool on;
	} values[] = { { "", true }, { "=1", true }, { "=yes", true }, { "=true", true }, { "=0", false }, { "=no", false },
		{ "=false", false } };
	char option[40], want[80];

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		for (size_t k = 0; k < COUNT(values); k++) {
			snprintf(option, sizeof option, "--%s%s", rows[i].name, values[k].value);
			expect_text(option, READ(option), "");
			assert_int_equal(*rows[i].member, values[k].on);
		}
		for (const char *const *bad = (const char *const[]){ "", "Yes", "2", "maybe", NULL }; *bad; bad++) {
			snprintf(option, sizeof option, "--%s=%s", rows[i].name, *bad);
			snprintf(want, sizeof want, "--%s %s: it takes yes or no, or no value at all", rows[i].name, *bad);
			expect_text(option, READ(option), want);
		}
		snprintf(option, sizeof option, "--%s", rows[i].name);
		expect_text("a switch takes no value behind it", READ(option, "no"), "unknown option no; see --help");
	}
}

static unsigned connect_on(void)
{
	return o.limits.on_recipient;
}

static unsigned tls(void)
{
	return o.tls;
}

static unsigned client_tls(void)
{
	return o.client_tls;
}

static unsigned send_proxy(void)
{
	return o.send_proxy;
}

static unsigned client_names(void)
{
	return o.no_client_names;
}

static unsigned hook_failure(void)
{
	return o.hook_failure_accepts;
}

static unsigned tls_on(void)
{
	return o.tls_on_recipient;
}

static unsigned bare_newline(void)
{
	return o.limits.newline;
}

/* Words and the numbers that they are. */
static void test_choices(void **state)
{
	static const struct {
		const char *name, *want;
		unsigned (*number)(void);
		const char *words[8];
		unsigned numbers[8];
	} rows[] = {
		{ "connect-on", "takes connect or recipient", connect_on, { "connect", "recipient" }, { 0, 1 } },
		{ "tls-on", "takes connect or recipient", tls_on, { "connect", "recipient" }, { 0, 1 } },
		{ "tls", "takes none, may, verify-if-offered, dane, encrypt, dane-only or verify", tls,
		    { "none", "may", "verify-if-offered", "dane", "encrypt", "dane-only", "verify" },
		    { TLS_NONE, TLS_MAY, TLS_OFFERED, TLS_DANE, TLS_ENCRYPT, TLS_DANE_ONLY, TLS_VERIFY } },
		{ "client-tls", "takes may, require, implicit, passthrough or auto", client_tls,
		    { "may", "require", "implicit", "passthrough", "auto" },
		    { CLIENT_TLS_MAY, CLIENT_TLS_REQUIRE, CLIENT_TLS_IMPLICIT, CLIENT_TLS_PASSTHROUGH, CLIENT_TLS_AUTO } },
		{ "send-proxy", "takes v1 or v2", send_proxy, { "v1", "v2" }, { 1, 2 } },
		{ "client-names", "takes lookup or none", client_names, { "lookup", "none" }, { 0, 1 } },
		{ "hook-failure", "takes defer or accept", hook_failure, { "defer", "accept" }, { 0, 1 } },
		{ "bare-newline", "takes normalize, reject or pass", bare_newline, { "normalize", "reject", "pass" },
		    { SMTP_NL_NORMALIZE, SMTP_NL_REJECT, SMTP_NL_PASS } },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		for (size_t k = 0; k < COUNT(rows[i].words) && rows[i].words[k]; k++) {
			expect_taken(rows[i].name, rows[i].words[k]);
			assert_int_equal(rows[i].number(), rows[i].numbers[k]);
		}
		for (const char *const *bad = (const char *const[]){ "", "or", ",", "May", "non", "v3", "connect or recipient", NULL };
		     *bad; bad++)
			expect_refused(rows[i].name, *bad, rows[i].want);
	}
	expect_refused("client-tls", "none", "takes may, require, implicit, passthrough or auto");
}

/* ---- options that may be given several times ---- */

static const unsigned *count_of(const char *name)
{
	return strcmp(name, "listen") == 0	? &o.listens :
	    strcmp(name, "upstream") == 0	? &o.upstreams :
	    strcmp(name, "accept-proxy") == 0	? &o.proxies :
	    strcmp(name, "allow-clients") == 0	? &o.allows :
	    strcmp(name, "tls-inspect") == 0	? &o.inspects :
	    strcmp(name, "dane-exempt") == 0	? &o.dane_exempts :
	    strcmp(name, "dnsbl") == 0		? &o.dnsbls :
	    strcmp(name, "reply-rules") == 0	? &o.reply_rules_count :
	    strcmp(name, "cert") == 0		? &o.certs :
	    strcmp(name, "key") == 0		? &o.keys :
						  &o.dns.count;
}

static void test_how_many_times(void **state)
{
	static const struct {
		char *option, *value;
		unsigned most;
	} rows[] = {
		{ "--listen", "*:25", OPTIONS_LISTEN_MAX },
		{ "--upstream", "mx.example", OPTIONS_UPSTREAM_MAX },
		{ "--accept-proxy", "::1", OPTIONS_PROXY_MAX },
		{ "--allow-clients", "::1", OPTIONS_ALLOW_MAX },
		{ "--tls-inspect", "to:::1", OPTIONS_INSPECT_MAX },
		{ "--dane-exempt", "::1", OPTIONS_EXEMPT_MAX },
		{ "--dnsbl", "list.example", OPTIONS_DNSBL_MAX },
		{ "--dns-server", "::1", DNS_SERVERS },
		{ "--reply-rules", "file", OPTIONS_FILES_MAX },
		{ "--cert", "file", OPTIONS_FILES_MAX },
		{ "--key", "file", OPTIONS_FILES_MAX },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		char *arguments[2 * OPTIONS_ALLOW_MAX + 4] = { "smtpwarp" }, want[80];

		for (unsigned k = 0; k <= rows[i].most; k++) {
			arguments[1 + 2 * k] = rows[i].option;
			arguments[2 + 2 * k] = rows[i].value;
		}
		snprintf(want, sizeof want, "can be given %u times at most", rows[i].most);
		expect_text(rows[i].option, read_all(arguments), about(rows[i].option + 2, rows[i].value, want));
		arguments[1 + 2 * rows[i].most] = NULL;
		expect_text(rows[i].option, read_all(arguments), "");
		assert_int_equal(*count_of(rows[i].option + 2), rows[i].most);
	}
}

static void test_listen(void **state)
{
	static const char *const bad[] = { "", "127.0.0.1", "127.0.0.1:", ":", ":0", ":x", "::25", "localhost", "localhost:", "localhos:25", "127.0.0.1:0", "127.0.0.1:65536", "::1:25x", "*",
		"mx.example:25", "[::1]", "[127.0.0.1:25" };
	char text[NET_TEXT];

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++)
		expect_refused("listen", bad[i], "takes ADDRESS:PORT, such as 127.0.0.1:2525, [::1]:2525 or localhost:2525, or *:2525 or "
						 ":2525 for all addresses");
	expect_text("three", READ("--listen", "127.0.0.1:2525", "--listen=[::1]:25", "-listen", "*:65535"), "");
	assert_int_equal(o.listens, 3);
	expect_text("IPv4", net_text(&o.listen[0], text), "127.0.0.1");
	assert_int_equal(net_port(&o.listen[0]), 2525);
	expect_text("IPv6", net_text(&o.listen[1], text), "::1");
	expect_text("any", net_text(&o.listen[2], text), "::");
	assert_int_equal(net_port(&o.listen[2]), 65535);
	assert_int_equal(o.may_lack, 0);
}

/* localhost is both addresses, and the second may be missing; a port alone is all addresses. */
static void test_listen_in_short(void **state)
{
	char *full[2 * OPTIONS_LISTEN_MAX + 2] = { "smtpwarp" }, text[NET_TEXT];

	(void)state;
	expect_text("three", READ("--listen", "*:1", "--listen", "localhost:2525", "--listen", ":25"), "");
	assert_int_equal(o.listens, 4);
	expect_text("IPv4", net_text(&o.listen[1], text), "127.0.0.1");
	expect_text("IPv6", net_text(&o.listen[2], text), "::1");
	expect_text("any", net_text(&o.listen[3], text), "::");
	assert_true(net_port(&o.listen[1]) == 2525 && net_port(&o.listen[2]) == 2525 && net_port(&o.listen[3]) == 25);
	assert_int_equal(o.may_lack, 1u << 2);
	for (int i = 0; i < OPTIONS_LISTEN_MAX; i++) {
		full[1 + 2 * i] = "--listen";
		full[2 + 2 * i] = i == OPTIONS_LISTEN_MAX - 1 ? "localhost:1" : "*:1";
	}
	expect_text("room for one", read_all(full), about("listen", "localhost:1", "can be given 8 times at most"));
}

/* As Warp has it: both together are one more address. */
static void test_ip_and_port(void **state)
{
	char *full[2 * OPTIONS_LISTEN_MAX + 4] = { "smtpwarp" }, text[NET_TEXT];

	(void)state;
	expect_text("port alone", READ("-port", "25"), "");
	assert_int_equal(o.listens, 1);
	expect_text("port alone", net_text(&o.listen[0], text), "127.0.0.1");
	expect_text("both", READ("-ip", "::1", "-port", "26", "--listen", "*:25"), "");
	assert_int_equal(o.listens, 2);
	expect_text("both", net_text(&o.listen[1], text), "::1");
	assert_int_equal(net_port(&o.listen[1]), 26);
	expect_text("ip alone", READ("--ip", "127.0.0.1"), "--ip needs --port");
	expect_text("neither, though there was one before", READ(), "");
	assert_int_equal(o.listens, 0);
	expect_refused("ip", "localhost", "takes an IP address");
	expect_refused("ip", "", "takes an IP address");
	for (int i = 0; i < OPTIONS_LISTEN_MAX; i++) {
		full[1 + 2 * i] = "--listen";
		full[2 + 2 * i] = "*:1";
	}
	full[1 + 2 * OPTIONS_LISTEN_MAX] = "--port";
	full[2 + 2 * OPTIONS_LISTEN_MAX] = "1";
	expect_text("one too many", read_all(full), "--port: there are 8 addresses to listen on already");
}

static void test_source(void **state)
{
	(void)state;
	expect_text("both", READ("--outbound-ip", "192.0.2.1", "--outbound-ip", "2001:db8::1", "--outbound-ip", "client"), "");
	assert_true(o.outbound_client);
	assert_int_equal(o.outbound.source4.sa.sa_family, AF_INET);
	assert_int_equal(o.outbound.source6.sa.sa_family, AF_INET6);
	expect_text("IPv4 twice", READ("--outbound-ip", "192.0.2.1", "--outbound-ip", "192.0.2.2"),
	    about("outbound-ip", "192.0.2.2", "can be given once for IPv4 and once for IPv6"));
	expect_text("IPv6 twice", READ("--outbound-ip", "::1", "--outbound-ip", "::1"),
	    about("outbound-ip", "::1", "can be given once for IPv4 and once for IPv6"));
	expect_refused("outbound-ip", "192.0.2.1:25", "takes an IP address of this host, or the word client");
	expect_refused("outbound-ip", "", "takes an IP address of this host, or the word client");
}

/* ---- options that take something of their own ---- */

static void test_own_values(void **state)
{
	static const struct {
		const char *name, *value, *want; /* want NULL: it is taken */
	} rows[] = {
		{ "upstream", "mx.example:587", NULL },
		{ "upstream", "", "takes " ENDPOINT_WORDS },
		{ "accept-proxy", "10.0.0.0/8", NULL },
		{ "accept-proxy", "10.0.0.1/8", "takes ADDRESS/BITS, such as 10.0.0.0/8 or ::1" },
		{ "allow-clients", "2001:db8::/32", NULL },
		{ "tls-inspect", "10.0.0.0/8", NULL },
		{ "dane-exempt", "10.0.0.0/8", NULL },
		{ "dane-exempt", "10.0.0.0/33", "takes ADDRESS/BITS, such as 192.0.2.0/24" },
		{ "tls-policy", "/etc/file", NULL },
		{ "tls-policy", "socketmap:unix:/run/x:name", NULL },
		{ "tls-policy", "hash", NULL },
		{ "tls-policy", "./a:b", NULL },
		{ "tls-policy", "", OPTIONS_POLICY_WORDS },
		{ "tls-policy", "hash:/etc/postfix/tls_policy", OPTIONS_POLICY_WORDS },
		{ "tls-policy", "inet:127.0.0.1:8461:postfix", OPTIONS_POLICY_WORDS },
		{ "tlsrpt", "/run/tlsrpt.sock", NULL },
		{ "tlsrpt", "run/tlsrpt.sock", "takes the path of a socket, /PATH, 107 octets at most" },
		{ "tls-inspect", "to:2001:db8::/32", NULL },
		{ "tls-inspect", "to:", "takes ADDRESS/BITS of clients, such as 10.0.0.0/8, or to:ADDRESS/BITS of servers" },
		{ "tls-inspect", "from:10.0.0.0/8", "takes ADDRESS/BITS of clients, such as 10.0.0.0/8, or to:ADDRESS/BITS of servers" },
		{ "allow-clients", "2001:db8::1/32",
		    "takes ADDRESS/BITS, such as 10.0.0.0/8 or 2001:db8::/32, with no bit set behind the prefix" },
		{ "dnsbl", "list.example=127.0.0.[2;4..11]*3", NULL },
		{ "dnsbl", "list", "takes ZONE, ZONE=127.0.0.[2;4..11] or ZONE=127.0.0.2*WEIGHT" },
		{ "cert", "any text", NULL },
		{ "cert", "", "takes the path of a file, 255 octets at most" },
		{ "key", "", "takes the path of a file, 255 octets at most" },
		{ "dns-server", "192.0.2.1", NULL },
		{ "dns-server", "[::1]:5353", NULL },
		{ "dns-server", "ns.example", "takes ADDRESS, ADDRESS:PORT or [IPv6]:PORT" },
		{ "dns-server", "", "takes ADDRESS, ADDRESS:PORT or [IPv6]:PORT" },
		{ "recipient-delimiter", "", NULL },
		{ "recipient-delimiter", "+-", NULL },
		{ "recipient-delimiter", "!#$%&'*+-./=?^_`{|}~", NULL },
		{ "recipient-delimiter", "+a", "takes one or more characters such as +-" },
		{ "recipient-delimiter", "@", "takes one or more characters such as +-" },
		{ "hostname", "mx-1.example", NULL },
		{ "hostname", "a b", "takes a host name" },
		{ "hostname", "", "must not be empty" },
		{ "log", "stderr", NULL },
		{ "log", "file:/var/log/x", NULL },
		{ "log", "file:", "takes stderr, journal, syslog, file:PATH, unix:PATH or none" },
		{ "log", "", "takes stderr, journal, syslog, file:PATH, unix:PATH or none" },
		{ "valid-recipients", "^[a-z]+@example\\.com$", NULL },
		{ "valid-recipients", "", "must not be empty" },
		{ "valid-recipients", "(", "has a ( without its )" },
		{ "override-recipient", "test@example.com", NULL },
		{ "override-recipient", "\"a b\"@example.com", NULL },
		{ "override-recipient", "test", "takes an address, such as test@example.com" },
		{ "override-recipient", "a@b> SIZE=1", "takes an address, such as test@example.com" },
		{ "override-recipient", "@r:a@b", "takes an address, such as test@example.com" },
		{ "override-recipient", "", "takes an address, such as test@example.com" },
	};
	static char address[400];

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		if (rows[i].want)
			expect_refused(rows[i].name, rows[i].value, rows[i].want);
		else
			expect_taken(rows[i].name, rows[i].value);
	snprintf(address, sizeof address, "%0290d@x", 0);
	expect_refused("override-recipient", address, "takes an address that is not so long");
	memset(address, '/', 107); /* what connect(2) takes */
	address[107] = 0;
	expect_taken("tlsrpt", address);
	strcat(address, "/");
	expect_refused("tlsrpt", address, "takes the path of a socket, /PATH, 107 octets at most");
}

/* Where values of lists and large values are to be found. */
static void test_what_is_pointed_to(void **state)
{
	union net_address a;

	(void)state;
	expect_text("given", READ("--allow-clients", "10.0.0.0/8", "--dnsbl", "a.b*2", "--valid-recipients", "@example"), "");
	assert_true(net_parse("10.1.2.3", 0, &a) && net_in_block(&a, o.allow));
	assert_int_equal(o.dnsbl->weight, 2);
	assert_true(ere_match(o.valid_recipients, (const unsigned char *)"x@EXAMPLE", 9));
	expect_text("not given", READ(), "");
	assert_true(!o.allow && !o.dnsbl && !o.valid_recipients);
}

/* What follows from options that are given. */
static void test_consequences(void **state)
{
	(void)state;
	expect_text("routes", READ("--routes", "f"), "");
	assert_true(o.limits.on_recipient);
	expect_text("routes win", READ("--routes", "f", "--connect-on", "connect"), "");
	assert_true(o.limits.on_recipient);
	expect_text("cert", READ("--cert", "f", "--cert", "g", "--key", "h"), "");
	assert_true(o.certs == 2 && o.keys == 1);
	expect_text("first", o.cert[0], "f");
	expect_text("second", o.cert[1], "g");
	expect_text("key", o.key[0], "h");
	assert_int_equal(o.client_tls, CLIENT_TLS_MAY);
	assert_false(o.limits.require_tls);
	expect_text("require", READ("--client-tls", "require"), "");
	assert_int_equal(o.client_tls, CLIENT_TLS_REQUIRE);
	assert_true(o.limits.require_tls);
	expect_text("require", READ("--cert", "f", "--client-tls", "implicit"), "");
	assert_int_equal(o.client_tls, CLIENT_TLS_IMPLICIT);
	expect_text("hooks", READ("--hooks", "/x"), "");
	assert_true(o.hooks_given);
	expect_text("the default", READ("--hooks", OPTIONS_HOOKS), "");
	assert_false(o.hooks_given);
}

static void test_defaults(void **state)
{
	const int64_t s = 1000000;

	(void)state;
	expect_text("none", READ(), "");
	assert_true(!o.listens && !o.upstreams && !o.proxies && !o.allows && !o.dnsbls && !o.dns.count && !o.warp_ip);
	assert_true(!o.user && !o.routes && !o.compile_routes && !o.recipient_delimiter && !o.hostname && !o.tls_name);
	assert_true(!o.tls_cert && !o.tls_key && !o.upstream_auth && !o.cert && !o.key && !o.log && !o.plugins);
	assert_true(!o.auth && !o.xclient && !o.xforward && !o.received && !o.verbose && !o.plain_auth && !o.check);
	assert_true(o.max_sessions == 1000 && o.max_sessions_per_source == 0 && o.max_errors == 20 && o.min_rate == 100);
	assert_true(o.limits.message_size == 10240000 && o.limits.recipients == 1000 && o.limits.pipeline == 64);
	assert_true(o.limits.command_line == 2048 && o.limits.newline == SMTP_NL_NORMALIZE && !o.limits.on_recipient);
	assert_true(o.tls == TLS_MAY && o.client_tls == CLIENT_TLS_NONE && !o.limits.require_tls && !o.send_proxy);
	assert_true(!o.no_client_names && !o.hook_failure_accepts && !o.hooks_given && !o.override_recipient);
	assert_true(o.greet_delay == 0 && o.tarpit == 0 && o.max_tarpits == 100 && o.max_kept_percent == 25 && o.max_kept == 0 && o.dnsbl_threshold == 1);
	assert_true(o.dnsbl_timeout == 5 * s && o.timeouts.connect == 30 * s && o.timeouts.tls == 60 * s);
	assert_true(o.timeouts.banner == 300 * s && o.timeouts.mail == 300 * s && o.timeouts.rcpt == 300 * s);
	assert_true(o.timeouts.data == 120 * s && o.timeouts.block == 180 * s && o.timeouts.dot == 600 * s);
	assert_true(o.timeouts.command == 300 * s && o.timeouts.idle == 300 * s && o.timeouts.session == 86400 * s);
	assert_true(o.timeouts.drain == 60 * s && o.timeouts.idle_exit == 30 * s && o.timeouts.hook == 30 * s);
	assert_true(o.timeouts.proxy == 10 * s && !o.outbound_client && !o.outbound.mark);
	expect_text("hooks", o.hooks, OPTIONS_HOOKS);
	expect_text("CAs", o.tls_ca, OPTIONS_CA_FILE);
}

/* Options, "hook" for a rcpt hook, and whether all the world could relay. */
static void test_open_relay(void **state)
{
	static const struct {
		const char *options[4], *local;
		bool hook, open;
	} rows[] = {
		{ { NULL }, "192.0.2.1", false, false },
		{ { "--upstream=mx" }, "192.0.2.1", false, true },
		{ { "--routes=f" }, "::", false, true },
		{ { "--upstream=mx" }, "127.0.0.1", false, false },
		{ { "--upstream=mx" }, "::1", false, false },
		{ { "--upstream=mx" }, "192.0.2.1", true, false },
		{ { "--upstream=mx", "--allow-clients=10.0.0.0/8" }, "192.0.2.1", false, false },
		{ { "--upstream=mx", "--valid-recipients=@x$" }, "192.0.2.1", false, false },
		{ { "--upstream=mx", "--dnsbl=bl.test" }, "192.0.2.1", false, true },
		{ { "--upstream=mx", "--client-tls=passthrough", "--valid-recipients=@x$" }, "192.0.2.1", true, true },
		{ { "--upstream=mx", "--client-tls=auto", "--valid-recipients=@x$" }, "192.0.2.1", true, true },
		{ { "--upstream=mx", "--client-tls=passthrough", "--allow-clients=10.0.0.0/8" }, "192.0.2.1", false, false },
	};
	union net_address a;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		char *arguments[6] = { "smtpwarp" };

		memcpy(arguments + 1, rows[i].options, sizeof rows[i].options);
		expect_text("options", read_all(arguments), "");
		assert_true(net_parse(rows[i].local, 25, &a));
		assert_int_equal(options_open_relay(&o, rows[i].hook, &a) != NULL, rows[i].open);
	}
	memset(&a, 0, sizeof a); /* a Unix socket */
	expect_text("upstream", READ("--upstream=mx"), "");
	assert_null(options_open_relay(&o, false, &a));
}

/* ---- the command line and the environment ---- */

static void test_forms(void **state)
{
	(void)state;
	expect_text("forms", READ("--max-errors", "1", "-max-pipeline", "2", "--max-recipients=3", "-min-rate=4"), "");
	assert_true(o.max_errors == 1 && o.limits.pipeline == 2 && o.limits.recipients == 3 && o.min_rate == 4);
	expect_text("the last counts", READ("--max-errors", "1", "--max-errors", "2"), "");
	assert_int_equal(o.max_errors, 2);
	expect_text("unknown", READ("--max-error", "1"), "unknown option --max-error: did you mean --max-errors? See --help");
	expect_text("longer", READ("--max-errors-x", "1"), "unknown option --max-errors-x: did you mean --max-errors? See --help");
	expect_text("swapped", READ("-tsl=may"), "unknown option -tsl=may: did you mean --tls? See --help");
	expect_text("underscores", READ("--Max_Errors=1"), "unknown option --Max_Errors=1: did you mean --max-errors? See --help");
	expect_text("too far off", READ("--max-eggs"), "unknown option --max-eggs; see --help");
	expect_text("short", READ("--ix"), "unknown option --ix; see --help");
	expect_text("the longest", READ("--max-sessions-per-sourcexxxx"),
	    "unknown option --max-sessions-per-sourcexxxx: did you mean --max-sessions-per-source? See --help");
	expect_text("too long", READ("--max-sessions-per-sourcexxxxx"), "unknown option --max-sessions-per-sourcexxxxx; see --help");
	expect_text("a word", READ("max-errors", "1"), "unknown option max-errors; see --help");
	expect_text("nothing", READ(""), "unknown option ; see --help");
	expect_text("dashes", READ("--"), "unknown option --; see --help");
	expect_text("no value", READ("--max-errors"), "--max-errors: a value is missing (N)");
	expect_text("an empty one", READ("--user="), about("user", "", "must not be empty"));
	expect_text("the first bad one", READ("--max-errors", "x", "--user", ""),
	    about("max-errors", "x", "takes a number from 0 to 4294967295"));
}

static void test_try_hook(void **state)
{
	static const char *const events[] = { "connect", "ehlo", "mail", "rcpt", "data", "close", "log" };

	(void)state;
	for (unsigned i = 0; i < sizeof events / sizeof *events; i++) {
		expect_text(events[i], READ("--try-hook", (char *)(uintptr_t)events[i], "--verbose", "path", "--user", "u", "sample"), "");
		assert_int_equal(o.try_hook, 1 + i);
		assert_true(o.verbose && strcmp(o.operand[0], "path") == 0 && strcmp(o.operand[1], "sample") == 0);
	}
	expect_text("no operands", READ("--try-hook", "log"), "");
	assert_true(!o.operand[0] && !o.operand[1]);
	expect_text("too many", READ("--try-hook", "log", "a", "b", "c"), "unknown option c; see --help");
	expect_text("before it", READ("a", "--try-hook", "log"), "unknown option a; see --help");
	expect_text("an option", READ("--try-hook", "log", "--a"), "unknown option --a; see --help");
	expect_text("no event", READ("--try-hook", "LOG"), about("try-hook", "LOG", "takes connect, ehlo, mail, rcpt, data, close or log"));
	expect_text("without", READ("--verbose"), "");
	assert_int_equal(o.try_hook, 0);
}

static void test_variables(void **state)
{
	static const struct {
		const char *name, *value, *want;
	} rows[] = {
		{ "SMTPWARP_MAX_ERRORS", "7", "" },
		{ "SMTPWARP_MAX_ERRORS", "", "" },
		{ "SMTPWARP_MAX_ERRORS", "x", "SMTPWARP_MAX_ERRORS=x: it takes a number from 0 to 4294967295" },
		{ "SMTPWARP_VERBOSE", "yes", "" },
		{ "SMTPWARP_VERBOSE", "on", "SMTPWARP_VERBOSE=on: it takes yes or no, or no value at all" },
		{ "SMTPWARP_LISTEN", "127.0.0.1:1, [::1]:2\t*:3,,", "" },
		{ "SMTPWARP_LISTEN", "127.0.0.1:1 x *:3",
		    "SMTPWARP_LISTEN=127.0.0.1:1 x *:3: it takes ADDRESS:PORT, such as 127.0.0.1:2525, [::1]:2525 or localhost:2525, or *:2525 "
		    "or :2525 for all addresses" },
		{ "SMTPWARP_MAX_ERROR", "7", "unknown variable SMTPWARP_MAX_ERROR: did you mean SMTPWARP_MAX_ERRORS? See --help" },
		{ "SMTPWARP_tls", "may", "unknown variable SMTPWARP_tls: did you mean SMTPWARP_TLS? See --help" },
		{ "SMTPWARP_VALID_RECIPIENT", "a=b", "unknown variable SMTPWARP_VALID_RECIPIENT: did you mean SMTPWARP_VALID_RECIPIENTS? See --help" },
		{ "SMTPWARP_", "7", "unknown variable SMTPWARP_; see --help" },
		{ "SMTPWARP_SERVICE_HOST", "10.0.0.1", "" }, /* those of Kubernetes */
		{ "SMTPWARP_PORT_25_TCP", "tcp://10.0.0.1:25", "" },
		{ "SMTPWARP_PORT", "tcp://10.0.0.1:25", "" },
		{ "SMTPWARP_PORT", "25x", "SMTPWARP_PORT=25x: it takes a number from 1 to 65535" },
		{ "SMTPWARPS", "7", "" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		set_variable(rows[i].name, rows[i].value);
		expect_text(rows[i].name, READ(), rows[i].want);
	}
	environment[0] = NULL;
}

static void test_several_variables(void **state)
{
	char list[] = "SMTPWARP_LISTEN=127.0.0.1:1, [::1]:2\t*:3,,", *const set[] = { list, "SMTPWARP_TLS=nonsense",
		"SMTPWARP_MAX_ERRORS=7", "SMTPWARP_MAX_ERRORS=8", "PATH=/", NULL };

	(void)state;
	memcpy(environment, set, sizeof set);
	expect_text("the command line wins", READ("--tls", "none", "--min-rate", "8"), "");
	assert_true(o.listens == 3 && o.max_errors == 7 && o.tls == TLS_NONE);
	expect_text("it replaces a list", READ("--tls", "none", "--listen", "*:9"), "");
	assert_true(o.listens == 1 && net_port(&o.listen[0]) == 9);
	expect_text("what is written to is as it was", list, "SMTPWARP_LISTEN=127.0.0.1:1, [::1]:2\t*:3,,");
	environment[0] = NULL;
}

/* Options before --help count; those behind, and the environment, do not. */
static void test_help_and_version(void **state)
{
	(void)state;
	set_variable("SMTPWARP_TLS", "nonsense");
	for (int dashes = 1; dashes <= 2; dashes++) {
		char help[8], version[16];

		snprintf(help, sizeof help, "%.*shelp", dashes, "--");
		snprintf(version, sizeof version, "%.*sversion", dashes, "--");
		assert_int_equal(read_word((char *[]){ "smtpwarp", "--auth", help, "--nonsense", NULL }), OPTIONS_HELP);
		assert_int_equal(read_word((char *[]){ "smtpwarp", "--auth", version, "--nonsense", NULL }), OPTIONS_VERSION);
		help[dashes + 1] = 0; /* -h */
		assert_int_equal(read_word((char *[]){ "smtpwarp", "--auth", help, "--nonsense", NULL }), OPTIONS_HELP);
	}
	environment[0] = NULL;
	expect_text("before it", READ("--nonsense", "--help"), "unknown option --nonsense; see --help");
	expect_text("nearly", READ("--helpp"), "unknown option --helpp; see --help");
}

static void test_help(void **state)
{
	static char text[OPTIONS_HELP_MAX];
	size_t n = options_help(text);

	(void)state;
	assert_true(n < sizeof text && strlen(text) == n && text[n - 1] == '\n');
	assert_int_equal(strncmp(text, "usage: smtpwarp ", 16), 0);
	assert_non_null(strstr(text, "\n  --max-errors N                  most bad commands of a session; 0: no limit (20)\n"));
	assert_non_null(strstr(text, "\n  --verbose                       log every command and reply\n"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_try_hook),
		cmocka_unit_test(test_octets),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_kept),
		cmocka_unit_test(test_seconds),
		cmocka_unit_test(test_seconds_within_limits),
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_switches),
		cmocka_unit_test(test_choices),
		cmocka_unit_test(test_how_many_times),
		cmocka_unit_test(test_listen),
		cmocka_unit_test(test_listen_in_short),
		cmocka_unit_test(test_ip_and_port),
		cmocka_unit_test(test_source),
		cmocka_unit_test(test_own_values),
		cmocka_unit_test(test_what_is_pointed_to),
		cmocka_unit_test(test_consequences),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_open_relay),
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_variables),
		cmocka_unit_test(test_several_variables),
		cmocka_unit_test(test_help_and_version),
		cmocka_unit_test(test_help),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
