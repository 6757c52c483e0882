/* AUTH towards the upstream, for clients that cannot: --upstream-auth. */
#ifndef UPSTREAMAUTH_H
#define UPSTREAMAUTH_H

#include "session/state.h"

enum upstreamauth_status {
	UPSTREAMAUTH_NOT_DUE, /* there is no password for this server, or it has let us in already */
	UPSTREAMAUTH_GOES_ON, /* a reply is awaited: upstreamauth_answered() */
	UPSTREAMAUTH_LET_IN,
	UPSTREAMAUTH_NO_TLS, /* it cannot be said without TLS, RFC 4954 9 */
	UPSTREAMAUTH_REFUSED
};

/* Why the server cannot be used. */
struct upstreamauth_refusal {
	const char *enhanced, *reason; /* static storage */
	char more[200];		       /* for a record; "": nothing */
};

/* Whether --upstream-auth has a password for this server; then there must be TLS. */
bool upstreamauth_is_due(const struct session *s);

/* The server's list is in, and TLS is as it will stay: begin, if it is due and was not said. *refusal is filled for NO_TLS and
 * REFUSED. RFC 4616, and AUTH LOGIN. */
enum upstreamauth_status upstreamauth_begin(struct session *s, struct upstreamauth_refusal *refusal);

/* The server's reply, of which this is the last line. */
enum upstreamauth_status upstreamauth_answered(struct session *s, const struct dialogue_reply *r,
    struct upstreamauth_refusal *refusal);

/* The connection is new, or begins anew: nothing was said on it. */
void upstreamauth_forget(struct session *s);

#endif
