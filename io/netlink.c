/* Questions to the kernel. See netlink.h for the contract; the comments here say why. */
#define _GNU_SOURCE
#include "io/netlink.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ERROR 2 /* types of answers */
#define DONE 3
#define MULTI 2	 /* a flag: more answers follow */
#define ALIGNED(n) (((n) + 3) & ~(size_t)3)

/* Take the messages of one datagram. Returns whether the answer is complete, with its error in *error. */
static bool take_datagram(const unsigned char *in, size_t n, void (*take)(void *arg, const unsigned char *answer, size_t n), void *arg,
    int *error)
{
	struct netlink_header h;

	while (n >= sizeof h) {
		memcpy(&h, in, sizeof h);
		if (h.len < sizeof h || h.len > n)
			break;
		if (h.type == DONE)
			return true;
		if (h.type == ERROR) {
			if (h.len >= sizeof h + sizeof *error)
				memcpy(error, in + sizeof h, sizeof *error);
			return true;
		}
		take(arg, in + sizeof h, h.len - sizeof h);
		if (!(h.flags & MULTI))
			return true;
		if (ALIGNED(h.len) >= n)
			return false;
		in += ALIGNED(h.len);
		n -= ALIGNED(h.len);
	}
	*error = -EBADMSG;
	return true;
}

bool netlink_ask(int protocol, const struct netlink_header *question,
    void (*take)(void *arg, const unsigned char *answer, size_t n), void *arg)
{
	unsigned char answer[8192]; /* the kernel makes no larger datagrams for a reader of this size */
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, protocol), error = 0, saved;
	ssize_t n = fd < 0 ? -1 : send(fd, question, question->len, 0);

	while (n >= 0) {
		n = recv(fd, answer, sizeof answer, 0);
		if (n >= 0 && take_datagram(answer, (size_t)n, take, arg, &error))
			break;
	}
	saved = n < 0 ? errno : -error;
	if (fd >= 0)
		close(fd);
	errno = saved;
	return !saved;
}

const unsigned char *netlink_attribute(const unsigned char *in, size_t n, uint16_t type, size_t *len)
{
	uint16_t head[2]; /* length with this head, type */

	while (n >= sizeof head) {
		memcpy(head, in, sizeof head);
		if (head[0] < sizeof head || head[0] > n)
			return NULL;
		if (head[1] == type) {
			*len = head[0] - sizeof head;
			return in + sizeof head;
		}
		if (ALIGNED(head[0]) >= n)
			return NULL;
		in += ALIGNED(head[0]);
		n -= ALIGNED(head[0]);
	}
	return NULL;
}
