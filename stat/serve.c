/* HTTP. See serve.h for the contract. */
#define _GNU_SOURCE
#include "stat/serve.h"

#include "pure/address.h"
#include "pure/endpoint.h"
#include "stat/arguments.h"
#include "stat/exposition.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#define LISTEN_FD 3 /* sd_listen_fds(3) */

/* What a client asks for. */
struct request {
	char head[SERVE_REQUEST_MAX + 1];
	const char *method, *path;
	bool open_metrics;
};

static void end(int number)
{
	(void)number;
	_exit(EX_OK);
}

/* 0: the head is whole; else the status that says why not. */
static int read_head(struct request *r, int fd)
{
	size_t n = 0;
	ssize_t got;

	for (;;) {
		if (n == SERVE_REQUEST_MAX)
			return 431;
		got = read(fd, r->head + n, SERVE_REQUEST_MAX - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return -1;
		n += (size_t)got;
		r->head[n] = 0;
		if (memchr(r->head, 0, n))
			return 400;
		if (strstr(r->head, "\r\n\r\n") || strstr(r->head, "\n\n"))
			return 0;
	}
}

/* The media types of Accept decide; weights do not, since who names OpenMetrics can read it. */
static bool wants_open_metrics(char *headers)
{
	for (char *line = strtok(headers, "\r\n"); line; line = strtok(NULL, "\r\n"))
		if (!strncasecmp(line, "accept:", 7) && strcasestr(line, "application/openmetrics-text"))
			return true;
	return false;
}

static int parse(struct request *r)
{
	char *line_end = r->head + strcspn(r->head, "\r\n"), *version;

	r->open_metrics = wants_open_metrics(line_end);
	*line_end = 0;
	r->method = r->head;
	char *space = strchr(r->head, ' ');
	if (!space || !(version = strchr(space + 1, ' ')) || strncmp(version + 1, "HTTP/1.", 7))
		return 400;
	*space = *version = 0;
	char *path = space + 1;
	path[strcspn(path, "?")] = 0;
	r->path = path;
	if (strcmp(r->method, "GET") && strcmp(r->method, "HEAD"))
		return 405;
	return strcmp(path, "/metrics") && strcmp(path, "/healthz") ? 404 : 200;
}

static const char *phrase(int status)
{
	return status == 200 ? "OK" : status == 400 ? "Bad Request" : status == 404 ? "Not Found" : status == 405 ? "Method Not Allowed"
	       : status == 431 ? "Request Header Fields Too Large" : "Service Unavailable";
}

static void write_all(int fd, const char *bytes, size_t n)
{
	ssize_t done;

	while (n && ((done = send(fd, bytes, n, MSG_NOSIGNAL)) > 0 || (done < 0 && (errno == EINTR || errno == ENOTSOCK)))) {
		if (done < 0 && errno == ENOTSOCK && (done = write(fd, bytes, n)) <= 0)
			return;
		bytes += done > 0 ? done : 0;
		n -= done > 0 ? (size_t)done : 0;
	}
}

static void reply(int fd, int status, const char *type, const char *body, size_t n, bool head_only)
{
	char head[400];
	int length = snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%sCache-Control: no-store\r\n"
	    "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n", status, phrase(status), type, n,
	    status == 405 ? "Allow: GET, HEAD\r\n" : "");

	write_all(fd, head, (size_t)length);
	if (!head_only)
		write_all(fd, body, n);
}

static int answer(const char *file, int in, int out)
{
	static struct request r;
	char why[512] = "", *body = NULL;
	size_t n = 0;
	int status = read_head(&r, in);

	if (status < 0)
		return EX_OK;
	status = status ? status : parse(&r);
	struct snapshot *s = status == 200 ? snapshot_take(file, why, sizeof why) : NULL;
	bool metrics = s && !strcmp(r.path, "/metrics");
	if (status == 200 && !s)
		status = 503;
	FILE *text = open_memstream(&body, &n);
	if (!text)
		return EX_OSERR;
	if (metrics)
		exposition_write(text, s, r.open_metrics);
	else
		fprintf(text, "%s\n", *why ? why : s ? "ok" : phrase(status));
	fclose(text);
	reply(out, status, metrics ? (r.open_metrics ? EXPOSITION_OPEN : EXPOSITION_TEXT) : "text/plain; charset=utf-8", body, n,
	    r.method && !strcmp(r.method, "HEAD"));
	free(body);
	return EX_OK;
}

int serve_one(const char *file)
{
	const char *count = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
	bool passed = count && pid && !strcmp(count, "1") && strtol(pid, NULL, 10) == getpid();

	signal(SIGALRM, end);
	signal(SIGPIPE, SIG_IGN);
	alarm(SERVE_SECONDS);
	return answer(file, passed ? LISTEN_FD : 0, passed ? LISTEN_FD : 1);
}

static int listen_at(const char *where)
{
	union net_address a = { 0 };
	char host[NET_TEXT];
	uint16_t port;
	int fd, yes = 1, no = 0;

	if (!endpoint_split(where, host, sizeof host, 0, &port) || !net_parse(strcmp(host, "*") ? host : "::", port, &a))
		arguments_wrong(where, "is none of ADDRESS:PORT, [IPv6]:PORT and *:PORT");
	fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (a.sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
	return bind(fd, &a.sa, net_size(&a)) || listen(fd, 64) ? -1 : fd;
}

/* A process for each connection, so that none waits for another one. */
static void serve_in_child(const char *file, int fd, int listening)
{
	pid_t child = fork();

	if (!child) {
		close(listening);
		alarm(SERVE_SECONDS);
		_exit(answer(file, fd, fd));
	}
}

int serve_listen(const char *file, const char *where)
{
	int listening = listen_at(where), fd;
	unsigned children = 0;

	if (listening < 0) {
		fprintf(stderr, "smtpwarp-stat: --listen %s: %s\n", where, strerror(errno));
		return EX_OSERR;
	}
	signal(SIGALRM, end);
	signal(SIGTERM, end);
	signal(SIGINT, end);
	signal(SIGPIPE, SIG_IGN);
	for (;;) {
		while (children && waitpid(-1, NULL, children < SERVE_CONNECTIONS ? WNOHANG : 0) > 0)
			children--;
		fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		serve_in_child(file, fd, listening);
		children++;
		close(fd);
	}
}
