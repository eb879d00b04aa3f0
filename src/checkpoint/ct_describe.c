/* SPDX-License-Identifier: Apache-2.0
 *
 * ct_describe.c - the config object of a run: modules gathered into config_groups, the float ones into ignore.
 *
 * One group takes the class "Linear". Of several each names its modules, since vLLM tries a class before the parts of
 * its fused layers. A name is a pattern over the numbers in a path where all such paths are alike, else the path. The
 * parts that vLLM fuses (q, k, v; gate, up) must be in one group; a float part is let through, which vLLM refuses but
 * transformers loads. Only the keys that every version of the library knows are written, and scale_dtype and a group's
 * own format where a layout needs them. Source: checkpoint formats, section 5.1. */
#include "checkpoint/ct_config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "checkpoint/internal.h"

enum { MAX_GROUPS = 64 };

static bool has_order(const struct nb_module_spec *m)
{
    return nb_module_has_order(&m->spec, m->desc_act);
}

/* Would one group hold both? */
static bool same_scheme(const struct nb_module_spec *a, const struct nb_module_spec *b)
{
    const struct nb_qspec *x = &a->spec, *y = &b->spec;
    return x->elem.kind == y->elem.kind && x->elem.bits == y->elem.bits && x->zero == y->zero &&
           x->symmetric == y->symmetric &&
           (x->group_rows > 1 ? x->group_rows : 1) == (y->group_rows > 1 ? y->group_rows : 1) &&
           (x->group_cols > 0 ? x->group_cols : -1) == (y->group_cols > 0 ? y->group_cols : -1) &&
           (x->scale_dtype == NB_F8_E8M0) == (y->scale_dtype == NB_F8_E8M0) &&
           x->super_groups == y->super_groups && x->act == y->act && x->act_group == y->act_group &&
           has_order(a) == has_order(b);
}

/* ---- one group ---- */

static const char *format_of(const struct nb_qspec *s)
{
    enum nb_ct_layout layout = NB_CT_PLAIN;
    nb_ct_layout_of(s, &layout);
    switch (layout) {
    case NB_CT_PACKED: return "pack-quantized";
    case NB_CT_NVFP4: return "nvfp4-pack-quantized";
    case NB_CT_MXFP4: return "mxfp4-pack-quantized";
    case NB_CT_MXFP8: return "mxfp8-quantized";
    case NB_CT_PLAIN: break;
    }
    if (s->elem.kind == NB_ELEM_INT) return "int-quantized";
    return s->act == NB_ACT_NONE ? "naive-quantized" : "float-quantized";
}

struct args { /* of one object, as it is written */
    int bits;
    bool is_float, symmetric, order;
    const char *strategy, *scale_dtype;
    int64_t group, block[2]; /* 0: null */
    enum nb_ct_dynamic dynamic;
};

static json_t *size_or_null(int64_t n)
{
    return n > 0 ? json_integer(n) : json_null();
}

static json_t *args_json(const struct args *a)
{
    json_t *o = json_object();
    json_t *dynamic = a->dynamic == NB_CT_LOCAL ? json_string("local")
                                                : json_boolean(a->dynamic == NB_CT_DYNAMIC);
    json_t *block = a->block[0] > 0
                        ? json_pack("[I, I]", (json_int_t)a->block[0], (json_int_t)a->block[1])
                        : json_null();
    json_object_set_new(o, "actorder", a->order ? json_string("group") : json_null());
    json_object_set_new(o, "block_structure", block);
    json_object_set_new(o, "dynamic", dynamic);
    json_object_set_new(o, "group_size", size_or_null(a->group));
    json_object_set_new(o, "num_bits", json_integer(a->bits));
    json_object_set_new(o, "observer",
                        a->dynamic == NB_CT_DYNAMIC ? json_null() : json_string("minmax"));
    json_object_set_new(o, "observer_kwargs", json_object());
    if (a->scale_dtype) json_object_set_new(o, "scale_dtype", json_string(a->scale_dtype));
    json_object_set_new(o, "strategy", json_string(a->strategy));
    json_object_set_new(o, "symmetric", json_boolean(a->symmetric));
    json_object_set_new(o, "type", json_string(a->is_float ? "float" : "int"));
    return o;
}

static json_t *weights_json(const struct nb_module_spec *m)
{
    const struct nb_qspec *s = &m->spec;
    struct args a = {.bits = s->elem.bits,
                     .is_float = s->elem.kind != NB_ELEM_INT,
                     .symmetric = s->zero != NB_ZERO_CODE || s->symmetric,
                     .order = has_order(m)};
    if (s->super_groups) {
        a.strategy = "tensor_group";
        a.scale_dtype = "torch.float8_e4m3fn";
        a.group = s->group_cols;
    } else if (s->group_rows > 1 && s->group_cols <= 0) {
        a.strategy = "tensor";
    } else if (s->group_rows > 1) {
        a.strategy = "block";
        a.block[0] = s->group_rows;
        a.block[1] = s->group_cols;
    } else if (s->group_cols > 0) {
        a.strategy = "group";
        a.group = s->group_cols;
    } else {
        a.strategy = "channel";
    }
    if (s->scale_dtype == NB_F8_E8M0) a.scale_dtype = "torch.uint8";
    return args_json(&a);
}

static json_t *inputs_json(const struct nb_qspec *s)
{
    struct args a = {.bits = 8,
                     .is_float = true,
                     .symmetric = true,
                     .dynamic = NB_CT_DYNAMIC,
                     .strategy = "token"};
    switch (s->act) {
    case NB_ACT_NONE:
    case NB_ACT_INT8_OUTLIER: return json_null();
    case NB_ACT_INT8_TOKEN: a.is_float = false; break;
    case NB_ACT_INT8_STATIC: a.is_float = false; /* fall through */
    case NB_ACT_FP8_STATIC:
        a.dynamic = NB_CT_STATIC;
        a.strategy = "tensor";
        break;
    case NB_ACT_FP8_TOKEN: break;
    case NB_ACT_FP8_TENSOR: a.strategy = "tensor"; break;
    case NB_ACT_FP8_GROUP:
        a.strategy = "group";
        a.group = s->act_group;
        break;
    case NB_ACT_NVFP4:
        a.bits = 4;
        a.strategy = "tensor_group";
        a.group = 16;
        a.dynamic = NB_CT_LOCAL;
        a.scale_dtype = "torch.float8_e4m3fn";
        break;
    case NB_ACT_MXFP4: a.bits = 4; /* fall through */
    case NB_ACT_MXFP8:
        a.strategy = "group";
        a.group = 32;
        a.scale_dtype = "torch.uint8";
        break;
    }
    return args_json(&a);
}

static json_t *group_json(const struct nb_module_spec *m, json_t *targets, bool mixed)
{
    enum nb_ct_layout layout = NB_CT_PACKED;
    nb_ct_layout_of(&m->spec, &layout);
    json_t *g = json_object();
    if (mixed || layout == NB_CT_NVFP4 || layout == NB_CT_MXFP4 || layout == NB_CT_MXFP8)
        json_object_set_new(g, "format", json_string(format_of(&m->spec)));
    json_object_set_new(g, "input_activations", inputs_json(&m->spec));
    json_object_set_new(g, "output_activations", json_null());
    json_object_set_new(g, "targets", targets);
    json_object_set_new(g, "weights", weights_json(m));
    return g;
}

/* ---- names ---- */

/* The path with each number between dots as any number, dots escaped: "re:model\.layers\.[0-9]+\.mlp\.up_proj$". */
static void pattern_of(const char *path, struct nb_strbuf *out)
{
    nb_strbuf_reset(out);
    nb_strbuf_puts(out, "re:");
    for (const char *s = path;; s++) {
        const size_t n = strcspn(s, "."), digits = strspn(s, "0123456789");
        if (n && digits == n) nb_strbuf_puts(out, "[0-9]+");
        else nb_strbuf_add(out, s, n);
        s += n;
        if (!*s) break;
        nb_strbuf_puts(out, "\\.");
    }
    nb_strbuf_putc(out, '$');
}

static json_int_t count_of(const json_t *counts, const char *key)
{
    return json_integer_value(json_object_get(counts, key));
}

/* Names of the modules i with in[i] == which: the pattern where it hits no other module, else the path. New
 * reference. */
static json_t *names_of(const struct nb_checkpoint_info *info, const int *in, int which)
{
    struct nb_strbuf pattern;
    json_t *names = json_array(), *mine = json_object(), *all = json_object(),
           *named = json_object();
    nb_strbuf_init(&pattern);
    for (size_t i = 0; i < info->n_modules; i++) {
        pattern_of(info->modules[i].path, &pattern);
        const char *key = nb_strbuf_cstr(&pattern);
        json_object_set_new(all, key, json_integer(count_of(all, key) + 1));
        if (in[i] == which) json_object_set_new(mine, key, json_integer(count_of(mine, key) + 1));
    }
    for (size_t i = 0; i < info->n_modules; i++) {
        if (in[i] != which) continue;
        pattern_of(info->modules[i].path, &pattern);
        const char *key = nb_strbuf_cstr(&pattern);
        if (count_of(all, key) == 1 || count_of(mine, key) != count_of(all, key))
            json_array_append_new(names, json_string(info->modules[i].path));
        else if (!json_object_get(named, key)) json_array_append_new(names, json_string(key));
        json_object_set_new(named, key, json_true());
    }
    json_decref(named);
    json_decref(mine);
    json_decref(all);
    nb_strbuf_release(&pattern);
    return names;
}

/* What "Linear" would hit beside the modules of a run: the head, and the routers of expert layers. */
static void ignore_others(const struct nb_checkpoint_info *info, json_t *ignore)
{
    static const char *const routers[] = {"re:.*\\.mlp\\.gate$",
                                          "re:.*\\.mlp\\.shared_expert_gate$",
                                          "re:.*\\.block_sparse_moe\\.gate$"};
    bool head = false, experts = false;
    for (size_t i = 0; i < info->n_modules; i++) {
        head = head || !strcmp(info->modules[i].path, "lm_head");
        experts = experts || strstr(info->modules[i].path, ".experts.");
    }
    if (!head) json_array_append_new(ignore, json_string("lm_head"));
    for (size_t i = 0; experts && i < sizeof routers / sizeof *routers; i++)
        json_array_append_new(ignore, json_string(routers[i]));
}

/* ---- the object ---- */

struct groups {
    int *in; /* of each module: its group, or -1: float */
    const struct nb_module_spec *first[MAX_GROUPS];
    int n;
};

static int gather(struct groups *g, const struct nb_checkpoint_info *info, struct nb_err *err)
{
    g->n = 0;
    g->in = nb_alloc(info->n_modules + 1, sizeof *g->in);
    if (!g->in) return nb_fail(err, NB_E_NOMEM, "no memory for the list of linears");
    for (size_t i = 0; i < info->n_modules; i++) {
        const struct nb_module_spec *m = &info->modules[i];
        int k = 0;
        g->in[i] = -1;
        if (!m->quantized) continue;
        while (k < g->n && !same_scheme(g->first[k], m)) k++;
        if (k == MAX_GROUPS) {
            return nb_fail(
                err, NB_E_SPEC,
                "compressed-tensors: '%s' needs one more config group than the %d possible; "
                "nearest: fewer different settings",
                m->path, MAX_GROUPS);
        }
        if (k == g->n) g->first[g->n++] = m;
        g->in[i] = k;
    }
    return 0;
}

/* Parts of one fused layer stand near each other: in a decoder layer, or in an expert. */
static int check_fused(const struct groups *g, const struct nb_checkpoint_info *info,
                       struct nb_err *err)
{
    enum { NEAR = 8 };
    char fused[NB_MODULE_NAME_MAX], other[NB_MODULE_NAME_MAX];
    for (size_t i = 0; i < info->n_modules; i++) {
        if (g->in[i] < 0 || !nb_module_fused_path(info->modules[i].path, fused)) continue;
        for (size_t k = i + 1; k < info->n_modules && k <= i + NEAR; k++) {
            if (g->in[k] < 0 || g->in[k] == g->in[i]) continue;
            if (!nb_module_fused_path(info->modules[k].path, other) || strcmp(fused, other))
                continue;
            nb_fail(
                err, NB_E_SPEC,
                "compressed-tensors: '%s' and '%s' differ, but engines run them as one layer, '%s'",
                info->modules[i].path, info->modules[k].path, fused);
            return nb_err_hint(
                err,
                "give q, k and v the same settings, and gate and up (--bits-for with one pattern), "
                "or use format gptq");
        }
    }
    return 0;
}

int nb_ct_can_describe(const struct nb_checkpoint_info *info, struct nb_err *err)
{
    struct groups g;
    int rc = gather(&g, info, err);
    if (!rc) rc = check_fused(&g, info, err);
    nb_free(g.in);
    return rc;
}

static json_t *kv_json(void)
{
    const struct args a = {.bits = 8, .is_float = true, .symmetric = true, .strategy = "tensor"};
    return args_json(&a);
}

static json_t *groups_json(const struct groups *g, const struct nb_checkpoint_info *info,
                           const char **format)
{
    json_t *groups = json_object();
    bool mixed = false;
    *format = g->n ? format_of(&g->first[0]->spec) : "dense";
    for (int k = 1; k < g->n; k++) mixed = mixed || strcmp(*format, format_of(&g->first[k]->spec));
    for (int k = 0; k < g->n; k++) {
        char name[24];
        json_t *targets = g->n == 1 ? json_pack("[s]", "Linear") : names_of(info, g->in, k);
        snprintf(name, sizeof name, "group_%d", k);
        json_object_set_new(groups, name, group_json(g->first[k], targets, mixed));
    }
    if (mixed) *format = "mixed-precision";
    return groups;
}

json_t *nb_ct_config_make(const struct nb_checkpoint_info *info)
{
    struct groups g;
    const char *format;
    if (gather(&g, info, NULL) || check_fused(&g, info, NULL)) {
        nb_free(g.in);
        return NULL;
    }
    json_t *c = json_object(), *ignore = names_of(info, g.in, -1);
    ignore_others(info, ignore);
    json_object_set_new(c, "config_groups", groups_json(&g, info, &format));
    json_object_set_new(c, "format", json_string(format));
    json_object_set_new(c, "global_compression_ratio", json_null());
    json_object_set_new(c, "ignore", ignore);
    json_object_set_new(c, "kv_cache_scheme", info->kv_scales ? kv_json() : json_null());
    json_object_set_new(c, "quant_method", json_string("compressed-tensors"));
    json_object_set_new(c, "quantization_status", json_string("compressed"));
    nb_free(g.in);
    return c;
}
