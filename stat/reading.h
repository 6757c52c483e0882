/* What `query` and `report` have in common: files on the command line, read one after the other, their records, and a line of progress.
 */
#ifndef READING_H
#define READING_H

#include "stat/arguments.h"
#include "stat/logfile.h"
#include "stat/logfilter.h"

#define READING_FILES 4096

struct reading {
	void (*take)(void *arg, const char *line, size_t n, const struct logrecord *r); /* a record, and its line of n octets */
	void *arg;
	char *path[READING_FILES + 1];
	int paths;
	uint64_t records, wrong; /* wrong: lines that are no records. Skipped */
	bool progress;		 /* on standard error, if that is a terminal */
	uint64_t total, told;	 /* octets of all files; percent that were shown */
	struct logfile file;
};

/* Add a file, or end the program: there are too many. */
void reading_add(struct reading *r, char *path);

/* Take an option of the filter, or end the program: it is none, or its value is wrong. */
void reading_filter(struct logfilter *f, struct arguments *a, const char *option);

/* Read all files, or standard input if there is none. What could not be read, and what was skipped, is said on standard error. Returns the
 * exit status. */
int reading_files(struct reading *r);

#endif
