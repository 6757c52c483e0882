/* Hooks in a session: which event asks which hooks, and what their verdicts do.
 *
 * Invariants: one hook of an event runs at a time, in the order of the list, up to the first that does not accept; a verdict is checked
 * as a whole before any line of it has an effect. What follows an outcome is decided in steps.c; running a hook is for hooks.c, the
 * grammar of verdicts for pure/verdict.c.
 */
#ifndef FILTER_H
#define FILTER_H

#include "io/log.h"
#include "session/state.h"

enum filter_word { FILTER_ACCEPT, FILTER_REFUSE, FILTER_CLOSE, FILTER_DISCARD };

/* What the hooks of an event have decided. */
struct filter_outcome {
	enum filter_word word;
	/* The reply for FILTER_REFUSE and FILTER_CLOSE. */
	int code;
	uint16_t enhanced[3];
	size_t text_len;
	unsigned char text[SMTP_WRAP_TEXT];
};

#define FILTER_POLLED (HOOK_POLLED * (1 + LOG_STREAMS_MAX) + LOG_STREAMS_MAX)

/* Give the part its storage. Call it once, first of all. */
void filter_prepare(struct session *s);

/* --try-hook: hooks get these n octets, which must stay, in place of the line that the session has for them (NULL: that line); and all that
 * they write to standard error is copied to ours. */
void filter_rehearse(const char *line, size_t n);

/* Start `log` hooks. Call it before the first record. */
void filter_begin(struct session *s);

/* Whether there is a hook for this event. */
bool filter_wants(const struct session *s, enum hook_event event);

/* Run the hooks of an event: GATE_HOOKS, then GATE_TARPIT if a verdict wants it, until `filtered` becomes true, perhaps at once. */
void filter_run(struct session *s, enum hook_event event);

/* Go on with the hooks that run, as far as possible. */
void filter_turn(struct session *s);

/* Which descriptors to poll, at most FILTER_POLLED. Returns how many. */
unsigned filter_watch(struct pollfd *p);

/* In GATE_HOOKS: when the hook that runs must have ended. */
int64_t filter_deadline(const struct session *s);

/* That time has come: the hook is killed, and has failed. */
void filter_overdue(struct session *s);

/* GATE_TARPIT is over: `filtered` becomes true. */
void filter_tarpit_over(struct session *s);

/* Clear `filtered`. Returns the event; *outcome is what its hooks have decided, and stays until filter_run(). */
enum hook_event filter_take(struct session *s, const struct filter_outcome **outcome);

/* The outcome when hooks fail and --hook-failure is defer. */
void filter_out_of_order(struct filter_outcome *o);

/* The session ends, or its message cannot go on: kill the hook that decides, and forget `filtered`. */
void filter_abort(struct session *s);

/* How the hook that ran last has ended, for --try-hook. */
struct filter_report {
	const struct hook_run *run;
	const struct filter_outcome *outcome;
	const char *failure; /* why it has failed, as the log has it; "": it has not */
	int64_t us;	     /* how long it took, microseconds */
};
void filter_report(const struct session *s, struct filter_report *r);

/* The close record is written: run `close` hooks, and let `log` hooks read to their end. Waits for them, within --hook-timeout. */
void filter_end(struct session *s);

#endif
