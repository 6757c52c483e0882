/* Rules for replies: what their file may say, and which of them matches. */
#include "test/lib/unit.h"

#include "pure/replyrules.h"

static struct replyrules *fresh(void)
{
	static union {
		struct replyrules rules;
		unsigned char bytes[REPLYRULES_MAX];
	} room;

	room.rules.used = room.rules.count = 0;
	return &room.rules;
}

static const char *add(struct replyrules *rules, unsigned file, const char *text, unsigned *line)
{
	return replyrules_add(rules, file, (const char *)guarded(text, strlen(text)), strlen(text), line);
}

/* The class of this reply by one file, its scope, and the line of the rule; "none". */
static const char *found(const char *file, const char *site, enum reply_stage stage, const char *reply)
{
	static char text[100];
	struct replyrules *rules = fresh();
	struct reply_line line = { 0 };
	struct replyrule rule;
	unsigned at;

	assert_null(add(rules, 0, file, &at));
	memcpy(line.text, reply, line.len = strlen(reply));
	if (!replyrules_match(rules, site, stage, &line, &rule))
		return "none";
	snprintf(text, sizeof text, "%s %s %u", replyclass_name(rule.class), replyclass_scope_name(rule.scope), rule.line);
	return text;
}

static void patterns(void **state)
{
	static const struct {
		const char *pattern, *reply;
		bool matches;
	} known[] = {
		{ "421", "421 4.7.28 text", true },
		{ "421 4.7.28", "421 4.7.28 text", true },
		{ "421 4.7.28 text", "421 4.7.28 tex", false },
		{ "421 4.7.28 TEXT", "421 4.7.28 text", true },
		{ "421", " 421 text", false },
		{ "4*text", "421 4.7.28 a text", true },
		{ "*text", "421 text", true },
		{ "*text*more", "421 text and more", true },
		{ "*text*more", "421 more text", false },
		{ "**a**b**", "5ab", true },
		{ "5#", "5", false },
		{ "5# x", "554 x", true },
		{ "4## x", "421 x", false },
		{ "550 s#.", "550 s3140.", true },
		{ "550 s#.", "550 s.", false },
		{ "550*(s#)", "550 (sx) (s31)", true },
		{ "550*aab", "550 aaab", true },
		{ "550*#x", "550 12 34x", true },
		{ "550 \\*", "550 *", true },
		{ "550 \\*", "550 x", false },
		{ "550 a\\#1", "550 a#1", true },
		{ "550 \\\\", "550 \\", true },
		{ "550 a\\", "550 a\\", true },
		{ "*", "550", true },
		{ "#", "550", true },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++) {
		char file[100];

		snprintf(file, sizeof file, "*\t*\t%s\tpolicy\n", known[i].pattern);
		expect_text(file, found(file, NULL, REPLY_AT_DOT, known[i].reply), known[i].matches ? "policy message 1" : "none");
	}
}

static void rules(void **state)
{
	static const char file[] = "# comment\n"
				   "\n"
				   "gmail\trcpt\t550\tpolicy\r\n"
				   "*\tmail,data\t\t550\tcontent\tscope=ip \n"
				   "Gmail\t*\t4\tthrottle\tscope=user\n"
				   "*\tdot\t550\tblocklist";

	(void)state;
	expect_text("first", found(file, "gmail", REPLY_AT_RCPT, "550 x"), "policy message 3");
	expect_text("no site", found(file, NULL, REPLY_AT_RCPT, "550 x"), "none");
	expect_text("other site", found(file, "gmai", REPLY_AT_RCPT, "550 x"), "none");
	expect_text("stages", found(file, NULL, REPLY_AT_DATA, "550 x"), "content ip 4");
	expect_text("site in lower case", found(file, "gmail", REPLY_AT_TLS, "450 x"), "throttle user 5");
	expect_text("last line", found(file, "gmail", REPLY_AT_DOT, "550 x"), "blocklist ip 6");
	expect_text("no file", found("", NULL, REPLY_AT_DOT, "550 x"), "none");
}

static void faults(void **state)
{
	static const struct {
		const char *file, *why;
		unsigned line;
	} known[] = {
		{ "* * 550 policy\n", "a rule is SITE, STAGE, PATTERN and CLASS, with TABs between", 1 },
		{ "\n*\t*\t550\n", "a rule is SITE, STAGE, PATTERN and CLASS, with TABs between", 2 },
		{ "*\tquit\t550\tpolicy\n", "unknown stage", 1 },
		{ "*\trcpt,\t550\tpolicy\n", "unknown stage", 1 },
		{ "*\t,\t550\tpolicy\n", "unknown stage", 1 },
		{ "*\t*\t250\tpolicy\n", "a pattern begins with the code of a refusal: 4, 5, * or #", 1 },
		{ "*\t*\t55\x01\tpolicy\n", "a control character in the pattern", 1 },
		{ "*\t*\t550\tok\n", "unknown class", 1 },
		{ "*\t*\t550\tPolicy\n", "unknown class", 1 },
		{ "*\t*\t550\tpolicy\twait=5\n", "behind the class only scope=ip, domain, user or message can stand", 1 },
		{ "*\t*\t550\tpolicy\tscope=IP\n", "a scope is ip, domain, user or message", 1 },
	};
	char file[REPLYRULES_LINE_MAX + 2];
	unsigned line;

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++) {
		expect_text(known[i].file, add(fresh(), 0, known[i].file, &line), known[i].why);
		assert_int_equal(line, known[i].line);
	}
	memset(file, '#', sizeof file);
	file[sizeof file - 1] = 0;
	assert_null(add(fresh(), 0, file, &line));
	*file = '*';
	expect_text("long", add(fresh(), 0, file, &line), "the line is too long");
}

/* As many files as you like, up to the end of the block; what is in it by then stays as it is. */
static void several(void **state)
{
	static char many[300 * 1000];
	struct replyrules *r = fresh();
	struct reply_line reply = { .len = 3, .text = "451" };
	struct replyrule rule;
	unsigned line, files = 0;

	(void)state;
	for (size_t at = 0; at + 300 < sizeof many;)
		at += (size_t)sprintf(many + at, "*\t*\t5%0100d%0100d\tpolicy\n", 0, 0);
	assert_null(add(r, 7, "*\t*\t45\tpolicy\n", &line));
	while (!replyrules_add(r, files, many, strlen(many), &line))
		files++;
	assert_true(files > 1 && files < 9 && r->used <= REPLYRULES_MAX - sizeof *r);
	assert_true(replyrules_match(r, NULL, REPLY_AT_DOT, &reply, &rule));
	assert_int_equal(rule.file, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(patterns),
		cmocka_unit_test(rules),
		cmocka_unit_test(faults),
		cmocka_unit_test(several),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
