/* A mail transaction. See transaction.h for the contract. */
#include "session/transaction.h"
#include "session/kept.h"
#include "session/legal.h"
#include "session/observe.h"
#include "session/record.h"
#include "session/serverstate.h"
#include "session/talk.h"

#include <stdio.h>

const char transaction_no_memory[] = "452 4.3.1 No room for a message of this size";

/* Written only if there is something to forget, so that an idle session does not touch their page. */
static void forget_times(struct session *s)
{
	struct transaction_times *t = s->tx.times;

	if (!t->began_at)
		return;
	t->mail = t->rcpt = t->data = t->data_reply = t->accept = -1;
	t->began_at = t->rcpt_at = t->data_at = 0;
}

void transaction_prepare(struct session *s)
{
	static char drained[TRANSACTION_DRAINED];
	static struct transaction_times times = { .mail = -1, .rcpt = -1, .data = -1, .data_reply = -1, .accept = -1 };

	s->tx.drained = drained;
	s->tx.times = &times;
	s->tx.message.fd = -1;
	forget_times(s);
}

bool transaction_outcome_due(const struct session *s)
{
	const struct dialogue *d = &s->dialogue;

	return serverstate_is_open(s) && d->tx.complete && !s->server.leg.lost && dialogue_awaited(d) != SMTP_NOTHING;
}

/* ---- its message ---- */

void transaction_enter(struct session *s, enum content_state content)
{
#define CONTENT_BIT(state) 1u << CONTENT_##state
#define X(state, next) [CONTENT_##state] = next,
	static const uint32_t follows[] = { CONTENT_STATES(X) };
#undef X
#undef CONTENT_BIT

	LEGAL(follows, s->tx.content, content);
	s->tx.content = content;
}

bool transaction_is_kept(const struct session *s)
{
	switch (s->tx.content) {
	case CONTENT_NONE:
	case CONTENT_PASSING:
	case CONTENT_DRAINING:
	case CONTENT_SENT:
	case CONTENT_SENT_LATE:
		return false;
	case CONTENT_KEEPING:
	case CONTENT_SPOILED:
	case CONTENT_WHOLE:
	case CONTENT_ASKED:
	case CONTENT_SENDING:
	case CONTENT_SENDING_CHUNK:
		break;
	}
	return true;
}

bool transaction_is_whole(const struct session *s)
{
	return transaction_is_kept(s) && !dialogue_in_content(&s->dialogue) && s->gate.stage != GATE_OPEN;
}

const char *transaction_fault(const struct session *s)
{
	const struct dialogue *d = &s->dialogue;
	uint64_t limit = s->o->limits.message_size;

	if (d->client != DIALOGUE_DATA)
		return NULL;
	if (limit && d->tx.octets > limit)
		return DIALOGUE_TOO_LARGE;
	if (d->scanner.broken && s->o->limits.newline == SMTP_NL_REJECT)
		return "554 5.6.0 A bare carriage return or line feed is not allowed in a message";
	return NULL;
}

void transaction_octets_begin(struct session *s)
{
	s->tx.content_at = s->now;
	s->tx.content_from = s->client.leg.received;
}

/* Octets that come faster are no credit for later: else ten megabytes would buy a day at an octet every few minutes. */
void transaction_octets_came(struct session *s)
{
	uint64_t came = s->client.leg.received - s->tx.content_from;
	int64_t covered = s->o->min_rate ? (int64_t)(came * 1000000 / s->o->min_rate) : 0;

	if (!covered) /* not a microsecond yet: they add up */
		return;
	s->tx.content_from += came;
	s->tx.content_at = covered < s->now - s->tx.content_at ? s->tx.content_at + covered : s->now;
}

void transaction_octets_waited(struct session *s, int64_t duration)
{
	s->tx.content_at += duration;
}

void transaction_keep(struct session *s)
{
	if (!transaction_is_kept(s)) {
		message_begin(&s->tx.message);
		s->tx.made_eightbit = false;
		transaction_enter(s, CONTENT_KEEPING);
	}
	transaction_octets_begin(s);
}

const char *transaction_add(struct session *s, const void *bytes, size_t n)
{
	const char *full = kept_grow(s, s->tx.message.size + n);

	if (full)
		return full;
	message_add(&s->tx.message, bytes, n);
	return s->tx.message.failed ? transaction_no_memory : NULL;
}

static void forget_message(struct session *s)
{
	message_drop(&s->tx.message);
	kept_release(s);
}

bool transaction_seal(struct session *s)
{
	if (!message_seal(&s->tx.message))
		return false;
	s->tx.sent = 0;
	transaction_enter(s, CONTENT_WHOLE);
	return true;
}

void transaction_spoil(struct session *s, const char *reply)
{
	forget_message(s);
	s->tx.spoiled = reply;
	transaction_enter(s, CONTENT_SPOILED);
}

void transaction_drain(struct session *s, const char *reply)
{
	snprintf(s->tx.drained, TRANSACTION_DRAINED, "%s", reply);
	if (s->tx.content == CONTENT_KEEPING)
		forget_message(s);
	transaction_enter(s, CONTENT_DRAINING);
}

void transaction_progress(struct session *s, size_t n)
{
	s->tx.sent += n;
}

/* If the server has said something by now that answers no earlier command, it spoke before it had the end of the message. */
void transaction_content_sent(struct session *s)
{
	bool spoke = leg_count(&s->server.leg) || leg_has_more(&s->server.leg);

	transaction_enter(s, s->dialogue.queued <= 1 && spoke ? CONTENT_SENT_LATE : CONTENT_SENT);
	s->tx.times->sent_at = s->now;
	forget_message(s);
}

static bool is_seven_bit(const struct session *s)
{
	return smtp_is_seven_bit(s->tx.message.bytes, (size_t)s->tx.message.size);
}

/* seven: whether it was seven-bit before. */
static void note_edit(struct session *s, bool seven)
{
	s->tx.made_eightbit = s->tx.made_eightbit || (seven && !is_seven_bit(s));
}

void transaction_replace(struct session *s, struct message *m)
{
	bool seven = is_seven_bit(s);

	message_drop(&s->tx.message);
	s->tx.message = *m;
	note_edit(s, seven);
}

bool transaction_edit(struct session *s, const unsigned char *verdict, size_t n)
{
	bool seven = is_seven_bit(s), edited = message_edit(&s->tx.message, verdict, n, s->dialogue.tx.smtputf8);

	if (edited)
		note_edit(s, seven);
	return edited;
}

/* ---- its server ---- */

void transaction_bind(struct session *s, enum transaction_server server)
{
	s->tx.server = server;
}

void transaction_unbind(struct session *s)
{
	if (s->tx.server == TRANSACTION_BOUND)
		s->tx.server = TRANSACTION_UNBOUND;
}

void transaction_reset_server(struct session *s)
{
	if (serverstate_is_open(s) && (!s->o->limits.mail_late || s->tx.server == TRANSACTION_BOUND))
		talk_own_command(s, SMTP_RSET, "RSET", 4);
	transaction_unbind(s);
}

/* ---- its times ---- */

void transaction_data_begins(struct session *s)
{
	s->tx.times->data = s->now - s->tx.times->began_at;
	if (s->tx.times->data_at)
		s->tx.times->data_reply = s->now - s->tx.times->data_at;
}

/* The first message on a connection has waited for it. */
static void note_began(struct session *s)
{
	bool first = s->tx.times->first_on != s->server.connected_at || s->tx.times->first_in == s->dialogue.transactions;

	if (first) {
		s->tx.times->first_on = s->server.connected_at;
		s->tx.times->first_in = s->dialogue.transactions;
	}
	s->tx.times->began_at = first ? s->server.connected_at : s->now;
	s->tx.times->mail_at = s->now;
}

void transaction_sent(struct session *s, enum smtp_verb verb)
{
	if (verb == SMTP_MAIL)
		note_began(s);
	if (verb == SMTP_DATA || verb == SMTP_BDAT)
		s->tx.times->data_at = verb == SMTP_DATA ? s->now : 0;
	if (verb == SMTP_RCPT && !s->tx.times->rcpt_at)
		s->tx.times->rcpt_at = s->now;
	if (verb == SMTP_BDAT) {
		if (s->tx.times->data < 0)
			transaction_data_begins(s);
		transaction_octets_begin(s);
		transaction_enter(s, CONTENT_PASSING);
	}
}

void transaction_answered(struct session *s, enum smtp_verb verb)
{
	if (s->dialogue.tx.mail == DIALOGUE_NO_MAIL) /* it was given up: the time is not the next one's */
		return;
	if (verb == SMTP_MAIL)
		s->tx.times->mail = s->now - s->tx.times->mail_at;
	if (verb == SMTP_RCPT) {
		s->tx.times->rcpt = s->now - s->tx.times->rcpt_at;
		observe_rcpt(s);
	}
	if (verb == SMTP_CONTENT)
		s->tx.times->accept = s->now - s->tx.times->sent_at;
}

/* ---- its end ---- */

/* Where every recipient was refused, their replies tell more than what a DATA pipelined behind them got: 503 after a 451. */
static enum transaction_result result_of(const struct dialogue_transaction *tx)
{
	bool none_left = tx->mail != DIALOGUE_MAIL_REFUSED && tx->rcpts && !tx->accepted && !tx->unanswered;
	int code = tx->decision.code;

	if (code && !none_left)
		return code >= 500 ? TRANSACTION_REJECTED : code >= 400 ? TRANSACTION_DEFERRED : TRANSACTION_ACCEPTED;
	if (!none_left)
		return TRANSACTION_ABORTED;
	for (uint32_t i = 0; i < tx->rcpts; i++)
		if (tx->rcpt[i].code < 500)
			return TRANSACTION_DEFERRED;
	return TRANSACTION_REJECTED;
}

void transaction_end(struct session *s, enum transaction_result result)
{
	const struct dialogue_transaction *tx = &s->dialogue.tx;

	if (tx->mail == DIALOGUE_NO_MAIL)
		return;
	result = result == TRANSACTION_BY_REPLIES ? result_of(tx) : result;
	if (result == TRANSACTION_ACCEPTED) {
		s->tx.messages++;
		s->tx.recipients += tx->accepted;
	}
	observe_message(s, result);
	record_message(s, result);
	dialogue_end_transaction(&s->dialogue);
	forget_message(s);
	if (s->tx.content != CONTENT_NONE)
		transaction_enter(s, CONTENT_NONE);
	transaction_unbind(s);
	forget_times(s);
}
