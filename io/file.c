/* Whole reads and writes. See file.h for the contract. */
#include "io/file.h"

#include <errno.h>
#include <unistd.h>

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
