/* SPDX-License-Identifier: Apache-2.0
 *
 * Checkpoints that transformers and bitsandbytes wrote: what we read of them means the same to the bit, what we write of
 * that is their bytes again, and so is what we make of the same float weights. Files come from make_bnb.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "numeric/numeric.h"
#include "support/folder.h"

struct peer {
    char *dir;
    struct nb_model *m;
    struct nb_safetensors *source, *expected;
    bool fp4; /* its codes of zero are the CPU build's */
};

static void peer_open(struct peer *p, const char *name)
{
    struct nb_err err;
    char relative[64];
    snprintf(relative, sizeof relative, "tests/golden/bnb/%s", name);
    p->dir = source_path(relative);
    char *source = source_path("tests/golden/bnb/source.safetensors");
    char *expected = nb_path_join(p->dir, "expected.safetensors");
    if (nb_model_open(&p->m, p->dir, &err)) fail_msg("%s", err.text);
    if (nb_safetensors_open(&p->source, source, &err)) fail_msg("%s", err.text);
    if (nb_safetensors_open(&p->expected, expected, &err)) fail_msg("%s", err.text);
    assert_string_equal(p->m->checkpoint->name, "bnb");
    p->fp4 = !strncmp(name, "fp4", 3);
    nb_free(expected);
    free(source);
}

static void peer_close(struct peer *p)
{
    nb_safetensors_close(p->expected);
    nb_safetensors_close(p->source);
    nb_model_close(p->m);
    free(p->dir);
}

/* The blob's tail of spaces is ours. */
static size_t trimmed(const char *text, size_t n)
{
    while (n && text[n - 1] == ' ') n--;
    return n;
}

static void compare_tensor(const struct peer *p, const char *path, const struct nb_packed_tensor *t)
{
    char name[256];
    snprintf(name, sizeof name, "%s%s", path, t->suffix);
    const struct nb_tensor *peer = nb_safetensors_find(p->m->tensors, name);
    if (!peer) fail_msg("bitsandbytes has no %s", name);
    assert_int_equal(peer->dtype, t->dtype);
    assert_int_equal(peer->rank, t->rank);
    size_t bytes = peer->data.bytes;
    if (strstr(name, "quant_state")) {
        assert_int_equal(trimmed(t->data, (size_t)t->shape[0]), bytes);
    } else {
        for (int d = 0; d < peer->rank; d++) assert_int_equal(peer->shape[d], t->shape[d]);
    }
    if (memcmp(peer->data.data, t->data, bytes) != 0) fail_msg("%s, %s differs", p->dir, name);
}

static void compare_packed(const struct peer *p, const char *path, const struct nb_qmat *q,
                           bool codes, struct nb_arena *arena)
{
    struct nb_err err;
    struct nb_packed_tensor t[NB_MAX_PACKED];
    int n;
    char name[256];
    snprintf(name, sizeof name, "%s.weight", path);
    const struct nb_pack_opts opts = {.source = NB_BF16,
                                      .storage = nb_safetensors_find(p->m->tensors, name)->dtype};
    if (p->m->checkpoint->pack(q, &opts, arena, t, &n, &err)) fail_msg("%s", err.text);
    for (int i = codes ? 0 : 1; i < n; i++) compare_tensor(p, path, &t[i]);
}

static void compare_values(const struct nb_qmat *q, const struct nb_tensor *want,
                           struct nb_arena *arena)
{
    float *row = nb_arena_alloc(arena, (size_t)q->cols, sizeof *row);
    assert_int_equal(want->shape[0], q->rows);
    assert_int_equal(want->shape[1], q->cols);
    for (int64_t n = 0; n < q->rows; n++) {
        nb_qmat_dequant_row(q, n, row);
        for (int64_t k = 0; k < q->cols; k++) {
            float expected;
            memcpy(&expected, want->data.data + 4 * (n * q->cols + k), 4);
            if (row[k] != expected)
                fail_msg("%s [%d,%d]: %.9g, bitsandbytes has %.9g", want->name, (int)n, (int)k,
                         (double)row[k], (double)expected);
        }
    }
}

/* Does a weight lie halfway between two levels of FP4? There the CPU build and the CUDA rule, which is ours, may part. */
static bool is_midpoint(const float *w, size_t n, size_t i)
{
    static const float twelfths[] = {1.0f / 32, 33.0f / 32, 2.5f, 3.5f, 5, 7, 10};
    const size_t from = i / 64 * 64;
    float top = 0;
    for (size_t k = from; k < n && k < from + 64; k++) top = fmaxf(top, fabsf(w[k]));
    for (size_t k = 0; k < sizeof twelfths / sizeof *twelfths; k++) {
        if (fabsf(fabsf(w[i]) / top - twelfths[k] / 12) < 1e-6f) return true;
    }
    return false;
}

/* Our own matrix from the same floats. */
static void compare_encoded(const struct peer *p, const char *path, const struct nb_qmat *theirs,
                            struct nb_arena *arena)
{
    struct nb_err err;
    struct nb_qmat q;
    char name[256];
    snprintf(name, sizeof name, "%s.weight", path);
    const struct nb_tensor *source = nb_safetensors_find(p->source, name);
    assert_non_null(source);
    const size_t n = (size_t)(theirs->rows * theirs->cols);
    float *w = nb_arena_alloc(arena, n, sizeof *w);
    nb_to_f32(w, source->data.data, source->dtype, n);
    const struct nb_grid_opts opts = {.spec = theirs->spec};
    if (nb_qmat_init(&q, &theirs->spec, theirs->rows, theirs->cols, arena, &err) ||
        nb_numeric_for(&theirs->spec)->encode(&q, &opts, w, NULL, &err))
        fail_msg("%s", err.text);
    compare_packed(p, path, &q, !p->fp4, arena);
    for (size_t i = 0; i < n && p->fp4; i++) {
        const struct nb_elem *e = &q.spec.elem;
        if (nb_elem_value(e, q.codes[i]) != nb_elem_value(e, theirs->codes[i]))
            assert_true(is_midpoint(w, n, i));
    }
}

static void check_peer(const char *name)
{
    struct nb_err err;
    struct peer p;
    peer_open(&p, name);
    int valued = 0;
    for (int i = 0; i < p.m->arch.n_linears; i++) {
        struct nb_arena arena;
        struct nb_weight w;
        char weight[256];
        nb_arena_init(&arena);
        if (nb_model_linear(p.m, 0, &p.m->arch.linears[i], &arena, &w, &err))
            fail_msg("%s", err.text);
        assert_non_null(w.q);
        snprintf(weight, sizeof weight, "%s.weight", w.name);
        const struct nb_tensor *want = nb_safetensors_find(p.expected, weight);
        if (want) compare_values(w.q, want, &arena);
        valued += want != NULL;
        compare_packed(&p, w.name, w.q, true, &arena);
        compare_encoded(&p, w.name, w.q, &arena);
        nb_arena_release(&arena);
    }
    assert_int_equal(valued, 2);
    peer_close(&p);
}

static void test_nf4(void **state)
{
    (void)state;
    check_peer("nf4");
}

static void test_nf4_double(void **state)
{
    (void)state;
    check_peer("nf4-double");
}

static void test_fp4_double(void **state)
{
    (void)state;
    check_peer("fp4-double");
}

static void test_int8(void **state)
{
    (void)state;
    check_peer("int8");
    struct peer p;
    struct nb_err err;
    struct nb_arena arena;
    struct nb_weight w;
    peer_open(&p, "int8");
    nb_arena_init(&arena);
    assert_int_equal(nb_model_linear(p.m, 0, &p.m->arch.linears[0], &arena, &w, &err), 0);
    assert_int_equal(w.q->spec.act, NB_ACT_INT8_OUTLIER);
    assert_true(w.q->spec.act_threshold == 5.5f);
    nb_arena_release(&arena);
    peer_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nf4),
        cmocka_unit_test(test_nf4_double),
        cmocka_unit_test(test_fp4_double),
        cmocka_unit_test(test_int8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
