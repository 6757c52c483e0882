/* The table of `top`: its columns, as many as there is room for, and its order.
 */
#ifndef TOPVIEW_H
#define TOPVIEW_H

#include "stat/snapshot.h"

/* What rows are ordered by, the highest first. */
#define TOPVIEW_ORDERS(X) X(STATE, "state") X(RATE, "messages a second") X(MESSAGES, "messages") X(REFUSED, "share refused") X(DELAY, "time to 354")

enum topview_order {
#define X(order, name) TOPVIEW_BY_##order,
	TOPVIEW_ORDERS(X)
#undef X
	TOPVIEW_ORDERS_END
};

/* A row and what is computed of it. */
struct topview_row {
	const struct snapshot_row *row;
	uint64_t messages, recipients, refused; /* recipients of them that were refused */
	uint64_t tries, accepted, deferred;	/* messages, and connections that a greeting refused */
	enum reply_class class; /* the most frequent one of refusals, where those of no recipient are like the last; REPLY_OK: there is none */
	double rate;		/* messages a second since the snapshot before; below 0: there was none */
	double p50, p95;	/* milliseconds to 354; below 0: there are none */
	uint64_t hold;		/* seconds */
};

/* All rows of a snapshot, in order. before: the one before it, for rates, or NULL. base: what is counted is counted from this one on; NULL:
 * from the beginning. Static storage; *n: how many. */
struct topview_row *topview_rows(const struct snapshot *s, const struct snapshot *before, const struct snapshot *base,
    enum topview_order order, unsigned *n);

const char *topview_order_name(enum topview_order order);

/* The heading, or a row, as a line of at most `width` columns and a NUL. */
#define TOPVIEW_LINE 1024
void topview_heading(char line[TOPVIEW_LINE], unsigned width);
void topview_line(const struct topview_row *r, char line[TOPVIEW_LINE], unsigned width);

#endif
