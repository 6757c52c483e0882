/* The octets of a message, from the client to the server (RFC 5321 4.1.1.4, RFC 3030). A message passes through piece by piece; or it is
 * kept until it is whole, for hooks or for a server without CHUNKING, and sent then; or it is drained: read to its end and thrown away.
 *
 * Invariants: the server gets the end of a message only if the client has sent all of it and nothing has refused it. Its state is
 * tx.content, see transaction.h; what hooks decide about it is for filter.c.
 */
#ifndef MAILDATA_H
#define MAILDATA_H

#include "session/state.h"

/* Whether the message of this DATA or BDAT is to be kept. */
bool maildata_is_kept(const struct session *s, const struct smtp_command *cmd);

/* Begin to keep the message of this DATA, which is answered with 354, or this BDAT. */
void maildata_keep(struct session *s, const struct smtp_command *cmd);

/* The server has answered DATA with 354: the message passes through. */
void maildata_passes(struct session *s);

/* Handle a piece of a message. true: it was the last one of a kept message, which may be judged now. */
bool maildata_piece(struct session *s, const struct smtp_piece *piece);

/* A kept message is accepted here: send it, with BDAT if the client used BDAT and the server knows CHUNKING (RFC 3030 2), else with DATA.
 * GATE_KEPT until it was sent or refused. */
void maildata_send_kept(struct session *s);

/* The client has the reply to a kept message, which does not go to the server: reset the server, end the transaction, open the gate. */
void maildata_end(struct session *s, enum transaction_result result);

/* The server has answered the DATA of a kept message; *r is the reply's last line. 354: send it; else the reply is passed on. */
void maildata_data_answered(struct session *s, const struct dialogue_reply *r);

/* Send more of a kept message, as far as the server takes it. true: some was sent. */
bool maildata_send(struct session *s);

/* The message that is under way cannot reach the server any more: close the connection to it, and give this reply (which is copied) when
 * the client has sent all of the message, or now if it has. */
void maildata_give_up(struct session *s, const char *reply);

#endif
