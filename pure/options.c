/* Options: one row each in a table, from which the command line, the environment and --help are read. */
#define _GNU_SOURCE
#include "pure/options.h"
#include "pure/sink.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef SMTPWARP_VERSION
#define SMTPWARP_VERSION "unreleased"
#endif
#ifndef OPTIONS_PLUGINS
#define OPTIONS_PLUGINS "/usr/lib/smtpwarp/plugins"
#endif

#define SECOND INT64_C(1000000)

/* Put an option's value into the options. NULL, or what the value should have been. */
typedef const char *set_fn(struct options *o, void *field, const char *value);

struct row {
	char name[24]; /* no pointer: each costs a relocation as well, 32 octets together */
	const char *value; /* NULL: a switch */
	bool repeats;
	size_t offset;
	set_fn *set;
	const char *help;
	const char *standard; /* default, as it would be given */
};

/* ---- kinds of values ---- */

static const char *set_u32(void *field, const char *value, uint32_t least, uint32_t most)
{
	uint64_t n = 0;
	const char *want = endpoint_number(value, least, most, &n);

	if (!want)
		*(uint32_t *)field = (uint32_t)n;
	return want;
}

static const char *set_any(struct options *o, void *field, const char *value)
{
	(void)o;
	return set_u32(field, value, 0, UINT32_MAX);
}

static const char *set_sessions(struct options *o, void *field, const char *value)
{
	(void)o;
	return set_u32(field, value, 1, 100000);
}

static const char *set_tarpits(struct options *o, void *field, const char *value)
{
	(void)o;
	return set_u32(field, value, 0, 100000);
}

static const char *set_recipients(struct options *o, void *field, const char *value)
{
	(void)o;
	return set_u32(field, value, 1, DIALOGUE_RCPT_MAX);
}

static const char *set_pipeline(struct options *o, void *field, const char *value)
{
	(void)o;
	return set_u32(field, value, 1, DIALOGUE_QUEUE_MAX - 2);
}

static const char *set_line(struct options *o, void *field, const char *value)
{
	uint64_t n = 0;
	const char *want = endpoint_number(value, SMTP_COMMAND_MIN, SMTP_AUTH_LINE_MAX, &n);

	(void)o;
	*(size_t *)field = (size_t)n;
	return want;
}

static const char *set_size(struct options *o, void *field, const char *value)
{
	(void)o;
	return endpoint_number(value, 0, INT64_MAX, field);
}

static const char *set_seconds(struct options *o, void *field, const char *value)
{
	int64_t us = 0, unit = SECOND;
	size_t digits = strspn(value, "0123456789");
	const char *c = value;

	(void)o;
	if (digits && digits < 9 && (!value[digits] || value[digits] == '.')) {
		for (; *c && *c != '.'; c++)
			us = us * 10 + (*c - '0') * SECOND;
		for (c += *c == '.'; *c >= '0' && *c <= '9'; c++)
			us += (*c - '0') * (unit /= 10);
	}
	if (c == value || *c)
		return "takes seconds, such as 300 or 0.5";
	*(int64_t *)field = us;
	return NULL;
}

static const char *set_text(struct options *o, void *field, const char *value)
{
	(void)o;
	*(const char **)field = value;
	return *value ? NULL : "must not be empty";
}

static const char *set_switch(struct options *o, void *field, const char *value)
{
	bool off = value && (strcmp(value, "0") == 0 || strcmp(value, "no") == 0 || strcmp(value, "false") == 0);

	(void)o;
	if (value && !off && strcmp(value, "1") != 0 && strcmp(value, "yes") != 0 && strcmp(value, "true") != 0)
		return "is a switch: it takes yes or no, if anything";
	*(bool *)field = !off;
	return NULL;
}

static const char *add_listen(struct options *o, void *field, const char *value)
{
	char host[256];
	uint16_t port;
	bool valid = endpoint_split(value, host, sizeof host, 0, &port);

	(void)field;
	if (o->listens == OPTIONS_LISTEN_MAX)
		return "can be given 8 times";
	if (!valid || !net_parse(strcmp(host, "*") == 0 ? "::" : host, port, &o->listen[o->listens]))
		return "takes ADDRESS:PORT, such as 127.0.0.1:2525, [::1]:2525 or *:2525";
	o->listens++;
	return NULL;
}

/* Warp's pair -ip and -port makes one address to listen on. */
static struct {
	const char *ip;
	uint32_t port;
} warp;

static const char *set_warp_ip(struct options *o, void *field, const char *value)
{
	union net_address a;

	(void)o;
	(void)field;
	warp.ip = value;
	return net_parse(value, 1, &a) ? NULL : "takes an IP address";
}

static const char *set_warp_port(struct options *o, void *field, const char *value)
{
	(void)o;
	(void)field;
	return set_u32(&warp.port, value, 1, 65535);
}

static const char *add_upstream(struct options *o, void *field, const char *value)
{
	const char *want;

	(void)field;
	if (o->upstreams == OPTIONS_UPSTREAM_MAX)
		return "can be given 16 times";
	want = endpoint_upstream(&o->upstream[o->upstreams], value);
	o->upstreams += !want;
	return want;
}

static const char *add_source(struct options *o, void *field, const char *value)
{
	union net_address a, *source;

	(void)field;
	if (strcmp(value, "client") == 0) {
		o->outbound_client = true;
		return NULL;
	}
	if (!net_parse(value, 0, &a))
		return "takes an IP address of this host, or the word client";
	source = a.sa.sa_family == AF_INET ? &o->outbound.source4 : &o->outbound.source6;
	if (source->sa.sa_family != AF_UNSPEC)
		return "can be given once for IPv4 and once for IPv6";
	*source = a;
	return NULL;
}

static const char *set_tls(struct options *o, void *field, const char *value)
{
	(void)o;
	return tls_level_parse(value, field) ? NULL : "takes " TLS_LEVEL_WORDS;
}

static const char *set_client_tls(struct options *o, void *field, const char *value)
{
	(void)o;
	return client_tls_parse(value, field) ? NULL : "takes " CLIENT_TLS_WORDS;
}

static const char *set_newline(struct options *o, void *field, const char *value)
{
	static const char *const words[] = { "normalize", "reject", "pass" };

	(void)o;
	for (size_t i = 0; i < 3; i++)
		if (strcmp(value, words[i]) == 0) {
			*(enum smtp_newline *)field = (enum smtp_newline)i;
			return NULL;
		}
	return "takes normalize, reject or pass";
}

static const char *set_hooks(struct options *o, void *field, const char *value)
{
	o->hooks_given = strcmp(value, OPTIONS_HOOKS) != 0;
	return set_text(o, field, value);
}

static const char *set_hook_failure(struct options *o, void *field, const char *value)
{
	(void)o;
	*(bool *)field = strcmp(value, "accept") == 0;
	return *(bool *)field || strcmp(value, "defer") == 0 ? NULL : "takes defer or accept";
}

static const char *set_connect_on(struct options *o, void *field, const char *value)
{
	(void)o;
	*(bool *)field = strcmp(value, "recipient") == 0;
	return *(bool *)field || strcmp(value, "connect") == 0 ? NULL : "takes connect or recipient";
}

/* What may begin the extension of an address. */
static const char *set_delimiter(struct options *o, void *field, const char *value)
{
	(void)set_text(o, field, value); /* empty: none */
	return value[strspn(value, "!#$%&'*+-./=?^_`{|}~")] ? "takes one or more characters such as +-" : NULL;
}

static const char *set_hostname(struct options *o, void *field, const char *value)
{
	return endpoint_is_host(value) ? set_text(o, field, value) : "takes a host name";
}

static const char *add_proxy(struct options *o, void *field, const char *value)
{
	(void)field;
	if (o->proxies == OPTIONS_PROXY_MAX)
		return "can be given 16 times";
	return net_block_parse(value, &o->proxy[o->proxies++]) ? NULL : "takes ADDRESS/BITS, such as 10.0.0.0/8 or ::1";
}

static const char *set_send_proxy(struct options *o, void *field, const char *value)
{
	bool valid = value[0] == 'v' && (value[1] == '1' || value[1] == '2') && !value[2];

	(void)o;
	*(unsigned *)field = valid ? (unsigned)(value[1] - '0') : 0;
	return valid ? NULL : "takes v1 or v2";
}

static const char *set_client_names(struct options *o, void *field, const char *value)
{
	(void)o;
	*(bool *)field = strcmp(value, "none") == 0;
	return *(bool *)field || strcmp(value, "lookup") == 0 ? NULL : "takes lookup or none";
}

/* ---- checks ---- */

/* Large values stand apart from what all sessions touch. */
static struct {
	struct net_block allow[OPTIONS_ALLOW_MAX];
	struct dnsbl dnsbl[OPTIONS_DNSBL_MAX];
	struct ere valid_recipients;
} large;

static const char *add_allow(struct options *o, void *field, const char *value)
{
	(void)field;
	if (o->allows == OPTIONS_ALLOW_MAX)
		return "can be given 64 times";
	if (!net_block_parse(value, &large.allow[o->allows]))
		return "takes ADDRESS/BITS, such as 10.0.0.0/8 or 2001:db8::/32, with no bit set behind the prefix";
	o->allow = large.allow;
	o->allows++;
	return NULL;
}

static const char *set_waiting(void *field, const char *value, int64_t least, int64_t most, const char *want)
{
	int64_t us;

	if (set_seconds(NULL, &us, value) || us < least || us > most)
		return want;
	*(int64_t *)field = us;
	return NULL;
}

/* No longer than a client waits for a greeting or reply, RFC 5321 4.5.3.2. */
static const char *set_delay(struct options *o, void *field, const char *value)
{
	(void)o;
	return set_waiting(field, value, 0, 300 * SECOND, "takes seconds from 0 to 300");
}

static const char *set_dns_time(struct options *o, void *field, const char *value)
{
	(void)o;
	return set_waiting(field, value, SECOND / 10, 60 * SECOND, "takes seconds from 0.1 to 60");
}

static const char *add_dnsbl(struct options *o, void *field, const char *value)
{
	const char *want;

	(void)field;
	if (o->dnsbls == OPTIONS_DNSBL_MAX)
		return "can be given 16 times";
	want = dnsbl_parse(&large.dnsbl[o->dnsbls], value);
	o->dnsbl = large.dnsbl;
	o->dnsbls += !want;
	return want;
}

static const char *set_threshold(struct options *o, void *field, const char *value)
{
	(void)o;
	return set_u32(field, value, 1, 100000);
}

static const char *add_dns_server(struct options *o, void *field, const char *value)
{
	char host[NET_TEXT];
	uint16_t port;

	(void)field;
	if (o->dns.count == DNS_SERVERS)
		return "can be given 3 times";
	if (!endpoint_split(value, host, sizeof host, 53, &port) || !net_parse(host, port, &o->dns.server[o->dns.count]))
		return "takes ADDRESS, ADDRESS:PORT or [IPv6]:PORT";
	o->dns.count++;
	return NULL;
}

static const char *set_valid_recipients(struct options *o, void *field, const char *value)
{
	(void)o;
	*(const struct ere **)field = &large.valid_recipients;
	return *value ? ere_compile(&large.valid_recipients, value) : "must not be empty";
}

static const char *set_override(struct options *o, void *field, const char *value)
{
	char line[300];
	struct smtp_command cmd;
	int n = snprintf(line, sizeof line, "RCPT TO:<%s>", value);

	if ((size_t)n >= sizeof line)
		return "takes an address that is not so long";
	smtp_parse((const unsigned char *)line, (size_t)n, &cmd);
	if (cmd.refusal || cmd.address_len != strlen(value) || !strchr(value, '@'))
		return "takes an address, such as test@example.com";
	return set_text(o, field, value);
}

static const char *set_log(struct options *o, void *field, const char *value)
{
	const char *path;

	return sink_parse(value, &path) != SINK_UNKNOWN ? set_text(o, field, value) : "takes " SINK_WORDS;
}

/* ---- the table ---- */

#define AT(field) offsetof(struct options, field)

static const struct row rows[] = {
	{ "listen", "ADDR:PORT", true, 0, add_listen, "accept connections here", NULL },
	{ "ip", "ADDR", false, 0, set_warp_ip, "with --port: accept connections here", "127.0.0.1" },
	{ "port", "PORT", false, 0, set_warp_port, "with --ip", NULL },
	{ "user", "NAME", false, AT(user), set_text, "become this user once listening", NULL },
	{ "max-sessions", "N", false, AT(max_sessions), set_sessions, "sessions at a time", "1000" },
	{ "max-sessions-per-source", "N", false, AT(max_sessions_per_source), set_any,
	    "sessions at a time of one client address; 0: no limit", "0" },
	{ "drain-timeout", "S", false, AT(timeouts.drain), set_seconds, "after SIGTERM sessions may go on so long", "60" },
	{ "idle-exit", "S", false, AT(timeouts.idle_exit), set_seconds, "inetd wait: exit when idle so long", "30" },
	{ "upstream", "HOST[:PORT]", true, 0, add_upstream,
	    "connect here instead of to the original destination; several: in order; by LMTP: lmtp://HOST, lmtp:unix:/PATH",
	    NULL },
	{ "routes", "FILE", false, AT(routes), set_text,
	    "where each recipient's mail goes: lines of pattern;server;tls_verify", NULL },
	{ "recipient-delimiter", "CHARS", false, AT(recipient_delimiter), set_delimiter,
	    "of local parts, for --routes: such as +-", NULL },
	{ "compile-routes", "FILE", false, AT(compile_routes), set_text,
	    "only write FILE.index, for a large file of --routes", NULL },
	{ "connect-on", "WHEN", false, AT(limits.on_recipient), set_connect_on,
	    "connect: at once; recipient: when sender and recipient are known", "connect" },
	{ "auth", NULL, false, AT(auth), set_switch, "with that, pass AUTH on to --upstream, connected to at EHLO", NULL },
	{ "hostname", "NAME", false, AT(hostname), set_hostname,
	    "what smtpwarp calls itself where it greets a client; without: the host's name", NULL },
	{ "outbound-ip", "ADDR", true, 0, add_source, "source address, one per family; client: the client's own", NULL },
	{ "mark", "N", false, AT(outbound.mark), set_any, "SO_MARK of outbound connections", NULL },
	{ "connect-timeout", "S", false, AT(timeouts.connect), set_seconds,
	    "for a connection to be made, and before for the name, 10 at most", "30" },
	{ "tls", "LEVEL", false, AT(tls), set_tls, TLS_LEVEL_WORDS ", towards the upstream", "may" },
	{ "tls-ca", "FILE", false, AT(tls_ca), set_text, "certificates of trusted CAs, PEM", OPTIONS_CA_FILE },
	{ "tls-name", "NAME", false, AT(tls_name), set_text, "name that the upstream's certificate must have", NULL },
	{ "tls-cert", "FILE", false, AT(tls_cert), set_text, "certificates to show to an upstream that asks for one, PEM", NULL },
	{ "tls-key", "FILE", false, AT(tls_key), set_text,
	    "the key of the first of them, PEM; without: in the file of --tls-cert", NULL },
	{ "upstream-auth", "FILE", false, AT(upstream_auth), set_text,
	    "authenticate to upstreams for all clients: lines of HOST USER:PASSWORD", NULL },
	{ "cert", "FILE", false, AT(cert), set_text, "certificates to show to clients, PEM: offers them STARTTLS", NULL },
	{ "key", "FILE", false, AT(key), set_text, "the key of the first of them, PEM; without: in the file of --cert", NULL },
	{ "client-tls", "HOW", false, AT(client_tls), set_client_tls,
	    CLIENT_TLS_WORDS ", towards clients; without: may, if there is --cert", NULL },
	{ "tls-timeout", "S", false, AT(timeouts.tls), set_seconds, "for a TLS handshake", "60" },
	{ "accept-proxy", "CIDR", true, 0, add_proxy, "connections from here begin with a PROXY header", NULL },
	{ "proxy-timeout", "S", false, AT(timeouts.proxy), set_seconds, "for that header", "10" },
	{ "send-proxy", "VERSION", false, AT(send_proxy), set_send_proxy,
	    "v1 or v2: tell the upstream of the client by a PROXY header", NULL },
	{ "xclient", NULL, false, AT(xclient), set_switch, "the same by XCLIENT, where the upstream offers it", NULL },
	{ "xforward", NULL, false, AT(xforward), set_switch, "the same for its log, by XFORWARD", NULL },
	{ "received", NULL, false, AT(received), set_switch, "put a Received field on top of each message", NULL },
	{ "client-names", "HOW", false, AT(no_client_names), set_client_names,
	    "lookup: these three have the client's host name, from the DNS; none", "lookup" },
	{ "hooks", "DIR", false, AT(hooks), set_hooks, "directory of hooks, see smtpwarp-hooks(7)", OPTIONS_HOOKS },
	{ "plugins", "NAMES", false, AT(plugins), set_text, "hooks that ship with smtpwarp to run as well: a,b", NULL },
	{ "plugins-dir", "DIR", false, AT(plugins_dir), set_text, "where those are", OPTIONS_PLUGINS },
	{ "hook-timeout", "S", false, AT(timeouts.hook), set_seconds, "for a hook to end", "30" },
	{ "hook-failure", "HOW", false, AT(hook_failure_accepts), set_hook_failure,
	    "defer or accept what a hook that fails was to decide", "defer" },
	{ "log", "SINK", false, AT(log), set_log, SINK_WORDS, NULL },
	{ "verbose", NULL, false, AT(verbose), set_switch, "log every command and reply", NULL },
	{ "message-size-limit", "N", false, AT(limits.message_size), set_size, "octets of a message; 0: no limit",
	    "10240000" },
	{ "max-recipients", "N", false, AT(limits.recipients), set_recipients, "recipients of a message", "1000" },
	{ "max-errors", "N", false, AT(max_errors), set_any, "bad commands of a session; 0: no limit", "20" },
	{ "max-pipeline", "N", false, AT(limits.pipeline), set_pipeline, "commands that may await replies", "64" },
	{ "command-length", "N", false, AT(limits.command_line), set_line, "octets of a command line", "2048" },
	{ "bare-newline", "HOW", false, AT(limits.newline), set_newline,
	    "normalize, reject or pass a bare CR or LF in a message", "normalize" },
	{ "plain-auth", NULL, false, AT(plain_auth), set_switch, "show AUTH to distant clients without TLS too", NULL },
	{ "allow-clients", "CIDR", true, 0, add_allow, "take connections of these addresses only", NULL },
	{ "greet-delay", "S", false, AT(greet_delay), set_delay,
	    "greet so late, and refuse clients that speak before; 0: at once", "0" },
	{ "dnsbl", "ZONE", true, 0, add_dnsbl,
	    "refuse clients that this list of the DNS has: ZONE[=127.0.0.[2;4..11]][*WEIGHT]", NULL },
	{ "dnsbl-threshold", "N", false, AT(dnsbl_threshold), set_threshold, "sum of weights at which to refuse", "1" },
	{ "dnsbl-timeout", "S", false, AT(dnsbl_timeout), set_dns_time, "for all lists to answer; for the client's host name", "5" },
	{ "dns-server", "ADDR[:PORT]", true, 0, add_dns_server,
	    "name server to ask, for names of upstreams too; without: those of /etc/resolv.conf", NULL },
	{ "valid-recipients", "ERE", false, AT(valid_recipients), set_valid_recipients,
	    "refuse recipients that this regular expression does not match", NULL },
	{ "override-recipient", "ADDRESS", false, AT(override_recipient), set_override,
	    "send all mail on to this address", NULL },
	{ "tarpit", "S", false, AT(tarpit), set_delay, "hold clients that these checks refuse so long first; 0: not", "0" },
	{ "max-tarpits", "N", false, AT(max_tarpits), set_tarpits, "clients held at a time", "100" },
	{ "banner-timeout", "S", false, AT(timeouts.banner), set_seconds, "for the upstream's greeting", "300" },
	{ "mail-timeout", "S", false, AT(timeouts.mail), set_seconds, "for its reply to MAIL", "300" },
	{ "rcpt-timeout", "S", false, AT(timeouts.rcpt), set_seconds, "for its reply to RCPT", "300" },
	{ "data-timeout", "S", false, AT(timeouts.data), set_seconds, "for its reply to DATA", "120" },
	{ "dot-timeout", "S", false, AT(timeouts.dot), set_seconds, "for its reply to the end of a message", "600" },
	{ "command-timeout", "S", false, AT(timeouts.command), set_seconds,
	    "for its reply to other commands; for a client to finish a command line", "300" },
	{ "block-timeout", "S", false, AT(timeouts.block), set_seconds, "for a peer to send or take part of a message",
	    "180" },
	{ "idle-timeout", "S", false, AT(timeouts.idle), set_seconds, "for a client's next command", "300" },
	{ "session-timeout", "S", false, AT(timeouts.session), set_seconds, "for a whole session; 0: no limit", "86400" },
	{ "min-rate", "N", false, AT(min_rate), set_any, "octets a second of a message, on average; 0: no limit", "100" },
	{ "check", NULL, false, AT(check), set_switch, "only check the options", NULL },
};

#define N_ROWS (sizeof rows / sizeof *rows)

static const struct row *find_row(const char *name, size_t n)
{
	for (size_t i = 0; i < N_ROWS; i++)
		if (strlen(rows[i].name) == n && memcmp(rows[i].name, name, n) == 0)
			return &rows[i];
	return NULL;
}

static const char *apply_row(struct options *o, const struct row *row, const char *value)
{
	return row->set(o, (char *)o + row->offset, value);
}

/* A list in one variable, as repeatable options have it. */
static const char *apply_row_list(struct options *o, const struct row *row, const char *value)
{
	/* The options keep pointers to values only of options that do not repeat, so the copy may go. */
	char *copy = strdup(value), *rest = NULL;
	const char *want = copy ? NULL : "is too long";

	for (char *item = copy ? strtok_r(copy, ", \t", &rest) : NULL; item && !want; item = strtok_r(NULL, ", \t", &rest))
		want = apply_row(o, row, item);
	free(copy);
	return want;
}

static void variable_name(const char *option, char *name, size_t cap)
{
	snprintf(name, cap, "SMTPWARP_%s", option);
	for (char *c = name; *c; c++)
		*c = (char)(*c == '-' ? '_' : *c >= 'a' && *c <= 'z' ? *c - 32 : *c);
}

/* A misspelt variable must not leave a policy unset. Those that Kubernetes makes for a service called smtpwarp are no
 * options: SMTPWARP_SERVICE_HOST, SMTPWARP_PORT_25_TCP, SMTPWARP_PORT=tcp://... */
static bool is_cluster_variable(const char *variable)
{
	const char *value = strchr(variable, '=');

	variable += strlen("SMTPWARP_");
	return strncmp(variable, "SERVICE_", 8) == 0 || strncmp(variable, "PORT_", 5) == 0 ||
	    (value && strncmp(variable, "PORT=", 5) == 0 && strstr(value, "://"));
}

static const char *unknown_variable(void)
{
	char name[64];

	for (char **v = environ; *v; v++) {
		bool known = strncmp(*v, "SMTPWARP_", 9) != 0 || is_cluster_variable(*v);

		for (size_t i = 0; i < N_ROWS && !known; i++) {
			variable_name(rows[i].name, name, sizeof name);
			known = strncmp(*v, name, strlen(name)) == 0 && (*v)[strlen(name)] == '=';
		}
		if (!known)
			return *v;
	}
	return NULL;
}

static int read_environment(struct options *o, const bool *given, char *why, size_t cap)
{
	char name[64];
	const char *unknown = unknown_variable();

	if (unknown) {
		snprintf(why, cap, "unknown variable %.*s; see --help", (int)strcspn(unknown, "="), unknown);
		return EX_USAGE;
	}
	for (size_t i = 0; i < N_ROWS; i++) {
		const char *value, *want;

		variable_name(rows[i].name, name, sizeof name);
		value = getenv(name);
		if (!value || !*value || given[i])
			continue;
		if (strcmp(rows[i].name, "port") == 0 && strstr(value, "://")) /* see is_cluster_variable() */
			continue;
		want = rows[i].repeats ? apply_row_list(o, &rows[i], value) : apply_row(o, &rows[i], value);
		if (want) {
			snprintf(why, cap, "%s=%s: it %s", name, value, want);
			return EX_USAGE;
		}
	}
	return EX_OK;
}

static void help(void)
{
	puts("usage: smtpwarp [OPTION]...\n"
	     "Transparent SMTP proxy. Started by inetd or systemd it serves the socket it was given; with --listen it\n"
	     "accepts connections itself. Redirect connections to port 25 to it; see smtpwarp(8).\n");
	for (size_t i = 0; i < N_ROWS; i++) {
		char left[48];

		snprintf(left, sizeof left, "--%s %s", rows[i].name, rows[i].value ? rows[i].value : "");
		printf("  %-30s %s", left, rows[i].help);
		printf(rows[i].standard ? " (%s)\n" : "%s\n", rows[i].standard ? rows[i].standard : "");
	}
	puts("  --help                         this\n"
	     "  --version                      the version\n"
	     "\nTimes are in seconds, such as 300 or 0.5; 0 is no limit, but for --drain-timeout and --idle-exit.\n"
	     "Each option is also a variable: --max-errors is SMTPWARP_MAX_ERRORS. The command line wins.");
}

/* One option at argv[*i]; moves *i over its value. */
static int read_argument(struct options *o, char **argv, int *i, bool *given, char *why, size_t cap)
{
	const char *name = argv[*i] + 1, *value, *want;
	const struct row *row;
	size_t n;

	name += *name == '-';
	n = strcspn(name, "=");
	row = argv[*i][0] == '-' ? find_row(name, n) : NULL;
	if (!row) {
		snprintf(why, cap, "unknown option %s; see --help", argv[*i]);
		return EX_USAGE;
	}
	given[row - rows] = true;
	value = name[n] == '=' ? name + n + 1 : row->value ? argv[++*i] : NULL;
	if (row->value && !value) {
		snprintf(why, cap, "--%s: a value is missing (%s)", row->name, row->value);
		return EX_USAGE;
	}
	want = apply_row(o, row, value);
	if (want)
		snprintf(why, cap, "--%s %s: it %s", row->name, value ? value : "", want);
	return want ? EX_USAGE : EX_OK;
}

static bool is_option(const char *argument, const char *word)
{
	return argument[0] == '-' && strcmp(argument + (argument[1] == '-' ? 2 : 1), word) == 0;
}

static void set_standards(struct options *o)
{
	memset(o, 0, sizeof *o);
	for (size_t i = 0; i < N_ROWS; i++)
		if (rows[i].standard && rows[i].set != set_warp_ip)
			apply_row(o, &rows[i], rows[i].standard);
}

static int add_warp_listen(struct options *o, char *why, size_t cap)
{
	if (warp.ip && !warp.port) {
		snprintf(why, cap, "--ip needs --port");
		return EX_USAGE;
	}
	if (!warp.port)
		return EX_OK;
	if (o->listens == OPTIONS_LISTEN_MAX) {
		snprintf(why, cap, "--port: there are 8 addresses to listen on already");
		return EX_USAGE;
	}
	net_parse(warp.ip ? warp.ip : "127.0.0.1", (uint16_t)warp.port, &o->listen[o->listens++]);
	return EX_OK;
}

int options_read(struct options *o, int argc, char **argv, bool *done, char *why, size_t why_cap)
{
	bool given[N_ROWS] = { false };
	int code = EX_OK;

	*done = false;
	set_standards(o);
	for (int i = 1; i < argc && !code; i++) {
		if (is_option(argv[i], "help")) {
			help();
			*done = true;
			return EX_OK;
		}
		if (is_option(argv[i], "version")) {
			puts("smtpwarp " SMTPWARP_VERSION);
			*done = true;
			return EX_OK;
		}
		code = read_argument(o, argv, &i, given, why, why_cap);
	}
	if (!code)
		code = read_environment(o, given, why, why_cap);
	if (o->routes)
		o->limits.on_recipient = true;
	if (!code && o->cert && o->client_tls == CLIENT_TLS_NONE)
		o->client_tls = CLIENT_TLS_MAY;
	o->limits.require_tls = o->client_tls == CLIENT_TLS_REQUIRE;
	return code ? code : add_warp_listen(o, why, why_cap);
}
