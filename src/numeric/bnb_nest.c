/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb_nest.c - absmax in 8 bits: absmax = map[code] * nested_absmax + offset, 256 of them under one nested_absmax.
 *
 * offset is the mean of all, nested_absmax the largest distance from it. Both to the bit what bitsandbytes 0.50 writes
 * on the CPU: torch's mean adds in a fixed order as long as one thread does it (up to 32767 absmax it always is one,
 * beyond that torch's result depends on the machine), and the code of a normalized value is not searched but looked up
 * in a table of 65536 steps from -1 to 1, so that next to a midpoint the farther code may win. CUDA searches; values
 * differ by a 65536th of nested_absmax at most. Source: checkpoint formats, section 4.3; torch's SumKernel. */
#include <float.h>
#include <string.h>

#include "base/half.h"
#include "numeric/bnb.h"
#include "numeric/elems.h"

enum {
    NEST = 256,       /* absmax under one nested_absmax */
    STEPS = 65536,    /* of the table */
    LEVELS = 4,       /* of torch's cascade */
    WIDTH = 32,       /* floats that torch adds side by side: four vectors of eight */
    PIECE_SUPERS = 16 /* nested_absmax between two turns of the pool */
};

/* ---- torch's mean ---- */

static void add_row(float sum[WIDTH], const float *x, int width)
{
    for (int k = 0; k < width; k++) sum[k] = sum[k] + x[k];
}

static int ceil_log2(int64_t n)
{
    int bits = 0;
    while (((int64_t)1 << bits) < n) bits++;
    return bits;
}

/* Column sums of [rows, width]: each level adds up `step` sums of the one below before it passes them on. */
static void cascade(const float *x, int64_t rows, int width, float sum[WIDTH])
{
    float level[LEVELS][WIDTH] = {{0}};
    const int power = ceil_log2(rows) / LEVELS > 4 ? ceil_log2(rows) / LEVELS : 4;
    const int64_t step = (int64_t)1 << power, mask = step - 1;
    int64_t i = 0;
    while (i + step <= rows) {
        for (int64_t j = 0; j < step; j++, i++) add_row(level[0], x + i * width, width);
        for (int j = 1; j < LEVELS; j++) {
            add_row(level[j], level[j - 1], width);
            memset(level[j - 1], 0, sizeof level[j - 1]);
            if (i & mask << (j * power)) break;
        }
    }
    for (; i < rows; i++) add_row(level[0], x + i * width, width);
    memcpy(sum, level[0], sizeof level[0]);
    for (int j = 1; j < LEVELS; j++) add_row(sum, level[j], width);
}

/* n vectors of `lanes` floats to one: four at a time, then what is left, then the four. */
static void sum_vectors(const float *x, int64_t n, int lanes, float *out)
{
    float sum[WIDTH];
    cascade(x, n / 4, 4 * lanes, sum);
    for (int64_t i = n / 4 * 4; i < n; i++) add_row(sum, x + i * lanes, lanes);
    for (int k = 1; k < 4; k++) add_row(sum, sum + k * lanes, lanes);
    memcpy(out, sum, sizeof *out * (size_t)lanes);
}

float nb_bnb_mean(const float *x, int64_t n)
{
    float sum = 0.0f, lane[8];
    if (n < 8) {
        sum_vectors(x, n, 1, &sum);
        return sum / (float)n;
    }
    sum_vectors(x, n / 8, 8, lane);
    for (int64_t i = n / 8 * 8; i < n; i++) sum = sum + x[i];
    for (int k = 0; k < 8; k++) sum = sum + lane[k];
    return sum / (float)n;
}

/* ---- codes ---- */

/* first[c]: the first step of the table whose code is above c. */
static void steps_of_codes(uint16_t first[NEST])
{
    int step = 0;
    for (int c = 0; c < NEST - 1; c++) {
        const float middle = 0.5f * (nb_dynamic_map[c] + nb_dynamic_map[c + 1]);
        const int guess = (int)((middle + 1.0f) * 0.5f * (STEPS - 1)) - 2;
        if (guess > step) step = guess;
        while (!(middle < -1.0f + 2.0f * (float)step / (STEPS - 1))) step++;
        first[c] = (uint16_t)step;
    }
    first[NEST - 1] = UINT16_MAX; /* never reached: code 255 has no end */
}

static uint8_t code_of(float x, const uint16_t first[NEST])
{
    if (!(x > -1.0f)) return 0; /* and NaN, of 0 under a nested_absmax without inverse */
    x = x < 1.0f ? x : 1.0f;
    const int step = (int)((x + 1.0f) * 0.5f * (STEPS - 1) + 0.5f);
    int code = 0;
    for (int half = NEST / 2; half; half /= 2) code += first[code + half - 1] <= step ? half : 0;
    return (uint8_t)code;
}

struct nest_job {
    struct nb_qmat *q;
    int64_t n, supers;
    bool positive;
    uint16_t first[NEST];
};

static void nest_block(const struct nest_job *job, int64_t s)
{
    struct nb_plane *p = &job->q->scale;
    const int64_t from = s * NEST, to = job->n - from < NEST ? job->n : from + NEST;
    float top = 0.0f;
    for (int64_t i = from; i < to; i++) {
        const float r = fabsf(p->value[i] - p->offset);
        top = r > top ? r : top;
    }
    const float inverse = 1.0f / top;
    p->super[s] = top;
    for (int64_t i = from; i < to; i++) {
        const float wanted = p->value[i];
        int code = top > 0.0f ? code_of((wanted - p->offset) * inverse, job->first) : 0;
        float got = top * nb_dynamic_map[code] + p->offset;
        while (job->positive && wanted > 0.0f && !(got > 0.0f) && code < NEST - 1)
            got = top * nb_dynamic_map[++code] + p->offset;
        p->codes[i] = (uint8_t)code;
        p->value[i] = got;
    }
}

static void nest_piece(void *ctx, size_t piece, int thread)
{
    const struct nest_job *job = ctx;
    (void)thread;
    const int64_t from = (int64_t)piece * PIECE_SUPERS;
    for (int64_t s = from; s < from + PIECE_SUPERS && s < job->supers; s++) nest_block(job, s);
}

int nb_bnb_nest(struct nb_qmat *q, bool positive, struct nb_pool *pool, struct nb_err *err)
{
    struct nest_job job = {
        .q = q, .n = nb_qmat_planes(q), .supers = nb_qmat_supers(q), .positive = positive};
    if (q->spec.super_groups != NEST) {
        return nb_fail(err, NB_E_SPEC, "nested absmax come in blocks of %d, not %d", NEST,
                       (int)q->spec.super_groups);
    }
    q->scale.offset = nb_bnb_mean(q->scale.value, job.n);
    if (!isfinite(q->scale.offset)) {
        return nb_fail(
            err, NB_E_NUMERIC,
            "the largest magnitudes of the blocks have no finite mean, so they cannot be "
            "nested; choose plain absmax");
    }
    steps_of_codes(job.first);
    nb_pool_run(pool, (size_t)((job.supers + PIECE_SUPERS - 1) / PIECE_SUPERS), nest_piece, &job);
    return 0;
}
