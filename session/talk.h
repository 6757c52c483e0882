/* What smtpwarp itself says: replies to the client, commands to the server, a record of both with --verbose; and the end of the session.
 *
 * Invariants: callers have made sure that the legs have room (REPLIES_ROOM), so nothing is cut. Replies of ours go out in the order of
 * the calls; when a reply's turn comes is for pure/dialogue.c. What the client's commands become is for commands.c and held.c.
 */
#ifndef TALK_H
#define TALK_H

#include "session/record.h"
#include "session/state.h"

#define TALK_GATHERED (32 << 10) /* octets of a reply that wait for its last line */
#define TALK_REPEATED 560	 /* no line that talk_repeat() writes has more octets */
#define TALK_LOCAL 128		 /* no reply of ours in static storage has more octets */
#define TALK_OK "250 2.0.0 Ok"

/* The size of a string for talk_quote() that holds n octets of a reply's text. */
#define TALK_QUOTE(n) (sizeof "250 " + (n))

/* What smtpwarp calls itself: --hostname, else gethostname(2). */
const char *talk_own_name(const struct session *s);

/* With --verbose or a log hook: a "comm" record of n octets. */
void talk_comm(struct session *s, enum record_direction direction, const void *bytes, size_t n);

/* The same for an answer to 334, which may be a password: a note stands in its place. */
void talk_comm_answer(struct session *s, enum record_direction direction);

/* Write a line of a reply as "CODE TEXT", for a reason or a record: a string, cut to cap octets with its NUL. */
void talk_quote(const struct smtp_line *line, char *out, size_t cap);

/* Give the client a reply of ours, one line without CRLF: "250 2.0.0 Ok". In a tunnel and after END_SILENT it is not given, nor to a
 * client that is gone. */
void talk_reply(struct session *s, const char *reply);

/* The same for a reply from printf(3), which is cut to 499 octets. */
void talk_replyf(struct session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Give the client a reply of ours with a text of n octets, wrapped into lines of legal length: smtp_reply_wrap(), RFC 5321
 * 4.5.3.1.5. */
void talk_wrapped(struct session *s, int code, const uint16_t enhanced[3], const unsigned char *text, size_t n);

/* Give the replies of ours whose turn has come, RFC 2920 3.2. */
void talk_local_replies(struct session *s);

/* Count this refusal of a command, if it is 5xx. When there are --max-errors of them, or the command was fatal, the session ends after
 * the replies that are due and a 421. */
void talk_count_refusal(struct session *s, const char *reply, bool fatal);

/* A client that speaks LMTP has got one reply to its message: give it the replies for its other recipients as well, RFC 2033 4.2.
 * reply: one line without CRLF; NULL: the reply that has decided the transaction. */
void talk_repeat(struct session *s, const char *reply);

/* Send the server a command of ours, n octets without CRLF, and expect its reply, which the client does not see. */
void talk_own_command(struct session *s, enum smtp_verb verb, const char *line, size_t n);

/* Gather this line of a reply of the server's until the last line is in: a reply that breaks off, or that we replace, must not have
 * begun to look like a success. A reply beyond TALK_GATHERED octets goes to the client in parts; for_client: false, it is dropped. */
void talk_gather(struct session *s, const struct dialogue_reply *r, bool for_client);

/* Add the gathered lines of a reply to *line. */
void talk_gathered(const struct session *s, struct reply_line *line);

/* The server's refusal in its own words, for client and log: what, code, text: "greeting 554 go away". Static storage. */
const char *talk_refusal(const char *what, const struct smtp_line *line);

/* Pass the gathered reply of the server's on to the client; *r is its last line. */
void talk_pass(struct session *s, const struct dialogue_reply *r);

/* End the session. Only the first call counts, but any other `how` replaces END_AFTER_REPLIES. In a tunnel `how` becomes END_SILENT.
 * reason: static storage, or of the session. */
void talk_end(struct session *s, enum end_how how, enum end_by by, const char *reason);

/* Answer the client's QUIT in our own name, and end the session, RFC 5321 4.1.1.10. */
void talk_bye(struct session *s);

/* Whether the session has ended, so that nothing more is taken from either side. With END_AFTER_REPLIES it has not yet. */
bool talk_ended(const struct session *s);

/* Both legs are closed: note the time, and the records lost so far, for the close record. */
void talk_over(struct session *s);

#endif
