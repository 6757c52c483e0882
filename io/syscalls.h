/* The system calls of a listener and its sessions, syscalls(2). Which of them the libc makes for a function is its own affair, and differs
 * between machines: newer ones lack open(2), fork(2) and their like.
 */
#ifndef SYSCALLS_H
#define SYSCALLS_H

#include "io/passes.h"

#include <stdint.h>

#define SYSCALLS_MAX 120
#define SYSCALLS_CHECKED_MAX 16
#define SYSCALLS_VALUES 4
#define SYSCALLS_PASSED_MAX 6
#define SYSCALLS_FAMILIES 2

/* A call that is allowed only if the low 32 bits of an argument are right. */
struct syscalls_checked {
	int call;
	unsigned argument; /* from 0 on */
	uint32_t forbidden; /* none of these bits may be set; 0: without those of `ignored` it must be one of the values */
	uint32_t ignored;
	unsigned count;
	uint32_t value[SYSCALLS_VALUES];
};

/* A call that needs a pass; with families, only if its first argument is one of them. */
struct syscalls_passed {
	int call;
	enum pass pass;
	uint32_t family[SYSCALLS_FAMILIES]; /* the first 0: it always does */
};

/* Those that are allowed; what is looked at besides. */
extern const int syscalls_allowed[];
extern const unsigned syscalls_allowed_count;
extern const struct syscalls_checked syscalls_checked[];
extern const unsigned syscalls_checked_count;
extern const struct syscalls_passed syscalls_passed[];
extern const unsigned syscalls_passed_count;

/* The name of a call that is not allowed; "of another name" if it is not among those that an attacker would want. */
const char *syscalls_name(int call);

#endif
