/* Agents. See agent.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/agent.h"
#include "io/companion.h"
#include "io/passes.h"
#include "io/requests.h"

#include <bearssl.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sysexits.h>
#include <unistd.h>

#define PROCESSES_MAX 4 /* for one key */
#define HOST_MAX 512 /* octets */
#define MD5_SHA1 36 /* octets, RFC 4346 7.4.3 */

static struct agents {
	int requests; /* the socket that requests go to; 0: none */
	unsigned count;
	pid_t pid[PROCESSES_MAX];
	bool lacking;
} agents[AGENT_KINDS];

/* Agents write it, for the process that has started them to read. A session that was taken over may write it, too. */
static struct refusals {
	uint32_t count;
	pid_t last;
} *refusals;

/* ---- the session's side ---- */

/* Returns octets of the answer; 0: the agent has refused, or does not answer in time. */
static size_t ask(enum agent_kind kind, const void *request, size_t len, void *answer, size_t cap)
{
	const struct timeval limit = { .tv_sec = REQUESTS_SECONDS };
	int channel = agents[kind].requests ? requests_send(agents[kind].requests, request, len, NULL, 0) : -1;
	ssize_t n;

	if (channel < 0)
		return 0;
	setsockopt(channel, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	n = recv(channel, answer, cap, 0);
	close(channel);
	return n > 0 ? (size_t)n : 0;
}

size_t agent_sign(enum keys_pair pair, const unsigned char *hash, size_t n, unsigned char signature[AGENT_SIGNATURE_MAX])
{
	return ask((enum agent_kind)pair, hash, n, signature, AGENT_SIGNATURE_MAX);
}

struct question {
	uint16_t port;
	bool chosen_by_client;
	char host[HOST_MAX];
};

bool agent_password(const struct passwords_server *server, struct agent_pair *pair)
{
	struct question q = { .port = server->port, .chosen_by_client = server->chosen_by_client };
	size_t n = strlen(server->host);

	if (n >= sizeof q.host)
		return false;
	memcpy(q.host, server->host, n);
	return ask(AGENT_PASSWORDS, &q, sizeof q, pair, sizeof *pair) == sizeof *pair;
}

/* ---- the agent's side ---- */

struct request {
	unsigned char bytes[1024];
	size_t len;
	int channel;
	pid_t asker; /* as the kernel has it; 0: it says nothing */
};

static void take_descriptors(const unsigned char *bytes, size_t n, struct request *r)
{
	int fd;

	for (; n >= sizeof fd; n -= sizeof fd, bytes += sizeof fd) {
		memcpy(&fd, bytes, sizeof fd);
		if (r->channel < 0)
			r->channel = fd;
		else
			requests_close(fd); /* there should be one */
	}
}

/* What came along, at most n octets: who asks, and descriptors. */
static void take_control(const char *control, size_t n, struct request *r)
{
	for (size_t at = 0, len; n - at >= sizeof(struct cmsghdr); at += CMSG_ALIGN(len) < n - at ? CMSG_ALIGN(len) : n - at) {
		const struct cmsghdr *c = (const struct cmsghdr *)(const void *)(control + at);
		const struct ucred *asker = (const struct ucred *)(const void *)CMSG_DATA(c);

		len = c->cmsg_len;
		if (c->cmsg_type == SCM_CREDENTIALS)
			r->asker = asker->pid;
		else if (c->cmsg_type == SCM_RIGHTS)
			take_descriptors(CMSG_DATA(c), len - CMSG_LEN(0), r);
	}
}

/* Wait for a message, which another agent may take first. */
static ssize_t receive(int requests, struct msghdr *message)
{
	struct pollfd p = { .fd = requests, .events = POLLIN };
	ssize_t n;

	do {
		poll(&p, 1, -1);
		requests_hurry();
		n = recvmsg(requests, message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		requests_calm();
	} while (n < 0 && (errno == EAGAIN || errno == EINTR));
	return n;
}

/* Wait for a request. false: nobody is left to ask. A message without octets has credentials, an end has not. */
static bool take_request(int requests, struct request *r)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = { r->bytes, sizeof r->bytes };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	ssize_t n = receive(requests, &message);

	r->channel = -1;
	r->asker = 0;
	r->len = 0;
	if (n < 0)
		return errno == ENOBUFS || errno == ENOMEM;
	take_control(control.room, message.msg_controllen, r);
	if (!n && !r->asker && r->channel < 0)
		return false;
	r->len = message.msg_flags & MSG_TRUNC ? 0 : (size_t)n;
	return true;
}

static const struct hash {
	size_t len;
	const unsigned char *oid;
	const br_hash_class *class;
} hashes[] = {
	{ 20, BR_HASH_OID_SHA1, &br_sha1_vtable },
	{ 28, BR_HASH_OID_SHA224, &br_sha224_vtable },
	{ 32, BR_HASH_OID_SHA256, &br_sha256_vtable },
	{ MD5_SHA1, NULL, NULL },
	{ 48, BR_HASH_OID_SHA384, &br_sha384_vtable },
	{ 64, BR_HASH_OID_SHA512, &br_sha512_vtable },
};

/* The hash of so many octets, if this key may sign it; else NULL. */
static const struct hash *find_hash(enum keys_pair pair, const struct keys_secret *k, size_t len)
{
	for (size_t i = 0; i < sizeof hashes / sizeof *hashes; i++) {
		const struct hash *h = &hashes[i];

		if (h->len == len)
			return h->oid ? pair == KEYS_UPSTREAM || len >= 32 ? h : NULL : pair == KEYS_UPSTREAM && k->rsa ? h : NULL;
	}
	return NULL;
}

static size_t sign(enum keys_pair pair, const struct request *r, unsigned char *signature)
{
	const struct keys_secret *k = keys_secret(pair);
	const struct hash *h = find_hash(pair, k, r->len);

	if (!h)
		return 0;
	if (k->ec)
		return br_ecdsa_sign_asn1_get_default()(br_ec_get_default(), h->class, r->bytes, k->ec, signature);
	return br_rsa_pkcs1_sign_get_default()(h->oid, r->bytes, r->len, k->rsa, signature) ? (k->rsa->n_bitlen + 7) / 8 : 0;
}

/* Who has asked for which lines. */
static struct asker {
	pid_t pid;
	int pidfd; /* of Linux 5.3; -1: there is none */
	unsigned count;
	const char *line[AGENT_LINES];
} *askers;
static unsigned asker_count, asker_room;

static bool has_ended(const struct asker *a)
{
	struct pollfd p = { .fd = a->pidfd, .events = POLLIN };

	return a->pidfd < 0 ? passes_kill(a->pid, 0) < 0 && errno == ESRCH : poll(&p, 1, 0) != 0;
}

/* Forget those that have ended. */
static void sweep(void)
{
	for (unsigned i = asker_count; i-- > 0;)
		if (has_ended(&askers[i])) {
			if (askers[i].pidfd >= 0)
				close(askers[i].pidfd);
			askers[i] = askers[--asker_count];
		}
}

static bool has_room(void)
{
	unsigned room = asker_room ? asker_room * 2 : 16;
	struct asker *more;

	if (asker_count == asker_room)
		sweep();
	if (asker_count < asker_room)
		return true;
	more = realloc(askers, room * sizeof *askers);
	askers = more ? more : askers;
	asker_room = more ? room : asker_room;
	return more;
}

static struct asker *find_asker(pid_t pid)
{
	unsigned i = 0;
	int fd;

	while (i < asker_count && askers[i].pid != pid)
		i++;
	if (i < asker_count && has_ended(&askers[i])) { /* another process has its number */
		sweep();
		i = asker_count;
	}
	if (i < asker_count)
		return &askers[i];
	if (!has_room())
		return NULL;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0 && errno == EMFILE) {
		sweep();
		fd = (int)syscall(SYS_pidfd_open, pid, 0);
	}
	if (fd < 0 && errno != ENOSYS)
		return NULL;
	askers[asker_count] = (struct asker){ .pid = pid, .pidfd = fd };
	return &askers[asker_count++];
}

static bool may_have(pid_t pid, const char *line)
{
	struct asker *a = pid ? find_asker(pid) : NULL;

	for (unsigned i = 0; a && i < a->count; i++)
		if (a->line[i] == line)
			return true;
	if (!a || a->count == AGENT_LINES)
		return false;
	a->line[a->count++] = line;
	return true;
}

static size_t give_password(const struct request *r, struct agent_pair *pair)
{
	struct question q;
	struct password p;

	memcpy(&q, r->bytes, sizeof q);
	if (r->len != sizeof q || q.host[HOST_MAX - 1] || r->bytes[offsetof(struct question, chosen_by_client)] > 1 ||
	    !passwords_secret_for(&(struct passwords_server){ q.host, q.port, q.chosen_by_client }, &p) ||
	    !may_have(r->asker, p.pair.user))
		return 0;
	*pair = (struct agent_pair){ (unsigned char)p.pair.user_len, (unsigned char)p.pair.password_len, { 0 } };
	memcpy(pair->text, p.pair.user, p.pair.user_len);
	memcpy(pair->text + p.pair.user_len, p.pair.password, p.pair.password_len);
	return sizeof *pair;
}

static void count_refusal(pid_t asker)
{
	__atomic_store_n(&refusals->last, asker, __ATOMIC_RELAXED);
	__atomic_fetch_add(&refusals->count, 1, __ATOMIC_RELAXED);
}

/* Whether the asker still waits. */
static bool is_awaited(const struct request *r)
{
	struct pollfd p = { .fd = r->channel };

	return r->channel >= 0 && poll(&p, 1, 0) == 0;
}

/* The channel may be any descriptor. */
static void answer(const struct request *r, const void *bytes, size_t n)
{
	if (n)
		send(r->channel, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	requests_close(r->channel);
}

/* There must be no other agent's secret here. */
static void prepare(enum agent_kind kind, int requests)
{
	struct rlimit files;

	companion_prepare();
	companion_keep(requests);
	for (enum keys_pair pair = 0; pair < KEYS_PAIRS; pair++)
		if ((enum agent_kind)pair != kind)
			keys_forget(pair);
	if (kind != AGENT_PASSWORDS)
		passwords_forget();
	else if (getrlimit(RLIMIT_NOFILE, &files) == 0) /* one for each process that has asked */
		setrlimit(RLIMIT_NOFILE, &(struct rlimit){ files.rlim_max, files.rlim_max });
}

static _Noreturn void run_agent(enum agent_kind kind, int requests)
{
	union {
		unsigned char signature[AGENT_SIGNATURE_MAX];
		struct agent_pair pair;
	} u;
	struct request r;

	prepare(kind, requests);
	while (take_request(STDIN_FILENO, &r)) {
		size_t n = 0;

		if (is_awaited(&r))
			n = kind == AGENT_PASSWORDS ? give_password(&r, &u.pair) : sign((enum keys_pair)kind, &r, u.signature);
		if (!n)
			count_refusal(r.asker);
		answer(&r, &u, n);
	}
	_exit(EX_OK);
}

/* ---- the side of the process that starts them ---- */

static unsigned processors(void)
{
	static long online;

	if (!online)
		online = sysconf(_SC_NPROCESSORS_ONLN);
	return online < 1 ? 1 : online > PROCESSES_MAX ? PROCESSES_MAX : (unsigned)online;
}

static void forget(enum agent_kind kind)
{
	if (kind == AGENT_PASSWORDS)
		passwords_forget();
	else
		keys_forget((enum keys_pair)kind);
}

/* Returns how many processes there are, at most n. */
static unsigned fork_agents(enum agent_kind kind, int requests, unsigned n)
{
	struct agents *a = &agents[kind];
	pid_t pid;

	while (a->count < n && (pid = companion_fork("smtpwarp-agent")) >= 0) {
		if (pid == 0)
			run_agent(kind, requests);
		a->pid[a->count++] = pid;
	}
	return a->count;
}

static bool share_refusals(void)
{
	void *memory = refusals ? refusals : mmap(NULL, sizeof *refusals, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return false;
	refusals = memory;
	return true;
}

/* Nobody who is forked from now on asks those that there are. */
static void leave(struct agents *a)
{
	if (a->requests)
		close(a->requests);
	*a = (struct agents){ .lacking = true };
}

bool agent_start(enum agent_kind kind, bool many)
{
	struct agents *a = &agents[kind];
	const unsigned wanted = many && kind < AGENT_UPSTREAM ? processors() : 1;
	int pair[2], on = 1, error;

	leave(a);
	if (!share_refusals() || requests_pair(pair) < 0) {
		error = errno;
	} else {
		setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
		a->lacking = fork_agents(kind, pair[1], wanted) == 0; /* one will do where there is room for no more */
		error = errno;
		close(pair[1]);
		a->requests = pair[0];
	}
	forget(kind);
	if (!a->count)
		leave(a);
	errno = error;
	return a->count;
}

bool agent_ended(pid_t pid, enum agent_kind *kind)
{
	for (*kind = 0; *kind < AGENT_KINDS; ++*kind) {
		struct agents *a = &agents[*kind];

		for (unsigned i = 0; i < a->count; i++)
			if (a->pid[i] == pid) {
				a->pid[i] = a->pid[--a->count];
				a->lacking = true;
				return true;
			}
	}
	return false;
}

bool agent_lacks(enum agent_kind kind)
{
	return agents[kind].lacking;
}

unsigned agent_refusals(pid_t *last)
{
	if (!refusals || !__atomic_load_n(&refusals->count, __ATOMIC_RELAXED))
		return 0;
	*last = __atomic_load_n(&refusals->last, __ATOMIC_RELAXED);
	return __atomic_exchange_n(&refusals->count, 0, __ATOMIC_RELAXED);
}

void agent_stop(void)
{
	for (enum agent_kind kind = 0; kind < AGENT_KINDS; kind++) {
		pid_t pid = agents[kind].count ? agents[kind].pid[0] : 0; /* a process of one session starts one of a kind */

		leave(&agents[kind]);
		if (pid)
			companion_wait(pid);
	}
}
