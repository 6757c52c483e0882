/* Verdicts of hooks. See verdict.h for the contract; the comments here say why. */
#include "pure/verdict.h"
#include "pure/base64.h"
#include "pure/json.h"
#include "pure/text.h"
#include "smtp.h"

#include <stdio.h>
#include <string.h>

#define HEADER_NAME_MAX 76 /* leaves room for a colon in a line of 78 */
#define HEADER_LINE_MAX 998 /* octets without CRLF, RFC 5322 2.1.1 */
#define KEY_MAX 64
#define ENCODED_MAX 39 /* octets in an encoded word, which has 75 at most */

static const char event_names[][8] = {
#define X(event, name) name,
	HOOK_EVENTS(X)
#undef X
};

static const char word_names[][16] = {
#define X(word, name) name,
	VERDICT_WORDS(X)
#undef X
};

const char *hook_event_name(enum hook_event event)
{
	return event_names[event];
}

const char *verdict_word_name(enum verdict_word word)
{
	return word_names[word];
}

bool verdict_is_final(enum verdict_word word)
{
	return word <= VERDICT_DISCARD || word == VERDICT_REPLACE_MESSAGE;
}

#define BIT(word) (1u << VERDICT_##word)

static unsigned words_of(enum hook_event event)
{
	const unsigned always = BIT(ACCEPT) | BIT(REJECT) | BIT(DEFER) | BIT(LOG);
	const unsigned route = BIT(SOURCE) | BIT(UPSTREAM) | BIT(TLS);

	switch (event) {
	case HOOK_CONNECT:
		return always | BIT(TARPIT) | BIT(SHUT) | route;
	case HOOK_EHLO:
		return always | BIT(TARPIT) | BIT(SHUT);
	case HOOK_MAIL:
		return always | BIT(SHUT) | route;
	case HOOK_RCPT:
		return always | BIT(SHUT) | route | BIT(REWRITE);
	case HOOK_DATA:
		return always | BIT(SHUT) | BIT(DISCARD) | BIT(ADD_HEADER) | BIT(REMOVE_HEADER) | BIT(REPLACE_MESSAGE);
	case HOOK_CLOSE:
	case HOOK_LOG:
	case HOOK_EVENT_COUNT:
		return 0;
	}
	return 0;
}

/* ---- reading ---- */

/* Take a word off the start of v->text. */
static void take_word(struct verdict *v, const unsigned char **word, size_t *n)
{
	*word = v->text;
	*n = smtp_word(v->text, v->text_len);
	v->text += *n;
	v->text_len -= *n;
	smtp_trim(&v->text, &v->text_len);
}

/* Take a code such as "550" off the start; it must be of this class. */
static const char *take_code(struct verdict *v, unsigned char class)
{
	size_t n = smtp_word(v->text, v->text_len);
	const unsigned char *c = v->text;

	if (n != 3 || c[0] < '2' || c[0] > '5' || c[1] < '0' || c[1] > '9' || c[2] < '0' || c[2] > '9')
		return NULL;
	if (c[0] != class || c[1] > '5')
		return "a reply code that does not go with the word";
	v->code = (c[0] - '0') * 100 + (c[1] - '0') * 10 + c[2] - '0';
	take_word(v, &c, &n);
	return NULL;
}

/* [CODE] [X.Y.Z] TEXT. The class of the enhanced code is the first digit of the code, RFC 3463. */
static const char *parse_reply(struct verdict *v, int code, const uint16_t enhanced[3], const char *text)
{
	uint16_t given[3];
	const unsigned char *word;
	size_t n;
	const char *why;

	v->code = code;
	memcpy(v->enhanced, enhanced, sizeof v->enhanced);
	why = v->word == VERDICT_SHUT ? NULL : take_code(v, (unsigned char)('0' + code / 100));
	if (why)
		return why;
	smtp_enhanced(v->text, v->text_len, given);
	if (given[0] && given[0] != v->code / 100)
		return "an enhanced code of another class than the reply code";
	if (given[0]) {
		memcpy(v->enhanced, given, sizeof given);
		take_word(v, &word, &n);
	}
	if (!v->text_len) {
		v->text = (const unsigned char *)text;
		v->text_len = strlen(text);
	}
	return NULL;
}

static const char *parse_seconds(struct verdict *v)
{
	static const char want[] = "tarpit takes a whole number of seconds, up to " TEXT_OF(VERDICT_TARPIT_MAX);
	unsigned value = 0;

	for (size_t i = 0; i < v->text_len; i++) {
		if (v->text[i] < '0' || v->text[i] > '9' || value > VERDICT_TARPIT_MAX)
			return want;
		value = value * 10 + v->text[i] - '0';
	}
	v->seconds = value;
	return v->text_len && value <= VERDICT_TARPIT_MAX ? NULL : want;
}

static const char *parse_octets(struct verdict *v)
{
	v->octets = VERDICT_UNCOUNTED;
	return !v->text_len || smtp_number(v->text, v->text_len, &v->octets) ? NULL :
	    "replace-message takes a number of octets, if anything";
}

/* RFC 5322 3.6.8: printable, no colon. */
static bool is_header_name(const unsigned char *name, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (name[i] <= ' ' || name[i] > '~' || name[i] == ':')
			return false;
	return n > 0 && n <= HEADER_NAME_MAX;
}

static const char *parse_add_header(struct verdict *v)
{
	const unsigned char *colon = v->text_len ? memchr(v->text, ':', v->text_len) : NULL;

	if (!colon)
		return "add-header takes NAME: VALUE";
	v->name = v->text;
	v->name_len = (size_t)(colon - v->text);
	v->text_len -= v->name_len + 1;
	v->text = colon + 1;
	smtp_trim(&v->text, &v->text_len);
	return is_header_name(v->name, v->name_len) ? NULL : "add-header takes NAME: VALUE";
}

static bool is_key(const unsigned char *key, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!smtp_is_alnum(key[i]) && key[i] != '_' && key[i] != '.' && key[i] != '-')
			return false;
	return n > 0 && n <= KEY_MAX;
}

static const char *parse_argument(struct verdict *v)
{
	static const uint16_t rejected[] = { 5, 7, 1 }, deferred[] = { 4, 7, 1 }, closed[] = { 4, 7, 0 };
	static const char policy[] = "Refused by policy", later[] = "Try again later";

	switch (v->word) {
	case VERDICT_REPLACE_MESSAGE:
		return parse_octets(v);
	case VERDICT_ACCEPT:
	case VERDICT_DISCARD:
		return v->text_len ? "a word that takes no argument has one" : NULL;
	case VERDICT_REJECT:
		return parse_reply(v, 550, rejected, policy);
	case VERDICT_DEFER:
		return parse_reply(v, 451, deferred, later);
	case VERDICT_SHUT:
		return parse_reply(v, 421, closed, later);
	case VERDICT_TARPIT:
		return parse_seconds(v);
	case VERDICT_TLS:
		take_word(v, &v->name, &v->name_len);
		return NULL;
	case VERDICT_SOURCE:
	case VERDICT_UPSTREAM:
	case VERDICT_REWRITE:
		return v->text_len ? NULL : "an address is missing";
	case VERDICT_ADD_HEADER:
		return parse_add_header(v);
	case VERDICT_REMOVE_HEADER:
		v->name = v->text;
		v->name_len = v->text_len - (v->text_len && v->text[v->text_len - 1] == ':' ? 1 : 0);
		return is_header_name(v->name, v->name_len) ? NULL : "remove-header takes NAME";
	case VERDICT_LOG:
		take_word(v, &v->name, &v->name_len);
		return is_key(v->name, v->name_len) ? NULL : "log takes KEY VALUE, the key of letters, digits and _.-";
	}
	return NULL;
}

static bool find_word(const unsigned char *in, size_t n, enum verdict_word *word)
{
	for (size_t i = 0; i < sizeof word_names / sizeof *word_names; i++)
		if (strlen(word_names[i]) == n && memcmp(word_names[i], in, n) == 0) {
			*word = (enum verdict_word)i;
			return true;
		}
	return false;
}

enum verdict_status verdict_next(enum hook_event event, const unsigned char *in, size_t n, size_t *at,
    struct verdict *v, const char **why)
{
	const unsigned char *word;
	size_t len;

	memset(v, 0, sizeof *v);
	do { /* skip empty lines */
		if (*at == n)
			return VERDICT_END;
		len = smtp_find_line(in + *at, n - *at);
		len = len ? len : n - *at;
		v->text = in + *at;
		v->text_len = smtp_without_end(v->text, len);
		smtp_trim(&v->text, &v->text_len);
		*at += len;
	} while (!v->text_len);
	if (memchr(v->text, 0, v->text_len) || memchr(v->text, '\r', v->text_len)) {
		*why = "a NUL or carriage return";
		return VERDICT_BAD;
	}
	take_word(v, &word, &len);
	*why = "an unknown word";
	if (!find_word(word, len, &v->word))
		return VERDICT_BAD;
	*why = "a word that is not for this event";
	if (!(words_of(event) & 1u << v->word))
		return VERDICT_BAD;
	*why = parse_argument(v);
	return *why ? VERDICT_BAD : VERDICT_LINE;
}

size_t verdict_message_at(const unsigned char *in, size_t n)
{
	size_t at = 0, end, len;
	const char *why;
	struct verdict v;

	while ((len = smtp_find_line(in + at, n - at))) {
		end = at + len;
		if (verdict_next(HOOK_DATA, in, end, &at, &v, &why) == VERDICT_LINE && verdict_is_final(v.word))
			return v.word == VERDICT_REPLACE_MESSAGE ? end : 0;
	}
	return 0;
}

uint64_t verdict_message_octets(const unsigned char *in, size_t n)
{
	struct verdict v;
	const char *why;
	size_t at = 0;

	while (verdict_next(HOOK_DATA, in, n, &at, &v, &why) == VERDICT_LINE)
		if (v.word == VERDICT_REPLACE_MESSAGE)
			return v.octets;
	return VERDICT_UNCOUNTED;
}

/* ---- headers ---- */

/* Controls count as blanks, for they become blanks. */
static bool is_gap(unsigned char c)
{
	return c <= ' ' || c == 0x7f;
}

/* Octets of the next word, with the blanks before it. */
static size_t next_word(const unsigned char *text, size_t n)
{
	size_t len = 0;

	while (len < n && is_gap(text[len]))
		len++;
	while (len < n && !is_gap(text[len]))
		len++;
	return len;
}

static bool is_utf8(const unsigned char *text, size_t n)
{
	size_t len;

	for (size_t at = 0; at < n; at += len) {
		len = json_utf8(text + at, n - at);
		if (!len)
			return false;
	}
	return true;
}

/* Characters are not cut. */
static size_t next_part(const unsigned char *text, size_t n, bool utf8)
{
	size_t len = n < ENCODED_MAX ? n : ENCODED_MAX;

	while (utf8 && len < n && (text[len] & 0xc0) == 0x80)
		len--;
	return len;
}

/* From the first word that is not ASCII to the last one: a blank between two encoded words would be lost. */
size_t verdict_encode(const unsigned char *text, size_t n, unsigned char *out)
{
	size_t first = 0, end = n, at = 0, len;
	unsigned char part[ENCODED_MAX];
	bool utf8;

	while (text[first] < 0x80)
		first++;
	while (first && !is_gap(text[first - 1]))
		first--;
	while (text[end - 1] < 0x80)
		end--;
	while (end < n && !is_gap(text[end]))
		end++;
	utf8 = is_utf8(text + first, end - first);
	memcpy(out, text, first);
	at = first;
	for (size_t done = first; done < end; done += len) {
		len = next_part(text + done, end - done, utf8);
		for (size_t i = 0; i < len; i++)
			part[i] = is_gap(text[done + i]) ? ' ' : text[done + i];
		at += (size_t)sprintf((char *)out + at, "%s=?%s?B?", done > first ? " " : "", utf8 ? "UTF-8" : "unknown-8bit");
		at += base64_encode(part, len, (char *)out + at);
		memcpy(out + at, "?=", 2);
		at += 2;
	}
	memcpy(out + at, text + end, n - end);
	return at + n - end;
}

size_t verdict_header_write(const struct verdict *v, unsigned char *out, size_t cap)
{
	size_t at = 0, column, done = 0, n = v->text_len;

	if (cap < 2 * (v->name_len + v->text_len) + 8)
		return 0;
	while (n && is_gap(v->text[n - 1]))
		n--;
	memcpy(out, v->name, v->name_len);
	at = v->name_len;
	out[at++] = ':';
	out[at++] = ' ';
	column = at;
	while (done < n) {
		size_t word = next_word(v->text + done, n - done);

		/* Break the line before a blank, but not before the first word: that line would be empty. */
		if (is_gap(v->text[done]) && column + word > VERDICT_HEADER_LINE && done) {
			memcpy(out + at, "\r\n", 2);
			at += 2;
			column = 0;
		}
		for (size_t end = done + word; done < end; done++) {
			bool blank = is_gap(v->text[done]);

			if (blank && column >= HEADER_LINE_MAX - 2) /* leave room for what is not a blank */
				continue;
			if (column >= HEADER_LINE_MAX - 1) { /* a word that no line can hold */
				memcpy(out + at, "\r\n ", 3);
				at += 3;
				column = 1;
			}
			out[at++] = blank ? ' ' : v->text[done];
			column++;
		}
	}
	memcpy(out + at, "\r\n", 2);
	return at + 2;
}
