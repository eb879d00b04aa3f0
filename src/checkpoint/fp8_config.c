/* SPDX-License-Identifier: Apache-2.0
 *
 * fp8_config.c - see fp8_config.h. Source: checkpoint formats, section 6; vLLM's fp8.py, transformers 5.23's
 * quantizer_finegrained_fp8.py, gptqmodel 7.7's qlinear/fp8.py.
 *
 * What a file does not say is how activations are rounded under "dynamic" without blocks: vLLM takes one scale per
 * token where its kernels can (every GPU with FP8 units), so that is what we read and write it as. */
#include "checkpoint/fp8_config.h"

#include <inttypes.h>
#include <string.h>

#include "checkpoint/internal.h"

static const char what[] = "quantization config";
static const char head[] = "lm_head";

/* ---- reading ---- */

static int refuse_number(const char *key, const char *found, struct nb_err *err)
{
    nb_fail(err, NB_E_SPEC, "%s: %s '%.40s' cannot be read, only E4M3 (float8_e4m3fn)", what, key,
            found);
    return nb_err_hint(err, "convert the float model it was made from instead");
}

/* `fmt` of DeepSeek, `format` of GPTQModel; nobody requires them. */
static int parse_number(struct nb_fp8_config *c, const json_t *q, struct nb_err *err)
{
    static const char *const fmt[] = {"fmt", NULL}, *const format[] = {"format", NULL};
    static const char *const semantics[] = {"weight_scale_semantics", NULL};
    static const char *const scale[] = {"scale_fmt", NULL};
    char short_name[32], long_name[32], meaning[32], scales[32];
    int rc = nb_quant_config_word(q, fmt, "e4m3", short_name, err);
    if (!rc) rc = nb_quant_config_word(q, format, "", long_name, err);
    if (!rc) rc = nb_quant_config_word(q, semantics, "", meaning, err);
    if (!rc) rc = nb_quant_config_word(q, scale, "float", scales, err);
    if (rc) return rc;
    if (strcmp(short_name, "e4m3") && strcmp(short_name, "e4m3fn") &&
        strcmp(short_name, "float8_e4m3fn"))
        return refuse_number("fmt", short_name, err);
    const bool own = !strncmp(long_name, "float8", 6);
    if (own && strcmp(long_name, "float8_e4m3fn")) return refuse_number("format", long_name, err);
    c->divides = own || !strcmp(meaning, "inverse");
    c->exponents = !strcmp(scales, "ue8m0");
    if (!c->exponents && strcmp(scales, "float")) {
        return nb_fail(err, NB_E_SPEC, "%s: scale_fmt '%s' is unknown; known: float, ue8m0", what,
                       scales);
    }
    return 0;
}

static int parse_blocks(struct nb_fp8_config *c, const json_t *q, struct nb_err *err)
{
    static const char *const keys[] = {"weight_scale_method", NULL};
    char method[32];
    int rc = nb_quant_config_word(q, keys, "", method, err);
    if (rc) return rc;
    const json_t *size = json_object_get(q, "weight_block_size");
    if (!size || json_is_null(size) || !strcmp(method, "row") || !strcmp(method, "tensor")) {
        if (!strcmp(method, "block"))
            return nb_fail(err, NB_E_FORMAT, "%s: key 'weight_block_size' is missing", what);
        c->form = !strcmp(method, "row") ? NB_FP8_ROWS : NB_FP8_TENSOR;
        return 0;
    }
    const json_int_t a = json_integer_value(json_array_get(size, 0)),
                     b = json_integer_value(json_array_get(size, 1));
    if (json_array_size(size) != 2 || a < 1 || b < 1 || a > INT32_MAX || b > INT32_MAX) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: weight_block_size is not a pair of sizes such as [128, 128]", what);
    }
    c->form = NB_FP8_BLOCKS;
    c->block_rows = a;
    c->block_cols = b;
    return 0;
}

static int parse_activations(struct nb_fp8_config *c, const json_t *q, struct nb_err *err)
{
    static const char *const keys[] = {"activation_scheme", NULL};
    char scheme[32];
    int rc = nb_quant_config_word(q, keys, c->divides ? "none" : "dynamic", scheme, err);
    if (rc) return rc;
    if (!strcmp(scheme, "static")) c->act = NB_ACT_FP8_STATIC;
    else if (!strcmp(scheme, "dynamic"))
        c->act = c->form == NB_FP8_BLOCKS ? NB_ACT_FP8_GROUP : NB_ACT_FP8_TOKEN;
    else if (!strcmp(scheme, "none") && c->divides) c->act = NB_ACT_NONE;
    else
        return nb_fail(err, NB_E_SPEC,
                       "%s: activation_scheme '%s' is unknown; known: static, dynamic", what,
                       scheme);
    return 0;
}

static int parse_lists(struct nb_fp8_config *c, const json_t *q, struct nb_err *err)
{
    static const char *const keys[2] = {"ignored_layers", "modules_to_not_convert"};
    for (int i = 0; i < 2; i++) {
        const json_t *list = json_object_get(q, keys[i]);
        if (!list || json_is_null(list)) continue;
        bool ok = json_is_array(list);
        for (size_t k = 0; k < json_array_size(list); k++)
            ok = ok && json_is_string(json_array_get(list, k));
        if (!ok) return nb_fail(err, NB_E_FORMAT, "%s: %s is no list of names", what, keys[i]);
        c->lists[i] = list;
    }
    return 0;
}

int nb_fp8_config_parse(struct nb_fp8_config *c, const json_t *q, struct nb_err *err)
{
    memset(c, 0, sizeof *c);
    int rc = parse_number(c, q, err);
    if (!rc) rc = parse_blocks(c, q, err);
    if (!rc) rc = parse_activations(c, q, err);
    return rc ? rc : parse_lists(c, q, err);
}

/* Does an entry name the path by more than its whole: by a beginning up to a dot, an end, or a pattern? */
static bool may_mean(const char *entry, const char *path)
{
    const size_t n = strlen(entry), k = strlen(path);
    if (entry[strcspn(entry, "*+?[(\\^$|")] || !strncmp(entry, "re:", 3)) return true;
    if (n < k && !strncmp(entry, path, n) && path[n] == '.') return true;
    return n <= k && !strcmp(path + k - n, entry);
}

bool nb_fp8_config_quantizes(const struct nb_fp8_config *c, const struct nb_model *m,
                             const char *path)
{
    bool open = nb_module_is_head(m, path) || (!c->lists[0] && !c->lists[1]);
    for (int i = 0; i < 2; i++) {
        for (size_t k = 0; k < json_array_size(c->lists[i]); k++) {
            const char *entry = json_string_value(json_array_get(c->lists[i], k));
            if (!strcmp(entry, path)) return false;
            open = open || may_mean(entry, path);
        }
    }
    const struct nb_tensor *t = open ? nb_module_tensor(m, path, ".weight") : NULL;
    return !t || !nb_dtype_is_weight(t->dtype);
}

/* ---- writing ---- */

/* vLLM reads q, k, v as one matrix, and gate, up: quantized together or not at all. Modules of one layer stand close
 * together in info. */
static const struct nb_module_spec *half_fused(const struct nb_checkpoint_info *info)
{
    enum { NEAR = 8 };
    char a[NB_MODULE_NAME_MAX], b[NB_MODULE_NAME_MAX];
    for (size_t i = 0; i < info->n_modules; i++) {
        if (!nb_module_fused_path(info->modules[i].path, a)) continue;
        for (size_t k = i + 1; k < info->n_modules && k <= i + NEAR; k++) {
            const struct nb_module_spec *other = &info->modules[k];
            if (other->quantized == info->modules[i].quantized) continue;
            if (nb_module_fused_path(other->path, b) && !strcmp(a, b))
                return other->quantized ? other : &info->modules[i];
        }
    }
    return NULL;
}

int nb_fp8_can_describe(const struct nb_checkpoint_info *info, struct nb_err *err)
{
    for (size_t i = 0; i < info->n_modules; i++) {
        const struct nb_module_spec *m = &info->modules[i];
        if (!m->quantized) continue;
        if (!strcmp(m->path, head))
            return nb_fail(err, NB_E_SPEC, "fp8 keeps %s float, as its loaders do", head);
        if (m->spec.act != info->spec.act) {
            char text[96];
            nb_qspec_describe(&m->spec, text, sizeof text);
            return nb_fail(
                err, NB_E_SPEC,
                "fp8 has one kind of numbers for the whole model, '%s' differs (%s); leave "
                "it float or use format compressed-tensors",
                m->path, text);
        }
    }
    const struct nb_module_spec *half = half_fused(info);
    if (half) {
        nb_fail(
            err, NB_E_SPEC,
            "'%s' is quantized and a linear that vLLM fuses with it is not; fp8 needs both alike",
            half->path);
        return nb_err_hint(err, "--ignore q_proj, k_proj and v_proj, or gate_proj and up_proj, "
                                "together");
    }
    return 0;
}

json_t *nb_fp8_config_make(const struct nb_checkpoint_info *info)
{
    if (nb_fp8_can_describe(info, NULL)) return NULL;
    const bool blocks = info->spec.act == NB_ACT_FP8_GROUP;
    json_t *c = json_object(), *names = json_array();
    for (size_t i = 0; i < info->n_modules; i++) {
        if (!info->modules[i].quantized && strcmp(info->modules[i].path, head))
            json_array_append_new(names, json_string(info->modules[i].path));
    }
    json_array_append_new(names, json_string(head));
    json_object_set_new(c, "quant_method", json_string("fp8"));
    json_object_set_new(c, "activation_scheme",
                        json_string(info->spec.act == NB_ACT_FP8_STATIC ? "static" : "dynamic"));
    if (blocks) {
        json_object_set_new(c, "weight_block_size", json_pack("[i, i]", 128, 128));
        json_object_set_new(c, "fmt", json_string("e4m3"));
    }
    json_object_set(c, "ignored_layers", names); /* vLLM's key, and transformers' */
    json_object_set_new(c, "modules_to_not_convert", json_copy(names));
    json_decref(names);
    if (info->kv_scales) json_object_set_new(c, "kv_cache_scheme", json_string("static"));
    return c;
}
