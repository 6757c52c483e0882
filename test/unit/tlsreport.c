/* Reports of TLS: what came of it, by which policy, of which domain, and when nothing is reported. */
#include "test/lib/fake_session.h"
#include "test/lib/fake_story.h"

#include <errno.h>
#include <string.h>

#define TO "--tlsrpt /run/tlsrpt.sock "
#define MAIL "MAIL FROM:<a@b.test>"
#define RCPT "RCPT TO:<r@D.test>"
#define LIST "250-mx.test ESMTP\n250 STARTTLS"
#define RECORD "v=TLSRPTv1; rua=mailto:tls@d.test"
#define ASKED "_smtp._tls.d.test"
#define HEAD "{\"dpv\":\"1\",\"d\":\"d.test\",\"pr\":\"" RECORD "\",\"policies\":[{\"policy-type\":"
#define NONE "9,\"policy-domain\":\"d.test\","
#define GOOD "\"t\":0,\"f\":0}]}"
#define BAD "\"t\":1,\"f\":1}]}"
#define SERVER "\"s\":\"192.0.2.1\",\"h\":\"mx.test\",\"r\":\"192.0.2.99\","
#define FAILED(code, reason) "\"failure-details\":[{\"c\":" code "," SERVER "\"f\":\"" reason "\"}]," BAD
#define UNKNOWN "\"failure-details\":[{\"c\":"

/* The session ends, and the report is this one; "": there is none. */
#define reports(want) is_reported(__LINE__, want)
static void is_reported(int line, const char *want)
{
	if (world_client.fd >= 0)
		client_closes();
	if (world_report.sent != (*want != 0) || strcmp(world_report.text, want) != 0)
		fail_msg("line %d: %u reports, the last is\n%s\nnot\n%s", line, world_report.sent, world_report.text, want);
}

/* The domain wants reports. */
static void begins(const char *options)
{
	world_dns(ASKED, DNS_TXT, RECORD, NULL);
	session_begins(options);
}

static void greets(const char *list)
{
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server(list);
}

/* TLS is over, whatever came of it: the client sends mail. */
static void mail_follows(void)
{
	client(MAIL);
	server("250 ok");
	client(RCPT);
	server("250 ok");
}

static void to_tls(const char *options)
{
	begins(options);
	greets(LIST);
	server("220 go");
}

/* Up to the recipient, whose policy is this; then TLS begins. */
static void to_policy(const char *policy)
{
	world_policy.file_domain = "d.test";
	world_policy.file = policy;
	begins(TO "--tls-policy f");
	greets(LIST);
	client(MAIL "\n" RCPT);
	server("220 go");
}

static void shakes(void)
{
	server_shakes();
	server("250 mx.test");
	server("250 ok");
	server("250 ok");
}

/* ---- without a policy ---- */

static void tls_at_connect(void **state)
{
	(void)state;
	to_tls(TO);
	server_shakes();
	server("250 mx.test");
	assert_int_equal(world_questions, 0);
	mail_follows();
	reports(HEAD NONE GOOD);
}

static void no_starttls(void **state)
{
	(void)state;
	begins(TO);
	greets(PLAIN);
	mail_follows();
	reports(HEAD NONE FAILED("201", "STARTTLS is not offered"));
}

/* Nor has a server that does not know EHLO. */
static void helo_alone(void **state)
{
	(void)state;
	begins(TO);
	greets("502 no");
	server("250 mx.test");
	mail_follows();
	reports(HEAD NONE "\"failure-details\":[{\"c\":201,\"s\":\"192.0.2.1\",\"r\":\"192.0.2.99\",\"f\":\"STARTTLS is not offered\"}]," BAD);
}

static void starttls_is_refused(void **state)
{
	(void)state;
	begins(TO);
	greets(LIST);
	server("454 not now");
	mail_follows();
	reports(HEAD NONE FAILED("201", "STARTTLS was refused"));
}

static void no_starttls_where_it_is_demanded(void **state)
{
	(void)state;
	begins(TO "--tls encrypt --tls-on recipient");
	greets(PLAIN);
	client(MAIL "\n" RCPT);
	reports(HEAD NONE FAILED("201", "STARTTLS is not offered"));
}

static void opportunistic_handshake_fails(void **state)
{
	(void)state;
	world_tls_server.fault = TLS_OTHERWISE;
	to_tls(TO);
	server_shake_fails("no cipher suite in common");
	server_connects();
	server(BANNER);
	server(PLAIN);
	mail_follows();
	reports(HEAD NONE FAILED("205", "no cipher suite in common"));
}

static void tls_that_nobody_wanted(void **state)
{
	(void)state;
	begins(TO "--tls none");
	greets(LIST);
	mail_follows();
	assert_int_equal(world_questions, 0);
	reports("");
}

static void passthrough(void **state)
{
	(void)state;
	begins(TO "--client-tls passthrough");
	greets(LIST);
	client("STARTTLS");
	server("220 go");
	stands_at(TUNNEL, TUNNEL);
	server_closes();
	reports("");
	assert_int_equal(world_questions, 0);
}

/* A message without TLS of the client's, for which the server refuses ours, and then the client's own STARTTLS. */
static void message_before_starttls(void)
{
	greets(LIST);
	client(MAIL);
	server("454 not now");
	server("250 ok");
	client(RCPT);
	server("250 ok");
	client("RSET");
	server("250 ok");
	client("STARTTLS");
	server("220 go");
	stands_at(TUNNEL, TUNNEL);
}

static void passed_on_after_a_message(void **state)
{
	(void)state;
	begins(TO "--client-tls auto");
	message_before_starttls();
	assert_int_equal(world_report.sent, 1);
	server_closes();
	reports(HEAD NONE FAILED("201", "STARTTLS was refused"));
}

static void passed_on_before_the_answer(void **state)
{
	(void)state;
	session_begins(TO "--client-tls auto");
	message_before_starttls();
	assert_int_equal(world_report.sent, 0);
	dns_says(ASKED, DNS_TXT, RECORD, NULL);
	server_closes();
	reports(HEAD NONE FAILED("201", "STARTTLS was refused"));
}

static void without_the_option(void **state)
{
	(void)state;
	to_tls("");
	server_shakes();
	server("250 mx.test");
	mail_follows();
	assert_int_equal(world_questions, 0);
	reports("");
}

static void no_recipient(void **state)
{
	(void)state;
	to_tls(TO);
	server_shakes();
	server("250 mx.test");
	reports("");
	assert_int_equal(world_questions, 0);
}

/* ---- certificates ---- */

static void each_fault(const enum tls_fault fault, const char *want)
{
	world_tls_server.fault = fault;
	to_policy("secure match=mx.d.test");
	server_shake_fails("why");
	reports(want);
}

static void other_name(void **state)
{
	(void)state;
	each_fault(TLS_MISNAMED, HEAD NONE FAILED("202", "why"));
}

static void not_trusted(void **state)
{
	(void)state;
	each_fault(TLS_UNTRUSTED, HEAD NONE FAILED("203", "why"));
}

static void expired(void **state)
{
	(void)state;
	each_fault(TLS_EXPIRED, HEAD NONE FAILED("204", "why"));
}

static void otherwise(void **state)
{
	(void)state;
	each_fault(TLS_OTHERWISE, HEAD NONE FAILED("205", "why"));
}

static void no_certificate_at_all(void **state)
{
	(void)state;
	each_fault(TLS_FAULTLESS, HEAD NONE FAILED("205", "why"));
}

static void no_match(void **state)
{
	(void)state;
	each_fault(TLS_UNMATCHED, HEAD NONE FAILED("205", "why"));
}

/* What is not the domain's fault is not told, nor that a connection without it has failed. */
static void our_own_fault(void **state)
{
	(void)state;
	each_fault(TLS_OURS, "");
}

static void our_own_opportunistic_fault(void **state)
{
	(void)state;
	world_tls_server.fault = TLS_OURS;
	to_tls(TO);
	server_shake_fails("the certificate's key cannot be used");
	server_connects();
	server(BANNER);
	server(PLAIN);
	mail_follows();
	reports("");
}

static void handshake_that_cannot_begin(void **state)
{
	(void)state;
	world_tls_server.cannot = "no random numbers";
	to_policy("secure match=mx.d.test");
	client_heard();
	reports("");
}

static void other_fingerprint(void **state)
{
	(void)state;
	world_tls_server.fault = TLS_UNTRUSTED;
	to_policy("fingerprint match=00:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A:5A");
	server_shakes();
	reports(HEAD NONE FAILED("205", "the certificate's fingerprint is not one that the policy names"));
}

/* ---- MTA-STS ---- */

#define STS(mode) "secure match=mx.d.test servername=hostname policy_type=sts policy_domain=sts.d.test mx_host_pattern=mx.d.test " \
	"mx_host_pattern=*.d.test { policy_string = version: STSv1 } { policy_string = mode: " mode " }"
#define STS_SAID(mode) "2,\"policy-domain\":\"sts.d.test\",\"policy-string\":[\"version: STSv1\",\"mode: " mode "\"]," \
	"\"mx-host\":[\"mx.d.test\",\"*.d.test\"],"

static void sts_enforced(void **state)
{
	(void)state;
	to_policy(STS("enforce"));
	shakes();
	reports(HEAD STS_SAID("enforce") GOOD);
}

static void sts_violated(void **state)
{
	(void)state;
	world_tls_server.fault = TLS_MISNAMED;
	to_policy(STS("enforce"));
	server_shake_fails("why");
	client_heard();
	reports(HEAD STS_SAID("enforce") FAILED("202", "why"));
}

static void sts_tested(void **state)
{
	(void)state;
	world_tls_server.fault = TLS_MISNAMED;
	world_tls_server.facts.verified = false;
	world_tls_server.facts.reason = "certificate is for another name";
	to_policy(STS("testing"));
	assert_int_equal(world_tls_server.level, TLS_MAY);
	shakes();
	stands_at(OPEN, READY);
	reports(HEAD STS_SAID("testing") FAILED("202", "certificate is for another name"));
}

/* A policy that is tested would not be met for a reason on our side. */
static void sts_not_to_be_tested(void **state)
{
	(void)state;
	world_tls_server.fault = TLS_OURS;
	world_tls_server.facts.verified = false;
	world_tls_server.facts.reason = "no CAs are trusted";
	to_policy(STS("testing"));
	shakes();
	stands_at(OPEN, READY);
	reports("");
}

/* The server has a name that no pattern fits; up to the recipient. */
static void to_unlisted(const char *policy)
{
	world_policy.file_domain = "d.test";
	world_policy.file = policy;
	world_name("mx.e.test", "192.0.2.25");
	begins(TO "--tls-policy f --upstream mx.e.test");
	greets(LIST);
	client_heard();
	client(MAIL "\n" RCPT);
}

static void sts_of_other_servers(void **state)
{
	(void)state;
	to_unlisted(STS("enforce"));
	client_gets("250 2.1.0 Ok\n451 4.7.5 TLS policy of d.test: its mail must not go to this server");
	client(RCPT); /* again: that is one report */
	reports(HEAD STS_SAID("enforce") UNKNOWN "205,\"n\":\"mx.e.test\","
	    "\"f\":\"451 4.7.5 TLS policy of d.test: its mail must not go to this server\"}]," BAD);
}

static void sts_of_other_servers_tested(void **state)
{
	(void)state;
	to_unlisted(STS("testing"));
	server("220 go");
	shakes();
	stands_at(OPEN, READY);
	reports(HEAD STS_SAID("testing") UNKNOWN "205,\"n\":\"mx.e.test\"}]," BAD);
}

static void no_policy_could_be_had(void **state)
{
	(void)state;
	to_policy("may policy_type=no-policy-found policy_failure=sts-policy-fetch-error");
	shakes();
	reports(HEAD NONE UNKNOWN "301}]," BAD);
}

/* ---- DANE ---- */

static struct dane_answer answer;

static void to_dane(const char *options, enum dane_word word)
{
	static const unsigned char data[] = { 0xab, 0x01 };
	static const struct dns_tlsa record = { 3, 1, 0, data, sizeof data };

	answer = (struct dane_answer){ .word = word, .identified = true, .every = true, .host = "mx.d.test", .names = { "mx.d.test" }, .count = 1 };
	snprintf(answer.why, sizeof answer.why, "it failed");
	dane_add(&answer.set, 0, &record);
	dane_add(&answer.set, 0, &record);
	begins(options);
	greets(LIST);
	client(MAIL "\n" RCPT);
	world_policy.dane = &answer;
	goes_on();
}

static void dane_met(void **state)
{
	(void)state;
	to_dane(TO "--tls dane", DANE_USABLE);
	server("220 go");
	shakes();
	reports(HEAD "1,\"policy-domain\":\"mx.d.test\",\"policy-string\":[\"3 1 0 ab01\",\"3 1 0 ab01\"]," GOOD);
}

static void dane_violated(void **state)
{
	(void)state;
	world_tls_server.fault = TLS_UNMATCHED;
	to_dane(TO "--tls dane", DANE_USABLE);
	server("220 go");
	server_shake_fails("why");
	reports(HEAD "1,\"policy-domain\":\"mx.d.test\",\"policy-string\":[\"3 1 0 ab01\",\"3 1 0 ab01\"]," UNKNOWN "205,\"s\":\"192.0.2.1\","
	    "\"n\":\"mx.d.test\",\"h\":\"mx.test\",\"r\":\"192.0.2.99\",\"f\":\"why\"}]," BAD);
}

static void dane_unusable(void **state)
{
	(void)state;
	to_dane(TO "--tls dane", DANE_UNUSABLE);
	server("220 go");
	shakes();
	reports(HEAD "1,\"policy-domain\":\"d.test\"," UNKNOWN "304}]," BAD);
}

static void dane_unusable_alone(void **state)
{
	(void)state;
	to_dane(TO "--tls dane-only", DANE_UNUSABLE);
	reports(HEAD "1,\"policy-domain\":\"d.test\"," UNKNOWN "304,\"f\":\"451 4.7.5 dane-only: none of the server's TLSA records can be used\"}]," BAD);
}

static void dane_bogus(void **state)
{
	(void)state;
	to_dane(TO "--tls dane", DANE_FAILED);
	client(RCPT); /* again: that is one report */
	reports(HEAD "1,\"policy-domain\":\"d.test\"," UNKNOWN "305,\"f\":\"451 4.7.5 DANE: it failed\"}]," BAD);
}

static void dane_missing(void **state)
{
	(void)state;
	to_dane(TO "--tls dane-only", DANE_NONE);
	reports(HEAD "1,\"policy-domain\":\"d.test\"," UNKNOWN "306,\"f\":\"451 4.7.5 dane-only: there are no signed TLSA records for the server\"}]," BAD);
}

/* What a policy of MTA-STS said is not in the next domain's report, which is by DANE. */
static void dane_after_sts(void **state)
{
	static const unsigned char data[] = { 0xab, 0x01 };

	(void)state;
	answer = (struct dane_answer){ .word = DANE_USABLE, .identified = true, .every = true, .host = "mx.e.test", .names = { "mx.e.test" }, .count = 1 };
	dane_add(&answer.set, 0, &(struct dns_tlsa){ 3, 1, 0, data, sizeof data });
	world_policy.file_domain = "d.test";
	world_policy.file = STS("enforce");
	begins(TO "--tls dane --tls-policy f");
	greets(LIST);
	client(MAIL "\n" RCPT);
	server("220 go");
	shakes();
	client("RSET");
	server("250 ok");
	world_report.sent = 0;
	world_dns("_smtp._tls.e.test", DNS_TXT, RECORD, NULL);
	client(MAIL "\nRCPT TO:<r@e.test>");
	world_policy.dane = &answer;
	goes_on();
	server_connects();
	server(BANNER);
	server(LIST);
	server("220 go");
	assert_int_equal(world_report.sent, 1);
	world_report.sent = 0;
	shakes();
	reports("{\"dpv\":\"1\",\"d\":\"e.test\",\"pr\":\"" RECORD "\",\"policies\":[{\"policy-type\":1,\"policy-domain\":\"mx.e.test\","
	    "\"policy-string\":[\"3 1 0 ab01\"]," GOOD);
}

/* ---- a connection that was made for no recipient, but for the server's AUTH ---- */

#define AUTH "--connect-on recipient --auth --plain-auth --allow-clients 192.0.2.0/24 --tls-policy f "

/* Up to the recipient, whose policy that connection meets. */
static void met_before(const char *options, const char *policy)
{
	world_policy.file_domain = "d.test";
	world_policy.file = policy;
	begins(options);
	client("EHLO c.test");
	stands_at(LIST, CONNECTING);
	server_connects();
	server(BANNER);
	server("250-mx.test\n250-STARTTLS\n250 AUTH PLAIN");
	server("220 go");
	server_shakes();
	server("250-mx.test\n250 AUTH PLAIN");
	client(MAIL "\n" RCPT);
}

static void sts_met_before(void **state)
{
	(void)state;
	met_before(TO AUTH "--tls encrypt", "encrypt policy_type=sts policy_domain=d.test mx_host_pattern=mx.d.test");
	server("250 ok");
	server("250 ok");
	reports(HEAD "2,\"policy-domain\":\"d.test\",\"mx-host\":[\"mx.d.test\"]," GOOD);
}

static void no_policy_could_be_had_before(void **state)
{
	(void)state;
	met_before(TO AUTH, "may policy_type=no-policy-found policy_failure=sts-policy-fetch-error");
	server("250 ok");
	server("250 ok");
	reports(HEAD NONE UNKNOWN "301}]," BAD);
}

static void dane_unusable_before(void **state)
{
	(void)state;
	answer = (struct dane_answer){ .word = DANE_UNUSABLE };
	world_policy.dane = &answer;
	met_before(TO AUTH "--tls encrypt", "dane");
	server("250 ok");
	server("250 ok");
	reports(HEAD "1,\"policy-domain\":\"d.test\"," UNKNOWN "304}]," BAD);
}

/* ---- which server ---- */

#define TWO "--upstream smtps://one.test --upstream smtps://two.test "

#define AT(name, address) "\"s\":\"192.0.2.1\",\"n\":\"" name "\",\"r\":\"" address "\","

static void to_two(void)
{
	begins(TO TWO "--tls verify --connect-on recipient");
	name_is("one.test", "192.0.2.11");
	name_is("two.test", "192.0.2.12");
	client("EHLO c.test\n" MAIL "\n" RCPT);
	server_connects();
	server_shake_fails("why");
	server_connects();
}

/* One server fails, and then the next: each has its own name. */
static void both_servers_fail(void **state)
{
	(void)state;
	world_tls_server.fault = TLS_EXPIRED;
	to_two();
	world_tls_server.fault = TLS_OTHERWISE;
	server_shake_fails("other");
	reports(HEAD NONE "\"failure-details\":[{\"c\":204," AT("one.test", "192.0.2.11") "\"f\":\"why\"},{\"c\":205," AT("two.test", "192.0.2.12")
	    "\"f\":\"other\"}],\"t\":2,\"f\":1}]}");
}

static void second_server_takes_it(void **state)
{
	(void)state;
	to_two();
	server_shakes();
	server(BANNER);
	server("250 mx.test");
	server("250 ok");
	server("250 ok");
	reports(HEAD NONE UNKNOWN "205," AT("one.test", "192.0.2.11") "\"f\":\"why\"}],\"t\":1,\"f\":0}]}");
}

/* The fault with the first is ours, and not told. */
static void second_server_alone_fails(void **state)
{
	(void)state;
	world_tls_server.fault = TLS_OURS;
	to_two();
	world_tls_server.fault = TLS_EXPIRED;
	server_shake_fails("other");
	reports(HEAD NONE UNKNOWN "204," AT("two.test", "192.0.2.12") "\"f\":\"other\"}]," BAD);
}

/* The datagram has room for eight. */
static void many_servers_fail(void **state)
{
	char options[1000] = TO "--tls verify --tls-name x.test --connect-on recipient";
	unsigned tried = 0;

	(void)state;
	for (unsigned i = 1; i <= 12; i++)
		snprintf(options + strlen(options), sizeof options - strlen(options), " --upstream smtps://192.0.2.%u", 10 + i);
	begins(options);
	client("EHLO c.test\n" MAIL "\n" RCPT);
	for (; world_server.fd >= 0; tried++) {
		server_connects();
		server_shake_fails("why");
	}
	client_closes();
	assert_int_equal(tried, 12);
	assert_non_null(strstr(world_report.text, "\"r\":\"192.0.2.17\",\"f\":\"why\"},{\"c\":205,\"s\":\"192.0.2.1\",\"r\":\"192.0.2.22\","
	    "\"f\":\"why\"}],\"t\":8,\"f\":1}]}"));
}

/* The client says EHLO twice: what the server had the first time counts no longer. */
static void server_that_changes_its_mind(void **state)
{
	(void)state;
	begins(TO);
	greets(PLAIN);
	client("EHLO c.test");
	server(PLAIN);
	client("EHLO c.test");
	server(LIST);
	server("220 go");
	server_shakes();
	server("250 mx.test");
	mail_follows();
	reports(HEAD NONE GOOD);
}

/* A recipient that is refused before there is a connection for it: the server is the one that it would have had. */
static void refused_for_another_server(void **state)
{
	(void)state;
	hook_is_there(HOOK_RCPT, "routes");
	begins(TO "--tls dane --connect-on recipient");
	name_is("one.test", "192.0.2.11");
	client("EHLO c.test\n" MAIL "\nRCPT TO:<r@e.test>");
	answer = (struct dane_answer){ .word = DANE_NONE };
	world_policy.dane = &answer;
	hook_says("upstream one.test\n");
	server_takes_one_in_plain();
	client(MAIL "\n" RCPT);
	answer = (struct dane_answer){ .word = DANE_FAILED, .why = "it failed" };
	hook_says("upstream two.test\n");
	reports(HEAD "1,\"policy-domain\":\"d.test\"," UNKNOWN "305,\"n\":\"two.test\",\"f\":\"451 4.7.5 DANE: it failed\"}]," BAD);
}

/* What is reported is the policy of the server that was used. */
static void second_server(void **state)
{
	(void)state;
	name_is("one.test", "192.0.2.11");
	name_is("two.test", "192.0.2.12");
	begins(TO "--tls dane --connect-on recipient --upstream one.test --upstream two.test");
	client("EHLO c.test\n" MAIL "\n" RCPT);
	answer = (struct dane_answer){ .word = DANE_NONE };
	world_policy.dane = &answer;
	goes_on();
	world_policy.dane = NULL;
	server_connect_fails(ECONNREFUSED);
	answer = (struct dane_answer){ .word = DANE_USABLE, .identified = true, .every = true, .host = "two.test", .names = { "two.test" }, .count = 1 };
	world_policy.dane = &answer;
	goes_on();
	server_connects();
	server(BANNER);
	server(LIST);
	server("220 go");
	shakes();
	reports(HEAD "1,\"policy-domain\":\"two.test\"," GOOD);
}

/* The connection was made before there was a recipient. */
static void server_for_auth(void **state)
{
	(void)state;
	name_is("one.test", "192.0.2.11");
	begins(TO "--tls dane --connect-on recipient --auth --plain-auth --upstream one.test");
	client("EHLO c.test");
	answer = (struct dane_answer){ .word = DANE_USABLE, .identified = true, .every = true, .host = "one.test", .names = { "one.test" }, .count = 1 };
	world_policy.dane = &answer;
	goes_on();
	server_connects();
	server(BANNER);
	server(LIST);
	server("220 go");
	server_shakes();
	server("250 mx.test");
	client(MAIL "\n" RCPT);
	server("250 ok");
	server("250 ok");
	reports(HEAD "1,\"policy-domain\":\"one.test\"," GOOD);
}

/* A server that is refused there is reported for nobody. */
static void refused_server_for_auth(void **state)
{
	(void)state;
	name_is("one.test", "192.0.2.11");
	begins(TO "--tls dane --connect-on recipient --auth --plain-auth --upstream one.test");
	client("EHLO c.test");
	answer = (struct dane_answer){ .word = DANE_FAILED, .why = "it failed" };
	world_policy.dane = &answer;
	client_heard();
	goes_on();
	client_gets("421 4.7.5 DANE: it failed");
	reports("");
	assert_int_equal(world_questions, 0);
}

/* ---- which domains ---- */

static void no_record(void **state)
{
	(void)state;
	world_dns(ASKED, DNS_TXT, NULL, NULL);
	session_begins(TO);
	greets(PLAIN);
	mail_follows();
	reports("");
	assert_int_equal(world_questions, 1);
}

static void two_records(void **state)
{
	(void)state;
	world_dns(ASKED, DNS_TXT, RECORD "\n" RECORD, NULL);
	session_begins(TO);
	greets(PLAIN);
	mail_follows();
	reports("");
}

static void answer_too_late(void **state)
{
	(void)state;
	session_begins(TO);
	greets(PLAIN);
	mail_follows();
	stands_at(OPEN, READY); /* nobody waits */
	reports("");
	assert_int_equal(world_questions, 1);
}

static void question_that_fails(void **state)
{
	(void)state;
	world_dns(ASKED, DNS_TXT, NULL, "the name server failed");
	session_begins(TO);
	greets(PLAIN);
	mail_follows();
	reports("");
	not_recorded("error");
}

/* Only the first domain over a connection has a report, and one that is asked once. */
static void several_domains(void **state)
{
	(void)state;
	begins(TO);
	greets(PLAIN);
	mail_follows();
	client("RCPT TO:<r@e.test>");
	server("250 ok");
	client(RCPT);
	server("250 ok");
	assert_int_equal(world_questions, 1);
	reports(HEAD NONE FAILED("201", "STARTTLS is not offered"));
}

static void left_for_another(void **state)
{
	(void)state;
	world_policy.file_domain = "d.test";
	world_policy.file = "secure match=mx.d.test";
	begins(TO "--connect-on recipient --tls-policy f");
	client("EHLO c.test\n" MAIL "\n" RCPT);
	server_connects();
	server(BANNER);
	server(LIST);
	server("220 go");
	shakes();
	client("RSET");
	server("250 ok");
	assert_int_equal(world_report.sent, 0);
	world_policy.file_domain = "e.test";
	world_policy.file = "secure match=mx.e.test";
	client(MAIL "\nRCPT TO:<r@e.test>");
	assert_int_equal(world_report.sent, 1);
	assert_string_equal(world_report.text, HEAD NONE GOOD);
	assert_int_equal(world_questions, 2);
	server_connects();
	server(BANNER);
	server(PLAIN);
	world_report.sent = 0;
	world_report.text[0] = 0;
	dns_says("_smtp._tls.e.test", DNS_TXT, RECORD, NULL);
	reports("{\"dpv\":\"1\",\"d\":\"e.test\",\"pr\":\"" RECORD "\",\"policies\":[{\"policy-type\":9,\"policy-domain\":\"e.test\","
	    FAILED("201", "STARTTLS is not offered"));
}

/* The next message is for another domain, which has this policy. */
static void next_domain(const char *domain, const char *policy)
{
	char lines[100];

	world_policy.file_domain = domain;
	world_policy.file = policy;
	snprintf(lines, sizeof lines, MAIL "\nRCPT TO:<r@%s>", domain);
	client("RSET");
	if (the_session()->server.state == SERVER_READY)
		server("250 ok");
	client(lines);
	server_connects();
	server(BANNER);
}

/* Two domains that are refused in turn: a report of each. */
static void refused_in_turn(void **state)
{
	(void)state;
	world_dns("_smtp._tls.e.test", DNS_TXT, RECORD, NULL);
	to_dane(TO "--tls dane", DANE_FAILED);
	for (unsigned i = 0; i < 6; i++) {
		client(i & 1 ? RCPT : "RCPT TO:<r@e.test>");
		world_policy.dane = &answer;
		goes_on();
	}
	client_closes();
	assert_int_equal(world_report.sent, 2);
}

/* The same where TLS fails with a server. Connections that work are each reported. */
static void failing_in_turn(void **state)
{
	(void)state;
	world_dns("_smtp._tls.e.test", DNS_TXT, RECORD, NULL);
	begins(TO "--connect-on recipient --tls-policy f");
	client("EHLO c.test");
	for (unsigned i = 0; i < 6; i++) {
		next_domain(i & 1 ? "d.test" : "e.test", "encrypt");
		server(PLAIN);
	}
	assert_int_equal(world_report.sent, 2);
	for (unsigned i = 0; i < 4; i++) {
		next_domain(i & 1 ? "d.test" : "e.test", "secure match=mx.d.test");
		server(LIST);
		server("220 go");
		shakes();
	}
	client_closes();
	assert_int_equal(world_report.sent, 6);
}

static void failures_of_many_domains(void **state)
{
	char name[40], rcpt[40];

	(void)state;
	to_dane(TO "--tls dane", DANE_FAILED);
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof name, "_smtp._tls.d%u.test", i);
		world_dns(name, DNS_TXT, RECORD, NULL);
		snprintf(rcpt, sizeof rcpt, "RCPT TO:<r@d%u.test>", i);
		client(rcpt);
		world_policy.dane = &answer;
		goes_on();
	}
	client_closes();
	assert_int_equal(world_report.sent, 16);
}

/* ---- exempt, and lost ---- */

static void verdict_exempts(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "reports");
	begins(TO "--tls-on recipient");
	greets(LIST);
	client(MAIL);
	hook_says("tls may\n");
	client(RCPT);
	server("220 go");
	shakes();
	reports("");
}

static void collector_is_gone(void **state)
{
	(void)state;
	world_report.fails = ECONNREFUSED;
	begins(TO);
	greets(PLAIN);
	mail_follows();
	reports(HEAD NONE FAILED("201", "STARTTLS is not offered"));
	recorded("error: --tlsrpt /run/tlsrpt.sock: Connection refused");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tls_at_connect), cmocka_unit_test(no_starttls), cmocka_unit_test(helo_alone),
		cmocka_unit_test(starttls_is_refused),
		cmocka_unit_test(no_starttls_where_it_is_demanded), cmocka_unit_test(opportunistic_handshake_fails),
		cmocka_unit_test(tls_that_nobody_wanted), cmocka_unit_test(passthrough), cmocka_unit_test(passed_on_after_a_message),
		cmocka_unit_test(passed_on_before_the_answer), cmocka_unit_test(without_the_option),
		cmocka_unit_test(no_recipient), cmocka_unit_test(other_name), cmocka_unit_test(not_trusted), cmocka_unit_test(expired),
		cmocka_unit_test(otherwise), cmocka_unit_test(no_certificate_at_all), cmocka_unit_test(no_match),
		cmocka_unit_test(our_own_fault),
		cmocka_unit_test(our_own_opportunistic_fault), cmocka_unit_test(handshake_that_cannot_begin),
		cmocka_unit_test(other_fingerprint),
		cmocka_unit_test(sts_enforced), cmocka_unit_test(sts_violated), cmocka_unit_test(sts_tested),
		cmocka_unit_test(sts_not_to_be_tested), cmocka_unit_test(sts_of_other_servers),
		cmocka_unit_test(sts_of_other_servers_tested),
		cmocka_unit_test(no_policy_could_be_had), cmocka_unit_test(dane_met), cmocka_unit_test(dane_violated),
		cmocka_unit_test(dane_unusable), cmocka_unit_test(dane_unusable_alone), cmocka_unit_test(dane_bogus),
		cmocka_unit_test(dane_missing), cmocka_unit_test(dane_after_sts), cmocka_unit_test(refused_for_another_server),
		cmocka_unit_test(no_record), cmocka_unit_test(two_records), cmocka_unit_test(answer_too_late),
		cmocka_unit_test(question_that_fails),
		cmocka_unit_test(several_domains), cmocka_unit_test(second_server), cmocka_unit_test(left_for_another),
		cmocka_unit_test(sts_met_before),
		cmocka_unit_test(no_policy_could_be_had_before), cmocka_unit_test(dane_unusable_before),
		cmocka_unit_test(both_servers_fail), cmocka_unit_test(second_server_takes_it),
		cmocka_unit_test(second_server_alone_fails), cmocka_unit_test(many_servers_fail),
		cmocka_unit_test(server_that_changes_its_mind), cmocka_unit_test(refused_in_turn),
		cmocka_unit_test(failing_in_turn), cmocka_unit_test(failures_of_many_domains), cmocka_unit_test(server_for_auth),
		cmocka_unit_test(refused_server_for_auth),
		cmocka_unit_test(verdict_exempts), cmocka_unit_test(collector_is_gone),
	};

	return run_session_tests(tests);
}
