/* Legal transitions of a session's states are data (state.h). A build with AddressSanitizer looks at each transition and aborts at one
 * that is not listed. Other builds do not have the tables.
 */
#ifndef LEGAL_H
#define LEGAL_H

#include <stdint.h>
#include <stdlib.h>

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define LEGAL_CHECKED 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define LEGAL_CHECKED 1
#endif

/* Check a transition. follows: for each state a uint32_t with the bits of the states that may follow it. */
#ifdef LEGAL_CHECKED
#ifndef LEGAL_NOTE /* unit tests have one, and so know which transitions they reach */
#define LEGAL_NOTE(from, to) ((void)0)
#endif
#define LEGAL(follows, from, to)                                                                                       \
	do {                                                                                                           \
		LEGAL_NOTE(from, to);                                                                                  \
		if (!((follows)[from] >> (to) & 1u))                                                                   \
			abort();                                                                                       \
	} while (0)
#else
#define LEGAL(follows, from, to) ((void)(follows))
#endif

#endif
