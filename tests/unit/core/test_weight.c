/* SPDX-License-Identifier: Apache-2.0
 *
 * test_weight.c - a row of a linear's weight, dense in any type or quantized. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/weight.h"

enum { ROWS = 3, COLS = 5 };

static void dense_rows(void **state)
{
    (void)state;
    static const enum nb_dtype types[] = {NB_F16, NB_BF16, NB_F32};
    float value[ROWS * COLS], out[COLS + 1];
    for (int i = 0; i < ROWS * COLS; i++)
        value[i] = (float)(i - 7) * 0.25f; /* exact in all three */
    for (size_t k = 0; k < 3; k++) {
        unsigned char raw[ROWS * COLS * 4 + 1];
        nb_from_f32(raw + 1, value, types[k], ROWS * COLS);
        struct nb_weight w = {.name = "w", .rows = ROWS, .cols = COLS};
        w.dense = (struct nb_tensor){.dtype = types[k], .rank = 2, .shape = {ROWS, COLS}};
        w.dense.data = (struct nb_span){raw + 1, ROWS * COLS * (size_t)nb_dtype_bits(types[k]) / 8};
        for (int64_t n = 0; n < ROWS; n++) {
            out[COLS] = 99;
            nb_weight_row(&w, n, out);
            assert_memory_equal(out, value + n * COLS, COLS * sizeof *out);
            assert_true(out[COLS] == 99);
        }
    }
}

static void quantized_rows(void **state)
{
    (void)state;
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct nb_qspec spec = {.elem = {.kind = NB_ELEM_INT, .bits = 4, .vec = 1},
                            .group_rows = 1,
                            .group_cols = 2,
                            .scale_dtype = NB_F16,
                            .zero = NB_ZERO_CODE};
    struct nb_qmat q;
    assert_int_equal(nb_qmat_init(&q, &spec, ROWS, COLS, &arena, NULL), 0);
    for (int i = 0; i < ROWS * COLS; i++) q.codes[i] = (uint8_t)i;
    for (int i = 0; i < ROWS * 3; i++) {
        q.scale.value[i] = (float)(i + 1);
        q.zero.value[i] = 8;
    }
    struct nb_weight w = {.name = "w", .rows = ROWS, .cols = COLS, .q = &q};
    float out[COLS];
    nb_weight_row(&w, 1, out); /* codes 5..9, scales 4 4 5 5 6 */
    static const float want[COLS] = {-12, -8, -5, 0, 6};
    assert_memory_equal(out, want, sizeof out);
    nb_arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_rows),
        cmocka_unit_test(quantized_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
