/* Charts. See charts.h for the contract. A chart is stretched to its place: an hour is ten wide, bars are a hundred high, and the line of a
 * site's delays has a strip of its own below them. */
#include "stat/charts.h"

#include "stat/page.h"

#include <stdlib.h>
#include <string.h>

#define WIDE 10
#define HIGH 100
#define STRIP_AT 118
#define STRIP_END 160
#define COLOURS 7 /* --c1 to --c7 of page.c */

/* Hours that a chart shows: from the first of the log, or FINDINGS_HOURS before the last. */
static int64_t first_hour(const struct findings *f)
{
	int64_t first = f->first / 3600, oldest = f->newest - FINDINGS_HOURS + 1;

	return first > oldest ? first : oldest;
}

static int64_t hours(const struct findings *f)
{
	return f->newest - first_hour(f) + 1;
}

static uint64_t messages(const struct findings_cell *c)
{
	return (uint64_t)c->result[0] + c->result[1] + c->result[2] + c->result[3];
}

static struct findings_cell sum_of(const struct findings *f, int64_t hour)
{
	struct findings_cell sum = { 0 };

	for (unsigned i = 0; i < f->sites; i++)
		for (unsigned r = 0; r < FINDINGS_RESULTS; r++)
			sum.result[r] += f->site[i].hour[hour % FINDINGS_HOURS].result[r];
	return sum;
}

/* In percent of its place: half a day fills it, so that a few hours are no huge bars. */
static int width(const struct findings *f)
{
	return hours(f) < 12 ? (int)hours(f) * 100 / 12 : 100;
}

static void begin(const struct findings *f, const char *label, int high)
{
	page_put("<svg viewBox=\"0 0 %lld %d\" style=\"width:%d%%\" preserveAspectRatio=\"none\" role=img aria-label=\"%s\">",
	    (long long)hours(f) * WIDE, high, width(f), label);
}

/* One hour as a bar of its results, from the bottom up. */
static void bar(int64_t x, const struct findings_cell *c, uint64_t highest, int64_t hour, bool titled)
{
	static const char name[][2] = { "a", "d", "r", "o" };
	double y = HIGH;

	if (!messages(c))
		return;
	page_put("<g>");
	if (titled) {
		page_put("<title>");
		page_time(hour * 3600);
		page_put(": %u accepted, %u deferred, %u rejected, %u not finished</title>", c->result[0], c->result[1], c->result[2], c->result[3]);
	}
	for (unsigned r = 0; r < FINDINGS_RESULTS; r++) {
		double high = HIGH * (double)c->result[r] / (double)highest;
		y -= high;
		if (c->result[r])
			page_put("<rect class=%s x=%lld y=%.2f width=%d height=%.2f />", name[r], (long long)x, y, WIDE - 1, high);
	}
	page_put("</g>");
}

static void put_days(const struct findings *f)
{
	int64_t from = first_hour(f), count = hours(f), step = count > 36 ? 24 : count > 12 ? 6 : count > 6 ? 2 : 1;

	page_put("<div class=days style=\"width:%d%%\" aria-hidden=true>", width(f));
	for (int64_t h = (from + step - 1) / step * step; h < from + count && (from + count - h) * 100 / count >= 8; h += step) {
		page_put("<span style=\"left:%.2f%%\">", 100.0 * (double)(h - from) / (double)count);
		if (step == 24)
			page_day(h * 3600);
		else
			page_put("%02d:00", (int)(h % 24));
		page_put("</span>");
	}
	page_put("</div>");
}

void charts_volume(const struct findings *f)
{
	int64_t from = first_hour(f), h;
	uint64_t highest = 1;

	if (!f->messages)
		return;
	for (h = from; h <= f->newest; h++) {
		struct findings_cell c = sum_of(f, h);
		if (messages(&c) > highest)
			highest = messages(&c);
	}
	page_put("<div class=top><span>busiest hour: ");
	page_number(highest);
	page_put(" messages</span></div><div class=plot>");
	begin(f, "Messages by hour and result", HIGH);
	for (int i = 0; i <= 4; i++)
		page_put("<path class=grid vector-effect=non-scaling-stroke d=\"M0 %dH%lld\"/>", i * HIGH / 4, (long long)hours(f) * WIDE);
	for (h = from; h <= f->newest; h++) {
		struct findings_cell c = sum_of(f, h);
		bar((h - from) * WIDE, &c, highest, h, true);
	}
	page_put("</svg></div>");
	put_days(f);
}

/* Shading of the times that were not "ok". */
static void shade(const struct findings *f, const struct findings_site *s)
{
	double from = (double)first_hour(f) * 3600, end = (double)(f->newest + 1) * 3600;

	for (unsigned i = 0; i < f->periods; i++) {
		const struct findings_period *p = &f->period[i];
		const char *class = !strcmp(p->state, "slow") ? "slow" : !strcmp(p->state, "blocked") ? "blocked" : "throttled";
		double since = (double)p->since, until = p->until ? (double)p->until : end;
		if (strcmp(p->site, s->name) || until <= from || since >= end)
			continue;
		since = since < from ? from : since;
		page_put("<rect class=%s x=%.1f y=0 width=%.1f height=%d><title>", class, (since - from) * WIDE / 3600,
		    ((until < end ? until : end) - since) * WIDE / 3600, STRIP_END);
		page_text(p->state);
		page_put("</title></rect>");
	}
}

/* The line of delays, up to the longest: flat within each hour that has some, so that one alone is seen, too. */
static void line(const struct findings *f, const struct findings_site *s, double longest)
{
	int64_t from = first_hour(f);
	bool drawing = false;

	page_put("<path class=p vector-effect=non-scaling-stroke d=\"");
	for (int64_t h = from; h <= f->newest; h++) {
		double ms = findings_percentile(s->hour[h % FINDINGS_HOURS].delay, 95);
		if (ms >= 0)
			page_put("%s%lld %.1fh%d", drawing ? "L" : "M", (long long)(h - from) * WIDE + 2,
			    STRIP_END - 2 - (STRIP_END - STRIP_AT) * ms / longest, WIDE - 5);
		drawing = ms >= 0;
	}
	page_put("\"/>");
}

void charts_site(const struct findings *f, const struct findings_site *s)
{
	int64_t from = first_hour(f), h;
	uint64_t highest = 1;
	double longest = 1;

	for (h = from; h <= f->newest; h++) {
		const struct findings_cell *c = &s->hour[h % FINDINGS_HOURS];
		double ms = findings_percentile(c->delay, 95);
		if (messages(c) > highest)
			highest = messages(c);
		longest = ms > longest ? ms : longest;
	}
	page_put("<div class=top><span>up to ");
	page_number(highest);
	page_put(" an hour</span><span>354 up to ");
	page_delay(s->delays ? longest : -1);
	page_put("</span></div>");
	begin(f, "Messages by hour and time to 354", STRIP_END);
	shade(f, s);
	for (h = from; h <= f->newest; h++)
		bar((h - from) * WIDE, &s->hour[h % FINDINGS_HOURS], highest, h, false);
	line(f, s, longest);
	page_put("</svg>");
}

struct share {
	uint64_t count;
	unsigned class;
};

static int larger(const void *a, const void *b)
{
	const struct share *one = a, *other = b;

	if (one->count != other->count)
		return one->count < other->count ? 1 : -1;
	return one->class < other->class ? -1 : 1;
}

/* Those that refuse, the most frequent first. Returns how many. */
static unsigned refusals(const uint64_t class[FINDINGS_CLASSES], struct share share[FINDINGS_CLASSES], uint64_t *refused)
{
	unsigned n = 0;

	*refused = 0;
	for (unsigned i = 1; i < FINDINGS_CLASSES; i++) {
		*refused += class[i];
		if (class[i])
			share[n++] = (struct share){ class[i], i };
	}
	qsort(share, n, sizeof *share, larger);
	return n;
}

/* The same for the same class in all of a report; the rarer ones share the last. */
static unsigned colour(const struct findings *f, unsigned class)
{
	return f->class_rank[class] < COLOURS - 1 ? f->class_rank[class] + 1 : COLOURS;
}

void charts_classes(const struct findings *f, const uint64_t class[FINDINGS_CLASSES])
{
	struct share share[FINDINGS_CLASSES];
	uint64_t refused;
	unsigned n = refusals(class, share, &refused);

	if (!n)
		return;
	page_put("<div class=bar aria-hidden=true>");
	for (unsigned i = 0; i < n; i++)
		page_put("<i style=\"width:%.3f%%;background:var(--c%u)\"></i>", 100 * (double)share[i].count / (double)refused, colour(f, share[i].class));
	page_put("</div><ul class=key><li><strong>refused ");
	page_percent(refused, refused + class[0]);
	page_put("</strong></li>");
	for (unsigned i = 0; i < n && i < 10; i++) {
		page_put("<li><i style=\"background:var(--c%u)\"></i>", colour(f, share[i].class));
		page_text(f->class_name[share[i].class]);
		page_put(" <span class=soft>");
		page_percent(share[i].count, refused + class[0]);
		page_put("</span></li>");
	}
	page_put("</ul>");
}
