/* --connect-on recipient: MAIL is answered in our own name. The server is chosen, and connected to, when a recipient is known; it may be
 * another for the next message. With --tls-on recipient it is connected already, and TLS with it waits for the recipient.
 *
 * Invariants: all accepted recipients of a transaction have one server; a client's password goes only to the server whose AUTH it was
 * shown, and its mail on that route only over the connection that carried AUTH. Routes are put together in routing.c, connections are
 * made in server.c.
 */
#ifndef RECIPIENT_H
#define RECIPIENT_H

#include "session/state.h"

/* Give the part its storage. Call it once, first of all. */
void recipient_prepare(struct session *s);

/* A MAIL or RCPT of the client's comes: set the route that verdicts on it may change. */
void recipient_prepare_route(struct session *s, enum smtp_verb verb);

/* Handle MAIL, RCPT, RSET and QUIT; note where AUTH goes. false: the command goes on to the server. */
bool recipient_command(struct session *s, const struct smtp_command *cmd);

/* The policy of the held RCPT is known: refuse it with this reply, or (NULL) ask its server. */
void recipient_policy_known(struct session *s, const char *refusal);

/* In GATE_SERVER: the server of the held RCPT takes mail. Tell it of the client, then send MAIL. */
void recipient_server_ready(struct session *s);

/* In GATE_SERVER: the server has been told of the client. Send MAIL, with the parameters that it knows. */
void recipient_send_mail(struct session *s);

/* In GATE_SERVER: the server has answered MAIL; *r is the reply's last line. Send the held RCPT, or refuse it with this reply. */
void recipient_mail_answered(struct session *s, const struct dialogue_reply *r);

/* In GATE_SERVER: the server cannot be reached or used. Refuse the held RCPT with 451 and this text ("4.4.1 reason"), and every other RCPT
 * of this transaction that has the same route. */
void recipient_unreachable(struct session *s, const char *text);

/* The connection that carried the client's AUTH is closed: refuse the command that waits with this reply, a 421, and end the session. */
void recipient_end(struct session *s, enum end_by by, const char *reply);

#endif
