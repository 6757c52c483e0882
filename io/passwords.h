/* User names and passwords for upstreams: the file of --upstream-auth. passwords_find() is pure.
 */
#ifndef PASSWORDS_H
#define PASSWORDS_H

#include "pure/sasl.h"

#include <stdbool.h>
#include <stdint.h>

/* Look through a text of lines as Postfix has them in sasl_passwd: "HOST[:PORT] USER:PASSWORD", HOST perhaps in brackets, or
 * "*" for all others; lines that begin with '#' or are blank do not count. The first for host (in any case) and port is *p;
 * "*" only if there is none. host NULL: only check the text. Returns the number of the first line that is malformed, 0:
 * there is none. found: whether there is one, ahead of any that is malformed. */
unsigned passwords_find(const char *text, size_t n, const char *host, uint16_t port, struct sasl_pair *p, bool *found);

/* Read the file, in place of the one before; processes that were forked keep what they have. The name must stay. false: all
 * is as before, and why filled: "--upstream-auth FILE: reason". */
bool passwords_load(const char *file, char *why, size_t why_cap);

/* What to say to this server. false: nothing, there is no such line or no file. */
bool passwords_for(const char *host, uint16_t port, struct sasl_pair *p);

/* Whether others than its owner and group may read the file. */
bool passwords_exposed(void);

/* Overwrite and forget what was read. */
void passwords_wipe(void);

#endif
