/* Users. See user.h for the contract. */
#define _GNU_SOURCE
#include "io/user.h"

#include <grp.h>
#include <pwd.h>
#include <stdint.h>
#include <unistd.h>

/* Read the number of a user or group, up to `end`. UINT32_MAX stands for none, setuid(2). */
static bool take_number(const char **text, char end, uint32_t *id)
{
	const char *c = *text;
	uint64_t n = 0;

	for (; *c >= '0' && *c <= '9' && n < UINT32_MAX; c++)
		n = n * 10 + (uint64_t)(*c - '0');
	if (c == *text || *c != end || n >= UINT32_MAX)
		return false;
	*id = (uint32_t)n;
	*text = c;
	return true;
}

static bool take(struct user *u, const struct passwd *entry)
{
	if (entry)
		*u = (struct user){ .uid = entry->pw_uid, .gid = entry->pw_gid, .name = entry->pw_name };
	return entry;
}

bool user_find(struct user *u, const char *text)
{
	*u = (struct user){ .name = NULL };
	if (take(u, getpwnam(text)))
		return true;
	if (take_number(&text, ':', &u->uid)) {
		text++;
		return take_number(&text, 0, &u->gid);
	}
	if (!take_number(&text, 0, &u->uid))
		return false;
	if (!take(u, getpwuid(u->uid)))
		u->gid = u->uid;
	return true;
}

int user_become(const struct user *u)
{
	if (u->name ? initgroups(u->name, u->gid) < 0 : setgroups(0, NULL) < 0)
		return -1;
	return setgid(u->gid) < 0 ? -1 : setuid(u->uid);
}
