/* The file of --state: what is taken and what is refused, and the gauge of sessions that are killed. */
#define _GNU_SOURCE
#include "io/statefile.h"
#include "test/lib/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[] = "/tmp/statefile.XXXXXX", file[64], why[STATEFILE_WHY];

static int make_dir(void **state)
{
	(void)state;
	strcpy(dir + sizeof dir - 7, "XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(file, sizeof file, "%s/state.1", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	unlink(file);
	return rmdir(dir);
}

static struct statemap *used(void)
{
	return statefile_use(file, why) ? statefile_current() : NULL;
}

static void made_and_shared(void **state)
{
	struct statemap *m = used(), *again;
	const struct statemap *view;
	struct stat st;
	int fd;

	(void)state;
	assert_non_null(m);
	statemap_add(m->total, 3);
	again = used();
	assert_non_null(again);
	assert_int_equal(statemap_get(again->total), 3);
	view = statefile_view(file, &fd, why);
	assert_int_equal(statemap_get(view->total), 3);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	assert_true(st.st_blocks * 512 >= (long)sizeof *m); /* no page is missing */
	close(fd);
}

static void is_refused(const char *reason)
{
	why[0] = 0;
	assert_false(statefile_use(file, why));
	assert_non_null(strstr(why, reason));
}

static void write_file(size_t n)
{
	int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0640);

	assert_int_equal(ftruncate(fd, (off_t)n), 0);
	close(fd);
}

static void what_is_refused(void **state)
{
	(void)state;
	write_file(0);
	is_refused("no state of this version");
	write_file(sizeof(struct statemap));
	is_refused("no state of this version");
	write_file(sizeof(struct statemap) + 1);
	is_refused("no state of this version");
	unlink(file);
	assert_int_equal(symlink("/dev/zero", file), 0);
	is_refused(strerror(ELOOP));
	unlink(file);
	assert_int_equal(mkfifo(file, 0640), 0);
	is_refused("no state of this version");
	unlink(file);
	assert_true(statefile_use(file, why));
	chmod(file, 0666);
	is_refused("others may write");
	if (geteuid() == 0) {
		chmod(file, 0640);
		assert_int_equal(chown(file, 12345, 0), 0);
		is_refused("belongs to another user");
	}
	snprintf(file, sizeof file, "%s/no/state.1", dir);
	is_refused(strerror(ENOENT));
	snprintf(file, sizeof file, "%s/state.1", dir);
}

/* In a mount namespace of its own. */
static void full_file_system(void **state)
{
	pid_t child = fork();
	int how;

	(void)state;
	if (child == 0) {
		if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		    mount("tmpfs", dir, "tmpfs", 0, "size=1m") < 0)
			_exit(geteuid() == 0 ? 1 : 0);
		_exit(statefile_use(file, why) || !strstr(why, strerror(ENOSPC)) || access(file, F_OK) == 0);
	}
	waitpid(child, &how, 0);
	assert_int_equal(how, 0);
}

enum { SESSIONS = 200 };

static void sessions(void **state)
{
	pid_t child[SESSIONS];
	int ready[2], fd;
	char one;

	(void)state;
	assert_true(statefile_use(file, why));
	assert_non_null(statefile_view(file, &fd, why));
	assert_int_equal(pipe(ready), 0);
	assert_int_equal(statefile_sessions(fd), 0);
	for (unsigned i = 0; i < SESSIONS; i++) {
		child[i] = fork();
		if (child[i] == 0) {
			statefile_enter();
			assert_int_equal(write(ready[1], "x", 1), 1);
			pause();
		}
	}
	for (unsigned i = 0; i < SESSIONS; i++)
		assert_int_equal(read(ready[0], &one, 1), 1);
	assert_int_equal(statefile_sessions(fd), SESSIONS);
	for (unsigned i = 0; i < SESSIONS; i++) {
		kill(child[i], SIGKILL);
		waitpid(child[i], NULL, 0);
		if (i % 20 == 0)
			assert_int_equal(statefile_sessions(fd), SESSIONS - i - 1);
	}
	assert_int_equal(statefile_sessions(fd), 0);
	close(fd);
}

/* Sessions that make the file at the same time have one. */
static void made_at_once(void **state)
{
	int fd, how;

	(void)state;
	for (unsigned i = 0; i < 20; i++)
		if (fork() == 0) {
			struct statemap *m = used();

			if (m)
				statemap_add(m->total, 1);
			_exit(!m);
		}
	for (unsigned i = 0; i < 20; i++) {
		wait(&how);
		assert_int_equal(how, 0);
	}
	assert_int_equal(statemap_get(statefile_view(file, &fd, why)->total), 20);
	close(fd);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
	const struct CMUnitTest tests[] = {
		TEST(made_and_shared), TEST(what_is_refused), TEST(full_file_system), TEST(sessions), TEST(made_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
