/* The world of the session fuzzer: a network namespace with servers, hooks and one smtpwarp at a time, which moves in steps.
 *
 * A step is one deed of one peer, chosen by the seed, and comes only when smtpwarp sleeps and all that it said has been read.
 * So what happens does not depend on time, and two programs that behave alike have the same transcript.
 */
#define _GNU_SOURCE
#include "fuzz.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STEPS_MAX 6000
#define PATIENCE_MS 4000 /* for smtpwarp to do something by itself */
#define BUSY_MS 30000	 /* and to come to rest */

struct session fuzz;
const char *workplace;

/* Where smtpwarp may connect to. */
static struct door {
	int fd;
	enum { DOOR_SERVER, DOOR_HOOK } what;
	enum kind kind;
	int port; /* or event */
} doors[16];
static int door_count, client_door, barrier, doors_watched;

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static int tcp_door(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 64) < 0)
		die("listen");
	return fd;
}

/* A datagram socket that is connected to itself. */
static int make_barrier(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
		die("barrier");
	return fd;
}

static int unix_door(const char *name)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(a.sun_path, sizeof a.sun_path, "%s/%s", workplace, name);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 64) < 0)
		die(a.sun_path);
	return fd;
}

static void loopback_up(void)
{
	struct ifreq r = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM, 0), sysctl;

	if (ioctl(fd, SIOCGIFFLAGS, &r) < 0)
		die("lo");
	r.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &r) < 0)
		die("lo up");
	close(fd);
	sysctl = open("/proc/sys/net/ipv4/tcp_max_tw_buckets", O_WRONLY); /* each seed has its own port, again and again */
	if (sysctl >= 0) {
		if (write(sysctl, "0", 1) < 0)
			perror("tcp_max_tw_buckets");
		close(sysctl);
	}
}

/* smtpwarp inherits it: so packets of both sides stand in the queue of one processor, see await_packets(). */
static void stay_on_one_processor(int job)
{
	cpu_set_t all, one;
	int n = 0;

	if (sched_getaffinity(0, sizeof all, &all) < 0 || CPU_COUNT(&all) < 1)
		return;
	CPU_ZERO(&one);
	for (size_t i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &all) && n++ == job % CPU_COUNT(&all))
			CPU_SET(i, &one);
	sched_setaffinity(0, sizeof one, &one);
}

static void watch_doors(void)
{
	struct epoll_event coming = { .events = EPOLLIN };

	doors_watched = epoll_create1(EPOLL_CLOEXEC);
	for (int i = 0; i < door_count; i++)
		if (epoll_ctl(doors_watched, EPOLL_CTL_ADD, doors[i].fd, &coming) < 0)
			die("epoll_ctl");
}

void world_enter(const char *directory, int job)
{
	static const char *const events[] = { "hook.connect", "hook.ehlo", "hook.mail", "hook.rcpt", "hook.data", "hook.close",
		"hook.log" };
	static const struct { int port; enum kind kind; } servers[] = { { 2501, K_SMTP }, { 2502, K_SMTP }, { 2503, K_SMTP },
		{ 2504, K_LMTP }, { 2505, K_SMTPS } };

	workplace = directory;
	stay_on_one_processor(job);
	prctl(PR_SET_TIMERSLACK, 1000);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (unshare(geteuid() ? CLONE_NEWUSER | CLONE_NEWNET : CLONE_NEWNET) < 0)
		die("unshare");
	loopback_up();
	barrier = make_barrier();
	client_door = tcp_door(10025);
	for (size_t i = 0; i < sizeof servers / sizeof *servers; i++)
		doors[door_count++] = (struct door){ tcp_door(servers[i].port), DOOR_SERVER, servers[i].kind, servers[i].port };
	doors[door_count++] = (struct door){ unix_door("lmtp"), DOOR_SERVER, K_UNIX, 0 };
	for (int i = 0; i < HOOK_EVENTS; i++)
		doors[door_count++] = (struct door){ unix_door(events[i]), DOOR_HOOK, K_SMTP, i };
	watch_doors();
}

/* ---- the program ---- */

static int connect_client(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int pair[2], on = 1, fd;

	if (fuzz.plan.unix_client) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
			die("socketpair");
		client_begin(pair[0]);
		return pair[1];
	}
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	a.sin_port = htons((uint16_t)(20000 + fuzz.seed % 10000));
	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0)
		perror("bind");
	a.sin_port = htons(10025);
	if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
		die("connect");
	client_begin(fd);
	while ((fd = accept4(client_door, NULL, NULL, SOCK_CLOEXEC)) < 0)
		if (errno != EAGAIN && errno != EINTR)
			die("accept");
	return fd;
}

static void start(const char *program)
{
	static char asan[] = "ASAN_OPTIONS=detect_leaks=0:handle_abort=1", ubsan[] = "UBSAN_OPTIONS=print_stacktrace=1";
	static char path[] = "PATH=/usr/bin:/bin";
	char said[300], verdict[600], *environment[] = { asan, ubsan, path, verdict, NULL };
	posix_spawn_file_actions_t files;
	int fd = connect_client(), error;

	if (fuzz.plan.exec_hook && fuzz.plan.program >= 0)
		snprintf(verdict, sizeof verdict, "FUZZ_VERDICT=RUN %d", fuzz.plan.program);
	else
		snprintf(verdict, sizeof verdict, "FUZZ_VERDICT=%s", fuzz.plan.exec_verdict ? fuzz.plan.exec_verdict : "");
	snprintf(said, sizeof said, "%s/stderr", workplace);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, fd, 0);
	posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&files, 2, said, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	error = posix_spawn(&fuzz.pid, program, &files, NULL, (char **)fuzz.plan.argv, environment);
	posix_spawn_file_actions_destroy(&files);
	if (error) {
		fprintf(stderr, "%s: %s\n", program, strerror(error));
		exit(2);
	}
	close(fd);
	snprintf(said, sizeof said, "/proc/%d/stat", (int)fuzz.pid);
	fuzz.stat_fd = open(said, O_RDONLY | O_CLOEXEC);
}

/* As proc(5) has it: S is asleep, Z has ended. */
static char program_state(void)
{
	char text[300];
	ssize_t n = pread(fuzz.stat_fd, text, sizeof text - 1, 0);
	const char *at;

	if (n <= 0)
		return 'Z';
	text[n] = 0;
	at = strrchr(text, ')');
	return at && at[1] ? at[2] : 'Z';
}

static bool read_children(const char *of, char *text, size_t cap)
{
	char path[80];
	int fd;
	ssize_t n;

	snprintf(path, sizeof path, "/proc/%s/children", of);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, text, cap - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = 0;
	return n > 0;
}

/* Whether the broker, the only child of smtpwarp's, has a child. */
static bool hook_runs(void)
{
	char of[40], broker[400], text[400];

	snprintf(of, sizeof of, "%d/task/%d", (int)fuzz.pid, (int)fuzz.pid);
	if (!read_children(of, broker, sizeof broker))
		return false;
	snprintf(of, sizeof of, "%d/task/%d", atoi(broker), atoi(broker));
	return read_children(of, text, sizeof text);
}

/* A hook runs, or a process that one has left behind, which became ours. */
static bool has_children(void)
{
	char text[400];
	bool left = false;

	if (!fuzz.plan.exec_hook)
		return false;
	if (hook_runs())
		return true;
	read_children("thread-self", text, sizeof text);
	for (char *at = strtok(text, " "); at; at = strtok(NULL, " ")) {
		pid_t pid = (pid_t)atoi(at);

		left = left || (pid != fuzz.pid && waitpid(pid, NULL, WNOHANG) == 0);
	}
	return left;
}

/* ---- steps ---- */

static bool accept_all(void)
{
	struct epoll_event some;
	bool moved = false;
	int fd;

	if (epoll_wait(doors_watched, &some, 1, 0) < 1) /* one question instead of one for each */
		return false;
	for (int i = 0; i < door_count; i++)
		while ((fd = accept4(doors[i].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
			moved = true;
			if (doors[i].what == DOOR_SERVER)
				server_accept(fd, doors[i].kind, doors[i].port);
			else
				hooks_accept(fd, doors[i].port);
		}
	return moved;
}

static bool pump_all(void)
{
	bool moved = accept_all();

	moved = link_pump(&fuzz.client.link) || moved;
	for (int i = 0; i < fuzz.server_count; i++)
		moved = link_pump(&fuzz.servers[i].link) || moved;
	for (int i = 0; i < fuzz.asked_count; i++)
		moved = hook_pump(&fuzz.asked[i]) || moved;
	return moved;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Packets over loopback may wait for the kernel's soft interrupts, one behind the other for each processor. When as many rounds of
 * our own have come back as it takes to connect, all before them have arrived. */
static void await_packets(void)
{
	char c = 0;

	for (int i = 0; i < 3; i++)
		if (send(barrier, &c, 1, 0) < 0 || recv(barrier, &c, 1, 0) < 0)
			die("barrier");
}

/* Until smtpwarp sleeps, or has ended, and nothing is on its way. */
static void settle(void)
{
	const struct timespec moment = { 0, 10000 };
	int64_t limit = 0;
	bool quiet = false;

	for (unsigned turns = 1;; turns++) {
		/* In this order: what it did before it slept is there to be read. */
		bool children = has_children();
		char state = program_state();
		bool moved = pump_all(), rests = !moved && (state == 'Z' || (state == 'S' && !children));

		if (rests && quiet) {
			fuzz.exited = state == 'Z';
			return;
		}
		quiet = rests;
		if (rests)
			await_packets();
		else if (!moved)
			nanosleep(&moment, NULL);
		if (turns % 256)
			continue;
		limit = limit ? limit : now_ms() + BUSY_MS;
		if (now_ms() > limit) {
			fault("smtpwarp does not come to rest");
			kill(fuzz.pid, SIGKILL);
		}
	}
}

/* What a peer that does not take part in TLS gets of it is never twice the same. */
static void note_fresh(const char *who, struct link *l)
{
	if (!l->ssl && l->fresh.n > 2 && memcmp(l->fresh.p, "\x16\x03", 2) == 0)
		notef(who, "(a handshake)");
	else
		note(who, l->fresh.p, l->fresh.n);
	l->fresh.n = 0;
}

/* What has come, and ends that follow of themselves. */
static void look(void)
{
	char who[20];

	if (fuzz.client.link.fresh.n)
		note_fresh("C<", &fuzz.client.link);
	for (int i = 0; i < fuzz.server_count; i++) {
		snprintf(who, sizeof who, "S%d<", i);
		server_look(&fuzz.servers[i]);
		if (fuzz.servers[i].link.fresh.n)
			note_fresh(who, &fuzz.servers[i].link);
		if (fuzz.servers[i].link.fd >= 0 && fuzz.servers[i].link.eof && !server_can_act(&fuzz.servers[i])) {
			notef(who, "end");
			link_close(&fuzz.servers[i].link, false);
		}
	}
	client_take();
	if (fuzz.client.link.fd >= 0 && fuzz.client.link.eof) {
		notef("C<", "end");
		link_close(&fuzz.client.link, false);
	}
}

/* For what comes by time. Whether something has come. */
static bool await(void)
{
	struct pollfd p[2 + 16 + SERVERS_MAX];
	nfds_t n = 0;
	int ended = (int)syscall(434 /* pidfd_open */, fuzz.pid, 0), got;

	if (fuzz.client.link.fd >= 0)
		p[n++] = (struct pollfd){ .fd = fuzz.client.link.fd, .events = POLLIN };
	for (int i = 0; i < door_count; i++)
		p[n++] = (struct pollfd){ .fd = doors[i].fd, .events = POLLIN };
	for (int i = 0; i < fuzz.server_count; i++)
		if (fuzz.servers[i].link.fd >= 0 && !fuzz.servers[i].link.eof)
			p[n++] = (struct pollfd){ .fd = fuzz.servers[i].link.fd, .events = POLLIN };
	p[n++] = (struct pollfd){ .fd = ended, .events = POLLIN };
	got = poll(p, n, PATIENCE_MS);
	close(ended);
	return got > 0;
}

enum deed { D_SEND, D_SPEAK, D_LEAVE, D_HALF, D_RESET, D_SERVE, D_SPOIL, D_ANSWER };

static struct choice {
	enum deed deed;
	void *who;
	unsigned weight;
} choices[SERVERS_MAX * 2 + ASKED_MAX + 8];
static int choice_count;

static void may(enum deed deed, void *who, unsigned weight)
{
	if (weight)
		choices[choice_count++] = (struct choice){ deed, who, weight };
}

static void gather(void)
{
	struct client *c = &fuzz.client;
	unsigned rash = (unsigned)fuzz.plan.client_wild;

	choice_count = 0;
	if (c->half_closing && c->link.fd >= 0)
		may(D_HALF, NULL, 300);
	if (client_can_send())
		may(D_SEND, NULL, 300);
	if (client_can_speak())
		may(D_SPEAK, NULL, c->pendings ? 40 : 300);
	for (int i = 0; i < fuzz.server_count; i++) {
		struct server *s = &fuzz.servers[i];

		if (server_can_act(s))
			may(D_SERVE, s, 300);
		if (s->link.fd >= 0 && !s->left)
			may(D_SPOIL, s, fuzz.plan.server_wild == 2 ? 3 : 0);
	}
	for (int i = 0; i < fuzz.asked_count; i++)
		if (hook_can_answer(&fuzz.asked[i]))
			may(D_ANSWER, &fuzz.asked[i], 300);
	if (choice_count && c->link.fd >= 0 && rash == 2) {
		may(D_LEAVE, NULL, 2);
		may(D_HALF, NULL, 2);
		may(D_RESET, NULL, 1);
	}
}

static void client_leaves(bool half, bool reset)
{
	struct client *c = &fuzz.client;

	notef("C>", "%s", half ? "half close" : reset ? "reset" : "close");
	c->unsent.n = 0;
	c->quit = true;
	if (half)
		c->half_closing = !link_half_close(&c->link);
	else
		link_close(&c->link, reset);
}

static void act(const struct choice *c)
{
	switch (c->deed) {
	case D_SEND:
		client_send();
		return;
	case D_SPEAK:
		client_speak();
		return;
	case D_LEAVE:
	case D_HALF:
	case D_RESET:
		client_leaves(c->deed == D_HALF, c->deed == D_RESET);
		return;
	case D_SERVE:
		server_act(c->who);
		return;
	case D_SPOIL:
		server_fault(c->who);
		return;
	case D_ANSWER:
		hook_answer(c->who);
		return;
	}
}

static void choose(void)
{
	unsigned sum = 0, at;

	for (int i = 0; i < choice_count; i++)
		sum += choices[i].weight;
	at = below(sum);
	for (int i = 0; i < choice_count; i++) {
		if (at < choices[i].weight) {
			act(&choices[i]);
			return;
		}
		at -= choices[i].weight;
	}
}

/* Nobody has anything to do. */
static void nothing_to_do(void)
{
	struct client *c = &fuzz.client;

	if (c->link.fd >= 0 && !client_waits()) {
		client_leaves(false, false);
		return;
	}
	if (await())
		return;
	if (c->link.fd >= 0) {
		fault("a reply is missing: the client waits, and nobody has anything to do");
		client_leaves(false, true);
	} else {
		fault("smtpwarp does not end");
		kill(fuzz.pid, SIGKILL);
	}
}

static void read_file(const char *name, struct buf *b)
{
	char path[300], text[65536];
	int fd;
	ssize_t n;

	snprintf(path, sizeof path, "%s/%s", workplace, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && (n = read(fd, text, sizeof text)) > 0)
		buf_add(b, text, (size_t)n);
	if (fd >= 0)
		close(fd);
}

static void forget(void)
{
	link_close(&fuzz.client.link, true);
	for (int i = 0; i < fuzz.server_count; i++)
		link_close(&fuzz.servers[i].link, true);
	for (int i = 0; i < fuzz.asked_count; i++)
		link_close(&fuzz.asked[i].link, true);
}

static void free_link(struct link *l)
{
	buf_free(&l->in);
	buf_free(&l->out);
	buf_free(&l->fresh);
}

/* All but what is told of the session. */
static void clear(void)
{
	for (int i = 0; i < fuzz.server_count; i++) {
		free_link(&fuzz.servers[i].link);
		buf_free(&fuzz.servers[i].reply);
	}
	for (int i = 0; i < fuzz.asked_count; i++) {
		free_link(&fuzz.asked[i].link);
		buf_free(&fuzz.asked[i].verdict);
		buf_free(&fuzz.asked[i].replacement);
	}
	for (int i = 0; i < fuzz.message_count; i++) {
		buf_free(&fuzz.messages[i].content);
		buf_free(&fuzz.messages[i].replacement);
	}
	for (int i = 0; i < fuzz.delivery_count; i++)
		buf_free(&fuzz.deliveries[i].content);
	free_link(&fuzz.client.link);
	buf_free(&fuzz.client.unsent);
	buf_free(&fuzz.transcript);
	buf_free(&fuzz.faults);
	buf_free(&fuzz.log);
	buf_free(&fuzz.errors);
	memset(&fuzz, 0, sizeof fuzz);
}

static void finish(void)
{
	char path[300];

	waitpid(fuzz.pid, &fuzz.status, 0);
	close(fuzz.stat_fd);
	read_file("log", &fuzz.log);
	read_file("stderr", &fuzz.errors);
	snprintf(path, sizeof path, "%s/log", workplace);
	if (truncate(path, 0) < 0 && errno != ENOENT)
		perror(path);
	if (WIFEXITED(fuzz.status))
		notef("--", "exit %d", WEXITSTATUS(fuzz.status));
	else
		notef("--", "signal %d", WTERMSIG(fuzz.status));
	note_log();
	hooks_finish();
	check_session();
	forget();
}

void world_run(const char *program, uint64_t seed)
{
	clear();
	fuzz.seed = seed;
	fuzz.client.link.fd = -1;
	chance_seed(seed);
	plan_make(&fuzz.plan);
	fuzz.plan.argv[0] = program;
	for (int i = 1; i < fuzz.plan.args; i++)
		notef("--", "%s", fuzz.plan.argv[i]);
	start(program);
	for (;;) {
		settle();
		fuzz.again = false;
		look();
		if (fuzz.exited)
			break;
		if (fuzz.again)
			continue;
		if (++fuzz.steps > STEPS_MAX) {
			fault("the session does not end in %d steps", STEPS_MAX);
			kill(fuzz.pid, SIGKILL);
			continue;
		}
		gather();
		if (choice_count)
			choose();
		else
			nothing_to_do();
	}
	finish();
}
