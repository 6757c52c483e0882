/* The dialer: requests and answers between a session and the process that connects for it. */
#define _GNU_SOURCE
#include "../../io/dialer.c"
#include "test/lib/lingering.h"

#include <sys/wait.h>

/* In the dialer. To 1 goes a connection that brings what this client has said; other numbers are nobody's. */
static int dial(int client, uint32_t which)
{
	int pair[2];
	char word[8] = "";

	errno = EHOSTUNREACH;
	if (which != 1 || recv(client, word, sizeof word - 1, MSG_DONTWAIT) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		return -1;
	send(pair[1], word, strlen(word), MSG_NOSIGNAL);
	close(pair[1]);
	return pair[0];
}

static int begin(void **state)
{
	sigset_t children;

	(void)state;
	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	sigprocmask(SIG_BLOCK, &children, NULL);
	return dialer_start(dial) ? 0 : -1;
}

static int end(void **state)
{
	(void)state;
	dialer_stop();
	return waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD ? 0 : -1;
}

static void connections(void **state)
{
	char word[8] = "";
	int pair[2], fd;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	for (unsigned times = 0; times < 3; times++) {
		assert_int_equal(send(pair[1], "hello", 5, 0), 5);
		fd = dialer_ask(pair[0], 1);
		assert_true(fd >= 0);
		memset(word, 0, sizeof word);
		assert_int_equal(recv(fd, word, sizeof word, 0), 5);
		assert_string_equal(word, "hello");
		assert_int_equal(recv(fd, word, sizeof word, 0), 0); /* nobody else holds its other end */
		close(fd);
	}
	assert_int_equal(dialer_ask(pair[0], 2), -1);
	assert_int_equal(errno, EHOSTUNREACH);
	close(pair[0]);
	close(pair[1]);
}

static void no_descriptor(void **state)
{
	(void)state;
	assert_int_equal(dialer_ask(-1, 1), -1);
	assert_int_equal(errno, EBADF);
}

/* Whoever asks may have been taken over. */
static void wrong_requests(void **state)
{
	const int descriptors[] = { 0, 1, 2 };
	uint64_t longer = 1;

	(void)state;
	assert_true(requests_pass(requests, &longer, 4, NULL, 0, 0));
	assert_true(requests_pass(requests, &longer, 4, descriptors, 3, 0));
	assert_true(requests_pass(requests, &longer, sizeof longer, descriptors, 2, 0));
	assert_true(requests_pass(requests, &longer, 1, descriptors, 2, 0));
	connections(NULL);
}

/* The dialer closes it last, and goes on. */
static void connection_that_lingers(void **state)
{
	int peer, fd = lingering(&peer);

	(void)state;
	held_up(dialer);
	for (unsigned i = 0; i < 3; i++)
		assert_true(requests_pass(requests, &(uint32_t){ 2 }, 4, (const int[]){ fd, fd }, 2, 0));
	close(fd);
	kill(dialer, SIGCONT);
	connections(NULL);
	close(peer);
}

/* There is no room for the last of so many descriptors: to receive the message closes it. */
static void connection_that_lingers_beyond_the_others(void **state)
{
	int peer, fd = lingering(&peer);

	(void)state;
	held_up(dialer);
	pass_among(requests, fd, REQUESTS_DESCRIPTORS + 1);
	kill(dialer, SIGCONT);
	connections(NULL);
	close(peer);
}

static void take_end(pid_t pid)
{
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_false(dialer_ended(getpid()));
	assert_true(dialer_ended(pid));
	assert_false(dialer_ended(pid));
	assert_false(dialer_is_there());
	assert_int_equal(dialer_ask(STDIN_FILENO, 1), -1);
	assert_int_equal(errno, EPERM);
	assert_true(dialer_start(dial));
	connections(NULL);
}

static void killed(void **state)
{
	(void)state;
	kill(dialer, SIGKILL);
	take_end(dialer);
}

static void way_that_is_shut(void **state)
{
	(void)state;
	assert_int_equal(shutdown(requests, SHUT_RDWR), 0);
	take_end(dialer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(connections), cmocka_unit_test(no_descriptor), cmocka_unit_test(wrong_requests), cmocka_unit_test(connection_that_lingers),
		cmocka_unit_test(connection_that_lingers_beyond_the_others), cmocka_unit_test(killed),
		cmocka_unit_test(way_that_is_shut),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
