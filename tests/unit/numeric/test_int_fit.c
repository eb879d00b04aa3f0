/* SPDX-License-Identifier: Apache-2.0
 *
 * test_int_fit.c - the clip search against tabulated errors (algorithms, section 14) and brute force. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/rng.h"
#include "numeric/numeric.h"

enum { MOST = 4096 };

enum grid { SYM, FULL, FULL_CLIP, SYM_CLIP, ASYM, ASYM_CLIP, N_GRIDS };

static struct nb_grid_opts opts_of(enum grid g, int bits, enum nb_dtype scale)
{
    struct nb_grid_opts o = {.spec = {.elem = {.kind = NB_ELEM_INT, .bits = bits, .vec = 1},
                                      .group_rows = 1,
                                      .group_cols = 128,
                                      .scale_dtype = scale,
                                      .zero = NB_ZERO_CODE,
                                      .symmetric = g < ASYM}};
    o.sym_range = g == FULL || g == FULL_CLIP ? NB_SYM_FULL : NB_SYM_REFERENCE;
    o.clip = g == FULL_CLIP || g == SYM_CLIP || g == ASYM_CLIP ? NB_CLIP_WEIGHTED : NB_CLIP_NONE;
    return o;
}

static double student5(struct nb_rng *rng)
{
    double x = nb_rng_normal(rng), chi = 0;
    for (int i = 0; i < 5; i++) {
        double y = nb_rng_normal(rng);
        chi += y * y;
    }
    return x / sqrt(chi / 5) * sqrt(3.0 / 5.0); /* unit variance */
}

static double error_of(const struct nb_grid_opts *o, const float *w, const float *u, int n,
                       const struct nb_group_params *p)
{
    const struct nb_numeric *num = nb_numeric_for(&o->spec);
    double sum = 0;
    for (int i = 0; i < n; i++) {
        const double d = num->value(&o->spec, num->nearest(&o->spec, w[i], p), p) - w[i];
        sum += (u ? u[i] : 1.0) * d * d;
    }
    return sum;
}

/* Sum of squared error over sum of squares, n samples in groups. */
static double relative_error(enum grid g, int group, int n, bool heavy)
{
    static float w[MOST];
    const struct nb_grid_opts o = opts_of(g, 4, NB_F32);
    struct nb_rng rng;
    nb_rng_init(&rng, 14);
    double error = 0, square = 0;
    for (int done = 0; done < n; done += group) {
        for (int i = 0; i < group; i++) {
            w[i] = (float)(heavy ? student5(&rng) : nb_rng_normal(&rng));
            square += (double)w[i] * w[i];
        }
        struct nb_group_params p;
        nb_numeric_for(&o.spec)->fit(&o, w, NULL, group, &p);
        error += error_of(&o, w, NULL, group, &p);
    }
    return error / square;
}

static const int groups[] = {32, 64, 128, 1024, 4096};

/* Rows without clipping are what the formula says; with clipping ours may be better, but not much: the
 * table's search has 80 steps, ours ends with least squares. */
static void check_table(const double table[N_GRIDS][5], bool heavy, double tolerance)
{
    for (int g = 0; g < N_GRIDS; g++) {
        for (int c = 0; c < 5; c++) {
            if (table[g][c] == 0.0) continue;
            const double e = relative_error((enum grid)g, groups[c], 1 << 18, heavy);
            const bool clip = g == FULL_CLIP || g == SYM_CLIP || g == ASYM_CLIP;
            assert_true(e < table[g][c] * (1.0 + tolerance));
            assert_true(e > table[g][c] * (1.0 - tolerance - (clip ? 0.03 : 0.0)));
        }
    }
}

static void test_gaussian_table(void **state)
{
    (void)state;
    static const double table[N_GRIDS][5] = {
        [SYM] = {.00899, .01053, .01228, .0178, .0214},
        [FULL] = {.00738, .00898, .01065, .0156, .0189},
        [FULL_CLIP] = {.00658, .00803, .00931, .0112, .0116},
        [SYM_CLIP] = {.00769, .00901, .01018, .0116, .0118},
        [ASYM] = {.00653, .00828, .01011, .0158, .0194},
        [ASYM_CLIP] = {.00608, .00759, .00901, .0114, .0117},
    };
    check_table(table, false, 0.02);
}

/* Heavy tails need more samples than a test has time for in the wide groups. */
static void test_student_table(void **state)
{
    (void)state;
    static const double table[N_GRIDS][5] = {
        [SYM] = {.0143, .0196, .0265, 0, 0},       [FULL] = {.0116, .0165, .0228, 0, 0},
        [FULL_CLIP] = {.0107, .0149, .0196, 0, 0}, [ASYM] = {.0086, .0126, .0178, 0, 0},
        [ASYM_CLIP] = {.0081, .0117, .0160, 0, 0},
    };
    check_table(table, true, 0.06);
}

static void test_order_of_grids_on_heavy_tails(void **state)
{
    (void)state;
    double e[N_GRIDS];
    for (int g = 0; g < N_GRIDS; g++) e[g] = relative_error((enum grid)g, 1024, 1 << 18, true);
    assert_true(e[FULL] < e[SYM]);
    assert_true(e[ASYM] < e[FULL]);
    assert_true(e[FULL_CLIP] < 0.65 * e[FULL]); /* clipping buys over 40 % of the reference here */
    assert_true(e[ASYM_CLIP] < e[ASYM]);
}

/* All zeros, both signs, 300 scales, each followed by two least-squares steps. */
static double brute_force(const struct nb_grid_opts *o, const float *w, const float *u, int n)
{
    const struct nb_numeric *num = nb_numeric_for(&o->spec);
    const int top = (1 << o->spec.elem.bits) - 1;
    float a = 0;
    double best = INFINITY;
    for (int i = 0; i < n; i++) a = fmaxf(a, fabsf(w[i]));
    for (int z = 0; z <= top; z++) {
        if (o->spec.symmetric && z != (top + 1) / 2) continue;
        for (int k = 0; k < 600; k++) {
            if (k >= 300 && o->sym_range != NB_SYM_FULL) break;
            const float sign = k < 300 ? 1.0f : -1.0f, shrink = 1.0f - (float)(k % 300) / 320.0f;
            struct nb_group_params p = {
                .scale = nb_numeric_store_scale(sign * 2.5f * a / (float)top * shrink,
                                                o->spec.scale_dtype),
                .zero = (float)z};
            for (int step = 0; step < 3; step++) {
                best = fmin(best, error_of(o, w, u, n, &p));
                double wt = 0, tt = 0;
                for (int i = 0; i < n; i++) {
                    const double t = (double)num->nearest(&o->spec, w[i], &p) - z;
                    wt += u[i] * w[i] * t;
                    tt += u[i] * t * t;
                }
                if (!(tt > 0)) break;
                p.scale = nb_numeric_store_scale((float)(wt / tt), o->spec.scale_dtype);
            }
        }
    }
    return best;
}

/* Importance as it comes from real inputs: log-normal. The search must be within 3 % of brute force on
 * average, and far better than a search that does not know the weights. */
static void test_weighted_search_is_close_to_brute_force(void **state)
{
    (void)state;
    enum { GROUPS = 30, N = 64 };
    for (int bits = 2; bits <= 4; bits++) {
        for (int g = 0; g < N_GRIDS; g++) {
            if (g != FULL_CLIP && g != SYM_CLIP && g != ASYM_CLIP) continue;
            const struct nb_grid_opts o = opts_of((enum grid)g, bits, NB_F16);
            struct nb_grid_opts blind = o;
            blind.clip = NB_CLIP_MSE;
            struct nb_rng rng;
            nb_rng_init(&rng, 7);
            double mine = 0, brute = 0, unweighted = 0;
            for (int t = 0; t < GROUPS; t++) {
                float w[N], u[N];
                for (int i = 0; i < N; i++) {
                    w[i] = (float)(student5(&rng) * 0.02);
                    u[i] = (float)exp(1.5 * nb_rng_normal(&rng));
                }
                struct nb_group_params p;
                nb_numeric_for(&o.spec)->fit(&o, w, u, N, &p);
                mine += error_of(&o, w, u, N, &p);
                brute += brute_force(&o, w, u, N);
                nb_numeric_for(&o.spec)->fit(&blind, w, u, N, &p);
                unweighted += error_of(&o, w, u, N, &p);
            }
            assert_true(mine < 1.03 * brute);
            assert_true(mine < 0.9 * unweighted);
        }
    }
}

/* The norm-2.4 search is the reference's: 80 steps of the range, the first best kept. */
static void test_mse_search_equals_reference(void **state)
{
    (void)state;
    enum { N = 50 };
    struct nb_rng rng;
    nb_rng_init(&rng, 9);
    for (int t = 0; t < 40; t++) {
        float w[N];
        for (int i = 0; i < N; i++) w[i] = (float)student5(&rng);
        struct nb_grid_opts o = opts_of(t & 1 ? SYM : ASYM, 4, NB_F32);
        o.clip = NB_CLIP_MSE;
        const struct nb_numeric *num = nb_numeric_for(&o.spec);
        struct nb_group_params p;
        num->fit(&o, w, NULL, N, &p);
        float lo = 0, hi = 0;
        for (int i = 0; i < N; i++) {
            lo = fminf(lo, w[i]);
            hi = fmaxf(hi, w[i]);
        }
        if (o.spec.symmetric) {
            hi = fmaxf(hi, -lo);
            lo = -hi;
        }
        double best = INFINITY, mine = 0;
        for (int k = 0; k < 80; k++) {
            const float q = 1.0f - (float)k / 100.0f;
            struct nb_group_params c = {.scale = (q * hi - q * lo) / 15.0f, .zero = 8.0f};
            if (!o.spec.symmetric) c.zero = rintf(-q * lo / c.scale);
            double e = 0;
            for (int i = 0; i < N; i++) {
                e += pow(
                    fabs(num->value(&o.spec, num->nearest(&o.spec, w[i], &c), &c) - (double)w[i]),
                    2.4);
            }
            best = fmin(best, e);
        }
        for (int i = 0; i < N; i++) {
            mine += pow(
                fabs(num->value(&o.spec, num->nearest(&o.spec, w[i], &p), &p) - (double)w[i]), 2.4);
        }
        assert_true(mine < best * 1.0005);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gaussian_table),
        cmocka_unit_test(test_student_table),
        cmocka_unit_test(test_order_of_grids_on_heavy_tails),
        cmocka_unit_test(test_weighted_search_is_close_to_brute_force),
        cmocka_unit_test(test_mse_search_equals_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
