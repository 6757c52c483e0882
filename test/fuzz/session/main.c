/* The session fuzzer: smtpwarp between a client and servers that are random, but keep to the grammar.
 *
 *	session [--seconds S | --seeds N] [--from SEED] [--jobs N] PROGRAM	sessions, and what must be true of each
 *	session --against OTHER ... PROGRAM	both programs with the same peers: what they said must be the same, octet for octet
 *	session --seed N --verbose PROGRAM	one session, with all that happens in it
 *
 * A seed chooses smtpwarp's options, its hooks, and what client, servers and hooks say and when; the same seed is the same
 * session on any machine. Peers act one at a time, whenever smtpwarp sleeps and all that it said has been read; so nothing
 * depends on time but what waits for time (--greet-delay, --tarpit).
 *
 * Checked, in check.c and where things come in: the program ends by itself with 0 and without a word on standard error, which is
 * where sanitizers report; what the client saw accepted was delivered to one server, whole and once, and to the recipients that
 * were accepted; what a server took was not refused to the client; no server gets the end of a message that the client did not
 * send; each command has one reply; servers get commands that they know, one at a time without PIPELINING; records are JSON.
 *
 * It runs as root, or where users may make namespaces: it has a network of its own. Each line of a transcript is
 *	C< S1<	what client or server 1 received	C> S1> H>	what they, or a hook, said
 *	--	start and end				L	a record of the log
 * with session identifiers, times, and ports that the kernel chose left out.
 */
#define _GNU_SOURCE
#include "fuzz.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FOUND_MAX 20 /* a worker stops then */
#define BEFORE 14    /* lines shown before a difference */
#define AROUND 200   /* octets of a long line */

bool verbose;

static struct {
	const char *program, *against;
	uint64_t from, seeds;
	double seconds;
	int jobs;
	bool one;
} o = { .from = 1, .jobs = 1 };

static struct tally { /* shared */
	uint64_t sessions, found, messages, deliveries, steps;
} *tally;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- findings ---- */

static void head(uint64_t seed)
{
	printf("---- seed %llu: replay with --seed %llu --verbose\n", (unsigned long long)seed, (unsigned long long)seed);
	__atomic_add_fetch(&tally->found, 1, __ATOMIC_RELAXED);
}

static size_t line_at(const struct buf *b, size_t at)
{
	const unsigned char *end = at < b->n ? memchr(b->p + at, '\n', b->n - at) : NULL;

	return end ? (size_t)(end - b->p) + 1 - at : b->n - at;
}

/* A line, or of a long one what is around an octet of it. */
static void print_line(const unsigned char *p, size_t n, size_t at)
{
	size_t from = at > AROUND ? at - AROUND : 0, shown = n - from < 2 * AROUND ? n - from : 2 * AROUND;

	printf("%s%.*s%s\n", from ? "..." : "", (int)(p[from + shown - 1] == '\n' ? shown - 1 : shown), (const char *)p + from,
	    from + shown < n ? "..." : "");
}

static void print_before(const struct buf *b, size_t at)
{
	size_t from = at, n;

	for (int lines = 0; from && lines <= BEFORE; from--)
		lines += b->p[from - 1] == '\n' && from != at;
	for (from += from ? 1 : 0; from < at; from += n) {
		n = line_at(b, from);
		print_line(b->p + from, n, 0);
	}
}

/* Of two transcripts. */
static void show_difference(const struct buf *a, const struct buf *b)
{
	size_t at = 0, n, m, k = 0;

	while ((n = line_at(a, at)) && n == line_at(b, at) && memcmp(a->p + at, b->p + at, n) == 0)
		at += n;
	m = line_at(b, at);
	while (k < n && k < m && a->p[at + k] == b->p[at + k])
		k++;
	print_before(a, at);
	if (n) {
		printf("this program:  ");
		print_line(a->p + at, n, k < n ? k : 0);
	}
	if (m) {
		printf("the other one: ");
		print_line(b->p + at, m, k < m ? k : 0);
	}
}

static void run_seed(uint64_t seed)
{
	struct buf first, faults;

	world_run(o.program, seed);
	tally->sessions++;
	tally->messages += (uint64_t)fuzz.message_count;
	tally->deliveries += (uint64_t)fuzz.delivery_count;
	tally->steps += fuzz.steps;
	if (!o.against) {
		if (fuzz.faults.n) {
			head(seed);
			printf("%.*s", (int)fuzz.faults.n, (char *)fuzz.faults.p);
		}
		return;
	}
	first = fuzz.transcript;
	faults = fuzz.faults;
	fuzz.transcript = fuzz.faults = (struct buf){ NULL, 0, 0 };
	world_run(o.against, seed);
	if (first.n != fuzz.transcript.n || memcmp(first.p, fuzz.transcript.p, first.n) != 0) {
		head(seed);
		show_difference(&first, &fuzz.transcript);
	} else if (faults.n != fuzz.faults.n || (faults.n && memcmp(faults.p, fuzz.faults.p, faults.n) != 0)) {
		head(seed);
		printf("this program:\n%.*s\nthe other one:\n%.*s\n", (int)faults.n, (char *)faults.p, (int)fuzz.faults.n,
		    (char *)fuzz.faults.p);
	}
	buf_free(&first);
	buf_free(&faults);
}

/* ---- workers ---- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	(void)st, (void)type, (void)walk;
	return remove(path);
}

static void work(int job)
{
	static char directory[80];
	double end = now() + o.seconds;
	uint64_t seed = o.from + (uint64_t)job;

	umask(077); /* for keys */
	snprintf(directory, sizeof directory, "/dev/shm/fuzz-%07d-%d", (int)getpid(), job);
	if (mkdir(directory, 0755) < 0) {
		perror(directory);
		exit(2);
	}
	tls_prepare(directory);
	hooks_prepare(directory);
	world_enter(directory, job);
	while ((!o.seeds || seed < o.from + o.seeds) && (o.seeds || now() < end) && tally->found < FOUND_MAX) {
		run_seed(seed);
		fflush(stdout);
		seed += (uint64_t)o.jobs;
	}
	nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	_exit(0);
}

static int run(void)
{
	double start = now();
	int status, bad = 0;

	tally = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	fflush(stdout);
	for (int job = 0; job < o.jobs; job++)
		if (fork() == 0)
			work(job);
	while (wait(&status) > 0)
		bad += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
	printf("%llu sessions, %llu messages, %llu of them at servers, %llu steps, %.0f s: %llu findings%s\n",
	    (unsigned long long)tally->sessions, (unsigned long long)tally->messages, (unsigned long long)tally->deliveries,
	    (unsigned long long)tally->steps, now() - start, (unsigned long long)tally->found,
	    bad ? ", and the fuzzer itself failed" : "");
	return bad || tally->found;
}

static int usage(void)
{
	fputs("session [--seconds S | --seeds N | --seed N] [--from SEED] [--jobs N] [--verbose] [--against OTHER] PROGRAM\n", stderr);
	return 64;
}

/* Paths of programs, as they are seen from anywhere. */
static const char *program(const char *path)
{
	const char *whole = realpath(path, NULL);

	if (!whole || access(whole, X_OK) < 0) {
		perror(path);
		exit(64);
	}
	return whole;
}

static bool take_value(const char *name, const char *value)
{
	if (strcmp(name, "--seconds") == 0)
		o.seconds = strtod(value, NULL);
	else if (strcmp(name, "--seeds") == 0)
		o.seeds = strtoull(value, NULL, 10);
	else if (strcmp(name, "--from") == 0)
		o.from = strtoull(value, NULL, 10);
	else if (strcmp(name, "--jobs") == 0)
		o.jobs = atoi(value);
	else if (strcmp(name, "--against") == 0)
		o.against = program(value);
	else if (strcmp(name, "--seed") == 0) {
		o.from = strtoull(value, NULL, 10);
		o.seeds = 1;
	} else {
		return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	if (getenv("FUZZ_VERDICT"))
		return hook_main();
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--verbose") == 0)
			verbose = true;
		else if (argv[i][0] != '-' && !o.program)
			o.program = program(argv[i]);
		else if (i + 1 >= argc || !take_value(argv[i], argv[i + 1]))
			return usage();
		else
			i++;
	}
	if (!o.program || o.jobs < 1 || (!o.seeds && o.seconds <= 0))
		return usage();
	signal(SIGPIPE, SIG_IGN);
	return run();
}
