/* SPDX-License-Identifier: Apache-2.0
 *
 * test_block.c - the table of block types, the same bytes at every level, and what encoding refuses. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/rng.h"
#include "numeric/block.h"
#include "numeric/block_layout.h"
#include "numeric/cpu/levels.h"

static void test_table(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int id, elems, bytes;
    } some[] = {
        {"F32", 0, 1, 4},       {"BF16", 30, 1, 2},     {"Q4_K", 12, 256, 144},
        {"IQ4_NL", 20, 32, 18}, {"IQ1_M", 29, 256, 56}, {"NVFP4", 40, 64, 36},
        {"Q2_0", 42, 64, 18},   {"Q8_K", 15, 256, 292},
    };
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        const struct nb_block_type *t = nb_block_find(some[i].name);
        assert_non_null(t);
        assert_ptr_equal(nb_block_by_id(some[i].id), t);
        assert_int_equal(t->elems, some[i].elems);
        assert_int_equal(t->bytes, some[i].bytes);
    }
    assert_ptr_equal(nb_block_find("q4_k"), nb_block_find("Q4_K"));
    assert_null(nb_block_find("Q4_2"));
    assert_null(nb_block_find(""));
    static const int removed[] = {-1, 4, 5, 24, 28, 31, 36, 38, 43, 1000};
    for (size_t i = 0; i < sizeof removed / sizeof *removed; i++)
        assert_null(nb_block_by_id(removed[i]));
    int n = 0;
    while (nb_block_at(n)) {
        assert_ptr_equal(nb_block_by_id(nb_block_at(n)->id), nb_block_at(n));
        assert_ptr_equal(nb_block_find(nb_block_at(n)->name), nb_block_at(n));
        n++;
    }
    assert_int_equal(n, 30);
    assert_null(nb_block_at(-1));
}

static void test_properties(void **state)
{
    (void)state;
    assert_true(nb_block_can_encode(nb_block_find("Q4_K")));
    assert_true(nb_block_uses_importance(nb_block_find("Q4_K")));
    assert_false(nb_block_needs_importance(nb_block_find("Q4_K")));
    assert_false(nb_block_uses_importance(nb_block_find("Q8_0")));
    assert_false(nb_block_can_encode(nb_block_find("IQ2_XXS")));
    assert_true(nb_block_needs_importance(nb_block_find("IQ2_XXS")));
    assert_false(nb_block_needs_importance(nb_block_find("IQ3_S")));
}

/* Rows that meet every branch: ordinary, with outliers, runs of one value, zeros, one sign, and scales from
 * subnormal to huge. */
static void make_row(struct nb_rng *rng, float *x, int n)
{
    static const float sizes[] = {1.0f, 0.02f, 1e-6f, 1e-15f, 1e-20f, 1e-39f, 1e5f, 1e9f};
    for (int i = 0; i < n; i += 16) {
        const float size = sizes[nb_rng_below(rng, 3) ? 1 : nb_rng_below(rng, 8)];
        const int kind = (int)nb_rng_below(rng, 8);
        const float same = (float)nb_rng_normal(rng);
        for (int k = i; k < i + 16; k++) {
            float v = (float)nb_rng_normal(rng);
            if (kind == 0) v = 0.0f;
            if (kind == 1) v = same;
            if (kind == 2) v = fabsf(v);
            if (kind == 3) v = -fabsf(v);
            if (kind == 4 && k % 16 == 5) v *= 40.0f;
            if (kind == 5) v = (float)(k % 9 - 4);
            x[k] = v * size;
            if (!(fabsf(x[k]) <= 1e9f)) x[k] = 1e9f;
        }
    }
}

static void make_importance(struct nb_rng *rng, float *w, int n)
{
    for (int i = 0; i < n; i++) {
        w[i] = (float)exp(2.0 * nb_rng_normal(rng));
        if (i / 32 % 5 == 4) w[i] = 0.0f;
    }
}

static const char *const kinds[NB_BLOCK_KINDS] = {"Q4_0",   "Q4_1",   "Q5_0", "Q5_1", "Q8_0",
                                                  "Q2_K",   "Q3_K",   "Q4_K", "Q5_K", "Q6_K",
                                                  "IQ4_NL", "IQ4_XS", "MXFP4"};

static void test_levels_agree(void **state)
{
    (void)state;
    enum { MAX = 256 * 20, MAX_BYTES = MAX * 36 / 32 };
    static float x[MAX], w[MAX], values[MAX], want_values[MAX];
    static unsigned char out[MAX_BYTES + 1], want[MAX_BYTES + 1];
    struct nb_rng rng;
    nb_rng_init(&rng, 5);
    for (int trial = 0; trial < 400; trial++) {
        const int kind = trial % NB_BLOCK_KINDS;
        const struct nb_block_type *t = nb_block_find(kinds[kind]);
        const int n = t->elems * (1 + (int)nb_rng_below(&rng, 20));
        const float *importance = trial / NB_BLOCK_KINDS % 2 ? w : NULL;
        const size_t bytes = nb_block_row_bytes(t, n);
        make_row(&rng, x, n);
        make_importance(&rng, w, n);
        memset(want, 0xa5, sizeof want);
        nb_block_level_at(0)->encode[kind](x, importance, n, want);
        nb_block_level_at(0)->decode[kind](want, want_values, n);
        assert_int_equal(want[bytes], 0xa5);
        for (int l = 1; nb_block_level_at(l); l++) {
            const struct nb_block_level *level = nb_block_level_at(l);
            memset(out, 0xa5, sizeof out);
            level->encode[kind](x, importance, n, out);
            for (size_t i = 0; i <= bytes; i++) {
                if (out[i] == want[i]) continue;
                fail_msg("%s at %s, %d columns%s: byte %zu differs", t->name, level->name, n,
                         importance ? " with importance" : "", i);
            }
            level->decode[kind](want, values, n);
            if (memcmp(values, want_values, (size_t)n * sizeof *values) != 0)
                fail_msg("%s at %s: values differ", t->name, level->name);
        }
    }
}

/* What is encoded stays near what it was, so that no case of the above is agreement on nonsense. */
static void test_errors_are_small(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double most; /* rmse of normal numbers, in their standard deviation */
    } types[] = {
        {"Q4_0", 0.10},  {"Q4_1", 0.09},  {"Q5_0", 0.05},  {"Q5_1", 0.045}, {"Q8_0", 0.007},
        {"Q8_1", 0.007}, {"Q8_K", 0.01},  {"Q2_K", 0.35},  {"Q3_K", 0.19},  {"Q4_K", 0.085},
        {"Q5_K", 0.045}, {"Q6_K", 0.025}, {"IQ4_NL", 0.1}, {"IQ4_XS", 0.1}, {"MXFP4", 0.15},
        {"NVFP4", 0.13}, {"TQ2_0", 0.95}, {"TQ1_0", 0.95}, {"Q1_0", 0.8},   {"Q2_0", 0.95},
        {"F16", 0.001},  {"BF16", 0.01},  {"F32", 1e-9},
    };
    enum { N = 4096 };
    static float x[N], y[N];
    static unsigned char out[N * 4];
    struct nb_rng rng;
    struct nb_err err = {0};
    nb_rng_init(&rng, 6);
    for (int i = 0; i < N; i++) x[i] = (float)nb_rng_normal(&rng);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const struct nb_block_type *t = nb_block_find(types[i].name);
        if (nb_block_encode(t, x, NULL, N, out, &err)) fail_msg("%s: %s", t->name, err.text);
        t->decode(out, y, N);
        double sum = 0;
        for (int k = 0; k < N; k++) sum += ((double)y[k] - x[k]) * ((double)y[k] - x[k]);
        if (sqrt(sum / N) > types[i].most)
            fail_msg("%s: rmse %g, at most %g", t->name, sqrt(sum / N), types[i].most);
    }
}

static void refuses(const char *type, const float *x, const float *w, int64_t n, const char *text)
{
    static unsigned char out[4096];
    struct nb_err err = {0};
    int rc = nb_block_encode(nb_block_find(type), x, w, n, out, &err);
    assert_int_equal(rc, n % 32 || strncmp(type, "IQ2", 3) == 0 ? NB_E_SPEC : NB_E_NUMERIC);
    assert_string_equal(err.text, text);
}

static void test_refusals(void **state)
{
    (void)state;
    float x[256], w[256];
    for (int i = 0; i < 256; i++) {
        x[i] = (float)(i % 7) - 3.0f;
        w[i] = 1.0f;
    }
    refuses("Q4_K", x, NULL, 250, "a row of 250 columns is no whole number of Q4_K blocks of 256");
    refuses("IQ2_S", x, NULL, 256, "IQ2_S can be read but not written");
    x[77] = NAN;
    refuses("Q4_K", x, NULL, 256, "column 77 is nan, expected a finite number");
    x[77] = -INFINITY;
    refuses("F32", x, NULL, 256, "column 77 is -inf, expected a finite number");
    x[77] = 65520.0f;
    refuses("F16", x, NULL, 256, "column 77 is 65520, too large for F16");
    x[77] = FLT_MAX;
    refuses("BF16", x, NULL, 256, "column 77 is 3.40282e+38, too large for BF16");
    refuses("Q6_K", x, NULL, 256, "column 77 is 3.40282e+38, too large for Q6_K");
    x[77] = 3000.0f;
    refuses("NVFP4", x, NULL, 256, "column 77 is 3000, too large for NVFP4");
    x[77] = -120000.0f;
    refuses(
        "Q4_1", x, NULL, 256,
        "column 77 is -120000: a scale of its Q4_1 block does not fit f16, which ends at 65504");
    refuses(
        "Q5_1", x, w, 256,
        "column 77 is -120000: a scale of its Q5_1 block does not fit f16, which ends at 65504");
    x[77] = 1e9f;
    static const char *const halves[] = {"Q4_0",   "Q5_0",  "Q8_0", "Q2_K",  "Q3_K",
                                         "Q4_K",   "Q5_K",  "Q6_K", "TQ1_0", "IQ4_NL",
                                         "IQ4_XS", "TQ2_0", "Q1_0", "Q2_0"};
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) {
        char text[160];
        snprintf(
            text, sizeof text,
            "column 77 is 1e+09: a scale of its %s block does not fit f16, which ends at 65504",
            halves[i]);
        refuses(halves[i], x, NULL, 256, text);
        if (nb_block_uses_importance(nb_block_find(halves[i]))) refuses(halves[i], x, w, 256, text);
    }
    x[77] = 1.0f;
    w[3] = -1.0f;
    refuses("Q4_K", x, w, 256, "the importance of column 3 is -1, expected 0 to 1e+18");
    w[3] = INFINITY;
    refuses("Q4_K", x, w, 256, "the importance of column 3 is inf, expected 0 to 1e+18");
    unsigned char out[288];
    assert_int_equal(nb_block_encode(nb_block_find("Q8_0"), x, w, 256, out, NULL),
                     0); /* not looked at */
}

/* Blocks of subnormal numbers have finite scales and no undefined conversion. */
static void test_subnormal(void **state)
{
    (void)state;
    float x[256], y[256], w[256];
    unsigned char out[1024];
    for (int i = 0; i < 256; i++) {
        x[i] = (float)(i % 5 - 2) * 1e-40f;
        w[i] = 1.0f;
    }
    for (int i = 0; nb_block_at(i); i++) {
        const struct nb_block_type *t = nb_block_at(i);
        struct nb_err err = {0};
        if (!nb_block_can_encode(t)) continue;
        for (int with = 0; with < 2; with++) {
            if (nb_block_encode(t, x, with ? w : NULL, 256, out, &err))
                fail_msg("%s: %s", t->name, err.text);
            t->decode(out, y, 256);
            for (int k = 0; k < 256; k++) assert_true(fabsf(y[k]) < 1e-6f);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),        cmocka_unit_test(test_properties),
        cmocka_unit_test(test_levels_agree), cmocka_unit_test(test_errors_are_small),
        cmocka_unit_test(test_refusals),     cmocka_unit_test(test_subnormal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
