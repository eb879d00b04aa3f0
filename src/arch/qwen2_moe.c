/* SPDX-License-Identifier: Apache-2.0
 *
 * qwen2_moe.c - Qwen2-MoE (Qwen1.5-MoE, Qwen2-57B-A14B): Qwen2's attention, experts beside one that sees
 * every token behind a sigmoid gate.
 *
 * As in the reference, windows without layer_types go to every other layer below max_window_layers. */
#include "arch/family.h"

static int alternate_windows(struct nb_arch *arch, const json_t *config, struct nb_err *err)
{
    const json_t *types = json_object_get(config, "layer_types");
    const json_t *width = json_object_get(config, "sliding_window");
    bool use = false;
    int64_t below = 28, window = 4096;
    int rc = nb_json_get_bool(config, "use_sliding_window", false, &use, NB_CONFIG, err);
    if (rc || !use || (types && !json_is_null(types)) || (width && json_is_null(width))) return rc;
    rc = nb_json_get_int(config, "max_window_layers", false, &below, NB_CONFIG, err);
    if (!rc) rc = nb_json_get_int(config, "sliding_window", false, &window, NB_CONFIG, err);
    for (int64_t l = 0; l < arch->n_layers && !rc; l++)
        arch->window[l] = l % 2 == 0 && l < below ? window : 0;
    return rc;
}

static int fill(struct nb_arch *arch, const json_t *config, struct nb_err *err)
{
    bool bias = true;
    int rc = nb_json_get_bool(config, "qkv_bias", false, &bias, NB_CONFIG, err);
    if (rc) return rc;
    struct nb_dense_traits traits = {
        .qkv_bias = bias,
        .window = NB_WINDOW_BY_LAYER,
        .default_kv_heads = 16,
        .default_max_position = 32768,
    };
    const struct nb_moe_traits moe = {
        .count_key = "num_experts",
        .default_experts = 60,
        .default_top_k = 4,
        .default_size = 1408,
        .default_shared = 5632,
    };
    rc = nb_arch_dense_plan(arch, config, &traits, err);
    if (!rc) rc = alternate_windows(arch, config, err);
    return rc ? rc : nb_arch_moe_plan(arch, config, &moe, err);
}

const struct nb_arch_family nb_arch_qwen2_moe = {
    .model_type = "qwen2_moe",
    .fill = fill,
};
