/* Hooks of the session fuzzer: resident ones, played here, and now and then a program. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const events[] = { "connect", "ehlo", "mail", "rcpt", "data", "close", "log" };
static char base[200], self[300];

void hooks_prepare(const char *directory)
{
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	self[n > 0 ? n : 0] = 0;
	snprintf(base, sizeof base, "%s", directory);
}

const char *hooks_directory(unsigned mask, bool two, bool exec)
{
	static char path[260];
	char entry[600], target[600];

	snprintf(path, sizeof path, "%s/hooks.%u.%d%d", base, mask, two, exec);
	if (mkdir(path, 0755) < 0)
		return path;
	for (unsigned i = 0; i < HOOK_EVENTS; i++) {
		if (!(mask & 1u << i))
			continue;
		snprintf(entry, sizeof entry, "%s/%s", path, events[i]);
		mkdir(entry, 0755);
		snprintf(target, sizeof target, "%s/hook.%s", base, events[i]);
		snprintf(entry, sizeof entry, "%s/%s/50-fuzz", path, events[i]);
		if (symlink(target, entry) < 0)
			perror(entry);
		snprintf(entry, sizeof entry, "%s/%s/60-fuzz", path, events[i]);
		if (two && symlink(target, entry) < 0)
			perror(entry);
		snprintf(entry, sizeof entry, "%s/%s/40-fuzz-hook", path, events[i]);
		if (exec && i < 5 && symlink(self, entry) < 0)
			perror(entry);
	}
	return path;
}

void hooks_accept(int fd, int event)
{
	struct asked *a = &fuzz.asked[fuzz.asked_count];

	if (fuzz.asked_count == ASKED_MAX)
		abort();
	memset(a, 0, sizeof *a);
	link_open(&a->link, fd);
	a->event = event;
	a->message = -1;
	a->mute = fuzz.plan.impatient && event < 5 && percent(10);
	a->deaf = event == 6 && fuzz.plan.hook_wild == 2 && percent(30) && !fuzz.plan.impatient; /* else --hook-timeout may come first */
	fuzz.asked_count++;
}

bool hook_pump(struct asked *a)
{
	const struct link *client = &fuzz.client.link; /* after its end smtpwarp waits for hooks alone */

	return !(a->deaf && !fuzz.exited && client->fd >= 0 && !client->eof) && link_pump(&a->link);
}

bool hook_can_answer(const struct asked *a)
{
	if (a->link.fd < 0 || a->mute)
		return false;
	return a->link.eof || (a->event < 5 && memchr(a->link.in.p ? a->link.in.p : (unsigned char *)"", '\n', a->link.in.n));
}

/* The message that the line is about, or -1. */
static int about(const struct buf *line)
{
	static const char *const before[] = { "\"address\":\"s", "\"address\":\"r", "\"address\":\"w" };

	for (int i = 0; i < 3; i++) {
		unsigned char *at = memmem(line->p, line->n, before[i], strlen(before[i]));
		char *digits = (char *)at + strlen(before[i]);
		int number = at ? atoi(digits + (digits[0] == '\xc3' ? 2 : 0)) : -1;

		if (at && number >= 0 && number < fuzz.message_count)
			return number;
	}
	return -1;
}

static void compose_replacement(struct buf *b)
{
	static const char *const lines[] = { "Subject: new", "X-Old: back", "", "", ".", "..x", "text", "From: x@y.example", "\xc3\xa4" };
	bool crlf = percent(50);
	uint32_t n = percent(3) ? below(6000) : below(12);

	for (uint32_t i = 0; i < n; i++)
		buf_text(b, "%s%s", lines[below(sizeof lines / sizeof *lines - (percent(90) ? 1 : 0))], crlf || percent(10) ? "\r\n" : "\n");
	if (!n)
		buf_text(b, "\n");
}

/* The verdict comes to nothing. */
static void fail(struct asked *a)
{
	a->vain = true;
	a->doomed = !fuzz.plan.failure_accepts;
}

/* A message in place of the old one, counted well or badly. */
static void replace(struct asked *a, struct buf *v)
{
	struct buf *b = &a->replacement;
	uint32_t how = fuzz.plan.hook_wild ? below(20) : 0;

	compose_replacement(b);
	if (how == 19)
		buf_text(v, "replace-message\n");
	else
		buf_text(v, "replace-message %zu\n", how == 17 ? b->n - 1 : how == 18 ? b->n + 1 : b->n);
	buf_add(v, b->p, b->n);
	a->replaces = true;
	if (how >= 17)
		fail(a);
}

static void edit(struct asked *a, struct buf *v)
{
	static const char *const values[] = { "short", "\xc3\x84\xc3\xb6 and words that are long enough to be folded, so that there are two lines",
		"a value that is long enough to be folded somewhere, which is to say that it has words", "\xff" };

	for (; percent(40) && a->adds < 4; a->adds++)
		buf_text(v, "add-header X-Fuzz: %s\n", values[below(4)]);
	if (percent(40)) {
		buf_text(v, "remove-header x-old\n");
		a->removes = true;
	}
	if (percent(30))
		replace(a, v);
}

static void rewrite(struct asked *a, struct buf *v)
{
	unsigned char *at = memmem(a->link.in.p, a->link.in.n, "\"rcpt\":{\"address\":\"r", 20);
	char address[64] = "";

	for (size_t i = 0; at && i < 60 && at[20 + i] != '"'; i++) {
		address[i] = (char)at[20 + i];
		address[i + 1] = 0;
	}
	if (*address)
		buf_text(v, "rewrite w%s%s\n", percent(10) ? "\xc3\xa4" : "", address);
}

static void route(struct buf *v)
{
	switch (below(5)) {
	case 0:
		buf_text(v, "upstream 127.0.0.1:%u\n", 2501 + below(3));
		return;
	case 1:
		buf_text(v, "upstream lmtp:unix:%s/lmtp\n", workplace);
		return;
	case 2:
		buf_text(v, "tls %s\n", percent(50) ? "none" : "may");
		fuzz.exempt = true;
		return;
	case 3:
		buf_text(v, "source 127.0.0.%u\n", 2 + below(2));
		return;
	default:
		buf_text(v, "upstream 127.0.0.1:2599\n");
	}
}

/* What ends a verdict, mostly good. */
static void final(struct asked *a, struct buf *v)
{
	static const char *const bad[] = { "reject\n", "reject 554 5.7.0 No\n", "defer\n", "defer 450 4.2.0 Later\n", "close\n",
		"close 4.7.1 Gone\n", "defer 421 4.7.0 Away\n",
		"reject A text with a tab\tand so long that it is to be wrapped: 0123456789 0123456789 0123456789\n" };
	static const char *const wrong[] = { "", "nonsense\n", "reject 250 x\n", "accept\rx\n", "rewrite <\n", "replace-message 10\nabc",
		"source x\n", "reject", "accept", "log k\0v\naccept\n" };

	if (fuzz.plan.hook_wild == 2 && percent(8)) {
		uint32_t which = below(sizeof wrong / sizeof *wrong);

		buf_add(v, wrong[which], which == 9 ? 15 : strlen(wrong[which]));
		fail(a);
	} else if (fuzz.plan.hook_wild && percent(12)) {
		buf_text(v, "%s", bad[below(sizeof bad / sizeof *bad)]);
		a->vain = a->doomed = true;
	} else if (a->event == 4 && fuzz.plan.hook_wild && percent(8)) {
		a->discards = true;
		buf_text(v, "discard\n");
	} else {
		buf_text(v, percent(10) ? "accept\r\n" : "accept\n");
	}
}

static void compose(struct asked *a, struct buf *v)
{
	a->composed = true;
	a->message = a->event == 4 ? about(&a->link.in) : -1;
	if (a->message >= 0 && a->link.passed)
		check_passed(&fuzz.messages[a->message], a->link.passed, a->message);
	else if (a->event == 4 && a->message >= 0)
		fault("a data hook got no message");
	if (fuzz.plan.hook_wild && a->event < 4 && permille(3))
		buf_text(v, "tarpit 1\n");
	if (percent(15))
		buf_text(v, "log key%u value\n", below(3));
	if (a->event == 3 && percent(25))
		rewrite(a, v);
	if ((a->event == 0 || ((a->event == 2 || a->event == 3) && (fuzz.plan.late || percent(5)))) && percent(25))
		route(v);
	if (a->event == 4 && percent(40))
		edit(a, v);
	if (!a->replaces)
		final(a, v);
	if (fuzz.plan.hook_wild == 2 && !a->vain && percent(4)) {
		v->n = below((uint32_t)v->n);
		fail(a);
	} else if (!a->replaces && !a->vain && percent(4)) { /* the last word has been said */
		buf_text(v, "%s", percent(50) ? "nonsense\nreject\n" : "reject");
	}
}

/* What a verdict that was said does to its message. */
static void apply(const struct asked *a)
{
	struct message *m = a->message >= 0 ? &fuzz.messages[a->message] : NULL;

	if (!m)
		return;
	m->edited = m->edited || fuzz.plan.impatient; /* who knows whether it came in time */
	m->doomed = m->doomed || a->doomed;
	if (a->vain)
		return;
	m->discarded = m->discarded || a->discards;
	if (a->replaces)
		message_replaced(m, a->replacement.p, a->replacement.n);
	m->removed = m->removed || a->removes;
	m->added += a->adds;
}

/* A part of the verdict. */
void hook_answer(struct asked *a)
{
	struct buf *v = &a->verdict;
	size_t n;

	if (a->answered || a->event >= 5) {
		notef("H!", "%s ends", events[a->event]);
		link_close(&a->link, false);
		return;
	}
	if (!a->composed)
		compose(a, v);
	n = percent(85) || !v->n ? v->n : 1 + below((uint32_t)v->n);
	notef("H>", "%s", events[a->event]);
	note("H>", v->p, n);
	link_send(&a->link, v->p, n);
	buf_drop(v, n);
	if (v->n)
		return;
	link_close(&a->link, false);
	a->answered = true;
	apply(a);
}

bool program_dooms(void)
{
	const struct plan *p = &fuzz.plan;
	const char *said = p->exec_verdict;
	bool refuses, fails;

	if (!p->exec_hook || p->client_tls == CT_PASSTHROUGH || !(p->hooks & 31))
		return false;
	if (p->program >= 0)
		return p->hooks & 16 && program_fails(p->program) && !p->failure_accepts;
	refuses = strncmp(said, "reject", 6) == 0 || strncmp(said, "defer", 5) == 0;
	fails = strncmp(said, "nonsense", 8) == 0 || strcmp(said, "EXIT") == 0;
	return refuses || (fails && !p->failure_accepts);
}

/* All records that the file has, each whole, and the session's end, behind which close hooks may have left theirs. */
static void look_at_stream(struct asked *a)
{
	const struct buf *in = &a->link.in;
	size_t at = 0;

	for (size_t i = 0; i < in->n; i++) {
		if (in->p[i] != '\n')
			continue;
		if (!json_is_valid(in->p + at, i - at))
			fault("a log hook got what is not JSON: %.*s", (int)(i - at < 300 ? i - at : 300), in->p + at);
		at = i + 1;
	}
	if (at != in->n)
		fault("a log hook got half a line");
	if (buf_count(in, "{\"v\":1,\"event\":\"close\"") != 1)
		fault("a log hook did not get the end of the session");
	if (buf_count(in, "{\"v\":1,\"event\":\"message\"") != buf_count(&fuzz.log, "{\"v\":1,\"event\":\"message\""))
		fault("a log hook did not get each message's record");
}

void hooks_finish(void)
{
	for (int i = 0; i < fuzz.asked_count; i++) {
		struct asked *a = &fuzz.asked[i];

		while (hook_pump(a))
			;
		if (a->event == 6)
			look_at_stream(a);
	}
}
