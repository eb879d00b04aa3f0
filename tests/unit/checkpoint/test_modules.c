/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/internal.h"
#include "support/tiny_model.h"

static void test_fused_paths(void **state)
{
    (void)state;
    char out[NB_MODULE_NAME_MAX];
    assert_true(nb_module_fused_path("model.layers.3.self_attn.k_proj", out));
    assert_string_equal(out, "model.layers.3.self_attn.qkv_proj");
    assert_true(nb_module_fused_path("mlp.up_proj", out));
    assert_string_equal(out, "mlp.gate_up_proj");
    assert_true(nb_module_fused_path("gate_proj", out));
    assert_string_equal(out, "gate_up_proj");
    assert_false(nb_module_fused_path("model.layers.3.self_attn.o_proj", out));
    assert_false(nb_module_fused_path("model.layers.3.mlp.down_proj", out));
    assert_false(nb_module_fused_path("up_proj.lora", out));
}

static void test_inside_layer(void **state)
{
    (void)state;
    assert_string_equal(nb_module_inside_layer("model.layers.11.mlp.up_proj"), "mlp.up_proj");
    assert_string_equal(nb_module_inside_layer("transformer.h.0.attn"), "attn");
    assert_null(nb_module_inside_layer("lm_head"));
    assert_null(nb_module_inside_layer("model.layers.11"));
    assert_null(nb_module_inside_layer("model.layers.1x.mlp"));
}

static void test_same_grid(void **state)
{
    (void)state;
    struct nb_qspec a = tiny_spec(4, 128, true), b = a;
    assert_true(nb_module_same_grid(&a, &b));
    b.elem.bits = 8;
    assert_false(nb_module_same_grid(&a, &b));
    b = tiny_spec(4, 64, true);
    assert_false(nb_module_same_grid(&a, &b));
    b = tiny_spec(4, 128, false);
    assert_false(nb_module_same_grid(&a, &b));
    a = tiny_spec(4, -1, true);
    b = tiny_spec(4, 0, true);
    assert_true(nb_module_same_grid(&a, &b));
}

static void test_head(void **state)
{
    (void)state;
    struct nb_model m = {.arch = {.head_name = "lm_head.weight"}};
    assert_true(nb_module_is_head(&m, "lm_head"));
    assert_false(nb_module_is_head(&m, "lm_hea"));
    assert_false(nb_module_is_head(&m, ""));
    assert_false(nb_module_is_head(&m, "lm_head.weight"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fused_paths),
        cmocka_unit_test(test_inside_layer),
        cmocka_unit_test(test_same_grid),
        cmocka_unit_test(test_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
