/* Messages in memory files. See message.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/message.h"
#include "io/file.h"
#include "smtp.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SMALL_MAX (32 << 10)

/* Small pieces are written together; a usual message takes one write(2), and is read from the buffer. */
static unsigned char smalls[MESSAGES_MAX][SMALL_MAX], *small; /* small: that of the message begun last */
static bool taken[MESSAGES_MAX];
static size_t small_len;

static void write_parts(struct message *m, struct iovec *part, int parts)
{
	m->failed = m->failed || !file_write(m->fd, part, parts);
}

static unsigned char *take_buffer(void)
{
	size_t i = 0;

	while (i < MESSAGES_MAX - 1 && taken[i])
		i++;
	taken[i] = true;
	return smalls[i];
}

void message_begin(struct message *m)
{
	m->fd = file_in_memory("smtpwarp-message");
	m->size = 0;
	m->bytes = NULL;
	m->mapped = false;
	m->failed = m->fd < 0;
	m->buffer = small = take_buffer();
	small_len = 0;
}

void message_add(struct message *m, const void *bytes, size_t n)
{
	struct iovec parts[] = { { small, small_len }, { (void *)(uintptr_t)bytes, n } };

	m->size += n;
	if (n <= SMALL_MAX - small_len) {
		if (n)
			memcpy(small + small_len, bytes, n);
		small_len += n;
		return;
	}
	write_parts(m, parts, 2);
	small_len = 0;
}

bool message_seal(struct message *m)
{
	struct iovec rest = { small, small_len };
	void *map;

	if (small_len)
		write_parts(m, &rest, 1);
	if (m->failed || !file_seal(m->fd))
		return false;
	if (m->size == small_len) {
		m->bytes = small;
		return true;
	}
	map = mmap(NULL, m->size, PROT_READ, MAP_SHARED, m->fd, 0);
	m->mapped = map != MAP_FAILED;
	m->bytes = m->mapped ? map : NULL;
	return m->mapped;
}

/* dup(2) would share the position. */
int message_open(const struct message *m)
{
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", m->fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

bool message_has_bare_newline(const struct message *m)
{
	struct smtp_scanner scanner = { .plain = true, .unstuff = true };
	struct smtp_piece piece;
	size_t at = 0, used;

	while (at < m->size && !scanner.broken && smtp_scan(&scanner, m->bytes + at, m->size - at, &used, &piece))
		at += used;
	return scanner.broken || (at < m->size && m->bytes[m->size - 1] == '\r');
}

void message_drop(struct message *m)
{
	if (m->mapped)
		munmap((void *)(uintptr_t)m->bytes, m->size);
	if (m->fd >= 0)
		close(m->fd);
	if (m->buffer)
		taken[(m->buffer - smalls[0]) / SMALL_MAX] = false;
	m->buffer = NULL;
	m->bytes = NULL;
	m->mapped = false;
	m->fd = -1;
	m->size = 0;
}

/* ---- headers ---- */

/* Octets of the header field at in (RFC 5322 2.2), folded lines included, and of its name. 0: there is no field. Blanks before
 * the colon are obsolete (4.5.8), but readers of the message take such a line for a field. */
static size_t header_length(const unsigned char *in, size_t n, size_t *name_len)
{
	size_t len = 0, line;

	while (len < n && in[len] > ' ' && in[len] <= '~' && in[len] != ':')
		len++;
	*name_len = len;
	while (len < n && smtp_is_blank(in[len]))
		len++;
	if (!*name_len || len == n || in[len] != ':')
		return 0;
	len = 0;
	do {
		line = smtp_find_line(in + len, n - len);
		len += line ? line : n - len;
	} while (len < n && smtp_is_blank(in[len]));
	return len;
}

size_t message_separator(const unsigned char *in, size_t n)
{
	size_t quote = n && in[0] == '>', name_len;

	if (n - quote < 5 || memcmp(in + quote, "From ", 5) != 0 || header_length(in, n, &name_len))
		return 0;
	return smtp_find_line(in, n);
}

/* Names that a verdict removes, and the offset after the last line that says so; sorted by by_header_name(), each once. They are
 * searched by bisection: a message's sender and a hook's author may each have thousands of them. */
static struct removal {
	const unsigned char *name;
	size_t len, at;
} removals[VERDICT_MAX / sizeof "remove-header a"];
static size_t removal_count;

static int by_header_name(const void *left, const void *right)
{
	const struct removal *a = left, *b = right;
	int difference = (a->len > b->len) - (a->len < b->len);

	for (size_t i = 0; i < a->len && !difference; i++)
		difference = smtp_lower(a->name[i]) - smtp_lower(b->name[i]);
	return difference;
}

/* Whether a remove-header after offset `at` of the verdict has that name. */
static bool removed(const unsigned char *name, size_t n, size_t at)
{
	const struct removal wanted = { name, n, 0 }, *r;

	r = bsearch(&wanted, removals, removal_count, sizeof *removals, by_header_name);
	return r && r->at > at;
}

/* The next line before the one that ends the verdict. */
static bool next_edit(const unsigned char *verdict, size_t n, size_t *at, struct verdict *v)
{
	const char *why;

	return verdict_next(HOOK_DATA, verdict, n, at, v, &why) == VERDICT_LINE && !verdict_is_final(v->word);
}

static void find_removals(const unsigned char *verdict, size_t n)
{
	struct verdict v;
	size_t at = 0, count = 0, last = 0;

	while (next_edit(verdict, n, &at, &v))
		if (v.word == VERDICT_REMOVE_HEADER)
			removals[count++] = (struct removal){ v.name, v.name_len, at };
	qsort(removals, count, sizeof *removals, by_header_name);
	for (size_t i = 1; i < count; i++)
		if (by_header_name(&removals[i], &removals[last]) != 0)
			removals[++last] = removals[i];
		else if (removals[i].at > removals[last].at)
			removals[last] = removals[i];
	removal_count = count ? last + 1 : 0;
}

/* Add the new fields, the verdict's last one on top: each goes above what is there. They are put together from the end. */
static void add_fields(struct message *m, const unsigned char *verdict, size_t n, bool utf8)
{
	static unsigned char fields[2 * VERDICT_MAX], field[4 * VERDICT_MAX], encoded[2 * VERDICT_MAX + 32];
	size_t start = sizeof fields, at = 0, len;
	struct verdict v;

	while (next_edit(verdict, n, &at, &v)) {
		if (v.word != VERDICT_ADD_HEADER || removed(v.name, v.name_len, at))
			continue;
		if (!utf8 && !smtp_is_seven_bit(v.text, v.text_len)) {
			v.text_len = verdict_encode(v.text, v.text_len, encoded);
			v.text = encoded;
		}
		len = verdict_header_write(&v, field, sizeof field);
		start -= len;
		memcpy(fields + start, field, len);
	}
	message_add(m, fields + start, sizeof fields - start);
}

/* Copy the header fields from offset `at` on that stay, and the body. */
static void copy_rest(struct message *to, const struct message *from, size_t at)
{
	size_t kept = at, len, name_len;

	while ((len = header_length(from->bytes + at, from->size - at, &name_len))) {
		if (removed(from->bytes + at, name_len, 0)) {
			message_add(to, from->bytes + kept, at - kept);
			kept = at + len;
		}
		at += len;
	}
	message_add(to, from->bytes + kept, from->size - kept);
}

/* A message whose first line is neither a field nor the empty line has no header: fields on top of it must not run into its
 * text. */
static bool needs_empty_line(const unsigned char *in, size_t n)
{
	size_t name_len;

	if (!n || header_length(in, n, &name_len))
		return false;
	return in[0] != '\r' || n < 2 || in[1] != '\n';
}

bool message_edit(struct message *m, const unsigned char *verdict, size_t n, bool utf8)
{
	struct message edited;
	size_t header = m->size ? message_separator(m->bytes, m->size) : 0;

	message_begin(&edited);
	if (header)
		message_add(&edited, m->bytes, header);
	find_removals(verdict, n);
	add_fields(&edited, verdict, n, utf8);
	if (edited.size > header && needs_empty_line(m->bytes + header, m->size - header))
		message_add(&edited, "\r\n", 2);
	if (m->size)
		copy_rest(&edited, m, header);
	if (!message_seal(&edited)) {
		message_drop(&edited);
		return false;
	}
	message_drop(m);
	*m = edited;
	return true;
}
