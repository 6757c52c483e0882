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
	const struct timeval limit = { .tv_sec = REQUESTS_SECONDS };

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	return 0;
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

/* The timer goes off again and again, for the first time may be before close(2) waits. */
void requests_close(int fd)
{
	const struct itimerval none = { .it_value = { 0, 0 } }, soon = { .it_interval = { 0, 10000 }, .it_value = { 0, 10000 } };

	setitimer(ITIMER_REAL, &soon, NULL);
	close(fd);
	setitimer(ITIMER_REAL, &none, NULL);
}

/* Descriptors under way count against this user's limit (ETOOMANYREFS), those of all sessions together. */
static int pass_patiently(int to, const void *bytes, size_t len, const int *descriptor, unsigned n)
{
	bool passed = requests_pass(to, bytes, len, descriptor, n, 0);

	for (unsigned tries = 0; !passed && errno == ETOOMANYREFS && tries < REQUESTS_SECONDS * 100; tries++) {
		poll(NULL, 0, 10);
		passed = requests_pass(to, bytes, len, descriptor, n, 0);
	}
	return passed ? 0 : errno;
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
