/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "checkpoint/ct_config.h"
#include "checkpoint/internal.h"
#include "numeric/elems.h"
#include "support/tiny_model.h"

#define W4 "\"weights\":{\"num_bits\":4,\"strategy\":\"group\",\"group_size\":128}"
#define W8 "\"weights\":{\"num_bits\":8,\"strategy\":\"channel\"}"

static json_t *json(const char *text)
{
    struct nb_err err;
    json_t *q = nb_json_parse(text, strlen(text), 64, "config", &err);
    if (!q) fail_msg("%s", err.text);
    return q;
}

/* Bits of the module's scheme, 0: float. */
static int bits_of(const char *config, const char *path)
{
    struct nb_err err;
    struct nb_ct_config *c;
    const struct nb_ct_scheme *s;
    json_t *q = json(config);
    if (nb_ct_config_new(&c, q, &err)) fail_msg("%s", err.text);
    if (nb_ct_config_find(c, path, &s, &err)) fail_msg("%s", err.text);
    int bits = s ? s->spec.elem.bits : 0;
    nb_ct_config_free(c);
    json_decref(q);
    return bits;
}

static void test_targets_and_ignore(void **state)
{
    (void)state;
    static const char config[] =
        "{\"config_groups\":{\"a\":{\"targets\":[\"Linear\"]," W4 "},"
        "\"b\":{\"targets\":[\"re:.*down_proj$\",\"m.3.up_proj\"]," W8 "},"
        "\"c\":{\"targets\":[\"m.0.down_proj\",\"re:.*gate\"],\"weights\":{\"num_bits\":2,\"group_size\":32}}},"
        "\"ignore\":[\"lm_head\",\"re:m\\\\.1\\\\.\",\"m.2.up_proj\"]}";
    assert_int_equal(bits_of(config, "m.0.q_proj"), 4);    /* class */
    assert_int_equal(bits_of(config, "m.2.down_proj"), 8); /* regex beats class */
    assert_int_equal(bits_of(config, "m.0.down_proj"), 2); /* exact beats regex */
    assert_int_equal(bits_of(config, "m.3.up_proj"), 8);
    assert_int_equal(bits_of(config, "m.0.gate.down_proj"), 8); /* the first in byte order */
    assert_int_equal(bits_of(config, "m.1.down_proj"), 0);
    assert_int_equal(bits_of(config, "x.m.1.down_proj"), 8); /* anchored at the start */
    assert_int_equal(bits_of(config, "m.2.up_proj"), 0);
    assert_int_equal(bits_of(config, "m.2.up_proj.x"), 4); /* exact means exact */
    assert_int_equal(bits_of(config, "lm_head"), 0);
}

static void test_presets(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int bits;
        enum nb_ct_layout layout;
        enum nb_act_kind act;
        int64_t group;
        bool symmetric;
    } want[] = {
        {"W4A16", 4, NB_CT_PACKED, NB_ACT_NONE, 128, true},
        {"w2a16", 2, NB_CT_PACKED, NB_ACT_NONE, 128, true},
        {"W8A16", 8, NB_CT_PACKED, NB_ACT_NONE, 128, true},
        {"W4A16_ASYM", 4, NB_CT_PACKED, NB_ACT_NONE, 128, false},
        {"W4A8", 4, NB_CT_PLAIN, NB_ACT_INT8_TOKEN, 128, true},
        {"W8A8", 8, NB_CT_PLAIN, NB_ACT_INT8_TOKEN, -1, true},
        {"INT8", 8, NB_CT_PLAIN, NB_ACT_INT8_TOKEN, -1, true},
        {"W4AFP8", 4, NB_CT_PLAIN, NB_ACT_FP8_TOKEN, 128, true},
        {"FP8", 8, NB_CT_PLAIN, NB_ACT_FP8_STATIC, -1, false},
        {"FP8_DYNAMIC", 8, NB_CT_PLAIN, NB_ACT_FP8_TOKEN, -1, false},
        {"FP8_BLOCK", 8, NB_CT_PLAIN, NB_ACT_FP8_GROUP, 128, false},
        {"NVFP4", 4, NB_CT_NVFP4, NB_ACT_NVFP4, 16, false},
        {"NVFP4A16", 4, NB_CT_NVFP4, NB_ACT_NONE, 16, false},
        {"MXFP4", 4, NB_CT_MXFP4, NB_ACT_MXFP4, 32, false},
        {"MXFP4A16", 4, NB_CT_MXFP4, NB_ACT_NONE, 32, false},
        {"MXFP8", 8, NB_CT_MXFP8, NB_ACT_MXFP8, 32, false},
        {"MXFP8A16", 8, NB_CT_MXFP8, NB_ACT_NONE, 32, false},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        struct nb_err err;
        struct nb_ct_scheme s;
        const json_t *targets;
        json_t *list = json("[\"Linear\"]");
        if (nb_ct_scheme_parse(&s, want[i].name, list, NULL, &targets, &err))
            fail_msg("%s: %s", want[i].name, err.text);
        assert_ptr_equal(targets, list);
        assert_true(s.quantized);
        assert_int_equal(s.spec.elem.bits, want[i].bits);
        assert_int_equal(s.layout, want[i].layout);
        assert_int_equal(s.spec.act, want[i].act);
        assert_int_equal(s.spec.group_cols, want[i].group);
        assert_int_equal(s.spec.symmetric, want[i].symmetric);
        json_decref(list);
    }
    assert_int_equal(
        bits_of("{\"config_groups\":{\"UNQUANTIZED\":[\"a\"],\"W4A16\":[\"Linear\"]}}", "a"), 0);
    assert_int_equal(
        bits_of("{\"config_groups\":{\"UNQUANTIZED\":[\"a\"],\"W4A16\":[\"Linear\"]}}", "b"), 4);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        int status;
        const char *text;
    } bad[] = {
        {"{}", NB_E_FORMAT,
         "quantization config: config_groups: expected an object, found nothing"},
        {"{\"config_groups\":{\"W9A16\":[\"Linear\"]}}", NB_E_FORMAT,
         "quantization config: 'W9A16' is no name of a preset scheme"},
        {"{\"config_groups\":{\"g\":{\"targets\":[\"Linear\"],\"weights\":{\"bits\":4}}}}",
         NB_E_FORMAT, "quantization config: group 'g', weights: unknown key 'bits'"},
        {"{\"config_groups\":{\"g\":{\"targets\":[\"Linear\"],\"bits\":4}}}", NB_E_FORMAT,
         "quantization config: group 'g': unknown key 'bits'"},
        {"{\"config_groups\":{\"g\":{\"targets\":[\"Linear\"],\"weights\":{\"strategy\":\"channel\",\"group_size\":64}}}}",
         NB_E_FORMAT,
         "quantization config: group 'g', weights: group_size does not go with strategy channel"},
        {"{\"config_groups\":{\"g\":{\"targets\":[\"Linear\"],\"weights\":{\"strategy\":\"group\"}}}}",
         NB_E_FORMAT,
         "quantization config: group 'g', weights: strategy group needs a positive group_size"},
        {"{\"config_groups\":{\"g\":{\"targets\":[\"Linear\"],\"weights\":{\"strategy\":\"block\"}}}}",
         NB_E_FORMAT,
         "quantization config: group 'g', weights: block_structure goes with strategy block, and only with it"},
        {"{\"config_groups\":{\"g\":{\"targets\":[\"Linear\"],\"weights\":{\"strategy\":\"token\"}}}}",
         NB_E_FORMAT, "quantization config: group 'g', weights: strategy token must be dynamic"},
        {"{\"config_groups\":{\"g\":{\"targets\":[\"Linear\"]," W4
         ",\"format\":\"float-quantized\"}}}",
         NB_E_FORMAT,
         "quantization config: group 'g': format float-quantized does not hold int weights"},
        {"{\"config_groups\":{\"g\":{\"targets\":[\"Linear\"]," W4 "}},\"format\":\"marlin-24\"}",
         NB_E_SPEC,
         "quantization config: sparse format 'marlin-24' cannot be read (compressed-tensors has removed it too)"},
        {"{\"config_groups\":{\"g\":{\"targets\":[\"Linear\"]," W4
         "}},\"sparsity_config\":{\"format\":\"sparse-bitmask\"}}",
         NB_E_SPEC,
         "quantization config: sparse format 'sparse-bitmask' cannot be read (compressed-tensors has removed it too)"},
        {"{\"config_groups\":{\"g\":{\"targets\":[\"Linear\"]," W4
         "}},\"transform_config\":{\"a\":1}}",
         NB_E_SPEC,
         "quantization config: transforms at run time (transform_config) cannot be computed"},
        {"{\"config_groups\":{\"g\":{\"targets\":[\"Linear\"]," W4
         "},\"h\":{\"targets\":[\"Linear\"]," W8 "}}}",
         NB_E_FORMAT, "quantization config: target 'Linear' stands in group 'g' and in group 'h'"},
        {"{\"config_groups\":{\"g\":{\"targets\":[\"Embedding\"]," W4 "}}}", NB_E_SPEC,
         "quantization config: group 'g' quantizes embeddings, which cannot be read"},
        {"{\"config_groups\":{\"g\":{\"targets\":[3]," W4 "}}}", NB_E_FORMAT,
         "quantization config: an entry of targets is no name"},
        {"{\"config_groups\":{\"g\":{\"targets\":[\"Linear\"]," W8
         ",\"input_activations\":{\"num_bits\":8,\"strategy\":"
         "\"token\",\"dynamic\":true,\"symmetric\":false}}}}",
         NB_E_SPEC,
         "quantization config: group 'g': input activations of int 8 bits, asymmetric, in this strategy cannot be computed"},
        {"{\"config_groups\":{\"g\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":6,\"type\":\"float\"}}}}",
         NB_E_SPEC,
         "quantization config: group 'g', weights: float of 6 bits cannot be read, only float of 4 and 8"},
        {"{\"config_groups\":{\"g\":{\"targets\":[\"re:(\"]," W4 "}}}", NB_E_FORMAT, NULL},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct nb_err err;
        struct nb_ct_config *c;
        json_t *q = json(bad[i].config);
        int rc = nb_ct_config_new(&c, q, &err);
        if (bad[i].text) assert_string_equal(err.text, bad[i].text);
        if (bad[i].text) assert_int_equal(rc, bad[i].status);
        assert_int_not_equal(rc, 0);
        assert_null(c);
        json_decref(q);
    }
}

/* ---- the object of a run ---- */

enum { LAYERS = 3 };

static size_t modules_of(struct nb_module_spec m[], const struct nb_qspec *spec)
{
    static const char *const inner[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                        "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                        "mlp.down_proj"};
    size_t n = 0;
    for (int l = 0; l < LAYERS; l++) {
        for (int i = 0; i < 7; i++) {
            m[n] = (struct nb_module_spec){.quantized = true, .spec = *spec};
            snprintf(m[n++].path, sizeof m->path, "model.layers.%d.%s", l, inner[i]);
        }
    }
    return n;
}

static char *dump(const struct nb_checkpoint_info *info)
{
    json_t *c = nb_ct_config_make(info);
    assert_non_null(c);
    char *text = json_dumps(c, JSON_COMPACT);
    json_decref(c);
    return text;
}

static void test_config_of_one_group(void **state)
{
    (void)state;
    struct nb_module_spec m[LAYERS * 7];
    struct nb_qspec spec = tiny_spec(4, 128, true);
    size_t n = modules_of(m, &spec);
    m[6].quantized = m[13].quantized = m[20].quantized = false; /* every down_proj */
    m[3].quantized = false;                                     /* one o_proj */
    struct nb_checkpoint_info info = {.spec = spec, .modules = m, .n_modules = n};
    char *text = dump(&info);
    assert_string_equal(
        text,
        "{\"config_groups\":{\"group_0\":{\"input_activations\":null,\"output_activations\":null,\"targets\":[\"Linear\"],"
        "\"weights\":{\"actorder\":null,\"block_structure\":null,\"dynamic\":false,\"group_size\":128,\"num_bits\":4,"
        "\"observer\":\"minmax\",\"observer_kwargs\":{},\"strategy\":\"group\",\"symmetric\":true,\"type\":\"int\"}}},"
        "\"format\":\"pack-quantized\",\"global_compression_ratio\":null,"
        "\"ignore\":[\"model.layers.0.self_attn.o_proj\",\"re:model\\\\.layers\\\\.[0-9]+\\\\.mlp\\\\.down_proj$\","
        "\"lm_head\"],\"kv_cache_scheme\":null,\"quant_method\":\"compressed-tensors\",\"quantization_status\":"
        "\"compressed\"}");
    for (size_t i = 0; i < n; i++)
        assert_int_equal(bits_of(text, m[i].path), m[i].quantized ? 4 : 0);
    free(text);
}

/* Several groups name their modules, each exactly; formats that differ are said per group. */
static void test_config_of_several_groups(void **state)
{
    (void)state;
    struct nb_module_spec m[LAYERS * 7];
    struct nb_qspec spec = tiny_spec(4, 128, true);
    size_t n = modules_of(m, &spec);
    for (size_t i = 6; i < n; i += 7) m[i].spec.elem.bits = 8; /* every down_proj */
    m[3].spec.elem.bits = 8;
    for (size_t i = 4; i < n; i += 7) {
        m[i].spec = m[i + 1].spec = (struct nb_qspec){.elem = nb_elem_e4m3,
                                                      .group_rows = 1,
                                                      .group_cols = -1,
                                                      .scale_dtype = NB_F32,
                                                      .act = NB_ACT_FP8_TOKEN};
    }
    struct nb_checkpoint_info info = {
        .spec = spec, .modules = m, .n_modules = n, .kv_scales = true};
    char *text = dump(&info);
    json_t *c = json(text);
    assert_string_equal(json_string_value(json_object_get(c, "format")), "mixed-precision");
    assert_int_equal(json_object_size(json_object_get(c, "config_groups")), 3);
    assert_true(json_is_object(json_object_get(c, "kv_cache_scheme")));
    assert_null(strstr(text, "\"Linear\""));
    json_decref(c);
    for (size_t i = 0; i < n; i++) assert_int_equal(bits_of(text, m[i].path), m[i].spec.elem.bits);
    assert_int_equal(bits_of(text, "model.layers.7.self_attn.o_proj"),
                     0); /* one exception: o_proj is named one by one */
    free(text);
}

/* Engines run q, k, v as one: they cannot differ, but one of them may be float. */
static void test_fused_parts_agree(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_module_spec m[LAYERS * 7];
    struct nb_qspec spec = tiny_spec(4, 128, true);
    size_t n = modules_of(m, &spec);
    struct nb_checkpoint_info info = {.spec = spec, .modules = m, .n_modules = n};
    m[9].quantized = false;
    assert_int_equal(nb_ct_can_describe(&info, &err), 0);
    m[8].spec.elem.bits = 8;
    assert_int_equal(nb_ct_can_describe(&info, &err), NB_E_SPEC);
    assert_string_equal(
        err.text, "compressed-tensors: 'model.layers.1.self_attn.q_proj' and "
                  "'model.layers.1.self_attn.k_proj' differ, but engines run them as one layer, "
                  "'model.layers.1.self_attn.qkv_proj'");
    assert_null(nb_ct_config_make(&info));
}

/* Every scheme that is written is read as the same one. */
static void test_schemes_survive(void **state)
{
    (void)state;
    struct nb_qspec nvfp4 = {.elem = nb_elem_e2m1,
                             .group_rows = 1,
                             .group_cols = 16,
                             .scale_dtype = NB_F32,
                             .super_groups = (int64_t)1 << 40,
                             .super_flat = true,
                             .super_divides = true,
                             .scale_bits = 8,
                             .scale_table = nb_e4m3_values};
    struct nb_qspec mx = {
        .elem = nb_elem_e2m1, .group_rows = 1, .group_cols = 32, .scale_dtype = NB_F8_E8M0};
    struct nb_qspec fp8 = {
        .elem = nb_elem_e4m3, .group_rows = 1, .group_cols = -1, .scale_dtype = NB_F32};
    struct nb_qspec specs[16];
    size_t n = 0;
    specs[n++] = tiny_spec(4, 128, true);
    specs[n++] = tiny_spec(3, 64, false);
    specs[n++] = tiny_spec(8, -1, true);
    specs[n] = tiny_spec(8, -1, true);
    specs[n++].act = NB_ACT_INT8_TOKEN;
    specs[n] = tiny_spec(8, -1, true);
    specs[n++].act = NB_ACT_INT8_STATIC;
    specs[n++] = nvfp4;
    specs[n] = nvfp4;
    specs[n++].act = NB_ACT_NVFP4;
    specs[n++] = mx;
    specs[n] = mx;
    specs[n++].act = NB_ACT_MXFP4;
    specs[n] = mx;
    specs[n].elem = nb_elem_e4m3;
    specs[n++].act = NB_ACT_MXFP8;
    specs[n++] = fp8;
    specs[n] = fp8;
    specs[n++].act = NB_ACT_FP8_TENSOR;
    specs[n] = fp8;
    specs[n].group_rows = (int64_t)1 << 40;
    specs[n++].act = NB_ACT_FP8_STATIC;
    specs[n] = fp8;
    specs[n].group_rows = specs[n].group_cols = specs[n].act_group = 128;
    specs[n++].act = NB_ACT_FP8_GROUP;
    for (size_t i = 0; i < n; i++) {
        struct nb_err err;
        struct nb_ct_config *c;
        const struct nb_ct_scheme *s;
        struct nb_module_spec m[LAYERS * 7];
        struct nb_checkpoint_info info = {
            .spec = specs[i], .modules = m, .n_modules = modules_of(m, &specs[i])};
        char *text = dump(&info);
        json_t *q = json(text);
        if (nb_ct_config_new(&c, q, &err)) fail_msg("%s", err.text);
        assert_int_equal(nb_ct_config_find(c, m[0].path, &s, &err), 0);
        enum nb_ct_layout layout;
        assert_true(nb_ct_layout_of(&specs[i], &layout));
        assert_int_equal(s->layout, layout);
        assert_int_equal(s->spec.elem.bits, specs[i].elem.bits);
        assert_int_equal(s->spec.elem.kind, specs[i].elem.kind);
        assert_int_equal(s->spec.group_rows, specs[i].group_rows);
        assert_int_equal(s->spec.group_cols, specs[i].group_cols);
        assert_int_equal(s->spec.act, specs[i].act);
        assert_int_equal(s->spec.act_group, specs[i].act_group);
        assert_int_equal(s->spec.zero, specs[i].zero);
        assert_int_equal(s->spec.super_groups, specs[i].super_groups);
        nb_ct_config_free(c);
        json_decref(q);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_targets_and_ignore),
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_config_of_one_group),
        cmocka_unit_test(test_config_of_several_groups),
        cmocka_unit_test(test_fused_parts_agree),
        cmocka_unit_test(test_schemes_survive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
