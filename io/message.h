/* A whole message in a memory file (memfd_create(2)): filled piece by piece, sealed, edited, read. Content is as RFC 5322
 * has it: CR LF line ends, no stuffed dots. Nothing is kept in the process but the descriptor and buffers for small
 * pieces and messages. A sealed file can be handed to hooks as it is: none can change it.
 */
#ifndef MESSAGE_H
#define MESSAGE_H

#include "pure/verdict.h"

struct message {
	int fd; /* -1: none */
	uint64_t size;
	const unsigned char *bytes; /* sealed: all of it, until it is dropped */
	unsigned char *buffer;	    /* for its small pieces; it is read there if there are no others */
	bool mapped;		    /* bytes are the file's own pages */
	bool failed;		    /* the kernel had no memory for it, or the file system no room */
};

/* Begin a new one; *m must be empty (fd -1). At most two are there at a time, and only the one begun last is filled. */
void message_begin(struct message *m);

/* Add n octets. What fails is told by message_seal(). */
void message_add(struct message *m, const void *bytes, size_t n);

/* It is whole: from now on it can be read, and not be written by anybody. false: there is no room, errno says why. */
bool message_seal(struct message *m);

/* Forget it. */
void message_drop(struct message *m);

/* Apply the add-header and remove-header lines of a verdict of n octets, which verdict_next() has found good, in their
 * order. *m becomes the edited message, sealed; its content is copied once. false as for message_seal(). */
bool message_edit(struct message *m, const unsigned char *verdict, size_t n);

#endif
