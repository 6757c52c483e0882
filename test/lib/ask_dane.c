/* What io/dane.c finds out about a server, by hand: ask_dane RESOLVER DOMAIN ADDRESS PORT, or with "host=NAME" for the domain. It prints
 *   none|usable|unusable|failed [half] [any] [every] [why] [SNI; names; records] */
#define _GNU_SOURCE
#include "io/dane.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t clock_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void print(const struct dane_answer *a)
{
	static const char *const words[] = { "none", "usable", "unusable", "failed" };

	printf("%s%s%s%s%s", words[a->word], a->half ? " half" : "", a->identified ? "" : " any", a->word == DANE_FAILED ? " " : "", a->why);
	if (a->word == DANE_USABLE) {
		printf("%s %s;", a->every ? " every" : "", a->host);
		for (size_t i = 0; i < a->count; i++)
			printf(" %s", a->names[i]);
		printf("; %u", a->set.count);
	}
	puts("");
}

int main(int argc, char **argv)
{
	struct dns_servers servers = { .count = 1 };
	const struct dane_answer *a;
	union net_address to;
	bool host;

	if (argc != 5 || !net_parse(argv[1], 53, &servers.server[0]) || !net_parse(argv[3], 25, &to))
		return 64;
	host = strncmp(argv[2], "host=", 5) == 0;
	dane_ask(host ? NULL : argv[2], host ? argv[2] + 5 : NULL, &to, (uint16_t)atoi(argv[4]), &servers, clock_us(), 5000000);
	while (!(a = dane_turn(clock_us()))) {
		struct pollfd p[DANE_POLLED];
		unsigned n = dane_watch(p);

		poll(p, n, (int)((dane_deadline() - clock_us()) / 1000 + 1));
	}
	print(a);
	dane_end();
	return 0;
}
