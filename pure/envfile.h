/* Files of variables, as systemd.exec(5) has them for EnvironmentFile=: not what a shell would make of them.
 */
#ifndef ENVFILE_H
#define ENVFILE_H

#include <stdbool.h>
#include <stddef.h>

struct envfile {
	char **variables; /* "NAME=VALUE", the last NULL; they point into the text */
	size_t count, most; /* most: without the NULL */
	unsigned line; /* of the fault, from 1 on */
	const char *why; /* what is wrong there, static storage */
};

/* Split the n octets at text, which are overwritten; there must be room for one more. Of several lines with one name the last counts.
 * false: f->line and f->why say what systemd would pass over in silence, or what its versions read differently. */
bool envfile_read(struct envfile *f, char *text, size_t n);

#endif
