/* SPDX-License-Identifier: Apache-2.0
 *
 * test_attention.c - against plain f64 attention: shapes, windows, heads, huge scores, prompts in
 * parts. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "make.h"

struct shape {
    int64_t n_q, n_kv, n_heads, n_kv_heads, head_dim, window;
    float size; /* of queries: scores grow with it */
};

static void reference(const struct nb_attention *a, int64_t i, int64_t head, double *out)
{
    const int64_t d = a->head_dim, kv_head = head / (a->n_heads / a->n_kv_heads);
    const int64_t p = a->n_kv - a->n_q + i,
                  first = a->window && p - a->window + 1 > 0 ? p - a->window + 1 : 0;
    const float *q = a->q + i * a->ldq + head * d;
    double top = -INFINITY, total = 0;
    double *s = nb_alloc((size_t)(p + 1), sizeof *s);
    for (int64_t j = first; j <= p; j++) {
        s[j] = 0;
        for (int64_t t = 0; t < d; t++) s[j] += (double)q[t] * a->k[j * a->ldkv + kv_head * d + t];
        s[j] *= (double)a->scale;
        if (a->softcap > 0) s[j] = (double)a->softcap * tanh(s[j] / (double)a->softcap);
        top = fmax(top, s[j]);
    }
    memset(out, 0, (size_t)d * sizeof *out);
    for (int64_t j = first; j <= p; j++) {
        double w = exp(s[j] - top);
        total += w;
        for (int64_t t = 0; t < d; t++) out[t] += w * a->v[j * a->ldkv + kv_head * d + t];
    }
    for (int64_t t = 0; t < d; t++) out[t] /= total;
    nb_free(s);
}

static void check_shape(struct made *made, struct nb_rng *rng, const struct shape *sh,
                        float softcap)
{
    struct nb_attention a = {.n_q = sh->n_q,
                             .n_kv = sh->n_kv,
                             .n_heads = sh->n_heads,
                             .n_kv_heads = sh->n_kv_heads,
                             .head_dim = sh->head_dim,
                             .window = sh->window,
                             .softcap = softcap};
    a.ldq = sh->n_heads * sh->head_dim + 5;
    a.ldo = sh->n_heads * sh->head_dim + 2;
    a.ldkv = sh->n_kv_heads * sh->head_dim + 3;
    a.scale = 1.0f / sqrtf((float)sh->head_dim);
    float *q = make_normal(rng, (size_t)(sh->n_q * a.ldq)),
          *k = make_normal(rng, (size_t)(sh->n_kv * a.ldkv));
    float *v = make_normal(rng, (size_t)(sh->n_kv * a.ldkv)),
          *out = nb_calloc((size_t)(sh->n_q * a.ldo), sizeof *out);
    for (int64_t i = 0; i < sh->n_q * a.ldq; i++) q[i] *= sh->size;
    a.q = q;
    a.k = k;
    a.v = v;
    a.out = out;
    nb_attention_run(made->be, &a);
    double *want = nb_alloc((size_t)sh->head_dim, sizeof *want);
    for (int64_t i = 0; i < sh->n_q; i++) {
        for (int64_t h = 0; h < sh->n_heads; h++) {
            reference(&a, i, h, want);
            for (int64_t t = 0; t < sh->head_dim; t++) {
                /* Scores are f32 sums: their error, about size * 1e-6, moves the weights by as
                 * much. */
                assert_true(fabs(out[i * a.ldo + h * sh->head_dim + t] - want[t]) <
                            1e-5 * (1 + (double)sh->size));
            }
        }
        for (int64_t t = sh->n_heads * sh->head_dim; t < a.ldo; t++)
            assert_true(out[i * a.ldo + t] == 0);
    }
    nb_free(q);
    nb_free(k);
    nb_free(v);
    nb_free(out);
    nb_free(want);
}

static void test_shapes(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {1, 1, 1, 1, 2, 0, 1},        {1, 1, 4, 2, 64, 0, 1},       {5, 5, 4, 2, 64, 0, 1},
        {150, 150, 4, 2, 64, 0, 1},   {300, 300, 2, 1, 24, 0, 1},   {40, 300, 4, 2, 80, 0, 1},
        {2, 230, 6, 2, 32, 0, 1},     {1, 230, 6, 2, 32, 0, 1},     {1, 1100, 2, 1, 64, 0, 1},
        {1, 2300, 32, 1, 20, 0, 1},   {1, 500, 6, 2, 34, 77, 1},    {260, 260, 2, 2, 16, 1, 1},
        {260, 260, 2, 2, 16, 13, 1},  {260, 260, 4, 1, 16, 112, 1}, {260, 400, 4, 4, 16, 113, 1},
        {33, 500, 14, 2, 64, 100, 1}, {70, 70, 7, 1, 128, 0, 1},    {20, 130, 2, 1, 256, 0, 1},
        {30, 30, 1, 1, 1024, 0, 1},   {1, 30, 1, 1, 1024, 0, 1},    {200, 200, 2, 1, 32, 0, 3000},
        {1, 200, 2, 1, 32, 0, 3000},  {100, 100, 2, 1, 32, 500, 1},
    };
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    const char *const *levels = make_levels();
    for (int l = 0; levels[l]; l++) {
        struct made made = make_backend(levels[l], 2);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            check_shape(&made, &rng, &shapes[i], 0);
        make_release(&made);
    }
}

/* Scores far beyond the cap, on both paths, with windows and part of a panel. */
static void test_softcap(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {150, 150, 4, 2, 64, 0, 4}, {260, 260, 4, 1, 16, 112, 9}, {1, 230, 6, 2, 32, 0, 5},
        {1, 500, 6, 2, 34, 77, 5},  {33, 500, 14, 2, 64, 100, 3}, {1, 2300, 8, 1, 20, 0, 4},
    };
    struct nb_rng rng;
    nb_rng_init(&rng, 7);
    const char *const *levels = make_levels();
    for (int l = 0; levels[l]; l++) {
        struct made made = make_backend(levels[l], 2);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            check_shape(&made, &rng, &shapes[i], i & 1 ? 3 : 2);
        make_release(&made);
    }
}

/* Same bits for 1, 3 and 7 threads, and for a prompt fed in parts of two or more queries. */
static void test_threads_and_parts(void **state)
{
    (void)state;
    enum { N = 350, HEADS = 4, KV = 2, D = 48 };
    struct nb_rng rng;
    nb_rng_init(&rng, 2);
    float *q = make_normal(&rng, N * HEADS * D), *k = make_normal(&rng, N * KV * D),
          *v = make_normal(&rng, N * KV * D);
    float *whole = nb_alloc(N * HEADS * D, sizeof *whole),
          *part = nb_alloc(N * HEADS * D, sizeof *part);
    for (int64_t window = 0; window <= 100; window += 100) {
        for (int threads = 1; threads <= 7; threads += 3) {
            struct made made = make_backend(NULL, threads);
            struct nb_attention a = {.q = q,
                                     .k = k,
                                     .v = v,
                                     .out = threads == 1 ? whole : part,
                                     .n_q = N,
                                     .n_kv = N,
                                     .ldq = HEADS * D,
                                     .ldkv = KV * D,
                                     .ldo = HEADS * D,
                                     .n_heads = HEADS,
                                     .n_kv_heads = KV,
                                     .head_dim = D,
                                     .window = window,
                                     .scale = 0.1f};
            nb_attention_run(made.be, &a);
            if (threads > 1) assert_memory_equal(part, whole, N * HEADS * D * sizeof *part);
            for (int64_t at = 0; at < N; at += 70) {
                a.q = q + at * HEADS * D;
                a.out = part + at * HEADS * D;
                a.n_q = 70;
                a.n_kv = at + 70;
                nb_attention_run(made.be, &a);
            }
            assert_memory_equal(part, whole, N * HEADS * D * sizeof *part);
            make_release(&made);
        }
    }
    nb_free(q);
    nb_free(k);
    nb_free(v);
    nb_free(whole);
    nb_free(part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_softcap),
        cmocka_unit_test(test_threads_and_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
