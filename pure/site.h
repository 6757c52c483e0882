/* Whose server it is. Servers of one provider are one site, for what one of them says of our address the others do as well. Where nobody
 * has proved a name, the neighbourhood of the address is the site. No I/O.
 */
#ifndef SITE_H
#define SITE_H

#include "pure/address.h"
#include "pure/statemap.h"

/* The site of an address of which no more is known: "203.0.113.0/24", "2001:db8:1::/48", or "unix". */
void site_of_address(const union net_address *a, char site[STATEMAP_SITE]);

/* The site of a server with this proven name, without regard to case and a dot at its end: the name of a provider, else the name less its
 * first label, unless what is left may be anybody's. Returns whether it is a provider. providers: n octets of a file, may be none: a line for
 * each, with a name and the ends of host names. */
bool site_of_name(const char *providers, size_t n, const char *host, char site[STATEMAP_SITE]);

/* Check such a file. Returns the number of the first line that is none, with *why in static storage; 0: it is in order. */
unsigned site_check(const char *providers, size_t n, const char **why);

#endif
