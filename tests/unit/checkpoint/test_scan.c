/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "checkpoint/checkpoint.h"
#include "support/folder.h"
#include "support/tiny_model.h"

static int setup(void **state)
{
    *state = folder_make();
    return 0;
}

static int teardown(void **state)
{
    folder_remove(*state);
    return 0;
}

/* Scan of a file with one tensor of n elements, element `at` being `bits` and the others the largest finite
 * value of alternating sign. */
static int scan_one(const char *dir, enum nb_dtype dtype, int64_t n, int64_t at, uint32_t bits,
                    struct nb_err *err)
{
    size_t width = (size_t)nb_dtype_bits(dtype) / 8;
    unsigned char *data = malloc((size_t)n * width);
    assert_non_null(data);
    uint32_t largest = dtype == NB_F32 ? 0x7f7fffff : dtype == NB_F16 ? 0x7bff : 0x7f7f;
    for (int64_t i = 0; i < n; i++) {
        uint32_t v = i % 2 ? largest | 1u << (8 * width - 1) : largest;
        if (i == at) v = bits;
        memcpy(data + (size_t)i * width, &v, width);
    }
    struct nb_st_writer *w = nb_st_writer_new();
    struct nb_st_writer_opts o = {.dir = dir};
    assert_int_equal(nb_st_writer_plan(w, "t", dtype, 1, &n, err), 0);
    assert_int_equal(nb_st_writer_open(w, &o, err), 0);
    assert_int_equal(nb_st_writer_put(w, "t", data, (size_t)n * width, err), 0);
    assert_int_equal(nb_st_writer_finish(w, err), 0);
    nb_st_writer_free(w);
    free(data);
    char name[] = "somewhere";
    struct nb_model m = {.dir = name};
    assert_int_equal(nb_safetensors_open(&m.tensors, dir, err), 0);
    int rc = nb_model_scan_finite(&m, NULL, err);
    nb_safetensors_close(m.tensors);
    return rc;
}

static void test_every_position(void **state)
{
    static const struct {
        enum nb_dtype dtype;
        uint32_t inf, nan;
    } types[] = {
        {NB_F16, 0xfc00, 0x7c01}, {NB_BF16, 0xff80, 0x7f81}, {NB_F32, 0xff800000, 0x7f800001}};
    static const int64_t places[] = {0, 1, 1023, 1024, 2047, 2048, 2052};
    for (size_t t = 0; t < 3; t++) {
        struct nb_err err;
        assert_int_equal(scan_one(*state, types[t].dtype, 2053, -1, 0, &err), 0);
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            char want[160];
            snprintf(want, sizeof want,
                     "somewhere/model.safetensors: tensor 't' holds Inf at element %d",
                     (int)places[i]);
            assert_int_equal(scan_one(*state, types[t].dtype, 2053, places[i], types[t].inf, &err),
                             NB_E_FORMAT);
            assert_string_equal(err.text, want);
            snprintf(want, sizeof want,
                     "somewhere/model.safetensors: tensor 't' holds NaN at element %d",
                     (int)places[i]);
            assert_int_equal(scan_one(*state, types[t].dtype, 2053, places[i], types[t].nan, &err),
                             NB_E_FORMAT);
            assert_string_equal(err.text, want);
        }
    }
}

/* Codes are no floats: any bits are fine. */
static void test_integers_are_not_scanned(void **state)
{
    struct nb_err err;
    assert_int_equal(scan_one(*state, NB_I32, 10, 3, 0x7f800001, &err), 0);
}

static void test_model(void **state)
{
    struct nb_err err;
    struct nb_model *m;
    struct tiny_opts o = {.head_first = 0x7c00};
    tiny_write(*state, &o);
    assert_int_equal(nb_model_open(&m, *state, &err), 0); /* legal on disk */
    assert_int_equal(nb_model_scan_finite(m, NULL, &err), NB_E_FORMAT);
    assert_non_null(
        strstr(err.text, "/model.safetensors: tensor 'lm_head.weight' holds Inf at element 0"));
    nb_model_close(m);
}

static void identity(const char *dir, char hex[NB_SHA256_HEX])
{
    struct nb_err err;
    struct nb_model *m;
    if (nb_model_open(&m, dir, &err)) fail_msg("%s", err.text);
    if (nb_model_identity(m, hex, &err)) fail_msg("%s", err.text);
    nb_model_close(m);
}

/* Rewrites the weights of dir as several shards. */
static void reshard(const char *dir)
{
    struct nb_err err;
    struct nb_safetensors *st;
    char *tmp = folder_make();
    assert_int_equal(nb_safetensors_open(&st, dir, &err), 0);
    struct nb_st_writer *w = nb_st_writer_new();
    size_t n = nb_safetensors_count(st);
    for (size_t i = n; i-- > 0;) {
        const struct nb_tensor *t = nb_safetensors_at(st, i);
        assert_int_equal(nb_st_writer_plan(w, t->name, t->dtype, t->rank, t->shape, &err), 0);
    }
    struct nb_st_writer_opts o = {.dir = tmp, .max_shard_bytes = 50000};
    assert_int_equal(nb_st_writer_open(w, &o, &err), 0);
    for (size_t i = 0; i < n; i++) {
        const struct nb_tensor *t = nb_safetensors_at(st, i);
        assert_int_equal(nb_st_writer_put(w, t->name, t->data.data, t->data.bytes, &err), 0);
    }
    assert_int_equal(nb_st_writer_finish(w, &err), 0);
    assert_true(nb_st_writer_shard_count(w) > 2);
    nb_st_writer_free(w);
    nb_safetensors_close(st);
    json_t *config = tiny_config();
    char *text = json_dumps(config, JSON_INDENT(2));
    folder_text(tmp, "config.json", text);
    char before[NB_SHA256_HEX], after[NB_SHA256_HEX];
    identity(dir, before);
    identity(tmp, after);
    assert_string_equal(before, after);
    free(text);
    json_decref(config);
    folder_remove(tmp);
}

static void test_identity(void **state)
{
    const char *dir = *state;
    char a[NB_SHA256_HEX], b[NB_SHA256_HEX];
    tiny_write(dir, NULL);
    identity(dir, a);
    identity(dir, b);
    assert_string_equal(a, b);
    reshard(dir);
    struct tiny_opts o = {.head_first = 0x3c00};
    tiny_write(dir, &o); /* one weight */
    identity(dir, b);
    assert_string_not_equal(a, b);
    tiny_write(dir, NULL);
    identity(dir, b);
    assert_string_equal(a, b);
    json_t *config = tiny_config();
    json_object_set_new(config, "rms_norm_eps", json_real(1e-6));
    o = (struct tiny_opts){.config = config};
    tiny_write(dir, &o); /* one setting */
    identity(dir, b);
    assert_string_not_equal(a, b);
    json_decref(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_position, setup, teardown),
        cmocka_unit_test_setup_teardown(test_integers_are_not_scanned, setup, teardown),
        cmocka_unit_test_setup_teardown(test_model, setup, teardown),
        cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
