/* --connect-on recipient: the routes of the session, of its transaction and of the held recipient. Each begins as a copy of the one
 * before it; verdicts on MAIL and RCPT change it, and --routes has a say for the recipient.
 *
 * The route of a connection is in server.route; a route from text is pure/route.c's, the file of --routes io/routes.c's.
 */
#ifndef ROUTING_H
#define ROUTING_H

#include "io/routes.h"
#include "session/state.h"

/* Give the part its storage. Call it once, first of all. */
void routing_prepare(struct session *s);

/* The route of the session begins as server.route, which options and verdicts on connect have set. */
void routing_begin_session(struct session *s);

/* The route of the transaction begins as the session's. */
void routing_begin_mail(struct session *s);

/* The route of the recipient begins as the transaction's. */
void routing_begin_recipient(struct session *s);

/* The route that verdicts at this event change. */
const struct route *routing_of(const struct session *s, enum hook_event event);

/* Replace the route that verdicts on MAIL or RCPT change; *r is copied. */
void routing_set(struct session *s, enum hook_event event, const struct route *r);

/* The nth server of a route, counted from 0, or of --upstream if the route names none; NULL: there are not so many. It may be put into
 * *room. */
const struct upstream *routing_server(const struct session *s, const struct route *r, unsigned n, struct upstream *room);

/* Look the held recipient up in --routes, unless a verdict has named a server, and change its route by what is found. ROUTES_FAILED: *why,
 * of cap octets, says why; ROUTES_FOUND also without --routes. */
enum routes_result routing_find(struct session *s, char *why, size_t cap);

#endif
