/* IP addresses: text, comparison, blocks. No I/O, but that the zone of a link-local address ("%eth0") is looked up among the
 * interfaces of this host.
 */
#ifndef ADDRESS_H
#define ADDRESS_H

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

/* Addresses whose first bits are those of base. */
struct net_block {
	union net_address base;
	unsigned bits;
};

/* What an outbound connection is to look like. */
struct net_outbound {
	union net_address source4, source6; /* AF_UNSPEC: the kernel's choice */
	bool transparent;		    /* the source is not ours: IP_TRANSPARENT */
	uint32_t mark;			    /* SO_MARK, 0: none */
};

#define NET_PATH_MAX 108 /* octets of a Unix socket's path, with its NUL */

/* An IPv4 or IPv6 address without port, "10.0.0.1", "::1", "fe80::1%eth0". false: it is none. */
bool net_parse(const char *text, uint16_t port, union net_address *a);

/* Address without its port as text; "" if it is none of IP. Returns text. */
const char *net_text(const union net_address *a, char text[NET_TEXT]);

uint16_t net_port(const union net_address *a);

/* Same address and port. */
bool net_same(const union net_address *a, const union net_address *b);

/* Same address, whatever the port. */
bool net_same_host(const union net_address *a, const union net_address *b);

/* 127.0.0.0/8 or ::1. */
bool net_is_loopback(const union net_address *a);

/* "10.0.0.0/8", "2001:db8::/32", or an address alone. false: it is none, or has bits set behind its prefix. */
bool net_block_parse(const char *text, struct net_block *r);
bool net_in_block(const union net_address *a, const struct net_block *r);

/* ::ffff:a.b.c.d, as a dual-stack socket sees IPv4 peers, becomes a.b.c.d; others stay. */
void net_unmap(union net_address *a);

/* Whether it is a name, and neither an address nor a path. */
bool net_is_name(const char *host);

#endif
