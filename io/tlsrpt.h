/* Reports for TLSRPT, pure/tlsrpt.h, sent to the program that collects them. */
#ifndef IO_TLSRPT_H
#define IO_TLSRPT_H

#include "pure/tlsrpt.h"

/* Send a report to the datagram socket at this path, without waiting. false: it was not sent, errno says why: EAGAIN if the program is
 * behind, EMSGSIZE if the report is too long. */
bool tlsrpt_send(const char *path, const struct tlsrpt_report *r);

#endif
