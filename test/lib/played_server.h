/* A name server that a unit test plays: its socket on this host. */
#ifndef PLAYED_SERVER_H
#define PLAYED_SERVER_H

#include "pure/address.h"

#include <sys/socket.h>

/* Returns the socket; *a: where it is. */
static inline int play_server(union net_address *a)
{
	socklen_t n = sizeof *a;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0 && net_parse("127.0.0.1", 0, a));
	assert_int_equal(bind(fd, &a->sa, net_size(a)), 0);
	assert_int_equal(getsockname(fd, &a->sa, &n), 0);
	return fd;
}

#endif
