/* Answers HTTP/1.1 for /metrics and /healthz: GET and HEAD, one request a connection, 8 KiB, 5 seconds.
 */
#ifndef SERVE_H
#define SERVE_H

#define SERVE_REQUEST_MAX 8192 /* octets of a request's head */
#define SERVE_SECONDS 5	       /* for all of a connection */
#define SERVE_CONNECTIONS 8    /* of serve_listen(), at a time; others wait */

/* Answer on the connection that started this process: systemd's or inetd's. file: of --state. Returns the exit status. */
int serve_one(const char *file);

/* Listen on ADDRESS:PORT, [IPv6]:PORT or *:PORT until SIGTERM. Returns the exit status if that cannot be done. */
int serve_listen(const char *file, const char *where);

#endif
