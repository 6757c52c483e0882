/* What a session says to its client and its server, what it writes down of that, and its end. */
#ifndef TALK_H
#define TALK_H

#include "session/record.h"
#include "session/state.h"

#define TALK_GATHERED (32 << 10) /* octets of a reply that are kept until its last line is in */
#define TALK_REPEATED 560	 /* octets of a line that talk_repeat() writes */
#define TALK_LOCAL 128		 /* longer than any reply of ours in static storage */

/* What smtpwarp calls itself: --hostname, else gethostname(2). */
const char *talk_own_name(const struct session *s);

/* A "comm" record, with --verbose. */
void talk_comm(struct session *s, enum record_direction direction, const void *bytes, size_t n);

/* A reply of ours, a line without CRLF: "250 2.0.0 Ok". No word of ours stands in a tunnel, or after END_SILENT. */
void talk_reply(struct session *s, const char *reply);

/* The same, put together as printf(3) does; cut to 500 octets. */
void talk_replyf(struct session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A reply of ours with any text of n octets, wrapped into lines. RFC 5321 4.5.3.1.5. */
void talk_wrapped(struct session *s, int code, const uint16_t enhanced[3], const unsigned char *text, size_t n);

/* Give the replies of ours whose turn has come, RFC 2920 3.2. */
void talk_local_replies(struct session *s);

/* A bad command was refused with this reply. The session ends when it was fatal, or one too many (--max-errors). */
void talk_count_refusal(struct session *s, const char *reply, bool fatal);

/* A client that speaks LMTP has been given one reply to its message: give it those to its other recipients as well. reply: a
 * line without CRLF; NULL: what has decided the transaction. RFC 2033 4.2. */
void talk_repeat(struct session *s, const char *reply);

/* Send the server a command of ours, a line without CRLF, and expect its reply. */
void talk_own_command(struct session *s, enum smtp_verb verb, const char *line, size_t n);

/* Keep this line of the server's reply until its last line is in: a reply that breaks off, or turns out to be none, must not
 * have begun to look like a success. One beyond TALK_GATHERED goes to the client in parts, if it is for the client. */
void talk_gather(struct session *s, const struct dialogue_reply *r, bool for_client);

/* The server's reply, of which this is the last line, goes to the client. */
void talk_pass(struct session *s, const struct dialogue_reply *r);

/* The session is over. Only the first call counts. reason: static storage, or of the session. */
void talk_end(struct session *s, enum end_how how, enum end_by by, const char *reason);

/* Whether it is over: nothing more is taken from either side, END_AFTER_REPLIES excepted. */
bool talk_ended(const struct session *s);

/* Both legs are closed: what the last record says of the session's end is as it is now. */
void talk_over(struct session *s);

#endif
