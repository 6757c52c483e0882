/* Who the client is. See identity.h for the contract.
 *
 * Records, hooks and the server are told of s->client.address. s->client.peer is the other end of the client's socket: if there was a PROXY
 * header, that is the proxy.
 */
#define _GNU_SOURCE
#include "session/identity.h"
#include "pure/proxyproto.h"
#include "session/clock.h"
#include "session/record.h"
#include "session/serverstate.h"
#include "session/talk.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SECOND INT64_C(1000000)

void identity_begin(struct session *s)
{
	net_ends(s->client.leg.fd, &s->client.local, &s->client.peer);
	s->client.address = s->client.peer;
	net_nodelay(s->client.leg.fd);
}

void identity_assume(struct session *s, const union net_address *address)
{
	s->client.address = *address;
}

/* ---- a PROXY header before the session ---- */

static bool is_proxy(const struct session *s)
{
	for (unsigned i = 0; i < s->o->proxies; i++)
		if (net_in_block(&s->client.peer, &s->o->proxy[i]))
			return true;
	return false;
}

/* Wait for octets, or a signal. false: --proxy-timeout is over, or SIGTERM has come. */
static bool wait_for_header(struct session *s)
{
	struct pollfd p = { .fd = s->client.leg.fd, .events = POLLIN };
	int64_t limit = s->o->timeouts.proxy, left = s->started + limit - s->now;
	struct timespec wait = { left / SECOND, left % SECOND * 1000 };
	sigset_t open_mask;

	if (*s->terminated || (limit && left <= 0))
		return false;
	sigemptyset(&open_mask);
	ppoll(&p, 1, limit ? &wait : NULL, &open_mask);
	clock_tick(s);
	return true;
}

/* Read the PROXY header and no octet after it: what follows is SMTP, or TLS. Returns NULL, or what is wrong. */
static const char *read_header(struct session *s, struct proxyproto *header)
{
	static unsigned char bytes[PROXYPROTO_MAX];
	enum proxyproto_status status = PROXYPROTO_MORE;
	const char *why = NULL;
	size_t have = 0, used;

	while (status == PROXYPROTO_MORE) {
		ssize_t n = recv(s->client.leg.fd, bytes + have, sizeof bytes - have, MSG_PEEK | MSG_DONTWAIT);

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return strerror(errno);
		if (n == 0) {
			if (have)
				return "connection closed within the PROXY header";
			leg_end_input(&s->client.leg);
			return "connection closed";
		}
		if (n < 0) {
			if (!wait_for_header(s))
				return *s->terminated ? "shutting down" : "no PROXY header in time";
			continue;
		}
		status = proxyproto_read(bytes, have + (size_t)n, &used, header, &why);
		if (status == PROXYPROTO_BAD)
			return why;
		n = recv(s->client.leg.fd, bytes + have, status == PROXYPROTO_DONE ? used - have : (size_t)n, MSG_DONTWAIT);
		have += n > 0 ? (size_t)n : 0;
	}
	return NULL;
}

/* A dual-stack proxy gives IPv4 addresses as ::ffff:a.b.c.d: make them IPv4 again, or rules for the client's would not match. An address
 * of the other family is then none that it has connected to. */
static void unmap_both(struct proxyproto *header)
{
	net_unmap(&header->source);
	net_unmap(&header->dest);
	if (header->source.sa.sa_family != header->dest.sa.sa_family)
		header->dest.sa.sa_family = AF_UNSPEC;
}

static const char *given(const char *text)
{
	return *text ? text : NULL;
}

/* If the proxy has ended the client's TLS, what the client says counts as encrypted. tls: static storage. */
static void take_tls(struct session *s, const struct proxyproto_tls *tls)
{
	if (!tls->on)
		return;
	s->client.facts = (struct tls_facts){ .version = given(tls->version), .cipher = given(tls->cipher), .cn = given(tls->cn), .verified = tls->verified,
		.signature = given(tls->signature), .key = given(tls->key) };
	s->client.has_facts = true;
	dialogue_encrypted(&s->dialogue);
}

static struct proxyproto accepted; /* what the proxy before us says */

const char *identity_accept(struct session *s)
{
	const char *fault = is_proxy(s) ? read_header(s, &accepted) : NULL;

	if (fault || !is_proxy(s))
		return fault;
	if (accepted.source.sa.sa_family == AF_UNSPEC) /* the proxy speaks for itself, e.g. in a health check */
		return NULL;
	unmap_both(&accepted);
	s->client.proxy = s->client.peer;
	s->client.address = accepted.source;
	s->client.reached = accepted.dest;
	s->client.authority = given(accepted.authority);
	take_tls(s, &accepted.tls);
	return NULL;
}

/* ---- the client's host name ---- */

/* The name that the client's address has in the DNS (PTR), confirmed if the name has that address, too (A, AAAA). As with Postfix, only a
 * confirmed name is the client's. */
static struct {
	bool asking;
	bool confirmed;
	bool put_off; /* the last query failed, e.g. in a timeout: the name may be known later */
	int64_t until;
	size_t len; /* 0: there is no name, or none yet */
	char text[DNS_NAME_MAX + 1];
	struct dns_servers servers;
	struct dns_query query;
} host_name;

static void ask_for(struct session *s, const char *what, enum dns_type type)
{
	int64_t left = host_name.until - s->now;

	dns_start(&host_name.query, &host_name.servers, what, type, s->now, left > 0 ? left : 1);
}

void identity_ask(struct session *s)
{
	const struct options *o = s->o;
	bool six = s->client.address.sa.sa_family == AF_INET6;
	char reversed[DNS_NAME_MAX + 1];

	if (o->no_client_names || !(o->xclient || o->xforward || o->received) ||
	    !dns_reversed(&s->client.address, six ? "ip6.arpa" : "in-addr.arpa", reversed))
		return;
	dns_servers_choose(&host_name.servers, &o->dns);
	host_name.asking = true;
	host_name.until = s->now + o->dnsbl_timeout;
	ask_for(s, reversed, DNS_PTR);
}

/* A query is over: after PTR ask for the name's addresses, after A or AAAA the name is confirmed or not. */
static void take_answer(struct session *s)
{
	const struct dns_query *q = &host_name.query;
	const union net_address *client = &s->client.address;
	bool found = !q->failure && q->result == DNS_FOUND;

	host_name.asking = false;
	host_name.put_off = q->failure != NULL;
	if (host_name.len) {
		host_name.confirmed = found && dns_has(&q->answer, client);
	} else if (found && q->answer.text_len) {
		host_name.len = q->answer.text_len;
		memcpy(host_name.text, q->answer.text, host_name.len);
		host_name.asking = true;
		ask_for(s, host_name.text, client->sa.sa_family == AF_INET6 ? DNS_AAAA : DNS_A);
	}
}

static void tell(struct session *s, enum smtp_verb verb);
static void forward_on(struct session *s);

/* The lookup of the host name is over: send what waited for it, unless the connection that it was for is gone. */
static void tell_due(struct session *s)
{
	bool waits = s->gate.stage == GATE_TOLD || s->gate.stage == GATE_SERVER;

	s->client.name_due = false;
	if (talk_ended(s))
		return;
	if (s->server.state == SERVER_XCLIENT)
		tell(s, SMTP_XCLIENT);
	else if (s->server.state == SERVER_READY && waits)
		forward_on(s);
}

void identity_turn(struct session *s)
{
	while (host_name.asking) {
		dns_turn(&host_name.query, s->now);
		if (host_name.query.state == DNS_RUNNING)
			return;
		take_answer(s);
	}
	if (s->client.name_due)
		tell_due(s);
}

unsigned identity_watch(const struct session *s, struct pollfd *p)
{
	return host_name.asking && !talk_ended(s) ? dns_watch(&host_name.query, p) : 0;
}

int64_t identity_deadline(void)
{
	return host_name.asking ? dns_deadline(&host_name.query) : INT64_MAX;
}

/* ---- a PROXY header to the server ---- */

/* Where the client connected to: by the PROXY header, else by the redirect, else our end of its socket. */
static const union net_address *reached(const struct session *s)
{
	return s->client.reached.sa.sa_family != AF_UNSPEC ? &s->client.reached :
	    s->server.original.sa.sa_family != AF_UNSPEC ? &s->server.original : &s->client.local;
}

static void put_text(char *to, size_t cap, const char *text)
{
	if (text)
		snprintf(to, cap, "%s", text);
}

static void describe_tls(const struct tls_facts *facts, struct proxyproto_tls *tls)
{
	tls->on = true;
	tls->verified = facts->verified;
	put_text(tls->version, sizeof tls->version, facts->version);
	put_text(tls->cipher, sizeof tls->cipher, facts->cipher);
	put_text(tls->cn, sizeof tls->cn, facts->cn);
	put_text(tls->signature, sizeof tls->signature, facts->signature);
	put_text(tls->key, sizeof tls->key, facts->key);
}

/* The name that the client asked for, of us or of the proxy before us. If that has ended the client's TLS, ours is with the proxy. */
static const char *asked_name(const struct session *s)
{
	if (s->client.authority || accepted.tls.on || !s->client.leg.tls)
		return s->client.authority;
	return tls_asked_name(s->client.leg.tls);
}

void identity_send_proxy(struct session *s)
{
	struct proxyproto header = { .source = s->client.address, .dest = *reached(s) };
	static const char note[] = "a PROXY header was sent";
	unsigned char *line;

	s->client.name_due = false; /* it was due on an earlier connection */
	if (!s->o->send_proxy)
		return;
	if (s->client.has_facts)
		describe_tls(&s->client.facts, &header.tls);
	put_text(header.authority, sizeof header.authority, asked_name(s));
	put_text(header.alpn, sizeof header.alpn, given(accepted.alpn));
	line = leg_room(&s->server.leg, PROXYPROTO_WRITTEN);
	leg_wrote(&s->server.leg, proxyproto_write(s->o->send_proxy, &header, line, PROXYPROTO_WRITTEN));
	leg_flush(&s->server.leg); /* in the clear, for TLS may begin next; a socket that is still empty takes it */
	talk_comm(s, COMM_NOTE, note, sizeof note - 1);
}

/* ---- XCLIENT and XFORWARD ---- */

#define LINE 510 /* octets of a command without its CR LF, RFC 5321 4.5.3.1.4 */
#define VALUE 480 /* octets of an attribute's value */
#define NAME 255  /* octets of a name that Postfix takes */

/* Attributes of XCLIENT and XFORWARD together; OF_XCLIENT and OF_XFORWARD say which has which. */
#define ATTRIBUTES(X) X(NAME) X(REVERSE_NAME) X(ADDR) X(PORT) X(PROTO) X(HELO) X(LOGIN) X(DESTADDR) X(DESTPORT) X(IDENT) X(SOURCE)

enum attribute {
#define X(name) ATTRIBUTE_##name,
	ATTRIBUTES(X)
#undef X
	    ATTRIBUTE_COUNT
};

static const char attribute_name[][13] = {
#define X(name) #name,
	ATTRIBUTES(X)
#undef X
};

#define BIT(name) (1u << ATTRIBUTE_##name)
#define OF_BOTH (BIT(NAME) | BIT(ADDR) | BIT(PORT) | BIT(PROTO) | BIT(HELO))
#define OF_XCLIENT (OF_BOTH | BIT(REVERSE_NAME) | BIT(LOGIN) | BIT(DESTADDR) | BIT(DESTPORT))
#define OF_XFORWARD (OF_BOTH | BIT(IDENT) | BIT(SOURCE))

/* Write xtext, RFC 3461 4. Returns octets; 0: there are none, or too many. */
static size_t put_xtext(const unsigned char *text, size_t n, char *out)
{
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		bool plain = text[i] > ' ' && text[i] < 0x7f && text[i] != '+' && text[i] != '=';

		if (n > NAME || at > VALUE - 3)
			return 0;
		if (plain)
			out[at++] = (char)text[i];
		else
			at += (size_t)sprintf(out + at, "+%02X", text[i]);
	}
	return at;
}

/* An address as text, without the zone of a link-local one, which means something on this host only. */
static const char *bare_text(const union net_address *a, char text[NET_TEXT])
{
	net_text(a, text);
	text[strcspn(text, "%")] = 0;
	return text;
}

static size_t put_address(const union net_address *a, char *out)
{
	char text[NET_TEXT];

	if (a->sa.sa_family == AF_UNSPEC)
		return 0;
	return (size_t)sprintf(out, "%s%s", a->sa.sa_family == AF_INET6 ? "IPV6:" : "", bare_text(a, text));
}

static size_t put_port(const union net_address *a, char *out)
{
	return a->sa.sa_family == AF_UNSPEC ? 0 : (size_t)sprintf(out, "%u", net_port(a));
}

static bool is_here(const union net_address *client)
{
	return client->sa.sa_family == AF_UNSPEC || net_is_local(client);
}

/* Write the value of an attribute. Returns octets; 0: there is none. */
static size_t put_value(const struct session *s, enum attribute attribute, char *out)
{
	const union net_address *client = &s->client.address;

	switch (attribute) {
	case ATTRIBUTE_ADDR:
		return put_address(client, out);
	case ATTRIBUTE_PORT:
		return put_port(client, out);
	case ATTRIBUTE_DESTADDR:
		return put_address(reached(s), out);
	case ATTRIBUTE_DESTPORT:
		return put_port(reached(s), out);
	case ATTRIBUTE_PROTO:
		return (size_t)sprintf(out, s->hello.verb == SMTP_HELO ? "SMTP" :
		    s->hello.verb == SMTP_LHLO && s->dialogue.lmtp ? "LMTP" : "ESMTP"); /* Postfix knows no other */
	case ATTRIBUTE_HELO:
		return put_xtext(s->hello.name, s->hello.name_len, out);
	case ATTRIBUTE_LOGIN:
		return put_xtext(s->dialogue.user, s->dialogue.user_len, out);
	case ATTRIBUTE_IDENT:
		return (size_t)sprintf(out, "%s", s->id);
	case ATTRIBUTE_SOURCE:
		return (size_t)sprintf(out, is_here(client) ? "LOCAL" : "REMOTE");
	case ATTRIBUTE_NAME:
		return host_name.confirmed ? put_xtext((unsigned char *)host_name.text, host_name.len, out) : 0;
	case ATTRIBUTE_REVERSE_NAME:
		return put_xtext((unsigned char *)host_name.text, host_name.len, out);
	case ATTRIBUTE_COUNT:
		break;
	}
	return 0;
}

/* The word in place of a value. Only XCLIENT has a word of its own for a temporary failure. */
static const char *no_value(enum smtp_verb verb, enum attribute attribute)
{
	bool of_name = attribute == ATTRIBUTE_NAME || attribute == ATTRIBUTE_REVERSE_NAME;

	return verb == SMTP_XCLIENT && of_name && host_name.put_off ? "[TEMPUNAVAIL]" : "[UNAVAILABLE]";
}

/* Send XCLIENT or XFORWARD with as many of the untold attributes as a line holds. If the host name is among them and not known yet, that
 * waits for tell_due(). */
static void tell(struct session *s, enum smtp_verb verb)
{
	char line[LINE + 1], item[sizeof attribute_name[0] + VALUE + 2];
	size_t at = (size_t)sprintf(line, "%s", smtp_verb_name(verb));

	if (host_name.asking && s->client.untold & (BIT(NAME) | BIT(REVERSE_NAME))) {
		s->client.name_due = true;
		return;
	}
	for (unsigned i = 0; i < ATTRIBUTE_COUNT; i++) {
		size_t n, value;

		if (!(s->client.untold & 1u << i))
			continue;
		n = (size_t)sprintf(item, " %s=", attribute_name[i]);
		value = put_value(s, (enum attribute)i, item + n);
		n += value ? value : (size_t)sprintf(item + n, "%s", no_value(verb, (enum attribute)i));
		if (n > LINE - at)
			break;
		memcpy(line + at, item, n);
		at += n;
		s->client.untold &= ~(1u << i);
	}
	talk_own_command(s, verb, line, at);
}

/* Bits of the attributes that the server lists for this extension. */
static unsigned listed(const struct session *s, enum smtp_extension extension)
{
	size_t n = 0, word;
	const unsigned char *args = smtp_ehlo_args(&s->dialogue.ehlo, extension, &n);
	unsigned set = 0;

	while (n) {
		word = smtp_word(args, n);
		for (unsigned i = 0; i < ATTRIBUTE_COUNT; i++)
			set |= (unsigned)smtp_is(args, word, attribute_name[i]) << i;
		args += word;
		n -= word;
		smtp_trim(&args, &n);
	}
	return set;
}

/* XCLIENT begins the server's session anew. A server with which the client has authenticated was told XCLIENT before that; it must not
 * forget the user, unless XCLIENT can tell it of the user (LOGIN). authenticated: with this server, not with another. */
bool identity_introduce(struct session *s)
{
	const struct dialogue *d = &s->dialogue;
	bool authenticated = d->authenticated && (!s->o->limits.on_recipient || s->server.auth == SERVER_AUTH_SAID);

	s->client.forward = s->o->xforward ? listed(s, SMTP_EXT_XFORWARD) & OF_XFORWARD : 0;
	if (!s->o->xclient || s->server.state == SERVER_EHLO_AGAIN)
		return false;
	s->client.untold = listed(s, SMTP_EXT_XCLIENT) & OF_XCLIENT;
	if (authenticated && !(d->user_len && s->client.untold & BIT(LOGIN)))
		return false;
	if (!authenticated)
		s->client.untold &= ~BIT(LOGIN);
	return identity_more(s);
}

bool identity_more(struct session *s)
{
	if (!s->client.untold)
		return false;
	tell(s, SMTP_XCLIENT);
	return true;
}

bool identity_forward(struct session *s)
{
	bool waits = host_name.asking && s->o->received; /* the Received field has the host name */

	s->client.untold = s->client.forward;
	if (!s->client.untold && !waits)
		return false;
	if (waits)
		s->client.name_due = true;
	else
		tell(s, SMTP_XFORWARD);
	return true;
}

/* Send the next XFORWARD, or let MAIL follow. */
static void forward_on(struct session *s)
{
	if (s->client.untold)
		tell(s, SMTP_XFORWARD);
	else
		s->client.told = true;
}

/* XFORWARD is for the server's log: a server that refuses it gets the mail all the same. */
void identity_forwarded(struct session *s, const struct dialogue_reply *r)
{
	char error[400], quoted[TALK_QUOTE(100)];

	if (r->line.code / 100 != 2) {
		talk_quote(&r->line, quoted, sizeof quoted);
		snprintf(error, sizeof error, "%s: XFORWARD was refused: %s", s->server.host, quoted);
		record_error(s, error);
		s->client.forward = s->client.untold = 0;
	}
	forward_on(s);
}

void identity_take_told(struct session *s)
{
	s->client.told = false;
}

void identity_forget_forward(struct session *s)
{
	s->client.forward = 0;
}

void identity_secured(struct session *s, const struct tls_facts *facts)
{
	if (s->client.has_facts) /* the client's own TLS ends at the proxy before us; this TLS is the proxy's */
		return;
	s->client.facts = *facts;
	s->client.has_facts = true;
}

/* ---- a Received field ---- */

/* The name that the client gave in EHLO may be anything. Octets that are not of a domain or an address literal become "?", so that they
 * cannot end the field or look like more of it. */
static size_t put_helo(const struct session *s, char *out)
{
	size_t n = s->hello.name_len, at = 0;
	bool literal = n > 2 && s->hello.name[0] == '[' && s->hello.name[n - 1] == ']';

	for (size_t i = 0; i < n; i++) {
		unsigned char c = s->hello.name[i];
		bool bracket = literal && (i == 0 || i == n - 1 || c == ':');

		out[at++] = smtp_is_alnum(c) || c == '-' || c == '.' || c == '_' || bracket ? (char)c : '?';
	}
	return at;
}

/* The protocol as the Received field has it, RFC 3848, RFC 6531 4.3. */
static size_t put_protocol(const struct session *s, char *out)
{
	bool utf8 = s->dialogue.tx.smtputf8, lmtp = s->hello.verb == SMTP_LHLO;

	if (s->hello.verb == SMTP_HELO)
		return (size_t)sprintf(out, "SMTP");
	return (size_t)sprintf(out, "%s%s%s%s", utf8 ? "UTF8" : "", lmtp ? "LMTP" : utf8 ? "SMTP" : "ESMTP",
	    s->client.has_facts ? "S" : "", s->dialogue.authenticated ? "A" : "");
}

/* The date, RFC 5322 3.3. strftime(3) would bring locales along. */
static size_t put_date(char *out)
{
	static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	struct timespec now;
	struct tm utc;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	return (size_t)sprintf(out, "%.3s, %d %.3s %d %02d:%02d:%02d +0000", days + 3 * utc.tm_wday, utc.tm_mday,
	    months + 3 * utc.tm_mon, utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

size_t identity_trace(const struct session *s, const char **field)
{
	static char trace[2048]; /* holds a name of SMTP_HOST_MAX octets, two of 255, and the rest */
	const union net_address *client = &s->client.address;
	const struct tls_facts *tls = s->client.has_facts ? &s->client.facts : NULL;
	char text[NET_TEXT];
	size_t n;

	if (!s->o->received)
		return 0;
	n = (size_t)sprintf(trace, "Received: from ");
	n += put_helo(s, trace + n);
	if (client->sa.sa_family != AF_UNSPEC)
		n += (size_t)sprintf(trace + n, " (%.*s%s[%s%s])", host_name.confirmed ? (int)host_name.len : 0, host_name.text,
		    host_name.confirmed ? " " : "", client->sa.sa_family == AF_INET6 ? "IPv6:" : "", bare_text(client, text));
	n += (size_t)sprintf(trace + n, "\r\n\tby %.255s with ", talk_own_name(s));
	n += put_protocol(s, trace + n);
	if (tls && tls->version)
		n += (size_t)sprintf(trace + n, " (%.64s%s%.64s)", tls->version, tls->cipher ? " " : "",
		    tls->cipher ? tls->cipher : "");
	n += (size_t)sprintf(trace + n, "\r\n\tid %s; ", s->id);
	n += put_date(trace + n);
	n += (size_t)sprintf(trace + n, "\r\n");
	*field = trace;
	return n;
}
