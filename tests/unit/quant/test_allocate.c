/* SPDX-License-Identifier: Apache-2.0
 *
 * test_allocate.c - the multiple-choice knapsack against all assignments, against uniform ones, and where bytes have no
 * common divisor. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "quant/quant.h"

enum { UNITS = 5, CHOICES = 4, ALL = 4 * 4 * 4 * 4 * 4 };

struct small {
    double loss[UNITS * CHOICES];
    uint64_t bytes[UNITS * CHOICES];
    struct nb_allocation a;
};

static void fill(struct small *s, uint64_t seed, uint64_t unit)
{
    struct nb_rng rng;
    nb_rng_init(&rng, seed);
    for (int i = 0; i < UNITS * CHOICES; i++) {
        s->bytes[i] = unit * (1 + (uint64_t)(nb_rng_uniform(&rng) * 40));
        s->loss[i] = nb_rng_uniform(&rng);
        if (nb_rng_uniform(&rng) < 0.15 && i % CHOICES) s->loss[i] = NAN;
    }
    s->a = (struct nb_allocation){UNITS, CHOICES, s->loss, s->bytes};
}

/* Least loss within budget, and fewest bytes within limit, of all assignments. */
static void try_all(const struct small *s, uint64_t budget, double limit, double *loss,
                    uint64_t *bytes)
{
    *loss = INFINITY;
    *bytes = UINT64_MAX;
    for (int code = 0; code < ALL; code++) {
        int pick[UNITS], rest = code;
        for (int u = 0; u < UNITS; u++, rest /= CHOICES) pick[u] = rest % CHOICES;
        const struct nb_allocation_total t = nb_allocation_total(&s->a, pick);
        if (!isfinite(t.loss)) continue;
        if (t.bytes <= budget && t.loss < *loss) *loss = t.loss;
        if (t.loss <= limit && t.bytes < *bytes) *bytes = t.bytes;
    }
}

static void test_equals_all_assignments(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct small s;
        struct nb_err err = {0};
        int pick[UNITS];
        fill(&s, seed, seed % 3 ? 4096 : 1);
        const uint64_t budget = s.bytes[0] * 4 + 4096;
        double loss;
        uint64_t bytes;
        try_all(&s, budget, 1.5, &loss, &bytes);
        const int rc = nb_allocate_bytes(&s.a, budget, pick, &err);
        assert_int_equal(rc, isfinite(loss) ? 0 : NB_E_SPEC);
        if (!rc) {
            const struct nb_allocation_total t = nb_allocation_total(&s.a, pick);
            assert_true(t.bytes <= budget);
            assert_true(fabs(t.loss - loss) < 1e-12);
        }
        const int found = nb_allocate_loss(&s.a, 1.5, pick, &err);
        assert_int_equal(found, bytes == UINT64_MAX ? NB_E_SPEC : 0);
        if (found) continue;
        const struct nb_allocation_total t = nb_allocation_total(&s.a, pick);
        assert_true(t.loss <= 1.5);
        assert_int_equal(t.bytes, bytes);
    }
}

/* Bytes without a common divisor: levels are coarse, but the result fits, and no uniform choice is better. */
static void test_large_and_odd(void **state)
{
    (void)state;
    enum { N = 30, C = 12 };
    double *loss = malloc(N * C * sizeof *loss);
    uint64_t *bytes = malloc(N * C * sizeof *bytes);
    int *pick = malloc(N * sizeof *pick);
    assert_non_null(loss);
    assert_non_null(bytes);
    assert_non_null(pick);
    struct nb_rng rng;
    nb_rng_init(&rng, 9);
    for (int u = 0; u < N; u++) {
        const double size = 1e6 * (1 + nb_rng_uniform(&rng)), weight = nb_rng_uniform(&rng);
        for (int c = 0; c < C; c++) {
            bytes[u * C + c] = (uint64_t)(size * (2 + c)) + 1;
            loss[u * C + c] = weight * exp2(-2.0 * c);
        }
    }
    const struct nb_allocation a = {N, C, loss, bytes};
    for (int c = 2; c < C; c += 7) {
        struct nb_err err = {0};
        for (int u = 0; u < N; u++) pick[u] = c;
        const struct nb_allocation_total uniform = nb_allocation_total(&a, pick);
        assert_int_equal(nb_allocate_bytes(&a, uniform.bytes, pick, &err), 0);
        struct nb_allocation_total t = nb_allocation_total(&a, pick);
        assert_true(t.bytes <= uniform.bytes && t.loss <= uniform.loss);
        if (c < C - 1) assert_true(t.loss < 0.9 * uniform.loss);
        assert_int_equal(nb_allocate_loss(&a, uniform.loss, pick, &err), 0);
        t = nb_allocation_total(&a, pick);
        assert_true(t.loss <= uniform.loss && t.bytes <= uniform.bytes);
    }
    free(loss);
    free(bytes);
    free(pick);
}

static void test_out_of_reach(void **state)
{
    (void)state;
    struct small s;
    struct nb_err err = {0};
    int pick[UNITS];
    fill(&s, 3, 16);
    assert_int_equal(nb_allocate_bytes(&s.a, 15, pick, &err), NB_E_SPEC);
    assert_non_null(strstr(err.text, "not enough"));
    assert_int_equal(nb_allocate_loss(&s.a, -1, pick, &err), NB_E_SPEC);
    assert_non_null(strstr(err.text, "the least is"));
    for (int c = 0; c < CHOICES; c++) s.loss[2 * CHOICES + c] = NAN;
    assert_int_equal(nb_allocate_bytes(&s.a, 1 << 20, pick, &err), NB_E_SPEC);
    s.a.n_units = 0;
    assert_int_equal(nb_allocate_bytes(&s.a, 1 << 20, pick, &err), NB_E_SPEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_all_assignments),
        cmocka_unit_test(test_large_and_odd),
        cmocka_unit_test(test_out_of_reach),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
