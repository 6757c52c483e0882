/* What a seed of the session fuzzer chooses before the session begins: smtpwarp's options, and how its peers are. */
#include "fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void arg(struct plan *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void arg(struct plan *p, const char *format, ...)
{
	char *at = p->text + p->text_len;
	size_t room = sizeof p->text - p->text_len;
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(at, room, format, args);
	va_end(args);
	if ((size_t)n >= room || p->args + 1 >= (int)(sizeof p->argv / sizeof *p->argv))
		abort();
	p->argv[p->args++] = at;
	p->text_len += (size_t)n + 1;
}

static const char *one_of(const char *const *words, unsigned n)
{
	return words[below(n)];
}

#define ONE_OF(...)                                                                                                    \
	one_of((const char *const[]){ __VA_ARGS__ }, sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))

/* They are tried in order. At the first of these nobody may listen. */
static void several(struct plan *p)
{
	arg(p, "--upstream=127.0.0.1:%d", percent(50) ? 2599 : 2503);
	arg(p, "--upstream=127.0.0.1:2501");
	arg(p, "--upstream=127.0.0.1:2502");
}

static void upstream(struct plan *p)
{
	uint32_t kind = below(p->late ? 25 : 20);

	if (kind == 0)
		arg(p, "--upstream=127.0.0.1:2599"); /* nobody listens there */
	if (kind < 12)
		arg(p, "--upstream=127.0.0.1:%u", 2501 + below(3));
	else if (kind < 14)
		arg(p, "--upstream=lmtp://127.0.0.1:2504");
	else if (kind < 16)
		arg(p, "--upstream=lmtp:unix:%s/lmtp", workplace);
	else if (kind < 17)
		arg(p, "--upstream=smtps://127.0.0.1:2505");
	else if (kind < 18)
		arg(p, "--upstream=localhost:2502");
	else
		several(p);
}

static void destination(struct plan *p)
{
	p->late = percent(40);
	p->routes = p->late && percent(50);
	if (p->late)
		arg(p, "--connect-on=recipient");
	if (p->routes)
		arg(p, "--routes=%s/routes.%u", workplace, percent(95) ? below(2) : 2u);
	p->upstream = !p->routes || percent(40);
	if (p->upstream)
		upstream(p);
	if (p->routes && percent(20))
		arg(p, "--recipient-delimiter=+");
	arg(p, "--hostname=warp.example");
}

static void tls(struct plan *p)
{
	bool named = percent(50);

	arg(p, "--tls-ca=%s/ca.pem", workplace);
	if (named)
		arg(p, "--tls-name=mail.example");
	if (percent(60))
		arg(p, "--tls=none");
	else if (percent(50))
		arg(p, "--tls=%s", named ? ONE_OF("encrypt", "verify", "verify-if-offered") : ONE_OF("may", "encrypt"));
	p->encrypts = strcmp(p->argv[p->args - 1], "--tls=encrypt") == 0 || strcmp(p->argv[p->args - 1], "--tls=verify") == 0;
	if (percent(9)) {
		arg(p, "--upstream-auth=%s/passwords", workplace);
		return;
	}
	if (percent(75))
		return;
	if (percent(25) && !p->late) {
		p->client_tls = CT_PASSTHROUGH; /* or those that begin none themselves get it */
		if (percent(50)) {
			arg(p, "--client-tls=auto");
			return;
		}
		arg(p, "--client-tls=passthrough");
		for (int i = 1; i < p->args; i++) /* what does not go together with it */
			if (strncmp(p->argv[i], "--tls=", 6) == 0)
				p->argv[i] = "--tls=none";
		p->encrypts = false;
		return;
	}
	for (unsigned certs = percent(25) ? 2 : 1; certs; certs--)
		arg(p, "--cert=%s/cert.pem", workplace);
	p->client_tls = percent(20) ? CT_REQUIRE : percent(20) ? CT_IMPLICIT : CT_MAY;
	if (p->client_tls != CT_MAY)
		arg(p, "--client-tls=%s", p->client_tls == CT_REQUIRE ? "require" : "implicit");
}

/* By recipient. What does not go together with it has been chosen before. */
static void tls_by_recipient(struct plan *p)
{
	for (int i = 1; i < p->args; i++)
		if (strncmp(p->argv[i], "--upstream-auth=", 16) == 0 || strcmp(p->argv[i], "--client-tls=passthrough") == 0)
			return;
	if (!p->late && percent(30))
		arg(p, "--tls-on=recipient");
	p->policies = percent(30);
	if (p->policies)
		arg(p, "--tls-policy=%s/policies", workplace);
}

static void identity(struct plan *p)
{
	arg(p, "--client-names=none");
	if (percent(15))
		arg(p, "--xclient");
	if (percent(15))
		arg(p, "--xforward");
	p->received = percent(15);
	if (p->received)
		arg(p, "--received");
	if (percent(12)) {
		p->send_proxy = percent(50) ? 1 : 2;
		arg(p, "--send-proxy=v%d", p->send_proxy);
	}
	if (!p->unix_client && percent(12)) {
		p->accept_proxy = true;
		arg(p, "--accept-proxy=127.0.0.0/8");
	}
}

static void limits(struct plan *p)
{
	if (percent(15))
		arg(p, "--message-size-limit=%u", percent(50) ? 300 : 5000);
	if (percent(10))
		arg(p, "--max-errors=%u", 1 + below(4));
	if (percent(10))
		arg(p, "--max-recipients=%u", 1 + below(3));
	if (percent(10))
		arg(p, "--max-pipeline=%u", 1 + below(4));
	if (percent(10))
		arg(p, "--command-length=512");
	if (percent(20))
		arg(p, "--bare-newline=%s", ONE_OF("reject", "pass"));
	if (percent(5))
		arg(p, "--plain-auth");
}

static void checks(struct plan *p)
{
	bool sees = p->client_tls != CT_PASSTHROUGH; /* else what looks at recipients is refused at start */

	if (percent(8) && sees)
		arg(p, "--valid-recipients=@d[0-3][.]example$");
	p->override = percent(6) && sees;
	if (p->override)
		arg(p, "--override-recipient=%s@override.example", percent(20) ? "\xc3\xa4ll" : "all");
	if (percent(4))
		arg(p, "--allow-clients=%s", percent(60) ? "127.0.0.0/8" : "192.0.2.0/24");
	if (percent(2))
		arg(p, "--greet-delay=0.2");
	if (percent(4))
		arg(p, "--tarpit=0.1");
}

static void hooks(struct plan *p)
{
	if (percent(60))
		return;
	for (unsigned i = 0; i < HOOK_EVENTS; i++)
		if (percent(i == 4 ? 50 : i >= 5 ? 10 : 25))
			p->hooks |= 1u << i;
	if (p->client_tls == CT_PASSTHROUGH)
		p->hooks &= ~(1u << 3); /* rcpt */
	p->two_hooks = percent(15);
	p->exec_hook = permille(60);
	p->exec_verdict = ONE_OF("", "accept\n", "log k v\naccept\n", "reject by program\n", "defer\n", "nonsense\n", "EXIT");
	p->hook_wild = (int)below(3);
	p->program = percent(75) ? (int)below(PROGRAMS - !percent(10)) : -1; /* the last one is slow */
	if (p->program >= 0 && p->exec_hook)
		p->hooks |= 1u << 4;
	if (!p->hooks)
		return;
	p->impatient = percent(2) || (p->exec_hook && p->program == PROGRAMS - 1);
	if (p->impatient)
		arg(p, "--hook-timeout=0.3");
	arg(p, "--hooks=%s", hooks_directory(p->hooks, p->two_hooks, p->exec_hook));
	p->failure_accepts = percent(30);
	if (p->failure_accepts)
		arg(p, "--hook-failure=accept");
}

void plan_make(struct plan *p)
{
	memset(p, 0, sizeof *p);
	p->argv[p->args++] = "smtpwarp";
	arg(p, "--log=file:%s/log", workplace);
	if (percent(15))
		arg(p, "--verbose");
	p->unix_client = percent(25);
	p->client_wild = (int)below(3);
	p->server_wild = (int)below(3);
	p->messages = percent(10) ? 0 : (int)(1 + below(4));
	destination(p);
	if (percent(15)) { /* nothing else */
		arg(p, "--tls=none");
		return;
	}
	tls(p);
	tls_by_recipient(p);
	if (p->late && p->upstream && percent(15))
		arg(p, "--auth");
	identity(p);
	limits(p);
	checks(p);
	hooks(p);
	p->lmtp_client = percent(15);
}
