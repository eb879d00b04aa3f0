/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "checkpoint/ct.h"
#include "fixture.h"
#include "numeric/elems.h"
#include "support/folder.h"
#include "support/tiny_model.h"

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

#define CONFIG(weights, more)                                                                      \
    "{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"group_0\":{\"targets\":"        \
    "[\"Linear\"],\"weights\":{" weights "}}}" more "}"

/* ---- writing ---- */

/* Formats document, section 8.1; equal to what compressed-tensors 0.19 packs. */
static void test_published_hashes(void **state)
{
    (void)state;
    static const struct {
        int bits;
        const char *packed, *zeros;
    } want[] = {
        {2, "7cef70019ecc430015d62756d2d12538d287875bc6ac445ce9a55e014c9cb520",
         "8c32b3e56eaaba2daa833af20638c3a20af30feea71c0f601941f2935d4a3579"},
        {3, "0342d6965a5d915be8598faf095270482ca0856bbc0cbad2353414e8ef5144d2",
         "0891622f6d109047422b011a6fe03cfe1d3c0061d7af13523489f5788993301b"},
        {4, "99379e023773211465d1c217ef1030eeebd5fe06c4d06885ea24c0e3c6de2d70",
         "52ae66089fe38eb842c57941bc99cc2628dc278c45dd91c428c248f71135db04"},
        {8, "94bc530e36fdcb04324e2bf4c672b7e1a997863be2b86d2b3a6dfa9eb3687e35",
         "6c7c80fb9b6d3db55707e4294bd10b6f7a230b9c263236e6d501557e241e89e6"},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        struct nb_err err;
        struct nb_arena arena;
        struct nb_qmat q;
        struct nb_packed_tensor t[NB_MAX_PACKED];
        char hex[NB_SHA256_HEX];
        int n;
        nb_arena_init(&arena);
        fixture_vector(&q, want[i].bits, &arena);
        if (nb_checkpoint_ct.pack(&q, NULL, &arena, t, &n, &err)) fail_msg("%s", err.text);
        fixture_hash(t, n, ".weight_packed", hex);
        assert_string_equal(hex, want[i].packed);
        fixture_hash(t, n, ".weight_zero_point", hex);
        assert_string_equal(hex, want[i].zeros);
        nb_arena_release(&arena);
    }
}

/* Section 5.7: the 8 x 8 codes of 2.9, zeros n + 5. */
static void test_worked_example(void **state)
{
    (void)state;
    static const uint32_t words[] = {0x630DA741, 0xB852FC96, 0x0DA741EB, 0x52FC9630,
                                     0xA741EB85, 0xFC9630DA, 0x41EB852F, 0x9630DA74};
    static const int64_t shape[] = {8, 8};
    struct nb_err err;
    struct nb_arena arena;
    struct nb_qmat q;
    struct nb_packed_tensor t[NB_MAX_PACKED];
    struct nb_qspec spec = tiny_spec(4, -1, false);
    int count;
    nb_arena_init(&arena);
    assert_int_equal(nb_qmat_init(&q, &spec, 8, 8, &arena, &err), 0);
    for (int n = 0; n < 8; n++) {
        for (int k = 0; k < 8; k++) q.codes[8 * n + k] = (uint8_t)((3 * k + 5 * n + 1) % 16);
        q.zero.value[n] = (float)(n + 5);
        q.scale.value[n] = 0.5f;
    }
    if (nb_checkpoint_ct.pack(&q, NULL, &arena, t, &count, &err)) fail_msg("%s", err.text);
    assert_int_equal(count, 4);
    assert_memory_equal(fixture_find(t, count, ".weight_packed")->data, words, sizeof words);
    assert_int_equal(*(uint32_t *)fixture_find(t, count, ".weight_zero_point")->data, 0xCBA98765);
    assert_memory_equal(fixture_find(t, count, ".weight_shape")->data, shape, sizeof shape);
    assert_int_equal(*(uint16_t *)fixture_find(t, count, ".weight_scale")->data, 0x3800);
    nb_arena_release(&arena);
}

/* Section 5.7, 32 codes of 3 bits in both packings: 29 is a multiple of no field, so the file has to say it. */
static const uint32_t dense_3bit[] = {0x3AA1E33A, 0xE33AA1E3, 0xA1E33AA1},
                      sparse_3bit[] = {0x3AA1E33A, 0x0CEA878C, 0x1E33AA1E, 0x00000028};

static void read_3bit(const char *dir, const uint32_t *words, int64_t n_words, uint8_t codes[32])
{
    static const int64_t shape[] = {1, 32};
    static const uint16_t scale = 0x3c00;
    const struct fixture_tensor t[] = {{"p.weight_packed", NB_I32, 2, {1, n_words}, words},
                                       {"p.weight_scale", NB_F16, 2, {1, 1}, &scale},
                                       {"p.weight_shape", NB_I64, 1, {2}, shape}};
    struct nb_err err;
    struct nb_arena arena;
    struct nb_weight w;
    struct nb_model *m = fixture_open(
        dir, CONFIG("\"num_bits\":3,\"strategy\":\"channel\"", ",\"format\":\"pack-quantized\""), t,
        3);
    nb_arena_init(&arena);
    const struct nb_module_ref ref = {.path = "p", .rows = 1, .cols = 32};
    if (nb_model_module(m, &ref, &arena, &w, &err)) fail_msg("%s", err.text);
    memcpy(codes, w.q->codes, 32);
    nb_arena_release(&arena);
    nb_model_close(m);
}

static void test_both_packings_of_3_bits(void **state)
{
    uint8_t dense[32], sparse[32];
    read_3bit(*state, dense_3bit, 3, dense);
    read_3bit(*state, sparse_3bit, 4, sparse);
    assert_memory_equal(dense, sparse, 32);
    assert_int_equal(dense[0], 2);
    assert_int_equal(dense[1], 7);
}

/* ---- reading: a row of each kind, values of section 5.7 and 5.9 ---- */

struct reading {
    const char *config;
    int64_t rows, cols;
    struct fixture_tensor t[6];
    int n;
};

static int read_row(const char *dir, const struct reading *r, float *row, struct nb_err *err)
{
    struct nb_arena arena;
    struct nb_weight w;
    struct nb_model *m = fixture_open(dir, r->config, r->t, (size_t)r->n);
    nb_arena_init(&arena);
    const struct nb_module_ref ref = {.path = "p", .rows = r->rows, .cols = r->cols};
    int rc = m->checkpoint->check(m, "p", r->rows, r->cols, err);
    if (!rc) rc = nb_model_module(m, &ref, &arena, &w, err);
    if (!rc) nb_weight_row(&w, 0, row);
    nb_arena_release(&arena);
    nb_model_close(m);
    return rc;
}

static const int8_t int8_codes[] = {32, -64, 16, 127};
static const uint8_t fp8_codes[] = {0x6E, 0xF6, 0x66, 0x7E, 0x5B, 0, 0, 0};
static const uint32_t int8_scale = 0x3c808081, fp8_scale = 0x3b924925;
static const uint8_t nvfp4_codes[] = {0x00, 0x19, 0xb2, 0xd4, 0xf6, 0x80, 0x42, 0x7e},
                     nvfp4_scale = 0x7e;
static const float nvfp4_global = 896;

static const struct reading int8_channel = {
    CONFIG("\"num_bits\":8,\"strategy\":\"channel\"", ",\"format\":\"int-quantized\""),
    1,
    4,
    {{"p.weight", NB_I8, 2, {1, 4}, int8_codes},
     {"p.weight_scale", NB_F32, 2, {1, 1}, &int8_scale}},
    2};
static const struct reading fp8_channel = {
    CONFIG("\"num_bits\":8,\"type\":\"float\",\"strategy\":\"channel\"",
           ",\"format\":\"naive-quantized\""),
    1,
    8,
    {{"p.weight", NB_F8_E4M3, 2, {1, 8}, fp8_codes},
     {"p.weight_scale", NB_F32, 2, {1, 1}, &fp8_scale}},
    2};
static const struct reading nvfp4 = {
    CONFIG("\"num_bits\":4,\"type\":\"float\",\"strategy\":\"tensor_group\",\"group_size\":16", ""),
    1,
    16,
    {{"p.weight_packed", NB_U8, 2, {1, 8}, nvfp4_codes},
     {"p.weight_scale", NB_F8_E4M3, 2, {1, 1}, &nvfp4_scale},
     {"p.weight_global_scale", NB_F32, 1, {1}, &nvfp4_global}},
    3};

static void test_rows(void **state)
{
    static const float fp4[] = {0, 0,  -0.25f, 0.25f, 0.5f, -0.75f, 1,  -1.5f,
                                2, -3, 0,      0,     0.5f, 1,      -2, 3};
    struct nb_err err;
    float row[16], scale;
    memcpy(&scale, &int8_scale, 4);
    assert_int_equal(read_row(*state, &int8_channel, row, &err), 0);
    for (int k = 0; k < 4; k++) assert_true(row[k] == scale * (float)int8_codes[k]);
    memcpy(&scale, &fp8_scale, 4);
    assert_int_equal(read_row(*state, &fp8_channel, row, &err), 0);
    assert_true(row[0] == 112 * scale && row[1] == -224 * scale && row[3] == 448 * scale &&
                row[4] == 22 * scale);
    assert_int_equal(read_row(*state, &nvfp4, row, &err), 0);
    for (int k = 0; k < 16; k++) assert_true(row[k] == fp4[k]);
}

/* Each contradiction is one sentence. */
static void test_bad_tensors(void **state)
{
    static const uint8_t nan8[] = {0x6E, 0xFF, 0x66, 0x7E, 0x5B, 0, 0, 0};
    static const int8_t wide[] = {7, -8, 8, 0}, zero_point = 1;
    static const uint32_t negative = 0xbb924925, infinite = 0x7f800000;
    static const uint8_t minus_one = 0xB8;
    static const float minus = -1;
    struct nb_err err;
    float row[16];
    struct reading r = fp8_channel;
    r.t[0].data = nan8;
    assert_int_equal(read_row(*state, &r, row, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "tensor 'p.weight' holds NaN");
    r = fp8_channel;
    r.t[1].data = &negative;
    assert_int_equal(read_row(*state, &r, row, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "tensor 'p.weight_scale': scale 0 is -0.00446429");
    r = int8_channel;
    r.t[1].data = &infinite;
    assert_int_equal(read_row(*state, &r, row, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "tensor 'p.weight_scale': scale 0 is inf");
    r = int8_channel;
    r.config = CONFIG("\"num_bits\":4,\"strategy\":\"channel\"", ",\"format\":\"int-quantized\"");
    r.t[0].data = wide;
    assert_int_equal(read_row(*state, &r, row, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "tensor 'p.weight' holds codes beyond 4 bits, -8 to 7");
    r = int8_channel;
    r.t[r.n++] = (struct fixture_tensor){"p.weight_zero_point", NB_I8, 2, {1, 1}, &zero_point};
    assert_int_equal(read_row(*state, &r, row, &err), NB_E_FORMAT);
    assert_string_equal(
        err.text, "tensor 'p.weight_zero_point' holds zero points, but the config says symmetric");
    r = nvfp4;
    r.t[1].data = &minus_one;
    assert_int_equal(read_row(*state, &r, row, &err), NB_E_FORMAT);
    r = nvfp4;
    r.t[2].data = &minus;
    assert_int_equal(read_row(*state, &r, row, &err), NB_E_FORMAT);
    assert_string_equal(err.text,
                        "tensor 'p.weight_global_scale' holds -1, expected a positive number");
    r = nvfp4;
    r.n = 2;
    assert_int_equal(read_row(*state, &r, row, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "tensor 'p.weight_global_scale' is missing");
    r = fp8_channel;
    r.config = CONFIG("\"num_bits\":8,\"strategy\":\"channel\"", ",\"format\":\"int-quantized\"");
    assert_int_equal(read_row(*state, &r, row, &err), NB_E_FORMAT);
    assert_string_equal(err.text,
                        "tensor 'p.weight' has type F8_E4M3, format compressed-tensors expects I8");
    r = int8_channel;
    r.t[1].shape[0] = 1;
    r.t[1].rank = 1;
    assert_int_equal(read_row(*state, &r, row, &err), NB_E_FORMAT);
    assert_string_equal(
        err.text,
        "tensor 'p.weight_scale' has shape [1], config and format compressed-tensors expect [1,1]");
}

static void test_shape_tensor(void **state)
{
    static const uint32_t words[] = {0x630DA741};
    static const uint16_t scale = 0x3c00;
    static const int64_t wrong[] = {8, 1};
    struct nb_err err;
    float row[8];
    const struct reading r = {CONFIG("\"num_bits\":4,\"strategy\":\"channel\"", ""),
                              1,
                              8,
                              {{"p.weight_packed", NB_I32, 2, {1, 1}, words},
                               {"p.weight_scale", NB_F16, 2, {1, 1}, &scale},
                               {"p.weight_shape", NB_I64, 1, {2}, wrong}},
                              3};
    assert_int_equal(read_row(*state, &r, row, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "tensor 'p.weight_shape' says [8,1], the config expects [1,8]");
}

/* Section 2.9's act-order under compressed-tensors' names. */
static void test_order(void **state)
{
    static const float want[] = {-2.5f, 1.0f, 0.5f, -2.0f, 1.75f, -0.5f, 0.0f, -3.5f};
    static const uint32_t packed = 0x187F09C3;
    static const uint16_t scales[] = {0x3800, 0x3400};
    static const uint32_t zeros[] = {8, 8};
    static const int64_t shape[] = {1, 8};
    static const int32_t order[] = {0, 1, 0, 1, 1, 0, 1, 0},
                         unset[] = {-1, -1, -1, -1, -1, -1, -1, -1},
                         beyond[] = {0, 1, 0, 1, 2, 0, 1, 0};
    static const char
        with[] = CONFIG(
            "\"num_bits\":4,\"group_size\":4,\"symmetric\":false,\"actorder\":\"group\"", ""),
        without[] = CONFIG(
            "\"num_bits\":4,\"group_size\":4,\"symmetric\":false,\"actorder\":\"static\"", "");
    struct reading r = {with,
                        1,
                        8,
                        {{"p.weight_packed", NB_I32, 2, {1, 1}, &packed},
                         {"p.weight_scale", NB_F16, 2, {1, 2}, scales},
                         {"p.weight_zero_point", NB_I32, 2, {1, 2}, zeros},
                         {"p.weight_shape", NB_I64, 1, {2}, shape},
                         {"p.weight_g_idx", NB_I32, 1, {8}, order}},
                        5};
    struct nb_err err;
    float row[8];
    assert_int_equal(read_row(*state, &r, row, &err), 0);
    for (int k = 0; k < 8; k++) assert_true(row[k] == want[k]);
    r.t[4].data = unset;
    assert_int_equal(read_row(*state, &r, row, &err), 0);
    r.t[4].data = beyond;
    assert_int_equal(read_row(*state, &r, row, &err), NB_E_FORMAT);
    assert_string_equal(err.text,
                        "tensor 'p.weight_g_idx': group 2 of input 4, there are 2 groups");
    r.t[4].data = order;
    r.config = without;
    assert_int_equal(read_row(*state, &r, row, &err), NB_E_FORMAT);
    assert_string_equal(
        err.text,
        "tensor 'p.weight_g_idx' orders the inputs, but the config says no actorder group");
}

/* ---- what may be written ---- */

static void test_can_write(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_qspec s = tiny_spec(4, 128, true);
    assert_int_equal(nb_checkpoint_ct.can_write(&s, 128, 256, false, &err), 0);
    s.scale_dtype = NB_BF16;
    assert_int_equal(nb_checkpoint_ct.can_write(&s, 128, 256, true, &err), 0);
    s.act = NB_ACT_INT8_OUTLIER;
    assert_int_equal(nb_checkpoint_ct.can_write(&s, 128, 256, false, &err), NB_E_SPEC);
    assert_non_null(strstr(err.text, "nearest: W8A8"));
    s.act = NB_ACT_FP8_TOKEN;
    assert_int_equal(nb_checkpoint_ct.can_write(&s, 128, 256, false, &err), 0); /* W4AFP8 */
    s = tiny_spec(5, 128, true);
    assert_int_equal(nb_checkpoint_ct.can_write(&s, 128, 256, false, &err), NB_E_SPEC);
    assert_string_equal(
        err.text, "compressed-tensors has no layout of 5 bits that loaders share; nearest: 4 bits");
    s = tiny_spec(4, 128, true);
    assert_int_equal(nb_checkpoint_ct.can_write(&s, 128, 192, false, &err), NB_E_SPEC);
    assert_string_equal(
        err.text,
        "compressed-tensors cannot cut 192 inputs in groups of 128; usable groups are 32, 64, "
        "-1 (per channel)");
    struct nb_qspec nf4 = {
        .elem = nb_elem_nf4, .group_rows = 1, .group_cols = 64, .scale_dtype = NB_F32};
    assert_int_equal(nb_checkpoint_ct.can_write(&nf4, 128, 128, false, &err), NB_E_SPEC);
    struct nb_qspec fp8 = {.elem = nb_elem_e4m3,
                           .group_rows = 128,
                           .group_cols = 128,
                           .scale_dtype = NB_F32,
                           .act = NB_ACT_FP8_GROUP,
                           .act_group = 128};
    assert_int_equal(nb_checkpoint_ct.can_write(&fp8, 160, 256, false, &err), 0);
    assert_int_equal(nb_checkpoint_ct.can_write(&fp8, 160, 192, false, &err), NB_E_SPEC);
}

/* What a float8 or float4 matrix cannot be: zero or negative scales, inputs of a static kind without their scale. */
static void test_pack_refuses(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_arena arena;
    struct nb_qmat q;
    struct nb_packed_tensor t[NB_MAX_PACKED];
    int n;
    struct nb_qspec fp8 = {
        .elem = nb_elem_e4m3, .group_rows = 1, .scale_dtype = NB_F32, .act = NB_ACT_FP8_STATIC};
    nb_arena_init(&arena);
    assert_int_equal(nb_qmat_init(&q, &fp8, 16, 16, &arena, &err), 0);
    assert_int_equal(nb_checkpoint_ct.pack(&q, NULL, &arena, t, &n, &err), NB_E_NUMERIC);
    assert_string_equal(err.text, "scale 0 of group 0 is not a finite F32 above 0");
    for (int i = 0; i < 16; i++) q.scale.value[i] = 1;
    assert_int_equal(nb_checkpoint_ct.pack(&q, NULL, &arena, t, &n, &err), NB_E_NUMERIC);
    assert_string_equal(err.text, "scale 0 of static inputs is not a finite number above 0");
    struct nb_qspec mx = {
        .elem = nb_elem_e2m1, .group_rows = 1, .group_cols = 32, .scale_dtype = NB_F8_E8M0};
    assert_int_equal(nb_qmat_init(&q, &mx, 1, 32, &arena, &err), 0);
    q.scale.value[0] = 3;
    assert_int_equal(nb_checkpoint_ct.pack(&q, NULL, &arena, t, &n, &err), NB_E_NUMERIC);
    assert_string_equal(err.text, "scale 3 of group 0 is not a finite F8_E8M0 above 0");
    q.scale.value[0] = 0x1p-127f;
    assert_int_equal(nb_checkpoint_ct.pack(&q, NULL, &arena, t, &n, &err), 0);
    assert_int_equal(*(uint8_t *)fixture_find(t, n, ".weight_scale")->data, 0);
    q.scale.value[0] = 0x1p127f;
    assert_int_equal(nb_checkpoint_ct.pack(&q, NULL, &arena, t, &n, &err), 0);
    assert_int_equal(*(uint8_t *)fixture_find(t, n, ".weight_scale")->data, 254);
    nb_arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_hashes),
        cmocka_unit_test(test_worked_example),
        cmocka_unit_test_setup_teardown(test_both_packings_of_3_bits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_tensors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shape_tensor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test(test_can_write),
        cmocka_unit_test(test_pack_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
