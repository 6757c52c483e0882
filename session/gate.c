/* The gate. See gate.h for the contract. */
#include "session/gate.h"
#include "session/legal.h"

void gate_enter(struct session *s, enum gate_stage stage)
{
#define GATE_BIT(stage) 1u << GATE_##stage
#define X(stage, next) [GATE_##stage] = next,
	static const uint32_t follows[] = { GATE_STAGES(X) };
#undef X
#undef GATE_BIT

	LEGAL(follows, s->gate.stage, stage);
	s->gate.stage = stage;
}

void gate_delay(struct session *s, int64_t until)
{
	if (s->gate.stage != GATE_TARPIT)
		gate_enter(s, GATE_TARPIT);
	s->gate.tarpit_until = until;
}

bool gate_has_news(const struct session *s)
{
	return s->checks.passed || s->filtered || s->secured || s->client.told || s->hello.ready || s->server.news != SERVER_NO_NEWS ||
	    (s->policy && s->policy->news);
}

bool gate_is_open(const struct session *s)
{
	return s->gate.stage == GATE_OPEN && !gate_has_news(s);
}
