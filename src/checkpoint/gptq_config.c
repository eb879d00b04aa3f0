/* SPDX-License-Identifier: Apache-2.0
 *
 * gptq_config.c - see gptq_config.h. Source: checkpoint formats, sections 2.3, 2.6, 2.7.
 *
 * What is written differs from GPTQModel in one point: meta.quantizer never names gptqmodel, because
 * readers take that name as a promise about how zeros were subtracted. */
#include "checkpoint/gptq_config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "checkpoint/internal.h"

static const char what[] = "quantization config";

static bool bits_possible(int64_t bits)
{
    return bits == 2 || bits == 3 || bits == 4 || bits == 8;
}

/* Settings that both the config and an override of `dynamic` may hold. */
static int read_module(struct nb_gptq_module *out, const json_t *q, struct nb_err *err)
{
    static const char *const bits[] = {"bits", "w_bit", "wbits", NULL};
    static const char *const group[] = {"group_size", "q_group_size", NULL};
    int rc = nb_quant_config_int(q, bits, &out->bits, &out->bits, err);
    if (!rc && nb_quant_config_any(q, group)) rc = nb_quant_config_group(q, &out->group, err);
    if (!rc) rc = nb_json_get_bool(q, "sym", false, &out->sym, what, err);
    if (!rc) rc = nb_json_get_bool(q, "desc_act", false, &out->desc_act, what, err);
    if (rc) return rc;
    if (!bits_possible(out->bits)) {
        return nb_fail(err, NB_E_SPEC,
                       "%s: gptq with %" PRId64 " bits cannot be read, only 2, 3, 4 and 8", what,
                       out->bits);
    }
    return 0;
}

void nb_gptq_config_format(const json_t *q, char out[32])
{
    static const char *const keys[] = {"checkpoint_format", "format", NULL};
    if (nb_quant_config_word(q, keys, "gptq", out, NULL)) out[0] = '\0';
}

static bool names_gptqmodel(const json_t *quantizer)
{
    const char *s = json_string_value(quantizer);
    if (s && strstr(s, "gptqmodel")) return true;
    for (size_t i = 0; i < json_array_size(quantizer); i++) {
        s = json_string_value(json_array_get(quantizer, i));
        if (s && strstr(s, "gptqmodel")) return true;
    }
    return false;
}

static int check_layout(const json_t *q, struct nb_err *err)
{
    static const char *const pack[] = {"pack_dtype", NULL};
    char format[32], dtype[32];
    bool marlin = false;
    nb_gptq_config_format(q, format);
    int rc = nb_json_get_bool(q, "is_marlin_format", false, &marlin, what, err);
    if (rc) return rc;
    if (marlin || (strcmp(format, "gptq") && strcmp(format, "gptq_v2"))) {
        return nb_fail(err, NB_E_SPEC,
                       "%s: checkpoint_format '%s' cannot be read; readable are gptq and gptq_v2",
                       what, marlin ? "marlin" : format);
    }
    rc = nb_quant_config_word(q, pack, "int32", dtype, err);
    if (rc) return rc;
    if (strcmp(dtype, "int32")) {
        return nb_fail(err, NB_E_SPEC, "%s: pack_dtype '%s' cannot be read, only int32", what,
                       dtype);
    }
    return 0;
}

/* A list of names, or a list of such lists. */
static int check_in_block(const json_t *list, struct nb_err *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        bool ok = json_is_string(v) || json_is_array(v);
        for (size_t k = 0; k < json_array_size(v); k++)
            ok = ok && json_is_string(json_array_get(v, k));
        if (!ok) list = NULL;
    }
    if (!json_is_array(list)) {
        return nb_fail(err, NB_E_FORMAT, "%s: modules_in_block_to_quantize is no list of names",
                       what);
    }
    return 0;
}

int nb_gptq_config_parse(struct nb_gptq_config *c, const json_t *q, struct nb_err *err)
{
    static const char *const bits[] = {"bits", "w_bit", "wbits", NULL};
    memset(c, 0, sizeof *c);
    c->base = (struct nb_gptq_module){.quantized = true, .sym = true};
    bool zero_point = false;
    int rc = check_layout(q, err);
    if (!rc) rc = nb_json_get_bool(q, "zero_point", false, &zero_point, what, err);
    c->base.sym = !zero_point;
    if (!rc) rc = nb_quant_config_int(q, bits, NULL, &c->base.bits, err);
    if (!rc) rc = nb_quant_config_group(q, &c->base.group, err);
    if (!rc) rc = read_module(&c->base, q, err);
    if (!rc) rc = nb_json_get_bool(q, "lm_head", false, &c->lm_head, what, err);
    if (rc) return rc;
    char format[32];
    nb_gptq_config_format(q, format);
    c->v2 = !strcmp(format, "gptq_v2");
    c->whole_words = names_gptqmodel(json_object_get(json_object_get(q, "meta"), "quantizer"));
    const json_t *in_block = json_object_get(q, "modules_in_block_to_quantize");
    if (in_block && !json_is_null(in_block)) {
        rc = check_in_block(in_block, err);
        c->in_block = in_block;
    }
    return rc ? rc : nb_dynamic_new(&c->dynamic, json_object_get(q, "dynamic"), err);
}

void nb_gptq_config_release(struct nb_gptq_config *c)
{
    nb_dynamic_free(c->dynamic);
    c->dynamic = NULL;
}

/* Does path end in the name, at a dot? */
static bool ends_in(const char *path, const char *name)
{
    size_t n = strlen(path), m = strlen(name);
    return n >= m && !strcmp(path + n - m, name) && (n == m || path[n - m - 1] == '.');
}

static bool listed(const json_t *list, const char *path)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (json_is_string(v) && ends_in(path, json_string_value(v))) return true;
        for (size_t k = 0; k < json_array_size(v); k++) {
            if (ends_in(path, json_string_value(json_array_get(v, k)))) return true;
        }
    }
    return false;
}

/* Routers and gates of experts stay float without the config saying so: engines do not take them for linears. */
static bool is_router(const struct nb_model *m, const char *path)
{
    const struct nb_arch_moe *moe = m->arch.moe;
    const char *const names[] = {moe ? moe->router_name : "", moe ? moe->shared_gate_name : ""};
    for (size_t i = 0; i < 2; i++) {
        char name[NB_NAME_MAX];
        snprintf(name, sizeof name, "%s", names[i]);
        char *end = strstr(name, ".weight");
        if (end) *end = '\0';
        if (name[0] && ends_in(path, name)) return true;
    }
    return false;
}

int nb_gptq_config_module(const struct nb_gptq_config *c, const struct nb_model *m,
                          const char *path, struct nb_gptq_module *out, struct nb_err *err)
{
    *out = c->base;
    bool hit;
    const json_t *override;
    int rc = nb_dynamic_find(c->dynamic, path, &hit, &override, err);
    if (rc) return rc;
    if (hit && override) rc = read_module(out, override, err);
    if (rc) return nb_err_prefix(err, "dynamic, module '%s'", path);
    if (nb_module_is_head(m, path)) out->quantized = c->lm_head && (!hit || override);
    else if (is_router(m, path)) out->quantized = false;
    else if (hit) out->quantized = override != NULL;
    else if (c->in_block) out->quantized = listed(c->in_block, path);
    else if (!c->dynamic) out->quantized = nb_module_looks_quantized(m, path);
    return 0;
}

/* ---- writing ---- */

static bool head_quantized(const struct nb_checkpoint_info *info)
{
    for (size_t i = 0; i < info->n_modules; i++) {
        if (!strcmp(info->modules[i].path, "lm_head")) return info->modules[i].quantized;
    }
    return false;
}

static void add_once(json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!strcmp(json_string_value(json_array_get(list, i)), name)) return;
    }
    json_array_append_new(list, json_string(name));
}

/* Names of the quantized linears inside a layer, where some are float and all layers agree; else NULL.
 * transformers leaves modules float by this list only, not by `dynamic`. New reference. */
static json_t *modules_in_block(const struct nb_checkpoint_info *info)
{
    json_t *packed = json_array(), *dense = json_array();
    for (size_t i = 0; i < info->n_modules; i++) {
        const char *inner = nb_module_inside_layer(info->modules[i].path);
        if (inner) add_once(info->modules[i].quantized ? packed : dense, inner);
    }
    bool useful = json_array_size(dense) && json_array_size(packed);
    for (size_t i = 0; i < json_array_size(dense); i++) {
        size_t n = json_array_size(packed);
        add_once(packed, json_string_value(json_array_get(dense, i)));
        if (json_array_size(packed) == n)
            useful = false; /* float in one layer, packed in another */
        else json_array_remove(packed, n);
    }
    json_decref(dense);
    json_t *blocks = useful ? json_array() : NULL;
    if (useful) json_array_append(blocks, packed);
    json_decref(packed);
    return blocks;
}

json_t *nb_gptq_config_make(const struct nb_checkpoint_info *info, bool v2)
{
    int64_t group = info->spec.group_cols <= 0 ? -1 : info->spec.group_cols;
    const char *format = v2 ? "gptq_v2" : "gptq";
    json_t *c = json_object();
    json_object_set_new(c, "quant_method", json_string("gptq"));
    json_object_set_new(c, "bits", json_integer(info->spec.elem.bits));
    json_object_set_new(c, "group_size", json_integer(group));
    json_object_set_new(c, "desc_act",
                        json_boolean(nb_module_has_order(&info->spec, info->desc_act)));
    json_object_set_new(c, "sym", json_boolean(info->spec.symmetric));
    json_object_set_new(c, "lm_head", json_boolean(head_quantized(info)));
    json_object_set_new(c, "checkpoint_format", json_string(format));
    json_object_set_new(c, "format", json_string(format));
    json_object_set_new(c, "pack_dtype", json_string("int32"));
    json_object_set_new(c, "static_groups", json_boolean(info->static_groups));
    json_object_set_new(c, "true_sequential", json_boolean(info->true_sequential));
    if (info->damp > 0 && info->damp < 1)
        json_object_set_new(c, "damp_percent", json_real(info->damp));
    json_t *rules = nb_dynamic_rules(info);
    if (json_object_size(rules)) json_object_set(c, "dynamic", rules);
    json_decref(rules);
    json_t *blocks = modules_in_block(info);
    if (blocks) json_object_set_new(c, "modules_in_block_to_quantize", blocks);
    json_t *quantizer = json_array();
    json_array_append_new(quantizer, json_string(info->producer));
    json_t *meta = json_object();
    json_object_set_new(meta, "quantizer", quantizer);
    json_object_set_new(c, "meta", meta);
    return c;
}
