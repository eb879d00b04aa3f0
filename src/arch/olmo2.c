/* SPDX-License-Identifier: Apache-2.0
 *
 * olmo2.c - OLMo 2: no norm before attention and MLP but one after each, and one over all of q and all
 * of k at once. */
#include "arch/family.h"

static int fill(struct nb_arch *arch, const json_t *config, struct nb_err *err)
{
    bool attention_bias = false;
    int rc = nb_json_get_bool(config, "attention_bias", false, &attention_bias, NB_CONFIG, err);
    if (rc) return rc;
    struct nb_dense_traits traits = {
        .qkv_bias = attention_bias,
        .o_bias = attention_bias,
        .qk_norm = true,
        .qk_norm_whole = true,
        .post_norm_only = true,
        .window = NB_WINDOW_NEVER,
        .default_max_position = 2048,
        .default_eps = 1e-5,
    };
    return nb_arch_dense_plan(arch, config, &traits, err);
}

const struct nb_arch_family nb_arch_olmo2 = {
    .model_type = "olmo2",
    .fill = fill,
    .gguf = {.architecture = "olmo2",
             .class_name = "Olmo2ForCausalLM",
             .untied_only = true,
             .square_attention = true},
};
