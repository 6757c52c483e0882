/* Extended regular expressions. See ere.h for the contract. Steps are addressed relative to themselves, so that a part of the
 * compiled expression can be moved and copied: that is how operators after an atom, and repetitions, work. */
#include "pure/ere.h"

#include <ctype.h>
#include <string.h>

#define REPEAT_MAX 255 /* RE_DUP_MAX */
#define DEPTH_MAX 200  /* of recursion: groups and alternatives */

enum { STEP_OCTET, STEP_ANY, STEP_SET, STEP_BEGIN, STEP_END, STEP_JUMP, STEP_FORK, STEP_MATCH };

struct parser {
	struct ere *e;
	const char *at;
	const char *why; /* NULL: no fault so far */
	unsigned depth;
};

static void reject(struct parser *p, const char *why)
{
	if (!p->why)
		p->why = why;
}

static void emit(struct parser *p, int op, unsigned char octet, int a, int b)
{
	if (p->e->steps == ERE_STEPS) {
		reject(p, "is too long");
		return;
	}
	p->e->step[p->e->steps++] = (struct ere_step){ (unsigned char)op, octet, (int16_t)a, (int16_t)b };
}

/* Insert a step at `at`. What is there moves by one; no step before it leads there. */
static void insert_step(struct parser *p, unsigned at, int op, int a, int b)
{
	struct ere *e = p->e;

	emit(p, STEP_JUMP, 0, 0, 0);
	if (p->why)
		return;
	memmove(e->step + at + 1, e->step + at, (e->steps - 1 - at) * sizeof *e->step);
	e->step[at] = (struct ere_step){ (unsigned char)op, 0, (int16_t)a, (int16_t)b };
}

/* ---- bracket expressions ---- */

static void add_octet(unsigned char *set, unsigned c)
{
	unsigned other = c < 128 && isupper((int)c) ? c + 32 : c < 128 && islower((int)c) ? c - 32 : c;

	set[c / 8] |= (unsigned char)(1u << c % 8);
	set[other / 8] |= (unsigned char)(1u << other % 8);
}

static bool has(const unsigned char *set, unsigned char c)
{
	return set[c / 8] & 1u << c % 8;
}

/* A class such as "[:alpha:]"; p->at is after its "[:". */
static void add_class(struct parser *p, unsigned char *set)
{
	static const struct {
		char name[8];
		int (*has)(int);
	} classes[] = { { "alpha:", isalpha }, { "digit:", isdigit }, { "alnum:", isalnum }, { "upper:", isupper },
		{ "lower:", islower }, { "space:", isspace }, { "blank:", isblank }, { "punct:", ispunct },
		{ "print:", isprint }, { "graph:", isgraph }, { "cntrl:", iscntrl }, { "xdigit:", isxdigit } };

	for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
		size_t n = strlen(classes[i].name);

		if (strncmp(p->at, classes[i].name, n) != 0 || p->at[n] != ']')
			continue;
		p->at += n + 1;
		for (unsigned c = 0; c < 128; c++)
			if (classes[i].has((int)c))
				add_octet(set, c);
		return;
	}
	reject(p, "has an unknown [:class:]");
}

/* One octet, or a range. */
static void add_range(struct parser *p, unsigned char *set)
{
	unsigned char first = (unsigned char)*p->at++, last = first;

	if (p->at[0] == '-' && p->at[1] && p->at[1] != ']') {
		last = (unsigned char)p->at[1];
		p->at += 2;
	}
	if (last < first)
		reject(p, "has a range in brackets that ends before it begins");
	for (unsigned c = first; c <= last; c++)
		add_octet(set, c);
}

static void parse_bracket(struct parser *p)
{
	struct ere *e = p->e;
	unsigned char *set = e->set[e->sets];
	bool not = *p->at == '^', first = true;

	if (e->sets == ERE_SETS) {
		reject(p, "has too many [brackets]");
		return;
	}
	memset(set, 0, sizeof e->set[0]);
	for (p->at += not; !p->why && *p->at && (first || *p->at != ']'); first = false) {
		if (p->at[0] == '[' && p->at[1] == ':') {
			p->at += 2;
			add_class(p, set);
		} else if (p->at[0] == '[' && (p->at[1] == '.' || p->at[1] == '=')) {
			reject(p, "has [.collating.] or [=equivalent=] symbols, which are not known here");
		} else {
			add_range(p, set);
		}
	}
	if (*p->at != ']')
		reject(p, "has a [ without its ]");
	p->at += *p->at == ']';
	for (unsigned i = 0; not && i < sizeof e->set[0]; i++)
		set[i] = (unsigned char)~set[i];
	emit(p, STEP_SET, 0, (int)e->sets++, 0);
}

/* ---- the rest of the grammar ---- */

static void parse_alternatives(struct parser *p);

static void parse_group(struct parser *p)
{
	parse_alternatives(p);
	if (*p->at != ')')
		reject(p, "has a ( without its )");
	p->at += *p->at == ')';
}

static void parse_atom(struct parser *p)
{
	unsigned char c = (unsigned char)*p->at++;

	switch (c) {
	case '(':
		parse_group(p);
		return;
	case '[':
		parse_bracket(p);
		return;
	case '.':
		emit(p, STEP_ANY, 0, 0, 0);
		return;
	case '^':
		emit(p, STEP_BEGIN, 0, 0, 0);
		return;
	case '$':
		emit(p, STEP_END, 0, 0, 0);
		return;
	case '*':
	case '+':
	case '?':
	case '{':
		reject(p, "has nothing to repeat before * + ? or {");
		return;
	case '\\':
		c = (unsigned char)*p->at;
		if (!c || isalnum(c) || c >= 128)
			reject(p, "has a \\ that is not before a sign such as . or @");
		p->at += c != 0;
	}
	emit(p, STEP_OCTET, (unsigned char)tolower(c), 0, 0);
}

static unsigned parse_count(struct parser *p)
{
	unsigned n = 0;

	if (!isdigit((unsigned char)*p->at))
		reject(p, "has no number in {}");
	while (isdigit((unsigned char)*p->at) && n <= REPEAT_MAX)
		n = n * 10 + (unsigned)(*p->at++ - '0');
	if (n > REPEAT_MAX)
		reject(p, "has a number above 255 in {}");
	return n;
}

/* Copy the atom of len steps at `start` to the end. */
static void copy(struct parser *p, unsigned start, unsigned len)
{
	for (unsigned i = 0; i < len && !p->why; i++) {
		struct ere_step s = p->e->step[start + i];

		emit(p, s.op, s.octet, s.a, s.b);
	}
}

static void star(struct parser *p, unsigned start)
{
	int len = (int)(p->e->steps - start);

	insert_step(p, start, STEP_FORK, 1, len + 2);
	emit(p, STEP_JUMP, 0, -len - 1, 0);
}

static void optional(struct parser *p, unsigned start)
{
	insert_step(p, start, STEP_FORK, 1, (int)(p->e->steps - start) + 1);
}

static void plus(struct parser *p, unsigned start)
{
	emit(p, STEP_FORK, 0, (int)start - (int)p->e->steps, 1);
}

/* Apply "{m}", "{m,}" or "{m,n}" to the atom from `start` on: m copies of it, then "*" or optional ones. */
static void repeat(struct parser *p, unsigned start)
{
	unsigned len = p->e->steps - start, least = parse_count(p), most = least;
	bool endless = false;

	if (*p->at == ',' && *++p->at == '}')
		endless = true;
	else if (p->at[-1] == ',')
		most = parse_count(p);
	if (*p->at != '}' || most < least)
		reject(p, "has a {} that is not {m}, {m,} or {m,n}");
	p->at += *p->at == '}';
	for (unsigned i = 1; i < least && !p->why; i++)
		copy(p, start, len);
	for (unsigned i = least; i < most && !p->why; i++) { /* the atom itself is the first copy, unless m counts it */
		unsigned from = p->e->steps;

		if (i == 0)
			continue;
		copy(p, start, len);
		optional(p, from);
	}
	if (endless && least) {
		unsigned from = p->e->steps;

		copy(p, start, len);
		star(p, from);
	} else if (endless) {
		star(p, start);
	} else if (!least && most) {
		optional(p, start);
	} else if (!most) {
		p->e->steps = start;
	}
}

static void parse_piece(struct parser *p)
{
	unsigned start = p->e->steps;

	parse_atom(p);
	while (!p->why && *p->at && strchr("*+?{", *p->at)) {
		char c = *p->at++;

		if (c == '*')
			star(p, start);
		else if (c == '+')
			plus(p, start);
		else if (c == '?')
			optional(p, start);
		else
			repeat(p, start);
	}
}

/* Parse alternatives up to a ")" or the end: each but the last becomes FORK alternative JUMP. */
static void parse_some(struct parser *p)
{
	unsigned start = p->e->steps, jump;

	while (!p->why && *p->at && *p->at != '|' && *p->at != ')')
		parse_piece(p);
	if (*p->at != '|' || p->why)
		return;
	p->at++;
	insert_step(p, start, STEP_FORK, 1, (int)(p->e->steps - start) + 2);
	jump = p->e->steps;
	emit(p, STEP_JUMP, 0, 0, 0);
	parse_alternatives(p);
	if (!p->why)
		p->e->step[jump].a = (int16_t)(p->e->steps - jump);
}

static void parse_alternatives(struct parser *p)
{
	if (p->depth == DEPTH_MAX)
		reject(p, "has too many alternatives or groups");
	if (p->why)
		return;
	p->depth++;
	parse_some(p);
	p->depth--;
}

const char *ere_compile(struct ere *e, const char *text)
{
	struct parser p = { .e = e, .at = text };

	e->steps = e->sets = 0;
	parse_alternatives(&p);
	if (*p.at)
		reject(&p, "has a ) without its (");
	emit(&p, STEP_MATCH, 0, 0, 0);
	return p.why;
}

/* ---- matching ---- */

/* The steps that can be reached at one place of the text. */
struct reached {
	unsigned count;
	uint16_t list[ERE_STEPS];
	unsigned char seen[(ERE_STEPS + 7) / 8];
};

static void reach(struct reached *r, unsigned step)
{
	if (r->seen[step / 8] & 1u << step % 8)
		return;
	r->seen[step / 8] |= (unsigned char)(1u << step % 8);
	r->list[r->count++] = (uint16_t)step;
}

static void forget(struct reached *r)
{
	r->count = 0;
	memset(r->seen, 0, sizeof r->seen);
}

bool ere_match(const struct ere *e, const unsigned char *in, size_t n)
{
	static struct reached both[2];
	struct reached *now = &both[0], *next = &both[1], *swap;

	forget(now);
	for (size_t at = 0;; at++) {
		unsigned char c = at < n ? in[at] : 0;

		forget(next);
		reach(now, 0); /* a match may begin anywhere */
		for (unsigned i = 0; i < now->count; i++) {
			unsigned pc = now->list[i];
			const struct ere_step *s = &e->step[pc];

			switch (s->op) {
			case STEP_MATCH:
				return true;
			case STEP_FORK:
				reach(now, pc + (unsigned)s->b);
				/* fall through */
			case STEP_JUMP:
				reach(now, pc + (unsigned)s->a);
				break;
			case STEP_BEGIN:
				if (at == 0)
					reach(now, pc + 1);
				break;
			case STEP_END:
				if (at == n)
					reach(now, pc + 1);
				break;
			default:
				if (at < n && (s->op == STEP_ANY || (s->op == STEP_OCTET && s->octet == tolower(c)) ||
				    (s->op == STEP_SET && has(e->set[s->a], c))))
					reach(next, pc + 1);
			}
		}
		if (at == n)
			return false;
		swap = now;
		now = next;
		next = swap;
	}
}
