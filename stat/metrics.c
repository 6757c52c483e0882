/* The sub-command metrics. See metrics.h for the contract. */
#include "stat/metrics.h"

#include "io/statefile.h"
#include "stat/arguments.h"
#include "stat/exposition.h"
#include "stat/serve.h"

#include <string.h>
#include <sysexits.h>

int metrics_main(char **arguments)
{
	struct arguments a = { .next = arguments };
	const char *file = STATEMAP_FILE, *listen = NULL, *option;
	bool http = false, open_metrics = false;
	char *operand, why[512];

	while ((option = arguments_next(&a, &operand)) || operand) {
		if (!option)
			arguments_wrong(operand, "is no option of metrics");
		if (!strcmp(option, "state")) {
			file = arguments_value(&a, option);
		} else if (!strcmp(option, "listen")) {
			listen = arguments_value(&a, option);
		} else if (!strcmp(option, "http") || !strcmp(option, "openmetrics")) {
			arguments_flag(&a, option);
			*(option[0] == 'h' ? &http : &open_metrics) = true;
		} else {
			arguments_unknown(option);
		}
	}
	if (listen)
		return serve_listen(file, listen);
	if (http)
		return serve_one(file);
	struct snapshot *s = snapshot_take(file, why, sizeof why);
	if (!s) {
		fprintf(stderr, "smtpwarp-stat: %s\n", why);
		return EX_NOINPUT;
	}
	exposition_write(stdout, s, open_metrics);
	return fflush(stdout) ? EX_IOERR : EX_OK;
}
