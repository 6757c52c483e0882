/* What a session observes of the server that it is connected to: whose it is, how long it takes, what it takes and refuses. That is added up
 * here, and goes into the map of --state at the end of each message and of the session; the detectors there say whether the server
 * throttles, is slow or blocks, and a change of that is recorded. No mail is delayed or refused for it. (For what plainafter.h keeps in the
 * same map, it may be.)
 *
 * Refusals by smtpwarp itself and by hooks are no evidence, and are not counted.
 */
#ifndef OBSERVE_H
#define OBSERVE_H

#include "session/mxname.h"
#include "session/state.h"

#define OBSERVE_POLLED MXNAME_POLLED

/* The session begins: from now on until its process ends it counts among those that there are. Call it first of all. */
void observe_begin(struct session *s);

/* A connection to server.address has begun, or could not. */
void observe_server(struct session *s);

/* The client has said this RCPT: the name of its domain's server may be that of ours. */
void observe_recipient(struct session *s, const struct smtp_command *cmd);

/* Of that name: go on; which descriptors to poll, at most OBSERVE_POLLED (returns how many); when to call observe_turn() though nothing comes
 * in. */
void observe_turn(struct session *s);
bool observe_may_ask(const struct session *s); /* whether it is asked for, or may be when a recipient comes */
unsigned observe_watch(const struct session *s, struct pollfd *p);
int64_t observe_deadline(const struct session *s);

/* It cannot be had, for this errno; 0: there is no banner. */
void observe_unreachable(struct session *s, int error);

/* The banner is in, and accepts. */
void observe_banner(struct session *s);

/* TLS of this connection. result: one of STATEMAP_TLS_...; us: how long the handshake took. */
void observe_tls(struct session *s, enum statemap_counter result, int64_t us);

/* The server has refused what session/refusal.h has noted. */
void observe_refusal(struct session *s);

/* A recipient was answered. */
void observe_rcpt(struct session *s);

/* The transaction ends with this result. */
void observe_message(struct session *s, enum transaction_result result);

/* One of smtpwarp's own limits was reached. */
void observe_limit(enum statemap_total limit);

/* A hook of this event has ended. us: how long it took, microseconds. */
void observe_hook(enum hook_event event, const char *name, int64_t us, bool failed);

/* The session is over. */
void observe_end(struct session *s);

#endif
