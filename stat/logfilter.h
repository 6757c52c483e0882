/* Which records, and which recipients in them, `query` and `report` look at.
 */
#ifndef LOGFILTER_H
#define LOGFILTER_H

#include "pure/address.h"
#include "stat/logrecord.h"

/* All zero: everything. Texts are the caller's. */
struct logfilter {
	int64_t since, until; /* seconds since 1970; 0: no limit. Until: not included */
	const char *site, *class, *code; /* code: three characters, of which the last may be "x" */
	const char *from, *to, *text;	 /* patterns of fnmatch(3), in any case of letters */
	const char *session;
	struct net_block client;
	bool by_client;
};

/* The options that set one: --NAME TEXT, and what --help says of TEXT. */
#define LOGFILTER_OPTIONS(X)                                                                                           \
	X("since", "TIME", "from this time on: 2026-11-28, 2026-11-28T12:50 (UTC), or 90m, 24h, 7d ago")                \
	X("until", "TIME", "before this time")                                                                         \
	X("site", "NAME", "of this site")                                                                              \
	X("class", "NAME", "recipients and refusals of this class")                                                    \
	X("code", "CODE", "with this reply code: 421, 42x or 4xx")                                                     \
	X("from", "GLOB", "of senders like this")                                                                      \
	X("to", "GLOB", "to recipients like this")                                                                     \
	X("client", "CIDR", "of this client or network of clients")                                                    \
	X("session", "ID", "of this session")                                                                          \
	X("text", "GLOB", "with a reply like this")

/* Set it by an option, "since" for instance. now: seconds since 1970. NULL, or why not: static storage, "" if there is no such option. */
const char *logfilter_set(struct logfilter *f, const char *option, const char *value, int64_t now);

/* Whether the filter asks for properties of single recipients or refusals. */
bool logfilter_is_fine(const struct logfilter *f);

/* Whether the record as such is wanted; and this outcome in it. */
bool logfilter_record(const struct logfilter *f, const struct logrecord *r);
bool logfilter_outcome(const struct logfilter *f, const struct logrecord_outcome *o);

#endif
