/* Files: all of what is there, and all of what is given, whatever read(2) and writev(2) do at a time. Functions that fail leave
 * errno.
 */
#ifndef FILE_H
#define FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Read up to the end, cap octets at most. Returns octets, or -1. */
ssize_t file_read(int fd, void *into, size_t cap);

/* Write all of the parts, which are used up. false: not all of them went. */
bool file_write(int fd, struct iovec *part, int parts);

#endif
