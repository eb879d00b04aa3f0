/* SPDX-License-Identifier: Apache-2.0
 *
 * qwen3.c - Qwen3 (dense): an RMSNorm over each head of q and k before rope, head_dim of its
 * own. */
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
        .window = NB_WINDOW_BY_LAYER,
        .default_kv_heads = 32,
        .default_head_dim = 128,
        .default_max_position = 32768,
    };
    return nb_arch_dense_plan(arch, config, &traits, err);
}

const struct nb_arch_family nb_arch_qwen3 = {
    .model_type = "qwen3",
    .fill = fill,
    .gguf = {.architecture = "qwen3", .class_name = "Qwen3ForCausalLM"},
};
