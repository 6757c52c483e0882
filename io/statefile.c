/* The file of --state. See statefile.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/statefile.h"
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TRIES 64	/* places that a session tries */
#define DEPTH_MAX 1000	/* of ranges within ranges; more are nobody's but a hostile session's */

uint64_t statefile_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- making it ---- */

/* All octets are written: a page that a full file system cannot back would kill who touches it, SIGBUS. */
static bool fill(int fd)
{
	static char zero[4096];

	for (size_t n = 0; n < sizeof(struct statemap); n += sizeof zero) {
		size_t part = sizeof(struct statemap) - n < sizeof zero ? sizeof(struct statemap) - n : sizeof zero;
		struct iovec iov = { zero, part };

		if (!file_write(fd, &iov, 1))
			return false;
	}
	return true;
}

static bool begin(int fd)
{
	uint64_t secret[2];
	struct statemap *m = MAP_FAILED;

	if (fill(fd) && getrandom(secret, sizeof secret, 0) == sizeof secret)
		m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		return false;
	statemap_begin(m, secret, (uint64_t)time(NULL), statefile_now());
	munmap(m, sizeof *m);
	return true;
}

/* Under another name first, so that nobody finds half a map. One that somebody else has made meanwhile serves as well. */
static bool make(const char *file)
{
	char name[512];
	bool made;
	int fd, error;

	if (snprintf(name, sizeof name, "%s.%ld", file, (long)getpid()) >= (int)sizeof name) {
		errno = ENAMETOOLONG;
		return false;
	}
	unlink(name); /* of a process that died with our number */
	fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640);
	if (fd < 0)
		return false;
	made = begin(fd) && (link(name, file) == 0 || errno == EEXIST);
	error = errno;
	close(fd);
	unlink(name);
	errno = error;
	return made;
}

/* ---- mapping it ---- */

/* reason "": errno tells it. */
static void *refuse(int fd, char why[STATEFILE_WHY], const char *reason)
{
	int error = *reason ? EINVAL : errno;

	snprintf(why, STATEFILE_WHY, "%s", *reason ? reason : strerror(errno));
	if (fd >= 0)
		close(fd);
	errno = error;
	return NULL;
}

/* Behind the vDSO, where each session reads the clock: the near part of the map then is in a page table that it has anyhow. To make one
 * costs it more than a fault. NULL: there is no such place. */
static void *wanted_place(void)
{
	const uintptr_t near = 1 << 16, table = 1 << 21; /* octets; with pages of 4 KiB */
	uintptr_t clock = getauxval(AT_SYSINFO_EHDR), place = (clock + 2 * near - 1) / near * near;

	return clock && place / table == clock / table ? (void *)place : NULL;
}

/* The descriptor stays open. */
static struct statemap *map(int fd, int protection, char why[STATEFILE_WHY])
{
	static const char other[] = "it is no state of this version: remove it, or name another file";
	struct stat st;
	struct statemap *m;

	if (fstat(fd, &st) < 0)
		return refuse(fd, why, "");
	if (!S_ISREG(st.st_mode) || st.st_size != sizeof *m)
		return refuse(fd, why, other);
	if (protection & PROT_WRITE && (st.st_uid != geteuid() || st.st_mode & S_IWOTH))
		return refuse(fd, why, "it belongs to another user, or others may write to it: remove it");
	m = mmap(wanted_place(), sizeof *m, protection, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		return refuse(fd, why, "");
	if (!statemap_fits(m, (size_t)st.st_size)) {
		munmap(m, sizeof *m);
		return refuse(fd, why, other);
	}
	return m;
}

static int open_file(const char *file)
{
	return open(file, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
}

static struct statemap *map_open(int fd, char why[STATEFILE_WHY])
{
	return fd < 0 ? refuse(fd, why, "") : map(fd, PROT_READ | PROT_WRITE, why);
}

bool statefile_check(const char *file, char why[STATEFILE_WHY])
{
	int fd = open_file(file);
	struct statemap *m;

	if (fd < 0 && errno == ENOENT && file_may_be_made(file))
		return true;
	m = map_open(fd, why);
	if (m) {
		munmap(m, sizeof *m);
		close(fd);
	}
	return m;
}

static struct statemap *current;
static int descriptor; /* of it, for the lock of a session */

/* SIGBUS: the file was cut short, and a page of it is gone. Memory of this process takes its place, for mail must go on. Any other SIGBUS
 * kills, as ever. */
static void page_is_gone(int number, siginfo_t *info, void *context)
{
	int error = errno;

	(void)context;
	if ((uintptr_t)info->si_addr - (uintptr_t)current >= sizeof *current || mmap(current, sizeof *current, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		signal(number, SIG_DFL);
	errno = error;
}

bool statefile_use(const char *file, char why[STATEFILE_WHY])
{
	struct sigaction bus = { .sa_sigaction = page_is_gone, .sa_flags = SA_SIGINFO };
	int fd = open_file(file);
	struct statemap *m;

	if (fd < 0 && errno == ENOENT && make(file))
		fd = open_file(file);
	m = map_open(fd, why);
	if (!m)
		return false;
	if (current) {
		munmap(current, sizeof *current);
		close(descriptor);
	}
	current = m;
	descriptor = fd;
	sigaction(SIGBUS, &bus, NULL);
	return true;
}

struct statemap *statefile_current(void)
{
	return current;
}

const struct statemap *statefile_view(const char *file, int *fd, char why[STATEFILE_WHY])
{
	*fd = open(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (*fd < 0)
		return refuse(*fd, why, "");
	return map(*fd, PROT_READ, why);
}

/* ---- the gauge of sessions ---- */

/* Not F_OFD_SETLK: that lock would be one of the listener's descriptor, and last as long. This one is the process's own. */
void statefile_enter(void)
{
	long first = getpid();

	for (unsigned i = 0; i < TRIES; i++) {
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1,
			.l_start = STATEMAP_PLACES_AT + (first + i) % STATEMAP_PLACES };

		if (fcntl(descriptor, F_SETLK, &lock) == 0)
			return;
	}
}

/* fcntl(2) names any one lock of a range, so what is left on both sides of it is asked for again. */
static unsigned locks(int fd, off_t start, off_t end, unsigned depth)
{
	unsigned found = 0;

	while (start < end && depth < DEPTH_MAX) {
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = end - start };

		if (fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK || lock.l_len <= 0)
			break;
		found += (unsigned)(lock.l_len < end - start ? lock.l_len : end - start) + locks(fd, start, lock.l_start, depth + 1);
		start = lock.l_start + lock.l_len;
	}
	return found;
}

unsigned statefile_sessions(int fd)
{
	return locks(fd, STATEMAP_PLACES_AT, STATEMAP_PLACES_AT + STATEMAP_PLACES, 0);
}
