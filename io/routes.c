/* The file of --routes: lines, lookups, the index. See routes.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/routes.h"
#include "io/file.h"
#include "io/readable.h"
#include "pure/idna.h"
#include "smtp.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define WINDOW (16 << 10)
#define ADDRESS_MAX 1024 /* longer patterns are refused, so a longer address matches none */
#define DOMAIN_MAX 255	 /* RFC 1035 2.3.4; a longer name has no parents */
#define KEYS_MAX (DOMAIN_MAX + 10) /* two for each label, and for what is no domain */
#define NO_RANK UINT_MAX

/* ---- a line ---- */

/* Where the field at in ends: at a semicolon outside quotation marks, or at n. n + 1: a quotation mark is not closed. */
static size_t field_end(const unsigned char *in, size_t n)
{
	bool quoted = false;
	size_t i;

	for (i = 0; i < n && (quoted || in[i] != ';'); i++) {
		if (in[i] == '"')
			quoted = !quoted;
		else if (in[i] == '\\' && quoted && i + 1 < n)
			i++;
	}
	return quoted ? n + 1 : i;
}

/* Further fields are ignored, as Willi does. */
static size_t split(unsigned char *line, size_t n, unsigned char *field[3], size_t len[3], const char **why)
{
	size_t fields = 0, skip;

	for (size_t at = 0; at <= n && fields < 3; at += skip + 1) {
		skip = field_end(line + at, n - at);
		if (skip > n - at) {
			*why = "a quotation mark has no other";
			return 0;
		}
		field[fields] = line + at;
		len[fields++] = skip;
	}
	return fields;
}

/* Remove the quotation marks around a field; doubled ones inside become single. */
static size_t unquote(unsigned char *field, size_t n)
{
	size_t len = 0;

	for (size_t i = 1; i + 1 < n; i++) {
		field[len++] = field[i];
		i += field[i] == '"' && field[i + 1] == '"' && i + 2 < n;
	}
	return len;
}

static unsigned char *trimmed(unsigned char *in, size_t *n)
{
	const unsigned char *start = in;

	smtp_trim(&start, n);
	return in + (start - in);
}

/* Make the field a string. */
static unsigned char *finish_field(unsigned char *field, size_t *n)
{
	field = trimmed(field, n);
	if (*n >= 2 && field[0] == '"' && field[*n - 1] == '"') {
		*n = unquote(field, *n);
		field = trimmed(field, n);
	}
	field[*n] = 0;
	return field;
}

static bool is_pattern(const unsigned char *in, size_t n)
{
	bool quoted = false;

	if (!n || n > ADDRESS_MAX || in[0] == '@' || (in[0] == '*' && n > 1))
		return false;
	for (size_t i = 0; i < n; i++) {
		if (in[i] == '"')
			quoted = !quoted;
		else if (in[i] == '\\' && quoted && i + 1 < n)
			i++;
		else if (in[i] < ' ' || in[i] == 0x7f || (in[i] == ' ' && !quoted))
			return false;
	}
	return !quoted;
}

/* Octets of a pattern or address without the dot at the end of its domain, which says the same without it. */
static size_t undotted(const unsigned char *in, size_t n)
{
	return n > 1 && in[n - 1] == '.' && in[n - 2] != '.' && in[n - 2] != '@' ? n - 1 : n;
}

enum routes_kind routes_parse(unsigned char *line, size_t n, struct routes_line *out, const char **why)
{
	static const char mark[] = "\xef\xbb\xbf"; /* the byte order mark that some editors write */
	static unsigned char empty[1];
	unsigned char *field[3] = { empty, empty, empty };
	size_t len[3] = { 0 }, fields, size;

	*out = (struct routes_line){ empty, 0, "", "" };
	n = smtp_without_end(line, n);
	if (n >= sizeof mark - 1 && memcmp(line, mark, sizeof mark - 1) == 0)
		line += sizeof mark - 1, n -= sizeof mark - 1;
	size = n;
	line = trimmed(line, &size);
	if (!size || *line == '#')
		return ROUTES_NOTHING;
	*why = memchr(line, 0, size) ? "it holds a NUL" : NULL;
	fields = *why ? 0 : split(line, size, field, len, why);
	if (!fields)
		return ROUTES_BAD;
	for (size_t i = 0; i < fields; i++)
		field[i] = finish_field(field[i], &len[i]);
	*out = (struct routes_line){ field[0], len[0], (const char *)field[1], (const char *)field[2] };
	if (smtp_is(field[0], len[0], "pattern") && smtp_is(field[1], len[1], "server"))
		return ROUTES_NOTHING;
	if (!is_pattern(field[0], len[0]))
		*why = "its pattern is no address, domain, .domain or *";
	else if (!len[1])
		*why = "it names no server";
	if (*why)
		return ROUTES_BAD;
	out->pattern_len = undotted(field[0], len[0]);
	field[0][out->pattern_len] = 0;
	return ROUTES_LINE;
}

/* ---- the file, line by line ---- */

struct text {
	const char *path;
	int fd;
	struct stat at_open;
	char *why;
	size_t cap;
};

static bool complain(const struct text *t, unsigned line, const char *what)
{
	char number[32] = "";

	if (line)
		snprintf(number, sizeof number, "line %u: ", line);
	snprintf(t->why, t->cap, "%s: %s%s", t->path, number, what);
	return false;
}

static bool open_text(struct text *t, const char *path, char *why, size_t cap)
{
	*t = (struct text){ .path = path, .why = why, .cap = cap };
	t->fd = readable_open(path);
	if (t->fd < 0 || fstat(t->fd, &t->at_open) < 0)
		return complain(t, 0, strerror(errno));
	return S_ISREG(t->at_open.st_mode) || complain(t, 0, "is no regular file");
}

static void close_text(const struct text *t)
{
	if (t->fd >= 0)
		close(t->fd);
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	    a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Complain if the file was written to, not replaced: we may have read half a line. */
static bool unchanged(const struct text *t)
{
	struct stat now;

	return (fstat(t->fd, &now) == 0 && same_file(&now, &t->at_open)) ||
	    complain(t, 0, "was written to while it was read; replace it with mv");
}

/* One buffer to read the file through, one for single lines. Each has a spare octet for routes_parse(). */
static unsigned char window[WINDOW + 1], single[ROUTES_LINE_MAX + 1];

struct walk {
	int fd;
	unsigned char *bytes;
	size_t cap, start, end; /* octets from start to end are yet to be used */
	uint64_t read_to;
	bool ended;
	bool begun, first; /* begun: a line that is no comment was met; first: it is this one */
	uint64_t at;	 /* offset of the line in the file */
	unsigned number; /* number of the line; 0: the fault is not in a line */
	unsigned header; /* number of the line that is_header(); 0: none */
	struct routes_line line;
	const char *why; /* what is wrong; NULL: the end of the file */
};

static struct walk walk_from(int fd, uint64_t at, unsigned char *bytes, size_t cap)
{
	return (struct walk){ .fd = fd, .bytes = bytes, .cap = cap, .read_to = at, .begun = at > 0 };
}

/* Willi skips the first line, whatever it is. We skip it if it is not a route, which the caller knows, nor looks like a
 * misspelt one: its fields have none of the characters that most addresses, domains and servers have. */
static bool is_header(const struct walk *w)
{
	const char *pattern = (const char *)w->line.pattern;

	return w->first && *pattern && !strpbrk(pattern, ".@*") && !strpbrk(w->line.server, ".[");
}

static bool read_more(struct walk *w)
{
	size_t left = w->end - w->start, room = w->cap - left;
	ssize_t n;

	memmove(w->bytes, w->bytes + w->start, left);
	n = pread(w->fd, w->bytes + left, room, (off_t)w->read_to);
	if (n < 0) {
		w->why = strerror(errno);
		w->number = 0;
		return false;
	}
	w->ended = (size_t)n < room;
	w->start = 0;
	w->end = left + (size_t)n;
	w->read_to += (uint64_t)n;
	return true;
}

/* The next line as octets; n includes its end. */
static bool next_octets(struct walk *w, unsigned char **line, size_t *n)
{
	const unsigned char *newline;

	for (;;) {
		*line = w->bytes + w->start;
		*n = w->end - w->start;
		newline = memchr(*line, '\n', *n);
		if (newline)
			*n = (size_t)(newline - *line) + 1;
		if (*n > ROUTES_LINE_MAX || (*n == ROUTES_LINE_MAX && !newline)) {
			w->number++;
			w->why = "it is too long";
			return false;
		}
		if (newline || (w->ended && *n))
			break;
		if (w->ended || !read_more(w))
			return false;
	}
	w->number++;
	w->at = w->read_to - (w->end - w->start);
	w->start += *n;
	return true;
}

/* The next line that is a route. */
static bool walk_next(struct walk *w)
{
	enum routes_kind kind;
	unsigned char *line;
	size_t n;

	do {
		if (!next_octets(w, &line, &n))
			return false;
		kind = routes_parse(line, n, &w->line, &w->why);
		w->first = !w->begun;
		w->begun = w->begun || kind != ROUTES_NOTHING || w->line.pattern_len;
		if (kind == ROUTES_BAD && is_header(w)) {
			kind = ROUTES_NOTHING;
			w->header = w->number;
			w->why = NULL;
		}
	} while (kind == ROUTES_NOTHING);
	return kind == ROUTES_LINE;
}

static bool line_at(struct walk *w, int fd, uint64_t at)
{
	*w = walk_from(fd, at, single, sizeof single - 1);
	return walk_next(w) && w->at == at;
}

/* ---- what is looked for ---- */

struct key {
	const unsigned char *bytes;
	size_t len, local; /* local: octets whose case should match, but need not */
};

struct keys {
	unsigned count;
	uint64_t lengths; /* bits: lengths of the keys, modulo 64 */
	struct key key[KEYS_MAX];
	unsigned char base[2][ADDRESS_MAX];
	unsigned char ascii[ADDRESS_MAX];
};

static struct keys keys;

/* Octets before the @ of an address; n if there is none. */
static size_t local_length(const unsigned char *address, size_t n)
{
	for (size_t i = n; i && address[i - 1] != '"'; i--)
		if (address[i - 1] == '@')
			return i - 1;
	return n;
}

static void add_key(const unsigned char *bytes, size_t n, size_t local)
{
	keys.key[keys.count++] = (struct key){ bytes, n, local };
	keys.lengths |= UINT64_C(1) << n % 64;
}

/* Add "bob@x" for "bob+news@x". A quoted local part has no extension. */
static void add_base(const unsigned char *address, size_t n, size_t local, const char *delimiters, unsigned char *base)
{
	size_t at = 1;

	while (n && at < local && !(address[at] && strchr(delimiters, address[at])))
		at++;
	if (!n || at >= local || address[0] == '"')
		return;
	memcpy(base, address, at);
	memcpy(base + at, address + local, n - local);
	add_key(base, at + n - local, at);
}

/* Where the part of a name begins that has one label less; n: there is none. */
static size_t parent(const unsigned char *name, size_t n, size_t at)
{
	for (size_t i = at + 1; i < n && name[0] != '['; i++)
		if (name[i] == '.' && name[i - 1] != '.') /* no empty labels, so KEYS_MAX suffices */
			return i;
	return n;
}

/* A domain and those above it, each as it is and in ASCII, which has as many labels; ascii_len 0: it is in ASCII, or cannot be. */
static void add_domain(const unsigned char *domain, size_t n, const unsigned char *ascii, size_t ascii_len)
{
	size_t at = 0, ascii_at = 0;

	if (n > DOMAIN_MAX)
		n = 0;
	while (at < n || ascii_at < ascii_len) {
		if (at < n)
			add_key(domain + at, n - at, 0);
		if (ascii_at < ascii_len)
			add_key(ascii + ascii_at, ascii_len - ascii_at, 0);
		at = parent(domain, n, at);
		ascii_at = parent(ascii, ascii_len, ascii_at);
	}
}

/* Put the address with its domain in ASCII into keys.ascii. Returns octets; 0: it is in ASCII, or cannot be. */
static size_t make_ascii(const unsigned char *address, size_t n, size_t local)
{
	char domain[DNS_NAME_MAX + 1];
	size_t len = 0, at = local + 1;

	while (at < n && address[at] < 0x80)
		at++;
	if (at < n && n <= ADDRESS_MAX)
		len = idna_ascii(address + local + 1, n - local - 1, domain);
	if (!len || local + 1 + len > ADDRESS_MAX)
		return 0;
	memcpy(keys.ascii, address, local + 1);
	memcpy(keys.ascii + local + 1, domain, len);
	return local + 1 + len;
}

static void make_keys(const unsigned char *address, size_t n, const char *delimiters)
{
	size_t local, whole, ascii;

	n = undotted(address, n);
	local = local_length(address, n);
	ascii = make_ascii(address, n, local);
	whole = n <= ADDRESS_MAX ? n : 0;
	keys.count = 0;
	keys.lengths = 0;
	if (whole)
		add_key(address, n, local < n ? local : 0);
	if (ascii)
		add_key(keys.ascii, ascii, local);
	add_base(address, whole, local, delimiters, keys.base[0]);
	add_base(keys.ascii, ascii, local, delimiters, keys.base[1]);
	if (local < n)
		add_domain(address + local + 1, n - local - 1, keys.ascii + local + 1, ascii ? ascii - local - 1 : 0);
	add_key((const unsigned char *)"*", 1, 0);
}

/* How well the pattern matches key i: the lowest rank is best, NO_RANK is no match. */
static unsigned rank_of_line(unsigned i, const struct routes_line *l)
{
	const struct key *k = &keys.key[i];

	if (k->len != l->pattern_len || !smtp_same(k->bytes, l->pattern, k->len))
		return NO_RANK;
	return 2 * i + (memcmp(k->bytes, l->pattern, k->local) != 0);
}

struct match {
	unsigned rank, number;
	uint64_t at;
};

static void consider(struct match *best, unsigned i, const struct walk *w)
{
	unsigned rank = rank_of_line(i, &w->line);

	if (rank < best->rank || (rank == best->rank && rank != NO_RANK && w->at > best->at))
		*best = (struct match){ rank, w->number, w->at };
}

static bool scan(const struct text *t, struct match *best)
{
	struct walk w = walk_from(t->fd, 0, window, WINDOW);

	while (walk_next(&w))
		if (keys.lengths >> w.line.pattern_len % 64 & 1)
			for (unsigned i = 0; i < keys.count; i++)
				consider(best, i, &w);
	return !w.why || complain(t, w.number, w.why);
}

/* ---- the index ---- */

static const char MAGIC[16] = "smtpwarp route3";

/* The start of an index. `order` shows whether this kind of machine wrote it. */
struct index_head {
	char magic[16];
	uint64_t order, inode, size, seconds, nanoseconds;
	uint64_t slots; /* a power of two */
};

/* Then slots, searched by open addressing. All zero: empty. */
struct slot {
	uint32_t hash;
	uint32_t after; /* the offset of a line, plus 1 */
};

#define ORDER UINT64_C(0x0102030405060708)
#define SLOTS_READ 16 /* slots read at a time */

static int shared_index = -1;

static struct index_head head_for(const struct stat *text, uint64_t slots)
{
	struct index_head h = {
		.order = ORDER,
		.inode = text->st_ino,
		.size = (uint64_t)text->st_size,
		.seconds = (uint64_t)text->st_mtim.tv_sec,
		.nanoseconds = (uint64_t)text->st_mtim.tv_nsec,
		.slots = slots,
	};

	memcpy(h.magic, MAGIC, sizeof h.magic);
	return h;
}

/* Hash of a pattern in lower case (FNV-1a), the same for every kind of key. */
static uint32_t hash_of(const unsigned char *in, size_t n)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < n; i++)
		h = (h ^ smtp_lower(in[i])) * 16777619u;
	return h ^ h >> 15;
}

/* Number of slots if the index fits the file, else 0. */
static uint64_t slots_of(int fd, const struct stat *text)
{
	struct index_head h, wanted;
	struct stat st;

	if (fd < 0 || pread(fd, &h, sizeof h, 0) != sizeof h)
		return 0;
	wanted = head_for(text, h.slots);
	if (memcmp(&h, &wanted, sizeof h) != 0 || !h.slots || h.slots & (h.slots - 1) || fstat(fd, &st) < 0 ||
	    h.slots > UINT32_MAX || (uint64_t)st.st_size != sizeof h + h.slots * sizeof(struct slot))
		return 0;
	return h.slots;
}

static bool index_name(char *name, size_t cap, const char *path, const char *suffix)
{
	return snprintf(name, cap, "%s.index%s", path, suffix) < (int)cap;
}

/* Find an index that fits the file: the listener's, or the one beside the file. Returns its slots; give *fd to leave_index(). */
static uint64_t find_index(const char *path, const struct stat *text, int *fd)
{
	char name[PATH_MAX];
	uint64_t slots;

	*fd = shared_index;
	slots = slots_of(*fd, text);
	if (slots || !index_name(name, sizeof name, path, ""))
		return slots;
	*fd = readable_open(name);
	return slots_of(*fd, text);
}

static void leave_index(int fd)
{
	if (fd >= 0 && fd != shared_index)
		close(fd);
}

static bool read_slots(int index, uint64_t slots, uint64_t from, struct slot *out, size_t *n)
{
	*n = slots - from < SLOTS_READ ? (size_t)(slots - from) : SLOTS_READ;
	return pread(index, out, *n * sizeof *out, (off_t)(sizeof(struct index_head) + from * sizeof *out)) ==
	    (ssize_t)(*n * sizeof *out);
}

/* Consider the lines that have this key's hash. false: the index is corrupt. */
static bool look_up(const struct text *t, int index, uint64_t slots, unsigned i, struct match *best)
{
	uint32_t hash = hash_of(keys.key[i].bytes, keys.key[i].len);
	uint64_t from = hash & (slots - 1), seen = 0;
	struct slot slot[SLOTS_READ];
	struct walk w;
	size_t n;

	for (; seen < slots; seen += n, from = (from + n) & (slots - 1)) {
		if (!read_slots(index, slots, from, slot, &n))
			return false;
		for (size_t k = 0; k < n; k++) {
			if (!slot[k].after)
				return true;
			if (slot[k].hash != hash)
				continue;
			if (!line_at(&w, t->fd, slot[k].after - 1))
				return false;
			w.number = 0;
			consider(best, i, &w);
		}
	}
	return false;
}

static bool look_up_all(const struct text *t, int index, uint64_t slots, struct match *best)
{
	for (unsigned i = 0; i < keys.count && best->rank == NO_RANK; i++)
		if (!look_up(t, index, slots, i, best))
			return false;
	return true;
}

void routes_use_index(int fd)
{
	if (shared_index >= 0)
		close(shared_index);
	shared_index = file_seal(fd) ? fd : -1; /* every session has it: none may write to it */
	if (shared_index < 0)
		close(fd);
}

bool routes_wants_index(const char *path)
{
	static struct stat asked;
	struct stat now;
	bool wants;
	int fd;

	if (stat(path, &now) < 0 || !S_ISREG(now.st_mode) || now.st_size <= ROUTES_SMALL || same_file(&now, &asked))
		return false;
	asked = now;
	wants = !find_index(path, &now, &fd);
	leave_index(fd);
	return wants;
}

/* ---- a lookup ---- */

static enum routes_result judge_match(const struct text *t, const struct match *best, routes_judge *judge, void *arg)
{
	const char *fault;
	struct walk w;

	if (best->rank == NO_RANK)
		return ROUTES_NONE;
	fault = line_at(&w, t->fd, best->at) ? judge(&w.line, arg) : "it is not there any more";
	return !fault || complain(t, best->number, fault) ? ROUTES_FOUND : ROUTES_FAILED;
}

static enum routes_result find_by_scan(const struct text *t, routes_judge *judge, void *arg)
{
	struct match best = { .rank = NO_RANK };

	return scan(t, &best) ? judge_match(t, &best, judge, arg) : ROUTES_FAILED;
}

/* An index exists only for a file without faults; if something looks wrong, a scan finds out what. */
static enum routes_result find_in(const struct text *t, routes_judge *judge, void *arg)
{
	struct match best = { .rank = NO_RANK };
	enum routes_result result = ROUTES_FAILED;
	uint64_t slots;
	int index;

	if (t->at_open.st_size <= ROUTES_SMALL)
		return find_by_scan(t, judge, arg);
	slots = find_index(t->path, &t->at_open, &index);
	if (slots && look_up_all(t, index, slots, &best))
		result = judge_match(t, &best, judge, arg);
	leave_index(index);
	return result == ROUTES_FAILED ? find_by_scan(t, judge, arg) : result;
}

enum routes_result routes_find(const char *path, const unsigned char *address, size_t n, const char *delimiters,
    routes_judge *judge, void *arg, char *why, size_t cap)
{
	enum routes_result result = ROUTES_FAILED;
	struct text t;

	if (open_text(&t, path, why, cap)) {
		make_keys(address, n, delimiters);
		result = find_in(&t, judge, arg);
		if (!unchanged(&t))
			result = ROUTES_FAILED;
	}
	close_text(&t);
	return result;
}

/* ---- making an index ---- */

/* Check every line, and count them. */
static bool check_lines(const struct text *t, routes_judge *judge, void *arg, uint64_t *lines)
{
	struct walk w = walk_from(t->fd, 0, window, WINDOW);
	const char *fault;

	for (*lines = 0; walk_next(&w); ++*lines) {
		fault = judge(&w.line, arg);
		if (fault && !is_header(&w))
			return complain(t, w.number, fault);
		if (fault)
			w.header = w.number;
	}
	if (!w.why && w.header)
		complain(t, w.header, "it is no route, and taken for a header");
	return !w.why || complain(t, w.number, w.why);
}

/* Whether two lines have the same pattern, so that the second replaces the first. */
static bool same_pattern(const struct routes_line *a, const struct routes_line *b)
{
	size_t local = local_length(a->pattern, a->pattern_len);

	return a->pattern_len == b->pattern_len && smtp_same(a->pattern, b->pattern, a->pattern_len) &&
	    (local == a->pattern_len || memcmp(a->pattern, b->pattern, local) == 0);
}

static void insert_slot(const struct walk *w, struct slot *table, uint64_t slots)
{
	uint32_t hash = hash_of(w->line.pattern, w->line.pattern_len);
	uint64_t i = hash & (slots - 1);
	struct walk other;

	for (; table[i].after; i = (i + 1) & (slots - 1))
		if (table[i].hash == hash && line_at(&other, w->fd, table[i].after - 1) &&
		    same_pattern(&w->line, &other.line))
			break;
	table[i] = (struct slot){ hash, (uint32_t)w->at + 1 };
}

static bool fill(const struct text *t, struct slot *table, uint64_t slots, uint64_t lines)
{
	struct walk w = walk_from(t->fd, 0, window, WINDOW);
	uint64_t left = lines;

	while (walk_next(&w) && left--)
		insert_slot(&w, table, slots);
	return (!w.why || complain(t, w.number, w.why)) && unchanged(t);
}

static bool write_index(const struct text *t, int out, uint64_t lines)
{
	uint64_t slots = 2;
	struct index_head head;
	struct slot *table;
	bool written;

	while (slots < 2 * lines)
		slots *= 2;
	table = mmap(NULL, slots * sizeof *table, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (table == MAP_FAILED)
		return complain(t, 0, strerror(errno));
	head = head_for(&t->at_open, slots);
	written = fill(t, table, slots, lines);
	if (written && !file_write(out, (struct iovec[]){ { &head, sizeof head }, { table, slots * sizeof *table } }, 2))
		written = complain(t, 0, strerror(errno));
	munmap(table, slots * sizeof *table);
	return written;
}

bool routes_index(const char *path, int out, routes_judge *judge, void *arg, char *why, size_t cap)
{
	uint64_t lines;
	struct text t;
	bool good;

	*why = 0;
	good = open_text(&t, path, why, cap);
	if (good && t.at_open.st_size >= UINT32_MAX)
		good = complain(&t, 0, "is larger than 4 GB");
	good = good && check_lines(&t, judge, arg, &lines) && (out < 0 || write_index(&t, out, lines));
	close_text(&t);
	return good;
}

bool routes_compile(const char *path, routes_judge *judge, void *arg, char *why, size_t cap)
{
	char name[PATH_MAX], fresh[PATH_MAX];
	int fd = -1;
	bool good = index_name(name, sizeof name, path, "") && index_name(fresh, sizeof fresh, path, ".new");

	if (good)
		fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0) {
		snprintf(why, cap, "%s: %s", path, good ? strerror(errno) : "its name is too long");
		return false;
	}
	good = routes_index(path, fd, judge, arg, why, cap);
	if (good && (fsync(fd) < 0 || rename(fresh, name) < 0)) { /* an incomplete index would lose recipients */
		snprintf(why, cap, "%s: %s", name, strerror(errno));
		good = false;
	}
	close(fd);
	if (!good)
		unlink(fresh);
	return good;
}
