/* Where records go: one line each, written with one system call, so that lines of parallel sessions never mix.
 */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_priority { LOG_PRIORITY_ERROR = 3, LOG_PRIORITY_WARNING = 4, LOG_PRIORITY_INFO = 6, LOG_PRIORITY_DEBUG = 7 };

/* sink: see sink.h. Opens it now: later there may be no right
 * or no path to do so. Returns 0, or -1 with *why set (static storage). Closes the sink that was open before. */
int log_open(const char *sink, const char **why);

/* Open a "file:PATH" sink anew, as rotation wants it; other sinks have nothing to open. Returns as log_open(); on failure
 * the old file stays. */
int log_reopen(const char *sink, const char **why);

/* Whether anything is kept of what is written. */
bool log_wanted(void);

/* Whether records of LOG_PRIORITY_DEBUG go to the sink; streams get them in any case. */
void log_detail(bool wanted);
bool log_detailed(void); /* to anybody */

/* One more reader of all records from now on, on a non-blocking descriptor that becomes the log's. A reader that does not
 * keep up, or is gone, loses whole records, never parts, and never holds a session up. At most LOG_STREAMS_MAX. */
#define LOG_STREAMS_MAX 4
void log_add_stream(int fd);

/* Records that streams have lost. */
uint64_t log_dropped(void);

/* Try to send what streams have not taken yet. false: something is left. */
bool log_flush_streams(void);

/* End of all streams. */
void log_close_streams(void);

/* Write a record of n octets that ends with a newline. A sink that is gone loses the record; a full one may
 * hold a session up for a fifth of a second, once. */
void log_write(enum log_priority priority, const char *record, size_t n);

/* Octets of the largest record the sink takes whole. */
size_t log_record_max(void);

#endif
