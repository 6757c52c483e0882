/* Routes. See route.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "pure/route.h"
#include "smtp.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

bool route_source(struct route *r, const char *text)
{
	union net_address a;

	if (!net_parse(text, 0, &a))
		return false;
	if (a.sa.sa_family == AF_INET6)
		r->source6 = a;
	else
		r->source4 = a;
	return true;
}

bool route_upstream(struct route *r, const char *text)
{
	return endpoint_upstream(&r->upstream, text) == NULL;
}

const struct upstream *route_server(const struct route *r, unsigned n, struct upstream *u)
{
	static const char between[] = " \t,";
	const char *at = r->others + strspn(r->others, between);
	char item[sizeof r->others];

	if (!n)
		return &r->upstream;
	while (--n) {
		at += strcspn(at, between);
		at += strspn(at, between);
	}
	snprintf(item, sizeof item, "%.*s", (int)strcspn(at, between), at);
	if (endpoint_upstream(u, item))
		u->host[0] = 0;
	return *item ? u : NULL;
}

static bool same_source(const union net_address *a, const union net_address *b)
{
	return a->sa.sa_family == b->sa.sa_family && (a->sa.sa_family == AF_UNSPEC || net_same_host(a, b));
}

/* Compares names, or paths of Unix sockets. */
static bool same_server(const char *a, const char *b)
{
	return (*a == '/' ? strcmp(a, b) : strcasecmp(a, b)) == 0;
}

bool route_is_same(const struct route *a, const struct route *b)
{
	return same_server(a->upstream.host, b->upstream.host) && a->upstream.port == b->upstream.port &&
	    a->upstream.implicit_tls == b->upstream.implicit_tls && a->upstream.lmtp == b->upstream.lmtp && a->tls == b->tls &&
	    strcmp(a->tls_name, b->tls_name) == 0 && strcmp(a->others, b->others) == 0 &&
	    same_source(&a->source4, &b->source4) && same_source(&a->source6, &b->source6);
}

static const char *set_servers(struct route *r, const char *servers)
{
	size_t first = strcspn(servers, " \t,");
	char text[sizeof r->upstream.host + 16];
	const struct upstream *server;
	struct upstream other;

	snprintf(text, sizeof text, "%.*s", (int)first, servers);
	if (strlen(servers + first) >= sizeof r->others)
		return "its list of servers is too long";
	strcpy(r->others, servers + first);
	if (first < sizeof text && route_upstream(r, text))
		for (unsigned n = 0;; n++) {
			server = route_server(r, n, &other);
			if (!server)
				return NULL;
			if (!server->host[0])
				break;
		}
	return "its server must be " ENDPOINT_WORDS;
}

/* Booleans as in Willi, which are Go's. If TLS is offered, true verifies the certificate and false does not; if it is not, both
 * go on in plain text. */
static bool take_boolean(const char *text, size_t n, enum tls_level *level)
{
	static const char words[][6] = { "true", "t", "1", "false", "f", "0" };

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (smtp_is((const unsigned char *)text, n, words[i])) {
			*level = i < 3 ? TLS_OFFERED : TLS_MAY;
			return true;
		}
	return false;
}

static const char *set_level(struct route *r, const char *text)
{
	size_t n = strcspn(text, " \t");
	const char *name = text + n + strspn(text + n, " \t");
	char level[24];

	snprintf(level, sizeof level, "%.*s", (int)(n < sizeof level ? n : 0), text);
	if (!take_boolean(text, n, &r->tls) && !tls_level_parse(level, &r->tls))
		return "its tls_verify must be true, false, " TLS_LEVEL_WORDS ", with a name or not, or nothing";
	if (strlen(name) >= sizeof r->tls_name || name[strcspn(name, " \t")])
		return "its tls_verify has a name that can be none";
	strcpy(r->tls_name, name);
	return NULL;
}

/* verify needs a name to look for in the certificate. So does verify-if-offered, but there it may be missing: Willi's files
 * have addresses, and true is its default. */
static bool lacks_name(const struct route *r)
{
	const struct upstream *server;
	struct upstream other;

	if (r->tls != TLS_VERIFY || r->tls_name[0])
		return false;
	for (unsigned n = 0; (server = route_server(r, n, &other)); n++)
		if (!net_is_name(server->host))
			return true;
	return false;
}

const char *route_take_line(const struct routes_line *line, void *route)
{
	struct route *r = route;
	const char *fault = set_servers(r, line->server);

	if (!fault && *line->tls && !r->tls_given)
		fault = set_level(r, line->tls);
	if (!fault && !r->tls_given && lacks_name(r))
		fault = "a certificate cannot be verified for an address: write verify NAME, or the server's name";
	return fault;
}

const char *route_check_line(const struct routes_line *line, void *arg)
{
	const struct options *o = arg;
	struct route r = { .tls = o->tls };

	snprintf(r.tls_name, sizeof r.tls_name, "%s", o->tls_name ? o->tls_name : "");
	return route_take_line(line, &r);
}
