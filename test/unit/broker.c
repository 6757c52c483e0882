/* The broker with real programs: what it runs and what not, how a run ends, and what becomes of runs whose session is gone. */
#define _GNU_SOURCE
#include "test/lib/lingering.h"

#include "io/broker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE 200000 /* microseconds */
#define WAIT_MS 120000 /* nothing takes so long, in emulators either */

static char directory[] = "/tmp/unit-broker.XXXXXX", program[64];
static pid_t broker;

static bool allows(const char *path)
{
	return strcmp(path, "/bin/forbidden") != 0;
}

/* A program for sh(1). */
static void write_program(const char *text)
{
	FILE *file;

	snprintf(program, sizeof program, "%s/program", directory);
	file = fopen(program, "w");
	assert_non_null(file);
	fprintf(file, "#!/bin/sh\n%s\n", text);
	fclose(file);
	chmod(program, 0755);
}

struct run {
	int channel, in, out;
};

static void begin(struct run *r, const char *path)
{
	int in[2], out[2];

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	r->channel = broker_run(path, (const int[]){ in[0], out[1], out[1], -1 });
	close(in[0]);
	close(out[1]);
	r->in = in[1];
	r->out = out[0];
	assert_true(r->channel >= 0);
}

static void leave(struct run *r)
{
	close(r->in);
	close(r->out);
}

static struct broker_news await(const struct run *r)
{
	struct pollfd p = { .fd = r->channel, .events = POLLIN };

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	return broker_take(r->channel);
}

/* Wait for the end of the program's output, with no other end than that of all processes that have it. */
static size_t output(const struct run *r, char *text, size_t cap)
{
	size_t n = 0;
	ssize_t got;

	while ((got = read(r->out, text + n, cap - 1 - n)) > 0)
		n += (size_t)got;
	text[n] = 0;
	return n;
}

static void ends_with(const char *text, int how, int value)
{
	struct run r;
	struct broker_news news;

	write_program(text);
	begin(&r, program);
	news = await(&r);
	assert_int_equal(news.how, how);
	assert_int_equal(news.value, value);
	broker_end(r.channel, false);
	leave(&r);
}

static void tells_how_programs_end(void **state)
{
	(void)state;
	ends_with("exit 0", BROKER_EXITED, 0);
	ends_with("exit 3", BROKER_EXITED, 3);
	ends_with("kill -9 $$", BROKER_KILLED, SIGKILL);
	ends_with("kill -TERM $$", BROKER_KILLED, SIGTERM); /* the broker ignores it, the program does not */
}

static void programs_get_their_descriptors(void **state)
{
	char text[200];
	struct run r;

	(void)state;
	write_program("read line; echo \"got $line\"; ls /proc/self/fd | tr '\\n' ' '");
	begin(&r, program);
	assert_int_equal(write(r.in, "words\n", 6), 6);
	output(&r, text, sizeof text);
	assert_string_equal(text, "got words\n0 1 2 3 "); /* 3 is that of ls */
	broker_end(r.channel, false);
	leave(&r);
}

static void not_run(const char *path, int error)
{
	struct run r;
	struct broker_news news;

	begin(&r, path);
	news = await(&r);
	assert_int_equal(news.how, BROKER_NOT_RUN);
	assert_int_equal(news.value, error);
	broker_end(r.channel, true);
	leave(&r);
}

static void what_cannot_be_run(void **state)
{
	static char longer[BROKER_PATH_MAX + 20];

	(void)state;
	not_run("/bin/forbidden", EACCES);
	not_run("/nowhere/program", ENOENT);
	not_run(directory, EACCES);
	memset(longer, 'a', sizeof longer - 1);
	not_run(longer, EINVAL);
	not_run("", ENOENT);
}

/* A program that is not run leaves the broker as the last who has the descriptor. */
static void connection_that_lingers(void **state)
{
	struct run r;
	int peer, fd = lingering(&peer);

	(void)state;
	held_up(broker);
	r.channel = broker_run("/bin/forbidden", (const int[]){ fd, fd, fd, -1 });
	assert_true(r.channel >= 0);
	close(fd);
	kill(broker, SIGCONT);
	assert_int_equal(await(&r).value, EACCES);
	broker_end(r.channel, true);
	ends_with("exit 0", BROKER_EXITED, 0);
	close(peer);
}

/* It lies where the session says what to do with a program: to receive that closes it. */
static void connection_that_lingers_in_a_channel(void **state)
{
	struct run r;
	int peer, fd = lingering(&peer);

	(void)state;
	write_program("read line");
	begin(&r, program);
	held_up(broker);
	pass_among(r.channel, fd, 1);
	kill(broker, SIGCONT);
	ends_with("exit 0", BROKER_EXITED, 0);
	leave(&r);
	close(peer);
}

static void nothing_has_happened_yet(void **state)
{
	struct run r;
	char text[20];

	(void)state;
	write_program("read line");
	begin(&r, program);
	assert_int_equal(broker_take(r.channel).how, BROKER_NOTHING);
	close(r.in);
	assert_int_equal(output(&r, text, sizeof text), 0);
	assert_int_equal(await(&r).how, BROKER_EXITED);
	broker_end(r.channel, false);
	close(r.out);
}

/* The group goes with it: the shell's child has the output open, too. */
static void kills_the_group(void **state)
{
	char text[40];
	struct run r;

	(void)state;
	write_program("echo begun; sleep 1000 & wait");
	begin(&r, program);
	assert_int_equal(read(r.out, text, sizeof text), 6);
	broker_end(r.channel, true);
	assert_int_equal(output(&r, text, sizeof text), 0);
	leave(&r);
}

static void what_a_program_leaves_behind_goes_on(void **state)
{
	char text[40];
	struct run r;

	(void)state;
	write_program("exec 3<&0; (read line <&3 && echo behind) & exit 0"); /* a shell takes 0 away from what it leaves behind */
	begin(&r, program);
	assert_int_equal(await(&r).how, BROKER_EXITED);
	broker_end(r.channel, false);
	assert_int_equal(write(r.in, "\n", 1), 1);
	output(&r, text, sizeof text);
	assert_string_equal(text, "behind\n");
	leave(&r);
}

/* A session that has crashed says nothing. */
static void gone_sessions_leave_programs_some_time(void **state)
{
	char text[40];
	struct run r;

	(void)state;
	write_program("echo begun; exec sleep 1000");
	begin(&r, program);
	assert_int_equal(read(r.out, text, sizeof text), 6);
	close(r.channel);
	assert_int_equal(output(&r, text, sizeof text), 0); /* killed after PATIENCE */
	leave(&r);
}

static void many_at_once(void **state)
{
	static struct run runs[100];

	(void)state;
	write_program("read line; exit 7");
	for (size_t i = 0; i < 100; i++)
		begin(&runs[i], program);
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(broker_take(runs[i].channel).how, BROKER_NOTHING);
	for (size_t i = 0; i < 100; i++)
		leave(&runs[i]);
	for (size_t i = 0; i < 100; i++) {
		assert_int_equal(await(&runs[i]).value, 7);
		broker_end(runs[i].channel, false);
	}
}

/* A session that is taken over must not end it for the others. */
static void takes_nothing_for_no_end(void **state)
{
	int type = 0, fd = 2;
	socklen_t len = sizeof type;

	(void)state;
	while (type != SOCK_SEQPACKET) /* of this process only the socket of requests is one now */
		getsockopt(++fd, SOL_SOCKET, SO_TYPE, &type, &len);
	for (int i = 0; i < 3; i++)
		assert_int_equal(send(fd, "", 0, MSG_NOSIGNAL), 0);
	ends_with("exit 3", BROKER_EXITED, 3);
}

/* It goes when nobody is left to ask it: this process is the last, and drops its socket with everything else. */
static void ends_with_the_last_session(void **state)
{
	int how;

	(void)state;
	assert_int_equal(syscall(SYS_close_range, 3, ~0u, 0), 0);
	assert_int_equal(waitpid(broker, &how, 0), broker);
	assert_int_equal(how, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tells_how_programs_end),
		cmocka_unit_test(programs_get_their_descriptors),
		cmocka_unit_test(what_cannot_be_run),
		cmocka_unit_test(connection_that_lingers),
		cmocka_unit_test(connection_that_lingers_in_a_channel),
		cmocka_unit_test(nothing_has_happened_yet),
		cmocka_unit_test(kills_the_group),
		cmocka_unit_test(what_a_program_leaves_behind_goes_on),
		cmocka_unit_test(gone_sessions_leave_programs_some_time),
		cmocka_unit_test(many_at_once),
		cmocka_unit_test(takes_nothing_for_no_end),
		cmocka_unit_test(ends_with_the_last_session),
	};
	sigset_t children;
	int failed;

	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	sigprocmask(SIG_BLOCK, &children, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(directory) || (broker = broker_start(allows, PATIENCE)) < 0)
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(program);
	rmdir(directory);
	return failed;
}
