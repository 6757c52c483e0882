/* The server's banner, and EHLO, HELO and LHLO: the client's word goes to the server, twice if STARTTLS, XCLIENT or AUTH of ours comes
 * between, and the client gets the list of extensions as we offer it. RFC 5321 3.1, 3.2, 4.1.1.1; RFC 2033 4.1.
 *
 * With --connect-on recipient the client is answered in our own name, and the server is greeted later, for the held RCPT.
 *
 * Invariants: while serverstate_in_hello(), no command of the client's is read, and no reply of the server's reaches it except the last.
 */
#ifndef HELLO_H
#define HELLO_H

#include "session/state.h"

/* Give the part its storage, and values that are not zero. Call it once, first of all. */
void hello_prepare(struct session *s);

/* Note the name of the client's EHLO, HELO or LHLO, on which hooks are about to decide. */
void hello_try_name(struct session *s, const struct smtp_command *cmd);

/* Hooks have refused that name: put the one before it back, RFC 5321 4.1.4. If the client has never been greeted, records have the refused
 * one. */
void hello_restore_name(struct session *s);

/* The client's EHLO, HELO or LHLO stands: greet the server, or with --connect-on recipient answer the client. */
void hello_said(struct session *s, const struct smtp_command *cmd);

/* Forget the client's name, RFC 3207 4.2. */
void hello_forget(struct session *s);

/* --client-tls auto, --tls-on recipient: whether TLS with the server was put off, and is wanted now, before AUTH or MAIL. */
bool hello_owes_tls(const struct session *s);

/* In GATE_SECURE and GATE_SERVER: begin TLS with the server, if that is wanted and offered. hello.ready or server.news comes, or
 * hello.ready is there. */
void hello_secure(struct session *s);

/* The TLS handshake after STARTTLS is done: greet the server again. */
void hello_secured(struct session *s);

/* Handle a line of the server's banner, or of its reply to EHLO, HELO, LHLO, STARTTLS, XCLIENT or AUTH of ours. */
void hello_reply(struct session *s, const struct dialogue_reply *r);

/* Give the client a banner in our own name, "220 HOST ESMTP": --connect-on recipient. */
void hello_banner(struct session *s);

/* Clear hello.ready. */
void hello_take_ready(struct session *s);

#endif
