/* Who the client is: PROXY headers, its host name, XCLIENT, XFORWARD, Received. */
#ifndef IDENTITY_H
#define IDENTITY_H

#include "session/state.h"

#include <poll.h>

/* The addresses of the client's socket are taken as the client's. */
void identity_begin(struct session *s);

/* First of all: read the PROXY header, if the connection is from one of --accept-proxy; then the client is whom it names.
 * Waits for it. NULL, or why the session must end without a word (static storage); client.leg.eof: the peer left at once. */
const char *identity_accept(struct session *s);

/* The client is known: ask for its host name, if anybody is to be told. */
void identity_ask(struct session *s);

/* Until there is an answer: go on, and with it tell what waits for it; what to poll, at most one descriptor (returns how many);
 * when there is something to do though nothing comes. */
void identity_turn(struct session *s);
unsigned identity_watch(const struct session *s, struct pollfd *p);
int64_t identity_deadline(void);

/* --send-proxy: the connection to the server is new. */
void identity_send_proxy(struct session *s);

/* The server's list is in: note what it wants to know by XFORWARD; begin to tell it by XCLIENT who the client is. false: it
 * does not want to know. */
bool identity_introduce(struct session *s);

/* More has to be told by XCLIENT, and is on its way. */
bool identity_more(struct session *s);

/* Tell the server of the client by XFORWARD, before MAIL. false: nothing is to be told, nor waited for. Else client.told becomes true
 * once the last reply is in, identity_forwarded(). */
bool identity_forward(struct session *s);
void identity_forwarded(struct session *s, const struct dialogue_reply *r);

/* client.told is taken. */
void identity_take_told(struct session *s);

/* What a server takes by XFORWARD is not known: it is greeted anew. */
void identity_forget_forward(struct session *s);

/* The client speaks TLS to us: the facts of it, which are copied. */
void identity_secured(struct session *s, const struct tls_facts *facts);

/* The field to put on top of a message: octets at *trace, which stays until the next call; 0 without --received. RFC 5321 4.4. */
size_t identity_trace(const struct session *s, const char **trace);

/* Send it, ahead of a message. */
void identity_send_trace(struct session *s);

#endif
