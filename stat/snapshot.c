/* Snapshots. See snapshot.h for the contract. */
#define _GNU_SOURCE
#include "stat/snapshot.h"

#include "io/statefile.h"
#include "pure/verdict.h"
#include "stat/plain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

uint64_t snapshot_traffic(const struct snapshot_row *r)
{
	uint64_t traffic = 0;

	for (unsigned i = STATEMAP_CONNECT_OK; i <= STATEMAP_MESSAGE_UNKNOWN; i++)
		traffic += r->counter[i];
	return traffic;
}

void snapshot_add(struct snapshot_row *to, const struct snapshot_row *from)
{
	for (unsigned i = 0; i < STATEMAP_COUNTERS_END; i++)
		to->counter[i] += from->counter[i];
	for (unsigned p = 0; p < STATEMAP_PHASES_END; p++) {
		to->sum[p] += from->sum[p];
		for (unsigned i = 0; i < STATEMAP_BUCKET_COUNT; i++)
			to->bucket[p][i] += from->bucket[p][i];
	}
	if (from->first < to->first)
		to->first = from->first;
	if (from->last > to->last)
		to->last = from->last;
}

/* false: the slot is free, or just being claimed. */
static bool take_row(struct snapshot_row *r, const struct statemap_slot *s)
{
	memset(r, 0, sizeof *r);
	if (!statemap_names(s, r->site, r->source))
		return false;
	plain_make(r->site, sizeof r->site);
	plain_make(r->source, sizeof r->source);
	for (unsigned i = 0; i < STATEMAP_COUNTERS_END; i++)
		r->counter[i] = statemap_get(&s->counter[i]);
	for (unsigned p = 0; p < STATEMAP_PHASES_END; p++) {
		r->sum[p] = statemap_get(&s->sum[p]);
		for (unsigned i = 0; i < STATEMAP_BUCKET_COUNT; i++)
			r->bucket[p][i] = statemap_get_bucket(&s->bucket[p][i]);
	}
	r->first = statemap_get(&s->first);
	r->last = statemap_get(&s->last);
	statemap_detector(s, &r->detector);
	r->said = statemap_said(s, &r->class, r->text) && *r->text;
	plain_make(r->text, sizeof r->text);
	return true;
}

static int by_name(const void *a, const void *b)
{
	const struct snapshot_row *one = a, *other = b;
	int site = strcmp(one->site, other->site);

	return site ? site : strcmp(one->source, other->source);
}

/* The map never has two slots of the same names, unless somebody has damaged it. */
static void merge_rows(struct snapshot *s)
{
	unsigned n = 0;

	qsort(s->row, s->rows, sizeof *s->row, by_name);
	for (unsigned i = 0; i < s->rows; i++)
		if (n && !by_name(&s->row[n - 1], &s->row[i]))
			snapshot_add(&s->row[n - 1], &s->row[i]);
		else if (n++ != i)
			s->row[n - 1] = s->row[i];
	s->rows = n;
}

static void take_hook(struct snapshot *s, const struct statemap_hook *from)
{
	struct snapshot_hook *h = &s->hook[s->hooks];

	memset(h, 0, sizeof *h);
	if (!statemap_hook_name(from, h->name) || !*h->name)
		return;
	plain_make(h->name, sizeof h->name);
	h->event = __atomic_load_n(&from->event, __ATOMIC_RELAXED);
	h->event = h->event < HOOK_EVENT_COUNT ? h->event : HOOK_EVENT_COUNT;
	for (unsigned i = 0; i < s->hooks; i++)
		if (s->hook[i].event == h->event && !strcmp(s->hook[i].name, h->name))
			return;
	h->failures = statemap_get(&from->failures);
	h->sum = statemap_get(&from->sum);
	for (unsigned i = 0; i < STATEMAP_BUCKET_COUNT; i++)
		h->bucket[i] = statemap_get_bucket(&from->bucket[i]);
	s->hooks++;
}

struct snapshot *snapshot_take(const char *file, char *why, unsigned cap)
{
	static struct snapshot s;
	char reason[STATEFILE_WHY];
	int fd;
	const struct statemap *m = statefile_view(file, &fd, reason);

	if (!m) {
		snprintf(why, cap, "%s: %s", file, reason);
		return NULL;
	}
	s.rows = s.hooks = 0;
	for (unsigned i = 0; i < STATEMAP_SLOTS; i++)
		s.rows += take_row(&s.row[s.rows], &m->slot[i]);
	merge_rows(&s);
	for (unsigned i = 0; i < STATEMAP_HOOKS; i++)
		take_hook(&s, &m->hook[i]);
	for (unsigned i = 0; i < STATEMAP_TOTALS_END; i++)
		s.total[i] = statemap_get(&m->total[i]);
	s.created = (int64_t)(statemap_get(&m->created_unix) - statemap_get(&m->created) / 1000000);
	s.now = statefile_now();
	s.sessions = statefile_sessions(fd);
	munmap((void *)(uintptr_t)m, sizeof *m);
	close(fd);
	return &s;
}

double snapshot_percentile(const uint64_t bucket[STATEMAP_BUCKET_COUNT], unsigned percent)
{
	static const uint64_t bound[] = {
#define X(us, text) us,
		STATEMAP_BUCKETS(X)
#undef X
	};
	double total = 0, sum = 0, wanted, below;
	unsigned i;

	for (i = 0; i < STATEMAP_BUCKET_COUNT; i++)
		total += (double)bucket[i];
	if (total < 1)
		return -1;
	wanted = total * percent / 100;
	for (i = 0; i < STATEMAP_BUCKET_COUNT - 1 && sum + (double)bucket[i] < wanted; i++)
		sum += (double)bucket[i];
	below = i ? (double)bound[i - 1] : 0;
	if (i == STATEMAP_BUCKET_COUNT - 1 || !bucket[i])
		return below / 1000;
	return (below + ((double)bound[i] - below) * (wanted - sum) / (double)bucket[i]) / 1000;
}
