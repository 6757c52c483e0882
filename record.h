/* What smtpwarp tells about a session: one JSON object per event, to the log. Fields are those of smtpwarp(8), LOG.
 */
#ifndef RECORD_H
#define RECORD_H

#include "dialogue.h"
#include "net.h"
#include "tls.h"

#include <stdint.h>

#define RECORD_ID 27 /* a ULID with its NUL */

/* What records of one session have in common. Pointers may be NULL where there is nothing to say. */
struct record_view {
	char id[RECORD_ID];
	union net_address client, server; /* server AF_UNSPEC: none */
	const struct tls_facts *server_tls;
	const unsigned char *helo;
	size_t helo_len;
	const struct dialogue *dialogue;
};

/* Durations in microseconds; -1: it did not come to that. */
struct record_times {
	int64_t connect, banner, tls, mail, rcpt, data, accept;
};

struct record_totals {
	uint64_t messages, recipients, errors; /* accepted messages and recipients; bad commands */
	uint64_t client_in, client_out, server_in, server_out; /* octets */
	int64_t duration;
	const char *by, *reason;
};

/* Make a ULID: 48 bits of milliseconds, 80 random ones. */
void record_id(char id[RECORD_ID]);

void record_connect(const struct record_view *v, const union net_address *original, const union net_address *source,
    const struct record_times *t, const struct smtp_line *banner);
/* result: "ok", "failed" or "fallback"; facts and reason may be NULL. */
void record_tls(const struct record_view *v, enum tls_level level, const char *result, const char *name,
    const struct tls_facts *facts, const char *reason, int64_t us);
/* The transaction as the dialogue has it now. */
void record_message(const struct record_view *v, const char *result, const struct record_times *t);
void record_close(const struct record_view *v, const struct record_times *t, const struct record_totals *totals);
void record_error(const struct record_view *v, const char *error);
/* direction: "->" and so on. */
void record_comm(const struct record_view *v, const char *direction, const void *bytes, size_t n);

/* An error that belongs to no session. client: whom it hit, or NULL. */
void record_fault(const char *error, const union net_address *client);

#endif
