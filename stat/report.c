/* The report: its sections. See report.h for the contract; findings.c counts, charts.c draws. */
#include "stat/report.h"

#include "stat/arguments.h"
#include "stat/charts.h"
#include "stat/findings.h"
#include "stat/page.h"
#include "stat/reading.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#define SITES_SHOWN 40
#define TEXTS_SHOWN 40
#define WHO_SHOWN 20

static void put_tile(const char *name)
{
	page_put("<div><dt>%s</dt><dd>", name);
}

static void put_result_tile(const struct findings *f, const char *name, enum findings_result result)
{
	put_tile(name);
	page_percent(f->result[result], f->messages);
	page_put("<small>");
	page_number(f->result[result]);
	page_put("</small></dd></div>");
}

static void put_head(const struct findings *f)
{
	page_put("<h1>Mail through smtpwarp</h1><p class=soft>");
	if (f->records) {
		page_date(f->first);
		page_put(" to ");
		page_date(f->last);
		page_put(" UTC \xc2\xb7 ");
	}
	page_number(f->records);
	page_put(" records</p><dl class=tiles>");
	put_tile("Messages");
	page_number(f->messages);
	page_put("<small>");
	page_number(f->recipients);
	page_put(" recipients</small></dd></div>");
	put_result_tile(f, "Accepted", FINDINGS_ACCEPTED);
	put_result_tile(f, "Deferred", FINDINGS_DEFERRED);
	put_result_tile(f, "Rejected", FINDINGS_REJECTED);
	put_result_tile(f, "Not finished", FINDINGS_OTHER);
	put_tile("Volume");
	page_octets(f->octets);
	page_put("<small>");
	page_number(f->sessions);
	page_put(" sessions</small></dd></div></dl>\n");
}

static void put_volume(const struct findings *f)
{
	page_put("<h2>Messages by hour</h2><div class=\"card big\">");
	charts_volume(f);
	page_put("<ul class=key><li><i style=\"background:var(--accepted)\"></i>accepted</li><li><i style=\"background:var(--deferred)\"></i>"
		 "deferred</li><li><i style=\"background:var(--rejected)\"></i>rejected</li><li><i style=\"background:var(--other)\"></i>not "
		 "finished</li></ul>");
	if (f->older) {
		page_put("<p class=soft>");
		page_number(f->older);
		page_put(" messages are older than %d hours before the last one: they count in totals only.</p>", FINDINGS_HOURS);
	}
	page_put("</div>\n");
}

static void put_period(const struct findings_period *p)
{
	page_put("<tr><td class=t>");
	page_time(p->since);
	page_put("</td><td class=t>");
	if (!p->until)
		page_put("not over");
	else if (p->until / 86400 == p->since / 86400)
		page_clock(p->until);
	else
		page_time(p->until);
	page_put("</td><td>");
	page_text(p->site);
	page_put("</td><td>");
	page_text(p->source);
	page_put("</td><td><strong>");
	page_text(p->state);
	page_put("</strong></td><td class=t>");
	page_text(p->why);
	page_put("</td><td class=text><code>");
	page_text(p->evidence);
	page_put("</code></td></tr>\n");
}

static void put_periods(const struct findings *f)
{
	if (!f->periods)
		return;
	page_put("<h2>Who slowed us down</h2><div class=\"card scroll\" tabindex=0 role=region aria-label=\"Back-off periods\"><table class=fold>"
		 "<thead><tr><th>From</th><th>To</th><th>Site</th><th>Source</th><th>State</th><th>Why</th><th>Last reply</th></tr></thead>"
		 "<tbody>\n");
	for (unsigned i = 0; i < f->periods; i++)
		put_period(&f->period[i]);
	page_put("</tbody></table>");
	if (f->periods_lost)
		page_put("<p class=soft>%llu further ones are left out.</p>", (unsigned long long)f->periods_lost);
	page_put("</div>\n");
}

static void put_delay(const char *name, double ms)
{
	page_put("<div><dt>%s</dt><dd>", name);
	page_delay(ms);
	page_put("</dd></div>");
}

static void put_site(const struct findings *f, const struct findings_site *s)
{
	page_put("<article class=\"card site\"><div><h3>");
	page_text(s->name);
	page_put("</h3><dl><div><dt>messages</dt><dd>");
	page_number(s->messages);
	page_put("</dd></div><div><dt>accepted</dt><dd>");
	page_percent(s->result[FINDINGS_ACCEPTED], s->messages);
	page_put("</dd></div><div><dt>recipients</dt><dd>");
	page_number(s->recipients);
	page_put("</dd></div></dl><dl>");
	put_delay("time to 354: half within", findings_percentile64(s->delay, 50));
	put_delay("95\xc2\xa0% within", findings_percentile64(s->delay, 95));
	page_put("</dl></div><div class=plot>");
	charts_site(f, s);
	page_put("</div><div class=wide>");
	charts_classes(f, s->class);
	page_put("</div></article>\n");
}

static void put_site_row(const struct findings_site *s)
{
	page_put("<tr><td>");
	page_text(s->name);
	page_put("</td><td class=n>");
	page_number(s->messages);
	page_put("</td><td class=n>");
	page_percent(s->result[FINDINGS_ACCEPTED], s->messages);
	page_put("</td><td class=n>");
	page_delay(findings_percentile64(s->delay, 95));
	page_put("</td></tr>\n");
}

static void put_sites(const struct findings *f)
{
	unsigned shown = f->sites < SITES_SHOWN + 1 ? f->sites : SITES_SHOWN + 1;

	page_put("<h2>Destinations</h2><p class=soft>Bars: messages by hour, refused ones on top. Line: time to 354, which 95 %% of an hour's "
		 "messages are below. Shaded: slow, throttled or blocked.</p>\n");
	for (unsigned i = 1; i < shown; i++)
		put_site(f, &f->site[i]);
	if (shown == f->sites && !f->site[0].messages)
		return;
	page_put("<details class=card><summary>Further destinations</summary><div class=scroll tabindex=0 role=region "
		 "aria-label=\"Further destinations\"><table><thead><tr><th>Site</th><th class=n>Messages</th><th class=n>Accepted</th>"
		 "<th class=n>354, 95 %%</th></tr></thead><tbody>\n");
	for (unsigned i = shown; i < f->sites; i++)
		put_site_row(&f->site[i]);
	if (f->site[0].messages)
		put_site_row(&f->site[0]);
	page_put("</tbody></table></div></details>\n");
}

static void put_lost(const struct tally *t)
{
	if (t->lost) {
		page_put("<p class=soft>Rare ones are left out, and a count may lack up to ");
		page_number(t->lost);
		page_put(".</p>");
	}
}

/* The n-th of a name's parts, which TABs separate; the last goes to the end. Returns a static copy. */
static const char *part(const char *name, unsigned n, bool last)
{
	static char copy[TALLY_NAME];
	const char *tab;

	for (; n && (tab = strchr(name, '\t')); n--)
		name = tab + 1;
	snprintf(copy, sizeof copy, "%.*s", (int)(last ? strlen(name) : strcspn(name, "\t")), name);
	return copy;
}

static void put_texts(const struct findings *f)
{
	if (!f->texts.n)
		return;
	page_put("<h2>What they say</h2><p class=soft>Replies that refuse, the most frequent first. # stands for any number, @ for any mail "
		 "address.</p><div class=\"card scroll\" tabindex=0 role=region aria-label=\"Replies that refuse\"><table class=fold><thead><tr>"
		 "<th class=n>Times</th><th>Site</th><th class=n>Code</th><th>Class</th><th>Reply</th></tr></thead><tbody>\n");
	for (unsigned i = 0; i < f->texts.n && i < TEXTS_SHOWN; i++) {
		const struct tally_entry *e = &f->texts.entry[i];
		page_put("<tr><td class=n>");
		page_number(e->count[0]);
		page_put("</td><td>");
		page_text(part(e->name, 0, false));
		page_put("</td><td class=n>");
		page_text(part(e->name, 1, false));
		page_put("</td><td class=t>");
		page_text(part(e->name, 2, false));
		page_put("</td><td class=text><code>");
		page_text(part(e->name, 3, true));
		page_put("</code></td></tr>\n");
	}
	page_put("</tbody></table>");
	put_lost(&f->texts);
	page_put("</div>\n");
}

static void put_tls(const struct findings *f)
{
	page_put("<section><h2>TLS with destinations</h2><div class=card><table><thead><tr><th>Version</th><th>Certificate</th><th class=n>Messages"
		 "</th><th class=n>Share</th></tr></thead><tbody>\n");
	for (unsigned i = 0; i < f->tls.n && i < WHO_SHOWN; i++) {
		const struct tally_entry *e = &f->tls.entry[i];
		bool none = !strncmp(e->name, "none\t", 5);
		page_put("<tr><td>");
		page_text(none ? "not encrypted" : part(e->name, 0, false));
		page_put("</td><td>%s</td><td class=n>", none ? "\xe2\x80\x93" : *part(e->name, 1, true) == '1' ? "verified" : "not verified");
		page_number(e->count[0]);
		page_put("</td><td class=n>");
		page_percent(e->count[0], f->messages);
		page_put("</td></tr>\n");
	}
	page_put("</tbody></table>");
	for (unsigned i = 0; i < f->failures.n && i < 5; i++) {
		page_put("<p class=soft>Handshakes that failed: ");
		page_number(f->failures.entry[i].count[0]);
		page_put(", ");
		page_text(f->failures.entry[i].name);
		page_put("</p>");
	}
	page_put("</div></section>\n");
}

static void put_sources(const struct findings *f)
{
	page_put("<section><h2>Our addresses</h2><div class=\"card scroll\" tabindex=0 role=region aria-label=\"Our addresses\"><table><thead><tr>"
		 "<th>Source</th><th class=n>Connections</th><th class=n>Messages</th><th class=n>Accepted</th></tr></thead><tbody>\n");
	for (unsigned i = 0; i < f->sources; i++) {
		const struct findings_source *s = &f->source[i];
		if (!s->connections && !s->messages)
			continue;
		page_put("<tr><td>");
		page_text(s->name);
		page_put("</td><td class=n>");
		page_number(s->connections);
		page_put("</td><td class=n>");
		page_number(s->messages);
		page_put("</td><td class=n>");
		page_percent(s->result[FINDINGS_ACCEPTED], s->messages);
		page_put("</td></tr>\n");
	}
	page_put("</tbody></table></div></section>\n");
}

static void put_who(const struct findings *f, const struct tally *t, const char *heading, const char *column)
{
	page_put("<section><h2>%s</h2><div class=\"card scroll\" tabindex=0 role=region aria-label=\"%s\"><table><thead><tr><th>%s</th>"
		 "<th class=n>Messages</th><th class=n>Not accepted</th><th class=n>Volume</th></tr></thead><tbody>\n", heading, heading, column);
	for (unsigned i = 0; i < t->n && i < WHO_SHOWN; i++) {
		page_put("<tr><td class=text>");
		page_text(t->entry[i].name);
		page_put("</td><td class=n>");
		page_number(t->entry[i].count[0]);
		page_put("</td><td class=n>");
		page_percent(t->entry[i].count[1], t->entry[i].count[0]);
		page_put("</td><td class=n>");
		page_octets(t->entry[i].count[2]);
		page_put("</td></tr>\n");
	}
	page_put("</tbody></table>");
	if (t->n > WHO_SHOWN) {
		page_put("<p class=soft>%d of ", WHO_SHOWN);
		page_number(t->n);
		page_put(", of ");
		page_number(f->messages);
		page_put(" messages</p>");
	}
	put_lost(t);
	page_put("</div></section>\n");
}

static void put_hooks(const struct findings *f)
{
	if (!f->hooks.n)
		return;
	page_put("<h2>Hooks</h2><div class=\"card scroll\" tabindex=0 role=region aria-label=\"Hooks\"><table><thead><tr><th>Hook</th><th>Event</th>"
		 "<th class=n>Runs with a verdict</th><th class=n>Not accepted</th><th class=n>Failed</th><th class=n>Mean time</th></tr></thead>"
		 "<tbody>\n");
	for (unsigned i = 0; i < f->hooks.n && i < WHO_SHOWN; i++) {
		const struct tally_entry *e = &f->hooks.entry[i];
		page_put("<tr><td class=text>");
		page_text(part(e->name, 0, false));
		page_put("</td><td>");
		page_text(part(e->name, 1, true));
		for (int n = 0; n < 3; n++) {
			page_put("</td><td class=n>");
			page_number(e->count[n ? 3 - n : 0]);
		}
		page_put("</td><td class=n>");
		page_delay((double)e->count[3] / 1000 / (double)e->count[0]);
		page_put("</td></tr>\n");
	}
	page_put("</tbody></table></div>\n");
}

static void put_report(const struct findings *f, bool addresses)
{
	page_begin("Mail through smtpwarp");
	put_head(f);
	put_volume(f);
	put_periods(f);
	put_sites(f);
	put_texts(f);
	page_put("<div class=two>");
	put_tls(f);
	put_sources(f);
	if (addresses) {
		put_who(f, &f->senders, "Senders", "Address");
		put_who(f, &f->clients, "Clients", "Address");
	}
	page_put("</div>\n");
	put_hooks(f);
	page_end();
}

static void take(void *arg, const char *line, size_t n, const struct logrecord *r)
{
	(void)line;
	(void)n;
	findings_take(arg, r);
}

int report_main(char **arguments)
{
	struct findings *f = findings_new();
	struct arguments a = { .next = arguments };
	static struct reading reading = { .take = take, .progress = true };
	bool addresses = true;
	char *operand;
	const char *option;

	if (!f)
		return EX_OSERR;
	reading.arg = f;
	while ((option = arguments_next(&a, &operand)) || operand) {
		if (!option) {
			reading_add(&reading, operand);
		} else if (!strcmp(option, "no-addresses")) {
			arguments_flag(&a, option);
			addresses = false;
		} else {
			reading_filter(&f->filter, &a, option);
		}
	}
	int status = reading_files(&reading);
	findings_order(f);
	put_report(f, addresses);
	return fflush(stdout) ? EX_IOERR : status;
}
