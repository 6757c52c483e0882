/* Lists of TLS policies: what their file may say, and which line is a domain's. */
#include "test/lib/unit.h"

#include "pure/policylist.h"

static struct policylist *fresh(void)
{
	static union {
		struct policylist list;
		unsigned char bytes[POLICYLIST_MAX];
	} room;

	room.list = (struct policylist){ .used = 0 };
	return &room.list;
}

static const char *add(struct policylist *list, const char *text, unsigned *line)
{
	return policylist_add(list, (const char *)guarded(text, strlen(text)), strlen(text), line);
}

static const char *found(const struct policylist *list, const char *domain)
{
	static char text[POLICYLIST_LINE_MAX + 1];
	const char *at;
	size_t n;

	if (!policylist_find(list, domain, &at, &n))
		return "none";
	memcpy(text, at, n);
	text[n] = 0;
	return text;
}

static void domains(void **state)
{
	static const char file[] = "# our partners\n"
				   "example.org may\n"
				   "\n"
				   ".example.org encrypt\n"
				   ".deep.example.org\tverify match=a.example \t\r\n"
				   "Upper.Example   secure match=nexthop\n"
				   "example.org none\n"
				   "[192.0.2.1] none\n"
				   "[relay.example]:587 secure\n"
				   "B\xc3\xbc" "cher.example secure\n.b\xc3\xbc" "cher.example encrypt\n"
				   "last.example dane-only";
	static const char *const known[][2] = {
		{ "example.org", "may" },
		{ "EXAMPLE.org", "may" },
		{ "example.org.", "may" },
		{ "a.example.org", "encrypt" },
		{ "a.b.example.org", "encrypt" },
		{ "deep.example.org", "encrypt" },
		{ "a.deep.example.org", "verify match=a.example" },
		{ "a.b.deep.example.org", "verify match=a.example" },
		{ "adeep.example.org", "encrypt" },
		{ "xexample.org", "none" },
		{ "xn--bcher-kva.example", "secure" },
		{ "a.xn--bcher-kva.example", "encrypt" },
		{ "org", "none" },
		{ "", "none" },
		{ ".", "none" },
		{ "upper.example", "secure match=nexthop" },
		{ "a.upper.example", "none" },
		{ "[192.0.2.1]", "none" },
		{ "last.example", "dane-only" },
	};
	struct policylist *list = fresh();
	unsigned line;

	(void)state;
	assert_null(add(list, file, &line));
	assert_int_equal(list->count, 10);
	assert_true(list->wants_dane);
	for (size_t i = 0; i < COUNT(known); i++)
		expect_text(known[i][0], found(list, known[i][0]), known[i][1]);
	list = fresh();
	assert_null(add(list, "dane.example encrypt\n", &line));
	assert_false(list->wants_dane);
	assert_false(list->wants_server);
	assert_null(add(list, "a.example secure\nb.example verify match=nexthop\nc.example encrypt\n", &line));
	assert_false(list->wants_server);
	assert_null(add(list, "d.example verify\n", &line));
	assert_true(list->wants_server);
	list = fresh();
	assert_null(add(list, "d.example secure match=hostname\n", &line));
	assert_true(list->wants_server);
	assert_null(add(fresh(), "", &line));
	expect_text("no file", found(fresh(), "example.org"), "none");
}

/* Comments may stand between the lines that belong together. */
static void continued(void **state)
{
	static const char file[] = "example.org\n"
				   "\tsecure\n"
				   "# in between\n"
				   "   # and here\n"
				   "\n"
				   "  match=a.example\r\n"
				   "  { policy_string =\n"
				   "  version: STSv1 }\n"
				   "example.net may\n";
	struct policylist *list = fresh();
	unsigned line;

	(void)state;
	assert_null(add(list, file, &line));
	expect_text("joined", found(list, "example.org"), "secure match=a.example { policy_string = version: STSv1 }");
	expect_text("the next", found(list, "example.net"), "may");
}

static void faults(void **state)
{
	static const char domain[] = "a line begins with a recipient's domain, or a dot and a domain, "
				     "without *, @, a comma, colon or slash; one that is not ASCII in lower case";
	static const char level[] = "a policy begins with none, may, encrypt, dane, dane-only, fingerprint, verify or secure";
	static const struct {
		const char *file, *why;
		unsigned line;
	} known[] = {
		{ " may\n", "a line that begins with a blank continues one before it, and there is none", 1 },
		{ "# a comment\n\n may", "a line that begins with a blank continues one before it, and there is none", 3 },
		{ "*.example.org may\n", domain, 1 },
		{ ". may\n", domain, 1 },
		{ "bob@example.org may\n", domain, 1 },
		{ "example.org:25 may\n", domain, 1 },
		{ "example.org: may\n", domain, 1 },
		{ "a.example, may\n", domain, 1 },
		{ "B\xc3\x9c" "CHER.example may\n", domain, 1 },
		{ ".\xff.example may\n", domain, 1 },
		{ "example.org\n", level, 1 },
		{ "a.example may\nexample.org mandatory\nb.example may\n", level, 2 },
		{ "a.example may\nexample.org\n  mandatory\n", level, 2 },
		{ "a.example may\n\nb.example secure match\nc.example nonsense\n", "an attribute is NAME=VALUE", 3 },
		{ "a.example may\nb.example secure { x = y\nc.example may }\n", "a { has no }", 2 },
	};
	static char file[POLICYLIST_LINE_MAX + 40];
	unsigned line;

	(void)state;
	for (size_t i = 0; i < COUNT(known); i++) {
		expect_text(known[i].file, add(fresh(), known[i].file, &line), known[i].why);
		assert_int_equal(line, known[i].line);
	}
	strcpy(file, "a.example may\nb.example may x=");
	memset(file + strlen(file), 'y', POLICYLIST_LINE_MAX - 17);
	assert_null(add(fresh(), file, &line));
	strcat(file, "y");
	expect_text("too long", add(fresh(), file, &line), "the line is too long");
	assert_int_equal(line, 2);
}

/* What is in the block stays when no more fits. */
static void many(void **state)
{
	static char text[1 << 20];
	struct policylist *list = fresh();
	const char *why;
	unsigned line, times = 0;

	(void)state;
	for (size_t n = 0; n + 40 < sizeof text;)
		n += (size_t)sprintf(text + n, "d%u.example secure match=%u.example\n", times, times), times++;
	assert_null(policylist_add(list, text, strlen(text), &line));
	assert_int_equal(list->count, times);
	expect_text("one of many", found(list, "d4711.example"), "secure match=4711.example");
	for (times = 0; times < 10; times++) {
		why = policylist_add(list, text, strlen(text), &line);
		if (why)
			break;
	}
	expect_text("full", why, "too many policies");
	while ((POLICYLIST_MAX - sizeof *list - list->used) % 8 < 4) /* 9 octets each, then 8: half of the last one would fit */
		assert_null(add(list, "a none\n", &line));
	while (!add(list, "a may\n", &line))
		;
	assert_true(list->used <= POLICYLIST_MAX - sizeof *list && POLICYLIST_MAX - sizeof *list - list->used < 8);
	expect_text("as before", found(list, "d4711.example"), "secure match=4711.example");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(domains),
		cmocka_unit_test(continued),
		cmocka_unit_test(faults),
		cmocka_unit_test(many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
