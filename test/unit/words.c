/* Words that options, routes and verdicts take: levels of TLS, and sinks of records. */
#include "test/lib/unit.h"

#include "pure/levels.h"
#include "pure/sink.h"

/* Each level by its name, and all names in the words for messages. */
static void levels(void **state)
{
	static const bool verifies[] = { [TLS_OFFERED] = true, [TLS_VERIFY] = true };
	const char *at = TLS_LEVEL_WORDS;
	enum tls_level level;

	(void)state;
	for (unsigned i = TLS_NONE; i <= TLS_VERIFY; i++) {
		const char *name = tls_level_name((enum tls_level)i);

		assert_true(tls_level_parse(name, &level));
		assert_int_equal(level, i);
		assert_int_equal(tls_level_verifies(level), verifies[i]);
		at = strstr(at, name);
		assert_non_null(at);
	}
	for (const char *const *bad = (const char *const[]){ "", "May", "ma", "may ", "mays", "true", NULL }; *bad; bad++) {
		level = TLS_ENCRYPT;
		assert_false(tls_level_parse(*bad, &level));
		assert_int_equal(level, TLS_ENCRYPT);
	}
}

static void client_tls(void **state)
{
	static const char *const names[] = { "none", "may", "require", "implicit", "passthrough" };

	(void)state;
	for (unsigned i = 0; i < COUNT(names); i++) {
		expect_text(names[i], client_tls_name((enum client_tls)i), names[i]);
		assert_int_equal(strstr(CLIENT_TLS_WORDS, names[i]) != NULL, i != CLIENT_TLS_NONE);
	}
}

static void sinks(void **state)
{
	static const struct {
		const char *text;
		enum sink_kind want;
		const char *path;
	} rows[] = {
		{ "none", SINK_NONE, "" }, { "stderr", SINK_STDERR, "" }, { "syslog", SINK_SYSLOG, "" },
		{ "journal", SINK_JOURNAL, "" }, { "file:/var/log/x", SINK_FILE, "/var/log/x" }, { "file:x", SINK_FILE, "x" },
		{ "unix:/run/log", SINK_UNIX, "/run/log" }, { "file::", SINK_FILE, ":" },
		{ "", SINK_UNKNOWN, "" }, { "file:", SINK_UNKNOWN, "" }, { "unix:", SINK_UNKNOWN, "" }, { "file", SINK_UNKNOWN, "" },
		{ "File:x", SINK_UNKNOWN, "" }, { "stderr:", SINK_UNKNOWN, "" }, { "nowhere", SINK_UNKNOWN, "" },
		{ "journal/", SINK_UNKNOWN, "" }, { "none ", SINK_UNKNOWN, "" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		const char *path = NULL;

		assert_int_equal(sink_parse(rows[i].text, &path), rows[i].want);
		expect_text(rows[i].text, path, rows[i].path);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(levels), cmocka_unit_test(client_tls), cmocka_unit_test(sinks) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
