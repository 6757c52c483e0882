/* How much memory there is. See memory.h for the contract. */
#define _GNU_SOURCE
#include "io/memory.h"
#include "io/file.h"
#include "io/readable.h"

#include <stdlib.h>
#include <sys/sysinfo.h>
#include <unistd.h>

/* The file is there only inside of a container: the host's own group at this place has no limits. */
static uint64_t container_limit(void)
{
	char text[24] = "";
	int fd = readable_open(MEMORY_LIMIT_FILE);

	if (fd < 0)
		return 0;
	file_read(fd, text, sizeof text - 1);
	close(fd);
	return strtoull(text, NULL, 10); /* 0: "max" */
}

uint64_t memory_total(void)
{
	uint64_t limit = container_limit(), all = UINT64_MAX;
	struct sysinfo info;

	if (sysinfo(&info) == 0)
		all = (uint64_t)info.totalram * info.mem_unit;
	return limit && limit < all ? limit : all;
}
