/* The PROXY protocol: bytes that a proxy sends ahead of everything else to tell whose connection it passes on. Pure: bytes in,
 * addresses out, and back; no descriptors, clock or heap. Source: HAProxy's doc/proxy-protocol.txt, sections 2.1 (v1, a line
 * of text) and 2.2 (v2, binary), named by number below.
 */
#ifndef PROXYPROTO_H
#define PROXYPROTO_H

#include "net.h"

#define PROXYPROTO_MAX (16 + 65535) /* octets of a header that is read; one of v1 has 107 at most */
#define PROXYPROTO_WRITTEN 256	    /* of one that is written, at most */

/* AF_UNSPEC: the header has no addresses (LOCAL, UNKNOWN, UNSPEC, or a kind that is not TCP over IP): those of the socket
 * count. Else both are of one family. */
struct proxyproto {
	union net_address source, dest;
};

enum proxyproto_status {
	PROXYPROTO_MORE, /* all n octets belong to a header that goes on */
	PROXYPROTO_DONE, /* *used octets are the header */
	PROXYPROTO_BAD	 /* they are none; *why says what is wrong (static storage) */
};

/* Look at the first n octets of a connection, the same ones again together with more after PROXYPROTO_MORE. Every field of v1
 * is checked; of v2 the lengths of all that is in it, and PP2_TYPE_CRC32C where it is there (2.2.3). */
enum proxyproto_status proxyproto_read(const unsigned char *in, size_t n, size_t *used, struct proxyproto *p,
    const char **why);

/* Write a header of this version, 1 or 2. Addresses of AF_UNSPEC or of two families become UNKNOWN, or LOCAL. tls_version and
 * cipher: of the client's TLS, for PP2_TYPE_SSL of v2 (2.2.6), cut to 40 octets each; NULL: it has none. Returns octets, 0 if
 * cap is less than PROXYPROTO_WRITTEN. */
size_t proxyproto_write(unsigned version, const struct proxyproto *p, const char *tls_version, const char *cipher,
    unsigned char *out, size_t cap);

#endif
