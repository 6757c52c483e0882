/* Files of rules for replies. See rulefiles.h for the contract. */
#define _GNU_SOURCE
#include "io/rulefiles.h"
#include "io/file.h"
#include "io/readable.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILE_MAX (1u << 20) /* octets of a file */

static struct replyrules *current;

/* Add the rules of a file. text: room for a whole one. Returns NULL, or what is wrong: with line *line, unless that is 0. */
static const char *add(struct replyrules *rules, unsigned number, const char *path, char *text, unsigned *line)
{
	int fd = readable_open(path);
	ssize_t n = fd < 0 ? -1 : file_read(fd, text, FILE_MAX);
	const char *why = n < 0 ? strerror(errno) : n == FILE_MAX ? "it is larger than 1 MB" : NULL;

	if (fd >= 0)
		close(fd);
	*line = 0;
	return why ? why : replyrules_add(rules, number, text, (size_t)n, line);
}

/* number: of the files of --reply-rules, or `count` for the shipped one. */
static bool add_all(struct replyrules *rules, char *text, const char (*file)[256], unsigned count, char *why, size_t why_cap)
{
	bool shipped = access(RULEFILES_SHIPPED, F_OK) == 0;

	for (unsigned i = 0; i < count + shipped; i++) {
		const char *path = i < count ? file[i] : RULEFILES_SHIPPED;
		unsigned line;
		const char *reason = add(rules, i, path, text, &line);

		if (reason) {
			file_blame(why, why_cap, "reply-rules", path, line, reason);
			return false;
		}
	}
	return true;
}

static size_t size_of(const struct replyrules *rules)
{
	return sizeof *rules + rules->used;
}

/* Make a copy that is shared the current rules. */
static bool share(const struct replyrules *rules)
{
	struct replyrules *copy = file_copy_shared("rules", rules, size_of(rules));

	if (!copy)
		return false;
	if (current)
		munmap(current, size_of(current)); /* sessions have theirs */
	current = copy;
	return true;
}

/* What is compiled goes again, so that a fork need not copy its pages. */
bool rulefiles_load(const char (*file)[256], unsigned count, char *why, size_t why_cap)
{
	const size_t size = REPLYRULES_MAX + FILE_MAX;
	struct replyrules *rules = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool compiled = rules != MAP_FAILED && add_all(rules, (char *)rules + REPLYRULES_MAX, file, count, why, why_cap);
	bool loaded = compiled && share(rules);

	if (rules == MAP_FAILED || (compiled && !loaded))
		snprintf(why, why_cap, "--reply-rules: %s", file_fault());
	if (rules != MAP_FAILED)
		munmap(rules, size);
	return loaded;
}

const struct replyrules *rulefiles_current(void)
{
	return current;
}
