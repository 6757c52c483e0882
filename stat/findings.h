/* What a report tells, counted from records in one pass, in memory that does not grow with the log.
 */
#ifndef FINDINGS_H
#define FINDINGS_H

#include "stat/logfilter.h"
#include "stat/tally.h"

#define FINDINGS_SITES 512 /* the first is for all others */
#define FINDINGS_HOURS 168 /* the newest ones; what is older counts in totals only */
#define FINDINGS_DELAYS 40 /* buckets, each up to half an octave longer than the one before, from 1 ms on */
#define FINDINGS_CLASSES 32
#define FINDINGS_SOURCES 32 /* the first is for all others */
#define FINDINGS_PERIODS 1024
#define FINDINGS_SESSIONS 65536 /* whose source address is remembered */

enum findings_result { FINDINGS_ACCEPTED, FINDINGS_DEFERRED, FINDINGS_REJECTED, FINDINGS_OTHER, FINDINGS_RESULTS };

/* An hour of a site. */
struct findings_cell {
	uint32_t result[FINDINGS_RESULTS]; /* messages */
	uint32_t delay[FINDINGS_DELAYS];   /* from DATA to 354 */
};

struct findings_site {
	char name[LOGRECORD_SITE];
	uint64_t result[FINDINGS_RESULTS], messages, recipients;
	uint64_t class[FINDINGS_CLASSES]; /* of recipients and refusals, as findings.class_name has them */
	uint64_t delay[FINDINGS_DELAYS], delays;
	struct findings_cell hour[FINDINGS_HOURS]; /* a ring: hour since 1970 modulo FINDINGS_HOURS */
};

struct findings_source {
	char name[48];
	uint64_t connections, result[FINDINGS_RESULTS], messages;
	uint64_t class[FINDINGS_CLASSES];
};

/* A time of a site and a source address that was not "ok". */
struct findings_period {
	char site[LOGRECORD_SITE], source[48], state[16], why[64], evidence[200];
	int64_t since, until; /* until: 0: it has not ended */
};

struct findings {
	struct logfilter filter;
	uint64_t records, sessions, messages, recipients, octets, older, result[FINDINGS_RESULTS];
	int64_t first, last;	/* seconds of the records, 0: there is none */
	int64_t newest;		/* hour since 1970 */
	unsigned sites, sources, classes, periods;
	uint64_t periods_lost;
	char class_name[FINDINGS_CLASSES][32]; /* the first is "ok", the last counts for those that there is no room for */
	unsigned class_rank[FINDINGS_CLASSES]; /* among those that refuse; 0: the most frequent one */
	struct findings_site site[FINDINGS_SITES];
	struct findings_source source[FINDINGS_SOURCES];
	struct findings_period period[FINDINGS_PERIODS];
	struct { uint64_t session; unsigned source; } of_session[FINDINGS_SESSIONS];
	uint16_t site_place[2 * FINDINGS_SITES]; /* 1 + number, by hash */
	struct tally texts;   /* "SITE\tCODE\tCLASS\tTEXT", digits folded */
	struct tally senders; /* messages, messages not accepted, octets */
	struct tally clients; /* likewise */
	struct tally tls;     /* "VERSION\tVERIFIED": messages */
	struct tally failures; /* reasons of failed TLS handshakes */
	struct tally hooks;   /* "HOOK\tEVENT": runs, failures, verdicts other than accept, thousandths of ms */
};

/* NULL: there is no memory. */
struct findings *findings_new(void);

/* A record. */
void findings_take(struct findings *f, const struct logrecord *r);

/* Sites in order of their messages, classes ranked and tallies in order of their counts. Nothing is taken any more. */
void findings_order(struct findings *f);

/* The delay, in milliseconds, that so many percent of these are below; -1: there are none. 64: counts of uint64_t. */
double findings_percentile(const uint32_t delay[FINDINGS_DELAYS], unsigned percent);
double findings_percentile64(const uint64_t delay[FINDINGS_DELAYS], unsigned percent);

#endif
