/* SPDX-License-Identifier: Apache-2.0
 *
 * Every rule of the format description's section 1.6, and every row of its table of malformed files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "container/gguf.h"
#include "gguf_image.h"

/* Parses a copy of exactly the image's size, so that a read past the end is seen. Releases b. */
static int parse(struct nb_strbuf *b, struct nb_gguf **g, unsigned char **copy, struct nb_err *err)
{
    *copy = malloc(b->len ? b->len : 1);
    assert_non_null(*copy);
    if (b->len) memcpy(*copy, b->data, b->len);
    struct nb_span image = {*copy, b->len};
    nb_strbuf_release(b);
    memset(err, 0, sizeof *err);
    return nb_gguf_parse(g, image, "f", err);
}

static void refuses(struct nb_strbuf *b, const char *sentence)
{
    struct nb_err err;
    struct nb_gguf *g;
    unsigned char *copy;
    int rc = parse(b, &g, &copy, &err);
    assert_string_equal(err.text, sentence);
    assert_int_equal(rc, NB_E_FORMAT);
    assert_null(g);
    free(copy);
}

/* The handle; *copy: free() after nb_gguf_close. */
static struct nb_gguf *opens(struct nb_strbuf *b, unsigned char **copy)
{
    struct nb_err err;
    struct nb_gguf *g;
    if (parse(b, &g, copy, &err)) fail_msg("%s", err.text);
    assert_non_null(g);
    return g;
}

static void accepts(struct nb_strbuf *b)
{
    unsigned char *copy;
    nb_gguf_close(opens(b, &copy));
    free(copy);
}

static void test_minimal_file(void **state)
{
    (void)state;
    struct nb_strbuf b;
    gguf_minimal(&b);
    static const unsigned char end_of_info[] = {4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    assert_int_equal(b.len, 160);
    assert_memory_equal(b.data + 89, end_of_info, sizeof end_of_info);
    unsigned char *copy;
    struct nb_gguf *g = opens(&b, &copy);
    assert_int_equal(nb_gguf_version(g), 3);
    assert_int_equal(nb_gguf_alignment(g), 32);
    assert_int_equal(nb_gguf_part_count(g), 1);
    assert_string_equal(nb_gguf_part_path(g, 0), "f");
    assert_int_equal(nb_gguf_part_bytes(g, 0), 160);
    assert_int_equal(nb_gguf_count(g), 1);
    assert_int_equal(nb_gguf_bytes(g), 16);
    const struct nb_gguf_tensor *t = nb_gguf_find(g, "a.weight");
    assert_ptr_equal(t, nb_gguf_at(g, 0));
    assert_null(nb_gguf_find(g, "a"));
    assert_string_equal(t->type->name, "F32");
    assert_int_equal(t->n_dims, 1);
    assert_int_equal(t->ne[0], 4);
    assert_int_equal(t->ne[1], 1);
    assert_int_equal(t->ne[3], 1);
    assert_ptr_equal(t->data.data, copy + 128);
    assert_int_equal(t->data.bytes, 16);
    assert_int_equal(nb_gguf_kv_count(g), 1);
    assert_string_equal(nb_gguf_kv_at(g, 0)->key, "general.architecture");
    assert_null(nb_gguf_kv_find(g, "general"));
    nb_gguf_close(g);
    free(copy);
}

/* Cut anywhere, the file is refused until the last byte of the tensor's data is there; T8: the padding
 * behind it may be missing. */
static void test_every_prefix(void **state)
{
    (void)state;
    for (size_t n = 0; n <= 160; n++) {
        struct nb_strbuf b;
        struct nb_gguf *g;
        struct nb_err err;
        unsigned char *copy;
        gguf_minimal(&b);
        b.len = n;
        assert_int_equal(parse(&b, &g, &copy, &err), n < 144 ? NB_E_FORMAT : 0);
        assert_int_equal(n < 144, err.text[0] != 0);
        nb_gguf_close(g);
        free(copy);
    }
}

/* ---- header ---- */

static void refuses_head(const void *magic, uint32_t version, const char *sentence)
{
    struct nb_strbuf b;
    gguf_begin(&b, version, 0, 0);
    memcpy(b.data, magic, 4);
    refuses(&b, sentence);
}

static void test_magic_and_version(void **state)
{
    (void)state;
    struct nb_strbuf b;
    nb_strbuf_init(&b);
    refuses(&b, "f: does not begin with the letters GGUF");
    nb_strbuf_puts(&b, "GGUF\3");
    refuses(&b, "f: has 5 bytes, a GGUF header has 24");
    refuses_head("GGML", 3, "f: does not begin with the letters GGUF");
    refuses_head("GGUF", 0, "f: GGUF version 0, expected 2 or 3");
    refuses_head("GGUF", 1, "f: GGUF version 1, expected 2 or 3");
    refuses_head("GGUF", 4, "f: GGUF version 4, expected 2 or 3");
    static const char swapped[] =
        "f: is a big-endian GGUF file, only little-endian ones can be read";
    refuses_head("GGUF", 0x03000000, swapped);
    refuses_head("GGUF", 0x00030000, swapped);
    gguf_minimal(&b);
    b.data[4] = 2;
    unsigned char *copy;
    struct nb_gguf *g = opens(&b, &copy);
    assert_int_equal(nb_gguf_version(g), 2);
    nb_gguf_close(g);
    free(copy);
}

static void refuses_counts(uint64_t n_tensors, uint64_t n_kvs, const char *sentence)
{
    struct nb_strbuf b;
    gguf_begin(&b, 3, n_tensors, n_kvs);
    gguf_zeros(&b, 100);
    refuses(&b, sentence);
}

static void test_counts(void **state)
{
    (void)state;
    struct nb_strbuf b;
    gguf_begin(&b, 3, 0, 0);
    accepts(&b);
    refuses_counts(UINT64_MAX, 0,
                   "f: announces 18446744073709551615 tensors, accepted are 1048576 and what fits "
                   "into the 100 bytes that follow");
    refuses_counts((uint64_t)1 << 40, 0,
                   "f: announces 1099511627776 tensors, accepted are 1048576 and what fits into "
                   "the 100 bytes that follow");
    refuses_counts(5, 0,
                   "f: announces 5 tensors, accepted are 1048576 and what fits into the 100 bytes "
                   "that follow");
    refuses_counts(0, UINT64_MAX,
                   "f: announces 18446744073709551615 metadata records, accepted are 65536 and "
                   "what fits into the 100 bytes that follow");
    refuses_counts(0, 8,
                   "f: announces 8 metadata records, accepted are 65536 and what fits into the 100 "
                   "bytes that follow");
    /* our own limits, with enough bytes behind */
    gguf_begin(&b, 3, 0, 65537);
    gguf_zeros(&b, 65537 * 13);
    refuses(&b, "f: announces 65537 metadata records, accepted are 65536 and what fits into the "
                "851981 bytes that follow");
    gguf_begin(&b, 3, 1048577, 0);
    gguf_zeros(&b, 1048577 * 24);
    refuses(&b, "f: announces 1048577 tensors, accepted are 1048576 and what fits into the "
                "25165848 bytes that follow");
}

/* No tensors: the file may end after the metadata. */
static void test_metadata_only(void **state)
{
    (void)state;
    struct nb_strbuf b;
    gguf_begin(&b, 3, 0, 1);
    gguf_key(&b, "k", 0);
    gguf_u8(&b, 7);
    assert_int_equal(b.len % 32, 6);
    accepts(&b);
}

/* ---- keys and values ---- */

/* One record whose key has been written; the value goes behind. */
static void one_kv(struct nb_strbuf *b, uint32_t type)
{
    gguf_begin(b, 3, 0, 1);
    gguf_key(b, "k", type);
}

static void test_keys(void **state)
{
    (void)state;
    struct nb_strbuf b;
    gguf_begin(&b, 3, 0, 2);
    for (int i = 0; i < 2; i++) {
        gguf_key(&b, "same", 4);
        gguf_u32(&b, 1);
    }
    refuses(&b, "f: key 'same' stands twice");
    gguf_begin(&b, 3, 0, 1);
    gguf_key(&b, "", 4);
    gguf_u32(&b, 1);
    refuses(&b, "f: the key of metadata record 0 is empty");
    gguf_begin(&b, 3, 0, 1);
    gguf_u64(&b, 3);
    nb_strbuf_add(&b, "a\0b", 3);
    gguf_u32(&b, 4);
    gguf_u32(&b, 1);
    refuses(&b, "f: the key of metadata record 0 holds a NUL byte");
    gguf_begin(&b, 3, 0, 1);
    gguf_u64(&b, 65536);
    gguf_zeros(&b, 65536 + 8);
    refuses(&b,
            "f: the key of metadata record 0: a string of 65536 bytes, at most 65535 are accepted");
    gguf_begin(&b, 3, 0, 1);
    gguf_u64(&b, 20);
    gguf_zeros(&b, 8);
    refuses(&b,
            "f: the key of metadata record 0: a string of 20 bytes, the file ends after 8 of them");
    gguf_begin(&b, 3, 0, 1);
    gguf_key(&b, "Any Key, \xc3\xa9, ...", 4);
    gguf_u32(&b, 1);
    accepts(&b);
}

static void test_value_types(void **state)
{
    (void)state;
    static const size_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    struct nb_strbuf b;
    char sentence[96];
    for (uint32_t type = 0; type < 13; type++) {
        if (!bytes[type]) continue;
        assert_int_equal(nb_gguf_value_bytes((enum nb_gguf_value)type), bytes[type]);
        one_kv(&b, type);
        gguf_zeros(&b, bytes[type]);
        accepts(&b);
        one_kv(&b, type);
        gguf_zeros(&b, bytes[type] - 1);
        snprintf(sentence, sizeof sentence,
                 "f: key 'k': the file ends at byte %zu, 1 bytes too early", 37 + bytes[type] - 1);
        refuses(&b, sentence);
    }
    one_kv(&b, 13);
    gguf_zeros(&b, 64);
    refuses(&b, "f: key 'k' has the unknown type 13");
    one_kv(&b, UINT32_MAX);
    gguf_zeros(&b, 64);
    refuses(&b, "f: key 'k' has the unknown type -1");
    one_kv(&b, 7);
    gguf_u8(&b, 2);
    accepts(&b);
}

static void test_strings(void **state)
{
    (void)state;
    struct nb_strbuf b;
    one_kv(&b, 8);
    gguf_text(&b, "");
    accepts(&b);
    one_kv(&b, 8);
    gguf_u64(&b, (uint64_t)1 << 63);
    refuses(&b, "f: key 'k': a string of 9223372036854775808 bytes, at most 67108864 are accepted");
    one_kv(&b, 8);
    gguf_u64(&b, 67108864);
    refuses(&b, "f: key 'k': a string of 67108864 bytes, the file ends after 0 of them");
    one_kv(&b, 8);
    gguf_u32(&b, 0);
    refuses(&b, "f: key 'k': the file ends at byte 41, 4 bytes too early");
}

static void test_arrays(void **state)
{
    (void)state;
    struct nb_strbuf b;
    gguf_begin(&b, 3, 0, 1);
    gguf_array(&b, "k", 4, 0);
    accepts(&b);
    gguf_begin(&b, 3, 0, 1);
    gguf_array(&b, "k", 9, 0);
    refuses(&b, "f: key 'k' is an array of arrays");
    gguf_begin(&b, 3, 0, 1);
    gguf_array(&b, "k", 13, 0);
    refuses(&b, "f: key 'k' is an array of the unknown type 13");
    gguf_begin(&b, 3, 0, 1);
    gguf_array(&b, "k", 4, (uint64_t)1 << 40);
    refuses(&b, "f: key 'k' is an array of 1099511627776 uint32 elements, the file goes on for 0 "
                "bytes");
    gguf_begin(&b, 3, 0, 1);
    gguf_array(&b, "k", 12, (uint64_t)1 << 60);
    gguf_zeros(&b, 24);
    refuses(&b, "f: key 'k' is an array of 1152921504606846976 float64 elements, the file goes on "
                "for 24 bytes");
    gguf_begin(&b, 3, 0, 1);
    gguf_array(&b, "k", 8, 4);
    gguf_zeros(&b, 31);
    refuses(&b, "f: key 'k' is an array of 4 string elements, the file goes on for 31 bytes");
    gguf_begin(&b, 3, 0, 1);
    gguf_array(&b, "k", 8, 2);
    gguf_u64(&b, 9);
    gguf_zeros(&b, 8);
    refuses(&b, "f: key 'k': a string of 9 bytes, the file ends after 8 of them");
    gguf_begin(&b, 3, 0, 1);
    gguf_array(&b, "k", 8, 2);
    gguf_text(&b, "12345678");
    gguf_u32(&b, 0);
    refuses(&b, "f: key 'k': the file ends at byte 69, 4 bytes too early");
    gguf_begin(&b, 3, 0, 1);
    gguf_key(&b, "k", 9);
    gguf_u64(&b, 0);
    refuses(&b, "f: key 'k': the file ends at byte 45, 4 bytes too early");
}

static void test_alignment(void **state)
{
    (void)state;
    struct nb_strbuf b;
    static const struct {
        uint32_t type, value;
        const char *sentence; /* NULL: accepted */
    } cases[] = {
        {4, 0, "f: general.alignment is 0, expected a power of two up to 65536"},
        {4, 3, "f: general.alignment is 3, expected a power of two up to 65536"},
        {4, 131072, "f: general.alignment is 131072, expected a power of two up to 65536"},
        {5, 32, "f: key 'general.alignment' is int32, expected uint32"},
        {4, 1, NULL},
        {4, 16, NULL},
        {4, 64, NULL},
        {4, 65536, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t a = cases[i].value ? cases[i].value : 1;
        gguf_begin(&b, 3, 2, 1);
        gguf_key(&b, "general.alignment", cases[i].type);
        gguf_u32(&b, cases[i].value);
        gguf_info(&b, "a", 1, (int64_t[]){3}, 24, 0);
        gguf_info(&b, "b", 1, (int64_t[]){2}, 24, (3 + a - 1) / a * a);
        gguf_pad(&b, a);
        size_t start = b.len;
        nb_strbuf_puts(&b, "abc");
        gguf_pad(&b, a);
        nb_strbuf_puts(&b, "de");
        if (cases[i].sentence) {
            refuses(&b, cases[i].sentence);
            continue;
        }
        unsigned char *copy;
        struct nb_gguf *g = opens(&b, &copy);
        assert_int_equal(nb_gguf_alignment(g), a);
        assert_ptr_equal(nb_gguf_find(g, "a")->data.data, copy + start);
        assert_memory_equal(nb_gguf_find(g, "b")->data.data, "de", 2);
        nb_gguf_close(g);
        free(copy);
    }
}

/* ---- tensor records ---- */

/* No metadata and one tensor; n_data bytes of data. */
static void one_tensor(struct nb_strbuf *b, const char *name, uint32_t n_dims, const int64_t *dims,
                       int32_t type, size_t n_data)
{
    gguf_begin(b, 3, 1, 0);
    gguf_info(b, name, n_dims, dims, type, 0);
    gguf_pad(b, 32);
    gguf_zeros(b, n_data);
}

static void test_names(void **state)
{
    (void)state;
    struct nb_strbuf b;
    char name[65] = "";
    memset(name, 'n', 64);
    one_tensor(&b, name, 1, (int64_t[]){4}, 0, 16);
    refuses(&b, "f: the name of tensor 0: a string of 64 bytes, at most 63 are accepted");
    one_tensor(&b, name + 1, 1, (int64_t[]){4}, 0, 16);
    accepts(&b);
    one_tensor(&b, "", 1, (int64_t[]){4}, 0, 16);
    refuses(&b, "f: the name of tensor 0 is empty");
    one_tensor(&b, "abc", 1, (int64_t[]){4}, 0, 16);
    b.data[24 + 8 + 1] = 0;
    refuses(&b, "f: the name of tensor 0 holds a NUL byte");
    gguf_begin(&b, 3, 2, 0);
    gguf_info(&b, "same", 1, (int64_t[]){8}, 0, 0);
    gguf_info(&b, "same", 1, (int64_t[]){8}, 0, 32);
    gguf_pad(&b, 32);
    gguf_zeros(&b, 64);
    refuses(&b, "f: tensor 'same' stands twice");
}

static void test_dimensions(void **state)
{
    (void)state;
    struct nb_strbuf b;
    unsigned char *copy;
    one_tensor(&b, "a", 0, NULL, 0, 4);
    struct nb_gguf *g = opens(&b, &copy);
    assert_int_equal(nb_gguf_at(g, 0)->n_dims, 0);
    assert_int_equal(nb_gguf_at(g, 0)->ne[0], 1);
    assert_int_equal(nb_gguf_at(g, 0)->data.bytes, 4);
    nb_gguf_close(g);
    free(copy);
    one_tensor(&b, "a", 4, (int64_t[]){4, 1, 1, 1}, 0, 16);
    accepts(&b);
    one_tensor(&b, "a", 2, (int64_t[]){4, 0}, 0, 0);
    accepts(&b);
    one_tensor(&b, "a", 5, (int64_t[]){1, 1, 1, 1, 1}, 0, 4);
    refuses(&b, "f: tensor 'a' has 5 dimensions, at most 4 exist");
    one_tensor(&b, "a", 2, (int64_t[]){4, -1}, 0, 16);
    refuses(&b, "f: tensor 'a': dimension 1 is -1");
    gguf_begin(&b, 3, 1, 1);
    gguf_key(&b, "general.architecture", 8);
    gguf_text(&b, "llama");
    gguf_info(&b, "a", 2, (int64_t[]){4, 0}, 0, 0);
    gguf_pad(&b, 32);
    refuses(&b, "f: tensor 'a': dimension 1 is 0");
}

/* The four rows that the reference reader gets wrong, and their neighbours. */
static void test_sizes_that_wrap(void **state)
{
    (void)state;
    struct nb_strbuf b;
    one_tensor(&b, "a", 2, (int64_t[]){(int64_t)1 << 62, 4}, 24, 64);
    refuses(&b, "f: tensor 'a': the size of 4611686018427387904 x 4 x 1 x 1 I8 overflows 63 bits");
    one_tensor(&b, "a", 2, (int64_t[]){INT64_MAX, 2}, 24, 64);
    refuses(&b, "f: tensor 'a': the size of 9223372036854775807 x 2 x 1 x 1 I8 overflows 63 bits");
    one_tensor(&b, "a", 2, (int64_t[]){(int64_t)1 << 33, (int64_t)1 << 33}, 0, 64);
    refuses(&b, "f: tensor 'a': the size of 8589934592 x 8589934592 x 1 x 1 F32 overflows 63 bits");
    one_tensor(&b, "a", 1, (int64_t[]){5124095576030431008}, 2, 64);
    refuses(&b,
            "f: the last 2882303761517117378 of 2882303761517117506 bytes are missing: the file "
            "ends before the end of tensor 'a' (2882303761517117442 bytes)");
    one_tensor(&b, "a", 3, (int64_t[]){(int64_t)1 << 31, (int64_t)1 << 31, 2}, 0, 64);
    refuses(&b, "f: tensor 'a': the size of 2147483648 x 2147483648 x 2 x 1 F32 overflows 63 bits");
    one_tensor(&b, "a", 1, (int64_t[]){INT64_MAX}, 28, 64);
    refuses(&b, "f: tensor 'a': the size of 9223372036854775807 x 1 x 1 x 1 F64 overflows 63 bits");
    /* a dimension of 0 hides no overflow of the others */
    one_tensor(&b, "a", 3, (int64_t[]){0, INT64_MAX, INT64_MAX}, 24, 64);
    refuses(&b, "f: tensor 'a': the size of 0 x 9223372036854775807 x 9223372036854775807 x 1 I8 "
                "overflows 63 bits");
    /* sizes that fit one by one, but not their sum */
    gguf_begin(&b, 3, 3, 0);
    gguf_info(&b, "a", 1, (int64_t[]){(int64_t)1 << 62}, 24, 0);
    gguf_info(&b, "b", 1, (int64_t[]){(int64_t)1 << 62}, 24, (uint64_t)1 << 62);
    gguf_info(&b, "c", 1, (int64_t[]){1}, 24, (uint64_t)1 << 63);
    gguf_pad(&b, 32);
    refuses(&b, "f: the tensors up to 'b' have more bytes than 63 bits count");
}

static void test_types(void **state)
{
    (void)state;
    struct nb_strbuf b;
    static const struct {
        int32_t type;
        const char *sentence;
    } refused[] = {
        {4, "f: tensor 'a' has type 4 (Q4_2), which was taken out of the format"},
        {31, "f: tensor 'a' has type 31 (Q4_0_4_4), which was taken out of the format"},
        {36, "f: tensor 'a' has type 36 (IQ4_NL_4_4), which was taken out of the format"},
        {43, "f: tensor 'a' has the unknown type 43"},
        {-1, "f: tensor 'a' has the unknown type -1"},
        {1000, "f: tensor 'a' has the unknown type 1000"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        one_tensor(&b, "a", 1, (int64_t[]){256}, refused[i].type, 2048);
        refuses(&b, refused[i].sentence);
    }
    one_tensor(&b, "a", 1, (int64_t[]){128}, 12, 2048);
    refuses(&b, "f: tensor 'a': rows of 128 are no whole number of Q4_K blocks of 256");
    one_tensor(&b, "a", 1, (int64_t[]){32}, 9, 36); /* run-time types, yet storable */
    accepts(&b);
    one_tensor(&b, "a", 1, (int64_t[]){256}, 15, 292);
    accepts(&b);
}

/* ---- where the data are ---- */

/* Tensors "a" and "b" of 3 F32 at these offsets. */
static void two_tensors(struct nb_strbuf *b, uint64_t first, uint64_t second)
{
    gguf_begin(b, 3, 2, 0);
    gguf_info(b, "a", 1, (int64_t[]){3}, 0, first);
    gguf_info(b, "b", 1, (int64_t[]){3}, 0, second);
    gguf_pad(b, 32);
    gguf_zeros(b, 256);
}

static void test_offsets(void **state)
{
    (void)state;
    struct nb_strbuf b;
    two_tensors(&b, 0, 32);
    accepts(&b); /* with bytes behind the last tensor */
    two_tensors(&b, 0, 12);
    refuses(&b, "f: tensor 'b' begins at byte 12 of the data, which is no multiple of 32");
    static const char order[] = "of the data, expected";
    char sentence[160];
    static const uint64_t wrong[][3] = {/* first, second, 1: the second is at fault */
                                        {0, 64, 1},
                                        {0, 0, 1},
                                        {0, UINT64_MAX - 31, 1},
                                        {32, 0, 0},
                                        {32, 64, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        bool second = wrong[i][2];
        two_tensors(&b, wrong[i][0], wrong[i][1]);
        snprintf(sentence, sizeof sentence,
                 "f: tensor '%s' begins at byte %llu %s %d: no gap, no overlap, in order",
                 second ? "b" : "a", (unsigned long long)wrong[i][second], order, second ? 32 : 0);
        refuses(&b, sentence);
    }
}

static void test_truncated_data(void **state)
{
    (void)state;
    struct nb_strbuf b;
    two_tensors(&b, 0, 32); /* records end at 90, data start at 96 and end at 96 + 32 + 12 */
    b.len = 139;
    refuses(&b, "f: the last 1 of 140 bytes are missing: the file "
                "ends before the end of tensor 'b' (12 bytes)");
    two_tensors(&b, 0, 32);
    b.len = 100;
    refuses(&b, "f: the last 40 of 140 bytes are missing: the file "
                "ends before the end of tensor 'a' (12 bytes)");
    two_tensors(&b, 0, 32);
    b.len = 92; /* inside the padding before the data */
    refuses(&b, "f: the last 48 of 140 bytes are missing: the file "
                "ends before the end of tensor 'a' (12 bytes)");
    two_tensors(&b, 0, 32);
    b.len = 140; /* the last tensor without its padding */
    accepts(&b);
    two_tensors(&b, 0, 32);
    memset(b.data + 90, 0xff, 6); /* padding need not be zero */
    memset(b.data + 96 + 12, 0xff, 20);
    accepts(&b);
    one_tensor(&b, "a", 2, (int64_t[]){4, 0}, 0,
               0); /* no data, but the file ends before their place */
    b.len -= 1;
    refuses(&b, "f: the last 1 of 96 bytes are missing: the file "
                "ends before the end of tensor 'a' (0 bytes)");
}

/* 50 000 keys and as many tensors: found by name, and quickly. */
static void test_many(void **state)
{
    (void)state;
    enum { N = 50000 };
    struct nb_strbuf b;
    char name[32];
    gguf_begin(&b, 3, N, N);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "k%d", i * 7919 % N);
        gguf_key(&b, name, 5);
        gguf_u32(&b, (uint32_t)i);
    }
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "t%d", i * 7919 % N);
        gguf_info(&b, name, 1, (int64_t[]){1}, 24, 32 * (uint64_t)i);
    }
    gguf_pad(&b, 32);
    gguf_zeros(&b, 32 * N);
    unsigned char *copy;
    struct nb_gguf *g = opens(&b, &copy);
    for (int i = 0; i < N; i += 100) {
        snprintf(name, sizeof name, "t%d", i * 7919 % N);
        assert_ptr_equal(nb_gguf_find(g, name), nb_gguf_at(g, (size_t)i));
        name[0] = 'k';
        assert_ptr_equal(nb_gguf_kv_find(g, name), nb_gguf_kv_at(g, (size_t)i));
    }
    nb_gguf_close(g);
    free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_minimal_file),
        cmocka_unit_test(test_every_prefix),
        cmocka_unit_test(test_magic_and_version),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_metadata_only),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_value_types),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_dimensions),
        cmocka_unit_test(test_sizes_that_wrap),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_offsets),
        cmocka_unit_test(test_truncated_data),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
