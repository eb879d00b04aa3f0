/* SPDX-License-Identifier: Apache-2.0
 *
 * imatrix.h - importance matrices: for each weight matrix, how large its inputs are, column by column.
 *
 * Sums over tokens of squared inputs and the number of tokens; per expert where there are experts. Read and
 * written in llama.cpp's two formats. Source: GGUF specification, section 6. */
#ifndef NB_CHECKPOINT_IMATRIX_H
#define NB_CHECKPOINT_IMATRIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

struct nb_imatrix_entry {
    char *name;          /* "blk.0.attn_q.weight" */
    int64_t cols, n_mat; /* a .dat file does not tell experts apart: then n_mat 1, cols of all */
    float *sums;         /* [n_mat, cols], at least 0 */
    int64_t *counts;     /* [n_mat] rows summed */
};

struct nb_imatrix {
    struct nb_imatrix_entry *entries; /* by name (bytes), each name once */
    size_t n, capacity;
    char **datasets; /* names of the texts it was made from */
    size_t n_datasets, datasets_capacity;
    int64_t n_chunks, chunk_size; /* chunk_size 0: unknown (.dat) */
    bool legacy;                  /* counts are chunks, not tokens (.dat) */
};

void nb_imatrix_init(struct nb_imatrix *im);
void nb_imatrix_release(struct nb_imatrix *im);

/* Reads a file of either format, by its first bytes. NB_E_FORMAT: not one, damaged, duplicate names, values
 * that are negative or not finite. im needs no init and must be released, also after an error. */
int nb_imatrix_open(struct nb_imatrix *im, const char *path, struct nb_err *err);
/* The bytes of a .dat file (what the fuzzer calls). */
int nb_imatrix_parse_dat(struct nb_imatrix *im, struct nb_span data, const char *what,
                         struct nb_err *err);

/* Entry of this name and shape, made of zeros when there is none. NULL and *err: another shape is there, a
 * name of no or more than 255 bytes, no memory. Adding moves other entries. */
struct nb_imatrix_entry *nb_imatrix_add(struct nb_imatrix *im, const char *name, int64_t cols,
                                        int64_t n_mat, struct nb_err *err);
const struct nb_imatrix_entry *nb_imatrix_find(const struct nb_imatrix *im, const char *name);

/* One more name of a text. */
int nb_imatrix_add_dataset(struct nb_imatrix *im, const char *name, size_t bytes,
                           struct nb_err *err);

/* Adds sums, counts, chunks and datasets of `from`. A .dat among the two is scaled to tokens with the other's
 * chunk size (512 when neither knows). NB_E_FORMAT names the entry whose shapes differ. */
int nb_imatrix_merge(struct nb_imatrix *im, const struct nb_imatrix *from, struct nb_err *err);

/* weights[n_mat, cols] of an entry of im: mean square of each column, 1 for an expert that saw no token.
 * NB_E_FORMAT: an entry of another size. */
int nb_imatrix_weights(const struct nb_imatrix *im, const struct nb_imatrix_entry *e, int64_t cols,
                       int64_t n_mat, float *weights, struct nb_err *err);

/* Written whole and renamed into place, entries by name, same bytes for the same content. dat: the old format,
 * which keeps means only and only the last dataset. */
int nb_imatrix_write(const struct nb_imatrix *im, const char *path, bool dat, struct nb_err *err);

#endif
