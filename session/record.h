/* What smtpwarp tells about a session: one JSON object per event, to the log. Fields are those of smtpwarp(8), LOG.
 */
#ifndef RECORD_H
#define RECORD_H

#include "pure/dialogue.h"
#include "io/net.h"
#include "tls.h"
#include "pure/verdict.h"

#include <stdint.h>

#define RECORD_ID 27 /* a ULID with its NUL */

#define RECORD_NOTES_MAX 4096

/* What `log KEY VALUE` verdicts said: each entry is of a transaction, or of the session (0). */
struct record_notes {
	size_t len;
	unsigned char bytes[RECORD_NOTES_MAX];
};

/* Add a note; false: there is no room. */
bool record_note(struct record_notes *notes, uint32_t transaction, const struct verdict *v);

/* What records of one session have in common. Pointers may be NULL where there is nothing to say. */
struct record_view {
	char id[RECORD_ID];
	union net_address client, server; /* server AF_UNSPEC: none; AF_UNIX: server_path */
	const char *server_path;
	union net_address proxy; /* who told us of the client by a PROXY header; AF_UNSPEC: nobody */
	const struct tls_facts *client_tls, *server_tls;
	const unsigned char *helo;
	size_t helo_len;
	const struct dialogue *dialogue;
	const struct record_notes *notes;
};

/* Durations in microseconds; -1: it did not come to that. */
struct record_times {
	int64_t connect, banner, tls, mail, rcpt, data, accept;
};

struct record_totals {
	uint64_t messages, recipients, errors; /* accepted messages and recipients; bad commands */
	uint64_t dropped;		       /* records that `log` hooks have lost */
	uint64_t client_in, client_out, server_in, server_out; /* octets */
	int64_t duration;
	const char *by, *reason;
};

/* Make a ULID: 48 bits of milliseconds, 80 random ones. */
void record_id(char id[RECORD_ID]);

void record_connect(const struct record_view *v, const union net_address *original, const union net_address *source,
    const struct record_times *t, const struct smtp_line *banner);
/* side: "upstream" or "client"; result: "ok", "failed", "fallback" or "passthrough"; name, facts and reason may be NULL. */
void record_tls(const struct record_view *v, const char *side, const char *level, const char *result, const char *name,
    const struct tls_facts *facts, const char *reason, int64_t us);
/* The transaction as the dialogue has it now. */
void record_message(const struct record_view *v, const char *result, const struct record_times *t);
void record_close(const struct record_view *v, const struct record_times *t, const struct record_totals *totals);
/* The line that a hook of this event gets: octets at *line, which stays until the next call; 0: it does not fit. original:
 * of a connect event; cmd: the MAIL or RCPT that is being decided; t and totals: of a close event. NULL where there are none. */
size_t record_hook(const struct record_view *v, enum hook_event event, const union net_address *original,
    const struct smtp_command *cmd, const struct record_times *t, const struct record_totals *totals, const char **line);
/* What a hook said: its final word ("failed" for none) and text, the lines before that (n octets). */
void record_verdict(const struct record_view *v, enum hook_event event, const char *hook, const char *word,
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

void record_check(const struct record_view *v, const struct record_check *c);
void record_error(const struct record_view *v, const char *error);
/* direction: "->" and so on. */
void record_comm(const struct record_view *v, const char *direction, const void *bytes, size_t n);

/* An error that belongs to no session. client: whom it hit, or NULL. */
void record_fault(const char *error, const union net_address *client);

#endif
