/* Extended regular expressions of POSIX (XBD 9.4), over octets, in any case of letters. Matching follows all states at once, so
 * it takes at most text length times expression length steps, whatever the expression. libc's has a fifth of the size of this
 * whole program. Pure: no I/O, no heap.
 */
#ifndef ERE_H
#define ERE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ERE_STEPS 2000 /* steps of a compiled expression */
#define ERE_SETS 32    /* bracket expressions, after repetitions are written out */

struct ere_step {
	unsigned char op, octet;
	int16_t a, b; /* where to go on, relative to here; of a set: its number */
};

struct ere {
	unsigned steps, sets;
	struct ere_step step[ERE_STEPS];
	unsigned char set[ERE_SETS][32];
};

/* Compile text into *e. Returns NULL, or what is wrong with it (static storage). Refuses what it does not know: back-references
 * and other escaped letters, equivalence classes, collating symbols. */
const char *ere_compile(struct ere *e, const char *text);

/* Whether the expression matches somewhere in n octets. */
bool ere_match(const struct ere *e, const unsigned char *in, size_t n);

#endif
