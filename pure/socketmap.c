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
		return "takes a socket's path that begins with / and has 107 octets at most";
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
	    "takes socketmap:inet:ADDRESS:PORT:NAME, with an IPv6 address in brackets";
}

static bool is_map_name(const char *name)
{
	size_t n = 0;

	while (isgraph((unsigned char)name[n]))
		n++;
	return n && n < SOCKETMAP_NAME && !name[n];
}

const char *socketmap_parse(struct socketmap *m, const char *text)
{
	const char *colon = strrchr(text, ':');
	bool is_unix = strncmp(text, "unix:", 5) == 0;

	memset(m, 0, sizeof *m);
	if ((!is_unix && strncmp(text, "inet:", 5) != 0) || colon < text + 5)
		return "takes " SOCKETMAP_WORDS;
	if (!is_map_name(colon + 1))
		return "takes the name of a map at its end, 1 to 63 octets without blanks";
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
