/* A mail transaction (RFC 5321 3.3): the server that it is bound to, the state of its message, its times, its end and record.
 *
 * Invariants: transaction_enter() is the only writer of tx.content; a message in tx.message is kept, and dropped once it was sent or the
 * transaction has ended. Sender, recipients and the decisive reply are in pure/dialogue.h; where octets of a message go is decided in
 * maildata.c.
 */
#ifndef TRANSACTION_H
#define TRANSACTION_H

#include "session/state.h"

/* Give the part its storage, and values that are not zero. Call it once, first of all. */
void transaction_prepare(struct session *s);

/* Whether the whole message was sent and its reply is awaited, so that the outcome is unknown for now. */
bool transaction_outcome_due(const struct session *s);

/* End the transaction, if there is one: count it, write its record, drop its message. */
void transaction_end(struct session *s, enum transaction_result result);

/* --connect-on recipient: bind the transaction to a server. */
void transaction_bind(struct session *s, enum transaction_server server);

/* If the transaction is TRANSACTION_BOUND, it no longer is. */
void transaction_unbind(struct session *s);

/* Send RSET to a server that may have heard of the transaction, RFC 5321 4.1.1.5; then transaction_unbind(). */
void transaction_reset_server(struct session *s);

/* A command with this verb was sent to the server: note when. After BDAT the client's octets pass through. */
void transaction_sent(struct session *s, enum smtp_verb verb);

/* The server has answered MAIL, RCPT, or the end of a message (SMTP_CONTENT): note how long it took. */
void transaction_answered(struct session *s, enum smtp_verb verb);

/* A message goes to the server from now on, for a 354 came or BDAT was sent: note how long it took until then. */
void transaction_data_begins(struct session *s);

/* Change the state of the message; state.h lists what may follow what. */
void transaction_enter(struct session *s, enum content_state content);

/* Octets of a message, or of a BDAT that was refused, come next from the client: note when, for --min-rate. */
void transaction_octets_begin(struct session *s);

/* Count the octets of the message that have come, for --min-rate. */
void transaction_octets_came(struct session *s);

/* For this long (microseconds) the client's octets waited for the server: --min-rate does not count it. */
void transaction_octets_waited(struct session *s, int64_t duration);

/* A kept message begins, or goes on with another chunk. */
void transaction_keep(struct session *s);

/* Add n octets to the kept message. Returns NULL, or the reply (static storage) that says that there is no room for them: kept.h, or
 * transaction_no_memory. */
const char *transaction_add(struct session *s, const void *bytes, size_t n);
extern const char transaction_no_memory[];

/* The kept message is whole: CONTENT_WHOLE. false: there was no room for it, as message_seal() has it. */
bool transaction_seal(struct session *s);

/* Refuse the kept message at its end, with this reply (static storage, without CRLF): CONTENT_SPOILED. Its octets are forgotten at once. */
void transaction_spoil(struct session *s, const char *reply);

/* Read the message to its end and throw it away, then give this reply, which is copied (cut to TRANSACTION_DRAINED - 1 octets):
 * CONTENT_DRAINING. */
void transaction_drain(struct session *s, const char *reply);

/* n more octets of the kept message were sent to the server. */
void transaction_progress(struct session *s, size_t n);

/* All of the message was written: from now on only the server knows its outcome. CONTENT_SENT, or CONTENT_SENT_LATE. */
void transaction_content_sent(struct session *s);

/* Replace the kept message by *m, which becomes the transaction's. */
void transaction_replace(struct session *s, struct message *m);

/* Edit the header of the kept message by n octets of a verdict's lines: message_edit(), with its result. */
bool transaction_edit(struct session *s, const unsigned char *verdict, size_t n);

/* Whether the message is kept: CONTENT_KEEPING to CONTENT_SENDING_CHUNK. */
bool transaction_is_kept(const struct session *s);

/* Whether all of a kept message is here, and not all of it with the server. */
bool transaction_is_whole(const struct session *s);

/* Why the message in DATA must be refused, as far as it has been read: a reply in static storage; NULL: no reason so far. */
const char *transaction_fault(const struct session *s);

#endif
