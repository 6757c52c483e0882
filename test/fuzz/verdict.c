/* Fuzz target: whatever a hook says, about whatever message.
 *
 * Octet 0: the event. Octets 1 and 2: how long the verdict is, the low one first. Octet 3: in what pieces the message
 * comes. Then the verdict, then the message. Checked: what a verdict means, and what is written of it, can do no more
 * than its words say, and an edit touches nothing but the header. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/message.h"
#include "smtp.h"
#include "test/lib/replay.h"

#define CHECK(condition) ((condition) ? (void)0 : abort())

/* An exact copy: an octet read too far is found. */
static unsigned char *copy_of(const void *bytes, size_t n)
{
	unsigned char *copy = malloc(n ? n : 1);

	CHECK(copy != NULL);
	if (n)
		memcpy(copy, bytes, n);
	return copy;
}

static bool is_text(const unsigned char *in, size_t n)
{
	return !n || (!memchr(in, 0, n) && !memchr(in, '\r', n) && !memchr(in, '\n', n));
}

/* ---- what is written ---- */

/* A field of lines that RFC 5322 2.1.1 allows, none of blanks alone, that begin with a blank but for the first. */
static void check_field(const struct verdict *v)
{
	size_t cap = 2 * (v->name_len + v->text_len) + 8, n, len;
	unsigned char *out = malloc(cap);

	CHECK(out != NULL && !verdict_header_write(v, out, cap - 1));
	n = verdict_header_write(v, out, cap);
	CHECK(n >= v->name_len + 4 && n <= cap && memcmp(out, v->name, v->name_len) == 0 && out[v->name_len] == ':');
	for (size_t at = 0; at < n; at += len) {
		size_t blanks = 0;

		len = smtp_find_line(out + at, n - at);
		CHECK(len >= 3 && len <= 1000 && out[at + len - 2] == '\r' && (at == 0 || out[at] == ' '));
		for (size_t i = 0; i < len - 2; i++) {
			CHECK(out[at + i] >= ' ' && out[at + i] != 0x7f);
			blanks += out[at + i] == ' ';
		}
		CHECK(blanks < len - 2);
	}
	free(out);
}

/* A reply of clean lines of 512 octets, all of one code. */
static void check_reply(const struct verdict *v)
{
	unsigned char *out = malloc(SMTP_WRAP_MAX);
	struct smtp_line line = { .last = false };
	size_t n, len;

	CHECK(out != NULL);
	CHECK(v->code / 100 == (v->word == VERDICT_REJECT ? 5 : 4) && v->code / 10 % 10 <= 5);
	CHECK(v->enhanced[0] == v->code / 100 && v->text_len > 0);
	n = smtp_reply_wrap(v->code, v->enhanced, v->text, v->text_len, out, SMTP_WRAP_MAX);
	CHECK(n > 0 && n <= SMTP_WRAP_MAX);
	for (size_t at = 0; at < n; at += len) {
		len = smtp_find_line(out + at, n - at);
		CHECK(len <= 512 && !line.last && out[at + len - 2] == '\r');
		CHECK(smtp_parse_reply(out + at, len, &line) && line.code == v->code);
		for (size_t i = 0; i < line.text_len; i++)
			CHECK(line.text[i] >= ' ' && line.text[i] <= '~');
	}
	CHECK(line.last);
	free(out);
}

/* ---- what is read ---- */

static void check_line(const struct verdict *v)
{
	CHECK(is_text(v->text, v->text_len) && is_text(v->name, v->name_len));
	CHECK(!v->text_len || (v->text[0] != ' ' && v->text[v->text_len - 1] != ' '));
	switch (v->word) {
	case VERDICT_REJECT:
	case VERDICT_DEFER:
	case VERDICT_SHUT:
		check_reply(v);
		return;
	case VERDICT_TARPIT:
		CHECK(v->seconds <= VERDICT_TARPIT_MAX);
		return;
	case VERDICT_ADD_HEADER:
		CHECK(v->name_len > 0 && !memchr(v->name, ':', v->name_len) && !memchr(v->name, ' ', v->name_len));
		check_field(v);
		return;
	case VERDICT_REMOVE_HEADER:
	case VERDICT_LOG:
		CHECK(v->name_len > 0);
		return;
	case VERDICT_SOURCE:
	case VERDICT_UPSTREAM:
	case VERDICT_REWRITE:
		CHECK(v->text_len > 0);
		return;
	case VERDICT_ACCEPT:
	case VERDICT_DISCARD:
	case VERDICT_REPLACE_MESSAGE:
		CHECK(!v->text_len);
		return;
	case VERDICT_TLS:
		return;
	}
}

/* To its end, or to what is none. */
static void check_verdict(enum hook_event event, const unsigned char *in, size_t n)
{
	enum verdict_status status;
	size_t at = 0, before = 0;
	const char *why = NULL;
	struct verdict v;

	while ((status = verdict_next(event, in, n, &at, &v, &why)) == VERDICT_LINE) {
		CHECK(at > before && at <= n && event < HOOK_CLOSE);
		before = at;
		check_line(&v);
	}
	CHECK(at <= n && (status == VERDICT_END ? at == n : why != NULL));
}

/* The message begins behind the line that says so, and not before that line is whole. Returns octets of lines. */
static size_t check_message_at(const unsigned char *in, size_t n)
{
	size_t at = verdict_message_at(in, n);
	unsigned char *part;

	CHECK(at <= n);
	if (!at)
		return n;
	CHECK(in[at - 1] == '\n');
	for (size_t less = 0; less < 2; less++) {
		part = copy_of(in, at - less);
		CHECK(verdict_message_at(part, at - less) == (less ? 0 : at));
		free(part);
	}
	return at;
}

/* ---- what is done to the message ---- */

static bool next_edit(const unsigned char *verdict, size_t n, size_t *at, struct verdict *v)
{
	const char *why;

	return verdict_next(HOOK_DATA, verdict, n, at, v, &why) == VERDICT_LINE && !verdict_is_final(v->word);
}

/* Octets of the line at in[at]. */
static size_t line_length(const unsigned char *in, size_t n, size_t at)
{
	size_t len = smtp_find_line(in + at, n - at);

	return len ? len : n - at;
}

/* Octets of the name of the field that begins at in[at], 0: none does. */
static size_t name_length(const unsigned char *in, size_t n, size_t at)
{
	size_t len = 0, colon;

	while (at + len < n && in[at + len] > ' ' && in[at + len] < 0x7f && in[at + len] != ':')
		len++;
	for (colon = at + len; colon < n && (in[colon] == ' ' || in[colon] == '\t');)
		colon++;
	return colon < n && in[colon] == ':' ? len : 0;
}

/* Octets of a mailbox's first line, of which no field is made. */
static size_t separator_length(const unsigned char *in, size_t n)
{
	size_t quote = n && in[0] == '>';

	return n - quote >= 5 && memcmp(in + quote, "From ", 5) == 0 && !name_length(in, n, 0) ? smtp_find_line(in, n) : 0;
}

static size_t header_length(const unsigned char *in, size_t n)
{
	size_t start = separator_length(in, n), at = start;

	while (at < n && (name_length(in, n, at) || (at > start && (in[at] == ' ' || in[at] == '\t'))))
		at += line_length(in, n, at);
	return at;
}

/* Whether a field in the header has that name. */
static bool has_field(const unsigned char *in, size_t n, const unsigned char *name, size_t name_len)
{
	bool found = false;

	for (size_t at = separator_length(in, n), end = header_length(in, n); at < end && !found; at += line_length(in, n, at)) {
		found = name_length(in, n, at) == name_len;
		for (size_t i = 0; i < name_len && found; i++)
			found = smtp_lower(in[at + i]) == smtp_lower(name[i]);
	}
	return found;
}

/* The body is as it was; a name that was removed last is not there, one that was added last is. */
static void check_edited(const struct message *m, const unsigned char *in, size_t n, const unsigned char *verdict,
    size_t lines)
{
	static const unsigned char none[1];
	const unsigned char *out = m->size ? m->bytes : none;
	size_t body = header_length(in, n), at = 0, later;
	struct verdict v, w;
	bool edits = false;

	CHECK(m->size >= n - body && memcmp(out + m->size - (n - body), in + body, n - body) == 0);
	while (next_edit(verdict, lines, &at, &v)) {
		bool again = false;

		if (v.word != VERDICT_ADD_HEADER && v.word != VERDICT_REMOVE_HEADER)
			continue;
		edits = true;
		for (later = at; next_edit(verdict, lines, &later, &w);)
			again = again || ((w.word == VERDICT_ADD_HEADER || w.word == VERDICT_REMOVE_HEADER) &&
					     w.name_len == v.name_len);
		CHECK(again || has_field(out, m->size, v.name, v.name_len) == (v.word == VERDICT_ADD_HEADER));
	}
	CHECK(edits || (m->size == n && memcmp(out, in, n) == 0));
}

static void check_edit(const unsigned char *in, size_t n, size_t step, const unsigned char *verdict, size_t lines)
{
	struct message m;

	message_begin(&m);
	for (size_t at = 0; at < n; at += step)
		message_add(&m, in + at, n - at < step ? n - at : step);
	CHECK(message_seal(&m) && m.size == n && (!n || memcmp(m.bytes, in, n) == 0));
	CHECK(message_edit(&m, verdict, lines, lines % 2));
	check_edited(&m, in, n, verdict, lines);
	CHECK(write(m.fd, "x", 1) < 0);
	message_drop(&m);
	CHECK(m.fd == -1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	unsigned char *verdict, *message;
	size_t len, lines;

	if (n < 4)
		return 0;
	len = (size_t)(data[1] | data[2] << 8) % (n - 3);
	verdict = copy_of(data + 4, len);
	message = copy_of(data + 4 + len, n - 4 - len);
	check_verdict((enum hook_event)(data[0] % HOOK_EVENT_COUNT), verdict, len);
	lines = check_message_at(verdict, len);
	check_edit(message, n - 4 - len, data[3] ? data[3] : 100000, verdict, lines);
	free(verdict);
	free(message);
	return 0;
}
