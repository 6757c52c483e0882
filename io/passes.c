/* Passes. See passes.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/passes.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Beside errno, on a page that each session writes to anyhow: to forget the number on a page of its own would copy that. On RISC-V, ld of
 * Debian 12 cannot do it in a static program that relocates itself. */
#ifndef __riscv
_Thread_local
#endif
static volatile uint64_t number[PASSES];
static bool drawn;

void passes_draw(void)
{
	uint64_t random[PASSES] = { 0 };

	/* GRND_INSECURE, which does not wait: early in an initramfs the kernel may have little randomness, but there is nobody yet to guess */
	if (getrandom(random, sizeof random, 4) != sizeof random && getrandom(random, sizeof random, 0) != sizeof random)
		return;
	for (unsigned p = 0; p < PASSES; p++)
		number[p] = random[p] | 1;
	explicit_bzero(random, sizeof random);
	drawn = true;
}

uint64_t passes_number(enum pass p)
{
	return number[p];
}

void passes_forget(enum pass p)
{
	number[p] = 0;
}

bool passes_hold(enum pass p)
{
	return !drawn || number[p];
}

/* The number goes straight into its register, and out of it again: a function of libc could leave it on the stack, where it would be found. */
#if defined __x86_64__
static long call(long which, long a, long b, long c, enum pass p)
{
	register long d __asm__("r10") = 0, e __asm__("r8") = 0;
	register uint64_t f __asm__("r9") = number[p];

	__asm__ volatile("syscall\n\txorl %%r9d, %%r9d" : "+a"(which), "+r"(f) : "D"(a), "S"(b), "d"(c), "r"(d), "r"(e) : "rcx", "r11", "memory");
	return which;
}
#elif defined __aarch64__ || (defined __riscv && __riscv_xlen == 64)
#ifdef __aarch64__
#define REGISTER(n) "x" #n
#define CALL_REGISTER REGISTER(8)
#define CALL_AND_CLEAR "svc 0\n\tmov x5, 0"
#else
#define REGISTER(n) "a" #n
#define CALL_REGISTER REGISTER(7)
#define CALL_AND_CLEAR "ecall\n\tli a5, 0"
#endif
static long call(long which, long a, long b, long c, enum pass p)
{
	register long call_number __asm__(CALL_REGISTER) = which, first __asm__(REGISTER(0)) = a, second __asm__(REGISTER(1)) = b;
	register long third __asm__(REGISTER(2)) = c, d __asm__(REGISTER(3)) = 0, e __asm__(REGISTER(4)) = 0;
	register uint64_t f __asm__(REGISTER(5)) = number[p];

	__asm__ volatile(CALL_AND_CLEAR : "+r"(first), "+r"(f) : "r"(call_number), "r"(second), "r"(third), "r"(d), "r"(e) : "memory");
	return first;
}
#else
static long call(long which, long a, long b, long c, enum pass p)
{
	long result = syscall(which, a, b, c, 0, 0, number[p]);

	return result < 0 ? -errno : result;
}
#endif

static int call_with_pass(long which, long a, long b, long c, enum pass p)
{
	long result = passes_hold(p) ? call(which, a, b, c, p) : -EPERM;

	if (result >= 0)
		return (int)result;
	errno = (int)-result;
	return -1;
}

int passes_socket(int family, int type, int protocol)
{
	return family == AF_INET || family == AF_INET6 ? call_with_pass(SYS_socket, family, type, protocol, PASS_NETWORK) : socket(family, type, protocol);
}

int passes_connect(int fd, const struct sockaddr *address, socklen_t len)
{
	return call_with_pass(SYS_connect, fd, (long)(uintptr_t)address, (long)len, PASS_NETWORK);
}

int passes_kill(pid_t pid, int which)
{
	return call_with_pass(SYS_kill, pid, which, 0, PASS_LISTENER);
}

#ifdef __SANITIZE_ADDRESS__ /* which has to know of forks */
pid_t passes_fork(void)
{
	if (passes_hold(PASS_LISTENER))
		return _Fork();
	errno = EPERM;
	return -1;
}
#else
pid_t passes_fork(void)
{
	return call_with_pass(SYS_clone, SIGCHLD, 0, 0, PASS_LISTENER);
}
#endif
