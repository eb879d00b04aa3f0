/* SPDX-License-Identifier: Apache-2.0
 *
 * Folders compressed by the compressed-tensors library mean to us what they mean to it, weight for weight, and what we
 * write of what we read are its bytes. Files and figures come from make_ct.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "support/folder.h"

static const struct {
    const char *name;
    enum nb_act_kind act; /* of k_proj */
    bool rewritten;       /* by hand in a way that we do not write */
} cases[] = {
    {"w4a16-g32", NB_ACT_NONE, false},
    {"w4a16-asym", NB_ACT_NONE, false},
    {"w4a16-channel", NB_ACT_NONE, false},
    {"w4a16-order", NB_ACT_NONE, false},
    {"w3a16", NB_ACT_NONE, false},
    {"w3a16-old", NB_ACT_NONE, true},
    {"w2a16", NB_ACT_NONE, false},
    {"w8a16-asym", NB_ACT_NONE, false},
    {"w8a8", NB_ACT_INT8_TOKEN, false},
    {"w8a8-asym-static", NB_ACT_INT8_STATIC, false},
    {"w4a8", NB_ACT_INT8_TOKEN, false},
    {"fp8", NB_ACT_FP8_STATIC, false},
    {"fp8-dynamic", NB_ACT_FP8_TOKEN, false},
    {"fp8-block", NB_ACT_FP8_GROUP, false},
    {"fp8-weights", NB_ACT_NONE, false},
    {"nvfp4", NB_ACT_NVFP4, false},
    {"nvfp4a16", NB_ACT_NONE, false},
    {"mxfp4", NB_ACT_MXFP4, false},
    {"mxfp8", NB_ACT_MXFP8, false},
    {"mixed", NB_ACT_FP8_TOKEN, false},
};
enum { N_CASES = sizeof cases / sizeof *cases };

static struct nb_model *open_case(const char *name, struct nb_safetensors **expected)
{
    struct nb_err err;
    struct nb_model *m;
    char relative[128];
    snprintf(relative, sizeof relative, "tests/golden/ct/%s", name);
    char *dir = source_path(relative);
    if (nb_model_open(&m, dir, &err)) fail_msg("%s", err.text);
    assert_string_equal(m->note, "");
    assert_string_equal(m->checkpoint->name, "compressed-tensors");
    if (expected) {
        char *path = nb_path_join(dir, "expected.safetensors");
        if (nb_safetensors_open(expected, path, &err)) fail_msg("%s", err.text);
        nb_free(path);
    }
    free(dir);
    return m;
}

static void compare_module(const struct nb_model *m, const struct nb_tensor *want)
{
    struct nb_err err;
    struct nb_arena arena;
    struct nb_weight w;
    char path[256];
    snprintf(path, sizeof path, "%.*s", (int)(strlen(want->name) - strlen(".weight")), want->name);
    nb_arena_init(&arena);
    const struct nb_module_ref ref = {.path = path, .rows = want->shape[0], .cols = want->shape[1]};
    if (nb_model_module(m, &ref, &arena, &w, &err)) fail_msg("%s", err.text);
    assert_non_null(w.q);
    float *row = nb_arena_alloc(&arena, (size_t)w.cols, sizeof *row);
    for (int64_t n = 0; n < w.rows; n++) {
        nb_weight_row(&w, n, row);
        for (int64_t k = 0; k < w.cols; k++) {
            float expected;
            memcpy(&expected, want->data.data + 4 * (n * w.cols + k), 4);
            if (row[k] != expected)
                fail_msg("%s, %s [%d,%d]: %.9g, the library has %.9g", m->dir, path, (int)n, (int)k,
                         (double)row[k], (double)expected);
        }
    }
    nb_arena_release(&arena);
}

static void test_dequantized_weights_equal(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        struct nb_safetensors *expected;
        struct nb_model *m = open_case(cases[i].name, &expected);
        assert_int_equal(nb_safetensors_count(expected), 2);
        for (size_t k = 0; k < 2; k++) compare_module(m, nb_safetensors_at(expected, k));
        nb_safetensors_close(expected);
        nb_model_close(m);
    }
}

/* What we write of one linear, against the file; scales of static inputs are bf16 in the file and F32 in ours. */
static void compare_bytes(const struct nb_model *m, const struct nb_weight *w, bool order,
                          struct nb_arena *arena)
{
    struct nb_err err;
    struct nb_packed_tensor t[NB_MAX_PACKED];
    int n;
    const struct nb_pack_opts opts = {.source = NB_BF16, .order = order};
    if (m->checkpoint->pack(w->q, &opts, arena, t, &n, &err))
        fail_msg("%s, %s: %s", m->dir, w->name, err.text);
    for (int i = 0; i < n; i++) {
        char name[256];
        snprintf(name, sizeof name, "%s%s", w->name, t[i].suffix);
        const struct nb_tensor *peer = nb_safetensors_find(m->tensors, name);
        assert_non_null(peer);
        if (!strcmp(t[i].suffix, ".input_scale")) {
            float f;
            nb_to_f32(&f, peer->data.data, peer->dtype, 1);
            assert_true(f == w->q->input_scale && f == *(float *)t[i].data);
            continue;
        }
        assert_int_equal(peer->dtype, t[i].dtype);
        assert_memory_equal(peer->data.data, t[i].data, peer->data.bytes);
    }
}

static void test_repacked_bytes_equal(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        struct nb_model *m = open_case(cases[i].name, NULL);
        if (cases[i].rewritten) {
            nb_model_close(m);
            continue;
        }
        for (int k = 0; k < m->arch.n_linears; k++) {
            struct nb_err err;
            struct nb_arena arena;
            struct nb_weight w;
            nb_arena_init(&arena);
            if (nb_model_linear(m, 0, &m->arch.linears[k], &arena, &w, &err))
                fail_msg("%s", err.text);
            assert_non_null(w.q);
            compare_bytes(m, &w, !strcmp(cases[i].name, "w4a16-order"), &arena);
            nb_arena_release(&arena);
        }
        nb_model_close(m);
    }
}

static void test_specs(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        struct nb_err err;
        struct nb_arena arena;
        struct nb_weight w;
        struct nb_model *m = open_case(cases[i].name, NULL);
        nb_arena_init(&arena);
        const struct nb_arch_linear *k = nb_arch_linear_of(&m->arch, NB_ROLE_K);
        if (nb_model_linear(m, 0, k, &arena, &w, &err)) fail_msg("%s", err.text);
        assert_int_equal(w.q->spec.act, cases[i].act);
        const bool fixed = cases[i].act == NB_ACT_INT8_STATIC ||
                           cases[i].act == NB_ACT_FP8_STATIC || cases[i].act == NB_ACT_NVFP4;
        assert_true(fixed == (w.q->input_scale > 0));
        assert_true((w.q->col_group != NULL) == !strcmp(cases[i].name, "w4a16-order"));
        nb_arena_release(&arena);
        nb_model_close(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dequantized_weights_equal),
        cmocka_unit_test(test_repacked_bytes_equal),
        cmocka_unit_test(test_specs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
