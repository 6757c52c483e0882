/* The broker: a process that runs programs for sessions, which may run none themselves. It is forked before sessions are confined, and
 * takes requests from the process that started it and from all that this one forks.
 *
 * Each run has a channel, a pair of sockets. What the broker says there is struct broker_news; what a session says is in broker_end().
 */
#ifndef BROKER_H
#define BROKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BROKER_PATH_MAX 1024  /* octets of a program's path */
#define BROKER_DESCRIPTORS 4 /* a program's descriptors: from 0 on */

/* How a run has gone. */
struct broker_news {
	enum { BROKER_NOTHING, BROKER_NOT_RUN, BROKER_EXITED, BROKER_KILLED, BROKER_GONE } how;
	int32_t value; /* of NOT_RUN errno, of EXITED the status, of KILLED the signal */
};

/* From now on this process, and those that it forks, ask by a socket whose other end this returns: it is for broker_fork(), and requests wait
 * there. -1: errno says why not. Raises the limit of descriptors, which bounds what is on the way to the broker, too: to what is allowed. */
int broker_open(void);

/* Ask by this socket instead, which is the broker's from now on; -1: ask no more. */
void broker_use(int requests);

/* Fork a broker that takes requests from there; the socket stays ours. allows() says in the broker which programs may be run. patience:
 * microseconds that a program has left when its session is gone without a word; 0: nine minutes. Returns its process ID, or -1 with errno
 * set. SIGCHLD must be blocked. The broker ends when nobody is left to ask it. */
pid_t broker_fork(int requests, bool (*allows)(const char *path), int64_t patience);

/* broker_open() and broker_fork(), for one broker. */
pid_t broker_start(bool (*allows)(const char *path), int64_t patience);

/* The process that has started it will ask no more, and has forked nobody who will: wait for its end, a second at most. */
void broker_stop(pid_t broker);

/* For a process between the broker and who asks it: the limit of descriptors is again what it was before broker_open(). */
void broker_unlimit(void);

/* Ask it to run a program, with these descriptors as its 0, 1, 2 and 3 (-1, the last alone: it has no 3), which stay ours. Returns the
 * run's channel, to be polled for POLLIN, or -1 with errno set. */
int broker_run(const char *path, const int descriptor[BROKER_DESCRIPTORS]);

/* Take the news of a run, without waiting. Says BROKER_NOTHING until it has ended, BROKER_GONE if the broker has ended before. */
struct broker_news broker_take(int channel);

/* The run is over for us; closes the channel. kill: the program's process group is killed. Otherwise a program that has ended is forgotten.
 * Until then it stays a zombie, so that its process group keeps its number. */
void broker_end(int channel, bool kill);

#endif
