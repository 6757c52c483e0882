/* The dialer. See dialer.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/dialer.h"
#include "io/companion.h"
#include "io/passes.h"
#include "io/requests.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

static pid_t dialer; /* 0: there is none */
static int requests = -1;

/* ---- the session's side ---- */

bool dialer_is_there(void)
{
	return requests >= 0;
}

/* errno of dial(), and the connection if there is one. */
static int take_answer(int channel)
{
	struct pollfd p = { .fd = channel, .events = POLLIN };
	int descriptor[REQUESTS_DESCRIPTORS];
	int32_t error;
	unsigned n;
	bool whole;

	if (poll(&p, 1, REQUESTS_SECONDS * 1000) <= 0)
		errno = ETIMEDOUT;
	else if (requests_receive(channel, &error, sizeof error, descriptor, &n, &whole) != sizeof error)
		errno = ECONNABORTED;
	else if (n)
		return descriptor[0];
	else
		errno = error;
	return -1;
}

int dialer_ask(int client, uint32_t which)
{
	int channel, fd, error;

	errno = EPERM;
	if (requests < 0)
		return -1;
	channel = requests_send(requests, &which, sizeof which, &client, 1);
	if (channel < 0)
		return -1;
	fd = take_answer(channel);
	error = errno;
	close(channel);
	errno = error;
	return fd;
}

/* ---- the dialer's side ---- */

static void answer(int channel, int fd, int32_t error)
{
	requests_pass(channel, &error, sizeof error, &fd, fd >= 0, MSG_DONTWAIT);
	if (fd >= 0)
		requests_close(fd); /* the session may have closed it before */
}

/* The channel, then the client's connection. false: nobody is left to ask, or a session has shut the socket for all. */
static bool serve_one(int (*dial)(int client, uint32_t which))
{
	struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN | POLLRDHUP };
	int descriptor[REQUESTS_DESCRIPTORS];
	uint32_t which;
	unsigned n;
	bool whole;
	ssize_t len;

	if (poll(&p, 1, -1) < 0)
		return errno == EINTR;
	requests_hurry();
	len = requests_receive(STDIN_FILENO, &which, sizeof which, descriptor, &n, &whole);
	requests_calm();
	if (len == sizeof which && whole && n == 2) {
		int fd = dial(descriptor[1], which);

		answer(descriptor[0], fd, fd < 0 ? errno : 0);
	}
	for (unsigned i = 0; i < n; i++)
		requests_close(descriptor[i]);
	return len > 0 || (len < 0 && (errno == EAGAIN || errno == EINTR));
}

static _Noreturn void run(int from, int (*dial)(int client, uint32_t which))
{
	companion_prepare();
	passes_forget(PASS_LISTENER);
	companion_keep(from);
	while (serve_one(dial))
		;
	_exit(EX_OK);
}

/* ---- the listener's side ---- */

bool dialer_start(int (*dial)(int client, uint32_t which))
{
	int pair[2];

	if (requests_pair(pair) < 0)
		return false;
	dialer = companion_fork("smtpwarp-dialer");
	if (dialer == 0)
		run(pair[1], dial);
	close(pair[1]);
	if (dialer < 0) {
		dialer = 0;
		close(pair[0]);
		return false;
	}
	requests = pair[0];
	return true;
}

bool dialer_ended(pid_t pid)
{
	if (!dialer || pid != dialer)
		return false;
	dialer = 0;
	close(requests);
	requests = -1;
	return true;
}

void dialer_stop(void)
{
	if (!dialer)
		return;
	close(requests);
	requests = -1;
	companion_wait(dialer);
	dialer = 0;
}
