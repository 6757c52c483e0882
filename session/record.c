/* Records. See record.h for the contract. Each function writes members of an object, or a whole one. */
#define _GNU_SOURCE
#include "session/record.h"
#include "io/event.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* Whatever a client says fits, so that no event is too large for a record or a hook. An octet of text becomes 6 at most (\u0001), one of
 * parameters less than that; a recipient has 130 octets around its texts. The rest is for names, notes and numbers. Pages that are not used cost
 * nothing. */
#define RECORD_LINE_MAX (6 * (DIALOGUE_TEXT_MAX + DIALOGUE_SAID_MAX + SMTP_AUTH_LINE_MAX + sizeof(struct record_notes)) + 144 * DIALOGUE_RCPT_MAX + (64 << 10))
static _Alignas(4096) char line[RECORD_LINE_MAX];
static char hook_line[sizeof line]; /* of its own: records are written while a hook reads it */

void record_id(char id[SESSION_ID])
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

/* Whose server it is, see observe.c. */
static void site_member(struct json *j, const struct session *s)
{
	json_string(j, "site", *s->observe.site ? s->observe.site : NULL);
}

static void begin_record(struct json *j, const char *event)
{
	event_begin(j, line, sizeof line, event);
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

/* The members that all records have: the session, its client, its server. */
static void ends(struct json *j, const struct session *s)
{
	const struct dialogue *d = &s->dialogue;

	json_string(j, "session", s->id);
	event_time(j);
	json_open(j, "client", '{');
	event_address_members(j, &s->client.address);
	tls_member(j, s->client.has_facts ? &s->client.facts : NULL);
	json_close(j, '}');
	if (s->client.proxy.sa.sa_family != AF_UNSPEC)
		event_address(j, "proxy", &s->client.proxy);
	if (s->client.authority)
		json_string(j, "authority", s->client.authority);
	if (s->server.address.sa.sa_family == AF_UNSPEC) {
		json_null(j, "server");
	} else {
		json_open(j, "server", '{');
		event_address_members(j, &s->server.address);
		if (s->server.address.sa.sa_family == AF_UNIX)
			json_string(j, "path", s->server.host);
		tls_member(j, s->server.has_facts ? &s->server.facts : NULL);
		json_close(j, '}');
	}
	if (s->hello.name_len)
		json_bytes(j, "helo", s->hello.name, s->hello.name_len);
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

/* The mailbox of a held command, which is not part of the transaction yet. */
static void mailbox_of(struct json *j, const char *name, const struct smtp_command *cmd)
{
	json_open(j, name, '{');
	json_bytes(j, "address", cmd->address, cmd->address_len);
	params_member(j, cmd->params, cmd->params_len);
	json_close(j, '}');
}

/* Why the upstream refuses; null: it does not, or the refusal is somebody else's. */
static void class_member(struct json *j, int code, const struct dialogue_judgement *by)
{
	bool is = code >= 400 && by->by == DIALOGUE_BY_UPSTREAM;

	json_string(j, "class", is || code / 100 == 2 ? replyclass_name(is ? (enum reply_class)by->class : REPLY_OK) : NULL);
}

/* Whose refusal it is. */
static void by_member(struct json *j, const struct dialogue_judgement *by)
{
	static const char names[][9] = { "smtpwarp", "upstream", "hook" };

	json_string(j, "by", names[by->by]);
}

static void enhanced_member(struct json *j, const uint16_t enhanced[3])
{
	char text[24];

	snprintf(text, sizeof text, "%u.%u.%u", enhanced[0], enhanced[1], enhanced[2]);
	json_string(j, "enhanced", enhanced[0] ? text : NULL);
}

/* n: its number in the session; 0: there is none. */
static void transaction_member(struct json *j, const struct session *s, uint32_t n)
{
	char text[SESSION_ID + 12];

	snprintf(text, sizeof text, "%s-%u", s->id, (unsigned)n);
	json_string(j, "transaction", n ? text : NULL);
}

static void sender(struct json *j, const struct session *s)
{
	const struct dialogue_transaction *tx = &s->dialogue.tx;

	transaction_member(j, s, tx->mail == DIALOGUE_NO_MAIL ? 0 : s->dialogue.transactions);
	if (tx->mail == DIALOGUE_NO_MAIL) {
		json_null(j, "mail_from");
		return;
	}
	mailbox(j, "mail_from", tx, &tx->sender);
	json_close(j, '}');
}

/* The reply to a recipient. */
static void answer(struct json *j, const struct dialogue_transaction *tx, const struct dialogue_mailbox *rcpt)
{
	json_number(j, "code", rcpt->code);
	enhanced_member(j, rcpt->enhanced);
	class_member(j, rcpt->code, &rcpt->judgement);
	if (rcpt->said_len)
		json_bytes(j, "text", tx->said + rcpt->said, rcpt->said_len);
	if (rcpt->code >= 400)
		by_member(j, &rcpt->judgement);
}

/* The recipients from number `from` up to `to`, and the message. replies: with the reply to each recipient; else accepted recipients
 * only. */
static void content(struct json *j, const struct dialogue_transaction *tx, uint32_t from, uint32_t to, bool replies)
{
	json_open(j, "rcpt_to", '[');
	for (uint32_t i = from; i < to; i++) {
		if (!replies && tx->rcpt[i].code / 100 != 2)
			continue;
		mailbox(j, NULL, tx, &tx->rcpt[i]);
		if (replies) {
			answer(j, tx, &tx->rcpt[i]);
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

static void common(struct json *j, const struct session *s, const char *event)
{
	const struct dialogue_transaction *tx = &s->dialogue.tx;

	begin_record(j, event);
	ends(j, s);
	sender(j, s);
	content(j, tx, 0, tx->rcpts, false);
}

/* ---- notes ---- */

/* The head of a note in record_notes.bytes; key and value follow it. */
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

/* Find the next note from *at on that is of the session or of this transaction (UINT32_MAX: of any), and move *at behind it. Returns its
 * key, which the value follows; NULL: there is none. */
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

/* Whether a note from `at` on has the same key of n octets: the last one counts. */
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

/* The last refusal by the upstream. */
static void refusal_members(struct json *j, const struct refusal *r)
{
	json_string(j, "stage", replyclass_stage_name(r->stage));
	json_number(j, "code", r->code);
	enhanced_member(j, r->enhanced);
	json_string(j, "class", replyclass_name(r->class));
	json_bytes(j, "text", r->text, r->text_len);
}

void record_refusal(const struct session *s)
{
	struct json j;

	if (!log_wanted())
		return;
	common(&j, s, "refusal");
	site_member(&j, s);
	refusal_members(&j, s->refusal);
	event_end(&j, line, LOG_PRIORITY_WARNING);
}

void record_backoff(const struct session *s, const struct record_backoff *b)
{
	struct json j;

	if (!log_wanted())
		return;
	common(&j, s, "backoff");
	site_member(&j, s);
	json_string(&j, "source", *b->source ? b->source : NULL);
	json_string(&j, "mode", "observe");
	json_string(&j, "from", b->from);
	json_string(&j, "to", b->to);
	json_string(&j, "why", b->why);
	json_number(&j, "score", b->score);
	if (b->hold)
		event_time_from_now(&j, "until", b->hold);
	else
		json_null(&j, "until");
	json_string(&j, "class", *b->text ? replyclass_name(b->class) : NULL);
	json_string(&j, "text", *b->text ? b->text : NULL);
	event_end(&j, line, LOG_PRIORITY_WARNING);
}

void record_connect(const struct session *s, const struct smtp_line *banner)
{
	struct json j;

	if (!log_wanted())
		return;
	common(&j, s, "connect");
	site_member(&j, s);
	event_address(&j, "original", &s->server.original);
	event_address(&j, "source", &s->server.source);
	json_ms(&j, "connect_ms", s->server.connect);
	json_ms(&j, "banner_ms", s->hello.banner);
	json_bytes(&j, "banner", banner->text, banner->text_len);
	json_number(&j, "code", (uint64_t)banner->code);
	json_string(&j, "class", replyclass_name(banner->code < 400 ? REPLY_OK : s->refusal->class));
	if (banner->code >= 400)
		json_bytes(&j, "text", s->refusal->text, s->refusal->text_len);
	event_end(&j, line, banner->code / 100 == 2 ? LOG_PRIORITY_INFO : LOG_PRIORITY_WARNING);
}

void record_tls(const struct session *s, const struct record_handshake *h)
{
	static const char sides[][9] = { "client", "upstream" }, results[][12] = { "ok", "failed", "fallback", "passthrough" };
	const struct tls_facts *facts = h->facts;
	struct json j;

	if (!log_wanted())
		return;
	common(&j, s, "tls");
	json_string(&j, "side", sides[h->side]);
	json_string(&j, "level", h->level);
	json_string(&j, "result", results[h->result]);
	json_string(&j, "version", facts ? facts->version : NULL);
	json_string(&j, "cipher", facts ? facts->cipher : NULL);
	json_bool(&j, "verified", facts && facts->verified);
	if (facts && facts->resumed)
		json_bool(&j, "resumed", true);
	json_string(&j, "name", h->name);
	if (h->policy)
		json_string(&j, "policy", h->policy);
	json_string(&j, "reason", h->reason);
	json_ms(&j, "tls_ms", h->us);
	if (h->plain_in)
		event_time_from_now(&j, "plain_from", h->plain_in);
	event_end(&j, line, facts || h->result == RECORD_TLS_PASSTHROUGH ? LOG_PRIORITY_INFO : LOG_PRIORITY_WARNING);
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
	class_member(j, d->code, &d->judgement);
	if (d->code >= 400)
		by_member(j, &d->judgement);
	json_close(j, '}');
}

static const char *result_name(enum transaction_result result)
{
	static const char names[][10] = { "", "accepted", "deferred", "rejected", "discarded", "aborted", "unknown" };

	return names[result];
}

/* A "message" record of the recipients from number `from` up to `to`; as two records of half of them each, if it is too long. */
static void message(const struct session *s, enum transaction_result result, uint32_t from, uint32_t to)
{
	const struct dialogue_transaction *tx = &s->dialogue.tx;
	struct json j;

	begin_record(&j, "message");
	ends(&j, s);
	sender(&j, s);
	content(&j, tx, from, to, true);
	if (to - from < tx->rcpts)
		json_number(&j, "first_rcpt", from);
	site_member(&j, s);
	json_string(&j, "result", result_name(result));
	decision(&j, &tx->decision);
	json_ms(&j, "mail_ms", s->tx.times->mail);
	json_ms(&j, "rcpt_ms", s->tx.times->rcpt);
	json_ms(&j, "data_ms", s->tx.times->data);
	json_ms(&j, "data_reply_ms", s->tx.times->data_reply);
	json_ms(&j, "accept_ms", s->tx.times->accept);
	notes_member(&j, s->notes, s->dialogue.transactions);
	if (to - from > 1 && (j.full || j.len + 2 > log_record_max())) {
		message(s, result, from, from + (to - from) / 2);
		message(s, result, from + (to - from) / 2, to);
		return;
	}
	event_end(&j, line, result == TRANSACTION_DEFERRED ? LOG_PRIORITY_WARNING : LOG_PRIORITY_INFO);
}

void record_message(const struct session *s, enum transaction_result result)
{
	if (log_wanted())
		message(s, result, 0, s->dialogue.tx.rcpts);
}

static const char *by_name(enum end_by by)
{
	static const char names[][9] = { "", "client", "upstream", "smtpwarp" };

	return *names[by] ? names[by] : NULL;
}

/* Whether the client has left at the sight of a list without STARTTLS, which the server had in it. */
static bool may_want_tls(const struct session *s)
{
	const struct dialogue *d = &s->dialogue;
	bool withheld = (s->server.has_facts || d->ehlo.extensions & SMTP_EXT_STARTTLS) && !d->encrypted && !d->offer.starttls;

	return withheld && d->greeted && s->hello.verb != SMTP_HELO && !d->transactions && !s->commands.auth_seen && s->end.by == END_BY_CLIENT;
}

static void close_members(struct json *j, const struct session *s)
{
	json_number(j, "messages", s->tx.messages);
	json_number(j, "recipients", s->tx.recipients);
	json_number(j, "errors", s->errors);
	json_number(j, "client_in", s->client.leg.received);
	json_number(j, "client_out", s->client.leg.sent);
	json_number(j, "server_in", s->server.leg.received);
	json_number(j, "server_out", s->server.leg.sent);
	json_ms(j, "connect_ms", s->server.connect);
	json_ms(j, "banner_ms", s->hello.banner);
	json_ms(j, "tls_ms", s->server.tls);
	json_ms(j, "duration_ms", s->end.over - s->started);
	notes_member(j, s->notes, UINT32_MAX);
	if (s->refusal->code) {
		json_open(j, "refusal", '{');
		refusal_members(j, s->refusal);
		json_close(j, '}');
	}
	json_bool(j, "seen", s->gate.stage != GATE_TUNNEL);
	if (may_want_tls(s))
		json_string(j, "hint", "may require TLS");
	json_number(j, "log_dropped", s->end.dropped);
	json_string(j, "by", by_name(s->end.by));
	json_string(j, "reason", s->end.reason);
}

void record_close(const struct session *s)
{
	struct json j;

	if (!log_wanted())
		return;
	common(&j, s, "close");
	site_member(&j, s);
	close_members(&j, s);
	event_end(&j, line, LOG_PRIORITY_INFO);
}

/* What hooks of this event judge: the command that is held is no part of the transaction yet. */
static void judged(struct json *j, const struct session *s, enum hook_event event)
{
	const struct dialogue_transaction *tx = &s->dialogue.tx;

	ends(j, s);
	if (event == HOOK_MAIL) {
		transaction_member(j, s, s->dialogue.transactions + 1);
		mailbox_of(j, "mail_from", &s->held->cmd);
	} else {
		sender(j, s);
	}
	content(j, tx, 0, tx->rcpts, false);
	if (event == HOOK_RCPT)
		mailbox_of(j, "rcpt", &s->held->cmd);
}

size_t record_hook(const struct session *s, enum hook_event event, const char **text)
{
	struct json j;

	event_begin(&j, hook_line, sizeof hook_line, hook_event_name(event));
	judged(&j, s, event);
	if (event == HOOK_CONNECT)
		event_address(&j, "original", &s->server.original);
	if (event == HOOK_DATA)
		json_string(&j, "message", "/dev/fd/3");
	if (event == HOOK_CLOSE)
		close_members(&j, s);
	*text = hook_line;
	return json_end(&j);
}

/* The lines of a verdict, as the hook gave them. */
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

void record_verdict(const struct session *s, enum hook_event event, const char *hook, const char *word,
    const unsigned char *text, size_t text_len, const unsigned char *lines, size_t n, int64_t us)
{
	struct json j;

	if (!log_wanted())
		return;
	begin_record(&j, "verdict");
	judged(&j, s, event);
	json_string(&j, "on", hook_event_name(event));
	json_string(&j, "hook", hook);
	json_string(&j, "verdict", word);
	if (text_len)
		json_bytes(&j, "text", text, text_len);
	else
		json_null(&j, "text");
	lines_member(&j, lines, n);
	json_ms(&j, "hook_ms", us);
	event_end(&j, line, strcmp(word, "failed") == 0 ? LOG_PRIORITY_ERROR : LOG_PRIORITY_INFO);
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

void record_check(const struct session *s, const struct record_check *c)
{
	struct json j;
	bool failed = false;

	if (!log_wanted())
		return;
	common(&j, s, "verdict");
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
	event_end(&j, line, failed ? LOG_PRIORITY_WARNING : LOG_PRIORITY_INFO);
}

void record_error(const struct session *s, const char *error)
{
	struct json j;

	if (!log_wanted())
		return;
	common(&j, s, "error");
	json_string(&j, "error", error);
	event_end(&j, line, LOG_PRIORITY_ERROR);
}

void record_comm(const struct session *s, enum record_direction direction, const void *bytes, size_t n)
{
	static const char marks[][3] = { "->", "<-", ">|", "<|", "|>", "|<", "--" };
	struct json j;

	if (!log_wanted())
		return;
	begin_record(&j, "comm");
	ends(&j, s);
	json_string(&j, "direction", marks[direction]);
	json_bytes(&j, "data", bytes, n);
	event_end(&j, line, LOG_PRIORITY_DEBUG);
}
