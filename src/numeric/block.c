/* SPDX-License-Identifier: Apache-2.0
 *
 * block.c - the table of block types; encoding with its checks before and after. */
#include "numeric/block.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <strings.h>

#include "base/half.h"
#include "numeric/block_codebook.h"
#include "numeric/block_codec.h"
#include "numeric/block_encode.h"
#include "numeric/block_layout.h"

#define TYPE(name, id, elems, bytes, function)                                                     \
    .type = {name, id, elems, bytes, nb_block_decode_##function}
#define ENCODES(function) .encode = nb_block_encode_##function
#define HALF_AT(at) .half = {at}, .halves = 1, .limit = 1e9f
#define HALVES_AT(at, then) .half = {at, then}, .halves = 2, .limit = 1e9f
#define WEIGHTED .uses_importance = true
#define COARSE .uses_importance = true, .needs_importance = true

static const struct nb_block_codec table[] = {
    {TYPE("F32", 0, 1, 4, f32), ENCODES(f32)},
    {TYPE("F16", 1, 1, 2, f16), ENCODES(f16)},
    {TYPE("BF16", 30, 1, 2, bf16), ENCODES(bf16)},
    {TYPE("Q4_0", 2, 32, 18, q4_0), ENCODES(q4_0), HALF_AT(0), WEIGHTED},
    {TYPE("Q4_1", 3, 32, 20, q4_1), ENCODES(q4_1), HALVES_AT(0, 2), WEIGHTED},
    {TYPE("Q5_0", 6, 32, 22, q5_0), ENCODES(q5_0), HALF_AT(0), WEIGHTED},
    {TYPE("Q5_1", 7, 32, 24, q5_1), ENCODES(q5_1), HALVES_AT(0, 2), WEIGHTED},
    {TYPE("Q8_0", 8, 32, 34, q8_0), ENCODES(q8_0), HALF_AT(0)},
    {TYPE("Q8_1", 9, 32, 36, q8_1), ENCODES(q8_1), HALVES_AT(0, 2)},
    {TYPE("Q2_K", 10, 256, 84, q2_k), ENCODES(q2_k), HALVES_AT(80, 82), WEIGHTED},
    {TYPE("Q3_K", 11, 256, 110, q3_k), ENCODES(q3_k), HALF_AT(108), WEIGHTED},
    {TYPE("Q4_K", 12, 256, 144, q4_k), ENCODES(q4_k), HALVES_AT(0, 2), WEIGHTED},
    {TYPE("Q5_K", 13, 256, 176, q5_k), ENCODES(q5_k), HALVES_AT(0, 2), WEIGHTED},
    {TYPE("Q6_K", 14, 256, 210, q6_k), ENCODES(q6_k), HALF_AT(208), WEIGHTED},
    {TYPE("Q8_K", 15, 256, 292, q8_k), ENCODES(q8_k)},
    {TYPE("IQ2_XXS", 16, 256, 66, iq2_xxs), COARSE},
    {TYPE("IQ2_XS", 17, 256, 74, iq2_xs), COARSE},
    {TYPE("IQ3_XXS", 18, 256, 98, iq3_xxs), COARSE},
    {TYPE("IQ1_S", 19, 256, 50, iq1_s), COARSE},
    {TYPE("IQ4_NL", 20, 32, 18, iq4_nl), ENCODES(iq4_nl), HALF_AT(0), WEIGHTED},
    {TYPE("IQ3_S", 21, 256, 110, iq3_s), WEIGHTED},
    {TYPE("IQ2_S", 22, 256, 82, iq2_s), COARSE},
    {TYPE("IQ4_XS", 23, 256, 136, iq4_xs), ENCODES(iq4_xs), HALF_AT(0), WEIGHTED},
    {TYPE("IQ1_M", 29, 256, 56, iq1_m), COARSE},
    {TYPE("TQ1_0", 34, 256, 54, tq1_0), ENCODES(tq1_0), HALF_AT(52)},
    {TYPE("TQ2_0", 35, 256, 66, tq2_0), ENCODES(tq2_0), HALF_AT(64)},
    {TYPE("MXFP4", 39, 32, 17, mxfp4), ENCODES(mxfp4)},
    {TYPE("NVFP4", 40, 64, 36, nvfp4), ENCODES(nvfp4), .limit = 6 * 448},
    {TYPE("Q1_0", 41, 128, 18, q1_0), ENCODES(q1_0), HALF_AT(0)},
    {TYPE("Q2_0", 42, 64, 18, q2_0), ENCODES(q2_0), HALF_AT(0)},
};

#define MAX_IMPORTANCE 1e18f /* times any value within a limit it stays finite */

enum { N_TYPES = sizeof table / sizeof *table };

const struct nb_block_codec *nb_block_codec_of(const struct nb_block_type *t)
{
    for (int i = 0; i < N_TYPES; i++) {
        if (table[i].type.id == t->id) return &table[i];
    }
    return NULL;
}

const struct nb_block_type *nb_block_at(int i)
{
    return i >= 0 && i < N_TYPES ? &table[i].type : NULL;
}

const struct nb_block_type *nb_block_find(const char *name)
{
    for (int i = 0; i < N_TYPES; i++) {
        if (strcasecmp(table[i].type.name, name) == 0) return &table[i].type;
    }
    return NULL;
}

const struct nb_block_type *nb_block_by_id(int id)
{
    for (int i = 0; i < N_TYPES; i++) {
        if (table[i].type.id == id) return &table[i].type;
    }
    return NULL;
}

bool nb_block_can_encode(const struct nb_block_type *t)
{
    return nb_block_codec_of(t)->encode != NULL;
}

bool nb_block_needs_importance(const struct nb_block_type *t)
{
    return nb_block_codec_of(t)->needs_importance;
}

bool nb_block_uses_importance(const struct nb_block_type *t)
{
    return nb_block_codec_of(t)->uses_importance;
}

/* First element outside [least, most], n: none. */
static int64_t first_outside(const float *x, int64_t n, float least, float most)
{
    bool bad = false;
    for (int64_t i = 0; i < n; i++) bad |= !(x[i] >= least) | !(x[i] <= most);
    for (int64_t i = 0; bad && i < n; i++) {
        if (!(x[i] >= least && x[i] <= most)) return i;
    }
    return n;
}

static int check_input(const struct nb_block_codec *c, const float *x, const float *importance,
                       int64_t n, struct nb_err *err)
{
    const float limit = c->limit > 0.0f ? c->limit : FLT_MAX;
    int64_t bad = first_outside(x, n, -limit, limit);
    if (bad < n && isfinite(x[bad])) {
        return nb_fail(err, NB_E_NUMERIC, "column %" PRId64 " is %g, too large for %s", bad,
                       (double)x[bad], c->type.name);
    }
    if (bad < n) {
        return nb_fail(err, NB_E_NUMERIC, "column %" PRId64 " is %g, expected a finite number", bad,
                       (double)x[bad]);
    }
    if (!importance) return 0;
    bad = first_outside(importance, n, 0.0f, MAX_IMPORTANCE);
    if (bad == n) return 0;
    return nb_fail(err, NB_E_NUMERIC,
                   "the importance of column %" PRId64 " is %g, expected 0 to %g", bad,
                   (double)importance[bad], (double)MAX_IMPORTANCE);
}

/* Column of the largest magnitude of a block. */
static int64_t largest(const float *x, int64_t n)
{
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++) {
        if (fabsf(x[i]) > fabsf(x[at])) at = i;
    }
    return at;
}

static bool half_is_finite(const unsigned char *b)
{
    return (nb_block_get_half(b) & 0x7c00u) != 0x7c00u;
}

/* A float type stores each value; the others make f16 scales from the values of a block. */
static int check_stored(const struct nb_block_codec *c, const float *x, int64_t n,
                        const unsigned char *out, struct nb_err *err)
{
    const struct nb_block_type *t = &c->type;
    if (t->elems == 1) {
        float back;
        for (int64_t i = 0; i < n; i++) {
            t->decode(out + i * t->bytes, &back, 1);
            if (isfinite(back)) continue;
            return nb_fail(err, NB_E_NUMERIC, "column %" PRId64 " is %g, too large for %s", i,
                           (double)x[i], t->name);
        }
        return 0;
    }
    for (int64_t i = 0; i < n; i += t->elems, out += t->bytes) {
        for (int k = 0; k < c->halves; k++) {
            if (half_is_finite(out + c->half[k])) continue;
            int64_t at = i + largest(x + i, t->elems);
            return nb_fail(err, NB_E_NUMERIC,
                           "column %" PRId64 " is %g: a scale of its %s block does not fit f16, "
                           "which ends at 65504",
                           at, (double)x[at], t->name);
        }
    }
    return 0;
}

int nb_block_encode(const struct nb_block_type *t, const float *x, const float *importance,
                    int64_t n, void *out, struct nb_err *err)
{
    const struct nb_block_codec *c = nb_block_codec_of(t);
    if (!c->encode) return nb_fail(err, NB_E_SPEC, "%s can be read but not written", t->name);
    if (n < 0 || n % t->elems) {
        return nb_fail(err, NB_E_SPEC,
                       "a row of %" PRId64 " columns is no whole number of %s blocks of %d", n,
                       t->name, t->elems);
    }
    if (!c->uses_importance) importance = NULL;
    int rc = check_input(c, x, importance, n, err);
    if (rc) return rc;
    c->encode(x, importance, n, out);
    return check_stored(c, x, n, out, err);
}
