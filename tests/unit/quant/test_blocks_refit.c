/* SPDX-License-Identifier: Apache-2.0
 *
 * test_blocks_refit.c - parameters of a super-block on a random parabola: the loss falls, stays true, and ends
 * where no single code helps. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "quant/blocks.h"

enum { MOST = 2 * NB_MOST_SUBS };

struct parabola { /* x A x - 2 x g around the start, per row */
    int dims;
    double a[NB_TILE][MOST][MOST], g[NB_TILE][MOST], start[NB_TILE][MOST];
};

static void make(const struct nb_block_grid *grid, struct nb_block_refit *r, struct parabola *p,
                 uint64_t seed)
{
    struct nb_rng rng;
    nb_rng_init(&rng, seed);
    r->subs = grid->subs == 1 ? 8 : grid->subs;
    r->dims = p->dims = grid->min_hi ? 2 * r->subs : r->subs;
    const int supers = grid->subs == 1 ? r->subs : 1;
    for (int k = 0; k < NB_TILE; k++) {
        double factor[MOST][MOST + 4];
        for (int i = 0; i < r->dims; i++) {
            for (int j = 0; j < r->dims + 4; j++) factor[i][j] = nb_rng_normal(&rng);
            p->g[k][i] = 0.3 * nb_rng_normal(&rng);
        }
        for (int i = 0; i < r->dims; i++) {
            for (int j = 0; j < r->dims; j++) {
                double sum = 0;
                for (int f = 0; f < r->dims + 4; f++) sum += factor[i][f] * factor[j][f];
                r->a[(i * r->dims + j) * NB_TILE + k] = (float)sum;
                p->a[k][i][j] = (double)(float)sum;
            }
            r->g[i * NB_TILE + k] = (float)p->g[k][i];
        }
        for (int s = 0; s < supers; s++) {
            r->d[s * NB_TILE + k] = nb_block_store(0.03f + 0.01f * (float)nb_rng_uniform(&rng));
            r->dmin[s * NB_TILE + k] = nb_block_store(0.02f + 0.01f * (float)nb_rng_uniform(&rng));
        }
        for (int j = 0; j < r->subs; j++) {
            const int s = grid->subs == 1 ? j : 0;
            const double part = nb_rng_uniform(&rng), other = nb_rng_uniform(&rng);
            const float code = grid->subs == 1
                                   ? 1.0f
                                   : rintf((float)grid->scale_lo +
                                           (float)part * (float)(grid->scale_hi - grid->scale_lo));
            const float min = grid->subs == 1 ? 1.0f : rintf((float)other * (float)grid->min_hi);
            r->scale[j * NB_TILE + k] = code;
            r->min[j * NB_TILE + k] = min;
            r->value[j * NB_TILE + k] = r->d[s * NB_TILE + k] * code;
            p->start[k][j] = (double)r->value[j * NB_TILE + k];
            if (!grid->min_hi) continue;
            r->value[(r->subs + j) * NB_TILE + k] = r->dmin[s * NB_TILE + k] * min;
            p->start[k][r->subs + j] = (double)r->value[(r->subs + j) * NB_TILE + k];
        }
    }
}

/* Loss of the stored parameters, with one code moved. */
static double loss(const struct nb_block_grid *grid, const struct nb_block_refit *r,
                   const struct parabola *p, int k, const int move[2])
{
    double x[MOST], sum = 0;
    for (int i = 0; i < r->dims; i++) {
        const int j = i % r->subs, s = grid->subs == 1 ? j : 0;
        const float by = i == move[0] ? (float)move[1] : 0.0f;
        const float *code = i < r->subs ? r->scale : r->min, *d = i < r->subs ? r->d : r->dmin;
        x[i] = (double)d[s * NB_TILE + k] * (double)(code[j * NB_TILE + k] + by) - p->start[k][i];
    }
    for (int i = 0; i < r->dims; i++) {
        for (int j = 0; j < r->dims; j++) sum += x[i] * p->a[k][i][j] * x[j];
        sum -= 2.0 * x[i] * p->g[k][i];
    }
    return sum;
}

static void check_codes(const struct nb_block_grid *grid, const struct nb_block_refit *r, int k)
{
    for (int j = 0; j < r->subs; j++) {
        const float code = r->scale[j * NB_TILE + k], min = r->min[j * NB_TILE + k];
        assert_true(code == rintf(code) && code >= (float)grid->scale_lo &&
                    code <= (float)grid->scale_hi);
        if (grid->min_hi)
            assert_true(min == rintf(min) && min >= 0.0f && min <= (float)grid->min_hi);
    }
}

static void test_ends_lower_and_where_no_code_helps(void **state)
{
    (void)state;
    static const char *const types[] = {"Q4_K", "Q2_K", "Q6_K", "IQ4_XS", "Q4_0", "Q5_1"};
    float *memory = nb_calloc(nb_block_refit_floats(), sizeof *memory);
    struct parabola *p = nb_calloc(1, sizeof *p);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        const struct nb_block_grid *grid = nb_block_grid_find(types[t]);
        struct nb_block_refit r;
        nb_block_refit_place(&r, memory);
        make(grid, &r, p, t + 1);
        assert_true(nb_block_refit_run(grid, &r, 1000));
        assert_false(nb_block_refit_run(grid, &r, 1));
        for (int k = 0; k < NB_TILE; k++) {
            const double end = loss(grid, &r, p, k, (int[]){-1, 0});
            assert_true(end < 0.0); /* the start is 0 */
            check_codes(grid, &r, k);
            const int supers = grid->subs == 1 ? r.subs : 1;
            for (int s = 0; s < supers; s++) {
                assert_true(r.d[s * NB_TILE + k] == nb_block_store(r.d[s * NB_TILE + k]));
                assert_true(r.dmin[s * NB_TILE + k] == nb_block_store(r.dmin[s * NB_TILE + k]));
            }
            for (int i = 0; grid->subs > 1 && i < r.dims; i++) {
                const float code = (i < r.subs ? r.scale : r.min)[i % r.subs * NB_TILE + k];
                const int lo = i < r.subs ? grid->scale_lo : 0,
                          hi = i < r.subs ? grid->scale_hi : grid->min_hi;
                for (int by = -1; by <= 1; by += 2) {
                    if ((int)code + by < lo || (int)code + by > hi) continue;
                    /* a step that gains next to nothing is not taken */
                    const double d = (double)(i < r.subs ? r.d : r.dmin)[k];
                    assert_true(loss(grid, &r, p, k, (int[]){i, by}) >=
                                end - 0.011 * d * d * p->a[k][i][i] - 1e-4 * fabs(end));
                }
            }
        }
    }
    nb_free(p);
    nb_free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ends_lower_and_where_no_code_helps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
