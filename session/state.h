/* What one session knows, in parts. Types only: each part's functions stand in the header of the file that writes it, which
 * the comment behind the part names. All files of session/ read all parts.
 *
 * Times are CLOCK_MONOTONIC in microseconds; 0: not yet. Durations are in microseconds; -1: it did not come to that.
 */
#ifndef STATE_H
#define STATE_H

#include "hooks.h"
#include "io/lookup.h"
#include "io/net.h"
#include "pure/dialogue.h"
#include "pure/options.h"
#include "pure/route.h"
#include "session/leg.h"

#include <signal.h>

/* ---- the gate: what the client waits for before its next octets are looked at ---- */

/* X(stage, stages that may follow). */
#define GATE_STAGES(X)                                                                                                 \
	X(OPEN, GATE_BIT(CHECKS) | GATE_BIT(TARPIT) | GATE_BIT(HOOKS) | GATE_BIT(SERVER) | GATE_BIT(LIST) |            \
	    GATE_BIT(TOLD) | GATE_BIT(KEPT) | GATE_BIT(STARTTLS) | GATE_BIT(SHAKE))                                    \
	X(CHECKS, GATE_BIT(OPEN) | GATE_BIT(TARPIT)) /* lists are asked, the greeting is delayed */                    \
	X(TARPIT, GATE_BIT(OPEN))		     /* an answer is ready, but delayed */                             \
	X(HOOKS, GATE_BIT(OPEN) | GATE_BIT(TARPIT))  /* hooks decide */                                                \
	X(SERVER, GATE_BIT(OPEN))   /* a server for the held RCPT, up to its reply to MAIL */                          \
	X(LIST, GATE_BIT(OPEN))	    /* the server's list of extensions, for an EHLO with --auth */                     \
	X(TOLD, GATE_BIT(OPEN))	    /* XFORWARD, or the client's host name, before the held MAIL */                    \
	X(KEPT, GATE_BIT(OPEN))	    /* 354 for a kept message, then its sending */                                     \
	X(STARTTLS, GATE_BIT(OPEN) | GATE_BIT(SHAKE) | GATE_BIT(TUNNEL)) /* 220 is on its way */                       \
	X(SHAKE, GATE_BIT(OPEN))    /* the TLS handshake with the client */                                            \
	X(TUNNEL, 0)		    /* STARTTLS was passed through: octets go both ways unread, until the end */

enum gate_stage {
#define X(stage, next) GATE_##stage,
	GATE_STAGES(X)
#undef X
};

/* How a client is held back in GATE_TARPIT ends with what the part that asked for it has decided: see steps.c. */
struct gate {
	enum gate_stage stage;
	int64_t tarpit_until;
};

/* ---- the end ---- */

enum end_how {
	END_NOT,	   /* the session goes on */
	END_AFTER_REPLIES, /* no more commands; it ends once all replies that are due are given */
	END_FLUSH,	   /* what is written goes out */
	END_LINGER,	   /* and we read on for a moment, so that a last reply is not lost to a reset */
	END_SILENT	   /* the client is dropped without a word: the outcome of its message is not known */
};

enum end_by { END_BY_NOBODY, END_BY_CLIENT, END_BY_SERVER, END_BY_SMTPWARP };

struct end {
	enum end_how how;
	enum end_by by;	    /* END_BY_NOBODY: no record is written of this session */
	const char *reason; /* static storage, or of the session */
	int64_t at;
	int64_t over;	  /* when the session had nothing more to do, for records */
	uint64_t dropped; /* records that log hooks had lost by then */
};

/* ---- the server ---- */

/* X(state, states that may follow). From BANNER to TUNNEL it is connected and spoken to. */
#define SERVER_STATES(X)                                                                                               \
	X(NONE, SERVER_BIT(RESOLVING) | SERVER_BIT(CONNECTING) | SERVER_BIT(GONE)) /* not yet, or there may be another */ \
	X(RESOLVING, SERVER_BIT(NONE))	/* its name is looked up */                                                    \
	X(CONNECTING, SERVER_BIT(NONE) | SERVER_BIT(SHAKE_FIRST) | SERVER_BIT(BANNER))                                 \
	X(SHAKE_FIRST, SERVER_BIT(NONE) | SERVER_BIT(BANNER))			/* TLS before the banner, smtps:// */  \
	X(SHAKE, SERVER_BIT(NONE) | SERVER_BIT(EHLO_TLS) | SERVER_BIT(HELO))	/* TLS after STARTTLS */               \
	X(BANNER, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(EHLO) | SERVER_BIT(HELO))                           \
	X(IDLE, SERVER_BIT(NONE) | SERVER_BIT(EHLO) | SERVER_BIT(HELO))		/* the client has not said EHLO yet */ \
	X(EHLO, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(STARTTLS) | SERVER_BIT(XCLIENT) | SERVER_BIT(AUTH) |  \
	    SERVER_BIT(HELO) | SERVER_BIT(READY))				/* EHLO (or LHLO) is sent */           \
	X(STARTTLS, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(SHAKE) | SERVER_BIT(XCLIENT) | SERVER_BIT(AUTH) | \
	    SERVER_BIT(HELO) | SERVER_BIT(READY))                                                                      \
	X(EHLO_TLS, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(XCLIENT) | SERVER_BIT(AUTH) | SERVER_BIT(HELO) |  \
	    SERVER_BIT(READY))							/* EHLO again, inside TLS */           \
	X(XCLIENT, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(EHLO_AGAIN) | SERVER_BIT(HELO) |                   \
	    SERVER_BIT(READY))                                                                                         \
	X(EHLO_AGAIN, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(AUTH) | SERVER_BIT(HELO) | SERVER_BIT(READY))   \
	X(AUTH, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(HELO) | SERVER_BIT(READY)) /* --upstream-auth */      \
	X(HELO, SERVER_BIT(NONE) | SERVER_BIT(IDLE) | SERVER_BIT(READY))                                               \
	X(READY, SERVER_BIT(NONE) | SERVER_BIT(EHLO) | SERVER_BIT(HELO) | SERVER_BIT(TUNNEL)) /* it takes mail */      \
	X(TUNNEL, SERVER_BIT(NONE))						/* see GATE_TUNNEL */                  \
	X(GONE, 0)								/* for good */

enum server_state {
#define X(state, next) SERVER_##state,
	SERVER_STATES(X)
#undef X
};

/* What a server has come to, for steps.c to take. */
enum server_news {
	SERVER_NO_NEWS,
	SERVER_OUT, /* --connect-on recipient: there is no way to the server that the client waits for; text->failure says why */
	SERVER_LOST /* --connect-on recipient: the connection that AUTH was said on is closed; text->failure says why */
};

/* --connect-on recipient: whose password this connection is for. */
enum server_auth {
	SERVER_AUTH_NOBODY,
	SERVER_AUTH_LISTED, /* the client was shown this server's AUTH: its password goes there, and nowhere else */
	SERVER_AUTH_SAID    /* and went there: without this connection there is no session */
};

struct server_texts {
	struct upstream other; /* the one of route.others that is tried */
	char failure[256];     /* of the last attempt to reach a server: enhanced code and reason */
	char gone[320];	       /* the reply to what comes after SERVER_GONE */
};

struct server {
	struct leg leg; /* leg.c */
	enum server_state state;
	enum server_news news;
	enum server_auth auth;
	bool redialing;	/* on a fresh connection, after TLS failed */
	bool no_tls;	/* it failed: plain this time */
	bool refused;	/* its banner was no 220 */
	enum net_origin origin;
	unsigned next_upstream;
	int claim; /* see net_claim() */
	size_t candidates, next_candidate;
	const struct upstream *upstream; /* NULL: the original destination */
	int64_t dialed_at, connected_at, handshake_at;
	int64_t connect, tls; /* durations, for records */
	union net_address address;  /* AF_UNSPEC: none; AF_UNIX: host is the path */
	union net_address source;   /* our end towards it */
	union net_address original; /* where the client meant to go; AF_UNSPEC: it was not redirected */
	struct server_texts *text;
	bool has_facts;
	struct tls_facts facts; /* of its TLS, when has_facts */
	struct net_outbound outbound;
	char host[256]; /* what replies call it */
	struct route route;
	union net_address candidate[LOOKUP_MAX];
};

/* ---- the client ---- */

struct client {
	struct leg leg; /* leg.c */
	union net_address peer;	   /* the other end of its socket: the client, or a proxy before us */
	union net_address address; /* of the client itself */
	union net_address local;   /* our end */
	union net_address proxy;   /* who told us of the client by a PROXY header; AF_UNSPEC: nobody */
	union net_address reached; /* where that header says that the client connected to; AF_UNSPEC: there is none */
	bool has_facts;
	struct tls_facts facts;	   /* of its TLS, when has_facts: with us, or with the proxy before us */
	unsigned forward;	   /* attributes that the server takes by XFORWARD, see identity.c */
	unsigned untold;	   /* those left for the next XCLIENT or XFORWARD command */
	bool name_due;		   /* XCLIENT, or what comes before MAIL, waits for the client's host name */
	bool told;		   /* news for steps.c: the server knows the client, MAIL may follow */
};

/* ---- EHLO, HELO, LHLO ---- */

struct hello_texts {
	char ehlo_refusal[560]; /* the server's 5xx to EHLO, while HELO is tried */
	unsigned char name[SMTP_HOST_MAX]; /* before the one that hooks decide on, and how it was said */
	size_t name_len;
	enum smtp_verb verb;
};

struct hello {
	enum smtp_verb verb; /* what the client said: EHLO, HELO or LHLO */
	size_t name_len;     /* 0: nothing yet */
	int64_t banner;	     /* a duration, for records */
	bool ready;	     /* news for steps.c: the server of the held RCPT takes mail */
	struct hello_texts *text;
	unsigned char name[SMTP_HOST_MAX];
};

/* --upstream-auth */
struct upstreamauth {
	bool authenticated;
	unsigned char words; /* of user and password, those that LOGIN has still to be told; 0: PLAIN */
};

/* ---- --connect-on recipient ---- */

struct routes_of_session {
	struct route of_session, of_mail, wanted; /* for this sender, and for this recipient */
};

struct recipient {
	struct route home;	   /* of the connection that AUTH was said on */
	struct route unreachable;  /* where a transaction could not be brought, */
	char unreachable_why[320]; /* and the reply that says why */
	uint32_t unreachable_in;   /* which one, as dialogue.transactions counts; 0: none */
};

/* ---- the transaction ---- */

/* --connect-on recipient: which server the transaction is bound to. */
enum transaction_server {
	TRANSACTION_UNBOUND,
	TRANSACTION_DIALS,  /* a server is dialled for it */
	TRANSACTION_REUSES, /* a server is asked that was connected before */
	TRANSACTION_BOUND   /* the server has accepted its MAIL */
};

/* The way of a message. X(state, states that may follow). */
#define CONTENT_STATES(X)                                                                                              \
	X(NONE, CONTENT_BIT(PASSING) | CONTENT_BIT(KEEPING) | CONTENT_BIT(DRAINING) | CONTENT_BIT(SENT) |              \
	    CONTENT_BIT(SENT_LATE)) /* the latter: RSET has ended the transaction of a chunk */                        \
	X(PASSING, CONTENT_BIT(NONE) | CONTENT_BIT(DRAINING) | CONTENT_BIT(SENT) | CONTENT_BIT(SENT_LATE))             \
	X(DRAINING, CONTENT_BIT(NONE)) /* read to its end, but goes nowhere */                                         \
	X(KEEPING, CONTENT_BIT(NONE) | CONTENT_BIT(DRAINING) | CONTENT_BIT(SPOILED) | CONTENT_BIT(WHOLE))              \
	X(SPOILED, CONTENT_BIT(NONE) | CONTENT_BIT(DRAINING)) /* kept, and refused at its end */                       \
	X(WHOLE, CONTENT_BIT(NONE) | CONTENT_BIT(DRAINING) | CONTENT_BIT(ASKED) | CONTENT_BIT(SENDING_CHUNK))          \
	X(ASKED, CONTENT_BIT(NONE) | CONTENT_BIT(DRAINING) | CONTENT_BIT(SENDING)) /* DATA was sent for it */          \
	X(SENDING, CONTENT_BIT(NONE) | CONTENT_BIT(DRAINING) | CONTENT_BIT(SENT) | CONTENT_BIT(SENT_LATE))             \
	X(SENDING_CHUNK, CONTENT_BIT(NONE) | CONTENT_BIT(DRAINING) | CONTENT_BIT(SENT) | CONTENT_BIT(SENT_LATE))       \
	X(SENT, CONTENT_BIT(NONE) | CONTENT_BIT(PASSING) | CONTENT_BIT(KEEPING) | CONTENT_BIT(DRAINING))                                      \
	X(SENT_LATE, CONTENT_BIT(NONE) | CONTENT_BIT(PASSING) | CONTENT_BIT(KEEPING) | CONTENT_BIT(DRAINING)) /* the server spoke before its end */

enum content_state {
#define X(state, next) CONTENT_##state,
	CONTENT_STATES(X)
#undef X
};

enum transaction_result {
	TRANSACTION_BY_REPLIES, /* as the server's replies have it */
	TRANSACTION_ACCEPTED,
	TRANSACTION_DEFERRED,
	TRANSACTION_REJECTED,
	TRANSACTION_DISCARDED,
	TRANSACTION_ABORTED,
	TRANSACTION_UNKNOWN
};

struct transaction {
	enum transaction_server server;
	enum content_state content;
	struct message message;	 /* kept here for hooks, or until its length is known */
	const char *spoiled;	 /* the reply to give at the end of a spoiled message */
	char *drained;		 /* the reply to give at the end of a drained message; TRANSACTION_DRAINED octets */
	uint64_t sent;		 /* octets of a kept message that went to the server */
	uint64_t content_from;	 /* octets received when the message began */
	int64_t content_at;	 /* when it began, later by the time that it waited for the server */
	int64_t mail_at, rcpt_at, sent_at;
	int64_t mail, rcpt, data, accept; /* durations, for records */
	uint64_t messages, recipients;	  /* accepted in this session */
};
#define TRANSACTION_DRAINED 560

/* ---- commands ---- */

/* The command that waits for hooks or a server. cmd leads into line. */
struct held {
	struct smtp_command cmd;
	size_t original_len; /* a rewritten recipient: what the client said */
	unsigned char original[SMTP_AUTH_LINE_MAX];
	unsigned char line[SMTP_AUTH_LINE_MAX + 16];
};

struct commands {
	bool starved;	  /* nothing complete was left of what the client sent */
	bool auth_seen;	  /* what looks like an unknown command may be a secret */
	int64_t partial_since;
};

struct replies {
	bool starved;	  /* nothing complete was left of what the server sent */
	uint64_t count;	  /* whole replies of the server's */
};

/* ---- clocks and news ---- */

struct waiting {
	int64_t active_at; /* when something last happened */
	bool awaiting;	   /* the server owes a reply */
	int64_t awaiting_since;
	uint64_t awaited_reply; /* replies seen before the one that is awaited */
	enum server_state awaited_in; /* the server's state then */
	int64_t terminated_at;
};

/* What the checks at connect have come to, for steps.c to take. */
struct checks_news {
	bool passed;
	bool teased; /* the client has been told the first line of a greeting, --greet-delay */
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
	size_t gathered;	      /* talk.c: octets of the server's reply whose last line is not in yet */
	uint64_t errors;	      /* talk.c: bad commands */
	struct checks_news checks;    /* checks.c */
	bool filtered;		      /* filter.c: hooks have decided, for steps.c to take */
	bool secured;		      /* clienttls.c: the handshake is over, for steps.c to take */
	int64_t shake_at;	      /* clienttls.c */
	struct commands commands;     /* commands.c */
	struct replies replies;	      /* replies.c */
	struct routes_of_session *routes; /* routing.c */
	struct recipient *recipient;  /* recipient.c */
	struct upstreamauth auth;     /* upstreamauth.c */
	struct transaction tx;	      /* transaction.c */
	struct held *held;	      /* held.c */
	struct record_notes *notes;   /* filter.c */
	char id[SESSION_ID];	      /* session.c: a ULID */
	struct client client;	      /* identity.c */
	struct server server;	      /* server.c, serverstate.c */
	struct hello hello;	      /* hello.c */
	struct dialogue dialogue;     /* pure/dialogue.c; it ends with what is large */
};

#endif
