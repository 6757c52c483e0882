/* --tlsrpt: how TLS with the servers of a recipient's domain went, for the reports that the domain may want (TLSRPT, RFC 8460). The domain's
 * record is asked for beside everything else, and nothing ever waits for it.
 *
 * Invariants: there is one report at a time, and at most one for each connection: of the domain whose recipient it was made for, or came
 * first. A connection that takes another's place because that has failed belongs to the same report, which has the failures of both; but
 * where each server has its own policy to meet, --connect-on recipient, each has its own report.
 * Failures of a domain are reported once in a session, and those of 16 domains at most. TLS that a verdict has chosen is not
 * reported. Without --tlsrpt nothing here is touched.
 */
#ifndef TLSREPORT_H
#define TLSREPORT_H

#include "session/state.h"

#include <poll.h>

#define TLSREPORT_POLLED 1

/* A recipient comes: the record of its domain may be wanted. held: with --connect-on recipient or --tls-on recipient. */
void tlsreport_recipient(struct session *s, const struct smtp_command *cmd);
void tlsreport_held(struct session *s);

/* The held recipient's mail goes over the open connection, if a server takes it; a new connection is about to be made. */
void tlsreport_uses(struct session *s);
void tlsreport_connects(struct session *s);

/* The held recipient was refused because of its domain's policy: what the client was told. */
void tlsreport_refused(struct session *s, const char *reply);

/* TLS with the server has come to this. reason: why it failed, or why its certificate does not verify; NULL: it does. What failed for a fault
 * of ours is not reported. */
void tlsreport_tls(struct session *s, bool failed, const char *reason);

/* Go on as far as possible without waiting; the descriptor to poll, at most TLSREPORT_POLLED (returns how many); when to call
 * tlsreport_turn() though nothing comes in. */
void tlsreport_turn(struct session *s);
unsigned tlsreport_watch(const struct session *s, struct pollfd *p);
int64_t tlsreport_deadline(const struct session *s);

/* From now on the client speaks TLS with the server itself, which is not reported: what came before is. */
void tlsreport_passes(struct session *s);

/* The session is over. */
void tlsreport_end(struct session *s);

#endif
