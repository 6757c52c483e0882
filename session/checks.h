/* Checks of clients and recipients: who may come at all, lists of the DNS, clients that speak too early, recipients that
 * there are, and delays for those that were refused. What a session does about them is session.h's; here is what options and
 * the listener need.
 */
#ifndef CHECKS_H
#define CHECKS_H

#include "io/dns.h"
#include "pure/ere.h"

#define CHECKS_DNSBL_MAX 16
#define CHECKS_ALLOW_MAX 64
#define CHECKS_ZONE_MAX (DNS_NAME_MAX - 64) /* a reversed IPv6 address stands before it */

/* ZONE[=FILTER][*WEIGHT], as postscreen_dnsbl_sites of postconf(5) has it. */
struct dnsbl {
	char zone[CHECKS_ZONE_MAX + 1];
	int weight;
	unsigned char octet[4][32]; /* bits: values that the octets of an answer may have */
};

/* Where options keep what is large: apart from what all sessions touch. */
extern struct checks_values {
	struct net_block allow[CHECKS_ALLOW_MAX];
	struct dnsbl dnsbl[CHECKS_DNSBL_MAX];
	struct ere valid_recipients;
} checks_values;

bool matches(const struct dnsbl *d, uint32_t address);

struct options;
struct hook_list;

/* NULL, or what value should have been. */
const char *checks_dnsbl_parse(struct dnsbl *d, const char *value);

/* Why clients of this local address could relay anywhere that --upstream or --routes lead, though nothing says who may: NULL if they
 * cannot. Static storage. */
const char *checks_open_relay(const struct options *o, const struct hook_list *hooks, const union net_address *local);

#endif
