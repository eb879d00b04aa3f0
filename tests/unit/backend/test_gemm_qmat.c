/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gemm_qmat.c - every way of decoding and of sharing scales equals the dense linear on the dequantized
 * matrix to the last bit, at every level; codes stay packed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "make.h"
#include "numeric/elems.h"

struct shape {
    int64_t m, n, k;
};

static struct nb_qmat *make(struct nb_rng *rng, struct nb_arena *arena, const struct nb_qspec *spec,
                            struct shape s)
{
    struct nb_err err = {0};
    struct nb_qmat *q = nb_arena_calloc(arena, 1, sizeof *q);
    if (nb_qmat_init(q, spec, s.n, s.k, arena, &err)) fail_msg("%s", err.text);
    for (int64_t i = 0; i < s.n * s.k; i++) {
        q->codes[i] = (uint8_t)nb_rng_below(rng, 1u << spec->elem.bits);
        if (spec->elem.kind == NB_ELEM_FLOAT && spec->elem.bits == 8 &&
            (q->codes[i] & 0x7c) == 0x7c) /* E4M3 has NaN there, E5M2 infinities too */
            q->codes[i] &= 0xbf;
    }
    for (int64_t i = 0; i < nb_qmat_planes(q); i++) {
        q->scale.value[i] = (float)nb_rng_normal(rng) * 0.1f;
        if (q->zero.value) q->zero.value[i] = (float)nb_rng_below(rng, 1u << spec->elem.bits);
    }
    return q;
}

static void check(struct made *made, struct nb_rng *rng, const struct nb_qspec *spec,
                  struct shape s)
{
    struct nb_err err = {0};
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct nb_weight w = {.name = "test", .rows = s.n, .cols = s.k};
    w.q = make(rng, &arena, spec, s);
    float *dense = nb_alloc((size_t)(s.n * s.k), sizeof *dense);
    float *x = make_normal(rng, (size_t)(s.m * s.k));
    float *y = nb_alloc((size_t)(s.m * s.n), sizeof *y),
          *want = nb_alloc((size_t)(s.m * s.n), sizeof *want);
    for (int64_t r = 0; r < s.n; r++) nb_qmat_dequant_row(w.q, r, dense + r * s.k);
    struct nb_linear lin, plain;
    const struct nb_fmat matrix = {.data = dense, .rows = s.n, .cols = s.k, .ld = s.k};
    if (nb_linear_init(&lin, made->be, &w, &err)) fail_msg("%s", err.text);
    if (nb_linear_init_f32(&plain, made->be, "test", &matrix, NULL, &err)) fail_msg("%s", err.text);
    assert_string_equal(nb_linear_kernel_name(&lin), "qmat");
    nb_arena_release(&arena);
    nb_linear_run(made->be, &(struct nb_linear_out){&lin, y, s.n}, x, s.m, s.k);
    nb_linear_run(made->be, &(struct nb_linear_out){&plain, want, s.n}, x, s.m, s.k);
    if (memcmp(y, want, (size_t)(s.m * s.n) * sizeof *y) != 0) {
        char text[64];
        nb_qspec_describe(spec, text, sizeof text);
        fail_msg("%s: %d x %d x %d differs", text, (int)s.m, (int)s.n, (int)s.k);
    }
    nb_linear_release(&lin);
    nb_linear_release(&plain);
    nb_free(dense);
    nb_free(x);
    nb_free(y);
    nb_free(want);
}

static void test_elements_and_groups(void **state)
{
    (void)state;
    static const float odd[8] = {-4, -1, -0.5f, 0, 0.25f, 1, 3, 7}, table[256] = {1, 2, 3, -1};
    const struct nb_elem elems[] = {
        nb_elem_nf4,
        nb_elem_fp4,
        nb_elem_e4m3,
        nb_elem_e2m1,
        {.kind = NB_ELEM_FLOAT, .bits = 8, .exp = 5, .man = 2, .vec = 1},
        {.kind = NB_ELEM_FLOAT, .bits = 6, .exp = 3, .man = 2, .vec = 1},
        {.kind = NB_ELEM_TABLE, .bits = 3, .vec = 1, .table = odd},
        {.kind = NB_ELEM_TABLE, .bits = 8, .vec = 1, .table = table},
        {.kind = NB_ELEM_INT, .bits = 8, .vec = 1},
        {.kind = NB_ELEM_INT, .bits = 4, .vec = 1},
    };
    static const struct {
        int64_t rows, cols;
        bool flat;
    } groups[] = {{1, 64, true},  {1, 64, false},    {1, 0, false},  {INT64_MAX, 0, false},
                  {4, 48, false}, {128, 128, false}, {1, 16, false}, {1, 4096, true}};
    static const int64_t ms[] = {1, 3, 5, 40}, ks[] = {77, 130, 256, 300, 1100};
    struct nb_rng rng;
    nb_rng_init(&rng, 21);
    const char *const *levels = make_levels();
    for (int l = 0; levels[l]; l++) {
        struct made made = make_backend(levels[l], 2);
        for (size_t e = 0; e < sizeof elems / sizeof *elems; e++) {
            for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
                const struct nb_qspec spec = {.elem = elems[e],
                                              .group_rows = groups[g].rows,
                                              .group_cols = groups[g].cols,
                                              .flat = groups[g].flat,
                                              .scale_dtype = NB_F32,
                                              .zero = elems[e].kind == NB_ELEM_INT ? NB_ZERO_CODE
                                                                                   : NB_ZERO_NONE};
                check(&made, &rng, &spec,
                      (struct shape){ms[nb_rng_below(&rng, 4)], 1 + (int64_t)nb_rng_below(&rng, 70),
                                     ks[nb_rng_below(&rng, 5)]});
            }
        }
        make_release(&made);
    }
}

/* Scales of a flat matrix stand for weights of two rows. */
static void test_flat_groups_cross_rows(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 22);
    struct made made = make_backend(NULL, 1);
    const struct nb_qspec spec = {
        .elem = nb_elem_nf4, .group_cols = 100, .flat = true, .scale_dtype = NB_F32};
    for (int64_t k = 1; k < 260; k += 13)
        check(&made, &rng, &spec, (struct shape){2, 9, k < 100 ? k + 100 : k});
    make_release(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elements_and_groups),
        cmocka_unit_test(test_flat_groups_cross_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
