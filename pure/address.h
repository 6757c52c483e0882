/* IP addresses: text, comparison, blocks. No I/O: names of interfaces, for the zone of a link-local address ("%eth0"), come from
 * net_zones.
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

/* Family AF_UNSPEC: no IP address, e.g. of a client at a Unix socket. AF_UNIX: a server at a Unix socket, whose path is kept
 * elsewhere. */
union net_address {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* As if_nametoindex(3) and if_indextoname(3), which net_use_zones() of io/net.h puts here. NULL, as at first: an address with a zone
 * is no address, and texts have no zone. */
extern struct net_zones {
	unsigned (*index)(const char *name);
	char *(*name)(unsigned index, char *name);
} net_zones;

/* Addresses whose first bits are those of base. */
struct net_block {
	union net_address base;
	unsigned bits;
};

/* How to make an outbound connection. */
struct net_outbound {
	union net_address source4, source6; /* AF_UNSPEC: the kernel's choice */
	bool transparent;		    /* the source is no address of ours: IP_TRANSPARENT */
	bool apart;			    /* from a port that the kernel gives to nobody */
	uint32_t mark;			    /* SO_MARK, 0: none */
};

#define NET_PATH_MAX 108 /* octets of a Unix socket's path, with its NUL */

/* Parse an IPv4 or IPv6 address without port: "10.0.0.1", "::1", "fe80::1%eth0". false: it is no address. */
bool net_parse(const char *text, uint16_t port, union net_address *a);

/* The address as text, without its port; "" if it is no IP address. Returns text. */
const char *net_text(const union net_address *a, char text[NET_TEXT]);

uint16_t net_port(const union net_address *a);

/* Octets of it, as connect(2) wants to know. */
socklen_t net_size(const union net_address *a);

/* Whether address and port are the same. */
bool net_same(const union net_address *a, const union net_address *b);

/* Whether the address is the same, whatever the port. */
bool net_same_host(const union net_address *a, const union net_address *b);

/* Whether both are of one source: the same IPv4 address, or the same IPv6 network of 64 bits, of which a customer has one at least. */
bool net_same_source(const union net_address *a, const union net_address *b);

/* Whether it is in 127.0.0.0/8 or ::1. */
bool net_is_loopback(const union net_address *a);

/* Parse "10.0.0.0/8", "2001:db8::/32", or an address alone. false: it is none of them, or has bits set after its prefix. */
bool net_block_parse(const char *text, struct net_block *r);
bool net_in_block(const union net_address *a, const struct net_block *r);

/* Turn ::ffff:a.b.c.d, as a dual-stack socket shows IPv4 peers, into a.b.c.d; other addresses stay. */
void net_unmap(union net_address *a);

/* Whether it is a name, not an address or a path. */
bool net_is_name(const char *host);

/* A host's name without a dot at its end, which ends a name for the DNS, and is in no answer and no certificate (RFC 6066 3). Returns name
 * itself, if it has none or room is too small for it, or room, which has cap octets. */
const char *net_undotted(const char *name, char *room, size_t cap);

#endif
