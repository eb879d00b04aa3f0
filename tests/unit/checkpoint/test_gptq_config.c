/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/gptq_config.h"
#include "checkpoint/internal.h"
#include "support/tiny_model.h"

static json_t *parse_json(const char *text)
{
    struct nb_err err;
    json_t *v = nb_json_parse(text, strlen(text), 64, "config", &err);
    if (!v) fail_msg("%s", err.text);
    return v;
}

/* Settings that config gives to path, without any tensors. */
static struct nb_gptq_module module_of(const char *config, const char *path)
{
    struct nb_err err;
    struct nb_gptq_config c;
    struct nb_gptq_module s;
    struct nb_model m = {.arch = {.head_name = "lm_head.weight"}};
    json_t *q = parse_json(config);
    if (nb_gptq_config_parse(&c, q, &err)) fail_msg("%s", err.text);
    if (nb_gptq_config_module(&c, &m, path, &s, &err)) fail_msg("%s", err.text);
    nb_gptq_config_release(&c);
    json_decref(q);
    return s;
}

static void test_keys_and_defaults(void **state)
{
    (void)state;
    struct nb_gptq_module s = module_of("{\"bits\":4,\"group_size\":128}", "a.b");
    assert_true(s.quantized && s.sym && !s.desc_act && s.bits == 4 && s.group == 128);
    s = module_of("{\"wbits\":3,\"q_group_size\":-1,\"zero_point\":true,\"desc_act\":true}", "a.b");
    assert_true(s.quantized && !s.sym && s.desc_act && s.bits == 3 && s.group == -1);
    s = module_of(
        "{\"bits\":8,\"group_size\":32,\"sym\":false,\"pack_dtype\":\"int32\",\"lm_head\":null}",
        "a.b");
    assert_true(s.quantized && !s.sym && s.bits == 8);
}

static void test_head(void **state)
{
    (void)state;
    assert_false(module_of("{\"bits\":4,\"group_size\":128}", "lm_head").quantized);
    assert_true(module_of("{\"bits\":4,\"group_size\":128,\"lm_head\":true}", "lm_head").quantized);
    struct nb_gptq_module s = module_of(
        "{\"bits\":4,\"group_size\":128,\"lm_head\":true,\"dynamic\":{\"lm_head\":{\"bits\":8}}}",
        "lm_head");
    assert_true(s.quantized && s.bits == 8);
    assert_false(
        module_of("{\"bits\":4,\"group_size\":128,\"lm_head\":true,\"dynamic\":{\"-:lm_head\":{}}}",
                  "lm_head")
            .quantized);
}

static void test_dynamic(void **state)
{
    (void)state;
    const char *c =
        "{\"bits\":4,\"group_size\":128,\"dynamic\":{\".*up\":{\"bits\":8,\"group_size\":32,\"sym\":false,"
        "\"desc_act\":true},\"-:.*gate\":{}}}";
    struct nb_gptq_module s = module_of(c, "mlp.up");
    assert_true(s.quantized && s.bits == 8 && s.group == 32 && !s.sym && s.desc_act);
    assert_false(module_of(c, "mlp.gate").quantized);
    s = module_of(c, "mlp.down");
    assert_true(s.quantized && s.bits == 4 && s.group == 128 && s.sym);
}

static void test_modules_in_block(void **state)
{
    (void)state;
    const char *flat = "{\"bits\":4,\"group_size\":128,\"modules_to_quantize\":null,"
                       "\"modules_in_block_to_quantize\":[\"self_attn.q_proj\",\"mlp.up_proj\"]}";
    const char *nested =
        "{\"bits\":4,\"group_size\":128,"
        "\"modules_in_block_to_quantize\":[[\"self_attn.q_proj\"],[\"mlp.up_proj\"]]}";
    const char *const both[] = {flat, nested};
    for (int i = 0; i < 2; i++) {
        assert_true(module_of(both[i], "model.layers.0.self_attn.q_proj").quantized);
        assert_true(module_of(both[i], "model.layers.9.mlp.up_proj").quantized);
        assert_false(module_of(both[i], "model.layers.9.mlp.down_proj").quantized);
        assert_false(module_of(both[i], "model.layers.0.self_attn.xself_attn.q_proj2").quantized);
        assert_false(module_of(both[i], "model.layers.0.xmlp.up_proj").quantized);
    }
}

static void refuses(const char *config, int status, const char *text)
{
    struct nb_err err = {0};
    struct nb_gptq_config c;
    json_t *q = parse_json(config);
    assert_int_equal(nb_gptq_config_parse(&c, q, &err), status);
    nb_gptq_config_release(&c);
    assert_string_equal(err.text, text);
    json_decref(q);
}

static void test_refusals(void **state)
{
    (void)state;
#define Q "quantization config: "
    refuses("{\"group_size\":128}", NB_E_FORMAT, Q "key 'bits' is missing");
    refuses("{\"bits\":4}", NB_E_FORMAT, Q "key 'group_size' is missing");
    refuses("{\"bits\":5,\"group_size\":128}", NB_E_SPEC,
            Q "gptq with 5 bits cannot be read, only 2, 3, 4 and 8");
    refuses("{\"bits\":4.5,\"group_size\":128}", NB_E_FORMAT,
            Q "key 'bits': expected an integer, found a real number");
    refuses("{\"bits\":4,\"group_size\":-2}", NB_E_FORMAT,
            Q "group_size -2 is neither -1 nor a size");
    refuses("{\"bits\":4,\"group_size\":128,\"checkpoint_format\":\"marlin\"}", NB_E_SPEC,
            Q "checkpoint_format 'marlin' cannot be read; readable are gptq and gptq_v2");
    refuses("{\"bits\":4,\"group_size\":128,\"is_marlin_format\":true}", NB_E_SPEC,
            Q "checkpoint_format 'marlin' cannot be read; readable are gptq and gptq_v2");
    refuses("{\"bits\":4,\"group_size\":128,\"checkpoint_format\":\"gptq_p\"}", NB_E_SPEC,
            Q "checkpoint_format 'gptq_p' cannot be read; readable are gptq and gptq_v2");
    refuses("{\"bits\":4,\"group_size\":128,\"pack_dtype\":\"int16\"}", NB_E_SPEC,
            Q "pack_dtype 'int16' cannot be read, only int32");
    refuses("{\"bits\":4,\"group_size\":128,\"sym\":1}", NB_E_FORMAT,
            Q "key 'sym': expected a boolean, found an integer");
    refuses("{\"bits\":4,\"group_size\":128,\"modules_in_block_to_quantize\":[1]}", NB_E_FORMAT,
            Q "modules_in_block_to_quantize is no list of names");
    refuses("{\"bits\":4,\"group_size\":128,\"dynamic\":7}", NB_E_FORMAT,
            Q "dynamic is an integer, expected an object");
#undef Q
}

/* ---- writing ---- */

static struct nb_module_spec spec_of(const char *path, bool quantized, struct nb_qspec spec)
{
    struct nb_module_spec m = {.quantized = quantized, .spec = spec};
    snprintf(m.path, sizeof m.path, "%s", path);
    return m;
}

static char *config_text(const struct nb_checkpoint_info *info, bool v2)
{
    json_t *c = nb_gptq_config_make(info, v2);
    char *text = json_dumps(c, JSON_COMPACT | JSON_REAL_PRECISION(10));
    json_decref(c);
    return text;
}

static void test_plain_config(void **state)
{
    (void)state;
    struct nb_module_spec m[] = {
        spec_of("model.layers.0.mlp.up_proj", true, tiny_spec(4, 128, true))};
    struct nb_checkpoint_info info = {.spec = tiny_spec(4, 128, true),
                                      .modules = m,
                                      .n_modules = 1,
                                      .true_sequential = true,
                                      .static_groups = true,
                                      .damp = 0.05,
                                      .producer = "nibble:1.2.3"};
    char *text = config_text(&info, false);
    assert_string_equal(
        text,
        "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128,\"desc_act\":false,\"sym\":true,"
        "\"lm_head\":false,\"checkpoint_format\":\"gptq\",\"format\":\"gptq\","
        "\"pack_dtype\":\"int32\",\"static_groups\":true,\"true_sequential\":true,"
        "\"damp_percent\":0.05,\"meta\":{\"quantizer\":[\"nibble:1.2.3\"]}}");
    free(text);
    info.damp = 0; /* readers want it between 0 and 1 */
    info.spec.group_cols = -1;
    m[0].spec.group_cols = -1;
    info.desc_act = true; /* says nothing where all of a row is one group */
    m[0].desc_act = true;
    text = config_text(&info, true);
    assert_string_equal(
        text,
        "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":-1,\"desc_act\":false,\"sym\":true,"
        "\"lm_head\":false,\"checkpoint_format\":\"gptq_v2\",\"format\":\"gptq_v2\","
        "\"pack_dtype\":\"int32\",\"static_groups\":true,\"true_sequential\":true,"
        "\"meta\":{\"quantizer\":[\"nibble:1.2.3\"]}}");
    free(text);
}

/* Shards that engines fuse share one rule while they are treated alike. */
static void test_rules(void **state)
{
    (void)state;
    struct nb_qspec base = tiny_spec(4, 128, true), eight = tiny_spec(8, 128, true),
                    fine = tiny_spec(4, 32, false);
    struct nb_module_spec m[] = {
        spec_of("model.layers.0.self_attn.q_proj", true, eight),
        spec_of("model.layers.0.self_attn.k_proj", true, eight),
        spec_of("model.layers.0.self_attn.v_proj", true, eight),
        spec_of("model.layers.0.self_attn.o_proj", true, base),
        spec_of("model.layers.0.mlp.gate_proj", true, base),
        spec_of("model.layers.0.mlp.up_proj", false, base),
        spec_of("model.layers.0.mlp.down_proj", true, fine),
        spec_of("model.layers.1.mlp.gate_proj", false, base),
        spec_of("model.layers.1.mlp.up_proj", false, base),
        spec_of("lm_head", false, base),
    };
    struct nb_checkpoint_info info = {
        .spec = base, .modules = m, .n_modules = sizeof m / sizeof *m, .producer = "x"};
    json_t *c = nb_gptq_config_make(&info, false);
    char *text = json_dumps(json_object_get(c, "dynamic"), JSON_COMPACT);
    assert_string_equal(
        text,
        "{\"-:^model\\\\.layers\\\\.0\\\\.mlp\\\\.up_proj$\":{},"
        "\"-:^model\\\\.layers\\\\.1\\\\.mlp\\\\.(gate_proj|up_proj|gate_up_proj)$\":{},"
        "\"+:^model\\\\.layers\\\\.0\\\\.self_attn\\\\.(q_proj|k_proj|v_proj|qkv_proj)$\":{\"bits\":8},"
        "\"+:^model\\\\.layers\\\\.0\\\\.mlp\\\\.down_proj$\":{\"group_size\":32,\"sym\":false}}");
    free(text);
    /* and read back, each module has its settings again */
    struct nb_err err;
    struct nb_gptq_config parsed;
    struct nb_model model = {.arch = {.head_name = "lm_head.weight"}};
    assert_int_equal(nb_gptq_config_parse(&parsed, c, &err), 0);
    for (size_t i = 0; i < info.n_modules; i++) {
        struct nb_gptq_module s;
        assert_int_equal(nb_gptq_config_module(&parsed, &model, m[i].path, &s, &err), 0);
        assert_int_equal(s.quantized, m[i].quantized);
        if (!s.quantized) continue;
        assert_int_equal(s.bits, m[i].spec.elem.bits);
        assert_int_equal(s.group, m[i].spec.group_cols);
        assert_int_equal(s.sym, m[i].spec.symmetric);
    }
    nb_gptq_config_release(&parsed);
    json_decref(c);
}

/* transformers takes float modules from this list, which can only speak of all layers alike. */
static void test_blocks(void **state)
{
    (void)state;
    struct nb_qspec base = tiny_spec(4, 128, true);
    struct nb_module_spec m[] = {
        spec_of("model.layers.0.mlp.up_proj", true, base),
        spec_of("model.layers.0.mlp.down_proj", false, base),
        spec_of("model.layers.1.mlp.up_proj", true, base),
        spec_of("model.layers.1.mlp.down_proj", false, base),
        spec_of("lm_head", false, base),
    };
    struct nb_checkpoint_info info = {.spec = base, .modules = m, .n_modules = 5, .producer = "x"};
    json_t *c = nb_gptq_config_make(&info, false);
    char *text = json_dumps(json_object_get(c, "modules_in_block_to_quantize"), JSON_COMPACT);
    assert_string_equal(text, "[[\"mlp.up_proj\"]]");
    assert_int_equal(json_object_size(json_object_get(c, "dynamic")), 2);
    free(text);
    json_decref(c);
    m[3].quantized = true;
    c = nb_gptq_config_make(&info, false);
    assert_null(json_object_get(c, "modules_in_block_to_quantize"));
    json_decref(c);
}

static void test_quantized_head(void **state)
{
    (void)state;
    struct nb_qspec base = tiny_spec(4, 128, true), eight = tiny_spec(8, 128, true);
    struct nb_module_spec m[] = {spec_of("model.layers.0.mlp.up_proj", true, base),
                                 spec_of("lm_head", true, eight)};
    struct nb_checkpoint_info info = {.spec = base, .modules = m, .n_modules = 2, .producer = "x"};
    json_t *c = nb_gptq_config_make(&info, false);
    assert_true(json_is_true(json_object_get(c, "lm_head")));
    char *text = json_dumps(json_object_get(c, "dynamic"), JSON_COMPACT);
    assert_string_equal(text, "{\"+:^lm_head$\":{\"bits\":8}}");
    free(text);
    json_decref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_and_defaults),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_dynamic),
        cmocka_unit_test(test_modules_in_block),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_plain_config),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_quantized_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
