/* Checks of clients and recipients: --allow-clients, --dnsbl (RFC 5782), --greet-delay, --valid-recipients, and whether the configuration
 * makes an open relay.
 *
 * Whoever is refused here may be delayed first (--tarpit), and always gets a reply. Checks of messages are for hooks.
 */
#ifndef CHECKS_H
#define CHECKS_H

#include "session/state.h"

#include <poll.h>

#define CHECKS_POLLED OPTIONS_DNSBL_MAX

/* Begin to check the client. checks.passed becomes true, perhaps at once; or the client is refused, perhaps after GATE_TARPIT. */
void checks_start(struct session *s);

/* Before anything is spent on TLS from the first octet: whether --allow-clients has the client. If not, the session ends without a word,
 * for a client that awaits TLS could not read one. */
bool checks_admit(struct session *s);

/* Clear checks.passed. */
void checks_take_passed(struct session *s);

/* In GATE_CHECKS: go on; which descriptors to poll, at most CHECKS_POLLED (returns how many); when to call checks_turn() though nothing
 * comes in (INT64_MAX: never). */
void checks_turn(struct session *s);
unsigned checks_watch(const struct session *s, struct pollfd *p);
int64_t checks_deadline(const struct session *s);

/* --greet-delay, before the last line of the banner: whether the client has spoken already. If so, it is refused. */
bool checks_too_early(struct session *s);

/* Whether this RCPT is for one of --valid-recipients. */
bool checks_recipient(const struct session *s, const struct smtp_command *cmd);

/* Refuse the held RCPT, perhaps after GATE_TARPIT. */
void checks_refuse_recipient(struct session *s);

/* Whether a refusal waits for the end of GATE_TARPIT. */
bool checks_have_reply(void);

/* Give that refusal: to the held RCPT, or to the client, whose session then ends. */
void checks_give_reply(struct session *s);

#endif
