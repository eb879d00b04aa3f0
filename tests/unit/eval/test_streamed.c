/* SPDX-License-Identifier: Apache-2.0
 *
 * test_streamed.c - one layer at a time gives the figures of the whole engine, for any memory. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "eval/eval.h"
#include "support/folder.h"

enum { N_WINDOWS = 5, T = 40 };

static struct nb_backend *be;

static int setup(void **state)
{
    (void)state;
    struct nb_err err;
    if (nb_backend_new(&be, NULL, NULL, &err)) fail_msg("%s", err.text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    nb_backend_free(be);
    return 0;
}

static struct nb_model *open_model(const char *name)
{
    struct nb_err err;
    struct nb_model *m;
    char *dir = source_path(name);
    if (nb_model_open(&m, dir, &err)) fail_msg("%s", err.text);
    free(dir);
    return m;
}

static void fill(int32_t *ids, int64_t vocabulary)
{
    uint32_t seed = 5;
    for (int i = 0; i < N_WINDOWS * T; i++) {
        seed = seed * 1664525u + 1013904223u;
        ids[i] = (int32_t)((seed >> 8) % (uint32_t)vocabulary);
    }
}

static void same(double a, double b)
{
    if (!(fabs(a - b) <= 1e-5 * fabs(b) + 1e-9)) fail_msg("%.17g is not %.17g", a, b);
}

static void check(const char *name, const char *base_name)
{
    struct nb_model *m = open_model(name), *base = open_model(base_name);
    struct nb_engine *e, *eb;
    struct nb_err err;
    struct nb_eval_result whole, streamed;
    int32_t ids[N_WINDOWS * T];
    fill(ids, m->arch.vocab_size);
    struct nb_windows w = {.ids = ids, .n_windows = N_WINDOWS, .seqlen = T};
    assert_int_equal(nb_engine_new(&e, m, be, &err), 0);
    assert_int_equal(nb_engine_new(&eb, base, be, &err), 0);
    if (nb_eval_windows(&whole, e, eb, &w, NULL, &err)) fail_msg("%s", err.text);
    nb_engine_free(e);
    nb_engine_free(eb);
    struct nb_eval_models models = {m, base, be};
    const uint64_t memory[] = {0, 3 * (uint64_t)T * 2 * 64 * sizeof(float), (uint64_t)1 << 30};
    for (size_t i = 0; i < 3; i++) { /* one window at a time, a few, all */
        if (nb_eval_streamed(&streamed, &models, &w, memory[i], NULL, &err))
            fail_msg("%s", err.text);
        assert_int_equal(streamed.n_tokens, N_WINDOWS * (T - 1));
        same(streamed.ppl, whole.ppl);
        same(streamed.compare.ppl_base, whole.compare.ppl_base);
        same(streamed.compare.ppl_ratio_hi, whole.compare.ppl_ratio_hi);
        assert_true(fabs(streamed.compare.kld_mean - whole.compare.kld_mean) < 1e-6);
        same(streamed.compare.same_top, whole.compare.same_top);
    }
    nb_model_close(m);
    nb_model_close(base);
}

static void test_families(void **state)
{
    (void)state;
    check("tests/golden/models/qwen2-tied-bf16", "tests/golden/models/qwen2-some-slide");
    check("tests/golden/models/llama3-gqa-bf16", "tests/golden/models/llama3-gqa-bf16");
    check("tests/golden/models/mistral-window-bf16", "tests/golden/models/qwen3-gqa-bf16");
    check("tests/golden/models/gemma2-caps-bf16", "tests/golden/models/gemma3-old-bf16");
}

static bool stop(void *ctx)
{
    (void)ctx;
    return true;
}

static void test_stop(void **state)
{
    (void)state;
    struct nb_model *m = open_model("tests/golden/models/qwen2-tied-bf16");
    int32_t ids[N_WINDOWS * T];
    fill(ids, m->arch.vocab_size);
    struct nb_windows w = {.ids = ids, .n_windows = N_WINDOWS, .seqlen = T};
    struct nb_eval_models models = {m, NULL, be};
    struct nb_progress progress = {.stop = stop};
    struct nb_eval_result r;
    struct nb_err err;
    assert_int_equal(nb_eval_streamed(&r, &models, &w, 0, &progress, &err), NB_E_INTERRUPTED);
    nb_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_stop),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
