/* Who speaks TLS with the client. See inspect.h for the contract. */
#include "session/inspect.h"

/* Whether --tls-inspect names the client, or the server that the session is for. */
static bool is_inspected(const struct session *s)
{
	const union net_address *server = s->server.address.sa.sa_family == AF_UNSPEC ? &s->server.original : &s->server.address;

	for (unsigned i = 0; i < s->o->inspects; i++)
		if (net_in_block(s->o->inspect[i].server ? server : &s->client.address, &s->o->inspect[i].block))
			return true;
	return false;
}

enum client_tls inspect_client_tls(const struct session *s)
{
	if (s->o->client_tls != CLIENT_TLS_AUTO || !is_inspected(s))
		return s->o->client_tls;
	return s->o->cert ? CLIENT_TLS_MAY : CLIENT_TLS_NONE;
}

bool inspect_passes(const struct session *s)
{
	enum client_tls how = inspect_client_tls(s);

	return (how == CLIENT_TLS_PASSTHROUGH || how == CLIENT_TLS_AUTO) && !s->dialogue.encrypted;
}

/* A client that says HELO cannot ask for TLS. */
bool inspect_waits(const struct session *s)
{
	if (s->gate.stage == GATE_SECURE || s->gate.stage == GATE_SERVER)
		return false;
	return s->o->tls_on_recipient ||
	    (s->o->client_tls == CLIENT_TLS_AUTO && s->hello.verb != SMTP_HELO && inspect_passes(s));
}
