/* smtpwarp-stat: what smtpwarp has logged and counted, for people, for Prometheus, and for scripts. smtpwarp-stat(8). */
#include "stat/explain.h"
#include "stat/logfilter.h"
#include "stat/metrics.h"
#include "stat/query.h"
#include "stat/report.h"
#include "stat/top.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

static int help(void)
{
	puts("Usage: smtpwarp-stat explain [OPTION...] SITE|HOST|ADDRESS\n"
	     "       smtpwarp-stat metrics [OPTION...]\n"
	     "       smtpwarp-stat query [OPTION...] [FILE...]\n"
	     "       smtpwarp-stat report [OPTION...] [FILE...] >report.html\n"
	     "       smtpwarp-stat top [OPTION...]\n"
	     "Shows what smtpwarp has logged. See smtpwarp-stat(8).\n\n"
	     "  explain how a destination is judged, and which line of which file says so\n"
	     "  metrics what smtpwarp has counted, for Prometheus\n"
	     "  query   recipients and refusals in log files, and totals by class, site and code\n"
	     "  report  a page of HTML about log files\n"
	     "  top     destinations as they are now\n\n"
	     "Options of query and report, which choose records and recipients:");
#define X(name, value, text) printf("  --%-7s %-5s %s\n", name, value, text);
	LOGFILTER_OPTIONS(X)
#undef X
	puts("Options of query:\n"
	     "  --json         records as they are in the log\n"
	     "  --totals       totals only; with --json as one JSON object\n"
	     "Option of report:\n"
	     "  --no-addresses leaves out senders and clients\n"
	     "Options of metrics:\n"
	     "  --state FILE   the file of smtpwarp --state\n"
	     "  --openmetrics  OpenMetrics instead of Prometheus's text\n"
	     "  --http         answer one HTTP request, as systemd's or inetd's service\n"
	     "  --listen WHERE answer HTTP requests at ADDRESS:PORT\n"
	     "Options of explain:\n"
	     "  --state FILE   as above\n"
	     "  --reply REPLY  what this reply means: \"421 4.7.0 Try again later\"\n"
	     "  --stage STAGE  in answer to: connect, banner, ehlo, tls, mail, rcpt, data or dot\n"
	     "  --reply-rules FILE, --providers FILE\n"
	     "                 as smtpwarp has them\n"
	     "Options of top:\n"
	     "  --state FILE   as above\n"
	     "  --json         one object of JSON\n\n"
	     "A FILE may be compressed with gzip or zstd; without one, standard input is read.");
	return EX_OK;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(char **arguments);
	} commands[] = { { "explain", explain_main }, { "metrics", metrics_main }, { "query", query_main }, { "report", report_main },
		{ "top", top_main } };

	(void)argc;
	if (!argv[0] || !argv[1]) {
		fputs("smtpwarp-stat: which sub-command? See smtpwarp-stat --help\n", stderr);
		return EX_USAGE;
	}
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argv + 2);
	if (!strcmp(argv[1], "--help"))
		return help();
	if (!strcmp(argv[1], "--version")) {
		puts("smtpwarp-stat " SMTPWARP_VERSION);
		return EX_OK;
	}
	fprintf(stderr, "smtpwarp-stat: %s is no sub-command; see smtpwarp-stat --help\n", argv[1]);
	return EX_USAGE;
}
