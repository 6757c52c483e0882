/* What becomes of what the client says. */
#ifndef COMMANDS_H
#define COMMANDS_H

#include "session/state.h"

/* Handle what the client has said as far as possible. true: something was handled. */
bool commands_turn(struct session *s);

/* The held command, which hooks have not refused, goes on: RCPT perhaps with another address. */
void commands_pass_held(struct session *s);

#endif
