/* An intruder, for test_sandbox.py: code that runs in a session as if its client had smuggled it in. A build of smtpwarp that is linked with
 * this, and only that, runs it where a client says NOOP and `intrude`, what is to be tried, and perhaps an operand. The answer is
 * "250 done" or "250 refused: ERROR"; none comes where the session ends.
 */
#define _GNU_SOURCE
#include "io/passes.h"
#include "session/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

bool __real_commands_turn(struct session *s);
bool __wrap_commands_turn(struct session *s);

static int done(long result)
{
	return result < 0 ? errno : 0;
}

static int execute(const char *operand)
{
	char *words[] = { (char *)(uintptr_t)operand, NULL };

	return done(execv(operand, words));
}

static int read_file(const char *operand)
{
	return done(open(operand, O_RDONLY));
}

static int make_file(const char *operand)
{
	return done(open(operand, O_WRONLY | O_CREAT, 0600));
}

static int remove_file(const char *operand)
{
	return done(unlink(operand));
}

static int signal_process(const char *operand)
{
	return done(kill(atoi(operand), SIGTERM));
}

/* Without kill(2): the kernel signals the owner of a descriptor. */
static int own_descriptor(const char *operand)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 || fcntl(pair[0], F_SETOWN, atoi(operand)) < 0 || fcntl(pair[0], 10 /* F_SETSIG */, SIGKILL) < 0 ||
	    fcntl(pair[0], F_SETFL, O_ASYNC) < 0)
		return errno;
	return done(send(pair[1], "x", 1, 0));
}

static int trace_process(const char *operand)
{
	return done(ptrace(PTRACE_ATTACH, atoi(operand), NULL, NULL));
}

static int read_memory(const char *operand)
{
	char octet;
	struct iovec here = { &octet, 1 }, there = { (void *)(uintptr_t)&octet, 1 };

	return done(process_vm_readv(atoi(operand), &here, 1, &there, 1, 0));
}

static int open_memory(const char *operand)
{
	char path[40];

	snprintf(path, sizeof path, "/proc/%d/mem", atoi(operand));
	return read_file(path);
}

static int make_socket(const char *operand)
{
	return done(socket(atoi(operand), SOCK_RAW, 0));
}

/* The intruder takes what the session still has: its pass, where that is not forgotten. */
static int ip_socket(int type)
{
	return passes_hold(PASS_NETWORK) ? passes_socket(AF_INET, type, 0) : socket(AF_INET, type, 0);
}

static int connect_socket(int fd, const void *to, size_t len)
{
	const struct sockaddr *address = to;

	return passes_hold(PASS_NETWORK) ? passes_connect(fd, address, (socklen_t)len) : connect(fd, address, (socklen_t)len);
}

static int connect_port(const char *operand)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(operand)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = ip_socket(SOCK_STREAM | SOCK_NONBLOCK), error = done(connect_socket(fd, &to, sizeof to));

	close(fd);
	return error == EINPROGRESS || error == ECONNREFUSED ? 0 : error; /* it was let out */
}

static int send_datagram(const char *operand)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(operand)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	return done(sendto(ip_socket(SOCK_DGRAM), "x", 1, 0, (struct sockaddr *)&to, sizeof to));
}

static int listen_port(const char *operand)
{
	(void)operand;
	return done(listen(ip_socket(SOCK_STREAM), 1));
}

/* Sockets that the session has: leave their peers for another, connect(2) AF_UNSPEC. */
static int connect_again(const char *operand)
{
	const struct sockaddr nobody = { .sa_family = AF_UNSPEC };

	(void)operand;
	for (int fd = 3; fd < 64; fd++)
		if (connect_socket(fd, &nobody, sizeof nobody) == 0)
			return 0;
	return errno;
}

static int connect_path(const char *operand)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };

	strncpy(to.sun_path, operand, sizeof to.sun_path - 1);
	return done(connect_socket(socket(AF_UNIX, SOCK_STREAM, 0), &to, sizeof to));
}

/* In sending: TCP Fast Open. */
static int connect_fast(const char *operand)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(operand)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	return done(sendto(ip_socket(SOCK_STREAM), "x", 1, MSG_FASTOPEN | MSG_DONTWAIT, (struct sockaddr *)&to, sizeof to));
}

static int make_pair(const char *operand)
{
	int pair[2];

	return done(socketpair(atoi(operand), SOCK_DGRAM, 0, pair));
}

static int make_multipath(const char *operand)
{
	(void)operand;
	return done(socket(AF_INET, SOCK_STREAM, 262 /* IPPROTO_MPTCP */));
}

static int make_raw(const char *operand)
{
	return done(socket(atoi(operand), SOCK_RAW, IPPROTO_TCP));
}

/* Widen the walls of sessions to come: a rule for the ruleset that they will take up, wherever it is. */
static int add_rule(const char *operand)
{
	const struct {
		uint64_t access, port;
	} rule = { 2 /* LANDLOCK_ACCESS_NET_CONNECT_TCP */, (uint64_t)atoi(operand) };

	for (int fd = 0; fd < 64; fd++)
		if (syscall(445 /* landlock_add_rule */, fd, 2 /* LANDLOCK_RULE_NET_PORT */, &rule, 0) == 0)
			return 0;
	return errno;
}

static int connect_abstract(const char *operand)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	size_t n = strlen(operand);

	memcpy(to.sun_path + 1, operand, n);
	return done(connect_socket(fd, &to, offsetof(struct sockaddr_un, sun_path) + 1 + n));
}

static int make_process(const char *operand)
{
	long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* fork(3) would block all signals first */

	(void)operand;
	if (pid == 0)
		_exit(0);
	if (pid > 0)
		waitpid((pid_t)pid, NULL, 0);
	return done(pid);
}

/* A page of the program's own text. */
static void *text_page(void)
{
	return (void *)((uintptr_t)text_page & ~(uintptr_t)4095);
}

static int write_text(const char *operand)
{
	(void)operand;
	return done(mprotect(text_page(), 4096, PROT_READ | PROT_WRITE | PROT_EXEC));
}

static int map_code(const char *operand)
{
	(void)operand;
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno : 0;
}

/* Files that are open to be read: routes, hosts and the like. Says done if an octet of any could be written. */
static int write_open_files(const char *operand)
{
	int last = EBADF;

	(void)operand;
	for (int fd = 3; fd < 64; fd++) {
		struct stat st;

		if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY)
			continue;
		if (pwrite(fd, "x", 1, 0) == 1)
			return 0;
		last = errno;
	}
	return last;
}

static int more_rights(const char *operand)
{
	(void)operand;
	return done(syscall(SYS_setuid, 0)); /* libc's function would block all signals first */
}

static int leave_namespace(const char *operand)
{
	(void)operand;
	return done(syscall(SYS_unshare, 0x10000000 /* CLONE_NEWUSER */));
}

/* Shut what all sessions ask the broker and agents by. */
static int shut_ways(const char *operand)
{
	unsigned found = 0;

	(void)operand;
	for (int fd = 3; fd < 64; fd++) {
		int type;
		socklen_t len = sizeof type;

		if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_SEQPACKET)
			found += shutdown(fd, SHUT_RDWR) == 0;
	}
	return found ? 0 : ENOENT;
}

extern char __bss_start, _end;

static bool is_half(const char *at, uint32_t inverse)
{
	uint32_t found;

	memcpy(&found, at, sizeof found);
	return found == ~inverse;
}

static bool half_follows(const char *at, uint32_t inverse)
{
	bool follows = false;

	for (unsigned i = 4; i < 60; i++)
		follows = follows || is_half(at + i, inverse);
	return follows;
}

/* Copies of the number of a pass, in one piece or as a filter has it, in two halves that are not far apart. As long as the session has the pass
 * there is one. Looked for in variables, in what calls have left below this function's frame, and above it. */
static int find_copies(const char *operand)
{
	const uint64_t number = passes_number(PASS_NETWORK);
	const volatile uint32_t wanted[] = { ~(uint32_t)number, ~(uint32_t)(number >> 32) }; /* no copy itself */
	const char *here = __builtin_frame_address(0);
	const struct {
		const char *from, *to;
	} memory[] = { { (const char *)text_page(), &_end }, { here - 65536, here - 1024 }, { here, (const char *)environ } };
	unsigned copies = 0;

	(void)operand;
	for (unsigned i = 0; i < sizeof memory / sizeof *memory; i++)
		for (const char *at = memory[i].from; at + 64 <= memory[i].to; at++)
			copies += is_half(at, wanted[0]) && half_follows(at, wanted[1]);
	return copies == 1 ? ENOENT : copies ? 0 : ESRCH;
}

static const struct {
	char name[16];
	int (*run)(const char *operand);
} attempts[] = {
	{ "execute", execute }, { "read", read_file }, { "make", make_file }, { "remove", remove_file }, { "signal", signal_process }, { "own", own_descriptor },
	{ "trace", trace_process }, { "peek", read_memory }, { "memory", open_memory }, { "socket", make_socket }, { "raw", make_raw }, { "pair", make_pair }, { "multipath", make_multipath }, { "fast", connect_fast }, { "rule", add_rule },
	{ "shut", shut_ways }, { "connect", connect_port }, { "datagram", send_datagram }, { "listen", listen_port }, { "again", connect_again },
	{ "path", connect_path }, { "copies", find_copies },
	{ "abstract", connect_abstract }, { "fork", make_process }, { "text", write_text }, { "code", map_code }, { "files", write_open_files }, { "root", more_rights }, { "namespace", leave_namespace },
};

static void intrude(struct session *s, char *words)
{
	char *name = strtok(words, " "), *operand = strtok(NULL, "\r\n"), reply[120];

	for (unsigned i = 0; name && i < sizeof attempts / sizeof *attempts; i++) {
		int error;

		if (strcmp(attempts[i].name, name) != 0)
			continue;
		error = attempts[i].run(operand ? operand : "");
		send(s->client.leg.fd, reply, (size_t)snprintf(reply, sizeof reply, error ? "250 refused: %s\r\n" : "250 done\r\n", strerror(error)),
		    0);
	}
}

bool __wrap_commands_turn(struct session *s)
{
	static const char begins[] = "NOOP intrude ";
	struct buffer *in = &s->client.leg.in;
	const unsigned char *line = in->bytes + in->start;
	size_t n = in->end - in->start;
	char words[400] = "";

	if (n < sizeof begins || n >= sizeof words || memcmp(line, begins, sizeof begins - 1) != 0 || line[n - 1] != '\n')
		return __real_commands_turn(s);
	memcpy(words, line + sizeof begins - 1, n - sizeof begins + 1);
	in->start = in->end;
	intrude(s, words);
	return true;
}
