/* Fuzz target: whatever a map or a file says is the policy, whatever the server's name is.
 *
 * Octet 0: how long the name is; then the name, then the policy. Checked: what a policy says fits its room, and written down again it says
 * the same; a server is permitted only by one of its words. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "pure/tlspolicy.h"
#include "test/lib/replay.h"

#define CHECK(condition) ((condition) ? (void)0 : abort())
#define ROOM (8 * TLSPOLICY_TEXT)

static const char *const attributes[TLSPOLICY_LISTS] = { "match", "mx_host_pattern", "policy_string" };

static void check_lists(const struct tlspolicy *p)
{
	size_t end = 0;

	for (unsigned i = 0; i < TLSPOLICY_LISTS; i++) {
		const char *s = tlspolicy_first(p, (enum tlspolicy_list)i);
		size_t n = 0;

		CHECK(p->list[i].at == end && end + p->list[i].len <= TLSPOLICY_TEXT);
		for (; s; s = tlspolicy_next(p, (enum tlspolicy_list)i, s)) {
			CHECK(*s && !strpbrk(s, "\t\r\n\v\f"));
			n += strlen(s) + 1;
		}
		CHECK(n == p->list[i].len);
		end += n;
	}
}

/* The policy in words again, in another order than it may have come. Returns octets; 0: a string cannot stand in braces alone. */
static size_t write_down(const struct tlspolicy *p, char out[ROOM])
{
	static const char *const types[] = { "", " policy_type=sts", " policy_type=no-policy-found" };
	size_t n = (size_t)sprintf(out, "%s%s", tlspolicy_level_name(p->level), types[p->type]);

	for (unsigned i = TLSPOLICY_LISTS; i--;)
		for (const char *s = tlspolicy_first(p, (enum tlspolicy_list)i); s; s = tlspolicy_next(p, (enum tlspolicy_list)i, s)) {
			if (strpbrk(s, "{}"))
				return 0;
			n += (size_t)sprintf(out + n, ", { %s = %s }", attributes[i], s);
		}
	if (*p->servername)
		n += (size_t)sprintf(out + n, " servername=%s", p->servername);
	if (*p->domain)
		n += (size_t)sprintf(out + n, " policy_domain=%s", p->domain);
	return n;
}

static void check_again(const struct tlspolicy *p)
{
	static char out[ROOM];
	static struct tlspolicy again;
	size_t n = write_down(p, out);

	if (!n)
		return;
	CHECK(!tlspolicy_parse(&again, out, n));
	CHECK(again.level == p->level && again.type == p->type && again.testing == p->testing);
	CHECK(memcmp(again.list, p->list, sizeof p->list) == 0 && strcmp(again.domain, p->domain) == 0);
	for (unsigned i = 0; i < TLSPOLICY_LISTS; i++)
		CHECK(memcmp(again.text + again.list[i].at, p->text + p->list[i].at, p->list[i].len) == 0);
}

/* Whether the name ends as one of the words does, behind its last asterisk or dot at the start; most names do not. */
static bool is_akin(const struct tlspolicy *p, enum tlspolicy_list list, const char *name)
{
	for (const char *s = tlspolicy_first(p, list); s; s = tlspolicy_next(p, list, s)) {
		const char *end = s + strspn(s, "*."), *other = name + strspn(name, "*.");
		size_t n = strlen(end), len = strlen(other);

		if ((n <= len && strcasecmp(other + len - n, end) == 0) || (len <= n && strcasecmp(end + n - len, other) == 0))
			return true;
	}
	return false;
}

static void check_names(const struct tlspolicy *p, const char *server)
{
	static const unsigned char zeros[TLSPOLICY_SHA256];
	struct tlspolicy_names names;

	if (p->list[TLSPOLICY_MX].len)
		CHECK(!tlspolicy_permits(p, server) || is_akin(p, TLSPOLICY_MX, server));
	tlspolicy_names(p, server, "domain.example", &names);
	CHECK(names.count > 0 && names.count <= TLSPOLICY_NAMES);
	tlspolicy_names(p, NULL, "domain.example", &names);
	for (size_t i = 0; i < names.count; i++)
		CHECK(*names.name[i]);
	tlspolicy_has_fingerprint(p, zeros);
	tlspolicy_servername(p, server, "domain.example");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct tlspolicy p;
	char name[256];
	size_t len;

	if (n < 1)
		return 0;
	len = data[0] < n ? data[0] : n - 1;
	memcpy(name, data + 1, len);
	name[len] = 0;
	if (tlspolicy_parse(&p, (const char *)data + 1 + len, n - 1 - len))
		return 0;
	CHECK(p.level <= TLSPOLICY_SECURE && (!p.testing || tlspolicy_tls(&p) == TLS_MAY));
	check_lists(&p);
	check_again(&p);
	check_names(&p, name);
	return 0;
}
