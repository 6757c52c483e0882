/* Messages of the DNS. See dnsmessage.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "pure/dnsmessage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER 12
#define CLASS_IN 1
#define TYPE_OPT 41
#define DATAGRAM 1232 /* octets that a path carries whole: those of IPv6's least MTU without headers */
#define FORMERR 1
#define AUTHENTIC 0x20 /* AD, in octet 3 */
#define ALIASES_MAX 16 /* CNAMEs in a row; more are a circle */

void dns_put16(unsigned char *out, unsigned value)
{
	out[0] = (unsigned char)(value >> 8);
	out[1] = (unsigned char)value;
}

unsigned dns_get16(const unsigned char *in)
{
	return (unsigned)in[0] << 8 | in[1];
}

/* Write "a.b" as labels. Returns octets; 0: it is no name. */
static size_t put_name(const char *name, unsigned char out[DNS_NAME_MAX + 2])
{
	size_t n = 0;

	if (strlen(name) > DNS_NAME_MAX)
		return 0;
	for (bool root = strcmp(name, ".") == 0; !root;) {
		size_t len = strcspn(name, ".");

		if (!len || len > 63)
			return 0;
		out[n++] = (unsigned char)len;
		memcpy(out + n, name, len);
		n += len;
		name += len;
		if (!*name)
			break;
		name++;
	}
	out[n++] = 0;
	return n;
}

size_t dns_ask(uint16_t id, const char *name, enum dns_type type, unsigned char out[DNS_QUERY])
{
	static const unsigned char header[HEADER] = { 0, 0, 1, 0, 0, 1 }; /* one question, recursion desired */
	size_t n = put_name(name, out + HEADER);

	if (!n)
		return 0;
	memcpy(out, header, HEADER);
	dns_put16(out, id);
	dns_put16(out + HEADER + n, type);
	dns_put16(out + HEADER + n + 2, CLASS_IN);
	return HEADER + n + 4;
}

size_t dns_extend(unsigned char query[DNS_QUERY], size_t n)
{
	query[3] |= AUTHENTIC;
	dns_put16(query + 10, 1); /* one additional record: of the root, of this type, the size for its class; the rest is 0 */
	memset(query + n, 0, 11);
	dns_put16(query + n + 1, TYPE_OPT);
	dns_put16(query + n + 3, DATAGRAM);
	return n + 11;
}

bool dns_is_unread(const unsigned char *in, size_t n, const unsigned char *query)
{
	return n >= HEADER && memcmp(in, query, 2) == 0 && (in[2] & 0xf8) == 0x80 && (in[3] & 0xf) == FORMERR;
}

void dns_shorten(unsigned char query[DNS_QUERY])
{
	dns_put16(query + 10, 0);
}

static unsigned char lower(unsigned char c)
{
	return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
}

/* Whether two names are the same, as labels: lengths are below 'A', so comparing them in lower case does no harm. */
static bool same_name(const unsigned char *a, const unsigned char *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (lower(a[i]) != lower(b[i]))
			return false;
	return true;
}

/* Read the name at `at` as labels into out, following pointers. Returns octets; 0: it is malformed. *end: what follows it in
 * the message. A pointer must lead to before the labels that it ends, so that reading ends: RFC 1035 4.1.4. */
static size_t get_name(const unsigned char *in, size_t n, size_t at, unsigned char out[DNS_NAME_MAX + 2], size_t *end)
{
	size_t len = 0, from = at;

	*end = 0;
	while (at < n) {
		size_t label = in[at];

		if (label >= 0xc0) {
			size_t to = at + 1 < n ? dns_get16(in + at) & 0x3fff : n;

			if (to >= from)
				return 0;
			*end = *end ? *end : at + 2;
			at = from = to;
			continue;
		}
		if (label > 63 || n - at < label + 1 || len + label + 1 > DNS_NAME_MAX + 2)
			return 0;
		memcpy(out + len, in + at, label + 1);
		len += label + 1;
		at += label + 1;
		if (label)
			continue;
		*end = *end ? *end : at;
		return len;
	}
	return 0;
}

/* Join the strings of a TXT record. Returns octets of out, at most cap. */
static size_t take_strings(char *out, size_t cap, const unsigned char *in, size_t n)
{
	size_t at = 0, taken = 0;

	while (at < n) {
		size_t len = in[at++];

		for (size_t i = 0; i < len && at + i < n && taken < cap; i++) {
			unsigned char c = in[at + i];

			out[taken++] = (char)(c >= ' ' && c < 0x7f ? c : '?');
		}
		at += len;
	}
	return taken;
}

static void take_text(struct dns_answer *answer, const unsigned char *in, size_t n)
{
	char *end = answer->texts + answer->texts_len;
	size_t room = sizeof answer->texts - answer->texts_len, len = take_strings(end, room, in, n);

	if (!answer->count++)
		answer->text_len = take_strings(answer->text, DNS_TEXT, in, n);
	if (len >= room)
		return;
	end[len] = 0;
	answer->texts_len += len + 1;
}

/* Write labels as a host name; 0 octets if they are none. The owner of an address decides what is here. */
static size_t host_name(const unsigned char *labels, char out[DNS_NAME_MAX + 1])
{
	bool numeric = true;
	size_t n = 0;

	for (; *labels; labels += *labels + 1) {
		if (n)
			out[n++] = '.';
		for (size_t i = 1; i <= *labels; i++) {
			unsigned char c = lower(labels[i]);
			bool digit = c >= '0' && c <= '9';

			if (!digit && !(c >= 'a' && c <= 'z') && c != '_' && (c != '-' || i == 1 || i == *labels))
				return 0;
			numeric = numeric && digit;
			out[n++] = (char)labels[i];
		}
	}
	return numeric ? 0 : n;
}

/* The length of the exchange at this place: its preference, its name, NUL. */
static size_t exchange_len(const struct dns_answer *answer, size_t at)
{
	return 2 + strlen(answer->exchange + at + 2) + 1;
}

/* Insert an exchange before those that are greater, as octets: by preference, then by name. Of too many, or where there is no room, the
 * greatest are left out. */
static void add_exchange(struct dns_answer *answer, const char *exchange, size_t n)
{
	size_t at = 0, to, len;
	unsigned kept = 1; /* with this one */

	for (; at < answer->text_len; at += len, kept++) {
		len = exchange_len(answer, at);
		if (memcmp(exchange, answer->exchange + at, n < len ? n : len) < 0)
			break;
	}
	if (kept > DNS_EXCHANGES || n > sizeof answer->exchange - at)
		return;
	for (to = at; to < answer->text_len && kept < DNS_EXCHANGES; to += len, kept++) {
		len = exchange_len(answer, to);
		if (len > sizeof answer->exchange - n - to)
			break;
	}
	memmove(answer->exchange + at + n, answer->exchange + at, to - at);
	memcpy(answer->exchange + at, exchange, n);
	answer->text_len = to + n;
}

/* Take the data of an MX record, octets from at to end of the message. false: they are malformed. RFC 1035 3.3.9. */
static bool take_exchange(struct dns_answer *answer, const unsigned char *in, size_t at, size_t end)
{
	unsigned char name[DNS_NAME_MAX + 2];
	char exchange[2 + DNS_NAME_MAX + 1];
	size_t n, after;

	if (end - at < 3 || !get_name(in, end, at + 2, name, &after))
		return false;
	memcpy(exchange, in + at, 2);
	n = host_name(name, exchange + 2);
	for (size_t i = 2; i < 2 + n; i++)
		exchange[i] = (char)lower((unsigned char)exchange[i]);
	exchange[2 + n] = 0;
	if (n)
		add_exchange(answer, exchange, 2 + n + 1);
	return true;
}

/* Note where the data of a TLSA record are. false: they are malformed. */
static bool take_tlsa(struct dns_answer *answer, size_t at, size_t end)
{
	if (end - at < 3)
		return false;
	answer->cut = answer->count == DNS_TLSAS;
	if (answer->cut)
		return true;
	answer->tlsa[answer->count].at = (uint16_t)at;
	answer->tlsa[answer->count++].len = (uint16_t)(end - at);
	return true;
}

/* Take the data of a record, octets from at to end of the message. false: they are malformed. */
static bool take_record(struct dns_answer *answer, unsigned type, const unsigned char *in, size_t at, size_t end)
{
	unsigned char name[DNS_NAME_MAX + 2];
	const unsigned char *data = in + at;
	size_t after;

	if (type == DNS_A && end - at == 4 && answer->count < DNS_ADDRESSES)
		answer->address[answer->count++] = dns_get16(data) << 16 | dns_get16(data + 2);
	if (type == DNS_AAAA && end - at == 16 && answer->count < DNS_ADDRESSES)
		memcpy(answer->address6[answer->count++], data, 16);
	if (type == DNS_TXT)
		take_text(answer, data, end - at);
	answer->count += type == DNS_PTR || type == DNS_MX || type == DNS_NS;
	if (type == DNS_MX)
		return take_exchange(answer, in, at, end);
	if (type == DNS_TLSA)
		return take_tlsa(answer, at, end);
	if (type != DNS_PTR)
		return true;
	if (!get_name(in, end, at, name, &after))
		return false;
	if (!answer->text_len)
		answer->text_len = host_name(name, answer->text);
	return true;
}

/* A record of an answer: its data are the octets from data up to end. */
struct record {
	unsigned type;
	bool ours; /* of this owner, and of the Internet */
	size_t data, end;
};

static bool read_record(const unsigned char *in, size_t n, size_t at, const unsigned char *owner, size_t owner_len, struct record *r)
{
	unsigned char name[DNS_NAME_MAX + 2];
	size_t end, len = get_name(in, n, at, name, &end);

	if (!len || n - end < 10 || n - end - 10 < dns_get16(in + end + 8))
		return false;
	r->type = dns_get16(in + end);
	r->data = end + 10;
	r->end = r->data + dns_get16(in + end + 8);
	r->ours = dns_get16(in + end + 2) == CLASS_IN && len == owner_len && same_name(name, owner, len);
	return true;
}

/* Replace the owner by the name that CNAMEs lead to, wherever they stand among the records: their order means nothing, RFC 1034 3.6.
 * Returns octets; 0: a record is malformed, or they lead on for too long. */
static size_t follow_aliases(const unsigned char *in, size_t n, size_t from, unsigned records, unsigned char *owner, size_t owner_len)
{
	unsigned char target[DNS_NAME_MAX + 2];
	struct record r;
	size_t at = from, end, len;
	unsigned left = records, aliases = 0;

	while (left--) {
		if (!read_record(in, n, at, owner, owner_len, &r))
			return 0;
		at = r.end;
		if (!r.ours || r.type != DNS_CNAME)
			continue;
		len = get_name(in, r.end, r.data, target, &end);
		if (!len || ++aliases > ALIASES_MAX)
			return 0;
		if (len == owner_len && same_name(target, owner, len)) /* which leads nowhere */
			continue;
		memcpy(owner, target, len);
		owner_len = len;
		at = from;
		left = records;
	}
	return owner_len;
}

/* Read the given number of records, which begin at from. */
static enum dns_result read_records(const unsigned char *in, size_t n, size_t from, unsigned records, unsigned wanted,
    unsigned char *owner, size_t owner_len, struct dns_answer *answer)
{
	size_t at = from, asked_len = owner_len;
	struct record r;

	owner_len = follow_aliases(in, n, from, records, owner, owner_len);
	if (!owner_len)
		return DNS_BAD;
	answer->aliased = (wanted == DNS_A || wanted == DNS_AAAA) && (owner_len != asked_len || !same_name(owner, in + HEADER, owner_len));
	if (answer->aliased)
		answer->text_len = host_name(owner, answer->text);
	for (unsigned left = records; left && read_record(in, n, at, owner, owner_len, &r); left--) {
		at = r.end;
		if (r.ours && r.type == wanted && !take_record(answer, wanted, in, r.data, r.end))
			return DNS_BAD;
	}
	return answer->count ? DNS_FOUND : DNS_NOTHING;
}

enum dns_result dns_read(const unsigned char *in, size_t n, const unsigned char *question, size_t question_len,
    struct dns_answer *answer)
{
	unsigned char owner[DNS_NAME_MAX + 2];
	size_t name_len = question_len - HEADER - 4;
	unsigned rcode;

	memset(answer, 0, sizeof *answer);
	/* It must be an answer (QR) to a standard query, to our one question. */
	if (n < question_len || memcmp(in, question, 2) != 0 || (in[2] & 0xf8) != 0x80 || dns_get16(in + 4) != 1 ||
	    !same_name(in + HEADER, question + HEADER, name_len) ||
	    memcmp(in + HEADER + name_len, question + HEADER + name_len, 4) != 0)
		return DNS_FOREIGN;
	rcode = in[3] & 0xf;
	answer->message = in;
	answer->named = !rcode;
	answer->authentic = in[3] & AUTHENTIC;
	answer->aliased = rcode == 3 && dns_get16(in + 6); /* what does not exist has no other records */
	if (rcode == 3) /* NXDOMAIN */
		return DNS_NOTHING;
	if (rcode)
		return DNS_BAD;
	if (in[2] & 0x02) /* TC */
		return DNS_CUT;
	memcpy(owner, question + HEADER, name_len);
	return read_records(in, n, question_len, dns_get16(in + 6), dns_get16(question + question_len - 4), owner, name_len, answer);
}

const char *dns_exchange(const struct dns_answer *answer, size_t *at)
{
	size_t here = *at;

	if (here >= answer->text_len)
		return NULL;
	*at += exchange_len(answer, here);
	return answer->exchange + here + 2;
}

struct dns_tlsa dns_tlsa(const struct dns_answer *answer, unsigned i)
{
	const unsigned char *data = answer->message + answer->tlsa[i].at;

	return (struct dns_tlsa){ data[0], data[1], data[2], data + 3, answer->tlsa[i].len - 3u };
}

bool dns_is_domain(const char *name)
{
	return strchr(name, '.') && dns_is_host(name);
}

bool dns_is_host(const char *name)
{
	unsigned char labels[DNS_NAME_MAX + 2];
	char text[DNS_NAME_MAX + 1];

	return put_name(name, labels) && host_name(labels, text);
}

bool dns_reversed(const union net_address *a, const char *zone, char name[DNS_NAME_MAX + 1])
{
	const unsigned char *bytes = a->sa.sa_family == AF_INET ? (const unsigned char *)&a->v4.sin_addr :
								  a->v6.sin6_addr.s6_addr;
	size_t n = 0;

	if (strlen(zone) > DNS_NAME_MAX - 64)
		return false;
	if (a->sa.sa_family == AF_INET)
		for (int i = 3; i >= 0; i--)
			n += (size_t)sprintf(name + n, "%u.", bytes[i]);
	else if (a->sa.sa_family == AF_INET6)
		for (int i = 15; i >= 0; i--)
			n += (size_t)sprintf(name + n, "%x.%x.", bytes[i] & 15u, bytes[i] >> 4);
	strcpy(name + n, zone);
	return n > 0;
}

bool dns_has(const struct dns_answer *answer, const union net_address *a)
{
	bool six = a->sa.sa_family == AF_INET6;

	for (unsigned i = 0; i < answer->count; i++)
		if (six ? memcmp(answer->address6[i], &a->v6.sin6_addr, 16) == 0 : answer->address[i] == ntohl(a->v4.sin_addr.s_addr))
			return true;
	return false;
}

/* ---- settings ---- */

static void add_suffix(struct dns_settings *s, char *suffix)
{
	size_t n = strlen(suffix), at = strlen(s->search);

	if (n && suffix[n - 1] == '.')
		suffix[--n] = 0;
	if (dns_is_host(suffix) && at + 1 + n < sizeof s->search)
		sprintf(s->search + at, "%s%s", at ? " " : "", suffix);
}

void dns_settings_line(struct dns_settings *s, char *line)
{
	static const char blanks[] = " \t\r";
	char *rest, *key = strtok_r(line, blanks, &rest), *word;
	bool suffixes, server;

	if (!key || key != line)
		return;
	suffixes = strcmp(key, "search") == 0 || strcmp(key, "domain") == 0;
	server = strcmp(key, "nameserver") == 0 && s->servers.count < DNS_SERVERS;
	if (suffixes) /* the last such line counts */
		s->search[0] = 0;
	while ((word = strtok_r(NULL, blanks, &rest))) {
		if (suffixes)
			add_suffix(s, word);
		else if (strcmp(key, "options") == 0 && strncmp(word, "ndots:", 6) == 0)
			s->ndots = (unsigned)strtoul(word + 6, NULL, 10);
		else if (strcmp(key, "options") == 0 && strcmp(word, "trust-ad") == 0)
			s->servers.trusted = true;
		else if (server)
			s->servers.count += net_parse(word, 53, &s->servers.server[s->servers.count]);
		server = false;
	}
}
