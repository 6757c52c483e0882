/* The map of --state: slots, names, texts and what is learnt, by many processes at once, some of which are killed. */
#define _GNU_SOURCE
#include "pure/statemap.h"
#include "test/lib/unit.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOUR 3600000000ull

static struct statemap *map;
static uint64_t now = 1000 * HOUR;

static int new_map(void **state)
{
	static const uint64_t secret[2] = { 1, 2 };

	(void)state;
	map = mmap(NULL, sizeof *map, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	statemap_begin(map, secret, 1700000000, now);
	return map == MAP_FAILED;
}

static int drop_map(void **state)
{
	(void)state;
	return munmap(map, sizeof *map);
}

static void names_are(unsigned slot, const char *site, const char *source)
{
	char s[STATEMAP_SITE], t[STATEMAP_SOURCE];

	assert_true(statemap_names(&map->slot[slot], s, t));
	assert_string_equal(s, site);
	assert_string_equal(t, source);
}

static void claims(void **state)
{
	unsigned a = statemap_claim(map, "gmail", "192.0.2.1", now), b = statemap_claim(map, "gmail", "192.0.2.2", now);

	(void)state;
	assert_true(statemap_fits(map, sizeof *map));
	assert_false(statemap_fits(map, sizeof *map - 1));
	assert_true(a && b && a != b);
	names_are(a, "gmail", "192.0.2.1");
	names_are(b, "gmail", "192.0.2.2");
	names_are(STATEMAP_OTHER, "other", "");
	assert_int_equal(statemap_claim(map, "gmail", "192.0.2.1", now + HOUR), a);
	assert_int_equal(statemap_find(map, "gmail", "192.0.2.2"), b);
	assert_int_equal(statemap_find(map, "gmail", "192.0.2.3"), STATEMAP_OTHER);
}

/* What is cut is still found. */
static void long_names(void **state)
{
	char site[200], source[200];
	unsigned slot;

	(void)state;
	memset(site, 's', sizeof site - 1);
	memset(source, '1', sizeof source - 1);
	site[sizeof site - 1] = source[sizeof source - 1] = 0;
	slot = statemap_claim(map, site, source, now);
	assert_int_equal(statemap_claim(map, site, source, now), slot);
	site[STATEMAP_SITE - 1] = source[STATEMAP_SOURCE - 1] = 0;
	names_are(slot, site, source);
}

static void counts(void **state)
{
	struct statemap_slot *s = &map->slot[statemap_claim(map, "a", "b", now)];

	(void)state;
	statemap_add(s->counter + STATEMAP_RECIPIENT + REPLY_THROTTLE, 2);
	assert_int_equal(statemap_get(s->counter + STATEMAP_RECIPIENT + REPLY_THROTTLE), 2);
	statemap_time(s, STATEMAP_PHASE_DATA, 10000);
	statemap_time(s, STATEMAP_PHASE_DATA, 10001);
	statemap_time(s, STATEMAP_PHASE_DATA, UINT64_MAX / 2);
	assert_int_equal(statemap_get_bucket(&s->bucket[STATEMAP_PHASE_DATA][0]), 1);
	assert_int_equal(statemap_get_bucket(&s->bucket[STATEMAP_PHASE_DATA][1]), 1);
	assert_int_equal(statemap_get_bucket(&s->bucket[STATEMAP_PHASE_DATA][STATEMAP_BUCKET_COUNT - 1]), 1);
	assert_int_equal(statemap_get(s->sum + STATEMAP_PHASE_DATA), 20001 + UINT64_MAX / 2);
}

/* Who comes first gets a near slot. What stands elsewhere is found there, also if a near one is free. */
static void near(void **state)
{
	char site[STATEMAP_SITE];
	unsigned far;

	(void)state;
	for (unsigned i = 1; i <= STATEMAP_NEAR; i++) {
		snprintf(site, sizeof site, "site%u", i);
		assert_int_equal(statemap_claim(map, site, "", now), i);
	}
	far = statemap_claim(map, "far", "", now);
	assert_true(far > STATEMAP_NEAR);
	map->slot[3].key = 0;
	assert_int_equal(statemap_find(map, "far", ""), far);
	assert_int_equal(statemap_claim(map, "far", "", now), far);
	assert_int_equal(statemap_claim(map, "new", "", now), 3);
}

/* Claims until the table is full; returns how many found a slot. */
static unsigned fill(const char *prefix)
{
	unsigned found = 0;
	char site[STATEMAP_SITE];

	for (unsigned i = 0; i < 4 * STATEMAP_SLOTS; i++) {
		snprintf(site, sizeof site, "%s%u", prefix, i);
		found += statemap_claim(map, site, "", now) != STATEMAP_OTHER;
	}
	return found;
}

/* While all are in use, further ones are counted as "other"; what was silent for an hour makes room, unless it is in a hold. */
static void full(void **state)
{
	unsigned first = fill("first"), held = statemap_find(map, "first0", "");
	struct detector before, after;

	(void)state;
	assert_int_equal(first, STATEMAP_SLOTS - 1);
	assert_int_equal(statemap_get(map->total + STATEMAP_EVICTIONS), 0);
	statemap_detector(&map->slot[held], &before);
	after = before;
	after.until = now + 2 * HOUR;
	assert_true(statemap_detected(&map->slot[held], &before, &after));
	statemap_add(map->slot[2].counter, 7);
	now += HOUR + 1;
	assert_true(fill("second") > STATEMAP_SLOTS / 2);
	assert_true(statemap_get(map->total + STATEMAP_EVICTIONS) > STATEMAP_SLOTS / 2);
	assert_int_equal(statemap_find(map, "first0", ""), held);
	if (statemap_get(&map->slot[2].first) == now)
		assert_int_equal(statemap_get(map->slot[2].counter), 0); /* the new one begins at nothing */
}

static void texts(void **state)
{
	struct statemap_slot *s = &map->slot[statemap_claim(map, "a", "b", now)];
	char text[STATEMAP_TEXT], large[300];
	enum reply_class class;

	(void)state;
	statemap_say(s, REPLY_THROTTLE, "421 slow down", 13);
	assert_true(statemap_said(s, &class, text));
	assert_string_equal(text, "421 slow down");
	assert_int_equal(class, REPLY_THROTTLE);
	memset(large, 'x', sizeof large);
	statemap_say(s, REPLY_OTHER, large, sizeof large);
	assert_true(statemap_said(s, &class, text));
	assert_int_equal(strlen(text), STATEMAP_TEXT - 1);
}

/* A writer that was killed costs one text, not all that follow. */
static void dead_writer(void **state)
{
	struct statemap_slot *s = &map->slot[statemap_claim(map, "a", "b", now)];
	char text[STATEMAP_TEXT];
	enum reply_class class;

	(void)state;
	s->text_generation |= 1;
	assert_false(statemap_said(s, &class, text));
	statemap_say(s, REPLY_THROTTLE, "lost", 4);
	statemap_say(s, REPLY_THROTTLE, "there", 5);
	assert_true(statemap_said(s, &class, text));
	assert_string_equal(text, "there");
}

/* So does one that was killed while it claimed a slot. */
static void dead_claim(void **state)
{
	unsigned slot = statemap_claim(map, "a", "b", now);
	char site[STATEMAP_SITE], source[STATEMAP_SOURCE];

	(void)state;
	map->slot[slot].generation = 1;
	map->slot[slot].site[0] = 'x';
	assert_false(statemap_names(&map->slot[slot], site, source));
	assert_int_equal(statemap_claim(map, "a", "b", now + 1000), slot); /* it may still be at it */
	assert_false(statemap_names(&map->slot[slot], site, source));
	assert_int_equal(statemap_claim(map, "a", "b", now + 1000001), slot);
	names_are(slot, "a", "b");
}

/* Only one session tells of a change of the state. */
static void state_changes_once(void **state)
{
	struct statemap_slot *s = &map->slot[statemap_claim(map, "a", "b", now)];
	struct detector before, after;

	(void)state;
	statemap_detector(s, &before);
	after = before;
	after.state = DETECTOR_THROTTLED;
	after.score = 5;
	assert_true(statemap_detected(s, &before, &after));
	assert_false(statemap_detected(s, &before, &after));
	statemap_detector(s, &before);
	assert_memory_equal(&before, &after, sizeof before);
}

enum { TELLERS = 4, COMPLAINTS = 300000 };

/* Each complaint adds to the score, and is taken back a while later, so that the alarm stays away: what is left over was lost. */
static _Noreturn void tell(struct statemap_slot *s)
{
	for (unsigned i = 0; i < 2 * COMPLAINTS; i++) {
		struct detector before, after;

		do {
			statemap_detector(s, &before);
			after = before;
			after.score = (uint16_t)(i % 2 ? after.score - 1 : after.score + 1);
			after.late[DETECTOR_RCPT] = (uint8_t)(i % 2 ? after.late[DETECTOR_RCPT] - 2 : after.late[DETECTOR_RCPT] + 2);
		} while (!statemap_detected(s, &before, &after));
	}
	_exit(0);
}

/* Two sessions hear a complaint at once: the one that comes too late is told to add it to what the other has written. */
static void evidence_of_two(void **state)
{
	struct statemap_slot *s = &map->slot[statemap_claim(map, "a", "b", now)];
	struct detector before[2], after[2];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		statemap_detector(s, &before[i]);
		after[i] = before[i];
		assert_false(detector_reply(&after[i], REPLY_THROTTLE, REPLY_OF_IP, now));
	}
	assert_true(statemap_detected(s, &before[0], &after[0]));
	assert_false(statemap_detected(s, &before[1], &after[1]));
	statemap_detector(s, &before[1]);
	after[1] = before[1];
	assert_true(detector_reply(&after[1], REPLY_THROTTLE, REPLY_OF_IP, now));
	assert_true(statemap_detected(s, &before[1], &after[1]));
	assert_int_equal(s->detector.state, DETECTOR_THROTTLED);
}

/* Of sessions that hear something at once, each adds its own. */
static void no_evidence_is_lost(void **state)
{
	struct statemap_slot *s = &map->slot[statemap_claim(map, "a", "b", now)];
	struct detector before, after;
	pid_t child[TELLERS];

	(void)state;
	statemap_detector(s, &before);
	after = before;
	after.score = 100;
	assert_true(statemap_detected(s, &before, &after));
	for (unsigned i = 0; i < TELLERS; i++) {
		child[i] = fork();
		if (child[i] == 0)
			tell(s);
	}
	for (unsigned i = 0; i < TELLERS; i++)
		waitpid(child[i], NULL, 0);
	statemap_detector(s, &after);
	assert_int_equal(after.score, 100);
	assert_int_equal(after.late[DETECTOR_RCPT], 0);
}

/* A session that was taken over has put nonsense: the next one goes on from what is sensible of it. */
static void evidence_out_of_bounds(void **state)
{
	struct statemap_slot *s = &map->slot[statemap_claim(map, "a", "b", now)];
	struct detector before, after;

	(void)state;
	s->detector.evidence = UINT64_MAX;
	statemap_detector(s, &before);
	after = before;
	after.score = 7;
	assert_true(statemap_detected(s, &before, &after));
	assert_int_equal(s->detector.score, 7);
	assert_int_equal(s->detector.state, DETECTOR_OK);
}

static void learns(void **state)
{
	char site[STATEMAP_SITE], prefix[STATEMAP_SOURCE];

	(void)state;
	assert_false(statemap_learnt(map, "192.0.2.0/24", now, site));
	statemap_learn(map, "192.0.2.0/24", "gmail", now);
	assert_true(statemap_learnt(map, "192.0.2.0/24", now + 23 * HOUR, site));
	assert_string_equal(site, "gmail");
	assert_false(statemap_learnt(map, "192.0.2.0/24", now + 24 * HOUR + 1, site));
	for (unsigned i = 0; i < 5000; i++) {
		snprintf(prefix, sizeof prefix, "198.51.%u.0/24", i);
		statemap_learn(map, prefix, "x", now + i);
		assert_true(statemap_learnt(map, prefix, now + i, site)); /* however many there are, the newest is known */
	}
}

/* What a domain's owner has told is of this domain and this address, and makes no room for itself among networks. */
static void answers(void **state)
{
	static const char *const domains[] = { "evil.test", "a.example.of.a.domain.with.a.name.that.is.too.long.for.the.map.test",
		"prefix", "" };
	char site[STATEMAP_SITE], domain[STATEMAP_SOURCE];

	(void)state;
	statemap_learn(map, "192.0.2.0/24", "gmail", now);
	for (size_t i = 0; i < COUNT(domains); i++) {
		assert_false(statemap_learnt_answer(map, "192.0.2.1", domains[i], now, site));
		statemap_learn_answer(map, "192.0.2.1", domains[i], domains[i][0] ? "theirs" : "none", now);
		assert_true(statemap_learnt_answer(map, "192.0.2.1", domains[i], now + HOUR, site));
		assert_false(statemap_learnt_answer(map, "192.0.2.1", domains[i], now + HOUR + 1, site));
		assert_false(statemap_learnt_answer(map, "192.0.2.2", domains[i], now, site));
	}
	assert_false(statemap_learnt_answer(map, "192.0.2.1", "other.test", now, site));
	for (unsigned i = 0; i < 5000; i++) {
		snprintf(domain, sizeof domain, "d%u.test", i);
		statemap_learn_answer(map, "192.0.2.1", domain, "x", now + i);
		assert_true(statemap_learnt_answer(map, "192.0.2.1", domain, now + i, site));
	}
	assert_true(statemap_learnt(map, "192.0.2.0/24", now, site));
	assert_string_equal(site, "gmail");
}

static void hooks(void **state)
{
	char name[STATEMAP_HOOK_NAME];

	(void)state;
	for (unsigned i = 0; i < 2 * STATEMAP_HOOKS; i++) {
		snprintf(name, sizeof name, "%u", i / 2);
		statemap_hook(map, i % 2, name, 1000, i == 3);
	}
	assert_true(statemap_hook_name(&map->hook[3], name));
	assert_string_equal(name, "1");
	assert_int_equal(statemap_get(&map->hook[3].failures), 1);
	assert_int_equal(statemap_get_bucket(map->hook[3].bucket), 1);
	statemap_hook(map, 9, "one too many", 1, false);
}

/* ---- servers whose TLS fails ---- */

#define T0 (1000 * HOUR)
#define SECOND 1000000ull
#define DAY 86400ull
#define UNIX 1700000000ull

static uint64_t fails(const char *address, uint64_t at, uint64_t unix_s)
{
	return statemap_tls_failed(map, address, "25", at, unix_s);
}

/* Since its first failure, until there is TLS again. */
static void tls_fails(void **state)
{
	(void)state;
	assert_int_equal(fails("192.0.2.1", T0, UNIX), T0);
	assert_int_equal(fails("192.0.2.1", T0 + 299 * SECOND, UNIX + 299), T0);
	assert_int_equal(fails("192.0.2.2", T0 + 300 * SECOND, UNIX + 300), T0 + 300 * SECOND);
	assert_int_equal(statemap_tls_failed(map, "192.0.2.1", "587", T0 + 300 * SECOND, UNIX + 300), T0 + 300 * SECOND);
	statemap_tls_works(map, "192.0.2.3", "25");
	statemap_tls_works(map, "192.0.2.2", "25");
	assert_int_equal(fails("192.0.2.1", T0 + 301 * SECOND, UNIX + 301), T0);
	assert_int_equal(fails("192.0.2.2", T0 + 302 * SECOND, UNIX + 302), T0 + 302 * SECOND);
}

/* Never too early: the time of a failure is rounded up. */
static void tls_fails_within_a_second(void **state)
{
	(void)state;
	assert_int_equal(fails("192.0.2.1", T0 + 1, UNIX), T0 + SECOND);
	assert_int_equal(fails("192.0.2.1", T0 + 2, UNIX), T0 + SECOND);
	assert_int_equal(fails("192.0.2.1", T0 + 5 * SECOND, UNIX + 5), T0 + SECOND);
}

/* The last failure counts: a server that fails each day has failed since the first. */
static void tls_failed_long_ago(void **state)
{
	(void)state;
	fails("192.0.2.1", T0, UNIX);
	assert_int_equal(fails("192.0.2.1", T0 + DAY * SECOND, UNIX + DAY), T0);
	assert_int_equal(fails("192.0.2.1", T0 + 2 * DAY * SECOND, UNIX + 2 * DAY), T0);
	assert_int_equal(fails("192.0.2.1", T0 + (3 * DAY + 1) * SECOND, UNIX + 3 * DAY + 1), T0 + (3 * DAY + 1) * SECOND);
}

/* A step of the clock makes it wait anew at most, and once; a smaller one changes nothing. */
static void clock_steps(void **state)
{
	static const int64_t steps[] = { -(int64_t)UNIX + 5, -2 * (int64_t)DAY, 2 * (int64_t)DAY, 1000000000 };

	(void)state;
	for (size_t i = 0; i < COUNT(steps); i++) {
		char address[16];
		uint64_t unix_s = UNIX + (uint64_t)steps[i], at = T0 + 10 * SECOND;

		snprintf(address, sizeof address, "192.0.2.%zu", i);
		fails(address, T0, UNIX);
		assert_int_equal(fails(address, at, unix_s), at);
		assert_int_equal(fails(address, at + 300 * SECOND, unix_s + 300), at);
	}
	fails("192.0.2.9", T0, UNIX);
	assert_int_equal(fails("192.0.2.9", T0 + 300 * SECOND, UNIX - 7200), T0);
	assert_int_equal(fails("192.0.2.9", T0 + 400 * SECOND, UNIX + 7200), T0);
}

/* The file is on a disk: CLOCK_BOOTTIME begins anew. What has passed by it since a failure before has passed at least. */
static void reboot(void **state)
{
	(void)state;
	fails("192.0.2.1", T0, UNIX);
	assert_int_equal(fails("192.0.2.1", 50 * SECOND, UNIX + 60), 50 * SECOND);
	assert_int_equal(fails("192.0.2.1", 350 * SECOND, UNIX + 360), 50 * SECOND);
	fails("192.0.2.2", 10 * SECOND, UNIX);
	assert_int_equal(fails("192.0.2.2", 400 * SECOND, UNIX + 8 * DAY), 400 * SECOND); /* it was off for a week */
}

/* There is room for many, and the one that failed longest ago gives way: it waits anew. */
static void many_fail(void **state)
{
	enum { MANY = 4000, TOO_MANY = 60000 };
	char address[16];
	unsigned known = 0;

	(void)state;
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(address, sizeof address, "10.0.%u.%u", i / 256, i % 256);
		fails(address, T0, UNIX);
	}
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(address, sizeof address, "10.0.%u.%u", i / 256, i % 256);
		assert_int_equal(fails(address, T0 + 300 * SECOND, UNIX + 300), T0);
	}
	for (unsigned i = 0; i < TOO_MANY; i++) {
		snprintf(address, sizeof address, "10.1.%u.%u", i / 256, i % 256);
		assert_int_equal(fails(address, T0 + 400 * SECOND, UNIX + 400), T0 + 400 * SECOND);
	}
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(address, sizeof address, "10.0.%u.%u", i / 256, i % 256);
		known += fails(address, T0 + 500 * SECOND, UNIX + 500) != T0 + 500 * SECOND;
	}
	assert_int_equal(known, 0);
}

/* The place in which the only server is. */
static struct statemap_failing *only_place(void)
{
	for (unsigned i = 0; i < STATEMAP_SLOTS; i++)
		for (unsigned j = 0; j < STATEMAP_FAILING; j++)
			if (map->slot[i].failing[j].key)
				return &map->slot[i].failing[j];
	return NULL;
}

/* A session died when it had taken a place, and had filled in no time. */
static void half_noted(void **state)
{
	(void)state;
	fails("192.0.2.1", T0, UNIX);
	only_place()->times = 0;
	assert_int_equal(fails("192.0.2.1", T0 + 300 * SECOND, UNIX + 300), T0 + 300 * SECOND);
	assert_int_equal(fails("192.0.2.1", T0 + 600 * SECOND, UNIX + 600), T0 + 300 * SECOND);
}

/* Two sessions noted the same first failure. */
static void noted_twice(void **state)
{
	struct statemap_failing *f;

	(void)state;
	fails("192.0.2.1", T0, UNIX);
	f = only_place();
	f[1] = f[0];
	statemap_tls_works(map, "192.0.2.1", "25");
	assert_int_equal(f[0].times, 0);
	assert_int_equal(f[1].times, 0);
}

/* Whatever the octets are, reading and writing ends and stays within the map. */
static void hostile_octets(void **state)
{
	char site[STATEMAP_SITE], source[STATEMAP_SOURCE], text[STATEMAP_TEXT], name[STATEMAP_HOOK_NAME];
	struct detector d;
	enum reply_class class;

	(void)state;
	srand(1);
	for (unsigned run = 0; run < 50; run++) {
		for (size_t i = 0; i < sizeof *map; i++)
			((unsigned char *)map)[i] = (unsigned char)(run % 2 ? 255 : rand());
		for (unsigned i = 0; i < 300; i++) {
			struct statemap_slot *s = &map->slot[statemap_claim(map, "a", "b", (uint64_t)rand() << 20)];

			statemap_names(s, site, source);
			assert_true(strlen(site) < sizeof site && strlen(source) < sizeof source);
			statemap_detector(s, &d);
			detector_reply(&d, REPLY_THROTTLE, REPLY_OF_IP, (uint64_t)rand());
			assert_true(*detector_state_name(d.state));
			statemap_said(s, &class, text);
			assert_true(class < REPLY_CLASSES_END && strlen(text) < sizeof text);
			statemap_say(s, REPLY_OK, "x", 1);
			statemap_hook(map, i, "h", 1, true);
			statemap_hook_name(&map->hook[i % STATEMAP_HOOKS], name);
			statemap_learn(map, "p", "s", (uint64_t)rand());
			statemap_learnt(map, "p", (uint64_t)rand(), site);
			assert_true(fails("f", i * SECOND, (uint64_t)rand()) <= i * SECOND);
			statemap_tls_works(map, "g", "25");
		}
	}
}

enum { PROCESSES = 8, STEPS = 3000 };

static _Noreturn void work(unsigned number)
{
	char site[STATEMAP_SITE];

	srand(number);
	for (unsigned i = 0; i < STEPS; i++) {
		struct statemap_slot *s;

		snprintf(site, sizeof site, "site%u", (unsigned)rand() % 200);
		s = &map->slot[statemap_claim(map, site, site, now)];
		statemap_say(s, REPLY_THROTTLE, site, strlen(site));
		statemap_add(s->counter, 1);
		statemap_add(map->total, 1);
		snprintf(site, sizeof site, "%u", (unsigned)rand() % 60000);
		if (fails(site, T0 + i * SECOND, UNIX + i) > T0 + i * SECOND)
			_exit(1);
		statemap_tls_works(map, site, i % 2 ? "25" : "26");
	}
	_exit(0);
}

/* Every slot has names that go together, no site has two slots, and every step was counted. killed: how many processes were killed. */
static void whole(unsigned killed)
{
	char site[STATEMAP_SITE], source[STATEMAP_SOURCE];
	uint64_t sum = 0;

	for (unsigned i = 1; i < STATEMAP_SLOTS; i++) {
		sum += statemap_get(map->slot[i].counter);
		if (!statemap_names(&map->slot[i], site, source))
			continue;
		assert_string_equal(site, source);
		assert_int_equal(statemap_find(map, site, source), i);
	}
	sum += statemap_get(map->slot[STATEMAP_OTHER].counter);
	assert_true(sum >= statemap_get(map->total) && sum - statemap_get(map->total) <= killed);
}

static void together(void **state)
{
	const bool *killing = *state;
	pid_t child[PROCESSES];

	for (unsigned i = 0; i < PROCESSES; i++) {
		child[i] = fork();
		if (child[i] == 0)
			work(i);
	}
	for (unsigned i = 0; i < PROCESSES; i++) {
		if (*killing) {
			usleep((unsigned)rand() % 300);
			kill(child[i], SIGKILL);
		}
		waitpid(child[i], NULL, 0);
	}
	whole(*killing ? PROCESSES : 0);
	if (!*killing)
		assert_int_equal(statemap_get(map->total), PROCESSES * STEPS);
}

static void processes(void **state)
{
	bool killing = false;
	void *how = &killing;

	(void)state;
	together(&how);
	for (unsigned run = 0; run < 30; run++) {
		drop_map(NULL);
		new_map(NULL);
		killing = true;
		together(&how);
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, new_map, drop_map)
	const struct CMUnitTest tests[] = {
		TEST(claims), TEST(long_names), TEST(counts), TEST(near), TEST(full), TEST(texts), TEST(dead_writer), TEST(dead_claim),
		TEST(state_changes_once), TEST(evidence_of_two), TEST(no_evidence_is_lost), TEST(evidence_out_of_bounds), TEST(learns), TEST(answers),
		TEST(hooks), TEST(tls_fails), TEST(tls_fails_within_a_second),
		TEST(tls_failed_long_ago), TEST(clock_steps), TEST(reboot), TEST(many_fail), TEST(half_noted), TEST(noted_twice), TEST(hostile_octets), TEST(processes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
