/* SPDX-License-Identifier: Apache-2.0
 *
 * test_block_hub.c - blocks to the hub and back: the same values, the same bytes, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "numeric/block.h"
#include "numeric/block_codec.h"

enum { ROWS = 5, COLS = 768, HUB_TYPES = 17 };

/* Random bytes, but finite f16 scales (of either sign, some subnormal, some -0). */
static void random_blocks(struct nb_rng *rng, const struct nb_block_type *t, unsigned char *b)
{
    const struct nb_block_codec *c = nb_block_codec_of(t);
    const int64_t n = ROWS * COLS / t->elems;
    for (int64_t i = 0; i < n * t->bytes; i++) b[i] = (unsigned char)nb_rng_below(rng, 256);
    for (int64_t i = 0; i < n; i++, b += t->bytes) {
        for (int k = 0; k < c->halves; k++) b[c->half[k] + 1] &= nb_rng_below(rng, 8) ? 0xbf : 0x83;
    }
}

static void check_type(struct nb_rng *rng, const struct nb_block_type *t)
{
    static unsigned char bytes[ROWS * COLS * 5], back[ROWS * COLS * 5];
    static float want[COLS], got[COLS];
    struct nb_arena arena;
    struct nb_err err = {0};
    struct nb_qmat q;
    nb_arena_init(&arena);
    random_blocks(rng, t, bytes);
    const size_t row = nb_block_row_bytes(t, COLS);
    const struct nb_blocks b = {t, bytes};
    if (nb_block_to_qmat(&b, ROWS, COLS, &q, &arena, &err)) fail_msg("%s: %s", t->name, err.text);
    for (int64_t r = 0; r < ROWS; r++) {
        t->decode(bytes + (size_t)r * row, want, COLS);
        nb_qmat_dequant_row(&q, r, got);
        if (memcmp(got, want, sizeof got) != 0) fail_msg("%s: row %d differs", t->name, (int)r);
    }
    memset(back, 0xa5, sizeof back);
    if (nb_block_from_qmat(t, &q, 0, ROWS, back, &err)) fail_msg("%s: %s", t->name, err.text);
    assert_memory_equal(back, bytes, ROWS * row);
    assert_int_equal(back[ROWS * row], 0xa5);
    memset(back, 0xa5, sizeof back);
    assert_int_equal(nb_block_from_qmat(t, &q, 3, 1, back, &err), 0);
    assert_memory_equal(back, bytes + 3 * row, row);
    assert_int_equal(back[row], 0xa5);
    nb_arena_release(&arena);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 11);
    int types = 0;
    for (int i = 0; nb_block_at(i); i++) {
        struct nb_qspec spec;
        const struct nb_block_type *t = nb_block_at(i);
        if (!nb_block_qspec(t, &spec)) continue;
        for (int trial = 0; trial < 3; trial++) check_type(&rng, t);
        types++;
    }
    assert_int_equal(types, HUB_TYPES);
}

/* The spec says the bits that the file has, and leads back to the type. */
static void test_specs(void **state)
{
    (void)state;
    char text[64];
    for (int i = 0; nb_block_at(i); i++) {
        struct nb_qspec spec;
        const struct nb_block_type *t = nb_block_at(i);
        if (!nb_block_qspec(t, &spec)) continue;
        const double bits = 8.0 * t->bytes / t->elems;
        if (nb_qspec_bits_per_weight(&spec, 7, 512) != bits)
            fail_msg("%s: not %g bits", t->name, bits);
        if (nb_block_for_qspec(&spec) != t) fail_msg("%s: its spec leads elsewhere", t->name);
    }
    struct nb_qspec spec;
    assert_true(nb_block_qspec(nb_block_find("Q4_K"), &spec));
    nb_qspec_describe(&spec, text, sizeof text);
    assert_string_equal(text, "int4 asym g32 scales int6 x8");
    spec.group_cols = 64;
    assert_null(nb_block_for_qspec(&spec));
    assert_false(nb_block_qspec(nb_block_find("IQ2_XS"), &spec));
    assert_false(nb_block_qspec(nb_block_find("TQ1_0"), &spec));
    assert_false(nb_block_qspec(nb_block_find("F16"), &spec));
}

/* A matrix of another container: symmetric 4-bit groups of 32 with stored zeros. */
static void test_foreign_matrix(void **state)
{
    (void)state;
    struct nb_arena arena;
    struct nb_err err = {0};
    struct nb_qmat q;
    unsigned char out[18];
    float want[32], got[32];
    nb_arena_init(&arena);
    struct nb_qspec spec = {.elem = {.kind = NB_ELEM_INT, .bits = 4, .vec = 1},
                            .group_rows = 1,
                            .group_cols = 32,
                            .scale_dtype = NB_F16,
                            .zero = NB_ZERO_CODE,
                            .symmetric = true};
    const struct nb_block_type *t = nb_block_for_qspec(&spec);
    assert_ptr_equal(t, nb_block_find("Q4_0"));
    assert_int_equal(nb_qmat_init(&q, &spec, 1, 32, &arena, &err), 0);
    for (int i = 0; i < 32; i++) q.codes[i] = (uint8_t)(i % 16);
    q.scale.value[0] = 0.25f;
    q.zero.value[0] = 8;
    assert_int_equal(nb_block_from_qmat(t, &q, 0, 1, out, &err), 0);
    nb_qmat_dequant_row(&q, 0, want);
    t->decode(out, got, 32);
    assert_memory_equal(got, want, sizeof got);
    q.zero.value[0] = 7;
    assert_int_equal(nb_block_from_qmat(t, &q, 0, 1, out, &err), NB_E_SPEC);
    assert_string_equal(err.text, "row 0 has a zero of 7, every one of Q4_0 is 8");
    q.zero.value[0] = 8;
    q.scale.value[0] = 0.1f;
    assert_int_equal(nb_block_from_qmat(t, &q, 0, 1, out, &err), NB_E_NUMERIC);
    assert_string_equal(err.text, "row 0: Q4_0 stores a factor of 0.1, which is no finite f16");
    static const int32_t order[32] = {0};
    q.col_group = order;
    assert_int_equal(nb_block_from_qmat(t, &q, 0, 1, out, &err), NB_E_SPEC);
    assert_string_equal(err.text, "Q4_0 cannot hold int4 sym g32 with 32 columns in another order");
    nb_arena_release(&arena);
}

/* Scales of e4m3 and e8m0 are found from their value when no byte was kept. */
static void test_float_scales(void **state)
{
    (void)state;
    static const char *const names[] = {"MXFP4", "NVFP4"};
    for (int i = 0; i < 2; i++) {
        const struct nb_block_type *t = nb_block_find(names[i]);
        struct nb_arena arena;
        struct nb_err err = {0};
        struct nb_qmat q;
        unsigned char b[36], back[36];
        nb_arena_init(&arena);
        for (int k = 0; k < t->bytes; k++) b[k] = (unsigned char)(k * 29 % 127);
        const struct nb_blocks blocks = {t, b};
        assert_int_equal(nb_block_to_qmat(&blocks, 1, t->elems, &q, &arena, &err), 0);
        q.scale.codes = NULL;
        assert_int_equal(nb_block_from_qmat(t, &q, 0, 1, back, &err), 0);
        assert_memory_equal(back, b, (size_t)t->bytes);
        q.scale.value[0] = 0.3f;
        assert_int_equal(nb_block_from_qmat(t, &q, 0, 1, back, &err), NB_E_NUMERIC);
        nb_arena_release(&arena);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    struct nb_arena arena;
    struct nb_err err = {0};
    struct nb_qmat q;
    unsigned char b[256] = {0};
    nb_arena_init(&arena);
    struct nb_blocks blocks = {nb_block_find("Q4_K"), b};
    assert_int_equal(nb_block_to_qmat(&blocks, 1, 128, &q, &arena, &err), NB_E_SPEC);
    assert_string_equal(err.text, "128 columns are no whole number of Q4_K blocks");
    blocks.type = nb_block_find("IQ3_S");
    assert_int_equal(nb_block_to_qmat(&blocks, 1, 256, &q, &arena, &err), NB_E_SPEC);
    assert_string_equal(err.text, "256 columns of IQ3_S: its codes cannot be taken out one by one");
    blocks.type = nb_block_find("Q4_K");
    assert_int_equal(nb_block_to_qmat(&blocks, 1, 256, &q, &arena, &err), 0);
    assert_int_equal(nb_block_from_qmat(nb_block_find("Q5_K"), &q, 0, 1, b, &err), NB_E_SPEC);
    assert_string_equal(err.text, "Q5_K cannot hold int4 asym g32 scales int6 x8 with 256 columns");
    q.scale.super[0] = 70000.0f;
    assert_int_equal(nb_block_from_qmat(blocks.type, &q, 0, 1, b, &err), NB_E_NUMERIC);
    nb_arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_specs),
        cmocka_unit_test(test_foreign_matrix), cmocka_unit_test(test_float_scales),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
