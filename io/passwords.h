/* User names and passwords for upstreams: the file of --upstream-auth. passwords_find() is pure.
 */
#ifndef PASSWORDS_H
#define PASSWORDS_H

#include "pure/sasl.h"

#include <stdbool.h>
#include <stdint.h>

#define PASSWORDS_FINGERPRINT 32 /* octets of SHA-256 */

/* A line of the file. The pointers lead into its text. */
struct password {
	struct sasl_pair pair;
	const char *conditions; /* the words before the pair */
	size_t conditions_len;
	bool pinned;	 /* it names certificates: passwords_pins() knows which */
	bool unverified; /* the password may go to whoever answers */
};

struct passwords_server {
	const char *host;
	uint16_t port;
	bool chosen_by_client; /* "*" does not mean it: it could be anybody's */
};

/* Search a text of lines as in Postfix's sasl_passwd: "HOST[:PORT] [CONDITION ...] USER:PASSWORD". HOST may be in brackets; "*"
 * stands for all other hosts; a CONDITION is "unverified" or, once or more often, "fingerprint=" with 64 hexadecimal digits, which
 * may have colons between octets; blank lines and lines that begin with '#' are skipped. *p becomes the first line for the host (in
 * any case of letters) and port, that of "*" if there is no other. server NULL: only check the text. Returns the number of the first
 * malformed line that was met, 0: none. found: whether *p is set. */
unsigned passwords_find(const char *text, size_t n, const struct passwords_server *server, struct password *p, bool *found);

/* Whether p names the certificate with this SHA-256. */
bool passwords_pins(const struct password *p, const unsigned char fingerprint[PASSWORDS_FINGERPRINT]);

/* Read the file in place of the former one; processes that were forked keep what they have. The name must stay. false:
 * everything is as before, and why filled: "--upstream-auth FILE: reason". */
bool passwords_load(const char *file, char *why, size_t why_cap);

/* The line for this server, with "-" for its user and its password: what sessions may know. false: the file has none, or there is no file. */
bool passwords_for(const struct passwords_server *server, struct password *p);

/* The same with user and password. false, too: they are forgotten. */
bool passwords_secret_for(const struct passwords_server *server, struct password *p);

/* Whether this process has users and passwords. After passwords_forget() neither it has them, nor what it forks, until passwords_load(). */
bool passwords_have_secret(void);
void passwords_forget(void);

/* Whether users other than the file's owner and group can read or write it. */
bool passwords_exposed(void);

#endif
