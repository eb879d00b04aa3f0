/* SPDX-License-Identifier: Apache-2.0
 *
 * bitsandbytes' two pieces of JSON: the config of a model and the quant_state blob of a linear. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/bnb.h"
#include "checkpoint/internal.h"
#include "numeric/elems.h"
#include "support/tiny_model.h"

/* ---- the blob ---- */

/* Formats, 4.6, with a tail of spaces up to the longest offset. */
static void test_blob_as_published(void **state)
{
    (void)state;
    static const char nested[] =
        "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", \"shape\": [4, 64], "
        "\"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": 0.625}";
    static const char plain[] = "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": "
                                "\"float16\", \"shape\": [1, 64]}";
    struct nb_bnb_state s = {.nf4 = true,
                             .block = 64,
                             .rows = 4,
                             .cols = 64,
                             .dtype = NB_BF16,
                             .nested = true,
                             .offset = 0.625f};
    char text[NB_BNB_STATE_MAX];
    size_t n = nb_bnb_state_print(&s, text);
    assert_int_equal(n, strlen(nested) + 24 - 5);
    assert_memory_equal(text, nested, strlen(nested));
    for (size_t i = strlen(nested); i < n; i++) assert_int_equal(text[i], ' ');
    s = (struct nb_bnb_state){.nf4 = true, .block = 64, .rows = 1, .cols = 64, .dtype = NB_F16};
    assert_int_equal(nb_bnb_state_print(&s, text), strlen(plain));
    assert_memory_equal(text, plain, strlen(plain));
}

static void test_blob_comes_back(void **state)
{
    (void)state;
    static const float offsets[] = {0.0f,          1.0f,   0.4923597276210785f, -1.17549435e-38f,
                                    3.4028235e38f, 1e-45f, 123456789.0f};
    static const enum nb_dtype dtypes[] = {NB_BF16, NB_F16, NB_F32};
    size_t length = 0;
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        struct nb_bnb_state s = {.nf4 = false,
                                 .block = 4096,
                                 .rows = 123,
                                 .cols = INT64_MAX,
                                 .dtype = dtypes[i % 3],
                                 .nested = true,
                                 .offset = offsets[i]};
        struct nb_bnb_state back;
        struct nb_err err;
        char text[NB_BNB_STATE_MAX];
        size_t n = nb_bnb_state_print(&s, text);
        if (i % 3 == 0) {
            assert_true(!length || n == length); /* whatever the offset */
            length = n;
        }
        struct nb_span span = {(const unsigned char *)text, n};
        if (nb_bnb_state_parse(&back, span, "blob", &err)) fail_msg("%s", err.text);
        assert_true(back.offset == s.offset && back.block == s.block && back.rows == s.rows);
        assert_true(back.cols == s.cols && back.dtype == s.dtype && back.nested && !back.nf4);
    }
}

static void refuse_blob(const char *text, const char *says)
{
    struct nb_err err = {0};
    struct nb_bnb_state s;
    struct nb_span span = {(const unsigned char *)text, strlen(text)};
    assert_int_equal(nb_bnb_state_parse(&s, span, "tensor 'm'", &err), NB_E_FORMAT);
    assert_non_null(strstr(err.text, "tensor 'm'"));
    if (!strstr(err.text, says)) fail_msg("'%s' says nothing of '%s'", err.text, says);
}

#define START "{\"quant_type\": \"nf4\", \"blocksize\": 64, "
#define REST "\"dtype\": \"float16\", \"shape\": [1, 64]"

static void test_bad_blobs(void **state)
{
    (void)state;
    refuse_blob("", "JSON");
    refuse_blob("[]", "expected an object");
    refuse_blob("{}", "quant_type");
    refuse_blob(START REST, "JSON");
    refuse_blob(START REST ", \"extra\": 1}", "'extra'");
    refuse_blob(START REST ", \"absmax\": 1}", "'absmax'");
    refuse_blob(START REST ", \"nested_offset\": 1.0}", "all of nested_blocksize");
    refuse_blob("{\"quant_type\": \"nf3\", \"blocksize\": 64, " REST "}", "'nf3'");
    refuse_blob("{\"quant_type\": \"nf4\", \"blocksize\": 48, " REST "}", "blocksize 48");
    refuse_blob("{\"quant_type\": \"nf4\", \"blocksize\": -64, " REST "}", "blocksize -64");
    refuse_blob("{\"quant_type\": \"nf4\", \"blocksize\": 64.0, " REST "}", "an integer");
    refuse_blob("{\"quant_type\": \"nf4\", " REST "}", "'blocksize' is missing");
    refuse_blob(START "\"dtype\": \"int8\", \"shape\": [1, 64]}", "'int8'");
    refuse_blob(START "\"dtype\": \"float16\", \"shape\": [64]}", "shape");
    refuse_blob(START "\"dtype\": \"float16\", \"shape\": [0, 64]}", "shape");
    refuse_blob(START "\"dtype\": \"float16\", \"shape\": [1.5, 64]}", "shape");
    refuse_blob(START "\"dtype\": \"float16\", \"shape\": null}", "shape");
#define NESTED(block, dtype, offset)                                                               \
    START REST ", \"nested_blocksize\": " block ", \"nested_dtype\": " dtype                       \
               ", \"nested_offset\": " offset "}"
    refuse_blob(NESTED("64", "\"float32\"", "0.5"), "nested blocks of 64");
    refuse_blob(NESTED("256", "\"float16\"", "0.5"), "float16");
    refuse_blob(NESTED("256", "\"float32\"", "1e39"), "nested_offset");
    refuse_blob(NESTED("256", "\"float32\"", "\"x\""), "a number");
    char large[5000];
    memset(large, ' ', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    refuse_blob(large, "4999 bytes");
}

/* ---- the config ---- */

static int parse_config(const char *text, struct nb_bnb_config *c, struct nb_err *err)
{
    json_t *q = nb_json_parse(text, strlen(text), 8, "config", err);
    assert_non_null(q);
    const struct nb_checkpoint *row;
    assert_int_equal(nb_quant_config_checkpoint(q, &row, err), 0);
    assert_ptr_equal(row, &nb_checkpoint_bnb);
    int rc = nb_bnb_config_parse(c, q, err);
    json_decref(q);
    return rc;
}

static void refuse_config(const char *text, int status, const char *says)
{
    struct nb_err err = {0};
    struct nb_bnb_config c;
    assert_int_equal(parse_config(text, &c, &err), status);
    if (!strstr(err.text, says)) fail_msg("'%s' says nothing of '%s'", err.text, says);
}

static void test_parse(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_bnb_config c;
    assert_int_equal(parse_config("{\"quant_method\": \"bitsandbytes\"}", &c, &err), 0);
    assert_true(c.threshold == 6.0f);
    assert_int_equal(parse_config("{\"load_in_8bit\": true, \"llm_int8_threshold\": 0}", &c, &err),
                     0);
    assert_true(c.threshold == 0.0f);
#define BNB "{\"quant_method\": \"BitsAndBytes\", "
    assert_int_equal(parse_config(BNB "\"bnb_4bit_quant_storage\": \"bfloat16\", "
                                      "\"bnb_4bit_quant_type\": \"fp4\"}",
                                  &c, &err),
                     0);
    refuse_config(BNB "\"load_in_4bit\": true, \"load_in_8bit\": true}", NB_E_FORMAT, "both true");
    refuse_config(BNB "\"load_in_4bit\": false, \"load_in_8bit\": false}", NB_E_FORMAT,
                  "both false");
    refuse_config(BNB "\"load_in_4bit\": 1}", NB_E_FORMAT, "a boolean");
    refuse_config(BNB "\"bnb_4bit_quant_type\": \"nf5\"}", NB_E_SPEC, "'nf5'");
    refuse_config(BNB "\"bnb_4bit_quant_storage\": \"int8\"}", NB_E_SPEC, "'int8'");
    refuse_config(BNB "\"llm_int8_threshold\": -1.0}", NB_E_FORMAT, "-1");
    refuse_config(BNB "\"llm_int8_threshold\": \"6\"}", NB_E_FORMAT, "a number");
    refuse_config(BNB "\"bits\": 4}", NB_E_SPEC, "GPTQModel");
}

static struct nb_qspec nf4_spec(bool nested)
{
    struct nb_qspec s = {.elem = nb_elem_nf4,
                         .group_rows = 1,
                         .group_cols = 64,
                         .flat = true,
                         .scale_dtype = NB_F32};
    if (nested) s.super_groups = 256;
    return s;
}

static void test_written_config(void **state)
{
    (void)state;
    struct nb_module_spec modules[3] = {
        {.path = "model.layers.0.self_attn.q_proj", .quantized = true, .spec = nf4_spec(true)},
        {.path = "model.layers.0.mlp.down_proj", .quantized = false},
        {.path = "model.layers.0.mlp.up_proj", .quantized = true, .spec = nf4_spec(true)}};
    struct nb_checkpoint_info info = {.spec = nf4_spec(true),
                                      .modules = modules,
                                      .n_modules = 3,
                                      .pack = {.source = NB_BF16, .storage = NB_F16}};
    struct nb_err err;
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    json_t *c = nb_checkpoint_bnb.config(&info);
    assert_int_equal(nb_json_dump(c, false, &text, &err), 0);
    assert_string_equal(
        text.data,
        "{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true,\"load_in_8bit\":false,"
        "\"_load_in_4bit\":true,\"_load_in_8bit\":false,\"bnb_4bit_quant_type\":\"nf4\","
        "\"bnb_4bit_compute_dtype\":\"bfloat16\",\"bnb_4bit_quant_storage\":\"float16\","
        "\"bnb_4bit_use_double_quant\":true,\"llm_int8_threshold\":6.0,"
        "\"llm_int8_skip_modules\":[\"model.layers.0.mlp.down_proj\",\"lm_head\"],"
        "\"llm_int8_enable_fp32_cpu_offload\":false,\"llm_int8_has_fp16_weight\":false}");
    struct nb_bnb_config parsed;
    assert_true(nb_bnb_config_probe(c));
    assert_int_equal(nb_bnb_config_parse(&parsed, c, &err), 0);
    json_decref(c);
    nb_strbuf_release(&text);

    info.spec = (struct nb_qspec){.elem = {.kind = NB_ELEM_INT, .bits = 8, .vec = 1},
                                  .group_cols = -1,
                                  .act = NB_ACT_INT8_OUTLIER,
                                  .act_threshold = 5.0f};
    modules[0].spec = modules[2].spec = info.spec;
    c = nb_checkpoint_bnb.config(&info);
    assert_true(json_is_true(json_object_get(c, "load_in_8bit")));
    assert_true(json_is_real(json_object_get(c, "llm_int8_threshold")));
    assert_int_equal(nb_bnb_config_parse(&parsed, c, &err), 0);
    assert_true(parsed.threshold == 5.0f);
    json_decref(c);
}

static void test_one_kind_only(void **state)
{
    (void)state;
    struct nb_module_spec modules[2] = {{.path = "a", .quantized = true, .spec = nf4_spec(true)},
                                        {.path = "b", .quantized = true, .spec = nf4_spec(false)}};
    struct nb_checkpoint_info info = {.spec = nf4_spec(true), .modules = modules, .n_modules = 2};
    struct nb_err err;
    assert_int_equal(nb_checkpoint_bnb.can_describe(&info, &err), NB_E_SPEC);
    assert_non_null(strstr(err.text, "'b'"));
    assert_non_null(strstr(err.text, "compressed-tensors"));
    assert_null(nb_checkpoint_bnb.config(&info));
    modules[1].spec = nf4_spec(true);
    modules[1].spec.elem = nb_elem_fp4;
    assert_int_equal(nb_checkpoint_bnb.can_describe(&info, &err), NB_E_SPEC);
    modules[1].quantized = false;
    assert_int_equal(nb_checkpoint_bnb.can_describe(&info, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blob_as_published), cmocka_unit_test(test_blob_comes_back),
        cmocka_unit_test(test_bad_blobs),         cmocka_unit_test(test_parse),
        cmocka_unit_test(test_written_config),    cmocka_unit_test(test_one_kind_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
