/* AUTH exchanges. See sasl.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "pure/sasl.h"
#include "pure/base64.h"
#include "smtp.h"

#include <stdbool.h>
#include <string.h>

/* ---- what clients say ---- */

size_t sasl_mechanism(const unsigned char *arg, size_t n)
{
	static const char known[][19] = { "PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256",
		"SCRAM-SHA-512", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "XOAUTH2", "OAUTHBEARER", "GSSAPI", "NTLM",
		"EXTERNAL", "ANONYMOUS" };
	size_t len = smtp_word(arg, n);

	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (smtp_is(arg, len, known[i]))
			return len;
	return 0;
}

/* The octets of text between `after` and `until`; NULL if either is missing: without its end, what looks like a name may be a
 * secret. */
static const unsigned char *between(const unsigned char *text, size_t n, const char *after, unsigned char until,
    size_t *len)
{
	const unsigned char *start, *end;
	size_t skip = strlen(after);

	for (size_t i = 0; i + skip <= n; i++) {
		if (memcmp(text + i, after, skip) != 0)
			continue;
		start = text + i + skip;
		end = memchr(start, until, n - i - skip);
		*len = end ? (size_t)(end - start) : 0;
		return end ? start : NULL;
	}
	return NULL;
}

/* The field at *at up to its comma, over which *at moves. */
static bool take_field(unsigned char **at, const unsigned char *end, unsigned char **field, size_t *len)
{
	unsigned char *comma = memchr(*at, ',', (size_t)(end - *at));

	if (!comma)
		return false;
	*field = *at;
	*len = (size_t)(comma - *at);
	*at = comma + 1;
	return true;
}

/* The value of "X=value", of one octet or more. */
static unsigned char *value_of(char key, unsigned char *field, size_t *len)
{
	if (*len < 3 || field[0] != key || field[1] != '=')
		return NULL;
	*len -= 2;
	return field + 2;
}

/* The header of GS2 at *at, over which *at moves: ["F" ","] ("n" / "y" / "p=" type) "," ["a=" identity] ",", RFC 5801 4. false: there
 * is none. *identity NULL: none is given. */
static bool take_gs2(unsigned char **at, const unsigned char *end, unsigned char **identity, size_t *len)
{
	unsigned char *flag;
	size_t n;

	if (!take_field(at, end, &flag, &n) || (n == 1 && *flag == 'F' && !take_field(at, end, &flag, &n)))
		return false;
	if (!(n == 1 && (*flag == 'n' || *flag == 'y')) && !value_of('p', flag, &n))
		return false;
	if (!take_field(at, end, identity, len))
		return false;
	if (*len) {
		*identity = value_of('a', *identity, len);
		return *identity != NULL;
	}
	*identity = NULL;
	return true;
}

/* A saslname in place: "=2C" is a comma and "=3D" an equals sign, RFC 5801 4. Returns its octets; 0: it is malformed. */
static size_t unescape(unsigned char *name, size_t n)
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		if (name[i] != '=') {
			name[len++] = name[i];
			continue;
		}
		if (n - i < 3 || (memcmp(name + i, "=2C", 3) != 0 && memcmp(name + i, "=3D", 3) != 0))
			return 0;
		name[len++] = name[i + 1] == '2' ? ',' : '=';
		i += 2;
	}
	return len;
}

/* SCRAM has the name behind the header of GS2, RFC 5802 7; OAUTHBEARER in it, RFC 7628 3.1. What stands elsewhere is anybody's. */
static unsigned char *find_gs2_user(bool scram, unsigned char *text, size_t n, size_t *len)
{
	const unsigned char *end = text + n;
	unsigned char *at = text, *name;

	if (!take_gs2(&at, end, &name, len))
		return NULL;
	if (scram)
		name = take_field(&at, end, &name, len) ? value_of('n', name, len) : NULL;
	else if (at == end || *at != 1)
		return NULL;
	if (name)
		*len = unescape(name, *len);
	return name;
}

static const unsigned char *find_user(const unsigned char *mech, size_t mech_len, unsigned step, unsigned char *text, size_t n,
    size_t *len)
{
	const unsigned char *authcid;

	if (smtp_is(mech, mech_len, "PLAIN")) { /* [authzid] NUL authcid NUL password, RFC 4616 2 */
		authcid = memchr(text, 0, n);
		return authcid ? between(authcid + 1, (size_t)(text + n - authcid - 1), "", 0, len) : NULL;
	}
	if (smtp_is(mech, mech_len, "LOGIN") && step == 0) { /* the password comes next */
		*len = n;
		return text;
	}
	if (smtp_is(mech, mech_len, "CRAM-MD5")) { /* user SP digest, RFC 2195 2 */
		for (*len = n; *len && text[*len - 1] != ' ';)
			--*len;
		*len -= *len ? 1 : 0;
		return text;
	}
	if (mech_len >= 6 && smtp_is(mech, 6, "SCRAM-") && step == 0)
		return find_gs2_user(true, text, n, len);
	if (smtp_is(mech, mech_len, "OAUTHBEARER") && step == 0)
		return find_gs2_user(false, text, n, len);
	if (smtp_is(mech, mech_len, "XOAUTH2") && n >= 5 && memcmp(text, "user=", 5) == 0)
		return between(text, n, "user=", 1, len);
	return NULL;
}

size_t sasl_user(const unsigned char *mech, size_t mech_len, unsigned step, const unsigned char *b64, size_t n,
    unsigned char *name, size_t cap)
{
	unsigned char text[1024];
	size_t decoded = base64_decode(b64, n, text, sizeof text), len = 0;
	const unsigned char *user = decoded ? find_user(mech, mech_len, step, text, decoded, &len) : NULL;

	if (!user)
		len = 0;
	else if (len > cap)
		len = cap;
	if (len)
		memcpy(name, user, len);
	explicit_bzero(text, sizeof text); /* it held the password */
	return len;
}

/* ---- what smtpwarp says ---- */

size_t sasl_plain(const struct sasl_pair *p, char *out)
{
	unsigned char text[2 * SASL_WORD_MAX + 2];
	size_t n = 0, len;

	text[n++] = 0;
	memcpy(text + n, p->user, p->user_len);
	n += p->user_len;
	text[n++] = 0;
	memcpy(text + n, p->password, p->password_len);
	n += p->password_len;
	len = base64_encode(text, n, out);
	explicit_bzero(text, sizeof text);
	return len;
}

size_t sasl_word(const char *word, size_t n, char *out)
{
	return base64_encode((const unsigned char *)word, n, out);
}
