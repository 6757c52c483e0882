/* Base64. See base64.h. */
#include "base64.h"

#include <stdint.h>

/* From '+' to 'z': the character's value plus one, 0: it is none. */
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
