/* IP addresses. See address.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "pure/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct net_zones net_zones;

bool net_parse(const char *text, uint16_t port, union net_address *a)
{
	char host[NET_TEXT];
	const char *zone = strchr(text, '%');
	size_t n = zone ? (size_t)(zone - text) : strlen(text);

	memset(a, 0, sizeof *a);
	if (n >= sizeof host)
		return false;
	memcpy(host, text, n);
	host[n] = 0;
	if (!zone && inet_pton(AF_INET, host, &a->v4.sin_addr) == 1) {
		a->v4.sin_family = AF_INET;
		a->v4.sin_port = htons(port);
		return true;
	}
	if (inet_pton(AF_INET6, host, &a->v6.sin6_addr) != 1)
		return false;
	a->v6.sin6_family = AF_INET6;
	a->v6.sin6_port = htons(port);
	if (zone && net_zones.index)
		a->v6.sin6_scope_id = net_zones.index(zone + 1);
	return !zone || a->v6.sin6_scope_id;
}

const char *net_text(const union net_address *a, char text[NET_TEXT])
{
	char name[NET_ZONE_MAX];
	size_t n;

	text[0] = 0;
	if (a->sa.sa_family == AF_INET)
		inet_ntop(AF_INET, &a->v4.sin_addr, text, NET_TEXT);
	if (a->sa.sa_family != AF_INET6)
		return text;
	inet_ntop(AF_INET6, &a->v6.sin6_addr, text, NET_TEXT);
	n = strlen(text);
	if (a->v6.sin6_scope_id && net_zones.name && net_zones.name(a->v6.sin6_scope_id, name))
		snprintf(text + n, NET_TEXT - n, "%%%s", name);
	return text;
}

uint16_t net_port(const union net_address *a)
{
	if (a->sa.sa_family == AF_INET)
		return ntohs(a->v4.sin_port);
	return a->sa.sa_family == AF_INET6 ? ntohs(a->v6.sin6_port) : 0;
}

socklen_t net_size(const union net_address *a)
{
	return a->sa.sa_family == AF_INET6 ? sizeof a->v6 : sizeof a->v4;
}

bool net_same_host(const union net_address *a, const union net_address *b)
{
	if (a->sa.sa_family != b->sa.sa_family)
		return false;
	if (a->sa.sa_family == AF_INET)
		return a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
	return a->sa.sa_family == AF_INET6 && memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, 16) == 0 &&
	    a->v6.sin6_scope_id == b->v6.sin6_scope_id;
}

bool net_same_source(const union net_address *a, const union net_address *b)
{
	bool six = a->sa.sa_family == AF_INET6 && b->sa.sa_family == AF_INET6;

	if (!six || IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr) || IN6_IS_ADDR_V4MAPPED(&b->v6.sin6_addr))
		return net_same_host(a, b);
	return memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, 8) == 0;
}

bool net_same(const union net_address *a, const union net_address *b)
{
	return net_same_host(a, b) && net_port(a) == net_port(b);
}

bool net_is_loopback(const union net_address *a)
{
	if (a->sa.sa_family == AF_INET)
		return ntohl(a->v4.sin_addr.s_addr) >> 24 == 127;
	return a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr);
}

void net_unmap(union net_address *a)
{
	union net_address v4;

	if (a->sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr))
		return;
	memset(&v4, 0, sizeof v4);
	v4.v4.sin_family = AF_INET;
	v4.v4.sin_port = a->v6.sin6_port;
	memcpy(&v4.v4.sin_addr, a->v6.sin6_addr.s6_addr + 12, 4);
	*a = v4;
}

/* The octets of an address, and how many. */
static const unsigned char *octets(const union net_address *a, unsigned *n)
{
	*n = a->sa.sa_family == AF_INET6 ? 16 : 4;
	return a->sa.sa_family == AF_INET6 ? a->v6.sin6_addr.s6_addr : (const unsigned char *)&a->v4.sin_addr;
}

static unsigned char octet_mask(unsigned bits, unsigned i)
{
	if (bits <= 8 * i)
		return 0;
	return (unsigned char)(bits >= 8 * i + 8 ? 0xffu : 0xff00u >> (bits - 8 * i));
}

bool net_block_parse(const char *text, struct net_block *r)
{
	const char *slash = strchr(text, '/');
	char address[NET_TEXT], *end = NULL;
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	const unsigned char *in;
	unsigned n;
	unsigned long bits;

	if (len >= sizeof address)
		return false;
	memcpy(address, text, len);
	address[len] = 0;
	if (!net_parse(address, 0, &r->base))
		return false;
	net_unmap(&r->base);
	in = octets(&r->base, &n);
	bits = slash && slash[1] >= '0' && slash[1] <= '9' ? strtoul(slash + 1, &end, 10) : 8 * n;
	if ((slash && (!end || *end)) || bits > 8 * n)
		return false;
	r->bits = (unsigned)bits;
	for (unsigned i = 0; i < n; i++)
		if (in[i] & ~octet_mask(r->bits, i))
			return false;
	return true;
}

bool net_in_block(const union net_address *a, const struct net_block *r)
{
	unsigned n;
	const unsigned char *in = octets(a, &n), *base = octets(&r->base, &n);

	if (a->sa.sa_family != r->base.sa.sa_family)
		return false;
	for (unsigned i = 0; i < n; i++)
		if ((in[i] ^ base[i]) & octet_mask(r->bits, i))
			return false;
	return true;
}

bool net_is_name(const char *host)
{
	union net_address literal;

	return *host != '/' && !net_parse(host, 0, &literal);
}

const char *net_undotted(const char *name, char *room, size_t cap)
{
	size_t n = strlen(name);

	if (!n || name[n - 1] != '.' || n > cap)
		return name;
	memcpy(room, name, n - 1);
	room[n - 1] = 0;
	return room;
}
