/* See loaded.h for the contract. */
#define _GNU_SOURCE
#include "loaded.h"

#include "io/agent.h"
#include "io/dns.h"
#include "io/event.h"
#include "io/fault.h"
#include "io/file.h"
#include "io/keys.h"
#include "io/memory.h"
#include "io/net.h"
#include "io/passwords.h"
#include "io/policyfile.h"
#include "io/providers.h"
#include "io/readable.h"
#include "io/routes.h"
#include "io/rulefiles.h"
#include "io/sandbox.h"
#include "io/statefile.h"
#include "pure/route.h"
#include "tls.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define RESOLVER_PATIENCE INT64_C(5000000) /* for a name server, --check */

static struct options *options;
static const char *anchors_warning; /* about the file of --tls-ca; NULL: none */
static char routes_why[FAULT_MAX]; /* "FILE: reason" from routes.h */
static bool routes_want_dane;	   /* one of them does */

/* The hooks in use, and room for the next list. */
static struct hook_list hook_lists[2], *hooks = hook_lists;

void loaded_begin(struct options *o)
{
	options = o;
}

static void tell_of_old(const char *why)
{
	fault("%s; what was read before is still in use", why);
}

const char *loaded_read_anchors(void)
{
	const char *why;

	anchors_warning = NULL;
	if (tls_load_anchors(options->tls_ca, &why) < 0)
		return why;
	anchors_warning = why;
	return NULL;
}

void loaded_warn_of_anchors(void)
{
	if (anchors_warning)
		fault("warning: --tls-ca %.300s: %s", options->tls_ca, anchors_warning);
}

static bool scan_hooks(struct hook_list *list)
{
	return hooks_scan(list, options->hooks, !options->hooks_given, options->plugins_dir, options->plugins);
}

const struct hook_list *loaded_hooks(void)
{
	return hooks;
}

bool loaded_find_hooks(void)
{
	return scan_hooks(hooks);
}

void loaded_one_hook(enum hook_event event, const char *path)
{
	hooks_one(hooks, event, path);
}

/* What cannot be read now must not cost mail: the last list that could be read stays. */
void loaded_find_hooks_again(void)
{
	struct hook_list *next = hooks == hook_lists ? hook_lists + 1 : hook_lists;

	if (scan_hooks(next)) {
		if (memcmp(next, hooks, sizeof *next) != 0) /* what is as it was is not written: the page stays shared with sessions */
			hooks = next;
	} else if (event_is_due(next->broken)) {
		tell_of_old(next->broken);
	}
}

bool loaded_is_hook(const char *path)
{
	for (unsigned i = 0; i < hooks->count; i++)
		if (!hooks->hook[i].socket && strcmp(hooks->hook[i].path, path) == 0)
			return true;
	return false;
}

bool loaded_may_run(const char *path)
{
	return loaded_is_hook(path) || (loaded_find_hooks() && loaded_is_hook(path));
}

bool loaded_wants_broker(void)
{
	return hooks->count || options->hooks_given || options->plugins || access(options->hooks, F_OK) == 0;
}

static const char *about_routes(const char *option)
{
	static char text[sizeof routes_why + 20];

	snprintf(text, sizeof text, "%s %s", option, routes_why);
	return text;
}

/* ---- agents ---- */

static bool many_agents; /* for many sessions */

static const char no_agent[] = "no process can be started to keep secrets, so sessions do without them";

static void start_agent(enum agent_kind kind)
{
	if (!agent_start(kind, many_agents) && event_is_due(no_agent))
		fault("%s", no_agent);
}

void loaded_begin_agents(bool many)
{
	many_agents = many;
	for (enum keys_pair pair = 0; pair < KEYS_PAIRS; pair++)
		if (keys_secret(pair) && !agent_start((enum agent_kind)pair, many))
			fault_die_errno(EX_OSERR, "a process to keep keys");
	if (passwords_have_secret() && !agent_start(AGENT_PASSWORDS, many))
		fault_die_errno(EX_OSERR, "a process to keep passwords");
}

/* What agents have kept is gone with them, and may be another user's. */
static void tell_of_lost(const char *why)
{
	if (event_is_due(why))
		fault("%s; an agent that had it has ended: start smtpwarp again", why);
}

/* Some agents of a key may be left, but only together do they know the same one. */
static void refresh_key(enum keys_pair pair, bool force)
{
	bool lacks = agent_lacks((enum agent_kind)pair);
	char why[FAULT_MAX];

	if (!keys_refresh(pair, force || lacks, why, sizeof why))
		(lacks ? tell_of_lost : tell_of_old)(why);
	if (keys_secret(pair))
		start_agent((enum agent_kind)pair);
}

static void refresh_passwords(bool force)
{
	bool lacks = agent_lacks(AGENT_PASSWORDS);
	char why[FAULT_MAX];

	if (!options->upstream_auth || (!force && !lacks))
		return;
	if (!passwords_load(options->upstream_auth, why, sizeof why))
		(lacks ? tell_of_lost : tell_of_old)(why);
	if (passwords_have_secret())
		start_agent(AGENT_PASSWORDS);
}

static void refresh_keys(bool force)
{
	for (enum keys_pair pair = 0; pair < KEYS_PAIRS; pair++)
		if (keys_current(pair))
			refresh_key(pair, force);
}

bool loaded_agent_ended(pid_t pid, int how)
{
	enum agent_kind kind;

	if (!agent_ended(pid, &kind))
		return false;
	fault("a process that keeps secrets has ended: %s %d", WIFSIGNALED(how) ? "signal" : "exit status",
	    WIFSIGNALED(how) ? WTERMSIG(how) : WEXITSTATUS(how));
	return true;
}

void loaded_open_state(void)
{
	char why[STATEFILE_WHY] = "no file";
	bool named = strcmp(options->state, STATEMAP_FILE) != 0, none = strcmp(options->state, "none") == 0;

	if (!none && (options->check ? statefile_check : statefile_use)(options->state, why))
		return;
	if (options->plain_after && !statefile_current())
		fault_die(EX_CONFIG, "--plain-after needs a file that smtpwarp's user can write, --state: %.300s: %s", options->state, why);
	if (none)
		return;
	if (named || (errno != ENOENT && errno != EACCES))
		fault("--state %.300s: %s; nothing is observed", options->state, why);
}

static bool load_providers(char *why, size_t cap)
{
	return providers_load(options->providers, strcmp(options->providers, OPTIONS_PROVIDERS) == 0, why, cap);
}

static bool load_rules(char *why, size_t cap)
{
	return rulefiles_load(options->reply_rules, options->reply_rules_count, why, cap);
}

static bool load_policies(char *why, size_t cap)
{
	return !options->policy_file || policyfile_load(options->policy_file, why, cap);
}

void loaded_check_rules(void)
{
	char why[FAULT_MAX];

	if (!load_rules(why, sizeof why) || !load_providers(why, sizeof why) || !load_policies(why, sizeof why))
		fault_die(EX_CONFIG, "%s", why);
}

void loaded_refresh_keys(void)
{
	refresh_keys(false);
	refresh_passwords(false);
}

void loaded_read_again(void)
{
	const char *reason;
	char why[FAULT_MAX];

	refresh_keys(true);
	refresh_passwords(true);
	if (!load_providers(why, sizeof why))
		tell_of_old(why);
	if (!load_rules(why, sizeof why))
		tell_of_old(why);
	if (!load_policies(why, sizeof why))
		tell_of_old(why);
	loaded_open_state();
	reason = options->tls != TLS_NONE ? loaded_read_anchors() : NULL;
	if (reason)
		fault("--tls-ca %s: %s; what was read before is still in use", options->tls_ca, reason);
	loaded_warn_of_anchors();
}

bool loaded_index_routes(int into)
{
	bool good = routes_index(options->routes, into, route_check_line, options, routes_why, sizeof routes_why);

	if (!good)
		fault("%s", about_routes("--routes"));
	return good;
}

/* A level that begins so, and is none of DANE's, is a fault. */
static const char *check_line(const struct routes_line *line, void *arg)
{
	const char *fault = route_check_line(line, arg);

	routes_want_dane = routes_want_dane || (!fault && strncmp(line->tls, "dane", 4) == 0);
	return fault;
}

void loaded_check_routes(void)
{
	bool large = options->routes && routes_wants_index(options->routes);
	int fd = large && !options->check ? file_in_memory("routes") : -1;

	if (!options->routes)
		return;
	if (!routes_index(options->routes, fd, check_line, options, routes_why, sizeof routes_why))
		fault_die(EX_CONFIG, "%s", about_routes("--routes"));
	if (options->check && *routes_why)
		printf("smtpwarp: %s\n", about_routes("--routes"));
	if (fd >= 0)
		routes_use_index(fd);
	else if (large)
		printf("smtpwarp: %s is large: where no listener makes an index of it, run --compile-routes\n",
		    options->routes);
}

_Noreturn void loaded_compile_routes(void)
{
	if (!routes_compile(options->compile_routes, route_check_line, options, routes_why, sizeof routes_why))
		fault_die(EX_CONFIG, "%s", about_routes("--compile-routes"));
	exit(EX_OK);
}

/* ---- walls ---- */

static bool wants_dane(void)
{
	return options->tls == TLS_DANE || options->tls == TLS_DANE_ONLY;
}

static int64_t microseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void loaded_warn_of_policies(void)
{
	bool named = options->upstreams || options->routes || hooks->events & HOOK_ROUTING;

	if (!named && policyfile_wants_server())
		fault("warning: --tls-policy %s: a line demands a certificate for the server's name, which nothing gives here: "
		      "give match=", options->policy_file);
}

void loaded_warn_of_resolver(void)
{
	static struct dns_query query;
	struct dns_servers servers;
	struct pollfd p;

	if (!wants_dane() && !routes_want_dane && !policyfile_wants_dane())
		return;
	dns_servers_choose(&servers, &options->dns);
	dns_start_authentic(&query, &servers, ".", DNS_NS, microseconds(), RESOLVER_PATIENCE);
	while (query.state == DNS_RUNNING) {
		int64_t left = dns_deadline(&query) - microseconds();

		poll(&p, dns_watch(&query, &p), left > 0 ? (int)(left / 1000) + 1 : 0);
		dns_turn(&query, microseconds());
	}
	if (query.failure)
		fault("warning: DANE: name servers cannot be asked: %s; mail would be deferred", query.failure);
	else if (!query.answer.authentic)
		fault("warning: DANE: no name server here validates, so no TLSA record counts: run one on this host, such as unbound, or give "
		      "--dns-trust-ad");
}

bool loaded_wants_names(void)
{
	bool names = wants_dane() || options->policy_file || options->policy_map || options->tlsrpt || options->routes ||
	    options->dnsbls || hooks->events & 1u << HOOK_RCPT || (options->limits.mail_late && hooks->events & HOOK_ROUTING) ||
	    (!options->no_client_names && (options->xclient || options->xforward || options->received));

	for (unsigned i = 0; i < options->upstreams; i++)
		names = names || net_is_name(options->upstream[i].host);
	return names;
}

bool loaded_wants_dialer(void)
{
	bool known = !options->no_sandbox && !options->limits.mail_late && !options->outbound_client;

	for (unsigned i = 0; i < options->upstreams; i++)
		known = known && !net_is_name(options->upstream[i].host) && options->upstream[i].host[0] != '/';
	return known;
}

int loaded_dial(int client, uint32_t which)
{
	struct net_outbound out = options->outbound;
	union net_address local, peer, dest;
	const char *what;

	net_ends(client, &local, &peer);
	out.apart = net_original(client, &local, &peer, &dest) != NET_DIRECT;
	errno = EPERM;
	if (which > options->upstreams || (!which && (options->upstreams || !out.apart)))
		return -1;
	if (which)
		net_parse(options->upstream[which - 1].host, options->upstream[which - 1].port, &dest);
	return net_connect(&dest, &out, &what);
}

static void tell_of_violation(const char *what)
{
	fault("%s: if nobody attacks this host, report it as a fault of smtpwarp; --sandbox off allows it", what);
}

/* What sessions read when they need it. */
static void let_read(bool alone)
{
	static char index[4096];

	if (!alone || loaded_wants_names() || (statefile_current() && !options->no_mx_names)) {
		readable_add("/etc/resolv.conf");
		readable_add("/etc/hosts");
	}
	readable_add(options->max_kept_percent ? MEMORY_LIMIT_FILE : NULL);
	readable_add(options->routes);
	if (options->routes && snprintf(index, sizeof index, "%s.index", options->routes) < (int)sizeof index)
		readable_add(index);
	readable_add(tls_has_anchors() ? NULL : options->tls_ca); /* which routes and hooks may want */
	if (alone) {
		readable_add(options->providers);
		readable_add(options->policy_file);
		for (unsigned i = 0; i < options->reply_rules_count; i++)
			readable_add(options->reply_rules[i]);
		readable_add(RULEFILES_SHIPPED);
	}
}

/* Those of SMTP and of what options name. */
static unsigned ports(uint16_t port[SANDBOX_PORTS])
{
	static const uint16_t always[] = { 25, 53, 465, 587 };
	unsigned n = sizeof always / sizeof *always;

	memcpy(port, always, sizeof always);
	for (unsigned i = 0; i < options->upstreams; i++)
		port[n++] = options->upstream[i].port;
	for (unsigned i = 0; i < options->dns.count; i++)
		port[n++] = net_port(&options->dns.server[i]);
	if (options->policy_map && options->policy_map->address.sa.sa_family != AF_UNIX)
		port[n++] = net_port(&options->policy_map->address);
	return n;
}

void loaded_confine(bool alone)
{
	uint16_t port[SANDBOX_PORTS];

	if (options->no_sandbox) {
		fault("warning: --sandbox off: a client or server that takes a session over has this host's files, network and processes");
		return;
	}
	let_read(alone);
	sandbox_prepare(port, ports(port), options->outbound.mark > 0);
	sandbox_filter(tell_of_violation);
}
