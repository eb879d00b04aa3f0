/* SPDX-License-Identifier: Apache-2.0
 *
 * gemma3.c - Gemma 3: five layers behind a window with a rotary base of their own, then one that sees
 * everything; q and k normalized head by head.
 *
 * A checkpoint for text and images (model_type gemma3) is read as its text model: the same config one
 * level down, names behind language_model., and tensors of the images' part beside it. From a GGUF
 * comes gemma3_text. */
#include <stdio.h>
#include <string.h>

#include "arch/family.h"

static int fill(struct nb_arch *arch, const json_t *config, struct nb_err *err)
{
    struct nb_dense_traits traits = {
        .gemma = true,
        .qk_norm = true,
        .local_rope = true,
        .window = NB_WINDOW_PERIODIC,
        .window_period = 6,
        .default_vocab = 262208,
        .default_heads = 8,
        .default_kv_heads = 4,
        .default_head_dim = 256,
        .default_max_position = 131072,
    };
    const struct nb_gemma_defaults defaults = {.no_attn_softcap = true};
    return nb_arch_gemma_plan(arch, config, &traits, &defaults, err);
}

/* ---- with images ---- */

static const char *const image_parts[] = {"vision_tower.", "multi_modal_projector.", NULL};

static void prefix_name(char name[NB_NAME_MAX])
{
    char plain[NB_NAME_MAX];
    memcpy(plain, name, sizeof plain);
    snprintf(name, NB_NAME_MAX, "language_model.%.60s", plain);
}

/* text_config laid over the keys around it, but for those that belong to the whole. */
static json_t *text_config(const json_t *config, const json_t *text)
{
    static const char *const outer[] = {"bos_token_id", "eos_token_id", "dtype", "torch_dtype"};
    json_t *merged = json_copy((json_t *)config);
    if (!merged || json_object_update(merged, (json_t *)text)) {
        json_decref(merged);
        return NULL;
    }
    for (size_t i = 0; i < sizeof outer / sizeof *outer; i++) {
        json_t *v = json_object_get(config, outer[i]);
        if (v && !json_is_null(v)) json_object_set(merged, outer[i], v);
    }
    return merged;
}

static int fill_text_of_both(struct nb_arch *arch, const json_t *config, struct nb_err *err)
{
    const json_t *text = json_object_get(config, "text_config");
    if (!json_is_object(text)) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_CONFIG ": key 'text_config': expected an object, found %s",
                       text ? nb_json_type_name(text) : "nothing");
    }
    json_t *merged = text_config(config, text);
    if (!merged) return nb_fail(err, NB_E_NOMEM, "no memory for text_config");
    int rc = fill(arch, merged, err);
    json_decref(merged);
    if (rc) return rc;
    prefix_name(arch->layer_prefix);
    prefix_name(arch->embed_name);
    prefix_name(arch->norm_name);
    prefix_name(arch->head_name);
    arch->other_parts = image_parts;
    return 0;
}

const struct nb_arch_family nb_arch_gemma3_text = {
    .model_type = "gemma3_text",
    .fill = fill,
    .gguf = {.architecture = "gemma3",
             .class_name = "Gemma3ForCausalLM",
             .local_rope = true,
             .window_period = 6,
             .odd_scale_layers = 62},
};

const struct nb_arch_family nb_arch_gemma3 = {
    .model_type = "gemma3",
    .fill = fill_text_of_both,
    .gguf = {.architecture = "gemma3",
             .class_name = "Gemma3ForCausalLM",
             .local_rope = true,
             .window_period = 6,
             .odd_scale_layers = 62},
};
