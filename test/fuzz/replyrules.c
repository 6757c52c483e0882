/* Fuzz target: whatever stands in a file of rules, whatever a server says.
 *
 * Octet 0: how long the server's text is; then the text, then the file. Checked: a fault is one of a line of the file; the block holds at
 * any address; a rule that is found is one of the file's, by a matcher that knows nothing but the definition as well. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "pure/replyrules.h"
#include "test/lib/replay.h"

#define CHECK(condition) ((condition) ? (void)0 : abort())

static bool is_digit(unsigned char c)
{
	return c >= '0' && c <= '9';
}

static unsigned char lower(unsigned char c)
{
	return (unsigned char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
}

static unsigned steps; /* a slow definition: too many, and it has no answer */

/* The pattern as the manual defines it. */
static bool matches(const char *p, size_t p_len, const char *text, size_t n)
{
	size_t digits = 0;

	if (!p_len || ++steps > 20000)
		return true;
	if (*p == '*') {
		for (size_t i = 0; i <= n; i++)
			if (matches(p + 1, p_len - 1, text + i, n - i))
				return true;
		return false;
	}
	if (*p == '#') {
		while (digits < n && is_digit((unsigned char)text[digits]))
			digits++;
		return digits && matches(p + 1, p_len - 1, text + digits, n - digits);
	}
	if (*p == '\\' && p_len > 1) {
		p++;
		p_len--;
	}
	return n && lower((unsigned char)*p) == (unsigned char)*text && matches(p + 1, p_len - 1, text + 1, n - 1);
}

/* The PATTERN of this line of the file. */
static const char *pattern_of(const char *file, size_t n, unsigned line, size_t *len)
{
	const char *at = file, *end = file + n;

	for (; line > 1; line--)
		at = (const char *)memchr(at, '\n', (size_t)(end - at)) + 1;
	for (unsigned fields = 0; fields < 2; fields++) {
		while (*at == '\t')
			at++;
		while (*at != '\t')
			at++;
	}
	while (*at == '\t')
		at++;
	for (*len = 0; at + *len < end && at[*len] != '\t' && at[*len] != '\n';)
		++*len;
	return at;
}

static void check(const struct replyrules *rules, const char *file, size_t n, const struct reply_line *reply)
{
	for (unsigned stage = 0; stage < REPLY_STAGES_END; stage++) {
		struct replyrule rule;
		const char *pattern;
		size_t len;

		if (!replyrules_match(rules, stage % 2 ? "gmail" : NULL, (enum reply_stage)stage, reply, &rule))
			continue;
		CHECK(rule.class < REPLY_CLASSES_END && rule.class != REPLY_OK && rule.scope < REPLY_SCOPES_END && rule.file == 3);
		pattern = pattern_of(file, n, rule.line, &len);
		steps = 0;
		CHECK(matches(pattern, len, reply->text, reply->len));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct replyrules *rules = calloc(1, REPLYRULES_MAX);
	struct reply_line reply = { 0 };
	const char *file, *why;
	unsigned line;
	size_t len;
	char *exact;

	if (n < 1 || !rules) {
		free(rules);
		return 0;
	}
	len = data[0] < n ? data[0] : n - 1;
	replyclass_add(&reply, 550, data + 1, len / 2);
	replyclass_add(&reply, 550, data + 1 + len / 2, len - len / 2);
	CHECK(reply.len <= sizeof reply.text);
	file = (const char *)data + 1 + len;
	why = replyrules_add(rules, 3, file, n - 1 - len, &line);
	CHECK(!why || (line >= 1 && line <= n));
	exact = malloc(sizeof *rules + rules->used + 1); /* elsewhere, and not a reader's octet too long */
	CHECK(exact != NULL);
	memcpy(exact, rules, sizeof *rules + rules->used);
	check((const struct replyrules *)(const void *)exact, file, n - 1 - len, &reply);
	free(exact);
	free(rules);
	return 0;
}
