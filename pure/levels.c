/* Words for TLS. See levels.h for the contract. */
#include "pure/levels.h"

#include <string.h>

static const char level_names[][18] = {
#define X(level, name) name,
	TLS_LEVELS(X)
#undef X
};

static const char client_names[][12] = {
#define X(how, name) name,
	CLIENT_TLS(X)
#undef X
};

const char *tls_level_name(enum tls_level level)
{
	return level_names[level];
}

bool tls_level_parse(const char *name, enum tls_level *level)
{
	for (unsigned i = 0; i < sizeof level_names / sizeof *level_names; i++)
		if (strcmp(name, level_names[i]) == 0) {
			*level = (enum tls_level)i;
			return true;
		}
	return false;
}

bool tls_level_verifies(enum tls_level level)
{
	return level == TLS_OFFERED || level == TLS_VERIFY;
}

const char *client_tls_name(enum client_tls how)
{
	return client_names[how];
}
