/* Values of --dnsbl. See dnsbl.h for the contract. */
#define _GNU_SOURCE
#include "pure/dnsbl.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static bool parse_octet(const char **at, unsigned *value)
{
	if (!isdigit((unsigned char)**at))
		return false;
	for (*value = 0; isdigit((unsigned char)**at) && *value < 256; (*at)++)
		*value = *value * 10 + (unsigned)(**at - '0');
	return *value < 256;
}

/* "4", or "[2;4..11]". */
static bool parse_octet_set(const char **at, unsigned char set[32])
{
	bool many = **at == '[';
	unsigned first, last;

	*at += many;
	for (;;) {
		if (!parse_octet(at, &first))
			return false;
		last = first;
		if (many && strncmp(*at, "..", 2) == 0) {
			*at += 2;
			if (!parse_octet(at, &last) || last < first)
				return false;
		}
		for (unsigned i = first; i <= last; i++)
			set[i / 8] |= (unsigned char)(1u << i % 8);
		if (!many || **at != ';')
			break;
		(*at)++;
	}
	if (many && *(*at)++ != ']')
		return false;
	return true;
}

static bool parse_filter(const char **at, struct dnsbl *d)
{
	memset(d->octet, 0, sizeof d->octet);
	for (int i = 0; i < 4; i++) {
		if (i && *(*at)++ != '.')
			return false;
		if (!parse_octet_set(at, d->octet[i]))
			return false;
	}
	return true;
}

static bool parse_weight(const char **at, struct dnsbl *d)
{
	char *end;
	long weight = strtol(*at, &end, 10);

	if (end == *at || isspace((unsigned char)**at) || weight < -1000 || weight > 1000)
		return false;
	*at = end;
	d->weight = (int)weight;
	return true;
}

/* A zone must have several labels: a single one is more likely a mistake. */
static bool is_zone(const char *zone)
{
	unsigned char question[DNS_QUERY];

	return strchr(zone, '.') && dns_ask(0, zone, DNS_A, question) &&
	    !zone[strspn(zone, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")];
}

const char *dnsbl_parse(struct dnsbl *d, const char *value)
{
	static const char want[] = "takes ZONE, ZONE=127.0.0.[2;4..11] or ZONE=127.0.0.2*WEIGHT";
	size_t n = strcspn(value, "=*");

	if (n > DNSBL_ZONE_MAX)
		return "names a zone that is too long";
	memcpy(d->zone, value, n);
	d->zone[n] = 0;
	memset(d->octet, 0xff, sizeof d->octet);
	d->weight = 1;
	value += n;
	if (!is_zone(d->zone) || (*value == '=' && (value++, !parse_filter(&value, d))))
		return want;
	if (*value == '*' && (value++, !parse_weight(&value, d)))
		return want;
	return *value ? want : NULL;
}

bool dnsbl_matches(const struct dnsbl *d, uint32_t address)
{
	for (unsigned i = 0; i < 4; i++) {
		unsigned value = address >> (24 - 8 * i) & 255;

		if (!(d->octet[i][value / 8] & 1u << value % 8))
			return false;
	}
	return true;
}
