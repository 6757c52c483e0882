/* --plain-after. See plainafter.h for the contract; the comments here say why. */
#include "session/plainafter.h"
#include "io/statefile.h"

#include <stdio.h>
#include <time.h>

/* The server is its address: before there is TLS it has proved no name. smtpwarp does not start with the option and without a map, see
 * loaded.h. */
int64_t plainafter_note(const struct session *s, bool failed)
{
	const union net_address *a = &s->server.address;
	struct statemap *m = statefile_current();
	char text[NET_TEXT], port[8];
	const char *address = a->sa.sa_family == AF_UNIX ? s->server.host : text;
	uint64_t unix_s, now, due;

	if (!s->o->plain_after || !m)
		return 0;
	net_text(a, text);
	snprintf(port, sizeof port, "%u", net_port(a));
	unix_s = (uint64_t)time(NULL);
	now = statefile_now();
	if (!failed) {
		statemap_tls_works(m, address, port);
		return 0;
	}
	due = statemap_tls_failed(m, address, port, now, unix_s) + (uint64_t)s->o->plain_after;
	return due > now ? (int64_t)(due - now) : 0;
}
