/* SPDX-License-Identifier: Apache-2.0
 *
 * sha256.h - SHA-256 of bytes and files (OpenSSL libcrypto). */
#ifndef NB_BASE_SHA256_H
#define NB_BASE_SHA256_H

#include <stddef.h>

#include "base/err.h"

struct nb_sha256 {
    void *ctx;
};

enum { NB_SHA256_HEX = 65 }; /* 64 lower-case digits and NUL */

void nb_sha256_init(struct nb_sha256 *h);
void nb_sha256_add(struct nb_sha256 *h, const void *data, size_t bytes);
void nb_sha256_finish(struct nb_sha256 *h, char hex[NB_SHA256_HEX]); /* also releases */
void nb_sha256_bytes(const void *data, size_t bytes, char hex[NB_SHA256_HEX]);
int nb_sha256_file(const char *path, char hex[NB_SHA256_HEX], struct nb_err *err);

#endif
