/* Hooks in a session. See filter.h for the contract; the comments here say why.
 *
 * The hooks of one event are a chain. While it runs, the client's octets wait in its socket and in its leg.
 */
#define _GNU_SOURCE
#include "session/filter.h"
#include "io/event.h"
#include "io/log.h"
#include "session/clock.h"
#include "session/gate.h"
#include "session/held.h"
#include "session/observe.h"
#include "session/record.h"
#include "session/routing.h"
#include "session/server.h"
#include "session/talk.h"
#include "session/tarpit.h"
#include "session/transaction.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHAIN_MAX INT64_C(540000000) /* for all hooks of an event: clients wait 10 minutes for a reply, RFC 5321 4.5.3.2.6 */
#define STOP_MAX INT64_C(2000000)    /* for a `close` or `log` hook, after SIGTERM */
#define FAILURE_MAX (HOOK_ERROR_MAX + 200)
#define LINES_MAX 2000		     /* most octets of a verdict that are recorded */

/* The chain that runs, or ran last. */
static struct filter {
	enum hook_event event;
	unsigned next;	 /* index in hooks->hook of the first hook that may run next */
	unsigned tarpit; /* seconds: the longest that a verdict has asked for */
	int64_t chain_at, hook_at; /* when the chain and its present hook began */
	struct filter_outcome outcome;
	struct message replacement;
	struct hook_run run;
} filter;

/* `log` hooks. */
static struct hook_run streams[LOG_STREAMS_MAX];
static unsigned stream_count;

/* See filter_rehearse(). */
static struct {
	const char *line;
	size_t len;
	int errors;
} rehearsal;

static char failure[FAILURE_MAX]; /* why the last hook that failed did */

void filter_prepare(struct session *s)
{
	static struct record_notes notes;

	s->notes = &notes;
}

void filter_rehearse(const char *line, size_t n)
{
	rehearsal.line = line;
	rehearsal.len = n;
	rehearsal.errors = STDERR_FILENO;
}

static void event_line(const struct session *s, enum hook_event event, struct hook_input *input)
{
	input->errors = rehearsal.errors;
	input->line = rehearsal.line;
	input->line_len = rehearsal.line ? rehearsal.len : record_hook(s, event, &input->line);
}

bool filter_wants(const struct session *s, enum hook_event event)
{
	return s->hooks->events & 1u << event;
}

/* ---- outcomes ---- */

static void set_outcome(struct filter_outcome *o, enum filter_word word, int code, const uint16_t enhanced[3],
    const unsigned char *text, size_t n)
{
	o->word = word;
	o->code = code;
	memcpy(o->enhanced, enhanced, sizeof o->enhanced);
	o->text_len = n < sizeof o->text ? n : sizeof o->text;
	memcpy(o->text, text, o->text_len);
}

void filter_out_of_order(struct filter_outcome *o)
{
	static const uint16_t enhanced[] = { 4, 3, 0 };
	static const char text[] = "A filter is out of order, try again later";

	set_outcome(o, FILTER_REFUSE, 451, enhanced, (const unsigned char *)text, sizeof text - 1);
}

/* The chain is over: `filtered` becomes true at once, or after the tarpit if a verdict wants it and a place is free. */
static void end_chain(struct session *s)
{
	struct filter *f = &filter;
	int64_t tarpit = f->tarpit * INT64_C(1000000);

	f->tarpit = 0;
	if (!tarpit_delay(s, tarpit))
		s->filtered = true;
}

void filter_tarpit_over(struct session *s)
{
	s->filtered = true;
}

enum hook_event filter_take(struct session *s, const struct filter_outcome **outcome)
{
	s->filtered = false;
	*outcome = &filter.outcome;
	return filter.event;
}

/* ---- one verdict ---- */

static bool is_route(enum verdict_word word)
{
	return word == VERDICT_SOURCE || word == VERDICT_UPSTREAM || word == VERDICT_TLS;
}

/* Copy n octets to *out as a string, cut to cap - 1 octets. Returns out. */
static const char *argument(const unsigned char *text, size_t n, char *out, size_t cap)
{
	n = n < cap - 1 ? n : cap - 1;
	memcpy(out, text, n);
	out[n] = 0;
	return out;
}

/* Change *r as a source, upstream or tls verdict wants it. Returns NULL, or what is wrong with the verdict. */
static const char *set_route(struct route *r, const struct verdict *v)
{
	char text[300];

	if (v->word == VERDICT_SOURCE)
		return route_source(r, argument(v->text, v->text_len, text, sizeof text)) ? NULL :
		    "source takes an IP address";
	if (v->word == VERDICT_UPSTREAM)
		return route_upstream(r, argument(v->text, v->text_len, text, sizeof text)) ? NULL :
		    "upstream takes " ENDPOINT_WORDS;
	if (!tls_level_parse(argument(v->name, v->name_len, text, sizeof text), &r->tls))
		return "tls takes " TLS_LEVEL_WORDS;
	if (v->text_len >= sizeof r->tls_name)
		return "tls: the name is too long";
	argument(v->text, v->text_len, r->tls_name, sizeof r->tls_name);
	r->tls_given = true;
	return NULL;
}

/* The same, where TLS begins before a recipient is known. */
static const char *set_early_route(struct route *r, const struct verdict *v)
{
	const char *fault = set_route(r, v);

	return fault ? fault : r->tls == TLS_DANE || r->tls == TLS_DANE_ONLY ? "tls: dane needs --tls-on recipient" : NULL;
}

/* Check a line of a verdict for what the grammar does not know, and change *route by it. Returns NULL, or what is wrong. */
static const char *check_line(const struct session *s, const struct verdict *v, struct route *route)
{
	struct smtp_command cmd;

	if (is_route(v->word)) {
		bool undecided = s->o->limits.on_recipient || (s->o->tls_on_recipient && v->word == VERDICT_TLS);

		if (filter.event != HOOK_CONNECT && !undecided)
			return "the server is connected already: this word needs --connect-on recipient";
		return s->o->limits.mail_late ? set_route(route, v) : set_early_route(route, v);
	}
	if (v->word == VERDICT_REWRITE && !held_rewritten(s, v->text, v->text_len, &cmd))
		return "rewrite takes an address";
	return NULL;
}

static void apply(struct session *s, const struct verdict *v)
{
	struct filter *f = &filter;
	uint32_t transaction = f->event <= HOOK_EHLO ? 0 : s->dialogue.transactions + (f->event == HOOK_MAIL);

	switch (v->word) {
	case VERDICT_REJECT:
	case VERDICT_DEFER:
		set_outcome(&f->outcome, v->code == 421 ? FILTER_CLOSE : FILTER_REFUSE, v->code, v->enhanced, v->text,
		    v->text_len);
		return;
	case VERDICT_SHUT:
		set_outcome(&f->outcome, FILTER_CLOSE, v->code, v->enhanced, v->text, v->text_len);
		return;
	case VERDICT_DISCARD:
		f->outcome.word = FILTER_DISCARD;
		return;
	case VERDICT_TARPIT:
		f->tarpit = v->seconds > f->tarpit ? v->seconds : f->tarpit;
		return;
	case VERDICT_REWRITE:
		held_rewrite(s, v->text, v->text_len);
		return;
	case VERDICT_LOG:
		if (!record_note(s->notes, transaction, v))
			record_error(s, "log verdicts of hooks are longer than 4096 octets: one is left out");
		return;
	case VERDICT_ACCEPT:
	case VERDICT_SOURCE: /* check_line() has applied these to the route, hook_ended() sets it */
	case VERDICT_UPSTREAM:
	case VERDICT_TLS:
	case VERDICT_ADD_HEADER: /* take_edits() has applied these */
	case VERDICT_REMOVE_HEADER:
	case VERDICT_REPLACE_MESSAGE:
		return;
	}
}

/* Octets of the verdict before the message that it returns, if it returns one. */
static size_t verdict_lines(const struct hook_run *r)
{
	return r->message_at ? r->message_at : r->verdict_len;
}

/* The line of the verdict, after empty ones, that ends at `end`. */
static const char *bad_line(size_t start, size_t end, const char *why)
{
	static char text[240];
	const unsigned char *in = filter.run.verdict;
	unsigned number = 1;
	size_t n;

	while (start < end && (smtp_is_blank(in[start]) || in[start] == '\r' || in[start] == '\n'))
		start++;
	for (size_t i = 0; i < start; i++)
		number += in[i] == '\n';
	n = smtp_without_end(in + start, end - start);
	snprintf(text, sizeof text, "%s, in line %u: %.*s", why, number, n < 60 ? (int)n : 60, (const char *)in + start);
	return text;
}

/* Check all lines of the verdict, without effect on the session. Returns NULL, or what is wrong. *final: the line that ends the verdict,
 * VERDICT_ACCEPT if there is none; *edits: whether a line changes the header; *route: changed by the lines. */
static const char *check(struct session *s, struct route *route, struct verdict *final, bool *edits)
{
	const struct hook_run *r = &filter.run;
	struct verdict v;
	size_t at = 0, start = 0;
	const char *why = NULL;
	enum verdict_status status;

	memset(final, 0, sizeof *final);
	*edits = false;
	while ((status = verdict_next(filter.event, r->verdict, verdict_lines(r), &at, &v, &why)) == VERDICT_LINE) {
		why = check_line(s, &v, route);
		if (why)
			return bad_line(start, at, why);
		start = at;
		*edits = *edits || v.word == VERDICT_ADD_HEADER || v.word == VERDICT_REMOVE_HEADER;
		if (verdict_is_final(v.word)) {
			*final = v;
			break;
		}
	}
	if (status == VERDICT_BAD)
		return bad_line(start, at, why);
	/* A program that breaks off says so with its exit status; a socket only closes. */
	if (r->hook->socket && (status == VERDICT_END || r->verdict[at - 1] != '\n'))
		return "over a socket a verdict ends with a line such as accept, and that line's end";
	return NULL;
}

static void apply_all(struct session *s)
{
	const struct hook_run *r = &filter.run;
	struct verdict v;
	size_t at = 0;
	const char *why;

	while (verdict_next(filter.event, r->verdict, verdict_lines(r), &at, &v, &why) == VERDICT_LINE) {
		apply(s, &v);
		if (verdict_is_final(v.word))
			return;
	}
}

/* ---- the message ---- */

/* The replacement is the transaction's now, or there is none. */
static void forget_replacement(void)
{
	filter.replacement = (struct message){ .fd = -1 };
}

/* Replace and edit the kept message as the verdict wants it. false: errno says why not. */
static bool take_edits(struct session *s, bool edits)
{
	struct filter *f = &filter;
	size_t n = verdict_lines(&f->run);

	if (!f->run.message_at && !edits)
		return true;
	if (edits && !(f->run.message_at ? message_edit(&f->replacement, f->run.verdict, n, s->dialogue.tx.smtputf8) : transaction_edit(s, f->run.verdict, n)))
		return false;
	if (f->run.message_at) {
		transaction_replace(s, &f->replacement);
		forget_replacement();
	}
	dialogue_edited(&s->dialogue, s->tx.message.bytes, s->tx.message.size);
	return true;
}

/* ---- chains ---- */

static void log_verdict(struct session *s, const char *word, const unsigned char *text, size_t n)
{
	const struct hook_run *r = &filter.run;
	size_t lines = r->state == HOOK_DONE ? verdict_lines(r) : 0;

	observe_hook(filter.event, r->hook->name, s->now - filter.hook_at, strcmp(word, "failed") == 0);
	record_verdict(s, filter.event, r->hook->name, word, text, n, r->verdict,
	    lines < LINES_MAX ? lines : LINES_MAX, s->now - filter.hook_at);
}

/* The reason, and the last line of its stderr, in `failure`. Returns octets. */
static size_t tell_failure(const struct hook_run *r, const char *why)
{
	bool told = r->error[0] && strcmp(why, r->error) != 0;

	snprintf(failure, sizeof failure, "%s%s%s", why, told ? ": " : "", told ? r->error : "");
	return strlen(failure);
}

/* The hook has failed: record why, and refuse unless --hook-failure is accept. */
static void failed(struct session *s, const char *why)
{
	size_t n = tell_failure(&filter.run, why);

	log_verdict(s, "failed", (const unsigned char *)failure, n);
	message_drop(&filter.replacement);
	if (!s->o->hook_failure_accepts)
		filter_out_of_order(&filter.outcome);
}

static void hook_ended(struct session *s)
{
	struct filter *f = &filter;
	struct route route = *routing_of(s, f->event);
	struct verdict final;
	const char *why;
	bool edits;

	if (f->run.state == HOOK_FAILED) {
		failed(s, f->run.why);
		return;
	}
	why = check(s, &route, &final, &edits);
	if (!why && !take_edits(s, edits))
		why = strerror(errno);
	if (why) {
		failed(s, why);
		return;
	}
	if (f->event == HOOK_CONNECT)
		server_take_route(s, &route);
	else if (f->event == HOOK_MAIL || f->event == HOOK_RCPT)
		routing_set(s, f->event, &route);
	if (f->run.verdict_len || s->o->verbose)
		log_verdict(s, verdict_word_name(final.word), final.text, final.word <= VERDICT_SHUT ? final.text_len : 0);
	apply_all(s); /* the record has the recipient that was judged, not what it was rewritten to */
	hook_forget(&f->run);
}

/* Most octets of a message that a hook returns: --message-size-limit, and room for what the hook adds. 0: no limit. */
static uint64_t replacement_max(const struct session *s)
{
	uint64_t limit = s->o->limits.message_size;

	return limit ? limit + (1 << 20) : 0;
}

/* RFC 3030 3. A message that came so cannot be judged by its lines. */
static bool is_binary(const struct session *s)
{
	return s->dialogue.tx.chunks && (s->dialogue.tx.binarymime || message_has_bare_newline(&s->tx.message));
}

static void give_message(struct session *s, struct hook_input *input)
{
	input->message = &s->tx.message;
	input->replacement = &filter.replacement;
	input->replacement_max = replacement_max(s);
	input->binary = is_binary(s);
}

static void start_hook(struct session *s, const struct hook *h)
{
	struct filter *f = &filter;
	struct hook_input input = { .patience = s->o->timeouts.hook };

	f->next = (unsigned)(h - s->hooks->hook) + 1;
	f->hook_at = s->now;
	event_line(s, f->event, &input);
	if (f->event == HOOK_DATA)
		give_message(s, &input);
	forget_replacement();
	hook_start(&f->run, h, &input);
	clock_tick(s);
}

void filter_run(struct session *s, enum hook_event event)
{
	struct filter *f = &filter;

	f->event = event;
	f->next = f->tarpit = 0;
	f->chain_at = s->now;
	f->outcome.word = FILTER_ACCEPT;
	hook_forget(&f->run);
	gate_enter(s, GATE_HOOKS);
	filter_turn(s);
}

void filter_turn(struct session *s)
{
	struct filter *f = &filter;
	const struct hook *h;

	for (unsigned i = 0; i < stream_count; i++)
		hook_turn(&streams[i]);
	log_flush_streams();
	while (s->gate.stage == GATE_HOOKS && !s->filtered && !talk_ended(s)) {
		hook_turn(&f->run);
		if (f->run.state == HOOK_RUNNING)
			return;
		if (f->run.state != HOOK_IDLE)
			hook_ended(s);
		h = f->outcome.word == FILTER_ACCEPT ? hooks_next(s->hooks, f->event, f->next) : NULL;
		if (!h) {
			end_chain(s);
			return;
		}
		start_hook(s, h);
		if (f->run.state == HOOK_RUNNING) /* it has just begun, and cannot have answered */
			return;
	}
}

int64_t filter_deadline(const struct session *s)
{
	int64_t hook = s->o->timeouts.hook ? filter.hook_at + s->o->timeouts.hook : INT64_MAX;

	return hook < filter.chain_at + CHAIN_MAX ? hook : filter.chain_at + CHAIN_MAX;
}

void filter_overdue(struct session *s)
{
	hook_kill(&filter.run, "it did not end in time (--hook-timeout)");
	filter_turn(s);
}

unsigned filter_watch(struct pollfd *p)
{
	unsigned n = 0;

	if (filter.run.state == HOOK_RUNNING)
		n += hook_watch(&filter.run, p);
	for (unsigned i = 0; i < stream_count; i++)
		n += hook_watch(&streams[i], p + n);
	return n + log_watch_streams(p + n);
}

/* ---- log and close ---- */

/* A listener's sessions would all say the same: once a minute is enough. */
static void record_stream_failures(struct session *s)
{
	char words[FAILURE_MAX + 256];

	for (unsigned i = 0; i < stream_count; i++) {
		struct hook_run *r = &streams[i];
		size_t n;

		if (r->state != HOOK_FAILED)
			continue;
		n = tell_failure(r, r->why);
		snprintf(words, sizeof words, "%.250s %s", r->hook->name, r->why);
		if (event_is_due(words))
			record_verdict(s, HOOK_LOG, r->hook->name, "failed", (const unsigned char *)failure, n, NULL, 0,
			    s->now - s->started);
		hook_forget(r);
	}
}

void filter_begin(struct session *s)
{
	const struct hook_input input = { .patience = 200000, .errors = rehearsal.errors };
	const struct hook *h;
	int fd;

	if (!s->hooks->events) /* before any page of `filter` is touched */
		return;
	forget_replacement();
	for (unsigned i = 0; (h = hooks_next(s->hooks, HOOK_LOG, i)); i = (unsigned)(h - s->hooks->hook) + 1) {
		struct hook_run *r = &streams[stream_count++];

		hook_start(r, h, &input);
		fd = hook_take_input(r);
		if (fd >= 0)
			log_add_stream(fd);
	}
	record_stream_failures(s);
}

/* Wait until `done` says so, at most --hook-timeout from `start` on, and less after SIGTERM. The client is gone, so only a service that is
 * to stop is kept waiting. */
static void wait_for(struct session *s, bool (*done)(void), int64_t start)
{
	int64_t limit = s->o->timeouts.hook ? s->o->timeouts.hook : CHAIN_MAX;

	while (!done() && s->now - start < (*s->terminated && limit > STOP_MAX ? STOP_MAX : limit)) {
		struct pollfd p[FILTER_POLLED];
		struct timespec tick = { 0, 200000000 }; /* to see SIGTERM and the limit */
		sigset_t none;

		sigemptyset(&none);
		ppoll(p, filter_watch(p), &tick, &none);
		for (unsigned i = 0; i < stream_count; i++)
			hook_turn(&streams[i]);
		hook_turn(&filter.run);
		log_flush_streams();
		clock_tick(s);
	}
}

static bool close_hook_ended(void)
{
	return filter.run.state != HOOK_RUNNING;
}

static bool streams_ended(void)
{
	for (unsigned i = 0; i < stream_count; i++)
		if (streams[i].state == HOOK_RUNNING)
			return false;
	return true;
}

static void run_close_hooks(struct session *s)
{
	struct hook_input input = { .patience = s->o->timeouts.hook };
	const struct hook *h;

	filter.event = HOOK_CLOSE;
	for (unsigned i = 0; (h = hooks_next(s->hooks, HOOK_CLOSE, i)); i = (unsigned)(h - s->hooks->hook) + 1) {
		event_line(s, HOOK_CLOSE, &input);
		filter.hook_at = s->now;
		hook_start(&filter.run, h, &input);
		wait_for(s, close_hook_ended, filter.hook_at);
		hook_kill(&filter.run, "it did not end in time (--hook-timeout)");
		if (filter.run.state == HOOK_FAILED)
			failed(s, filter.run.why);
	}
}

void filter_abort(struct session *s)
{
	if (s->gate.stage == GATE_HOOKS)
		hook_kill(&filter.run, "the session ended");
	if (s->hooks->events)
		message_drop(&filter.replacement);
	s->filtered = false;
}

void filter_end(struct session *s)
{
	int64_t start;

	if (filter_wants(s, HOOK_CLOSE))
		run_close_hooks(s);
	if (!stream_count)
		return;
	start = s->now;
	wait_for(s, log_flush_streams, start);
	log_close_streams(); /* `log` hooks end at the end of file */
	wait_for(s, streams_ended, start);
	for (unsigned i = 0; i < stream_count; i++)
		hook_kill(&streams[i], "it did not end in time");
	record_stream_failures(s);
}

void filter_report(const struct session *s, struct filter_report *r)
{
	r->run = stream_count ? streams : &filter.run;
	r->outcome = &filter.outcome;
	r->failure = failure;
	r->us = s->now - (stream_count ? s->started : filter.hook_at);
}
