/* Rules for replies. See replyrules.h for the contract; the comments here say why. */
#include "pure/replyrules.h"

#include <string.h>

/* A rule in the block; the site and the pattern follow it. Heads stand at any address, so they are copied. */
struct head {
	uint32_t line;
	uint16_t site_len, pattern_len; /* site_len 0: for all servers */
	uint16_t stages;		/* bits of enum reply_stage */
	unsigned char file, class, scope;
};

/* In a compiled pattern, where its octets stand for themselves but for these, which no reply's line has. */
#define ANY 1	  /* `*` */
#define DIGITS 2  /* `#` */

/* ---- compiling ---- */

struct field {
	const char *at;
	size_t n;
};

/* Take the next field of the line, up to a TAB. false: there is none. */
static bool next_field(struct field *rest, struct field *f)
{
	while (rest->n && *rest->at == '\t') {
		rest->at++;
		rest->n--;
	}
	f->at = rest->at;
	for (f->n = 0; f->n < rest->n && f->at[f->n] != '\t';)
		f->n++;
	rest->at += f->n;
	rest->n -= f->n;
	return f->n > 0;
}

static bool is_star(const struct field *f)
{
	return f->n == 1 && *f->at == '*';
}

/* The bits of "rcpt" or "mail,rcpt"; 0: that is none. */
static uint16_t stages_of(const struct field *f)
{
	uint16_t stages = 0;
	size_t at = 0, n;

	if (is_star(f))
		return (1u << REPLY_STAGES_END) - 1;
	for (; at <= f->n; at += n + 1) {
		enum reply_stage stage;

		for (n = 0; at + n < f->n && f->at[at + n] != ',';)
			n++;
		stage = replyclass_parse_stage(f->at + at, n);
		if (stage == REPLY_STAGES_END)
			return 0;
		stages = (uint16_t)(stages | 1u << stage);
	}
	return stages;
}

static unsigned char lower(char c)
{
	return (unsigned char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
}

/* Several `*` in a row are one, so that matching does not take longer for them. Returns octets. */
static uint16_t compile(const struct field *pattern, unsigned char *out)
{
	uint16_t n = 0;

	for (size_t i = 0; i < pattern->n; i++) {
		bool literal = pattern->at[i] == '\\' && i + 1 < pattern->n;
		char c = pattern->at[i += literal];

		if (!literal && c == '*' && n && out[n - 1] == ANY)
			continue;
		out[n++] = literal ? lower(c) : c == '*' ? ANY : c == '#' ? DIGITS : lower(c);
	}
	return n;
}

static const char *parse_pattern(const struct field *f, struct head *h, unsigned char *out)
{
	for (size_t i = 0; i < f->n; i++)
		if ((unsigned char)f->at[i] < ' ' || f->at[i] == 0x7f)
			return "a control character in the pattern";
	if (!memchr("45*#", *f->at, 4))
		return "a pattern begins with the code of a refusal: 4, 5, * or #";
	h->pattern_len = compile(f, out);
	return NULL;
}

static const char *parse_setting(const struct field *f, struct head *h)
{
	static const char scope[] = "scope=";
	const size_t n = sizeof scope - 1;

	if (f->n < n || memcmp(f->at, scope, n) != 0)
		return "behind the class only scope=ip, domain, user or message can stand";
	h->scope = (unsigned char)replyclass_parse_scope(f->at + n, f->n - n);
	return h->scope == REPLY_SCOPES_END ? "a scope is ip, domain, user or message" : NULL;
}

/* Parse a line that holds a rule. out: room for REPLYRULES_LINE_MAX octets: the site, then the pattern. */
static const char *parse(struct field line, struct head *h, unsigned char *out)
{
	struct field site, stage, pattern, class, setting;
	const char *why;

	if (!next_field(&line, &site) || !next_field(&line, &stage) || !next_field(&line, &pattern) || !next_field(&line, &class))
		return "a rule is SITE, STAGE, PATTERN and CLASS, with TABs between";
	for (h->site_len = 0; h->site_len < site.n && !is_star(&site); h->site_len++)
		out[h->site_len] = lower(site.at[h->site_len]);
	h->stages = stages_of(&stage);
	if (!h->stages)
		return "unknown stage";
	why = parse_pattern(&pattern, h, out + h->site_len);
	if (why)
		return why;
	h->class = (unsigned char)replyclass_parse(class.at, class.n);
	if (h->class == REPLY_CLASSES_END || h->class == REPLY_OK)
		return "unknown class";
	h->scope = (unsigned char)replyclass_scope((enum reply_class)h->class);
	while (!why && next_field(&line, &setting))
		why = parse_setting(&setting, h);
	return why;
}

static const char *add_line(struct replyrules *rules, struct head *h, const struct field *line)
{
	unsigned char text[REPLYRULES_LINE_MAX];
	const char *why;
	size_t n;

	if (line->n > sizeof text)
		return "the line is too long";
	why = parse(*line, h, text);
	if (why)
		return why;
	n = h->site_len + (size_t)h->pattern_len;
	if (sizeof *h + n > REPLYRULES_MAX - sizeof *rules - rules->used)
		return "too many rules";
	memcpy(rules->bytes + rules->used, h, sizeof *h);
	memcpy(rules->bytes + rules->used + sizeof *h, text, n);
	rules->used += (uint32_t)(sizeof *h + n);
	rules->count++;
	return NULL;
}

const char *replyrules_add(struct replyrules *rules, unsigned file, const char *text, size_t n, unsigned *line)
{
	const char *why = NULL;
	size_t at = 0;

	for (*line = 1; at < n; ++*line) {
		const char *end = memchr(text + at, '\n', n - at);
		struct field whole = { text + at, (end ? (size_t)(end - text) : n) - at };
		struct head h = { .line = *line, .file = (unsigned char)file };

		at += whole.n + 1;
		while (whole.n && strchr(" \t\r", whole.at[whole.n - 1]) && whole.at[whole.n - 1])
			whole.n--;
		if (!whole.n || *whole.at == '#')
			continue;
		why = add_line(rules, &h, &whole);
		if (why)
			break;
	}
	return why;
}

/* ---- matching ---- */

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Match one octet of the pattern, or a run of digits, at the start of the text. Returns octets of the text; 0: it does not match. */
static size_t match_one(unsigned char p, const char *text, size_t n)
{
	size_t digits = 0;

	if (p != DIGITS)
		return n && (unsigned char)*text == p;
	while (digits < n && is_digit(text[digits]))
		digits++;
	return digits;
}

/* Whether the text begins as the pattern says. When it does not go on, only the last `*` has to take more: what earlier ones took was the
 * shortest that they could, so the time is that of the two lengths multiplied, at most. */
static bool match(const unsigned char *p, size_t p_len, const char *text, size_t n)
{
	size_t i = 0, at = 0, star = p_len, from = 0;

	while (i < p_len) {
		size_t took = 0;

		if (p[i] == ANY) {
			star = i++;
			from = at;
			continue;
		}
		took = match_one(p[i], text + at, n - at);
		if (took) {
			i++;
			at += took;
		} else if (star < p_len && from < n) {
			i = star + 1;
			at = ++from;
		} else {
			return false;
		}
	}
	return true;
}

static bool is_for(const struct head *h, const unsigned char *text, const char *site)
{
	return !h->site_len || (site && strlen(site) == h->site_len && memcmp(site, text, h->site_len) == 0);
}

bool replyrules_match(const struct replyrules *rules, const char *site, enum reply_stage stage, const struct reply_line *reply,
    struct replyrule *rule)
{
	const unsigned char *at = rules->bytes, *end = at + rules->used;
	struct head h;

	for (; at < end; at += h.site_len + (size_t)h.pattern_len) {
		memcpy(&h, at, sizeof h);
		at += sizeof h;
		if (!(h.stages >> stage & 1) || !is_for(&h, at, site) || !match(at + h.site_len, h.pattern_len, reply->text, reply->len))
			continue;
		*rule = (struct replyrule){ (enum reply_class)h.class, (enum reply_scope)h.scope, h.file, h.line };
		return true;
	}
	return false;
}
