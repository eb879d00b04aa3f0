/* SPDX-License-Identifier: Apache-2.0
 *
 * ct_scheme.c - one config group: weights, inputs and format together as a layout and a spec.
 *
 * Where neither the group nor the config names a format, it follows from the args in the library's order: mxfp4,
 * mxfp8, nvfp4, int (any inputs), pack, float (any inputs), naive. Source: checkpoint formats, sections 5.1 and 5.2. */
#include "checkpoint/ct_args.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "numeric/elems.h"

#define ALL ((int64_t)1 << 40) /* larger than any matrix, and times two it still fits */

static const struct {
    const char *name;
    enum nb_ct_layout layout;
    bool ints, floats; /* which weights it may hold */
} formats[] = {
    {"pack-quantized", NB_CT_PACKED, true, false},
    {"int-quantized", NB_CT_PLAIN, true, false},
    {"float-quantized", NB_CT_PLAIN, false, true},
    {"naive-quantized", NB_CT_PLAIN, true, true},
    {"nvfp4-pack-quantized", NB_CT_NVFP4, false, true},
    {"mxfp4-pack-quantized", NB_CT_MXFP4, false, true},
    {"mxfp8-quantized", NB_CT_MXFP8, false, true},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

struct group { /* of config_groups, taken apart */
    const char *name, *format;
    struct nb_ct_args weights, inputs;
    bool has_weights, has_inputs;
};

static enum nb_ct_layout inferred(const struct group *g)
{
    const struct nb_ct_args *w = &g->weights;
    if (w->is_float && w->bits == 4) return w->group == 32 ? NB_CT_MXFP4 : NB_CT_NVFP4;
    if (w->is_float) return w->group == 32 && w->exponents ? NB_CT_MXFP8 : NB_CT_PLAIN;
    return g->has_inputs ? NB_CT_PLAIN : NB_CT_PACKED;
}

static int choose_layout(const struct group *g, enum nb_ct_layout *out, struct nb_err *err)
{
    *out = inferred(g);
    if (!g->format) return 0;
    for (int i = 0; i < N_FORMATS; i++) {
        if (strcmp(g->format, formats[i].name)) continue;
        *out = formats[i].layout;
        if (g->weights.is_float ? formats[i].floats : formats[i].ints) return 0;
        return nb_fail(err, NB_E_FORMAT,
                       "quantization config: group '%.80s': format %s does not hold %s weights",
                       g->name, g->format, g->weights.is_float ? "float" : "int");
    }
    return nb_fail(
        err, NB_E_SPEC,
        "quantization config: group '%.80s': format '%.60s' cannot be read; readable are pack-, int-, float- "
        "and naive-quantized, nvfp4-pack-, mxfp4-pack- and mxfp8-quantized",
        g->name, g->format);
}

/* Group of 32 with exponents, group of 16 under a global scale: the layouts that fix the args. */
static int check_layout(const struct group *g, enum nb_ct_layout layout, struct nb_err *err)
{
    const struct nb_ct_args *w = &g->weights;
    const char *wrong = NULL;
    if (w->dynamic != NB_CT_STATIC) wrong = "weights cannot be dynamic";
    else if (w->strategy == NB_CT_TOKEN || w->strategy == NB_CT_ATTN_HEAD)
        wrong = "strategies token and attn_head are not for weights";
    else if (w->is_float && !w->symmetric) wrong = "float weights must be symmetric";
    else if (layout == NB_CT_NVFP4) {
        if (w->bits != 4 || w->strategy != NB_CT_TENSOR_GROUP || w->group != 16)
            wrong = "nvfp4 weights have 4 bits, strategy tensor_group and group_size 16";
    } else if (layout == NB_CT_MXFP4 || layout == NB_CT_MXFP8) {
        if (w->bits != (layout == NB_CT_MXFP4 ? 4 : 8) || w->strategy != NB_CT_GROUP ||
            w->group != 32)
            wrong = "mxfp4 and mxfp8 weights have 4 and 8 bits, strategy group and group_size 32";
    } else if (w->is_float && w->bits != 8) {
        wrong = "float weights of 4 bits have a format of their own";
    } else if (w->strategy == NB_CT_TENSOR_GROUP) {
        wrong = "strategy tensor_group is for float weights of 4 bits";
    } else if (layout == NB_CT_PACKED && w->strategy == NB_CT_BLOCK) {
        wrong = "pack-quantized has no blocks";
    } else if (layout == NB_CT_PACKED && !w->symmetric && w->strategy == NB_CT_TENSOR) {
        wrong = "pack-quantized has no zero point for a whole tensor";
    } else if (w->g_idx && layout != NB_CT_PACKED) {
        wrong = "actorder group goes with pack-quantized";
    }
    if (!wrong) return 0;
    return nb_fail(err, NB_E_FORMAT, "quantization config: group '%.80s': %s", g->name, wrong);
}

static void set_groups(struct nb_qspec *spec, const struct nb_ct_args *w)
{
    spec->group_rows = 1;
    spec->group_cols = -1;
    if (w->strategy == NB_CT_TENSOR) spec->group_rows = ALL;
    if (w->strategy == NB_CT_GROUP || w->strategy == NB_CT_TENSOR_GROUP)
        spec->group_cols = w->group;
    if (w->strategy == NB_CT_BLOCK) {
        spec->group_rows = w->block[0];
        spec->group_cols = w->block[1];
    }
}

static void set_weights(struct nb_ct_scheme *s, const struct nb_ct_args *w)
{
    struct nb_qspec *spec = &s->spec;
    set_groups(spec, w);
    s->g_idx = w->g_idx;
    if (!w->is_float) {
        spec->elem = (struct nb_elem){.kind = NB_ELEM_INT, .bits = (int)w->bits, .vec = 1};
        spec->zero = NB_ZERO_CODE;
        spec->symmetric = spec->zero_implied = w->symmetric;
    } else {
        spec->elem = w->bits == 4 ? nb_elem_e2m1 : nb_elem_e4m3;
        spec->zero = NB_ZERO_NONE;
    }
    if (s->layout == NB_CT_MXFP4 || s->layout == NB_CT_MXFP8) spec->scale_dtype = NB_F8_E8M0;
    if (s->layout == NB_CT_NVFP4) {
        spec->scale_dtype = NB_F32;
        spec->super_groups = ALL;
        spec->super_flat = spec->super_divides = true;
        spec->scale_bits = 8;
        spec->scale_table = nb_e4m3_values;
    }
}

/* NB_ACT_NONE: a kind of input that nothing here computes. */
static enum nb_act_kind act_of(const struct nb_ct_args *a)
{
    const bool token = a->strategy == NB_CT_TOKEN && a->dynamic == NB_CT_DYNAMIC;
    const bool tensor = a->strategy == NB_CT_TENSOR, fixed = a->dynamic == NB_CT_STATIC;
    const bool group = a->strategy == NB_CT_GROUP && a->dynamic == NB_CT_DYNAMIC;
    if (!a->is_float && a->bits == 8)
        return token ? NB_ACT_INT8_TOKEN : tensor && fixed ? NB_ACT_INT8_STATIC : NB_ACT_NONE;
    if (a->is_float && a->bits == 8) {
        if (token) return NB_ACT_FP8_TOKEN;
        if (tensor) return fixed ? NB_ACT_FP8_STATIC : NB_ACT_FP8_TENSOR;
        if (group && a->group == 32 && a->exponents) return NB_ACT_MXFP8;
        return group ? NB_ACT_FP8_GROUP : NB_ACT_NONE;
    }
    if (a->is_float && a->strategy == NB_CT_TENSOR_GROUP && a->group == 16 &&
        a->dynamic == NB_CT_LOCAL)
        return NB_ACT_NVFP4;
    if (a->is_float && group && a->group == 32) return NB_ACT_MXFP4;
    return NB_ACT_NONE;
}

static int set_inputs(struct nb_ct_scheme *s, const struct group *g, struct nb_err *err)
{
    if (!g->has_inputs) return 0;
    const struct nb_ct_args *a = &g->inputs;
    if (!a->symmetric || a->g_idx || act_of(a) == NB_ACT_NONE) {
        nb_fail(err, NB_E_SPEC,
                "quantization config: group '%.80s': input activations of %s%" PRId64
                " bits%s in this strategy cannot be computed",
                g->name, a->is_float ? "float " : "int ", a->bits,
                a->symmetric ? "" : ", asymmetric,");
        return nb_err_hint(
            err, "possible are int8 per token or static per tensor, float8 per token, tensor or "
                 "group, nvfp4, mxfp4 and mxfp8");
    }
    s->spec.act = act_of(a);
    if (s->spec.act == NB_ACT_FP8_GROUP) s->spec.act_group = a->group;
    return 0;
}

static int check_group_keys(const char *name, const json_t *group, struct nb_err *err)
{
    static const char *const known[] = {"targets", "weights", "input_activations",
                                        "output_activations", "format"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)group, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            found = found || !strcmp(key, known[i]);
        if (!found)
            return nb_fail(err, NB_E_FORMAT,
                           "quantization config: group '%.80s': unknown key '%.80s'", name, key);
    }
    return 0;
}

static int parse_args(struct nb_ct_args *out, bool *there, const struct group *g,
                      const json_t *group, const char *key, struct nb_err *err)
{
    const json_t *args = json_object_get(group, key);
    char what[160];
    *there = args && !json_is_null(args);
    if (!*there) return 0;
    snprintf(what, sizeof what, "quantization config: group '%.80s', %s", g->name, key);
    return nb_ct_args_parse(out, args, what, err);
}

static int parse_group(struct group *g, const json_t *group, const char *format, struct nb_err *err)
{
    int rc = check_group_keys(g->name, group, err);
    if (!rc) rc = parse_args(&g->weights, &g->has_weights, g, group, "weights", err);
    if (!rc) rc = parse_args(&g->inputs, &g->has_inputs, g, group, "input_activations", err);
    const json_t *outputs = json_object_get(group, "output_activations");
    if (!rc && outputs && !json_is_null(outputs))
        rc = nb_fail(err, NB_E_SPEC,
                     "quantization config: group '%.80s': quantized outputs cannot be computed",
                     g->name);
    if (!rc && g->has_inputs && !g->has_weights) {
        rc = nb_fail(
            err, NB_E_SPEC,
            "quantization config: group '%.80s': quantized inputs of float weights cannot be computed",
            g->name);
    }
    g->format = format && strcmp(format, "mixed-precision") ? format : NULL;
    if (!rc)
        rc = nb_json_get_string(group, "format", false, &g->format, "quantization config: group",
                                err);
    return rc;
}

int nb_ct_scheme_parse(struct nb_ct_scheme *out, const char *name, const json_t *group,
                       const char *format, const json_t **targets, struct nb_err *err)
{
    struct group g = {.name = name};
    json_t *preset = json_is_array(group) ? nb_ct_preset(name) : NULL;
    memset(out, 0, sizeof *out);
    out->name = name;
    out->spec.scale_dtype = NB_F16;
    *targets = json_is_array(group) ? group : json_object_get(group, "targets");
    if (json_is_array(group) ? !preset : !json_is_object(group)) {
        return nb_fail(err, NB_E_FORMAT,
                       json_is_array(group)
                           ? "quantization config: '%.80s' is no name of a preset scheme"
                           : "quantization config: group '%.80s' is neither an object nor a list",
                       name);
    }
    int rc = parse_group(&g, preset ? preset : group, format, err);
    out->quantized = g.has_weights && !(g.format && !strcmp(g.format, "dense"));
    if (!rc && out->quantized) {
        rc = choose_layout(&g, &out->layout, err);
        if (!rc) rc = check_layout(&g, out->layout, err);
        if (!rc) set_weights(out, &g.weights);
        if (!rc) rc = set_inputs(out, &g, err);
    }
    json_decref(preset);
    return rc;
}
