/* Files that a session may still read when it is confined and can open none: they are opened before. Those of a listener are opened once
 * for all its sessions, and again when another file has taken their place, so that a session reads files as they were when it began.
 *
 * Paths stay the caller's.
 */
#ifndef READABLE_H
#define READABLE_H

#include <stdbool.h>

#define READABLE_MAX 24 /* files */

/* This file will be read, if it is there: open it. NULL: none. */
void readable_add(const char *path);

/* Open again what is another file by now, or was not there. */
void readable_refresh(void);

/* From now on this process opens no files. A process that it was forked from goes on to do so; in a forked one nothing is written, so that
 * the page stays shared. */
void readable_confine(void);

/* Whether this process opens no files. */
bool readable_is_confined(void);

/* Open a file to read it. Returns a descriptor that is the caller's, or -1 with errno set. Others may have the same file position: use
 * pread(2). */
int readable_open(const char *path);

#endif
