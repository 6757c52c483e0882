/* Files for confined sessions. See readable.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/readable.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct readable {
	const char *path;
	int fd; /* -1: it could not be opened, for `error` */
	int error;
} files[READABLE_MAX];
static unsigned count;
static pid_t opener; /* the process that opens files itself; those that it has forked do not. -1: none does */

static struct readable *find(const char *path)
{
	for (unsigned i = 0; i < count; i++)
		if (strcmp(files[i].path, path) == 0)
			return &files[i];
	return NULL;
}

/* O_NONBLOCK: a FIFO in its place must not delay us. */
static int open_now(const char *path)
{
	return open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

static void take(struct readable *r)
{
	r->fd = open_now(r->path);
	r->error = r->fd < 0 ? errno : 0;
}

void readable_add(const char *path)
{
	if (!opener)
		opener = getpid();
	if (!path || find(path) || count == READABLE_MAX)
		return;
	files[count].path = path;
	take(&files[count++]);
}

/* What has not changed is not written to: the page stays shared with sessions. */
void readable_refresh(void)
{
	for (unsigned i = 0; i < count; i++) {
		struct readable *r = &files[i];
		struct stat there, ours;
		bool is_there = stat(r->path, &there) == 0;

		if (is_there ? r->fd >= 0 && fstat(r->fd, &ours) == 0 && ours.st_dev == there.st_dev && ours.st_ino == there.st_ino : r->fd < 0)
			continue;
		if (r->fd >= 0)
			close(r->fd);
		take(r);
	}
}

void readable_confine(void)
{
	if (!opener || opener == getpid())
		opener = -1;
}

bool readable_is_confined(void)
{
	return opener && opener != getpid();
}

int readable_open(const char *path)
{
	const struct readable *r;

	if (!readable_is_confined())
		return open_now(path);
	r = find(path);
	if (r && r->fd >= 0)
		return fcntl(r->fd, F_DUPFD_CLOEXEC, 0);
	errno = r ? r->error : EACCES;
	return -1;
}
