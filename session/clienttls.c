/* TLS with the client. See clienttls.h for the contract.
 *
 * Octets in the clear after STARTTLS, or after its 220, may have been put there by somebody in between who wants them taken for what was
 * said inside TLS (RFC 3207 6, CVE-2011-0411 for clients' octets, CVE-2021-38371 for servers'): the session ends.
 */
#define _GNU_SOURCE
#include "session/clienttls.h"
#include "io/keys.h"
#include "session/gate.h"
#include "session/identity.h"
#include "session/inspect.h"
#include "session/observe.h"
#include "session/record.h"
#include "session/server.h"
#include "session/serverstate.h"
#include "session/talk.h"
#include "session/tlsreport.h"
#include "session/transaction.h"

#include <sys/socket.h>

#define CIPHERTEXT_BYTES (32 << 10) /* two whole records in one read */

static struct tls *engine;    /* made ready: our 220 is on its way */
static enum end_by first_end; /* which side of a tunnel has closed first */
static bool carried;	      /* octets of the client's went through the tunnel */

bool clienttls_is_ours(const struct session *s, enum smtp_verb verb)
{
	return verb == SMTP_STARTTLS && !inspect_passes(s);
}

bool clienttls_offers(const struct session *s)
{
	enum client_tls how = inspect_client_tls(s);

	if (inspect_passes(s))
		return (s->dialogue.ehlo.extensions & SMTP_EXT_STARTTLS) && !s->server.leg.tls &&
		    s->dialogue.lmtp == (s->hello.verb == SMTP_LHLO); /* nobody can translate inside TLS */
	return how != CLIENT_TLS_NONE && how != CLIENT_TLS_IMPLICIT && !s->dialogue.encrypted;
}

/* ---- attacks ---- */

static void end_tampered(struct session *s, const char *error, const char *reply)
{
	record_error(s, error);
	talk_reply(s, reply);
	talk_end(s, END_LINGER, END_BY_SMTPWARP, error);
}

static const char injected[] = "plaintext behind STARTTLS: the client spoke, or somebody for it, before TLS was there";

/* Whether the client has said more than STARTTLS before TLS was there, which ends the session. sent: our 220 is out, so octets that are
 * still in the socket may be its handshake; else they count, too. */
static bool spoke_on(struct session *s, bool sent)
{
	char c;

	if (!leg_count(&s->client.leg) && (sent || recv(s->client.leg.fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) <= 0))
		return false;
	end_tampered(s, injected, "421 4.7.0 Nothing may follow STARTTLS before TLS is there");
	return true;
}

/* ---- the handshake ---- */

static void record_outcome(const struct session *s, enum record_tls_result result, const struct tls_facts *facts,
    const char *reason)
{
	const char *name = s->client.leg.tls ? tls_asked_name(s->client.leg.tls) : NULL;

	record_tls(s, &(struct record_handshake){ RECORD_CLIENT, result, client_tls_name(inspect_client_tls(s)), name, NULL, reason, facts,
	    s->shake_at ? s->now - s->shake_at : -1, 0 });
}

static void shake(struct session *s, struct tls *t)
{
	static struct buffer ciphertext;
	static unsigned char ciphertext_bytes[CIPHERTEXT_BYTES];

	leg_storage(&ciphertext, ciphertext_bytes, sizeof ciphertext_bytes);
	leg_use_tls(&s->client.leg, t, &ciphertext);
	gate_enter(s, GATE_SHAKE);
	s->shake_at = s->now;
}

void clienttls_begin(struct session *s)
{
	const char *why;
	struct tls *t = tls_serve(&why);

	if (t) {
		shake(s, t);
		return;
	}
	record_outcome(s, RECORD_TLS_FAILED, NULL, why);
	talk_end(s, END_SILENT, END_BY_SMTPWARP, why);
}

static void answer_starttls(struct session *s)
{
	const char *why;

	if (engine || spoke_on(s, false))
		return;
	engine = tls_serve(&why);
	if (engine) {
		talk_reply(s, "220 Go ahead");
		leg_flush(&s->client.leg);
		return;
	}
	record_outcome(s, RECORD_TLS_FAILED, NULL, why);
	talk_reply(s, "454 4.7.0 TLS is not available now");
	gate_enter(s, GATE_OPEN);
}

void clienttls_failed(struct session *s, const char *reason)
{
	const char *failure = tls_failure(s->client.leg.tls);

	if (s->o->client_tls != CLIENT_TLS_IMPLICIT && tls_began_otherwise(s->client.leg.tls))
		record_error(s, injected);
	record_outcome(s, RECORD_TLS_FAILED, NULL, failure ? failure : reason);
	talk_end(s, END_SILENT, END_BY_CLIENT, "TLS handshake failed");
}

void clienttls_accept(struct session *s)
{
	struct tls_facts facts;

	s->secured = false;
	tls_facts(s->client.leg.tls, &facts);
	identity_secured(s, &facts);
	record_outcome(s, RECORD_TLS_OK, &facts, NULL);
}

static void shake_on(struct session *s)
{
	if (s->client.leg.broken || tls_failure(s->client.leg.tls))
		clienttls_failed(s, s->client.leg.why);
	else if (tls_handshake_done(s->client.leg.tls))
		s->secured = true;
	else if (s->client.leg.eof)
		clienttls_failed(s, s->client.leg.why);
}

void clienttls_turn(struct session *s)
{
	if (talk_ended(s))
		return;
	if (s->gate.stage == GATE_STARTTLS && inspect_passes(s))
		spoke_on(s, false);
	else if (s->gate.stage == GATE_STARTTLS)
		answer_starttls(s);
	if (s->gate.stage == GATE_STARTTLS && engine && !leg_pending(&s->client.leg) && !spoke_on(s, true))
		shake(s, engine); /* spoke_on() has seen to it that nothing was read before 220 was out */
	if (s->gate.stage == GATE_SHAKE && !s->secured)
		shake_on(s);
}

/* ---- passthrough ---- */

bool clienttls_answered(struct session *s, int code)
{
	if (code != 220) {
		gate_enter(s, GATE_OPEN);
		return true;
	}
	if (spoke_on(s, false))
		return false;
	if (leg_count(&s->server.leg)) {
		end_tampered(s, SERVER_INJECTED, "421 " SERVER_UNTRUSTED);
		return false;
	}
	tlsreport_passes(s);
	gate_enter(s, GATE_TUNNEL);
	serverstate_enter(s, SERVER_TUNNEL);
	record_outcome(s, RECORD_TLS_PASSTHROUGH, NULL, NULL);
	observe_tls(s, STATEMAP_TLS_PASSTHROUGH, -1);
	return true;
}

static bool carry(struct leg *from, struct leg *to)
{
	size_t n = leg_count(from), room = leg_write_room(to);

	n = n < room ? n : room;
	if (!n)
		return false;
	leg_write(to, leg_bytes(from), n);
	leg_consume(from, n);
	return true;
}

bool clienttls_carry(struct session *s)
{
	static const char early[] = "the upstream spoke before the client's handshake: somebody injected it";
	bool moved = carry(&s->client.leg, &s->server.leg);

	carried = carried || moved;
	if (leg_count(&s->server.leg) && !carried) { /* in TLS the client speaks first, RFC 5246 7.3 */
		record_error(s, early);
		talk_end(s, END_SILENT, END_BY_SMTPWARP, early);
		return false;
	}
	return carry(&s->server.leg, &s->client.leg) || moved;
}

/* Whether `from` has closed its side, and `to` has taken all its octets. */
static bool is_through(const struct leg *from, const struct leg *to)
{
	return from->eof && !leg_count(from) && !leg_pending(to);
}

static void pass_end(struct session *s, struct leg *from, struct leg *to, enum end_by by)
{
	if (!is_through(from, to) || first_end == by)
		return;
	if (first_end != END_BY_NOBODY) { /* the other side has closed, too */
		talk_end(s, END_SILENT, first_end, "connection closed");
		return;
	}
	first_end = by;
	leg_shut(to);
}

void clienttls_carry_ends(struct session *s)
{
	if (s->client.leg.broken)
		talk_end(s, END_SILENT, END_BY_CLIENT, s->client.leg.why);
	else if (s->server.leg.broken)
		talk_end(s, END_SILENT, END_BY_SERVER, s->server.leg.why);
	pass_end(s, &s->client.leg, &s->server.leg, END_BY_CLIENT);
	pass_end(s, &s->server.leg, &s->client.leg, END_BY_SERVER);
}
