/* The PROXY protocol: bytes that a proxy sends ahead of everything else to tell whose connection it passes on. Pure: bytes in,
 * addresses and TLS out, and back; no descriptors, clock or heap. Source: HAProxy's doc/proxy-protocol.txt, sections 2.1 (v1, a line
 * of text) and 2.2 (v2, binary), named by number below.
 */
#ifndef PROXYPROTO_H
#define PROXYPROTO_H

#include "pure/address.h"

#define PROXYPROTO_MAX (16 + 65535) /* octets of a header that is read; one of v1 has 107 at most */
#define PROXYPROTO_WRITTEN 512	    /* of one that is written, at most */

#define PROXYPROTO_TEXT 64 /* octets of a text that is taken; names of cipher suites have 45 at most */
#define PROXYPROTO_NAME 255

/* The client's TLS, as a proxy that has ended it tells of it by PP2_TYPE_SSL of v2 (2.2.6). Texts "": not given, or not fit to
 * be passed on: too long, or for version and cipher anything but letters, digits and "-._". */
struct proxyproto_tls {
	bool on;       /* PP2_CLIENT_SSL; else nothing of the rest is set */
	bool verified; /* the client has shown a certificate that the proxy trusts */
	char version[PROXYPROTO_TEXT + 1], cipher[PROXYPROTO_TEXT + 1];
	char cn[PROXYPROTO_NAME + 1]; /* common name in that certificate: any octets but NUL */
};

/* AF_UNSPEC: the header has no addresses (LOCAL, UNKNOWN, UNSPEC, or a kind that is not TCP over IP): those of the socket
 * count. Else both are of one family. */
struct proxyproto {
	union net_address source, dest;
	struct proxyproto_tls tls; /* only together with addresses */
};

enum proxyproto_status {
	PROXYPROTO_MORE, /* all n octets belong to a header that goes on */
	PROXYPROTO_DONE, /* *used octets are the header */
	PROXYPROTO_BAD	 /* they are none; *why says what is wrong (static storage) */
};

/* Look at the first n octets of a connection, the same ones again together with more after PROXYPROTO_MORE. Every field of v1
 * is checked; of v2 the lengths of all that is in it, also within PP2_TYPE_SSL, and PP2_TYPE_CRC32C where it is there (2.2.3). */
enum proxyproto_status proxyproto_read(const unsigned char *in, size_t n, size_t *used, struct proxyproto *p,
    const char **why);

/* Write a header of this version, 1 or 2. Addresses of AF_UNSPEC or of two families become UNKNOWN, or LOCAL; only v2 tells of
 * TLS. Returns octets, 0 if cap is less than PROXYPROTO_WRITTEN. */
size_t proxyproto_write(unsigned version, const struct proxyproto *p, unsigned char *out, size_t cap);

#endif
