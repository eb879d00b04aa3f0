/* SPDX-License-Identifier: Apache-2.0
 *
 * phi3.c - Phi-3 and Phi-4: q, k, v in one matrix and gate, up in another, part of each head rotated
 * (Phi-4-mini), longrope for long contexts.
 *
 * As in the reference, sliding_window holds for every layer (absent: none), rope_type yarn means
 * longrope, and original_max_position_embeddings is 4096 where the config does not say. */
#include "arch/family.h"

static int fill(struct nb_arch *arch, const json_t *config, struct nb_err *err)
{
    const bool window = json_object_get(config, "sliding_window") != NULL;
    struct nb_dense_traits traits = {
        .fused = true,
        .partial_rotary = true,
        .yarn_is_longrope = true,
        .window = window ? NB_WINDOW_EVERYWHERE : NB_WINDOW_NEVER,
        .default_max_position = 4096,
        .default_original_position = 4096,
        .default_eps = 1e-5,
    };
    return nb_arch_dense_plan(arch, config, &traits, err);
}

const struct nb_arch_family nb_arch_phi3 = {
    .model_type = "phi3",
    .fill = fill,
    .gguf = {.architecture = "phi3",
             .class_name = "Phi3ForCausalLM",
             .rope_dimensions = true,
             .square_attention = true,
             .rope_factors = true,
             .window_key = true},
};
