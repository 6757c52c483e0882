/* Filters. See logfilter.h for the contract. */
#define _GNU_SOURCE /* FNM_CASEFOLD */
#include "stat/logfilter.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 1024

static bool set_time(int64_t *second, const char *value, int64_t now)
{
	char *end;
	long n = strtol(value, &end, 10);
	int64_t unit = *end == 'm' ? 60 : *end == 'h' ? 3600 : *end == 'd' ? 86400 : 0;

	if (unit && !end[1] && n >= 0 && n < 1000000) {
		*second = now - n * unit;
		return true;
	}
	return logrecord_second(value, strlen(value), second);
}

static bool is_code(const char *code)
{
	return strlen(code) == 3 && code[0] >= '2' && code[0] <= '5' && (strspn(code, "0123456789") == 3 ||
	    (strspn(code, "0123456789") == 2 && code[2] == 'x') || !strcmp(code + 1, "xx"));
}

const char *logfilter_set(struct logfilter *f, const char *option, const char *value, int64_t now)
{
	const struct {
		const char *name;
		const char **to;
	} texts[] = { { "site", &f->site }, { "class", &f->class }, { "code", &f->code }, { "from", &f->from }, { "to", &f->to },
		{ "session", &f->session }, { "text", &f->text } };

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		if (!strcmp(option, texts[i].name)) {
			*texts[i].to = value;
			return texts[i].to == &f->code && !is_code(value) ? "takes a reply code: 421, 42x or 4xx" : NULL;
		}
	if (!strcmp(option, "since") || !strcmp(option, "until"))
		return set_time(option[0] == 's' ? &f->since : &f->until, value, now)
			   ? NULL : "takes a time: 2026-11-28, 2026-11-28T12:50, or 90m, 24h, 7d ago";
	if (strcmp(option, "client"))
		return "";
	f->by_client = true;
	return net_block_parse(value, &f->client) ? NULL : "takes an address or a network: 192.0.2.1, 192.0.2.0/24";
}

bool logfilter_is_fine(const struct logfilter *f)
{
	return f->class || f->code || f->to || f->text;
}

static bool like(const struct jsonread_text *text, const char *pattern)
{
	char plain[TEXT_MAX];

	jsonread_unescape(text, plain, sizeof plain);
	return text->at && !fnmatch(pattern, plain, FNM_CASEFOLD);
}

bool logfilter_record(const struct logfilter *f, const struct logrecord *r)
{
	char site[LOGRECORD_SITE], text[NET_TEXT];
	union net_address a;

	if ((f->since && r->second < f->since) || (f->until && r->second >= f->until))
		return false;
	if (f->session && !jsonread_is(&r->session, f->session))
		return false;
	if (f->site && strcmp(logrecord_site(r, site), f->site))
		return false;
	if (f->from && !like(&r->from, f->from))
		return false;
	if (!f->by_client)
		return true;
	jsonread_unescape(&r->client, text, sizeof text);
	if (!net_parse(text, 0, &a))
		return false;
	net_unmap(&a);
	return net_in_block(&a, &f->client);
}

static bool same_code(const char *wanted, int64_t code)
{
	char text[24];

	snprintf(text, sizeof text, "%lld", (long long)code / 1000);
	for (int i = 0; i < 3; i++)
		if (wanted[i] != 'x' && wanted[i] != text[i])
			return false;
	return true;
}

bool logfilter_outcome(const struct logfilter *f, const struct logrecord_outcome *o)
{
	char class[32];
	const char *is = logrecord_class(o, class);

	return (!f->class || (is && !strcmp(is, f->class))) && (!f->code || same_code(f->code, o->code)) &&
	       (!f->to || like(&o->address, f->to)) && (!f->text || like(&o->text, f->text));
}
