/* The sub-command top. See top.h for the contract. The terminal is spoken to in ANSI sequences (ECMA-48): ncurses of Debian does not link
 * with musl. */
#define _GNU_SOURCE
#include "stat/top.h"

#include "io/statefile.h"
#include "pure/json.h"
#include "stat/arguments.h"
#include "stat/topview.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sysexits.h>
#include <termios.h>
#include <unistd.h>

#define JSON_MAX (1u << 20)
#define TABLE_WIDTH 120 /* without a terminal */
#define PERIOD 1000	/* milliseconds between two views */

struct view {
	const char *file;
	enum topview_order order;
	unsigned selected, rows, width, height;
	bool detail; /* of the selected row */
	bool recent; /* counts are those since `base` */
	char site[STATEMAP_SITE], source[STATEMAP_SOURCE]; /* of the selected row */
};

static struct snapshot before, base;
static volatile sig_atomic_t ended;

static void end(int number)
{
	(void)number;
	ended = 1;
}

static void resized(int number)
{
	(void)number; /* ends poll(2) */
}

static int show_json(const struct snapshot *s)
{
	static char text[JSON_MAX];
	unsigned n;
	const struct topview_row *rows = topview_rows(s, NULL, NULL, TOPVIEW_BY_STATE, &n);
	struct json j;

	json_begin(&j, text, sizeof text);
	json_number(&j, "sessions", s->sessions);
	json_open(&j, "sites", '[');
	for (unsigned i = 0; i < n; i++) {
		const struct topview_row *r = &rows[i];
		json_open(&j, NULL, '{');
		json_string(&j, "site", r->row->site);
		json_string(&j, "source", r->row->source);
		json_string(&j, "state", detector_state_name(r->row->detector.state));
		json_number(&j, "hold", r->hold);
		json_number(&j, "messages", r->messages);
		json_number(&j, "recipients", r->recipients);
		json_number(&j, "refused", r->refused);
		json_string(&j, "class", r->class == REPLY_OK ? NULL : replyclass_name(r->class));
		json_ms(&j, "p50_ms", r->p50 < 0 ? -1 : (int64_t)(r->p50 * 1000));
		json_ms(&j, "p95_ms", r->p95 < 0 ? -1 : (int64_t)(r->p95 * 1000));
		json_string(&j, "text", r->row->said ? r->row->text : NULL);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	size_t length = json_end(&j);
	return length && fwrite(text, 1, length, stdout) == length && !fflush(stdout) ? EX_OK : EX_IOERR;
}

static int show_table(const struct snapshot *s)
{
	char line[TOPVIEW_LINE];
	unsigned n;
	const struct topview_row *rows = topview_rows(s, NULL, NULL, TOPVIEW_BY_STATE, &n);

	topview_heading(line, TABLE_WIDTH);
	puts(line);
	for (unsigned i = 0; i < n; i++) {
		topview_line(&rows[i], line, TABLE_WIDTH);
		puts(line);
	}
	return fflush(stdout) ? EX_IOERR : EX_OK;
}

/* ---- in a terminal ---- */

static const char *colour(uint32_t state)
{
	return state == DETECTOR_BLOCKED ? "\033[31;1m" : state == DETECTOR_THROTTLED ? "\033[31m" : state == DETECTOR_SLOW ? "\033[33m" : "";
}

/* Text of others is plain already. The terminal cuts a long line, since it does not wrap, but for the last refusal. A line is erased before it
 * is written: behind one that is full, the cursor stands on its last character. */
static void show_detail(const struct snapshot *s, const struct topview_row *r)
{
	const struct detector *d = &r->row->detector;

	printf("\033[J\r\n %s from %s: %s", r->row->site, *r->row->source ? r->row->source : "-", detector_state_name(d->state));
	if (d->changed && d->changed <= s->now)
		printf(" for %llu s", (unsigned long long)(s->now - d->changed) / 1000000);
	printf("\r\n score %.2f of 1, level %u, time to 354 score %.2f", (double)d->score / DETECTOR_ALARM, d->level,
	    (double)d->late[DETECTOR_DATA] / DETECTOR_LATE_ALARM);
	printf("\r\n %llu messages, %llu recipients, %llu refused\r\n", (unsigned long long)r->messages,
	    (unsigned long long)r->recipients, (unsigned long long)r->refused);
	for (unsigned i = 0; i < REPLY_CLASSES_END; i++)
		if (r->row->counter[STATEMAP_RECIPIENT + i])
			printf(" %s %llu", replyclass_name((enum reply_class)i), (unsigned long long)r->row->counter[STATEMAP_RECIPIENT + i]);
	printf("\033[?7h\r\n last refusal%s%s%s: %s\033[?7l\r\n", r->row->said ? " (" : "", r->row->said ? replyclass_name(r->row->class) : "",
	    r->row->said ? ")" : "", r->row->said ? r->row->text : "none");
}

static void show_rows(struct view *v, const struct topview_row *rows)
{
	char line[TOPVIEW_LINE];
	unsigned room = v->height > 3 ? v->height - 3 : 1, first = v->selected >= room ? v->selected - room + 1 : 0;

	topview_heading(line, v->width);
	printf("\033[K\033[7m%s\033[0m\r\n", line);
	for (unsigned i = first; i < v->rows && i < first + room; i++) {
		topview_line(&rows[i], line, v->width);
		printf("\033[K%s%s%s\033[0m\r\n", i == v->selected ? "\033[1;4m" : "", colour(rows[i].row->detector.state), line);
	}
}

/* The same row stays selected, wherever it has gone. */
static void find_selected(struct view *v, const struct topview_row *rows)
{
	for (unsigned i = 0; i < v->rows && *v->site; i++)
		if (!strcmp(rows[i].row->site, v->site) && !strcmp(rows[i].row->source, v->source)) {
			v->selected = i;
			return;
		}
	if (v->selected >= v->rows)
		v->selected = v->rows ? v->rows - 1 : 0;
}

static void remember_selected(struct view *v, const struct topview_row *rows)
{
	if (v->selected < v->rows) {
		snprintf(v->site, sizeof v->site, "%s", rows[v->selected].row->site);
		snprintf(v->source, sizeof v->source, "%s", rows[v->selected].row->source);
	}
}

static void draw(struct view *v, const struct snapshot *s, const struct topview_row *rows)
{
	char line[256], since[32] = "";
	struct winsize size = { 0 };

	ioctl(1, TIOCGWINSZ, &size);
	v->width = size.ws_col ? size.ws_col : 80;
	v->height = size.ws_row ? size.ws_row : 24;
	if (v->width >= TOPVIEW_LINE / 4)
		v->width = TOPVIEW_LINE / 4;
	if (v->recent)
		snprintf(since, sizeof since, ", counted for %llu s", (unsigned long long)(s->now - base.now) / 1000000);
	snprintf(line, sizeof line, "%u session%s, %u destination%s, by %s%s   q quit  s sort  r %s  Enter detail", s->sessions,
	    s->sessions == 1 ? "" : "s", v->rows, v->rows == 1 ? "" : "s", topview_order_name(v->order), since, v->recent ? "all" : "from now");
	printf("\033[H\033[K%.*s\r\n", (int)v->width, line);
	if (v->detail && v->selected < v->rows)
		show_detail(s, &rows[v->selected]);
	else
		show_rows(v, rows);
	printf("\033[J");
	fflush(stdout);
}

/* false: it is the end. */
static bool take_keys(struct view *v)
{
	char keys[64];
	ssize_t n = read(0, keys, sizeof keys);

	if (n <= 0)
		return n < 0 && errno == EINTR;
	for (ssize_t i = 0; i < n; i++) {
		char c = keys[i];
		if (c == '\033' && i + 2 < n && keys[i + 1] == '[') {
			c = keys[i + 2] == 'A' ? 'k' : keys[i + 2] == 'B' ? 'j' : 0;
			i += 2;
		}
		if (c == 'q')
			return false;
		v->recent ^= c == 'r';
		if (c == 's')
			v->order = (enum topview_order)((v->order + 1) % TOPVIEW_ORDERS_END);
		else if (c == '\r' || c == '\n')
			v->detail = !v->detail;
		else if ((c == 'j' && v->selected + 1 < v->rows) || (c == 'k' && v->selected)) {
			v->selected += c == 'j' ? 1u : -1u;
			*v->site = 0;
		}
	}
	return true;
}

static int watch(struct view *v, char *why, unsigned cap)
{
	struct pollfd in = { .fd = 0, .events = POLLIN };
	struct snapshot *s = NULL;
	const struct topview_row *rows;
	uint64_t taken = 0;
	bool first = true, recent = false;

	for (;;) {
		uint64_t now = statefile_now();
		if (!s || now - taken >= PERIOD * 1000) {
			if (s) {
				before = *s;
				first = false;
			}
			s = snapshot_take(v->file, why, cap);
			if (!s)
				return EX_NOINPUT;
			taken = now;
		}
		if (v->recent && !recent)
			base = *s;
		recent = v->recent;
		rows = topview_rows(s, first ? NULL : &before, recent ? &base : NULL, v->order, &v->rows);
		find_selected(v, rows);
		remember_selected(v, rows);
		draw(v, s, rows);
		if (ended)
			return EX_OK;
		int left = (int)(PERIOD - (statefile_now() - taken) / 1000);
		if (poll(&in, 1, left > 0 ? left : 0) > 0 && !take_keys(v))
			return EX_OK;
	}
}

static int show_live(struct view *v, char *why, unsigned cap)
{
	struct termios old, raw;
	struct sigaction ends = { .sa_handler = end }, resizes = { .sa_handler = resized };

	if (tcgetattr(0, &old))
		return EX_OSERR;
	sigaction(SIGINT, &ends, NULL);
	sigaction(SIGTERM, &ends, NULL);
	sigaction(SIGHUP, &ends, NULL);
	sigaction(SIGWINCH, &resizes, NULL);
	raw = old;
	raw.c_lflag &= (tcflag_t)~(ICANON | ECHO);
	tcsetattr(0, TCSANOW, &raw);
	fputs("\033[?1049h\033[?25l\033[?7l", stdout);
	int status = watch(v, why, cap);
	fputs("\033[?7h\033[?25h\033[?1049l", stdout);
	fflush(stdout);
	tcsetattr(0, TCSANOW, &old);
	return status;
}

int top_main(char **arguments)
{
	struct arguments a = { .next = arguments };
	static struct view v = { .file = STATEMAP_FILE };
	const char *option;
	bool json = false;
	char *operand, why[512] = "";
	struct snapshot *s = NULL;
	int status;

	while ((option = arguments_next(&a, &operand)) || operand) {
		if (!option)
			arguments_wrong(operand, "is no option of top");
		if (!strcmp(option, "state")) {
			v.file = arguments_value(&a, option);
		} else if (!strcmp(option, "json")) {
			arguments_flag(&a, option);
			json = true;
		} else {
			arguments_unknown(option);
		}
	}
	if (!json && isatty(0) && isatty(1))
		status = show_live(&v, why, sizeof why);
	else if (!(s = snapshot_take(v.file, why, sizeof why)))
		status = EX_NOINPUT;
	else
		status = json ? show_json(s) : show_table(s);
	if (*why)
		fprintf(stderr, "smtpwarp-stat: %s\n", why);
	return status;
}
