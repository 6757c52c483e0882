/* Hooks in a session: which event asks which hooks, and what their verdicts do. */
#ifndef FILTER_H
#define FILTER_H

#include "io/log.h"
#include "session/state.h"

enum filter_word { FILTER_ACCEPT, FILTER_REFUSE, FILTER_CLOSE, FILTER_DISCARD };

/* What the hooks of an event decided; code to text: of a reply. */
struct filter_outcome {
	enum filter_word word;
	int code;
	uint16_t enhanced[3];
	size_t text_len;
	unsigned char text[SMTP_WRAP_TEXT];
};

#define FILTER_POLLED (HOOK_POLLED * (1 + LOG_STREAMS_MAX))

/* Storage that few sessions touch, and values that are not zero: once, before all else. */
void filter_prepare(struct session *s);

/* Start `log` hooks; before the first record. */
void filter_begin(struct session *s);

bool filter_wants(const struct session *s, enum hook_event event);

/* Run the hooks of an event: GATE_HOOKS, perhaps then GATE_TARPIT, until `filtered` becomes true, perhaps at once. */
void filter_run(struct session *s, enum hook_event event);

/* Whatever the hooks that run have to say or to take. */
void filter_turn(struct session *s);

/* Descriptors to poll, at most FILTER_POLLED; returns how many. */
unsigned filter_watch(struct pollfd *p);

/* GATE_HOOKS: when the hook that runs must have ended, and that it has not. */
int64_t filter_deadline(const struct session *s);
void filter_overdue(struct session *s);

/* GATE_TARPIT is over: the outcome may be taken. */
void filter_tarpit_over(struct session *s);

/* What the hooks of which event decided; `filtered` is taken. *outcome stays until filter_run(). */
enum hook_event filter_take(struct session *s, const struct filter_outcome **outcome);

/* The outcome of a filter that fails when --hook-failure is defer. */
void filter_out_of_order(struct filter_outcome *o);

/* The session ends: no verdict is waited for any more. */
void filter_abort(struct session *s);

/* The client is gone and the last record written: run `close` hooks, let `log` hooks read to their end. */
void filter_end(struct session *s);

#endif
