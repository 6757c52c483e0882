/* See fault.h for the contract. */
#define _GNU_SOURCE
#include "io/fault.h"

#include "io/event.h"
#include "io/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int client = -1; /* the client's connection, if we were given one */
static int asker = -1;
static bool logless;

void fault_client(int connection)
{
	client = connection;
}

void fault_asker(int socket)
{
	asker = socket;
}

void fault_without_log(void)
{
	logless = true;
}

bool fault_is_client(int fd)
{
	struct stat in, other;

	return fstat(STDIN_FILENO, &in) == 0 && S_ISSOCK(in.st_mode) && fstat(fd, &other) == 0 &&
	    in.st_dev == other.st_dev && in.st_ino == other.st_ino;
}

void fault_tell(const char *format, ...)
{
	char text[FAULT_MAX + 32] = "smtpwarp: ";
	size_t n = strlen(text);
	va_list args;

	va_start(args, format);
	vsnprintf(text + n, sizeof text - n - 1, format, args);
	va_end(args);
	n = strlen(text);
	text[n] = '\n';
	log_tell(text, n + 1);
}

_Noreturn void fault_die(int code, const char *format, ...)
{
	static const char reply[] = "421 4.3.5 Service is not configured rightly\r\n";
	char why[FAULT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof why, format, args);
	va_end(args);
	if (client >= 0)
		send(client, reply, sizeof reply - 1, MSG_NOSIGNAL);
	if (asker >= 0)
		send(asker, why, strlen(why), MSG_NOSIGNAL);
	if (fault_is_client(STDERR_FILENO)) {
		const char *ignored;

		log_open("syslog", &ignored);
		event_fault(why, NULL);
	} else {
		fault_tell("%s", why);
	}
	exit(code);
}

_Noreturn void fault_die_errno(int code, const char *what)
{
	fault_die(code, "%s: %s", what, strerror(errno));
}

void fault(const char *format, ...)
{
	char text[FAULT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (logless)
		fprintf(stderr, "smtpwarp: %s\n", text);
	else
		event_fault(text, NULL);
}
