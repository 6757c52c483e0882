/* The map of --state. See statemap.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "pure/statemap.h"

#include <string.h>

#define WINDOW 16 /* slots in which one is looked for */
#define CLAIM_LIFE 1000000ull /* microseconds: a claim that takes longer was begun by a process that died */
#define SILENT_FOR (3600 * 1000000ull)

#define GET(p) __atomic_load_n(p, __ATOMIC_RELAXED)
#define PUT(p, n) __atomic_store_n(p, n, __ATOMIC_RELAXED)

/* ---- the hash ---- */

static uint64_t rotated(uint64_t x, unsigned bits)
{
	return x << bits | x >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[2] += v[3];
	v[1] = rotated(v[1], 13) ^ v[0];
	v[3] = rotated(v[3], 16) ^ v[2];
	v[0] = rotated(v[0], 32);
	v[2] += v[1];
	v[0] += v[3];
	v[1] = rotated(v[1], 17) ^ v[2];
	v[3] = rotated(v[3], 21) ^ v[0];
	v[2] = rotated(v[2], 32);
}

/* SipHash-2-4, Aumasson and Bernstein 2012. */
static uint64_t siphash(const uint64_t secret[2], const unsigned char *in, size_t n)
{
	uint64_t v[4] = { secret[0] ^ 0x736f6d6570736575ull, secret[1] ^ 0x646f72616e646f6dull, secret[0] ^ 0x6c7967656e657261ull,
		secret[1] ^ 0x7465646279746573ull };

	for (size_t at = 0; at <= n; at += 8) {
		uint64_t word = n - at < 8 ? (uint64_t)n << 56 : 0;

		for (size_t i = 0; i < 8 && at + i < n; i++)
			word |= (uint64_t)in[at + i] << 8 * i;
		v[3] ^= word;
		sip_round(v);
		sip_round(v);
		v[0] ^= word;
	}
	v[2] ^= 0xff;
	for (unsigned i = 0; i < 4; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* Never 0, which marks what is free. */
static uint64_t key_of(const struct statemap *m, const char *first, const char *second)
{
	const uint64_t secret[2] = { GET(m->secret), GET(m->secret + 1) };
	unsigned char both[STATEMAP_SITE + STATEMAP_SOURCE];
	size_t n = strnlen(first, STATEMAP_SITE - 1), k = strnlen(second, STATEMAP_SOURCE - 1);
	uint64_t key;

	memcpy(both, first, n);
	both[n] = 0;
	memcpy(both + n + 1, second, k);
	key = siphash(secret, both, n + 1 + k);
	return key + !key;
}

/* ---- words ---- */

void statemap_add(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

uint64_t statemap_get(const uint64_t *counter)
{
	return GET(counter);
}

uint32_t statemap_get_bucket(const uint32_t *bucket)
{
	return GET(bucket);
}

/* Text of the map is read and written by octets, for another process may do the same now. */
static void put_text(char *to, const char *from, size_t n, size_t cap)
{
	n = n < cap ? n : cap - 1;
	for (size_t i = 0; i < cap; i++)
		PUT(to + i, i < n ? from[i] : 0);
}

static void get_text(const char *from, char *to, size_t cap)
{
	for (size_t i = 0; i < cap; i++)
		to[i] = GET(from + i);
	to[cap - 1] = 0;
}

/* A detector is 8 words of 8 octets, the evidence, and the rest of 4. */
#define LONG_WORDS 8
#define SHORT_WORDS ((sizeof(struct detector) - offsetof(struct detector, share)) / 4)
_Static_assert(offsetof(struct detector, evidence) == 8 * LONG_WORDS, "words of a detector");
_Static_assert(offsetof(struct detector, share) == 8 * LONG_WORDS + 8, "scores and state in one word");

static uint64_t *long_words(const struct detector *d)
{
	return (uint64_t *)(uintptr_t)d;
}

static uint32_t *short_words(const struct detector *d)
{
	return (uint32_t *)((uintptr_t)d + offsetof(struct detector, share));
}

/* The generation, if what it guards can be read; else an odd number. */
static uint32_t begin_reading(const uint32_t *generation)
{
	return __atomic_load_n(generation, __ATOMIC_ACQUIRE);
}

static bool same_still(const uint32_t *generation, uint32_t before)
{
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return GET(generation) == before;
}

/* Make the generation odd. false: somebody else writes. */
static bool begin_writing(uint32_t *generation, uint32_t *was)
{
	*was = GET(generation);
	return !(*was & 1) && __atomic_compare_exchange_n(generation, was, *was + 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static void end_writing(uint32_t *generation, uint32_t was)
{
	__atomic_store_n(generation, was + 2, __ATOMIC_RELEASE);
}

/* ---- the map ---- */

void statemap_begin(struct statemap *m, const uint64_t secret[2], uint64_t unix_s, uint64_t now)
{
	m->layout = STATEMAP_LAYOUT;
	m->slot_size = sizeof *m->slot;
	m->slots = STATEMAP_SLOTS;
	m->secret[0] = secret[0];
	m->secret[1] = secret[1];
	m->created_unix = unix_s;
	m->created = now;
	m->slot[STATEMAP_OTHER].key = key_of(m, "other", "");
	m->slot[STATEMAP_OTHER].first = m->slot[STATEMAP_OTHER].last = now;
	put_text(m->slot[STATEMAP_OTHER].site, "other", 5, STATEMAP_SITE);
	__atomic_store_n(&m->magic, STATEMAP_MAGIC, __ATOMIC_RELEASE);
}

bool statemap_fits(const struct statemap *m, size_t n)
{
	return n == sizeof *m && __atomic_load_n(&m->magic, __ATOMIC_ACQUIRE) == STATEMAP_MAGIC && m->layout == STATEMAP_LAYOUT &&
	    m->slot_size == sizeof *m->slot && m->slots == STATEMAP_SLOTS;
}

/* ---- slots ---- */

/* Where a key may be, the best place first: one of the near slots, then its window. Slot 0 is no part of the table. The first page that a
 * session reads brings fifteen others (Linux, do_fault_around()): with a near slot, which whoever comes first has, that is all the map that
 * it needs. */
#define PLACES (STATEMAP_NEAR + WINDOW)

static unsigned place(uint64_t key, unsigned i)
{
	return 1 + (i < STATEMAP_NEAR ? i : (unsigned)((key + i - STATEMAP_NEAR) % (STATEMAP_SLOTS - 1)));
}

static unsigned find(const struct statemap *m, uint64_t key)
{
	for (unsigned i = 0; i < PLACES; i++)
		if (GET(&m->slot[place(key, i)].key) == key)
			return place(key, i);
	return STATEMAP_OTHER;
}

unsigned statemap_find(const struct statemap *m, const char *site, const char *source)
{
	return find(m, key_of(m, site, source));
}

static void clear_counts(struct statemap_slot *s)
{
	for (unsigned i = 0; i < STATEMAP_COUNTER_ROOM; i++)
		PUT(s->counter + i, 0);
	for (unsigned i = 0; i < STATEMAP_PHASES_END; i++) {
		PUT(s->sum + i, 0);
		for (unsigned j = 0; j < STATEMAP_BUCKET_COUNT; j++)
			PUT(&s->bucket[i][j], 0);
	}
	PUT(&s->detector.evidence, 0);
	for (size_t i = 0; i < LONG_WORDS; i++)
		PUT(long_words(&s->detector) + i, 0);
	for (size_t i = 0; i < SHORT_WORDS; i++)
		PUT(short_words(&s->detector) + i, 0);
	put_text(s->text, "", 0, STATEMAP_TEXT);
}

/* The slot is ours, and nobody reads its names before the generation is even. */
static void write_names(struct statemap_slot *s, const char *site, const char *source, bool used, uint64_t now)
{
	uint32_t generation = GET(&s->generation) | 1;

	PUT(&s->generation, generation);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	PUT(&s->first, now);
	PUT(&s->last, now);
	if (used)
		clear_counts(s);
	put_text(s->site, site, strlen(site), STATEMAP_SITE);
	put_text(s->source, source, strlen(source), STATEMAP_SOURCE);
	__atomic_store_n(&s->generation, generation + 1, __ATOMIC_RELEASE);
}

static bool take(struct statemap_slot *s, uint64_t from, uint64_t key)
{
	return __atomic_compare_exchange_n(&s->key, &from, key, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* The process that claimed this slot may have died before its names were written: then they are ours to write. */
static void finish_claim(struct statemap_slot *s, const char *site, const char *source, uint64_t now)
{
	uint64_t first = GET(&s->first);
	bool unwritten = GET(&s->generation) == 0 || GET(&s->generation) & 1;

	if (unwritten && now > first + CLAIM_LIFE && __atomic_compare_exchange_n(&s->first, &first, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		write_names(s, site, source, false, now);
}

/* The slot of the window that was silent for longest, and is in no hold; STATEMAP_OTHER: all are in use. */
static unsigned longest_silent(const struct statemap *m, uint64_t key, uint64_t now)
{
	uint64_t oldest = now > SILENT_FOR ? now - SILENT_FOR : 0;
	unsigned found = STATEMAP_OTHER;

	for (unsigned i = STATEMAP_NEAR; i < PLACES; i++) {
		const struct statemap_slot *s = &m->slot[place(key, i)];

		if (GET(&s->last) < oldest && GET(&s->detector.until) < now) {
			oldest = GET(&s->last);
			found = place(key, i);
		}
	}
	return found;
}

unsigned statemap_claim(struct statemap *m, const char *site, const char *source, uint64_t now)
{
	uint64_t key = key_of(m, site, source), old;
	unsigned at;

	at = find(m, key);
	if (at != STATEMAP_OTHER) {
		finish_claim(&m->slot[at], site, source, now);
		return at;
	}
	for (unsigned i = 0; i < PLACES; i++) {
		at = place(key, i);
		if (GET(&m->slot[at].key) == 0 && take(&m->slot[at], 0, key)) {
			write_names(&m->slot[at], site, source, false, now);
			return at;
		}
		if (GET(&m->slot[at].key) == key)
			return at;
	}
	at = longest_silent(m, key, now);
	old = GET(&m->slot[at].key);
	if (at == STATEMAP_OTHER || !take(&m->slot[at], old, key))
		return STATEMAP_OTHER;
	write_names(&m->slot[at], site, source, true, now);
	statemap_add(m->total + STATEMAP_EVICTIONS, 1);
	return at;
}

bool statemap_names(const struct statemap_slot *s, char site[STATEMAP_SITE], char source[STATEMAP_SOURCE])
{
	for (unsigned tries = 0; tries < 3; tries++) {
		uint32_t before = begin_reading(&s->generation);

		get_text(s->site, site, STATEMAP_SITE);
		get_text(s->source, source, STATEMAP_SOURCE);
		if (!(before & 1) && same_still(&s->generation, before))
			return GET(&s->key) != 0 && *site;
	}
	return false;
}

void statemap_used(struct statemap_slot *s, uint64_t now)
{
	if (now > GET(&s->last))
		PUT(&s->last, now);
}

static unsigned bucket_of(uint64_t us)
{
	static const uint64_t bounds[] = {
#define X(bound, text) bound,
		STATEMAP_BUCKETS(X)
#undef X
	};
	unsigned i = 0;

	_Static_assert(sizeof bounds / sizeof *bounds == STATEMAP_BUCKET_COUNT, "buckets");
	while (us > bounds[i])
		i++;
	return i;
}

void statemap_time(struct statemap_slot *s, enum statemap_phase phase, uint64_t us)
{
	__atomic_fetch_add(&s->bucket[phase][bucket_of(us)], 1, __ATOMIC_RELAXED);
	statemap_add(s->sum + phase, us);
}

/* An odd generation is that of a writer, which may have died. The next one makes it even and leaves its own text out: at worst a reader
 * gets a part of either. */
void statemap_say(struct statemap_slot *s, enum reply_class class, const char *text, size_t n)
{
	uint32_t was = GET(&s->text_generation);

	if (was & 1) {
		__atomic_fetch_add(&s->text_generation, 1, __ATOMIC_RELEASE);
		return;
	}
	if (!begin_writing(&s->text_generation, &was))
		return;
	PUT(&s->text_class, (uint32_t)class);
	put_text(s->text, text, n, STATEMAP_TEXT);
	end_writing(&s->text_generation, was);
}

bool statemap_said(const struct statemap_slot *s, enum reply_class *class, char text[STATEMAP_TEXT])
{
	for (unsigned tries = 0; tries < 3; tries++) {
		uint32_t before = begin_reading(&s->text_generation), n = GET(&s->text_class);

		get_text(s->text, text, STATEMAP_TEXT);
		*class = n < REPLY_CLASSES_END ? (enum reply_class)n : REPLY_OTHER;
		if (!(before & 1) && same_still(&s->text_generation, before))
			return true;
	}
	return false;
}

/* ---- detectors ---- */

void statemap_detector(const struct statemap_slot *s, struct detector *d)
{
	/* First what statemap_detected() compares: it notices what changes while the rest is read. */
	d->evidence = __atomic_load_n(&s->detector.evidence, __ATOMIC_ACQUIRE);
	for (size_t i = 0; i < LONG_WORDS; i++)
		long_words(d)[i] = GET(long_words(&s->detector) + i);
	for (size_t i = 0; i < SHORT_WORDS; i++)
		short_words(d)[i] = GET(short_words(&s->detector) + i);
	detector_clean(d);
}

/* Scores out of bounds, which somebody may have written, count as what detector_clean() makes of them. */
static bool put_evidence(struct statemap_slot *s, const struct detector *before, const struct detector *after)
{
	struct detector now = { .evidence = GET(&s->detector.evidence) };
	uint64_t was = now.evidence;

	detector_clean(&now);
	return now.evidence == before->evidence && (was == after->evidence ||
	    __atomic_compare_exchange_n(&s->detector.evidence, &was, after->evidence, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

bool statemap_detected(struct statemap_slot *s, const struct detector *before, const struct detector *after)
{
	if (!put_evidence(s, before, after))
		return false;
	for (size_t i = 0; i < LONG_WORDS; i++)
		if (long_words(before)[i] != long_words(after)[i])
			PUT(long_words(&s->detector) + i, long_words(after)[i]);
	for (size_t i = 0; i < SHORT_WORDS; i++)
		if (short_words(before)[i] != short_words(after)[i])
			PUT(short_words(&s->detector) + i, short_words(after)[i]);
	return true;
}

/* ---- hooks ---- */

bool statemap_hook_name(const struct statemap_hook *h, char name[STATEMAP_HOOK_NAME])
{
	uint32_t before = begin_reading(&h->generation);

	get_text(h->name, name, STATEMAP_HOOK_NAME);
	return before && !(before & 1) && same_still(&h->generation, before);
}

static bool is_hook(const struct statemap_hook *h, uint32_t event, const char *name)
{
	char there[STATEMAP_HOOK_NAME];

	return statemap_hook_name(h, there) && GET(&h->event) == event && strncmp(there, name, STATEMAP_HOOK_NAME - 1) == 0;
}

/* The hook's place; NULL: there is none left. */
static struct statemap_hook *hook_of(struct statemap *m, uint32_t event, const char *name)
{
	for (unsigned i = 0; i < STATEMAP_HOOKS; i++) {
		struct statemap_hook *h = &m->hook[i];
		uint32_t was = 0;

		if (is_hook(h, event, name))
			return h;
		if (GET(&h->generation) == 0 && begin_writing(&h->generation, &was) && was == 0) {
			PUT(&h->event, event);
			put_text(h->name, name, strlen(name), STATEMAP_HOOK_NAME);
			end_writing(&h->generation, was);
			return h;
		}
	}
	return NULL;
}

void statemap_hook(struct statemap *m, uint32_t event, const char *name, uint64_t us, bool failed)
{
	struct statemap_hook *h = hook_of(m, event, name);

	if (!h)
		return;
	__atomic_fetch_add(h->bucket + bucket_of(us), 1, __ATOMIC_RELAXED);
	statemap_add(&h->sum, us);
	statemap_add(&h->failures, failed);
}

/* ---- whose servers they are ---- */

static uint64_t prefix_key(const struct statemap *m, const char *prefix)
{
	return key_of(m, prefix, "prefix");
}

/* A key has only so many octets of a domain: the last ones, which are what its owner has registered. No address is a prefix, whatever the
 * domain's name. */
static uint64_t answer_key(const struct statemap *m, const char *address, const char *domain)
{
	size_t n = strlen(domain);

	return key_of(m, address, n < STATEMAP_SOURCE ? domain : domain + n - (STATEMAP_SOURCE - 1));
}

static const struct statemap_learnt *learnt_of(const struct statemap *m, uint64_t key)
{
	for (unsigned i = 0; i < WINDOW; i++) {
		const struct statemap_learnt *l = &m->learnt[(key + i) % STATEMAP_LEARNT];

		if (GET(&l->key) == key)
			return l;
	}
	return NULL;
}

/* A place that has run out, or the one that runs out first. */
static struct statemap_learnt *place_to_learn(struct statemap *m, uint64_t key)
{
	struct statemap_learnt *first = &m->learnt[key % STATEMAP_LEARNT];

	for (unsigned i = 1; i < WINDOW; i++) {
		struct statemap_learnt *l = &m->learnt[(key + i) % STATEMAP_LEARNT];

		if (GET(&l->until) < GET(&first->until))
			first = l;
	}
	return first;
}

static void learn(struct statemap *m, uint64_t key, const char *site, uint64_t until)
{
	struct statemap_learnt *l = (struct statemap_learnt *)(uintptr_t)learnt_of(m, key);

	if (!l)
		l = place_to_learn(m, key);
	__atomic_store_n(&l->key, 0, __ATOMIC_RELEASE); /* nobody finds it while its name is written */
	put_text(l->site, site, strlen(site), STATEMAP_SITE);
	PUT(&l->until, until);
	__atomic_store_n(&l->key, key, __ATOMIC_RELEASE);
	if (GET(&m->learnt_until) < until)
		PUT(&m->learnt_until, until);
}

static bool learnt(const struct statemap *m, uint64_t key, uint64_t now, char site[STATEMAP_SITE])
{
	const struct statemap_learnt *l = GET(&m->learnt_until) < now ? NULL : learnt_of(m, key); /* before any of its pages is touched */

	if (!l || GET(&l->until) < now)
		return false;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	get_text(l->site, site, STATEMAP_SITE);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return GET(&l->key) == key && *site;
}

void statemap_learn(struct statemap *m, const char *prefix, const char *site, uint64_t now)
{
	learn(m, prefix_key(m, prefix), site, now + STATEMAP_LEARNT_FOR);
}

bool statemap_learnt(const struct statemap *m, const char *prefix, uint64_t now, char site[STATEMAP_SITE])
{
	return learnt(m, prefix_key(m, prefix), now, site);
}

void statemap_learn_answer(struct statemap *m, const char *address, const char *domain, const char *site, uint64_t now)
{
	learn(m, answer_key(m, address, domain), site, now + STATEMAP_ANSWERED_FOR);
}

void statemap_learn_asked(struct statemap *m, const char *address, const char *domain, const char *site, uint64_t now)
{
	learn(m, answer_key(m, address, domain), site, now + STATEMAP_ASKED_FOR);
}

bool statemap_learnt_answer(const struct statemap *m, const char *address, const char *domain, uint64_t now, char site[STATEMAP_SITE])
{
	return learnt(m, answer_key(m, address, domain), now, site);
}

/* ---- servers whose TLS fails ----
 *
 * Whoever needs a place takes that of the server whose TLS failed longest ago, of those that the secret hash puts beside it: to make room for
 * itself an attacker has to let TLS fail with thousands of servers, and then the one that is forgotten waits anew.
 *
 * The first failure is told by CLOCK_BOOTTIME, of which no step of a clock makes more; and after a reboot less has passed by it than in truth.
 * The last one is told by the time since 1970: after a reboot, too, what was long ago is long ago. Both are seconds in 32 bits, in one word,
 * so that they change together; the last one lasts until 2106. Whoever takes a place empties it first, and fills it only if it is still
 * empty: no server gets the time of another that failed before.
 */

static uint64_t last_failure(uint64_t times)
{
	return times & UINT32_MAX;
}

static bool is_failing(uint64_t times, uint64_t now_s, uint64_t unix_s)
{
	uint64_t last = last_failure(times);

	return times && times >> 32 <= now_s && last <= unix_s + STATEMAP_FAILED_FOR && unix_s <= last + STATEMAP_FAILED_FOR;
}

static struct statemap_failing *failing_beside(struct statemap *m, uint64_t key)
{
	return m->slot[key % STATEMAP_SLOTS].failing;
}

/* The server's place; if it has none, the one to take. */
static struct statemap_failing *failing_place(struct statemap *m, uint64_t key)
{
	struct statemap_failing *f = failing_beside(m, key), *place = f;

	for (unsigned i = 0; i < STATEMAP_FAILING; i++) {
		if (__atomic_load_n(&f[i].key, __ATOMIC_ACQUIRE) == key)
			return f + i;
		if (last_failure(GET(&f[i].times)) < last_failure(GET(&place->times)))
			place = f + i;
	}
	return place;
}

static bool change(uint64_t *word, uint64_t from, uint64_t to)
{
	return __atomic_compare_exchange_n(word, &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* Whoever is overtaken by another session leaves it at that: the next failure is noted again. */
uint64_t statemap_tls_failed(struct statemap *m, const char *address, const char *port, uint64_t now, uint64_t unix_s)
{
	uint64_t key = key_of(m, address, port), now_s = (now + 999999) / 1000000, first = now_s, times;
	struct statemap_failing *f = failing_place(m, key);

	times = GET(&f->times);
	if (GET(&f->key) != key) {
		if (!change(&f->times, times, 0))
			return now_s * 1000000;
		times = 0;
		__atomic_store_n(&f->key, key, __ATOMIC_RELEASE);
	} else if (is_failing(times, now_s, unix_s)) {
		first = times >> 32;
	}
	change(&f->times, times, first << 32 | last_failure(unix_s));
	if (!GET(&m->tls_failed))
		PUT(&m->tls_failed, 1);
	return first * 1000000;
}

/* Two sessions may have noted a first failure at the same moment, each at a place of its own. */
void statemap_tls_works(struct statemap *m, const char *address, const char *port)
{
	uint64_t key;
	struct statemap_failing *f;

	if (!GET(&m->tls_failed)) /* before any other page is touched */
		return;
	key = key_of(m, address, port);
	f = failing_beside(m, key);
	for (unsigned i = 0; i < STATEMAP_FAILING; i++)
		if (GET(&f[i].key) == key)
			PUT(&f[i].times, 0);
}
