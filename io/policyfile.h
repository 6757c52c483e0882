/* The file of --tls-policy: pure/policylist.h, in memory that forked processes share and none can change. */
#ifndef POLICYFILE_H
#define POLICYFILE_H

#include "pure/policylist.h"

/* Read this file (see readable.h), of at most 1 MB. false: there is a fault, *why says "--tls-policy FILE: line N: reason", and what was
 * read before is still in use. */
bool policyfile_load(const char *file, char *why, size_t why_cap);

/* Whether a file has been read: a session without a listener reads it itself, when it first needs it. */
bool policyfile_loaded(void);

/* Whether one of the policies asks for TLSA records. */
bool policyfile_wants_dane(void);

/* Whether one of them refuses all servers whose name is not known: what names the certificate is "hostname" alone, or the lack of match=. */
bool policyfile_wants_server(void);

/* Find the policy of a domain. false: there is none, or no file. */
bool policyfile_find(const char *domain, struct tlspolicy *p);

#endif
