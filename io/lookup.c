/* The addresses of a host's name. See lookup.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/lookup.h"
#include "io/file.h"
#include "io/net.h"
#include "io/passes.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define GRACE INT64_C(1000000) /* for one family's answer once the other's is in */

/* On pages of its own, which lookup_stop() gives back. */
static struct {
	_Alignas(4096) struct dns_query query[2]; /* AAAA, A */
	uint16_t port;
	bool named; /* some form of the name exists, though it has no address */
	bool over;
	int64_t until, hurry_at; /* hurry_at: when not to wait for the other family any more; 0: no answer yet */
	const char *next;	 /* suffixes to try; "": the name as it is; NULL: none are left */
	const char *failure;	 /* why the name servers failed */
	size_t found;
	union net_address list[LOOKUP_MAX];
	unsigned char rank[LOOKUP_MAX];
	struct dns_settings settings;
	char name[DNS_NAME_MAX + 1]; /* without a final dot; "": it cannot be a host name */
} lookup;

/* ---- which first ---- */

enum scope { SCOPE_LOOPBACK, SCOPE_LINK, SCOPE_PRIVATE, SCOPE_WORLD };

static enum scope scope_of(const struct in6_addr *a)
{
	return IN6_IS_ADDR_LOOPBACK(a)		? SCOPE_LOOPBACK :
	    IN6_IS_ADDR_LINKLOCAL(a)		? SCOPE_LINK :
	    (a->s6_addr[0] & 0xfe) == 0xfc	? SCOPE_PRIVATE : /* RFC 4193 */
						  SCOPE_WORLD;
}

/* Ranks after RFC 6724 6, best first: 4 IPv6, 3 IPv4, 2 private IPv6 (RFC 4193), 1 IPv6 whose source address has another scope,
 * as in a network with private addresses only, 0 no route. */
static unsigned char rank_of_address(const union net_address *a)
{
	bool six = a->sa.sa_family == AF_INET6;
	int fd = passes_socket(a->sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* connecting a datagram socket sends nothing */
	union net_address source;
	unsigned char rank = 0;

	if (fd < 0)
		return 0;
	if (passes_connect(fd, &a->sa, net_size(a)) == 0) {
		rank = 3;
		net_local(fd, &source);
	}
	close(fd);
	if (!rank || !six)
		return rank;
	if (scope_of(&source.v6.sin6_addr) != scope_of(&a->v6.sin6_addr))
		return 1;
	return scope_of(&a->v6.sin6_addr) == SCOPE_PRIVATE ? 2 : 4;
}

/* Insert an address after those of the same rank or a better one. */
static void add_address(const union net_address *a)
{
	size_t at = lookup.found;
	unsigned char rank;

	for (size_t i = 0; i < at; i++)
		if (net_same(&lookup.list[i], a))
			return;
	if (at == LOOKUP_MAX)
		return;
	rank = rank_of_address(a);
	for (lookup.found++; at && lookup.rank[at - 1] < rank; at--) {
		lookup.list[at] = lookup.list[at - 1];
		lookup.rank[at] = lookup.rank[at - 1];
	}
	lookup.list[at] = *a;
	lookup.rank[at] = rank;
}

static void add_text(const char *text)
{
	union net_address a;

	if (net_parse(text, lookup.port, &a))
		add_address(&a);
}

/* ---- hosts(5) ---- */

bool lookup_hosts_line(char *line, const char *name, uint16_t port, union net_address *a)
{
	static const char blanks[] = " \t\r";
	char *rest, *address, *word;

	line[strcspn(line, "#")] = 0;
	address = strtok_r(line, blanks, &rest);
	while (address && (word = strtok_r(NULL, blanks, &rest)))
		if (strcasecmp(word, name) == 0)
			return net_parse(address, port, a);
	return false;
}

static void take_line(void *arg, char *line)
{
	union net_address a;

	(void)arg;
	if (!lookup_hosts_line(line, lookup.name, lookup.port, &a))
		return;
	net_unmap(&a);
	add_address(&a);
}

/* "localhost" or a name below it: RFC 6761 6.3. */
static bool is_localhost(const char *name)
{
	static const char word[] = "localhost";
	size_t n = strlen(name), len = sizeof word - 1;

	return n >= len && strcasecmp(name + n - len, word) == 0 && (n == len || name[n - len - 1] == '.');
}

static void look_here(void)
{
	file_lines("/etc/hosts", take_line, NULL);
	if (!lookup.found && is_localhost(lookup.name)) {
		add_text("::1");
		add_text("127.0.0.1");
	}
}

/* ---- the DNS ---- */

static const struct dns_answer *answer_of(unsigned i)
{
	const struct dns_query *q = &lookup.query[i];

	return q->state == DNS_DONE && !q->failure && q->result == DNS_FOUND ? &q->answer : NULL;
}

/* Ask for the next form of the name. false: there are no more. */
static bool ask_next_form(int64_t now)
{
	char full[sizeof lookup.name + sizeof lookup.settings.search];
	int64_t left = lookup.until - now;

	do {
		size_t n;

		if (!lookup.next)
			return false;
		n = strcspn(lookup.next, " ");
		snprintf(full, sizeof full, "%s%s%.*s", lookup.name, n ? "." : "", (int)n, lookup.next);
		lookup.next = n ? lookup.next + n + (lookup.next[n] == ' ') : NULL;
	} while (!dns_is_host(full));
	for (unsigned i = 0; i < 2; i++)
		dns_start(&lookup.query[i], &lookup.settings.servers, full, i ? DNS_A : DNS_AAAA, now, left > 0 ? left : 1);
	lookup.hurry_at = 0;
	return true;
}

/* Add the addresses of both families; leave room for IPv4, at most half of the list. */
static void add_answers(const struct dns_answer *six, const struct dns_answer *four)
{
	unsigned fours = four ? four->count : 0, half = fours < LOOKUP_MAX / 2 ? fours : LOOKUP_MAX / 2;
	union net_address a;

	for (unsigned i = 0; six && i < six->count && lookup.found < LOOKUP_MAX - half; i++) {
		a.v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(lookup.port) };
		memcpy(&a.v6.sin6_addr, six->address6[i], 16);
		net_unmap(&a);
		add_address(&a);
	}
	for (unsigned i = 0; i < fours; i++) {
		a.v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(lookup.port) };
		a.v4.sin_addr.s_addr = htonl(four->address[i]);
		add_address(&a);
	}
}

/* Use the answers: both are in, or one that suffices. If a server fails the lookup ends, even if there are other forms of the
 * name: one of those might be another host. Returns whether the lookup is over. */
static bool use_answers(int64_t now)
{
	const struct dns_answer *six = answer_of(0), *four = answer_of(1);

	if (six || four) {
		add_answers(six, four);
		return true;
	}
	for (unsigned i = 0; i < 2; i++) {
		lookup.failure = lookup.query[i].failure ? lookup.query[i].failure : lookup.failure;
		lookup.named = lookup.named || lookup.query[i].answer.named;
	}
	return lookup.failure || !ask_next_form(now);
}

/* Whether to wait for more. Once one family's answer is in the other has GRACE left: some name servers never answer for IPv6. */
static bool waits(int64_t now)
{
	if (lookup.query[0].state != DNS_RUNNING && lookup.query[1].state != DNS_RUNNING)
		return false;
	if (!answer_of(0) && !answer_of(1))
		return true;
	if (!lookup.hurry_at)
		lookup.hurry_at = now + GRACE;
	return now < lookup.hurry_at;
}

bool lookup_turn(int64_t now)
{
	while (!lookup.over) {
		dns_turn(&lookup.query[0], now);
		dns_turn(&lookup.query[1], now);
		if (waits(now))
			return false;
		lookup.over = use_answers(now);
	}
	return true;
}

int64_t lookup_deadline(void)
{
	int64_t six = dns_deadline(&lookup.query[0]), four = dns_deadline(&lookup.query[1]), at = six < four ? six : four;

	return lookup.hurry_at && lookup.hurry_at < at ? lookup.hurry_at : at;
}

unsigned lookup_watch(struct pollfd *p)
{
	unsigned n = dns_watch(&lookup.query[0], p);

	return n + dns_watch(&lookup.query[1], p + n);
}

/* ---- begin and end ---- */

/* A complete name is looked up as it is: with a suffix it might be another host. */
static const char *first_suffix(const char *host)
{
	unsigned dots = 0;

	for (const char *c = host; *c; c++)
		dots += *c == '.';
	return dots >= lookup.settings.ndots || host[strlen(host) - 1] == '.' ? "" : lookup.settings.search;
}

void lookup_start(const char *host, uint16_t port, const struct dns_servers *given, int64_t now, int64_t patience)
{
	size_t n = strlen(host);

	lookup.found = 0;
	lookup.over = lookup.named = false;
	lookup.failure = NULL;
	lookup.port = port;
	lookup.until = now + patience;
	n -= n && host[n - 1] == '.';
	snprintf(lookup.name, sizeof lookup.name, "%.*s", (int)n, host);
	if (n > DNS_NAME_MAX || !dns_is_host(lookup.name))
		lookup.name[0] = 0;
	else
		look_here();
	lookup.over = !lookup.name[0] || lookup.found;
	if (lookup.over)
		return;
	dns_settings_choose(&lookup.settings, given);
	lookup.next = first_suffix(host);
	lookup.over = !ask_next_form(now);
}

void lookup_stop(void)
{
	dns_stop(&lookup.query[0]);
	dns_stop(&lookup.query[1]);
	madvise(&lookup, sizeof lookup, MADV_DONTNEED); /* has no effect where pages are larger */
}

size_t lookup_end(union net_address list[LOOKUP_MAX], char *why, size_t why_cap)
{
	size_t found = lookup.found;

	memcpy(list, lookup.list, sizeof lookup.list);
	snprintf(why, why_cap, "%s%s%s", lookup.failure ? "name server: " : "",
	    lookup.failure    ? lookup.failure :
		!lookup.name[0] ? "that is no host's name" :
		lookup.named    ? "it has no address" :
				  "no such name",
	    lookup.failure && lookup.settings.unnamed ? " (127.0.0.1, for /etc/resolv.conf names none)" : "");
	lookup_stop();
	return found;
}
