/* SPDX-License-Identifier: Apache-2.0
 *
 * test_logits.c - every model of tests/golden/models against the logits the reference computed for
 * it: whole, through sessions fed in stretches, and layer by layer; on every CPU level this machine
 * has. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "container/safetensors.h"
#include "engine/engine.h"
#include "support/folder.h"

static const double TOLERANCE = 2e-4; /* of the largest logit */

struct golden { /* one model and what is known of it */
    char name[256];
    struct nb_model *model;
    struct nb_safetensors *expected;
    int32_t *ids;
    int64_t n, vocab;
    float *logits; /* [n, vocab] */
    double largest;
};

static void require(int rc, const struct nb_err *err)
{
    if (rc) fail_msg("%s", err->text);
}

static void open_golden(struct golden *g, const char *folder, const char *name)
{
    struct nb_err err = {0};
    memset(g, 0, sizeof *g);
    snprintf(g->name, sizeof g->name, "%s", name);
    char *dir = nb_path_join(folder, name), *file = nb_path_join(dir, "expected.safetensors");
    require(nb_model_open(&g->model, dir, &err), &err);
    require(nb_safetensors_open(&g->expected, file, &err), &err);
    const struct nb_tensor *ids = nb_safetensors_find(g->expected, "ids");
    const struct nb_tensor *logits = nb_safetensors_find(g->expected, "logits");
    assert_non_null(ids);
    assert_non_null(logits);
    assert_int_equal(ids->dtype, NB_I64);
    assert_int_equal(logits->dtype, NB_F32);
    g->n = ids->shape[0];
    g->vocab = logits->shape[1];
    assert_int_equal(logits->shape[0], g->n);
    assert_int_equal(g->vocab, g->model->arch.vocab_size);
    g->ids = nb_alloc((size_t)g->n, sizeof *g->ids);
    g->logits = nb_alloc((size_t)(g->n * g->vocab), sizeof *g->logits);
    for (int64_t i = 0; i < g->n; i++) {
        int64_t id;
        memcpy(&id, ids->data.data + i * 8, sizeof id);
        g->ids[i] = (int32_t)id;
    }
    memcpy(g->logits, logits->data.data, logits->data.bytes);
    for (int64_t i = 0; i < g->n * g->vocab; i++)
        g->largest = fmax(g->largest, fabs((double)g->logits[i]));
    nb_free(dir);
    nb_free(file);
}

static void close_golden(struct golden *g)
{
    nb_safetensors_close(g->expected);
    nb_model_close(g->model);
    nb_free(g->ids);
    nb_free(g->logits);
}

/* logits of row `at` within the tolerance. */
static void check_row(const struct golden *g, const float *logits, int64_t at, const char *how)
{
    double worst = 0;
    for (int64_t i = 0; i < g->vocab; i++) {
        double d = fabs((double)logits[i] - (double)g->logits[at * g->vocab + i]);
        worst = d > worst || isnan(d) ? d : worst;
    }
    if (!(worst <= TOLERANCE * g->largest)) {
        fail_msg("%s, %s: token %lld: off by %g, largest logit %g", g->name, how, (long long)at,
                 worst, g->largest);
    }
}

static void check_whole(const struct golden *g, struct nb_engine *e, float *hidden)
{
    struct nb_err err = {0};
    float *logits = nb_alloc((size_t)(g->n * g->vocab), sizeof *logits);
    require(nb_engine_hidden(e, g->ids, g->n, hidden, &err), &err);
    nb_engine_logits(e, hidden, g->n, logits);
    for (int64_t t = 0; t < g->n; t++) check_row(g, logits + t * g->vocab, t, "whole");
    nb_free(logits);
}

static void check_session(const struct golden *g, struct nb_engine *e, int64_t step)
{
    /* Rope that depends on the length gives a growing sequence other angles than a whole one, in the
     * reference too. */
    int64_t n = g->n;
    const struct nb_rope *rope = &g->model->arch.rope;
    if (rope->kind == NB_ROPE_DYNAMIC && step < n) n = g->model->arch.max_position;
    if (rope->kind == NB_ROPE_LONGROPE && step < n && n > rope->original_max_position)
        n = rope->original_max_position;
    struct nb_err err = {0};
    struct nb_session *s;
    char how[32];
    snprintf(how, sizeof how, "session by %lld", (long long)step);
    float *logits = nb_alloc((size_t)g->vocab, sizeof *logits);
    require(nb_session_new(&s, e, n, &err), &err);
    if (n < g->n) { /* no stored logits for a shorter sequence: compare with a whole run */
        float *hidden = nb_alloc((size_t)(n * g->model->arch.hidden_size), sizeof *hidden);
        float *want = nb_alloc((size_t)g->vocab, sizeof *want);
        require(nb_engine_hidden(e, g->ids, n, hidden, &err), &err);
        nb_engine_logits(e, hidden + (n - 1) * g->model->arch.hidden_size, 1, want);
        for (int64_t t = 0; t < n; t += step) {
            int64_t count = n - t < step ? n - t : step;
            require(nb_session_eval(s, g->ids + t, count, logits, &err), &err);
        }
        for (int64_t i = 0; i < g->vocab; i++) {
            assert_true(fabs((double)logits[i] - (double)want[i]) <= TOLERANCE * g->largest);
        }
        nb_free(hidden);
        nb_free(want);
    } else {
        for (int64_t t = 0; t < n; t += step) {
            int64_t count = n - t < step ? n - t : step;
            require(nb_session_eval(s, g->ids + t, count, logits, &err), &err);
            assert_int_equal(nb_session_length(s), t + count);
            check_row(g, logits, t + count - 1, how);
        }
    }
    nb_session_free(s);
    nb_free(logits);
}

/* The pipeline's way: two windows of the same tokens, every input on its own. Must give the same
 * bits. */
static void check_layers(const struct golden *g, struct nb_backend *be, const float *hidden)
{
    const struct nb_arch *a = &g->model->arch;
    struct nb_err err = {0};
    enum { WINDOWS = 2 };
    const int64_t rows = WINDOWS * g->n;
    float *h = nb_alloc((size_t)(rows * a->hidden_size), sizeof *h), *in[NB_INPUT_COUNT];
    for (int i = 0; i < NB_INPUT_COUNT; i++) {
        in[i] = nb_alloc((size_t)(rows * nb_input_width(a, (enum nb_input)i)), sizeof **in);
    }
    for (int w = 0; w < WINDOWS; w++) {
        require(nb_layer_embed(g->model, be, g->ids, g->n, h + w * g->n * a->hidden_size, &err),
                &err);
    }
    for (int64_t l = 0; l < a->n_layers; l++) {
        struct nb_layer *layer;
        require(nb_layer_load(&layer, g->model, l, be, &err), &err);
        for (int i = 0; i < NB_INPUT_COUNT; i++) {
            const struct nb_layer_io io = {
                .h = h, .x = i ? in[i - 1] : NULL, .y = in[i], .n_windows = WINDOWS, .t = g->n};
            require(nb_layer_step(layer, (enum nb_input)i, &io, &err), &err);
        }
        require(nb_layer_finish(layer, h, in[NB_INPUT_DOWN], WINDOWS, g->n, &err), &err);
        nb_layer_free(layer);
    }
    require(nb_layer_final_norm(g->model, be, h, rows, h, &err), &err);
    size_t bytes = (size_t)(g->n * a->hidden_size) * sizeof *h;
    for (int w = 0; w < WINDOWS; w++) {
        if (memcmp(h + w * g->n * a->hidden_size, hidden, bytes) != 0)
            fail_msg("%s: layers give other bits", g->name);
    }
    nb_free(h);
    for (int i = 0; i < NB_INPUT_COUNT; i++) nb_free(in[i]);
}

static void check_model(const struct golden *g, struct nb_backend *be)
{
    struct nb_err err = {0};
    struct nb_engine *e;
    require(nb_engine_new(&e, g->model, be, &err), &err);
    float *hidden = nb_alloc((size_t)(g->n * g->model->arch.hidden_size), sizeof *hidden);
    check_whole(g, e, hidden);
    check_session(g, e, 1);
    check_session(g, e, 7);
    check_session(g, e, g->n);
    check_layers(g, be, hidden);
    nb_free(hidden);
    nb_engine_free(e);
}

static void check_level(const char *cpu, int threads)
{
    struct nb_err err = {0};
    struct nb_pool *pool = nb_pool_new(threads, &err);
    struct nb_backend *be;
    assert_non_null(pool);
    int rc = nb_backend_new(&be, pool, cpu, &err);
    if (rc == NB_E_SPEC) { /* this machine lacks the level */
        nb_pool_free(pool);
        skip();
    }
    require(rc, &err);
    char *folder = source_path("tests/golden/models"), **names;
    size_t n;
    require(nb_dir_list(folder, &names, &n, &err), &err);
    assert_true(n > 0);
    for (size_t i = 0; i < n; i++) {
        struct golden g;
        open_golden(&g, folder, names[i]);
        check_model(&g, be);
        close_golden(&g);
    }
    nb_dir_list_free(names, n);
    free(folder);
    nb_backend_free(be);
    nb_pool_free(pool);
}

static void test_generic(void **state)
{
    (void)state;
    check_level("generic", 2);
}

static void test_avx2(void **state)
{
    (void)state;
    check_level("avx2", 1);
}

static void test_avx512(void **state)
{
    (void)state;
    check_level("avx512", 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generic),
        cmocka_unit_test(test_avx2),
        cmocka_unit_test(test_avx512),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
