/* SPDX-License-Identifier: Apache-2.0
 *
 * mixtral.c - Mixtral: Mistral's attention, experts in every layer under names of their own; the weights
 * of the chosen ones always sum to 1. */
#include "arch/family.h"

static int fill(struct nb_arch *arch, const json_t *config, struct nb_err *err)
{
    const json_t *window = json_object_get(config, "sliding_window");
    struct nb_dense_traits traits = {
        .window = window && !json_is_null(window) ? NB_WINDOW_EVERYWHERE : NB_WINDOW_NEVER,
        .default_kv_heads = 8,
        .default_max_position = 131072,
        .default_theta = 1e6,
        .default_eps = 1e-5,
    };
    const struct nb_moe_traits moe = {
        .count_key = "num_local_experts",
        .default_experts = 8,
        .default_top_k = 2,
        .every_layer = true,
        .mixtral_names = true,
    };
    int rc = nb_arch_dense_plan(arch, config, &traits, err);
    return rc ? rc : nb_arch_moe_plan(arch, config, &moe, err);
}

const struct nb_arch_family nb_arch_mixtral = {
    .model_type = "mixtral",
    .fill = fill,
};
