/* SPDX-License-Identifier: Apache-2.0
 *
 * Checkpoints written by gptqmodel and autoawq mean to us what they mean to their makers: our dequantized
 * weights equal theirs bit for bit. Files and figures come from make_checkpoints.py. */
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "support/folder.h"

static void compare_module(const struct nb_model *m, const char *path, const struct nb_tensor *want)
{
    struct nb_err err;
    struct nb_arena arena;
    struct nb_weight w;
    nb_arena_init(&arena);
    if (nb_model_module(m, path, want->shape[0], want->shape[1], &arena, &w, &err)) fail_msg("%s", err.text);
    assert_non_null(w.q);
    float *row = nb_arena_alloc(&arena, (size_t)w.cols, sizeof *row);
    for (int64_t n = 0; n < w.rows; n++) {
        nb_weight_row(&w, n, row);
        for (int64_t k = 0; k < w.cols; k++) {
            float expected;
            memcpy(&expected, want->data.data + 4 * (n * w.cols + k), 4);
            if (row[k] != expected) {
                fail_msg("%s, %s [%d,%d]: %.9g, the peer has %.9g", m->dir, path, (int)n, (int)k, (double)row[k],
                         (double)expected);
            }
        }
    }
    nb_arena_release(&arena);
}

static int compare_checkpoint(const char *dir)
{
    struct nb_err err;
    struct nb_model *m;
    struct nb_safetensors *expected;
    char *path = nb_path_join(dir, "expected.safetensors");
    if (nb_model_open(&m, dir, &err)) fail_msg("%s", err.text);
    if (nb_safetensors_open(&expected, path, &err)) fail_msg("%s", err.text);
    assert_string_equal(m->note, "");
    int compared = 0;
    for (size_t i = 0; i < nb_safetensors_count(expected); i++) {
        const struct nb_tensor *t = nb_safetensors_at(expected, i);
        char module[256];
        size_t n = strlen(t->name), suffix = strlen(".weight");
        if (n <= suffix || n >= sizeof module || strcmp(t->name + n - suffix, ".weight")) continue;
        snprintf(module, sizeof module, "%.*s", (int)(n - suffix), t->name);
        assert_int_equal(t->dtype, NB_F32);
        compare_module(m, module, t);
        compared++;
    }
    nb_safetensors_close(expected);
    nb_model_close(m);
    nb_free(path);
    return compared;
}

static void test_dequantized_weights_equal(void **state)
{
    (void)state;
    struct nb_err err;
    char *root = source_path("tests/golden/checkpoints");
    char **names;
    size_t n;
    int compared = 0, folders = 0;
    if (nb_dir_list(root, &names, &n, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < n; i++) {
        char *dir = nb_path_join(root, names[i]);
        if (nb_path_is_dir(dir)) {
            compared += compare_checkpoint(dir);
            folders++;
        }
        nb_free(dir);
    }
    nb_dir_list_free(names, n);
    free(root);
    assert_true(folders >= 9);
    assert_true(compared >= 2 * folders);
}

static void test_dynamic_rules(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_model *m;
    struct nb_arena arena;
    struct nb_weight w;
    nb_arena_init(&arena);
    char *dir = source_path("tests/golden/checkpoints/gptq-dynamic-g32");
    if (nb_model_open(&m, dir, &err)) fail_msg("%s", err.text);
    const struct nb_arch_linear *o = nb_arch_linear_of(&m->arch, NB_ROLE_O);
    const struct nb_arch_linear *down = nb_arch_linear_of(&m->arch, NB_ROLE_DOWN);
    assert_int_equal(nb_model_linear(m, 0, o, &arena, &w, &err), 0);
    assert_null(w.q);
    assert_int_equal(w.dense.dtype, NB_F16);
    assert_int_equal(nb_model_linear(m, 1, o, &arena, &w, &err), 0);
    assert_int_equal(w.q->spec.elem.bits, 4);
    assert_int_equal(w.q->spec.group_cols, 32);
    assert_int_equal(nb_model_linear(m, 0, down, &arena, &w, &err), 0);
    assert_int_equal(w.q->spec.elem.bits, 8);
    assert_int_equal(w.q->spec.group_cols, 64);
    nb_arena_release(&arena);
    nb_model_close(m);
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dequantized_weights_equal),
        cmocka_unit_test(test_dynamic_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
