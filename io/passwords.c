/* The file of --upstream-auth. See passwords.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/passwords.h"
#include "io/file.h"
#include "pure/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_KB 64
#define FILE_MAX (FILE_KB << 10) /* octets */

/* ---- lines ---- */

struct line {
	const char *host;
	size_t host_len;
	unsigned long port; /* 0: any port */
	struct password password;
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* ":PORT" up to end, or nothing. */
static bool take_port(const char *at, const char *end, unsigned long *port)
{
	*port = 0;
	if (at == end)
		return true;
	if (*at++ != ':' || at == end || end - at > 5)
		return false;
	for (; at < end && *at >= '0' && *at <= '9'; at++)
		*port = *port * 10 + (unsigned long)(*at - '0');
	return at == end && *port && *port <= UINT16_MAX;
}

/* HOST, HOST:PORT, [HOST], [HOST]:PORT; an IPv6 address with a port only in brackets. */
static bool take_host(struct line *l, const char *at, const char *end)
{
	const char *close, *colon = memchr(at, ':', (size_t)(end - at));

	if (*at == '[') {
		close = memchr(at, ']', (size_t)(end - at));
		l->host = at + 1;
		l->host_len = close ? (size_t)(close - at) - 1 : 0;
		return l->host_len && take_port(close + 1, end, &l->port);
	}
	if (!colon || memchr(colon + 1, ':', (size_t)(end - colon - 1)))
		colon = end;
	l->host = at;
	l->host_len = (size_t)(colon - at);
	return l->host_len && take_port(colon, end, &l->port);
}

/* A NUL would end a word early for a server, RFC 4616 2. A line end cannot occur here. */
static bool is_credential(const char *word, size_t n)
{
	return n && n <= SASL_WORD_MAX && !memchr(word, 0, n);
}

/* The word at *at, which moves over it and the blanks behind it. */
static size_t take_word(const char **at, const char *end)
{
	const char *word = *at;
	size_t n;

	while (*at < end && !is_space(**at))
		++*at;
	n = (size_t)(*at - word);
	while (*at < end && is_space(**at))
		++*at;
	return n;
}

static int hex_digit(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *at = c ? strchr(digits, c | 0x20) : NULL;

	return at ? (int)(at - digits) : -1;
}

static const char pin_prefix[] = "fingerprint=";

static bool is_pin(const char *word, size_t n)
{
	return n >= sizeof pin_prefix - 1 && memcmp(word, pin_prefix, sizeof pin_prefix - 1) == 0;
}

/* A word that is_pin() knows. */
static bool parse_pin(const char *word, size_t n, unsigned char pin[PASSWORDS_FINGERPRINT])
{
	const char *at = word + sizeof pin_prefix - 1, *end = word + n;

	for (size_t i = 0; i < PASSWORDS_FINGERPRINT; i++) {
		if (i && at < end && *at == ':')
			at++;
		if (end - at < 2 || hex_digit(at[0]) < 0 || hex_digit(at[1]) < 0)
			return false;
		pin[i] = (unsigned char)(hex_digit(at[0]) << 4 | hex_digit(at[1]));
		at += 2;
	}
	return at == end;
}

/* The words before the pair. false: they are malformed. A pin is broken by "unverified", so one of them must be a mistake. */
static bool take_conditions(struct password *p, const char **at, const char *end)
{
	unsigned char unused[PASSWORDS_FINGERPRINT];

	p->pinned = p->unverified = false;
	p->conditions = *at;
	for (const char *word = *at, *next = *at; next < end; word = next) {
		size_t n = take_word(&next, end);

		if (is_pin(word, n)) {
			if (!parse_pin(word, n, unused))
				return false;
			p->pinned = true;
		} else if (n == 10 && memcmp(word, "unverified", n) == 0) {
			p->unverified = true;
		} else {
			break;
		}
		*at = next;
	}
	p->conditions_len = (size_t)(*at - p->conditions);
	return !(p->pinned && p->unverified);
}

bool passwords_pins(const struct password *p, const unsigned char fingerprint[PASSWORDS_FINGERPRINT])
{
	const char *at = p->conditions, *end = at + p->conditions_len;
	unsigned char pin[PASSWORDS_FINGERPRINT];

	for (const char *word = at; word < end; word = at) {
		size_t n = take_word(&at, end);

		if (is_pin(word, n) && parse_pin(word, n, pin) && memcmp(pin, fingerprint, sizeof pin) == 0)
			return true;
	}
	return false;
}

static bool parse_line(struct line *l, const char *at, const char *end)
{
	const char *host = at, *colon;
	size_t host_len = take_word(&at, end);

	if (!take_host(l, host, host + host_len) || !take_conditions(&l->password, &at, end))
		return false;
	colon = memchr(at, ':', (size_t)(end - at));
	if (!colon)
		return false;
	l->password.pair = (struct sasl_pair){ at, colon + 1, (size_t)(colon - at), (size_t)(end - colon - 1) };
	return is_credential(at, l->password.pair.user_len) && is_credential(colon + 1, l->password.pair.password_len);
}

/* A dot at the end of a host name is no part of it. */
static size_t without_dot(const char *host, size_t n)
{
	return n > 1 && host[n - 1] == '.' ? n - 1 : n;
}

static bool is_for(const struct line *l, const struct passwords_server *s)
{
	size_t n = without_dot(l->host, l->host_len);

	return without_dot(s->host, strlen(s->host)) == n && strncasecmp(s->host, l->host, n) == 0 && (!l->port || l->port == s->port);
}

static bool is_for_others(const struct line *l, const struct passwords_server *s)
{
	return l->host_len == 1 && *l->host == '*' && !s->chosen_by_client && (!l->port || l->port == s->port);
}

/* The line at *next, without blanks around it; *next moves behind it. */
static bool take_line(const char **next, const char *stop, const char **at, const char **end)
{
	if (*next == stop)
		return false;
	*at = *next;
	*end = memchr(*at, '\n', (size_t)(stop - *at));
	*next = *end ? *end + 1 : stop;
	*end = *end ? *end : stop;
	while (*at < *end && is_space(**at))
		++*at;
	while (*end > *at && is_space((*end)[-1]))
		--*end;
	return true;
}

unsigned passwords_find(const char *text, size_t n, const struct passwords_server *server, struct password *p, bool *found)
{
	const char *next = text, *at, *end;
	struct line l;

	*found = false;
	for (unsigned number = 1; take_line(&next, text + n, &at, &end); number++) {
		if (at == end || *at == '#')
			continue;
		if (!parse_line(&l, at, end))
			return number;
		if (server && is_for(&l, server)) {
			*p = l.password;
			*found = true;
			return 0;
		}
		if (server && !*found && is_for_others(&l, server)) {
			*p = l.password;
			*found = true;
		}
	}
	return 0;
}

/* ---- the file ---- */

static struct {
	char *secret; /* see file_share(): a fork copies none of it */
	char *text;   /* the same without users and passwords, in a file of its own */
	size_t len;
	bool exposed;
} store;

/* Returns NULL, or what is wrong. *len: octets to overwrite in that case. */
static const char *read_text(const char *file, char *text, size_t *len, bool *exposed)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st = { .st_mode = 0 };
	ssize_t got = fd >= 0 && fstat(fd, &st) == 0 ? file_read(fd, text, FILE_MAX) : -1;
	const char *why = got < 0 ? strerror(errno) : got == FILE_MAX ? "it is larger than " TEXT_OF(FILE_KB) " kB" : NULL;

	if (fd >= 0)
		close(fd);
	*len = got < 0 ? FILE_MAX : (size_t)got;
	*exposed = st.st_mode & (S_IROTH | S_IWOTH);
	return why;
}

/* Comments may have a password, too: an old one. */
static void redact(char *text, size_t n)
{
	const char *next = text, *at, *end;
	struct line l;

	while (take_line(&next, text + n, &at, &end)) {
		if (at < end && *at == '#') {
			memset(text + (at - text), ' ', (size_t)(end - at));
		} else if (at < end && parse_line(&l, at, end)) {
			char *pair = text + (l.password.pair.user - text);

			memset(pair, ' ', (size_t)(end - pair));
			memcpy(pair, "-:-", 3);
		}
	}
}

/* Returns NULL with errno set if there is no memory. */
static char *redacted(const char *secret, size_t n)
{
	int fd;
	char *text = file_new_shared("hosts", FILE_MAX, &fd);

	if (!text)
		return NULL;
	memcpy(text, secret, n);
	redact(text, n);
	return file_share(text, FILE_MAX, fd) ? text : NULL;
}

bool passwords_load(const char *file, char *why, size_t why_cap)
{
	struct password unused;
	unsigned line = 0;
	bool exposed = false, found;
	size_t len = 0;
	int fd;
	char *text = file_new_shared("passwords", FILE_MAX, &fd), *open_text = NULL;
	const char *reason = text ? read_text(file, text, &len, &exposed) : file_fault();

	if (!reason)
		line = passwords_find(text, len, NULL, &unused, &found);
	if (!reason && !line && !(open_text = redacted(text, len)))
		reason = file_fault();
	if (text && (reason || line)) {
		explicit_bzero(text, len);
		file_unshare(text, FILE_MAX, fd);
	} else if (text && !file_share(text, FILE_MAX, fd)) {
		reason = file_fault();
		munmap(open_text, FILE_MAX);
	}
	if (reason || line) {
		if (reason)
			snprintf(why, why_cap, "--upstream-auth %s: %s", file, reason);
		else
			snprintf(why, why_cap, "--upstream-auth %s: line %u is not HOST USER:PASSWORD", file, line);
		return false;
	}
	if (store.text)
		munmap(store.text, FILE_MAX); /* sessions may still use it */
	passwords_forget();
	store.secret = text;
	store.text = open_text;
	store.len = len;
	store.exposed = exposed;
	return true;
}

bool passwords_for(const struct passwords_server *server, struct password *p)
{
	bool found = false;

	if (store.text)
		passwords_find(store.text, store.len, server, p, &found);
	return found;
}

bool passwords_secret_for(const struct passwords_server *server, struct password *p)
{
	bool found = false;

	if (store.secret)
		passwords_find(store.secret, store.len, server, p, &found);
	return found;
}

bool passwords_have_secret(void)
{
	return store.secret;
}

void passwords_forget(void)
{
	if (store.secret)
		munmap(store.secret, FILE_MAX);
	store.secret = NULL;
}

bool passwords_exposed(void)
{
	return store.exposed;
}
