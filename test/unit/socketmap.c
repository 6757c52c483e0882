/* Servers of maps: how they are written, what is asked and what is a reply; and a client over real sockets, whose server is the test. */
#define _GNU_SOURCE
#include "io/socketmap.h"
#include "test/lib/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SECOND 1000000

static void servers(void **state)
{
	static const char *const good[][2] = {
		{ "unix:/run/map.sock:postfix", "unix /run/map.sock postfix" },
		{ "unix:/run/a:b:QUERY", "unix /run/a:b QUERY" },
		{ "inet:127.0.0.1:8461:postfix", "127.0.0.1 8461 postfix" },
		{ "inet:[::1]:8461:postfix", "::1 8461 postfix" },
	};
	static const char usage[] = "takes socketmap:unix:PATH:NAME or socketmap:inet:ADDRESS:PORT:NAME";
	static const char inet[] = "takes socketmap:inet:ADDRESS:PORT:NAME, with an IPv6 address in brackets";
	static const char name[] = "takes the name of a map at its end, 1 to 63 octets without blanks";
	static const char path_needed[] = "takes a socket's path that begins with / and has 107 octets at most";
	static const char *const bad[][2] = {
		{ "", usage },
		{ "unix", usage },
		{ "unix:", usage },
		{ "unix:/run/map.sock", usage },
		{ "tcp:127.0.0.1:8461:postfix", usage },
		{ "unix:/run/map.sock:", name },
		{ "unix:/run/map.sock:0123456789012345678901234567890123456789012345678901234567890123", name },
		{ "unix:/run/map.sock:a b", name },
		{ "unix:run/map.sock:a", path_needed },
		{ "unix::a", path_needed },
		{ "inet:127.0.0.1:8461", inet },
		{ "inet:127.0.0.1:0:a", inet },
		{ "inet:127.0.0.1:65536:a", inet },
		{ "inet:localhost:8461:a", inet },
		{ "inet:::1:8461:a", inet },
		{ "inet::8461:a", inet },
		{ "inet:*:8461:a", inet },
	};
	struct socketmap m;
	char path[200] = "unix:/", said[300], address[NET_TEXT];

	(void)state;
	for (size_t i = 0; i < COUNT(good); i++) {
		expect_text(good[i][0], socketmap_parse(&m, good[i][0]) ? "bad" : "", "");
		if (m.address.sa.sa_family == AF_UNIX)
			snprintf(said, sizeof said, "unix %s %s", m.path, m.name);
		else
			snprintf(said, sizeof said, "%s %u %s", net_text(&m.address, address), net_port(&m.address), m.name);
		expect_text(good[i][0], said, good[i][1]);
	}
	for (size_t i = 0; i < COUNT(bad); i++)
		expect_text(bad[i][0], socketmap_parse(&m, bad[i][0]), bad[i][1]);
	memset(path + 6, 'x', 106);
	strcpy(path + 112, ":n");
	assert_null(socketmap_parse(&m, path));
	strcpy(path + 112, "x:n");
	assert_non_null(socketmap_parse(&m, path));
}

static void questions(void **state)
{
	char out[SOCKETMAP_QUESTION + 1], key[SOCKETMAP_QUESTION] = "";
	struct socketmap m;

	(void)state;
	assert_null(socketmap_parse(&m, "unix:/s:QUERYwithTLSRPT"));
	out[socketmap_ask(&m, "Example.ORG", out)] = 0;
	expect_text("question", out, "27:QUERYwithTLSRPT example.org,");
	memset(key, 'k', SOCKETMAP_QUESTION - sizeof "400:QUERYwithTLSRPT ,");
	assert_int_equal(socketmap_ask(&m, key, out), SOCKETMAP_QUESTION - 1);
	strcat(key, "k");
	assert_int_equal(socketmap_ask(&m, key, out), 0);
}

static const char *judged(const char *in, size_t n)
{
	static const char *const names[] = { "more", "found", "nothing", "failed", "bad" };
	static char said[200];
	const char *text = "";
	size_t len = 0;
	enum socketmap_result result = socketmap_read((const char *)guarded(in, n), n, &text, &len);
	bool has_text = result == SOCKETMAP_FOUND || result == SOCKETMAP_FAILED;

	snprintf(said, sizeof said, "%s%s%.*s", names[result], has_text ? ": " : "", has_text ? (int)len : 0, text);
	return said;
}

static void replies(void **state)
{
	static const char *const known[][2] = {
		{ "6:OK may,", "found: may" },
		{ "22:OK secure match=a.test,", "found: secure match=a.test" },
		{ "9:NOTFOUND ,", "nothing" },
		{ "8:NOTFOUND,", "nothing" },
		{ "11:TEMP reason,", "failed: TEMP reason" },
		{ "8:TIMEOUT ,", "failed: TIMEOUT " },
		{ "4:PERM,", "failed: PERM" },
		{ "3:OK ,", "bad" },
		{ "2:OK,", "bad" },
		{ "6:ok may,", "bad" },
		{ "5:OKmay,", "bad" },
		{ "10:NOTFOUNDED,", "bad" },
		{ "0:,", "bad" },
		{ "7:nothing,", "bad" },
		{ "06:OK may,", "bad" },
		{ ":OK may,", "bad" },
		{ "6 OK may,", "bad" },
		{ "-6:OK may,", "bad" },
		{ "6:OK may;", "bad" },
		{ "6:OK may,x", "bad" },
		{ "100001", "bad" },
		{ "99999999999999999999999999999999", "bad" },
		{ "100000", "more" },
		{ "", "more" },
		{ "6", "more" },
		{ "6:", "more" },
		{ "6:OK may", "more" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++)
		expect_text(known[i][0], judged(known[i][0], strlen(known[i][0])), known[i][1]);
}

/* ---- over sockets ---- */

static struct socketmap_query q;
static struct socketmap map;
static int listener;
static char dir[] = "/tmp/socketmap.XXXXXX", spec[120];

static int listen_unix(void **state)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };

	(void)state;
	strcpy(dir + sizeof dir - 7, "XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(name.sun_path, sizeof name.sun_path, "%s/s", dir);
	snprintf(spec, sizeof spec, "unix:%s:map", name.sun_path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (socketmap_parse(&map, spec))
		return -1;
	return bind(listener, (const struct sockaddr *)&name, sizeof name) < 0 || listen(listener, 0) < 0 ? -1 : 0;
}

static int remove_unix(void **state)
{
	(void)state;
	close(listener);
	socketmap_stop(&q);
	unlink(map.path);
	return rmdir(dir);
}

static int listen_inet(void **state)
{
	union net_address a;
	socklen_t size = sizeof a;

	(void)state;
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (!net_parse("127.0.0.1", 0, &a) || bind(listener, &a.sa, net_size(&a)) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, &a.sa, &size) < 0)
		return -1;
	snprintf(spec, sizeof spec, "inet:127.0.0.1:%u:map", net_port(&a));
	return socketmap_parse(&map, spec) ? -1 : 0;
}

static int close_inet(void **state)
{
	(void)state;
	socketmap_stop(&q);
	return close(listener);
}

/* Until the query waits for something that is not there. The kernel passes on at once what one end of a local socket has sent. */
static void turn(int64_t now)
{
	struct pollfd p;

	while (socketmap_watch(&q, &p) && poll(&p, 1, 0) > 0)
		socketmap_turn(&q, now);
}

/* The server's end, once it has the question. */
static int asked(void)
{
	struct pollfd p = { .fd = listener, .events = POLLIN };
	char in[100] = "";
	int fd;

	assert_int_equal(poll(&p, 1, 10000), 1);
	turn(0);
	fd = accept(listener, NULL, NULL);
	assert_true(fd >= 0);
	p.fd = fd;
	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_int_equal(recv(fd, in, sizeof in - 1, 0), 19);
	expect_text("question", in, "15:map example.org,");
	return fd;
}

static void start(void)
{
	socketmap_start(&q, &map, "Example.org", 0, 5 * SECOND);
	assert_int_equal(socketmap_deadline(&q), 5 * SECOND);
}

/* The whole reply, and an octet at a time. */
static void found(void **state)
{
	static const char reply[] = "22:OK secure match=a.test,";
	int fd;

	(void)state;
	for (size_t piece = 1; piece < sizeof reply; piece += sizeof reply - 2) {
		start();
		fd = asked();
		for (size_t at = 0; at < sizeof reply - 1; at += piece) {
			assert_int_equal(q.state, SOCKETMAP_RUNNING);
			assert_int_equal(send(fd, reply + at, piece, 0), piece);
			while (q.got < at + piece && q.state == SOCKETMAP_RUNNING)
				turn(0);
		}
		assert_int_equal(q.state, SOCKETMAP_DONE);
		assert_int_equal(q.result, SOCKETMAP_FOUND);
		assert_int_equal(q.text_len, 19);
		assert_memory_equal(q.text, "secure match=a.test", 19);
		expect_text("failure", q.failure, "");
		assert_int_equal(socketmap_deadline(&q), INT64_MAX);
		assert_int_equal(recv(fd, &(char){ 0 }, 1, 0), 0); /* the client has closed */
		close(fd);
	}
}

static void failures(void **state)
{
	static const char *const known[][2] = {
		{ "9:NOTFOUND ,", "" },
		{ "14:TEMP try later,", "TEMP try later" },
		{ "6:OK may,6:OK may,", "the map's server: the reply is malformed" },
		{ "HTTP/1.0 400\r\n", "the map's server: the reply is malformed" },
		{ "6:OK", "the map's server: the connection ended before the reply" },
		{ "", "the map's server: the connection ended before the reply" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++) {
		int fd;

		start();
		fd = asked();
		assert_int_equal(send(fd, known[i][0], strlen(known[i][0]), 0), strlen(known[i][0]));
		close(fd);
		while (q.state == SOCKETMAP_RUNNING)
			turn(0);
		assert_true((q.result == SOCKETMAP_NOTHING) == !i);
		expect_text(known[i][0], q.failure, known[i][1]);
	}
}

/* As much as the protocol allows, and an octet more. */
static void long_replies(void **state)
{
	static char reply[SOCKETMAP_REPLY + 1];
	size_t head, sent;
	int fd;

	(void)state;
	for (size_t more = 0; more < 2; more++) {
		head = (size_t)sprintf(reply, "%zu:OK ", 100000 + more);
		memset(reply + head, 'x', sizeof reply - head);
		reply[SOCKETMAP_REPLY - 1 + more] = ',';
		start();
		fd = asked();
		for (sent = 0; q.state == SOCKETMAP_RUNNING && sent < SOCKETMAP_REPLY + more; turn(0)) {
			ssize_t n = send(fd, reply + sent, SOCKETMAP_REPLY + more - sent, MSG_DONTWAIT | MSG_NOSIGNAL);

			sent += n > 0 ? (size_t)n : 0;
		}
		while (q.state == SOCKETMAP_RUNNING)
			turn(0);
		expect_text("result", q.failure, more ? "the map's server: the reply is malformed" : "");
		assert_int_equal(q.result, more ? SOCKETMAP_BAD : SOCKETMAP_FOUND);
		assert_true(more || q.text_len == 99997);
		close(fd);
	}
}

/* A reply that cannot be shown in full, and what is no text. */
static void hostile(void **state)
{
	char reply[400] = "300:PERM ";
	int fd;

	(void)state;
	memset(reply + 9, '\xff', 295);
	reply[304] = ',';
	start();
	fd = asked();
	assert_int_equal(send(fd, reply, 305, 0), 305);
	while (q.state == SOCKETMAP_RUNNING)
		turn(0);
	assert_int_equal(q.result, SOCKETMAP_FAILED);
	assert_int_equal(strlen(q.failure), SOCKETMAP_FAILURE - 1);
	close(fd);
}

static void silence(void **state)
{
	struct pollfd p;
	int fd;

	(void)state;
	start();
	fd = asked();
	socketmap_turn(&q, 5 * SECOND - 1);
	assert_int_equal(q.state, SOCKETMAP_RUNNING);
	socketmap_turn(&q, 5 * SECOND);
	assert_int_equal(q.state, SOCKETMAP_DONE);
	expect_text("late", q.failure, "the map's server: no reply in time");
	assert_int_equal(socketmap_watch(&q, &p), 0);
	close(fd);
	start();
	socketmap_stop(&q);
	expect_text("stopped", q.failure, "the map's server: not asked to the end");
}

static void nobody(void **state)
{
	(void)state;
	close(listener);
	socketmap_start(&q, &map, "example.org", 0, SECOND);
	while (q.state == SOCKETMAP_RUNNING)
		turn(0);
	expect_text("nobody", q.failure, "the map's server: Connection refused");
	listener = -1;
}

static void too_long(void **state)
{
	char key[SOCKETMAP_QUESTION];

	(void)state;
	memset(key, 'k', sizeof key - 1);
	key[sizeof key - 1] = 0;
	socketmap_start(&q, &map, key, 0, SECOND);
	assert_int_equal(q.state, SOCKETMAP_DONE);
	expect_text("long", q.failure, "the map's server: the name is too long");
}

/* A server that is slow to accept: the connection is tried again. */
static void crowded(void **state)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int first = socket(AF_UNIX, SOCK_STREAM, 0), fd;

	(void)state;
	strcpy(name.sun_path, map.path);
	assert_int_equal(connect(first, (const struct sockaddr *)&name, sizeof name), 0);
	socketmap_start(&q, &map, "example.org", 0, 5 * SECOND);
	assert_int_equal(q.state, SOCKETMAP_RUNNING);
	assert_int_equal(socketmap_watch(&q, &(struct pollfd){ 0 }), 0);
	assert_true(socketmap_deadline(&q) > 0 && socketmap_deadline(&q) < SECOND);
	socketmap_turn(&q, socketmap_deadline(&q));
	assert_int_equal(socketmap_watch(&q, &(struct pollfd){ 0 }), 0);
	close(accept(listener, NULL, NULL));
	socketmap_turn(&q, socketmap_deadline(&q));
	fd = asked();
	assert_int_equal(socketmap_deadline(&q), 5 * SECOND);
	close(fd);
	close(first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(servers),
		cmocka_unit_test(questions),
		cmocka_unit_test(replies),
		cmocka_unit_test_setup_teardown(found, listen_unix, remove_unix),
		cmocka_unit_test_setup_teardown(failures, listen_unix, remove_unix),
		cmocka_unit_test_setup_teardown(long_replies, listen_unix, remove_unix),
		cmocka_unit_test_setup_teardown(hostile, listen_unix, remove_unix),
		cmocka_unit_test_setup_teardown(silence, listen_unix, remove_unix),
		cmocka_unit_test_setup_teardown(nobody, listen_unix, remove_unix),
		cmocka_unit_test_setup_teardown(too_long, listen_unix, remove_unix),
		cmocka_unit_test_setup_teardown(crowded, listen_unix, remove_unix),
		{ "found, TCP", found, listen_inet, close_inet, NULL },
		{ "failures, TCP", failures, listen_inet, close_inet, NULL },
		{ "silence, TCP", silence, listen_inet, close_inet, NULL },
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
