/* Whole reads, writes and lines. See file.h for the contract. */
#define _GNU_SOURCE
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define LINES_MAX (16u << 20) /* octets of a file that file_lines() reads */

ssize_t file_read(int fd, void *into, size_t cap)
{
	size_t n = 0;
	ssize_t got = 1;

	while (got > 0 && n < cap) {
		got = read(fd, (char *)into + n, cap - n);
		n += got > 0 ? (size_t)got : 0;
	}
	return got < 0 ? -1 : (ssize_t)n;
}

bool file_write(int fd, struct iovec *part, int parts)
{
	for (;;) {
		ssize_t n;

		for (; parts && !part->iov_len; part++)
			parts--;
		if (!parts)
			return true;
		n = writev(fd, part, parts);
		if (n < 0 && errno != EINTR)
			return false;
		for (; n > 0; part++, parts--) {
			if ((size_t)n < part->iov_len) {
				part->iov_base = (char *)part->iov_base + n;
				part->iov_len -= (size_t)n;
				break;
			}
			n -= (ssize_t)part->iov_len;
		}
	}
}

void file_lines(const char *path, void (*take)(void *arg, char *line), void *arg)
{
	char text[4096];
	size_t have = 0, all = 0;
	bool skipping = false; /* in a line that is too long */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n = fd < 0 ? 0 : 1;

	while (n > 0 && all < LINES_MAX) {
		char *line = text, *end;

		n = read(fd, text + have, sizeof text - 1 - have);
		have += n > 0 ? (size_t)n : 0;
		all += n > 0 ? (size_t)n : 0;
		if (n <= 0 && have) /* end the last line, which may lack its LF */
			text[have++] = '\n';
		while ((end = memchr(line, '\n', have))) {
			*end = 0;
			if (!skipping)
				take(arg, line);
			skipping = false;
			have -= (size_t)(end + 1 - line);
			line = end + 1;
		}
		memmove(text, line, have);
		skipping = skipping || have == sizeof text - 1;
		have = skipping ? 0 : have;
	}
	if (fd >= 0)
		close(fd);
}
