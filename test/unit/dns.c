/* Queries for what a server has validated, over sockets on loopback where the test is the server: their octets, whose word counts, a server
 * that cannot read them. The answers themselves are in dnsmessage.c; the clock is the test's. */
#include "test/lib/unit.h"
#include "test/lib/played_server.h"

#include "io/dns.h"

#include <poll.h>
#include <unistd.h>

#define PATIENCE 4000000
#define AD 0x20

static int server;
static struct dns_servers servers;
static struct dns_query query;
static unsigned char got[512];
static size_t got_len, question_len;

/* Bind the server; the query goes to this address, of this host. */
static void begin(const char *address, bool trusted)
{
	union net_address a;

	server = play_server(&a);
	servers.count = 1;
	servers.trusted = trusted;
	assert_true(net_parse(address, net_port(&a), &servers.server[0]));
}

static void finish(void)
{
	dns_stop(&query);
	close(server);
}

/* Receive a query, and answer it with these flags (octets 2 and 3), and so many addresses. */
static void serve(unsigned flags, unsigned count)
{
	static const unsigned char record[] = { 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1 };
	unsigned char answer[512];
	union net_address from;
	socklen_t from_len = sizeof from;
	ssize_t n = recvfrom(server, got, sizeof got, 0, &from.sa, &from_len);
	size_t len;

	assert_true(n > 12);
	got_len = (size_t)n;
	question_len = 12 + 14 + 4;
	len = question_len;
	memcpy(answer, got, len);
	dns_put16(answer + 2, flags);
	dns_put16(answer + 6, count);
	dns_put16(answer + 10, 0);
	for (unsigned i = 0; i < count; i++, len += sizeof record)
		memcpy(answer + len, record, sizeof record);
	assert_int_equal(sendto(server, answer, len, 0, &from.sa, from_len), len);
}

static void turn(void)
{
	struct pollfd p;

	assert_int_equal(dns_watch(&query, &p), 1);
	assert_int_equal(poll(&p, 1, 10000), 1);
	dns_turn(&query, 1);
}

/* Ask for the address of "mail.example", whose answer has these flags. */
static bool believed(const char *address, bool trusted, bool authentic, unsigned flags, unsigned count)
{
	begin(address, trusted);
	(authentic ? dns_start_authentic : dns_start)(&query, &servers, "mail.example", DNS_A, 0, PATIENCE);
	serve(flags, count);
	turn();
	assert_int_equal(query.state, DNS_DONE);
	assert_null(query.failure);
	assert_int_equal(query.result, count ? DNS_FOUND : DNS_NOTHING);
	finish();
	return query.answer.authentic;
}

/* A server that is not at a loopback address must be trusted by name; a query that does not ask for it gets no such word. 0.0.0.0, which
 * leads to this host, stands for a server elsewhere. */
static void whose_word_counts(void **state)
{
	(void)state;
	for (unsigned count = 0; count < 2; count++) {
		assert_true(believed("127.0.0.1", false, true, 0x8180 | AD, count));
		assert_true(believed("127.0.0.1", true, true, 0x8180 | AD, count));
		assert_false(believed("127.0.0.1", true, true, 0x8180, count));
		assert_false(believed("127.0.0.1", true, false, 0x8180 | AD, count));
		assert_false(believed("0.0.0.0", false, true, 0x8180 | AD, count));
		assert_true(believed("0.0.0.0", true, true, 0x8180 | AD, count));
		assert_false(believed("0.0.0.0", true, true, 0x8180, count));
	}
}

static void octets_of_queries(void **state)
{
	unsigned char want[DNS_QUERY];
	size_t n;

	(void)state;
	for (unsigned authentic = 0; authentic < 2; authentic++) {
		believed("127.0.0.1", false, authentic, 0x8180, 1);
		n = dns_ask((uint16_t)dns_get16(got), "mail.example", DNS_A, want);
		assert_int_equal(n, question_len);
		n = authentic ? dns_extend(want, n) : n;
		assert_int_equal(got_len, n);
		assert_memory_equal(got, want, n);
	}
}

/* It is asked once more, without what it may not know. Whatever else it says, nothing is left out. */
static void server_that_cannot_read(void **state)
{
	(void)state;
	for (unsigned rcode = 1; rcode <= 2; rcode++) {
		begin("127.0.0.1", false);
		dns_start_authentic(&query, &servers, "mail.example", DNS_A, 0, PATIENCE);
		serve(0x8180 | rcode, 0);
		turn();
		assert_int_equal(query.state, DNS_RUNNING);
		serve(0x8180 | AD, 1);
		assert_int_equal(got_len, rcode == 1 ? question_len : question_len + 11);
		assert_int_equal(got[3], AD);
		assert_int_equal(dns_get16(got + 10), rcode == 2);
		turn();
		assert_true(query.state == DNS_DONE && !query.failure && query.answer.authentic);
		finish();
	}
}

/* As often as any server is asked that fails. */
static void server_that_can_read_nothing(void **state)
{
	unsigned asked = 0;

	(void)state;
	for (unsigned authentic = 0; authentic < 2; authentic++, asked = 0) {
		begin("127.0.0.1", false);
		(authentic ? dns_start_authentic : dns_start)(&query, &servers, "mail.example", DNS_A, 0, PATIENCE);
		for (; query.state == DNS_RUNNING; asked++) {
			serve(0x8181, 0);
			turn();
		}
		assert_int_equal(asked, 4);
		assert_string_equal(query.failure, "the server failed");
		assert_false(query.answer.authentic);
		finish();
	}
}

/* Turn the query, and say which of two servers it is sent to: 0 or 1; -1: it is over. That one says that it failed. */
static int asked(const int fd[2])
{
	for (int i = 0; i < 2; i++) {
		struct pollfd p = { .fd = fd[i], .events = POLLIN };

		if (query.state != DNS_RUNNING || poll(&p, 1, 0) != 1)
			continue;
		server = fd[i];
		serve(0x8182, 0);
		turn();
		return i;
	}
	return -1;
}

/* Whoever keeps the word of one that counts from us must not gain by one whose word does not. */
static void server_whose_word_does_not_count(void **state)
{
	static const struct {
		const char *address[2];
		bool trusted, authentic;
		int want[4];
	} rows[] = {
		{ { "127.0.0.1", "0.0.0.0" }, false, true, { 0, 0, 0, 0 } },
		{ { "0.0.0.0", "127.0.0.1" }, false, true, { 1, 1, 1, 1 } },
		{ { "127.0.0.1", "127.0.0.1" }, false, true, { 0, 1, 0, 1 } },
		{ { "127.0.0.1", "0.0.0.0" }, true, true, { 0, 1, 0, 1 } },
		{ { "0.0.0.0", "0.0.0.0" }, false, true, { 0, 1, 0, 1 } }, /* none counts */
		{ { "127.0.0.1", "0.0.0.0" }, false, false, { 0, 1, 0, 1 } },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		int fd[2];

		for (int j = 1; j >= 0; j--) {
			begin(rows[i].address[j], rows[i].trusted);
			servers.server[j] = servers.server[0];
			fd[j] = server;
		}
		servers.count = 2;
		(rows[i].authentic ? dns_start_authentic : dns_start)(&query, &servers, "mail.example", DNS_A, 0, PATIENCE);
		for (int j = 0; j < 4; j++)
			assert_int_equal(asked(fd), rows[i].want[j]);
		assert_int_equal(query.state, DNS_DONE);
		assert_string_equal(query.failure, "the server failed");
		finish();
		close(server == fd[0] ? fd[1] : fd[0]);
	}
}

static void no_name(void **state)
{
	(void)state;
	begin("127.0.0.1", false);
	dns_start_authentic(&query, &servers, "..", DNS_A, 0, PATIENCE);
	assert_int_equal(query.state, DNS_DONE);
	assert_string_equal(query.failure, "no name");
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(whose_word_counts), cmocka_unit_test(octets_of_queries),
		cmocka_unit_test(server_that_cannot_read), cmocka_unit_test(server_that_can_read_nothing),
		cmocka_unit_test(server_whose_word_does_not_count), cmocka_unit_test(no_name) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
