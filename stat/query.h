/* smtpwarp-stat query: records of log files that a filter lets through, and totals of them.
 */
#ifndef QUERY_H
#define QUERY_H

/* arguments: those behind the word "query", before a NULL. Returns the exit status. */
int query_main(char **arguments);

#endif
