/* Fuzz target: whatever a proxy says first.
 *
 * Octet 0: how many octets come at a time, 0 all. The rest is the connection. Checked: in parts it means what it means whole;
 * a header is never longer than it may be; and what it says is still the same when it is written and read again. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "pure/proxyproto.h"
#include "test/lib/replay.h"

#define CHECK(condition) ((condition) ? (void)0 : abort())

/* An exact copy: an octet read too far is found. */
static enum proxyproto_status read_copy(const uint8_t *in, size_t n, size_t *used, struct proxyproto *p, const char **why)
{
	unsigned char *copy = malloc(n ? n : 1);
	enum proxyproto_status status;

	CHECK(copy != NULL);
	if (n)
		memcpy(copy, in, n);
	status = proxyproto_read(copy, n, used, p, why);
	free(copy);
	return status;
}

/* A text that was written to a header of n octets, for which there may have been no room. */
static bool may_lack(const char *text, const char *written, size_t n)
{
	return strcmp(text, written) == 0 || (!*written && n + 3 + strlen(text) > PROXYPROTO_WRITTEN);
}

static void check_written(const struct proxyproto *p)
{
	unsigned char out[PROXYPROTO_WRITTEN];
	struct proxyproto again;
	const char *why;
	size_t used;

	for (unsigned version = 1; version <= 2; version++) {
		size_t n = proxyproto_write(version, p, out, sizeof out);

		CHECK(read_copy(out, n, &used, &again, &why) == PROXYPROTO_DONE && used == n);
		CHECK(memcmp(p, &again, offsetof(struct proxyproto, tls)) == 0);
		if (version == 1) /* it has no word for what follows */
			continue;
		CHECK(memcmp(&p->tls, &again.tls, offsetof(struct proxyproto_tls, cipher)) == 0);
		CHECK(may_lack(p->tls.cipher, again.tls.cipher, n) && may_lack(p->tls.cn, again.tls.cn, n));
		CHECK(may_lack(p->tls.signature, again.tls.signature, n) && may_lack(p->tls.key, again.tls.key, n));
		CHECK(strcmp(p->authority, again.authority) == 0 && strcmp(p->alpn, again.alpn) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	enum proxyproto_status status, whole;
	struct proxyproto p, q;
	const char *why = NULL, *also = NULL;
	size_t used = 0, end = 0, whole_used = 0, step;

	if (!n)
		return 0;
	step = data[0] ? data[0] : n;
	data++;
	n--;
	whole = read_copy(data, n, &whole_used, &p, &why);
	do {
		end = n - end > step ? end + step : n;
		status = read_copy(data, end, &used, &q, &also);
	} while (status == PROXYPROTO_MORE && end < n);
	CHECK(status == whole);
	if (whole == PROXYPROTO_BAD)
		CHECK(why && why == also);
	if (whole != PROXYPROTO_DONE)
		return 0;
	CHECK(used == whole_used && used <= n && used <= PROXYPROTO_MAX && memcmp(&p, &q, sizeof p) == 0);
	CHECK(p.source.sa.sa_family == p.dest.sa.sa_family);
	CHECK(!p.tls.on || p.source.sa.sa_family != AF_UNSPEC);
	CHECK(p.tls.verified || !*p.tls.cn);
	CHECK(!strpbrk(p.tls.version, "\r\n ()\\") && !strpbrk(p.tls.cipher, "\r\n ()\\") && !strpbrk(p.authority, "\r\n ()\\"));
	CHECK(!strpbrk(p.tls.signature, "\r\n ()\\") && !strpbrk(p.tls.key, "\r\n ()\\"));
	CHECK((!*p.authority && !*p.alpn) || p.source.sa.sa_family != AF_UNSPEC);
	check_written(&p);
	return 0;
}
