/* Files of variables. See envfile.h for the contract. */
#include "pure/envfile.h"

#include <string.h>

/* What is being read. A line's end is a line feed or a carriage return. */
enum place {
	BEFORE_NAME,
	COMMENT,
	COMMENT_ESCAPE, /* behind a backslash in a comment */
	NAME,
	BEFORE_VALUE, /* behind = or a closing quote */
	VALUE,
	VALUE_ESCAPE,
	SINGLE, /* in '' */
	DOUBLE, /* in "" */
	DOUBLE_ESCAPE
};

struct reader {
	struct envfile *file;
	enum place place;
	char *out; /* where the next octet goes: never ahead of what is read */
	char *name; /* the present assignment */
	unsigned line; /* where it begins */
	size_t blanks; /* at the end of the value, without quotes */
};

static bool is_end(char c)
{
	return c == '\n' || c == '\r';
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || is_end(c);
}

static bool is_name(const char *name, size_t n)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";

	return n && strspn(name, letters) >= n && !(*name >= '0' && *name <= '9');
}

/* The assignment is complete. Returns NULL, or what is wrong. */
static const char *add(struct reader *r)
{
	struct envfile *f = r->file;
	size_t n = strcspn(r->name, "=") + 1, i = 0;

	r->out -= r->blanks;
	r->blanks = 0;
	*r->out++ = 0;
	r->place = BEFORE_NAME;
	while (i < f->count && strncmp(f->variables[i], r->name, n) != 0)
		i++;
	if (i == f->most)
		return "there are too many variables";
	f->variables[i] = r->name;
	if (i == f->count)
		f->variables[++f->count] = NULL;
	return NULL;
}

static void keep(struct reader *r, char c, enum place place)
{
	*r->out++ = c;
	r->place = place;
}

static const char *read_name(struct reader *r, char c)
{
	if (is_end(c))
		return "a line without = is passed over";
	if (c != '=') {
		keep(r, c, NAME);
		return NULL;
	}
	while (r->out > r->name && is_blank(r->out[-1]))
		r->out--;
	if (!is_name(r->name, (size_t)(r->out - r->name)))
		return "what stands before = is no name of a variable, and is passed over";
	keep(r, c, BEFORE_VALUE);
	return NULL;
}

static const char *read_value(struct reader *r, char c)
{
	if (is_end(c))
		return add(r);
	if (c == '\\') {
		r->blanks = 0;
		r->place = VALUE_ESCAPE;
		return NULL;
	}
	r->blanks = is_blank(c) ? r->blanks + 1 : 0;
	keep(r, c, VALUE);
	return NULL;
}

static const char *before_value(struct reader *r, char c)
{
	if (c == '\'' || c == '"')
		r->place = c == '"' ? DOUBLE : SINGLE;
	else if (is_end(c) || !is_blank(c))
		return read_value(r, c);
	return NULL;
}

static void read_double(struct reader *r, char c)
{
	if (r->place == DOUBLE_ESCAPE) {
		if (!strchr("\"\\`$\n", c))
			*r->out++ = '\\';
		if (c == '\n')
			r->place = DOUBLE; /* the line goes on */
		else
			keep(r, c, DOUBLE);
	} else if (c == '"' || c == '\\') {
		r->place = c == '"' ? BEFORE_VALUE : DOUBLE_ESCAPE;
	} else {
		keep(r, c, DOUBLE);
	}
}

static void before_name(struct reader *r, char c)
{
	if (c == '#' || c == ';') {
		r->place = COMMENT;
	} else if (!is_blank(c)) {
		r->name = r->out;
		r->line = r->file->line;
		keep(r, c, NAME);
	}
}

/* Returns NULL, or what is wrong. */
static const char *read_octet(struct reader *r, char c)
{
	switch (r->place) {
	case BEFORE_NAME:
		before_name(r, c);
		break;
	case COMMENT:
		r->place = is_end(c) ? BEFORE_NAME : c == '\\' ? COMMENT_ESCAPE : COMMENT;
		break;
	case COMMENT_ESCAPE:
		if (is_end(c))
			return "behind a comment that ends in \\, systemd before version 254 takes the next line for a comment, too";
		r->place = COMMENT;
		break;
	case NAME:
		return read_name(r, c);
	case BEFORE_VALUE:
		return before_value(r, c);
	case VALUE:
		return read_value(r, c);
	case VALUE_ESCAPE:
		if (is_end(c))
			r->place = VALUE; /* the line goes on */
		else
			keep(r, c, VALUE);
		break;
	case SINGLE:
		if (c == '\'')
			r->place = BEFORE_VALUE;
		else
			keep(r, c, SINGLE);
		break;
	case DOUBLE:
	case DOUBLE_ESCAPE:
		read_double(r, c);
		break;
	}
	return NULL;
}

bool envfile_read(struct envfile *f, char *text, size_t n)
{
	struct reader r = { .file = f, .out = text, .name = text };

	f->count = 0;
	f->line = 1;
	f->why = NULL;
	*f->variables = NULL;
	text[n++] = '\n'; /* the last line may lack its end */
	for (size_t i = 0; i < n && !f->why; i++) {
		char c = text[i]; /* which may be overwritten now */

		f->why = c ? read_octet(&r, c) : "there is a NUL in it";
		f->line += c == '\n' && !f->why;
	}
	if (!f->why && r.place != BEFORE_NAME) {
		f->line = r.line;
		f->why = "the value goes on to the end of the file: a quote or a backslash has no other end";
	}
	return !f->why;
}
