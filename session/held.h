/* The held command, which waits for hooks or for a server; sending commands on to the server; and their "comm" records.
 *
 * Invariants: one command is held at a time; held->cmd leads into held->line. What follows when the wait is over is decided in steps.c
 * and commands.c.
 */
#ifndef HELD_H
#define HELD_H

#include "session/record.h"
#include "session/state.h"

/* Give the part its storage. Call it once, first of all. */
void held_prepare(struct session *s);

/* Hold a command: s->held->cmd becomes a copy of it. Does nothing if cmd is the held command itself. */
void held_put(struct session *s, const struct smtp_command *cmd);

/* Parse the held RCPT with this address of n octets in place of its own. *cmd leads into static storage. false: it is no address, or too
 * long. */
bool held_rewritten(const struct session *s, const unsigned char *address, size_t n, struct smtp_command *cmd);

/* Give the held RCPT this address, and note the client's own for the record. false: as for held_rewritten(), and nothing has changed. */
bool held_rewrite(struct session *s, const unsigned char *address, size_t n);

/* Overwrite the held command, which may have a password: it is none any more. */
void held_wipe(struct session *s);

/* Send the held command to the server. */
void held_send(struct session *s);

/* Refuse the held RCPT with a reply of ours, "451 4.3.5 text", and note that for the record. */
void held_refuse(struct session *s, const char *reply);

/* The same for an unknown recipient, which counts towards --max-errors. */
void held_refuse_recipient(struct session *s, const char *reply);

/* This reply to the client has refused the held MAIL or RCPT: note it for the record, with the client's own recipient if it was rewritten. */
void held_note_reply(struct session *s, const struct smtp_line *line);

/* The reply of a hook has refused the held MAIL or RCPT: note it for the record. text: n octets, without code and enhanced code; at most 400
 * of them are noted. */
void held_note_by_hook(struct session *s, int code, const uint16_t enhanced[3], const unsigned char *text, size_t n);

/* Write a parameter of MAIL, len octets, with a blank before it: SIZE= is never less than what follows (RFC 1870 6.3). It is left out when data
 * hooks may edit the message, and counts what --received puts in front. Returns octets, at most len + 24. */
size_t held_write_param(const struct session *s, const struct smtp_param *p, size_t len, unsigned char *out);

/* Send this command of the client's to the server, its SIZE= as above, and expect its reply. With --received the first BDAT gets the Received
 * field. */
void held_send_command(struct session *s, const struct smtp_command *cmd);

/* A "comm" record of a command of the client's, without its secrets. */
void held_comm(struct session *s, const struct smtp_command *cmd, enum record_direction direction);

#endif
