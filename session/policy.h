/* The TLS policy of the held recipient's domain: TLSA records (DANE, RFC 7672), a file or a map of policies (--tls-policy), else the level of
 * the route. It is looked up before TLS with the server begins, and nothing here waits: the session polls.
 *
 * Invariants: one domain's policy is known at a time, the one that was asked for last, for five minutes; what a connection has agreed on
 * stays with it until it is left. A lookup that fails refuses the recipient for now: no mail goes with less than a policy that may be there
 * demands.
 */
#ifndef POLICY_H
#define POLICY_H

#include "io/dane.h"
#include "session/state.h"
#include "tls.h"

#include <poll.h>

#define POLICY_POLLED (DANE_POLLED + 1)

/* Give the part its storage. Call it once, first of all. */
void policy_prepare(struct session *s);

/* Whether recipients have policies that may make TLS with their servers good enough for REQUIRETLS, RFC 8689 4.2.1. */
bool policy_promises(const struct session *s);

/* Whether TLS with the server is by the policy of the held recipient, and its certificate was verified. */
bool policy_is_proven(const struct session *s);

/* Whether recipients of this session may have policies to be asked for, so that some may be refused here. */
bool policy_may_refuse(const struct session *s);

/* Whether the recipient that wants this route has a policy to be asked for. */
bool policy_is_due(const struct session *s, const struct route *wanted);

/* Ask for the policy of the held recipient, on this route. `policy->news` becomes true when it is known, perhaps at once. */
void policy_ask(struct session *s, const struct route *wanted);

/* --connect-on recipient: whether what was asked for last is about this server of the route, counted from 0, or recipients have no
 * policy. */
bool policy_is_about(const struct session *s, unsigned nth);

/* The same question once more, about this server of the route, which is tried in place of the one before. */
void policy_ask_again(struct session *s, unsigned nth);

/* Go on as far as possible without waiting; the descriptors to poll, at most POLICY_POLLED (returns how many); when to call policy_turn()
 * though nothing comes in. */
void policy_turn(struct session *s);
unsigned policy_watch(const struct session *s, struct pollfd *p);
int64_t policy_deadline(const struct session *s);

/* The session is over: a lookup is given up. */
void policy_end(struct session *s);

/* Clear `news`. Returns the reply that refuses the recipient, which stays until the next question; NULL: mail may go, if TLS comes to what
 * the policy demands. */
const char *policy_take(struct session *s);

/* There is no policy to ask for: the route's level counts. */
void policy_of_route(struct session *s);

/* --auth: the next connection is for the list of extensions, before there is a recipient. A server that the route or --upstream names has
 * to meet its TLSA records, which are the same for all domains; else the route's level counts. */
void policy_of_list(struct session *s, const struct route *route);

/* Whether TLS on the open connection is what the recipient's policy wants, or more. */
bool policy_is_met(const struct session *s);

/* Whether these are the terms of the recipient's policy. */
bool policy_is_same(const struct session *s, const struct policy_terms *terms);

/* The next connection is to have what the recipient's policy wants. */
void policy_agree(struct session *s);

/* The same for the open connection, unless TLS has begun on it, which meets that then. */
void policy_raise(struct session *s);

/* What TLS with the server must come to. */
enum tls_level policy_level(const struct session *s);

/* The same for the handshake. *name: the one that the route or the server's address has, NULL: none; it must stay. */
void policy_demand(const struct session *s, const char *const *name, struct tls_demand *demand);

/* The policy of the held recipient's domain, for reports; what it leads to stays until the next question. */
struct policy_view {
	enum tlsrpt_type type;
	enum tlsrpt_code failure; /* why there is no better policy, or it cannot be used */
	bool testing;		  /* what fails is reported, and mail goes all the same */
	const char *domain;	  /* whose policy it is; NULL: the recipient's */
	const char *host;	  /* the server's name; NULL: not known */
	const struct tlspolicy *rule;  /* of MTA-STS; NULL: none */
	const struct dane_set *set;    /* TLSA records; NULL: none */
};
void policy_show(const struct session *s, struct policy_view *v);

/* Why the handshake, which has succeeded, is not what the policy demands; NULL: it is. Static storage. */
const char *policy_fault(const struct session *s);

/* The policy in Postfix's words, for records: "dane", "dane:encrypt", "secure"; violated: "!" before it; plain: ":none" behind it. NULL:
 * there was none. Static storage. */
const char *policy_word(const struct session *s, bool violated, bool plain);

#endif
