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

/* Descriptors under way count against this user's limit (ETOOMANYREFS), those of all sessions together. */
static int send_patiently(int to, const struct msghdr *message)
{
	ssize_t n = sendmsg(to, message, MSG_NOSIGNAL);

	for (unsigned tries = 0; n < 0 && errno == ETOOMANYREFS && tries < REQUESTS_SECONDS * 100; tries++) {
		poll(NULL, 0, 10);
		n = sendmsg(to, message, MSG_NOSIGNAL);
	}
	return n < 0 ? errno : 0;
}

int requests_send(int to, const void *bytes, size_t len, const int *descriptor, unsigned n)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(REQUESTS_DESCRIPTORS * sizeof(int))];
	} control = { .room = { 0 } };
	struct iovec part = { (void *)(uintptr_t)bytes, len };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control };
	int passed[REQUESTS_DESCRIPTORS], pair[2], error;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	passed[0] = pair[1];
	for (unsigned i = 0; i < n; i++)
		passed[i + 1] = descriptor[i];
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = (socklen_t)CMSG_LEN((n + 1) * sizeof(int));
	memcpy(CMSG_DATA(&control.header), passed, (n + 1) * sizeof(int));
	message.msg_controllen = (socklen_t)CMSG_SPACE((n + 1) * sizeof(int));
	error = send_patiently(to, &message);
	close(pair[1]);
	if (!error)
		return pair[0];
	close(pair[0]);
	errno = error;
	return -1;
}
