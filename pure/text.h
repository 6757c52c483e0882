/* Texts in string literals: numbers in them, and many in one.
 */
#ifndef TEXT_H
#define TEXT_H

#include <stddef.h>
#include <string.h>

/* A number in a text: "can be given " TEXT_OF(OPTIONS_PROXY_MAX) " times". The constant must be a plain number, not an expression. */
#define TEXT_OF(constant) TEXT_OF_NUMBER(constant)
#define TEXT_OF_NUMBER(number) #number

/* The n-th, from 0 on, of texts that stand one behind the other: "one\0" "two". It is for large tables: a pointer to each text costs a
 * relocation as well, 32 octets together. */
static inline const char *text_nth(const char *texts, size_t n)
{
	for (; n; n--)
		texts += strlen(texts) + 1;
	return texts;
}

#endif
