/* A route: where a session goes, from where, and how; its parts from text, lines of --routes included. Pure: bytes in, values out. */
#ifndef ROUTE_H
#define ROUTE_H

#include "pure/options.h"

/* Where to, from where, and how: options, as verdicts and --routes change them. */
struct route {
	struct upstream upstream; /* host "": --upstream, or the original destination */
	union net_address source4, source6; /* AF_UNSPEC: none was asked for */
	enum tls_level tls;
	bool tls_given;	    /* by a verdict, so that --routes has no say */
	char tls_name[256]; /* "": none given */
	char others[256];   /* servers to try after upstream, separated by blanks or commas */
};

/* A line's fields, trimmed and NUL-terminated. They lead into the caller's line, or to "". */
struct routes_line {
	const unsigned char *pattern;
	size_t pattern_len;
	const char *server, *tls;
};

/* Parts of a route from text, as options and verdicts give them. false: it is none. */
bool route_source(struct route *r, const char *text);
bool route_upstream(struct route *r, const char *text);

/* The nth server of a route, from 0 on. NULL: there is none; *u is where it may be put. host "": it cannot be read. */
const struct upstream *route_server(const struct route *r, unsigned n, struct upstream *u);

/* Whether two routes lead to the same servers in the same way. */
bool route_is_same(const struct route *a, const struct route *b);

/* What a line of --routes says, where verdicts of hooks have not said it, into the struct route at *route: a routes_judge. NULL, or
 * what is wrong with the line. */
const char *route_take_line(const struct routes_line *line, void *route);

/* The same for a line on its own: a routes_judge. arg: the options. */
const char *route_check_line(const struct routes_line *line, void *arg);

#endif
