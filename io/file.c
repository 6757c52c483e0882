/* Whole reads, writes and lines. See file.h for the contract. */
#define _GNU_SOURCE
#include "io/file.h"
#include "io/readable.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LINES_MAX (16u << 20) /* octets of a file that file_lines() reads */

/* Others may have the same position in the file. A pipe has none. */
static ssize_t read_at(int fd, void *into, size_t n, size_t at)
{
	ssize_t got = pread(fd, into, n, (off_t)at);

	return got < 0 && errno == ESPIPE ? read(fd, into, n) : got;
}

ssize_t file_read(int fd, void *into, size_t cap)
{
	size_t n = 0;
	ssize_t got = 1;

	while (got > 0 && n < cap) {
		got = read_at(fd, (char *)into + n, cap - n, n);
		n += got > 0 ? (size_t)got : 0;
	}
	if (!got && !n && lseek(fd, 0, SEEK_CUR) < 0) {
		errno = ENODATA;
		return -1;
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

bool file_may_be_made(const char *path)
{
	const char *end = strrchr(path, '/');
	char folder[4096];
	size_t n = end ? (size_t)(end - path) + 1 : 1;

	if (n >= sizeof folder) {
		errno = ENAMETOOLONG;
		return false;
	}
	memcpy(folder, end ? path : ".", n);
	folder[n] = 0;
	return access(folder, W_OK | X_OK) == 0;
}

int file_in_memory(const char *name)
{
	return memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

int file_reserve(void)
{
	return open("/", O_PATH | O_CLOEXEC); /* it is everywhere */
}

const char *file_fault(void)
{
	return errno == EFBIG ? "smtpwarp may make no file in memory that is so large: raise RLIMIT_FSIZE (LimitFSIZE=, ulimit -f)" : strerror(errno);
}

bool file_seal(int fd)
{
	return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == 0;
}

void *file_new_shared(const char *name, size_t size, int *fd)
{
	void *memory = MAP_FAILED;

	*fd = file_in_memory(name);
	if (*fd >= 0 && ftruncate(*fd, (off_t)size) == 0)
		memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (memory != MAP_FAILED)
		return memory;
	if (*fd >= 0)
		close(*fd);
	return NULL;
}

/* The mapping to write to must go before the file can be sealed, and the new one must take its place, for pointers lead into it. It is
 * private: Linux before 6.7 makes no shared one of a sealed file, and what a process writes to its own copy others never see. */
bool file_share(void *memory, size_t size, int fd)
{
	if (mmap(memory, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED || !file_seal(fd) ||
	    mmap(memory, size, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) == MAP_FAILED) {
		file_unshare(memory, size, fd);
		return false;
	}
	madvise(memory, size, MADV_DONTDUMP);
	close(fd);
	return true;
}

void file_unshare(void *memory, size_t size, int fd)
{
	munmap(memory, size);
	close(fd);
}

void *file_copy_shared(const char *name, const void *from, size_t size)
{
	int fd;
	void *copy = file_new_shared(name, size, &fd);

	if (!copy)
		return NULL;
	memcpy(copy, from, size);
	return file_share(copy, size, fd) ? copy : NULL;
}

void file_blame(char *why, size_t why_cap, const char *option, const char *file, unsigned line, const char *reason)
{
	char where[24] = "";

	if (line)
		snprintf(where, sizeof where, "line %u: ", line);
	snprintf(why, why_cap, "--%s %s: %s%s", option, file, where, reason);
}

void file_lines(const char *path, void (*take)(void *arg, char *line), void *arg)
{
	char text[4096];
	size_t have = 0, all = 0;
	bool skipping = false; /* in a line that is too long */
	int fd = readable_open(path);
	ssize_t n = fd < 0 ? 0 : 1;

	while (n > 0 && all < LINES_MAX) {
		char *line = text, *end;

		n = read_at(fd, text + have, sizeof text - 1 - have, all);
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
