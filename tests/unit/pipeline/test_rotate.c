/* SPDX-License-Identifier: Apache-2.0
 *
 * test_rotate.c - a rotated model computes what the model did: logits before and after, and weights that are not
 * what they were; families where that cannot be are refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "engine/engine.h"
#include "pipeline/pipeline.h"
#include "support/folder.h"

enum { TOKENS = 24 };

struct machine {
    struct nb_pool *pool;
    struct nb_backend *be;
};

static int set_up(void **state)
{
    struct machine *m = nb_xalloc(sizeof *m);
    struct nb_err err = {0};
    m->pool = nb_pool_new(3, &err);
    if (!m->pool || nb_backend_new(&m->be, m->pool, NULL, &err)) return -1;
    *state = m;
    return 0;
}

static int tear_down(void **state)
{
    struct machine *m = *state;
    nb_backend_free(m->be);
    nb_pool_free(m->pool);
    nb_free(m);
    return 0;
}

/* A golden model with all tensors in f32, so that nothing but the rotation itself is rounded. */
static char *write_f32(const char *name)
{
    struct nb_err err = {0};
    char relative[256], *dir = folder_make(), *text = NULL;
    snprintf(relative, sizeof relative, "tests/golden/models/%s", name);
    char *path = source_path(relative);
    struct nb_model *model;
    if (nb_model_open(&model, path, &err)) fail_msg("%s", err.text);
    struct nb_st_writer *w = nb_st_writer_new();
    const size_t n = nb_safetensors_count(model->tensors);
    for (size_t i = 0; i < n; i++) {
        const struct nb_tensor *t = nb_safetensors_at(model->tensors, i);
        if (nb_st_writer_plan(w, t->name, NB_F32, t->rank, t->shape, &err))
            fail_msg("%s", err.text);
    }
    if (nb_st_writer_open(w, &(struct nb_st_writer_opts){.dir = dir}, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < n; i++) {
        const struct nb_tensor *t = nb_safetensors_at(model->tensors, i);
        const size_t count = (size_t)nb_tensor_count(t);
        float *x = nb_xalloc(count * sizeof *x);
        assert_true(nb_to_f32(x, t->data.data, t->dtype, count));
        if (nb_st_writer_put(w, t->name, x, count * sizeof *x, &err)) fail_msg("%s", err.text);
        nb_free(x);
    }
    assert_int_equal(nb_st_writer_finish(w, &err), 0);
    nb_st_writer_free(w);
    text = json_dumps(model->config, 0);
    folder_text(dir, "config.json", text);
    free(text);
    nb_model_close(model);
    free(path);
    return dir;
}

/* Returns the vocabulary; logits [TOKENS, vocabulary] of nb_alloc. */
static int64_t logits_of(const struct machine *m, const char *dir, float **logits)
{
    struct nb_err err = {0};
    struct nb_model *model;
    struct nb_engine *engine;
    if (nb_model_open(&model, dir, &err) || nb_engine_new(&engine, model, m->be, &err))
        fail_msg("%s", err.text);
    const int64_t v = model->arch.vocab_size, d = model->arch.hidden_size;
    int32_t ids[TOKENS];
    for (int i = 0; i < TOKENS; i++) ids[i] = (int32_t)((i * 7 + 3) % v);
    float *hidden = nb_xalloc((size_t)(TOKENS * d) * sizeof *hidden);
    *logits = nb_xalloc((size_t)(TOKENS * v) * sizeof **logits);
    if (nb_engine_hidden(engine, ids, TOKENS, hidden, &err)) fail_msg("%s", err.text);
    nb_engine_logits(engine, hidden, TOKENS, *logits);
    nb_free(hidden);
    nb_engine_free(engine);
    nb_model_close(model);
    return v;
}

static int rotate(const struct machine *m, const char *from, const char *to, struct nb_err *err)
{
    struct nb_quantize_opts o;
    struct nb_quantize_report report;
    nb_quantize_defaults(&o);
    o.model_dir = from;
    o.out_dir = to;
    o.method = "none";
    o.rotate = true;
    const int rc = nb_quantize(&report, &o, m->be, &(struct nb_progress){.report = NULL}, err);
    nb_quantize_report_release(&report);
    return rc;
}

static void check_config_and_norms(const char *dir)
{
    struct nb_err err = {0};
    struct nb_model *model;
    if (nb_model_open(&model, dir, &err)) fail_msg("%s", err.text);
    assert_false(model->arch.tie_word_embeddings);
    char name[NB_NAME_MAX * 2];
    nb_arch_name(&model->arch, 0, model->arch.attn_norm_name, name);
    struct nb_tensor norm;
    assert_int_equal(nb_model_tensor(model, name, &norm, &err), 0);
    float *x = nb_xalloc((size_t)model->arch.hidden_size * sizeof *x);
    assert_true(nb_to_f32(x, norm.data.data, norm.dtype, (size_t)model->arch.hidden_size));
    for (int64_t i = 0; i < model->arch.hidden_size; i++)
        assert_true(x[i] + model->arch.norm_offset == 1.0);
    nb_free(x);
    nb_model_close(model);
}

static void check_identity(const struct machine *m, const char *name)
{
    struct nb_err err = {0};
    char *from = write_f32(name), *above = folder_make(), *to = nb_path_join(above, "rotated");
    if (rotate(m, from, to, &err)) fail_msg("%s: %s", name, err.text);
    float *before, *after;
    const int64_t v = logits_of(m, from, &before);
    assert_int_equal(logits_of(m, to, &after), v);
    double most = 0, moved = 0;
    for (int64_t i = 0; i < TOKENS * v; i++) {
        most = fmax(most, fabs((double)before[i]));
        moved = fmax(moved, fabs((double)after[i] - before[i]));
    }
    if (!(moved < 1e-5 * most)) fail_msg("%s: logits moved by %g of %g", name, moved, most);
    check_config_and_norms(to);
    nb_free(before);
    nb_free(after);
    nb_free(to);
    folder_remove(above);
    folder_remove(from);
}

/* Grouped heads, biases, tied and untied heads, fused matrices, norms of q and k, experts one by one and stacked. */
static void test_logits_stay(void **state)
{
    static const char *const names[] = {
        "llama2-mha-f16", "llama3-gqa-bf16", "llama-bias-f32",       "qwen2-tied-bf16",
        "qwen3-gqa-bf16", "phi3-short-bf16", "mixtral-bf16",         "mixtral-stacked-f16",
        "qwen2-moe-bf16", "qwen3-moe-bf16",  "qwen2-moe-stacked-f32"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) check_identity(*state, names[i]);
}

static void test_refusals(void **state)
{
    static const char *const cases[][2] = {
        {"gemma2-caps-bf16", "normalized before they join the stream"},
        {"olmo2-post-bf16", "normalized before they join the stream"},
        {"gpt2-base-bf16", "LayerNorms"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_err err = {0};
        char *from = write_f32(cases[i][0]), *above = folder_make();
        char *to = nb_path_join(above, "rotated");
        assert_int_equal(rotate(*state, from, to, &err), NB_E_SPEC);
        if (!strstr(err.text, cases[i][1])) fail_msg("%s", err.text);
        assert_false(nb_path_exists(to));
        nb_free(to);
        folder_remove(above);
        folder_remove(from);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_stay),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
