/* A session over legs that are memory. See fake_session.h.
 *
 * session.c is included, not linked: its turn is the one that is tested. Only the loop around it is written again here, for it stops
 * where the real one waits.
 */
#include "session/session.c"

#include "test/lib/fake_session.h"

#include "io/agent.h"
#include "io/passwords.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define TURNS_MAX 100000 /* a session that does more without waiting goes round for ever */

static struct options options;
static struct hook_list hooks;
static volatile sig_atomic_t terminated;
static bool running, over, said_where;
static size_t looked_at; /* octets of world_log */

struct session *the_session(void)
{
	return &session;
}

/* ---- before ---- */

const char *file_of(const char *text)
{
	static char paths[4][40];
	static unsigned count;
	int fd = memfd_create("file", 0);

	assert_true(fd >= 0 && count < COUNT(paths));
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	snprintf(paths[count], sizeof paths[count], "/proc/%d/fd/%d", (int)getpid(), fd);
	return paths[count++];
}

void client_is(const char *address)
{
	assert_true(net_parse(address, 1234, &world_net.peer));
}

void redirected_from(const char *address)
{
	world_net.original.sa.sa_family = AF_UNSPEC;
	assert_true(!*address || net_parse(address, 25, &world_net.original));
	said_where = true;
}

void hook_is_there(enum hook_event event, const char *name)
{
	hooks.hook[hooks.count++] = (struct hook){ .event = event, .path = name, .name = name };
	hooks.events |= 1u << event;
}

void hooks_are_broken(const char *why)
{
	snprintf(hooks.broken, sizeof hooks.broken, "%s", why);
}

/* ---- the loop ---- */

/* Read what is there. false: nothing is, nor comes with the next turn. */
static bool look(void)
{
	world_idle = false;
	world_waiting = WORLD_STEPS;
	wait_and_read(&session, steps_deadline(&session).at);
	return !world_idle || world_answers;
}

/* Go on as far as possible at this time, beginning with a turn. */
static void take_turns(void)
{
	struct session *s = &session;
	struct steps_deadline d;
	int turns = 0;

	do {
		assert_true(turns++ < TURNS_MAX);
		world_answers = false;
		turn(s);
		if (talk_ended(s)) {
			world_waiting = WORLD_WAITS;
			finish(s);
			over = true;
			return;
		}
		d = steps_deadline(s);
		if (s->now >= d.at)
			steps_overdue(s, &d);
	} while (s->now >= d.at || look());
}

/* The same, but what woke the session may be read first. */
static void settle(void)
{
	if (!running || over)
		return;
	look();
	take_turns();
}

void goes_on(void)
{
	settle();
}

void passes(double seconds)
{
	int64_t until = world_now + (int64_t)(seconds * SECOND);

	for (int i = 0; !over; i++) {
		int64_t at = steps_deadline(&session).at;

		assert_true(i < TURNS_MAX);
		if (at > until)
			break;
		world_now = at > world_now ? at : world_now;
		settle();
	}
	if (!over)
		world_now = until;
	settle();
}

/* The process that has passwords, without a process. */
bool agent_password(const struct passwords_server *server, struct agent_pair *pair)
{
	struct password p;

	if (!passwords_secret_for(server, &p))
		return false;
	*pair = (struct agent_pair){ (unsigned char)p.pair.user_len, (unsigned char)p.pair.password_len, { 0 } };
	memcpy(pair->text, p.pair.user, p.pair.user_len);
	memcpy(pair->text + p.pair.user_len, p.pair.password, p.pair.password_len);
	return true;
}

static void read_options(const char *words)
{
	static char text[2000];
	char *argv[100] = { "smtpwarp", "--hostname", "warp.test" }, *none[] = { NULL }, *save = NULL, why[500] = "";
	int n = 3;

	snprintf(text, sizeof text, "%s", words);
	for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		assert_true(n < 99);
		argv[n++] = word;
	}
	if (options_read(&options, n, argv, none, why, sizeof why) != OPTIONS_GOOD)
		fail_msg("options: %s", why);
	if (options.upstream_auth && !passwords_load(options.upstream_auth, why, sizeof why))
		fail_msg("options: %s", why);
}

void session_begins(const char *words)
{
	struct session *s = &session;

	read_options(words);
	if (world_net.peer.sa.sa_family == AF_UNSPEC)
		client_is("192.0.2.7");
	if (!said_where)
		redirected_from("192.0.2.99");
	net_parse("192.0.2.1", 25, &world_net.local);
	world_detailed = options.verbose;
	s->o = &options;
	s->hooks = &hooks;
	s->terminated = &terminated;
	begin(s, world_client.fd);
	start(s);
	running = true;
	over = talk_ended(s);
	if (over)
		finish(s);
	else
		take_turns();
}

/* ---- peers ---- */

static void says(struct world_socket *k, const char *lines)
{
	for (; *lines; lines++)
		world_says(k, *lines == '\n' ? "\r\n" : lines, *lines == '\n' ? 2 : 1);
	world_says(k, "\r\n", 2);
	settle();
}

void client(const char *lines)
{
	says(&world_client, lines);
}

void server(const char *lines)
{
	says(&world_server, lines);
}

void client_bytes(const char *bytes, size_t n)
{
	world_says(&world_client, bytes, n);
	settle();
}

void server_bytes(const char *bytes, size_t n)
{
	world_says(&world_server, bytes, n);
	settle();
}

/* CR LF as a newline, but for the last. */
static const char *told(struct world_socket *k)
{
	static struct text t;
	size_t from = 0;

	clear(&t);
	for (size_t i = 0; i < k->out_len; i++) {
		if (k->out[i] != '\r' || i + 1 == k->out_len || k->out[i + 1] != '\n')
			continue;
		say_bytes(&t, k->out + from, i - from);
		if (i + 2 < k->out_len)
			say(&t, "\n");
		from = i++ + 2;
	}
	if (from < k->out_len) {
		say_bytes(&t, k->out + from, k->out_len - from);
		say(&t, "...");
	}
	k->out_len = 0;
	return t.bytes;
}

/* As the place where the test says it. */
static void complain(const char *file, int line, const char *what, const char *got, const char *want)
{
	print_error("%s:%d: %s\n  got  %s\n  want %s\n", file, line, what, got, want);
	_fail(file, line);
}

void peer_gets(const char *file, int line, const char *name, struct world_socket *k, const char *want)
{
	const char *got = told(k);

	if (strcmp(got, want) != 0)
		complain(file, line, name, got, want);
}

void client_heard(void)
{
	world_client.out_len = 0;
}

void server_heard(void)
{
	world_server.out_len = 0;
}

static void decide(int error)
{
	assert_int_equal(session.server.state, SERVER_CONNECTING);
	world_net.outcome = error;
	world_net.decided = true;
	settle();
}

void server_connects(void)
{
	decide(0);
}

void server_connect_fails(int error)
{
	decide(error);
}

static void closes(struct world_socket *k)
{
	assert_true(k->fd >= 0);
	k->eof = true;
	settle();
}

void client_closes(void)
{
	closes(&world_client);
}

void server_closes(void)
{
	closes(&world_server);
}

static void breaks(struct world_socket *k)
{
	assert_true(k->fd >= 0);
	k->error = ECONNRESET;
	settle();
}

void client_breaks(void)
{
	breaks(&world_client);
}

void server_breaks(void)
{
	breaks(&world_server);
}

void client_takes(size_t n)
{
	world_client.room = n;
	settle();
}

void server_takes(size_t n)
{
	world_server.room = n;
	settle();
}

static void shakes(struct tls *t, const char *failure)
{
	assert_true(t->begun && !t->done && !t->failure);
	t->done = !failure;
	t->failure = failure;
	settle();
}

void client_shakes(void)
{
	shakes(&world_tls_client, NULL);
}

void server_shakes(void)
{
	shakes(&world_tls_server, NULL);
}

void client_shake_fails(const char *why)
{
	shakes(&world_tls_client, why);
}

void server_shake_fails(const char *why)
{
	shakes(&world_tls_server, why);
}

void hook_says(const char *verdict)
{
	hook_replaces(verdict, NULL);
}

void hook_replaces(const char *verdict, const char *message)
{
	world_hook_says(verdict, message);
	settle();
}

void hook_fails(const char *why)
{
	world_hook_fails(why);
	settle();
}

void name_is(const char *name, const char *addresses)
{
	world_name(name, addresses);
	settle();
}

void dns_says(const char *name, enum dns_type type, const char *answer, const char *failure)
{
	world_dns(name, type, answer, failure);
	settle();
}

void terminate(int times)
{
	terminated = times;
	settle();
}

/* ---- states ---- */

#define STATES 32

/* The machines of state.h: the function that enters a state, the states' names, and the bits of those that may follow. */
static const struct {
	const char *name, *enter, *states[STATES];
	uint32_t follows[STATES];
} machines[] = {
#define X(state, next) #state,
#define GATE_BIT(state) 1u << GATE_##state
#define SERVER_BIT(state) 1u << SERVER_##state
#define CONTENT_BIT(state) 1u << CONTENT_##state
#define MACHINE(name, enter, list) { name, enter, { list(X) }, { list(FOLLOWS) } }
#define FOLLOWS(state, next) next,
	MACHINE("gate", "gate_enter", GATE_STAGES),
	MACHINE("server", "serverstate_enter", SERVER_STATES),
	MACHINE("content", "transaction_enter", CONTENT_STATES),
#undef X
};

static const char *state_name(size_t machine, unsigned state)
{
	return machines[machine].states[state];
}

/* ---- what is to be ---- */

void is_dialled(const char *file, int line, const char *where, unsigned attempts)
{
	char address[NET_TEXT], got[300], want[300];

	snprintf(want, sizeof want, "%s, attempt %u", where, attempts);
	if (world_net.dialled_path)
		snprintf(got, sizeof got, "%s, attempt %u", world_net.dialled_path, world_net.attempts);
	else
		snprintf(got, sizeof got, "%s:%u, attempt %u", net_text(&world_net.dialled, address), net_port(&world_net.dialled),
		    world_net.attempts);
	if (strcmp(got, want) != 0)
		complain(file, line, "dialled", got, want);
}

void is_at(const char *file, int line, enum gate_stage gate, enum server_state state)
{
	char got[40], want[40];

	snprintf(want, sizeof want, "%s %s", state_name(0, gate), state_name(1, state));
	snprintf(got, sizeof got, "%s %s", state_name(0, session.gate.stage), state_name(1, session.server.state));
	if (strcmp(got, want) != 0)
		complain(file, line, "gate and server", got, want);
}

static void say_deadline(char text[200], double seconds, const char *reason)
{
	if (reason)
		snprintf(text, 200, "%.3f s \"%s\"", seconds, reason);
	else
		snprintf(text, 200, "never");
}

void is_due(const char *file, int line, double seconds, const char *reason)
{
	struct steps_deadline d = steps_deadline(&session);
	char got[200], want[200];

	say_deadline(want, seconds, reason);
	say_deadline(got, (double)(d.at - world_now) / SECOND, d.reason);
	if (over)
		snprintf(got, sizeof got, "the session is over: %s", session.end.reason ? session.end.reason : "");
	if (strcmp(got, want) != 0)
		complain(file, line, "the next deadline", got, want);
}

static const char *end_names[] = { "NOT", "AFTER_REPLIES", "FLUSH", "LINGER", "SILENT" };

void is_over(const char *file, int line, enum end_how how, const char *by, const char *reason)
{
	char got[300], want[300];

	snprintf(want, sizeof want, "%s \"%s\" \"%s\"", end_names[how], by, reason);
	snprintf(got, sizeof got, "%s %s %s", end_names[session.end.how], over && session.end.by ? member_of("close", "by") : "\"\"",
	    over && session.end.by ? member_of("close", "reason") : "\"\"");
	if (!over || strcmp(got, want) != 0)
		complain(file, line, over ? "the end" : "it is not over", got, want);
}

void is_not_over(const char *file, int line)
{
	if (over)
		complain(file, line, "it is over", session.end.reason ? session.end.reason : "", "a session that goes on");
}

/* ---- records ---- */

/* Past a JSON value. */
static const char *skip_value(const char *at)
{
	int depth = 0;
	bool quoted = false;

	for (;; at++) {
		if (quoted && *at == '\\')
			at++;
		else if (*at == '"')
			quoted = !quoted;
		else if (!quoted && strchr("{[", *at))
			depth++;
		else if (!quoted && strchr("}]", *at) && --depth < 0)
			return at;
		else if (!quoted && !depth && *at == ',')
			return at;
	}
}

/* The member of the object at json: where its value begins, and how long it is; NULL: there is none. */
static const char *find_member(const char *json, const char *name, size_t *n)
{
	const char *at = json + 1, *end;
	size_t len = strlen(name);

	while (*at == '"') {
		const char *value = strchr(at + 1, '"') + 2;

		end = skip_value(value);
		if (strncmp(at + 1, name, len) == 0 && at[1 + len] == '"') {
			*n = (size_t)(end - value);
			return value;
		}
		at = *end == ',' ? end + 1 : "";
	}
	return NULL;
}

/* The same as text: "a.b" leads into an object; strings without quotation marks; null and what is not there are "". */
static const char *text_of(const char *json, const char *name)
{
	static char ring[8][2000];
	static unsigned next;
	char *out = ring[next++ % COUNT(ring)], first[40];
	const char *dot = strchr(name, '.'), *value;
	size_t n = 0;

	snprintf(first, sizeof first, "%.*s", dot ? (int)(dot - name) : (int)strlen(name), name);
	value = find_member(json, first, &n);
	out[0] = 0;
	if (!value || strncmp(value, "null", 4) == 0)
		return out;
	if (dot)
		return text_of(value, dot + 1);
	if (*value == '"')
		snprintf(out, sizeof ring[0], "%.*s", (int)n - 2, value + 1);
	else
		snprintf(out, sizeof ring[0], "%.*s", (int)n, value);
	return out;
}

static void shorten_message(struct text *t, const char *json)
{
	size_t n = 0;
	const char *at = find_member(json, "rcpt_to", &n), *comma = " to";

	say(t, "message %s %s", text_of(json, "result"), text_of(json, "mail_from.address"));
	for (at++; *at == '{'; at = skip_value(at), at += *at == ',') {
		say(t, "%s %s %s", comma, text_of(at, "address"), text_of(at, "code"));
		comma = ",";
	}
	if (*text_of(json, "reply.code"))
		say(t, ": %s %s", text_of(json, "reply.code"), text_of(json, "reply.text"));
}

static const char *before(const char *sign, const char *text)
{
	static char ring[4][2100];
	static unsigned next;
	char *out = ring[next++ % COUNT(ring)];

	snprintf(out, sizeof ring[0], "%s%s", *text ? sign : "", text);
	return out;
}

/* See fake_session.h. */
static void shorten(struct text *t, const char *json)
{
	const char *event = text_of(json, "event");

	if (strcmp(event, "error") == 0)
		say(t, "error: %s", text_of(json, "error"));
	else if (strcmp(event, "connect") == 0)
		say(t, "connect %s:%s: %s", text_of(json, "server.ip"), text_of(json, "server.port"), text_of(json, "banner"));
	else if (strcmp(event, "tls") == 0)
		say(t, "tls %s %s %s%s%s%s", text_of(json, "side"), text_of(json, "level"), text_of(json, "result"),
		    strcmp(text_of(json, "verified"), "true") == 0 ? " verified" : "", before(" for ", text_of(json, "name")),
		    before(": ", text_of(json, "reason")));
	else if (strcmp(event, "message") == 0)
		shorten_message(t, json);
	else if (strcmp(event, "verdict") == 0)
		say(t, "verdict %s %s %s%s", text_of(json, "on"), *text_of(json, "hook") ? text_of(json, "hook") : "-",
		    text_of(json, "verdict"), before(": ", text_of(json, "text")));
	else if (strcmp(event, "close") == 0)
		say(t, "close %s: %s", text_of(json, "by"), text_of(json, "reason"));
	else
		say(t, "%s %s", text_of(json, "direction"), text_of(json, "data"));
}

/* The record at *at, which moves on, in short; NULL: there is none. */
static const char *next_record(size_t *at)
{
	static struct text t;
	const char *end = memchr(world_log + *at, '\n', world_log_len - *at);

	if (!end)
		return NULL;
	clear(&t);
	shorten(&t, world_log + *at);
	*at = (size_t)(end + 1 - world_log);
	return t.bytes;
}

static void complain_of_records(const char *file, int line, const char *what, const char *want)
{
	static struct text all;
	const char *record;

	while ((record = next_record(&looked_at)))
		say(&all, "\n    %s", record);
	complain(file, line, what, all.bytes, want);
}

void is_recorded(const char *file, int line, const char *want)
{
	const char *record;
	size_t at = looked_at;

	while ((record = next_record(&at))) {
		if (strcmp(record, want) == 0) {
			looked_at = at;
			return;
		}
	}
	complain_of_records(file, line, "there is no such record", want);
}

void is_not_recorded(const char *file, int line, const char *beginning)
{
	const char *record;

	for (size_t at = looked_at; (record = next_record(&at));)
		if (strncmp(record, beginning, strlen(beginning)) == 0)
			complain_of_records(file, line, "there is such a record", beginning);
}

const char *member_of(const char *event, const char *name)
{
	static char ring[2][2000];
	static unsigned next;
	char *found = ring[next++ % COUNT(ring)];

	found[0] = 0;
	for (size_t at = 0; at < world_log_len;) {
		const char *json = world_log + at, *value;
		size_t n = 0;

		at = (size_t)((const char *)memchr(json, '\n', world_log_len - at) + 1 - world_log);
		value = strcmp(text_of(json, "event"), event) == 0 ? find_member(json, name, &n) : NULL;
		if (value)
			snprintf(found, sizeof ring[0], "%.*s", (int)n, value);
	}
	return found;
}

/* ---- tests ---- */

static unsigned char (*reached)[STATES][STATES]; /* of each machine; all processes of a program share it */

void legal_note(const char *enter, unsigned from, unsigned to)
{
	for (size_t i = 0; reached && i < COUNT(machines); i++)
		if (strcmp(machines[i].enter, enter) == 0 && from < STATES && to < STATES)
			reached[i][from][to] = 1;
}

/* A line for each legal transition: "gate OPEN CHECKS", and " reached" if it was. */
static void write_transitions(void)
{
	char name[500];
	FILE *f;

	snprintf(name, sizeof name, "%s.transitions", program_invocation_name);
	f = fopen(name, "w");
	assert_non_null(f);
	for (size_t i = 0; i < COUNT(machines); i++)
		for (unsigned from = 0; from < STATES; from++)
			for (unsigned to = 0; to < STATES; to++)
				if (machines[i].follows[from] >> to & 1)
					fprintf(f, "%s %s %s%s\n", machines[i].name, machines[i].states[from],
					    machines[i].states[to], reached[i][from][to] ? " reached" : "");
	fclose(f);
}

static void say_output(int fd, struct text *t)
{
	ssize_t n;

	clear(t);
	while ((n = read(fd, t->bytes + t->len, sizeof t->bytes - 1 - t->len)) > 0)
		t->len += (size_t)n;
	t->bytes[t->len] = 0;
	close(fd);
}

void apart(const char *name, void (*test)(void **), const void *row)
{
	const struct CMUnitTest one[] = { { name, test, NULL, NULL, (void *)(uintptr_t)row } };
	static struct text output;
	int pipes[2], status;
	pid_t child;

	assert_int_equal(pipe(pipes), 0);
	fflush(NULL);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		dup2(pipes[1], 1);
		dup2(pipes[1], 2);
		status = _cmocka_run_group_tests(name, one, 1, NULL, NULL);
		fflush(NULL);
		_exit(status);
	}
	close(pipes[1]);
	say_output(pipes[0], &output);
	assert_int_equal(waitpid(child, &status, 0), child);
	if (status)
		fail_msg("%s%s%s", output.bytes, WIFSIGNALED(status) ? "ended by: " : "",
		    WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "");
}

static void run_apart(void **state)
{
	const struct CMUnitTest *t = *state;

	apart(t->name, t->test_func, t->initial_state);
}

int run_each_apart(const char *group, const struct CMUnitTest *tests, size_t n)
{
	struct CMUnitTest each[400];
	int failed;

	assert_true(n <= COUNT(each));
	reached = mmap(NULL, sizeof *reached * COUNT(machines), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(reached != MAP_FAILED);
	for (size_t i = 0; i < n; i++)
		each[i] = (struct CMUnitTest){ tests[i].name, run_apart, NULL, NULL, (void *)(uintptr_t)&tests[i] };
	failed = _cmocka_run_group_tests(group, each, n, NULL, NULL);
	write_transitions();
	return failed;
}
