/* Log files. See logfile.h for the contract. */
#define _POSIX_C_SOURCE 200809L
#include "stat/logfile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define READ_SIZE (256u << 10)

/* Longest first read; more than one line of any length fits behind what is left of the one before. */
static char room[LOGFILE_LINE_MAX + READ_SIZE];

static ssize_t read_some(int fd, void *into, size_t n)
{
	ssize_t got;

	while ((got = read(fd, into, n)) < 0 && errno == EINTR)
		;
	return got;
}

/* Give all whole lines among the n octets of room to take(). Returns octets that are left, which stand at its beginning then. */
static size_t give_lines(struct logfile *f, size_t n, bool *skipping)
{
	char *at = room, *end = room + n, *lf;

	while ((lf = memchr(at, '\n', (size_t)(end - at)))) {
		if (!*skipping)
			f->take(f->arg, at, (size_t)(lf - at));
		*skipping = false;
		at = lf + 1;
	}
	n = (size_t)(end - at);
	if (n > LOGFILE_LINE_MAX) {
		f->too_long += !*skipping;
		*skipping = true;
	}
	if (*skipping)
		return 0;
	memmove(room, at, n);
	return n;
}

static bool read_lines(struct logfile *f, int fd, int file)
{
	bool skipping = false;
	size_t left = 0;
	ssize_t got;

	while ((got = read_some(fd, room + left, READ_SIZE)) > 0) {
		left = give_lines(f, left + (size_t)got, &skipping);
		if (f->tell) {
			off_t at = lseek(file, 0, SEEK_CUR);
			f->tell(f->arg, f->octets + (uint64_t)(at > 0 ? at : 0));
		}
	}
	f->torn += left > 0 && !skipping;
	return !got;
}

/* The program that made this file, which is at its beginning; NULL: it is plain. */
static const char *packer(int fd)
{
	unsigned char magic[4] = { 0 };

	if (pread(fd, magic, sizeof magic, 0) < 4)
		return NULL;
	return !memcmp(magic, "\x28\xb5\x2f\xfd", 4) ? "zstd" : !memcmp(magic, "\x1f\x8b", 2) ? "gzip" : NULL;
}

static int unpack(const char *program, int fd, pid_t *child)
{
	char *arguments[] = { (char *)(uintptr_t)program, "-dc", NULL };
	int ends[2];

	if (pipe(ends))
		return -1;
	*child = fork();
	if (!*child) {
		if (dup2(fd, 0) == 0 && dup2(ends[1], 1) == 1) {
			close(ends[0]);
			execvp(program, arguments);
		}
		_exit(127);
	}
	close(ends[1]);
	if (*child < 0) {
		close(ends[0]);
		return -1;
	}
	return ends[0];
}

static bool read_packed(struct logfile *f, const char *program, int fd, const char **why)
{
	pid_t child = -1;
	int status = 0, from = unpack(program, fd, &child);
	bool done = from >= 0 && read_lines(f, from, fd);

	*why = strerror(errno);
	if (from < 0)
		return false;
	close(from);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (!done)
		return false;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		*why = program[0] == 'z' ? "zstd, which unpacks it, cannot be run" : "gzip, which unpacks it, cannot be run";
	else if (status)
		*why = program[0] == 'z' ? "zstd cannot unpack it whole" : "gzip cannot unpack it whole";
	return !status;
}

bool logfile_read(struct logfile *f, const char *path, const char **why)
{
	int fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : 0;
	struct stat st;
	bool done;

	*why = strerror(errno);
	if (fd < 0)
		return false;
	const char *program = packer(fd);
	if (program) {
		done = read_packed(f, program, fd, why);
	} else {
		done = read_lines(f, fd, fd);
		*why = strerror(errno);
	}
	if (!fstat(fd, &st) && S_ISREG(st.st_mode))
		f->octets += (uint64_t)st.st_size;
	if (fd)
		close(fd);
	return done;
}

uint64_t logfile_total(char **paths, int n)
{
	uint64_t total = 0;
	struct stat st;

	for (int i = 0; i < n; i++)
		if (!stat(paths[i], &st) && S_ISREG(st.st_mode))
			total += (uint64_t)st.st_size;
	return total;
}
