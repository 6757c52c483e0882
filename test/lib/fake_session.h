/* A session over legs that are memory, and a clock that the test sets: the real files of session/ on the fakes of fake_world.h.
 *
 * A test is a story. Each line of it is a word of one of the two peers, or what that peer is to have heard since the last look:
 *
 *	session_begins("--upstream 192.0.2.25 --tls none");
 *	server_connects();
 *	server("220 mx.test ESMTP");
 *	client_gets("220 mx.test ESMTP");
 *	client("EHLO c.test");
 *	server_gets("EHLO c.test");
 *
 * After each word the session goes on until it waits. Time stands still but in passes(). Each test runs in a process of its own, as each
 * session does: statics need no reset, and a transition that state.h does not allow ends one test only.
 */
#ifndef FAKE_SESSION_H
#define FAKE_SESSION_H

#include "test/lib/unit.h"

#include "test/lib/fake_world.h"

#include "session/state.h"

/* ---- before the session begins ---- */

/* The path of a file in memory with this text, for options that take a file. */
const char *file_of(const char *text);

/* Where the client comes from, 192.0.2.7 unless it is said; and where its connection was redirected from: port 25 of 192.0.2.99 unless
 * it is said, or of "", which is a client that meant to reach us. Our own address is 192.0.2.1. */
void client_is(const char *address);
void redirected_from(const char *address);

/* A hook of this event. It runs until world_hook_says() or hook_says(). */
void hook_is_there(enum hook_event event, const char *name);

/* Their folders cannot be read. why: static storage. */
void hooks_are_broken(const char *why);

/* ---- the story ---- */

/* The session begins, with options as on the command line, separated by blanks. Before them stands --hostname warp.test. What the client
 * said before is there already. */
void session_begins(const char *options);

/* The session that is under test. */
struct session *the_session(void);

/* What a peer says: lines without the last CR LF, "\n" between lines becomes CR LF; and octets as they are. */
void client(const char *lines);
void server(const char *lines);
void client_bytes(const char *bytes, size_t n);
void server_bytes(const char *bytes, size_t n);

/* All that it was told since the last look: lines as above, other controls as say_bytes() writes them; "": nothing. */
#define client_gets(want) peer_gets(__FILE__, __LINE__, "client", &world_client, want)
#define server_gets(want) peer_gets(__FILE__, __LINE__, "server", &world_server, want)
void peer_gets(const char *file, int line, const char *name, struct world_socket *k, const char *want);

/* The rest of what it was told is of no interest. */
void client_heard(void);
void server_heard(void);

/* The connection attempt succeeds, or fails. */
void server_connects(void);
void server_connect_fails(int error);

/* It says no more; its connection breaks. */
void client_closes(void);
void server_closes(void);
void client_breaks(void);
void server_breaks(void);

/* It takes n octets and then no more, WORLD_FOREVER: all. */
void client_takes(size_t n);
void server_takes(size_t n);

/* TLS: the handshake is done, or fails. */
void client_shakes(void);
void server_shakes(void);
void client_shake_fails(const char *why);
void server_shake_fails(const char *why);

/* world_hook_says(), and the session goes on; the same for a name, and for an answer of the DNS. */
void hook_says(const char *verdict);
void hook_replaces(const char *verdict, const char *message);
void hook_fails(const char *why);
void name_is(const char *name, const char *addresses);
void dns_says(const char *name, enum dns_type type, const char *answer, const char *failure);

/* SIGTERM, once or twice. */
void terminate(int times);

/* Time passes; whatever falls due on the way happens then. */
void passes(double seconds);

/* Whatever has no word of its own was changed: the session goes on. */
void goes_on(void);

/* ---- what is to be ---- */

/* The address and port of the last attempt to connect, or the path; and how many there were. */
#define server_is_dialled(where, attempts) is_dialled(__FILE__, __LINE__, where, attempts)
void is_dialled(const char *file, int line, const char *where, unsigned attempts);

/* The states. */
#define stands_at(gate, server) is_at(__FILE__, __LINE__, GATE_##gate, SERVER_##server)
void is_at(const char *file, int line, enum gate_stage gate, enum server_state server);
#define content_is(state) assert_int_equal(the_session()->tx.content, CONTENT_##state)

/* The next deadline is so far away, for this reason ("": it is nobody's fault); none at all. */
#define falls_due_in(seconds, reason) is_due(__FILE__, __LINE__, seconds, reason)
#define never_due() is_due(__FILE__, __LINE__, -1, NULL)
void is_due(const char *file, int line, double seconds, const char *reason);

/* One of the records after those looked at already, in short:
 *
 *	error: TEXT
 *	connect ADDRESS:PORT: BANNER
 *	tls SIDE LEVEL RESULT[ verified][ for NAME][: REASON]
 *	message RESULT FROM to RCPT CODE, RCPT CODE[: CODE TEXT]
 *	verdict ON HOOK WORD[: TEXT]		(a check of ours: HOOK is -)
 *	close BY: REASON
 *	-> LINE					(comm, with --verbose)
 */
#define recorded(want) is_recorded(__FILE__, __LINE__, want)
void is_recorded(const char *file, int line, const char *want);

/* No record that begins so follows those that were looked at. */
#define not_recorded(beginning) is_not_recorded(__FILE__, __LINE__, beginning)
void is_not_recorded(const char *file, int line, const char *beginning);

/* A member of the last record of this event as it stands in JSON: member_of("tls", "tls_ms"). Until the next call but one. */
const char *member_of(const char *event, const char *name);

/* The session is over, its last record written; or it is not over. */
#define ended(how, by, reason) is_over(__FILE__, __LINE__, END_##how, by, reason)
#define goes_still() is_not_over(__FILE__, __LINE__)
void is_over(const char *file, int line, enum end_how how, const char *by, const char *reason);
void is_not_over(const char *file, int line);

/* ---- tests ---- */

/* Run a test in a process of its own, and fail as it does: for the rows of a table. */
void apart(const char *name, void (*test)(void **), const void *row);

/* For main(): run tests, each apart. The file NAME.transitions beside the program then has a line for each legal transition of a state,
 * which ends with "reached" if one of the tests took it. */
#define run_session_tests(tests) run_each_apart(#tests, tests, COUNT(tests))
int run_each_apart(const char *group, const struct CMUnitTest *tests, size_t n);

#endif
