/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_out_internal.h - the plan of a GGUF file as the files gguf_out*.c share it. */
#ifndef NB_CHECKPOINT_GGUF_OUT_INTERNAL_H
#define NB_CHECKPOINT_GGUF_OUT_INTERNAL_H

#include "arch/gguf.h"
#include "checkpoint/gguf_out.h"
#include "checkpoint/internal.h"

struct nb_gguf_planned {
    struct nb_gguf_item item;
    enum nb_part_kind kind;
    enum nb_arch_gguf_change change; /* from Hugging Face's rows and values */
    int64_t heads;
    const struct nb_gguf_tensor *raw; /* of a GGUF source; NULL: a folder */
    const struct nb_block_type *from; /* type of the source */
    const float *values;              /* of a tensor without a source: rotary factors */
};

struct nb_gguf_out {
    const struct nb_model *model;
    struct nb_gguf_out_opts opts;
    struct nb_arena arena;         /* names, importances */
    struct nb_gguf_planned *items; /* in file order */
    size_t n, capacity;
    size_t *by_linear; /* [nb_arch_first_linear(n_layers)] */
    float *rope_factors;
    struct nb_gguf_writer *writer;
};

/* Metadata into o->writer. */
int nb_gguf_out_metadata(struct nb_gguf_out *o, struct nb_strbuf *notes, struct nb_err *err);

#endif
