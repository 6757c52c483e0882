/* A client of a server of maps. See socketmap.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/socketmap.h"
#include "io/passes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define RETRY 50000 /* us until a connection is tried again for which the server had no room */

static void end_query(struct socketmap_query *q, enum socketmap_result result, const char *failure, size_t n)
{
	if (q->fd >= 0)
		close(q->fd);
	q->fd = -1;
	q->state = SOCKETMAP_DONE;
	q->result = result;
	snprintf(q->failure, sizeof q->failure, "%.*s", (int)(n < sizeof q->failure ? n : sizeof q->failure - 1), failure);
}

/* The operator has to learn whose failure it is, for it stands in the reply that refuses a recipient. */
static void fail(struct socketmap_query *q, const char *failure)
{
	char text[sizeof q->failure];

	end_query(q, SOCKETMAP_BAD, text, (size_t)snprintf(text, sizeof text, "the map's server: %.100s", failure));
}

static int connect_to(const struct socketmap *m, int fd)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };

	if (m->address.sa.sa_family != AF_UNIX)
		return passes_connect(fd, &m->address.sa, net_size(&m->address));
	strcpy(name.sun_path, m->path);
	return passes_connect(fd, (const struct sockaddr *)&name, sizeof name);
}

/* Where the queue of a Unix socket is full, its connections never are in progress: they are to be tried again. */
static void try_connecting(struct socketmap_query *q, int64_t now)
{
	q->retry_at = INT64_MAX;
	q->fd = passes_socket(q->map->address.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (q->fd >= 0 && (connect_to(q->map, q->fd) == 0 || errno == EINPROGRESS))
		return;
	if (q->fd < 0 || errno != EAGAIN) {
		fail(q, strerror(errno));
		return;
	}
	close(q->fd);
	q->fd = -1;
	q->retry_at = now + RETRY;
}

void socketmap_start(struct socketmap_query *q, const struct socketmap *map, const char *key, int64_t now, int64_t patience)
{
	q->state = SOCKETMAP_RUNNING;
	q->map = map;
	q->fd = -1;
	q->deadline = now + patience;
	q->sent = q->got = 0;
	q->question_len = socketmap_ask(map, key, q->question);
	if (q->question_len)
		try_connecting(q, now);
	else
		fail(q, "the name is too long");
}

static void take_reply(struct socketmap_query *q)
{
	enum socketmap_result result = socketmap_read(q->in, q->got, &q->text, &q->text_len);

	switch (result) {
	case SOCKETMAP_MORE:
		return;
	case SOCKETMAP_FOUND:
	case SOCKETMAP_NOTHING:
		end_query(q, result, "", 0);
		return;
	case SOCKETMAP_FAILED:
		end_query(q, result, q->text, q->text_len);
		return;
	case SOCKETMAP_BAD:
		fail(q, "the reply is malformed");
		return;
	}
}

/* Send the question once the connection is made, then read the reply: what is malformed is seen before the room is full. */
static void turn(struct socketmap_query *q)
{
	bool asks = q->sent < q->question_len;
	ssize_t n;

	if (asks)
		n = send(q->fd, q->question + q->sent, q->question_len - q->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
	else
		n = recv(q->fd, q->in + q->got, sizeof q->in - q->got, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0)
		fail(q, strerror(errno));
	else if (asks)
		q->sent += (size_t)n;
	else if (!n)
		fail(q, "the connection ended before the reply");
	q->got += !asks && n > 0 ? (size_t)n : 0;
	if (!asks && n > 0)
		take_reply(q);
}

void socketmap_turn(struct socketmap_query *q, int64_t now)
{
	if (q->state == SOCKETMAP_RUNNING && now >= q->deadline)
		fail(q, "no reply in time");
	if (q->state == SOCKETMAP_RUNNING && now >= q->retry_at)
		try_connecting(q, now);
	if (q->state == SOCKETMAP_RUNNING && q->fd >= 0)
		turn(q);
}

int64_t socketmap_deadline(const struct socketmap_query *q)
{
	if (q->state != SOCKETMAP_RUNNING)
		return INT64_MAX;
	return q->retry_at < q->deadline ? q->retry_at : q->deadline;
}

unsigned socketmap_watch(const struct socketmap_query *q, struct pollfd *p)
{
	if (q->state != SOCKETMAP_RUNNING || q->fd < 0)
		return 0;
	*p = (struct pollfd){ .fd = q->fd, .events = q->sent < q->question_len ? POLLOUT : POLLIN };
	return 1;
}

void socketmap_stop(struct socketmap_query *q)
{
	if (q->state == SOCKETMAP_RUNNING)
		fail(q, "not asked to the end");
}
