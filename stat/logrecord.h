/* One record of the log, smtpwarp-log(5), read where it lies. No I/O.
 */
#ifndef LOGRECORD_H
#define LOGRECORD_H

#include "pure/jsonread.h"

#define LOGRECORD_NONE INT64_MIN /* of a number: the record has none */
#define LOGRECORD_SITE 48	 /* octets of a site's name, with its NUL */

/* How a recipient, a greeting or another refusal ended. Numbers are thousandths. */
struct logrecord_outcome {
	struct jsonread_text address; /* of a recipient */
	struct jsonread_text class, text;
	int64_t code;
};

/* Texts have escapes, see jsonread.h, and are inside of the line. */
struct logrecord {
	struct jsonread_text event, time, session, site, from, by, reason;
	struct jsonread_text client, server, source; /* addresses */
	struct jsonread_text result, recipients;     /* recipients: the array */
	struct jsonread_text tls_version, server_tls_version;
	struct jsonread_text hook, on, verdict;
	struct jsonread_text state_from, state_to, why;
	struct logrecord_outcome own, reply, refusal;
	int64_t size, first_rcpt, data_reply_ms, data_ms, rcpt_ms, accept_ms, hook_ms;
	bool server_tls_verified;
	int64_t second; /* of the record, since 1970 */
};

/* Read a line of n octets, which may end in LF. false: it is no record. */
bool logrecord_read(struct logrecord *r, const char *line, size_t n);

/* Go through the recipients: jsonread_begin() on r->recipients and jsonread_array() come before it. false: that was the last. */
bool logrecord_recipient(struct jsonread *at, struct logrecord_outcome *o);

/* The site's name: of the record, or, where that has none, the network of the server; "" if there is no server either. Returns site. */
const char *logrecord_site(const struct logrecord *r, char site[LOGRECORD_SITE]);

/* The class of an outcome: its own, or for records that have none "ok" or "other". NULL: it has no reply. */
const char *logrecord_class(const struct logrecord_outcome *o, char class[32]);

/* Seconds since 1970 of "2026-11-28", "2026-11-28T12:50" or "2026-11-28T12:50:00.5Z", in UTC. false: it is none. */
bool logrecord_second(const char *text, size_t n, int64_t *second);

#endif
