/* Detectors of throttling, slowness and blocks. See detector.h for the contract; the comments here say why. */
#include "pure/detector.h"

#include <string.h>

#define SECOND 1000000ull
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)

/* Logarithms of the ratio of likelihoods, in 64ths: ln(0.25 / 0.02) and ln(0.75 / 0.98). */
#define THROTTLED_GAIN 162
#define OTHER_LOSS 17
#define SILENCE (10 * MINUTE) /* halves what is suspected */

/* In 16ths of an octave. */
#define OCTAVE 16
#define OCTAVES_MAX (54 * OCTAVE) /* of 2^64 microseconds */
#define CLIP (3 * OCTAVE) /* of one sample, so that a single long delay proves nothing */
#define LATE_MAX (2 * DETECTOR_LATE_ALARM)
#define LATE_LEAST 500000 /* microseconds: a shorter delay hurts nobody */
#define RELEARN (24 * HOUR)

#define HOLD_THROTTLED (5 * MINUTE)
#define HOLD_BLOCKED (30 * MINUTE)
#define HOLD_MAX (4 * HOUR)
#define PROBE_LEAST (15 * SECOND)
#define LEVEL_MAX 6
#define BLOCKED_WITHIN (10 * MINUTE)

const char *detector_state_name(uint32_t state)
{
	static const char names[][10] = {
#define X(state, name, number) name,
		DETECTOR_STATES(X)
#undef X
	};

	return state < sizeof names / sizeof *names ? names[state] : "ok";
}

static uint32_t at_most(uint32_t n, uint32_t most)
{
	return n < most ? n : most;
}

static uint8_t at_most_8(uint32_t n, uint8_t most)
{
	return (uint8_t)at_most(n, most);
}

void detector_clean(struct detector *d)
{
	d->state = d->state <= DETECTOR_BLOCKED ? d->state : DETECTOR_OK;
	d->level = at_most_8(d->level, LEVEL_MAX);
	d->share = at_most(d->share, DETECTOR_SHARE_ALL);
	d->score = (uint16_t)at_most(d->score, DETECTOR_ALARM + THROTTLED_GAIN);
	for (unsigned i = 0; i < DETECTOR_DELAYS; i++) {
		d->late[i] = at_most_8(d->late[i], LATE_MAX);
		d->usual[i] = at_most(d->usual[i], OCTAVES_MAX << 8);
		d->samples[i] = at_most_8(d->samples[i], DETECTOR_EARLY);
		for (unsigned j = 0; j < DETECTOR_EARLY; j++)
			d->early[i][j] = at_most(d->early[i][j], OCTAVES_MAX);
	}
}

static bool enter(struct detector *d, enum detector_state state, uint64_t now)
{
	if (d->state == (uint32_t)state)
		return false;
	d->state = (uint8_t)state;
	d->changed = now;
	return true;
}

/* ---- silence ---- */

static uint32_t fade(uint32_t score, uint64_t silence)
{
	return silence / SILENCE < 32 ? score >> silence / SILENCE : 0;
}

static void hear(struct detector *d, uint64_t now)
{
	uint64_t silence = d->heard && now > d->heard ? now - d->heard : 0;

	d->score = (uint16_t)fade(d->score, silence);
	for (unsigned i = 0; i < DETECTOR_DELAYS; i++)
		d->late[i] = (uint8_t)fade(d->late[i], silence);
	d->heard = now;
}

/* ---- holds ---- */

/* Each alarm within an hour of the last hold doubles the next one; each clean hour takes one doubling back. */
static void set_level(struct detector *d, uint64_t now)
{
	uint64_t clean = d->released && now > d->released ? (now - d->released) / HOUR : 0;

	if (!d->released)
		d->level = 0;
	else if (!clean)
		d->level = at_most_8(d->level + 1u, LEVEL_MAX);
	else
		d->level = clean < d->level ? (uint8_t)(d->level - clean) : 0;
}

static void set_probe(struct detector *d, uint64_t hold, uint64_t now)
{
	d->probe = now + (hold / 8 > PROBE_LEAST ? hold / 8 : PROBE_LEAST);
}

static bool hold(struct detector *d, enum detector_state state, uint64_t least, uint64_t now)
{
	uint64_t duration;

	d->score = 0;
	if (d->until && d->state >= (uint32_t)state) /* the hold knows it */
		return false;
	set_level(d, now);
	duration = least << d->level < HOLD_MAX ? least << d->level : HOLD_MAX;
	d->until = now + duration;
	d->share = 0;
	set_probe(d, duration, now);
	return enter(d, state, now);
}

static bool is_late(const struct detector *d)
{
	return d->late[DETECTOR_DATA] >= DETECTOR_LATE_ALARM || d->late[DETECTOR_RCPT] >= DETECTOR_LATE_ALARM;
}

/* Sessions come back in steps, for all of them at once would bring the throttle back. */
static bool release(struct detector *d, uint64_t now)
{
	d->until = d->probe = 0;
	d->released = d->raised = now;
	d->share = 1;
	d->blocked[0] = d->blocked[1] = 0;
	return enter(d, is_late(d) ? DETECTOR_SLOW : DETECTOR_OK, now);
}

static void raise_share(struct detector *d, uint64_t now)
{
	if (!d->share || d->share == DETECTOR_SHARE_ALL || d->until || now < d->raised + MINUTE)
		return;
	d->share *= 2;
	d->raised = now;
}

bool detector_rest(struct detector *d, uint64_t now)
{
	if (d->until && now >= d->until)
		return release(d, now);
	raise_share(d, now);
	return false;
}

/* ---- replies ---- */

static bool is_complaint(enum reply_class class, enum reply_scope scope)
{
	return scope == REPLY_OF_IP && (class == REPLY_THROTTLE || class == REPLY_BLOCKLIST || class == REPLY_REPUTATION);
}

/* What a server says of one user or one message, or only at the first attempt, says nothing of us. */
static bool counts(enum reply_class class, enum reply_scope scope)
{
	return class == REPLY_OK || (class != REPLY_GREYLIST && (scope == REPLY_OF_IP || scope == REPLY_OF_DOMAIN));
}

/* Whether this is the second complaint of its kind within ten minutes. */
static bool says_blocked(struct detector *d, enum reply_class class, uint64_t now)
{
	if (class == REPLY_THROTTLE)
		return false;
	d->blocked[1] = d->blocked[0];
	d->blocked[0] = now;
	return d->blocked[1] && now - d->blocked[1] < BLOCKED_WITHIN;
}

bool detector_reply(struct detector *d, enum reply_class class, enum reply_scope scope, uint64_t now)
{
	bool over = detector_rest(d, now);

	if (!counts(class, scope))
		return over;
	hear(d, now);
	if (!is_complaint(class, scope)) {
		d->score = d->score > OTHER_LOSS ? d->score - OTHER_LOSS : 0;
		/* Only a message that is sent to try counts as proof: in the midst of throttling some pass. */
		return (d->until && class == REPLY_OK && now >= d->probe && release(d, now)) || over;
	}
	if (d->until && now >= d->probe)
		set_probe(d, d->until - d->changed, now);
	if (!d->until && d->share && d->share < DETECTOR_SHARE_ALL)
		d->raised = now; /* no clean minute */
	d->score += THROTTLED_GAIN;
	if (says_blocked(d, class, now))
		return hold(d, DETECTOR_BLOCKED, HOLD_BLOCKED, now) || over;
	return (d->score >= DETECTOR_ALARM && hold(d, DETECTOR_THROTTLED, HOLD_THROTTLED, now)) || over;
}

/* ---- delays ---- */

/* 16 times the binary logarithm of a delay in milliseconds; 0 below one. */
static uint32_t octaves(uint64_t us)
{
	/* 2^(n/16 + 1/32), in 1024ths: where the fraction rounds up to the next 16th */
	static const uint16_t steps[] = { 1046, 1093, 1141, 1192, 1244, 1300, 1357, 1417, 1480, 1545, 1614, 1685, 1760, 1838, 1919, 2004 };
	uint64_t ms1024 = (us << 10) / 1000;
	uint32_t whole = 0, part = 0;

	if (ms1024 < 1024)
		return 0;
	for (; ms1024 >= 2048; ms1024 >>= 1)
		whole++;
	while (part < 16 && ms1024 >= steps[part])
		part++;
	return whole * OCTAVE + part;
}

static uint32_t median(const uint32_t early[DETECTOR_EARLY])
{
	uint32_t sorted[DETECTOR_EARLY];

	for (unsigned i = 0; i < DETECTOR_EARLY; i++) {
		unsigned at = i;

		for (; at && sorted[at - 1] > early[i]; at--)
			sorted[at] = sorted[at - 1];
		sorted[at] = early[i];
	}
	return (sorted[DETECTOR_EARLY / 2 - 1] + sorted[DETECTOR_EARLY / 2]) / 2;
}

/* The first samples only tell what is usual. Returns whether x is one of them. */
static bool learn_early(struct detector *d, enum detector_delay which, uint32_t x)
{
	uint32_t n = d->samples[which];

	if (n >= DETECTOR_EARLY)
		return false;
	d->early[which][n] = x;
	d->samples[which] = (uint8_t)(n + 1);
	if (n + 1 == DETECTOR_EARLY)
		d->usual[which] = median(d->early[which]) << 8;
	return true;
}

/* What is usual follows slowly, by 0.03 octave a sample, and not while the delay is under suspicion. It is kept in 256ths. */
static void learn(struct detector *d, enum detector_delay which, uint32_t x)
{
	const uint32_t step = 123; /* 0.03 octave */

	if (d->late[which] > DETECTOR_LATE_ALARM / 2)
		return;
	if (x << 8 > d->usual[which] + step)
		d->usual[which] += step;
	else if (x << 8 < d->usual[which])
		d->usual[which] -= d->usual[which] > step ? step : d->usual[which];
}

static void score_delay(struct detector *d, enum detector_delay which, uint32_t x, bool harmless)
{
	int32_t above = (int32_t)x - (int32_t)(d->usual[which] >> 8), score = (int32_t)d->late[which];

	above = above > CLIP ? CLIP : above < -CLIP ? -CLIP : above;
	if (harmless && above > 0)
		above = 0;
	score += above - OCTAVE;
	d->late[which] = score < 0 ? 0 : at_most_8((uint32_t)score, LATE_MAX);
}

bool detector_delay(struct detector *d, enum detector_delay which, uint64_t us, uint64_t now)
{
	bool over = detector_rest(d, now);
	uint32_t x = octaves(us);

	hear(d, now);
	if (d->state == DETECTOR_SLOW && now - d->changed > RELEARN) { /* this is how it is now */
		memset(d->samples, 0, sizeof d->samples);
		memset(d->late, 0, sizeof d->late);
	}
	if (!learn_early(d, which, x)) {
		score_delay(d, which, x, us < LATE_LEAST);
		learn(d, which, x);
	}
	if (d->state == DETECTOR_OK && is_late(d))
		return enter(d, DETECTOR_SLOW, now);
	if (d->state == DETECTOR_SLOW && !d->late[DETECTOR_DATA] && !d->late[DETECTOR_RCPT])
		return enter(d, DETECTOR_OK, now);
	return over;
}
