/* The keeper. See keeper.h for the contract. */
#define _GNU_SOURCE
#include "io/keeper.h"

#include "io/broker.h"
#include "io/companion.h"
#include "io/requests.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#define PASSED_FROM 3 /* sd_listen_fds(3) */
#define AGAIN_MS 1000 /* until a broker that could not be started is tried again */

extern char **environ;

/* What the listener says. */
enum { WORD_BROKER = 'b', WORD_NEXT = 'n' };

_Static_assert(KEEPER_PASSED <= REQUESTS_DESCRIPTORS, "a message has room for them");

/* ---- the listener's side ---- */

static int keeper = -1;

int keeper_socket(void)
{
	return keeper;
}

void keeper_leave(void)
{
	if (keeper >= 0)
		close(keeper);
}

void keeper_stop(pid_t pid)
{
	keeper_leave();
	broker_stop(pid);
}

struct keeper_news keeper_take(void)
{
	struct keeper_news news;
	int descriptor[REQUESTS_DESCRIPTORS];
	unsigned n;
	bool whole;
	ssize_t len = requests_receive(keeper, &news, sizeof news, descriptor, &n, &whole);

	if (n)
		broker_use(descriptor[0]);
	if (len == sizeof news)
		return news;
	if (len < 0 && (errno == EAGAIN || errno == EINTR))
		return (struct keeper_news){ .what = KEEPER_NOTHING };
	keeper_leave();
	keeper = -1;
	return (struct keeper_news){ .what = KEEPER_GONE };
}

static bool say(char word, const int *descriptor, unsigned n)
{
	return requests_pass(keeper, &word, 1, descriptor, n, MSG_DONTWAIT);
}

void keeper_want_broker(void)
{
	say(WORD_BROKER, NULL, 0);
}

bool keeper_start_next(const int *descriptor, unsigned n)
{
	return say(WORD_NEXT, descriptor, n);
}

/* ---- the keeper's side ---- */

enum { CONTROL, REQUESTS = PASSED_FROM }; /* descriptors of the keeper */

static struct {
	struct keeper_task task;
	bool hooks;
	pid_t broker; /* 0: there is none */
} k;

static void tell_with(enum keeper_word what, int32_t value, const int *descriptor, unsigned n)
{
	struct keeper_news news;

	memset(&news, 0, sizeof news);
	news.what = what;
	news.value = value;
	requests_pass(CONTROL, &news, sizeof news, descriptor, n, MSG_DONTWAIT);
}

static void tell(enum keeper_word what, int32_t value)
{
	tell_with(what, value, NULL, 0);
}

static void start_broker(void)
{
	if (!k.hooks || k.broker)
		return;
	k.broker = broker_fork(REQUESTS, k.task.allows, k.task.patience);
	if (k.broker < 0)
		tell(KEEPER_NO_BROKER, errno);
	k.broker = k.broker < 0 ? 0 : k.broker;
}

/* A session has shut the socket that all share, shutdown(2), so nobody can ask any more. The broker goes on with what it runs, and ends;
 * sessions to come have another one, and another socket. */
static void renew_requests(void)
{
	int pair[2];

	if (requests_pair(pair) < 0)
		return;
	dup3(pair[1], REQUESTS, O_CLOEXEC);
	close(pair[1]);
	tell_with(KEEPER_SHUT, 0, pair, 1);
	close(pair[0]);
	k.broker = 0;
}

static void reap(void)
{
	pid_t pid;
	int how;

	while ((pid = waitpid(-1, &how, WNOHANG)) > 0)
		if (pid == k.broker) {
			k.broker = 0;
			tell(KEEPER_BROKER_ENDED, how);
		}
}

static void set_number(const char *name, long value)
{
	char text[24];

	snprintf(text, sizeof text, "%ld", value);
	setenv(name, text, true);
}

/* Signals as a program finds them that nobody has told otherwise. */
static void reset_signals(void)
{
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Descriptors on their way to a place may have the number of one that is still to come. */
static void place(int *descriptor, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		descriptor[i] = fcntl(descriptor[i], F_DUPFD_CLOEXEC, PASSED_FROM + KEEPER_PASSED);
	for (unsigned i = 0; i < n; i++)
		dup2(descriptor[i], PASSED_FROM + (int)i);
}

static _Noreturn void become_next(int *descriptor, unsigned n)
{
	const char *path = (const char *)getauxval(AT_EXECFN); /* the file, even if argv[0] is another name */
	int link, null = open("/dev/null", O_RDWR | O_CLOEXEC);
	char why[200];

	place(descriptor, n);
	link = PASSED_FROM + (int)n - 1;
	if (null >= 0)
		dup2(null, STDIN_FILENO);
	else
		close(STDIN_FILENO);
	set_number("LISTEN_PID", getpid());
	set_number("LISTEN_FDS", n - 1);
	set_number(KEEPER_LINK, link);
	if (k.task.notify)
		setenv("NOTIFY_SOCKET", k.task.notify, true);
	broker_unlimit();
	reset_signals();
	execv(path, k.task.argv);
	snprintf(why, sizeof why, "%.150s: %s", path, strerror(errno));
	send(link, why, strlen(why), MSG_NOSIGNAL);
	_exit(EX_OSERR);
}

/* It is nobody's child, so that a service manager may take it for its own: systemd watches only those. */
static void start_next(int *descriptor, unsigned n)
{
	pid_t pid = companion_fork("smtpwarp");
	int how = 0, error = pid < 0 ? errno : 0;

	if (pid == 0) {
		pid = _Fork();
		if (pid == 0)
			become_next(descriptor, n);
		_exit(pid < 0 ? errno : 0);
	}
	if (pid > 0)
		waitpid(pid, &how, 0);
	if (error || how)
		tell(KEEPER_NOT_STARTED, error ? error : WEXITSTATUS(how));
}

/* The listener has ended. The broker does once sessions have, which may be there still if the listener was killed. */
static _Noreturn void end(void)
{
	close(REQUESTS);
	if (k.broker)
		broker_stop(k.broker);
	_exit(EX_OK);
}

static void listen_to_listener(void)
{
	char word = 0;
	int descriptor[REQUESTS_DESCRIPTORS];
	unsigned n;
	bool whole;
	ssize_t len = requests_receive(CONTROL, &word, 1, descriptor, &n, &whole);

	if (!len || (len < 0 && errno != EAGAIN && errno != EINTR))
		end();
	if (word == WORD_BROKER)
		k.hooks = true;
	else if (word == WORD_NEXT && n)
		start_next(descriptor, n);
	for (unsigned i = 0; i < n; i++)
		close(descriptor[i]);
}

static _Noreturn void run_keeper(void)
{
	sigset_t none;

	companion_prepare();
	sigemptyset(&none);
	for (;;) {
		struct pollfd p[] = { { .fd = CONTROL, .events = POLLIN }, { .fd = REQUESTS, .events = POLLRDHUP } };
		bool lacks;

		start_broker();
		lacks = k.hooks && !k.broker;
		if (ppoll(p, 2, lacks ? &(struct timespec){ AGAIN_MS / 1000, 0 } : NULL, &none) < 0)
			p[0].revents = p[1].revents = 0;
		if (p[0].revents)
			listen_to_listener();
		if (p[1].revents)
			renew_requests();
		reap();
	}
}

/* Neither a client's connection nor listening sockets stay open here. */
static void take_over(int control, int requests)
{
	int apart = fcntl(requests, F_DUPFD_CLOEXEC, REQUESTS + 1);

	dup2(control, CONTROL);
	dup3(apart, REQUESTS, O_CLOEXEC);
	syscall(SYS_close_range, REQUESTS + 1, ~0u, 0);
}

pid_t keeper_start(const struct keeper_task *t, bool hooks)
{
	int pair[2], requests = broker_open();
	pid_t pid;

	if (requests < 0)
		return -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		close(requests);
		return -1;
	}
	pid = companion_fork("smtpwarp-keeper");
	if (pid == 0) {
		take_over(pair[1], requests);
		k.task = *t;
		k.hooks = hooks;
		run_keeper();
	}
	close(pair[1]);
	close(requests);
	keeper = pair[0];
	return pid;
}
