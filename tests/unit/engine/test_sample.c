/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sample.c - greedy ties, seeds, and the frequencies that temperature, top-k, top-p and min-p
 * leave. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/engine.h"

enum { N = 6, DRAWS = 20000 };
static const float logits[N] = {1.0f, 3.0f, 2.0f, 3.0f, -1.0f, -INFINITY};

static void draw(const struct nb_sampling *s, double share[N])
{
    struct nb_rng rng;
    float scratch[N];
    nb_rng_init(&rng, 9);
    for (int i = 0; i < N; i++) share[i] = 0;
    for (int i = 0; i < DRAWS; i++) share[nb_sample(logits, N, s, &rng, scratch)] += 1.0 / DRAWS;
}

/* Shares expected when only the ids in `kept` remain. */
static void check_shares(const double share[N], const char *kept, double temperature)
{
    double want[N] = {0}, total = 0;
    for (int i = 0; i < N; i++) {
        if (strchr(kept, '0' + i)) want[i] = exp((double)logits[i] / temperature);
        total += want[i];
    }
    for (int i = 0; i < N; i++) {
        double p = want[i] / total;
        assert_true(fabs(share[i] - p) <= 5 * sqrt(p * (1 - p) / DRAWS));
    }
}

static void test_greedy(void **state)
{
    (void)state;
    float scratch[N];
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    struct nb_sampling s = {.temperature = 0, .top_p = 1};
    assert_int_equal(nb_sample(logits, N, &s, &rng, scratch), 1); /* ids 1 and 3 tie */
    s.temperature = 1;
    s.top_k = 1; /* the tie is kept: both may come, nothing else */
    for (int i = 0; i < 100; i++) {
        int32_t id = nb_sample(logits, N, &s, &rng, scratch);
        assert_true(id == 1 || id == 3);
    }
}

static void test_filters(void **state)
{
    (void)state;
    double share[N];
    draw(&(struct nb_sampling){.temperature = 1, .top_p = 1}, share);
    check_shares(share, "01234", 1);
    draw(&(struct nb_sampling){.temperature = 2.5, .top_p = 1}, share);
    check_shares(share, "01234", 2.5);
    draw(&(struct nb_sampling){.temperature = 1, .top_k = 3, .top_p = 1}, share);
    check_shares(share, "123", 1);
    /* shares: 1 and 3: 0.398 each, 2: 0.146, 0: 0.054, 4: 0.007 */
    draw(&(struct nb_sampling){.temperature = 1, .top_p = 0.9}, share);
    check_shares(share, "123", 1);
    draw(&(struct nb_sampling){.temperature = 1, .top_p = 0.95}, share);
    check_shares(share, "0123", 1);
    draw(&(struct nb_sampling){.temperature = 1, .top_p = 0}, share);
    check_shares(share, "13", 1);
    draw(&(struct nb_sampling){.temperature = 1, .top_p = 1, .min_p = 0.1}, share);
    check_shares(share, "0123", 1);
    draw(&(struct nb_sampling){.temperature = 1, .top_p = 1, .min_p = 0.2}, share);
    check_shares(share, "123", 1);
    /* top_p counts what top_k left: 0.846 of 0.942 is above 0.88 */
    draw(&(struct nb_sampling){.temperature = 1, .top_k = 3, .top_p = 0.84}, share);
    check_shares(share, "13", 1);
}

/* Against sorting, on many random vectors: which ids can come at all. */
static void test_thresholds(void **state)
{
    (void)state;
    enum { LEN = 300 };
    struct nb_rng rng;
    nb_rng_init(&rng, 2);
    for (int trial = 0; trial < 40; trial++) {
        float x[LEN], scratch[LEN];
        for (int i = 0; i < LEN; i++)
            x[i] = (float)(int)(nb_rng_normal(&rng) * 4) * 0.5f; /* with ties */
        struct nb_sampling s = {.temperature = 1,
                                .top_k = trial % 2 ? 1 + (int64_t)nb_rng_below(&rng, LEN) : 0,
                                .top_p = trial % 3 ? nb_rng_uniform(&rng) : 1};
        double p[LEN], sorted[LEN], total = 0, least = 0, sum = 0;
        float top = x[0];
        for (int i = 0; i < LEN; i++) top = x[i] > top ? x[i] : top;
        for (int i = 0; i < LEN; i++)
            sorted[i] = p[i] = (double)(float)exp((double)x[i] - (double)top);
        for (int i = 0; i < LEN; i++) {
            for (int j = i + 1; j < LEN; j++) {
                if (sorted[j] > sorted[i]) {
                    double t = sorted[i];
                    sorted[i] = sorted[j];
                    sorted[j] = t;
                }
            }
        }
        if (s.top_k) least = sorted[s.top_k - 1];
        for (int i = 0; i < LEN; i++) total += sorted[i] >= least ? sorted[i] : 0;
        for (int i = 0; i < LEN && s.top_p < 1; i++) {
            sum += sorted[i];
            if (sum >= s.top_p * total) {
                least = sorted[i] > least ? sorted[i] : least;
                break;
            }
        }
        for (int d = 0; d < 200; d++) assert_true(p[nb_sample(x, LEN, &s, &rng, scratch)] >= least);
        int kept = 0, allowed = 0;
        for (int i = 0; i < LEN; i++) {
            kept += scratch[i] > 0;
            allowed += p[i] >= least;
        }
        assert_int_equal(kept, allowed);
    }
}

static void test_seeds(void **state)
{
    (void)state;
    float scratch[N];
    struct nb_sampling s = {.temperature = 1, .top_p = 1};
    struct nb_rng a, b;
    nb_rng_init(&a, 77);
    nb_rng_init(&b, 77);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(nb_sample(logits, N, &s, &a, scratch),
                         nb_sample(logits, N, &s, &b, scratch));
    }
}

static void test_not_a_number(void **state)
{
    (void)state;
    float bad[3] = {0.0f, NAN, 1.0f}, scratch[3];
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    struct nb_sampling s = {.temperature = 1, .top_p = 0.9, .top_k = 2};
    for (int i = 0; i < 50; i++) assert_int_not_equal(nb_sample(bad, 3, &s, &rng, scratch), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),       cmocka_unit_test(test_filters),
        cmocka_unit_test(test_thresholds),   cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_not_a_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
