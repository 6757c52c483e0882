/* The held command, and sending commands on. See held.h for the contract. */
#define _GNU_SOURCE
#include "session/held.h"
#include "pure/sasl.h"
#include "session/identity.h"
#include "session/talk.h"
#include "session/trace.h"
#include "session/transaction.h"

#include <stdio.h>
#include <string.h>

void held_prepare(struct session *s)
{
	static struct held held;

	s->held = &held;
}

/* Of AUTH only the mechanism is recorded; of an unknown command nothing, once the client has said AUTH: it may be a stray password. */
void held_comm(struct session *s, const struct smtp_command *cmd, enum record_direction direction)
{
	size_t n = cmd->line_len;

	if (cmd->verb == SMTP_AUTH)
		n = (size_t)(cmd->arg - cmd->line) + sasl_mechanism(cmd->arg, cmd->arg_len);
	if (cmd->verb == SMTP_UNKNOWN && s->commands.auth_seen)
		n = 0;
	talk_comm(s, direction, cmd->line, n);
}

/* Parse the n octets of held->line. */
static void parse_held(struct session *s, size_t n)
{
	smtp_parse(s->held->line, n, &s->held->cmd);
}

void held_put(struct session *s, const struct smtp_command *cmd)
{
	if (cmd == &s->held->cmd)
		return;
	memcpy(s->held->line, cmd->line, cmd->line_len);
	s->held->original_len = 0;
	parse_held(s, cmd->line_len);
}

void held_wipe(struct session *s)
{
	explicit_bzero(s->held->line, s->held->cmd.line_len);
	s->held->cmd.verb = SMTP_NOTHING;
}

static size_t write_rcpt(const struct smtp_command *from, const unsigned char *address, size_t n, unsigned char *out)
{
	size_t at = (size_t)sprintf((char *)out, "RCPT TO:<");

	memcpy(out + at, address, n);
	at += n;
	at += (size_t)sprintf((char *)out + at, "> ");
	memcpy(out + at, from->params, from->params_len);
	return at + from->params_len;
}

bool held_rewritten(const struct session *s, const unsigned char *address, size_t n, struct smtp_command *cmd)
{
	static unsigned char line[sizeof s->held->line];

	if (n + s->held->cmd.params_len + 16 > sizeof line ||
	    n + s->held->cmd.params_len > DIALOGUE_TEXT_MAX - s->dialogue.tx.text_len)
		return false;
	smtp_parse(line, write_rcpt(&s->held->cmd, address, n, line), cmd);
	return !cmd->refusal && cmd->address_len == n;
}

bool held_rewrite(struct session *s, const unsigned char *address, size_t n)
{
	struct smtp_command cmd;

	if (!held_rewritten(s, address, n, &cmd))
		return false;
	if (!s->held->original_len) {
		s->held->original_len = s->held->cmd.address_len;
		memcpy(s->held->original, s->held->cmd.address, s->held->original_len);
	}
	memcpy(s->held->line, cmd.line, cmd.line_len);
	parse_held(s, cmd.line_len);
	return true;
}

void held_note_reply(struct session *s, const struct smtp_line *line)
{
	dialogue_refused(&s->dialogue, &s->held->cmd, line->code, line->text, line->text_len);
	if (s->held->cmd.verb == SMTP_RCPT && s->held->original_len)
		dialogue_rewritten(&s->dialogue, s->held->original, s->held->original_len);
}

void held_note_by_hook(struct session *s, int code, const uint16_t enhanced[3], const unsigned char *text, size_t n)
{
	char whole[512];
	int len = snprintf(whole, sizeof whole, "%u.%u.%u %.*s", enhanced[0], enhanced[1], enhanced[2],
	    (int)(n < 400 ? n : 400), (const char *)text);

	held_note_reply(s, &(struct smtp_line){ .code = code, .text = (const unsigned char *)whole, .text_len = (size_t)len });
	dialogue_judge(&s->dialogue, s->held->cmd.verb, DIALOGUE_BY_HOOK, REPLY_OK, REPLY_OF_MESSAGE);
}

void held_refuse(struct session *s, const char *reply)
{
	struct smtp_line line;

	talk_reply(s, reply);
	if (smtp_parse_reply((const unsigned char *)reply, strlen(reply), &line))
		held_note_reply(s, &line);
}

void held_refuse_recipient(struct session *s, const char *reply)
{
	held_refuse(s, reply);
	talk_count_refusal(s, reply, false);
	talk_local_replies(s);
}

/* With --received the first chunk begins with the Received field, and BDAT counts it. false: nothing was sent, and the command goes as it
 * is: one whose count would overflow, too. */
static bool send_traced_chunk(struct session *s, const struct smtp_command *cmd)
{
	char line[48];
	size_t n, len;

	if (cmd->verb != SMTP_BDAT || s->dialogue.tx.chunks || cmd->octets > INT64_MAX)
		return false;
	n = trace_begin(s);
	if (!n)
		return false;
	len = (size_t)sprintf(line, "BDAT %llu%s\r\n", (unsigned long long)cmd->octets + n, cmd->last ? " LAST" : "");
	leg_write(&s->server.leg, line, len);
	return true;
}

size_t held_write_param(const struct session *s, const struct smtp_param *p, size_t len, unsigned char *out)
{
	const char *trace;
	uint64_t size;

	if (!smtp_is(p->keyword, p->keyword_len, "SIZE") || !smtp_number(p->value, p->value_len, &size)) {
		out[0] = ' ';
		memcpy(out + 1, p->keyword, len);
		return len + 1;
	}
	if (s->hooks->events & 1u << HOOK_DATA)
		return 0;
	return (size_t)sprintf((char *)out, " SIZE=%llu", (unsigned long long)size + identity_trace(s, &trace));
}

/* MAIL with SIZE= of what follows, where that may not be what the client says. */
static bool send_sized_mail(struct session *s, const struct smtp_command *cmd)
{
	unsigned char line[sizeof s->held->line + 64], *out = line;
	struct smtp_command bare = *cmd;
	struct smtp_param p;
	size_t at = 0;

	if (cmd->verb != SMTP_MAIL || !cmd->params_len || (!s->o->received && !(s->hooks->events & 1u << HOOK_DATA)))
		return false;
	bare.params_len = 0;
	out += smtp_command_write(&bare, line, sizeof line) - 2;
	while (smtp_param_next(cmd->params, cmd->params_len, &at, &p))
		out += held_write_param(s, &p, (size_t)(cmd->params + at - p.keyword), out);
	memcpy(out, "\r\n", 2);
	leg_write(&s->server.leg, line, (size_t)(out + 2 - line));
	return true;
}

void held_send_command(struct session *s, const struct smtp_command *cmd)
{
	size_t room = cmd->line_len + 16;

	if (!send_traced_chunk(s, cmd) && !s->server.leg.broken && !send_sized_mail(s, cmd))
		leg_wrote(&s->server.leg, smtp_command_write(cmd, leg_room(&s->server.leg, room), room));
	dialogue_sent(&s->dialogue, cmd);
	if (cmd->verb == SMTP_AUTH || cmd->verb == SMTP_AUTH_RESPONSE)
		leg_mark_secret(&s->server.leg);
}

void held_send(struct session *s)
{
	const struct smtp_command *cmd = &s->held->cmd;

	if (s->o->limits.mail_late)
		talk_comm(s, COMM_OWN, cmd->line, cmd->line_len);
	held_send_command(s, cmd);
	transaction_sent(s, cmd->verb);
	if (s->held->original_len)
		dialogue_rewritten(&s->dialogue, s->held->original, s->held->original_len);
}
