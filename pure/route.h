/* A route: where a session goes, from where, and how. Reads its parts from text, lines of --routes included. Pure: bytes in,
 * values out. */
#ifndef ROUTE_H
#define ROUTE_H

#include "pure/options.h"

/* What options say, as changed by verdicts and --routes. */
struct route {
	struct upstream upstream; /* host "": --upstream, or the original destination */
	union net_address source4, source6; /* AF_UNSPEC: none was asked for */
	enum tls_level tls;
	bool tls_given;	    /* a verdict has set the level: --routes does not change it */
	char tls_name[256]; /* "": none given */
	char others[256];   /* servers to try after upstream, separated by blanks or commas */
};

/* A line's fields, trimmed and NUL-terminated. They lead into the caller's line, or to "". */
struct routes_line {
	const unsigned char *pattern;
	size_t pattern_len;
	const char *server, *tls;
};

/* Set a part of the route from text, as options and verdicts write it. false: the text is malformed. */
bool route_source(struct route *r, const char *text);
bool route_upstream(struct route *r, const char *text);

/* The nth server of a route, counted from 0; NULL: there are not so many. It may be put into *u. host "": its text is
 * malformed. */
const struct upstream *route_server(const struct route *r, unsigned n, struct upstream *u);

/* Whether two routes lead to the same servers in the same way. */
bool route_is_same(const struct route *a, const struct route *b);

/* A routes_judge. Takes what a line of --routes says into the struct route at *route, except what verdicts of hooks have set.
 * Returns NULL, or what is wrong with the line. */
const char *route_take_line(const struct routes_line *line, void *route);

/* A routes_judge that only checks a line. arg: the struct options. */
const char *route_check_line(const struct routes_line *line, void *arg);

#endif
