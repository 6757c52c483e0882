/* Harmless text. See plain.h for the contract. */
#include "stat/plain.h"

#include "pure/json.h"

#include <string.h>

#define PLAIN_MAX 4096

static unsigned code_point(const unsigned char *in, size_t n)
{
	unsigned code = n == 1 ? in[0] : in[0] & (0xffu >> (n + 1));

	for (size_t i = 1; i < n; i++)
		code = code << 6 | (in[i] & 0x3f);
	return code;
}

/* Controls; U+061C, U+200E, U+200F, U+2028 to U+202E and U+2066 to U+2069 are of Unicode's bidirectional algorithm or end lines. */
static bool harmful(unsigned code)
{
	return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x61c || code == 0x200e || code == 0x200f ||
	       (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) || code == 0xfeff;
}

const char *plain_make(char *text, size_t cap)
{
	char made[PLAIN_MAX];
	size_t length = strlen(text), len = 0, n;

	for (const char *in = text, *end = text + length; in < end; in += n ? n : 1) {
		n = json_utf8((const unsigned char *)in, (size_t)(end - in));
		bool bad = !n || harmful(code_point((const unsigned char *)in, n));
		size_t m = bad ? 3 : n;
		if (len + m >= cap || len + m >= sizeof made)
			break;
		memcpy(made + len, bad ? "\xef\xbf\xbd" : in, m);
		len += m;
	}
	made[len] = 0;
	memcpy(text, made, len + 1);
	return text;
}

const char *plain_text(const struct jsonread_text *text, char *out, size_t cap)
{
	jsonread_unescape(text, out, cap);
	return plain_make(out, cap);
}

/* Octets up to the end of a word. */
static size_t word_length(const char *text)
{
	return strcspn(text, " <>()\"',;[]=");
}

const char *plain_fold(char *text)
{
	char *to = text;

	for (const char *in = text; *in; in++) {
		size_t n = in == text || !word_length(in - 1) ? word_length(in) : 0;
		bool digit = *in >= '0' && *in <= '9';
		if (n && memchr(in, '@', n)) {
			*to++ = '@';
			in += n - 1;
		} else if (!digit) {
			*to++ = *in;
		} else if (to == text || to[-1] != '#') {
			*to++ = '#';
		}
	}
	*to = 0;
	return text;
}
