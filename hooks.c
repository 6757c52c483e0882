/* Hooks: finding and running them. See hooks.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "hooks.h"
#include "io/log.h"
#include "io/net.h"
#include "pure/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define READS_MAX 64	  /* in one turn, so that a hook cannot keep the session from its deadlines */

/* ---- which there are ---- */

static bool broken(struct hook_list *l, const char *what, const char *path, const char *why)
{
	snprintf(l->broken, sizeof l->broken, "%s %.90s: %.50s", what, path, why);
	l->count = l->events = 0;
	return false;
}

static const char *keep_path(struct hook_list *l, const char *dir, enum hook_event event, const char *name)
{
	char *path = l->names + l->names_len;
	size_t room = sizeof l->names - l->names_len;
	int n = snprintf(path, room, "%s/%s/%s", dir, hook_event_name(event), name);

	if (n < 0 || (size_t)n >= room)
		return NULL;
	l->names_len += (size_t)n + 1;
	return path;
}

static unsigned count_of(const struct hook_list *l, enum hook_event event)
{
	unsigned n = 0;

	for (unsigned i = 0; i < l->count; i++)
		n += l->hook[i].event == event;
	return n;
}

static void look_at(struct hook *h)
{
	const char *slash = strrchr(h->path, '/');
	struct stat st;

	h->name = slash ? slash + 1 : h->path;
	h->socket = stat(h->path, &st) == 0 && S_ISSOCK(st.st_mode);
}

void hooks_one(struct hook_list *l, enum hook_event event, const char *path)
{
	l->hook[0] = (struct hook){ .event = event, .path = path };
	look_at(l->hook);
	l->count = 1;
	l->events = 1u << event;
}

/* Insert it in the order of events and names. There are few, so shifting is cheap. */
static bool add_hook(struct hook_list *l, const char *dir, enum hook_event event, const char *name)
{
	struct hook h = { .event = event, .path = keep_path(l, dir, event, name) };
	unsigned at = l->count;

	if (l->count == HOOKS_MAX || !h.path)
		return broken(l, "--hooks", dir, "more hooks than smtpwarp can take (" TEXT_OF(HOOKS_MAX) ")");
	if (event == HOOK_LOG && count_of(l, event) == LOG_STREAMS_MAX)
		return broken(l, "--hooks", dir, "more log hooks than smtpwarp can take (" TEXT_OF(LOG_STREAMS_MAX) ")");
	look_at(&h);
	for (; at && (l->hook[at - 1].event > event ||
		      (l->hook[at - 1].event == event && strcmp(l->hook[at - 1].name, h.name) > 0)); at--)
		l->hook[at] = l->hook[at - 1];
	l->hook[at] = h;
	l->count++;
	l->events |= 1u << event;
	return true;
}

/* Skip what editors and package managers leave behind, and hidden files. */
static bool is_skipped(const char *name)
{
	static const char ends[][12] = { "~", ".bak", ".orig", ".dpkg-old", ".dpkg-dist", ".dpkg-new", ".dpkg-tmp", ".rpmsave", ".rpmnew",
		".rpmorig" };
	size_t n = strlen(name);

	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
		size_t len = strlen(ends[i]);

		if (n >= len && strcmp(name + n - len, ends[i]) == 0)
			return true;
	}
	return name[0] == '.';
}

static bool is_folder(const char *dir, const struct dirent *entry)
{
	char path[512];
	struct stat st;

	if (entry->d_type != DT_UNKNOWN && entry->d_type != DT_LNK)
		return entry->d_type == DT_DIR;
	snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_event(const char *name)
{
	int event = 0;

	while (event < HOOK_EVENT_COUNT && strcmp(hook_event_name((enum hook_event)event), name) != 0)
		event++;
	return event < HOOK_EVENT_COUNT;
}

/* The hooks of a folder whose name is misspelt would be missed without a word. */
static bool check_names(struct hook_list *l, const char *dir)
{
	DIR *folder = opendir(dir);
	const struct dirent *entry;
	char path[256];

	if (!folder)
		return broken(l, "--hooks", dir, strerror(errno));
	errno = 0;
	while (!l->misnamed && (entry = readdir(folder))) {
		if (!is_skipped(entry->d_name) && !is_event(entry->d_name) && is_folder(dir, entry)) {
			snprintf(path, sizeof path, "%.80s/%.170s", dir, entry->d_name);
			broken(l, "--hooks", path, "no event has the name of this folder");
			l->misnamed = true;
		}
		errno = 0;
	}
	if (errno)
		broken(l, "--hooks", dir, strerror(errno));
	closedir(folder);
	return !l->broken[0];
}

static bool scan_event(struct hook_list *l, const char *dir, enum hook_event event)
{
	char path[512];
	DIR *folder;
	const struct dirent *entry;
	bool good = true;

	if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, hook_event_name(event)) >= sizeof path)
		return broken(l, "--hooks", dir, strerror(ENAMETOOLONG));
	folder = opendir(path);
	if (!folder)
		return errno == ENOENT || broken(l, "--hooks", path, strerror(errno));
	errno = 0;
	while (good && (entry = readdir(folder))) {
		good = is_skipped(entry->d_name) || add_hook(l, dir, event, entry->d_name);
		errno = 0;
	}
	if (good && errno)
		good = broken(l, "--hooks", path, strerror(errno));
	closedir(folder);
	return good;
}

static bool add_plugin(struct hook_list *l, const char *dir, const char *name)
{
	char path[512];
	struct stat st;
	bool found = false;

	for (int event = 0; event < HOOK_EVENT_COUNT; event++) {
		if ((size_t)snprintf(path, sizeof path, "%s/%s/%s", dir, hook_event_name((enum hook_event)event), name) >= sizeof path)
			return broken(l, "--plugins-dir", dir, strerror(ENAMETOOLONG));
		if (lstat(path, &st) < 0)
			continue;
		found = true;
		if (!add_hook(l, dir, (enum hook_event)event, name))
			return false;
	}
	return found || broken(l, "--plugins", name, "there is no hook of that name in --plugins-dir");
}

static bool add_plugins(struct hook_list *l, const char *dir, const char *plugins)
{
	char name[128];

	while (*plugins) {
		size_t n = strcspn(plugins, ", ");

		snprintf(name, sizeof name, "%.*s", (int)n, plugins);
		if (n && (n >= sizeof name || strchr(name, '/') || name[0] == '.'))
			return broken(l, "--plugins", name, "takes names of hooks");
		if (n && !add_plugin(l, dir, name))
			return false;
		plugins += n + (plugins[n] != 0);
	}
	return true;
}

bool hooks_scan(struct hook_list *l, const char *dir, bool optional, const char *plugins_dir, const char *plugins)
{
	struct stat st;

	l->count = l->events = 0;
	l->names_len = 0;
	l->broken[0] = 0;
	l->misnamed = false;
	if (stat(dir, &st) < 0) {
		if (!optional || errno != ENOENT)
			return broken(l, "--hooks", dir, strerror(errno));
	} else {
		if (!check_names(l, dir))
			return false;
		for (int event = 0; event < HOOK_EVENT_COUNT; event++)
			if (!scan_event(l, dir, (enum hook_event)event))
				return false;
	}
	return !plugins || add_plugins(l, plugins_dir, plugins);
}

/* The head of a hook that ships has a line of the events that it is for. */
static const char *head_fault(const struct hook *h, const char *head)
{
	static const char mark[] = " Events: ";
	const char *events = strstr(head, mark), *end = events ? strchr(events + sizeof mark - 1, '\n') : NULL;
	const char *name = hook_event_name(h->event), *found = events ? strstr(events + sizeof mark - 1, name) : NULL;

	return end && (!found || found > end) ? "it is not for this event: its head says for which" : NULL;
}

/* Whether some folder of PATH has this program. */
static bool is_in_path(const char *program)
{
	const char *at = getenv("PATH");

	for (at = at ? at : "/usr/local/bin:/bin:/usr/bin"; *at; at += *at == ':') {
		char path[512];
		size_t n = strcspn(at, ":");

		snprintf(path, sizeof path, "%.*s/%s", (int)n, at, program);
		if (access(path, X_OK) == 0)
			return true;
		at += n;
	}
	return false;
}

/* What is wrong with the first line of a script, without its #!. */
static const char *interpreter_fault(char *line)
{
	static char why[160];
	char *name = line + strspn(line, " \t"), *argument = name + strcspn(name, " \t");
	const char *missing = NULL;

	if (strchr(line, '\r'))
		return "its lines end in CR LF: a script needs LF";
	argument += strspn(argument, " \t");
	argument[strcspn(argument, " \t")] = 0;
	name[strcspn(name, " \t")] = 0;
	if (access(name, X_OK) < 0)
		missing = name;
	else if (strcmp(name, "/usr/bin/env") == 0 && *argument && *argument != '-' && !strchr(argument, '=') && !is_in_path(argument))
		missing = argument;
	if (!missing)
		return NULL;
	snprintf(why, sizeof why, "its interpreter is missing: %.100s", missing);
	return why;
}

/* Whether a line of the script's head, "Options:", names --connect-on recipient. */
static bool wants_recipient(const char *head)
{
	const char *options = strstr(head, " Options: ");
	const char *named = options ? strstr(options, "--connect-on recipient") : NULL;

	return named && named < options + strcspn(options, "\n");
}

/* What is wrong with a script that the kernel, or its shell, would tell in words of their own: execve(2). */
static const char *script_fault(const struct hook *h, char *head, bool on_recipient)
{
	const char *why = head_fault(h, head);

	if (strncmp(head, "#!", 2) != 0)
		return "neither a program nor a script: its first line must begin with #!";
	if (why)
		return why;
	if (!on_recipient && wants_recipient(head))
		return "it needs --connect-on recipient";
	head[strcspn(head, "\n")] = 0;
	return interpreter_fault(head + 2);
}

/* Those that ship have a text in place of a script's head. */
static const char *program_fault(const struct hook *h, int fd)
{
	static const char mark[] = "smtpwarp hook: Events: ";
	struct stat st;
	char head[100];
	size_t size = fstat(fd, &st) < 0 ? 0 : (size_t)st.st_size;
	char *program = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	const char *found = program == MAP_FAILED ? NULL : memmem(program, size, mark, sizeof mark - 1);

	if (found && size - (size_t)(found - program) >= sizeof head)
		memcpy(head, found, sizeof head);
	else
		head[0] = 0;
	head[sizeof head - 1] = 0;
	if (program != MAP_FAILED)
		munmap(program, size);
	return head_fault(h, head);
}

static const char *content_fault(const struct hook *h, bool on_recipient)
{
	char head[2048];
	int fd = open(h->path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, head, sizeof head - 1);
	const char *why = NULL;

	if (n >= 0) { /* a program need not be readable */
		head[n] = 0;
		why = strncmp(head, "\177ELF", 4) == 0 ? program_fault(h, fd) : script_fault(h, head, on_recipient);
	}
	if (fd >= 0)
		close(fd);
	return why;
}

const char *hooks_fault(const struct hook *h, bool on_recipient)
{
	struct stat st;

	if (stat(h->path, &st) < 0)
		return strerror(errno);
	if (S_ISSOCK(st.st_mode))
		return access(h->path, W_OK) < 0 ? strerror(errno) : NULL;
	if (!S_ISREG(st.st_mode))
		return "neither a program nor a Unix socket";
	if (access(h->path, X_OK) == 0)
		return content_fault(h, on_recipient);
	return st.st_mode & 0111 ? strerror(EACCES) : "not executable: chmod +x it, or rename it to begin with a dot";
}

static void tell_of_folder(const char *path, bool top, void (*tell)(const char *path, const char *why))
{
	DIR *folder = opendir(path);
	const struct dirent *entry;
	char text[512];

	while (folder && (entry = readdir(folder))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(text, sizeof text, "%.240s/%.255s", path, entry->d_name);
		if (is_skipped(entry->d_name))
			tell(text, "it is skipped, for it has the name of a backup");
		else if (top && !is_folder(path, entry) && access(text, X_OK) == 0)
			tell(text, "it does not run: a hook stands in the folder of its event");
	}
	if (folder)
		closedir(folder);
}

void hooks_tell_passed_over(const char *dir, void (*tell)(const char *path, const char *why))
{
	char path[512];

	tell_of_folder(dir, true, tell);
	for (int event = 0; event < HOOK_EVENT_COUNT; event++) {
		snprintf(path, sizeof path, "%s/%s", dir, hook_event_name((enum hook_event)event));
		tell_of_folder(path, false, tell);
	}
}

const struct hook *hooks_next(const struct hook_list *l, enum hook_event event, unsigned i)
{
	for (; i < l->count; i++)
		if (l->hook[i].event == event)
			return &l->hook[i];
	return NULL;
}

/* ---- starting ---- */

static void shut(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void fail_run(struct hook_run *r, const char *why)
{
	if (r->out != r->in)
		shut(&r->out);
	r->out = -1;
	shut(&r->in);
	shut(&r->err);
	shut(&r->message);
	r->state = HOOK_FAILED;
	if (!r->why)
		r->why = why;
}

static void fail_run_errno(struct hook_run *r, const char *what)
{
	int n = snprintf(r->error, sizeof r->error, "%s: %s", what, strerror(errno));

	r->error_len = (size_t)n < sizeof r->error ? (size_t)n : sizeof r->error - 1;
	fail_run(r, r->error);
}

/* A pipe. Our end, 0 for reading or 1 for writing, does not block. The other must block: it is a program's stdin or stdout. */
static bool make_pipe(int pair[2], int ours)
{
	if (pipe2(pair, O_CLOEXEC) < 0)
		return false;
	fcntl(pair[ours], F_SETFL, O_NONBLOCK);
	return true;
}

static const char cannot_be_run[] = "it cannot be run";

static void start_program(struct hook_run *r)
{
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, err[2] = { -1, -1 }, error;

	if (make_pipe(in, 1) && make_pipe(out, 0) && make_pipe(err, 0))
		r->channel = broker_run(r->hook->path, (const int[]){ in[0], out[1], err[1], r->message });
	error = errno;
	shut(&in[0]);
	shut(&out[1]);
	shut(&err[1]);
	shut(&r->message);
	r->in = in[1];
	r->out = out[0];
	r->err = err[0];
	if (r->channel < 0) {
		errno = error;
		fail_run_errno(r, cannot_be_run);
	}
}

bool hooks_connect(const struct hook_list *l)
{
	bool sockets = false;

	for (unsigned i = 0; i < l->count; i++)
		sockets = sockets || l->hook[i].socket;
	return sockets;
}

static void start_socket(struct hook_run *r)
{
	r->in = r->out = net_connect_unix(r->hook->path, r->input.patience);
	if (r->in < 0)
		fail_run_errno(r, "it cannot be connected to");
}

/* ---- running ---- */

/* Over a socket the message's descriptor goes with the first octets. */
static ssize_t send_part(struct hook_run *r, const char *bytes, size_t n)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .room = { 0 } };
	struct iovec part = { (char *)(uintptr_t)bytes, n };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	ssize_t sent;

	if (!r->hook->socket)
		return write(r->in, bytes, n);
	if (r->message >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof control;
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &r->message, sizeof(int));
	}
	sent = sendmsg(r->in, &message, MSG_NOSIGNAL);
	if (sent > 0)
		shut(&r->message);
	return sent;
}

/* The hook gets nothing after its line. */
static void end_input(struct hook_run *r)
{
	if (r->hook->socket)
		shutdown(r->in, SHUT_WR);
	else
		shut(&r->in);
	r->line_done = r->input.line_len;
}

static bool has_input(const struct hook_run *r)
{
	return r->in >= 0 && r->input.line && r->line_done < r->input.line_len;
}

static void feed(struct hook_run *r)
{
	while (has_input(r)) {
		ssize_t n = send_part(r, r->input.line + r->line_done, r->input.line_len - r->line_done);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) { /* a hook need not read all of its line */
			end_input(r);
			return;
		}
		r->line_done += (size_t)n;
		if (r->line_done == r->input.line_len)
			end_input(r);
	}
}

void hook_start(struct hook_run *r, const struct hook *h, const struct hook_input *input)
{
	r->hook = h;
	r->input = *input;
	r->news.how = BROKER_NOTHING;
	r->channel = r->in = r->out = r->err = r->message = -1;
	r->line_done = r->message_at = r->verdict_len = r->error_len = 0;
	r->received = 0;
	r->why = NULL;
	r->error[0] = 0;
	r->state = HOOK_RUNNING;
	memset(&r->scanner, 0, sizeof r->scanner);
	r->scanner.unstuff = r->scanner.plain = true;
	if (input->message && (r->message = message_open(input->message)) < 0)
		fail_run_errno(r, "the message cannot be opened");
	else if (h->socket)
		start_socket(r);
	else
		start_program(r);
	if (r->state == HOOK_RUNNING && input->line)
		feed(r); /* send the line before anything waits */
}

int hook_take_input(struct hook_run *r)
{
	int fd = r->in;

	r->in = -1;
	if (r->hook->socket) {
		r->out = -1;
		r->state = r->state == HOOK_RUNNING ? HOOK_DONE : r->state;
	}
	return fd;
}

void hook_forget(struct hook_run *r)
{
	r->state = HOOK_IDLE;
}

/* Take bytes of a message that the hook returns. Line ends become CR LF, as for a message from a client that sends DATA. */
static void take_replacement(struct hook_run *r, const unsigned char *bytes, size_t n)
{
	struct message *m = r->input.replacement;
	struct smtp_piece piece;
	size_t used;

	if (r->input.binary) {
		message_add(m, bytes, n);
		n = 0;
	}
	while (n && smtp_scan(&r->scanner, bytes, n, &used, &piece)) {
		message_add(m, piece.bytes, piece.len);
		bytes += used;
		n -= used;
	}
	if (n) { /* a CR: its LF may come next */
		r->verdict[r->message_at] = bytes[0];
		r->verdict_len = r->message_at + 1;
	} else {
		r->verdict_len = r->message_at;
	}
	if (r->input.replacement_max && m->size > r->input.replacement_max)
		fail_run(r, "the message it returns is too large");
}

static void look_for_message(struct hook_run *r)
{
	bool begun = r->message_at != 0;

	if (!r->input.line) { /* what a `log` hook prints has no meaning */
		r->verdict_len = 0;
		return;
	}
	if (!begun && r->input.replacement)
		r->message_at = verdict_message_at(r->verdict, r->verdict_len);
	if ((r->message_at ? r->message_at : r->verdict_len) > VERDICT_MAX) {
		r->message_at = 0;
		fail_run(r, "its verdict is longer than " TEXT_OF(VERDICT_KIB) " KiB");
		return;
	}
	if (r->message_at && !begun)
		message_begin(r->input.replacement);
	if (r->message_at)
		take_replacement(r, r->verdict + r->message_at, r->verdict_len - r->message_at);
}

/* Returns octets read; 0 at the end, or after an error, which errno then holds; -1: nothing to read now. */
static ssize_t read_some(int fd, void *into, size_t room)
{
	ssize_t n;

	do {
		errno = 0;
		n = read(fd, into, room);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN)
		return 0;
	return n;
}

static void read_verdict(struct hook_run *r)
{
	for (int reads = 0; reads < READS_MAX && r->out >= 0 && r->state == HOOK_RUNNING; reads++) {
		ssize_t n = read_some(r->out, r->verdict + r->verdict_len, sizeof r->verdict - r->verdict_len);

		if (n < 0)
			return;
		if (n == 0 && r->message_at && errno) { /* it died before it read its line: the message may be incomplete */
			fail_run_errno(r, "the message it returns broke off");
		} else if (n == 0 && r->hook->socket) {
			r->out = -1;
			shut(&r->in);
		} else if (n == 0) {
			shut(&r->out);
		} else {
			r->verdict_len += (size_t)n;
			r->received += (uint64_t)n;
			look_for_message(r);
		}
	}
}

/* Keep the last line of its stderr. */
static void read_errors(struct hook_run *r)
{
	char bytes[512];
	ssize_t n;

	/* Read up to twice what a pipe holds, no more. */
	for (int reads = 0; reads < 4 * READS_MAX && r->err >= 0 &&
	     (n = read_some(r->err, bytes, sizeof bytes)) >= 0; reads++) {
		if (n == 0)
			shut(&r->err);
		if (r->input.errors && write(r->input.errors, bytes, (size_t)n) < 0)
			r->input.errors = 0;
		for (ssize_t i = 0; i < n; i++) {
			if (r->error_len && r->error[r->error_len - 1] == '\n')
				r->error_len = bytes[i] == '\n' ? r->error_len : 0;
			if (r->error_len < sizeof r->error - 1)
				r->error[r->error_len++] = bytes[i];
			else if (bytes[i] == '\n')
				r->error[r->error_len - 1] = '\n';
		}
	}
}

/* Make the last line a string. */
static void end_errors(struct hook_run *r)
{
	while (r->error_len && (r->error[r->error_len - 1] == '\n' || r->error[r->error_len - 1] == '\r'))
		r->error_len--;
	r->error[r->error_len] = 0;
}

/* A program that breaks off says so with its exit status. A socket only closes, so the hook must say how long its message is. */
static const char *miscounted(const struct hook_run *r)
{
	uint64_t said = verdict_message_octets(r->verdict, r->message_at);

	if (said == VERDICT_UNCOUNTED)
		return r->hook->socket ? "over a socket replace-message must say how many octets follow" : NULL;
	return said == r->received - r->message_at ? NULL : "the message it returns is not as long as it said";
}

static void end_replacement(struct hook_run *r)
{
	struct message *m = r->input.replacement;
	const char *why = miscounted(r);

	if (why) {
		fail_run(r, why);
		return;
	}
	if (r->verdict_len > r->message_at) /* a CR at the very end */
		message_add(m, "\r\n", 2);
	r->verdict_len = r->message_at;
	if (!message_seal(m))
		fail_run(r, "no room for the message it returns");
}

static void ended(struct hook_run *r, const char *why)
{
	if (r->state == HOOK_RUNNING && r->message_at && !why)
		end_replacement(r);
	end_errors(r);
	if (why)
		fail_run(r, why);
	if (r->state != HOOK_RUNNING)
		return;
	shut(&r->in);
	shut(&r->out);
	shut(&r->err);
	shut(&r->message);
	r->state = HOOK_DONE;
}

static void end_program(struct hook_run *r, bool kill)
{
	if (r->channel >= 0)
		broker_end(r->channel, kill);
	r->channel = -1;
}

/* It does not run, or nobody can tell any more how it ends. */
static void fail_program(struct hook_run *r)
{
	errno = r->news.value;
	if (r->news.how == BROKER_GONE)
		fail_run(r, "the process that runs hooks has ended");
	else
		fail_run_errno(r, cannot_be_run);
	end_program(r, true);
}

/* A program's run ends with its exit, even if another process holds its stdout open: what was written by then is its verdict. But a
 * message goes on to the end of stdout, for the other process may be the one that writes it. */
static void look_for_exit(struct hook_run *r)
{
	bool good;

	if (r->news.how == BROKER_NOTHING)
		r->news = broker_take(r->channel);
	if (r->news.how == BROKER_NOTHING)
		return;
	if (r->news.how == BROKER_NOT_RUN || r->news.how == BROKER_GONE) {
		fail_program(r);
		return;
	}
	good = r->news.how == BROKER_EXITED && !r->news.value;
	read_verdict(r); /* a pipe holds no verdict that takes READS_MAX reads */
	read_errors(r);
	if (r->message_at && r->out >= 0 && good && r->state == HOOK_RUNNING)
		return;
	snprintf(r->status, sizeof r->status, r->news.how == BROKER_EXITED ? "exit status %d" : "killed by signal %d", r->news.value);
	end_program(r, r->state == HOOK_FAILED);
	ended(r, good ? NULL : r->status);
}

void hook_turn(struct hook_run *r)
{
	if (r->state != HOOK_RUNNING)
		return;
	feed(r);
	read_verdict(r);
	read_errors(r);
	if (r->state == HOOK_FAILED) {
		end_program(r, true);
		end_errors(r);
	} else if (!r->hook->socket) {
		look_for_exit(r);
	} else if (r->out < 0) { /* a filter that crashes closes its socket, too, so no octets are no verdict where one is read */
		bool said = r->verdict_len || r->message_at || r->hook->event == HOOK_CLOSE;

		ended(r, said ? NULL : "it closed the socket without a verdict");
	}
}

void hook_kill(struct hook_run *r, const char *why)
{
	if (r->state != HOOK_RUNNING)
		return;
	read_errors(r);
	end_errors(r);
	fail_run(r, why);
	end_program(r, true);
}

static unsigned watch_descriptor(struct pollfd *p, int fd, short events)
{
	*p = (struct pollfd){ .fd = fd, .events = events };
	return fd >= 0;
}

unsigned hook_watch(const struct hook_run *r, struct pollfd *p)
{
	unsigned n = 0;
	short feeds = has_input(r) ? POLLOUT : 0;

	if (r->state != HOOK_RUNNING)
		return 0;
	if (r->hook->socket)
		return watch_descriptor(p, r->out, (short)(POLLIN | feeds));
	/* Leave out a descriptor that waits for nothing: poll(2) would report for ever that its reader is gone. */
	n += watch_descriptor(p + n, feeds ? r->in : -1, POLLOUT);
	n += watch_descriptor(p + n, r->out, POLLIN);
	n += watch_descriptor(p + n, r->err, POLLIN);
	n += watch_descriptor(p + n, r->news.how == BROKER_NOTHING ? r->channel : -1, POLLIN);
	return n;
}
