/* Fuzz target: whatever stands in the file of --routes, whoever the recipient is.
 *
 * Octet 0: how long the recipient is; then the recipient, then the file. Checked: the file read through and the file behind
 * an index say the same; a line that is found is one of the file's. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/routes.h"
#include "test/lib/replay.h"

#define CHECK(condition) ((condition) ? (void)0 : abort())

struct found {
	unsigned lines;
	char server[ROUTES_LINE_MAX + 1], tls[ROUTES_LINE_MAX + 1];
};

static const char *take(const struct routes_line *l, void *arg)
{
	struct found *f = arg;

	CHECK(l->pattern_len > 0 && strlen((const char *)l->pattern) == l->pattern_len && *l->server);
	strcpy(f->server, l->server);
	strcpy(f->tls, l->tls);
	f->lines++;
	return NULL;
}

/* A line by itself, in an exact copy with the one octet more that may be written to. */
static void check_line(const uint8_t *in, size_t n)
{
	unsigned char *copy = malloc(n + 1);
	struct routes_line l;
	const char *why = NULL;

	CHECK(copy != NULL);
	memcpy(copy, in, n);
	CHECK((routes_parse(copy, n, &l, &why) == ROUTES_BAD) == (why != NULL));
	free(copy);
}

static void check_file(const char *path, const uint8_t *address, size_t n)
{
	struct found scanned = { 0 }, indexed = { 0 }, unused = { 0 };
	enum routes_result by_scan, by_index;
	char why[300] = "";
	int fd;

	routes_use_index(-1);
	by_scan = routes_find(path, address, n, "+-", take, &scanned, why, sizeof why);
	CHECK((by_scan == ROUTES_FAILED) == (why[0] != 0) && scanned.lines == (by_scan == ROUTES_FOUND));
	fd = memfd_create("index", 0);
	if (!routes_index(path, fd, take, &unused, why, sizeof why)) {
		CHECK(by_scan == ROUTES_FAILED && why[0]);
		close(fd);
		return;
	}
	routes_use_index(fd);
	by_index = routes_find(path, address, n, "+-", take, &indexed, why, sizeof why);
	CHECK(by_index == by_scan && indexed.lines == scanned.lines);
	CHECK(strcmp(indexed.server, scanned.server) == 0 && strcmp(indexed.tls, scanned.tls) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const char blank[] = "                                                               \n";
	size_t len;
	char path[64];
	int fd;

	if (n < 1)
		return 0;
	len = data[0] < n ? data[0] : n - 1;
	check_line(data + 1 + len, n - 1 - len);
	fd = memfd_create("routes", 0);
	CHECK(fd >= 0 && write(fd, data + 1 + len, n - 1 - len) == (ssize_t)(n - 1 - len) && write(fd, "\n", 1) == 1);
	for (size_t i = 0; i <= ROUTES_SMALL; i += sizeof blank - 1) /* an index is for large files */
		CHECK(write(fd, blank, sizeof blank - 1) > 0);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	check_file(path, data + 1, len);
	close(fd);
	return 0;
}
