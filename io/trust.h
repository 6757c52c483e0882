/* Certificates of trusted CAs, found by name. A bundle has some 150 of them, and a chain needs one. So the file is only split
 * into certificates at first, and what a chain needs is decoded later: reading a bundle takes well under a millisecond,
 * decoding all of it sixty (BearSSL 0.6).
 */
#ifndef TRUST_H
#define TRUST_H

#include <bearssl.h>
#include <stdbool.h>
#include <stddef.h>

#define TRUST_FOUND_MAX 8 /* anchors returned for one chain */

/* Read a PEM file. Its memory is kept until another file takes its place. Returns 0, or -1 with *why set (static storage) and
 * everything as before. */
int trust_load(const char *path, const char **why);

bool trust_loaded(void);

/* Find anchors whose subject is the issuer or the subject of a certificate in chain: n octets of DER, one certificate after
 * another. Returns how many are at *list, which the next call overwrites. */
size_t trust_find(const unsigned char *chain, size_t n, const br_x509_trust_anchor **list);

#endif
