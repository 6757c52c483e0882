/* Buffers and chance of the session fuzzer. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_add(struct buf *b, const void *p, size_t n)
{
	if (b->n + n > b->cap) {
		b->cap = (b->n + n) * 2 + 256;
		b->p = realloc(b->p, b->cap);
		if (!b->p)
			abort();
	}
	if (n)
		memcpy(b->p + b->n, p, n);
	b->n += n;
}

void buf_text(struct buf *b, const char *format, ...)
{
	char text[9000];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	buf_add(b, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

void buf_drop(struct buf *b, size_t n)
{
	if (n)
		memmove(b->p, b->p + n, b->n - n);
	b->n -= n;
}

void buf_free(struct buf *b)
{
	free(b->p);
	*b = (struct buf){ NULL, 0, 0 };
}

size_t buf_line(const struct buf *b)
{
	for (size_t i = 1; i < b->n; i++)
		if (b->p[i] == '\n' && b->p[i - 1] == '\r')
			return i + 1;
	return 0;
}

unsigned buf_count(const struct buf *b, const char *text)
{
	const unsigned char *at = b->p, *end = b->p + b->n;
	unsigned n = 0;

	while (at && (at = memmem(at, (size_t)(end - at), text, strlen(text)))) {
		at += strlen(text);
		n++;
	}
	return n;
}

static uint64_t state;

void chance_seed(uint64_t seed)
{
	state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

/* splitmix64 */
static uint64_t next(void)
{
	uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

uint32_t below(uint32_t n)
{
	return n ? (uint32_t)(next() >> 16) % n : 0;
}

bool percent(uint32_t n)
{
	return below(100) < n;
}

bool permille(uint32_t n)
{
	return below(1000) < n;
}
