/* SPDX-License-Identifier: Apache-2.0
 *
 * test_score.c - whole plans over synthetic models whose probabilities are known.
 *
 * The "hidden state" of a token is its id; the heads turn it into the row of a bigram table. So every figure
 * has a closed form, computed here from the table in plain loops. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/pool.h"
#include "eval/interval.h"
#include "eval/score.h"

enum { V = 23, N_IDS = 200 };

struct bigram {
    double p[V][V];
    double level; /* added to all logits: changes nothing */
};

static void make_bigram(struct bigram *b, double sharpness, double level)
{
    b->level = level;
    for (int i = 0; i < V; i++) {
        double sum = 0;
        for (int j = 0; j < V; j++) sum += b->p[i][j] = exp(sharpness * sin(1.7 * i + 2.3 * j * j));
        for (int j = 0; j < V; j++) b->p[i][j] /= sum;
    }
}

static void bigram_logits(void *ctx, const float *hidden, int64_t m, float *out)
{
    const struct bigram *b = ctx;
    for (int64_t i = 0; i < m; i++) {
        for (int j = 0; j < V; j++)
            out[i * V + j] = (float)(log(b->p[(int)hidden[i]][j]) + b->level);
    }
}

static void near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.17g is not %.17g", a, b);
}

static void make_ids(int32_t ids[N_IDS])
{
    uint32_t seed = 7;
    for (int i = 0; i < N_IDS; i++) {
        seed = seed * 1664525u + 1013904223u;
        ids[i] = (int32_t)(seed >> 16) % V;
    }
}

static void run_plan(struct nb_eval_result *out, const struct nb_eval_plan *plan,
                     struct bigram *model, struct bigram *base, struct nb_pool *pool)
{
    struct nb_eval_head a = {model, 1, V, bigram_logits, NULL},
                        b = {base, 1, V, bigram_logits, NULL};
    struct nb_eval_score s;
    struct nb_err err;
    assert_int_equal(nb_eval_score_init(&s, plan, &a, base ? &b : NULL, pool, &err), 0);
    for (int64_t i = 0; i < plan->n_segments; i++) {
        const struct nb_eval_segment *seg = &plan->segments[i];
        float h[N_IDS];
        for (int64_t t = 0; t < seg->n - 1; t++) h[t] = (float)plan->ids[seg->offset + t];
        assert_int_equal(nb_eval_score_segment(&s, i, h, h, &err), 0);
    }
    nb_eval_score_finish(&s, out);
    nb_eval_score_release(&s);
}

static struct nb_windows cut(int32_t *ids, int64_t seqlen)
{
    return (struct nb_windows){.ids = ids, .n_windows = N_IDS / seqlen, .seqlen = seqlen};
}

static void test_uniform(void **state)
{
    (void)state;
    int32_t ids[N_IDS];
    make_ids(ids);
    struct bigram uniform;
    make_bigram(&uniform, 0, 3);
    struct nb_windows w = cut(ids, 20);
    struct nb_eval_plan plan;
    struct nb_eval_result r;
    assert_int_equal(nb_eval_plan_windows(&plan, &w, NULL), 0);
    run_plan(&r, &plan, &uniform, NULL, NULL);
    near(r.ppl, V, 1e-5);
    near(r.ppl_stderr, 0, 1e-5);
    assert_int_equal(r.n_tokens, 10 * 19);
    assert_int_equal(r.n_windows, 10);
    assert_int_equal(r.window, 20);
    assert_false(r.has_compare);
    nb_eval_plan_release(&plan);
}

/* Every figure of a pair, from the tables in plain loops. */
static void test_pair(void **state)
{
    (void)state;
    int32_t ids[N_IDS];
    make_ids(ids);
    static struct bigram base, model;
    make_bigram(&base, 2.0, 0);
    make_bigram(&model, 1.8, 5);
    const int64_t t = 25, n = N_IDS / t;
    struct nb_windows w = cut(ids, t);
    struct nb_eval_plan plan;
    struct nb_eval_result r;
    assert_int_equal(nb_eval_plan_windows(&plan, &w, NULL), 0);
    run_plan(&r, &plan, &model, &base, NULL);

    double nll = 0, nll_base = 0, kld = 0, d[8], d_mean = 0, d_square = 0;
    float klds[N_IDS];
    size_t rows = 0;
    int same = 0;
    for (int64_t c = 0; c < n; c++) {
        d[c] = 0;
        for (int64_t i = c * t + 1; i < (c + 1) * t; i++) {
            const double *p = base.p[ids[i - 1]], *q = model.p[ids[i - 1]];
            double k = 0;
            int top_p = 0, top_q = 0;
            for (int j = 0; j < V; j++) {
                k += p[j] * log(p[j] / q[j]);
                if (p[j] > p[top_p]) top_p = j;
                if (q[j] > q[top_q]) top_q = j;
            }
            nll -= log(q[ids[i]]);
            nll_base -= log(p[ids[i]]);
            d[c] += (log(p[ids[i]]) - log(q[ids[i]])) / (double)(t - 1);
            kld += k;
            same += top_p == top_q;
            klds[rows++] = (float)k;
        }
        d_mean += d[c] / (double)n;
    }
    for (int64_t c = 0; c < n; c++) d_square += (d[c] - d_mean) * (d[c] - d_mean);
    double se = sqrt(d_square / (double)(n - 1) / (double)n),
           half = 2.3646243 * se; /* t, 7 degrees */
    double m = (double)rows;
    assert_int_equal(r.n_tokens, rows);
    near(r.ppl, exp(nll / m), 1e-4);
    near(r.compare.ppl_base, exp(nll_base / m), 1e-4);
    near(r.compare.ppl_ratio, exp((nll - nll_base) / m), 1e-6);
    near(r.compare.ppl_ratio_lo, exp(d_mean - half), 1e-6);
    near(r.compare.ppl_ratio_hi, exp(d_mean + half), 1e-6);
    near(r.compare.kld_mean, kld / m, 1e-7);
    near(r.compare.same_top, same / m, 1e-12);
    nb_eval_sort(klds, rows);
    near(r.compare.kld_max, klds[rows - 1], 1e-6);
    near(r.compare.kld_median, (klds[rows / 2 - 1] + klds[rows / 2]) / 2,
         1e-6); /* 192 rows: even */
    nb_eval_plan_release(&plan);
}

static void test_equal_models(void **state)
{
    (void)state;
    int32_t ids[N_IDS];
    make_ids(ids);
    static struct bigram a, b;
    make_bigram(&a, 2.0, 0);
    make_bigram(&b, 2.0, 0);
    struct nb_windows w = cut(ids, 25);
    struct nb_eval_plan plan;
    struct nb_eval_result r;
    assert_int_equal(nb_eval_plan_windows(&plan, &w, NULL), 0);
    run_plan(&r, &plan, &a, &b, NULL);
    assert_true(r.compare.kld_mean == 0 && r.compare.kld_max == 0);
    assert_true(r.compare.ppl_ratio == 1 && r.compare.ppl_ratio_lo == 1 &&
                r.compare.ppl_ratio_hi == 1);
    assert_true(r.compare.same_top == 1);
    nb_eval_plan_release(&plan);
}

/* Weights of segments: the mean enters with n_counted, whatever the number of rows. */
static void test_weights(void **state)
{
    (void)state;
    static struct bigram b;
    make_bigram(&b, 1.0, 0);
    int32_t ids[7] = {1, 2, 3, 4, 5, 6, 7};
    struct nb_eval_segment segments[2] = {
        {.offset = 0, .n = 4, .first = 2, .n_counted = 1, .cluster = 0},
        {.offset = 3, .n = 4, .first = 1, .n_counted = 3, .cluster = 1}};
    struct nb_eval_plan plan = {
        .ids = ids, .segments = segments, .n_ids = 7, .n_segments = 2, .n_clusters = 2};
    struct nb_eval_result r;
    run_plan(&r, &plan, &b, NULL, NULL);
    double first = -(log(b.p[2][3]) + log(b.p[3][4])) / 2;
    double second = -(log(b.p[4][5]) + log(b.p[5][6]) + log(b.p[6][7])) / 3;
    near(log(r.ppl), (first * 1 + second * 3) / 4, 1e-6);
    assert_int_equal(r.n_tokens, 5);
}

static void test_threads(void **state)
{
    (void)state;
    int32_t ids[N_IDS];
    make_ids(ids);
    static struct bigram base, model;
    make_bigram(&base, 2.0, 0);
    make_bigram(&model, 1.8, 5);
    struct nb_windows w = cut(ids, 100);
    struct nb_eval_plan plan;
    assert_int_equal(nb_eval_plan_windows(&plan, &w, NULL), 0);
    struct nb_eval_result one, r;
    run_plan(&one, &plan, &model, &base, NULL);
    const int threads[] = {2, 3, 7};
    for (size_t i = 0; i < 3; i++) {
        struct nb_pool *pool = nb_pool_new(threads[i], NULL);
        assert_non_null(pool);
        run_plan(&r, &plan, &model, &base, pool);
        nb_pool_free(pool);
        assert_memory_equal(&r, &one, sizeof r);
    }
    nb_eval_plan_release(&plan);
}

static void nan_logits(void *ctx, const float *hidden, int64_t m, float *out)
{
    bigram_logits(ctx, hidden, m, out);
    out[m * V - 1] = NAN;
}

static void test_errors(void **state)
{
    (void)state;
    int32_t ids[N_IDS];
    make_ids(ids);
    static struct bigram b;
    make_bigram(&b, 1, 0);
    struct nb_windows w = cut(ids, 20);
    struct nb_eval_plan plan;
    struct nb_err err;
    assert_int_equal(nb_eval_plan_windows(&plan, &w, NULL), 0);
    struct nb_eval_head good = {&b, 1, V, bigram_logits, NULL},
                        other = {&b, 1, V + 1, bigram_logits, NULL},
                        bad = {&b, 1, V, nan_logits, NULL};
    struct nb_eval_score s;
    float h[N_IDS] = {0};
    assert_int_equal(nb_eval_score_init(&s, &plan, &good, &other, NULL, &err), NB_E_SPEC);
    assert_string_equal(err.text, "the models cannot be compared: vocabularies of 23 and 24");
    nb_eval_score_release(&s);
    assert_int_equal(nb_eval_score_init(&s, &plan, &good, &bad, NULL, &err), 0);
    assert_int_equal(nb_eval_score_segment(&s, 0, h, h, &err), NB_E_NUMERIC);
    assert_string_equal(err.text, "window 0: the logits of the model compared with are not finite");
    nb_eval_score_release(&s);
    nb_eval_plan_release(&plan);
    w.seqlen = 1;
    assert_int_equal(nb_eval_plan_windows(&plan, &w, &err), NB_E_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uniform),      cmocka_unit_test(test_pair),
        cmocka_unit_test(test_equal_models), cmocka_unit_test(test_weights),
        cmocka_unit_test(test_threads),      cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
