/* Checks of clients and recipients: who may come at all, lists of the DNS, clients that speak too early, recipients that
 * there are, and delays for those that were refused. What a session does about them is session.h's; here is what options and
 * the listener need.
 */
#ifndef CHECKS_H
#define CHECKS_H

#include "pure/address.h"

struct options;
struct hook_list;

/* Why clients of this local address could relay anywhere that --upstream or --routes lead, though nothing says who may: NULL if they
 * cannot. Static storage. */
const char *checks_open_relay(const struct options *o, const struct hook_list *hooks, const union net_address *local);

#endif
