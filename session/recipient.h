/* --connect-on recipient: the client's MAIL is taken in our own name; the server is chosen and connected to when a recipient is
 * known, and may be another for the next message.
 */
#ifndef RECIPIENT_H
#define RECIPIENT_H

#include "session/state.h"

/* Storage that few sessions touch, and values that are not zero: once, before all else. */
void recipient_prepare(struct session *s);

/* A MAIL or RCPT comes: what verdicts on it change begins as it is without. */
void recipient_prepare_route(struct session *s, enum smtp_verb verb);

/* A command that is answered here as long as no server has a say. false: it goes on to the server. */
bool recipient_command(struct session *s, const struct smtp_command *cmd);

/* The server of the held RCPT takes mail; has been told of the client; has answered MAIL, of which this is the reply's last line. */
void recipient_server_ready(struct session *s);
void recipient_send_mail(struct session *s);
void recipient_mail_answered(struct session *s, const struct dialogue_reply *r);

/* There is no way to that server: the held RCPT is refused with 451, and so are others for the same server in this transaction. text:
 * without code. */
void recipient_unreachable(struct session *s, const char *text);

/* The connection that AUTH was said on is no more: what the client has said is refused with this 421, and the session ends. */
void recipient_end(struct session *s, enum end_by by, const char *reply);

#endif
