/* Upgrades whose next program hangs, or is about to take over when all is to end. */
#define _GNU_SOURCE
#include "test/lib/unit.h"

#include <sys/wait.h>
#include <time.h>

static time_t clock_now = 1000;

static void read_clock(struct timespec *now)
{
	*now = (struct timespec){ clock_now, 0 };
}

#define clock_gettime(clock, now) read_clock(now)
#define say say_over_link /* unit.h has one, too */
#include "../../upgrade.c" /* not this file, which has the same name */

static char told[FAULT_MAX];
static int candidate = -1; /* the end of the link that the next one has */
static unsigned started;

void fault(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(told, sizeof told, format, args);
	va_end(args);
}

void fault_asker(int link)
{
	(void)link;
}

void fault_die(int code, const char *format, ...)
{
	(void)format;
	exit(code);
}

int keeper_socket(void)
{
	return 0;
}

bool keeper_start_next(const int *descriptor, unsigned n)
{
	candidate = dup(descriptor[n - 1]);
	started++;
	return true;
}

static void begin(unsigned want)
{
	*told = 0;
	upgrade_begin(&(const int){ 0 }, 0);
	assert_int_equal(started, want);
}

static bool says(const char *word)
{
	return send(candidate, word, strlen(word), MSG_NOSIGNAL) > 0;
}

static void one_that_hangs_is_given_up_after_a_minute(void **state)
{
	int first;

	(void)state;
	begin(1);
	assert_string_equal(told, "");
	clock_now += CANDIDATE_SECONDS - 1;
	begin(1);
	assert_string_equal(told, "SIGUSR2: there is no upgrade: one is under way");
	first = candidate;
	clock_now++;
	begin(2);
	assert_non_null(strstr(told, "not ready within a minute"));
	assert_true(send(first, "READY=1", 7, MSG_NOSIGNAL) < 0); /* too late */
	close(first);
	assert_int_equal(upgrade_hear(), UPGRADE_NOTHING);
	assert_true(says("READY=1\nMAINPID=77"));
	assert_int_equal(upgrade_hear(), UPGRADE_DONE);
	assert_int_equal(upgrade_next(), 77);
	upgrade.pid = 0;
	shut(&upgrade.next);
	close(candidate);
}

static void all_ends_while_one_starts(void **state)
{
	(void)state;
	begin(3);
	upgrade_stop();
	assert_false(says("READY=1\nMAINPID=77"));
	assert_int_equal(upgrade_hear(), UPGRADE_NOTHING);
	close(candidate);
}

static void all_ends_just_when_one_is_ready(void **state)
{
	char word[40];
	int how = 0;
	pid_t pid = fork();

	(void)state;
	if (pid == 0)
		for (;;)
			pause();
	begin(4);
	snprintf(word, sizeof word, "READY=1\nMAINPID=%d", (int)pid);
	assert_true(says(word));
	upgrade_stop();
	assert_int_equal(waitpid(pid, &how, 0), pid);
	assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGTERM);
	assert_int_equal(upgrade_next(), 0);
	close(candidate);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_hangs_is_given_up_after_a_minute),
		cmocka_unit_test(all_ends_while_one_starts),
		cmocka_unit_test(all_ends_just_when_one_is_ready),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
