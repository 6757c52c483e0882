/* smtpwarp-stat metrics: what is in the file of --state, for Prometheus.
 */
#ifndef METRICS_H
#define METRICS_H

/* arguments: those behind the word "metrics", before a NULL. Returns the exit status. */
int metrics_main(char **arguments);

#endif
