/* Reading JSON. See jsonread.h for the contract. */
#include "pure/jsonread.h"

#include "pure/json.h"

#include <string.h>

#define NUMBER_MAX 1000000000000000ll

void jsonread_begin(struct jsonread *r, const char *text, size_t n)
{
	*r = (struct jsonread){ .at = text, .end = text + n };
}

static bool fail(struct jsonread *r)
{
	r->bad = true;
	r->at = r->end;
	return false;
}

/* The next octet that is no white space; 0: there is none. */
static char peek(struct jsonread *r)
{
	while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\r' || *r->at == '\n'))
		r->at++;
	return r->at < r->end ? *r->at : 0;
}

static bool take(struct jsonread *r, char c)
{
	if (peek(r) != c)
		return fail(r);
	r->at++;
	return true;
}

static int hex(const char *in)
{
	int value = 0;

	for (int i = 0; i < 4; i++) {
		int digit = in[i] >= '0' && in[i] <= '9'   ? in[i] - '0'
			    : in[i] >= 'a' && in[i] <= 'f' ? in[i] - 'a' + 10
			    : in[i] >= 'A' && in[i] <= 'F' ? in[i] - 'A' + 10
							   : -1;
		if (digit < 0)
			return -1;
		value = value << 4 | digit;
	}
	return value;
}

/* Octets of the escape at in, which begins with a backslash; 0: it is none. */
static size_t escape_length(const char *in, const char *end)
{
	if (end - in < 2)
		return 0;
	if (in[1] == 'u')
		return end - in >= 6 && hex(in + 2) >= 0 ? 6 : 0;
	return memchr("\"\\/bfnrt", in[1], 8) ? 2 : 0;
}

static bool quoted(struct jsonread *r, struct jsonread_text *text)
{
	const char *at;
	size_t n;

	if (!take(r, '"'))
		return false;
	for (at = r->at; at < r->end && *at != '"'; at += n) {
		n = *at == '\\' ? escape_length(at, r->end) : (unsigned char)*at >= 0x20;
		if (!n)
			return fail(r);
	}
	if (at == r->end)
		return fail(r);
	*text = (struct jsonread_text){ r->at, (size_t)(at - r->at) };
	r->at = at + 1;
	return true;
}

static size_t digits(struct jsonread *r)
{
	const char *from = r->at;

	while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
		r->at++;
	return (size_t)(r->at - from);
}

static bool number(struct jsonread *r)
{
	if (*r->at == '-')
		r->at++;
	bool zero = r->at < r->end && *r->at == '0';
	size_t n = digits(r);
	if (!n || (zero && n > 1))
		return fail(r);
	if (r->at < r->end && *r->at == '.') {
		r->at++;
		if (!digits(r))
			return fail(r);
	}
	if (r->at < r->end && (*r->at | 0x20) == 'e') {
		r->at++;
		if (r->at < r->end && (*r->at == '+' || *r->at == '-'))
			r->at++;
		if (!digits(r))
			return fail(r);
	}
	return true;
}

static bool word(struct jsonread *r, const char *literal)
{
	size_t n = strlen(literal);

	if ((size_t)(r->end - r->at) < n || memcmp(r->at, literal, n))
		return fail(r);
	r->at += n;
	return true;
}

static bool enter(struct jsonread *r, char bracket)
{
	struct jsonread_text skipped;

	if (peek(r) != bracket) {
		jsonread_any(r, &skipped);
		return false;
	}
	if (r->depth == JSONREAD_DEPTH)
		return fail(r);
	r->at++;
	r->depth++;
	r->first = true;
	return true;
}

bool jsonread_object(struct jsonread *r)
{
	return enter(r, '{');
}

bool jsonread_at_object(struct jsonread *r)
{
	return peek(r) == '{';
}

bool jsonread_array(struct jsonread *r)
{
	return enter(r, '[');
}

/* Go behind the comma, or the closing bracket: then false. */
static bool next(struct jsonread *r, char bracket)
{
	if (peek(r) == bracket && r->depth) {
		r->at++;
		r->depth--;
		r->first = false;
		return false;
	}
	if (!r->first && !take(r, ','))
		return false;
	r->first = false;
	return !r->bad;
}

bool jsonread_member(struct jsonread *r, struct jsonread_text *name)
{
	return next(r, '}') && quoted(r, name) && take(r, ':');
}

bool jsonread_element(struct jsonread *r)
{
	return next(r, ']') && (peek(r) || fail(r));
}

/* Recursive, as deep as enter() allows. */
void jsonread_any(struct jsonread *r, struct jsonread_text *value)
{
	struct jsonread_text inner;
	char c = peek(r);
	const char *from = r->at;

	if (c == '"') {
		quoted(r, &inner);
	} else if (c == '{' && jsonread_object(r)) {
		while (jsonread_member(r, &inner))
			jsonread_any(r, &inner);
	} else if (c == '[' && jsonread_array(r)) {
		while (jsonread_element(r))
			jsonread_any(r, &inner);
	} else if (c == '-' || (c >= '0' && c <= '9')) {
		number(r);
	} else if (c != '{' && c != '[') {
		word(r, c == 't' ? "true" : c == 'f' ? "false" : "null");
	}
	if (!r->bad)
		*value = (struct jsonread_text){ from, (size_t)(r->at - from) };
}

bool jsonread_string(struct jsonread *r, struct jsonread_text *text)
{
	struct jsonread_text skipped;

	if (peek(r) == '"')
		return quoted(r, text);
	jsonread_any(r, &skipped);
	return false;
}

bool jsonread_thousandths(struct jsonread *r, int64_t *value)
{
	struct jsonread_text text = { 0 };
	int64_t result = 0;
	int after = -1;
	char c = peek(r);

	jsonread_any(r, &text);
	if (r->bad || (c != '-' && (c < '0' || c > '9')))
		return false;
	for (size_t i = c == '-'; i < text.n && (text.at[i] | 0x20) != 'e' && after < 3; i++) {
		if (text.at[i] == '.') {
			after = 0;
			continue;
		}
		result = result * 10 + text.at[i] - '0';
		after += after >= 0;
		if (result > NUMBER_MAX)
			result = NUMBER_MAX;
	}
	for (after = after < 0 ? 0 : after; after < 3; after++)
		result *= 10;
	*value = c == '-' ? -result : result;
	return true;
}

bool jsonread_bool(struct jsonread *r, bool *value)
{
	struct jsonread_text text = { 0 };
	char c = peek(r);

	jsonread_any(r, &text);
	if (r->bad || (c != 't' && c != 'f'))
		return false;
	*value = c == 't';
	return true;
}

bool jsonread_end(struct jsonread *r)
{
	peek(r);
	return !r->bad && !r->depth && r->at == r->end;
}

/* UTF-8 of a code point; of what is none, and of NUL: of U+FFFD. Returns octets. */
static size_t encode(unsigned code, char out[4])
{
	if (!code || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff)
		code = 0xfffd;
	if (code < 0x80) {
		out[0] = (char)code;
		return 1;
	}
	size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
	for (size_t i = n - 1; i; i--, code >>= 6)
		out[i] = (char)(0x80 | (code & 0x3f));
	out[0] = (char)((n == 2 ? 0xc0 : n == 3 ? 0xe0 : 0xf0) | code);
	return n;
}

/* The code point of the escape at in. Returns octets that it has, with both halves of a pair. */
static size_t escaped(const char *in, const char *end, unsigned *code)
{
	static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
	const char *found = in[1] ? strchr(from, in[1]) : NULL;
	int low;

	*code = found ? (unsigned char)to[found - from] : (unsigned char)in[1];
	if (in[1] != 'u')
		return 2;
	*code = (unsigned)hex(in + 2);
	if (*code >> 10 != 0x36 || end - in < 12 || in[6] != '\\' || in[7] != 'u')
		return 6;
	low = hex(in + 8);
	if (low >> 10 != 0x37)
		return 6;
	*code = 0x10000 + ((*code & 0x3ff) << 10 | ((unsigned)low & 0x3ff));
	return 12;
}

size_t jsonread_unescape(const struct jsonread_text *text, char *out, size_t cap)
{
	const char *in = text->at, *end = in + (in ? text->n : 0);
	size_t len = 0, n, m;
	unsigned code;
	char made[4];

	while (in < end) {
		if (*in == '\\') {
			m = escaped(in, end, &code);
			n = encode(code, made);
		} else if ((m = n = json_utf8((const unsigned char *)in, (size_t)(end - in)))) {
			memcpy(made, in, n);
		} else {
			n = encode(0, made);
			m = 1;
		}
		if (len + n >= cap)
			break;
		memcpy(out + len, made, n);
		len += n;
		in += m;
	}
	out[len] = 0;
	return len;
}

bool jsonread_is(const struct jsonread_text *text, const char *literal)
{
	return text->at && strlen(literal) == text->n && !memcmp(text->at, literal, text->n);
}
