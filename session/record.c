/* Records. See record.h. */
#define _GNU_SOURCE
#include "session/record.h"
#include "pure/json.h"
#include "io/log.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* A transaction with 10,000 recipients of usual length fits; one that does not is told in parts. */
static _Alignas(4096) char line[2 << 20];
static char hook_line[sizeof line]; /* of its own: records are written while a hook reads it */

void record_id(char id[RECORD_ID])
{
	static const char base32[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
	struct timespec now;
	unsigned char bits[16];
	uint64_t ms;
	unsigned bit = 0;

	clock_gettime(CLOCK_REALTIME, &now);
	ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	for (int i = 0; i < 6; i++)
		bits[i] = (unsigned char)(ms >> (40 - 8 * i));
	if (getrandom(bits + 6, 10, GRND_NONBLOCK) != 10)
		memcpy(bits + 6, &now, 10);
	for (int i = 0; i < 26; i++) {
		unsigned value = 0;

		/* 26 characters of 5 bits are 130: the first has 3. */
		for (int k = i ? 5 : 3; k > 0; k--, bit++)
			value = value << 1 | ((unsigned)bits[bit / 8] >> (7 - bit % 8) & 1u);
		id[i] = base32[value];
	}
	id[26] = 0;
}

static void time_member(struct json *j)
{
	struct timespec now;
	struct tm utc;
	char text[96];

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%06ldZ", utc.tm_year + 1900, utc.tm_mon + 1,
	    utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, now.tv_nsec / 1000);
	json_string(j, "time", text);
}

static void begin_in(struct json *j, char *out, const char *event)
{
	json_begin(j, out, sizeof line);
	json_number(j, "v", 1);
	json_string(j, "event", event);
}

static void begin(struct json *j, const char *event)
{
	begin_in(j, line, event);
}

static void finish(struct json *j, enum log_priority priority)
{
	size_t n = json_end(j);

	if (n)
		log_write(priority, line, n);
}

static void address_members(struct json *j, const union net_address *a)
{
	char text[NET_TEXT];

	json_string(j, "ip", *net_text(a, text) ? text : NULL);
	json_number(j, "port", net_port(a));
}

static void address_object(struct json *j, const char *name, const union net_address *a)
{
	if (!a || a->sa.sa_family == AF_UNSPEC) {
		json_null(j, name);
		return;
	}
	json_open(j, name, '{');
	address_members(j, a);
	json_close(j, '}');
}

static void tls_member(struct json *j, const struct tls_facts *facts)
{
	if (!facts) {
		json_null(j, "tls");
		return;
	}
	json_open(j, "tls", '{');
	json_string(j, "version", facts->version);
	json_string(j, "cipher", facts->cipher);
	json_bool(j, "verified", facts->verified);
	if (facts->cn)
		json_string(j, "cn", facts->cn);
	json_close(j, '}');
}

/* Who talks to whom. */
static void ends(struct json *j, const struct record_view *v)
{
	const struct dialogue *d = v->dialogue;

	json_string(j, "session", v->id);
	time_member(j);
	json_open(j, "client", '{');
	address_members(j, &v->client);
	tls_member(j, v->client_tls);
	json_close(j, '}');
	if (v->proxy.sa.sa_family != AF_UNSPEC)
		address_object(j, "proxy", &v->proxy);
	if (v->server.sa.sa_family == AF_UNSPEC) {
		json_null(j, "server");
	} else {
		json_open(j, "server", '{');
		address_members(j, &v->server);
		if (v->server.sa.sa_family == AF_UNIX)
			json_string(j, "path", v->server_path);
		tls_member(j, v->server_tls);
		json_close(j, '}');
	}
	if (v->helo_len)
		json_bytes(j, "helo", v->helo, v->helo_len);
	else
		json_null(j, "helo");
	if (d->authenticated)
		json_bytes(j, "auth", d->user, d->user_len);
	else
		json_null(j, "auth");
}

static void params_member(struct json *j, const unsigned char *params, size_t n)
{
	struct smtp_param p;
	unsigned char keyword[64];
	size_t at = 0;

	json_open(j, "params", '{');
	while (smtp_param_next(params, n, &at, &p)) {
		size_t len = p.keyword_len < sizeof keyword ? p.keyword_len : sizeof keyword;

		for (size_t i = 0; i < len; i++)
			keyword[i] = (unsigned char)(p.keyword[i] >= 'a' && p.keyword[i] <= 'z' ?
			    p.keyword[i] - 32 : p.keyword[i]);
		json_name(j, keyword, len);
		j->comma = false;
		if (p.value)
			json_bytes(j, NULL, p.value, p.value_len);
		else
			json_bool(j, NULL, true);
	}
	json_close(j, '}');
}

static void mailbox(struct json *j, const char *name, const struct dialogue_transaction *tx,
    const struct dialogue_mailbox *m)
{
	json_open(j, name, '{');
	json_bytes(j, "address", tx->text + m->address, m->address_len);
	params_member(j, tx->text + m->params, m->params_len);
	if (m->original_len)
		json_bytes(j, "original", tx->text + m->original, m->original_len);
}

/* One that is not part of the transaction yet. */
static void mailbox_of(struct json *j, const char *name, const struct smtp_command *cmd)
{
	json_open(j, name, '{');
	json_bytes(j, "address", cmd->address, cmd->address_len);
	params_member(j, cmd->params, cmd->params_len);
	json_close(j, '}');
}

static void enhanced_member(struct json *j, const uint16_t enhanced[3])
{
	char text[24];

	snprintf(text, sizeof text, "%u.%u.%u", enhanced[0], enhanced[1], enhanced[2]);
	json_string(j, "enhanced", enhanced[0] ? text : NULL);
}

static void sender(struct json *j, const struct dialogue_transaction *tx)
{
	if (tx->mail == DIALOGUE_NO_MAIL) {
		json_null(j, "mail_from");
		return;
	}
	mailbox(j, "mail_from", tx, &tx->sender);
	json_close(j, '}');
}

/* The message, with recipients `from` to `to`, and replies to them when `replies`. */
static void content(struct json *j, const struct dialogue_transaction *tx, uint32_t from, uint32_t to, bool replies)
{
	json_open(j, "rcpt_to", '[');
	for (uint32_t i = from; i < to; i++) {
		if (!replies && tx->rcpt[i].code / 100 != 2)
			continue;
		mailbox(j, NULL, tx, &tx->rcpt[i]);
		if (replies) {
			json_number(j, "code", tx->rcpt[i].code);
			enhanced_member(j, tx->rcpt[i].enhanced);
		}
		json_close(j, '}');
	}
	json_close(j, ']');
	json_number(j, "size", tx->octets);
	if (tx->header.id_len)
		json_bytes(j, "message_id", tx->header.id, tx->header.id_len);
	else
		json_null(j, "message_id");
}

static void common(struct json *j, const struct record_view *v, const char *event)
{
	const struct dialogue_transaction *tx = &v->dialogue->tx;

	begin(j, event);
	ends(j, v);
	sender(j, tx);
	content(j, tx, 0, tx->rcpts, false);
}

/* ---- notes ---- */

/* As they stand in bytes: transaction, lengths of key and value, both texts. */
struct note {
	uint32_t transaction;
	uint16_t key_len, value_len;
};

bool record_note(struct record_notes *notes, uint32_t transaction, const struct verdict *v)
{
	struct note n = { transaction, (uint16_t)v->name_len, (uint16_t)v->text_len };
	unsigned char *at = notes->bytes + notes->len;

	if (v->text_len > UINT16_MAX || sizeof n + v->name_len + v->text_len > sizeof notes->bytes - notes->len)
		return false;
	memcpy(at, &n, sizeof n);
	memcpy(at + sizeof n, v->name, v->name_len);
	memcpy(at + sizeof n + v->name_len, v->text, v->text_len);
	notes->len += sizeof n + v->name_len + v->text_len;
	return true;
}

/* The note at *at, which moves on. Of a transaction: its own and the session's; UINT32_MAX: all. */
static const unsigned char *next_note(const struct record_notes *notes, size_t *at, uint32_t transaction, struct note *n)
{
	while (notes && *at < notes->len) {
		const unsigned char *text = notes->bytes + *at + sizeof *n;

		memcpy(n, notes->bytes + *at, sizeof *n);
		*at += sizeof *n + n->key_len + n->value_len;
		if (!n->transaction || n->transaction == transaction || transaction == UINT32_MAX)
			return text;
	}
	return NULL;
}

/* Whether a later note has the same key: it is the one that counts. */
static bool is_outdated(const struct record_notes *notes, size_t at, uint32_t transaction, const unsigned char *key,
    size_t n)
{
	struct note later;
	const unsigned char *text;

	while ((text = next_note(notes, &at, transaction, &later)))
		if (later.key_len == n && memcmp(text, key, n) == 0)
			return true;
	return false;
}

static void notes_member(struct json *j, const struct record_notes *notes, uint32_t transaction)
{
	const unsigned char *text;
	struct note n;
	size_t at = 0;

	json_open(j, "hooks", '{');
	while ((text = next_note(notes, &at, transaction, &n))) {
		if (is_outdated(notes, at, transaction, text, n.key_len))
			continue;
		json_name(j, text, n.key_len);
		j->comma = false;
		json_bytes(j, NULL, text + n.key_len, n.value_len);
	}
	json_close(j, '}');
}

/* ---- records ---- */

void record_connect(const struct record_view *v, const union net_address *original, const union net_address *source,
    const struct record_times *t, const struct smtp_line *banner)
{
	struct json j;

	if (!log_wanted())
		return;
	common(&j, v, "connect");
	address_object(&j, "original", original);
	address_object(&j, "source", source);
	json_ms(&j, "connect_ms", t->connect);
	json_ms(&j, "banner_ms", t->banner);
	json_bytes(&j, "banner", banner->text, banner->text_len);
	finish(&j, LOG_PRIORITY_INFO);
}

void record_tls(const struct record_view *v, const char *side, const char *level, const char *result, const char *name,
    const struct tls_facts *facts, const char *reason, int64_t us)
{
	struct json j;

	if (!log_wanted())
		return;
	common(&j, v, "tls");
	json_string(&j, "side", side);
	json_string(&j, "level", level);
	json_string(&j, "result", result);
	json_string(&j, "version", facts ? facts->version : NULL);
	json_string(&j, "cipher", facts ? facts->cipher : NULL);
	json_bool(&j, "verified", facts && facts->verified);
	json_string(&j, "name", name);
	json_string(&j, "reason", reason);
	json_ms(&j, "tls_ms", us);
	finish(&j, facts || *result == 'p' ? LOG_PRIORITY_INFO : LOG_PRIORITY_WARNING);
}

static void decision(struct json *j, const struct dialogue_decision *d)
{
	if (!d->code) {
		json_null(j, "reply");
		return;
	}
	json_open(j, "reply", '{');
	json_number(j, "code", (uint64_t)d->code);
	enhanced_member(j, d->enhanced);
	json_bytes(j, "text", d->text, d->text_len);
	json_close(j, '}');
}

static void message(const struct record_view *v, const char *result, const struct record_times *t, uint32_t from,
    uint32_t to)
{
	const struct dialogue_transaction *tx = &v->dialogue->tx;
	struct json j;

	begin(&j, "message");
	ends(&j, v);
	sender(&j, tx);
	content(&j, tx, from, to, true);
	if (to - from < tx->rcpts)
		json_number(&j, "first_rcpt", from);
	json_string(&j, "result", result);
	decision(&j, &tx->decision);
	json_ms(&j, "mail_ms", t->mail);
	json_ms(&j, "rcpt_ms", t->rcpt);
	json_ms(&j, "data_ms", t->data);
	json_ms(&j, "accept_ms", t->accept);
	notes_member(&j, v->notes, v->dialogue->transactions);
	if (to - from > 1 && (j.full || j.len > log_record_max())) {
		message(v, result, t, from, from + (to - from) / 2);
		message(v, result, t, from + (to - from) / 2, to);
		return;
	}
	finish(&j, LOG_PRIORITY_INFO);
}

void record_message(const struct record_view *v, const char *result, const struct record_times *t)
{
	if (log_wanted())
		message(v, result, t, 0, v->dialogue->tx.rcpts);
}

static void close_members(struct json *j, const struct record_view *v, const struct record_times *t,
    const struct record_totals *totals)
{
	json_number(j, "messages", totals->messages);
	json_number(j, "recipients", totals->recipients);
	json_number(j, "errors", totals->errors);
	json_number(j, "client_in", totals->client_in);
	json_number(j, "client_out", totals->client_out);
	json_number(j, "server_in", totals->server_in);
	json_number(j, "server_out", totals->server_out);
	json_ms(j, "connect_ms", t->connect);
	json_ms(j, "banner_ms", t->banner);
	json_ms(j, "tls_ms", t->tls);
	json_ms(j, "duration_ms", totals->duration);
	notes_member(j, v->notes, UINT32_MAX);
	json_number(j, "log_dropped", totals->dropped);
	json_string(j, "by", totals->by);
	json_string(j, "reason", totals->reason);
}

void record_close(const struct record_view *v, const struct record_times *t, const struct record_totals *totals)
{
	struct json j;

	if (!log_wanted())
		return;
	common(&j, v, "close");
	close_members(&j, v, t, totals);
	finish(&j, LOG_PRIORITY_INFO);
}

size_t record_hook(const struct record_view *v, enum hook_event event, const union net_address *original,
    const struct smtp_command *cmd, const struct record_times *t, const struct record_totals *totals, const char **text)
{
	const struct dialogue_transaction *tx = &v->dialogue->tx;
	struct json j;

	begin_in(&j, hook_line, hook_event_name(event));
	ends(&j, v);
	if (event == HOOK_MAIL)
		mailbox_of(&j, "mail_from", cmd);
	else
		sender(&j, tx);
	content(&j, tx, 0, tx->rcpts, false);
	if (event == HOOK_CONNECT)
		address_object(&j, "original", original);
	if (event == HOOK_RCPT)
		mailbox_of(&j, "rcpt", cmd);
	if (event == HOOK_DATA)
		json_string(&j, "message", "/dev/fd/3");
	if (event == HOOK_CLOSE)
		close_members(&j, v, t, totals);
	*text = hook_line;
	return json_end(&j);
}

/* A line of a verdict each, as it was said. */
static void lines_member(struct json *j, const unsigned char *lines, size_t n)
{
	size_t len;

	json_open(j, "lines", '[');
	for (size_t at = 0; at < n; at += len) {
		len = smtp_find_line(lines + at, n - at);
		len = len ? len : n - at;
		json_bytes(j, NULL, lines + at, smtp_without_end(lines + at, len));
	}
	json_close(j, ']');
}

void record_verdict(const struct record_view *v, enum hook_event event, const char *hook, const char *word,
    const unsigned char *text, size_t text_len, const unsigned char *lines, size_t n, int64_t us)
{
	struct json j;

	if (!log_wanted())
		return;
	common(&j, v, "verdict");
	json_string(&j, "on", hook_event_name(event));
	json_string(&j, "hook", hook);
	json_string(&j, "verdict", word);
	if (text_len)
		json_bytes(&j, "text", text, text_len);
	else
		json_null(&j, "text");
	lines_member(&j, lines, n);
	json_ms(&j, "hook_ms", us);
	finish(&j, strcmp(word, "failed") == 0 ? LOG_PRIORITY_ERROR : LOG_PRIORITY_INFO);
}

static void listing(struct json *j, const struct record_listing *l)
{
	union net_address a = { .v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(l->address) } };
	char text[NET_TEXT];

	json_open(j, NULL, '{');
	json_string(j, "zone", l->zone);
	json_string(j, "answer", l->answered ? net_text(&a, text) : NULL);
	json_signed(j, "weight", l->weight);
	json_string(j, "failure", l->failure);
	json_close(j, '}');
}

void record_check(const struct record_view *v, const struct record_check *c)
{
	struct json j;
	bool failed = false;

	if (!log_wanted())
		return;
	common(&j, v, "verdict");
	json_string(&j, "on", c->on);
	json_null(&j, "hook");
	json_string(&j, "verdict", c->verdict);
	json_string(&j, "text", c->text);
	if (c->data)
		json_bytes(&j, "data", c->data, c->data_len);
	if (c->listing) {
		json_open(&j, "lists", '[');
		for (unsigned i = 0; i < c->listings; i++) {
			listing(&j, &c->listing[i]);
			failed = failed || c->listing[i].failure;
		}
		json_close(&j, ']');
		json_signed(&j, "score", c->score);
	}
	json_ms(&j, "check_ms", c->us);
	finish(&j, failed ? LOG_PRIORITY_WARNING : LOG_PRIORITY_INFO);
}

void record_error(const struct record_view *v, const char *error)
{
	struct json j;

	if (!log_wanted())
		return;
	common(&j, v, "error");
	json_string(&j, "error", error);
	finish(&j, LOG_PRIORITY_ERROR);
}

void record_comm(const struct record_view *v, const char *direction, const void *bytes, size_t n)
{
	struct json j;

	if (!log_wanted())
		return;
	begin(&j, "comm");
	ends(&j, v);
	json_string(&j, "direction", direction);
	json_bytes(&j, "data", bytes, n);
	finish(&j, LOG_PRIORITY_DEBUG);
}

void record_fault(const char *error, const union net_address *client)
{
	struct json j;

	begin(&j, "error");
	time_member(&j);
	address_object(&j, "client", client);
	json_string(&j, "error", error);
	finish(&j, LOG_PRIORITY_ERROR);
}
