/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "numeric/elems.h"
#include "pipeline/convert_spec.h"
#include "support/tiny_model.h"

struct fixture {
    struct nb_arena arena;
    struct nb_qmat q;
    struct nb_convert_sizes sizes;
    struct nb_err err;
};

static int setup(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    nb_arena_init(&f.arena);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    nb_arena_release(&f->arena);
    return 0;
}

static void make(struct fixture *f, const struct nb_qspec *spec, int64_t rows, int64_t cols)
{
    tiny_random_qmat(&f->q,
                     &(struct tiny_matrix){.spec = *spec, .rows = rows, .cols = cols, .seed = 1},
                     &f->arena);
    nb_convert_sizes_add(&f->sizes, &f->q);
}

static int convert(struct fixture *f, const char *to, struct nb_qspec *out)
{
    struct nb_convert_choice choice;
    int rc = nb_convert_spec(&choice, &f->q, &f->sizes, nb_checkpoint_find(to), &f->arena, &f->err);
    *out = choice.spec;
    return rc;
}

static void test_zeros(void **state)
{
    struct fixture *f = *state;
    struct nb_qspec out, spec = tiny_spec(4, 64, true);
    make(f, &spec, 64, 128);
    f->q.spec.zero_implied = true;
    assert_int_equal(convert(f, "gptq", &out), 0);
    assert_false(out.zero_implied); /* written down */
    assert_int_equal(convert(f, "compressed-tensors", &out), 0);
    assert_true(out.zero_implied);
    spec = tiny_spec(4, 64, false);
    make(f, &spec, 64, 128);
    for (int i = 0; i < 64 * 2; i++) f->q.zero.value[i] = (float)(1 + i % 15);
    assert_int_equal(convert(f, "gptq", &out), 0);
    f->q.zero.value[7] = 0;
    assert_int_equal(convert(f, "gptq", &out), NB_E_SPEC);
    assert_non_null(strstr(f->err.text, "zero 0 of output"));
    assert_int_equal(convert(f, "gptq_v2", &out), 0);
    assert_int_equal(convert(f, "awq", &out), 0);
    assert_int_equal(convert(f, "compressed-tensors", &out), 0);
}

/* Scales keep their type, or take one that holds them all. */
static void test_scale_types(void **state)
{
    struct fixture *f = *state;
    struct nb_qspec out, spec = tiny_spec(4, 64, true);
    make(f, &spec, 64, 128);
    f->q.spec.scale_dtype = NB_BF16;
    for (int i = 0; i < 64 * 2; i++) f->q.scale.value[i] = 0.5f;
    assert_int_equal(convert(f, "compressed-tensors", &out), 0);
    assert_int_equal(out.scale_dtype, NB_BF16);
    assert_int_equal(convert(f, "gptq", &out), 0);
    assert_int_equal(out.scale_dtype, NB_F16);
    f->q.scale.value[3] = 1e-20f;
    assert_int_equal(convert(f, "gptq", &out), NB_E_SPEC);
    assert_string_equal(f->err.text, "gptq stores scales as F16, not as BF16");
}

/* A matrix smaller than a group or a block does not hide what the model's are. */
static void test_sizes_of_the_model(void **state)
{
    struct fixture *f = *state;
    struct nb_qspec out, spec = tiny_spec(4, 128, true);
    make(f, &spec, 64, 256);
    make(f, &spec, 64, 128);
    assert_int_equal(convert(f, "awq", &out), 0);
    assert_int_equal(out.group_cols, 128);
    spec = tiny_spec(4, -1, true);
    make(f, &spec, 64, 96);
    assert_int_equal(convert(f, "gptq", &out), 0);
    assert_int_equal(out.group_cols, -1);
    assert_int_equal(convert(f, "awq", &out), NB_E_SPEC); /* which has no groups of 96 */
}

static void test_blocks(void **state)
{
    struct fixture *f = *state;
    struct nb_qspec out, spec = {.elem = nb_elem_e4m3,
                                 .group_rows = 128,
                                 .group_cols = 128,
                                 .scale_dtype = NB_F32,
                                 .act = NB_ACT_FP8_GROUP,
                                 .act_group = 128};
    assert_int_equal(nb_qmat_init(&f->q, &spec, 256, 256, &f->arena, &f->err), 0);
    nb_convert_sizes_add(&f->sizes, &f->q);
    assert_int_equal(nb_qmat_init(&f->q, &spec, 64, 128, &f->arena, &f->err), 0);
    nb_convert_sizes_add(&f->sizes, &f->q);
    f->q.scale.value[0] = 1;
    assert_int_equal(convert(f, "compressed-tensors", &out), 0);
    assert_int_equal(out.group_rows, 128);
    assert_int_equal(out.group_cols, 128);
}

static void test_order(void **state)
{
    static const int32_t order[128] = {1};
    struct fixture *f = *state;
    struct nb_qspec out, spec = tiny_spec(4, 64, true);
    make(f, &spec, 64, 128);
    f->q.col_group = order;
    nb_convert_sizes_add(&f->sizes, &f->q);
    assert_int_equal(convert(f, "gptq", &out), 0);
    assert_int_equal(convert(f, "compressed-tensors", &out), 0);
    assert_int_equal(convert(f, "awq", &out), NB_E_SPEC);
    assert_non_null(strstr(f->err.text, "no g_idx"));
}

static void test_llm_int8(void **state)
{
    struct fixture *f = *state;
    struct nb_qspec out, spec = tiny_spec(8, -1, true);
    spec.scale_dtype = NB_F32;
    spec.zero_implied = true;
    make(f, &spec, 64, 128);
    f->q.spec.act = NB_ACT_INT8_OUTLIER;
    f->q.spec.act_threshold = 6;
    assert_int_equal(convert(f, "compressed-tensors", &out), 0);
    assert_int_equal(out.act, NB_ACT_INT8_TOKEN);
    assert_int_equal(convert(f, "gptq", &out), NB_E_SPEC);
}

static void test_compare(void **state)
{
    struct fixture *f = *state;
    struct nb_qmat other;
    struct nb_qspec spec = tiny_spec(4, 64, false);
    make(f, &spec, 64, 128);
    const struct tiny_matrix same = {.spec = spec, .rows = 64, .cols = 128, .seed = 1};
    tiny_random_qmat(&other, &same, &f->arena);
    assert_int_equal(nb_convert_compare(&f->q, &other, &f->err), 0);
    other.codes[9] ^= 1;
    assert_int_equal(nb_convert_compare(&f->q, &other, &f->err), NB_E_FAIL);
    assert_string_equal(f->err.text, "what was written reads back with other codes");
    other.codes[9] ^= 1;
    other.zero.value[3] += 1;
    assert_int_equal(nb_convert_compare(&f->q, &other, &f->err), NB_E_FAIL);
    assert_string_equal(f->err.text, "what was written reads back with other zero points");
    other.zero.value[3] -= 1;
    other.scale.value[3] *= 2;
    assert_int_equal(nb_convert_compare(&f->q, &other, &f->err), NB_E_FAIL);
    assert_string_equal(f->err.text, "what was written reads back with other scales");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_zeros, setup, teardown),
        cmocka_unit_test_setup_teardown(test_scale_types, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sizes_of_the_model, setup, teardown),
        cmocka_unit_test_setup_teardown(test_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_llm_int8, setup, teardown),
        cmocka_unit_test_setup_teardown(test_compare, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
