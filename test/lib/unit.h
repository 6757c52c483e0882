/* What the unit tests share: inputs that end right at a page nobody may read, offered whole and in pieces, and a text
 * in which a test writes down what came of them. */
#ifndef UNIT_H
#define UNIT_H

#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#endif

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define GUARD_ROOM (1u << 21) /* more than the largest input */
#define PAGE 4096u

struct input {
	const char *bytes;
	size_t len;
};

#define IN(s)                                                                                                          \
	{                                                                                                              \
		s, sizeof(s) - 1                                                                                       \
	}
#define COUNT(a) (sizeof(a) / sizeof *(a))

struct text {
	size_t len;
	char bytes[1 << 17];
};

__attribute__((format(printf, 2, 3))) static inline void say(struct text *t, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(t->bytes + t->len, sizeof t->bytes - t->len, format, args);
	va_end(args);
	assert_true(n >= 0 && (size_t)n < sizeof t->bytes - t->len);
	t->len += (size_t)n;
}

/* Bytes in a form that shows and compares well. */
static inline void say_bytes(struct text *t, const unsigned char *in, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (in[i] == '\r')
			say(t, "\\r");
		else if (in[i] == '\n')
			say(t, "\\n");
		else if (in[i] < 0x20 || in[i] == 0x7f)
			say(t, "\\%o", in[i]);
		else
			say(t, "%c", in[i]);
	}
}

static inline void clear(struct text *t)
{
	t->len = 0;
	t->bytes[0] = 0;
}

/* A row's result is the wanted one, or the test fails with the row's name. */
static inline void expect_text(const char *name, const char *got, const char *want)
{
	if (strcmp(got, want) != 0)
		fail_msg("%s:\n  got  %s\n  want %s", name, got, want);
}

/* A copy of the bytes whose end is the end of the readable page. Valid until the next call. */
static inline const unsigned char *guarded(const void *bytes, size_t n)
{
	static unsigned char *room;

	assert_true(n <= GUARD_ROOM);
	if (!room) {
		room = mmap(NULL, GUARD_ROOM + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_true(room != MAP_FAILED);
		assert_int_equal(mprotect(room + GUARD_ROOM, PAGE, PROT_NONE), 0);
	}
	if (n)
		memcpy(room + GUARD_ROOM - n, bytes, n);
	return room + GUARD_ROOM - n;
}

/* A number below this one, by xorshift32: the same numbers in every run. */
static inline uint32_t any(uint32_t below)
{
	static uint32_t state = 1;

	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state % below;
}

/* Takes what it can of n bytes and says how many; the rest is offered again with what follows. */
typedef size_t taker(void *state, const unsigned char *in, size_t n);

/* Offer n bytes. way 0: whole; 1 to n - 1: in two parts, cut there; n: byte by byte. Returns how many were taken. */
static inline size_t offer(const void *bytes, size_t n, size_t way, taker *take, void *state)
{
	const unsigned char *in = bytes;
	size_t at = 0, end = way == 0 ? n : way == n ? 1 : way;

	for (;; end = way == n ? end + 1 : n) {
		size_t used = take(state, guarded(in + at, end - at), end - at);

		assert_true(used <= end - at);
		at += used;
		if (end == n)
			return at;
	}
}

#endif
