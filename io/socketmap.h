/* A client of a server of maps, pure/socketmap.h: each query asks one question, over a connection of its own. The session polls the
 * socket.
 */
#ifndef IO_SOCKETMAP_H
#define IO_SOCKETMAP_H

#include "pure/socketmap.h"

#include <poll.h>

#define SOCKETMAP_FAILURE 160

enum socketmap_state { SOCKETMAP_IDLE, SOCKETMAP_RUNNING, SOCKETMAP_DONE };

/* Times are in microseconds of the caller's clock. */
struct socketmap_query {
	enum socketmap_state state;
	enum socketmap_result result; /* DONE: FOUND, NOTHING, or FAILED or BAD, for which failure has words */
	const char *text;	      /* FOUND: text_len octets, which stay until the next question */
	size_t text_len;
	char failure[SOCKETMAP_FAILURE]; /* what the server said, cut; it may be anything */
	const struct socketmap *map;
	int fd; /* -1: the server has no room for another connection yet */
	int64_t deadline, retry_at;
	size_t question_len, sent, got;
	char question[SOCKETMAP_QUESTION];
	char in[SOCKETMAP_REPLY];
};

/* Begin to ask. After patience the query has failed. map must stay. The state may be SOCKETMAP_DONE at once. */
void socketmap_start(struct socketmap_query *q, const struct socketmap *map, const char *key, int64_t now, int64_t patience);

/* Go on as far as possible without waiting. */
void socketmap_turn(struct socketmap_query *q, int64_t now);

/* When to call socketmap_turn() though nothing comes in. */
int64_t socketmap_deadline(const struct socketmap_query *q);

/* The descriptor to poll. Returns how many there are: 0 or 1. */
unsigned socketmap_watch(const struct socketmap_query *q, struct pollfd *p);

/* Give the query up. */
void socketmap_stop(struct socketmap_query *q);

#endif
