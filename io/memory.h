/* How much memory there is.
 */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdint.h>

#define MEMORY_LIMIT_FILE "/sys/fs/cgroup/memory.max"

/* Octets of memory that this process may use together with those beside it: this host's, sysinfo(2), or if it is less the limit of the
 * container (cgroups(7), memory.max of version 2, as seen from inside a cgroup namespace; see readable.h). */
uint64_t memory_total(void);

#endif
