/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "checkpoint/bitpack.h"
#include "checkpoint/internal.h"
#include "fixture.h"
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

/* Formats document, section 8.1; equal to what autoawq 0.2.9 packs. */
static void test_published_hashes(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_arena arena;
    struct nb_qmat q;
    struct nb_packed_tensor t[NB_MAX_PACKED];
    int n;
    char hex[NB_SHA256_HEX];
    nb_arena_init(&arena);
    fixture_vector(&q, 4, &arena);
    assert_int_equal(nb_checkpoint_awq.pack(&q, NULL, &arena, t, &n, &err), 0);
    fixture_hash(t, n, ".qweight", hex);
    assert_string_equal(hex, "69cf8be89bf6b0041955b254e65b5d388a7ec072394b75c8c85873729465ba58");
    fixture_hash(t, n, ".qzeros", hex);
    assert_string_equal(hex, "38d85a45d463ecb89958b7b3b6d61d7687ab966d44a73e3cab1c918aa4763761");
    assert_int_equal(*(uint32_t *)fixture_find(t, n, ".qweight")->data, 0x81A07E80);
    assert_int_equal(*(uint32_t *)fixture_find(t, n, ".qzeros")->data, 0x98E11DEC);
    nb_arena_release(&arena);
}

static void fill_example(struct nb_qmat *q, struct nb_arena *arena)
{
    struct nb_err err;
    struct nb_qspec spec = tiny_spec(4, 8, false);
    assert_int_equal(nb_qmat_init(q, &spec, 8, 8, arena, &err), 0);
    for (int n = 0; n < 8; n++) {
        for (int k = 0; k < 8; k++) q->codes[8 * n + k] = (uint8_t)((3 * k + 5 * n + 1) % 16);
        q->zero.value[n] = (float)(n + 5);
        q->scale.value[n] = 0.5f;
    }
}

/* Section 3.6: the codes of 2.9. */
static void test_worked_example(void **state)
{
    (void)state;
    static const uint32_t want[] = {0x4A06F5B1, 0x7D3928E4, 0xA06C5B17, 0xD39F8E4A,
                                    0x06C2B17D, 0x39F5E4A0, 0x6C2817D3, 0x9F5B4A06};
    struct nb_err err;
    struct nb_arena arena;
    struct nb_qmat q;
    struct nb_packed_tensor t[NB_MAX_PACKED];
    int n;
    nb_arena_init(&arena);
    fill_example(&q, &arena);
    assert_int_equal(nb_checkpoint_awq.pack(&q, NULL, &arena, t, &n, &err), 0);
    assert_int_equal(n, 3);
    const struct nb_packed_tensor *p = fixture_find(t, n, ".qweight");
    assert_int_equal(p->shape[0], 8);
    assert_int_equal(p->shape[1], 1);
    assert_memory_equal(p->data, want, sizeof want);
    assert_int_equal(*(uint32_t *)fixture_find(t, n, ".qzeros")->data, 0xCA86B975);
    nb_arena_release(&arena);
}

/* gemv: the GPTQ words of 2.9, one row per output; one zero word per output whose first field counts. */
static void test_reads_gemv(void **state)
{
    static const uint32_t qweight[] = {0x630DA741, 0xB852FC96, 0x0DA741EB, 0x52FC9630,
                                       0xA741EB85, 0xFC9630DA, 0x41EB852F, 0x9630DA74};
    uint32_t qzeros[8 * 4];
    uint16_t scales[8 * 32];
    memset(qzeros, 0xff, sizeof qzeros); /* padding must not be read */
    memset(scales, 0xff, sizeof scales);
    for (int n = 0; n < 8; n++) {
        qzeros[4 * n] = 0xfffffff0u | (uint32_t)(n + 5);
        scales[32 * n] = 0x3800;
    }
    const struct fixture_tensor t[] = {
        {"p.qweight", NB_I32, 2, {8, 1}, qweight},
        {"p.qzeros", NB_I32, 2, {8, 4}, qzeros},
        {"p.scales", NB_F16, 2, {8, 32}, scales},
    };
    struct nb_model *m = fixture_open(*state,
                                      "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":8,"
                                      "\"zero_point\":true,\"version\":\"GEMV\"}",
                                      t, 3);
    struct nb_err err;
    struct nb_arena arena;
    struct nb_weight w;
    struct nb_qmat q;
    nb_arena_init(&arena);
    fill_example(&q, &arena);
    if (nb_model_module(m, &(struct nb_module_ref){"p", 8, 8}, &arena, &w, &err))
        fail_msg("%s", err.text);
    assert_memory_equal(w.q->codes, q.codes, 64);
    assert_memory_equal(w.q->zero.value, q.zero.value, 8 * sizeof(float));
    assert_memory_equal(w.q->scale.value, q.scale.value, 8 * sizeof(float));
    nb_arena_release(&arena);
    nb_model_close(m);
}

/* Stored zeros decide what is symmetric, since kernels always use them. */
static void test_zero_point_false(void **state)
{
    for (int wrong = 0; wrong < 2; wrong++) {
        struct nb_err err;
        struct nb_arena arena;
        struct nb_qmat q;
        struct nb_packed_tensor p[NB_MAX_PACKED];
        struct nb_qspec spec = tiny_spec(4, 32, true);
        int n;
        nb_arena_init(&arena);
        tiny_random_qmat(&q, &(struct tiny_matrix){.spec = spec, .rows = 32, .cols = 64, .seed = 1},
                         &arena);
        if (wrong) q.zero.value[5] = 7;
        assert_int_equal(nb_checkpoint_awq.pack(&q, NULL, &arena, p, &n, &err), 0);
        const struct fixture_tensor t[] = {
            {"p.qweight", NB_I32, 2, {64, 4}, p[0].data},
            {"p.qzeros", NB_I32, 2, {2, 4}, p[1].data},
            {"p.scales", NB_F16, 2, {2, 32}, p[2].data},
        };
        struct nb_model *m = fixture_open(*state,
                                          "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,"
                                          "\"zero_point\":false}",
                                          t, 3);
        struct nb_weight w;
        if (nb_model_module(m, &(struct nb_module_ref){"p", 32, 64}, &arena, &w, &err))
            fail_msg("%s", err.text);
        assert_int_equal(w.q->spec.symmetric, !wrong);
        assert_memory_equal(w.q->zero.value, q.zero.value, 64 * sizeof(float));
        nb_model_close(m);
        nb_arena_release(&arena);
    }
}

static void refuses_config(const char *text, int status, const char *sentence)
{
    struct nb_err err = {0};
    struct nb_model m = {.quant_config = nb_json_parse(text, strlen(text), 64, "q", &err)};
    void *s = NULL;
    assert_non_null(m.quant_config);
    assert_int_equal(nb_checkpoint_awq.parse(&m, &s, &err), status);
    assert_string_equal(err.text, sentence);
    assert_null(s);
    json_decref(m.quant_config);
}

static void test_configs(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{\"bits\":4,\"group_size\":128,\"zero_point\":true,\"version\":\"gemm\",\"modules_to_not_convert\":null}",
        "{\"zero_point\":true,\"q_group_size\":128,\"w_bit\":4,\"version\":\"GEMM\"}",
        "{\"bits\":4,\"group_size\":-1}",
        "{\"bits\":4,\"group_size\":64,\"checkpoint_format\":\"gemm\",\"format\":\"gemm\",\"sym\":true}",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct nb_err err;
        struct nb_model m = {.quant_config =
                                 nb_json_parse(good[i], strlen(good[i]), 64, "q", &err)};
        void *s;
        if (nb_checkpoint_awq.parse(&m, &s, &err)) fail_msg("%s", err.text);
        nb_checkpoint_awq.release(s);
        json_decref(m.quant_config);
    }
    refuses_config("{\"bits\":8,\"group_size\":128}", NB_E_SPEC,
                   "quantization config: awq with 8 bits cannot be read, only 4");
    refuses_config(
        "{\"bits\":4,\"group_size\":128,\"version\":\"gemv_fast\"}", NB_E_SPEC,
        "quantization config: awq version 'gemv_fast' cannot be read; readable are gemm and gemv");
    refuses_config(
        "{\"bits\":4,\"group_size\":128,\"version\":\"marlin\"}", NB_E_SPEC,
        "quantization config: awq version 'marlin' cannot be read; readable are gemm and gemv");
    refuses_config(
        "{\"bits\":4,\"group_size\":128,\"backend\":\"llm-awq\"}", NB_E_SPEC,
        "quantization config: awq version 'llm-awq' cannot be read; readable are gemm and gemv");
    refuses_config("{\"group_size\":128}", NB_E_FORMAT,
                   "quantization config: key 'bits' is missing");
    refuses_config("{\"bits\":4}", NB_E_FORMAT, "quantization config: key 'group_size' is missing");
    refuses_config("{\"bits\":4,\"group_size\":0}", NB_E_FORMAT,
                   "quantization config: group_size 0 is neither -1 nor a size");
    refuses_config("{\"bits\":4,\"group_size\":64,\"modules_to_not_convert\":\"gate\"}",
                   NB_E_FORMAT, "quantization config: modules_to_not_convert is no list of names");
    refuses_config("{\"bits\":\"4\",\"group_size\":64}", NB_E_FORMAT,
                   "quantization config: key 'bits': expected an integer, found a string");
}

static void test_pack_refuses(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_arena arena;
    struct nb_qmat q;
    struct nb_packed_tensor t[NB_MAX_PACKED];
    struct nb_qspec spec = tiny_spec(4, 32, false);
    int n;
    nb_arena_init(&arena);
    tiny_random_qmat(
        &q,
        &(struct tiny_matrix){.spec = spec, .rows = 32, .cols = 64, .act_order = true, .seed = 1},
        &arena);
    assert_int_equal(nb_checkpoint_awq.pack(&q, NULL, &arena, t, &n, &err), NB_E_SPEC);
    tiny_random_qmat(&q, &(struct tiny_matrix){.spec = spec, .rows = 32, .cols = 64, .seed = 1},
                     &arena);
    q.scale.value[3] = 1e-9f;
    assert_int_equal(nb_checkpoint_awq.pack(&q, NULL, &arena, t, &n, &err), NB_E_NUMERIC);
    q.scale.value[3] = 1;
    q.zero.value[3] = 16;
    assert_int_equal(nb_checkpoint_awq.pack(&q, NULL, &arena, t, &n, &err), NB_E_NUMERIC);
    assert_string_equal(err.text, "zero 16 of output 1 cannot be stored, possible are 0 to 15");
    nb_arena_release(&arena);
}

static void test_can_write_texts(void **state)
{
    (void)state;
    static const struct {
        int bits;
        int64_t group, rows, cols;
        bool desc_act;
        const char *text;
    } cases[] = {
        {3, 128, 64, 128, false, "awq has 4 bits only, not 3; nearest: 4 bits, or format gptq"},
        {4, -1, 64, 128, false,
         "awq cannot cut 128 inputs in groups of -1; usable groups are 32, 64, 128"},
        {4, 256, 64, 256, false,
         "awq cannot cut 256 inputs in groups of 256; usable groups are 32, 64, 128"},
        {4, 128, 64, 192, false,
         "awq cannot cut 192 inputs in groups of 128; usable groups are 32, 64"},
        {4, 64, 64, 100, false,
         "awq cannot cut 100 inputs in groups of 64; the layer must stay float (--ignore)"},
        {4, 64, 72, 128, false,
         "awq packs 32 outputs at a time: a linear with 72 outputs must stay float (--ignore), "
         "nearest size is 96"},
        {4, 64, 64, 128, true,
         "awq has no g_idx for act-order dynamic; nearest: act-order static or group"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_err err;
        struct nb_qspec s = tiny_spec(cases[i].bits, cases[i].group, false);
        assert_int_equal(
            nb_checkpoint_awq.can_write(&s, cases[i].rows, cases[i].cols, cases[i].desc_act, &err),
            NB_E_SPEC);
        assert_string_equal(err.text, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_hashes),
        cmocka_unit_test(test_worked_example),
        cmocka_unit_test_setup_teardown(test_reads_gemv, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zero_point_false, setup, teardown),
        cmocka_unit_test(test_configs),
        cmocka_unit_test(test_pack_refuses),
        cmocka_unit_test(test_can_write_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
