/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fp8_config.c - configs of fp8 files: which modules they leave float, which numbers they mean, and what a run
 * writes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/fp8_config.h"
#include "checkpoint/internal.h"
#include "fixture.h"
#include "support/folder.h"

static json_t *parse_text(const char *text)
{
    struct nb_err err;
    json_t *j = nb_json_parse(text, strlen(text), 64, "config", &err);
    if (!j) fail_msg("%s", err.text);
    return j;
}

static void test_what_configs_mean(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum nb_fp8_form form;
        enum nb_act_kind act;
        bool divides;
    } cases[] = {
        {"{\"activation_scheme\":\"dynamic\",\"weight_block_size\":[128,64],\"fmt\":\"e4m3\"}",
         NB_FP8_BLOCKS, NB_ACT_FP8_GROUP, false},
        {"{\"activation_scheme\":\"STATIC\",\"weight_block_size\":null}", NB_FP8_TENSOR,
         NB_ACT_FP8_STATIC, false},
        {"{}", NB_FP8_TENSOR, NB_ACT_FP8_TOKEN, false},
        {"{\"format\":\"float8_e4m3fn\",\"weight_scale_method\":\"block\","
         "\"weight_block_size\":[32,32]}",
         NB_FP8_BLOCKS, NB_ACT_NONE, true},
        {"{\"format\":\"float8_e4m3fn\",\"weight_scale_method\":\"row\","
         "\"weight_block_size\":[128,128]}",
         NB_FP8_ROWS, NB_ACT_NONE, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_err err;
        struct nb_fp8_config c;
        json_t *j = parse_text(cases[i].text);
        if (nb_fp8_config_parse(&c, j, &err)) fail_msg("%s", err.text);
        assert_int_equal(c.form, cases[i].form);
        assert_int_equal(c.act, cases[i].act);
        assert_int_equal(c.divides, cases[i].divides);
        json_decref(j);
    }
}

static void test_bad_configs(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"fmt\":\"e5m2\"}", "only E4M3"},
        {"{\"fmt\":\"e4m3fnuz\"}", "only E4M3"},
        {"{\"format\":\"float8_e5m2\"}", "only E4M3"},
        {"{\"scale_fmt\":\"int8\"}", "known: float, ue8m0"},
        {"{\"activation_scheme\":\"none\"}", "known: static, dynamic"},
        {"{\"activation_scheme\":7}", "activation_scheme"},
        {"{\"weight_block_size\":[128]}", "pair of sizes"},
        {"{\"weight_block_size\":[0,128]}", "pair of sizes"},
        {"{\"weight_block_size\":[128,99999999999]}", "pair of sizes"},
        {"{\"weight_block_size\":128}", "pair of sizes"},
        {"{\"weight_scale_method\":\"block\"}", "is missing"},
        {"{\"ignored_layers\":\"lm_head\"}", "no list of names"},
        {"{\"modules_to_not_convert\":[1]}", "no list of names"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_err err = {0};
        struct nb_fp8_config c;
        json_t *j = parse_text(cases[i][0]);
        assert_int_not_equal(nb_fp8_config_parse(&c, j, &err), 0);
        if (!strstr(err.text, cases[i][1])) fail_msg("'%s' lacks '%s'", err.text, cases[i][1]);
        json_decref(j);
    }
}

/* a: FP8, b: float, head: float; which are quantized under these lists? */
static void check_lists(const char *lists, bool a, bool b, bool head)
{
    static const uint8_t bytes[8] = {0};
    const struct fixture_tensor t[] = {
        {"model.layers.1.mlp.a.weight", NB_F8_E4M3, 2, {1, 1}, bytes},
        {"model.layers.1.mlp.b.weight", NB_BF16, 2, {1, 1}, bytes},
        {"lm_head.weight", NB_BF16, 2, {1, 1}, bytes},
    };
    char config[256], *folder = folder_make();
    snprintf(config, sizeof config, "{\"quant_method\":\"fp8\"%s}", lists);
    struct nb_model *m = fixture_open(folder, config, t, 3);
    snprintf(m->arch.head_name, sizeof m->arch.head_name, "lm_head.weight");
    assert_int_equal(m->checkpoint->is_quantized(m, "model.layers.1.mlp.a"), a);
    assert_int_equal(m->checkpoint->is_quantized(m, "model.layers.1.mlp.b"), b);
    assert_int_equal(m->checkpoint->is_quantized(m, "lm_head"), head);
    nb_model_close(m);
    folder_remove(folder);
}

static void test_float_modules(void **state)
{
    (void)state;
    check_lists("", true, false, false);
    check_lists(",\"ignored_layers\":[\"lm_head\"]", true, true, false);
    check_lists(",\"ignored_layers\":[]", true, true, false);
    check_lists(",\"ignored_layers\":[\"model.layers.1.mlp.a\"]", false, true, false);
    check_lists(",\"modules_to_not_convert\":[\"model.layers.1.mlp.b\"]", true, false, false);
    check_lists(",\"modules_to_not_convert\":[\"mlp.b\"]", true, false, false);
    check_lists(",\"modules_to_not_convert\":[\"model.layers.1\"]", true, false, false);
    check_lists(",\"modules_to_not_convert\":[\"model.layers.11\"]", true, true, false);
    check_lists(",\"ignored_layers\":[\"re:.*b$\"]", true, false, false);
}

static void fill(struct nb_module_spec *m, size_t n, enum nb_act_kind act)
{
    static const char *const names[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                        "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                        "mlp.down_proj"};
    for (size_t i = 0; i < n; i++) {
        m[i] = (struct nb_module_spec){.quantized = true, .spec = {.act = act}};
        snprintf(m[i].path, sizeof m[i].path, "model.layers.%zu.%s", i / 7, names[i % 7]);
    }
}

static void test_written_config(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_module_spec m[14];
    fill(m, 14, NB_ACT_FP8_GROUP);
    m[6].quantized = m[10].quantized = false;
    struct nb_checkpoint_info info = {
        .spec = {.act = NB_ACT_FP8_GROUP}, .modules = m, .n_modules = 14, .producer = "x"};
    if (nb_fp8_can_describe(&info, &err)) fail_msg("%s", err.text);
    json_t *want = parse_text(
        "{\"quant_method\":\"fp8\",\"activation_scheme\":\"dynamic\",\"weight_block_size\":[128,128],"
        "\"fmt\":\"e4m3\",\"ignored_layers\":[\"model.layers.0.mlp.down_proj\","
        "\"model.layers.1.self_attn.o_proj\",\"lm_head\"],\"modules_to_not_convert\":"
        "[\"model.layers.0.mlp.down_proj\",\"model.layers.1.self_attn.o_proj\",\"lm_head\"]}");
    json_t *made = nb_fp8_config_make(&info);
    assert_true(json_equal(made, want));
    json_decref(made);
    json_decref(want);
    fill(m, 14, NB_ACT_FP8_STATIC);
    info.spec.act = NB_ACT_FP8_STATIC;
    info.kv_scales = true;
    want =
        parse_text("{\"quant_method\":\"fp8\",\"activation_scheme\":\"static\",\"ignored_layers\":"
                   "[\"lm_head\"],\"modules_to_not_convert\":[\"lm_head\"],"
                   "\"kv_cache_scheme\":\"static\"}");
    made = nb_fp8_config_make(&info);
    assert_true(json_equal(made, want));
    json_decref(made);
    json_decref(want);
}

static void test_cannot_describe(void **state)
{
    (void)state;
    struct nb_err err = {0};
    struct nb_module_spec m[8];
    const struct nb_checkpoint_info info = {
        .spec = {.act = NB_ACT_FP8_TOKEN}, .modules = m, .n_modules = 8, .producer = "x"};
    fill(m, 8, NB_ACT_FP8_TOKEN);
    m[1].quantized = false;
    assert_int_equal(nb_fp8_can_describe(&info, &err), NB_E_SPEC);
    assert_non_null(strstr(err.text, "q_proj' is quantized"));
    assert_null(nb_fp8_config_make(&info));
    m[0].quantized = m[2].quantized = false;
    assert_int_equal(nb_fp8_can_describe(&info, &err), 0);
    m[3].spec.act = NB_ACT_FP8_STATIC;
    assert_int_equal(nb_fp8_can_describe(&info, &err), NB_E_SPEC);
    assert_non_null(strstr(err.text, "o_proj"));
    fill(m, 8, NB_ACT_FP8_TOKEN);
    snprintf(m[7].path, sizeof m[7].path, "lm_head");
    assert_int_equal(nb_fp8_can_describe(&info, &err), NB_E_SPEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_configs_mean), cmocka_unit_test(test_bad_configs),
        cmocka_unit_test(test_float_modules),     cmocka_unit_test(test_written_config),
        cmocka_unit_test(test_cannot_describe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
