/* What a session stands on, in memory: sockets, clock, TLS, DNS, hooks, the log. Link-time fakes of clock.c, tls.c, hooks.c, and of
 * io/net.c, lookup.c, dns.c and log.c; of the system's calls only those that move octets or wait. fake_session.h drives it.
 */
#ifndef FAKE_WORLD_H
#define FAKE_WORLD_H

#include "hooks.h"
#include "io/dane.h"
#include "io/policyfile.h"
#include "io/socketmap.h"
#include "io/tlsrpt.h"
#include "pure/dnsmessage.h"
#include "tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- sockets ---- */

#define WORLD_IN (1u << 20)
#define WORLD_OUT (4u << 20)
#define WORLD_FOREVER SIZE_MAX

/* Our end of a connection, as the peer sees it. */
struct world_socket {
	int fd;		/* -1: closed, or there was none */
	bool eof;	/* the peer says no more */
	bool shut;	/* we say no more */
	int error;	/* what the next call fails with; 0: it does not */
	size_t room;	/* octets that it still takes; WORLD_FOREVER: all */
	size_t in_at, in_len, out_len;
	unsigned char in[WORLD_IN];   /* what the peer said */
	unsigned char out[WORLD_OUT]; /* what it was told and the test has not looked at */
};
extern struct world_socket world_client, world_server;

/* The peer says n octets. */
void world_says(struct world_socket *k, const void *bytes, size_t n);

/* ---- the clock, and waiting ---- */

extern int64_t world_now; /* microseconds; CLOCK_BOOTTIME of --state as well */

/* How ppoll(2) waits when nothing is there: it returns at once and sets world_idle, or the clock goes on by what it may wait. */
enum world_waiting { WORLD_STEPS, WORLD_WAITS };
extern enum world_waiting world_waiting;
extern bool world_idle;

/* ---- the network ---- */

struct world_net {
	union net_address local, peer;	/* of the client's socket */
	union net_address original;	/* where it meant to go; AF_UNSPEC: to us */
	bool tproxy;			/* by TPROXY, else by REDIRECT */
	bool caught;			/* the client is an smtpwarp */
	union net_address dialled;	/* the last attempt */
	union net_address source;	/* what it was to come from */
	bool transparent;
	const char *dialled_path;
	const char *fails_at;		/* the step at which attempts fail; NULL: none does */
	int fails_with;			/* errno of it */
	int outcome;			/* net_connected() */
	bool decided;			/* the attempt has an outcome */
	unsigned attempts;		/* that were begun */
	bool no_place;			/* the tarpit is full */
	uint64_t kept_by_others;	/* octets of --max-kept that other sessions have */
	int no_shares;			/* errno: neither can be counted */
};
extern struct world_net world_net;

/* ---- names ---- */

/* The addresses of a name, separated by blanks; "": there are none, and why. A name that was given none is still looked up. */
void world_name(const char *name, const char *addresses);

/* An answer of the DNS: an address, texts, a line each, or for MX names, separated by blanks. NULL: there is none; failure: static storage, or NULL. A question without an answer stays
 * open until its patience is over. */
void world_dns(const char *name, enum dns_type type, const char *answer, const char *failure);

/* How many questions the DNS was asked. */
extern unsigned world_questions;

/* Something was asked that has its answer already: it comes with the next turn. */
extern bool world_answers;

/* ---- TLS policies ---- */

extern struct world_policy {
	const struct dane_answer *dane; /* what dane_turn() answers; NULL: nothing yet */
	unsigned late;			/* so often it has not come yet */
	const char *map;		/* what the map says; NULL: nothing yet */
	enum socketmap_result map_result;
	const char *file_domain, *file; /* the only policy of the file; NULL: there is none */
	unsigned dane_asked, dane_ended, map_asked, map_stopped;
	char asked[300]; /* what was asked for last */
} world_policy;

/* ---- reports of TLS ---- */

extern struct world_report {
	unsigned sent; /* tries */
	int fails;     /* errno of them; 0: they do not fail */
	char text[TLSRPT_MAX]; /* the last one, without its line's end */
	size_t len;
} world_report;

/* ---- TLS ---- */

struct tls {
	bool server; /* towards the server */
	bool begun, done, closed, otherwise;
	bool resumes; /* a session, until the handshake is done */
	const char *failure, *cannot, *asked_name; /* cannot: why no handshake begins */
	char name[256];	      /* that the server's certificate must have */
	enum tls_level level;
	const struct dane_set *tlsa;
	struct tls_facts facts;
	enum tls_fault fault;
	size_t in_at, in_len, out_at, out_len;
	unsigned char in[1 << 15], out[1 << 15];
};
extern struct tls world_tls_client, world_tls_server;

/* ---- hooks ---- */

/* The hook that runs; NULL: none does. The line that it was told, and its message (lseek(2) at its begin); -1: none. */
extern struct hook_run *world_hook;
extern char world_hook_line[1 << 16];

/* It ends: with this verdict, and a message behind it (NULL: none); or it fails. */
void world_hook_says(const char *verdict, const char *message);
void world_hook_fails(const char *why);

/* ---- the log ---- */

extern bool world_detailed; /* --verbose */

/* Records so far, a line each; the test may move the beginning. */
extern char world_log[4 << 20];
extern size_t world_log_len;

#endif
