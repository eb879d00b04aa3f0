/* SPDX-License-Identifier: Apache-2.0
 *
 * test_block_golden.c - the reference's bytes and values: GGUF specification, sections 9.1, 9.2, 9.4, 9.5, at every
 * level; codebook types against the package gguf. tests/golden/blocks/reference.txt holds hashes; the inputs are
 * generated here. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/sha256.h"
#include "numeric/block.h"
#include "numeric/block_codec.h"

enum { ROWS = 4, COLS = 512, MAX_BYTES = ROWS * COLS * 4 };

static FILE *open_reference(void)
{
    char path[512];
    const char *root = getenv("NB_SOURCE_DIR");
    snprintf(path, sizeof path, "%s/tests/golden/blocks/reference.txt", root ? root : ".");
    FILE *f = fopen(path, "r");
    if (!f) fail_msg("%s is missing", path);
    return f;
}

static uint32_t draw(uint32_t *state)
{
    return *state = *state * 1664525u + 1013904223u;
}

static void make_set(char set, float x[ROWS * COLS])
{
    uint32_t state = 12345;
    for (int i = 0; i < ROWS * COLS; i++) {
        int t = 0;
        for (int k = 0; k < 4; k++) t += (int)(draw(&state) >> 10);
        x[i] = (float)(t - (1 << 23)) * 0x1p-22f * 0x1p-5f;
        if (set == 'B' && i % 37 == 5) x[i] *= 8.0f;
    }
}

static void make_importance(float w[COLS])
{
    uint32_t state = 777;
    for (int i = 0; i < COLS; i++) w[i] = (float)(((draw(&state) >> 16) & 1023u) + 1) / 64.0f;
}

static void check_hash(const void *data, size_t bytes, const char *hash, const char *what)
{
    char hex[NB_SHA256_HEX];
    nb_sha256_bytes(data, bytes, hex);
    if (strcmp(hex, hash) != 0) fail_msg("%s: %s, expected %s", what, hex, hash);
}

static void test_inputs(void **state)
{
    (void)state;
    float x[ROWS * COLS], w[COLS];
    make_set('A', x);
    check_hash(x, sizeof x, "4165b322efa8e1a8cdf30947bab9b06dc5effb804f12ff08c2ced6b0ef0b7676",
               "A");
    make_set('B', x);
    check_hash(x, sizeof x, "b9503186a3a3518241f73208b89c9b8d15429625c402050a95004c089f222bf4",
               "B");
    make_importance(w);
    check_hash(w, sizeof w, "c7eb27c6232227df6951fbe7378c908268f3ec3bd6ac054bdd7869b7ec499f8d",
               "W");
}

/* The number of a level's encoder for a type, -1: it has one form only. */
static int kind_of(const struct nb_block_type *t)
{
    const struct nb_block_level *generic = nb_block_level_at(0);
    static const char *const names[NB_BLOCK_KINDS] = {
        [NB_BLOCK_Q4_0] = "Q4_0",   [NB_BLOCK_Q4_1] = "Q4_1",     [NB_BLOCK_Q5_0] = "Q5_0",
        [NB_BLOCK_Q5_1] = "Q5_1",   [NB_BLOCK_Q8_0] = "Q8_0",     [NB_BLOCK_Q2_K] = "Q2_K",
        [NB_BLOCK_Q3_K] = "Q3_K",   [NB_BLOCK_Q4_K] = "Q4_K",     [NB_BLOCK_Q5_K] = "Q5_K",
        [NB_BLOCK_Q6_K] = "Q6_K",   [NB_BLOCK_IQ4_NL] = "IQ4_NL", [NB_BLOCK_IQ4_XS] = "IQ4_XS",
        [NB_BLOCK_MXFP4] = "MXFP4",
    };
    for (int k = 0; k < NB_BLOCK_KINDS; k++) {
        assert_non_null(generic->decode[k]);
        assert_non_null(generic->encode[k]);
        if (strcmp(names[k], t->name) == 0) return k;
    }
    return -1;
}

static int n_levels(const struct nb_block_type *t)
{
    int n = 1;
    if (kind_of(t) < 0) return n;
    while (nb_block_level_at(n)) n++;
    return n;
}

/* One row at one level; through the table when the type has one form. */
static void encode_row(const struct nb_block_type *t, int level, const float *x, const float *w,
                       int64_t n, unsigned char *out)
{
    const int kind = kind_of(t);
    struct nb_err err = {0};
    if (kind < 0) {
        if (nb_block_encode(t, x, w, n, out, &err)) fail_msg("%s: %s", t->name, err.text);
    } else {
        nb_block_level_at(level)->encode[kind](x, w, n, out);
    }
}

static void test_encode(void **state)
{
    (void)state;
    static float x[ROWS * COLS];
    static unsigned char out[MAX_BYTES];
    float w[COLS];
    char line[256], name[16], set, im[8], hash[80];
    int cases = 0;
    make_importance(w);
    FILE *f = open_reference();
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "encode %15s %c %7s %79s", name, &set, im, hash) != 4) continue;
        const struct nb_block_type *t = nb_block_find(name);
        assert_non_null(t);
        make_set(set, x);
        const size_t row = nb_block_row_bytes(t, COLS);
        for (int level = 0; level < n_levels(t); level++) {
            memset(out, 0xa5, sizeof out);
            for (int r = 0; r < ROWS; r++)
                encode_row(t, level, x + r * COLS, *im == 'i' ? w : NULL, COLS,
                           out + (size_t)r * row);
            snprintf(line, sizeof line, "%s %c %s level %d", name, set, im, level);
            check_hash(out, ROWS * row, hash, line);
            if (ROWS * row < sizeof out) assert_int_equal(out[ROWS * row], 0xa5);
        }
        cases++;
    }
    fclose(f);
    assert_int_equal(cases, 66);
}

static void synthetic(const struct nb_block_type *t, unsigned char *b)
{
    const struct nb_block_codec *c = nb_block_codec_of(t);
    for (int k = 0; k < t->bytes; k++) b[k] = (unsigned char)(37 * k + 11);
    for (int i = 0; i < c->halves; i++) {
        b[c->half[i]] = 0;
        b[c->half[i] + 1] = i ? 0x30 : 0x2c;
    }
    if (strcmp(t->name, "MXFP4") == 0) b[0] = 124;
    if (strcmp(t->name, "NVFP4") == 0) memcpy(b, (unsigned char[]){0x30, 0x38, 0x05, 0x7e}, 4);
}

static void test_decode(void **state)
{
    (void)state;
    char line[256], name[16], hash[80];
    int cases = 0;
    FILE *f = open_reference();
    while (fgets(line, sizeof line, f)) {
        unsigned char block[292];
        float value[257];
        if (sscanf(line, "decode %15s %79s", name, hash) != 2) continue;
        const struct nb_block_type *t = nb_block_find(name);
        assert_non_null(t);
        synthetic(t, block);
        for (int level = 0; level < n_levels(t); level++) {
            const int kind = kind_of(t);
            value[t->elems] = 99.0f;
            if (kind < 0) t->decode(block, value, t->elems);
            else nb_block_level_at(level)->decode[kind](block, value, t->elems);
            assert_true(value[t->elems] == 99.0f);
            for (int i = 0; i < t->elems; i++) value[i] = value[i] == 0.0f ? 0.0f : value[i];
            check_hash(value, sizeof *value * (size_t)t->elems, hash, name);
        }
        cases++;
    }
    fclose(f);
    assert_int_equal(cases, 18);
}

/* 64 blocks of drawn bytes, as tests/golden/make_blocks.py makes them. */
static void draw_blocks(const struct nb_block_type *t, unsigned char *b)
{
    const struct nb_block_codec *c = nb_block_codec_of(t);
    uint32_t state = 2024;
    for (int i = 0; i < 64 * t->bytes; i++) b[i] = (unsigned char)(draw(&state) >> 24);
    for (int i = 0; i < 64; i++, b += t->bytes) {
        for (int k = 0; k < c->halves; k++) {
            b[c->half[k]] = 0;
            b[c->half[k] + 1] = k ? 0x30 : 0x2c;
        }
        if (c->encode) continue;
        if (strcmp(t->name, "IQ1_M") != 0) { /* a codebook: its scale comes first */
            b[0] = 0;
            b[1] = 0x2c;
            continue;
        }
        static const unsigned char nibbles[4] = {0x00, 0x00, 0xc0, 0x20};
        for (int k = 0; k < 4; k++)
            b[49 + 2 * k] = (unsigned char)((b[49 + 2 * k] & 15) | nibbles[k]);
    }
}

static void test_decode_drawn(void **state)
{
    (void)state;
    static unsigned char blocks[64 * 292];
    static float value[64 * 256];
    char line[256], name[16], hash[80];
    int cases = 0;
    FILE *f = open_reference();
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "random %15s %79s", name, hash) != 2) continue;
        const struct nb_block_type *t = nb_block_find(name);
        assert_non_null(t);
        const int n = 64 * t->elems;
        draw_blocks(t, blocks);
        for (int level = 0; level < n_levels(t); level++) {
            const int kind = kind_of(t);
            if (kind < 0) t->decode(blocks, value, n);
            else nb_block_level_at(level)->decode[kind](blocks, value, n);
            for (int i = 0; i < n; i++) value[i] = value[i] == 0.0f ? 0.0f : value[i];
            check_hash(value, sizeof *value * (size_t)n, hash, name);
        }
        cases++;
    }
    fclose(f);
    assert_int_equal(cases, 21);
}

static float edge_value(const char *name, int i)
{
    if (strcmp(name, "zeros") == 0) return 0.0f;
    if (strcmp(name, "ones") == 0) return 1.0f;
    if (strcmp(name, "spike") == 0) return i == 0 ? 1.0f : 0.0f;
    if (strcmp(name, "ramp") == 0) return (float)(i - 128) / 128.0f;
    if (strcmp(name, "tiny") == 0) return 1e-20f * (float)(i % 7 - 3);
    assert_string_equal(name, "mixed");
    if (i < 96) return i < 32 ? 0.0f : i < 64 ? 1.0f : -0.5f;
    return (float)(i % 16 - 8) / 8.0f;
}

static void check_edge(const struct nb_block_type *t, const float *x, const float *w,
                       const char *want, const char *what)
{
    for (int level = 0; level < n_levels(t); level++) {
        unsigned char out[256 / 32 * 36 + 256];
        char hex[2 * 36 + 1];
        encode_row(t, level, x, w, 256, out);
        if (t->elems == 256) {
            check_hash(out, (size_t)t->bytes, want, what);
            continue;
        }
        for (int i = 0; i < t->bytes; i++) snprintf(hex + 2 * i, 3, "%02x", out[i]);
        if (strcmp(hex, want) != 0) fail_msg("%s: %s, expected %s", what, hex, want);
    }
}

static void test_edges(void **state)
{
    (void)state;
    char line[256], edge[16], name[16], im[8], want[80], what[64];
    float x[256], ones[256];
    int cases = 0;
    for (int i = 0; i < 256; i++) ones[i] = 1.0f;
    FILE *f = open_reference();
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "edge %15s %15s %7s %79s", edge, name, im, want) != 4) continue;
        const struct nb_block_type *t = nb_block_find(name);
        assert_non_null(t);
        for (int i = 0; i < 256; i++) x[i] = edge_value(edge, i);
        snprintf(what, sizeof what, "%s %s %s", edge, name, im);
        if (strcmp(im, "im") != 0) check_edge(t, x, NULL, want, what);
        if (strcmp(im, "-") != 0) check_edge(t, x, ones, want, what);
        cases++;
    }
    fclose(f);
    assert_int_equal(cases, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inputs), cmocka_unit_test(test_encode),
        cmocka_unit_test(test_decode), cmocka_unit_test(test_decode_drawn),
        cmocka_unit_test(test_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
