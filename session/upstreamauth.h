/* --upstream-auth: AUTH with the server in the name of clients that cannot (RFC 4954; PLAIN, RFC 4616; LOGIN).
 *
 * Invariants: a password crosses the network only inside TLS, goes only to whom the file means, and is in no record.
 */
#ifndef UPSTREAMAUTH_H
#define UPSTREAMAUTH_H

#include "session/state.h"

enum upstreamauth_status {
	UPSTREAMAUTH_NOT_DUE, /* there is no password for this server, or it has accepted it already */
	UPSTREAMAUTH_GOES_ON, /* AUTH, or a word of AUTH LOGIN, was sent and awaits its reply */
	UPSTREAMAUTH_LET_IN,  /* the server has accepted the password */
	UPSTREAMAUTH_NO_TLS,  /* there is no TLS, RFC 4954 9 */
	UPSTREAMAUTH_REFUSED  /* the server offers neither mechanism, or has refused the password; or it may be another than is meant */
};

/* Why the server cannot be used. */
struct upstreamauth_refusal {
	const char *enhanced, *reason; /* static storage */
	char more[200];		       /* for a record; "": nothing */
};

/* Whether --upstream-auth has a password for this server: then it must not be used without TLS. */
bool upstreamauth_is_due(const struct session *s);

/* The server's list of extensions is in, and TLS stays as it is: begin AUTH, if it is due. Fills *refusal for UPSTREAMAUTH_NO_TLS and
 * UPSTREAMAUTH_REFUSED. */
enum upstreamauth_status upstreamauth_begin(struct session *s, struct upstreamauth_refusal *refusal);

/* The server's reply to AUTH, or to a word of AUTH LOGIN, is in; *r is its last line. Fills *refusal for UPSTREAMAUTH_REFUSED. */
enum upstreamauth_status upstreamauth_answered(struct session *s, const struct dialogue_reply *r,
    struct upstreamauth_refusal *refusal);

/* The connection is new, or the server has forgotten AUTH (XCLIENT): AUTH is due again. */
void upstreamauth_forget(struct session *s);

#endif
