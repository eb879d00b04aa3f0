/* SPDX-License-Identifier: Apache-2.0
 *
 * blocks.c - how fast one thread encodes and decodes GGUF blocks, as CSV: type, importance (0, 1), MB of f16 input
 * encoded per CPU second, MB of f32 output decoded per CPU second. Rows of 2048 normal numbers, in bf16 as a
 * checkpoint has them: what is timed includes their way to f32.
 *
 *   bench-blocks [TYPE...] */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/half.h"
#include "base/rng.h"
#include "core/dtype.h"
#include "numeric/block.h"

enum { ROWS = 64, COLS = 2048 };

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct bench {
    uint16_t source[ROWS * COLS]; /* bf16 */
    float row[COLS], importance[COLS];
    unsigned char out[ROWS * COLS * 4];
};

static int encode_all(struct bench *b, const struct nb_block_type *t, const float *importance)
{
    struct nb_err err;
    const size_t bytes = nb_block_row_bytes(t, COLS);
    for (int r = 0; r < ROWS; r++) {
        nb_to_f32(b->row, b->source + r * COLS, NB_BF16, COLS);
        if (nb_block_encode(t, b->row, importance, COLS, b->out + (size_t)r * bytes, &err)) {
            fprintf(stderr, "bench-blocks: %s: %s\n", t->name, err.text);
            return 1;
        }
    }
    return 0;
}

static double encode_rate(struct bench *b, const struct nb_block_type *t, const float *importance)
{
    const double start = cpu_seconds();
    double spent = 0, mb = 0;
    while (spent < 0.3) {
        if (encode_all(b, t, importance)) exit(1);
        mb += ROWS * COLS * 2 / 1e6;
        spent = cpu_seconds() - start;
    }
    return mb / spent;
}

static double decode_rate(struct bench *b, const struct nb_block_type *t)
{
    const double start = cpu_seconds();
    const size_t bytes = nb_block_row_bytes(t, COLS);
    double spent = 0, mb = 0;
    while (spent < 0.1) {
        for (int r = 0; r < ROWS; r++) t->decode(b->out + (size_t)r * bytes, b->row, COLS);
        mb += ROWS * COLS * 4 / 1e6;
        spent = cpu_seconds() - start;
    }
    return mb / spent;
}

static void measure(struct bench *b, const struct nb_block_type *t)
{
    if (!nb_block_can_encode(t)) return;
    for (int with = 0; with <= (nb_block_uses_importance(t) ? 1 : 0); with++) {
        const double rate = encode_rate(b, t, with ? b->importance : NULL);
        printf("%s,%d,%.1f,%.0f\n", t->name, with, rate, decode_rate(b, t));
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    static struct bench b;
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    for (int i = 0; i < ROWS * COLS; i++)
        b.source[i] = nb_f32_to_bf16((float)nb_rng_normal(&rng) * 0.02f);
    for (int i = 0; i < COLS; i++)
        b.importance[i] = 0.1f + (float)nb_rng_below(&rng, 1000) / 100.0f;
    puts("type,importance,encode_f16_mb_per_cpu_s,decode_f32_mb_per_cpu_s");
    for (int i = 1; i < argc; i++) {
        const struct nb_block_type *t = nb_block_find(argv[i]);
        if (!t) {
            fprintf(stderr, "bench-blocks: no block type '%s'\n", argv[i]);
            return 2;
        }
        measure(&b, t);
    }
    for (int i = 0; argc == 1 && nb_block_at(i); i++) measure(&b, nb_block_at(i));
    return 0;
}
