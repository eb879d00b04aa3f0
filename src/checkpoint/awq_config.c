/* SPDX-License-Identifier: Apache-2.0
 *
 * awq_config.c - the AWQ quantization config of a run.
 *
 * Modules left float can only be named by modules_to_not_convert, whose entries hit every path that
 * contains them. AutoAWQ looks at names inside a layer ("mlp.down_proj"), vLLM at full paths of its fused
 * modules. So an entry is the name inside the layer where all layers agree, else the full path, with the
 * fused spelling beside it, and a list that would hit a quantized module is refused. GPTQModel 7.7 knows
 * the list only from writing; what it obeys when it loads awq is `dynamic`, so that says the same again.
 * Source: formats, 3.3, and gptqmodel/models/loader.py. */
#include "checkpoint/awq_config.h"

#include <inttypes.h>
#include <string.h>

#include "checkpoint/dynamic.h"
#include "checkpoint/internal.h"

static const char head[] = "lm_head";

static bool hits(const char *entry, const struct nb_module_spec *m)
{
    char fused[NB_MODULE_NAME_MAX];
    return strstr(m->path, entry) || (nb_module_fused_path(m->path, fused) && strstr(fused, entry));
}

/* Does the entry hit no quantized module? */
static bool is_safe(const struct nb_checkpoint_info *info, const char *entry)
{
    for (size_t i = 0; i < info->n_modules; i++) {
        if (info->modules[i].quantized && hits(entry, &info->modules[i])) return false;
    }
    return true;
}

static void add_once(json_t *list, const char *entry)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!strcmp(json_string_value(json_array_get(list, i)), entry)) return;
    }
    json_array_append_new(list, json_string(entry));
}

/* New reference. *bad: a float module that no entry can name, or NULL. */
static json_t *float_modules(const struct nb_checkpoint_info *info,
                             const struct nb_module_spec **bad)
{
    json_t *list = json_array();
    *bad = NULL;
    for (size_t i = 0; i < info->n_modules; i++) {
        const struct nb_module_spec *m = &info->modules[i];
        if (m->quantized || !strcmp(m->path, head)) continue;
        const char *inner = nb_module_inside_layer(m->path);
        bool short_name = inner && is_safe(info, inner);
        if (!short_name && !is_safe(info, m->path)) *bad = m;
        add_once(list, short_name ? inner : m->path);
        char fused[NB_MODULE_NAME_MAX];
        if (!nb_module_fused_path(m->path, fused)) continue;
        const char *fused_entry = short_name ? nb_module_inside_layer(fused) : fused;
        if (is_safe(info, fused_entry)) add_once(list, fused_entry);
    }
    return list;
}

int nb_awq_can_describe(const struct nb_checkpoint_info *info, struct nb_err *err)
{
    for (size_t i = 0; i < info->n_modules; i++) {
        const struct nb_module_spec *m = &info->modules[i];
        if (!m->quantized) continue;
        if (!strcmp(m->path, head)) {
            return nb_fail(err, NB_E_SPEC, "awq keeps %s float; format gptq can hold it", head);
        }
        if (m->spec.elem.bits != info->spec.elem.bits ||
            m->spec.group_cols != info->spec.group_cols) {
            return nb_fail(
                err, NB_E_SPEC,
                "awq has one width and one group for the whole model, '%s' differs (%d bits, group %" PRId64
                "); leave it float or use format gptq",
                m->path, m->spec.elem.bits, m->spec.group_cols);
        }
    }
    const struct nb_module_spec *bad;
    json_decref(float_modules(info, &bad));
    if (bad) {
        return nb_fail(
            err, NB_E_SPEC,
            "awq names float modules by substring, and '%s' would also hit a quantized one",
            bad->path);
    }
    return 0;
}

json_t *nb_awq_config_make(const struct nb_checkpoint_info *info)
{
    if (nb_awq_can_describe(info, NULL)) return NULL;
    const struct nb_module_spec *bad;
    json_t *list = float_modules(info, &bad);
    json_t *c = json_object();
    json_object_set_new(c, "quant_method", json_string("awq"));
    json_object_set_new(c, "bits", json_integer(info->spec.elem.bits));
    json_object_set_new(c, "group_size", json_integer(info->spec.group_cols));
    json_object_set_new(c, "zero_point", json_true());
    json_object_set_new(c, "version", json_string("gemm"));
    json_object_set(c, "modules_to_not_convert", json_array_size(list) ? list : json_null());
    json_decref(list);
    json_t *rules = nb_dynamic_rules(info);
    if (json_object_size(rules)) json_object_set(c, "dynamic", rules);
    json_decref(rules);
    return c;
}
