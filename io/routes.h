/* The file of --routes: which line is a recipient's. Lines are "pattern;server;tls_verify", see Routes in smtpwarp(8). The
 * caller's judge knows what a server and a level are. Knows no sessions and no sockets. The file is read with pread(2), not
 * mapped: whoever truncates a file that is mapped kills the processes that map it. So a lookup costs a process a page or two. A
 * small file is read through. A large one has an index, a table of hashes and offsets: in a file beside it (routes_compile()),
 * or in a memory file that the listener makes (routes_index()). The index only shortens the search. It counts while it fits the
 * file (inode, size, time); otherwise the file is read through, however long that takes.
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

/* Split a line of n octets, with or without its end; writes to it, up to line[n]. NOTHING: a comment, a blank line, or the
 * header, which has the pattern "pattern". BAD: *why says what is wrong (static storage). Fields may be in quotation marks, as
 * in RFC 4180; a quoted local part (RFC 5321 4.1.2) may contain semicolons and blanks. */
enum routes_kind routes_parse(unsigned char *line, size_t n, struct routes_line *out, const char **why);

/* Returns NULL if server and level of a line are good, else what is wrong with them. */
typedef const char *routes_judge(const struct routes_line *line, void *arg);

/* Below, why gets "FILE: reason" or "FILE: line N: reason". */

enum routes_result { ROUTES_FOUND, ROUTES_NONE, ROUTES_FAILED };

/* Find the line for this recipient and give it to judge, whose word is final: FAILED with why, as for a file that cannot be
 * read or has a malformed line. Searches, in this order: the address; the address without what begins with one of delimiters in
 * its local part; the domain; its parents as ".parent", nearest first; "*". A domain that is not ASCII is looked for as it is
 * and, after that, in ASCII (pure/idna.h). Letters match in any case, but of two addresses
 * that differ only in that, the one written as the recipient goes first. Of equal patterns the last line counts. */
enum routes_result routes_find(const char *path, const unsigned char *address, size_t n, const char *delimiters,
    routes_judge *judge, void *arg, char *why, size_t cap);

/* Check every line of the file, and write its index to the descriptor `out`, an empty file; -1: only check. The first line may
 * be a header of other names, which judge refuses: then why is filled, and the result is true all the same. */
bool routes_index(const char *path, int out, routes_judge *judge, void *arg, char *why, size_t cap);

/* The same into FILE.index, which is replaced atomically. */
bool routes_compile(const char *path, routes_judge *judge, void *arg, char *why, size_t cap);

/* Use the index in this descriptor from now on, here and in processes that are forked. Closes the former one. */
void routes_use_index(int fd);

/* Whether the file is large, has no index that fits it, and has changed since the last call. */
bool routes_wants_index(const char *path);

#endif
