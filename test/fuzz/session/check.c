/* What must be true of any session: acknowledged is delivered, whole and once; and no end of a message that the client did not send. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

static bool is_success(int code)
{
	return code / 100 == 2;
}

/* Without what normalization and stuffing may change. */
static struct buf bare_text(const struct buf *b)
{
	struct buf out = { NULL, 0, 0 };

	for (size_t i = 0; i < b->n; i++)
		if (!strchr("\r\n .", b->p[i]))
			buf_add(&out, b->p + i, 1);
	return out;
}

static bool same(const unsigned char *a, size_t an, const unsigned char *b, size_t bn)
{
	return an == bn && (an == 0 || memcmp(a, b, an) == 0);
}

/* Octets of the Received field at this offset. */
static size_t trace_octets(const struct buf *b, size_t at)
{
	const size_t begin = at;

	if (b->n < at + 9 || memcmp(b->p + at, "Received:", 9) != 0)
		return 0;
	for (bool dated = false; !dated && at < b->n;) { /* the date is in its last line */
		const unsigned char *end = memchr(b->p + at, '\n', b->n - at);
		size_t next = end ? (size_t)(end - b->p) + 1 : b->n;

		dated = memchr(b->p + at, ';', next - at) != NULL;
		at = next;
	}
	return at - begin;
}

/* The content without the Received field that smtpwarp put on top, or below the line "From ..." of a mailbox. *found: it is there. */
static struct buf without_trace(const struct buf *b, bool *found)
{
	const unsigned char *end = b->n > 6 && memmem(b->p, 6, "From ", 5) ? memmem(b->p, b->n, "\r\n", 2) : NULL;
	size_t at = end && !trace_octets(b, 0) ? (size_t)(end - b->p) + 2 : 0, n = trace_octets(b, at);
	struct buf out = { NULL, 0, 0 };

	*found = n > 0;
	buf_add(&out, b->p, at);
	buf_add(&out, b->p + at + n, b->n - at - n);
	return out;
}

static void compare_content(const struct message *m, const struct buf *got, int number)
{
	struct buf want = *message_now(m), a, b;

	if (!m->bare && (m->added || m->removed)) {
		if (!same_with_edits(m, got))
			fault("message %d, edited, differs: %zu octets wanted without that, %zu got", number, want.n, got->n);
		return;
	}
	if (m->added || m->removed) /* where its header ends is a matter of opinion */
		return;
	if (!m->bare && !m->bdat) {
		if (!same(got->p, got->n, want.p, want.n))
			fault("message %d differs: %zu octets sent, %zu got", number, want.n, got->n);
		return;
	}
	/* A message that came by BDAT and goes on by DATA ends in CR LF. */
	if (m->bdat && !m->bare && (same(got->p, got->n, want.p, want.n) ||
	    (got->n == want.n + 2 && same(got->p, want.n, want.p, want.n) && memcmp(got->p + want.n, "\r\n", 2) == 0)))
		return;
	a = bare_text(got);
	b = bare_text(&want);
	if (!same(a.p, a.n, b.p, b.n))
		fault("message %d differs: %zu octets sent, %zu got, newlines aside", number, want.n, got->n);
	buf_free(&a);
	buf_free(&b);
}

static void check_content(const struct message *m, const struct delivery *d, int number)
{
	bool traced = fuzz.plan.received && !d->tunnel, found;
	struct buf bare;

	if (m->edited)
		return;
	if (!traced) {
		compare_content(m, &d->content, number);
		return;
	}
	bare = without_trace(&d->content, &found);
	if (!found)
		fault("message %d has no Received field", number);
	compare_content(m, &bare, number);
	buf_free(&bare);
}

/* The recipient of this message that the server was told by this address, which a hook may have rewritten; -1: none. */
static int recipient(const struct message *m, const char *address)
{
	for (int i = 0; i < m->rcpts; i++)
		if (strcmp(m->rcpt[i].address + 1, address_digits(address)) == 0 && (address[0] == 'r' || address[0] == 'w'))
			return i;
	return -1;
}

static bool was_taken(const struct delivery *d, int accepted)
{
	if (fuzz.servers[d->server].lmtp)
		return accepted < d->finals && is_success(d->final[accepted]);
	return d->finals && is_success(d->final[0]);
}

/* How often servers have taken this message for this recipient. */
static int times_taken(int number, int rcpt)
{
	const struct message *m = &fuzz.messages[number];
	int times = 0;

	for (int i = 0; i < fuzz.delivery_count; i++) {
		const struct delivery *d = &fuzz.deliveries[i];
		int accepted = 0;

		if (d->message != number || !d->complete)
			continue;
		for (int k = 0; k < d->rcpts; k++) {
			bool its = fuzz.plan.override ? k == rcpt : recipient(m, d->rcpt[k]) == rcpt;

			if (!is_success(d->codes[k]))
				continue;
			times += its && was_taken(d, accepted);
			accepted++;
		}
	}
	return times;
}

static int reply_of(const struct message *m, int accepted)
{
	int at = fuzz.client.lmtp ? accepted : 0;

	return at < m->finals ? m->final[at] : 0;
}

/* Neither a hook's refusal nor its failure lets a message pass. */
static void check_doom(int number)
{
	const struct message *m = &fuzz.messages[number];

	if (m->tangled || !(m->doomed || program_dooms()))
		return;
	for (int i = 0; i < m->finals; i++)
		if (is_success(m->final[i]))
			fault("message %d was acknowledged, though a hook has refused it or failed", number);
}

static void check_message(int number)
{
	const struct message *m = &fuzz.messages[number];
	int accepted = 0;

	check_doom(number);
	for (int i = 0; i < m->rcpts && !m->tangled && !fuzz.confused; i++) {
		int code, times;

		if (!is_success(m->rcpt[i].code))
			continue;
		code = reply_of(m, accepted++);
		if (fuzz.plan.override) /* addresses do not tell recipients apart */
			continue;
		times = times_taken(number, i);
		if (is_success(code) && !m->discarded && times != 1)
			fault("message %d was acknowledged for recipient %d, and delivered %d times", number, i, times);
		if (code && !is_success(code) && times)
			fault("message %d was refused with %d for recipient %d, and delivered", number, code, i);
	}
}

static void check_delivery(const struct delivery *d)
{
	const struct message *m;

	if (!d->complete || !d->accepted)
		return;
	if (d->message < 0 || d->message >= fuzz.message_count) {
		if (!fuzz.plan.override)
			fault("server %d got a message that nobody sent", d->server);
		return;
	}
	m = &fuzz.messages[d->message];
	if (m->tangled)
		return;
	if (m->doomed || m->discarded || program_dooms())
		fault("server %d got message %d, which a hook has kept back", d->server, d->message);
	if (!m->ended)
		fault("server %d got the end of message %d, which the client did not send", d->server, d->message);
	check_content(m, d, d->message);
	for (int k = 0; k < d->rcpts && !fuzz.plan.override && !fuzz.confused; k++) {
		int i = recipient(m, d->rcpt[k]);

		if (!is_success(d->codes[k]))
			continue;
		if (i < 0)
			fault("server %d got message %d for %s, whom the client did not name", d->server, d->message, d->rcpt[k]);
		else if (m->rcpt[i].code && !is_success(m->rcpt[i].code))
			fault("server %d got message %d for %s, whom the client was refused", d->server, d->message, d->rcpt[k]);
	}
}

/* The end of the session, and what became of each message that was acknowledged. */
static void check_records(void)
{
	unsigned acknowledged = 0;

	for (int i = 0; i < fuzz.message_count; i++) {
		const struct message *m = &fuzz.messages[i];
		bool taken = false;

		for (int k = 0; k < m->finals; k++)
			taken = taken || is_success(m->final[k]);
		acknowledged += taken && !m->tangled;
	}
	if (buf_count(&fuzz.log, "{\"v\":1,\"event\":\"close\"") != 1)
		fault("the log does not have one record of the session's end");
	if (!fuzz.tunnel && buf_count(&fuzz.log, "{\"v\":1,\"event\":\"message\"") < acknowledged)
		fault("the log lacks a message's record");
}

void check_session(void)
{
	bool sane = WIFEXITED(fuzz.status) && WEXITSTATUS(fuzz.status) == 0;

	if (!sane)
		fault("status %#x", (unsigned)fuzz.status);
	if (fuzz.errors.n)
		fault("standard error: %.*s", (int)(fuzz.errors.n < 500 ? fuzz.errors.n : 500), fuzz.errors.p);
	for (int i = 0; i < fuzz.message_count; i++)
		check_message(i);
	check_records();
	for (int i = 0; i < fuzz.delivery_count; i++)
		check_delivery(&fuzz.deliveries[i]);
}
