/* Where records go: one line each, written with one system call, so that lines of parallel sessions never mix.
 */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>
#include <stddef.h>

enum log_priority { LOG_PRIORITY_ERROR = 3, LOG_PRIORITY_WARNING = 4, LOG_PRIORITY_INFO = 6, LOG_PRIORITY_DEBUG = 7 };

/* sink: "stderr", "journal", "syslog", "file:PATH", "unix:PATH" or "none". Opens it now: later there may be no right
 * or no path to do so. Returns 0, or -1 with *why set (static storage). Closes the sink that was open before. */
int log_open(const char *sink, const char **why);

/* Open a "file:PATH" sink anew, as rotation wants it; other sinks have nothing to open. Returns as log_open(); on failure
 * the old file stays. */
int log_reopen(const char *sink, const char **why);

/* Whether sink is one of those words, nothing opened. */
bool log_sink_known(const char *sink);

/* Whether anything is kept of what is written. */
bool log_wanted(void);

/* Write a record of n octets that ends with a newline. A sink that is gone loses the record; a full one may
 * hold a session up for a fifth of a second, once. */
void log_write(enum log_priority priority, const char *record, size_t n);

/* Octets of the largest record the sink takes whole. */
size_t log_record_max(void);

#endif
