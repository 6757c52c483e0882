/* Log files, line by line: plain ones, and such as zstd(1) or gzip(1) have compressed, through these programs.
 */
#ifndef LOGFILE_H
#define LOGFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOGFILE_LINE_MAX (4u << 20) /* octets; a record has 2 MiB at most, and some */

/* What takes lines, and how far it has got. */
struct logfile {
	void (*take)(void *arg, const char *line, size_t n); /* n octets, the LF not among them */
	void *arg;
	uint64_t torn;	    /* last lines without LF: what a file lost at its end, or was not written yet. Skipped */
	uint64_t too_long;  /* lines of more than LOGFILE_LINE_MAX. Skipped */
	uint64_t octets;    /* read so far, as they lie in the file */
	void (*tell)(void *arg, uint64_t octets); /* NULL, or is told now and then */
};

/* Read a file; "-": standard input, not compressed. false: *why says what is wrong with it; what could be read was taken. */
bool logfile_read(struct logfile *f, const char *path, const char **why);

/* Octets of all these files together. */
uint64_t logfile_total(char **paths, int n);

#endif
