/* The order of an SMTP conversation. See dialogue.h for the contract; the comments here say why. */
#include "pure/dialogue.h"
#include "pure/sasl.h"

#include <string.h>

void dialogue_init(struct dialogue *d, const struct dialogue_limits *limits)
{
	d->limits = *limits;
	d->client = DIALOGUE_COMMAND;
	dialogue_forget_server(d);
	dialogue_end_transaction(d);
	dialogue_expect(d, SMTP_GREETING, false);
}

/* ---- the queue ---- */

static void push(struct dialogue *d, enum smtp_verb verb, bool hidden, bool last, const char *local)
{
	struct dialogue_pending *p = &d->queue[(d->head + d->queued) % DIALOGUE_QUEUE_MAX];

	p->verb = (unsigned char)verb;
	p->hidden = hidden;
	p->last = last;
	p->replies = (uint16_t)(last && d->lmtp && d->tx.accepted ? d->tx.accepted : 1);
	p->local = local;
	d->queued++;
}

static void pop(struct dialogue *d)
{
	d->head = (d->head + 1) % DIALOGUE_QUEUE_MAX;
	if (--d->queued > 0)
		return;
	d->head = 0;
	d->group_ended = false;
}

void dialogue_expect(struct dialogue *d, enum smtp_verb verb, bool hidden)
{
	push(d, verb, hidden, verb == SMTP_CONTENT, NULL);
	d->group_ended = true;
}

const char *dialogue_local_reply(struct dialogue *d)
{
	const char *reply = d->queued ? d->queue[d->head].local : NULL;

	if (reply)
		pop(d);
	return reply;
}

enum smtp_verb dialogue_awaited(const struct dialogue *d)
{
	return d->queued && !d->queue[d->head].local ? (enum smtp_verb)d->queue[d->head].verb : SMTP_NOTHING;
}

void dialogue_forget_server(struct dialogue *d)
{
	d->head = d->queued = 0;
	d->group_ended = d->quitting = false;
	d->reply_code = 0;
}

/* ---- the client's bytes ---- */

/* The client's answer to 334. A line that cannot be sent on becomes "*", which ends the exchange on both sides, RFC 4954 4. */
static enum dialogue_status answer(struct dialogue *d, const unsigned char *in, size_t len, bool bad,
    struct smtp_command *cmd)
{
	static const unsigned char cancel[] = "*";

	memset(cmd, 0, sizeof *cmd);
	cmd->verb = SMTP_AUTH_RESPONSE;
	cmd->line = in;
	cmd->line_len = smtp_without_end(in, len);
	if (bad || memchr(in, '\r', cmd->line_len) || memchr(in, 0, cmd->line_len)) {
		cmd->line = cancel;
		cmd->line_len = 1;
	}
	d->client = DIALOGUE_COMMAND;
	return DIALOGUE_ANSWER;
}

static bool is_bdat(const unsigned char *in, size_t n)
{
	while (n && !smtp_word(in, 1)) {
		in++;
		n--;
	}
	return smtp_is(in, smtp_word(in, n), "BDAT");
}

static bool stands_alone(const struct dialogue *d, enum smtp_verb verb)
{
	/* what may follow, and how many replies, depends on how many recipients were accepted */
	bool counts = d->lmtp && (verb == SMTP_BDAT || (verb == SMTP_RCPT && !d->lmtp_client));

	return counts || smtp_verb_group(verb) == SMTP_ALONE || (d->limits.alone & 1u << verb);
}

static enum dialogue_status next_line(struct dialogue *d, const unsigned char *in, size_t n, size_t *used,
    struct smtp_command *cmd)
{
	bool auth = d->client == DIALOGUE_RESPONSE || (n >= 5 && smtp_is(in, 5, "AUTH "));
	size_t max = auth ? SMTP_AUTH_LINE_MAX : d->limits.command_line;
	size_t len = smtp_find_line(in, n);
	bool skipped = d->skipping, bad;

	*used = len;
	if (!skipped && (len ? len : n) >= max)
		d->skipped_fatal = is_bdat(in, len ? len : n) || smtp_is_http(in, len ? len : n);
	if (!len) {
		d->skipping = skipped || n >= max;
		*used = d->skipping ? n : 0;
		return DIALOGUE_MORE;
	}
	d->skipping = false;
	bad = skipped || len > max;
	if (d->client == DIALOGUE_RESPONSE)
		return answer(d, in, len, bad, cmd);
	if (bad) { /* keep none of it: it may be a secret */
		memset(cmd, 0, sizeof *cmd);
		cmd->verb = SMTP_UNKNOWN;
		cmd->line = cmd->arg = in;
		cmd->refusal = "500 5.5.2 Line too long";
		cmd->fatal = d->skipped_fatal; /* its octets, or its body, would be taken for commands */
		return DIALOGUE_LINE;
	}
	smtp_parse(in, len, cmd);
	if (stands_alone(d, cmd->verb) && d->queued) {
		*used = 0;
		return DIALOGUE_WAIT;
	}
	return DIALOGUE_LINE;
}

static enum dialogue_status next_chunk(struct dialogue *d, const unsigned char *in, size_t n, size_t *used,
    struct smtp_piece *piece)
{
	*used = n < d->chunk ? n : (size_t)d->chunk;
	if (!*used && d->chunk)
		return DIALOGUE_MORE;
	d->chunk -= *used;
	piece->bytes = in;
	piece->len = *used;
	piece->end = d->chunk == 0;
	if (piece->end)
		d->client = DIALOGUE_COMMAND;
	if (d->tx.mail != DIALOGUE_NO_MAIL) { /* a RSET before the chunk may have ended it */
		d->tx.octets += *used;
		d->tx.complete = piece->end && d->chunk_last && !d->kept;
	}
	return DIALOGUE_PIECE;
}

/* How many commands may await replies: one if the server does not know PIPELINING. */
static unsigned depth(const struct dialogue *d)
{
	return d->ehlo.extensions & SMTP_EXT_PIPELINING ? d->limits.pipeline : 1;
}

enum dialogue_status dialogue_client_next(struct dialogue *d, const unsigned char *in, size_t n, size_t *used,
    struct smtp_command *cmd, struct smtp_piece *piece)
{
	*used = 0;
	switch (d->client) {
	case DIALOGUE_DATA:
		if (!smtp_scan(&d->scanner, in, n, used, piece))
			return DIALOGUE_MORE;
		d->tx.octets = d->scanner.content;
		return DIALOGUE_PIECE;
	case DIALOGUE_CHUNK:
		return next_chunk(d, in, n, used, piece);
	case DIALOGUE_SWALLOW:
		*used = n < d->chunk ? n : (size_t)d->chunk;
		d->chunk -= *used;
		if (!d->chunk)
			d->client = DIALOGUE_COMMAND;
		return DIALOGUE_MORE;
	case DIALOGUE_COMMAND:
	case DIALOGUE_RESPONSE:
		if (d->queued && (d->group_ended || d->queued >= depth(d)))
			return DIALOGUE_WAIT;
		return next_line(d, in, n, used, cmd);
	}
	return DIALOGUE_MORE;
}

/* ---- what may be said now ---- */

static const char need_greeting[] = "503 5.5.1 EHLO or HELO first";
static const char not_here[] = "502 5.5.1 Not offered";
static const char need_mail[] = "503 5.5.1 MAIL first";

static const char *check_mail(const struct dialogue *d, const struct smtp_command *cmd)
{
	uint64_t limit = smtp_lower_size(d->limits.message_size, d->limits.on_recipient ? 0 : d->ehlo.size);

	if (d->limits.on_recipient && (cmd->unusual || (cmd->auth && !d->offer.auth)))
		return DIALOGUE_NOT_OFFERED;
	if (d->tx.mail == DIALOGUE_MAIL_OPEN && !d->tx.decision.code) /* if DATA was refused the server decides */
		return "503 5.5.1 A message is open already";
	if (limit && cmd->octets > limit)
		return DIALOGUE_TOO_LARGE;
	if (cmd->requiretls && !d->offer.requires_later && !(d->offer.requiretls && (d->ehlo.extensions & SMTP_EXT_REQUIRETLS)))
		return "530 5.7.30 REQUIRETLS cannot be kept on the way to this server";
	return NULL;
}

static const char *check_rcpt(const struct dialogue *d, const struct smtp_command *cmd)
{
	const struct dialogue_transaction *tx = &d->tx;
	uint32_t taken = tx->accepted + tx->unanswered;

	if (d->limits.on_recipient && cmd->unusual)
		return DIALOGUE_NOT_OFFERED;
	if (tx->mail != DIALOGUE_MAIL_SENT && tx->mail != DIALOGUE_MAIL_OPEN)
		return need_mail;
	if (tx->chunks)
		return "503 5.5.1 The message has begun";
	if (d->lmtp && !d->lmtp_client && taken)
		return "452 4.5.3 One recipient at a time: send this one in a transaction of its own";
	if (tx->rcpts >= d->limits.recipients || (d->lmtp_client && taken >= DIALOGUE_LMTP_MAX) ||
	    DIALOGUE_TEXT_MAX - tx->text_len < cmd->address_len + cmd->params_len)
		return "452 4.5.3 Too many recipients";
	return NULL;
}

static const char *check_content(const struct dialogue *d, const struct smtp_command *cmd)
{
	const struct dialogue_transaction *tx = &d->tx;

	if (tx->mail != DIALOGUE_MAIL_SENT && tx->mail != DIALOGUE_MAIL_OPEN)
		return need_mail;
	if (!tx->accepted && !tx->unanswered)
		return tx->rcpts && !d->lmtp_client ? "554 5.5.1 No valid recipients" : "503 5.5.1 RCPT first";
	if (d->lmtp && tx->chunks && tx->decision.code)
		return "503 5.5.1 A chunk was refused";
	if (cmd->verb == SMTP_DATA)
		return tx->chunks ? "503 5.5.1 BDAT has begun" :
		    tx->binarymime ? "503 5.5.1 BODY=BINARYMIME takes BDAT" : NULL;
	if (!d->limits.on_recipient && !(d->ehlo.extensions & SMTP_EXT_CHUNKING))
		return "502 5.5.1 CHUNKING is not offered";
	if (d->limits.message_size && cmd->octets > d->limits.message_size - tx->octets)
		return DIALOGUE_TOO_LARGE;
	return NULL;
}

/* For STARTTLS and AUTH, which change who the client is: not within a transaction, nor when the server knows the client
 * already. */
static const char *check_identity(const struct dialogue *d)
{
	if (d->tx.mail != DIALOGUE_NO_MAIL && d->tx.mail != DIALOGUE_MAIL_REFUSED)
		return "503 5.5.1 Not during a message";
	return d->authenticated ? "503 5.5.1 Already authenticated" : NULL;
}

static const char *check_starttls(const struct dialogue *d)
{
	if (d->encrypted)
		return "503 5.5.1 TLS is in use already";
	return d->offer.starttls ? check_identity(d) : not_here;
}

static const char *check_auth(const struct dialogue *d)
{
	const char *refusal = check_identity(d);
	bool offered = d->limits.on_recipient ? d->offer.auth || d->auth_later : (d->ehlo.extensions & SMTP_EXT_AUTH) != 0;

	if (refusal)
		return refusal;
	if (!offered)
		return "502 5.5.1 AUTH is not offered";
	if (d->offer.auth)
		return NULL;
	return d->encrypted ? "538 5.7.11 AUTH needs encryption up to the server" : "538 5.7.11 AUTH needs encryption";
}

/* For commands that are in order before EHLO, too, RFC 5321 4.1.4; but before TLS nothing is sent upstream. */
static const char *check_harmless(const struct dialogue *d, enum smtp_verb verb)
{
	if (d->greeted && (verb == SMTP_RSET || !d->limits.on_recipient))
		return NULL;
	return verb == SMTP_HELP ? "214 2.0.0 RFC 5321 has it all" :
	    verb == SMTP_VRFY ? "252 2.1.5 Send a message to find out" :
	    verb == SMTP_EXPN ? not_here : "250 2.0.0 Ok";
}

const char *dialogue_check(const struct dialogue *d, const struct smtp_command *cmd)
{
	const uint32_t before_tls = 1u << SMTP_EHLO | 1u << SMTP_HELO | 1u << SMTP_NOOP | 1u << SMTP_QUIT |
	    1u << SMTP_STARTTLS | 1u << SMTP_LHLO;

	if (cmd->refusal)
		return cmd->refusal;
	if (d->limits.require_tls && !d->encrypted && !(before_tls & 1u << cmd->verb))
		return "530 5.7.0 Must issue a STARTTLS command first";
	switch (cmd->verb) {
	case SMTP_EHLO:
	case SMTP_HELO:
	case SMTP_QUIT:
		return NULL;
	case SMTP_LHLO:
		return d->lmtp || d->limits.on_recipient ? NULL : "500 5.5.1 Command not recognized";
	case SMTP_STARTTLS:
		return check_starttls(d);
	case SMTP_XCLIENT:
	case SMTP_XFORWARD:
		return not_here;
	case SMTP_NOOP:
	case SMTP_RSET:
	case SMTP_HELP:
	case SMTP_VRFY:
	case SMTP_EXPN:
		return check_harmless(d, cmd->verb);
	default:
		break;
	}
	if (!d->greeted)
		return need_greeting;
	switch (cmd->verb) {
	case SMTP_MAIL:
		return check_mail(d, cmd);
	case SMTP_RCPT:
		return check_rcpt(d, cmd);
	case SMTP_DATA:
	case SMTP_BDAT:
		return check_content(d, cmd);
	case SMTP_AUTH:
		return check_auth(d);
	default:
		return d->limits.on_recipient ? not_here : NULL;
	}
}

/* ---- what was said ---- */

static uint32_t store_text(struct dialogue_transaction *tx, const unsigned char *text, size_t n)
{
	uint32_t at = tx->text_len;

	memcpy(tx->text + at, text, n);
	tx->text_len += (uint32_t)n;
	return at;
}

static void store(struct dialogue_transaction *tx, struct dialogue_mailbox *m, const struct smtp_command *cmd)
{
	memset(m, 0, sizeof *m);
	m->address = store_text(tx, cmd->address, cmd->address_len);
	m->address_len = (uint16_t)cmd->address_len;
	m->params = store_text(tx, cmd->params, cmd->params_len);
	m->params_len = (uint16_t)cmd->params_len;
}

static void clear_transaction(struct dialogue_transaction *tx)
{
	tx->mail = DIALOGUE_NO_MAIL;
	tx->chunks = tx->binarymime = tx->eightbit = tx->smtputf8 = tx->requiretls = tx->complete = false;
	tx->octets = 0;
	tx->rcpts = tx->accepted = tx->unanswered = tx->text_len = tx->said_len = tx->settled = 0;
	tx->decision.code = 0;
	tx->header.state = SMTP_HD_NAME;
	tx->header.matched = tx->header.id_len = 0;
}

static void begin_transaction(struct dialogue *d, const struct smtp_command *cmd)
{
	clear_transaction(&d->tx);
	d->transactions++;
	d->tx.mail = DIALOGUE_MAIL_SENT;
	d->tx.binarymime = cmd->binarymime;
	d->tx.eightbit = cmd->eightbit;
	d->tx.smtputf8 = cmd->smtputf8;
	d->tx.requiretls = cmd->requiretls;
	store(&d->tx, &d->tx.sender, cmd);
}

static void auth_user(struct dialogue *d, const unsigned char *b64, size_t n)
{
	size_t len = sasl_user(d->mech, d->mech_len, d->auth_step++, b64, n, d->user, sizeof d->user);

	if (len)
		d->user_len = len;
}

static void sent_auth(struct dialogue *d, const struct smtp_command *cmd)
{
	size_t mech = smtp_word(cmd->arg, cmd->arg_len), blanks = 0;

	while (mech + blanks < cmd->arg_len && !smtp_word(cmd->arg + mech + blanks, 1))
		blanks++;
	d->auth_step = 0;
	d->user_len = 0;
	d->mech_len = mech < sizeof d->mech ? mech : 0;
	memcpy(d->mech, cmd->arg, d->mech_len);
	if (mech + blanks < cmd->arg_len)
		auth_user(d, cmd->arg + mech + blanks, cmd->arg_len - mech - blanks);
}

static void begin_chunk(struct dialogue *d, const struct smtp_command *cmd, enum dialogue_client how)
{
	d->chunk = cmd->octets;
	d->chunk_last = cmd->last;
	if (how == DIALOGUE_CHUNK || d->chunk)
		d->client = how;
}

void dialogue_sent(struct dialogue *d, const struct smtp_command *cmd)
{
	push(d, cmd->verb, false, cmd->verb == SMTP_BDAT && cmd->last, NULL);
	d->group_ended = smtp_verb_group(cmd->verb) == SMTP_LAST || (cmd->verb == SMTP_BDAT && cmd->last);
	d->quitting = cmd->verb == SMTP_QUIT;
	switch (cmd->verb) {
	case SMTP_MAIL:
		begin_transaction(d, cmd);
		break;
	case SMTP_RCPT:
		store(&d->tx, &d->tx.rcpt[d->tx.rcpts++], cmd);
		d->tx.unanswered++;
		break;
	case SMTP_BDAT:
		d->tx.chunks = true;
		begin_chunk(d, cmd, DIALOGUE_CHUNK);
		break;
	case SMTP_AUTH:
		sent_auth(d, cmd);
		break;
	case SMTP_AUTH_RESPONSE:
		auth_user(d, cmd->line, cmd->line_len);
		break;
	default:
		break;
	}
}

void dialogue_sent_kept(struct dialogue *d)
{
	push(d, SMTP_BDAT, false, true, NULL);
	d->group_ended = d->tx.chunks = d->chunk_last = true;
	d->quitting = false;
}

size_t dialogue_clip(const unsigned char *text, size_t n)
{
	if (n <= DIALOGUE_CLIP)
		return n;
	for (n = DIALOGUE_CLIP; n > DIALOGUE_CLIP - 4 && (text[n] & 0xc0) == 0x80;)
		n--;
	return n;
}

/* Keep what the server says. When it says the same to one recipient after the other, as with a message that is refused, it is kept once. */
static void note_said(struct dialogue_transaction *tx, struct dialogue_mailbox *rcpt, const struct smtp_line *line)
{
	size_t n = dialogue_clip(line->text, line->text_len);
	bool same = n && n <= tx->said_len && memcmp(tx->said + tx->said_len - n, line->text, n) == 0;

	if (!same && n > DIALOGUE_SAID_MAX - tx->said_len)
		n = 0;
	if (!same && n) {
		memcpy(tx->said + tx->said_len, line->text, n);
		tx->said_len += (uint32_t)n;
	}
	rcpt->said = tx->said_len - (uint32_t)n;
	rcpt->said_len = (unsigned char)n;
}

static void note_reply(struct dialogue_transaction *tx, struct dialogue_mailbox *rcpt, const struct smtp_line *line, bool always)
{
	rcpt->code = (uint16_t)line->code;
	rcpt->judgement = (struct dialogue_judgement){ .by = DIALOGUE_BY_SMTPWARP };
	smtp_enhanced(line->text, line->text_len, rcpt->enhanced);
	if (always || line->code >= 400)
		note_said(tx, rcpt, line);
}

static void answered_rcpt(struct dialogue_transaction *tx, const struct smtp_line *line)
{
	if (!tx->unanswered)
		return;
	note_reply(tx, &tx->rcpt[tx->rcpts - tx->unanswered--], line, false);
	if (line->code / 100 == 2)
		tx->accepted++;
}

void dialogue_refuse(struct dialogue *d, const struct smtp_command *cmd, const char *reply)
{
	struct smtp_line line;

	push(d, cmd->verb, false, false, reply);
	if (cmd->verb == SMTP_MAIL && !cmd->refusal && d->tx.mail == DIALOGUE_NO_MAIL && d->greeted &&
	    smtp_parse_reply((const unsigned char *)reply, strlen(reply), &line))
		dialogue_refused(d, cmd, line.code, line.text, line.text_len);
	if (cmd->verb == SMTP_BDAT && !cmd->fatal)
		begin_chunk(d, cmd, DIALOGUE_SWALLOW);
}

/* Replies come in order, so no RCPT may be unanswered when a later one is answered here: see `alone`. */
void dialogue_refused(struct dialogue *d, const struct smtp_command *cmd, int code, const unsigned char *text, size_t n)
{
	struct smtp_line line = { .code = code, .text = text, .text_len = n };

	if (cmd->verb == SMTP_MAIL) {
		begin_transaction(d, cmd);
		d->tx.mail = DIALOGUE_MAIL_REFUSED;
		dialogue_decide(d, code, text, n);
	} else if (cmd->verb == SMTP_RCPT) {
		store(&d->tx, &d->tx.rcpt[d->tx.rcpts++], cmd);
		d->tx.unanswered++;
		answered_rcpt(&d->tx, &line);
	}
}

void dialogue_opened(struct dialogue *d, const struct smtp_command *cmd)
{
	begin_transaction(d, cmd);
	d->tx.mail = DIALOGUE_MAIL_OPEN;
}

void dialogue_keep_chunk(struct dialogue *d, const struct smtp_command *cmd)
{
	d->kept = d->tx.chunks = true;
	begin_chunk(d, cmd, DIALOGUE_CHUNK);
}

void dialogue_scan(struct dialogue *d, const unsigned char *bytes, size_t n)
{
	smtp_header_scan(&d->tx.header, bytes, n);
}

void dialogue_edited(struct dialogue *d, const unsigned char *bytes, size_t n)
{
	d->tx.octets = n;
	memset(&d->tx.header, 0, sizeof d->tx.header);
	dialogue_scan(d, bytes, n);
}

void dialogue_complete(struct dialogue *d)
{
	d->tx.complete = true;
}

void dialogue_rewritten(struct dialogue *d, const unsigned char *original, size_t n)
{
	struct dialogue_mailbox *rcpt = &d->tx.rcpt[d->tx.rcpts - 1];

	if (n > DIALOGUE_TEXT_MAX - d->tx.text_len)
		return;
	rcpt->original = store_text(&d->tx, original, n);
	rcpt->original_len = (uint16_t)n;
}

/* ---- what both sides are ---- */

bool dialogue_quitting(const struct dialogue *d)
{
	return d->quitting;
}

void dialogue_server_speaks(struct dialogue *d, bool lmtp)
{
	d->lmtp = lmtp;
}

void dialogue_ehlo_line(struct dialogue *d, bool first, const unsigned char *text, size_t n)
{
	smtp_ehlo_line(&d->ehlo, first, text, n);
}

void dialogue_no_extensions(struct dialogue *d)
{
	d->ehlo.extensions = 0;
	d->ehlo.size = 0;
}

void dialogue_withdraw(struct dialogue *d, unsigned extensions)
{
	d->ehlo.extensions &= ~extensions;
}

void dialogue_offers(struct dialogue *d, const struct smtp_offer *offer, bool auth_later)
{
	d->offer = *offer;
	d->auth_later = auth_later;
}

void dialogue_greeted(struct dialogue *d, bool lmtp)
{
	d->greeted = true;
	d->lmtp_client = lmtp;
}

void dialogue_set_alone(struct dialogue *d, uint32_t verbs)
{
	d->limits.alone |= verbs;
}

void dialogue_encrypted(struct dialogue *d)
{
	d->encrypted = true;
	d->greeted = false;
	d->user_len = 0;
	d->offer.starttls = false;
}

/* ---- messages ---- */

void dialogue_begin_data(struct dialogue *d, bool keep)
{
	memset(&d->scanner, 0, sizeof d->scanner);
	d->scanner.newline = d->limits.newline;
	d->scanner.unstuff = d->kept = keep;
	d->client = DIALOGUE_DATA;
}

bool dialogue_in_content(const struct dialogue *d)
{
	return d->client == DIALOGUE_DATA || d->client == DIALOGUE_CHUNK;
}

void dialogue_end_data(struct dialogue *d)
{
	d->client = DIALOGUE_COMMAND;
}

void dialogue_decide_enhanced(struct dialogue *d, int code, const uint16_t enhanced[3], const unsigned char *text, size_t n)
{
	struct dialogue_decision *decision = &d->tx.decision;

	if (d->tx.mail == DIALOGUE_NO_MAIL) /* a late reply to a transaction that was given up */
		return;
	decision->code = code;
	decision->judgement = (struct dialogue_judgement){ .by = DIALOGUE_BY_SMTPWARP };
	memcpy(decision->enhanced, enhanced, sizeof decision->enhanced);
	decision->text_len = n < sizeof decision->text ? n : sizeof decision->text;
	if (n)
		memcpy(decision->text, text, decision->text_len);
}

void dialogue_decide(struct dialogue *d, int code, const unsigned char *text, size_t n)
{
	uint16_t enhanced[3];

	smtp_enhanced(text, n, enhanced);
	dialogue_decide_enhanced(d, code, enhanced, text, n);
}

/* By LMTP the decision stays that of an earlier recipient, unless this reply is better: then it is new, and nobody's yet. */
void dialogue_judge(struct dialogue *d, enum smtp_verb verb, enum dialogue_by by, enum reply_class class, enum reply_scope scope)
{
	const struct dialogue_judgement j = { (unsigned char)by, (unsigned char)class, (unsigned char)scope };
	struct dialogue_transaction *tx = &d->tx;
	uint32_t answered = verb == SMTP_RCPT ? tx->rcpts - tx->unanswered : tx->settled;

	if (tx->mail == DIALOGUE_NO_MAIL)
		return;
	if (answered)
		tx->rcpt[answered - 1].judgement = j;
	if (verb != SMTP_RCPT && tx->decision.code >= 400 && tx->decision.judgement.by == DIALOGUE_BY_SMTPWARP)
		tx->decision.judgement = j;
}

void dialogue_end_transaction(struct dialogue *d)
{
	d->kept = false;
	if (d->tx.mail != DIALOGUE_NO_MAIL)
		clear_transaction(&d->tx);
}

/* ---- replies ---- */

/* Whether a command can have this reply, RFC 5321 4.3.2. If not, the server and we disagree about what was asked. */
static bool fits(enum smtp_verb verb, int code)
{
	if (code >= 400)
		return true;
	switch (verb) {
	case SMTP_GREETING:
		return code == 220;
	case SMTP_EHLO:
	case SMTP_LHLO:
	case SMTP_HELO: /* with 251 its list, and STARTTLS in it, would be missed */
		return code == 250;
	case SMTP_DATA:
		return code == 354;
	case SMTP_AUTH:
	case SMTP_AUTH_RESPONSE:
		return code == 334 || code / 100 == 2;
	default:
		return code / 100 == 2;
	}
}

static void answered_auth(struct dialogue *d, int code)
{
	d->client = code == 334 ? DIALOGUE_RESPONSE : DIALOGUE_COMMAND;
	d->authenticated = code / 100 == 2;
	if (code >= 400)
		d->user_len = 0;
}

static bool is_accepted(const struct dialogue_mailbox *rcpt)
{
	return rcpt->code / 100 == 2;
}

uint32_t dialogue_replies_due(const struct dialogue *d)
{
	uint32_t due = 0;

	for (uint32_t i = d->tx.settled; d->lmtp_client && i < d->tx.rcpts; i++)
		due += is_accepted(&d->tx.rcpt[i]);
	return due ? due : 1;
}

/* LMTP: a reply to the message is for the next accepted recipient, RFC 2033 4.2. */
static void settle_recipient(struct dialogue_transaction *tx, const struct smtp_line *line)
{
	while (tx->settled < tx->rcpts && !is_accepted(&tx->rcpt[tx->settled]))
		tx->settled++;
	if (tx->settled == tx->rcpts)
		return;
	note_reply(tx, &tx->rcpt[tx->settled++], line, true);
	tx->accepted -= line->code >= 400;
}

/* A reply to DATA, a chunk or the message. Behind a refused MAIL, or chunk, its refusal says nothing: that one's reply has decided. */
static void decide_by(struct dialogue *d, const struct smtp_line *line)
{
	bool decided = d->tx.mail == DIALOGUE_MAIL_REFUSED || (d->tx.chunks && !d->tx.settled && d->tx.decision.code >= 400);

	if (line->code < 400 || !decided)
		dialogue_decide(d, line->code, line->text, line->text_len);
}

/* Of several replies the best one decides: a recipient that has the message has it. */
static void answered_content(struct dialogue *d, const struct smtp_line *line)
{
	bool better = !d->tx.settled || line->code / 100 < d->tx.decision.code / 100;

	if (d->lmtp)
		settle_recipient(&d->tx, line);
	if (better)
		decide_by(d, line);
}

static void answered(struct dialogue *d, const struct dialogue_pending *p, const struct smtp_line *line)
{
	bool positive = line->code < 400;

	switch ((enum smtp_verb)p->verb) {
	case SMTP_MAIL:
		if (p->hidden || d->tx.mail == DIALOGUE_NO_MAIL) /* the client was answered already, or the transaction given up */
			break;
		d->tx.mail = positive ? DIALOGUE_MAIL_OPEN : DIALOGUE_MAIL_REFUSED;
		if (!positive)
			dialogue_decide(d, line->code, line->text, line->text_len);
		break;
	case SMTP_RCPT:
		answered_rcpt(&d->tx, line);
		break;
	case SMTP_DATA:
		if (!positive)
			decide_by(d, line);
		break;
	case SMTP_BDAT:
		if (p->last)
			answered_content(d, line);
		else if (!positive)
			decide_by(d, line);
		break;
	case SMTP_CONTENT:
		if (!p->hidden)
			answered_content(d, line);
		break;
	case SMTP_AUTH:
	case SMTP_AUTH_RESPONSE:
		if (!p->hidden)
			answered_auth(d, line->code);
		break;
	case SMTP_QUIT:
		d->quitting = d->quitting && (positive || line->code == 421);
		break;
	default:
		break;
	}
}

static const char *violation(const struct dialogue *d, const struct dialogue_reply *r)
{
	/* LMTP: without accepted recipients there must be no message, for it might get no reply */
	bool lone = d->lmtp && r->verb == SMTP_DATA && !d->tx.accepted;

	if (r->verb == SMTP_NOTHING && r->line.code != 421)
		return "a reply that nothing was asked for";
	if (r->line.last && (!fits(r->verb, r->line.code) || (lone && r->line.code == 354)))
		return "a reply that does not fit the command";
	return NULL;
}

bool dialogue_server_next(struct dialogue *d, const unsigned char *in, size_t n, size_t *used,
    struct dialogue_reply *r)
{
	struct dialogue_pending p = { .verb = SMTP_NOTHING };

	memset(r, 0, sizeof *r);
	*used = smtp_find_line(in, n);
	if (!*used && n < SMTP_REPLY_MAX)
		return false;
	if (d->queued && !d->queue[d->head].local)
		p = d->queue[d->head];
	r->verb = (enum smtp_verb)p.verb;
	r->hidden = p.hidden;
	r->content_end = p.last;
	r->first = d->reply_code == 0;
	if (!*used || *used > SMTP_REPLY_MAX)
		r->violation = "a reply line that is too long";
	else if (!smtp_parse_reply(in, *used, &r->line))
		r->violation = "a line that is no SMTP reply";
	if (r->violation)
		r->line = (struct smtp_line){ .last = true }; /* nothing that can be read follows */
	else
		r->violation = violation(d, r);
	if (r->violation)
		return true;
	r->list = (p.verb == SMTP_EHLO || p.verb == SMTP_LHLO) && r->line.code == 250;
	if (r->list)
		smtp_ehlo_line(&d->ehlo, d->reply_code != 250, r->line.text, r->line.text_len);
	d->reply_code = r->line.last ? 0 : r->line.code;
	if (r->line.last && p.verb != SMTP_NOTHING) {
		r->more = --d->queue[d->head].replies > 0;
		if (!r->more)
			pop(d);
		answered(d, &p, &r->line);
	}
	return true;
}
