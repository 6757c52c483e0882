/* Trust anchors. See trust.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/trust.h"
#include "io/file.h"
#include "pure/base64.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct span {
	const unsigned char *bytes;
	size_t len;
};

static struct bundle {
	unsigned char *der; /* the certificates, one after another */
	size_t size, len;   /* size: of the mapping; len: of the certificates in it */
} store;

/* ---- DER ---- */

/* Take the element at the start of *in: `whole` has its tag and length, `body` its content. Moves *in over it. ITU-T X.690 8.1. */
static bool next_element(struct span *in, struct span *whole, struct span *body)
{
	size_t header = 2, len;

	if (in->len < 2)
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
	*whole = (struct span){ in->bytes, header + len };
	*body = (struct span){ in->bytes + header, len };
	in->bytes += header + len;
	in->len -= header + len;
	return true;
}

/* Issuer and subject of a certificate (RFC 5280 4.1): the body's fields are [version] serial algorithm issuer
 * validity subject. */
static bool names_of(struct span certificate, struct span *issuer, struct span *subject)
{
	struct span field[6], whole, body, rest;

	if (!next_element(&certificate, &whole, &rest) || !next_element(&rest, &whole, &body))
		return false;
	if (body.len && body.bytes[0] == 0xa0 && !next_element(&body, &whole, &rest))
		return false;
	for (int i = 0; i < 5; i++)
		if (!next_element(&body, &field[i], &rest))
			return false;
	*issuer = field[2];
	*subject = field[4];
	return true;
}

static bool same_span(struct span a, struct span b)
{
	return a.len == b.len && memcmp(a.bytes, b.bytes, a.len) == 0;
}

/* ---- the file ---- */

/* Decode the certificates of PEM text in place: DER is shorter than its text, so it never overtakes what is read. */
static size_t take_apart(unsigned char *text, size_t n)
{
	const unsigned char *at = text;
	struct pem p;
	size_t len = 0;

	while (pem_next(&at, text + n, &p))
		if (pem_is(&p, "CERTIFICATE"))
			len += base64_decode(p.body, p.body_len, text + len, p.body_len);
	return len;
}

/* Read the file into shared memory, whose page tables a fork need not copy. */
static bool read_bundle(int fd, struct bundle *b)
{
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) < 0)
		return false;
	b->size = (size_t)st.st_size + 1;
	b->der = mmap(NULL, b->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (b->der == MAP_FAILED)
		return false;
	n = file_read(fd, b->der, b->size);
	b->len = n > 0 ? (size_t)n : 0;
	return n >= 0;
}

bool trust_loaded(void)
{
	return store.len > 0;
}

int trust_load(const char *path, const char **why)
{
	struct bundle b = { MAP_FAILED, 0, 0 };
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool read_all = fd >= 0 && read_bundle(fd, &b);

	*why = read_all ? "no certificate in it" : strerror(errno);
	if (fd >= 0)
		close(fd);
	if (read_all)
		b.len = take_apart(b.der, b.len);
	if (!read_all || !b.len) {
		if (b.der != MAP_FAILED)
			munmap(b.der, b.size);
		return -1;
	}
	mprotect(b.der, b.size, PROT_READ); /* sessions share it */
	if (trust_loaded())
		munmap(store.der, store.size);
	store = b;
	return 0;
}

/* ---- the search ---- */

static bool is_named(struct span subject, struct span chain)
{
	struct span certificate, body, issuer, other;

	while (next_element(&chain, &certificate, &body))
		if (names_of(certificate, &issuer, &other) && (same_span(subject, issuer) || same_span(subject, other)))
			return true;
	return false;
}

/* A key that BearSSL does not support makes no anchor. */
static bool make_anchor(struct span certificate, struct span subject, br_x509_decoder_context *decoder,
    br_x509_trust_anchor *a)
{
	const br_x509_pkey *key;

	br_x509_decoder_init(decoder, NULL, NULL);
	br_x509_decoder_push(decoder, certificate.bytes, certificate.len);
	key = br_x509_decoder_get_pkey(decoder);
	if (!key)
		return false;
	a->dn.data = (unsigned char *)(uintptr_t)subject.bytes; /* the field's type lacks const */
	a->dn.len = subject.len;
	a->flags = br_x509_decoder_isCA(decoder) ? BR_X509_TA_CA : 0;
	a->pkey = *key; /* the key's numbers stay in the decoder */
	return true;
}

size_t trust_find(const unsigned char *chain, size_t n, const br_x509_trust_anchor **list)
{
	static br_x509_decoder_context decoder[TRUST_FOUND_MAX];
	static br_x509_trust_anchor found[TRUST_FOUND_MAX];
	struct span rest = { store.der, store.len }, certificate, body, issuer, subject;
	size_t count = 0;

	*list = found;
	while (count < TRUST_FOUND_MAX && next_element(&rest, &certificate, &body))
		if (names_of(certificate, &issuer, &subject) && is_named(subject, (struct span){ chain, n }))
			count += make_anchor(certificate, subject, &decoder[count], &found[count]);
	return count;
}
