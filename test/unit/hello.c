/* The greeting: banner, EHLO and HELO, and what is said to the server between them. */
#include "test/lib/fake_session.h"

static void smallest(void **state)
{
	(void)state;
	session_begins("--upstream 192.0.2.25 --tls none");
	server_is_dialled("192.0.2.25:25", 1);
	stands_at(OPEN, CONNECTING);
	server_connects();
	server("220 mx.test ESMTP");
	client_gets("220 mx.test ESMTP");
	recorded("connect 192.0.2.25:25: mx.test ESMTP");
	stands_at(OPEN, IDLE);
	client("EHLO c.test");
	server_gets("EHLO c.test");
	server("250-mx.test\n250-PIPELINING\n250 SIZE 1000");
	client_gets("250-mx.test\n250-SIZE 1000\n250 PIPELINING");
	stands_at(OPEN, READY);
	client("QUIT");
	server_gets("QUIT");
	server("221 bye");
	client_gets("221 bye");
	ended(FLUSH, "client", "QUIT");
}

static void tls(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "who");
	session_begins("--upstream mx.test --tls may --verbose");
	stands_at(OPEN, RESOLVING);
	name_is("mx.test", "192.0.2.25 192.0.2.26");
	server_is_dialled("192.0.2.25:25", 1);
	server_connects();
	server("220 mx.test ESMTP");
	client("EHLO c.test");
	server_gets("EHLO c.test");
	server("250-mx.test\n250 STARTTLS");
	server_gets("STARTTLS");
	server("220 go");
	stands_at(OPEN, SHAKE);
	falls_due_in(60, "TLS handshake timed out");
	passes(1.5);
	server_shakes();
	recorded("tls upstream may ok verified for mx.test");
	assert_string_equal(member_of("tls", "tls_ms"), "1500.000");
	server_gets("EHLO c.test");
	server("250 mx.test");
	client_gets("220 mx.test ESMTP\n250-mx.test\n250 PIPELINING");
	client("MAIL FROM:<a@b.test>");
	stands_at(HOOKS, READY);
	hook_says("reject 550 5.7.1 no\n");
	client_gets("550 5.7.1 no");
	recorded("verdict mail who reject: no");
	passes(400);
	client_gets("421 4.4.2 client idle");
	recorded("message rejected a@b.test: 550 5.7.1 no");
	ended(LINGER, "smtpwarp", "client idle");
	server_gets("QUIT");
	not_recorded("message");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(smallest), cmocka_unit_test(tls) };

	return run_session_tests(tests);
}
