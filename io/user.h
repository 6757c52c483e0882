/* The user of --user: by name, or by numbers where nothing names them.
 */
#ifndef USER_H
#define USER_H

#include <stdbool.h>
#include <sys/types.h>

struct user {
	uid_t uid;
	gid_t gid;
	const char *name; /* whose further groups it gets, static storage until the next call; NULL: it gets none */
};

/* Find a user by text: a name of passwd(5), else UID or UID:GID, decimal, below 4294967295. A UID without GID has the group that
 * passwd(5) gives it, else the group of the same number. With GID that group is its only one. false: there is no such user. */
bool user_find(struct user *u, const char *text);

/* Take on its groups and user for good; needs root. Returns -1 with errno set if that fails. */
int user_become(const struct user *u);

#endif
