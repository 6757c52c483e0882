/* Files of variables, as systemd reads them. test_systemd.py compares them with the real one. */
#include "test/lib/unit.h"

#include "pure/envfile.h"

#define MOST 3

/* The variables, each in <>, or "LINE: why". */
static const char *read_text(const char *text, size_t n)
{
	static char seen[400];
	char *variables[MOST + 1], bytes[200];
	struct envfile f = { .variables = variables, .most = MOST };
	size_t len = 0;

	memcpy(bytes, text, n);
	seen[0] = 0;
	if (!envfile_read(&f, bytes, n)) {
		snprintf(seen, sizeof seen, "%u: %.12s", f.line, f.why);
		return seen;
	}
	assert_null(variables[f.count]);
	for (size_t i = 0; i < f.count; i++)
		len += (size_t)snprintf(seen + len, sizeof seen - len, "<%s>", variables[i]);
	return seen;
}

static void files(void **state)
{
	static const struct {
		const char *text, *want;
	} rows[] = {
		{ "", "" }, { "\n \t\r\n", "" }, { "A=1", "<A=1>" }, { "A=1\nB=2\n", "<A=1><B=2>" }, { "A=1\r\nB=2\r\n", "<A=1><B=2>" },
		{ "  A =  1 2 \t\n", "<A=1 2>" }, { "A=\n", "<A=>" }, { "A=a=b\n", "<A=a=b>" }, { "A=1\nB=2\nA=3\n", "<A=3><B=2>" },
		{ "# x\n;y=1\n#\nA=# no comment\n", "<A=# no comment>" }, { "A=^(a|b)$\n", "<A=^(a|b)$>" },
		{ "A=a\\\\b\\\"c\\\n d\\ \n", "<A=a\\b\"c d >" },
		{ "A='a \"\\ b'\n", "<A=a \"\\ b>" }, { "A=\"a 'b\\\"\\$\\`\\\\\\n\\\nc\"\n", "<A=a 'b\"$`\\\\nc>" },
		{ "A=\"a \"  'b'c d\n", "<A=a bc d>" }, { "A=a\"b\"'c'\n", "<A=a\"b\"'c'>" }, { "A='1\n2'\n", "<A=1\n2>" },
		{ "A=\"\" \n", "<A=>" }, { "_9=x\n", "<_9=x>" }, { "AB=1\nA=2\n", "<AB=1><A=2>" },
		{ "A=1\nexport B=2\n", "2: what stands before =" }, { "9=1\n", "1: what stands before =" }, { "=1\n", "1: a line without = is " },
		{ "A=1\n\nB\nC=1", "3: a line without = is " }, { "B", "1: a line without = is " },
		{ "# x \\\nA=1\n", "1: behind a comment that" }, { "# \\x\nA=1\n", "<A=1>" },
		{ "A=1\nB='x\n", "2: the value goes on" }, { "B=\"x\\", "1: the value goes on" }, { "A=x\\", "1: the value goes on" },
		{ "A=1\nB=1\nC=1\nB=2\n", "<A=1><B=2><C=1>" }, { "A=1\nB=1\nC=1\nD=2\n", "4: there are too many " },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		char want[100];
		const char *colon = strstr(rows[i].want, ": ");

		snprintf(want, sizeof want, "%.*s", colon ? (int)(colon - rows[i].want) + 14 : 99, rows[i].want);
		expect_text(rows[i].text, read_text(rows[i].text, strlen(rows[i].text)), want);
	}
	expect_text("NUL", read_text("A=1\nB=\0\n", 8), "2: there is a N");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(files) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
