/* What smtpwarp tells about a session: one JSON object per event, to the log. Fields are those of smtpwarp-log(5).
 */
#ifndef RECORD_H
#define RECORD_H

#include "session/state.h"

#include <stdint.h>

#define RECORD_NOTES_MAX 4096

/* What `log KEY VALUE` verdicts said: each entry is of a transaction, or of the session (0). */
struct record_notes {
	size_t len;
	unsigned char bytes[RECORD_NOTES_MAX];
};

/* Add a note; false: there is no room. */
bool record_note(struct record_notes *notes, uint32_t transaction, const struct verdict *v);

/* How TLS on one side came out. Texts may be NULL where there is nothing to say. */
enum record_side { RECORD_CLIENT, RECORD_SERVER };
enum record_tls_result { RECORD_TLS_OK, RECORD_TLS_FAILED, RECORD_TLS_FALLBACK, RECORD_TLS_PASSTHROUGH };
struct record_handshake {
	enum record_side side;
	enum record_tls_result result;
	const char *level, *name, *reason;
	const struct tls_facts *facts; /* NULL: there is no TLS */
	int64_t us;		       /* -1: no handshake was begun */
};

/* Who says what to whom, with --verbose. The marks are Warp's. */
enum record_direction {
	COMM_ON,       /* -> the client's command goes on to the server */
	COMM_BACK,     /* <- the server's reply goes on to the client */
	COMM_TAKEN,    /* >| the client's command ends here */
	COMM_ANSWERED, /* <| our reply to the client */
	COMM_OWN,      /* |> our command to the server */
	COMM_OWN_REPLY, /* |< the server's reply to it */
	COMM_NOTE      /* -- */
};

/* Make a ULID: 48 bits of milliseconds, 80 random ones. */
void record_id(char id[SESSION_ID]);

/* The server's banner is in, of which this is the last line. */
void record_connect(const struct session *s, const struct smtp_line *banner);

void record_tls(const struct session *s, const struct record_handshake *h);

/* The transaction as the dialogue has it now. */
void record_message(const struct session *s, enum transaction_result result);

/* The session is over. */
void record_close(const struct session *s);

/* The line that a hook of this event gets; in mail and rcpt of the held command. Octets at *line, which stays until the next
 * call; 0: it does not fit. */
size_t record_hook(const struct session *s, enum hook_event event, const char **line);

/* What a hook said: its final word ("failed" for none) and text, the lines before that (n octets). */
void record_verdict(const struct session *s, enum hook_event event, const char *hook, const char *word,
    const unsigned char *text, size_t text_len, const unsigned char *lines, size_t n, int64_t us);
/* What a list of the DNS said of a client. */
struct record_listing {
	const char *zone;
	bool answered;
	uint32_t address; /* in host order, if answered */
	int weight;	  /* that it counts with */
	const char *failure; /* NULL: none */
};

/* What a check of ours on a client came to. */
struct record_check {
	const char *on, *verdict;
	const char *text;    /* of the reply; NULL: there is none */
	const unsigned char *data; /* what the client said too early; NULL: nothing */
	size_t data_len;
	const struct record_listing *listing; /* NULL: no list was asked */
	unsigned listings;
	int score;
	int64_t us;
};

void record_check(const struct session *s, const struct record_check *c);
void record_error(const struct session *s, const char *error);
void record_comm(const struct session *s, enum record_direction direction, const void *bytes, size_t n);


#endif
