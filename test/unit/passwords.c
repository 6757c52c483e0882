/* The file of --upstream-auth: its lines, which of them is for a server, and reading it. */
#include "test/lib/unit.h"

#include "io/passwords.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct text got;

/* What the text, at the end of a page that nobody may read behind, has for a server: "user password", "-" for nothing, and
 * the number of a malformed line. host NULL: as passwords_find() has it. */
static const char *find(const char *text, size_t n, const char *host, uint16_t port)
{
	const struct passwords_server server = { host, port, false };
	struct password p;
	bool found;
	unsigned line = passwords_find((const char *)guarded(text, n), n, host ? &server : NULL, &p, &found);

	clear(&got);
	if (line)
		say(&got, "%u ", line);
	if (found) {
		say_bytes(&got, (const unsigned char *)p.pair.user, p.pair.user_len);
		say(&got, " ");
		say_bytes(&got, (const unsigned char *)p.pair.password, p.pair.password_len);
		say(&got, "%s%s", p.pinned ? " pinned" : "", p.unverified ? " unverified" : "");
	} else {
		say(&got, "-");
	}
	return got.bytes;
}

#define DIGITS_62 "00112233445566778899aAbBcCdDeEfF00112233445566778899aAbBcCdDee"
#define PIN "fingerprint=" DIGITS_62 "ff"
#define PIN_WITH_COLONS "fingerprint=01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15:16:17:18:19:1a:1b:1c:1d:1e:1f:20"

static void test_lines(void **state)
{
	static const struct {
		const char *text, *host;
		uint16_t port;
		const char *want;
	} rows[] = {
		{ "", "h", 25, "-" },
		{ "h u:p", "h", 25, "u p" },
		{ "h u:p\n", "h", 587, "u p" },
		{ "h\t \tu:p \t\r\n", "h", 25, "u p" },
		{ "  h u:p", "h", 25, "u p" },
		{ "MX.Example u:p", "mx.eXample", 25, "u p" },
		{ "h u:p:q:", "h", 25, "u p:q:" },
		{ "h u::", "h", 25, "u :" },
		{ "h u:#p #q", "h", 25, "u #p #q" },
		{ "h u v: p q ", "h", 25, "u v  p q" },
		{ "h \303\244\377:\001\177", "h", 25, "\303\244\377 \\1\\177" },
		/* ports */
		{ "h:587 u:p", "h", 587, "u p" },
		{ "h:587 u:p", "h", 25, "-" },
		{ "h:00587 u:p", "h", 587, "u p" },
		{ "h:65535 u:p", "h", 65535, "u p" },
		{ "[h] u:p", "h", 25, "u p" },
		{ "[h]:587 u:p", "h", 587, "u p" },
		{ "[h]:587 u:p", "h", 25, "-" },
		/* addresses */
		{ "192.0.2.1 u:p", "192.0.2.1", 25, "u p" },
		{ "2001:db8::1 u:p", "2001:db8::1", 25, "u p" },
		{ "2001:db8::1:25 u:p", "2001:db8::1", 25, "-" },
		{ "[2001:DB8::1]:25 u:p", "2001:db8::1", 25, "u p" },
		{ ":: u:p", "::", 25, "u p" },
		/* no other is meant */
		{ "h u:p", "hh", 25, "-" },
		{ "hh u:p", "h", 25, "-" },
		{ ".h u:p", "a.h", 25, "-" },
		{ "h. u:p", "h", 25, "u p" },
		{ "h u:p", "*", 25, "-" },
		/* of several */
		{ "h u:p\nh v:q", "h", 25, "u p" },
		{ "h:25 u:p\nh v:q", "h", 587, "v q" },
		{ "h v:q\nh:25 u:p", "h", 25, "v q" },
		{ "* a:b\nh u:p", "h", 25, "u p" },
		{ "* a:b\n* c:d\nh u:p", "other", 25, "a b" },
		{ "*:25 a:b\n* c:d", "h", 587, "c d" },
		{ "[*]:25 a:b", "h", 25, "a b" },
		{ "*.h a:b", "x.h", 25, "-" },
		/* what does not count */
		{ "\n \t\r\n#h x:y\n  # h x:y\n\nh u:p", "h", 25, "u p" },
		{ "#", "h", 25, "-" },
		{ "h #:p", "h", 25, "# p" },
		/* malformed ones: those before are good, and what follows is not looked at */
		{ "h", "h", 25, "1 -" },
		{ "h ", "h", 25, "1 -" },
		{ "h u", "h", 25, "1 -" },
		{ "h u:", "h", 25, "1 -" },
		{ "h u: ", "h", 25, "1 -" },
		{ "h :p", "h", 25, "1 -" },
		{ "h :", "h", 25, "1 -" },
		{ "h: u:p", "h", 25, "1 -" },
		{ "h:0 u:p", "h", 25, "1 -" },
		{ "h:65536 u:p", "h", 25, "1 -" },
		{ "h:000025 u:p", "h", 25, "1 -" },
		{ "h:+25 u:p", "h", 25, "1 -" },
		{ "h:25x u:p", "h", 25, "1 -" },
		{ ":25 u:p", "h", 25, "1 -" },
		{ "[] u:p", "h", 25, "1 -" },
		{ "[h u:p", "h", 25, "1 -" },
		{ "[h]25 u:p", "h", 25, "1 -" },
		{ "[h]: u:p", "h", 25, "1 -" },
		{ "[h]] u:p", "h", 25, "1 -" },
		{ "a b:c\n\n# d\nnonsense\nh u:p", "h", 25, "4 -" },
		{ "h u:p\nnonsense", "h", 25, "u p" },
		{ "* u:p\nnonsense", "h", 25, "2 u p" },
		{ "h u:p\nnonsense", NULL, 0, "2 -" },
		{ "h u:p\n* u:p", NULL, 0, "-" },
		/* who may hear it */
		{ "h unverified u:p", "h", 25, "u p unverified" },
		{ "h\tunverified \t u v:p", "h", 25, "u v p unverified" },
		{ "* unverified u:p", "h", 25, "u p unverified" },
		{ "h unverified:p", "h", 25, "unverified p" },
		{ "h Unverified u:p", "h", 25, "Unverified u p" },
		{ "h " PIN " u:p", "h", 25, "u p pinned" },
		{ "h " PIN " " PIN_WITH_COLONS " u:p", "h", 25, "u p pinned" },
		{ "h unverified", "h", 25, "1 -" },
		{ "h " PIN, "h", 25, "1 -" },
		{ "h unverified " PIN " u:p", "h", 25, "1 -" },
		{ "h " PIN "0 u:p", "h", 25, "1 -" },
		{ "h " PIN ": u:p", "h", 25, "1 -" },
		{ "h fingerprint= u:p", "h", 25, "1 -" },
		{ "h fingerprint=" DIGITS_62 " u:p", "h", 25, "1 -" },
		{ "h fingerprint=" DIGITS_62 "f u:p", "h", 25, "1 -" },
		{ "h fingerprint=" DIGITS_62 "fg u:p", "h", 25, "1 -" },
		{ "h fingerprint=:" DIGITS_62 "ff u:p", "h", 25, "1 -" },
		{ "h fingerprint=" DIGITS_62 "::ff u:p", "h", 25, "1 -" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		expect_text(rows[i].text, find(rows[i].text, strlen(rows[i].text), rows[i].host, rows[i].port), rows[i].want);
}

static void test_84_pins(void **state)
{
	static const char text[] = "h " PIN "\t" PIN_WITH_COLONS " u:p";
	static const struct passwords_server server = { "h", 25, false };
	unsigned char pin[PASSWORDS_FINGERPRINT];
	struct password p;
	bool found;

	(void)state;
	assert_int_equal(passwords_find((const char *)guarded(text, sizeof text - 1), sizeof text - 1, &server, &p, &found), 0);
	for (unsigned char i = 0; i < sizeof pin; i++)
		pin[i] = i + 1;
	assert_true(found && passwords_pins(&p, pin));
	for (unsigned char i = 0; i < sizeof pin; i++)
		pin[i] = (unsigned char)(i % 16 * 0x11);
	assert_true(passwords_pins(&p, pin));
	pin[31] ^= 1;
	assert_false(passwords_pins(&p, pin));
}

/* Whoever says where to must not get what is meant for the administrator's own servers. */
static void test_84_address_that_the_client_has_chosen(void **state)
{
	static const char text[] = "* a:b\n192.0.2.1 u:p\n";
	struct passwords_server server = { "192.0.2.2", 25, true };
	struct password p;
	bool found;

	(void)state;
	passwords_find(text, sizeof text - 1, &server, &p, &found);
	assert_false(found);
	server.host = "192.0.2.1";
	passwords_find(text, sizeof text - 1, &server, &p, &found);
	assert_true(found && p.pair.user[0] == 'u');
	server = (struct passwords_server){ "192.0.2.2", 25, false };
	passwords_find(text, sizeof text - 1, &server, &p, &found);
	assert_true(found && p.pair.user[0] == 'a');
}

/* RFC 4616 2: NUL separates the words, so it can be in none of them; elsewhere it is an octet of a name that is nobody's. */
static void test_nul(void **state)
{
	static const char user[] = "h a\0b:p", password[] = "h u:p\0q", host[] = "h\0 u:p";

	(void)state;
	expect_text("user", find(user, sizeof user - 1, "h", 25), "1 -");
	expect_text("password", find(password, sizeof password - 1, "h", 25), "1 -");
	expect_text("host", find(host, sizeof host - 1, "h", 25), "-");
}

static void test_49_longest_words(void **state)
{
	static char text[1024];

	(void)state;
	for (size_t n = SASL_WORD_MAX - 1; n <= SASL_WORD_MAX + 1; n++)
		for (int which = 0; which < 2; which++) {
			size_t user = which ? n : SASL_WORD_MAX, password = which ? SASL_WORD_MAX : n;
			const struct passwords_server server = { "h", 25, false };
			struct password p;
			bool found;

			snprintf(text, sizeof text, "h %0*d:%0*d", (int)user, 0, (int)password, 0);
			assert_int_equal(passwords_find(text, strlen(text), &server, &p, &found), n > SASL_WORD_MAX);
			assert_int_equal(found, n <= SASL_WORD_MAX);
			if (!found)
				continue;
			assert_int_equal(p.pair.user_len, user);
			assert_int_equal(p.pair.password_len, password);
		}
}

static void test_names_of_any_length(void **state)
{
	static char text[8192], host[6000];

	(void)state;
	memset(host, 'h', sizeof host - 1);
	snprintf(text, sizeof text, "%s:25 u:p", host);
	expect_text("all of it", find(text, strlen(text), host, 25), "u p");
	host[255] = 0;
	expect_text("a part", find(text, strlen(text), host, 25), "-");
}

static void test_dot_at_the_end_of_a_name(void **state)
{
	(void)state;
	expect_text("at the server's", find("mx.example:25 u:p", 17, "MX.example.", 25), "u p");
	expect_text("in the file", find("mx.example.:25 u:p", 18, "mx.example", 25), "u p");
	expect_text("twice is too often", find("mx.example:25 u:p", 17, "mx.example..", 25), "-");
	expect_text("a dot alone", find(". u:p", 5, "", 25), "-");
}

/* Nothing is read beyond the end, and only what is whole counts. */
static void test_every_beginning(void **state)
{
	static const char text[] = "# servers\n[2001:db8::1]:587 user:pass\r\n\nmx.example:25\tuser:pass\n* other:word";

	(void)state;
	for (size_t n = 0; n < sizeof text; n++) {
		find(text, n, "mx.example", 25);
		find(text, n, "2001:db8::1", 587);
		find(text, n, "elsewhere", 1);
		find(text, n, NULL, 0);
	}
	expect_text("first", find(text, sizeof text - 1, "2001:db8::1", 587), "user pass");
	expect_text("second", find(text, sizeof text - 1, "MX.example", 25), "user pass");
	expect_text("other", find(text, sizeof text - 1, "mx.example", 26), "other word");
}

/* Whatever the octets: a line is good or is not, and words are within the text, not empty and not too long. */
static void test_hostile_octets(void **state)
{
	static const char likely[] = "hhu:*[]:# \t\r\n\n2590\0\377";
	static char text[700];

	(void)state;
	for (unsigned round = 0; round < 100000; round++) {
		const struct passwords_server server = { round % 2 ? "h" : "hh", 25, round % 3 == 0 };
		size_t n = any(sizeof text);
		struct password p;
		const char *in;
		unsigned line;
		bool found;

		n = round % 4 ? n % 24 : n;
		for (size_t i = 0; i < n; i++)
			text[i] = likely[any(sizeof likely)];
		in = (const char *)guarded(text, n);
		line = passwords_find(in, n, &server, &p, &found);
		assert_true(line <= n);
		if (!found)
			continue;
		assert_false(passwords_pins(&p, (const unsigned char *)"01234567890123456789012345678901") && !p.pinned);
		assert_true(p.pair.user > in && p.pair.user_len && p.pair.user_len <= SASL_WORD_MAX);
		assert_true(p.pair.password == p.pair.user + p.pair.user_len + 1 && p.pair.password[-1] == ':');
		assert_true(p.pair.password_len && p.pair.password_len <= SASL_WORD_MAX && p.pair.password + p.pair.password_len <= in + n);
		assert_false(memchr(p.pair.user, '\n', p.pair.user_len + p.pair.password_len + 1) || memchr(p.pair.user, 0, p.pair.user_len + p.pair.password_len + 1));
	}
}

/* ---- the file ---- */

static char path[] = "/tmp/unit_auth.XXXXXX";

static void put_file(const char *text, size_t n, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0 && write(fd, text, n) == (ssize_t)n && fchmod(fd, mode) == 0);
	close(fd);
}

static const char *load(const char *file)
{
	static char why[300];
	bool loaded;

	why[0] = 0;
	loaded = passwords_load(file, why, sizeof why);
	assert_int_equal(loaded, !why[0]);
	return why;
}

static const char *load_text(const char *text, mode_t mode)
{
	put_file(text, strlen(text), mode);
	return load(path);
}

static void expect_password(const char *host, const char *want)
{
	const struct passwords_server server = { host, 25, false };
	struct password p;
	char password[SASL_WORD_MAX + 1] = "-";

	if (passwords_secret_for(&server, &p))
		snprintf(password, sizeof password, "%.*s", (int)p.pair.password_len, p.pair.password);
	expect_text(host, password, want);
}

static void test_file(void **state)
{
	char want[300];

	(void)state;
	expect_password("h", "-");
	expect_text("good", load_text("h u:one\n", 0600), "");
	expect_password("h", "one");
	expect_text("another", load_text("h u:two\n", 0600), "");
	expect_password("h", "two");
	snprintf(want, sizeof want, "--upstream-auth %s: line 2 is not HOST USER:PASSWORD", path);
	expect_text("malformed", load_text("h u:three\nh u\n", 0600), want);
	expect_password("h", "two");
	expect_text("not there", load("/nonexistent/file"), "--upstream-auth /nonexistent/file: No such file or directory");
	expect_text("a directory", load("/"), "--upstream-auth /: Is a directory");
	expect_password("h", "two");
	expect_text("empty", load_text("", 0600), "");
	expect_password("h", "-");
}

static void test_size(void **state)
{
	static char text[(64 << 10) + 1];
	char want[300];

	(void)state;
	memset(text, '#', sizeof text);
	memcpy(text + sizeof text - 11, "\nh u:last\n", 10);
	snprintf(want, sizeof want, "--upstream-auth %s: it is larger than 64 kB", path);
	put_file(text, sizeof text - 1, 0600);
	expect_text("too large", load(path), want);
	put_file(text + 1, sizeof text - 2, 0600);
	expect_text("as large as can be", load(path), "");
	expect_password("h", "last");
}

static void test_permissions(void **state)
{
	static const struct {
		mode_t mode;
		bool exposed;
	} rows[] = { { 0400, false }, { 0600, false }, { 0660, false }, { 0711, false }, { 0604, true }, { 0602, true }, { 0644, true } };

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		assert_int_equal(load_text("h u:p", rows[i].mode)[0], 0);
		assert_int_equal(passwords_exposed(), rows[i].exposed);
	}
}

/* What a session has looked up stays what it was while the file is read anew. */
static void test_72_pair_in_use(void **state)
{
	static const struct passwords_server server = { "h", 25, false };
	struct password old, new;

	(void)state;
	assert_int_equal(load_text("h u:p", 0600)[0], 0);
	assert_true(passwords_secret_for(&server, &old));
	assert_int_equal(load_text("h u:q nonsense\nx", 0600)[0], '-');
	assert_memory_equal(old.pair.password, "p", 1);
	assert_true(passwords_secret_for(&server, &new));
	assert_ptr_equal(old.pair.password, new.pair.password);
}

static int make_file(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(path);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_84_pins),
		cmocka_unit_test(test_84_address_that_the_client_has_chosen),
		cmocka_unit_test(test_nul),
		cmocka_unit_test(test_49_longest_words),
		cmocka_unit_test(test_names_of_any_length),
		cmocka_unit_test(test_dot_at_the_end_of_a_name), cmocka_unit_test(test_every_beginning),
		cmocka_unit_test(test_hostile_octets),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_permissions),
		cmocka_unit_test(test_72_pair_in_use),
	};

	return cmocka_run_group_tests(tests, make_file, remove_file);
}
