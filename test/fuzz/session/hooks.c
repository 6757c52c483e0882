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

/* Started by smtpwarp as a hook. */
int hook_main(void)
{
	const char *verdict = getenv("FUZZ_VERDICT");
	char rest[4096];

	while (read(0, rest, sizeof rest) > 0)
		;
	if (!verdict || strcmp(verdict, "EXIT") == 0)
		return 3;
	fputs(verdict, stdout);
	return 0;
}

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
	fuzz.asked_count++;
}

bool hook_pump(struct asked *a)
{
	return link_pump(&a->link);
}

bool hook_can_answer(const struct asked *a)
{
	if (a->link.fd < 0)
		return false;
	return a->link.eof || (a->event < 5 && memchr(a->link.in.p ? a->link.in.p : (unsigned char *)"", '\n', a->link.in.n));
}

/* The message that the line is about. */
static struct message *about(const struct buf *line)
{
	static const char *const before[] = { "\"address\":\"s", "\"address\":\"r", "\"address\":\"w" };

	for (int i = 0; i < 3; i++) {
		unsigned char *at = memmem(line->p, line->n, before[i], strlen(before[i]));
		int number = at ? atoi((char *)at + strlen(before[i])) : -1;

		if (at && number >= 0 && number < fuzz.message_count)
			return &fuzz.messages[number];
	}
	return NULL;
}

static void edit(struct asked *a, struct buf *v)
{
	struct message *m = about(&a->link.in);

	if (m)
		m->edited = true;
	if (percent(50))
		buf_text(v, "add-header X-Fuzz: a value that is long enough to be folded somewhere, which is to say that it has words\n");
	if (percent(40))
		buf_text(v, "remove-header x-old\n");
	if (percent(30))
		buf_text(v, "replace-message 24\nSubject: new\r\n\r\n.\r\n..x\n");
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
		buf_text(v, "rewrite w%s\n", address);
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
	static const char *const wrong[] = { "", "nonsense\n", "reject 250 x\n", "accept\r\n", "rewrite <\n", "replace-message 10\nabc",
		"source x\n", "reject" };

	if (fuzz.plan.hook_wild == 2 && percent(8)) {
		buf_text(v, "%s", wrong[below(sizeof wrong / sizeof *wrong)]);
	} else if (fuzz.plan.hook_wild && percent(12)) {
		buf_text(v, "%s", bad[below(sizeof bad / sizeof *bad)]);
	} else if (a->event == 4 && fuzz.plan.hook_wild && percent(8)) {
		struct message *m = about(&a->link.in);

		if (m)
			m->discarded = true;
		buf_text(v, "discard\n");
	} else {
		buf_text(v, "accept\n");
	}
}

void hook_answer(struct asked *a)
{
	struct buf v = { NULL, 0, 0 };

	if (a->answered || a->event >= 5) {
		notef("H!", "%s ends", events[a->event]);
		link_close(&a->link, false);
		return;
	}
	if (fuzz.plan.hook_wild && a->event < 4 && permille(3))
		buf_text(&v, "tarpit 1\n");
	if (percent(15))
		buf_text(&v, "log key%u value\n", below(3));
	if (a->event == 3 && percent(25))
		rewrite(a, &v);
	if ((a->event == 0 || ((a->event == 2 || a->event == 3) && (fuzz.plan.late || percent(5)))) && percent(25))
		route(&v);
	if (a->event == 4 && percent(40))
		edit(a, &v);
	if (!memmem(v.p ? v.p : (unsigned char *)"", v.n, "replace-message", 15))
		final(a, &v);
	notef("H>", "%s", events[a->event]);
	note("H>", v.p, v.n);
	link_send(&a->link, v.p, v.n);
	link_close(&a->link, false);
	a->answered = true;
	buf_free(&v);
}
