/* The state of the server. See serverstate.h for the contract. */
#include "session/serverstate.h"
#include "session/legal.h"

void serverstate_enter(struct session *s, enum server_state state)
{
#define SERVER_BIT(state) 1u << SERVER_##state
#define X(state, next) [SERVER_##state] = next,
	static const uint32_t follows[] = { SERVER_STATES(X) };
#undef X
#undef SERVER_BIT

	LEGAL(follows, s->server.state, state);
	s->server.state = state;
}

bool serverstate_is_open(const struct session *s)
{
	switch (s->server.state) {
	case SERVER_BANNER:
	case SERVER_IDLE:
	case SERVER_READY:
	case SERVER_TUNNEL:
		return true;
	default:
		return serverstate_in_hello(s);
	}
}

bool serverstate_in_hello(const struct session *s)
{
	switch (s->server.state) {
	case SERVER_EHLO:
	case SERVER_STARTTLS:
	case SERVER_EHLO_TLS:
	case SERVER_XCLIENT:
	case SERVER_EHLO_AGAIN:
	case SERVER_AUTH:
	case SERVER_HELO:
		return true;
	default:
		return false;
	}
}

bool serverstate_is_shaking(const struct session *s)
{
	return s->server.state == SERVER_SHAKE_FIRST || s->server.state == SERVER_SHAKE;
}
