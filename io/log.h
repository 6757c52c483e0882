/* Where records go: one line each, written with one system call, so that lines of parallel sessions never mix.
 */
#ifndef LOG_H
#define LOG_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum log_priority { LOG_PRIORITY_ERROR = 3, LOG_PRIORITY_WARNING = 4, LOG_PRIORITY_INFO = 6, LOG_PRIORITY_DEBUG = 7 };

/* Open a sink (see sink.h), now: later there may be no permission for it, or no path to it. Returns 0, or -1 with *why set
 * (static storage). Closes the former sink. */
int log_open(const char *sink, const char **why);

/* Whether this process has to connect again when the daemon that takes records is started again: it takes a stream, or packets. One that takes
 * datagrams is reached without, passes.h. */
bool log_connects(void);

/* Whether there is a file of "file:PATH", which log_open() would append to. */
bool log_exists(const char *sink);

/* Whether log_open() would do, or should: without creating or opening anything that is not there. false: *why is set as there. A socket
 * that is missing now may be there later. */
bool log_check(const char *sink, const char **why);

/* Whether a daemon's socket is there, if the sink is one. false: *path is where it should be; records are lost until it is. */
bool log_reachable(const char *sink, const char **path);

/* Root, before it becomes this user: open the file of "file:PATH", or create it for the user, so that log_open() does where the user may
 * not get at it. Goes through no symbolic link, and takes no file that has another name as well. */
void log_prepare(const char *sink, uid_t user, gid_t group);

/* Open the file of "file:PATH" again, after log rotation; other sinks have nothing to open. Returns as log_open(), but on
 * failure the old file stays in use. */
int log_reopen(const char *sink, const char **why);

/* Write these n octets, a line for a person, to standard error; a fifth of a second later they are dropped if nobody has read what is before
 * them there. */
void log_tell(const char *line, size_t n);

/* Whether there is a sink or stream that records go to. */
bool log_wanted(void);

/* Set whether records of LOG_PRIORITY_DEBUG go to the sink. Streams get them in any case. */
void log_detail(bool wanted);
bool log_detailed(void); /* whether they go anywhere */

/* Send all further records to this non-blocking descriptor as well; it becomes the log's. What a slow
 * reader has not taken waits: up to 4 MiB of LOG_PRIORITY_DEBUG, up to 32 MiB of other records. A reader that is slower than that, or
 * gone, loses whole records, never parts, and never delays a session. There may be LOG_STREAMS_MAX of them. */
#define LOG_STREAMS_MAX 4
void log_add_stream(int fd);

/* How many records streams have lost. */
uint64_t log_dropped(void);

/* Which streams to poll, because something waits for their readers; at most LOG_STREAMS_MAX. Returns how many. */
unsigned log_watch_streams(struct pollfd *p);

/* Try to send what streams have not taken yet. false: some is left. */
bool log_flush_streams(void);

/* Close all streams. */
void log_close_streams(void);

/* Write a record: n octets that end with a newline. The sink gets all of it or nothing; false: nothing, and the record counts as
 * lost. A full sink may delay a session by a fifth of a second, once. */
bool log_write(enum log_priority priority, const char *record, size_t n);

/* How many records this process's sink has lost that no record tells of. *error: the errno of the last loss. */
uint64_t log_lost(int *error);

/* So many records are lost that no record tells of, the last for this reason, an errno. */
void log_set_lost(uint64_t n, int error);

/* Octets of the largest record that the sink takes as a whole. */
size_t log_record_max(void);

#endif
