/* The socketmap protocol. See socketmap.h for the contract. */
#include "pure/socketmap.h"
#include "pure/endpoint.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define TEXT_MAX 100000 /* octets within the netstring of a reply */

/* ---- who is asked ---- */

static const char *parse_unix(struct socketmap *m, const char *path, size_t n)
{
	if (*path != '/' || n >= sizeof m->path)
		return "a socket's path begins with / and has 107 octets at most";
	memcpy(m->path, path, n);
	m->path[n] = 0;
	m->address.sa.sa_family = AF_UNIX;
	return NULL;
}

static const char *parse_inet(struct socketmap *m, const char *text, size_t n)
{
	char copy[80], host[sizeof copy];
	uint16_t port;

	snprintf(copy, sizeof copy, "%.*s", (int)(n < sizeof copy ? n : 0), text);
	return endpoint_split(copy, host, sizeof host, 0, &port) && net_parse(host, port, &m->address) ? NULL :
	    "inet: takes an address and a port";
}

const char *socketmap_parse(struct socketmap *m, const char *text)
{
	const char *colon = strrchr(text, ':');
	bool is_unix = strncmp(text, "unix:", 5) == 0;

	memset(m, 0, sizeof *m);
	if ((!is_unix && strncmp(text, "inet:", 5) != 0) || colon < text + 5)
		return "takes " SOCKETMAP_WORDS;
	if (!colon[1] || strlen(colon + 1) >= sizeof m->name)
		return "a map's name has 1 to 63 octets";
	for (const char *c = colon + 1; *c; c++)
		if (!isgraph((unsigned char)*c))
			return "a map's name has no blanks";
	strcpy(m->name, colon + 1);
	return (is_unix ? parse_unix : parse_inet)(m, text + 5, (size_t)(colon - text - 5));
}

/* ---- questions and replies ---- */

size_t socketmap_ask(const struct socketmap *m, const char *key, char out[SOCKETMAP_QUESTION])
{
	size_t n = strlen(m->name) + 1 + strlen(key), head;

	if (n > SOCKETMAP_QUESTION - sizeof "999:,")
		return 0;
	head = (size_t)sprintf(out, "%zu:%s ", n, m->name);
	for (; *key; key++)
		out[head++] = (char)(*key >= 'A' && *key <= 'Z' ? *key + 32 : *key);
	out[head++] = ',';
	return head;
}

static bool begins(const char *text, size_t n, const char *word)
{
	size_t len = strlen(word);

	return n >= len && memcmp(text, word, len) == 0 && (n == len || text[len] == ' ');
}

static enum socketmap_result judge(const char **text, size_t *n)
{
	if (begins(*text, *n, "OK") && *n > 3) {
		*text += 3;
		*n -= 3;
		return SOCKETMAP_FOUND;
	}
	if (begins(*text, *n, "NOTFOUND"))
		return SOCKETMAP_NOTHING;
	return begins(*text, *n, "TEMP") || begins(*text, *n, "TIMEOUT") || begins(*text, *n, "PERM") ? SOCKETMAP_FAILED : SOCKETMAP_BAD;
}

enum socketmap_result socketmap_read(const char *in, size_t n, const char **text, size_t *text_len)
{
	size_t at = 0, len = 0;

	for (; at < n && isdigit((unsigned char)in[at]); at++) {
		len = len * 10 + (size_t)(in[at] - '0');
		if (len > TEXT_MAX || (at && *in == '0')) /* a length has no zeros before it */
			return SOCKETMAP_BAD;
	}
	if (at == n)
		return SOCKETMAP_MORE;
	if (!at || in[at] != ':')
		return SOCKETMAP_BAD;
	at++;
	if (n - at < len + 1)
		return SOCKETMAP_MORE;
	if (n - at > len + 1 || in[at + len] != ',')
		return SOCKETMAP_BAD;
	*text = in + at;
	*text_len = len;
	return judge(text, text_len);
}
