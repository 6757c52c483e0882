/* What a service manager is told: sd_notify(3), whose protocol is one datagram.
 */
#ifndef NOTIFY_H
#define NOTIFY_H

#include <stdbool.h>

/* Tell it at this path from now on, the value of NOTIFY_SOCKET; NULL: there is nobody to tell. */
void notify_open(const char *path);

/* Whether somebody is there to be told. */
bool notify_heard(void);

/* Tell assignments, one a line, such as "READY=1"; up to 159 octets. Does not wait. */
void notify(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* There is nothing more to tell. */
void notify_close(void);

/* Neither has a process that was forked; writes no page that it shares with others. */
void notify_leave(void);

#endif
