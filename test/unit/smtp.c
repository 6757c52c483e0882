/* Unit tests of smtp.c: each input ends at a PROT_NONE page, and what reads a stream reads it whole, byte by byte and
 * at every two-part split. */
#include "test/lib/unit.h"

#include "smtp.h"

static struct text got;

/* ---- commands ---- */

/* verb, then "!refusal" (and "fatal"), or path, [address], {params} or (argument), and what else was found. */
static void say_command(struct text *t, const struct smtp_command *c)
{
	say(t, "%s", smtp_verb_name(c->verb));
	if (c->refusal) {
		say(t, " !%.9s%s", c->refusal, c->fatal ? " fatal" : "");
		return;
	}
	if (c->path) {
		say(t, " %.*s [%.*s]", (int)c->path_len, c->path, (int)c->address_len, c->address);
		if (c->params_len)
			say(t, " {%.*s}", (int)c->params_len, c->params);
	} else if (c->arg_len) {
		say(t, " (%.*s)", (int)c->arg_len, c->arg);
	}
	if (c->octets)
		say(t, " %llu", (unsigned long long)c->octets);
	say(t, "%s%s%s%s%s", c->last ? " last" : "", c->binarymime ? " binarymime" : "", c->auth ? " auth" : "",
	    c->requiretls ? " requiretls" : "", c->tolerated ? " tolerated" : "");
}

struct command_row {
	const char *name;
	struct input in;
	const char *want;
	const char *written; /* as it goes on; NULL: not looked at */
};

static void run_commands(const struct command_row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct command_row *row = &rows[i];
		const unsigned char *in = guarded(row->in.bytes, row->in.len);
		unsigned char out[4096];
		struct smtp_command c;
		size_t len;

		smtp_parse(in, row->in.len, &c);
		clear(&got);
		say_command(&got, &c);
		expect_text(row->name, got.bytes, row->want);
		if (!row->written)
			continue;
		assert_int_equal(smtp_command_write(&c, out, c.line_len + 15), 0);
		len = smtp_command_write(&c, out, c.line_len + 16);
		clear(&got);
		say_bytes(&got, out, len);
		expect_text(row->name, got.bytes, row->written);
	}
}

#define TEN "1234567890"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN

static void test_20_27_33_verbs_and_blanks(void **state)
{
	static const struct command_row rows[] = {
		{ "ehlo", IN("EHLO host.example\r\n"), "EHLO (host.example)", "EHLO host.example\\r\\n" },
		{ "lower case", IN("ehlo Host\r\n"), "EHLO (Host)", "ehlo Host\\r\\n" },
		{ "mixed case", IN("hElO x\r\n"), "HELO (x)", "hElO x\\r\\n" },
		{ "ehlo without name", IN("EHLO\r\n"), "EHLO !501 5.5.4", NULL },
		{ "helo with blanks only", IN("HELO  \t \r\n"), "HELO !501 5.5.4", NULL },
		{ "longest name", IN("EHLO " HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED "123456789012\r\n"),
		    "EHLO (" HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED "123456789012)", NULL },
		{ "longer name", IN("EHLO " HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED "1234567890123\r\n"),
		    "EHLO !501 5.5.4", NULL },
		{ "address literal", IN("EHLO [IPv6:::1]\r\n"), "EHLO ([IPv6:::1])", NULL },
		{ "data", IN("DATA\r\n"), "DATA", "DATA\\r\\n" },
		{ "data, trailing blanks", IN("DATA \t\r\n"), "DATA", "DATA\\r\\n" },
		{ "data with argument", IN("DATA now\r\n"), "DATA !501 5.5.4", NULL },
		{ "rset", IN("RSET\r\n"), "RSET", "RSET\\r\\n" },
		{ "noop with argument", IN("NOOP a  b \r\n"), "NOOP (a  b)", "NOOP a  b\\r\\n" },
		{ "quit", IN("quit\r\n"), "QUIT", "quit\\r\\n" },
		{ "help", IN("HELP MAIL\r\n"), "HELP (MAIL)", NULL },
		{ "vrfy", IN("VRFY Joe Doe\r\n"), "VRFY (Joe Doe)", NULL },
		{ "expn", IN("EXPN list\r\n"), "EXPN (list)", NULL },
		{ "etrn", IN("ETRN @x.example\r\n"), "ETRN (@x.example)", NULL },
		{ "auth", IN("AUTH PLAIN AGEAYg==\r\n"), "AUTH (PLAIN AGEAYg==)", "AUTH PLAIN AGEAYg==\\r\\n" },
		{ "auth without mechanism", IN("AUTH \r\n"), "AUTH !501 5.5.4", NULL },
		{ "starttls", IN("STARTTLS\r\n"), "STARTTLS", NULL },
		{ "starttls with argument", IN("STARTTLS x\r\n"), "STARTTLS !501 5.5.4", NULL },
		{ "xclient", IN("XCLIENT ADDR=1.2.3.4\r\n"), "XCLIENT (ADDR=1.2.3.4)", NULL },
		{ "xforward", IN("XFORWARD NAME=x\r\n"), "XFORWARD (NAME=x)", NULL },
		{ "unknown", IN("FROB x\r\n"), "unknown !500 5.5.1", NULL },
		{ "verb with something glued on", IN("QUITX\r\n"), "unknown !500 5.5.1", NULL },
		{ "beginning of a verb", IN("QUI\r\n"), "unknown !500 5.5.1", NULL },
		{ "name of a pseudo verb", IN("content\r\n"), "unknown !500 5.5.1", NULL },
		{ "empty", IN("\r\n"), "unknown !500 5.5.2", NULL },
		{ "blanks", IN(" \t \r\n"), "unknown !500 5.5.2", NULL },
		{ "nothing at all", IN(""), "unknown !500 5.5.2", NULL },
		{ "leading blanks", IN(" \tQUIT\r\n"), "QUIT", "QUIT\\r\\n" },
		{ "tab after the verb", IN("EHLO\thost\r\n"), "EHLO (host)", "EHLO\\11host\\r\\n" },
		{ "8-bit verb", IN("\xc3\x89HLO x\r\n"), "unknown !500 5.5.1", NULL },
	};

	(void)state;
	run_commands(rows, COUNT(rows));
	assert_int_equal(smtp_verb_group(SMTP_RCPT), SMTP_FREE);
	assert_int_equal(smtp_verb_group(SMTP_MAIL), SMTP_ALONE);
	assert_int_equal(smtp_verb_group(SMTP_UNKNOWN), SMTP_LAST);
	assert_string_equal(smtp_verb_name(SMTP_NOTHING), "nothing");
}

static void test_1_command_line_ends(void **state)
{
	static const struct command_row rows[] = {
		{ "bare LF", IN("NOOP\n"), "NOOP", "NOOP\\r\\n" },
		{ "no line end", IN("NOOP"), "NOOP", "NOOP\\r\\n" },
		{ "lone LF", IN("\n"), "unknown !500 5.5.2", NULL },
		{ "CR inside", IN("NOOP\rQUIT\r\n"), "unknown !500 5.5.2", NULL },
		{ "CR CR LF", IN("NOOP\r\r\n"), "unknown !500 5.5.2", NULL },
		{ "CR before bare text", IN("\rNOOP\n"), "unknown !500 5.5.2", NULL },
		{ "NUL inside", IN("NO\0OP\r\n"), "unknown !500 5.5.2", NULL },
		{ "NUL at the end", IN("NOOP\0\r\n"), "unknown !500 5.5.2", NULL },
		{ "NUL in an address", IN("MAIL FROM:<a\0@b>\r\n"), "MAIL !500 5.5.2", NULL },
		{ "NUL in a secret", IN("AUTH PLAIN AG\0\r\n"), "AUTH !500 5.5.2", NULL },
	};
	static const char lines[] = "a\r\nb\n\nrest";
	size_t n;

	(void)state;
	run_commands(rows, COUNT(rows));
	for (size_t len = 0; len < sizeof lines; len++) {
		n = smtp_find_line(guarded(lines, len), len);
		assert_int_equal(n, len < 3 ? 0 : 3);
	}
	assert_int_equal(smtp_find_line(NULL, 0), 0);
	assert_int_equal(smtp_find_line((const unsigned char *)"\n", 1), 1);
}

static void test_21_22_23_24_paths(void **state)
{
	static const struct command_row rows[] = {
		{ "plain", IN("MAIL FROM:<a@b>\r\n"), "MAIL <a@b> [a@b]", "MAIL FROM:<a@b>\\r\\n" },
		{ "case kept", IN("mail from:<A.b@C>\r\n"), "MAIL <A.b@C> [A.b@C]", "MAIL FROM:<A.b@C>\\r\\n" },
		{ "null path", IN("MAIL FROM:<>\r\n"), "MAIL <> []", "MAIL FROM:<>\\r\\n" },
		{ "null path, parameter", IN("MAIL FROM:<> BODY=7BIT\r\n"), "MAIL <> [] {BODY=7BIT}",
		    "MAIL FROM:<> BODY=7BIT\\r\\n" },
		{ "blank after colon", IN("MAIL FROM: <a@b>\r\n"), "MAIL <a@b> [a@b] tolerated",
		    "MAIL FROM:<a@b>\\r\\n" },
		{ "tab after colon", IN("RCPT TO:\t<a@b>\r\n"), "RCPT <a@b> [a@b] tolerated", "RCPT TO:<a@b>\\r\\n" },
		{ "no brackets", IN("MAIL FROM:a@b\r\n"), "MAIL a@b [a@b] tolerated", "MAIL FROM:<a@b>\\r\\n" },
		{ "no brackets, blanks, parameter", IN("MAIL FROM: a@b  SIZE=7 \r\n"),
		    "MAIL a@b [a@b] {SIZE=7} 7 tolerated", "MAIL FROM:<a@b> SIZE=7\\r\\n" },
		{ "no brackets, quoted", IN("RCPT TO:\"a b\"@c\r\n"), "RCPT !501 5.5.4", NULL },
		{ "two blanks after the verb", IN("MAIL  FROM:<a@b>\r\n"), "MAIL <a@b> [a@b]",
		    "MAIL FROM:<a@b>\\r\\n" },
		{ "quoted blank", IN("RCPT TO:<\"a b\"@c>\r\n"), "RCPT <\"a b\"@c> [\"a b\"@c]",
		    "RCPT TO:<\"a b\"@c>\\r\\n" },
		{ "quoted >", IN("RCPT TO:<\"a>b\"@c>\r\n"), "RCPT <\"a>b\"@c> [\"a>b\"@c]", NULL },
		{ "quoted <", IN("RCPT TO:<\"a<b\"@c>\r\n"), "RCPT <\"a<b\"@c> [\"a<b\"@c]", NULL },
		{ "quoted @", IN("RCPT TO:<\"a@b\"@c>\r\n"), "RCPT <\"a@b\"@c> [\"a@b\"@c]", NULL },
		{ "quoted quote", IN("RCPT TO:<\"a\\\"> b\"@c>\r\n"), "RCPT <\"a\\\"> b\"@c> [\"a\\\"> b\"@c]",
		    "RCPT TO:<\"a\\\"> b\"@c>\\r\\n" },
		{ "quoted backslash", IN("RCPT TO:<\"a\\\\\"@c> X=1\r\n"), "RCPT <\"a\\\\\"@c> [\"a\\\\\"@c] {X=1}",
		    NULL },
		{ "quoted blank and parameters", IN("MAIL FROM:<\"a SIZE=1\"@c> SIZE=2\r\n"),
		    "MAIL <\"a SIZE=1\"@c> [\"a SIZE=1\"@c] {SIZE=2} 2", NULL },
		{ "IPv4 literal", IN("RCPT TO:<a@[192.0.2.1]>\r\n"), "RCPT <a@[192.0.2.1]> [a@[192.0.2.1]]", NULL },
		{ "IPv6 literal", IN("RCPT TO:<a@[IPv6:2001:db8::1]>\r\n"),
		    "RCPT <a@[IPv6:2001:db8::1]> [a@[IPv6:2001:db8::1]]", NULL },
		{ "postmaster", IN("RCPT TO:<Postmaster>\r\n"), "RCPT <Postmaster> [Postmaster]",
		    "RCPT TO:<Postmaster>\\r\\n" },
		{ "source route", IN("RCPT TO:<@a,@b:c@d>\r\n"), "RCPT <@a,@b:c@d> [c@d]",
		    "RCPT TO:<c@d>\\r\\n" },
		{ "source route, quoted colon", IN("RCPT TO:<@a:\"x:y\"@d>\r\n"), "RCPT <@a:\"x:y\"@d> [\"x:y\"@d]",
		    NULL },
		{ "UTF-8", IN("MAIL FROM:<j\xc3\xb6@x> SMTPUTF8\r\n"), "MAIL <j\xc3\xb6@x> [j\xc3\xb6@x] {SMTPUTF8}",
		    "MAIL FROM:<j\xc3\xb6@x> SMTPUTF8\\r\\n" },
		{ "percent", IN("RCPT TO:<a%s%n@b>\r\n"), "RCPT <a%s%n@b> [a%s%n@b]", "RCPT TO:<a%s%n@b>\\r\\n" },
		{ "no argument", IN("MAIL\r\n"), "MAIL !501 5.5.4", NULL },
		{ "no FROM", IN("MAIL <a@b>\r\n"), "MAIL !501 5.5.4", NULL },
		{ "FROM only", IN("MAIL FROM:\r\n"), "MAIL !501 5.5.4", NULL },
		{ "FROM without colon", IN("MAIL FROM <a@b>\r\n"), "MAIL !501 5.5.4", NULL },
		{ "blank before the colon", IN("MAIL FROM :<a@b>\r\n"), "MAIL <a@b> [a@b] tolerated",
		    "MAIL FROM:<a@b>\\r\\n" },
		{ "blanks around the colon", IN("RCPT TO\t : <a@b>\r\n"), "RCPT <a@b> [a@b] tolerated",
		    "RCPT TO:<a@b>\\r\\n" },
		{ "blank instead of the colon", IN("RCPT TO <a@b>\r\n"), "RCPT !501 5.5.4", NULL },
		{ "two colons", IN("RCPT TO::<a@b>\r\n"), "RCPT !501 5.5.4", NULL },
		{ "quoted tab", IN("RCPT TO:<\"a\tb\"@c>\r\n"), "RCPT <\"a\tb\"@c> [\"a\tb\"@c]", NULL },
		{ "TO for MAIL", IN("MAIL TO:<a@b>\r\n"), "MAIL !501 5.5.4", NULL },
		{ "FROM for RCPT", IN("RCPT FROM:<a@b>\r\n"), "RCPT !501 5.5.4", NULL },
		{ "empty recipient", IN("RCPT TO:<>\r\n"), "RCPT !501 5.1.3", NULL },
		{ "route without mailbox", IN("RCPT TO:<@a:>\r\n"), "RCPT !501 5.5.4", NULL },
		{ "never closed", IN("MAIL FROM:<a@b\r\n"), "MAIL !501 5.5.4", NULL },
		{ "lone bracket", IN("MAIL FROM:<\r\n"), "MAIL !501 5.5.4", NULL },
		{ "never opened", IN("MAIL FROM:a@b>\r\n"), "MAIL !501 5.5.4", NULL },
		{ "twice opened", IN("MAIL FROM:<<a@b>\r\n"), "MAIL !501 5.5.4", NULL },
		{ "twice closed", IN("MAIL FROM:<a@b>>\r\n"), "MAIL !501 5.5.4", NULL },
		{ "blank inside", IN("MAIL FROM:<a b@c>\r\n"), "MAIL !501 5.5.4", NULL },
		{ "blank before >", IN("MAIL FROM:<a@b >\r\n"), "MAIL !501 5.5.4", NULL },
		{ "quote never closed", IN("MAIL FROM:<\"a@b>\r\n"), "MAIL !501 5.5.4", NULL },
		{ "quote never closed, no brackets", IN("MAIL FROM:\"a@b\r\n"), "MAIL !501 5.5.4", NULL },
		{ "backslash at the end", IN("MAIL FROM:<a\\\r\n"), "MAIL !501 5.5.4", NULL },
		{ "backslash hides >", IN("MAIL FROM:<a\\>\r\n"), "MAIL !501 5.5.4", NULL },
		{ "backslash at the end, no brackets", IN("MAIL FROM:a\\\r\n"), "MAIL !501 5.5.4", NULL },
		{ "control character", IN("MAIL FROM:<a\033@b>\r\n"), "MAIL !501 5.5.4", NULL },
		{ "quoted control character", IN("MAIL FROM:<\"a\\\033\"@b>\r\n"), "MAIL !501 5.5.4", NULL },
		{ "two addresses", IN("RCPT TO:<a@b>,<c@d>\r\n"), "RCPT !501 5.5.4", NULL },
		{ "parameter glued on", IN("RCPT TO:<a@b>X=1\r\n"), "RCPT !501 5.5.4", NULL },
	};

	(void)state;
	run_commands(rows, COUNT(rows));
}

static void test_29_30_42_48_50_parameters(void **state)
{
	static const struct command_row rows[] = {
		{ "size", IN("MAIL FROM:<a@b> SIZE=1000\r\n"), "MAIL <a@b> [a@b] {SIZE=1000} 1000", NULL },
		{ "size 0", IN("MAIL FROM:<a@b> size=0\r\n"), "MAIL <a@b> [a@b] {size=0}", NULL },
		{ "size of 19 digits", IN("MAIL FROM:<a@b> SIZE=9999999999999999999\r\n"),
		    "MAIL <a@b> [a@b] {SIZE=9999999999999999999} 9999999999999999999", NULL },
		{ "size of 20 digits, RFC 1870 3", IN("MAIL FROM:<a@b> SIZE=00000000000000001000\r\n"),
		    "MAIL <a@b> [a@b] {SIZE=00000000000000001000} 1000", NULL },
		{ "size beyond all numbers", IN("MAIL FROM:<a@b> SIZE=99999999999999999999\r\n"),
		    "MAIL <a@b> [a@b] {SIZE=99999999999999999999} 18446744073709551615", NULL },
		{ "size of 21 digits", IN("MAIL FROM:<a@b> SIZE=100000000000000000000\r\n"), "MAIL !501 5.5.4", NULL },
		{ "size without number", IN("MAIL FROM:<a@b> SIZE=\r\n"), "MAIL !501 5.5.4", NULL },
		{ "size without =", IN("MAIL FROM:<a@b> SIZE\r\n"), "MAIL !501 5.5.4", NULL },
		{ "negative size", IN("MAIL FROM:<a@b> SIZE=-1\r\n"), "MAIL !501 5.5.4", NULL },
		{ "size of a recipient is not ours", IN("RCPT TO:<a@b> SIZE=x\r\n"), "RCPT <a@b> [a@b] {SIZE=x}",
		    NULL },
		{ "body", IN("MAIL FROM:<a@b> BODY=8BITMIME\r\n"), "MAIL <a@b> [a@b] {BODY=8BITMIME}", NULL },
		{ "binarymime", IN("MAIL FROM:<a@b> body=BinaryMime SIZE=5\r\n"),
		    "MAIL <a@b> [a@b] {body=BinaryMime SIZE=5} 5 binarymime", NULL },
		{ "body without value", IN("MAIL FROM:<a@b> BODY\r\n"), "MAIL <a@b> [a@b] {BODY}", NULL },
		{ "requiretls", IN("MAIL FROM:<a@b> RequireTLS\r\n"), "MAIL <a@b> [a@b] {RequireTLS} requiretls",
		    NULL },
		{ "requiretls of a recipient", IN("RCPT TO:<a@b> REQUIRETLS\r\n"), "RCPT <a@b> [a@b] {REQUIRETLS}",
		    NULL },
		{ "tab between", IN("MAIL FROM:<a@b>\tSIZE=1\tBODY=7BIT\r\n"),
		    "MAIL <a@b> [a@b] {SIZE=1\tBODY=7BIT} 1", NULL },
		{ "unknown one goes on", IN("MAIL FROM:<a@b> X-Y=z=w\r\n"), "MAIL <a@b> [a@b] {X-Y=z=w}",
		    "MAIL FROM:<a@b> X-Y=z=w\\r\\n" },
		{ "empty value", IN("MAIL FROM:<a@b> X=\r\n"), "MAIL <a@b> [a@b] {X=}", NULL },
		{ "no keyword", IN("MAIL FROM:<a@b> =x\r\n"), "MAIL !501 5.5.4", NULL },
		{ "keyword starts with -", IN("MAIL FROM:<a@b> -X=x\r\n"), "MAIL !501 5.5.4", NULL },
		{ "keyword with _", IN("MAIL FROM:<a@b> X_Y=x\r\n"), "MAIL !501 5.5.4", NULL },
		{ "control in a value", IN("MAIL FROM:<a@b> X=\001\r\n"), "MAIL !501 5.5.4", NULL },
		{ "address where a parameter belongs", IN("MAIL FROM:<a@b> <c@d>\r\n"), "MAIL !501 5.5.4", NULL },
		{ "duplicate", IN("MAIL FROM:<a@b> SIZE=1 SIZE=1\r\n"), "MAIL !501 5.5.4", NULL },
		{ "duplicate in other case", IN("MAIL FROM:<a@b> X=1 Y x\r\n"), "MAIL !501 5.5.4", NULL },
		{ "one the beginning of the other", IN("MAIL FROM:<a@b> XA=1 X=1 XAB\r\n"),
		    "MAIL <a@b> [a@b] {XA=1 X=1 XAB}", NULL },
		{ "DSN", IN("RCPT TO:<a@b> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bc@b\r\n"),
		    "RCPT <a@b> [a@b] {NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bc@b}",
		    "RCPT TO:<a@b> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bc@b\\r\\n" },
		{ "ENVID", IN("MAIL FROM:<a@b> RET=HDRS ENVID=q+3D1\r\n"), "MAIL <a@b> [a@b] {RET=HDRS ENVID=q+3D1}",
		    NULL },
		{ "ENVID with =", IN("MAIL FROM:<a@b> ENVID=q=1\r\n"), "MAIL <a@b> [a@b] {ENVID=q=1}", NULL },
		{ "ENVID with half a hexchar", IN("MAIL FROM:<a@b> ENVID=q+3\r\n"), "MAIL !501 5.5.4", NULL },
		{ "ENVID with a lone plus", IN("MAIL FROM:<a@b> ENVID=+\r\n"), "MAIL !501 5.5.4", NULL },
		{ "ENVID with lower hex", IN("MAIL FROM:<a@b> ENVID=+3d\r\n"), "MAIL <a@b> [a@b] {ENVID=+3d}", NULL },
		{ "ENVID empty", IN("MAIL FROM:<a@b> ENVID=\r\n"), "MAIL !501 5.5.4", NULL },
		{ "ENVID without value", IN("MAIL FROM:<a@b> ENVID\r\n"), "MAIL !501 5.5.4", NULL },
		{ "ORCPT without type", IN("RCPT TO:<a@b> ORCPT=a@b\r\n"), "RCPT !501 5.5.4", NULL },
		{ "ORCPT without address", IN("RCPT TO:<a@b> ORCPT=rfc822;\r\n"), "RCPT !501 5.5.4", NULL },
		{ "ORCPT without value", IN("RCPT TO:<a@b> ORCPT\r\n"), "RCPT !501 5.5.4", NULL },
		{ "ORCPT with =", IN("RCPT TO:<a@b> ORCPT=rfc822;a=b@c\r\n"), "RCPT <a@b> [a@b] {ORCPT=rfc822;a=b@c}", NULL },
		{ "ORCPT with an empty type", IN("RCPT TO:<a@b> ORCPT=;a@c\r\n"), "RCPT !501 5.5.4", NULL },
		{ "ORCPT in UTF-8, RFC 6533 3", IN("RCPT TO:<a@b> ORCPT=utf-8;j\xc3\xb6@b\r\n"),
		    "RCPT <a@b> [a@b] {ORCPT=utf-8;j\xc3\xb6@b}", NULL },
		{ "AUTH=", IN("MAIL FROM:<a@b> AUTH=<>\r\n"), "MAIL <a@b> [a@b] {AUTH=<>} auth", NULL },
		{ "AUTH= of a recipient", IN("RCPT TO:<a@b> AUTH=<>\r\n"), "RCPT <a@b> [a@b] {AUTH=<>}", NULL },
		{ "AUTH= with xtext", IN("MAIL FROM:<a@b> AUTH=e+3Dmc2@example\r\n"),
		    "MAIL <a@b> [a@b] {AUTH=e+3Dmc2@example} auth", NULL },
		{ "AUTH= with =", IN("MAIL FROM:<a@b> AUTH=e=mc2@example\r\n"), "MAIL <a@b> [a@b] {AUTH=e=mc2@example} auth", NULL },
	};

	(void)state;
	run_commands(rows, COUNT(rows));
}

static void test_30_many_parameters(void **state)
{
	for (int count = SMTP_PARAMS_MAX - 1; count <= SMTP_PARAMS_MAX + 1; count++) {
		struct smtp_command c;

		clear(&got);
		say(&got, "MAIL FROM:<a@b>");
		for (int i = 0; i < count; i++)
			say(&got, " P%d=%d", i, i);
		smtp_parse(guarded(got.bytes, got.len), got.len, &c);
		assert_int_equal(c.refusal == NULL, count <= SMTP_PARAMS_MAX);
	}
	(void)state;
}

static void test_30_walk_parameters(void **state)
{
	static const struct {
		const char *name;
		struct input in;
		const char *want;
	} rows[] = {
		{ "none", IN(""), "" },
		{ "blanks", IN("  \t"), "" },
		{ "several", IN("A=1  b\tC-D= E==x="), "(A:1)(b)(C-D:)(E:=x=)" },
		{ "bad one after a good one", IN("A=1 ?"), "(A:1)at 4" },
		{ "bad end of a keyword", IN("A?=1"), "at 0" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		size_t n = rows[i].in.len, at = 0;
		const unsigned char *in = guarded(rows[i].in.bytes, n);
		struct smtp_param p;

		clear(&got);
		while (smtp_param_next(in, n, &at, &p)) {
			say(&got, "(%.*s", (int)p.keyword_len, p.keyword);
			if (p.value)
				say(&got, ":%.*s", (int)p.value_len, p.value);
			say(&got, ")");
		}
		if (at < n)
			say(&got, "at %zu", at);
		expect_text(rows[i].name, got.bytes, rows[i].want);
	}
}

static void test_45_bdat(void **state)
{
	static const struct command_row rows[] = {
		{ "chunk", IN("BDAT 1000\r\n"), "BDAT (1000) 1000", "BDAT 1000\\r\\n" },
		{ "last", IN("bdat 86 last\r\n"), "BDAT (86 last) 86 last", "bdat 86 last\\r\\n" },
		{ "zero last", IN("BDAT 0 LAST\r\n"), "BDAT (0 LAST) last", NULL },
		{ "zero", IN("BDAT 0\r\n"), "BDAT (0)", NULL },
		{ "blanks", IN("BDAT \t7 \t LAST \r\n"), "BDAT (7 \t LAST) 7 last", NULL },
		{ "trailing blanks", IN("BDAT 7  \r\n"), "BDAT (7) 7", NULL },
		{ "bare LF", IN("BDAT 7\n"), "BDAT (7) 7", NULL },
		{ "nothing", IN("BDAT\r\n"), "BDAT !501 5.5.4 fatal", NULL },
		{ "no number", IN("BDAT LAST\r\n"), "BDAT !501 5.5.4 fatal", NULL },
		{ "negative", IN("BDAT -1\r\n"), "BDAT !501 5.5.4 fatal", NULL },
		{ "hexadecimal", IN("BDAT 0x10\r\n"), "BDAT !501 5.5.4 fatal", NULL },
		{ "glued", IN("BDAT 7LAST\r\n"), "BDAT !501 5.5.4 fatal", NULL },
		{ "other word", IN("BDAT 7 LASTLY\r\n"), "BDAT !501 5.5.4 fatal", NULL },
		{ "two numbers", IN("BDAT 7 7\r\n"), "BDAT !501 5.5.4 fatal", NULL },
		{ "more after last", IN("BDAT 7 LAST x\r\n"), "BDAT !501 5.5.4 fatal", NULL },
		{ "beyond all numbers", IN("BDAT 99999999999999999999\r\n"), "BDAT !501 5.5.4 fatal", NULL },
		{ "too many digits", IN("BDAT 100000000000000000000\r\n"), "BDAT !501 5.5.4 fatal", NULL },
	};

	(void)state;
	run_commands(rows, COUNT(rows));
}

/* ---- replies ---- */

struct row {
	const char *name;
	struct input in;
	const char *want;
};

static void test_11_reply_lines(void **state)
{
	static const struct row rows[] = {
		{ "last", IN("250 Ok\r\n"), "250 [Ok]" },
		{ "not last", IN("250-Ok\r\n"), "250-[Ok]" },
		{ "bare code", IN("250\r\n"), "250 []" },
		{ "code and blank", IN("250 \r\n"), "250 []" },
		{ "code and hyphen", IN("250-\r\n"), "250-[]" },
		{ "LF alone", IN("354 go\n"), "354 [go]" },
		{ "bare code, LF alone", IN("421\n"), "421 []" },
		{ "hyphens in the text", IN("220-a-b c\r\n"), "220-[a-b c]" },
		{ "8 bit", IN("550 \xff\r\n"), "550 [\xff]" },
		{ "CR in the text", IN("250 a\rb\r\n"), "250 [a\\rb]" },
		{ "CR CR LF", IN("250 a\r\r\n"), "250 [a]" },
		{ "599", IN("599 x\r\n"), "599 [x]" },
		{ "empty", IN("\r\n"), "none" },
		{ "nothing", IN(""), "none" },
		{ "two digits", IN("25\r\n"), "none" },
		{ "four digits", IN("2500 x\r\n"), "none" },
		{ "first digit 0", IN("050 x\r\n"), "none" },
		{ "first digit 1", IN("150 x\r\n"), "none" },
		{ "first digit 6", IN("650 x\r\n"), "none" },
		{ "letter in the code", IN("2x0 x\r\n"), "none" },
		{ "letter at the end", IN("25x\r\n"), "none" },
		{ "other separator", IN("250_x\r\n"), "none" },
		{ "tab as separator", IN("250\tx\r\n"), "none" },
		{ "NUL as separator", IN("250\0x\r\n"), "none" },
		{ "leading blank", IN(" 250 x\r\n"), "none" },
		{ "words", IN("hello\r\n"), "none" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct smtp_line line;

		clear(&got);
		if (smtp_parse_reply(guarded(rows[i].in.bytes, rows[i].in.len), rows[i].in.len, &line)) {
			say(&got, "%d%c[", line.code, line.last ? ' ' : '-');
			say_bytes(&got, line.text, line.text_len);
			say(&got, "]");
			assert_true(line.raw + line.raw_len == line.text + line.text_len);
		} else {
			say(&got, "none");
		}
		expect_text(rows[i].name, got.bytes, rows[i].want);
	}
}

static void test_17_enhanced_codes(void **state)
{
	static const struct row rows[] = {
		{ "with text", IN("2.1.0 Ok"), "2.1.0" },
		{ "alone", IN("5.7.1"), "5.7.1" },
		{ "three digits", IN("4.123.456 x"), "4.123.456" },
		{ "then tab", IN("4.0.0\tx"), "4.0.0" },
		{ "class 3", IN("3.1.1 x"), "0.0.0" },
		{ "class of zeros", IN("002.1.1 x"), "0.0.0" },
		{ "class 25", IN("25.1.1 x"), "0.0.0" },
		{ "four digits", IN("2.1.1000 x"), "0.0.0" },
		{ "four digits in the subject", IN("2.1000.1 x"), "0.0.0" },
		{ "two parts", IN("2.1 x"), "0.0.0" },
		{ "four parts", IN("2.1.1.1 x"), "0.0.0" },
		{ "glued", IN("2.1.1x"), "0.0.0" },
		{ "ends in a dot", IN("2.1."), "0.0.0" },
		{ "empty part", IN("2..1 x"), "0.0.0" },
		{ "blank first", IN(" 2.1.1 x"), "0.0.0" },
		{ "words", IN("Ok"), "0.0.0" },
		{ "nothing", IN(""), "0.0.0" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		uint16_t e[3] = { 9, 9, 9 };

		smtp_enhanced(guarded(rows[i].in.bytes, rows[i].in.len), rows[i].in.len, e);
		clear(&got);
		say(&got, "%u.%u.%u", e[0], e[1], e[2]);
		expect_text(rows[i].name, got.bytes, rows[i].want);
	}
}

static void test_10_reply_write(void **state)
{
	static const struct {
		int code;
		bool last;
		struct row row;
	} rows[] = {
		{ 250, true, { "plain", IN("2.0.0 Ok"), "250 2.0.0 Ok\\r\\n" } },
		{ 599, false, { "not last", IN("x"), "599-x\\r\\n" } },
		{ 421, true, { "empty", IN(""), "421 \\r\\n" } },
		{ 550, true, { "line ends", IN("a\r\n250 b\n"), "550 a  250 b \\r\\n" } },
		{ 550, true, { "controls", IN("a\0b\033[2Jc\177"), "550 a b [2Jc \\r\\n" } },
		{ 550, true, { "tab and 8 bit stay", IN("a\tb\xc3\xa9"), "550 a\\11b\xc3\xa9\\r\\n" } },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		const struct row *r = &rows[i].row;
		unsigned char out[64];
		size_t n;

		assert_int_equal(smtp_reply_write(rows[i].code, rows[i].last, guarded(r->in.bytes, r->in.len),
				     r->in.len, out, r->in.len + 5), 0);
		n = smtp_reply_write(rows[i].code, rows[i].last, guarded(r->in.bytes, r->in.len), r->in.len, out,
		    r->in.len + 6);
		clear(&got);
		say_bytes(&got, out, n);
		expect_text(r->name, got.bytes, r->want);
	}
}

/* ---- EHLO ---- */

static void ehlo_lines(struct smtp_ehlo *e, const char *lines)
{
	bool first = true;

	for (const char *end; *lines; lines = end + 1, first = false) {
		end = strchr(lines, '\n');
		smtp_ehlo_line(e, first, guarded(lines, (size_t)(end - lines)), (size_t)(end - lines));
	}
}

static void say_ehlo(struct text *t, const struct smtp_ehlo *e, const struct smtp_offer *offered)
{
	static unsigned char out[SMTP_EHLO_WRITTEN];
	size_t n;

	assert_int_equal(smtp_ehlo_write(e, offered, out, smtp_ehlo_bound(e) - 1), 0);
	n = smtp_ehlo_write(e, offered, out, smtp_ehlo_bound(e));
	say_bytes(t, out, n);
}

static void test_40_41_42_50_ehlo_lists(void **state)
{
	static const struct {
		const char *name, *lines;
		struct smtp_offer offer;
		unsigned extensions;
		uint64_t size;
		const char *want;
	} rows[] = {
		{ "domain only", "mx.example at your service\n", { 0, false, false, false, false, false }, 0, 0,
		    "250-mx.example at your service\\r\\n250 PIPELINING\\r\\n" },
		{ "pipelining stands once, where it stood", "h\nPIPELINING\nDSN\npipelining\n", { 0, false, false, false, false, false },
		    SMTP_EXT_PIPELINING, 0, "250-h\\r\\n250-PIPELINING\\r\\n250 DSN\\r\\n" },
		{ "pipelining and ours behind it", "h\nPIPELINING\nSTARTTLS\nDSN\n", { 0, false, false, true, false, false },
		    SMTP_EXT_PIPELINING | SMTP_EXT_STARTTLS, 0,
		    "250-h\\r\\n250-PIPELINING\\r\\n250-DSN\\r\\n250 STARTTLS\\r\\n" },
		{ "as the upstream spells it", "h\n8bitmime\nSmtpUTF8\n", { 0, false, false, false, false, false },
		    SMTP_EXT_8BITMIME | SMTP_EXT_SMTPUTF8, 0,
		    "250-h\\r\\n250-8bitmime\\r\\n250-SmtpUTF8\\r\\n250 PIPELINING\\r\\n" },
		{ "unknown ones are removed", "h\nX-FROB\nTURN\nDSN\n", { 0, false, false, false, false, false }, 0, 0,
		    "250-h\\r\\n250-DSN\\r\\n250 PIPELINING\\r\\n" },
		{ "xclient and xforward are ours alone", "h\nXCLIENT ADDR\nXFORWARD NAME\n", { 0, true, true, false, false, false },
		    SMTP_EXT_XCLIENT | SMTP_EXT_XFORWARD, 0, "250-h\\r\\n250 PIPELINING\\r\\n" },
		{ "beginning of a keyword", "h\nDS\nDSNX\n", { 0, false, false, false, false, false }, 0, 0,
		    "250-h\\r\\n250 PIPELINING\\r\\n" },
		{ "empty lines and blanks", "h\n\n  \n ETRN \n", { 0, false, false, false, false, false }, 0, 0,
		    "250-h\\r\\n250-ETRN\\r\\n250 PIPELINING\\r\\n" },
		{ "duplicates", "h\nSIZE 5\nsize 9\nHELP\nHELP me\n", { 0, false, false, false, false, false }, SMTP_EXT_SIZE, 5,
		    "250-h\\r\\n250-SIZE 5\\r\\n250-HELP\\r\\n250 PIPELINING\\r\\n" },
		{ "starttls is ours alone", "h\nstarttls\n", { 0, true, true, false, false, false }, SMTP_EXT_STARTTLS, 0,
		    "250-h\\r\\n250 PIPELINING\\r\\n" },
		{ "starttls of ours", "h\nDSN\n", { 0, false, false, true, false, false }, 0, 0,
		    "250-h\\r\\n250-DSN\\r\\n250-STARTTLS\\r\\n250 PIPELINING\\r\\n" },
		{ "starttls once", "h\nSTARTTLS\nSIZE 0\n", { 18446744073709551615u, false, false, true, false, false },
		    SMTP_EXT_STARTTLS | SMTP_EXT_SIZE, 0,
		    "250-h\\r\\n250-SIZE 18446744073709551615\\r\\n250-STARTTLS\\r\\n250 PIPELINING\\r\\n" },
		{ "size lower than ours", "h\nSIZE 1000\n", { 2000, false, false, false, false, false }, SMTP_EXT_SIZE, 1000,
		    "250-h\\r\\n250-SIZE 1000\\r\\n250 PIPELINING\\r\\n" },
		{ "size higher than ours", "h\nSize 3000\n", { 2000, false, false, false, false, false }, SMTP_EXT_SIZE, 3000,
		    "250-h\\r\\n250-SIZE 2000\\r\\n250 PIPELINING\\r\\n" },
		{ "size without number", "h\nSIZE\n", { 2000, false, false, false, false, false }, SMTP_EXT_SIZE, 0,
		    "250-h\\r\\n250-SIZE 2000\\r\\n250 PIPELINING\\r\\n" },
		{ "size 0 is no limit", "h\nSIZE 0\n", { 2000, false, false, false, false, false }, SMTP_EXT_SIZE, 0,
		    "250-h\\r\\n250-SIZE 2000\\r\\n250 PIPELINING\\r\\n" },
		{ "no limit of ours", "h\nSIZE 0\n", { 0, false, false, false, false, false }, SMTP_EXT_SIZE, 0,
		    "250-h\\r\\n250-SIZE 0\\r\\n250 PIPELINING\\r\\n" },
		{ "size after two blanks", "h\nSIZE  1000\n", { 2000, false, false, false, false, false }, SMTP_EXT_SIZE, 1000,
		    "250-h\\r\\n250-SIZE 1000\\r\\n250 PIPELINING\\r\\n" },
		{ "huge limit of ours", "h\nSIZE 0\n", { UINT64_MAX, false, false, false, false, false }, SMTP_EXT_SIZE, 0,
		    "250-h\\r\\n250-SIZE 18446744073709551615\\r\\n250 PIPELINING\\r\\n" },
		{ "auth hidden", "h\nAUTH PLAIN LOGIN\nAUTH=LOGIN\n", { 0, false, false, false, false, false }, SMTP_EXT_AUTH, 0,
		    "250-h\\r\\n250 PIPELINING\\r\\n" },
		{ "auth shown", "h\nAUTH PLAIN LOGIN\nAUTH=LOGIN\nauth=x\n", { 0, true, false, false, false, false }, SMTP_EXT_AUTH, 0,
		    "250-h\\r\\n250-AUTH PLAIN LOGIN\\r\\n250-AUTH=LOGIN\\r\\n250 PIPELINING\\r\\n" },
		{ "old form alone", "h\nauth=login\n", { 0, true, false, false, false, false }, SMTP_EXT_AUTH, 0,
		    "250-h\\r\\n250-auth=login\\r\\n250 PIPELINING\\r\\n" },
		{ "requiretls not verified", "h\nREQUIRETLS\n", { 0, true, false, false, false, false }, SMTP_EXT_REQUIRETLS, 0,
		    "250-h\\r\\n250 PIPELINING\\r\\n" },
		{ "requiretls verified", "h\nREQUIRETLS\n", { 0, false, true, false, false, false }, SMTP_EXT_REQUIRETLS, 0,
		    "250-h\\r\\n250-REQUIRETLS\\r\\n250 PIPELINING\\r\\n" },
		{ "chunking", "h\nCHUNKING\nBINARYMIME\n", { 0, false, false, false, false, false }, SMTP_EXT_CHUNKING, 0,
		    "250-h\\r\\n250-CHUNKING\\r\\n250-BINARYMIME\\r\\n250 PIPELINING\\r\\n" },
		{ "parameters", "h\nLIMITS RCPTMAX=5\nDELIVERBY 240\nMT-PRIORITY STANAG4406\nNO-SOLICITING x:y\n",
		    { 0, false, false, false, false, false }, 0, 0,
		    "250-h\\r\\n250-LIMITS RCPTMAX=5\\r\\n250-DELIVERBY 240\\r\\n250-MT-PRIORITY STANAG4406\\r\\n"
		    "250-NO-SOLICITING x:y\\r\\n250 PIPELINING\\r\\n" },
		{ "limits of ours", "h\nLIMITS MAILMAX=2 RCPTMAX=5\nHELP\n", { 0, false, false, true, true, false }, 0, 0,
		    "250-h\\r\\n250-HELP\\r\\n250-LIMITS RCPTMAX=1\\r\\n250-STARTTLS\\r\\n250 PIPELINING\\r\\n" },
		{ "controls in a line", "h\033x\nHELP \001\n", { 0, false, false, false, false, false }, 0, 0,
		    "250-h x\\r\\n250-HELP  \\r\\n250 PIPELINING\\r\\n" },
	};
	static struct smtp_ehlo e;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		/* What another list left behind must not shine through: PROTOCOL 57. */
		ehlo_lines(&e, "other\nSIZE 77\nSTARTTLS\nCHUNKING\nPIPELINING\nAUTH X\n");
		ehlo_lines(&e, rows[i].lines);
		clear(&got);
		say_ehlo(&got, &e, &rows[i].offer);
		expect_text(rows[i].name, got.bytes, rows[i].want);
		if (e.extensions != rows[i].extensions || e.size != rows[i].size)
			fail_msg("%s: extensions %x, size %llu", rows[i].name, e.extensions,
			    (unsigned long long)e.size);
	}
}

static void test_54_what_stands_behind_a_keyword(void **state)
{
	static const struct {
		const char *lines;
		enum smtp_extension extension;
		const char *want;
	} rows[] = {
		{ "h\nXCLIENT NAME ADDR\n", SMTP_EXT_XCLIENT, "NAME ADDR" },
		{ "h\nDSN\nxclient\t NAME  ADDR \n", SMTP_EXT_XCLIENT, "NAME  ADDR" },
		{ "h\nXFORWARD NAME\nXCLIENT ADDR\n", SMTP_EXT_XFORWARD, "NAME" },
		{ "h\nXFORWARD NAME\nXFORWARD ADDR\n", SMTP_EXT_XFORWARD, "NAME" },
		{ "h\nXCLIENT\n", SMTP_EXT_XCLIENT, "" },
		{ "h\nXFORWARD NAME\nXCLIENTS ADDR\n", SMTP_EXT_XCLIENT, NULL },
		{ "XCLIENT NAME\n", SMTP_EXT_XCLIENT, NULL },
		{ "h\n", SMTP_EXT_XCLIENT, NULL },
	};
	static struct smtp_ehlo e;

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		const unsigned char *args;
		size_t n = 0;

		ehlo_lines(&e, "other\nXCLIENT OLD\nXFORWARD OLD\n");
		ehlo_lines(&e, rows[i].lines);
		args = smtp_ehlo_args(&e, rows[i].extension, &n);
		assert_int_equal(args != NULL, rows[i].want != NULL);
		if (args && (n != strlen(rows[i].want) || memcmp(args, rows[i].want, n) != 0))
			fail_msg("%s: %.*s", rows[i].lines, (int)n, (const char *)args);
	}
}

static void test_41_ehlo_of_2000_lines(void **state)
{
	static const struct smtp_offer everything = { 0, true, true, false, false, false };
	static struct smtp_ehlo e;
	static unsigned char out[SMTP_EHLO_WRITTEN];
	char line[600];
	size_t n;

	(void)state;
	memset(line, 'x', sizeof line);
	smtp_ehlo_line(&e, true, guarded(line, sizeof line), sizeof line);
	for (int i = 0; i < 2000; i++) {
		n = (size_t)snprintf(line, sizeof line, i % 2 ? "X-%d" : "HELP %d", i);
		smtp_ehlo_line(&e, false, guarded(line, n), n);
	}
	memcpy(line, "DSN ", 4);
	smtp_ehlo_line(&e, false, guarded(line, 256), 256);
	memcpy(line, "ETRN", 4);
	line[4] = ' ';
	smtp_ehlo_line(&e, false, guarded(line, 255), 255);
	smtp_ehlo_line(&e, false, guarded("STARTTLS", 8), 8);
	assert_int_equal(e.extensions, SMTP_EXT_STARTTLS);
	n = smtp_ehlo_write(&e, &everything, out, sizeof out);
	assert_int_equal(n, (4 + 512 + 2) + (4 + 6 + 2) + (4 + 255 + 2) + (4 + 10 + 2));
}

/* Every keyword with a line as long as can be: neither list may burst, and what TLS and the queue need is known. */
static void test_41_ehlo_of_longest_lines(void **state)
{
	static const char *const words[] = { "HELP", "VRFY", "EXPN", "ETRN", "DSN", "8BITMIME", "SMTPUTF8", "LIMITS",
		"AUTH", "AUTH=", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY", "NO-SOLICITING", "BINARYMIME",
		"ENHANCEDSTATUSCODES", "REQUIRETLS", "CHUNKING", "SIZE", "STARTTLS", "PIPELINING" };
	static const struct smtp_offer everything = { UINT64_MAX, true, true, true, true, false };
	static struct smtp_ehlo e;
	unsigned char line[255], out[SMTP_EHLO_WRITTEN];

	(void)state;
	smtp_ehlo_line(&e, true, NULL, 0);
	for (size_t i = 0; i < COUNT(words); i++) {
		memset(line, ' ', sizeof line);
		line[sizeof line - 1] = 'x';
		memcpy(line, words[i], strlen(words[i]));
		smtp_ehlo_line(&e, false, guarded(line, sizeof line), sizeof line);
	}
	assert_true(e.text_len <= sizeof e.text);
	assert_true(smtp_ehlo_write(&e, &everything, out, sizeof out) > 0);
	assert_true(e.extensions & SMTP_EXT_STARTTLS);
}

/* ---- DATA ---- */

struct scan {
	struct smtp_scanner scanner;
	bool ended;
	struct text out;
};

static void begin_scan(struct scan *s, enum smtp_newline newline)
{
	memset(&s->scanner, 0, sizeof s->scanner);
	s->scanner.newline = newline;
	s->ended = false;
	clear(&s->out);
}

static void put(struct text *t, const void *bytes, size_t n)
{
	assert_true(n < sizeof t->bytes - t->len);
	memcpy(t->bytes + t->len, bytes, n);
	t->len += n;
}

static size_t take_data(void *state, const unsigned char *in, size_t n)
{
	struct scan *s = state;
	struct smtp_piece piece;
	size_t at = 0, used;

	while (!s->ended && smtp_scan(&s->scanner, in + at, n - at, &used, &piece)) {
		assert_true(used > 0 && used <= n - at);
		put(&s->out, piece.bytes, piece.len);
		s->ended = piece.end;
		at += used;
	}
	assert_true(s->ended || n - at <= 3);
	return at;
}

/* What must go on, said as plainly as possible: the whole message at once, line by line. in ends with the final dot's
 * line; soft: the line before ended in a bare LF, so that the client did not stuff this one. */
static void reference(const unsigned char *in, size_t n, struct text *out, bool *broken)
{
	bool soft = false, crlf;

	for (size_t len, nuls; n > 3 || soft; in += len + 1, n -= len + 1, soft = !crlf) {
		for (len = 0; in[len] != '\n';)
			len++;
		crlf = len && in[len - 1] == '\r';
		for (nuls = 0; in[nuls] == 0;)
			nuls++;
		if (soft && in[0] == '.')
			put(out, ".", 1);
		for (size_t i = 0; i < len - (crlf ? 1 : 0); i++) {
			bool blank = in[i] == '\r' || (!soft && i == 1 && in[0] == '.' && in[1] == 0);

			if (nuls && i == nuls && in[i] == '.')
				put(out, " ", 1);
			*broken |= blank || (nuls && i == nuls && in[i] == '.');
			put(out, blank ? " " : (const char *)in + i, 1);
		}
		if (!soft && len == 1 && in[0] == '.' && !crlf)
			put(out, ".", 1);
		put(out, "\r\n", 2);
		*broken |= !crlf;
	}
	put(out, ".\r\n", 3);
}

/* Octets up to and with the first CR LF . CR LF, the start of the message standing for a CR LF; 0: it does not end. */
static size_t true_end(const unsigned char *in, size_t n)
{
	if (n >= 3 && memcmp(in, ".\r\n", 3) == 0)
		return 3;
	for (size_t i = 0; i + 5 <= n; i++)
		if (memcmp(in + i, "\r\n.\r\n", 5) == 0)
			return i + 5;
	return 0;
}

/* Octets of a message as a server stores it: dots unstuffed, without the final dot's line. */
static uint64_t unstuffed(const struct text *out)
{
	uint64_t octets = 0;

	for (size_t i = 0; i < out->len - 3; i++)
		octets += !(out->bytes[i] == '.' && (i == 0 || (i > 1 && memcmp(out->bytes + i - 2, "\r\n", 2) == 0)));
	return octets;
}

/* No server, however lenient, finds a line end or an end of the message that is none. */
static bool harmless(const struct text *out)
{
	enum { START, NULS_DOT, OTHER } line = START;

	for (size_t i = 0; i < out->len; i++) {
		char c = out->bytes[i];

		if ((c == '\n' && (i == 0 || out->bytes[i - 1] != '\r')) ||
		    (c == '\r' && (i + 1 == out->len || out->bytes[i + 1] != '\n')))
			return false;
		if (c == '\r' && line == NULS_DOT && i + 2 != out->len)
			return false;
		if (c == '\n')
			line = START;
		else if (c != '\r' && c != 0)
			line = line == START && c == '.' ? NULS_DOT : OTHER;
	}
	return line == START;
}

/* A message read in this way comes out as the reference has it, in all three modes. */
static void check_scan(const unsigned char *in, size_t n, size_t way)
{
	static struct scan s;
	static struct text want;
	size_t end = true_end(in, n);
	bool broken;

	for (enum smtp_newline mode = SMTP_NL_NORMALIZE; mode <= SMTP_NL_PASS; mode++) {
		begin_scan(&s, mode);
		clear(&want);
		broken = false;
		if (mode == SMTP_NL_PASS)
			put(&want, in, end);
		else
			reference(in, end, &want, &broken);
		if (offer(in, n, way, take_data, &s) != end || !s.ended || s.out.len != want.len ||
		    memcmp(s.out.bytes, want.bytes, want.len) != 0 || s.scanner.broken != broken ||
		    s.scanner.content != unstuffed(&want) || (mode != SMTP_NL_PASS && !harmless(&s.out))) {
			clear(&got);
			say(&got, "mode %d, way %zu: ", mode, way);
			say_bytes(&got, in, n);
			say(&got, "\n  got  ");
			say_bytes(&got, (unsigned char *)s.out.bytes, s.out.len);
			say(&got, "\n  want ");
			say_bytes(&got, (unsigned char *)want.bytes, want.len);
			fail_msg("%s\n  broken %d, want %d; content %llu", got.bytes, s.scanner.broken, broken,
			    (unsigned long long)s.scanner.content);
		}
	}
}

static void test_2_3_4_smuggling(void **state)
{
	static const struct {
		const char *name;
		struct input in;
		const char *want; /* under normalize, without the final line */
	} rows[] = {
		{ "empty message", IN(""), "" },
		{ "one line", IN("a\r\n"), "a\\r\\n" },
		{ "empty line", IN("\r\n"), "\\r\\n" },
		{ "stuffed dot", IN("..\r\n"), "..\\r\\n" },
		{ "stuffed dots", IN("...\r\n..a\r\n"), "...\\r\\n..a\\r\\n" },
		{ "dot that the client did not stuff", IN(".a\r\n"), ".a\\r\\n" },
		{ "dot inside", IN("a.\r\na.b\r\n"), "a.\\r\\na.b\\r\\n" },
		{ "LF . LF", IN("a\n.\nb\r\n"), "a\\r\\n..\\r\\nb\\r\\n" },
		{ "LF . CRLF", IN("a\n.\r\nb\r\n"), "a\\r\\n..\\r\\nb\\r\\n" },
		{ "CRLF . LF", IN("a\r\n.\nb\r\n"), "a\\r\\n..\\r\\nb\\r\\n" },
		{ "first line . LF", IN(".\nb\r\n"), "..\\r\\nb\\r\\n" },
		{ "CR . CR", IN("a\r.\rb\r\n"), "a . b\\r\\n" },
		{ "CR . CRLF", IN("a\r.\r\nb\r\n"), "a .\\r\\nb\\r\\n" },
		{ "CR . LF", IN("a\r.\nb\r\n"), "a .\\r\\nb\\r\\n" },
		{ "CRLF . CR", IN("a\r\n.\rb\r\n"), "a\\r\\n. b\\r\\n" },
		{ "first line . CR", IN(".\rb\r\n"), ". b\\r\\n" },
		{ "LF . CR", IN("a\n.\rb\r\n"), "a\\r\\n.. b\\r\\n" },
		{ "CRLF NUL . CRLF", IN("a\r\n\0.\r\nb\r\n"), "a\\r\\n\\0 .\\r\\nb\\r\\n" },
		{ "CRLF NUL NUL . CRLF", IN("a\r\n\0\0.\r\nb\r\n"), "a\\r\\n\\0\\0 .\\r\\nb\\r\\n" },
		{ "LF NUL . CRLF", IN("a\n\0.\r\nb\r\n"), "a\\r\\n\\0 .\\r\\nb\\r\\n" },
		{ "CRLF . NUL CRLF", IN("a\r\n.\0\r\nb\r\n"), "a\\r\\n. \\r\\nb\\r\\n" },
		{ "CRLF . NUL LF", IN("a\r\n.\0\nb\r\n"), "a\\r\\n. \\r\\nb\\r\\n" },
		{ "CRLF . CR NUL LF", IN("a\r\n.\r\0\nb\r\n"), "a\\r\\n. \\0\\r\\nb\\r\\n" },
		{ "CR NUL LF . CRLF", IN("a\r\0\n.\r\nb\r\n"), "a \\0\\r\\n..\\r\\nb\\r\\n" },
		{ "CRLF . CRCRLF", IN("a\r\n.\r\r\nb\r\n"), "a\\r\\n. \\r\\nb\\r\\n" },
		{ "CRCRLF", IN("a\r\r\nb\r\n"), "a \\r\\nb\\r\\n" },
		{ "CRLFCR . CRLF", IN("a\r\n\r.\r\nb\r\n"), "a\\r\\n .\\r\\nb\\r\\n" },
		{ "LF LF . LF", IN("a\n\n.\nb\r\n"), "a\\r\\n\\r\\n..\\r\\nb\\r\\n" },
		{ "LF . . LF", IN("a\n..\nb\r\n"), "a\\r\\n...\\r\\nb\\r\\n" },
		{ "blank after the dot", IN("a\r\n. \r\nb\r\n"), "a\\r\\n. \\r\\nb\\r\\n" },
		{ "8 bit", IN("\xff\x80\r\n"), "\xff\x80\\r\\n" },
		{ "NULs", IN("\0\r\na\0b\r\n"), "\\0\\r\\na\\0b\\r\\n" },
	};
	static const char close[] = ".\r\nQUIT\r\n";
	static struct scan s;
	char whole[256];

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		size_t n = rows[i].in.len, all = n + sizeof close - 1;

		memcpy(whole, rows[i].in.bytes, n);
		memcpy(whole + n, close, sizeof close - 1);
		for (size_t way = 0; way <= all; way++) {
			check_scan((unsigned char *)whole, all, way);
			begin_scan(&s, SMTP_NL_NORMALIZE);
			assert_int_equal(offer(whole, all, way, take_data, &s), n + 3);
			clear(&got);
			assert_true(s.out.len >= 3);
			say_bytes(&got, (unsigned char *)s.out.bytes, s.out.len - 3);
			expect_text(rows[i].name, got.bytes, rows[i].want);
		}
	}
}

/* Offer every message of up to six of the octets that matter, followed by `close`, in every way. */
static void every_short_message(const char *close, void (*check)(const unsigned char *, size_t, size_t))
{
	static const unsigned char octets[] = { '\r', '\n', '.', 0, 'a' };

	for (size_t len = 0; len <= 6; len++) {
		unsigned char in[32];
		size_t digits[6] = { 0 }, at, all = len + strlen(close);

		memcpy(in + len, close, strlen(close));
		do {
			for (size_t i = 0; i < len; i++)
				in[i] = octets[digits[i]];
			for (size_t way = 0; way <= all; way++)
				check(in, all, way);
			for (at = 0; at < len && ++digits[at] == sizeof octets; at++)
				digits[at] = 0;
		} while (at < len);
	}
}

/* Then the end, and the beginning of another message. */
static void test_2_4_5_every_short_message(void **state)
{
	(void)state;
	every_short_message("\r\n.\r\n.\r\n", check_scan);
}

static void test_2_4_5_random_messages(void **state)
{
	static const struct input parts[] = { IN("\r\n"), IN("\r\n"), IN("\n"), IN("\r"), IN("."), IN(".."),
		IN("\r\n."), IN("\n."), IN("\r\n.\r"), IN("\0"), IN("x"), IN("twelve bytes"), IN("\xff") };
	static unsigned char in[1024];

	(void)state;
	for (int round = 0; round < 3000; round++) {
		size_t n = 0, count = any(60);

		while (count--) {
			const struct input *part = &parts[any(COUNT(parts))];

			memcpy(in + n, part->bytes, part->len);
			n += part->len;
		}
		memcpy(in + n, "\r\n.\r\n", 5);
		n += 5;
		check_scan(in, n, 0);
		check_scan(in, n, n);
		check_scan(in, n, 1 + any((uint32_t)n - 1));
	}
}

/* A message without bare newlines and NULs goes through byte for byte, its long lines and 8-bit octets too. */
static void test_6_7_clean_message_untouched(void **state)
{
	static unsigned char in[70000];
	static struct scan s;
	size_t n = 0;

	(void)state;
	while (n < sizeof in - 3000) {
		for (uint32_t len = any(40) ? any(100) : any(2500); len > 0; len--)
			in[n++] = (unsigned char)(14 + any(242));
		in[n++] = '\r';
		in[n++] = '\n';
		if (in[n - 3] == '.')
			in[n - 3] = 'x';
	}
	memcpy(in + n, ".\r\n", 3);
	n += 3;
	for (size_t way = 0; way <= n; way += way < n - 1 && way + 977 > n ? n - way : 977) {
		begin_scan(&s, SMTP_NL_NORMALIZE);
		assert_int_equal(offer(in, n, way, take_data, &s), n);
		assert_true(s.ended && !s.scanner.broken);
		assert_int_equal(s.out.len, n);
		assert_memory_equal(s.out.bytes, in, n);
	}
}

/* ---- messages that are kept ---- */

static void begin_kept(struct scan *s, enum smtp_newline newline, bool plain)
{
	begin_scan(s, newline);
	s->scanner.unstuff = true;
	s->scanner.plain = plain;
}

/* What RFC 5321 4.5.2 has a receiver make of the wire form, whose last line is the final dot's. */
static void receive(const struct text *wire, struct text *message)
{
	const char *in = wire->bytes;
	size_t n = wire->len - 3;

	clear(message);
	for (size_t i = 0; i < n; i++)
		if (in[i] != '.' || (i > 0 && (i == 1 || memcmp(in + i - 2, "\r\n", 2) != 0)))
			put(message, in + i, 1);
}

/* The wire form that keep_send() makes of a message when it writes `window` octets at most in one go. */
static void send_kept(const struct text *message, size_t window, struct text *wire)
{
	const char *in = message->bytes;
	size_t n = message->len, run;

	clear(wire);
	for (size_t at = 0; at < n; at += run) {
		size_t part = n - at < window ? n - at : window;

		run = smtp_dot_free(guarded(in + at, part), part);
		assert_true(run > 0 && run <= part);
		if (in[at] == '.' && (!at || (at > 1 && in[at - 1] == '\n' && in[at - 2] == '\r')))
			put(wire, ".", 1);
		put(wire, in + at, run);
	}
	if (n && in[n - 1] != '\n')
		put(wire, "\r\n", 2);
	put(wire, ".\r\n", 3);
}

static void fail_kept(const char *what, const unsigned char *in, size_t n, const struct text *result,
    const struct text *want)
{
	clear(&got);
	say(&got, "%s: ", what);
	say_bytes(&got, in, n);
	say(&got, "\n  got  ");
	say_bytes(&got, (const unsigned char *)result->bytes, result->len);
	say(&got, "\n  want ");
	say_bytes(&got, (const unsigned char *)want->bytes, want->len);
	fail_msg("%s", got.bytes);
}

static bool same_text(const struct text *a, const struct text *b)
{
	return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

/* However it is cut into writes, a kept message has one end, its own, for the strictest server and (lenient) for the
 * most lenient one, and what is received is what was kept. */
static void check_sending(const struct text *message, bool lenient, const unsigned char *in, size_t n)
{
	static struct text wire, received, want;

	clear(&want);
	put(&want, message->bytes, message->len);
	if (message->len && message->bytes[message->len - 1] != '\n')
		put(&want, "\r\n", 2);
	for (size_t window = 1; window <= message->len + 1; window++) {
		send_kept(message, window, &wire);
		receive(&wire, &received);
		if (!same_text(&received, &want))
			fail_kept("received", in, n, &received, &want);
		if (true_end((unsigned char *)wire.bytes, wire.len) != wire.len || (lenient && !harmless(&wire)))
			fail_kept("another end", in, n, &wire, &want);
	}
}

/* Whether each dot that begins a line is the first of two: then the client's stuffing and ours are the same. */
static bool well_stuffed(const struct text *wire)
{
	const char *in = wire->bytes;

	for (size_t i = 0; i + 3 < wire->len; i++)
		if (in[i] == '.' && (i == 0 || (i > 1 && memcmp(in + i - 2, "\r\n", 2) == 0)) && in[i + 1] != '.')
			return false;
	return true;
}

/* A message that is kept is, once sent, the one that streams through. */
static void check_kept(const unsigned char *in, size_t n, size_t way)
{
	static struct scan s;
	static struct text stream, wire, want;
	size_t end = true_end(in, n);
	bool broken;

	for (enum smtp_newline mode = SMTP_NL_NORMALIZE; mode <= SMTP_NL_PASS; mode++) {
		begin_kept(&s, mode, false);
		clear(&stream);
		broken = false;
		if (mode == SMTP_NL_PASS)
			put(&stream, in, end);
		else
			reference(in, end, &stream, &broken);
		receive(&stream, &want);
		if (offer(in, n, way, take_data, &s) != end || !s.ended || !same_text(&s.out, &want) ||
		    s.scanner.broken != broken || s.scanner.content != want.len)
			fail_kept("kept", in, n, &s.out, &want);
		if (way)
			continue;
		check_sending(&s.out, mode != SMTP_NL_PASS, in, n);
		send_kept(&s.out, SIZE_MAX, &wire);
		if (well_stuffed(&stream) && !same_text(&wire, &stream))
			fail_kept("sent", in, n, &wire, &stream);
	}
}

static void test_2_4_5_every_short_message_kept(void **state)
{
	(void)state;
	every_short_message("\r\n.\r\n.\r\n", check_kept);
}

static size_t take_plain(void *state, const unsigned char *in, size_t n)
{
	struct scan *s = state;
	struct smtp_piece piece;
	size_t at = 0, used;

	while (smtp_scan(&s->scanner, in + at, n - at, &used, &piece)) {
		assert_true(used > 0 && used <= n - at && !piece.end);
		put(&s->out, piece.bytes, piece.len);
		at += used;
	}
	assert_true(at == n || (at == n - 1 && in[at] == '\r'));
	return at;
}

/* What a program's message becomes: line ends CR LF, a bare CR a blank, and a blank in front of a dot that only NULs
 * keep from the start of its line. Nothing ends it. */
static void plain_reference(const unsigned char *in, size_t n, struct text *out)
{
	bool nuls = false, start = true;

	for (size_t i = 0; i < n; i++) {
		bool last = i + 1 == n;

		if (in[i] == '\n' || (in[i] == '\r' && (last || in[i + 1] == '\n'))) {
			put(out, "\r\n", 2);
			i += in[i] == '\r' && !last;
			start = true;
			nuls = false;
			continue;
		}
		if (in[i] == '.' && nuls)
			put(out, " ", 1);
		nuls = in[i] == 0 && (start || nuls);
		start = false;
		put(out, in[i] == '\r' ? " " : (const char *)in + i, 1);
	}
}

/* What a program writes goes on with clean line ends, and no server finds an end in it. */
static void check_plain(const unsigned char *in, size_t n, size_t way)
{
	static struct scan s;
	static struct text want;
	bool held;

	begin_kept(&s, SMTP_NL_NORMALIZE, true);
	held = offer(in, n, way, take_plain, &s) < n;
	assert_int_equal(s.scanner.content, s.out.len);
	assert_true(!held || in[n - 1] == '\r');
	if (held) /* as hooks.c ends it */
		put(&s.out, "\r\n", 2);
	clear(&want);
	plain_reference(in, n, &want);
	if (!same_text(&s.out, &want))
		fail_kept("plain", in, n, &s.out, &want);
	if (s.scanner.broken != (want.len != n + held || memcmp(want.bytes, in, n) != 0))
		fail_kept(s.scanner.broken ? "broken" : "not broken", in, n, &s.out, &want);
	if (!way)
		check_sending(&s.out, true, in, n);
}

static void test_2_4_5_every_short_message_of_a_program(void **state)
{
	(void)state;
	every_short_message("", check_plain);
	every_short_message("\r\n.\r\na", check_plain);
}

static void test_2_4_5_random_messages_kept(void **state)
{
	static const struct input parts[] = { IN("\r\n"), IN("\r\n"), IN("\n"), IN("\r"), IN("."), IN(".."),
		IN("\r\n.."), IN("\n."), IN("\r\n..\r"), IN("\0"), IN("x"), IN("seventeen octets."), IN("\xff") };
	static unsigned char in[1200];

	(void)state;
	for (int round = 0; round < 1000; round++) {
		size_t n = 0, count = any(60);

		while (count--) {
			const struct input *part = &parts[any(COUNT(parts))];

			memcpy(in + n, part->bytes, part->len);
			n += part->len;
		}
		check_plain(in, n, 0);
		check_plain(in, n, n);
		memcpy(in + n, "\r\n.\r\n", 5);
		n += 5;
		check_kept(in, n, 0);
		check_kept(in, n, n);
		check_kept(in, n, 1 + any((uint32_t)n - 1));
	}
}

static void test_4_runs_without_dots(void **state)
{
	static const struct {
		struct input in;
		size_t want;
	} rows[] = {
		{ IN(""), 0 }, { IN("a"), 1 }, { IN("."), 1 }, { IN(".\r\n"), 3 }, { IN("a\r\n"), 3 },
		{ IN("a\r\n.b\r\n"), 3 }, { IN("a\r\nb.\r\n.\r\n.\r\n"), 7 }, { IN(".\r\n.\r\n"), 3 }, { IN("\r\n."), 2 },
		{ IN("a\n.b\r\n.c"), 6 }, /* a bare LF ends no line */
		{ IN("a\r\nb\r"), 4 }, { IN("\r"), 1 }, /* the LF must not come first in the next run */
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		assert_int_equal(smtp_dot_free(guarded(rows[i].in.bytes, rows[i].in.len), rows[i].in.len), rows[i].want);
}

static void test_seven_bit(void **state)
{
	unsigned char all[300];

	(void)state;
	for (size_t i = 0; i < sizeof all; i++)
		all[i] = (unsigned char)(i % 128);
	for (size_t n = 0; n <= sizeof all; n++) {
		assert_true(smtp_is_seven_bit(guarded(all, n), n));
		all[n ? n - 1 : 0] ^= 0x80;
		assert_int_equal(smtp_is_seven_bit(guarded(all, n), n), n == 0);
		all[n ? n - 1 : 0] ^= 0x80;
	}
}

static void test_trim(void **state)
{
	static const struct row rows[] = {
		{ "nothing", IN(""), "" },
		{ "blanks", IN(" \t "), "" },
		{ "none", IN("a"), "a" },
		{ "both ends", IN("\t a \tb\t "), "a \\11b" },
		{ "no other control", IN(" \r\n\0\v "), "\\r\\n\\0\\13" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		size_t n = rows[i].in.len;
		const unsigned char *in = guarded(rows[i].in.bytes, n);

		smtp_trim(&in, &n);
		clear(&got);
		say_bytes(&got, in, n);
		expect_text(rows[i].name, got.bytes, rows[i].want);
	}
}

/* ---- replies of any length ---- */

static size_t wrap(int code, const uint16_t enhanced[3], const void *text, size_t n, const unsigned char **out)
{
	unsigned char *room = (unsigned char *)(uintptr_t)guarded("", 0) - SMTP_WRAP_MAX;
	static unsigned char in[3 * SMTP_WRAP_TEXT];
	unsigned char none[1] = { 'x' };
	size_t len;

	memcpy(in, text, n);
	assert_int_equal(smtp_reply_wrap(code, enhanced, in, n, none, SMTP_WRAP_MAX - 1), 0);
	assert_int_equal(none[0], 'x');
	len = smtp_reply_wrap(code, enhanced, in, n, room, SMTP_WRAP_MAX);
	assert_true(len > 0 && len <= SMTP_WRAP_MAX);
	*out = room;
	return len;
}

#define EIGHTY TEN TEN TEN TEN TEN TEN TEN TEN

static void test_10_wrapped_replies(void **state)
{
	static const uint16_t enhanced[] = { 5, 7, 1 };
	static const struct row rows[] = {
		{ "short", IN("no"), "550 5.7.1 no\\r\\n" },
		{ "empty", IN(""), "550 5.7.1 \\r\\n" },
		{ "blank", IN(" "), "550 5.7.1  \\r\\n" },
		{ "controls and 8 bit", IN("a\r\n250 b\0\tc\177\xc3\xa9~"), "550 5.7.1 a  250 b  c ??~\\r\\n" },
		{ "as long as a line", IN(HUNDRED HUNDRED HUNDRED HUNDRED "1234 " EIGHTY "123456789"),
		    "550 5.7.1 " HUNDRED HUNDRED HUNDRED HUNDRED "1234 " EIGHTY "123456789\\r\\n" },
		{ "longer", IN(HUNDRED HUNDRED HUNDRED HUNDRED "12345 " EIGHTY "123456789"),
		    "550-5.7.1 " HUNDRED HUNDRED HUNDRED HUNDRED "12345\\r\\n"
		    "550 5.7.1 " EIGHTY "123456789\\r\\n" },
		{ "blank right behind a full line",
		    IN(HUNDRED HUNDRED HUNDRED HUNDRED EIGHTY TEN "1234  b"),
		    "550-5.7.1 " HUNDRED HUNDRED HUNDRED HUNDRED EIGHTY TEN "1234\\r\\n"
		    "550 5.7.1 b\\r\\n" },
		{ "no blank to break at", IN(HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED),
		    "550-5.7.1 " HUNDRED HUNDRED HUNDRED HUNDRED EIGHTY TEN "1234\\r\\n"
		    "550 5.7.1 567890\\r\\n" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		const unsigned char *out;
		size_t n = wrap(550, enhanced, rows[i].in.bytes, rows[i].in.len, &out);

		clear(&got);
		say_bytes(&got, out, n);
		expect_text(rows[i].name, got.bytes, rows[i].want);
	}
}

/* Lines of at most 512 octets, each with the code and enhanced code, the last alone marked as the last; their text is
 * the given one up to SMTP_WRAP_TEXT octets, blanks aside. Returns octets. */
static size_t check_wrapped(int code, const uint16_t enhanced[3], const unsigned char *text, size_t n)
{
	const unsigned char *out;
	size_t len = wrap(code, enhanced, text, n, &out), done = 0, line_len;
	struct smtp_line line = { .last = false };
	char prefix[32];
	size_t skip = (size_t)snprintf(prefix, sizeof prefix, "%u.%u.%u ", enhanced[0], enhanced[1], enhanced[2]);

	n = n < SMTP_WRAP_TEXT ? n : SMTP_WRAP_TEXT;
	for (size_t at = 0; at < len; at += line_len) {
		line_len = smtp_find_line(out + at, len - at);
		assert_true(line_len <= 512 && out[at + line_len - 2] == '\r' && !line.last);
		assert_true(smtp_parse_reply(out + at, line_len, &line) && line.code == code);
		assert_true(line.text_len >= skip && memcmp(line.text, prefix, skip) == 0);
		for (size_t i = skip; i < line.text_len; i++) {
			unsigned char c = line.text[i];

			assert_true(c >= ' ' && c <= '~');
			if (c == ' ')
				continue;
			while (done < n && (text[done] <= ' ' || text[done] == 0x7f))
				done++;
			assert_true(done < n && c == (text[done] < 0x7f ? text[done] : '?'));
			done++;
		}
	}
	while (done < n && (text[done] <= ' ' || text[done] == 0x7f))
		done++;
	assert_true(done == n && line.last);
	return len;
}

/* Texts of two word lengths in turn, so that lines break as early as can be: the bound holds for the worst of them. */
static void test_10_longest_wrapped_replies(void **state)
{
	static const uint16_t usual[] = { 5, 7, 1 }, widest[] = { 5, 999, 999 }, no_code[] = { 65535, 65535, 65535 };
	static unsigned char text[SMTP_WRAP_TEXT + 500];
	size_t longest = 0, n;

	(void)state;
	memset(text, ' ', sizeof text);
	assert_int_equal(check_wrapped(550, usual, text, sizeof text), 4 + 500 + 2); /* the rest of them is trimmed */
	memset(text, 'x', sizeof text);
	assert_int_equal(check_wrapped(550, usual, text, sizeof text), SMTP_WRAP_TEXT + 5 * (4 + 6 + 2));
	memset(text, 0xff, sizeof text);
	check_wrapped(550, usual, text, sizeof text);
	for (size_t a = 1; a < 500; a += a < 8 || a > 240 ? 1 : 7)
		for (size_t b = 470; b < 500; b++) {
			memset(text, 'x', sizeof text);
			for (size_t i = 0, k = 0; (i += k++ % 2 ? b : a) < sizeof text; i++)
				text[i] = ' ';
			n = check_wrapped(550, widest, text, sizeof text);
			longest = n > longest ? n : longest;
			check_wrapped(550, no_code, text, sizeof text);
		}
	assert_in_range(longest, SMTP_WRAP_TEXT, SMTP_WRAP_MAX);
	for (uint32_t round = 0; round < 5000; round++) {
		n = any(sizeof text + 1);
		for (size_t i = 0; i < n; i++)
			text[i] = any(round % 700 + 2) ? 'x' : (unsigned char)any(256);
		check_wrapped(421, widest, text, n);
	}
}

/* ---- Message-ID ---- */

static size_t take_header(void *state, const unsigned char *in, size_t n)
{
	smtp_header_scan(state, in, n);
	return n;
}

static void test_message_id(void **state)
{
	static const struct row rows[] = {
		{ "first header", IN("Message-ID: <a@b>\r\n\r\n"), "<a@b>" },
		{ "later header", IN("From: x\r\nMESSAGE-id:<a@b>\r\n\r\n"), "<a@b>" },
		{ "blanks before the colon", IN("From: x\r\nMessage-ID \t : <a@b>\r\n"), "<a@b>" },
		{ "a word before the colon", IN("Message-ID x: 1\r\nMessage -ID: 2\r\n"), "" },
		{ "after the first line of a mailbox", IN("From x Sat\r\nMessage-ID: <a@b>\r\n"), "<a@b>" },
		{ "folded", IN("Message-ID:\r\n <a@b>\r\nTo: x\r\n"), "<a@b>" },
		{ "folded twice", IN("Message-ID:\r\n\t\r\n <a@b>\r\nTo: x\r\n"), "<a@b>" },
		{ "after a header that begins alike", IN("Message-IDs: 1\r\nMessage-ID: <a@b>\r\n"), "<a@b>" },
		{ "after a longer one", IN("X-Message-ID: 1\r\nMessage-ID: <a@b>\r\n"), "<a@b>" },
		{ "after a folded line", IN("To: x\r\n Message-ID: 1\r\nMessage-ID: <a@b>\r\n"), "<a@b>" },
		{ "after half the word, LF", IN("Mess\nMessage-ID: <a@b>\n"), "<a@b>" },
		{ "halves on two lines", IN("Mess\nage-ID: <a@b>\n"), "" },
		{ "after half the word, CRLF", IN("Mess\r\nMessage-ID: <a@b>\r\n"), "<a@b>" },
		{ "LF only", IN("From: x\nMessage-ID: <a@b>\n\n"), "<a@b>" },
		{ "the first of two", IN("Message-ID: <a@b>\r\nMessage-ID: <c@d>\r\n"), "<a@b>" },
		{ "empty", IN("Message-ID:\r\nTo: x\r\n"), "" },
		{ "in the body", IN("To: x\r\n\r\nMessage-ID: <a@b>\r\n"), "" },
		{ "in the body, LF only", IN("To: x\n\nMessage-ID: <a@b>\n"), "" },
		{ "no header at all", IN("\r\nMessage-ID: <a@b>\r\n"), "" },
		{ "controls", IN("Message-ID: <a\0\033@b>\r\n"), "<a@b>" },
		{ "no line end", IN("Message-ID: <a@b>"), "<a@b>" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		for (size_t way = 0; way <= rows[i].in.len; way++) {
			struct smtp_header h = { 0 };

			offer(rows[i].in.bytes, rows[i].in.len, way, take_header, &h);
			clear(&got);
			say_bytes(&got, h.id, h.id_len);
			expect_text(rows[i].name, got.bytes, rows[i].want);
		}
	}
}

static void test_message_id_long(void **state)
{
	struct smtp_header h = { 0 };
	char in[1000];

	(void)state;
	memset(in, 'x', sizeof in);
	memcpy(in, "Message-ID:", 11);
	smtp_header_scan(&h, guarded(in, sizeof in), sizeof in);
	assert_int_equal(h.id_len, sizeof h.id);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_20_27_33_verbs_and_blanks),
		cmocka_unit_test(test_1_command_line_ends),
		cmocka_unit_test(test_21_22_23_24_paths),
		cmocka_unit_test(test_29_30_42_48_50_parameters),
		cmocka_unit_test(test_30_many_parameters),
		cmocka_unit_test(test_30_walk_parameters),
		cmocka_unit_test(test_45_bdat),
		cmocka_unit_test(test_11_reply_lines),
		cmocka_unit_test(test_17_enhanced_codes),
		cmocka_unit_test(test_10_reply_write),
		cmocka_unit_test(test_40_41_42_50_ehlo_lists),
		cmocka_unit_test(test_54_what_stands_behind_a_keyword),
		cmocka_unit_test(test_41_ehlo_of_2000_lines),
		cmocka_unit_test(test_41_ehlo_of_longest_lines),
		cmocka_unit_test(test_2_3_4_smuggling),
		cmocka_unit_test(test_2_4_5_every_short_message),
		cmocka_unit_test(test_2_4_5_random_messages),
		cmocka_unit_test(test_6_7_clean_message_untouched),
		cmocka_unit_test(test_2_4_5_every_short_message_kept),
		cmocka_unit_test(test_2_4_5_every_short_message_of_a_program),
		cmocka_unit_test(test_2_4_5_random_messages_kept),
		cmocka_unit_test(test_4_runs_without_dots),
		cmocka_unit_test(test_seven_bit),
		cmocka_unit_test(test_trim),
		cmocka_unit_test(test_10_wrapped_replies),
		cmocka_unit_test(test_10_longest_wrapped_replies),
		cmocka_unit_test(test_message_id),
		cmocka_unit_test(test_message_id_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
