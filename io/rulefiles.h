/* The files of --reply-rules, and the one that ships with smtpwarp behind them: pure/replyrules.h, in memory that forked processes share
 * and none can change. */
#ifndef RULEFILES_H
#define RULEFILES_H

#include "pure/replyrules.h"

#ifndef RULEFILES_SHIPPED
#define RULEFILES_SHIPPED "/usr/share/smtpwarp/replies.rules"
#endif

/* Read these files (see readable.h), then the shipped one if it is there. false: there is a fault, *why says "--reply-rules FILE: line N: reason", and what was
 * read before is still in use. */
bool rulefiles_load(const char (*file)[256], unsigned count, char *why, size_t why_cap);

/* What was read last; NULL: nothing. */
const struct replyrules *rulefiles_current(void);

#endif
