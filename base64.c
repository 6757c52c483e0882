/* Base64. See base64.h. */
#include "base64.h"

#include <stdint.h>

/* Value of a character plus one; 0: it is none. */
static unsigned value(unsigned char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A' + 1u;
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 27u;
	if (c >= '0' && c <= '9')
		return c - '0' + 53u;
	return c == '+' ? 63 : c == '/' ? 64 : 0;
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
