/* Records of the log. See logrecord.h for the contract. */
#include "stat/logrecord.h"

#include "pure/address.h"

#include <stdio.h>
#include <string.h>

enum kind { TEXT, NUMBER, FLAG, ANY, OBJECT };

/* Which member goes where in struct logrecord. */
struct field {
	const char *name;
	enum kind kind;
	unsigned offset;
	const struct field *members; /* of OBJECT; a name of NULL ends them */
};

#define AT(member) offsetof(struct logrecord, member)
#define END { NULL, ANY, 0, NULL }

static const struct field client[] = { { "ip", TEXT, AT(client), NULL }, END };
static const struct field server_tls[] = { { "version", TEXT, AT(server_tls_version), NULL }, { "verified", FLAG, AT(server_tls_verified), NULL },
	END };
static const struct field server[] = { { "ip", TEXT, AT(server), NULL }, { "tls", OBJECT, 0, server_tls }, END };
static const struct field source[] = { { "ip", TEXT, AT(source), NULL }, END };
static const struct field sender[] = { { "address", TEXT, AT(from), NULL }, END };
static const struct field reply[] = { { "code", NUMBER, AT(reply.code), NULL }, { "class", TEXT, AT(reply.class), NULL },
	{ "text", TEXT, AT(reply.text), NULL }, END };
static const struct field refusal[] = { { "code", NUMBER, AT(refusal.code), NULL }, { "class", TEXT, AT(refusal.class), NULL },
	{ "text", TEXT, AT(refusal.text), NULL }, END };
static const struct field fields[] = {
	{ "event", TEXT, AT(event), NULL }, { "time", TEXT, AT(time), NULL }, { "session", TEXT, AT(session), NULL },
	{ "site", TEXT, AT(site), NULL }, { "client", OBJECT, 0, client }, { "server", OBJECT, 0, server },
	{ "source", OBJECT, AT(source), source }, { "mail_from", OBJECT, 0, sender }, { "rcpt_to", ANY, AT(recipients), NULL },
	{ "reply", OBJECT, 0, reply }, { "refusal", OBJECT, 0, refusal }, { "result", TEXT, AT(result), NULL },
	{ "size", NUMBER, AT(size), NULL }, { "first_rcpt", NUMBER, AT(first_rcpt), NULL },
	{ "data_reply_ms", NUMBER, AT(data_reply_ms), NULL }, { "data_ms", NUMBER, AT(data_ms), NULL },
	{ "rcpt_ms", NUMBER, AT(rcpt_ms), NULL }, { "accept_ms", NUMBER, AT(accept_ms), NULL }, { "hook_ms", NUMBER, AT(hook_ms), NULL },
	{ "code", NUMBER, AT(own.code), NULL }, { "class", TEXT, AT(own.class), NULL }, { "text", TEXT, AT(own.text), NULL },
	{ "version", TEXT, AT(tls_version), NULL }, { "hook", TEXT, AT(hook), NULL }, { "on", TEXT, AT(on), NULL },
	{ "verdict", TEXT, AT(verdict), NULL }, { "from", TEXT, AT(state_from), NULL }, { "to", TEXT, AT(state_to), NULL },
	{ "why", TEXT, AT(why), NULL },
	{ "by", TEXT, AT(by), NULL }, { "reason", TEXT, AT(reason), NULL }, { "error", TEXT, AT(reason), NULL }, END };

static void read_value(struct logrecord *r, struct jsonread *in, const struct field *f)
{
	struct jsonread_text text = { 0 };
	void *to = (char *)r + f->offset;

	if (f->kind == NUMBER) {
		jsonread_thousandths(in, to);
	} else if (f->kind == FLAG) {
		jsonread_bool(in, to);
	} else if (f->kind == TEXT || f->kind == OBJECT) {
		if (jsonread_string(in, &text) && (f->kind == TEXT || f->offset))
			*(struct jsonread_text *)to = text;
	} else {
		jsonread_any(in, to);
	}
}

/* Of an object, in which `in` is, those members that there is a field for. */
static void read_members(struct logrecord *r, struct jsonread *in, const struct field *wanted)
{
	struct jsonread_text name, skipped;
	const struct field *f;

	while (jsonread_member(in, &name)) {
		for (f = wanted; f->name && !jsonread_is(&name, f->name); f++)
			;
		if (!f->name)
			jsonread_any(in, &skipped);
		else if (f->kind == OBJECT && jsonread_at_object(in) && jsonread_object(in))
			read_members(r, in, f->members);
		else
			read_value(r, in, f);
	}
}

static int64_t days(int64_t year, int64_t month, int64_t day)
{
	int64_t y = year - (month <= 2), era = y / 400, of_era = y - era * 400;
	int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* So many digits as a number; -1: these are none. */
static int64_t digits(const char *text, size_t n)
{
	int64_t value = 0;

	for (size_t i = 0; i < n; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -1;
		value = value * 10 + text[i] - '0';
	}
	return value;
}

bool logrecord_second(const char *text, size_t n, int64_t *second)
{
	int64_t year, month, day, hour = 0, minute = 0, s = 0;

	if (n < 10 || text[4] != '-' || text[7] != '-')
		return false;
	year = digits(text, 4);
	month = digits(text + 5, 2);
	day = digits(text + 8, 2);
	if (n > 10) {
		if (n < 16 || (text[10] != 'T' && text[10] != ' ') || text[13] != ':')
			return false;
		hour = digits(text + 11, 2);
		minute = digits(text + 14, 2);
		if (n >= 19 && text[16] == ':')
			s = digits(text + 17, 2);
		else if (n > 17 || (n == 17 && text[16] != 'Z'))
			return false;
	}
	*second = days(year, month, day) * 86400 + hour * 3600 + minute * 60 + s;
	return year >= 1970 && month >= 1 && month <= 12 && day >= 1 && day <= 31 && hour >= 0 && hour < 24 && minute >= 0 && minute < 60 &&
	       s >= 0 && s <= 60;
}

bool logrecord_read(struct logrecord *r, const char *line, size_t n)
{
	struct jsonread in;

	memset(r, 0, sizeof *r);
	r->size = r->first_rcpt = r->data_reply_ms = r->data_ms = r->rcpt_ms = r->accept_ms = r->hook_ms = LOGRECORD_NONE;
	jsonread_begin(&in, line, n);
	if (!jsonread_object(&in))
		return false;
	read_members(r, &in, fields);
	return jsonread_end(&in) && r->event.at && r->time.at && logrecord_second(r->time.at, r->time.n, &r->second);
}

bool logrecord_recipient(struct jsonread *at, struct logrecord_outcome *o)
{
	struct jsonread_text name, skipped;

	memset(o, 0, sizeof *o);
	if (!jsonread_element(at))
		return false;
	if (!jsonread_object(at))
		return true;
	while (jsonread_member(at, &name)) {
		if (jsonread_is(&name, "address"))
			jsonread_string(at, &o->address);
		else if (jsonread_is(&name, "code"))
			jsonread_thousandths(at, &o->code);
		else if (jsonread_is(&name, "class"))
			jsonread_string(at, &o->class);
		else if (jsonread_is(&name, "text"))
			jsonread_string(at, &o->text);
		else
			jsonread_any(at, &skipped);
	}
	return true;
}

const char *logrecord_site(const struct logrecord *r, char site[LOGRECORD_SITE])
{
	char text[NET_TEXT], shown[NET_TEXT];
	union net_address a;

	if (r->site.at) {
		jsonread_unescape(&r->site, site, LOGRECORD_SITE);
		return site;
	}
	site[0] = 0;
	jsonread_unescape(&r->server, text, sizeof text);
	if (!net_parse(text, 0, &a))
		return site;
	net_unmap(&a);
	if (a.sa.sa_family == AF_INET)
		((unsigned char *)&a.v4.sin_addr)[3] = 0;
	else
		memset(a.v6.sin6_addr.s6_addr + 6, 0, 10);
	snprintf(site, LOGRECORD_SITE, "%.40s/%d", net_text(&a, shown), a.sa.sa_family == AF_INET ? 24 : 48);
	return site;
}

const char *logrecord_class(const struct logrecord_outcome *o, char class[32])
{
	if (o->class.at)
		jsonread_unescape(&o->class, class, 32);
	else if (o->code)
		snprintf(class, 32, "%s", o->code < 400000 ? "ok" : "other");
	else
		return NULL;
	return class;
}
