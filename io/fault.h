/* What is wrong with how smtpwarp was started or with what it was given: where that is said, and ending because of it. Texts are formats of
 * printf(3); of what they make, FAULT_MAX octets are said.
 */
#ifndef FAULT_H
#define FAULT_H

#include <stdbool.h>

#define FAULT_MAX 512 /* octets of a message for a person */

/* We were given this connection of a client's: it is told when smtpwarp ends because of a fault. */
void fault_client(int connection);

/* Who waits at the other end of this socket is told, too, why smtpwarp ends; -1: nobody waits any more. */
void fault_asker(int socket);

/* From now on fault() writes to standard error: --check and --try-hook write to no log. */
void fault_without_log(void);

/* Whether this descriptor is the socket that inetd gave us as 0, 1 and 2. */
bool fault_is_client(int fd);

/* Log what is wrong, and go on. */
void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Say it on standard error, where perhaps nobody reads: a listener does not wait for that. */
void fault_tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* End with this exit status of sysexits.h, for this reason, which goes to standard error or, where that is the client, to the system's log. */
_Noreturn void fault_die(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same, for what errno says. */
_Noreturn void fault_die_errno(int code, const char *what);

#endif
