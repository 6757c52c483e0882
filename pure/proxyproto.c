/* The PROXY protocol. See proxyproto.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "pure/proxyproto.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define V1_MAX 107 /* "PROXY UNKNOWN " with two full IPv6 addresses and ports, and CR LF */
#define V2_FIXED 16
#define SSL_FIXED 5 /* octets of PP2_TYPE_SSL before what is nested in it: client, verify */

enum { TCP4 = 0x11, TCP6 = 0x21 };
enum { PP2_TYPE_ALPN = 0x01, PP2_TYPE_AUTHORITY, PP2_TYPE_CRC32C, PP2_TYPE_SSL = 0x20 };
enum { PP2_SUBTYPE_SSL_VERSION = 0x21, PP2_SUBTYPE_SSL_CN, PP2_SUBTYPE_SSL_CIPHER, PP2_SUBTYPE_SSL_SIG_ALG, PP2_SUBTYPE_SSL_KEY_ALG };
enum { PP2_CLIENT_SSL = 0x01, PP2_CLIENT_CERT_CONN = 0x02, PP2_CLIENT_CERT_SESS = 0x04 };

static const unsigned char signature[12] = "\r\n\r\n\0\r\nQUIT\n";

static const char no_header[] = "no PROXY header";

static size_t number16(const unsigned char *in)
{
	return (size_t)in[0] << 8 | in[1];
}

static void set_address(union net_address *a, int family, const void *bytes, uint16_t port)
{
	memset(a, 0, sizeof *a);
	a->sa.sa_family = (sa_family_t)family;
	if (family == AF_INET6) {
		memcpy(&a->v6.sin6_addr, bytes, 16);
		a->v6.sin6_port = htons(port);
	} else {
		memcpy(&a->v4.sin_addr, bytes, 4);
		a->v4.sin_port = htons(port);
	}
}

static const void *address_of(const union net_address *a)
{
	return a->sa.sa_family == AF_INET6 ? (const void *)&a->v6.sin6_addr : (const void *)&a->v4.sin_addr;
}

/* ---- v1 ---- */

/* Take the word at *at, up to a space or the end of the line, as a string; moves *at past the space. */
static bool next_field(const char **at, char *word, size_t cap)
{
	size_t n = strcspn(*at, " ");

	if (!n || n >= cap)
		return false;
	memcpy(word, *at, n);
	word[n] = 0;
	*at += n + ((*at)[n] == ' ');
	return true;
}

static bool next_address(const char **at, int family, unsigned char bytes[16])
{
	char word[INET6_ADDRSTRLEN];

	return next_field(at, word, sizeof word) && inet_pton(family, word, bytes) == 1;
}

/* 0 to 65535, no leading zeros. */
static bool next_port(const char **at, uint16_t *port)
{
	char word[6];
	uint32_t n = 0;

	if (!next_field(at, word, sizeof word) || (word[0] == '0' && word[1]))
		return false;
	for (const char *c = word; *c; c++) {
		if (*c < '0' || *c > '9')
			return false;
		n = n * 10 + (uint32_t)(*c - '0');
	}
	*port = (uint16_t)n;
	return n <= UINT16_MAX;
}

/* Read a line without its end. Two blanks in a row leave an empty word; a blank at the end needs a check of its own. */
static bool read_line(const char *line, size_t n, struct proxyproto *p)
{
	const char *at = line + 6;
	unsigned char source[16], dest[16];
	uint16_t source_port, dest_port;
	int family;

	if (strncmp(at, "UNKNOWN", 7) == 0 && (at[7] == ' ' || !at[7])) /* what follows does not matter */
		return true;
	if (strncmp(at, "TCP4 ", 5) != 0 && strncmp(at, "TCP6 ", 5) != 0)
		return false;
	family = at[3] == '6' ? AF_INET6 : AF_INET;
	at += 5;
	if (!next_address(&at, family, source) || !next_address(&at, family, dest) || !next_port(&at, &source_port) ||
	    !next_port(&at, &dest_port) || *at || line[n - 1] == ' ')
		return false;
	set_address(&p->source, family, source, source_port);
	set_address(&p->dest, family, dest, dest_port);
	return true;
}

static enum proxyproto_status read_v1(const unsigned char *in, size_t n, size_t *used, struct proxyproto *p,
    const char **why)
{
	char line[V1_MAX];
	size_t seen = n < V1_MAX ? n : V1_MAX;
	const unsigned char *lf = memchr(in, '\n', seen);

	*why = "a PROXY v1 header that is too long";
	if (!lf)
		return seen < V1_MAX ? PROXYPROTO_MORE : PROXYPROTO_BAD;
	*used = (size_t)(lf - in) + 1;
	*why = "a malformed PROXY v1 header";
	if (lf[-1] != '\r' || memchr(in, 0, *used))
		return PROXYPROTO_BAD;
	memcpy(line, in, *used - 2);
	line[*used - 2] = 0;
	return read_line(line, *used - 2, p) ? PROXYPROTO_DONE : PROXYPROTO_BAD;
}

/* ---- v2 ---- */

/* RFC 3720 B.4, bit by bit, for it is done once a connection. The four octets at `at` count as zero. */
static uint32_t crc32c(const unsigned char *in, size_t n, size_t at)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < n; i++) {
		crc ^= i - at < 4 ? 0 : in[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0x82f63b78) : 0);
	}
	return ~crc;
}

static const char do_not_fit[] = "a PROXY v2 header whose lengths do not fit";

/* Take a type, a length and as many octets at *at, which must end before n; moves *at past them. */
static bool next_tlv(const unsigned char *in, size_t n, size_t *at, const unsigned char **value, size_t *len)
{
	if (n - *at < 3 || (*len = number16(in + *at + 1)) > n - *at - 3)
		return false;
	*value = in + *at + 3;
	*at += 3 + *len;
	return true;
}

static bool is_plain(const unsigned char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!(((text[i] | 32) >= 'a' && (text[i] | 32) <= 'z') || (text[i] >= '0' && text[i] <= '9') ||
		      memchr("-._", text[i], 3)))
			return false;
	return true;
}

/* Copy a text to out, which has cap octets and is all zero or set already. strict: for texts that go into header fields, too. */
static void take_text(char *out, size_t cap, const unsigned char *text, size_t n, bool strict)
{
	if (!*out && n < cap && !memchr(text, 0, n) && (!strict || is_plain(text, n)))
		memcpy(out, text, n);
}

/* Read the value of PP2_TYPE_SSL, n octets. Returns NULL, or what is wrong. For a client without TLS only lengths are checked. */
static const char *read_tls(const unsigned char *in, size_t n, struct proxyproto_tls *tls)
{
	struct proxyproto_tls given = { 0 };

	if (n < SSL_FIXED)
		return do_not_fit;
	given.on = true;
	given.verified = (in[0] & (PP2_CLIENT_CERT_CONN | PP2_CLIENT_CERT_SESS)) && !(number16(in + 1) | number16(in + 3));
	for (size_t at = SSL_FIXED; at < n;) {
		unsigned type = in[at];
		const unsigned char *value;
		size_t len;

		if (!next_tlv(in, n, &at, &value, &len))
			return do_not_fit;
		if (type == PP2_SUBTYPE_SSL_VERSION)
			take_text(given.version, sizeof given.version, value, len, true);
		else if (type == PP2_SUBTYPE_SSL_CIPHER)
			take_text(given.cipher, sizeof given.cipher, value, len, true);
		else if (type == PP2_SUBTYPE_SSL_CN && given.verified)
			take_text(given.cn, sizeof given.cn, value, len, false);
		else if (type == PP2_SUBTYPE_SSL_SIG_ALG)
			take_text(given.signature, sizeof given.signature, value, len, true);
		else if (type == PP2_SUBTYPE_SSL_KEY_ALG)
			take_text(given.key, sizeof given.key, value, len, true);
	}
	if (in[0] & PP2_CLIENT_SSL)
		*tls = given;
	return NULL;
}

/* Read what follows the addresses, from at to n. Returns NULL, or what is wrong. */
static const char *read_tlvs(const unsigned char *in, size_t n, size_t at, struct proxyproto *p)
{
	bool told = false;

	while (at < n) {
		const unsigned char *value;
		unsigned type = in[at];
		const char *why = NULL;
		size_t len;

		if (!next_tlv(in, n, &at, &value, &len))
			return do_not_fit;
		if (type == PP2_TYPE_CRC32C) {
			if (len != 4)
				return "a PROXY v2 header whose checksum has not four octets";
			if (crc32c(in, n, (size_t)(value - in)) !=
			    ((uint32_t)number16(value) << 16 | (uint32_t)number16(value + 2)))
				return "a PROXY v2 header whose checksum is wrong";
		} else if (type == PP2_TYPE_SSL) {
			why = told ? "a PROXY v2 header that tells of TLS twice" : read_tls(value, len, &p->tls);
			told = true;
		} else if (type == PP2_TYPE_AUTHORITY) {
			take_text(p->authority, sizeof p->authority, value, len, true);
		} else if (type == PP2_TYPE_ALPN) {
			take_text(p->alpn, sizeof p->alpn, value, len, false);
		}
		if (why)
			return why;
	}
	return NULL;
}

/* Read the whole header. If it has no addresses of use to us nothing else is looked at, as 2.2 wants it. */
static const char *read_whole(const unsigned char *in, size_t n, struct proxyproto *p)
{
	unsigned kind = in[13];
	size_t size = kind == TCP4 ? 4 : 16;
	const unsigned char *ports = in + V2_FIXED + 2 * size;

	if ((in[12] & 0xf) == 0) /* LOCAL */
		return NULL;
	if (kind >> 4 > 3 || (kind & 0xf) > 2)
		return "a PROXY v2 header of an unknown family";
	if (kind != TCP4 && kind != TCP6)
		return NULL;
	if (n < V2_FIXED + 2 * size + 4)
		return "a PROXY v2 header without room for its addresses";
	set_address(&p->source, kind == TCP4 ? AF_INET : AF_INET6, in + V2_FIXED, (uint16_t)number16(ports));
	set_address(&p->dest, kind == TCP4 ? AF_INET : AF_INET6, in + V2_FIXED + size, (uint16_t)number16(ports + 2));
	return read_tlvs(in, n, V2_FIXED + 2 * size + 4, p);
}

static enum proxyproto_status read_v2(const unsigned char *in, size_t n, size_t *used, struct proxyproto *p,
    const char **why)
{
	*why = "a PROXY header of an unknown version or command";
	if (n > 12 && (in[12] >> 4 != 2 || (in[12] & 0xf) > 1))
		return PROXYPROTO_BAD;
	if (n < V2_FIXED)
		return PROXYPROTO_MORE;
	*used = V2_FIXED + number16(in + 14);
	if (n < *used)
		return PROXYPROTO_MORE;
	*why = read_whole(in, *used, p);
	return *why ? PROXYPROTO_BAD : PROXYPROTO_DONE;
}

enum proxyproto_status proxyproto_read(const unsigned char *in, size_t n, size_t *used, struct proxyproto *p,
    const char **why)
{
	memset(p, 0, sizeof *p);
	*used = 0;
	if (memcmp(in, "PROXY ", n < 6 ? n : 6) == 0)
		return n < 6 ? PROXYPROTO_MORE : read_v1(in, n, used, p, why);
	if (memcmp(in, signature, n < sizeof signature ? n : sizeof signature) == 0)
		return n < sizeof signature ? PROXYPROTO_MORE : read_v2(in, n, used, p, why);
	*why = no_header;
	return PROXYPROTO_BAD;
}

/* ---- writing ---- */

static bool has_addresses(const struct proxyproto *p)
{
	return p->source.sa.sa_family != AF_UNSPEC && p->source.sa.sa_family == p->dest.sa.sa_family;
}

static size_t write_v1(const struct proxyproto *p, unsigned char *out)
{
	char source[INET6_ADDRSTRLEN], dest[INET6_ADDRSTRLEN];
	int family = p->source.sa.sa_family;

	if (!has_addresses(p))
		return (size_t)sprintf((char *)out, "PROXY UNKNOWN\r\n");
	inet_ntop(family, address_of(&p->source), source, sizeof source); /* not net_text(), which writes a zone */
	inet_ntop(family, address_of(&p->dest), dest, sizeof dest);
	return (size_t)sprintf((char *)out, "PROXY TCP%d %s %s %u %u\r\n", family == AF_INET ? 4 : 6, source, dest,
	    net_port(&p->source), net_port(&p->dest));
}

static unsigned char *put16(unsigned char *at, size_t n)
{
	*at++ = (unsigned char)(n >> 8);
	*at++ = (unsigned char)n;
	return at;
}

/* The octets that put_tlv() needs for this text. */
static size_t tlv_size(const char *text)
{
	return *text ? 3 + strlen(text) : 0;
}

/* Nothing, if there is no text, or no room for it before end. */
static unsigned char *put_tlv(unsigned char *at, const unsigned char *end, int type, const char *text)
{
	size_t n = strlen(text);

	if (!n || (ptrdiff_t)n + 3 > end - at)
		return at;
	*at++ = (unsigned char)type;
	at = put16(at, n);
	memcpy(at, text, n);
	return at + n;
}

/* verify is 0 only if the client showed a certificate that verified. The name in it leaves room for the cipher; without room of its own it is
 * left out, for cut short it could be somebody else's. */
static unsigned char *put_tls(unsigned char *at, const unsigned char *end, const struct proxyproto_tls *tls)
{
	unsigned char *length = at + 1, *fixed = at + 3;

	*at = PP2_TYPE_SSL;
	memset(fixed, 0, SSL_FIXED);
	fixed[0] = PP2_CLIENT_SSL | (tls->verified ? PP2_CLIENT_CERT_CONN | PP2_CLIENT_CERT_SESS : 0);
	fixed[SSL_FIXED - 1] = !tls->verified;
	at = put_tlv(fixed + SSL_FIXED, end, PP2_SUBTYPE_SSL_VERSION, tls->version);
	at = put_tlv(at, end - tlv_size(tls->cipher), PP2_SUBTYPE_SSL_CN, tls->cn);
	at = put_tlv(at, end, PP2_SUBTYPE_SSL_CIPHER, tls->cipher);
	at = put_tlv(at, end, PP2_SUBTYPE_SSL_SIG_ALG, tls->signature);
	at = put_tlv(at, end, PP2_SUBTYPE_SSL_KEY_ALG, tls->key);
	put16(length, (size_t)(at - length) - 2);
	return at;
}

static unsigned char *put_addresses(unsigned char *at, const struct proxyproto *p)
{
	size_t size = p->source.sa.sa_family == AF_INET ? 4 : 16;

	memcpy(at, address_of(&p->source), size);
	memcpy(at + size, address_of(&p->dest), size);
	at = put16(at + 2 * size, net_port(&p->source));
	return put16(at, net_port(&p->dest));
}

/* All that follows the addresses. There is room for authority and alpn, whatever the other texts are. */
static unsigned char *put_tlvs(unsigned char *at, const unsigned char *end, const struct proxyproto *p)
{
	const char *authority = is_plain((const unsigned char *)p->authority, strlen(p->authority)) ? p->authority : ""; /* it may be a client's */

	if (p->tls.on)
		at = put_tls(at, end - tlv_size(authority) - tlv_size(p->alpn), &p->tls);
	at = put_tlv(at, end, PP2_TYPE_AUTHORITY, authority);
	return put_tlv(at, end, PP2_TYPE_ALPN, p->alpn);
}

static size_t write_v2(const struct proxyproto *p, unsigned char *out)
{
	bool known = has_addresses(p);
	unsigned char *at = out + V2_FIXED;

	memcpy(out, signature, sizeof signature);
	out[12] = known ? 0x21 : 0x20;
	out[13] = !known ? 0 : p->source.sa.sa_family == AF_INET ? TCP4 : TCP6;
	if (known)
		at = put_tlvs(put_addresses(at, p), out + PROXYPROTO_WRITTEN, p);
	put16(out + 14, (size_t)(at - out) - V2_FIXED);
	return (size_t)(at - out);
}

size_t proxyproto_write(unsigned version, const struct proxyproto *p, unsigned char *out, size_t cap)
{
	if (cap < PROXYPROTO_WRITTEN)
		return 0;
	return version == 1 ? write_v1(p, out) : write_v2(p, out);
}
