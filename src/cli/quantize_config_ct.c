/* SPDX-License-Identifier: Apache-2.0
 *
 * quantize_config_ct.c - compressed-tensors' config_groups and llm-compressor's modifiers as options. See
 * quantize_config.h. Source: checkpoint formats, section 5.1. */
#include "cli/quantize_config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- one args object each for weights and inputs ---- */

struct args {
    bool there;
    int64_t bits, group; /* group 0: none */
    bool is_float, sym, dynamic;
    char strategy[16]; /* "tensor", "channel" ...; by group when the config is silent */
};

static int parse_args(struct args *a, const json_t *o, const char *path, struct nb_err *err)
{
    const char *type = "int", *strategy = NULL;
    *a = (struct args){.there = o && !json_is_null(o), .bits = 8, .sym = true};
    if (!a->there) return 0;
    const json_t *dynamic = json_object_get(o, "dynamic");
    a->dynamic = json_is_true(dynamic) || json_is_string(dynamic);
    int rc = nb_json_get_int(o, "num_bits", false, &a->bits, path, err);
    if (!rc) rc = nb_json_get_int(o, "group_size", false, &a->group, path, err);
    if (!rc) rc = nb_json_get_string(o, "type", false, &type, path, err);
    if (!rc) rc = nb_json_get_string(o, "strategy", false, &strategy, path, err);
    if (!rc) rc = nb_json_get_bool(o, "symmetric", false, &a->sym, path, err);
    if (rc) return rc;
    a->is_float = !strcmp(type, "float");
    if (!strategy) strategy = a->group > 0 ? "group" : a->group < 0 ? "channel" : "tensor";
    snprintf(a->strategy, sizeof a->strategy, "%s", strategy);
    return 0;
}

static bool is(const struct args *a, bool is_float, int64_t bits, const char *strategy)
{
    return a->there && a->is_float == is_float && a->bits == bits && !strcmp(a->strategy, strategy);
}

/* What nibble calls weights and inputs like these; NULL: nothing. */
static const char *scheme_of(const struct args *w, const struct args *x)
{
    const bool fp8_token = is(x, true, 8, "token"), weights_only = !x->there;
    if (is(w, false, 8, "channel") && w->sym && is(x, false, 8, "token")) return "W8A8";
    if (is(w, false, 8, "channel") && w->sym && is(x, false, 8, "tensor") && !x->dynamic)
        return "W8A8_STATIC";
    if (is(w, true, 8, "tensor") && is(x, true, 8, "tensor") && !x->dynamic) return "FP8";
    if (is(w, true, 8, "channel") && fp8_token) return "FP8_DYNAMIC";
    if (is(w, true, 8, "block") && is(x, true, 8, "group") && x->group == 128) return "FP8_BLOCK";
    if (is(w, true, 4, "tensor_group")) {
        if (weights_only) return "NVFP4A16";
        return is(x, true, 4, "tensor_group") ? "NVFP4" : NULL;
    }
    if (is(w, true, 4, "group") && w->group == 32) {
        if (weights_only) return "MXFP4A16";
        return is(x, true, 4, "group") && x->group == 32 ? "MXFP4" : NULL;
    }
    if (is(w, true, 8, "group") && w->group == 32) {
        if (weights_only) return "MXFP8A16";
        return is(x, true, 8, "group") && x->group == 32 ? "MXFP8" : NULL;
    }
    return NULL;
}

static int apply_order(const struct nb_config_reader *r, const json_t *order, struct nb_err *err)
{
    if (!order || json_is_null(order) || json_is_false(order)) return 0;
    const char *s = json_is_true(order) ? "group" : json_string_value(order);
    if (s && (!strcasecmp(s, "static") || !strcasecmp(s, "weight")))
        r->plan->opts.order = NB_ORDER_STATIC;
    else if (s && (!strcasecmp(s, "group") || !strcasecmp(s, "dynamic")))
        r->plan->opts.order = NB_ORDER_DYNAMIC;
    else
        return nb_fail(err, NB_E_FORMAT, "%s: actorder must be static, weight, group or dynamic",
                       r->path);
    return 0;
}

static int apply_args(const struct nb_config_reader *r, const json_t *group, struct nb_err *err)
{
    struct nb_quantize_opts *q = &r->plan->opts;
    const json_t *weights = json_object_get(group, "weights");
    struct args w, x;
    int rc = parse_args(&w, weights, r->path, err);
    if (!rc) rc = parse_args(&x, json_object_get(group, "input_activations"), r->path, err);
    if (!rc) rc = apply_order(r, json_object_get(weights, "actorder"), err);
    if (rc) return rc;
    const char *scheme = scheme_of(&w, &x);
    const bool plain = w.there && !w.is_float && !x.there &&
                       (!strcmp(w.strategy, "group") || !strcmp(w.strategy, "channel"));
    if (!scheme && !plain) {
        return nb_fail(err, NB_E_SPEC,
                       "%s: %" PRId64 "-bit %s weights by %s%s are not available; possible: W4A16, "
                       "W8A16, W8A8, FP8, FP8_DYNAMIC, FP8_BLOCK, NVFP4, MXFP4, MXFP8",
                       r->path, w.bits, w.is_float ? "float" : "integer",
                       w.there ? w.strategy : "nothing", x.there ? " with such activations" : "");
    }
    q->scheme = scheme;
    if (scheme) return 0;
    if (w.bits < 1 || w.bits > 16)
        return nb_fail(err, NB_E_FORMAT, "%s: %" PRId64 " bits are not possible", r->path, w.bits);
    q->bits = (int)w.bits;
    q->group = !strcmp(w.strategy, "group") ? w.group : -1;
    q->sym = w.sym;
    return 0;
}

/* ---- presets ---- */

/* W4A16 and W4A16_ASYM say what options say; the others are schemes. */
static int apply_preset(const struct nb_config_reader *r, const char *name, struct nb_err *err)
{
    static const char *const schemes[] = {"W8A8",      "INT8",  "FP8",      "FP8_DYNAMIC",
                                          "FP8_BLOCK", "NVFP4", "NVFP4A16", "MXFP4",
                                          "MXFP4A16",  "MXFP8", "MXFP8A16"};
    struct nb_quantize_opts *q = &r->plan->opts;
    int bits = 0, used = 0;
    if (sscanf(name, "%*1[Ww]%1d%*1[Aa]16%n", &bits, &used) == 1 && used &&
        (!name[used] || !strcasecmp(name + used, "_ASYM"))) {
        q->bits = bits;
        q->sym = !name[used];
        q->group = 128;
        return 0;
    }
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        if (strcasecmp(name, schemes[i])) continue;
        q->scheme = strcmp(schemes[i], "INT8") ? schemes[i] : "W8A8";
        return 0;
    }
    return nb_fail(err, NB_E_SPEC,
                   "%s: preset '%s' is not available; possible: W4A16, W4A16_ASYM, W8A16, W8A8, "
                   "FP8, FP8_DYNAMIC, FP8_BLOCK, NVFP4, MXFP4, MXFP8",
                   r->path, name);
}

/* ---- a whole config ---- */

static bool names_linear(const json_t *targets)
{
    if (json_is_string(targets)) return !strcmp(json_string_value(targets), "Linear");
    for (size_t i = 0; i < json_array_size(targets); i++) {
        const char *s = json_string_value(json_array_get(targets, i));
        if (s && !strcmp(s, "Linear")) return true;
    }
    return !targets || json_is_null(targets);
}

/* Which modules: with targets other than all linears everything else stays float. */
static int apply_names(const struct nb_config_reader *r, const json_t *targets,
                       const json_t *ignore, struct nb_err *err)
{
    int rc = nb_config_add_names(r, &r->plan->ignore, ignore, NB_CONFIG_PATTERN, err);
    if (rc || names_linear(targets)) return rc;
    if (r->plan->ignore.n) {
        return nb_fail(err, NB_E_SPEC,
                       "%s: targets and ignore both name modules; possible: targets [\"Linear\"], "
                       "or an empty ignore",
                       r->path);
    }
    nb_quantize_list_add(&r->plan->ignore, "*", 1);
    return nb_config_add_names(r, &r->plan->include, targets, NB_CONFIG_PATTERN, err);
}

static int apply_kv(const struct nb_config_reader *r, const json_t *kv, struct nb_err *err)
{
    struct args a;
    int rc = parse_args(&a, kv, r->path, err);
    if (rc || !a.there) return rc;
    if (!is(&a, true, 8, "tensor") || a.dynamic)
        return nb_fail(err, NB_E_SPEC,
                       "%s: kv_cache_scheme is not available; possible: 8-bit float by tensor, "
                       "static",
                       r->path);
    r->plan->opts.kv_scales = true;
    return 0;
}

/* The one group that quantizes. */
static int apply_groups(const struct nb_config_reader *r, const json_t *groups,
                        const json_t *ignore, struct nb_err *err)
{
    const char *name = NULL, *key;
    const json_t *group = NULL;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)groups, key, value)
    {
        if (!strcasecmp(key, "UNQUANTIZED")) continue;
        if (group)
            return nb_fail(err, NB_E_SPEC,
                           "%s: config_groups has several schemes; possible: one, with others by "
                           "--bits-for, or mixed precision by --target-size",
                           r->path);
        group = value;
        name = key;
    }
    if (!group) return nb_fail(err, NB_E_FORMAT, "%s: config_groups names no group", r->path);
    const bool preset = json_is_array(group);
    int rc = preset ? apply_preset(r, name, err) : apply_args(r, group, err);
    return rc ? rc
              : apply_names(r, preset ? group : json_object_get(group, "targets"), ignore, err);
}

int nb_config_apply_ct(const struct nb_config_reader *r, const json_t *config, struct nb_err *err)
{
    const json_t *groups = json_object_get(config, "config_groups");
    if (!json_is_object(groups))
        return nb_fail(err, NB_E_FORMAT, "%s: config_groups: expected an object, found %s", r->path,
                       groups ? nb_json_type_name(groups) : "none");
    r->plan->opts.format = "compressed-tensors";
    int rc = apply_groups(r, groups, json_object_get(config, "ignore"), err);
    return rc ? rc : apply_kv(r, json_object_get(config, "kv_cache_scheme"), err);
}

/* ---- llm-compressor ---- */

static const struct {
    const char *name, *method;
} modifiers[] = {{"QuantizationModifier", "rtn"}, {"GPTQModifier", "gptq"}, {"AWQModifier", "awq"}};

enum { N_MODIFIERS = sizeof modifiers / sizeof *modifiers };

/* The object itself, or one inside it, at most three levels down: stages hold lists of modifiers. */
const json_t *nb_config_recipe(const json_t *config)
{
    const json_t *at = config;
    for (int level = 0; level < 4 && json_is_object(at); level++) {
        for (size_t i = 0; i < N_MODIFIERS; i++)
            if (json_object_get(at, modifiers[i].name)) return at;
        if (json_is_string(json_object_get(at, "scheme"))) return at;
        const json_t *next = NULL;
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)(uintptr_t)at, key, value)
        {
            if (strstr(key, "stage") || strstr(key, "modifiers")) next = value;
        }
        at = next;
    }
    return NULL;
}

static int apply_modifier(const struct nb_config_reader *r, const json_t *m, struct nb_err *err)
{
    const char *scheme = NULL;
    const json_t *groups = json_object_get(m, "config_groups"),
                 *ignore = json_object_get(m, "ignore");
    int rc = nb_json_get_real(m, "dampening_frac", false, &r->plan->opts.damp, r->path, err);
    if (!rc) rc = nb_json_get_string(m, "scheme", false, &scheme, r->path, err);
    if (!rc) rc = apply_order(r, json_object_get(m, "actorder"), err);
    if (rc) return rc;
    if (groups && !json_is_null(groups)) rc = apply_groups(r, groups, ignore, err);
    else if (!scheme)
        rc = nb_fail(err, NB_E_FORMAT, "%s: the modifier has neither scheme nor config_groups",
                     r->path);
    else rc = apply_preset(r, scheme, err);
    if (!rc && !json_is_object(groups))
        rc = apply_names(r, json_object_get(m, "targets"), ignore, err);
    return rc ? rc : apply_kv(r, json_object_get(m, "kv_cache_scheme"), err);
}

int nb_config_apply_recipe(const struct nb_config_reader *r, const json_t *recipe,
                           struct nb_err *err)
{
    struct nb_quantize_opts *q = &r->plan->opts;
    const json_t *modifier = recipe;
    q->format = "compressed-tensors";
    for (size_t i = 0; i < N_MODIFIERS; i++) {
        const json_t *m = json_object_get(recipe, modifiers[i].name);
        if (!m) continue;
        if (modifier != recipe)
            return nb_fail(err, NB_E_SPEC,
                           "%s: a recipe with several quantizing modifiers is not available; "
                           "possible: one",
                           r->path);
        modifier = m;
        q->method = modifiers[i].method;
    }
    if (json_object_get(recipe, "SmoothQuantModifier")) {
        const bool gptq = q->method && !strcmp(q->method, "gptq");
        q->method = gptq ? "smoothquant+gptq" : "smoothquant";
    }
    return apply_modifier(r, modifier, err);
}
