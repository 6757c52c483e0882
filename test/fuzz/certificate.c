/* Fuzz target: a certificate, whoever made it.
 *
 * Checked: names are within it and in order; it is the same with nothing behind it; cut at any place it is none. */
#include <stdlib.h>
#include <string.h>

#include "pure/certificate.h"
#include "test/lib/replay.h"

#define CHECK(condition) ((condition) ? (void)0 : abort())

/* An exact copy on the heap, so that an octet read too far is found. */
static bool read_copy(struct certificate *c, const uint8_t *data, size_t n)
{
	unsigned char *copy = malloc(n ? n : 1);
	bool good;

	CHECK(copy != NULL);
	memcpy(copy, data, n);
	good = certificate_read(c, copy, n);
	free(copy);
	return good;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct certificate c, again;

	if (!certificate_read(&c, data, n))
		return 0;
	CHECK(c.der.bytes == data && c.der.len <= n);
	CHECK(c.issuer.bytes > data && c.issuer.len >= 2 && c.issuer.bytes + c.issuer.len < c.subject.bytes);
	CHECK(c.subject.len >= 2 && c.subject.bytes + c.subject.len < data + c.der.len);
	CHECK(c.key.bytes == c.subject.bytes + c.subject.len && c.key.len >= 2 && c.key.bytes + c.key.len < data + c.der.len);
	CHECK(c.named || !certificate_is_for(&c, "a.b"));
	CHECK(certificate_is_for(&c, ".b") == certificate_is_for(&c, "*.b"));
	CHECK(read_copy(&again, data, c.der.len));
	CHECK(again.der.len == c.der.len && again.issuer.len == c.issuer.len && again.subject.len == c.subject.len);
	CHECK(again.named == c.named && again.constrained == c.constrained && again.for_others == c.for_others);
	for (size_t i = 0; i < c.der.len; i += 1 + c.der.len / 64)
		CHECK(!read_copy(&again, data, i));
	CHECK(!read_copy(&again, data, c.der.len - 1));
	return 0;
}
