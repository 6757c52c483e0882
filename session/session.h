/* One proxied connection. session.c has the poll loop, the clock and the end; upstream.c finds, connects and greets the
 * server; relay.c carries commands, replies and messages between the two; secure.c has TLS towards the client; late.c
 * chooses a server for each message; keep.c keeps messages until they are whole; checks.c looks at clients and recipients;
 * filter.c runs hooks and knows what their verdicts do; identity.c is told, and tells, who the client is; login.c says AUTH for
 * clients that cannot. The struct is theirs together.
 */
#ifndef SESSION_H
#define SESSION_H

#include "session/checks.h"
#include "pure/dialogue.h"
#include "hooks.h"
#include "session/leg.h"
#include "io/log.h"
#include "io/lookup.h"
#include "io/net.h"
#include "pure/options.h"
#include "session/record.h"
#include "io/routes.h"

#include <signal.h>

enum session_server {
	SERVER_NONE, /* not yet, or no more but there may be another */
	SERVER_RESOLVING, /* its name is looked up */
	SERVER_CONNECTING,
	SERVER_HANDSHAKE, /* of TLS */
	SERVER_OPEN,
	SERVER_GONE /* for good */
};

/* What is under way before the client is listened to again. */
enum session_stage {
	STAGE_NONE,
	STAGE_CHECKS, /* at connect: lists are asked, the greeting is delayed */
	STAGE_REFUSE, /* a refusal of the checks is held back until tarpit_until */
	STAGE_TARPIT, /* the answer that hooks have decided on is */
	STAGE_HOOKS,  /* hooks decide */
	STAGE_OPEN,   /* late: a server for the held RCPT, up to its reply to MAIL; or for EHLO, see `asking` */
	STAGE_FORWARD, /* XFORWARD was sent ahead of the held MAIL */
	STAGE_ASK,    /* DATA was sent for a message that was kept: its 354 is awaited */
	STAGE_SEND,   /* that message is being sent */
	STAGE_STARTTLS, /* the client has asked for TLS: until it is there, nothing more may come from it */
	STAGE_SHAKE,  /* handshake with the client */
	STAGE_TUNNEL  /* STARTTLS was passed through: octets go both ways unread, until the end */
};

/* Where the client's EHLO or HELO stands: smtpwarp says it again to the server, perhaps twice. */
enum session_greet {
	GREET_NONE,
	GREET_PLAIN,	/* EHLO sent (or LHLO, here and below), STARTTLS may follow */
	GREET_STARTTLS, /* STARTTLS sent, or handshake under way */
	GREET_AGAIN,	/* EHLO sent inside TLS */
	GREET_XCLIENT,	/* XCLIENT sent */
	GREET_INTRODUCED, /* EHLO sent after XCLIENT */
	GREET_AUTH,	/* AUTH sent, or what answers a 334 */
	GREET_HELO	/* HELO sent */
};

#define SESSION_CANDIDATES LOOKUP_MAX
#define HELD_MAX (32 << 10)

/* Where to, from where, and how: options, as verdicts changed them. */
struct route {
	struct upstream upstream; /* host "": --upstream, or the original destination */
	union net_address source4, source6; /* AF_UNSPEC: none was asked for */
	enum tls_level tls;
	bool tls_given;	    /* by a verdict, so that --routes has no say */
	char tls_name[256]; /* "": none given */
	char others[256];   /* servers to try after upstream, separated by blanks or commas */
};

/* The command that waits for hooks or a server. cmd leads into line. */
struct session_held {
	struct smtp_command cmd;
	size_t original_len; /* a rewritten recipient: what the client said */
	unsigned char original[SMTP_AUTH_LINE_MAX];
	unsigned char line[SMTP_AUTH_LINE_MAX + 16];
};

enum filter_word { FILTER_ACCEPT, FILTER_REFUSE, FILTER_CLOSE, FILTER_DISCARD };

/* What the hooks of an event decided; code to text: of a reply. */
struct filter_outcome {
	enum filter_word word;
	int code;
	uint16_t enhanced[3];
	size_t text_len;
	unsigned char text[SMTP_WRAP_TEXT];
};

/* Texts that few sessions need, apart from what all of them use. */
struct session_texts {
	struct route of_session, of_mail, wanted; /* late: for this sender, and for this recipient */
	struct route home;	      /* late: of the connection that AUTH was said on */
	struct route unreachable;     /* where this transaction could not be brought, and why */
	char unreachable_why[320];    /* "": no such place yet */
	struct upstream other; /* the one of route.others that is tried */
	struct record_notes notes;
	char failure[256];	/* of the last attempt to reach a server: enhanced code and reason */
	char gone[320];		/* reply to what comes after SERVER_GONE */
	char ehlo_refusal[560];	/* the server's 5xx to EHLO, while HELO is tried */
	char drained[560];	/* reply to a message that is drained */
	unsigned char helo[SMTP_HOST_MAX]; /* the name before the one that hooks decide on, and how it was said */
	size_t helo_len;
	enum smtp_verb greet_verb;
};

/* Times are CLOCK_MONOTONIC in microseconds; 0: not yet. */
struct session {
	const struct options *o;
	const struct hook_list *hooks;
	const volatile sig_atomic_t *terminated;
	struct leg client, server;
	struct record_view view;
	struct record_times times;
	struct record_totals totals;
	struct tls_facts facts, client_facts;
	int64_t now, started;

	/* the server: who, and how far */
	enum session_server state;
	enum session_stage stage;
	bool late;  /* connected when sender and recipient are known */
	bool bound; /* late: the server has accepted this transaction's MAIL */
	bool reused; /* late: the held RCPT goes over a connection that was there already */
	bool asking; /* late: the client's EHLO waits for the server's list, --auth */
	bool for_auth;	 /* late: this connection's server is the one that AUTH goes to, and no other */
	bool auth_said;	 /* late: it has: without this connection there is no session */
	enum session_greet greet;
	enum smtp_verb greet_verb; /* what the client said: EHLO, HELO or LHLO */
	enum net_origin origin;
	struct route route;
	struct net_outbound outbound;
	union net_address local, source, original, candidate[SESSION_CANDIDATES]; /* source: our end towards it */
	union net_address peer;	   /* the other end of the client's socket: the client, or a proxy before us */
	union net_address reached; /* where a PROXY header says that the client connected to; AF_UNSPEC: none does */
	unsigned forward;	   /* attributes that the server takes by XFORWARD, see identity.c */
	unsigned untold;	   /* those left for the next XCLIENT or XFORWARD command */
	size_t candidates, next_candidate;
	unsigned next_upstream;
	const struct upstream *upstream; /* NULL: the original destination */
	int claim;			 /* see net_claim() */
	bool redialing;			 /* on a fresh connection, after TLS failed */
	bool no_tls;			 /* it failed: plain this time */
	bool refused;			 /* its greeting was no 220 */
	bool authenticated;		 /* by --upstream-auth */
	unsigned char auth_words;	 /* of user and password, those that LOGIN has still to be told; 0: PLAIN */
	bool teased;			 /* the client has been told the first line of a greeting */
	bool name_due;			 /* XCLIENT, or what comes before MAIL, waits for the client's host name */

	/* the message */
	struct message message; /* kept here for hooks, or until its length is known */
	bool keeping;	   /* what comes in belongs to it */
	const char *spoiled; /* reply to give at its end; NULL: it is good so far */
	uint64_t sent;	   /* octets of it that went to the server */
	bool chunked;	   /* by BDAT */
	size_t held_reply; /* octets of the reply whose lines are coming in */
	bool early;	   /* the server replied before it had all of the message */
	bool drain;	   /* the client's message is read to its end, but goes nowhere */

	/* the end */
	bool closing; /* after the replies that are due */
	bool quit;    /* the client's QUIT went to the server */
	bool shut;    /* and so did the end of what it has to say */
	bool ending;
	bool linger; /* read on for a moment, so that a last reply is not lost to a reset */
	bool silent; /* drop the client without a word: the outcome of its message is not known */

	/* clock */
	int64_t dialed_at, connected_at, handshake_at, shake_at, awaiting_since, active_at, partial_since, client_read_at,
	    client_moved_at, server_moved_at, content_at, mail_at, rcpt_at, sent_at, end_at, terminated_at, tarpit_until;
	uint64_t handled;      /* units of either side's bytes; a turn goes on while this grows */
	bool client_starved, server_starved; /* nothing complete was left of what it sent */
	bool auth_seen;	       /* what looks like an unknown command may be a secret */
	uint64_t content_from; /* octets received when the message began */
	uint64_t awaited_reply; /* replies seen before the one that is awaited */
	uint64_t replies;	/* whole replies of the server's */
	bool awaiting;

	char host[256];	     /* what replies call the server */
	struct session_texts *text;
	struct session_held *held;
	unsigned char helo[SMTP_HOST_MAX];
	struct dialogue dialogue; /* it ends with what is large */
};

/* Serve the connected socket fd until its end. SIGTERM must be blocked, and its handler count in *terminated: it ends
 * the session after the message that is under way, or --drain-timeout; a second one at once. Only the reply to a whole
 * message is always waited for. SIGPIPE must be ignored, SIGCHLD blocked and caught: hooks are run. */
void session_run(int fd, const struct options *o, const struct hook_list *hooks, const volatile sig_atomic_t *terminated);

/* ---- session.c, for its two rooms ---- */

/* A reply of ours, a line without CRLF. */
void session_reply(struct session *s, const char *reply);

/* The same, put together as printf(3) does; cut to 500 octets. */
void session_replyf(struct session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The session is over: who ended it, and why (static storage, or of the session). Only the first call counts. */
void session_end(struct session *s, const char *by, const char *reason);

/* Look at the clock again, after something that took time. */
void session_tick(struct session *s);

/* A "comm" record, when asked for. */
void session_comm(struct session *s, const char *direction, const void *bytes, size_t n);

/* The checks at connect have let the client in: hooks are next, then the server. */
void session_checked(struct session *s);

int64_t clock_us(void);
void local_replies(struct session *s);
void hold_line(struct session *s, const struct dialogue_reply *r, bool for_client);
void reply_wrapped(struct session *s, int code, const uint16_t enhanced[3], const unsigned char *text, size_t n);
void log_command(struct session *s, const struct smtp_command *cmd, const char *direction);
void note_refused(struct session *s, int code, const uint16_t enhanced[3], const unsigned char *text, size_t n);
void count_refusal(struct session *s, const char *reply, bool fatal);
void send_command(struct session *s, const struct smtp_command *cmd);
void note_sent(struct session *s, enum smtp_verb verb);
bool same_route(const struct route *a, const struct route *b);
const char *take_line(const struct routes_line *line, void *route);

/* ---- checks.c ---- */

#define CHECKS_POLLED OPTIONS_DNSBL_MAX

/* Check the client: session_checked() is called, perhaps at once, or the client is refused. */
void checks_start(struct session *s);

/* In STAGE_CHECKS: go on; what to poll, at most CHECKS_POLLED descriptors (returns how many); when there is something to do
 * though nothing comes. */
void checks_turn(struct session *s);
unsigned checks_watch(const struct session *s, struct pollfd *p);
int64_t checks_deadline(const struct session *s);

/* With --greet-delay, before the greeting's last line: whether the client has not waited for it, and is refused now. */
bool checks_too_early(struct session *s);

/* Whether this RCPT is for one of --valid-recipients. If not: refuse it, once it is held, perhaps in a while. */
bool checks_recipient(const struct session *s, const struct smtp_command *cmd);
void checks_refuse_recipient(struct session *s);

/* Hold the client back in this stage, STAGE_REFUSE or STAGE_TARPIT, for a time, or until it closes its side. false: it is not to be
 * held, as 0 says, or because --max-tarpits are. */
bool checks_hold(struct session *s, enum session_stage stage, int64_t time);

/* It is held no more. */
void checks_release(void);

/* STAGE_REFUSE is over. */
void checks_tarpit_over(struct session *s);

/* ---- secure.c ---- */

/* Whether this is a STARTTLS that smtpwarp itself answers, and not the upstream. */
bool secure_is_ours(const struct session *s, enum smtp_verb verb);

/* Whether the client's list of extensions has STARTTLS. */
bool secure_offers(const struct session *s);

/* TLS from the first octet, RFC 8314 3.3; checks_start() follows. */
void secure_begin(struct session *s);

/* STAGE_STARTTLS, STAGE_SHAKE: go on as far as can be. */
void secure_turn(struct session *s);

/* The handshake with the client has failed. reason: static storage. */
void secure_failed(struct session *s, const char *reason);

/* The upstream's last line to a STARTTLS that was passed through. false: somebody tampers with it, the session is over. */
bool secure_answered(struct session *s, int code);

/* STAGE_TUNNEL: octets from each side to the other; and then, once they are sent, the end of either side. */
void secure_carry(struct session *s);
void secure_carry_ends(struct session *s);

/* ---- upstream.c ---- */

/* Find out how the connection came here. false: the session has ended over it. */
bool upstream_locate(struct session *s);

/* What smtpwarp calls itself, --hostname. */
const char *upstream_own_name(const struct session *s);

/* Connect, or, when late, greet the client in our own name. */
void upstream_start(struct session *s);

/* Late: reach the server of s->route; late_server_ready() or late_unreachable() follows. */
void upstream_open(struct session *s);

/* Late: leave the server, politely if it can be done at once. */
void upstream_leave(struct session *s);

/* Parts of a route from text, as options and verdicts give them. false: it is none. */
bool route_source(struct route *r, const char *text);
bool route_upstream(struct route *r, const char *text);

/* The nth server of a route, from 0 on. NULL: there is none; *u is where it may be put. host "": it cannot be read. */
const struct upstream *route_server(const struct route *r, unsigned n, struct upstream *u);

/* In SERVER_RESOLVING: go on; what to poll, at most LOOKUP_POLLED descriptors (returns how many); when there is something to do
 * though nothing comes. */
void upstream_look(struct session *s);
unsigned upstream_watch(const struct session *s, struct pollfd *p);
int64_t upstream_deadline(const struct session *s);

/* The connection attempt has an outcome (poll says so). */
void upstream_connected(struct session *s);

/* Bytes of a handshake went in or out. */
void upstream_handshake(struct session *s);

/* Leave the server for good: SERVER_GONE. */
void upstream_close(struct session *s);

/* The server cannot be reached or used: try the next, or tell the client. reason: is copied. */
void upstream_failed(struct session *s, const char *enhanced, const char *reason);

/* The server cannot be used for this session: 451 to the client's EHLO or HELO, 421 with `later` to all after it; or to
 * RCPT, when late. */
void upstream_unusable(struct session *s, const char *enhanced, const char *reason, const char *later);

/* The client said EHLO or HELO with this name; upstream_greet() goes on with it. Hooks that decide on it are to see it first;
 * when they refuse it all is as before, RFC 5321 4.1.4. */
void upstream_try_name(struct session *s, const struct smtp_command *cmd);
void upstream_keep_name(struct session *s);
void upstream_greet(struct session *s, const struct smtp_command *cmd);

/* A reply to greeting, EHLO, HELO, STARTTLS or XCLIENT. */
void upstream_reply(struct session *s, const struct dialogue_reply *r);

/* TLS failed or is not offered. */
void upstream_tls_failed(struct session *s, const char *reason);

/* ---- login.c ---- */

/* Whether --upstream-auth has something to say to this server; then there must be TLS. */
bool login_is_due(const struct session *s);

/* The server's list is in, and TLS is as it will stay: begin to say it, if it is due and was not said. true: GREET_AUTH lasts
 * until login_answered() has got the last reply; or it cannot be said, and the client has been told. */
bool login_begin(struct session *s);

/* The server's reply. true: it has let smtpwarp in. */
bool login_answered(struct session *s, const struct dialogue_reply *r);

/* ---- relay.c ---- */

/* Handle what the client has said as far as possible. */
void relay_client(struct session *s);

/* Handle what the server has said as far as possible. */
void relay_server(struct session *s);

/* The server is gone though we still needed it. reason: static storage. */
void relay_server_lost(struct session *s, const char *reason);

/* The server's reply, of which this is the last line, goes to the client. */
void relay_pass(struct session *s, const struct dialogue_reply *r);

/* Hooks have decided on what they were run for. */
void relay_filtered(struct session *s, enum hook_event event, const struct filter_outcome *outcome);

/* RCPT TO with another address instead of the held one: parsed into *cmd (static storage). false: it is none. */
bool relay_rewritten(const struct session *s, const unsigned char *address, size_t n, struct smtp_command *cmd);
bool relay_rewrite(struct session *s, const unsigned char *address, size_t n);

/* Refuse the held RCPT, whose recipient there is not: a bad command, of which there may be too many. */
void relay_refuse_recipient(struct session *s, const char *reply);

/* Keep a command until more is known: s->held->cmd is a copy of it. Then send it, or refuse this RCPT with a reply of ours. */
void relay_hold(struct session *s, const struct smtp_command *cmd);
void relay_send_held(struct session *s);
void relay_refuse_held(struct session *s, const char *reply);

/* Send a command of ours, a line without CRLF. */
void relay_own_command(struct session *s, enum smtp_verb verb, const char *line, size_t n);

/* End the transaction, if there is one, and write its record. result NULL: as the replies have it. */
void relay_end_transaction(struct session *s, const char *result);

/* A client that speaks LMTP has been given one reply to its message: give it those to its other recipients as well. reply: a
 * line without CRLF; NULL: what has decided the transaction. */
void relay_repeat(struct session *s, const char *reply);

/* Octets of a message come next from the client. */
void relay_begin_octets(struct session *s);

/* Why the message that comes in by DATA cannot go on, as far as it is known: a reply; NULL: it can. */
const char *relay_fault(const struct session *s);

/* Whether the whole message was sent and its reply is awaited: what became of it is not known yet. */
bool relay_outcome_due(const struct session *s);

/* ---- late.c ---- */

/* For lines of --routes, a routes_judge that looks at one on its own. arg: the options. */
const char *late_check_line(const struct routes_line *line, void *arg);

/* A MAIL or RCPT comes: what verdicts on it change begins as it is without. */
void late_prepare_route(struct session *s, enum smtp_verb verb);

/* A command that is answered here as long as no server has a say. false: it goes on to the server. */
bool late_command(struct session *s, const struct smtp_command *cmd);

/* The server of the held RCPT has been greeted; has taken XFORWARD; has answered MAIL; or (code, text) why there is none. */
void late_server_ready(struct session *s);
void late_send_mail(struct session *s);
void late_mail_answered(struct session *s, const struct dialogue_reply *r);
void late_unreachable(struct session *s, int code, const char *text);

/* Late: the connection that AUTH was said on is no more; what the client has said is refused with this 421. by: see
 * session_end(). */
void late_end(struct session *s, const char *by, const char *reply);

/* Late or not: take the message back from the server, if it has heard of one. RSET, RFC 5321 4.1.1.5. */
void late_reset_server(struct session *s);

/* ---- keep.c ---- */

/* Whether this DATA or BDAT brings a message that is kept, and the reply that lets it come. */
bool keep_wants(const struct session *s, const struct smtp_command *cmd);
void keep_begin(struct session *s, const struct smtp_command *cmd);

void keep_piece(struct session *s, const struct smtp_piece *piece);

/* Whether all of a kept message is here, and not yet with the server. */
bool keep_is_whole(const struct session *s);

/* It may go on to the server; or it stays here, its reply given: result as for relay_end_transaction(). */
void keep_pass(struct session *s);
void keep_end(struct session *s, const char *result);

/* The server's reply to its DATA. */
void keep_data_answered(struct session *s, const struct dialogue_reply *r);

/* Send more of it, as far as the server takes it. */
void keep_send(struct session *s);

/* ---- identity.c ---- */

/* First of all: read the PROXY header, if the connection is from one of --accept-proxy; then the client is whom it names.
 * Waits for it. NULL, or why the session must end without a word (static storage); client.eof: the peer left at once. */
const char *identity_accept(struct session *s);

/* The client is known: ask for its host name, if anybody is to be told. */
void identity_ask(struct session *s);

/* Until there is an answer: go on, and with it tell what waits for it; what to poll, at most one descriptor (returns how many);
 * when there is something to do though nothing comes. */
void identity_turn(struct session *s);
unsigned identity_watch(const struct session *s, struct pollfd *p);
int64_t identity_deadline(void);

/* --send-proxy: the connection to the server is new. */
void identity_send_proxy(struct session *s);

/* The server's list is in: note what it wants to know by XFORWARD; begin to tell it by XCLIENT who the client is. false: it
 * does not want to know. */
bool identity_introduce(struct session *s);

/* More has to be told by XCLIENT, and is on its way. */
bool identity_more(struct session *s);

/* Tell the server of the client by XFORWARD, before MAIL. false: nothing is to be told, nor waited for. Else STAGE_FORWARD (or
 * still STAGE_OPEN) lasts until identity_forwarded() has got the last reply, when MAIL is sent. */
bool identity_forward(struct session *s);
void identity_forwarded(struct session *s, const struct dialogue_reply *r);

/* The field to put on top of a message: octets at *trace, which stays until the next call; 0 without --received. RFC 5321 4.4. */
size_t identity_trace(const struct session *s, const char **trace);

/* Send it, ahead of a message. */
void identity_send_trace(struct session *s);

/* ---- filter.c ---- */

#define FILTER_POLLED (HOOK_POLLED * (1 + LOG_STREAMS_MAX))

/* Start `log` hooks; before the first record. */
void filter_begin(struct session *s);

bool filter_wants(const struct session *s, enum hook_event event);

/* Run the hooks of an event: s->stage is STAGE_HOOKS until relay_filtered() is called, perhaps at once. */
void filter_run(struct session *s, enum hook_event event);

/* Whatever the hooks that run have to say or to take. */
void filter_turn(struct session *s);

/* Descriptors to poll, at most FILTER_POLLED; returns how many. */
unsigned filter_watch(const struct session *s, struct pollfd *p);

/* In STAGE_HOOKS: when the hook that runs must have ended, and that it has not. */
int64_t filter_deadline(const struct session *s);
void filter_overdue(struct session *s);

void filter_tarpit_over(struct session *s);

/* The outcome of a filter that fails when --hook-failure is defer. */
void filter_out_of_order(struct filter_outcome *o);

/* The session ends: no verdict is waited for any more. */
void filter_abort(struct session *s);

/* The client is gone and the last record written: run `close` hooks, let `log` hooks read to their end. */
void filter_end(struct session *s);

#endif
