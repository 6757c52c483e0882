/* What becomes of what the client says: commands are refused, answered here, held for hooks, or passed on to the server.
 *
 * Invariants: a command is read only while the gate is open, and only if both legs have room for all that it can cause. Which commands are
 * in order, and which reply belongs to which, is for pure/dialogue.c.
 */
#ifndef COMMANDS_H
#define COMMANDS_H

#include "session/state.h"

/* Handle what was read from the client, as far as possible. true: something was handled. */
bool commands_turn(struct session *s);

/* In GATE_SECURE: it is settled whether the server speaks TLS. Send it the held MAIL or AUTH. */
void commands_secured(struct session *s);

/* In GATE_SECURE: TLS with the server has failed, and the held MAIL or AUTH must not go without. Refuse it with this text ("4.7.5 reason"). */
void commands_not_secured(struct session *s, const char *reason);

/* No hook has refused the held command: pass it on, RCPT with the address of --override-recipient if there is one. */
void commands_pass_held(struct session *s);

#endif
