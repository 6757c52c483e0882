/* Classes of replies without rules: a reply as one line, and the table by stage, code and enhanced code. */
#include "test/lib/unit.h"

#include "pure/replyclass.h"

/* Each word is found again, and no other. */
static void words(void **state)
{
	(void)state;
	for (unsigned i = 0; i < REPLY_CLASSES_END; i++) {
		const char *name = replyclass_name((enum reply_class)i);

		assert_int_equal(replyclass_parse(name, strlen(name)), i);
		assert_int_equal(replyclass_parse(name, strlen(name) - 1), REPLY_CLASSES_END);
	}
	for (unsigned i = 0; i < REPLY_STAGES_END; i++) {
		const char *name = replyclass_stage_name((enum reply_stage)i);

		assert_int_equal(replyclass_parse_stage(name, strlen(name)), i);
	}
	for (unsigned i = 0; i < REPLY_SCOPES_END; i++) {
		const char *name = replyclass_scope_name((enum reply_scope)i);

		assert_int_equal(replyclass_parse_scope(name, strlen(name)), i);
	}
	assert_int_equal(replyclass_parse("", 0), REPLY_CLASSES_END);
	assert_int_equal(replyclass_scope(REPLY_THROTTLE), REPLY_OF_IP);
	assert_int_equal(replyclass_scope(REPLY_UNKNOWN_USER), REPLY_OF_USER);
}

static void add(struct reply_line *line, int code, const char *text)
{
	replyclass_add(line, code, guarded(text, strlen(text)), strlen(text));
}

static void expect_line(struct reply_line *line, const char *want)
{
	line->text[line->len] = 0;
	expect_text(want, line->text, want);
}

static void one_line(void **state)
{
	struct reply_line line = { 0 };

	(void)state;
	add(&line, 421, "4.7.28 [192.0.2.1 15] Our system has\tdetected");
	add(&line, 421, "4.7.28  an unusual RATE of");
	add(&line, 421, "4.7.1 mail. \x1b[31m");
	expect_line(&line, "421 4.7.28 [192.0.2.1 15] our system has detected an unusual rate of 4.7.1 mail. [31m ");
	line = (struct reply_line){ 0 };
	add(&line, 550, "");
	expect_line(&line, "550 ");
	line = (struct reply_line){ 0 };
	add(&line, 550, "5.1.1");
	add(&line, 550, "5.1.1");
	expect_line(&line, "550 5.1.1 5.1.1 ");
}

/* What is longer than a line is left out, wherever the input ends. */
static void bounded(void **state)
{
	static char text[3000];
	struct reply_line line = { 0 };

	(void)state;
	memset(text, 'x', sizeof text - 1);
	for (unsigned i = 0; i < 3; i++)
		add(&line, 550, text);
	assert_int_equal(line.len, REPLY_LINE_MAX);
}

static void by_codes(void **state)
{
	static const struct {
		enum reply_stage stage;
		int code;
		const char *text, *class;
	} known[] = {
		{ REPLY_AT_RCPT, 550, "5.1.1 no", "unknown-user" },
		{ REPLY_AT_RCPT, 550, "5.1.3 no", "unknown-user" },
		{ REPLY_AT_RCPT, 551, "5.1.6 moved", "inactive" },
		{ REPLY_AT_RCPT, 550, "5.2.1 disabled", "inactive" },
		{ REPLY_AT_RCPT, 452, "4.2.2 full", "mailbox-full" },
		{ REPLY_AT_RCPT, 452, "4.3.1 full", "mailbox-full" },
		{ REPLY_AT_MAIL, 552, "5.3.4 big", "size" },
		{ REPLY_AT_DOT, 552, "5.2.3 big", "size" },
		{ REPLY_AT_MAIL, 550, "5.1.8 no", "bad-sender" },
		{ REPLY_AT_RCPT, 550, "5.1.10 null MX", "no-route" },
		{ REPLY_AT_RCPT, 451, "4.4.3 DNS", "network" },
		{ REPLY_AT_MAIL, 421, "4.4.5 busy", "throttle" },
		{ REPLY_AT_RCPT, 452, "4.5.3 many", "too-many-recipients" },
		{ REPLY_AT_RCPT, 452, "many", "too-many-recipients" },
		{ REPLY_AT_DOT, 452, "no room", "system" },
		{ REPLY_AT_DOT, 421, "4.7.28 rate", "throttle" },
		{ REPLY_AT_DOT, 550, "5.7.26 DMARC", "auth" },
		{ REPLY_AT_MAIL, 550, "5.7.30 REQUIRETLS", "tls" },
		{ REPLY_AT_DOT, 550, "5.7.1 no", "policy" },
		{ REPLY_AT_RCPT, 450, "4.7.1 Greylisted", "greylist" },
		{ REPLY_AT_RCPT, 451, "greylisting, come again", "greylist" },
		{ REPLY_AT_RCPT, 450, "4.1.1 grey mailbox", "unknown-user" },
		{ REPLY_AT_RCPT, 550, "5.7.1 grey", "policy" },
		{ REPLY_AT_BANNER, 421, "busy", "throttle" },
		{ REPLY_AT_BANNER, 554, "no", "blocklist" },
		{ REPLY_AT_BANNER, 550, "5.7.1 no", "blocklist" },
		{ REPLY_AT_BANNER, 450, "later", "other" },
		{ REPLY_AT_TLS, 454, "no TLS", "tls" },
		{ REPLY_AT_EHLO, 502, "no", "protocol" },
		{ REPLY_AT_RCPT, 556, "null MX", "no-route" },
		{ REPLY_AT_RCPT, 550, "no", "other" },
		{ REPLY_AT_DOT, 554, "5.9.9 no", "other" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++) {
		struct reply_line line = { 0 };
		uint16_t enhanced[3] = { 0 };
		unsigned a, b, c;

		add(&line, known[i].code, known[i].text);
		if (sscanf(known[i].text, "%u.%u.%u", &a, &b, &c) == 3) {
			enhanced[0] = (uint16_t)a;
			enhanced[1] = (uint16_t)b;
			enhanced[2] = (uint16_t)c;
		}
		expect_text(known[i].text, replyclass_name(replyclass_of(known[i].stage, known[i].code, enhanced, &line)), known[i].class);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words),
		cmocka_unit_test(one_line),
		cmocka_unit_test(bounded),
		cmocka_unit_test(by_codes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
