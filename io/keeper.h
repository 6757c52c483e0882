/* The keeper: a process that does for the listener what this one may not do once it is confined, which is to run programs. It starts the
 * broker, io/broker.h, starts it again whenever it has ended, and starts the next smtpwarp of an upgrade. It is forked before the listener is
 * confined, and ends when the listener does; sessions have nothing to do with it.
 */
#ifndef KEEPER_H
#define KEEPER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define KEEPER_PASSED 16 /* descriptors that the next smtpwarp may get */
#define KEEPER_LINK "SMTPWARP_LINK" /* a variable that it gets */

/* All of it must stay. */
struct keeper_task {
	bool (*allows)(const char *path); /* what the broker may run, broker_fork() */
	int64_t patience;
	char **argv; /* our command line, which the next smtpwarp gets, too */
	const char *notify; /* its NOTIFY_SOCKET; NULL: it gets none */
};

struct keeper_news {
	enum keeper_word { KEEPER_NOTHING, KEEPER_BROKER_ENDED, KEEPER_NO_BROKER, KEEPER_SHUT, KEEPER_NOT_STARTED, KEEPER_GONE } what;
	int32_t value; /* of BROKER_ENDED as wait(2) has it; of NO_BROKER and NOT_STARTED errno */
};

/* Fork it, with a broker if hooks is true; requests to a broker may be made from now on. Returns its process ID, or -1 with errno set.
 * SIGCHLD must be blocked. */
pid_t keeper_start(const struct keeper_task *t, bool hooks);

/* The socket to poll for news; -1: there is no keeper any more. */
int keeper_socket(void);

/* Take its news, without waiting. KEEPER_SHUT: a session has shut the way to the broker for all that there are; those to come have another,
 * which broker_run() takes from now on. KEEPER_GONE comes once. */
struct keeper_news keeper_take(void);

/* Have it start a broker, unless there is one. */
void keeper_want_broker(void);

/* Have it start smtpwarp anew: the file that we were started from, with our command line and environment. It gets n descriptors from 3 on,
 * LISTEN_FDS of them counted without the last, whose number is in KEEPER_LINK. Its parent is who takes orphans. false: errno says why not. */
bool keeper_start_next(const int *descriptor, unsigned n);

/* The listener ends, and has no sessions left: wait for the keeper's end, a second at most, for systemd kills what is left behind the main
 * process of a service. */
void keeper_stop(pid_t pid);

/* A process that was forked has nothing to tell it; writes no page that it shares with others. */
void keeper_leave(void);

#endif
