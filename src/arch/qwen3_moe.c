/* SPDX-License-Identifier: Apache-2.0
 *
 * qwen3_moe.c - Qwen3-MoE: Qwen3's attention, experts without a shared one. layer_types means nothing to
 * the reference here: a window in use is every layer's. */
#include "arch/family.h"

static int fill(struct nb_arch *arch, const json_t *config, struct nb_err *err)
{
    bool bias = false, window = false;
    int rc = nb_json_get_bool(config, "attention_bias", false, &bias, NB_CONFIG, err);
    if (!rc) rc = nb_json_get_bool(config, "use_sliding_window", false, &window, NB_CONFIG, err);
    if (rc) return rc;
    struct nb_dense_traits traits = {
        .qkv_bias = bias,
        .o_bias = bias,
        .qk_norm = true,
        .window = window ? NB_WINDOW_EVERYWHERE : NB_WINDOW_NEVER,
        .default_kv_heads = 4,
        .default_max_position = 32768,
    };
    const struct nb_moe_traits moe = {
        .count_key = "num_local_experts",
        .default_experts = 128,
        .default_top_k = 8,
        .default_size = 768,
    };
    rc = nb_arch_dense_plan(arch, config, &traits, err);
    return rc ? rc : nb_arch_moe_plan(arch, config, &moe, err);
}

const struct nb_arch_family nb_arch_qwen3_moe = {
    .model_type = "qwen3_moe",
    .fill = fill,
};
