#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include "test/lib/cross/cmocka.h"

static jmp_buf *failed;

void cross_fail(const char *file, int line, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n%s:%d\n", file, line);
	longjmp(*failed, 1);
}

/* Whether the test passed. A test may run others by itself. */
static int run(const struct CMUnitTest *test, void *state)
{
	jmp_buf here, *outer = failed;
	volatile int passed = 0;

	failed = &here;
	if (setjmp(here) == 0) {
		if (test->setup_func && test->setup_func(&state) != 0)
			cross_fail(__FILE__, __LINE__, "setup");
		test->test_func(&state);
		if (test->teardown_func && test->teardown_func(&state) != 0)
			cross_fail(__FILE__, __LINE__, "teardown");
		passed = 1;
	}
	failed = outer;
	return passed;
}

int _cmocka_run_group_tests(const char *group, const struct CMUnitTest *tests, size_t n, int (*setup)(void **), int (*teardown)(void **))
{
	void *state = NULL;
	int passed = 0, wrong = (setup && setup(&state) != 0);

	for (size_t i = 0; i < n; i++) {
		if (run(&tests[i], tests[i].initial_state ? tests[i].initial_state : state))
			passed++;
		else
			printf("[  FAILED  ] %s\n", tests[i].name);
	}
	wrong += (teardown && teardown(&state) != 0);
	printf("[  PASSED  ] %d test(s) of %s\n", passed, group);
	return (int)n - passed + wrong;
}
