/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_out.h - writing a model as GGUF: a plan of all tensors, then each of them in any order.
 *
 * A tensor comes from the source model (encoded as llama-quantize does, row by row, so that memory stays small
 * whatever the model's size), as f32 rows, or as codes of a solver. Rows are always handed over in Hugging
 * Face's order; what GGUF has otherwise is arranged here. The file appears under its name when it is
 * finished, and an interrupted run can go on. Its bytes depend on model and options only. */
#ifndef NB_CHECKPOINT_GGUF_OUT_H
#define NB_CHECKPOINT_GGUF_OUT_H

#include <stdbool.h>
#include <stdint.h>

#include "arch/arch.h"
#include "base/err.h"
#include "base/pool.h"
#include "base/strbuf.h"
#include "checkpoint/gguf_types.h"
#include "checkpoint/imatrix.h"
#include "core/qmat.h"

struct nb_model;
struct nb_gguf_out;

struct nb_gguf_out_opts {
    struct nb_gguf_rules rules;
    const struct nb_imatrix *imatrix; /* NULL: none */
    const char *imatrix_name;         /* its file, for metadata: only the bare name is kept */
    const char *name;                 /* general.name; NULL: the bare name of the model's folder */
    bool requantize;                  /* take a source that is in blocks already; else NB_E_SPEC */
    bool calibrated; /* the caller has statistics of its own: types as with an importance matrix */
};

struct nb_gguf_item {   /* one tensor of the file */
    const char *name;   /* GGUF's */
    const char *source; /* Hugging Face's; "": has none there (rotary factors) */
    int64_t layer;      /* -1: outside the layers */
    int linear;         /* index in its layer's linears, else -1 */
    int64_t rows, cols; /* vectors: rows 1 */
    const struct nb_block_type *type;
    uint64_t bytes;
    bool quantized;          /* in blocks, and not so in the source */
    const float *importance; /* [cols] that the encoder uses, NULL: none */
};

/* Plans all tensors: types by opts->rules, order as llama-quantize's. model and imatrix must outlive it. Appends to
 * notes (may be NULL) one line each: what the file cannot say of the model. NB_E_SPEC: the architecture has no
 * GGUF, a type cannot be encoded or does not fit, an importance matrix is needed; NB_E_FORMAT: an importance
 * of another size, a bad tokenizer. */
int nb_gguf_out_new(struct nb_gguf_out **out, const struct nb_model *model,
                    const struct nb_gguf_out_opts *opts, struct nb_strbuf *notes,
                    struct nb_err *err);
void nb_gguf_out_free(
    struct nb_gguf_out *o); /* closes without finishing; the unfinished file stays */

size_t nb_gguf_out_count(const struct nb_gguf_out *o);
const struct nb_gguf_item *nb_gguf_out_at(const struct nb_gguf_out *o, size_t i);
/* Index of the head's weight: output.weight, or the embedding's when it is tied. */
size_t nb_gguf_out_head(const struct nb_gguf_out *o);
/* The source has a head of its own that is left out, because the embedding stands for it. */
bool nb_gguf_out_ties_head(const struct nb_gguf_out *o);
/* Index of the weight of a linear. Every layer has all of them. */
size_t nb_gguf_out_linear(const struct nb_gguf_out *o, int64_t layer, int linear);
uint64_t nb_gguf_out_bytes(const struct nb_gguf_out *o); /* of all tensors */

/* Creates the file at full length as PATH.tmp (or takes up the one of an interrupted run of this very plan).
 * max_part_bytes 0: one file. NB_E_NOSPACE as nb_gguf_writer_open. */
int nb_gguf_out_open(struct nb_gguf_out *o, const char *path, uint64_t max_part_bytes, bool resume,
                     struct nb_err *err);

/* Item i from the source model. Lets go of the source's pages. NB_E_NUMERIC names tensor, column and value that
 * cannot be stored. */
int nb_gguf_out_put_source(struct nb_gguf_out *o, size_t i, struct nb_pool *pool,
                           struct nb_err *err);
/* Item i encoded from w [rows, cols]. */
int nb_gguf_out_put_rows(struct nb_gguf_out *o, size_t i, const float *w, struct nb_pool *pool,
                         struct nb_err *err);
/* Item i from codes whose spec is that of the item's type (nb_block_qspec). */
int nb_gguf_out_put_qmat(struct nb_gguf_out *o, size_t i, const struct nb_qmat *q,
                         struct nb_err *err);
/* Rows [row0, row0 + n) of item i as bytes of its type. A part only where GGUF's rows are in Hugging Face's
 * order (not q and k of a llama). */
struct nb_gguf_rows {
    int64_t row0, n;
    const unsigned char *bytes;
};
int nb_gguf_out_put_blocks(struct nb_gguf_out *o, size_t i, const struct nb_gguf_rows *rows,
                           struct nb_err *err);
/* Item i was written by an earlier run. NB_E_FORMAT when the file had to be created anew. */
int nb_gguf_out_mark(struct nb_gguf_out *o, size_t i, struct nb_err *err);
int nb_gguf_out_sync(struct nb_gguf_out *o, struct nb_err *err);
/* Checks that every item was put, gives the files their names. */
int nb_gguf_out_finish(struct nb_gguf_out *o, struct nb_err *err);
size_t nb_gguf_out_file_count(const struct nb_gguf_out *o); /* valid after open, as the rest */
const char *nb_gguf_out_file_path(const struct nb_gguf_out *o, size_t i);

#endif
