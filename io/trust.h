/* Certificates of trusted CAs, found by name. A bundle has some 150 of them, and a chain needs one. So the file is only split
 * into certificates at first, and what a chain needs is decoded later: reading a bundle takes well under a millisecond,
 * decoding all of it sixty (BearSSL 0.6).
 */
#ifndef TRUST_H
#define TRUST_H

#include "pure/certificate.h"

#include <bearssl.h>
#include <stdbool.h>
#include <stddef.h>

#define TRUST_FOUND_MAX 8     /* anchors returned for one chain */
#define TRUST_CONSTRAINED 128 /* beside BearSSL's codes of errors: a CA may vouch for certain names only, which we do not check */

/* Read a PEM file. Its memory is kept until another file takes its place. Certificates that are malformed are skipped. Returns 0, with
 * *why NULL or a warning; or -1 with *why set and everything as before. *why is static storage. */
int trust_load(const char *path, const char **why);

bool trust_loaded(void);

/* Make an anchor of this certificate, which must stay as long as the anchor is used, whether it is one of the file or not. *list and
 * *left_out: as below. */
size_t trust_make(const struct certificate *c, const br_x509_trust_anchor **list, unsigned *left_out);

/* Find anchors whose subject is the issuer of a certificate of the chain, or the subject of the first. Returns how many are at *list,
 * which the next call overwrites. Those that are too weak (RSA below 2048 bits), not for servers or TRUST_CONSTRAINED are left out:
 * *left_out is then the code of the reason of the last, BearSSL's or ours, otherwise 0. */
size_t trust_find(const struct certificate *const *chain, size_t n, const br_x509_trust_anchor **list, unsigned *left_out);

#endif
