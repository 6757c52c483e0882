/* One proxied connection: its poll loop, deadlines and end. See session.h. */
#define _GNU_SOURCE
#include "session/session.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND INT64_C(1000000)
#define LINGER (2 * SECOND)	/* for a client to read a last reply */
#define LAST_FLUSH (10 * SECOND) /* for a client to take it */

/* What can be on its way at once. Only pages that were used take memory. */
#define CLIENT_IN (256 << 10)  /* a read of message bytes; an AUTH line fits */
#define CLIENT_OUT (192 << 10) /* see REPLY_ROOM in relay.c */
#define SERVER_IN (20 << 10)   /* a reply line; a whole TLS record */
#define SERVER_OUT (576 << 10) /* CLIENT_IN with every octet doubled, and commands */

/* Aligned: what every session touches is at its start, and stands in as few pages as can be. */
static _Alignas(4096) struct session session;
static struct session_texts texts;
static struct session_held held;
static unsigned char client_in[CLIENT_IN], client_out[CLIENT_OUT], server_in[SERVER_IN], server_out[SERVER_OUT];

/* ---- replies of ours ---- */

/* ---- deadlines ---- */

enum overdue { NOT_OVERDUE, HOOK_OVERDUE, TARPIT_OVER, SHAKE_OVERDUE, CONNECT_OVERDUE, SERVER_OVERDUE, CLIENT_OVERDUE, STALLED,
	SESSION_OVERDUE };

struct deadline {
	int64_t at; /* INT64_MAX: none */
	enum overdue what;
	const char *reason;
};

static void sooner(struct deadline *d, int64_t since, int64_t after, enum overdue what, const char *reason)
{
	if (after && since + after < d->at) {
		d->at = since + after;
		d->what = what;
		d->reason = reason;
	}
}

static int64_t reply_time(const struct timeouts *t, enum smtp_verb verb)
{
	switch (verb) {
	case SMTP_GREETING:
		return t->banner;
	case SMTP_MAIL:
		return t->mail;
	case SMTP_RCPT:
		return t->rcpt;
	case SMTP_DATA:
		return t->data;
	case SMTP_CONTENT:
	case SMTP_BDAT:
		return t->dot;
	default:
		return t->command;
	}
}

static bool in_message(const struct session *s)
{
	return s->dialogue.client == DIALOGUE_DATA || s->dialogue.client == DIALOGUE_CHUNK ||
	    s->dialogue.client == DIALOGUE_SWALLOW;
}

/* The client is to send: a command, or more of its message at no less than the least rate (else one octet now and
 * then would keep a session for ever). */
static void client_deadline(const struct session *s, struct deadline *d)
{
	const struct timeouts *t = &s->o->timeouts;

	if (!in_message(s)) {
		sooner(d, s->active_at, t->idle, CLIENT_OVERDUE, "client idle");
		if (s->partial_since)
			sooner(d, s->partial_since, t->command, CLIENT_OVERDUE, "client slow to finish a command");
		return;
	}
	sooner(d, s->client_read_at, t->block, CLIENT_OVERDUE, "client silent within a message");
	if (s->o->min_rate && t->block) {
		uint64_t octets = s->client.received - s->content_from;

		sooner(d, s->content_at, t->block + (int64_t)(octets / s->o->min_rate) * SECOND, CLIENT_OVERDUE,
		    "client slow within a message");
	}
}

/* What is said inside is not known, so the longest wait of a healthy session is allowed: for a command, or a reply. */
static void tunnel_deadline(const struct session *s, struct deadline *d)
{
	const struct timeouts *t = &s->o->timeouts;

	if (t->idle && t->dot)
		sooner(d, s->active_at, t->idle > t->dot ? t->idle : t->dot, STALLED, "silence inside of TLS");
	if (leg_pending(&s->server))
		sooner(d, s->server_moved_at, t->block, STALLED, "upstream does not take what is sent");
}

static struct deadline next_deadline(const struct session *s)
{
	struct deadline d = { INT64_MAX, NOT_OVERDUE, NULL };
	const struct timeouts *t = &s->o->timeouts;
	enum smtp_verb awaited = dialogue_awaited(&s->dialogue);

	if (s->ending) {
		sooner(&d, s->end_at, leg_pending(&s->client) ? LAST_FLUSH : LINGER, NOT_OVERDUE, "");
		return d;
	}
	sooner(&d, s->started, t->session, SESSION_OVERDUE, "session too long");
	if (s->terminated_at && !relay_outcome_due(s))
		sooner(&d, s->terminated_at, t->drain, NOT_OVERDUE, ""); /* see note_termination() */
	if (leg_pending(&s->client))
		sooner(&d, s->client_moved_at, t->block, STALLED, "client does not take replies");
	sooner(&d, 0, identity_deadline(), NOT_OVERDUE, "");
	if (s->stage == STAGE_HOOKS)
		sooner(&d, 0, filter_deadline(s), HOOK_OVERDUE, "");
	else if (s->stage == STAGE_CHECKS)
		sooner(&d, 0, checks_deadline(s), NOT_OVERDUE, "");
	else if (s->stage == STAGE_SHAKE)
		sooner(&d, s->shake_at, t->tls, SHAKE_OVERDUE, "TLS handshake timed out");
	else if (s->stage == STAGE_TUNNEL)
		tunnel_deadline(s, &d);
	else if (s->stage == STAGE_TARPIT || s->stage == STAGE_REFUSE)
		sooner(&d, 0, s->tarpit_until, TARPIT_OVER, "");
	else if (s->state == SERVER_RESOLVING)
		sooner(&d, 0, upstream_deadline(s), NOT_OVERDUE, "");
	else if (s->state == SERVER_CONNECTING)
		sooner(&d, s->dialed_at, t->connect, CONNECT_OVERDUE, "connection timed out");
	else if (s->state == SERVER_HANDSHAKE)
		sooner(&d, s->handshake_at, t->tls, CONNECT_OVERDUE, "TLS handshake timed out");
	else if (s->state == SERVER_OPEN && leg_pending(&s->server))
		sooner(&d, s->server_moved_at, t->block, SERVER_OVERDUE, "upstream does not take what is sent");
	else if (s->state == SERVER_OPEN && awaited != SMTP_NOTHING && !in_message(s))
		sooner(&d, s->awaiting_since, reply_time(t, awaited), SERVER_OVERDUE, "upstream did not reply in time");
	else if (!s->name_due) /* else the client waits for us */
		client_deadline(s, &d);
	return d;
}

static void overdue(struct session *s, const struct deadline *d)
{
	switch (d->what) {
	case NOT_OVERDUE:
		return;
	case HOOK_OVERDUE:
		filter_overdue(s);
		return;
	case TARPIT_OVER:
		checks_release();
		if (s->stage == STAGE_REFUSE)
			checks_tarpit_over(s);
		else
			filter_tarpit_over(s);
		return;
	case SHAKE_OVERDUE:
		secure_failed(s, d->reason);
		return;
	case CONNECT_OVERDUE:
		if (s->state == SERVER_HANDSHAKE)
			upstream_tls_failed(s, d->reason);
		else
			upstream_failed(s, "4.4.1", d->reason);
		return;
	case SERVER_OVERDUE:
		relay_server_lost(s, d->reason);
		return;
	case CLIENT_OVERDUE:
	case SESSION_OVERDUE:
		if (relay_outcome_due(s)) /* no reply of ours may stand where the server's belongs */
			s->silent = true;
		else
			session_replyf(s, "421 4.4.2 %s", d->reason);
		session_end(s, "smtpwarp", d->reason);
		s->linger = true;
		return;
	case STALLED:
		session_end(s, "smtpwarp", d->reason);
		s->silent = true;
		return;
	}
}

/* ---- the poll set ---- */

/* Octets in bulk may come from the client. */
static bool in_bulk(const struct session *s)
{
	return in_message(s) || s->stage == STAGE_TUNNEL;
}

/* The client waits for an answer that is there. */
static bool is_held(const struct session *s)
{
	return s->stage == STAGE_REFUSE || s->stage == STAGE_TARPIT;
}

/* They wait in its socket while the server's has no room, and all but a little while it is held up for what it did: it is
 * not to fill our memory. */
static bool reads_client(const struct session *s)
{
	if ((s->stage == STAGE_CHECKS || is_held(s)) && leg_count(&s->client) >= LEG_SMALL / 2)
		return false;
	return leg_read_room(&s->client) && !(in_bulk(s) && leg_pending(&s->server));
}

static short client_events(const struct session *s)
{
	short events = 0;

	if (s->ending ? s->linger && !s->client.eof : reads_client(s))
		events |= POLLIN;
	if (leg_pending(&s->client))
		events |= POLLOUT;
	if (is_held(s))
		events |= POLLRDHUP;
	return events;
}

static short server_events(const struct session *s)
{
	short events = 0;

	if (s->server.fd < 0)
		return 0;
	if (s->state == SERVER_CONNECTING)
		return POLLOUT;
	if (leg_read_room(&s->server) && !(s->stage == STAGE_TUNNEL && leg_pending(&s->client)))
		events |= POLLIN;
	if (leg_pending(&s->server))
		events |= POLLOUT;
	return events;
}

/* poll(2) reports an error or hangup on a descriptor even when nothing is asked of it; one of which nothing is asked
 * is left out. */
static void watch(struct pollfd *p, int fd, short events)
{
	p->fd = events ? fd : -1;
	p->events = events;
	p->revents = 0;
}

static void read_leg(struct leg *l, const struct pollfd *p, bool bulk, int64_t now, int64_t *read_at)
{
	if ((p->events & POLLIN) && (p->revents || leg_has_more(l))) {
		uint64_t before = l->received;

		leg_read(l, bulk);
		if (l->received != before)
			*read_at = now;
	}
}

/* before: octets sent when the turn began. */
static void flush_leg(struct leg *l, uint64_t before, int64_t now, int64_t *moved_at)
{
	leg_flush(l);
	if (l->sent != before || !leg_pending(l))
		*moved_at = now;
}

/* A held client that closes its side is held no longer: it may still read its answer, or be gone (one cannot tell), and then is not
 * worth a process. It is seen even behind octets that are not read yet. */
static void note_hangup(struct session *s, short revents)
{
	if (!is_held(s))
		return;
	if (revents & (POLLERR | POLLHUP))
		leg_break(&s->client);
	else if (revents & POLLRDHUP)
		s->tarpit_until = s->now;
}

/* Inside TLS there is something that poll(2) does not know of. */
static bool has_more(const struct leg *l, const struct pollfd *p)
{
	return (p->events & POLLIN) && leg_has_more(l);
}

static void wait_and_read(struct session *s, const struct deadline *d)
{
	struct pollfd p[2 + FILTER_POLLED + CHECKS_POLLED + 1 + LOOKUP_POLLED];
	unsigned polled = 2;
	struct timespec wait = { 0, 0 };
	sigset_t open_mask;
	int64_t left = d->at - s->now, unused;

	sigemptyset(&open_mask);
	watch(&p[0], s->client.fd, client_events(s));
	watch(&p[1], s->server.fd, s->ending ? 0 : server_events(s));
	if (left > 0 && !has_more(&s->client, &p[0]) && !has_more(&s->server, &p[1])) {
		wait.tv_sec = (time_t)(left / SECOND);
		wait.tv_nsec = (long)(left % SECOND) * 1000;
	}
	polled += filter_watch(s, p + polled);
	polled += checks_watch(s, p + polled);
	polled += identity_watch(s, p + polled);
	polled += upstream_watch(s, p + polled);
	if (ppoll(p, polled, d->at == INT64_MAX ? NULL : &wait, &open_mask) < 0)
		p[0].revents = p[1].revents = 0;
	if (in_message(s) && leg_pending(&s->server))
		s->content_at += clock_us() - s->now; /* waiting for the server is not the client's fault */
	s->now = clock_us();
	note_hangup(s, p[0].revents);
	read_leg(&s->client, &p[0], in_bulk(s), s->now, &s->client_read_at);
	if (s->state == SERVER_CONNECTING && p[1].revents)
		upstream_connected(s);
	else
		read_leg(&s->server, &p[1], s->stage == STAGE_TUNNEL, s->now, &unused);
}

/* ---- one turn ---- */

/* When the reply that is owed now began to be owed. */
static void note_awaiting(struct session *s)
{
	bool awaiting = dialogue_awaited(&s->dialogue) != SMTP_NOTHING;

	if (awaiting && (!s->awaiting || s->awaited_reply != s->replies || leg_pending(&s->server)))
		s->awaiting_since = s->now;
	s->awaiting = awaiting;
	s->awaited_reply = s->replies;
}

/* A client that closed its side still gets the replies to what it said before (RFC 5321 4.1.1.10). */
static bool client_left(const struct session *s)
{
	if (relay_outcome_due(s) || !(s->client.eof || s->client.broken))
		return false;
	if (s->client.broken || is_held(s))
		return s->client.broken;
	if (dialogue_awaited(&s->dialogue) == SMTP_GREETING)
		return leg_count(&s->client) == 0;
	return s->client_starved && (in_message(s) || s->dialogue.queued == 0);
}

static void note_server_lost(struct session *s)
{
	if (s->ending || !s->server.eof)
		return;
	if (s->state == SERVER_HANDSHAKE)
		upstream_tls_failed(s, s->server.why);
	else if (s->state == SERVER_OPEN && s->server_starved)
		relay_server_lost(s, s->server.why);
}

static void note_termination(struct session *s)
{
	enum dialogue_mail mail = s->dialogue.tx.mail;
	bool in_transaction = mail == DIALOGUE_MAIL_SENT || mail == DIALOGUE_MAIL_OPEN || s->stage == STAGE_TUNNEL;

	if (!*s->terminated || s->ending)
		return;
	if (!s->terminated_at)
		s->terminated_at = s->now;
	if (relay_outcome_due(s) || (in_transaction && *s->terminated < 2 &&
	    s->now < s->terminated_at + s->o->timeouts.drain))
		return;
	session_reply(s, "421 4.3.2 Service is shutting down");
	session_end(s, "smtpwarp", "shutting down");
	s->linger = true;
}

static void note_end(struct session *s)
{
	if (s->ending)
		return;
	if (client_left(s))
		session_end(s, "client", s->client.why);
	if (s->closing && s->dialogue.queued == 0) {
		session_end(s, "smtpwarp", "bad commands");
		s->linger = true;
	}
	if (s->quit && s->client.eof && !s->shut && s->state == SERVER_OPEN && !s->server.tls && !leg_pending(&s->server)) {
		shutdown(s->server.fd, SHUT_WR);
		s->shut = true;
	}
	note_termination(s);
}

static void tunnel_turn(struct session *s)
{
	uint64_t to_server = s->server.sent, to_client = s->client.sent;

	secure_carry(s);
	flush_leg(&s->server, to_server, s->now, &s->server_moved_at);
	flush_leg(&s->client, to_client, s->now, &s->client_moved_at);
	secure_carry_ends(s);
	note_termination(s);
}

static void turn(struct session *s)
{
	uint64_t handled, to_server, to_client;

	identity_turn(s);
	if (s->stage == STAGE_TUNNEL) {
		tunnel_turn(s);
		return;
	}
	if (s->state == SERVER_HANDSHAKE)
		upstream_handshake(s);
	upstream_look(s);
	checks_turn(s);
	filter_turn(s);
	do {
		handled = s->handled;
		to_server = s->server.sent;
		to_client = s->client.sent;
		relay_server(s);
		note_server_lost(s); /* before more of a message is sent */
		relay_client(s);
		secure_turn(s);
		keep_send(s);
		flush_leg(&s->server, to_server, s->now, &s->server_moved_at);
		flush_leg(&s->client, to_client, s->now, &s->client_moved_at);
	} while (!s->ending && (s->handled != handled || s->server.sent != to_server || s->client.sent != to_client));
	note_server_lost(s);
	note_awaiting(s);
	note_end(s);
}

/* ---- begin and end ---- */

/* Commands that hooks decide on, or that are answered here, wait until all before them are answered: a reply of ours must
 * not overtake a server's, and hooks are to know which recipients stand. */
static uint32_t commands_alone(const struct session *s)
{
	bool checked = s->o->valid_recipients || s->o->override_recipient;
	uint32_t alone = s->late ? 1u << SMTP_RSET | 1u << SMTP_QUIT | 1u << SMTP_BDAT : 0;

	if (checked || filter_wants(s, HOOK_RCPT) || s->o->routes)
		alone |= 1u << SMTP_RCPT;
	if (filter_wants(s, HOOK_DATA))
		alone |= 1u << SMTP_DATA | 1u << SMTP_BDAT;
	return alone;
}

static void begin(struct session *s, int fd, const struct options *o, const struct hook_list *hooks,
    const volatile sig_atomic_t *terminated)
{
	s->o = o;
	s->hooks = hooks;
	s->late = o->limits.on_recipient;
	s->terminated = terminated;
	s->now = s->started = s->active_at = s->client_read_at = s->client_moved_at = s->server_moved_at = clock_us();
	s->times = (struct record_times){ -1, -1, -1, -1, -1, -1, -1 };
	s->claim = -1;
	s->text = &texts;
	s->held = &held;
	s->message.fd = -1;
	leg_storage(&s->client.in, client_in, sizeof client_in);
	leg_storage(&s->client.out, client_out, sizeof client_out);
	leg_storage(&s->server.in, server_in, sizeof server_in);
	leg_storage(&s->server.out, server_out, sizeof server_out);
	leg_open(&s->client, fd);
	leg_open(&s->server, -1);
	dialogue_init(&s->dialogue, &o->limits);
	s->dialogue.offer.starttls = secure_offers(s);
	s->dialogue.limits.alone |= commands_alone(s);
	s->view.dialogue = &s->dialogue;
	s->view.notes = &texts.notes;
	s->view.helo = s->helo;
	s->view.server_path = s->host;
	record_id(s->view.id);
	net_ends(fd, &s->local, &s->peer);
	s->view.client = s->peer;
	net_nodelay(fd);
}

/* The client gets its last reply; a close with unread bytes in the socket could take it away again. */
static void leave_client(struct session *s)
{
	bool shut = false;

	if (s->client.tls && !tls_handshake_done(s->client.tls))
		s->silent = true;
	while (!s->silent && !s->client.broken) {
		struct deadline d;

		leg_consume(&s->client, leg_count(&s->client));
		leg_flush(&s->client);
		if (!leg_pending(&s->client)) {
			if (!s->linger || s->client.eof)
				break;
			if (!shut) {
				leg_shut(&s->client);
				shut = true;
				s->end_at = s->now;
			}
		}
		d = next_deadline(s);
		if (s->now >= d.at)
			break;
		wait_and_read(s, &d);
		filter_turn(s); /* else what `log` hooks print would wake us for ever */
	}
	leg_close(&s->client);
}

/* Hooks that nobody can list may be the ones that matter. */
void session_checked(struct session *s)
{
	static struct filter_outcome outcome; /* no stack for what hardly any session needs */

	s->active_at = s->now;
	if (s->hooks->broken[0])
		record_error(&s->view, s->hooks->broken);
	if (s->hooks->broken[0] && !s->o->hook_failure_accepts) {
		filter_out_of_order(&outcome);
		relay_filtered(s, HOOK_CONNECT, &outcome);
	} else if (filter_wants(s, HOOK_CONNECT)) {
		filter_run(s, HOOK_CONNECT);
	} else {
		upstream_start(s);
	}
}

/* A proxy before us says who the client is before anybody is asked about it. */
static void start_session(struct session *s)
{
	const char *fault = identity_accept(s);

	filter_begin(s);
	if (fault) {
		if (!s->client.eof)
			record_error(&s->view, fault);
		session_end(s, s->client.eof ? "client" : "smtpwarp", fault);
		s->silent = true;
		return;
	}
	if (!upstream_locate(s))
		return;
	identity_ask(s);
	if (s->o->client_tls == CLIENT_TLS_IMPLICIT)
		secure_begin(s);
	else
		checks_start(s);
}

void session_run(int fd, const struct options *o, const struct hook_list *hooks, const volatile sig_atomic_t *terminated)
{
	struct session *s = &session;

	begin(s, fd, o, hooks, terminated);
	start_session(s);
	while (!s->ending) {
		struct deadline d;

		turn(s);
		if (s->ending)
			break;
		d = next_deadline(s);
		if (s->now >= d.at) {
			overdue(s, &d);
			continue;
		}
		wait_and_read(s, &d);
	}
	if (s->stage == STAGE_SHAKE)
		secure_failed(s, s->totals.reason);
	filter_abort(s);
	checks_release();
	relay_end_transaction(s, relay_outcome_due(s) ? "unknown" : NULL);
	upstream_leave(s);
	leave_client(s);
	tls_wipe();
	s->totals.client_in = s->client.received;
	s->totals.client_out = s->client.sent;
	s->totals.server_in += s->server.received;
	s->totals.server_out += s->server.sent;
	s->totals.duration = clock_us() - s->started;
	s->totals.dropped = log_dropped();
	if (!s->totals.by)
		return;
	record_close(&s->view, &s->times, &s->totals);
	filter_end(s);
}
