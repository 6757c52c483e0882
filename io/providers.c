/* The file of --providers. See providers.h for the contract. */
#define _GNU_SOURCE
#include "io/providers.h"
#include "io/file.h"
#include "io/readable.h"
#include "pure/site.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX (32 << 10)

/* Only pages that are used take memory. */
static char texts[2][FILE_MAX];
static size_t length;
static unsigned current;
static bool loaded;

/* What is wrong with the file; NULL: nothing. *line 0: no line of it. */
static const char *read_file(const char *file, bool may_miss, char *text, size_t *n, unsigned *line)
{
	const char *why = NULL;
	int fd = readable_open(file);
	ssize_t got = fd < 0 ? -1 : file_read(fd, text, FILE_MAX);

	*line = 0;
	*n = got < 0 ? 0 : (size_t)got;
	if (got < 0)
		why = may_miss && errno == ENOENT ? NULL : strerror(errno);
	else if (got == FILE_MAX)
		why = "it is larger than 32 KB";
	else
		*line = site_check(text, *n, &why);
	if (fd >= 0)
		close(fd);
	return got < 0 || *line || got == FILE_MAX ? why : NULL;
}

bool providers_load(const char *file, bool may_miss, char *why, size_t why_cap)
{
	size_t n;
	unsigned line;
	const char *reason = read_file(file, may_miss, texts[!current], &n, &line);

	if (reason) {
		file_blame(why, why_cap, "providers", file, line, reason);
		return false;
	}
	current = !current;
	length = n;
	loaded = true;
	return true;
}

const char *providers_text(size_t *n)
{
	*n = length;
	return loaded ? texts[current] : NULL;
}
