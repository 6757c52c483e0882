/* How stories of fake_session.h begin: up to a server that is ready, a recipient, a message. What was said on the way has been heard. */
#ifndef FAKE_STORY_H
#define FAKE_STORY_H

#include "test/lib/fake_session.h"

#define ONE "--upstream 192.0.2.25 --tls none "
#define LATE ONE "--connect-on recipient "
#define LMTP "--upstream lmtp://192.0.2.25 --tls none "
#define BANNER "220 mx.test ESMTP"
#define PLAIN "250 mx.test"
#define PIPES "250-mx.test\n250 PIPELINING"
#define CHUNKS "250-mx.test\n250-PIPELINING\n250 CHUNKING"
#define MESSAGE "Subject: x\n\nhello\n."
#define GO_AHEAD "354 End data with <CR><LF>.<CR><LF>"

static inline void nothing_said_yet(void)
{
	client_heard();
	server_heard();
}

/* The client has said EHLO, or LHLO, and the server has answered with this list. */
static inline void to_hello(const char *options, const char *hello, const char *list)
{
	session_begins(options);
	server_connects();
	server(BANNER);
	client(hello);
	server(list);
	stands_at(OPEN, READY);
	nothing_said_yet();
}

static inline void to_ready(const char *options, const char *list)
{
	to_hello(options, "EHLO c.test", list);
}

/* The server has accepted MAIL and one RCPT. */
static inline void to_recipient(const char *options, const char *list)
{
	to_ready(options, list);
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	client("RCPT TO:<r@d.test>");
	server("250 ok");
	nothing_said_yet();
}

/* It has accepted DATA as well. */
static inline void to_data(const char *options, const char *list)
{
	to_recipient(options, list);
	client("DATA");
	server("354 go");
	nothing_said_yet();
}

/* With LMTP on both sides: two recipients that were accepted, with a refused one between them. */
static inline void to_lmtp_recipients(const char *options, const char *list)
{
	to_hello(options, "LHLO c.test", list);
	client("MAIL FROM:<a@b.test>");
	server("250 ok");
	client("RCPT TO:<r@d.test>");
	server("250 ok");
	client("RCPT TO:<no@d.test>");
	server("550 no");
	client("RCPT TO:<s@d.test>");
	server("250 ok");
	nothing_said_yet();
}

/* With --connect-on recipient: the server that was dialled has no TLS, and takes MAIL and RCPT; then the client takes both back. */
static inline void server_takes_one_in_plain(void)
{
	server_connects();
	server(BANNER);
	server(PLAIN);
	server("250 ok");
	server("250 ok");
	client("RSET");
	server("250 ok");
}

/* With --connect-on recipient: the first RCPT waits for a server. */
static inline void to_waiting_rcpt(const char *options)
{
	session_begins(options);
	client("EHLO c.test\nMAIL FROM:<a@b.test>\nRCPT TO:<r@d.test>");
	stands_at(SERVER, CONNECTING);
	nothing_said_yet();
}

/* The server has accepted it. */
static inline void to_late_recipient(const char *options, const char *list)
{
	to_waiting_rcpt(options);
	server_connects();
	server(BANNER);
	server(list);
	server("250 ok");
	server("250 ok");
	stands_at(OPEN, READY);
	nothing_said_yet();
}

#endif
