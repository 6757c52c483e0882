/* --try-hook. See tryhook.h for the contract. */
#define _GNU_SOURCE
#include "session/tryhook.h"
#include "io/log.h"
#include "pure/json.h"
#include "session/filter.h"
#include "session/gate.h"
#include "session/held.h"
#include "session/hello.h"
#include "session/identity.h"
#include "session/record.h"
#include "session/routing.h"
#include "session/server.h"
#include "session/steps.h"
#include "session/talk.h"
#include "session/transaction.h"

#include <stdio.h>
#include <string.h>

/* ---- the story ---- */

static const char own_message[] =
    "From: Alice <alice@client.example>\r\nTo: Bob <bob@mail.example>, Carol <carol@mail.example>\r\nSubject: Lunch on Friday\r\n"
    "Date: Fri, 20 Nov 2026 20:59:11 +0000\r\nMessage-ID: <20261120205911.009445@client.example>\r\n\r\n"
    "Hello,\r\n\r\nshall we meet at noon?\r\n.\r\nAlice\r\n";

static const struct {
	enum hook_event event; /* that judges the command; HOOK_EVENT_COUNT: none here */
	char command[44];
} story[] = {
	{ HOOK_EHLO, "EHLO client.example" },
	{ HOOK_MAIL, "MAIL FROM:<alice@client.example>" },
	{ HOOK_EVENT_COUNT, "RCPT TO:<bob@mail.example>" },
	{ HOOK_RCPT, "RCPT TO:<carol@mail.example>" },
};

static void server_says(struct session *s, const char *reply)
{
	struct dialogue_reply r;
	size_t n = strlen(reply), used;

	dialogue_server_next(&s->dialogue, (const unsigned char *)reply, n, &used, &r);
	talk_comm(s, COMM_BACK, reply, n - 2);
}

static void client_says(struct session *s, const char *command)
{
	struct smtp_command cmd;

	smtp_parse((const unsigned char *)command, strlen(command), &cmd);
	held_put(s, &cmd);
	if (cmd.verb == SMTP_EHLO)
		hello_try_name(s, &s->held->cmd);
}

static void pass_on(struct session *s)
{
	enum smtp_verb verb = s->held->cmd.verb;

	held_comm(s, &s->held->cmd, COMM_ON);
	dialogue_sent(&s->dialogue, &s->held->cmd);
	transaction_sent(s, verb);
	server_says(s, TALK_OK "\r\n");
	transaction_answered(s, verb);
}

/* Take this text as a client's message: its line ends become CR LF. */
static void take_message(struct session *s, const char *text, size_t n)
{
	struct smtp_scanner scanner = { .unstuff = true, .plain = true };
	struct smtp_piece piece;
	size_t used;

	transaction_keep(s);
	while (n && smtp_scan(&scanner, (const unsigned char *)text, n, &used, &piece)) {
		transaction_add(s, piece.bytes, piece.len);
		text += used;
		n -= used;
	}
	if (n)
		transaction_add(s, "\r\n", 2);
	if (transaction_seal(s))
		dialogue_edited(&s->dialogue, s->tx.message.bytes, s->tx.message.size);
}

/* Up to the event, as far as hooks are to know. */
static void tell_story(struct session *s, enum hook_event event, const char *message, size_t n)
{
	static const char text[] = "mx.mail.example ESMTP";
	const struct smtp_line banner = { .code = 220, .text = (const unsigned char *)text, .text_len = sizeof text - 1 };
	union net_address client, server;

	net_parse("10.0.0.1", 56456, &client);
	net_parse("10.0.0.2", 25, &server);
	identity_assume(s, &client);
	server_assume(s, &server, event != HOOK_CONNECT);
	routing_begin_session(s);
	routing_begin_mail(s);
	routing_begin_recipient(s);
	if (event == HOOK_CONNECT)
		return;
	server_says(s, "220 mx.mail.example ESMTP\r\n");
	record_connect(s, &banner);
	for (size_t i = 0; i < sizeof story / sizeof *story; i++) {
		client_says(s, story[i].command);
		if (story[i].event == event)
			return;
		pass_on(s);
	}
	take_message(s, message, n);
}

/* The rest of it, of which `log` hooks hear and `close` hooks get a summary. */
static void end_story(struct session *s)
{
	static const char taken[] = "2.0.0 Ok: queued as 4711";

	dialogue_decide(&s->dialogue, 250, (const unsigned char *)taken, sizeof taken - 1);
	transaction_end(s, TRANSACTION_ACCEPTED);
	talk_end(s, END_FLUSH, END_BY_CLIENT, "QUIT");
	talk_over(s);
	record_close(s);
}

/* ---- running the hook ---- */

static enum hook_event event_of(const struct session *s)
{
	return s->hooks->hook[0].event;
}

static void write_lines(const char *lines, size_t n)
{
	const char *end;

	for (; n && (end = memchr(lines, '\n', n)); n -= (size_t)(end + 1 - lines), lines = end + 1)
		log_write(LOG_PRIORITY_INFO, lines, (size_t)(end + 1 - lines));
}

static void run_watcher(struct session *s, const char *lines, size_t n)
{
	filter_begin(s);
	if (lines && event_of(s) == HOOK_LOG) {
		write_lines(lines, n);
	} else {
		tell_story(s, event_of(s), own_message, sizeof own_message - 1);
		end_story(s);
	}
	filter_end(s);
}

void tryhook_begin(struct session *s, const char *sample, size_t n)
{
	enum hook_event event = event_of(s);
	bool is_message = event == HOOK_DATA && sample && *sample != '{';

	filter_rehearse(is_message || event == HOOK_LOG ? NULL : sample, n);
	if (event == HOOK_CLOSE || event == HOOK_LOG) {
		run_watcher(s, sample, n);
		return;
	}
	tell_story(s, event, is_message ? sample : own_message, is_message ? n : sizeof own_message - 1);
	filter_run(s, event);
}

/* ---- telling of it ---- */

/* Print text of a hook's or message's: what is no character becomes '?', so that it cannot do anything to a terminal. */
static void put_text(const unsigned char *text, size_t n)
{
	for (size_t len; n; text += len, n -= len) {
		len = json_utf8(text, n);
		if (!len || (*text < ' ' && *text != '\t') || *text == 0x7f || (*text == 0xc2 && text[1] < 0xa0)) {
			putchar('?');
			len = len ? len : 1;
		} else {
			fwrite(text, 1, len, stdout);
		}
	}
}

/* Each line with this word before it. */
static void put_lines(const char *word, const unsigned char *text, size_t n)
{
	while (n) {
		size_t len = smtp_find_line(text, n);

		len = len ? len : n;
		printf("%-9s", word);
		put_text(text, smtp_without_end(text, len));
		putchar('\n');
		text += len;
		n -= len;
	}
}

static void put(const char *word, const char *text)
{
	put_lines(word, (const unsigned char *)text, strlen(text));
}

static void put_verdict(enum hook_event event, const struct hook_run *r)
{
	const char *why, *word = "verdict";
	size_t at = 0, start = 0, n = r->message_at ? r->message_at : r->verdict_len;
	struct verdict v;
	bool final = false;

	while (!final && verdict_next(event, r->verdict, n, &at, &v, &why) == VERDICT_LINE) {
		put_lines(word, r->verdict + start, at - start);
		word = "";
		start = at;
		final = verdict_is_final(v.word);
	}
	if (!final)
		put(word, "accept (it says no line that ends a verdict)");
	else if (start < n)
		put_lines("ignored", r->verdict + start, n - start);
}

static void put_message(const struct session *s)
{
	const struct message *m = &s->tx.message;
	char text[100];

	if (!s->o->verbose) {
		snprintf(text, sizeof text, "%llu octets go on; with --verbose they are shown", (unsigned long long)m->size);
		put("message", text);
	} else {
		put_lines("message", m->bytes, (size_t)m->size);
	}
}

/* What the client gets, in the words of steps.c. */
static void put_reply(struct session *s)
{
	const struct buffer *out = &s->client.leg.out;

	if (s->gate.stage == GATE_TARPIT)
		steps_overdue(s, &(struct steps_deadline){ .what = STEPS_TARPIT_OVER });
	steps_take(s);
	put_lines("reply", out->bytes + out->start, out->end - out->start);
}

static void put_outcome(struct session *s, const struct filter_report *r)
{
	enum hook_event event = event_of(s);
	bool watches = event == HOOK_CLOSE || event == HOOK_LOG;

	if (*r->failure)
		put("failed", r->failure);
	else if (!watches)
		put_verdict(event, r->run);
	if (watches)
		put("reply", "none: hooks of this event only watch");
	else if (r->outcome->word != FILTER_ACCEPT)
		put_reply(s);
	else
		put("reply", *r->failure ? "none of smtpwarp's, for --hook-failure is accept: it goes on" : "none of smtpwarp's: it goes on");
	if (event == HOOK_DATA && r->outcome->word == FILTER_ACCEPT)
		put_message(s);
}

bool tryhook_report(struct session *s)
{
	struct filter_report r;

	filter_report(s, &r);
	put_outcome(s, &r);
	if (r.run->status[0])
		put("end", r.run->status);
	if (!s->hooks->hook[0].socket)
		put("stderr", r.run->error[0] ? r.run->error : "nothing");
	printf("%-9s%.1f ms\n", "time", (double)r.us / 1000);
	return !*r.failure;
}
