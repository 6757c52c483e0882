/* JSON. See json.h for the contract. */
#include "pure/json.h"

#include <stdio.h>
#include <string.h>

static void put_bytes(struct json *j, const void *bytes, size_t n)
{
	if (j->full || n > j->cap - j->len) {
		j->full = true;
		return;
	}
	memcpy(j->out + j->len, bytes, n);
	j->len += n;
}

static void put_char(struct json *j, char c)
{
	put_bytes(j, &c, 1);
}

size_t json_utf8(const unsigned char *in, size_t n)
{
	size_t len = in[0] < 0x80 ? 1 : in[0] < 0xc2 ? 0 : in[0] < 0xe0 ? 2 : in[0] < 0xf0 ? 3 : in[0] < 0xf5 ? 4 : 0;

	if (len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((in[i] & 0xc0) != 0x80)
			return 0;
	if ((in[0] == 0xe0 && in[1] < 0xa0) || (in[0] == 0xed && in[1] > 0x9f) || (in[0] == 0xf0 && in[1] < 0x90) ||
	    (in[0] == 0xf4 && in[1] > 0x8f))
		return 0;
	return len;
}

/* Octets of the control at the start of in, 0: there is none. U+0080 to U+009F are what a terminal takes for ESC and a letter. */
static size_t control(const unsigned char *in, size_t n)
{
	if (in[0] < 0x20 || in[0] == 0x7f)
		return 1;
	return n > 1 && in[0] == 0xc2 && in[1] >= 0x80 && in[1] < 0xa0 ? 2 : 0;
}

static void put_quoted(struct json *j, const unsigned char *in, size_t n)
{
	char escape[8];
	size_t i = 0, len;

	put_char(j, '"');
	while (i < n) {
		for (len = 0; i + len < n && in[i + len] >= 0x20 && in[i + len] < 0x7f && in[i + len] != '"' &&
		     in[i + len] != '\\';)
			len++;
		if (len) {
			put_bytes(j, in + i, len);
		} else if (in[i] == '"' || in[i] == '\\') {
			put_char(j, '\\');
			put_char(j, (char)in[i]);
			len = 1;
		} else if ((len = control(in + i, n - i))) {
			put_bytes(j, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", in[i + len - 1]));
		} else if ((len = json_utf8(in + i, n - i))) {
			put_bytes(j, in + i, len);
		} else {
			put_bytes(j, "\xef\xbf\xbd", 3);
			len = 1;
		}
		i += len;
	}
	put_char(j, '"');
}

void json_name(struct json *j, const void *name, size_t n)
{
	if (j->comma)
		put_char(j, ',');
	j->comma = true;
	if (!name)
		return;
	put_quoted(j, name, n);
	put_char(j, ':');
}

static void member(struct json *j, const char *name)
{
	json_name(j, name, name ? strlen(name) : 0);
}

void json_begin(struct json *j, char *out, size_t cap)
{
	memset(j, 0, sizeof *j);
	j->out = out;
	j->cap = cap;
	put_char(j, '{');
}

void json_open(struct json *j, const char *name, char bracket)
{
	member(j, name);
	put_char(j, bracket);
	j->comma = false;
}

void json_close(struct json *j, char bracket)
{
	put_char(j, bracket);
	j->comma = true;
}

void json_bytes(struct json *j, const char *name, const void *text, size_t n)
{
	member(j, name);
	put_quoted(j, text, n);
}

void json_string(struct json *j, const char *name, const char *text)
{
	if (text)
		json_bytes(j, name, text, strlen(text));
	else
		json_null(j, name);
}

static void put_u64(struct json *j, uint64_t value)
{
	char digits[20];
	size_t i = sizeof digits;

	do
		digits[--i] = (char)('0' + value % 10);
	while (value /= 10);
	put_bytes(j, digits + i, sizeof digits - i);
}

void json_number(struct json *j, const char *name, uint64_t value)
{
	member(j, name);
	put_u64(j, value);
}

void json_signed(struct json *j, const char *name, int64_t value)
{
	member(j, name);
	if (value < 0)
		put_bytes(j, "-", 1);
	put_u64(j, value < 0 ? -(uint64_t)value : (uint64_t)value);
}

void json_bool(struct json *j, const char *name, bool value)
{
	member(j, name);
	put_bytes(j, value ? "true" : "false", value ? 4 : 5);
}

void json_null(struct json *j, const char *name)
{
	member(j, name);
	put_bytes(j, "null", 4);
}

void json_ms(struct json *j, const char *name, int64_t us)
{
	char fraction[4];
	uint64_t rest;

	if (us < 0) {
		json_null(j, name);
		return;
	}
	member(j, name);
	put_u64(j, (uint64_t)us / 1000);
	rest = (uint64_t)us % 1000;
	fraction[0] = '.';
	fraction[1] = (char)('0' + rest / 100);
	fraction[2] = (char)('0' + rest / 10 % 10);
	fraction[3] = (char)('0' + rest % 10);
	put_bytes(j, fraction, sizeof fraction);
}

size_t json_end(struct json *j)
{
	put_bytes(j, "}\n", 2);
	return j->full ? 0 : j->len;
}

/* ---- shorter ---- */

#define DEPTH_MAX 8

/* Octets of the string that begins at in[0], with both quotation marks. */
static size_t string_length(const char *in)
{
	size_t n = 1;

	while (in[n] != '"')
		n += in[n] == '\\' ? 2 : 1;
	return n + 1;
}

/* Octets of whole characters and escapes at the start of in, at most limit. */
static size_t whole_characters(const char *in, size_t limit)
{
	size_t n = 0, len;

	for (;; n += len) {
		len = in[n] != '\\' ? 1 : in[n + 1] == 'u' ? 6 : 2;
		while (((unsigned char)in[n + len] & 0xc0) == 0x80)
			len++;
		if (n + len > limit)
			return n;
	}
}

/* Write the string at in with at most limit of its octets, and "...". Returns octets. */
static size_t put_short(char *out, const char *in, size_t limit)
{
	size_t kept = whole_characters(in + 1, limit);

	memmove(out, in, 1 + kept);
	memcpy(out + 1 + kept, "...\"", 4);
	return kept + 5;
}

/* One pass: no string value has more than limit octets then, and nothing inside more than limit members. */
static size_t shorten(char *text, size_t n, size_t limit)
{
	size_t count[DEPTH_MAX] = { 0 }, out = 0, len;
	unsigned depth = 0, skipped = 0; /* the depth at which the rest is left out */

	for (size_t i = 0; i < n; i += len) {
		char c = text[i];

		len = c == '"' ? string_length(text + i) : 1;
		if (c == '{' || c == '[')
			count[++depth % DEPTH_MAX] = 0;
		if ((c == '}' || c == ']') && depth-- == skipped)
			skipped = 0;
		if (c == ',' && depth > 1 && !skipped && ++count[depth % DEPTH_MAX] >= limit)
			skipped = depth;
		if (skipped)
			continue;
		if (c == '"' && len > limit + 5 && text[i + len] != ':') {
			out += put_short(text + out, text + i, limit);
		} else {
			memmove(text + out, text + i, len);
			out += len;
		}
	}
	return out;
}

size_t json_shorten(char *text, size_t n, size_t max)
{
	for (size_t limit = 2048; n > max && limit; limit /= 2)
		n = shorten(text, n, limit);
	return n;
}
