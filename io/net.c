/* Sockets. See net.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/net.h"
#include "io/netlink.h"
#include "io/passes.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_ORIGINAL_DST /* linux/netfilter_ipv4.h and _ipv6.h, which clash with libc's headers */
#define SO_ORIGINAL_DST 80
#endif
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif
#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT 75
#endif

_Static_assert(NET_ZONE_MAX > IF_NAMESIZE, "a zone has a percent sign before the name");

void net_use_zones(void)
{
	net_zones = (struct net_zones){ if_nametoindex, if_indextoname };
}

/* Close a socket that failed, and keep errno. */
static int close_failed(int fd)
{
	int saved = errno;

	if (fd >= 0)
		close(fd);
	errno = saved;
	return -1;
}

/* Of linux/rtnetlink.h. */
struct route_message {
	uint8_t family, dest_bits, source_bits, tos, table, protocol, scope, type;
	uint32_t flags;
};

static void take_route(void *arg, const unsigned char *answer, size_t n)
{
	struct route_message route;
	const int local = 2; /* RTN_LOCAL */

	if (n < sizeof route)
		return;
	memcpy(&route, answer, sizeof route);
	*(bool *)arg = route.type == local;
}

bool net_is_local(const union net_address *a)
{
	union net_address plain = *a;
	struct {
		struct netlink_header h;
		struct route_message route;
		struct {
			uint16_t len, type; /* struct rtattr */
			unsigned char value[16];
		} dest;
		struct {
			uint16_t len, type;
			uint32_t value;
		} interface;
	} question = { { 0, 26 /* RTM_GETROUTE */, NETLINK_REQUEST, 0, 0 }, { .family = 0 }, { 20, 1 /* RTA_DST */, { 0 } },
		{ 8, 4 /* RTA_OIF */, 0 } };
	bool local = false;

	net_unmap(&plain);
	if (net_is_loopback(&plain))
		return true;
	question.route.family = (uint8_t)plain.sa.sa_family;
	question.h.len = sizeof question - sizeof question.interface;
	if (plain.sa.sa_family == AF_INET) {
		question.route.dest_bits = 32;
		question.dest.len = 8;
		question.h.len -= 12;
		memcpy(question.dest.value, &plain.v4.sin_addr, sizeof plain.v4.sin_addr);
	} else {
		question.route.dest_bits = 128;
		memcpy(question.dest.value, &plain.v6.sin6_addr, sizeof plain.v6.sin6_addr);
		question.interface.value = plain.v6.sin6_scope_id;
		question.h.len += plain.v6.sin6_scope_id ? (uint32_t)sizeof question.interface : 0;
	}
	return netlink_ask(NETLINK_ROUTE, &question.h, take_route, &local) && local;
}

static void end_of(int fd, int (*name)(int, struct sockaddr *, socklen_t *), union net_address *a)
{
	struct sockaddr_storage any;
	socklen_t len = sizeof any;

	memset(a, 0, sizeof *a);
	if (name(fd, (struct sockaddr *)&any, &len) < 0 || (any.ss_family != AF_INET && any.ss_family != AF_INET6))
		return;
	memcpy(a, &any, sizeof *a);
	net_unmap(a);
}

void net_local(int fd, union net_address *local)
{
	end_of(fd, getsockname, local);
}

void net_ends(int fd, union net_address *local, union net_address *peer)
{
	net_local(fd, local);
	end_of(fd, getpeername, peer);
}

static bool is_transparent(int fd, const union net_address *local)
{
	int on = 0;
	socklen_t len = sizeof on;

	if (getsockopt(fd, SOL_IP, IP_TRANSPARENT, &on, &len) < 0) {
		len = sizeof on;
		if (getsockopt(fd, SOL_IPV6, IPV6_TRANSPARENT, &on, &len) < 0)
			return false;
	}
	if (!on)
		return false;
	/* A transparent listener also takes direct connections; their address is one of this host. */
	return !net_is_local(local);
}

enum net_origin net_original(int fd, const union net_address *local, const union net_address *peer,
    union net_address *dest)
{
	/* The level depends on the address, not on the socket: for IPv4 over a dual-stack socket it is SOL_IP. */
	int level = peer->sa.sa_family == AF_INET ? SOL_IP : SOL_IPV6;
	socklen_t len = sizeof *dest;

	memset(dest, 0, sizeof *dest);
	if (peer->sa.sa_family == AF_UNSPEC)
		return NET_DIRECT;
	if (is_transparent(fd, local)) { /* first, for SO_ORIGINAL_DST may say something else here */
		*dest = *local;
		return NET_TPROXY;
	}
	if (getsockopt(fd, level, SO_ORIGINAL_DST, dest, &len) < 0)
		return NET_DIRECT;
	net_unmap(dest);
	/* Without a redirect, connection tracking gives our own address. A destination with our port on this host would come
	 * straight back as well. */
	if (!net_same(dest, local) && (net_port(dest) != net_port(local) || !net_is_local(dest)))
		return NET_REDIRECTED;
	memset(dest, 0, sizeof *dest);
	return NET_DIRECT;
}

static int set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof value);
}

void net_nodelay(int fd)
{
	set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

/* ---- ports that are apart ---- */

#define PORTS_MIN 512	    /* fewer are not enough */
#define PORTS_BELOW 16384u  /* below the kernel's range, for further down most services listen */
#define PORT_TRIES 32
#define PORT_TRIES_ABOVE 16 /* above the range, where hardly anybody listens, comes first */

static struct {
	unsigned low, high;    /* the kernel's range; 0: not known yet */
	unsigned below, above; /* so many ports of ours end before low, and begin after high */
} ports;

static void read_range(void)
{
	char text[32] = "", *end;
	int fd = open("/proc/sys/net/ipv4/ip_local_port_range", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		if (read(fd, text, sizeof text - 1) < 0)
			*text = 0;
		close(fd);
	}
	ports.low = (unsigned)strtoul(text, &end, 10);
	ports.high = (unsigned)strtoul(end, NULL, 10);
	if (!ports.low || ports.high < ports.low || ports.high > UINT16_MAX) { /* it cannot be read: the range that Linux starts with */
		ports.low = 32768;
		ports.high = 60999;
	}
}

bool net_find_ports(void)
{
	read_range();
	ports.above = UINT16_MAX - ports.high;
	ports.below = ports.low > IPPORT_RESERVED ? ports.low - IPPORT_RESERVED : 0;
	if (ports.below > PORTS_BELOW)
		ports.below = PORTS_BELOW;
	return ports.above + ports.below >= PORTS_MIN;
}

/* A port for this try, at random (RFC 6056); 0: the kernel's choice. */
static uint16_t port_apart(unsigned tries)
{
	uint32_t random;

	if (!ports.low)
		net_find_ports();
	if (ports.above + ports.below < PORTS_MIN || getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random)
		return 0;
	if (ports.above >= PORTS_MIN && (tries < PORT_TRIES_ABOVE || !ports.below))
		return (uint16_t)(ports.high + 1 + random % ports.above);
	random %= ports.above + ports.below;
	return (uint16_t)(random < ports.below ? ports.low - ports.below + random : ports.high + 1 + random - ports.below);
}

/* Bind to the source address, any if there is none, and the port. With SO_REUSEADDR one port serves many destinations; without a port
 * the kernel chooses when it knows the destination. */
static int bind_source(int fd, const union net_address *source, int family, uint16_t port)
{
	union net_address a = *source;

	a.sa.sa_family = (sa_family_t)family;
	if (family == AF_INET6)
		a.v6.sin6_port = htons(port);
	else
		a.v4.sin_port = htons(port);
	if (port)
		set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	else
		set(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1);
	return bind(fd, &a.sa, net_size(&a));
}

/* ---- outbound connections ---- */

static const char *prepare_socket(int fd, const union net_address *dest, const struct net_outbound *out, uint16_t port)
{
	bool six = dest->sa.sa_family == AF_INET6;
	const union net_address *source = six ? &out->source6 : &out->source4;

	if (out->mark && setsockopt(fd, SOL_SOCKET, SO_MARK, &out->mark, sizeof out->mark) < 0)
		return "--mark";
	if (source->sa.sa_family == AF_UNSPEC && !port)
		return NULL;
	if (out->transparent && set(fd, six ? SOL_IPV6 : SOL_IP, six ? IPV6_TRANSPARENT : IP_TRANSPARENT, 1) < 0)
		return "--outbound-ip client";
	if (bind_source(fd, source, dest->sa.sa_family, port) == 0) {
		if (source->sa.sa_family == AF_UNSPEC || out->transparent || net_is_local(source))
			return NULL;
		errno = EADDRNOTAVAIL; /* where ip_nonlocal_bind is set bind(2) does not say so */
	}
	return "source address";
}

static int begin_connection(const union net_address *dest, const struct net_outbound *out, uint16_t port, const char **what)
{
	int fd = passes_socket(dest->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*what = "socket";
	if (fd < 0)
		return -1;
	net_nodelay(fd);
	*what = prepare_socket(fd, dest, out, port);
	if (!*what) {
		*what = "connect";
		if (passes_connect(fd, &dest->sa, net_size(dest)) == 0 || errno == EINPROGRESS)
			return fd;
	}
	return close_failed(fd);
}

/* A port may be somebody's, bind(2) EADDRINUSE, or may have served for this destination a moment ago, connect(2) EADDRNOTAVAIL. */
int net_connect(const union net_address *dest, const struct net_outbound *out, const char **what)
{
	for (unsigned tries = 0;; tries++) {
		uint16_t port = out->apart ? port_apart(tries) : 0;
		int fd = begin_connection(dest, out, port, what);
		bool taken = fd < 0 && port && (errno == EADDRINUSE || (errno == EADDRNOTAVAIL && strcmp(*what, "connect") == 0));

		if (!taken || tries == PORT_TRIES)
			return fd;
	}
}

/* If the backlog is full a non-blocking connect(2) fails with EAGAIN, and there is nothing to poll for: so wait here. */
static int connect_patiently(int fd, const struct sockaddr_un *name, int64_t us)
{
	struct timeval patience = { us / 1000000, us % 1000000 };
	int rc = passes_connect(fd, (const struct sockaddr *)name, sizeof *name);

	if (rc == 0 || errno != EAGAIN)
		return rc;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	fcntl(fd, F_SETFL, 0);
	rc = passes_connect(fd, (const struct sockaddr *)name, sizeof *name);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return rc;
}

int net_connect_unix(const char *path, int64_t patience)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	size_t n = strlen(path);
	int fd;

	if (n >= sizeof name.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(name.sun_path, path, n + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect_patiently(fd, &name, patience) == 0)
		return fd;
	return close_failed(fd);
}

int net_connected(int fd)
{
	int error = 0;
	socklen_t len = sizeof error;

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 ? errno : error;
}

bool net_has_left(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) > 0;
}

/* A port serves many destinations, so the name has both ends. Only zones can make it too long; it is cut then, at the same place for
 * all. */
static socklen_t claim_name(const union net_address *from, const union net_address *to, struct sockaddr_un *name)
{
	char texts[2][NET_TEXT];
	size_t n;

	memset(name, 0, sizeof *name);
	name->sun_family = AF_UNIX;
	n = (size_t)snprintf(name->sun_path + 1, sizeof name->sun_path - 1, "smtpwarp/%u/%u/%s/%s", net_port(from), net_port(to),
	    net_text(from, texts[0]), net_text(to, texts[1]));
	if (n > sizeof name->sun_path - 2)
		n = sizeof name->sun_path - 2;
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
}

static int claim_socket(const union net_address *from, const union net_address *to,
    int (*use)(int, const struct sockaddr *, socklen_t))
{
	struct sockaddr_un name;
	socklen_t len = claim_name(from, to, &name);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0 && use(fd, (struct sockaddr *)&name, len) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

int net_claim(const union net_address *local, const union net_address *remote)
{
	int fd = claim_socket(local, remote, bind);

	if (fd >= 0 && listen(fd, SOMAXCONN) < 0)
		return close_failed(fd);
	return fd;
}

bool net_is_claimed(const union net_address *peer, const union net_address *original)
{
	int fd = claim_socket(peer, original, passes_connect);
	struct ucred owner = { .uid = (uid_t)-1 }; /* of whoever called listen(2) */
	socklen_t len = sizeof owner;
	bool ours = fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &owner, &len) == 0 && owner.uid == geteuid();

	if (fd >= 0)
		close(fd);
	return ours;
}

/* ---- shares ---- */

/* A share is a socket that has a name: its kind, when it was asked for, a random number, how much it is. Nobody can guess such a name, so
 * nobody can keep us from taking it; names of one kind sort by age. */
#define TIME_LEN 21   /* hex digits */
#define AMOUNT_LEN 16 /* the same: the last of a name */
#define TRIES 50

struct share {
	struct sockaddr_un name;
	size_t kind, len;	  /* octets of the name, with the NUL before it: up to the time, and all */
	char bound[TIME_LEN + 1]; /* the time when it had its name for certain; "": it has none */
	uint64_t older, unsure;	  /* what others have: asked for before ours; after it, but perhaps before they could see ours */
};

static uint64_t plus(uint64_t a, uint64_t b)
{
	return a < UINT64_MAX - b ? a + b : UINT64_MAX;
}

static void write_time(char text[TIME_LEN + 1])
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	snprintf(text, TIME_LEN + 1, "%013llx%08lx", (unsigned long long)now.tv_sec & 0xfffffffffffff, (unsigned long)now.tv_nsec);
}

/* linux/unix_diag.h. CLOSED is the state of a socket that is only bound. */
enum { SHOW_NAME = 1, SHOW_UID = 1 << 6, NAME = 0, UID = 7, CLOSED = 1 << 7 };

static void count_share(void *arg, const unsigned char *answer, size_t n)
{
	const size_t head = 16; /* struct unix_diag_msg */
	struct share *our = arg;
	const char *ours = our->name.sun_path;
	const unsigned char *name, *uid;
	char amount[AMOUNT_LEN + 1] = "";
	size_t len, uid_len;
	uint32_t owner;

	name = n < head ? NULL : netlink_attribute(answer + head, n - head, NAME, &len);
	if (!name || len != our->len || memcmp(name, ours, our->kind) != 0)
		return;
	uid = netlink_attribute(answer + head, n - head, UID, &uid_len);
	if (uid && uid_len == sizeof owner && memcpy(&owner, uid, sizeof owner) && owner != geteuid())
		return; /* Linux before 5.3 does not say */
	memcpy(amount, name + len - AMOUNT_LEN, AMOUNT_LEN);
	name += our->kind;
	if (!our->bound[0] || memcmp(name, ours + our->kind, our->len - our->kind - AMOUNT_LEN) < 0)
		our->older = plus(our->older, strtoull(amount, NULL, 16));
	else if (memcmp(name, ours + our->kind, our->len - our->kind) != 0 && memcmp(name, our->bound, TIME_LEN) <= 0)
		our->unsure = plus(our->unsure, strtoull(amount, NULL, 16));
}

static bool count_shares(struct share *our)
{
	struct {
		struct netlink_header h;
		uint8_t family, protocol;
		uint16_t pad;
		uint32_t states, inode, show, cookie[2]; /* struct unix_diag_req */
	} question = { { sizeof question, 20 /* SOCK_DIAG_BY_FAMILY */, NETLINK_REQUEST | NETLINK_DUMP, 0, 0 }, AF_UNIX, 0, 0, CLOSED, 0,
		SHOW_NAME | SHOW_UID, { 0, 0 } };

	return netlink_ask(NETLINK_SOCK_DIAG, &question.h, count_share, our);
}

static void name_share(struct share *our, const char *what, uint64_t n)
{
	char *name = our->name.sun_path, asked[TIME_LEN + 1];
	uint64_t random = 0;

	*our = (struct share){ .name.sun_family = AF_UNIX };
	write_time(asked);
	getrandom(&random, sizeof random, 0);
	our->kind = 1 + (size_t)sprintf(name + 1, "smtpwarp-%s-", what);
	our->len = our->kind + (size_t)sprintf(name + our->kind, "%s%016llx%016llx", asked, (unsigned long long)random, (unsigned long long)n);
}

/* Returns the socket that has the name, or -1. */
static int bind_share(struct share *our)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&our->name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + our->len)) < 0)
		return close_failed(fd);
	write_time(our->bound);
	return fd;
}

/* The name is taken before others are counted: so of two, one at least has seen the other. A share is ours if it fits beside all that may not
 * have seen it. If it fits only beside the older ones, somebody took a name at the same time, and will go if he has seen ours: look again. */
int net_take_share(const char *what, uint64_t n, uint64_t all)
{
	struct share our;
	int fd;

	name_share(&our, what, n);
	fd = bind_share(&our);
	for (int tries = 0; fd >= 0 && tries < TRIES; tries++) {
		our.older = our.unsure = 0;
		if (!count_shares(&our))
			return close_failed(fd);
		if (plus(plus(our.older, our.unsure), n) <= all)
			return fd;
		if (plus(our.older, n) > all)
			break;
		sched_yield();
	}
	if (fd >= 0)
		errno = EAGAIN;
	return close_failed(fd);
}

bool net_shares(const char *what, uint64_t *n)
{
	struct share none;
	bool counted;

	name_share(&none, what, 0);
	counted = count_shares(&none);
	*n = none.older;
	return counted;
}

int net_listen(const union net_address *a, int backlog)
{
	int fd = passes_socket(a->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 && errno == EAFNOSUPPORT && a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a->v6.sin6_addr)) {
		const union net_address any = { .v4 = { .sin_family = AF_INET, .sin_port = a->v6.sin6_port } };

		return net_listen(&any, backlog); /* a kernel without IPv6: all addresses are IPv4's */
	}
	if (fd < 0)
		return -1;
	set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (a->sa.sa_family == AF_INET6)
		set(fd, SOL_IPV6, IPV6_V6ONLY, !IN6_IS_ADDR_UNSPECIFIED(&a->v6.sin6_addr));
	if (bind(fd, &a->sa, net_size(a)) == 0) {
		/* TPROXY delivers only to such sockets; without the capability there is no TPROXY either. Set this after
		 * bind(2), which would otherwise accept any address. */
		set(fd, SOL_IP, IP_TRANSPARENT, 1);
		set(fd, SOL_IPV6, IPV6_TRANSPARENT, 1);
		if (listen(fd, backlog) == 0)
			return fd;
	}
	return close_failed(fd);
}

enum net_kind net_kind(int fd)
{
	int type = 0, listening = 0;
	socklen_t len = sizeof type;
	struct sockaddr_storage peer;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM)
		return NET_NO_SOCKET;
	len = sizeof listening;
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening)
		return NET_LISTENING;
	len = sizeof peer;
	/* the peer may be gone already: the session will notice */
	if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 || errno == ENOTCONN)
		return NET_CONNECTED;
	return NET_NO_SOCKET;
}
