/* Hooks: which there are, and running one: a program with a line on its stdin, or a Unix socket that is sent it. Who
 * decides when, and what a verdict does, is filter.h's. Descriptors are polled by the session's loop.
 */
#ifndef HOOKS_H
#define HOOKS_H

#include "io/message.h"
#include "smtp.h"

#include <poll.h>
#include <sys/types.h>

#define HOOKS_MAX 64	     /* in all folders together */
#define HOOKS_NAMES (16 << 10) /* octets of their paths */
#define HOOK_ERROR_MAX 200   /* octets kept of the last line of a hook's stderr */
#define HOOK_POLLED 3	     /* descriptors of one run */
#define HOOK_MESSAGE_ROOM 4096 /* octets behind the verdict that a returned message passes through */

struct hook {
	enum hook_event event;
	bool socket;
	const char *path, *name; /* name: the end of path */
};

struct hook_list {
	unsigned count;
	unsigned events; /* bits: events that have a hook */
	struct hook hook[HOOKS_MAX];
	size_t names_len;
	char names[HOOKS_NAMES];
	char broken[160]; /* why there is no telling which hooks there are; "": there is */
};

/* Read the folders of dir into *l, sorted by the byte order of names in each. optional: dir need not be there. plugins:
 * names, separated by commas, of hooks to take from the folders of plugins_dir as well; NULL: none. Returns false with
 * l->broken set and no hooks. */
bool hooks_scan(struct hook_list *l, const char *dir, bool optional, const char *plugins_dir, const char *plugins);

/* What is wrong with a hook that can be seen before it is run; NULL: nothing. Static storage. */
const char *hooks_fault(const struct hook *h);

/* The next hook of an event at or after index i; NULL: none is left. */
const struct hook *hooks_next(const struct hook_list *l, enum hook_event event, unsigned i);

enum hook_state { HOOK_IDLE, HOOK_RUNNING, HOOK_DONE, HOOK_FAILED };

/* What a hook is started with. */
struct hook_input {
	const char *line; /* must stay as it is until the run is over; NULL: lines will come (event log) */
	size_t line_len;
	int message_fd;		     /* becomes its descriptor 3; -1: none */
	struct message *replacement; /* where a message that it returns goes; NULL: it may return none */
	uint64_t replacement_max;    /* octets */
	int64_t patience;	     /* microseconds that a socket may take to be connected to; 0: for ever */
};

/* One run. */
struct hook_run {
	enum hook_state state;
	const struct hook *hook;
	pid_t pid; /* 0: none is left to wait for */
	int in, out, err; /* our ends; -1: closed. of a socket in and out are one */
	struct hook_input input;
	size_t line_done;
	size_t message_at; /* where in the verdict the returned message begins, else 0 */
	uint64_t received; /* octets of its stdout or socket */
	struct smtp_scanner scanner; /* makes its line ends what they must be */
	size_t verdict_len, error_len;
	const char *why; /* HOOK_FAILED: static storage, or error */
	char error[HOOK_ERROR_MAX];
	unsigned char verdict[VERDICT_MAX + HOOK_MESSAGE_ROOM];
};

/* Start a hook; sets r->state. SIGCHLD must interrupt the caller's ppoll(2). posix_spawn(3), unix(7) SCM_RIGHTS. With no
 * line, r->in is for the caller to take (non-blocking). */
void hook_start(struct hook_run *r, const struct hook *h, const struct hook_input *input);

/* Fill in what is to be polled, up to HOOK_POLLED entries; returns how many. */
unsigned hook_watch(const struct hook_run *r, struct pollfd *p);

/* Move bytes as far as they go and look whether it has ended; sets r->state. */
void hook_turn(struct hook_run *r);

/* End it now, its whole process group killed; r->state becomes HOOK_FAILED with this reason. */
void hook_kill(struct hook_run *r, const char *why);

#endif
