/* Text from strangers, made harmless for terminals and pages.
 */
#ifndef PLAIN_H
#define PLAIN_H

#include "pure/jsonread.h"

/* The string without escapes, in UTF-8: controls, and marks that change the direction of text, become U+FFFD. At most cap - 1 octets and
 * a NUL. Returns out. */
const char *plain_text(const struct jsonread_text *text, char *out, size_t cap);

/* The same with text that ends in a NUL, in its place. Returns text. cap: octets that there are for it. */
const char *plain_make(char *text, size_t cap);

/* What differs between replies that say the same folded, in place: each run of digits becomes "#", each mail address "@". Returns text. */
const char *plain_fold(char *text);

#endif
