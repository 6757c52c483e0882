/* TLS policies of recipients' domains: who is asked, in which order, what TLS comes to, and which recipients go over one connection. */
#include "test/lib/fake_session.h"
#include "test/lib/fake_story.h"

#include "session/policy.h"

#include <errno.h>
#include <string.h>

#define MAIL "MAIL FROM:<a@b.test>"
#define RCPT "RCPT TO:<r@d.test>"
#define OTHER "RCPT TO:<r@e.test>"
#define MAIL_OK "250 2.1.0 Ok"
#define LIST "250-mx.test\n250 STARTTLS"
#define LIST_WITH_AUTH "250-mx.test\n250-STARTTLS\n250 AUTH PLAIN"
#define INSIDE "250-mx.test\n250 AUTH PLAIN"
#define OTHER_WAY "452 4.5.3 This recipient's mail goes another way: send it in a transaction of its own"
#define MAP "--tls-policy socketmap:unix:/run/map:name "

static struct dane_answer answer;

/* --tls-policy f: the policy of this domain, and of no other. */
static void file_says(const char *domain, const char *policy)
{
	world_policy.file_domain = domain;
	world_policy.file = policy;
}

static void server_greets(const char *list)
{
	server_connects();
	server(BANNER);
	server(list);
}

/* AUTH is shown inside TLS, too. */
static void server_greets_with_auth(void)
{
	server_greets(LIST_WITH_AUTH);
	server("220 go");
	server_shakes();
	server(INSIDE);
}

static void client_logs_in(void)
{
	client("AUTH PLAIN AHRpbQBzZXNhbWU=");
	server("235 ok");
	nothing_said_yet();
}

/* A session whose client has seen the server's list. */
static void to_list(const char *options, const char *list)
{
	session_begins(options);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server(list);
}

/* A session that has come to the first recipient. */
static void to_rcpt(const char *options)
{
	to_list(options, LIST);
	client(MAIL);
	nothing_said_yet();
	client(RCPT);
}

/* The server takes TLS, MAIL and RCPT. */
static void goes_through(void)
{
	server("220 go");
	server_shakes();
	server("250 mx.test");
	server("250 ok");
	server("250 ok");
	stands_at(OPEN, READY);
}

static void next_transaction(const char *rcpt)
{
	client("RSET");
	server("250 ok");
	nothing_said_yet();
	client(MAIL);
	client(rcpt);
}

static void goes_through_at(enum tls_level level)
{
	goes_through();
	assert_int_equal(world_tls_server.level, level);
}

static void dane_says(enum dane_word word)
{
	answer = (struct dane_answer){ .word = word, .identified = true, .every = true, .host = "mx.d.test", .names = { "mx.d.test", "d.test" },
		.count = 2 };
	snprintf(answer.why, sizeof answer.why, "mx.d.test: the name server failed");
	world_policy.dane = &answer;
	goes_on();
}

/* There are records for the server of this name, which nothing proves to be the one that is connected to. */
static void dane_says_of_another(const char *host)
{
	answer = (struct dane_answer){ .word = DANE_USABLE, .host = host, .names = { host }, .count = 1 };
	world_policy.dane = &answer;
	goes_on();
}

static void map_says(enum socketmap_result result, const char *text)
{
	world_policy.map_result = result;
	world_policy.map = text;
	goes_on();
}

/* ---- DANE ---- */

static void records_that_can_be_used(void **state)
{
	(void)state;
	to_rcpt("--tls dane");
	stands_at(POLICY, READY);
	assert_string_equal(world_policy.asked, "d.test:25");
	server_gets("");
	dane_says(DANE_USABLE);
	server_gets("STARTTLS");
	server("220 go");
	assert_int_equal(world_tls_server.level, TLS_VERIFY);
	assert_string_equal(world_tls_server.name, "mx.d.test");
	assert_ptr_equal(world_tls_server.tlsa, &answer.set);
	server_shakes();
	server("250 mx.test");
	server("250 ok");
	server("250 ok");
	client_gets("250 ok");
	assert_string_equal(member_of("tls", "policy"), "\"dane\"");
	assert_true(policy_is_proven(the_session()));
}

/* The domain is not signed, its server is: whoever named the server may have been somebody else. */
static void records_of_a_host_that_may_be_somebody_elses(void **state)
{
	(void)state;
	to_rcpt("--tls dane");
	answer = (struct dane_answer){ .word = DANE_USABLE, .identified = true, .half = true, .host = "mx.d.test", .names = { "mx.d.test" }, .count = 1 };
	world_policy.dane = &answer;
	goes_on();
	goes_through();
	assert_int_equal(world_tls_server.level, TLS_VERIFY);
	assert_string_equal(member_of("tls", "policy"), "\"dane:halfdane\"");
	assert_false(policy_is_proven(the_session())); /* REQUIRETLS would be kept on the way to a stranger */
}

static void no_records(void **state)
{
	(void)state;
	to_rcpt("--tls dane");
	dane_says(DANE_NONE);
	goes_through_at(TLS_MAY);
	assert_string_equal(member_of("tls", "policy"), "\"may\"");
}

static void no_records_where_they_are_demanded(void **state)
{
	(void)state;
	to_rcpt("--tls dane-only");
	dane_says(DANE_NONE);
	client_gets("451 4.7.5 dane-only: there are no signed TLSA records for the server");
	server_gets("");
	stands_at(OPEN, READY);
}

static void records_that_cannot_be_used(void **state)
{
	(void)state;
	to_rcpt("--tls dane");
	dane_says(DANE_UNUSABLE);
	goes_through_at(TLS_ENCRYPT);
	assert_null(world_tls_server.tlsa);
	assert_string_equal(member_of("tls", "policy"), "\"dane:encrypt\"");
}

/* One server has records that can be used, another one others: the client's may be either. */
static void records_of_which_some_cannot_be_used(void **state)
{
	(void)state;
	to_rcpt("--tls dane " MAP);
	answer = (struct dane_answer){ .word = DANE_USABLE, .demanded = true, .host = "mx.d.test", .names = { "mx.d.test" }, .count = 1 };
	world_policy.dane = &answer;
	goes_on();
	goes_through();
	assert_int_equal(world_tls_server.level, TLS_ENCRYPT);
	assert_null(world_tls_server.tlsa);
	assert_string_equal(member_of("tls", "policy"), "\"dane:encrypt\"");
	assert_int_equal(world_policy.map_asked, 0);
}

static void lookup_that_fails(void **state)
{
	(void)state;
	to_rcpt("--tls dane");
	dane_says(DANE_FAILED);
	client_gets("451 4.7.5 DANE: mx.d.test: the name server failed");
	server_gets("");
	client(RCPT); /* it is asked again */
	assert_int_equal(world_policy.dane_asked, 2);
}

static void server_that_need_not_have_records(void **state)
{
	(void)state;
	to_rcpt("--tls dane");
	dane_says(DANE_NONE);
	world_policy.dane = NULL;
	goes_through();
	next_transaction(OTHER);
	stands_at(POLICY, READY);
	assert_string_equal(world_policy.asked, "e.test:25");
	dane_says_of_another("mx.e.test");
	stands_at(SERVER, CONNECTING); /* another TLS than that of the domain before */
	server_greets(LIST);
	server("220 go");
	assert_int_equal(world_tls_server.level, TLS_MAY);
	assert_ptr_equal(world_tls_server.tlsa, &answer.set);
}

/* The client waits for us. */
static void lookup_that_takes_time(void **state)
{
	(void)state;
	to_rcpt("--tls dane --idle-timeout 3");
	passes(4);
	stands_at(POLICY, READY);
	goes_still();
	dane_says(DANE_NONE);
	goes_through();
}

static void handshake_that_fails(void **state)
{
	(void)state;
	to_rcpt("--tls dane");
	dane_says(DANE_USABLE);
	server("220 go");
	server_shake_fails("no TLSA record names the certificate");
	client_gets("451 4.7.5 192.0.2.99: no TLSA record names the certificate");
	assert_string_equal(member_of("tls", "policy"), "\"!dane\"");
}

static void starttls_that_is_missing(void **state)
{
	(void)state;
	to_list("--tls dane", PLAIN);
	client(MAIL "\n" RCPT);
	dane_says(DANE_USABLE);
	client_gets("220 mx.test ESMTP\n250-mx.test\n250 PIPELINING\n" MAIL_OK "\n451 4.7.5 192.0.2.99: STARTTLS is not offered");
}

static void named_upstream(void **state)
{
	(void)state;
	name_is("mx.relay.test", "192.0.2.25");
	to_rcpt("--tls dane --upstream mx.relay.test:2525");
	assert_string_equal(world_policy.asked, "mx.relay.test:2525");
}

/* A dot at its end belongs to no name in an answer. */
static void named_upstream_with_a_dot(void **state)
{
	(void)state;
	name_is("mx.relay.test.", "192.0.2.25");
	to_rcpt("--tls dane --upstream mx.relay.test.:2525");
	assert_string_equal(world_policy.asked, "mx.relay.test:2525");
}

static void upstream_without_a_name(void **state)
{
	(void)state;
	to_rcpt("--tls dane --upstream 192.0.2.25");
	assert_int_equal(world_policy.dane_asked, 0);
	goes_through_at(TLS_MAY);
}

static void exempt_server(void **state)
{
	(void)state;
	to_rcpt("--tls dane --dane-exempt 192.0.2.0/24");
	assert_int_equal(world_policy.dane_asked, 0);
	goes_through_at(TLS_MAY);
}

/* Not where the client meant to go is exempt, but the server that gets its mail. */
static void exempt_place_of_another_server(void **state)
{
	(void)state;
	name_is("mx.relay.test", "203.0.113.25");
	to_rcpt("--tls dane --dane-exempt 192.0.2.0/24 --upstream mx.relay.test");
	assert_string_equal(world_policy.asked, "mx.relay.test:25");
}

/* ---- domains ---- */

static void domain_with_a_dot_at_its_end(void **state)
{
	(void)state;
	to_rcpt("--tls dane --tls-policy f");
	dane_says(DANE_NONE);
	world_policy.dane = NULL;
	goes_through();
	file_says("e.test", "secure match=mx.e.test");
	client_heard();
	client("RCPT TO:<r@E.test.>");
	client_gets(OTHER_WAY);
}

/* There is nothing to ask the DNS about, but the operator may have a word for it. */
static void domain_that_is_none_in_the_dns(void **state)
{
	(void)state;
	file_says("intranet", "secure match=mx.intranet");
	to_list("--tls dane --tls-policy f " MAP, LIST);
	client(MAIL "\nRCPT TO:<r@Intranet>");
	server_heard();
	server("220 go");
	assert_int_equal(world_tls_server.level, TLS_VERIFY);
	assert_int_equal(world_policy.dane_asked, 0);
}

#define UTF8_MAIL "MAIL FROM:<a@b.test> SMTPUTF8"
#define UTF8_RCPT "RCPT TO:<r@B\xc3\xbc" "cher.test>"
#define CAPITALS "RCPT TO:<r@B\xc3\x9c" "CHER.test>"

/* A session that has come to a recipient in a domain that is not ASCII. */
static void to_utf8(const char *options, const char *rcpt)
{
	char line[300];

	snprintf(line, sizeof line, "%s", options);
	session_begins(line);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250-STARTTLS\n250 SMTPUTF8");
	client(UTF8_MAIL);
	nothing_said_yet();
	client(rcpt);
}

static void domain_in_utf8(void **state)
{
	(void)state;
	to_utf8("--tls dane", UTF8_RCPT);
	assert_string_equal(world_policy.asked, "xn--bcher-kva.test:25");
	dane_says(DANE_USABLE);
	server_gets("STARTTLS");
}

static void policies_of_domains_in_utf8(void **state)
{
	(void)state;
	file_says("xn--bcher-kva.test", "secure match=mx.d.test");
	to_utf8("--tls-policy f " MAP, UTF8_RCPT);
	server("220 go");
	assert_int_equal(world_tls_server.level, TLS_VERIFY);
}

static void map_of_domains_in_utf8(void **state)
{
	(void)state;
	to_utf8(MAP, UTF8_RCPT);
	assert_string_equal(world_policy.asked, "xn--bcher-kva.test");
}

/* Its policy cannot be looked up, and may be a strict one. */
static void domain_that_nobody_can_look_up(void **state)
{
	static const char why[] = "451 4.7.5 TLS policy of the recipient's domain: it cannot be looked up";

	(void)state;
	to_utf8("--tls-policy f", CAPITALS);
	client_gets(why);
	server_gets("");
	client("RCPT TO:<r@\xff.test>");
	client_gets(why);
	client(CAPITALS);
	client_gets(why);
}

static void domain_that_nobody_can_look_up_for_dane(void **state)
{
	(void)state;
	to_utf8("--tls dane", CAPITALS);
	assert_int_equal(world_policy.dane_asked, 0);
	server_gets("STARTTLS");
}

static void domain_that_nobody_can_look_up_for_dane_only(void **state)
{
	(void)state;
	to_utf8("--tls dane-only", CAPITALS);
	client_gets("451 4.7.5 dane-only: there are no signed TLSA records for the server");
}

static void verdict_on_a_domain_that_nobody_can_look_up(void **state)
{
	(void)state;
	hook_is_there(HOOK_RCPT, "exempt");
	to_utf8("--tls-policy f", CAPITALS);
	hook_says("tls may\n");
	server_gets("STARTTLS");
}

/* ---- file and map ---- */

static void file_comes_first(void **state)
{
	(void)state;
	file_says("d.test", "encrypt");
	to_rcpt("--tls dane --tls-policy f " MAP);
	assert_int_equal(world_policy.dane_asked + world_policy.map_asked, 0);
	goes_through_at(TLS_ENCRYPT);
	assert_string_equal(member_of("tls", "policy"), "\"encrypt\"");
}

static void map_comes_after_dane(void **state)
{
	(void)state;
	to_rcpt("--tls dane " MAP);
	dane_says(DANE_NONE);
	stands_at(POLICY, READY);
	assert_string_equal(world_policy.asked, "d.test");
	map_says(SOCKETMAP_FOUND, "secure match=mx.d.test servername=hostname");
	goes_through_at(TLS_VERIFY);
	assert_string_equal(member_of("tls", "policy"), "\"secure\"");
}

/* A server that is not held to TLSA records of others, is to what the map says. */
static void map_comes_after_records_of_others(void **state)
{
	(void)state;
	to_rcpt("--tls dane " MAP);
	dane_says_of_another("mx.d.test");
	stands_at(POLICY, READY);
	map_says(SOCKETMAP_FOUND, "secure match=mx.d.test");
	goes_through_at(TLS_VERIFY);
	assert_null(world_tls_server.tlsa);
}

static void map_alone(void **state)
{
	(void)state;
	to_rcpt("--tls encrypt " MAP);
	assert_int_equal(world_policy.dane_asked, 0);
	map_says(SOCKETMAP_NOTHING, "");
	goes_through_at(TLS_ENCRYPT);
}

static void map_that_wants_dane(void **state)
{
	(void)state;
	to_rcpt(MAP);
	map_says(SOCKETMAP_FOUND, "dane-only");
	stands_at(POLICY, READY);
	assert_int_equal(world_policy.dane_asked, 1);
	dane_says(DANE_NONE);
	client_gets("451 4.7.5 dane-only: there are no signed TLSA records for the server");
}

#define TESTING "secure policy_type=sts mx_host_pattern=mx.d.test { policy_string = mode: testing }"

/* It lets mail go as if there were no such policy, RFC 8461 5: but not with less than --tls demands. */
static void policy_in_testing(const char *options, enum tls_level level, const char *word)
{
	to_rcpt(options);
	map_says(SOCKETMAP_FOUND, TESTING);
	goes_through();
	assert_int_equal(world_tls_server.level, level);
	assert_string_equal(member_of("tls", "policy"), word);
}

static void testing_beside_none(void **state)
{
	(void)state;
	policy_in_testing("--tls none " MAP, TLS_MAY, "\"secure\"");
}

static void testing_beside_may(void **state)
{
	(void)state;
	policy_in_testing("--tls may " MAP, TLS_MAY, "\"secure\"");
}

static void testing_beside_encrypt(void **state)
{
	(void)state;
	policy_in_testing("--tls encrypt " MAP, TLS_ENCRYPT, "\"secure\"");
}

static void testing_beside_verify(void **state)
{
	(void)state;
	policy_in_testing("--tls verify --tls-name mx.relay.test " MAP, TLS_VERIFY, "\"verify\"");
	assert_string_equal(world_tls_server.name, "mx.relay.test");
}

static void testing_beside_verify_if_offered(void **state)
{
	(void)state;
	policy_in_testing("--tls verify-if-offered --tls-name mx.relay.test " MAP, TLS_OFFERED, "\"verify-if-offered\"");
}

static void testing_beside_dane_only(void **state)
{
	(void)state;
	to_rcpt("--tls dane-only " MAP);
	dane_says(DANE_NONE);
	map_says(SOCKETMAP_FOUND, TESTING);
	client_gets("451 4.7.5 dane-only: there are no signed TLSA records for the server");
}

static void testing_in_a_file_beside_dane_only(void **state)
{
	(void)state;
	file_says("d.test", TESTING);
	to_rcpt("--tls dane-only --tls-policy f");
	stands_at(POLICY, READY);
	assert_int_equal(world_policy.dane_asked, 1);
	dane_says(DANE_USABLE);
	goes_through();
	assert_int_equal(world_tls_server.level, TLS_VERIFY);
}

static void testing_in_a_file_beside_dane(void **state)
{
	(void)state;
	file_says("d.test", TESTING);
	to_rcpt("--tls dane --tls-policy f");
	stands_at(POLICY, READY);
	assert_int_equal(world_policy.dane_asked, 1);
	dane_says(DANE_USABLE);
	goes_through();
	assert_int_equal(world_tls_server.level, TLS_VERIFY);
}

static void testing_in_a_file_of_a_domain_without_records(void **state)
{
	(void)state;
	file_says("d.test", TESTING);
	to_rcpt("--tls dane --tls-policy f");
	dane_says(DANE_NONE);
	goes_through_at(TLS_MAY);
}

static void map_that_fails(void **state)
{
	static const struct {
		enum socketmap_result result;
		const char *text, *why;
	} rows[] = {
		{ SOCKETMAP_FAILED, "TEMP out of order", "TEMP out of order" },
		{ SOCKETMAP_BAD, "no netstring", "no netstring" },
		{ SOCKETMAP_FOUND, "nonsense", NULL },
		{ SOCKETMAP_FOUND, "verify", "it names no certificate: give match=" },
	};
	char want[200];

	(void)state;
	to_rcpt(MAP);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		client_heard();
		if (i)
			client(RCPT);
		map_says(rows[i].result, rows[i].text);
		world_policy.map = NULL;
		if (!rows[i].why)
			continue;
		snprintf(want, sizeof want, "451 4.7.5 TLS policy of d.test: %s", rows[i].why);
		client_gets(want);
	}
	server_gets("");
	assert_int_equal(world_policy.map_asked, 4);
}

static void fingerprints(void **state)
{
	(void)state;
	file_says("d.test",
	    "fingerprint match=5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A");
	to_rcpt("--tls-policy f");
	goes_through();
	client_gets("250 ok");
}

static void fingerprint_of_another(void **state)
{
	(void)state;
	file_says("d.test",
	    "fingerprint match=00:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A");
	to_rcpt("--tls-policy f");
	server("220 go");
	server_shakes();
	client_gets("451 4.7.5 192.0.2.99: the certificate's fingerprint is not one that the policy names");
	assert_string_equal(member_of("tls", "policy"), "\"!fingerprint\"");
}

/* ---- whose server it is ---- */

static void patterns_and_a_named_server(void **state)
{
	(void)state;
	file_says("d.test", "secure match=mx.relay.test policy_type=sts mx_host_pattern=*.relay.test servername=hostname");
	name_is("mx.relay.test", "192.0.2.25");
	to_rcpt("--tls-policy f --upstream mx.relay.test");
	goes_through_at(TLS_VERIFY);
	assert_string_equal(world_tls_server.name, "mx.relay.test");
}

static void patterns_and_a_server_with_a_dot(void **state)
{
	(void)state;
	file_says("d.test", "secure match=mx.relay.test policy_type=sts mx_host_pattern=*.relay.test servername=hostname");
	name_is("mx.relay.test.", "192.0.2.25");
	to_rcpt("--tls-policy f --upstream mx.relay.test.");
	goes_through_at(TLS_VERIFY);
	assert_string_equal(world_tls_server.name, "mx.relay.test");
}

static void patterns_and_another_server(void **state)
{
	(void)state;
	file_says("d.test", "secure match=mx.d.test policy_type=sts mx_host_pattern=*.d.test");
	name_is("mx.relay.test", "192.0.2.25");
	to_rcpt("--tls-policy f --upstream mx.relay.test");
	client_gets("451 4.7.5 TLS policy of d.test: its mail must not go to this server");
	server_gets("");
}

static void name_that_the_operator_gave(void **state)
{
	(void)state;
	file_says("d.test", "verify");
	name_is("mx.relay.test", "192.0.2.25");
	to_rcpt("--tls-policy f --upstream mx.relay.test");
	goes_through_at(TLS_VERIFY);
}

/* No operator has named it, but signed records of MX do: what the map says of names goes by that. */
static void to_server_that_is_found(const char *mx, const char *policy)
{
	to_rcpt("--tls dane " MAP);
	answer = (struct dane_answer){ .word = DANE_NONE, .identified = true, .mx = mx };
	world_policy.dane = &answer;
	goes_on();
	map_says(SOCKETMAP_FOUND, policy);
}

static void name_that_was_found(void **state)
{
	(void)state;
	to_server_that_is_found("mx.d.test", "verify servername=hostname");
	goes_through();
	assert_int_equal(world_tls_server.level, TLS_VERIFY);
	assert_string_equal(world_tls_server.name, "mx.d.test");
}

static void pattern_that_it_fits(void **state)
{
	(void)state;
	to_server_that_is_found("mx.d.test", "secure match=x.test servername=hostname policy_type=sts mx_host_pattern=*.d.test mx_host_pattern=x.test");
	goes_through();
	assert_string_equal(world_tls_server.name, "mx.d.test");
}

static void pattern_that_it_does_not_fit(void **state)
{
	(void)state;
	to_server_that_is_found("mx.e.test", "secure match=mx.d.test policy_type=sts mx_host_pattern=*.d.test");
	client_gets("451 4.7.5 TLS policy of d.test: its mail must not go to this server");
}

static void name_that_was_not_found(void **state)
{
	(void)state;
	to_server_that_is_found(NULL, "verify");
	client_gets("451 4.7.5 TLS policy of d.test: it names no certificate: give match=");
}

/* Of another domain it is none. */
static void name_that_was_found_for_another_domain(void **state)
{
	(void)state;
	to_server_that_is_found("mx.d.test", "verify");
	goes_through();
	client("RSET");
	server("250 ok");
	answer.mx = NULL;
	client(MAIL);
	nothing_said_yet();
	client(OTHER);
	client_gets("451 4.7.5 TLS policy of e.test: it names no certificate: give match=");
}

static void client_that_leaves_while_it_is_asked(void **state)
{
	(void)state;
	to_rcpt("--tls dane");
	client_breaks();
	recorded("close client: connection reset");
	assert_int_equal(world_policy.dane_ended, 1);
}

static void client_that_leaves_while_a_map_is_asked(void **state)
{
	(void)state;
	to_rcpt(MAP);
	client_breaks();
	assert_int_equal(world_policy.map_stopped, 1);
}

/* ---- which recipients go together ---- */

static void recipients_of_other_policies(void **state)
{
	(void)state;
	file_says("d.test", "secure match=mx.d.test");
	to_rcpt("--tls-policy f");
	goes_through();
	client_heard();
	client("RCPT TO:<s@d.test>");
	server("250 ok");
	client_gets("250 ok");
	client(OTHER); /* what it wants is less than what there is */
	server("250 ok");
	client_gets("250 ok");
	file_says("f.test", "secure match=mx.f.test");
	client("RCPT TO:<r@f.test>");
	client_gets(OTHER_WAY);
}

/* A reply of ours must not come before that of the server to the RCPT before. */
static void waits_for_its_turn(const char *options)
{
	file_says("e.test", "secure match=mx.e.test");
	if (strstr(options, "--connect-on")) {
		session_begins(options);
		client("EHLO c.test\n" MAIL "\n" RCPT);
		server_greets(LIST);
	} else {
		to_rcpt(options);
	}
	server("220 go");
	server_shakes();
	server(PIPES);
	server("250 ok");
	server("250 ok");
	client_heard();
	client("RCPT TO:<s@d.test>\n" OTHER);
	client_gets("");
	server("550 no");
	client_gets("550 no\n" OTHER_WAY);
}

static void refusal_waits_for_its_turn(void **state)
{
	(void)state;
	waits_for_its_turn("--tls-policy f");
}

static void late_refusal_waits_for_its_turn(void **state)
{
	(void)state;
	waits_for_its_turn("--tls-policy f --connect-on recipient");
}

/* The connection is lost while it is used again, for another policy than it was made by: the next has that. */
static void policy_outlives_a_connection(void **state)
{
	(void)state;
	file_says("d.test", "secure match=mx.d.test");
	to_rcpt("--tls-policy f");
	goes_through();
	file_says("e.test", "encrypt");
	next_transaction(OTHER);
	client_gets(MAIL_OK);
	server_gets(MAIL);
	server_closes();
	server_greets(PLAIN);
	client_gets("451 4.7.5 192.0.2.99: STARTTLS is not offered");
}

/* What suffices for "may" may be less than "encrypt" takes: TLS 1.0. */
static void tls_for_less_is_not_enough(void **state)
{
	(void)state;
	file_says("e.test", "encrypt");
	to_rcpt("--tls-policy f");
	goes_through();
	next_transaction(OTHER);
	stands_at(SERVER, CONNECTING);
}

/* "may" has let a certificate pass that the level of the others does not. */
static void tls_without_proof_is_not_enough(void **state)
{
	(void)state;
	file_says("d.test", "may");
	to_rcpt("--tls verify-if-offered --tls-name mx.test " MAP "--tls-policy f");
	goes_through();
	client_heard();
	client(OTHER);
	map_says(SOCKETMAP_NOTHING, "");
	client_gets(OTHER_WAY);
}

/* A policy of another recipient is no verdict on this one. */
static void verdict_beside_a_policy_of_none(void **state)
{
	(void)state;
	file_says("d.test", "none");
	hook_is_there(HOOK_RCPT, "strict");
	to_rcpt("--tls encrypt --tls-policy f");
	hook_says("accept\n");
	server("250 ok");
	server("250 ok");
	client_heard();
	client("RCPT TO:<s@d.test>");
	hook_says("tls encrypt\n");
	client_gets(OTHER_WAY);
}

/* ---- with --connect-on recipient ---- */

static void late(void **state)
{
	(void)state;
	session_begins("--tls dane --connect-on recipient");
	client("EHLO c.test\n" MAIL "\n" RCPT);
	stands_at(POLICY, NONE);
	dane_says(DANE_USABLE);
	stands_at(SERVER, CONNECTING);
	server_greets(LIST);
	server("220 go");
	assert_ptr_equal(world_tls_server.tlsa, &answer.set);
}

/* What was asked for is known for five minutes: a server that has another key by then is judged by new records. */
static void records_of_long_ago(void **state)
{
	static struct dane_answer renewed;

	(void)state;
	session_begins("--tls dane --connect-on recipient --idle-timeout 1000");
	client("EHLO c.test\n" MAIL "\n" RCPT);
	dane_says(DANE_USABLE);
	server_greets(LIST);
	goes_through();
	passes(299);
	next_transaction(RCPT);
	assert_int_equal(world_policy.dane_asked, 1);
	server("250 ok");
	server("250 ok");
	client("RSET");
	server("250 ok");
	server_closes();
	passes(1);
	renewed = answer;
	world_policy.dane = &renewed;
	client(MAIL "\n" RCPT);
	assert_int_equal(world_policy.dane_asked, 2);
	server_greets(LIST);
	server("220 go");
	assert_ptr_equal(world_tls_server.tlsa, &renewed.set);
}

/* A connection that is there stays: its certificate was judged when it was made. */
static void records_asked_for_again_beside_a_connection(void **state)
{
	(void)state;
	session_begins("--tls dane --connect-on recipient --idle-timeout 1000");
	client("EHLO c.test\n" MAIL "\n" RCPT);
	dane_says(DANE_USABLE);
	server_greets(LIST);
	goes_through();
	passes(300);
	client_heard();
	client("RCPT TO:<s@d.test>");
	assert_int_equal(world_policy.dane_asked, 2);
	server("250 ok");
	client_gets("250 ok");
	server_is_dialled("192.0.2.99:25", 1);
}

/* The server of the recipient before is none of this one's. */
static void server_of_another_recipient(void **state)
{
	char options[200];

	(void)state;
	name_is("mx.relay.test", "192.0.2.25");
	snprintf(options, sizeof options, "--tls dane --allow-clients 192.0.2.0/24 --routes %s", file_of("d.test;mx.relay.test;\n"));
	session_begins(options);
	client("EHLO c.test\n" MAIL "\n" RCPT);
	assert_string_equal(world_policy.asked, "mx.relay.test:25");
	dane_says(DANE_NONE);
	world_policy.dane = NULL;
	server_takes_one_in_plain();
	client(MAIL "\n" OTHER);
	assert_string_equal(world_policy.asked, "e.test:25");
}

/* The list is asked for as --tls demands, whatever a recipient before has wanted. */
static void list_after_a_policy_of_none(void **state)
{
	(void)state;
	file_says("d.test", "none");
	session_begins("--tls encrypt --tls-policy f --connect-on recipient --auth --plain-auth --allow-clients 192.0.2.0/24 --upstream 192.0.2.25");
	client("HELO c.test\n" MAIL "\n" RCPT);
	server_greets(LIST);
	server("250 ok");
	server("250 ok");
	client("EHLO c.test");
	server_connects();
	server(BANNER);
	server_heard();
	server(LIST);
	server_gets("STARTTLS");
}

/* The same where the connection that showed it is lost: the client's password may go to the next one. */
static void list_of_a_lost_connection(void **state)
{
	(void)state;
	file_says("d.test", "may");
	session_begins("--tls encrypt --tls-policy f --connect-on recipient --auth --plain-auth --allow-clients 192.0.2.0/24 --upstream 192.0.2.25");
	client("EHLO c.test");
	server_greets(LIST);
	server("220 go");
	server_shakes();
	server(LIST);
	client(MAIL "\n" RCPT);
	server("250 ok");
	server("250 ok");
	client("RSET");
	server("250 ok");
	client("EHLO c.test");
	server_closes();
	server_is_dialled("192.0.2.25:25", 2);
	server_greets("250 mx.test");
	recorded("tls upstream encrypt failed: STARTTLS is not offered");
}

/* The client's AUTH, and a recipient whose policy wants other TLS; the next one goes the way that there is. */
static void goes_as_authenticated(void)
{
	client_logs_in();
	client(MAIL "\n" RCPT);
	server_gets("");
	client_gets(MAIL_OK "\n451 4.7.5 The policy for this recipient wants other TLS than the connection that was authenticated has");
	client(OTHER);
	server_gets(MAIL);
}

/* The connection that carried the client's AUTH stays as it is. */
static void policy_beyond_the_connection_for_auth(void **state)
{
	(void)state;
	file_says("d.test", "secure match=mx.d.test");
	session_begins("--tls-policy f --connect-on recipient --auth --plain-auth --allow-clients 192.0.2.0/24 --upstream 192.0.2.25");
	client("EHLO c.test");
	server_greets_with_auth();
	goes_as_authenticated();
}

#define AUTH "--connect-on recipient --auth --plain-auth --allow-clients 192.0.2.0/24 --upstream mx.relay.test "

/* The server's TLSA records are asked for before its list is. */
static void asks_at_list(const char *options)
{
	char line[300];

	name_is("mx.relay.test", "192.0.2.25");
	snprintf(line, sizeof line, AUTH "%s", options);
	session_begins(line);
	client_heard();
	client("EHLO c.test");
	stands_at(LIST, RESOLVING);
	assert_string_equal(world_policy.asked, "mx.relay.test:25");
}

static void client_authenticates(void)
{
	server_greets_with_auth();
	client_logs_in();
}

static void records_of_the_server_for_auth(void **state)
{
	(void)state;
	asks_at_list("--tls dane");
	dane_says(DANE_USABLE);
	client_authenticates();
	assert_ptr_equal(world_tls_server.tlsa, &answer.set);
	assert_int_equal(world_tls_server.level, TLS_VERIFY);
	assert_string_equal(member_of("tls", "policy"), "\"dane\"");
	client(MAIL "\n" RCPT);
	server("250 ok");
	server("250 ok");
	client(OTHER);
	server("250 ok");
	client_gets(MAIL_OK "\n250 ok\n250 ok");
}

static void server_for_auth_without_records(void **state)
{
	(void)state;
	asks_at_list("--tls dane");
	dane_says(DANE_NONE);
	client_authenticates();
	assert_int_equal(world_tls_server.level, TLS_MAY);
	client(MAIL "\n" RCPT);
	server("250 ok");
	server("250 ok");
	client_gets(MAIL_OK "\n250 ok");
}

static void server_for_auth_whose_records_cannot_be_had(void **state)
{
	(void)state;
	asks_at_list("--tls dane");
	dane_says(DANE_FAILED);
	client_gets("421 4.7.5 DANE: mx.d.test: the name server failed");
	ended(LINGER, "smtpwarp", "4.7.5 DANE: mx.d.test: the name server failed");
	assert_int_equal(world_net.attempts, 0);
}

static void server_for_auth_that_must_have_records(void **state)
{
	(void)state;
	asks_at_list("--tls dane-only");
	dane_says(DANE_NONE);
	client_gets("421 4.7.5 dane-only: there are no signed TLSA records for the server");
}

/* They are there by now: the connection was made without. */
static void records_that_come_after_auth(void **state)
{
	(void)state;
	asks_at_list("--tls dane");
	dane_says(DANE_NONE);
	client_authenticates();
	answer.word = DANE_USABLE;
	client(MAIL "\n" RCPT);
	server_gets("");
	client_gets(MAIL_OK "\n451 4.7.5 The policy for this recipient wants other TLS than the connection that was authenticated has");
}

/* The other server is none for a client that is authenticated. */
static void records_that_cannot_be_had_after_auth(void **state)
{
	(void)state;
	asks_at_list("--tls dane --upstream b.test");
	dane_says(DANE_USABLE);
	client_authenticates();
	answer.word = DANE_FAILED;
	client(MAIL "\n" RCPT);
	server_gets("");
	client_gets(MAIL_OK "\n451 4.7.5 DANE: mx.d.test: the name server failed");
	server_is_dialled("192.0.2.25:25", 1);
}

/* What is wrong with a recipient is not wrong with the server. */
static void server_for_auth_after_a_domain_that_nobody_can_look_up(void **state)
{
	(void)state;
	name_is("mx.relay.test", "192.0.2.25");
	session_begins(AUTH "--tls dane --tls-policy f");
	client("HELO c.test\n" MAIL "\nRCPT TO:<r@\xc3\x84.test>");
	client_heard();
	client("EHLO c.test");
	stands_at(LIST, RESOLVING);
	dane_says(DANE_USABLE);
	client_authenticates();
}

static void client_that_leaves_while_a_server_for_auth_is_asked(void **state)
{
	(void)state;
	asks_at_list("--tls dane");
	client_breaks();
	recorded("close client: connection reset");
	assert_int_equal(world_policy.dane_ended, 1);
}

/* Without AUTH the connection serves as well. */
static void client_that_does_not_authenticate(void **state)
{
	(void)state;
	asks_at_list("--tls dane");
	dane_says(DANE_USABLE);
	server_greets_with_auth();
	nothing_said_yet();
	client(MAIL "\n" RCPT);
	server_gets(MAIL);
	assert_int_equal(world_net.attempts, 1);
}

/* --tls-on recipient: the same. Here the password goes in plain text, as the client and the server have it without smtpwarp. */
static void policy_beyond_an_authenticated_client(void **state)
{
	(void)state;
	file_says("d.test", "encrypt");
	to_list("--tls none --tls-policy f --plain-auth", LIST_WITH_AUTH);
	goes_as_authenticated();
	server_closes();
	ended(LINGER, "upstream", "the connection that was authenticated is closed");
}


/* One message for d.test, whose policy is none: the connection is without TLS. */
static void none_for_one(void)
{
	server(BANNER);
	server(LIST_WITH_AUTH);
	server("250 ok");
	server("250 ok");
	client("RSET");
	server("250 ok");
	client_heard();
	server_heard();
}

/* What a recipient's policy leaves out is left out for it alone: a password goes as --tls demands. */
static void auth_after_a_policy_of_none(void **state)
{
	(void)state;
	file_says("d.test", "none");
	session_begins("--tls encrypt --tls-policy f --plain-auth");
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server(LIST_WITH_AUTH);
	client(MAIL "\n" RCPT);
	server("250 ok");
	server("250 ok");
	client("RSET");
	server("250 ok");
	client_heard();
	client("EHLO c.test");
	server(LIST_WITH_AUTH);
	client_gets("250-mx.test\n250 PIPELINING");
	client("AUTH PLAIN AHRpbQBzZXNhbWU=");
	client_gets("538 5.7.11 AUTH needs encryption");
}

/* The client was shown AUTH of a connection with TLS, to which that recipient's has followed. */
static void auth_of_a_connection_before(const char *options, const char *refusal)
{
	file_says("d.test", "none");
	session_begins(options);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server(LIST_WITH_AUTH);
	if (the_session()->o->cert) {
		client("STARTTLS");
		client_shakes();
		client("EHLO c.test");
		server(LIST_WITH_AUTH);
	}
	client(MAIL "\n" OTHER);
	goes_through();
	client("RSET");
	server("250 ok");
	client("EHLO c.test");
	server(INSIDE);
	client(MAIL "\n" RCPT);
	server_connects();
	none_for_one();
	client("AUTH PLAIN AHRpbQBzZXNhbWU=");
	server_gets("");
	client_gets(refusal);
}

static void auth_behind_a_policy_of_none(void **state)
{
	(void)state;
	auth_of_a_connection_before("--tls encrypt --tls-policy f --plain-auth", "538 5.7.11 AUTH needs encryption");
}

static void auth_of_a_client_with_tls_behind_a_policy_of_none(void **state)
{
	(void)state;
	auth_of_a_connection_before("--tls may --tls-policy f --cert c --key k", "538 5.7.11 AUTH needs encryption up to the server");
}

/* ---- several servers ---- */

#define TWO "--connect-on recipient --allow-clients 192.0.2.0/24 --upstream a.test --upstream b.test "

/* The first recipient's policy is asked for, at the first of two servers. */
static void to_first_of_two(const char *options)
{
	char line[300];

	name_is("a.test", "192.0.2.25");
	name_is("b.test", "192.0.2.26");
	snprintf(line, sizeof line, TWO "%s", options);
	session_begins(line);
	client("EHLO c.test\n" MAIL);
	nothing_said_yet();
	client(RCPT);
}

/* The first server cannot be reached; now the records of the second are asked for. */
static void to_second(enum dane_word first)
{
	to_first_of_two("--tls dane");
	assert_string_equal(world_policy.asked, "a.test:25");
	dane_says(first);
	server_is_dialled("192.0.2.25:25", 1);
	world_policy.dane = NULL;
	server_connect_fails(ECONNREFUSED);
	stands_at(SERVER, RESOLVING);
	assert_string_equal(world_policy.asked, "b.test:25");
	server_is_dialled("192.0.2.25:25", 1);
}

static void takes_mail(void)
{
	server_greets(LIST);
	goes_through();
}

static void second_server_without_records(void **state)
{
	(void)state;
	to_second(DANE_USABLE);
	dane_says(DANE_NONE);
	server_is_dialled("192.0.2.26:25", 2);
	takes_mail();
	assert_int_equal(world_tls_server.level, TLS_MAY);
	assert_null(world_tls_server.tlsa);
	assert_string_equal(member_of("tls", "policy"), "\"may\"");
}

static void second_server_with_records(void **state)
{
	(void)state;
	to_second(DANE_NONE);
	dane_says(DANE_USABLE);
	takes_mail();
	assert_int_equal(world_tls_server.level, TLS_VERIFY);
	assert_ptr_equal(world_tls_server.tlsa, &answer.set);
	assert_string_equal(member_of("tls", "policy"), "\"dane\"");
	client("RCPT TO:<s@d.test>\n" OTHER); /* they are the server's, whatever the domain */
	server("250 ok");
	server("250 ok");
	client_gets("250 ok\n250 ok\n250 ok");
}

static void second_server_whose_records_cannot_be_had(void **state)
{
	(void)state;
	to_second(DANE_NONE);
	dane_says(DANE_FAILED);
	client_gets("451 4.7.5 DANE: mx.d.test: the name server failed");
	server_is_dialled("192.0.2.25:25", 1);
	world_policy.dane = NULL;
	client("RCPT TO:<s@d.test>");
	assert_string_equal(world_policy.asked, "a.test:25");
	dane_says(DANE_NONE);
	client_gets("451 4.7.5 DANE: mx.d.test: the name server failed"); /* in this transaction it is not tried again */
	server_is_dialled("192.0.2.25:25", 1);
}

static void first_server_whose_records_cannot_be_had(void **state)
{
	(void)state;
	to_first_of_two("--tls dane");
	dane_says(DANE_FAILED);
	assert_int_equal(world_policy.dane_asked, 2); /* and the second's, here as well */
	client_gets("451 4.7.5 DANE: mx.d.test: the name server failed");
	assert_int_equal(world_net.attempts, 0);
}

static void second_server_in_place_of_one_that_is_refused(void **state)
{
	(void)state;
	file_says("d.test", "secure match=hostname servername=hostname policy_type=sts mx_host_pattern=b.test");
	to_first_of_two("--tls-policy f");
	recorded("error: 4.7.5 TLS policy of d.test: its mail must not go to this server");
	server_is_dialled("192.0.2.26:25", 1);
	takes_mail();
	assert_string_equal(world_tls_server.name, "b.test");
	client_gets("250 ok");
}

/* --tls-on recipient: the connection is there, and no other server takes its place. */
static void two_servers_of_which_one_is_connected(void **state)
{
	(void)state;
	name_is("a.test", "192.0.2.25");
	to_rcpt("--tls dane --allow-clients 192.0.2.0/24 --upstream a.test --upstream b.test");
	assert_string_equal(world_policy.asked, "a.test:25");
	dane_says(DANE_FAILED);
	client_gets("451 4.7.5 DANE: mx.d.test: the name server failed");
	stands_at(OPEN, READY);
	server_is_dialled("192.0.2.25:25", 1);
}

/* No server of them may have it. */
static void no_server_that_is_permitted(void **state)
{
	(void)state;
	file_says("d.test", "secure match=hostname policy_type=sts mx_host_pattern=c.test");
	to_first_of_two("--tls-policy f");
	client_gets("451 4.7.5 TLS policy of d.test: its mail must not go to this server");
	assert_int_equal(world_net.attempts, 0);
}

/* The answer comes while the session looks at something else: it must not lie there, for nothing would wake the session. */
static void answer_that_comes_in_between(void **state)
{
	(void)state;
	to_second(DANE_NONE);
	world_policy.late = 1;
	dane_says(DANE_NONE);
	assert_false(the_session()->policy->news);
	goes_on();
	server_is_dialled("192.0.2.26:25", 2);
}

/* A map that fails is not asked again for each server: the recipient would wait for as many answers. */
static void map_that_fails_for_all_servers(void **state)
{
	(void)state;
	to_first_of_two(MAP);
	map_says(SOCKETMAP_FOUND, "may");
	takes_mail();
	client_heard();
	world_policy.map = NULL;
	client(OTHER);
	map_says(SOCKETMAP_BAD, "TEMP no");
	client_gets("451 4.7.5 TLS policy of e.test: TEMP no");
	assert_int_equal(world_policy.map_asked, 2);
	client("RSET");
	server("250 ok");
	nothing_said_yet();
	world_policy.map = NULL;
	client(MAIL "\n" OTHER);
	map_says(SOCKETMAP_BAD, "TEMP no");
	client_gets(MAIL_OK "\n451 4.7.5 TLS policy of e.test: TEMP no");
	assert_int_equal(world_policy.map_asked, 3);
	stands_at(OPEN, READY); /* the server of the first recipient */
}

/* A name of the first server is none of the second's. */
static void policy_that_names_the_server(void **state)
{
	(void)state;
	file_says("d.test", "secure match=hostname servername=hostname");
	to_first_of_two("--tls-policy f");
	server_connect_fails(ECONNREFUSED);
	server_is_dialled("192.0.2.26:25", 2);
	takes_mail();
	assert_string_equal(world_tls_server.name, "b.test");
}

static void first_server_comes_first_again(void **state)
{
	(void)state;
	to_second(DANE_NONE);
	dane_says(DANE_USABLE);
	takes_mail();
	client("RSET");
	server("250 ok");
	nothing_said_yet();
	world_policy.dane = NULL;
	client(MAIL "\n" RCPT); /* the second server is there: nothing is asked */
	assert_int_equal(world_policy.dane_asked, 2);
	server_gets(MAIL);
	server_closes();
	stands_at(SERVER, RESOLVING);
	assert_string_equal(world_policy.asked, "a.test:25");
	dane_says(DANE_NONE);
	server_is_dialled("192.0.2.25:25", 3);
	takes_mail();
	assert_null(world_tls_server.tlsa);
}

static void servers_of_a_route(void **state)
{
	char options[200];

	(void)state;
	name_is("b.test", "192.0.2.26");
	snprintf(options, sizeof options, "--tls dane --connect-on recipient --allow-clients 192.0.2.0/24 --routes %s",
	    file_of("d.test;192.0.2.25, b.test:2525;\n"));
	session_begins(options);
	client("EHLO c.test\n" MAIL "\n" RCPT);
	assert_int_equal(world_policy.dane_asked, 0); /* an address has no records */
	server_connect_fails(ECONNREFUSED);
	assert_string_equal(world_policy.asked, "b.test:2525");
	dane_says(DANE_USABLE);
	server_is_dialled("192.0.2.26:2525", 2);
}

static void client_that_leaves_while_the_second_is_asked(void **state)
{
	(void)state;
	to_second(DANE_NONE);
	client_breaks();
	recorded("close client: connection reset");
	assert_int_equal(world_policy.dane_ended, 2);
}

/* ---- verdicts ---- */

static void verdict_has_the_last_word(void **state)
{
	(void)state;
	hook_is_there(HOOK_RCPT, "exempt");
	to_rcpt("--tls dane " MAP);
	hook_says("tls may\n");
	assert_int_equal(world_policy.dane_asked + world_policy.map_asked, 0);
	goes_through_at(TLS_MAY);
}

static void verdict_that_wants_dane(void **state)
{
	(void)state;
	hook_is_there(HOOK_RCPT, "dane");
	to_rcpt("--tls-on recipient");
	hook_says("tls dane\n");
	dane_says(DANE_UNUSABLE);
	goes_through_at(TLS_ENCRYPT);
}

/* The connection of an authenticated client is verified, but not by the name that the verdict has. */
static void name_for_an_authenticated_client(void **state)
{
	(void)state;
	hook_is_there(HOOK_RCPT, "name");
	file_says("d.test", "secure match=mx.d.test");
	to_rcpt("--tls-policy f --plain-auth");
	hook_says("");
	goes_through();
	client("RSET");
	server("250 ok");
	client("EHLO c.test");
	server(INSIDE);
	client_logs_in();
	client(MAIL "\n" OTHER);
	hook_says("tls verify mx.e.test\n");
	server_gets("");
	client_gets(MAIL_OK "\n451 4.7.5 The policy for this recipient wants other TLS than the connection that was authenticated has");
	client(OTHER);
	hook_says("tls encrypt\n");
	server_gets(MAIL);
}

/* What a verdict wants of one recipient is not the policy of the domain, which counts for the next one. */
static void verdict_on_one_recipient(void **state)
{
	(void)state;
	hook_is_there(HOOK_RCPT, "dane");
	file_says("d.test", "secure match=mx.d.test");
	to_rcpt("--tls dane --tls-policy f");
	hook_says("tls dane\n");
	dane_says(DANE_NONE);
	goes_through();
	client_heard();
	client("RCPT TO:<s@d.test>");
	hook_says("");
	client_gets("452 4.5.3 This recipient's mail goes another way: send it in a transaction of its own");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_that_can_be_used), cmocka_unit_test(records_of_a_host_that_may_be_somebody_elses), cmocka_unit_test(no_records),
		cmocka_unit_test(no_records_where_they_are_demanded),
		cmocka_unit_test(records_that_cannot_be_used), cmocka_unit_test(records_of_which_some_cannot_be_used),
		cmocka_unit_test(lookup_that_fails),
		cmocka_unit_test(server_that_need_not_have_records),
		cmocka_unit_test(lookup_that_takes_time), cmocka_unit_test(handshake_that_fails),
		cmocka_unit_test(starttls_that_is_missing), cmocka_unit_test(named_upstream), cmocka_unit_test(named_upstream_with_a_dot),
		cmocka_unit_test(upstream_without_a_name), cmocka_unit_test(exempt_server),
		cmocka_unit_test(exempt_place_of_another_server),
		cmocka_unit_test(domain_with_a_dot_at_its_end), cmocka_unit_test(domain_in_utf8),
		cmocka_unit_test(policies_of_domains_in_utf8), cmocka_unit_test(map_of_domains_in_utf8),
		cmocka_unit_test(domain_that_nobody_can_look_up), cmocka_unit_test(domain_that_nobody_can_look_up_for_dane),
		cmocka_unit_test(domain_that_nobody_can_look_up_for_dane_only),
		cmocka_unit_test(verdict_on_a_domain_that_nobody_can_look_up),
		cmocka_unit_test(domain_that_is_none_in_the_dns), cmocka_unit_test(file_comes_first),
		cmocka_unit_test(map_comes_after_records_of_others),
		cmocka_unit_test(map_comes_after_dane), cmocka_unit_test(map_alone), cmocka_unit_test(map_that_wants_dane),
		cmocka_unit_test(testing_beside_none), cmocka_unit_test(testing_beside_may), cmocka_unit_test(testing_beside_encrypt),
		cmocka_unit_test(testing_beside_verify), cmocka_unit_test(testing_beside_verify_if_offered),
		cmocka_unit_test(testing_beside_dane_only), cmocka_unit_test(testing_in_a_file_beside_dane_only),
		cmocka_unit_test(testing_in_a_file_beside_dane), cmocka_unit_test(testing_in_a_file_of_a_domain_without_records),
		cmocka_unit_test(map_that_fails), cmocka_unit_test(fingerprints), cmocka_unit_test(fingerprint_of_another),
		cmocka_unit_test(patterns_and_a_named_server), cmocka_unit_test(patterns_and_a_server_with_a_dot),
		cmocka_unit_test(patterns_and_another_server),
		cmocka_unit_test(name_that_the_operator_gave), cmocka_unit_test(name_that_was_found),
		cmocka_unit_test(pattern_that_it_fits),
		cmocka_unit_test(pattern_that_it_does_not_fit), cmocka_unit_test(name_that_was_not_found),
		cmocka_unit_test(name_that_was_found_for_another_domain), cmocka_unit_test(client_that_leaves_while_it_is_asked),
		cmocka_unit_test(client_that_leaves_while_a_map_is_asked), cmocka_unit_test(recipients_of_other_policies),
		cmocka_unit_test(refusal_waits_for_its_turn), cmocka_unit_test(late_refusal_waits_for_its_turn),
		cmocka_unit_test(policy_outlives_a_connection), cmocka_unit_test(tls_for_less_is_not_enough),
		cmocka_unit_test(tls_without_proof_is_not_enough), cmocka_unit_test(verdict_beside_a_policy_of_none),
		cmocka_unit_test(late), cmocka_unit_test(records_of_long_ago),
		cmocka_unit_test(records_asked_for_again_beside_a_connection),
		cmocka_unit_test(server_of_another_recipient), cmocka_unit_test(list_after_a_policy_of_none),
		cmocka_unit_test(list_of_a_lost_connection),
		cmocka_unit_test(policy_beyond_the_connection_for_auth), cmocka_unit_test(policy_beyond_an_authenticated_client),
		cmocka_unit_test(auth_after_a_policy_of_none), cmocka_unit_test(auth_behind_a_policy_of_none),
		cmocka_unit_test(auth_of_a_client_with_tls_behind_a_policy_of_none),
		cmocka_unit_test(records_of_the_server_for_auth), cmocka_unit_test(server_for_auth_without_records),
		cmocka_unit_test(server_for_auth_whose_records_cannot_be_had), cmocka_unit_test(server_for_auth_that_must_have_records),
		cmocka_unit_test(records_that_come_after_auth), cmocka_unit_test(records_that_cannot_be_had_after_auth),
		cmocka_unit_test(server_for_auth_after_a_domain_that_nobody_can_look_up), cmocka_unit_test(client_that_leaves_while_a_server_for_auth_is_asked),
		cmocka_unit_test(client_that_does_not_authenticate),
		cmocka_unit_test(second_server_without_records), cmocka_unit_test(second_server_with_records),
		cmocka_unit_test(second_server_whose_records_cannot_be_had), cmocka_unit_test(first_server_whose_records_cannot_be_had),
		cmocka_unit_test(second_server_in_place_of_one_that_is_refused), cmocka_unit_test(two_servers_of_which_one_is_connected),
		cmocka_unit_test(no_server_that_is_permitted),
		cmocka_unit_test(answer_that_comes_in_between), cmocka_unit_test(map_that_fails_for_all_servers),
		cmocka_unit_test(policy_that_names_the_server), cmocka_unit_test(first_server_comes_first_again), cmocka_unit_test(servers_of_a_route),
		cmocka_unit_test(client_that_leaves_while_the_second_is_asked), cmocka_unit_test(verdict_has_the_last_word),
		cmocka_unit_test(verdict_that_wants_dane), cmocka_unit_test(verdict_on_one_recipient), cmocka_unit_test(name_for_an_authenticated_client),
	};

	return run_session_tests(tests);
}
