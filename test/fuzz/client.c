/* Fuzz target: whatever a client says, to a server that answers properly.
 *
 * Octet 0: bits 0-1 --bare-newline, 2 no PIPELINING, 3 no CHUNKING, 4 no AUTH, 5 tight limits, 6 the server answers
 * only when the client waits, 7 the server speaks LMTP. Octet 1: how many octets come at a time, 0 all. Octet 2: seed of
 * the server's replies. The rest is what the client says. minimal_session.h checks what must hold. */
#include <stdlib.h>

#include "test/lib/minimal_session.h"
#include "test/lib/replay.h"

static struct minimal_session model;
static uint32_t seed;

/* xorshift32; never 0. */
static uint32_t any(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed % below;
}

static const char *ehlo_reply(uint8_t options)
{
	static const char *const lists[] = { "250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-SIZE 90\r\n250 AUTH X\r\n",
		"250-mx\r\n250-CHUNKING\r\n250 AUTH X\r\n", "250-mx\r\n250-PIPELINING\r\n250 AUTH X\r\n", "250 mx\r\n" };

	return any(8) ? lists[options >> 2 & 3] : "502 no\r\n";
}

static const char *reply(enum smtp_verb verb, uint8_t options)
{
	static const char *const usual[] = { "250 2.0.0 ok\r\n", "250-2.1.5 a\r\n250 2.1.5 b\r\n", "251\r\n",
		"250 \r\n", "550 5.1.1 no\r\n", "450-4.0.0 a\r\n450 b\r\n" };
	static const char *const auth[] = { "334 \r\n", "334 VXNlcg==\r\n", "235 2.7.0 ok\r\n", "535 5.7.8 no\r\n" };

	switch (verb) {
	case SMTP_GREETING:
		return "220-mx\r\n220 mx\r\n";
	case SMTP_EHLO:
	case SMTP_LHLO:
		return ehlo_reply(options);
	case SMTP_HELO:
		return any(8) ? "250-mx\r\n250 mx\r\n" : "502 no\r\n";
	case SMTP_DATA:
		return any(4) && !(model.d.lmtp && !model.d.tx.accepted) ? "354 go\r\n" : "554 5.5.1 no\r\n";
	case SMTP_AUTH:
	case SMTP_AUTH_RESPONSE:
		return auth[any(4)];
	default:
		return usual[any(6)];
	}
}

/* The server's bytes in one piece or octet by octet. */
static void hear_server(const char *text)
{
	size_t n = strlen(text), step = any(2) ? 1 : n, at = 0;

	for (size_t end = step; end <= n; end += step)
		at += minimal_server(&model, (const unsigned char *)text + at, end - at);
	CHECK(at == n && !model.over);
}

/* true when the server had something to answer. */
static bool answer(uint8_t options)
{
	enum smtp_verb awaited = dialogue_awaited(&model.d);

	if (awaited == SMTP_NOTHING)
		return false;
	hear_server(reply(awaited, options));
	return true;
}

/* Offer an exact copy of the client's octets that are there, until nothing moves. Returns octets used. */
static size_t hear_client(const uint8_t *in, size_t n, uint8_t options)
{
	bool lazy = options & 0x40, moved = true;
	size_t at = 0;

	while (moved && !model.deaf) {
		unsigned char *copy = malloc(n - at ? n - at : 1);
		size_t used;

		CHECK(copy != NULL);
		if (n - at)
			memcpy(copy, in + at, n - at);
		used = minimal_client(&model, copy, n - at);
		free(copy);
		at += used;
		moved = (lazy && used) || answer(options) || used;
	}
	return at;
}

static void begin(uint8_t options)
{
	struct dialogue_limits limits = {
		.message_size = options & 0x20 ? 100 : 100000,
		.recipients = options & 0x20 ? 2 : 100,
		.pipeline = options & 0x20 ? 2 : 64,
		.command_line = SMTP_COMMAND_MIN,
		.require_tls = (options & 0x60) == 0x60,
		.newline = (options & 3) == 3 ? SMTP_NL_NORMALIZE : (enum smtp_newline)(options & 3),
	};

	minimal_init(&model, &limits, NULL);
	model.d.lmtp = options & 0x80;
	model.d.offer.auth = !(options & 0x10);
	model.d.offer.starttls = (options & 0x50) == 0x50;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	size_t step, at = 3;

	if (n < 3)
		return 0;
	step = data[1] ? data[1] : n;
	seed = 1u + data[2];
	begin(data[0]);
	for (size_t end = at; end < n && !model.deaf;) {
		end = n - end > step ? end + step : n;
		at += hear_client(data + at, end - at, data[0]);
	}
	while (answer(data[0]))
		;
	CHECK(model.d.queued == 0 || model.deaf);
	return 0;
}
