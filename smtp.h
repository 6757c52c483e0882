/* SMTP as bytes: commands, replies, EHLO lists, the framing of DATA. Everything here is a pure function over bytes and lengths:
 * no descriptors, no errno, no clock, no heap. The caller offers what it has read and is told how many bytes were used; it
 * offers the unused ones again, together with what follows. Pointers that are returned lead into the caller's bytes and live as
 * long as those. dialogue.h knows the order of commands and what belongs to which.
 */
#ifndef SMTP_H
#define SMTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SMTP_AUTH_LINE_MAX 12288 /* octets of an AUTH line with CRLF, RFC 4954 4 */
#define SMTP_COMMAND_MIN 512	 /* shortest limit for a command line, RFC 5321 4.5.3.1.4 */
#define SMTP_REPLY_MAX 12800	 /* octets of one reply line: 512 by RFC 5321 4.5.3.1.5, 12288 after AUTH */
#define SMTP_EHLO_MAX 1024	 /* octets that are kept of an EHLO reply's keyword lines */
#define SMTP_HOST_MAX 512	 /* octets of the name in EHLO */
#define SMTP_PARAMS_MAX 64	 /* parameters of one MAIL or RCPT */

/* Verbs and their places in a pipelined group. FREE: anywhere. LAST: at the end, so that the next command waits for its reply
 * (RFC 2920 3.1, RFC 3030 4.2). ALONE: at the start, so that it waits for all replies before. */
#define SMTP_VERBS(X)                                                                                                  \
	X(EHLO, ALONE)                                                                                                 \
	X(HELO, ALONE)                                                                                                 \
	X(MAIL, ALONE)                                                                                                 \
	X(RCPT, FREE)                                                                                                  \
	X(DATA, LAST)                                                                                                  \
	X(BDAT, FREE)                                                                                                  \
	X(RSET, FREE)                                                                                                  \
	X(NOOP, LAST)                                                                                                  \
	X(QUIT, LAST)                                                                                                  \
	X(HELP, LAST)                                                                                                  \
	X(VRFY, LAST)                                                                                                  \
	X(EXPN, LAST)                                                                                                  \
	X(ETRN, LAST)                                                                                                  \
	X(AUTH, LAST)                                                                                                  \
	X(STARTTLS, ALONE)                                                                                             \
	X(XCLIENT, LAST)                                                                                               \
	X(XFORWARD, LAST)                                                                                              \
	X(LHLO, ALONE)

enum smtp_verb {
#define X(verb, group) SMTP_##verb,
	SMTP_VERBS(X)
#undef X
	    SMTP_UNKNOWN,   /* none of the above */
	SMTP_GREETING,	    /* the server's greeting, which answers no command */
	SMTP_CONTENT,	    /* the message after 354, up to and with the final dot */
	SMTP_AUTH_RESPONSE, /* a line that answers 334 */
	SMTP_NOTHING	    /* a reply answers no command at all */
};

enum smtp_group { SMTP_FREE, SMTP_LAST, SMTP_ALONE };

/* One command line, parsed. Pointers lead into the line. */
struct smtp_command {
	enum smtp_verb verb;
	const unsigned char *line; /* without its line end */
	size_t line_len;
	const unsigned char *arg; /* what follows the verb, trimmed */
	size_t arg_len;
	const unsigned char *path; /* MAIL, RCPT: as given, with angle brackets if there are any */
	size_t path_len;
	const unsigned char *address; /* its mailbox without brackets and source route; empty: null path */
	size_t address_len;
	const unsigned char *params; /* what follows the path, trimmed */
	size_t params_len;
	uint64_t octets;     /* MAIL: SIZE=; BDAT: octets of the chunk */
	bool last;	     /* BDAT: LAST */
	bool binarymime;     /* MAIL: BODY=BINARYMIME, RFC 3030 3 */
	bool eightbit;	     /* MAIL: BODY=8BITMIME, RFC 6152 */
	bool smtputf8;	     /* MAIL: SMTPUTF8, RFC 6531 */
	bool requiretls;     /* MAIL: REQUIRETLS, RFC 8689 */
	bool auth;	     /* MAIL: AUTH=, RFC 4954 5 */
	bool unusual;	     /* MAIL, RCPT: has a parameter other than SIZE, BODY=7BIT or 8BITMIME, SMTPUTF8, AUTH */
	bool tolerated;	     /* violates RFC 5321, but its meaning is plain */
	bool fatal;	     /* what follows cannot be read as SMTP: refuse, then end the session */
	const char *refusal; /* reply to a malformed line (static storage, no CRLF), else NULL */
};

/* A parameter of MAIL or RCPT. value: NULL without '='. */
struct smtp_param {
	const unsigned char *keyword, *value;
	size_t keyword_len, value_len;
};

/* A reply line. text is what follows the code and its separator, without the line end. */
struct smtp_line {
	int code; /* 200..599 */
	bool last;
	const unsigned char *raw; /* all of it, without the line end */
	const unsigned char *text;
	size_t raw_len, text_len;
};

enum smtp_newline { SMTP_NL_NORMALIZE, SMTP_NL_REJECT, SMTP_NL_PASS };

/* Bytes of a message as they are sent on. They lead into the caller's bytes, or to a constant. */
struct smtp_piece {
	const unsigned char *bytes;
	size_t len;
	bool end; /* DATA: the final dot's line is in these bytes. BDAT: the chunk ends here */
};

/* Scans a message in DATA (RFC 5321 4.1.1.4, 4.5.2). A new one is all zero. */
struct smtp_scanner {
	enum smtp_newline newline;
	bool unstuff; /* pieces become the message itself: no stuffed dots, no final dot's line */
	bool plain;   /* with unstuff: so is the input, e.g. of a program: it has no end, and no dot is stuffed */
	enum {
		SMTP_AT_CRLF, /* at the start of a line, after CR LF */
		SMTP_AT_BARE, /* at the start of a line for us, not for the client: after a bare LF */
		SMTP_IN_LINE,
		SMTP_IN_NULS /* in a line that has only NULs so far */
	} at;
	bool broken;	  /* has seen a bare CR or LF, or a NUL beside a dot at the start of a line */
	uint64_t content; /* octets sent on, without stuffed dots and the final dot's line */
};

/* Finds the Message-ID in a header section (RFC 5322 3.6.4). A new one is all zero. */
struct smtp_header {
	enum { SMTP_HD_NAME, SMTP_HD_SKIP, SMTP_HD_VALUE, SMTP_HD_AFTER, SMTP_HD_DONE } state;
	size_t matched; /* octets of "message-id:" matched on this line */
	size_t id_len;
	unsigned char id[256];
};

enum smtp_extension {
	SMTP_EXT_PIPELINING = 1 << 0,
	SMTP_EXT_SIZE = 1 << 1,
	SMTP_EXT_STARTTLS = 1 << 2,
	SMTP_EXT_CHUNKING = 1 << 3,
	SMTP_EXT_AUTH = 1 << 4,
	SMTP_EXT_REQUIRETLS = 1 << 5,
	SMTP_EXT_8BITMIME = 1 << 6,
	SMTP_EXT_SMTPUTF8 = 1 << 7,
	SMTP_EXT_XCLIENT = 1 << 8,
	SMTP_EXT_XFORWARD = 1 << 9
};

/* What an EHLO reply offers, and those of its lines that may be shown to a client. */
struct smtp_ehlo {
	unsigned extensions; /* bits of enum smtp_extension */
	unsigned seen;	     /* bits: rows of the keyword table that were seen, to find duplicates */
	uint64_t size;	     /* of SIZE; 0: no fixed limit, RFC 1870 4 */
	size_t domain_len, text_len;
	unsigned char domain[512];	   /* text of the first line */
	unsigned char text[SMTP_EHLO_MAX]; /* for each line: its row in the table (1 octet), its length (1), its text */
};

/* What smtpwarp changes in the list that it shows to a client. */
struct smtp_offer {
	uint64_t size_limit; /* our limit; 0: none */
	bool auth;	     /* the client may see AUTH */
	bool requiretls;     /* the upstream's TLS was verified */
	bool starttls;	     /* the client may ask for TLS */
	bool single;	     /* a message has one recipient, RFC 9422 3.2 */
	bool requires_later; /* REQUIRETLS is ours: whether it can be kept shows with the recipient */
};

/* "MAIL"; pseudo verbs have names in lower case. Static storage. */
const char *smtp_verb_name(enum smtp_verb verb);

enum smtp_group smtp_verb_group(enum smtp_verb verb);

/* Octets up to the first LF, which counts; 0: there is none. */
size_t smtp_find_line(const unsigned char *in, size_t n);

/* Octets of empty lines at the start of in: what ends in LF, and is of CR and LF alone. */
size_t smtp_empty_lines(const unsigned char *in, size_t n);

/* Octets of the word at the start of in, up to the first blank. */
size_t smtp_word(const unsigned char *in, size_t n);

/* Octets of a line without its line end, if there is one. */
size_t smtp_without_end(const unsigned char *in, size_t n);

/* Trim blanks at both ends of *n octets at *in. */
void smtp_trim(const unsigned char **in, size_t *n);

/* Space or tab. */
bool smtp_is_blank(unsigned char c);

bool smtp_is_alnum(unsigned char c);

/* Decimal number of 1 to 20 digits (RFC 1870 3, RFC 3030 2). A number that is too large becomes UINT64_MAX. false: it is no
 * number. */
bool smtp_number(const unsigned char *in, size_t n, uint64_t *value);

/* ASCII letters become lower case; other octets stay. */
unsigned char smtp_lower(unsigned char c);

/* Whether the n octets of both are the same, in any case of letters. */
bool smtp_same(const unsigned char *a, const unsigned char *b, size_t n);

/* Parse a line of n octets, with or without its end, as a command, RFC 5321 4.1.1. A bare LF ends a line as CR LF does (real
 * clients send it); a CR or NUL inside is refused. Never fails: see cmd->refusal. */
void smtp_parse(const unsigned char *in, size_t n, struct smtp_command *cmd);

/* Whether a line that begins with these octets is a request line of HTTP, by its method or, if it is here, its end (RFC 9112 3):
 * a web page may make a browser send one, with commands in its body (RFC 5321 7.8). */
bool smtp_is_http(const unsigned char *in, size_t n);

/* Walk through parameters: *at starts at 0. false at the end, or at something that is no parameter (then *at < n). RFC 5321
 * 4.1.2. */
bool smtp_param_next(const unsigned char *params, size_t n, size_t *at, struct smtp_param *p);

/* Whether the octets are this word, in any case of letters. */
bool smtp_is(const unsigned char *in, size_t n, const char *word);

/* Write the command as it is sent on, with CRLF: blanks are trimmed, "MAIL FROM: @c:a@b" becomes "MAIL FROM:<a@b>" (RFC 5321 3.3,
 * 4.1.1.3).
 * Returns octets; 0 if cap is less than line_len + 16. */
size_t smtp_command_write(const struct smtp_command *cmd, unsigned char *out, size_t cap);

/* Parse a reply line of n octets with its end (LF alone and CR CR LF are tolerated), RFC 5321 4.2. false: it is no reply line. */
bool smtp_parse_reply(const unsigned char *in, size_t n, struct smtp_line *line);

/* The enhanced code at the start of a reply text (RFC 3463 2): class, subject, detail; all 0 if there is none. */
void smtp_enhanced(const unsigned char *text, size_t n, uint16_t enhanced[3]);

/* Write a reply line with CRLF: code, '-' or ' ', text. NUL, CR and other controls in the text become blanks. Returns octets; 0
 * if cap is less than n + 6. */
size_t smtp_reply_write(int code, bool last, const unsigned char *text, size_t n, unsigned char *out, size_t cap);

/* Write a reply with a text of any length: the enhanced code (RFC 2034 4) on each line, and no line longer than 512 octets (RFC
 * 5321 4.5.3.1.5). What is not printable ASCII becomes a blank or '?'. The text is cut to SMTP_WRAP_TEXT octets. Returns
 * octets; 0 if cap is less than SMTP_WRAP_MAX. */
#define SMTP_WRAP_TEXT 2048
#define SMTP_WRAP_MAX 2560
size_t smtp_reply_wrap(int code, const uint16_t enhanced[3], const unsigned char *text, size_t n, unsigned char *out,
    size_t cap);

/* Take one line of a 250 reply to EHLO. first: this line has the domain, and *e begins anew. RFC 5321 4.1.1.1. */
void smtp_ehlo_line(struct smtp_ehlo *e, bool first, const unsigned char *text, size_t n);

/* The arguments of an extension, trimmed, *n octets. NULL: it is not offered, or there was no room to keep its line. */
const unsigned char *smtp_ehlo_args(const struct smtp_ehlo *e, enum smtp_extension extension, size_t *n);

/* The lower of two limits on a message's size; 0 is no limit. */
uint64_t smtp_lower_size(uint64_t a, uint64_t b);

/* Octets that the list for a client takes at most; never more than SMTP_EHLO_WRITTEN. */
#define SMTP_EHLO_WRITTEN (4 * SMTP_EHLO_MAX)
size_t smtp_ehlo_bound(const struct smtp_ehlo *e);

/* Write that list. Returns octets; 0 if cap is less than smtp_ehlo_bound(). */
size_t smtp_ehlo_write(const struct smtp_ehlo *e, const struct smtp_offer *offer, unsigned char *out, size_t cap);

/* The next piece of a message in DATA. false: more bytes are needed; at most 3 are held back. The pieces together are the
 * message as it is sent on, with the final dot's line. */
bool smtp_scan(struct smtp_scanner *s, const unsigned char *in, size_t n, size_t *used, struct smtp_piece *piece);

/* Octets that can be sent in one run of what is left of a message: up to the next line that begins with a dot and needs a
 * second one (RFC 5321 4.5.2). in may hold a part of the rest: a run never ends between CR and LF. */
size_t smtp_dot_free(const unsigned char *in, size_t n);

/* Whether all octets are below 128. */
bool smtp_is_seven_bit(const unsigned char *in, size_t n);

/* Scan bytes of a message in order, in pieces of any size. */
void smtp_header_scan(struct smtp_header *h, const unsigned char *in, size_t n);

#endif
