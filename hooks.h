/* Hooks: finding them (hooks_...), and one run of a hook (hook_...). A hook is a program that gets a line on its stdin, or a
 * Unix socket that the line is sent to. session/filter.c decides when to run which, and what a verdict does. The session's loop
 * polls the descriptors.
 */
#ifndef HOOKS_H
#define HOOKS_H

#include "io/broker.h"
#include "io/message.h"
#include "smtp.h"

#include <poll.h>
#include <sys/types.h>

#define HOOKS_MAX 64	     /* in all folders together */
#define HOOKS_NAMES (16 << 10) /* octets of their paths */
#define HOOK_ERROR_MAX 200   /* octets kept of the last line of a hook's stderr */
#define HOOK_POLLED 4	     /* descriptors of one run */
#define HOOK_MESSAGE_ROOM 4096 /* octets behind the verdict, for a returned message on its way */

struct hook {
	enum hook_event event;
	bool socket;
	const char *path, *name; /* name: the last component of path */
};

struct hook_list {
	unsigned count;
	unsigned events; /* bits: events that have a hook */
	struct hook hook[HOOKS_MAX];
	size_t names_len;
	char names[HOOKS_NAMES];
	char broken[160]; /* why the hooks cannot be read; "": they can */
	bool misnamed;	  /* because a folder has the name of no event */
};

/* Read the folders of dir into *l, each sorted by the byte order of names. optional: dir may be missing. plugins: names of
 * hooks, separated by commas, to add from the folders of plugins_dir; NULL: none. Returns false with l->broken set and no
 * hooks. */
bool hooks_scan(struct hook_list *l, const char *dir, bool optional, const char *plugins_dir, const char *plugins);

/* Make *l a list of one hook, at this path, which must stay. */
void hooks_one(struct hook_list *l, enum hook_event event, const char *path);

/* What is wrong with a hook that shows before it is run; NULL: nothing. on_recipient: as --connect-on recipient has it. Static storage. */
const char *hooks_fault(const struct hook *h, bool on_recipient);

/* Tell of each entry below dir that is passed over, though it may be meant as a hook: a file with the name of a backup, and a program beside
 * the folders of events. why: static storage. */
void hooks_tell_passed_over(const char *dir, void (*tell)(const char *path, const char *why));

/* Whether any is a socket, which sessions connect to. */
bool hooks_connect(const struct hook_list *l);

/* The next hook of this event at or after index i; NULL: there is none. */
const struct hook *hooks_next(const struct hook_list *l, enum hook_event event, unsigned i);

enum hook_state { HOOK_IDLE, HOOK_RUNNING, HOOK_DONE, HOOK_FAILED };

/* Input of a hook. */
struct hook_input {
	const char *line; /* must stay until the run is over; NULL: lines will come (event log) */
	size_t line_len;
	const struct message *message; /* sealed; the hook's descriptor 3 reads it, at a position of its own; NULL: none */
	struct message *replacement; /* takes a message that the hook returns; NULL: it may return none */
	uint64_t replacement_max;    /* octets of it */
	bool binary;		     /* it is taken as it comes: its line ends do not become CR LF */
	int64_t patience;	     /* microseconds to connect to a socket; 0: no limit */
	int errors;		     /* a descriptor that gets all that it writes to its stderr; 0: none */
};

/* One run of a hook. */
struct hook_run {
	enum hook_state state;
	const struct hook *hook;
	int channel; /* to the broker; -1: it runs nothing for us */
	struct broker_news news; /* once the program has ended */
	int in, out, err; /* our ends; -1: closed. For a socket in and out are the same */
	int message;	  /* the descriptor that the hook gets; -1: there is none, or the hook has it */
	struct hook_input input;
	size_t line_done;
	size_t message_at; /* where in verdict the returned message begins, else 0 */
	uint64_t received; /* octets read from its stdout or socket */
	struct smtp_scanner scanner; /* turns its line ends into CR LF, unless input.binary */
	size_t verdict_len, error_len;
	const char *why; /* HOOK_FAILED: static storage, status or error */
	char status[28]; /* how a program has ended, if not well */
	char error[HOOK_ERROR_MAX];
	unsigned char verdict[VERDICT_MAX + HOOK_MESSAGE_ROOM];
};

/* Start a hook; sets r->state. Without input->line the caller writes lines, see hook_take_input(). Programs are run by the broker,
 * see io/broker.h. unix(7) SCM_RIGHTS. */
void hook_start(struct hook_run *r, const struct hook *h, const struct hook_input *input);

/* Event log: take the descriptor that lines are written to; -1: the hook could not be started. It does not block. A socket's run is
 * over with that, for nothing comes from there. */
int hook_take_input(struct hook_run *r);

/* What came of the run was looked at: none is under way. */
void hook_forget(struct hook_run *r);

/* Fill in the descriptors to poll, at most HOOK_POLLED; returns how many. */
unsigned hook_watch(const struct hook_run *r, struct pollfd *p);

/* Move bytes as far as possible without waiting, and see whether the hook has ended; sets r->state. */
void hook_turn(struct hook_run *r);

/* End it now: kills its whole process group. r->state becomes HOOK_FAILED for this reason. */
void hook_kill(struct hook_run *r, const char *why);

#endif
