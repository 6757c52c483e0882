/* Files, read and written as a whole, however much read(2) and writev(2) take at a time. Functions that fail set errno.
 */
#ifndef FILE_H
#define FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Read until the end or cap octets. Returns octets, or -1. */
ssize_t file_read(int fd, void *into, size_t cap);

/* Write all of the parts; the array is used up. false: not all of them were written. */
bool file_write(int fd, struct iovec *part, int parts);

/* Give each line of a file to take(), as a string without its LF, which take() may write to. Gives none if the file cannot be
 * read. Skips lines of 4095 octets and more, and whatever follows the first 16 MB. */
void file_lines(const char *path, void (*take)(void *arg, char *line), void *arg);

#endif
