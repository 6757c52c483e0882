/* Counts by name. See tally.h for the contract. */
#include "stat/tally.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool tally_begin(struct tally *t, unsigned cap)
{
	*t = (struct tally){ .cap = cap };
	t->entry = calloc(cap, sizeof *t->entry);
	t->place = calloc(2 * (size_t)cap, sizeof *t->place);
	return t->entry && t->place;
}

/* FNV-1a. Who chooses names that collide makes this slow, by 2 * cap steps a name at most. */
static uint64_t hash_of(const char *name)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	for (size_t i = 0; name[i] && i < TALLY_NAME - 1; i++)
		hash = (hash ^ (unsigned char)name[i]) * 0x100000001b3ull;
	return hash ^ hash >> 29;
}

static uint32_t *place_of(struct tally *t, uint64_t hash, const char *name)
{
	uint32_t mask = 2 * t->cap - 1, at = (uint32_t)hash & mask;

	while (t->place[at]) {
		const struct tally_entry *e = &t->entry[t->place[at] - 1];
		if (e->hash == hash && !strncmp(e->name, name, TALLY_NAME - 1))
			break;
		at = (at + 1) & mask;
	}
	return &t->place[at];
}

static int compare(const void *a, const void *b)
{
	const struct tally_entry *one = a, *other = b;

	if (one->count[0] != other->count[0])
		return one->count[0] < other->count[0] ? 1 : -1;
	return strcmp(one->name, other->name);
}

void tally_sort(struct tally *t)
{
	qsort(t->entry, t->n, sizeof *t->entry, compare);
}

static void halve(struct tally *t)
{
	tally_sort(t);
	t->n = t->cap / 2;
	t->lost += t->entry[t->n].count[0];
	memset(t->place, 0, 2 * (size_t)t->cap * sizeof *t->place);
	for (unsigned i = 0; i < t->n; i++)
		*place_of(t, t->entry[i].hash, t->entry[i].name) = i + 1;
}

struct tally_entry *tally_of(struct tally *t, const char *name)
{
	uint64_t hash = hash_of(name);
	uint32_t *place = place_of(t, hash, name);

	if (*place)
		return &t->entry[*place - 1];
	if (t->n == t->cap) {
		halve(t);
		place = place_of(t, hash, name);
	}
	struct tally_entry *e = &t->entry[t->n++];
	*place = t->n;
	*e = (struct tally_entry){ .hash = hash };
	snprintf(e->name, sizeof e->name, "%s", name);
	return e;
}
