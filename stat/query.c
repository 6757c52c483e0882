/* Queries. See query.h for the contract. */
#include "stat/query.h"

#include "pure/json.h"
#include "stat/arguments.h"
#include "stat/logfile.h"
#include "stat/logfilter.h"
#include "stat/plain.h"
#include "stat/reading.h"
#include "stat/tally.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#define NAMES 1024 /* of each kind that totals have */
#define TOTALS_MAX (1u << 20)

struct query {
	struct logfilter filter;
	bool json, totals_only;
	uint64_t records, outcomes;
	struct tally class, site, code;
};

static void show_outcome(const struct logrecord *r, const struct logrecord_outcome *o, const char *site, const char *class)
{
	char time[40], event[40], from[320], to[320], text[1024];

	printf("%s %s %s %s %lld <%s> -> <%s> %s\n", plain_text(&r->time, time, sizeof time), plain_text(&r->event, event, sizeof event), site,
	    class, (long long)o->code / 1000, plain_text(&r->from, from, sizeof from), plain_text(&o->address, to, sizeof to),
	    plain_text(&o->text, text, sizeof text));
}

/* One that the filter lets through is counted, and shown. */
static bool take_outcome(struct query *q, const struct logrecord *r, const struct logrecord_outcome *o)
{
	char site[LOGRECORD_SITE], class[32], code[8];
	const char *is = logrecord_class(o, class);

	if (!logfilter_outcome(&q->filter, o))
		return false;
	logrecord_site(r, site);
	plain_make(site, sizeof site);
	is = is ? plain_make(class, sizeof class) : "-";
	snprintf(code, sizeof code, "%d", (int)(o->code / 1000) % 1000);
	q->outcomes++;
	tally_of(&q->site, *site ? site : "-")->count[0]++;
	tally_of(&q->class, is)->count[0]++;
	tally_of(&q->code, code)->count[0]++;
	if (!q->json && !q->totals_only)
		show_outcome(r, o, *site ? site : "-", is);
	return true;
}

/* Records that have no outcome and yet are worth a line. */
static void show_other(const struct logrecord *r)
{
	char time[40], event[40], site[LOGRECORD_SITE], from[40], to[40], why[80], text[1024];

	if (jsonread_is(&r->event, "backoff"))
		printf("%s %s %s %s -> %s (%s) %s\n", plain_text(&r->time, time, sizeof time), plain_text(&r->event, event, sizeof event),
		    plain_make((char *)(uintptr_t)logrecord_site(r, site), sizeof site), plain_text(&r->state_from, from, sizeof from),
		    plain_text(&r->state_to, to, sizeof to), plain_text(&r->why, why, sizeof why), plain_text(&r->own.text, text, sizeof text));
	else if (jsonread_is(&r->event, "error"))
		printf("%s %s %s\n", plain_text(&r->time, time, sizeof time), plain_text(&r->event, event, sizeof event),
		    plain_text(&r->reason, text, sizeof text));
}

static unsigned take_recipients(struct query *q, const struct logrecord *r)
{
	struct jsonread at;
	struct logrecord_outcome o;
	unsigned found = 0;

	jsonread_begin(&at, r->recipients.at ? r->recipients.at : "[]", r->recipients.at ? r->recipients.n : 2);
	if (jsonread_array(&at))
		while (logrecord_recipient(&at, &o))
			found += take_outcome(q, r, &o);
	return found;
}

static void take(void *arg, const char *line, size_t n, const struct logrecord *r)
{
	struct query *q = arg;
	bool fine = logfilter_is_fine(&q->filter), message = jsonread_is(&r->event, "message");
	unsigned found = 0;

	if (!logfilter_record(&q->filter, r))
		return;
	if (message && r->recipients.n > 2)
		found = take_recipients(q, r);
	else if (message ? r->reply.code : r->own.code >= 400000)
		found = take_outcome(q, r, message ? &r->reply : &r->own);
	else if (!fine && !q->json && !q->totals_only)
		show_other(r);
	if (fine && !found)
		return;
	q->records++;
	if (q->json && !q->totals_only) {
		fwrite(line, 1, n, stdout);
		putchar('\n');
	}
}

static void show_tally(struct tally *t, const char *name, uint64_t of)
{
	tally_sort(t);
	printf("\n%s\n", name);
	for (unsigned i = 0; i < t->n; i++)
		printf("%10llu %5.1f %%  %s\n", (unsigned long long)t->entry[i].count[0], 100.0 * (double)t->entry[i].count[0] / (double)of,
		    t->entry[i].name);
	if (t->lost)
		printf("There were more names than %d: rare ones are left out, and a count lacks %llu at most.\n", NAMES,
		    (unsigned long long)t->lost);
}

static void json_tally(struct json *j, struct tally *t, const char *name)
{
	tally_sort(t);
	json_open(j, name, '{');
	for (unsigned i = 0; i < t->n; i++)
		json_number(j, t->entry[i].name, t->entry[i].count[0]);
	json_close(j, '}');
}

static void show_totals(struct query *q, const struct reading *reading)
{
	static char text[TOTALS_MAX];
	struct json j;

	if (q->json) {
		json_begin(&j, text, sizeof text);
		json_number(&j, "records", q->records);
		json_number(&j, "outcomes", q->outcomes);
		json_tally(&j, &q->class, "class");
		json_tally(&j, &q->site, "site");
		json_tally(&j, &q->code, "code");
		json_number(&j, "torn", reading->file.torn);
		json_number(&j, "wrong", reading->wrong);
		fwrite(text, 1, json_end(&j), stdout);
		return;
	}
	printf("%s%llu records, %llu recipients and refusals\n", q->totals_only ? "" : "\n", (unsigned long long)q->records,
	    (unsigned long long)q->outcomes);
	if (!q->outcomes)
		return;
	show_tally(&q->class, "class", q->outcomes);
	show_tally(&q->site, "site", q->outcomes);
	show_tally(&q->code, "code", q->outcomes);
}

int query_main(char **arguments)
{
	static struct query q;
	struct arguments a = { .next = arguments };
	struct reading reading = { .take = take, .arg = &q };
	char *operand;
	const char *option;

	while ((option = arguments_next(&a, &operand)) || operand) {
		if (!option) {
			reading_add(&reading, operand);
		} else if (!strcmp(option, "json") || !strcmp(option, "totals")) {
			arguments_flag(&a, option);
			*(option[0] == 'j' ? &q.json : &q.totals_only) = true;
		} else {
			reading_filter(&q.filter, &a, option);
		}
	}
	if (!tally_begin(&q.class, NAMES) || !tally_begin(&q.site, NAMES) || !tally_begin(&q.code, NAMES))
		return EX_OSERR;
	int status = reading_files(&reading);
	if (!q.json || q.totals_only)
		show_totals(&q, &reading);
	return fflush(stdout) ? EX_IOERR : status;
}
