/* What a session counts of its server, and what it concludes: a whole session on fakes, and a map in a file. */
#define _GNU_SOURCE
#include "test/lib/fake_session.h"
#include "test/lib/fake_story.h"

#include "io/statefile.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static char file[64], providers[64];

static void make_map(void)
{
	char why[STATEFILE_WHY];

	snprintf(file, sizeof file, "/tmp/observe.%d", (int)getpid());
	unlink(file);
	assert_true(statefile_use(file, why));
	unlink(file); /* the mapping stays */
}

/* The only slot in use; NULL: there is none. */
static const struct statemap_slot *slot(void)
{
	const struct statemap *m = statefile_current();
	const struct statemap_slot *found = NULL;

	for (unsigned i = 1; i < STATEMAP_SLOTS; i++)
		if (m->slot[i].key) {
			assert_null(found);
			found = &m->slot[i];
		}
	return found;
}

static void counted(unsigned counter, unsigned n)
{
	assert_non_null(slot());
	assert_int_equal(statemap_get(slot()->counter + counter), n);
}

static void timed(enum statemap_phase phase, unsigned n)
{
	unsigned found = 0;

	for (unsigned i = 0; i < STATEMAP_BUCKET_COUNT; i++)
		found += statemap_get_bucket(&slot()->bucket[phase][i]);
	assert_int_equal(found, n);
}

static void site_is(const char *want)
{
	char site[STATEMAP_SITE], source[STATEMAP_SOURCE];

	assert_true(statemap_names(slot(), site, source));
	assert_string_equal(site, want);
	assert_string_equal(the_session()->observe.site, want);
}

static void accepted(void **state)
{
	(void)state;
	make_map();
	to_data(ONE, PLAIN);
	passes(0.2);
	client(MESSAGE);
	passes(1.5);
	server("250 ok");
	site_is("192.0.2.0/24");
	counted(STATEMAP_CONNECT_OK, 1);
	counted(STATEMAP_MESSAGE_ACCEPTED, 1);
	counted(STATEMAP_RECIPIENT + REPLY_OK, 1);
	counted(STATEMAP_TLS_PLAIN, 1);
	timed(STATEMAP_PHASE_CONNECT, 1);
	timed(STATEMAP_PHASE_BANNER, 1);
	timed(STATEMAP_PHASE_RCPT, 1);
	timed(STATEMAP_PHASE_DATA, 1);
	timed(STATEMAP_PHASE_ACCEPT, 1);
	assert_int_equal(statemap_get_bucket(&slot()->bucket[STATEMAP_PHASE_ACCEPT][7]), 1); /* up to 2.5 s */
	client("QUIT");
	server("221 bye");
	assert_int_equal(statemap_get(statefile_current()->total + STATEMAP_ENDED_CLIENT), 1);
	assert_true(statemap_get(statefile_current()->total + STATEMAP_BYTES_FROM_CLIENT) > 50);
	counted(STATEMAP_CONNECT_OK, 1);
}

static void recipients_of_all_kinds(void **state)
{
	char text[STATEMAP_TEXT];
	enum reply_class class;

	(void)state;
	make_map();
	to_recipient(ONE, PLAIN);
	client("RCPT TO:<no@d.test>");
	server("550 5.1.1 who?");
	client("RCPT TO:<full@d.test>");
	server("452 4.2.2 full");
	client("DATA");
	server("354 go");
	client(MESSAGE);
	server("421 4.7.28 too much");
	counted(STATEMAP_RECIPIENT + REPLY_UNKNOWN_USER, 1);
	counted(STATEMAP_RECIPIENT + REPLY_MAILBOX_FULL, 1);
	counted(STATEMAP_RECIPIENT + REPLY_THROTTLE, 1);
	counted(STATEMAP_RECIPIENT + REPLY_OK, 0);
	counted(STATEMAP_MESSAGE_DEFERRED, 1);
	counted(STATEMAP_REPLY + 2 * REPLY_AT_RCPT, 1);
	counted(STATEMAP_REPLY + 2 * REPLY_AT_RCPT + 1, 1);
	counted(STATEMAP_REPLY + 2 * REPLY_AT_DOT, 1);
	assert_true(statemap_said(slot(), &class, text));
	assert_string_equal(text, "4.7.28 too much");
	assert_int_equal(class, REPLY_THROTTLE);
}

/* Neither smtpwarp's refusals nor a hook's count. */
static void own_refusals(void **state)
{
	(void)state;
	make_map();
	hook_is_there(HOOK_RCPT, "10-refuse");
	to_ready(ONE, PLAIN);
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	client("RCPT TO:<r@d.test>");
	hook_says("defer 4.7.1 Not you, slow down\n");
	client("RSET");
	server("250 ok");
	client("QUIT");
	server("221 bye");
	assert_int_equal(slot()->detector.score, 0);
	for (enum reply_class c = REPLY_OK; c < REPLY_CLASSES_END; c++)
		counted(STATEMAP_RECIPIENT + c, 0);
	counted(STATEMAP_MESSAGE_DEFERRED, 0);
	counted(STATEMAP_MESSAGE_REJECTED, 0);
	assert_int_equal(statefile_current()->hook[0].event, HOOK_RCPT);
}

/* The alarm comes with the second complaint, and is recorded once. */
static void second_complaint(void **state)
{
	(void)state;
	make_map();
	to_ready(ONE, PLAIN);
	for (unsigned i = 0; i < 3; i++) {
		client("MAIL FROM:<a@b.test>");
		server("451 4.7.28 slow down");
		client("RSET");
		server("250 ok");
		if (i == 0)
			not_recorded("backoff");
	}
	assert_int_equal(slot()->detector.state, DETECTOR_THROTTLED);
	assert_string_equal(member_of("backoff", "from"), "\"ok\"");
	assert_string_equal(member_of("backoff", "to"), "\"throttled\"");
	assert_string_equal(member_of("backoff", "mode"), "\"observe\"");
	assert_string_equal(member_of("backoff", "why"), "\"replies\"");
	assert_string_equal(member_of("backoff", "score"), "162");
	assert_string_equal(member_of("backoff", "site"), "\"192.0.2.0/24\"");
	assert_string_equal(member_of("backoff", "class"), "\"throttle\"");
	assert_string_equal(member_of("backoff", "text"), "\"4.7.28 slow down\"");
	assert_int_equal(member_of("backoff", "until")[0], '"');
}

static void slow_354(void **state)
{
	(void)state;
	make_map();
	to_ready(ONE, PLAIN);
	for (unsigned i = 0; i < 20; i++) {
		client("MAIL FROM:<a@b.test>");
		server("250 ok");
		client("RCPT TO:<r@d.test>");
		server("250 ok");
		client("DATA");
		passes(i < 12 ? 0.3 : 5);
		server("354 go");
		client(MESSAGE);
		server("250 ok");
		assert_int_equal(slot()->detector.state, i < 14 ? DETECTOR_OK : DETECTOR_SLOW);
	}
	assert_string_equal(member_of("backoff", "why"), "\"time to 354\"");
	assert_string_equal(member_of("backoff", "until"), "null");
}

static void refusing_banner(void **state)
{
	(void)state;
	make_map();
	session_begins(ONE);
	server_connects();
	server("554 5.7.1 Your address 192.0.2.1 is on a blocklist");
	client("QUIT");
	counted(STATEMAP_CONNECT_BANNER, 1);
	counted(STATEMAP_CONNECT_OK, 0);
	counted(STATEMAP_REPLY + 2 * REPLY_AT_BANNER + 1, 1);
	assert_int_equal(slot()->detector.score, 162);
}

static void unreachable(int error, enum statemap_counter counter)
{
	session_begins(ONE);
	server_connect_fails(error);
	counted(counter, 1);
	counted(STATEMAP_CONNECT_OK, 0);
	counted(STATEMAP_CONNECT_BANNER, 0);
}

static void refused(void **state)
{
	(void)state;
	make_map();
	unreachable(ECONNREFUSED, STATEMAP_CONNECT_REFUSED);
}

static void no_route(void **state)
{
	(void)state;
	make_map();
	unreachable(EHOSTUNREACH, STATEMAP_CONNECT_UNREACHABLE);
}

static void times_out(void **state)
{
	(void)state;
	make_map();
	session_begins(ONE "--connect-timeout 20 ");
	passes(21);
	counted(STATEMAP_CONNECT_TIMEOUT, 1);
	counted(STATEMAP_CONNECT_BANNER, 0);
}

static void no_banner(void **state)
{
	(void)state;
	make_map();
	session_begins(ONE);
	server_connects();
	server_closes();
	counted(STATEMAP_CONNECT_BANNER, 1);
}

/* A name that was given counts, whatever the banner says; what it tells of the network stays known. */
static void named(void **state)
{
	char options[200], site[STATEMAP_SITE];

	(void)state;
	make_map();
	snprintf(providers, sizeof providers, "%s", file_of("big .big.test\n"));
	world_name("mx7.big.test", "192.0.2.25");
	snprintf(options, sizeof options, "--upstream mx7.big.test --tls none --providers %s", providers);
	session_begins(options);
	server_connects();
	server("220 mx.google.com ESMTP");
	client("QUIT");
	server("221 bye");
	site_is("big");
	assert_true(statemap_learnt(statefile_current(), "192.0.2.0/24", statefile_now(), site));
	assert_string_equal(site, "big");
}

static void known_network(void **state)
{
	(void)state;
	make_map();
	statemap_learn(statefile_current(), "192.0.2.0/24", "big", statefile_now());
	to_ready(ONE, PLAIN);
	client("QUIT");
	server("221 bye");
	site_is("big");
}

/* Without a map a session is what it was. */
static void without_map(void **state)
{
	(void)state;
	to_ready(ONE, PLAIN);
	client("QUIT");
	server("221 bye");
	assert_string_equal(member_of("close", "site"), "\"192.0.2.0/24\"");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepted),
		cmocka_unit_test(recipients_of_all_kinds),
		cmocka_unit_test(own_refusals),
		cmocka_unit_test(second_complaint),
		cmocka_unit_test(slow_354),
		cmocka_unit_test(refusing_banner),
		cmocka_unit_test(refused),
		cmocka_unit_test(no_route),
		cmocka_unit_test(times_out),
		cmocka_unit_test(no_banner),
		cmocka_unit_test(named),
		cmocka_unit_test(known_network),
		cmocka_unit_test(without_map),
	};

	return run_session_tests(tests);
}
