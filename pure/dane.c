/* DANE for SMTP. See dane.h. */
#include "pure/dane.h"

#include <string.h>

static bool is_certificate(struct certificate *c, const unsigned char *der, size_t n)
{
	return certificate_read(c, der, n) && c->der.len == n;
}

/* RFC 7672 3.1; a digest of another length, and what is no certificate, can match nothing: RFC 7671 4. */
static bool is_usable(const struct dns_tlsa *r)
{
	struct certificate c;

	if ((r->usage != DANE_TA && r->usage != DANE_EE) || r->selector >= DANE_SELECTORS)
		return false;
	switch (r->matching) {
	case DANE_FULL:
		return r->selector == DANE_KEY ? r->len > 0 : is_certificate(&c, r->data, r->len);
	case DANE_SHA256:
		return r->len == 32;
	case DANE_SHA512:
		return r->len == 64;
	}
	return false;
}

bool dane_add(struct dane_set *set, unsigned host, const struct dns_tlsa *record)
{
	if (!is_usable(record))
		return false;
	if (set->count == DANE_RECORDS || record->len > sizeof set->data - set->len) {
		set->cut = true;
		return false;
	}
	set->record[set->count++] = (struct dane_record){ (unsigned char)host, record->usage, record->selector, record->matching,
		(uint16_t)set->len, (uint16_t)record->len };
	memcpy(set->data + set->len, record->data, record->len);
	set->len += record->len;
	return true;
}

int dane_take(struct dane_set *set, unsigned host, const struct dns_answer *answer)
{
	unsigned before = set->count;
	size_t len = set->len;

	for (unsigned i = 0; i < answer->count; i++) {
		struct dns_tlsa r = dns_tlsa(answer, i);

		dane_add(set, host, &r);
	}
	if (!set->cut && !answer->cut)
		return (int)(set->count - before);
	set->count = before;
	set->len = len;
	set->cut = false;
	return -1;
}

static bool is_weaker(const struct dane_record *r, const struct dane_record *other)
{
	return r->matching == DANE_SHA256 && other->matching == DANE_SHA512 && r->host == other->host && r->usage == other->usage &&
	    r->selector == other->selector;
}

static bool counts(const struct dane_set *set, const struct dane_record *r)
{
	for (unsigned i = 0; i < set->count; i++)
		if (is_weaker(r, &set->record[i]))
			return false;
	return true;
}

static bool matches(const struct dane_set *set, const struct dane_record *r, const struct dane_subject *subject)
{
	const struct certificate_span *part = &subject->part[r->selector];
	const unsigned char *want = r->matching == DANE_FULL   ? part->bytes :
	    r->matching == DANE_SHA256 ? subject->sha256[r->selector] :
					 subject->sha512[r->selector];

	return (r->matching != DANE_FULL || r->len == part->len) && memcmp(set->data + r->at, want, r->len) == 0;
}

bool dane_matches(const struct dane_set *set, enum dane_usage usage, const struct dane_subject *subject)
{
	for (unsigned i = 0; i < set->count; i++) {
		const struct dane_record *r = &set->record[i];

		if (r->usage == usage && counts(set, r) && matches(set, r, subject))
			return true;
	}
	return false;
}

bool dane_anchor(const struct dane_set *set, unsigned i, struct certificate *c)
{
	const struct dane_record *r = &set->record[i];

	return r->usage == DANE_TA && r->selector == DANE_CERTIFICATE && r->matching == DANE_FULL &&
	    is_certificate(c, set->data + r->at, r->len);
}
