/* The server of a session: where it is, the connection, its greeting, EHLO and STARTTLS. See session.h. */
#define _GNU_SOURCE
#include "session/session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOKUP_TIME INT64_C(10000000) /* or --connect-timeout, if that is less */

/* ---- where to ---- */

static void tell_failure(struct session *s, const char *enhanced, const char *reason)
{
	snprintf(s->text->failure, sizeof s->text->failure, "%s %.100s: %.140s", enhanced, s->host, reason);
}

static const union net_address *source_for(const struct net_outbound *out, const union net_address *dest)
{
	return dest->sa.sa_family == AF_INET6 ? &out->source6 : &out->source4;
}

/* Source addresses of options, replaced by those of verdicts. false: a verdict wants one of the other family only, and a
 * connection from any address would not be what it asked for. */
static bool choose_source(const struct session *s, const union net_address *dest, struct net_outbound *out)
{
	const union net_address *wanted = dest->sa.sa_family == AF_INET6 ? &s->route.source6 : &s->route.source4;
	bool any = s->route.source4.sa.sa_family != AF_UNSPEC || s->route.source6.sa.sa_family != AF_UNSPEC;

	*out = s->outbound;
	if (!any || dest->sa.sa_family == AF_UNIX) /* which has none */
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

/* Begin a connection to this address. false: it cannot even begin, s->text->failure says why. */
static bool dial(struct session *s, const union net_address *dest)
{
	const char *what;
	char reason[160], text[NET_TEXT];
	struct net_outbound out;
	int fd = -1;

	s->view.server = *dest;
	s->view.server_tls = NULL;
	memset(&s->facts, 0, sizeof s->facts);
	s->times.tls = -1;
	s->authenticated = false;
	s->dialogue.lmtp = s->upstream && s->upstream->lmtp;
	s->handshake_at = 0;
	s->server.eof = false;
	if (net_same(dest, &s->local) && net_is_local(dest)) { /* by TPROXY it is the destination's */
		tell_failure(s, "4.3.5", "this is the address of smtpwarp itself");
		return false;
	}
	if (!choose_source(s, dest, &out)) {
		tell_failure(s, "4.3.5", "the source address is of the other family of addresses");
		return false;
	}
	what = "connect";
	fd = dest->sa.sa_family == AF_UNIX ? net_connect_unix(s->host, s->o->timeouts.connect) : net_connect(dest, &out, &what);
	if (fd >= 0) {
		s->totals.server_in += s->server.received;
		s->totals.server_out += s->server.sent;
		s->server.received = s->server.sent = 0;
		leg_open(&s->server, fd);
		net_local(fd, &s->source);
		if (dest->sa.sa_family != AF_UNIX)
			s->claim = net_claim(&s->source);
		s->state = SERVER_CONNECTING;
		s->dialed_at = s->now;
		return true;
	}
	if (errno == EADDRNOTAVAIL && strcmp(what, "source address") == 0)
		snprintf(reason, sizeof reason, "the source address %s is not on this host",
		    net_text(source_for(&out, dest), text));
	else
		snprintf(reason, sizeof reason, "%s: %s", what, strerror(errno));
	tell_failure(s, strcmp(what, "connect") == 0 ? "4.4.1" : "4.3.5", reason);
	return false;
}

/* The next one to try, NULL: there is none. It may be put into *room. */
static const struct upstream *upstream_to_try(const struct session *s, struct upstream *room)
{
	unsigned n = s->next_upstream;

	if (s->route.upstream.host[0])
		return route_server(&s->route, n, room);
	return n < s->o->upstreams ? &s->o->upstream[n] : NULL;
}

static bool more_upstreams(const struct session *s)
{
	struct upstream unused;

	return upstream_to_try(s, &unused) != NULL;
}

/* The name was looked up: what came of it, into the list of candidates. */
static void take_addresses(struct session *s)
{
	char reason[80] = "name lookup: ";
	const size_t n = strlen(reason);

	s->state = SERVER_NONE;
	s->candidates = lookup_end(s->candidate, reason + n, sizeof reason - n);
	if (s->candidates)
		return;
	tell_failure(s, "4.4.3", reason);
	record_error(&s->view, s->text->failure);
}

/* The addresses of the next upstream into the list of candidates; a name may take until SERVER_RESOLVING is over. */
static bool next_upstream(struct session *s)
{
	const struct upstream *u;
	int64_t patience = s->o->timeouts.connect;

	if (!more_upstreams(s))
		return false;
	u = s->upstream = upstream_to_try(s, &s->text->other);
	s->next_upstream++;
	snprintf(s->host, sizeof s->host, "%s", u->host);
	s->next_candidate = 0;
	s->view.server.sa.sa_family = AF_UNSPEC; /* none of it yet */
	s->candidates = !net_is_name(u->host);
	if (s->candidates) {
		if (!net_parse(u->host, u->port, s->candidate))
			s->candidate[0].sa.sa_family = AF_UNIX; /* a path */
		return true;
	}
	s->state = SERVER_RESOLVING;
	lookup_start(u->host, u->port, &s->o->dns, s->now, patience && patience < LOOKUP_TIME ? patience : LOOKUP_TIME);
	if (lookup_turn(s->now))
		take_addresses(s);
	return true;
}

/* true: an attempt is under way. */
static bool dial_next(struct session *s)
{
	do {
		while (s->next_candidate < s->candidates) {
			if (dial(s, &s->candidate[s->next_candidate++]))
				return true;
			record_error(&s->view, s->text->failure);
		}
	} while (next_upstream(s) && s->state != SERVER_RESOLVING);
	return s->state == SERVER_RESOLVING;
}

static bool more_candidates(const struct session *s)
{
	return s->next_candidate < s->candidates || more_upstreams(s);
}

/* There is no way to a server. */
static void refuse_client(struct session *s, const char *enhanced_and_reason)
{
	if (s->late && !s->asking) {
		late_unreachable(s, 451, enhanced_and_reason);
		return;
	}
	session_replyf(s, "421 %s", enhanced_and_reason);
	session_end(s, "smtpwarp", enhanced_and_reason);
	s->linger = true;
}

static void give_up(struct session *s)
{
	dialogue_forget_server(&s->dialogue);
	s->redialing = false;
	s->state = s->late ? SERVER_NONE : SERVER_GONE;
	refuse_client(s, s->text->failure);
}

static void try_next(struct session *s)
{
	if (!dial_next(s))
		give_up(s);
}

/* The next one may know TLS, which this one did not. A client that has seen this one's greeting is not for another. */
static void try_other(struct session *s)
{
	if (s->redialing && !s->late) {
		give_up(s);
		return;
	}
	s->no_tls = s->redialing = false;
	s->greet = GREET_NONE;
	dialogue_expect(&s->dialogue, SMTP_GREETING, false);
	try_next(s);
}

void upstream_look(struct session *s)
{
	if (s->state != SERVER_RESOLVING || !lookup_turn(s->now))
		return;
	take_addresses(s);
	try_next(s);
}

int64_t upstream_deadline(const struct session *s)
{
	return s->state == SERVER_RESOLVING ? lookup_deadline() : INT64_MAX;
}

unsigned upstream_watch(const struct session *s, struct pollfd *p)
{
	return s->state == SERVER_RESOLVING ? lookup_watch(p) : 0;
}

/* smtpwarp's own connections must be exempt from the redirect. When they are not, the client of this session is
 * another smtpwarp, or this one, and connecting onward would go round for ever. */
static bool caught_own(struct session *s)
{
	static const char error[] = "this connection is smtpwarp's own, caught by the redirect: exempt smtpwarp's user "
				    "or --mark in the firewall rule";

	if (!net_is_claimed(&s->peer))
		return false;
	record_error(&s->view, error);
	session_reply(s, "421 4.3.5 smtpwarp's own connection was redirected to it");
	session_end(s, NULL, NULL);
	return true;
}

/* What to try: upstreams, or the original destination. */
static bool find_destination(struct session *s)
{
	char text[NET_TEXT];

	s->candidates = s->next_candidate = s->next_upstream = 0;
	s->upstream = NULL;
	if (more_upstreams(s))
		return true;
	if (s->origin == NET_DIRECT) {
		snprintf(s->text->failure, sizeof s->text->failure,
		    "4.3.5 No destination: this connection was not redirected here, and there is no --upstream");
		record_error(&s->view, s->text->failure);
		return false;
	}
	s->candidate[0] = s->original;
	s->candidates = 1;
	snprintf(s->host, sizeof s->host, "%s", net_text(&s->original, text));
	return true;
}

/* --outbound-ip client: the client's own address, whatever its port. */
static void use_client_address(struct session *s)
{
	union net_address *source = s->view.client.sa.sa_family == AF_INET6 ? &s->outbound.source6 :
									       &s->outbound.source4;

	*source = s->view.client;
	if (source->sa.sa_family == AF_INET6)
		source->v6.sin6_port = 0;
	else
		source->v4.sin_port = 0;
	s->outbound.transparent = true;
}

bool upstream_locate(struct session *s)
{
	s->outbound = s->o->outbound;
	if (s->o->outbound_client)
		use_client_address(s);
	s->route.tls = s->o->tls;
	snprintf(s->route.tls_name, sizeof s->route.tls_name, "%s", s->o->tls_name ? s->o->tls_name : "");
	s->origin = net_original(s->client.fd, &s->local, &s->peer, &s->original);
	return s->origin == NET_DIRECT || !caught_own(s);
}

static void connect_to_any(struct session *s)
{
	if (find_destination(s))
		try_next(s);
	else
		refuse_client(s, s->text->failure);
}

void upstream_start(struct session *s)
{
	if (s->client.eof && !leg_count(&s->client)) /* nobody waits for a greeting: the session ends */
		return;
	if (!s->late) {
		connect_to_any(s);
		return;
	}
	s->text->of_session = s->route;
	if (checks_too_early(s))
		return;
	dialogue_forget_server(&s->dialogue);
	session_replyf(s, "220 %s ESMTP", upstream_own_name(s));
}

void upstream_open(struct session *s)
{
	if (s->state != SERVER_NONE)
		upstream_leave(s);
	s->no_tls = s->redialing = false;
	s->greet = GREET_NONE;
	dialogue_expect(&s->dialogue, SMTP_GREETING, false);
	connect_to_any(s);
}

/* The server learns that nothing more comes; it must not wait for the rest of a session. */
void upstream_leave(struct session *s)
{
	bool orderly = s->state == SERVER_OPEN && s->greet == GREET_NONE && s->stage != STAGE_SEND &&
	    (s->keeping || !dialogue_in_content(&s->dialogue)) &&
	    !leg_pending(&s->server) && dialogue_awaited(&s->dialogue) == SMTP_NOTHING && !s->refused && !s->quit &&
	    !s->server.eof;

	if (orderly) {
		relay_own_command(s, SMTP_QUIT, "QUIT", 4);
		leg_flush(&s->server);
		dialogue_forget_server(&s->dialogue);
	}
	upstream_close(s);
}

/* This connection ends; another may be tried. */
static void drop_server(struct session *s)
{
	leg_close(&s->server);
	if (s->claim >= 0)
		close(s->claim);
	s->claim = -1;
	s->for_auth = s->auth_said = false;
	snprintf(s->text->gone, sizeof s->text->gone, "421 4.4.2 %s: connection is closed", s->host);
}

void upstream_close(struct session *s)
{
	if (s->state == SERVER_RESOLVING)
		lookup_stop();
	drop_server(s);
	s->state = s->late ? SERVER_NONE : SERVER_GONE;
	s->bound = s->refused = false;
}

void upstream_failed(struct session *s, const char *enhanced, const char *reason)
{
	bool said = s->auth_said;
	char reply[300];

	tell_failure(s, enhanced, reason);
	record_error(&s->view, s->text->failure);
	drop_server(s);
	dialogue_forget_server(&s->dialogue);
	if (said) { /* no other would know the client */
		snprintf(reply, sizeof reply, "421 %s", s->text->failure);
		s->state = SERVER_NONE;
		late_end(s, "upstream", reply);
		return;
	}
	if (s->reused) { /* it may have had enough of this connection only */
		s->reused = false;
		s->state = SERVER_NONE;
		upstream_open(s);
		return;
	}
	try_other(s);
}

/* ---- TLS ---- */

static const char *tls_name(const struct session *s)
{
	if (s->route.tls_name[0])
		return s->route.tls_name;
	return s->upstream && net_is_name(s->upstream->host) ? s->upstream->host : NULL;
}

static bool implicit_tls(const struct session *s)
{
	return s->upstream && s->upstream->implicit_tls;
}

static void start_handshake(struct session *s)
{
	static struct buffer stage;
	static unsigned char stage_bytes[4096]; /* a small record with its header in one read */
	const char *why;
	struct tls *t;

	/* Without anchors everything is as if signed by nobody, which the record then says; only verify fails. */
	if (!tls_has_anchors())
		tls_load_anchors(s->o->tls_ca, &why);
	s->handshake_at = s->now;
	s->state = SERVER_HANDSHAKE;
	t = tls_start(s->route.tls == TLS_NONE ? TLS_MAY : s->route.tls, tls_name(s), &why);
	if (!t) {
		upstream_tls_failed(s, why);
		return;
	}
	leg_storage(&stage, stage_bytes, sizeof stage_bytes);
	leg_use_tls(&s->server, t, &stage);
	leg_flush(&s->server);
}

/* The same server again, on a connection that has not seen TLS fail. */
static void redial_plain(struct session *s)
{
	union net_address same = s->view.server;

	s->no_tls = s->redialing = true;
	s->greet = GREET_NONE;
	drop_server(s);
	dialogue_forget_server(&s->dialogue);
	dialogue_expect(&s->dialogue, SMTP_GREETING, true);
	if (!dial(s, &same)) {
		record_error(&s->view, s->text->failure);
		dialogue_forget_server(&s->dialogue);
		try_other(s);
	}
}

/* A password must not cross the network in the clear, whatever --tls is. verify-if-offered does not take back what it has begun:
 * whoever can spoil a handshake would have the mail in plain. */
static bool needs_tls(const struct session *s)
{
	return s->route.tls >= TLS_ENCRYPT || (s->route.tls == TLS_OFFERED && s->greet == GREET_STARTTLS) || login_is_due(s);
}

void upstream_tls_failed(struct session *s, const char *reason)
{
	bool fallback = !needs_tls(s) && !implicit_tls(s);
	const char *failure = s->server.tls ? tls_failure(s->server.tls) : NULL;

	reason = failure ? failure : reason;
	record_tls(&s->view, "upstream", tls_level_name(s->route.tls), fallback ? "fallback" : "failed", tls_name(s), NULL, reason,
	    s->handshake_at ? s->now - s->handshake_at : -1);
	if (implicit_tls(s)) {
		upstream_failed(s, "4.7.5", reason);
		return;
	}
	if (fallback) {
		redial_plain(s);
		return;
	}
	s->no_tls = true;
	upstream_unusable(s, "4.7.5", reason, "no TLS");
}

void upstream_unusable(struct session *s, const char *enhanced, const char *reason, const char *later)
{
	tell_failure(s, enhanced, reason);
	upstream_close(s);
	dialogue_forget_server(&s->dialogue);
	s->greet = GREET_NONE;
	if (s->late) {
		refuse_client(s, s->text->failure);
		return;
	}
	session_replyf(s, "451 %s %s: %s", enhanced, s->host, reason);
	snprintf(s->text->gone, sizeof s->text->gone, "421 %s %s: %s", enhanced, s->host, later);
}

static void say_greeting(struct session *s, enum smtp_verb verb, enum session_greet step);
static bool wants_list(const struct session *s);

void upstream_handshake(struct session *s)
{
	if (s->server.broken || tls_failure(s->server.tls)) {
		upstream_tls_failed(s, s->server.why ? s->server.why : "TLS failed");
		return;
	}
	if (!tls_handshake_done(s->server.tls))
		return;
	s->times.tls = s->now - s->handshake_at;
	tls_facts(s->server.tls, &s->facts);
	s->view.server_tls = &s->facts;
	record_tls(&s->view, "upstream", tls_level_name(s->route.tls), "ok", tls_name(s), &s->facts, s->facts.reason, s->times.tls);
	s->awaiting_since = s->now;
	s->state = SERVER_OPEN;
	if (s->greet == GREET_STARTTLS)
		say_greeting(s, wants_list(s) ? SMTP_EHLO : SMTP_HELO, wants_list(s) ? GREET_AGAIN : GREET_HELO);
}

void upstream_connected(struct session *s)
{
	int error = net_connected(s->server.fd);

	if (error) {
		upstream_failed(s, "4.4.1", strerror(error));
		return;
	}
	s->connected_at = s->now;
	s->times.connect = s->now - s->dialed_at;
	s->server_moved_at = s->awaiting_since = s->now;
	s->state = SERVER_OPEN;
	identity_send_proxy(s);
	if (implicit_tls(s))
		start_handshake(s);
}

/* ---- greetings ---- */

static bool wants_tls(const struct session *s)
{
	/* passed through, it is the client's to ask for, unless it speaks TLS to the proxy before us */
	if (s->o->client_tls == CLIENT_TLS_PASSTHROUGH && s->route.tls <= TLS_MAY && !s->dialogue.encrypted)
		return false;
	return s->route.tls != TLS_NONE && !s->no_tls && !s->server.tls;
}

/* Say the client's name to the server. By LMTP there is but one way, RFC 2033 4.1. */
static void say_greeting(struct session *s, enum smtp_verb verb, enum session_greet step)
{
	unsigned char line[sizeof s->helo + 8];
	size_t n;

	if (s->dialogue.lmtp)
		verb = SMTP_LHLO;
	n = (size_t)snprintf((char *)line, 6, "%s ", smtp_verb_name(verb));
	memcpy(line + n, s->helo, s->view.helo_len);
	s->greet = step;
	relay_own_command(s, verb, (const char *)line, n + s->view.helo_len);
}

/* The last word of a greeting is EHLO, or LHLO. */
static bool ends_with_list(const struct session *s)
{
	return s->greet_verb != SMTP_HELO || s->late || s->dialogue.lmtp;
}

/* For the client, or because it has what we want to know. */
static bool wants_list(const struct session *s)
{
	return ends_with_list(s) || s->o->xclient || s->o->xforward || login_is_due(s);
}

static void begin_greeting(struct session *s)
{
	s->forward = 0;
	if (wants_list(s) || wants_tls(s))
		say_greeting(s, SMTP_EHLO, GREET_PLAIN);
	else
		say_greeting(s, SMTP_HELO, GREET_HELO);
}

static void greet_in_own_name(struct session *s);

static void note_name(struct session *s, const struct smtp_command *cmd)
{
	s->greet_verb = cmd->verb;
	s->view.helo_len = cmd->arg_len < sizeof s->helo ? cmd->arg_len : sizeof s->helo;
	memcpy(s->helo, cmd->arg, s->view.helo_len);
}

void upstream_try_name(struct session *s, const struct smtp_command *cmd)
{
	memcpy(s->text->helo, s->helo, s->view.helo_len);
	s->text->helo_len = s->view.helo_len;
	s->text->greet_verb = s->greet_verb;
	note_name(s, cmd);
}

void upstream_keep_name(struct session *s)
{
	if (!s->dialogue.greeted) /* there was none: let records have this one */
		return;
	memcpy(s->helo, s->text->helo, s->text->helo_len);
	s->view.helo_len = s->text->helo_len;
	s->greet_verb = s->text->greet_verb;
}

void upstream_greet(struct session *s, const struct smtp_command *cmd)
{
	note_name(s, cmd);
	if (s->late)
		greet_in_own_name(s);
	else
		begin_greeting(s);
}

/* What the client's EHLO or HELO changes: it is greeted, and no transaction is open, RFC 5321 4.1.4. */
static void greeted(struct session *s)
{
	struct dialogue *d = &s->dialogue;

	s->greet = GREET_NONE;
	d->greeted = true;
	d->lmtp_client = s->greet_verb == SMTP_LHLO;
	relay_end_transaction(s, NULL);
	s->active_at = s->now;
}

/* A password must not cross the network in the clear, RFC 4954 9. */
static bool may_authenticate(const struct session *s)
{
	if (s->dialogue.encrypted)
		return true;
	return !s->dialogue.limits.require_tls &&
	    (s->o->plain_auth || s->view.client.sa.sa_family == AF_UNSPEC || net_is_local(&s->view.client));
}

/* A list to the client. */
static void send_list(struct session *s, const struct smtp_ehlo *e)
{
	struct dialogue *d = &s->dialogue;
	size_t n = smtp_ehlo_bound(e);
	unsigned char *list;

	d->offer.size_limit = s->o->limits.message_size;
	d->offer.requiretls = s->facts.verified && s->server.tls;
	d->offer.auth = (e->extensions & SMTP_EXT_AUTH) && may_authenticate(s);
	d->auth_later = s->o->auth && !may_authenticate(s);
	d->offer.starttls = secure_offers(s);
	d->offer.single = d->lmtp && s->greet_verb == SMTP_EHLO && !s->late;
	list = leg_room(&s->client, n);
	n = smtp_ehlo_write(e, &d->offer, list, n);
	session_comm(s, "<|", list, n - 2);
	leg_wrote(&s->client, n);
	greeted(s);
}

/* A client that says HELO to a server of LMTP hears of no extensions, and uses none. */
static void answer_helo(struct session *s)
{
	struct smtp_ehlo *e = &s->dialogue.ehlo;

	session_replyf(s, "250 %.*s", (int)e->domain_len, (const char *)e->domain);
	e->extensions = 0;
	e->size = 0;
	greeted(s);
}

/* Late: the extensions that do not depend on a server. */
static void list_own(const struct session *s, struct smtp_ehlo *e)
{
	static const char *const lines[] = { "ENHANCEDSTATUSCODES", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING" };
	const char *name = upstream_own_name(s);

	smtp_ehlo_line(e, true, (const unsigned char *)name, strlen(name));
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		smtp_ehlo_line(e, false, (const unsigned char *)lines[i], strlen(lines[i]));
}

/* Late: and AUTH as the server has it. Its own list stays in the dialogue, for what it is sent. */
static void answer_with_auth(struct session *s)
{
	static struct smtp_ehlo list; /* no page for what hardly any session needs */
	char line[300];
	size_t n = 0;
	const unsigned char *mechanisms = smtp_ehlo_args(&s->dialogue.ehlo, SMTP_EXT_AUTH, &n);

	list_own(s, &list);
	if (mechanisms) {
		n = (size_t)snprintf(line, sizeof line, "AUTH %.*s", (int)n, (const char *)mechanisms);
		smtp_ehlo_line(&list, false, (const unsigned char *)line, n);
	}
	s->asking = false;
	s->stage = STAGE_NONE;
	send_list(s, &list);
	s->for_auth = true;
}

/* The server's list is that of d->ehlo; late, it is for us alone. */
static void answer_with_list(struct session *s)
{
	if (s->authenticated) /* once, RFC 4954 4 */
		s->dialogue.ehlo.extensions &= ~(unsigned)SMTP_EXT_AUTH;
	if (s->asking) {
		answer_with_auth(s);
	} else if (s->stage == STAGE_OPEN) {
		s->greet = GREET_NONE;
		late_server_ready(s);
	} else {
		send_list(s, &s->dialogue.ehlo);
	}
}

/* Late, --auth: which mechanisms there are, only a server knows. */
static void ask_for_auth(struct session *s)
{
	s->asking = true;
	s->stage = STAGE_OPEN;
	s->bound = false;
	s->reused = s->state == SERVER_OPEN;
	if (s->reused) {
		begin_greeting(s);
		return;
	}
	s->route = s->text->of_session;
	upstream_open(s);
}

/* Late. A session that begins anew leaves the server it had, unless that is the one for AUTH: it may know the client. */
static void greet_in_own_name(struct session *s)
{
	bool asks = s->greet_verb != SMTP_HELO && s->o->auth && may_authenticate(s);

	if (!(asks ? s->for_auth : s->auth_said))
		upstream_leave(s);
	if (asks) {
		ask_for_auth(s);
	} else if (s->greet_verb != SMTP_HELO) {
		list_own(s, &s->dialogue.ehlo);
		send_list(s, &s->dialogue.ehlo);
	} else {
		late_reset_server(s);
		s->dialogue.offer.auth = s->dialogue.auth_later = false;
		session_replyf(s, "250 %s", upstream_own_name(s));
		greeted(s);
	}
}

/* The greeting ends with the server's own reply. */
static void answer_with_reply(struct session *s, const struct dialogue_reply *r)
{
	if (s->stage == STAGE_OPEN) {
		char why[200];

		snprintf(why, sizeof why, "reply %d to its greeting", r->line.code);
		s->greet = GREET_NONE;
		upstream_failed(s, "4.4.1", why);
		return;
	}
	session_comm(s, "<|", r->line.raw, r->line.raw_len);
	relay_pass(s, r);
	if (r->line.code / 100 == 2)
		greeted(s);
	s->greet = GREET_NONE;
}

/* The client's own word once more. A refusal of EHLO from before is none of this one. */
static void say_again(struct session *s, enum session_greet step)
{
	bool list = ends_with_list(s);

	s->text->ehlo_refusal[0] = 0;
	say_greeting(s, list ? SMTP_EHLO : SMTP_HELO, list ? step : GREET_HELO);
}

/* The server knows whom it has to do with. */
static void answer_greeting(struct session *s)
{
	if (s->dialogue.lmtp && s->greet_verb == SMTP_HELO && !s->late)
		answer_helo(s);
	else if (ends_with_list(s))
		answer_with_list(s);
	else
		say_again(s, GREET_HELO);
}

/* The server's list is in, and TLS is as it will stay. */
static void settle(struct session *s)
{
	if (identity_introduce(s))
		s->greet = GREET_XCLIENT;
	else if (!login_begin(s))
		answer_greeting(s);
}

/* A server that does not hear who the client is would judge it by our address. */
static void after_xclient(struct session *s, const struct dialogue_reply *r)
{
	char reason[200];

	if (r->line.code == 220) {
		s->authenticated = false; /* it has forgotten all that was before */
		if (!identity_more(s))
			say_again(s, GREET_INTRODUCED);
		return;
	}
	snprintf(reason, sizeof reason, "XCLIENT was refused: %d %.*s", r->line.code,
	    (int)(r->line.text_len < 160 ? r->line.text_len : 160), (const char *)r->line.text);
	upstream_unusable(s, "4.3.5", reason, "XCLIENT was refused");
	record_error(&s->view, s->text->failure);
}

static void after_ehlo(struct session *s, const struct dialogue_reply *r)
{
	bool offered = s->dialogue.ehlo.extensions & SMTP_EXT_STARTTLS;
	bool refused = r->line.code >= 500;

	if (r->line.code == 250 && wants_tls(s) && offered) {
		s->greet = GREET_STARTTLS;
		s->handshake_at = s->now;
		relay_own_command(s, SMTP_STARTTLS, "STARTTLS", 8);
	} else if (wants_tls(s) && needs_tls(s) && (r->line.code == 250 || refused)) {
		upstream_tls_failed(s, "STARTTLS is not offered");
	} else if (r->line.code == 250) {
		settle(s);
	} else if (refused && !s->dialogue.lmtp) { /* a server that knows only HELO, perhaps */
		s->dialogue.ehlo.extensions = 0;
		if (login_begin(s))
			return;
		snprintf(s->text->ehlo_refusal, sizeof s->text->ehlo_refusal, "%.*s",
		    r->line.raw_len < sizeof s->text->ehlo_refusal ? (int)r->line.raw_len : 0,
		    (const char *)r->line.raw);
		say_greeting(s, SMTP_HELO, GREET_HELO);
	} else {
		answer_with_reply(s, r);
	}
}

static void after_starttls(struct session *s, const struct dialogue_reply *r)
{
	static const char injected[] = "plaintext after the reply to STARTTLS: somebody injected it";

	if (r->line.code == 220 && leg_count(&s->server)) { /* RFC 3207 6, CVE-2021-38371 */
		record_error(&s->view, injected);
		upstream_close(s);
		refuse_client(s, "4.7.0 upstream's reply to STARTTLS is not to be trusted");
	} else if (r->line.code == 220) {
		start_handshake(s);
	} else if (needs_tls(s)) {
		upstream_tls_failed(s, "STARTTLS was refused");
	} else {
		record_tls(&s->view, "upstream", tls_level_name(s->route.tls), "fallback", tls_name(s), NULL, "STARTTLS was refused", -1);
		s->no_tls = true;
		settle(s);
	}
}

static void after_helo(struct session *s, const struct dialogue_reply *r)
{
	s->dialogue.ehlo.extensions = 0;
	s->dialogue.ehlo.size = 0;
	if (r->line.code != 250 || (s->greet_verb == SMTP_HELO && !s->late)) {
		answer_with_reply(s, r);
		return;
	}
	smtp_ehlo_line(&s->dialogue.ehlo, true, r->line.text, r->line.text_len);
	answer_with_list(s);
}

static void after_greeting(struct session *s, const struct dialogue_reply *r)
{
	char reason[200];
	bool accepted = r->line.code == 220;

	if ((s->redialing || s->late) && !accepted) {
		snprintf(reason, sizeof reason, "greeting %d", r->line.code);
		upstream_failed(s, "4.4.1", reason);
		return;
	}
	if (s->claim >= 0)
		close(s->claim);
	s->claim = -1;
	if (s->redialing) {
		s->redialing = false;
		begin_greeting(s);
		return;
	}
	s->times.banner = s->now - s->connected_at;
	s->refused = !accepted;
	record_connect(&s->view, s->original.sa.sa_family ? &s->original : NULL, &s->source, &s->times, &r->line);
	if (s->late)
		begin_greeting(s);
}

/* Another candidate may greet better than this one did. */
static bool try_another(struct session *s, const struct dialogue_reply *r)
{
	char reason[200];

	if (s->redialing || r->line.code == 220 || !more_candidates(s))
		return false;
	if (r->line.last) {
		snprintf(reason, sizeof reason, "greeting %d %.*s", r->line.code,
		    (int)(r->line.text_len < 160 ? r->line.text_len : 160), (const char *)r->line.text);
		upstream_failed(s, "4.4.1", reason);
	}
	return true;
}

/* Behind a first line that said 220 (--greet-delay) another code ends the session, for clients that go by the first. */
static void pass_greeting(struct session *s, const struct dialogue_reply *r)
{
	relay_pass(s, r);
	if (!s->teased || !s->refused || s->ending)
		return;
	session_end(s, "upstream", "it refused in its greeting");
	s->linger = true;
}

void upstream_reply(struct session *s, const struct dialogue_reply *r)
{
	if (r->verb == SMTP_GREETING) {
		if (try_another(s, r))
			return;
		if (!r->line.last)
			return;
		if (s->redialing || s->late) {
			after_greeting(s, r);
			return;
		}
		after_greeting(s, r);
		if (checks_too_early(s))
			upstream_leave(s);
		else
			pass_greeting(s, r);
		return;
	}
	if (!r->line.last)
		return;
	if (r->line.code == 421) {
		answer_with_reply(s, r);
		return;
	}
	switch (s->greet) {
	case GREET_PLAIN:
	case GREET_AGAIN:
	case GREET_INTRODUCED:
		after_ehlo(s, r);
		return;
	case GREET_XCLIENT:
		after_xclient(s, r);
		return;
	case GREET_AUTH:
		if (login_answered(s, r))
			answer_greeting(s);
		return;
	case GREET_STARTTLS:
		after_starttls(s, r);
		return;
	case GREET_HELO:
		after_helo(s, r);
		return;
	case GREET_NONE:
		return;
	}
}
