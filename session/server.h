/* The server of a session: where it is, the connection to it, TLS on that connection, and which server is tried next.
 *
 * Invariants: there is one server at a time; a server that fails is left before the next is tried; SERVER_GONE is final and comes only
 * without --connect-on recipient. Which route leads to the server is for routing.c and filter.c; the states are serverstate.c's; EHLO
 * and what follows it are hello.c's.
 */
#ifndef SERVER_H
#define SERVER_H

#include "session/state.h"

#include <poll.h>

/* The error, and the reply without its code, when octets in the clear follow the server's 220 to STARTTLS. */
#define SERVER_INJECTED "plaintext after the reply to STARTTLS: somebody injected it"
#define SERVER_UNTRUSTED "4.7.0 upstream's reply to STARTTLS is not to be trusted"

/* Give the part its storage, and values that are not zero. Call it once, first of all. */
void server_prepare(struct session *s);

/* --try-hook: there is no socket, and the client meant to go to this address. connected: the session is connected to it. */
void server_assume(struct session *s, const union net_address *address, bool connected);

/* Find the original destination, and set source address and TLS as the options have them. false: the redirect has caught a connection
 * of smtpwarp's own, and the session has ended. */
bool server_locate(struct session *s);

/* Use this route, which is copied, for the next connection. */
void server_take_route(struct session *s, const struct route *r);

/* Connect to the first server of the route that can be reached. If there is none: as server_refuse(). */
void server_connect(struct session *s);

/* --connect-on recipient: leave the present server, then server_connect(). */
void server_open(struct session *s);

/* In SERVER_RESOLVING: go on with the lookup of its name, or of the policy that it has to meet, for which policy.c polls; which descriptors
 * to poll, at most LOOKUP_POLLED (returns how many); when to call server_turn() though nothing comes in (INT64_MAX: never). In other states
 * they have nothing to do. */
void server_turn(struct session *s);
unsigned server_watch(const struct session *s, struct pollfd *p);
int64_t server_deadline(const struct session *s);

/* In SERVER_CONNECTING: poll(2) says that connect(2) is over. Go on to the banner or to TLS, or to the next server. */
void server_connected(struct session *s);

/* Begin the TLS handshake, RFC 5246. */
void server_start_handshake(struct session *s);

/* In SERVER_SHAKE and SERVER_SHAKE_FIRST: look how far the handshake is. true: TLS after STARTTLS is there, and EHLO comes next. */
bool server_handshake(struct session *s);

/* TLS failed or is not offered: go on in plain, try the next server, or tell the client, as --tls and --plain-after demand. reason: static
 * storage. */
void server_tls_failed(struct session *s, const char *reason);

/* Whether to ask this server for STARTTLS. */
bool server_wants_tls(const struct session *s);

/* Whether this server must not be used without TLS: because of --tls, or because --upstream-auth has a password for it. */
bool server_needs_tls(const struct session *s);

/* Send STARTTLS, RFC 3207. */
void server_starttls(struct session *s);

/* The server refused STARTTLS, and may be used in plain: note and record it. refusal: its words. false: not yet, --plain-after, and the client
 * was told. */
bool server_goes_plain(struct session *s, const char *refusal);

/* --tls-on recipient: connect to the same server once more, for TLS as another route wants it. */
void server_again(struct session *s);

/* The server closed the connection at an EHLO that the client had not said: connect again, for the client's HELO alone. */
void server_redial_for_helo(struct session *s);

/* The server has no TLS, and must not be used without: note it, for the reply that follows. */
void server_lacks_tls(struct session *s);

/* The name that the server's certificate must have; NULL: none is known. */
const char *server_tls_name(const struct session *s);

/* The server's banner is in; refused: it was not 220. */
void server_note_banner(struct session *s, bool refused);

/* Whether this session itself connects to no server any more: the dialer does it from now on, or it has one that takes mail and will have no
 * other, or will have none. */
bool server_is_final(const struct session *s);

/* Whether there is another server, or another address of this one, to try. */
bool server_has_more(const struct session *s);

/* The client was shown this server's AUTH: SERVER_AUTH_LISTED, unless it has used it. */
void server_auth_listed(struct session *s);

/* The client's AUTH goes to this server: SERVER_AUTH_SAID. */
void server_auth_said(struct session *s);

/* This server cannot be reached or used: record it, close the connection, and try the next; if there is none, as server_refuse(). If the
 * connection carried the client's AUTH: SERVER_LOST. enhanced: "4.4.1"; reason: is copied, cut to 140 octets. */
void server_failed(struct session *s, const char *enhanced, const char *reason);

/* The same, because connecting or the banner has taken too long. */
void server_timed_out(struct session *s, const char *reason);

/* No server of this session can be used: close the connection, and reply 451 to the client's EHLO or HELO, 421 with `later` to all
 * commands after it. With --connect-on recipient: as server_refuse(). */
void server_unusable(struct session *s, const char *enhanced, const char *reason, const char *later);

/* There is no server for the client: 421 with this text ("4.7.0 reason"; static storage, or of the session), and the session ends. With
 * --connect-on recipient SERVER_OUT, except while EHLO waits in GATE_LIST. */
void server_refuse(struct session *s, const char *enhanced_and_reason);

/* Send QUIT if that can be done at once (RFC 5321 4.1.1.10): the server owes no reply, and is in the middle of no message. Nothing but
 * server_close() may follow. */
void server_quit(struct session *s);

/* Leave the server: server_quit() and server_close(). */
void server_leave(struct session *s);

/* Close the connection without QUIT: SERVER_GONE, or with --connect-on recipient SERVER_NONE. */
void server_close(struct session *s);

/* In SERVER_NONE: forget the address of the last server, so that records no longer have it. */
void server_forget_gone(struct session *s);

/* Take what has happened to the server; the next call gets SERVER_NO_NEWS. */
enum server_news server_take_news(struct session *s);

#endif
