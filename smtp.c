/* SMTP as bytes. See smtp.h for the contract; the comments here say why. */
#include "smtp.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

static const struct {
	char name[9]; /* no pointers, which would be relocated */
	unsigned char group; /* enum smtp_group */
} verbs[] = {
#define X(verb, group) { #verb, SMTP_##group },
	SMTP_VERBS(X)
#undef X
};

#define N_VERBS (sizeof verbs / sizeof *verbs)

const char *smtp_verb_name(enum smtp_verb verb)
{
	static const char pseudo[][14] = { "unknown", "greeting", "content", "auth-response", "nothing" };

	return (size_t)verb < N_VERBS ? verbs[verb].name : pseudo[(size_t)verb - N_VERBS];
}

enum smtp_group smtp_verb_group(enum smtp_verb verb)
{
	return (size_t)verb < N_VERBS ? (enum smtp_group)verbs[verb].group : SMTP_LAST;
}

unsigned char smtp_lower(unsigned char c)
{
	return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
}

bool smtp_is_blank(unsigned char c)
{
	return c == ' ' || c == '\t';
}

static bool is_digit(unsigned char c)
{
	return c >= '0' && c <= '9';
}

bool smtp_is_alnum(unsigned char c)
{
	return is_digit(c) || (smtp_lower(c) >= 'a' && smtp_lower(c) <= 'z');
}

static bool is_control(unsigned char c)
{
	return c < 0x20 || c == 0x7f;
}

bool smtp_same(const unsigned char *a, const unsigned char *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (smtp_lower(a[i]) != smtp_lower(b[i]))
			return false;
	return true;
}

bool smtp_is(const unsigned char *in, size_t n, const char *word)
{
	return n == strlen(word) && smtp_same(in, (const unsigned char *)word, n);
}

static bool starts(const unsigned char *in, size_t n, const char *word)
{
	return n >= strlen(word) && smtp_same(in, (const unsigned char *)word, strlen(word));
}

bool smtp_number(const unsigned char *in, size_t n, uint64_t *value)
{
	if (n == 0 || n > 20)
		return false;
	*value = 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t digit = (uint64_t)(in[i] - '0');

		if (!is_digit(in[i]))
			return false;
		*value = *value > (UINT64_MAX - digit) / 10 ? UINT64_MAX : *value * 10 + digit;
	}
	return true;
}

size_t smtp_find_line(const unsigned char *in, size_t n)
{
	const unsigned char *lf = n ? memchr(in, '\n', n) : NULL;

	return lf ? (size_t)(lf - in) + 1 : 0;
}

size_t smtp_empty_lines(const unsigned char *in, size_t n)
{
	size_t empty = 0;

	for (size_t i = 0; i < n && (in[i] == '\r' || in[i] == '\n'); i++)
		if (in[i] == '\n')
			empty = i + 1;
	return empty;
}

size_t smtp_word(const unsigned char *in, size_t n)
{
	size_t len = 0;

	while (len < n && !smtp_is_blank(in[len]))
		len++;
	return len;
}

size_t smtp_without_end(const unsigned char *in, size_t n)
{
	if (n && in[n - 1] == '\n')
		n--;
	if (n && in[n - 1] == '\r')
		n--;
	return n;
}

void smtp_trim(const unsigned char **in, size_t *n)
{
	while (*n && smtp_is_blank(**in)) {
		++*in;
		--*n;
	}
	while (*n && smtp_is_blank((*in)[*n - 1]))
		--*n;
}

/* ---- commands ---- */

bool smtp_param_next(const unsigned char *params, size_t n, size_t *at, struct smtp_param *p)
{
	size_t i = *at, start;

	while (i < n && smtp_is_blank(params[i]))
		i++;
	*at = start = i;
	while (i < n && (smtp_is_alnum(params[i]) || (params[i] == '-' && i > start)))
		i++;
	if (i == start || (i < n && params[i] != '=' && !smtp_is_blank(params[i])))
		return false;
	p->keyword = params + start;
	p->keyword_len = i - start;
	p->value = NULL;
	p->value_len = 0;
	if (i < n && params[i] == '=') {
		p->value = params + ++i;
		while (i < n && !smtp_is_blank(params[i]))
			if (is_control(params[i++]))
				return false;
		p->value_len = (size_t)(params + i - p->value);
	}
	*at = i;
	return true;
}

static bool is_hex(unsigned char c)
{
	return is_digit(c) || (smtp_lower(c) >= 'a' && smtp_lower(c) <= 'f');
}

/* RFC 3461 4, and as Postfix takes it also digits a to f, and '='. Octets above 127 pass, RFC 6533 3 allows them under SMTPUTF8;
 * smtp_param_next() has seen that there are no controls. */
static bool is_xtext(const unsigned char *in, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (in[i] != '+')
			continue;
		if (n - i < 3 || !is_hex(in[i + 1]) || !is_hex(in[i + 2]))
			return false;
		i += 2;
	}
	return n > 0;
}

static const char syntax_param[] = "501 5.5.4 Malformed or duplicate parameter";
static const char syntax_path[] = "501 5.5.4 Syntax: MAIL FROM:<address> or RCPT TO:<address>";

/* Behind a path without brackets: a parameter, and not the rest of an address that has a blank? */
static bool is_plainly_param(const struct smtp_param *p)
{
	return p->value || smtp_is(p->keyword, p->keyword_len, "SMTPUTF8") || smtp_is(p->keyword, p->keyword_len, "REQUIRETLS");
}

/* Use a parameter whose meaning we need, or check its form. */
static const char *take_param(struct smtp_command *cmd, const struct smtp_param *p)
{
	const unsigned char *semicolon;

	if (cmd->verb == SMTP_MAIL && smtp_is(p->keyword, p->keyword_len, "SIZE"))
		return smtp_number(p->value, p->value_len, &cmd->octets) ? NULL : "501 5.5.4 SIZE takes a number";
	if (cmd->verb == SMTP_MAIL && smtp_is(p->keyword, p->keyword_len, "BODY")) {
		cmd->eightbit = smtp_is(p->value, p->value_len, "8BITMIME");
		cmd->binarymime = smtp_is(p->value, p->value_len, "BINARYMIME");
		cmd->unusual = cmd->unusual || !(cmd->eightbit || smtp_is(p->value, p->value_len, "7BIT"));
		return NULL;
	}
	if (cmd->verb == SMTP_MAIL && smtp_is(p->keyword, p->keyword_len, "SMTPUTF8")) {
		cmd->smtputf8 = true;
		return NULL;
	}
	if (cmd->verb == SMTP_MAIL && smtp_is(p->keyword, p->keyword_len, "AUTH"))
		cmd->auth = true;
	else
		cmd->unusual = true;
	if (cmd->verb == SMTP_MAIL && smtp_is(p->keyword, p->keyword_len, "REQUIRETLS"))
		cmd->requiretls = true;
	if (smtp_is(p->keyword, p->keyword_len, "ENVID") || smtp_is(p->keyword, p->keyword_len, "AUTH"))
		return is_xtext(p->value, p->value_len) ? NULL : "501 5.5.4 Value is not xtext (RFC 3461)";
	if (smtp_is(p->keyword, p->keyword_len, "ORCPT")) {
		semicolon = p->value_len ? memchr(p->value, ';', p->value_len) : NULL;
		if (!semicolon || semicolon == p->value || !is_xtext(semicolon + 1, (size_t)(p->value + p->value_len - semicolon - 1)))
			return "501 5.5.4 ORCPT takes addr-type;xtext (RFC 3461)";
	}
	return NULL;
}

static const char *parse_params(struct smtp_command *cmd)
{
	struct smtp_param p[SMTP_PARAMS_MAX];
	size_t at = 0, count = 0;
	const char *refusal;

	while (count < SMTP_PARAMS_MAX && smtp_param_next(cmd->params, cmd->params_len, &at, &p[count])) {
		for (size_t i = 0; i < count; i++)
			if (p[i].keyword_len == p[count].keyword_len &&
			    smtp_same(p[i].keyword, p[count].keyword, p[i].keyword_len))
				return syntax_param;
		if (cmd->path[0] != '<' && !is_plainly_param(&p[count]))
			return syntax_path;
		refusal = take_param(cmd, &p[count++]);
		if (refusal)
			return refusal;
	}
	return at < cmd->params_len ? syntax_param : NULL;
}

/* Octets of the path at the start of in: up to its '>', or up to the next blank if it has no brackets, and then it has no other
 * blank. Quoted strings and backslashes count, RFC 5321 4.1.2. 0: it is no path. */
static size_t path_length(const unsigned char *in, size_t n)
{
	bool quoted = false, bracket = n && in[0] == '<';

	for (size_t i = bracket ? 1 : 0; i < n; i++) {
		if (is_control(in[i]) && !(quoted && in[i] == '\t'))
			return 0;
		if (in[i] == '\\') {
			if (++i == n || (is_control(in[i]) && in[i] != '\t') || (!bracket && smtp_is_blank(in[i])))
				return 0;
		} else if (in[i] == '"') {
			quoted = !quoted;
		} else if (!quoted && (in[i] == '<' || (in[i] == '>' && !bracket))) {
			return 0;
		} else if (!quoted && in[i] == '>') {
			return i + 1;
		} else if (smtp_is_blank(in[i]) && !(quoted && bracket)) {
			return bracket || quoted ? 0 : i;
		}
	}
	return bracket || quoted ? 0 : n;
}

/* The mailbox of a path. "<@a,@b:user@c>" is user@c: RFC 5321 4.1.1.3 wants routes accepted and ignored. false: a route leads to
 * none. */
static bool parse_address(struct smtp_command *cmd)
{
	const unsigned char *colon;

	cmd->address = cmd->path;
	cmd->address_len = cmd->path_len;
	if (cmd->path[0] == '<') {
		cmd->address++;
		cmd->address_len -= 2;
	}
	if (!cmd->address_len || cmd->address[0] != '@' || !(colon = memchr(cmd->address, ':', cmd->address_len)))
		return true;
	cmd->address_len -= (size_t)(colon + 1 - cmd->address);
	cmd->address = colon + 1;
	return cmd->address_len && colon[1] != '@';
}

static const char *parse_path(struct smtp_command *cmd, const char *intro)
{
	const unsigned char *at = cmd->arg;
	size_t n = cmd->arg_len;

	if (!starts(at, n, intro))
		return syntax_path;
	at += strlen(intro);
	n -= strlen(intro);
	cmd->tolerated = n && smtp_is_blank(*at);
	smtp_trim(&at, &n);
	if (!n || *at != ':')
		return syntax_path;
	at++;
	n--;
	cmd->tolerated = cmd->tolerated || (n && smtp_is_blank(*at));
	smtp_trim(&at, &n);
	cmd->path = at;
	cmd->path_len = path_length(at, n);
	if (!cmd->path_len || (cmd->path_len < n && !smtp_is_blank(at[cmd->path_len])))
		return syntax_path;
	if (at[0] != '<')
		cmd->tolerated = true;
	if (!parse_address(cmd))
		return syntax_path;
	if (cmd->verb == SMTP_RCPT && !cmd->address_len)
		return "501 5.1.3 A recipient cannot be empty";
	cmd->params = at + cmd->path_len;
	cmd->params_len = n - cmd->path_len;
	smtp_trim(&cmd->params, &cmd->params_len);
	return parse_params(cmd);
}

/* RFC 3030 2. If the size of a chunk cannot be read, the chunk would be taken for commands. */
static const char *parse_bdat(struct smtp_command *cmd)
{
	size_t digits = 0;
	const unsigned char *rest;
	size_t n;

	while (digits < cmd->arg_len && is_digit(cmd->arg[digits]))
		digits++;
	rest = cmd->arg + digits;
	n = cmd->arg_len - digits;
	cmd->last = n && smtp_is_blank(*rest);
	smtp_trim(&rest, &n);
	if (smtp_number(cmd->arg, digits, &cmd->octets) && cmd->octets < UINT64_MAX &&
	    (n == 0 || (cmd->last && smtp_is(rest, n, "LAST"))))
		return NULL;
	cmd->fatal = true;
	return "501 5.5.4 Syntax: BDAT octets [LAST]";
}

bool smtp_is_http(const unsigned char *in, size_t n)
{
	static const char methods[][8] = { "GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "DELETE", "PATCH", "TRACE" };

	n = smtp_without_end(in, n);
	smtp_trim(&in, &n);
	for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
		if (smtp_is(in, smtp_word(in, n), methods[i]))
			return true;
	return n > 9 && smtp_is_blank(in[n - 9]) && starts(in + n - 8, 8, "HTTP/") && is_digit(in[n - 3]) && in[n - 2] == '.' &&
	    is_digit(in[n - 1]);
}

static const char *parse_arguments(struct smtp_command *cmd)
{
	switch (cmd->verb) {
	case SMTP_EHLO:
	case SMTP_HELO:
	case SMTP_LHLO:
		return cmd->arg_len && cmd->arg_len <= SMTP_HOST_MAX ? NULL :
		    "501 5.5.4 A host name is missing or too long";
	case SMTP_MAIL:
		return parse_path(cmd, "FROM");
	case SMTP_RCPT:
		return parse_path(cmd, "TO");
	case SMTP_BDAT:
		return parse_bdat(cmd);
	case SMTP_DATA:
	case SMTP_STARTTLS:
		return cmd->arg_len ? "501 5.5.4 No parameters allowed" : NULL;
	case SMTP_AUTH:
		return cmd->arg_len ? NULL : "501 5.5.4 Syntax: AUTH mechanism";
	case SMTP_UNKNOWN:
		return cmd->line_len ? "500 5.5.1 Command not recognized" : "500 5.5.2 Empty command";
	default:
		return NULL;
	}
}

void smtp_parse(const unsigned char *in, size_t n, struct smtp_command *cmd)
{
	size_t verb_len;

	n = smtp_without_end(in, n);
	memset(cmd, 0, sizeof *cmd);
	cmd->verb = SMTP_UNKNOWN;
	cmd->line = in;
	cmd->line_len = n;
	smtp_trim(&cmd->line, &cmd->line_len);
	verb_len = smtp_word(cmd->line, cmd->line_len);
	for (size_t i = 0; i < N_VERBS; i++)
		if (smtp_is(cmd->line, verb_len, verbs[i].name))
			cmd->verb = (enum smtp_verb)i;
	cmd->arg = cmd->line + verb_len;
	cmd->arg_len = cmd->line_len - verb_len;
	smtp_trim(&cmd->arg, &cmd->arg_len);
	if (n && (memchr(in, '\r', n) || memchr(in, 0, n))) {
		cmd->refusal = "500 5.5.2 Carriage return or NUL inside a command line";
		cmd->fatal = cmd->verb == SMTP_BDAT; /* its octets would be taken for commands */
		return;
	}
	cmd->fatal = smtp_is_http(cmd->line, cmd->line_len);
	cmd->refusal = cmd->fatal ? "500 5.5.1 This is SMTP, not HTTP" : parse_arguments(cmd);
}

static unsigned char *put(unsigned char *out, const void *in, size_t n)
{
	if (n)
		memcpy(out, in, n);
	return out + n;
}

static unsigned char *put_string(unsigned char *out, const char *s)
{
	return put(out, s, strlen(s));
}

size_t smtp_command_write(const struct smtp_command *cmd, unsigned char *out, size_t cap)
{
	unsigned char *at = out;

	if (cap < cmd->line_len + 16)
		return 0;
	if (!cmd->path) {
		at = put(at, cmd->line, cmd->line_len);
	} else {
		at = put_string(at, cmd->verb == SMTP_MAIL ? "MAIL FROM:" : "RCPT TO:");
		*at++ = '<';
		at = put(at, cmd->address, cmd->address_len);
		*at++ = '>';
		if (cmd->params_len)
			*at++ = ' ';
		at = put(at, cmd->params, cmd->params_len);
	}
	at = put_string(at, "\r\n");
	return (size_t)(at - out);
}

/* ---- replies ---- */

bool smtp_parse_reply(const unsigned char *in, size_t n, struct smtp_line *line)
{
	n = smtp_without_end(in, n);
	while (n && in[n - 1] == '\r') /* some servers end lines in CR CR LF */
		n--;
	if (n < 3 || in[0] < '2' || in[0] > '5' || !is_digit(in[1]) || !is_digit(in[2]))
		return false;
	if (n > 3 && in[3] != ' ' && in[3] != '-')
		return false;
	line->code = (in[0] - '0') * 100 + (in[1] - '0') * 10 + (in[2] - '0');
	line->last = n == 3 || in[3] == ' ';
	line->raw = in;
	line->raw_len = n;
	line->text = n > 3 ? in + 4 : in + 3;
	line->text_len = n > 3 ? n - 4 : 0;
	return true;
}

void smtp_enhanced(const unsigned char *text, size_t n, uint16_t enhanced[3])
{
	size_t i = 0;
	uint16_t part[3];

	memset(enhanced, 0, 3 * sizeof *enhanced);
	for (int k = 0; k < 3; k++) {
		size_t digits = 0;

		for (part[k] = 0; i < n && is_digit(text[i]) && digits < (k ? 3 : 1); i++, digits++)
			part[k] = (uint16_t)(part[k] * 10 + text[i] - '0');
		if (!digits || (k < 2 && (i == n || text[i++] != '.')))
			return;
	}
	if ((i < n && !smtp_is_blank(text[i])) || (part[0] != 2 && part[0] != 4 && part[0] != 5))
		return;
	memcpy(enhanced, part, sizeof part);
}

size_t smtp_reply_write(int code, bool last, const unsigned char *text, size_t n, unsigned char *out, size_t cap)
{
	if (cap < n + 6)
		return 0;
	out[0] = (unsigned char)('0' + code / 100);
	out[1] = (unsigned char)('0' + code / 10 % 10);
	out[2] = (unsigned char)('0' + code % 10);
	out[3] = last ? ' ' : '-';
	for (size_t i = 0; i < n; i++)
		out[4 + i] = is_control(text[i]) && text[i] != '\t' ? ' ' : text[i];
	out[4 + n] = '\r';
	out[5 + n] = '\n';
	return n + 6;
}

static size_t put_number(unsigned char *out, uint64_t value)
{
	unsigned char digits[20];
	size_t n = 0, len;

	do
		digits[n++] = (unsigned char)('0' + value % 10);
	while (value /= 10);
	for (len = 0; n > 0; len++)
		out[len] = digits[--n];
	return len;
}

/* "5.7.1 " */
static unsigned char *put_enhanced(unsigned char *at, const uint16_t enhanced[3])
{
	for (int i = 0; i < 3; i++) {
		at += put_number(at, enhanced[i]);
		*at++ = i < 2 ? '.' : ' ';
	}
	return at;
}

/* Octets of text that fit on a line of `room`; the line is broken at a blank if it has one. */
static size_t line_of(const unsigned char *text, size_t n, size_t room)
{
	size_t len = room;

	if (n <= room)
		return n;
	while (len && !smtp_is_blank(text[len]))
		len--;
	return len ? len : room;
}

static unsigned char printable(unsigned char c)
{
	return is_control(c) ? ' ' : c > 0x7e ? '?' : c;
}

size_t smtp_reply_wrap(int code, const uint16_t enhanced[3], const unsigned char *text, size_t n, unsigned char *out,
    size_t cap)
{
	unsigned char *at = out, line[512];

	if (cap < SMTP_WRAP_MAX)
		return 0;
	n = n < SMTP_WRAP_TEXT ? n : SMTP_WRAP_TEXT;
	do {
		unsigned char *end = put_enhanced(line, enhanced);
		size_t len = line_of(text, n, 500 - (size_t)(end - line));

		for (size_t i = 0; i < len; i++)
			*end++ = printable(text[i]);
		text += len;
		n -= len;
		smtp_trim(&text, &n);
		at += smtp_reply_write(code, n == 0, line, (size_t)(end - line), at, cap - (size_t)(at - out));
	} while (n);
	return (size_t)(at - out);
}

/* ---- EHLO ---- */

enum ehlo_rule {
	KEEP,	     /* as the upstream says it */
	DROP,	     /* never: it is between smtpwarp and the upstream */
	WITH_LIMIT,  /* SIZE, lowered to our limit */
	IF_AUTH,     /* see struct smtp_offer */
	IF_VERIFIED,
	IF_MANY	     /* LIMITS, unless we have limits of our own */
};

/* Keywords that smtpwarp supports. It removes any other, which might change the framing. */
static const struct {
	char name[20];
	unsigned short extension;
	unsigned char rule; /* enum ehlo_rule */
} keywords[] = {
	{ "PIPELINING", SMTP_EXT_PIPELINING, KEEP },
	{ "SIZE", SMTP_EXT_SIZE, WITH_LIMIT },
	{ "STARTTLS", SMTP_EXT_STARTTLS, DROP },
	{ "XCLIENT", SMTP_EXT_XCLIENT, DROP },
	{ "XFORWARD", SMTP_EXT_XFORWARD, DROP },
	{ "CHUNKING", SMTP_EXT_CHUNKING, KEEP },
	{ "AUTH", SMTP_EXT_AUTH, IF_AUTH },
	{ "REQUIRETLS", SMTP_EXT_REQUIRETLS, IF_VERIFIED },
	{ "8BITMIME", SMTP_EXT_8BITMIME, KEEP },
	{ "SMTPUTF8", SMTP_EXT_SMTPUTF8, KEEP },
	{ "BINARYMIME", 0, KEEP },
	{ "DSN", 0, KEEP },
	{ "ENHANCEDSTATUSCODES", 0, KEEP },
	{ "ETRN", 0, KEEP },
	{ "DELIVERBY", 0, KEEP },
	{ "FUTURERELEASE", 0, KEEP },
	{ "MT-PRIORITY", 0, KEEP },
	{ "LIMITS", 0, IF_MANY },
	{ "HELP", 0, KEEP },
	{ "VRFY", 0, KEEP },
	{ "EXPN", 0, KEEP },
	{ "NO-SOLICITING", 0, KEEP },
	/* "AUTH=LOGIN" announced AUTH before RFC 2554; old clients look for it in addition */
	{ "AUTH=", SMTP_EXT_AUTH, IF_AUTH },
};

#define N_KEYWORDS (sizeof keywords / sizeof *keywords)

static size_t find_keyword(const unsigned char *text, size_t n)
{
	size_t len = smtp_word(text, n);

	if (starts(text, n, "AUTH="))
		return N_KEYWORDS - 1;
	for (size_t i = 0; i < N_KEYWORDS; i++)
		if (smtp_is(text, len, keywords[i].name))
			return i;
	return N_KEYWORDS;
}

void smtp_ehlo_line(struct smtp_ehlo *e, bool first, const unsigned char *text, size_t n)
{
	const unsigned char *number_at;
	size_t row, digits;

	if (first) {
		e->extensions = e->seen = 0;
		e->size = 0;
		e->text_len = 0;
		e->domain_len = n < sizeof e->domain ? n : sizeof e->domain;
		put(e->domain, text, e->domain_len);
		return;
	}
	smtp_trim(&text, &n);
	row = find_keyword(text, n);
	if (row == N_KEYWORDS || (e->seen & 1u << row))
		return;
	e->seen |= 1u << row;
	e->extensions |= keywords[row].extension;
	if (keywords[row].rule == WITH_LIMIT) {
		number_at = text + 4;
		digits = n - 4;
		smtp_trim(&number_at, &digits);
		if (!smtp_number(number_at, digits, &e->size))
			e->size = 0;
	}
	if (n > 255 || e->text_len + n + 2 > sizeof e->text)
		return;
	e->text[e->text_len++] = (unsigned char)row;
	e->text[e->text_len++] = (unsigned char)n;
	put(e->text + e->text_len, text, n);
	e->text_len += n;
}

const unsigned char *smtp_ehlo_args(const struct smtp_ehlo *e, enum smtp_extension extension, size_t *n)
{
	for (size_t i = 0; i < e->text_len; i += 2 + (size_t)e->text[i + 1]) {
		const unsigned char *text = e->text + i + 2;
		size_t word = strlen(keywords[e->text[i]].name);

		if (!(e->extensions & keywords[e->text[i]].extension & extension))
			continue;
		*n = e->text[i + 1] - word;
		text += word;
		smtp_trim(&text, n);
		return text;
	}
	return NULL;
}

uint64_t smtp_lower_size(uint64_t a, uint64_t b)
{
	return a && (!b || a < b) ? a : b;
}

static bool shows(enum ehlo_rule rule, const struct smtp_offer *offer)
{
	switch (rule) {
	case KEEP:
	case WITH_LIMIT:
		return true;
	case DROP:
		return false;
	case IF_AUTH:
		return offer->auth;
	case IF_VERIFIED:
		return offer->requiretls;
	case IF_MANY:
		return !offer->single;
	}
	return false;
}

/* A stored line has two octets beside its text, a written one six, and a text has four octets at least. The rest is for the
 * first line, the last ones, and a number after SIZE. */
size_t smtp_ehlo_bound(const struct smtp_ehlo *e)
{
	return e->domain_len + 2 * e->text_len + 96;
}

static unsigned char *put_offer(unsigned char *at, unsigned char *end, const char *text)
{
	return at + smtp_reply_write(250, false, (const unsigned char *)text, strlen(text), at, (size_t)(end - at));
}

/* The server's order, behind it LIMITS, STARTTLS and REQUIRETLS of our own, and PIPELINING, which our queue provides for every client. */
size_t smtp_ehlo_write(const struct smtp_ehlo *e, const struct smtp_offer *offer, unsigned char *out, size_t cap)
{
	unsigned char *at = out, *end = out + cap, *last, size[32];
	size_t len, text_len;
	bool pipelining = false;

	if (cap < smtp_ehlo_bound(e))
		return 0;
	last = at;
	at += smtp_reply_write(250, false, e->domain, e->domain_len, at, cap);
	for (size_t i = 0; i < e->text_len; i += 2 + len) {
		const unsigned char *text = e->text + i + 2;
		enum ehlo_rule rule = (enum ehlo_rule)keywords[e->text[i]].rule;

		text_len = len = e->text[i + 1];
		if (!shows(rule, offer))
			continue;
		if (rule == WITH_LIMIT && smtp_lower_size(e->size, offer->size_limit)) {
			memcpy(size, "SIZE ", 5);
			text_len = 5 + put_number(size + 5, smtp_lower_size(e->size, offer->size_limit));
			text = size;
		}
		pipelining = pipelining || (keywords[e->text[i]].extension & SMTP_EXT_PIPELINING);
		last = at;
		at += smtp_reply_write(250, false, text, text_len, at, (size_t)(end - at));
	}
	if (offer->single)
		at = put_offer(last = at, end, "LIMITS RCPTMAX=1");
	if (offer->starttls)
		at = put_offer(last = at, end, "STARTTLS");
	if (offer->requires_later && !(offer->requiretls && e->extensions & SMTP_EXT_REQUIRETLS))
		at = put_offer(last = at, end, "REQUIRETLS");
	if (!pipelining)
		at = put_offer(last = at, end, "PIPELINING");
	last[3] = ' ';
	return (size_t)(at - out);
}

/* ---- DATA ---- */

/* Index of the first CR or LF, n if there is none. Looks at eight octets at a time, or sixteen where the processor certainly
 * has the instructions. The classic "has a zero byte" test, on the word xored with CR and with LF, errs only beyond a true hit,
 * and the byte loop finds the place. */
static size_t find_cr_lf(const unsigned char *in, size_t n)
{
	size_t i = 0;
#ifdef __SSE2__
	const __m128i crs = _mm_set1_epi8('\r'), lfs = _mm_set1_epi8('\n');

	for (; n - i >= 16; i += 16) {
		__m128i block = _mm_loadu_si128((const __m128i *)(const void *)(in + i));
		int hits = _mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(block, crs), _mm_cmpeq_epi8(block, lfs)));

		if (hits)
			return i + (size_t)__builtin_ctz((unsigned)hits);
	}
#else
	const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;

	for (; n - i >= 8; i += 8) {
		uint64_t word, cr, lf;

		memcpy(&word, in + i, 8);
		cr = word ^ ones * '\r';
		lf = word ^ ones * '\n';
		if ((((cr - ones) & ~cr) | ((lf - ones) & ~lf)) & highs)
			break;
	}
#endif
	while (i < n && in[i] != '\r' && in[i] != '\n')
		i++;
	return i;
}

/* Octets of whole lines at the start that can be sent on as they are: nearly all of a usual message. */
static size_t plain_lines(const struct smtp_scanner *s, const unsigned char *in, size_t n)
{
	size_t done = 0, len;

	if (s->at != SMTP_AT_CRLF)
		return 0;
	while (done < n && in[done] != '.' && in[done] != 0) {
		len = find_cr_lf(in + done, n - done);
		if (n - done - len < 2 || in[done + len] != '\r' || in[done + len + 1] != '\n')
			break;
		done += len + 2;
	}
	return done;
}

/* What the scanner found at a byte; MORE: it must see more bytes. */
enum found { PLAIN, MORE, DOT_LINE, FIXED };

static enum found fix(struct smtp_piece *piece, const char *bytes)
{
	piece->bytes = (const unsigned char *)bytes;
	piece->len = strlen(bytes);
	return FIXED;
}

/* Send on a line that begins with a dot as `stuffed`, whose first dot is transparency, RFC 5321 4.5.2. */
static enum found fix_dot(struct smtp_scanner *s, struct smtp_piece *piece, const char *stuffed)
{
	if (s->unstuff)
		return fix(piece, stuffed + 1);
	s->content--;
	return fix(piece, stuffed);
}

/* in[0] is at the start of a line as the client sees lines. *used: octets that FIXED, DOT_LINE or PLAIN take. A lone dot before
 * anything but CR LF must not look like the end of data to any server: it keeps its dot and is stuffed. */
static enum found line_start(struct smtp_scanner *s, const unsigned char *in, size_t n, size_t *used,
    struct smtp_piece *piece)
{
	bool pass = s->newline == SMTP_NL_PASS;

	*used = 1;
	if (in[0] != '.' || s->plain) {
		s->at = in[0] ? SMTP_IN_LINE : SMTP_IN_NULS;
		*used = in[0] ? 0 : 1;
		return PLAIN;
	}
	if (n < 2 || (in[1] == '\r' && n < 3))
		return MORE;
	if (in[1] == '\r' && in[2] == '\n') {
		*used = 3;
		return DOT_LINE;
	}
	s->at = SMTP_IN_LINE;
	if (pass || (in[1] != '\n' && in[1] != 0)) {
		if (s->unstuff)
			return fix(piece, "");
		s->content--; /* the client has stuffed this dot */
		return PLAIN;
	}
	s->broken = true;
	*used = 2;
	if (in[1] == 0)
		return fix_dot(s, piece, ". ");
	s->at = SMTP_AT_BARE;
	return fix_dot(s, piece, "..\r\n");
}

/* in[0] is a CR or LF inside a line. */
static enum found line_end(struct smtp_scanner *s, const unsigned char *in, size_t n, size_t *used,
    struct smtp_piece *piece)
{
	*used = 1;
	if (in[0] == '\r') {
		if (n < 2)
			return MORE;
		if (in[1] == '\n') {
			*used = 2;
			s->at = SMTP_AT_CRLF;
			return PLAIN;
		}
	}
	if (s->newline == SMTP_NL_PASS)
		return PLAIN;
	s->broken = true;
	if (in[0] == '\r') {
		s->at = SMTP_IN_LINE;
		return fix(piece, " ");
	}
	s->at = SMTP_AT_BARE;
	return fix(piece, "\r\n");
}

static enum found look_at(struct smtp_scanner *s, const unsigned char *in, size_t n, size_t *used,
    struct smtp_piece *piece)
{
	switch (s->at) {
	case SMTP_AT_CRLF:
		return line_start(s, in, n, used, piece);
	case SMTP_AT_BARE: /* to the client this is no start of a line, so it has stuffed no dot */
		s->at = SMTP_IN_LINE;
		*used = in[0] == '.' ? 1 : 0;
		if (in[0] == '.')
			return fix_dot(s, piece, "..");
		if (in[0] == 0) {
			s->at = SMTP_IN_NULS;
			*used = 1;
		}
		return PLAIN;
	case SMTP_IN_NULS: /* to a server that drops NULs a dot here is at the start of the line */
		if (in[0] == 0 || (in[0] == '.' && s->newline == SMTP_NL_PASS)) {
			*used = 1;
			return PLAIN;
		}
		s->at = SMTP_IN_LINE;
		*used = in[0] == '.' ? 1 : 0;
		if (in[0] != '.')
			return PLAIN;
		s->broken = true;
		return fix(piece, " .");
	case SMTP_IN_LINE:
		*used = find_cr_lf(in, n);
		return *used ? PLAIN : line_end(s, in, n, used, piece);
	}
	return PLAIN;
}

bool smtp_scan(struct smtp_scanner *s, const unsigned char *in, size_t n, size_t *used, struct smtp_piece *piece)
{
	size_t run = 0, step = 0;
	enum found found = MORE;

	piece->end = false;
	while (run < n) {
		struct smtp_scanner before;

		step = plain_lines(s, in + run, n - run);
		s->content += step;
		run += step;
		if (run == n) {
			found = MORE;
			break;
		}
		before = *s;
		found = look_at(s, in + run, n - run, &step, piece);
		if (found == PLAIN) {
			s->content += step;
			run += step;
			continue;
		}
		if (found == FIXED && run) /* first the plain bytes; the next call looks here again */
			*s = before;
		break;
	}
	*used = run;
	if (found == DOT_LINE) {
		*used = run + step;
		run += s->unstuff ? 0 : step;
		piece->end = true;
	} else if (found == FIXED && !run) {
		*used = step;
		s->content += piece->len;
		return true;
	}
	piece->bytes = in;
	piece->len = run;
	return run > 0 || piece->end;
}

/* Index of the next LF before a dot, n if there is none. */
static size_t find_lf_dot(const unsigned char *in, size_t i, size_t n)
{
#ifdef __SSE2__
	const __m128i lfs = _mm_set1_epi8('\n'), dots = _mm_set1_epi8('.');

	for (; n - i > 16; i += 16) {
		__m128i at = _mm_loadu_si128((const __m128i *)(const void *)(in + i));
		__m128i behind = _mm_loadu_si128((const __m128i *)(const void *)(in + i + 1));
		int hits = _mm_movemask_epi8(_mm_and_si128(_mm_cmpeq_epi8(at, lfs), _mm_cmpeq_epi8(behind, dots)));

		if (hits)
			return i + (size_t)__builtin_ctz((unsigned)hits);
	}
#endif
	for (; n - i > 1; i++)
		if (in[i] == '\n' && in[i + 1] == '.')
			return i;
	return n;
}

size_t smtp_dot_free(const unsigned char *in, size_t n)
{
	size_t lf = 0;

	while (lf < n && (lf = find_lf_dot(in, lf, n)) < n) {
		if (lf && in[lf - 1] == '\r')
			return lf + 1;
		lf++;
	}
	/* Keep a CR with its LF: after a lone LF the next run would not see a line begin. */
	return n > 1 && in[n - 1] == '\r' ? n - 1 : n;
}

bool smtp_is_seven_bit(const unsigned char *in, size_t n)
{
	unsigned char all = 0;

	for (size_t i = 0; i < n; i++)
		all |= in[i];
	return all < 0x80;
}

void smtp_header_scan(struct smtp_header *h, const unsigned char *in, size_t n)
{
	static const char name[] = "message-id:";

	for (size_t i = 0; i < n && h->state != SMTP_HD_DONE; i++) {
		unsigned char c = in[i];

		switch (h->state) {
		case SMTP_HD_NAME:
			if (h->matched == 0 && (c == '\r' || c == '\n'))
				h->state = SMTP_HD_DONE; /* the empty line */
			else if (c == '\n')
				h->matched = 0;
			else if (name[h->matched] == ':' && smtp_is_blank(c)) /* RFC 5322 4.5.8 */
				break;
			else if (smtp_lower(c) != (unsigned char)name[h->matched])
				h->state = SMTP_HD_SKIP;
			else if (!name[++h->matched])
				h->state = SMTP_HD_VALUE;
			break;
		case SMTP_HD_SKIP:
			if (c == '\n') {
				h->state = SMTP_HD_NAME;
				h->matched = 0;
			}
			break;
		case SMTP_HD_VALUE:
			if (c == '\n')
				h->state = SMTP_HD_AFTER;
			else if (!is_control(c) && !smtp_is_blank(c) && h->id_len < sizeof h->id)
				h->id[h->id_len++] = c;
			break;
		case SMTP_HD_AFTER: /* a folded line? RFC 5322 2.2.3 */
			h->state = smtp_is_blank(c) ? SMTP_HD_VALUE : SMTP_HD_DONE;
			break;
		case SMTP_HD_DONE:
			break;
		}
	}
}
