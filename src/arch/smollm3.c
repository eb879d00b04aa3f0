/* SPDX-License-Identifier: Apache-2.0
 *
 * smollm3.c - SmolLM3: Llama with layers whose queries and keys are not rotated (NoPE), by default every
 * fourth.
 *
 * no_rope_layers holds 1 for a layer that is rotated. A window, where one is in force, belongs to the
 * layers that are not. llama.cpp knows no other choice than every fourth layer. */
#include <inttypes.h>

#include "arch/family.h"
#include "base/mem.h"

/* no_rope_layers, or every no_rope_layer_interval-th. */
static int read_no_rope(struct nb_arch *a, const json_t *config, struct nb_err *err)
{
    const json_t *list = json_object_get(config, "no_rope_layers");
    int64_t interval = 4;
    a->no_rope = nb_calloc((size_t)a->n_layers, sizeof *a->no_rope);
    if (!a->no_rope)
        return nb_fail(err, NB_E_NOMEM, "no memory for %" PRId64 " layers", a->n_layers);
    int rc = nb_json_get_int(config, "no_rope_layer_interval", false, &interval, NB_CONFIG, err);
    if (rc) return rc;
    if (!list || json_is_null(list)) {
        if (interval < 1) {
            return nb_fail(err, NB_E_FORMAT,
                           NB_CONFIG ": key 'no_rope_layer_interval': expected a positive integer, "
                                     "found %" PRId64,
                           interval);
        }
        for (int64_t l = 0; l < a->n_layers; l++) a->no_rope[l] = (l + 1) % interval == 0;
        return 0;
    }
    if (!json_is_array(list) || (int64_t)json_array_size(list) < a->n_layers) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_CONFIG ": key 'no_rope_layers': expected a list of %" PRId64
                                 " integers, one for each layer",
                       a->n_layers);
    }
    for (int64_t l = 0; l < a->n_layers; l++) {
        const json_t *v = json_array_get(list, (size_t)l);
        if (!json_is_integer(v)) {
            return nb_fail(err, NB_E_FORMAT,
                           NB_CONFIG ": no_rope_layers[%" PRId64 "]: expected an integer, found %s",
                           l, nb_json_type_name(v));
        }
        a->no_rope[l] = json_integer_value(v) == 0;
    }
    return 0;
}

/* Without layer_types, the layers that are not rotated have the window. */
static void move_windows(struct nb_arch *a, const json_t *config)
{
    const json_t *types = json_object_get(config, "layer_types");
    if (types && !json_is_null(types)) return;
    for (int64_t l = 0; l < a->n_layers; l++) {
        if (!a->no_rope[l]) a->window[l] = 0;
    }
}

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
        .tied = true,
        .window = NB_WINDOW_LISTED,
        .default_kv_heads = 4,
        .default_max_position = 32768,
        .default_theta = 2e6,
    };
    rc = nb_arch_dense_plan(arch, config, &traits, err);
    if (!rc) rc = read_no_rope(arch, config, err);
    if (!rc) move_windows(arch, config);
    return rc;
}

const struct nb_arch_family nb_arch_smollm3 = {
    .model_type = "smollm3",
    .fill = fill,
    .gguf = {.architecture = "smollm3",
             .class_name = "SmolLM3ForCausalLM",
             .permute = true,
             .no_rope_period = 4},
};
