/* Who the client is: what a proxy before us says of it by a PROXY header, its host name, and what the server is told of it by a PROXY
 * header, XCLIENT, XFORWARD and a Received field.
 *
 * Whether such a client may come in is for checks.c; what it says of itself in EHLO is noted by hello.c.
 */
#ifndef IDENTITY_H
#define IDENTITY_H

#include "session/state.h"

#include <poll.h>

/* Take the addresses of the client's socket as the client's: getsockname(2), getpeername(2). */
void identity_begin(struct session *s);

/* --try-hook: there is no socket, and this is the client's address. */
void identity_assume(struct session *s, const union net_address *address);

/* If the connection is from one of --accept-proxy, wait for its PROXY header and take the client from it; call it before anything is read
 * from the client. Returns NULL, or why the session must end without a reply (static storage); client.leg.eof: the peer closed without a
 * word. */
const char *identity_accept(struct session *s);

/* The client's address is known: look up its host name, if the server is to be told of it. */
void identity_ask(struct session *s);

/* While the host name is looked up: go on, and send what waits for it; which descriptors to poll, at most 1 (returns how many); when to
 * call identity_turn() though nothing comes in (INT64_MAX: never). */
void identity_turn(struct session *s);
unsigned identity_watch(const struct session *s, struct pollfd *p);
int64_t identity_deadline(void);

/* A connection to the server is open: with --send-proxy, send it a PROXY header. */
void identity_send_proxy(struct session *s);

/* The server's list of extensions is in: note what it takes by XFORWARD, and begin to tell it of the client by XCLIENT. false: there is
 * nothing to tell by XCLIENT. */
bool identity_introduce(struct session *s);

/* Send the next XCLIENT, if one line did not hold all. false: all was told. */
bool identity_more(struct session *s);

/* Before MAIL: tell the server of the client by XFORWARD, or wait for the client's host name. client.told becomes true when that is done.
 * false: there is nothing to do. */
bool identity_forward(struct session *s);

/* The server's reply to XFORWARD is in; *r is its last line. */
void identity_forwarded(struct session *s, const struct dialogue_reply *r);

/* Clear client.told. */
void identity_take_told(struct session *s);

/* Forget what the server takes by XFORWARD: it is greeted anew. */
void identity_forget_forward(struct session *s);

/* The client speaks TLS to us: copy the facts of it, unless a proxy has told of the client's own TLS. */
void identity_secured(struct session *s, const struct tls_facts *facts);

/* The Received field for a message, with CRLF (RFC 5321 4.4). Returns octets at *trace, which stay until the next call; 0 without
 * --received. */
size_t identity_trace(const struct session *s, const char **trace);

#endif
