/* What is made of a name server's answers: real ones of NSD, whole and cut at every octet, and what no server should say; and
 * of resolv.conf(5). Each ends at a page that nobody may read. */
#include "test/lib/unit.h"

#include "pure/dnsmessage.h"

#include <arpa/inet.h>
#include <stdlib.h>

static struct text said;

static size_t from_hex(const char *hex, unsigned char *out)
{
	size_t n = 0;
	unsigned value;

	for (; sscanf(hex + 2 * n, "%2x", &value) == 1; n++)
		out[n] = (unsigned char)value;
	return n;
}

static const char *const results[] = { "foreign", "found", "nothing", "cut", "bad" };

/* What it means, in a line. */
static const char *describe(const unsigned char *in, size_t n, const unsigned char *question, size_t question_len)
{
	struct dns_answer a;
	enum dns_result r = dns_read(guarded(in, n), n, question, question_len, &a);
	char text[INET6_ADDRSTRLEN];

	clear(&said);
	say(&said, "%s", results[r]);
	assert_true(a.named || (r != DNS_FOUND && r != DNS_CUT));
	for (unsigned i = 0; r == DNS_FOUND && i < a.count && question[question_len - 3] == DNS_TLSA; i++) {
		struct dns_tlsa t = dns_tlsa(&a, i);

		say(&said, " %u%u%u ", t.usage, t.selector, t.matching);
		for (size_t at = 0; at < t.len; at++)
			say(&said, "%02x", t.data[at]);
	}
	for (unsigned i = 0; r == DNS_FOUND && i < a.count && question[question_len - 3] == DNS_AAAA; i++)
		say(&said, " %s", inet_ntop(AF_INET6, a.address6[i], text, sizeof text));
	for (unsigned i = 0; r == DNS_FOUND && i < a.count && question[question_len - 3] == DNS_A; i++)
		say(&said, " %u.%u.%u.%u", a.address[i] >> 24, a.address[i] >> 16 & 255, a.address[i] >> 8 & 255,
		    a.address[i] & 255);
	for (size_t at = 0; r == DNS_FOUND && question[question_len - 3] == DNS_MX && at < a.text_len;)
		say(&said, " %s", dns_exchange(&a, &at));
	if (r == DNS_FOUND && a.text_len && question[question_len - 3] != DNS_MX)
		say(&said, " '%.*s'", (int)a.text_len, a.text);
	return said.bytes;
}

#define REST "c015000200010000003c0005026e73c015c04e000100010000003c00047f000001"

/* end: of the answer section; what comes behind is not looked at. */
static const struct {
	const char *name, *asked;
	enum dns_type type;
	const char *answer, *want;
	size_t end;
} real[] = {
	{ "two addresses", "2.0.0.10.bl.test", DNS_A,
	    "12348500000100020001000101320130013002313002626c04746573740000010001c00c000100010000003c00047f000002"
	    "c00c000100010000003c00047f000004" REST, "found 127.0.0.2 127.0.0.4", 66 },
	{ "capitals in another way", "2.0.0.10.bl.test", DNS_A,
	    "12348500000100020001000101320130013002313002424c04546573540000010001c00c000100010000003c00047f000002"
	    "c00c000100010000003c00047f000004" REST, "found 127.0.0.2 127.0.0.4", 66 },
	{ "a text of two strings", "2.0.0.10.bl.test", DNS_TXT,
	    "12348500000100010001000101320130013002313002626c04746573740000100001c00c001000010000003c0029"
	    "0b6c69737465642c207365651c2068747470733a2f2f626c2e746573742f3f713d31302e302e302e32"
	    "c015000200010000003c0005026e73c015c063000100010000003c00047f000001",
	    "found 'listed, see https://bl.test/?q=10.0.0.2'", 87 },
	{ "an alias", "3.0.0.10.bl.test", DNS_A,
	    "12348500000100030001000101330130013002313002626c04746573740000010001c00c000500010000003c00040132c00e"
	    "c02e000100010000003c00047f000002c02e000100010000003c00047f000004"
	    "c015000200010000003c0005026e73c015c05e000100010000003c00047f000001", "found 127.0.0.2 127.0.0.4 '2.0.0.10.bl.test'", 82 },
	{ "an alias in another zone", "4.0.0.10.bl.test", DNS_A,
	    "12348500000100020001000101340130013002313002626c04746573740000010001c00c000500010000003c000a0178056f74686572c018"
	    "c02e000100010000003c00047f000009c030000200010000003c0005026e73c030c054000100010000003c00047f000001",
	    "found 127.0.0.9 'x.other.test'", 72 },
	{ "no such name", "9.0.0.10.bl.test", DNS_A,
	    "12348503000100000001000001390130013002313002626c04746573740000010001c015000600010000003c0026"
	    "026e73c0150a686f73746d6173746572c0150000000100000e1000000258000151800000003c", "nothing", 34 },
	{ "nothing of this type", "2.0.0.10.bl.test", DNS_A,
	    "12348500000100000001000001320130013002313002626c04746573740000010001c015000600010000003c0026"
	    "026e73c0150a686f73746d6173746572c0150000000100000e1000000258000151800000003c", "nothing", 34 },
	{ "too much for a datagram", "5.0.0.10.bl.test", DNS_A,
	    "12348700000100000000000001350130013002313002626c04746573740000010001", "cut", 34 },
	{ "a host's name", "1.2.0.192.in-addr.arpa", DNS_PTR,
	    "1234850000010001000100010131013201300331393207696e2d61646472046172706100000c0001c00c000c00010000003c0015"
	    "046d61696c06636c69656e74076578616d706c6500c00e000200010000003c0005026e73c00ec055000100010000003c00047f000001",
	    "found 'mail.client.example'", 73 },
	{ "a host's name by an alias", "4.2.0.192.in-addr.arpa", DNS_PTR,
	    "1234850000010002000100010134013201300331393207696e2d61646472046172706100000c0001c00c000500010000003c000a"
	    "013405302d313237c00ec034000c00010000003c001605612d2d625f06636c69656e74076578616d706c6500"
	    "c00e000200010000003c0005026e73c00ec06c000100010000003c00047f000001", "found 'a--b_.client.example'", 96 },
	{ "a name with a line end", "5.2.0.192.in-addr.arpa", DNS_PTR,
	    "1234850000010001000100010135013201300331393207696e2d61646472046172706100000c0001c00c000c00010000003c001b"
	    "0a610d0a78636c69656e7406636c69656e74076578616d706c6500c00e000200010000003c0005026e73c00e"
	    "c05b000100010000003c00047f000001", "found", 79 },
	{ "an IPv6 address", "mail.client.example", DNS_AAAA,
	    "123485000001000100010001046d61696c06636c69656e74076578616d706c6500001c0001c00c001c00010000003c0010"
	    "20010db8000000000000000000000001c011000200010000003c0005026e73c011c04d000100010000003c00047f000001",
	    "found 2001:db8::1", 65 },
	{ "refused", "a.example.test", DNS_A, "1234810500010000000000000161076578616d706c6504746573740000010001", "bad",
	    32 },
};

static void real_answers(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(real); i++) {
		unsigned char question[DNS_QUERY], answer[512];
		size_t asked = dns_ask(0x1234, real[i].asked, real[i].type, question), n = from_hex(real[i].answer, answer);

		expect_text(real[i].name, describe(answer, n, question, asked), real[i].want);
		for (size_t cut = 0; cut < n; cut++) {
			const char *want = cut < asked ? "foreign" : cut < real[i].end ? "bad" : real[i].want;

			expect_text(real[i].name, describe(answer, cut, question, asked), want);
		}
	}
}

/* Of somebody who guesses: another id, question, type, class, opcode, no answer at all. */
static void answers_to_something_else(void **state)
{
	static const size_t places[] = { 0, 1, 2, 4, 5, 12, 13, 20, 28, 30, 31, 32, 33 };
	unsigned char question[DNS_QUERY], answer[512];
	size_t asked = dns_ask(0x1234, real[0].asked, DNS_A, question), n = from_hex(real[0].answer, answer);

	(void)state;
	for (size_t i = 0; i < COUNT(places); i++) {
		unsigned char was = answer[places[i]];

		answer[places[i]] ^= places[i] == 2 ? 0x80 : 0x02;
		expect_text("changed", describe(answer, n, question, asked), "foreign");
		answer[places[i]] = was;
	}
	answer[2] |= 0x08; /* an opcode */
	expect_text("opcode", describe(answer, n, question, asked), "foreign");
}

#define HEAD "123481000001%s00000000" "01610262620000%02x" "0001" /* the question "a.bb" */

/* Records made by hand behind the question "a.bb", which ends at 22. */
static void records_of_all_kinds(void **state)
{
	static const struct {
		const char *name, *count, *records, *want;
	} rows[] = {
		{ "plain", "0001", "0161026262000001000100000000" "00047f000002", "found 127.0.0.2" },
		{ "compressed", "0001", "c00c0001000100000000" "00047f000002", "found 127.0.0.2" },
		{ "compressed in part", "0001", "0161c00e0001000100000000" "00047f000002", "found 127.0.0.2" },
		{ "compressed twice", "0001", "c00c0001000100000000" "00047f000002", "found 127.0.0.2" },
		{ "of another name", "0001", "0162c00e0001000100000000" "00047f000002", "nothing" },
		{ "of another class", "0001", "c00c0001000300000000" "00047f000002", "nothing" },
		{ "of another type", "0001", "c00c0010000100000000" "00047f000002", "nothing" },
		{ "an address of three octets", "0001", "c00c0001000100000000" "00037f0000", "nothing" },
		{ "an address of sixteen", "0001", "c00c0001000100000000" "00107f0000027f0000027f0000027f000002", "nothing" },
		{ "fewer than it says", "0002", "c00c0001000100000000" "00047f000002", "bad" },
		{ "ever so many", "ffff", "c00c0001000100000000" "00047f000002", "bad" },
		{ "data longer than the message", "0001", "c00c0001000100000000" "ffff7f000002", "bad" },
		{ "a pointer to itself", "0001", "c0160001000100000000" "00047f000002", "bad" },
		{ "a pointer forward", "0001", "c0200001000100000000" "00047f000002", "bad" },
		{ "a pointer beyond", "0001", "ffff0001000100000000" "00047f000002", "bad" },
		{ "half a pointer", "0001", "c0", "bad" },
		{ "a label and a pointer to it", "0001", "0161c0160001000100000000" "00047f000002", "bad" },
		{ "a label of a kind that there is not", "0001", "8161000001000100000000" "00047f000002", "bad" },
		{ "a label longer than the message", "0001", "3f6100", "bad" },
		{ "an alias to itself", "0002", "c00c0005000100000000" "0002c00c" "c00c0001000100000000" "00047f000002",
		    "found 127.0.0.2" },
		{ "an alias behind what it leads to", "0002", "01780000010001000000000004" "7f000002" "c00c0005000100000000" "0003017800",
		    "found 127.0.0.2 'x'" },
		{ "two aliases, the last one first", "0003", "01790000010001000000000004" "7f000002" "01780000050001000000000003" "017900"
		    "c00c0005000100000000" "0003017800", "found 127.0.0.2 'y'" },
		{ "an alias to what is no host", "0002", "c00c0005000100000000" "0003012000" "01200000010001000000000004" "7f000002",
		    "found 127.0.0.2" },
		{ "an alias to the name in capitals", "0002", "c00c0005000100000000" "000601410242" "4200" "c00c00010001000000000004" "7f000002",
		    "found 127.0.0.2" },
		{ "aliases in a circle", "0002", "c00c0005000100000000" "0003017800" "01780000050001000000000002" "c00c", "bad" },
		{ "an alias to nothing", "0001", "c00c0005000100000000" "0000", "bad" },
		{ "an alias that leaves its data", "0002", "c00c0005000100000000" "00010100" "0001000100000000" "00047f000002",
		    "bad" },
		{ "the root", "0001", "000001000100000000" "00047f000002", "nothing" },
	};
	unsigned char question[DNS_QUERY], answer[1024];
	size_t asked = dns_ask(0x1234, "a.bb", DNS_A, question);

	(void)state;
	assert_int_equal(asked, 22);
	for (size_t i = 0; i < COUNT(rows); i++) {
		char hex[2048];
		size_t n;

		snprintf(hex, sizeof hex, HEAD "%s", rows[i].count, DNS_A, rows[i].records);
		n = from_hex(hex, answer);
		expect_text(rows[i].name, describe(answer, n, question, asked), rows[i].want);
	}
}

struct answer_case {
	const char *name, *count, *records, *want;
};

/* Answers to a question about a.bb, whole and cut at every octet. */
static void check_cases(const struct answer_case *cases, size_t count, enum dns_type type)
{
	unsigned char question[DNS_QUERY], answer[1024];
	size_t asked = dns_ask(0x1234, "a.bb", type, question);

	for (size_t i = 0; i < count; i++) {
		char hex[2048];
		size_t n;

		snprintf(hex, sizeof hex, HEAD "%s", cases[i].count, type, cases[i].records);
		n = from_hex(hex, answer);
		expect_text(cases[i].name, describe(answer, n, question, asked), cases[i].want);
		for (size_t cut = 0; cut < n; cut++)
			expect_text(cases[i].name, describe(answer, cut, question, asked), cut < asked ? "foreign" : "bad");
	}
}

/* Names that an address leads to, behind the same question: whoever has the address has the say. */
static void names_of_hosts(void **state)
{
#define NAMED "c00c000c000100000000"
	static const struct answer_case cases[] = {
		{ "plain", "0001", NAMED "0006016102626200", "found 'a.bb'" },
		{ "compressed", "0001", NAMED "0002c00c", "found 'a.bb'" },
		{ "compressed in part", "0001", NAMED "00040178c00e", "found 'x.bb'" },
		{ "of capitals, digits, an underline", "0001", NAMED "0007055a392d5f3000", "found 'Z9-_0'" },
		{ "of several", "0002", NAMED "0003016100" NAMED "0003016200", "found 'a'" },
		{ "the first that is good", "0003", NAMED "0003012000" NAMED "000100" NAMED "0003016300", "found 'c'" },
		{ "the root", "0001", NAMED "000100", "found" },
		{ "an address", "0001", NAMED "000901310132013301" "3400", "found" },
		{ "a number", "0001", NAMED "000402393900", "found" },
		{ "a hyphen first", "0001", NAMED "0004022d6100", "found" },
		{ "a hyphen last", "0001", NAMED "000402612d00", "found" },
		{ "a hyphen alone", "0001", NAMED "0003012d00", "found" },
		{ "a dot in a label", "0001", NAMED "000503612e6200", "found" },
		{ "a NUL", "0001", NAMED "0004026100" "00", "found" },
		{ "CR LF", "0001", NAMED "000604610d0a6200", "found" },
		{ "a blank", "0001", NAMED "000503612062" "00", "found" },
		{ "xtext", "0001", NAMED "000503612b62" "00", "found" },
		{ "a bracket", "0001", NAMED "0005035b615d00", "found" },
		{ "beyond ASCII", "0001", NAMED "000402c3bc00", "found" },
		{ "a pointer to itself", "0001", NAMED "0002c022", "bad" },
		{ "a pointer forward", "0001", NAMED "0002c0ff", "bad" },
		{ "a label and a pointer to it", "0001", NAMED "00040178c022", "bad" },
		{ "two pointers in a circle", "0002", NAMED "00040178c030" "c00c000c000100000000" "00040179c022", "bad" },
		{ "no end", "0001", NAMED "00020161", "bad" },
		{ "nothing", "0001", NAMED "0000", "bad" },
		{ "a label that leaves its data", "0001", NAMED "0002" "0561616161610000", "bad" },
		{ "of another name", "0001", "0178c00e000c000100000000" "0002c00c", "nothing" },
		{ "an address for a name", "0001", "c00c0001000100000000" "00047f000002", "nothing" },
	};

	(void)state;
	check_cases(cases, COUNT(cases), DNS_PTR);
}

/* Exchanges of a domain, behind the same question: its owner may have a say in what is counted as whose. */
static void exchanges(void **state)
{
#define GOES "c00c000f000100000000"
	static const struct answer_case cases[] = {
		{ "plain", "0001", GOES "0007000a" "0161016200", "found a.b" },
		{ "compressed", "0001", GOES "0004000a" "c00c", "found a.bb" },
		{ "the domain's parent", "0001", GOES "0006000a" "0178" "c00e", "found x.bb" },
		{ "in lower case", "0001", GOES "0007000a" "0141015a00", "found a.z" },
		{ "by preference", "0003", GOES "00050100" "016300" GOES "0005000a" "016200" GOES "000500ff" "016100", "found b a c" },
		{ "by name, where that is the same", "0003", GOES "0005000a" "016300" GOES "0005000a" "016100" GOES "0005000a" "016200",
		    "found a b c" },
		{ "a name that begins another", "0002", GOES "0006000a" "02616200" GOES "0005000a" "016100", "found a ab" },
		{ "twice", "0002", GOES "0005000a" "016100" GOES "0005000a" "016100", "found a a" },
		{ "no mail, RFC 7505", "0001", GOES "00030000" "00", "found" },
		{ "a blank in it", "0002", GOES "0006000a" "02622000" GOES "0005000b" "016200", "found b" },
		{ "a number", "0002", GOES "0006000a" "02393900" GOES "0005000b" "016200", "found b" },
		{ "an address", "0001", GOES "000b000a" "0131013201330134" "00", "found" },
		{ "a NUL", "0001", GOES "0006000a" "02610000", "found" },
		{ "a preference alone", "0001", GOES "0002000a", "bad" },
		{ "half a preference", "0001", GOES "000100", "bad" },
		{ "nothing", "0001", GOES "0000", "bad" },
		{ "no end", "0001", GOES "0004000a" "0161", "bad" },
		{ "a label that leaves its data", "0001", GOES "0004000a" "0561" "61616161" "00", "bad" },
		{ "a pointer to itself", "0001", GOES "0004000a" "c024", "bad" },
		{ "a pointer forward", "0001", GOES "0004000a" "c0ff", "bad" },
		{ "of another name", "0001", "0178c00e000f000100000000" "0005000a" "016100", "nothing" },
		{ "of another class", "0001", "c00c000f000300000000" "0005000a" "016100", "nothing" },
		{ "a name alone, as PTR has it", "0001", "c00c000c000100000000" "0003016100", "nothing" },
		{ "behind an alias", "0002", "c00c0005000100000000" "0003017800" "0178" "00000f0001000000000005000a" "016100", "found a" },
	};

	(void)state;
	check_cases(cases, COUNT(cases), DNS_MX);
}

/* TLSA records, RFC 6698 2.1. */
static void associations(void **state)
{
#define SAYS "c00c0034000100000000"
	static const struct answer_case cases[] = {
		{ "plain", "0001", SAYS "0005" "0301010102", "found 311 0102" },
		{ "several, in their order", "0002", SAYS "0005" "0301010102" SAYS "0006" "020002a0b0c0", "found 311 0102 202 a0b0c0" },
		{ "of no data", "0001", SAYS "0003" "030101", "found 311 " },
		{ "too short", "0001", SAYS "0002" "0301", "bad" },
		{ "nothing", "0001", SAYS "0000", "bad" },
		{ "behind an alias", "0002", "c00c0005000100000000" "0003017800" "0178" "000034000100000000" "0004" "03000100", "found 301 00" },
		{ "of another name", "0001", "0178c00e0034000100000000" "0004" "03010100", "nothing" },
		{ "an address", "0001", "c00c0001000100000000" "00047f000002", "nothing" },
	};

	(void)state;
	check_cases(cases, COUNT(cases), DNS_TLSA);
}

/* As many as there is room for; that there were more is said. */
static void many_associations(void **state)
{
	static const unsigned char record[] = { 0xc0, 12, 0, 52, 0, 1, 0, 0, 0, 0, 0, 3, 3, 1, 1 };
	unsigned char question[DNS_QUERY], answer[8192];
	size_t asked = dns_ask(7, "a.bb", DNS_TLSA, question);
	struct dns_answer a;

	(void)state;
	for (unsigned count = DNS_TLSAS - 1; count <= DNS_TLSAS + 2; count++) {
		size_t n = asked;

		memcpy(answer, question, asked);
		answer[2] = 0x81;
		dns_put16(answer + 6, count);
		for (unsigned i = 0; i < count; i++, n += sizeof record)
			memcpy(answer + n, record, sizeof record);
		assert_int_equal(dns_read(guarded(answer, n), n, question, asked, &a), DNS_FOUND);
		assert_int_equal(a.count, count < DNS_TLSAS ? count : DNS_TLSAS);
		assert_int_equal(a.cut, count > DNS_TLSAS);
		assert_int_equal(dns_tlsa(&a, a.count - 1).len, 0);
	}
}

/* What a server that validates says, whatever the answer is: RFC 4035 3.2.3. */
static void authentic_answers(void **state)
{
	unsigned char question[DNS_QUERY], answer[512];

	(void)state;
	for (size_t i = 0; i < COUNT(real); i++) {
		size_t asked = dns_ask(0x1234, real[i].asked, real[i].type, question), n = from_hex(real[i].answer, answer);
		struct dns_answer a;

		dns_read(guarded(answer, n), n, question, asked, &a);
		assert_false(a.authentic);
		answer[3] |= 0x20;
		expect_text(real[i].name, describe(answer, n, question, asked), real[i].want);
		dns_read(guarded(answer, n), n, question, asked, &a);
		assert_true(a.authentic);
	}
}

/* The octets of a query for such answers, RFC 6891 6.1.2; without what a server may not know; and what such a server says. */
static void extended_queries(void **state)
{
	static const unsigned char want[] = { 0, 7, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, 1, 1, 'a', 2, 'b', 'b', 0, 0, 52, 0, 1,
		0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0 };
	static const struct {
		const char *hex;
		bool unread;
	} rows[] = { { "000781010000000000000000", true }, { "000781110001000000000000", true }, { "000781020000000000000000", false },
		{ "000881010000000000000000", false }, { "000701010000000000000000", false }, { "000789010000000000000000", false },
		{ "0007810100000000000000", false }, { "", false } };
	unsigned char query[DNS_QUERY], in[32], longest[DNS_NAME_MAX + 1];
	size_t n = dns_ask(7, "a.bb", DNS_TLSA, query);

	(void)state;
	assert_int_equal(dns_extend(query, n), sizeof want);
	assert_memory_equal(query, want, sizeof want);
	for (size_t i = 0; i < COUNT(rows); i++) {
		size_t len = from_hex(rows[i].hex, in);

		assert_int_equal(dns_is_unread(guarded(in, len), len, query), rows[i].unread);
	}
	dns_shorten(query);
	assert_memory_equal(query, want, 11);
	assert_int_equal(query[11], 0);
	assert_memory_equal(query + 12, want + 12, n - 12);
	memset(longest, 'x', sizeof longest);
	longest[63] = longest[127] = longest[191] = '.';
	longest[DNS_NAME_MAX] = 0;
	n = dns_ask(7, (const char *)longest, DNS_TLSA, query);
	assert_true(n && dns_extend(query, n) <= sizeof query);
}

/* The ten best are used, and of long ones what there is room for, whole, in whatever order they come. */
static void many_exchanges(void **state)
{
	static const unsigned char head[] = { 0xc0, 12, 0, 15, 0, 1, 0, 0, 0, 0, 0 };
	unsigned char question[DNS_QUERY], answer[4096];
	size_t asked = dns_ask(0x1234, "a.bb", DNS_MX, question);

	(void)state;
	for (unsigned labels = 0; labels <= 3; labels++) {
		size_t n = asked, at = 0, found = 0, len = 64 * labels;
		struct dns_answer a;
		const char *name;

		memcpy(answer, question, asked);
		answer[2] = 0x81;
		answer[7] = 12;
		for (unsigned i = 0; i < 12; i++) {
			memcpy(answer + n, head, sizeof head);
			n += sizeof head;
			answer[n++] = (unsigned char)(2 + len + 3);
			answer[n++] = 0;
			answer[n++] = (unsigned char)(12 - i);
			for (unsigned j = 0; j < labels; j++) {
				memset(answer + n, 'x', 64);
				answer[n] = 63;
				n += 64;
			}
			answer[n++] = 1;
			answer[n++] = (unsigned char)('a' + i);
			answer[n++] = 0;
		}
		assert_int_equal(dns_read(guarded(answer, n), n, question, asked, &a), DNS_FOUND);
		while ((name = dns_exchange(&a, &at))) {
			assert_int_equal(strlen(name), len + 1);
			assert_int_equal(name[len], 'l' - found);
			found++;
		}
		assert_int_equal(found, labels ? sizeof a.exchange / (len + 4) < 10 ? sizeof a.exchange / (len + 4) : 10 : 10);
		assert_true(a.text_len <= sizeof a.exchange);
	}
}

/* The longest name that there can be, and one more: by pointers, for a message can. */
static void longest_name(void **state)
{
	unsigned char question[DNS_QUERY], answer[1024];
	size_t asked = dns_ask(0x1234, "a.bb", DNS_PTR, question);
	static const unsigned char head[] = { 0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 0 };
	struct dns_answer a;

	(void)state;
	for (size_t last = 60; last <= 63; last++) {
		size_t n = asked, len = 3 * 64 + 1 + last + 1;

		memcpy(answer, question, asked);
		answer[2] = 0x81;
		answer[7] = 1;
		memcpy(answer + n, head, sizeof head);
		n += sizeof head;
		answer[n++] = 0;
		answer[n++] = (unsigned char)len;
		memset(answer + n, 'x', len);
		answer[n] = answer[n + 64] = answer[n + 128] = 63;
		answer[n + 192] = (unsigned char)last;
		answer[n + len - 1] = 0;
		n += len;
		assert_int_equal(dns_read(guarded(answer, n), n, question, asked, &a), last <= 61 ? DNS_FOUND : DNS_BAD);
		assert_int_equal(a.text_len, last <= 61 ? 3 * 64 + last : 0);
	}
}

static void addresses_that_lead_back(void **state)
{
	static const char *const own[] = { "192.0.2.1", "2001:db8::1" }, *const others[] = { "192.0.2.2", "2001:db8::2" };
	struct dns_answer a = { .count = 2 };
	union net_address mine, other;

	(void)state;
	for (unsigned six = 0; six < 2; six++) {
		assert_true(net_parse(own[six], 25, &mine) && net_parse(others[six], 0, &other));
		for (unsigned at = 0; at < 3; at++) {
			memset(a.address6, 0, sizeof a.address6);
			if (six)
				memcpy(a.address6[at], &mine.v6.sin6_addr, 16);
			else
				a.address[at] = ntohl(mine.v4.sin_addr.s_addr);
			assert_int_equal(dns_has(&a, &mine), at < 2);
			assert_false(dns_has(&a, &other));
		}
	}
}

/* 100 addresses are more than are kept; of texts those that fit are, and the beginning of the first by itself, without what a terminal or
 * reply could take for more. */
static void what_is_kept(void **state)
{
	unsigned char question[DNS_QUERY], answer[DNS_MESSAGE];
	size_t asked = dns_ask(7, "a.bb", DNS_A, question), n = asked;
	static const unsigned char address[] = { 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 2 };
	struct dns_answer a;

	(void)state;
	memcpy(answer, question, asked);
	answer[2] = 0x81;
	answer[7] = 100;
	for (unsigned i = 0; i < 100; i++, n += sizeof address)
		memcpy(answer + n, address, sizeof address);
	assert_int_equal(dns_read(guarded(answer, n), n, question, asked, &a), DNS_FOUND);
	assert_int_equal(a.count, DNS_ADDRESSES);

	asked = dns_ask(7, "a.bb", DNS_TXT, question);
	memcpy(answer, question, asked);
	answer[2] = 0x81;
	answer[7] = 3;
	n = asked;
	for (unsigned i = 0; i < 3; i++) {
		static const unsigned char head[] = { 0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 2, 0 };

		memcpy(answer + n, head, sizeof head);
		n += sizeof head;
		memset(answer + n, i ? 'z' : 'y', 512);
		answer[n] = answer[n + 256] = 255;
		memcpy(answer + n + 1, "a\r\nb\0\x1b\xff", 7);
		n += 512;
	}
	assert_int_equal(dns_read(guarded(answer, n), n, question, asked, &a), DNS_FOUND);
	assert_int_equal(a.text_len, DNS_TEXT);
	assert_memory_equal(a.text, "a??b???yyy", 10);
	assert_null(memchr(a.text, 'z', a.text_len));
	assert_int_equal(a.count, 3);
	assert_int_equal(a.texts_len, 2 * (510 + 1));
	assert_memory_equal(a.texts, "a??b???yyy", 10);
	assert_int_equal(strlen(a.texts), 510);
	assert_memory_equal(a.texts + 511, "a??b???zzz", 10);
	assert_int_equal(strlen(a.texts + 511), 510);
}

static void names(void **state)
{
	static const char *const bad[] = { "", "..", "a..b", ".a", "a.", "a.b.", "a.." };
	unsigned char out[DNS_QUERY];
	char name[300];

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_int_equal(dns_ask(1, bad[i], DNS_A, out), 0);
	assert_int_equal(dns_ask(1, ".", DNS_NS, out), 12 + 1 + 4);
	assert_memory_equal(out + 12, "\0\0\2\0\1", 5);
	for (size_t n = 1; n < sizeof name - 1; n++) { /* labels of 63 octets, and the last of what is left */
		memset(name, 'x', n);
		name[n] = 0;
		for (size_t dot = 63; dot < n; dot += 64)
			name[dot] = '.';
		assert_int_equal(dns_ask(1, name, DNS_A, out), n <= 253 && n % 64 ? 12 + n + 2 + 4 : 0);
	}
	memset(name, 'x', 64);
	name[64] = 0;
	assert_int_equal(dns_ask(1, name, DNS_A, out), 0);
}

static void reversed(void **state)
{
	static const struct {
		const char *address, *want;
	} rows[] = { { "192.0.2.99", "99.2.0.192.bl.test" }, { "255.0.10.1", "1.10.0.255.bl.test" },
		{ "2001:db8:1:2:3:4:567:89ab",
		    "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.test" },
		{ "::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.bl.test" } };
	union net_address a;
	char name[DNS_NAME_MAX + 1], zone[DNS_NAME_MAX + 1];

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) { /* RFC 5782 2.1, 2.4 */
		assert_true(net_parse(rows[i].address, 0, &a));
		assert_true(dns_reversed(&a, "bl.test", name));
		assert_string_equal(name, rows[i].want);
	}
	memset(zone, 'z', sizeof zone);
	zone[DNS_NAME_MAX - 64] = 0;
	assert_true(dns_reversed(&a, zone, name));
	zone[DNS_NAME_MAX - 64] = 'z';
	zone[DNS_NAME_MAX - 63] = 0;
	assert_false(dns_reversed(&a, zone, name));
	memset(&a, 0, sizeof a);
	assert_false(dns_reversed(&a, "bl.test", name));
}

/* What lines of resolv.conf(5) come to, each with its last octet at the page's end. */
static const char *settings_of(const char *text)
{
	struct dns_settings s = { .ndots = 1 };
	char server[NET_TEXT];

	for (const char *line = text; line; line = strchr(line, '\n'), line += !!line) {
		size_t n = strcspn(line, "\n");
		char *copy = (char *)guarded(line, n + 1);

		copy[n] = 0;
		dns_settings_line(&s, copy);
	}
	clear(&said);
	say(&said, "%u", s.ndots);
	for (unsigned i = 0; i < s.servers.count; i++)
		say(&said, " %s", net_text(&s.servers.server[i], server));
	say(&said, " '%s'%s", s.search, s.servers.trusted ? " trusted" : "");
	return said.bytes;
}

static void settings(void **state)
{
	static const struct {
		const char *text, *want;
	} rows[] = {
		{ "", "1 ''" }, { "nameserver 10.0.0.1\nnameserver\t2001:db8::1 # x", "1 10.0.0.1 2001:db8::1 ''" },
		{ "nameserver 1.1.1.1\nnameserver x\nnameserver\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4",
		    "1 1.1.1.1 1.1.1.2 1.1.1.3 ''" },
		{ "nameserver 10.0.0.1 10.0.0.2", "1 10.0.0.1 ''" }, { " nameserver 10.0.0.1", "1 ''" },
		{ "#nameserver 10.0.0.1\n;nameserver 10.0.0.1\nnameservers 10.0.0.1\nNAMESERVER 10.0.0.1", "1 ''" },
		{ "nameserver 10.0.0.1\r", "1 10.0.0.1 ''" },
		{ "search a.test  b.test.\tc", "1 'a.test b.test c'" }, { "search a\ndomain b\n", "1 'b'" },
		{ "search a\nsearch", "1 ''" }, { "search . .. a..b -x x- a/b a\x01 \xc3\xbc.test # 12 ok", "1 'ok'" },
		{ "options ndots:5", "5 ''" }, { "options rotate ndots:0 timeout:1", "0 ''" }, { "options ndots:", "0 ''" },
		{ "options\noptions ndots\nndots:4", "1 ''" },
		{ "options trust-ad", "1 '' trusted" }, { "options ndots:2 trust-ad edns0\nnameserver 10.0.0.1", "2 10.0.0.1 '' trusted" },
		{ "options trust-ads no-trust-ad TRUST-AD\ntrust-ad\nsearch trust-ad", "1 'trust-ad'" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		expect_text(rows[i].text, settings_of(rows[i].text), rows[i].want);
}

/* As many suffixes as there is room for, and only whole ones. */
static void many_suffixes(void **state)
{
	char line[2000] = "search", want[300] = "1 '", suffix[64];

	(void)state;
	for (unsigned i = 10; i < 90; i++) {
		snprintf(suffix, sizeof suffix, " a%u.test", i);
		strcat(line, suffix);
		if (i < 10 + 28) /* of nine octets with a blank each */
			strcat(want, suffix + (i == 10));
	}
	strcat(want, "'");
	expect_text("many", settings_of(line), want);
	memset(line + 7, 'x', 1500);
	line[1507] = 0;
	expect_text("one", settings_of(line), "1 ''");
}

static void hosts(void **state)
{
	static const char *const good[] = { "a", "a.b", "9a.test", "a-b", "_x._y.test", "xn--bcher-kva.test", "1.2.3.x" },
				 *const bad[] = { "", ".", "a.", ".a", "a..b", "1", "1.2.3.4", "-a", "a-", "a.-b", "a b", "a/b", "a%b",
					 "\xc3\xbc.test", "[a]", "a\n" };

	(void)state;
	for (size_t i = 0; i < COUNT(good); i++)
		if (!dns_is_host(good[i]))
			fail_msg("'%s' was refused", good[i]);
	for (size_t i = 0; i < COUNT(bad); i++)
		if (dns_is_host(bad[i]))
			fail_msg("'%s' was taken", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(real_answers), cmocka_unit_test(answers_to_something_else),
		cmocka_unit_test(records_of_all_kinds), cmocka_unit_test(names_of_hosts), cmocka_unit_test(exchanges),
		cmocka_unit_test(associations), cmocka_unit_test(many_associations), cmocka_unit_test(authentic_answers),
		cmocka_unit_test(extended_queries), cmocka_unit_test(many_exchanges), cmocka_unit_test(longest_name),
		cmocka_unit_test(addresses_that_lead_back), cmocka_unit_test(what_is_kept), cmocka_unit_test(names),
		cmocka_unit_test(reversed),
		cmocka_unit_test(settings), cmocka_unit_test(many_suffixes), cmocka_unit_test(hosts) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
