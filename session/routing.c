/* The routes of a session. See routing.h for the contract. */
#include "session/routing.h"

void routing_prepare(struct session *s)
{
	static struct routes_of_session routes;

	s->routes = &routes;
}

void routing_begin_session(struct session *s)
{
	s->routes->of_session = s->server.route;
}

void routing_begin_mail(struct session *s)
{
	s->routes->of_mail = s->routes->of_session;
}

void routing_begin_recipient(struct session *s)
{
	s->routes->wanted = s->routes->of_mail;
}

const struct route *routing_of(const struct session *s, enum hook_event event)
{
	return event == HOOK_CONNECT ? &s->server.route : event == HOOK_MAIL ? &s->routes->of_mail : &s->routes->wanted;
}

void routing_set(struct session *s, enum hook_event event, const struct route *r)
{
	if (event == HOOK_MAIL)
		s->routes->of_mail = *r;
	else
		s->routes->wanted = *r;
}

const struct upstream *routing_server(const struct session *s, const struct route *r, unsigned n, struct upstream *room)
{
	if (r->upstream.host[0])
		return route_server(r, n, room);
	return n < s->o->upstreams ? &s->o->upstream[n] : NULL;
}

enum routes_result routing_find(struct session *s, char *why, size_t cap)
{
	const struct smtp_command *cmd = &s->held->cmd;
	const char *delimiters = s->o->recipient_delimiter ? s->o->recipient_delimiter : "";

	if (!s->o->routes || s->routes->wanted.upstream.host[0])
		return ROUTES_FOUND;
	return routes_find(s->o->routes, cmd->address, cmd->address_len, delimiters, route_take_line, &s->routes->wanted, why, cap);
}
