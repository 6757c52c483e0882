/* See listener.h for the contract. */
#define _GNU_SOURCE
#include "listener.h"

#include "io/agent.h"
#include "io/dialer.h"
#include "io/event.h"
#include "io/fault.h"
#include "io/file.h"
#include "io/keeper.h"
#include "io/log.h"
#include "io/notify.h"
#include "io/passes.h"
#include "io/readable.h"
#include "io/routes.h"
#include "io/statefile.h"
#include "loaded.h"
#include "session/session.h"
#include "upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

static const struct options *options;

static struct {
	struct listener_sockets *sockets;
	int spare; /* a descriptor in reserve, for refuse_one() */
	pid_t pid; /* the listener's process: sessions inherit its signal handler, but not the tally */
} listener = { .spare = -1 };

/* What the listener counts. It lies in memory that forks leave out: a page that the listener writes after a fork would be
 * copied for each session, and its page tables with it. */
static struct tally {
	uint32_t sessions; /* running now: elements of child[] in use */
	uint64_t served;
	time_t status_at, looked_at;
	bool status_due;
	sig_atomic_t children_ended;
	struct child {
		pid_t pid;
		union net_address source;
	} child[];
} *tally;

/* What sessions that have ended could not tell: records that the log has lost. Shared, and touched by such sessions only. */
static struct losses {
	uint32_t records;
	int error;
} *losses;

static volatile sig_atomic_t terminate, reload, upgrades;

static bool log_stale; /* the log's file could not be opened again, and the old one is in use */

static pid_t indexer; /* process that makes an index of --routes into index_made; 0: none */
static int index_made;

static pid_t keeper; /* 0: it has ended */
static bool hooks_run; /* the keeper knows that there may be hooks */

/* ---- signals ---- */

static void on_signal(int number)
{
	if (number == SIGHUP)
		reload = 1;
	else if (number == SIGUSR2)
		upgrades = getpid() == listener.pid;
	else if (number == SIGUSR1) /* the listener ends; the same signals may have come to this process, too */
		terminate += !terminate;
	else if (number != SIGCHLD)
		terminate++;
	else if (getpid() == listener.pid)
		*(volatile sig_atomic_t *)&tally->children_ended = 1;
}

/* Signals are delivered only while ppoll(2) waits, here and in sessions, so that none is lost between a look at its flag and
 * the wait. Sessions inherit this; they react to SIGTERM. */
const volatile sig_atomic_t *listener_catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	sigset_t blocked;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigaddset(&blocked, SIGCHLD);
	sigaddset(&blocked, SIGHUP);
	sigaddset(&blocked, SIGUSR1);
	sigaddset(&blocked, SIGUSR2);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGCHLD, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGUSR2, &action, NULL);
	return &terminate;
}

/* ---- what may be replaced ---- */

/* Tells of a failure once a minute: in the old file as well, but nobody may read that. */
static void reopen_log(void)
{
	char text[FAULT_MAX];
	const char *why;

	log_stale = log_reopen(options->log, &why) < 0;
	if (!log_stale)
		return;
	snprintf(text, sizeof text, "--log %s: %s; records still go to the old file", options->log, why);
	if (!event_is_due(text))
		return;
	fault("%s", text);
	fault_tell("%s", text);
}

/* In a process that was forked, first of all: what it held would keep another smtpwarp from listening after ours was killed. */
static void leave_listener(void)
{
	for (unsigned i = 0; i < listener.sockets->count; i++)
		close(listener.sockets->socket[i]);
	notify_leave();
	keeper_leave();
	upgrade_leave();
}

static _Noreturn void make_index(void)
{
	leave_listener();
	_exit(loaded_index_routes(index_made) ? EX_OK : EX_CONFIG);
}

/* A large file has changed: a process of its own makes a new index. Until that is done sessions read the file through. */
static void index_routes_again(void)
{
	if (indexer || !routes_wants_index(options->routes))
		return;
	index_made = file_in_memory("routes");
	if (index_made < 0)
		return;
	indexer = passes_fork();
	if (indexer == 0)
		make_index();
	if (indexer > 0)
		return;
	close(index_made);
	indexer = 0;
}

static void indexer_ended(int how)
{
	indexer = 0;
	if (how == 0)
		routes_use_index(index_made);
	else
		close(index_made);
}

/* At start, and before the next session when it has ended. */
static void refresh_dialer(void)
{
	static const char none[] = "no process can be started that connects for sessions, so they stay in the network until their server takes mail";

	if (!dialer_is_there() && loaded_wants_dialer() && !dialer_start(loaded_dial) && event_is_due(none))
		fault("%s: %s", none, strerror(errno));
}

/* Look for files that have changed; the next session uses them. Certificates are looked at before each session, for somebody
 * may be waiting to see a new one; everything else once a second at most. */
static void look_again(void)
{
	struct timespec now;

	loaded_refresh_keys();
	refresh_dialer();
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (now.tv_sec == tally->looked_at)
		return;
	tally->looked_at = now.tv_sec;
	readable_refresh();
	if (options->routes)
		index_routes_again();
	if (!loaded_wants_broker())
		return;
	loaded_find_hooks_again(); /* without hooks nothing is written, and the page stays shared with sessions */
	if (!hooks_run)
		keeper_want_broker();
	hooks_run = true;
}

/* ---- ends of processes ---- */

static void leave_losses(void)
{
	int error;
	uint64_t n = log_lost(&error);

	if (!n)
		return;
	__atomic_store_n(&losses->error, error, __ATOMIC_RELAXED);
	__atomic_fetch_add(&losses->records, (uint32_t)n, __ATOMIC_RELAXED);
}

static void tell_losses(void)
{
	uint32_t left = __atomic_exchange_n(&losses->records, 0, __ATOMIC_RELAXED);
	int error;
	uint64_t n = log_lost(&error);

	if (left)
		log_set_lost(n + left, __atomic_load_n(&losses->error, __ATOMIC_RELAXED));
	event_lost();
}

/* A session that asks for more than it is for was perhaps taken over. */
static void tell_refusals(void)
{
	pid_t last;
	unsigned n = agent_refusals(&last);

	if (n)
		fault("a process that keeps secrets has refused %u requests, the last of session process %ld", n, (long)last);
}

/* Children that are no sessions were there before, or are orphans: process 1 gets those. */
static void child_ended(pid_t pid, int how)
{
	uint32_t i = 0;

	while (i < tally->sessions && tally->child[i].pid != pid)
		i++;
	if (i == tally->sessions)
		return;
	tally->child[i] = tally->child[--tally->sessions];
	tally->status_due = notify_heard();
	if (!WIFSIGNALED(how) || (terminate && WTERMSIG(how) == SIGKILL)) /* end_sessions() kills */
		return;
	if (WTERMSIG(how) == SIGKILL)
		fault("session process %ld was killed, perhaps for lack of memory", (long)pid);
	else
		fault("session process %ld crashed: signal %d", (long)pid, WTERMSIG(how));
}

static void tell_end(const char *which, int how, const char *therefore)
{
	fault("the process that %s has ended: %s %d%s", which, WIFSIGNALED(how) ? "signal" : "exit status",
	    WIFSIGNALED(how) ? WTERMSIG(how) : WEXITSTATUS(how), therefore);
}

/* Sessions that were forked before defer the mail for which they would need it; the next session finds another. */
static bool was_dialer(pid_t pid, int how)
{
	if (!dialer_ended(pid))
		return false;
	tell_end("connects for sessions", how, WIFSIGNALED(how) ? "" : "; a session has shut the way to it: it was taken over");
	return true;
}

/* Mail goes on, and so do hooks as long as the process that runs them does. */
static void keeper_ended(int how)
{
	keeper = 0;
	tell_end("starts programs", how, "; there is no upgrade (SIGUSR2), and no new process to run hooks, until smtpwarp is started again");
}

/* A hook may have killed the broker, or the kernel for lack of memory. Hooks under way fail; those to come have a new one. */
static void hear_keeper(void)
{
	static const char none[] = "no process can be started to run hooks now, so they wait for one";
	struct keeper_news news;

	while (keeper_socket() >= 0 && (news = keeper_take()).what != KEEPER_NOTHING) {
		if (news.what == KEEPER_BROKER_ENDED)
			tell_end("runs hooks", news.value, "");
		else if (news.what == KEEPER_NO_BROKER && event_is_due(none))
			fault("%s: %s", none, strerror(news.value));
		else if (news.what == KEEPER_SHUT)
			fault("a session has shut the way to the process that runs hooks: it was taken over; sessions to come have another way");
		else if (news.what == KEEPER_NOT_STARTED)
			upgrade_not_started(news.value);
	}
}

static void reap(void)
{
	pid_t pid;
	int how;

	tally->children_ended = 0;
	while ((pid = waitpid(-1, &how, WNOHANG)) > 0) {
		if (pid == indexer)
			indexer_ended(how);
		else if (pid == keeper)
			keeper_ended(how);
		else if (!was_dialer(pid, how) && !loaded_agent_ended(pid, how))
			child_ended(pid, how);
	}
	upgrade_tell_sessions(tally->sessions);
	tell_losses();
	tell_refusals();
}

/* ---- the accept loop ---- */

static uint32_t sessions_from(const union net_address *source)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < tally->sessions; i++)
		n += net_same_source(&tally->child[i].source, source);
	return n;
}

static void count_limit(enum statemap_total limit)
{
	if (statefile_current())
		statemap_add(statefile_current()->total + limit, 1);
}

static void turn_away(int fd, const union net_address *source, const char *reason)
{
	char reply[120];
	int n = snprintf(reply, sizeof reply, "421 4.3.2 %s\r\n", reason);

	send(fd, reply, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
	event_fault(reason, source);
	close(fd);
}

static _Noreturn void serve(int fd)
{
	int error;

	leave_listener();
	if (indexer)
		close(index_made); /* before it is sealed */
	/* What has come by now, the listener tells. Each page that is not written stays shared with it. */
	if (terminate)
		terminate = 0;
	if (log_lost(&error))
		log_set_lost(0, 0);
	session_run(fd, options, loaded_hooks(), &terminate);
	leave_losses();
	_exit(EX_OK);
}

static void fork_session(int fd, const union net_address *source)
{
	pid_t pid;

	if (tally->sessions + upgrade_sessions_before() >= options->max_sessions) {
		count_limit(STATEMAP_LIMIT_SESSIONS);
		turn_away(fd, source, "Too many sessions (--max-sessions)");
		return;
	}
	if (options->max_sessions_per_source && sessions_from(source) >= options->max_sessions_per_source) {
		count_limit(STATEMAP_LIMIT_SOURCE);
		turn_away(fd, source, "Too many sessions from this address (--max-sessions-per-source)");
		return;
	}
	pid = passes_fork();
	if (pid == 0)
		serve(fd);
	if (pid < 0) {
		turn_away(fd, source, "No process can be started now");
		return;
	}
	close(fd);
	tally->child[tally->sessions].pid = pid;
	tally->child[tally->sessions++].source = *source;
	tally->served++;
	tally->status_due = notify_heard();
}

/* No descriptors are left: give up the one in reserve for a moment, to tell a waiting client. */
static void refuse_one(int listening)
{
	int fd;

	close(listener.spare);
	fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
	if (fd >= 0)
		turn_away(fd, NULL, "No descriptors are left");
	listener.spare = file_reserve();
}

static void accept_one(int listening)
{
	union net_address source;
	struct sockaddr_storage peer;
	socklen_t len = sizeof peer;
	int fd;

	look_again(); /* before the connection is there, which processes that it forks would hold */
	fd = accept4(listening, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE) && listener.spare >= 0)
		refuse_one(listening);
	else if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
		poll(NULL, 0, 50); /* the connection stays in the queue and would be reported again at once */
	if (fd < 0)
		return;
	memset(&source, 0, sizeof source);
	memcpy(&source, &peer, len < sizeof source ? len : sizeof source);
	fork_session(fd, &source);
}

static void signal_children(int number)
{
	for (uint32_t i = 0; i < tally->sessions; i++)
		passes_kill(tally->child[i].pid, number);
}

static void stop_accepting(void)
{
	for (unsigned i = 0; i < listener.sockets->count; i++)
		close(listener.sockets->socket[i]);
	listener.sockets->count = 0;
}

/* Hear what the keeper and other smtpwarps say. */
static void hear_others(void)
{
	enum upgrade_word word;

	hear_keeper();
	word = upgrade_hear();
	if (word == UPGRADE_STOP)
		terminate++;
	if (word == UPGRADE_DONE) {
		notify("MAINPID=%ld", (long)upgrade_next());
		notify_close();
		stop_accepting();
	}
	upgrade_tell_sessions(tally->sessions);
}

/* Wait for events, for `seconds` at most; -1: without limit. Returns whether anything came: a connection or a signal. */
static bool wait_for_work(double seconds, bool accepting)
{
	struct pollfd p[LISTENER_SOCKETS_MAX + 1 + UPGRADE_POLLED], *others = p + listener.sockets->count;
	struct timespec limit = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };
	unsigned polled = listener.sockets->count + 1;
	sigset_t none;
	bool came;
	int n;

	sigemptyset(&none);
	for (unsigned i = 0; i < listener.sockets->count; i++)
		p[i] = (struct pollfd){ .fd = accepting ? listener.sockets->socket[i] : -1, .events = POLLIN };
	others[0] = (struct pollfd){ .fd = keeper_socket(), .events = POLLIN };
	polled += upgrade_watch(others + 1);
	n = ppoll(p, polled, seconds < 0 ? NULL : &limit, &none);
	came = n > 0;
	if (came) /* it takes no signal while connections wait, and they may always do */
		ppoll(NULL, 0, &(struct timespec){ 0, 0 }, &none);
	if (*(volatile sig_atomic_t *)&tally->children_ended)
		reap();
	for (unsigned i = 0; came && !terminate && i < listener.sockets->count; i++)
		if (p[i].revents)
			accept_one(listener.sockets->socket[i]);
	if (came)
		hear_others();
	return n != 0;
}

/* Sessions end between messages, so that a restart does not hold new mail for one that is idle; a message under way has
 * --drain-timeout. After that, or at a second signal, tell them to end at once; after five more seconds kill them. */
static void end_sessions(void)
{
	struct timespec start, now;
	double limit = (double)options->timeouts.drain / 1e6;
	int told = 0;

	clock_gettime(CLOCK_MONOTONIC, &start);
	notify("STOPPING=1\nSTATUS=%u sessions end", tally->sessions);
	stop_accepting();
	signal_children(SIGUSR1);
	upgrade_stop();
	while (tally->sessions || upgrade_outlived()) {
		double left;

		clock_gettime(CLOCK_MONOTONIC, &now);
		left = limit - (double)(now.tv_sec - start.tv_sec) - (double)(now.tv_nsec - start.tv_nsec) / 1e9;
		if (told < 2 && (left <= 0 || terminate > told + 1)) {
			/* a session counts both signals, and ends at once after two */
			signal_children(told ? SIGKILL : SIGTERM);
			signal_children(told ? SIGKILL : SIGINT);
			upgrade_stop();
			told++;
			start = now;
			limit = left = 5;
		}
		wait_for_work(left > 0 ? left : 1, false);
	}
}

/* Tell systemd how many sessions there are, once a second at most. */
static void status(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!tally->status_due || now.tv_sec == tally->status_at)
		return;
	tally->status_due = false;
	tally->status_at = now.tv_sec;
	notify("STATUS=%u sessions, %llu so far", tally->sessions, (unsigned long long)tally->served);
}

static void record_stop(const char *reason)
{
	char line[512];
	struct json j;

	event_begin(&j, line, sizeof line, "stop");
	event_time(&j);
	json_string(&j, "version", SMTPWARP_VERSION);
	json_number(&j, "sessions", tally->served);
	json_string(&j, "reason", reason);
	event_end(&j, line, LOG_PRIORITY_INFO);
}

void listener_begin(const struct options *o, char **argv, const char *notify_path)
{
	const struct keeper_task task = { .allows = loaded_may_run, .patience = o->timeouts.hook, .argv = argv, .notify = notify_path };

	options = o;
	loaded_begin_agents(true); /* first: the keeper and the broker must have no secrets */
	hooks_run = loaded_wants_broker();
	keeper = keeper_start(&task, hooks_run);
	if (keeper < 0 && hooks_run)
		fault_die_errno(EX_OSERR, "a process to run hooks");
	if (keeper < 0)
		fault("no process can be started that would start others, so there is no upgrade (SIGUSR2): %s", strerror(errno));
}

/* SIGUSR2. inetd would take the next one for a service that it has not started. */
static void begin_upgrade(void)
{
	upgrades = 0;
	if (listener.sockets->exits_idle)
		fault("SIGUSR2: there is no upgrade: inetd has started this process");
	else
		upgrade_begin(listener.sockets->socket, listener.sockets->count);
}

/* A turn of the loop; idle: seconds after which nothing is left to do, -1: there is no such time. false: nothing is left. */
static bool work(double idle)
{
	bool alone = !tally->sessions, due = tally->status_due || log_stale;
	bool worked;

	if (alone && upgrade_next() && !upgrade_outlived())
		return false;
	worked = wait_for_work(due ? 1 : alone ? idle : -1, true);
	if (alone && !worked && !due && idle >= 0)
		return false;
	if (reload) {
		reload = 0;
		reopen_log();
		loaded_read_again();
	} else if (log_stale) {
		reopen_log();
	}
	if (upgrades)
		begin_upgrade();
	status();
	return true;
}

_Noreturn void listener_run(struct listener_sockets *sockets)
{
	double idle = sockets->exits_idle ? (double)options->timeouts.idle_exit / 1e6 : -1;
	size_t size = sizeof *tally + options->max_sessions * sizeof *tally->child;

	listener.sockets = sockets;
	event_share();
	tally = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (tally == MAP_FAILED || madvise(tally, size, MADV_DONTFORK) < 0)
		fault_die_errno(EX_OSERR, "--max-sessions");
	losses = mmap(NULL, sizeof *losses, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (losses == MAP_FAILED)
		fault_die_errno(EX_OSERR, "records that are lost");
	listener.pid = getpid();
	listener.spare = file_reserve();
	for (unsigned i = 0; i < listener.sockets->count; i++)
		fcntl(listener.sockets->socket[i], F_SETFL, fcntl(listener.sockets->socket[i], F_GETFL) | O_NONBLOCK);
	refresh_dialer();
	if (!upgrade_ready())
		notify("READY=1\nSTATUS=ready");
	while (!terminate && work(idle))
		;
	end_sessions();
	dialer_stop();
	if (keeper)
		keeper_stop(keeper);
	record_stop(terminate ? "SIGTERM or SIGINT" : upgrade_next() ? "SIGUSR2" : "--idle-exit");
	exit(EX_OK);
}
