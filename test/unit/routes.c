#define _GNU_SOURCE
/* Unit tests of routes.c: each line ends at a PROT_NONE page; each lookup is made in the file read through, and again, the
 * file being large, through an index. */
#include "test/lib/unit.h"

#include "io/routes.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct text got;
static char why[600];

/* ---- a line ---- */

struct line_row {
	struct input in;
	const char *want;
};

static const struct line_row lines[] = {
	{ IN("a.example;mx.example;true\n"), "[a.example] [mx.example] [true]" },
	{ IN("a.example;mx.example;true\r\n"), "[a.example] [mx.example] [true]" },
	{ IN("a.example;mx.example;true"), "[a.example] [mx.example] [true]" },
	{ IN(" \ta.example ;\tmx.example:25 ;  verify mx.example\t \n"), "[a.example] [mx.example:25] [verify mx.example]" },
	{ IN("a.example;mx.example"), "[a.example] [mx.example] []" },
	{ IN("a.example;mx.example;"), "[a.example] [mx.example] []" },
	{ IN("*;[2001:db8::1]:2525;none"), "[*] [[2001:db8::1]:2525] [none]" },
	{ IN(".example;a, b c;"), "[.example] [a, b c] []" },
	{ IN("a@[IPv6:2001:db8::1];b"), "[a@[IPv6:2001:db8::1]] [b] []" },
	{ IN("\"a;b c\"@d;e"), "[\"a;b c\"@d] [e] []" },
	{ IN("\"a@;\\\";b\"@d;e"), "[\"a@;\\\";b\"@d] [e] []" },
	{ IN("a;b;c;d"), "[a] [b] [c]" },
	{ IN("a;b;c;\"d"), "[a] [b] [c]" },
	{ IN("\357\273\277a.example;mx.example"), "[a.example] [mx.example] []" },
	{ IN("\357\273\277 \"a.example\";mx.example"), "[a.example] [mx.example] []" },
	{ IN("b\303\274cher.example;e"), "[b\303\274cher.example] [e] []" },
	/* as RFC 4180 quotes */
	{ IN("\"a.example\";\"mx.example\";\"true\""), "[a.example] [mx.example] [true]" },
	{ IN("\" a.example \";\"mx;x\""), "[a.example] [mx;x] []" },
	{ IN("\"\"\"a;b\"\"@c\";d"), "[\"a;b\"@c] [d] []" },
	{ IN("\"\"\"\";d"), "!its pattern is no address, domain, .domain or *" },
	/* nothing */
	{ IN(""), "-" },
	{ IN("\n"), "-" },
	{ IN(" \t\r\n"), "-" },
	{ IN("# a;b\n"), "-" },
	{ IN("\357\273\277# a;b\n"), "-" },
	{ IN("\357\273\277"), "-" },
	{ IN("\357\273\277pattern;server;tls_verify\n"), "-" },
	{ IN("  #"), "-" },
	{ IN("pattern;server;tls_verify\n"), "-" },
	{ IN("Pattern ; SERVER\n"), "-" },
	/* no good */
	{ IN("pattern;mx.example"), "[pattern] [mx.example] []" },
	{ IN("a.example"), "!it names no server" },
	{ IN("a.example;;true"), "!it names no server" },
	{ IN("a.example mx.example"), "!its pattern is no address, domain, .domain or *" },
	{ IN("a b@c;d"), "!its pattern is no address, domain, .domain or *" },
	{ IN(";mx.example;true"), "!its pattern is no address, domain, .domain or *" },
	{ IN("*.example;d"), "!its pattern is no address, domain, .domain or *" },
	{ IN("@example;d"), "!its pattern is no address, domain, .domain or *" },
	{ IN("a\tb;d"), "!its pattern is no address, domain, .domain or *" },
	{ IN("a\x7f;d"), "!its pattern is no address, domain, .domain or *" },
	{ IN("\"a;b;c"), "!a quotation mark has no other" },
	{ IN("\"a\\\";b"), "!a quotation mark has no other" },
	{ IN("a;b\0c"), "!it holds a NUL" },
	{ IN("a.example.;b"), "[a.example] [b] []" },
	{ IN("\"a.example.\";b"), "[a.example] [b] []" },
	{ IN("a..;b"), "[a..] [b] []" },
	{ IN(".;b"), "[.] [b] []" },
	{ IN("x@.;b"), "[x@.] [b] []" },
};

static void test_lines(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(lines); i++) {
		struct routes_line l;
		const char *fault = NULL;
		char copy[200];

		memcpy(copy, lines[i].in.bytes, lines[i].in.len);
		copy[lines[i].in.len] = 'x'; /* the octet that may be written to */
		clear(&got);
		switch (routes_parse((unsigned char *)guarded(copy, lines[i].in.len + 1), lines[i].in.len, &l, &fault)) {
		case ROUTES_LINE:
			assert_int_equal(l.pattern_len, strlen((const char *)l.pattern));
			say(&got, "[%s] [%s] [%s]", (const char *)l.pattern, l.server, l.tls);
			break;
		case ROUTES_NOTHING:
			say(&got, "-");
			break;
		case ROUTES_BAD:
			say(&got, "!%s", fault);
		}
		expect_text(lines[i].in.bytes, got.bytes, lines[i].want);
	}
}

/* ---- files ---- */

static char directory[] = "/tmp/unit_routesXXXXXX";
static char path[64], index_path[80];

static int set_up(void **state)
{
	(void)state;
	if (!mkdtemp(directory))
		return -1;
	snprintf(path, sizeof path, "%s/routes", directory);
	snprintf(index_path, sizeof index_path, "%s.index", path);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(path);
	unlink(index_path);
	return rmdir(directory);
}

/* As an operator replaces it, with so many octets of comments in front. */
static void write_file(const char *name, const void *bytes, size_t n, size_t padding)
{
	char fresh[96];
	FILE *f;

	snprintf(fresh, sizeof fresh, "%s.fresh", path);
	f = fopen(fresh, "w");
	assert_non_null(f);
	for (size_t i = 1; i <= padding; i++)
		fputc(i == padding || i % 100 == 0 ? '\n' : '#', f);
	assert_int_equal(fwrite(bytes, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(rename(fresh, name), 0);
}

static const char *take(const struct routes_line *l, void *arg)
{
	say(arg, "%s", l->server);
	return strcmp(l->server, "bad") == 0 ? "that is bad" : NULL;
}

static const char *find(const char *address, const char *delimiters)
{
	clear(&got);
	switch (routes_find(path, guarded(address, strlen(address)), strlen(address), delimiters, take, &got, why,
	    sizeof why)) {
	case ROUTES_FOUND:
		assert_true(got.len > 0);
		break;
	case ROUTES_NONE:
		assert_int_equal(got.len, 0);
		say(&got, "-");
		break;
	case ROUTES_FAILED:
		clear(&got);
		say(&got, "!%s", why);
	}
	return got.bytes;
}

static bool compile(void)
{
	struct text unused = { 0 };

	return routes_compile(path, take, &unused, why, sizeof why);
}

static const char table[] = "pattern;server;tls_verify\n"
			    "*;star\n"
			    "example.com;domain\n"
			    "Bob@Example.COM;Bob\n"
			    "bob@example.com;bob\n"
			    "carol@example.com;carol\n"
			    "news+all@example.com;news+all\n"
			    ".example.com;subdomains\n"
			    ".B.example.com;b\n"
			    "xn--bcher-kva.example;a-label\n"
			    "b\303\274cher.example;u-label\n"
			    "xn--tda.example;tda\n"
			    ".xn--tda.example;below tda\n"
			    "z@xn--tda.example;z\n"
			    ".a.\303\274.example;a\n"
			    ".example;examples\n"
			    "\"a;b c\"@example.com;quoted\n"
			    "\"x@y\"@example.com;at\n"
			    "\"+\"@example.com;plus\n"
			    "x@[192.0.2.1];literal address\n"
			    "[192.0.2.1];literal\n"
			    "[IPv6:2001:db8::1];six\n"
			    "postmaster;here\n"
			    "twice.example;first\n"
			    "twice.example;second\n"
			    "TWICE.example;third\n"
			    "dotted.example.;dotted\n"
			    "y@dotted.example.;y\n"
			    ".dotted.example.;below dotted\n"
			    ".test;test";

struct find_row {
	const char *address, *delimiters, *want;
};

static const struct find_row finds[] = {
	{ "x@example.com", "", "domain" },
	{ "x@EXAMPLE.com", "", "domain" },
	{ "Bob@example.com", "", "Bob" }, /* as it is written goes first */
	{ "bob@EXAMPLE.com", "", "bob" },
	{ "BOB@example.com", "", "bob" }, /* else the last */
	{ "CAROL@example.com", "", "carol" },
	{ "carol@x.example.com", "", "subdomains" },
	{ "bob+x@example.com", "", "domain" },
	{ "bob+x@example.com", "+", "bob" },
	{ "Bob-x+y@example.com", "+-", "Bob" },
	{ "bob=x@example.com", "+-", "domain" },
	{ "news+all@example.com", "+", "news+all" },
	{ "news+other@example.com", "+", "domain" },
	{ "+bob@example.com", "+", "domain" },
	{ "\"bob+x\"@example.com", "+", "domain" },
	{ "\"+\"@example.com", "+", "plus" },
	{ "x@a.example.com", "", "subdomains" },
	{ "x@a.b.example.com", "", "b" },
	{ "x@b.example.com", "", "subdomains" },
	{ "x@xexample.com", "", "star" },
	{ "x@example.com.", "", "domain" },
	{ "bob@EXAMPLE.com.", "", "bob" },
	{ "x@a.example.com.", "", "subdomains" },
	{ "x@example.com..", "", "star" },
	{ "x@dotted.example", "", "dotted" },
	{ "x@dotted.example.", "", "dotted" },
	{ "x@a.dotted.example", "", "below dotted" },
	{ "y@dotted.example", "", "y" },
	{ "x@XN--bcher-KVA.example", "", "a-label" },
	{ "x@b\303\274cher.example", "", "u-label" },
	{ "x@\303\274.example", "", "tda" },
	{ "x@\303\274.EXAMPLE.", "", "tda" },
	{ "z@\303\274.example", "", "z" },
	{ "z+x@\303\274.example", "+", "z" },
	{ "x@b.\303\274.example", "", "below tda" },
	{ "x@a.\303\274.example", "", "below tda" },
	{ "x@b.a.\303\274.example", "", "a" },
	{ "x@\303\274.b\303\274cher.example", "", "examples" },
	{ "x@\303\234.example", "", "examples" }, /* cannot be written in ASCII */
	{ "x@\377.example", "", "examples" },
	{ "\303\274@example.com", "", "domain" },
	{ "\"a;b c\"@example.com", "", "quoted" },
	{ "\"x@y\"@Example.com", "", "at" },
	{ "x@[192.0.2.1]", "", "literal address" },
	{ "y@[192.0.2.1]", "", "literal" },
	{ "y@[ipv6:2001:DB8::1]", "", "six" },
	{ "y@[192.0.2.test]", "", "star" }, /* a literal has no parents */
	{ "Postmaster", "", "here" },
	{ "\"no@test\"", "", "star" },
	{ "x@twice.example", "", "third" },
	{ "x@test", "", "star" },
	{ "x@a.test", "", "test" },
	{ "x@..test", "", "star" }, /* no domain */
	{ "x@", "", "star" },
	{ "@", "+", "star" },
	{ "", "+", "star" },
};

static void check_finds(const char *how)
{
	for (size_t i = 0; i < COUNT(finds); i++) {
		char name[200];

		snprintf(name, sizeof name, "%s, %s", how, finds[i].address);
		expect_text(name, find(finds[i].address, finds[i].delimiters), finds[i].want);
	}
}

static void test_finds(void **state)
{
	(void)state;
	write_file(path, table, sizeof table - 1, 0);
	check_finds("read through");
	write_file(path, table, sizeof table - 1, ROUTES_SMALL);
	check_finds("large, read through");
	assert_true(compile());
	check_finds("by index");
}

/* What is not there is not there either way. */
static void test_no_match(void **state)
{
	static const char text[] = "a.example;x\n.b.example;y\n";

	(void)state;
	for (size_t padding = 0; padding <= ROUTES_SMALL; padding += ROUTES_SMALL) {
		write_file(path, text, sizeof text - 1, padding);
		assert_true(!padding || compile());
		expect_text("other domain", find("x@c.example", ""), "-");
		expect_text("itself", find("x@b.example", ""), "-");
		expect_text("no domain", find("a.exampl", ""), "-");
		expect_text("long", find("x@aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		    ""), "-");
	}
	write_file(path, "", 0, 0);
	expect_text("empty file", find("x@c.example", ""), "-");
}

/* An address or domain of any length: what is too long matches nothing but *. */
static void test_long_addresses(void **state)
{
	static char address[13000];
	static const char text[] = "*;star\n.a.a;a\n";

	(void)state;
	write_file(path, text, sizeof text - 1, ROUTES_SMALL);
	assert_true(compile());
	for (size_t n = 4; n < sizeof address - 1; n = n < 1100 ? n + 1 : n * 2) {
		for (size_t i = 0; i < n; i++)
			address[i] = i % 2 ? '.' : 'a';
		address[1] = '@';
		address[n] = 0;
		expect_text("long domain", find(address, "+"), n > 6 && n <= 258 ? "a" : "star"); /* the dot at its end aside */
		address[1] = '.';
		address[n - 2] = '@';
		expect_text("long local part", find(address, "."), "star");
		memset(address, 'a', n);
		strcpy(address + n, "@\303\274.b.test");
		expect_text("long local part, domain in UTF-8", find(address, "+a"), "star");
		memcpy(address, "x@\303\274", 4);
		for (size_t i = 4; i < n; i++)
			address[i] = i % 2 ? 'a' : '.';
		address[n] = 0;
		expect_text("long domain in UTF-8", find(address, "+"), n > 7 && n <= 257 ? "a" : "star");
	}
}

/* Lines are found wherever they fall in what is read at once. */
static void test_every_place(void **state)
{
	static char text[70000];
	char address[64], want[64];

	(void)state;
	for (size_t shift = 0; shift < 48; shift++) {
		size_t n = 0;

		for (int i = 0; n < sizeof text - 64; i++)
			n += (size_t)sprintf(text + n, "user%d@d%d.example;server%d;true\n", i, i % 7, i);
		write_file(path, text, n - 1, shift); /* without the last line end */
		assert_true(shift % 16 || compile());
		for (int i = 0; i < 1700; i += shift % 16 ? 211 : 1) {
			sprintf(address, "user%d@d%d.example", i, i % 7);
			sprintf(want, "server%d", i);
			expect_text(address, find(address, ""), want);
		}
	}
}

/* ---- a header of other names ---- */

static const struct {
	const char *text, *found, *told; /* told: of the file, when it is checked */
} headers[] = {
	{ "a b;c;d\nx.example;x", "x", "line 1: it is no route, and taken for a header" },
	{ "# c\n\nkey;bad\nx.example;x", "x", "line 3: it is no route, and taken for a header" },
	{ "key\nx.example;x", "x", "line 1: it is no route, and taken for a header" },
	{ "key;host\nx.example;x", "x", "" },
	{ "pattern;server\nx.example;x", "x", "" },
	{ "x.example;x\nkey;bad", "x", "!line 2: that is bad" },
	{ "pattern;server\nkey;bad\nx.example;x", "x", "!line 2: that is bad" },
	{ "a b;c\nd e;f\nx.example;x", "!line 2: its pattern is no address, domain, .domain or *",
	    "!line 2: its pattern is no address, domain, .domain or *" },
	{ "x.example;bad", "!line 1: that is bad", "!line 1: that is bad" },
	{ "*;bad", "!line 1: that is bad", "!line 1: that is bad" },
	{ "x@x.example;bad", "!line 1: that is bad", "!line 1: that is bad" },
	{ "a.b c;x\nx.example;x", "!line 1: its pattern is no address, domain, .domain or *",
	    "!line 1: its pattern is no address, domain, .domain or *" },
};

static const char *without_path(const char *said)
{
	static char bare[sizeof why];
	const char *at = strstr(said, ": ");

	snprintf(bare, sizeof bare, "%s%s", *said == '!' ? "!" : "", at ? at + 2 : "");
	return at ? bare : said;
}

static void test_headers(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(headers); i++) {
		struct text unused = { 0 }, told = { 0 };

		write_file(path, headers[i].text, strlen(headers[i].text), 0);
		expect_text(headers[i].text, without_path(find("x@x.example", "")), headers[i].found);
		say(&told, "%s", routes_index(path, -1, take, &unused, why, sizeof why) ? "" : "!");
		say(&told, "%s", why);
		expect_text(headers[i].text, without_path(told.bytes), headers[i].told);
		write_file(path, headers[i].text, strlen(headers[i].text), ROUTES_SMALL);
		assert_int_equal(compile(), headers[i].told[0] != '!');
		if (headers[i].told[0] != '!')
			expect_text(headers[i].text, find("x@x.example", ""), headers[i].found);
	}
}

/* ---- what can be wrong ---- */

static void expect_failure(const char *name, const char *wanted)
{
	assert_true(find("x@a.example", "")[0] == '!');
	if (!strstr(why, wanted) || strncmp(why, path, strlen(path)) != 0)
		fail_msg("%s: %s", name, why);
}

static void test_files_that_are_none(void **state)
{
	static char line[ROUTES_LINE_MAX + 2];

	(void)state;
	unlink(path);
	expect_failure("missing", ": No such file");
	assert_false(compile());
	mkdir(path, 0700);
	expect_failure("directory", ": is no regular file");
	rmdir(path);
	mkfifo(path, 0600);
	expect_failure("FIFO", ": is no regular file");
	unlink(path);
	write_file(path, "a.example;x\nb.example\n", 22, 0);
	expect_failure("another line", ": line 2: it names no server");
	write_file(path, "# x\n\nb.example;y\na.example;bad\n", 31, 0);
	expect_failure("judged", ": line 4: that is bad");
	expect_text("judged, but another", find("x@b.example", ""), "y");
	unlink(index_path);
	write_file(path, "a.example;bad\n", 14, ROUTES_SMALL);
	expect_failure("judged, in a large file", ": line 657: that is bad");
	assert_false(compile());
	assert_non_null(strstr(why, ": line 657: that is bad"));
	assert_int_equal(access(index_path, F_OK), -1);
	memset(line, '#', sizeof line);
	write_file(path, line, ROUTES_LINE_MAX - 1, 0);
	expect_text("longest line", find("x@a.example", ""), "-");
	write_file(path, line, ROUTES_LINE_MAX, 0);
	expect_failure("too long without an end", ": line 1: it is too long");
	line[ROUTES_LINE_MAX - 1] = '\n';
	write_file(path, line, ROUTES_LINE_MAX, 0);
	expect_text("longest line with its end", find("x@a.example", ""), "-");
	line[ROUTES_LINE_MAX - 1] = '#';
	line[ROUTES_LINE_MAX] = '\n';
	write_file(path, line, ROUTES_LINE_MAX + 1, 0);
	expect_failure("too long", ": line 1: it is too long");
}

/* An index of another file, or a piece of one, does not count. */
static void test_index_that_does_not_fit(void **state)
{
	static char index[4096];
	static const char old[] = "a.example;old\n", new[] = "b.example;new\n";
	struct stat st;
	FILE *f;

	(void)state;
	write_file(path, old, sizeof old - 1, ROUTES_SMALL);
	assert_true(compile());
	assert_int_equal(stat(index_path, &st), 0);
	f = fopen(index_path, "r");
	assert_int_equal(fread(index, 1, sizeof index, f), st.st_size);
	fclose(f);
	expect_text("fits", find("x@a.example", ""), "old");
	write_file(path, new, sizeof new - 1, ROUTES_SMALL);
	expect_text("replaced", find("x@b.example", ""), "new");
	expect_text("replaced", find("x@a.example", ""), "-");
	assert_true(routes_wants_index(path));
	assert_false(routes_wants_index(path)); /* it was asked already */
	write_file(path, old, sizeof old - 1, ROUTES_SMALL);
	assert_true(compile());
	assert_false(routes_wants_index(path));
	for (size_t n = 0; n < (size_t)st.st_size; n++) {
		write_file(index_path, index, n, 0);
		expect_text("cut short", find("x@a.example", ""), "old");
	}
	for (size_t i = 0; i < (size_t)st.st_size; i++) { /* of one octet changed it is known that it leads nowhere else */
		const char *result;

		assert_true(compile());
		f = fopen(index_path, "r+");
		assert_int_equal(fread(index, 1, sizeof index, f), st.st_size);
		fseek(f, (long)i, SEEK_SET);
		fputc(index[i] ^ 0xff, f);
		fclose(f);
		result = find("x@a.example", "");
		assert_true(strcmp(result, "old") == 0 || strcmp(result, "-") == 0);
	}
}

/* One that the listener hands on. */
static void test_index_in_memory(void **state)
{
	static const char text[] = "a.example;x\n";
	struct text unused = { 0 };
	int fd;

	(void)state;
	unlink(index_path);
	write_file(path, text, sizeof text - 1, ROUTES_SMALL);
	assert_true(routes_wants_index(path));
	fd = memfd_create("routes", 0);
	assert_true(routes_index(path, fd, take, &unused, why, sizeof why));
	routes_use_index(fd);
	expect_text("found", find("x@a.example", ""), "x");
	routes_use_index(-1);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void test_check(void **state)
{
	struct text unused = { 0 };

	(void)state;
	write_file(path, table, sizeof table - 1, 0);
	assert_true(routes_index(path, -1, take, &unused, why, sizeof why));
	write_file(path, "x;y\n*;bad", 9, 0);
	assert_false(routes_index(path, -1, take, &unused, why, sizeof why));
	assert_non_null(strstr(why, "routes: line 2: that is bad"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_finds),
		cmocka_unit_test(test_no_match),
		cmocka_unit_test(test_long_addresses),
		cmocka_unit_test(test_every_place),
		cmocka_unit_test(test_headers),
		cmocka_unit_test(test_files_that_are_none),
		cmocka_unit_test(test_index_that_does_not_fit),
		cmocka_unit_test(test_index_in_memory),
		cmocka_unit_test(test_check),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
