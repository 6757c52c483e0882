/* One side of a session. See leg.h for the contract. */
#define _GNU_SOURCE
#include "leg.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* So much is worth a system call of its own instead of a copy. */
#define DIRECT 1024

void leg_open(struct leg *l, int fd)
{
	l->fd = fd;
	l->tls = NULL;
	l->in.start = l->in.end = l->out.start = l->out.end = l->stage.start = l->stage.end = 0;
	l->eof = l->broken = l->blocked = l->secret = false;
	l->why = NULL;
}

static size_t buffered(const struct buffer *b)
{
	return b->end - b->start;
}

static void drop(struct buffer *b, size_t n)
{
	b->start += n;
	if (b->start == b->end)
		b->start = b->end = 0;
}

/* Bytes to the front, so that all room is at the end. */
static void compact(struct buffer *b)
{
	memmove(b->bytes, b->bytes + b->start, buffered(b));
	b->end -= b->start;
	b->start = 0;
}

static void append(struct buffer *b, const unsigned char *bytes, size_t n)
{
	if (b->cap - b->end < n)
		compact(b);
	memcpy(b->bytes + b->end, bytes, n);
	b->end += n;
}

static void fail(struct leg *l, int error)
{
	l->broken = l->eof = true;
	l->why = error == ECONNRESET || error == EPIPE ? "connection reset" : strerror(error);
	l->out.start = l->out.end = 0;
}

/* Octets the socket took. */
static size_t send_bytes(struct leg *l, const unsigned char *bytes, size_t n)
{
	ssize_t sent = l->broken ? -1 : send(l->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (sent < 0) {
		if (!l->broken && errno != EAGAIN && errno != EINTR)
			fail(l, errno);
		sent = 0;
	}
	l->sent += (uint64_t)sent;
	l->blocked = !l->broken && (size_t)sent < n;
	return (size_t)sent;
}

static void send_records(struct leg *l)
{
	const unsigned char *record;
	size_t n, sent;

	while ((n = tls_get_record(l->tls, &record)) > 0) {
		sent = send_bytes(l, record, n);
		if (!sent)
			return;
		tls_sent(l->tls, sent);
	}
	l->blocked = false;
}

static size_t take(struct leg *l, const unsigned char *bytes, size_t n)
{
	size_t done = 0, taken;

	if (!l->tls)
		return send_bytes(l, bytes, n);
	while (done < n && (taken = tls_write(l->tls, bytes + done, n - done)) > 0) {
		done += taken;
		if (done < n)
			send_records(l);
	}
	return done;
}

void leg_write(struct leg *l, const void *bytes, size_t n)
{
	size_t done = 0;

	if (l->broken)
		return;
	if (!buffered(&l->out) && !l->blocked && n >= DIRECT)
		done = take(l, bytes, n);
	if (!l->broken && done < n)
		append(&l->out, (const unsigned char *)bytes + done, n - done);
}

void leg_flush(struct leg *l)
{
	size_t n = buffered(&l->out), used = l->out.end;

	if (l->fd < 0)
		return;
	if (n)
		drop(&l->out, take(l, l->out.bytes + l->out.start, n));
	if (l->tls && !l->broken) {
		tls_flush(l->tls);
		send_records(l);
	}
	if (l->secret && n && !buffered(&l->out)) {
		explicit_bzero(l->out.bytes, used);
		l->secret = false;
	}
}

bool leg_pending(const struct leg *l)
{
	return !l->broken && (buffered(&l->out) || l->blocked);
}

bool leg_has_more(const struct leg *l)
{
	return l->tls && (buffered(&l->stage) || tls_readable(l->tls));
}

size_t leg_read_room(const struct leg *l)
{
	return l->eof && !leg_has_more(l) ? 0 : l->in.cap - buffered(&l->in);
}

size_t leg_write_room(const struct leg *l)
{
	return l->out.cap - buffered(&l->out);
}

static size_t receive(struct leg *l, unsigned char *into, size_t room)
{
	ssize_t n = recv(l->fd, into, room, MSG_DONTWAIT);

	if (n == 0) {
		l->eof = true;
		l->why = "connection closed";
	} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
		fail(l, errno);
	}
	if (n > 0)
		l->received += (uint64_t)n;
	return n > 0 ? (size_t)n : 0;
}

/* The engine takes no record while it has decrypted bytes to give, so the two take turns until neither moves. */
static void decrypt(struct leg *l)
{
	size_t put, got;

	do {
		put = tls_put_record(l->tls, l->stage.bytes + l->stage.start, buffered(&l->stage));
		drop(&l->stage, put);
		got = tls_read(l->tls, l->in.bytes + l->in.end, l->in.cap - l->in.end);
		l->in.end += got;
	} while (put || got);
	if (tls_closed(l->tls)) {
		l->eof = true;
		l->broken = tls_failure(l->tls) != NULL;
		l->why = l->broken ? tls_failure(l->tls) : "connection closed";
	}
}

void leg_read(struct leg *l)
{
	if (l->in.end == l->in.cap)
		compact(&l->in);
	if (!l->tls) {
		l->in.end += receive(l, l->in.bytes + l->in.end, l->in.cap - l->in.end);
		return;
	}
	if (!leg_has_more(l))
		l->stage.end += receive(l, l->stage.bytes, l->stage.cap);
	decrypt(l);
}

void leg_use_tls(struct leg *l, struct tls *t)
{
	l->tls = t;
}

void leg_close(struct leg *l)
{
	if (l->fd < 0)
		return;
	if (l->tls && !l->broken && tls_handshake_done(l->tls)) {
		tls_close(l->tls);
		send_records(l);
	}
	close(l->fd);
	l->fd = -1;
	l->tls = NULL;
}

const unsigned char *leg_bytes(const struct leg *l)
{
	return l->in.bytes + l->in.start;
}

size_t leg_count(const struct leg *l)
{
	return buffered(&l->in);
}

void leg_consume(struct leg *l, size_t n)
{
	drop(&l->in, n);
}
