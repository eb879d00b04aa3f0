/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "checkpoint/imatrix.h"
#include "support/folder.h"

/* GGUF specification, section 6.2: one entry, 2 chunks, values 3 and 5, text a.txt. */
static const unsigned char example[] =
    "\x01\x00\x00\x00\x13\x00\x00\x00"
    "blk.0.attn_q.weight"
    "\x02\x00\x00\x00\x02\x00\x00\x00\x00\x00\x40\x40\x00\x00\xa0\x40"
    "\x02\x00\x00\x00\x05\x00\x00\x00"
    "a.txt";
enum { EXAMPLE_BYTES = sizeof example - 1 };

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

static int parse(struct nb_imatrix *im, const void *data, size_t bytes, struct nb_err *err)
{
    memset(err, 0, sizeof *err);
    return nb_imatrix_parse_dat(im, (struct nb_span){data, bytes}, "x.dat", err);
}

static void test_example(void **state)
{
    struct nb_imatrix im;
    struct nb_err err;
    float w[2] = {0};
    (void)state;
    assert_int_equal(parse(&im, example, EXAMPLE_BYTES, &err), 0);
    assert_int_equal(im.n, 1);
    assert_int_equal(im.n_chunks, 2);
    assert_string_equal(im.datasets[0], "a.txt");
    const struct nb_imatrix_entry *e = nb_imatrix_find(&im, "blk.0.attn_q.weight");
    assert_non_null(e);
    assert_int_equal(nb_imatrix_weights(&im, e, 2, 1, w, &err), 0);
    assert_true(w[0] == 1.5f && w[1] == 2.5f);
    assert_null(nb_imatrix_find(&im, "blk.0.attn_k.weight"));
    assert_int_equal(nb_imatrix_weights(&im, e, 4, 1, w, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "importance of 'blk.0.attn_q.weight': 1 x 2 columns, the tensor "
                                  "has 1 x 4");
    nb_imatrix_release(&im);
}

/* The end is optional from the last entry on; anywhere else something is missing. */
static void test_truncated(void **state)
{
    (void)state;
    for (size_t n = 0; n < EXAMPLE_BYTES; n++) {
        struct nb_imatrix im;
        struct nb_err err;
        unsigned char *copy = malloc(n + 1);
        assert_non_null(copy);
        memcpy(copy, example, n);
        int rc = parse(&im, copy, n, &err);
        bool whole = n == EXAMPLE_BYTES - 13 || n == EXAMPLE_BYTES - 9;
        assert_int_equal(rc, whole ? 0 : NB_E_FORMAT);
        assert_true(whole || strncmp(err.text, "x.dat: ", 7) == 0);
        nb_imatrix_release(&im);
        free(copy);
    }
}

static void put_i32(unsigned char *at, int32_t v)
{
    memcpy(at, &v, sizeof v);
}

static void refused(const unsigned char *data, size_t bytes, const char *text)
{
    struct nb_imatrix im;
    struct nb_err err;
    assert_int_equal(parse(&im, data, bytes, &err), NB_E_FORMAT);
    assert_string_equal(err.text, text);
    nb_imatrix_release(&im);
}

static void test_hostile(void **state)
{
    unsigned char b[EXAMPLE_BYTES];
    const float nan_value = (float)strtod("nan", NULL), negative = -1;
    (void)state;
    memcpy(b, example, sizeof b);
    put_i32(b, 0);
    refused(b, sizeof b, "x.dat: the number of entries is 0, expected 1 to 16384");
    put_i32(b, 16384);
    refused(b, sizeof b, "x.dat: 16384 entries do not fit in 52 bytes");
    memcpy(b, example, sizeof b);
    put_i32(b + 4, 256);
    refused(b, sizeof b, "x.dat: the length of a name is 256, expected 1 to 255");
    memcpy(b, example, sizeof b);
    b[10] = 0;
    refused(b, sizeof b, "x.dat: the name 'bl' holds a NUL byte");
    memcpy(b, example, sizeof b);
    put_i32(b + 31, INT32_MAX);
    refused(b, sizeof b,
            "x.dat: 'blk.0.attn_q.weight' has 2147483647 values, the file has room for 5");
    memcpy(b, example, sizeof b);
    memcpy(b + 39, &nan_value, 4);
    refused(b, sizeof b, "x.dat: importance of 'blk.0.attn_q.weight' holds NaN at 1");
    memcpy(b + 39, &negative, 4);
    refused(b, sizeof b, "x.dat: importance of 'blk.0.attn_q.weight' holds a negative number at 1");
    memcpy(b, example, sizeof b);
    put_i32(b + 47, 6);
    refused(b, sizeof b, "x.dat: the text's name has 6 bytes, the file only 5 more");
}

static void test_duplicate(void **state)
{
    unsigned char b[2 * EXAMPLE_BYTES];
    const size_t entry = EXAMPLE_BYTES - 4 - 13;
    (void)state;
    put_i32(b, 2);
    memcpy(b + 4, example + 4, entry);
    memcpy(b + 4 + entry, example + 4, entry);
    refused(b, 4 + 2 * entry, "x.dat: two entries are named 'blk.0.attn_q.weight'");
}

/* Two experts, one of which saw no token, and a dense matrix. */
static void make(struct nb_imatrix *im)
{
    struct nb_err err;
    nb_imatrix_init(im);
    struct nb_imatrix_entry *e = nb_imatrix_add(im, "blk.1.ffn_up_exps.weight", 2, 2, &err);
    assert_non_null(e);
    e->sums[0] = 8;
    e->sums[1] = 2;
    e->counts[0] = 4;
    e = nb_imatrix_add(im, "blk.0.attn_q.weight", 3, 1, &err);
    assert_non_null(e);
    e->sums[0] = 1;
    e->sums[2] = 1500;
    e->counts[0] = 1000;
    assert_int_equal(nb_imatrix_add_dataset(im, "b.txt", 5, &err), 0);
    im->n_chunks = 2;
    im->chunk_size = 512;
    assert_string_equal(im->entries[0].name, "blk.0.attn_q.weight");
    assert_ptr_equal(nb_imatrix_add(im, "blk.0.attn_q.weight", 3, 1, &err), &im->entries[0]);
    assert_null(nb_imatrix_add(im, "blk.0.attn_q.weight", 4, 1, &err));
    assert_int_equal(err.status, NB_E_FORMAT);
}

static void check_weights(const struct nb_imatrix *im)
{
    float experts[4], dense[3];
    struct nb_err err;
    assert_int_equal(nb_imatrix_weights(im, nb_imatrix_find(im, "blk.1.ffn_up_exps.weight"), 2, 2,
                                        experts, &err),
                     0);
    assert_true(experts[0] == 2 && experts[1] == 0.5f && experts[2] == 1 && experts[3] == 1);
    assert_int_equal(
        nb_imatrix_weights(im, nb_imatrix_find(im, "blk.0.attn_q.weight"), 3, 1, dense, &err), 0);
    assert_true(dense[0] == 0.001f && dense[1] == 0 && dense[2] == 1.5f);
}

static void test_files(void **state)
{
    struct nb_imatrix im, back;
    struct nb_err err;
    make(&im);
    check_weights(&im);
    char *gguf = nb_path_join(*state, "i.gguf"), *dat = nb_path_join(*state, "i.dat");
    char *again = nb_path_join(*state, "again.gguf");
    assert_int_equal(nb_imatrix_write(&im, gguf, false, &err), 0);
    assert_int_equal(nb_imatrix_write(&im, dat, true, &err), 0);
    assert_int_equal(nb_imatrix_open(&back, gguf, &err), 0);
    check_weights(&back);
    assert_false(back.legacy);
    assert_int_equal(back.n_chunks, 2);
    assert_int_equal(back.chunk_size, 512);
    assert_string_equal(back.datasets[0], "b.txt");
    nb_imatrix_release(&back);
    assert_int_equal(nb_imatrix_open(&back, dat, &err), 0);
    assert_true(back.legacy);
    check_weights(&back);
    /* What a .dat knows survives in the other format. */
    assert_int_equal(nb_imatrix_write(&back, again, false, &err), 0);
    nb_imatrix_release(&back);
    assert_int_equal(nb_imatrix_open(&back, again, &err), 0);
    assert_int_equal(nb_imatrix_find(&back, "blk.0.attn_q.weight")->counts[0], 1024);
    check_weights(&back);
    nb_imatrix_release(&back);
    nb_imatrix_release(&im);
    nb_free(gguf);
    nb_free(dat);
    nb_free(again);
}

static void test_merge(void **state)
{
    struct nb_imatrix im, sum, dat;
    struct nb_err err;
    (void)state;
    make(&im);
    nb_imatrix_init(&sum);
    assert_int_equal(nb_imatrix_merge(&sum, &im, &err), 0);
    assert_int_equal(nb_imatrix_merge(&sum, &im, &err), 0);
    check_weights(&sum);
    assert_int_equal(sum.n_chunks, 4);
    assert_int_equal(sum.n_datasets, 2);
    assert_int_equal(nb_imatrix_find(&sum, "blk.0.attn_q.weight")->counts[0], 2000);
    /* Another shape of the same name is refused. */
    assert_int_equal(parse(&dat, example, EXAMPLE_BYTES, &err), 0);
    assert_int_equal(nb_imatrix_merge(&sum, &dat, &err), NB_E_FORMAT);
    nb_imatrix_release(&sum);
    /* A .dat of two chunks counts as 1024 tokens beside the 1000. */
    nb_imatrix_init(&sum);
    struct nb_imatrix_entry *e = nb_imatrix_add(&sum, "blk.0.attn_q.weight", 2, 1, &err);
    e->sums[0] = 1024;
    e->counts[0] = 1024;
    sum.chunk_size = 512;
    sum.n_chunks = 2;
    assert_int_equal(nb_imatrix_merge(&sum, &dat, &err), 0);
    float w[2];
    assert_int_equal(
        nb_imatrix_weights(&sum, nb_imatrix_find(&sum, "blk.0.attn_q.weight"), 2, 1, w, &err), 0);
    assert_true(w[0] == 1.25f && w[1] == 1.25f);
    nb_imatrix_release(&dat);
    nb_imatrix_release(&sum);
    nb_imatrix_release(&im);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_duplicate),
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test(test_merge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
