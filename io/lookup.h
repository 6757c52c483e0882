/* The addresses of a host name: from hosts(5), else from the DNS as resolv.conf(5) says. Nothing here waits; the session polls.
 * A process has one lookup at a time, and returns its memory when it ends.
 */
#ifndef LOOKUP_H
#define LOOKUP_H

#include "io/dns.h"

#define LOOKUP_MAX 8	/* addresses of a name that are used */
#define LOOKUP_POLLED 2

/* Whether a line of hosts(5) has this name, in any case of letters, and an address, which goes to *a. The line is written to. */
bool lookup_hosts_line(char *line, const char *name, uint16_t port, union net_address *a);

/* Begin to look a name up. patience: at most so long; times as in dns.h. given: the servers of --dns-server. */
void lookup_start(const char *host, uint16_t port, const struct dns_servers *given, int64_t now, int64_t patience);

/* Go on as far as possible without waiting. true: the lookup is over. */
bool lookup_turn(int64_t now);

/* While the lookup is under way: when to call lookup_turn() though nothing comes in, and the descriptors to poll, at most
 * LOOKUP_POLLED (returns how many). */
int64_t lookup_deadline(void);
unsigned lookup_watch(struct pollfd *p);

/* End a lookup that is over. Returns how many addresses there are, best first; 0: none, why is filled. */
size_t lookup_end(union net_address list[LOOKUP_MAX], char *why, size_t why_cap);

/* Give the lookup up. */
void lookup_stop(void);

#endif
