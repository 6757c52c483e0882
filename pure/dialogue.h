/* The order of an SMTP conversation: what the client may say now, which reply belongs to which command, and what becomes of the
 * transaction. Pure, as smtp.h is; the caller owns sockets, clocks and policy.
 *
 *   client -> server   enum dialogue_client says how to read the client's next byte
 *   server -> client   each reply answers the oldest entry of the queue (RFC 2920 3.2)
 *   queue              commands that were sent and await their reply, and replies of ours that wait for their turn
 *   LMTP               the end of a message has a reply for each accepted recipient (RFC 2033 4.2); a client that speaks SMTP
 *                      can be given only one, so each of its messages has one recipient
 *
 * Invariants: the head of the queue is its oldest entry; queued <= DIALOGUE_QUEUE_MAX; a message in DATA is read only while the
 * queue is empty; the next reply to RCPT is for recipient number tx.rcpts - tx.unanswered.
 */
#ifndef DIALOGUE_H
#define DIALOGUE_H

#include "pure/replyclass.h"
#include "smtp.h"

#define DIALOGUE_QUEUE_MAX 72	     /* --max-pipeline is less by 2 or more */
#define DIALOGUE_RCPT_MAX 10000	     /* upper limit of --max-recipients */
#define DIALOGUE_LMTP_MAX 100	     /* replies to a message, at most, to a client that speaks LMTP */
#define DIALOGUE_TEXT_MAX (1u << 20) /* octets for addresses and parameters of one transaction */
#define DIALOGUE_SAID_MAX (252u << 9)  /* octets for what servers say to recipients of one transaction: not 128 KiB, so that what is small behind
				       * it, here and in the C library, stands in as few pages as possible */
#define DIALOGUE_CLIP 200	     /* octets that are kept of such a text */

/* Replies that others give, too. */
#define DIALOGUE_NOT_OFFERED "555 5.5.4 A parameter is not offered here"
#define DIALOGUE_TOO_LARGE "552 5.3.4 Message is larger than this server takes"

struct dialogue_limits {
	uint64_t message_size; /* octets, 0: no limit */
	uint32_t recipients;
	uint32_t pipeline;     /* commands that may await their replies */
	uint32_t command_line; /* octets with CRLF; AUTH has another limit */
	enum smtp_newline newline;
	bool on_recipient; /* --connect-on recipient: until then no server is known, and the list of extensions is ours */
	bool mail_late; /* MAIL is answered by us, and goes to the server with the first RCPT: on_recipient, --tls-on recipient */
	bool require_tls; /* refuse a client's commands before STARTTLS, RFC 3207 4 */
	uint32_t alone; /* bits of enum smtp_verb: commands that wait until all before them are answered */
};

/* How to read the client's next bytes. */
enum dialogue_client {
	DIALOGUE_COMMAND,
	DIALOGUE_RESPONSE, /* a line, after 334 */
	DIALOGUE_DATA,	   /* a message up to the dot, after 354 */
	DIALOGUE_CHUNK,	   /* octets of BDAT */
	DIALOGUE_SWALLOW   /* octets of a BDAT that was refused, to be discarded */
};

struct dialogue_pending {
	unsigned char verb; /* enum smtp_verb */
	bool hidden;	   /* a command of ours: the client does not see its reply */
	bool last;	   /* BDAT LAST */
	uint16_t replies;  /* replies that the server owes: more than 1 for a message by LMTP */
	const char *local; /* a reply of ours that waits for its turn; NULL: the server owes one */
};

/* Whose a reply is. */
enum dialogue_by { DIALOGUE_BY_SMTPWARP, DIALOGUE_BY_UPSTREAM, DIALOGUE_BY_HOOK };

/* What a refusal means. */
struct dialogue_judgement {
	unsigned char by;    /* enum dialogue_by */
	unsigned char class; /* enum reply_class, where it is the upstream's: else REPLY_OK */
	unsigned char scope; /* enum reply_scope */
};

/* A sender or recipient: offsets into the transaction's text. */
struct dialogue_mailbox {
	uint32_t address, params, original;
	uint32_t said; /* offset into the transaction's said: the last line of the reply, if it is a refusal or LMTP's */
	uint16_t address_len, params_len, original_len; /* original: before it was rewritten; 0 octets: it was not rewritten */
	uint16_t code; /* of the reply, by LMTP of the reply to the message; 0: not answered */
	uint16_t enhanced[3];
	unsigned char said_len; /* 0: none, or there was no room */
	struct dialogue_judgement judgement;
};

/* The reply that decided a transaction. text is cut if it is too long. */
struct dialogue_decision {
	int code; /* 0: none yet */
	uint16_t enhanced[3];
	struct dialogue_judgement judgement;
	size_t text_len;
	unsigned char text[512];
};

enum dialogue_mail { DIALOGUE_NO_MAIL, DIALOGUE_MAIL_SENT, DIALOGUE_MAIL_OPEN, DIALOGUE_MAIL_REFUSED };

/* Only what was used is cleared, so that an idle session touches few pages. */
struct dialogue_transaction {
	enum dialogue_mail mail;
	bool chunks;	 /* BDAT was sent: DATA and RCPT may not follow, RFC 3030 2 */
	bool binarymime; /* needs BDAT, RFC 3030 3 */
	bool eightbit;	 /* BODY=8BITMIME */
	bool smtputf8;
	bool requiretls; /* RFC 8689 */
	bool complete;	 /* all of it was sent, with the final dot or BDAT LAST */
	uint64_t octets; /* octets of content so far, without dot stuffing */
	uint32_t rcpts, accepted, unanswered, text_len, said_len;
	uint32_t settled; /* LMTP: recipients before this one need no further reply */
	struct dialogue_mailbox sender;
	struct dialogue_mailbox rcpt[DIALOGUE_RCPT_MAX];
	unsigned char text[DIALOGUE_TEXT_MAX];
	unsigned char said[DIALOGUE_SAID_MAX];
	struct smtp_header header;
	struct dialogue_decision decision;
};

struct dialogue {
	struct dialogue_limits limits;
	enum dialogue_client client;
	bool greeted;	    /* EHLO or HELO was answered 250 */
	bool group_ended;   /* the last command ended its pipelined group */
	bool skipping;	    /* the rest of a line that was too long */
	bool skipped_fatal; /* that line was BDAT, or HTTP */
	bool authenticated; /* AUTH succeeded; it may do so once, RFC 4954 4 */
	bool encrypted;	    /* the client speaks TLS to us */
	bool auth_later;    /* with on_recipient: we would offer AUTH inside TLS */
	bool lmtp, lmtp_client; /* whether the server and the client speak LMTP */
	struct smtp_offer offer;
	int reply_code; /* of the last line of the reply that is being received, else 0 */
	uint64_t chunk; /* octets of BDAT still to come */
	bool chunk_last;
	bool kept;     /* the message is kept here for now: the server has none of it */
	bool quitting; /* see dialogue_quitting() */
	uint32_t transactions; /* transactions begun so far */
	unsigned head, queued;
	struct smtp_scanner scanner;
	unsigned auth_step; /* lines that the client has sent in this AUTH exchange */
	size_t mech_len, user_len;
	unsigned char mech[32], user[256]; /* user: who the client says it is; proven once authenticated */
	struct smtp_ehlo ehlo;
	struct dialogue_pending queue[DIALOGUE_QUEUE_MAX]; /* a ring; head returns to 0 when it is empty */
	struct dialogue_transaction tx;
};

enum dialogue_status {
	DIALOGUE_MORE,	 /* *used > 0: offer the rest again; else nothing is complete yet: read on */
	DIALOGUE_WAIT,	 /* replies must come first: do not use the client's bytes yet */
	DIALOGUE_LINE,	 /* a command in *cmd */
	DIALOGUE_ANSWER, /* the answer to 334, in cmd->line: never log it */
	DIALOGUE_PIECE	 /* bytes of a message in *piece */
};

struct dialogue_reply {
	struct smtp_line line;
	enum smtp_verb verb; /* the command that it answers */
	bool hidden;
	bool first;
	bool content_end;      /* it answers the end of a message: the final dot or BDAT LAST */
	bool more;	       /* with content_end: further replies are to come */
	bool list;	       /* a line of an EHLO reply's list */
	const char *violation; /* why the reply does not belong here, which makes the server useless; else NULL */
};

/* Begin a dialogue, which awaits the server's greeting. *d must be zeroed before its first use, e.g. static. */
void dialogue_init(struct dialogue *d, const struct dialogue_limits *limits);

/* Look at n bytes of the client; n may be 0. *used: how many are spent; cmd and piece lead into them. DIALOGUE_PIECE may come
 * with n == 0, for BDAT 0 LAST. */
enum dialogue_status dialogue_client_next(struct dialogue *d, const unsigned char *in, size_t n, size_t *used,
    struct smtp_command *cmd, struct smtp_piece *piece);

/* The reply to this command if it must not be sent on (static storage, no CRLF); NULL: it may be. Checks order, limits and
 * parameters: RFC 5321 4.1.4, RFC 1870 6.1, RFC 3030 2, RFC 3207 4, RFC 4954 4, RFC 8689 4.2. */
const char *dialogue_check(const struct dialogue *d, const struct smtp_command *cmd);

/* The command was sent on. After BDAT its octets follow as pieces. */
void dialogue_sent(struct dialogue *d, const struct smtp_command *cmd);

/* A kept message was announced to the server as one chunk, BDAT LAST. The caller sends its octets; the client sends none. */
void dialogue_sent_kept(struct dialogue *d);

/* How many replies the client is owed at the end of the message: 1, or by LMTP one for each accepted recipient that has none
 * yet. */
uint32_t dialogue_replies_due(const struct dialogue *d);

/* A command of ours was sent; or, for SMTP_GREETING and SMTP_CONTENT, a reply is awaited without one. hidden: the client does
 * not see it. */
void dialogue_expect(struct dialogue *d, enum smtp_verb verb, bool hidden);

/* Answer the command ourselves, with this reply (static storage), when its turn comes. The octets of a BDAT are discarded; a
 * MAIL that was in order leaves a refused transaction. A chunk that is too large spoils the message: the caller must end the
 * transaction, here and at the server. */
void dialogue_refuse(struct dialogue *d, const struct smtp_command *cmd, const char *reply);

/* We refused this MAIL or RCPT with a reply that was sent already. text: without the code. */
void dialogue_refused(struct dialogue *d, const struct smtp_command *cmd, int code, const unsigned char *text, size_t n);

/* We answered this MAIL with 250; the server gets it later. */
void dialogue_opened(struct dialogue *d, const struct smtp_command *cmd);

/* The octets of this BDAT follow as pieces, and are to be kept. */
void dialogue_keep_chunk(struct dialogue *d, const struct smtp_command *cmd);

/* The next octets of the message, sent on or kept: looks for the Message-ID. */
void dialogue_scan(struct dialogue *d, const unsigned char *bytes, size_t n);

/* A kept message was edited: these n octets are the whole of it now. */
void dialogue_edited(struct dialogue *d, const unsigned char *bytes, size_t n);

/* All of the message was sent to the server, with the final dot or as the chunk of BDAT LAST. */
void dialogue_complete(struct dialogue *d);

/* The last recipient was rewritten: the client gave this address of n octets. */
void dialogue_rewritten(struct dialogue *d, const unsigned char *original, size_t n);

/* Take a reply of ours off the queue if its turn has come, else NULL. */
const char *dialogue_local_reply(struct dialogue *d);

/* Look at n bytes of the server. true: *r is a reply line (or a violation) of *used octets; false: more bytes are needed. The
 * last line of a reply takes its entry off the queue and has its effect: its code is the reply's, whatever those before it
 * say, as Postfix and others have it (RFC 5321 4.2.1 wants them all the same). Take our own replies first. */
bool dialogue_server_next(struct dialogue *d, const unsigned char *in, size_t n, size_t *used,
    struct dialogue_reply *r);

/* The command that the server owes a reply to next; SMTP_NOTHING: none. */
enum smtp_verb dialogue_awaited(const struct dialogue *d);

/* Whether QUIT was the client's last command that was sent on, and the server has not refused it with 4xx or 5xx other than 421:
 * then it needs no QUIT of ours. */
bool dialogue_quitting(const struct dialogue *d);

/* A connection to a server begins. lmtp: it speaks LMTP (RFC 2033). */
void dialogue_server_speaks(struct dialogue *d, bool lmtp);

/* One line of the list of extensions, as for smtp_ehlo_line(), where it does not come from the server's reply to EHLO: from its
 * reply to HELO, or from us. */
void dialogue_ehlo_line(struct dialogue *d, bool first, const unsigned char *text, size_t n);

/* The server was greeted with HELO: it offers no extensions. */
void dialogue_no_extensions(struct dialogue *d);

/* Treat these extensions, bits of enum smtp_extension, as not offered by the server. */
void dialogue_withdraw(struct dialogue *d, unsigned extensions);

/* Set what the client is offered. auth_later: see the member. */
void dialogue_offers(struct dialogue *d, const struct smtp_offer *offer, bool auth_later);

/* The client's EHLO, HELO or LHLO was answered 250. lmtp: it was LHLO, so the client speaks LMTP. */
void dialogue_greeted(struct dialogue *d, bool lmtp);

/* Let these commands, too, bits of enum smtp_verb, wait until all before them are answered: see `alone`. */
void dialogue_set_alone(struct dialogue *d, uint32_t verbs);

/* The client speaks TLS from here on: what came before may be somebody else's, RFC 3207 4.2. */
void dialogue_encrypted(struct dialogue *d);

/* 354 was sent to the client: a message comes next. keep: the pieces are to be the message itself, without dot stuffing and the
 * final dot. */
void dialogue_begin_data(struct dialogue *d, bool keep);

/* Whether DATA or BDAT content is being received. */
bool dialogue_in_content(const struct dialogue *d);

/* The end of the message in DATA was read: commands come next. */
void dialogue_end_data(struct dialogue *d);

/* The server is gone, or will be asked again: it owes nothing any more. How the client is read does not change. */
void dialogue_forget_server(struct dialogue *d);

/* This reply decides the transaction. text: without the code; if it begins with an enhanced code that is used. */
void dialogue_decide(struct dialogue *d, int code, const unsigned char *text, size_t n);

/* The same, with the enhanced code beside the text. */
void dialogue_decide_enhanced(struct dialogue *d, int code, const uint16_t enhanced[3], const unsigned char *text, size_t n);

/* The reply that was noted last is a refusal by this side, and means that: of the last recipient answered for SMTP_RCPT, else of the
 * message, by LMTP of the recipient that it was for as well. What is not judged is smtpwarp's own. */
void dialogue_judge(struct dialogue *d, enum smtp_verb verb, enum dialogue_by by, enum reply_class class, enum reply_scope scope);

/* Octets of a reply's text that are kept: DIALOGUE_CLIP at most, and no character of UTF-8 in part. */
size_t dialogue_clip(const unsigned char *text, size_t n);

/* The transaction is over, its record written. */
void dialogue_end_transaction(struct dialogue *d);

#endif
