/* The command that waits for hooks or a server, and sending commands on. */
#ifndef HELD_H
#define HELD_H

#include "session/record.h"
#include "session/state.h"

/* Storage that few sessions touch, and values that are not zero: once, before all else. */
void held_prepare(struct session *s);

/* Keep a command until more is known: s->held->cmd is a copy of it. */
void held_put(struct session *s, const struct smtp_command *cmd);

/* RCPT TO with another address of n octets instead of the held one: parsed into *cmd (static storage). false: it is none. */
bool held_rewritten(const struct session *s, const unsigned char *address, size_t n, struct smtp_command *cmd);
bool held_rewrite(struct session *s, const unsigned char *address, size_t n);

/* Send the held command to the server. */
void held_send(struct session *s);

/* Refuse the held RCPT with a reply of ours, "451 4.3.5 text". */
void held_refuse(struct session *s, const char *reply);

/* The same for an unknown recipient: it counts towards --max-errors. */
void held_refuse_recipient(struct session *s, const char *reply);

/* The held MAIL or RCPT was refused by a reply of ours: note it for the record. text: n octets without code and enhanced code. */
void held_note_refused(struct session *s, int code, const uint16_t enhanced[3], const unsigned char *text, size_t n);

/* Send a command to the server as the client said it. */
void held_send_command(struct session *s, const struct smtp_command *cmd);

/* A "comm" record of a client's command. */
void held_comm(struct session *s, const struct smtp_command *cmd, enum record_direction direction);

#endif
