/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_config.c - GGUF metadata -> a config.json as Hugging Face would have it.
 *
 * Keys that llama.cpp may do without get llama.cpp's defaults, not Hugging Face's. What it fixes per
 * architecture is written out. Source: GGUF specification, sections 1.6 M1, 2.1; llama.cpp,
 * src/models. */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/gguf_read.h"

enum { MAX_BLOCKS = 512, MAX_SIZE = INT32_MAX };

/* ---- keys ---- */

static void full_key(const struct nb_arch_gguf_reading *in, const char *key, char out[128])
{
    snprintf(out, 128, "%s.%s", in->map->architecture, key);
}

const json_t *nb_arch_gguf_get(const struct nb_arch_gguf_reading *in, const char *key)
{
    char full[128];
    full_key(in, key, full);
    return json_object_get(in->metadata, full);
}

static int check_size(const char *key, int64_t limit, int64_t v, struct nb_err *err)
{
    if (v >= 1 && v <= limit) return 0;
    return nb_fail(err, NB_E_FORMAT,
                   NB_ARCH_GGUF_META ": key '%s': expected an integer from 1 to %" PRId64
                                     ", found %" PRId64,
                   key, limit, v);
}

int nb_arch_gguf_get_size(const struct nb_arch_gguf_reading *in, const char *key, bool required,
                          int64_t limit, int64_t *out, struct nb_err *err)
{
    char full[128];
    full_key(in, key, full);
    int64_t v = *out;
    int rc = nb_json_get_int(in->metadata, full, required, &v, NB_ARCH_GGUF_META, err);
    if (!rc) rc = check_size(full, limit, v, err);
    if (!rc) *out = v;
    return rc;
}

/* 1e-6 is stored as the f32 next to it; the shortest decimal that rounds to it is what was meant. */
double nb_arch_gguf_shortest(double v)
{
    if (!isfinite(v) || fabs(v) > (double)FLT_MAX || (double)(float)v != v) return v;
    for (int digits = 1; digits <= 9; digits++) {
        char text[40];
        snprintf(text, sizeof text, "%.*g", digits, v);
        double back = strtod(text, NULL);
        if ((float)back == (float)v) return back;
    }
    return v;
}

int nb_arch_gguf_get_real(const struct nb_arch_gguf_reading *in, const char *key, bool required,
                          double *out, struct nb_err *err)
{
    char full[128];
    full_key(in, key, full);
    double v = *out;
    int rc = nb_json_get_real(in->metadata, full, required, &v, NB_ARCH_GGUF_META, err);
    if (rc) return rc;
    if (!isfinite(v)) {
        return nb_fail(err, NB_E_FORMAT, NB_ARCH_GGUF_META ": key '%s': expected a finite number",
                       full);
    }
    *out = nb_arch_gguf_shortest(v);
    return 0;
}

int nb_arch_gguf_get_string(const struct nb_arch_gguf_reading *in, const char *key, bool required,
                            const char **out, struct nb_err *err)
{
    char full[128];
    full_key(in, key, full);
    return nb_json_get_string(in->metadata, full, required, out, NB_ARCH_GGUF_META, err);
}

int nb_arch_gguf_put(json_t *config, const char *key, json_t *value, struct nb_err *err)
{
    if (value && json_object_set_new(config, key, value) == 0) return 0;
    return nb_fail(err, NB_E_NOMEM, "no memory for the config of a GGUF file");
}

static int put_int(json_t *config, const char *key, int64_t v, struct nb_err *err)
{
    return nb_arch_gguf_put(config, key, json_integer(v), err);
}

/* A size, or one for each layer that must all be the same. */
static int get_per_layer(const struct nb_arch_gguf_reading *in, const char *key, bool required,
                         int64_t *out, struct nb_err *err)
{
    const json_t *v = nb_arch_gguf_get(in, key);
    if (!json_is_array(v)) return nb_arch_gguf_get_size(in, key, required, MAX_SIZE, out, err);
    char full[128];
    full_key(in, key, full);
    if ((int64_t)json_array_size(v) != in->n_layers) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_ARCH_GGUF_META ": key '%s': expected %" PRId64
                                         " values, one for each layer, "
                                         "found %zu",
                       full, in->n_layers, json_array_size(v));
    }
    for (int64_t l = 0; l < in->n_layers; l++) {
        const json_t *one = json_array_get(v, (size_t)l);
        if (!json_is_integer(one)) {
            return nb_fail(err, NB_E_FORMAT,
                           NB_ARCH_GGUF_META ": key '%s': expected integers, found %s", full,
                           nb_json_type_name(one));
        }
        if (l && json_integer_value(one) != *out) {
            return nb_fail(err, NB_E_SPEC,
                           NB_ARCH_GGUF_META
                           ": key '%s': values that differ from layer to layer are not "
                           "supported",
                           full);
        }
        *out = json_integer_value(one);
    }
    return check_size(full, MAX_SIZE, *out, err);
}

/* ---- sizes ---- */

static int refuse_experts(const struct nb_arch_gguf_reading *in, struct nb_err *err)
{
    int64_t count = 0, used = 0;
    char full[128];
    full_key(in, "expert_count", full);
    int rc = nb_json_get_int(in->metadata, full, false, &count, NB_ARCH_GGUF_META, err);
    full_key(in, "expert_used_count", full);
    if (!rc) rc = nb_json_get_int(in->metadata, full, false, &used, NB_ARCH_GGUF_META, err);
    if (rc) return rc;
    if (used > count || used < 0 || count < 0) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_ARCH_GGUF_META ": key '%s': %" PRId64 " experts are used of %" PRId64,
                       full, used, count);
    }
    if (!count) return 0;
    return nb_fail(err, NB_E_SPEC,
                   NB_ARCH_GGUF_META ": a mixture of %" PRId64 " experts is not supported", count);
}

static int read_vocab(const struct nb_arch_gguf_reading *in, json_t *config, struct nb_err *err)
{
    int64_t rows = in->facts->vocab_size, said = rows;
    int rc = nb_arch_gguf_get_size(in, "vocab_size", false, MAX_SIZE, &said, err);
    if (rc) return rc;
    if (said != rows) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_ARCH_GGUF_META ": key '%s.vocab_size' is %" PRId64
                                         ", token_embd.weight has "
                                         "%" PRId64 " rows",
                       in->map->architecture, said, rows);
    }
    return put_int(config, "vocab_size", rows, err);
}

/* partial_rotary_factor, of which the product with head_dim is rounded down. */
static int put_share(int64_t head_dim, int64_t rotated, json_t *config, struct nb_err *err)
{
    double share = (double)rotated / (double)head_dim;
    if ((int64_t)((double)head_dim * share) < rotated) share = nextafter(share, 1);
    return nb_arch_gguf_put(config, "partial_rotary_factor", json_real(share), err);
}

static int read_head_dim(struct nb_arch_gguf_reading *in, int64_t hidden, json_t *config,
                         struct nb_err *err)
{
    const char *name = in->map->architecture;
    bool given = nb_arch_gguf_get(in, "attention.key_length") != NULL;
    if (!given && hidden % in->n_heads) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_ARCH_GGUF_META ": %s.embedding_length %" PRId64 " is not a multiple of "
                                         "head_count %" PRId64 " and there is no key_length",
                       name, hidden, in->n_heads);
    }
    in->head_dim = hidden / in->n_heads;
    int rc = nb_arch_gguf_get_size(in, "attention.key_length", given, MAX_SIZE, &in->head_dim, err);
    int64_t value = given ? hidden / in->n_heads : in->head_dim, rotated = in->head_dim;
    if (!rc) rc = nb_arch_gguf_get_size(in, "attention.value_length", false, MAX_SIZE, &value, err);
    if (!rc) rc = nb_arch_gguf_get_size(in, "rope.dimension_count", false, MAX_SIZE, &rotated, err);
    if (rc) return rc;
    if (rotated > in->head_dim || rotated % 2) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_ARCH_GGUF_META
                       ": key '%s.rope.dimension_count': expected an even number up to "
                       "the head size %" PRId64 ", found %" PRId64,
                       name, in->head_dim, rotated);
    }
    in->rotary_dim = rotated;
    if (value == in->head_dim && rotated == in->head_dim) return 0;
    if (value == in->head_dim && in->map->rope_dimensions)
        return put_share(in->head_dim, rotated, config, err);
    return nb_fail(err, NB_E_SPEC,
                   NB_ARCH_GGUF_META ": heads whose key_length %" PRId64 ", value_length %" PRId64
                                     " and rope.dimension_count %" PRId64
                                     " differ are not supported",
                   in->head_dim, value, rotated);
}

static int read_sizes(struct nb_arch_gguf_reading *in, json_t *config, struct nb_err *err)
{
    int64_t hidden = 0, inter = 0, kv;
    double eps = 0;
    int rc = nb_arch_gguf_get_size(in, "block_count", true, MAX_BLOCKS, &in->n_layers, err);
    if (!rc) rc = nb_arch_gguf_get_size(in, "context_length", true, UINT32_MAX, &in->context, err);
    if (!rc) rc = nb_arch_gguf_get_size(in, "embedding_length", true, MAX_SIZE, &hidden, err);
    if (!rc) rc = get_per_layer(in, "feed_forward_length", true, &inter, err);
    if (!rc) rc = get_per_layer(in, "attention.head_count", true, &in->n_heads, err);
    kv = in->n_heads;
    if (!rc) rc = get_per_layer(in, "attention.head_count_kv", false, &kv, err);
    if (!rc) rc = read_head_dim(in, hidden, config, err);
    if (!rc)
        rc = nb_arch_gguf_get_real(in,
                                   in->map->layer_norm ? "attention.layer_norm_epsilon"
                                                       : "attention.layer_norm_rms_epsilon",
                                   true, &eps, err);
    if (rc) return rc;
    if (in->n_heads % kv) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_ARCH_GGUF_META ": %s.attention.head_count %" PRId64
                                         " is not a multiple of "
                                         "head_count_kv %" PRId64,
                       in->map->architecture, in->n_heads, kv);
    }
    rc = put_int(config, "max_position_embeddings", in->context, err);
    if (!rc) rc = put_int(config, "hidden_size", hidden, err);
    if (!rc) rc = put_int(config, "num_hidden_layers", in->n_layers, err);
    if (!rc) rc = put_int(config, "intermediate_size", inter, err);
    if (!rc) rc = put_int(config, "num_attention_heads", in->n_heads, err);
    if (!rc) rc = put_int(config, "num_key_value_heads", kv, err);
    if (!rc) rc = put_int(config, "head_dim", in->head_dim, err);
    if (!rc) rc = nb_arch_gguf_put(config, "rms_norm_eps", json_real(eps), err);
    return rc;
}

/* ---- what a family fixes ---- */

static int put_biases(const struct nb_arch_gguf_reading *in, const char *model_type, json_t *config,
                      struct nb_err *err)
{
    const struct nb_arch_gguf_facts *f = in->facts;
    if (strcmp(model_type, "qwen2") == 0) { /* has them always, and the config no word for it */
        if (f->has_qkv_bias && !f->has_o_bias) return 0;
        return nb_fail(err, NB_E_SPEC, "qwen2: expected biases on q, k and v and on nothing else");
    }
    if (f->has_qkv_bias != f->has_o_bias) {
        return nb_fail(err, NB_E_SPEC,
                       "%s: attention has biases on %s only, which a config.json cannot say",
                       model_type, f->has_o_bias ? "its output" : "q, k and v");
    }
    int rc = nb_arch_gguf_put(config, "attention_bias", json_boolean(f->has_qkv_bias), err);
    if (rc || !in->map->all_biases) return rc;
    return nb_arch_gguf_put(config, "mlp_bias", json_boolean(f->has_mlp_bias), err);
}

static int put_gemma(const struct nb_arch_gguf_reading *in, json_t *config, struct nb_err *err)
{
    const struct nb_arch_gguf_map *map = in->map;
    int64_t scalar = in->head_dim;
    if (map->odd_scale_layers == in->n_layers)
        scalar = json_integer_value(json_object_get(config, "hidden_size")) / in->n_heads;
    double attn = map->attn_softcap, final = map->final_softcap;
    int rc = put_int(config, "query_pre_attn_scalar", scalar, err);
    if (!rc) rc = nb_arch_gguf_get_real(in, "final_logit_softcapping", false, &final, err);
    if (!rc && attn > 0)
        rc = nb_arch_gguf_get_real(in, "attn_logit_softcapping", false, &attn, err);
    if (!rc) {
        bool has = map->final_softcap > 0 || final != 0;
        rc = nb_arch_gguf_put(config, "final_logit_softcapping",
                              has ? json_real(final) : json_null(), err);
    }
    if (!rc) {
        bool has = map->attn_softcap > 0;
        rc = nb_arch_gguf_put(config, "attn_logit_softcapping", has ? json_real(attn) : json_null(),
                              err);
    }
    return rc ? rc : nb_arch_gguf_read_windows(in, config, err);
}

/* Key -> whether layer l has a window: a period, or one value for each layer. */
static int read_pattern(const struct nb_arch_gguf_reading *in, json_t *types, struct nb_err *err)
{
    const json_t *v = nb_arch_gguf_get(in, "attention.sliding_window_pattern");
    int64_t period = v && json_is_integer(v) ? json_integer_value(v) : in->map->window_period;
    bool each = json_is_array(v);
    if (v && !each && (!json_is_integer(v) || period < 0)) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_ARCH_GGUF_META
                       ": key '%s.attention.sliding_window_pattern': expected a period "
                       "or one value for each layer",
                       in->map->architecture);
    }
    if (each && (int64_t)json_array_size(v) != in->n_layers) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_ARCH_GGUF_META
                       ": key '%s.attention.sliding_window_pattern': expected %" PRId64
                       " values, one for each layer, found %zu",
                       in->map->architecture, in->n_layers, json_array_size(v));
    }
    for (int64_t l = 0; l < in->n_layers; l++) {
        const json_t *one = each ? json_array_get(v, (size_t)l) : NULL;
        if (one && !json_is_boolean(one) && !json_is_integer(one)) {
            return nb_fail(err, NB_E_FORMAT,
                           NB_ARCH_GGUF_META
                           ": key '%s.attention.sliding_window_pattern': expected "
                           "booleans, found %s",
                           in->map->architecture, nb_json_type_name(one));
        }
        bool window = one ? json_is_true(one) || json_integer_value(one) != 0
                          : period == 0 || (l + 1) % period != 0;
        json_t *name = json_string(window ? "sliding_attention" : "full_attention");
        if (json_array_append_new(types, name))
            return nb_fail(err, NB_E_NOMEM, "no memory for %" PRId64 " layer types", in->n_layers);
    }
    return 0;
}

int nb_arch_gguf_read_windows(const struct nb_arch_gguf_reading *in, json_t *config,
                              struct nb_err *err)
{
    char full[128];
    full_key(in, "attention.sliding_window", full);
    int64_t width = in->map->default_window;
    int rc = nb_json_get_int(in->metadata, full, false, &width, NB_ARCH_GGUF_META, err);
    if (rc) return rc;
    if (width < 0 || width > UINT32_MAX || (!width && in->map->default_window)) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_ARCH_GGUF_META ": key '%s': expected a number of tokens, found %" PRId64,
                       full, width);
    }
    if (!width) { /* nobody has a window */
        json_t *types = json_array();
        for (int64_t l = 0; l < in->n_layers; l++)
            json_array_append_new(types, json_string("full_attention"));
        rc = nb_arch_gguf_put(config, "layer_types", types, err);
        return rc ? rc : nb_arch_gguf_put(config, "sliding_window", json_null(), err);
    }
    json_t *types = json_array();
    rc = read_pattern(in, types, err);
    if (rc) {
        json_decref(types);
        return rc;
    }
    rc = nb_arch_gguf_put(config, "layer_types", types, err);
    return rc ? rc : put_int(config, "sliding_window", width, err);
}

/* One window for all layers; 0: none. */
static int read_one_window(const struct nb_arch_gguf_reading *in, json_t *config,
                           struct nb_err *err)
{
    char full[128];
    full_key(in, "attention.sliding_window", full);
    int64_t width = 0;
    int rc = nb_json_get_int(in->metadata, full, false, &width, NB_ARCH_GGUF_META, err);
    if (rc) return rc;
    if (width < 0 || width > MAX_SIZE) {
        return nb_fail(err, NB_E_FORMAT,
                       NB_ARCH_GGUF_META ": key '%s': expected a number of tokens, found %" PRId64,
                       full, width);
    }
    return nb_arch_gguf_put(config, "sliding_window", width ? json_integer(width) : json_null(),
                            err);
}

/* ---- tokens ---- */

static int get_token(const struct nb_arch_gguf_reading *in, const char *key, int64_t *id,
                     struct nb_err *err)
{
    *id = -1;
    int rc = nb_json_get_int(in->metadata, key, false, id, NB_ARCH_GGUF_META, err);
    if (rc || (*id >= 0 && *id < in->facts->vocab_size)) return rc;
    if (!json_object_get(in->metadata, key)) return 0;
    return nb_fail(err, NB_E_FORMAT,
                   NB_ARCH_GGUF_META ": key '%s' is %" PRId64 ", the vocabulary has %" PRId64
                                     " tokens",
                   key, *id, in->facts->vocab_size);
}

static int put_tokens(const struct nb_arch_gguf_reading *in, json_t *config, struct nb_err *err)
{
    int64_t bos, eos, eot, pad;
    int rc = get_token(in, "tokenizer.ggml.bos_token_id", &bos, err);
    if (!rc) rc = get_token(in, "tokenizer.ggml.eos_token_id", &eos, err);
    if (!rc) rc = get_token(in, "tokenizer.ggml.eot_token_id", &eot, err);
    if (!rc) rc = get_token(in, "tokenizer.ggml.padding_token_id", &pad, err);
    if (!rc && bos >= 0) rc = put_int(config, "bos_token_id", bos, err);
    if (!rc && pad >= 0) rc = put_int(config, "pad_token_id", pad, err);
    if (rc || (eos < 0 && eot < 0)) return rc;
    if (eos < 0) eos = eot;
    if (eot < 0 || eot == eos) return put_int(config, "eos_token_id", eos, err);
    return nb_arch_gguf_put(config, "eos_token_id",
                            json_pack("[I,I]", (json_int_t)eos, (json_int_t)eot), err);
}

/* ---- all of it ---- */

static int find_family(const json_t *metadata, const struct nb_arch_family **family,
                       struct nb_err *err)
{
    const char *name = NULL;
    int rc =
        nb_json_get_string(metadata, "general.architecture", true, &name, NB_ARCH_GGUF_META, err);
    if (rc) return rc;
    *family = nb_arch_family_by_gguf(name);
    if (*family) return 0;
    struct nb_strbuf list;
    nb_strbuf_init(&list);
    nb_arch_list_gguf(&list);
    rc = nb_fail(err, NB_E_SPEC,
                 NB_ARCH_GGUF_META ": architecture '%.40s' is not supported, expected one of: %s",
                 name, nb_strbuf_cstr(&list));
    nb_strbuf_release(&list);
    return rc;
}

static int fill(struct nb_arch_gguf_reading *in, const struct nb_arch_family *family,
                json_t *config, struct nb_err *err)
{
    const bool gemma = in->map->window_period > 0;
    int rc = nb_arch_gguf_put(config, "architectures", json_pack("[s]", in->map->class_name), err);
    if (!rc) rc = nb_arch_gguf_put(config, "model_type", json_string(family->model_type), err);
    if (!rc && in->facts->dtype)
        rc = nb_arch_gguf_put(config, "torch_dtype", json_string(in->facts->dtype), err);
    if (!rc) rc = refuse_experts(in, err);
    if (!rc) rc = read_sizes(in, config, err);
    if (!rc) rc = read_vocab(in, config, err);
    if (!rc)
        rc = nb_arch_gguf_put(config, gemma ? "hidden_activation" : "hidden_act",
                              json_string(gemma           ? "gelu_pytorch_tanh"
                                          : in->map->gelu ? "gelu_new"
                                                          : "silu"),
                              err);
    if (!rc) {
        rc = nb_arch_gguf_put(config, "tie_word_embeddings", json_boolean(!in->facts->has_output),
                              err);
    }
    if (!rc) rc = put_biases(in, family->model_type, config, err);
    if (!rc) rc = nb_arch_gguf_read_rope(in, config, err);
    if (!rc && gemma) rc = put_gemma(in, config, err);
    if (!rc && in->map->window_key) rc = read_one_window(in, config, err);
    if (!rc && in->map->no_rope_period)
        rc = put_int(config, "no_rope_layer_interval", in->map->no_rope_period, err);
    if (!rc) rc = put_tokens(in, config, err);
    return rc || !in->map->own_config ? rc : in->map->own_config(config, err);
}

int nb_arch_gguf_config(const json_t *metadata, const struct nb_arch_gguf_facts *facts,
                        json_t **config, struct nb_err *err)
{
    const struct nb_arch_family *family;
    *config = NULL;
    int rc = find_family(metadata, &family, err);
    if (rc) return rc;
    struct nb_arch_gguf_reading in = {.metadata = metadata, .facts = facts, .map = &family->gguf};
    json_t *made = json_object();
    if (!made) return nb_fail(err, NB_E_NOMEM, "no memory for the config of a GGUF file");
    rc = fill(&in, family, made, err);
    if (rc) json_decref(made);
    else *config = made;
    return rc;
}
