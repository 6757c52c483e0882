/* Metrics. See exposition.h for the contract. Names and labels of counters are those of pure/statemap.h. */
#define _POSIX_C_SOURCE 200809L
#include "stat/exposition.h"

#include "pure/verdict.h"

#include <stdlib.h>
#include <string.h>

static const char *const bounds[] = {
#define X(us, text) text,
	STATEMAP_BUCKETS(X)
#undef X
};

/* Where metrics go, and of what. */
struct writer {
	FILE *out;
	bool open_metrics;
	const struct snapshot *s;
};

/* One sample: its labels, in parts that may be empty. */
struct labels {
	const struct snapshot_row *row;
	bool by_source; /* else by site only */
	const char *more; /* name="value",... */
};

static void put_escaped(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '\\' || *text == '"')
			putc('\\', out);
		putc(*text, out);
	}
}

static void put_labels(FILE *out, const struct labels *l, const char *le)
{
	const char *comma = "";

	putc('{', out);
	if (l->row) {
		fputs("site=\"", out);
		put_escaped(out, l->row->site);
		if (l->by_source) {
			fputs("\",source=\"", out);
			put_escaped(out, l->row->source);
		}
		putc('"', out);
		comma = ",";
	}
	if (*l->more) {
		fprintf(out, "%s%s", comma, l->more);
		comma = ",";
	}
	if (le)
		fprintf(out, "%sle=\"%s\"", comma, le);
	putc('}', out);
}

/* name: with "_total" if it is a counter; OpenMetrics names the family without it. */
static void put_family(const struct writer *w, const char *name, const char *type, const char *help)
{
	size_t n = strlen(name);

	if (w->open_metrics && !strcmp(type, "counter"))
		n -= strlen("_total");
	fprintf(w->out, "# HELP %.*s %s\n# TYPE %.*s %s\n", (int)n, name, help, (int)n, name, type);
}

static void put_created(const struct writer *w, const char *name, size_t n, const struct labels *l)
{
	if (!w->open_metrics)
		return;
	uint64_t first = l->row ? l->row->first : 0;
	fprintf(w->out, "%.*s_created", (int)n, name);
	put_labels(w->out, l, NULL);
	fprintf(w->out, " %lld.%06u\n", (long long)(w->s->created + (int64_t)(first / 1000000)), (unsigned)(first % 1000000));
}

static void put_counter(const struct writer *w, const char *name, const struct labels *l, uint64_t value)
{
	fputs(name, w->out);
	put_labels(w->out, l, NULL);
	fprintf(w->out, " %llu\n", (unsigned long long)value);
	put_created(w, name, strlen(name) - strlen("_total"), l);
}

static void put_gauge(const struct writer *w, const char *name, const struct labels *l, double value)
{
	fputs(name, w->out);
	put_labels(w->out, l, NULL);
	fprintf(w->out, " %.15g\n", value);
}

/* The count is that of the buckets, so that both agree while sessions add to them. */
static void put_histogram(const struct writer *w, const char *name, const struct labels *l, const uint64_t bucket[STATEMAP_BUCKET_COUNT],
    uint64_t sum)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < STATEMAP_BUCKET_COUNT; i++)
		count += bucket[i];
	if (!count)
		return;
	count = 0;
	for (unsigned i = 0; i < STATEMAP_BUCKET_COUNT; i++) {
		count += bucket[i];
		fprintf(w->out, "%s_bucket", name);
		put_labels(w->out, l, bounds[i]);
		fprintf(w->out, " %llu\n", (unsigned long long)count);
	}
	fprintf(w->out, "%s_sum", name);
	put_labels(w->out, l, NULL);
	fprintf(w->out, " %llu.%06u\n%s_count", (unsigned long long)sum / 1000000, (unsigned)(sum % 1000000), name);
	put_labels(w->out, l, NULL);
	fprintf(w->out, " %llu\n", (unsigned long long)count);
	put_created(w, name, strlen(name), l);
}

static const struct {
	const char *metric, *labels;
} counters[] = {
#define X(counter, metric, labels) { metric, labels },
	STATEMAP_COUNTERS(X)
#undef X
};

/* Of all rows, the counters of this metric that are not 0. */
static void put_counters(const struct writer *w, const struct snapshot_row *row, unsigned rows, bool by_source, const char *metric, const char *help)
{
	put_family(w, metric, "counter", help);
	for (unsigned r = 0; r < rows; r++)
		for (unsigned i = 0; i < STATEMAP_RECIPIENT; i++)
			if (row[r].counter[i] && !strcmp(counters[i].metric, metric))
				put_counter(w, metric, &(struct labels){ &row[r], by_source, counters[i].labels }, row[r].counter[i]);
}

static void put_recipients(const struct writer *w, const struct snapshot_row *row, unsigned rows)
{
	static const char metric[] = "smtpwarp_recipients_total";
	char more[64];

	put_family(w, metric, "counter", "Recipients, by what became of them.");
	for (unsigned r = 0; r < rows; r++)
		for (unsigned i = 0; i < REPLY_CLASSES_END; i++) {
			snprintf(more, sizeof more, "class=\"%s\"", replyclass_name((enum reply_class)i));
			if (row[r].counter[STATEMAP_RECIPIENT + i])
				put_counter(w, metric, &(struct labels){ &row[r], true, more }, row[r].counter[STATEMAP_RECIPIENT + i]);
		}
}

static void put_replies(const struct writer *w, const struct snapshot_row *row, unsigned rows)
{
	static const char metric[] = "smtpwarp_replies_total";
	char more[64];

	put_family(w, metric, "counter", "Replies of servers that refuse, by what they refuse.");
	for (unsigned r = 0; r < rows; r++)
		for (unsigned i = 0; i < 2 * REPLY_STAGES_END; i++) {
			snprintf(more, sizeof more, "stage=\"%s\",kind=\"%s\"", replyclass_stage_name((enum reply_stage)(i / 2)), i % 2 ? "5xx" : "4xx");
			if (row[r].counter[STATEMAP_REPLY + i])
				put_counter(w, metric, &(struct labels){ &row[r], false, more }, row[r].counter[STATEMAP_REPLY + i]);
		}
}

static void put_phases(const struct writer *w, const struct snapshot_row *row, unsigned rows)
{
	static const char *const phase[] = {
#define X(name, text) "phase=\"" text "\"",
		STATEMAP_PHASES(X)
#undef X
	};

	put_family(w, "smtpwarp_phase_seconds", "histogram", "How long a phase of a session took.");
	for (unsigned r = 0; r < rows; r++)
		for (unsigned p = 0; p < STATEMAP_PHASES_END; p++)
			put_histogram(w, "smtpwarp_phase_seconds", &(struct labels){ &row[r], false, phase[p] }, row[r].bucket[p], row[r].sum[p]);
}

static void put_detectors(const struct writer *w, const struct snapshot_row *row, unsigned rows)
{
	unsigned r;

	put_family(w, "smtpwarp_backoff_state", "gauge", "How a site treats us: 0 ok, 1 slow, 2 throttled, 3 blocked.");
	for (r = 0; r < rows; r++)
		put_gauge(w, "smtpwarp_backoff_state", &(struct labels){ &row[r], true, "" }, row[r].detector.state);
	put_family(w, "smtpwarp_hold_seconds", "gauge", "For how much longer it is wise to hold back.");
	for (r = 0; r < rows; r++) {
		uint64_t until = row[r].detector.until;
		put_gauge(w, "smtpwarp_hold_seconds", &(struct labels){ &row[r], true, "" }, until > w->s->now ? (double)(until - w->s->now) / 1e6 : 0);
	}
	put_family(w, "smtpwarp_throttle_score", "gauge", "Evidence of throttling; 1 is enough.");
	for (r = 0; r < rows; r++)
		put_gauge(w, "smtpwarp_throttle_score", &(struct labels){ &row[r], true, "" }, (double)row[r].detector.score / DETECTOR_ALARM);
}

static void put_hooks(const struct writer *w)
{
	static const char *const events[] = {
#define X(event, name) name,
		HOOK_EVENTS(X)
#undef X
	};
	const struct snapshot_hook *h;
	char more[160];

	for (int failures = 0; failures < 2; failures++) {
		put_family(w, failures ? "smtpwarp_hook_failures_total" : "smtpwarp_hook_seconds", failures ? "counter" : "histogram",
		    failures ? "Runs of hooks that failed." : "How long hooks took.");
		for (h = w->s->hook; h < w->s->hook + w->s->hooks; h++) {
			FILE *out = fmemopen(more, sizeof more, "w");
			if (!out)
				return;
			fputs("hook=\"", out);
			put_escaped(out, h->name);
			fprintf(out, "\",event=\"%s\"", h->event < HOOK_EVENT_COUNT ? events[h->event] : "other");
			fclose(out);
			if (failures)
				put_counter(w, "smtpwarp_hook_failures_total", &(struct labels){ NULL, false, more }, h->failures);
			else
				put_histogram(w, "smtpwarp_hook_seconds", &(struct labels){ NULL, false, more }, h->bucket, h->sum);
		}
	}
}

static void put_totals(const struct writer *w)
{
	static const struct {
		const char *metric, *labels;
	} totals[] = {
#define X(total, metric, labels) { metric, labels },
		STATEMAP_TOTALS(X)
#undef X
	};
	static const struct {
		const char *metric, *help;
	} helps[] = { { "smtpwarp_sessions_total", "Sessions that have ended, by who ended them." },
		{ "smtpwarp_bytes_total", "Octets on the wire, by whose connection, and from or to smtpwarp." },
		{ "smtpwarp_log_dropped_total", "Records that were lost." },
		{ "smtpwarp_state_evictions_total", "Sites that made room for others in the state." },
		{ "smtpwarp_limit_refusals_total", "What a limit of smtpwarp's refused." } };

	for (size_t h = 0; h < sizeof helps / sizeof *helps; h++) {
		/* OpenMetrics knows this family as a gauge, too, and no two of one name. */
		bool unknown = w->open_metrics && !h;
		put_family(w, helps[h].metric, unknown ? "unknown" : "counter", helps[h].help);
		for (size_t i = 0; i < STATEMAP_TOTALS_END; i++)
			if (unknown && !strcmp(totals[i].metric, helps[h].metric))
				put_gauge(w, totals[i].metric, &(struct labels){ NULL, false, totals[i].labels }, (double)w->s->total[i]);
			else if (!strcmp(totals[i].metric, helps[h].metric))
				put_counter(w, totals[i].metric, &(struct labels){ NULL, false, totals[i].labels }, w->s->total[i]);
	}
}

struct traffic {
	uint64_t traffic;
	unsigned first, rows; /* of a site */
};

static int busier(const void *a, const void *b)
{
	const struct traffic *one = a, *other = b;

	return one->traffic != other->traffic ? (one->traffic < other->traffic ? 1 : -1) : one->first < other->first ? -1 : 1;
}

/* Keep the rows of sites that are not "ok", and of the busiest ones. All others become one, without a source. */
static void limit_sites(struct snapshot *s)
{
	static struct traffic site[STATEMAP_SLOTS];
	static bool dropped[STATEMAP_SLOTS];
	static struct snapshot_row other;
	unsigned sites = 0, n = 0, i, r;

	for (r = 0; r < s->rows; r++) {
		if (!r || strcmp(s->row[r].site, s->row[r - 1].site))
			site[sites++] = (struct traffic){ .first = r };
		if (!strcmp(s->row[r].site, "other")) /* it takes nobody's place */
			continue;
		site[sites - 1].traffic += snapshot_traffic(&s->row[r]);
		if (s->row[r].detector.state != DETECTOR_OK)
			site[sites - 1].traffic |= 1ull << 63;
	}
	for (i = 0; i < sites; i++)
		site[i].rows = (i + 1 < sites ? site[i + 1].first : s->rows) - site[i].first;
	qsort(site, sites, sizeof *site, busier);
	other = (struct snapshot_row){ .site = "other", .first = UINT64_MAX };
	memset(dropped, 0, sizeof dropped);
	for (i = 0; i < sites; i++)
		for (r = site[i].first; r < site[i].first + site[i].rows; r++)
			if (i >= EXPOSITION_SITES || !strcmp(s->row[r].site, "other")) {
				snapshot_add(&other, &s->row[r]);
				dropped[r] = true;
			}
	for (r = 0; r < s->rows; r++)
		if (!dropped[r])
			s->row[n++] = s->row[r];
	if (n < s->rows)
		s->row[n++] = other;
	s->rows = n;
}

/* By site only: rows of one site stand side by side. Returns how many. */
static unsigned by_site(const struct snapshot *s, struct snapshot_row site[STATEMAP_SLOTS])
{
	unsigned n = 0;

	for (unsigned r = 0; r < s->rows; r++)
		if (n && !strcmp(site[n - 1].site, s->row[r].site))
			snapshot_add(&site[n - 1], &s->row[r]);
		else
			site[n++] = s->row[r];
	return n;
}

void exposition_write(FILE *out, struct snapshot *s, bool open_metrics)
{
	static struct snapshot_row site[STATEMAP_SLOTS];
	struct writer w = { out, open_metrics, s };
	struct labels none = { NULL, false, "" }, version = { NULL, false, "version=\"" SMTPWARP_VERSION "\"" };

	limit_sites(s);
	unsigned sites = by_site(s, site);
	put_family(&w, "smtpwarp_build_info", "gauge", "The version of smtpwarp-stat.");
	put_gauge(&w, "smtpwarp_build_info", &version, 1);
	put_family(&w, "smtpwarp_sessions", "gauge", "Sessions at the moment.");
	put_gauge(&w, "smtpwarp_sessions", &none, s->sessions);
	put_totals(&w);
	put_counters(&w, s->row, s->rows, true, "smtpwarp_connects_total", "Connections to servers, and what became of them.");
	put_counters(&w, s->row, s->rows, true, "smtpwarp_messages_total", "Messages, and what became of them.");
	put_recipients(&w, s->row, s->rows);
	put_replies(&w, site, sites);
	put_phases(&w, site, sites);
	put_counters(&w, site, sites, false, "smtpwarp_tls_total", "Connections to servers, by TLS.");
	put_detectors(&w, s->row, s->rows);
	put_counters(&w, s->row, s->rows, true, "smtpwarp_backoff_refusals_total", "Messages that smtpwarp refused because a server asked us to slow down.");
	put_hooks(&w);
	if (open_metrics)
		fputs("# EOF\n", out);
}
