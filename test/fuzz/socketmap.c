/* Fuzz target: whatever a server of maps says, and whatever stands on the command line.
 *
 * Octet 0: its lowest bit: a server's address or a reply. Checked: a reply is the same however it comes in pieces; a found text lies in
 * it; an address that can be parsed can be asked. */
#include <stdlib.h>
#include <string.h>

#include "pure/socketmap.h"
#include "test/lib/replay.h"

#define CHECK(condition) ((condition) ? (void)0 : abort())

static void check_reply(const char *in, size_t n)
{
	const char *text = NULL;
	size_t len = 0, end = 0;
	enum socketmap_result whole = socketmap_read(in, n, &text, &len), part = SOCKETMAP_MORE;

	if (whole == SOCKETMAP_FOUND || whole == SOCKETMAP_FAILED)
		CHECK(len > 0 && text >= in && text + len < in + n && text[len] == ',');
	for (; end < n && part == SOCKETMAP_MORE; end++)
		part = socketmap_read(in, end, &text, &len);
	CHECK(part == SOCKETMAP_MORE || whole == SOCKETMAP_BAD);
}

static void check_server(const char *in, size_t n)
{
	char *copy = malloc(n + 1), question[SOCKETMAP_QUESTION];
	struct socketmap m;

	CHECK(copy != NULL);
	memcpy(copy, in, n);
	copy[n] = 0;
	if (!socketmap_parse(&m, copy)) {
		size_t len = socketmap_ask(&m, "example.org", question);

		CHECK(len > strlen(m.name) && question[len - 1] == ',');
		CHECK(m.address.sa.sa_family == AF_UNIX ? *m.path == '/' : net_port(&m.address) > 0);
	}
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n)
		(data[0] & 1 ? check_server : check_reply)((const char *)data + 1, n - 1);
	return 0;
}
