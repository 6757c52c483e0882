/* --routes FILE: which line of it a recipient's is. Lines are "pattern;server;tls_verify", as smtpwarp(8), Routes, has
 * them; what a server or a level is, the caller's judge knows. Knows no sessions and no sockets.
 *
 * The file is read with pread(2), never mapped: who cuts a file that others have mapped kills them. So a lookup costs a
 * process a page or two. A small file is read through. A large one has an index: a table of hashes and offsets, in a
 * file beside it (routes_compile()) or in a memory file that the listener makes (routes_index()). It is only a short
 * cut to lines of the file, and counts only while it fits the file (inode, size, time); without one, the file is read
 * through, however long that takes.
 */
#ifndef ROUTES_H
#define ROUTES_H

#include "pure/route.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ROUTES_LINE_MAX 4096   /* octets of a line with its end */
#define ROUTES_SMALL (64 << 10) /* octets of a file that needs no index */

enum routes_kind { ROUTES_LINE, ROUTES_NOTHING, ROUTES_BAD };

/* Take a line of n octets apart, with or without its end; it is written to, up to line[n]. NOTHING: a comment, the
 * header (which has a pattern, "pattern"), or blank. BAD: *why says what is wrong (static storage). Fields may stand in
 * quotation marks, as RFC 4180 has it; a quoted local part (RFC 5321 4.1.2) may hold semicolons and blanks. */
enum routes_kind routes_parse(unsigned char *line, size_t n, struct routes_line *out, const char **why);

/* NULL: server and level of a line are good. Else what is wrong with them. */
typedef const char *routes_judge(const struct routes_line *line, void *arg);

/* In what follows, why gets "FILE: reason" or "FILE: line N: reason". */

enum routes_result { ROUTES_FOUND, ROUTES_NONE, ROUTES_FAILED };

/* The line for this recipient goes to judge, whose word on it is final: FAILED with why, as for a file that cannot be
 * read or has a line that is none. Looked for, in this order: the address; the address without what begins with one
 * of delimiters in its local part; the domain; its parents as ".parent", nearest first; "*". Upper and lower case are the
 * same, but of two addresses that differ in nothing else the one that is written as the recipient is goes first. Of equal
 * patterns the last line counts. */
enum routes_result routes_find(const char *path, const unsigned char *address, size_t n, const char *delimiters,
    routes_judge *judge, void *arg, char *why, size_t cap);

/* Check every line of the file, and write its index into the descriptor, an empty file; -1: only check. Its first line may be a
 * header of other names, for which judge has no good word: then why is not "" though all is well. */
bool routes_index(const char *path, int out, routes_judge *judge, void *arg, char *why, size_t cap);

/* The same into FILE.index, which is replaced at once. */
bool routes_compile(const char *path, routes_judge *judge, void *arg, char *why, size_t cap);

/* Use this descriptor's index from now on, here and in processes that are forked; the one before is closed. */
void routes_use_index(int fd);

/* Whether the file is large, has no index that fits it, and was another when this was asked last. */
bool routes_wants_index(const char *path);

#endif
