/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gemm_blocks.c - linears whose weight lies in GGUF blocks: every type equals the dense linear on the
 * decoded matrix to the last bit, at every level, and nothing is packed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "make.h"
#include "numeric/block.h"

struct shape {
    int64_t m, n, k;
};

/* Random bytes would hold infinities: floats are encoded, the codebook types get small scales. */
static unsigned char *make_blocks(struct nb_rng *rng, const struct nb_block_type *t, int64_t rows,
                                  int64_t cols)
{
    const size_t row = nb_block_row_bytes(t, cols);
    unsigned char *b = nb_alloc((size_t)rows, row);
    struct nb_err err = {0};
    assert_non_null(b);
    for (int64_t r = 0; r < rows; r++) {
        unsigned char *at = b + (size_t)r * row;
        if (nb_block_can_encode(t)) {
            float *x = make_normal(rng, (size_t)cols);
            if (nb_block_encode(t, x, NULL, cols, at, &err)) fail_msg("%s: %s", t->name, err.text);
            nb_free(x);
            continue;
        }
        for (size_t i = 0; i < row; i++) at[i] = (unsigned char)nb_rng_below(rng, 256);
        for (size_t i = 0; i < row; i += (size_t)t->bytes) {
            at[i + 1] &= 0x2f;                                     /* d first */
            if (strcmp(t->name, "IQ1_M") == 0) at[i + 55] &= 0x2f; /* d last */
        }
    }
    return b;
}

static void check(struct made *made, struct nb_rng *rng, const struct nb_block_type *t,
                  struct shape s)
{
    struct nb_err err = {0};
    struct nb_weight w = {.name = "test", .rows = s.n, .cols = s.k};
    unsigned char *blocks = make_blocks(rng, t, s.n, s.k);
    float *dense = nb_alloc((size_t)(s.n * s.k), sizeof *dense);
    float *x = make_normal(rng, (size_t)(s.m * s.k));
    float *y = nb_alloc((size_t)(s.m * s.n), sizeof *y),
          *want = nb_alloc((size_t)(s.m * s.n), sizeof *want);
    w.blocks = (struct nb_blocks){t, blocks};
    for (int64_t r = 0; r < s.n; r++) nb_weight_row(&w, r, dense + r * s.k);
    const struct nb_fmat matrix = {.data = dense, .rows = s.n, .cols = s.k, .ld = s.k};
    struct nb_linear lin, plain;
    if (nb_linear_init(&lin, made->be, &w, &err)) fail_msg("%s: %s", t->name, err.text);
    if (nb_linear_init_f32(&plain, made->be, "test", &matrix, NULL, &err)) fail_msg("%s", err.text);
    assert_string_equal(nb_linear_kernel_name(&lin), "blocks");
    assert_null(lin.packed);
    nb_linear_run(made->be, &(struct nb_linear_out){&lin, y, s.n}, x, s.m, s.k);
    nb_linear_run(made->be, &(struct nb_linear_out){&plain, want, s.n}, x, s.m, s.k);
    if (memcmp(y, want, (size_t)(s.m * s.n) * sizeof *y) != 0)
        fail_msg("%s: %d x %d x %d differs", t->name, (int)s.m, (int)s.n, (int)s.k);
    nb_linear_release(&lin);
    nb_linear_release(&plain);
    nb_free(blocks);
    nb_free(dense);
    nb_free(x);
    nb_free(y);
    nb_free(want);
}

static void test_every_type(void **state)
{
    (void)state;
    static const int64_t ms[] = {1, 2, 4, 5, 19, 171}, ns[] = {1, 7, 33, 130};
    struct nb_rng rng;
    nb_rng_init(&rng, 8);
    const char *const *levels = make_levels();
    for (int l = 0; levels[l]; l++) {
        struct made made = make_backend(levels[l], 2);
        for (int i = 0; nb_block_at(i); i++) {
            const struct nb_block_type *t = nb_block_at(i);
            for (int trial = 0; trial < 3; trial++) {
                const int64_t unit = t->elems == 1 ? 32 : t->elems;
                const struct shape s = {
                    ms[nb_rng_below(&rng, 6)], ns[nb_rng_below(&rng, 4)],
                    unit * (1 + (int64_t)nb_rng_below(&rng, (uint64_t)(1024 / unit)))};
                check(&made, &rng, t, s);
            }
        }
        make_release(&made);
    }
}

/* Rows longer than the scratch of the dot path go through tiles. */
static void test_long_rows(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 9);
    struct made made = make_backend(NULL, 1);
    check(&made, &rng, nb_block_find("Q8_0"), (struct shape){2, 3, 65536});
    check(&made, &rng, nb_block_find("Q8_0"), (struct shape){2, 3, 65536 + 32});
    make_release(&made);
}

static void test_refusal(void **state)
{
    (void)state;
    struct nb_err err = {0};
    struct made made = make_backend("generic", 1);
    unsigned char b[144] = {0};
    struct nb_weight w = {.name = "blk.0.x", .rows = 1, .cols = 100};
    struct nb_linear lin;
    w.blocks = (struct nb_blocks){nb_block_find("Q4_K"), b};
    assert_int_equal(nb_linear_init(&lin, made.be, &w, &err), NB_E_SPEC);
    assert_string_equal(err.text, "blk.0.x: no kernel multiplies by Q4_K weights");
    make_release(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_long_rows),
        cmocka_unit_test(test_refusal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
