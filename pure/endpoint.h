/* HOST:PORT, and what names a server to connect to. No I/O.
 */
#ifndef ENDPOINT_H
#define ENDPOINT_H

#include "pure/address.h"

struct upstream {
	char host[256]; /* or the path of a Unix socket */
	uint16_t port;
	bool implicit_tls; /* smtps:// */
	bool lmtp;	   /* lmtp://, lmtp:unix: */
};

/* What endpoint_upstream() takes, for messages. */
#define ENDPOINT_WORDS "HOST, HOST:PORT, [IPv6]:PORT, or one of them behind smtp://, smtps:// or lmtp://; or lmtp:unix:/PATH"

/* Decimal number from least to most. Returns NULL, or what value should have been: "takes a number from ...", until the next
 * call. */
const char *endpoint_number(const char *value, uint64_t least, uint64_t most, uint64_t *n);

/* An address, "*", or what can be a name in the DNS. */
bool endpoint_is_host(const char *host);

/* "HOST:PORT" or "[IPv6]:PORT"; with a standard port (not 0) also a host alone. host has room for cap octets. false: it is
 * none of them, or does not fit. */
bool endpoint_split(const char *value, char *host, size_t cap, uint16_t standard, uint16_t *port);

/* A server, with its port where none is given: 25, 465 of smtps://, 24 of lmtp://. Returns NULL, or what value should have been
 * (static storage). */
const char *endpoint_upstream(struct upstream *u, const char *value);

#endif
