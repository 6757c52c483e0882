/* The command line. See arguments.h for the contract. */
#include "stat/arguments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#define NAME_MAX_LENGTH 32

_Noreturn void arguments_wrong(const char *given, const char *why)
{
	fprintf(stderr, "smtpwarp-stat: %s %s; see smtpwarp-stat --help\n", given, why);
	exit(EX_USAGE);
}

const char *arguments_next(struct arguments *a, char **operand)
{
	static char name[NAME_MAX_LENGTH];
	char *next = *a->next;

	*operand = NULL;
	a->value = NULL;
	if (!next)
		return NULL;
	a->next++;
	if (!a->operands_only && !strcmp(next, "--")) {
		a->operands_only = true;
		return arguments_next(a, operand);
	}
	if (a->operands_only || strncmp(next, "--", 2)) {
		*operand = next;
		return NULL;
	}
	size_t n = strcspn(next + 2, "=");
	if (n >= sizeof name)
		arguments_unknown(next + 2);
	snprintf(name, sizeof name, "%.*s", (int)n, next + 2);
	if (next[2 + n])
		a->value = next + 3 + n;
	return name;
}

const char *arguments_value(struct arguments *a, const char *option)
{
	char given[NAME_MAX_LENGTH + 2];

	if (!a->value && *a->next)
		a->value = *a->next++;
	snprintf(given, sizeof given, "--%s", option);
	if (!a->value)
		arguments_wrong(given, "needs a value");
	return a->value;
}

unsigned arguments_number(struct arguments *a, const char *option, unsigned min, unsigned max)
{
	const char *value = arguments_value(a, option);
	char *end, why[80];
	unsigned long n = strtoul(value, &end, 10);

	if (*value >= '0' && *value <= '9' && !*end && n >= min && n <= max)
		return (unsigned)n;
	snprintf(why, sizeof why, "is no number from %u to %u", min, max);
	arguments_wrong(value, why);
}

void arguments_flag(const struct arguments *a, const char *option)
{
	if (a->value)
		arguments_wrong(option, "takes no value");
}

_Noreturn void arguments_unknown(const char *option)
{
	char given[NAME_MAX_LENGTH + 2];

	snprintf(given, sizeof given, "--%.*s", NAME_MAX_LENGTH - 1, option);
	arguments_wrong(given, "is no option here");
}
