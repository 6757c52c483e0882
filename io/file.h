/* Files, read and written as a whole, however much read(2) and writev(2) take at a time. Functions that fail set errno.
 */
#ifndef FILE_H
#define FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Read from the file's beginning until its end, or cap octets. Returns octets, or -1. A pipe that ends without any has failed, ENODATA: a
 * FIFO that nobody writes to must not be taken for an empty file. */
ssize_t file_read(int fd, void *into, size_t cap);

/* Write all of the parts; the array is used up. false: not all of them were written. */
bool file_write(int fd, struct iovec *part, int parts);

/* Whether this user could make a file of that name, where there is none. false: errno says why not. */
bool file_may_be_made(const char *path);

/* An empty file in memory, memfd_create(2), that can be sealed. Returns its descriptor, or -1. */
int file_in_memory(const char *name);

/* Why a memory file could not be made, as strerror(3) has it. setrlimit(2) limits these files, too. */
const char *file_fault(void);

/* A descriptor that takes up a number and no more; reads and writes fail. */
int file_reserve(void);

/* From now on nobody can change the memory file, whoever has a descriptor of it; there must be no mapping to write to it. */
bool file_seal(int fd);

/* Memory for what forked processes are to share and none may change: a memory file of so many octets, mapped to be written. Returns NULL
 * if that fails. file_share() seals the file, makes the mapping one to read, which core dumps omit, and closes the file; if it returns
 * false, or in its place after file_unshare(), the memory is gone. */
void *file_new_shared(const char *name, size_t size, int *fd);
bool file_share(void *memory, size_t size, int fd);
void file_unshare(void *memory, size_t size, int fd);

/* A copy of so many octets, as file_share() leaves it. Returns NULL if that fails. */
void *file_copy_shared(const char *name, const void *from, size_t size);

/* Say what is wrong with an option's file: "--OPTION FILE: line LINE: REASON"; line 0: with none of its lines. */
void file_blame(char *why, size_t why_cap, const char *option, const char *file, unsigned line, const char *reason);

/* Give each line of a file to take(), as a string without its LF, which take() may write to. Gives none if the file cannot be
 * read, see readable.h. Skips lines of 4095 octets and more, and whatever follows the first 16 MB. */
void file_lines(const char *path, void (*take)(void *arg, char *line), void *arg);

#endif
