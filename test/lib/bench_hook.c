/* A hook that accepts, for bench.py: run as a program it reads its line and says so; with a path as argument it does the same
 * for every connection to that Unix socket.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Descriptors of messages that come along are closed with the control buffer that nobody gave: MSG_CTRUNC. */
static void answer(int in, int out)
{
	char bytes[65536];

	while (read(in, bytes, sizeof bytes) > 0)
		;
	if (write(out, "accept\n", 7) != 7)
		_exit(1);
}

int main(int argc, char **argv)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int door, connection;

	if (argc < 2) {
		answer(0, 1);
		return 0;
	}
	strncpy(name.sun_path, argv[1], sizeof name.sun_path - 1);
	door = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(door, (struct sockaddr *)&name, sizeof name) < 0 || listen(door, 1024) < 0)
		return 1;
	while ((connection = accept4(door, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		answer(connection, connection);
		close(connection);
	}
	return 1;
}
