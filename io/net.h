/* Sockets: addresses, the original destination of a redirected connection, outbound connections, listeners. Knows
 * nothing of SMTP. Functions that fail return -1 with errno set unless they say otherwise.
 */
#ifndef NET_H
#define NET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define NET_TEXT (INET6_ADDRSTRLEN + NET_ZONE_MAX)
#define NET_ZONE_MAX 17 /* "%eth0" of a link-local address */

/* family AF_UNSPEC: no IP address (e.g. a client's Unix socket); AF_UNIX: a server's, whose path stands elsewhere. */
union net_address {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* How a connection came to us. */
enum net_origin {
	NET_DIRECT,	/* somebody connected to our own address */
	NET_REDIRECTED, /* by REDIRECT or DNAT: SO_ORIGINAL_DST has the address */
	NET_TPROXY	/* the socket's local address is the one that was meant */
};

/* What an outbound connection is to look like. */
struct net_outbound {
	union net_address source4, source6; /* AF_UNSPEC: the kernel's choice */
	bool transparent;		    /* the source is not ours: IP_TRANSPARENT */
	uint32_t mark;			    /* SO_MARK, 0: none */
};

/* An IPv4 or IPv6 address without port, "10.0.0.1", "::1", "fe80::1%eth0". false: it is none. */
bool net_parse(const char *text, uint16_t port, union net_address *a);

/* Address without its port as text; "" if it is none of IP. Returns text. */
const char *net_text(const union net_address *a, char text[NET_TEXT]);

uint16_t net_port(const union net_address *a);

/* Same address and port. */
bool net_same(const union net_address *a, const union net_address *b);

/* Same address, whatever the port. */
bool net_same_host(const union net_address *a, const union net_address *b);

/* Whether the address is one of this host's: loopback, or one that can be bound. */
bool net_is_local(const union net_address *a);

/* 127.0.0.0/8 or ::1. */
bool net_is_loopback(const union net_address *a);

/* Addresses whose first bits are those of base. */
struct net_block {
	union net_address base;
	unsigned bits;
};

/* "10.0.0.0/8", "2001:db8::/32", or an address alone. false: it is none, or has bits set behind its prefix. */
bool net_block_parse(const char *text, struct net_block *r);
bool net_in_block(const union net_address *a, const struct net_block *r);

/* ::ffff:a.b.c.d, as a dual-stack socket sees IPv4 peers, becomes a.b.c.d; others stay. */
void net_unmap(union net_address *a);

/* Addresses of both ends; ::ffff:a.b.c.d becomes a.b.c.d. An end that is not IP becomes AF_UNSPEC. */
void net_ends(int fd, union net_address *local, union net_address *peer);
void net_local(int fd, union net_address *local);

/* Find where a connection was meant to go; *dest is AF_UNSPEC when it is NET_DIRECT. ip(7), iptables-extensions(8)
 * REDIRECT and TPROXY. */
enum net_origin net_original(int fd, const union net_address *local, const union net_address *peer,
    union net_address *dest);

#define NET_PATH_MAX 108 /* octets of a Unix socket's path, with its NUL */

/* Whether it is a name, and neither an address nor a path. */
bool net_is_name(const char *host);

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
