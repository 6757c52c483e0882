/* Sockets: the original destination of a redirected connection, outbound connections, listeners. Knows
 * nothing of SMTP. Functions that fail return -1 with errno set unless they say otherwise.
 */
#ifndef NET_H
#define NET_H

#include "pure/address.h"

/* How a connection came to us. */
enum net_origin {
	NET_DIRECT,	/* somebody connected to our own address */
	NET_REDIRECTED, /* by REDIRECT or DNAT: SO_ORIGINAL_DST has the address */
	NET_TPROXY	/* the socket's local address is the one that was meant */
};

/* Whether the address is one of this host's: loopback, or one that can be bound. */
bool net_is_local(const union net_address *a);

/* Addresses of both ends; ::ffff:a.b.c.d becomes a.b.c.d. An end that is not IP becomes AF_UNSPEC. */
void net_ends(int fd, union net_address *local, union net_address *peer);
void net_local(int fd, union net_address *local);

/* Find where a connection was meant to go; *dest is AF_UNSPEC when it is NET_DIRECT. ip(7), iptables-extensions(8)
 * REDIRECT and TPROXY. */
enum net_origin net_original(int fd, const union net_address *local, const union net_address *peer,
    union net_address *dest);

/* Begin a non-blocking connection. Returns the socket, whose connect may still be under way (poll for POLLOUT, then
 * net_connected()), or -1; then *what says which step failed (static storage). */
int net_connect(const union net_address *dest, const struct net_outbound *out, const char **what);

/* Connect a non-blocking Unix socket to a path. One whose backlog is full is waited for so long, in microseconds; 0: as long
 * as it takes. */
int net_connect_unix(const char *path, int64_t patience);

/* 0: connected; else the errno of the attempt. */
int net_connected(int fd);

/* Make a connection known as ours to all smtpwarp processes of this network namespace until the returned descriptor
 * is closed (an abstract Unix socket named after its local end, unix(7)); -1 if that cannot be done. */
int net_claim(const union net_address *local);

/* Whether a peer's address is the local end of a connection that some smtpwarp made: the redirect caught it. */
bool net_is_claimed(const union net_address *peer);

/* Bind and listen. Returns the socket or -1. */
int net_listen(const union net_address *a, int backlog);

/* SOCK_STREAM socket, listening or connected. */
enum net_kind { NET_NO_SOCKET, NET_LISTENING, NET_CONNECTED };
enum net_kind net_kind(int fd);

void net_nodelay(int fd);

#endif
