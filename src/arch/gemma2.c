/* SPDX-License-Identifier: Apache-2.0
 *
 * gemma2.c - Gemma 2: every other layer behind a window, scores and logits soft-capped, four norms a
 * layer. */
#include "arch/family.h"

static int fill(struct nb_arch *arch, const json_t *config, struct nb_err *err)
{
    struct nb_dense_traits traits = {
        .gemma = true,
        .window = NB_WINDOW_PERIODIC,
        .window_period = 2,
        .default_vocab = 256000,
        .default_heads = 8,
        .default_kv_heads = 4,
        .default_head_dim = 256,
        .default_max_position = 8192,
    };
    const struct nb_gemma_defaults defaults = {.attn_softcap = 50, .final_softcap = 30};
    return nb_arch_gemma_plan(arch, config, &traits, &defaults, err);
}

const struct nb_arch_family nb_arch_gemma2 = {
    .model_type = "gemma2",
    .fill = fill,
    .gguf = {.architecture = "gemma2",
             .class_name = "Gemma2ForCausalLM",
             .tied_only = true,
             .window_period = 2,
             .default_window = 4096,
             .attn_softcap = 50,
             .final_softcap = 30,
             .odd_scale_layers = 46},
};
