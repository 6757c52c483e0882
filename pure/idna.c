/* Domains as the DNS has them. See idna.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "pure/idna.h"
#include "pure/json.h"
#include "smtp.h"

#include <string.h>

#define LABEL 63 /* octets of a label */
#define PREFIX "xn--"

/* RFC 3492 5. */
enum { BASE = 36, TMIN = 1, TMAX = 26, SKEW = 38, DAMP = 700, FIRST_BIAS = 72, FIRST_POINT = 0x80 };

struct points {
	size_t n;
	uint32_t at[LABEL];
};

/* A name as it comes together. */
struct name {
	size_t n, label; /* label: octets of its last one */
	bool full;	 /* there was no room, or a label was too long */
	char *text;	 /* DNS_NAME_MAX octets */
};

static void put(struct name *name, unsigned c)
{
	if (name->n == DNS_NAME_MAX || name->label == LABEL)
		name->full = true;
	else
		name->text[name->n++] = (char)c;
	name->label++;
}

/* ---- labels ---- */

/* Whether it is a capital of those that alternate with their small letters. */
static bool is_capital(uint32_t c)
{
	bool alternates = (c >= 0x100 && c <= 0x178) || (c >= 0x460 && c <= 0x481) ||
	    (c >= 0x48a && c <= 0x52f && (c < 0x4c0 || c > 0x4cf)) || (c >= 0x1e00 && c <= 0x1e95) || (c >= 0x1ea0 && c <= 0x1eff);
	bool odd = (c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e);

	return odd ? c & 1 : alternates && !(c & 1);
}

/* Whether the code point can be in no U-label (RFC 5892 3), as far as this tells: capitals, symbols, punctuation, and letters in another
 * form; or is an accent that NFC would have made one with the letter before. */
static bool is_disallowed(uint32_t c, uint32_t before)
{
	static const uint16_t ranges[][2] = { { 0x80, 0xb6 }, { 0xb8, 0xde }, { 0xf7, 0xf7 }, { 0x17f, 0x17f }, { 0x386, 0x386 },
		{ 0x388, 0x38f }, { 0x391, 0x3ab }, { 0x400, 0x42f }, { 0x531, 0x556 }, { 0x10a0, 0x10c5 }, { 0x1e9e, 0x1e9e },
		{ 0x2000, 0x200b }, { 0x200e, 0x2c2f }, { 0x3000, 0x3004 }, { 0x3008, 0x3029 }, { 0xd800, 0xf8ff }, { 0xfb00, 0xffff } };

	for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
		if (c >= ranges[i][0] && c <= ranges[i][1])
			return true;
	return c >= 0xe0000 || is_capital(c) || (c >= 0x300 && c <= 0x36f && before < FIRST_POINT);
}

static uint32_t point_of(const unsigned char *in, size_t len)
{
	uint32_t c = len == 1 ? *in : *in & (0x7fu >> len);

	for (size_t i = 1; i < len; i++)
		c = c << 6 | (in[i] & 0x3fu);
	return c;
}

/* A label that is not ASCII. false: it is no U-label, RFC 5891 4.2. */
static bool take_points(const unsigned char *label, size_t n, struct points *p)
{
	size_t len;

	p->n = 0;
	for (size_t i = 0; i < n; i += len) {
		len = json_utf8(label + i, n - i);
		if (!len || p->n == LABEL)
			return false;
		p->at[p->n] = len == 1 ? smtp_lower(label[i]) : point_of(label + i, len);
		if (len > 1 && is_disallowed(p->at[p->n], p->n ? p->at[p->n - 1] : 0))
			return false;
		p->n++;
	}
	return p->at[0] != '-' && p->at[p->n - 1] != '-' && !(p->n > 3 && p->at[2] == '-' && p->at[3] == '-');
}

/* ---- Punycode ---- */

/* RFC 3492 6.1. */
static uint32_t adapt(uint32_t delta, uint32_t points, bool first)
{
	uint32_t k = 0;

	delta /= first ? DAMP : 2;
	delta += delta / points;
	for (; delta > (BASE - TMIN) * TMAX / 2; k += BASE)
		delta /= BASE - TMIN;
	return k + (BASE - TMIN + 1) * delta / (delta + SKEW);
}

static void put_digit(struct name *name, uint32_t digit)
{
	put(name, digit < 26 ? 'a' + digit : '0' + digit - 26);
}

/* RFC 3492 3.3. */
static void put_number(struct name *name, uint32_t q, uint32_t bias)
{
	for (uint32_t k = BASE;; k += BASE) {
		uint32_t t = k <= bias ? TMIN : k >= bias + TMAX ? TMAX : k - bias;

		if (q < t)
			break;
		put_digit(name, t + (q - t) % (BASE - t));
		q = (q - t) / (BASE - t);
	}
	put_digit(name, q);
}

static uint32_t least_from(const struct points *p, uint32_t from)
{
	uint32_t least = UINT32_MAX;

	for (size_t i = 0; i < p->n; i++)
		least = p->at[i] >= from && p->at[i] < least ? p->at[i] : least;
	return least;
}

/* RFC 3492 6.3. Nothing overflows: there are LABEL points, each below 2^21. */
static void put_points(struct name *name, const struct points *p)
{
	uint32_t point = FIRST_POINT, delta = 0, bias = FIRST_BIAS, basic = 0, done, next;

	for (size_t i = 0; i < p->n; i++)
		if (p->at[i] < FIRST_POINT) {
			put(name, p->at[i]);
			basic++;
		}
	if (basic)
		put(name, '-');
	for (done = basic; done < p->n; delta++, point++) {
		next = least_from(p, point);
		delta += (next - point) * (done + 1);
		point = next;
		for (size_t i = 0; i < p->n; i++) {
			delta += p->at[i] < point;
			if (p->at[i] != point)
				continue;
			put_number(name, delta, bias);
			bias = adapt(delta, done + 1, done == basic);
			done++;
			delta = 0;
		}
	}
}

/* ---- domains ---- */

static bool put_label(struct name *name, const unsigned char *label, size_t n)
{
	struct points p;
	bool ascii = true;

	name->label = 0;
	for (size_t i = 0; i < n; i++)
		ascii = ascii && label[i] < FIRST_POINT;
	if (!n || memchr(label, 0, n) || (!ascii && !take_points(label, n, &p)))
		return false;
	for (size_t i = 0; ascii && i < n; i++)
		put(name, smtp_lower(label[i]));
	for (const char *s = PREFIX; !ascii && *s; s++)
		put(name, (unsigned char)*s);
	if (!ascii)
		put_points(name, &p);
	return !name->full;
}

size_t idna_ascii(const unsigned char *domain, size_t n, char ascii[DNS_NAME_MAX + 1])
{
	struct name name = { .text = ascii };
	size_t at = 0, end;
	bool good = true;

	n -= n && domain[n - 1] == '.';
	while (good && at < n) {
		const unsigned char *dot = memchr(domain + at, '.', n - at);

		end = dot ? (size_t)(dot - domain) : n;
		name.label = 0;
		if (at)
			put(&name, '.');
		good = put_label(&name, domain + at, end - at) && end + 1 != n;
		at = end + 1;
	}
	ascii[good ? name.n : 0] = 0;
	return good ? name.n : 0;
}

size_t idna_domain_of(const unsigned char *mailbox, size_t n, char ascii[DNS_NAME_MAX + 1])
{
	const unsigned char *at = n ? memrchr(mailbox, '@', n) : NULL;
	size_t before = at ? (size_t)(at - mailbox) + 1 : n;

	return idna_ascii(mailbox + before, n - before, ascii);
}
