/* What becomes of what the server says: its replies are passed on to the client, or taken here when they answer commands of ours.
 *
 * Invariants: the client gets 2xx for a message only when the server has given it to the whole of that message, or when a hook has
 * discarded the message. When the outcome of a message cannot be known, the client's connection is closed without a reply: a message
 * that comes twice is better than one that is lost. Replies to EHLO and the like are hello.c's.
 */
#ifndef REPLIES_H
#define REPLIES_H

#include "session/talk.h"

/* Octets that the client's leg must have room for before a reply or a command is handled, so that nothing is cut. */
#define REPLIES_ROOM                                                                                                   \
	(TALK_GATHERED + SMTP_EHLO_WRITTEN + SMTP_REPLY_MAX + DIALOGUE_QUEUE_MAX * TALK_LOCAL +                         \
	    DIALOGUE_LMTP_MAX * TALK_REPEATED + 1024)

/* Handle what was read from the server, as far as possible. true: something was handled. */
bool replies_turn(struct session *s);

/* The connection to the server is lost, or useless: do what the session's state demands. reason: static storage. */
void replies_server_lost(struct session *s, const char *reason);

#endif
