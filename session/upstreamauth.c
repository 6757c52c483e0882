/* --upstream-auth. See upstreamauth.h for the contract; io/passwords.h has users and passwords.
 *
 * A password stands only in what an agent keeps, io/agent.h, in the line that says it, which is wiped once it was sent, and in TLS. The `auth` of
 * records is the client's user, not this one.
 */
#define _GNU_SOURCE
#include "session/upstreamauth.h"
#include "io/agent.h"
#include "io/passwords.h"
#include "session/talk.h"

#include <stdio.h>
#include <string.h>

static struct passwords_server server_of(const struct session *s)
{
	return (struct passwords_server){ s->server.host, net_port(&s->server.address), !s->server.upstream };
}

static bool find_password(const struct session *s, struct password *p)
{
	const struct passwords_server server = server_of(s);

	return s->o->upstream_auth && passwords_for(&server, p);
}

/* *words leads into *pair, which is to be wiped. */
static bool take_pair(const struct session *s, struct agent_pair *pair, struct sasl_pair *words)
{
	const struct passwords_server server = server_of(s);

	if (!agent_password(&server, pair))
		return false;
	*words = (struct sasl_pair){ pair->text, pair->text + pair->user_len, pair->user_len, pair->password_len };
	return true;
}

bool upstreamauth_is_due(const struct session *s)
{
	struct password unused;

	return find_password(s, &unused);
}

/* Whether we know who will hear the password, or the file says that it does not matter. */
static bool may_hear(const struct session *s, const struct password *p)
{
	unsigned char fingerprint[TLS_FINGERPRINT];

	if (p->pinned)
		return tls_fingerprint(s->server.leg.tls, fingerprint) && passwords_pins(p, fingerprint);
	return p->unverified || s->server.facts.verified || s->server.address.sa.sa_family == AF_UNIX ||
	    net_is_loopback(&s->server.address);
}

static enum upstreamauth_status fill_refusal(struct upstreamauth_refusal *r, const char *enhanced, const char *reason, const char *more)
{
	r->enhanced = enhanced;
	r->reason = reason;
	snprintf(r->more, sizeof r->more, "%s", more);
	return UPSTREAMAUTH_REFUSED;
}

/* The certificate is not what the file wants. A record has what an administrator may put into the file, once he has compared it. */
static enum upstreamauth_status distrust(const struct session *s, const struct password *p, struct upstreamauth_refusal *r)
{
	const char *reason = p->pinned ? "certificate has another fingerprint" : "certificate is not verified";
	unsigned char fingerprint[TLS_FINGERPRINT] = { 0 };
	char hex[2 * TLS_FINGERPRINT + 1];

	tls_fingerprint(s->server.leg.tls, fingerprint);
	for (size_t i = 0; i < sizeof fingerprint; i++)
		snprintf(hex + 2 * i, 3, "%02x", fingerprint[i]);
	fill_refusal(r, "4.7.5", reason, "");
	snprintf(r->more, sizeof r->more, "there is a password for it; the certificate has fingerprint=%s", hex);
	return UPSTREAMAUTH_REFUSED;
}

/* Send n octets of a line; the "comm" record has only the first `shown` of them, or a note if that is 0. */
static void say(struct session *s, enum smtp_verb verb, const char *line, size_t n, size_t shown)
{
	unsigned char *out;

	if (shown)
		talk_comm(s, COMM_OWN, line, shown);
	else
		talk_comm_answer(s, COMM_OWN);
	if (!s->server.leg.broken) { /* in one piece: a buffer that has to grow for the second would leave a copy behind */
		out = leg_room(&s->server.leg, n + 2);
		memcpy(out, line, n);
		memcpy(out + n, "\r\n", 2);
		leg_wrote(&s->server.leg, n + 2);
	}
	leg_mark_secret(&s->server.leg);
	dialogue_expect(&s->dialogue, verb, true);
}

/* Whether the argument of AUTH in the list of extensions has this mechanism. */
static bool lists(const unsigned char *text, size_t n, const char *mechanism)
{
	size_t len;

	for (; n; text += len, n -= len) {
		smtp_trim(&text, &n);
		len = smtp_word(text, n);
		if (smtp_is(text, len, mechanism))
			return true;
		if (!len)
			return false;
	}
	return false;
}

/* false: there is no password. */
static bool say_plain(struct session *s)
{
	static const char command[] = "AUTH PLAIN ";
	char line[sizeof command + SASL_LINE_MAX];
	size_t n = sizeof command - 1;
	struct agent_pair pair;
	struct sasl_pair words;

	if (!take_pair(s, &pair, &words))
		return false;
	memcpy(line, command, n);
	n += sasl_plain(&words, line + n);
	s->auth.words = 0;
	say(s, SMTP_AUTH, line, n, sizeof command - 2);
	explicit_bzero(line, sizeof line);
	explicit_bzero(&pair, sizeof pair);
	return true;
}

enum upstreamauth_status upstreamauth_begin(struct session *s, struct upstreamauth_refusal *refusal)
{
	const unsigned char *mechanisms;
	struct password p;
	size_t n = 0;

	if (s->auth.authenticated || !find_password(s, &p))
		return UPSTREAMAUTH_NOT_DUE;
	mechanisms = smtp_ehlo_args(&s->dialogue.ehlo, SMTP_EXT_AUTH, &n);
	if (!s->server.leg.tls) {
		fill_refusal(refusal, "4.7.5", "no TLS", "there is a password for it");
		return UPSTREAMAUTH_NO_TLS;
	}
	if (!may_hear(s, &p))
		return distrust(s, &p, refusal);
	if (mechanisms && lists(mechanisms, n, "PLAIN")) {
		if (!say_plain(s))
			return fill_refusal(refusal, "4.3.0", "its password is not to be had", "");
	} else if (mechanisms && lists(mechanisms, n, "LOGIN")) {
		s->auth.words = 2;
		say(s, SMTP_AUTH, "AUTH LOGIN", 10, 10);
	} else {
		return fill_refusal(refusal, "4.7.4", "neither AUTH PLAIN nor LOGIN is offered", "");
	}
	return UPSTREAMAUTH_GOES_ON;
}

/* The server has answered 334: send the next word of AUTH LOGIN. false: there is none left. */
static bool say_next_word(struct session *s)
{
	char line[SASL_LINE_MAX];
	struct agent_pair pair;
	struct sasl_pair words;
	size_t n;

	if (!s->auth.words || !take_pair(s, &pair, &words))
		return false;
	n = s->auth.words == 2 ? sasl_word(words.user, words.user_len, line) : sasl_word(words.password, words.password_len, line);
	s->auth.words--;
	say(s, SMTP_AUTH_RESPONSE, line, n, 0);
	explicit_bzero(line, sizeof line);
	explicit_bzero(&pair, sizeof pair);
	return true;
}

enum upstreamauth_status upstreamauth_answered(struct session *s, const struct dialogue_reply *r,
    struct upstreamauth_refusal *refusal)
{
	char quoted[TALK_QUOTE(160)];

	s->auth.authenticated = r->line.code / 100 == 2;
	if (s->auth.authenticated)
		return UPSTREAMAUTH_LET_IN;
	if (r->line.code == 334 && say_next_word(s))
		return UPSTREAMAUTH_GOES_ON;
	talk_quote(&r->line, quoted, sizeof quoted);
	return fill_refusal(refusal, "4.7.8", "authentication failed", quoted);
}

void upstreamauth_forget(struct session *s)
{
	s->auth.authenticated = false;
}
