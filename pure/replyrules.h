/* Rules that say why a server refuses: files of them, compiled into one block without pointers, which processes can share. No I/O.
 *
 * A line is SITE, STAGE, PATTERN, CLASS and perhaps key=value, with TABs between: smtpwarp-replies(5). The first rule that matches a reply
 * counts.
 */
#ifndef REPLYRULES_H
#define REPLYRULES_H

#include "pure/replyclass.h"

#define REPLYRULES_MAX (1u << 20)    /* octets of a block */
#define REPLYRULES_LINE_MAX 500	     /* octets of a line of a file */

/* The rules follow it, `used` octets. All zero: there is none. */
struct replyrules {
	uint32_t used, count;
	unsigned char bytes[];
};

/* Add the rules of a file, n octets, to a block of REPLYRULES_MAX octets. file: its number, for replyrules_match(). Returns NULL, or what
 * is wrong with line *line (static storage). */
const char *replyrules_add(struct replyrules *rules, unsigned file, const char *text, size_t n, unsigned *line);

/* The rule that matches a reply. */
struct replyrule {
	enum reply_class class;
	enum reply_scope scope;
	unsigned file, line; /* where it stands: the file's number, and its line from 1 on */
};

/* Find the first rule for this reply. site: the server's name in rules, lower-case; NULL: only rules for all servers count. false: none
 * matches. */
bool replyrules_match(const struct replyrules *rules, const char *site, enum reply_stage stage, const struct reply_line *reply,
    struct replyrule *rule);

#endif
