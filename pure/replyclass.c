/* Classes of replies. See replyclass.h for the contract. */
#define _GNU_SOURCE
#include "pure/replyclass.h"

#include <stdio.h>
#include <string.h>

static const char class_names[][20] = {
#define X(class, name, scope) name,
	REPLY_CLASSES(X)
#undef X
};

static const unsigned char scopes[] = {
#define X(class, name, scope) REPLY_OF_##scope,
	REPLY_CLASSES(X)
#undef X
};

static const char stage_names[][8] = {
#define X(stage, name) name,
	REPLY_STAGES(X)
#undef X
};

static const char scope_names[][8] = {
#define X(scope, name) name,
	REPLY_SCOPES(X)
#undef X
};

const char *replyclass_name(enum reply_class class)
{
	return class_names[class];
}

const char *replyclass_stage_name(enum reply_stage stage)
{
	return stage_names[stage];
}

const char *replyclass_scope_name(enum reply_scope scope)
{
	return scope_names[scope];
}

/* The index of the word among names that are `size` octets each; `count`: it is none of them. */
static unsigned find(const char *names, size_t size, unsigned count, const char *word, size_t n)
{
	for (unsigned i = 0; i < count; i++)
		if (strlen(names + i * size) == n && memcmp(names + i * size, word, n) == 0)
			return i;
	return count;
}

enum reply_class replyclass_parse(const char *word, size_t n)
{
	return (enum reply_class)find(*class_names, sizeof *class_names, REPLY_CLASSES_END, word, n);
}

enum reply_stage replyclass_parse_stage(const char *word, size_t n)
{
	return (enum reply_stage)find(*stage_names, sizeof *stage_names, REPLY_STAGES_END, word, n);
}

enum reply_scope replyclass_parse_scope(const char *word, size_t n)
{
	return (enum reply_scope)find(*scope_names, sizeof *scope_names, REPLY_SCOPES_END, word, n);
}

enum reply_scope replyclass_scope(enum reply_class class)
{
	return (enum reply_scope)scopes[class];
}

/* ---- one line ---- */

static void put(struct reply_line *line, unsigned char c)
{
	if (c >= 'A' && c <= 'Z')
		c = (unsigned char)(c + 32);
	if (c <= ' ' || c == 0x7f)
		c = ' ';
	if (line->len < sizeof line->text && !(c == ' ' && line->text[line->len - 1] == ' '))
		line->text[line->len++] = (char)c;
}

/* Octets of the enhanced code that the text begins with, with the blank behind it; 0: there is none. */
static size_t enhanced_len(const unsigned char *text, size_t n)
{
	unsigned dots = 0;
	size_t i = 0;

	while (i < n && ((text[i] >= '0' && text[i] <= '9') || (text[i] == '.' && i)))
		dots += text[i++] == '.';
	return dots == 2 && i < n && text[i] == ' ' ? i + 1 : 0;
}

void replyclass_add(struct reply_line *line, int code, const unsigned char *text, size_t n)
{
	size_t enhanced = enhanced_len(text, n);

	if (!line->len) {
		line->len = (size_t)snprintf(line->text, sizeof line->text, "%d ", code);
		line->enhanced = enhanced;
	} else if (enhanced && enhanced == line->enhanced && memcmp(text, line->text + 4, enhanced) == 0) {
		text += enhanced;
		n -= enhanced;
	}
	for (size_t i = 0; i < n; i++)
		put(line, text[i]);
	put(line, ' ');
}

static bool has(const struct reply_line *line, const char *word)
{
	return memmem(line->text, line->len, word, strlen(word)) != NULL;
}

/* ---- what the codes say ---- */

/* subject * 1000 + detail, in order: RFC 3463, and IANA's registry of enhanced codes. */
static const struct {
	uint16_t from, to;
	unsigned char class;
} by_enhanced[] = {
	{ 1001, 1003, REPLY_UNKNOWN_USER }, { 1006, 1006, REPLY_INACTIVE }, { 1007, 1008, REPLY_BAD_SENDER }, { 1010, 1010, REPLY_NO_ROUTE },
	{ 2001, 2001, REPLY_INACTIVE }, { 2002, 2002, REPLY_MAILBOX_FULL }, { 2003, 2003, REPLY_SIZE },
	{ 3001, 3001, REPLY_MAILBOX_FULL }, { 3004, 3004, REPLY_SIZE }, { 3000, 3999, REPLY_SYSTEM },
	{ 4005, 4005, REPLY_THROTTLE }, { 4000, 4999, REPLY_NETWORK },
	{ 5003, 5003, REPLY_TOO_MANY_RECIPIENTS }, { 5000, 5999, REPLY_PROTOCOL },
	{ 7020, 7027, REPLY_AUTH }, { 7028, 7028, REPLY_THROTTLE }, { 7029, 7029, REPLY_AUTH }, { 7030, 7030, REPLY_TLS },
	{ 7032, 7032, REPLY_AUTH }, { 7038, 7038, REPLY_THROTTLE }, { 7000, 7999, REPLY_POLICY },
};

static enum reply_class of_enhanced(const uint16_t enhanced[3])
{
	unsigned key = enhanced[1] * 1000u + enhanced[2];

	for (size_t i = 0; i < sizeof by_enhanced / sizeof *by_enhanced && enhanced[0]; i++)
		if (key >= by_enhanced[i].from && key <= by_enhanced[i].to)
			return (enum reply_class)by_enhanced[i].class;
	return REPLY_OTHER;
}

static enum reply_class of_code(enum reply_stage stage, int code)
{
	switch (code) {
	case 421:
	case 451:
		return REPLY_SYSTEM;
	case 452: /* RFC 5321 4.5.3.1.10 */
		return stage == REPLY_AT_RCPT ? REPLY_TOO_MANY_RECIPIENTS : REPLY_SYSTEM;
	case 552:
		return stage == REPLY_AT_RCPT ? REPLY_MAILBOX_FULL : REPLY_SIZE;
	case 556: /* RFC 7504 2 */
		return REPLY_NO_ROUTE;
	default:
		return stage == REPLY_AT_TLS ? REPLY_TLS : code >= 500 && code <= 504 ? REPLY_PROTOCOL : REPLY_OTHER;
	}
}

enum reply_class replyclass_of(enum reply_stage stage, int code, const uint16_t enhanced[3], const struct reply_line *line)
{
	bool first = stage == REPLY_AT_CONNECT || stage == REPLY_AT_BANNER;
	enum reply_class class = of_enhanced(enhanced);

	if ((code == 450 || code == 451) && (class == REPLY_OTHER || class == REPLY_POLICY) && has(line, "grey"))
		return REPLY_GREYLIST;
	if (first && class != REPLY_THROTTLE && (code == 421 || code >= 500))
		return code == 421 ? REPLY_THROTTLE : REPLY_BLOCKLIST;
	return class == REPLY_OTHER ? of_code(stage, code) : class;
}
