/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_types.h - which tensor of a GGUF file gets which type: the file types by name, and the rules.
 *
 * A pure function of names, shapes and a few facts about the model. It chooses what llama-quantize chooses,
 * tensor by tensor, so that files of equal names have equal sizes. Source: GGUF specification, section 5.7,
 * checked against llama.cpp's own choices. Knows neither files nor weights. */
#ifndef NB_CHECKPOINT_GGUF_TYPES_H
#define NB_CHECKPOINT_GGUF_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "core/block.h"

struct nb_gguf_preset {
    const char *name; /* "Q4_K_M" */
    int file_type;    /* general.file_type */
    int type;         /* id of the block type that most tensors get */
};

/* By name in any case, "Q4_K" for "Q4_K_M" and so on; NULL: unknown. */
const struct nb_gguf_preset *nb_gguf_preset_find(const char *name);
/* Name of a general.file_type; NULL: unknown. */
const char *nb_gguf_file_type_name(int64_t file_type);
/* All names, separated by ", ", for messages. */
void nb_gguf_preset_names(char *out, size_t bytes);

struct nb_gguf_facts {
    const char *architecture; /* general.architecture */
    int64_t n_layers, n_heads, n_kv_heads, n_experts;
    bool imatrix; /* there is an importance matrix */
};

struct nb_gguf_override { /* --tensor-type PATTERN=TYPE */
    const char *pattern; /* regular expression, found anywhere in the name; upper case is ignored */
    const struct nb_block_type *type;
};

struct nb_gguf_rules {
    const struct nb_gguf_preset *preset;
    const struct nb_gguf_override *overrides; /* the first that matches decides */
    size_t n_overrides;
    const struct nb_block_type *output, *embedding; /* NULL: by the rules */
    bool pure;                                      /* the preset's type for all */
    bool keep_output;                               /* output.weight keeps its source type */
};

struct nb_gguf_shape {
    const char *name;                 /* in GGUF's spelling */
    int64_t ne[4];                    /* ne[0] contiguous; missing ones are 1 */
    const struct nb_block_type *type; /* of the source */
};

/* types[i] for shapes[i], all tensors of a model in any order. As llama-quantize does, overrides count only
 * when the preset's type is quantized, and types asked for by `output` and `embedding` have no fallback.
 * NB_E_SPEC: a row that the type cannot hold (nearest types named), or a type that needs an importance
 * matrix when there is none; NB_E_USAGE: a pattern that is no regular expression; NB_E_NOMEM. */
int nb_gguf_choose_types(const struct nb_gguf_facts *facts, const struct nb_gguf_rules *rules,
                         const struct nb_gguf_shape *shapes, size_t n,
                         const struct nb_block_type **types, struct nb_err *err);

/* llama-quantize refuses this type for this tensor without importance weights. */
bool nb_gguf_needs_imatrix(const char *name, const struct nb_block_type *type,
                           const struct nb_gguf_preset *preset);

/* Order in which llama-quantize writes tensors: those outside layers, then layer by layer; by bytes of
 * the name within. For qsort-like use: < 0, 0, > 0. */
int nb_gguf_compare_names(const char *a, const char *b);

#endif
