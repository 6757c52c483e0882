/* One proxied connection: its poll loop, its beginning and its end. See session.h for the contract.
 *
 * Each turn lets every part go on as far as it can, then waits in ppoll(2) for a descriptor, a deadline, or a signal. Nothing else waits
 * while the session goes on, except for a PROXY header before it (identity.c).
 */
#define _GNU_SOURCE
#include "session/session.h"
#include "io/passes.h"
#include "io/sandbox.h"
#include "session/checks.h"
#include "session/clienttls.h"
#include "session/clock.h"
#include "session/commands.h"
#include "session/filter.h"
#include "session/gate.h"
#include "session/held.h"
#include "session/hello.h"
#include "session/identity.h"
#include "session/maildata.h"
#include "session/observe.h"
#include "session/policy.h"
#include "session/recipient.h"
#include "session/record.h"
#include "session/refusal.h"
#include "session/replies.h"
#include "session/routing.h"
#include "session/server.h"
#include "session/serverstate.h"
#include "session/steps.h"
#include "session/talk.h"
#include "session/tarpit.h"
#include "session/tlsreport.h"
#include "session/transaction.h"
#include "session/tryhook.h"

#include <poll.h>

#define SECOND INT64_C(1000000)
#define LINGER (2 * SECOND)	 /* for a client to read its last reply and close */
#define LAST_FLUSH (10 * SECOND) /* for its socket to take that reply */

/* Octets that can be on their way at once. Only pages that were used take memory. */
#define CLIENT_IN (256 << 10)  /* a read of message bytes; an AUTH line fits */
#define CLIENT_OUT (192 << 10) /* see REPLIES_ROOM */
#define SERVER_IN (20 << 10)   /* a reply line; a whole TLS record */
#define SERVER_OUT (576 << 10) /* CLIENT_IN with every octet doubled, and commands */

/* Aligned, so that what every session touches, which is at its start, stands in as few pages as possible. */
static _Alignas(4096) struct session session;
static unsigned char client_in[CLIENT_IN], client_out[CLIENT_OUT], server_in[SERVER_IN], server_out[SERVER_OUT];

/* ---- the poll set ---- */

/* Whether many octets may come from the client at once. */
static bool in_bulk(const struct session *s)
{
	return steps_in_message(s) || s->gate.stage == GATE_TUNNEL;
}

/* The octets of a message or tunnel wait in the client's socket while the server's takes none. From a client that is delayed, by a check
 * or in the tarpit, only LEG_SMALL / 2 octets are read, so that it cannot fill our memory. */
static bool reads_client(const struct session *s)
{
	bool delayed = s->gate.stage == GATE_CHECKS || tarpit_delays(s);

	if (delayed && leg_count(&s->client.leg) >= LEG_SMALL / 2)
		return false;
	return leg_read_room(&s->client.leg) && !(in_bulk(s) && leg_pending(&s->server.leg));
}

static short client_events(const struct session *s)
{
	short events = 0;

	if (talk_ended(s) ? s->end.how == END_LINGER && !s->client.leg.eof : reads_client(s))
		events |= POLLIN;
	if (leg_pending(&s->client.leg))
		events |= POLLOUT;
	if (tarpit_delays(s) && !talk_ended(s))
		events |= POLLRDHUP;
	return events;
}

static short server_events(const struct session *s)
{
	short events = 0;

	if (s->server.leg.fd < 0 || talk_ended(s))
		return 0;
	if (s->server.state == SERVER_CONNECTING)
		return POLLOUT;
	if (leg_read_room(&s->server.leg) && !(s->gate.stage == GATE_TUNNEL && leg_pending(&s->client.leg)))
		events |= POLLIN;
	if (leg_pending(&s->server.leg))
		events |= POLLOUT;
	return events;
}

/* Whether a side that has closed its end of a tunnel may turn out to read no more either: it resets what it is sent. */
static bool may_vanish(const struct session *s, const struct leg *l)
{
	return s->gate.stage == GATE_TUNNEL && !talk_ended(s) && l->eof && !l->shut && !l->broken;
}

/* A descriptor without events is left out, for poll(2) would report its errors and hangups all the same; but for hangup they are wanted. */
static void watch(struct pollfd *p, int fd, short events, bool hangup)
{
	p->fd = events || hangup ? fd : -1;
	p->events = events;
	p->revents = 0;
}

/* Whether TLS has octets that are wanted, and that poll(2) does not know of. */
static bool has_more(const struct leg *l, const struct pollfd *p)
{
	return (p->events & POLLIN) && leg_has_more(l);
}

static void read_leg(struct leg *l, const struct pollfd *p, bool bulk, int64_t now)
{
	if ((p->events & POLLIN) && (p->revents || leg_has_more(l)))
		leg_read(l, bulk, now);
}

/* A delayed client that closes its side gets its reply at once: it may still read it, or be gone, and then is not worth a process.
 * POLLRDHUP is reported even while octets before the close are unread. */
static void note_hangup(struct session *s, short revents)
{
	if (may_vanish(s, &s->client.leg) && revents & (POLLERR | POLLHUP))
		leg_break(&s->client.leg);
	if (!tarpit_delays(s) || talk_ended(s))
		return;
	if (revents & (POLLERR | POLLHUP))
		leg_break(&s->client.leg);
	else if (revents & POLLRDHUP)
		gate_delay(s, s->now);
}

static void wait_and_read(struct session *s, int64_t until)
{
	struct pollfd p[2 + FILTER_POLLED + CHECKS_POLLED + 1 + LOOKUP_POLLED + OBSERVE_POLLED + POLICY_POLLED + TLSREPORT_POLLED];
	unsigned polled = 2;
	struct timespec wait = { 0, 0 };
	sigset_t open_mask;
	int64_t before = s->now, left = until - before;
	bool waits_for_server = steps_in_message(s) && leg_pending(&s->server.leg);

	sigemptyset(&open_mask);
	watch(&p[0], s->client.leg.fd, client_events(s), may_vanish(s, &s->client.leg));
	watch(&p[1], s->server.leg.fd, server_events(s), may_vanish(s, &s->server.leg));
	if (left > 0 && !has_more(&s->client.leg, &p[0]) && !has_more(&s->server.leg, &p[1])) {
		wait.tv_sec = (time_t)(left / SECOND);
		wait.tv_nsec = (long)(left % SECOND) * 1000;
	}
	polled += filter_watch(p + polled);
	polled += checks_watch(s, p + polled);
	polled += identity_watch(s, p + polled);
	polled += server_watch(s, p + polled);
	polled += observe_watch(s, p + polled);
	polled += policy_watch(s, p + polled);
	polled += tlsreport_watch(s, p + polled);
	if (ppoll(p, polled, until == INT64_MAX ? NULL : &wait, &open_mask) < 0)
		p[0].revents = p[1].revents = 0;
	clock_tick(s);
	if (waits_for_server)
		transaction_octets_waited(s, s->now - before);
	note_hangup(s, p[0].revents);
	if (may_vanish(s, &s->server.leg) && p[1].revents & (POLLERR | POLLHUP))
		leg_break(&s->server.leg);
	read_leg(&s->client.leg, &p[0], in_bulk(s), s->now);
	if (s->server.state == SERVER_CONNECTING && p[1].revents)
		server_connected(s);
	else
		read_leg(&s->server.leg, &p[1], s->gate.stage == GATE_TUNNEL, s->now);
}

/* ---- one turn ---- */

/* Note since when the server owes the reply that is awaited: from the end of the last one, or from when the command was sent. */
static void note_awaiting(struct session *s)
{
	struct waiting *w = &s->waiting;
	bool awaiting = dialogue_awaited(&s->dialogue) != SMTP_NOTHING;
	bool anew = !w->awaiting || w->awaited_reply != s->replies.count || w->awaited_in != s->server.state;

	if (awaiting && (anew || leg_pending(&s->server.leg)))
		w->awaiting_since = s->now;
	w->awaiting = awaiting;
	w->awaited_reply = s->replies.count;
	w->awaited_in = s->server.state;
}

/* Whether the client has left. One that has closed its side gets the replies to what it said before, RFC 5321 4.1.1.10. */
static bool client_left(const struct session *s)
{
	const struct leg *client = &s->client.leg;

	if (transaction_outcome_due(s) || !(client->eof || client->broken))
		return false;
	if (client->broken || tarpit_delays(s))
		return client->broken;
	if (dialogue_awaited(&s->dialogue) == SMTP_GREETING)
		return leg_count(client) == 0;
	return s->commands.starved && (steps_in_message(s) || s->dialogue.queued == 0);
}

static void note_server_lost(struct session *s)
{
	if (talk_ended(s) || !s->server.leg.eof)
		return;
	if (serverstate_is_shaking(s))
		server_tls_failed(s, s->server.leg.why);
	else if (serverstate_is_open(s) && s->replies.starved)
		replies_server_lost(s, s->server.leg.why);
}

static void note_termination(struct session *s)
{
	enum dialogue_mail mail = s->dialogue.tx.mail;
	bool in_transaction = mail == DIALOGUE_MAIL_SENT || mail == DIALOGUE_MAIL_OPEN || s->gate.stage == GATE_TUNNEL;

	if (!*s->terminated || talk_ended(s))
		return;
	if (!s->waiting.terminated_at)
		s->waiting.terminated_at = s->now;
	if (transaction_outcome_due(s) || (in_transaction && *s->terminated < 2 &&
	    s->now < s->waiting.terminated_at + s->o->timeouts.drain))
		return;
	talk_reply(s, "421 4.3.2 Service is shutting down");
	talk_end(s, END_LINGER, END_BY_SMTPWARP, "shutting down");
}

/* When the client's QUIT went to the server, and the client has closed its side, close ours towards the server, RFC 5321 4.1.1.10. */
static void pass_half_close(struct session *s)
{
	if (dialogue_quitting(&s->dialogue) && s->client.leg.eof && !s->server.leg.shut && serverstate_is_open(s) &&
	    !s->server.leg.tls && !leg_pending(&s->server.leg))
		leg_shut(&s->server.leg);
}

static void note_end(struct session *s)
{
	if (talk_ended(s))
		return;
	if (client_left(s))
		talk_end(s, END_FLUSH, END_BY_CLIENT, s->client.leg.why);
	if (s->end.how == END_AFTER_REPLIES && s->dialogue.queued == 0)
		talk_end(s, END_LINGER, END_BY_SMTPWARP, "bad commands");
	pass_half_close(s);
	note_termination(s);
}

static void flush(struct session *s)
{
	leg_flush_at(&s->server.leg, s->now);
	leg_flush_at(&s->client.leg, s->now);
}

static void tunnel_turn(struct session *s)
{
	if (clienttls_carry(s))
		s->waiting.active_at = s->now;
	flush(s);
	clienttls_carry_ends(s);
	note_termination(s);
}

static bool secure_server(struct session *s)
{
	bool secured = serverstate_is_shaking(s) && server_handshake(s);

	if (secured)
		hello_secured(s);
	return secured;
}

/* Let each part go on once. true: something was handled or sent, so more may be possible now. */
static bool go_round(struct session *s)
{
	uint64_t to_server = s->server.leg.sent, to_client = s->client.leg.sent;
	bool handled = steps_take(s);

	handled = replies_turn(s) || handled;
	handled = steps_take(s) || handled;
	note_server_lost(s); /* before more of a message is sent */
	handled = commands_turn(s) || handled;
	clienttls_turn(s);
	handled = steps_take(s) || handled;
	handled = maildata_send(s) || handled;
	flush(s);
	handled = secure_server(s) || handled; /* a handshake that resumes a session ends with what was sent now */
	if (handled || s->client.leg.sent != to_client)
		s->waiting.active_at = s->now;
	return handled || s->server.leg.sent != to_server || s->client.leg.sent != to_client;
}

static void turn(struct session *s)
{
	identity_turn(s);
	observe_turn(s);
	tlsreport_turn(s);
	if (s->gate.stage == GATE_TUNNEL) {
		tunnel_turn(s);
		return;
	}
	secure_server(s);
	policy_turn(s);
	server_turn(s); /* which may wait for that */
	checks_turn(s);
	filter_turn(s);
	if (steps_in_message(s))
		transaction_octets_came(s);
	while (go_round(s) && !talk_ended(s))
		;
	note_server_lost(s);
	note_awaiting(s);
	note_end(s);
}

/* ---- the beginning and the end ---- */

/* Bits of enum smtp_verb: commands that wait until all before them are answered, because hooks decide on them or because they are
 * answered here. Else a reply of ours could overtake one of the server's, and hooks would not know which recipients were accepted. */
static uint32_t commands_alone(const struct session *s)
{
	bool checked = s->o->valid_recipients || s->o->override_recipient;
	uint32_t alone = s->o->limits.on_recipient ? 1u << SMTP_RSET | 1u << SMTP_QUIT : 0;

	if (checked || filter_wants(s, HOOK_RCPT) || s->o->routes || policy_may_refuse(s))
		alone |= 1u << SMTP_RCPT;
	if (s->o->limits.mail_late) /* the connection may be closed over a chunk that the server cannot have */
		alone |= 1u << SMTP_BDAT;
	if (filter_wants(s, HOOK_DATA))
		alone |= 1u << SMTP_DATA | 1u << SMTP_BDAT;
	if (s->o->client_tls == CLIENT_TLS_AUTO || s->o->tls_on_recipient)
		alone |= 1u << SMTP_MAIL | 1u << SMTP_RSET | 1u << SMTP_AUTH;
	return alone;
}

/* Give all parts their storage, and values that are not zero. */
static void prepare(struct session *s)
{
	leg_storage(&s->client.leg.in, client_in, sizeof client_in);
	leg_storage(&s->client.leg.out, client_out, sizeof client_out);
	leg_storage(&s->server.leg.in, server_in, sizeof server_in);
	leg_storage(&s->server.leg.out, server_out, sizeof server_out);
	held_prepare(s);
	routing_prepare(s);
	recipient_prepare(s);
	if (s->o->limits.mail_late)
		policy_prepare(s);
	filter_prepare(s);
	server_prepare(s);
	hello_prepare(s);
	refusal_prepare(s);
	observe_begin(s);
	transaction_prepare(s);
}

static void begin(struct session *s, int fd)
{
	clock_tick(s);
	s->started = s->waiting.active_at = s->now;
	prepare(s);
	leg_open(&s->client.leg, fd);
	leg_open(&s->server.leg, -1);
	dialogue_init(&s->dialogue, &s->o->limits);
	dialogue_offers(&s->dialogue, &(struct smtp_offer){ .starttls = clienttls_offers(s) }, false);
	dialogue_set_alone(&s->dialogue, commands_alone(s));
	record_id(s->id);
	identity_begin(s);
}

/* Let the client take its last reply. Octets that it has sent are read to the end, for a close with unread octets resets the connection,
 * and the reply may be lost. */
static void leave_client(struct session *s)
{
	struct leg *client = &s->client.leg;
	bool silent = s->end.how == END_SILENT || (client->tls && !tls_handshake_done(client->tls)), shut = false;
	int64_t since = s->end.at;

	for (;;) {
		int64_t until;

		leg_consume_secret(client, leg_count(client)); /* it may be AUTH */
		if (silent || client->broken)
			break;
		leg_flush(client);
		if (!leg_pending(client)) {
			if (s->end.how != END_LINGER || client->eof)
				break;
			if (!shut) {
				leg_shut(client);
				shut = true;
				since = s->now;
			}
		}
		until = since + (leg_pending(client) ? LAST_FLUSH : LINGER);
		if (s->now >= until)
			break;
		wait_and_read(s, until);
		filter_turn(s); /* reads what `log` hooks print, which would wake poll(2) again and again */
	}
	if (!shut && !client->broken)
		leg_shut(client); /* who has started us may hold the connection until `log` and `close` hooks have ended, systemd does */
	leg_close(client);
}

/* From here on the session is what its client and its server make of it. The port of the original destination is known, and whoever else
 * chooses servers names any port. */
static void confine(const struct session *s)
{
	sandbox_enter(s->o->routes || s->hooks->events & HOOK_ROUTING, net_port(&s->server.original));
}

/* Whether this session itself may still have to connect, or to ask the DNS. */
static bool needs_network(const struct session *s)
{
	return !server_is_final(s) || s->gate.stage == GATE_CHECKS || identity_deadline() != INT64_MAX || observe_may_ask(s) || s->o->tlsrpt ||
	    hooks_connect(s->hooks) || log_connects();
}

/* The client is known only after the PROXY header, so hooks, the DNS and the checks come after it. */
static void start(struct session *s)
{
	const char *fault = identity_accept(s);
	bool left = s->client.leg.eof, located;

	filter_begin(s);
	if (fault) {
		if (!left)
			record_error(s, fault);
		talk_end(s, END_SILENT, left ? END_BY_CLIENT : END_BY_SMTPWARP, fault);
		return;
	}
	located = server_locate(s);
	confine(s);
	if (!located)
		return;
	identity_ask(s);
	steps_begin(s);
}

static void finish(struct session *s)
{
	if (s->gate.stage == GATE_SHAKE)
		clienttls_failed(s, s->end.reason);
	filter_abort(s);
	tarpit_release();
	server_quit(s); /* while the transaction says which side has the message */
	transaction_end(s, transaction_outcome_due(s) ? TRANSACTION_UNKNOWN : TRANSACTION_BY_REPLIES);
	server_close(s);
	leave_client(s);
	if (s->gate.stage == GATE_SECURE)
		held_wipe(s);
	tls_wipe();
	clock_tick(s);
	policy_end(s);
	tlsreport_end(s);
	talk_over(s);
	if (s->end.by == END_BY_NOBODY)
		return;
	observe_end(s);
	record_close(s);
	filter_end(s);
}

static void use(struct session *s, const struct options *o, const struct hook_list *hooks, const volatile sig_atomic_t *terminated)
{
	s->o = o;
	s->hooks = hooks;
	s->terminated = terminated;
}

void session_run(int fd, const struct options *o, const struct hook_list *hooks, const volatile sig_atomic_t *terminated)
{
	struct session *s = &session;

	use(s, o, hooks, terminated);
	begin(s, fd);
	start(s);
	while (!talk_ended(s)) {
		struct steps_deadline d;

		turn(s);
		if (talk_ended(s))
			break;
		if (passes_hold(PASS_NETWORK) && !needs_network(s))
			passes_forget(PASS_NETWORK);
		d = steps_deadline(s);
		if (s->now >= d.at)
			steps_overdue(s, &d);
		else
			wait_and_read(s, d.at);
	}
	finish(s);
}

bool session_try(const struct options *o, const struct hook_list *hooks, const volatile sig_atomic_t *terminated, const char *sample, size_t n)
{
	struct session *s = &session;

	use(s, o, hooks, terminated);
	begin(s, -1);
	tryhook_begin(s, sample, n);
	while (s->gate.stage == GATE_HOOKS && !s->filtered && !*terminated) {
		int64_t until = filter_deadline(s);

		wait_and_read(s, until);
		if (s->now >= until)
			filter_overdue(s);
		else
			filter_turn(s);
	}
	if (s->gate.stage == GATE_HOOKS && !s->filtered) { /* SIGTERM or SIGINT */
		filter_abort(s);
		return false;
	}
	return tryhook_report(s);
}
