/* SPDX-License-Identifier: Apache-2.0
 *
 * gpt2.c - GPT-2: learned positions, LayerNorm, one matrix for q, k and v, a plain MLP, every weight
 * stored as [in, out] (Conv1D).
 *
 * The config has names of its own, which become the common ones before the common reader sees them.
 * The first released files leave out the prefix transformer. of all names. */
#include <stdio.h>

#include "arch/family.h"

/* The common keys from GPT-2's; both spellings are in use for four of them. */
static json_t *common_config(const json_t *config)
{
    static const struct {
        const char *own, *common;
        int64_t fallback;
    } keys[] = {
        {"vocab_size", "vocab_size", 50257},   {"n_positions", "max_position_embeddings", 1024},
        {"n_embd", "hidden_size", 768},        {"n_layer", "num_hidden_layers", 12},
        {"n_head", "num_attention_heads", 12},
    };
    json_t *out = json_copy((json_t *)config);
    for (size_t i = 0; out && i < sizeof keys / sizeof *keys; i++) {
        const json_t *v = json_object_get(config, keys[i].own);
        if (!v) v = json_object_get(config, keys[i].common);
        json_t *value = v ? json_incref((json_t *)v) : json_integer(keys[i].fallback);
        json_object_set_new(out, keys[i].common, value);
    }
    const json_t *inner = json_object_get(config, "n_inner");
    const json_t *hidden = out ? json_object_get(out, "hidden_size") : NULL;
    json_t *width =
        inner && !json_is_null(inner)
            ? json_incref((json_t *)inner)
            : json_integer(json_is_integer(hidden) && json_integer_value(hidden) < INT64_MAX / 4
                               ? 4 * json_integer_value(hidden)
                               : 0);
    const json_t *eps = json_object_get(config, "layer_norm_epsilon");
    const json_t *act = json_object_get(config, "activation_function");
    if (out) {
        json_object_set_new(out, "intermediate_size", width);
        json_object_set_new(out, "rms_norm_eps",
                            eps ? json_incref((json_t *)eps) : json_real(1e-5));
        json_object_set_new(out, "hidden_act",
                            act ? json_incref((json_t *)act) : json_string("gelu_new"));
        json_object_del(out, "num_key_value_heads");
        json_object_del(out, "head_dim");
    }
    return out;
}

/* Choices that other models of this type make and that change what it computes. */
static int refuse_choices(const json_t *config, struct nb_err *err)
{
    static const struct {
        const char *key;
        bool expected;
    } fixed[] = {
        {"scale_attn_weights", true},
        {"scale_attn_by_inverse_layer_idx", false},
        {"add_cross_attention", false},
    };
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        bool v = fixed[i].expected;
        int rc = nb_json_get_bool(config, fixed[i].key, false, &v, NB_CONFIG, err);
        if (rc) return rc;
        if (v == fixed[i].expected) continue;
        return nb_fail(err, NB_E_SPEC, NB_CONFIG ": %s %s is not supported, expected %s",
                       fixed[i].key, v ? "true" : "false", v ? "false" : "true");
    }
    return 0;
}

static void lay_out(struct nb_arch *a)
{
    const int64_t d = a->hidden_size, ff = a->intermediate_size;
    a->n_linears = a->n_folds = 0;
    nb_arch_add_linear(a, "attn.c_attn",
                       (struct nb_arch_linear){NB_ROLE_QKV, NB_INPUT_ATTN, .rows = 3 * d, .cols = d,
                                               .bias = true, .transposed = true});
    nb_arch_add_linear(a, "attn.c_proj",
                       (struct nb_arch_linear){NB_ROLE_O, NB_INPUT_O, .rows = d, .cols = d,
                                               .bias = true, .transposed = true});
    nb_arch_add_linear(a, "mlp.c_fc",
                       (struct nb_arch_linear){NB_ROLE_UP, NB_INPUT_MLP, .rows = ff, .cols = d,
                                               .bias = true, .transposed = true});
    nb_arch_add_linear(a, "mlp.c_proj",
                       (struct nb_arch_linear){NB_ROLE_DOWN, NB_INPUT_DOWN, .rows = d, .cols = ff,
                                               .bias = true, .transposed = true});
    snprintf(a->optional_prefix, sizeof a->optional_prefix, "%s", "transformer.");
    nb_arch_set_name(a->layer_prefix, "transformer.h.%d.");
    nb_arch_set_name(a->embed_name, "transformer.wte.weight");
    nb_arch_set_name(a->position_name, "transformer.wpe.weight");
    nb_arch_set_name(a->norm_name, "transformer.ln_f.weight");
    nb_arch_set_name(a->norm_bias_name, "transformer.ln_f.bias");
    nb_arch_set_name(a->attn_norm_name, "ln_1.weight");
    nb_arch_set_name(a->attn_norm_bias_name, "ln_1.bias");
    nb_arch_set_name(a->mlp_norm_name, "ln_2.weight");
    nb_arch_set_name(a->mlp_norm_bias_name, "ln_2.bias");
    a->layer_norm = true;
    a->rotary_dim = 0;
    /* The activation stands between c_fc and c_proj, so nothing can be folded in front of the latter. */
    nb_arch_add_fold(a, (struct nb_arch_fold){.kind = NB_FOLD_NORM, .to = NB_INPUT_ATTN},
                     a->attn_norm_name);
    nb_arch_add_fold(
        a, (struct nb_arch_fold){.kind = NB_FOLD_LINEAR, .to = NB_INPUT_O, .first_row = 2 * d},
        "attn.c_attn");
    nb_arch_add_fold(a, (struct nb_arch_fold){.kind = NB_FOLD_NORM, .to = NB_INPUT_MLP},
                     a->mlp_norm_name);
}

static int fill(struct nb_arch *arch, const json_t *config, struct nb_err *err)
{
    struct nb_dense_traits traits = {
        .tied = true, .window = NB_WINDOW_NEVER, .default_max_position = 1024};
    int rc = refuse_choices(config, err);
    if (rc) return rc;
    json_t *common = common_config(config);
    if (!common) return nb_fail(err, NB_E_NOMEM, "no memory for config.json");
    rc = nb_arch_dense_plan(arch, common, &traits, err);
    json_decref(common);
    if (!rc) lay_out(arch);
    return rc;
}

/* config.json made from a GGUF file: the common names become GPT-2's. */
static int own_config(json_t *config, struct nb_err *err)
{
    static const char *const names[][2] = {
        {"max_position_embeddings", "n_positions"}, {"hidden_size", "n_embd"},
        {"num_hidden_layers", "n_layer"},           {"num_attention_heads", "n_head"},
        {"intermediate_size", "n_inner"},           {"rms_norm_eps", "layer_norm_epsilon"},
        {"hidden_act", "activation_function"},
    };
    static const char *const unknown[] = {"num_key_value_heads", "head_dim", "rope_theta",
                                          "attention_bias", "mlp_bias"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *v = json_object_get(config, names[i][0]);
        if (v && json_object_set(config, names[i][1], v))
            return nb_fail(err, NB_E_NOMEM, "no memory for config.json");
        json_object_del(config, names[i][0]);
    }
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        json_object_del(config, unknown[i]);
    return 0;
}

const struct nb_arch_family nb_arch_gpt2 = {
    .model_type = "gpt2",
    .fill = fill,
    .gguf = {.architecture = "gpt2",
             .class_name = "GPT2LMHeadModel",
             .all_biases = true,
             .gelu = true,
             .layer_norm = true,
             .no_rope = true,
             .own_config = own_config},
};
