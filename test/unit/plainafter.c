/* --plain-after: sessions with servers whose TLS fails, whole on fakes, and a map in a file. */
#define _GNU_SOURCE
#include "test/lib/fake_session.h"
#include "test/lib/fake_story.h"

#include "io/statefile.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define WAIT "--upstream 192.0.2.25 --upstream 192.0.2.26 --plain-after 300 --idle-timeout 0 "
#define TLS "250-mx.test\n250 STARTTLS"
#define REPLY "451 4.7.5 192.0.2.25: TLS failed, plain in "

static void make_map(void)
{
	char file[64], why[STATEFILE_WHY];

	snprintf(file, sizeof file, "/tmp/plainafter.%d", (int)getpid());
	unlink(file);
	assert_true(statefile_use(file, why));
	unlink(file); /* the mapping stays */
}

/* How many servers' TLS fails, as the map has it. */
static unsigned failing(void)
{
	const struct statemap *m = statefile_current();
	unsigned n = 0;

	for (unsigned i = 0; i < STATEMAP_SLOTS; i++)
		for (unsigned j = 0; j < STATEMAP_FAILING; j++)
			n += m->slot[i].failing[j].times != 0;
	return n;
}

/* TLS with this server fails now, in another session. */
static void failed(const char *address, const char *port)
{
	statemap_tls_failed(statefile_current(), address, port, statefile_now(), (uint64_t)time(NULL));
}

static void failed_before(double seconds)
{
	make_map();
	failed("192.0.2.25", "25");
	world_now += (int64_t)(seconds * 1000000);
}

static void counted(unsigned counter, unsigned n)
{
	const struct statemap *m = statefile_current();
	uint64_t sum = 0;

	for (unsigned i = 0; i < STATEMAP_SLOTS; i++)
		sum += m->slot[i].counter[counter];
	assert_int_equal(sum, n);
}

static void to_starttls(const char *options, const char *hello)
{
	session_begins(options);
	server_connects();
	server(BANNER);
	client(hello);
	server(TLS);
	nothing_said_yet();
}

static void to_handshake(const char *options)
{
	to_starttls(options, "EHLO c.test");
	server("220 go");
}

/* ---- the first failure, and those that follow ---- */

/* The other server is not tried: the client has this one's banner. */
static void deferred(void **state)
{
	(void)state;
	make_map();
	to_handshake(WAIT);
	server_shake_fails("bad certificate");
	client_gets(REPLY "300 s: bad certificate");
	recorded("tls upstream may failed: bad certificate");
	assert_int_equal(strlen(member_of("tls", "plain_from")), strlen("\"2026-11-29T12:00:00.000000Z\""));
	stands_at(OPEN, GONE);
	server_is_dialled("192.0.2.25:25", 1);
	client("MAIL FROM:<a@b.test>");
	client_gets("421 4.7.5 192.0.2.25: TLS failed, plain in 300 s: bad certificate");
	assert_int_equal(failing(), 1);
	counted(STATEMAP_TLS_FAILED, 1);
	counted(STATEMAP_TLS_FALLBACK, 0);
	counted(STATEMAP_TLS_VIOLATED, 0);
}

static void deferred_still(void **state)
{
	(void)state;
	failed_before(299.5);
	to_handshake(WAIT);
	server_closes();
	client_gets(REPLY "1 s: connection closed");
}

static void due(void **state)
{
	(void)state;
	failed_before(300);
	to_handshake(WAIT);
	server_shake_fails("bad certificate");
	recorded("tls upstream may fallback: bad certificate");
	assert_string_equal(member_of("tls", "plain_from"), "");
	server_is_dialled("192.0.2.25:25", 2);
	server_connects();
	server(BANNER);
	server(TLS);
	client_gets("250-mx.test\n250 PIPELINING");
	client("QUIT");
	server("221 bye");
	counted(STATEMAP_TLS_FAILED, 0);
	counted(STATEMAP_TLS_FALLBACK, 1);
}

static void breaks(void **state)
{
	(void)state;
	make_map();
	to_handshake(WAIT);
	server_breaks();
	client_gets(REPLY "300 s: connection reset");
}

static void takes_long(void **state)
{
	(void)state;
	make_map();
	to_handshake(WAIT "--tls-timeout 7");
	passes(7);
	client_gets(REPLY "300 s: TLS handshake timed out");
	assert_string_equal(member_of("tls", "tls_ms"), "7000.000");
}

/* A long reason is cut, not the words before it. */
static void long_reason(void **state)
{
	char reason[201] = "", want[400];

	(void)state;
	make_map();
	memset(reason, 'x', sizeof reason - 1);
	to_handshake(WAIT "--plain-after 1d");
	server_shake_fails(reason);
	snprintf(want, sizeof want, REPLY "86400 s: %.110s", reason);
	client_gets(want);
}

/* Another port is another server. */
static void other_port(void **state)
{
	(void)state;
	failed_before(300);
	to_handshake("--upstream 192.0.2.25:587 --plain-after 300");
	server_shake_fails("bad certificate");
	client_gets(REPLY "300 s: bad certificate");
	assert_int_equal(failing(), 2);
}

/* ---- TLS that is there ---- */

static void cleared(void **state)
{
	(void)state;
	failed_before(300);
	failed("192.0.2.26", "25");
	to_handshake(WAIT);
	server_shakes();
	assert_int_equal(failing(), 1);
}

/* Without the option nothing is noted, nor looked for. */
static void without_option(void **state)
{
	(void)state;
	failed_before(1);
	to_handshake("--upstream 192.0.2.25");
	server_shake_fails("bad certificate");
	server_is_dialled("192.0.2.25:25", 2);
	assert_int_equal(failing(), 1);
}

/* The session is tried in full first. */
static void not_resumed(void **state)
{
	(void)state;
	make_map();
	world_tls_server.resumes = true;
	to_handshake(WAIT);
	server_shake_fails("an unexpected message");
	server_is_dialled("192.0.2.25:25", 2);
	client_gets("");
	assert_int_equal(failing(), 0);
}

/* ---- STARTTLS ---- */

static void refused(void **state)
{
	(void)state;
	make_map();
	to_starttls(WAIT, "EHLO c.test");
	server("454 4.7.0 no TLS now");
	client_gets(REPLY "300 s: STARTTLS was refused: 454 4.7.0 no TLS now");
	recorded("tls upstream may failed: STARTTLS was refused: 454 4.7.0 no TLS now");
	stands_at(OPEN, GONE);
	assert_int_equal(failing(), 1);
}

static void refused_and_due(void **state)
{
	(void)state;
	failed_before(300);
	to_starttls(WAIT, "EHLO c.test");
	server("554 no");
	recorded("tls upstream may fallback: STARTTLS was refused");
	client_gets("250-mx.test\n250 PIPELINING");
	server_is_dialled("192.0.2.25:25", 1);
	stands_at(OPEN, READY);
}

/* The server leaves: that says nothing of its TLS. */
static void left(void **state)
{
	(void)state;
	make_map();
	to_starttls(WAIT, "EHLO c.test");
	server("421 enough");
	client_gets("421 enough");
	assert_int_equal(failing(), 0);
}

static void not_offered(void **state)
{
	(void)state;
	make_map();
	to_hello(WAIT, "EHLO c.test", PLAIN);
	assert_int_equal(failing(), 0);
}

/* ---- other levels: there is no plain to wait for ---- */

static void other_levels(void **state)
{
	const char *level = *state;
	char options[200];

	make_map();
	snprintf(options, sizeof options, WAIT "--tls %s", level);
	to_handshake(options);
	server_shake_fails("bad certificate");
	client_gets("451 4.7.5 192.0.2.25: bad certificate");
	assert_string_equal(member_of("tls", "plain_from"), "");
	assert_int_equal(failing(), 0);
}

static void levels(void **state)
{
	static const char *const rows[] = { "encrypt", "verify-if-offered" };

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i], other_levels, rows[i]);
}

static void implicit(void **state)
{
	(void)state;
	make_map();
	session_begins("--upstream smtps://192.0.2.25 --upstream 192.0.2.26 --plain-after 300");
	server_connects();
	server_shake_fails("bad certificate");
	recorded("error: 4.7.5 192.0.2.25: bad certificate");
	server_is_dialled("192.0.2.26:25", 2);
	assert_int_equal(failing(), 0);
}

/* A policy is not violated by mail that waits. */
static void policy(void **state)
{
	char options[200];

	(void)state;
	make_map();
	snprintf(options, sizeof options, "--upstream 192.0.2.25 --plain-after 300 --tls-policy %s", file_of("d.test may\n"));
	world_policy.file_domain = "d.test";
	world_policy.file = "may";
	to_hello(options, "EHLO c.test", TLS);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	nothing_said_yet();
	server("220 go");
	server_shake_fails("bad certificate");
	client_gets(REPLY "300 s: bad certificate");
	assert_string_equal(member_of("tls", "policy"), "\"may\"");
	assert_int_equal(failing(), 1);
}

/* ---- other clients and servers ---- */

static void helo(void **state)
{
	(void)state;
	make_map();
	to_starttls(WAIT, "HELO c.test");
	server("220 go");
	server_shake_fails("bad certificate");
	client_gets(REPLY "300 s: bad certificate");
}

static void lmtp(void **state)
{
	(void)state;
	make_map();
	to_starttls("--upstream lmtp:unix:/run/lmtp --plain-after 300", "LHLO c.test");
	server("220 go");
	server_shake_fails("bad certificate");
	client_gets("451 4.7.5 /run/lmtp: TLS failed, plain in 300 s: bad certificate");
	world_now += 299000000;
	assert_int_equal(statemap_tls_failed(statefile_current(), "/run/lmtp", "0", statefile_now(), (uint64_t)time(NULL)),
	    (uint64_t)world_now - 299000000);
}

/* --tls-on recipient: the RCPT waits. */
static void on_recipient(void **state)
{
	(void)state;
	make_map();
	to_hello(WAIT "--tls-on recipient", "EHLO c.test", TLS);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	client_heard();
	server("220 go");
	server_shake_fails("bad certificate");
	client_gets(REPLY "300 s: bad certificate");
	assert_int_equal(failing(), 1);
}

/* --tlsrpt: TLS that failed is reported, whether mail waits for it or goes in plain. */
static void is_reported(void **state)
{
	failed_before(*(const char *)*state ? 300 : 0);
	world_dns("_smtp._tls.d.test", DNS_TXT, "v=TLSRPTv1; rua=mailto:tls@d.test", NULL);
	to_hello(WAIT "--tls-on recipient --tlsrpt /run/tlsrpt", "EHLO c.test", TLS);
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	server("220 go");
	server_shake_fails("bad certificate");
	if (*(const char *)*state) {
		server_connects();
		server(BANNER);
		server(PLAIN);
		server("250 ok");
		server("250 ok");
	}
	client_closes();
	assert_int_equal(world_report.sent, 1);
	assert_non_null(strstr(world_report.text, "bad certificate"));
	assert_non_null(strstr(world_report.text, "\"t\":1,\"f\":1"));
}

static void reports(void **state)
{
	static const char rows[] = { false, true };

	(void)state;
	apart("deferred", is_reported, &rows[0]);
	apart("in plain", is_reported, &rows[1]);
}

/* --client-tls auto: the client has had the server's list, and sends without TLS. */
static void client_in_plain(void **state)
{
	(void)state;
	make_map();
	to_hello(WAIT "--client-tls auto", "EHLO c.test", TLS);
	client("MAIL FROM:<a@b.test>");
	server_gets("STARTTLS");
	server("220 go");
	server_shake_fails("bad certificate");
	client_gets(REPLY "300 s: bad certificate");
	assert_int_equal(failing(), 1);
}

/* --connect-on recipient: each transaction tries TLS anew, until plain is due. */
static void late(void **state)
{
	(void)state;
	make_map();
	to_waiting_rcpt(WAIT "--connect-on recipient");
	for (unsigned i = 0; i < 3; i++) {
		server_is_dialled("192.0.2.25:25", i + 1);
		server_connects();
		server(BANNER);
		server(TLS);
		server("220 go");
		nothing_said_yet();
		server_shake_fails("bad certificate");
		if (i == 2)
			break;
		client_gets(i ? REPLY "150 s: bad certificate" : REPLY "300 s: bad certificate");
		client("RCPT TO:<s@d.test>"); /* not tried again in this transaction */
		client_gets(i ? REPLY "150 s: bad certificate" : REPLY "300 s: bad certificate");
		passes(150);
		client("RSET\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	}
	recorded("tls upstream may fallback: bad certificate");
	server_is_dialled("192.0.2.25:25", 4);
	server_connects();
	server(BANNER);
	server(PLAIN);
	server_gets("EHLO c.test\nMAIL FROM:<a@b.test>");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(deferred), cmocka_unit_test(deferred_still), cmocka_unit_test(due), cmocka_unit_test(breaks),
		cmocka_unit_test(takes_long), cmocka_unit_test(long_reason), cmocka_unit_test(other_port), cmocka_unit_test(cleared),
		cmocka_unit_test(without_option), cmocka_unit_test(not_resumed), cmocka_unit_test(refused),
		cmocka_unit_test(refused_and_due), cmocka_unit_test(left), cmocka_unit_test(not_offered), cmocka_unit_test(levels),
		cmocka_unit_test(implicit), cmocka_unit_test(policy), cmocka_unit_test(helo), cmocka_unit_test(lmtp),
		cmocka_unit_test(on_recipient), cmocka_unit_test(reports), cmocka_unit_test(client_in_plain), cmocka_unit_test(late),
	};

	return run_session_tests(tests);
}
