/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_choice.h - the words of the options about types in a GGUF file, resolved. Internal to pipeline/. */
#ifndef NB_PIPELINE_GGUF_CHOICE_H
#define NB_PIPELINE_GGUF_CHOICE_H

#include "checkpoint/checkpoint.h"
#include "pipeline/gguf.h"

struct nb_gguf_choice {
    struct nb_gguf_rules rules; /* points into the rest */
    struct nb_gguf_override *overrides;
    char **patterns;
    size_t n_patterns;
};

/* scheme, tensor types, output and embedding type of opts. NB_E_USAGE names the word. Release also after an
 * error. */
int nb_gguf_choice_make(struct nb_gguf_choice *c, const struct nb_gguf_opts *opts,
                        const struct nb_model *model, struct nb_err *err);
void nb_gguf_choice_release(struct nb_gguf_choice *c);

#endif
