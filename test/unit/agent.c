/* An agent as who has taken a session over would see it: what it signs and what not, whom it tells of that, and that it goes on with whatever
 * is sent to it. */
#define _GNU_SOURCE
#include "test/lib/unit.h"

#include "io/agent.c"
#include "test/lib/key_pair.h"
#include "test/lib/lingering.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>

#define LINES "# old h0:secret0\nh1 u1:secret1\nh2 u2:secret2\nh3 u3:secret3\nh4 unverified u4:secret4\nh5 u5:secret5\n* u6:secret6\n"

static char password_file[] = "/tmp/unit-agent-passwords.XXXXXX", cert_file[] = "/tmp/unit-agent-cert.XXXXXX", key_file[] = "/tmp/unit-agent-key.XXXXXX";

static void write_file(char *name, const char *text)
{
	int fd = mkstemp(name);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void load(void)
{
	char why[500] = "";

	for (enum keys_pair pair = 0; pair < KEYS_PAIRS; pair++)
		if (!keys_load(pair, cert_file, key_file, why, sizeof why))
			fail_msg("%s", why);
	if (!passwords_load(password_file, why, sizeof why))
		fail_msg("%s", why);
}

static int start(void **state)
{
	(void)state;
	load();
	assert_true(agent_start(AGENT_CLIENTS, true));
	assert_true(agent_start(AGENT_UPSTREAM, true));
	assert_true(agent_start(AGENT_PASSWORDS, true));
	return 0;
}

static int stop(void **state)
{
	pid_t last;

	(void)state;
	for (enum agent_kind kind = 0; kind < AGENT_KINDS; kind++)
		leave(&agents[kind]);
	while (waitpid(-1, NULL, 0) > 0)
		;
	agent_refusals(&last);
	return 0;
}

static bool is_signed(const unsigned char *hash, size_t n, const unsigned char *signature, size_t len)
{
	br_x509_decoder_context leaf;
	const br_x509_pkey *public;

	br_x509_decoder_init(&leaf, NULL, NULL);
	br_x509_decoder_push(&leaf, keys_current(KEYS_CLIENTS)->chain[0].data, keys_current(KEYS_CLIENTS)->chain[0].data_len);
	public = br_x509_decoder_get_pkey(&leaf);
	return br_ecdsa_vrfy_asn1_get_default()(br_ec_get_default(), hash, n, &public->key.ec, signature, len);
}

static void it_signs_hashes_of_tls_and_nothing_else(void **state)
{
	unsigned char hash[1024], signature[AGENT_SIGNATURE_MAX];
	pid_t last = 0;
	unsigned refused = 0;

	(void)state;
	memset(hash, 7, sizeof hash);
	for (enum keys_pair pair = 0; pair < KEYS_PAIRS; pair += KEYS_UPSTREAM)
		for (size_t n = 0; n < 100; n++) {
			size_t len = agent_sign(pair, hash, n, signature);
			bool strong = n == 32 || n == 48 || n == 64, weak = pair == KEYS_UPSTREAM && (n == 20 || n == 28);

			assert_int_equal(len > 0, strong || weak);
			assert_true(!len || is_signed(hash, n, signature, len));
			refused += !len;
		}
	assert_int_equal(agent_refusals(&last), refused);
	assert_int_equal(last, getpid());
	assert_int_equal(agent_refusals(&last), 0);
}

static void who_starts_it_has_no_key_left(void **state)
{
	(void)state;
	assert_null(keys_secret(KEYS_CLIENTS));
	assert_null(keys_secret(KEYS_UPSTREAM));
	assert_non_null(keys_current(KEYS_CLIENTS));
	assert_false(agent_lacks(AGENT_CLIENTS));
}

static void send_raw(size_t n, const int *descriptor, unsigned count)
{
	static char bytes[70000];
	struct iovec part = { bytes, n };
	char room[CMSG_SPACE(20 * sizeof(int))] = { 0 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(c), descriptor, count * sizeof(int));
	if (!count)
		message.msg_controllen = 0;
	assert_true(sendmsg(agents[AGENT_UPSTREAM].requests, &message, 0) >= 0);
}

static bool gives(const char *host, const char *want)
{
	struct agent_pair pair;

	if (!agent_password(&(struct passwords_server){ host, 25, false }, &pair))
		return false;
	assert_memory_equal(pair.text, want, strlen(want));
	assert_int_equal(pair.user_len + pair.password_len, strlen(want));
	return true;
}

static void a_process_gets_four_lines(void **state)
{
	int how;
	pid_t last, pid;

	(void)state;
	for (unsigned tries = 0; tries < 2; tries++) {
		assert_true(gives("h1", "u1secret1") && gives("H2.", "u2secret2"));
		assert_true(gives("any", "u6secret6") && gives("other", "u6secret6")); /* one line */
		assert_true(gives("h4", "u4secret4"));
		assert_false(gives("h3", ""));
	}
	assert_int_equal(agent_refusals(&last), 2);
	assert_int_equal(last, getpid());
	for (unsigned i = 0; i < 40; i++) { /* others, too */
		pid = fork();
		if (pid == 0)
			_exit(gives("h1", "u1secret1") && gives("h2", "u2secret2") && gives("h3", "u3secret3") && gives("h5", "u5secret5") &&
				      !gives("h4", "") ? 0 : 1);
		assert_int_equal(waitpid(pid, &how, 0), pid);
		assert_int_equal(how, 0);
	}
	assert_false(gives("h3", ""));
}

static void who_starts_it_knows_hosts_and_conditions(void **state)
{
	struct password p;

	(void)state;
	assert_false(passwords_have_secret());
	assert_false(passwords_secret_for(&(struct passwords_server){ "h4", 25, false }, &p));
	assert_true(passwords_for(&(struct passwords_server){ "h4", 25, false }, &p));
	assert_true(p.unverified);
	assert_int_equal(p.pair.user_len, 1);
	assert_int_equal(p.pair.password_len, 1);
}

static void questions_that_are_none(void **state)
{
	struct question q = { .port = 25, .host = "h1" };
	unsigned char answer_room[2000];

	(void)state;
	assert_int_equal(ask(AGENT_PASSWORDS, &q, sizeof q, answer_room, sizeof answer_room), sizeof(struct agent_pair));
	for (size_t n = 0; n < sizeof q; n++)
		assert_int_equal(ask(AGENT_PASSWORDS, &q, n, answer_room, sizeof answer_room), 0);
	memset(&q, 'h', sizeof q);
	assert_int_equal(ask(AGENT_PASSWORDS, &q, sizeof q, answer_room, sizeof answer_room), 0);
}

/* How many this process has; an emulator has some of its own there. */
static unsigned descriptors_of(pid_t pid)
{
	unsigned n = 0;
	char path[64];

	for (unsigned fd = 0; fd < 100; fd++) {
		snprintf(path, sizeof path, "/proc/%d/fd/%u", pid, fd);
		n += access(path, F_OK) == 0;
	}
	return n;
}

/* Without a channel, with many, with files for one; empty and long. */
static void it_goes_on_after_anything(void **state)
{
	static const size_t sizes[] = { 0, 1, 32, 1024, 1025, 70000 };
	unsigned char hash[32] = { 0 }, signature[AGENT_SIGNATURE_MAX];
	int file = open("/dev/null", O_RDWR | O_CLOEXEC), descriptors[20], pipes[2];
	pid_t last, pid = agents[AGENT_UPSTREAM].pid[0];
	unsigned before;

	(void)state;
	assert_true(agent_sign(KEYS_UPSTREAM, hash, sizeof hash, signature) > 0); /* it has come that far */
	before = descriptors_of(pid);
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	for (unsigned i = 0; i < COUNT(descriptors); i++)
		descriptors[i] = i % 2 ? file : pipes[1];
	for (unsigned n = 0; n <= COUNT(descriptors); n++)
		for (size_t i = 0; i < COUNT(sizes); i++)
			send_raw(sizes[i], descriptors, n);
	assert_true(agent_sign(KEYS_UPSTREAM, hash, sizeof hash, signature) > 0);
	assert_int_equal(agents[AGENT_UPSTREAM].pid[0], pid);
	for (unsigned tries = 0; tries < 500 && descriptors_of(pid) > before; tries++)
		poll(NULL, 0, 10); /* it closes the last channel after it has answered */
	assert_true(descriptors_of(pid) <= before);
	assert_true(agent_refusals(&last) > 100);
	close(file);
	close(pipes[0]);
	close(pipes[1]);
}

static void it_ends_at_no_signal_but_sigkill(void **state)
{
	static const int numbers[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1 };
	unsigned char hash[32] = { 0 }, signature[AGENT_SIGNATURE_MAX];
	pid_t pid = agents[AGENT_UPSTREAM].pid[0];
	enum agent_kind kind;

	(void)state;
	assert_true(agent_sign(KEYS_UPSTREAM, hash, sizeof hash, signature) > 0); /* it has come that far; a listener blocks them */
	for (size_t i = 0; i < COUNT(numbers); i++)
		kill(pid, numbers[i]);
	assert_true(agent_sign(KEYS_UPSTREAM, hash, sizeof hash, signature) > 0);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_int_equal(agent_sign(KEYS_UPSTREAM, hash, sizeof hash, signature), 0); /* at once */
	assert_true(agent_ended(pid, &kind));
	assert_int_equal(kind, AGENT_UPSTREAM);
	assert_false(agent_ended(pid, &kind));
	assert_true(agent_lacks(AGENT_UPSTREAM));
	load();
	assert_true(agent_start(AGENT_UPSTREAM, true));
	assert_false(agent_lacks(AGENT_UPSTREAM));
	assert_true(agent_sign(KEYS_UPSTREAM, hash, sizeof hash, signature) > 0);
}

/* One more than there is room for: to receive the message closes it. */
static void connection_that_lingers(void **state)
{
	unsigned char hash[32] = { 0 }, signature[AGENT_SIGNATURE_MAX];
	struct agents *a = &agents[AGENT_UPSTREAM];
	int peer;

	(void)state;
	for (unsigned i = 0; i < a->count; i++)
		held_up(a->pid[i]);
	for (unsigned i = 0; i < a->count; i++)
		pass_among(a->requests, lingering(&peer), 5); /* its peer stays open */
	for (unsigned i = 0; i < a->count; i++)
		kill(a->pid[i], SIGCONT);
	assert_true(agent_sign(KEYS_UPSTREAM, hash, sizeof hash, signature) > 0);
}

/* It takes no requests: nobody waits for it longer than a time. */
static void one_that_hangs_costs_no_more_than_the_time(void **state)
{
	unsigned char hash[32] = { 0 }, signature[AGENT_SIGNATURE_MAX];
	int channel;

	(void)state;
	kill(agents[AGENT_UPSTREAM].pid[0], SIGSTOP);
	channel = requests_send(agents[AGENT_UPSTREAM].requests, hash, sizeof hash, NULL, 0);
	assert_true(channel >= 0);
	setsockopt(channel, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ 0, 1000 }, sizeof(struct timeval));
	assert_true(recv(channel, signature, sizeof signature, 0) < 0 && errno == EAGAIN);
	close(channel);
	kill(agents[AGENT_UPSTREAM].pid[0], SIGCONT); /* the asker is gone by then */
	assert_true(agent_sign(KEYS_UPSTREAM, hash, sizeof hash, signature) > 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_signs_hashes_of_tls_and_nothing_else, start, stop),
		cmocka_unit_test_setup_teardown(who_starts_it_has_no_key_left, start, stop),
		cmocka_unit_test_setup_teardown(a_process_gets_four_lines, start, stop),
		cmocka_unit_test_setup_teardown(who_starts_it_knows_hosts_and_conditions, start, stop),
		cmocka_unit_test_setup_teardown(questions_that_are_none, start, stop),
		cmocka_unit_test_setup_teardown(it_goes_on_after_anything, start, stop),
		cmocka_unit_test_setup_teardown(it_ends_at_no_signal_but_sigkill, start, stop),
		cmocka_unit_test_setup_teardown(connection_that_lingers, start, stop),
		cmocka_unit_test_setup_teardown(one_that_hangs_costs_no_more_than_the_time, start, stop),
	};
	int failed;

	write_file(password_file, LINES);
	write_file(cert_file, CERT);
	write_file(key_file, KEY);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(password_file);
	unlink(cert_file);
	unlink(key_file);
	return failed;
}
