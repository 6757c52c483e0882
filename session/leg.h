/* One side of a session: a socket, TLS on it or not, and the bytes on their way in and out.
 *
 * Invariants: start <= end <= cap in all buffers; `out` is plaintext that TLS or the socket has not taken yet. Full
 * means that the caller stops offering, never that anything is cut.
 */
#ifndef LEG_H
#define LEG_H

#include "tls.h"

#include <stdint.h>

#define LEG_SMALL 448 /* lines of a usual dialogue */

/* Bytes from start to end. They stand in `small` until it is too small: a session that is idle between commands has
 * touched no page of the large storage. */
struct buffer {
	unsigned char *bytes; /* small or large */
	size_t start, end, cap;
	unsigned char *large; /* storage of the caller's */
	size_t large_cap;
	unsigned char small[LEG_SMALL];
};

struct leg {
	int fd; /* -1: none */
	struct tls *tls;
	struct buffer in, out;
	struct buffer *ciphertext; /* with TLS: ciphertext that the engine has not taken yet; the caller's */
	bool eof;     /* the peer will send no more */
	bool broken;  /* nothing can be sent any more */
	bool lost;    /* bytes were to be sent that it never took */
	bool blocked; /* the socket took less than it was offered */
	bool secret;  /* what is in `out` is wiped once it is sent */
	bool shut;    /* the peer was told that nothing more comes */
	const char *why; /* what ended it: static storage */
	uint64_t received, sent; /* octets on the wire, of all connections that this leg had */
	uint64_t flushed;  /* value of sent at the last leg_flush_at() */
	int64_t read_at;   /* when something last came in */
	int64_t moved_at;  /* when it last took something, or had nothing to take */
};

/* Give a buffer its large storage. */
void leg_storage(struct buffer *b, unsigned char *large, size_t cap);

/* Forget what is buffered and take over fd. Storage of the buffers stays. */
void leg_open(struct leg *l, int fd);

/* Close the socket; what was not sent is forgotten, what was read stays. With TLS: close_notify first, as far as the
 * socket takes it at once. */
void leg_close(struct leg *l);

/* Say that nothing more comes, and keep reading. With TLS: close_notify first, as in leg_close(). */
void leg_shut(struct leg *l);

/* Put TLS on it: what comes in next is a handshake. ciphertext: a buffer for it, with its storage. */
void leg_use_tls(struct leg *l, struct tls *t, struct buffer *ciphertext);

/* Octets that can be read into `in`, and written without more than they being buffered. */
size_t leg_read_room(const struct leg *l);
size_t leg_write_room(const struct leg *l);

/* Whether there is something to read that poll(2) does not know of: inside TLS. */
bool leg_has_more(const struct leg *l);

/* Read what there is, once, at this time. bulk: much may come. Sets eof, or broken and why. */
void leg_read(struct leg *l, bool bulk, int64_t now);

/* The peer will send no more, as somebody else has read. */
void leg_end_input(struct leg *l);

/* The peer is gone, though it may have left something to read: poll(2) says so by POLLHUP or POLLERR. */
void leg_break(struct leg *l);

/* Send n octets, or keep them until leg_flush(); n must not be more than leg_write_room(). */
void leg_write(struct leg *l, const void *bytes, size_t n);

/* The same in place: n octets of room, of which leg_wrote() says how many were filled. */
unsigned char *leg_room(struct leg *l, size_t n);
void leg_wrote(struct leg *l, size_t n);

/* Send what is kept, as far as the socket takes it. */
void leg_flush(struct leg *l);

/* The same, at this time: sets moved_at. */
void leg_flush_at(struct leg *l, int64_t now);

/* What is kept now is a secret: it is wiped once it is sent. */
void leg_mark_secret(struct leg *l);

/* Something is kept that the socket must take first. */
bool leg_pending(const struct leg *l);

/* Bytes read and not consumed yet, and their number. */
const unsigned char *leg_bytes(const struct leg *l);
size_t leg_count(const struct leg *l);
void leg_consume(struct leg *l, size_t n);

/* The same for octets that are a secret: they are wiped. */
void leg_consume_secret(struct leg *l, size_t n);

#endif
