/* The PROXY protocol: what a proxy sends before everything else, to tell whose connection it passes on. Pure: bytes in,
 * addresses and TLS out, and back; no descriptors, clock or heap. Numbers below are sections of HAProxy's
 * doc/proxy-protocol.txt: 2.1 is v1, a line of text, 2.2 is v2, binary.
 */
#ifndef PROXYPROTO_H
#define PROXYPROTO_H

#include "pure/address.h"

#define PROXYPROTO_MAX (16 + 65535) /* octets of a header that is read; v1 has at most 107 */
#define PROXYPROTO_WRITTEN 512	    /* octets of a header that is written, at most: receivers take 536 in any case (2.2) */

#define PROXYPROTO_TEXT 64 /* octets of a text that is kept; names of cipher suites have at most 45 */
#define PROXYPROTO_NAME 255

/* The client's TLS as a proxy that ended it describes it, with PP2_TYPE_SSL of v2 (2.2.6). A text is "" if it was not given or
 * cannot be passed on: it is too long or, except for cn, has other characters than letters, digits and "-._". */
struct proxyproto_tls {
	bool on;       /* PP2_CLIENT_SSL; without it nothing else here is set */
	bool verified; /* the proxy trusts the certificate that the client showed */
	char version[PROXYPROTO_TEXT + 1], cipher[PROXYPROTO_TEXT + 1];
	char cn[PROXYPROTO_NAME + 1]; /* common name in that certificate: any octets but NUL */
	char signature[PROXYPROTO_TEXT + 1], key[PROXYPROTO_TEXT + 1]; /* of the proxy's certificate, such as RSA-SHA256, RSA2048 */
};

/* AF_UNSPEC: the header has no addresses (LOCAL, UNKNOWN, UNSPEC, or a family that is not TCP over IP), and those of the socket
 * count. Otherwise both are of the same family. */
struct proxyproto {
	union net_address source, dest;
	/* Only set together with addresses: */
	struct proxyproto_tls tls;
	char authority[PROXYPROTO_NAME + 1]; /* the name that the client asked for (SNI), PP2_TYPE_AUTHORITY; characters as above */
	char alpn[PROXYPROTO_TEXT + 1];	     /* PP2_TYPE_ALPN: any octets but NUL */
};

enum proxyproto_status {
	PROXYPROTO_MORE, /* the header goes on after these n octets */
	PROXYPROTO_DONE, /* *used octets are the header */
	PROXYPROTO_BAD	 /* it is no header; *why says what is wrong (static storage) */
};

/* Look at the first n octets of a connection; after PROXYPROTO_MORE look at the same ones again, with more. Checks every field
 * of v1; of v2 all lengths, those inside PP2_TYPE_SSL included, and PP2_TYPE_CRC32C if it is there (2.2.3). */
enum proxyproto_status proxyproto_read(const unsigned char *in, size_t n, size_t *used, struct proxyproto *p,
    const char **why);

/* Write a header of version 1 or 2. Addresses that are AF_UNSPEC, or of two families, become UNKNOWN, or LOCAL. Only v2 tells what follows
 * them: authority, but for one with other characters than those above, alpn and version always; of cipher, cn, signature and key, in this
 * order of rank, each if there is room for the whole of it. There is for a cipher of 45 octets and a cn of 64. Returns octets; 0 if cap is less
 * than PROXYPROTO_WRITTEN. */
size_t proxyproto_write(unsigned version, const struct proxyproto *p, unsigned char *out, size_t cap);

#endif
