/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fp8.c - quant_method "fp8": worked examples, every spelling that is read, what is refused, and what is
 * written. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "checkpoint/internal.h"
#include "fixture.h"
#include "numeric/elems.h"
#include "support/folder.h"

#define ALL ((int64_t)1 << 40)

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

/* Formats document, 6.4: W 3 x 3, blocks of 2 x 2. */
static const float example[9] = {1, -2, 0.5f, 0.25f, 4, -0.125f, 3, 0, 7};
static const uint8_t block_codes[9] = {0x6E, 0xF6, 0x7E, 0x5E, 0x7E, 0xEE, 0x7E, 0x00, 0x7E};
static const uint32_t block_scales[4] = {0x3c124925, 0x3a924925, 0x3bdb6db7, 0x3c800000};
static const uint8_t tensor_codes[9] = {0x68, 0xF0, 0x60, 0x58, 0x78, 0xD0, 0x74, 0x00, 0x7E};
static const float tensor_scale = 0.015625f;

static const char blocks22[] = "{\"quant_method\":\"fp8\",\"activation_scheme\":\"dynamic\","
                               "\"weight_block_size\":[2,2]}";
static const char dynamic[] = "{\"quant_method\":\"fp8\",\"activation_scheme\":\"dynamic\"}";
static const char fixed[] = "{\"quant_method\":\"fp8\",\"activation_scheme\":\"static\"}";

struct opened {
    struct nb_model *m;
    struct nb_arena arena;
    struct nb_weight w;
    struct nb_err err;
    int rc;
};

/* Module "p", 3 x 3, of a model of these tensors. */
static void open_module(struct opened *o, const char *folder, const char *config,
                        const struct fixture_tensor *t, size_t n)
{
    memset(o, 0, sizeof *o);
    o->m = fixture_open(folder, config, t, n);
    nb_arena_init(&o->arena);
    o->rc = nb_model_module(o->m, &(struct nb_module_ref){"p", 3, 3}, &o->arena, &o->w, &o->err);
}

static void close_module(struct opened *o)
{
    nb_arena_release(&o->arena);
    nb_model_close(o->m);
}

static void assert_example(const struct opened *o)
{
    float row[3];
    if (o->rc) fail_msg("%s", o->err.text);
    assert_non_null(o->w.q);
    for (int n = 0; n < 3; n++) {
        nb_qmat_dequant_row(o->w.q, n, row);
        for (int k = 0; k < 3; k++) assert_true(fabsf(row[k] - example[3 * n + k]) < 1e-6f);
    }
}

static void test_reads_blocks(void **state)
{
    static const char *const names[] = {"p.weight_scale_inv", "p.weight_scale", "p.scale"};
    for (int i = 0; i < 3; i++) {
        const struct fixture_tensor t[] = {
            {"p.weight", NB_F8_E4M3, 2, {3, 3}, block_codes},
            {names[i], NB_F32, 2, {2, 2}, block_scales},
        };
        struct opened o;
        open_module(&o, *state, blocks22, t, 2);
        assert_example(&o);
        assert_int_equal(o.w.q->spec.act, NB_ACT_FP8_GROUP);
        assert_int_equal(o.w.q->spec.act_group, 2);
        assert_int_equal(o.w.q->spec.scale_dtype, NB_F32);
        assert_memory_equal(o.w.q->codes, block_codes, 9);
        assert_memory_equal(o.w.q->scale.value, block_scales, 16);
        close_module(&o);
    }
}

/* Powers of two, as F8_E8M0 or as the bytes of one. */
static void test_reads_exponents(void **state)
{
    static const uint8_t bytes[4] = {127, 126, 128, 120};
    static const char u8[] = "{\"quant_method\":\"fp8\",\"activation_scheme\":\"dynamic\","
                             "\"scale_fmt\":\"ue8m0\",\"weight_block_size\":[2,2]}";
    for (int i = 0; i < 2; i++) {
        const struct fixture_tensor t[] = {
            {"p.weight", NB_F8_E4M3, 2, {3, 3}, block_codes},
            {"p.weight_scale_inv", i ? NB_U8 : NB_F8_E8M0, 2, {2, 2}, bytes},
        };
        struct opened o;
        open_module(&o, *state, i ? u8 : blocks22, t, 2);
        if (o.rc) fail_msg("%s", o.err.text);
        assert_int_equal(o.w.q->spec.scale_dtype, NB_F8_E8M0);
        assert_true(o.w.q->scale.value[1] == 0.5f && o.w.q->scale.value[3] == 0x1p-7f);
        close_module(&o);
    }
}

static void test_reads_one_scale(void **state)
{
    static const float input = 0.25f;
    for (int rank = 0; rank < 3; rank++) {
        for (int is_static = 0; is_static < 2; is_static++) {
            const struct fixture_tensor t[] = {
                {"p.weight", NB_F8_E4M3, 2, {3, 3}, tensor_codes},
                {"p.weight_scale", NB_F32, rank, {1, 1}, &tensor_scale},
                {rank ? "p.input_scale" : "p.activation_scale", NB_F32, rank, {1, 1}, &input},
            };
            struct opened o;
            open_module(&o, *state, is_static ? fixed : dynamic, t, 3);
            assert_example(&o);
            assert_int_equal(nb_qmat_planes(o.w.q), 1);
            assert_int_equal(o.w.q->spec.act, is_static ? NB_ACT_FP8_STATIC : NB_ACT_FP8_TOKEN);
            assert_true(o.w.q->input_scale == (is_static ? input : 0.0f));
            close_module(&o);
        }
    }
}

static void test_reads_rows(void **state)
{
    static const float scale[3] = {1, 2, 0.5f};
    for (int rank = 1; rank < 3; rank++) {
        const struct fixture_tensor t[] = {
            {"p.weight", NB_F8_E4M3, 2, {3, 3}, tensor_codes},
            {"p.weight_scale", NB_F32, rank, {3, 1}, scale},
        };
        struct opened o;
        open_module(&o, *state, dynamic, t, 2);
        if (o.rc) fail_msg("%s", o.err.text);
        assert_int_equal(nb_qmat_planes(o.w.q), 3);
        assert_memory_equal(o.w.q->scale.value, scale, sizeof scale);
        close_module(&o);
    }
}

/* GPTQModel's own: the stored value is 448 / amax. */
static void test_reads_inverse_scales(void **state)
{
    static const float row[3] = {224.0f, 2.0f, 0.5f};
    const struct fixture_tensor t[] = {
        {"p.weight", NB_F8_E4M3, 2, {3, 3}, tensor_codes},
        {"p.weight_scale_inv", NB_F32, 1, {3}, row},
    };
    static const char *const configs[] = {
        ("{\"quant_method\":\"fp8\",\"format\":\"float8_e4m3fn\",\"weight_scale_method\":\"row\","
         "\"weight_scale_semantics\":\"inverse\"}"),
        "{\"quant_method\":\"fp8\",\"format\":\"float8_e4m3fn\"}",
        "{\"quant_method\":\"fp8\",\"weight_scale_semantics\":\"inverse\"}",
    };
    for (int i = 0; i < 3; i++) {
        struct opened o;
        open_module(&o, *state, configs[i], t, 2);
        if (o.rc) fail_msg("%s", o.err.text);
        assert_true(o.w.q->scale.value[0] == 1.0f / 224.0f && o.w.q->scale.value[2] == 2.0f);
        assert_int_equal(o.w.q->spec.act, NB_ACT_NONE);
        close_module(&o);
    }
}

static void assert_refused(const char *folder, const char *config, const struct fixture_tensor *t,
                           size_t n, const char *words)
{
    struct opened o;
    open_module(&o, folder, config, t, n);
    if (o.rc != NB_E_FORMAT && o.rc != NB_E_SPEC) fail_msg("read: %s", words);
    if (!strstr(o.err.text, words)) fail_msg("'%s' lacks '%s'", o.err.text, words);
    close_module(&o);
}

static void test_refuses_other_types(void **state)
{
    static const float ones[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    const enum nb_dtype other[] = {NB_F8_E5M2, NB_F8_E4M3FNUZ, NB_F8_E5M2FNUZ, NB_I8, NB_BF16};
    for (int i = 0; i < 5; i++) {
        const struct fixture_tensor t[] = {
            {"p.weight", other[i], 2, {3, 3}, ones},
            {"p.weight_scale_inv", NB_F32, 2, {2, 2}, block_scales},
        };
        static const char listed[] = "{\"quant_method\":\"fp8\",\"weight_block_size\":[2,2],"
                                     "\"ignored_layers\":[\"q\"]}";
        assert_refused(*state, listed, t, 2, i < 3 ? "other numbers than E4M3" : "F8_E4M3");
    }
}

static void test_refuses_bad_scales(void **state)
{
    static const float bad_scales[][4] = {
        {1, NAN, 1, 1}, {1, 1, INFINITY, 1}, {-1, 1, 1, 1}, {1, 1, 1, 3e38f}};
    for (int i = 0; i < 4; i++) {
        const struct fixture_tensor t[] = {
            {"p.weight", NB_F8_E4M3, 2, {3, 3}, block_codes},
            {"p.weight_scale_inv", NB_F32, 2, {2, 2}, bad_scales[i]},
        };
        assert_refused(*state, blocks22, t, 2, "expected a finite positive number");
    }
}

static void test_refuses_bad_tensors(void **state)
{
    static const uint8_t nan_code[9] = {1, 2, 3, 4, 5, 0xff, 7, 8, 9};
    static const float zero = 0.0f, ones[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    const struct fixture_tensor weight = {"p.weight", NB_F8_E4M3, 2, {3, 3}, block_codes};
    const struct {
        const char *config, *words;
        size_t n;
        struct fixture_tensor t[3];
    } cases[] = {
        {blocks22,
         "is NaN",
         2,
         {{"p.weight", NB_F8_E4M3, 2, {3, 3}, nan_code},
          {"p.weight_scale_inv", NB_F32, 2, {2, 2}, block_scales}}},
        {blocks22,
         "no scale of the blocks",
         2,
         {weight, {"p.weight_scale_inv", NB_F32, 2, {1, 2}, block_scales}}},
        {blocks22,
         "no scale of the blocks",
         2,
         {weight, {"p.weight_scale_inv", NB_F32, 1, {4}, block_scales}}},
        {blocks22,
         "expected F32",
         2,
         {weight, {"p.weight_scale_inv", NB_I32, 2, {2, 2}, block_scales}}},
        {blocks22,
         "expected F32",
         2,
         {weight, {"p.weight_scale_inv", NB_U8, 2, {2, 2}, block_scales}}},
        {blocks22, "'p.weight_scale_inv' is missing", 1, {weight}},
        {dynamic, "'p.weight_scale' is missing", 1, {weight}},
        {blocks22,
         "are both there",
         3,
         {weight,
          {"p.weight_scale_inv", NB_F32, 2, {2, 2}, block_scales},
          {"p.scale", NB_F32, 2, {2, 2}, block_scales}}},
        {dynamic,
         "no scale of all or of the outputs",
         2,
         {weight, {"p.weight_scale", NB_F32, 1, {2}, block_scales}}},
        {dynamic,
         "no scale of all or of the outputs",
         2,
         {weight, {"p.weight_scale", NB_F32, 2, {1, 3}, ones}}},
        {fixed,
         "'p.input_scale' is missing",
         2,
         {weight, {"p.weight_scale", NB_F32, 0, {0}, ones}}},
        {fixed,
         "expected a finite positive number",
         3,
         {weight,
          {"p.weight_scale", NB_F32, 0, {0}, ones},
          {"p.input_scale", NB_F32, 0, {0}, &zero}}},
        {fixed,
         "expected one float",
         3,
         {weight,
          {"p.weight_scale", NB_F32, 0, {0}, ones},
          {"p.input_scale", NB_F32, 1, {2}, ones}}},
        {dynamic, "has shape [3,2]", 1, {{"p.weight", NB_F8_E4M3, 2, {3, 2}, block_codes}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(*state, cases[i].config, cases[i].t, cases[i].n, cases[i].words);
}

/* ---- writing ---- */

static struct nb_qspec spec_of(int64_t rows, int64_t cols, enum nb_act_kind act)
{
    return (struct nb_qspec){.elem = nb_elem_e4m3,
                             .group_rows = rows,
                             .group_cols = cols,
                             .scale_dtype = NB_F32,
                             .act = act,
                             .act_group = act == NB_ACT_FP8_GROUP ? 128 : 0};
}

static void test_packs_what_it_plans(void **state)
{
    (void)state;
    const struct nb_qspec specs[] = {spec_of(128, 128, NB_ACT_FP8_GROUP),
                                     spec_of(ALL, -1, NB_ACT_FP8_TOKEN),
                                     spec_of(ALL, -1, NB_ACT_FP8_STATIC)};
    static const char *const suffixes[3][3] = {{".weight", ".weight_scale_inv"},
                                               {".weight", ".weight_scale"},
                                               {".weight", ".weight_scale", ".input_scale"}};
    for (int i = 0; i < 3; i++) {
        struct nb_err err;
        struct nb_arena arena;
        struct nb_qmat q;
        struct nb_packed_tensor t[NB_MAX_PACKED];
        int n;
        nb_arena_init(&arena);
        if (nb_checkpoint_fp8.can_write(&specs[i], 256, 128, false, &err)) fail_msg("%s", err.text);
        assert_int_equal(nb_qmat_init(&q, &specs[i], 256, 128, &arena, &err), 0);
        for (int64_t k = 0; k < 256 * 128; k++) q.codes[k] = (uint8_t)(k % 127);
        for (int64_t k = 0; k < nb_qmat_planes(&q); k++) q.scale.value[k] = (float)(k + 1);
        q.input_scale = 3;
        if (nb_checkpoint_fp8.pack(&q, NULL, &arena, t, &n, &err)) fail_msg("%s", err.text);
        assert_int_equal(n, i == 2 ? 3 : 2);
        for (int k = 0; k < n; k++) assert_string_equal(t[k].suffix, suffixes[i][k]);
        assert_memory_equal(t[0].data, q.codes, 256 * 128);
        assert_true(((float *)t[1].data)[0] == 1);
        if (i == 0) assert_int_equal(t[1].shape[0] * 10 + t[1].shape[1], 21);
        if (i == 2) assert_true(((float *)t[2].data)[0] == 3);
        q.scale.value[0] = 0;
        assert_int_equal(nb_checkpoint_fp8.pack(&q, NULL, &arena, t, &n, &err), NB_E_NUMERIC);
        q.scale.value[0] = 1;
        q.codes[5] = 0xff;
        assert_int_equal(nb_checkpoint_fp8.pack(&q, NULL, &arena, t, &n, &err), NB_E_NUMERIC);
        nb_arena_release(&arena);
    }
}

static void test_says_what_is_nearest(void **state)
{
    (void)state;
    struct nb_qspec wrong[8];
    for (int i = 0; i < 8; i++) wrong[i] = spec_of(128, 128, NB_ACT_FP8_GROUP);
    wrong[0].scale_dtype = NB_BF16;
    wrong[1].group_rows = 1;
    wrong[2].act = NB_ACT_FP8_TOKEN;
    wrong[3] = spec_of(1, -1, NB_ACT_FP8_TOKEN);
    wrong[4].act = NB_ACT_NONE;
    wrong[5].act_group = 64;
    wrong[6].elem = nb_elem_e2m1;
    wrong[7] = spec_of(ALL, -1, NB_ACT_FP8_TENSOR);
    for (int i = 0; i < 8; i++) {
        struct nb_err err = {0};
        assert_int_equal(nb_checkpoint_fp8.can_write(&wrong[i], 256, 256, false, &err), NB_E_SPEC);
        assert_non_null(strstr(err.text, "nearest"));
    }
    const struct nb_qspec blocks = spec_of(128, 128, NB_ACT_FP8_GROUP);
    struct nb_err err = {0};
    assert_int_equal(nb_checkpoint_fp8.can_write(&blocks, 256, 200, false, &err), NB_E_SPEC);
    assert_non_null(strstr(err.text, "256 x 256"));
    assert_int_equal(nb_checkpoint_fp8.can_write(&blocks, 200, 256, false, &err), NB_E_SPEC);
    assert_int_equal(nb_checkpoint_fp8.can_write(&blocks, 256, 256, true, &err), NB_E_SPEC);
    const struct nb_qspec one = spec_of(ALL, -1, NB_ACT_FP8_STATIC);
    assert_int_equal(nb_checkpoint_fp8.can_write(&one, 7, 5, false, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reads_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reads_exponents, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reads_one_scale, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reads_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reads_inverse_scales, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refuses_other_types, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refuses_bad_scales, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refuses_bad_tensors, setup, teardown),
        cmocka_unit_test(test_packs_what_it_plans),
        cmocka_unit_test(test_says_what_is_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
