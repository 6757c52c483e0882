/* Lists of TLS policies. See policylist.h for the contract. */
#define _GNU_SOURCE
#include "pure/policylist.h"
#include "pure/idna.h"

#include <string.h>
#include <strings.h>

/* A line in the block; the domain and the policy follow it. Heads stand at any address, so they are copied. */
struct head {
	uint16_t domain_len, policy_len;
};

struct span {
	const char *at;
	size_t n;
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static void skip_blanks(struct span *s)
{
	while (s->n && is_blank(*s->at)) {
		s->at++;
		s->n--;
	}
}

/* The next line of the text, without its end and blanks before that. */
static struct span next_line(struct span *rest)
{
	const char *end = memchr(rest->at, '\n', rest->n);
	struct span line = { rest->at, end ? (size_t)(end - rest->at) : rest->n };
	size_t whole = line.n + (end != NULL);

	rest->at += whole;
	rest->n -= whole;
	while (line.n && is_blank(line.at[line.n - 1]))
		line.n--;
	return line;
}

static bool says_nothing(struct span line)
{
	skip_blanks(&line);
	return !line.n || *line.at == '#';
}

/* A line with those that continue it, as it comes together. */
struct entry {
	size_t n;
	char text[POLICYLIST_LINE_MAX];
};

static bool append(struct entry *e, const struct span *line)
{
	if (line->n + 1 > sizeof e->text - e->n)
		return false;
	if (e->n)
		e->text[e->n++] = ' ';
	memcpy(e->text + e->n, line->at, line->n);
	e->n += line->n;
	return true;
}

/* Take a domain, perhaps with a dot before it, as domains are asked for, into ascii. Postfix has [HOST] and [HOST]:PORT, too, in a file that
 * may be here as well: nobody's domain. */
static bool take_domain(struct span *s, char ascii[DNS_NAME_MAX + 2])
{
	static const char never[] = { '*', '@', ':', '/', ',' };
	bool dot = *s->at == '.';
	size_t n;

	if (*s->at == '[')
		return !memchr(s->at, 0, s->n);
	for (size_t i = 0; i < sizeof never; i++)
		if (memchr(s->at, never[i], s->n))
			return false;
	n = idna_ascii((const unsigned char *)s->at + dot, s->n - dot, ascii + dot);
	*ascii = dot ? '.' : *ascii;
	*s = (struct span){ ascii, n + dot };
	return n;
}

static void note_wants(struct policylist *list, const struct tlspolicy *p)
{
	struct tlspolicy_names names;

	tlspolicy_names(p, NULL, "", &names);
	list->wants_dane = list->wants_dane || p->level == TLSPOLICY_DANE || p->level == TLSPOLICY_DANE_ONLY;
	list->wants_server = list->wants_server || (tlspolicy_tls(p) == TLS_VERIFY && !names.count);
}

/* Put it into the block. */
static const char *end_entry(struct policylist *list, const struct entry *e)
{
	struct span domain = { e->text, 0 }, policy;
	struct tlspolicy checked;
	struct head h;
	char ascii[DNS_NAME_MAX + 2];
	const char *why;

	while (domain.n < e->n && !is_blank(e->text[domain.n]))
		domain.n++;
	policy = (struct span){ e->text + domain.n, e->n - domain.n };
	skip_blanks(&policy);
	if (!take_domain(&domain, ascii))
		return "a line begins with a recipient's domain, or a dot and a domain, without *, @, a comma, colon or slash; "
		       "one that is not ASCII in lower case";
	why = tlspolicy_parse(&checked, policy.at, policy.n);
	if (why)
		return why;
	h = (struct head){ (uint16_t)domain.n, (uint16_t)policy.n };
	if (sizeof h + domain.n + policy.n > POLICYLIST_MAX - sizeof *list - list->used)
		return "too many policies";
	memcpy(list->bytes + list->used, &h, sizeof h);
	memcpy(list->bytes + list->used + sizeof h, domain.at, domain.n);
	memcpy(list->bytes + list->used + sizeof h + domain.n, policy.at, policy.n);
	list->used += (uint32_t)(sizeof h + domain.n + policy.n);
	list->count++;
	note_wants(list, &checked);
	return NULL;
}

const char *policylist_add(struct policylist *list, const char *text, size_t n, unsigned *line)
{
	struct span rest = { text, n };
	struct entry e = { .n = 0 };
	unsigned number = 0;
	const char *why = NULL;

	*line = 1;
	while (rest.n && !why) {
		struct span one = next_line(&rest);
		bool continues = one.n && is_blank(*one.at);

		number++;
		if (says_nothing(one))
			continue;
		if (e.n && !continues) {
			why = end_entry(list, &e);
			e.n = 0;
		}
		if (why)
			break;
		if (!e.n)
			*line = number;
		if (!e.n && continues)
			return "a line that begins with a blank continues one before it, and there is none";
		skip_blanks(&one);
		if (!append(&e, &one))
			return "the line is too long";
	}
	return why || !e.n ? why : end_entry(list, &e);
}

/* Whether the domain is the line's own, or below it. */
static bool is_for(const char *line, size_t n, const char *domain, size_t len)
{
	if (n == len)
		return strncasecmp(domain, line, n) == 0;
	return *line == '.' && n < len && strncasecmp(domain + len - n, line, n) == 0;
}

bool policylist_find(const struct policylist *list, const char *domain, const char **text, size_t *n)
{
	const char *at = (const char *)list->bytes, *end = at + list->used;
	size_t len = strlen(domain), nearest = 0;
	struct head h;

	if (len && domain[len - 1] == '.')
		len--;
	for (; at < end; at += h.domain_len + (size_t)h.policy_len) {
		memcpy(&h, at, sizeof h);
		at += sizeof h;
		if (h.domain_len <= nearest || !is_for(at, h.domain_len, domain, len))
			continue;
		nearest = h.domain_len;
		*text = at + h.domain_len;
		*n = h.policy_len;
	}
	return nearest > 0;
}
