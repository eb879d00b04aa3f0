/* SPDX-License-Identifier: Apache-2.0 */
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

static void hash_of(const struct nb_checkpoint *c, int bits, const char *suffix,
                    char hex[NB_SHA256_HEX])
{
    struct nb_err err;
    struct nb_arena arena;
    struct nb_qmat q;
    struct nb_packed_tensor t[NB_MAX_PACKED];
    int n;
    nb_arena_init(&arena);
    fixture_vector(&q, bits, &arena);
    if (c->pack(&q, NULL, &arena, t, &n, &err)) fail_msg("%s", err.text);
    fixture_hash(t, n, suffix, hex);
    nb_arena_release(&arena);
}

/* Formats document, section 8.1; equal to what gptqmodel 7.7.0 packs. */
static void test_published_hashes(void **state)
{
    (void)state;
    static const struct {
        int bits;
        const char *qweight, *v2, *v1;
    } want[] = {
        {2, "7e832a2fa2433e13d05234cdfc76aea796e40d8b341afeb67881f3d08a7bc600",
         "ef55f70ec75eec13af658997416178d406e561e98e20014470c2c9740951c72f",
         "c06132d6911b1327722457936ed79bcdac9cf55f6de80b6ef47b2587c7195ba9"},
        {3, "00cab7539990e1cd5b9c640e0b7e57cf47a3d502c55d5d2b7dce3ebf00afb2dd",
         "e2c86a098109f01414fda5e64bdbf94c27992b03f07878c2e34107b7a91872eb",
         "0b64322dd5ecc9cb925126edd0444ca6a08b92615ce73063e08348a44dc3fe72"},
        {4, "453250af9cf0955e55063b1c343ad26f5a67ea827277bb44bf9bca2bb09ca8d4",
         "038ff9f1831ddf034cad389676bd21174b69551a5745ff008538eac19046cb7c",
         "f96a4e0915d127b2136a6b4a85c621eec4b44ce78a786bb467792baa13bf2e05"},
        {8, "e6ff537a75edabc4597079523f36d30132fd64fb8cb36db791bda2b2278f00b9",
         "d22d014916626840ae89919393336b948012c073d65d81a99e545e78951a9a70",
         "892bed5d8933c85006ed93bac4628b24f847df2e7e1448d6cc3a20d14a16a35b"},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        char hex[NB_SHA256_HEX];
        hash_of(&nb_checkpoint_gptq, want[i].bits, ".qweight", hex);
        assert_string_equal(hex, want[i].qweight);
        hash_of(&nb_checkpoint_gptq_v2, want[i].bits, ".qweight", hex);
        assert_string_equal(hex, want[i].qweight);
        hash_of(&nb_checkpoint_gptq_v2, want[i].bits, ".qzeros", hex);
        assert_string_equal(hex, want[i].v2);
        hash_of(&nb_checkpoint_gptq, want[i].bits, ".qzeros", hex);
        assert_string_equal(hex, want[i].v1);
    }
}

/* Section 2.9: u(k,n) = (3k + 5n + 1) mod 16, zeros n + 5. */
static void test_worked_example(void **state)
{
    (void)state;
    static const uint32_t qweight[] = {0x630DA741, 0xB852FC96, 0x0DA741EB, 0x52FC9630,
                                       0xA741EB85, 0xFC9630DA, 0x41EB852F, 0x9630DA74};
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
    assert_int_equal(nb_checkpoint_gptq.pack(&q, NULL, &arena, t, &count, &err), 0);
    assert_int_equal(count, 4);
    const struct nb_packed_tensor *p = fixture_find(t, count, ".qweight");
    assert_int_equal(p->shape[0], 1);
    assert_int_equal(p->shape[1], 8);
    assert_memory_equal(p->data, qweight, sizeof qweight);
    assert_int_equal(*(uint32_t *)fixture_find(t, count, ".qzeros")->data, 0xBA987654);
    assert_int_equal(*(uint16_t *)fixture_find(t, count, ".scales")->data, 0x3800);
    assert_int_equal(nb_checkpoint_gptq_v2.pack(&q, NULL, &arena, t, &count, &err), 0);
    assert_int_equal(*(uint32_t *)fixture_find(t, count, ".qzeros")->data, 0xCBA98765);
    nb_arena_release(&arena);
}

/* Section 2.3: constant words of symmetric zeros. */
static void test_symmetric_zero_words(void **state)
{
    (void)state;
    static const struct {
        int bits;
        uint32_t v2[3], v1[3];
    } want[] = {
        {2, {0xAAAAAAAA}, {0x55555555}},
        {3, {0x24924924, 0x49249249, 0x92492492}, {0xDB6DB6DB, 0xB6DB6DB6, 0x6DB6DB6D}},
        {4, {0x88888888}, {0x77777777}},
        {8, {0x80808080}, {0x7F7F7F7F}},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        struct nb_err err;
        struct nb_arena arena;
        struct nb_qmat q;
        struct nb_packed_tensor t[NB_MAX_PACKED];
        struct nb_qspec spec = tiny_spec(want[i].bits, 32, true);
        int n;
        size_t bytes = want[i].bits == 3 ? 12 : 4;
        nb_arena_init(&arena);
        tiny_random_qmat(&q, &(struct tiny_matrix){.spec = spec, .rows = 32, .cols = 32, .seed = 1},
                         &arena);
        assert_int_equal(nb_checkpoint_gptq.pack(&q, NULL, &arena, t, &n, &err), 0);
        assert_memory_equal(fixture_find(t, n, ".qzeros")->data, want[i].v1, bytes);
        assert_int_equal(nb_checkpoint_gptq_v2.pack(&q, NULL, &arena, t, &n, &err), 0);
        assert_memory_equal(fixture_find(t, n, ".qzeros")->data, want[i].v2, bytes);
        nb_arena_release(&arena);
    }
}

/* Section 2.9, desc_act: K = 8, groups of 4, one output. */
static const uint32_t act_qweight = 0x187F09C3, act_qzeros[2] = {7, 7};
static const uint16_t act_scales[2] = {0x3800, 0x3400};
static const int32_t act_g_idx[8] = {0, 1, 0, 1, 1, 0, 1, 0};

static const struct fixture_tensor act_tensors[] = {
    {"p.qweight", NB_I32, 2, {1, 1}, &act_qweight},
    {"p.qzeros", NB_I32, 2, {2, 1}, act_qzeros},
    {"p.scales", NB_F16, 2, {2, 1}, act_scales},
    {"p.g_idx", NB_I32, 1, {8}, act_g_idx},
};

static void check_row(const struct nb_model *m, const float *want)
{
    struct nb_err err;
    struct nb_arena arena;
    struct nb_weight w;
    float row[8];
    nb_arena_init(&arena);
    if (nb_model_module(m, &(struct nb_module_ref){"p", 1, 8}, &arena, &w, &err))
        fail_msg("%s", err.text);
    nb_weight_row(&w, 0, row);
    for (int k = 0; k < 8; k++) assert_true(row[k] == want[k]);
    nb_arena_release(&arena);
}

static void test_desc_act(void **state)
{
    static const float want[] = {-2.5f, 1.0f, 0.5f, -2.0f, 1.75f, -0.5f, 0.0f, -3.5f};
    struct nb_model *m =
        fixture_open(*state,
                     "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":4,\"desc_act\":true,"
                     "\"sym\":false}",
                     act_tensors, 4);
    check_row(m, want);
    nb_model_close(m);
    /* g_idx is obeyed whatever desc_act says */
    m = fixture_open(*state,
                     "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":4,\"desc_act\":false}",
                     act_tensors, 4);
    check_row(m, want);
    nb_model_close(m);
}

static void test_without_g_idx(void **state)
{
    static const float want[] = {-2.5f, 2.0f, 0.5f, -4.0f, 1.75f, -0.25f, 0.0f, -1.75f};
    struct nb_model *m = fixture_open(
        *state, "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":4,\"desc_act\":false}",
        act_tensors, 3);
    check_row(m, want);
    nb_model_close(m);
    m = fixture_open(*state,
                     "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":4,\"desc_act\":true}",
                     act_tensors, 3);
    struct nb_err err;
    assert_int_equal(m->checkpoint->check(m, "p", 1, 8, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "tensor 'p.g_idx' is missing");
    nb_model_close(m);
}

/* A short last group is read, though not written. */
static void test_tail_group(void **state)
{
    struct nb_err err;
    struct nb_arena arena;
    struct nb_qmat q;
    struct nb_weight w;
    struct nb_packed_tensor p[NB_MAX_PACKED];
    struct nb_qspec spec = tiny_spec(4, 64, false);
    int n;
    nb_arena_init(&arena);
    tiny_random_qmat(
        &q, &(struct tiny_matrix){.spec = spec, .rows = 32, .cols = 96, .zero_min = 1, .seed = 1},
        &arena);
    assert_int_equal(q.n_groups, 2);
    assert_int_equal(nb_checkpoint_gptq.pack(&q, NULL, &arena, p, &n, &err), 0);
    const struct fixture_tensor t[] = {
        {"p.qweight", NB_I32, 2, {12, 32}, p[0].data},
        {"p.qzeros", NB_I32, 2, {2, 4}, p[1].data},
        {"p.scales", NB_F16, 2, {2, 32}, p[2].data},
        {"p.g_idx", NB_I32, 1, {96}, p[3].data},
    };
    struct nb_model *m = fixture_open(
        *state, "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":64,\"sym\":false}", t, 4);
    if (nb_model_module(m, &(struct nb_module_ref){"p", 32, 96}, &arena, &w, &err))
        fail_msg("%s", err.text);
    assert_null(w.q->col_group);
    for (int64_t r = 0; r < 32; r++) {
        float a[96], b[96];
        nb_qmat_dequant_row(&q, r, a);
        nb_weight_row(&w, r, b);
        assert_memory_equal(a, b, sizeof a);
    }
    nb_model_close(m);
    nb_arena_release(&arena);
}

static void test_bad_g_idx(void **state)
{
    int32_t bad[8];
    struct fixture_tensor t[4];
    memcpy(t, act_tensors, sizeof t);
    t[3].data = bad;
    for (int variant = 0; variant < 2; variant++) {
        memcpy(bad, act_g_idx, sizeof bad);
        bad[5] = variant ? -1 : 2;
        struct nb_model *m =
            fixture_open(*state, "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":4}", t, 4);
        struct nb_err err;
        struct nb_arena arena;
        struct nb_weight w;
        nb_arena_init(&arena);
        assert_int_equal(nb_model_module(m, &(struct nb_module_ref){"p", 1, 8}, &arena, &w, &err),
                         NB_E_FORMAT);
        assert_string_equal(err.text,
                            variant ? "tensor 'p.g_idx': group -1 of input 5, there are 2 groups"
                                    : "tensor 'p.g_idx': group 2 of input 5, there are 2 groups");
        nb_arena_release(&arena);
        nb_model_close(m);
    }
}

/* Zeros of one asymmetric group of 8 outputs as read from one stored word. */
static void read_zeros(const char *dir, const char *config, uint32_t word, float zeros[8])
{
    uint32_t qweight[8] = {0};
    uint16_t scales[8];
    for (int i = 0; i < 8; i++) scales[i] = 0x3c00;
    const struct fixture_tensor t[] = {
        {"p.qweight", NB_I32, 2, {1, 8}, qweight},
        {"p.qzeros", NB_I32, 2, {1, 1}, &word},
        {"p.scales", NB_F16, 2, {1, 8}, scales},
    };
    struct nb_model *m = fixture_open(dir, config, t, 3);
    struct nb_err err;
    struct nb_arena arena;
    struct nb_weight w;
    nb_arena_init(&arena);
    if (nb_model_module(m, &(struct nb_module_ref){"p", 8, 8}, &arena, &w, &err))
        fail_msg("%s", err.text);
    memcpy(zeros, w.q->zero.value, 8 * sizeof *zeros);
    nb_arena_release(&arena);
    nb_model_close(m);
}

/* Section 2.3: zeros [0,8,8,8,8,8,8,8] as the three families of programs store them. */
static void test_zero_conventions(void **state)
{
    static const float want[8] = {0, 8, 8, 8, 8, 8, 8, 8};
    static const struct {
        const char *config;
        uint32_t word;
    } files[] = {
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":-1,\"sym\":false,\"checkpoint_format\":\"gptq_v2\"}",
         0x88888880},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":-1,\"sym\":false}", 0x7777777F},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":-1,\"sym\":false,"
         "\"meta\":{\"quantizer\":[\"gptqmodel:7.7.0\"]}}",
         0x7777776F},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":-1,\"sym\":false,"
         "\"meta\":{\"quantizer\":\"gptqmodel:1.0\"}}",
         0x7777776F},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        float zeros[8];
        read_zeros(*state, files[i].config, files[i].word, zeros);
        assert_memory_equal(zeros, want, sizeof want);
    }
}

static void test_contradicting_zeros_are_noted(void **state)
{
    const char *dir = *state;
    static const char *const want[] = {
        "",
        "the config says gptq, but qzeros of 'model.layers.0.self_attn.q_proj' begins with 88888888, as the other "
        "version writes it; read as symmetric all the same",
        "the config says gptq and symmetric, but qzeros of 'model.layers.0.self_attn.q_proj' begins with 12345678, "
        "which is not symmetric; zeros are ignored",
    };
    static const uint32_t first[] = {0x77777777, 0x88888888, 0x12345678};
    for (int i = 0; i < 3; i++) {
        struct nb_err err;
        struct nb_arena arena;
        struct nb_qmat q;
        struct nb_qspec spec = tiny_spec(4, 32, true);
        struct tiny_packed p = {.path = "model.layers.0.self_attn.q_proj"};
        nb_arena_init(&arena);
        tiny_random_qmat(
            &q, &(struct tiny_matrix){.spec = spec, .rows = 128, .cols = 128, .seed = 1}, &arena);
        assert_int_equal(nb_checkpoint_gptq.pack(&q, NULL, &arena, p.tensor, &p.n, &err), 0);
        *(uint32_t *)p.tensor[1].data = first[i];
        json_t *quant = json_pack("{s:s, s:i, s:i, s:b}", "quant_method", "gptq", "bits", 4,
                                  "group_size", 32, "sym", 1);
        struct tiny_opts o = {.quant_config = quant, .packed = &p, .n_packed = 1};
        tiny_write(dir, &o);
        struct nb_model *m;
        if (nb_model_open(&m, dir, &err)) fail_msg("%s", err.text);
        assert_string_equal(m->note, want[i]);
        struct nb_weight w;
        assert_int_equal(
            nb_model_module(m, &(struct nb_module_ref){p.path, 128, 128}, &arena, &w, &err), 0);
        for (int64_t z = 0; z < 128 * 4; z++) assert_true(w.q->zero.value[z] == 8);
        nb_model_close(m);
        json_decref(quant);
        nb_arena_release(&arena);
    }
}

static void test_wrong_tensors(void **state)
{
    struct nb_err err;
    struct fixture_tensor t[4];
    const char *config = "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":4}";
    memcpy(t, act_tensors, sizeof t);
    t[2].dtype = NB_I16;
    struct nb_model *m = fixture_open(*state, config, t, 4);
    assert_int_equal(m->checkpoint->check(m, "p", 1, 8, &err), NB_E_FORMAT);
    assert_string_equal(err.text,
                        "tensor 'p.scales' has type I16, format gptq expects F16, BF16 or F32");
    assert_int_equal(m->checkpoint->check(m, "p", 1, 16, &err), NB_E_FORMAT);
    assert_string_equal(err.text,
                        "tensor 'p.qweight' has shape [1,1], config and format gptq expect [2,1]");
    assert_int_equal(m->checkpoint->check(m, "x", 1, 8, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "tensor 'x.qweight' is missing");
    nb_model_close(m);
}

/* What the file cannot hold is refused at packing, never rounded. */
static void test_pack_refuses(void **state)
{
    (void)state;
    static const struct {
        float scale, zero;
        int sym;
        const char *text;
    } bad[] = {
        {0.1f, 8, 0, "scale 0.1 of output 3, group 1 is not a finite F16 other than 0"},
        {0, 8, 0, "scale 0 of output 3, group 1 is not a finite F16 other than 0"},
        {1e6f, 8, 0, "scale 1e+06 of output 3, group 1 is not a finite F16 other than 0"},
        {0.5f, 0, 0,
         "zero 0 of output 3 cannot be stored, possible are 1 to 15; gptq_v2 and awq hold zero 0"},
        {0.5f, 16, 0, "zero 16 of output 3 cannot be stored, possible are 1 to 15"},
        {0.5f, 7.5f, 0, "zero 7.5 of output 3 cannot be stored, possible are 1 to 15"},
        {0.5f, 7, 1, "zero 7 of output 3 in a symmetric matrix, expected 8"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct nb_err err;
        struct nb_arena arena;
        struct nb_qmat q;
        struct nb_packed_tensor t[NB_MAX_PACKED];
        struct nb_qspec spec = tiny_spec(4, 32, bad[i].sym);
        int n;
        nb_arena_init(&arena);
        tiny_random_qmat(
            &q,
            &(struct tiny_matrix){.spec = spec, .rows = 32, .cols = 64, .zero_min = 1, .seed = 1},
            &arena);
        q.scale.value[3 * 2 + 1] = bad[i].scale;
        q.zero.value[3 * 2 + 1] = bad[i].zero;
        assert_int_equal(nb_checkpoint_gptq.pack(&q, NULL, &arena, t, &n, &err), NB_E_NUMERIC);
        assert_string_equal(err.text, bad[i].text);
        nb_arena_release(&arena);
    }
}

static void test_can_write_texts(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_qspec s = tiny_spec(5, 128, true);
    assert_int_equal(nb_checkpoint_gptq.can_write(&s, 128, 128, false, &err), NB_E_SPEC);
    assert_string_equal(err.text, "gptq has no 5-bit layout that loaders share; nearest: 4 bits");
    s = tiny_spec(4, 96, true);
    assert_int_equal(nb_checkpoint_gptq.can_write(&s, 128, 192, false, &err), NB_E_SPEC);
    assert_string_equal(
        err.text,
        "gptq cannot cut 192 inputs in groups of 96; usable groups are 32, 64, -1 (per channel)");
    s = tiny_spec(4, 128, true);
    assert_int_equal(nb_checkpoint_gptq.can_write(&s, 128, 192, false, &err), NB_E_SPEC);
    assert_string_equal(
        err.text,
        "gptq cannot cut 192 inputs in groups of 128; usable groups are 32, 64, -1 (per channel)");
    s = tiny_spec(4, 128, true);
    assert_int_equal(nb_checkpoint_gptq.can_write(&s, 100, 128, false, &err), NB_E_SPEC);
    assert_string_equal(
        err.text,
        "gptq packs 32 codes at a time: a linear of 100 x 128 must stay float (--ignore), "
        "nearest sizes are 128 x 128");
    assert_int_equal(nb_checkpoint_gptq.can_write(&s, 64, 384, true, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_hashes),
        cmocka_unit_test(test_worked_example),
        cmocka_unit_test(test_symmetric_zero_words),
        cmocka_unit_test_setup_teardown(test_desc_act, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_g_idx, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tail_group, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_g_idx, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zero_conventions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_contradicting_zeros_are_noted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_tensors, setup, teardown),
        cmocka_unit_test(test_pack_refuses),
        cmocka_unit_test(test_can_write_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
