/* A stub for the DNS. See dns.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/dns.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER 12
#define ATTEMPTS 4
#define CLASS_IN 1
#define TYPE_CNAME 5
#define FILE_MAX (16u << 20)
#define DATAGRAMS 8 /* looked at in one turn: a flood must not keep the session from its clock */

/* ---- messages ---- */

static void put16(unsigned char *out, unsigned value)
{
	out[0] = (unsigned char)(value >> 8);
	out[1] = (unsigned char)value;
}

static unsigned get16(const unsigned char *in)
{
	return (unsigned)in[0] << 8 | in[1];
}

/* "a.b" as labels. Returns octets, 0: it is no name. */
static size_t put_name(const char *name, unsigned char out[DNS_NAME_MAX + 2])
{
	size_t n = 0;

	if (strlen(name) > DNS_NAME_MAX)
		return 0;
	for (;;) {
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
	static const unsigned char header[HEADER] = { 0, 0, 1, 0, 0, 1 }; /* recursion is desired; one question */
	size_t n = put_name(name, out + HEADER);

	if (!n)
		return 0;
	memcpy(out, header, HEADER);
	put16(out, id);
	put16(out + HEADER + n, type);
	put16(out + HEADER + n + 2, CLASS_IN);
	return HEADER + n + 4;
}

static unsigned char lower(unsigned char c)
{
	return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
}

/* Names as labels; lengths are below 'A', so they compare as they are. */
static bool same_name(const unsigned char *a, const unsigned char *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (lower(a[i]) != lower(b[i]))
			return false;
	return true;
}

/* The name at `at`, its pointers followed, as labels into out: returns its octets, 0 if it is none. *end: what follows it in
 * the message. A pointer must lead to what stands before the labels it ends, so that it comes to an end: RFC 1035 4.1.4. */
static size_t get_name(const unsigned char *in, size_t n, size_t at, unsigned char out[DNS_NAME_MAX + 2], size_t *end)
{
	size_t len = 0, from = at;

	*end = 0;
	while (at < n) {
		size_t label = in[at];

		if (label >= 0xc0) {
			size_t to = at + 1 < n ? get16(in + at) & 0x3fff : n;

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

static void take_text(struct dns_answer *answer, const unsigned char *in, size_t n)
{
	size_t at = 0;

	while (at < n) {
		size_t len = in[at++];

		for (size_t i = 0; i < len && at + i < n && answer->text_len < DNS_TEXT; i++) {
			unsigned char c = in[at + i];

			answer->text[answer->text_len++] = (char)(c >= ' ' && c < 0x7f ? c : '?');
		}
		at += len;
	}
}

/* Labels as the name of a host, 0 octets if they are none. Whoever has an address writes here what he likes. */
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

/* The data of a record, octets at to end of the message. false: it is malformed. */
static bool take_record(struct dns_answer *answer, unsigned type, const unsigned char *in, size_t at, size_t end)
{
	unsigned char name[DNS_NAME_MAX + 2];
	const unsigned char *data = in + at;
	size_t after;

	if (type == DNS_A && end - at == 4 && answer->count < DNS_ADDRESSES)
		answer->address[answer->count++] = get16(data) << 16 | get16(data + 2);
	if (type == DNS_AAAA && end - at == 16 && answer->count < DNS_ADDRESSES)
		memcpy(answer->address6[answer->count++], data, 16);
	if (type == DNS_TXT && !answer->count++)
		take_text(answer, data, end - at);
	if (type != DNS_PTR)
		return true;
	answer->count++;
	if (!get_name(in, end, at, name, &after))
		return false;
	if (!answer->text_len)
		answer->text_len = host_name(name, answer->text);
	return true;
}

/* Records from `at` on, as many as there are said to be. */
static enum dns_result read_records(const unsigned char *in, size_t n, size_t at, unsigned records, unsigned wanted,
    unsigned char *owner, size_t owner_len, struct dns_answer *answer)
{
	unsigned char name[DNS_NAME_MAX + 2];

	for (; records; records--) {
		size_t end, data, len = get_name(in, n, at, name, &end);
		unsigned type;
		bool ours;

		if (!len || n - end < 10 || n - end - 10 < get16(in + end + 8))
			return DNS_BAD;
		type = get16(in + end);
		data = end + 10;
		at = data + get16(in + end + 8);
		ours = get16(in + end + 2) == CLASS_IN && len == owner_len && same_name(name, owner, len);
		if (ours && type == TYPE_CNAME) {
			owner_len = get_name(in, at, data, owner, &end);
			if (!owner_len)
				return DNS_BAD;
		} else if (ours && type == wanted && !take_record(answer, type, in, data, at)) {
			return DNS_BAD;
		}
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
	/* An answer (QR), of the opcode of a query, to one question that is ours. */
	if (n < question_len || memcmp(in, question, 2) != 0 || (in[2] & 0xf8) != 0x80 || get16(in + 4) != 1 ||
	    !same_name(in + HEADER, question + HEADER, name_len) ||
	    memcmp(in + HEADER + name_len, question + HEADER + name_len, 4) != 0)
		return DNS_FOREIGN;
	rcode = in[3] & 0xf;
	answer->named = !rcode;
	if (rcode == 3) /* NXDOMAIN */
		return DNS_NOTHING;
	if (rcode)
		return DNS_BAD;
	if (in[2] & 0x02) /* TC */
		return DNS_CUT;
	memcpy(owner, question + HEADER, name_len);
	return read_records(in, n, question_len, get16(in + 6), get16(question + question_len - 4), owner, name_len, answer);
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

/* ---- servers ---- */

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
		else if (server)
			s->servers.count += net_parse(word, 53, &s->servers.server[s->servers.count]);
		server = false;
	}
}

void dns_lines(const char *path, void (*take)(void *arg, char *line), void *arg)
{
	char text[4096];
	size_t have = 0, all = 0;
	bool skipping = false; /* in a line that was too long */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n = fd < 0 ? 0 : 1;

	while (n > 0 && all < FILE_MAX) {
		char *line = text, *end;

		n = read(fd, text + have, sizeof text - 1 - have);
		have += n > 0 ? (size_t)n : 0;
		all += n > 0 ? (size_t)n : 0;
		if (n <= 0 && have) /* the last line needs no LF */
			text[have++] = '\n';
		while ((end = memchr(line, '\n', have))) {
			*end = 0;
			if (!skipping)
				take(arg, line);
			skipping = false;
			have -= (size_t)(end + 1 - line);
			line = end + 1;
		}
		memmove(text, line, have);
		skipping = skipping || have == sizeof text - 1;
		have = skipping ? 0 : have;
	}
	if (fd >= 0)
		close(fd);
}

static void take_settings(void *arg, char *line)
{
	dns_settings_line(arg, line);
}

void dns_settings_choose(struct dns_settings *s, const struct dns_servers *given)
{
	s->servers.count = 0;
	s->ndots = 1;
	s->search[0] = 0;
	dns_lines("/etc/resolv.conf", take_settings, s);
	if (given->count)
		s->servers = *given;
	else if (!s->servers.count)
		net_parse("127.0.0.1", 53, &s->servers.server[s->servers.count++]);
}

void dns_servers_choose(struct dns_servers *s, const struct dns_servers *given)
{
	struct dns_settings settings;

	if (given->count) {
		*s = *given;
		return;
	}
	dns_settings_choose(&settings, given);
	*s = settings.servers;
}

/* ---- asking ---- */

static void close_socket(struct dns_query *q)
{
	if (q->fd >= 0)
		close(q->fd);
	q->fd = -1;
	q->sent = q->got = 0;
}

static void finish(struct dns_query *q, enum dns_result result, const char *failure)
{
	close_socket(q);
	q->state = DNS_DONE;
	q->result = result;
	q->failure = failure;
}

/* A socket that only what the server sends comes in by, with a port of the kernel's choice. */
static bool open_socket(struct dns_query *q, bool tcp)
{
	const union net_address *a = &q->servers->server[(q->attempt - 1) % q->servers->count];

	close_socket(q);
	q->tcp = tcp;
	q->fd = socket(a->sa.sa_family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return q->fd >= 0 &&
	    (connect(q->fd, &a->sa, a->sa.sa_family == AF_INET6 ? sizeof a->v6 : sizeof a->v4) == 0 ||
		(tcp && errno == EINPROGRESS));
}

/* Ask the next server. One that cannot even be sent to has had its attempt. */
static void attempt(struct dns_query *q, int64_t now)
{
	uint16_t id;

	while (q->attempt < ATTEMPTS) {
		q->attempt++;
		q->retry_at = q->began + q->patience * (q->attempt) / ATTEMPTS;
		if (getrandom(&id, sizeof id, 0) != sizeof id)
			id = (uint16_t)(now ^ now >> 16);
		put16(q->question + 2, id);
		if (open_socket(q, false) && send(q->fd, q->question + 2, q->question_len, MSG_NOSIGNAL) > 0)
			return;
	}
	finish(q, DNS_BAD, "no server can be asked");
}

void dns_start(struct dns_query *q, const struct dns_servers *servers, const char *name, enum dns_type type, int64_t now,
    int64_t patience)
{
	q->state = DNS_RUNNING;
	q->servers = servers;
	q->fd = -1;
	q->attempt = 0;
	q->began = now;
	q->patience = patience;
	q->question_len = dns_ask(0, name, type, q->question + 2);
	put16(q->question, (unsigned)q->question_len);
	q->answer.count = 0;
	q->answer.text_len = 0;
	if (q->question_len)
		attempt(q, now);
	else
		finish(q, DNS_BAD, "no name");
}

/* This server will not do: the next has its turn now. */
static void try_next(struct dns_query *q, int64_t now, const char *why)
{
	if (q->attempt < ATTEMPTS)
		attempt(q, now);
	else
		finish(q, DNS_BAD, why);
}

static void take_message(struct dns_query *q, const unsigned char *in, size_t n, int64_t now)
{
	enum dns_result result = dns_read(in, n, q->question + 2, q->question_len, &q->answer);

	switch (result) {
	case DNS_FOUND:
	case DNS_NOTHING:
		finish(q, result, NULL);
		return;
	case DNS_CUT:
		if (q->tcp || !open_socket(q, true))
			try_next(q, now, "the answer is cut");
		return;
	case DNS_BAD:
		try_next(q, now, "the server failed");
		return;
	case DNS_FOREIGN:
		if (q->tcp) /* nothing else comes there */
			try_next(q, now, "the server failed");
		return;
	}
}

static void turn_udp(struct dns_query *q, int64_t now)
{
	for (int i = 0; i < DATAGRAMS && q->state == DNS_RUNNING && !q->tcp; i++) {
		ssize_t n = recv(q->fd, q->in, sizeof q->in, MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0)
			try_next(q, now, "no server answers");
		else
			take_message(q, q->in, (size_t)n, now);
	}
}

/* The question goes once the connection is made; the answer has its length before it. */
static void turn_tcp(struct dns_query *q, int64_t now)
{
	size_t question = 2 + q->question_len, whole = q->got < 2 ? 2 : 2 + get16(q->in);
	ssize_t n = 0;

	if (q->sent < question) {
		n = send(q->fd, q->question + q->sent, question - q->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
		q->sent += n > 0 ? (size_t)n : 0;
	} else if (whole <= sizeof q->in) {
		n = recv(q->fd, q->in + q->got, whole - q->got, MSG_DONTWAIT);
		q->got += n > 0 ? (size_t)n : 0;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == EINPROGRESS))
		return;
	if (n <= 0)
		try_next(q, now, whole > sizeof q->in ? "the answer is too long" : "no server answers");
	else if (q->got == whole && q->got > 2)
		take_message(q, q->in + 2, q->got - 2, now);
}

void dns_turn(struct dns_query *q, int64_t now)
{
	if (q->state == DNS_RUNNING && now >= q->retry_at)
		try_next(q, now, "no answer in time");
	if (q->state != DNS_RUNNING)
		return;
	if (!q->tcp)
		turn_udp(q, now);
	else
		turn_tcp(q, now);
}

int64_t dns_deadline(const struct dns_query *q)
{
	return q->state == DNS_RUNNING ? q->retry_at : INT64_MAX;
}

unsigned dns_watch(const struct dns_query *q, struct pollfd *p)
{
	if (q->state != DNS_RUNNING)
		return 0;
	*p = (struct pollfd){ .fd = q->fd, .events = q->tcp && q->sent < 2 + q->question_len ? POLLOUT : POLLIN };
	return 1;
}

void dns_stop(struct dns_query *q)
{
	if (q->state == DNS_RUNNING)
		finish(q, DNS_BAD, "not asked to the end");
}
