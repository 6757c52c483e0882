/* A TCP connection whose peer takes nothing, and for which close(2) waits half an hour. */
#ifndef LINGERING_H
#define LINGERING_H

#include "test/lib/unit.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* The descriptor is the caller's, and must be closed by somebody else last: see held_up(). *peer has to stay open as long. */
static inline int lingering(int *peer)
{
	static const char octets[65536];
	const struct linger long_time = { 1, 1800 };
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof name;
	int door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(door, (struct sockaddr *)&name, len), 0);
	assert_int_equal(listen(door, 1), 0);
	assert_int_equal(getsockname(door, (struct sockaddr *)&name, &len), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&name, len), 0);
	*peer = accept(door, NULL, NULL);
	assert_true(*peer >= 0);
	close(door);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &long_time, sizeof long_time), 0);
	while (send(fd, octets, sizeof octets, MSG_DONTWAIT) > 0)
		;
	return fd;
}

/* Keep this child from taking what it is sent, until SIGCONT: the caller closes its own descriptors in between, and the child is the last. */
static inline void held_up(pid_t child)
{
	int status;

	assert_int_equal(kill(child, SIGSTOP), 0);
	assert_int_equal(waitpid(child, &status, WUNTRACED), child);
	assert_true(WIFSTOPPED(status));
}

/* A message of one octet with n descriptors, at most 32: the last is fd, which is closed here, the others are of /dev/null. */
static inline void pass_among(int to, int fd, unsigned n)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(32 * sizeof(int))];
	} control = { .header = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(n * sizeof(int)) } };
	struct iovec part = { (char[1]){ 0 }, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(n * sizeof(int)) };

	for (unsigned i = 0; i < n; i++)
		memcpy(CMSG_DATA(&control.header) + i * sizeof(int), i + 1 < n ? &null : &fd, sizeof(int));
	assert_int_equal(sendmsg(to, &message, MSG_DONTWAIT | MSG_NOSIGNAL), 1);
	close(fd);
	close(null);
}

#endif
