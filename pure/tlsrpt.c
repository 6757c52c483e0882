/* Reports for TLSRPT. See tlsrpt.h for the contract. */
#include "pure/tlsrpt.h"
#include "pure/json.h"

#include <string.h>

static void put_text(struct json *j, const char *name, const char *text)
{
	if (text)
		json_string(j, name, text);
}

static void put_list(struct json *j, const char *name, const char *strings, size_t len)
{
	if (!len)
		return;
	json_open(j, name, '[');
	for (size_t at = 0; at < len; at += strlen(strings + at) + 1)
		json_string(j, NULL, strings + at);
	json_close(j, ']');
}

static void put_failure(struct json *j, const struct tlsrpt_failure *f)
{
	json_open(j, NULL, '{');
	json_number(j, "c", f->code);
	put_text(j, "s", f->source);
	put_text(j, "n", f->mx);
	put_text(j, "h", f->helo);
	put_text(j, "r", f->server);
	put_text(j, "a", f->info);
	put_text(j, "f", f->reason);
	json_close(j, '}');
}

static void put_policy(struct json *j, const struct tlsrpt_policy *p)
{
	json_open(j, NULL, '{');
	json_number(j, "policy-type", p->type);
	put_text(j, "policy-domain", p->domain);
	put_list(j, "policy-string", p->strings, p->strings_len);
	put_list(j, "mx-host", p->mx_hosts, p->mx_hosts_len);
	if (p->failures) {
		json_open(j, "failure-details", '[');
		for (unsigned i = 0; i < p->failures; i++)
			put_failure(j, &p->failure[i]);
		json_close(j, ']');
	}
	json_number(j, "t", p->failures);
	json_number(j, "f", p->failed);
	json_close(j, '}');
}

size_t tlsrpt_write(const struct tlsrpt_report *r, char *out, size_t cap)
{
	struct json j;

	json_begin(&j, out, cap);
	json_string(&j, "dpv", "1");
	json_string(&j, "d", r->domain);
	json_string(&j, "pr", r->record);
	json_open(&j, "policies", '[');
	for (unsigned i = 0; i < r->policies; i++)
		put_policy(&j, &r->policy[i]);
	json_close(&j, ']');
	return json_end(&j);
}

const char *tlsrpt_record(const struct dns_answer *answer)
{
	static const char version[] = "v=TLSRPTv1;";
	const char *found = NULL;
	unsigned seen = 0;

	for (size_t at = 0; at < answer->texts_len; at += strlen(answer->texts + at) + 1, seen++) {
		if (strncmp(answer->texts + at, version, sizeof version - 1) != 0)
			continue;
		if (found)
			return NULL;
		found = answer->texts + at;
	}
	return seen == answer->count ? found : NULL; /* one that is left out may be one more */
}
