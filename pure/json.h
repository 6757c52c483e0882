/* Writes one JSON object into a fixed buffer (RFC 8259). What does not fit makes the whole object `full`; bytes that
 * are not UTF-8 become U+FFFD, so that the result is always valid whatever a peer sent.
 */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json {
	char *out; /* the caller's */
	size_t len, cap;
	bool full;  /* it did not fit: out is not to be used */
	bool comma; /* the next member needs one */
};

void json_begin(struct json *j, char *out, size_t cap);

/* Members of the object or array that is open. name: NULL inside an array. text need not be NUL-terminated. */
void json_open(struct json *j, const char *name, char bracket);
void json_close(struct json *j, char bracket);
void json_bytes(struct json *j, const char *name, const void *text, size_t n);
void json_string(struct json *j, const char *name, const char *text); /* NULL: null */
void json_number(struct json *j, const char *name, uint64_t value);
void json_signed(struct json *j, const char *name, int64_t value);
void json_bool(struct json *j, const char *name, bool value);
void json_null(struct json *j, const char *name);

/* Microseconds as milliseconds with three decimals; less than 0: null. */
void json_ms(struct json *j, const char *name, int64_t us);

/* A member whose name is bytes of a peer. */
void json_name(struct json *j, const void *name, size_t n);

/* Close the object and add a newline. Returns octets, 0 if it did not fit. */
size_t json_end(struct json *j);

#endif
