/* SPDX-License-Identifier: Apache-2.0
 *
 * quantize_config.c - see quantize_config.h. Source: checkpoint formats, sections 2.6, 2.7, 3.3, 4.5, 6. */
#include "cli/quantize_config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"

enum { MAX_CONFIG_BYTES = 16 << 20, MAX_NAMES = 65536 };

/* ---- names ---- */

static bool is_head(const char *name)
{
    const char *dot = strrchr(name, '.');
    return !strcmp(dot ? dot + 1 : name, "lm_head");
}

static void add_glob(struct nb_quantize_list *list, const char *before, const char *name,
                     const char *after)
{
    struct nb_strbuf b;
    nb_strbuf_init(&b);
    nb_strbuf_puts(&b, before);
    for (; *name; name++) {
        if (strchr("*?[\\", *name)) nb_strbuf_putc(&b, '\\');
        nb_strbuf_putc(&b, *name);
    }
    nb_strbuf_puts(&b, after);
    nb_quantize_list_add(list, nb_strbuf_cstr(&b), b.len);
    nb_strbuf_release(&b);
}

/* One alternative of a regular expression without groups; false when a glob cannot say it. */
static bool glob_of(struct nb_strbuf *out, const char *re)
{
    bool open_end = true;
    if (*re == '^') re++;
    for (; *re && open_end; re++) {
        if (re[0] == '.' && re[1] == '*') {
            nb_strbuf_putc(out, '*');
            re++;
        } else if (re[0] == '.') {
            nb_strbuf_putc(out, '?');
        } else if (re[0] == '\\' && re[1] && !strchr("dDwWsSbBAZ", re[1])) {
            if (strchr("*?[\\", re[1])) nb_strbuf_putc(out, '\\');
            nb_strbuf_putc(out, *++re);
        } else if (re[0] == '$' && !re[1]) {
            open_end = false;
        } else if (strchr("*+?{}[]()|^$\\", re[0])) {
            return false;
        } else {
            nb_strbuf_putc(out, re[0]);
        }
        if (!open_end) break;
    }
    if (open_end && (!out->len || out->data[out->len - 1] != '*')) nb_strbuf_putc(out, '*');
    return true;
}

/* before(a|b|c)after: each alternative by itself. */
static bool add_alternatives(struct nb_quantize_list *list, const char *re)
{
    const char *open = strchr(re, '('), *close = open ? strchr(open, ')') : NULL;
    if (open && (!close || (open > re && open[-1] == '\\'))) return false;
    const char *at = open ? open + 1 : re;
    if (open && !strncmp(at, "?:", 2)) at += 2;
    bool ok = true;
    for (bool more = true; more && ok;) {
        const size_t n = open ? strcspn(at, "|)") : strlen(at);
        struct nb_strbuf whole, glob;
        nb_strbuf_init(&whole);
        nb_strbuf_init(&glob);
        if (open) nb_strbuf_printf(&whole, "%.*s", (int)(open - re), re);
        nb_strbuf_printf(&whole, "%.*s%s", (int)n, at, open ? close + 1 : "");
        ok = glob_of(&glob, nb_strbuf_cstr(&whole));
        if (ok) nb_quantize_list_add(list, nb_strbuf_cstr(&glob), glob.len);
        nb_strbuf_release(&whole);
        nb_strbuf_release(&glob);
        more = open && at + n < close;
        at += n + 1;
    }
    return ok;
}

int nb_config_add_regex(const struct nb_config_reader *r, struct nb_quantize_list *list,
                        const char *regex, struct nb_err *err)
{
    if (strlen(regex) < 4096 && add_alternatives(list, regex)) return 0;
    return nb_fail(err, NB_E_SPEC,
                   "%s: pattern '%.120s' says more than --ignore can; possible are names, '.*', "
                   "escaped dots and one (a|b) of names",
                   r->path, regex);
}

static int add_name(const struct nb_config_reader *r, struct nb_quantize_list *list,
                    const char *name, enum nb_config_names how, struct nb_err *err)
{
    if (is_head(name) || !*name) return 0;
    if (how == NB_CONFIG_WITHIN) {
        add_glob(list, "*", name, "*");
        return 0;
    }
    if (how == NB_CONFIG_PATTERN) {
        if (!strncmp(name, "re:", 3)) return nb_config_add_regex(r, list, name + 3, err);
        if (!strcmp(name, "Linear")) nb_quantize_list_add(list, "*", 1);
        else add_glob(list, "", name, "");
        return 0;
    }
    add_glob(list, "", name, "");
    add_glob(list, "", name, ".*");
    add_glob(list, "*.", name, "");
    add_glob(list, "*.", name, ".*");
    return 0;
}

int nb_config_add_names(const struct nb_config_reader *r, struct nb_quantize_list *list,
                        const json_t *names, enum nb_config_names how, struct nb_err *err)
{
    if (!names || json_is_null(names)) return 0;
    if (json_is_string(names)) return add_name(r, list, json_string_value(names), how, err);
    if (!json_is_array(names) || json_array_size(names) > MAX_NAMES) {
        return nb_fail(err, NB_E_FORMAT, "%s: expected a list of at most %d module names, found %s",
                       r->path, MAX_NAMES, nb_json_type_name(names));
    }
    for (size_t i = 0; i < json_array_size(names); i++) {
        const json_t *v = json_array_get(names, i);
        if (!json_is_string(v)) {
            return nb_fail(err, NB_E_FORMAT, "%s: a list of module names holds %s", r->path,
                           nb_json_type_name(v));
        }
        int rc = add_name(r, list, json_string_value(v), how, err);
        if (rc) return rc;
    }
    return 0;
}

/* ---- AutoGPTQ, GPTQModel, AutoAWQ ---- */

static int int_of(const json_t *o, const char *key, const char *other, int64_t *out,
                  const char *what, struct nb_err *err)
{
    return nb_json_get_int(o, json_object_get(o, key) ? key : other, false, out, what, err);
}

static int apply_integers(const struct nb_config_reader *r, const json_t *c, struct nb_err *err)
{
    struct nb_quantize_opts *q = &r->plan->opts;
    int64_t bits = q->bits, group = q->group;
    int rc =
        int_of(c, "bits", json_object_get(c, "wbits") ? "wbits" : "w_bit", &bits, r->path, err);
    if (!rc) rc = int_of(c, "group_size", "q_group_size", &group, r->path, err);
    if (rc) return rc;
    if (bits < 1 || bits > 16 || group < -1) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: %" PRId64 " bits in groups of %" PRId64 " are not possible", r->path,
                       bits, group);
    }
    q->bits = (int)bits;
    q->group = group;
    return 0;
}

/* GPTQModel's rules: "-:" leaves float, others may give other bits. */
static int apply_dynamic(const struct nb_config_reader *r, const json_t *rules, struct nb_err *err)
{
    if (!rules || json_is_null(rules)) return 0;
    if (!json_is_object(rules))
        return nb_fail(err, NB_E_FORMAT, "%s: key 'dynamic': expected an object, found %s", r->path,
                       nb_json_type_name(rules));
    const char *key;
    json_t *value;
    int rc = 0;
    json_object_foreach((json_t *)(uintptr_t)rules, key, value)
    {
        const bool negative = !strncmp(key, "-:", 2);
        const char *regex = negative || !strncmp(key, "+:", 2) ? key + 2 : key;
        if (negative) rc = nb_config_add_regex(r, &r->plan->ignore, regex, err);
        if (rc) return rc;
        if (negative) continue;
        int64_t bits = 0;
        rc = nb_json_get_int(value, "bits", false, &bits, r->path, err);
        if (rc) return rc;
        if (bits < 1 || bits > 16 || json_object_size(value) != 1) {
            return nb_fail(err, NB_E_SPEC,
                           "%s: dynamic rule '%.120s' changes more than bits; possible: other bits "
                           "(--bits-for), or float (-:)",
                           r->path, key);
        }
        struct nb_quantize_list *globs = &r->plan->bits_globs;
        const size_t before = globs->n;
        rc = nb_config_add_regex(r, globs, regex, err);
        if (!rc) rc = nb_quantize_plan_bits_for(r->plan, before, (int)bits, err);
        if (rc) return rc;
    }
    return 0;
}

static int apply_gptq(const struct nb_config_reader *r, const json_t *c, struct nb_err *err)
{
    struct nb_quantize_opts *q = &r->plan->opts;
    bool sym = q->sym == 1, desc_act = false, static_groups = false, lm_head = false;
    const char *format = NULL;
    int rc = apply_integers(r, c, err);
    if (!rc) rc = nb_json_get_bool(c, "sym", false, &sym, r->path, err);
    if (!rc) rc = nb_json_get_bool(c, "desc_act", false, &desc_act, r->path, err);
    if (!rc) rc = nb_json_get_bool(c, "static_groups", false, &static_groups, r->path, err);
    if (!rc) rc = nb_json_get_bool(c, "lm_head", false, &lm_head, r->path, err);
    if (!rc) rc = nb_json_get_real(c, "damp_percent", false, &q->damp, r->path, err);
    const char *key = json_object_get(c, "checkpoint_format") ? "checkpoint_format" : "format";
    if (!rc) rc = nb_json_get_string(c, key, false, &format, r->path, err);
    if (rc) return rc;
    if (lm_head)
        return nb_fail(err, NB_E_SPEC,
                       "%s: lm_head is true, but the head stays float; possible: false", r->path);
    if (format && strcmp(format, "gptq") && strcmp(format, "gptq_v2"))
        return nb_fail(err, NB_E_SPEC,
                       "%s: checkpoint_format '%s' is not available; possible: gptq, gptq_v2",
                       r->path, format);
    if (json_object_get(c, "sym")) q->sym = sym;
    q->method = "gptq";
    q->format = format && !strcmp(format, "gptq_v2") ? "gptq_v2" : "gptq";
    q->order = !desc_act ? NB_ORDER_NONE : static_groups ? NB_ORDER_STATIC : NB_ORDER_DYNAMIC;
    return apply_dynamic(r, json_object_get(c, "dynamic"), err);
}

static int apply_awq(const struct nb_config_reader *r, const json_t *c, struct nb_err *err)
{
    struct nb_quantize_opts *q = &r->plan->opts;
    bool zero_point = true;
    const char *version = NULL;
    int rc = apply_integers(r, c, err);
    if (!rc) rc = nb_json_get_bool(c, "zero_point", false, &zero_point, r->path, err);
    if (!rc) rc = nb_json_get_string(c, "version", false, &version, r->path, err);
    if (rc) return rc;
    if (version && strcmp(version, "gemm") && strcmp(version, "GEMM"))
        return nb_fail(err, NB_E_SPEC, "%s: version '%s' is not available; possible: gemm", r->path,
                       version);
    q->sym = !zero_point;
    q->method = q->format = "awq";
    return nb_config_add_names(r, &r->plan->ignore, json_object_get(c, "modules_to_not_convert"),
                               NB_CONFIG_WITHIN, err);
}

/* ---- bitsandbytes ---- */

/* "torch.bfloat16" and "bfloat16" are the same. */
static const char *torch_type(const char *name)
{
    return name && !strncmp(name, "torch.", 6) ? name + 6 : name;
}

static int apply_bnb4(const struct nb_config_reader *r, const json_t *c, struct nb_err *err)
{
    struct nb_quantize_opts *q = &r->plan->opts;
    const char *type = "fp4", *storage = NULL; /* bitsandbytes' own default */
    bool nested = false;
    int rc = nb_json_get_string(c, "bnb_4bit_quant_type", false, &type, r->path, err);
    if (!rc) rc = nb_json_get_string(c, "bnb_4bit_quant_storage", false, &storage, r->path, err);
    if (!rc) rc = nb_json_get_bool(c, "bnb_4bit_use_double_quant", false, &nested, r->path, err);
    if (rc) return rc;
    if (strcmp(type, "nf4") && strcmp(type, "fp4"))
        return nb_fail(err, NB_E_SPEC,
                       "%s: bnb_4bit_quant_type '%s' is unknown; possible: nf4, fp4", r->path,
                       type);
    q->scheme = strcmp(type, "nf4") ? "FP4" : "NF4";
    q->double_quant = nested;
    q->storage = torch_type(storage);
    return 0;
}

static int apply_bnb(const struct nb_config_reader *r, const json_t *c, struct nb_err *err)
{
    struct nb_quantize_opts *q = &r->plan->opts;
    bool four = false, eight = false, fp16 = false;
    double threshold = 6;
    int rc = nb_json_get_bool(c, "load_in_4bit", false, &four, r->path, err);
    if (!rc) rc = nb_json_get_bool(c, "load_in_8bit", false, &eight, r->path, err);
    if (!rc) rc = nb_json_get_bool(c, "llm_int8_has_fp16_weight", false, &fp16, r->path, err);
    if (!rc) rc = nb_json_get_real(c, "llm_int8_threshold", false, &threshold, r->path, err);
    if (rc) return rc;
    if (four == eight)
        return nb_fail(err, NB_E_FORMAT,
                       "%s: one of load_in_4bit and load_in_8bit must be true, found %s", r->path,
                       four ? "both" : "neither");
    if (eight && fp16)
        return nb_fail(err, NB_E_SPEC,
                       "%s: llm_int8_has_fp16_weight keeps float weights, there is nothing to "
                       "quantize; possible: false",
                       r->path);
    if (eight && threshold != 6)
        return nb_fail(err, NB_E_SPEC, "%s: llm_int8_threshold %g is not available; possible: 6.0",
                       r->path, threshold);
    q->format = "bnb";
    q->method = "rtn"; /* what the tool itself does */
    q->clip = "none";
    if (four) rc = apply_bnb4(r, c, err);
    else q->scheme = "INT8";
    return rc ? rc
              : nb_config_add_names(r, &r->plan->ignore,
                                    json_object_get(c, "llm_int8_skip_modules"), NB_CONFIG_NAMED,
                                    err);
}

/* ---- fp8 ---- */

static bool is_128(const json_t *blocks)
{
    return json_array_size(blocks) == 2 && json_integer_value(json_array_get(blocks, 0)) == 128 &&
           json_integer_value(json_array_get(blocks, 1)) == 128;
}

static int apply_fp8(const struct nb_config_reader *r, const json_t *c, struct nb_err *err)
{
    struct nb_quantize_opts *q = &r->plan->opts;
    const char *activations = "dynamic", *kv = NULL;
    const json_t *blocks = json_object_get(c, "weight_block_size");
    int rc = nb_json_get_string(c, "activation_scheme", false, &activations, r->path, err);
    if (!rc) rc = nb_json_get_string(c, "kv_cache_scheme", false, &kv, r->path, err);
    if (rc) return rc;
    const bool is_static = !strcmp(activations, "static");
    if (blocks && !json_is_null(blocks)) {
        if (!is_128(blocks) || is_static)
            return nb_fail(err, NB_E_SPEC,
                           "%s: weight_block_size must be [128, 128] with activation_scheme "
                           "dynamic",
                           r->path);
        q->scheme = "FP8_BLOCK";
    } else if (is_static) {
        q->scheme = "FP8";
    } else {
        return nb_fail(err, NB_E_SPEC,
                       "%s: one scale per weight with dynamic activations is not written; "
                       "possible: --scheme FP8_DYNAMIC (a scale per row), or activation_scheme "
                       "static",
                       r->path);
    }
    q->format = "fp8";
    q->kv_scales = kv && !strcmp(kv, "static");
    rc = nb_config_add_names(r, &r->plan->ignore, json_object_get(c, "modules_to_not_convert"),
                             NB_CONFIG_WITHIN, err);
    return rc ? rc
              : nb_config_add_names(r, &r->plan->ignore, json_object_get(c, "ignored_layers"),
                                    NB_CONFIG_PATTERN, err);
}

/* ---- which one ---- */

static const struct {
    const char *method;
    int (*apply)(const struct nb_config_reader *r, const json_t *c, struct nb_err *err);
} readers[] = {
    {"gptq", apply_gptq},
    {"awq", apply_awq},
    {"bitsandbytes", apply_bnb},
    {"fp8", apply_fp8},
    {"compressed-tensors", nb_config_apply_ct},
    {"compressed_tensors", nb_config_apply_ct},
};

static const char *guess(const json_t *c)
{
    if (json_object_get(c, "config_groups")) return "compressed-tensors";
    if (json_object_get(c, "load_in_4bit") || json_object_get(c, "load_in_8bit"))
        return "bitsandbytes";
    if (json_object_get(c, "w_bit")) return "awq";
    return json_object_get(c, "activation_scheme") ? "fp8" : "gptq";
}

static int load(struct nb_quantize_plan *p, const char *path, struct nb_err *err)
{
    p->config = nb_json_load(path, MAX_CONFIG_BYTES, err);
    if (!p->config) return nb_err_hint(err, "a recipe in YAML must be written as JSON first");
    json_t *inner = json_object_get(p->config, "quantization_config");
    if (inner) { /* a whole config.json */
        json_incref(inner);
        json_decref(p->config);
        p->config = inner;
    }
    if (json_is_object(p->config)) return 0;
    return nb_fail(err, NB_E_FORMAT, "%s: expected an object, found %s", path,
                   nb_json_type_name(p->config));
}

int nb_quantize_config_apply(struct nb_quantize_plan *p, const char *path, struct nb_err *err)
{
    const struct nb_config_reader r = {p, path};
    const char *method = NULL;
    int rc = load(p, path, err);
    if (rc) return rc;
    const json_t *recipe = nb_config_recipe(p->config);
    if (recipe) return nb_config_apply_recipe(&r, recipe, err);
    const char *key = json_object_get(p->config, "quant_method") ? "quant_method" : "method";
    rc = nb_json_get_string(p->config, key, false, &method, path, err);
    if (rc) return rc;
    if (!method) method = guess(p->config);
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
        if (!strcmp(readers[i].method, method)) return readers[i].apply(&r, p->config, err);
    }
    return nb_fail(
        err, NB_E_SPEC,
        "%s: quant_method '%s' is not available; possible: gptq, awq, bitsandbytes, fp8, "
        "compressed-tensors",
        path, method);
}
