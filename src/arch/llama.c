/* SPDX-License-Identifier: Apache-2.0
 *
 * llama.c - Llama 1, 2, 3, 3.1 and what copies them: no biases unless asked for, no window. */
#include "arch/family.h"

static int fill(struct nb_arch *arch, const json_t *config, struct nb_err *err)
{
    bool attention_bias = false, mlp_bias = false;
    int rc = nb_json_get_bool(config, "attention_bias", false, &attention_bias, NB_CONFIG, err);
    if (!rc) rc = nb_json_get_bool(config, "mlp_bias", false, &mlp_bias, NB_CONFIG, err);
    if (rc) return rc;
    struct nb_dense_traits traits = {
        .qkv_bias = attention_bias,
        .o_bias = attention_bias,
        .mlp_bias = mlp_bias,
        .window = NB_WINDOW_NEVER,
        .default_max_position = 2048,
    };
    return nb_arch_dense_plan(arch, config, &traits, err);
}

const struct nb_arch_family nb_arch_llama = {
    .model_type = "llama",
    .fill = fill,
    .gguf = {.architecture = "llama",
             .class_name = "LlamaForCausalLM",
             .permute = true,
             .all_biases = true,
             .rope_freqs = true},
};
