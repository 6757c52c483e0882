/* What the edits of data hooks make of a message, for the session fuzzer's checks. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/types.h>
#include <unistd.h>

const struct buf *message_now(const struct message *m)
{
	return m->replaced ? &m->replacement : &m->content;
}

/* CR or LF alone. */
static bool has_lone(const struct buf *b)
{
	for (size_t i = 0; i < b->n; i++) {
		if (b->p[i] == '\r' && (i + 1 == b->n || b->p[i + 1] != '\n'))
			return true;
		if (b->p[i] == '\n' && (!i || b->p[i - 1] != '\r'))
			return true;
	}
	return false;
}

void message_replaced(struct message *m, const void *text, size_t n)
{
	struct buf taken = { NULL, 0, 0 };
	const unsigned char *p = text;
	bool whole = m->bdat && (m->binary || has_lone(message_now(m)));

	for (size_t i = 0; i < n; i++) {
		if (!whole && p[i] == '\n' && (!i || p[i - 1] != '\r'))
			buf_add(&taken, "\r", 1);
		buf_add(&taken, p + i, 1);
	}
	buf_free(&m->replacement);
	m->replacement = taken;
	m->replaced = true;
	m->bare = has_lone(&taken);
	m->added = 0;
	m->removed = false;
}

/* Octets of the header field at the beginning, with its folded lines; 0: there is none. */
static size_t field(const unsigned char *p, size_t n)
{
	size_t at = 0;

	while (at < n && p[at] > ' ' && p[at] <= '~' && p[at] != ':')
		at++;
	if (!at)
		return 0;
	while (at < n && (p[at] == ' ' || p[at] == '\t'))
		at++;
	if (at == n || p[at] != ':')
		return 0;
	do {
		const unsigned char *end = memchr(p + at, '\n', n - at);

		at = end ? (size_t)(end - p) + 1 : n;
	} while (at < n && (p[at] == ' ' || p[at] == '\t'));
	return at;
}

static bool is_named(const unsigned char *p, size_t n, const char *name)
{
	size_t len = strlen(name);

	return n > len && strncasecmp((const char *)p, name, len) == 0 && strchr(": \t", p[len]);
}

struct buf without_edits(const struct buf *b, unsigned *added, unsigned *old)
{
	struct buf out = { NULL, 0, 0 };
	size_t at = 0, n;

	*added = *old = 0;
	while ((n = field(b->p + at, b->n - at))) {
		if (is_named(b->p + at, n, "X-Fuzz"))
			++*added;
		else if (is_named(b->p + at, n, "X-Old"))
			++*old;
		else
			buf_add(&out, b->p + at, n);
		at += n;
	}
	if (!out.n && b->n - at >= 2 && memcmp(b->p + at, "\r\n", 2) == 0) /* a message without a header may have got this */
		at += 2;
	buf_add(&out, b->p + at, b->n - at);
	return out;
}

bool same_with_edits(const struct message *m, const struct buf *got)
{
	unsigned added[2], old[2];
	struct buf a = without_edits(got, &added[0], &old[0]), b = without_edits(message_now(m), &added[1], &old[1]);
	bool ended = a.n == b.n + 2 && m->bdat && memcmp(a.p + b.n, "\r\n", 2) == 0; /* by DATA, which ends in CR LF */
	bool good = (a.n == b.n || ended) && (!b.n || memcmp(a.p, b.p, b.n) == 0);

	good = good && added[0] == added[1] + m->added && old[0] == (m->removed ? 0 : old[1]);
	buf_free(&a);
	buf_free(&b);
	return good;
}

/* What a resident hook reads of the message must be all that the hooks before it have left. */
void check_passed(const struct message *m, int fd, int number)
{
	struct buf got = { NULL, 0, 0 };
	char part[65536];
	ssize_t n;

	while ((n = pread(fd, part, sizeof part, (off_t)got.n)) > 0)
		buf_add(&got, part, (size_t)n);
	if (!m->edited && !m->bare && !m->tangled && !same_with_edits(m, &got))
		fault("a hook got %zu octets of message %d, of %zu", got.n, number, message_now(m)->n);
	buf_free(&got);
}
