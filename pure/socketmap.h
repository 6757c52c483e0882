/* The socketmap protocol, socketmap_table(5): who is asked, questions and replies as octets. No I/O.
 *
 * Question and reply are a netstring each, "LENGTH:OCTETS,". A question is "NAME KEY"; a reply is "OK TEXT", "NOTFOUND ", or TEMP, TIMEOUT
 * or PERM with a reason.
 */
#ifndef PURE_SOCKETMAP_H
#define PURE_SOCKETMAP_H

#include "pure/address.h"

#define SOCKETMAP_NAME 64	   /* octets of a map's name, with its NUL */
#define SOCKETMAP_QUESTION 400	   /* octets of a question */
#define SOCKETMAP_REPLY (100000 + 8) /* octets of a reply with "100000:" before it and a comma behind it */
#define SOCKETMAP_WORDS "socketmap:unix:PATH:NAME or socketmap:inet:ADDRESS:PORT:NAME"

struct socketmap {
	union net_address address; /* AF_UNIX: at path */
	char path[NET_PATH_MAX];
	char name[SOCKETMAP_NAME];
};

/* Parse SOCKETMAP_WORDS without "socketmap:"; an IPv6 address stands in brackets. Returns NULL, or what text should have been, "takes ..." (static storage). */
const char *socketmap_parse(struct socketmap *m, const char *text);

/* Write the question for a key, in lower case. Returns octets; 0: the key is too long. */
size_t socketmap_ask(const struct socketmap *m, const char *key, char out[SOCKETMAP_QUESTION]);

enum socketmap_result {
	SOCKETMAP_MORE,	  /* the reply is not whole yet */
	SOCKETMAP_FOUND,  /* *text is what was found, *text_len octets */
	SOCKETMAP_NOTHING,
	SOCKETMAP_FAILED, /* the server cannot say: *text is its reply */
	SOCKETMAP_BAD	  /* this is no reply */
};

/* Read a reply, n octets so far; nothing may follow it. *text leads into them. */
enum socketmap_result socketmap_read(const char *in, size_t n, const char **text, size_t *text_len);

#endif
