/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/internal.h"
#include "support/folder.h"

static int setup(void **state)
{
    *state = folder_make();
    return 0;
}

static int teardown(void **state)
{
    folder_remove(*state);
    return 0;
}

static json_t *parse_json(const char *text)
{
    struct nb_err err;
    json_t *v = nb_json_parse(text, strlen(text), 64, "config", &err);
    if (!v) fail_msg("%s", err.text);
    return v;
}

/* The row that reads a config, or NULL with its error. */
static const struct nb_checkpoint *row_of(const char *config, struct nb_err *err)
{
    const struct nb_checkpoint *c = NULL;
    json_t *q = parse_json(config);
    if (nb_quant_config_checkpoint(q, &c, err)) c = NULL;
    json_decref(q);
    return c;
}

static void test_detection(void **state)
{
    (void)state;
    struct nb_err err;
    assert_ptr_equal(row_of("{\"quant_method\":\"gptq\"}", &err), &nb_checkpoint_gptq);
    assert_ptr_equal(row_of("{\"method\":\"GPTQ\",\"format\":\"gptq\"}", &err),
                     &nb_checkpoint_gptq);
    assert_ptr_equal(row_of("{\"quant_method\":\"gptq\",\"checkpoint_format\":\"gptq_v2\"}", &err),
                     &nb_checkpoint_gptq_v2);
    assert_ptr_equal(row_of("{\"quant_method\":\"gptq\",\"format\":\"gptq_v2\"}", &err),
                     &nb_checkpoint_gptq_v2);
    assert_ptr_equal(row_of("{\"bits\":4,\"group_size\":128,\"desc_act\":false}", &err),
                     &nb_checkpoint_gptq);
    assert_ptr_equal(row_of("{\"quant_method\":\"awq\",\"bits\":4}", &err), &nb_checkpoint_awq);
    assert_ptr_equal(row_of("{\"w_bit\":4,\"q_group_size\":128,\"zero_point\":true}", &err),
                     &nb_checkpoint_awq);
    assert_ptr_equal(row_of("{\"bits\":4,\"version\":\"GEMM\"}", &err), &nb_checkpoint_awq);
}

static void test_unreadable(void **state)
{
    (void)state;
    struct nb_err err;
    assert_null(row_of("{\"quant_method\":\"hqq\",\"nbits\":4}", &err));
    assert_int_equal(err.status, NB_E_SPEC);
    assert_non_null(strstr(
        err.text, "quantization config: quant_method 'hqq' cannot be read; readable are gptq, "
                  "gptq_v2, awq, compressed-tensors, bnb, fp8"));
    assert_ptr_equal(row_of("{\"config_groups\":{}}", &err), &nb_checkpoint_ct);
    assert_ptr_equal(row_of("{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true}", &err),
                     &nb_checkpoint_bnb);
    assert_null(row_of("{\"bits\":4}", &err));
    assert_int_equal(err.status, NB_E_FORMAT);
    assert_string_equal(err.text,
                        "quantization config: names no quant_method and has no key that tells it");
}

static int64_t bits_found(const char *config, const char *dir)
{
    struct nb_err err;
    json_t *c = parse_json(config), *q;
    if (nb_quant_config_find(c, dir, &q, &err)) fail_msg("%s", err.text);
    int64_t bits = q ? json_integer_value(json_object_get(q, "bits")) : -1;
    json_decref(q);
    json_decref(c);
    return bits;
}

static void test_where_it_stands(void **state)
{
    const char *dir = *state;
    assert_int_equal(bits_found("{}", dir), -1);
    assert_int_equal(bits_found("{\"quantization_config\":null}", dir), -1);
    folder_text(dir, "quant_config.json", "{\"bits\":1}");
    assert_int_equal(bits_found("{}", dir), 1);
    folder_text(dir, "quantize_config.json", "{\"bits\":2}");
    assert_int_equal(bits_found("{}", dir), 2);
    assert_int_equal(bits_found("{\"text_config\":{\"quantization_config\":{\"bits\":3}}}", dir),
                     3);
    assert_int_equal(bits_found("{\"quantization_config\":{\"bits\":4}}", dir), 4);
}

static void test_broken_files(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    json_t *c = parse_json("{\"quantization_config\":[]}"), *none = parse_json("{}"), *q;
    assert_int_equal(nb_quant_config_find(c, dir, &q, &err), NB_E_FORMAT);
    assert_non_null(
        strstr(err.text, "/config.json: quantization_config is an array, expected an object"));
    folder_text(dir, "quantize_config.json", "[1]");
    assert_int_equal(nb_quant_config_find(none, dir, &q, &err), NB_E_FORMAT);
    assert_non_null(strstr(err.text, "/quantize_config.json: holds an array, expected an object"));
    assert_null(q);
    folder_text(dir, "quantize_config.json", "{");
    assert_int_equal(nb_quant_config_find(none, dir, &q, &err), NB_E_FORMAT);
    assert_non_null(strstr(err.text, "/quantize_config.json: not valid JSON"));
    json_decref(c);
    json_decref(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_detection),
        cmocka_unit_test(test_unreadable),
        cmocka_unit_test_setup_teardown(test_where_it_stands, setup, teardown),
        cmocka_unit_test_setup_teardown(test_broken_files, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
