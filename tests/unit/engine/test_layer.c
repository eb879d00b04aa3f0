/* SPDX-License-Identifier: Apache-2.0
 *
 * test_layer.c - replaced weights take effect, equal ones change no bit, and an AWQ fold keeps the
 * function. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "load.h"

enum { T = 40 };

struct outputs {
    float *h;
    float *in[NB_INPUT_COUNT];
};

static struct outputs run_layer(struct loaded *l, struct nb_layer *layer)
{
    const struct nb_arch *a = &l->model->arch;
    struct nb_err err = {0};
    struct outputs out = {.h = load_floats(T * a->hidden_size)};
    int32_t ids[T];
    for (int i = 0; i < T; i++) ids[i] = i * 3 % 80;
    assert_int_equal(nb_layer_embed(l->model, l->be, ids, T, out.h, &err), 0);
    for (int i = 0; i < NB_INPUT_COUNT; i++) {
        out.in[i] = load_floats(T * nb_input_width(a, (enum nb_input)i));
        const struct nb_layer_io io = {
            .h = out.h, .x = i ? out.in[i - 1] : NULL, .y = out.in[i], .n_windows = 1, .t = T};
        assert_int_equal(nb_layer_step(layer, (enum nb_input)i, &io, &err), 0);
    }
    assert_int_equal(nb_layer_finish(layer, out.h, out.in[NB_INPUT_DOWN], 1, T, &err), 0);
    return out;
}

static void outputs_release(struct outputs *o)
{
    nb_free(o->h);
    for (int i = 0; i < NB_INPUT_COUNT; i++) nb_free(o->in[i]);
}

/* Weight and bias of linear i of layer 0 in f32. */
static float *weight_of(struct loaded *l, int i, float **bias)
{
    const struct nb_arch_linear *lin = &l->model->arch.linears[i];
    struct nb_err err = {0};
    struct nb_arena arena;
    struct nb_weight w;
    nb_arena_init(&arena);
    assert_int_equal(nb_model_linear(l->model, 0, lin, &arena, &w, &err), 0);
    float *f = load_floats(lin->rows * lin->cols);
    for (int64_t r = 0; r < lin->rows; r++) nb_weight_row(&w, r, f + r * lin->cols);
    *bias = NULL;
    if (lin->bias) {
        *bias = load_floats(lin->rows);
        assert_true(nb_to_f32(*bias, w.bias.data.data, w.bias.dtype, (size_t)lin->rows));
    }
    nb_arena_release(&arena);
    return f;
}

static void test_equal_weights_equal_bits(void **state)
{
    (void)state;
    static const char *const models[] = {"llama-bias-f32",   "qwen2-tied-bf16",
                                         "qwen3-gqa-bf16",   "mistral-window-bf16",
                                         "gemma2-caps-bf16", "gemma3-types-f32"};
    for (int m = 0; m < 6; m++) {
        struct loaded l = load_golden(models[m], 2);
        struct nb_err err = {0};
        struct nb_layer *layer;
        assert_int_equal(nb_layer_load(&layer, l.model, 0, l.be, &err), 0);
        struct outputs before = run_layer(&l, layer);
        float *w[NB_MAX_LINEARS], *bias;
        const int n = l.model->arch.n_linears;
        for (int i = 0; i < n; i++) {
            w[i] = weight_of(&l, i, &bias);
            assert_int_equal(nb_layer_replace(layer, i, w[i], bias, &err), 0);
            nb_free(bias); /* copied */
        }
        struct outputs after = run_layer(&l, layer);
        const size_t bytes = (size_t)(T * l.model->arch.hidden_size) * sizeof(float);
        assert_memory_equal(before.h, after.h, bytes);
        w[0][0] += 1; /* borrowed: seen at once */
        struct outputs changed = run_layer(&l, layer);
        assert_memory_not_equal(before.h, changed.h, bytes);
        outputs_release(&before);
        outputs_release(&after);
        outputs_release(&changed);
        nb_layer_free(layer);
        for (int i = 0; i < n; i++) nb_free(w[i]);
        load_release(&l);
    }
}

/* Divides what fold->from gives by s, multiplies the columns of the linears that read it. */
static void apply_fold(struct loaded *l, struct nb_layer *layer, const struct nb_arch_fold *fold,
                       const float *s, float **w, float **bias)
{
    const struct nb_arch *a = &l->model->arch;
    if (fold->kind == NB_FOLD_NORM) {
        float *norm = nb_layer_norm(layer, fold->to);
        for (int64_t i = 0; i < a->hidden_size; i++) norm[i] /= s[i];
    }
    for (int i = 0; i < a->n_linears; i++) {
        const struct nb_arch_linear *lin = &a->linears[i];
        if (fold->kind == NB_FOLD_LINEAR && strcmp(lin->name, fold->from) == 0) {
            for (int64_t r = 0; r < lin->rows; r++) {
                for (int64_t k = 0; k < lin->cols; k++) w[i][r * lin->cols + k] /= s[r];
                if (bias[i]) bias[i][r] /= s[r];
            }
        }
        if (lin->input != fold->to) continue;
        for (int64_t r = 0; r < lin->rows; r++) {
            for (int64_t k = 0; k < lin->cols; k++) {
                /* column [kv head][repeat][dim] is fed by channel [kv head][dim] */
                int64_t from =
                    fold->repeat > 1
                        ? k / (fold->repeat * fold->head_dim) * fold->head_dim + k % fold->head_dim
                        : k;
                w[i][r * lin->cols + k] *= s[from];
            }
        }
    }
}

static void check_folds(const char *model)
{
    struct loaded l = load_golden(model, 1);
    const struct nb_arch *a = &l.model->arch;
    struct nb_err err = {0};
    struct nb_rng rng;
    nb_rng_init(&rng, 3);
    for (int f = 0; f < a->n_folds; f++) {
        struct nb_layer *layer;
        assert_int_equal(nb_layer_load(&layer, l.model, 0, l.be, &err), 0);
        struct outputs before = run_layer(&l, layer);
        float *w[NB_MAX_LINEARS], *bias[NB_MAX_LINEARS], s[512];
        for (int i = 0; i < 512; i++) s[i] = (float)(0.5 + 1.5 * nb_rng_uniform(&rng));
        for (int i = 0; i < a->n_linears; i++) w[i] = weight_of(&l, i, &bias[i]);
        apply_fold(&l, layer, &a->folds[f], s, w, bias);
        for (int i = 0; i < a->n_linears; i++) {
            assert_int_equal(nb_layer_replace(layer, i, w[i], bias[i], &err), 0);
        }
        struct outputs after = run_layer(&l, layer);
        double largest = 0, moved = 0;
        for (int64_t i = 0; i < T * a->hidden_size; i++) {
            largest = fmax(largest, fabs((double)before.h[i]));
            moved = fmax(moved, fabs((double)before.h[i] - (double)after.h[i]));
        }
        if (moved > 1e-5 * largest)
            fail_msg("%s: fold %d moves the output by %g of %g", model, f, moved, largest);
        /* and the input did change */
        const size_t bytes = (size_t)(T * nb_input_width(a, a->folds[f].to)) * sizeof(float);
        assert_memory_not_equal(before.in[a->folds[f].to], after.in[a->folds[f].to], bytes);
        outputs_release(&before);
        outputs_release(&after);
        nb_layer_free(layer);
        for (int i = 0; i < a->n_linears; i++) {
            nb_free(w[i]);
            nb_free(bias[i]);
        }
    }
    load_release(&l);
}

static void test_folds_keep_the_function(void **state)
{
    (void)state;
    check_folds("llama2-mha-f16");
    check_folds("llama-bias-f32");
    check_folds("qwen2-tied-bf16");
    check_folds("qwen3-gqa-bf16");
    check_folds("mistral-window-bf16");
    check_folds("gemma2-caps-bf16");
    check_folds("gemma2-nocap-f16");
    check_folds("gemma3-types-f32");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_weights_equal_bits),
        cmocka_unit_test(test_folds_keep_the_function),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
