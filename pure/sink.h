/* What --log takes: where records go. No I/O.
 */
#ifndef SINK_H
#define SINK_H

#define SINK_WORDS "stderr, journal, syslog, file:PATH, unix:PATH or none"

enum sink_kind { SINK_NONE, SINK_STDERR, SINK_FILE, SINK_UNIX, SINK_SYSLOG, SINK_JOURNAL, SINK_UNKNOWN };

/* The kind that the text names, SINK_UNKNOWN: it is none of SINK_WORDS. *path: PATH, inside of text; "" where there is none. */
enum sink_kind sink_parse(const char *text, const char **path);

#endif
