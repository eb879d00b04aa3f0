/* SPDX-License-Identifier: Apache-2.0
 *
 * plan.c - the plan that dense decoders share: sizes, windows, seven linears, four folds, names.
 *
 *   h += o(attention(rope(q(x)), rope(k(x)), v(x))),  x = norm(h)
 *   h += down(act(gate(x)) * up(x)),                  x = norm(h)
 *
 * q, k, v share an input, gate and up share one; some families have each of these as one fused matrix.
 * Gemma normalizes what o and down give once more before it joins h; folds do not mind, since they
 * change neither. OLMo 2 has only these norms, so nothing can be folded in front of q or gate. Limits keep every product of sizes
 * far inside 64 bits. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "arch/family.h"
#include "base/mem.h"

enum {
    MAX_VOCAB = 1 << 24,
    MAX_WIDTH = 1 << 20, /* hidden, intermediate, heads * head_dim */
    MAX_HEADS = 1 << 14,
    MAX_HEAD_DIM = 1024,
};
#define MAX_POSITION ((int64_t)1 << 31)

/* An integer in [1, limit]; fallback 0: the key is required. */
static int get_size(const json_t *config, const char *key, int64_t fallback, int64_t limit,
                    int64_t *out, struct nb_err *err)
{
    *out = fallback;
    int rc = nb_json_get_int(config, key, fallback == 0, out, NB_CONFIG, err);
    if (rc) return rc;
    if (*out < 1 || *out > limit) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_CONFIG ": key '%s': expected an integer from 1 to %" PRId64
                                 ", found %" PRId64,
                       key, limit, *out);
    }
    return 0;
}

static int read_heads(struct nb_arch *a, const json_t *config, const struct nb_dense_traits *traits,
                      struct nb_err *err)
{
    int rc =
        get_size(config, "num_attention_heads", traits->default_heads, MAX_HEADS, &a->n_heads, err);
    if (rc) return rc;
    /* null means "as many as query heads" to the reference; a family's default is for absent keys
     * only. */
    const json_t *kv = json_object_get(config, "num_key_value_heads");
    int64_t kv_default = traits->default_kv_heads && !kv ? traits->default_kv_heads : a->n_heads;
    rc = get_size(config, "num_key_value_heads", kv_default, MAX_HEADS, &a->n_kv_heads, err);
    if (rc) return rc;
    if (a->n_heads % a->n_kv_heads) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_CONFIG ": num_attention_heads %" PRId64
                                 " is not a multiple of num_key_value_heads %" PRId64,
                       a->n_heads, a->n_kv_heads);
    }
    int64_t head_dim = traits->default_head_dim;
    if (!head_dim) {
        head_dim = a->hidden_size / a->n_heads;
        const json_t *given = json_object_get(config, "head_dim");
        if ((!given || json_is_null(given)) && a->hidden_size % a->n_heads) {
            return nb_fail(err, NB_E_FORMAT,
                           NB_CONFIG ": hidden_size %" PRId64
                                     " is not a multiple of num_attention_heads %" PRId64
                                     " and there is no head_dim",
                           a->hidden_size, a->n_heads);
        }
        if (!head_dim) head_dim = 1;
    }
    rc = get_size(config, "head_dim", head_dim, MAX_HEAD_DIM, &a->head_dim, err);
    if (rc) return rc;
    if (a->head_dim % 2) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_CONFIG ": rotary positions need an even head_dim, found %" PRId64,
                       a->head_dim);
    }
    if (a->n_heads * a->head_dim > MAX_WIDTH) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_CONFIG ": %" PRId64 " heads of %" PRId64
                                 " make an attention wider than %d",
                       a->n_heads, a->head_dim, MAX_WIDTH);
    }
    return 0;
}

static int read_sizes(struct nb_arch *a, const json_t *config, const struct nb_dense_traits *traits,
                      struct nb_err *err)
{
    int rc = get_size(config, "vocab_size", traits->default_vocab, MAX_VOCAB, &a->vocab_size, err);
    if (!rc) rc = get_size(config, "hidden_size", 0, MAX_WIDTH, &a->hidden_size, err);
    if (!rc) rc = get_size(config, "intermediate_size", 0, MAX_WIDTH, &a->intermediate_size, err);
    if (!rc) rc = get_size(config, "num_hidden_layers", 0, NB_MAX_LAYERS, &a->n_layers, err);
    if (!rc) {
        rc = get_size(config, "max_position_embeddings", traits->default_max_position, MAX_POSITION,
                      &a->max_position, err);
    }
    if (!rc) rc = read_heads(a, config, traits, err);
    if (rc) return rc;
    a->rms_norm_eps = traits->default_eps > 0 ? traits->default_eps : 1e-6;
    rc = nb_json_get_real(config, "rms_norm_eps", false, &a->rms_norm_eps, NB_CONFIG, err);
    if (rc) return rc;
    if (!(a->rms_norm_eps >= 0 && a->rms_norm_eps < 1)) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_CONFIG ": key 'rms_norm_eps': expected 0 up to 1, found %g",
                       a->rms_norm_eps);
    }
    a->tie_word_embeddings = traits->gemma || traits->tied;
    return nb_json_get_bool(config, "tie_word_embeddings", false, &a->tie_word_embeddings,
                            NB_CONFIG, err);
}

static int read_hidden_act(struct nb_arch *a, const json_t *config,
                           const struct nb_dense_traits *traits, struct nb_err *err)
{
    static const struct {
        const char *name;
        enum nb_hidden_act act;
    } known[] = {
        {"silu", NB_HIDDEN_ACT_SILU},
        {"swish", NB_HIDDEN_ACT_SILU},
        {"gelu", NB_HIDDEN_ACT_GELU},
        {"gelu_new", NB_HIDDEN_ACT_GELU_TANH},
        {"gelu_pytorch_tanh", NB_HIDDEN_ACT_GELU_TANH},
        {"relu", NB_HIDDEN_ACT_RELU},
    };
    /* Gemma's configs may hold a hidden_act as well; the reference does not look at it. */
    const char *key = traits->gemma ? "hidden_activation" : "hidden_act";
    const char *name = traits->gemma ? "gelu_pytorch_tanh" : "silu";
    int rc = nb_json_get_string(config, key, false, &name, NB_CONFIG, err);
    if (rc) return rc;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, name) == 0) {
            a->hidden_act = known[i].act;
            return 0;
        }
    }
    return nb_fail(err, NB_E_SPEC,
                   NB_CONFIG ": %s '%.40s' is not known, expected one of: silu, gelu, gelu_new, "
                             "gelu_pytorch_tanh, relu",
                   key, name);
}

static int read_dtype(struct nb_arch *a, const json_t *config, struct nb_err *err)
{
    const char *name = NULL;
    int rc = nb_json_get_string(config, "torch_dtype", false, &name, NB_CONFIG, err);
    if (!rc) rc = nb_json_get_string(config, "dtype", false, &name, NB_CONFIG, err);
    if (rc) return rc;
    a->dtype = NB_BF16;
    if (!name) return 0;
    if (strncmp(name, "torch.", 6) == 0) name += 6;
    if (strcmp(name, "bfloat16") == 0) {
        a->dtype = NB_BF16;
    } else if (strcmp(name, "float16") == 0) {
        a->dtype = NB_F16;
    } else if (strcmp(name, "float32") == 0) {
        a->dtype = NB_F32;
    } else {
        return nb_fail(err, NB_E_SPEC,
                       NB_CONFIG
                       ": dtype '%.40s' is not supported, expected bfloat16, float16 or float32",
                       name);
    }
    return 0;
}

static int read_token_ids(struct nb_arch *a, const json_t *config, struct nb_err *err)
{
    a->bos_id = -1;
    int rc = nb_json_get_int(config, "bos_token_id", false, &a->bos_id, NB_CONFIG, err);
    if (rc) return rc;
    const json_t *eos = json_object_get(config, "eos_token_id");
    if (!eos || json_is_null(eos)) return 0;
    size_t n = json_is_array(eos) ? json_array_size(eos) : 1;
    size_t room = sizeof a->eos_ids / sizeof *a->eos_ids;
    if (n > room) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_CONFIG ": key 'eos_token_id' lists %zu tokens, at most %zu are possible",
                       n, room);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(eos) ? json_array_get(eos, i) : eos;
        if (!json_is_integer(id)) {
            return nb_fail(err, NB_E_FORMAT,
                           NB_CONFIG ": key 'eos_token_id': expected an integer, found %s",
                           nb_json_type_name(id));
        }
        a->eos_ids[a->n_eos++] = json_integer_value(id);
    }
    return 0;
}

/* *width: the window in force, 0 for none. */
static int read_window_width(const json_t *config, enum nb_window_rule rule, int64_t *width,
                             struct nb_err *err)
{
    *width = 0;
    if (rule == NB_WINDOW_NEVER) return 0;
    if (rule == NB_WINDOW_BY_LAYER || rule == NB_WINDOW_LISTED) {
        bool use = false;
        int rc = nb_json_get_bool(config, "use_sliding_window", false, &use, NB_CONFIG, err);
        if (rc || !use) return rc;
    }
    const json_t *v = json_object_get(config, "sliding_window");
    if (v && json_is_null(v)) return 0;
    return get_size(config, "sliding_window", 4096, MAX_POSITION, width, err);
}

/* layer_types, one name per layer. */
static int read_layer_types(struct nb_arch *a, const json_t *types, int64_t width,
                            struct nb_err *err)
{
    if (!json_is_array(types) || (int64_t)json_array_size(types) != a->n_layers) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_CONFIG ": key 'layer_types': expected a list of %" PRId64 " names",
                       a->n_layers);
    }
    for (int64_t l = 0; l < a->n_layers; l++) {
        const char *name = json_string_value(json_array_get(types, (size_t)l));
        if (name && (strcmp(name, "full_attention") == 0 || strcmp(name, "attention") == 0))
            continue;
        if (!name || strcmp(name, "sliding_attention") != 0) {
            return nb_fail(err, NB_E_SPEC,
                           NB_CONFIG ": layer_types[%" PRId64
                                     "]: '%.40s' is not known, expected full_attention "
                                     "or sliding_attention",
                           l, name ? name : "");
        }
        if (!width) {
            return nb_fail(err, NB_E_FORMAT,
                           NB_CONFIG ": layer_types[%" PRId64
                                     "] is sliding_attention, but no sliding_window is in force",
                           l);
        }
        a->window[l] = width;
    }
    return 0;
}

/* Every period-th layer sees everything, the others one window. */
static int read_periodic(struct nb_arch *a, const json_t *config, int64_t period, int64_t width,
                         struct nb_err *err)
{
    const json_t *types = json_object_get(config, "layer_types");
    if (types && !json_is_null(types)) return read_layer_types(a, types, width, err);
    int rc = get_size(config, "sliding_window_pattern", period, NB_MAX_LAYERS, &period, err);
    if (rc) return rc;
    if (!width && period > 1 && a->n_layers > 0) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_CONFIG ": layer 0 has a window, but no sliding_window is in force");
    }
    for (int64_t l = 0; l < a->n_layers; l++) a->window[l] = (l + 1) % period ? width : 0;
    return 0;
}

static int read_windows(struct nb_arch *a, const json_t *config,
                        const struct nb_dense_traits *traits, struct nb_err *err)
{
    const enum nb_window_rule rule = traits->window;
    a->window = nb_calloc((size_t)a->n_layers, sizeof *a->window);
    if (!a->window)
        return nb_fail(err, NB_E_NOMEM, "no memory for %" PRId64 " layers", a->n_layers);
    int64_t width;
    int rc = read_window_width(config, rule, &width, err);
    if (rc) return rc;
    if (rule == NB_WINDOW_PERIODIC)
        return read_periodic(a, config, traits->window_period, width, err);
    int64_t first = 0;
    if (rule == NB_WINDOW_BY_LAYER || rule == NB_WINDOW_LISTED) {
        const json_t *types = json_object_get(config, "layer_types");
        if (types && !json_is_null(types)) return read_layer_types(a, types, width, err);
    }
    if (rule == NB_WINDOW_BY_LAYER) {
        first = 28;
        rc = nb_json_get_int(config, "max_window_layers", false, &first, NB_CONFIG, err);
        if (rc) return rc;
        if (first < 0) first = 0;
    }
    for (int64_t l = first; l < a->n_layers; l++) a->window[l] = width;
    return 0;
}

void nb_arch_add_linear(struct nb_arch *a, const char *name, struct nb_arch_linear lin)
{
    snprintf(lin.name, sizeof lin.name, "%s", name);
    a->linears[a->n_linears++] = lin;
}

void nb_arch_add_fold(struct nb_arch *a, struct nb_arch_fold fold, const char *from)
{
    struct nb_arch_fold *f = &a->folds[a->n_folds++];
    *f = fold;
    if (f->repeat < 1) f->repeat = 1;
    if (f->repeat > 1) f->head_dim = a->head_dim;
    snprintf(f->from, sizeof f->from, "%s", from);
}

void nb_arch_set_name(char out[NB_NAME_MAX], const char *name)
{
    snprintf(out, NB_NAME_MAX, "%s", name);
}

static void lay_out_attention(struct nb_arch *a, const struct nb_dense_traits *t)
{
    const int64_t d = a->hidden_size, q = a->n_heads * a->head_dim,
                  kv = a->n_kv_heads * a->head_dim;
    const struct nb_arch_linear in = {.input = NB_INPUT_ATTN, .cols = d, .bias = t->qkv_bias};
    struct nb_arch_linear lin = in;
    struct nb_arch_fold fold = {
        .kind = NB_FOLD_LINEAR, .to = NB_INPUT_O, .repeat = a->n_heads / a->n_kv_heads};
    const char *from = "self_attn.v_proj";
    if (t->fused) {
        lin.role = NB_ROLE_QKV;
        lin.rows = q + 2 * kv;
        nb_arch_add_linear(a, "self_attn.qkv_proj", lin);
        from = "self_attn.qkv_proj";
        fold.first_row = q + kv;
    } else {
        lin.role = NB_ROLE_Q;
        lin.rows = q;
        nb_arch_add_linear(a, "self_attn.q_proj", lin);
        lin.role = NB_ROLE_K;
        lin.rows = kv;
        nb_arch_add_linear(a, "self_attn.k_proj", lin);
        lin.role = NB_ROLE_V;
        nb_arch_add_linear(a, "self_attn.v_proj", lin);
    }
    nb_arch_add_linear(
        a, "self_attn.o_proj",
        (struct nb_arch_linear){NB_ROLE_O, NB_INPUT_O, .rows = d, .cols = q, .bias = t->o_bias});
    if (*a->attn_norm_name) {
        nb_arch_add_fold(a, (struct nb_arch_fold){.kind = NB_FOLD_NORM, .to = NB_INPUT_ATTN},
                         a->attn_norm_name);
    }
    nb_arch_add_fold(a, fold, from);
}

static void lay_out_mlp(struct nb_arch *a, const struct nb_dense_traits *t)
{
    const int64_t d = a->hidden_size, ff = a->intermediate_size;
    struct nb_arch_linear lin = {.input = NB_INPUT_MLP, .rows = ff, .cols = d, .bias = t->mlp_bias};
    struct nb_arch_fold fold = {.kind = NB_FOLD_LINEAR, .to = NB_INPUT_DOWN};
    const char *from = "mlp.up_proj";
    if (t->fused) {
        lin.role = NB_ROLE_GATE_UP;
        lin.rows = 2 * ff;
        nb_arch_add_linear(a, "mlp.gate_up_proj", lin);
        from = "mlp.gate_up_proj";
        fold.first_row = ff;
    } else {
        lin.role = NB_ROLE_GATE;
        nb_arch_add_linear(a, "mlp.gate_proj", lin);
        lin.role = NB_ROLE_UP;
        nb_arch_add_linear(a, "mlp.up_proj", lin);
    }
    nb_arch_add_linear(a, "mlp.down_proj",
                       (struct nb_arch_linear){NB_ROLE_DOWN, NB_INPUT_DOWN, .rows = d, .cols = ff,
                                               .bias = t->mlp_bias});
    if (*a->mlp_norm_name) {
        nb_arch_add_fold(a, (struct nb_arch_fold){.kind = NB_FOLD_NORM, .to = NB_INPUT_MLP},
                         a->mlp_norm_name);
    }
    nb_arch_add_fold(a, fold, from);
}

static void name_norms(struct nb_arch *a, const struct nb_dense_traits *t)
{
    nb_arch_set_name(a->norm_name, "model.norm.weight");
    nb_arch_set_name(a->attn_norm_name, t->post_norm_only ? "" : "input_layernorm.weight");
    nb_arch_set_name(a->mlp_norm_name, t->post_norm_only ? "" : "post_attention_layernorm.weight");
    a->post_norm = t->gemma || t->post_norm_only;
    if (a->post_norm) {
        nb_arch_set_name(a->post_attn_norm_name, "post_attention_layernorm.weight");
        nb_arch_set_name(a->mlp_norm_name, t->gemma ? "pre_feedforward_layernorm.weight" : "");
        nb_arch_set_name(a->post_mlp_norm_name, "post_feedforward_layernorm.weight");
    }
    a->qk_norm = t->qk_norm;
    a->qk_norm_whole = t->qk_norm_whole;
    if (t->qk_norm) {
        nb_arch_set_name(a->q_norm_name, "self_attn.q_norm.weight");
        nb_arch_set_name(a->k_norm_name, "self_attn.k_norm.weight");
    }
}

static void lay_out(struct nb_arch *a, const struct nb_dense_traits *t)
{
    nb_arch_set_name(a->layer_prefix, "model.layers.%d.");
    nb_arch_set_name(a->embed_name, "model.embed_tokens.weight");
    nb_arch_set_name(a->head_name, "lm_head.weight");
    name_norms(a, t);
    lay_out_attention(a, t);
    lay_out_mlp(a, t);
}

int nb_arch_dense_plan(struct nb_arch *a, const json_t *config,
                       const struct nb_dense_traits *traits, struct nb_err *err)
{
    int rc = read_sizes(a, config, traits, err);
    if (!rc) rc = read_hidden_act(a, config, traits, err);
    if (!rc) rc = read_dtype(a, config, err);
    if (!rc) rc = read_token_ids(a, config, err);
    if (!rc) rc = read_windows(a, config, traits, err);
    if (rc) return rc;
    a->local_rope = traits->local_rope;
    a->rotary_dim = a->head_dim;
    rc = a->local_rope ? nb_arch_read_rope_pair(a, config, err)
                       : nb_arch_read_rope(a, config, traits, err);
    if (rc) return rc;
    a->norm_offset = traits->gemma ? 1 : 0;
    a->embed_scale = traits->gemma ? sqrt((double)a->hidden_size) : 1;
    a->attn_scale = 1 / sqrt((double)a->head_dim);
    lay_out(a, traits);
    return 0;
}
