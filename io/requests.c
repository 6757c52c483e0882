/* Requests. See requests.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/requests.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

int requests_pair(int pair[2])
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
}

union control {
	struct cmsghdr header;
	char room[CMSG_SPACE(REQUESTS_DESCRIPTORS * sizeof(int))];
};

bool requests_pass(int to, const void *bytes, size_t len, const int *descriptor, unsigned n, int flags)
{
	union control control = { .room = { 0 } };
	struct iovec part = { (void *)(uintptr_t)bytes, len };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	if (n) {
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = (socklen_t)CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(&control.header), descriptor, n * sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = (socklen_t)CMSG_SPACE(n * sizeof(int));
	}
	return sendmsg(to, &message, flags | MSG_NOSIGNAL) == (ssize_t)len;
}

ssize_t requests_receive(int from, void *bytes, size_t cap, int descriptor[REQUESTS_DESCRIPTORS], unsigned *n, bool *whole)
{
	union control control;
	struct iovec part = { bytes, cap };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	ssize_t len = recvmsg(from, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	const struct cmsghdr *header = len >= 0 ? CMSG_FIRSTHDR(&message) : NULL;

	*n = header && header->cmsg_type == SCM_RIGHTS ? (unsigned)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int)) : 0;
	*whole = !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
	if (*n)
		memcpy(descriptor, CMSG_DATA(header), *n * sizeof(int));
	return len;
}

/* The timer goes off again and again, for the first time may be before anything waits. 0: it does not go off. */
static void go_off_every(suseconds_t us)
{
	setitimer(ITIMER_REAL, &(struct itimerval){ .it_interval = { 0, us }, .it_value = { 0, us } }, NULL);
}

void requests_hurry(void)
{
	go_off_every(1000);
}

void requests_calm(void)
{
	go_off_every(0);
}

void requests_close(int fd)
{
	requests_hurry();
	close(fd);
	requests_calm();
}

/* The queue may be full (EAGAIN), and descriptors under way count against this user's limit (ETOOMANYREFS), those of all sessions together.
 * A session that has been taken over may have set how long sendmsg(2) waits: so it does not wait here. */
static int pass_patiently(int to, const void *bytes, size_t len, const int *descriptor, unsigned n)
{
	struct pollfd p = { .fd = to };

	for (unsigned tries = 0; !requests_pass(to, bytes, len, descriptor, n, MSG_DONTWAIT); tries++) {
		if ((errno != EAGAIN && errno != ETOOMANYREFS) || tries == REQUESTS_SECONDS * 100)
			return errno;
		p.events = errno == EAGAIN ? POLLOUT : 0;
		poll(&p, 1, 10);
	}
	return 0;
}

int requests_send(int to, const void *bytes, size_t len, const int *descriptor, unsigned n)
{
	int passed[REQUESTS_DESCRIPTORS], pair[2], error;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	passed[0] = pair[1];
	for (unsigned i = 0; i < n; i++)
		passed[i + 1] = descriptor[i];
	error = pass_patiently(to, bytes, len, passed, n + 1);
	close(pair[1]);
	if (!error)
		return pair[0];
	close(pair[0]);
	errno = error;
	return -1;
}
