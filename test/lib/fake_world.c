/* What a session stands on, in memory. See fake_world.h. */
#define _GNU_SOURCE
#include "test/lib/fake_world.h"
#include "test/lib/unit.h"

#include "io/log.h"
#include "io/lookup.h"
#include "io/memory.h"
#include "io/net.h"
#include "session/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- sockets ---- */

#define CLIENT_FD 900

struct world_socket world_client = { .fd = CLIENT_FD, .room = WORLD_FOREVER };
struct world_socket world_server = { .fd = -1, .room = WORLD_FOREVER };

static struct world_socket *socket_of(int fd)
{
	return fd < 0 ? NULL : fd == world_client.fd ? &world_client : fd == world_server.fd ? &world_server : NULL;
}

void world_says(struct world_socket *k, const void *bytes, size_t n)
{
	if (k->in_at == k->in_len)
		k->in_at = k->in_len = 0;
	assert_true(k->fd >= 0 && !k->eof && n <= sizeof k->in - k->in_len);
	memcpy(k->in + k->in_len, bytes, n);
	k->in_len += n;
}

ssize_t __wrap_recv(int fd, void *into, size_t n, int flags);
ssize_t __wrap_recv(int fd, void *into, size_t n, int flags)
{
	struct world_socket *k = socket_of(fd);
	size_t left;

	assert_non_null(k);
	left = k->in_len - k->in_at;
	n = n < left ? n : left;
	if (left) {
		memcpy(into, k->in + k->in_at, n);
		k->in_at += flags & MSG_PEEK ? 0 : n;
		return (ssize_t)n;
	}
	errno = k->error ? k->error : EAGAIN;
	return k->error ? -1 : k->eof ? 0 : -1;
}

ssize_t __wrap_send(int fd, const void *bytes, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t n, int flags)
{
	struct world_socket *k = socket_of(fd);

	(void)flags;
	assert_non_null(k);
	assert_false(k->shut);
	errno = k->error ? k->error : EAGAIN;
	n = n < k->room ? n : k->room;
	if (k->error || !n)
		return -1;
	assert_true(n <= sizeof k->out - k->out_len);
	memcpy(k->out + k->out_len, bytes, n);
	k->out_len += n;
	k->room -= k->room == WORLD_FOREVER ? 0 : n;
	return (ssize_t)n;
}

int __wrap_shutdown(int fd, int how);
int __wrap_shutdown(int fd, int how)
{
	(void)how;
	assert_non_null(socket_of(fd));
	socket_of(fd)->shut = true;
	return 0;
}

/* Shares, by the descriptors that hold them. */
#define SHARE_FDS 256

static struct {
	const char *what;
	uint64_t n;
} shares[SHARE_FDS];

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
	struct world_socket *k = socket_of(fd);

	if (fd >= 0 && fd < SHARE_FDS)
		shares[fd].what = NULL;
	if (!k)
		return __real_close(fd);
	k->fd = -1;
	return 0;
}

/* ---- the clock, and waiting ---- */

int64_t world_now = INT64_C(1000000000);

uint64_t __wrap_statefile_now(void);
uint64_t __wrap_statefile_now(void)
{
	return (uint64_t)world_now;
}
enum world_waiting world_waiting = WORLD_WAITS;
bool world_idle;

void clock_tick(struct session *s)
{
	s->now = world_now;
}

static short ready(const struct pollfd *p)
{
	const struct world_socket *k = socket_of(p->fd);
	bool connecting = k == &world_server && !world_net.decided;
	short r = 0;

	if (!k || connecting)
		return 0;
	if (k->in_at < k->in_len || k->eof || k->error)
		r |= POLLIN;
	if (k->room || k->error)
		r |= POLLOUT;
	if (k->eof)
		r |= POLLRDHUP;
	r &= p->events;
	return (short)(r | (k->error ? POLLERR : 0));
}

int __wrap_ppoll(struct pollfd *p, nfds_t n, const struct timespec *wait, const sigset_t *mask);
int __wrap_ppoll(struct pollfd *p, nfds_t n, const struct timespec *wait, const sigset_t *mask)
{
	bool some = wait && !wait->tv_sec && !wait->tv_nsec;
	int count = 0;

	(void)mask;
	for (nfds_t i = 0; i < n; i++) {
		p[i].revents = ready(&p[i]);
		count += p[i].revents != 0;
	}
	if (count || some)
		return count;
	world_idle = true;
	if (world_waiting == WORLD_WAITS) {
		assert_non_null(wait); /* else it would wait for ever */
		world_now += wait->tv_sec * INT64_C(1000000) + wait->tv_nsec / 1000;
	}
	return 0;
}

/* ---- the network ---- */

struct world_net world_net;

bool net_is_local(const union net_address *a)
{
	return net_is_loopback(a) || net_same_host(a, &world_net.local);
}

void net_ends(int fd, union net_address *local, union net_address *peer)
{
	(void)fd;
	*local = world_net.local;
	*peer = world_net.peer;
}

void net_local(int fd, union net_address *local)
{
	(void)fd;
	net_parse("192.0.2.1", 50000, local);
}

enum net_origin net_original(int fd, const union net_address *local, const union net_address *peer, union net_address *dest)
{
	(void)fd, (void)local, (void)peer;
	*dest = world_net.original;
	if (dest->sa.sa_family == AF_UNSPEC)
		return NET_DIRECT;
	return world_net.tproxy ? NET_TPROXY : NET_REDIRECTED;
}

static int new_connection(const char **what)
{
	static int next = CLIENT_FD;

	if (world_net.fails_at) {
		*what = world_net.fails_at;
		errno = world_net.fails_with;
		return -1;
	}
	assert_int_equal(world_server.fd, -1); /* the one before is closed */
	world_server.fd = ++next;
	world_server.eof = world_server.shut = false;
	world_server.error = 0;
	world_server.room = WORLD_FOREVER;
	world_server.in_at = world_server.in_len = 0;
	world_net.decided = false;
	world_net.attempts++;
	return world_server.fd;
}

int net_connect(const union net_address *dest, const struct net_outbound *out, const char **what)
{
	world_net.dialled = *dest;
	world_net.dialled_path = NULL;
	world_net.source = dest->sa.sa_family == AF_INET6 ? out->source6 : out->source4;
	world_net.transparent = out->transparent;
	return new_connection(what);
}

int net_connect_unix(const char *path, int64_t patience)
{
	const char *what;

	(void)patience;
	world_net.dialled.sa.sa_family = AF_UNIX;
	world_net.dialled_path = path;
	return new_connection(&what);
}

int net_connected(int fd)
{
	assert_int_equal(fd, world_server.fd);
	return world_net.outcome;
}

bool net_has_left(int fd)
{
	return socket_of(fd)->eof || socket_of(fd)->error;
}

int net_claim(const union net_address *local, const union net_address *remote)
{
	(void)local, (void)remote;
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

bool net_is_claimed(const union net_address *peer, const union net_address *original)
{
	(void)peer, (void)original;
	return world_net.caught;
}

bool net_shares(const char *what, uint64_t *n)
{
	errno = world_net.no_shares;
	*n = strcmp(what, "kept") == 0 ? world_net.kept_by_others : 0;
	for (unsigned i = 0; i < SHARE_FDS; i++)
		*n += shares[i].what && strcmp(shares[i].what, what) == 0 ? shares[i].n : 0;
	return !world_net.no_shares;
}

int net_take_share(const char *what, uint64_t n, uint64_t all)
{
	uint64_t have;
	int fd;

	assert_true(n > 0 && n <= all);
	if (!net_shares(what, &have))
		return -1;
	errno = EAGAIN;
	if (world_net.no_place || have + n > all)
		return -1;
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_in_range(fd, 0, SHARE_FDS - 1);
	shares[fd].what = what;
	shares[fd].n = n;
	return fd;
}

void net_nodelay(int fd)
{
	(void)fd;
}

/* ---- memory ---- */

uint64_t memory_total(void)
{
	return 40 << 20; /* of which --max-kept is 10 MiB if it is not given */
}

/* ---- names ---- */

#define KNOWN_MAX 32

static struct known {
	const char *name, *answer, *failure;
	enum dns_type type;
} names[KNOWN_MAX], answers[KNOWN_MAX];

bool world_answers;
unsigned world_questions;

static struct known *known_at(struct known *list, const char *name, enum dns_type type)
{
	size_t i = 0;

	for (; list[i].name; i++)
		if (strcasecmp(list[i].name, name) == 0 && list[i].type == type)
			return &list[i];
	assert_true(i < KNOWN_MAX - 1);
	return &list[i];
}

void world_name(const char *name, const char *addresses)
{
	*known_at(names, name, DNS_A) = (struct known){ .name = name, .answer = addresses, .type = DNS_A };
}

static struct {
	char host[256];
	uint16_t port;
	int64_t until;
	bool asking;
	const struct known *found;
} lookup;

void lookup_start(const char *host, uint16_t port, const struct dns_servers *given, int64_t now, int64_t patience)
{
	(void)given;
	assert_false(lookup.asking);
	snprintf(lookup.host, sizeof lookup.host, "%s", host);
	lookup.port = port;
	lookup.until = now + patience;
	lookup.asking = true;
	world_answers = world_answers || known_at(names, host, DNS_A)->name;
}

bool lookup_turn(int64_t now)
{
	const struct known *k = known_at(names, lookup.host, DNS_A);

	assert_true(lookup.asking);
	lookup.found = k->name ? k : NULL;
	return lookup.found || now >= lookup.until;
}

int64_t lookup_deadline(void)
{
	assert_true(lookup.asking);
	return lookup.until;
}

unsigned lookup_watch(struct pollfd *p)
{
	(void)p;
	return 0;
}

size_t lookup_end(union net_address list[LOOKUP_MAX], char *why, size_t why_cap)
{
	char text[300], *save = NULL;
	size_t n = 0;

	lookup.asking = false;
	snprintf(text, sizeof text, "%s", lookup.found ? lookup.found->answer : "");
	for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save))
		assert_true(n < LOOKUP_MAX && net_parse(word, lookup.port, &list[n++]));
	if (!n)
		snprintf(why, why_cap, lookup.found ? "no such host" : "no answer in time");
	return n;
}

void lookup_stop(void)
{
	lookup.asking = false;
}

void world_dns(const char *name, enum dns_type type, const char *answer, const char *failure)
{
	*known_at(answers, name, type) = (struct known){ name, answer, failure, type };
}

void dns_servers_choose(struct dns_servers *s, const struct dns_servers *given)
{
	*s = *given;
}

void dns_start(struct dns_query *q, const struct dns_servers *servers, const char *name, enum dns_type type, int64_t now,
    int64_t patience)
{
	memset(q, 0, sizeof *q);
	q->state = DNS_RUNNING;
	q->servers = servers;
	q->began = now;
	q->patience = patience;
	q->attempt = type;
	world_questions++;
	q->question_len = (size_t)snprintf((char *)q->question, sizeof q->question, "%s", name);
	world_answers = world_answers || known_at(answers, name, type)->name;
}

/* Records, a line each. They share their room with addresses. */
static void fill_texts(struct dns_answer *a, const char *text)
{
	for (size_t n; *text; text += n + (text[n] == '\n')) {
		n = strcspn(text, "\n");
		memcpy(a->texts + a->texts_len, text, n);
		a->texts_len += n + 1;
		a->count++;
	}
}

static void fill_answer(struct dns_query *q, const char *text)
{
	struct dns_answer *a = &q->answer;
	union net_address address;

	q->result = text ? DNS_FOUND : DNS_NOTHING;
	a->named = text || q->attempt == DNS_MX; /* a domain without MX, not none */
	if (!text)
		return;
	for (size_t n; q->attempt == DNS_MX && *text; text += n + (text[n] == ' ')) {
		n = strcspn(text, " ");
		memcpy(a->exchange + a->text_len + 2, text, n);
		a->text_len += 2 + n + 1;
	}
	if (q->attempt == DNS_MX)
		return;
	if (q->attempt == DNS_TXT || q->attempt == DNS_PTR) {
		a->text_len = strcspn(text, "\n");
		memcpy(a->text, text, a->text_len);
		if (q->attempt == DNS_TXT)
			fill_texts(a, text);
		return;
	}
	assert_true(net_parse(text, 0, &address));
	a->count = 1;
	if (q->attempt == DNS_A)
		a->address[0] = ntohl(address.v4.sin_addr.s_addr);
	else
		memcpy(a->address6[0], &address.v6.sin6_addr, 16);
}

void dns_turn(struct dns_query *q, int64_t now)
{
	const struct known *k = known_at(answers, (const char *)q->question, (enum dns_type)q->attempt);

	if (q->state != DNS_RUNNING || (!k->name && now < q->began + q->patience))
		return;
	q->state = DNS_DONE;
	q->failure = k->name ? k->failure : "no answer in time";
	if (k->name)
		fill_answer(q, k->answer);
}

int64_t dns_deadline(const struct dns_query *q)
{
	return q->state == DNS_RUNNING ? q->began + q->patience : INT64_MAX;
}

unsigned dns_watch(const struct dns_query *q, struct pollfd *p)
{
	(void)q, (void)p;
	return 0;
}

void dns_stop(struct dns_query *q)
{
	q->state = DNS_IDLE;
}

/* ---- TLS ---- */

#define FACTS { .version = "TLS 1.2", .cipher = "ECDHE", .verified = true }

struct tls world_tls_client = { .facts = FACTS };
struct tls world_tls_server = { .server = true, .facts = FACTS };

int tls_load_anchors(const char *path, const char **why)
{
	(void)path;
	*why = NULL;
	return 0;
}

bool tls_has_anchors(void)
{
	return true;
}

static struct tls *begin_tls(struct tls *t, const char **why)
{
	t->begun = true;
	t->done = t->closed = false;
	t->failure = NULL;
	t->in_at = t->in_len = t->out_at = t->out_len = 0;
	*why = t->cannot;
	return t->cannot ? NULL : t;
}

struct tls *tls_start(const struct tls_demand *demand, const char **why)
{
	world_tls_server.level = demand->level;
	world_tls_server.tlsa = demand->tlsa;
	snprintf(world_tls_server.name, sizeof world_tls_server.name, "%s", demand->sni ? demand->sni : "");
	return begin_tls(&world_tls_server, why);
}

bool tls_resumes(const struct tls *t)
{
	return t->resumes && !t->done;
}

struct tls *tls_serve(const char **why)
{
	return begin_tls(&world_tls_client, why);
}

void tls_wipe(void)
{
}

/* During the handshake the peer's octets are part of it. */
size_t tls_put_record(struct tls *t, const unsigned char *in, size_t n)
{
	size_t room = sizeof t->in - t->in_len;

	if (!t->done)
		return n;
	n = n < room ? n : room;
	memcpy(t->in + t->in_len, in, n);
	t->in_len += n;
	return n;
}

size_t tls_get_record(struct tls *t, const unsigned char **out)
{
	*out = t->out + t->out_at;
	return t->done ? t->out_len - t->out_at : 0;
}

void tls_sent(struct tls *t, size_t n)
{
	t->out_at += n;
	if (t->out_at == t->out_len)
		t->out_at = t->out_len = 0;
}

size_t tls_read(struct tls *t, unsigned char *out, size_t cap)
{
	size_t left = t->in_len - t->in_at, n = left < cap ? left : cap;

	memcpy(out, t->in + t->in_at, n);
	t->in_at += n;
	if (t->in_at == t->in_len)
		t->in_at = t->in_len = 0;
	return n;
}

bool tls_readable(const struct tls *t)
{
	return t->in_at < t->in_len;
}

size_t tls_write(struct tls *t, const unsigned char *in, size_t n)
{
	size_t room = t->closed ? 0 : sizeof t->out - t->out_len;

	n = n < room ? n : room;
	memcpy(t->out + t->out_len, in, n);
	t->out_len += n;
	return n;
}

void tls_flush(struct tls *t)
{
	(void)t;
}

void tls_close(struct tls *t)
{
	(void)t;
}

bool tls_handshake_done(const struct tls *t)
{
	return t->done;
}

const char *tls_asked_name(const struct tls *t)
{
	return t->asked_name;
}

bool tls_began_otherwise(const struct tls *t)
{
	return t->otherwise;
}

bool tls_closed(const struct tls *t)
{
	return t->closed || t->failure;
}

bool tls_owes_close(const struct tls *t)
{
	(void)t;
	return false;
}

const char *tls_failure(const struct tls *t)
{
	return t->failure;
}

bool tls_fingerprint(const struct tls *t, unsigned char fingerprint[TLS_FINGERPRINT])
{
	(void)t;
	memset(fingerprint, 0x5a, TLS_FINGERPRINT); /* every certificate here has this one */
	return true;
}

enum tls_fault tls_fault(const struct tls *t)
{
	return t->fault;
}

void tls_facts(const struct tls *t, struct tls_facts *facts)
{
	*facts = t->facts;
}

/* ---- hooks ---- */

struct hook_run *world_hook;
char world_hook_line[1 << 16];

bool log_connects(void)
{
	return false;
}

bool hooks_connect(const struct hook_list *l)
{
	(void)l;
	return false;
}

const struct hook *hooks_next(const struct hook_list *l, enum hook_event event, unsigned i)
{
	for (; i < l->count; i++)
		if (l->hook[i].event == event)
			return &l->hook[i];
	return NULL;
}

void hook_start(struct hook_run *r, const struct hook *h, const struct hook_input *input)
{
	r->state = HOOK_RUNNING;
	r->hook = h;
	r->input = *input;
	r->message_at = r->verdict_len = r->error_len = 0;
	r->why = NULL;
	r->error[0] = 0;
	world_hook = r;
	if (input->line)
		snprintf(world_hook_line, sizeof world_hook_line, "%.*s", (int)input->line_len, input->line);
}

int hook_take_input(struct hook_run *r)
{
	r->state = HOOK_DONE;
	world_hook = NULL;
	return -1;
}

void hook_forget(struct hook_run *r)
{
	r->state = HOOK_IDLE;
}

unsigned hook_watch(const struct hook_run *r, struct pollfd *p)
{
	(void)r, (void)p;
	return 0;
}

void hook_turn(struct hook_run *r)
{
	(void)r;
}

void hook_kill(struct hook_run *r, const char *why)
{
	if (r->state != HOOK_RUNNING)
		return;
	r->state = HOOK_FAILED;
	r->why = why;
	world_hook = NULL;
}

void world_hook_says(const char *verdict, const char *message)
{
	struct hook_run *r = world_hook;

	assert_non_null(r);
	r->verdict_len = strlen(verdict);
	memcpy(r->verdict, verdict, r->verdict_len);
	r->state = HOOK_DONE;
	world_hook = NULL;
	if (!message)
		return;
	assert_non_null(r->input.replacement);
	r->message_at = r->verdict_len;
	message_begin(r->input.replacement);
	message_add(r->input.replacement, message, strlen(message));
	assert_true(message_seal(r->input.replacement));
}

void world_hook_fails(const char *why)
{
	assert_non_null(world_hook);
	hook_kill(world_hook, why);
}

/* ---- the log ---- */

bool world_detailed;
char world_log[4 << 20];
size_t world_log_len;

bool log_wanted(void)
{
	return true;
}

bool log_detailed(void)
{
	return world_detailed;
}

bool log_write(enum log_priority priority, const char *record, size_t n)
{
	(void)priority;
	assert_true(n < sizeof world_log - world_log_len);
	memcpy(world_log + world_log_len, record, n);
	world_log_len += n;
	return true;
}

uint64_t log_lost(int *error)
{
	*error = 0;
	return 0;
}

void log_set_lost(uint64_t n, int error)
{
	(void)n;
	(void)error;
}

size_t log_record_max(void)
{
	return 1 << 20;
}

uint64_t log_dropped(void)
{
	return 0;
}

void log_add_stream(int fd)
{
	(void)fd;
}

unsigned log_watch_streams(struct pollfd *p)
{
	(void)p;
	return 0;
}

bool log_flush_streams(void)
{
	return true;
}

void log_close_streams(void)
{
}

/* ---- TLS policies ---- */

struct world_policy world_policy;

void dane_ask(const char *domain, const char *host, const union net_address *address, uint16_t port, const struct dns_servers *given,
    int64_t now, int64_t patience)
{
	(void)address;
	(void)given;
	(void)now;
	(void)patience;
	world_policy.dane_asked++;
	snprintf(world_policy.asked, sizeof world_policy.asked, "%s%s:%u", domain ? domain : "", host ? host : "", port);
}

const struct dane_answer *dane_turn(int64_t now)
{
	(void)now;
	if (world_policy.dane && world_policy.late) {
		world_policy.late--;
		return NULL;
	}
	return world_policy.dane;
}

int64_t dane_deadline(void)
{
	return INT64_MAX;
}

unsigned dane_watch(struct pollfd *p)
{
	(void)p;
	return 0;
}

void dane_end(void)
{
	world_policy.dane_ended++;
}

void socketmap_start(struct socketmap_query *q, const struct socketmap *map, const char *key, int64_t now, int64_t patience)
{
	(void)now;
	(void)patience;
	q->map = map;
	q->state = SOCKETMAP_RUNNING;
	world_policy.map_asked++;
	snprintf(world_policy.asked, sizeof world_policy.asked, "%s", key);
}

void socketmap_turn(struct socketmap_query *q, int64_t now)
{
	(void)now;
	if (!world_policy.map)
		return;
	q->state = SOCKETMAP_DONE;
	q->result = world_policy.map_result;
	q->text = world_policy.map;
	q->text_len = strlen(world_policy.map);
	snprintf(q->failure, sizeof q->failure, "%s", world_policy.map);
}

int64_t socketmap_deadline(const struct socketmap_query *q)
{
	(void)q;
	return INT64_MAX;
}

unsigned socketmap_watch(const struct socketmap_query *q, struct pollfd *p)
{
	(void)q;
	(void)p;
	return 0;
}

void socketmap_stop(struct socketmap_query *q)
{
	q->state = SOCKETMAP_IDLE;
	world_policy.map_stopped++;
}

bool policyfile_loaded(void)
{
	return true;
}

bool policyfile_load(const char *file, char *why, size_t why_cap)
{
	snprintf(why, why_cap, "%s", file);
	return false;
}

bool policyfile_find(const char *domain, struct tlspolicy *p)
{
	return world_policy.file_domain && strcmp(domain, world_policy.file_domain) == 0 &&
	    !tlspolicy_parse(p, world_policy.file, strlen(world_policy.file));
}

/* ---- reports of TLS ---- */

struct world_report world_report;

bool tlsrpt_send(const char *path, const struct tlsrpt_report *r)
{
	assert_non_null(path);
	world_report.sent++;
	world_report.len = tlsrpt_write(r, world_report.text, sizeof world_report.text);
	assert_true(world_report.len > 0);
	world_report.text[world_report.len - 1] = 0;
	errno = world_report.fails;
	return !world_report.fails;
}
