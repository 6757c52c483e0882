/* A stub for the DNS. See dns.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/dns.h"
#include "io/file.h"
#include "io/passes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define ATTEMPTS 4
#define DATAGRAMS 8 /* read in one turn: a flood must not keep the session from its deadlines */

/* ---- settings ---- */

static void take_settings(void *arg, char *line)
{
	dns_settings_line(arg, line);
}

void dns_settings_choose(struct dns_settings *s, const struct dns_servers *given)
{
	s->servers.count = 0;
	s->servers.trusted = given->trusted;
	s->ndots = 1;
	s->search[0] = 0;
	file_lines("/etc/resolv.conf", take_settings, s);
	if (given->count)
		s->servers = *given;
	s->unnamed = !s->servers.count;
	if (s->unnamed)
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

static void end_query(struct dns_query *q, enum dns_result result, const char *failure)
{
	close_socket(q);
	q->state = DNS_DONE;
	q->result = result;
	q->failure = failure;
}

/* Whether the word of the server that is asked is to be believed: that it has validated what it says. */
static bool is_believed(const struct dns_query *q)
{
	return q->servers->trusted || net_is_loopback(&q->servers->server[q->server]);
}

/* Go on to the next server. If there are any to be believed, no other is asked for what is authentic: whoever silences those would have its
 * answers, in which nothing is signed, for theirs. */
static void choose_server(struct dns_query *q)
{
	unsigned left = q->servers->count;

	do
		q->server = (q->server + 1) % q->servers->count;
	while (q->authentic && !is_believed(q) && left--);
}

static void set_query_len(struct dns_query *q, size_t n)
{
	q->query_len = n;
	dns_put16(q->question, (unsigned)n);
}

/* Open a connected socket: only what this server sends comes in, at a port that the kernel chose. */
static bool open_query_socket(struct dns_query *q, bool tcp)
{
	const union net_address *a = &q->servers->server[q->server];

	close_socket(q);
	q->tcp = tcp;
	q->fd = passes_socket(a->sa.sa_family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return q->fd >= 0 &&
	    (passes_connect(q->fd, &a->sa, net_size(a)) == 0 || (tcp && errno == EINPROGRESS));
}

/* Ask the next server. A server that cannot be sent to has had its attempt. */
static void attempt(struct dns_query *q, int64_t now)
{
	uint16_t id;

	while (q->attempt < ATTEMPTS) {
		q->attempt++;
		choose_server(q);
		q->retry_at = q->began + q->patience * (q->attempt) / ATTEMPTS;
		if (getrandom(&id, sizeof id, 0) != sizeof id)
			id = (uint16_t)(now ^ now >> 16);
		dns_put16(q->question + 2, id);
		if (open_query_socket(q, false) && send(q->fd, q->question + 2, q->query_len, MSG_NOSIGNAL) > 0)
			return;
	}
	end_query(q, DNS_BAD, "no server can be asked");
}

static void start(struct dns_query *q, const struct dns_servers *servers, const char *name, enum dns_type type, int64_t now,
    int64_t patience, bool authentic)
{
	q->state = DNS_RUNNING;
	q->servers = servers;
	q->fd = -1;
	q->attempt = 0;
	q->server = servers->count - 1;
	q->began = now;
	q->patience = patience;
	q->question_len = dns_ask(0, name, type, q->question + 2);
	q->authentic = authentic;
	set_query_len(q, authentic && q->question_len ? dns_extend(q->question + 2, q->question_len) : q->question_len);
	q->answer.count = 0;
	q->answer.text_len = 0;
	if (q->question_len)
		attempt(q, now);
	else
		end_query(q, DNS_BAD, "no name");
}

void dns_start(struct dns_query *q, const struct dns_servers *servers, const char *name, enum dns_type type, int64_t now,
    int64_t patience)
{
	start(q, servers, name, type, now, patience, false);
}

void dns_start_authentic(struct dns_query *q, const struct dns_servers *servers, const char *name, enum dns_type type, int64_t now,
    int64_t patience)
{
	start(q, servers, name, type, now, patience, true);
}

/* This server is of no use: ask the next one now. */
static void ask_next_server(struct dns_query *q, int64_t now, const char *why)
{
	if (q->attempt < ATTEMPTS)
		attempt(q, now);
	else
		end_query(q, DNS_BAD, why);
}

/* A server that cannot read the query is one that cannot read its last record: ask without it. */
static bool shorten(struct dns_query *q, const unsigned char *in, size_t n)
{
	if (q->query_len == q->question_len || !dns_is_unread(in, n, q->question + 2))
		return false;
	dns_shorten(q->question + 2);
	set_query_len(q, q->question_len);
	return true;
}

static void take_message(struct dns_query *q, const unsigned char *in, size_t n, int64_t now)
{
	enum dns_result result = shorten(q, in, n) ? DNS_BAD : dns_read(in, n, q->question + 2, q->question_len, &q->answer);

	q->answer.authentic = q->answer.authentic && q->authentic && is_believed(q);
	switch (result) {
	case DNS_FOUND:
	case DNS_NOTHING:
		end_query(q, result, NULL);
		return;
	case DNS_CUT:
		if (q->tcp || !open_query_socket(q, true))
			ask_next_server(q, now, "the answer is cut");
		return;
	case DNS_BAD:
		ask_next_server(q, now, "the server failed");
		return;
	case DNS_FOREIGN:
		if (q->tcp) /* over TCP nothing else follows */
			ask_next_server(q, now, "the server failed");
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
			ask_next_server(q, now, "no server answers");
		else
			take_message(q, q->in, (size_t)n, now);
	}
}

/* Send the question once the connection is made, then read the answer; its length comes first. */
static void turn_tcp(struct dns_query *q, int64_t now)
{
	size_t question = 2 + q->query_len, whole = q->got < 2 ? 2 : 2 + dns_get16(q->in);
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
		ask_next_server(q, now, whole > sizeof q->in ? "the answer is too long" : "no server answers");
	else if (q->got == whole && q->got > 2)
		take_message(q, q->in + 2, q->got - 2, now);
}

void dns_turn(struct dns_query *q, int64_t now)
{
	if (q->state == DNS_RUNNING && now >= q->retry_at)
		ask_next_server(q, now, "no answer in time");
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
	*p = (struct pollfd){ .fd = q->fd, .events = q->tcp && q->sent < 2 + q->query_len ? POLLOUT : POLLIN };
	return 1;
}

void dns_stop(struct dns_query *q)
{
	if (q->state == DNS_RUNNING)
		end_query(q, DNS_BAD, "not asked to the end");
}
