/* Where the Received field of --received stands: above the header of a message, RFC 5321 4.4, but below the line by which a mailbox's file
 * separates messages (message_separator()), if a client sends that. It is known only once that line is whole, so its first octets wait here.
 */
#ifndef TRACE_H
#define TRACE_H

#include "session/state.h"

#define TRACE_ROOM 4096 /* octets that trace_pass() may send beyond those that it is given */

/* A message begins: note its field. Returns the octets of the field, 0 without --received. */
size_t trace_begin(struct session *s);

/* Send the server the next n octets of the message, or of its first chunk, and the field where it belongs. end: no more follow. */
void trace_pass(struct session *s, const unsigned char *bytes, size_t n, bool end);

/* A whole message is about to be sent: send the field, after what stands above it. Returns the octets of the message sent so. */
size_t trace_send(struct session *s, const struct message *m);

/* The server gets no more of the message. */
void trace_forget(struct session *s);

#endif
