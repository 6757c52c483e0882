/* main: options, and how smtpwarp was started. It looks at what it was given, see STARTING in smtpwarp(8): it serves a connected
 * socket, or gives listening sockets to listener.c.
 */
#define _GNU_SOURCE
#include "hooks.h"
#include "io/agent.h"
#include "io/broker.h"
#include "io/dns.h"
#include "io/event.h"
#include "io/fault.h"
#include "io/file.h"
#include "io/keeper.h"
#include "io/keys.h"
#include "io/log.h"
#include "io/net.h"
#include "io/notify.h"
#include "io/passwords.h"
#include "io/sandbox.h"
#include "io/user.h"
#include "listener.h"
#include "loaded.h"
#include "pure/envfile.h"
#include "pure/options.h"
#include "pure/route.h"
#include "pure/text.h"
#include "session/session.h"
#include "tls.h"
#include "upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define LISTEN_FDS_START 3 /* sd_listen_fds(3) */
#define BACKLOG 1024

static struct options options;

/* The client's connection if we were given one; -1: we were given listening sockets, or none. */
static int connection = -1;

static struct listener_sockets listening;

static const volatile sig_atomic_t *terminate;

/* Nothing but SMTP may reach the client. Replace descriptors 1 and 2 by /dev/null if they are its socket, and fill those that
 * are closed, so that no socket of ours gets such a number. */
static void guard_standard_descriptors(void)
{
	for (int fd = 0; fd <= 2; fd++) {
		bool closed = fcntl(fd, F_GETFD) < 0;
		int null;

		if (!closed && (fd == 0 || !fault_is_client(fd)))
			continue;
		null = open("/dev/null", O_RDWR);
		if (null < 0)
			null = file_reserve(); /* reads and writes fail */
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
		options.log = fault_is_client(STDERR_FILENO) ? "syslog" : "stderr";
}

/* A daemon may be there later, so this is no reason not to start. */
static void warn_of_log(void)
{
	const char *path;

	if (!log_reachable(options.log, &path))
		fault_tell("warning: --log %s: %s: %s; records are lost until a daemon is there: start one, or give --log stderr or file:PATH",
		    options.log, path, strerror(errno));
}

/* Runs as the user that sessions run as, who has to open a file again after its rotation. */
static void open_log(void)
{
	const char *why;

	if (log_open(options.log, &why) < 0)
		fault_die(EX_CONFIG, "--log %s: %s", options.log, why);
	warn_of_log();
}

/* ---- what options name ---- */

/* A level that verifies certificates needs a name to look for in them. */
static void check_tls_name(void)
{
	bool nameless = !options.tls_name && !options.upstreams && !options.routes;

	for (unsigned i = 0; i < options.upstreams; i++)
		nameless = nameless || (!options.tls_name && !net_is_name(options.upstream[i].host));
	if (tls_level_verifies(options.tls) && nameless)
		fault_die(EX_CONFIG, "--tls %s needs a name to look for in certificates: give --tls-name NAME or --upstream with a host name",
		    tls_level_name(options.tls));
}

/* The default file may be missing where nothing has to be verified. */
static void check_anchors(void)
{
	bool named = strcmp(options.tls_ca, OPTIONS_CA_FILE) != 0;
	bool wanted = tls_level_verifies(options.tls) || (named && options.tls != TLS_NONE);
	const char *why = wanted ? loaded_read_anchors() : NULL;

	if (why)
		fault_die(EX_CONFIG, "--tls-ca %s: %s; install ca-certificates or name another file", options.tls_ca, why);
}

/* STARTTLS of a client is passed on, and with --client-tls auto nothing says whose is not. */
static bool passes_all(void)
{
	return options.client_tls == CLIENT_TLS_PASSTHROUGH || (options.client_tls == CLIENT_TLS_AUTO && !options.inspects);
}

/* What a client that speaks TLS with the upstream would get past. NULL: nothing. */
static const char *blinded(void)
{
	return options.valid_recipients ? "smtpwarp cannot see which recipients --valid-recipients is to check" :
	    options.override_recipient ? "smtpwarp cannot give its recipients another address (--override-recipient)" : NULL;
}

static void check_client_tls(void)
{
	bool passes = options.client_tls == CLIENT_TLS_PASSTHROUGH || options.client_tls == CLIENT_TLS_AUTO;
	const char *against = options.limits.on_recipient ?
	    "with --connect-on recipient or --routes there is none to ask" :
	    options.upstream_auth ? "smtpwarp cannot send what --upstream-auth has" :
	    options.client_tls == CLIENT_TLS_PASSTHROUGH && options.tls > TLS_MAY ? "smtpwarp cannot see to what --tls demands" :
	    options.client_tls == CLIENT_TLS_PASSTHROUGH && (options.policy_file || options.policy_map) ?
	    "smtpwarp cannot see to what --tls-policy demands" :
	    passes_all() ? blinded() : NULL;

	if (options.inspects && options.client_tls != CLIENT_TLS_AUTO)
		fault_die(EX_CONFIG, "--tls-inspect makes exceptions from --client-tls auto, which is not given");
	if (passes && against)
		fault_die(EX_CONFIG, "--client-tls %s leaves TLS to client and upstream: %s%s", client_tls_name(options.client_tls), against,
		    options.client_tls == CLIENT_TLS_AUTO && blinded() == against ? ": name clients or servers with --tls-inspect" : "");
	if (!passes && options.client_tls != CLIENT_TLS_NONE && !options.cert)
		fault_die(EX_CONFIG, "--client-tls %s needs --cert and --key", client_tls_name(options.client_tls));
}

static void check_tls_on(void)
{
	if (options.tls_on_recipient && options.upstream_auth)
		fault_die(EX_CONFIG, "--tls-on recipient, which --tls dane, dane-only and --tls-policy imply, begins TLS too late for "
				     "--upstream-auth: use --connect-on recipient");
}

static void load_pair(enum keys_pair pair, const char *cert, const char *key)
{
	char why[FAULT_MAX];

	if (key && !cert)
		fault_die(EX_CONFIG, "--%s %s: there is no --%s", keys_option(pair, true), key, keys_option(pair, false));
	if (cert && !keys_load(pair, cert, key ? key : cert, why, sizeof why))
		fault_die(EX_CONFIG, "%s", why);
}

static void load_keys(void)
{
	_Static_assert(OPTIONS_FILES_MAX == KEYS_CLIENTS_MAX, "each --cert has a place");
	if (options.certs && options.keys && options.certs != options.keys)
		fault_die(EX_CONFIG, "there are %u --key for %u --cert: give one for each, in the same order, or none", options.keys, options.certs);
	for (unsigned i = 0; i < options.certs || i < options.keys; i++)
		load_pair(KEYS_CLIENTS + i, i < options.certs ? options.cert[i] : NULL, i < options.keys ? options.key[i] : NULL);
	load_pair(KEYS_UPSTREAM, options.tls_cert, options.tls_key);
}

/* Who --user is. false: it is not given. */
static bool find_user(struct user *user)
{
	if (options.user && !user_find(user, options.user))
		fault_die(EX_CONFIG, "--user %s: there is no such user: give a name of /etc/passwd, or numbers, UID or UID:GID", options.user);
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
		fault_die(EX_CONFIG, "--auth needs --upstream, the server that names and passwords go to");
	check_anchors();
	check_client_tls();
	check_tls_on();
	load_keys();
	if (options.upstream_auth && !passwords_load(options.upstream_auth, why, sizeof why))
		fault_die(EX_CONFIG, "%s", why);
	if (*options.state != '/' && strcmp(options.state, "none") != 0)
		fault_die(EX_CONFIG, "--state %s: give a path from / on, or none", options.state);
	find_user(&user);
}

/* ---- hooks ---- */

static pid_t begin_broker(bool (*allows)(const char *path))
{
	pid_t pid = broker_start(allows, options.timeouts.hook);

	if (pid < 0)
		fault_die_errno(EX_OSERR, "a process to run hooks");
	return pid;
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
	for (unsigned i = 0; i < loaded_hooks()->count; i++) {
		const char *why = hooks_fault(&loaded_hooks()->hook[i], options.limits.on_recipient);

		if (why)
			fault("--hooks: %.200s: %.150s", loaded_hooks()->hook[i].path, why);
		faults += why != NULL;
	}
	if (faults)
		fault_die(EX_CONFIG, "--hooks: %u of %u hooks would fail", faults, loaded_hooks()->count);
}

/* ---- keys ---- */

static void warn_of_exposed(const char *option, const char *file)
{
	if (file)
		fault("warning: --%s %.300s: every user of this host can get at it", option, file);
}

static void warn_of_exposed_secrets(void)
{
	for (enum keys_pair pair = 0; pair < KEYS_PAIRS; pair++)
		warn_of_exposed(keys_option(pair, true), keys_exposed(pair));
	warn_of_exposed("upstream-auth", passwords_exposed() ? options.upstream_auth : NULL);
}

/* Clients that a proxy names are not on loopback, though we may listen there alone. */
static void warn_of_proxied_clients(void)
{
	const union net_address elsewhere = { .v4 = { .sin_family = AF_INET } };
	const char *why = options_open_relay(&options, loaded_hooks()->events & 1u << HOOK_RCPT, &elsewhere);

	if (options.proxies && why)
		fault("warning: --accept-proxy: %s", why);
}

/* ---- what is not there ---- */

/* What will not work, most of it in a container or initramfs that has nothing but smtpwarp. Mail goes on. */
static void warn_of_lacks(void)
{
	struct dns_settings dns;

	dns_settings_choose(&dns, &options.dns);
	if (dns.unnamed && loaded_wants_names())
		fault("warning: /etc/resolv.conf names no server: names are looked up at 127.0.0.1; give --dns-server ADDR");
	if (options.tls != TLS_NONE && access(options.tls_ca, R_OK) < 0)
		fault("warning: --tls-ca %.300s: %s: no upstream's certificate can be verified", options.tls_ca, strerror(errno));
	if (options.certs && passes_all())
		fault("warning: --cert: with --client-tls %s clients are shown the upstream's STARTTLS, and none this certificate%s",
		    client_tls_name(options.client_tls), options.client_tls == CLIENT_TLS_AUTO ? " without --tls-inspect" : "");
	if (options.tlsrpt && options.client_tls == CLIENT_TLS_PASSTHROUGH)
		fault("warning: --tlsrpt: with --client-tls passthrough clients speak TLS with the upstream, of which nothing is reported");
	if (access("/proc/self/fd", X_OK) == 0)
		return;
	if (loaded_hooks()->events & 1u << HOOK_DATA)
		fault("warning: /proc is not mounted: data hooks cannot get the message, and fail");
	if (!options.upstreams && !options.routes)
		fault("warning: /proc is not mounted: net.ipv4.ip_local_port_range is not known, so Linux's default is taken for it");
}

/* ---- systemd ---- */

static const char *notify_path;

/* Take systemd's variables out of the environment, so that hooks do not take them for theirs. Returns the number of sockets
 * passed from LISTEN_FDS_START on; 0: none, or they are for another process. */
static unsigned take_environment(void)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	long n = pid && fds && strtol(pid, NULL, 10) == getpid() ? strtol(fds, NULL, 10) : 0;

	if (n && getenv(KEEPER_LINK))
		upgrade_take((int)strtol(getenv(KEEPER_LINK), NULL, 10));
	notify_path = getenv("NOTIFY_SOCKET"); /* the string survives unsetenv(3) */
	unsetenv("NOTIFY_SOCKET");
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	unsetenv(KEEPER_LINK);
	for (long i = 0; i < n && i < LISTENER_SOCKETS_MAX; i++)
		fcntl(LISTEN_FDS_START + (int)i, F_SETFD, FD_CLOEXEC);
	return n > 0 ? (unsigned)n : 0;
}

/* Messages are kept for data hooks, and for servers that are known late. */
static void warn_of_uncounted(void)
{
	bool keeps = loaded_hooks()->events & 1u << HOOK_DATA || options.limits.on_recipient;
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
	char line[16384], address[NET_TEXT], text[NET_TEXT + 16 + SANDBOX_WALLS];
	bool root = geteuid() == 0;
	struct json j;

	if (root)
		fault_tell("warning: it stays root, and so do its hooks: give --user");
	event_begin(&j, line, sizeof line, "start");
	event_time(&j);
	json_string(&j, "version", SMTPWARP_VERSION);
	json_number(&j, "uid", geteuid());
	json_string(&j, "walls", options.no_sandbox ? "none" : sandbox_walls(text));
	json_open(&j, "listen", '[');
	for (unsigned i = 0; i < listening.count; i++) {
		union net_address local;

		net_local(listening.socket[i], &local);
		snprintf(text, sizeof text, strchr(net_text(&local, address), ':') ? "[%s]:%u" : "%s:%u", address, net_port(&local));
		json_string(&j, NULL, text);
	}
	json_close(&j, ']');
	json_open(&j, "options", '[');
	options_given(argc, argv, environ, add_text, &j);
	json_close(&j, ']');
	event_end(&j, line, root ? LOG_PRIORITY_WARNING : LOG_PRIORITY_INFO);
}

/* Once for all sessions; if it fails, their records say so. */
static void read_anchors_once(void)
{
	if (options.tls == TLS_NONE || tls_has_anchors())
		return;
	loaded_read_anchors();
	loaded_warn_of_anchors();
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
		fault_tell("the log has lost %llu records: %s", (unsigned long long)n, strerror(error));
}

static void change_user(void)
{
	struct user user;

	if (!find_user(&user) || (getuid() == user.uid && getgid() == user.gid))
		return;
	if (!options.check && !options.try_hook)
		log_prepare(options.log, user.uid, user.gid);
	if (user_become(&user) < 0)
		fault_die_errno(EX_CONFIG, "--user");
}

/* What is said inside TLS would go past it. */
static void refuse_blind_hook(void)
{
	if (passes_all() && loaded_hooks()->events & 1u << HOOK_RCPT)
		fault_die(EX_CONFIG, "--client-tls %s leaves TLS to client and upstream: no rcpt hook can see the recipients%s",
		    client_tls_name(options.client_tls), options.client_tls == CLIENT_TLS_AUTO ? ": name clients or servers with --tls-inspect" : "");
}

static void refuse_open_relay(const union net_address *local)
{
	const char *why = options_open_relay(&options, loaded_hooks()->events & 1u << HOOK_RCPT, local);

	if (why)
		fault_die(EX_CONFIG, "%s", why);
}

/* It is too late then: the client's connection, the log and the hooks are root's. */
static void refuse_root(void)
{
	struct user user;

	if (find_user(&user) && user.uid != 0 && geteuid() == 0)
		fault_die(EX_CONFIG, "--user %s: for one connection smtpwarp does not change its user: let root's inetd or tcpserver start it as "
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

/* Whether one of the first n sockets listens there. */
static bool is_listening(const union net_address *a, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		union net_address local;

		net_local(listening.socket[i], &local);
		if (net_same(&local, a))
			return true;
	}
	return false;
}

/* What was given to us need not be bound: an upgrade passes all sockets. */
static void bind_sockets(void)
{
	unsigned given = listening.count;

	for (unsigned i = 0; i < options.listens; i++) {
		char text[NET_TEXT], what[NET_TEXT + 32];
		int fd;

		if (is_listening(&options.listen[i], given))
			continue;
		if (listening.count == LISTENER_SOCKETS_MAX)
			fault_die(EX_USAGE, "more than " TEXT_OF(LISTENER_SOCKETS_MAX) " sockets to listen on");
		fd = listen_patiently(&options.listen[i]);
		snprintf(what, sizeof what, "--listen %s port %u", net_text(&options.listen[i], text),
		    net_port(&options.listen[i]));
		if (fd < 0 && options.may_lack >> i & 1 && (errno == EADDRNOTAVAIL || errno == EAFNOSUPPORT))
			continue;
		if (fd < 0)
			fault_die_errno(errno == EADDRINUSE ? EX_TEMPFAIL : EX_CONFIG, what);
		listening.socket[listening.count++] = fd;
	}
}

/* Take the listening sockets that systemd passed. */
static void take_systemd_sockets(unsigned n)
{
	if (n > LISTENER_SOCKETS_MAX)
		fault_die(EX_USAGE, "LISTEN_FDS: smtpwarp takes up to " TEXT_OF(LISTENER_SOCKETS_MAX) " sockets");
	for (unsigned i = 0; i < n; i++) {
		if (net_kind(LISTEN_FDS_START + (int)i) != NET_LISTENING)
			fault_die(EX_USAGE, "LISTEN_FDS: smtpwarp takes listening stream sockets, or one connected one");
		listening.socket[listening.count++] = LISTEN_FDS_START + (int)i;
	}
}

static void take_connection(unsigned passed, enum net_kind given)
{
	if (passed == 1 && net_kind(LISTEN_FDS_START) == NET_CONNECTED)
		connection = LISTEN_FDS_START;
	else if (!passed && given == NET_CONNECTED)
		connection = STDIN_FILENO;
	fault_client(connection);
}

/* Collect the sockets to listen on: those that we were given, and --listen. */
static void gather_sockets(unsigned passed, enum net_kind given)
{
	take_systemd_sockets(passed);
	if (!passed && given == NET_LISTENING) {
		listening.socket[listening.count++] = STDIN_FILENO;
		listening.exits_idle = !options.listens;
	}
	for (unsigned i = 0; i < listening.count; i++) {
		union net_address local;

		net_local(listening.socket[i], &local);
		refuse_open_relay(&local);
	}
	bind_sockets();
	if (!listening.count)
		fault_die(EX_USAGE, "nothing to serve: start it from systemd or inetd, or give --listen ADDRESS:PORT; see --help");
}

static void begin_log(void)
{
	open_log();
	loaded_open_state();
	warn_of_exposed_secrets();
	loaded_warn_of_anchors();
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
		fault_die(EX_CONFIG, "--env-file %s: %s", name, strerror(errno));
	if (n > OCTETS)
		fault_die(EX_CONFIG, "--env-file %s: it is larger than 64 KiB", name);
	close(fd);
	if (!envfile_read(&f, text, (size_t)n))
		fault_die(EX_CONFIG, "--env-file %s: line %u: %s", name, f.line, f.why);
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
		fault_die(EX_USAGE, "--env-file is for --check and --try-hook: smtpwarp itself reads variables from its environment");
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
		fault_die(EX_USAGE, "%s", why);
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
	for (unsigned i = 0; i < options.certs; i++)
		check_readable("cert", options.cert[i]);
	for (unsigned i = 0; i < options.keys; i++)
		check_readable("key", options.key[i]);
	check_readable("tls-cert", options.tls_cert);
	check_readable("tls-key", options.tls_key);
	check_readable("upstream-auth", options.upstream_auth);
}

/* A program may come later, so this is no reason not to start. */
static void check_socket(const char *option, const char *path, const char *what)
{
	if (access(path, W_OK) < 0)
		fault("warning: --%s: %s: %s: while that is so, %s", option, path, strerror(errno), what);
}

static void check_sockets(void)
{
	const struct socketmap *map = options.policy_map;

	if (options.tlsrpt)
		check_socket("tlsrpt", options.tlsrpt, "nothing is reported");
	if (map && map->address.sa.sa_family == AF_UNIX)
		check_socket("tls-policy", map->path, "mail gets 451");
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
		fault_die(EX_CONFIG, "--log %s: %s", options.log, why);
	become_user("checked", "check");
	if (there && !log_check(options.log, &why))
		fault("warning: --log %s: %s, for --user %s: after a rotation it could not be opened again", options.log, why, options.user);
	check_files();
}

/* Where a kernel lacks one, the others stand. */
static void tell_of_walls(void)
{
	char walls[SANDBOX_WALLS];

	if (options.verbose)
		printf("smtpwarp: walls around sessions: %s\n", options.no_sandbox ? "none" : sandbox_walls(walls));
}

static _Noreturn void check_rest(void)
{
	warn_of_log();
	warn_of_exposed_secrets();
	loaded_warn_of_anchors();
	warn_of_proxied_clients();
	warn_of_lacks();
	check_sockets();
	check_hooks();
	loaded_check_routes();
	loaded_check_rules();
	loaded_warn_of_policies();
	loaded_warn_of_resolver();
	loaded_open_state();
	find_ports();
	warn_of_uncounted();
	tell_of_walls();
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
		fault_die(EX_CONFIG, "--try-hook: sample %s: %s", file, strerror(errno));
	*n = (size_t)len;
	why = sample_fault(text, *n, event);
	if (why)
		fault_die(EX_CONFIG, "--try-hook: sample %s: %s", file, why);
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
		fault_die(EX_USAGE, "--try-hook %s: give the hook's path behind the event: --try-hook EVENT PATH [SAMPLE]", hook_event_name(event));
	sample = read_sample(file, event, &n);
	become_user("the hook runs", "try-hook");
	loaded_one_hook(event, path);
	log_open("none", &why);
	terminate = listener_catch_signals();
	guard_standard_descriptors();
	close_on_exec();
	tell_of_trial(loaded_hooks()->hook, file);
	begin_broker(loaded_is_hook);
	exit(session_try(&options, loaded_hooks(), terminate, sample, n) ? EX_OK : EX_SOFTWARE);
}

/* One session, of the connection that we were given. */
static _Noreturn void serve_connection(void)
{
	pid_t broker;

	refuse_root();
	loaded_begin_agents(false); /* first: the broker must have no secrets */
	broker = loaded_hooks()->count ? begin_broker(loaded_may_run) : 0;
	begin_log();
	loaded_confine(true);
	session_run(connection, &options, loaded_hooks(), terminate);
	if (broker)
		broker_stop(broker); /* systemd waits, and kills, where the last process to end is not its main one */
	agent_stop();
	say_losses();
	exit(EX_OK);
}

/* Runs as the user that sessions run as. */
static _Noreturn void serve_sockets(int argc, char **argv)
{
	begin_log();
	warn_of_proxied_clients();
	warn_of_lacks();
	loaded_check_routes();
	loaded_check_rules();
	listener_begin(&options, argv, notify_path);
	record_start(argc, argv);
	notify_open(notify_path);
	find_ports();
	warn_of_uncounted();
	read_anchors_once();
	loaded_confine(false);
	listener_run(&listening);
}

static void begin_signals(void)
{
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* at a limit of a file's size (RLIMIT_FSIZE) writes fail; they must not kill */
	if (getpid() == 1)	  /* which the kernel spares all signals that it does not catch */
		terminate = listener_catch_signals();
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
	loaded_begin(&options);
	if (options.check || options.try_hook)
		fault_without_log();
	if (options.try_hook)
		try_hook();
	check_options();
	if (options.compile_routes)
		loaded_compile_routes();
	if (options.check)
		check_as_user();
	if (!loaded_find_hooks() && (connection < 0 || options.listens || options.check || loaded_hooks()->misnamed))
		fault_die(EX_CONFIG, "%s", loaded_hooks()->broken); /* a session that has a client tells it, see --hook-failure */
	refuse_blind_hook();
	for (unsigned i = 0; i < options.listens; i++)
		refuse_open_relay(&options.listen[i]);
	choose_log();
	if (options.check)
		check_rest();
	terminate = listener_catch_signals();
	prefer_throughput();
	guard_standard_descriptors();
	close_on_exec();
	if (connection >= 0 && !options.listens)
		serve_connection();
	gather_sockets(passed, given);
	change_user();
	close_memory();
	if (options.user && !loaded_find_hooks()) /* of folders that this user may not read */
		fault_die(EX_CONFIG, "%s", loaded_hooks()->broken);
	serve_sockets(argc, argv);
}
