/* Lists of hosts in the DNS (RFC 5782) as --dnsbl names them. No I/O.
 */
#ifndef DNSBL_H
#define DNSBL_H

#include "pure/dnsmessage.h"

#define DNSBL_ZONE_MAX (DNS_NAME_MAX - 64) /* octets: a reversed IPv6 address stands before it */

/* ZONE[=FILTER][*WEIGHT], as in postscreen_dnsbl_sites of postconf(5). */
struct dnsbl {
	char zone[DNSBL_ZONE_MAX + 1];
	int weight;
	unsigned char octet[4][32]; /* bits: values that the octets of an answer may have */
};

/* Returns NULL, or what value should have been (static storage). */
const char *dnsbl_parse(struct dnsbl *d, const char *value);

/* Whether the filter lets an answer through: an IPv4 address in host order. */
bool dnsbl_matches(const struct dnsbl *d, uint32_t address);

#endif
