/* The order of an SMTP conversation: what the client may say now, which reply belongs to which command, and what
 * becomes of the transaction. Pure as smtp.h is; the caller owns sockets, clocks and policy.
 *
 *   client -> server   enum dialogue_client says how the client's next byte is to be read
 *   server -> client   each reply belongs to the oldest entry of the queue (RFC 2920 3.2)
 *   queue              commands sent that await their reply, and replies of ours waiting for their turn
 *   LMTP               the end of a message awaits a reply for each recipient that was accepted (RFC 2033 4.2), of which a
 *                      client that speaks SMTP can be given one: each of its messages has one recipient
 *
 * Invariants: head of the queue is the oldest; queued <= DIALOGUE_QUEUE_MAX; a message is read (DATA) only while the
 * queue is empty; tx.rcpts - tx.unanswered is the recipient that the next RCPT reply is for.
 */
#ifndef DIALOGUE_H
#define DIALOGUE_H

#include "smtp.h"

#define DIALOGUE_QUEUE_MAX 72	     /* --max-pipeline is less than this */
#define DIALOGUE_RCPT_MAX 10000	     /* --max-recipients is at most this */
#define DIALOGUE_LMTP_MAX 100	     /* replies to a message that a client which speaks LMTP is given */
#define DIALOGUE_TEXT_MAX (1u << 20) /* octets of addresses and parameters of one transaction */

struct dialogue_limits {
	uint64_t message_size; /* octets, 0: no limit */
	uint32_t recipients;
	uint32_t pipeline;     /* commands that may await replies */
	uint32_t command_line; /* octets with CRLF, AUTH excepted */
	enum smtp_newline newline;
	bool on_recipient; /* --connect-on recipient: no server is known before; the list of extensions is ours */
	bool require_tls; /* of the client, before anything that matters, RFC 3207 4 */
	uint32_t alone; /* bits of enum smtp_verb: commands that wait until all before them are answered */
};

/* How the client's next bytes are to be read. */
enum dialogue_client {
	DIALOGUE_COMMAND,
	DIALOGUE_RESPONSE, /* a line, after 334 */
	DIALOGUE_DATA,	   /* a message up to the dot, after 354 */
	DIALOGUE_CHUNK,	   /* octets of BDAT */
	DIALOGUE_SWALLOW   /* octets of a BDAT that was refused */
};

struct dialogue_pending {
	unsigned char verb; /* enum smtp_verb */
	bool hidden;	   /* ours: its reply is not for the client */
	bool last;	   /* BDAT LAST */
	uint16_t replies;  /* that the server owes: more than 1 for a message by LMTP */
	const char *local; /* our own reply, waiting for its turn; NULL: the server owes one */
};

/* Sender or recipient as stored: offsets into the transaction's text. */
struct dialogue_mailbox {
	uint32_t address, params, original;
	uint16_t address_len, params_len, original_len; /* original: before it was rewritten; 0 octets: it was not */
	uint16_t code; /* of the reply, by LMTP of that to the message; 0: not answered */
	uint16_t enhanced[3];
};

/* The reply that decided a transaction. text is cut to its size. */
struct dialogue_decision {
	int code; /* 0: none yet */
	uint16_t enhanced[3];
	size_t text_len;
	unsigned char text[512];
};

enum dialogue_mail { DIALOGUE_NO_MAIL, DIALOGUE_MAIL_SENT, DIALOGUE_MAIL_OPEN, DIALOGUE_MAIL_REFUSED };

/* Cleared only as far as it was used, so that an idle session touches few pages. */
struct dialogue_transaction {
	enum dialogue_mail mail;
	bool chunks;	 /* BDAT was sent: no DATA or RCPT any more, RFC 3030 2 */
	bool binarymime; /* only BDAT will do, RFC 3030 3 */
	bool eightbit;	 /* BODY=8BITMIME */
	bool smtputf8;
	bool complete;	 /* all of it went, with the dot or LAST */
	uint64_t octets; /* of content so far, without stuffing */
	uint32_t rcpts, accepted, unanswered, text_len;
	uint32_t settled; /* LMTP: recipients before this one need no further reply */
	struct dialogue_mailbox sender;
	struct dialogue_mailbox rcpt[DIALOGUE_RCPT_MAX];
	unsigned char text[DIALOGUE_TEXT_MAX];
	struct smtp_header header;
	struct dialogue_decision decision;
};

struct dialogue {
	struct dialogue_limits limits;
	enum dialogue_client client;
	bool greeted;	    /* EHLO or HELO was answered 250 */
	bool hold;	    /* the last command ended its group */
	bool skipping;	    /* in the rest of a line that was too long */
	bool skipped_bdat;  /* which began with BDAT */
	bool authenticated; /* RFC 4954 4: once */
	bool encrypted;	    /* the client speaks TLS to us */
	bool auth_later;    /* with on_recipient: AUTH would be offered inside TLS */
	bool lmtp, lmtp_client; /* the server, the client speaks LMTP */
	struct smtp_offer offer;
	int reply_code; /* of the reply whose lines are coming in, else 0 */
	uint64_t chunk; /* octets of BDAT still to come */
	bool chunk_last;
	bool kept;     /* the message is kept here for now: none of it has gone to the server */
	bool quitting; /* see dialogue_quitting() */
	uint32_t transactions; /* begun so far */
	unsigned head, queued;
	struct smtp_scanner scanner;
	unsigned auth_step; /* lines sent by the client in this AUTH exchange */
	size_t mech_len, user_len;
	unsigned char mech[32], user[256]; /* user: whom the client says it is; true when authenticated */
	struct smtp_ehlo ehlo;
	struct dialogue_pending queue[DIALOGUE_QUEUE_MAX]; /* from its start again whenever it is empty */
	struct dialogue_transaction tx;
};

enum dialogue_status {
	DIALOGUE_MORE,	 /* *used > 0: offer what is left again; else no complete unit: read on */
	DIALOGUE_WAIT,	 /* replies must come first: leave the client's bytes alone */
	DIALOGUE_LINE,	 /* a command in *cmd */
	DIALOGUE_ANSWER, /* the line that answers 334, in cmd->line: never to be logged */
	DIALOGUE_PIECE	 /* bytes of a message in *piece */
};

struct dialogue_reply {
	struct smtp_line line;
	enum smtp_verb verb; /* what it answers */
	bool hidden;
	bool first;
	bool content_end;      /* it answers the end of a message: the final dot or BDAT LAST */
	bool more;	       /* which has further replies to come */
	bool list;	       /* a line of the list of extensions */
	const char *violation; /* why this is no reply that belongs here: the server is of no further use */
};

/* Make *d new: awaits the server's greeting. d: zeroed storage, e.g. static. */
void dialogue_init(struct dialogue *d, const struct dialogue_limits *limits);

/* Look at n bytes of the client. *used: how many are spent (cmd and piece lead into them). DIALOGUE_PIECE may come
 * with n == 0 (BDAT 0 LAST). n may be 0. */
enum dialogue_status dialogue_client_next(struct dialogue *d, const unsigned char *in, size_t n, size_t *used,
    struct smtp_command *cmd, struct smtp_piece *piece);

/* The reply to give to this command instead of sending it (static storage, no CRLF), NULL: it may go. Order, limits,
 * parameters: RFC 5321 4.1.4, RFC 1870 6.1, RFC 3030 2, RFC 3207 4, RFC 4954 4, RFC 8689 4.2. */
const char *dialogue_check(const struct dialogue *d, const struct smtp_command *cmd);

/* The command was sent on. After BDAT the octets follow as pieces. */
void dialogue_sent(struct dialogue *d, const struct smtp_command *cmd);

/* A kept message goes on as one chunk, BDAT LAST, whose octets the caller sends: none of them come from the client. */
void dialogue_sent_kept(struct dialogue *d);

/* Replies that the client is owed at the end of the message, or of what is left of it: 1, or by LMTP one for each recipient
 * that was accepted and has none. */
uint32_t dialogue_replies_due(const struct dialogue *d);

/* Something of ours was sent, or (SMTP_GREETING, SMTP_CONTENT) its reply is awaited without a command line. */
void dialogue_expect(struct dialogue *d, enum smtp_verb verb, bool hidden);

/* Answer the command ourselves when its turn comes; octets of a BDAT are swallowed, a MAIL that was in order leaves a
 * refused transaction. A chunk that is too large spoils the message: the caller must end the transaction, here and at
 * the server. reply: static storage. */
void dialogue_refuse(struct dialogue *d, const struct smtp_command *cmd, const char *reply);

/* This MAIL or RCPT was refused with a reply of ours that has gone already. text: without the code. */
void dialogue_refused(struct dialogue *d, const struct smtp_command *cmd, int code, const unsigned char *text, size_t n);

/* This MAIL was answered 250 by us; the server hears of it later. */
void dialogue_opened(struct dialogue *d, const struct smtp_command *cmd);

/* The octets of this BDAT follow as pieces, to be kept. */
void dialogue_keep_chunk(struct dialogue *d, const struct smtp_command *cmd);

/* These octets of the message go on, or are kept, next: finds the Message-ID. */
void dialogue_scan(struct dialogue *d, const unsigned char *bytes, size_t n);

/* A kept message was edited: these n octets are all of it now. */
void dialogue_edited(struct dialogue *d, const unsigned char *bytes, size_t n);

/* All of the message went to the server, with the final dot or as the chunk that BDAT LAST announced. */
void dialogue_complete(struct dialogue *d);

/* The recipient that was sent last stands for this address of n octets, which the client gave. */
void dialogue_rewritten(struct dialogue *d, const unsigned char *original, size_t n);

/* Take our own reply off the queue if its turn has come, else NULL. */
const char *dialogue_local_reply(struct dialogue *d);

/* Look at n bytes of the server: true with a reply line (or a violation) and *used, false when more are needed. The
 * last line of a reply takes its entry off the queue and has its effect. Our own replies must have been taken. */
bool dialogue_server_next(struct dialogue *d, const unsigned char *in, size_t n, size_t *used,
    struct dialogue_reply *r);

/* What the server owes a reply to, SMTP_NOTHING if it owes none. */
enum smtp_verb dialogue_awaited(const struct dialogue *d);

/* Whether the last command of the client that went to the server is QUIT, and the server has not refused it with 4xx or 5xx:
 * it was told all that it needs to be told. */
bool dialogue_quitting(const struct dialogue *d);

/* A connection to another server begins: whether that one speaks LMTP (RFC 2033). */
void dialogue_server_speaks(struct dialogue *d, bool lmtp);

/* One line of the list of extensions that holds from here on, where it does not come as the server's reply to EHLO: from its
 * reply to HELO, or from us. As smtp_ehlo_line(). */
void dialogue_ehlo_line(struct dialogue *d, bool first, const unsigned char *text, size_t n);

/* The server offers nothing: it was greeted with HELO. */
void dialogue_no_extensions(struct dialogue *d);

/* These extensions, bits of enum smtp_extension, count as not offered. */
void dialogue_withdraw(struct dialogue *d, unsigned extensions);

/* What the client is offered of them. auth_later: see the member. */
void dialogue_offers(struct dialogue *d, const struct smtp_offer *offer, bool auth_later);

/* The client's greeting was answered 250. lmtp: it was LHLO, so the client speaks LMTP. */
void dialogue_greeted(struct dialogue *d, bool lmtp);

/* These commands, bits of enum smtp_verb, wait as well until all before them are answered: see `alone`. */
void dialogue_set_alone(struct dialogue *d, uint32_t verbs);

/* The client speaks TLS from here on: what it said before may have been somebody else, RFC 3207 4.2. */
void dialogue_encrypted(struct dialogue *d);

/* 354 went to the client: a message comes next. keep: its pieces are the message itself, without stuffing and dot. */
void dialogue_begin_data(struct dialogue *d, bool keep);

/* Whether the client's next bytes belong to a message that was let come. */
bool dialogue_in_content(const struct dialogue *d);

/* The message in DATA was read to its end: commands come next. */
void dialogue_end_data(struct dialogue *d);

/* The server is gone, or will be asked anew: nothing is owed any more. How the client is read does not change. */
void dialogue_forget_server(struct dialogue *d);

/* The reply that decides the transaction. text: without the code; an enhanced code at its start is taken from it. */
void dialogue_decide(struct dialogue *d, int code, const unsigned char *text, size_t n);

/* The same for a text without an enhanced code. */
void dialogue_decide_enhanced(struct dialogue *d, int code, const uint16_t enhanced[3], const unsigned char *text, size_t n);

/* The transaction is over, its record written. */
void dialogue_end_transaction(struct dialogue *d);

#endif
