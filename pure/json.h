/* Writes one JSON object into a fixed buffer (RFC 8259). If something does not fit, the whole object is `full`. Bytes that are
 * not UTF-8 become U+FFFD, so the result is valid whatever a peer sent.
 */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json {
	char *out; /* the caller's buffer */
	size_t len, cap;
	bool full;  /* it did not fit: do not use out */
	bool comma; /* the next member needs one before it */
};

void json_begin(struct json *j, char *out, size_t cap);

/* Members of the innermost object or array. name: NULL inside an array. text need not end with a NUL. */
void json_open(struct json *j, const char *name, char bracket);
void json_close(struct json *j, char bracket);
void json_bytes(struct json *j, const char *name, const void *text, size_t n);
void json_string(struct json *j, const char *name, const char *text); /* NULL: null */
void json_number(struct json *j, const char *name, uint64_t value);
void json_signed(struct json *j, const char *name, int64_t value);
void json_bool(struct json *j, const char *name, bool value);
void json_null(struct json *j, const char *name);

/* Microseconds, written as milliseconds with three decimals; below 0: null. */
void json_ms(struct json *j, const char *name, int64_t us);

/* Octets of the UTF-8 character at in, which has n > 0 octets; 0 if it is malformed: overlong, a surrogate, beyond U+10FFFF (RFC 3629 4). */
size_t json_utf8(const unsigned char *in, size_t n);

/* The name of a member, n octets from a peer; its value follows. */
void json_name(struct json *j, const void *name, size_t n);

/* Make a finished object of n octets fit into max, where that is more than its outermost members alone: long strings are cut and end in
 * "...", and objects and arrays inside lose their last members, the more the less room there is. Returns octets. */
size_t json_shorten(char *text, size_t n, size_t max);

/* Close the object and add a newline. Returns octets; 0 if it did not fit. */
size_t json_end(struct json *j);

#endif
