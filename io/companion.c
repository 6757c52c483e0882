/* Companions. See companion.h. */
#define _GNU_SOURCE
#include "io/companion.h"
#include "io/passes.h"

#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

pid_t companion_fork(const char *name)
{
	char ours[16];
	pid_t pid;

	prctl(PR_GET_NAME, ours);
	prctl(PR_SET_NAME, name);
	pid = passes_fork();
	if (pid)
		prctl(PR_SET_NAME, ours);
	return pid;
}

static void on_signal(int number)
{
	(void)number;
}

void companion_prepare(void)
{
	static const int ignored[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2 };
	const struct sigaction interrupt = { .sa_handler = on_signal };

	sigset_t alarm;

	sigaction(SIGCHLD, &interrupt, NULL);
	sigaction(SIGALRM, &interrupt, NULL);
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	sigprocmask(SIG_UNBLOCK, &alarm, NULL); /* who has started smtpwarp may have blocked it */
	for (unsigned i = 0; i < sizeof ignored / sizeof *ignored; i++)
		signal(ignored[i], SIG_IGN);
}

void companion_keep(int requests)
{
	dup2(requests, STDIN_FILENO);
	syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 0);
}

void companion_wait(pid_t pid)
{
	const struct timespec limit = { .tv_sec = 1 };
	sigset_t children;

	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	while (waitpid(pid, NULL, WNOHANG) == 0 && sigtimedwait(&children, NULL, &limit) > 0)
		;
}
