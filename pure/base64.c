/* Base64 and PEM. See base64.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "pure/base64.h"

#include <stdint.h>
#include <string.h>

/* For '+' to 'z': the character's value plus one; 0: it has none. */
static const unsigned char values['z' - '+' + 1] = {
	63, 0, 0, 0, 64, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 0, 0, 0, 0, 0, 0, 0, /* + / 0-9 */
	1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, /* A-Z */
	0, 0, 0, 0, 0, 0, /* [ to ` */
	27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52 /* a-z */
};

static unsigned value(unsigned char c)
{
	return c >= '+' && c <= 'z' ? values[c - '+'] : 0;
}

size_t base64_decode(const unsigned char *in, size_t n, unsigned char *out, size_t cap)
{
	uint32_t bits = 0;
	unsigned count = 0;
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned v = value(in[i]);

		if (!v && (in[i] == '\n' || in[i] == '\r' || in[i] == ' ' || in[i] == '\t'))
			continue;
		if (!v || len == cap)
			break;
		bits = bits << 6 | (v - 1);
		count += 6;
		if (count >= 8) {
			count -= 8;
			out[len++] = (unsigned char)(bits >> count);
		}
	}
	return len;
}

size_t base64_encode(const unsigned char *in, size_t n, char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t len = 0;

	for (size_t i = 0; i < n; i += 3) {
		uint32_t bits = (uint32_t)in[i] << 16 | (i + 1 < n ? (uint32_t)in[i + 1] << 8 : 0) | (i + 2 < n ? in[i + 2] : 0);

		out[len++] = digits[bits >> 18];
		out[len++] = digits[bits >> 12 & 63];
		out[len++] = i + 1 < n ? digits[bits >> 6 & 63] : '=';
		out[len++] = i + 2 < n ? digits[bits & 63] : '=';
	}
	return len;
}

/* ---- PEM ---- */

/* Where text is at or after `at`; NULL: nowhere. */
static const unsigned char *find_text(const unsigned char *at, const unsigned char *end, const char *text)
{
	return memmem(at, (size_t)(end - at), text, strlen(text));
}

static bool is_end_of(const unsigned char *at, const unsigned char *end, const struct pem *p)
{
	size_t left = (size_t)(end - at);

	return left >= p->label_len + 5 && memcmp(at, p->label, p->label_len) == 0 &&
	    memcmp(at + p->label_len, "-----", 5) == 0;
}

bool pem_next(const unsigned char **at, const unsigned char *end, struct pem *p)
{
	const unsigned char *begin, *stop;

	while ((begin = find_text(*at, end, "-----BEGIN "))) {
		p->label = begin + 11;
		stop = find_text(p->label, end, "-----");
		if (!stop)
			return false;
		p->label_len = (size_t)(stop - p->label);
		*at = p->body = stop + 5;
		stop = find_text(p->body, end, "-----END ");
		if (!stop)
			return false;
		p->body_len = (size_t)(stop - p->body);
		if (!is_end_of(stop + 9, end, p) || find_text(p->body, stop, "-----BEGIN "))
			continue;
		*at = stop + 14 + p->label_len;
		return true;
	}
	return false;
}

bool pem_is(const struct pem *p, const char *label)
{
	return strlen(label) == p->label_len && memcmp(p->label, label, p->label_len) == 0;
}
