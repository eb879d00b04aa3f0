/* SPDX-License-Identifier: Apache-2.0
 *
 * Casts and whole matrices on the grids E4M3 and E2M1 give the bytes of torch and compressed-tensors. Figures come
 * from make_floats.py. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fp8.h"
#include "base/half.h"
#include "base/sha256.h"
#include "numeric/elems.h"
#include "numeric/numeric.h"
#include "support/folder.h"

enum { PATTERNS = 1 << 20 };

struct golden {
    char what[16], global[16], codes[80], scales[80];
    int64_t rows, cols;
};

/* Calls fn for every line about a matrix, or about a cast. */
static int each_line(bool casts, void (*fn)(const struct golden *g))
{
    char *path = source_path("tests/golden/floats.txt"), line[256];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        struct golden g = {0};
        const bool cast = !strncmp(line, "cast ", 5);
        if (cast != casts) continue;
        if (cast)
            assert_int_equal(sscanf(line, "cast %15s %" SCNd64 " %79s", g.what, &g.rows, g.codes),
                             3);
        else
            assert_int_equal(sscanf(line, "%15s %" SCNd64 " %" SCNd64 " %15s %79s %79s", g.what,
                                    &g.rows, &g.cols, g.global, g.codes, g.scales),
                             6);
        fn(&g);
        n++;
    }
    fclose(f);
    free(path);
    return n;
}

static void check_cast(const struct golden *g)
{
    uint8_t *code = malloc(PATTERNS);
    assert_non_null(code);
    const bool e4m3 = !strcmp(g->what, "e4m3");
    size_t n = 0;
    uint32_t x = 1;
    for (int i = 0; i < PATTERNS; i++) {
        x = x * 1664525u + 1013904223u;
        const float v = nb_f32_from_bits(x);
        if (e4m3 && (x & 0x7fffffffu) <= 0x7f800000u) code[n++] = nb_f32_to_e4m3(v);
        if (!e4m3 && x < 0x7f800000u) code[n++] = nb_f32_to_e8m0(v);
    }
    char hex[NB_SHA256_HEX];
    assert_int_equal(n, g->rows);
    nb_sha256_bytes(code, n, hex);
    assert_string_equal(hex, g->codes);
    free(code);
}

static void test_casts_equal_torch(void **state)
{
    (void)state;
    assert_int_equal(each_line(true, check_cast), 2);
}

static struct nb_qspec spec_of(const char *scheme)
{
    const int64_t all = (int64_t)1 << 40;
    struct nb_qspec s = {
        .elem = nb_elem_e4m3, .group_rows = 1, .group_cols = -1, .scale_dtype = NB_F32};
    if (!strcmp(scheme, "tensor")) s.group_rows = all;
    if (!strcmp(scheme, "block")) s.group_rows = s.group_cols = 128;
    if (!strncmp(scheme, "mx", 2)) {
        s.group_cols = 32;
        s.scale_dtype = NB_F8_E8M0;
    }
    if (strstr(scheme, "fp4")) s.elem = nb_elem_e2m1;
    if (!strcmp(scheme, "nvfp4")) {
        s.group_cols = 16;
        s.super_groups = all;
        s.super_flat = s.super_divides = true;
        s.scale_bits = 8;
        s.scale_table = nb_e4m3_values;
    }
    return s;
}

static float *matrix(int64_t rows, int64_t cols)
{
    float *w = malloc((size_t)(rows * cols) * sizeof *w);
    assert_non_null(w);
    uint32_t x = (uint32_t)(rows * 1000 + cols);
    for (int64_t i = 0; i < rows * cols; i++) {
        const int64_t r = i / cols, k = i % cols;
        x = x * 1664525u + 1013904223u;
        const double v = ((double)(x >> 8) - 0x1p23) / 0x1p24;
        x = x * 1664525u + 1013904223u;
        double d = ldexp(v, (int)(x >> 28) - 10);
        if (r % 11 == 3 || (r % 11 == 7 && k < 32)) d = 0;
        if (r % 11 == 5) d = ldexp(d, -60);
        w[i] = (float)d;
    }
    return w;
}

static void check_matrix(const struct golden *g)
{
    struct nb_err err;
    struct nb_arena arena;
    struct nb_qmat q;
    const struct nb_grid_opts opts = {.spec = spec_of(g->what)};
    const struct nb_numeric *numeric = nb_numeric_for(&opts.spec);
    nb_arena_init(&arena);
    assert_non_null(numeric);
    if (nb_qmat_init(&q, &opts.spec, g->rows, g->cols, &arena, &err)) fail_msg("%s", err.text);
    float *w = matrix(g->rows, g->cols);
    if (numeric->encode(&q, &opts, w, NULL, &err)) fail_msg("%s", err.text);

    char hex[NB_SHA256_HEX];
    const size_t planes = (size_t)nb_qmat_planes(&q);
    uint8_t *bytes = nb_arena_alloc(&arena, planes, 1);
    for (size_t i = 0; i < planes; i++) bytes[i] = nb_f32_to_e8m0(q.scale.value[i]);
    if (q.scale.codes) {
        snprintf(hex, sizeof hex, "%08" PRIx32, nb_f32_bits(q.scale.super[0]));
        assert_string_equal(hex, g->global);
        nb_sha256_bytes(q.scale.codes, planes, hex);
    } else if (opts.spec.scale_dtype == NB_F8_E8M0) {
        nb_sha256_bytes(bytes, planes, hex);
    } else {
        nb_sha256_bytes(q.scale.value, planes * sizeof(float), hex);
    }
    if (strcmp(hex, g->scales)) fail_msg("%s %d: scales differ", g->what, (int)g->rows);
    nb_sha256_bytes(q.codes, (size_t)(g->rows * g->cols), hex);
    if (strcmp(hex, g->codes)) fail_msg("%s %d: codes differ", g->what, (int)g->rows);
    free(w);
    nb_arena_release(&arena);
}

static void test_matrices_equal_compressed_tensors(void **state)
{
    (void)state;
    assert_int_equal(each_line(false, check_matrix), 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_casts_equal_torch),
        cmocka_unit_test(test_matrices_equal_compressed_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
