/* Asks a server of maps, as a session does, and says in JSON what the policy is.
 *
 *	ask_map unix:PATH:NAME|inet:ADDRESS:PORT:NAME DOMAIN
 */
#define _GNU_SOURCE
#include "io/socketmap.h"
#include "pure/json.h"
#include "pure/tlspolicy.h"

#include <stdio.h>
#include <time.h>

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void put_list(struct json *j, const char *name, const struct tlspolicy *p, enum tlspolicy_list list)
{
	json_open(j, name, '[');
	for (const char *s = tlspolicy_first(p, list); s; s = tlspolicy_next(p, list, s))
		json_string(j, NULL, s);
	json_close(j, ']');
}

static void put_policy(struct json *j, const struct socketmap_query *q)
{
	static struct tlspolicy p;
	const char *why = tlspolicy_parse(&p, q->text, q->text_len);

	json_string(j, "fault", why);
	if (why)
		return;
	json_string(j, "level", tlspolicy_level_name(p.level));
	json_bool(j, "sts", p.type == TLSPOLICY_STS);
	json_bool(j, "testing", p.testing);
	json_string(j, "servername", p.servername);
	json_string(j, "domain", p.domain);
	put_list(j, "match", &p, TLSPOLICY_MATCH);
	put_list(j, "mx", &p, TLSPOLICY_MX);
	put_list(j, "strings", &p, TLSPOLICY_STRINGS);
}

int main(int argc, char **argv)
{
	static const char *const results[] = { "more", "found", "nothing", "failed", "bad" };
	static struct socketmap_query q;
	static char out[1 << 17];
	struct socketmap map;
	const char *why = argc == 3 ? socketmap_parse(&map, argv[1]) : "usage: ask_map MAP DOMAIN";
	struct pollfd fd;
	struct json j;

	if (why) {
		fprintf(stderr, "ask_map: %s\n", why);
		return 64;
	}
	for (socketmap_start(&q, &map, argv[2], now(), 5000000); q.state == SOCKETMAP_RUNNING; socketmap_turn(&q, now()))
		poll(&fd, socketmap_watch(&q, &fd), (int)((socketmap_deadline(&q) - now()) / 1000 + 1));
	json_begin(&j, out, sizeof out);
	json_string(&j, "result", results[q.result]);
	json_string(&j, "failure", q.failure);
	if (q.result == SOCKETMAP_FOUND)
		put_policy(&j, &q);
	fwrite(out, 1, json_end(&j), stdout);
	return 0;
}
