/* The addresses of a host's name: by hosts(5), else by the DNS as resolv.conf(5) wants it asked. Nothing of it waits; the session
 * polls. There is one lookup at a time in a process, and its memory is given back when it ends.
 */
#ifndef LOOKUP_H
#define LOOKUP_H

#include "io/dns.h"

#define LOOKUP_MAX 8	/* addresses of a name that are of use */
#define LOOKUP_POLLED 2

/* A line of hosts(5): whether it has this name, in capitals or not, and an address, which goes to *a. It is written to. */
bool lookup_hosts_line(char *line, const char *name, uint16_t port, union net_address *a);

/* Begin to look a name up, for so long at most; times as in dns.h. given: --dns-server. */
void lookup_start(const char *host, uint16_t port, const struct dns_servers *given, int64_t now, int64_t patience);

/* Go on as far as it goes without waiting. true: it is over. */
bool lookup_turn(int64_t now);

/* When lookup_turn() has something to do though nothing comes; what to poll, at most LOOKUP_POLLED entries (returns how many).
 * While it is under way. */
int64_t lookup_deadline(void);
unsigned lookup_watch(struct pollfd *p);

/* It is over: returns how many addresses there are, the best first, or 0 with why. */
size_t lookup_end(union net_address list[LOOKUP_MAX], char *why, size_t why_cap);

/* It is no longer wanted. */
void lookup_stop(void);

#endif
