/* SPDX-License-Identifier: Apache-2.0
 *
 * mistral.c - Mistral: Llama without biases, every layer behind one sliding window.
 *
 * As in the reference, layer_types is not consulted, and a missing sliding_window means 4096. A GGUF
 * calls it llama, and that is what comes back from one; the window is not in the file. */
#include "arch/family.h"

static int fill(struct nb_arch *arch, const json_t *config, struct nb_err *err)
{
    struct nb_dense_traits traits = {
        .window = NB_WINDOW_EVERYWHERE,
        .default_kv_heads = 8,
        .default_max_position = 131072,
    };
    return nb_arch_dense_plan(arch, config, &traits, err);
}

const struct nb_arch_family nb_arch_mistral = {
    .model_type = "mistral",
    .fill = fill,
    .gguf = {.architecture = "llama",
             .class_name = "LlamaForCausalLM",
             .permute = true,
             .all_biases = true,
             .rope_freqs = true},
};
