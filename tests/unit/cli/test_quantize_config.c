/* SPDX-License-Identifier: Apache-2.0
 *
 * test_quantize_config.c - configs of other tools, as these tools write them, become options. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/quantize_options.h"
#include "support/folder.h"

static struct nb_quantize_plan plan;
static struct nb_err err;
static char *folder, *path;

static int set_up(void **state)
{
    (void)state;
    folder = folder_make();
    path = nb_path_join(folder, "config.json");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    nb_free(path);
    folder_remove(folder);
    return 0;
}

static int make(const char *text)
{
    struct nb_quantize_words w = nb_quantize_words_defaults;
    w.out = "out";
    w.config = path;
    folder_text(folder, "config.json", text);
    memset(&err, 0, sizeof err);
    return nb_quantize_plan_make(&plan, &w, &err);
}

static const struct nb_quantize_opts *good(const char *text)
{
    nb_quantize_plan_release(&plan);
    if (make(text)) fail_msg("%s", err.text);
    return &plan.opts;
}

static void bad(const char *text, int status, const char *part)
{
    nb_quantize_plan_release(&plan);
    assert_int_equal(make(text), status);
    if (!strstr(err.text, part)) fail_msg("'%s' is not in '%s'", part, err.text);
    nb_quantize_plan_release(&plan);
}

static bool ignores(const char *glob)
{
    for (size_t i = 0; i < plan.opts.n_ignore; i++)
        if (!strcmp(plan.opts.ignore[i], glob)) return true;
    return false;
}

static void test_gptqmodel(void **state)
{
    (void)state;
    const struct nb_quantize_opts *q = good(
        "{\"bits\":4,\"group_size\":64,\"desc_act\":false,\"sym\":true,\"lm_head\":false,"
        "\"quant_method\":\"gptq\",\"checkpoint_format\":\"gptq_v2\",\"pack_dtype\":\"int32\","
        "\"dynamic\":{\"-:.*\\\\.o_proj$\":{},\"+:.*\\\\.(gate_proj|up_proj)$\":{\"bits\":8}}}");
    assert_string_equal(q->format, "gptq_v2");
    assert_int_equal(q->group, 64);
    assert_int_equal(q->order, NB_ORDER_NONE);
    assert_true(ignores("*.o_proj"));
    assert_int_equal(q->n_bits_for, 2);
    assert_string_equal(q->bits_for[0].glob, "*.gate_proj");
    assert_string_equal(q->bits_for[1].glob, "*.up_proj");
    assert_int_equal(q->bits_for[1].bits, 8);
    bad("{\"bits\":4,\"group_size\":64,\"lm_head\":true,\"quant_method\":\"gptq\"}", NB_E_SPEC,
        "head stays float");
    bad("{\"bits\":4,\"group_size\":64,\"checkpoint_format\":\"marlin\"}", NB_E_SPEC,
        "possible: gptq, gptq_v2");
    bad("{\"bits\":4,\"group_size\":64,\"dynamic\":{\"x\":{\"group_size\":32}}}", NB_E_SPEC,
        "more than bits");
    bad("{\"bits\":4,\"group_size\":64,\"dynamic\":{\"-:[0-9]+\":{}}}", NB_E_SPEC, "--ignore");
    bad("{\"bits\":4,\"group_size\":64,\"dynamic\":[]}", NB_E_FORMAT, "expected an object");
}

static void test_awq(void **state)
{
    (void)state;
    const struct nb_quantize_opts *q =
        good("{\"zero_point\":true,\"q_group_size\":128,\"w_bit\":4,\"version\":\"GEMM\","
             "\"modules_to_not_convert\":[\"lm_head\",\"o_proj\"]}");
    assert_string_equal(q->method, "awq");
    assert_int_equal(q->sym, 0);
    assert_int_equal(q->n_ignore, 1);
    assert_true(ignores("*o_proj*"));
    bad("{\"w_bit\":4,\"q_group_size\":128,\"version\":\"gemv\"}", NB_E_SPEC, "possible: gemm");
}

static void test_bitsandbytes(void **state)
{
    (void)state;
    const struct nb_quantize_opts *q = good(
        "{\"load_in_4bit\":true,\"load_in_8bit\":false,\"bnb_4bit_quant_type\":\"nf4\","
        "\"bnb_4bit_use_double_quant\":true,\"bnb_4bit_compute_dtype\":\"bfloat16\","
        "\"bnb_4bit_quant_storage\":\"torch.bfloat16\",\"llm_int8_threshold\":6.0,"
        "\"llm_int8_skip_modules\":[\"lm_head\",\"k_proj\"],\"quant_method\":\"bitsandbytes\"}");
    assert_string_equal(q->scheme, "NF4");
    assert_string_equal(q->format, "bnb");
    assert_string_equal(q->storage, "bfloat16");
    assert_int_equal(q->double_quant, 1);
    assert_true(ignores("*.k_proj") && ignores("k_proj.*"));
    q = good("{\"load_in_8bit\":true}");
    assert_string_equal(q->scheme, "INT8");
    q = good("{\"load_in_4bit\":true}");
    assert_string_equal(q->scheme, "FP4");
    assert_int_equal(q->double_quant, 0);
    bad("{\"load_in_4bit\":true,\"load_in_8bit\":true}", NB_E_FORMAT, "both");
    bad("{\"quant_method\":\"bitsandbytes\"}", NB_E_FORMAT, "neither");
    bad("{\"load_in_8bit\":true,\"llm_int8_threshold\":3}", NB_E_SPEC, "possible: 6.0");
    bad("{\"load_in_4bit\":true,\"bnb_4bit_quant_type\":\"int4\"}", NB_E_SPEC, "nf4, fp4");
}

static void test_fp8(void **state)
{
    (void)state;
    const struct nb_quantize_opts *q =
        good("{\"quant_method\":\"fp8\",\"activation_scheme\":\"dynamic\",\"weight_block_size\":"
             "[128,128],\"fmt\":\"e4m3\",\"modules_to_not_convert\":[\"lm_head\"]}");
    assert_string_equal(q->scheme, "FP8_BLOCK");
    assert_string_equal(q->format, "fp8");
    assert_int_equal(q->n_ignore, 0);
    q = good("{\"quant_method\":\"fp8\",\"activation_scheme\":\"static\",\"ignored_layers\":"
             "[\"model.layers.0.mlp.down_proj\"],\"kv_cache_scheme\":\"static\"}");
    assert_string_equal(q->scheme, "FP8");
    assert_true(q->kv_scales);
    assert_true(ignores("model.layers.0.mlp.down_proj"));
    bad("{\"quant_method\":\"fp8\",\"activation_scheme\":\"dynamic\"}", NB_E_SPEC, "FP8_DYNAMIC");
    bad("{\"quant_method\":\"fp8\",\"weight_block_size\":[64,64]}", NB_E_SPEC, "[128, 128]");
}

#define GROUP(weights, inputs)                                                                     \
    "{\"config_groups\":{\"group_0\":{\"targets\":[\"Linear\"],\"weights\":{" weights              \
    "},\"input_activations\":" inputs "}},\"format\":\"x\",\"ignore\":[\"lm_head\","               \
    "\"re:.*mlp\\\\.gate$\"],\"quant_method\":\"compressed-tensors\"}"

static void test_compressed_tensors(void **state)
{
    (void)state;
    const struct nb_quantize_opts *q =
        good(GROUP("\"num_bits\":4,\"type\":\"int\",\"symmetric\":false,\"strategy\":\"group\","
                   "\"group_size\":64,\"dynamic\":false,\"actorder\":\"static\"",
                   "null"));
    assert_string_equal(q->format, "compressed-tensors");
    assert_null(q->scheme);
    assert_int_equal(q->bits, 4);
    assert_int_equal(q->group, 64);
    assert_int_equal(q->sym, 0);
    assert_int_equal(q->order, NB_ORDER_STATIC);
    assert_true(ignores("*mlp.gate"));
    static const struct {
        const char *config, *scheme;
    } cases[] = {
        {GROUP("\"num_bits\":8,\"strategy\":\"channel\"",
               "{\"num_bits\":8,\"strategy\":\"token\",\"dynamic\":true}"),
         "W8A8"},
        {GROUP("\"num_bits\":8,\"strategy\":\"channel\"",
               "{\"num_bits\":8,\"strategy\":\"tensor\",\"dynamic\":false}"),
         "W8A8_STATIC"},
        {GROUP("\"num_bits\":8,\"type\":\"float\",\"strategy\":\"tensor\"",
               "{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"tensor\"}"),
         "FP8"},
        {GROUP("\"num_bits\":8,\"type\":\"float\",\"strategy\":\"channel\"",
               "{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"token\",\"dynamic\":true}"),
         "FP8_DYNAMIC"},
        {GROUP(
             "\"num_bits\":8,\"type\":\"float\",\"strategy\":\"block\",\"block_structure\":[128,128]",
             "{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"group\",\"group_size\":128}"),
         "FP8_BLOCK"},
        {GROUP("\"num_bits\":4,\"type\":\"float\",\"strategy\":\"tensor_group\",\"group_size\":16",
               "null"),
         "NVFP4A16"},
        {GROUP("\"num_bits\":4,\"type\":\"float\",\"group_size\":32", "null"), "MXFP4A16"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(good(cases[i].config)->scheme, cases[i].scheme);
    q = good("{\"config_groups\":{\"W4A16\":[\"Linear\"]},\"quant_method\":\"compressed-tensors\","
             "\"kv_cache_scheme\":{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"tensor\"}}");
    assert_int_equal(q->bits, 4);
    assert_true(q->kv_scales);
    q = good("{\"config_groups\":{\"FP8\":[\"re:.*down_proj\"]}}");
    assert_string_equal(q->scheme, "FP8");
    assert_true(ignores("*"));
    assert_string_equal(q->include[0], "*down_proj*");
    bad(GROUP("\"num_bits\":4,\"type\":\"float\",\"strategy\":\"channel\"", "null"), NB_E_SPEC,
        "possible:");
    bad("{\"config_groups\":{}}", NB_E_FORMAT, "names no group");
    bad("{\"config_groups\":[]}", NB_E_FORMAT, "expected an object");
    bad("{\"config_groups\":{\"W4A16\":[\"Linear\"],\"W8A16\":[\"Linear\"]}}", NB_E_SPEC,
        "several schemes");
    bad("{\"config_groups\":{\"W9A9\":[\"Linear\"]}}", NB_E_SPEC, "possible: W4A16");
}

static void test_llm_compressor(void **state)
{
    (void)state;
    const struct nb_quantize_opts *q = good(
        "{\"default_stage\":{\"default_modifiers\":{\"SmoothQuantModifier\":{},"
        "\"GPTQModifier\":{\"targets\":\"Linear\",\"scheme\":\"W8A8\",\"ignore\":[\"lm_head\"],"
        "\"dampening_frac\":0.02}}}}");
    assert_string_equal(q->method, "smoothquant+gptq");
    assert_string_equal(q->scheme, "W8A8");
    assert_true(q->damp == 0.02);
    q = good("{\"QuantizationModifier\":{\"scheme\":\"W4A16_ASYM\"}}");
    assert_string_equal(q->method, "rtn");
    assert_int_equal(q->sym, 0);
    q = good("{\"scheme\":\"NVFP4\"}");
    assert_null(q->method);
    assert_string_equal(q->scheme, "NVFP4");
    bad("{\"GPTQModifier\":{}}", NB_E_FORMAT, "neither scheme");
    bad("{\"GPTQModifier\":{\"scheme\":\"W4A16\"},\"AWQModifier\":{\"scheme\":\"W4A16\"}}",
        NB_E_SPEC, "several");
}

static void test_hostile(void **state)
{
    (void)state;
    bad("[1]", NB_E_FORMAT, "expected an object");
    bad("{\"quant_method\":\"exl2\"}", NB_E_SPEC, "possible: gptq, awq");
    bad("{\"quant_method\":7}", NB_E_FORMAT, "expected a string");
    bad("{\"bits\":4,\"group_size\":-7}", NB_E_FORMAT, "not possible");
    bad("{\"load_in_8bit\":true,\"llm_int8_skip_modules\":[3]}", NB_E_FORMAT, "holds an integer");
    bad("{\"load_in_8bit\":true,\"llm_int8_skip_modules\":{}}", NB_E_FORMAT, "a list of at most");
    bad("quantization: {bits: 4}", NB_E_FORMAT, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gptqmodel),
        cmocka_unit_test(test_awq),
        cmocka_unit_test(test_bitsandbytes),
        cmocka_unit_test(test_fp8),
        cmocka_unit_test(test_compressed_tensors),
        cmocka_unit_test(test_llm_compressor),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
