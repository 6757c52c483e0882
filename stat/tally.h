/* Counts by name, of which there may be any number, in bounded memory: when it is full, the rarer half of the names goes. The frequent
 * ones stay, and *lost says how much any count may lack.
 */
#ifndef TALLY_H
#define TALLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TALLY_NAME 240 /* octets of a name, with its NUL; a longer one is cut */
#define TALLY_COUNTS 4

struct tally_entry {
	uint64_t hash;
	uint64_t count[TALLY_COUNTS]; /* the first says how frequent it is */
	int64_t last;
	char name[TALLY_NAME];
};

struct tally {
	struct tally_entry *entry; /* of cap */
	uint32_t *place;	   /* 1 + number of an entry, by hash; 2 * cap of them */
	unsigned n, cap;
	uint64_t lost; /* no count lacks more than this */
};

/* cap: a power of two. false: there is no memory. */
bool tally_begin(struct tally *t, unsigned cap);

/* The entry of this name; it is new if all its counts are 0. The caller adds to it before the next call: pointers do not last. */
struct tally_entry *tally_of(struct tally *t, const char *name);

/* Order by the first count, the highest first. After this only entry[] and n are good. */
void tally_sort(struct tally *t);

#endif
