/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_metadata.c - struct nb_arch -> the metadata keys of its GGUF architecture.
 *
 * llama.cpp fixes per architecture what a config.json may choose: the activation, the scale of scores,
 * which biases there are. Where a model chose otherwise, no file of that architecture could say so,
 * and it is refused here. Where only long contexts differ, a note says how long. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "arch/family.h"
#include "arch/gguf.h"

enum { MAX_BLOCKS = 512 }; /* llama.cpp's arrays end there */

struct list { /* being written */
    const struct nb_arch *arch;
    const struct nb_arch_gguf_map *map;
    json_t *keys, *notes;
    bool failed; /* no memory */
};

static void add(struct list *l, const char *key, const char *type, json_t *value)
{
    char full[128];
    if (strncmp(key, "general.", 8) == 0) snprintf(full, sizeof full, "%s", key);
    else snprintf(full, sizeof full, "%s.%s", l->map->architecture, key);
    json_t *entry = json_pack("{s:s, s:s, s:o}", "key", full, "type", type, "value", value);
    if (!entry || json_array_append_new(l->keys, entry)) l->failed = true;
}

static void add_u32(struct list *l, const char *key, int64_t v)
{
    add(l, key, "u32", json_integer(v));
}

static void add_f32(struct list *l, const char *key, double v)
{
    add(l, key, "f32", json_real(v));
}

static void add_string(struct list *l, const char *key, const char *v)
{
    add(l, key, "string", json_string(v));
}

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static void
note(struct list *l, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (json_array_append_new(l->notes, json_string(text))) l->failed = true;
}

/* ---- what cannot be said ---- */

/* Sizes and layers that the program fixes. */
static int refuse_layout(const struct list *l, struct nb_err *err)
{
    const struct nb_arch *a = l->arch;
    const int64_t width = a->n_heads * a->head_dim, period = l->map->no_rope_period;
    if (l->map->square_attention && width != a->hidden_size) {
        return nb_fail(err, NB_E_SPEC,
                       "llama.cpp's %s has heads as wide as the hidden states, %" PRId64
                       " together, and this model's are %" PRId64,
                       l->map->architecture, a->hidden_size, width);
    }
    for (int64_t i = 0; i < a->n_layers; i++) {
        bool rotated = !l->map->no_rope && !(period && (i + 1) % period == 0);
        if (rotated == nb_arch_uses_rope(a, i)) continue;
        return nb_fail(err, NB_E_SPEC,
                       "llama.cpp's %s %s positions in layer %" PRId64 ", and this model %s",
                       l->map->architecture, rotated ? "rotates" : "does not rotate", i,
                       rotated ? "does not" : "does");
    }
    return 0;
}

static int refuse_choices(const struct list *l, struct nb_err *err)
{
    const struct nb_arch *a = l->arch;
    const char *name = l->map->architecture;
    if (a->n_layers > MAX_BLOCKS) {
        return nb_fail(err, NB_E_SPEC, "a GGUF holds at most %d layers, this model has %" PRId64,
                       MAX_BLOCKS, a->n_layers);
    }
    enum nb_hidden_act act =
        a->norm_offset != 0 || l->map->gelu ? NB_HIDDEN_ACT_GELU_TANH : NB_HIDDEN_ACT_SILU;
    if (a->hidden_act != act) {
        return nb_fail(err, NB_E_SPEC,
                       "llama.cpp computes %s with %s, and this model has another activation", name,
                       act == NB_HIDDEN_ACT_SILU ? "silu" : "gelu_pytorch_tanh");
    }
    for (int i = 0; i < a->n_linears; i++) {
        const struct nb_arch_linear *lin = &a->linears[i];
        bool qkv = lin->role == NB_ROLE_Q || lin->role == NB_ROLE_K || lin->role == NB_ROLE_V ||
                   lin->role == NB_ROLE_QKV;
        if (!lin->bias || qkv || l->map->all_biases) continue;
        return nb_fail(err, NB_E_SPEC, "llama.cpp's %s has no bias for %s, and this model has one",
                       name, lin->name);
    }
    if (l->map->tied_only && !a->tie_word_embeddings) {
        return nb_fail(
            err, NB_E_SPEC,
            "llama.cpp's %s has no head of its own (output.weight), and this model has one", name);
    }
    if (l->map->untied_only && a->tie_word_embeddings) {
        return nb_fail(
            err, NB_E_SPEC,
            "llama.cpp's %s needs a head of its own (output.weight), and this model's is tied",
            name);
    }
    return refuse_layout(l, err);
}

static int refuse_scores(const struct list *l, struct nb_err *err)
{
    const struct nb_arch *a = l->arch;
    int64_t divisor = a->head_dim;
    if (l->map->odd_scale_layers == a->n_layers) divisor = a->hidden_size / a->n_heads;
    double want = 1 / sqrt((double)divisor);
    if (fabs(a->attn_scale - want) > 1e-6 * want) {
        return nb_fail(err, NB_E_SPEC,
                       "llama.cpp scales the scores of %s by 1/sqrt(%" PRId64
                       "), this model by 1/sqrt(%g) (query_pre_attn_scalar)",
                       l->map->architecture, divisor, 1 / (a->attn_scale * a->attn_scale));
    }
    bool needs_caps = l->map->attn_softcap > 0;
    if (needs_caps && (a->attn_softcap <= 0 || a->final_softcap <= 0)) {
        return nb_fail(err, NB_E_SPEC,
                       "llama.cpp caps scores and logits of %s always, and this model has no %s",
                       l->map->architecture,
                       a->attn_softcap <= 0 ? "attn_logit_softcapping" : "final_logit_softcapping");
    }
    return 0;
}

/* ---- rope ---- */

static int put_yarn(struct list *l, const struct nb_rope *r, struct nb_err *err)
{
    if (!r->truncate) {
        return nb_fail(err, NB_E_SPEC,
                       "a GGUF cannot say yarn with truncate false, llama.cpp always truncates");
    }
    add_string(l, "rope.scaling.type", "yarn");
    add_f32(l, "rope.scaling.factor", r->factor);
    add_u32(l, "rope.scaling.original_context_length", r->original_max_position);
    /* llama.cpp works out 0.1 ln(factor) + 1 itself and takes this on top. */
    double ratio = nb_rope_yarn_scaling(r) / (r->factor <= 1 ? 1 : 0.1 * log(r->factor) + 1);
    if (fabs(ratio - 1) > 1e-6) add_f32(l, "rope.scaling.attn_factor", ratio);
    if (r->beta_fast != 32) add_f32(l, "rope.scaling.yarn_beta_fast", r->beta_fast);
    if (r->beta_slow != 1) add_f32(l, "rope.scaling.yarn_beta_slow", r->beta_slow);
    return 0;
}

/* The factors are tensors. */
static int put_longrope(struct list *l, const struct nb_rope *r, struct nb_err *err)
{
    if (!l->map->rope_factors) {
        return nb_fail(err, NB_E_SPEC, "llama.cpp's %s cannot have longrope", l->map->architecture);
    }
    add_string(l, "rope.scaling.type", "longrope");
    add_f32(l, "rope.scaling.attn_factor", nb_rope_longrope_scaling(r));
    note(l,
         "llama.cpp takes the long factors when its context is set above %" PRId64
         " tokens, however long the text is",
         r->original_max_position);
    return 0;
}

static int put_rope(struct list *l, struct nb_err *err)
{
    const struct nb_arch *a = l->arch;
    const struct nb_rope *r = &a->rope;
    if (l->map->no_rope) return 0;
    add_f32(l, "rope.freq_base", r->theta);
    if (l->map->permute || l->map->rope_dimensions)
        add_u32(l, "rope.dimension_count", a->rotary_dim);
    if (l->map->rope_factors)
        add_u32(l, "rope.scaling.original_context_length", r->original_max_position);
    if (a->local_rope) {
        if (a->rope_local.kind != NB_ROPE_DEFAULT) {
            return nb_fail(
                err, NB_E_SPEC,
                "a GGUF cannot say that the positions of layers with a window are scaled");
        }
        add_f32(l, "rope.freq_base_swa", a->rope_local.theta);
    }
    switch (r->kind) {
    case NB_ROPE_DEFAULT: return 0;
    case NB_ROPE_LINEAR:
        add_string(l, "rope.scaling.type", "linear");
        add_f32(l, "rope.scaling.factor", r->factor);
        return 0;
    case NB_ROPE_YARN: return put_yarn(l, r, err);
    case NB_ROPE_DYNAMIC:
        note(l,
             "dynamic rope is not in the file: llama.cpp computes the same for up to %" PRId64
             " tokens",
             a->max_position);
        return 0;
    case NB_ROPE_LONGROPE: return put_longrope(l, r, err);
    case NB_ROPE_LLAMA3: break;
    }
    if (!l->map->rope_freqs || r->high_freq_factor <= r->low_freq_factor) {
        return nb_fail(
            err, NB_E_SPEC, "llama.cpp's %s cannot have llama3 rope%s", l->map->architecture,
            l->map->rope_freqs ? " whose high_freq_factor is below low_freq_factor" : "");
    }
    return 0;
}

/* ---- windows ---- */

/* Every period-th layer has no window and all others have one; period 0: all have one. */
static bool has_period(const struct nb_arch *a, int64_t period)
{
    for (int64_t l = 0; l < a->n_layers; l++) {
        bool window = period == 0 || (l + 1) % period != 0;
        if (window != (a->window[l] > 0)) return false;
    }
    return true;
}

static void put_pattern(struct list *l)
{
    const struct nb_arch *a = l->arch;
    if (has_period(a, l->map->window_period)) return;
    for (int64_t period = 0; period <= a->n_layers; period++) {
        if (!has_period(a, period)) continue;
        add_u32(l, "attention.sliding_window_pattern", period);
        return;
    }
    json_t *layers = json_array();
    for (int64_t i = 0; i < a->n_layers; i++) {
        if (json_array_append_new(layers, json_boolean(a->window[i] > 0))) l->failed = true;
    }
    add(l, "attention.sliding_window_pattern", "bool[]", layers);
}

static void put_windows(struct list *l)
{
    const struct nb_arch *a = l->arch;
    int64_t width = 0; /* all windows of a model are equal */
    for (int64_t i = 0; i < a->n_layers; i++) width = a->window[i] > 0 ? a->window[i] : width;
    if (!l->map->window_period) {
        if (width && width < a->max_position) {
            note(l,
                 "the sliding window of %" PRId64 " tokens is %s: llama.cpp attends to "
                 "everything, which is the same for up to %" PRId64 " tokens",
                 width, l->map->window_key ? "not obeyed" : "not in the file", width);
        }
        if (l->map->window_key) add_u32(l, "attention.sliding_window", width);
        return;
    }
    if (width) add_u32(l, "attention.sliding_window", width);
    if (width || l->map->default_window) put_pattern(l);
}

/* ---- all of it ---- */

static void put_sizes(struct list *l)
{
    const struct nb_arch *a = l->arch;
    add_string(l, "general.architecture", l->map->architecture);
    add_u32(l, "context_length", a->max_position);
    add_u32(l, "embedding_length", a->hidden_size);
    add_u32(l, "block_count", a->n_layers);
    add_u32(l, "feed_forward_length", a->intermediate_size);
    add_u32(l, "attention.head_count", a->n_heads);
    add_u32(l, "attention.head_count_kv", a->n_kv_heads);
    add_u32(l, "attention.key_length", a->head_dim);
    add_u32(l, "attention.value_length", a->head_dim);
    add_f32(
        l, l->map->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
        a->rms_norm_eps);
    if (l->map->permute) add_u32(l, "vocab_size", a->vocab_size);
    if (l->map->attn_softcap > 0) add_f32(l, "attn_logit_softcapping", a->attn_softcap);
    if (a->final_softcap > 0) add_f32(l, "final_logit_softcapping", a->final_softcap);
}

int nb_arch_gguf_metadata(const struct nb_arch *arch, json_t **keys, json_t **notes,
                          struct nb_err *err)
{
    struct list l = {.arch = arch,
                     .map = &nb_arch_family_of(arch)->gguf,
                     .keys = json_array(),
                     .notes = json_array()};
    int rc = refuse_choices(&l, err);
    if (!rc) rc = refuse_scores(&l, err);
    if (!rc) {
        put_sizes(&l);
        rc = put_rope(&l, err);
    }
    if (!rc) put_windows(&l);
    if (!rc && (l.failed || !l.keys || !l.notes))
        rc = nb_fail(err, NB_E_NOMEM, "no memory for metadata");
    if (rc) {
        json_decref(l.keys);
        json_decref(l.notes);
        l.keys = l.notes = NULL;
    }
    *keys = l.keys;
    *notes = l.notes;
    return rc;
}
