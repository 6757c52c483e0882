/* The file of --providers: whose mail servers they are, by the ends of their names. pure/site.h has its form. */
#ifndef PROVIDERS_H
#define PROVIDERS_H

#include <stdbool.h>
#include <stddef.h>

/* Read the file, for this process and those that it forks. may_miss: a file that is not there is empty. false: there is a fault, *why says
 * "--providers FILE: line N: reason", and what was read before is still in use. */
bool providers_load(const char *file, bool may_miss, char *why, size_t why_cap);

/* What was read last, *n octets; NULL: nothing. */
const char *providers_text(size_t *n);

#endif
