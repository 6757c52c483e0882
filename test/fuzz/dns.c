#define _GNU_SOURCE
/* Fuzz target: whatever a name server says to a question.
 *
 * Octets 0 and 1: how long the question is (as a real one: header, labels, type, class). Then the question, then the answer.
 * Checked: what is said to be found was in the answer, within bounds, and text is printable. */
#include <stdlib.h>
#include <string.h>

#include "pure/dnsmessage.h"
#include "test/lib/replay.h"

#define CHECK(condition) ((condition) ? (void)0 : abort())

static enum dns_type type_of(uint8_t octet)
{
	return octet == DNS_TXT || octet == DNS_PTR || octet == DNS_MX || octet == DNS_AAAA || octet == DNS_TLSA ? (enum dns_type)octet : DNS_A;
}

/* What servers take for a name. */
static bool is_host(const char *text, size_t n)
{
	bool letter = false;

	for (size_t i = 0; i < n; i++) {
		bool alnum = (text[i] | 32) >= 'a' && (text[i] | 32) <= 'z', digit = text[i] >= '0' && text[i] <= '9';
		bool edge = i == 0 || i == n - 1 || text[i - 1] == '.' || text[i + 1] == '.';

		if (!alnum && !digit && text[i] != '_' && (edge || (text[i] != '-' && text[i] != '.')))
			return false;
		letter = letter || (!digit && text[i] != '.');
	}
	return letter && n <= DNS_NAME_MAX;
}

/* The question as dns_ask() makes one for this name, or 0 if the input has none. */
static size_t question_of(const uint8_t *data, size_t n, unsigned char question[DNS_QUERY])
{
	char name[DNS_NAME_MAX + 1];
	size_t at = 12, len = 0;

	while (at < n && data[at] && data[at] < 64 && at + data[at] < n && len + data[at] + 1 < sizeof name) {
		memcpy(name + len, data + at + 1, data[at]);
		len += data[at];
		name[len++] = '.';
		at += data[at] + 1u;
	}
	if (!len)
		return 0;
	name[len - 1] = 0;
	return dns_ask((uint16_t)(data[0] << 8 | data[1]), name, type_of(at + 2 < n ? data[at + 2] : DNS_A), question);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	unsigned char question[DNS_QUERY];
	size_t len = n < 2 ? 0 : (size_t)data[0] << 8 | data[1], asked;
	struct dns_answer a;
	unsigned char *answer;
	enum dns_result r;

	if (n < 2 + len || len < 17 || len > DNS_QUERY || !(asked = question_of(data + 2, len, question)))
		return 0;
	n -= 2 + len;
	answer = malloc(n ? n : 1);
	CHECK(answer != NULL);
	memcpy(answer, data + 2 + len, n);
	r = dns_read(answer, n, question, asked, &a);
	CHECK(r >= DNS_FOREIGN && r <= DNS_BAD);
	CHECK(a.count <= (question[asked - 3] == DNS_TLSA ? DNS_TLSAS : DNS_ADDRESSES) || question[asked - 3] == DNS_TXT || question[asked - 3] == DNS_PTR || question[asked - 3] == DNS_MX);
	CHECK(question[asked - 3] == DNS_TXT || question[asked - 3] == DNS_MX || !a.text_len || is_host(a.text, a.text_len));
	CHECK((r == DNS_FOUND) <= (a.count > 0) && a.text_len <= (question[asked - 3] == DNS_MX ? sizeof a.exchange : sizeof a.text));
	for (size_t at = 0; question[asked - 3] == DNS_MX && at < a.text_len;) {
		const char *name = dns_exchange(&a, &at);

		CHECK(is_host(name, strlen(name)) && at <= a.text_len);
	}
	CHECK(r != DNS_FOREIGN || a.count == 0);
	for (size_t i = 0; question[asked - 3] != DNS_MX && i < a.text_len; i++)
		CHECK(a.text[i] >= ' ' && a.text[i] < 0x7f);
	for (unsigned i = 0; r == DNS_FOUND && question[asked - 3] == DNS_TLSA && i < a.count; i++) {
		struct dns_tlsa t = dns_tlsa(&a, i);

		CHECK(t.data >= answer + asked + 3 && t.len <= n && t.data + t.len <= answer + n);
	}
	CHECK(!a.texts_len || (question[asked - 3] == DNS_TXT && a.texts_len <= sizeof a.texts && !a.texts[a.texts_len - 1]));
	for (size_t i = 0; i < a.texts_len; i++)
		CHECK(!a.texts[i] || (a.texts[i] >= ' ' && a.texts[i] < 0x7f));
	for (unsigned i = 0; r == DNS_FOUND && question[asked - 3] == DNS_A && i < a.count; i++) {
		const unsigned char bytes[] = { (unsigned char)(a.address[i] >> 24), (unsigned char)(a.address[i] >> 16),
			(unsigned char)(a.address[i] >> 8), (unsigned char)a.address[i] };

		CHECK(memmem(answer + asked, n - asked, bytes, 4) != NULL);
	}
	free(answer);
	return 0;
}
