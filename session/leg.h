/* One leg of a session: a socket to the client or to the server, plain or TLS, and the octets on their way in and out. It knows nothing
 * of SMTP, never waits, and allocates nothing: buffers and TLS engines are the caller's.
 *
 * Invariants: start <= end <= cap in all buffers; `out` is plaintext that TLS or the socket has not taken yet. Nothing is ever cut: the
 * caller asks for the room first, and a write beyond it aborts the process.
 */
#ifndef LEG_H
#define LEG_H

#include "tls.h"

#include <stdint.h>

#define LEG_SMALL 448 /* octets: the lines of a usual dialogue fit */

/* The octets from start to end. They stand in `small` while they fit: a session that only exchanges commands touches no page of the
 * large storage. */
struct buffer {
	unsigned char *bytes; /* small or large */
	size_t start, end, cap;
	unsigned char *large; /* the caller's storage */
	size_t large_cap;
	unsigned char small[LEG_SMALL];
};

struct leg {
	int fd; /* -1: none */
	struct tls *tls;
	struct buffer in, out;
	struct buffer *ciphertext; /* with TLS: ciphertext that the engine has not taken yet; the caller's */
	bool eof;	 /* the peer will send no more */
	bool broken;	 /* nothing can be sent any more */
	bool lost;	 /* some octets were written that the socket never took */
	bool blocked;	 /* the socket took less than it was offered */
	bool secret;	 /* what is in `out` is wiped once it was sent */
	bool shut;	 /* the peer was told that nothing more comes */
	const char *why; /* why the connection ended: static storage */
	uint64_t received, sent; /* octets on the wire, of all connections that this leg had */
	uint64_t flushed;	 /* value of sent at the last leg_flush_at() */
	int64_t read_at;	 /* when octets last came in */
	int64_t moved_at;	 /* when the socket last took octets, or there were none for it to take */
};

/* Give a buffer its large storage. */
void leg_storage(struct buffer *b, unsigned char *large, size_t cap);

/* Take over fd (-1: none) and forget what is buffered. The buffers keep their storage, the leg its counts of octets. */
void leg_open(struct leg *l, int fd);

/* Close the socket. Octets that were not sent are forgotten, octets that were read stay. With TLS: close_notify goes first (RFC 5246
 * 7.2.1), as far as the socket takes it at once, but not to a peer that has left: most would answer with a reset. Does nothing without
 * a socket. */
void leg_close(struct leg *l);

/* Tell the peer that nothing more comes, and go on reading: shutdown(2). With TLS: close_notify first, as in leg_close(). */
void leg_shut(struct leg *l);

/* Put TLS on the leg: a handshake comes in next. ciphertext: an empty buffer that has its storage; both stay the caller's. */
void leg_use_tls(struct leg *l, struct tls *t, struct buffer *ciphertext);

/* How many octets `in` has room for; 0 also when no more can come. */
size_t leg_read_room(const struct leg *l);

/* How many octets may be written: `out` has room for them even if the socket takes none. */
size_t leg_write_room(const struct leg *l);

/* Whether TLS has octets to read that poll(2) does not know of. */
bool leg_has_more(const struct leg *l);

/* Read once, without waiting: recv(2). bulk: much may come, so offer all the room. now: for read_at. Sets eof and why at the end of
 * input; broken, eof and why on an error. */
void leg_read(struct leg *l, bool bulk, int64_t now);

/* Note that the peer will send no more, when another than leg_read() has read the end of input. */
void leg_end_input(struct leg *l);

/* The peer is gone, for poll(2) says POLLHUP or POLLERR: nothing is read or sent any more. */
void leg_break(struct leg *l);

/* Send n octets at once or buffer them until leg_flush(); n must not be more than leg_write_room(). On a broken leg: sets lost. */
void leg_write(struct leg *l, const void *bytes, size_t n);

/* Write in place: n octets of room in `out`, then how many of them were filled. The leg must not be broken. */
unsigned char *leg_room(struct leg *l, size_t n);
void leg_wrote(struct leg *l, size_t n);

/* Send what is buffered, as far as the socket takes it without waiting: send(2). */
void leg_flush(struct leg *l);

/* leg_flush(), then set moved_at to now if the socket took octets or there are none left. */
void leg_flush_at(struct leg *l, int64_t now);

/* What is buffered now is a secret: it is wiped once it was sent, or when the leg is closed. */
void leg_mark_secret(struct leg *l);

/* Whether something is buffered that the socket has not taken. */
bool leg_pending(const struct leg *l);

/* The octets that were read and not consumed, and how many there are. They stay where they are until the next leg_read(). */
const unsigned char *leg_bytes(const struct leg *l);
size_t leg_count(const struct leg *l);

/* Consume the first n of them. */
void leg_consume(struct leg *l, size_t n);

/* Wipe and consume the first n of them. */
void leg_consume_secret(struct leg *l, size_t n);

#endif
