/* The file of --state: what all sessions of a host have counted and observed. smtpwarp writes it, smtpwarp-stat reads it; both map it.
 * No I/O here: io/statefile.h makes and maps it.
 *
 * Sessions are killed at any moment, and there is no lock. Each field is a word of 4 or 8 octets, changed in one atomic step, so that a
 * session which dies loses one step at most. Names and texts have a generation beside them: odd while they are written, and a reader takes
 * them only if it was even and the same before and after.
 *
 * A session may have been taken over. Nothing in the map is trusted: whoever reads it bounds what it reads.
 *
 * Times are microseconds of CLOCK_BOOTTIME.
 */
#ifndef STATEMAP_H
#define STATEMAP_H

#include "pure/detector.h"
#include "pure/replyclass.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STATEMAP_FILE "/run/smtpwarp/state.1" /* the default of --state; another layout has another name */
#define STATEMAP_MAGIC 0x7072617770746d73ull /* "smtpwarp" */
#define STATEMAP_LAYOUT 1
#define STATEMAP_SLOTS 1000
#define STATEMAP_OTHER 0	/* the slot of all that found no other */
#define STATEMAP_SITE 48	/* octets of a site's name, with its NUL; a longer one is cut */
#define STATEMAP_SOURCE 48	/* octets of our address as text, with its NUL */
#define STATEMAP_TEXT 128	/* octets of a reply's text, with its NUL */
#define STATEMAP_NEAR 13 /* slots after that, which are claimed first: head, learnt names and they are the first 64 KiB */
#define STATEMAP_LEARNT 512
#define STATEMAP_LEARNT_FOR (24 * 3600 * 1000000ull)
#define STATEMAP_ANSWERED_FOR (3600 * 1000000ull)
#define STATEMAP_FAILING 16	/* servers whose TLS fails, beside each slot */
#define STATEMAP_FAILED_FOR (24 * 3600) /* seconds after which a failure no longer counts */
#define STATEMAP_ASKED_FOR (10 * 1000000ull)
#define STATEMAP_HOOKS 24
#define STATEMAP_HOOK_NAME 40
#define STATEMAP_PLACES 65536	/* of the gauge of sessions: one octet locked for each, see statefile_enter() */
#define STATEMAP_PLACES_AT (1ll << 40)

/* What is counted for each slot: name, metric, labels. Recipients by class and replies by stage stand behind, as their enums order them. */
#define STATEMAP_COUNTERS(X)                                                                                           \
	X(CONNECT_OK, "smtpwarp_connects_total", "result=\"ok\"")                                                      \
	X(CONNECT_REFUSED, "smtpwarp_connects_total", "result=\"refused\"")                                            \
	X(CONNECT_TIMEOUT, "smtpwarp_connects_total", "result=\"timeout\"")                                            \
	X(CONNECT_UNREACHABLE, "smtpwarp_connects_total", "result=\"unreachable\"")                                    \
	X(CONNECT_BANNER, "smtpwarp_connects_total", "result=\"banner\"")                                              \
	X(MESSAGE_ACCEPTED, "smtpwarp_messages_total", "result=\"accepted\"")                                          \
	X(MESSAGE_REJECTED, "smtpwarp_messages_total", "result=\"rejected\"")                                          \
	X(MESSAGE_DEFERRED, "smtpwarp_messages_total", "result=\"deferred\"")                                          \
	X(MESSAGE_ABORTED, "smtpwarp_messages_total", "result=\"aborted\"")                                            \
	X(MESSAGE_DISCARDED, "smtpwarp_messages_total", "result=\"discarded\"")                                        \
	X(MESSAGE_UNKNOWN, "smtpwarp_messages_total", "result=\"unknown\"")                                            \
	X(TLS_OK, "smtpwarp_tls_total", "result=\"ok\"")                                                               \
	X(TLS_VERIFIED, "smtpwarp_tls_total", "result=\"verified\"")                                                   \
	X(TLS_PLAIN, "smtpwarp_tls_total", "result=\"plain\"")                                                         \
	X(TLS_FALLBACK, "smtpwarp_tls_total", "result=\"fallback\"")                                                   \
	X(TLS_FAILED, "smtpwarp_tls_total", "result=\"failed\"")                                                       \
	X(TLS_VIOLATED, "smtpwarp_tls_total", "result=\"violated\"")                                                   \
	X(TLS_PASSTHROUGH, "smtpwarp_tls_total", "result=\"passthrough\"")                                             \
	X(BACKOFF_REFUSALS, "smtpwarp_backoff_refusals_total", "")

enum statemap_counter {
#define X(counter, metric, labels) STATEMAP_##counter,
	STATEMAP_COUNTERS(X)
#undef X
	STATEMAP_RECIPIENT, /* + enum reply_class */
	STATEMAP_REPLY = STATEMAP_RECIPIENT + REPLY_CLASSES_END, /* + 2 * enum reply_stage, + 1 for 5xx */
	STATEMAP_COUNTERS_END = STATEMAP_REPLY + 2 * REPLY_STAGES_END
};
#define STATEMAP_COUNTER_ROOM 64

/* What is counted for the host. */
#define STATEMAP_TOTALS(X)                                                                                             \
	X(ENDED_CLIENT, "smtpwarp_sessions_total", "ended=\"client\"")                                                 \
	X(ENDED_UPSTREAM, "smtpwarp_sessions_total", "ended=\"upstream\"")                                             \
	X(ENDED_SMTPWARP, "smtpwarp_sessions_total", "ended=\"smtpwarp\"")                                             \
	X(BYTES_FROM_CLIENT, "smtpwarp_bytes_total", "side=\"client\",direction=\"in\"")                               \
	X(BYTES_TO_CLIENT, "smtpwarp_bytes_total", "side=\"client\",direction=\"out\"")                                \
	X(BYTES_FROM_UPSTREAM, "smtpwarp_bytes_total", "side=\"upstream\",direction=\"in\"")                           \
	X(BYTES_TO_UPSTREAM, "smtpwarp_bytes_total", "side=\"upstream\",direction=\"out\"")                            \
	X(LOG_DROPPED, "smtpwarp_log_dropped_total", "")                                                               \
	X(EVICTIONS, "smtpwarp_state_evictions_total", "")                                                             \
	X(LIMIT_SESSIONS, "smtpwarp_limit_refusals_total", "limit=\"max-sessions\"")                                   \
	X(LIMIT_SOURCE, "smtpwarp_limit_refusals_total", "limit=\"max-sessions-per-source\"")                          \
	X(LIMIT_ERRORS, "smtpwarp_limit_refusals_total", "limit=\"max-errors\"")

enum statemap_total {
#define X(total, metric, labels) STATEMAP_##total,
	STATEMAP_TOTALS(X)
#undef X
	STATEMAP_TOTALS_END
};
#define STATEMAP_TOTAL_ROOM 32

/* Phases of a session, whose durations are counted in buckets: smtpwarp_phase_seconds. */
#define STATEMAP_PHASES(X) X(CONNECT, "connect") X(BANNER, "banner") X(TLS, "tls") X(RCPT, "rcpt") X(DATA, "data") X(ACCEPT, "accept")

enum statemap_phase {
#define X(phase, name) STATEMAP_PHASE_##phase,
	STATEMAP_PHASES(X)
#undef X
	STATEMAP_PHASES_END
};

/* Upper bounds of the buckets, inclusive: microseconds, and as a metric has them. The last has none. */
#define STATEMAP_BUCKETS(X)                                                                                            \
	X(10000, "0.01") X(25000, "0.025") X(50000, "0.05") X(100000, "0.1") X(250000, "0.25") X(500000, "0.5") X(1000000, "1.0") \
	X(2500000, "2.5") X(5000000, "5.0") X(10000000, "10.0") X(30000000, "30.0") X(60000000, "60.0") X(300000000, "300.0") \
	X(UINT64_MAX, "+Inf")
#define STATEMAP_BUCKET_COUNT 14

/* A server whose TLS fails. */
struct statemap_failing {
	uint64_t key;	/* of its address and port */
	uint64_t times; /* of the first failure and the last, see statemap.c; 0: there was none, or TLS was there since */
};

struct statemap_slot {
	uint64_t key; /* of site and source, see statemap_claim(); 0: free */
	uint32_t generation, unused;
	uint64_t first, last; /* when it was claimed, and used last */
	char site[STATEMAP_SITE], source[STATEMAP_SOURCE];
	struct detector detector;
	uint64_t counter[STATEMAP_COUNTER_ROOM];
	uint32_t bucket[STATEMAP_PHASES_END][STATEMAP_BUCKET_COUNT];
	uint64_t sum[STATEMAP_PHASES_END]; /* microseconds */
	uint32_t text_generation;
	uint32_t text_class; /* enum reply_class */
	char text[STATEMAP_TEXT]; /* the last refusal */
	struct statemap_failing failing[STATEMAP_FAILING]; /* no part of the slot: its key says who they are */
	unsigned char room[736 - STATEMAP_FAILING * sizeof(struct statemap_failing)];
};

/* A hook, and how long its runs took. */
struct statemap_hook {
	uint32_t generation, event; /* enum hook_event; generation 0: free */
	char name[STATEMAP_HOOK_NAME];
	uint64_t failures, sum;
	uint32_t bucket[STATEMAP_BUCKET_COUNT];
};

struct statemap_learnt {
	uint64_t key, until; /* of what the site was learnt for; until when it holds */
	char site[STATEMAP_SITE];
};

struct statemap {
	uint64_t magic;
	uint32_t layout, slot_size, slots, unused;
	uint64_t secret[2]; /* of the hash, so that no peer chooses which slots collide */
	uint64_t created_unix, created; /* when it was made: seconds since 1970, and of CLOCK_BOOTTIME in microseconds */
	uint64_t total[STATEMAP_TOTAL_ROOM];
	struct statemap_hook hook[STATEMAP_HOOKS];
	uint64_t learnt_until; /* until when any of `learnt` holds */
	uint64_t tls_failed; /* 1: TLS of some server has failed */
	unsigned char room[4096 - 72 - 8 * STATEMAP_TOTAL_ROOM - STATEMAP_HOOKS * sizeof(struct statemap_hook)];
	struct statemap_learnt learnt[STATEMAP_LEARNT];
	struct statemap_slot slot[STATEMAP_SLOTS];
};

_Static_assert(STATEMAP_COUNTERS_END <= STATEMAP_COUNTER_ROOM, "counters of a slot");
_Static_assert(STATEMAP_TOTALS_END <= STATEMAP_TOTAL_ROOM, "totals");
_Static_assert(sizeof(struct statemap_slot) == 2048, "a slot");
_Static_assert(offsetof(struct statemap, learnt) == 4096, "the head");
_Static_assert(offsetof(struct statemap, slot) + (1 + STATEMAP_NEAR) * sizeof(struct statemap_slot) == 1 << 16, "what is near");
_Static_assert(sizeof(struct statemap) <= 2 << 20, "the map");

/* A new map in zeroed memory. secret: random. unix_s, now: the present time of both clocks. */
void statemap_begin(struct statemap *m, const uint64_t secret[2], uint64_t unix_s, uint64_t now);

/* Whether these n octets are a map of this layout. */
bool statemap_fits(const struct statemap *m, size_t n);

/* The slot of this site and source, claimed if need be; STATEMAP_OTHER if 16 others stand in its place that are in use. Both are text. */
unsigned statemap_claim(struct statemap *m, const char *site, const char *source, uint64_t now);

/* The same, only if it is there; else STATEMAP_OTHER. */
unsigned statemap_find(const struct statemap *m, const char *site, const char *source);

/* Copy a slot's names, each with its NUL. false: it is free, or just being claimed. */
bool statemap_names(const struct statemap_slot *s, char site[STATEMAP_SITE], char source[STATEMAP_SOURCE]);

/* Add to a counter, sum or bucket; read one. */
void statemap_add(uint64_t *counter, uint64_t n);
uint64_t statemap_get(const uint64_t *counter);
uint32_t statemap_get_bucket(const uint32_t *bucket);

/* A slot was used. */
void statemap_used(struct statemap_slot *s, uint64_t now);

/* Count a duration, in microseconds. */
void statemap_time(struct statemap_slot *s, enum statemap_phase phase, uint64_t us);

/* Note, and read, the last refusal. Text is cut. false: it was being written, three times. */
void statemap_say(struct statemap_slot *s, enum reply_class class, const char *text, size_t n);
bool statemap_said(const struct statemap_slot *s, enum reply_class *class, char text[STATEMAP_TEXT]);

/* Copy the detector, each word within its bounds; and write back what has changed since. false: another session has changed the scores or
 * the state meanwhile, and nothing is written; copy it again, and add to that what was heard. */
void statemap_detector(const struct statemap_slot *s, struct detector *d);
bool statemap_detected(struct statemap_slot *s, const struct detector *before, const struct detector *after);

/* Count a run of a hook. event: enum hook_event; us: how long it took. */
void statemap_hook(struct statemap *m, uint32_t event, const char *name, uint64_t us, bool failed);

/* Copy a hook's name. false: there is none. */
bool statemap_hook_name(const struct statemap_hook *h, char name[STATEMAP_HOOK_NAME]);

/* Remember for 24 hours which site stands behind this address prefix, and ask for it. false: nothing is known. */
void statemap_learn(struct statemap *m, const char *prefix, const char *site, uint64_t now);
bool statemap_learnt(const struct statemap *m, const char *prefix, uint64_t now, char site[STATEMAP_SITE]);

/* The same for one address and mail to one domain (in lower case), for an hour: the domain's owner has told it, and is believed for no other.
 * Where there is no room for all, these go first. */
void statemap_learn_answer(struct statemap *m, const char *address, const char *domain, const char *site, uint64_t now);

/* The same for 10 seconds, while it is asked: others need not. */
void statemap_learn_asked(struct statemap *m, const char *address, const char *domain, const char *site, uint64_t now);

bool statemap_learnt_answer(const struct statemap *m, const char *address, const char *domain, uint64_t now, char site[STATEMAP_SITE]);

/* TLS with this server has failed. Returns when it did so first since it last was there, rounded up to a second: now or in less than a second,
 * if it has not failed for STATEMAP_FAILED_FOR. A clock that steps by more than that, and a reboot before which it failed, are as if it had not.
 * unix_s: the time since 1970, in seconds. Both texts are cut, at 47 octets. */
uint64_t statemap_tls_failed(struct statemap *m, const char *address, const char *port, uint64_t now, uint64_t unix_s);

/* TLS with this server is there: it has not failed. */
void statemap_tls_works(struct statemap *m, const char *address, const char *port);

#endif
