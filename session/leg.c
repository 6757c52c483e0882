/* One leg of a session. See leg.h for the contract. */
#define _GNU_SOURCE
#include "session/leg.h"
#include "io/net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DIRECT 1024 /* octets that are worth a system call of their own instead of a copy */

static size_t buffered(const struct buffer *b)
{
	return b->end - b->start;
}

static void clear(struct buffer *b)
{
	b->start = b->end = 0;
	b->bytes = b->small;
	b->cap = sizeof b->small;
}

static void consume(struct buffer *b, size_t n)
{
	b->start += n;
	if (b->start == b->end)
		clear(b);
}

/* Move the octets to the front of `to`, so that all room is at the end. Nothing stays behind, for they may be half of a password. */
static void move(struct buffer *b, unsigned char *to, size_t cap)
{
	size_t n = buffered(b);
	unsigned char *from = b->bytes + b->start, *behind = from >= to && from < to + n ? to + n : from;

	memmove(to, from, n);
	explicit_bzero(behind, (size_t)(from + n - behind));
	b->end -= b->start;
	b->start = 0;
	b->bytes = to;
	b->cap = cap;
}

/* Make room for n octets at the end; the large storage must be able to hold them. */
static void make_room(struct buffer *b, size_t n)
{
	if (b->cap - b->end >= n)
		return;
	if (b->cap - buffered(b) >= n)
		move(b, b->bytes, b->cap);
	else
		move(b, b->large, b->large_cap);
	if (b->cap - b->end < n)
		abort(); /* a caller broke its promise: better to lose the session than to overwrite other memory */
}

void leg_storage(struct buffer *b, unsigned char *large, size_t cap)
{
	b->large = large;
	b->large_cap = cap;
	clear(b);
}

void leg_open(struct leg *l, int fd)
{
	l->fd = fd;
	l->tls = NULL;
	clear(&l->in);
	clear(&l->out);
	l->eof = l->broken = l->lost = l->blocked = l->secret = l->shut = false;
	l->why = NULL;
}

/* After an error in sending there may still be something to read; after one in reading there is not. */
static void fail(struct leg *l, int error, bool reading)
{
	l->broken = true;
	l->eof = l->eof || reading;
	l->lost = l->lost || buffered(&l->out);
	l->why = error == ECONNRESET || error == EPIPE ? "connection reset" : strerror(error);
	clear(&l->out);
}

void leg_end_input(struct leg *l)
{
	l->eof = true;
}

void leg_break(struct leg *l)
{
	fail(l, ECONNRESET, true);
}

/* Returns how many octets the socket took. */
static size_t send_bytes(struct leg *l, const unsigned char *bytes, size_t n)
{
	ssize_t sent = l->broken ? -1 : send(l->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (sent < 0) {
		if (!l->broken && errno != EAGAIN && errno != EINTR)
			fail(l, errno, false);
		sent = 0;
	}
	l->lost = l->lost || (l->broken && n);
	l->sent += (uint64_t)sent;
	l->blocked = !l->broken && (size_t)sent < n;
	return (size_t)sent;
}

static void send_records(struct leg *l)
{
	const unsigned char *record;
	size_t n, sent;

	while ((n = tls_get_record(l->tls, &record)) > 0) {
		sent = tls_owes_close(l->tls) && net_has_left(l->fd) ? n : send_bytes(l, record, n);
		if (!sent)
			return;
		tls_sent(l->tls, sent);
	}
	l->blocked = false;
}

/* Offer n octets of plaintext to TLS or to the socket. Returns how many were taken. */
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
	if (done < n && tls_closed(l->tls)) { /* the peer has sent close_notify, and takes nothing more, RFC 5246 7.2.1 */
		l->broken = l->lost = true;
		l->why = l->why ? l->why : "connection closed";
		clear(&l->out);
	}
	return done;
}

void leg_write(struct leg *l, const void *bytes, size_t n)
{
	size_t done = 0;

	if (l->broken) {
		l->lost = true;
		return;
	}
	if (!buffered(&l->out) && !l->blocked && n >= DIRECT)
		done = take(l, bytes, n);
	if (!l->broken && done < n)
		memcpy(leg_room(l, n - done), (const unsigned char *)bytes + done, n - done);
	if (!l->broken)
		leg_wrote(l, n - done);
}

unsigned char *leg_room(struct leg *l, size_t n)
{
	make_room(&l->out, n);
	return l->out.bytes + l->out.end;
}

void leg_wrote(struct leg *l, size_t n)
{
	l->out.end += n;
}

void leg_flush(struct leg *l)
{
	size_t n = buffered(&l->out), used = l->out.end, taken;
	unsigned char *bytes = l->out.bytes;

	if (l->fd < 0)
		return;
	if (n) {
		taken = take(l, l->out.bytes + l->out.start, n);
		if (!l->broken)
			consume(&l->out, taken);
	}
	if (l->tls && !l->broken) {
		tls_flush(l->tls);
		send_records(l);
	}
	if (l->secret && n && !buffered(&l->out)) {
		explicit_bzero(bytes, used);
		l->secret = false;
	}
}

void leg_flush_at(struct leg *l, int64_t now)
{
	leg_flush(l);
	if (l->sent != l->flushed || !leg_pending(l))
		l->moved_at = now;
	l->flushed = l->sent;
}

void leg_mark_secret(struct leg *l)
{
	l->secret = true;
}

bool leg_pending(const struct leg *l)
{
	return !l->broken && (buffered(&l->out) || l->blocked);
}

bool leg_has_more(const struct leg *l)
{
	return l->tls && (buffered(l->ciphertext) || tls_readable(l->tls));
}

size_t leg_read_room(const struct leg *l)
{
	return l->eof && !leg_has_more(l) ? 0 : l->in.large_cap - buffered(&l->in);
}

size_t leg_write_room(const struct leg *l)
{
	return l->out.large_cap - buffered(&l->out);
}

static size_t receive(struct leg *l, unsigned char *into, size_t room)
{
	ssize_t n = recv(l->fd, into, room, MSG_DONTWAIT);

	if (n == 0) {
		l->eof = true;
		l->why = "connection closed";
	} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
		fail(l, errno, true);
	}
	if (n > 0)
		l->received += (uint64_t)n;
	return n > 0 ? (size_t)n : 0;
}

/* The engine takes no record while it has decrypted octets to give, so the two alternate until neither moves. */
static void decrypt(struct leg *l)
{
	size_t put, got;

	do {
		make_room(&l->in, leg_read_room(l) ? 1 : 0);
		put = tls_put_record(l->tls, l->ciphertext->bytes + l->ciphertext->start, buffered(l->ciphertext));
		consume(l->ciphertext, put);
		got = tls_read(l->tls, l->in.bytes + l->in.end, l->in.cap - l->in.end);
		l->in.end += got;
	} while (put || got);
	if (tls_closed(l->tls)) {
		clear(l->ciphertext);
		l->eof = true;
		l->broken = tls_failure(l->tls) != NULL;
		l->why = l->broken ? tls_failure(l->tls) : "connection closed";
	}
}

void leg_read(struct leg *l, bool bulk, int64_t now)
{
	uint64_t before = l->received;

	make_room(&l->in, bulk ? l->in.large_cap - buffered(&l->in) : 1);
	if (!l->tls) {
		l->in.end += receive(l, l->in.bytes + l->in.end, l->in.cap - l->in.end);
	} else {
		make_room(l->ciphertext, l->ciphertext->large_cap - buffered(l->ciphertext));
		if (!leg_has_more(l))
			l->ciphertext->end += receive(l, l->ciphertext->bytes, l->ciphertext->cap);
		decrypt(l);
	}
	if (l->received != before)
		l->read_at = now;
}

void leg_use_tls(struct leg *l, struct tls *t, struct buffer *ciphertext)
{
	clear(ciphertext);
	l->ciphertext = ciphertext;
	l->tls = t;
}

static void end_tls(struct leg *l)
{
	if (l->tls && !l->broken && tls_handshake_done(l->tls) && !net_has_left(l->fd)) {
		tls_close(l->tls);
		send_records(l);
	}
}

void leg_shut(struct leg *l)
{
	end_tls(l);
	shutdown(l->fd, SHUT_WR);
	l->shut = true;
}

void leg_close(struct leg *l)
{
	if (l->fd < 0)
		return;
	end_tls(l);
	close(l->fd);
	if (l->secret)
		explicit_bzero(l->out.bytes, l->out.end);
	clear(&l->out);
	l->blocked = l->secret = false;
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
	consume(&l->in, n);
}

void leg_consume_secret(struct leg *l, size_t n)
{
	explicit_bzero(l->in.bytes + l->in.start, n);
	leg_consume(l, n);
}
