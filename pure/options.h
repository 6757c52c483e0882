/* What the operator wants: the command line and the environment. main checks whether the files and users that they name exist.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "pure/dialogue.h"
#include "pure/dnsbl.h"
#include "pure/endpoint.h"
#include "pure/ere.h"
#include "pure/levels.h"
#include "pure/socketmap.h"

#include <stdbool.h>
#include <stdint.h>

#define OPTIONS_LISTEN_MAX 8
#define OPTIONS_UPSTREAM_MAX 16
#define OPTIONS_PROXY_MAX 16
#define OPTIONS_ALLOW_MAX 64
#define OPTIONS_INSPECT_MAX 64
#define OPTIONS_EXEMPT_MAX 64
#define OPTIONS_DNSBL_MAX 16
#define OPTIONS_OPERANDS 2 /* of --try-hook */
#define OPTIONS_FILES_MAX 8 /* of a kind */
#define OPTIONS_HOOKS "/etc/smtpwarp/hooks"
#ifndef OPTIONS_PROVIDERS
#define OPTIONS_PROVIDERS "/usr/share/smtpwarp/providers"
#endif
#define OPTIONS_POLICY_WORDS "takes the path of a text file, 255 octets at most, with no type such as hash: before it, or " SOCKETMAP_WORDS
#define OPTIONS_CA_FILE "/etc/ssl/certs/ca-certificates.crt"

/* Times are in microseconds. */
struct timeouts {
	int64_t connect, tls, banner, mail, rcpt, data, block, dot, command, idle, session, drain, idle_exit, hook, proxy;
};

/* Sessions of clients, or to servers, at these addresses. */
struct tls_inspect {
	bool server;
	struct net_block block;
};

struct options {
	union net_address listen[OPTIONS_LISTEN_MAX];
	unsigned listens;
	unsigned may_lack; /* bits: addresses of listen that a host without IPv6 has not */
	const char *warp_ip; /* --ip and --port, as Warp has them: one more address to listen on */
	uint32_t warp_port;  /* 0: not given */
	const char *user;
	uint32_t max_sessions, max_sessions_per_source; /* max_sessions_per_source: 0 is no limit */
	struct upstream upstream[OPTIONS_UPSTREAM_MAX];
	unsigned upstreams;
	struct net_outbound outbound;
	bool outbound_client; /* --outbound-ip client */
	enum tls_level tls;
	bool tls_on_recipient; /* --tls-on recipient */
	int64_t plain_after;   /* 0: at once */
	const char *tls_ca;
	const char *tls_name;
	const char *policy_file;	/* NULL: none */
	const struct socketmap *policy_map; /* NULL: none */
	const struct net_block *dane_exempt;
	unsigned dane_exempts;
	const char *tlsrpt;		/* path of a socket; NULL: no reports */
	const char *tls_cert, *tls_key; /* to show to upstreams; as cert and key */
	const char *upstream_auth;	/* file; NULL: none */
	const char (*cert)[256], (*key)[256]; /* files of pairs to show to clients; NULL: none. key NULL: each key is in the file of cert */
	unsigned certs, keys;
	enum client_tls client_tls;
	const struct tls_inspect *inspect; /* --tls-inspect: with --client-tls auto, whose STARTTLS is not passed on */
	unsigned inspects;
	const char *log; /* NULL: standard error or syslog */
	bool verbose;
	struct dialogue_limits limits;
	uint32_t max_errors;
	bool plain_auth, auth;
	uint32_t min_rate; /* octets a second */
	struct timeouts timeouts;
	const char *hooks; /* directory */
	bool hooks_given;  /* not the default, which may be missing */
	const char *plugins, *plugins_dir;
	bool hook_failure_accepts;
	const char *hostname; /* NULL: the host's name */
	const char *routes;   /* file; NULL: none */
	const char *state, *providers;
	const char (*reply_rules)[256]; /* files */
	unsigned reply_rules_count;
	const char *recipient_delimiter; /* any of these characters; NULL or "": none */
	const char *compile_routes;
	struct net_block proxy[OPTIONS_PROXY_MAX]; /* --accept-proxy */
	unsigned proxies;
	unsigned send_proxy; /* version of the PROXY header, 0: none */
	bool xclient, xforward, received;
	bool no_client_names; /* --client-names none */
	bool no_mx_names;     /* --mx-names none */
	const struct net_block *allow; /* accept connections from these only; none: from everybody */
	unsigned allows;
	int64_t greet_delay, dnsbl_timeout, tarpit; /* greet_delay and tarpit: 0 is none */
	const struct dnsbl *dnsbl;
	unsigned dnsbls;
	uint32_t dnsbl_threshold;
	struct dns_servers dns; /* none: those of resolv.conf(5) */
	const struct ere *valid_recipients; /* NULL: all recipients are valid */
	const char *override_recipient;	    /* NULL: recipients stay what they are */
	uint32_t max_tarpits;
	bool no_sandbox;	   /* --sandbox off */
	uint64_t max_kept;	   /* octets, 0: no limit; unless there is */
	uint32_t max_kept_percent; /* of the memory; 0: max_kept says */
	bool check;
	unsigned try_hook; /* 1 + enum hook_event: a hook of this event is to be tried; 0: none */
	const char *operand[OPTIONS_OPERANDS]; /* the hook's path, and the file of a sample; NULL: not given */
	const char *env_file; /* of variables, for --check and --try-hook; NULL: the environment has them */
};

enum options_word { OPTIONS_GOOD, OPTIONS_BAD, OPTIONS_HELP, OPTIONS_VERSION };

/* Read options from argv, and from the environment ("SMTPWARP_SOME_NAME=value") those that argv does not have. OPTIONS_BAD: why
 * names the option and says what it takes. OPTIONS_HELP, OPTIONS_VERSION: that is asked for; *o is not complete. o keeps pointers
 * into argv and the environment, which is written to, but stays as it was. */
enum options_word options_read(struct options *o, int argc, char **argv, char **environment, char *why, size_t why_cap);

/* Give take() each option that was given with another value than its default, as "--name value", cut to 1023 octets. The command line and
 * the environment are those that options_read() has found good. */
void options_given(int argc, char **argv, char **environment, void (*take)(void *arg, const char *text), void *arg);

/* Write what --help shows. Returns octets. */
#define OPTIONS_HELP_MAX 12000
size_t options_help(char text[OPTIONS_HELP_MAX]);

/* Why anybody who reaches this local address could relay mail through --upstream or --routes; NULL: they cannot, for an option or
 * a hook (rcpt_hook: one decides on each recipient) says who may. Static storage. */
const char *options_open_relay(const struct options *o, bool rcpt_hook, const union net_address *local);

#endif
