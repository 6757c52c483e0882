/* The broker. See broker.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/broker.h"
#include "io/companion.h"
#include "io/requests.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define FIRST_RUNS 16
#define PATIENCE INT64_C(540000000) /* microseconds, where none is given: what hooks of an event have together */
#define CHANNELS_FROM 64 /* descriptors below are for programs that are being started, within their own limit */

extern char **environ;

/* ---- the session's side ---- */

static int broker = -1; /* the socket that requests go to */

int broker_run(const char *path, const int descriptor[BROKER_DESCRIPTORS])
{
	unsigned n = 0;

	while (n < BROKER_DESCRIPTORS && descriptor[n] >= 0)
		n++;
	return requests_send(broker, path, strlen(path) + 1, descriptor, n);
}

struct broker_news broker_take(int channel)
{
	struct broker_news news;
	ssize_t n = recv(channel, &news, sizeof news, MSG_DONTWAIT);

	if (n == sizeof news)
		return news;
	return (struct broker_news){ .how = n < 0 && errno == EAGAIN ? BROKER_NOTHING : BROKER_GONE };
}

/* What a session says of a run. */
enum { RUN_KILL = 'k', RUN_OVER = 'o' };

void broker_end(int channel, bool kill)
{
	const char word = kill ? RUN_KILL : RUN_OVER;

	send(channel, &word, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	close(channel);
}

/* ---- the broker's side ---- */

struct run {
	pid_t pid;
	int channel;	  /* -1: nobody waits for it */
	bool ended;	  /* a zombie */
	int64_t deadline; /* microseconds on the clock at which its group is killed; 0: none */
};

static struct {
	int requests; /* -1: nobody is left to ask */
	bool (*allows)(const char *path);
	int64_t patience;
	struct rlimit files; /* how many descriptors programs may have; the broker needs one for each of them that runs */
	unsigned count, room;
	struct run *run;
	struct pollfd *polled; /* requests, then the channel of each run */
} b;

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000) + t.tv_nsec / 1000;
}

static void limit_files(rlim_t files)
{
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){ files, b.files.rlim_max });
}

/* Start a program in a process group of its own. Returns errno, 0: it runs. */
static int spawn(const char *path, const int *descriptor, unsigned n, pid_t *pid)
{
	static const int ours[] = { SIGPIPE, SIGXFSZ, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 }; /* ignored here, and would be after exec */
	char *argv[] = { (char *)(uintptr_t)path, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, defaults;
	int error = 0;

	sigemptyset(&none);
	sigemptyset(&defaults);
	for (unsigned i = 0; i < sizeof ours / sizeof *ours; i++)
		sigaddset(&defaults, ours[i]);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &defaults);
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
	posix_spawn_file_actions_init(&actions);
	/* All descriptors are 3 or higher and close on exec, so filling 0 to 2 first, then 3, overwrites none that is still needed. */
	for (unsigned i = 0; i < n && !error; i++)
		error = posix_spawn_file_actions_adddup2(&actions, descriptor[i], (int)i);
	limit_files(b.files.rlim_cur);
	if (!error)
		error = posix_spawn(pid, path, &actions, &attributes, argv, environ);
	limit_files(b.files.rlim_max);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	return error;
}

/* Make room for one run more. */
static bool has_room(void)
{
	unsigned room = b.room ? b.room * 2 : FIRST_RUNS;
	struct run *run;
	struct pollfd *polled;

	if (b.count < b.room)
		return true;
	run = realloc(b.run, room * sizeof *run);
	b.run = run ? run : b.run;
	polled = run ? realloc(b.polled, (room + 1) * sizeof *polled) : NULL;
	b.polled = polled ? polled : b.polled;
	b.room = polled ? room : b.room;
	return polled != NULL;
}

static void tell(int channel, const struct broker_news *news)
{
	send(channel, news, sizeof *news, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* A request: path, octets of it, and n descriptors, the channel first. */
static void serve(const char *path, size_t len, int *descriptor, unsigned n)
{
	struct broker_news news = { BROKER_NOT_RUN, EINVAL };
	int channel = n ? fcntl(descriptor[0], F_DUPFD_CLOEXEC, CHANNELS_FROM) : -1;
	pid_t pid;

	if (channel >= 0) {
		close(descriptor[0]);
		descriptor[0] = channel;
	}
	if (n < 4 || n > BROKER_DESCRIPTORS + 1 || !len || path[len - 1] || memchr(path, 0, len - 1))
		; /* no session of ours has asked this */
	else if (!b.allows(path))
		news.value = EACCES;
	else if (!has_room())
		news.value = ENOMEM;
	else
		news.value = spawn(path, descriptor + 1, n - 1, &pid);
	if (!news.value)
		b.run[b.count++] = (struct run){ .pid = pid, .channel = descriptor[0] };
	else if (n)
		tell(descriptor[0], &news);
	for (unsigned i = !news.value; i < n; i++)
		requests_close(descriptor[i]);
}

/* Returns whether there was one. */
static bool take_request(void)
{
	char path[BROKER_PATH_MAX];
	int descriptor[REQUESTS_DESCRIPTORS];
	unsigned n;
	bool whole;
	ssize_t len;

	requests_hurry();
	len = requests_receive(b.requests, path, sizeof path, descriptor, &n, &whole);
	requests_calm();
	if (len < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ENOMEM))
		return false;
	if (!len && !n && !(b.polled[0].revents & (POLLHUP | POLLRDHUP))) /* a session may send nothing, which is not the end */
		return false;
	if (len <= 0 && !n) {
		requests_close(b.requests); /* with what is still in its queue */
		b.requests = -1;
		return false;
	}
	serve(path, whole ? (size_t)len : 0, descriptor, n);
	return true;
}

static void kill_group(const struct run *r)
{
	kill(-r->pid, SIGKILL);
	kill(r->pid, SIGKILL); /* it may have left its group */
}

static void leave(struct run *r)
{
	requests_close(r->channel);
	r->channel = -1;
}

/* A session that is gone without a word has crashed: what it has asked for, such as logging, may come to its end. */
static void hear(struct run *r, short revents)
{
	char word = 0;
	ssize_t n;

	requests_hurry();
	n = recv(r->channel, &word, 1, MSG_DONTWAIT);
	requests_calm();
	if (n < 0 && (errno == EAGAIN || errno == EINTR) && !(revents & (POLLERR | POLLHUP | POLLNVAL)))
		return; /* with one of these it would wake poll(2) for ever */
	if (n == 1 && word == RUN_KILL)
		kill_group(r);
	else if (n != 1)
		r->deadline = now() + b.patience;
	leave(r);
}

static void look_for_end(struct run *r)
{
	siginfo_t info = { .si_pid = 0 };
	struct broker_news news;

	if (r->ended || waitid(P_PID, (id_t)r->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || !info.si_pid)
		return;
	r->ended = true;
	news.how = info.si_code == CLD_EXITED ? BROKER_EXITED : BROKER_KILLED;
	news.value = info.si_status;
	if (r->channel >= 0)
		tell(r->channel, &news);
}

static void look_at_runs(void)
{
	int64_t time = now();

	for (unsigned i = b.count; i-- > 0;) {
		struct run *r = &b.run[i];

		if (r->channel >= 0 && b.polled[i + 1].revents)
			hear(r, b.polled[i + 1].revents);
		if (r->deadline && time >= r->deadline) {
			kill_group(r);
			r->deadline = 0;
		}
		look_for_end(r);
		if (r->ended && r->channel < 0) {
			waitpid(r->pid, NULL, 0);
			*r = b.run[--b.count];
			b.polled[i + 1] = b.polled[b.count + 1];
		}
	}
}

/* Microseconds until something must be done, however quiet it is; -1: nothing. *waits: whether anything is left to wait for. */
static int64_t next_deadline(bool *waits)
{
	int64_t left = -1, time = now();

	*waits = b.requests >= 0;
	for (unsigned i = 0; i < b.count; i++) {
		int64_t due = b.run[i].deadline ? b.run[i].deadline - time : -1;

		*waits = *waits || b.run[i].channel >= 0 || b.run[i].deadline;
		if (b.run[i].deadline && (left < 0 || due < left))
			left = due > 0 ? due : 0;
	}
	return left;
}

static _Noreturn void run_broker(void)
{
	sigset_t none;

	companion_prepare();
	sigemptyset(&none);
	if (!has_room())
		_exit(EX_OSERR);
	for (;;) {
		bool waits;
		int64_t left = next_deadline(&waits);
		struct timespec limit = { left / 1000000, left % 1000000 * 1000 };

		if (!waits)
			break;
		b.polled[0] = (struct pollfd){ .fd = b.requests, .events = POLLIN | POLLRDHUP };
		for (unsigned i = 0; i < b.count; i++)
			b.polled[i + 1] = (struct pollfd){ .fd = b.run[i].channel, .events = POLLIN };
		if (ppoll(b.polled, b.count + 1, left < 0 ? NULL : &limit, &none) < 0)
			for (unsigned i = 0; i <= b.count; i++)
				b.polled[i].revents = 0;
		look_at_runs();
		if (b.polled[0].revents)
			while (take_request())
				;
	}
	_exit(EX_OK);
}

int broker_open(void)
{
	int pair[2];

	if (requests_pair(pair) < 0)
		return -1;
	if (!b.files.rlim_max)
		getrlimit(RLIMIT_NOFILE, &b.files);
	limit_files(b.files.rlim_max); /* here, too: it bounds what all sessions may have on the way to the broker */
	broker_use(pair[0]);
	return pair[1];
}

void broker_use(int requests)
{
	if (broker >= 0)
		close(broker);
	broker = requests;
}

pid_t broker_fork(int requests, bool (*allows)(const char *path), int64_t patience)
{
	pid_t pid = companion_fork("smtpwarp-broker");

	if (pid)
		return pid;
	companion_keep(requests);
	b.requests = STDIN_FILENO;
	b.allows = allows;
	b.patience = patience ? patience : PATIENCE;
	run_broker();
}

pid_t broker_start(bool (*allows)(const char *path), int64_t patience)
{
	int requests = broker_open();
	pid_t pid = requests < 0 ? -1 : broker_fork(requests, allows, patience);

	if (requests >= 0)
		close(requests);
	return pid;
}

void broker_unlimit(void)
{
	limit_files(b.files.rlim_cur);
}

void broker_stop(pid_t pid)
{
	broker_use(-1);
	companion_wait(pid);
}
