/* What the server refuses, and why: the class of each refusal, pure/replyclass.h, by the rules of --reply-rules.
 *
 * Only what a server says has a class; a refusal of ours or of a hook is no evidence of how that server treats us. Where a refusal
 * belongs to a recipient or decides a message, pure/dialogue.h keeps the class beside the code.
 */
#ifndef REFUSAL_H
#define REFUSAL_H

#include "session/state.h"

/* Give the part its storage. Call it once, first of all. */
void refusal_prepare(struct session *s);

/* *r is the last line of a reply of the server's, and the lines before it are gathered: see talk_gather(). Unless it is a refusal of a
 * greeting, of EHLO, HELO, LHLO or STARTTLS, or of a mail transaction, this has no effect. A "refusal" record follows where no other
 * record will tell of it. */
void refusal_note(struct session *s, const struct dialogue_reply *r);

/* The same for a reply in the middle of a message, of which only this last line counts. */
void refusal_note_early(struct session *s, const struct dialogue_reply *r);

/* The client gets the noted refusal later, as the reply to this command: SMTP_RCPT, or SMTP_DATA for the message. */
void refusal_passed_on(struct session *s, enum smtp_verb verb);

/* The message that was refused early has come to its end: the refusal has decided it. No effect on any other message. */
void refusal_early_decided(struct session *s);

#endif
