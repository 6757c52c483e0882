/* The table of `top`. See topview.h for the contract. */
#include "stat/topview.h"

#include "pure/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CELL 64
#define SITE_MIN 12
#define SITE_MAX 40

enum column { STATE, HOLD, RATE, OK, CLASS, P95, SOURCE, DEFERRED, MESSAGES, P50, COLUMNS };

/* The first ones stay longest when there is little room. `place`: from the left, behind the site. */
static const struct {
	const char *title;
	unsigned width, place;
} columns[COLUMNS] = { [STATE] = { "STATE", 9, 8 }, [HOLD] = { "HOLD", 6, 9 }, [RATE] = { "MSG/S", 7, 2 }, [OK] = { "OK%", 5, 3 },
	[CLASS] = { "CLASS", 13, 5 }, [P95] = { "P95", 7, 7 }, [SOURCE] = { "SOURCE", 15, 0 }, [DEFERRED] = { "4XX%", 5, 4 },
	[MESSAGES] = { "MSG", 9, 1 }, [P50] = { "P50", 7, 6 } };

static const char *const orders[] = {
#define X(order, name) name,
	TOPVIEW_ORDERS(X)
#undef X
};

const char *topview_order_name(enum topview_order order)
{
	return orders[order];
}

static uint64_t messages_of(const struct snapshot_row *r)
{
	uint64_t messages = 0;

	for (unsigned i = STATEMAP_MESSAGE_ACCEPTED; i <= STATEMAP_MESSAGE_UNKNOWN; i++)
		messages += r->counter[i];
	return messages;
}

static const struct snapshot_row *same_row(const struct snapshot *s, const struct snapshot_row *r)
{
	for (unsigned i = 0; s && i < s->rows; i++)
		if (!strcmp(s->row[i].site, r->site) && !strcmp(s->row[i].source, r->source))
			return &s->row[i];
	return NULL;
}

/* Refusals that are none of a recipient, whose classes nobody counts. */
static uint64_t refused_before_rcpt(const struct snapshot_row *r)
{
	static const enum reply_stage stages[] = { REPLY_AT_BANNER, REPLY_AT_EHLO, REPLY_AT_MAIL };
	uint64_t n = 0;

	for (unsigned i = 0; i < sizeof stages / sizeof *stages; i++)
		n += r->counter[STATEMAP_REPLY + 2 * stages[i]] + r->counter[STATEMAP_REPLY + 2 * stages[i] + 1];
	return n;
}

static uint64_t minus(uint64_t n, uint64_t base)
{
	return n > base ? n - base : 0;
}

/* base: the same row earlier; NULL: there was none. A slot that another site had meanwhile counts from its own beginning. */
static void subtract(struct snapshot_row *r, const struct snapshot_row *base)
{
	if (!base || base->first != r->first)
		return;
	for (unsigned i = 0; i < STATEMAP_COUNTERS_END; i++)
		r->counter[i] = minus(r->counter[i], base->counter[i]);
	for (unsigned i = 0; i < STATEMAP_BUCKET_COUNT; i++)
		r->bucket[STATEMAP_PHASE_DATA][i] = minus(r->bucket[STATEMAP_PHASE_DATA][i], base->bucket[STATEMAP_PHASE_DATA][i]);
}

/* c: of this row, what counts. */
static void compute_counts(struct topview_row *t, const struct snapshot_row *c)
{
	uint64_t most = c->said ? refused_before_rcpt(c) : 0;

	t->class = most ? c->class : REPLY_OK;
	t->messages = messages_of(c);
	t->tries = t->messages + c->counter[STATEMAP_CONNECT_BANNER];
	t->accepted = c->counter[STATEMAP_MESSAGE_ACCEPTED];
	t->deferred = c->counter[STATEMAP_MESSAGE_DEFERRED] + c->counter[STATEMAP_REPLY + 2 * REPLY_AT_BANNER];
	for (unsigned i = 0; i < REPLY_CLASSES_END; i++) {
		uint64_t n = c->counter[STATEMAP_RECIPIENT + i];
		t->recipients += n;
		t->refused += i == REPLY_OK ? 0 : n;
		if (i != REPLY_OK && n > most) {
			most = n;
			t->class = (enum reply_class)i;
		}
	}
	t->p50 = snapshot_percentile(c->bucket[STATEMAP_PHASE_DATA], 50);
	t->p95 = snapshot_percentile(c->bucket[STATEMAP_PHASE_DATA], 95);
}

static void compute(struct topview_row *t, const struct snapshot_row *r, const struct snapshot *s, const struct snapshot *before,
    const struct snapshot *base)
{
	const struct snapshot_row *old = same_row(before, r);
	struct snapshot_row counted = *r;

	*t = (struct topview_row){ .row = r, .rate = -1 };
	subtract(&counted, same_row(base, r));
	compute_counts(t, &counted);
	if (old && s->now > before->now && messages_of(r) >= messages_of(old))
		t->rate = (double)(messages_of(r) - messages_of(old)) * 1e6 / (double)(s->now - before->now);
	t->hold = r->detector.until > s->now ? (r->detector.until - s->now) / 1000000 : 0;
}

static enum topview_order sorted_by;

static double key(const struct topview_row *r)
{
	switch (sorted_by) {
	case TOPVIEW_BY_STATE:
		return r->row->detector.state;
	case TOPVIEW_BY_RATE:
		return r->rate;
	case TOPVIEW_BY_REFUSED:
		return r->tries ? (double)(r->tries - r->accepted) / (double)r->tries : 0;
	case TOPVIEW_BY_DELAY:
		return r->p95;
	case TOPVIEW_BY_MESSAGES:
	case TOPVIEW_ORDERS_END:
		break;
	}
	return (double)r->messages;
}

static int compare(const void *a, const void *b)
{
	const struct topview_row *one = a, *other = b;
	double k1 = key(one), k2 = key(other);

	if (k1 < k2 || k1 > k2)
		return k1 < k2 ? 1 : -1;
	if (one->messages != other->messages)
		return one->messages < other->messages ? 1 : -1;
	return one->row < other->row ? -1 : 1;
}

struct topview_row *topview_rows(const struct snapshot *s, const struct snapshot *before, const struct snapshot *base,
    enum topview_order order, unsigned *n)
{
	static struct topview_row rows[STATEMAP_SLOTS];

	for (*n = 0; *n < s->rows; ++*n)
		compute(&rows[*n], &s->row[*n], s, before, base);
	sorted_by = order;
	qsort(rows, *n, sizeof *rows, compare);
	return rows;
}

static void show_ms(char cell[CELL], double ms)
{
	if (ms < 0)
		strcpy(cell, "-");
	else
		snprintf(cell, CELL, ms < 1000 ? "%.0fms" : "%.1fs", ms < 1000 ? ms : ms / 1000);
}

static void show_share(char cell[CELL], uint64_t part, uint64_t of)
{
	if (of)
		snprintf(cell, CELL, "%.0f", 100 * (double)(part < of ? part : of) / (double)of);
	else
		strcpy(cell, "-");
}

static void show_cell(const struct topview_row *r, enum column column, char cell[CELL])
{
	switch (column) {
	case STATE:
		snprintf(cell, CELL, "%s", detector_state_name(r->row->detector.state));
		break;
	case HOLD:
		snprintf(cell, CELL, r->hold ? "%llus" : "-", (unsigned long long)r->hold);
		break;
	case RATE:
		snprintf(cell, CELL, r->rate < 0 ? "-" : "%.1f", r->rate);
		break;
	case OK:
		show_share(cell, r->accepted, r->tries);
		break;
	case CLASS:
		snprintf(cell, CELL, "%s", r->class == REPLY_OK ? "-" : replyclass_name(r->class));
		break;
	case P50:
	case P95:
		show_ms(cell, column == P50 ? r->p50 : r->p95);
		break;
	case SOURCE:
		snprintf(cell, CELL, "%.48s", r->row->source);
		break;
	case DEFERRED:
		show_share(cell, r->deferred, r->tries);
		break;
	case MESSAGES:
		snprintf(cell, CELL, "%llu", (unsigned long long)r->messages);
		break;
	case COLUMNS:
		break;
	}
}

/* Add a cell of so many columns, each a character; one that is too long is cut. */
static void add(char line[TOPVIEW_LINE], const char *cell, unsigned width, bool right)
{
	size_t len = strlen(line), octets = 0, n;
	unsigned shown = 0;

	while (cell[octets] && shown < width && (n = json_utf8((const unsigned char *)cell + octets, strlen(cell + octets)))) {
		octets += n;
		shown++;
	}
	snprintf(line + len, TOPVIEW_LINE - len, "%*s%.*s%*s", right ? (int)(width - shown) : 0, "", (int)octets, cell,
	    right ? 0 : (int)(width - shown), "");
}

static void make_line(const struct topview_row *r, char line[TOPVIEW_LINE], unsigned width)
{
	unsigned site = SITE_MIN, shown;
	char cell[CELL];

	for (shown = 0; shown < COLUMNS && site + columns[shown].width + 1 <= width; shown++)
		site += columns[shown].width + 1;
	site = width > site ? SITE_MIN + width - site : SITE_MIN;
	site = site > SITE_MAX ? SITE_MAX : site > width ? width : site;
	*line = 0;
	add(line, r ? r->row->site : "SITE", site, false);
	for (unsigned place = 0; place < COLUMNS; place++)
		for (unsigned c = 0; c < shown; c++)
			if (columns[c].place == place) {
				bool left = c == SOURCE || c == CLASS || c == STATE;
				strcat(line, " ");
				if (r)
					show_cell(r, (enum column)c, cell);
				add(line, r ? cell : columns[c].title, columns[c].width, !left);
			}
}

void topview_heading(char line[TOPVIEW_LINE], unsigned width)
{
	make_line(NULL, line, width);
}

void topview_line(const struct topview_row *r, char line[TOPVIEW_LINE], unsigned width)
{
	make_line(r, line, width);
}
