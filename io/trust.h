/* Certificates of trusted CAs, found by name. A bundle has some 150; a chain needs one. So the file is only taken
 * apart at first, and what a chain asks for is decoded then: reading a bundle takes well under a millisecond, decoding
 * all of it sixty (BearSSL 0.6).
 */
#ifndef TRUST_H
#define TRUST_H

#include <bearssl.h>
#include <stdbool.h>
#include <stddef.h>

#define TRUST_FOUND_MAX 8 /* anchors handed out for one chain */

/* Read a PEM file. The memory it takes stays until another one was read in its place. Returns 0, or -1 with *why set
 * (static storage) and everything as before. */
int trust_load(const char *path, const char **why);

bool trust_loaded(void);

/* Anchors whose subject is the issuer, or the subject, of one of the certificates in chain: n octets of DER, one after
 * another. Returns how many stand at *list, which is overwritten by the next call. */
size_t trust_find(const unsigned char *chain, size_t n, const br_x509_trust_anchor **list);

#endif
