/* As much of cmocka as the unit tests use, for machines whose libcmocka is not here (make cross-units). */
#ifndef CROSS_CMOCKA_H
#define CROSS_CMOCKA_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct CMUnitTest {
	const char *name;
	void (*test_func)(void **state);
	int (*setup_func)(void **state), (*teardown_func)(void **state);
	void *initial_state;
};

#define cmocka_unit_test(f) { #f, f, NULL, NULL, NULL }
#define cmocka_unit_test_setup_teardown(f, setup, teardown) { #f, f, setup, teardown, NULL }
#define cmocka_run_group_tests(tests, setup, teardown) \
	_cmocka_run_group_tests(#tests, tests, sizeof(tests) / sizeof *(tests), setup, teardown)

/* The number of tests that failed. */
int _cmocka_run_group_tests(const char *group, const struct CMUnitTest *tests, size_t n, int (*setup)(void **), int (*teardown)(void **));

/* Says what was wrong and ends the test. */
__attribute__((noreturn, format(printf, 3, 4))) void cross_fail(const char *file, int line, const char *format, ...);

#define _fail(file, line) cross_fail(file, line, "failed")
#define print_error printf
#define fail_msg(...) cross_fail(__FILE__, __LINE__, __VA_ARGS__)
#define assert_true(a) ((a) ? (void)0 : fail_msg("%s is not true", #a))
#define assert_false(a) assert_true(!(a))
#define assert_null(a) assert_true(!(a))
#define assert_non_null(a) assert_true(a)
#define assert_ptr_equal(a, b) assert_true((const void *)(a) == (const void *)(b))
#define assert_int_equal(a, b) cross_equal(__FILE__, __LINE__, #a, (uintmax_t)(a), (uintmax_t)(b))
#define assert_in_range(a, low, high) assert_true((uintmax_t)(a) >= (uintmax_t)(low) && (uintmax_t)(a) <= (uintmax_t)(high))
#define assert_string_equal(a, b) cross_same(__FILE__, __LINE__, a, b)
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)

static inline void cross_equal(const char *file, int line, const char *name, uintmax_t a, uintmax_t b)
{
	if (a != b)
		cross_fail(file, line, "%s is %#jx instead of %#jx", name, a, b);
}

static inline void cross_same(const char *file, int line, const char *a, const char *b)
{
	if (strcmp(a, b) != 0)
		cross_fail(file, line, "\"%s\" instead of \"%s\"", a, b);
}

#endif
