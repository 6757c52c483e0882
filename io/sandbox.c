/* Walls around a session. See sandbox.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/sandbox.h"
#include "io/passes.h"
#include "io/readable.h"
#include "io/syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <ucontext.h>
#include <unistd.h>

static bool prepared;

/* LeakSanitizer forks at the end, reads /proc and traces its process. */
#ifdef __SANITIZE_ADDRESS__
static const bool has_walls = false;
#else
static const bool has_walls = true;
#endif

/* ---- system calls ---- */

/* linux/filter.h, linux/seccomp.h, linux/audit.h: the kernel's headers are not there for every libc. */
struct instruction {
	uint16_t code;
	uint8_t yes, no; /* how many instructions to skip */
	uint32_t value;
};

struct program {
	unsigned short length;
	struct instruction *instruction;
};

enum {
	LOAD = 0x20,	       /* BPF_LD | BPF_W | BPF_ABS */
	IF_EQUAL = 0x15,       /* BPF_JMP | BPF_JEQ | BPF_K */
	IF_ANY_BIT = 0x45,     /* BPF_JMP | BPF_JSET | BPF_K */
	KEEP_BITS = 0x54,      /* BPF_ALU | BPF_AND | BPF_K */
	RETURN = 0x06,	       /* BPF_RET | BPF_K */
	SET_FILTER = 1,	       /* SECCOMP_SET_MODE_FILTER */
	CALL_AT = 0,	       /* in struct seccomp_data */
	MACHINE_AT = 4,
	ARGUMENTS_AT = 16,     /* eight octets each, the low half first */
};

#define ALLOW 0x7fff0000u
#define TRAP 0x00030000u
#define KILL 0x80000000u

#ifdef __x86_64__
#define MACHINE 0xc000003eu
#define SET_RESULT(context, value) ((context)->uc_mcontext.gregs[REG_RAX] = (value))
#elif defined __aarch64__
#define MACHINE 0xc00000b7u
#define SET_RESULT(context, value) ((context)->uc_mcontext.regs[0] = (unsigned long long)(value))
#elif defined __riscv && __riscv_xlen == 64
#define MACHINE 0xc00000f3u
#define SET_RESULT(context, value) ((context)->uc_mcontext.__gregs[10] = (unsigned long)(value))
#endif

#if defined MACHINE && !defined __SANITIZE_ADDRESS__

#define ROOM (8 + 2 * SYSCALLS_MAX + (5 + SYSCALLS_VALUES) * SYSCALLS_CHECKED_MAX + (7 + 2 + SYSCALLS_FAMILIES) * SYSCALLS_PASSED_MAX)

static void (*tell_caller)(const char *what);

static void on_violation(int number, siginfo_t *info, void *context)
{
	char text[80];
	const char *name = syscalls_name(info->si_syscall);

	(void)number;
	snprintf(text, sizeof text, "a system call that %s never makes, %s (%d)", readable_is_confined() ? "a session" : "smtpwarp", name, info->si_syscall);
	tell_caller(text);
	if (readable_is_confined())
		_exit(EX_SOFTWARE);
	SET_RESULT((ucontext_t *)context, -ENOSYS);
}

static unsigned put(struct instruction *p, unsigned n, uint16_t code, uint8_t yes, uint8_t no, uint32_t value)
{
	p[n] = (struct instruction){ code, yes, no, value };
	return n + 1;
}

/* The call goes on to the list of those that are allowed only if the argument is right. */
static unsigned put_checked(struct instruction *p, unsigned n, const struct syscalls_checked *c)
{
	unsigned values = c->forbidden ? 1 : c->count;

	n = put(p, n, IF_EQUAL, 0, (uint8_t)(values + 4), (uint32_t)c->call);
	n = put(p, n, LOAD, 0, 0, ARGUMENTS_AT + 8 * c->argument);
	n = put(p, n, KEEP_BITS, 0, 0, ~c->ignored);
	if (c->forbidden)
		n = put(p, n, IF_ANY_BIT, 0, 1, c->forbidden);
	for (unsigned i = 0; !c->forbidden && i < values; i++)
		n = put(p, n, IF_EQUAL, (uint8_t)(values - i), 0, c->value[i]);
	n = put(p, n, RETURN, 0, 0, TRAP);
	return put(p, n, LOAD, 0, 0, CALL_AT);
}

/* The same if it comes with its pass. */
static unsigned put_passed(struct instruction *p, unsigned n, const struct syscalls_passed *c)
{
	uint64_t number = passes_number(c->pass);
	unsigned families = c->family[0] ? SYSCALLS_FAMILIES : 0;

	if (!number)
		return n;
	n = put(p, n, IF_EQUAL, 0, (uint8_t)(families ? families + 8 : 6), (uint32_t)c->call);
	if (families)
		n = put(p, n, LOAD, 0, 0, ARGUMENTS_AT);
	for (unsigned i = 0; i < families; i++)
		n = put(p, n, IF_EQUAL, (uint8_t)(families - i), 0, c->family[i]);
	if (families)
		n = put(p, n, IF_EQUAL, 5, 5, 0); /* another family: on to the end */
	n = put(p, n, LOAD, 0, 0, ARGUMENTS_AT + 8 * 5);
	n = put(p, n, IF_EQUAL, 0, 2, (uint32_t)number);
	n = put(p, n, LOAD, 0, 0, ARGUMENTS_AT + 8 * 5 + 4);
	n = put(p, n, IF_EQUAL, 1, 0, (uint32_t)(number >> 32));
	n = put(p, n, RETURN, 0, 0, TRAP);
	return put(p, n, LOAD, 0, 0, CALL_AT);
}

static void filter(void)
{
	static struct instruction p[ROOM];
	struct program program = { .instruction = p };
	unsigned n = put(p, 0, LOAD, 0, 0, MACHINE_AT);

	n = put(p, n, IF_EQUAL, 1, 0, MACHINE);
	n = put(p, n, RETURN, 0, 0, KILL);
	n = put(p, n, LOAD, 0, 0, CALL_AT);
	for (unsigned i = 0; i < syscalls_checked_count; i++)
		n = put_checked(p, n, &syscalls_checked[i]);
	for (unsigned i = 0; i < syscalls_passed_count; i++)
		n = put_passed(p, n, &syscalls_passed[i]);
	for (unsigned i = 0; i < syscalls_allowed_count; i++) {
		n = put(p, n, IF_EQUAL, 0, 1, (uint32_t)syscalls_allowed[i]);
		n = put(p, n, RETURN, 0, 0, ALLOW);
	}
	n = put(p, n, IF_EQUAL, 0, 1, (uint32_t)-1); /* a debugger has put it in a call's place, which is not made */
	n = put(p, n, RETURN, 0, 0, ALLOW);
	program.length = (unsigned short)put(p, n, RETURN, 0, 0, TRAP);
	syscall(SYS_seccomp, SET_FILTER, 0, &program);
	explicit_bzero(p, sizeof p); /* it has the numbers of passes */
}

void sandbox_filter(void (*tell)(const char *what))
{
	struct sigaction action = { .sa_sigaction = on_violation, .sa_flags = SA_SIGINFO };

	tell_caller = tell;
	sigaction(SIGSYS, &action, NULL);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	passes_draw();
	filter();
}

/* SECCOMP_GET_ACTION_AVAIL */
static bool can_filter(void)
{
	const uint32_t action = TRAP;

	return syscall(SYS_seccomp, 2, 0, &action) == 0;
}
#else
void sandbox_filter(void (*tell)(const char *what))
{
	(void)tell;
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	passes_draw();
}

static bool can_filter(void)
{
	return false;
}
#endif

/* ---- files, ports, signals ---- */

/* linux/landlock.h, as of version 7; Debian's headers know less. */
enum {
	CREATE_RULESET = 444,
	ADD_RULE = 445,
	RESTRICT_SELF = 446,
	ASK_VERSION = 1,
	NET_PORT = 2,
	CONNECT_TCP = 1 << 1,
	ABSTRACT_SOCKETS = 1 << 0,
	SIGNALS = 1 << 1,
};

struct ruleset {
	uint64_t files, net, scoped;
};

struct port_rule {
	uint64_t access, port;
};

static struct {
	int version;	      /* 0: the kernel has no Landlock */
	int all_ports, ports; /* rulesets */
	uint16_t port[SANDBOX_PORTS + 1];
	unsigned count;
} landlock;

static int landlock_version(void)
{
	long version = syscall(CREATE_RULESET, NULL, 0, ASK_VERSION);

	return version > 0 ? (int)version : 0;
}

/* All that the version knows to forbid of files; only connecting, of ports. The structure's end is unknown to older versions. */
static int make_ruleset(bool all_ports)
{
	static const unsigned char file_rights[] = { 13, 14, 15, 15, 16 }; /* by version */
	unsigned last = sizeof file_rights - 1, at = (unsigned)landlock.version - 1 < last ? (unsigned)landlock.version - 1 : last;
	struct ruleset r = { (1u << file_rights[at]) - 1, all_ports ? 0 : CONNECT_TCP, ABSTRACT_SOCKETS | SIGNALS };
	size_t size = landlock.version >= 6 ? sizeof r : landlock.version >= 4 ? offsetof(struct ruleset, scoped) : offsetof(struct ruleset, net);
	int fd = (int)syscall(CREATE_RULESET, &r, size, 0);

	for (unsigned i = 0; fd >= 0 && !all_ports && landlock.version >= 4 && i < landlock.count; i++) {
		const struct port_rule rule = { CONNECT_TCP, landlock.port[i] };

		syscall(ADD_RULE, fd, NET_PORT, &rule, 0);
	}
	return fd;
}

static bool has_port(uint16_t port)
{
	for (unsigned i = 0; i < landlock.count; i++)
		if (landlock.port[i] == port)
			return true;
	return false;
}

/* A port that no other session needs: this one has a ruleset of its own. */
static int ruleset_with(uint16_t port)
{
	if (!port || has_port(port) || landlock.version < 4)
		return landlock.ports;
	landlock.port[landlock.count++] = port;
	return make_ruleset(false);
}

/* Rulesets are closed, for rules that this session adds would hold for those to come. */
static void take_ruleset(bool any_port, uint16_t port)
{
	int ruleset = any_port ? landlock.all_ports : ruleset_with(port);

	syscall(RESTRICT_SELF, ruleset, 0);
	if (ruleset != landlock.ports && ruleset != landlock.all_ports)
		close(ruleset);
	close(landlock.ports);
	close(landlock.all_ports);
}

/* ---- capabilities ---- */

/* linux/capability.h, version 3 */
struct capability_head {
	uint32_t version;
	int pid;
};

struct capability_set {
	uint32_t effective, permitted, inheritable;
};

#define CAPABILITIES_3 0x20080522u
#define DAC_OVERRIDE (1u << 1) /* to connect to Unix sockets of others: no file is opened */
#define NET_ADMIN (1u << 12)
#define NET_RAW (1u << 13) /* of which marks and source addresses are left: raw sockets are filtered */

static struct {
	bool too_many; /* there are some that sessions do not need */
	uint32_t kept;
} capabilities;

/* Linux before 5.17 wants the larger one for marks; and it is needed where it was all that was given. */
static void choose_capabilities(bool mark)
{
	struct capability_head head = { CAPABILITIES_3, 0 };
	struct capability_set set[2] = { { 0, 0, 0 }, { 0, 0, 0 } };

	if (syscall(SYS_capget, &head, set) < 0)
		return;
	capabilities.kept = set[0].permitted & (DAC_OVERRIDE | NET_RAW | (mark || !(set[0].permitted & NET_RAW) ? NET_ADMIN : 0));
	capabilities.too_many = set[0].permitted != capabilities.kept || set[1].permitted;
}

static void drop_capabilities(void)
{
	struct capability_head head = { CAPABILITIES_3, 0 };
	const struct capability_set set[2] = { { capabilities.kept, capabilities.kept, 0 }, { 0, 0, 0 } };

	if (capabilities.too_many)
		syscall(SYS_capset, &head, set);
}

/* ---- all of them ---- */

void sandbox_prepare(const uint16_t *port, unsigned n, bool mark)
{
	choose_capabilities(mark);
	landlock.version = landlock_version();
	memcpy(landlock.port, port, n * sizeof *port);
	landlock.count = n;
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (!has_walls)
		return;
	if (landlock.version) {
		landlock.all_ports = make_ruleset(true);
		landlock.ports = make_ruleset(false);
	}
	prepared = true;
}

void sandbox_enter(bool any_port, uint16_t port)
{
	const struct rlimit none = { 0, 0 };

	if (!prepared)
		return;
	readable_confine();
	setrlimit(RLIMIT_NPROC, &none);
	passes_forget(PASS_LISTENER);
	drop_capabilities();
	if (landlock.version)
		take_ruleset(any_port, port);
}

const char *sandbox_walls(char text[SANDBOX_WALLS])
{
	int version = landlock_version();

	if (!has_walls)
		return "none";
	snprintf(text, SANDBOX_WALLS, "%s%s%s%sprocesses", can_filter() ? "calls " : "", version >= 1 ? "files " : "", version >= 4 ? "ports " : "",
	    version >= 6 ? "signals " : "");
	return text;
}
