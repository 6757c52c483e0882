/* Domains as the DNS has them: labels that are not ASCII become A-labels ("xn--..."), RFC 5890 2.3.2.1, RFC 3492. No I/O.
 *
 * There are no tables of Unicode here. A label must be a U-label already, as RFC 6531 3.2 has it: in lower case and in NFC. What a few
 * ranges of code points tell to be none is refused; the rest is taken to be one.
 */
#ifndef IDNA_H
#define IDNA_H

#include "pure/dnsmessage.h"

/* Write a domain, n octets, in lower case, without a dot at its end, and in ASCII. Returns octets; 0: it is empty or too long, a label is
 * (RFC 1035 2.3.4), or it is no UTF-8 or no U-label. */
size_t idna_ascii(const unsigned char *domain, size_t n, char ascii[DNS_NAME_MAX + 1]);

/* The same of the domain of "LOCAL@DOMAIN", n octets, which may have none: 0. */
size_t idna_domain_of(const unsigned char *mailbox, size_t n, char ascii[DNS_NAME_MAX + 1]);

#endif
