/* What becomes of what the server says.
 *
 * What is promised here: a client hears 250 for a message only as the server's own reply to all of it. When what became of a message
 * cannot be known, the client's connection is dropped without a word: a message that comes twice is better than one that is lost.
 */
#ifndef REPLIES_H
#define REPLIES_H

#include "session/talk.h"

/* Octets that the client's leg must have room for before a reply or command is handled, so that nothing is ever cut. */
#define REPLIES_ROOM                                                                                                   \
	(TALK_GATHERED + SMTP_EHLO_WRITTEN + SMTP_REPLY_MAX + DIALOGUE_QUEUE_MAX * TALK_LOCAL +                         \
	    DIALOGUE_LMTP_MAX * TALK_REPEATED + 1024)

/* Handle what the server has said as far as possible. true: something was handled. */
bool replies_turn(struct session *s);

/* The server is gone though we still needed it. reason: static storage. */
void replies_server_lost(struct session *s, const char *reason);

#endif
