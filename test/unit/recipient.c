/* --connect-on recipient: how the server of a recipient is found, asked, used again, left; and which recipients go together. */
#include "test/lib/fake_session.h"
#include "test/lib/fake_story.h"

#include <errno.h>

#define MAIL "MAIL FROM:<a@b.test>"
#define RCPT "RCPT TO:<r@d.test>"
#define OK "250 2.0.0 Ok"
#define MAIL_OK "250 2.1.0 Ok"
#define OTHER_WAY "452 4.5.3 This recipient's mail goes another way: send it in a transaction of its own"
#define AUTHS "250-mx.test\n250 AUTH PLAIN"
#define SECRET "AHVzZXIAc2VjcmV0"

/* The server that was dialled takes mail, from anybody and for anybody. */
static void server_accepts(const char *list)
{
	server_connects();
	server(BANNER);
	server(list);
	server("250 ok");
	server("250 ok");
	stands_at(OPEN, READY);
}

/* --connect-on recipient with lines of --routes. */
static void begin_with_routes(const char *options, const char *routes)
{
	char line[500];

	snprintf(line, sizeof line, "--tls none --connect-on recipient --routes %s --allow-clients 192.0.2.0/24 %s", file_of(routes),
	    options);
	session_begins(line);
	client("EHLO c.test");
	nothing_said_yet();
}

static void sends_message(const char *reply)
{
	client("DATA");
	server("354 go");
	client(MESSAGE);
	server(reply);
	nothing_said_yet();
}

/* ---- the first recipient ---- */

static void first_recipient(void **state)
{
	(void)state;
	session_begins(LATE);
	client_gets("220 warp.test ESMTP");
	client("EHLO c.test\n" MAIL);
	client_heard();
	assert_int_equal(world_net.attempts, 0);
	client(RCPT "\nRCPT TO:<s@d.test>\nDATA");
	client_gets("");
	server_is_dialled("192.0.2.25:25", 1);
	server_connects();
	server_gets("");
	server(BANNER);
	server_gets("EHLO c.test");
	server(PIPES);
	server_gets(MAIL);
	server("250 mail");
	client_gets("");
	server_gets(RCPT "\nRCPT TO:<s@d.test>\nDATA");
	server("250 r\n550 s\n354 go");
	client_gets("250 r\n550 s\n354 go");
	client(MESSAGE);
	server("250 accepted");
	client_gets("250 accepted");
	recorded("message accepted a@b.test to r@d.test 250, s@d.test 550: 250 accepted");
}

/* For a server that knows no EHLO. */
static void helo_server(void **state)
{
	(void)state;
	to_waiting_rcpt(LATE);
	server_connects();
	server(BANNER);
	server("502 what");
	server_gets("EHLO c.test\nHELO c.test");
	server("250 mx.test");
	server_gets(MAIL);
}

static void lmtp_server(void **state)
{
	(void)state;
	to_waiting_rcpt(LMTP "--connect-on recipient");
	server_connects();
	server(BANNER);
	server_gets("LHLO c.test");
	server(PLAIN);
	server("250 ok");
	server("250 ok");
	client_gets("250 ok");
	client("RCPT TO:<s@d.test>");
	client_gets("452 4.5.3 One recipient at a time: send this one in a transaction of its own");
}

static void original_destination(void **state)
{
	(void)state;
	to_waiting_rcpt("--tls none --connect-on recipient");
	server_is_dialled("192.0.2.99:25", 1);
}

/* The server gets the parameters that it knows. */
static void mail_has(void **state)
{
	const char *const *row = *state;

	session_begins(LATE);
	client("EHLO c.test");
	client(row[0]);
	client(RCPT);
	server_connects();
	server(BANNER);
	nothing_said_yet();
	server(row[1]);
	server_gets(row[2]);
}

static void parameters_of_mail(void **state)
{
	static const char *const rows[][3] = {
		{ "MAIL FROM:<a@b.test> SIZE=9 BODY=8BITMIME", PLAIN, "MAIL FROM:<a@b.test>" },
		{ "MAIL FROM:<a@b.test> SIZE=9 BODY=8BITMIME", "250-mx.test\n250 SIZE", "MAIL FROM:<a@b.test> SIZE=9" },
		{ "MAIL FROM:<a@b.test> size=9 body=7bit", "250-mx.test\n250 8BITMIME", "MAIL FROM:<a@b.test> body=7bit" },
		{ "MAIL FROM:<\xc3\xa4@b.test> SMTPUTF8 SIZE=9", "250-mx.test\n250-SIZE\n250 SMTPUTF8",
		    "MAIL FROM:<\xc3\xa4@b.test> SMTPUTF8 SIZE=9" },
		{ "MAIL FROM:<>", PLAIN, "MAIL FROM:<>" },
		{ "MAIL FROM: a@b.test", PLAIN, "MAIL FROM:<a@b.test>" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], mail_has, rows[i]);
}

/* PROTOCOL 44. */
static void server_without_smtputf8(void **state)
{
	(void)state;
	session_begins(LATE);
	client("EHLO c.test\nMAIL FROM:<a@b.test> SMTPUTF8\n" RCPT);
	server_connects();
	server(BANNER);
	nothing_said_yet();
	server(PLAIN);
	client_gets("553 5.6.7 The recipient's server does not know SMTPUTF8");
	server_gets("");
	stands_at(OPEN, READY);
	client("RSET");
	recorded("message rejected a@b.test to r@d.test 553");
}

/* A refusal of MAIL is the reply to RCPT, and the next RCPT asks again. */
static void mail_is_refused(void **state)
{
	(void)state;
	to_waiting_rcpt(LATE);
	server_connects();
	server(BANNER);
	server(PLAIN);
	server("550-5.7.1 not\n550 5.7.1 you");
	client_gets("550-5.7.1 not\n550 5.7.1 you");
	server_heard();
	client("RCPT TO:<s@d.test>");
	stands_at(SERVER, READY);
	server_gets(MAIL);
	server("451 later");
	client_gets("451 later");
	client("DATA\nRSET");
	client_gets("554 5.5.1 No valid recipients\n" OK);
	recorded("message deferred a@b.test to r@d.test 550, s@d.test 451");
}

static void recipient_is_refused(void **state)
{
	(void)state;
	to_waiting_rcpt(LATE);
	server_connects();
	server(BANNER);
	server(PLAIN);
	server("250 ok");
	server("550 nobody");
	client_gets("550 nobody");
	client("RCPT TO:<s@d.test>");
	server_gets("EHLO c.test\n" MAIL "\n" RCPT "\nRCPT TO:<s@d.test>");
}

/* ---- a server that cannot be reached or used ---- */

/* Once is enough for a transaction; the next one may have more luck. */
static void unreachable(void **state)
{
	(void)state;
	to_waiting_rcpt(LATE);
	server_connect_fails(ECONNREFUSED);
	client_gets("451 4.4.1 192.0.2.25: Connection refused");
	stands_at(OPEN, NONE);
	client("RCPT TO:<s@d.test>");
	client_gets("451 4.4.1 192.0.2.25: Connection refused");
	server_is_dialled("192.0.2.25:25", 1);
	client("RSET\n" MAIL "\n" RCPT);
	client_gets(OK "\n" MAIL_OK);
	recorded("message deferred a@b.test to r@d.test 451, s@d.test 451");
	server_is_dialled("192.0.2.25:25", 2);
	server_accepts(PLAIN);
	client_gets("250 ok");
}

static void unusable(void **state)
{
	const char *const *row = *state;

	to_waiting_rcpt(LATE);
	server_connects();
	for (int i = 0; i < 3; i++)
		if (row[i])
			server(row[i]);
	client_gets(row[3]);
	stands_at(OPEN, NONE);
	client("RCPT TO:<s@d.test>");
	client_gets(row[3]);
	goes_still();
}

static void unusables(void **state)
{
	static const char *const rows[][4] = {
		{ "554 no", NULL, NULL, "451 4.4.1 192.0.2.25: greeting 554 no" },
		{ "421 busy", NULL, NULL, "451 4.4.1 192.0.2.25: greeting 421 busy" },
		{ BANNER, "421 busy", NULL, "451 4.4.1 192.0.2.25: EHLO was refused: 421 busy" },
		{ BANNER, "451 busy", NULL, "451 4.4.1 192.0.2.25: EHLO was refused: 451 busy" },
		{ BANNER, "500 what", "500 what", "451 4.4.1 192.0.2.25: EHLO was refused: 500 what" },
		{ BANNER, PLAIN, "421 busy", "451 4.4.1 192.0.2.25: reply 421 busy" },
		{ BANNER, "354 go", NULL, "451 4.5.0 192.0.2.25: a reply that does not fit the command" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][3], unusable, rows[i]);
}

static void next_upstream(void **state)
{
	(void)state;
	to_waiting_rcpt(LATE "--upstream 192.0.2.26");
	server_connect_fails(ECONNREFUSED);
	server_is_dialled("192.0.2.26:25", 2);
	server_accepts(PLAIN);
	client_gets("250 ok");
	assert_non_null(strstr(member_of("connect", "server"), "192.0.2.26"));
}

/* ---- the connection is used again ---- */

static void next_message_reuses(void **state)
{
	(void)state;
	to_late_recipient(LATE, PLAIN);
	sends_message("250 accepted");
	client("MAIL FROM:<c@b.test>\nRCPT TO:<s@d.test>");
	client_gets(MAIL_OK);
	server_gets("MAIL FROM:<c@b.test>");
	server("250 ok");
	server_gets("RCPT TO:<s@d.test>");
	server("250 ok");
	client_gets("250 ok");
	server_is_dialled("192.0.2.25:25", 1);
}

/* A server may have been tired of the old connection only. */
static void reused_is_closed(void **state)
{
	const char *const *row = *state;

	to_late_recipient(LATE, PLAIN);
	sends_message("250 accepted");
	client("MAIL FROM:<c@b.test>\nRCPT TO:<s@d.test>");
	client_heard();
	if (row[0])
		server(row[0]);
	else
		server_closes();
	server_is_dialled("192.0.2.25:25", 2);
	client_gets("");
	server_heard();
	server_connects();
	server(BANNER);
	server(PLAIN);
	server_gets("EHLO c.test\nMAIL FROM:<c@b.test>");
	server("421 again");
	client_gets("451 4.4.1 192.0.2.25: reply 421 again"); /* twice is too often */
	stands_at(OPEN, NONE);
}

static void reused_ends(void **state)
{
	static const char *const rows[][1] = { { NULL }, { "421 too many messages" } };

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0] ? rows[i][0] : "closes", reused_is_closed, rows[i]);
}

/* ---- RSET, EHLO, QUIT ---- */

static void rset(void **state)
{
	(void)state;
	to_late_recipient(LATE, PLAIN);
	client("RSET");
	client_gets(OK);
	server_gets("RSET");
	client(MAIL "\n" RCPT);
	client_gets("");
	server("250 reset");
	client_gets(MAIL_OK);
	server_gets(MAIL);
}

/* It has heard of no transaction. */
static void rset_of_unbound(void **state)
{
	(void)state;
	to_late_recipient(LATE, PLAIN);
	sends_message("250 accepted");
	client(MAIL "\nRSET");
	client_gets(MAIL_OK "\n" OK);
	server_gets("");
}

static void ehlo_again(void **state)
{
	const char *const *row = *state;

	to_late_recipient(LATE, PLAIN);
	client(row[0]);
	server_gets(row[1]);
	recorded("message aborted a@b.test to r@d.test 250");
	assert_int_equal(world_server.fd, -1);
	client(MAIL "\n" RCPT);
	server_is_dialled("192.0.2.25:25", 2);
	server_connects();
	server(BANNER);
	server_gets("EHLO d.test");
}

static void hello_again(void **state)
{
	static const char *const rows[][2] = { { "EHLO d.test", "QUIT" }, { "HELO d.test", "QUIT" } };

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], ehlo_again, rows[i]);
}

static void quit(void **state)
{
	(void)state;
	to_late_recipient(LATE, PLAIN);
	client("QUIT");
	client_gets("221 2.0.0 Bye");
	server_gets("QUIT");
	recorded("message aborted a@b.test to r@d.test 250");
	ended(FLUSH, "client", "QUIT");
}

/* RSET and QUIT wait for what was said before. */
static void quit_waits(void **state)
{
	(void)state;
	to_waiting_rcpt(LATE);
	client("QUIT");
	client_gets("");
	server_connects();
	server(BANNER);
	server(PLAIN);
	server("250 ok");
	server("250 ok");
	client_gets("250 ok\n221 2.0.0 Bye");
	ended(FLUSH, "client", "QUIT");
}

/* ---- routes ---- */

static void goes(void **state)
{
	const char *const *row = *state;

	world_name("one.test", "192.0.2.31");
	world_name("two.test", "192.0.2.32");
	begin_with_routes("--upstream 192.0.2.25 --recipient-delimiter +",
	    "# routes\nr@d.test;one.test\nd.test;two.test:2525\n.e.test;[2001:db8::33]:25\n");
	client(MAIL);
	client(row[0]);
	server_is_dialled(row[1], 1);
}

static void routes(void **state)
{
	static const char *const rows[][2] = {
		{ "RCPT TO:<r@d.test>", "192.0.2.31:25" },
		{ "RCPT TO:<R@D.TEST>", "192.0.2.31:25" },
		{ "RCPT TO:<r+x@d.test>", "192.0.2.31:25" },
		{ "RCPT TO:<s@d.test>", "192.0.2.32:2525" },
		{ "RCPT TO:<s@x.e.test>", "2001:db8::33:25" },
		{ "RCPT TO:<s@f.test>", "192.0.2.25:25" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], goes, rows[i]);
}

static void no_route(void **state)
{
	(void)state;
	redirected_from("");
	begin_with_routes("", "d.test;192.0.2.31\n");
	client(MAIL "\nRCPT TO:<s@f.test>");
	client_gets(MAIL_OK "\n550 5.1.2 No route to this recipient");
	assert_int_equal(world_net.attempts, 0);
	client(RCPT);
	server_is_dialled("192.0.2.31:25", 1);
}

static void no_route_but_destination(void **state)
{
	(void)state;
	begin_with_routes("", "d.test;192.0.2.31\n");
	client(MAIL "\nRCPT TO:<s@f.test>");
	server_is_dialled("192.0.2.99:25", 1);
}

static void routes_cannot_be_read(void **state)
{
	(void)state;
	session_begins("--tls none --connect-on recipient --routes /nowhere/routes");
	client("EHLO c.test\n" MAIL);
	nothing_said_yet();
	client(RCPT);
	client_gets("451 4.3.5 Routes cannot be read, try again later");
	recorded("error: --routes /nowhere/routes: No such file or directory");
}

static void route_has_tls(void **state)
{
	(void)state;
	begin_with_routes("", "d.test;192.0.2.31;encrypt\n");
	client(MAIL "\n" RCPT);
	client_heard();
	server_connects();
	server(BANNER);
	server(PLAIN);
	client_gets("451 4.7.5 192.0.2.31: STARTTLS is not offered");
}

#define TWO_ROUTES "d.test;192.0.2.31\ne.test;192.0.2.32\nf.test;192.0.2.31\n"

/* PROTOCOL 71, DESIGN 4: no recipient is ever handed to the wrong server. */
static void recipients_of_two_servers(void **state)
{
	(void)state;
	begin_with_routes("", TWO_ROUTES);
	client(MAIL "\n" RCPT);
	server_accepts(PLAIN);
	nothing_said_yet();
	client("RCPT TO:<s@e.test>");
	client_gets(OTHER_WAY);
	client("RCPT TO:<s@f.test>");
	server_gets("RCPT TO:<s@f.test>");
	server("250 ok");
	nothing_said_yet();
	sends_message("250 accepted");
	recorded("message accepted a@b.test to r@d.test 250, s@e.test 452, s@f.test 250: 250 accepted");
	client(MAIL "\nRCPT TO:<s@e.test>");
	server_gets("QUIT");
	server_is_dialled("192.0.2.32:25", 2);
	server_accepts(PLAIN);
}

/* The first one was refused: nothing binds the transaction to its server. */
static void second_server_after_refusal(void **state)
{
	(void)state;
	begin_with_routes("", TWO_ROUTES);
	client(MAIL "\n" RCPT);
	server_connects();
	server(BANNER);
	server(PLAIN);
	server("250 ok");
	server("550 nobody");
	nothing_said_yet();
	client("RCPT TO:<s@e.test>");
	server_gets("QUIT");
	server_is_dialled("192.0.2.32:25", 2);
	server_connects();
	server(BANNER);
	server(PLAIN);
	server_gets("EHLO c.test\n" MAIL);
	server("250 ok");
	server("250 ok");
	client_gets("250 ok");
	client("RCPT TO:<s@d.test>");
	client_gets(OTHER_WAY);
}

/* What could not be reached is remembered by its route. */
static void unreachable_and_another(void **state)
{
	(void)state;
	begin_with_routes("", TWO_ROUTES);
	client(MAIL "\n" RCPT);
	client_heard();
	server_connect_fails(ECONNREFUSED);
	client_gets("451 4.4.1 192.0.2.31: Connection refused");
	client("RCPT TO:<s@e.test>");
	server_is_dialled("192.0.2.32:25", 2);
	server_accepts(PLAIN);
	client_gets("250 ok");
	client("RCPT TO:<s@f.test>");
	client_gets(OTHER_WAY);
}

/* ---- verdicts on MAIL and RCPT ---- */

static void verdict_on_mail(void **state)
{
	(void)state;
	hook_is_there(HOOK_MAIL, "m");
	session_begins(LATE);
	client("EHLO c.test\n" MAIL);
	nothing_said_yet();
	hook_says("upstream 192.0.2.44:2525\nsource 192.0.2.77\n");
	client_gets(MAIL_OK);
	client(RCPT);
	server_is_dialled("192.0.2.44:2525", 1);
	server_accepts(PLAIN);
	sends_message("250 accepted");
	client("MAIL FROM:<c@b.test>"); /* it was for that message only */
	hook_says("");
	client(RCPT);
	server_is_dialled("192.0.2.25:25", 2);
}

static void verdict_on_rcpt(void **state)
{
	(void)state;
	hook_is_there(HOOK_RCPT, "r");
	session_begins(LATE);
	client("EHLO c.test\n" MAIL "\n" RCPT);
	nothing_said_yet();
	hook_says("upstream 192.0.2.44\n");
	server_is_dialled("192.0.2.44:25", 1);
	server_accepts(PLAIN);
	nothing_said_yet();
	client("RCPT TO:<s@d.test>");
	hook_says("");
	client_gets(OTHER_WAY);
	client("RCPT TO:<t@d.test>");
	hook_says("upstream 192.0.2.44\n");
	server_gets("RCPT TO:<t@d.test>");
}

/* A verdict's server comes before --routes; a rewritten recipient is looked up there as it is now. */
static void verdict_and_routes(void **state)
{
	const char *const *row = *state;

	hook_is_there(HOOK_RCPT, "r");
	begin_with_routes("", TWO_ROUTES);
	client(MAIL "\n" RCPT);
	client_heard();
	hook_says(row[0]);
	server_is_dialled(row[1], 1);
	server_accepts(PLAIN);
	server_gets(row[2]);
	client("RSET");
	recorded(row[3]);
}

/* MAIL is refused for a recipient that was rewritten: the record has the client's own, too. */
static void mail_is_refused_for_rewritten(void **state)
{
	const char *rcpts;

	(void)state;
	hook_is_there(HOOK_RCPT, "r");
	begin_with_routes("", TWO_ROUTES);
	client(MAIL "\n" RCPT);
	hook_says("rewrite s@e.test\n");
	server_connects();
	server(BANNER);
	server(PLAIN);
	server("550 5.7.1 not you");
	client("RSET");
	recorded("message rejected a@b.test to s@e.test 550");
	rcpts = member_of("message", "rcpt_to");
	assert_non_null(strstr(rcpts, "\"original\":\"r@d.test\""));
}

static void verdicts_and_routes(void **state)
{
	static const char *const rows[][4] = {
		{ "upstream 192.0.2.44\n", "192.0.2.44:25", "EHLO c.test\n" MAIL "\n" RCPT, "message aborted a@b.test to r@d.test 250" },
		{ "rewrite s@e.test\n", "192.0.2.32:25", "EHLO c.test\n" MAIL "\nRCPT TO:<s@e.test>",
		    "message aborted a@b.test to s@e.test 250" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		apart(rows[i][0], verdict_and_routes, rows[i]);
}

/* ---- AUTH ---- */

/* The client is authenticated with the server of --upstream. */
static void to_authenticated(const char *routes)
{
	char line[500];

	snprintf(line, sizeof line, LATE "--auth --plain-auth --allow-clients 192.0.2.0/24 --routes %s", file_of(routes));
	session_begins(line);
	client("EHLO c.test");
	server_connects();
	server(BANNER);
	server(AUTHS);
	client("AUTH PLAIN " SECRET);
	server("235 welcome");
	assert_int_equal(the_session()->server.auth, SERVER_AUTH_SAID);
	nothing_said_yet();
}

static void authenticated(void **state)
{
	(void)state;
	to_authenticated(TWO_ROUTES);
	client("MAIL FROM:<a@b.test> AUTH=<>\nRCPT TO:<r@g.test>");
	client_gets(MAIL_OK);
	server_gets("MAIL FROM:<a@b.test> AUTH=<>"); /* this server can judge whether to trust it */
	server("250 ok");
	server("250 ok");
	client_gets("250 ok");
	client("EHLO d.test"); /* the connection stays */
	server_is_dialled("192.0.2.25:25", 1);
}

/* A route whose first server it is leads there, too. */
static void authenticated_with_first_of_several(void **state)
{
	(void)state;
	to_authenticated("h.test;192.0.2.25 192.0.2.26\n");
	client(MAIL "\nRCPT TO:<r@h.test>");
	server_gets(MAIL);
	server_is_dialled("192.0.2.25:25", 1);
}

/* Another route, another connection, and on it the client is nobody; its password stays where it was. */
static void authenticated_leaves(void **state)
{
	(void)state;
	to_authenticated(TWO_ROUTES);
	client("MAIL FROM:<a@b.test> AUTH=<>\nRCPT TO:<r@d.test>");
	client_heard();
	server_gets("QUIT");
	server_is_dialled("192.0.2.31:25", 2);
	server_connects();
	server(BANNER);
	server_heard();
	server(AUTHS);
	server_gets("MAIL FROM:<a@b.test>");
	server("250 ok");
	server("250 ok");
	client_gets("250 ok");
	sends_message("250 accepted");
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@g.test>"); /* where it was authenticated it no longer is */
	client_gets(MAIL_OK "\n421 4.7.0 The connection that was authenticated is closed: come again");
	recorded("message deferred a@b.test to r@g.test 421");
	ended(LINGER, "smtpwarp", "the connection that was authenticated is closed");
}

static void authenticated_is_lost(void **state)
{
	(void)state;
	to_authenticated(TWO_ROUTES);
	server_closes();
	client_gets("421 4.4.2 192.0.2.25: connection closed");
	ended(LINGER, "upstream", "connection closed");
}

static void authenticated_is_lost_at_mail(void **state)
{
	(void)state;
	to_authenticated(TWO_ROUTES);
	client(MAIL "\nRCPT TO:<r@g.test>");
	client_heard();
	server_closes();
	client_gets("421 4.4.1 192.0.2.25: connection closed");
	recorded("message deferred a@b.test to r@g.test 421");
	ended(LINGER, "upstream", "the connection that was authenticated is closed");
}

/* Refused, the client is still the server's: it was shown its AUTH, and may try again. */
static void auth_is_refused(void **state)
{
	(void)state;
	session_begins(LATE "--auth --plain-auth");
	client("EHLO c.test");
	server_connects();
	server(BANNER);
	server(AUTHS);
	client("AUTH PLAIN " SECRET);
	server("535 no");
	nothing_said_yet();
	client("AUTH PLAIN " SECRET);
	server_gets("AUTH PLAIN " SECRET);
	server("535 no");
	client("MAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	server_gets(MAIL);
}

/* ---- the server is told of the client ---- */

#define FORWARDS "250-mx.test\n250-PIPELINING\n250 XFORWARD ADDR HELO"

static void xforward_comes_first(void **state)
{
	(void)state;
	to_waiting_rcpt(LATE "--xforward --client-names none");
	server_connects();
	server(BANNER);
	server_heard();
	server(FORWARDS);
	server_gets("XFORWARD ADDR=192.0.2.7 HELO=c.test");
	server("250 ok");
	server_gets(MAIL);
	server("250 ok");
	server("250 ok");
	nothing_said_yet();
	sends_message("250 accepted");
	client(MAIL "\n" RCPT); /* for each message */
	server_gets("XFORWARD ADDR=192.0.2.7 HELO=c.test");
	server("550 no"); /* the mail goes all the same */
	server_gets(MAIL);
	recorded("error: 192.0.2.25: XFORWARD was refused: 550 no");
}

/* A 421 to it counts as the answer to MAIL. */
static void xforward_is_421(void **state)
{
	(void)state;
	to_waiting_rcpt(LATE "--xforward --client-names none");
	server_connects();
	server(BANNER);
	server(FORWARDS);
	server("421 enough");
	client_gets("451 4.4.1 192.0.2.25: reply 421 enough");
	stands_at(OPEN, NONE);
}

static void xclient_comes_first(void **state)
{
	(void)state;
	to_waiting_rcpt(LATE "--xclient --client-names none");
	server_connects();
	server(BANNER);
	server_heard();
	server("250-mx.test\n250 XCLIENT ADDR");
	server_gets("XCLIENT ADDR=192.0.2.7");
	server(BANNER);
	server_gets("EHLO c.test");
	server("250-mx.test\n250 XCLIENT ADDR");
	server_gets(MAIL);
}

static void xclient_is_refused(void **state)
{
	(void)state;
	to_waiting_rcpt(LATE "--xclient --client-names none");
	server_connects();
	server(BANNER);
	server("250-mx.test\n250 XCLIENT ADDR");
	server("550 not you");
	client_gets("451 4.3.5 192.0.2.25: XCLIENT was refused: 550 not you");
	stands_at(OPEN, NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_recipient), cmocka_unit_test(helo_server), cmocka_unit_test(lmtp_server),
		cmocka_unit_test(original_destination), cmocka_unit_test(parameters_of_mail),
		cmocka_unit_test(server_without_smtputf8), cmocka_unit_test(mail_is_refused),
		cmocka_unit_test(recipient_is_refused), cmocka_unit_test(unreachable), cmocka_unit_test(unusables),
		cmocka_unit_test(next_upstream), cmocka_unit_test(next_message_reuses), cmocka_unit_test(reused_ends),
		cmocka_unit_test(rset), cmocka_unit_test(rset_of_unbound), cmocka_unit_test(hello_again), cmocka_unit_test(quit),
		cmocka_unit_test(quit_waits), cmocka_unit_test(routes), cmocka_unit_test(no_route),
		cmocka_unit_test(no_route_but_destination), cmocka_unit_test(routes_cannot_be_read),
		cmocka_unit_test(route_has_tls), cmocka_unit_test(recipients_of_two_servers),
		cmocka_unit_test(second_server_after_refusal), cmocka_unit_test(unreachable_and_another),
		cmocka_unit_test(verdict_on_mail), cmocka_unit_test(verdict_on_rcpt), cmocka_unit_test(verdicts_and_routes),
		cmocka_unit_test(mail_is_refused_for_rewritten),
		cmocka_unit_test(authenticated), cmocka_unit_test(authenticated_leaves), cmocka_unit_test(authenticated_is_lost),
		cmocka_unit_test(authenticated_is_lost_at_mail), cmocka_unit_test(auth_is_refused),
		cmocka_unit_test(xforward_comes_first), cmocka_unit_test(xforward_is_421), cmocka_unit_test(xclient_comes_first),
		cmocka_unit_test(xclient_is_refused),
		cmocka_unit_test(authenticated_with_first_of_several),
	};

	return run_session_tests(tests);
}
