/* The server of a session: where it is, the connection, TLS on it, and which one is tried next. */
#ifndef SERVER_H
#define SERVER_H

#include "session/state.h"

#include <poll.h>

/* Storage that few sessions touch, and values that are not zero: once, before all else. */
void server_prepare(struct session *s);

/* Find out how the connection came here. false: the session has ended over it. */
bool server_locate(struct session *s);

/* Where to from here on. */
void server_take_route(struct session *s, const struct route *r);

/* Connect to the first server of the route, or the next that can be had. With --connect-on recipient news follow. */
void server_connect(struct session *s);

/* --connect-on recipient: the same, away from the server that there is. */
void server_open(struct session *s);

/* SERVER_RESOLVING: go on; what to poll, at most LOOKUP_POLLED descriptors (returns how many); when there is something to do
 * though nothing comes. */
void server_turn(struct session *s);
unsigned server_watch(const struct session *s, struct pollfd *p);
int64_t server_deadline(const struct session *s);

/* The connection attempt has an outcome (poll(2) says so). */
void server_connected(struct session *s);

/* Begin the TLS handshake. */
void server_start_handshake(struct session *s);

/* Octets of the handshake went in or out. true: TLS after STARTTLS is there, and EHLO comes next. */
bool server_handshake(struct session *s);

/* TLS failed or is not offered. reason: static storage. */
void server_tls_failed(struct session *s, const char *reason);

/* Whether STARTTLS is wanted from this server; and whether there is no session without TLS. A password must not cross the network in
 * the clear, whatever --tls is. */
bool server_wants_tls(const struct session *s);
bool server_needs_tls(const struct session *s);

/* Ask for TLS: STARTTLS, RFC 3207. */
void server_starttls(struct session *s);

/* The server refused STARTTLS: it goes on in plain. */
void server_goes_plain(struct session *s);

/* The server has no TLS, and is of no use without. */
void server_lacks_tls(struct session *s);

/* The name that its certificate is to have; NULL: none is known. */
const char *server_tls_name(const struct session *s);

/* Its banner is in, and was 220 or not. */
void server_note_banner(struct session *s, bool refused);

/* Whether another candidate may be tried. */
bool server_has_more(const struct session *s);

/* The client was shown AUTH of this server; its password went there. See enum server_auth. */
void server_auth_listed(struct session *s);
void server_auth_said(struct session *s);

/* The server cannot be reached or used: try the next, or tell the client. reason: is copied. */
void server_failed(struct session *s, const char *enhanced, const char *reason);

/* The server cannot be used for this session: 451 to the client's EHLO or HELO, 421 with `later` to all after it; with
 * --connect-on recipient news for its RCPT. */
void server_unusable(struct session *s, const char *enhanced, const char *reason, const char *later);

/* There is no way to a server that can be trusted: tell the client, "4.7.0 text". */
void server_refuse(struct session *s, const char *enhanced_and_reason);

/* Leave the server, with QUIT if it can be said at once. */
void server_leave(struct session *s);

/* Leave the server without a word: SERVER_GONE, or SERVER_NONE where there may be another. */
void server_close(struct session *s);

/* A server that is no longer there is not to stand in the records of what comes next. */
void server_forget_gone(struct session *s);

/* What it has come to; it is news once. */
enum server_news server_take_news(struct session *s);

#endif
