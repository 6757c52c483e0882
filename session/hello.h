/* The server's banner, and EHLO, HELO and LHLO: what the client said is said again to the server, perhaps twice, with STARTTLS,
 * XCLIENT and AUTH of ours between. RFC 5321 3.1, 3.2, 4.1.1.1.
 */
#ifndef HELLO_H
#define HELLO_H

#include "session/state.h"

/* Storage that few sessions touch, and values that are not zero: once, before all else. */
void hello_prepare(struct session *s);

/* The client said EHLO or HELO with this name, on which hooks are to decide. When they refuse it all is as before, RFC 5321
 * 4.1.4. */
void hello_try_name(struct session *s, const struct smtp_command *cmd);
void hello_restore_name(struct session *s);

/* The same, and it goes on. */
void hello_said(struct session *s, const struct smtp_command *cmd);

/* The client's name is forgotten, RFC 3207 4.2. */
void hello_forget(struct session *s);

/* TLS towards the server is there, after STARTTLS. */
void hello_secured(struct session *s);

/* A line of a reply to what is said here: banner, EHLO, HELO, STARTTLS, XCLIENT, AUTH of ours. */
void hello_reply(struct session *s, const struct dialogue_reply *r);

/* The client is greeted in our own name, "220 HOST ESMTP": --connect-on recipient. */
void hello_banner(struct session *s);

/* hello.ready is taken. */
void hello_take_ready(struct session *s);

#endif
