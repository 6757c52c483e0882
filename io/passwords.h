/* User names and passwords for upstreams: the file of --upstream-auth. passwords_find() is pure.
 */
#ifndef PASSWORDS_H
#define PASSWORDS_H

#include "pure/sasl.h"

#include <stdbool.h>
#include <stdint.h>

/* Search a text of lines as in Postfix's sasl_passwd: "HOST[:PORT] USER:PASSWORD". HOST may be in brackets; "*" stands for all
 * other hosts; blank lines and lines that begin with '#' are skipped. *p becomes the first pair for host (in any case of
 * letters) and port, that of "*" if there is no other. host NULL: only check the text. Returns the number of the first
 * malformed line that was met, 0: none. found: whether *p is set. */
unsigned passwords_find(const char *text, size_t n, const char *host, uint16_t port, struct sasl_pair *p, bool *found);

/* Read the file in place of the former one; processes that were forked keep what they have. The name must stay. false:
 * everything is as before, and why filled: "--upstream-auth FILE: reason". */
bool passwords_load(const char *file, char *why, size_t why_cap);

/* The pair for this server. false: the file has none, or there is no file. */
bool passwords_for(const char *host, uint16_t port, struct sasl_pair *p);

/* Whether users other than the file's owner and group can read or write it. */
bool passwords_exposed(void);

/* Overwrite and forget what was read. */
void passwords_wipe(void);

#endif
