/* The way of a message from the client to the server (RFC 5321 4.1.1.4, RFC 3030): it passes through piece by piece; it is kept until it is
 * whole, for hooks or for a server without CHUNKING, and sent then; or it is drained: read to its end, but goes nowhere.
 */
#ifndef MAILDATA_H
#define MAILDATA_H

#include "session/state.h"

/* Whether this DATA or BDAT brings a message that is kept; and the reply that lets it come. */
bool maildata_is_kept(const struct session *s, const struct smtp_command *cmd);
void maildata_keep(struct session *s, const struct smtp_command *cmd);

/* The server lets a message pass through: 354. */
void maildata_passes(struct session *s);

/* A piece of a message. true: it was the last of a kept one, which is whole and may be judged. */
bool maildata_piece(struct session *s, const struct smtp_piece *piece);

/* A kept message may go on: GATE_KEPT until it is sent, or the client has a reply. By BDAT if it came so and the server knows it, else by
 * DATA, RFC 3030 2. */
void maildata_send_kept(struct session *s);

/* A kept message stays here, its reply given: the server is to forget the envelope. */
void maildata_end(struct session *s, enum transaction_result result);

/* The server's reply to the DATA of a kept message: if it is no 354, it is the client's. */
void maildata_data_answered(struct session *s, const struct dialogue_reply *r);

/* Send more of a kept message, as far as the server takes it. true: some went. */
bool maildata_send(struct session *s);

/* The message that is under way cannot reach the server any more: this reply is given at its end, or now if that is past. */
void maildata_give_up(struct session *s, const char *reply);

#endif
