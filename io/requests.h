/* Requests to a process that does for others what they may not do themselves, as in broker.h. All who ask share one socket of a pair
 * (SOCK_SEQPACKET), and each request brings along a channel of its own for the answer, a socket of another pair.
 */
#ifndef REQUESTS_H
#define REQUESTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define REQUESTS_DESCRIPTORS 16 /* that go along with a message */
#define REQUESTS_SECONDS 10 /* that a request waits for a process which takes none */

/* Make the pair for requests: pair[0] for those who ask, pair[1] for who answers. Returns 0, or -1 with errno set. */
int requests_pair(int pair[2]);

/* Send len octets and n descriptors, which stay ours, at most 4. Returns the channel, or -1 with errno set. */
int requests_send(int to, const void *bytes, size_t len, const int *descriptor, unsigned n);

/* Send a message with n descriptors, which stay ours, over a socket of such a pair. flags: of sendmsg(2). */
bool requests_pass(int to, const void *bytes, size_t len, const int *descriptor, unsigned n, int flags);

/* A message: its octets, and descriptors, which are the caller's. Returns its octets, cut to cap; -1: errno says why there is none, and *n is
 * 0. *whole: nothing of it is cut off. Does not wait. */
ssize_t requests_receive(int from, void *bytes, size_t cap, int descriptor[REQUESTS_DESCRIPTORS], unsigned *n, bool *whole);

/* What a message brings may be anything, also the last descriptor of a TCP socket, for whose end the kernel waits as long as somebody has set
 * SO_LINGER, socket(7). In companions, whose SIGALRM only interrupts (companion_prepare()), it waits for 2 ms at most between these two:
 * whatever closes such descriptors stands there, and also what receives a message, for one with more of them than there is room. */
void requests_hurry(void);
void requests_calm(void);

/* close(2) between those two. */
void requests_close(int fd);

#endif
