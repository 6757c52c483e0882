/* The file of --tls-policy: what it says is in use until another one can be read. */
#define _GNU_SOURCE
#include "io/policyfile.h"
#include "test/lib/unit.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static char file[] = "/tmp/policyfile.XXXXXX", why[200];

static void put(const char *text, size_t n)
{
	FILE *f = fopen(file, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, n, f), n);
	fclose(f);
}

static bool load(const char *text)
{
	*why = 0;
	put(text, strlen(text));
	return policyfile_load(file, why, sizeof why);
}

static const char *level_of(const char *domain)
{
	static struct tlspolicy p;

	return policyfile_find(domain, &p) ? tlspolicy_level_name(p.level) : "not found";
}

static void read_again(void **state)
{
	static const char level[] = "a policy begins with none, may, encrypt, dane, dane-only, fingerprint, verify or secure";
	char want[200];

	(void)state;
	expect_text("no file yet", level_of("example.org"), "not found");
	assert_false(policyfile_loaded());
	assert_true(load("example.org secure match=nexthop\n"));
	expect_text("read", level_of("example.org"), "secure");
	assert_true(policyfile_loaded());
	assert_false(load("# one\nexample.org must\n"));
	snprintf(want, sizeof want, "--tls-policy %s: line 2: %s", file, level);
	expect_text("fault", why, want);
	expect_text("as before", level_of("example.org"), "secure");
	assert_true(load("example.net may\n"));
	expect_text("gone", level_of("example.org"), "not found");
	expect_text("new", level_of("example.net"), "may");
	assert_true(load(""));
	expect_text("empty", level_of("example.net"), "not found");
}

static void cannot_be_read(void **state)
{
	static char large[1 << 20];

	(void)state;
	memset(large, '\n', sizeof large);
	put(large, sizeof large);
	assert_false(policyfile_load(file, why, sizeof why));
	assert_non_null(strstr(why, ": it is larger than 1 MB"));
	put(large, sizeof large - 1);
	assert_true(policyfile_load(file, why, sizeof why));
	assert_false(policyfile_load("/nowhere/policy", why, sizeof why));
	expect_text("missing", why, "--tls-policy /nowhere/policy: No such file or directory");
}

/* Processes that are forked have it. */
static void shared(void **state)
{
	int status;
	pid_t child;

	(void)state;
	assert_true(load("example.org encrypt\n"));
	child = fork();
	if (child == 0)
		_exit(strcmp(level_of("example.org"), "encrypt") == 0 ? 0 : 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static int make_file(void **state)
{
	int fd = mkstemp(file);

	(void)state;
	return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(read_again),
		cmocka_unit_test(cannot_be_read),
		cmocka_unit_test(shared),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
