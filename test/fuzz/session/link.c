/* Connections of the session fuzzer: sockets, with TLS by OpenSSL or not. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void link_open(struct link *l, int fd)
{
	int on = 1;

	memset(l, 0, sizeof *l);
	l->fd = fd;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* what is sent is there at once; Unix sockets refuse this */
	fcntl(fd, F_SETFL, O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static void take_plain(struct link *l, const void *p, size_t n)
{
	buf_add(&l->in, p, n);
	buf_add(&l->fresh, p, n);
}

/* What TLS wants to have sent. */
static void take_records(struct link *l)
{
	unsigned char b[16384];
	int n;

	while ((n = BIO_read(l->to, b, sizeof b)) > 0)
		buf_add(&l->out, b, (size_t)n);
}

static void turn_tls(struct link *l)
{
	unsigned char b[16384];
	int n, error;

	ERR_clear_error();
	if (!l->tls_done && !l->tls_failed) {
		n = SSL_do_handshake(l->ssl);
		error = SSL_get_error(l->ssl, n);
		l->tls_done = n == 1;
		l->tls_failed = n != 1 && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE;
	}
	while (l->tls_done && (n = SSL_read(l->ssl, b, sizeof b)) > 0)
		take_plain(l, b, (size_t)n);
	take_records(l);
	ERR_clear_error();
}

/* Octets, and a descriptor if one comes with them. */
static ssize_t receive(struct link *l, void *b, size_t cap)
{
	union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	struct iovec part = { b, cap };
	struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room };
	ssize_t n = recvmsg(l->fd, &m, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n >= 0 ? CMSG_FIRSTHDR(&m) : NULL;

	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && !l->passed)
		memcpy(&l->passed, CMSG_DATA(c), sizeof l->passed);
	return n;
}

static bool pump_in(struct link *l)
{
	unsigned char b[65536];
	bool moved = false;

	while (!l->eof) {
		ssize_t n = receive(l, b, sizeof b);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		moved = true;
		if (n <= 0)
			l->eof = true;
		else if (l->ssl)
			BIO_write(l->from, b, (int)n);
		else
			take_plain(l, b, (size_t)n);
	}
	return moved;
}

static bool pump_out(struct link *l)
{
	bool moved = false;

	while (l->out.n) {
		ssize_t n = send(l->fd, l->out.p, l->out.n, MSG_NOSIGNAL);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		moved = true;
		buf_drop(&l->out, n < 0 ? l->out.n : (size_t)n);
	}
	return moved;
}

bool link_pump(struct link *l)
{
	bool moved;

	if (l->fd < 0)
		return false;
	moved = pump_in(l);
	if (l->ssl)
		turn_tls(l);
	return pump_out(l) || moved;
}

void link_raw(struct link *l, const void *p, size_t n)
{
	buf_add(&l->out, p, n);
	pump_out(l);
}

void link_send(struct link *l, const void *p, size_t n)
{
	if (l->fd < 0)
		return;
	if (l->ssl && l->tls_done && n) {
		SSL_write(l->ssl, p, (int)n);
		take_records(l);
		ERR_clear_error();
	} else if (!l->ssl) {
		buf_add(&l->out, p, n);
	}
	pump_out(l);
}

bool link_last(struct link *l, const void *p, size_t n)
{
	if (l->ssl || l->out.n || setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 0 }, sizeof(int)) < 0)
		return false;
	if (send(l->fd, p, n, MSG_NOSIGNAL | MSG_MORE) == (ssize_t)n)
		shutdown(l->fd, SHUT_WR);
	return true;
}

/* Octets that came already are TLS's. */
void link_tls(struct link *l, SSL_CTX *ctx, bool server)
{
	l->ssl = SSL_new(ctx);
	l->from = BIO_new(BIO_s_mem());
	l->to = BIO_new(BIO_s_mem());
	BIO_set_mem_eof_return(l->from, -1);
	BIO_set_mem_eof_return(l->to, -1);
	SSL_set_bio(l->ssl, l->from, l->to);
	if (server)
		SSL_set_accept_state(l->ssl);
	else
		SSL_set_connect_state(l->ssl);
	if (l->in.n)
		BIO_write(l->from, l->in.p, (int)l->in.n);
	l->in.n = l->fresh.n = 0;
	turn_tls(l);
	pump_out(l);
}

bool link_ready(const struct link *l)
{
	return l->fd >= 0 && !l->out.n && (!l->ssl || l->tls_done);
}

bool link_half_close(struct link *l)
{
	if (l->fd < 0)
		return true;
	if (l->ssl && l->tls_done && !l->notified) {
		l->notified = true;
		SSL_shutdown(l->ssl);
		take_records(l);
		ERR_clear_error();
		pump_out(l);
		return false;
	}
	pump_out(l);
	shutdown(l->fd, SHUT_WR);
	return true;
}

void link_close(struct link *l, bool reset)
{
	struct linger now = { 1, 0 };

	if (l->fd < 0)
		return;
	pump_out(l);
	if (reset)
		setsockopt(l->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(l->fd);
	l->fd = -1;
	if (l->passed)
		close(l->passed);
	l->passed = 0;
	if (l->ssl) {
		SSL_set_shutdown(l->ssl, SSL_SENT_SHUTDOWN); /* or the session could not be resumed */
		SSL_free(l->ssl);
	}
	l->ssl = NULL;
}
