/* Writes each event to systemd's journal as an entry with fields: journalctl SMTPWARP_SESSION=...
 *
 * Events: log
 * Needs: libjansson4, libsystemd0
 * Links: jansson libsystemd
 * Variables: none
 *
 * MESSAGE is a sentence, SMTPWARP_RECORD the event as it came. A member that is a string, a number or a truth value
 * becomes a field SMTPWARP_NAME. Members of an object have the object's name in front (SMTPWARP_CLIENT_IP), with these
 * exceptions: SMTPWARP_MAIL_FROM is the address, there is one SMTPWARP_RCPT_TO for each recipient, and the reply to a
 * message is in SMTPWARP_CODE, SMTPWARP_ENHANCED and SMTPWARP_REPLY. A key that a hook logged is SMTPWARP_HOOKS_KEY.
 *
 * Use it with `--log none` or another sink than the journal: `--log journal` writes entries whose MESSAGE is JSON, with few of
 * these fields.
 */
#define _GNU_SOURCE
#define SD_JOURNAL_SUPPRESS_LOCATION /* otherwise the library adds CODE_FILE and so on */

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sysexits.h>
#include <syslog.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#define JOURNAL "/run/systemd/journal/socket"
#define PREFIX "SMTPWARP"
#define NAME_SIZE 65 /* journald drops longer names */
#define PARTS_MAX 1000 /* of the 1024 that writev(2) takes: the library makes 2 of a field, 5 if it has a line feed */

/* The entry under construction. */
static struct {
	struct iovec fields[PARTS_MAX / 2];
	int count;
	int parts;
} entry;

static void *checked(void *memory)
{
	if (!memory) {
		fputs("journal: out of memory\n", stderr);
		exit(EX_TEMPFAIL);
	}
	return memory;
}

/* NAME=value. A field for which there is no room is left out; SMTPWARP_RECORD still has it. */
static void add(const char *name, const void *value, size_t n)
{
	size_t head = strlen(name) + 1;
	int parts = memchr(value, '\n', n) ? 5 : 2;
	char *field;

	if (entry.parts + parts > PARTS_MAX)
		return;
	entry.parts += parts;
	field = checked(malloc(head + n));
	memcpy(field, name, head - 1);
	field[head - 1] = '=';
	memcpy(field + head, value, n);
	entry.fields[entry.count++] = (struct iovec){ field, head + n };
}

static void add_text(const char *name, const char *text)
{
	add(name, text, strlen(text));
}

static void add_scalar(const char *name, const json_t *value)
{
	char number[64];

	if (json_is_string(value)) {
		add(name, json_string_value(value), json_string_length(value));
	} else if (json_is_integer(value)) {
		snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		add_text(name, number);
	} else if (json_is_real(value)) { /* milliseconds, to the microsecond */
		snprintf(number, sizeof number, "%.3f", json_real_value(value));
		add_text(name, number);
	} else if (json_is_boolean(value)) {
		add_text(name, json_is_true(value) ? "true" : "false");
	}
}

/* PREFIX_KEY in the characters that journald allows: capitals, digits and underscores. */
static void make_name(char name[NAME_SIZE], const char *prefix, const char *key)
{
	int n = snprintf(name, NAME_SIZE, "%s_%s", prefix, key);

	for (int i = 0; i < n && i < NAME_SIZE - 1; i++) {
		char c = name[i];

		if (c >= 'a' && c <= 'z')
			name[i] = (char)(c - 'a' + 'A');
		else if (!((c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')))
			name[i] = '_';
	}
}

static void add_members(const char *prefix, const json_t *object)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)object, key, value) {
		char name[NAME_SIZE];

		make_name(name, prefix, key);
		if (json_object_get(value, "address"))
			add_scalar(name, json_object_get(value, "address"));
		else if (!json_is_object(value))
			add_scalar(name, value);
		else if (strcmp(key, "reply") != 0)
			add_members(name, value);
	}
}

static void add_reply(const json_t *reply)
{
	add_scalar(PREFIX "_CODE", json_object_get(reply, "code"));
	add_scalar(PREFIX "_ENHANCED", json_object_get(reply, "enhanced"));
	add_scalar(PREFIX "_REPLY", json_object_get(reply, "text"));
}

static void add_recipients(const json_t *recipients)
{
	json_t *recipient;
	size_t i;

	json_array_foreach(recipients, i, recipient)
		add_scalar(PREFIX "_RCPT_TO", json_object_get(recipient, "address"));
}

/* A string member, or "" without one. */
static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "";
}

static long long number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static void tell_message(FILE *out, const json_t *record)
{
	const json_t *recipients = json_object_get(record, "rcpt_to"), *reply = json_object_get(record, "reply");
	size_t n = json_array_size(recipients);

	fprintf(out, "<%s> => <%s>", text(json_object_get(record, "mail_from"), "address"),
	    text(json_array_get(recipients, 0), "address"));
	if (n > 1)
		fprintf(out, " and %zu more", n - 1);
	fprintf(out, ": %s", text(record, "result"));
	if (json_is_object(reply))
		fprintf(out, ", %lld %s", number(reply, "code"), text(reply, "text"));
}

static void tell(FILE *out, const char *event, const json_t *record)
{
	const json_t *client = json_object_get(record, "client"), *server = json_object_get(record, "server");

	if (strcmp(event, "comm") == 0)
		fprintf(out, "%s %s", text(record, "direction"), text(record, "data"));
	else if (strcmp(event, "message") == 0)
		tell_message(out, record);
	else if (strcmp(event, "connect") == 0)
		fprintf(out, "%s connected to %s port %lld", text(client, "ip"), text(server, "ip"), number(server, "port"));
	else if (strcmp(event, "tls") == 0)
		fprintf(out, "TLS with %s: %s %s %s", text(server, "ip"), text(record, "result"), text(record, "version"),
		    text(record, "reason"));
	else if (strcmp(event, "verdict") == 0)
		fprintf(out, "%s%s at %s: %s %s", *text(record, "hook") ? "hook " : "check", text(record, "hook"),
		    text(record, "on"), text(record, "verdict"), text(record, "text"));
	else if (strcmp(event, "close") == 0)
		fprintf(out, "%s closed by %s: %s", text(client, "ip"), text(record, "by"), text(record, "reason"));
	else
		fprintf(out, "%s: %s", event, text(record, "error"));
}

/* journalctl does not show a MESSAGE with control characters, which peers may send, including U+0080 to U+009F. */
static void make_printable(char *in, size_t n)
{
	unsigned char last = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)in[i];

		if (c < 0x20 || c == 0x7f)
			in[i] = '?';
		else if (last == 0xc2 && c < 0xa0)
			in[i - 1] = in[i] = '?';
		last = c;
	}
}

static void add_message(const char *event, const json_t *record)
{
	char *sentence;
	size_t n;
	FILE *out = checked(open_memstream(&sentence, &n));

	tell(out, event, record);
	fclose(out);
	make_printable(checked(sentence), n);
	add("MESSAGE", sentence, n);
	free(sentence);
}

static int priority(const char *event, const json_t *record)
{
	const char *result = text(record, "result");

	if (strcmp(event, "comm") == 0)
		return LOG_DEBUG;
	if (strcmp(event, "error") == 0)
		return LOG_ERR;
	if (strcmp(event, "tls") == 0)
		return strcmp(result, "ok") == 0 ? LOG_INFO : LOG_WARNING;
	if (strcmp(event, "message") == 0 && strcmp(result, "accepted") != 0 && strcmp(result, "discarded") != 0)
		return LOG_NOTICE;
	return LOG_INFO;
}

/* The recipients come last, because there may be too many for the room. */
static int send_record(const json_t *record, const char *line, size_t n)
{
	const char *event = text(record, "event");
	char level[] = { (char)('0' + priority(event, record)) };
	int error;

	add_message(event, record);
	add("PRIORITY", level, sizeof level);
	add_text("SYSLOG_IDENTIFIER", "smtpwarp");
	add_text("SYSLOG_FACILITY", "2"); /* mail */
	add(PREFIX "_RECORD", line, n);
	add_reply(json_object_get(record, "reply"));
	add_members(PREFIX, record);
	add_recipients(json_object_get(record, "rcpt_to"));
	error = sd_journal_sendv(entry.fields, entry.count);
	while (entry.count)
		free(entry.fields[--entry.count].iov_base);
	entry.parts = 0;
	return error;
}

/* A line of the stream: 0, or what to exit with. */
static int take_line(const char *line, size_t n)
{
	json_error_t why;
	json_t *record = json_loadb(line, n, JSON_ALLOW_NUL, &why);
	int error;

	if (!json_is_object(record)) {
		fprintf(stderr, "journal: a line is no JSON object: %s\n", record ? "" : why.text);
		json_decref(record);
		return EX_DATAERR;
	}
	error = send_record(record, line, n);
	json_decref(record);
	if (error < 0)
		fprintf(stderr, "journal: %s: %s\n", JOURNAL, strerror(-error));
	return error < 0 ? EX_TEMPFAIL : 0;
}

/* smtpwarp --check reads it, as it reads the head of a script. */
extern const char smtpwarp_hook[];
const char smtpwarp_hook[] __attribute__((used)) = "smtpwarp hook: Events: log\n";

int main(void)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t n;
	int status = 0;

	/* Without a journal the library reports success. */
	if (access(JOURNAL, W_OK) != 0) {
		perror("journal: " JOURNAL);
		return EX_TEMPFAIL;
	}
	while ((n = getline(&line, &size, stdin)) > 0) {
		int failure = take_line(line, (size_t)n - (line[n - 1] == '\n'));

		if (failure)
			status = failure;
	}
	free(line);
	return status;
}
