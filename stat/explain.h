/* smtpwarp-stat explain: how a destination is judged, and which line of which file says so.
 */
#ifndef EXPLAIN_H
#define EXPLAIN_H

/* arguments: those behind the word "explain", before a NULL. Returns the exit status. */
int explain_main(char **arguments);

#endif
