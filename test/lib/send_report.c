/* Sends a report for TLSRPT, as a session does: a policy of this type with a failure of this code (0: none), and how it ended.
 *
 *	send_report PATH TYPE CODE 0|1
 */
#include "io/tlsrpt.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	static const char strings[] = "version: STSv1\0mode: \"enforce\"\0x: \\ \xc3\xa4", mx[] = "mx.a.example\0*.b.example";
	struct tlsrpt_failure failure = { .source = "192.0.2.1", .mx = "mx.a.example", .helo = "mx \"1\"", .server = "2001:db8::1",
		.reason = "the \t reason" };
	struct tlsrpt_policy policy = { TLSRPT_NO_POLICY, "a.example", strings, mx, sizeof strings, sizeof mx, &failure, 0, false };
	const struct tlsrpt_report report = { "a.example", "v=TLSRPTv1; rua=mailto:tls@a.example", &policy, 1 };

	if (argc != 5) {
		fprintf(stderr, "usage: send_report PATH TYPE CODE 0|1\n");
		return 64;
	}
	policy.type = (enum tlsrpt_type)atoi(argv[2]);
	failure.code = (enum tlsrpt_code)atoi(argv[3]);
	policy.failures = failure.code != TLSRPT_NO_FAILURE;
	policy.failed = *argv[4] == '1';
	if (policy.type == TLSRPT_NO_POLICY)
		policy.strings_len = 0;
	if (policy.type != TLSRPT_STS)
		policy.mx_hosts_len = 0;
	if (!tlsrpt_send(argv[1], &report)) {
		perror(argv[1]);
		return 74;
	}
	return 0;
}
