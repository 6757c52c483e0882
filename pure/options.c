/* Options: a table with one row each, for the command line, the environment and --help. See options.h for the contract. */
#define _GNU_SOURCE
#include "pure/options.h"
#include "pure/sink.h"
#include "pure/statemap.h"
#include "pure/text.h"

#include <stdio.h>
#include <string.h>

#ifndef OPTIONS_PLUGINS
#define OPTIONS_PLUGINS "/usr/lib/smtpwarp/plugins"
#endif

#define SECOND 1000000 /* in microseconds */
#define LONGEST_DELAY (300 * SECOND) /* as long as a client waits for a greeting or reply, RFC 5321 4.5.3.2 */

/* What an option takes. */
enum kind {
	/* Options that may be given several times: */
	LISTEN, UPSTREAM, SOURCE, PROXY, ALLOW, INSPECT, POLICY, EXEMPT, DNSBL, DNS_SERVER, RULES, CERTS, KEYS,
	LISTS, /* how many kinds those are */
	/* What several options take: */
	SWITCH, TEXT, NUMBER, OCTETS, SIZE, SECONDS, EITHER, CHOICE, CHOICE_OR_NONE,
	/* What one option takes: */
	WARP_IP, HOOKS, DELIMITER, HOSTNAME, LOG, TLSRPT, KEPT, RECIPIENTS, OVERRIDE
};

/* The texts of an option stand one behind the other, see text_nth(); "" is none. */
struct row {
	const char *name; /* and the other texts: see enum text */
	uint32_t least, most; /* NUMBER, OCTETS; SECONDS, in microseconds: most 0 is no limit */
	uint16_t offset;      /* of the member that takes the value */
	unsigned char kind;   /* enum kind */
};

enum text {
	NAME,
	VALUE,	  /* for --help; none: a switch */
	STANDARD, /* the default, as an operator would give it */
	HELP,
	WORDS /* of EITHER and the choices: "a, b or c" */
};

/* ---- the table ---- */

/* Where the member is. The comparison is never made: it lets the compiler check the member's type. */
#define AT(type, member) \
	((uint16_t)(offsetof(struct options, member) + 0 * sizeof(&((struct options *)0)->member == (type *)0)))

#define ROW(name, kind, place, least, most, value, standard, help, words) \
	{ name "\0" value "\0" standard "\0" help "\0" words, least, most, place, kind }

#define OF_SWITCH(name, member, help) ROW(name, SWITCH, AT(bool, member), 0, 0, "", "", help, "")
#define OF_TEXT(name, member, value, standard, help) ROW(name, TEXT, AT(const char *, member), 0, 0, value, standard, help, "")
#define OF_NUMBER(name, member, least, most, standard, help) \
	ROW(name, NUMBER, AT(uint32_t, member), least, most, "N", standard, help, "")
#define OF_OCTETS(name, member, least, most, standard, help) \
	ROW(name, OCTETS, AT(uint32_t, member), least, most, "N", standard, help, "")
#define OF_SECONDS(name, member, least, most, standard, help) \
	ROW(name, SECONDS, AT(int64_t, member), least, most, "S", standard, help, "")
/* Whether the value is the second of two words. */
#define OF_EITHER(name, member, two, value, standard, help) ROW(name, EITHER, AT(bool, member), 0, 0, value, standard, help, two)
/* Which of several words, from 0 on; OR_NONE: from 1 on, and 0 without the option. */
#define OF_CHOICE(name, member, several, value, standard, help) \
	ROW(name, CHOICE, AT(unsigned, member), 0, 0, value, standard, help, several)
#define OF_CHOICE_OR_NONE(name, member, several, value, help) \
	ROW(name, CHOICE_OR_NONE, AT(unsigned, member), 0, 0, value, "", help, several)
#define OF_OWN(name, kind, member, value, standard, help) ROW(name, kind, AT(const char *, member), 0, 0, value, standard, help, "")
#define OF_LIST(name, kind, value, help) ROW(name, kind, 0, 0, 0, value, "", help, "")

static const struct row rows[] = {
	OF_LIST("listen", LISTEN, "ADDR:PORT", "accept connections at this address"),
	OF_OWN("ip", WARP_IP, warp_ip, "ADDR", "127.0.0.1", "accept connections at this address and --port"),
	ROW("port", NUMBER, AT(uint32_t, warp_port), 1, 65535, "PORT", "", "accept connections at --ip and this port", ""),
	OF_TEXT("user", user, "USER", "", "become this user once listening: a name, or UID[:GID]"),
	OF_NUMBER("max-sessions", max_sessions, 1, 100000, "1000", "most sessions at a time"),
	OF_NUMBER("max-sessions-per-source", max_sessions_per_source, 0, UINT32_MAX, "0",
	    "most sessions at a time from one client address; 0: no limit"),
	OF_EITHER("sandbox", no_sandbox, "on or off", "HOW", "on",
	    "on: sessions are confined to what they need; off: they are not, for debugging"),
	OF_SECONDS("drain-timeout", timeouts.drain, 0, 0, "60", "how long sessions may go on after SIGTERM"),
	OF_SECONDS("idle-exit", timeouts.idle_exit, 0, 0, "30", "started by inetd wait: exit after so long without a session"),
	OF_LIST("upstream", UPSTREAM, "HOST[:PORT]",
	    "connect here, not to the original destination; several are tried in order; LMTP: lmtp://HOST, lmtp:unix:/PATH"),
	OF_TEXT("routes", routes, "FILE", "", "where each recipient's mail goes: lines of pattern;server;tls_verify"),
	OF_OWN("recipient-delimiter", DELIMITER, recipient_delimiter, "CHARS", "",
	    "what begins the extension of an address, for --routes: characters such as +-"),
	OF_TEXT("compile-routes", compile_routes, "FILE", "", "write FILE.index, for a large file of --routes, and exit"),
	OF_EITHER("connect-on", limits.on_recipient, "connect or recipient", "WHEN", "connect",
	    "connect to the upstream at once, or when sender and recipient are known"),
	OF_SWITCH("auth", auth, "with --connect-on recipient: pass AUTH on to --upstream, and connect there at EHLO"),
	OF_OWN("hostname", HOSTNAME, hostname, "NAME", "", "what smtpwarp calls itself to clients; without it: the host's name"),
	OF_LIST("outbound-ip", SOURCE, "ADDR",
	    "source address of outbound connections, one for IPv4 and one for IPv6; client: the client's own"),
	OF_NUMBER("mark", outbound.mark, 0, UINT32_MAX, "", "firewall mark (SO_MARK) of outbound connections"),
	OF_SECONDS("connect-timeout", timeouts.connect, 0, 0, "30",
	    "time to connect to an address, and before, 10 at most, to look its name up"),
	OF_CHOICE("tls", tls, TLS_LEVEL_WORDS, "LEVEL", "may", "TLS towards the upstream: " TLS_LEVEL_WORDS),
	OF_EITHER("tls-on", tls_on_recipient, "connect or recipient", "WHEN", "connect",
	    "begin TLS with the upstream at once, or when the recipient is known"),
	OF_SECONDS("plain-after", plain_after, 0, 0, "0",
	    "how long mail is deferred if a server's TLS fails, before it goes in plain; 0: not at all"),
	OF_TEXT("tls-ca", tls_ca, "FILE", OPTIONS_CA_FILE, "certificates of trusted CAs, PEM"),
	OF_TEXT("tls-name", tls_name, "NAME", "", "name that the upstream's certificate must have"),
	OF_LIST("tls-policy", POLICY, "MAP", "TLS by the recipient's domain, in Postfix's words: FILE, " SOCKETMAP_WORDS),
	OF_LIST("dane-exempt", EXEMPT, "CIDR", "servers at these addresses are not asked for TLSA records"),
	OF_SWITCH("dns-trust-ad", dns.trusted, "believe name servers on other hosts, too, that they have validated what they say"),
	OF_OWN("tlsrpt", TLSRPT, tlsrpt, "PATH", "", "socket of the program that collects reports of TLS, such as tlsrpt-collectd"),
	OF_TEXT("tls-cert", tls_cert, "FILE", "", "certificates to show to an upstream that asks for one, PEM"),
	OF_TEXT("tls-key", tls_key, "FILE", "", "key of the first of them, PEM; without it: in the file of --tls-cert"),
	OF_TEXT("upstream-auth", upstream_auth, "FILE", "",
	    "authenticate to upstreams for all clients: lines of HOST USER:PASSWORD"),
	OF_LIST("cert", CERTS, "FILE", "certificates to show to clients, PEM; offers them STARTTLS; of several, by the name they ask for"),
	OF_LIST("key", KEYS, "FILE", "key of the first of them, PEM, for each --cert; without it: in the file of --cert"),
	OF_CHOICE_OR_NONE("client-tls", client_tls, CLIENT_TLS_WORDS, "HOW",
	    "TLS towards clients: " CLIENT_TLS_WORDS "; without it: may, if there is --cert"),
	OF_LIST("tls-inspect", INSPECT, "CIDR",
	    "with --client-tls auto: keep STARTTLS from these clients, or with to:CIDR for these servers, and see their mail"),
	OF_SECONDS("tls-timeout", timeouts.tls, 0, 0, "60", "time for a TLS handshake"),
	OF_LIST("accept-proxy", PROXY, "CIDR", "connections from these addresses begin with a PROXY header"),
	OF_SECONDS("proxy-timeout", timeouts.proxy, 0, 0, "10", "time for that header"),
	OF_CHOICE_OR_NONE("send-proxy", send_proxy, "v1 or v2", "VERSION",
	    "tell the upstream about the client, with a PROXY header of version v1 or v2"),
	OF_SWITCH("xclient", xclient, "tell the upstream about the client, with XCLIENT, if it offers that"),
	OF_SWITCH("xforward", xforward, "tell the upstream's log about the client, with XFORWARD, if it offers that"),
	OF_SWITCH("received", received, "put a Received field on top of each message"),
	OF_EITHER("client-names", no_client_names, "lookup or none", "HOW", "lookup",
	    "lookup: the last three tell the client's host name, from the DNS; none: they do not"),
	OF_OWN("hooks", HOOKS, hooks, "DIR", OPTIONS_HOOKS, "directory of hooks, see smtpwarp-hooks(7)"),
	OF_TEXT("plugins", plugins, "NAMES", "", "hooks that ship with smtpwarp to run as well: a,b"),
	OF_TEXT("plugins-dir", plugins_dir, "DIR", OPTIONS_PLUGINS, "where those are"),
	OF_SECONDS("hook-timeout", timeouts.hook, 0, 0, "30", "time for a hook to end"),
	OF_EITHER("hook-failure", hook_failure_accepts, "defer or accept", "HOW", "defer",
	    "defer or accept what a failed hook should have decided"),
	OF_LIST("reply-rules", RULES, "FILE", "why servers refuse: rules before those that ship, see smtpwarp-replies(5)"),
	OF_TEXT("providers", providers, "FILE", OPTIONS_PROVIDERS, "which servers belong to one provider: lines of NAME SUFFIX ..."),
	OF_TEXT("state", state, "FILE", STATEMAP_FILE, "what sessions observe together, for smtpwarp-stat(8); none: nothing"),
	OF_EITHER("mx-names", no_mx_names, "lookup or none", "HOW", "lookup",
	    "lookup: with --state, the DNS tells whose server it is, by the recipient's domain; none: it is not asked"),
	OF_OWN("log", LOG, log, "SINK", "", "where records go: " SINK_WORDS),
	OF_SWITCH("verbose", verbose, "log every command and reply"),
	ROW("message-size-limit", SIZE, AT(uint64_t, limits.message_size), 0, 0, "N", "10240000", "most octets of a message; 0: no limit", ""),
	ROW("max-kept", KEPT, 0, 0, 0, "SIZE", "25%",
	    "most octets of messages that all sessions keep, or percent of the memory; 0: no limit", ""),
	OF_NUMBER("max-recipients", limits.recipients, 1, DIALOGUE_RCPT_MAX, "1000", "most recipients of a message"),
	OF_NUMBER("max-errors", max_errors, 0, UINT32_MAX, "20", "most bad commands of a session; 0: no limit"),
	OF_NUMBER("max-pipeline", limits.pipeline, 1, DIALOGUE_QUEUE_MAX - 2, "64", "most commands that await replies"),
	OF_OCTETS("command-length", limits.command_line, SMTP_COMMAND_MIN, SMTP_AUTH_LINE_MAX, "2048",
	    "most octets of a command line"),
	OF_CHOICE("bare-newline", limits.newline, "normalize, reject or pass", "HOW", "normalize",
	    "normalize, reject or pass a bare CR or LF in a message"),
	OF_SWITCH("plain-auth", plain_auth, "offer AUTH without TLS, too, to clients on other hosts"),
	OF_LIST("allow-clients", ALLOW, "CIDR", "take connections from these addresses only"),
	OF_SECONDS("greet-delay", greet_delay, 0, LONGEST_DELAY, "0",
	    "greet so late, and refuse clients that speak before; 0: greet at once"),
	OF_LIST("dnsbl", DNSBL, "ZONE", "refuse clients that are on this DNS list: ZONE[=127.0.0.[2;4..11]][*WEIGHT]"),
	OF_NUMBER("dnsbl-threshold", dnsbl_threshold, 1, 100000, "1", "least sum of weights for which to refuse"),
	OF_SECONDS("dnsbl-timeout", dnsbl_timeout, SECOND / 10, 60 * SECOND, "5",
	    "time for all lists to answer, and for the client's host name"),
	OF_LIST("dns-server", DNS_SERVER, "ADDR[:PORT]",
	    "name server to ask, also for names of upstreams; without it: those of /etc/resolv.conf"),
	ROW("valid-recipients", RECIPIENTS, 0, 0, 0, "ERE", "", "refuse recipients that this regular expression does not match", ""),
	OF_OWN("override-recipient", OVERRIDE, override_recipient, "ADDRESS", "", "send all mail to this address"),
	OF_SECONDS("tarpit", tarpit, 0, LONGEST_DELAY, "0", "delay for clients that these checks refuse; 0: no delay"),
	OF_NUMBER("max-tarpits", max_tarpits, 0, 100000, "100", "most clients delayed at a time"),
	OF_SECONDS("banner-timeout", timeouts.banner, 0, 0, "300", "time for the upstream's greeting"),
	OF_SECONDS("mail-timeout", timeouts.mail, 0, 0, "300", "time for its reply to MAIL"),
	OF_SECONDS("rcpt-timeout", timeouts.rcpt, 0, 0, "300", "time for its reply to RCPT"),
	OF_SECONDS("data-timeout", timeouts.data, 0, 0, "120", "time for its reply to DATA"),
	OF_SECONDS("dot-timeout", timeouts.dot, 0, 0, "600", "time for its reply to the end of a message"),
	OF_SECONDS("command-timeout", timeouts.command, 0, 0, "300",
	    "time for its reply to other commands, and for a client to finish a command line"),
	OF_SECONDS("block-timeout", timeouts.block, 0, 0, "180", "time for a peer to send or take part of a message"),
	OF_SECONDS("idle-timeout", timeouts.idle, 0, 0, "300", "time for a client's next command"),
	OF_SECONDS("session-timeout", timeouts.session, 0, 0, "86400", "time for a whole session; 0: no limit"),
	OF_OCTETS("min-rate", min_rate, 0, UINT32_MAX, "100", "least octets a second of a message, on average; 0: no limit"),
	OF_SWITCH("check", check, "check the options, and what they name, as --user will see it, and exit"),
	OF_CHOICE_OR_NONE("try-hook", try_hook, "connect, ehlo, mail, rcpt, data, close or log", "EVENT PATH [SAMPLE]",
	    "run this hook as a session would, with a sample of the event, say what comes of it, and exit"),
	OF_TEXT("env-file", env_file, "FILE", "",
	    "with these two: read the variables from this file, as systemd does, not from the environment"),
};

#define N_ROWS (sizeof rows / sizeof *rows)

static const char *text_of(const struct row *row, enum text which)
{
	return text_nth(row->name, which);
}

/* Groups of rows, by the first of each; named as in smtpwarp(8). */
static const struct {
	char first[20], title[28];
} groups[] = {
	{ "listen", "Accepting connections" },
	{ "upstream", "Connecting to the upstream" },
	{ "tls", "TLS" },
	{ "accept-proxy", "Who the client is" },
	{ "hooks", "Hooks" },
	{ "reply-rules", "Log" },
	{ "message-size-limit", "Limits" },
	{ "allow-clients", "Checks" },
	{ "banner-timeout", "Timeouts" },
	{ "check", "Asking" },
};

/* ---- values: NULL, or what the value should have been ---- */

#define TOO_MANY(most) "can be given " TEXT_OF(most) " times at most"

static const char *set_number(uint32_t *number, const char *value, uint32_t least, uint32_t most)
{
	uint64_t n = 0;
	const char *want = endpoint_number(value, least, most, &n);

	*number = (uint32_t)n;
	return want;
}

/* Octets, or so many times 1024 (K), 1024^2 (M) or 1024^3 (G). */
static const char *set_octets(uint64_t *octets, const char *value, uint64_t least, uint64_t most)
{
	static const char units[] = "kKmMgG";
	static char want[96];
	char digits[24] = "";
	size_t n = strlen(value);
	const char *unit = n ? strchr(units, value[n - 1]) : NULL;
	unsigned shift = unit ? 10 * (1 + (unsigned)(unit - units) / 2) : 0;

	n -= unit != NULL;
	if (n < sizeof digits) {
		memcpy(digits, value, n);
		if (!endpoint_number(digits, 0, most >> shift, octets) && (*octets <<= shift) >= least)
			return NULL;
	}
	snprintf(want, sizeof want, "takes octets from %llu to %llu, also in K, M or G", (unsigned long long)least,
	    (unsigned long long)most);
	return want;
}

static const char *set_small_octets(uint32_t *octets, const char *value, uint32_t least, uint32_t most)
{
	uint64_t n = 0;
	const char *want = set_octets(&n, value, least, most);

	*octets = (uint32_t)n;
	return want;
}

/* Seconds in a unit of time; 0: it is none. */
static int64_t seconds_in(char unit)
{
	return unit == 's' ? 1 : unit == 'm' ? 60 : unit == 'h' ? 3600 : unit == 'd' ? 86400 : 0;
}

static const char *set_seconds(int64_t *seconds, const char *value, int64_t least, int64_t most)
{
	static char want[64];
	const int64_t longest = INT64_C(99999999) * SECOND;
	int64_t us = 0, unit = SECOND;
	size_t digits = strspn(value, "0123456789");
	const char *c = value;

	if (digits && digits < 9) {
		for (; c < value + digits; c++)
			us = us * 10 + (*c - '0') * SECOND;
		for (c += *c == '.'; *c >= '0' && *c <= '9'; c++)
			us += (*c - '0') * (unit /= 10);
		if (seconds_in(*c))
			us *= seconds_in(*c++);
	}
	*seconds = us;
	if (c != value && !*c && us >= least && us <= (most ? most : longest))
		return NULL;
	if (!most)
		return "takes seconds, such as 300 or 0.5, or a time such as 30s, 5m, 2h or 1d";
	snprintf(want, sizeof want, "takes seconds from %g to %g", (double)least / SECOND, (double)most / SECOND);
	return want;
}

static const char *set_kept(struct options *o, const char *value)
{
	size_t digits = strspn(value, "0123456789");

	o->max_kept = o->max_kept_percent = 0;
	if (!digits || strcmp(value + digits, "%") != 0)
		return set_octets(&o->max_kept, value, 0, INT64_MAX) ? "takes octets such as 100M, or percent of the memory such as 25%" : NULL;
	for (; *value != '%' && o->max_kept_percent <= 100; value++)
		o->max_kept_percent = o->max_kept_percent * 10 + (uint32_t)(*value - '0');
	return o->max_kept_percent && o->max_kept_percent <= 100 ? NULL : "takes octets such as 100M, or percent of the memory from 1% to 100%";
}

static const char *set_text(const char **text, const char *value)
{
	*text = value;
	return *value ? NULL : "must not be empty";
}

static const char *set_switch(bool *on, const char *value)
{
	bool off = value && (strcmp(value, "0") == 0 || strcmp(value, "no") == 0 || strcmp(value, "false") == 0);

	*on = !off;
	if (value && !off && strcmp(value, "1") != 0 && strcmp(value, "yes") != 0 && strcmp(value, "true") != 0)
		return "takes yes or no, or no value at all";
	return NULL;
}

/* Which of "a, b or c" the value is, from 0 on. */
static const char *set_choice(unsigned *choice, const char *value, const char *words)
{
	static char want[80];
	const char *at = words;
	size_t n = strlen(value), len;

	for (*choice = 0; *at; ++*choice) {
		len = strcspn(at, ", ");
		if (len == n && memcmp(at, value, n) == 0)
			return NULL;
		at += len + strspn(at + len, ", ");
		at += strncmp(at, "or ", 3) == 0 ? 3 : 0;
	}
	*choice = 0;
	snprintf(want, sizeof want, "takes %s", words);
	return want;
}

/* localhost is two addresses, of which a host without IPv6 has one. */
static const char *add_listen(struct options *o, const char *value)
{
	char host[256], text[sizeof host + 8];
	uint16_t port;
	bool both, valid;

	snprintf(text, sizeof text, "%s%s", *value == ':' ? "*" : "", value);
	valid = endpoint_split(text, host, sizeof host, 0, &port);
	both = valid && strcmp(host, "localhost") == 0;
	if (o->listens + both >= OPTIONS_LISTEN_MAX)
		return TOO_MANY(OPTIONS_LISTEN_MAX);
	if (both)
		net_parse("127.0.0.1", port, &o->listen[o->listens++]);
	if (!valid || !net_parse(both ? "::1" : strcmp(host, "*") == 0 ? "::" : host, port, &o->listen[o->listens]))
		return "takes ADDRESS:PORT, such as 127.0.0.1:2525, [::1]:2525 or localhost:2525, or *:2525 or :2525 for all addresses";
	o->may_lack |= (unsigned)both << o->listens++;
	return NULL;
}

static const char *add_upstream(struct options *o, const char *value)
{
	const char *want;

	if (o->upstreams == OPTIONS_UPSTREAM_MAX)
		return TOO_MANY(OPTIONS_UPSTREAM_MAX);
	want = endpoint_upstream(&o->upstream[o->upstreams], value);
	o->upstreams += !want;
	return want;
}

static const char *add_source(struct options *o, const char *value)
{
	union net_address a, *source;

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

static const char *add_proxy(struct options *o, const char *value)
{
	if (o->proxies == OPTIONS_PROXY_MAX)
		return TOO_MANY(OPTIONS_PROXY_MAX);
	return net_block_parse(value, &o->proxy[o->proxies++]) ? NULL : "takes ADDRESS/BITS, such as 10.0.0.0/8 or ::1";
}

/* Large values, apart from what all sessions read. */
static struct {
	struct net_block allow[OPTIONS_ALLOW_MAX];
	struct tls_inspect inspect[OPTIONS_INSPECT_MAX];
	struct net_block exempt[OPTIONS_EXEMPT_MAX];
	struct socketmap policy_map;
	char policy_file[256];
	struct dnsbl dnsbl[OPTIONS_DNSBL_MAX];
	struct ere valid_recipients;
	char reply_rules[OPTIONS_FILES_MAX][256], cert[OPTIONS_FILES_MAX][256], key[OPTIONS_FILES_MAX][256];
} large;

static const char *add_allow(struct options *o, const char *value)
{
	if (o->allows == OPTIONS_ALLOW_MAX)
		return TOO_MANY(OPTIONS_ALLOW_MAX);
	if (!net_block_parse(value, &large.allow[o->allows]))
		return "takes ADDRESS/BITS, such as 10.0.0.0/8 or 2001:db8::/32, with no bit set behind the prefix";
	o->allow = large.allow;
	o->allows++;
	return NULL;
}

static const char *add_dnsbl(struct options *o, const char *value)
{
	const char *want;

	if (o->dnsbls == OPTIONS_DNSBL_MAX)
		return TOO_MANY(OPTIONS_DNSBL_MAX);
	want = dnsbl_parse(&large.dnsbl[o->dnsbls], value);
	o->dnsbl = large.dnsbl;
	o->dnsbls += !want;
	return want;
}

static const char *add_inspect(struct options *o, const char *value)
{
	struct tls_inspect *one = &large.inspect[o->inspects];

	if (o->inspects == OPTIONS_INSPECT_MAX)
		return TOO_MANY(OPTIONS_INSPECT_MAX);
	one->server = strncmp(value, "to:", 3) == 0;
	if (!net_block_parse(value + (one->server ? 3 : 0), &one->block))
		return "takes ADDRESS/BITS of clients, such as 10.0.0.0/8, or to:ADDRESS/BITS of servers";
	o->inspect = large.inspect;
	o->inspects++;
	return NULL;
}

static const char *add_exempt(struct options *o, const char *value)
{
	if (o->dane_exempts == OPTIONS_EXEMPT_MAX)
		return TOO_MANY(OPTIONS_EXEMPT_MAX);
	o->dane_exempt = large.exempt;
	return net_block_parse(value, &large.exempt[o->dane_exempts++]) ? NULL : "takes ADDRESS/BITS, such as 192.0.2.0/24";
}

/* A file, a map, or one of each. Of Postfix's other types of tables, such as hash:, there is none. */
static const char *add_policy(struct options *o, const char *value)
{
	static const char map[] = "socketmap:";

	if (strncmp(value, map, sizeof map - 1) != 0 && o->policy_file)
		return "is given twice with a file";
	if (strncmp(value, map, sizeof map - 1) != 0) {
		if (!*value || strlen(value) >= sizeof large.policy_file || value[strcspn(value, "/:")] == ':')
			return OPTIONS_POLICY_WORDS;
		o->policy_file = strcpy(large.policy_file, value);
		return NULL;
	}
	if (o->policy_map)
		return "is given twice with a map";
	o->policy_map = &large.policy_map;
	return socketmap_parse(&large.policy_map, value + sizeof map - 1);
}

static const char *add_dns_server(struct options *o, const char *value)
{
	char host[NET_TEXT];
	uint16_t port;

	if (o->dns.count == DNS_SERVERS)
		return TOO_MANY(DNS_SERVERS);
	if (!endpoint_split(value, host, sizeof host, 53, &port) || !net_parse(host, port, &o->dns.server[o->dns.count]))
		return "takes ADDRESS, ADDRESS:PORT or [IPv6]:PORT";
	o->dns.count++;
	return NULL;
}

static const char *add_file(char (*room)[256], const char (**files)[256], unsigned *count, const char *value)
{
	if (*count == OPTIONS_FILES_MAX)
		return TOO_MANY(OPTIONS_FILES_MAX);
	if (!*value || strlen(value) >= sizeof *room)
		return "takes the path of a file, 255 octets at most";
	strcpy(room[(*count)++], value);
	*files = (const char(*)[256])room;
	return NULL;
}

static const char *set_valid_recipients(struct options *o, const char *value)
{
	o->valid_recipients = &large.valid_recipients;
	return *value ? ere_compile(&large.valid_recipients, value) : "must not be empty";
}

static const char *set_warp_ip(struct options *o, const char *value)
{
	union net_address a;

	o->warp_ip = value;
	return net_parse(value, 1, &a) ? NULL : "takes an IP address";
}

static const char *set_hooks(struct options *o, const char *value)
{
	o->hooks_given = strcmp(value, OPTIONS_HOOKS) != 0;
	return set_text(&o->hooks, value);
}

/* Characters that may begin the extension of an address; without any, addresses have no extensions. */
static const char *set_delimiter(struct options *o, const char *value)
{
	o->recipient_delimiter = value;
	return value[strspn(value, "!#$%&'*+-./=?^_`{|}~")] ? "takes one or more characters such as +-" : NULL;
}

static const char *set_override(struct options *o, const char *value)
{
	char line[300];
	struct smtp_command cmd;
	int n = snprintf(line, sizeof line, "RCPT TO:<%s>", value);

	if ((size_t)n >= sizeof line)
		return "takes an address that is not so long";
	smtp_parse((const unsigned char *)line, (size_t)n, &cmd);
	if (cmd.refusal || cmd.address_len != strlen(value) || !strchr(value, '@'))
		return "takes an address, such as test@example.com";
	return set_text(&o->override_recipient, value);
}

static const char *set_log(struct options *o, const char *value)
{
	const char *path;

	return sink_parse(value, &path) != SINK_UNKNOWN ? set_text(&o->log, value) : "takes " SINK_WORDS;
}

static const char *add_one(struct options *o, enum kind kind, const char *value)
{
	switch (kind) {
	case LISTEN:
		return add_listen(o, value);
	case UPSTREAM:
		return add_upstream(o, value);
	case SOURCE:
		return add_source(o, value);
	case PROXY:
		return add_proxy(o, value);
	case POLICY:
		return add_policy(o, value);
	case EXEMPT:
		return add_exempt(o, value);
	case INSPECT:
		return add_inspect(o, value);
	case ALLOW:
		return add_allow(o, value);
	case DNSBL:
		return add_dnsbl(o, value);
	case DNS_SERVER:
		return add_dns_server(o, value);
	case RULES:
		return add_file(large.reply_rules, &o->reply_rules, &o->reply_rules_count, value);
	case CERTS:
		return add_file(large.cert, &o->cert, &o->certs, value);
	case KEYS:
		return add_file(large.key, &o->key, &o->keys, value);
	default:
		return NULL;
	}
}

static const char *apply_own(struct options *o, enum kind kind, const char *value)
{
	switch (kind) {
	case WARP_IP:
		return set_warp_ip(o, value);
	case HOOKS:
		return set_hooks(o, value);
	case DELIMITER:
		return set_delimiter(o, value);
	case HOSTNAME:
		return endpoint_is_host(value) ? set_text(&o->hostname, value) : "takes a host name";
	case LOG:
		return set_log(o, value);
	case TLSRPT:
		if (value[0] != '/' || strlen(value) >= NET_PATH_MAX)
			return "takes the path of a socket, /PATH, 107 octets at most";
		return set_text(&o->tlsrpt, value);
	case KEPT:
		return set_kept(o, value);
	case RECIPIENTS:
		return set_valid_recipients(o, value);
	case OVERRIDE:
		return set_override(o, value);
	default:
		return NULL;
	}
}

static const char *apply_row(struct options *o, const struct row *row, const char *value)
{
	void *member = (char *)o + row->offset;
	unsigned choice;
	const char *want;

	switch ((enum kind)row->kind) {
	case SWITCH:
		return set_switch(member, value);
	case TEXT:
		return set_text(member, value);
	case NUMBER:
		return set_number(member, value, row->least, row->most);
	case OCTETS:
		return set_small_octets(member, value, row->least, row->most);
	case SIZE:
		return set_octets(member, value, 0, INT64_MAX);
	case SECONDS:
		return set_seconds(member, value, row->least, row->most);
	case EITHER:
		want = set_choice(&choice, value, text_of(row, WORDS));
		*(bool *)member = choice == 1;
		return want;
	case CHOICE:
		return set_choice(member, value, text_of(row, WORDS));
	case CHOICE_OR_NONE:
		want = set_choice(member, value, text_of(row, WORDS));
		*(unsigned *)member += !want;
		return want;
	default:
		return row->kind < LISTS ? add_one(o, (enum kind)row->kind, value) : apply_own(o, (enum kind)row->kind, value);
	}
}

/* ---- the environment ---- */

static const struct row *find_row(const char *name, size_t n)
{
	for (size_t i = 0; i < N_ROWS; i++)
		if (strlen(rows[i].name) == n && memcmp(rows[i].name, name, n) == 0)
			return &rows[i];
	return NULL;
}

/* A variable may hold several values of an option that may be given several times. Each is made a string for a moment. */
static const char *apply_row_list(struct options *o, const struct row *row, char *values)
{
	static const char separators[] = ", \t";
	const char *want = NULL;

	while (*values && !want) {
		size_t n = strcspn(values, separators);
		char end = values[n];

		values[n] = 0;
		if (n) /* options keep no pointers to such values */
			want = apply_row(o, row, values);
		values[n] = end;
		values += n + (end != 0);
	}
	return want;
}

static void variable_name(const char *option, char *name, size_t cap)
{
	snprintf(name, cap, "SMTPWARP_%s", option);
	for (char *c = name; *c; c++)
		*c = (char)(*c == '-' ? '_' : *c >= 'a' && *c <= 'z' ? *c - 32 : *c);
}

/* A misspelt variable must not leave a policy unset, so unknown ones are refused. Those that Kubernetes sets for a service
 * called smtpwarp are not options: SMTPWARP_SERVICE_HOST, SMTPWARP_PORT_25_TCP, SMTPWARP_PORT=tcp://... */
static bool is_cluster_variable(const char *variable)
{
	const char *value = strchr(variable, '=');

	variable += strlen("SMTPWARP_");
	return strncmp(variable, "SERVICE_", 8) == 0 || strncmp(variable, "PORT_", 5) == 0 ||
	    (value && strncmp(variable, "PORT=", 5) == 0 && strstr(value, "://"));
}

static const char *unknown_variable(char **environment)
{
	char name[64];

	for (char **v = environment; *v; v++) {
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

/* The variable's value, "" if it is not set. */
static char *value_of(char **environment, const char *name)
{
	static char none[1];
	size_t n = strlen(name);

	for (char **v = environment; *v; v++)
		if (strncmp(*v, name, n) == 0 && (*v)[n] == '=')
			return *v + n + 1;
	return none;
}

#define NAME_MAX_LENGTH 24u /* of an option */

static unsigned least_of(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* How many characters are missing, too many, wrong, or swapped with the next, from a to b. */
static unsigned typing_errors(const char *a, size_t a_len, const char *b, size_t b_len)
{
	unsigned cost[NAME_MAX_LENGTH + 4][NAME_MAX_LENGTH + 1];

	for (unsigned i = 0; i <= a_len; i++)
		for (unsigned k = 0; k <= b_len; k++) {
			if (!i || !k) {
				cost[i][k] = i + k;
				continue;
			}
			cost[i][k] = least_of(least_of(cost[i - 1][k], cost[i][k - 1]) + 1, cost[i - 1][k - 1] + (a[i - 1] != b[k - 1]));
			if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1])
				cost[i][k] = least_of(cost[i][k], cost[i - 2][k - 2] + 1);
		}
	return cost[a_len][b_len];
}

/* The row whose name looks most like this one; NULL: none does, with at most a third of its characters wrong. */
static const struct row *similar_row(const char *name, size_t n)
{
	const struct row *found = NULL;
	unsigned least = (unsigned)n / 3 + 1;

	for (size_t i = 0; i < N_ROWS && n < NAME_MAX_LENGTH + 4; i++) {
		unsigned errors = typing_errors(name, n, rows[i].name, strlen(rows[i].name));

		if (errors < least) {
			least = errors;
			found = &rows[i];
		}
	}
	return found;
}

/* Say that there is no such option or variable, and which may be meant. name: its n characters, and perhaps "=" and a value. */
static void explain_unknown(char *why, size_t cap, const char *what, const char *name, size_t n, bool variable)
{
	size_t start = variable ? strlen("SMTPWARP_") : strspn(name, "-"), len = strcspn(name + start, "=");
	char option[NAME_MAX_LENGTH + 4] = "", meant[64];
	const struct row *row;

	for (size_t i = 0; i < len && len < sizeof option; i++) {
		char c = name[start + i];

		option[i] = (char)(c == '_' ? '-' : c >= 'A' && c <= 'Z' ? c + 32 : c);
	}
	row = start ? similar_row(option, len) : NULL;
	if (!row) {
		snprintf(why, cap, "unknown %s %.*s; see --help", what, (int)n, name);
		return;
	}
	if (variable)
		variable_name(row->name, meant, sizeof meant);
	else
		snprintf(meant, sizeof meant, "--%s", row->name);
	snprintf(why, cap, "unknown %s %.*s: did you mean %s? See --help", what, (int)n, name, meant);
}

static bool read_environment(struct options *o, char **environment, const bool *given, char *why, size_t cap)
{
	char name[64];
	const char *unknown = unknown_variable(environment);

	if (unknown) {
		explain_unknown(why, cap, "variable", unknown, strcspn(unknown, "="), true);
		return false;
	}
	for (size_t i = 0; i < N_ROWS; i++) {
		const char *want;
		char *value;

		variable_name(rows[i].name, name, sizeof name);
		value = value_of(environment, name);
		if (!*value || given[i])
			continue;
		if (strcmp(rows[i].name, "port") == 0 && strstr(value, "://")) /* see is_cluster_variable() */
			continue;
		want = rows[i].kind < LISTS ? apply_row_list(o, &rows[i], value) : apply_row(o, &rows[i], value);
		if (want) {
			snprintf(why, cap, "%s=%s: it %s", name, value, want);
			return false;
		}
	}
	return true;
}

/* ---- the command line ---- */

/* The option at argv[*i]; NULL: it is none. *value: what is given to it, which may be the next argument, or NULL; *i moves to the last
 * argument that belongs to it. */
static const struct row *take_argument(char **argv, int *i, const char **value)
{
	const char *name = argv[*i];
	bool dash = *name == '-';
	const struct row *row;
	size_t n;

	name += dash;
	name += dash && *name == '-';
	n = strcspn(name, "=");
	row = dash ? find_row(name, n) : NULL;
	if (row)
		*value = name[n] == '=' ? name + n + 1 : *text_of(row, VALUE) ? argv[++*i] : NULL;
	return row;
}

/* Only --try-hook, which stands before them, has arguments without a name. */
static bool take_operand(struct options *o, const char *argument)
{
	unsigned n = 0;

	while (n < OPTIONS_OPERANDS && o->operand[n])
		n++;
	if (!o->try_hook || n == OPTIONS_OPERANDS || !*argument || *argument == '-')
		return false;
	o->operand[n] = argument;
	return true;
}

static bool read_argument(struct options *o, char **argv, int *i, bool *given, char *why, size_t cap)
{
	const char *value, *want;
	const struct row *row = take_argument(argv, i, &value);

	if (!row && take_operand(o, argv[*i]))
		return true;
	if (!row) {
		explain_unknown(why, cap, "option", argv[*i], strlen(argv[*i]), false);
		return false;
	}
	given[row - rows] = true;
	if (*text_of(row, VALUE) && !value) {
		snprintf(why, cap, "--%s: a value is missing (%s)", row->name, text_of(row, VALUE));
		return false;
	}
	want = apply_row(o, row, value);
	if (want)
		snprintf(why, cap, "--%s %s: it %s", row->name, value ? value : "", want);
	return !want;
}

static bool is_option(const char *argument, const char *word)
{
	return argument[0] == '-' && strcmp(argument + (argument[1] == '-' ? 2 : 1), word) == 0;
}

static void set_standards(struct options *o)
{
	memset(o, 0, sizeof *o);
	for (size_t i = 0; i < N_ROWS; i++) {
		const char *standard = text_of(&rows[i], STANDARD);

		if (*standard && rows[i].kind != WARP_IP) /* it means something only with --port */
			apply_row(o, &rows[i], standard);
	}
}

static bool add_warp_listen(struct options *o, char *why, size_t cap)
{
	if (o->warp_ip && !o->warp_port) {
		snprintf(why, cap, "--ip needs --port");
		return false;
	}
	if (!o->warp_port)
		return true;
	if (o->listens == OPTIONS_LISTEN_MAX) {
		snprintf(why, cap, "--port: there are " TEXT_OF(OPTIONS_LISTEN_MAX) " addresses to listen on already");
		return false;
	}
	net_parse(o->warp_ip ? o->warp_ip : "127.0.0.1", (uint16_t)o->warp_port, &o->listen[o->listens++]);
	return true;
}

enum options_word options_read(struct options *o, int argc, char **argv, char **environment, char *why, size_t why_cap)
{
	bool given[N_ROWS] = { false }, good = true;

	set_standards(o);
	for (int i = 1; i < argc && good; i++) {
		if (is_option(argv[i], "help") || is_option(argv[i], "h"))
			return OPTIONS_HELP;
		if (is_option(argv[i], "version"))
			return OPTIONS_VERSION;
		good = read_argument(o, argv, &i, given, why, why_cap);
	}
	if (!good || !read_environment(o, environment, given, why, why_cap) || !add_warp_listen(o, why, why_cap))
		return OPTIONS_BAD;
	if (o->routes)
		o->limits.on_recipient = true;
	if (o->tls == TLS_DANE || o->tls == TLS_DANE_ONLY || o->policy_file || o->policy_map)
		o->tls_on_recipient = true;
	o->limits.mail_late = o->limits.on_recipient || o->tls_on_recipient;
	o->tls_on_recipient = o->tls_on_recipient && !o->limits.on_recipient; /* the connection begins later still */
	if (o->cert && o->client_tls == CLIENT_TLS_NONE)
		o->client_tls = CLIENT_TLS_MAY;
	o->limits.require_tls = o->client_tls == CLIENT_TLS_REQUIRE;
	return OPTIONS_GOOD;
}

static void tell(const struct row *row, const char *value, void (*take)(void *arg, const char *text), void *arg)
{
	const char *standard = text_of(row, STANDARD);
	char text[1024];

	if (*standard && value && strcmp(value, standard) == 0)
		return;
	snprintf(text, sizeof text, "--%s%s%s", row->name, value ? " " : "", value ? value : "");
	take(arg, text);
}

void options_given(int argc, char **argv, char **environment, void (*take)(void *arg, const char *text), void *arg)
{
	bool given[N_ROWS] = { false };
	const char *value;
	char name[64];

	for (int i = 1; i < argc; i++) {
		const struct row *row = take_argument(argv, &i, &value);

		if (!row)
			continue;
		given[row - rows] = true;
		tell(row, value, take, arg);
	}
	for (size_t i = 0; i < N_ROWS; i++) {
		variable_name(rows[i].name, name, sizeof name);
		value = value_of(environment, name);
		if (*value && !given[i])
			tell(&rows[i], value, take, arg);
	}
}

size_t options_help(char text[OPTIONS_HELP_MAX])
{
	size_t n = (size_t)snprintf(text, OPTIONS_HELP_MAX, "usage: smtpwarp [OPTION]...\n"
	    "Transparent SMTP proxy. Started by inetd or systemd it serves the socket it was given; with --listen it\n"
	    "accepts connections itself. Redirect connections to port 25 to it; see smtpwarp(8).\n");

	for (size_t i = 0, group = 0; i < N_ROWS; i++) {
		const struct row *row = &rows[i];
		const char *standard = text_of(row, STANDARD);
		char left[48];

		if (group < sizeof groups / sizeof *groups && strcmp(row->name, groups[group].first) == 0)
			n += (size_t)snprintf(text + n, OPTIONS_HELP_MAX - n, "\n%s:\n", groups[group++].title);
		snprintf(left, sizeof left, "--%.24s %.20s", row->name, text_of(row, VALUE));
		n += (size_t)snprintf(text + n, OPTIONS_HELP_MAX - n, *standard ? "  %-31s %s (%s)\n" : "  %-31s %s\n", left,
		    text_of(row, HELP), standard);
	}
	n += (size_t)snprintf(text + n, OPTIONS_HELP_MAX - n,
	    "  --help, -h                      show this help and exit\n"
	    "  --version                       show the version and exit\n"
	    "\nTimes (S) are in seconds, such as 300 or 0.5, or as in 30s, 5m, 2h or 1d; 0 is no limit, but with\n"
	    "--drain-timeout and --idle-exit at once. Octets may be written as in 512K, 10M or 1G, in units of 1024.\n"
	    "Each option is also a variable: --max-errors is SMTPWARP_MAX_ERRORS. The command line wins.\n");
	return n;
}

const char *options_open_relay(const struct options *o, bool rcpt_hook, const union net_address *local)
{
	bool passes = o->client_tls == CLIENT_TLS_PASSTHROUGH || o->client_tls == CLIENT_TLS_AUTO;
	bool sees_recipients = !passes && (o->valid_recipients || rcpt_hook);
	bool guarded = (!o->upstreams && !o->routes) || o->allows || sees_recipients;

	if (guarded || local->sa.sa_family == AF_UNSPEC || net_is_loopback(local))
		return NULL;
	return "--upstream or --routes beyond loopback: anybody who reaches it could relay. Say who may "
	       "(--allow-clients), to whom (--valid-recipients), or have a rcpt hook decide";
}
