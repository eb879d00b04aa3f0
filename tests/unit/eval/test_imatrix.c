/* SPDX-License-Identifier: Apache-2.0
 *
 * test_imatrix.c - sums of squares against plain loops over the layer API, the embedding and the whole engine;
 * the same for any memory and any number of threads. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "eval/eval.h"
#include "support/folder.h"

enum { N_WINDOWS = 5, T = 40, TOKENS = N_WINDOWS * T };

static struct nb_backend *be, *be3; /* one thread, three */
static struct nb_pool *pool3;

static int setup(void **state)
{
    (void)state;
    struct nb_err err;
    pool3 = nb_pool_new(3, &err);
    if (!pool3 || nb_backend_new(&be, NULL, NULL, &err) || nb_backend_new(&be3, pool3, NULL, &err))
        fail_msg("%s", err.text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    nb_backend_free(be);
    nb_backend_free(be3);
    nb_pool_free(pool3);
    return 0;
}

struct fixture {
    struct nb_model *m;
    int32_t ids[TOKENS];
    struct nb_eval_plan plan;
    struct nb_eval_imatrix_opts opts;
};

static void start(struct fixture *f, const char *name)
{
    struct nb_err err;
    char *dir = source_path(name);
    if (nb_model_open(&f->m, dir, &err)) fail_msg("%s", err.text);
    free(dir);
    uint32_t seed = 5;
    for (int i = 0; i < TOKENS; i++) {
        seed = seed * 1664525u + 1013904223u;
        f->ids[i] = (int32_t)((seed >> 8) % (uint32_t)f->m->arch.vocab_size);
    }
    struct nb_windows w = {.ids = f->ids, .n_windows = N_WINDOWS, .seqlen = T};
    if (nb_eval_plan_windows(&f->plan, &w, &err)) fail_msg("%s", err.text);
    f->opts = (struct nb_eval_imatrix_opts){.model = f->m,
                                            .be = be,
                                            .plan = &f->plan,
                                            .memory_bytes = (uint64_t)1 << 30,
                                            .output_tensor = !f->m->arch.tie_word_embeddings};
}

static void finish(struct fixture *f)
{
    nb_eval_plan_release(&f->plan);
    nb_model_close(f->m);
}

static void measure(struct nb_imatrix *im, const struct nb_eval_imatrix_opts *opts)
{
    struct nb_err err;
    if (nb_eval_imatrix(im, opts, NULL, &err)) fail_msg("%s", err.text);
}

static const struct nb_imatrix_entry *entry(const struct nb_imatrix *im, int64_t cols,
                                            const char *name)
{
    const struct nb_imatrix_entry *e = nb_imatrix_find(im, name);
    if (!e) fail_msg("no entry '%s'", name);
    assert_int_equal(e->cols, cols);
    assert_int_equal(e->n_mat, 1);
    assert_int_equal(e->counts[0], TOKENS);
    return e;
}

static void add_squares(double *sums, const float *x, int64_t rows, int64_t cols)
{
    for (int64_t k = 0; k < cols; k++) {
        for (int64_t r = 0; r < rows; r++) sums[k] += (double)x[r * cols + k] * x[r * cols + k];
    }
}

static void expect(const struct nb_imatrix_entry *e, const double *sums, double tolerance)
{
    for (int64_t k = 0; k < e->cols; k++) {
        if (!(fabs(e->sums[k] - sums[k]) <= tolerance * sums[k]))
            fail_msg("%s, column %d: %.9g is not %.9g", e->name, (int)k, (double)e->sums[k],
                     sums[k]);
    }
}

/* ---- plain loops ---- */

static void check_layer(const struct fixture *f, const struct nb_imatrix *im, int64_t l, float *h)
{
    static const char *const names[NB_INPUT_COUNT][3] = {
        {"attn_q", "attn_k", "attn_v"}, {"attn_output"}, {"ffn_gate", "ffn_up"}, {"ffn_down"}};
    struct nb_err err;
    struct nb_layer *layer;
    float *x = NULL;
    assert_int_equal(nb_layer_load(&layer, f->m, l, be, &err), 0);
    for (int i = 0; i < NB_INPUT_COUNT; i++) {
        const int64_t w = nb_input_width(&f->m->arch, (enum nb_input)i);
        float *y = calloc((size_t)(TOKENS * w), sizeof *y);
        double *sums = calloc((size_t)w, sizeof *sums);
        struct nb_layer_io io = {h, x, y, N_WINDOWS, T};
        assert_int_equal(nb_layer_step(layer, (enum nb_input)i, &io, &err), 0);
        add_squares(sums, y, TOKENS, w);
        for (int n = 0; n < 3 && names[i][n]; n++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%d.%s.weight", (int)l, names[i][n]);
            expect(entry(im, w, name), sums, 6e-8);
        }
        free(sums);
        free(x);
        x = y;
    }
    assert_int_equal(nb_layer_finish(layer, h, x, N_WINDOWS, T, &err), 0);
    free(x);
    nb_layer_free(layer);
}

/* What goes into the first layer needs no layer to know: the embedding, normalized. */
static void check_first(const struct fixture *f, const struct nb_imatrix *im)
{
    const struct nb_arch *a = &f->m->arch;
    const int64_t d = a->hidden_size;
    struct nb_err err;
    struct nb_tensor norm;
    char name[NB_NAME_MAX * 2];
    float *h = calloc((size_t)(TOKENS * d), sizeof *h), *w = calloc((size_t)d, sizeof *w);
    double *sums = calloc((size_t)d, sizeof *sums);
    nb_arch_name(a, 0, a->attn_norm_name, name);
    assert_int_equal(nb_model_tensor(f->m, name, &norm, &err), 0);
    nb_to_f32(w, norm.data.data, norm.dtype, (size_t)d);
    assert_int_equal(nb_layer_embed(f->m, be, f->ids, TOKENS, h, &err), 0);
    for (int64_t r = 0; r < TOKENS; r++) {
        double square = 0;
        for (int64_t k = 0; k < d; k++) square += (double)h[r * d + k] * h[r * d + k];
        const double scale = 1 / sqrt(square / (double)d + a->rms_norm_eps);
        for (int64_t k = 0; k < d; k++) {
            const double v = h[r * d + k] * scale * (w[k] + a->norm_offset);
            sums[k] += v * v;
        }
    }
    expect(entry(im, d, "blk.0.attn_v.weight"), sums, 1e-6);
    free(h);
    free(w);
    free(sums);
}

/* What goes into the head is what the whole engine gives. */
static void check_head(const struct fixture *f, const struct nb_imatrix *im)
{
    const int64_t d = f->m->arch.hidden_size;
    struct nb_err err;
    struct nb_engine *e;
    float *h = calloc((size_t)(T * d), sizeof *h);
    double *sums = calloc((size_t)d, sizeof *sums);
    assert_int_equal(nb_engine_new(&e, f->m, be, &err), 0);
    for (int i = 0; i < N_WINDOWS; i++) {
        assert_int_equal(nb_engine_hidden(e, f->ids + i * T, T, h, &err), 0);
        add_squares(sums, h, T, d);
    }
    expect(entry(im, d, "output.weight"), sums, 1e-6);
    nb_engine_free(e);
    free(h);
    free(sums);
}

static void check_model(const char *name)
{
    struct fixture f;
    struct nb_imatrix im;
    struct nb_err err;
    start(&f, name);
    measure(&im, &f.opts);
    const struct nb_arch *a = &f.m->arch;
    assert_int_equal(im.n, a->n_layers * a->n_linears + f.opts.output_tensor);
    assert_int_equal(im.n_chunks, N_WINDOWS);
    assert_int_equal(im.chunk_size, T);
    assert_int_equal(im.n_datasets, 0);
    assert_false(im.legacy);
    float *h = calloc((size_t)(TOKENS * a->hidden_size), sizeof *h);
    assert_int_equal(nb_layer_embed(f.m, be, f.ids, TOKENS, h, &err), 0);
    for (int64_t l = 0; l < a->n_layers; l++) check_layer(&f, &im, l, h);
    free(h);
    check_first(&f, &im);
    if (f.opts.output_tensor) check_head(&f, &im);
    nb_imatrix_release(&im);
    finish(&f);
}

static void test_families(void **state)
{
    (void)state;
    check_model("tests/golden/models/qwen2-tied-bf16");
    check_model("tests/golden/models/llama3-gqa-bf16");
    check_model("tests/golden/models/llama2-mha-f16");
    check_model("tests/golden/models/qwen3-gqa-bf16");
    check_model("tests/golden/models/gemma2-caps-bf16");
}

/* ---- what must not matter ---- */

static void same(const struct nb_imatrix *a, const struct nb_imatrix *b)
{
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        const struct nb_imatrix_entry *x = &a->entries[i], *y = &b->entries[i];
        assert_string_equal(x->name, y->name);
        assert_int_equal(x->cols, y->cols);
        assert_memory_equal(x->sums, y->sums, (size_t)x->cols * sizeof *x->sums);
        assert_int_equal(x->counts[0], y->counts[0]);
    }
}

static void test_memory_and_threads(void **state)
{
    (void)state;
    struct fixture f;
    struct nb_imatrix im, other;
    start(&f, "tests/golden/models/llama2-mha-f16");
    measure(&im, &f.opts);
    const uint64_t window = (uint64_t)T * (uint64_t)f.m->arch.hidden_size * sizeof(float);
    const uint64_t memory[] = {0, 2 * window, 3 * window + 1, (uint64_t)1 << 30};
    for (size_t i = 0; i < 4; i++) { /* one window at a time, two, three, all */
        f.opts.memory_bytes = memory[i];
        f.opts.be = i % 2 ? be3 : be;
        measure(&other, &f.opts);
        same(&im, &other);
        nb_imatrix_release(&other);
    }
    nb_imatrix_release(&im);
    finish(&f);
}

/* ---- refused ---- */

static void test_tied_head(void **state)
{
    (void)state;
    struct fixture f;
    struct nb_imatrix im;
    struct nb_err err;
    start(&f, "tests/golden/models/qwen2-tied-bf16");
    f.opts.output_tensor = true;
    assert_int_equal(nb_eval_imatrix(&im, &f.opts, NULL, &err), NB_E_SPEC);
    assert_string_equal(err.text, "the model's head is its token embedding, which an importance "
                                  "matrix has no entry for");
    assert_int_equal(im.n, 0);
    nb_imatrix_release(&im);
    finish(&f);
}

static void test_not_finite(void **state)
{
    (void)state;
    struct fixture f;
    struct nb_imatrix im;
    struct nb_err err;
    start(&f, "tests/golden/models/llama2-mha-f16");
    f.m->arch.embed_scale = (double)INFINITY;
    assert_int_equal(nb_eval_imatrix(&im, &f.opts, NULL, &err), NB_E_NUMERIC);
    assert_string_equal(err.text, "layer 0: column 0 of what goes into 'self_attn.q_proj' is not "
                                  "finite or too large to sum up");
    nb_imatrix_release(&im);
    finish(&f);
}

static bool stop(void *ctx)
{
    (void)ctx;
    return true;
}

static void test_stop(void **state)
{
    (void)state;
    struct fixture f;
    struct nb_imatrix im;
    struct nb_err err;
    struct nb_progress progress = {.stop = stop};
    start(&f, "tests/golden/models/llama2-mha-f16");
    assert_int_equal(nb_eval_imatrix(&im, &f.opts, &progress, &err), NB_E_INTERRUPTED);
    assert_int_equal(im.n, 0);
    nb_imatrix_release(&im);
    finish(&f);
}

struct seen {
    uint64_t done, total;
    int lines;
};

static void see(void *ctx, const struct nb_progress_event *event)
{
    struct seen *s = ctx;
    assert_true(event->done > s->done);
    *s = (struct seen){event->done, event->total, s->lines + event->item_done};
}

/* Rises to the total, with a line for each layer of each turn. */
static void test_progress(void **state)
{
    (void)state;
    struct fixture f;
    struct nb_imatrix im;
    struct nb_err err;
    struct seen seen = {0};
    struct nb_progress progress = {.report = see, .ctx = &seen};
    start(&f, "tests/golden/models/llama2-mha-f16");
    const int64_t layers = f.m->arch.n_layers;
    f.opts.memory_bytes = 2 * (uint64_t)T * (uint64_t)f.m->arch.hidden_size * sizeof(float);
    assert_int_equal(nb_eval_imatrix(&im, &f.opts, &progress, &err), 0);
    assert_int_equal(seen.done, N_WINDOWS * layers);
    assert_int_equal(seen.total, N_WINDOWS * layers);
    assert_int_equal(seen.lines, 3 * layers);
    nb_imatrix_release(&im);
    finish(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),  cmocka_unit_test(test_memory_and_threads),
        cmocka_unit_test(test_tied_head), cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_stop),      cmocka_unit_test(test_progress),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
