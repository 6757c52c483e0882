/* A whole message in a memory file (memfd_create(2)): filled piece by piece, sealed, edited, read. The content is as in RFC
 * 5322: CR LF line ends, no stuffed dots. The process keeps only the descriptor, and buffers for small pieces and messages. A
 * sealed file can be given to hooks as it is: nobody can change it.
 */
#ifndef MESSAGE_H
#define MESSAGE_H

#include "pure/verdict.h"

#define MESSAGES_MAX 3 /* at a time: the client's, a hook's in its place, and that with its header edited */

struct message {
	int fd; /* -1: none */
	uint64_t size;
	const unsigned char *bytes; /* all of the message, from message_seal() to message_drop() */
	unsigned char *buffer;	    /* holds small pieces; a small message is read there */
	bool mapped;		    /* bytes is a mapping of the file */
	bool failed;		    /* the kernel had no memory for it */
};

/* Begin a new message; *m must be empty (fd -1). There may be MESSAGES_MAX at a time, message_edit() makes one more for its time; only
 * the one begun last can be added to. */
void message_begin(struct message *m);

/* Add n octets. message_seal() tells of failures. */
void message_add(struct message *m, const void *bytes, size_t n);

/* End the message: from now on it can be read, and nobody can write to it. false: there is no room, errno says why. */
bool message_seal(struct message *m);

/* Open a sealed message for reading: a descriptor at its beginning, with a position that nobody shares; it becomes the caller's.
 * -1: errno says why. */
int message_open(const struct message *m);

/* Whether a sealed message has a CR or LF alone, which cannot be sent by DATA: RFC 5321 2.3.8. */
bool message_has_bare_newline(const struct message *m);

/* Octets of the line "From ...", or ">From ...", that n octets begin with, as a mailbox's file has it before each message (RFC 4155
 * appendix A): some programs send it first of all. It belongs to no field, but the header follows it. 0: there is none, or it is not whole. */
size_t message_separator(const unsigned char *in, size_t n);

/* Forget the message. */
void message_drop(struct message *m);

/* Apply the add-header and remove-header lines of a verdict of n octets in their order; verdict_next() must have accepted them.
 * utf8: new values may have UTF-8 (SMTPUTF8); else it becomes encoded words.
 * *m becomes the edited message, sealed; its content is copied once. Returns as message_seal(). */
bool message_edit(struct message *m, const unsigned char *verdict, size_t n, bool utf8);

#endif
