/* Upgrades: on SIGUSR2 the next smtpwarp gets our listening sockets, and once it is ready we accept nothing more, and end with our last session.
 *
 * The two have a link, a pair of sockets (unix(7), SOCK_SEQPACKET) with words that may grow and never change, for they are of two versions.
 * The next one says "READY=1\nMAINPID=PID", or why it ends instead, then "STOP=1" each time that it is told to end. We say "SESSIONS=N". Either
 * may be both: in the middle of a chain.
 */
#ifndef UPGRADE_H
#define UPGRADE_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define UPGRADE_POLLED 3 /* descriptors */

/* We are the next smtpwarp, and this is the link to the one that accepts now. */
void upgrade_take(int link);

/* We are ready: tell the one before. Ends us if it is gone, for then nobody waits for us. false: there was none before. */
bool upgrade_ready(void);

/* SIGUSR2: have the next one started, with these sockets. A record says why not, if not. One that is not ready after a minute is given up. */
void upgrade_begin(const int *listening, unsigned n);

/* The keeper could not start it, for this errno. */
void upgrade_not_started(int error);

/* Descriptors to poll; returns how many. */
unsigned upgrade_watch(struct pollfd p[UPGRADE_POLLED]);

enum upgrade_word {
	UPGRADE_NOTHING,
	UPGRADE_DONE, /* the next one accepts now */
	UPGRADE_STOP  /* which is told to end, and so are we */
};

/* Hear what they say, one word. */
enum upgrade_word upgrade_hear(void);

/* The process ID of the next one, once it is ready; 0: we accept. */
pid_t upgrade_next(void);

/* Whether one before us is still there, and how many sessions it and those before it have. */
bool upgrade_outlived(void);
uint32_t upgrade_sessions_before(void);

/* So many sessions are ours: tell the next one, who counts them, too. */
void upgrade_tell_sessions(uint32_t ours);

/* We are told to end: so is the one before, and one that is about to take over. */
void upgrade_stop(void);

/* A process that was forked has nothing to say to either; writes no page that it shares with others. */
void upgrade_leave(void);

#endif
