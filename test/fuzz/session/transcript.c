/* What happened in a session, as text that is the same for the same behaviour; and the records of its log. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SHOWN 600 /* octets; of more, their number and sum */

void fault(const char *format, ...)
{
	char text[600];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	buf_text(&fuzz.faults, "%s\n", text);
	if (verbose)
		printf("!! %s\n", text);
}

/* Session identifiers, 26 characters of Crockford's base32. */
static void mask_ids(unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t len = 0;

		while (i + len < n && (isdigit(p[i + len]) || isupper(p[i + len])))
			len++;
		if (len == 26 && p[i] == '0')
			memset(p + i, '#', len);
		i += len ? len : 1;
	}
}

static bool is_date(const unsigned char *p)
{
	static const char form[] = "aaa, 00 aaa 0000 00:00:00 s0000";

	for (size_t i = 0; i < sizeof form - 1; i++)
		if (form[i] == 'a' ? !isalpha(p[i]) : form[i] == '0' ? !isdigit(p[i]) && p[i] != ' ' :
			form[i] == 's' ? p[i] != '+' && p[i] != '-' : p[i] != (unsigned char)form[i])
			return false;
	return true;
}

/* Of Received fields, which say a day with one digit or two. */
static void mask_dates(struct buf *b)
{
	for (size_t i = 0; i + 31 <= b->n; i++)
		if (b->p[i + 3] == ',' && is_date(b->p + i))
			memset(b->p + i, '#', 31);
}

static void escape(struct buf *out, const unsigned char *p, size_t n)
{
	uint64_t sum = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < n; i++)
		sum = (sum ^ p[i]) * UINT64_C(0x100000001b3);
	for (size_t i = 0; i < n && i < SHOWN; i++) {
		if (p[i] == '\r')
			buf_text(out, "\\r");
		else if (p[i] == '\n')
			buf_text(out, "\\n");
		else if (p[i] < 0x20 || p[i] > 0x7e || p[i] == '\\')
			buf_text(out, "\\x%02x", p[i]);
		else
			buf_add(out, p + i, 1);
	}
	if (n > SHOWN)
		buf_text(out, " ... %zu octets, sum %016llx", n, (unsigned long long)sum);
}

void note(const char *who, const void *p, size_t n)
{
	struct buf masked = { NULL, 0, 0 };
	size_t from = fuzz.transcript.n;

	buf_add(&masked, p, n);
	mask_ids(masked.p, masked.n);
	mask_dates(&masked);
	buf_text(&fuzz.transcript, "%s ", who);
	escape(&fuzz.transcript, masked.p, masked.n);
	buf_add(&fuzz.transcript, "\n", 1);
	buf_free(&masked);
	if (verbose) {
		printf("%.*s", (int)(fuzz.transcript.n - from), (char *)fuzz.transcript.p + from);
		fflush(stdout);
	}
}

void notef(const char *who, const char *format, ...)
{
	char text[2000];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	note(who, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

/* ---- records ---- */

static const unsigned char *json_value(const unsigned char *p, const unsigned char *end, int depth);

static const unsigned char *blanks(const unsigned char *p, const unsigned char *end)
{
	while (p && p < end && (*p == ' ' || *p == '\t'))
		p++;
	return p;
}

/* One character of UTF-8, or NULL. */
static const unsigned char *character(const unsigned char *p, const unsigned char *end)
{
	int more = *p < 0x80 ? 0 : *p >= 0xc2 && *p < 0xe0 ? 1 : *p >= 0xe0 && *p < 0xf0 ? 2 : *p >= 0xf0 && *p < 0xf5 ? 3 : -1;

	if (more < 0 || *p < 0x20 || end - p <= more)
		return NULL;
	for (int i = 1; i <= more; i++)
		if ((p[i] & 0xc0) != 0x80)
			return NULL;
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] >= 0xa0) || (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] >= 0x90))
		return NULL;
	return p + more + 1;
}

static const unsigned char *json_string(const unsigned char *p, const unsigned char *end)
{
	if (!p || p >= end || *p++ != '"')
		return NULL;
	while (p && p < end && *p != '"') {
		if (*p != '\\') {
			p = character(p, end);
			continue;
		}
		if (++p >= end)
			return NULL;
		if (*p != 'u') {
			p = strchr("\"\\/bfnrt", *p) ? p + 1 : NULL;
			continue;
		}
		for (int i = 1; i <= 4; i++)
			if (end - p <= i || !isxdigit(p[i]))
				return NULL;
		p += 5;
	}
	return p && p < end ? p + 1 : NULL;
}

static const unsigned char *json_number(const unsigned char *p, const unsigned char *end)
{
	const unsigned char *from = p;

	if (p < end && *p == '-')
		p++;
	while (p < end && isdigit(*p))
		p++;
	if (p < end && *p == '.' && p > from && end - p > 1 && isdigit(p[1]))
		for (p++; p < end && isdigit(*p);)
			p++;
	return p > from ? p : NULL;
}

/* What stands between brackets. */
static const unsigned char *json_members(const unsigned char *p, const unsigned char *end, int depth, bool object)
{
	const unsigned char close = object ? '}' : ']';

	p = blanks(p + 1, end);
	if (p < end && *p == close)
		return p + 1;
	for (;;) {
		if (object) {
			p = blanks(json_string(p, end), end);
			if (!p || p >= end || *p++ != ':')
				return NULL;
		}
		p = blanks(json_value(blanks(p, end), end, depth + 1), end);
		if (!p || p >= end)
			return NULL;
		if (*p == close)
			return p + 1;
		if (*p++ != ',')
			return NULL;
		p = blanks(p, end);
	}
}

static const unsigned char *json_value(const unsigned char *p, const unsigned char *end, int depth)
{
	static const char *const words[] = { "true", "false", "null" };

	if (!p || p >= end || depth > 20)
		return NULL;
	if (*p == '{' || *p == '[')
		return json_members(p, end, depth, *p == '{');
	if (*p == '"')
		return json_string(p, end);
	for (int i = 0; i < 3; i++)
		if ((size_t)(end - p) >= strlen(words[i]) && memcmp(p, words[i], strlen(words[i])) == 0)
			return p + strlen(words[i]);
	return json_number(p, end);
}

bool json_is_valid(const unsigned char *p, size_t n)
{
	return n && *p == '{' && json_value(p, p + n, 0) == p + n;
}

/* A member whose value is one of chance or time: its digits and letters count for nothing. */
static void mask_member(char *line, const char *name, bool number)
{
	size_t n = strlen(name);
	char *at = line;

	while ((at = strstr(at, name))) {
		char *to = at += n;

		if (number) {
			for (; isdigit((unsigned char)*at) || *at == '.'; at++)
				;
			memmove(to, at, strlen(at) + 1);
			at = to;
		} else {
			for (; *at && *at != '"'; at++)
				*at = '#';
		}
	}
}

static void mask_record(char *line)
{
	static const char *const octets[] = { "\"client_in\":", "\"client_out\":", "\"server_in\":", "\"server_out\":" };
	char *source = strstr(line, "\"source\":{"), *port = source ? strstr(source, "\"port\":") : NULL;

	mask_member(line, "\"time\":\"", false);
	mask_member(line, "_ms\":", true);
	if (port)
		mask_member(port, "\"port\":", true);
	if (fuzz.any_tls)
		for (int i = 0; i < 4; i++)
			mask_member(line, octets[i], true);
}

void note_log(void)
{
	size_t at = 0;

	while (at < fuzz.log.n) {
		unsigned char *line = fuzz.log.p + at, *end = memchr(line, '\n', fuzz.log.n - at);
		size_t n = end ? (size_t)(end - line) : fuzz.log.n - at;
		char text[20000];

		if (!end)
			fault("the log's last line has no end");
		if (!json_is_valid(line, n))
			fault("a record is not valid JSON: %.*s", (int)(n < 300 ? n : 300), line);
		snprintf(text, sizeof text, "%.*s", (int)n, line);
		mask_ids((unsigned char *)text, strlen(text));
		mask_record(text);
		buf_text(&fuzz.transcript, "L ");
		buf_add(&fuzz.transcript, text, strlen(text));
		buf_add(&fuzz.transcript, "\n", 1);
		if (verbose)
			printf("L %s\n", text);
		at += n + 1;
	}
}
