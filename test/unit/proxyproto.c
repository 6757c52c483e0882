/* Unit tests of proxyproto.c: each header ends at a PROT_NONE page and is offered whole, in two parts at every octet, and octet
 * by octet. What is written is read again. */
#include "test/lib/unit.h"

#include <arpa/inet.h>

#include "pure/proxyproto.h"

static struct text got, want;

static void say_address(const union net_address *a)
{
	char text[INET6_ADDRSTRLEN] = "";

	if (a->sa.sa_family == AF_INET)
		say(&got, "%s:%u", inet_ntop(AF_INET, &a->v4.sin_addr, text, sizeof text), ntohs(a->v4.sin_port));
	else if (a->sa.sa_family == AF_INET6)
		say(&got, "[%s]:%u", inet_ntop(AF_INET6, &a->v6.sin6_addr, text, sizeof text), ntohs(a->v6.sin6_port));
	else
		say(&got, "none");
}

static void say_tls(const struct proxyproto_tls *tls)
{
	if (tls->on)
		say(&got, " %s %s %s%s", *tls->version ? tls->version : "-", *tls->cipher ? tls->cipher : "-",
		    tls->verified ? "verified " : "", tls->cn);
	if (*tls->signature || *tls->key)
		say(&got, " %s %s", tls->signature, tls->key);
}

static void say_names(const struct proxyproto *p)
{
	if (*p->authority)
		say(&got, " authority %s", p->authority);
	if (*p->alpn)
		say(&got, " alpn %s", p->alpn);
}

/* What the first n octets of a connection are, offered in parts that end where `way` says (see offer() of unit.h). */
static void read_parts(const unsigned char *in, size_t n, size_t way)
{
	struct proxyproto p;
	enum proxyproto_status status = PROXYPROTO_MORE;
	const char *why = NULL;
	size_t used = 0;

	clear(&got);
	for (size_t end = way == 0 ? n : way == n ? 1 : way; end <= n; end = way == n ? end + 1 : end < n ? n : n + 1) {
		status = proxyproto_read(guarded(in, end), end, &used, &p, &why);
		if (status != PROXYPROTO_MORE)
			break;
	}
	if (status == PROXYPROTO_MORE) {
		say(&got, "more");
	} else if (status == PROXYPROTO_BAD) {
		say(&got, "!%s", why);
	} else {
		assert_true(used <= n);
		say_address(&p.source);
		say(&got, " ");
		say_address(&p.dest);
		say(&got, " +%zu", n - used);
		say_tls(&p.tls);
		say_names(&p);
	}
}

struct row {
	struct input in;
	const char *want;
};

static void run_rows(const struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (size_t way = 0; way <= rows[i].in.len; way++) {
			read_parts((const unsigned char *)rows[i].in.bytes, rows[i].in.len, way);
			expect_text(rows[i].in.bytes, got.bytes, rows[i].want);
		}
}

#define BAD1 "!a malformed PROXY v1 header"
#define LONG1 "!a PROXY v1 header that is too long"
#define NONE "!no PROXY header"

static void test_v1(void **state)
{
	static const struct row rows[] = {
		{ IN("PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\n"), "192.0.2.1:4711 198.51.100.2:25 +0" },
		{ IN("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\nEHLO x\r\n"), "0.0.0.0:0 255.255.255.255:65535 +8" },
		{ IN("PROXY TCP6 2001:db8::1 ::1 1 2\r\n\n"), "[2001:db8::1]:1 [::1]:2 +1" },
		{ IN("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
		    "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535 [ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535 +0" },
		{ IN("PROXY UNKNOWN\r\n"), "none none +0" },
		{ IN("PROXY UNKNOWN ffff:f...f:ffff  what ever 65535\r\nx"), "none none +1" },
		{ IN("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
		    "none none +0" },
		/* one octet more than the longest */
		{ IN("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 655350\r\n"),
		    LONG1 },
		{ IN("PROXY"), "more" },
		{ IN("PROXY TCP4 192.0.2.1"), "more" },
		{ IN("PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r"), "more" },
		{ IN("PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2.1 198.51.100.2 4711 25 \r\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2.1 198.51.100.2 4711 25 x\r\n"), BAD1 },
		{ IN("PROXY  TCP4 192.0.2.1 198.51.100.2 4711 25\r\n"), BAD1 },
		{ IN("PROXY TCP4  192.0.2.1 198.51.100.2 4711 25\r\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2.1  198.51.100.2 4711 25\r\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2.1\t198.51.100.2 4711 25\r\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2.1 198.51.100.2 4711\r\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2.1 198.51.100.2\r\n"), BAD1 },
		{ IN("PROXY TCP4\r\n"), BAD1 },
		{ IN("PROXY \r\n"), BAD1 },
		{ IN("PROXY UNKNOWNS\r\n"), BAD1 },
		{ IN("PROXY tcp4 192.0.2.1 198.51.100.2 4711 25\r\n"), BAD1 },
		{ IN("PROXY TCP5 192.0.2.1 198.51.100.2 4711 25\r\n"), BAD1 },
		{ IN("PROXY UDP4 192.0.2.1 198.51.100.2 4711 25\r\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2.256 198.51.100.2 4711 25\r\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2.01 198.51.100.2 4711 25\r\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2 198.51.100.2 4711 25\r\n"), BAD1 },
		{ IN("PROXY TCP4 ::1 ::1 4711 25\r\n"), BAD1 },
		{ IN("PROXY TCP6 192.0.2.1 198.51.100.2 4711 25\r\n"), BAD1 },
		{ IN("PROXY TCP6 fe80::1%lo ::1 4711 25\r\n"), BAD1 },
		{ IN("PROXY TCP6 ::1 1:2:3:4:5:6:7:8:9 4711 25\r\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2.1 198.51.100.2 04711 25\r\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2.1 198.51.100.2 00 25\r\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2.1 198.51.100.2 65536 25\r\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2.1 198.51.100.2 4711 99999\r\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2.1 198.51.100.2 +711 25\r\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2.1 198.51.100.2 -1 25\r\n"), BAD1 },
		{ IN("PROXY TCP4 192.0.2.1 198.51.100.2 4711 2\0\r\n"), BAD1 },
		{ IN("PROXY UNKNOWN \0\r\n"), BAD1 },
		{ IN("EHLO client.example\r\n"), NONE },
		{ IN("PROXX"), NONE },
		{ IN("proxy TCP4 192.0.2.1 198.51.100.2 4711 25\r\n"), NONE },
		{ IN(" PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\n"), NONE },
		{ IN("\r\nPROXY UNKNOWN\r\n"), NONE },
	};

	(void)state;
	run_rows(rows, COUNT(rows));
}

#define SIG "\r\n\r\n\0\r\nQUIT\n"
#define V4 "\300\0\2\1\306\063\144\2\022\147\0\031" /* 192.0.2.1 198.51.100.2 4711 25 */
#define V6 "\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1" "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1" "\0\1\0\2"
#define ENDS4 "192.0.2.1:4711 198.51.100.2:25 +"
#define FIT "!a PROXY v2 header whose lengths do not fit"

static void test_v2(void **state)
{
	static const struct row rows[] = {
		{ IN(SIG "\x21\x11\0\x0c" V4), ENDS4 "0" },
		{ IN(SIG "\x21\x11\0\x0c" V4 "EHLO x\r\n"), ENDS4 "8" },
		{ IN(SIG "\x21\x21\0\x24" V6 "x"), "[2001:db8::1]:1 [::1]:2 +1" },
		{ IN(SIG "\x20\0\0\0"), "none none +0" },
		{ IN(SIG "\x20\0\0\0EHLO"), "none none +4" },
		/* LOCAL: all of it is skipped, whatever it is */
		{ IN(SIG "\x20\xff\0\3abcX"), "none none +1" },
		{ IN(SIG "\x20\x11\0\x0c" V4), "none none +0" },
		/* UNSPEC, and kinds that are no TCP over IP */
		{ IN(SIG "\x21\0\0\0"), "none none +0" },
		{ IN(SIG "\x21\0\0\2ab"), "none none +0" },
		{ IN(SIG "\x21\x12\0\x0c" V4), "none none +0" },
		{ IN(SIG "\x21\x22\0\x24" V6), "none none +0" },
		{ IN(SIG "\x21\x31\0\1/"), "none none +0" },
		{ IN(SIG "\x21\x32\0\1/"), "none none +0" },
		/* more room than addresses, filled with TLVs */
		{ IN(SIG "\x21\x11\0\x0f" V4 "\4\0\0"), ENDS4 "0" },
		{ IN(SIG "\x21\x11\0\x17" V4 "\4\0\1\0\1\0\4smtp"), ENDS4 "0 alpn smtp" },
		{ IN(SIG "\x21\x11\0\x0d" V4 "\4"), FIT },
		{ IN(SIG "\x21\x11\0\x0e" V4 "\4\0"), FIT },
		{ IN(SIG "\x21\x11\0\x0f" V4 "\4\0\1"), FIT },
		{ IN(SIG "\x21\x11\0\x0f" V4 "\4\0\1EHLO"), FIT },
		{ IN(SIG "\x21\x11\0\x10" V4 "\4\xff\xff\0"), FIT },
		{ IN(SIG "\x21\x11\0\x12" V4 "\4\0\0\x20\0\1"), FIT },
		{ IN(SIG "\x21\x11\0\x0b" V4), "!a PROXY v2 header without room for its addresses" },
		{ IN(SIG "\x21\x11\0\0" V4), "!a PROXY v2 header without room for its addresses" },
		{ IN(SIG "\x21\x21\0\x23" V6), "!a PROXY v2 header without room for its addresses" },
		{ IN(SIG "\x21\x41\0\x0c" V4), "!a PROXY v2 header of an unknown family" },
		{ IN(SIG "\x21\x13\0\x0c" V4), "!a PROXY v2 header of an unknown family" },
		{ IN(SIG "\x22\x11\0\x0c" V4), "!a PROXY header of an unknown version or command" },
		{ IN(SIG "\x11\x11\0\x0c" V4), "!a PROXY header of an unknown version or command" },
		{ IN(SIG "\x31\x11\0\x0c" V4), "!a PROXY header of an unknown version or command" },
		{ IN(SIG "\x01\x11\0\x0c" V4), "!a PROXY header of an unknown version or command" },
		/* CRC32C over the header, its own octets zero */
		{ IN(SIG "\x21\x11\0\x13" V4 "\3\0\4\x41\xe8\x94\x51"), ENDS4 "0" },
		{ IN(SIG "\x21\x11\0\x13" V4 "\3\0\4\x41\xe8\x94\x50"), "!a PROXY v2 header whose checksum is wrong" },
		{ IN(SIG "\x21\x11\0\x13" V4 "\3\0\4\0\0\0\0"), "!a PROXY v2 header whose checksum is wrong" },
		{ IN(SIG "\x21\x11\0\x12" V4 "\3\0\3\0\0\0"), "!a PROXY v2 header whose checksum has not four octets" },
		{ IN("\r\n\r\n"), "more" },
		{ IN(SIG), "more" },
		{ IN(SIG "\x21\x11\0"), "more" },
		{ IN(SIG "\x21\x11\0\x0c\300\0\2\1\306\063\144\2\022\147\0"), "more" },
		{ IN("\r\n\r\n\0\r\nQUIT\r"), NONE },
		{ IN("\r\n\r\nEHLO"), NONE },
		{ IN("\n"), NONE },
	};

	(void)state;
	run_rows(rows, COUNT(rows));
}

#define X63 "x23456789x123456789x123456789x123456789x123456789x123456789x123"

static void test_tls(void **state)
{
	static const struct row rows[] = {
		{ IN(SIG "\x21\x11\0\x14" V4 "\x20\0\5\1\0\0\0\1"), ENDS4 "0 - - " },
		{ IN(SIG "\x21\x11\0\x1e" V4 "\x20\0\xf\1\0\0\0\1\x21\0\7TLSv1.3EHLO"), ENDS4 "4 TLSv1.3 - " },
		{ IN(SIG "\x21\x11\0\x22" V4 "\x20\0\x13\1\0\0\0\1\x21\0\5TLSv1\x23\0\3A_B"), ENDS4 "0 TLSv1 A_B " },
		/* kinds that are not known, or not of interest, and two of one: the first */
		{ IN(SIG "\x21\x11\0\x24" V4 "\x20\0\x15\1\0\0\0\1\x24\0\0\xff\0\1x\x21\0\2az\x21\0\1b"), ENDS4 "0 az - " },
		/* a client without TLS; its octets are looked at all the same */
		{ IN(SIG "\x21\x11\0\x14" V4 "\x20\0\5\0\0\0\0\1"), ENDS4 "0" },
		{ IN(SIG "\x21\x11\0\x18" V4 "\x20\0\x9\6\0\0\0\0\x21\0\1a"), ENDS4 "0" },
		{ IN(SIG "\x21\x11\0\x18" V4 "\x20\0\x9\0\0\0\0\0\x21\0\2a"), FIT },
		/* a certificate of the client's: shown in this connection or before, and good, or not */
		{ IN(SIG "\x21\x11\0\x19" V4 "\x20\0\xa\3\0\0\0\0\x22\0\2me"), ENDS4 "0 - - verified me" },
		{ IN(SIG "\x21\x11\0\x19" V4 "\x20\0\xa\5\0\0\0\0\x22\0\2\303\251"), ENDS4 "0 - - verified \303\251" },
		{ IN(SIG "\x21\x11\0\x19" V4 "\x20\0\xa\1\0\0\0\0\x22\0\2me"), ENDS4 "0 - - " },
		{ IN(SIG "\x21\x11\0\x19" V4 "\x20\0\xa\7\1\0\0\0\x22\0\2me"), ENDS4 "0 - - " },
		{ IN(SIG "\x21\x11\0\x19" V4 "\x20\0\xa\7\0\0\0\1\x22\0\2me"), ENDS4 "0 - - " },
		{ IN(SIG "\x21\x11\0\x1a" V4 "\x20\0\xb\3\0\0\0\0\x22\0\3m\0e"), ENDS4 "0 - - verified " },
		/* texts that are not passed on */
		{ IN(SIG "\x21\x11\0\x1f" V4 "\x20\0\x10\1\0\0\0\1\x21\0\1\n\x23\0\4A) B"), ENDS4 "0 - - " },
		{ IN(SIG "\x21\x11\0\x1f" V4 "\x20\0\x10\1\0\0\0\1\x21\0\1@\x23\0\4\303\251AB"), ENDS4 "0 - - " },
		{ IN(SIG "\x21\x11\0\x1e" V4 "\x20\0\xf\1\0\0\0\1\x21\0\0\x23\0\4A\0BC"), ENDS4 "0 - - " },
		{ IN(SIG "\x21\x11\0\x57" V4 "\x20\0\x48\1\0\0\0\1\x21\0\x40" X63 "y"), ENDS4 "0 " X63 "y - " },
		{ IN(SIG "\x21\x11\0\x58" V4 "\x20\0\x49\1\0\0\0\1\x21\0\x41" X63 "yz"), ENDS4 "0 - - " },
		/* lengths */
		{ IN(SIG "\x21\x11\0\x0f" V4 "\x20\0\0"), FIT },
		{ IN(SIG "\x21\x11\0\x13" V4 "\x20\0\4\1\0\0\0"), FIT },
		{ IN(SIG "\x21\x11\0\x13" V4 "\x20\0\5\1\0\0\0"), FIT },
		{ IN(SIG "\x21\x11\0\x15" V4 "\x20\0\6\1\0\0\0\1\x21"), FIT },
		{ IN(SIG "\x21\x11\0\x16" V4 "\x20\0\7\1\0\0\0\1\x21\0"), FIT },
		{ IN(SIG "\x21\x11\0\x17" V4 "\x20\0\x8\1\0\0\0\1\x21\0\1"), FIT },
		/* it would reach into the next on the same level, or out of the header */
		{ IN(SIG "\x21\x11\0\x1b" V4 "\x20\0\x8\1\0\0\0\1\x21\0\1\4\0\1x"), FIT },
		{ IN(SIG "\x21\x11\0\x17" V4 "\x20\0\x8\1\0\0\0\1\x21\xff\xff" "EHLO"), FIT },
		{ IN(SIG "\x21\x11\0\x1c" V4 "\x20\0\5\1\0\0\0\1\x20\0\5\1\0\0\0\1"),
		    "!a PROXY v2 header that tells of TLS twice" },
		{ IN(SIG "\x21\x11\0\x1c" V4 "\x20\0\5\0\0\0\0\1\x20\0\5\1\0\0\0\1"),
		    "!a PROXY v2 header that tells of TLS twice" },
		/* nested at the wrong level it is nothing */
		{ IN(SIG "\x21\x11\0\x10" V4 "\x21\0\1a"), ENDS4 "0" },
		/* of nobody: a proxy that speaks for itself */
		{ IN(SIG "\x20\x11\0\x14" V4 "\x20\0\5\1\0\0\0\1"), "none none +0" },
		{ IN(SIG "\x21\0\0\x8\x20\0\5\1\0\0\0\1"), "none none +0" },
	};

	(void)state;
	run_rows(rows, COUNT(rows));
}

#define Y "y23456789-y23456789-y23456789-y23456789-y23456789-" /* 50 */

static void test_names(void **state)
{
	static const struct row rows[] = {
		{ IN(SIG "\x21\x11\0\x16" V4 "\2\0\7a.b-c_D"), ENDS4 "0 authority a.b-c_D" },
		{ IN(SIG "\x21\x11\0\x19" V4 "\1\0\3h\n2\2\0\4a.bc"), ENDS4 "0 authority a.bc alpn h\n2" },
		/* two of one: the first; and what is not passed on */
		{ IN(SIG "\x21\x11\0\x14" V4 "\2\0\1a\2\0\1b"), ENDS4 "0 authority a" },
		{ IN(SIG "\x21\x11\0\x14" V4 "\2\0\0\2\0\2.b"), ENDS4 "0 authority .b" },
		{ IN(SIG "\x21\x11\0\x13" V4 "\2\0\4a\r\nb"), ENDS4 "0" },
		{ IN(SIG "\x21\x11\0\x12" V4 "\2\0\3a\0b"), ENDS4 "0" },
		{ IN(SIG "\x21\x11\0\x12" V4 "\1\0\3a\0b"), ENDS4 "0" },
		{ IN(SIG "\x21\x11\1\x0e" V4 "\2\0\xff" Y Y Y Y Y "12345"), ENDS4 "0 authority " Y Y Y Y Y "12345" },
		{ IN(SIG "\x21\x11\1\x0f" V4 "\2\1\0" Y Y Y Y Y "123456"), ENDS4 "0" },
		{ IN(SIG "\x21\x11\0\x0f" V4 "\2\0\1"), FIT },
		/* nested, or of nobody */
		{ IN(SIG "\x21\x11\0\x18" V4 "\x20\0\x9\1\0\0\0\1\2\0\1a"), ENDS4 "0 - - " },
		{ IN(SIG "\x20\x11\0\x10" V4 "\2\0\1a"), "none none +0" },
		/* of the proxy's certificate */
		{ IN(SIG "\x21\x11\0\x2b" V4 "\x20\0\x1c\1\0\0\0\1\x24\0\xaRSA-SHA256\x25\0\7RSA2048"), ENDS4 "0 - -  RSA-SHA256 RSA2048" },
		{ IN(SIG "\x21\x11\0\x1e" V4 "\x20\0\xf\1\0\0\0\1\x25\0\1 \x24\0\3a(b"), ENDS4 "0 - - " },
	};

	(void)state;
	run_rows(rows, COUNT(rows));
}

/* All 65535 octets of what may follow, of which the last is a TLV's. */
static void test_longest_v2(void **state)
{
	static unsigned char in[PROXYPROTO_MAX + 1] = SIG "\x21\x11\xff\xff" V4 "\4\xff";

	(void)state;
	in[sizeof SIG - 1 + 4 + 12 + 2] = 0xff - 12 - 3;
	read_parts(in, PROXYPROTO_MAX, 0);
	expect_text("longest", got.bytes, ENDS4 "0");
	read_parts(in, PROXYPROTO_MAX - 1, 0);
	expect_text("an octet less", got.bytes, "more");
	in[sizeof SIG - 1 + 4 + 12 + 2]++;
	read_parts(in, PROXYPROTO_MAX, 0);
	expect_text("a length too large", got.bytes, FIT);
}

/* ---- writing ---- */

static union net_address address(const char *text, uint16_t port)
{
	union net_address a;

	memset(&a, 0, sizeof a);
	if (!*text)
		return a;
	if (strchr(text, ':')) {
		a.v6.sin6_family = AF_INET6;
		a.v6.sin6_port = htons(port);
		assert_int_equal(inet_pton(AF_INET6, text, &a.v6.sin6_addr), 1);
	} else {
		a.v4.sin_family = AF_INET;
		a.v4.sin_port = htons(port);
		assert_int_equal(inet_pton(AF_INET, text, &a.v4.sin_addr), 1);
	}
	return a;
}

/* Written into exactly the room that the contract names, with a page behind it that nobody may touch. */
static const unsigned char *write_guarded(unsigned version, const char *source, const char *dest,
    const struct proxyproto_tls *tls, size_t *n)
{
	static const unsigned char zeros[PROXYPROTO_WRITTEN];
	struct proxyproto p = { .source = address(source, 4711), .dest = address(dest, 25), .tls = *tls };
	unsigned char *out = (unsigned char *)(uintptr_t)guarded(zeros, sizeof zeros);

	assert_int_equal(proxyproto_write(version, &p, out, PROXYPROTO_WRITTEN - 1), 0);
	*n = proxyproto_write(version, &p, out, PROXYPROTO_WRITTEN);
	assert_true(*n <= PROXYPROTO_WRITTEN);
	return out;
}

static void test_writing(void **state)
{
	static const struct {
		unsigned version;
		const char *source, *dest;
		struct proxyproto_tls tls;
		struct input want;
	} rows[] = {
		{ 1, "192.0.2.1", "198.51.100.2", { 0 }, IN("PROXY TCP4 192.0.2.1 198.51.100.2 4711 25\r\n") },
		{ 1, "2001:db8::1", "::1", { .on = true, .version = "TLSv1.2", .cipher = "x" }, IN("PROXY TCP6 2001:db8::1 ::1 4711 25\r\n") },
		{ 1, "", "", { 0 }, IN("PROXY UNKNOWN\r\n") },
		{ 1, "192.0.2.1", "::1", { 0 }, IN("PROXY UNKNOWN\r\n") },
		{ 1, "192.0.2.1", "", { 0 }, IN("PROXY UNKNOWN\r\n") },
		{ 2, "192.0.2.1", "198.51.100.2", { 0 }, IN(SIG "\x21\x11\0\x0c" V4) },
		{ 2, "2001:db8::1", "::1", { 0 },
		    IN(SIG "\x21\x21\0\x24\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\022\147\0\031") },
		{ 2, "", "", { 0 }, IN(SIG "\x20\0\0\0") },
		{ 2, "", "", { .on = true, .version = "TLSv1.2", .cipher = "x" }, IN(SIG "\x20\0\0\0") },
		{ 2, "::1", "192.0.2.1", { 0 }, IN(SIG "\x20\0\0\0") },
		{ 2, "192.0.2.1", "198.51.100.2", { .on = true, .verified = true, .cn = "me" },
		    IN(SIG "\x21\x11\0\x19" V4 "\x20\0\xa\7\0\0\0\0\x22\0\2me") },
		{ 2, "192.0.2.1", "198.51.100.2", { .on = true },
		    IN(SIG "\x21\x11\0\x14" V4 "\x20\0\5\1\0\0\0\1") },
		{ 2, "192.0.2.1", "198.51.100.2", { .on = true, .version = "TLSv1.2", .cipher = "AES" },
		    IN(SIG "\x21\x11\0\x24" V4 "\x20\0\x15\1\0\0\0\1\x21\0\7TLSv1.2\x23\0\3AES") },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		size_t n;
		const unsigned char *out =
		    write_guarded(rows[i].version, rows[i].source, rows[i].dest, &rows[i].tls, &n);

		assert_int_equal(n, rows[i].want.len);
		assert_memory_equal(out, rows[i].want.bytes, n);
	}
}

/* The longest of both versions, which are read again. */
static void test_longest_written(void **state)
{
	static const char six[] = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
	struct proxyproto_tls tls = { true, true, X63 "a", X63 "b", "", X63 "c", X63 "d" };

	(void)state;
	memset(tls.cn, 'c', sizeof tls.cn - 1);
	for (unsigned version = 1; version <= 2; version++) {
		unsigned char copy[PROXYPROTO_WRITTEN];
		size_t n;

		memcpy(copy, write_guarded(version, six, six, &tls, &n), sizeof copy);
		read_parts(copy, n, 0);
		clear(&want);
		say(&want, "[%s]:4711 [%s]:25 +0", six, six);
		if (version == 2)
			say(&want, " " X63 "a " X63 "b verified %s", tls.cn);
		expect_text("written", got.bytes, want.bytes);
	}
}

static void test_writing_names(void **state)
{
	static const struct {
		unsigned version;
		const char *source, *authority, *alpn, *key, *want;
	} rows[] = {
		{ 1, "192.0.2.1", "a.example", "smtp", "EC256", ENDS4 "0" },
		{ 2, "192.0.2.1", "a.example", "smtp", "EC256", ENDS4 "0 TLSv1.2 -  RSA-SHA256 EC256 authority a.example alpn smtp" },
		{ 2, "192.0.2.1", "a.example", "", "", ENDS4 "0 TLSv1.2 -  RSA-SHA256  authority a.example" },
		{ 2, "192.0.2.1", "a.example\r\nRCPT", "h\r\n2", "", ENDS4 "0 TLSv1.2 -  RSA-SHA256  alpn h\r\n2" },
		{ 2, "192.0.2.1", "a example", "", NULL, ENDS4 "0" },
		{ 2, "192.0.2.1", Y Y Y Y Y "12345", "", NULL, ENDS4 "0 authority " Y Y Y Y Y "12345" },
		{ 2, "", "a.example", "smtp", "EC256", "none none +0" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct proxyproto p = { .source = address(rows[i].source, 4711), .dest = address("198.51.100.2", 25) };
		unsigned char out[PROXYPROTO_WRITTEN];

		if (rows[i].key)
			p.tls = (struct proxyproto_tls){ true, false, "TLSv1.2", "", "", "RSA-SHA256", "" };
		snprintf(p.tls.key, sizeof p.tls.key, "%s", rows[i].key ? rows[i].key : "");
		snprintf(p.authority, sizeof p.authority, "%s", rows[i].authority);
		snprintf(p.alpn, sizeof p.alpn, "%s", rows[i].alpn);
		read_parts(out, proxyproto_write(rows[i].version, &p, out, sizeof out), 0);
		expect_text(rows[i].authority, got.bytes, *rows[i].source ? rows[i].want : "none none +0");
	}
}

/* What has no room is left out, and never the name that the client asked for. */
static void test_names_without_room(void **state)
{
	static const struct {
		const char *source, *dest;
		size_t authority, alpn, cipher, cn;
		const char *want; /* of cipher, cn, signature, key: the first letters of those that are written */
	} rows[] = {
		{ "192.0.2.1", "192.0.2.2", 9, 4, 7, 255, "xcsk" },
		{ "192.0.2.1", "192.0.2.2", 189, 4, 7, 255, "xsk" },
		{ "192.0.2.1", "192.0.2.2", 255, 4, 7, 130, "xck" },
		{ "::1", "::2", 255, 64, 45, 64, "xc" },
		{ "::1", "::2", 255, 64, 7, 255, "xsk" },
		{ "::1", "::2", 255, 64, 64, 255, "xk" },
		{ "::1", "::2", 0, 0, 64, 255, "xcsk" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct proxyproto again, p = { .source = address(rows[i].source, 4711), .dest = address(rows[i].dest, 25),
			.tls = { true, true, "TLSv1.2", "", "", X63, "RSA2048" } };
		unsigned char out[PROXYPROTO_WRITTEN];
		const char *why;
		size_t used;

		memset(p.authority, 'a', rows[i].authority);
		memset(p.alpn, 'p', rows[i].alpn);
		memset(p.tls.cipher, 'x', rows[i].cipher);
		memset(p.tls.cn, 'c', rows[i].cn);
		assert_int_equal(proxyproto_read(out, proxyproto_write(2, &p, out, sizeof out), &used, &again, &why), PROXYPROTO_DONE);
		clear(&want);
		say(&want, "%zu: %s %s %s %s %s %s %s", i, p.authority, p.alpn, p.tls.version, strchr(rows[i].want, 'x') ? p.tls.cipher : "",
		    strchr(rows[i].want, 'c') ? p.tls.cn : "", strchr(rows[i].want, 's') ? X63 : "", strchr(rows[i].want, 'k') ? "RSA2048" : "");
		clear(&got);
		say(&got, "%zu: %s %s %s %s %s %s %s", i, again.authority, again.alpn, again.tls.version, again.tls.cipher, again.tls.cn,
		    again.tls.signature, again.tls.key);
		expect_text("texts", got.bytes, want.bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_v1),
		cmocka_unit_test(test_v2),
		cmocka_unit_test(test_tls),
		cmocka_unit_test(test_longest_v2),
		cmocka_unit_test(test_writing),
		cmocka_unit_test(test_longest_written),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_writing_names),
		cmocka_unit_test(test_names_without_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
