/* Which server's TLSA records are asked for, and what becomes of each answer: RFC 7672 2. The name server is the test, over a socket on
 * loopback; the clock is the test's, which goes on when nothing else does. */
#include "test/lib/unit.h"
#include "test/lib/played_server.h"

#include "io/dane.h"

#include <stdlib.h>
#include <unistd.h>

#define PATIENCE INT64_C(5000000)

/* What the name server says of a name: records in words, which are
 *   "A 192.0.2.1 ...", "MX 10 name ...", "TLSA 311 210 ..." (data are made up), "CNAME name" before any of them, "" for none;
 * "NXDOMAIN", perhaps with a CNAME behind it; "SERVFAIL"; NULL: nothing at all. secure: with AD. */
struct zone {
	const char *name;
	enum dns_type type;
	bool secure;
	const char *says;
};

static const struct zone *zone;
static size_t zone_len;
static int server = -1;
static struct dns_servers servers;
static struct text asked, got;
static char mx[DNS_NAME_MAX + 1];
static int64_t now;
static unsigned deaf; /* so many queries get no answer */

/* ---- the name server ---- */

static size_t put_name(unsigned char *out, const char *name)
{
	unsigned char question[DNS_QUERY];
	size_t n = dns_ask(0, name, DNS_A, question);

	assert_true(n);
	memcpy(out, question + 12, n - 16);
	return n - 16;
}

static size_t put_record(unsigned char *out, const char *owner, unsigned type, const unsigned char *data, size_t len)
{
	size_t n = put_name(out, owner);

	dns_put16(out + n, type);
	dns_put16(out + n + 2, 1);
	memset(out + n + 4, 0, 4);
	dns_put16(out + n + 8, (unsigned)len);
	memcpy(out + n + 10, data, len);
	return n + 10 + len;
}

/* The data of the next record in *words, of that type. Returns octets. */
static size_t data_of(char **words, const char *type, unsigned char data[300])
{
	char *word = strtok_r(NULL, " ", words);
	union net_address a;

	if (!word)
		return 0;
	if (strcmp(type, "MX") == 0) {
		dns_put16(data, (unsigned)atoi(word));
		word = strtok_r(NULL, " ", words);
		if (strcmp(word, ".") == 0) {
			data[2] = 0;
			return 3;
		}
		return 2 + put_name(data + 2, word);
	}
	if (strcmp(type, "TLSA") == 0) {
		for (unsigned i = 0; i < 3; i++)
			data[i] = (unsigned char)(word[i] - '0');
		memset(data + 3, 'x', 64);
		return 3 + (data[2] == 1 ? 32 : 64);
	}
	assert_true(net_parse(word, 0, &a));
	if (a.sa.sa_family == AF_INET6)
		memcpy(data, &a.v6.sin6_addr, 16);
	else
		memcpy(data, &a.v4.sin_addr, 4);
	return a.sa.sa_family == AF_INET6 ? 16 : 4;
}

/* Append the records to an answer. Returns how many there are. */
static unsigned put_records(unsigned char *out, size_t *n, const char *name, unsigned type, const char *says)
{
	char text[1200], owner[DNS_NAME_MAX + 1], *words = text, *kind;
	unsigned char data[300];
	unsigned count = 0;
	size_t len;

	snprintf(text, sizeof text, "%s", says);
	snprintf(owner, sizeof owner, "%s", name);
	kind = strtok_r(text, " ", &words);
	if (kind && strcmp(kind, "CNAME") == 0) {
		const char *target = strtok_r(NULL, " ", &words);

		len = put_name(data, target);
		*n += put_record(out + *n, owner, 5, data, len);
		snprintf(owner, sizeof owner, "%s", target);
		count++;
		kind = strtok_r(NULL, " ", &words);
	}
	while (kind && (len = data_of(&words, kind, data))) {
		*n += put_record(out + *n, owner, type, data, len);
		count++;
	}
	return count;
}

static const struct zone *find(const char *name, unsigned type)
{
	for (size_t i = 0; i < zone_len; i++)
		if (strcmp(zone[i].name, name) == 0 && zone[i].type == type)
			return &zone[i];
	fail_msg("asked about %s, %u", name, type);
	return NULL;
}

/* Answer one query, if there is one. */
static bool serve(void)
{
	static unsigned char in[512], out[DNS_MESSAGE];
	char name[DNS_NAME_MAX + 1] = "";
	union net_address from;
	socklen_t from_len = sizeof from;
	ssize_t len = recvfrom(server, in, sizeof in, MSG_DONTWAIT, &from.sa, &from_len);
	size_t n = 12;
	const struct zone *z;
	unsigned type;
	bool missing;

	if (len < 0)
		return false;
	assert_true(len > 17 + 11 && in[3] & 0x20 && in[11] == 1); /* it asks for what is authentic */
	for (; in[n]; n += in[n] + 1u)
		snprintf(name + strlen(name), sizeof name - strlen(name), "%s%.*s", name[0] ? "." : "", in[n], in + n + 1);
	n += 5;
	type = dns_get16(in + n - 4);
	say(&asked, "%s%s %s", asked.len ? ", " : "",
	    type == DNS_MX ? "MX" : type == DNS_TLSA ? "TLSA" : type == DNS_CNAME ? "CNAME" : type == DNS_A ? "A" : "AAAA", name);
	z = find(name, type);
	if (!z->says || deaf) {
		deaf -= deaf > 0;
		return true;
	}
	memcpy(out, in, n);
	out[2] = 0x81;
	missing = strncmp(z->says, "NXDOMAIN", 8) == 0;
	out[3] = strcmp(z->says, "SERVFAIL") == 0 ? 0x82 : missing ? 0x83 : 0x80;
	out[3] |= z->secure ? 0x20 : 0;
	dns_put16(out + 10, 0);
	dns_put16(out + 6, (out[3] & 0xf) == 2 ? 0 : put_records(out, &n, name, type, z->says + (missing ? 8 : 0)));
	assert_true(sendto(server, out, n, 0, &from.sa, from_len) == (ssize_t)n);
	return true;
}

static void open_server(void)
{
	union net_address a;

	server = play_server(&a);
	servers = (struct dns_servers){ .count = 1, .server = { a } };
}

/* ---- asking ---- */

static void say_answer(const struct dane_answer *a)
{
	static const char *const words[] = { "none", "usable", "unusable", "failed" };

	say(&got, "%s%s%s", words[a->word], a->half ? " half" : "", a->identified ? "" : " any");
	if (a->word == DANE_FAILED)
		say(&got, ": %s", a->why);
	snprintf(mx, sizeof mx, "%s", a->mx ? a->mx : "");
	if (a->word != DANE_USABLE)
		return;
	say(&got, "%s %u sni %s for", a->every ? " every" : a->demanded ? " tls" : "", a->set.count, a->host);
	for (size_t i = 0; i < a->count; i++)
		say(&got, " %s", a->names[i]);
}

/* The descriptor that is free. */
static int free_descriptor(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

/* Ask about a domain, or a host, until there is an answer, which is put down; so is what was asked. */
static const char *ask(const char *domain, const char *host, const char *address)
{
	const struct dane_answer *a;
	struct pollfd p[DANE_POLLED];
	union net_address to;
	int64_t began = now;
	int before = free_descriptor();

	clear(&asked);
	clear(&got);
	assert_true(net_parse(address, 25, &to));
	dane_ask(domain, host, &to, 25, &servers, now, PATIENCE);
	while (!(a = dane_turn(now))) {
		assert_in_range(dane_watch(p), 1, DANE_POLLED);
		if (serve()) {
			while (serve())
				;
		} else {
			assert_true(dane_deadline() > now && dane_deadline() <= began + PATIENCE);
			now = dane_deadline();
		}
	}
	assert_int_equal(dane_watch(p), 0);
	assert_true(dane_deadline() == INT64_MAX);
	say_answer(a);
	dane_end();
	assert_int_equal(free_descriptor(), before);
	return got.bytes;
}

#define USE(z) (zone = (z), zone_len = COUNT(z))

/* ---- tests ---- */

static const struct zone plain[] = {
	{ "d.test", DNS_MX, true, "MX 10 a.test 20 b.test" },
	{ "a.test", DNS_A, true, "A 192.0.2.1 192.0.2.2" },
	{ "b.test", DNS_A, true, "A 192.0.2.3" },
	{ "a.test", DNS_AAAA, true, "AAAA 2001:db8::1" },
	{ "b.test", DNS_AAAA, true, "" },
	{ "_25._tcp.a.test", DNS_TLSA, true, "TLSA 311 312" },
	{ "_25._tcp.b.test", DNS_TLSA, true, "TLSA 211" },
};

static void host_that_has_the_address(void **state)
{
	(void)state;
	USE(plain);
	expect_text("the first", ask("d.test", NULL, "192.0.2.2"), "usable every 2 sni a.test for a.test d.test");
	expect_text("asked", asked.bytes, "MX d.test, A a.test, A b.test, TLSA _25._tcp.a.test");
	expect_text("the second", ask("d.test", NULL, "192.0.2.3"), "usable every 1 sni b.test for b.test d.test");
	expect_text("IPv6", ask("d.test", NULL, "2001:db8::1"), "usable every 2 sni a.test for a.test d.test");
	expect_text("asked", asked.bytes, "MX d.test, AAAA a.test, AAAA b.test, TLSA _25._tcp.a.test");
	expect_text("none of them", ask("d.test", NULL, "192.0.2.9"), "usable any every 3 sni a.test for a.test b.test d.test");
	expect_text("a host", ask(NULL, "b.test", "192.0.2.9"), "usable every 1 sni b.test for b.test");
	expect_text("asked", asked.bytes, "A b.test, TLSA _25._tcp.b.test");
	assert_int_equal(now, 0); /* nothing was waited for */
}

/* One host, a.test, that has the address: what is said of it, and what follows. */
static void one_host(void **state)
{
	static const struct {
		const char *name;
		struct zone mx, a, tlsa;
		const char *want;
	} rows[] = {
#define MX_OF(secure, says) { "d.test", DNS_MX, secure, says }
#define A_OF(secure, says) { "a.test", DNS_A, secure, says }
#define TLSA_OF(secure, says) { "_25._tcp.a.test", DNS_TLSA, secure, says }
#define GOOD_MX MX_OF(true, "MX 10 a.test")
#define GOOD_A A_OF(true, "A 192.0.2.1")
#define GOOD_TLSA TLSA_OF(true, "TLSA 311")
#define NOT_ASKED { "", DNS_A, false, NULL }
		{ "good", GOOD_MX, GOOD_A, GOOD_TLSA, "usable every 1 sni a.test for a.test d.test" },
		{ "no records", GOOD_MX, GOOD_A, TLSA_OF(true, ""), "none" },
		{ "no such name", GOOD_MX, GOOD_A, TLSA_OF(true, "NXDOMAIN"), "none" },
		{ "none, of what is not signed for each name", GOOD_MX, GOOD_A, TLSA_OF(false, "NXDOMAIN"), "none" },
		{ "some cannot be used", GOOD_MX, GOOD_A, TLSA_OF(true, "TLSA 011 111 311 319"), "usable every 1 sni a.test for a.test d.test" },
		{ "none can be used", GOOD_MX, GOOD_A, TLSA_OF(true, "TLSA 011 111 329"), "unusable" },
		{ "records fail", GOOD_MX, GOOD_A, TLSA_OF(true, "SERVFAIL"), "failed: records of a.test: the server failed" },
		{ "no answer for records", GOOD_MX, GOOD_A, TLSA_OF(true, NULL), "failed: records of a.test: no answer in time" },
		{ "records are not signed", GOOD_MX, GOOD_A, TLSA_OF(false, "TLSA 311"),
		    "failed: records of a.test: the name server has validated the address, but not the TLSA records" },
		{ "address is not signed", GOOD_MX, A_OF(false, "A 192.0.2.1"), NOT_ASKED, "none" },
		{ "address fails", GOOD_MX, A_OF(true, "SERVFAIL"), NOT_ASKED, "failed any: records of a.test: the server failed" },
		{ "no answer for the address", GOOD_MX, A_OF(true, NULL), NOT_ASKED, "failed any: records of a.test: no answer in time" },
		{ "MX is not signed", MX_OF(false, "MX 10 a.test"), GOOD_A, GOOD_TLSA, "usable half every 1 sni a.test for a.test" },
		{ "neither is", MX_OF(false, "MX 10 a.test"), A_OF(false, "A 192.0.2.1"), NOT_ASKED, "none half" },
		{ "MX is not signed, and leads elsewhere", MX_OF(false, "MX 10 a.test"), A_OF(true, "A 192.0.2.2"), NOT_ASKED, "none half any" },
		{ "MX is not signed, and the address fails", MX_OF(false, "MX 10 a.test"), A_OF(true, "SERVFAIL"), NOT_ASKED,
		    "failed half any: records of a.test: the server failed" },
		{ "MX fails", MX_OF(true, "SERVFAIL"), NOT_ASKED, NOT_ASKED, "failed any: MX of d.test: the server failed" },
		{ "no answer for MX", MX_OF(true, NULL), NOT_ASKED, NOT_ASKED, "failed any: MX of d.test: no answer in time" },
		{ "no such domain", MX_OF(true, "NXDOMAIN"), NOT_ASKED, NOT_ASKED, "none any" },
		{ "no mail", MX_OF(true, "MX 0 ."), NOT_ASKED, NOT_ASKED, "none any" },
		{ "an alias with records", GOOD_MX, A_OF(true, "CNAME x.test A 192.0.2.1"), { "_25._tcp.x.test", DNS_TLSA, true, "TLSA 211" },
		    "usable every 1 sni x.test for x.test a.test d.test" },
		{ "an alias whose records fail", GOOD_MX, A_OF(true, "CNAME x.test A 192.0.2.1"), { "_25._tcp.x.test", DNS_TLSA, true, "SERVFAIL" },
		    "failed: records of a.test: the server failed" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct zone z[] = { rows[i].mx, rows[i].a, rows[i].tlsa };

		USE(z);
		expect_text(rows[i].name, ask("d.test", NULL, "192.0.2.1"), rows[i].want);
	}
}

/* The name of the server counts, whatever records it has, if who may serve the domain is signed and one server alone has the address. */
static void name_of_the_server(void **state)
{
	static const struct {
		const char *name;
		bool mx, a;
		const char *b, *address, *want;
	} rows[] = {
		{ "signed", true, true, "A 192.0.2.2", "192.0.2.1", "a.test" },
		{ "the second", true, true, "A 192.0.2.2", "192.0.2.2", "b.test" },
		{ "the address is not signed", true, false, "A 192.0.2.2", "192.0.2.1", "a.test" },
		{ "MX is not signed", false, true, "A 192.0.2.2", "192.0.2.1", "" },
		{ "nothing is signed", false, false, "A 192.0.2.2", "192.0.2.1", "" },
		{ "none has it", true, true, "A 192.0.2.2", "192.0.2.9", "" },
		{ "both have it", true, true, "A 192.0.2.1", "192.0.2.1", "" },
		{ "the other fails", true, true, "SERVFAIL", "192.0.2.1", "a.test" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		const struct zone z[] = {
			{ "d.test", DNS_MX, rows[i].mx, "MX 10 a.test 20 b.test" },
			{ "a.test", DNS_A, rows[i].a, "A 192.0.2.1" },
			{ "b.test", DNS_A, true, rows[i].b },
			{ "_25._tcp.a.test", DNS_TLSA, true, "NXDOMAIN" },
			{ "_25._tcp.b.test", DNS_TLSA, true, "NXDOMAIN" },
		};

		USE(z);
		ask("d.test", NULL, rows[i].address);
		expect_text(rows[i].name, mx, rows[i].want);
	}
	USE(plain);
	ask(NULL, "b.test", "192.0.2.3");
	expect_text("a host that was given", mx, "");
}

/* RFC 7672 2.2.2: the name that it leads to, then the name itself. */
static void alias_without_records(void **state)
{
	static const struct zone z[] = {
		{ "d.test", DNS_MX, true, "MX 10 a.test" },
		{ "a.test", DNS_A, true, "CNAME x.test A 192.0.2.1" },
		{ "_25._tcp.x.test", DNS_TLSA, true, "NXDOMAIN" },
		{ "_25._tcp.a.test", DNS_TLSA, true, "TLSA 211" },
	};

	(void)state;
	USE(z);
	expect_text("the name itself", ask("d.test", NULL, "192.0.2.1"), "usable every 1 sni a.test for a.test d.test");
	expect_text("asked", asked.bytes, "MX d.test, A a.test, TLSA _25._tcp.x.test, TLSA _25._tcp.a.test");
}

/* RFC 7672 2.2.2: an alias may be signed though what it leads to is not, whatever is said there. */
static void alias_to_what_is_not_signed(void **state)
{
	static const char *const leads_to[] = { "CNAME x.test A 192.0.2.1", "CNAME no@host A 192.0.2.1", "CNAME x.test",
		"NXDOMAIN CNAME x.test" };
	static const struct {
		const char *name;
		bool secure;
		const char *alias, *tlsa, *want, *asked;
	} rows[] = {
		{ "signed", true, "CNAME x.test", "TLSA 211", "usable every 1 sni a.test for a.test", ", TLSA _25._tcp.a.test" },
		{ "signed, without records", true, "CNAME x.test", "", "none", ", TLSA _25._tcp.a.test" },
		{ "signed, and the records fail", true, "CNAME x.test", "SERVFAIL", "failed: records of a.test: the server failed",
		    ", TLSA _25._tcp.a.test, TLSA _25._tcp.a.test, TLSA _25._tcp.a.test, TLSA _25._tcp.a.test" },
		{ "not signed either", false, "CNAME x.test", NULL, "none", "" },
		{ "not known", true, NULL, NULL, "failed: records of a.test: no answer in time",
		    ", CNAME a.test, CNAME a.test, CNAME a.test" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows) * COUNT(leads_to); i++) {
		const char *says = leads_to[i % COUNT(leads_to)];
		size_t row = i / COUNT(leads_to);
		const struct zone z[] = { { "a.test", DNS_A, false, says }, { "a.test", DNS_CNAME, rows[row].secure, rows[row].alias },
			{ "_25._tcp.a.test", DNS_TLSA, true, rows[row].tlsa } };

		USE(z);
		expect_text(rows[row].name, ask(NULL, "a.test", "192.0.2.1"), rows[row].want);
		assert_int_equal(strncmp(asked.bytes, "A a.test, CNAME a.test", 22), 0);
		expect_text(rows[row].name, asked.bytes + 22, rows[row].asked);
	}
}

/* A domain without MX, RFC 5321 5.1. */
static void domain_itself(void **state)
{
	static const struct zone z[] = {
		{ "d.test", DNS_MX, true, "" },
		{ "d.test", DNS_A, true, "A 192.0.2.1" },
		{ "_25._tcp.d.test", DNS_TLSA, true, "TLSA 311" },
	};

	(void)state;
	USE(z);
	expect_text("itself", ask("d.test", NULL, "192.0.2.1"), "usable every 1 sni d.test for d.test d.test");
}

/* None has the address: any will do, and who may be one without records is not known to be none. */
static void any_host(void **state)
{
	static const struct {
		const char *name;
		bool secure;
		const char *a, *tlsa, *want;
	} rows[] = {
		{ "records", true, "A 192.0.2.3", "TLSA 211", "usable any every 2 sni a.test for a.test b.test d.test" },
		{ "no address", true, "", "TLSA 211", "usable any every 2 sni a.test for a.test b.test d.test" },
		{ "no records", true, "A 192.0.2.3", "", "usable any 1 sni a.test for a.test d.test" },
		{ "none that can be used", true, "A 192.0.2.3", "TLSA 011", "usable any tls 1 sni a.test for a.test d.test" },
		{ "not signed", false, "A 192.0.2.3", NULL, "usable any 1 sni a.test for a.test d.test" },
		{ "records fail", true, "A 192.0.2.3", "SERVFAIL", "usable any every 1 sni a.test for a.test d.test" },
		{ "address fails", true, "SERVFAIL", NULL, "usable any every 1 sni a.test for a.test d.test" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct zone z[] = { plain[0], plain[1], { "b.test", DNS_A, rows[i].secure, rows[i].a }, plain[5],
			{ "_25._tcp.b.test", DNS_TLSA, true, rows[i].tlsa } };

		z[3].says = "TLSA 311";
		USE(z);
		expect_text(rows[i].name, ask("d.test", NULL, "192.0.2.9"), rows[i].want);
		z[3].says = "";
		expect_text(rows[i].name, ask("d.test", NULL, "192.0.2.9"),
		    i < 2 ? "usable any 1 sni b.test for b.test d.test" :
		    i < 5 ? "none any" : "failed any: records of b.test: the server failed");
		z[3].says = "TLSA 111";
		expect_text(rows[i].name, ask("d.test", NULL, "192.0.2.9"),
		    i < 2 ? "usable any tls 1 sni b.test for b.test d.test" :
		    i == 3 ? "unusable any" : i < 5 ? "none any" : "failed any: records of b.test: the server failed");
	}
}

/* Whoever keeps one host's records from us must not gain by another host that has none. */
static void lost_among_others(void **state)
{
	static const struct {
		const char *name, *a, *tlsa;
	} rows[] = {
		{ "records fail", "A 192.0.2.2", "SERVFAIL" },
		{ "no answer for records", "A 192.0.2.2", NULL },
		{ "address fails", "SERVFAIL", "TLSA 311" },
		{ "no answer for the address", NULL, "TLSA 311" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct zone z[] = { { "d.test", DNS_MX, true, "MX 10 a.test 20 b.test 30 c.test" }, plain[1],
			{ "b.test", DNS_A, true, rows[i].a }, { "c.test", DNS_A, true, "A 192.0.2.3" }, plain[5],
			{ "_25._tcp.b.test", DNS_TLSA, true, rows[i].tlsa }, { "_25._tcp.c.test", DNS_TLSA, true, "" } };

		USE(z);
		expect_text(rows[i].name, ask("d.test", NULL, "192.0.2.9"), "usable any every 2 sni a.test for a.test d.test");
		z[6].says = "TLSA 111";
		expect_text(rows[i].name, ask("d.test", NULL, "192.0.2.9"), "usable any every 2 sni a.test for a.test d.test");
	}
}

/* Nor where MX is not signed: a host whose address cannot be had may be the one. It does not matter once another is known to be. */
static void lost_where_mx_is_not_signed(void **state)
{
	struct zone z[] = { { "d.test", DNS_MX, false, "MX 10 a.test 20 b.test" }, plain[1], { "b.test", DNS_A, true, "SERVFAIL" }, plain[5] };

	(void)state;
	USE(z);
	expect_text("the other", ask("d.test", NULL, "192.0.2.1"), "usable half every 2 sni a.test for a.test");
	expect_text("neither", ask("d.test", NULL, "192.0.2.9"), "failed half any: records of b.test: the server failed");
	expect_text("asked", asked.bytes, "MX d.test, A a.test, A b.test, A b.test, A b.test, A b.test");
	z[2].says = NULL;
	expect_text("no answer", ask("d.test", NULL, "192.0.2.9"), "failed half any: records of b.test: no answer in time");
	z[2].says = "NXDOMAIN";
	expect_text("no address", ask("d.test", NULL, "192.0.2.9"), "none half any");
}

/* Several have the address: it may be any of those. */
static void two_with_the_address(void **state)
{
	static const struct zone z[] = { { "d.test", DNS_MX, true, "MX 10 a.test 20 b.test 30 c.test" }, { "a.test", DNS_A, true, "A 192.0.2.1" },
		{ "b.test", DNS_A, true, "A 192.0.2.1" }, { "c.test", DNS_A, true, "A 192.0.2.3" }, { "_25._tcp.a.test", DNS_TLSA, true, "" },
		{ "_25._tcp.b.test", DNS_TLSA, true, "TLSA 211" } };

	(void)state;
	USE(z);
	expect_text("either", ask("d.test", NULL, "192.0.2.1"), "usable 1 sni b.test for b.test d.test");
}

/* The addresses of others have a second, once one has the address. */
static void slow_host(void **state)
{
	static const struct zone z[] = { { "d.test", DNS_MX, true, "MX 10 b.test 20 a.test" }, { "a.test", DNS_A, true, "A 192.0.2.1" },
		{ "b.test", DNS_A, true, NULL }, { "_25._tcp.a.test", DNS_TLSA, true, "TLSA 211" } };
	int64_t began = now;

	(void)state;
	USE(z);
	expect_text("the other", ask("d.test", NULL, "192.0.2.1"), "usable every 1 sni a.test for a.test d.test");
	assert_int_equal(now, began + 1000000);
	expect_text("neither", ask("d.test", NULL, "192.0.2.9"), "usable any every 1 sni a.test for a.test d.test");
}

/* All of it has five seconds, whatever took how long. */
static void slow_resolver(void **state)
{
	static const struct zone z[] = { { "d.test", DNS_MX, true, "MX 10 a.test" }, { "a.test", DNS_A, true, "A 192.0.2.1" },
		{ "_25._tcp.a.test", DNS_TLSA, true, NULL } };
	int64_t began = now;

	(void)state;
	USE(z);
	for (deaf = 1; deaf < 4; deaf++) {
		unsigned lost = deaf;

		began = now;
		expect_text("slow", ask("d.test", NULL, "192.0.2.1"), "failed: records of a.test: no answer in time");
		assert_int_equal(now, began + PATIENCE);
		deaf = lost;
	}
	deaf = 0;
}

/* The ten best hosts are asked for, and a server that is none of those with the address must match them, too. */
static void many_hosts(void **state)
{
	static char names[12][16], tlsa[12][32], list[400];
	struct zone z[25] = { { "d.test", DNS_MX, true, list } };

	(void)state;
	strcpy(list, "MX");
	for (unsigned i = 0; i < 12; i++) {
		snprintf(names[i], sizeof names[i], "h%u.test", 10 + i);
		snprintf(tlsa[i], sizeof tlsa[i], "_25._tcp.%.15s", names[i]);
		snprintf(list + strlen(list), sizeof list - strlen(list), " %u %s", 12 - i, names[i]);
		z[1 + 2 * i] = (struct zone){ names[i], DNS_A, true, "A 192.0.2.1" };
		z[2 + 2 * i] = (struct zone){ tlsa[i], DNS_TLSA, true, "TLSA 311" };
	}
	USE(z);
	ask("d.test", NULL, "192.0.2.9");
	assert_string_equal(got.bytes, "usable any every 10 sni h21.test for h21.test h20.test h19.test h18.test h17.test h16.test h15.test "
	    "h14.test h13.test h12.test d.test");
	z[2 + 2 * 5].says = "";
	ask("d.test", NULL, "192.0.2.9");
	assert_string_equal(got.bytes, "usable any 9 sni h21.test for h21.test h20.test h19.test h18.test h17.test h16.test h14.test h13.test "
	    "h12.test d.test");
}

/* More records than there is room for are none. */
static void many_records(void **state)
{
	static char list[4 * (DANE_RECORDS / 2) + 10];
	struct zone z[] = { plain[0], plain[1], plain[2], { "_25._tcp.a.test", DNS_TLSA, true, list },
		{ "_25._tcp.b.test", DNS_TLSA, true, list } };

	(void)state;
	strcpy(list, "TLSA");
	for (unsigned i = 0; i < DANE_RECORDS / 2; i++)
		strcat(list, " 311");
	USE(z);
	expect_text("of two", ask("d.test", NULL, "192.0.2.9"), "usable any every 64 sni a.test for a.test b.test d.test");
	strcat(list, " 311");
	expect_text("no room for the second's", ask("d.test", NULL, "192.0.2.9"), "usable any every 33 sni a.test for a.test d.test");
}

/* Given up at any time, it leaves no socket. */
static void given_up(void **state)
{
	union net_address to;
	int before = free_descriptor();

	(void)state;
	USE(plain);
	assert_true(net_parse("192.0.2.9", 25, &to));
	for (unsigned turns = 0; turns < 4; turns++) {
		dane_ask("d.test", NULL, &to, 25, &servers, now, PATIENCE);
		for (unsigned i = 0; i < turns && !dane_turn(now); i++)
			while (serve())
				;
		dane_end();
		assert_int_equal(free_descriptor(), before);
		while (serve())
			;
	}
}

/* Names as long as they can be. */
static void long_names(void **state)
{
	static char host[DNS_NAME_MAX + 1], tlsa[DNS_NAME_MAX + 10];
	struct zone z[] = { { host, DNS_A, true, "A 192.0.2.1" }, { tlsa, DNS_TLSA, true, "TLSA 311" } };

	(void)state;
	USE(z);
	for (size_t n = DNS_NAME_MAX - 11; n <= DNS_NAME_MAX; n++) {
		memset(host, 'x', n);
		host[n] = 0;
		for (size_t i = 60; i + 1 < n; i += 60)
			host[i] = '.';
		snprintf(tlsa, sizeof tlsa, "_25._tcp.%s", host);
		ask(NULL, host, "192.0.2.1");
		assert_int_equal(strncmp(got.bytes, n + 9 <= DNS_NAME_MAX ? "usable every 1 sni xx" : "none", 4), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(host_that_has_the_address), cmocka_unit_test(one_host),
		cmocka_unit_test(alias_without_records), cmocka_unit_test(alias_to_what_is_not_signed), cmocka_unit_test(domain_itself), cmocka_unit_test(any_host),
		cmocka_unit_test(lost_among_others), cmocka_unit_test(lost_where_mx_is_not_signed),
		cmocka_unit_test(name_of_the_server),
		cmocka_unit_test(two_with_the_address), cmocka_unit_test(slow_host), cmocka_unit_test(slow_resolver),
		cmocka_unit_test(many_hosts),
		cmocka_unit_test(many_records), cmocka_unit_test(given_up), cmocka_unit_test(long_names) };

	open_server();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
