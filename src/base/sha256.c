/* SPDX-License-Identifier: Apache-2.0
 *
 * sha256.c - see sha256.h. */
#include "base/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

void nb_sha256_init(struct nb_sha256 *h)
{
    h->ctx = EVP_MD_CTX_new();
    if (!h->ctx || !EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL)) {
        fputs("nibble: libcrypto cannot start SHA-256\n", stderr);
        abort();
    }
}

void nb_sha256_add(struct nb_sha256 *h, const void *data, size_t bytes)
{
    EVP_DigestUpdate(h->ctx, data, bytes);
}

void nb_sha256_finish(struct nb_sha256 *h, char hex[NB_SHA256_HEX])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    EVP_DigestFinal_ex(h->ctx, digest, &n);
    EVP_MD_CTX_free(h->ctx);
    h->ctx = NULL;
    for (unsigned int i = 0; i < 32; i++) {
        hex[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    hex[64] = '\0';
}

void nb_sha256_bytes(const void *data, size_t bytes, char hex[NB_SHA256_HEX])
{
    struct nb_sha256 h;
    nb_sha256_init(&h);
    nb_sha256_add(&h, data, bytes);
    nb_sha256_finish(&h, hex);
}

int nb_sha256_file(const char *path, char hex[NB_SHA256_HEX], struct nb_err *err)
{
    enum { CHUNK = 1 << 20 };
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return nb_fail_errno(err, "%s: cannot open", path);
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return nb_fail(err, NB_E_FORMAT, "%s: not a regular file", path);
    }
    unsigned char *buf = nb_xalloc(CHUNK);
    struct nb_sha256 h;
    nb_sha256_init(&h);
    ssize_t n;
    while ((n = read(fd, buf, CHUNK)) > 0 || (n < 0 && errno == EINTR)) {
        if (n > 0) nb_sha256_add(&h, buf, (size_t)n);
    }
    int rc = n < 0 ? nb_fail_errno(err, "%s: cannot read", path) : 0;
    nb_sha256_finish(&h, hex);
    nb_free(buf);
    close(fd);
    return rc;
}
