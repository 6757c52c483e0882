/* DNS lists (RFC 5782) in the form of --dnsbl. No I/O.
 */
#ifndef DNSBL_H
#define DNSBL_H

#include "pure/dnsmessage.h"

#define DNSBL_ZONE_MAX (DNS_NAME_MAX - 64) /* octets: leaves room for a reversed IPv6 address */

/* ZONE[=FILTER][*WEIGHT], as in postscreen_dnsbl_sites of postconf(5). */
struct dnsbl {
	char zone[DNSBL_ZONE_MAX + 1];
	int weight;
	unsigned char octet[4][32]; /* bits: values that each octet of an answer may have */
};

/* Parse a value of --dnsbl. Returns NULL, or what it should have been (static storage). */
const char *dnsbl_parse(struct dnsbl *d, const char *value);

/* Whether an answer, an IPv4 address in host order, passes the filter. */
bool dnsbl_matches(const struct dnsbl *d, uint32_t address);

#endif
