/* Reports for TLSRPT. See tlsrpt.h for the contract. */
#define _GNU_SOURCE
#include "io/tlsrpt.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

bool tlsrpt_send(const char *path, const struct tlsrpt_report *r)
{
	static char text[TLSRPT_MAX];
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	size_t n = tlsrpt_write(r, text, sizeof text);
	int fd, error;
	bool sent;

	errno = n ? ENAMETOOLONG : EMSGSIZE;
	if (!n || strlen(path) >= sizeof name.sun_path)
		return false;
	strcpy(name.sun_path, path);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	sent = sendto(fd, text, n, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&name, sizeof name) == (ssize_t)n;
	error = errno;
	close(fd);
	errno = error;
	return sent;
}
