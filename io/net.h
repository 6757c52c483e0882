/* Sockets: the original destination of a redirected connection, outbound connections, listeners. Knows
 * nothing of SMTP. Functions that fail return -1 with errno set unless they say otherwise.
 */
#ifndef NET_H
#define NET_H

#include "pure/address.h"

/* From now on addresses may have zones of this host's interfaces. */
void net_use_zones(void);

/* How a connection came to us. */
enum net_origin {
	NET_DIRECT,	/* to an address of ours, as far as we can tell */
	NET_REDIRECTED, /* by REDIRECT or DNAT: SO_ORIGINAL_DST has the address */
	NET_TPROXY	/* by TPROXY: the socket's local address is the destination */
};

/* Whether the address is one of this host's, by its routing tables: rtnetlink(7), RTM_GETROUTE. Not asked by bind(2), which takes any
 * address where net.ipv4.ip_nonlocal_bind is set. false also where the kernel cannot be asked. */
bool net_is_local(const union net_address *a);

/* Addresses of both ends of a connection; ::ffff:a.b.c.d becomes a.b.c.d. An end without an IP address becomes AF_UNSPEC. */
void net_ends(int fd, union net_address *local, union net_address *peer);
void net_local(int fd, union net_address *local);

/* Find the original destination of a connection; *dest is AF_UNSPEC for NET_DIRECT. ip(7), iptables-extensions(8) REDIRECT and
 * TPROXY. */
enum net_origin net_original(int fd, const union net_address *local, const union net_address *peer,
    union net_address *dest);

/* Find the ports for connections that are to be apart: the kernel gives no socket a port outside of ip_local_port_range, ip(7). Without
 * this call the first such connection of the process does it. false: that range leaves too few ports, so such connections take
 * what the kernel gives them. */
bool net_find_ports(void);

/* Begin a non-blocking connection. Returns the socket, which may still be connecting (poll for POLLOUT, then call
 * net_connected()), or -1 with *what saying which step failed (static storage). */
int net_connect(const union net_address *dest, const struct net_outbound *out, const char **what);

/* Connect a non-blocking Unix socket to a path. Waits for room in a full backlog, for `patience` microseconds at most; 0: no
 * limit. */
int net_connect_unix(const char *path, int64_t patience);

/* Returns 0 if connected, else the errno of the attempt. */
int net_connected(int fd);

/* Whether the peer has said that nothing more comes (FIN), or is gone, even if octets before that are unread. */
bool net_has_left(int fd);

/* Mark a connection as ours for all smtpwarp processes of our user in this network namespace, until the returned descriptor is closed:
 * an abstract Unix socket named after both ends, unix(7). Returns -1 if that fails. */
int net_claim(const union net_address *local, const union net_address *remote);

/* Whether a smtpwarp of our user made a connection from this address to that one: it is the peer's, and the redirect caught it. Anybody
 * can take such a name, so only our user's sockets count. */
bool net_is_claimed(const union net_address *peer, const union net_address *original);

/* Take n of the `all` units of something that the processes of our user in this network namespace share; what names it, in up to 20
 * characters. Returns the socket that holds the share until it is closed, as the kernel does when a process dies. -1: errno EAGAIN, the
 * others have too much; or shares cannot be counted. Shares never add up to more than `all`, whoever asks at the same time; of several that
 * fit alone and not together, one gets its share. unix(7), sock_diag(7). */
int net_take_share(const char *what, uint64_t n, uint64_t all);

/* How many units all shares of this kind have together. false: they cannot be counted. */
bool net_shares(const char *what, uint64_t *n);

/* Bind and listen. Returns the socket, or -1. */
int net_listen(const union net_address *a, int backlog);

/* What a descriptor is: a SOCK_STREAM socket, listening or connected, or neither. */
enum net_kind { NET_NO_SOCKET, NET_LISTENING, NET_CONNECTED };
enum net_kind net_kind(int fd);

void net_nodelay(int fd);

#endif
