/* SPDX-License-Identifier: Apache-2.0
 *
 * test_awq.c - column scales: the fold is an identity, the search never loses and shares where it must. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "layer.h"

static struct nb_awq_group group_of(struct layer *l, bool compensated)
{
    return (struct nb_awq_group){
        .w = &l->mat, .n = 1, .stats = &l->stats, .repeat = 1, .compensated = compensated};
}

static void search(struct layer *l, const struct nb_awq_group *g, float *s, double loss[2])
{
    struct nb_err err = {0};
    const struct nb_solve_opts opts = layer_opts(3, false, 32, NB_EFFORT_NORMAL);
    struct nb_awq_group group = *g;
    struct nb_awq_losses losses;
    group.opts = &opts;
    group.be = l->be;
    if (nb_awq_search(s, &group, &losses, &err)) fail_msg("%s", err.text);
    loss[0] = losses.best;
    loss[1] = losses.identity;
}

/* (e): outputs and losses do not notice scaled weights with inversely scaled inputs. */
static void test_fold_is_an_identity(void **state)
{
    (void)state;
    struct layer l = layer_make(51, 24, 64, 500, 1);
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    float s[64], *q = nb_alloc(24 * 64, sizeof *q);
    double before[64];
    for (int j = 0; j < 64; j++) s[j] = 0.5f + 1.5f * (float)nb_rng_uniform(&rng);
    for (int i = 0; i < 24 * 64; i++) q[i] = rintf(l.w[i] * 64.0f) / 64.0f;
    for (int j = 0; j < 64; j++) before[j] = l.stats.abs_sum[j];
    struct nb_fmat qm = {.data = q, .rows = 24, .cols = 64, .ld = 64};
    const double loss = nb_output_loss(&l.mat, &qm, &l.stats, l.be);
    nb_awq_scale_columns(&l.mat, s);
    nb_awq_scale_columns(&qm, s);
    nb_awq_scale_stats(&l.stats, s);
    assert_true(fabs(nb_output_loss(&l.mat, &qm, &l.stats, l.be) - loss) < 1e-5 * loss);
    for (int j = 0; j < 64; j++)
        assert_true(fabs(l.stats.abs_sum[j] * s[j] - before[j]) < 1e-6 * before[j]);
    nb_free(q);
    layer_release(&l);
}

/* The losses of the search, found with a quick fit, are nearly those of rounding with the full one. */
static void test_search_reports_what_rounding_then_gets(void **state)
{
    (void)state;
    struct layer l = layer_make(52, 64, 128, 2000, 2);
    float s[128];
    double loss[2];
    const struct nb_awq_group g = group_of(&l, false);
    search(&l, &g, s, loss);
    assert_true(loss[0] < 0.97 * loss[1]); /* channels 8 times larger are what this is for */
    struct nb_solve_opts opts = layer_opts(3, false, 32, NB_EFFORT_FAST);
    struct nb_qmat q;
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct nb_solve_report plain = layer_solve(&l, "rtn", &opts, &q, &arena);
    assert_true(fabs(plain.loss - loss[1]) < 0.1 * plain.loss);
    nb_awq_scale_columns(&l.mat, s);
    nb_awq_scale_stats(&l.stats, s);
    struct nb_solve_report scaled = layer_solve(&l, "rtn", &opts, &q, &arena);
    assert_true(fabs(scaled.loss - loss[0]) < 0.1 * scaled.loss);
    assert_true(scaled.loss < 0.97 * plain.loss);
    nb_arena_release(&arena);
    layer_release(&l);
}

/* Judged by compensated rounding, the scales must help what they are for. */
static void test_compensated_search_helps_gptq(void **state)
{
    (void)state;
    struct layer l = layer_make(53, 64, 128, 2000, 1);
    float s[128];
    double loss[2];
    const struct nb_awq_group g = group_of(&l, true);
    search(&l, &g, s, loss);
    assert_true(loss[0] <= loss[1]);
    struct nb_solve_opts opts = layer_opts(3, false, 32, NB_EFFORT_FAST);
    struct nb_qmat q;
    struct nb_arena arena;
    nb_arena_init(&arena);
    const struct nb_solve_report plain = layer_solve(&l, "gptq", &opts, &q, &arena);
    nb_awq_scale_columns(&l.mat, s);
    nb_awq_scale_stats(&l.stats, s);
    const struct nb_solve_report scaled = layer_solve(&l, "gptq", &opts, &q, &arena);
    assert_true(scaled.loss < plain.loss * 1.01);
    nb_arena_release(&arena);
    layer_release(&l);
}

/* Independent inputs of one size and weights of one size: nothing to gain, so nothing is scaled. */
static void test_identity_when_nothing_helps(void **state)
{
    (void)state;
    struct layer l = layer_make(54, 32, 64, 500, 1);
    double *h = nb_calloc(64 * 64, sizeof *h);
    for (int j = 0; j < 64; j++) {
        h[j * 65] = 1.0;
        l.stats.abs_sum[j] = (double)l.stats.n_tokens;
    }
    layer_set_h(&l, h);
    for (int64_t i = 0; i < l.rows * l.cols; i++) l.w[i] = (i * 7 + i / l.cols) % 2 ? 0.5f : -0.5f;
    float s[64];
    double loss[2];
    const struct nb_awq_group g = group_of(&l, false);
    search(&l, &g, s, loss);
    for (int j = 0; j < 64; j++) assert_true(s[j] == 1.0f);
    assert_true(loss[0] == loss[1]);
    nb_free(h);
    layer_release(&l);
}

static void test_heads_that_share_a_key_share_scales(void **state)
{
    (void)state;
    struct layer l = layer_make(55, 48, 128, 1500, 1);
    struct nb_awq_group g = group_of(&l, false);
    g.repeat = 4; /* 8 heads of 16, 2 key-value heads */
    g.head_dim = 16;
    float s[128];
    double loss[2];
    search(&l, &g, s, loss);
    bool any = false;
    for (int j = 0; j < 128; j++) {
        const int head = j / 16, first = head / 4 * 4;
        assert_true(s[j] == s[first * 16 + j % 16]);
        any = any || s[j] != 1.0f;
    }
    assert_true(any && loss[0] < loss[1]);
    layer_release(&l);
}

static void test_threads_do_not_change_a_bit(void **state)
{
    (void)state;
    static const int threads[] = {1, 2, 3, 7};
    float first[96], s[96];
    for (int t = 0; t < 4; t++) {
        struct layer l = layer_make(56, 100, 96, 800, threads[t]);
        struct nb_fmat mats[2] = {l.mat, l.mat};
        mats[0].rows = 61;
        mats[1].data += 61 * 96;
        mats[1].rows = 39;
        struct nb_awq_group g = group_of(&l, t & 1);
        g.w = mats;
        g.n = 2;
        g.compensated = true;
        double loss[2];
        search(&l, &g, t ? s : first, loss);
        if (t) assert_memory_equal(first, s, sizeof s);
        layer_release(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fold_is_an_identity),
        cmocka_unit_test(test_search_reports_what_rounding_then_gets),
        cmocka_unit_test(test_compensated_search_helps_gptq),
        cmocka_unit_test(test_identity_when_nothing_helps),
        cmocka_unit_test(test_heads_that_share_a_key_share_scales),
        cmocka_unit_test(test_threads_do_not_change_a_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
