/* SPDX-License-Identifier: Apache-2.0
 *
 * test_logits.c - llama.cpp's base-logits file: bytes of a row, what is written is read back, bad files. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "eval/logits.h"
#include "support/folder.h"

enum { WINDOW = 6, ROWS = 2, V = 5, WINDOWS = 2 };

static void near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.9g is not %.9g", a, b);
}

/* The example of the specification. */
static void test_row_bytes(void **state)
{
    (void)state;
    const float logits[V] = {1, 2, 3, -20, 0.5F};
    static const unsigned char expected[20] = {0x80, 0x00, 0x80, 0x39, 0xaa, 0xaf, 0x83,
                                               0xc1, 0xff, 0xdf, 0xff, 0xef, 0xff, 0xff,
                                               0x00, 0x00, 0xff, 0xd7, 0x00, 0x00};
    unsigned char row[20];
    assert_int_equal(nb_eval_logits_row_bytes(V), sizeof row);
    assert_int_equal(nb_eval_logits_row_bytes(6), sizeof row);
    memset(row, 0xff, sizeof row);
    nb_eval_logits_encode(row, logits, V);
    assert_memory_equal(row, expected, sizeof row);
}

static void test_row_edges(void **state)
{
    (void)state;
    float same[V] = {7, 7, 7, 7, 7}, d[2];
    unsigned char row[20], zero[20] = {0};
    nb_eval_logits_encode(row, same, V);
    memcpy(d, row, sizeof d);
    near(d[0], 0, 0);
    near(d[1], -log(V), 1e-6);
    assert_memory_equal(row + 8, zero, 12);
    same[2] = NAN;
    nb_eval_logits_encode(row, same, V);
    assert_memory_equal(row, zero, sizeof row);
    same[2] = INFINITY;
    nb_eval_logits_encode(row, same, V);
    assert_memory_equal(row, zero, sizeof row);
    same[2] = -INFINITY; /* impossible, but no error: the lowest code */
    nb_eval_logits_encode(row, same, V);
    memcpy(d, row, sizeof d);
    near(d[1], -16 - log(V - 1), 1e-5);
    assert_memory_equal(row + 8 + 4, zero, 2);
}

static int32_t ids[WINDOWS * WINDOW] = {0, 1, 2, 3, 4, 0, 0, 2, 1, 4, 3, 2};
static int32_t replaced[WINDOWS] = {3, 4};

static struct nb_eval_plan make_plan(struct nb_eval_segment segments[WINDOWS])
{
    for (int64_t i = 0; i < WINDOWS; i++) {
        segments[i] = (struct nb_eval_segment){
            .offset = i * WINDOW, .n = WINDOW, .first = 4, .n_counted = ROWS, .cluster = i};
    }
    return (struct nb_eval_plan){.protocol = NB_EVAL_LLAMACPP,
                                 .ids = ids,
                                 .replaced = replaced,
                                 .segments = segments,
                                 .n_ids = WINDOWS * WINDOW,
                                 .n_segments = WINDOWS,
                                 .n_clusters = WINDOWS,
                                 .window = WINDOW};
}

static float logit(int64_t row, int64_t i)
{
    return (float)(4 * sin(1.3 * (double)row + 2.1 * (double)i));
}

/* A file of WINDOWS * ROWS rows at path. */
static void write_file(const char *path)
{
    struct nb_eval_segment segments[WINDOWS];
    struct nb_eval_plan plan = make_plan(segments);
    struct nb_eval_logits_out w;
    struct nb_err err = {0};
    assert_int_equal(nb_eval_logits_create(&w, path, &plan, V, &err), 0);
    for (int64_t r = 0; r < WINDOWS * ROWS; r++) {
        float x[V];
        unsigned char row[20];
        for (int64_t i = 0; i < V; i++) x[i] = logit(r, i);
        nb_eval_logits_encode(row, x, V);
        assert_int_equal(nb_eval_logits_append(&w, row, sizeof row, &err), 0);
    }
    assert_false(nb_path_exists(path)); /* not before it is whole */
    assert_int_equal(nb_eval_logits_commit(&w, &err), 0);
    nb_eval_logits_out_release(&w);
    assert_true(nb_path_exists(path));
}

static void test_roundtrip(void **state)
{
    (void)state;
    char *dir = folder_make(), *path = nb_path_join(dir, "base.logits");
    write_file(path);
    struct nb_eval_logits *l;
    struct nb_err err = {0};
    if (nb_eval_logits_open(&l, path, &err)) fail_msg("%s", err.text);
    struct nb_eval_logits_shape s = nb_eval_logits_shape_of(l);
    assert_int_equal(s.window, WINDOW);
    assert_int_equal(s.vocabulary, V);
    assert_int_equal(s.n_windows, WINDOWS);
    const int32_t own[WINDOWS * WINDOW] = {3, 1, 2, 3, 4, 0, 4, 2, 1, 4, 3, 2};
    assert_memory_equal(nb_eval_logits_ids(l), own, sizeof own); /* the text's, not BOS */
    for (int64_t r = 0; r < WINDOWS * ROWS; r++) {
        float row[V];
        double sum = 0;
        for (int64_t i = 0; i < V; i++) sum += exp(logit(r, i));
        assert_int_equal(nb_eval_logits_check(l, r / ROWS, &err), 0);
        nb_eval_logits_row(l, r / ROWS, r % ROWS, row);
        for (int64_t i = 0; i < V; i++) near(row[i], logit(r, i) - log(sum), 16.0 / 65535);
    }
    nb_eval_logits_drop(l, 0);
    nb_eval_logits_close(l);
    nb_free(path);
    folder_remove(dir);
}

/* Given up: neither the file nor its forerunner stays. */
static void test_discard(void **state)
{
    (void)state;
    char *dir = folder_make(), *path = nb_path_join(dir, "base.logits");
    char *tmp = nb_path_join(dir, "base.logits.tmp");
    struct nb_eval_segment segments[WINDOWS];
    struct nb_eval_plan plan = make_plan(segments);
    struct nb_eval_logits_out w;
    struct nb_err err;
    assert_int_equal(nb_eval_logits_create(&w, path, &plan, V, &err), 0);
    assert_true(nb_path_exists(tmp));
    nb_eval_logits_out_release(&w);
    assert_false(nb_path_exists(tmp));
    assert_false(nb_path_exists(path));
    plan.protocol = NB_EVAL_WINDOWS;
    assert_int_equal(nb_eval_logits_create(&w, path, &plan, V, &err), NB_E_USAGE);
    nb_eval_logits_out_release(&w);
    nb_free(path);
    nb_free(tmp);
    folder_remove(dir);
}

/* ---- bad files ---- */

static char *whole;
static size_t whole_bytes;

static int make_whole(void **state)
{
    (void)state;
    char *dir = folder_make(), *path = nb_path_join(dir, "base.logits");
    write_file(path);
    int rc = nb_file_read(path, 1 << 20, &whole, &whole_bytes, NULL);
    nb_free(path);
    folder_remove(dir);
    return rc;
}

static int free_whole(void **state)
{
    (void)state;
    nb_free(whole);
    return 0;
}

/* The whole file with `bytes` bytes at `at` replaced and cut to `size`: refused with this text. */
static void refused(size_t at, const void *patch, size_t bytes, size_t size, const char *text)
{
    unsigned char *copy = nb_calloc(size + 4, 1);
    memcpy(copy, whole, size < whole_bytes ? size : whole_bytes);
    if (bytes) memcpy(copy + at, patch, bytes);
    struct nb_eval_logits *l = NULL;
    struct nb_err err = {0};
    int rc = nb_eval_logits_parse(&l, (struct nb_span){copy, size}, "f", &err);
    if (!rc) {
        for (int64_t i = 0; i < WINDOWS && !rc; i++) rc = nb_eval_logits_check(l, i, &err);
        nb_eval_logits_close(l);
    }
    assert_int_equal(rc, NB_E_FORMAT);
    assert_string_equal(err.text, text);
    nb_free(copy);
}

static void refused_i32(size_t at, int32_t v, const char *text)
{
    refused(at, &v, sizeof v, whole_bytes, text);
}

static void refused_f32(size_t at, float v, const char *text)
{
    refused(at, &v, sizeof v, whole_bytes, text);
}

static void test_bad_header(void **state)
{
    (void)state;
    assert_int_equal(whole_bytes, 20 + 48 + 80);
    const char *not_one = "f: is not a base-logits file: it does not begin with '_logits_'";
    refused(0, NULL, 0, 0, not_one);
    refused(0, NULL, 0, 19, not_one);
    refused(0, "_Logits_", 8, whole_bytes, not_one);
    refused_i32(8, 3,
                "f: header of 2 windows of 3 tokens with a vocabulary of 5, expected at least 1, 4 "
                "and 1");
    refused_i32(12, -1,
                "f: header of 2 windows of 6 tokens with a vocabulary of -1, expected at least 1, "
                "4 and 1");
    refused_i32(16, 0,
                "f: header of 0 windows of 6 tokens with a vocabulary of 5, expected at least 1, 4 "
                "and 1");
    refused(0, NULL, 0, whole_bytes - 1,
            "f: file has 147 bytes, its header asks for 148: 2 windows of 6 tokens, vocabulary 5");
    refused(0, NULL, 0, whole_bytes + 1,
            "f: file has 149 bytes, its header asks for 148: 2 windows of 6 tokens, vocabulary 5");
    refused(0, NULL, 0, 20,
            "f: file has 20 bytes, its header asks for 148: 2 windows of 6 tokens, vocabulary 5");
    const int32_t largest[3] = {INT32_MAX, INT32_MAX, INT32_MAX};
    refused(8, largest, sizeof largest, whole_bytes,
            "f: file has 148 bytes, its header asks for more than 18446744073709551615: 2147483647 "
            "windows of 2147483647 tokens, vocabulary 2147483647");
}

static void test_bad_tokens(void **state)
{
    (void)state;
    refused_i32(20, -1, "f: token 0 has id -1, the vocabulary has 5");
    refused_i32(20 + 44, V, "f: token 11 has id 5, the vocabulary has 5");
}

static void test_bad_rows(void **state)
{
    (void)state;
    size_t row = 20 + 48; /* of window 0 */
    float lowest;
    memcpy(&lowest, whole + row + 4, sizeof lowest);
    char text[160];
    snprintf(text, sizeof text,
             "f: window 0, row 0: scale nan from %g up is no range of log-probabilities",
             (double)lowest);
    refused_f32(row, NAN, text);
    snprintf(text, sizeof text,
             "f: window 0, row 0: scale -1 from %g up is no range of log-probabilities",
             (double)lowest);
    refused_f32(row, -1, text);
    snprintf(text, sizeof text,
             "f: window 0, row 0: scale inf from %g up is no range of log-probabilities",
             (double)lowest);
    refused_f32(row, INFINITY, text);
    refused(row, (const float[2]){0, NAN}, 8, whole_bytes,
            "f: window 0, row 0: scale 0 from nan up is no range of log-probabilities");
    refused(row, (const float[2]){0, -30}, 8, whole_bytes,
            "f: window 0, row 0: scale 0 from -30 up is no range of log-probabilities");
    refused(row + 3 * 20, (const float[2]){0, 1}, 8, whole_bytes,
            "f: window 1, row 1: scale 0 from 1 up is no range of log-probabilities");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row_bytes),  cmocka_unit_test(test_row_edges),
        cmocka_unit_test(test_roundtrip),  cmocka_unit_test(test_discard),
        cmocka_unit_test(test_bad_header), cmocka_unit_test(test_bad_tokens),
        cmocka_unit_test(test_bad_rows),
    };
    return cmocka_run_group_tests(tests, make_whole, free_whole);
}
