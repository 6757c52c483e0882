/* The gate: what the client waits for before its next octets are read as commands. state.h lists the stages and which may follow which;
 * steps.c decides what follows when a stage is over.
 */
#ifndef GATE_H
#define GATE_H

#include "session/state.h"

/* The client waits for this from now on. No other function writes the stage. */
void gate_enter(struct session *s, enum gate_stage stage);

/* GATE_TARPIT until this time. */
void gate_delay(struct session *s, int64_t until);

/* Whether a part has come to something that steps_take() has not taken yet. */
bool gate_has_news(const struct session *s);

/* Whether the client waits for nothing: GATE_OPEN, and no news. */
bool gate_is_open(const struct session *s);

#endif
