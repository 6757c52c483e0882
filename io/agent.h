/* Agents: processes that keep secrets for sessions, which have none themselves. An agent of a key signs TLS handshakes with it;
 * that of passwords gives out what a session needs. It is forked
 * once the secret was read, which the process that forks it then forgets, and it takes requests from that process and from all that this
 * one forks. When the secret is read again, other agents are forked; older sessions ask those that they know. Agents end when nobody is
 * left to ask them.
 */
#ifndef AGENT_H
#define AGENT_H

#include "io/keys.h"
#include "io/passwords.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define AGENT_HASH_MAX 64	/* octets */
#define AGENT_SIGNATURE_MAX 512 /* octets: RSA of 4096 bits */
#define AGENT_LINES 4

/* A user and a password, one after the other. */
struct agent_pair {
	unsigned char user_len, password_len;
	char text[2 * SASL_WORD_MAX];
};

/* For each pair of keys.h one of its own. */
enum agent_kind { AGENT_CLIENTS = KEYS_CLIENTS, AGENT_UPSTREAM = KEYS_UPSTREAM, AGENT_PASSWORDS, AGENT_KINDS };

/* Fork agents for the secret that was read last, and forget it here. many: there are many sessions, so that handshakes should use all
 * processors. false: there are none, errno says why, and the secret is forgotten all the same. */
bool agent_start(enum agent_kind kind, bool many);

/* A child has ended. Returns whether it was an agent that is asked by sessions to come; then *kind says which. */
bool agent_ended(pid_t pid, enum agent_kind *kind);

/* Whether an agent has ended, or was not started, since agent_start() was called. */
bool agent_lacks(enum agent_kind kind);

/* The processes asked for what no session of ours asks for, since this was called last: their number, and the last of them. */
unsigned agent_refusals(pid_t *last);

/* The process that has started them will ask no more, and has forked nobody who will: wait for their end, a second at most. */
void agent_stop(void);

/* Have a hash signed: of 20, 28, 32, 48 or 64 octets, SHA-1 to SHA-512, or 36, MD5 and SHA-1 of TLS 1.0 with RSA; for clients only from
 * SHA-256 on. The signature is that of PKCS#1 1.5, or of ECDSA in ASN.1. Waits for it, at most 10 seconds. Returns its octets, at most
 * AGENT_SIGNATURE_MAX; 0: there is none. */
size_t agent_sign(enum keys_pair pair, const unsigned char *hash, size_t n, unsigned char signature[AGENT_SIGNATURE_MAX]);

/* The user and the password for this server, which passwords_for() knows. A process gets those of AGENT_LINES lines of the file at most, as
 * long as it lives. Waits as agent_sign() does. false: it does not get them. */
bool agent_password(const struct passwords_server *server, struct agent_pair *pair);

#endif
