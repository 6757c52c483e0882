/* Records: what the log and hooks are told of a session, one JSON object per event. smtpwarp-log(5) has the fields.
 *
 * Everything is read from the session's parts when the record is written; nothing here changes a session. Where a record goes is for
 * io/log.c.
 */
#ifndef RECORD_H
#define RECORD_H

#include "session/state.h"

#include <stdint.h>

#define RECORD_NOTES_MAX 4096

/* Notes: keys and values of hooks' `log` verdicts. */
struct record_notes {
	size_t len;
	unsigned char bytes[RECORD_NOTES_MAX];
};

/* Add the note of a `log` verdict to this transaction, as dialogue.transactions counts; 0: to the session. false: there is no room. */
bool record_note(struct record_notes *notes, uint32_t transaction, const struct verdict *v);

/* The outcome of TLS on one side. Texts that there are none of are NULL. */
enum record_side { RECORD_CLIENT, RECORD_SERVER };
enum record_tls_result { RECORD_TLS_OK, RECORD_TLS_FAILED, RECORD_TLS_FALLBACK, RECORD_TLS_PASSTHROUGH };
struct record_handshake {
	enum record_side side;
	enum record_tls_result result;
	const char *level, *name;
	const char *policy; /* of the recipient's domain; NULL: none */
	const char *reason;
	const struct tls_facts *facts; /* NULL: there is no TLS */
	int64_t us;		       /* how long the handshake took, microseconds; -1: there was none */
	int64_t plain_in;	       /* how long mail is deferred, until it may go in plain, microseconds; 0: it is not */
};

/* Who says what to whom. The marks are Warp's. */
enum record_direction {
	COMM_ON,	/* -> the client's command goes on to the server */
	COMM_BACK,	/* <- the server's reply goes on to the client */
	COMM_TAKEN,	/* >| the client's command ends here */
	COMM_ANSWERED,	/* <| our reply to the client */
	COMM_OWN,	/* |> our command to the server */
	COMM_OWN_REPLY, /* |< the server's reply to a command of ours */
	COMM_NOTE	/* -- a note of ours */
};

/* Make a ULID: 48 bits of milliseconds since 1970 and 80 random bits, in Crockford's base 32. */
void record_id(char id[SESSION_ID]);

/* Record "connect": the server's banner is in; *banner is its last line. */
void record_connect(const struct session *s, const struct smtp_line *banner);

/* Record "tls". */
void record_tls(const struct session *s, const struct record_handshake *h);

/* Record "message": the transaction as pure/dialogue.h has it now. In parts, if it is too long for the log. */
void record_message(const struct session *s, enum transaction_result result);

/* Record "close": the session is over. */
void record_close(const struct session *s);

/* The line that hooks of this event get; for MAIL and RCPT it tells of the held command. Returns octets at *line, which stays until the
 * next call; 0: the line does not fit. smtpwarp-hooks(7), INPUT. */
size_t record_hook(const struct session *s, enum hook_event event, const char **line);

/* Record "verdict" of a hook. word: its final word, or "failed"; text: that word's text, or why it failed; lines: n octets of the
 * verdict as the hook gave it; us: how long it took, microseconds. */
void record_verdict(const struct session *s, enum hook_event event, const char *hook, const char *word,
    const unsigned char *text, size_t text_len, const unsigned char *lines, size_t n, int64_t us);

/* What a DNS list says of a client. */
struct record_listing {
	const char *zone;
	bool answered;
	uint32_t address; /* of the answer, in host order */
	int weight;	  /* what it adds to the score */
	const char *failure; /* NULL: none */
};

/* The outcome of a check of the client. */
struct record_check {
	const char *on, *verdict;
	const char *text;	   /* of the reply; NULL: the client passed */
	const unsigned char *data; /* what the client said too early; NULL: nothing */
	size_t data_len;
	const struct record_listing *listing; /* NULL: no list was asked */
	unsigned listings;
	int score;
	int64_t us; /* how long it took, microseconds */
};

/* Record "verdict" of a check. */
void record_check(const struct session *s, const struct record_check *c);

/* Record "refusal": session's refusal. */
void record_refusal(const struct session *s);

/* How a server treats one of our addresses has changed. Words are static storage. */
struct record_backoff {
	const char *source; /* that address */
	const char *from, *to, *why;
	uint32_t score;
	int64_t hold; /* microseconds from now; 0: none */
	enum reply_class class; /* of the text */
	const char *text;	/* what the server has refused last; "": nothing */
};

/* Record "backoff". */
void record_backoff(const struct session *s, const struct record_backoff *b);

/* Record "error". */
void record_error(const struct session *s, const char *error);

/* Record "comm": n octets of a line. */
void record_comm(const struct session *s, enum record_direction direction, const void *bytes, size_t n);

#endif
