/* A mail transaction (RFC 5321 3.3): the server it is bound to, the way of its message, its times, its end and record. */
#ifndef TRANSACTION_H
#define TRANSACTION_H

#include "session/state.h"

/* Storage that few sessions touch, and values that are not zero: once, before all else. */
void transaction_prepare(struct session *s);

/* Whether the whole message was sent and its reply is awaited: what became of it is not known yet. */
bool transaction_outcome_due(const struct session *s);

/* End the transaction, if there is one, and write its record. */
void transaction_end(struct session *s, enum transaction_result result);

/* --connect-on recipient: which server it is bound to; and that it is bound to none any more. */
void transaction_bind(struct session *s, enum transaction_server server);
void transaction_unbind(struct session *s);

/* Take the message back from the server, if it has heard of one: RSET, RFC 5321 4.1.1.5. */
void transaction_reset_server(struct session *s);

/* A command with this verb went to the server. */
void transaction_sent(struct session *s, enum smtp_verb verb);

/* The server has answered the command with this verb: durations of mail and rcpt. */
void transaction_answered(struct session *s, enum smtp_verb verb);

/* The server lets the message come: duration of data. */
void transaction_data_begins(struct session *s);

/* The only writer of the message's state. */
void transaction_enter(struct session *s, enum content_state content);

/* Octets of a message, or of a chunk that is swallowed, come next from the client. */
void transaction_octets_begin(struct session *s);

/* They waited this long for the server, which is not the client's fault: see --min-rate. */
void transaction_octets_waited(struct session *s, int64_t duration);

/* A kept message begins, or goes on with another chunk. */
void transaction_keep(struct session *s);

/* Add n octets to the kept message; and it is whole. false: there is no room for it, as message_seal() has it. */
void transaction_add(struct session *s, const void *bytes, size_t n);
bool transaction_seal(struct session *s);

/* The message that comes is spoiled: this reply (static storage) is given at its end. */
void transaction_spoil(struct session *s, const char *reply);

/* The message is read to its end, but goes nowhere; then this reply is given, which is copied. */
void transaction_drain(struct session *s, const char *reply);

/* n octets of a kept message went to the server. */
void transaction_progress(struct session *s, size_t n);

/* All of the message is written: from now on it is the server's to take or to refuse. */
void transaction_content_sent(struct session *s);

/* Hooks have made another message of the kept one: *m is taken over. */
void transaction_replace(struct session *s, struct message *m);

/* The lines of a verdict edit the header of the kept message: message_edit(). */
bool transaction_edit(struct session *s, const unsigned char *verdict, size_t n);

/* Whether messages are kept in this transaction; and whether all of one is here, and not yet with the server. */
bool transaction_is_kept(const struct session *s);
bool transaction_is_whole(const struct session *s);

/* Why the message that comes in by DATA cannot go on, as far as it is known: a reply in static storage; NULL: it can. */
const char *transaction_fault(const struct session *s);

#endif
