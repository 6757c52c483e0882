/* See upgrade.h for the contract. */
#define _GNU_SOURCE
#include "upgrade.h"

#include "io/fault.h"
#include "io/keeper.h"
#include "io/passes.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define CANDIDATE_SECONDS 60 /* for the next one to be ready; it may have to read large files */
#define COUNT_MS 1000 /* for the one before to say how many sessions it has; it may be a version that does not if it has none */

static struct {
	int before, next; /* links; -1: there is none */
	int process; /* pidfd_open(2) of the one before: a link ends before its process does; -1: there is none */
	pid_t pid; /* of the next one */
	time_t begun; /* when it was asked for */
	uint32_t sessions_before, told;
} upgrade = { .before = -1, .next = -1, .process = -1, .told = UINT32_MAX };

static void shut(int *link)
{
	if (*link >= 0)
		close(*link);
	*link = -1;
}

static bool say(int link, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool say(int link, const char *format, ...)
{
	char text[80];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return send(link, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) == n;
}

/* The number behind NAME= in this word; -1: it says nothing of that. */
static long number_of(const char *word, const char *name)
{
	const char *found = strstr(word, name);

	return found ? strtol(found + strlen(name), NULL, 10) : -1;
}

/* Read a word. false: there is none now, or no more; then the link is closed. */
static bool hear(int *link, char word[FAULT_MAX + 1])
{
	ssize_t n = recv(*link, word, FAULT_MAX, MSG_DONTWAIT);

	if (n > 0) {
		word[n] = 0;
		return true;
	}
	if (n == 0 || (errno != EAGAIN && errno != EINTR))
		shut(link);
	return false;
}

/* The one that is not ready yet shall not take over: it ends when it says that it is, or is told to if it has just said so. */
static void stop_candidate(void)
{
	char word[FAULT_MAX + 1];
	long pid = 0;

	shutdown(upgrade.next, SHUT_RD);
	while (hear(&upgrade.next, word))
		pid = number_of(word, "READY=") == 1 ? number_of(word, "MAINPID=") : pid;
	if (pid > 1)
		passes_kill((pid_t)pid, SIGTERM);
	shut(&upgrade.next);
}

/* ---- the one before ---- */

void upgrade_take(int link)
{
	struct ucred creator; /* of the link, unix(7) */
	socklen_t len = sizeof creator;

	upgrade.before = link;
	fault_asker(link);
	if (getsockopt(link, SOL_SOCKET, SO_PEERCRED, &creator, &len) == 0)
		upgrade.process = (int)syscall(SYS_pidfd_open, creator.pid, 0);
}

static void hear_before(void)
{
	char word[FAULT_MAX + 1];
	long n;

	while (upgrade.before >= 0 && hear(&upgrade.before, word))
		if ((n = number_of(word, "SESSIONS=")) >= 0)
			upgrade.sessions_before = (uint32_t)n;
	if (upgrade.before < 0 && upgrade.sessions_before) /* what is as it was is not written: the page stays shared with sessions */
		upgrade.sessions_before = 0;
	if (upgrade.before < 0 && upgrade.process >= 0 && poll(&(struct pollfd){ .fd = upgrade.process, .events = POLLIN }, 1, 0) > 0)
		shut(&upgrade.process);
}

bool upgrade_ready(void)
{
	if (upgrade.before < 0)
		return false;
	fault_asker(-1);
	if (!say(upgrade.before, "READY=1\nMAINPID=%ld", (long)getpid()))
		fault_die(EX_TEMPFAIL, "the smtpwarp whose sockets it was to take over has ended");
	if (poll(&(struct pollfd){ .fd = upgrade.before, .events = POLLIN }, 1, COUNT_MS) > 0) /* they count against --max-sessions */
		hear_before();
	return true;
}

bool upgrade_outlived(void)
{
	return upgrade.before >= 0 || upgrade.process >= 0;
}

uint32_t upgrade_sessions_before(void)
{
	return upgrade.sessions_before;
}

void upgrade_stop(void)
{
	if (upgrade.before >= 0)
		say(upgrade.before, "STOP=1");
	if (upgrade.next >= 0 && !upgrade.pid)
		stop_candidate();
}

/* ---- the next one ---- */

static void tell_failure(const char *why)
{
	fault("SIGUSR2: there is no upgrade: %s", why);
}

/* One that hangs does not stand in the way for ever. */
static bool is_under_way(time_t now)
{
	if (upgrade.next >= 0 && now - upgrade.begun >= CANDIDATE_SECONDS) {
		tell_failure("the next smtpwarp was not ready within a minute; another one is started");
		stop_candidate();
	}
	return upgrade.next >= 0;
}

static time_t seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

void upgrade_begin(const int *listening, unsigned n)
{
	int descriptor[KEEPER_PASSED], pair[2];
	const char *why = upgrade.pid ? "it is done: that signal is for the process that accepts now" :
	    is_under_way(seconds()) ? "one is under way" :
	    getpid() == 1 ? "this is process 1, with which its container ends" :
	    keeper_socket() < 0 ? "the process that would start it has ended" : NULL;

	if (!why && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0) {
		memcpy(descriptor, listening, n * sizeof *listening);
		descriptor[n] = pair[1];
		upgrade.next = pair[0];
		upgrade.begun = seconds();
		if (!keeper_start_next(descriptor, n + 1))
			shut(&upgrade.next);
		close(pair[1]);
	}
	if (upgrade.next < 0 || why)
		tell_failure(why ? why : strerror(errno));
}

void upgrade_not_started(int error)
{
	if (upgrade.next >= 0)
		tell_failure(strerror(error));
	shut(&upgrade.next);
}

pid_t upgrade_next(void)
{
	return upgrade.pid;
}

void upgrade_tell_sessions(uint32_t ours)
{
	uint32_t all = ours + upgrade.sessions_before;

	if (upgrade.pid && upgrade.next >= 0 && all != upgrade.told && say(upgrade.next, "SESSIONS=%u", all))
		upgrade.told = all;
}

/* Until it is ready. */
static enum upgrade_word hear_candidate(void)
{
	char word[FAULT_MAX + 1];

	if (!hear(&upgrade.next, word)) {
		if (upgrade.next < 0)
			tell_failure("the next smtpwarp has ended before it was ready");
		return UPGRADE_NOTHING;
	}
	if (number_of(word, "READY=") == 1) {
		upgrade.pid = (pid_t)number_of(word, "MAINPID=");
		return UPGRADE_DONE;
	}
	tell_failure(word);
	shut(&upgrade.next);
	return UPGRADE_NOTHING;
}

static enum upgrade_word hear_next(void)
{
	char word[FAULT_MAX + 1];

	if (!upgrade.pid)
		return hear_candidate();
	return hear(&upgrade.next, word) && number_of(word, "STOP=") == 1 ? UPGRADE_STOP : UPGRADE_NOTHING;
}

/* ---- both ---- */

unsigned upgrade_watch(struct pollfd p[UPGRADE_POLLED])
{
	p[0] = (struct pollfd){ .fd = upgrade.before, .events = POLLIN };
	p[1] = (struct pollfd){ .fd = upgrade.next, .events = POLLIN };
	p[2] = (struct pollfd){ .fd = upgrade.before < 0 ? upgrade.process : -1, .events = POLLIN };
	return UPGRADE_POLLED;
}

enum upgrade_word upgrade_hear(void)
{
	hear_before();
	return upgrade.next >= 0 ? hear_next() : UPGRADE_NOTHING;
}

void upgrade_leave(void)
{
	if (upgrade.before >= 0)
		close(upgrade.before);
	if (upgrade.next >= 0)
		close(upgrade.next);
	if (upgrade.process >= 0)
		close(upgrade.process);
}
