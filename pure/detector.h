/* How a server treats one of our addresses: whether it throttles, has become slow, or blocks it. Arithmetic over what sessions have
 * observed; no I/O, no clock: times are microseconds that the caller counts, of a clock that never goes back.
 *
 * Replies: a cumulative sum (CUSUM) of how much likelier each is with a quarter of all messages throttled than with one in fifty.
 * Latency: a cumulative sum of how far each delay is above what was usual, in octaves.
 */
#ifndef DETECTOR_H
#define DETECTOR_H

#include "pure/replyclass.h"

#include <stdbool.h>
#include <stdint.h>

#define DETECTOR_EARLY 8	/* samples whose median is the first idea of a usual delay */
#define DETECTOR_ALARM 320	/* score of the replies, in 64ths of a natural logarithm */
#define DETECTOR_LATE_ALARM 96	/* score of a latency, in 16ths of an octave */
#define DETECTOR_SHARE_ALL 8	/* share of sessions, in eighths, once a hold is over for good */

/* The third word is what a metric shows. */
#define DETECTOR_STATES(X) X(OK, "ok", 0) X(SLOW, "slow", 1) X(THROTTLED, "throttled", 2) X(BLOCKED, "blocked", 3)

enum detector_state {
#define X(state, name, number) DETECTOR_##state = number,
	DETECTOR_STATES(X)
#undef X
};

/* Which delay: from DATA to 354, from RCPT to its reply. */
enum detector_delay { DETECTOR_DATA, DETECTOR_RCPT, DETECTOR_DELAYS };

/* Words of 4 or 8 octets, so that each can be read and written whole by sessions that share it. What adds up from message to message, and
 * the state that follows from it, is one such word: of two sessions that hear something at once, neither overwrites what the other has
 * added. All zero: nothing is known. */
struct detector {
	uint64_t heard;	     /* the last evidence */
	uint64_t changed;    /* since when `state` is what it is */
	uint64_t until;	     /* how long it is wise to hold back; 0: not at all */
	uint64_t probe;	     /* in a hold: when to try again */
	uint64_t released;   /* when the last hold ended, or a clean hour after it was counted */
	uint64_t raised;     /* when `share` was raised last */
	uint64_t blocked[2]; /* the last replies that say so, the newest first */
	union {
		uint64_t evidence; /* all of these as one word */
		struct {
			uint16_t score; /* of the replies */
			uint8_t late[DETECTOR_DELAYS]; /* score of each latency */
			uint8_t samples[DETECTOR_DELAYS];
			uint8_t state; /* enum detector_state */
			uint8_t level; /* a hold lasts 2^level times the least */
		};
	};
	uint32_t share;	     /* eighths of the sessions that it is wise to let through; 0 before the first hold: all */
	uint32_t usual[DETECTOR_DELAYS]; /* 4096ths of an octave above a millisecond */
	uint32_t early[DETECTOR_DELAYS][DETECTOR_EARLY];
};

/* Make what somebody else may have written safe to use: each word within its bounds. */
void detector_clean(struct detector *d);

/* The state's word. Static storage. */
const char *detector_state_name(uint32_t state);

/* A message, recipient or greeting got a final reply of this class. false: what it says about the state is nothing new; true: the
 * state has changed. */
bool detector_reply(struct detector *d, enum reply_class class, enum reply_scope scope, uint64_t now);

/* A delay of so many microseconds. Returns as detector_reply(). */
bool detector_delay(struct detector *d, enum detector_delay which, uint64_t us, uint64_t now);

/* Time has passed without evidence. Returns as detector_reply(). */
bool detector_rest(struct detector *d, uint64_t now);

#endif
