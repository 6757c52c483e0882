/* --connect-on recipient: the routes of a session, of its mail, and of the recipient that is asked about. */
#ifndef ROUTING_H
#define ROUTING_H

#include "io/routes.h"
#include "session/state.h"

/* Storage that few sessions touch, and values that are not zero: once, before all else. */
void routing_prepare(struct session *s);

/* Each of them begins as what is known before verdicts change it: the session's as the server's route, its mail's as the session's, the
 * recipient's as the mail's. */
void routing_begin_session(struct session *s);
void routing_begin_mail(struct session *s);
void routing_begin_recipient(struct session *s);

/* The route that a verdict at this event bears on; and, for MAIL and RCPT, what the verdict makes of it. */
const struct route *routing_of(const struct session *s, enum hook_event event);
void routing_set(struct session *s, enum hook_event event, const struct route *r);

/* What --routes has for the held recipient, into the route that is wanted for it. ROUTES_FAILED: why, cut to cap octets. */
enum routes_result routing_find(struct session *s, char *why, size_t cap);

#endif
