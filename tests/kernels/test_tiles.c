/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tiles.c - every level's tiles, packing and dot products against f64 and against plain
 * loops. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "levels.h"

static const enum nb_dtype types[] = {NB_F32, NB_F16, NB_BF16};

static void test_tile_f32(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    for (int l = 0; l < n; l++) {
        const struct nb_cpu_ops *ops = &levels[l].ops;
        const int mr = ops->mr, nr = ops->nr;
        for (int trial = 0; trial < 60; trial++) {
            int64_t k = (int64_t)nb_rng_below(&rng, 70), lda = mr + (int64_t)nb_rng_below(&rng, 3);
            int64_t ldb = nr + (int64_t)nb_rng_below(&rng, 3),
                    ldc = nr + (int64_t)nb_rng_below(&rng, 5);
            int rows = 1 + (int)nb_rng_below(&rng, (uint64_t)mr);
            bool add = trial & 1;
            size_t na = (size_t)(k * lda + 1), nb = (size_t)(k * ldb + 1),
                   nc = (size_t)((rows - 1) * ldc + nr);
            float *a = guarded_new(na), *b = guarded_new(nb), *c = guarded_new(nc);
            float *before = malloc(nc * sizeof *before);
            assert_non_null(before);
            fill_normal(&rng, a, na, 1);
            fill_normal(&rng, b, nb, 1);
            fill_normal(&rng, c, nc, 1);
            memcpy(before, c, nc * sizeof *c);
            ops->tile_f32(&(struct nb_tile_f32){k, a, lda, b, ldb, c, ldc, rows, add});
            for (int r = 0; r < rows; r++) {
                for (int64_t j = 0; j < (r == rows - 1 ? nr : ldc); j++) {
                    float old = before[r * ldc + j];
                    if (j >= nr) { /* between rows nothing is touched */
                        assert_true(c[r * ldc + j] == old);
                        continue;
                    }
                    double sum = 0, size = 0;
                    for (int64_t kk = 0; kk < k; kk++) {
                        double t = (double)a[kk * lda + r] * b[kk * ldb + j];
                        sum += t;
                        size += fabs(t);
                    }
                    if (add) sum += old;
                    assert_true(fabs(c[r * ldc + j] - sum) <=
                                2 * (double)(k + 1) * 0x1p-24 * (size + fabs((double)old)));
                }
            }
            guarded_check(c, nc);
            guarded_free(a, na);
            guarded_free(b, nb);
            guarded_free(c, nc);
            free(before);
        }
    }
}

/* A row's bits may not depend on how many rows share the tile. */
static void test_tile_rows_are_independent(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 2);
    enum { K = 200 };
    static float a[K * NB_TILE_MAX_MR], b[K * NB_TILE_MAX_NR];
    fill_normal(&rng, a, sizeof a / sizeof *a, 1);
    fill_normal(&rng, b, sizeof b / sizeof *b, 1);
    for (int l = 0; l < n; l++) {
        const struct nb_cpu_ops *ops = &levels[l].ops;
        float whole[NB_TILE_MAX_MR * NB_TILE_MAX_NR], part[NB_TILE_MAX_MR * NB_TILE_MAX_NR];
        ops->tile_f32(
            &(struct nb_tile_f32){K, a, ops->mr, b, ops->nr, whole, ops->nr, ops->mr, false});
        for (int rows = 1; rows < ops->mr; rows++) {
            ops->tile_f32(
                &(struct nb_tile_f32){K, a, ops->mr, b, ops->nr, part, ops->nr, rows, false});
            assert_memory_equal(part, whole, (size_t)(rows * ops->nr) * sizeof *part);
        }
    }
}

static void test_tile_f64(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 3);
    enum { K = 37 };
    static double a[K * NB_TILE_MAX_MR], b[K * NB_TILE_MAX_NR];
    for (size_t i = 0; i < sizeof a / sizeof *a; i++) a[i] = nb_rng_normal(&rng);
    for (size_t i = 0; i < sizeof b / sizeof *b; i++) b[i] = nb_rng_normal(&rng);
    for (int l = 0; l < n; l++) {
        const struct nb_cpu_ops *ops = &levels[l].ops;
        for (int rows = 1; rows <= ops->mr64; rows++) {
            double c[NB_TILE_MAX_MR * NB_TILE_MAX_NR];
            for (int i = 0; i < rows * ops->nr64; i++) c[i] = 1;
            ops->tile_f64(
                &(struct nb_tile_f64){K, a, ops->mr64, b, ops->nr64, c, ops->nr64, rows, true});
            for (int r = 0; r < rows; r++) {
                for (int j = 0; j < ops->nr64; j++) {
                    double sum = 1;
                    for (int k = 0; k < K; k++) sum += a[k * ops->mr64 + r] * b[k * ops->nr64 + j];
                    assert_true(fabs(c[r * ops->nr64 + j] - sum) < 1e-13);
                }
            }
        }
    }
}

/* What a panel packed from x must hold: vector r, element kk at x[r*row_step + kk*k_step]. */
struct packed {
    const float *x;
    int64_t row_step, k_step;
    int w, rows;
    int64_t k;
};

static float element_of(const struct packed *p, int r, int64_t kk)
{
    return r < p->rows && kk < p->k ? p->x[r * p->row_step + kk * p->k_step] : 0.0f;
}

static void check_f32(const float *panel, const struct packed *p)
{
    for (int64_t kk = 0; kk < p->k; kk++) {
        for (int r = 0; r < p->w; r++) assert_true(panel[kk * p->w + r] == element_of(p, r, kk));
    }
}

static void check_bf16(const float *panel, const struct packed *p)
{
    for (int64_t pair = 0; 2 * pair < p->k; pair++) {
        for (int r = 0; r < p->w; r++) {
            uint32_t want = nb_f32_to_bf16(element_of(p, r, 2 * pair)) |
                            (uint32_t)nb_f32_to_bf16(element_of(p, r, 2 * pair + 1)) << 16;
            assert_int_equal(nb_f32_bits(panel[pair * p->w + r]), want);
        }
    }
}

static void test_pack_rows(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 4);
    for (int l = 0; l < n; l++) {
        const struct nb_cpu_ops *ops = &levels[l].ops;
        for (int trial = 0; trial < 120; trial++) {
            enum nb_dtype type = types[trial % 3];
            int w = trial & 1 ? ops->mr : ops->nr, rows = 1 + (int)nb_rng_below(&rng, (uint64_t)w);
            int64_t k = 1 + (int64_t)nb_rng_below(&rng, 70),
                    ld = k + (int64_t)nb_rng_below(&rng, 4);
            size_t count = (size_t)((rows - 1) * ld + k), out = (size_t)(k * w) + NB_PACK_SLACK;
            float *x = malloc(count * sizeof *x), *panel = guarded_new(out);
            /* The source ends at a page that faults; a 16-bit one is given half the floats. */
            size_t source_floats = type == NB_F32 ? count : (count + 1) / 2;
            float *source = guarded_new(source_floats);
            unsigned char *src =
                (unsigned char *)(source + source_floats) - count * (type == NB_F32 ? 4 : 2);
            assert_non_null(x);
            fill_normal(&rng, x, count, 1);
            store_as(src, x, type, count);
            const struct nb_pack pack = {panel, w, src, type, ld, rows, k};
            const struct packed want = {x, ld, 1, w, rows, k};
            ops->pack_rows_f32(&pack);
            check_f32(panel, &want);
            if (ops->pack_rows_bf16) {
                ops->pack_rows_bf16(&pack);
                check_bf16(panel, &want);
            }
            guarded_check(panel, out);
            guarded_free(panel, out);
            guarded_free(source, source_floats);
            free(x);
        }
    }
}

static void test_pack_cols(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 5);
    for (int l = 0; l < n; l++) {
        const struct nb_cpu_ops *ops = &levels[l].ops;
        for (int trial = 0; trial < 60; trial++) {
            int w = trial & 1 ? ops->mr : ops->nr, rows = 1 + (int)nb_rng_below(&rng, (uint64_t)w);
            int64_t k = 1 + (int64_t)nb_rng_below(&rng, 30),
                    ld = rows + (int64_t)nb_rng_below(&rng, 4);
            size_t count = (size_t)((k - 1) * ld + rows), out = (size_t)(k * w) + NB_PACK_SLACK;
            float *x = guarded_new(count), *panel = guarded_new(out);
            fill_normal(&rng, x, count, 1);
            const struct nb_pack pack = {panel, w, x, NB_F32, ld, rows, k};
            const struct packed want = {x, 1, ld, w, rows, k};
            ops->pack_cols_f32(&pack);
            check_f32(panel, &want);
            if (ops->pack_cols_bf16) {
                ops->pack_cols_bf16(&pack);
                check_bf16(panel, &want);
            }
            guarded_check(panel, out);
            guarded_free(panel, out);
            guarded_free(x, count);
        }
    }
}

static void test_tile_bf16(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 7);
    enum { PAIRS = 37 };
    static float a[PAIRS * NB_TILE_MAX_MR], b[PAIRS * NB_TILE_MAX_NR],
        c[NB_TILE_MAX_MR * NB_TILE_MAX_NR];
    for (int l = 0; l < n; l++) {
        const struct nb_cpu_ops *ops = &levels[l].ops;
        if (!ops->tile_bf16) continue;
        for (int rows = 1; rows <= ops->mr; rows++) {
            for (int i = 0; i < PAIRS * ops->mr; i++) {
                a[i] = nb_f32_from_bits(nb_f32_to_bf16((float)nb_rng_normal(&rng)) |
                                        (uint32_t)nb_f32_to_bf16((float)nb_rng_normal(&rng)) << 16);
            }
            for (int i = 0; i < PAIRS * ops->nr; i++) {
                b[i] = nb_f32_from_bits(nb_f32_to_bf16((float)nb_rng_normal(&rng)) |
                                        (uint32_t)nb_f32_to_bf16((float)nb_rng_normal(&rng)) << 16);
            }
            for (int i = 0; i < rows * ops->nr; i++) c[i] = 2;
            ops->tile_bf16(
                &(struct nb_tile_f32){PAIRS, a, ops->mr, b, ops->nr, c, ops->nr, rows, true});
            for (int r = 0; r < rows; r++) {
                for (int j = 0; j < ops->nr; j++) {
                    double sum = 2, size = 2;
                    for (int p = 0; p < PAIRS; p++) {
                        uint32_t x = nb_f32_bits(a[p * ops->mr + r]),
                                 y = nb_f32_bits(b[p * ops->nr + j]);
                        double low =
                            (double)nb_bf16_to_f32((uint16_t)x) * nb_bf16_to_f32((uint16_t)y);
                        double high = (double)nb_bf16_to_f32((uint16_t)(x >> 16)) *
                                      nb_bf16_to_f32((uint16_t)(y >> 16));
                        sum += low + high;
                        size += fabs(low) + fabs(high);
                    }
                    assert_true(fabs(c[r * ops->nr + j] - sum) <= 4 * (PAIRS + 1) * 0x1p-24 * size);
                }
            }
        }
    }
}

static void test_pack_rows_f64(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    enum { K = 21, LD = 23 };
    static double x[NB_TILE_MAX_NR * LD];
    static double panel[NB_TILE_MAX_NR * K + NB_PACK_SLACK];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (double)i + 1;
    for (int l = 0; l < n; l++) {
        const struct nb_cpu_ops *ops = &levels[l].ops;
        for (int side = 0; side < 2; side++) {
            int w = side ? ops->mr64 : ops->nr64;
            for (int rows = 1; rows <= w; rows++) {
                for (int k = 1; k <= K; k++) {
                    ops->pack_rows_f64(&(struct nb_pack_f64){panel, w, x, LD, rows, k});
                    for (int kk = 0; kk < k; kk++) {
                        for (int r = 0; r < w; r++) {
                            assert_true(panel[kk * w + r] == (r < rows ? x[r * LD + kk] : 0.0));
                        }
                    }
                }
            }
        }
    }
}

static void test_dot(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 6);
    for (int l = 0; l < n; l++) {
        const struct nb_cpu_ops *ops = &levels[l].ops;
        for (int trial = 0; trial < 120; trial++) {
            enum nb_dtype type = types[trial % 3];
            int64_t k = 1 + (int64_t)nb_rng_below(&rng, 90),
                    rows = 1 + (int64_t)nb_rng_below(&rng, 9);
            int64_t m = 1 + trial % NB_DOT_MAX_M, ldx = k + 1,
                    ldw = k + (int64_t)nb_rng_below(&rng, 3), ldy = rows + 2;
            size_t nw = (size_t)((rows - 1) * ldw + k), nx = (size_t)((m - 1) * ldx + k);
            size_t ny = (size_t)((m - 1) * ldy + rows),
                   source_floats = type == NB_F32 ? nw : (nw + 1) / 2;
            float *w = malloc(nw * sizeof *w), *x = guarded_new(nx), *y = guarded_new(ny);
            float *source = guarded_new(source_floats);
            unsigned char *src =
                (unsigned char *)(source + source_floats) - nw * (type == NB_F32 ? 4 : 2);
            assert_non_null(w);
            fill_normal(&rng, w, nw, 1);
            fill_normal(&rng, x, nx, 1);
            store_as(src, w, type, nw);
            memset(y, 0, ny * sizeof *y);
            ops->dot(&(struct nb_dot){.x = x,
                                      .ldx = ldx,
                                      .m = m,
                                      .w = src,
                                      .type = type,
                                      .ldw = ldw,
                                      .rows = rows,
                                      .k = k,
                                      .y = y,
                                      .ldy = ldy});
            for (int64_t i = 0; i < m; i++) {
                for (int64_t r = 0; r < ldy && i * ldy + r < (int64_t)ny; r++) {
                    double sum = 0, size = 0;
                    for (int64_t kk = 0; kk < k && r < rows; kk++) {
                        double t = (double)x[i * ldx + kk] * w[r * ldw + kk];
                        sum += t;
                        size += fabs(t);
                    }
                    assert_true(fabs(y[i * ldy + r] - sum) <= 2 * (double)k * 0x1p-24 * size);
                }
            }
            guarded_check(y, ny);
            guarded_free(x, nx);
            guarded_free(y, ny);
            guarded_free(source, source_floats);
            free(w);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tile_f32),  cmocka_unit_test(test_tile_rows_are_independent),
        cmocka_unit_test(test_tile_f64),  cmocka_unit_test(test_pack_rows),
        cmocka_unit_test(test_pack_cols), cmocka_unit_test(test_pack_rows_f64),
        cmocka_unit_test(test_tile_bf16), cmocka_unit_test(test_dot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
