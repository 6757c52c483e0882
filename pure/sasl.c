/* AUTH exchanges. See sasl.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "pure/sasl.h"
#include "pure/base64.h"
#include "smtp.h"

#include <string.h>

/* ---- what clients say ---- */

size_t sasl_mechanism(const unsigned char *arg, size_t n)
{
	static const char *const known[] = { "PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256",
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

static const unsigned char *find_user(const unsigned char *mech, size_t mech_len, unsigned step,
    const unsigned char *text, size_t n, size_t *len)
{
	const unsigned char *user = text, *authcid;

	if (smtp_is(mech, mech_len, "PLAIN")) { /* [authzid] NUL authcid NUL password, RFC 4616 2 */
		authcid = memchr(text, 0, n);
		return authcid ? between(authcid + 1, (size_t)(text + n - authcid - 1), "", 0, len) : NULL;
	}
	if (smtp_is(mech, mech_len, "LOGIN") && step == 0) { /* the password comes next */
		*len = n;
		return user;
	}
	if (smtp_is(mech, mech_len, "CRAM-MD5")) { /* user SP digest, RFC 2195 2 */
		for (*len = n; *len && text[*len - 1] != ' ';)
			--*len;
		*len -= *len ? 1 : 0;
		return user;
	}
	if (mech_len >= 6 && smtp_is(mech, 6, "SCRAM-")) /* RFC 5802 7 */
		return between(text, n, ",n=", ',', len);
	if (smtp_is(mech, mech_len, "XOAUTH2") && n >= 5 && memcmp(text, "user=", 5) == 0)
		return between(text, n, "user=", 1, len);
	if (smtp_is(mech, mech_len, "OAUTHBEARER")) /* RFC 7628 3.1 */
		return between(text, n, ",a=", ',', len);
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
