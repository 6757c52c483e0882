/* Events of the log. See event.h. */
#define _GNU_SOURCE
#include "io/event.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define SAID 256
#define SAID_SECONDS 60

/* What was said of late, by its hash: that in the upper half, and the second. Written by all sessions; it decides of nothing but repetitions. */
static _Atomic uint64_t *said;

void event_begin(struct json *j, char *out, size_t cap, const char *name)
{
	json_begin(j, out, cap);
	json_number(j, "v", 1);
	json_string(j, "event", name);
}

void event_end(struct json *j, const char *out, enum log_priority priority)
{
	size_t n = json_end(j);

	if (n && log_write(priority, out, n))
		event_lost();
}

void event_time_from_now(struct json *j, const char *name, int64_t us)
{
	struct timespec now;
	struct tm utc;
	char text[96];

	clock_gettime(CLOCK_REALTIME, &now);
	us += now.tv_nsec / 1000;
	now.tv_sec += us / 1000000;
	now.tv_nsec = us % 1000000 * 1000;
	gmtime_r(&now.tv_sec, &utc);
	snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%06ldZ", utc.tm_year + 1900, utc.tm_mon + 1,
	    utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, now.tv_nsec / 1000);
	json_string(j, name, text);
}

void event_time(struct json *j)
{
	event_time_from_now(j, "time", 0);
}

void event_address_members(struct json *j, const union net_address *a)
{
	char text[NET_TEXT];

	json_string(j, "ip", *net_text(a, text) ? text : NULL);
	json_number(j, "port", net_port(a));
}

void event_address(struct json *j, const char *name, const union net_address *a)
{
	if (!a || a->sa.sa_family == AF_UNSPEC) {
		json_null(j, name);
		return;
	}
	json_open(j, name, '{');
	event_address_members(j, a);
	json_close(j, '}');
}

void event_share(void)
{
	void *shared = mmap(NULL, SAID * sizeof *said, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	said = shared == MAP_FAILED ? NULL : shared;
}

bool event_is_due(const char *words)
{
	struct timespec now;
	uint32_t hash = 2166136261u; /* FNV-1a */
	uint64_t old, entry;

	if (!said)
		return true;
	while (*words)
		hash = (hash ^ (unsigned char)*words++) * 16777619u;
	clock_gettime(CLOCK_MONOTONIC, &now);
	entry = (uint64_t)hash << 32 | (uint32_t)now.tv_sec;
	old = atomic_load(&said[hash % SAID]);
	if (old >> 32 == hash && (uint32_t)((uint32_t)entry - (uint32_t)old) < SAID_SECONDS)
		return false;
	return atomic_compare_exchange_strong(&said[hash % SAID], &old, entry);
}

/* Write the event of an error. false: it is lost. */
static bool write_error(const char *error, const union net_address *client)
{
	char line[4096];
	struct json j;
	size_t n;

	event_begin(&j, line, sizeof line, "error");
	event_time(&j);
	event_address(&j, "client", client);
	json_string(&j, "error", error);
	n = json_end(&j);
	return n && log_write(LOG_PRIORITY_ERROR, line, n);
}

void event_fault(const char *error, const union net_address *client)
{
	if (write_error(error, client))
		event_lost();
}

void event_lost(void)
{
	char text[160];
	int why;
	uint64_t n = log_lost(&why);

	if (!n)
		return;
	snprintf(text, sizeof text, "the log has lost %llu records: %s", (unsigned long long)n, strerror(why));
	if (write_error(text, NULL))
		log_set_lost(0, 0);
	else
		log_set_lost(n, why); /* the text is none of them */
}
