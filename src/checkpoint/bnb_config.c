/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb_config.c - the bitsandbytes quantization config, read and written.
 *
 * What is quantized, and in which numbers, the tensors say; of the config a reader needs little. There are no settings
 * per layer: whatever linear llm_int8_skip_modules does not name is quantized like all others. The list holds full
 * paths, which every version of transformers and vLLM takes. Source: checkpoint formats, section 4.5. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "checkpoint/bnb.h"
#include "checkpoint/internal.h"

static const char what[] = "quantization config", head[] = "lm_head";

bool nb_bnb_config_probe(const json_t *q)
{
    char method[32];
    nb_quant_config_method(q, method);
    if (!method[0]) return json_object_get(q, "load_in_4bit") || json_object_get(q, "load_in_8bit");
    return !strcmp(method, "bitsandbytes");
}

static int check_words(const json_t *q, struct nb_err *err)
{
    static const char *const type_keys[] = {"bnb_4bit_quant_type", NULL};
    static const char *const storage_keys[] = {"bnb_4bit_quant_storage", NULL};
    static const char *const storages[] = {"uint8", "bfloat16", "float16", "float32"};
    char type[32], storage[32];
    int rc = nb_quant_config_word(q, type_keys, "fp4", type, err);
    if (!rc) rc = nb_quant_config_word(q, storage_keys, "uint8", storage, err);
    if (rc) return rc;
    if (strcmp(type, "nf4") && strcmp(type, "fp4")) {
        return nb_fail(err, NB_E_SPEC,
                       "%s: bnb_4bit_quant_type '%s' cannot be read; readable are nf4 and fp4",
                       what, type);
    }
    for (size_t i = 0; i < sizeof storages / sizeof *storages; i++) {
        if (!strcmp(storage, storages[i])) return 0;
    }
    return nb_fail(err, NB_E_SPEC,
                   "%s: bnb_4bit_quant_storage '%s' cannot be read; readable are uint8, bfloat16, "
                   "float16 and float32",
                   what, storage);
}

int nb_bnb_config_parse(struct nb_bnb_config *c, const json_t *q, struct nb_err *err)
{
    bool four = false, eight = false;
    double threshold = 6.0;
    int rc = nb_json_get_bool(q, "load_in_8bit", false, &eight, what, err);
    four = !eight;
    if (!rc) rc = nb_json_get_bool(q, "load_in_4bit", false, &four, what, err);
    if (!rc) rc = nb_json_get_real(q, "llm_int8_threshold", false, &threshold, what, err);
    if (!rc) rc = check_words(q, err);
    if (rc) return rc;
    if (json_object_get(q, "bits")) {
        return nb_fail(err, NB_E_SPEC,
                       "%s: key 'bits' marks GPTQModel's own bitsandbytes files, which name their "
                       "tensors otherwise and cannot be read",
                       what);
    }
    if (four == eight) {
        return nb_fail(err, NB_E_FORMAT, "%s: load_in_4bit and load_in_8bit are both %s", what,
                       four ? "true" : "false");
    }
    c->threshold = (float)threshold;
    if (!isfinite(c->threshold) || c->threshold < 0) {
        return nb_fail(err, NB_E_FORMAT, "%s: llm_int8_threshold %g is no threshold", what,
                       threshold);
    }
    return 0;
}

/* ---- writing ---- */

static const char *numbers_of(const struct nb_qspec *spec)
{
    if (!nb_bnb_is_4bit(spec)) return "LLM.int8";
    return nb_bnb_is_nf4(spec) ? "NF4" : "FP4";
}

static bool same_numbers(const struct nb_qspec *a, const struct nb_qspec *b)
{
    return a->elem.kind == b->elem.kind && a->elem.table == b->elem.table &&
           a->elem.bits == b->elem.bits && a->group_cols == b->group_cols &&
           !a->super_groups == !b->super_groups && a->act_threshold == b->act_threshold;
}

int nb_bnb_can_describe(const struct nb_checkpoint_info *info, struct nb_err *err)
{
    for (size_t i = 0; i < info->n_modules; i++) {
        const struct nb_module_spec *m = &info->modules[i];
        if (!m->quantized || same_numbers(&m->spec, &info->spec)) continue;
        char spec[96];
        nb_qspec_describe(&m->spec, spec, sizeof spec);
        return nb_fail(
            err, NB_E_SPEC,
            "bitsandbytes has one kind of numbers for the whole model, here %s, and '%s' "
            "differs (%s); leave it float, or use format compressed-tensors",
            numbers_of(&info->spec), m->path, spec);
    }
    return 0;
}

static json_t *float_modules(const struct nb_checkpoint_info *info)
{
    json_t *list = json_array();
    bool head_quantized = false, head_listed = false;
    for (size_t i = 0; i < info->n_modules; i++) {
        const struct nb_module_spec *m = &info->modules[i];
        const bool is_head = !strcmp(m->path, head);
        head_quantized = head_quantized || (is_head && m->quantized);
        head_listed = head_listed || (is_head && !m->quantized);
        if (!m->quantized) json_array_append_new(list, json_string(m->path));
    }
    if (!head_quantized && !head_listed) json_array_append_new(list, json_string(head));
    return list;
}

static const char *storage_name(enum nb_dtype t)
{
    switch (t) {
    case NB_BF16: return "bfloat16";
    case NB_F16: return "float16";
    case NB_F32: return "float32";
    default: return "uint8";
    }
}

json_t *nb_bnb_config_make(const struct nb_checkpoint_info *info)
{
    if (nb_bnb_can_describe(info, NULL)) return NULL;
    const struct nb_qspec *spec = &info->spec;
    const bool four = nb_bnb_is_4bit(spec), fp4 = four && !nb_bnb_is_nf4(spec);
    json_t *c = json_object();
    json_object_set_new(c, "quant_method", json_string("bitsandbytes"));
    json_object_set_new(c, "load_in_4bit", json_boolean(four));
    json_object_set_new(c, "load_in_8bit", json_boolean(!four));
    json_object_set_new(c, "_load_in_4bit", json_boolean(four));
    json_object_set_new(c, "_load_in_8bit", json_boolean(!four));
    json_object_set_new(c, "bnb_4bit_quant_type", json_string(fp4 ? "fp4" : "nf4"));
    json_object_set_new(c, "bnb_4bit_compute_dtype", json_string("bfloat16"));
    json_object_set_new(c, "bnb_4bit_quant_storage",
                        json_string(four ? storage_name(info->pack.storage) : "uint8"));
    json_object_set_new(c, "bnb_4bit_use_double_quant",
                        json_boolean(four && spec->super_groups > 0));
    /* A float, always: transformers refuses an integer here. */
    json_object_set_new(c, "llm_int8_threshold",
                        json_real(four ? 6.0 : (double)spec->act_threshold));
    json_object_set_new(c, "llm_int8_skip_modules", float_modules(info));
    json_object_set_new(c, "llm_int8_enable_fp32_cpu_offload", json_false());
    json_object_set_new(c, "llm_int8_has_fp16_weight", json_false());
    return c;
}
