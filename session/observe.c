/* Observation of servers. See observe.h for the contract; the comments here say why. */
#include "session/observe.h"
#include "io/providers.h"
#include "io/statefile.h"
#include "pure/site.h"
#include "session/record.h"
#include "session/serverstate.h"

#include <errno.h>
#include <string.h>

#define DETECT_TRIES 100 /* each that fails is one that succeeded elsewhere */
#define PORT_OF_MX 25

static void forget(struct observe *o)
{
	memset(o->count, 0, sizeof o->count);
	for (unsigned i = 0; i < STATEMAP_PHASES_END; i++)
		o->phase[i] = -1;
	o->weight = 0;
	o->refused = false;
}

void observe_begin(struct session *s)
{
	forget(&s->observe);
	if (statefile_current())
		statefile_enter();
}

/* ---- into the map ---- */

static const char *why_changed(const struct detector *before, const struct detector *after, uint64_t now)
{
	switch ((enum detector_state)after->state) {
	case DETECTOR_THROTTLED:
	case DETECTOR_BLOCKED:
		return "replies";
	case DETECTOR_SLOW:
		return after->late[DETECTOR_DATA] >= DETECTOR_LATE_ALARM ? "time to 354" : "time to answer RCPT";
	case DETECTOR_OK:
		break;
	}
	return !before->until ? "in time again" : before->until <= now ? "the hold is over" : "a message was accepted";
}

static void record_change(const struct session *s, const struct statemap_slot *slot, const char *source,
    const struct detector *before, const struct detector *after, uint64_t now)
{
	char text[STATEMAP_TEXT] = "";
	uint32_t score = before->score;
	struct record_backoff b = { source, detector_state_name(before->state), detector_state_name(after->state),
		why_changed(before, after, now), 0, after->until > now ? (int64_t)(after->until - now) : 0, REPLY_OK, text };

	for (unsigned i = 0; after->state == DETECTOR_SLOW && i < DETECTOR_DELAYS; i++)
		score = i && score > after->late[i] ? score : after->late[i];
	b.score = score;
	if (!statemap_said(slot, &b.class, text) || !*text)
		b.class = REPLY_OK;
	record_backoff(s, &b);
}

/* What was heard, added to what the map knew. */
static void take_evidence(const struct observe *o, struct detector *d, uint64_t now)
{
	static const enum statemap_phase delays[] = { [DETECTOR_DATA] = STATEMAP_PHASE_DATA, [DETECTOR_RCPT] = STATEMAP_PHASE_RCPT };

	if (o->weight)
		detector_reply(d, o->class, o->scope, now);
	for (enum detector_delay i = 0; i < DETECTOR_DELAYS; i++)
		if (o->phase[delays[i]] >= 0)
			detector_delay(d, i, (uint64_t)o->phase[delays[i]], now);
}

/* Whoever comes too late has another session's evidence to begin with, which is what changed the map. */
static void detect(const struct session *s, struct statemap_slot *slot, const char *source, uint64_t now)
{
	struct detector before, after;
	unsigned tries = DETECT_TRIES;

	do {
		statemap_detector(slot, &before);
		after = before;
		take_evidence(&s->observe, &after, now);
	} while (!statemap_detected(slot, &before, &after) && --tries);
	if (tries && after.state != before.state)
		record_change(s, slot, source, &before, &after, now);
}

/* What has passed since these octets were counted last. */
static void add_octets(struct session *s, struct statemap *m)
{
	const uint64_t passed[] = { s->client.leg.received, s->client.leg.sent, s->server.leg.received, s->server.leg.sent };

	for (unsigned i = 0; i < 4; i++) {
		statemap_add(m->total + STATEMAP_BYTES_FROM_CLIENT + i, passed[i] - s->observe.octets[i]);
		s->observe.octets[i] = passed[i];
	}
}

static void add(struct session *s, struct statemap *m)
{
	const struct observe *o = &s->observe;
	char address[NET_TEXT];
	const char *source = net_text(&s->server.source, address);
	uint64_t now = statefile_now();
	unsigned number = statemap_claim(m, o->site, source, now);
	struct statemap_slot *slot = &m->slot[number];

	statemap_used(slot, now);
	for (unsigned i = 0; i < STATEMAP_COUNTERS_END; i++)
		if (o->count[i])
			statemap_add(slot->counter + i, o->count[i]);
	for (enum statemap_phase i = 0; i < STATEMAP_PHASES_END; i++)
		if (o->phase[i] >= 0)
			statemap_time(slot, i, (uint64_t)o->phase[i]);
	if (o->refused)
		statemap_say(slot, s->refusal->class, (const char *)s->refusal->text, s->refusal->text_len);
	if (number != STATEMAP_OTHER)
		detect(s, slot, source, now);
	add_octets(s, m);
}

static void flush(struct session *s)
{
	struct statemap *m = statefile_current();

	if (m && *s->observe.site)
		add(s, m);
	forget(&s->observe);
}

/* ---- whose server it is ---- */

/* A session without a listener reads the file when it has a name. */
static const char *providers(struct session *s, size_t *n)
{
	const char *text = providers_text(n);
	char why[400];

	if (text)
		return text;
	if (!providers_load(s->o->providers, true, why, sizeof why))
		record_error(s, why);
	return providers_text(n);
}

/* This name has led to the address, or its certificate proves it. A name that is no provider's says nothing of the hosts around it. */
static void name_site(struct session *s, const char *name)
{
	struct statemap *m = statefile_current();
	char network[STATEMAP_SITE];
	size_t n;
	const char *text = providers(s, &n);

	if (!site_of_name(text ? text : "", n, name, s->observe.site) || !m)
		return;
	site_of_address(&s->server.address, network);
	statemap_learn(m, network, s->observe.site, statefile_now());
}

static bool is_named(const struct session *s)
{
	return s->server.upstream && net_is_name(s->server.upstream->host);
}

static void find_site(struct session *s)
{
	const struct statemap *m = statefile_current();
	char learnt[STATEMAP_SITE];

	if (is_named(s)) {
		name_site(s, s->server.upstream->host);
		return;
	}
	site_of_address(&s->server.address, s->observe.site);
	if (m && statemap_learnt(m, s->observe.site, statefile_now(), learnt))
		strcpy(s->observe.site, learnt);
}

/* ---- by the DNS ----
 *
 * The owner of a recipient's domain names its exchanges, and leads names of his own wherever he likes: to a server of somebody else's too,
 * whose site he must not become. So
 * - a name given to us, one that a certificate proves, and a site learnt from such a name stand: the DNS is not asked;
 * - a provider's name counts, and is learnt for the network, for only the provider can lead it there;
 * - any other name counts for mail to this domain at this address, and is learnt for these two alone. So is that there is no such name, and
 *   for a moment that a session asks: where no name server answers, not every session does.
 */

static bool is_known(const struct session *s)
{
	char network[STATEMAP_SITE];

	site_of_address(&s->server.address, network);
	return strcmp(s->observe.site, network) != 0;
}

/* The site by the answer, which is learnt. What others have learnt meanwhile stands. */
static void site_by_answer(struct session *s, struct statemap *m, const struct mxname_answer *a, char site[STATEMAP_SITE])
{
	char network[STATEMAP_SITE], address[NET_TEXT];
	uint64_t now = statefile_now();
	size_t n;
	const char *text = providers(s, &n);

	site_of_address(&a->address, network);
	if (statemap_learnt(m, network, now, site))
		return;
	if (*a->name && site_of_name(text ? text : "", n, a->name, site)) {
		statemap_learn(m, network, site, now);
		return;
	}
	if (!*a->name)
		strcpy(site, network);
	statemap_learn_answer(m, net_text(&a->address, address), a->domain, site, now);
}

void observe_turn(struct session *s)
{
	const struct mxname_answer *a = mxname_turn(s);
	char site[STATEMAP_SITE];

	if (!a)
		return;
	site_by_answer(s, statefile_current(), a, site);
	if (net_same_host(&a->address, &s->server.address) && !is_known(s))
		strcpy(s->observe.site, site);
	mxname_end(s);
}

/* The client or its DNS chose the address for a recipient: on port 25, for MX tell nothing of others. */
static bool wants_name(const struct session *s)
{
	return statefile_current() && !s->o->no_mx_names && !s->server.upstream && net_port(&s->server.address) == PORT_OF_MX && !is_known(s);
}

bool observe_may_ask(const struct session *s)
{
	return s->mxname.asking || (!s->mxname.asked && wants_name(s));
}

/* Know or ask the name that the DNS gives this server. */
static void find_name(struct session *s, const unsigned char *recipient, size_t n)
{
	struct statemap *m = statefile_current();
	char domain[DNS_NAME_MAX + 1], address[NET_TEXT], learnt[STATEMAP_SITE];
	const char *text;

	if (!wants_name(s) || !mxname_domain(recipient, n, domain))
		return;
	if (statemap_learnt_answer(m, net_text(&s->server.address, address), domain, statefile_now(), learnt)) {
		strcpy(s->observe.site, learnt);
	} else if (!s->mxname.asked) {
		statemap_learn_asked(m, address, domain, s->observe.site, statefile_now());
		text = providers(s, &n);
		mxname_ask(s, domain, &s->server.address, text ? text : "", n);
	}
}

void observe_recipient(struct session *s, const struct smtp_command *cmd)
{
	if (serverstate_is_open(s))
		find_name(s, cmd->address, cmd->address_len);
}

/* With --connect-on recipient the server is dialled for the recipient that waits: as the client said it. */
static void find_name_of_held(struct session *s)
{
	const struct held *h = s->held;
	bool rewritten = h->original_len > 0;

	if (s->gate.stage == GATE_SERVER)
		find_name(s, rewritten ? h->original : h->cmd.address, rewritten ? h->original_len : h->cmd.address_len);
}

unsigned observe_watch(const struct session *s, struct pollfd *p)
{
	return s->end.how == END_NOT ? mxname_watch(s, p) : 0;
}

int64_t observe_deadline(const struct session *s)
{
	return mxname_deadline(s);
}

/* ---- the connection ---- */

static void count(struct session *s, enum statemap_counter counter)
{
	s->observe.count[counter]++;
}

/* Of what is heard until it goes into the map, the heaviest counts: refusals of our address, then what was accepted, then the rest. */
static void hear(struct session *s, enum reply_class class, enum reply_scope scope)
{
	unsigned char weight = scope != REPLY_OF_IP ? 1 : class == REPLY_OK ? 2 : 3;

	if (weight <= s->observe.weight)
		return;
	s->observe.weight = weight;
	s->observe.class = class;
	s->observe.scope = scope;
}

/* The first result of a connection is the one that counts. */
static void count_result(struct session *s, enum statemap_counter result)
{
	if (s->observe.dialled)
		count(s, result);
	s->observe.dialled = false;
}

void observe_server(struct session *s)
{
	flush(s);
	find_site(s);
	find_name_of_held(s);
	s->observe.dialled = true;
	s->observe.secured = false;
}

void observe_unreachable(struct session *s, int error)
{
	count_result(s, !error ? STATEMAP_CONNECT_BANNER : error == ECONNREFUSED ? STATEMAP_CONNECT_REFUSED :
	    error == ETIMEDOUT ? STATEMAP_CONNECT_TIMEOUT : STATEMAP_CONNECT_UNREACHABLE);
}

void observe_banner(struct session *s)
{
	s->observe.phase[STATEMAP_PHASE_CONNECT] = s->server.connect;
	s->observe.phase[STATEMAP_PHASE_BANNER] = s->now - s->server.connected_at;
	count_result(s, STATEMAP_CONNECT_OK);
}

void observe_tls(struct session *s, enum statemap_counter result, int64_t us)
{
	count(s, result);
	s->observe.secured = true;
	if (result != STATEMAP_TLS_OK && result != STATEMAP_TLS_VERIFIED)
		return;
	s->observe.phase[STATEMAP_PHASE_TLS] = us;
	if (s->server.facts.holder && !is_named(s))
		name_site(s, s->server.facts.holder);
}

void observe_refusal(struct session *s)
{
	const struct refusal *r = s->refusal;

	count(s, STATEMAP_REPLY + 2 * r->stage + (r->code >= 500));
	s->observe.refused = true;
	if (r->stage == REPLY_AT_BANNER || r->stage == REPLY_AT_EHLO)
		hear(s, r->class, r->scope);
	if (r->stage != REPLY_AT_BANNER)
		return;
	count_result(s, STATEMAP_CONNECT_BANNER);
	flush(s); /* the client may stay, and no message will come */
}

/* ---- the message ---- */

void observe_rcpt(struct session *s)
{
	if (s->observe.phase[STATEMAP_PHASE_RCPT] < 0)
		s->observe.phase[STATEMAP_PHASE_RCPT] = s->tx.times->rcpt;
}

static void take_recipient(struct session *s, enum reply_class class, enum reply_scope scope)
{
	count(s, STATEMAP_RECIPIENT + class);
	hear(s, class, scope);
}

static bool is_by_server(int code, const struct dialogue_judgement *j)
{
	return code < 400 || j->by == DIALOGUE_BY_UPSTREAM;
}

static void take_judged(struct session *s, int code, const struct dialogue_judgement *j)
{
	if (code >= 400 && is_by_server(code, j))
		take_recipient(s, j->class, j->scope);
}

/* Recipients that were accepted share the fate of the message; LMTP tells it of each. */
static void take_recipients(struct session *s, enum transaction_result result)
{
	const struct dialogue_transaction *tx = &s->dialogue.tx;
	const struct dialogue_decision *d = &tx->decision;

	for (uint32_t i = 0; i < tx->rcpts; i++) {
		const struct dialogue_mailbox *rcpt = &tx->rcpt[i];

		if (rcpt->code / 100 != 2)
			take_judged(s, rcpt->code, &rcpt->judgement);
		else if (result == TRANSACTION_ACCEPTED)
			take_recipient(s, REPLY_OK, REPLY_OF_IP);
		else
			take_judged(s, d->code, &d->judgement);
	}
	if (tx->mail == DIALOGUE_MAIL_REFUSED && is_by_server(d->code, &d->judgement))
		hear(s, d->judgement.class, d->judgement.scope);
}

/* Whether the server has decided this message, if anybody has: by its reply, or by those to all recipients. */
static bool is_decided_by_server(const struct dialogue_transaction *tx)
{
	bool by_server = is_by_server(tx->decision.code, &tx->decision.judgement);

	for (uint32_t i = 0; i < tx->rcpts && !tx->accepted; i++)
		by_server = by_server && is_by_server(tx->rcpt[i].code, &tx->rcpt[i].judgement);
	return by_server;
}

void observe_message(struct session *s, enum transaction_result result)
{
	static const unsigned char counters[] = {
		[TRANSACTION_ACCEPTED] = STATEMAP_MESSAGE_ACCEPTED, [TRANSACTION_DEFERRED] = STATEMAP_MESSAGE_DEFERRED,
		[TRANSACTION_REJECTED] = STATEMAP_MESSAGE_REJECTED, [TRANSACTION_DISCARDED] = STATEMAP_MESSAGE_DISCARDED,
		[TRANSACTION_ABORTED] = STATEMAP_MESSAGE_ABORTED, [TRANSACTION_UNKNOWN] = STATEMAP_MESSAGE_UNKNOWN,
	};
	struct observe *o = &s->observe;

	take_recipients(s, result);
	if (is_decided_by_server(&s->dialogue.tx))
		count(s, counters[result]);
	if (!o->secured)
		count(s, STATEMAP_TLS_PLAIN);
	o->secured = true;
	o->phase[STATEMAP_PHASE_DATA] = s->tx.times->data_reply;
	o->phase[STATEMAP_PHASE_ACCEPT] = s->tx.times->accept;
	flush(s);
}

/* ---- the host ---- */

void observe_limit(enum statemap_total limit)
{
	if (statefile_current())
		statemap_add(statefile_current()->total + limit, 1);
}

void observe_hook(enum hook_event event, const char *name, int64_t us, bool failed)
{
	struct statemap *m = statefile_current();

	if (m)
		statemap_hook(m, event, name, (uint64_t)us, failed);
}

void observe_end(struct session *s)
{
	static const unsigned char ended[] = { [END_BY_CLIENT] = STATEMAP_ENDED_CLIENT, [END_BY_SERVER] = STATEMAP_ENDED_UPSTREAM,
		[END_BY_SMTPWARP] = STATEMAP_ENDED_SMTPWARP };
	struct statemap *m = statefile_current();

	flush(s);
	if (!m)
		return;
	add_octets(s, m);
	statemap_add(m->total + ended[s->end.by], 1);
	statemap_add(m->total + STATEMAP_LOG_DROPPED, s->end.dropped);
}
