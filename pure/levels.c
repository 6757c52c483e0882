/* Words for TLS. See levels.h for the contract. */
#include "pure/levels.h"

#include <string.h>

static const char *const level_names[] = {
#define X(level, name) name,
	TLS_LEVELS(X)
#undef X
};

static const char *const client_names[] = {
#define X(how, name) name,
	CLIENT_TLS(X)
#undef X
};

#define COUNT(array) (sizeof array / sizeof *array)

/* Index of the word, or count: it is not there. */
static unsigned find_name(const char *name, const char *const names[], unsigned first, unsigned count)
{
	unsigned i = first;

	while (i < count && strcmp(name, names[i]) != 0)
		i++;
	return i;
}

const char *tls_level_name(enum tls_level level)
{
	return level_names[level];
}

bool tls_level_parse(const char *name, enum tls_level *level)
{
	unsigned i = find_name(name, level_names, 0, COUNT(level_names));

	if (i == COUNT(level_names))
		return false;
	*level = (enum tls_level)i;
	return true;
}

bool tls_level_verifies(enum tls_level level)
{
	return level == TLS_OFFERED || level == TLS_VERIFY;
}

const char *client_tls_name(enum client_tls how)
{
	return client_names[how];
}

bool client_tls_parse(const char *name, enum client_tls *how)
{
	unsigned i = find_name(name, client_names, CLIENT_TLS_MAY, COUNT(client_names));

	if (i == COUNT(client_names))
		return false;
	*how = (enum client_tls)i;
	return true;
}
