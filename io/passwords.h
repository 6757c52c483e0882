/* User names and passwords for upstreams, --upstream-auth: the file, and what of it goes into AUTH. Pure but for auth_load().
 */
#ifndef AUTH_H
#define AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AUTH_WORD_MAX 255 /* octets of a name or a password, as in RFC 4616 2 */
#define AUTH_LINE_MAX 704 /* octets of what auth_plain() writes */

/* They lead into the text. */
struct auth_pair {
	const char *user, *password;
	size_t user_len, password_len;
};

/* Look through a text of lines as Postfix has them in sasl_passwd: "HOST[:PORT] USER:PASSWORD", HOST perhaps in brackets, or
 * "*" for all others; lines that begin with '#' or are blank do not count. The first for host (in any case) and port is *p;
 * "*" only if there is none. host NULL: only check the text. Returns the number of the first line that is malformed, 0:
 * there is none. found: whether there is one, ahead of any that is malformed. */
unsigned auth_find(const char *text, size_t n, const char *host, uint16_t port, struct auth_pair *p, bool *found);

/* The response of PLAIN (RFC 4616 2), or one word as LOGIN has it, in base64; octets written, at most AUTH_LINE_MAX. */
size_t auth_plain(const struct auth_pair *p, char *out);
size_t auth_word(const char *word, size_t n, char *out);

/* Read the file, in place of the one before; processes that were forked keep what they have. The name must stay. false: all
 * is as before, and why filled: "--upstream-auth FILE: reason". */
bool auth_load(const char *file, char *why, size_t why_cap);

/* What to say to this server. false: nothing, there is no such line or no file. */
bool auth_for(const char *host, uint16_t port, struct auth_pair *p);

/* Whether others than its owner and group may read the file. */
bool auth_exposed(void);

/* Overwrite and forget what was read. */
void auth_wipe(void);

#endif
