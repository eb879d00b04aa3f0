/* SPDX-License-Identifier: Apache-2.0
 *
 * dynamic_rules.c - the modules of a run that differ from its default, as rules of `dynamic`.
 *
 * One rule per module, or one for the shards that engines fuse (q, k, v; gate, up): engines with fused
 * layers match their own names, so the fused name stands in the rule too. Patterns end in $, since
 * readers disagree on whether a plain name also matches longer ones. Source: checkpoint formats, 2.7. */
#include "checkpoint/dynamic.h"

#include <string.h>

#include "base/strbuf.h"
#include "checkpoint/internal.h"

struct rule_writer {
    const struct nb_checkpoint_info *info;
    json_t *rules;
};

static bool is_plain(const struct nb_module_spec *m, const struct nb_checkpoint_info *info)
{
    return m->quantized && nb_module_same_grid(&m->spec, &info->spec) &&
           nb_module_has_order(&m->spec, m->desc_act) ==
               nb_module_has_order(&info->spec, info->desc_act);
}

static bool same_settings(const struct nb_module_spec *a, const struct nb_module_spec *b)
{
    if (a->quantized != b->quantized) return false;
    return !a->quantized || (nb_module_same_grid(&a->spec, &b->spec) &&
                             nb_module_has_order(&a->spec, a->desc_act) ==
                                 nb_module_has_order(&b->spec, b->desc_act));
}

/* Appends s with the characters escaped that mean something in a regular expression. */
static void escape(struct nb_strbuf *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strchr(".^$*+?{}[]()|\\", s[i])) nb_strbuf_putc(out, '\\');
        nb_strbuf_putc(out, s[i]);
    }
}

static json_t *overrides_of(const struct nb_module_spec *m, const struct nb_checkpoint_info *info)
{
    json_t *o = json_object();
    int64_t group = m->spec.group_cols <= 0 ? -1 : m->spec.group_cols;
    int64_t base = info->spec.group_cols <= 0 ? -1 : info->spec.group_cols;
    if (m->spec.elem.bits != info->spec.elem.bits) {
        json_object_set_new(o, "bits", json_integer(m->spec.elem.bits));
    }
    if (group != base) json_object_set_new(o, "group_size", json_integer(group));
    if (m->spec.symmetric != info->spec.symmetric) {
        json_object_set_new(o, "sym", json_boolean(m->spec.symmetric));
    }
    bool order = nb_module_has_order(&m->spec, m->desc_act);
    if (order != nb_module_has_order(&info->spec, info->desc_act))
        json_object_set_new(o, "desc_act", json_boolean(order));
    return o;
}

/* One rule for the module and the shards an engine fuses with it, where those are treated alike: the rule
 * then names them all and the fused module too, since such engines match their own names. The first
 * shard in the list writes it. */
static void add_rule(struct rule_writer *w, const struct nb_module_spec *m)
{
    const struct nb_checkpoint_info *info = w->info;
    char fused[NB_MODULE_NAME_MAX], other[NB_MODULE_NAME_MAX];
    bool alike = nb_module_fused_path(m->path, fused);
    const char *dot = strrchr(m->path, '.');
    size_t stem = dot ? (size_t)(dot + 1 - m->path) : 0;
    struct nb_strbuf names;
    nb_strbuf_init(&names);
    bool first = true;
    for (size_t i = 0; alike && i < info->n_modules; i++) {
        const struct nb_module_spec *s = &info->modules[i];
        if (!nb_module_fused_path(s->path, other) || strcmp(fused, other)) continue;
        alike = same_settings(s, m);
        if (!names.len && s != m) first = false;
        nb_strbuf_printf(&names, "%s|", s->path + stem);
    }
    struct nb_strbuf key;
    nb_strbuf_init(&key);
    nb_strbuf_puts(&key, m->quantized ? "+:^" : "-:^");
    escape(&key, m->path, stem);
    if (alike) nb_strbuf_printf(&key, "(%s%s)$", nb_strbuf_cstr(&names), fused + stem);
    else {
        escape(&key, m->path + stem, strlen(m->path + stem));
        nb_strbuf_putc(&key, '$');
    }
    if (!alike || first) {
        json_object_set_new(w->rules, nb_strbuf_cstr(&key),
                            m->quantized ? overrides_of(m, info) : json_object());
    }
    nb_strbuf_release(&names);
    nb_strbuf_release(&key);
}

json_t *nb_dynamic_rules(const struct nb_checkpoint_info *info)
{
    struct rule_writer w = {info, json_object()};
    for (int quantized = 0; quantized < 2; quantized++) {
        for (size_t i = 0; i < info->n_modules; i++) {
            const struct nb_module_spec *m = &info->modules[i];
            bool head = !m->quantized && !strcmp(m->path, "lm_head"); /* has its own key */
            if (m->quantized == (quantized == 1) && !is_plain(m, info) && !head) add_rule(&w, m);
        }
    }
    return w.rules;
}
