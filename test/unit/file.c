/* Files and pipes, read and written whole, and line by line. */
#include "test/lib/unit.h"

#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static struct text said;

static void reads(void **state)
{
	char out[8] = "";
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(write(ends[1], "abcdef", 6), 6);
	assert_int_equal(file_read(ends[0], out, 4), 4);
	assert_memory_equal(out, "abcd", 5);
	assert_int_equal(file_read(ends[0], out, 0), 0);
	close(ends[1]);
	assert_int_equal(file_read(ends[0], out, sizeof out), 2);
	assert_memory_equal(out, "efcd", 4);
	assert_int_equal(file_read(ends[0], out, sizeof out), -1);
	assert_int_equal(errno, ENODATA);
	close(ends[0]);
	errno = 0;
	assert_int_equal(file_read(ends[0], out, sizeof out), -1);
	assert_int_equal(errno, EBADF);
}

static void on_alarm(int number)
{
	(void)number;
}

/* A pipe takes what it has room for; alarms break off the wait for more, and the write with it. */
static void writes(void **state)
{
	static char first[70000], second[70000], out[150000];
	struct iovec parts[] = { { first, 0 }, { first, sizeof first }, { NULL, 0 }, { second, sizeof second }, { second, 0 } };
	int ends[2], status;
	pid_t child;

	(void)state;
	memset(first, '1', sizeof first);
	memset(second, '2', sizeof second);
	assert_int_equal(pipe(ends), 0);
	child = fork();
	if (child == 0) {
		struct sigaction action = { .sa_handler = on_alarm };
		struct itimerval often = { { 0, 100 }, { 0, 100 } };

		close(ends[0]);
		sigaction(SIGALRM, &action, NULL);
		setitimer(ITIMER_REAL, &often, NULL);
		_exit(!file_write(ends[1], parts, COUNT(parts)));
	}
	close(ends[1]);
	for (size_t at = 0; at < sizeof out; at += 1000)
		if (file_read(ends[0], out + at, 1000) < 1000) {
			assert_int_equal(at, sizeof first + sizeof second);
			break;
		}
	assert_int_equal(wait(&status), child);
	assert_int_equal(status, 0);
	assert_memory_equal(out, first, sizeof first);
	assert_memory_equal(out + sizeof first, second, sizeof second);
	close(ends[0]);
}

static void writes_that_fail(void **state)
{
	char bytes[1000] = "";
	struct iovec part = { bytes, sizeof bytes }, nothing = { bytes, 0 };
	int full = open("/dev/full", O_WRONLY);

	(void)state;
	assert_true(full >= 0);
	assert_false(file_write(full, &part, 1));
	assert_int_equal(errno, ENOSPC);
	assert_true(file_write(full, &nothing, 1));
	assert_true(file_write(-1, NULL, 0));
	close(full);
}

static void note_line(void *arg, char *line)
{
	(void)arg;
	say(&said, "%.20s|", line);
}

static const char *lines_of(const void *bytes, size_t n, size_t times)
{
	static char path[] = "/tmp/unit_file_XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	for (size_t i = 0; i < times; i++)
		assert_int_equal(write(fd, bytes, n), (ssize_t)n);
	clear(&said);
	say(&said, "|");
	file_lines(path, note_line, NULL);
	unlink(path);
	close(fd);
	strcpy(path + sizeof path - 7, "XXXXXX");
	return said.bytes;
}

/* Of files: whole lines only, whatever their length. */
static void lines(void **state)
{
	static char text[20000];

	(void)state;
	clear(&said);
	file_lines("/nonexistent", note_line, NULL);
	file_lines("/", note_line, NULL);
	assert_int_equal(said.len, 0);
	expect_text("empty", lines_of("", 0, 1), "|");
	expect_text("two", lines_of("a\nb\n", 4, 1), "|a|b|");
	expect_text("no end", lines_of("a\n\nb", 4, 1), "|a||b|");
	expect_text("NUL", lines_of("a\0b\nc", 5, 1), "|a|c|");
	for (size_t n = 4080; n < 4110; n++) { /* 4094 octets and a line end is the longest that is taken */
		memset(text, 'x', n);
		memcpy(text + n, "\nlast", 5);
		expect_text("long", lines_of(text, n + 5, 1), n <= 4094 ? "|xxxxxxxxxxxxxxxxxxxx|last|" : "|last|");
		expect_text("long, last", lines_of(text, n, 1), n <= 4094 ? "|xxxxxxxxxxxxxxxxxxxx|" : "|");
	}
	memset(text, 'x', sizeof text);
	memcpy(text + 15000, "\nnext\n", 6);
	expect_text("very long", lines_of(text, 15006, 1), "|next|");
	expect_text("without end", lines_of(text, 15000, 2000), "|");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(reads), cmocka_unit_test(writes), cmocka_unit_test(writes_that_fail),
		cmocka_unit_test(lines) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
