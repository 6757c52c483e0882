/* See notify.h for the contract. */
#define _GNU_SOURCE
#include "io/notify.h"
#include "io/passes.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int fd = -1;

void notify(const char *format, ...)
{
	char text[160];
	va_list args;
	int n;

	if (fd < 0)
		return;
	va_start(args, format);
	n = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	send(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void notify_leave(void)
{
	if (fd >= 0)
		close(fd);
}

void notify_close(void)
{
	notify_leave();
	fd = -1;
}

bool notify_heard(void)
{
	return fd >= 0;
}

void notify_open(const char *path)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	size_t n = path ? strlen(path) : 0;

	if (!n || n >= sizeof name.sun_path)
		return;
	memcpy(name.sun_path, path, n);
	if (*path == '@')
		name.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && passes_connect(fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
		notify_close();
}
