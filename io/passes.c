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

/* Not zero, so that it is where all sessions write, and forgetting copies no other page. */
static volatile uint64_t number[PASSES] = { 1, 1 };
static bool drawn;

bool passes_draw(void)
{
	uint64_t random[PASSES] = { 0 };

	/* GRND_INSECURE: as soon as the machine runs, numbers need not be better than who attacks it by then */
	if (getrandom(random, sizeof random, 4) != sizeof random && getrandom(random, sizeof random, 0) != sizeof random)
		return false;
	for (unsigned p = 0; p < PASSES; p++)
		number[p] = random[p] | 1;
	explicit_bzero(random, sizeof random);
	drawn = true;
	return true;
}

uint64_t passes_number(enum pass p)
{
	return drawn ? number[p] : 0;
}

void passes_forget(enum pass p)
{
	if (drawn)
		number[p] = 0;
}

bool passes_hold(enum pass p)
{
	return number[p] != 0;
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
#elif defined __aarch64__
static long call(long which, long a, long b, long c, enum pass p)
{
	register long name __asm__("x8") = which, first __asm__("x0") = a, second __asm__("x1") = b, third __asm__("x2") = c;
	register long d __asm__("x3") = 0, e __asm__("x4") = 0;
	register uint64_t f __asm__("x5") = number[p];

	__asm__ volatile("svc 0\n\tmov x5, 0" : "+r"(first), "+r"(f) : "r"(name), "r"(second), "r"(third), "r"(d), "r"(e) : "memory");
	return first;
}
#elif defined __riscv && __riscv_xlen == 64
static long call(long which, long a, long b, long c, enum pass p)
{
	register long name __asm__("a7") = which, first __asm__("a0") = a, second __asm__("a1") = b, third __asm__("a2") = c;
	register long d __asm__("a3") = 0, e __asm__("a4") = 0;
	register uint64_t f __asm__("a5") = number[p];

	__asm__ volatile("ecall\n\tli a5, 0" : "+r"(first), "+r"(f) : "r"(name), "r"(second), "r"(third), "r"(d), "r"(e) : "memory");
	return first;
}
#else
static long call(long which, long a, long b, long c, enum pass p)
{
	long result = syscall(which, a, b, c, 0, 0, number[p]);

	return result < 0 ? -errno : result;
}
#endif

static int make(long which, long a, long b, long c, enum pass p)
{
	long result = passes_hold(p) ? call(which, a, b, c, p) : -EPERM;

	if (result >= 0)
		return (int)result;
	errno = (int)-result;
	return -1;
}

int passes_socket(int family, int type, int protocol)
{
	return family == AF_INET || family == AF_INET6 ? make(SYS_socket, family, type, protocol, PASS_NETWORK) : socket(family, type, protocol);
}

int passes_connect(int fd, const struct sockaddr *address, socklen_t len)
{
	return make(SYS_connect, fd, (long)(uintptr_t)address, (long)len, PASS_NETWORK);
}

int passes_kill(pid_t pid, int which)
{
	return make(SYS_kill, pid, which, 0, PASS_LISTENER);
}

#ifdef __SANITIZE_ADDRESS__
pid_t passes_fork(void)
{
	return passes_hold(PASS_LISTENER) ? _Fork() : make(SYS_clone, 0, 0, 0, PASS_LISTENER);
}
#else
pid_t passes_fork(void)
{
	return make(SYS_clone, SIGCHLD, 0, 0, PASS_LISTENER);
}
#endif
