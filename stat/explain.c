/* The sub-command explain. See explain.h for the contract. */
#define _GNU_SOURCE
#include "stat/explain.h"

#include "io/file.h"
#include "io/providers.h"
#include "io/rulefiles.h"
#include "io/statefile.h"
#include "pure/options.h"
#include "pure/site.h"
#include "smtp.h"
#include "stat/arguments.h"
#include "stat/snapshot.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sysexits.h>
#include <unistd.h>

struct explain {
	const char *state, *providers, *reply, *what;
	enum reply_stage stage; /* of the reply; REPLY_STAGES_END: of any */
	char rules[OPTIONS_FILES_MAX][256];
	unsigned files; /* of rules */
	char site[STATEMAP_SITE];
};

static void put(const char *word, const char *text)
{
	printf("%-9s%s\n", word, text);
}

/* ---- whose server it is ---- */

/* The line of the providers' file that has this host; 0: none. */
static unsigned provider_line(const char *text, size_t n, const char *host)
{
	const char *at = text, *stop = text + n;
	char site[STATEMAP_SITE];

	for (unsigned number = 1; at < stop; number++) {
		const char *end = memchr(at, '\n', (size_t)(stop - at));
		size_t len = end ? (size_t)(end - at) : (size_t)(stop - at);

		if (site_of_name(at, len, host, site))
			return number;
		at += len + 1;
	}
	return 0;
}

static void explain_host(struct explain *e, const char *host)
{
	char text[600];
	size_t n;
	const char *providers = providers_text(&n);
	bool known = site_of_name(providers, n, host, e->site);

	put("site", e->site);
	if (known)
		snprintf(text, sizeof text, "the host's name ends as line %u of %s has it", provider_line(providers, n, host), e->providers);
	else
		snprintf(text, sizeof text, "no line of %s has this host: the site is its domain", e->providers);
	put("because", text);
}

/* What sessions have learnt of an address, the file of --state knows for a day. */
static bool is_learnt(const struct explain *e, const char *network, char site[STATEMAP_SITE])
{
	char why[STATEFILE_WHY];
	int fd;
	const struct statemap *m = statefile_view(e->state, &fd, why);
	bool learnt = m && statemap_learnt(m, network, statefile_now(), site);

	if (m) {
		munmap((void *)(uintptr_t)m, sizeof *m);
		close(fd);
	}
	return learnt;
}

static void explain_address(struct explain *e, const union net_address *a)
{
	char network[STATEMAP_SITE], text[200];

	site_of_address(a, network);
	if (is_learnt(e, network, e->site)) {
		snprintf(text, sizeof text, "a server in %s has had a name of this site within the last day", network);
	} else {
		strcpy(e->site, network);
		snprintf(text, sizeof text, "no server in this network has had a name that counts within the last day");
	}
	put("site", e->site);
	put("because", text);
}

static void explain_site(struct explain *e)
{
	union net_address a;
	bool network = strchr(e->what, '/') != NULL;

	if (net_parse(e->what, 25, &a)) {
		explain_address(e, &a);
	} else if (!network && strchr(e->what, '.')) {
		explain_host(e, e->what);
	} else {
		snprintf(e->site, sizeof e->site, "%s", e->what);
		put("site", e->site);
	}
}

/* ---- what is known of it ---- */

static void put_score(const char *what, uint32_t score, unsigned alarm)
{
	printf("%9s%s %u, alarm at %u\n", "", what, score, alarm);
}

static void put_row(const struct snapshot_row *r, uint64_t now)
{
	const struct detector *d = &r->detector;

	printf("%-9s%s: %s", "source", *r->source ? r->source : "-", detector_state_name(d->state));
	if (d->changed && d->changed <= now)
		printf(" for %llu s", (unsigned long long)(now - d->changed) / 1000000);
	if (d->until > now)
		printf(", it would be wise to hold back for %llu s", (unsigned long long)(d->until - now) / 1000000);
	putchar('\n');
	put_score("throttling: score", d->score, DETECTOR_ALARM);
	put_score("time to 354: score", d->late[DETECTOR_DATA], DETECTOR_LATE_ALARM);
	put_score("time to answer RCPT: score", d->late[DETECTOR_RCPT], DETECTOR_LATE_ALARM);
	if (r->said)
		printf("%9slast refusal: %s: %s\n", "", replyclass_name(r->class), r->text);
}

/* Returns the exit status. */
static int explain_state(const struct explain *e)
{
	char why[512];
	const struct snapshot *s = snapshot_take(e->state, why, sizeof why);
	unsigned found = 0;

	if (!s) {
		fprintf(stderr, "smtpwarp-stat: %s\n", why);
		return EX_NOINPUT;
	}
	for (unsigned i = 0; i < s->rows; i++)
		if (strcmp(s->row[i].site, e->site) == 0) {
			put_row(&s->row[i], s->now);
			found++;
		}
	if (!found)
		put("source", "none: no session has been there since the counts began, or it is counted as \"other\"");
	return EX_OK;
}

/* ---- what a reply means ---- */

static bool find_rule(const struct explain *e, const struct reply_line *line, enum reply_stage *stage, struct replyrule *rule)
{
	const struct replyrules *rules = rulefiles_current();

	for (*stage = 0; rules && *stage < REPLY_STAGES_END; ++*stage)
		if ((e->stage == REPLY_STAGES_END || e->stage == *stage) && replyrules_match(rules, e->site, *stage, line, rule))
			return true;
	*stage = e->stage == REPLY_STAGES_END ? REPLY_AT_RCPT : e->stage;
	return false;
}

static void explain_reply(const struct explain *e)
{
	struct reply_line line = { 0 };
	struct replyrule rule;
	struct smtp_line reply;
	enum reply_stage stage;
	uint16_t enhanced[3];

	if (!smtp_parse_reply((const unsigned char *)e->reply, strlen(e->reply), &reply))
		arguments_wrong(e->reply, "is no reply: give one line, such as \"421 4.7.0 Try again later\"");
	replyclass_add(&line, reply.code, reply.text, reply.text_len);
	if (find_rule(e, &line, &stage, &rule)) {
		printf("%-9s%s, %s's, by line %u of %s\n", "class", replyclass_name(rule.class), replyclass_scope_name(rule.scope), rule.line,
		    rule.file < e->files ? e->rules[rule.file] : "replies.rules, which ships with smtpwarp");
		return;
	}
	smtp_enhanced(reply.text, reply.text_len, enhanced);
	printf("%-9s%s, by its codes at %s: no rule matches\n", "class", replyclass_name(replyclass_of(stage, reply.code, enhanced, &line)),
	    replyclass_stage_name(stage));
}

/* ---- the command line ---- */

static void take_option(struct explain *e, struct arguments *a, const char *option)
{
	const char *value = arguments_value(a, option);

	if (strcmp(option, "state") == 0) {
		e->state = value;
	} else if (strcmp(option, "providers") == 0) {
		e->providers = value;
	} else if (strcmp(option, "reply") == 0) {
		e->reply = value;
	} else if (strcmp(option, "stage") == 0) {
		e->stage = replyclass_parse_stage(value, strlen(value));
		if (e->stage == REPLY_STAGES_END)
			arguments_wrong(value, "is no stage: connect, banner, ehlo, tls, mail, rcpt, data or dot");
	} else if (strcmp(option, "reply-rules") == 0) {
		if (e->files == OPTIONS_FILES_MAX || strlen(value) >= sizeof *e->rules)
			arguments_wrong(value, "is too much: 8 files, with names of 255 octets");
		strcpy(e->rules[e->files++], value);
	} else {
		arguments_unknown(option);
	}
}

int explain_main(char **arguments)
{
	struct arguments a = { .next = arguments };
	struct explain e = { .state = STATEMAP_FILE, .providers = OPTIONS_PROVIDERS, .stage = REPLY_STAGES_END };
	const char *option;
	char *operand, why[600];

	while ((option = arguments_next(&a, &operand)) || operand) {
		if (option)
			take_option(&e, &a, option);
		else if (e.what)
			arguments_wrong(operand, "is one too many: explain takes one site, host or address");
		else
			e.what = operand;
	}
	if (!e.what)
		arguments_wrong("explain", "needs a site, host or address");
	if (!providers_load(e.providers, strcmp(e.providers, OPTIONS_PROVIDERS) == 0, why, sizeof why) ||
	    !rulefiles_load((const char (*)[256])e.rules, e.files, why, sizeof why)) {
		fprintf(stderr, "smtpwarp-stat: %s\n", why);
		return EX_CONFIG;
	}
	explain_site(&e);
	if (e.reply)
		explain_reply(&e);
	return explain_state(&e);
}
