/* Who speaks TLS with the client: smtpwarp, or the server, to which its STARTTLS is passed on. --client-tls and --tls-inspect say it;
 * nothing here has a state of its own.
 */
#ifndef INSPECT_H
#define INSPECT_H

#include "session/state.h"

/* How this session deals with TLS of its client: as --client-tls says. For CLIENT_TLS_AUTO it is that only where STARTTLS is passed on;
 * where --tls-inspect forbids that, CLIENT_TLS_MAY with a certificate to show, else CLIENT_TLS_NONE. */
enum client_tls inspect_client_tls(const struct session *s);

/* Whether STARTTLS of this client is passed on to the server. */
bool inspect_passes(const struct session *s);

/* Whether TLS with the server waits until the client begins a message, for it may want TLS of its own (--client-tls auto), or until
 * its recipient is known (--tls-on recipient). */
bool inspect_waits(const struct session *s);

#endif
