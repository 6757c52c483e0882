/* Reading log files. See reading.h for the contract. */
#define _POSIX_C_SOURCE 200809L
#include "stat/reading.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

void reading_add(struct reading *r, char *path)
{
	if (r->paths == READING_FILES)
		arguments_wrong(path, "is one file too many");
	r->path[r->paths++] = path;
}

void reading_filter(struct logfilter *f, struct arguments *a, const char *option)
{
	static const char *const names[] = {
#define X(name, value, help) name,
		LOGFILTER_OPTIONS(X)
#undef X
	};
	size_t i, count = sizeof names / sizeof *names;
	const char *value, *why;

	for (i = 0; i < count && strcmp(names[i], option); i++)
		;
	if (i == count)
		arguments_unknown(option);
	value = arguments_value(a, option);
	why = logfilter_set(f, names[i], value, (int64_t)time(NULL));
	if (why)
		arguments_wrong(value, why);
}

static void take(void *arg, const char *line, size_t n)
{
	struct reading *r = arg;
	struct logrecord record;

	if (!n)
		return;
	if (!logrecord_read(&record, line, n)) {
		r->wrong++;
		return;
	}
	r->records++;
	r->take(r->arg, line, n, &record);
}

static void tell(void *arg, uint64_t octets)
{
	struct reading *r = arg;
	uint64_t percent = r->total ? octets * 100 / r->total : 0;

	if (percent <= r->told)
		return;
	r->told = percent;
	fprintf(stderr, "\r%3llu %% of %llu MB", (unsigned long long)percent, (unsigned long long)r->total / 1000000);
}

static void say_skipped(const struct reading *r)
{
	if (r->file.torn)
		fprintf(stderr, "smtpwarp-stat: %llu files end within a line: that is skipped\n", (unsigned long long)r->file.torn);
	if (r->wrong)
		fprintf(stderr, "smtpwarp-stat: %llu lines are no records: skipped\n", (unsigned long long)r->wrong);
	if (r->file.too_long)
		fprintf(stderr, "smtpwarp-stat: %llu lines are longer than %u octets: skipped\n", (unsigned long long)r->file.too_long,
		    LOGFILE_LINE_MAX);
}

int reading_files(struct reading *r)
{
	static char standard_input[] = "-";
	const char *why;
	int status = EX_OK;

	if (!r->paths)
		reading_add(r, standard_input);
	r->total = logfile_total(r->path, r->paths);
	r->file = (struct logfile){ .take = take, .arg = r };
	if (r->progress && r->total > 100000000 && isatty(2))
		r->file.tell = tell;
	for (int i = 0; i < r->paths; i++)
		if (!logfile_read(&r->file, r->path[i], &why)) {
			fprintf(stderr, "smtpwarp-stat: %s: %s\n", r->path[i], why);
			status = EX_NOINPUT;
		}
	if (r->file.tell)
		fprintf(stderr, "\r                              \r");
	say_skipped(r);
	return status;
}
