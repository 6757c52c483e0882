/* Programs as hooks of the session fuzzer: what one does as a data hook, well or badly. At other events it accepts, or says what the seed
 * wants at all of them. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MESSAGE 3
#define LONGEST 65536 /* octets of a verdict, smtpwarp-hooks(7) */

static void say(const char *text)
{
	for (size_t n = strlen(text), at = 0; at < n;) {
		ssize_t wrote = write(STDOUT_FILENO, text + at, n - at);

		if (wrote <= 0)
			return;
		at += (size_t)wrote;
	}
}

static off_t message_octets(void)
{
	return lseek(MESSAGE, 0, SEEK_END);
}

/* So many octets of the message, from its beginning. */
static void copy(off_t octets)
{
	static char part[5000];
	ssize_t n = 1;

	lseek(MESSAGE, 0, SEEK_SET);
	for (off_t left = octets; left > 0 && n > 0; left -= n) {
		n = read(MESSAGE, part, left < (off_t)sizeof part ? (size_t)left : sizeof part);
		for (ssize_t at = 0, wrote; at < n; at += wrote)
			if ((wrote = write(STDOUT_FILENO, part + at, (size_t)(n - at))) <= 0)
				_exit(4);
	}
}

static int give_back(void)
{
	say("replace-message\n");
	copy(message_octets());
	return 0;
}

/* The program is over before the message is. */
static int leave_writer(void)
{
	say("log key3 child\nreplace-message\n");
	if (fork())
		return 0;
	usleep(2000);
	copy(message_octets());
	_exit(0);
}

/* It reads on at the position that it shares with its parent, while the next hooks run. */
static int leave_reader(void)
{
	char part[100];

	if (fork()) {
		say("accept\n");
		return 0;
	}
	for (int fd = 0; fd < 3; fd++)
		close(fd);
	for (int i = 0; i < 300; i++)
		if (read(MESSAGE, part, sizeof part) <= 0)
			lseek(MESSAGE, 0, SEEK_SET);
	_exit(0);
}

static int count(off_t more)
{
	char line[60];
	off_t octets = message_octets();

	snprintf(line, sizeof line, "replace-message %lld\n", (long long)(octets + more < 0 ? octets + 1 : octets + more));
	say(line);
	copy(octets);
	return 0;
}

static int count_right(void)
{
	return count(0);
}

static int count_too_many(void)
{
	return count(1);
}

static int count_too_few(void)
{
	return count(-1);
}

static int die_within(void)
{
	say("replace-message\n");
	copy(message_octets() / 2);
	raise(SIGKILL);
	return 0;
}

static int fail_behind(void)
{
	give_back();
	return 3;
}

static void say_lines(size_t octets)
{
	static const char line[] = "log key4 0123456789\n";

	for (size_t said = 0; said + sizeof line - 1 <= octets; said += sizeof line - 1)
		say(line);
}

static int longest_verdict(void)
{
	say_lines(LONGEST - 200);
	return give_back();
}

static int too_long(void)
{
	say_lines(LONGEST + 4000);
	say("accept\n");
	return 0;
}

static int say_more(void)
{
	say("accept\nreject 550 5.7.1 No\nnonsense\n");
	say_lines(20000);
	return 0;
}

static int complain(void)
{
	static char text[5000];

	memset(text, 'e', sizeof text);
	for (int i = 0; i < 200; i++)
		if (write(STDERR_FILENO, text, sizeof text) < 0)
			break;
	say("accept\n");
	return 0;
}

static int close_all(void)
{
	say("accept\n");
	for (int fd = 0; fd < 10; fd++)
		close(fd);
	return 0;
}

/* What it has of the message is not to be changed by it, in no way. */
static int scribble(void)
{
	void *map = mmap(NULL, 10, PROT_READ | PROT_WRITE, MAP_SHARED, MESSAGE, 0);
	int fd = open("/proc/self/fd/3", O_RDWR);
	bool done = pwrite(MESSAGE, "X", 1, 0) > 0 || ftruncate(MESSAGE, 0) == 0 || map != MAP_FAILED;

	if (fd >= 0)
		done = pwrite(fd, "X", 1, 0) > 0 || ftruncate(fd, 0) == 0 || ftruncate(fd, 100000) == 0 || done;
	if (fd >= 0 && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 10) == 0)
		done = true;
	say(done ? "nonsense\n" : "accept\n");
	return 0;
}

static int be_slow(void)
{
	say("replace-message\n");
	pause();
	return 0;
}

static int kill_group(void)
{
	say("accept\n");
	kill(0, SIGKILL);
	return 0;
}

static const struct program {
	int (*run)(void);
	bool fails;
} programs[PROGRAMS] = {
	{ give_back, false },
	{ leave_writer, false },
	{ leave_reader, false },
	{ count_right, false },
	{ count_too_many, true },
	{ count_too_few, true },
	{ die_within, true },
	{ fail_behind, true },
	{ longest_verdict, false },
	{ too_long, true },
	{ say_more, false },
	{ complain, false },
	{ close_all, false },
	{ scribble, false },
	{ kill_group, true },
	{ be_slow, true },
};

bool program_fails(int number)
{
	return programs[number].fails;
}

/* Started by smtpwarp as a hook: FUZZ_VERDICT is a verdict, EXIT, or RUN and the number of a program. */
int hook_main(void)
{
	const char *verdict = getenv("FUZZ_VERDICT");
	char line[65536];
	size_t len = 0;
	ssize_t n;

	while ((n = read(STDIN_FILENO, line + len, sizeof line - len)) > 0)
		if ((len += (size_t)n) == sizeof line)
			len = sizeof line / 2;
	if (!verdict || strcmp(verdict, "EXIT") == 0)
		return 3;
	if (strncmp(verdict, "RUN ", 4) != 0) {
		say(verdict);
		return 0;
	}
	if (!memmem(line, len, "\"event\":\"data\"", 14))
		return 0;
	return programs[atoi(verdict + 4) % PROGRAMS].run();
}
