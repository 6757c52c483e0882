/* Shares of what all processes of a user have together: who asks at the same time, who dies. The kernel is the real one. */
#define _GNU_SOURCE
#include "io/net.h"
#include "test/lib/unit.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES 8
#define ROUNDS 400

/* What the processes of a test have in common. */
static struct common {
	_Atomic uint64_t taken, most;
	_Atomic unsigned ready[ROUNDS], got[ROUNDS], done[ROUNDS];
} *common;

/* Each test in a network namespace of its own, where nobody else has shares. */
static int begin(void **state)
{
	(void)state;
	common = mmap(NULL, sizeof *common, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return common == MAP_FAILED ? -1 : unshare(CLONE_NEWNET);
}

static int end(void **state)
{
	(void)state;
	return munmap(common, sizeof *common);
}

static uint64_t taken(const char *what)
{
	uint64_t n = 12345;

	assert_true(net_shares(what, &n));
	return n;
}

static int take(uint64_t n, uint64_t all)
{
	int fd = net_take_share("unit", n, all);

	assert_true(fd >= 0 || errno == EAGAIN);
	return fd;
}

static void shares_add_up(void **state)
{
	int a, b;

	(void)state;
	assert_int_equal(taken("unit"), 0);
	a = take(6, 10);
	b = take(4, 10);
	assert_true(a >= 0 && b >= 0);
	assert_int_equal(taken("unit"), 10);
	assert_int_equal(taken("other"), 0);
	assert_int_equal(take(1, 10), -1);
	assert_int_equal(taken("unit"), 10);
	close(a);
	assert_int_equal(take(7, 10), -1);
	a = take(6, 10);
	assert_true(a >= 0);
	close(a);
	close(b);
	assert_int_equal(taken("unit"), 0);
}

static void large_shares(void **state)
{
	int a = take(UINT64_MAX - 1, UINT64_MAX);

	(void)state;
	assert_true(a >= 0);
	assert_int_equal(take(UINT64_MAX - 1, UINT64_MAX - 1), -1);
	assert_true(take(1, UINT64_MAX) >= 0);
	assert_true(taken("unit") == UINT64_MAX);
	assert_int_equal(take(11, 10), -1);
}

/* Run as this many processes, which end with status 0. */
static void in_processes(unsigned count, void (*run)(unsigned number))
{
	pid_t pid[PROCESSES];
	int status;

	for (unsigned i = 0; i < count; i++) {
		pid[i] = fork();
		if (pid[i])
			continue;
		run(i);
		_exit(0);
	}
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
		assert_int_equal(status, 0);
	}
}

static void take_and_give(unsigned number)
{
	uint64_t n = 1 + number % 4, have, most;

	for (unsigned i = 0; i < ROUNDS; i++) {
		int fd = net_take_share("unit", n, 7);

		if (fd < 0)
			continue;
		have = atomic_fetch_add(&common->taken, n) + n;
		most = atomic_load(&common->most);
		while (have > most && !atomic_compare_exchange_weak(&common->most, &most, have))
			;
		sched_yield();
		atomic_fetch_sub(&common->taken, n);
		close(fd);
	}
}

/* Whoever asks when, and is interrupted where. */
static void never_more_than_all(void **state)
{
	(void)state;
	in_processes(PROCESSES, take_and_give);
	assert_in_range(common->most, 4, 7);
	assert_int_equal(taken("unit"), 0);
}

static void wait_for_all(_Atomic unsigned *count)
{
	atomic_fetch_add(count, 1);
	while (atomic_load(count) < 2)
		sched_yield();
}

static void take_the_last(unsigned number)
{
	(void)number;
	for (unsigned i = 0; i < ROUNDS; i++) {
		int fd;

		wait_for_all(&common->ready[i]);
		fd = net_take_share("unit", 5, 8);
		atomic_fetch_add(&common->got[i], fd >= 0);
		wait_for_all(&common->done[i]);
		if (fd >= 0)
			close(fd);
		if (atomic_load(&common->got[i]) != 1)
			_exit(1);
	}
}

/* Two ask at once for what is there for one: one gets it. */
static void one_of_two_gets_it(void **state)
{
	(void)state;
	in_processes(2, take_the_last);
}

static void killed(unsigned number)
{
	(void)number;
	if (net_take_share("unit", 8, 8) >= 0)
		raise(SIGKILL);
}

static void killed_have_none(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (!pid)
		killed(0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_true(take(8, 8) >= 0);
}

static void take_as_nobody(unsigned number)
{
	(void)number;
	if (setuid(65534) || net_take_share("unit", 5, 8) < 0)
		_exit(1);
	atomic_fetch_add(&common->ready[0], 1);
	while (!atomic_load(&common->done[0]))
		sched_yield();
}

static void each_user_has_its_own(void **state)
{
	pid_t pid = fork();
	int status;

	(void)state;
	if (!pid) {
		take_as_nobody(0);
		_exit(0);
	}
	while (!atomic_load(&common->ready[0]) && waitpid(pid, &status, WNOHANG) == 0)
		sched_yield();
	assert_int_equal(common->ready[0], 1);
	assert_int_equal(taken("unit"), 0);
	assert_true(take(8, 8) >= 0);
	atomic_fetch_add(&common->done[0], 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(shares_add_up, begin, end),
		cmocka_unit_test_setup_teardown(large_shares, begin, end),
		cmocka_unit_test_setup_teardown(never_more_than_all, begin, end),
		cmocka_unit_test_setup_teardown(one_of_two_gets_it, begin, end),
		cmocka_unit_test_setup_teardown(killed_have_none, begin, end),
		cmocka_unit_test_setup_teardown(each_user_has_its_own, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
