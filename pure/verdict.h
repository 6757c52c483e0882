/* What a hook may say, and what its lines mean: smtpwarp-hooks(7). Pure, as smtp.h is: bytes in, lines out. hooks.c runs hooks,
 * and session/filter.c acts on verdicts.
 */
#ifndef VERDICT_H
#define VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VERDICT_KIB 64
#define VERDICT_MAX (VERDICT_KIB << 10) /* octets of a verdict, without a message after it */
#define VERDICT_HEADER_LINE 78	/* columns at which a header field is folded, RFC 5322 2.1.1 */
#define VERDICT_UNCOUNTED UINT64_MAX
#define VERDICT_TARPIT_MAX 300	/* seconds: as long as a client waits for a greeting or reply, RFC 5321 4.5.3.2 */

/* Events that hooks run for, and the names of their folders. */
#define HOOK_EVENTS(X)                                                                                                 \
	X(CONNECT, "connect")                                                                                          \
	X(EHLO, "ehlo")                                                                                                \
	X(MAIL, "mail")                                                                                                \
	X(RCPT, "rcpt")                                                                                                \
	X(DATA, "data")                                                                                                \
	X(CLOSE, "close")                                                                                              \
	X(LOG, "log")

enum hook_event {
#define X(event, name) HOOK_##event,
	HOOK_EVENTS(X)
#undef X
	    HOOK_EVENT_COUNT
};

/* Bits of the events whose verdicts choose servers, and TLS with them. */
#define HOOK_ROUTING (1u << HOOK_CONNECT | 1u << HOOK_MAIL | 1u << HOOK_RCPT)

#define VERDICT_WORDS(X)                                                                                               \
	X(ACCEPT, "accept")                                                                                            \
	X(REJECT, "reject")                                                                                            \
	X(DEFER, "defer")                                                                                              \
	X(SHUT, "close")                                                                                               \
	X(DISCARD, "discard")                                                                                          \
	X(TARPIT, "tarpit")                                                                                            \
	X(SOURCE, "source")                                                                                            \
	X(UPSTREAM, "upstream")                                                                                        \
	X(TLS, "tls")                                                                                                  \
	X(REWRITE, "rewrite")                                                                                          \
	X(ADD_HEADER, "add-header")                                                                                    \
	X(REMOVE_HEADER, "remove-header")                                                                              \
	X(REPLACE_MESSAGE, "replace-message")                                                                          \
	X(LOG, "log")

enum verdict_word {
#define X(word, name) VERDICT_##word,
	VERDICT_WORDS(X)
#undef X
};

/* One line. Pointers lead into the verdict. */
struct verdict {
	enum verdict_word word;
	const unsigned char *text; /* the argument, trimmed: reply text, address, header value, value of log */
	size_t text_len;
	const unsigned char *name; /* add-header, remove-header: the field's name; log: the key; tls: the level */
	size_t name_len;
	int code;		   /* reject, defer, close */
	uint16_t enhanced[3];
	unsigned seconds; /* tarpit */
	uint64_t octets;  /* replace-message: octets that follow; VERDICT_UNCOUNTED: it does not say */
};

enum verdict_status { VERDICT_LINE, VERDICT_END, VERDICT_BAD };

const char *hook_event_name(enum hook_event event);

const char *verdict_word_name(enum verdict_word word);

/* Whether a line with this word ends a verdict. */
bool verdict_is_final(enum verdict_word word);

/* The line at *at of a verdict of n octets; *at (0 at first) moves past it. VERDICT_BAD: *why says why this is no verdict for
 * this event. What follows a "replace-message" line must not be read as lines. */
enum verdict_status verdict_next(enum hook_event event, const unsigned char *in, size_t n, size_t *at,
    struct verdict *v, const char **why);

/* Where the message after a "replace-message" line begins. 0: there is no such line, it is incomplete, or the verdict ends
 * before it. */
size_t verdict_message_at(const unsigned char *in, size_t n);

/* How many octets that message has, as the last of these n octets' lines says; or VERDICT_UNCOUNTED. */
uint64_t verdict_message_octets(const unsigned char *in, size_t n);

/* Write a header value of n octets, one of which at least is not ASCII, with encoded words in their place (RFC 2047): UTF-8, or unknown-8bit
 * (RFC 1428). out has room for 2 * n + 32. Returns octets. */
size_t verdict_encode(const unsigned char *text, size_t n, unsigned char *out);

/* Write "NAME: VALUE" as a header field with CRLF, folded at blanks; no line consists of blanks. Controls become blanks. Words
 * that no line can hold are broken, and runs of blanks shortened. Returns octets; 0 if cap is less than 2 * (name_len +
 * text_len) + 8. RFC 5322 2.1.1, 2.2.3. */
size_t verdict_header_write(const struct verdict *v, unsigned char *out, size_t cap);

#endif
