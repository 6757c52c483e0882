/* HOST:PORT and names of servers. See endpoint.h for the contract. */
#include "pure/endpoint.h"

#include <stdio.h>
#include <string.h>

const char *endpoint_number(const char *value, uint64_t least, uint64_t most, uint64_t *n)
{
	static char want[80];
	bool fits = *value != 0;

	for (*n = 0; *value >= '0' && *value <= '9'; value++) {
		unsigned digit = (unsigned)(*value - '0');

		fits = fits && *n <= (UINT64_MAX - digit) / 10;
		*n = *n * 10 + digit;
	}
	if (fits && !*value && *n >= least && *n <= most)
		return NULL;
	snprintf(want, sizeof want, "takes a number from %llu to %llu", (unsigned long long)least,
	    (unsigned long long)most);
	return want;
}

bool endpoint_is_host(const char *host)
{
	union net_address a;

	return net_parse(host, 0, &a) || strcmp(host, "*") == 0 ||
	    !host[strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")];
}

bool endpoint_split(const char *value, char *host, size_t cap, uint16_t standard, uint16_t *port)
{
	const char *colon = strrchr(value, ':'), *end;
	uint64_t number = standard;

	if (colon && *value != '[' && strchr(value, ':') != colon)
		colon = NULL; /* an IPv6 address without brackets */
	if (colon && strchr(colon, ']'))
		colon = NULL;
	end = colon ? colon : value + strlen(value);
	if (colon ? endpoint_number(colon + 1, 1, 65535, &number) != NULL : standard == 0)
		return false;
	if (*value == '[') {
		if (end == value || end[-1] != ']')
			return false;
		value++;
		end--;
	}
	if (end == value || (size_t)(end - value) >= cap)
		return false;
	memcpy(host, value, (size_t)(end - value));
	host[end - value] = 0;
	*port = (uint16_t)number;
	return endpoint_is_host(host);
}

const char *endpoint_upstream(struct upstream *u, const char *value)
{
	size_t n = strlen(value);
	char copy[sizeof u->host + 16];

	if (n >= sizeof copy)
		return "names a host that is too long";
	if (strncmp(value, "lmtp:unix:/", 11) == 0 && n < 10 + NET_PATH_MAX) {
		*u = (struct upstream){ .lmtp = true };
		strcpy(u->host, value + 10);
		return NULL;
	}
	memcpy(copy, value, n + 1);
	if (n && copy[n - 1] == '/')
		copy[n - 1] = 0;
	u->implicit_tls = strncmp(copy, "smtps://", 8) == 0;
	u->lmtp = strncmp(copy, "lmtp://", 7) == 0;
	value = u->implicit_tls ? copy + 8 : u->lmtp || strncmp(copy, "smtp://", 7) == 0 ? copy + 7 : copy;
	if (strchr(value, '/') || strchr(value, '*') ||
	    !endpoint_split(value, u->host, sizeof u->host, u->implicit_tls ? 465 : u->lmtp ? 24 : 25, &u->port))
		return "takes " ENDPOINT_WORDS;
	return NULL;
}
