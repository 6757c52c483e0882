/* Passes: system calls that a process can make only as long as it knows a random number. The filter of io/sandbox.h compares the number with
 * the sixth argument of the call, which the kernel itself does not look at, syscall(2). A process that has forgotten the number has lost the
 * call for good, and forgetting takes no system call.
 *
 * Where calls are not filtered, the functions below are the system calls that they are named for.
 */
#ifndef PASSES_H
#define PASSES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

enum pass {
	PASS_LISTENER, /* start processes, fork(2), and signal them, kill(2) */
	PASS_NETWORK,  /* make sockets of IP, socket(2), and connect any, connect(2) */
	PASSES
};

/* Draw the numbers, once, before calls are filtered. If the kernel gives no random octets, there are none: the calls need no pass. */
void passes_draw(void);

/* The number, for the filter; 0: it was not drawn, or is forgotten. */
uint64_t passes_number(enum pass p);

/* From now on the calls of this pass fail, EPERM, in this process and in those that it will fork. Without a number it does nothing. */
void passes_forget(enum pass p);

/* Whether the calls of this pass can be made. */
bool passes_hold(enum pass p);

/* socket(2), connect(2), kill(2). Sockets of other families than IP need no pass. */
int passes_socket(int family, int type, int protocol);
int passes_connect(int fd, const struct sockaddr *address, socklen_t len);
int passes_kill(pid_t pid, int number);

/* As _Fork(3), but libc's own idea of the thread stays the parent's: raise(3) and abort(3) end the child by other means than their signal. */
pid_t passes_fork(void);

#endif
