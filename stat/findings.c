/* Counting for a report. See findings.h for the contract. */
#include "stat/findings.h"

#include "stat/plain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct findings *findings_new(void)
{
	struct findings *f = calloc(1, sizeof *f);

	if (!f || !tally_begin(&f->texts, 4096) || !tally_begin(&f->senders, 4096) || !tally_begin(&f->clients, 4096) ||
	    !tally_begin(&f->tls, 64) || !tally_begin(&f->failures, 256) || !tally_begin(&f->hooks, 256))
		return NULL;
	f->sites = f->sources = 1;
	f->classes = 1;
	strcpy(f->class_name[0], "ok");
	strcpy(f->class_name[FINDINGS_CLASSES - 1], "further classes");
	strcpy(f->site[0].name, "further sites");
	strcpy(f->source[0].name, "unknown");
	return f;
}

static uint64_t hash_of(const char *text, size_t n)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < n; i++)
		hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3ull;
	return hash ^ hash >> 31;
}

static struct findings_site *site_of(struct findings *f, const char *name)
{
	uint32_t mask = 2 * FINDINGS_SITES - 1, at = (uint32_t)hash_of(name, strlen(name)) & mask;

	while (f->site_place[at]) {
		struct findings_site *s = &f->site[f->site_place[at] - 1];
		if (!strcmp(s->name, name))
			return s;
		at = (at + 1) & mask;
	}
	if (f->sites == FINDINGS_SITES || !*name)
		return &f->site[0];
	struct findings_site *s = &f->site[f->sites++];
	f->site_place[at] = (uint16_t)f->sites;
	snprintf(s->name, sizeof s->name, "%s", name);
	return s;
}

static unsigned class_of(struct findings *f, const char *name)
{
	unsigned i;

	for (i = 0; i < f->classes; i++)
		if (!strcmp(f->class_name[i], name))
			return i;
	if (f->classes == FINDINGS_CLASSES - 1)
		return f->classes;
	snprintf(f->class_name[f->classes], sizeof f->class_name[0], "%s", name);
	return f->classes++;
}

static unsigned source_named(struct findings *f, const struct jsonread_text *text)
{
	char name[48];
	unsigned i;

	plain_text(text, name, sizeof name);
	if (!*name)
		return 0;
	for (i = 1; i < f->sources; i++)
		if (!strcmp(f->source[i].name, name))
			return i;
	if (f->sources == FINDINGS_SOURCES) {
		strcpy(f->source[0].name, "unknown and further ones");
		return 0;
	}
	snprintf(f->source[f->sources].name, sizeof f->source[0].name, "%s", name);
	return f->sources++;
}

/* Records of a message do not have the source address: that of the session's last connection is theirs. */
static unsigned source_of(struct findings *f, const struct logrecord *r, bool connects)
{
	uint64_t hash = hash_of(r->session.at ? r->session.at : "", r->session.n);
	unsigned at = hash % FINDINGS_SESSIONS;

	if (connects) {
		f->of_session[at].session = hash;
		f->of_session[at].source = source_named(f, &r->source);
	}
	return f->of_session[at].session == hash ? f->of_session[at].source : 0;
}

/* The site's hour; NULL: it is too long ago. */
static struct findings_cell *cell_of(struct findings *f, struct findings_site *s, int64_t hour)
{
	if (hour > f->newest) {
		int64_t from = hour - f->newest >= FINDINGS_HOURS ? hour - FINDINGS_HOURS + 1 : f->newest + 1;
		for (int64_t h = from; h <= hour; h++)
			for (unsigned i = 0; i < f->sites; i++)
				memset(&f->site[i].hour[h % FINDINGS_HOURS], 0, sizeof(struct findings_cell));
		f->newest = hour;
	}
	return hour > f->newest - FINDINGS_HOURS ? &s->hour[hour % FINDINGS_HOURS] : NULL;
}

static double bound(unsigned bucket)
{
	double ms = 1;

	for (; bucket >= 2; bucket -= 2)
		ms *= 2;
	return bucket ? ms * 1.41421356 : ms;
}

static unsigned bucket_of(int64_t thousandths)
{
	static int64_t bounds[FINDINGS_DELAYS];
	unsigned i;

	if (!bounds[0])
		for (i = 0; i < FINDINGS_DELAYS; i++)
			bounds[i] = (int64_t)(bound(i) * 1000);
	for (i = 0; i < FINDINGS_DELAYS - 1 && thousandths > bounds[i]; i++)
		;
	return i;
}

double findings_percentile64(const uint64_t delay[FINDINGS_DELAYS], unsigned percent)
{
	double total = 0, sum = 0, wanted;
	unsigned i;

	for (i = 0; i < FINDINGS_DELAYS; i++)
		total += (double)delay[i];
	if (total < 1)
		return -1;
	wanted = total * percent / 100;
	for (i = 0; i < FINDINGS_DELAYS - 1 && sum + (double)delay[i] < wanted; i++)
		sum += (double)delay[i];
	double below = i ? bound(i - 1) : 0, part = delay[i] ? (wanted - sum) / (double)delay[i] : 1;
	return below + (bound(i) - below) * part;
}

double findings_percentile(const uint32_t delay[FINDINGS_DELAYS], unsigned percent)
{
	uint64_t wide[FINDINGS_DELAYS];

	for (unsigned i = 0; i < FINDINGS_DELAYS; i++)
		wide[i] = delay[i];
	return findings_percentile64(wide, percent);
}

static void count_text(struct findings *f, const char *site, const struct logrecord_outcome *o, const char *class)
{
	char text[160], name[TALLY_NAME];

	if (o->code < 400000 || !o->text.at)
		return;
	plain_fold((char *)(uintptr_t)plain_text(&o->text, text, sizeof text));
	snprintf(name, sizeof name, "%.47s\t%d\t%.31s\t%.150s", site, (int)(o->code / 1000) % 1000, class, text);
	tally_of(&f->texts, name)->count[0]++;
}

static void count_outcome(struct findings *f, struct findings_site *s, unsigned source, const struct logrecord_outcome *o)
{
	char class[32];
	const char *is = logrecord_class(o, class);

	if (!is || !logfilter_outcome(&f->filter, o))
		return;
	unsigned number = class_of(f, plain_make(class, sizeof class));
	s->class[number]++;
	f->source[source].class[number]++;
	count_text(f, s->name, o, class);
}

static void count_who(struct tally *t, const struct jsonread_text *who, const struct logrecord *r, bool accepted, const char *nobody)
{
	char name[TALLY_NAME];

	plain_text(who, name, sizeof name);
	struct tally_entry *e = tally_of(t, *name ? name : nobody);
	e->count[0]++;
	e->count[1] += !accepted;
	e->count[2] += r->size > 0 ? (uint64_t)r->size / 1000 : 0;
}

static void count_message(struct findings *f, const struct logrecord *r, struct findings_site *s, unsigned source)
{
	enum findings_result result = jsonread_is(&r->result, "accepted")   ? FINDINGS_ACCEPTED
				      : jsonread_is(&r->result, "deferred") ? FINDINGS_DEFERRED
				      : jsonread_is(&r->result, "rejected") ? FINDINGS_REJECTED
									    : FINDINGS_OTHER;
	struct findings_cell *cell = cell_of(f, s, r->second / 3600);
	char version[32], name[48];

	f->messages++;
	f->result[result]++;
	s->messages++;
	s->result[result]++;
	f->source[source].messages++;
	f->source[source].result[result]++;
	f->octets += r->size > 0 ? (uint64_t)r->size / 1000 : 0;
	if (cell)
		cell->result[result]++;
	if (r->data_reply_ms >= 0) {
		unsigned bucket = bucket_of(r->data_reply_ms);
		s->delay[bucket]++;
		s->delays++;
		if (cell)
			cell->delay[bucket]++;
	}
	count_who(&f->senders, &r->from, r, result == FINDINGS_ACCEPTED, "(null sender)");
	count_who(&f->clients, &r->client, r, result == FINDINGS_ACCEPTED, "(unknown)");
	plain_text(&r->server_tls_version, version, sizeof version);
	snprintf(name, sizeof name, "%s\t%d", *version ? version : "none", r->server_tls_verified);
	if (r->server.at)
		tally_of(&f->tls, name)->count[0]++;
}

static void count_recipients(struct findings *f, const struct logrecord *r, struct findings_site *s, unsigned source)
{
	struct jsonread at;
	struct logrecord_outcome o;
	unsigned n = 0;

	jsonread_begin(&at, r->recipients.at, r->recipients.at ? r->recipients.n : 0);
	if (jsonread_array(&at))
		for (; logrecord_recipient(&at, &o); n++)
			count_outcome(f, s, source, &o);
	f->recipients += n;
	s->recipients += n;
	if (!n)
		count_outcome(f, s, source, &r->reply);
}

static void count_hook(struct findings *f, const struct logrecord *r)
{
	char hook[100], on[32], name[TALLY_NAME];

	plain_text(&r->hook, hook, sizeof hook);
	if (!*hook)
		return;
	snprintf(name, sizeof name, "%s\t%s", hook, plain_text(&r->on, on, sizeof on));
	struct tally_entry *e = tally_of(&f->hooks, name);
	e->count[0]++;
	e->count[1] += jsonread_is(&r->verdict, "failed");
	e->count[2] += !jsonread_is(&r->verdict, "accept") && !jsonread_is(&r->verdict, "failed");
	e->count[3] += r->hook_ms > 0 ? (uint64_t)r->hook_ms : 0;
}

/* A change of state ends the period that this site and source had, and begins another one unless all is well. */
static void count_backoff(struct findings *f, const struct logrecord *r, const char *site)
{
	char source[48];
	struct findings_period *p;

	plain_text(&r->source, source, sizeof source);
	for (p = f->period + f->periods; p-- > f->period;)
		if (!p->until && !strcmp(p->site, site) && !strcmp(p->source, source)) {
			p->until = r->second > p->since ? r->second : p->since + 1;
			break;
		}
	if (jsonread_is(&r->state_to, "ok") || !r->state_to.at)
		return;
	if (f->periods == FINDINGS_PERIODS) {
		f->periods_lost++;
		return;
	}
	p = &f->period[f->periods++];
	snprintf(p->site, sizeof p->site, "%s", site);
	snprintf(p->source, sizeof p->source, "%s", source);
	plain_text(&r->state_to, p->state, sizeof p->state);
	plain_text(&r->why, p->why, sizeof p->why);
	plain_text(&r->own.text, p->evidence, sizeof p->evidence);
	p->since = r->second;
}

void findings_take(struct findings *f, const struct logrecord *r)
{
	char site[LOGRECORD_SITE], reason[TALLY_NAME];

	if (!logfilter_record(&f->filter, r))
		return;
	f->records++;
	if (!f->first || r->second < f->first)
		f->first = r->second;
	if (r->second > f->last)
		f->last = r->second;
	logrecord_site(r, site);
	plain_make(site, sizeof site);
	bool connects = jsonread_is(&r->event, "connect"), first = r->first_rcpt <= 0;
	if (jsonread_is(&r->event, "message")) {
		struct findings_site *s = site_of(f, site);
		unsigned source = source_of(f, r, false);
		if (first)
			count_message(f, r, s, source);
		count_recipients(f, r, s, source);
	} else if (connects) {
		unsigned source = source_of(f, r, true);
		f->source[source].connections++;
		if (r->own.code >= 400000)
			count_outcome(f, site_of(f, site), source, &r->own);
	} else if (jsonread_is(&r->event, "refusal")) {
		count_outcome(f, site_of(f, site), source_of(f, r, false), &r->own);
	} else if (jsonread_is(&r->event, "close")) {
		f->sessions++;
	} else if (jsonread_is(&r->event, "verdict")) {
		count_hook(f, r);
	} else if (jsonread_is(&r->event, "backoff")) {
		count_backoff(f, r, site);
	} else if (jsonread_is(&r->event, "tls") && (jsonread_is(&r->result, "failed") || jsonread_is(&r->result, "fallback"))) {
		plain_text(&r->reason, reason, sizeof reason);
		tally_of(&f->failures, *reason ? reason : "no reason")->count[0]++;
	}
}

static int more_messages(const void *a, const void *b)
{
	const struct findings_site *one = a, *other = b;

	if (one->messages != other->messages)
		return one->messages < other->messages ? 1 : -1;
	return strcmp(one->name, other->name);
}

static void rank_classes(struct findings *f)
{
	uint64_t total[FINDINGS_CLASSES] = { 0 };

	for (unsigned s = 0; s < f->sites; s++)
		for (unsigned c = 1; c < FINDINGS_CLASSES; c++)
			total[c] += f->site[s].class[c];
	for (unsigned c = 1; c < FINDINGS_CLASSES; c++)
		for (unsigned other = 1; other < FINDINGS_CLASSES; other++)
			f->class_rank[c] += total[other] > total[c] || (total[other] == total[c] && other < c);
}

void findings_order(struct findings *f)
{
	struct tally *all[] = { &f->texts, &f->senders, &f->clients, &f->tls, &f->failures, &f->hooks };

	f->older = f->messages;
	for (unsigned i = 0; i < f->sites; i++)
		for (unsigned h = 0; h < FINDINGS_HOURS; h++)
			for (unsigned r = 0; r < FINDINGS_RESULTS; r++)
				f->older -= f->site[i].hour[h].result[r];
	rank_classes(f);
	qsort(f->site + 1, f->sites - 1, sizeof *f->site, more_messages);
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		tally_sort(all[i]);
}
