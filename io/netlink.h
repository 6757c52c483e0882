/* Questions to the kernel, netlink(7).
 */
#ifndef NETLINK_H
#define NETLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* struct nlmsghdr of linux/netlink.h, whose headers musl has not. */
struct netlink_header {
	uint32_t len;
	uint16_t type, flags;
	uint32_t sequence, port;
};

#define NETLINK_ROUTE 0
#define NETLINK_SOCK_DIAG 4
#define NETLINK_REQUEST 1    /* a flag of every question */
#define NETLINK_DUMP 0x300   /* a flag: all objects, not one */

/* Ask one question: it begins with its header. Gives each answer to take(), without its header. Waits for nothing but the kernel.
 * Returns true, or false with errno set: the kernel's error, too. */
bool netlink_ask(int protocol, const struct netlink_header *question,
    void (*take)(void *arg, const unsigned char *answer, size_t n), void *arg);

/* The attribute of this type among those at `in` (struct rtattr, rtnetlink(7)). Returns its octets and sets *len; NULL: there is none. */
const unsigned char *netlink_attribute(const unsigned char *in, size_t n, uint16_t type, size_t *len);

#endif
