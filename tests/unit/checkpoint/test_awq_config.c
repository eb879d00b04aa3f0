/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/awq_config.h"
#include "support/tiny_model.h"

static const char *const names[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                    "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                    "mlp.down_proj"};
enum { N = 7, LAYERS = 12 };

/* All linears of 12 layers, quantized. */
static void fill(struct nb_module_spec m[N * LAYERS], struct nb_checkpoint_info *info)
{
    memset(m, 0, N * LAYERS * sizeof *m);
    for (int i = 0; i < N * LAYERS; i++) {
        snprintf(m[i].path, sizeof m[i].path, "model.layers.%d.%s", i / N, names[i % N]);
        m[i].quantized = true;
        m[i].spec = tiny_spec(4, 128, false);
    }
    *info = (struct nb_checkpoint_info){
        .spec = tiny_spec(4, 128, false), .modules = m, .n_modules = N * LAYERS};
}

static void check_list(const struct nb_checkpoint_info *info, const char *want)
{
    json_t *c = nb_awq_config_make(info);
    assert_non_null(c);
    char *text =
        json_dumps(json_object_get(c, "modules_to_not_convert"), JSON_COMPACT | JSON_ENCODE_ANY);
    assert_string_equal(text, want);
    free(text);
    json_decref(c);
}

static void test_plain(void **state)
{
    (void)state;
    struct nb_module_spec m[N * LAYERS];
    struct nb_checkpoint_info info;
    fill(m, &info);
    json_t *c = nb_awq_config_make(&info);
    char *text = json_dumps(c, JSON_COMPACT);
    assert_string_equal(
        text, "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":128,\"zero_point\":true,"
              "\"version\":\"gemm\",\"modules_to_not_convert\":null}");
    free(text);
    json_decref(c);
}

/* The same again in the form that GPTQModel obeys. */
static void test_rules_for_gptqmodel(void **state)
{
    (void)state;
    struct nb_module_spec m[N * LAYERS];
    struct nb_checkpoint_info info;
    fill(m, &info);
    m[1 * N + 6].quantized = m[2 * N + 4].quantized = m[2 * N + 5].quantized = false;
    json_t *c = nb_awq_config_make(&info);
    char *text = json_dumps(json_object_get(c, "dynamic"), JSON_COMPACT);
    assert_string_equal(
        text, "{\"-:^model\\\\.layers\\\\.1\\\\.mlp\\\\.down_proj$\":{},"
              "\"-:^model\\\\.layers\\\\.2\\\\.mlp\\\\.(gate_proj|up_proj|gate_up_proj)$\":{}}");
    free(text);
    json_decref(c);
}

static void test_float_in_every_layer(void **state)
{
    (void)state;
    struct nb_module_spec m[N * LAYERS];
    struct nb_checkpoint_info info;
    fill(m, &info);
    for (int l = 0; l < LAYERS; l++) m[l * N + 6].quantized = false;
    check_list(&info, "[\"mlp.down_proj\"]");
    for (int l = 0; l < LAYERS; l++) m[l * N + 4].quantized = m[l * N + 5].quantized = false;
    check_list(&info, "[\"mlp.gate_proj\",\"mlp.gate_up_proj\",\"mlp.up_proj\",\"mlp.down_proj\"]");
}

static void test_float_in_one_layer(void **state)
{
    (void)state;
    struct nb_module_spec m[N * LAYERS];
    struct nb_checkpoint_info info;
    fill(m, &info);
    m[1 * N + 6].quantized = false;
    check_list(&info, "[\"model.layers.1.mlp.down_proj\"]");
    m[1 * N + 4].quantized = m[1 * N + 5].quantized = false;
    check_list(&info, "[\"model.layers.1.mlp.gate_proj\",\"model.layers.1.mlp.gate_up_proj\","
                      "\"model.layers.1.mlp.up_proj\",\"model.layers.1.mlp.down_proj\"]");
}

/* One float shard of a fused module: the fused name is not listed, it would hit the other shard. */
static void test_half_a_fused_module(void **state)
{
    (void)state;
    struct nb_module_spec m[N * LAYERS];
    struct nb_checkpoint_info info;
    fill(m, &info);
    m[2 * N + 4].quantized = false;
    check_list(&info, "[\"model.layers.2.mlp.gate_proj\"]");
}

static void test_refusals(void **state)
{
    (void)state;
    struct nb_module_spec m[N * LAYERS];
    struct nb_checkpoint_info info;
    struct nb_err err;
    fill(m, &info);
    m[3].spec.group_cols = 64;
    assert_int_equal(nb_awq_can_describe(&info, &err), NB_E_SPEC);
    assert_string_equal(
        err.text,
        "awq has one width and one group for the whole model, "
        "'model.layers.0.self_attn.o_proj' differs (4 bits, group 64); leave it float or use "
        "format gptq");
    assert_null(nb_awq_config_make(&info));
    fill(m, &info);
    snprintf(m[3].path, sizeof m[3].path, "lm_head");
    assert_int_equal(nb_awq_can_describe(&info, &err), NB_E_SPEC);
    assert_string_equal(err.text, "awq keeps lm_head float; format gptq can hold it");
    fill(m, &info);
    snprintf(m[0].path, sizeof m[0].path, "gate");
    m[0].quantized = false; /* a substring of gate_proj, and there is no longer name for it */
    assert_int_equal(nb_awq_can_describe(&info, &err), NB_E_SPEC);
    assert_string_equal(
        err.text,
        "awq names float modules by substring, and 'gate' would also hit a quantized one");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_rules_for_gptqmodel),
        cmocka_unit_test(test_float_in_every_layer),
        cmocka_unit_test(test_float_in_one_layer),
        cmocka_unit_test(test_half_a_fused_module),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
