/* Sinks of records. See log.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/log.h"
#include "io/file.h"
#include "io/passes.h"
#include "pure/json.h"
#include "pure/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define SYSLOG_SOCKET "/dev/log"
#define JOURNAL_SOCKET "/run/systemd/journal/socket"
#define SYSLOG_MAX 8000	      /* what syslog daemons take in one datagram (rsyslog's default is 8 KiB) */
#define JOURNAL_LINE_MAX 40000 /* journald cuts lines of a stream at 48 KiB, journald.conf(5) LineMax= */
#define RECORD_MAX (1 << 22)
#define STREAM_RECORD_MAX (256 << 10)
#define PATIENCE_MS 200 /* how long a full sink may delay a session */
#define STREAM_QUEUE (32 << 20) /* octets that wait for one reader */
#define STREAM_TALK (4 << 20)	/* where commands and replies wait no longer */

static struct {
	enum sink_kind kind;
	int fd; /* a socket's: -1 before the first record, and after its daemon went away */
	int flags; /* for sendmsg(2): MSG_DONTWAIT once waiting was in vain */
	int reader; /* a file's, to look at what has been written; -1: this user may not */
	bool detail; /* whether it takes LOG_PRIORITY_DEBUG */
	bool is_file, is_socket; /* what it is; neither: a pipe or terminal */
	bool is_stream; /* a socket's: nothing but line ends keep records apart */
	bool needs_connection; /* a socket's: it takes no datagrams */
	bool unconnected; /* each datagram names its address */
	struct sockaddr_un address;
} sink = { SINK_STDERR, STDERR_FILENO, 0, -1, false, true, false, false, false, false, { 0, "" } };

static struct stream {
	int fd; /* -1: its reader is gone */
	size_t start, end;
	char *queue; /* STREAM_QUEUE octets, of which those from start to end wait; NULL: there is no memory */
} stream[LOG_STREAMS_MAX];
static unsigned streams;
static uint64_t dropped;

/* What no record tells of yet. */
static uint64_t lost;
static int lost_error;

/* A session that connects to nothing any more, passes.h, still reaches a daemon that takes datagrams. */
static bool connect_to_address(int fd, int type)
{
	sink.unconnected = type == SOCK_DGRAM && !passes_hold(PASS_NETWORK);
	return sink.unconnected || passes_connect(fd, (struct sockaddr *)&sink.address, sizeof sink.address) == 0;
}

bool log_connects(void)
{
	return sink.needs_connection;
}

static struct msghdr message_to_daemon(void)
{
	return (struct msghdr){ .msg_name = sink.unconnected ? &sink.address : NULL, .msg_namelen = sink.unconnected ? sizeof sink.address : 0 };
}

static int connect_to_daemon(void)
{
	static const int types[] = { SOCK_DGRAM, SOCK_STREAM, SOCK_SEQPACKET };
	struct timeval patience = { .tv_usec = PATIENCE_MS * 1000 };

	for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
		int fd = socket(AF_UNIX, types[i] | SOCK_CLOEXEC | (sink.flags ? SOCK_NONBLOCK : 0), 0);

		if (fd < 0)
			return -1;
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
		if (connect_to_address(fd, types[i])) {
			sink.is_socket = true;
			sink.is_stream = types[i] == SOCK_STREAM;
			sink.needs_connection = types[i] != SOCK_DGRAM;
			return fd;
		}
		close(fd);
		if (errno == EAGAIN)
			sink.flags = MSG_DONTWAIT;
		if (errno != EPROTOTYPE)
			return -1;
	}
	return -1;
}

static int set_socket_path(const char *path, const char **why)
{
	*why = "the path is too long for a socket";
	if (strlen(path) >= sizeof sink.address.sun_path)
		return -1;
	memset(&sink.address, 0, sizeof sink.address);
	sink.address.sun_family = AF_UNIX;
	strcpy(sink.address.sun_path, path);
	return 0;
}

bool log_exists(const char *name)
{
	const char *path;

	return sink_parse(name, &path) == SINK_FILE && access(path, F_OK) == 0;
}

bool log_check(const char *name, const char **why)
{
	const char *path;
	int fd;
	bool good;

	if (sink_parse(name, &path) != SINK_FILE)
		return true;
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	good = fd >= 0 || errno == ENXIO /* nobody reads the pipe now */ || (errno == ENOENT && file_may_be_made(path));
	*why = strerror(errno);
	if (fd >= 0)
		close(fd);
	return good;
}

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

static int prepared = -1; /* by log_prepare() */

static int open_without_links(const char *path, int flags)
{
	enum { NO_SYMLINKS = 4 }; /* openat2(2), linux/openat2.h */
	const struct {
		uint64_t flags, mode, resolve;
	} how = { (uint64_t)(O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | flags), flags ? 0640 : 0, NO_SYMLINKS };

	return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

/* Others write to that pipe or terminal, too, and may want to wait: so it is opened anew. -1: it is neither, or this user may not. */
static int open_stderr(void)
{
	struct stat st;

	if (fstat(STDERR_FILENO, &st) < 0 || !(S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)))
		return -1;
	return open("/proc/self/fd/2", O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

void log_tell(const char *line, size_t n)
{
	int own = open_stderr(), fd = own < 0 ? STDERR_FILENO : own;
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	if (poll(&p, 1, PATIENCE_MS) > 0 && send(fd, line, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == ENOTSOCK)
		write(fd, line, n);
	if (own >= 0)
		close(own);
}

void log_prepare(const char *name, uid_t user, gid_t group)
{
	const char *path;
	struct stat st;
	enum sink_kind kind = sink_parse(name, &path);

	if (kind == SINK_STDERR)
		prepared = open_stderr();
	if (kind != SINK_FILE)
		return;
	prepared = open_without_links(path, O_CREAT | O_EXCL);
	if (prepared >= 0 && fchown(prepared, user, group) == 0)
		return;
	if (prepared < 0)
		prepared = open_without_links(path, 0);
	if (prepared >= 0 && (fstat(prepared, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink > 1)) {
		close(prepared);
		prepared = -1;
	}
}

bool log_reachable(const char *name, const char **path)
{
	enum sink_kind kind = sink_parse(name, path);

	if (kind == SINK_SYSLOG)
		*path = SYSLOG_SOCKET;
	else if (kind == SINK_JOURNAL)
		*path = JOURNAL_SOCKET;
	else if (kind != SINK_UNIX)
		return true;
	return access(*path, W_OK) == 0;
}

/* A named pipe is opened for reading, too, where this user may: then what is written waits in it while it has no reader. */
static int open_file(const char *path, const char **why)
{
	const int flags = O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	struct stat st;
	bool is_pipe = stat(path, &st) == 0 && S_ISFIFO(st.st_mode);
	int fd = open(path, (is_pipe ? O_RDWR : O_WRONLY) | flags, 0640);

	if (fd < 0 && is_pipe)
		fd = open(path, O_WRONLY | flags, 0640);
	*why = strerror(errno);
	return fd;
}

/* A session that is confined opens no files, so this one is opened before. */
static void use_reader(int fd)
{
	char path[32];

	if (sink.reader >= 0)
		close(sink.reader);
	sink.reader = -1;
	if (!sink.is_file)
		return;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	sink.reader = open(path, O_RDONLY | O_CLOEXEC);
}

/* It is written to from now on. */
static void use(int fd)
{
	struct stat st = { .st_mode = 0 };

	sink.fd = fd;
	sink.is_file = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	sink.is_socket = !sink.is_file && S_ISSOCK(st.st_mode);
	use_reader(fd);
	if (fd > STDERR_FILENO && !sink.is_file)
		fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK);
}

int log_reopen(const char *name, const char **why)
{
	const char *path;
	int fd;

	if (sink_parse(name, &path) != SINK_FILE)
		return 0;
	fd = open_file(path, why);
	if (fd < 0)
		return -1;
	if (sink.fd >= 0)
		close(sink.fd);
	use(fd);
	return 0;
}

int log_open(const char *name, const char **why)
{
	const char *path;

	if (sink.fd > STDERR_FILENO)
		close(sink.fd);
	sink.kind = sink_parse(name, &path);
	sink.fd = -1;
	switch (sink.kind) {
	case SINK_NONE:
		return 0;
	case SINK_STDERR:
		if (prepared < 0)
			prepared = open_stderr();
		use(prepared < 0 ? STDERR_FILENO : prepared);
		prepared = -1;
		return 0;
	case SINK_FILE:
		use(open_file(path, why));
		if (sink.fd < 0)
			use(prepared);
		else if (prepared >= 0)
			close(prepared);
		prepared = -1;
		return sink.fd < 0 ? -1 : 0;
	case SINK_UNIX:
		return set_socket_path(path, why);
	case SINK_SYSLOG:
		return set_socket_path(SYSLOG_SOCKET, why);
	case SINK_JOURNAL:
		return set_socket_path(JOURNAL_SOCKET, why);
	case SINK_UNKNOWN:
		break;
	}
	*why = "unknown kind of log";
	return -1;
}

bool log_wanted(void)
{
	return sink.kind != SINK_NONE || streams;
}

/* ---- streams ---- */

void log_detail(bool wanted)
{
	sink.detail = wanted;
}

bool log_detailed(void)
{
	return sink.detail || streams;
}

/* Pages of the queue that are not used cost nothing. */
void log_add_stream(int fd)
{
	struct stream *s = &stream[streams++];
	void *queue = mmap(NULL, STREAM_QUEUE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	s->queue = queue == MAP_FAILED ? NULL : queue;
	s->fd = fd;
	s->start = s->end = 0;
}

uint64_t log_dropped(void)
{
	return dropped;
}

/* What waits is lost, too. */
static void end_stream(struct stream *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	for (; s->start < s->end; s->start++)
		dropped += s->queue[s->start] == '\n';
}

/* Returns octets taken. Ends the stream if its reader is gone. */
static size_t offer(struct stream *s, const char *bytes, size_t n)
{
	ssize_t taken;

	do
		taken = s->fd < 0 ? -1 : write(s->fd, bytes, n);
	while (taken < 0 && s->fd >= 0 && errno == EINTR);
	if (taken < 0 && errno != EAGAIN)
		end_stream(s);
	return taken > 0 ? (size_t)taken : 0;
}

/* Write what waits. true: nothing is left. */
static bool flush_stream(struct stream *s)
{
	while (s->fd >= 0 && s->start < s->end) {
		size_t taken = offer(s, s->queue + s->start, s->end - s->start);

		if (!taken)
			return s->fd < 0;
		s->start += taken;
	}
	return true;
}

static bool enqueue(struct stream *s, const char *record, size_t n, size_t limit)
{
	size_t waiting = s->end - s->start;

	if (!s->queue || waiting + n > limit)
		return false;
	/* No more octets are moved than have been taken, and the queue stays in twice the pages that it needs. */
	if (s->start >= waiting || s->end + n > STREAM_QUEUE) {
		memmove(s->queue, s->queue + s->start, waiting);
		s->start = 0;
		s->end = waiting;
	}
	memcpy(s->queue + s->end, record, n);
	s->end += n;
	return true;
}

/* Commands and replies give way to records of what became of messages and of the session. */
static void write_stream(struct stream *s, enum log_priority priority, const char *record, size_t n)
{
	size_t taken = 0;

	if (s->fd >= 0 && n <= STREAM_QUEUE && flush_stream(s))
		taken = offer(s, record, n);
	if (taken == n)
		return;
	if (s->fd >= 0 && enqueue(s, record + taken, n - taken, priority == LOG_PRIORITY_DEBUG && !taken ? STREAM_TALK : STREAM_QUEUE))
		return;
	dropped++;
	if (taken) /* no line may follow half a line */
		end_stream(s);
}

unsigned log_watch_streams(struct pollfd *p)
{
	unsigned n = 0;

	for (unsigned i = 0; i < streams; i++)
		if (stream[i].fd >= 0 && stream[i].start < stream[i].end)
			p[n++] = (struct pollfd){ .fd = stream[i].fd, .events = POLLOUT };
	return n;
}

bool log_flush_streams(void)
{
	bool all = true;

	for (unsigned i = 0; i < streams; i++)
		all = flush_stream(&stream[i]) && all;
	return all;
}

void log_close_streams(void)
{
	for (unsigned i = 0; i < streams; i++)
		end_stream(&stream[i]);
	streams = 0;
}

/* ---- writing ---- */

/* Octets beyond which the daemon behind the sink would cut a record anywhere. */
static size_t sink_max(void)
{
	if (sink.kind == SINK_SYSLOG)
		return SYSLOG_MAX;
	return sink.kind == SINK_STDERR && getenv("JOURNAL_STREAM") ? JOURNAL_LINE_MAX : RECORD_MAX;
}

size_t log_record_max(void)
{
	size_t max = sink_max();

	return streams && max > STREAM_RECORD_MAX ? STREAM_RECORD_MAX : max;
}

/* Whether these n octets are the end of the file. */
static bool ends_with(int fd, off_t size, const char *bytes, size_t n)
{
	char part[512];
	size_t len;

	for (size_t done = 0; done < n; done += len) {
		len = n - done < sizeof part ? n - done : sizeof part;
		if (pread(fd, part, len, size - (off_t)(n - done)) != (ssize_t)len || memcmp(part, bytes + done, len) != 0)
			return false;
	}
	return true;
}

/* A full disk, or a limit (RLIMIT_FSIZE), let only n octets of a record into the file: remove them, unless another session has
 * written behind them. */
static bool take_back(const char *record, size_t n)
{
	struct stat st;
	bool taken = sink.reader >= 0 && fstat(sink.reader, &st) == 0 && ends_with(sink.reader, st.st_size, record, n) &&
	    ftruncate(sink.fd, st.st_size - (off_t)n) == 0;

	if (taken)
		lseek(sink.fd, st.st_size - (off_t)n, SEEK_SET); /* standard error may lack O_APPEND */
	return taken;
}

static ssize_t write_some(const char *bytes, size_t n)
{
	ssize_t written;

	do
		written = sink.is_socket ? send(sink.fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL) : write(sink.fd, bytes, n);
	while (written < 0 && errno == EINTR);
	return written;
}

/* A pipe, socket or terminal may be full. Its reader is waited for once. */
static bool has_room(void)
{
	static int patience = PATIENCE_MS;
	struct pollfd p = { .fd = sink.fd, .events = POLLOUT };

	if (sink.is_file || poll(&p, 1, patience) != 0)
		return true;
	patience = 0;
	errno = EAGAIN;
	return false;
}

/* A pipe or terminal took a part of a record: write the rest. */
static bool write_rest(const char *bytes, size_t n)
{
	struct pollfd p = { .fd = sink.fd, .events = POLLOUT };

	while (n && poll(&p, 1, PATIENCE_MS) > 0) {
		ssize_t written = write_some(bytes, n);

		if (written < 0)
			return false;
		bytes += written;
		n -= (size_t)written;
	}
	return !n;
}

static bool write_line(const char *record, size_t n)
{
	static bool torn; /* the line written last has no end */
	ssize_t written;

	if (!has_room() || (torn && write_some("\n", 1) != 1))
		return false;
	torn = false;
	written = write_some(record, n);
	if (written < 0 || (size_t)written == n)
		return written >= 0;
	if (sink.is_file) {
		torn = !take_back(record, (size_t)written);
		errno = ENOSPC;
		return false;
	}
	torn = !write_rest(record + written, n - (size_t)written);
	return !torn;
}

/* The record is larger than a datagram may be: hand over a sealed memory file instead, as the journal's protocol wants it. */
static bool send_file(const struct iovec parts[2])
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .room = { 0 } };
	struct msghdr message = message_to_daemon();
	int fd = file_in_memory("smtpwarp-record");
	bool sent;

	if (fd < 0)
		return false;
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
	message.msg_control = &control;
	message.msg_controllen = sizeof control;
	sent = writev(fd, parts, 2) == (ssize_t)(parts[0].iov_len + parts[1].iov_len) &&
	    file_seal(fd) &&
	    sendmsg(sink.fd, &message, MSG_NOSIGNAL | sink.flags) >= 0;
	close(fd);
	return sent;
}

static void disconnect(void)
{
	close(sink.fd);
	sink.fd = -1;
}

/* A stream may have taken `sent` octets only: send the rest. If that fails the connection ends, for no line may follow half a line. */
static bool send_rest(const struct iovec *part, size_t parts, size_t sent)
{
	for (; parts; part++, parts--) {
		size_t n = sent < part->iov_len ? sent : part->iov_len;

		sent -= n;
		if (!write_rest((const char *)part->iov_base + n, part->iov_len - n)) {
			disconnect();
			errno = EAGAIN;
			return false;
		}
	}
	return true;
}

/* Two parts, and a line end where the kind of socket needs it and they have none. */
static bool send_parts(struct iovec parts[3])
{
	for (int tries = 0; tries < 2; tries++) {
		struct msghdr message;
		ssize_t sent;

		if (sink.fd < 0)
			sink.fd = connect_to_daemon();
		if (sink.fd < 0)
			return false;
		message = message_to_daemon();
		message.msg_iov = parts;
		message.msg_iovlen = sink.is_stream ? 3 : 2;
		sent = sendmsg(sink.fd, &message, MSG_NOSIGNAL | sink.flags);
		if (sent >= 0)
			return !sink.is_stream || send_rest(parts, 3, (size_t)sent);
		if (errno == EAGAIN)
			sink.flags = MSG_DONTWAIT;
		if (errno == EMSGSIZE && sink.kind == SINK_JOURNAL)
			return send_file(parts);
		if (errno != ECONNREFUSED && errno != ENOTCONN && errno != ECONNRESET && errno != EPIPE)
			return false;
		disconnect();
	}
	return false;
}

/* Write "NAME=VALUE", for the member whose name, quoted and with what stands before its value, is mark; nothing if there is none. Within a
 * text of the record quotes are escaped, so that the mark is found nowhere else. Returns octets. */
static size_t field(char *out, size_t cap, const char *name, const char *mark, const char *record, size_t n)
{
	const char *value = memmem(record, n, mark, strlen(mark));
	int len = value ? (int)strcspn(value + strlen(mark), "\"\n\\") : 0;

	if (!value || strlen(name) + (size_t)len + 3 > cap)
		return 0;
	return (size_t)snprintf(out, cap, "%s=%.*s\n", name, len, value + strlen(mark));
}

/* The fields have the names that the hook journal gives them. */
static bool send_journal(enum log_priority priority, const char *record, size_t n)
{
	static const char fields[][2][24] = {
		{ "SMTPWARP_EVENT", "\"event\":\"" }, { "SMTPWARP_SESSION", "\"session\":\"" },
		{ "SMTPWARP_CLIENT_IP", "\"client\":{\"ip\":\"" }, { "SMTPWARP_RESULT", "\"result\":\"" },
	};
	char head[400];
	size_t len = (size_t)snprintf(head, sizeof head, "PRIORITY=%d\nSYSLOG_IDENTIFIER=smtpwarp\nSYSLOG_FACILITY=2\n", (int)priority);
	struct iovec parts[] = { { head, 0 }, { (char *)(uintptr_t)record, n }, { NULL, 0 } };

	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
		len += field(head + len, sizeof head - len - sizeof "MESSAGE=", fields[i][0], fields[i][1], record, n);
	len += (size_t)snprintf(head + len, sizeof head - len, "MESSAGE=");
	parts[0].iov_len = len;
	return send_parts(parts);
}

static bool send_syslog(enum log_priority priority, const char *record, size_t n)
{
	enum { MAIL_FACILITY = 2 << 3 };
	char head[48];
	int len = snprintf(head, sizeof head, "<%d>smtpwarp[%ld]: ", MAIL_FACILITY | (int)priority, (long)getpid());
	struct iovec parts[] = { { head, (size_t)len }, { (char *)(uintptr_t)record, n - 1 }, { "\n", 1 } };

	return send_parts(parts);
}

static bool write_sink(enum log_priority priority, const char *record, size_t n)
{
	struct iovec whole[] = { { (char *)(uintptr_t)record, n }, { NULL, 0 }, { NULL, 0 } };

	switch (sink.kind) {
	case SINK_NONE:
	case SINK_UNKNOWN:
		break;
	case SINK_STDERR:
	case SINK_FILE:
		return write_line(record, n);
	case SINK_UNIX:
		return send_parts(whole);
	case SINK_SYSLOG:
		return send_syslog(priority, record, n);
	case SINK_JOURNAL:
		return send_journal(priority, record, n);
	}
	return true;
}

bool log_write(enum log_priority priority, const char *record, size_t n)
{
	static char shorter[RECORD_MAX];

	for (unsigned i = 0; i < streams; i++)
		write_stream(&stream[i], priority, record, n);
	if (priority == LOG_PRIORITY_DEBUG && !sink.detail)
		return true;
	if (n > sink_max() && n <= sizeof shorter) {
		memcpy(shorter, record, n);
		n = json_shorten(shorter, n, sink_max());
		record = shorter;
	}
	if (write_sink(priority, record, n))
		return true;
	lost_error = errno;
	lost++;
	return false;
}

uint64_t log_lost(int *error)
{
	*error = lost_error;
	return lost;
}

void log_set_lost(uint64_t n, int error)
{
	lost = n;
	lost_error = error;
}
