/* The name of a server by the DNS: of the names to which mail for a domain goes (MX, RFC 5321 5.1), the one that has the server's address. The
 * question is asked beside everything else, and nothing ever waits for the answer.
 *
 * The domain's owner chooses the names, and where those that are his own lead. So that a name has the address proves whose server it is
 * only as far as the owner of that name is to be believed: observe.c decides that.
 */
#ifndef MXNAME_H
#define MXNAME_H

#include "session/state.h"

#include <poll.h>

#define MXNAME_POLLED 1

struct mxname_answer {
	union net_address address;
	char domain[DNS_NAME_MAX + 1]; /* as mxname_domain() has it */
	char name[DNS_NAME_MAX + 1];   /* "": no MX of the domain has this address */
};

/* The domain of a recipient, as the DNS has it. false: it has none that can be asked about. */
bool mxname_domain(const unsigned char *address, size_t n, char domain[DNS_NAME_MAX + 1]);

/* Begin to ask which MX of the domain has this address. Names of providers (see pure/site.h; the octets must stay) are asked for first. A
 * session asks once. */
void mxname_ask(struct session *s, const char *domain, const union net_address *address, const char *providers, size_t n);

/* Go on as far as possible without waiting. Returns the answer, once; NULL: there is none yet, or none can be had. It holds until
 * mxname_end(). */
const struct mxname_answer *mxname_turn(struct session *s);
void mxname_end(struct session *s);

/* The descriptor to poll, at most MXNAME_POLLED (returns how many); when to call mxname_turn() though nothing comes in. */
unsigned mxname_watch(const struct session *s, struct pollfd *p);
int64_t mxname_deadline(const struct session *s);

#endif
