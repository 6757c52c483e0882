/* One proxied connection. session.c has the poll loop, the clock and the end; upstream.c finds, connects and greets the
 * server; relay.c carries commands, replies and messages between the two. The struct is theirs together.
 */
#ifndef SESSION_H
#define SESSION_H

#include "dialogue.h"
#include "leg.h"
#include "net.h"
#include "options.h"
#include "record.h"

#include <signal.h>

enum session_server {
	SERVER_CONNECTING,
	SERVER_HANDSHAKE, /* of TLS */
	SERVER_OPEN,
	SERVER_GONE
};

/* Where the client's EHLO or HELO stands: smtpwarp says it again to the server, perhaps twice. */
enum session_greet {
	GREET_NONE,
	GREET_PLAIN,	/* EHLO sent, STARTTLS may follow */
	GREET_STARTTLS, /* STARTTLS sent, or handshake under way */
	GREET_AGAIN,	/* EHLO sent inside TLS */
	GREET_HELO	/* HELO sent */
};

#define SESSION_CANDIDATES 8

/* Texts that few sessions need, apart from what all of them use. */
struct session_texts {
	char failure[256];	/* of the last attempt to reach a server: enhanced code and reason */
	char gone[320];		/* reply to what comes after SERVER_GONE */
	char ehlo_refusal[560];	/* the server's 5xx to EHLO, while HELO is tried */
	char drained[560];	/* reply to a message that is drained */
};

/* Times are CLOCK_MONOTONIC in microseconds; 0: not yet. */
struct session {
	const struct options *o;
	const volatile sig_atomic_t *terminated;
	struct leg client, server;
	struct record_view view;
	struct record_times times;
	struct record_totals totals;
	struct tls_facts facts;
	int64_t now, started;

	/* the server: who, and how far */
	enum session_server state;
	enum session_greet greet;
	enum smtp_verb greet_verb; /* what the client said, EHLO or HELO */
	struct net_outbound outbound;
	union net_address local, source, original, candidate[SESSION_CANDIDATES]; /* source: our end towards it */
	size_t candidates, next_candidate;
	unsigned next_upstream;
	const struct upstream *upstream; /* NULL: the original destination */
	int claim;			 /* see net_claim() */
	bool redialing;			 /* on a fresh connection, after TLS failed */
	bool no_tls;			 /* it failed: plain this time */
	bool refused;			 /* its greeting was no 220 */

	/* the message */
	size_t held;	   /* octets of the reply whose lines are coming in */
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
	int64_t dialed_at, connected_at, handshake_at, awaiting_since, active_at, partial_since, client_read_at,
	    client_moved_at, server_moved_at, content_at, mail_at, rcpt_at, sent_at, end_at, terminated_at;
	uint64_t handled;      /* units of either side's bytes; a turn goes on while this grows */
	bool client_starved, server_starved; /* nothing complete was left of what it sent */
	bool auth_seen;	       /* what looks like an unknown command may be a secret */
	uint64_t content_from; /* octets received when the message began */
	uint64_t awaited_reply; /* replies seen before the one that is awaited */
	uint64_t replies;	/* whole replies of the server's */
	bool awaiting;

	char host[256];	     /* what replies call the server */
	unsigned char helo[SMTP_HOST_MAX];
	struct session_texts *text;
	struct dialogue dialogue; /* last: it ends with what is large */
};

/* Serve the connected socket fd until its end. SIGTERM must be blocked, and its handler count in *terminated: it ends
 * the session after the message that is under way, or --drain-timeout; a second one at once. Only the reply to a whole
 * message is always waited for. SIGPIPE must be ignored. */
void session_run(int fd, const struct options *o, const volatile sig_atomic_t *terminated);

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

/* ---- upstream.c ---- */

/* Find out where to connect and begin. */
void upstream_start(struct session *s);

/* The connection attempt has an outcome (poll says so). */
void upstream_connected(struct session *s);

/* Bytes of a handshake went in or out. */
void upstream_handshake(struct session *s);

/* Leave the server for good: SERVER_GONE. */
void upstream_close(struct session *s);

/* The server cannot be reached or used: try the next, or tell the client. reason: is copied. */
void upstream_failed(struct session *s, const char *enhanced, const char *reason);

/* The client said EHLO or HELO. */
void upstream_greet(struct session *s, const struct smtp_command *cmd);

/* A reply to greeting, EHLO, HELO or STARTTLS. */
void upstream_reply(struct session *s, const struct dialogue_reply *r);

/* TLS failed or is not offered. */
void upstream_tls_failed(struct session *s, const char *reason);

/* ---- relay.c ---- */

/* Handle what the client has said as far as possible. */
void relay_client(struct session *s);

/* Handle what the server has said as far as possible. */
void relay_server(struct session *s);

/* The server is gone though we still needed it. reason: static storage. */
void relay_server_lost(struct session *s, const char *reason);

/* The server's reply, of which this is the last line, goes to the client. */
void relay_pass(struct session *s, const struct dialogue_reply *r);

/* Replies of ours whose turn has come. */
void relay_local_replies(struct session *s);

/* Send a command of ours, a line without CRLF. */
void relay_own_command(struct session *s, enum smtp_verb verb, const char *line, size_t n);

/* End the transaction, if there is one, and write its record. result NULL: as the replies have it. */
void relay_end_transaction(struct session *s, const char *result);

/* Whether the whole message was sent and its reply is awaited: what became of it is not known yet. */
bool relay_outcome_due(const struct session *s);

#endif
