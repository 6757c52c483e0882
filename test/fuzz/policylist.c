/* Fuzz target: whatever stands in a file of policies, whatever a recipient's domain is.
 *
 * Octet 0: how long the domain is; then the domain, then the file. Checked: a fault is one of a line of the file; the block holds at any
 * address; what is found is a policy, and the one that Postfix would find: it looks for the domain, then for each domain above it. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "pure/policylist.h"
#include "test/lib/replay.h"

#define CHECK(condition) ((condition) ? (void)0 : abort())

/* The policy of a line for exactly this domain; NULL: there is none. */
static const char *line_of(const struct policylist *list, const char *domain, size_t *n)
{
	const unsigned char *at = list->bytes, *end = at + list->used;

	while (at < end) {
		uint16_t len[2];

		memcpy(len, at, sizeof len);
		at += sizeof len;
		if (len[0] == strlen(domain) && strncasecmp((const char *)at, domain, len[0]) == 0) {
			*n = len[1];
			return (const char *)at + len[0];
		}
		at += len[0] + (size_t)len[1];
	}
	CHECK(at == end);
	return NULL;
}

static void check(const struct policylist *list, char *domain)
{
	static struct tlspolicy p;
	const char *text, *want, *above = domain;
	size_t n, want_n;
	bool found = policylist_find(list, domain, &text, &n);

	if (*domain && domain[strlen(domain) - 1] == '.')
		domain[strlen(domain) - 1] = 0;
	want = line_of(list, domain, &want_n);
	while (!want && *above && (above = strchr(above + 1, '.')) != NULL)
		want = line_of(list, above, &want_n);
	CHECK(found == (want != NULL));
	CHECK(!found || (text == want && n == want_n && !tlspolicy_parse(&p, text, n)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct policylist *list = calloc(1, POLICYLIST_MAX), *exact;
	char domain[256];
	const char *why;
	unsigned line;
	size_t len;

	if (n < 1 || !list) {
		free(list);
		return 0;
	}
	len = data[0] < n ? data[0] : n - 1;
	memcpy(domain, data + 1, len);
	domain[len] = 0;
	why = policylist_add(list, (const char *)data + 1 + len, n - 1 - len, &line);
	CHECK(!why || (line >= 1 && line <= n));
	exact = malloc(sizeof *list + list->used); /* elsewhere, and not a reader's octet too long */
	CHECK(exact != NULL);
	memcpy(exact, list, sizeof *list + list->used);
	check(exact, domain);
	free(exact);
	free(list);
	return 0;
}
