/* SPDX-License-Identifier: Apache-2.0
 *
 * qwen2.c - Qwen2 and Qwen2.5: biases on q, k and v always and nowhere else, windows by layer. */
#include "arch/family.h"

static int fill(struct nb_arch *arch, const json_t *config, struct nb_err *err)
{
    struct nb_dense_traits traits = {
        .qkv_bias = true,
        .window = NB_WINDOW_BY_LAYER,
        .default_kv_heads = 32,
        .default_max_position = 32768,
    };
    return nb_arch_dense_plan(arch, config, &traits, err);
}

const struct nb_arch_family nb_arch_qwen2 = {
    .model_type = "qwen2",
    .fill = fill,
    .gguf = {.architecture = "qwen2", .class_name = "Qwen2ForCausalLM"},
};
