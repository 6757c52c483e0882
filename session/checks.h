/* Checks of clients and recipients: --allow-clients, lists of the DNS, clients that speak too early, recipients that there are. */
#ifndef CHECKS_H
#define CHECKS_H

#include "session/state.h"

#include <poll.h>

#define CHECKS_POLLED OPTIONS_DNSBL_MAX

/* Check the client: checks.passed becomes true, perhaps at once, or the client is refused, perhaps in GATE_TARPIT first. */
void checks_start(struct session *s);

/* checks.passed is taken. */
void checks_take_passed(struct session *s);

/* GATE_CHECKS: go on; what to poll, at most CHECKS_POLLED descriptors (returns how many); when there is something to do though
 * nothing comes. */
void checks_turn(struct session *s);
unsigned checks_watch(const struct session *s, struct pollfd *p);
int64_t checks_deadline(const struct session *s);

/* With --greet-delay, before the greeting's last line: whether the client has not waited for it, and is refused now. */
bool checks_too_early(struct session *s);

/* Whether this RCPT is for one of --valid-recipients. If not: refuse it, once it is held, perhaps in GATE_TARPIT first. */
bool checks_recipient(const struct session *s, const struct smtp_command *cmd);
void checks_refuse_recipient(struct session *s);

/* Whether a refusal waits for the end of GATE_TARPIT; give it. */
bool checks_have_reply(void);
void checks_give_reply(struct session *s);

#endif
