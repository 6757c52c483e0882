/* The keeper: brokers that come again, and the next program, which is this test once more. */
#define _GNU_SOURCE
#include "test/lib/unit.h"

#include "io/broker.h"
#include "io/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE 200000 /* microseconds */
#define WAIT_MS 120000

static pid_t keeper;

static bool allows(const char *path)
{
	return strcmp(path, "/bin/true") == 0;
}

static void wait_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
}

static struct keeper_news next_news(void)
{
	struct keeper_news news;

	do {
		wait_readable(keeper_socket());
		news = keeper_take();
	} while (news.what == KEEPER_NOTHING);
	return news;
}

static void hook_runs(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), channel = broker_run("/bin/true", (const int[]){ null, null, null, -1 });
	struct broker_news news;

	assert_true(channel >= 0);
	wait_readable(channel);
	news = broker_take(channel);
	assert_int_equal(news.how, BROKER_EXITED);
	assert_int_equal(news.value, 0);
	broker_end(channel, false);
	close(null);
}

/* The only child of this process; 0: it has none. */
static pid_t child_of(pid_t pid)
{
	char path[64], text[32] = "";
	int fd;

	snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, text, sizeof text - 1) < 0)
		text[0] = 0;
	if (fd >= 0)
		close(fd);
	return (pid_t)strtol(text, NULL, 10);
}

/* Requests made before there is one wait for it. */
static void a_broker_comes_when_it_is_wanted(void **state)
{
	(void)state;
	assert_int_equal(child_of(keeper), 0);
	keeper_want_broker();
	hook_runs();
	assert_true(child_of(keeper) > 0);
	keeper_want_broker(); /* there is one */
	hook_runs();
	assert_int_equal(keeper_take().what, KEEPER_NOTHING);
}

static void a_broker_that_is_killed_comes_again(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		pid_t broker = child_of(keeper);
		struct keeper_news news;

		assert_int_equal(kill(broker, SIGKILL), 0);
		news = next_news();
		assert_int_equal(news.what, KEEPER_BROKER_ENDED);
		assert_true(WIFSIGNALED(news.value) && WTERMSIG(news.value) == SIGKILL);
		hook_runs();
		assert_true(child_of(keeper) != broker);
	}
}

/* What the next program finds, as it says over the link. */
static void next_gets_what_it_needs(void **state)
{
	char text[300];
	int pair[2], pipes[2][2];
	ssize_t n;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(pipe2(pipes[0], O_CLOEXEC), 0);
	assert_int_equal(pipe2(pipes[1], O_CLOEXEC), 0);
	assert_true(keeper_start_next((const int[]){ pipes[0][1], pipes[1][1], pair[1] }, 3));
	close(pair[1]);
	close(pipes[0][1]);
	close(pipes[1][1]);
	wait_readable(pair[0]);
	n = recv(pair[0], text, sizeof text - 1, 0);
	assert_true(n > 0);
	text[n] = 0;
	assert_string_equal(text, "as it was called, once more; its own 1, FDS 2, LINK 5, NOTIFY @notify, blocked 0, ignored 0, open 0 1 2 3 4 5");
	for (int i = 0; i < 2; i++) { /* they were written to, each by its number, and nobody else holds them */
		assert_int_equal(read(pipes[i][0], text, sizeof text), 1);
		assert_int_equal(text[0], '3' + i);
		assert_int_equal(read(pipes[i][0], text, sizeof text), 0);
		close(pipes[i][0]);
	}
	assert_int_equal(recv(pair[0], text, sizeof text, 0), 0);
	close(pair[0]);
	assert_int_equal(keeper_take().what, KEEPER_NOTHING);
	hook_runs();
}

static void ends_with_its_listener(void **state)
{
	(void)state;
	keeper_stop(keeper);
	assert_int_equal(waitpid(keeper, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

/* ---- the next program ---- */

static void list_descriptors(char text[40])
{
	size_t n = 0;

	text[0] = 0;
	for (int fd = 0; fd < 100; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			n += (size_t)snprintf(text + n, 40 - n, "%s%d", n ? " " : "", fd);
}

static int be_next(char **argv)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS"), *link = getenv(KEEPER_LINK), *notify = getenv("NOTIFY_SOCKET");
	char text[300], open_now[40];
	struct sigaction action;
	unsigned blocked = 0, ignored = 0;
	sigset_t mask;

	sigprocmask(SIG_BLOCK, NULL, &mask);
	for (int number = 1; number < 32; number++) {
		blocked += sigismember(&mask, number) == 1;
		ignored += sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
	}
	list_descriptors(open_now);
	if (write(3, "3", 1) != 1 || write(4, "4", 1) != 1 || !pid || !fds || !notify)
		return 1;
	snprintf(text, sizeof text, "%s, %s; its own %d, FDS %s, LINK %s, NOTIFY %s, blocked %u, ignored %u, open %s", argv[0], argv[1],
	    strtol(pid, NULL, 10) == getpid(), fds, link, notify, blocked, ignored, open_now);
	return send((int)strtol(link, NULL, 10), text, strlen(text), 0) < 0;
}

int main(int argc, char **argv)
{
	static char *again[] = { (char *)(uintptr_t)"as it was called", (char *)(uintptr_t)"once more", NULL };
	const struct keeper_task task = { .allows = allows, .patience = PATIENCE, .argv = again, .notify = "@notify" };
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_broker_comes_when_it_is_wanted),
		cmocka_unit_test(a_broker_that_is_killed_comes_again),
		cmocka_unit_test(next_gets_what_it_needs),
		cmocka_unit_test(ends_with_its_listener),
	};
	sigset_t blocked;

	if (argc > 1)
		return be_next(argv);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGCHLD);
	sigaddset(&blocked, SIGTERM);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	signal(SIGPIPE, SIG_IGN);
	if ((keeper = keeper_start(&task, false)) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
