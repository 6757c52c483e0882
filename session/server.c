/* The server of a session. See server.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "session/server.h"
#include "io/dialer.h"
#include "io/passes.h"
#include "session/identity.h"
#include "session/inspect.h"
#include "session/observe.h"
#include "session/plainafter.h"
#include "session/policy.h"
#include "session/routing.h"
#include "session/serverstate.h"
#include "session/talk.h"
#include "session/tlsreport.h"
#include "session/transaction.h"
#include "session/upstreamauth.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SECOND INT64_C(1000000)
#define LOOKUP_TIME (10 * SECOND) /* for the lookup of a name; --connect-timeout, if that is less */

void server_prepare(struct session *s)
{
	static struct server_texts text;

	s->server.text = &text;
	s->server.claim = -1;
	s->server.connect = s->server.tls = -1;
}

/* ---- where to ---- */

/* Whether a command is held until there is a server, or TLS with it: steps.c answers it. */
static bool is_held(const struct session *s)
{
	return (s->o->limits.on_recipient && s->gate.stage != GATE_LIST) || s->gate.stage == GATE_SECURE || s->gate.stage == GATE_SERVER;
}

static void set_failure(struct session *s, const char *enhanced, const char *reason)
{
	snprintf(s->server.text->failure, sizeof s->server.text->failure, "%s %.100s: %.140s", enhanced, s->server.host, reason);
}

static const union net_address *source_for(const struct net_outbound *out, const union net_address *dest)
{
	return dest->sa.sa_family == AF_INET6 ? &out->source6 : &out->source4;
}

/* The source addresses of options, replaced by those of verdicts. false: verdicts name a source of the other family only, so a connection
 * to this address would not be what they want. */
static bool choose_source(const struct session *s, const union net_address *dest, struct net_outbound *out)
{
	const union net_address *wanted = dest->sa.sa_family == AF_INET6 ? &s->server.route.source6 : &s->server.route.source4;
	bool any = s->server.route.source4.sa.sa_family != AF_UNSPEC || s->server.route.source6.sa.sa_family != AF_UNSPEC;

	*out = s->server.outbound;
	if (!any || dest->sa.sa_family == AF_UNIX) /* a Unix socket has no source address */
		return true;
	out->transparent = false;
	if (wanted->sa.sa_family == AF_UNSPEC)
		return source_for(out, dest)->sa.sa_family != AF_UNSPEC;
	if (wanted->sa.sa_family == AF_INET6)
		out->source6 = *wanted;
	else
		out->source4 = *wanted;
	return true;
}

/* A session that has left the network has it done by the dialer. */
static int connect_to(const struct session *s, const union net_address *dest, const struct net_outbound *out, const char **what)
{
	if (dest->sa.sa_family == AF_UNIX)
		return net_connect_unix(s->server.host, s->o->timeouts.connect);
	if (passes_hold(PASS_NETWORK))
		return net_connect(dest, out, what);
	return dialer_ask(s->client.leg.fd, s->server.next_upstream);
}

/* Begin a connection to this address. false: that is impossible, s->server.text->failure says why. */
static bool dial(struct session *s, const union net_address *dest)
{
	const char *what;
	char reason[160], text[NET_TEXT];
	struct net_outbound out;
	int fd, error;

	s->server.address = *dest;
	s->server.has_facts = false;
	memset(&s->server.facts, 0, sizeof s->server.facts);
	s->server.tls = -1;
	upstreamauth_forget(s);
	dialogue_server_speaks(&s->dialogue, s->server.upstream && s->server.upstream->lmtp);
	s->server.handshake_at = 0;
	if (net_same(dest, &s->client.local) && net_is_local(dest)) { /* with TPROXY our end has the destination's address, which is not local */
		set_failure(s, "4.3.5", "this is the address of smtpwarp itself");
		return false;
	}
	if (!choose_source(s, dest, &out)) {
		set_failure(s, "4.3.5", "the source address is of the other family of addresses");
		return false;
	}
	what = "connect";
	s->server.source.sa.sa_family = AF_UNSPEC;
	fd = connect_to(s, dest, &out, &what);
	error = errno;
	if (fd >= 0) {
		leg_open(&s->server.leg, fd);
		net_local(fd, &s->server.source);
		observe_server(s);
		if (dest->sa.sa_family != AF_UNIX)
			s->server.claim = net_claim(&s->server.source, dest);
		serverstate_enter(s, SERVER_CONNECTING);
		s->server.dialed_at = s->now;
		return true;
	}
	observe_server(s);
	observe_unreachable(s, error);
	errno = error;
	if (errno == EADDRNOTAVAIL && strcmp(what, "source address") == 0)
		snprintf(reason, sizeof reason, "the source address %s is not on this host",
		    net_text(source_for(&out, dest), text));
	else
		snprintf(reason, sizeof reason, "%s: %s%s", what, strerror(errno), errno == EPERM && strncmp(what, "--", 2) == 0 ?
			 ": smtpwarp needs the capability CAP_NET_RAW, see service-transparent.conf" : "");
	set_failure(s, strcmp(what, "connect") == 0 ? "4.4.1" : "4.3.5", reason);
	return false;
}

/* The next server to try: of the route, else of --upstream. NULL: there is none. It may be put into *room. */
static const struct upstream *upstream_to_try(const struct session *s, struct upstream *room)
{
	return routing_server(s, &s->server.route, s->server.next_upstream, room);
}

static bool more_upstreams(const struct session *s)
{
	struct upstream unused;

	return upstream_to_try(s, &unused) != NULL;
}

/* The lookup is over: its addresses become the candidates. */
static void take_addresses(struct session *s)
{
	char reason[160] = "name lookup: ";
	const size_t n = strlen(reason);

	serverstate_enter(s, SERVER_NONE);
	s->server.candidates = lookup_end(s->server.candidate, reason + n, sizeof reason - n);
	if (s->server.candidates)
		return;
	set_failure(s, "4.4.3", reason);
	record_error(s, s->server.text->failure);
}

/* The server's addresses become the candidates, those of a name perhaps only after SERVER_RESOLVING. */
static void find_addresses(struct session *s)
{
	const struct upstream *u = s->server.upstream;
	int64_t patience = s->o->timeouts.connect;

	s->server.candidates = !net_is_name(u->host);
	if (s->server.candidates) {
		if (!net_parse(u->host, u->port, s->server.candidate))
			s->server.candidate[0].sa.sa_family = AF_UNIX; /* server.host is the path */
		return;
	}
	serverstate_enter(s, SERVER_RESOLVING);
	lookup_start(u->host, u->port, &s->o->dns, s->now, patience && patience < LOOKUP_TIME ? patience : LOOKUP_TIME);
	if (lookup_turn(s->now))
		take_addresses(s);
}

/* Whether SERVER_RESOLVING is for the policy that the server has to meet. */
static bool awaits_policy(const struct session *s)
{
	return s->o->limits.on_recipient && (s->policy->stage != POLICY_IDLE || s->policy->news);
}

static bool looks_up(const struct session *s)
{
	return s->server.state == SERVER_RESOLVING && !awaits_policy(s);
}

/* That policy is known. If it refuses the recipient at this server, there are no candidates. */
static void take_policy(struct session *s)
{
	const char *refusal = policy_take(s);

	if (refusal) {
		snprintf(s->server.text->failure, sizeof s->server.text->failure, "%s", refusal + 4);
		if (is_held(s))
			tlsreport_refused(s, refusal);
		return;
	}
	policy_agree(s);
	tlsreport_connects(s);
	find_addresses(s);
}

/* Turn to the next server. false: there is none. */
static bool next_upstream(struct session *s)
{
	unsigned n = s->server.next_upstream;
	bool known = policy_is_about(s, n);

	if (!more_upstreams(s))
		return false;
	s->server.upstream = upstream_to_try(s, &s->server.text->other);
	s->server.next_upstream++;
	snprintf(s->server.host, sizeof s->server.host, "%s", s->server.upstream->host);
	s->server.candidates = s->server.next_candidate = 0;
	s->server.address.sa.sa_family = AF_UNSPEC; /* until one of its addresses is tried */
	if (!known)
		policy_ask_again(s, n);
	if (!known && !s->policy->news)
		serverstate_enter(s, SERVER_RESOLVING);
	else if (!known || (s->o->limits.on_recipient && s->policy->refused))
		take_policy(s);
	else
		find_addresses(s);
	return true;
}

/* Try candidates, and then the next servers, until a connection or a lookup is under way. false: none is. */
static bool dial_next(struct session *s)
{
	do {
		while (s->server.next_candidate < s->server.candidates) {
			if (dial(s, &s->server.candidate[s->server.next_candidate++]))
				return true;
			record_error(s, s->server.text->failure);
		}
	} while (next_upstream(s) && s->server.state != SERVER_RESOLVING);
	return s->server.state == SERVER_RESOLVING;
}

bool server_has_more(const struct session *s)
{
	return s->server.next_candidate < s->server.candidates || more_upstreams(s);
}

void server_refuse(struct session *s, const char *enhanced_and_reason)
{
	char *failure = s->server.text->failure;

	if (is_held(s)) {
		if (enhanced_and_reason != failure)
			snprintf(failure, sizeof s->server.text->failure, "%s", enhanced_and_reason);
		s->server.news = SERVER_OUT;
		return;
	}
	talk_replyf(s, "421 %s", enhanced_and_reason);
	talk_end(s, END_LINGER, END_BY_SMTPWARP, enhanced_and_reason);
}

/* Without --connect-on recipient there will be no other server. */
static void mark_gone(struct session *s)
{
	if (!s->o->limits.on_recipient && s->server.state != SERVER_GONE)
		serverstate_enter(s, SERVER_GONE);
}

static void give_up(struct session *s)
{
	dialogue_forget_server(&s->dialogue);
	s->server.redialing = false;
	mark_gone(s);
	server_refuse(s, s->server.text->failure);
}

static void try_next(struct session *s)
{
	if (!dial_next(s))
		give_up(s);
}

/* Try the next server, which may have TLS where this one had not. But a client that has this one's banner cannot be given to another. */
static void try_other(struct session *s)
{
	if ((s->server.redialing || is_held(s)) && !s->o->limits.on_recipient) {
		give_up(s);
		return;
	}
	s->server.no_tls = s->server.no_ehlo = s->server.redialing = false;
	dialogue_expect(&s->dialogue, SMTP_GREETING, false);
	try_next(s);
}

void server_turn(struct session *s)
{
	bool judged = awaits_policy(s);

	if (s->server.state != SERVER_RESOLVING)
		return;
	if (judged ? !s->policy->news : !lookup_turn(s->now))
		return;
	if (judged) {
		serverstate_enter(s, SERVER_NONE);
		take_policy(s);
	} else {
		take_addresses(s);
	}
	if (s->server.state != SERVER_RESOLVING)
		try_next(s);
}

int64_t server_deadline(const struct session *s)
{
	return looks_up(s) ? lookup_deadline() : INT64_MAX;
}

unsigned server_watch(const struct session *s, struct pollfd *p)
{
	return looks_up(s) ? lookup_watch(p) : 0;
}

/* smtpwarp's own connections must be exempt from the redirect. If they are not, the client of this session is smtpwarp, and connecting to
 * the original destination would go round for ever. */
static bool caught_own(struct session *s)
{
	static const char error[] = "this connection is smtpwarp's own, caught by the redirect: exempt smtpwarp's user "
				    "or --mark in the firewall rule";

	if (!net_is_claimed(&s->client.peer, &s->server.original))
		return false;
	record_error(s, error);
	talk_reply(s, "421 4.3.5 smtpwarp's own connection was redirected to it");
	talk_end(s, END_FLUSH, END_BY_NOBODY, NULL);
	return true;
}

/* Begin with the first server to try, or with the original destination. false: there is neither. */
static bool find_destination(struct session *s)
{
	char text[NET_TEXT];

	s->server.candidates = s->server.next_candidate = s->server.next_upstream = 0;
	s->server.upstream = NULL;
	if (more_upstreams(s))
		return true;
	if (s->server.origin == NET_DIRECT) {
		snprintf(s->server.text->failure, sizeof s->server.text->failure,
		    "4.3.5 No destination: this connection was not redirected here, and there is no --upstream");
		record_error(s, s->server.text->failure);
		return false;
	}
	s->server.candidate[0] = s->server.original;
	s->server.candidates = 1;
	snprintf(s->server.host, sizeof s->server.host, "%s", net_text(&s->server.original, text));
	return true;
}

/* --outbound-ip client: connect from the client's own address, with any port. */
static void use_client_address(struct session *s)
{
	union net_address *source = s->client.address.sa.sa_family == AF_INET6 ? &s->server.outbound.source6 :
									       &s->server.outbound.source4;

	*source = s->client.address;
	if (source->sa.sa_family == AF_INET6)
		source->v6.sin6_port = 0;
	else
		source->v4.sin_port = 0;
	s->server.outbound.transparent = true;
}

bool server_locate(struct session *s)
{
	s->server.outbound = s->o->outbound;
	if (s->o->outbound_client)
		use_client_address(s);
	s->server.route.tls = s->o->tls;
	snprintf(s->server.route.tls_name, sizeof s->server.route.tls_name, "%s", s->o->tls_name ? s->o->tls_name : "");
	s->server.origin = net_original(s->client.leg.fd, &s->client.local, &s->client.peer, &s->server.original);
	/* A client that got a port of ours would run on what connection tracking still holds of ours, past the redirect. */
	s->server.outbound.apart = s->server.origin != NET_DIRECT;
	return s->server.origin == NET_DIRECT || !caught_own(s);
}

void server_assume(struct session *s, const union net_address *address, bool connected)
{
	s->server.original = *address;
	if (connected)
		s->server.address = *address;
}

void server_connect(struct session *s)
{
	if (find_destination(s))
		try_next(s);
	else
		server_refuse(s, s->server.text->failure);
}

void server_take_route(struct session *s, const struct route *r)
{
	s->server.route = *r;
}

void server_open(struct session *s)
{
	if (s->server.state != SERVER_NONE)
		server_leave(s);
	s->server.no_tls = s->server.no_ehlo = s->server.redialing = false;
	dialogue_expect(&s->dialogue, SMTP_GREETING, false);
	tlsreport_connects(s);
	server_connect(s);
}

/* Whether QUIT can be sent at once: the server owes no reply, takes octets, is in the middle of no message (one that is kept it has not
 * begun), was not told QUIT, and has not left. */
static bool may_quit(const struct session *s)
{
	bool between = s->server.state == SERVER_IDLE || s->server.state == SERVER_READY;
	bool sending = s->tx.content == CONTENT_SENDING || s->tx.content == CONTENT_SENDING_CHUNK;
	bool within = sending || (dialogue_in_content(&s->dialogue) && !transaction_is_kept(s));

	return between && !within && !leg_pending(&s->server.leg) && dialogue_awaited(&s->dialogue) == SMTP_NOTHING && !s->server.refused &&
	    !dialogue_quitting(&s->dialogue) && !s->server.leg.eof && !net_has_left(s->server.leg.fd);
}

void server_quit(struct session *s)
{
	if (!may_quit(s))
		return;
	talk_own_command(s, SMTP_QUIT, "QUIT", 4);
	leg_flush(&s->server.leg);
	dialogue_forget_server(&s->dialogue);
}

void server_leave(struct session *s)
{
	server_quit(s);
	server_close(s);
}

/* Close the connection; another may follow. */
static void disconnect(struct session *s)
{
	leg_close(&s->server.leg);
	if (s->server.claim >= 0)
		close(s->server.claim);
	s->server.claim = -1;
	s->server.auth = SERVER_AUTH_NOBODY;
	snprintf(s->server.text->gone, sizeof s->server.text->gone, "421 4.4.2 %s: connection is closed", s->server.host);
	if (s->server.state != SERVER_NONE && s->server.state != SERVER_GONE)
		serverstate_enter(s, SERVER_NONE);
}

void server_close(struct session *s)
{
	if (looks_up(s))
		lookup_stop();
	else if (s->server.state == SERVER_RESOLVING)
		policy_end(s);
	disconnect(s);
	mark_gone(s);
	transaction_unbind(s);
	s->server.refused = false;
}

void server_failed(struct session *s, const char *enhanced, const char *reason)
{
	bool said = s->server.auth == SERVER_AUTH_SAID || (s->o->tls_on_recipient && s->dialogue.authenticated);

	observe_unreachable(s, 0);
	set_failure(s, enhanced, reason);
	record_error(s, s->server.text->failure);
	disconnect(s);
	dialogue_forget_server(&s->dialogue);
	if (said) { /* on no other connection is the client authenticated */
		s->server.news = SERVER_LOST;
	} else if (s->tx.server == TRANSACTION_REUSES) { /* the server may have been tired of the old connection only */
		transaction_bind(s, TRANSACTION_DIALS);
		if (s->gate.stage == GATE_LIST) /* the policy that is known is that of a recipient before */
			policy_of_list(s, &s->server.route);
		policy_agree(s);
		if (s->o->limits.on_recipient)
			server_open(s);
		else
			server_again(s);
	} else {
		try_other(s);
	}
}

void server_forget_gone(struct session *s)
{
	if (s->server.state == SERVER_NONE)
		s->server.address.sa.sa_family = AF_UNSPEC;
}

enum server_news server_take_news(struct session *s)
{
	enum server_news news = s->server.news;

	s->server.news = SERVER_NO_NEWS;
	return news;
}

void server_auth_listed(struct session *s)
{
	if (s->server.auth == SERVER_AUTH_NOBODY)
		s->server.auth = SERVER_AUTH_LISTED;
}

void server_auth_said(struct session *s)
{
	s->server.auth = SERVER_AUTH_SAID;
}

void server_note_banner(struct session *s, bool refused)
{
	if (s->server.claim >= 0)
		close(s->server.claim);
	s->server.claim = -1;
	s->server.refused = refused;
	s->server.redialing = false;
}

/* ---- TLS ---- */

const char *server_tls_name(const struct session *s)
{
	static char undotted[sizeof s->server.route.tls_name];
	const char *name = s->server.route.tls_name;

	if (!*name)
		name = s->server.upstream && net_is_name(s->server.upstream->host) ? s->server.upstream->host : "";
	name = net_undotted(name, undotted, sizeof undotted);
	return *name ? name : NULL;
}

static bool implicit_tls(const struct session *s)
{
	return s->server.upstream && s->server.upstream->implicit_tls;
}

/* us: how long it took; plain_in: how long mail has to wait for plain, 0: that is no reason for the result. */
static void note_handshake(struct session *s, enum record_tls_result result, const char *reason, int64_t us, int64_t plain_in)
{
	observe_tls(s, result == RECORD_TLS_FALLBACK ? STATEMAP_TLS_FALLBACK :
		       result != RECORD_TLS_OK ? (server_needs_tls(s) ? STATEMAP_TLS_VIOLATED : STATEMAP_TLS_FAILED) :
		       s->server.facts.verified ? STATEMAP_TLS_VERIFIED : STATEMAP_TLS_OK, us);
	tlsreport_tls(s, result != RECORD_TLS_OK, reason);
	record_tls(s, &(struct record_handshake){ RECORD_SERVER, result, tls_level_name(policy_level(s)), server_tls_name(s),
	    policy_word(s, result == RECORD_TLS_FAILED && !plain_in, result == RECORD_TLS_FALLBACK), reason,
	    s->server.has_facts ? &s->server.facts : NULL, us, plain_in });
}

void server_starttls(struct session *s)
{
	serverstate_enter(s, SERVER_STARTTLS);
	s->server.handshake_at = s->now;
	talk_own_command(s, SMTP_STARTTLS, "STARTTLS", 8);
}

/* TLS failed, and mail may go in plain in so many microseconds: until then it is deferred. */
static void defer_plain(struct session *s, const char *reason, int64_t us, int64_t plain_in)
{
	char text[141];

	note_handshake(s, RECORD_TLS_FAILED, reason, us, plain_in);
	snprintf(text, sizeof text, "TLS failed, plain in %lld s: %s", (long long)(plain_in < SECOND ? 1 : plain_in / SECOND), reason);
	server_unusable(s, "4.7.5", text, text);
}

bool server_goes_plain(struct session *s, const char *refusal)
{
	int64_t wait = plainafter_note(s, true);

	if (wait) {
		defer_plain(s, refusal, -1, wait);
		return false;
	}
	note_handshake(s, RECORD_TLS_FALLBACK, "STARTTLS was refused", -1, 0);
	s->server.no_tls = true;
	return true;
}

void server_lacks_tls(struct session *s)
{
	s->server.no_tls = true;
}

/* Without trust anchors no certificate verifies, which the record of the handshake then says; only --tls verify fails for that. */
static void load_anchors(const struct session *s)
{
	char warning[400];
	const char *why;

	if (tls_has_anchors() || tls_load_anchors(s->o->tls_ca, &why) < 0 || !why)
		return;
	snprintf(warning, sizeof warning, "warning: --tls-ca %.300s: %s", s->o->tls_ca, why);
	record_error(s, warning);
}

void server_start_handshake(struct session *s)
{
	static struct buffer ciphertext;
	static unsigned char ciphertext_bytes[4096]; /* holds a small record with its header, so that one read gets both */
	const char *why, *name = server_tls_name(s);
	struct tls_demand demand;
	struct tls *t;

	load_anchors(s);
	s->server.handshake_at = s->now;
	serverstate_enter(s, s->server.state == SERVER_STARTTLS ? SERVER_SHAKE : SERVER_SHAKE_FIRST);
	policy_demand(s, &name, &demand);
	demand.server = &s->server.address;
	t = tls_start(&demand, &why);
	if (!t) {
		server_tls_failed(s, why);
		return;
	}
	leg_storage(&ciphertext, ciphertext_bytes, sizeof ciphertext_bytes);
	leg_use_tls(&s->server.leg, t, &ciphertext);
	leg_flush(&s->server.leg);
}

/* Connect to the same address again, without what has failed on this connection. behind: the banner is not for the client, which had one. */
static void redial(struct session *s, bool behind)
{
	union net_address same = s->server.address;

	s->server.redialing = behind;
	disconnect(s);
	dialogue_forget_server(&s->dialogue);
	dialogue_expect(&s->dialogue, SMTP_GREETING, behind);
	if (!dial(s, &same)) {
		record_error(s, s->server.text->failure);
		dialogue_forget_server(&s->dialogue);
		try_other(s);
	}
}

void server_again(struct session *s)
{
	server_quit(s);
	s->server.no_tls = false;
	tlsreport_connects(s);
	redial(s, true);
}

void server_redial_for_helo(struct session *s)
{
	char error[320];

	snprintf(error, sizeof error, "%s: EHLO made it close the connection, HELO is tried", s->server.host);
	record_error(s, error);
	s->server.no_ehlo = true;
	redial(s, true);
}

bool server_wants_tls(const struct session *s)
{
	/* With passthrough the client asks for TLS itself, unless it speaks TLS with the proxy before us. */
	if (s->o->client_tls == CLIENT_TLS_PASSTHROUGH && s->server.route.tls <= TLS_MAY && !s->dialogue.encrypted)
		return false;
	if (inspect_waits(s))
		return false;
	return policy_level(s) != TLS_NONE && !s->server.no_tls && !s->server.leg.tls;
}

/* With --tls verify-if-offered a server that was asked for STARTTLS must not be used in plain: whoever can spoil the handshake would get
 * the mail. A password must not cross the network in the clear, whatever --tls says. */
bool server_needs_tls(const struct session *s)
{
	bool begun = s->server.state == SERVER_STARTTLS || s->server.state == SERVER_SHAKE;

	return policy_level(s) >= TLS_ENCRYPT || (policy_level(s) == TLS_OFFERED && begun) || upstreamauth_is_due(s);
}

bool server_is_final(const struct session *s)
{
	bool dialled = dialer_is_there() && s->server.dialed_at && !(s->hooks->events & 1u << HOOK_CONNECT);
	bool ready = s->server.state == SERVER_READY && !s->o->limits.mail_late && (s->server.leg.tls || !inspect_waits(s));

	return dialled || ready || s->server.state == SERVER_TUNNEL || s->server.state == SERVER_GONE;
}

/* A handshake in full may be better than one that resumes a session, which is no longer remembered then. */
static void shake_again(struct session *s, const char *reason)
{
	char error[400];

	snprintf(error, sizeof error, "%s: its TLS session could not be resumed: %s", s->server.host, reason);
	record_error(s, error);
	redial(s, s->server.redialing || s->server.state == SERVER_SHAKE);
}

void server_tls_failed(struct session *s, const char *reason)
{
	bool fallback = !server_needs_tls(s) && !implicit_tls(s);
	int64_t us = s->server.handshake_at ? s->now - s->server.handshake_at : -1, wait;
	const char *failure = s->server.leg.tls ? tls_failure(s->server.leg.tls) : NULL;

	reason = failure ? failure : reason;
	if (s->server.leg.tls && tls_resumes(s->server.leg.tls)) {
		shake_again(s, reason);
		return;
	}
	wait = fallback ? plainafter_note(s, true) : 0;
	if (wait) {
		defer_plain(s, reason, us, wait);
		return;
	}
	note_handshake(s, fallback ? RECORD_TLS_FALLBACK : RECORD_TLS_FAILED, reason, us, 0);
	if (implicit_tls(s)) {
		server_failed(s, "4.7.5", reason);
		return;
	}
	s->server.no_tls = true;
	if (fallback) {
		redial(s, true);
		return;
	}
	server_unusable(s, "4.7.5", reason, "no TLS");
}

void server_timed_out(struct session *s, const char *reason)
{
	if (s->server.state == SERVER_CONNECTING)
		observe_unreachable(s, ETIMEDOUT);
	server_failed(s, "4.4.1", reason);
}

void server_unusable(struct session *s, const char *enhanced, const char *reason, const char *later)
{
	set_failure(s, enhanced, reason);
	server_close(s);
	dialogue_forget_server(&s->dialogue);
	snprintf(s->server.text->gone, sizeof s->server.text->gone, "421 %s %s: %s", enhanced, s->server.host, later);
	if (is_held(s) || s->o->limits.on_recipient)
		server_refuse(s, s->server.text->failure);
	else
		talk_replyf(s, "451 %s %s: %s", enhanced, s->server.host, reason);
}

bool server_handshake(struct session *s)
{
	const char *fault;

	if (s->server.leg.broken || tls_failure(s->server.leg.tls)) {
		server_tls_failed(s, s->server.leg.why ? s->server.leg.why : "TLS failed");
		return false;
	}
	if (!tls_handshake_done(s->server.leg.tls))
		return false;
	s->server.tls = s->now - s->server.handshake_at;
	fault = policy_fault(s);
	if (fault) {
		server_tls_failed(s, fault);
		return false;
	}
	tls_facts(s->server.leg.tls, &s->server.facts);
	s->server.has_facts = true;
	note_handshake(s, RECORD_TLS_OK, s->server.facts.reason, s->server.tls, 0);
	plainafter_note(s, false);
	if (s->server.state == SERVER_SHAKE)
		return true;
	serverstate_enter(s, SERVER_BANNER);
	return false;
}

void server_connected(struct session *s)
{
	int error = net_connected(s->server.leg.fd);

	if (error) {
		observe_unreachable(s, error);
		server_failed(s, "4.4.1", strerror(error));
		return;
	}
	s->server.connected_at = s->now;
	s->server.connect = s->now - s->server.dialed_at;
	identity_send_proxy(s);
	if (implicit_tls(s))
		server_start_handshake(s);
	else
		serverstate_enter(s, SERVER_BANNER);
}
