/* Sites. See site.h for the contract. */
#define _GNU_SOURCE
#include "pure/site.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

void site_of_address(const union net_address *a, char site[STATEMAP_SITE])
{
	union net_address base = *a;
	char text[NET_TEXT];

	net_unmap(&base);
	if (base.sa.sa_family == AF_INET)
		base.v4.sin_addr.s_addr &= htonl(0xffffff00);
	else if (base.sa.sa_family == AF_INET6)
		memset(base.v6.sin6_addr.s6_addr + 6, 0, 10);
	if (base.sa.sa_family == AF_INET || base.sa.sa_family == AF_INET6)
		snprintf(site, STATEMAP_SITE, "%s/%d", net_text(&base, text), base.sa.sa_family == AF_INET ? 24 : 48);
	else
		snprintf(site, STATEMAP_SITE, "%s", "unix");
}

/* ---- providers ---- */

struct word {
	const char *at;
	size_t n;
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* The next word of the line, up to end. n is 0: there is none. */
static struct word next_word(const char **at, const char *end)
{
	struct word w;

	while (*at < end && is_blank(**at))
		++*at;
	w.at = *at;
	while (*at < end && !is_blank(**at))
		++*at;
	w.n = (size_t)(*at - w.at);
	if (w.n && *w.at == '#') { /* a comment: the rest of the line */
		w.n = 0;
		*at = end;
	}
	return w;
}

/* The next line: its end; *at moves to the one behind it. */
static const char *line_end(const char **at, const char *stop)
{
	const char *end = memchr(*at, '\n', (size_t)(stop - *at));

	*at = end ? end + 1 : stop;
	return end ? end : stop;
}

/* Whether the host name of n octets ends so; with a dot in front the rest of it may be the whole name. */
static bool ends_with(const char *host, size_t n, struct word end)
{
	if (end.n == n + 1 && *end.at == '.')
		return strncasecmp(end.at + 1, host, n) == 0;
	return *end.at == '.' ? end.n <= n && strncasecmp(host + n - end.n, end.at, end.n) == 0 :
				end.n == n && strncasecmp(host, end.at, n) == 0;
}

/* The provider of this line, if the host is one of its servers; n is 0: it is not. */
static struct word provider_in(const char *at, const char *end, const char *host, size_t n)
{
	struct word name = next_word(&at, end), suffix;

	while (name.n && (suffix = next_word(&at, end)).n)
		if (ends_with(host, n, suffix))
			return name;
	return (struct word){ NULL, 0 };
}

/* Of a name that is too long the end is kept: that is what its owner has registered, and the rest he may choose to look like another. */
static void put(char site[STATEMAP_SITE], const char *text, size_t n)
{
	if (n >= STATEMAP_SITE) {
		text += n - (STATEMAP_SITE - 1);
		n = STATEMAP_SITE - 1;
	}
	for (size_t i = 0; i < n; i++)
		site[i] = (char)(isgraph((unsigned char)text[i]) ? tolower((unsigned char)text[i]) : '?');
	site[n] = 0;
}

/* Whether such a name may be somebody's own: "example.org" is, "org" and "co.uk" are not. */
static bool is_owned(const char *name, size_t n)
{
	const char *dot = memchr(name, '.', n);
	size_t first = dot ? (size_t)(dot - name) : 0;

	return dot && (first > 3 || memchr(dot + 1, '.', n - first - 1));
}

bool site_of_name(const char *providers, size_t n, const char *host, char site[STATEMAP_SITE])
{
	size_t len = strlen(host);
	const char *rest, *line = providers, *at = providers, *stop = providers + n;

	if (len && host[len - 1] == '.')
		len--;
	for (; at < stop; line = at) {
		struct word provider = provider_in(line, line_end(&at, stop), host, len);

		if (provider.n) {
			put(site, provider.at, provider.n);
			return true;
		}
	}
	rest = memchr(host, '.', len);
	if (rest && is_owned(rest + 1, len - (size_t)(rest + 1 - host))) {
		len -= (size_t)(rest + 1 - host);
		host = rest + 1;
	}
	put(site, host, len);
	return false;
}

static const char *line_fault(const char *at, const char *end)
{
	struct word name = next_word(&at, end), suffix = { NULL, 0 };
	unsigned suffixes = 0;

	if (!name.n)
		return NULL;
	if (name.n >= STATEMAP_SITE)
		return "the name is too long";
	while ((suffix = next_word(&at, end)).n) {
		if (suffix.n == 1 || memchr(suffix.at, '*', suffix.n))
			return "a host name, or a dot and the end of host names, is needed";
		suffixes++;
	}
	return suffixes ? NULL : "a name and the ends of host names are needed";
}

unsigned site_check(const char *providers, size_t n, const char **why)
{
	const char *line = providers, *at = providers, *stop = providers + n;

	for (unsigned number = 1; at < stop; number++, line = at) {
		*why = line_fault(line, line_end(&at, stop));
		if (*why)
			return number;
	}
	return 0;
}
