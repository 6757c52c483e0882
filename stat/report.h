/* smtpwarp-stat report: an HTML page about log files.
 */
#ifndef REPORT_H
#define REPORT_H

/* arguments: those behind the word "report", before a NULL. Returns the exit status. */
int report_main(char **arguments);

#endif
