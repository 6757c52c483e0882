/* The command line of a sub-command: options, each "--name value" or "--name=value", and operands. What is wrong with it ends the program
 * with status 64, sysexits(3).
 */
#ifndef ARGUMENTS_H
#define ARGUMENTS_H

#include <stdbool.h>
#include <stdint.h>

struct arguments {
	char **next; /* those that are left, before a NULL */
	const char *value; /* "--name=value", until it is taken */
	bool operands_only; /* "--" was there */
};

/* The next one. Returns the option's name without "--", or NULL: it is an operand, in *operand; at the end that is NULL, too. */
const char *arguments_next(struct arguments *a, char **operand);

/* The option's value. */
const char *arguments_value(struct arguments *a, const char *option);

/* The option's value as a number in these bounds. */
unsigned arguments_number(struct arguments *a, const char *option, unsigned min, unsigned max);

/* It takes none, or is unknown, or something else is wrong with what was given. */
void arguments_flag(const struct arguments *a, const char *option);
_Noreturn void arguments_unknown(const char *option);
_Noreturn void arguments_wrong(const char *given, const char *why);

#endif
