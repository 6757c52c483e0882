/* Fuzz target: whatever a server says to a client that speaks properly.
 *
 * Octet 0: which client, bit 7 to a server that speaks LMTP; octet 1: how many octets come at a time, 0 all. The rest is
 * what the server says. minimal_session.h checks what must hold; here: every recipient's code was in a reply, and what a
 * client is shown of an EHLO list is a proper reply. */
#include <stdlib.h>

#include "test/lib/minimal_session.h"
#include "test/lib/replay.h"

#define MESSAGE "MAIL FROM:<a@b> SIZE=5\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nRCPT TO:<g@h>\r\n"

static const char *const clients[] = {
	"EHLO c\r\n" MESSAGE "DATA\r\nMessage-ID: <i@j>\r\n\r\n..\r\n.\r\n" MESSAGE "DATA\r\n.\r\nQUIT\r\n",
	"EHLO c\r\n" MESSAGE "BDAT 5\r\nhelloBDAT 5 LAST\r\nhello" MESSAGE "BDAT 0 LAST\r\nRSET\r\nQUIT\r\n",
	"EHLO c\r\nAUTH LOGIN\r\nam9l\r\nc2VjcmV0\r\n" MESSAGE "RSET\r\n" MESSAGE "RSET\r\nVRFY x\r\nEHLO c\r\nQUIT\r\n",
	"LHLO c\r\n" MESSAGE "DATA\r\n..\r\n.\r\n" MESSAGE "BDAT 2\r\nhiBDAT 0 LAST\r\n" MESSAGE "RSET\r\nQUIT\r\n",
	"HELO c\r\nSTARTTLS\r\nNOOP\r\nFROB\r\n" MESSAGE "DATA\r\nx\n.\r\n.\r\nHELP\r\nQUIT\r\n",
};

static struct minimal_session model;

static const struct dialogue_limits limits = {
	.message_size = 1000,
	.recipients = 100,
	.pipeline = 16,
	.command_line = SMTP_COMMAND_MIN,
	.newline = SMTP_NL_NORMALIZE,
};

static void check_recipients(const struct dialogue_transaction *tx)
{
	uint32_t accepted = 0;

	for (uint32_t i = 0; i < tx->rcpts; i++) {
		uint16_t code = tx->rcpt[i].code;

		CHECK(i < tx->rcpts - tx->unanswered ? code >= 200 && code <= 599 : code == 0);
		accepted += code / 100 == 2;
	}
	CHECK(accepted == tx->accepted);
}

static void check_ehlo(const struct smtp_ehlo *ehlo)
{
	static const struct smtp_offer offer = { 500, true, true, true, true, true };
	static unsigned char out[SMTP_EHLO_WRITTEN];
	size_t n = smtp_ehlo_write(ehlo, &offer, out, sizeof out);
	struct smtp_line line = { .last = false };

	CHECK(n > 0 && n <= sizeof out);
	for (size_t at = 0, len; at < n; at += len) {
		len = smtp_find_line(out + at, n - at);
		CHECK(!line.last && smtp_parse_reply(out + at, len, &line) && line.code == 250);
		for (size_t i = 0; i < line.text_len; i++)
			CHECK(line.text[i] == '\t' || (line.text[i] >= ' ' && line.text[i] != 0x7f));
	}
	CHECK(line.last);
}

/* Offer an exact copy of what is there. */
static size_t hear_server(const uint8_t *in, size_t n)
{
	unsigned char *copy = malloc(n ? n : 1);
	size_t used;

	CHECK(copy != NULL);
	if (n)
		memcpy(copy, in, n);
	used = minimal_server(&model, copy, n);
	free(copy);
	return used;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const char *client;
	size_t step, at = 2;

	if (n < 2)
		return 0;
	client = clients[data[0] % (sizeof clients / sizeof *clients)];
	step = data[1] ? data[1] : n;
	minimal_init(&model, &limits, NULL);
	model.d.lmtp = data[0] & 0x80;
	model.d.offer.auth = true;
	for (size_t end = at; end < n && !model.over;) {
		end = n - end > step ? end + step : n;
		at += hear_server(data + at, end - at);
		client += minimal_client(&model, (const unsigned char *)client, strlen(client));
		check_recipients(&model.d.tx);
		check_ehlo(&model.d.ehlo);
	}
	return 0;
}
