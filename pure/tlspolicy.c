/* TLS policies. See tlspolicy.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "pure/tlspolicy.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char level_names[][12] = {
#define X(level, name) name,
	TLSPOLICY_LEVELS(X)
#undef X
};

static const char list_names[TLSPOLICY_LISTS][16] = { "match", "mx_host_pattern", "policy_string" };

struct words {
	const char *at;
	size_t n;
};

static bool is_word(const struct words *w, const char *word)
{
	return w->n == strlen(word) && strncasecmp(w->at, word, w->n) == 0;
}

/* ---- the text ---- */

static bool is_separator(char c)
{
	return c && strchr(" ,\t\r\n", c);
}

static void skip(struct words *w, size_t n)
{
	w->at += n;
	w->n -= n;
}

static void trim(struct words *w)
{
	while (w->n && isspace((unsigned char)*w->at))
		skip(w, 1);
	while (w->n && isspace((unsigned char)w->at[w->n - 1]))
		w->n--;
}

/* Octets of what stands in braces at the start, with them; 0: the last of them is missing. */
static size_t braced(const struct words *w)
{
	size_t depth = 0, n = 0;

	do {
		depth += w->at[n] == '{';
		depth -= w->at[n] == '}';
		n++;
	} while (depth && n < w->n);
	return depth ? 0 : n;
}

/* Take the next word, or what stands in braces. NULL: it is in *token; n is 0 if there is none. */
static const char *next_token(struct words *rest, struct words *token)
{
	size_t n = 0;

	while (rest->n && is_separator(*rest->at))
		skip(rest, 1);
	if (!rest->n || *rest->at != '{') {
		while (n < rest->n && !is_separator(rest->at[n]))
			n++;
		*token = (struct words){ rest->at, n };
		skip(rest, n);
		return NULL;
	}
	n = braced(rest);
	if (!n)
		return "a { has no }";
	*token = (struct words){ rest->at + 1, n - 2 };
	trim(token);
	skip(rest, n);
	return token->n && (!rest->n || is_separator(*rest->at)) ? NULL : "braces are for one attribute, { NAME = VALUE }";
}

static const char *split(const struct words *token, struct words *name, struct words *value)
{
	const char *equals = memchr(token->at, '=', token->n);

	if (!equals)
		return "an attribute is NAME=VALUE";
	*name = (struct words){ token->at, (size_t)(equals - token->at) };
	*value = (struct words){ equals + 1, token->n - name->n - 1 };
	trim(name);
	trim(value);
	return value->n ? NULL : "an attribute has no value";
}

/* ---- values ---- */

/* Copy a name that may stand in the DNS. */
static bool take_name(const struct words *w, char out[DNS_NAME_MAX + 1])
{
	if (w->n > DNS_NAME_MAX)
		return false;
	memcpy(out, w->at, w->n);
	out[w->n] = 0;
	return strlen(out) == w->n && dns_is_host(out);
}

/* Copy it with what may stand before it. */
static bool is_pattern(const struct words *w, const char *before)
{
	size_t n = strlen(before);
	struct words name = *w;
	char copy[DNS_NAME_MAX + 1];

	if (w->n > n && memcmp(w->at, before, n) == 0)
		skip(&name, n);
	return take_name(&name, copy);
}

/* Add a string to a list, the last one so far. */
static const char *add(struct tlspolicy *p, enum tlspolicy_list list, const char *at, size_t n)
{
	struct tlspolicy_span *span = &p->list[list];
	char *to = p->text + span->at + span->len;

	if (n >= TLSPOLICY_TEXT - (size_t)span->at - span->len)
		return "the policy is too long";
	for (size_t i = 0; i < n; i++)
		to[i] = isspace((unsigned char)at[i]) ? ' ' : at[i];
	to[n] = 0;
	span->len = (uint16_t)(span->len + n + 1);
	return NULL;
}

/* 32 pairs of digits, with or without colons between them. */
static const char *add_fingerprint(struct tlspolicy *p, const struct words *w)
{
	static const char fault[] = "a fingerprint is the SHA-256 of a certificate, 32 pairs of hexadecimal digits with colons between";
	char digits[2 * TLSPOLICY_SHA256];
	bool colons = w->n == 3 * TLSPOLICY_SHA256 - 1;
	size_t n = 0;

	if (!colons && w->n != sizeof digits)
		return fault;
	for (size_t i = 0; i < w->n; i++) {
		bool between = colons && i % 3 == 2;

		if (between ? w->at[i] != ':' : !isxdigit((unsigned char)w->at[i]))
			return fault;
		if (!between)
			digits[n++] = (char)tolower((unsigned char)w->at[i]);
	}
	return add(p, TLSPOLICY_MATCH, digits, n);
}

static const char *add_match(struct tlspolicy *p, const struct words *w)
{
	if (p->level == TLSPOLICY_FINGERPRINT)
		return add_fingerprint(p, w);
	return is_pattern(w, ".") ? add(p, TLSPOLICY_MATCH, w->at, w->n) : "match= takes names, .NAME, nexthop, dot-nexthop and hostname";
}

static const char *add_matches(struct tlspolicy *p, struct words value)
{
	char between = p->level == TLSPOLICY_FINGERPRINT ? '|' : ':';
	const char *why = NULL;

	if (p->level < TLSPOLICY_FINGERPRINT)
		return "match= is for the levels fingerprint, verify and secure";
	while (!why) {
		const char *end = memchr(value.at, between, value.n);
		struct words w = { value.at, end ? (size_t)(end - value.at) : value.n };

		why = add_match(p, &w);
		if (!end)
			break;
		skip(&value, w.n + 1);
	}
	return why;
}

static const char *add_to(struct tlspolicy *p, enum tlspolicy_list list, const struct words *value)
{
	static const char mode[] = "mode:";
	struct words rest = *value;

	if (list == TLSPOLICY_MATCH)
		return add_matches(p, *value);
	if (list == TLSPOLICY_MX && !is_pattern(value, "*."))
		return "mx_host_pattern= takes a name or *.NAME";
	if (memchr(value->at, 0, value->n))
		return "policy_string= has an octet that is no text";
	if (value->n > sizeof mode - 1 && strncasecmp(value->at, mode, sizeof mode - 1) == 0) {
		skip(&rest, sizeof mode - 1);
		trim(&rest);
		p->testing = p->testing || is_word(&rest, "testing");
	}
	return add(p, list, value->at, value->n);
}

static enum tlsrpt_code failure_code(const struct words *value)
{
	return is_word(value, "sts-policy-fetch-error") ? TLSRPT_STS_FETCH_ERROR :
	    is_word(value, "sts-policy-invalid")	? TLSRPT_STS_INVALID :
	    is_word(value, "sts-webpki-invalid")	? TLSRPT_STS_WEBPKI_INVALID :
							  TLSRPT_VALIDATION_FAILURE;
}

static const char *take_type(struct tlspolicy *p, const struct words *value)
{
	bool sts = is_word(value, "sts");

	p->type = sts ? TLSPOLICY_STS : TLSPOLICY_NOT_FOUND;
	return sts || is_word(value, "no-policy-found") ? NULL : "policy_type= takes sts or no-policy-found";
}

/* An attribute that is no list. */
static const char *take_one(struct tlspolicy *p, const struct words *name, const struct words *value)
{
	if (is_word(name, "servername"))
		return take_name(value, p->servername) ? NULL : "servername= takes a name, nexthop or hostname";
	if (is_word(name, "policy_domain"))
		return take_name(value, p->domain) ? NULL : "policy_domain= takes a name";
	if (is_word(name, "policy_type"))
		return take_type(p, value);
	if (is_word(name, "policy_failure"))
		p->failure = failure_code(value);
	return is_word(name, "tafile") ? "tafile= is not known: the file of --tls-ca says whom to trust" : NULL;
}

/* Take the attributes of a list, or those that are none (TLSPOLICY_LISTS): a list's stand together, however they come. */
static const char *take_attributes(struct tlspolicy *p, struct words rest, enum tlspolicy_list list)
{
	struct words token, name, value;
	const char *why = next_token(&rest, &token);

	while (!why && token.n) {
		why = split(&token, &name, &value);
		if (!why && list == TLSPOLICY_LISTS)
			why = take_one(p, &name, &value);
		else if (!why && is_word(&name, list_names[list]))
			why = add_to(p, list, &value);
		if (!why)
			why = next_token(&rest, &token);
	}
	return why;
}

static bool take_level(struct tlspolicy *p, const struct words *word)
{
	for (unsigned i = 0; i < sizeof level_names / sizeof *level_names; i++)
		if (is_word(word, level_names[i])) {
			p->level = (enum tlspolicy_level)i;
			return true;
		}
	return false;
}

/* What is wrong with it as a whole. */
static const char *check(const struct tlspolicy *p)
{
	if (p->level == TLSPOLICY_FINGERPRINT && !p->list[TLSPOLICY_MATCH].len)
		return "fingerprint needs match=";
	return p->list[TLSPOLICY_MX].len && p->type != TLSPOLICY_STS ? "mx_host_pattern= needs policy_type=sts" : NULL;
}

const char *tlspolicy_parse(struct tlspolicy *p, const char *text, size_t n)
{
	struct words rest = { text, n }, level;
	size_t used = 0;
	const char *why;

	memset(p, 0, offsetof(struct tlspolicy, text));
	why = next_token(&rest, &level);
	if (!why && !take_level(p, &level))
		why = "a policy begins with none, may, encrypt, dane, dane-only, fingerprint, verify or secure";
	for (unsigned list = 0; !why && list <= TLSPOLICY_LISTS; list++) {
		if (list < TLSPOLICY_LISTS)
			p->list[list].at = (uint16_t)used;
		why = take_attributes(p, rest, (enum tlspolicy_list)list);
		used += list < TLSPOLICY_LISTS ? p->list[list].len : 0u;
	}
	p->testing = p->testing && p->type == TLSPOLICY_STS;
	return why ? why : check(p);
}

/* ---- what it asks for ---- */

const char *tlspolicy_level_name(enum tlspolicy_level level)
{
	return level_names[level];
}

enum tls_level tlspolicy_tls(const struct tlspolicy *p)
{
	if (p->testing)
		return TLS_MAY;
	switch (p->level) {
	case TLSPOLICY_NONE:
		return TLS_NONE;
	case TLSPOLICY_MAY:
	case TLSPOLICY_DANE:
		return TLS_MAY;
	case TLSPOLICY_ENCRYPT:
	case TLSPOLICY_DANE_ONLY:
	case TLSPOLICY_FINGERPRINT:
		return TLS_ENCRYPT;
	case TLSPOLICY_VERIFY:
	case TLSPOLICY_SECURE:
		break;
	}
	return TLS_VERIFY;
}

const char *tlspolicy_first(const struct tlspolicy *p, enum tlspolicy_list list)
{
	return p->list[list].len ? p->text + p->list[list].at : NULL;
}

const char *tlspolicy_next(const struct tlspolicy *p, enum tlspolicy_list list, const char *s)
{
	s += strlen(s) + 1;
	return s < p->text + p->list[list].at + p->list[list].len ? s : NULL;
}

/* ---- names ---- */

bool tlspolicy_fits(const char *pattern, const char *name)
{
	const char *rest = strchr(name, '.');

	if (strncmp(pattern, "*.", 2) == 0)
		return rest && rest > name && strcasecmp(rest, pattern + 1) == 0;
	return strcasecmp(name, pattern) == 0;
}

bool tlspolicy_permits(const struct tlspolicy *p, const char *server)
{
	const char *s = tlspolicy_first(p, TLSPOLICY_MX);

	if (!s)
		return true;
	for (; s; s = tlspolicy_next(p, TLSPOLICY_MX, s))
		if (tlspolicy_fits(s, server))
			return true;
	return false;
}

static void add_name(struct tlspolicy_names *names, const char *name)
{
	if (name && names->count < TLSPOLICY_NAMES)
		names->name[names->count++] = name;
}

static void add_matching(struct tlspolicy_names *names, const char *match, const char *server, const char *domain)
{
	if (strcasecmp(match, "hostname") == 0) {
		add_name(names, server);
	} else if (strcasecmp(match, "nexthop") == 0) {
		add_name(names, domain);
	} else if (strcasecmp(match, "dot-nexthop") == 0) {
		snprintf(names->below, sizeof names->below, ".%s", domain);
		add_name(names, names->below);
	} else {
		add_name(names, match);
	}
}

void tlspolicy_names(const struct tlspolicy *p, const char *server, const char *domain, struct tlspolicy_names *names)
{
	enum tlspolicy_list list = p->list[TLSPOLICY_MX].len ? TLSPOLICY_MX : TLSPOLICY_MATCH;
	const char *s = tlspolicy_first(p, list);

	names->count = 0;
	if (server && (list == TLSPOLICY_MX || (!s && p->level == TLSPOLICY_VERIFY))) {
		add_name(names, server);
		return;
	}
	if (!s && p->level != TLSPOLICY_VERIFY) {
		add_matching(names, "nexthop", server, domain);
		add_matching(names, "dot-nexthop", server, domain);
	}
	for (; s; s = tlspolicy_next(p, list, s))
		add_matching(names, s, server, domain);
}

bool tlspolicy_has_fingerprint(const struct tlspolicy *p, const unsigned char fingerprint[TLSPOLICY_SHA256])
{
	const char *s = p->level == TLSPOLICY_FINGERPRINT ? tlspolicy_first(p, TLSPOLICY_MATCH) : NULL;
	char text[2 * TLSPOLICY_SHA256 + 1];

	for (unsigned i = 0; i < TLSPOLICY_SHA256; i++)
		sprintf(text + 2 * (size_t)i, "%02x", fingerprint[i]);
	for (; s; s = tlspolicy_next(p, TLSPOLICY_MATCH, s))
		if (strcmp(s, text) == 0)
			return true;
	return false;
}

const char *tlspolicy_servername(const struct tlspolicy *p, const char *server, const char *domain)
{
	if (strcasecmp(p->servername, "hostname") == 0)
		return server;
	if (strcasecmp(p->servername, "nexthop") == 0)
		return domain;
	return *p->servername ? p->servername : NULL;
}
