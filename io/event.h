/* What all events of the log have in common, and the event of an error that belongs to no session. Fields are those of
 * smtpwarp-log(5).
 */
#ifndef EVENT_H
#define EVENT_H

#include "io/log.h"
#include "pure/address.h"
#include "pure/json.h"

/* Begin the event with this name in cap octets at out, which stay the caller's. */
void event_begin(struct json *j, char *out, size_t cap, const char *name);

/* End it and write it to the log; one that did not fit is lost. When the log works again after a failure, an event tells how many
 * records were lost. */
void event_end(struct json *j, const char *out, enum log_priority priority);

/* The time now, RFC 3339 with microseconds in UTC; or so many microseconds from now, under this name. */
void event_time(struct json *j);
void event_time_from_now(struct json *j, const char *name, int64_t us);

/* Members of an address; an object of it, null if a is NULL or AF_UNSPEC. */
void event_address_members(struct json *j, const union net_address *a);
void event_address(struct json *j, const char *name, const union net_address *a);

/* Sessions of this process's children count together from now on, for event_is_due(). */
void event_share(void);

/* Whether this is worth an event: none was due with the same words within the last minute. Without event_share() it always is. */
bool event_is_due(const char *words);

/* An error that belongs to no session. client: whom it hit, or NULL. error is cut to what 4 KiB hold. */
void event_fault(const char *error, const union net_address *client);

/* If records were lost, try to say so: an error that says how many and why. Until it can be written they stay counted. */
void event_lost(void);

#endif
