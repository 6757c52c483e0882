/* TLS towards the client: STARTTLS (RFC 3207) that smtpwarp serves itself, TLS from the first octet (RFC 8314), and STARTTLS
 * that is left to the two ends. See session.h.
 *
 * What comes behind STARTTLS, or behind the 220, in the clear was put there by somebody in between who wants it taken for
 * what was said inside TLS (RFC 3207 6, CVE-2011-0411): the session ends.
 */
#define _GNU_SOURCE
#include "session/session.h"
#include "io/keys.h"

#include <sys/socket.h>

#define STAGE_BYTES (32 << 10) /* two whole records in one read */

static struct tls *engine; /* made ready, 220 is on its way */
static const char *first_end; /* who closed first, of a tunnel */
static bool carried; /* something, from the client */

static bool passes_through(const struct session *s)
{
	return s->o->client_tls == CLIENT_TLS_PASSTHROUGH && !s->dialogue.encrypted;
}

bool secure_is_ours(const struct session *s, enum smtp_verb verb)
{
	return verb == SMTP_STARTTLS && !passes_through(s);
}

bool secure_offers(const struct session *s)
{
	if (passes_through(s))
		return (s->dialogue.ehlo.extensions & SMTP_EXT_STARTTLS) && !s->server.tls &&
		    s->dialogue.lmtp == (s->greet_verb == SMTP_LHLO); /* inside they must speak the same */
	return s->o->client_tls != CLIENT_TLS_NONE && s->o->client_tls != CLIENT_TLS_IMPLICIT && !s->dialogue.encrypted;
}

/* ---- attacks ---- */

static void end_tampered(struct session *s, const char *error, const char *reply)
{
	record_error(&s->view, error);
	session_reply(s, reply);
	session_end(s, "smtpwarp", error);
	s->linger = true;
}

static const char injected[] = "plaintext behind STARTTLS: the client spoke, or somebody for it, before TLS was there";

/* Whether the client has said more than STARTTLS before it can have heard 220. Then the session is over. */
static bool spoke_on(struct session *s, bool heard)
{
	char c;

	if (!leg_count(&s->client) && (heard || recv(s->client.fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) <= 0))
		return false;
	end_tampered(s, injected, "421 4.7.0 Nothing may follow STARTTLS before TLS is there");
	return true;
}

/* ---- the handshake ---- */

static void record_outcome(const struct session *s, const char *result, const struct tls_facts *facts, const char *reason)
{
	const char *name = s->client.tls ? tls_asked_name(s->client.tls) : NULL;

	record_tls(&s->view, "client", client_tls_name(s->o->client_tls), result, name, facts, reason,
	    s->shake_at ? s->now - s->shake_at : -1);
}

static void shake(struct session *s, struct tls *t)
{
	static struct buffer stage;
	static unsigned char stage_bytes[STAGE_BYTES];

	leg_storage(&stage, stage_bytes, sizeof stage_bytes);
	leg_use_tls(&s->client, t, &stage);
	s->stage = STAGE_SHAKE;
	s->shake_at = s->now;
}

void secure_begin(struct session *s)
{
	const char *why;
	struct tls *t = tls_serve(&why);

	if (t) {
		shake(s, t);
		return;
	}
	record_outcome(s, "failed", NULL, why);
	session_end(s, "smtpwarp", why);
	s->silent = true;
}

static void answer_starttls(struct session *s)
{
	const char *why;

	if (engine || spoke_on(s, false))
		return;
	engine = tls_serve(&why);
	if (engine) {
		session_reply(s, "220 Go ahead");
		leg_flush(&s->client);
		return;
	}
	record_outcome(s, "failed", NULL, why);
	session_reply(s, "454 4.7.0 TLS is not available now");
	s->stage = STAGE_NONE;
}

void secure_failed(struct session *s, const char *reason)
{
	const char *failure = tls_failure(s->client.tls);

	if (s->o->client_tls != CLIENT_TLS_IMPLICIT && tls_began_otherwise(s->client.tls))
		record_error(&s->view, injected);
	record_outcome(s, "failed", NULL, failure ? failure : reason);
	session_end(s, "client", "TLS handshake failed");
	s->silent = true;
}

/* RFC 3207 4.2: as if the client had just come. */
static void begin_anew(struct session *s)
{
	struct tls_facts facts;

	relay_end_transaction(s, NULL); /* one that was refused */
	dialogue_encrypted(&s->dialogue);
	s->view.helo_len = 0;
	tls_facts(s->client.tls, &facts);
	if (!s->view.client_tls) { /* else the client's own ends at the proxy before us, and this is the proxy's */
		s->client_facts = facts;
		s->view.client_tls = &s->client_facts;
	}
	record_outcome(s, "ok", &facts, NULL);
	s->stage = STAGE_NONE;
	s->active_at = s->now;
	s->handled++;
	if (s->o->client_tls == CLIENT_TLS_IMPLICIT)
		checks_start(s);
}

void secure_turn(struct session *s)
{
	if (s->ending)
		return;
	if (s->stage == STAGE_STARTTLS && passes_through(s))
		spoke_on(s, false);
	else if (s->stage == STAGE_STARTTLS)
		answer_starttls(s);
	if (s->stage == STAGE_STARTTLS && engine && !leg_pending(&s->client) && !spoke_on(s, true))
		shake(s, engine); /* what has been read by now came before 220 was out */
	if (s->stage != STAGE_SHAKE)
		return;
	if (s->client.broken || tls_failure(s->client.tls))
		secure_failed(s, s->client.why);
	else if (tls_handshake_done(s->client.tls))
		begin_anew(s);
	else if (s->client.eof)
		secure_failed(s, s->client.why);
}

/* ---- passthrough ---- */

bool secure_answered(struct session *s, int code)
{
	s->stage = STAGE_NONE;
	if (code != 220)
		return true;
	if (spoke_on(s, false))
		return false;
	if (leg_count(&s->server)) { /* CVE-2021-38371 */
		end_tampered(s, "plaintext after the reply to STARTTLS: somebody injected it",
		    "421 4.7.0 upstream's reply to STARTTLS is not to be trusted");
		return false;
	}
	s->stage = STAGE_TUNNEL;
	s->silent = s->quit = true; /* no word of ours may stand in what follows, to either side */
	s->active_at = s->now;
	record_outcome(s, "passthrough", NULL, NULL);
	return true;
}

static bool carry(struct session *s, struct leg *from, struct leg *to)
{
	size_t n = leg_count(from), room = leg_write_room(to);

	n = n < room ? n : room;
	if (!n)
		return false;
	leg_write(to, leg_bytes(from), n);
	leg_consume(from, n);
	s->active_at = s->now;
	return true;
}

void secure_carry(struct session *s)
{
	static const char early[] = "the upstream spoke before the client's handshake: somebody injected it";

	carried = carry(s, &s->client, &s->server) || carried;
	if (leg_count(&s->server) && !carried) { /* in TLS the client speaks first */
		record_error(&s->view, early);
		session_end(s, "smtpwarp", early);
		return;
	}
	carry(s, &s->server, &s->client);
}

/* All that `from` will ever say has gone on. */
static bool is_through(const struct leg *from, const struct leg *to)
{
	return from->eof && !leg_count(from) && !leg_pending(to);
}

static void pass_end(struct session *s, struct leg *from, struct leg *to, const char *by)
{
	if (!is_through(from, to) || first_end == by)
		return;
	if (first_end) { /* both have */
		session_end(s, first_end, "connection closed");
		return;
	}
	first_end = by;
	leg_shut(to);
}

void secure_carry_ends(struct session *s)
{
	if (s->client.broken)
		session_end(s, "client", s->client.why);
	else if (s->server.broken)
		session_end(s, "upstream", s->server.why);
	pass_end(s, &s->client, &s->server, "client");
	pass_end(s, &s->server, &s->client, "upstream");
}
