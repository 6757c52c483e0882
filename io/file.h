/* Files: all of what is in them, and all of what is to go there, however much read(2) and writev(2) take at a time. Functions
 * that fail leave errno.
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

/* Each line of a file, as a string without its LF that take() may write to; none if the file cannot be read. Lines of 4095
 * octets and more are passed over, and whatever follows the first 16 MB. */
void file_lines(const char *path, void (*take)(void *arg, char *line), void *arg);

#endif
