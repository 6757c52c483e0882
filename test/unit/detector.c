/* Detectors: what each reply and delay does, and a simulation of how often they are wrong and how soon they are right. */
#define _DEFAULT_SOURCE
#include "pure/detector.h"
#include "test/lib/unit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND 1000000ull
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)

static uint64_t clock_us = HOUR;

static bool says(struct detector *d, enum reply_class class)
{
	clock_us += SECOND;
	return detector_reply(d, class, replyclass_scope(class), clock_us);
}

static uint64_t seed;

static double chance(void)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (double)(seed >> 11) / 9007199254740992.0;
}

/* ---- replies ---- */

static void two_throttles(void **state)
{
	struct detector d = { 0 };

	(void)state;
	assert_false(says(&d, REPLY_THROTTLE));
	assert_true(says(&d, REPLY_THROTTLE));
	assert_int_equal(d.state, DETECTOR_THROTTLED);
	assert_int_equal(d.until, clock_us + 5 * MINUTE);
	assert_int_equal(d.share, 0);
}

static void what_says_nothing(void **state)
{
	static const enum reply_class classes[] = { REPLY_GREYLIST, REPLY_UNKNOWN_USER, REPLY_MAILBOX_FULL, REPLY_INACTIVE, REPLY_CONTENT,
		REPLY_SIZE, REPLY_POLICY, REPLY_SYSTEM, REPLY_OTHER };
	struct detector d = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof classes / sizeof *classes * 100; i++)
		assert_false(says(&d, classes[i % (sizeof classes / sizeof *classes)]));
	assert_int_equal(d.score, 0);
	assert_false(says(&d, REPLY_THROTTLE));
	assert_false(says(&d, REPLY_GREYLIST)); /* nor does it excuse anything */
	assert_true(says(&d, REPLY_THROTTLE));
}

/* A rule may say that a throttle is one user's. */
static void scope_counts(void **state)
{
	struct detector d = { 0 };

	(void)state;
	for (unsigned i = 0; i < 10; i++)
		assert_false(detector_reply(&d, REPLY_THROTTLE, REPLY_OF_USER, clock_us));
	assert_int_equal(d.state, DETECTOR_OK);
}

static void blocked(void **state)
{
	struct detector d = { 0 };

	(void)state;
	assert_false(says(&d, REPLY_BLOCKLIST));
	clock_us += 11 * MINUTE;
	assert_false(says(&d, REPLY_REPUTATION)); /* too long ago */
	assert_true(says(&d, REPLY_BLOCKLIST));
	assert_int_equal(d.state, DETECTOR_BLOCKED);
	assert_int_equal(d.until, clock_us + 30 * MINUTE);
}

static void silence_halves(void **state)
{
	struct detector d = { 0 };

	(void)state;
	says(&d, REPLY_THROTTLE);
	clock_us += 10 * MINUTE;
	assert_false(says(&d, REPLY_THROTTLE));
	assert_int_equal(d.score, 162 / 2 + 162);
	clock_us += 1000 * HOUR;
	assert_false(says(&d, REPLY_OK));
	assert_int_equal(d.score, 0);
}

static void to_throttled(struct detector *d)
{
	says(d, REPLY_THROTTLE);
	assert_true(says(d, REPLY_THROTTLE));
}

/* Only a message that tries after an eighth of the hold ends it; then the share of sessions doubles each clean minute. */
static void probe(void **state)
{
	struct detector d = { 0 };

	(void)state;
	to_throttled(&d);
	assert_false(says(&d, REPLY_OK));
	clock_us = d.probe;
	assert_true(says(&d, REPLY_OK));
	assert_int_equal(d.state, DETECTOR_OK);
	assert_int_equal(d.until, 0);
	for (uint32_t share = 1; share <= DETECTOR_SHARE_ALL; share *= 2) {
		assert_int_equal(d.share, share);
		clock_us += MINUTE;
		detector_rest(&d, clock_us);
	}
	assert_int_equal(d.share, DETECTOR_SHARE_ALL);
}

static void probe_refused(void **state)
{
	struct detector d = { 0 };
	uint64_t first;

	(void)state;
	to_throttled(&d);
	first = clock_us = d.probe;
	assert_false(says(&d, REPLY_THROTTLE));
	assert_true(d.probe > first);
	assert_int_equal(d.state, DETECTOR_THROTTLED);
	assert_true(detector_rest(&d, d.until)); /* its end comes without proof */
	assert_int_equal(d.state, DETECTOR_OK);
}

static void no_clean_minute(void **state)
{
	struct detector d = { 0 };

	(void)state;
	to_throttled(&d);
	clock_us = d.until;
	detector_rest(&d, clock_us);
	clock_us += 58 * SECOND;
	says(&d, REPLY_THROTTLE);
	clock_us += 58 * SECOND;
	says(&d, REPLY_OK);
	assert_int_equal(d.share, 1);
}

static void levels(void **state)
{
	struct detector d = { 0 };
	uint64_t holds[6];

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		to_throttled(&d);
		holds[i] = d.until - clock_us;
		clock_us = d.until;
		detector_rest(&d, clock_us);
	}
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(holds[i], 5 * MINUTE << i);
	clock_us += 4 * HOUR;
	to_throttled(&d);
	assert_int_equal(d.level, 1); /* of five, four clean hours took four */
	for (unsigned i = 0; i < 20; i++) {
		clock_us = d.until;
		detector_rest(&d, clock_us);
		to_throttled(&d);
	}
	assert_int_equal(d.until - clock_us, 4 * HOUR);
}

/* ---- delays ---- */

static bool takes(struct detector *d, uint64_t ms)
{
	clock_us += SECOND;
	return detector_delay(d, DETECTOR_DATA, ms * 1000, clock_us);
}

static void slow_and_back(void **state)
{
	struct detector d = { 0 };
	unsigned n = 0;

	(void)state;
	for (unsigned i = 0; i < 20; i++)
		assert_false(takes(&d, 400));
	while (!takes(&d, 4000))
		n++;
	assert_int_equal(d.state, DETECTOR_SLOW);
	assert_true(n < 4);
	while (!takes(&d, 400))
		assert_true(n++ < 30);
	assert_int_equal(d.state, DETECTOR_OK);
}

static void short_delays_hurt_nobody(void **state)
{
	struct detector d = { 0 };

	(void)state;
	for (unsigned i = 0; i < 20; i++)
		takes(&d, 2);
	for (unsigned i = 0; i < 100; i++)
		assert_false(takes(&d, 499));
	assert_int_equal(d.state, DETECTOR_OK);
}

static void every_delay(void **state)
{
	struct detector d = { 0 };

	(void)state;
	for (uint64_t us = 1; us; us *= 2)
		for (int off = -1; off <= 1; off++)
			detector_delay(&d, DETECTOR_RCPT, us + (uint64_t)off, clock_us++);
	detector_delay(&d, DETECTOR_RCPT, UINT64_MAX, clock_us);
	assert_true(d.late[DETECTOR_RCPT] <= 2 * DETECTOR_LATE_ALARM);
}

static void a_day_is_the_new_usual(void **state)
{
	struct detector d = { 0 };

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		takes(&d, 500);
	for (unsigned i = 0; i < 20; i++)
		takes(&d, 8000);
	assert_int_equal(d.state, DETECTOR_SLOW);
	clock_us += 25 * HOUR;
	for (unsigned i = 0; i < 40; i++)
		takes(&d, 8000);
	assert_int_equal(d.state, DETECTOR_OK);
}

/* Words that a hostile session has written: whatever they are, they do no harm. */
static void hostile_words(void **state)
{
	struct detector d;

	(void)state;
	for (unsigned run = 0; run < 20000; run++) {
		unsigned char *p = (unsigned char *)&d;

		for (size_t i = 0; i < sizeof d; i++)
			p[i] = chance() < 0.5 ? 255 : (unsigned char)(chance() * 256);
		detector_clean(&d);
		for (unsigned i = 0; i < 4; i++) {
			says(&d, chance() < 0.5 ? REPLY_THROTTLE : chance() < 0.5 ? REPLY_OK : REPLY_BLOCKLIST);
			detector_delay(&d, DETECTOR_DATA, (uint64_t)(chance() * 1e19), clock_us);
		}
	}
}

/* ---- simulation ---- */

static double normal(void)
{
	return sqrt(-2 * log(1 - chance())) * cos(6.283185307179586 * chance());
}

static int by_size(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;

	return (x > y) - (x < y);
}

enum { RUNS = 4000, LONG_RUN = 1000000 };

static unsigned waits[RUNS];

/* False alarms per 10,000 messages, of which this share is throttled. */
static double false_alarms(double share)
{
	struct detector d = { 0 };
	unsigned alarms = 0;

	for (unsigned i = 0; i < LONG_RUN; i++)
		alarms += says(&d, chance() < share ? REPLY_THROTTLE : REPLY_OK) && d.state == DETECTOR_THROTTLED;
	return alarms * 10000.0 / LONG_RUN;
}

static void until_alarm(double share)
{
	for (unsigned run = 0; run < RUNS; run++) {
		struct detector d = { 0 };

		waits[run] = 1;
		while (!says(&d, chance() < share ? REPLY_THROTTLE : REPLY_OK))
			waits[run]++;
	}
	qsort(waits, RUNS, sizeof *waits, by_size);
}

static void simulated_replies(void **state)
{
	static const struct { double share, most; } quiet[] = { { 0.005, 0.5 }, { 0.01, 2 }, { 0.02, 9 } };
	static const struct { double share; unsigned half, most; } throttled[] = { { 0.2, 14, 42 }, { 0.3, 9, 23 }, { 0.5, 5, 11 }, { 1, 2, 2 } };

	(void)state;
	seed = 1;
	for (size_t i = 0; i < sizeof quiet / sizeof *quiet; i++) {
		double alarms = false_alarms(quiet[i].share);

		printf("throttled, in quiet times %.1f %%: %.2f alarms per 10,000 messages\n", quiet[i].share * 100, alarms);
		assert_true(alarms <= quiet[i].most);
	}
	for (size_t i = 0; i < sizeof throttled / sizeof *throttled; i++) {
		until_alarm(throttled[i].share);
		printf("throttled, %.0f %%: named after %u messages, p95 %u\n", throttled[i].share * 100, waits[RUNS / 2],
		    waits[RUNS / 20 * 19]);
		assert_true(waits[RUNS / 2] <= throttled[i].half && waits[RUNS / 20 * 19] <= throttled[i].most);
	}
}

/* A delay around a second, spread over so many octaves; one in fifty takes eight times as long. */
static uint64_t delay(double sigma, double times)
{
	return (uint64_t)(1e6 * times * exp2(sigma * normal()) * (chance() < 0.02 ? 8 : 1));
}

static double false_slow(double sigma)
{
	struct detector d = { 0 };
	unsigned alarms = 0;

	for (unsigned i = 0; i < LONG_RUN; i++) {
		clock_us += SECOND;
		alarms += detector_delay(&d, DETECTOR_DATA, delay(sigma, 1), clock_us) && d.state == DETECTOR_SLOW;
	}
	return alarms * 10000.0 / LONG_RUN;
}

static void until_slow(double sigma, double times)
{
	for (unsigned run = 0; run < RUNS; run++) {
		struct detector d = { 0 };

		for (unsigned i = 0; i < 50; i++)
			detector_delay(&d, DETECTOR_DATA, delay(sigma, 1), clock_us += SECOND);
		waits[run] = 1;
		while (!detector_delay(&d, DETECTOR_DATA, delay(sigma, times), clock_us += SECOND))
			waits[run]++;
	}
	qsort(waits, RUNS, sizeof *waits, by_size);
}

static void simulated_delays(void **state)
{
	static const struct { double sigma, most; } quiet[] = { { 0.4, 0.1 }, { 0.8, 0.3 }, { 1.2, 2 } };
	static const struct { double times; unsigned half, most; } slow[] = { { 4, 9, 14 }, { 8, 5, 7 } };

	(void)state;
	seed = 2;
	for (size_t i = 0; i < sizeof quiet / sizeof *quiet; i++) {
		double alarms = false_slow(quiet[i].sigma);

		printf("slow, in quiet times, spread %.1f octaves: %.2f alarms per 10,000 messages\n", quiet[i].sigma, alarms);
		assert_true(alarms <= quiet[i].most);
	}
	for (size_t i = 0; i < sizeof slow / sizeof *slow; i++) {
		until_slow(0.8, slow[i].times);
		printf("slow, %.0f times: named after %u messages, p95 %u\n", slow[i].times, waits[RUNS / 2], waits[RUNS / 20 * 19]);
		assert_true(waits[RUNS / 2] <= slow[i].half && waits[RUNS / 20 * 19] <= slow[i].most);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_throttles), cmocka_unit_test(what_says_nothing), cmocka_unit_test(scope_counts),
		cmocka_unit_test(blocked),
		cmocka_unit_test(silence_halves), cmocka_unit_test(probe), cmocka_unit_test(probe_refused),
		cmocka_unit_test(no_clean_minute),
		cmocka_unit_test(levels), cmocka_unit_test(slow_and_back), cmocka_unit_test(short_delays_hurt_nobody),
		cmocka_unit_test(every_delay), cmocka_unit_test(a_day_is_the_new_usual), cmocka_unit_test(hostile_words),
		cmocka_unit_test(simulated_replies), cmocka_unit_test(simulated_delays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
