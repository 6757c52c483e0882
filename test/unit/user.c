/* The user of --user, by name and by number, with a passwd(5) and group(5) of the test's own; and what becoming it takes on. */
#define _GNU_SOURCE
#include "io/user.h"
#include "test/lib/unit.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Put a file of this text over the path, for this process alone. */
static bool cover(const char *path, const char *text)
{
	char name[] = "/tmp/unit_user.XXXXXX";
	int fd = mkstemp(name);
	bool good = fd >= 0 && fchmod(fd, 0644) == 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) &&
	    mount(name, path, NULL, MS_BIND, NULL) == 0;

	close(fd);
	unlink(name);
	return good;
}

static int begin(void **state)
{
	(void)state;
	return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	    cover("/etc/passwd", "mail:x:1001:2001::/:/bin/false\n007:x:1007:2007::/:/bin/false\n") &&
	    cover("/etc/group", "mail:x:2001:\nmore:x:2002:mail\nothers:x:2003:007\n") ? 0 : -1;
}

static void test_found(void **state)
{
	static const struct {
		const char *text;
		struct user want;
	} rows[] = {
		{ "mail", { 1001, 2001, "mail" } },
		{ "1001", { 1001, 2001, "mail" } },
		{ "1001:5", { 1001, 5, NULL } },
		{ "007", { 1007, 2007, "007" } }, /* a name comes first, as in chown(1) */
		{ "65532", { 65532, 65532, NULL } },
		{ "65532:0", { 65532, 0, NULL } },
		{ "4294967294:4294967294", { 4294967294, 4294967294, NULL } },
	};
	struct user u;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		if (!user_find(&u, rows[i].text))
			fail_msg("%s is not found", rows[i].text);
		expect_text(rows[i].text, u.name ? u.name : "", rows[i].want.name ? rows[i].want.name : "");
		assert_int_equal(u.uid, rows[i].want.uid);
		assert_int_equal(u.gid, rows[i].want.gid);
	}
}

static void test_not_found(void **state)
{
	static const char *const rows[] = { "no-such-user", "", ":", ":5", "5:", "-1", "+5", " 5", "5 ", "5x", "0x5", "5:x", "5:-1", "5:6:7",
		"mail:5", "4294967295", "4294967296", "5:4294967295", "18446744073709551621", "99999999999999999999999999" };
	struct user u;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		if (user_find(&u, rows[i]))
			fail_msg("\"%s\" is found: %u:%u", rows[i], u.uid, u.gid);
}

/* The groups of the process that became this user, after its uid and gid. */
static void expect_become(const char *text, const char *want)
{
	int ends[2], how;
	char got[200];
	ssize_t n;

	assert_int_equal(pipe(ends), 0);
	if (fork() == 0) {
		gid_t groups[8];
		struct user u;
		int count, good = user_find(&u, text) && setgroups(1, &(gid_t){ 99 }) == 0 && user_become(&u) == 0;

		count = good ? getgroups(COUNT(groups), groups) : 0;
		dprintf(ends[1], "%s %u:%u", good ? "became" : "failed", getuid(), getgid());
		for (int i = 0; i < count; i++)
			dprintf(ends[1], " %u", groups[i]);
		_exit(setuid(0) == 0);
	}
	wait(&how);
	n = read(ends[0], got, sizeof got - 1);
	got[n > 0 ? n : 0] = 0;
	expect_text(text, got, want);
	assert_int_equal(how, 0);
	close(ends[0]);
	close(ends[1]);
}

static void test_become(void **state)
{
	(void)state;
	expect_become("mail", "became 1001:2001 2001 2002");
	expect_become("1001", "became 1001:2001 2001 2002");
	expect_become("1001:2001", "became 1001:2001");
	expect_become("65532", "became 65532:65532");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found),
		cmocka_unit_test(test_not_found),
		cmocka_unit_test(test_become),
	};

	return cmocka_run_group_tests(tests, begin, NULL);
}
