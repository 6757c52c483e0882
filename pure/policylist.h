/* A list of TLS policies by domain: what stands in a file, in one block without pointers, which processes can share. No I/O.
 *
 * A line is a domain, a blank and a policy, tlspolicy.h; ".example.org" is for all names below example.org. A line that begins with a blank
 * continues the one before, lines that are empty or begin with # count for nothing, as in postmap(1).
 */
#ifndef POLICYLIST_H
#define POLICYLIST_H

#include "pure/tlspolicy.h"

#define POLICYLIST_MAX (2u << 20)    /* octets of a block */
#define POLICYLIST_LINE_MAX 16384    /* octets of a line with those that continue it, and one more */

/* The policies follow it, `used` octets. All zero: there is none. */
struct policylist {
	uint32_t used, count;
	bool wants_dane; /* one of them does */
	bool wants_server; /* one of them refuses all servers whose name is not known */
	unsigned char bytes[];
};

/* Add what stands in a file, n octets, to a block of POLICYLIST_MAX octets. Returns NULL, or what is wrong with line *line (static
 * storage), the first of those that belong together. */
const char *policylist_add(struct policylist *list, const char *text, size_t n, unsigned *line);

/* Find the policy of a domain: its own, otherwise that of the nearest domain above it whose line begins with a dot. Of two lines for one
 * domain the first counts. *text: n octets in the list. false: there is none. */
bool policylist_find(const struct policylist *list, const char *domain, const char **text, size_t *n);

#endif
