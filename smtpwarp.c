/* main: options, how smtpwarp was started, the accept loop and its limits. It looks at what it was given, see STARTING in
 * smtpwarp(8): it serves a connected socket; from listening sockets it accepts connections and forks one process for each, so
 * that nothing a session does can harm the listener.
 */
#define _GNU_SOURCE
#include "hooks.h"
#include "io/broker.h"
#include "io/dns.h"
#include "io/event.h"
#include "io/file.h"
#include "io/keys.h"
#include "io/log.h"
#include "io/net.h"
#include "io/passwords.h"
#include "io/providers.h"
#include "io/routes.h"
#include "io/rulefiles.h"
#include "io/statefile.h"
#include "io/user.h"
#include "pure/envfile.h"
#include "pure/options.h"
#include "pure/route.h"
#include "pure/text.h"
#include "session/session.h"
#include "tls.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#ifndef SMTPWARP_VERSION
#define SMTPWARP_VERSION "unreleased"
#endif

#define LISTEN_FDS_START 3 /* sd_listen_fds(3) */
#define SOCKETS_MAX OPTIONS_LISTEN_MAX
#define BACKLOG 1024
#define FAULT_MAX 512 /* octets of a message for a person */

static struct options options;
static const char *anchors_warning; /* about the file of --tls-ca; NULL: none */

/* The hooks in use, and room for the next list. */
static struct hook_list hook_lists[2], *hooks = hook_lists;

/* The client's connection if we were given one; -1: we were given listening sockets, or none. */
static int connection = -1;

static struct {
	int socket[SOCKETS_MAX];
	unsigned sockets;
	bool inetd_wait; /* inetd passed a listening socket as fd 0: exit when idle */
	int spare;	 /* a descriptor in reserve, for refuse_one() */
	int notify;
	pid_t pid; /* the listener's process: sessions inherit its signal handler, but not the tally */
} listener = { .spare = -1, .notify = -1 };

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

static volatile sig_atomic_t terminate, reload;

/* ---- messages for a person ---- */

/* Whether this descriptor is the socket that inetd gave us as 0, 1 and 2. */
static bool is_client(int fd)
{
	struct stat in, other;

	return fstat(STDIN_FILENO, &in) == 0 && S_ISSOCK(in.st_mode) && fstat(fd, &other) == 0 &&
	    in.st_dev == other.st_dev && in.st_ino == other.st_ino;
}

static void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Say it on standard error, where perhaps nobody reads: a listener does not wait for that. */
static void tell(const char *format, ...)
{
	char text[FAULT_MAX + 32] = "smtpwarp: ";
	size_t n = strlen(text);
	va_list args;

	va_start(args, format);
	vsnprintf(text + n, sizeof text - n - 1, format, args);
	va_end(args);
	n = strlen(text);
	text[n] = '\n';
	log_tell(text, n + 1);
}

static _Noreturn void die(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* End with this reason, which goes to standard error or, where that is the client, to the system's log. */
static _Noreturn void die(int code, const char *format, ...)
{
	static const char reply[] = "421 4.3.5 Service is not configured rightly\r\n";
	char why[FAULT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof why, format, args);
	va_end(args);
	if (connection >= 0)
		send(connection, reply, sizeof reply - 1, MSG_NOSIGNAL);
	if (is_client(STDERR_FILENO)) {
		const char *ignored;

		log_open("syslog", &ignored);
		event_fault(why, NULL);
	} else {
		tell("%s", why);
	}
	exit(code);
}

static _Noreturn void die_errno(int code, const char *what)
{
	die(code, "%s: %s", what, strerror(errno));
}

static void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Log what is wrong, and go on. */
static void fault(const char *format, ...)
{
	char text[FAULT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (options.check || options.try_hook) /* which write to no log */
		fprintf(stderr, "smtpwarp: %s\n", text);
	else
		event_fault(text, NULL);
}

static void tell_of_old(const char *why)
{
	fault("%s; what was read before is still in use", why);
}

/* A descriptor that takes up a number and no more; "/" is everywhere. */
static int open_reserve(void)
{
	return open("/", O_PATH | O_CLOEXEC);
}

/* Nothing but SMTP may reach the client. Replace descriptors 1 and 2 by /dev/null if they are its socket, and fill those that
 * are closed, so that no socket of ours gets such a number. */
static void guard_standard_descriptors(void)
{
	for (int fd = 0; fd <= 2; fd++) {
		bool closed = fcntl(fd, F_GETFD) < 0;
		int null;

		if (!closed && (fd == 0 || !is_client(fd)))
			continue;
		null = open("/dev/null", O_RDWR);
		if (null < 0)
			null = open_reserve(); /* reads and writes fail */
		if (null >= 0 && null != fd) {
			dup2(null, fd);
			close(null);
		}
	}
}

/* The sink of those who name none. */
static void choose_log(void)
{
	log_detail(options.verbose);
	if (!options.log)
		options.log = is_client(STDERR_FILENO) ? "syslog" : "stderr";
}

/* A daemon may be there later, so this is no reason not to start. */
static void warn_of_log(void)
{
	const char *path;

	if (!log_reachable(options.log, &path))
		tell("warning: --log %s: %s: %s; records are lost until a daemon is there: start one, or give --log stderr or file:PATH",
		    options.log, path, strerror(errno));
}

/* Runs as the user that sessions run as, who has to open a file again after its rotation. */
static void open_log(void)
{
	const char *why;

	if (log_open(options.log, &why) < 0)
		die(EX_CONFIG, "--log %s: %s", options.log, why);
	warn_of_log();
}

static bool log_stale; /* the log's file could not be opened again, and the old one is in use */

/* Tells of a failure once a minute: in the old file as well, but nobody may read that. */
static void reopen_log(void)
{
	char text[FAULT_MAX];
	const char *why;

	log_stale = log_reopen(options.log, &why) < 0;
	if (!log_stale)
		return;
	snprintf(text, sizeof text, "--log %s: %s; records still go to the old file", options.log, why);
	if (!event_is_due(text))
		return;
	fault("%s", text);
	tell("%s", text);
}

/* ---- what options name ---- */

/* A level that verifies certificates needs a name to look for in them. */
static void check_tls_name(void)
{
	bool nameless = !options.tls_name && !options.upstreams && !options.routes;

	for (unsigned i = 0; i < options.upstreams; i++)
		nameless = nameless || (!options.tls_name && !net_is_name(options.upstream[i].host));
	if (tls_level_verifies(options.tls) && nameless)
		die(EX_CONFIG, "--tls %s needs a name to look for in certificates: give --tls-name NAME or --upstream with a host name",
		    tls_level_name(options.tls));
}

/* Read the file of --tls-ca. NULL: it is read, perhaps with a warning; else the reason why not. */
static const char *load_anchors(void)
{
	const char *why;

	anchors_warning = NULL;
	if (tls_load_anchors(options.tls_ca, &why) < 0)
		return why;
	anchors_warning = why;
	return NULL;
}

static void warn_of_anchors(void)
{
	if (anchors_warning)
		fault("warning: --tls-ca %.300s: %s", options.tls_ca, anchors_warning);
}

/* The default file may be missing where nothing has to be verified. */
static void check_anchors(void)
{
	bool named = strcmp(options.tls_ca, OPTIONS_CA_FILE) != 0;
	bool wanted = tls_level_verifies(options.tls) || (named && options.tls != TLS_NONE);
	const char *why = wanted ? load_anchors() : NULL;

	if (why)
		die(EX_CONFIG, "--tls-ca %s: %s; install ca-certificates or name another file", options.tls_ca, why);
}

static void check_client_tls(void)
{
	const char *against = options.limits.on_recipient ?
	    "with --connect-on recipient or --routes there is none to ask" :
	    options.tls > TLS_MAY ? "smtpwarp cannot see to what --tls demands" :
	    options.upstream_auth ? "smtpwarp cannot send what --upstream-auth has" :
	    options.valid_recipients ? "smtpwarp cannot see which recipients --valid-recipients is to check" :
	    options.override_recipient ? "smtpwarp cannot give its recipients another address (--override-recipient)" : NULL;

	if (options.client_tls == CLIENT_TLS_PASSTHROUGH) {
		if (against)
			die(EX_CONFIG, "--client-tls passthrough leaves TLS to client and upstream: %s", against);
	} else if (options.client_tls != CLIENT_TLS_NONE && !options.cert) {
		die(EX_CONFIG, "--client-tls %s needs --cert and --key", client_tls_name(options.client_tls));
	}
}

static void load_keys(enum keys_side side, const char *cert, const char *key)
{
	char why[FAULT_MAX];

	if (key && !cert)
		die(EX_CONFIG, "--%s %s: there is no --%s", keys_option(side, true), key, keys_option(side, false));
	if (cert && !keys_load(side, cert, key ? key : cert, why, sizeof why))
		die(EX_CONFIG, "%s", why);
}

/* Who --user is. false: it is not given. */
static bool find_user(struct user *user)
{
	if (options.user && !user_find(user, options.user))
		die(EX_CONFIG, "--user %s: there is no such user: give a name of /etc/passwd, or numbers, UID or UID:GID", options.user);
	return options.user;
}

/* Check options that depend on each other or on the system. Certificates, keys and passwords are loaded here and stay in
 * memory. */
static void check_options(void)
{
	char why[FAULT_MAX];
	struct user user;

	check_tls_name();
	if (options.auth && !options.upstreams)
		die(EX_CONFIG, "--auth needs --upstream, the server that names and passwords go to");
	check_anchors();
	check_client_tls();
	load_keys(KEYS_CLIENTS, options.cert, options.key);
	load_keys(KEYS_UPSTREAM, options.tls_cert, options.tls_key);
	if (options.upstream_auth && !passwords_load(options.upstream_auth, why, sizeof why))
		die(EX_CONFIG, "%s", why);
	if (*options.state != '/' && strcmp(options.state, "none") != 0)
		die(EX_CONFIG, "--state %s: give a path from / on, or none", options.state);
	find_user(&user);
}

/* ---- hooks ---- */

static bool find_hooks(struct hook_list *list)
{
	return hooks_scan(list, options.hooks, !options.hooks_given, options.plugins_dir, options.plugins);
}

/* What cannot be read now must not cost mail: the last list that could be read stays. */
static void find_hooks_again(void)
{
	struct hook_list *next = hooks == hook_lists ? hook_lists + 1 : hook_lists;

	if (find_hooks(next))
		hooks = next;
	else if (event_is_due(next->broken))
		tell_of_old(next->broken);
}

static bool is_hook(const char *path)
{
	for (unsigned i = 0; i < hooks->count; i++)
		if (!hooks->hook[i].socket && strcmp(hooks->hook[i].path, path) == 0)
			return true;
	return false;
}

/* Whether the broker may run this program. It keeps a list of its own, and looks again for what it does not find there. */
static bool may_run(const char *path)
{
	return is_hook(path) || (find_hooks(hooks) && is_hook(path));
}

/* Hooks, or folders where hooks may appear. */
static bool wants_broker(void)
{
	return hooks->count || options.hooks_given || options.plugins || access(options.hooks, F_OK) == 0;
}

static pid_t broker; /* 0: there is none */

static const char no_broker[] = "no process can be started to run hooks, so they fail";

static bool start_broker(bool (*allows)(const char *path))
{
	pid_t pid = broker_start(allows, options.timeouts.hook);

	broker = pid < 0 ? 0 : pid;
	return pid >= 0;
}

static void begin_broker(bool (*allows)(const char *path))
{
	if (!start_broker(allows))
		die_errno(EX_OSERR, "a process to run hooks");
}

/* Hooks must inherit no descriptors but those that hooks.c gives them, whatever was open when we were started. */
static void close_on_exec(void)
{
	enum { CLOEXEC = 1 << 2 }; /* close_range(2), linux/close_range.h */

	if (syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, CLOEXEC) < 0)
		for (int fd = STDERR_FILENO + 1; fd < 1024; fd++)
			fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static void tell_of_passed_over(const char *path, const char *why)
{
	fault("warning: --hooks: %.300s: %s", path, why);
}

/* --check finds the faults that show before a hook is run: all of them. */
static void check_hooks(void)
{
	unsigned faults = 0;

	hooks_tell_passed_over(options.hooks, tell_of_passed_over);
	for (unsigned i = 0; i < hooks->count; i++) {
		const char *why = hooks_fault(&hooks->hook[i], options.limits.on_recipient);

		if (why)
			fault("--hooks: %.200s: %.150s", hooks->hook[i].path, why);
		faults += why != NULL;
	}
	if (faults)
		die(EX_CONFIG, "--hooks: %u of %u hooks would fail", faults, hooks->count);
}

/* ---- routes ---- */

static pid_t indexer; /* process that makes an index of --routes into index_made; 0: none */
static int index_made;

static char routes_why[FAULT_MAX]; /* "FILE: reason" from routes.h */

static const char *about_routes(const char *option)
{
	static char text[sizeof routes_why + 20];

	snprintf(text, sizeof text, "%s %s", option, routes_why);
	return text;
}

/* In a process that was forked, first of all: what it held would keep another smtpwarp from listening after ours was killed. */
static void leave_listener(void)
{
	for (unsigned i = 0; i < listener.sockets; i++)
		close(listener.socket[i]);
	if (listener.notify >= 0)
		close(listener.notify);
}

static _Noreturn void make_index(void)
{
	leave_listener();
	if (routes_index(options.routes, index_made, route_check_line, &options, routes_why, sizeof routes_why))
		_exit(EX_OK);
	fault("%s", about_routes("--routes"));
	_exit(EX_CONFIG);
}

/* A large file has changed: a process of its own makes a new index. Until that is done sessions read the file through. */
static void index_routes_again(void)
{
	if (indexer || !routes_wants_index(options.routes))
		return;
	index_made = file_in_memory("routes");
	if (index_made < 0)
		return;
	indexer = _Fork();
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

/* ---- keys ---- */

static void refresh_keys(bool force)
{
	char why[FAULT_MAX];

	for (enum keys_side side = 0; side < KEYS_SIDES; side++)
		if (keys_current(side) && !keys_refresh(side, force, why, sizeof why))
			tell_of_old(why);
}

static void warn_of_exposed(const char *option, const char *file)
{
	if (file)
		fault("warning: --%s %.300s: every user of this host can get at it", option, file);
}

static void warn_of_exposed_secrets(void)
{
	for (enum keys_side side = 0; side < KEYS_SIDES; side++)
		warn_of_exposed(keys_option(side, true), keys_exposed(side));
	warn_of_exposed("upstream-auth", passwords_exposed() ? options.upstream_auth : NULL);
}

/* Clients that a proxy names are not on loopback, though we may listen there alone. */
static void warn_of_proxied_clients(void)
{
	const union net_address elsewhere = { .v4 = { .sin_family = AF_INET } };
	const char *why = options_open_relay(&options, hooks->events & 1u << HOOK_RCPT, &elsewhere);

	if (options.proxies && why)
		fault("warning: --accept-proxy: %s", why);
}

/* ---- what is not there ---- */

static bool looks_up_names(void)
{
	bool names = options.routes || options.dnsbls || hooks->events & 1u << HOOK_RCPT ||
	    (!options.no_client_names && (options.xclient || options.xforward || options.received));

	for (unsigned i = 0; i < options.upstreams; i++)
		names = names || net_is_name(options.upstream[i].host);
	return names;
}

/* In a container or initramfs that has nothing but smtpwarp: what will not work. Mail goes on. */
static void warn_of_lacks(void)
{
	struct dns_settings dns;

	dns_settings_choose(&dns, &options.dns);
	if (dns.unnamed && looks_up_names())
		fault("warning: /etc/resolv.conf names no server: names are looked up at 127.0.0.1; give --dns-server ADDR");
	if (options.tls != TLS_NONE && access(options.tls_ca, R_OK) < 0)
		fault("warning: --tls-ca %.300s: %s: no upstream's certificate can be verified", options.tls_ca, strerror(errno));
	if (access("/proc/self/fd", X_OK) == 0)
		return;
	if (hooks->events & 1u << HOOK_DATA)
		fault("warning: /proc is not mounted: data hooks cannot get the message, and fail");
	if (!options.upstreams && !options.routes)
		fault("warning: /proc is not mounted: net.ipv4.ip_local_port_range is not known, so Linux's default is taken for it");
}

/* ---- what may be replaced ---- */

/* Look for files that have changed; the next session uses them. Certificates are looked at before each session, for somebody
 * may be waiting to see a new one; everything else once a second at most. */
static void look_again(void)
{
	struct timespec now;

	refresh_keys(false);
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (now.tv_sec == tally->looked_at)
		return;
	tally->looked_at = now.tv_sec;
	if (options.routes)
		index_routes_again();
	if (!wants_broker())
		return;
	find_hooks_again(); /* without hooks nothing is written, and the page stays shared with sessions */
	if (!broker && !start_broker(may_run) && event_is_due(no_broker))
		fault("%s", no_broker);
}

/* Runs as the user that sessions run as. The index of a large file is ready before the first session. */
static void check_routes(void)
{
	bool large = options.routes && routes_wants_index(options.routes);
	int fd = large && !options.check ? file_in_memory("routes") : -1;

	if (!options.routes)
		return;
	if (!routes_index(options.routes, fd, route_check_line, &options, routes_why, sizeof routes_why))
		die(EX_CONFIG, "%s", about_routes("--routes"));
	if (options.check && *routes_why)
		printf("smtpwarp: %s\n", about_routes("--routes"));
	if (fd >= 0)
		routes_use_index(fd);
	else if (large)
		printf("smtpwarp: %s is large: where no listener makes an index of it, run --compile-routes\n",
		    options.routes);
}

static _Noreturn void compile_routes(void)
{
	if (!routes_compile(options.compile_routes, route_check_line, &options, routes_why, sizeof routes_why))
		die(EX_CONFIG, "%s", about_routes("--compile-routes"));
	exit(EX_OK);
}

/* ---- systemd ---- */

static const char *notify_path;

static void notify(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* sd_notify(3): its protocol is one datagram. */
static void notify(const char *format, ...)
{
	char text[160];
	va_list args;
	int n;

	if (listener.notify < 0)
		return;
	va_start(args, format);
	n = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	send(listener.notify, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void open_notify(void)
{
	const char *path = notify_path;
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	size_t n = path ? strlen(path) : 0;

	if (!n || n >= sizeof name.sun_path)
		return;
	memcpy(name.sun_path, path, n);
	if (*path == '@')
		name.sun_path[0] = 0;
	listener.notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (listener.notify >= 0 &&
	    connect(listener.notify, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0) {
		close(listener.notify);
		listener.notify = -1;
	}
}

/* Take systemd's variables out of the environment, so that hooks do not take them for theirs. Returns the number of sockets
 * passed from LISTEN_FDS_START on; 0: none, or they are for another process. */
static unsigned take_environment(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	long n = pid && fds && strtol(pid, NULL, 10) == getpid() ? strtol(fds, NULL, 10) : 0;

	notify_path = getenv("NOTIFY_SOCKET"); /* the string survives unsetenv(3) */
	unsetenv("NOTIFY_SOCKET");
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	for (long i = 0; i < n && i < SOCKETS_MAX; i++)
		fcntl(LISTEN_FDS_START + (int)i, F_SETFD, FD_CLOEXEC);
	return n > 0 ? (unsigned)n : 0;
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

/* ---- the accept loop ---- */

static void on_signal(int number)
{
	if (number == SIGHUP)
		reload = 1;
	else if (number == SIGUSR1) /* the listener ends; the same signals may have come to this process, too */
		terminate += !terminate;
	else if (number != SIGCHLD)
		terminate++;
	else if (getpid() == listener.pid)
		*(volatile sig_atomic_t *)&tally->children_ended = 1;
}

/* Signals are delivered only while ppoll(2) waits, here and in sessions, so that none is lost between a look at its flag and
 * the wait. Sessions inherit this; they react to SIGTERM. */
static void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	sigset_t blocked;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigaddset(&blocked, SIGCHLD);
	sigaddset(&blocked, SIGHUP);
	sigaddset(&blocked, SIGUSR1);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGCHLD, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
}

/* What sessions that have ended could not tell: records that the log has lost. Shared, and touched by such sessions only. */
static struct losses {
	uint32_t records;
	int error;
} *losses;

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

/* Children that are no sessions were there before, or are orphans: process 1 gets those. */
static void child_ended(pid_t pid, int how)
{
	uint32_t i = 0;

	while (i < tally->sessions && tally->child[i].pid != pid)
		i++;
	if (i == tally->sessions)
		return;
	tally->child[i] = tally->child[--tally->sessions];
	tally->status_due = listener.notify >= 0;
	if (!WIFSIGNALED(how) || (terminate && WTERMSIG(how) == SIGKILL)) /* end_sessions() kills */
		return;
	if (WTERMSIG(how) == SIGKILL)
		fault("session process %ld was killed, perhaps for lack of memory", (long)pid);
	else
		fault("session process %ld crashed: signal %d", (long)pid, WTERMSIG(how));
}

/* A hook may have killed it, or the kernel for lack of memory. Hooks of sessions under way fail; those to come have a new one. */
static void broker_ended(int how)
{
	fault("the process that runs hooks has ended: %s %d", WIFSIGNALED(how) ? "signal" : "exit status",
	    WIFSIGNALED(how) ? WTERMSIG(how) : WEXITSTATUS(how));
	broker = 0;
	if (!terminate && !start_broker(may_run))
		fault("%s", no_broker);
}

static void reap(void)
{
	pid_t pid;
	int how;

	tally->children_ended = 0;
	while ((pid = waitpid(-1, &how, WNOHANG)) > 0) {
		if (pid == indexer)
			indexer_ended(how);
		else if (pid == broker)
			broker_ended(how);
		else
			child_ended(pid, how);
	}
	tell_losses();
}

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
	/* What has come by now, the listener tells. Each page that is not written stays shared with it. */
	if (terminate)
		terminate = 0;
	if (log_lost(&error))
		log_set_lost(0, 0);
	session_run(fd, &options, hooks, &terminate);
	leave_losses();
	_exit(EX_OK);
}

static void fork_session(int fd, const union net_address *source)
{
	pid_t pid;

	if (tally->sessions >= options.max_sessions) {
		count_limit(STATEMAP_LIMIT_SESSIONS);
		turn_away(fd, source, "Too many sessions (--max-sessions)");
		return;
	}
	if (options.max_sessions_per_source && sessions_from(source) >= options.max_sessions_per_source) {
		count_limit(STATEMAP_LIMIT_SOURCE);
		turn_away(fd, source, "Too many sessions from this address (--max-sessions-per-source)");
		return;
	}
	look_again();
	pid = _Fork(); /* there are no threads and no atfork handlers to run */
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
	tally->status_due = listener.notify >= 0;
}

/* No descriptors are left: give up the one in reserve for a moment, to tell a waiting client. */
static void refuse_one(int listening)
{
	int fd;

	close(listener.spare);
	fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
	if (fd >= 0)
		turn_away(fd, NULL, "No descriptors are left");
	listener.spare = open_reserve();
}

static void accept_one(int listening)
{
	union net_address source;
	struct sockaddr_storage peer;
	socklen_t len = sizeof peer;
	int fd = accept4(listening, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC);

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
		kill(tally->child[i].pid, number);
}

/* Wait for events, for `seconds` at most; -1: without limit. Returns whether anything came: a connection or a signal. */
static bool wait_for_work(double seconds, bool accepting)
{
	struct pollfd p[SOCKETS_MAX];
	struct timespec limit = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };
	sigset_t none;
	bool came;
	int n;

	sigemptyset(&none);
	for (unsigned i = 0; i < listener.sockets; i++)
		p[i] = (struct pollfd){ .fd = accepting ? listener.socket[i] : -1, .events = POLLIN };
	n = ppoll(p, listener.sockets, seconds < 0 ? NULL : &limit, &none);
	came = n > 0;
	if (came) /* it takes no signal while connections wait, and they may always do */
		ppoll(NULL, 0, &(struct timespec){ 0, 0 }, &none);
	if (*(volatile sig_atomic_t *)&tally->children_ended)
		reap();
	for (unsigned i = 0; came && !terminate && i < listener.sockets; i++)
		if (p[i].revents)
			accept_one(listener.socket[i]);
	return n != 0;
}

/* Sessions end between messages, so that a restart does not hold new mail for one that is idle; a message under way has
 * --drain-timeout. After that, or at a second signal, tell them to end at once; after five more seconds kill them. */
static void end_sessions(void)
{
	struct timespec start, now;
	double limit = (double)options.timeouts.drain / 1e6;
	int told = 0;

	clock_gettime(CLOCK_MONOTONIC, &start);
	notify("STOPPING=1\nSTATUS=%u sessions end", tally->sessions);
	for (unsigned i = 0; i < listener.sockets; i++)
		close(listener.socket[i]);
	listener.sockets = 0;
	signal_children(SIGUSR1);
	while (tally->sessions) {
		double left;

		clock_gettime(CLOCK_MONOTONIC, &now);
		left = limit - (double)(now.tv_sec - start.tv_sec) - (double)(now.tv_nsec - start.tv_nsec) / 1e9;
		if (told < 2 && (left <= 0 || terminate > told + 1)) {
			/* a session counts both signals, and ends at once after two */
			signal_children(told ? SIGKILL : SIGTERM);
			signal_children(told ? SIGKILL : SIGINT);
			told++;
			start = now;
			limit = left = 5;
		}
		wait_for_work(left > 0 ? left : 1, false);
	}
}

/* Runs as the user that sessions run as. The default may be missing, or be somebody else's: then nothing is observed. */
static void open_state(void)
{
	char why[STATEFILE_WHY];
	bool named = strcmp(options.state, STATEMAP_FILE) != 0;

	if (strcmp(options.state, "none") == 0 || (options.check ? statefile_check : statefile_use)(options.state, why))
		return;
	if (named || (errno != ENOENT && errno != EACCES))
		fault("--state %.300s: %s; nothing is observed", options.state, why);
}

static bool load_providers(char *why, size_t cap)
{
	return providers_load(options.providers, strcmp(options.providers, OPTIONS_PROVIDERS) == 0, why, cap);
}

static bool load_rules(char *why, size_t cap)
{
	return rulefiles_load(options.reply_rules, options.reply_rules_count, why, cap);
}

/* Runs as the user that sessions run as, who has to read them again. */
static void check_rules(void)
{
	char why[FAULT_MAX];

	if (!load_rules(why, sizeof why) || !load_providers(why, sizeof why))
		die(EX_CONFIG, "%s", why);
}

/* SIGHUP: read again what may have been replaced. */
static void read_again(void)
{
	const char *reason;
	char why[FAULT_MAX];

	reload = 0;
	reopen_log();
	refresh_keys(true);
	if (options.upstream_auth && !passwords_load(options.upstream_auth, why, sizeof why))
		tell_of_old(why);
	if (!load_providers(why, sizeof why))
		tell_of_old(why);
	if (!load_rules(why, sizeof why))
		tell_of_old(why);
	open_state();
	reason = options.tls != TLS_NONE ? load_anchors() : NULL;
	if (reason)
		fault("--tls-ca %s: %s; what was read before is still in use", options.tls_ca, reason);
	warn_of_anchors();
}

/* Messages are kept for data hooks, and for servers that are known late. */
static void warn_of_uncounted(void)
{
	bool keeps = hooks->events & 1u << HOOK_DATA || options.limits.on_recipient;
	uint64_t taken;

	if (keeps && (options.max_kept || options.max_kept_percent) && !net_shares("kept", &taken))
		fault("warning: --max-kept: kept messages cannot be counted, and none is refused: %s", strerror(errno));
}

/* Without --upstream connections come by a redirect, past which mail may go if smtpwarp's ports are not its own. */
static void find_ports(void)
{
	if (!net_find_ports() && !options.upstreams && !options.routes)
		fault("warning: net.ipv4.ip_local_port_range leaves no ports for smtpwarp's own connections: see DESTINATION in smtpwarp(8)");
}

static void add_text(void *j, const char *text)
{
	json_string(j, NULL, text);
}

/* Record "start". What stays root says so. */
static void record_start(int argc, char **argv)
{
	char line[16384], address[NET_TEXT], text[NET_TEXT + 16];
	bool root = geteuid() == 0;
	struct json j;

	if (root)
		tell("warning: it stays root, and so do its hooks: give --user");
	event_begin(&j, line, sizeof line, "start");
	event_time(&j);
	json_string(&j, "version", SMTPWARP_VERSION);
	json_number(&j, "uid", geteuid());
	json_open(&j, "listen", '[');
	for (unsigned i = 0; i < listener.sockets; i++) {
		union net_address local;

		net_local(listener.socket[i], &local);
		snprintf(text, sizeof text, strchr(net_text(&local, address), ':') ? "[%s]:%u" : "%s:%u", address, net_port(&local));
		json_string(&j, NULL, text);
	}
	json_close(&j, ']');
	json_open(&j, "options", '[');
	options_given(argc, argv, environ, add_text, &j);
	json_close(&j, ']');
	event_end(&j, line, root ? LOG_PRIORITY_WARNING : LOG_PRIORITY_INFO);
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

static _Noreturn void listen_loop(void)
{
	double idle = listener.inetd_wait ? (double)options.timeouts.idle_exit / 1e6 : -1;
	size_t size = sizeof *tally + options.max_sessions * sizeof *tally->child;

	open_notify();
	event_share();
	tally = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (tally == MAP_FAILED || madvise(tally, size, MADV_DONTFORK) < 0)
		die_errno(EX_OSERR, "--max-sessions");
	losses = mmap(NULL, sizeof *losses, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (losses == MAP_FAILED)
		die_errno(EX_OSERR, "records that are lost");
	find_ports();
	warn_of_uncounted();
	listener.pid = getpid();
	listener.spare = open_reserve();
	if (options.tls != TLS_NONE && !tls_has_anchors()) {
		load_anchors(); /* once for all sessions; if it fails, their records say so */
		warn_of_anchors();
	}
	for (unsigned i = 0; i < listener.sockets; i++)
		fcntl(listener.socket[i], F_SETFL, fcntl(listener.socket[i], F_GETFL) | O_NONBLOCK);
	notify("READY=1\nSTATUS=ready");
	while (!terminate) {
		bool alone = !tally->sessions, due = tally->status_due || log_stale;
		bool worked = wait_for_work(due ? 1 : alone ? idle : -1, true);

		if (alone && !worked && !due && idle >= 0)
			break;
		if (reload)
			read_again();
		else if (log_stale)
			reopen_log();
		status();
	}
	end_sessions();
	record_stop(terminate ? "SIGTERM or SIGINT" : "--idle-exit");
	exit(EX_OK);
}

/* ---- start ---- */

/* Under SCHED_BATCH a session that is woken does not preempt the one that woke it: on a busy machine this saves a third of the
 * CPU time per message. Sessions inherit it. musl's sched_setscheduler(3) always fails with ENOSYS. */
static void prefer_throughput(void)
{
	struct sched_param none = { .sched_priority = 0 };

	syscall(SYS_sched_setscheduler, 0, SCHED_BATCH, &none);
}

/* A session without a listener to tell says on standard error what the log has lost. */
static void say_losses(void)
{
	int error;
	uint64_t n = log_lost(&error);

	if (n)
		tell("the log has lost %llu records: %s", (unsigned long long)n, strerror(error));
}

static void change_user(void)
{
	struct user user;

	if (!find_user(&user) || (getuid() == user.uid && getgid() == user.gid))
		return;
	if (!options.check && !options.try_hook)
		log_prepare(options.log, user.uid, user.gid);
	if (user_become(&user) < 0)
		die_errno(EX_CONFIG, "--user");
}

/* What is said inside TLS would go past it. */
static void refuse_blind_hook(void)
{
	if (options.client_tls == CLIENT_TLS_PASSTHROUGH && hooks->events & 1u << HOOK_RCPT)
		die(EX_CONFIG, "--client-tls passthrough leaves TLS to client and upstream: no rcpt hook can see the recipients");
}

static void refuse_open_relay(const union net_address *local)
{
	const char *why = options_open_relay(&options, hooks->events & 1u << HOOK_RCPT, local);

	if (why)
		die(EX_CONFIG, "%s", why);
}

/* It is too late then: the client's connection, the log and the hooks are root's. */
static void refuse_root(void)
{
	struct user user;

	if (find_user(&user) && user.uid != 0 && geteuid() == 0)
		die(EX_CONFIG, "--user %s: for one connection smtpwarp does not change its user: let root's inetd or tcpserver start it as "
			       "that user", options.user);
}

/* After a listener was killed, a session that it has just forked may hold the address for a moment longer. */
static int listen_patiently(const union net_address *a)
{
	int fd = net_listen(a, BACKLOG);

	for (unsigned tries = 0; fd < 0 && errno == EADDRINUSE && tries < 50; tries++) {
		nanosleep(&(struct timespec){ 0, 20000000 }, NULL);
		fd = net_listen(a, BACKLOG);
	}
	return fd;
}

static void bind_sockets(void)
{
	for (unsigned i = 0; i < options.listens; i++) {
		char text[NET_TEXT], what[NET_TEXT + 32];
		int fd = listen_patiently(&options.listen[i]);

		snprintf(what, sizeof what, "--listen %s port %u", net_text(&options.listen[i], text),
		    net_port(&options.listen[i]));
		if (fd < 0 && options.may_lack >> i & 1 && (errno == EADDRNOTAVAIL || errno == EAFNOSUPPORT))
			continue;
		if (fd < 0)
			die_errno(errno == EADDRINUSE ? EX_TEMPFAIL : EX_CONFIG, what);
		listener.socket[listener.sockets++] = fd;
	}
}

/* Take the listening sockets that systemd passed. */
static void take_systemd_sockets(unsigned n)
{
	if (n > SOCKETS_MAX)
		die(EX_USAGE, "LISTEN_FDS: smtpwarp takes up to " TEXT_OF(SOCKETS_MAX) " sockets");
	for (unsigned i = 0; i < n; i++) {
		if (net_kind(LISTEN_FDS_START + (int)i) != NET_LISTENING)
			die(EX_USAGE, "LISTEN_FDS: smtpwarp takes listening stream sockets, or one connected one");
		listener.socket[listener.sockets++] = LISTEN_FDS_START + (int)i;
	}
}

static void take_connection(unsigned passed, enum net_kind given)
{
	if (passed == 1 && net_kind(LISTEN_FDS_START) == NET_CONNECTED)
		connection = LISTEN_FDS_START;
	else if (!passed && given == NET_CONNECTED)
		connection = STDIN_FILENO;
}

/* Collect the sockets to listen on: those that we were given, and --listen. */
static void gather_sockets(unsigned passed, enum net_kind given)
{
	take_systemd_sockets(passed);
	if (!passed && given == NET_LISTENING) {
		listener.socket[listener.sockets++] = STDIN_FILENO;
		listener.inetd_wait = !options.listens;
	}
	for (unsigned i = 0; i < listener.sockets; i++) {
		union net_address local;

		net_local(listener.socket[i], &local);
		refuse_open_relay(&local);
	}
	if (options.listens + listener.sockets > SOCKETS_MAX)
		die(EX_USAGE, "more than " TEXT_OF(SOCKETS_MAX) " sockets to listen on");
	bind_sockets();
	if (!listener.sockets)
		die(EX_USAGE, "nothing to serve: start it from systemd or inetd, or give --listen ADDRESS:PORT; see --help");
}

static void begin_log(void)
{
	open_log();
	open_state();
	warn_of_exposed_secrets();
	warn_of_anchors();
}

/* The variables of --env-file. */
static char **read_env_file(const char *name)
{
	enum { OCTETS = 64 << 10, VARIABLES = 1000 };
	static char text[OCTETS + 1], *variables[VARIABLES + 1];
	struct envfile f = { .variables = variables, .most = VARIABLES };
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : file_read(fd, text, sizeof text);

	if (n < 0)
		die(EX_CONFIG, "--env-file %s: %s", name, strerror(errno));
	if (n > OCTETS)
		die(EX_CONFIG, "--env-file %s: it is larger than 64 KiB", name);
	close(fd);
	if (!envfile_read(&f, text, (size_t)n))
		die(EX_CONFIG, "--env-file %s: line %u: %s", name, f.line, f.why);
	return variables;
}

/* Processes of the same user can neither trace this one nor read its memory, nor does it leave a core. Its forks inherit this; a change of
 * the user ends it, prctl(2). */
static void close_memory(void)
{
	prctl(PR_SET_DUMPABLE, 0);
}

static void read_options(int argc, char **argv)
{
	char why[FAULT_MAX], help[OPTIONS_HELP_MAX];
	enum options_word word = options_read(&options, argc, argv, environ, why, sizeof why);

	if (word == OPTIONS_GOOD && options.env_file && !options.check && !options.try_hook)
		die(EX_USAGE, "--env-file is for --check and --try-hook: smtpwarp itself reads variables from its environment");
	if (options.env_file && (word == OPTIONS_GOOD || word == OPTIONS_BAD)) {
		char **variables = read_env_file(options.env_file);

		word = options_read(&options, argc, argv, variables, why, sizeof why);
		for (char **v = variables; *v; v++)
			putenv(*v); /* hooks read them, too */
	}
	switch (word) {
	case OPTIONS_GOOD:
		return;
	case OPTIONS_BAD:
		die(EX_USAGE, "%s", why);
	case OPTIONS_HELP:
		options_help(help);
		printf("%s", help);
		exit(EX_OK);
	case OPTIONS_VERSION:
		puts("smtpwarp " SMTPWARP_VERSION);
		exit(EX_OK);
	}
}

/* ---- --check ---- */

/* A listener that starts as root reads these files as root, but when they are replaced, as its user; and systemd's units start as that
 * user. */
static void check_readable(const char *option, const char *file)
{
	if (file && access(file, R_OK) < 0)
		fault("warning: --%s %.300s: %s, for --user %s: started by its units smtpwarp could not read it, and started as root, not "
		      "read it again", option, file, strerror(errno), options.user);
}

static void check_files(void)
{
	if (!options.user)
		return;
	check_readable("cert", options.cert);
	check_readable("key", options.key);
	check_readable("tls-cert", options.tls_cert);
	check_readable("tls-key", options.tls_key);
	check_readable("upstream-auth", options.upstream_auth);
}

/* Become --user, as far as this user may; else say what was done by whom. */
static void become_user(const char *done, const char *option)
{
	struct user user;

	if (find_user(&user) && geteuid() != 0 && geteuid() != user.uid)
		fault("warning: %s as the user who asks, not as --user %s: run --%s as root", done, options.user, option);
	else
		change_user();
}

/* From here on --check sees what --user will see. */
static void check_as_user(void)
{
	const char *why;
	bool there;

	choose_log();
	there = log_exists(options.log);
	if (!log_check(options.log, &why))
		die(EX_CONFIG, "--log %s: %s", options.log, why);
	become_user("checked", "check");
	if (there && !log_check(options.log, &why))
		fault("warning: --log %s: %s, for --user %s: after a rotation it could not be opened again", options.log, why, options.user);
	check_files();
}

static _Noreturn void check_rest(void)
{
	warn_of_log();
	warn_of_exposed_secrets();
	warn_of_anchors();
	warn_of_proxied_clients();
	warn_of_lacks();
	check_hooks();
	check_routes();
	check_rules();
	open_state();
	find_ports();
	warn_of_uncounted();
	puts("smtpwarp: options are in order");
	exit(EX_OK);
}

/* ---- --try-hook ---- */

#define SAMPLE_MAX (64 << 20) /* only pages that are used take memory */

/* What is wrong with a sample of n octets for hooks of this event; NULL: nothing. */
static const char *sample_fault(const char *text, size_t n, enum hook_event event)
{
	static const char mark[] = "\"event\":\"";
	const char *found = memmem(text, n, mark, sizeof mark - 1), *name = hook_event_name(event);

	if (!n)
		return "it is empty";
	if (n > SAMPLE_MAX)
		return "it is larger than " TEXT_OF(64) " MiB";
	if (event == HOOK_LOG || (event == HOOK_DATA && *text != '{'))
		return NULL;
	if (memchr(text, '\n', n - 1))
		return "a hook gets one line: make it one by jq -c";
	found = found ? found + sizeof mark - 1 : NULL;
	return found && (strncmp(found, name, strlen(name)) != 0 || found[strlen(name)] != '"') ? "it is of another event" : NULL;
}

/* The sample, *n octets that end a line; NULL: there is none. */
static const char *read_sample(const char *file, enum hook_event event, size_t *n)
{
	char *text = file ? mmap(NULL, SAMPLE_MAX + 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) : NULL;
	int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
	ssize_t len = fd >= 0 && text != MAP_FAILED ? file_read(fd, text, SAMPLE_MAX + 1) : -1;
	const char *why;

	if (!file)
		return NULL;
	if (len < 0)
		die(EX_CONFIG, "--try-hook: sample %s: %s", file, strerror(errno));
	*n = (size_t)len;
	why = sample_fault(text, *n, event);
	if (why)
		die(EX_CONFIG, "--try-hook: sample %s: %s", file, why);
	if (text[*n - 1] != '\n')
		text[(*n)++] = '\n';
	return text;
}

/* What shows before the hook is run. */
static void tell_of_trial(const struct hook *h, const char *file)
{
	const struct passwd *user = getpwuid(geteuid());
	const char *why = hooks_fault(h, options.limits.on_recipient);

	if (geteuid() == 0)
		fault("warning: the hook runs as root: give --user, the user that sessions run as");
	if (why)
		fault("warning: %.300s: %.150s", h->path, why);
	printf("%-9s%s, at %s\n", "hook", h->path, hook_event_name(h->event));
	printf("%-9s%s\n", "sample", file ? file : "one of smtpwarp's own");
	if (user)
		printf("%-9s%s\n", "user", user->pw_name);
	else
		printf("%-9s%u\n", "user", geteuid());
	fflush(stdout); /* before what the hook says */
}

static _Noreturn void try_hook(void)
{
	enum hook_event event = (enum hook_event)(options.try_hook - 1);
	const char *path = options.operand[0], *file = options.operand[1], *sample, *why;
	size_t n = 0;

	if (!path)
		die(EX_USAGE, "--try-hook %s: give the hook's path behind the event: --try-hook EVENT PATH [SAMPLE]", hook_event_name(event));
	sample = read_sample(file, event, &n);
	become_user("the hook runs", "try-hook");
	hooks_one(hooks, event, path);
	log_open("none", &why);
	catch_signals();
	guard_standard_descriptors();
	close_on_exec();
	tell_of_trial(hooks->hook, file);
	begin_broker(is_hook);
	exit(session_try(&options, hooks, &terminate, sample, n) ? EX_OK : EX_SOFTWARE);
}

/* One session, of the connection that we were given. */
static _Noreturn void serve_connection(void)
{
	refuse_root();
	if (hooks->count)
		begin_broker(may_run);
	begin_log();
	session_run(connection, &options, hooks, &terminate);
	if (broker)
		broker_stop(broker); /* systemd waits, and kills, where the last process to end is not its main one */
	say_losses();
	exit(EX_OK);
}

static void begin_signals(void)
{
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* at a limit of a file's size (RLIMIT_FSIZE) writes fail; they must not kill */
	if (getpid() == 1)	  /* which the kernel spares all signals that it does not catch */
		catch_signals();
}

int main(int argc, char **argv)
{
	unsigned passed = take_environment();
	enum net_kind given = net_kind(STDIN_FILENO);

	begin_signals();
	take_connection(passed, given);
	net_use_zones();
	close_memory();
	read_options(argc, argv);
	if (options.try_hook)
		try_hook();
	check_options();
	if (options.compile_routes)
		compile_routes();
	if (options.check)
		check_as_user();
	if (!find_hooks(hooks) && (connection < 0 || options.listens || options.check || hooks->misnamed))
		die(EX_CONFIG, "%s", hooks->broken); /* a session that has a client tells it, see --hook-failure */
	refuse_blind_hook();
	for (unsigned i = 0; i < options.listens; i++)
		refuse_open_relay(&options.listen[i]);
	choose_log();
	if (options.check)
		check_rest();
	catch_signals();
	prefer_throughput();
	guard_standard_descriptors();
	close_on_exec();
	if (connection >= 0 && !options.listens)
		serve_connection();
	gather_sockets(passed, given);
	change_user();
	close_memory();
	if (options.user && !find_hooks(hooks)) /* of folders that this user may not read */
		die(EX_CONFIG, "%s", hooks->broken);
	begin_log();
	warn_of_proxied_clients();
	warn_of_lacks();
	check_routes();
	check_rules();
	if (wants_broker())
		begin_broker(may_run);
	record_start(argc, argv);
	listen_loop();
}
