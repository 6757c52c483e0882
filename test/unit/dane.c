/* Sets of TLSA records: which can be used, and which certificates they name. */
#include "test/lib/unit.h"

#include "pure/dane.h"

static const unsigned char certificate[] = "\x30\x13\x30\x0d\x02\x01\x01\x30\0\x30\0\x30\0\x30\0\x30\0\x30\0\x03\0";
static const size_t certificate_len = sizeof certificate - 1;
static const unsigned char key[] = "the key";

/* What the certificate's digests would be, were they digests. */
static void make_subject(struct dane_subject *s)
{
	s->part[DANE_CERTIFICATE] = (struct certificate_span){ certificate, certificate_len };
	s->part[DANE_KEY] = (struct certificate_span){ key, sizeof key };
	for (unsigned i = 0; i < DANE_SELECTORS; i++) {
		memset(s->sha256[i], 'a' + (int)i, sizeof s->sha256[i]);
		memset(s->sha512[i], 'A' + (int)i, sizeof s->sha512[i]);
	}
}

static struct dane_set set;

static bool add(unsigned host, unsigned usage, unsigned selector, unsigned matching, const void *data, size_t n)
{
	struct dns_tlsa r = { (unsigned char)usage, (unsigned char)selector, (unsigned char)matching, guarded(data, n), n };

	return dane_add(&set, host, &r);
}

/* Add a record, "3 1 1" and so on, that names the certificate, or one that does not. */
static void add_words(unsigned host, const char *words, bool right)
{
	unsigned char data[64];
	struct dane_subject s;
	unsigned usage, selector, matching;
	size_t n;

	make_subject(&s);
	assert_int_equal(sscanf(words, "%u %u %u", &usage, &selector, &matching), 3);
	n = matching == DANE_FULL ? s.part[selector].len : matching == DANE_SHA256 ? 32 : 64;
	memcpy(data, matching == DANE_FULL ? s.part[selector].bytes : matching == DANE_SHA256 ? s.sha256[selector] : s.sha512[selector], n);
	if (!right)
		data[n - 1 - (usage == DANE_TA && matching == DANE_FULL && selector == DANE_CERTIFICATE ? 14 : 0)] ^= 1;
	assert_true(add(host, usage, selector, matching, data, n));
}

static bool matched(enum dane_usage usage)
{
	struct dane_subject s;

	make_subject(&s);
	return dane_matches(&set, usage, &s);
}

static void clear_set(void)
{
	memset(&set, 0, sizeof set);
}

/* RFC 7672 3.1.3, RFC 6698 2.1. */
static void what_can_be_used(void **state)
{
	static const unsigned char digest[65];

	(void)state;
	clear_set();
	for (unsigned usage = 0; usage < 256; usage++)
		for (unsigned selector = 0; selector < 256; selector += selector < 3 ? 1 : 84)
			for (unsigned matching = 0; matching < 256; matching += matching < 4 ? 1 : 83)
				for (size_t n = 0; n <= sizeof digest; n++) {
					bool known = (usage == 2 || usage == 3) && selector < 2 && matching < 3;
					bool fits = matching == 0 ? selector == 1 && n : n == (matching == 1 ? 32 : 64);

					clear_set();
					assert_int_equal(add(0, usage, selector, matching, digest, n), known && fits);
					assert_int_equal(set.count, known && fits);
					assert_false(set.cut);
				}
	assert_true(add(0, 3, 0, 0, certificate, certificate_len));
	assert_true(add(0, 2, 0, 0, certificate, certificate_len));
	assert_false(add(0, 3, 0, 0, certificate, certificate_len - 1));
	assert_false(add(0, 2, 0, 0, "\x30\x13\x30\x0d\x02\x01\x01\x30\0\x30\0\x30\0\x30\0\x30\0\x30\0\x03\0more", certificate_len + 4));
}

static void each_kind(void **state)
{
	(void)state;
	for (unsigned usage = 2; usage < 4; usage++)
		for (unsigned selector = 0; selector < 2; selector++)
			for (unsigned matching = 0; matching < 3; matching++)
				for (unsigned right = 0; right < 2; right++) {
					char words[16];

					snprintf(words, sizeof words, "%u %u %u", usage, selector, matching);
					if (!right && usage == 3 && !selector && !matching)
						continue; /* what is changed there is no certificate */
					clear_set();
					add_words(0, words, right);
					assert_int_equal(matched(DANE_EE), right && usage == 3);
					assert_int_equal(matched(DANE_TA), right && usage == 2);
				}
	clear_set();
	assert_false(matched(DANE_EE));
	add(0, 3, 1, 0, key, sizeof key - 1);
	add(0, 3, 1, 0, "the key\0", sizeof key + 1);
	assert_false(matched(DANE_EE));
}

/* RFC 7671 9: of each host, usage and selector. */
static void strongest_counts(void **state)
{
	static const struct {
		const char *name, *right, *wrong;
		unsigned host; /* of the wrong one */
		bool want;
	} rows[] = {
		{ "the stronger is wrong", "3 1 1", "3 1 2", 0, false },
		{ "the weaker is wrong", "3 1 2", "3 1 1", 0, true },
		{ "another selector", "3 1 1", "3 0 2", 0, true },
		{ "another usage", "3 1 1", "2 1 2", 0, true },
		{ "another host", "3 1 1", "3 1 2", 1, true },
		{ "whole ones always count", "3 1 0", "3 1 2", 0, true },
		{ "of the certificate", "3 0 1", "3 0 2", 0, false },
		{ "two of one kind", "3 1 2", "3 1 2", 0, true },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		for (unsigned first = 0; first < 2; first++) {
			clear_set();
			if (first)
				add_words(rows[i].host, rows[i].wrong, false);
			add_words(0, rows[i].right, true);
			if (!first)
				add_words(rows[i].host, rows[i].wrong, false);
			if (matched(DANE_EE) != rows[i].want)
				fail_msg("%s", rows[i].name);
		}
}

static void anchors(void **state)
{
	struct certificate c;

	(void)state;
	clear_set();
	add_words(0, "3 0 0", true);
	add_words(0, "2 1 0", true);
	add_words(0, "2 0 1", true);
	add_words(0, "2 0 0", true);
	for (unsigned i = 0; i < set.count; i++)
		assert_int_equal(dane_anchor(&set, i, &c), i == 3);
	assert_int_equal(c.der.len, certificate_len);
	assert_true(c.der.bytes >= set.data && c.der.bytes + c.der.len <= set.data + set.len);
}

/* What there is no room for is told, and nothing is kept in part. */
static void no_room(void **state)
{
	static unsigned char large[DANE_DATA + 1];

	(void)state;
	clear_set();
	for (unsigned i = 0; i < DANE_RECORDS; i++)
		add_words(i, "3 1 1", false);
	assert_false(set.cut || add(0, 0, 0, 0, large, 1) || set.cut); /* one that cannot be used needs none */
	assert_false(add(0, 3, 1, 1, large, 32));
	assert_true(set.cut && set.count == DANE_RECORDS);
	for (size_t n = DANE_DATA - 1; n <= DANE_DATA + 1; n++) {
		clear_set();
		assert_int_equal(add(0, 3, 1, 0, large, n), n <= DANE_DATA);
		assert_int_equal(set.cut, n > DANE_DATA);
		assert_int_equal(add(0, 3, 1, 0, "x", 1), n != DANE_DATA);
		assert_int_equal(set.cut, n >= DANE_DATA);
	}
}

/* An answer is kept whole, or not at all. */
static void answers(void **state)
{
	static unsigned char message[DANE_RECORDS * 35 + 35];
	struct dns_answer a = { .message = message };

	(void)state;
	clear_set();
	for (unsigned i = 0; i <= DANE_RECORDS; i++) {
		unsigned char *at = message + i * 35;

		memcpy(at, i % 4 == 3 ? "\1\1\1" : "\3\1\1", 3);
		at[3] = (unsigned char)i;
		a.tlsa[i].at = (uint16_t)(i * 35);
		a.tlsa[i].len = 35;
	}
	a.count = 8;
	assert_int_equal(dane_take(&set, 0, &a), 6);
	assert_int_equal(set.count, 6);
	assert_int_equal(set.len, 6 * 32);
	a.cut = true;
	assert_int_equal(dane_take(&set, 1, &a), -1);
	a.cut = false;
	assert_int_equal(dane_take(&set, 1, &a), 6);
	assert_true(set.count == 12 && set.record[11].host == 1 && set.data[set.record[11].at] == 6);
	for (a.count = DANE_RECORDS; dane_take(&set, 2, &a) >= 0;)
		;
	assert_true(set.count == 60 && set.len == 60 * 32 && !set.cut);
	a.count = 3;
	assert_int_equal(dane_take(&set, 3, &a), 3);
	a.count = 0;
	assert_int_equal(dane_take(&set, 3, &a), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(what_can_be_used), cmocka_unit_test(each_kind),
		cmocka_unit_test(strongest_counts), cmocka_unit_test(anchors), cmocka_unit_test(no_room), cmocka_unit_test(answers) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
