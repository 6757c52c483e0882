/* X.509 certificates. See certificate.h. */
#include "pure/certificate.h"

#include <string.h>

enum { BOOLEAN = 0x01, INTEGER = 0x02, BIT_STRING = 0x03, OCTET_STRING = 0x04, OID = 0x06, SEQUENCE = 0x30, VERSION = 0xa0,
	ISSUER_ID = 0x81, SUBJECT_ID = 0x82, EXTENSIONS = 0xa3, DNS_NAME = 0x82 };

static bool is_next(const struct certificate_span *in, unsigned tag)
{
	return in->len && in->bytes[0] == tag;
}

/* Take the element of this tag at the start of *in, over which *in moves; *body becomes its content. ITU-T X.690 8.1. */
static bool take(struct certificate_span *in, unsigned tag, struct certificate_span *body)
{
	size_t header = 2, len;

	if (in->len < 2 || !is_next(in, tag))
		return false;
	len = in->bytes[1];
	if (len & 0x80) {
		size_t octets = len & 0x7f;

		if (octets < 1 || octets > 3 || in->len < 2 + octets)
			return false;
		for (len = 0; octets; octets--)
			len = len << 8 | in->bytes[header++];
	}
	if (len > in->len - header)
		return false;
	*body = (struct certificate_span){ in->bytes + header, len };
	in->bytes += header + len;
	in->len -= header + len;
	return true;
}

static bool skip(struct certificate_span *in, unsigned tag)
{
	struct certificate_span unused;

	return take(in, tag, &unused);
}

static bool is_oid(const struct certificate_span *oid, const char *octets)
{
	return oid->len == strlen(octets) && memcmp(oid->bytes, octets, oid->len) == 0;
}

/* Take a sequence, *whole: with its header. */
static bool take_whole(struct certificate_span *in, struct certificate_span *whole)
{
	const unsigned char *start = in->bytes;

	if (!skip(in, SEQUENCE))
		return false;
	*whole = (struct certificate_span){ start, (size_t)(in->bytes - start) };
	return true;
}

/* Extended key usage: a list of purposes. */
static bool read_purposes(struct certificate *c, struct certificate_span value)
{
	struct certificate_span list, purpose;
	bool servers = false;

	if (!take(&value, SEQUENCE, &list) || value.len)
		return false;
	while (list.len) {
		if (!take(&list, OID, &purpose))
			return false;
		servers = servers || is_oid(&purpose, "\x2b\x06\x01\x05\x05\x07\x03\x01"); /* id-kp-serverAuth */
	}
	c->for_others = c->for_others || !servers;
	return true;
}

static bool read_extension(struct certificate *c, struct certificate_span extension)
{
	struct certificate_span oid, value;

	if (!take(&extension, OID, &oid) || (is_next(&extension, BOOLEAN) && !skip(&extension, BOOLEAN)) ||
	    !take(&extension, OCTET_STRING, &value) || extension.len)
		return false;
	if (is_oid(&oid, "\x55\x1d\x11") && !c->named) { /* id-ce-subjectAltName; there may be one, RFC 5280 4.2 */
		c->named = true;
		c->names = value;
	} else if (is_oid(&oid, "\x55\x1d\x1e")) /* id-ce-nameConstraints */
		c->constrained = true;
	else if (is_oid(&oid, "\x55\x1d\x25")) /* id-ce-extKeyUsage */
		return read_purposes(c, value);
	return true;
}

/* Between the subject's key and the end. */
static bool read_extensions(struct certificate *c, struct certificate_span *in)
{
	struct certificate_span all, list, extension;

	if ((is_next(in, ISSUER_ID) && !skip(in, ISSUER_ID)) || (is_next(in, SUBJECT_ID) && !skip(in, SUBJECT_ID)))
		return false;
	if (!in->len)
		return true;
	if (!take(in, EXTENSIONS, &all) || in->len || !take(&all, SEQUENCE, &list) || all.len)
		return false;
	while (list.len)
		if (!take(&list, SEQUENCE, &extension) || !read_extension(c, extension))
			return false;
	return true;
}

/* TBSCertificate, RFC 5280 4.1: [version] serial signature issuer validity subject key [issuer's and subject's ids] [extensions]. */
static bool read_body(struct certificate *c, struct certificate_span body)
{
	if (is_next(&body, VERSION) && !skip(&body, VERSION))
		return false;
	return skip(&body, INTEGER) && skip(&body, SEQUENCE) && take_whole(&body, &c->issuer) && skip(&body, SEQUENCE) &&
	    take_whole(&body, &c->subject) && take_whole(&body, &c->key) && read_extensions(c, &body);
}

bool certificate_read(struct certificate *c, const unsigned char *der, size_t n)
{
	struct certificate_span in = { der, n }, whole, body;

	memset(c, 0, sizeof *c);
	if (!take(&in, SEQUENCE, &whole) || !take(&whole, SEQUENCE, &body))
		return false;
	c->der = (struct certificate_span){ der, n - in.len };
	return take(&whole, SEQUENCE, &c->algorithm) && skip(&whole, BIT_STRING) && !whole.len && read_body(c, body);
}

static unsigned char lower(unsigned char c)
{
	return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
}

static bool same_text(struct certificate_span a, struct certificate_span b)
{
	for (size_t i = 0; a.len == b.len && i < a.len; i++)
		if (lower(a.bytes[i]) != lower(b.bytes[i]))
			return false;
	return a.len == b.len;
}

/* What follows the first label, with its dot; nothing if the label is empty. */
static struct certificate_span parent(struct certificate_span name)
{
	const unsigned char *dot = name.len ? memchr(name.bytes, '.', name.len) : NULL;

	if (!dot || dot == name.bytes)
		return (struct certificate_span){ name.bytes, 0 };
	return (struct certificate_span){ dot, name.len - (size_t)(dot - name.bytes) };
}

static bool is_wildcard(struct certificate_span name)
{
	return name.len > 2 && name.bytes[0] == '*' && name.bytes[1] == '.';
}

/* Whether a name of a certificate is the wanted one. */
static bool is_name(struct certificate_span theirs, struct certificate_span wanted)
{
	struct certificate_span above = parent(theirs);

	if (!wanted.len)
		return false;
	if (wanted.bytes[0] == '.')
		return above.len && same_text(above, wanted);
	if (is_wildcard(wanted))
		return above.len && same_text(above, parent(wanted));
	return same_text(theirs, wanted) || (is_wildcard(theirs) && same_text(above, parent(wanted)));
}

bool certificate_is_for(const struct certificate *c, const char *name)
{
	struct certificate_span value = c->names, list, theirs;

	if (!take(&value, SEQUENCE, &list))
		return false;
	while (list.len) {
		unsigned tag = list.bytes[0];

		if (!take(&list, tag, &theirs))
			return false;
		if (tag == DNS_NAME && is_name(theirs, (struct certificate_span){ (const unsigned char *)name, strlen(name) }))
			return true;
	}
	return false;
}

const char *certificate_signature(const struct certificate *c)
{
	static const struct {
		char oid[10], name[18];
	} known[] = {
		/* RFC 4055 5, RFC 5758 3.2, RFC 8410 3 */
		{ "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", "RSA-SHA256" },
		{ "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", "RSA-SHA384" },
		{ "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", "RSA-SHA512" },
		{ "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a", "RSASSA-PSS" },
		{ "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", "RSA-SHA1" },
		{ "\x2a\x86\x48\xce\x3d\x04\x03\x02", "ecdsa-with-SHA256" },
		{ "\x2a\x86\x48\xce\x3d\x04\x03\x03", "ecdsa-with-SHA384" },
		{ "\x2a\x86\x48\xce\x3d\x04\x03\x04", "ecdsa-with-SHA512" },
		{ "\x2b\x65\x70", "ED25519" },
	};
	struct certificate_span algorithm = c->algorithm, oid;

	if (!take(&algorithm, OID, &oid))
		return NULL;
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (is_oid(&oid, known[i].oid))
			return known[i].name;
	return NULL;
}

bool certificate_same_name(const struct certificate_span *a, const struct certificate_span *b)
{
	return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}
