/* SPDX-License-Identifier: Apache-2.0
 *
 * actstore.h - calibration activations in fixed chunks: RAM up to a budget, the rest in a file.
 *
 * Where a chunk lives never changes what it holds, so the memory limit does not change results.
 * Internal to pipeline/. */
#ifndef NB_PIPELINE_ACTSTORE_H
#define NB_PIPELINE_ACTSTORE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct nb_actstore {
    int64_t n_chunks, n_in_ram;
    size_t chunk_floats;
    float **ram;    /* n_in_ram chunks */
    float *scratch; /* one chunk, when some are in the file */
    int fd;         /* unlinked file, or -1 */
    char *path;     /* where it was, for messages */
};

/* Takes what it uses from *budget_bytes. path: where the file is created when the budget is too small. */
int nb_actstore_open(struct nb_actstore *s, const char *path, int64_t n_chunks, size_t chunk_floats,
                     uint64_t *budget_bytes, struct nb_err *err);
void nb_actstore_close(
    struct nb_actstore *s); /* also after a failed open, or of a cleared struct */

/* Chunk c for reading and writing; valid until the next get. With load false the old content need not
 * come (it is about to be overwritten). */
int nb_actstore_get(struct nb_actstore *s, int64_t c, int load, float **out, struct nb_err *err);
/* Keeps what was written into the pointer of the last get of chunk c. */
int nb_actstore_put(struct nb_actstore *s, int64_t c, struct nb_err *err);

/* Floats [first, first + n) of chunk c, without the rest of it. */
int nb_actstore_read(struct nb_actstore *s, int64_t c, size_t first, size_t n, float *out,
                     struct nb_err *err);
int nb_actstore_write(struct nb_actstore *s, int64_t c, size_t first, size_t n, const float *in,
                      struct nb_err *err);

/* Chunk c becomes *buffer (chunk_floats floats of nb_alloc), and *buffer what held the chunk before: keeps a new
 * content without copying it. */
int nb_actstore_swap(struct nb_actstore *s, int64_t c, float **buffer, struct nb_err *err);

#endif
