/* Whose server it is, by the DNS: a whole session on fakes, and a map in a file. */
#define _GNU_SOURCE
#include "test/lib/fake_session.h"
#include "test/lib/fake_story.h"

#include "io/statefile.h"

#include <errno.h>
#include <unistd.h>

#define PROVIDERS "big .big.test\n"
#define NETWORK "192.0.2.0/24"
#define SERVER "192.0.2.99"

static const char *options(const char *tls)
{
	static char text[300];

	snprintf(text, sizeof text, "--providers %s --tls %s", file_of(PROVIDERS), tls);
	return text;
}

static struct statemap *make_map(void)
{
	char file[64], why[STATEFILE_WHY];

	snprintf(file, sizeof file, "/tmp/mxname.%d", (int)getpid());
	unlink(file);
	assert_true(statefile_use(file, why));
	unlink(file); /* the mapping stays */
	return statefile_current();
}

static void site_is(const char *want)
{
	assert_string_equal(the_session()->observe.site, want);
}

static void learnt(const char *want)
{
	char site[STATEMAP_SITE] = "";

	statemap_learnt(statefile_current(), NETWORK, statefile_now(), site);
	assert_string_equal(site, want);
}

static void learnt_answer(const char *domain, const char *want)
{
	char site[STATEMAP_SITE] = "";

	statemap_learnt_answer(statefile_current(), SERVER, domain, statefile_now(), site);
	assert_string_equal(site, want);
}

/* Nothing was learnt but that it was asked: meanwhile no other session asks. */
static void learnt_for_a_moment(const char *domain)
{
	char site[STATEMAP_SITE];

	learnt_answer(domain, NETWORK);
	assert_false(statemap_learnt_answer(statefile_current(), SERVER, domain, statefile_now() + STATEMAP_ASKED_FOR + 1, site));
}

static void asked(unsigned questions)
{
	assert_int_equal(world_questions, questions);
}

/* The domain's exchanges; NULL: the DNS has none, or fails. */
static void goes_to(const char *exchanges)
{
	world_dns("d.test", DNS_MX, exchanges, NULL);
}

static void leads_to(const char *name, const char *address)
{
	world_dns(name, DNS_A, address, NULL);
}

static void quits(void)
{
	client("QUIT");
	server("221 bye");
}

static void provider(void **state)
{
	(void)state;
	make_map();
	goes_to("other.test in.big.test");
	leads_to("in.big.test", SERVER);
	to_ready(options("none"), PLAIN);
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	site_is(NETWORK);
	asked(0);
	client("RCPT TO:<r@D.Test>");
	asked(2); /* other.test, which is no provider's, would be the next */
	site_is("big");
	learnt("big");
	learnt_for_a_moment("d.test");
	server("250 ok");
	client("RCPT TO:<s@e.test>");
	server("250 ok");
	quits();
	asked(2);
	assert_string_equal(member_of("close", "site"), "\"big\"");
}

static void somebody(void **state)
{
	(void)state;
	make_map();
	goes_to("no.host.test mx1.host.test mx2.host.test");
	leads_to("no.host.test", NULL);
	leads_to("mx1.host.test", "192.0.2.98");
	leads_to("mx2.host.test", SERVER);
	to_recipient(options("none"), PLAIN);
	asked(4);
	site_is("host.test");
	learnt("");
	learnt_answer("d.test", "host.test");
	learnt_answer("e.test", "");
}

static void domain_in_utf8(void **state)
{
	(void)state;
	make_map();
	world_dns("xn--bcher-kva.test", DNS_MX, "in.big.test", NULL);
	leads_to("in.big.test", SERVER);
	to_ready(options("none"), "250-mx.test\n250 SMTPUTF8");
	client("MAIL FROM:<a@b.test> SMTPUTF8");
	server("250 ok");
	client("RCPT TO:<r@B\xc3\xbc" "cher.test>");
	site_is("big");
	client("RCPT TO:<r@B\xc3\x9c" "CHER.test>");
	asked(2);
}

static void domain_itself(void **state)
{
	(void)state;
	make_map();
	goes_to(NULL);
	leads_to("d.test", SERVER);
	to_recipient(options("none"), PLAIN);
	asked(2);
	site_is("d.test");
}

static void nobody(void **state)
{
	(void)state;
	make_map();
	goes_to("mx.host.test");
	leads_to("mx.host.test", "192.0.2.98");
	to_recipient(options("none"), PLAIN);
	site_is(NETWORK);
	learnt_answer("d.test", NETWORK);
}

/* Once in a session, though the first answer was of no use. */
static void asks_once(void **state)
{
	(void)state;
	make_map();
	goes_to("mx.host.test");
	leads_to("mx.host.test", "192.0.2.98");
	to_recipient(options("none"), PLAIN);
	client("RCPT TO:<s@e.test>");
	server("250 ok");
	asked(2);
}

/* An owner of a domain leads names of his own to a provider's server: the provider's stands, whatever the order. */
static void hostile_names(void **state)
{
	(void)state;
	make_map();
	goes_to("big mx.big.test.evil.test aaa.evil.test in.big.test");
	leads_to("big", SERVER);
	leads_to("mx.big.test.evil.test", SERVER);
	leads_to("aaa.evil.test", SERVER);
	leads_to("in.big.test", SERVER);
	to_recipient(options("none"), PLAIN);
	site_is("big");
	asked(2);
}

/* Names of his own alone count for his own mail alone. */
static void hostile_domain(void **state)
{
	(void)state;
	make_map();
	goes_to("big mx.big.test.evil.test");
	leads_to("big", SERVER);
	leads_to("mx.big.test.evil.test", SERVER);
	to_recipient(options("none"), PLAIN);
	site_is("big.test.evil.test");
	learnt("");
	learnt_answer("other.test", "");
}

/* That a name is a provider's says nothing where it does not lead here. */
static void borrowed_name(void **state)
{
	(void)state;
	make_map();
	goes_to("in.big.test");
	leads_to("in.big.test", "192.0.2.98");
	to_recipient(options("none"), PLAIN);
	site_is(NETWORK);
	learnt("");
}

static void network_is_known(void **state)
{
	(void)state;
	statemap_learn(make_map(), NETWORK, "big", statefile_now());
	to_recipient(options("none"), PLAIN);
	site_is("big");
	asked(0);
}

static void answer_is_known(void **state)
{
	(void)state;
	statemap_learn_answer(make_map(), SERVER, "d.test", "host.test", statefile_now());
	to_recipient(options("none"), PLAIN);
	site_is("host.test");
	asked(0);
}

/* What another session has learnt meanwhile stands. */
static void learnt_meanwhile(void **state)
{
	(void)state;
	make_map();
	to_recipient(options("none"), PLAIN);
	statemap_learn(statefile_current(), NETWORK, "other", statefile_now());
	leads_to("in.big.test", SERVER);
	dns_says("d.test", DNS_MX, "in.big.test", NULL);
	site_is("other");
	learnt("other");
}

/* A name that a certificate proves is another source: the DNS is not asked, and an answer that comes after it changes nothing. */
static void certificate(void **state)
{
	(void)state;
	make_map();
	world_tls_server.facts.holder = "mx.proven.test";
	session_begins(options("may"));
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	server_shakes();
	server(PLAIN);
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	client("RCPT TO:<r@d.test>");
	server("250 ok");
	site_is("proven.test");
	asked(0);
}

static void certificate_meanwhile(void **state)
{
	(void)state;
	make_map();
	world_tls_server.facts.holder = "mx.proven.test";
	to_waiting_rcpt(options("may --connect-on recipient"));
	asked(1);
	server_connects();
	server(BANNER);
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	server_shakes();
	leads_to("mx.host.test", SERVER);
	dns_says("d.test", DNS_MX, "mx.host.test", NULL);
	asked(2);
	site_is("proven.test");
	learnt_answer("d.test", "host.test");
}

/* Nothing waits for an answer that does not come: the message is through, and the session over. */
static void no_answer(void **state)
{
	(void)state;
	make_map();
	to_data(options("none"), PLAIN);
	client(MESSAGE);
	server("250 ok");
	client_gets("250 ok");
	falls_due_in(5, "");
	quits();
	ended(FLUSH, "client", "QUIT");
	learnt_for_a_moment("d.test");
}

/* A late answer counts for what follows. */
static void late_answer(void **state)
{
	(void)state;
	make_map();
	to_data(options("none"), PLAIN);
	client(MESSAGE);
	server("250 ok");
	assert_string_equal(member_of("message", "site"), "\"" NETWORK "\"");
	leads_to("in.big.test", SERVER);
	dns_says("d.test", DNS_MX, "in.big.test", NULL);
	site_is("big");
	quits();
	assert_string_equal(member_of("close", "site"), "\"big\"");
}

/* That the DNS failed is not learnt, but for a moment that it was asked: neither for the domain, nor for a name that may have been the one. */
static void failures(void **state)
{
	const char *const *row = *state;

	make_map();
	world_dns("d.test", DNS_MX, "mx.host.test", row[0]);
	world_dns("mx.host.test", DNS_A, NULL, "the server failed");
	to_recipient(options("none"), PLAIN);
	site_is(NETWORK);
	learnt_for_a_moment("d.test");
	falls_due_in(300, "client idle");
}

/* While one session asks, or has in vain, others do not: 10 seconds. */
static void others_asked(void **state)
{
	struct statemap *m = make_map();

	(void)state;
	statemap_learn_asked(m, SERVER, "d.test", NETWORK, statefile_now());
	to_recipient(options("none"), PLAIN);
	site_is(NETWORK);
	asked(0);
	falls_due_in(300, "client idle");
}

static void each_failure(void **state)
{
	static const char *const rows[][1] = { { "the server failed" }, { NULL } };

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0] ? "MX" : "A", failures, rows[i]);
}

static void timeout(void **state)
{
	(void)state;
	make_map();
	to_recipient(options("none"), PLAIN);
	passes(6);
	asked(1);
	site_is(NETWORK);
	falls_due_in(294, "client idle");
}

/* Time is for all questions together: the next name is not asked for. */
static void timeout_of_a_name(void **state)
{
	(void)state;
	make_map();
	goes_to("mx1.host.test mx2.host.test");
	to_recipient(options("none"), PLAIN);
	passes(6);
	asked(2);
	site_is(NETWORK);
	learnt_for_a_moment("d.test");
	falls_due_in(294, "client idle");
}

/* Asked beside the connection attempt. */
static void before_connecting(void **state)
{
	(void)state;
	make_map();
	goes_to("in.big.test");
	leads_to("in.big.test", SERVER);
	to_waiting_rcpt(options("none --connect-on recipient"));
	asked(2);
	site_is("big");
	server_connects();
	server(BANNER);
	assert_string_equal(member_of("connect", "site"), "\"big\"");
}

static void ipv6(void **state)
{
	(void)state;
	make_map();
	redirected_from("2001:db8:1::25");
	goes_to("in.big.test");
	world_dns("in.big.test", DNS_AAAA, "2001:db8:1::25", NULL);
	to_recipient(options("none"), PLAIN);
	site_is("big");
}

/* Of these nothing is asked. */
static void unasked(void **state)
{
	const char *const *row = *state;

	if (*row[0])
		make_map();
	goes_to("in.big.test");
	session_begins(options(row[1]));
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server(PLAIN);
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	client(row[2]);
	server("250 ok");
	asked(0);
	site_is(NETWORK);
}

static void each_unasked(void **state)
{
	static const char *const rows[][3] = {
		{ "", "none", "RCPT TO:<r@d.test>" }, /* no map */
		{ "map", "none --mx-names none", "RCPT TO:<r@d.test>" },
		{ "map", "none --upstream 192.0.2.25", "RCPT TO:<r@d.test>" },
		{ "map", "none", "RCPT TO:<postmaster>" },
		{ "map", "none", "RCPT TO:<r@[192.0.2.99]>" },
		{ "map", "none", "RCPT TO:<r@big>" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][2], unasked, rows[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(provider), cmocka_unit_test(somebody), cmocka_unit_test(domain_in_utf8), cmocka_unit_test(domain_itself),
		cmocka_unit_test(nobody),
		cmocka_unit_test(asks_once), cmocka_unit_test(hostile_names), cmocka_unit_test(hostile_domain),
		cmocka_unit_test(borrowed_name),
		cmocka_unit_test(network_is_known), cmocka_unit_test(answer_is_known), cmocka_unit_test(learnt_meanwhile),
		cmocka_unit_test(certificate), cmocka_unit_test(certificate_meanwhile),
		cmocka_unit_test(no_answer), cmocka_unit_test(late_answer), cmocka_unit_test(others_asked), cmocka_unit_test(each_failure),
		cmocka_unit_test(timeout),
		cmocka_unit_test(timeout_of_a_name),
		cmocka_unit_test(before_connecting), cmocka_unit_test(ipv6), cmocka_unit_test(each_unasked),
	};

	return run_session_tests(tests);
}
