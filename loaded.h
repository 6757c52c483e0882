/* What options name, in memory: hooks, routes, keys, certificates of CAs, rules, providers, the file of --state. It is read at start, and by
 * a listener again once it has been replaced; what cannot be read again stays as it was, and a record says so.
 *
 * What is needed at start ends smtpwarp if it cannot be read: fault_die(), EX_CONFIG.
 */
#ifndef LOADED_H
#define LOADED_H

#include "hooks.h"
#include "pure/options.h"

#include <sys/types.h>

/* These are the options; they must stay. */
void loaded_begin(struct options *o);

/* SIGHUP: read again all that may have been replaced, hooks and routes apart, for which loaded_find_hooks_again() and
 * loaded_index_routes() look. */
void loaded_read_again(void);

/* Read the file of --tls-ca. NULL: it is read, perhaps with a warning; else the reason why not. */
const char *loaded_read_anchors(void);
void loaded_warn_of_anchors(void);

/* Look for keys and certificates that have changed, and start again agents that have ended. */
void loaded_refresh_keys(void);

/* Give what is secret of what was read to agents, agent.h. many: for the sessions of a listener. */
void loaded_begin_agents(bool many);

/* A child of this process has ended. Returns whether it was an agent, which a record then says; another one is started. */
bool loaded_agent_ended(pid_t pid, int how);

/* The hooks in use: none before loaded_find_hooks() or loaded_one_hook(). */
const struct hook_list *loaded_hooks(void);

/* Find the hooks. false: the list is empty, and says why. */
bool loaded_find_hooks(void);

/* --try-hook: this hook alone, at a path that must stay. */
void loaded_one_hook(enum hook_event event, const char *path);

/* Find hooks that have come or gone. */
void loaded_find_hooks_again(void);

/* Whether this is the path of a program in use as a hook. */
bool loaded_is_hook(const char *path);

/* Whether the broker may run this program. It keeps a list of its own, and looks again for what it does not find there. */
bool loaded_may_run(const char *path);

/* Whether there are hooks, or folders where hooks may appear. */
bool loaded_wants_broker(void);

/* Runs as the user that sessions run as. Checks --routes; for a listener makes the index of a large file, before the first session. */
void loaded_check_routes(void);

/* In a process of its own: make an index of --routes into this memory file. false: a record says why not. */
bool loaded_index_routes(int into);

/* --compile-routes. */
_Noreturn void loaded_compile_routes(void);

/* Runs as the user that sessions run as, who has to read them again: rules, providers and TLS policies. */
void loaded_check_rules(void);

/* --check: warn if the file of --tls-policy has a line for servers by name, and nothing names one. */
void loaded_warn_of_policies(void);

/* --check: ask whether name servers validate, if --tls, --routes or the file of --tls-policy wants DANE, and warn if they do not. Waits 5
 * seconds at most. */
void loaded_warn_of_resolver(void);

/* Whether it is known before a session begins where it may connect to: to --upstream, all by address, or to where its client was going. Then
 * a dialer serves sessions, dialer.h. */
bool loaded_wants_dialer(void);

/* For it: begin a connection to --upstream of this number, counted from 1; 0: to where this client was going. Returns a descriptor, or -1
 * with errno set. */
int loaded_dial(int client, uint32_t which);

/* Whether sessions may look up the names of clients or servers. */
bool loaded_wants_names(void);

/* Runs as the user that sessions run as, before the first one. Confines sessions, sandbox.h; from here on this process executes nothing.
 * alone: this process is a session, and has not read what a listener reads for all. */
void loaded_confine(bool alone);

/* Runs as the user that sessions run as. Where the default of --state is missing or is somebody else's, nothing is
 * observed; with --plain-after, which needs it, smtpwarp does not start. */
void loaded_open_state(void);

#endif
