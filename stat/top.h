/* smtpwarp-stat top: destinations as they are now, in a terminal, once as a table, or as JSON.
 */
#ifndef TOP_H
#define TOP_H

/* arguments: those behind the word "top", before a NULL. Returns the exit status. */
int top_main(char **arguments);

#endif
