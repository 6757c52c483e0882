/* The file of --tls-policy. See policyfile.h for the contract. */
#define _GNU_SOURCE
#include "io/policyfile.h"
#include "io/file.h"
#include "io/readable.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILE_MAX (1u << 20)

static struct policylist *current;

/* Add what stands in the file. text: room for all of it. Returns NULL, or what is wrong: with line *line, unless that is 0. */
static const char *add(struct policylist *list, const char *file, char *text, unsigned *line)
{
	int fd = readable_open(file);
	ssize_t n = fd < 0 ? -1 : file_read(fd, text, FILE_MAX);
	const char *why = n < 0 ? strerror(errno) : n == FILE_MAX ? "it is larger than 1 MB" : NULL;

	if (fd >= 0)
		close(fd);
	*line = 0;
	return why ? why : policylist_add(list, text, (size_t)n, line);
}

static size_t size_of(const struct policylist *list)
{
	return sizeof *list + list->used;
}

/* Make a copy that is shared the current list. */
static bool share(const struct policylist *list)
{
	struct policylist *copy = file_copy_shared("policies", list, size_of(list));

	if (!copy)
		return false;
	if (current)
		munmap(current, size_of(current)); /* sessions have theirs */
	current = copy;
	return true;
}

/* Where the list comes together goes again, so that a fork need not copy its pages. */
bool policyfile_load(const char *file, char *why, size_t why_cap)
{
	const size_t size = POLICYLIST_MAX + FILE_MAX;
	struct policylist *list = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const char *reason = NULL;
	unsigned line = 0;

	if (list != MAP_FAILED)
		reason = add(list, file, (char *)list + POLICYLIST_MAX, &line);
	if (list == MAP_FAILED || (!reason && !share(list))) {
		reason = file_fault();
		line = 0;
	}
	if (list != MAP_FAILED)
		munmap(list, size);
	if (reason)
		file_blame(why, why_cap, "tls-policy", file, line, reason);
	return !reason;
}

bool policyfile_loaded(void)
{
	return current != NULL;
}

bool policyfile_wants_dane(void)
{
	return current && current->wants_dane;
}

bool policyfile_wants_server(void)
{
	return current && current->wants_server;
}

bool policyfile_find(const char *domain, struct tlspolicy *p)
{
	const char *text;
	size_t n;

	return current && policylist_find(current, domain, &text, &n) && !tlspolicy_parse(p, text, n);
}
