/* Unit tests of message.c: what goes in comes out, sealed; edits are as a model that knows nothing of descriptors and
 * copies has them; nothing is left open, and what fails leaves what was there. Verdicts end at a PROT_NONE page. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* seals */
#endif
#include "test/lib/unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "io/message.h"
#include "smtp.h"

static struct text got;

static unsigned open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* A sealed message, put together from pieces of `step` octets, 0: of all. */
static struct message make(const void *bytes, size_t n, size_t step)
{
	const unsigned char *in = bytes;
	struct message m = { .fd = -1 };

	message_begin(&m);
	step = step ? step : n;
	for (size_t at = 0; at < n; at += step)
		message_add(&m, in + at, n - at < step ? n - at : step);
	assert_true(message_seal(&m));
	return m;
}

/* In the process, and read through its descriptor. */
static void expect_content(const struct message *m, const void *bytes, size_t n)
{
	static unsigned char read_back[(2 << 20) + 1];

	assert_int_equal(m->size, n);
	assert_int_equal(pread(m->fd, read_back, sizeof read_back, 0), n);
	assert_true(m->bytes && memcmp(m->bytes, bytes, n) == 0 && memcmp(read_back, bytes, n) == 0);
}

static void edit(struct message *m, const void *verdict, size_t n)
{
	assert_true(message_edit(m, guarded(verdict, n), n, false));
	assert_int_equal(fcntl(m->fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
}

static void set_limit(int what, rlim_t limit)
{
	struct rlimit r;

	assert_int_equal(getrlimit((__rlimit_resource_t)what, &r), 0);
	r.rlim_cur = limit < r.rlim_max ? limit : r.rlim_max;
	assert_int_equal(setrlimit((__rlimit_resource_t)what, &r), 0);
}

/* ---- filling and sealing ---- */

static void test_what_goes_in_comes_out(void **state)
{
	static unsigned char bytes[1 << 20];
	static const size_t sizes[] = { 0, 1, 32767, 32768, 32769, 65536, 100000, sizeof bytes };
	static const size_t steps[] = { 0, 1000, 32767, 32768, 32769, 70000 };
	struct message m;

	(void)state;
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (unsigned char)any(256);
	for (size_t i = 0; i < COUNT(sizes); i++)
		for (size_t k = 0; k < COUNT(steps); k++) {
			m = make(bytes, sizes[i], steps[k]);
			expect_content(&m, bytes, sizes[i]);
			message_drop(&m);
		}
	for (int round = 0; round < 50; round++) {
		size_t at = 0;

		message_begin(&m);
		for (size_t n; at < sizeof bytes && (n = any(20) ? any(3000) : any(200000)) <= sizeof bytes - at; at += n)
			message_add(&m, bytes + at, n);
		assert_true(message_seal(&m));
		expect_content(&m, bytes, at);
		message_drop(&m);
	}
}

/* A message that was begun and never filled leaves nothing to the next. */
static void test_dropped_half_way(void **state)
{
	unsigned before = open_descriptors();
	struct message m = { .fd = -1 };

	(void)state;
	message_drop(&m);
	message_begin(&m);
	message_add(&m, "left behind", 11);
	message_drop(&m);
	assert_int_equal(m.fd, -1);
	m = make("a", 1, 0);
	expect_content(&m, "a", 1);
	message_drop(&m);
	message_drop(&m);
	assert_int_equal(open_descriptors(), before);
}

/* What becomes of a hook's message while another is kept: sealed or not, of any size, or with no descriptor left for it. */
static void come_and_go(size_t n, bool sealed)
{
	static unsigned char bytes[100000];
	struct message m;

	memset(bytes, 'x', sizeof bytes);
	message_begin(&m);
	message_add(&m, bytes, n);
	if (sealed)
		message_seal(&m);
	message_drop(&m);
}

/* A message that is kept stays as it is, however many that hooks return and then fail come and go beside it. */
static void test_others_come_and_go(void **state)
{
	static const size_t sizes[] = { 0, 20, 32768, sizeof "a kept one" - 1, 100000 };
	static const char kept[] = "a kept one", added[] = "add-header X: y\n", edited[] = "X: y\r\n\r\na kept one";
	struct message m, next;

	(void)state;
	for (size_t i = 0; i < 4 * COUNT(sizes); i++) {
		m = make(kept, sizeof kept - 1, 3);
		for (int times = 0; times < 3; times++) {
			come_and_go(sizes[i / 4], i % 2);
			expect_content(&m, kept, sizeof kept - 1);
		}
		edit(&m, added, sizeof added - 1);
		come_and_go(sizes[i / 4], i % 2);
		come_and_go(sizes[i / 4], i % 2);
		expect_content(&m, edited, sizeof edited - 1);
		next = make(kept, sizeof kept - 1, 0); /* this takes its place */
		message_drop(&m);
		for (int times = 0; times < 2; times++) {
			set_limit(RLIMIT_NOFILE, i % 4 / 2 ? 1024 : (rlim_t)next.fd + 1);
			come_and_go(sizes[i / 4], i % 2);
			set_limit(RLIMIT_NOFILE, 1024);
		}
		expect_content(&next, kept, sizeof kept - 1);
		message_drop(&next);
	}
}

/* Nobody who gets the descriptor can change the message, by whatever way it is opened again. */
/* A hook's message is edited while the client's is kept, which is then forgotten or, if there is no room, sent after all. */
static void test_three_at_a_time(void **state)
{
	static const char header[] = "add-header A: b\n", all[] = "A: b\r\nA: b\r\nS: hook\r\n\r\n";
	struct message kept = make("S: client\r\n\r\n", 13, 0), m = make("S: hook\r\n\r\n", 11, 0);

	(void)state;
	edit(&m, header, sizeof header - 1);
	expect_content(&kept, "S: client\r\n\r\n", 13);
	message_drop(&kept);
	edit(&m, header, sizeof header - 1);
	expect_content(&m, all, sizeof all - 1);
	kept = make("S: next\r\n\r\n", 11, 0);
	expect_content(&m, all, sizeof all - 1);
	message_drop(&m);
	message_drop(&kept);
}

static void test_sealed(void **state)
{
	struct message m = make("A: b\r\n\r\nbody\r\n", 14, 0);
	char path[64];
	int again;

	(void)state;
	snprintf(path, sizeof path, "/proc/self/fd/%d", m.fd);
	again = open(path, O_RDWR | O_CLOEXEC);
	for (int i = 0; i < 2; i++) {
		int fd = i ? again : m.fd;

		errno = 0;
		assert_true(write(fd, "x", 1) < 0 && errno == EPERM);
		assert_true(pwrite(fd, "x", 1, 100) < 0 && errno == EPERM);
		assert_true(ftruncate(fd, 1) < 0 && errno == EPERM);
		assert_true(ftruncate(fd, 100) < 0 && errno == EPERM);
		assert_true(mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
		assert_true(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0 && errno == EPERM);
	}
	assert_true(fcntl(m.fd, F_GETFD) & FD_CLOEXEC);
	close(again);
	expect_content(&m, "A: b\r\n\r\nbody\r\n", 14);
	message_drop(&m);
}

/* No room, at a write in the middle or at the last one: it is said when the message is sealed, errno says why, and an
 * edit leaves the message that it did not change. */
static void test_no_room(void **state)
{
	static const char verdict[] = "add-header X: y\n";
	static unsigned char bytes[200000] = "A: b\r\n\r\n";
	unsigned before = open_descriptors();
	struct message m = make(bytes, sizeof bytes, 0), full;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	set_limit(RLIMIT_FSIZE, 4096);
	for (size_t step = 1000; step <= sizeof bytes; step += sizeof bytes - 1000) {
		message_begin(&full);
		for (size_t at = 0; at < sizeof bytes; at += step)
			message_add(&full, bytes + at, step);
		assert_false(message_seal(&full));
		assert_int_equal(errno, EFBIG);
		message_drop(&full);
	}
	message_begin(&full);
	message_add(&full, bytes, 5000); /* waits to be written until it is sealed */
	assert_false(message_seal(&full));
	message_drop(&full);
	assert_false(message_edit(&m, (const unsigned char *)verdict, sizeof verdict - 1, false));
	set_limit(RLIMIT_FSIZE, RLIM_INFINITY);
	expect_content(&m, bytes, sizeof bytes);
	set_limit(RLIMIT_NOFILE, (rlim_t)m.fd + 1);
	assert_false(message_edit(&m, (const unsigned char *)verdict, sizeof verdict - 1, false));
	assert_int_equal(errno, EMFILE);
	set_limit(RLIMIT_NOFILE, 1024);
	expect_content(&m, bytes, sizeof bytes);
	message_drop(&m);
	assert_int_equal(open_descriptors(), before);
}

/* ---- editing ---- */

static void test_edits(void **state)
{
	static const struct {
		const char *name;
		struct input message;
		struct input verdict;
		const char *want;
	} rows[] = {
		{ "nothing to do", IN("A: b\r\n\r\nc\r\n"), IN(""), "A: b\\r\\n\\r\\nc\\r\\n" },
		{ "nothing but a log line", IN("A: b\r\n\r\nc\r\n"), IN("log a b\naccept\n"), "A: b\\r\\n\\r\\nc\\r\\n" },
		{ "added on top", IN("A: b\r\n\r\nc\r\n"), IN("add-header X: y\n"),
		    "X: y\\r\\nA: b\\r\\n\\r\\nc\\r\\n" },
		{ "the last added is topmost", IN("A: b\r\n\r\n"), IN("add-header X: 1\nadd-header Y: 2\r\naccept\n"),
		    "Y: 2\\r\\nX: 1\\r\\nA: b\\r\\n\\r\\n" },
		{ "removed, the first", IN("A: b\r\nC: d\r\n\r\nA: e\r\n"), IN("remove-header a\n"),
		    "C: d\\r\\n\\r\\nA: e\\r\\n" },
		{ "removed, all of the name", IN("a: 1\r\nB: 2\r\nA: 3\r\nA:4\r\nAB: 5\r\n\r\n"),
		    IN("remove-header A:\n"), "B: 2\\r\\nAB: 5\\r\\n\\r\\n" },
		{ "removed, folded", IN("A: b\r\n\tc\r\n \r\n d\r\nB: e\r\n f\r\n\r\ng"), IN("remove-header A\n"),
		    "B: e\\r\\n f\\r\\n\\r\\ng" },
		{ "removed, the last, folded up to the end", IN("B: e\r\nA: b\r\n c"), IN("remove-header A\n"),
		    "B: e\\r\\n" },
		{ "removed, not there", IN("A: b\r\n\r\n"), IN("remove-header B\n"), "A: b\\r\\n\\r\\n" },
		{ "removed, everything", IN("A: b\r\n"), IN("remove-header A\n"), "" },
		{ "removed, value of another", IN("B: A: x\r\n A: y\r\n\r\n"), IN("remove-header A\n"),
		    "B: A: x\\r\\n A: y\\r\\n\\r\\n" },
		{ "blanks in front of the colon, RFC 5322 4.5.8", IN("B : x\r\nA\t : y\r\n\r\nz\r\n"),
		    IN("add-header X: y\nremove-header a\n"), "X: y\\r\\nB : x\\r\\n\\r\\nz\\r\\n" },
		{ "first line of a mailbox", IN("From a@b Sat\r\nA: b\r\nC: d\r\n\r\ne\r\n"), IN("add-header X: y\nremove-header a\n"),
		    "From a@b Sat\\r\\nX: y\\r\\nC: d\\r\\n\\r\\ne\\r\\n" },
		{ "one that was quoted", IN(">From a@b\r\nA: b\r\n\r\ne\r\n"), IN("add-header X: y\nremove-header a\n"),
		    ">From a@b\\r\\nX: y\\r\\n\\r\\ne\\r\\n" },
		{ "first line of a mailbox, no header", IN("From a\r\nb\r\n"), IN("add-header X: y\n"),
		    "From a\\r\\nX: y\\r\\n\\r\\nb\\r\\n" },
		{ "first line of a mailbox, nothing added", IN("From a\r\nb\r\n"), IN("remove-header X\n"), "From a\\r\\nb\\r\\n" },
		{ "first line of a mailbox, no line end", IN("From a"), IN("add-header X: y\n"), "X: y\\r\\n\\r\\nFrom a" },
		{ "first line of a mailbox, in second place", IN("A: b\r\nFrom a\r\nC: d\r\n"), IN("remove-header C\n"),
		    "A: b\\r\\nFrom a\\r\\nC: d\\r\\n" },
		{ "From is a field", IN("From : a\r\nC: d\r\n"), IN("add-header X: y\nremove-header from\n"), "X: y\\r\\nC: d\\r\\n" },
		{ "removed, then added", IN("A: b\r\n\r\n"), IN("remove-header A\nadd-header A: c\n"),
		    "A: c\\r\\n\\r\\n" },
		{ "added, then removed", IN("A: b\r\n\r\n"), IN("add-header A: c\nremove-header A\n"), "\\r\\n" },
		{ "added, removed, added", IN("A: b\r\n\r\n"), IN("add-header A: 1\nremove-header a\nadd-header A: 2\n"),
		    "A: 2\\r\\n\\r\\n" },
		{ "behind the end of the verdict", IN("A: b\r\n\r\n"),
		    IN("add-header X: y\naccept\nadd-header Y: z\nremove-header A\n"), "X: y\\r\\nA: b\\r\\n\\r\\n" },
		{ "empty message", IN(""), IN("add-header X: y\n"), "X: y\\r\\n" },
		{ "empty message, nothing added", IN(""), IN("remove-header X\n"), "" },
		{ "no header, an empty line", IN("\r\nA: b\r\n"), IN("add-header X: y\nremove-header A\n"),
		    "X: y\\r\\n\\r\\nA: b\\r\\n" },
		{ "no header, text", IN("hello\r\nA: b\r\n"), IN("add-header X: y\nremove-header A\n"),
		    "X: y\\r\\n\\r\\nhello\\r\\nA: b\\r\\n" },
		{ "no header, a folded line", IN(" hello\r\n"), IN("add-header X: y\n"), "X: y\\r\\n\\r\\n hello\\r\\n" },
		{ "no header, a lone CR", IN("\r"), IN("add-header X: y\n"), "X: y\\r\\n\\r\\n\\r" },
		{ "no header, text, nothing added", IN("hello\r\n"), IN("remove-header A\n"), "hello\\r\\n" },
		{ "a line that is no field ends the header", IN("A: 1\r\nhello\r\nA: 2\r\n"), IN("remove-header A\n"),
		    "hello\\r\\nA: 2\\r\\n" },
		{ "a colon alone is no field", IN(": x\r\nA: b\r\n"), IN("remove-header A\n"), ": x\\r\\nA: b\\r\\n" },
		{ "a NUL in a name", IN("A\0: x\r\nA: b\r\n"), IN("remove-header A\n"), "A\\0: x\\r\\nA: b\\r\\n" },
		{ "NULs in a value", IN("A: \0\0\r\nB: c\r\n"), IN("remove-header A\n"), "B: c\\r\\n" },
		{ "LF only, as --bare-newline pass lets it", IN("A: 1\n 2\nB: 3\n\nA: 4\n"), IN("remove-header A\n"),
		    "B: 3\\n\\nA: 4\\n" },
		{ "no line end", IN("A: b"), IN("add-header X: y\n"), "X: y\\r\\nA: b" },
		{ "no line end, no colon", IN("A"), IN("remove-header A\n"), "A" },
		{ "hostile value", IN("\r\n"), IN("add-header X: y\177\033\vB: c\n"), "X: y   B: c\\r\\n\\r\\n" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct message m = make(rows[i].message.bytes, rows[i].message.len, 1);

		edit(&m, rows[i].verdict.bytes, rows[i].verdict.len);
		clear(&got);
		say_bytes(&got, m.bytes, m.size);
		expect_text(rows[i].name, got.bytes, rows[i].want);
		expect_content(&m, m.bytes, m.size);
		message_drop(&m);
	}
}

/* ---- a naive model: a list of fields and a body ---- */

#define FIELDS_MAX 16

struct field {
	size_t len;
	char bytes[500]; /* with line ends */
};

static struct {
	size_t count;
	struct field field[FIELDS_MAX];
	const char *body; /* the empty line included */
} model;

static void put(struct text *t, const void *bytes, size_t n)
{
	assert_true(n < sizeof t->bytes - t->len);
	memcpy(t->bytes + t->len, bytes, n);
	t->len += n;
	t->bytes[t->len] = 0;
}

static size_t name_length(const struct field *field)
{
	size_t n = strcspn(field->bytes, ":");

	while (n && strchr(" \t", field->bytes[n - 1]))
		n--;
	return n;
}

static void model_add(const char *name, const char *value)
{
	const struct verdict v = { .word = VERDICT_ADD_HEADER, .name = (const unsigned char *)name,
		.name_len = strlen(name), .text = (const unsigned char *)value, .text_len = strlen(value) };
	struct field *first = &model.field[0];

	assert_true(model.count < FIELDS_MAX);
	memmove(first + 1, first, model.count * sizeof *first);
	model.count++;
	first->len = verdict_header_write(&v, (unsigned char *)first->bytes, sizeof first->bytes - 1);
	first->bytes[first->len] = 0;
}

static void model_remove(const char *name)
{
	size_t kept = 0;

	for (size_t i = 0; i < model.count; i++) {
		const struct field *f = &model.field[i];

		if (name_length(f) == strlen(name) && strncasecmp(f->bytes, name, strlen(name)) == 0)
			continue;
		if (kept != i)
			model.field[kept] = model.field[i];
		kept++;
	}
	model.count = kept;
}

static void expect_model(const char *what, const struct message *m)
{
	static struct text want;
	size_t at = 0;

	clear(&want);
	for (size_t i = 0; i < model.count; i++)
		put(&want, model.field[i].bytes, model.field[i].len);
	put(&want, model.body, strlen(model.body));
	while (at < want.len && at < m->size && (unsigned char)want.bytes[at] == m->bytes[at])
		at++;
	if (want.len != m->size || at < want.len)
		fail_msg("%s: %zu octets, not %zu, differ at %zu: %.60s", what, (size_t)m->size, want.len, at,
		    want.bytes + at);
}

static const char *const names[] = { "A", "a", "B", "Ab", "X-Y", "x-y" };

/* Random fields, folded or not, and what may follow a header. */
static size_t make_message(unsigned char *out)
{
	static const char *const values[] = { "x", " x", "", " A: b", " x\r\n A: y", "x\r\n\t\r\n y", " :", "\xff" };
	static const char *const colons[] = { ":", ":", ":", " :", "\t :" };
	static const char *const bodies[] = { "", "\r\n", "\r\nA: b\r\n", "\r\nB: c\r\n\r\nA: d", "no field\r\nA: b\r\n" };
	size_t n = 0;

	model.count = 0;
	for (uint32_t count = 1 + any(8); count > 0; count--) {
		struct field *f = &model.field[model.count++];

		f->len = (size_t)sprintf(f->bytes, "%s%s%s\r\n", names[any(COUNT(names))], colons[any(COUNT(colons))],
		    values[any(COUNT(values))]);
		memcpy(out + n, f->bytes, f->len);
		n += f->len;
	}
	model.body = bodies[any(COUNT(bodies))];
	memcpy(out + n, model.body, strlen(model.body));
	return n + strlen(model.body);
}

static void test_edits_as_the_model_has_them(void **state)
{
	static const char *const values[] = { "x", "", "A: y", "a value with words enough for a second line of the header, "
						  "where it goes on up to its end" };
	static unsigned char bytes[4096];
	static struct text verdict;
	unsigned before = open_descriptors();

	(void)state;
	for (int round = 0; round < 3000; round++) {
		size_t n = make_message(bytes);
		struct message m = make(bytes, n, 1 + any(100));

		clear(&verdict);
		for (uint32_t lines = any(6); lines > 0; lines--) {
			const char *name = names[any(COUNT(names))], *value = values[any(COUNT(values))];

			if (any(2)) {
				say(&verdict, "add-header %s: %s\n", name, value);
				model_add(name, value);
			} else {
				say(&verdict, "remove-header %s\n", name);
				model_remove(name);
			}
		}
		edit(&m, verdict.bytes, verdict.len);
		expect_model(verdict.bytes, &m);
		message_drop(&m);
	}
	assert_int_equal(open_descriptors(), before);
}

/* ---- much of it ---- */

/* A verdict of 64 KiB whose fields need as much room as can be: what is added must not exceed what was set aside. */
static void test_most_that_a_verdict_can_add(void **state)
{
	static const char *const lines[] = { "add-header A:\n", "add-header A:b\n", "add-header A:" };
	static unsigned char verdict[VERDICT_MAX];

	(void)state;
	for (size_t i = 0; i < COUNT(lines); i++)
		for (size_t word = 2; word <= 120; word += i < 2 ? 120 : 1) {
			size_t len = strlen(lines[i]), n = i < 2 ? sizeof verdict / len * len : sizeof verdict;
			struct message m = make("\r\nbody\r\n", 8, 0);

			for (size_t at = 0; at < n; at++)
				verdict[at] = i < 2 ? (unsigned char)lines[i][at % len] : at % word ? 'x' : ' ';
			memcpy(verdict, lines[i], len);
			verdict[n - 1] = i < 2 ? '\n' : 'x';
			edit(&m, verdict, n);
			assert_true(m.size > n / 4 && m.size < 2 * n);
			assert_memory_equal(m.bytes + m.size - 10, "\r\n\r\nbody\r\n", 10);
			message_drop(&m);
		}
}

/* 10000 fields, and a verdict that is full of names to remove: every other field goes. */
static void test_many_fields(void **state)
{
	static struct text verdict;
	static char bytes[1 << 20], want[1 << 20];
	size_t n = 0, left = 0;
	struct message m;

	(void)state;
	clear(&verdict);
	for (unsigned i = 0; verdict.len < VERDICT_MAX - 32; i++)
		say(&verdict, "remove-header h-%u\n", 2 * i);
	for (unsigned i = 0; i < 10000; i++) {
		unsigned name = i % 2 ? 100001 : i % 5000;

		n += (size_t)sprintf(bytes + n, "H-%u: value\r\n folded\r\n", name);
		if (name == 100001)
			left += (size_t)sprintf(want + left, "H-%u: value\r\n folded\r\n", name);
	}
	n += (size_t)sprintf(bytes + n, "\r\nH-2: body\r\n");
	left += (size_t)sprintf(want + left, "\r\nH-2: body\r\n");
	m = make(bytes, n, 0);
	edit(&m, verdict.bytes, verdict.len);
	expect_content(&m, want, left);
	message_drop(&m);
}

/* The most removals that 64 KiB have room for: as long as the shortest line, and one without its line end. */
static void test_most_removals(void **state)
{
	static const char line[] = "remove-header A\n";
	static unsigned char verdict[VERDICT_MAX];

	(void)state;
	for (size_t n = sizeof verdict; n >= sizeof verdict - 1; n--) {
		struct message m = make("A: b\r\nB: c\r\n\r\n", 14, 0);

		for (size_t i = 0; i < n; i++)
			verdict[i] = (unsigned char)line[i % (sizeof line - 1)];
		edit(&m, verdict, n);
		expect_content(&m, "B: c\r\n\r\n", 8);
		message_drop(&m);
	}
}

/* As many names to remove as a verdict has room for, and a sender with as many fields as fit into 2 MB: it takes no long
 * time, whatever the names are. */
static void test_most_work(void **state)
{
	static unsigned char bytes[2 << 20];
	static struct text verdict;
	clock_t start;
	struct message m;

	(void)state;
	clear(&verdict);
	for (unsigned i = 0; verdict.len <= VERDICT_MAX - 17; i++)
		say(&verdict, "remove-header %c%c\n", 'a' + i % 26, '0' + i / 26 % 10);
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (unsigned char)"zz:\n"[i % 4];
	m = make(bytes, sizeof bytes, 0);
	start = clock();
	edit(&m, verdict.bytes, verdict.len);
	assert_true(clock() - start < CLOCKS_PER_SEC);
	expect_content(&m, bytes, sizeof bytes);
	message_drop(&m);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_goes_in_comes_out),
		cmocka_unit_test(test_dropped_half_way),
		cmocka_unit_test(test_others_come_and_go),
		cmocka_unit_test(test_three_at_a_time),
		cmocka_unit_test(test_sealed),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_edits),
		cmocka_unit_test(test_edits_as_the_model_has_them),
		cmocka_unit_test(test_most_that_a_verdict_can_add),
		cmocka_unit_test(test_many_fields),
		cmocka_unit_test(test_most_removals),
		cmocka_unit_test(test_most_work),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
