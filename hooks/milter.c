/* Shows each message to a milter (OpenDKIM, OpenDMARC, ...), as Sendmail and Postfix do, and does what it says.
 *
 * Events: data
 * Needs: libjansson4
 * Links: jansson
 * Variables:
 *   MILTER_SOCKET   where the milter listens: unix:/PATH (or local:), inet:PORT@HOST, inet6:PORT@HOST; must be set
 *   MILTER_TIMEOUT  seconds to wait for each of its replies, 1 to 3600 (25: less than --hook-timeout)
 *   MILTER_MACROS   NAME=VALUE ..., separated by blanks: macros that the milter gets in addition to the usual ones, or
 *                   with another value. The usual ones: j=HOST _ v=smtpwarp daemon_name=smtpwarp client_addr client_port
 *                   client_name client_ptr tls_version cipher verify cert_subject i=SESSION auth_authen auth_type=PLAIN
 *                   mail_addr mail_host mail_mailer rcpt_addr rcpt_host rcpt_mailer (those of TLS and AUTH only if
 *                   there is TLS or AUTH; cert_subject, the name in a client's certificate, only if a proxy gave it)
 *
 * For a second milter write a hook of two lines that sets its own MILTER_SOCKET and starts this program.
 *
 * For each message the milter is told the whole session from the start: in protocol version 6 (down to 2 if the milter is
 * older), with the steps, replies and macros that the milter asks for. Its answers become these verdicts:
 *   accept, no change    nothing
 *   changes              replace-message with the whole message: what the milter left alone stays the same to the octet,
 *                        and what it wrote goes out as it wrote it. add-header would fold a signature anew, and
 *                        remove-header removes all fields of a name; either would break DKIM signatures.
 *   reject, tempfail     reject, defer, with the milter's own code and text if it gives them (lines joined by blanks)
 *   discard              discard
 *   shutdown, 421        close
 *   quarantine           reject, because nothing can be held here; the record has the reason as `milter_quarantine`
 *   recipient refused    reject if any refusal was permanent, else defer, for the whole message. The server has already
 *                        accepted the recipient, and a recipient whom the milter refused must not get a copy.
 *   change of envelope   (sender changed, recipient added or removed) failure, exit 75, because going on would deliver to
 *                        the wrong people
 *   what the protocol    reject 554 5.6.0: a header of 10000 fields or with one of more than 64 KB would fail each time that
 *   cannot carry         the client tries it again
 * If the milter does not answer, or violates the protocol, that is a failure, too, exit 75. Wrong settings exit with 78.
 *
 * The milter's positions for new fields count the Received field that a mail server puts on top. This proxy has none, so 0
 * and 1 both mean the top. Deleted fields keep their number until the end, as in Sendmail. What the milter gets has blanks
 * for NUL in header fields, question marks for control characters in names and addresses, and a line end after the last
 * line of the body.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_FD 3
#define COMMAND_MAX 65535 /* octets of data in a command: libmilter takes no more */
#define REPLY_MAX (1 << 20) /* octets of data in a reply: the protocol's largest frame */
#define FIELDS_MAX 10000 /* of the header, with those that the milter adds */
#define ADDED_MAX (4 << 20) /* octets of header text from the milter */
#define BODY_EXTRA (16 << 20) /* octets that a new body may have beyond four times the message */
#define TEXT_MAX 400 /* of a reply text: an SMTP reply line has 512 with its codes */
#define MACROS_MAX 64

/* ---- the protocol's numbers ---- */

enum { VERSION = 6, VERSION_MIN = 2, VERSION_DATA = 4 /* knows DATA */ };

enum action {
	ADD_HEADERS = 0x01,
	CHANGE_BODY = 0x02,
	CHANGE_HEADERS = 0x10,
	QUARANTINE = 0x20,
	ACTIONS = 0x1ff, /* all, those on the envelope too: many milters ask for all and use few */
};

enum { LEADING_SPACE = 0x100000, PROTOCOL = 0x1fffff /* all steps and what can be said of them */ };

/* Where macros go. The order is the protocol's. */
enum stage { AT_CONNECT, AT_HELO, AT_MAIL, AT_RCPT, AT_DATA, AT_EOM, AT_EOH, STAGES, NOWHERE = STAGES };

struct step {
	char command;
	enum stage stage;
	uint32_t skip, quiet; /* the milter does not want it, does not answer it */
};

static const struct step connection = { 'C', AT_CONNECT, 0x01, 0x1000 }, helo = { 'H', AT_HELO, 0x02, 0x2000 },
			 mail = { 'M', AT_MAIL, 0x04, 0x4000 }, rcpt = { 'R', AT_RCPT, 0x08, 0x8000 },
			 data = { 'T', AT_DATA, 0x200, 0x10000 }, header = { 'L', NOWHERE, 0x20, 0x80 },
			 end_of_header = { 'N', AT_EOH, 0x40, 0x40000 }, body_chunk = { 'B', NOWHERE, 0x10, 0x80000 },
			 end_of_message = { 'E', AT_EOM, 0, 0 };

enum reply_code {
	ADDED_RCPT = '+',
	DELETED_RCPT = '-',
	ADDED_RCPT_PARAMS = '2',
	SHUTDOWN = '4',
	ACCEPT = 'a',
	REPLACE_BODY = 'b',
	CONTINUE = 'c',
	DISCARD = 'd',
	CHANGED_SENDER = 'e',
	CONNECTION_FAILS = 'f',
	ADD_HEADER = 'h',
	INSERT_HEADER = 'i',
	CHANGE_HEADER = 'm',
	NEGOTIATED = 'O',
	PROGRESS = 'p',
	QUARANTINED = 'q',
	REJECT = 'r',
	SKIP = 's',
	TEMPFAIL = 't',
	REPLY_CODE = 'y',
};

/* ---- state ---- */

struct refusal {
	char code[4], enhanced[12], text[TEXT_MAX + 1];
};

struct macro {
	const char *name, *value;
	unsigned stages; /* bits, by enum stage */
	bool fixed; /* the operator's value, which stays */
};

/* A field of the header, as it is in the message: up to and with its line end, if it has one. */
struct field {
	const unsigned char *text;
	size_t length, name_length;
};

static struct {
	int fd;
	int64_t patience, deadline; /* ms */
	uint32_t actions, steps, version;
	char *wanted[STAGES]; /* macros that it asked for by name */
} milter = { .fd = -1 };

static struct {
	unsigned char bytes[2 * (COMMAND_MAX + 5)];
	size_t used, command; /* where the last command begins */
} out;

static struct {
	unsigned char code, data[REPLY_MAX + 1];
	size_t length;
} reply;

static struct macro macros[MACROS_MAX];
static size_t macro_count;

static struct field fields[FIELDS_MAX];
static size_t field_count;
static const unsigned char *message, *body;
static size_t message_length, body_length;
static bool is_binary; /* BODY=BINARYMIME: the body has no lines, RFC 3030 3 */
static bool separated; /* an empty line ends the header */
static size_t separator_length; /* of a mailbox's first line before the header */

static unsigned char added[ADDED_MAX];
static size_t added_length;
static unsigned char *new_body;
static size_t new_body_length, new_body_room;
static bool body_replaced, changed, quarantined;

static _Noreturn void fail(int status, const char *format, ...)
{
	va_list arguments;

	fputs("milter: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(status);
}

static void *checked(void *memory)
{
	if (!memory)
		fail(EX_OSERR, "out of memory");
	return memory;
}

/* ---- time and octets ---- */

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void start_clock(void)
{
	milter.deadline = now() + milter.patience;
}

/* Whether the socket becomes ready for it before the deadline. */
static bool ready(short events)
{
	struct pollfd poller = { .fd = milter.fd, .events = events };
	int64_t left;
	int got = 0;

	while (got == 0 && (left = milter.deadline - now()) > 0) {
		got = poll(&poller, 1, (int)left);
		if (got < 0 && errno == EINTR)
			got = 0;
	}
	return got > 0;
}

static void await(short events)
{
	if (!ready(events))
		fail(EX_TEMPFAIL, "the milter does not %s in %lld s", events == POLLIN ? "answer" : "read",
		    (long long)(milter.patience / 1000));
}

static bool again(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static void flush(void)
{
	size_t done = 0;
	ssize_t n;

	start_clock();
	while (done < out.used) {
		n = send(milter.fd, out.bytes + done, out.used - done, MSG_NOSIGNAL);
		if (n > 0)
			done += (size_t)n;
		else if (again())
			await(POLLOUT);
		else
			fail(EX_TEMPFAIL, "writing to the milter: %s", strerror(errno));
	}
	out.used = 0;
}

static void receive(void *bytes, size_t left)
{
	unsigned char *at = bytes;
	ssize_t n;

	while (left) {
		n = recv(milter.fd, at, left, 0);
		if (n > 0) {
			at += n;
			left -= (size_t)n;
		} else if (n == 0) {
			fail(EX_TEMPFAIL, "the milter has closed the connection");
		} else if (again()) {
			await(POLLIN);
		} else {
			fail(EX_TEMPFAIL, "reading from the milter: %s", strerror(errno));
		}
	}
}

static uint32_t number_at(const unsigned char *bytes)
{
	return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void put_number(unsigned char *bytes, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		bytes[i] = (unsigned char)(value >> (24 - 8 * i));
}

/* ---- commands and replies ---- */

static void begin(char command)
{
	if (sizeof out.bytes - out.used < COMMAND_MAX + 5)
		flush();
	out.command = out.used;
	out.bytes[out.used + 4] = (unsigned char)command;
	out.used += 5;
}

static _Noreturn void refuse_message(const char *why);

static void add(const void *bytes, size_t length)
{
	if (length > COMMAND_MAX - (out.used - out.command - 5))
		refuse_message("A line of it is too long for the filter");
	memcpy(out.bytes + out.used, bytes, length);
	out.used += length;
}

static void add_number(uint32_t value)
{
	unsigned char bytes[4];

	put_number(bytes, value);
	add(bytes, sizeof bytes);
}

static void add_string(const char *text)
{
	add(text, strlen(text) + 1);
}

static void end(void)
{
	put_number(out.bytes + out.command, (uint32_t)(out.used - out.command - 4));
}

/* The next reply but PROGRESS, with which a milter asks for patience. */
static void get_reply(void)
{
	unsigned char head[5];
	uint32_t length;

	do {
		start_clock();
		receive(head, sizeof head);
		length = number_at(head);
		if (length < 1 || length - 1 > REPLY_MAX)
			fail(EX_TEMPFAIL, "the milter sent a reply of %lu octets", (unsigned long)length);
		reply.code = head[4];
		reply.length = length - 1;
		receive(reply.data, reply.length);
	} while (reply.code == PROGRESS);
	reply.data[reply.length] = 0;
}

static char printable(char c)
{
	return c >= ' ' && c < 0x7f ? c : '?';
}

static _Noreturn void misplaced(const struct step *step)
{
	fail(EX_TEMPFAIL, "the milter answered %c with reply %c (0x%02x) of %zu octets", step->command,
	    printable((char)reply.code), reply.code, reply.length);
}

/* Nothing was asked, so nothing may have been said: a reply out of turn would pass for that to the next command. */
static void check_silence(void)
{
	unsigned char byte;

	if (recv(milter.fd, &byte, 1, MSG_PEEK) > 0)
		fail(EX_TEMPFAIL, "the milter speaks out of turn");
}

static void ask(void)
{
	end();
	check_silence();
	flush();
	get_reply();
}

/* A farewell for the milter's sake: it costs no time and cannot fail. */
static void leave(bool in_message)
{
	static const unsigned char farewell[] = { 0, 0, 0, 1, 'A', 0, 0, 0, 1, 'Q' };
	const size_t skip = in_message ? 0 : 5;

	if (send(milter.fd, farewell + skip, sizeof farewell - skip, MSG_NOSIGNAL) >= 0)
		shutdown(milter.fd, SHUT_WR);
}

/* ---- verdicts ---- */

static _Noreturn void finish(void)
{
	if (fflush(stdout) || ferror(stdout))
		fail(EX_IOERR, "writing the verdict: %s", strerror(errno));
	exit(0);
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Length of the number of an enhanced code at text, RFC 3463 2: up to three digits. */
static size_t number_length(const char *text)
{
	size_t n = 0;

	while (n < 3 && is_digit(text[n]))
		n++;
	return n;
}

/* Length of an enhanced code at text, of the class of the reply code, 0 if there is none. */
static size_t enhanced_length(const char *text, char class)
{
	size_t subject, detail;

	if (text[0] != class || text[1] != '.')
		return 0;
	subject = number_length(text + 2);
	if (!subject || text[2 + subject] != '.')
		return 0;
	detail = number_length(text + 3 + subject);
	if (!detail || (text[3 + subject + detail] && !strchr(" \r\n", text[3 + subject + detail])))
		return 0;
	return 3 + subject + detail;
}

static size_t code_length(const char *text)
{
	if ((text[0] != '4' && text[0] != '5') || !is_digit(text[1]) || !is_digit(text[2]))
		return 0;
	return text[3] == ' ' || text[3] == '-' ? 4 : strchr("\r\n", text[3]) ? 3 : 0;
}

/* Appends a line's text, as ASCII without controls. Milters double a %, which Sendmail needs. */
static size_t add_text(struct refusal *refusal, size_t used, const char *line, size_t length)
{
	for (size_t i = 0; i < length && used < TEXT_MAX; i++) {
		if (line[i] == '%' && i + 1 < length && line[i + 1] == '%')
			i++;
		refusal->text[used++] = printable(line[i]);
	}
	return used;
}

static void set_refusal(struct refusal *refusal, const char *code, const char *enhanced, const char *text)
{
	snprintf(refusal->code, sizeof refusal->code, "%s", code);
	snprintf(refusal->enhanced, sizeof refusal->enhanced, "%s", enhanced);
	snprintf(refusal->text, sizeof refusal->text, "%s", text);
}

static void default_refusal(struct refusal *refusal, char class)
{
	if (class == '4')
		set_refusal(refusal, "451", "4.7.1", "The filter asks to try again later");
	else
		set_refusal(refusal, "550", "5.7.1", "Refused by the filter");
}

/* The codes of a line of the reply; returns what is behind them. */
static const char *take_codes(struct refusal *refusal, const char *line)
{
	size_t n = code_length(line);

	if (n)
		memcpy(refusal->code, line, 3);
	line += n;
	n = enhanced_length(line, refusal->code[0]);
	if (n) {
		memcpy(refusal->enhanced, line, n);
		refusal->enhanced[n] = 0;
	}
	return line + n + strspn(line + n, " ");
}

/* REPLY_CODE: a whole SMTP reply, of a line or several, one NUL behind it. */
static void parse_refusal(struct refusal *refusal, const struct step *step)
{
	const char *line = (const char *)reply.data;
	size_t used = 0, length;

	if (!reply.length || strlen(line) != reply.length - 1 || !code_length(line))
		misplaced(step);
	default_refusal(refusal, line[0]);
	while (*line) {
		line = take_codes(refusal, line);
		length = strcspn(line, "\r\n");
		if (used && used < TEXT_MAX && length)
			refusal->text[used++] = ' ';
		used = add_text(refusal, used, line, length);
		line += length;
		line += strspn(line, "\r\n");
	}
	if (used)
		refusal->text[used] = 0;
	if (refusal->code[1] > '5') /* no reply code, RFC 5321 4.2 */
		memcpy(refusal->code, refusal->code[0] == '4' ? "451" : "550", 3);
}

static _Noreturn void refuse(const struct refusal *refusal)
{
	if (strcmp(refusal->code, "421") == 0)
		printf("close %s %s\n", refusal->enhanced, refusal->text);
	else
		printf("%s %s %s %s\n", refusal->code[0] == '4' ? "defer" : "reject", refusal->code, refusal->enhanced,
		    refusal->text);
	finish();
}

/* Of a message that would fail each time that the client tries it again. */
static _Noreturn void refuse_message(const char *why)
{
	if (milter.fd >= 0)
		leave(true);
	printf("reject 554 5.6.0 %s\n", why);
	finish();
}

/* Whether the reply is a refusal, which it then puts into *refusal. */
static bool is_refusal(struct refusal *refusal, const struct step *step)
{
	switch (reply.code) {
	case REJECT:
		default_refusal(refusal, '5');
		return true;
	case TEMPFAIL:
		default_refusal(refusal, '4');
		return true;
	case REPLY_CODE:
		parse_refusal(refusal, step);
		return true;
	default:
		return false;
	}
}

static _Noreturn void finish_message(void);

/* What a reply means that ends the conversation or lets it go on, and nothing else. */
static void obey(const struct step *step)
{
	struct refusal refusal;

	if (reply.code == CONTINUE)
		return;
	leave(step->stage > AT_HELO && step != &end_of_message);
	if (is_refusal(&refusal, step))
		refuse(&refusal);
	switch (reply.code) {
	case ACCEPT:
		finish_message();
	case DISCARD:
		puts("discard");
		finish();
	case SHUTDOWN:
	case CONNECTION_FAILS:
		set_refusal(&refusal, "421", "4.7.0", "The filter ends the session");
		refuse(&refusal);
	default:
		misplaced(step);
	}
}

/* ---- macros ---- */

static struct macro *find_macro(const char *name)
{
	for (size_t i = 0; i < macro_count; i++)
		if (strcmp(macros[i].name, name) == 0)
			return &macros[i];
	return NULL;
}

static struct macro *set_macro(const char *name, const char *value, unsigned stages)
{
	struct macro *macro = find_macro(name);

	if (!macro) {
		if (macro_count == MACROS_MAX)
			fail(EX_CONFIG, "MILTER_MACROS has too many macros");
		macro = &macros[macro_count++];
		macro->name = name;
	}
	macro->stages = stages;
	if (!macro->fixed)
		macro->value = value;
	return macro;
}

/* Whether a list of names, in braces or not, has this one. */
static bool is_listed(const char *list, const char *name)
{
	static const char between[] = " \t,{}";
	size_t n;

	for (list += strspn(list, between); *list; list += n + strspn(list + n, between)) {
		n = strcspn(list, between);
		if (n == strlen(name) && memcmp(list, name, n) == 0)
			return true;
	}
	return false;
}

static bool is_due(const struct macro *macro, enum stage stage)
{
	return milter.wanted[stage] ? is_listed(milter.wanted[stage], macro->name) : macro->stages >> stage & 1;
}

/* Sent even if the milter skips the step: it may look at them later. */
static void send_macros(const struct step *step)
{
	const char *form;
	char name[256];
	bool any = false;

	for (size_t i = 0; step->stage < STAGES && i < macro_count; i++) {
		if (!is_due(&macros[i], step->stage))
			continue;
		if (!any) {
			begin('D');
			add(&step->command, 1);
			any = true;
		}
		form = macros[i].name[1] ? "{%s}" : "%s"; /* a name of one letter has no braces */
		snprintf(name, sizeof name, form, macros[i].name);
		add_string(name);
		add_string(macros[i].value);
	}
	if (any)
		end();
}

/* ---- settings ---- */

static const char *setting(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

static void read_timeout(void)
{
	const char *text = setting("MILTER_TIMEOUT");
	char *rest = NULL;
	long seconds = text ? strtol(text, &rest, 10) : 25;

	if (seconds < 1 || seconds > 3600 || (rest && *rest))
		fail(EX_CONFIG, "MILTER_TIMEOUT must be a number of seconds from 1 to 3600");
	milter.patience = seconds * 1000;
}

static void read_macros(void)
{
	static const char blanks[] = " \t\r\n";
	const char *text = setting("MILTER_MACROS");
	char *copy, *save, *value;

	if (!text)
		return;
	copy = checked(strdup(text));
	for (char *name = strtok_r(copy, blanks, &save); name; name = strtok_r(NULL, blanks, &save)) {
		value = strchr(name, '=');
		if (value && value - name >= 2 && name[0] == '{' && value[-1] == '}') {
			name++;
			value[-1] = 0;
		}
		if (!value || value == name || !*name || value - name > 200)
			fail(EX_CONFIG, "MILTER_MACROS must be NAME=VALUE ..., with blanks between");
		*value++ = 0;
		set_macro(name, value, 1 << AT_CONNECT)->fixed = true;
	}
}

/* ---- connecting ---- */

/* True: connected. Else errno says why not, and the socket is closed. */
static bool connect_to(const struct sockaddr *address, socklen_t length)
{
	int error, on = 1;
	socklen_t size = sizeof error;

	milter.fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (milter.fd < 0)
		return false;
	if (address->sa_family != AF_UNIX)
		setsockopt(milter.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	do { /* EAGAIN: a path whose queue of connections is full, and nothing tells when there is room */
		error = connect(milter.fd, address, length) < 0 ? errno : 0;
	} while (error == EAGAIN && now() < milter.deadline && poll(NULL, 0, 10) == 0);
	if (error == EINPROGRESS) {
		if (!ready(POLLOUT))
			error = ETIMEDOUT;
		else if (getsockopt(milter.fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
			error = errno;
	}
	if (error)
		close(milter.fd);
	errno = error;
	return !error;
}

static _Noreturn void unreachable(const char *where)
{
	fail(EX_TEMPFAIL, "no milter at %s: %s", where, strerror(errno));
}

static void connect_unix(const char *where, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (!*path || strlen(path) >= sizeof address.sun_path)
		fail(EX_CONFIG, "MILTER_SOCKET has no path, or one that is too long: %s", where);
	strcpy(address.sun_path, path);
	if (!connect_to((struct sockaddr *)&address, sizeof address))
		unreachable(where);
}

/* PORT@HOST, as milters have it. */
static void connect_inet(const char *where, const char *port_host, int family)
{
	const struct addrinfo hints = { .ai_family = family, .ai_socktype = SOCK_STREAM };
	struct addrinfo *found, *at;
	const char *host = strchr(port_host, '@');
	char port[6] = "";
	bool done = false;
	int error;

	if (host && host - port_host < (int)sizeof port)
		memcpy(port, port_host, (size_t)(host - port_host));
	if (!*port || strspn(port, "0123456789") != strlen(port) || atoi(port) < 1 || atoi(port) > 65535 || !host[1])
		fail(EX_CONFIG, "MILTER_SOCKET must be inet:PORT@HOST, not %s", where);
	error = getaddrinfo(host + 1, port, &hints, &found);
	if (error)
		fail(EX_TEMPFAIL, "no milter at %s: %s", where, gai_strerror(error));
	for (at = found; at && !done; at = at->ai_next)
		done = connect_to(at->ai_addr, at->ai_addrlen);
	if (!done)
		unreachable(where);
	freeaddrinfo(found);
}

static void connect_milter(void)
{
	const char *where = setting("MILTER_SOCKET");
	const char *rest = where ? strchr(where, ':') : NULL;
	size_t n = rest ? (size_t)(rest++ - where) : 0;

	start_clock();
	if (!where)
		fail(EX_CONFIG, "MILTER_SOCKET must say where the milter listens: unix:/PATH or inet:PORT@HOST");
	if (n == 4 && memcmp(where, "inet", n) == 0)
		connect_inet(where, rest, AF_INET);
	else if (n == 5 && memcmp(where, "inet6", n) == 0)
		connect_inet(where, rest, AF_INET6);
	else if ((n == 4 && memcmp(where, "unix", n) == 0) || (n == 5 && memcmp(where, "local", n) == 0))
		connect_unix(where, rest);
	else
		fail(EX_CONFIG, "MILTER_SOCKET must be unix:/PATH or inet:PORT@HOST, not %s", where);
}

/* ---- negotiation ---- */

/* Names of macros, by stage, behind the three numbers. */
static void take_macro_lists(size_t at)
{
	const unsigned char *nul;
	uint32_t stage;

	while (at < reply.length) {
		nul = reply.length - at > 4 ? memchr(reply.data + at + 4, 0, reply.length - at - 4) : NULL;
		if (!nul)
			fail(EX_TEMPFAIL, "the milter sent half a list of macros");
		stage = number_at(reply.data + at);
		if (stage < STAGES) {
			free(milter.wanted[stage]);
			milter.wanted[stage] = checked(strdup((const char *)reply.data + at + 4));
		}
		at = (size_t)(nul - reply.data) + 1;
	}
}

static void negotiate(void)
{
	begin('O');
	add_number(VERSION);
	add_number(ACTIONS);
	add_number(PROTOCOL);
	ask();
	if (reply.code != NEGOTIATED || reply.length < 12)
		fail(EX_TEMPFAIL, "the milter refuses negotiation: reply 0x%02x of %zu octets", reply.code, reply.length);
	milter.version = number_at(reply.data);
	milter.actions = number_at(reply.data + 4);
	milter.steps = number_at(reply.data + 8);
	if (milter.version < VERSION_MIN || milter.version > VERSION)
		fail(EX_TEMPFAIL, "the milter speaks version %lu of the protocol", (unsigned long)milter.version);
	if (milter.actions & ~(uint32_t)ACTIONS || milter.steps & ~(uint32_t)PROTOCOL)
		fail(EX_TEMPFAIL, "the milter wants what was not offered: actions 0x%lx, protocol 0x%lx",
		    (unsigned long)milter.actions, (unsigned long)milter.steps);
	take_macro_lists(12);
}

/* ---- the line on stdin ---- */

/* Control characters could end a string of the protocol, or a line of a header that the milter makes. */
static const char *cleaned(char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
			text[i] = '?';
	return text;
}

/* A copy that lives as long as the program; NULL if it is no string. */
static const char *text_of(const json_t *string)
{
	const size_t length = json_string_length(string);
	char *copy;

	if (!json_is_string(string))
		return NULL;
	copy = checked(malloc(length + 1));
	memcpy(copy, json_string_value(string), length);
	copy[length] = 0;
	return cleaned(copy, length);
}

static const char *member(const json_t *object, const char *name)
{
	return text_of(json_object_get(object, name));
}

/* The same for three strings in one. */
static const char *joined(const char *first, const char *second, const char *third)
{
	const size_t size = strlen(first) + strlen(second) + strlen(third) + 1;
	char *text = checked(malloc(size));

	snprintf(text, size, "%s%s%s", first, second, third);
	return cleaned(text, size - 1);
}

static json_t *read_line(void)
{
	json_error_t error;
	json_t *line = json_loadf(stdin, JSON_ALLOW_NUL, &error);

	if (!json_is_object(line) || !json_is_object(json_object_get(line, "mail_from")) ||
	    !json_is_array(json_object_get(line, "rcpt_to")))
		fail(EX_DATAERR, "stdin is not a line of the data event");
	return line;
}

/* ---- the steps before the message ---- */

/* Whether the milter has answered, with what is in reply. */
static bool step_answered(const struct step *step)
{
	if (milter.steps & step->quiet) {
		end();
		return false;
	}
	ask();
	return true;
}

static bool wanted(const struct step *step)
{
	return !(milter.steps & step->skip);
}

/* The step in the open command is done, its reply obeyed. */
static void step_done(const struct step *step)
{
	if (step_answered(step))
		obey(step);
}

static void set_tls_macros(const json_t *tls)
{
	const char *version = member(tls, "version"), *cipher = member(tls, "cipher"), *name = member(tls, "cn");

	if (version)
		set_macro("tls_version", version, 1 << AT_HELO);
	if (cipher)
		set_macro("cipher", cipher, 1 << AT_HELO);
	if (version)
		set_macro("verify", json_is_true(json_object_get(tls, "verified")) ? "OK" : "NO", 1 << AT_HELO);
	if (name)
		set_macro("cert_subject", name, 1 << AT_HELO);
}

static void set_client_macros(const char *address, const char *name, json_int_t port)
{
	static char host[256], digits[24];
	const unsigned stage = 1 << AT_CONNECT;

	gethostname(host, sizeof host - 1);
	snprintf(digits, sizeof digits, "%lld", (long long)port);
	set_macro("j", host, stage);
	set_macro("_", name, stage);
	set_macro("v", "smtpwarp", stage);
	set_macro("daemon_name", "smtpwarp", stage);
	set_macro("client_addr", address, stage);
	set_macro("client_port", digits, stage);
	set_macro("client_name", name, stage);
	set_macro("client_ptr", name, stage);
}

/* The client's address, an IPv4 one never in IPv6's form; "" if there is none. */
static const char *client_ip(const json_t *client)
{
	const char *ip = member(client, "ip");
	const bool mapped = ip && strncasecmp(ip, "::ffff:", 7) == 0 && strchr(ip, '.');

	return ip ? ip + (mapped ? 7 : 0) : "";
}

/* Nobody has looked up the client's name, so it is the address in brackets, as Sendmail has it then. */
static void say_connect(const json_t *client)
{
	const char *ip = client_ip(client);
	const bool six = strchr(ip, ':');
	const char *address = joined(six ? "IPv6:" : "", ip, ""), *name = joined("[", address, "]");
	const json_int_t port = json_integer_value(json_object_get(client, "port"));
	const unsigned char bytes[2] = { (unsigned char)(port >> 8), (unsigned char)port };
	unsigned char binary[16];

	set_client_macros(address, name, port);
	send_macros(&connection);
	if (!wanted(&connection))
		return;
	begin(connection.command);
	add_string(name);
	if (inet_pton(six ? AF_INET6 : AF_INET, ip, binary) == 1) {
		add(six ? "6" : "4", 1);
		add(bytes, sizeof bytes);
		add_string(ip);
	} else {
		add("U", 1);
	}
	step_done(&connection);
}

static void say_helo(const json_t *line)
{
	const char *name = member(line, "helo");

	set_tls_macros(json_object_get(json_object_get(line, "client"), "tls"));
	send_macros(&helo);
	if (!name || !wanted(&helo))
		return;
	begin(helo.command);
	add_string(name);
	step_done(&helo);
}

/* <ADDRESS>, then its parameters, each a string. */
static void begin_path(const struct step *step, const char *address, json_t *path)
{
	const char *name, *value;
	json_t *param;

	begin(step->command);
	add_string(joined("<", address, ">"));
	json_object_foreach(json_object_get(path, "params"), name, param)
	{
		value = text_of(param);
		add_string(joined(name, value ? "=" : "", value ? value : ""));
	}
}

static const char *domain_of(const char *address)
{
	const char *at = strrchr(address, '@');

	return at ? at + 1 : "";
}

static void say_mail(const json_t *line)
{
	const unsigned all = 1 << AT_MAIL | 1 << AT_DATA | 1 << AT_EOH | 1 << AT_EOM;
	json_t *path = json_object_get(line, "mail_from");
	const char *address = member(path, "address"), *id = member(line, "transaction"), *user = member(line, "auth");
	const char *content = member(json_object_get(path, "params"), "BODY");

	is_binary = content && strcasecmp(content, "BINARYMIME") == 0;
	address = address ? address : "";
	set_macro("i", id ? id : "", all);
	set_macro("mail_addr", address, 1 << AT_MAIL);
	set_macro("mail_host", domain_of(address), 1 << AT_MAIL);
	set_macro("mail_mailer", "smtp", 1 << AT_MAIL);
	if (user) {
		set_macro("auth_authen", user, 1 << AT_MAIL);
		set_macro("auth_type", "PLAIN", 1 << AT_MAIL); /* not known; that it is there tells milters of AUTH */
	}
	send_macros(&mail);
	if (!wanted(&mail))
		return;
	begin_path(&mail, address, path);
	step_done(&mail);
}

/* The worst refusal of a recipient so far; the permanent ones are worse. */
static void note_refusal(struct refusal *worst, const struct refusal *refusal, const char *address, size_t recipients)
{
	const size_t used = strlen(refusal->text), room = TEXT_MAX - used;

	if (worst->code[0] >= refusal->code[0])
		return;
	*worst = *refusal;
	if (recipients == 1 || strlen(address) + 3 > room)
		return;
	/* Which one it was, for the report that the sender gets. */
	snprintf(worst->text + used, room + 1, " (%s)", address);
	for (char *c = worst->text + used; *c; c++)
		*c = printable(*c);
}

static void say_rcpts(const json_t *list)
{
	struct refusal worst = { .code = "" }, refusal;
	const char *address;
	json_t *path;
	size_t i;

	json_array_foreach(list, i, path)
	{
		address = member(path, "address");
		if (!address)
			fail(EX_DATAERR, "a recipient has no address");
		set_macro("rcpt_addr", address, 1 << AT_RCPT);
		set_macro("rcpt_host", domain_of(address), 1 << AT_RCPT);
		set_macro("rcpt_mailer", "smtp", 1 << AT_RCPT);
		send_macros(&rcpt);
		if (!wanted(&rcpt))
			continue;
		begin_path(&rcpt, address, path);
		if (!step_answered(&rcpt))
			continue;
		if (is_refusal(&refusal, &rcpt))
			note_refusal(&worst, &refusal, address, json_array_size(list));
		else if (reply.code == ACCEPT && worst.code[0])
			break;
		else
			obey(&rcpt);
	}
	if (!worst.code[0])
		return;
	leave(true);
	refuse(&worst);
}

static void say_data(void)
{
	send_macros(&data);
	if (milter.version < VERSION_DATA || !wanted(&data))
		return;
	begin(data.command);
	step_done(&data);
}

/* ---- the message ---- */

static void map_message(void)
{
	struct stat status;
	void *memory = NULL;

	if (fstat(MESSAGE_FD, &status) < 0 || status.st_size < 0)
		fail(EX_NOINPUT, "no message on descriptor %d: %s", MESSAGE_FD, strerror(errno));
	message_length = (size_t)status.st_size;
	if (message_length) /* nothing cannot be mapped */
		memory = mmap(NULL, message_length, PROT_READ, MAP_PRIVATE, MESSAGE_FD, 0);
	if (memory == MAP_FAILED)
		fail(EX_NOINPUT, "mapping the message: %s", strerror(errno));
	message = memory ? memory : (const unsigned char *)"";
}

static bool is_blank(unsigned char c)
{
	return c == ' ' || c == '\t';
}

/* Length of the name of the field that begins at text, 0 if none does: RFC 5322 3.6.8, blanks before the colon 4.5. */
static size_t field_name_length(const unsigned char *text, size_t length)
{
	size_t name = 0, at;

	while (name < length && text[name] > ' ' && text[name] < 0x7f && text[name] != ':')
		name++;
	for (at = name; at < length && is_blank(text[at]);)
		at++;
	return at < length && text[at] == ':' ? name : 0;
}

static void push_field(struct field field, size_t at)
{
	if (field_count == FIELDS_MAX)
		fail(EX_TEMPFAIL, "the header has more than %d fields", FIELDS_MAX - 1);
	memmove(&fields[at + 1], &fields[at], (field_count - at) * sizeof *fields);
	fields[at] = field;
	field_count++;
}

static bool is_empty_line(const unsigned char *line, size_t length)
{
	return (length == 1 && line[0] == '\n') || (length == 2 && line[0] == '\r' && line[1] == '\n');
}

/* Length of the first line of a mailbox's file, which some programs send as the first line of a message: RFC 4155 appendix A. The header
 * follows it; the milter is not shown it. */
static size_t find_separator(void)
{
	const size_t quote = message_length && message[0] == '>';
	const unsigned char *newline = memchr(message, '\n', message_length);

	if (!newline || message_length - quote < 5 || memcmp(message + quote, "From ", 5) != 0 || field_name_length(message, message_length))
		return 0;
	return (size_t)(newline - message) + 1;
}

/* The header ends with an empty line, which belongs to neither part, or where no field goes on. */
static void parse_message(void)
{
	const unsigned char *at = message, *const last = message + message_length, *newline;
	size_t left, length, name;

	push_field((struct field){ .text = message }, 0); /* stands for the Received field that counts but is not there */
	separator_length = find_separator();
	at += separator_length;
	for (; (left = (size_t)(last - at)); at += length) {
		newline = memchr(at, '\n', left);
		length = newline ? (size_t)(newline - at) + 1 : left;
		separated = is_empty_line(at, length);
		if (separated) {
			at += length;
			break;
		}
		name = field_name_length(at, length);
		if (name && field_count == FIELDS_MAX)
			refuse_message("Its header has too many fields for the filter");
		if (name)
			push_field((struct field){ at, length, name }, field_count);
		else if (is_blank(*at) && field_count > 1)
			fields[field_count - 1].length += length;
		else
			break;
	}
	body = at;
	body_length = (size_t)(last - at);
}

/* Where the line end of a field begins. */
static size_t content_length(const struct field *field)
{
	size_t length = field->length;

	if (length && field->text[length - 1] == '\n') {
		length--;
		if (length && field->text[length - 1] == '\r')
			length--;
	}
	return length;
}

/* As milters get values: the lines end in LF, NUL would end the string. */
static void add_value(const unsigned char *value, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (value[i] != '\r' || i + 1 == length || value[i + 1] != '\n')
			add(value[i] ? &value[i] : (const unsigned char *)" ", 1);
}

static void say_field(const struct field *field)
{
	const unsigned char *colon = memchr(field->text, ':', field->length);
	size_t length = content_length(field), at = (size_t)(colon - field->text) + 1;

	if (!(milter.steps & LEADING_SPACE) && at < length && field->text[at] == ' ')
		at++;
	begin(header.command);
	add(field->text, field->name_length);
	add("", 1);
	add_value(field->text + at, length - at);
	add("", 1);
	step_done(&header);
}

static void say_header(void)
{
	for (size_t i = 1; wanted(&header) && i < field_count; i++)
		say_field(&fields[i]);
	send_macros(&end_of_header);
	if (!wanted(&end_of_header))
		return;
	begin(end_of_header.command);
	step_done(&end_of_header);
}

/* Whether the milter wants more. */
static bool say_chunk(const void *bytes, size_t length)
{
	begin(body_chunk.command);
	add(bytes, length);
	if (!step_answered(&body_chunk))
		return true;
	if (reply.code == SKIP)
		return false;
	obey(&body_chunk);
	return true;
}

/* A last line without its end gets one, as it does on its way: signers rely on it. */
static bool lacks_line_end(void)
{
	return !is_binary && body_length && body[body_length - 1] != '\n';
}

static void say_body(void)
{
	bool more = wanted(&body_chunk);
	size_t length;

	for (size_t at = 0; more && at < body_length; at += length) {
		length = body_length - at < COMMAND_MAX ? body_length - at : COMMAND_MAX;
		more = say_chunk(body + at, length);
	}
	if (more && lacks_line_end())
		say_chunk("\r\n", 2);
}

/* ---- changes ---- */

static void check_action(enum action action)
{
	if (!(milter.actions & action))
		fail(EX_TEMPFAIL, "the milter makes changes (%c) that it did not ask for", reply.code);
}

static void write_added(const void *bytes, size_t length)
{
	if (length > sizeof added - added_length)
		fail(EX_TEMPFAIL, "the milter adds more than %zu octets to the header", sizeof added);
	memcpy(added + added_length, bytes, length);
	added_length += length;
}

/* A value with lines as a message has them, each but the first one a continuation: nothing in it ends the field. */
static void write_value(const char *value)
{
	size_t length = strlen(value);

	while (length && (value[length - 1] == '\n' || value[length - 1] == '\r'))
		length--;
	for (size_t i = 0; i < length; i++) {
		if (value[i] == '\r') {
			if (value[i + 1] != '\n')
				write_added(" ", 1);
		} else if (value[i] != '\n') {
			write_added(value + i, 1);
		} else if (is_blank((unsigned char)value[i + 1])) {
			write_added("\r\n", 2);
		} else {
			write_added("\r\n\t", 3);
		}
	}
}

/* A field of the milter's making. Without the leading space in the protocol, it is understood. */
static struct field new_field(const char *name, const char *value)
{
	struct field field = { .text = added + added_length, .name_length = strlen(name) };

	write_added(name, field.name_length);
	write_added(": ", milter.steps & LEADING_SPACE ? 1 : 2);
	write_value(value);
	write_added("\r\n", 2);
	field.length = (size_t)(added + added_length - field.text);
	if (field_name_length(field.text, field.length) != field.name_length || !field.name_length)
		fail(EX_TEMPFAIL, "the milter adds a header field with a name that is none");
	return field;
}

/* The two strings that reply has from there on, and nothing behind them. */
static void take_strings(size_t at, const char **name, const char **value)
{
	const unsigned char *first = at < reply.length ? memchr(reply.data + at, 0, reply.length - at) : NULL;
	const unsigned char *rest = first ? first + 1 : NULL;
	const unsigned char *second = rest ? memchr(rest, 0, (size_t)(reply.data + reply.length - rest)) : NULL;

	if (!second || second != reply.data + reply.length - 1)
		misplaced(&end_of_message);
	*name = (const char *)reply.data + at;
	*value = (const char *)rest;
}

/* The number in front of them. */
static uint32_t take_index(void)
{
	if (reply.length < 4)
		misplaced(&end_of_message);
	return number_at(reply.data);
}

static void add_header(void)
{
	const char *name, *value;

	check_action(ADD_HEADERS);
	take_strings(0, &name, &value);
	push_field(new_field(name, value), field_count);
	changed = true;
}

static void insert_header(void)
{
	const char *name, *value;
	uint32_t index = take_index();

	check_action(ADD_HEADERS);
	take_strings(4, &name, &value);
	push_field(new_field(name, value), index < field_count ? index : field_count);
	changed = true;
}

/* The index-th field of that name, counted from 1; 0 means the first too. */
static struct field *find_field(const char *name, uint32_t index)
{
	const size_t length = strlen(name);

	for (size_t i = 0; i < field_count; i++)
		if (fields[i].name_length == length && strncasecmp((const char *)fields[i].text, name, length) == 0 &&
		    index-- <= 1)
			return &fields[i];
	return NULL;
}

/* One that is not there is added, or not deleted. A deleted one stays in place, without text, to be counted. */
static void change_header(void)
{
	const char *name, *value;
	const uint32_t index = take_index();
	struct field *field;

	check_action(CHANGE_HEADERS);
	take_strings(4, &name, &value);
	field = *name ? find_field(name, index) : NULL;
	if (*value && field)
		*field = new_field(name, value);
	else if (*value)
		push_field(new_field(name, value), field_count);
	else if (field)
		field->length = 0;
	else
		return;
	changed = true;
}

static void replace_body(void)
{
	const size_t most = BODY_EXTRA + 4 * message_length;

	check_action(CHANGE_BODY);
	if (reply.length > most - new_body_length)
		fail(EX_TEMPFAIL, "the milter makes a body of more than %zu octets", most);
	while (reply.length >= new_body_room - new_body_length) { /* with room to spare: an empty body has memory too */
		new_body_room = 2 * new_body_room + REPLY_MAX;
		new_body = checked(realloc(new_body, new_body_room));
	}
	memcpy(new_body + new_body_length, reply.data, reply.length);
	new_body_length += reply.length;
	body_replaced = changed = true;
}

static void quarantine(void)
{
	struct refusal reason;
	size_t length;

	check_action(QUARANTINE);
	length = strnlen((const char *)reply.data, reply.length);
	reason.text[add_text(&reason, 0, (const char *)reply.data, length)] = 0;
	if (!quarantined)
		printf("log milter_quarantine %s\n", reason.text);
	quarantined = true;
}

/* One reply to the end of the message; whether more will come. */
static bool change(void)
{
	switch (reply.code) {
	case ADD_HEADER:
		add_header();
		return true;
	case INSERT_HEADER:
		insert_header();
		return true;
	case CHANGE_HEADER:
		change_header();
		return true;
	case REPLACE_BODY:
		replace_body();
		return true;
	case QUARANTINED:
		quarantine();
		return true;
	case ADDED_RCPT:
	case ADDED_RCPT_PARAMS:
		fail(EX_TEMPFAIL, "the milter adds a recipient, which a data hook cannot");
	case DELETED_RCPT:
		fail(EX_TEMPFAIL, "the milter removes a recipient, which a data hook cannot");
	case CHANGED_SENDER:
		fail(EX_TEMPFAIL, "the milter changes the sender, which a data hook cannot");
	default:
		return false;
	}
}

static void print(const void *bytes, size_t length)
{
	fwrite(bytes, 1, length, stdout); /* finish() looks at the outcome of all */
}

static void print_body(void)
{
	if (body_replaced) {
		print(new_body, new_body_length);
		return;
	}
	print(body, body_length);
	if (lacks_line_end())
		print("\r\n", 2);
}

/* A field that ends the message without a line end gets one, a body right behind the header an empty line. */
static void print_message(void)
{
	puts("replace-message");
	print(message, separator_length);
	for (size_t i = 0; i < field_count; i++) {
		print(fields[i].text, fields[i].length);
		if (fields[i].length && fields[i].text[fields[i].length - 1] != '\n')
			print("\r\n", 2);
	}
	if (separated || (body_replaced ? new_body_length : body_length))
		print("\r\n", 2);
	print_body();
}

static _Noreturn void finish_message(void)
{
	struct refusal refusal;

	if (quarantined) {
		set_refusal(&refusal, "550", "5.7.1", "The filter wants this message held, which is not done here");
		refuse(&refusal);
	}
	if (changed)
		print_message();
	finish();
}

static _Noreturn void say_end(void)
{
	send_macros(&end_of_message);
	begin(end_of_message.command);
	ask();
	while (change())
		get_reply();
	check_silence();
	obey(&end_of_message);
	leave(false);
	finish_message();
}

/* smtpwarp --check reads it, as it reads the head of a script. */
extern const char smtpwarp_hook[];
const char smtpwarp_hook[] __attribute__((used)) = "smtpwarp hook: Events: data\n";

int main(void)
{
	const json_t *line;

	read_timeout();
	read_macros();
	line = read_line();
	map_message();
	parse_message();
	connect_milter();
	negotiate();
	say_connect(json_object_get(line, "client"));
	say_helo(line);
	say_mail(line);
	say_rcpts(json_object_get(line, "rcpt_to"));
	say_data();
	say_header();
	say_body();
	say_end();
}
