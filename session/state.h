/* The state of one session, in parts. Types only, no functions: the comment behind each member of struct session names the file that
 * writes it, and the functions that do so are in the header of that name. Every file of session/ may read every part.
 *
 * Invariants: each part has one writer. Each of the three machines (gate, server, content) is a list of X(state, states that may
 * follow), and only gate_enter(), serverstate_enter() and transaction_enter() change a state; legal.h checks them in some builds.
 *
 * Times are CLOCK_MONOTONIC in microseconds; 0: not yet. Durations are in microseconds; -1: not measured.
 */
#ifndef STATE_H
#define STATE_H

#include "hooks.h"
#include "io/lookup.h"
#include "io/net.h"
#include "pure/dialogue.h"
#include "pure/options.h"
#include "pure/route.h"
#include "pure/tlsrpt.h"
#include "session/leg.h"
#include "pure/statemap.h"

#include <signal.h>

/* ---- the gate: what the client waits for before its next octets are read as commands ---- */

#define GATE_STAGES(X)                                                                                                 \
	X(OPEN, GATE_BIT(CHECKS) | GATE_BIT(TARPIT) | GATE_BIT(HOOKS) | GATE_BIT(SERVER) | GATE_BIT(LIST) |            \
	    GATE_BIT(TOLD) | GATE_BIT(KEPT) | GATE_BIT(STARTTLS) | GATE_BIT(SHAKE) | GATE_BIT(SECURE) | GATE_BIT(POLICY))                                  \
	X(CHECKS, GATE_BIT(OPEN) | GATE_BIT(TARPIT)) /* DNS lists are asked, the greeting is delayed */                \
	X(TARPIT, GATE_BIT(OPEN))		     /* a reply is ready, but delayed */                               \
	X(HOOKS, GATE_BIT(OPEN) | GATE_BIT(TARPIT))  /* hooks decide */                                                \
	X(SERVER, GATE_BIT(OPEN))   /* the held RCPT waits until a server has answered MAIL */                         \
	X(LIST, GATE_BIT(OPEN))	    /* EHLO with --auth waits for the server's list of extensions */                   \
	X(TOLD, GATE_BIT(OPEN))	    /* the held MAIL waits for XFORWARD, or for the client's host name */              \
	X(SECURE, GATE_BIT(OPEN))   /* the held MAIL or AUTH waits for TLS with it */                                  \
	X(POLICY, GATE_BIT(OPEN))   /* the held RCPT waits for the TLS policy of its domain */                          \
	X(KEPT, GATE_BIT(OPEN))	    /* a kept message is on its way to the server */                                   \
	X(STARTTLS, GATE_BIT(OPEN) | GATE_BIT(SHAKE) | GATE_BIT(TUNNEL)) /* STARTTLS waits for 220 */                  \
	X(SHAKE, GATE_BIT(OPEN))    /* the TLS handshake with the client */                                            \
	X(TUNNEL, 0)		    /* STARTTLS was passed through: octets go both ways unread until the end */

enum gate_stage {
#define X(stage, next) GATE_##stage,
	GATE_STAGES(X)
#undef X
};

struct gate {
	enum gate_stage stage;
	int64_t tarpit_until; /* when GATE_TARPIT ends, and the client gets the reply */
};

/* ---- the end ---- */

enum end_how {
	END_NOT,	   /* the session goes on */
	END_AFTER_REPLIES, /* takes no more commands; ends once every reply that is due was given */
	END_FLUSH,	   /* ends once the client has taken its replies */
	END_LINGER,	   /* the same, then reads on for a moment: a close with unread octets would reset the last reply away */
	END_SILENT	   /* drops the client without a reply, e.g. when the outcome of its message is unknown */
};

enum end_by { END_BY_NOBODY, END_BY_CLIENT, END_BY_SERVER, END_BY_SMTPWARP };

struct end {
	enum end_how how;
	enum end_by by;	    /* END_BY_NOBODY: the session has no close record */
	const char *reason; /* static storage, or of the session */
	int64_t at;	    /* when it was decided */
	int64_t over;	    /* when both legs were closed, for records */
	uint64_t dropped;   /* records that log hooks had lost by then */
};

/* ---- the TLS policy of a recipient's domain ---- */

enum policy_stage { POLICY_IDLE, POLICY_DANE, POLICY_NO_DANE, POLICY_MAP };

/* BY_LEVEL: a level says all; else names or TLSA records of the domain say what the certificate must be. */
enum policy_source { POLICY_BY_LEVEL, POLICY_BY_DANE, POLICY_BY_RULE };

struct policy_terms {
	enum tls_level level; /* none of DANE's */
	enum policy_source source;
	const char *word; /* in Postfix's words, static storage; NULL: the route's level counts */
	bool half; /* by DANE, for a host that no signature makes the domain's: no proof for REQUIRETLS */
	char of[DNS_NAME_MAX + 8]; /* not BY_LEVEL: the domain, or HOST:PORT, whose names or records they are */
};

struct policy {
	enum policy_stage stage;
	bool news;    /* it is known, for steps.c to take */
	bool refused; /* no mail may go */
	bool everywhere; /* nor may it to another server: none is tried, for each would cost a lookup */
	bool dane_asked, map_asked;
	bool nameless; /* the recipient's domain cannot be looked up */
	enum tlsrpt_code failure; /* for reports: VALIDATION_FAILURE: the server is none of those of MTA-STS; else what is wrong with TLSA records */
	struct policy_terms now;    /* for the held recipient */
	struct policy_terms agreed; /* for the connection */
	struct route wanted;
	unsigned nth; /* server of that route, counted from 0, which it is about */
	int64_t asked_at;
	char domain[DNS_NAME_MAX + 1]; /* that was asked for last; "": none, or what has no policy */
};

/* ---- the server ---- */

#define SERVER_STATES(X)                                                                                               \
	X(NONE, SERVER_BIT(RESOLVING) | SERVER_BIT(CONNECTING) | SERVER_BIT(GONE)) /* not connected */                 \
	X(RESOLVING, SERVER_BIT(NONE))	/* looking up its name, or its policy */                                       \
	X(CONNECTING, SERVER_BIT(NONE) | SERVER_BIT(SHAKE_FIRST) | SERVER_BIT(BANNER))                                 \
	X(SHAKE_FIRST, SERVER_BIT(NONE) | SERVER_BIT(BANNER))			/* TLS before the banner, smtps:// */  \
	X(SHAKE, SERVER_BIT(NONE) | SERVER_BIT(EHLO_TLS) | SERVER_BIT(HELO))	/* TLS after STARTTLS */               \
	X(BANNER, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(EHLO) | SERVER_BIT(HELO))                           \
	X(IDLE, SERVER_BIT(NONE) | SERVER_BIT(EHLO) | SERVER_BIT(HELO))		/* the client has not said EHLO yet */ \
	X(EHLO, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(STARTTLS) | SERVER_BIT(XCLIENT) | SERVER_BIT(AUTH) |  \
	    SERVER_BIT(HELO) | SERVER_BIT(READY))				/* EHLO or LHLO was sent */            \
	X(STARTTLS, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(SHAKE) | SERVER_BIT(XCLIENT) | SERVER_BIT(HELO) | \
	    SERVER_BIT(READY))                                                                                         \
	X(EHLO_TLS, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(XCLIENT) | SERVER_BIT(AUTH) | SERVER_BIT(HELO) |  \
	    SERVER_BIT(READY))							/* EHLO again, inside TLS */           \
	X(XCLIENT, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(EHLO_AGAIN) | SERVER_BIT(HELO) |                   \
	    SERVER_BIT(READY))                                                                                         \
	X(EHLO_AGAIN, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(STARTTLS) | SERVER_BIT(AUTH) |                  \
	    SERVER_BIT(HELO) | SERVER_BIT(READY))                                                                      \
	X(AUTH, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(HELO) | SERVER_BIT(READY)) /* --upstream-auth */      \
	X(HELO, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(READY))                                               \
	X(READY, SERVER_BIT(NONE) | SERVER_BIT(EHLO) | SERVER_BIT(HELO) | SERVER_BIT(STARTTLS) | SERVER_BIT(TUNNEL)) /* it takes mail */      \
	X(TUNNEL, SERVER_BIT(NONE))						/* see GATE_TUNNEL */                  \
	X(GONE, 0)								/* closed, and there will be no other */

enum server_state {
#define X(state, next) SERVER_##state,
	SERVER_STATES(X)
#undef X
};

/* --connect-on recipient: what has happened to the server, for steps.c to take. server.text->failure says why. */
enum server_news {
	SERVER_NO_NEWS,
	SERVER_OUT, /* the server that the client waits for cannot be reached or used */
	SERVER_LOST /* the connection that carried the client's AUTH is closed */
};

/* --connect-on recipient: whether the client may authenticate with the server of this connection, or has. */
enum server_auth {
	SERVER_AUTH_NOBODY,
	SERVER_AUTH_LISTED, /* the client was shown this server's AUTH: its password may go there, and nowhere else */
	SERVER_AUTH_SAID    /* the client's AUTH went there: if the connection closes, the session ends */
};

struct server_texts {
	struct upstream other; /* the server of route.others that is tried, or in use */
	char failure[256];     /* why the last server could not be reached or used: "4.4.1 HOST: reason" */
	char gone[320];	       /* the reply to commands in SERVER_GONE */
};

struct server {
	struct leg leg; /* leg.c */
	enum server_state state;
	enum server_news news;
	enum server_auth auth;
	bool redialing;	/* connected again, because TLS or EHLO failed */
	bool no_tls;	/* TLS failed, was refused, or is missing: do not try it with this server */
	bool no_ehlo;	/* it closed the connection at an EHLO of ours: tell it the client's HELO alone */
	bool refused;	/* its banner was not 220 */
	enum net_origin origin;
	unsigned next_upstream; /* index of the next one to try: of the route's servers, or of --upstream */
	int claim;		/* see net_claim(); -1: none */
	size_t candidates, next_candidate; /* addresses in `candidate`; index of the next one to try */
	const struct upstream *upstream; /* NULL: the original destination */
	int64_t dialed_at, connected_at, handshake_at;
	int64_t connect, tls; /* durations, for records */
	union net_address address;  /* AF_UNSPEC: none; AF_UNIX: `host` is the path */
	union net_address source;   /* our end towards it */
	union net_address original; /* where the client meant to go; AF_UNSPEC: it was not redirected here */
	struct server_texts *text;
	bool has_facts;
	struct tls_facts facts; /* of its TLS, when has_facts */
	struct net_outbound outbound;
	char host[256]; /* the server's name, address or path, as replies and errors have it */
	struct route route;
	union net_address candidate[LOOKUP_MAX];
};

/* ---- the client ---- */

struct client {
	struct leg leg; /* leg.c */
	union net_address peer;	   /* the other end of its socket: the client, or a proxy before us */
	union net_address address; /* of the client itself */
	union net_address local;   /* our end of its socket */
	union net_address proxy;   /* the proxy that sent a PROXY header; AF_UNSPEC: none did */
	union net_address reached; /* where the client connected to, by the PROXY header; AF_UNSPEC: there was no header */
	bool has_facts;
	struct tls_facts facts;	   /* of its TLS, when has_facts: with us, or with the proxy before us */
	const char *authority;	   /* the name that it asked for, by the PROXY header; NULL: that has none. Not to be trusted */
	unsigned forward;	   /* bits: attributes that the server takes by XFORWARD, see identity.c */
	unsigned untold;	   /* bits: attributes left for the next XCLIENT or XFORWARD command */
	bool name_due;		   /* XCLIENT, XFORWARD or MAIL waits for the client's host name */
	bool told;		   /* for steps.c to take: the server was told of the client, MAIL may follow */
};

/* ---- EHLO, HELO, LHLO ---- */

struct hello_texts {
	char ehlo_refusal[560]; /* the server's 5xx to EHLO, while HELO is tried; "": none */
	/* The name and verb before those that hooks decide on. */
	unsigned char name[SMTP_HOST_MAX];
	size_t name_len;
	enum smtp_verb verb;
};

struct hello {
	enum smtp_verb verb; /* what the client said: EHLO, HELO or LHLO */
	size_t name_len;     /* 0: it has said none yet */
	int64_t banner;	     /* duration: how long the server's banner took after the connection */
	bool ready;	     /* for steps.c to take: the server of the held RCPT takes mail */
	bool own_ehlo;	     /* the server has accepted an EHLO that the client had not said: it may refuse HELO now */
	struct hello_texts *text;
	unsigned char name[SMTP_HOST_MAX];
};

/* --upstream-auth */
struct upstreamauth {
	bool authenticated;  /* the server has accepted the password on this connection */
	unsigned char words; /* how many of user and password AUTH LOGIN still has to send; 0 with PLAIN */
};

/* ---- --connect-on recipient ---- */

struct routes_of_session {
	struct route of_session;
	struct route of_mail; /* of this transaction, which verdicts on MAIL may change */
	struct route wanted;  /* of this recipient, which verdicts on RCPT and --routes may change */
};

struct recipient {
	struct route home;	   /* the route of the connection that carried the client's AUTH */
	struct route unreachable;  /* the route on which a server could last not be reached or used */
	struct policy_terms terms; /* and the TLS that was wanted of its first server */
	struct policy_terms asked; /* the same of the route that was asked last */
	char unreachable_why[320]; /* the reply that says why */
	uint32_t unreachable_in;   /* the transaction in which that was, as dialogue.transactions counts; 0: none */
};

/* ---- the transaction ---- */

/* --connect-on recipient: which server the transaction is bound to. */
enum transaction_server {
	TRANSACTION_UNBOUND,
	TRANSACTION_DIALS,  /* it waits for a new connection */
	TRANSACTION_REUSES, /* it waits for the server of a connection that was open already */
	TRANSACTION_BOUND   /* the server has accepted its MAIL */
};

/* Where a message is. From KEEPING to SENDING_CHUNK it is kept here. SENT follows NONE when RSET has ended
 * the transaction of a chunk that was still being sent. */
#define CONTENT_STATES(X)                                                                                              \
	X(NONE, CONTENT_BIT(PASSING) | CONTENT_BIT(KEEPING) | CONTENT_BIT(DRAINING) | CONTENT_BIT(SENT) |              \
	    CONTENT_BIT(SENT_LATE))                                                                                    \
	X(PASSING, CONTENT_BIT(NONE) | CONTENT_BIT(DRAINING) | CONTENT_BIT(SENT) | CONTENT_BIT(SENT_LATE))             \
	X(DRAINING, CONTENT_BIT(NONE)) /* read to its end and thrown away */                                           \
	X(KEEPING, CONTENT_BIT(NONE) | CONTENT_BIT(DRAINING) | CONTENT_BIT(SPOILED) | CONTENT_BIT(WHOLE))              \
	X(SPOILED, CONTENT_BIT(NONE) | CONTENT_BIT(DRAINING)) /* to be refused at its end */                           \
	X(WHOLE, CONTENT_BIT(NONE) | CONTENT_BIT(DRAINING) | CONTENT_BIT(ASKED) | CONTENT_BIT(SENDING_CHUNK))          \
	X(ASKED, CONTENT_BIT(NONE) | CONTENT_BIT(DRAINING) | CONTENT_BIT(SENDING)) /* DATA was sent, 354 is awaited */ \
	X(SENDING, CONTENT_BIT(NONE) | CONTENT_BIT(DRAINING) | CONTENT_BIT(SENT) | CONTENT_BIT(SENT_LATE))             \
	X(SENDING_CHUNK, CONTENT_BIT(NONE) | CONTENT_BIT(DRAINING) | CONTENT_BIT(SENT) | CONTENT_BIT(SENT_LATE))       \
	X(SENT, CONTENT_BIT(NONE) | CONTENT_BIT(PASSING) | CONTENT_BIT(DRAINING))                                      \
	X(SENT_LATE, CONTENT_BIT(NONE) | CONTENT_BIT(PASSING) | CONTENT_BIT(DRAINING)) /* the server spoke before its end */

enum content_state {
#define X(state, next) CONTENT_##state,
	CONTENT_STATES(X)
#undef X
};

enum transaction_result {
	TRANSACTION_BY_REPLIES, /* as the replies so far make it */
	TRANSACTION_ACCEPTED,
	TRANSACTION_DEFERRED,
	TRANSACTION_REJECTED,
	TRANSACTION_DISCARDED,
	TRANSACTION_ABORTED,
	TRANSACTION_UNKNOWN
};

/* Apart from what idle sessions touch. */
struct transaction_times {
	int64_t first_on; /* server.connected_at of the connection that MAIL last was the first on */
	uint32_t first_in; /* and the transaction of that MAIL, as dialogue.transactions counts */
	int64_t began_at; /* when its server was sent MAIL, or connected to if that was the first MAIL there; the others are 0 and -1 if this is 0 */
	int64_t mail_at, rcpt_at, data_at, sent_at; /* when MAIL, the first RCPT, DATA, and the end of the message were sent */
	int64_t mail, rcpt, data, data_reply, accept; /* durations, for records */
};

struct transaction {
	enum transaction_server server;
	enum content_state content;
	struct message message;	 /* kept for hooks, or until its length is known */
	bool made_eightbit;	 /* hooks have put octets above 127 into it, which the client did not */
	const char *spoiled;	 /* the reply to give at the end of a spoiled message */
	char *drained;		 /* the reply to give at the end of a drained message; TRANSACTION_DRAINED octets */
	uint64_t sent;		 /* octets of a kept message that went to the server */
	uint64_t content_from;	 /* octets received from the client that content_at has counted, or that came before the message */
	int64_t content_at;	 /* up to when --min-rate has had its octets: --block-timeout later is too late */
	struct transaction_times *times;
	uint64_t messages, recipients;	   /* accepted in this session */
};
#define TRANSACTION_DRAINED 560

/* The Received field of a message that goes to the server. */
struct trace {
	const char *field; /* identity.c keeps it */
	size_t len;	   /* octets that are yet to be sent; 0: there is none */
	size_t held;	   /* octets of the first line that wait to be sent */
};

/* ---- commands ---- */

/* The command that waits for hooks or for a server. cmd leads into line. */
struct held {
	struct smtp_command cmd;
	size_t original_len; /* octets of the recipient that the client gave, if it was rewritten; 0: it was not */
	unsigned char original[SMTP_AUTH_LINE_MAX];
	unsigned char line[SMTP_AUTH_LINE_MAX + 16];
};

struct commands {
	bool starved;	  /* no complete command, line or piece is left of what the client sent */
	bool auth_seen;	  /* the client has said AUTH: an unknown command may be a password, and is not logged */
	int64_t partial_since; /* since when the client has owed the rest of a command; 0: it does not */
};

/* The last refusal by the server that has a class, outside of a message as well. */
struct refusal {
	enum reply_stage stage;
	enum reply_class class;
	enum reply_scope scope;
	uint16_t code; /* 0: there was none */
	uint16_t enhanced[3];
	bool looked;	   /* for the rules */
	uint32_t early_in; /* the transaction whose message was refused in its middle, as dialogue.transactions counts; 0: none */
	unsigned char text_len;
	unsigned char text[DIALOGUE_CLIP]; /* its last line */
};

struct replies {
	bool starved;	  /* no complete line is left of what the server sent */
	uint64_t count;	  /* whole replies that the server has given */
};

/* ---- clocks, checks ---- */

struct waiting {
	int64_t active_at; /* when octets or news last moved, for --idle-timeout */
	bool awaiting;	   /* the server owes a reply */
	int64_t awaiting_since;
	uint64_t awaited_reply; /* replies.count, and the server's state, when it began to owe that reply */
	enum server_state awaited_in;
	int64_t terminated_at; /* when SIGTERM was first seen */
};

struct checks_news {
	bool passed; /* for steps.c to take: the client has passed the checks at connect */
	bool teased; /* --greet-delay: the client has got a first line, "220-", to see whether it waits for the last */
};

/* What is observed of the server, and not yet in the map of --state. */
struct observe {
	char site[STATEMAP_SITE]; /* whose server it is; "": there was none yet */
	bool dialled;	     /* a connection was begun, and its result was not counted yet */
	bool secured;	     /* the TLS of this connection, or that it has none, was counted */
	bool refused;	     /* the server has refused something: `refusal` has the last */
	unsigned char weight; /* of what class and scope say; 0: nothing */
	enum reply_class class;
	enum reply_scope scope;
	uint32_t count[STATEMAP_COUNTERS_END];
	int64_t phase[STATEMAP_PHASES_END]; /* durations */
	uint64_t octets[4];  /* of the session's, from and to either side, those that were counted */
};

/* Whether this session has asked the DNS for the name of a server, which it does once; and whether it still does. */
struct mxname {
	bool asked, asking;
};

#define SESSION_ID 27 /* octets of a ULID, with its NUL */

struct session {
	const struct options *o;      /* session.c */
	const struct hook_list *hooks; /* session.c */
	const volatile sig_atomic_t *terminated; /* session.c */
	int64_t started;	      /* session.c */
	int64_t now;		      /* clock.c */
	struct waiting waiting;	      /* session.c */
	struct gate gate;	      /* gate.c */
	struct end end;		      /* talk.c */
	size_t gathered;	      /* talk.c: octets of a reply of the server's whose last line is not in yet */
	uint64_t errors;	      /* talk.c: bad commands */
	struct checks_news checks;    /* checks.c */
	bool filtered;		      /* filter.c: hooks have decided, for steps.c to take */
	bool secured;		      /* clienttls.c: the handshake is over, for steps.c to take */
	struct mxname mxname;	      /* mxname.c */
	unsigned kept_shares;	      /* kept.c: of --max-kept, that this session has */
	int64_t shake_at;	      /* clienttls.c */
	struct commands commands;     /* commands.c */
	struct replies replies;	      /* replies.c */
	struct refusal *refusal;      /* refusal.c */
	struct observe observe;	      /* observe.c */
	struct routes_of_session *routes; /* routing.c */
	struct recipient *recipient;  /* recipient.c */
	struct policy *policy;	      /* policy.c; NULL: recipients have none */
	struct upstreamauth auth;     /* upstreamauth.c */
	struct transaction tx;	      /* transaction.c */
	struct trace trace;	      /* trace.c */
	struct held *held;	      /* held.c */
	struct record_notes *notes;   /* filter.c */
	char id[SESSION_ID];	      /* session.c: a ULID */
	struct client client;	      /* identity.c */
	struct server server;	      /* server.c, serverstate.c */
	struct hello hello;	      /* hello.c */
	struct dialogue dialogue;     /* pure/dialogue.c; it ends with what is large */
};

#endif
