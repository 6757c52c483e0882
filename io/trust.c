/* Trust anchors. See trust.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/trust.h"
#include "io/file.h"
#include "io/readable.h"
#include "pure/base64.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct bundle {
	unsigned char *der; /* the certificates, one after another */
	size_t size, len;   /* size: of the mapping; len: of the certificates in it */
} store;

/* ---- the file ---- */

static size_t count_text(const unsigned char *at, size_t n, const char *text)
{
	const unsigned char *end = at + n;
	size_t count = 0;

	while ((at = memmem(at, (size_t)(end - at), text, strlen(text)))) {
		at += strlen(text);
		count++;
	}
	return count;
}

/* Decode the certificates of PEM text in place: DER is shorter than its text, so it never overtakes what is read. *skipped: those that
 * are malformed. */
static size_t take_apart(unsigned char *text, size_t n, size_t *skipped)
{
	const unsigned char *at = text;
	struct certificate c;
	struct pem p;
	size_t len = 0;

	*skipped = count_text(text, n, "-----BEGIN CERTIFICATE-----");
	while (pem_next(&at, text + n, &p)) {
		size_t got = pem_is(&p, "CERTIFICATE") ? base64_decode(p.body, p.body_len, text + len, p.body_len) : 0;

		if (!certificate_read(&c, text + len, got) || c.der.len != got)
			continue;
		len += got;
		--*skipped;
	}
	return len;
}

/* Read the file into memory that is to be shared, whose page tables a fork need not copy. */
static bool read_bundle(int fd, struct bundle *b, int *memory)
{
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) < 0)
		return false;
	b->size = (size_t)st.st_size + 1;
	b->der = file_new_shared("anchors", b->size, memory);
	if (!b->der)
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
	static char warning[80];
	struct bundle b = { NULL, 0, 0 };
	size_t skipped = 0;
	int fd = readable_open(path), memory;
	bool read_all = fd >= 0 && read_bundle(fd, &b, &memory);

	*why = read_all ? "no certificate in it" : file_fault();
	if (fd >= 0)
		close(fd);
	if (read_all)
		b.len = take_apart(b.der, b.len, &skipped);
	if (!read_all || !b.len) {
		if (b.der)
			file_unshare(b.der, b.size, memory);
		return -1;
	}
	if (!file_share(b.der, b.size, memory)) {
		*why = file_fault();
		return -1;
	}
	if (trust_loaded())
		munmap(store.der, store.size);
	store = b;
	snprintf(warning, sizeof warning, "malformed certificates in it, which are skipped: %zu", skipped);
	*why = skipped ? warning : NULL;
	return 0;
}

/* ---- the search ---- */

static bool is_named(const struct certificate_span *subject, const struct certificate *const *chain, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (certificate_same_name(subject, &chain[i]->issuer))
			return true;
	return n && certificate_same_name(subject, &chain[0]->subject);
}

/* Why the certificate makes no anchor; 0: it does. A key that BearSSL does not support is as good as none. */
static unsigned reason_against(const struct certificate *c, const br_x509_pkey *key)
{
	if (!key)
		return BR_ERR_X509_UNSUPPORTED;
	if (c->constrained)
		return TRUST_CONSTRAINED;
	if (c->for_others)
		return BR_ERR_X509_FORBIDDEN_KEY_USAGE;
	return key->key_type == BR_KEYTYPE_RSA && key->key.rsa.nlen < 256 ? BR_ERR_X509_WEAK_PUBLIC_KEY : 0;
}

/* The same, and the anchor. Its key's numbers stay in the decoder. */
static unsigned make_anchor(const struct certificate *c, br_x509_decoder_context *d, br_x509_trust_anchor *a)
{
	const br_x509_pkey *key;
	unsigned reason;

	br_x509_decoder_init(d, NULL, NULL);
	br_x509_decoder_push(d, c->der.bytes, c->der.len);
	key = br_x509_decoder_get_pkey(d);
	reason = reason_against(c, key);
	if (reason)
		return reason;
	a->dn.data = (unsigned char *)(uintptr_t)c->subject.bytes; /* the field's type lacks const */
	a->dn.len = c->subject.len;
	a->flags = br_x509_decoder_isCA(d) ? BR_X509_TA_CA : 0;
	a->pkey = *key;
	return 0;
}

static br_x509_decoder_context decoder[TRUST_FOUND_MAX];
static br_x509_trust_anchor found[TRUST_FOUND_MAX];

size_t trust_make(const struct certificate *c, const br_x509_trust_anchor **list, unsigned *left_out)
{
	*list = found;
	*left_out = make_anchor(c, &decoder[0], &found[0]);
	return !*left_out;
}

size_t trust_find(const struct certificate *const *chain, size_t n, const br_x509_trust_anchor **list, unsigned *left_out)
{
	struct certificate c;
	size_t count = 0, at = 0;

	*list = found;
	*left_out = 0;
	for (; count < TRUST_FOUND_MAX && at < store.len; at += c.der.len) {
		unsigned reason;

		if (!certificate_read(&c, store.der + at, store.len - at))
			break;
		if (!is_named(&c.subject, chain, n))
			continue;
		reason = make_anchor(&c, &decoder[count], &found[count]);
		if (reason)
			*left_out = reason;
		else
			count++;
	}
	return count;
}
