/* System calls that are given up. Nothing is filtered here: what the filter does is test_sandbox.py's. */
#define _GNU_SOURCE
#include "io/passes.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void assert_all_work(void)
{
	int fd = passes_socket(AF_INET, SOCK_DGRAM, 0), six = passes_socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	assert_true(fd >= 0 && (six >= 0 || errno == EAFNOSUPPORT));
	assert_int_equal(passes_connect(fd, (const struct sockaddr *)&to, sizeof to), 0);
	assert_int_equal(passes_kill(getpid(), 0), 0);
	close(fd);
	if (six >= 0)
		close(six);
}

static void before(void **state)
{
	(void)state;
	assert_int_equal(passes_number(PASS_NETWORK), 0);
	passes_forget(PASS_NETWORK); /* there is nothing to forget */
	assert_true(passes_hold(PASS_NETWORK));
	assert_all_work();
}

static void drawn(void **state)
{
	(void)state;
	passes_draw();
	for (enum pass p = 0; p < PASSES; p++) {
		assert_true(passes_hold(p));
		assert_true(passes_number(p) > UINT32_MAX); /* of one number in four thousand millions this is not so */
	}
	assert_true(passes_number(PASS_LISTENER) != passes_number(PASS_NETWORK));
	assert_all_work();
}

static void child(void **state)
{
	pid_t pid = passes_fork();
	int how;

	(void)state;
	if (pid == 0) {
		passes_forget(PASS_LISTENER);
		_exit(passes_fork() == -1 && errno == EPERM && passes_kill(getppid(), 0) == -1 && errno == EPERM && passes_hold(PASS_NETWORK) ? 7 : 0);
	}
	assert_int_equal(waitpid(pid, &how, 0), pid);
	assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 7);
	assert_true(passes_hold(PASS_LISTENER)); /* here */
}

static void failures(void **state)
{
	const struct sockaddr_in to = { .sin_family = AF_INET };

	(void)state;
	assert_int_equal(passes_connect(-1, (const struct sockaddr *)&to, sizeof to), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(passes_kill(getpid(), 999), -1);
	assert_int_equal(errno, EINVAL);
}

static void forgotten(void **state)
{
	(void)state;
	passes_forget(PASS_NETWORK);
	assert_false(passes_hold(PASS_NETWORK));
	assert_int_equal(passes_number(PASS_NETWORK), 0);
	errno = 0;
	assert_int_equal(passes_socket(AF_INET, SOCK_STREAM, 0), -1);
	assert_int_equal(errno, EPERM);
	errno = 0;
	assert_int_equal(passes_connect(-1, NULL, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(close(passes_socket(AF_UNIX, SOCK_STREAM, 0)), 0); /* needs none */
}

int main(void)
{
	const struct CMUnitTest tests[] = { /* in this order: a number is drawn once, and not remembered */
		cmocka_unit_test(before), cmocka_unit_test(drawn), cmocka_unit_test(child), cmocka_unit_test(failures), cmocka_unit_test(forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
