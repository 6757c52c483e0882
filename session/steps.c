/* What follows what, and when each wait is over. See steps.h for the contract. */
#include "session/steps.h"
#include "session/checks.h"
#include "session/clienttls.h"
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
#include "session/replies.h"
#include "session/routing.h"
#include "session/server.h"
#include "session/serverstate.h"
#include "session/talk.h"
#include "session/tarpit.h"
#include "session/tlsreport.h"
#include "session/transaction.h"

#include <stdio.h>

#define SECOND INT64_C(1000000)

/* ---- at connect ---- */

void steps_begin(struct session *s)
{
	if (s->o->client_tls != CLIENT_TLS_IMPLICIT)
		checks_start(s);
	else if (checks_admit(s))
		clienttls_begin(s);
}

/* Checks and hooks have let the client in: it gets the server's banner, or with --connect-on recipient ours. */
static void let_in(struct session *s)
{
	if (s->client.leg.eof && !leg_count(&s->client.leg)) /* nobody waits for a greeting: the session ends */
		return;
	if (s->o->limits.mail_late)
		routing_begin_session(s);
	if (!s->o->limits.on_recipient) {
		server_connect(s);
		return;
	}
	if (!checks_too_early(s))
		hello_banner(s);
}

static void end_by_filter(struct session *s)
{
	talk_end(s, END_LINGER, END_BY_SMTPWARP, "a hook closed it");
}

/* A refusal in place of the banner is 554, or 421 for now: RFC 5321 3.1. */
static void filtered_connect(struct session *s, const struct filter_outcome *o)
{
	if (o->word == FILTER_ACCEPT) {
		let_in(s);
		return;
	}
	dialogue_forget_server(&s->dialogue);
	talk_wrapped(s, o->code == 550 ? 554 : o->code / 100 == 4 ? 421 : o->code, o->enhanced, o->text, o->text_len);
	end_by_filter(s);
}

/* When the hooks cannot be listed, the one that would refuse may be among them: that counts as a hook that has failed. */
static void passed_checks(struct session *s)
{
	static struct filter_outcome outcome; /* static: hardly any session needs it, and no other should pay in stack */

	if (s->hooks->broken[0])
		record_error(s, s->hooks->broken);
	if (s->hooks->broken[0] && !s->o->hook_failure_accepts) {
		filter_out_of_order(&outcome);
		filtered_connect(s, &outcome);
	} else if (filter_wants(s, HOOK_CONNECT)) {
		filter_run(s, HOOK_CONNECT);
	} else {
		let_in(s);
	}
}

/* ---- what hooks decided ---- */

static void filtered_command(struct session *s, const struct filter_outcome *o)
{
	const struct smtp_command *cmd = &s->held->cmd;

	if (o->word == FILTER_ACCEPT) {
		commands_pass_held(s);
		return;
	}
	held_comm(s, cmd, COMM_TAKEN);
	talk_wrapped(s, o->code, o->enhanced, o->text, o->text_len);
	if (cmd->verb == SMTP_MAIL || cmd->verb == SMTP_RCPT)
		held_note_by_hook(s, o->code, o->enhanced, o->text, o->text_len);
	else
		hello_restore_name(s);
	if (o->word == FILTER_CLOSE)
		end_by_filter(s);
}

static void filtered_message(struct session *s, const struct filter_outcome *o)
{
	switch (o->word) {
	case FILTER_ACCEPT:
		maildata_send_kept(s);
		return;
	case FILTER_DISCARD:
		talk_reply(s, TALK_OK);
		dialogue_decide(&s->dialogue, 250, (const unsigned char *)TALK_OK + 4, sizeof TALK_OK - 5);
		talk_repeat(s, NULL);
		maildata_end(s, TRANSACTION_DISCARDED);
		return;
	case FILTER_REFUSE:
	case FILTER_CLOSE:
		for (uint32_t due = dialogue_replies_due(&s->dialogue); due > 1; due--) /* one line for each further recipient */
			talk_wrapped(s, o->code, o->enhanced, o->text, o->text_len < 480 ? o->text_len : 480);
		talk_wrapped(s, o->code, o->enhanced, o->text, o->text_len);
		dialogue_decide_enhanced(&s->dialogue, o->code, o->enhanced, o->text, o->text_len);
		dialogue_judge(&s->dialogue, SMTP_DATA, DIALOGUE_BY_HOOK, REPLY_OK, REPLY_OF_MESSAGE);
		maildata_end(s, TRANSACTION_BY_REPLIES);
		if (o->word == FILTER_CLOSE)
			end_by_filter(s);
	}
}

/* ---- what parts have come to ---- */

static bool take_passed(struct session *s)
{
	if (!s->checks.passed)
		return false;
	checks_take_passed(s);
	passed_checks(s);
	return true;
}

/* The gate stays at GATE_HOOKS until the outcome is taken, so that no command slips in between. */
static bool take_filtered(struct session *s)
{
	const struct filter_outcome *outcome;
	enum hook_event event;

	if (!s->filtered)
		return false;
	if (s->gate.stage == GATE_HOOKS)
		gate_enter(s, GATE_OPEN);
	event = filter_take(s, &outcome);
	if (event == HOOK_CONNECT)
		filtered_connect(s, outcome);
	else if (event == HOOK_DATA)
		filtered_message(s, outcome);
	else
		filtered_command(s, outcome);
	return true;
}

/* The session begins anew, RFC 3207 4.2. */
static bool take_secured(struct session *s)
{
	if (!s->secured)
		return false;
	transaction_end(s, TRANSACTION_BY_REPLIES); /* there is one only if its MAIL was refused */
	dialogue_encrypted(&s->dialogue);
	hello_forget(s);
	clienttls_accept(s);
	gate_enter(s, GATE_OPEN);
	if (s->o->client_tls == CLIENT_TLS_IMPLICIT) {
		checks_start(s);
		checks_turn(s); /* nothing may be left to wait for */
	}
	return true;
}

static bool take_told(struct session *s)
{
	if (!s->client.told)
		return false;
	identity_take_told(s);
	if (s->gate.stage == GATE_SERVER) {
		recipient_send_mail(s);
	} else {
		gate_enter(s, GATE_OPEN);
		held_send(s);
	}
	return true;
}

static bool take_ready(struct session *s)
{
	if (!s->hello.ready)
		return false;
	hello_take_ready(s);
	if (s->gate.stage == GATE_SECURE)
		commands_secured(s);
	else
		recipient_server_ready(s);
	return true;
}

static bool take_server_news(struct session *s)
{
	char reply[300];

	switch (server_take_news(s)) {
	case SERVER_NO_NEWS:
		return false;
	case SERVER_OUT:
		if (s->gate.stage == GATE_SECURE)
			commands_not_secured(s, s->server.text->failure);
		else
			recipient_unreachable(s, s->server.text->failure);
		return true;
	case SERVER_LOST:
		snprintf(reply, sizeof reply, "421 %s", s->server.text->failure);
		recipient_end(s, END_BY_SERVER, reply);
		return true;
	}
	return false;
}

static bool take_policy(struct session *s)
{
	const char *refusal;

	if (!s->policy->news)
		return false;
	refusal = policy_take(s);
	gate_enter(s, GATE_OPEN);
	recipient_policy_known(s, refusal);
	return true;
}

static bool take_one(struct session *s)
{
	switch (s->gate.stage) {
	case GATE_OPEN:
		return take_passed(s) || take_filtered(s);
	case GATE_HOOKS:
		return take_filtered(s);
	case GATE_SERVER:
		return take_ready(s) || take_told(s) || take_server_news(s);
	case GATE_LIST:
		return take_server_news(s);
	case GATE_POLICY:
		return take_policy(s);
	case GATE_SECURE:
		return take_ready(s) || take_server_news(s);
	case GATE_TOLD:
		return take_told(s);
	case GATE_SHAKE:
		return take_secured(s);
	case GATE_CHECKS:
	case GATE_TARPIT:
	case GATE_KEPT:
	case GATE_STARTTLS:
	case GATE_TUNNEL:
		break;
	}
	return false;
}

bool steps_take(struct session *s)
{
	bool took = false;

	while (!talk_ended(s) && take_one(s))
		took = true;
	return took;
}

/* ---- deadlines ---- */

/* Make this the deadline, if it comes before the one in *d. after 0: no limit. */
static void sooner(struct steps_deadline *d, int64_t since, int64_t after, enum steps_overdue what, const char *reason)
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

bool steps_in_message(const struct session *s)
{
	return dialogue_in_content(&s->dialogue) || s->dialogue.client == DIALOGUE_SWALLOW;
}

/* The client must send more of its message within --block-timeout, and at no less than --min-rate over that time: else one octet now and
 * then would keep a session for ever. */
static void message_deadline(const struct session *s, struct steps_deadline *d)
{
	const struct timeouts *t = &s->o->timeouts;
	int64_t read_at = s->client.leg.read_at, counted = s->tx.content_at;

	sooner(d, read_at > counted ? read_at : counted, t->block, STEPS_CLIENT_OVERDUE, "client silent within a message");
	if (s->o->min_rate)
		sooner(d, counted, t->block, STEPS_CLIENT_OVERDUE, "client slow within a message");
}

static void client_deadline(const struct session *s, struct steps_deadline *d)
{
	const struct timeouts *t = &s->o->timeouts;

	if (steps_in_message(s)) {
		message_deadline(s, d);
		return;
	}
	sooner(d, s->waiting.active_at, t->idle, STEPS_CLIENT_OVERDUE, "client idle");
	if (s->commands.partial_since)
		sooner(d, s->commands.partial_since, t->command, STEPS_CLIENT_OVERDUE, "client slow to finish a command");
}

static const char stalls[] = "upstream does not take what is sent";

/* What is said in a tunnel is not known, so it may be silent as long as a healthy session can be: waiting for a command, or for the reply
 * to a message. */
static void tunnel_deadline(const struct session *s, struct steps_deadline *d)
{
	const struct timeouts *t = &s->o->timeouts;

	if (t->idle && t->dot)
		sooner(d, s->waiting.active_at, t->idle > t->dot ? t->idle : t->dot, STEPS_STALLED, "silence inside of TLS");
	if (leg_pending(&s->server.leg))
		sooner(d, s->server.leg.moved_at, t->block, STEPS_STALLED, stalls);
}

/* The server is connected: it must take what is sent, and reply; if it owes nothing, it is the client's turn. */
static void open_deadline(const struct session *s, struct steps_deadline *d)
{
	const struct timeouts *t = &s->o->timeouts;
	enum smtp_verb awaited = dialogue_awaited(&s->dialogue);

	if (leg_pending(&s->server.leg))
		sooner(d, s->server.leg.moved_at, t->block, STEPS_SERVER_OVERDUE, stalls);
	else if (awaited != SMTP_NOTHING && !steps_in_message(s))
		sooner(d, s->waiting.awaiting_since, reply_time(t, awaited), STEPS_SERVER_OVERDUE, "upstream did not reply in time");
	else if (!s->client.name_due) /* while the host name is looked up, the client waits for us */
		client_deadline(s, d);
}

static void state_deadline(const struct session *s, struct steps_deadline *d)
{
	const struct timeouts *t = &s->o->timeouts;

	switch (s->server.state) {
	case SERVER_RESOLVING:
		sooner(d, 0, server_deadline(s), STEPS_NOT_OVERDUE, "");
		return;
	case SERVER_CONNECTING:
		sooner(d, s->server.dialed_at, t->connect, STEPS_CONNECT_OVERDUE, "connection timed out");
		return;
	case SERVER_SHAKE_FIRST:
	case SERVER_SHAKE:
		sooner(d, s->server.handshake_at, t->tls, STEPS_CONNECT_OVERDUE, "TLS handshake timed out");
		return;
	case SERVER_BANNER:
	case SERVER_IDLE:
	case SERVER_EHLO:
	case SERVER_STARTTLS:
	case SERVER_EHLO_TLS:
	case SERVER_XCLIENT:
	case SERVER_EHLO_AGAIN:
	case SERVER_AUTH:
	case SERVER_HELO:
	case SERVER_READY:
	case SERVER_TUNNEL:
		open_deadline(s, d);
		return;
	case SERVER_NONE:
	case SERVER_GONE:
		if (!s->client.name_due)
			client_deadline(s, d);
	}
}

static void gate_deadline(const struct session *s, struct steps_deadline *d)
{
	switch (s->gate.stage) {
	case GATE_HOOKS:
		sooner(d, 0, filter_deadline(s), STEPS_HOOK_OVERDUE, "");
		return;
	case GATE_CHECKS:
		sooner(d, 0, checks_deadline(s), STEPS_NOT_OVERDUE, "");
		return;
	case GATE_SHAKE:
		sooner(d, s->shake_at, s->o->timeouts.tls, STEPS_SHAKE_OVERDUE, "TLS handshake timed out");
		return;
	case GATE_TUNNEL:
		tunnel_deadline(s, d);
		return;
	case GATE_TARPIT:
		sooner(d, 0, s->gate.tarpit_until, STEPS_TARPIT_OVER, "");
		return;
	case GATE_POLICY: /* policy_deadline() */
		return;
	case GATE_OPEN:
	case GATE_SERVER:
	case GATE_LIST:
	case GATE_TOLD:
	case GATE_SECURE:
	case GATE_KEPT:
	case GATE_STARTTLS:
		state_deadline(s, d);
	}
}

struct steps_deadline steps_deadline(const struct session *s)
{
	struct steps_deadline d = { INT64_MAX, STEPS_NOT_OVERDUE, NULL };
	const struct timeouts *t = &s->o->timeouts;

	sooner(&d, s->started, t->session, STEPS_CLIENT_OVERDUE, "session too long");
	if (s->waiting.terminated_at && !transaction_outcome_due(s))
		sooner(&d, s->waiting.terminated_at, t->drain, STEPS_NOT_OVERDUE, ""); /* session.c looks at it then */
	if (leg_pending(&s->client.leg))
		sooner(&d, s->client.leg.moved_at, t->block, STEPS_STALLED, "client does not take replies");
	sooner(&d, 0, identity_deadline(), STEPS_NOT_OVERDUE, "");
	sooner(&d, 0, observe_deadline(s), STEPS_NOT_OVERDUE, "");
	sooner(&d, 0, policy_deadline(s), STEPS_NOT_OVERDUE, "");
	sooner(&d, 0, tlsreport_deadline(s), STEPS_NOT_OVERDUE, "");
	gate_deadline(s, &d);
	return d;
}

/* What the tarpit has delayed is a refusal of the checks, or what hooks have decided. */
static void tarpit_over(struct session *s)
{
	tarpit_release();
	gate_enter(s, GATE_OPEN);
	if (checks_have_reply())
		checks_give_reply(s);
	else
		filter_tarpit_over(s);
}

void steps_overdue(struct session *s, const struct steps_deadline *d)
{
	switch (d->what) {
	case STEPS_NOT_OVERDUE:
		return;
	case STEPS_HOOK_OVERDUE:
		filter_overdue(s);
		return;
	case STEPS_TARPIT_OVER:
		tarpit_over(s);
		return;
	case STEPS_SHAKE_OVERDUE:
		clienttls_failed(s, d->reason);
		return;
	case STEPS_CONNECT_OVERDUE:
		if (serverstate_is_shaking(s))
			server_tls_failed(s, d->reason);
		else
			server_timed_out(s, d->reason);
		return;
	case STEPS_SERVER_OVERDUE:
		replies_server_lost(s, d->reason);
		return;
	case STEPS_CLIENT_OVERDUE:
		if (transaction_outcome_due(s)) { /* no reply of ours may stand where the server's belongs */
			talk_end(s, END_SILENT, END_BY_SMTPWARP, d->reason);
			return;
		}
		talk_replyf(s, "421 4.4.2 %s", d->reason);
		talk_end(s, END_LINGER, END_BY_SMTPWARP, d->reason);
		return;
	case STEPS_STALLED:
		talk_end(s, END_SILENT, END_BY_SMTPWARP, d->reason);
	}
}
