/* Who the client is: what a proxy says of it, its host name, and what the server is told of it, by a PROXY header, XFORWARD, XCLIENT and
 * a Received field. What a server answers to XCLIENT is in hello.c.
 */
#include "test/lib/fake_session.h"
#include "test/lib/fake_story.h"

#include <stdlib.h>

#define PTR "7.2.0.192.in-addr.arpa"
#define PROXIED ONE "--accept-proxy 192.0.2.0/24 --client-names none "
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

/* ---- a PROXY header before the session ---- */

static void to_header(const char *options, const char *bytes, size_t n)
{
	client_bytes(bytes, n);
	session_begins(options);
}

static void client_of_proxy(void **state)
{
	static const char header[] = "PROXY TCP4 198.51.100.7 198.51.100.25 4711 25\r\nEHLO c.test\r\n";

	(void)state;
	to_header(PROXIED "--xclient", header, sizeof header - 1);
	server_connects();
	server(BANNER);
	server_gets("EHLO c.test"); /* what follows the header is the client's */
	server("250-mx.test\n250 XCLIENT ADDR PORT DESTADDR DESTPORT");
	server_gets("XCLIENT ADDR=198.51.100.7 PORT=4711 DESTADDR=198.51.100.25 DESTPORT=25");
	assert_non_null(strstr(member_of("connect", "client"), "\"ip\":\"198.51.100.7\",\"port\":4711"));
}

/* A dual-stack proxy. */
static void client_of_proxy_is_mapped(void **state)
{
	static const char header[] = "PROXY TCP6 ::ffff:198.51.100.7 ::ffff:198.51.100.25 4711 25\r\n";

	(void)state;
	to_header(PROXIED "--outbound-ip client", header, sizeof header - 1);
	server_is_dialled("192.0.2.25:25", 1);
	assert_true(world_net.transparent);
	assert_int_equal(world_net.source.sa.sa_family, AF_INET);
}

static void client_of_ipv6_proxy(void **state)
{
	static const char header[] = "PROXY TCP6 2001:db8::7 2001:db8::25 4711 25\r\n";

	(void)state;
	to_header(PROXIED "--allow-clients 2001:db8::/32", header, sizeof header - 1);
	stands_at(OPEN, CONNECTING);
}

/* Checks are for the client, not for the proxy. */
static void client_of_proxy_is_checked(void **state)
{
	static const char header[] = "PROXY TCP4 198.51.100.7 198.51.100.25 4711 25\r\n";

	(void)state;
	to_header(PROXIED "--allow-clients 192.0.2.0/24", header, sizeof header - 1);
	client_gets("554 5.7.1 Client 198.51.100.7 is not allowed here (--allow-clients)");
}

/* The proxy speaks for itself. */
static void proxy_itself(void **state)
{
	static const char header[] = "PROXY UNKNOWN\r\n", local[] = SIGNATURE "\x20\0\0\0";

	(void)state;
	if (*state)
		to_header(PROXIED "--allow-clients 192.0.2.0/24", local, sizeof local - 1);
	else
		to_header(PROXIED "--allow-clients 192.0.2.0/24", header, sizeof header - 1);
	stands_at(OPEN, CONNECTING);
	assert_int_equal(world_client.in_at, world_client.in_len);
}

static void proxy_itself_by_v2(void **state)
{
	static const char v2;

	(void)state;
	apart("LOCAL", proxy_itself, &v2);
}

/* A proxy that is not of --accept-proxy is a client like any other. */
static void header_of_a_stranger(void **state)
{
	static const char header[] = "PROXY TCP4 198.51.100.7 198.51.100.25 4711 25\r\n";

	(void)state;
	to_header(ONE "--accept-proxy 203.0.113.0/24", header, sizeof header - 1);
	server_connects();
	server(BANNER);
	client_gets(BANNER "\n500 5.5.1 Command not recognized");
}

/* The client's TLS ends at the proxy: it counts as encrypted, and its list has no STARTTLS. */
static void tls_of_proxy(void **state)
{
	static const char header[] = SIGNATURE "\x21\x11\0\x2d"
				     "\xc6\x33\x64\x07\xc6\x33\x64\x19\x12\x67\0\x19"
				     "\x20\0\x1e\1\0\0\0\0\x21\0\7TLSv1.3\x23\0\x0c" "AES256-GCM-S";

	(void)state;
	to_header(PROXIED "--client-tls may --cert /cert --received", header, sizeof header - 1);
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server(PLAIN);
	client_gets(BANNER "\n250-mx.test\n250 PIPELINING");
	assert_non_null(strstr(member_of("connect", "client"), "TLSv1.3"));
}

static void bad_header(void **state)
{
	const char *const *row = *state;

	client(row[0]);
	session_begins(PROXIED);
	client_gets("");
	recorded(row[1]);
	assert_int_equal(world_net.attempts, 0);
}

/* PROTOCOL 55. */
static void bad_headers(void **state)
{
	static const char *const rows[][2] = {
		{ "EHLO c.test", "error: no PROXY header" },
		{ "PROXY TCP4 198.51.100.7 198.51.100.25 4711", "error: a malformed PROXY v1 header" },
		{ "PROXY TCP5 198.51.100.7 198.51.100.25 4711 25", "error: a malformed PROXY v1 header" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], bad_header, rows[i]);
}

static void header_is_late(void **state)
{
	int64_t before = world_now;

	(void)state;
	client_bytes("PROXY ", 6);
	session_begins(PROXIED "--proxy-timeout 4");
	assert_int_equal(world_now - before, 4000000);
	recorded("error: no PROXY header in time");
	client_gets("");
	ended(SILENT, "smtpwarp", "no PROXY header in time");
}

/* A port that is only looked at is nothing to complain of. */
static void no_header_but_close(void **state)
{
	(void)state;
	world_client.eof = true;
	session_begins(PROXIED);
	not_recorded("error");
	ended(SILENT, "client", "connection closed");
}

/* PROTOCOL 87: what breaks off is none. */
static void header_breaks_off(void **state)
{
	(void)state;
	client_bytes("PROXY TCP4 198.51.100.7 198.51.100.25 4711 25", 45);
	world_client.eof = true;
	session_begins(PROXIED);
	recorded("error: connection closed within the PROXY header");
	ended(SILENT, "smtpwarp", "connection closed within the PROXY header");
}

/* ---- a PROXY header to the server ---- */

static void sends_proxy_v1(void **state)
{
	(void)state;
	session_begins(ONE "--send-proxy v1 --verbose");
	server_connects();
	server_gets("PROXY TCP4 192.0.2.7 192.0.2.99 1234 25");
	recorded("-- a PROXY header was sent");
}

static void sends_proxy_of_direct_client(void **state)
{
	(void)state;
	redirected_from("");
	session_begins(ONE "--send-proxy v1 --allow-clients 192.0.2.0/24");
	server_connects();
	server_gets("PROXY TCP4 192.0.2.7 192.0.2.1 1234 25");
}

/* What the proxy before us said goes on. */
static void sends_proxy_of_proxy(void **state)
{
	static const char header[] = "PROXY TCP6 2001:db8::7 2001:db8::25 4711 25\r\n";

	(void)state;
	to_header(PROXIED "--send-proxy v1", header, sizeof header - 1);
	server_connects();
	server_gets("PROXY TCP6 2001:db8::7 2001:db8::25 4711 25");
}

static void sends_proxy_v2(void **state)
{
	static const char want[] = SIGNATURE "\x21\x11\0\x0c\xc0\0\2\7\xc0\0\2\x63\4\xd2\0\x19";

	(void)state;
	session_begins(ONE "--send-proxy v2");
	server_connects();
	assert_int_equal(world_server.out_len, sizeof want - 1);
	assert_memory_equal(world_server.out, want, sizeof want - 1);
}

/* It comes before TLS. */
static void sends_proxy_before_tls(void **state)
{
	(void)state;
	session_begins("--upstream smtps://192.0.2.25 --send-proxy v1");
	server_connects();
	stands_at(OPEN, SHAKE_FIRST);
	server_gets("PROXY TCP4 192.0.2.7 192.0.2.99 1234 25");
}

static void sends_proxy_on_each_connection(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --tls may --send-proxy v1");
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	server("220 go");
	server_heard();
	server_shake_fails("bad certificate");
	server_connects();
	server_gets("PROXY TCP4 192.0.2.7 192.0.2.99 1234 25");
}

/* ---- XFORWARD ---- */

#define FORWARDS(attributes) "250-mx.test\n250-PIPELINING\n250 XFORWARD " attributes

static void forwards(void **state)
{
	char want[400];

	(void)state;
	to_ready(ONE "--xforward --client-names none", FORWARDS("NAME ADDR PORT PROTO HELO IDENT SOURCE LOGIN FOO"));
	client("MAIL FROM:<a@b.test>");
	snprintf(want, sizeof want, "XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.7 PORT=1234 PROTO=ESMTP HELO=c.test IDENT=%s SOURCE=REMOTE",
	    the_session()->id);
	server_gets(want);
	server("250 ok");
	server_gets("MAIL FROM:<a@b.test>");
}

static void forwards_value(void **state)
{
	const char *const *row = *state;

	client_is(row[0]);
	to_hello(ONE "--xforward --client-names none", row[1], FORWARDS("ADDR PROTO HELO SOURCE"));
	client("MAIL FROM:<a@b.test>");
	server_gets(row[2]);
}

/* Values are xtext, RFC 3461 4. */
static void forwards_values(void **state)
{
	static const char *const rows[][3] = {
		{ "2001:db8::7", "EHLO c.test", "XFORWARD ADDR=IPV6:2001:db8::7 PROTO=ESMTP HELO=c.test SOURCE=REMOTE" },
		{ "127.0.0.1", "EHLO [127.0.0.1]", "XFORWARD ADDR=127.0.0.1 PROTO=ESMTP HELO=[127.0.0.1] SOURCE=LOCAL" },
		{ "192.0.2.7", "EHLO a+b=c d\xc3\xa4", "XFORWARD ADDR=192.0.2.7 PROTO=ESMTP HELO=a+2Bb+3Dc+20d+C3+A4 SOURCE=REMOTE" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][1], forwards_value, rows[i]);
}

static void forwards_for_helo(void **state)
{
	(void)state;
	session_begins(ONE "--xforward --client-names none");
	server_connects();
	server(BANNER);
	client("HELO c.test");
	server(FORWARDS("PROTO"));
	server("250 mx.test");
	stands_at(OPEN, READY);
	server_heard();
	client("MAIL FROM:<a@b.test>");
	server_gets("XFORWARD PROTO=SMTP");
}

/* What one line does not hold goes into the next. */
static void forwards_in_parts(void **state)
{
	static char name[251], hello[300], want[600];

	(void)state;
	memset(name, 'n', 250);
	snprintf(hello, sizeof hello, "EHLO %s", name);
	world_dns(PTR, DNS_PTR, name, NULL);
	world_dns(name, DNS_A, "192.0.2.7", NULL);
	to_hello(ONE "--xforward", hello, FORWARDS("NAME HELO ADDR"));
	client("MAIL FROM:<a@b.test>");
	snprintf(want, sizeof want, "XFORWARD NAME=%s ADDR=192.0.2.7", name);
	server_gets(want);
	server("250 ok");
	snprintf(want, sizeof want, "XFORWARD HELO=%s", name);
	server_gets(want);
	server("250 ok");
	server_gets("MAIL FROM:<a@b.test>");
}

/* A server that refuses it is not told the rest, nor asked again. */
static void forward_is_refused(void **state)
{
	(void)state;
	to_ready(ONE "--xforward --client-names none", FORWARDS("ADDR"));
	client("MAIL FROM:<a@b.test>");
	server_heard();
	server("501-bad\n501 attribute");
	recorded("error: 192.0.2.25: XFORWARD was refused: 501 attribute");
	server_gets("MAIL FROM:<a@b.test>");
	server("250 ok");
	client("RSET");
	server("250 ok");
	server_heard();
	client("MAIL FROM:<a@b.test>");
	server_gets("MAIL FROM:<a@b.test>");
}

static void forward_without_offer(void **state)
{
	(void)state;
	to_ready(ONE "--xforward --xclient --client-names none", PIPES);
	client("MAIL FROM:<a@b.test>");
	server_gets("MAIL FROM:<a@b.test>");
}

/* ---- the client's host name ---- */

static void name_is_told(void **state)
{
	const char *const *row = *state;

	world_dns(PTR, DNS_PTR, row[0], row[1]);
	if (row[0])
		world_dns(row[0], DNS_A, row[2], NULL);
	to_ready(ONE "--xforward --xclient", FORWARDS("NAME"));
	client("MAIL FROM:<a@b.test>");
	server_gets(row[3]);
}

/* As with Postfix, only a confirmed name is the client's. */
static void names_are_told(void **state)
{
	static const char *const rows[][4] = {
		{ "h.test", NULL, "192.0.2.7", "XFORWARD NAME=h.test" },
		{ "h.test", NULL, "192.0.2.8", "XFORWARD NAME=[UNAVAILABLE]" },
		{ "h.test", NULL, NULL, "XFORWARD NAME=[UNAVAILABLE]" },
		{ NULL, NULL, NULL, "XFORWARD NAME=[UNAVAILABLE]" },
		{ NULL, "SERVFAIL", NULL, "XFORWARD NAME=[UNAVAILABLE]" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][3], name_is_told, rows[i]);
}

static void name_of_ipv6(void **state)
{
	(void)state;
	client_is("2001:db8::7");
	world_dns("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", DNS_PTR, "h.test", NULL);
	world_dns("h.test", DNS_AAAA, "2001:db8::7", NULL);
	to_ready(ONE "--xforward", FORWARDS("NAME"));
	client("MAIL FROM:<a@b.test>");
	server_gets("XFORWARD NAME=h.test");
}

/* MAIL waits for it; the two questions have --dnsbl-timeout together. */
static void name_is_due(void **state)
{
	(void)state;
	to_ready(ONE "--xforward --dnsbl-timeout 5", FORWARDS("NAME"));
	passes(3);
	client("MAIL FROM:<a@b.test>");
	stands_at(TOLD, READY);
	falls_due_in(2, "");
	dns_says(PTR, DNS_PTR, "h.test", NULL);
	falls_due_in(2, "");
	passes(2);
	server_gets("XFORWARD NAME=[UNAVAILABLE]");
}

static void name_is_not_due(void **state)
{
	(void)state;
	to_ready(ONE "--xforward", FORWARDS("ADDR"));
	client("MAIL FROM:<a@b.test>");
	server_gets("XFORWARD ADDR=192.0.2.7");
}

static void name_is_due_late(void **state)
{
	(void)state;
	to_waiting_rcpt(LATE "--received");
	server_connects();
	server(BANNER);
	server(PIPES);
	server_gets("EHLO c.test");
	stands_at(SERVER, READY);
	dns_says(PTR, DNS_PTR, NULL, NULL);
	server_gets("MAIL FROM:<a@b.test>");
	stands_at(SERVER, READY);
}

/* The server is lost while the name is due: it is not due for the next one. */
static void name_is_due_and_server_lost(void **state)
{
	(void)state;
	to_waiting_rcpt(LATE "--upstream 192.0.2.26 --received --dnsbl-timeout 5");
	server_connects();
	server(BANNER);
	server(PIPES);
	server_closes();
	server_is_dialled("192.0.2.26:25", 2);
	dns_says(PTR, DNS_PTR, NULL, NULL);
	server_heard();
	server_connects();
	server_gets("");
	server(BANNER);
	server_gets("EHLO c.test");
}

/* The next server does not want to hear it, and has MAIL already when it comes. */
static void name_is_late_for_another(void **state)
{
	(void)state;
	to_waiting_rcpt(LATE "--upstream 192.0.2.26 --xforward --dnsbl-timeout 5");
	server_connects();
	server(BANNER);
	server(FORWARDS("NAME"));
	stands_at(SERVER, READY);
	server_closes();
	server_heard();
	server_connects();
	server(BANNER);
	server(PLAIN);
	server_gets("EHLO c.test\nMAIL FROM:<a@b.test>");
	dns_says(PTR, DNS_PTR, NULL, NULL);
	server_gets("");
	server("250 ok");
	server_gets("RCPT TO:<r@d.test>");
}

/* ---- XCLIENT: what is in it; see hello.c for the rest ---- */

static void xclient_of_user(void **state)
{
	const char *const *row = *state;

	session_begins(ONE "--xclient --client-names none --plain-auth");
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250 AUTH PLAIN"); /* no XCLIENT yet */
	client("AUTH PLAIN AHVzZXIAc2VjcmV0");
	server("235 welcome");
	client("EHLO d.test");
	server_heard();
	server(row[0]);
	server_gets(row[1]);
}

/* XCLIENT must not make the server forget the user. */
static void xclient_of_users(void **state)
{
	static const char *const rows[][2] = {
		{ "250-mx.test\n250 XCLIENT ADDR LOGIN", "XCLIENT ADDR=192.0.2.7 LOGIN=user" },
		{ "250-mx.test\n250 XCLIENT ADDR", "" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], xclient_of_user, rows[i]);
}

/* For the client whom XCLIENT names the server may offer TLS. */
static void starttls_after_xclient(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --tls may --xclient --client-names none");
	server_connects();
	server(BANNER);
	client("EHLO c.test");
	server("250-mx.test\n250 XCLIENT ADDR");
	server("220 mx.test");
	stands_at(OPEN, EHLO_AGAIN);
	server_heard();
	server("250-mx.test\n250-STARTTLS\n250 XCLIENT ADDR");
	server_gets("STARTTLS");
	stands_at(OPEN, STARTTLS);
}

/* ---- Received ---- */

/* The field that stands before the message, without its date. */
static void received_is(const char *want)
{
	static struct text got;
	char *date;

	clear(&got);
	say_bytes(&got, world_server.out, world_server.out_len);
	date = strstr(got.bytes, "; ");
	assert_non_null(date);
	*date = 0;
	assert_non_null(strstr(got.bytes, the_session()->id));
	*strstr(got.bytes, the_session()->id) = 0;
	expect_text("Received", got.bytes, want);
}

static void to_trace(const char *options, const char *hello, const char *list, const char *mail)
{
	to_hello(options, hello, list);
	client(mail);
	server("250 ok");
	client("RCPT TO:<r@d.test>");
	server("250 ok");
	client("DATA");
	server_heard();
	server("354 go");
	client(".");
}

static void received(void **state)
{
	const char *const *row = *state;

	to_trace(ONE "--received --client-names none", row[0], PLAIN, row[1]);
	received_is(row[2]);
}

static void received_fields(void **state)
{
	static const char *const rows[][3] = {
		{ "EHLO c.test", "MAIL FROM:<a@b.test>",
		    "Received: from c.test ([192.0.2.7])\\r\\n\\11by warp.test with ESMTP\\r\\n\\11id " },
		{ "HELO c.test", "MAIL FROM:<a@b.test>",
		    "Received: from c.test ([192.0.2.7])\\r\\n\\11by warp.test with SMTP\\r\\n\\11id " },
		{ "EHLO c.test", "MAIL FROM:<a@b.test> SMTPUTF8",
		    "Received: from c.test ([192.0.2.7])\\r\\n\\11by warp.test with UTF8SMTP\\r\\n\\11id " },
		{ "EHLO [192.0.2.7]", "MAIL FROM:<a@b.test>",
		    "Received: from [192.0.2.7] ([192.0.2.7])\\r\\n\\11by warp.test with ESMTP\\r\\n\\11id " },
		{ "EHLO [IPv6:2001:db8::7]", "MAIL FROM:<a@b.test>",
		    "Received: from [IPv6:2001:db8::7] ([192.0.2.7])\\r\\n\\11by warp.test with ESMTP\\r\\n\\11id " },
		{ "EHLO c_1-x (evil); x:y", "MAIL FROM:<a@b.test>",
		    "Received: from c_1-x??evil???x?y ([192.0.2.7])\\r\\n\\11by warp.test with ESMTP\\r\\n\\11id " },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][2], received, rows[i]);
}

static void received_with_name(void **state)
{
	(void)state;
	world_dns(PTR, DNS_PTR, "h.test", NULL);
	world_dns("h.test", DNS_A, "192.0.2.7", NULL);
	to_trace(ONE "--received", "EHLO c.test", PLAIN, "MAIL FROM:<a@b.test>");
	received_is("Received: from c.test (h.test [192.0.2.7])\\r\\n\\11by warp.test with ESMTP\\r\\n\\11id ");
}

static void received_of_ipv6(void **state)
{
	(void)state;
	client_is("2001:db8::7");
	to_trace(ONE "--received --client-names none", "EHLO c.test", PLAIN, "MAIL FROM:<a@b.test>");
	received_is("Received: from c.test ([IPv6:2001:db8::7])\\r\\n\\11by warp.test with ESMTP\\r\\n\\11id ");
}

static void received_by_lmtp(void **state)
{
	(void)state;
	to_trace(LMTP "--received --client-names none", "LHLO c.test", PLAIN, "MAIL FROM:<a@b.test>");
	received_is("Received: from c.test ([192.0.2.7])\\r\\n\\11by warp.test with LMTP\\r\\n\\11id ");
}

/* RFC 3848: with S inside TLS, with A when authenticated. */
static void received_in_tls(void **state)
{
	(void)state;
	session_begins("--upstream smtps://192.0.2.25 --tls may --received --client-names none --client-tls may --cert /cert");
	server_connects();
	server_shakes();
	server(BANNER);
	client("STARTTLS");
	client_shakes();
	client("EHLO c.test");
	server("250-mx.test\n250 AUTH PLAIN");
	client("AUTH PLAIN AHVzZXIAc2VjcmV0");
	server("235 welcome");
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	client("RCPT TO:<r@d.test>");
	server("250 ok");
	client("DATA");
	server_heard();
	server("354 go");
	client(".");
	received_is("Received: from c.test ([192.0.2.7])\\r\\n\\11by warp.test with ESMTPSA (TLS 1.2 ECDHE)\\r\\n\\11id ");
}

/* The first chunk begins with it, and counts it. */
static void received_in_chunk(void **state)
{
	char *end, *field;

	(void)state;
	to_recipient(ONE "--received --client-names none", CHUNKS);
	client_bytes("BDAT 2\r\nabBDAT 2 LAST\r\ncd", 25);
	assert_memory_equal(world_server.out, "BDAT ", 5);
	world_server.out[world_server.out_len] = 0;
	field = strchr((char *)world_server.out, '\n') + 1;
	assert_memory_equal(field, "Received: ", 10);
	end = strstr(field, "abBDAT 2 LAST\r\ncd");
	assert_non_null(end);
	assert_int_equal(strtoul((char *)world_server.out + 5, NULL, 10), end + 2 - field);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(client_of_proxy), cmocka_unit_test(client_of_proxy_is_mapped),
		cmocka_unit_test(client_of_ipv6_proxy), cmocka_unit_test(client_of_proxy_is_checked),
		cmocka_unit_test(proxy_itself), cmocka_unit_test(proxy_itself_by_v2), cmocka_unit_test(header_of_a_stranger),
		cmocka_unit_test(tls_of_proxy), cmocka_unit_test(bad_headers), cmocka_unit_test(header_is_late),
		cmocka_unit_test(no_header_but_close), cmocka_unit_test(header_breaks_off), cmocka_unit_test(sends_proxy_v1),
		cmocka_unit_test(sends_proxy_of_direct_client), cmocka_unit_test(sends_proxy_of_proxy),
		cmocka_unit_test(sends_proxy_v2), cmocka_unit_test(sends_proxy_before_tls),
		cmocka_unit_test(sends_proxy_on_each_connection), cmocka_unit_test(forwards), cmocka_unit_test(forwards_values),
		cmocka_unit_test(forwards_for_helo), cmocka_unit_test(forwards_in_parts), cmocka_unit_test(forward_is_refused),
		cmocka_unit_test(forward_without_offer), cmocka_unit_test(names_are_told), cmocka_unit_test(name_of_ipv6),
		cmocka_unit_test(name_is_due), cmocka_unit_test(name_is_not_due), cmocka_unit_test(name_is_due_late),
		cmocka_unit_test(name_is_due_and_server_lost), cmocka_unit_test(xclient_of_users),
		cmocka_unit_test(starttls_after_xclient), cmocka_unit_test(received_fields), cmocka_unit_test(received_with_name),
		cmocka_unit_test(received_of_ipv6), cmocka_unit_test(received_by_lmtp), cmocka_unit_test(received_in_tls),
		cmocka_unit_test(received_in_chunk),
		cmocka_unit_test(name_is_late_for_another),
	};

	return run_session_tests(tests);
}
