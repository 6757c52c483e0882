/* Why a server refuses: the class of a reply, from its code, its enhanced code and its text. No I/O.
 *
 * The names are fields of records and labels of metrics: classes and stages are added, never renamed or removed.
 */
#ifndef REPLYCLASS_H
#define REPLYCLASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The third column says whose fault a refusal of this class is, unless the rule says otherwise: see enum reply_scope. */
#define REPLY_CLASSES(X)                                                                                               \
	X(OK, "ok", IP)						/* 2xx, 3xx */                                         \
	X(THROTTLE, "throttle", IP)				/* too much from us, in too short a time */            \
	X(GREYLIST, "greylist", MESSAGE)			/* the first attempt of an unknown sender */           \
	X(BLOCKLIST, "blocklist", IP)				/* our address is on a list */                         \
	X(REPUTATION, "reputation", IP)				/* our mail has been found wanting */                  \
	X(POLICY, "policy", MESSAGE)				/* a rule of the server's operator */                  \
	X(CONTENT, "content", MESSAGE)				/* spam or malware, by the look of it */               \
	X(AUTH, "auth", DOMAIN)					/* SPF, DKIM, DMARC, reverse DNS */                    \
	X(UNKNOWN_USER, "unknown-user", USER)                                                                          \
	X(INACTIVE, "inactive", USER)				/* the mailbox is disabled, or has moved */            \
	X(MAILBOX_FULL, "mailbox-full", USER)                                                                          \
	X(TOO_MANY_RECIPIENTS, "too-many-recipients", MESSAGE)                                                         \
	X(SIZE, "size", MESSAGE)                                                                                       \
	X(BAD_SENDER, "bad-sender", DOMAIN)			/* the sender's address or domain does not exist */    \
	X(NO_ROUTE, "no-route", DOMAIN)				/* the recipient's domain takes no mail */             \
	X(RELAY_DENIED, "relay-denied", DOMAIN)                                                                        \
	X(TLS, "tls", DOMAIN)					/* TLS is required, or has failed */                   \
	X(PROTOCOL, "protocol", MESSAGE)			/* a command out of order, unknown or malformed */     \
	X(SYSTEM, "system", MESSAGE)				/* trouble of the server's own */                      \
	X(NETWORK, "network", MESSAGE)				/* trouble between the server and others */            \
	X(OTHER, "other", MESSAGE)

enum reply_class {
#define X(class, name, scope) REPLY_##class,
	REPLY_CLASSES(X)
#undef X
	REPLY_CLASSES_END
};

/* When a server has said it, a bit each in a rule. */
#define REPLY_STAGES(X)                                                                                                \
	X(CONNECT, "connect") X(BANNER, "banner") X(EHLO, "ehlo") X(TLS, "tls") X(MAIL, "mail") X(RCPT, "rcpt") X(DATA, "data")  \
	X(DOT, "dot")

enum reply_stage {
#define X(stage, name) REPLY_AT_##stage,
	REPLY_STAGES(X)
#undef X
	REPLY_STAGES_END
};

/* To whom a refusal applies. Only REPLY_OF_IP is evidence of how the server treats our address. */
#define REPLY_SCOPES(X) X(IP, "ip") X(DOMAIN, "domain") X(USER, "user") X(MESSAGE, "message")

enum reply_scope {
#define X(scope, name) REPLY_OF_##scope,
	REPLY_SCOPES(X)
#undef X
	REPLY_SCOPES_END
};

/* The words for them. Static storage. */
const char *replyclass_name(enum reply_class class);
const char *replyclass_stage_name(enum reply_stage stage);
const char *replyclass_scope_name(enum reply_scope scope);

/* The class or scope of this word of n octets; its end value: there is none. */
enum reply_class replyclass_parse(const char *word, size_t n);
enum reply_stage replyclass_parse_stage(const char *word, size_t n);
enum reply_scope replyclass_parse_scope(const char *word, size_t n);

/* To whom refusals of this class apply, as a rule. */
enum reply_scope replyclass_scope(enum reply_class class);

/* A reply as one line, "421 4.7.28 text": lower-case, with its lines joined and runs of blanks and controls made one blank. The enhanced
 * code that begins each line is there once. What does not fit is left out. A new one is all zero. */
#define REPLY_LINE_MAX 1024
struct reply_line {
	size_t len, enhanced; /* octets; enhanced: of the enhanced code behind the code, with its blank */
	char text[REPLY_LINE_MAX];
};

/* Add the text of the reply's next line, n octets without the code. */
void replyclass_add(struct reply_line *line, int code, const unsigned char *text, size_t n);

/* The class of a refusal at this stage that no rule names, by RFC 3463 and RFC 5321. */
enum reply_class replyclass_of(enum reply_stage stage, int code, const uint16_t enhanced[3], const struct reply_line *line);

#endif
