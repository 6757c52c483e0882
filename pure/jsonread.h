/* Reads JSON (RFC 8259) in one pass, where it lies: no tree, no copy, no heap. The caller asks for one value after the other; what it
 * does not want it skips. Grammar is checked all the same, nesting up to JSONREAD_DEPTH. Octets of strings are taken as they are:
 * json_utf8() tells whether they are UTF-8.
 *
 *	jsonread_begin(&r, line, n);
 *	if (jsonread_object(&r))
 *		while (jsonread_member(&r, &name))
 *			jsonread_string(&r, &value);	or another one that takes a value
 *	good = jsonread_end(&r);
 */
#ifndef JSONREAD_H
#define JSONREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSONREAD_DEPTH 16

struct jsonread {
	const char *at, *end; /* what is left */
	unsigned depth;
	bool first; /* no member or element of this object or array has been read */
	bool bad;   /* this is no JSON: everything returns false from now on */
};

/* A string between its quotes, escapes and all, or any other value as it stands; at NULL: there is none. */
struct jsonread_text {
	const char *at;
	size_t n;
};

/* n octets, which the caller keeps. */
void jsonread_begin(struct jsonread *r, const char *text, size_t n);

/* Go into the object or array that comes next. false: it is another value, which is skipped. */
bool jsonread_object(struct jsonread *r);
bool jsonread_array(struct jsonread *r);

/* Whether the next value is an object. */
bool jsonread_at_object(struct jsonread *r);

/* Go to the next member of the object, or element of the array; its value is to be taken then. false: that was the last. */
bool jsonread_member(struct jsonread *r, struct jsonread_text *name);
bool jsonread_element(struct jsonread *r);

/* Take a value. false: it is of another kind, and is skipped; *text, *number and *value stay as they were. */
bool jsonread_string(struct jsonread *r, struct jsonread_text *text);
bool jsonread_thousandths(struct jsonread *r, int64_t *number); /* 1.5 is 1500; what is beyond 10^15, or finer, is cut */
bool jsonread_bool(struct jsonread *r, bool *value);

/* Take any value, as it stands. */
void jsonread_any(struct jsonread *r, struct jsonread_text *value);

/* Whether all of the text was one JSON value. */
bool jsonread_end(struct jsonread *r);

/* Write the string without escapes, in UTF-8, at most cap - 1 octets and a NUL; what is more is cut. Octets that are no UTF-8 become
 * U+FFFD, and so does NUL. Returns octets. */
size_t jsonread_unescape(const struct jsonread_text *text, char *out, size_t cap);

/* Whether the string, which has no escapes, is this word. */
bool jsonread_is(const struct jsonread_text *text, const char *word);

#endif
