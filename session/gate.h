/* The gate: what the client waits for before its next octets are looked at. state.h has the stages and which may follow which; steps.c
 * decides what follows when a stage is over.
 */
#ifndef GATE_H
#define GATE_H

#include "session/state.h"

/* The client waits for this from now on. The only writer of the stage. */
void gate_enter(struct session *s, enum gate_stage stage);

/* Delay the answer that is ready: GATE_TARPIT until then. */
void gate_delay(struct session *s, int64_t until);

/* Whether a part has news that steps.c has not taken yet. */
bool gate_has_news(const struct session *s);

/* Whether the client's next command may be looked at, as far as its own side goes. */
bool gate_is_open(const struct session *s);

#endif
