/* SPDX-License-Identifier: Apache-2.0
 *
 * rope_table.c - cosines and sines of positions, made once for all layers that a sequence passes.
 *
 * The angle is position times frequency rounded to f32, as the reference rounds it; sine and cosine
 * of that angle are taken in f64. */
#include <inttypes.h>
#include <math.h>

#include "base/mem.h"
#include "engine/layer.h"

void nb_rope_table_release(struct nb_rope_table *t)
{
    nb_free(t->cos_t);
    nb_free(t->sin_t);
    nb_free(t->inv_freq);
    *t = (struct nb_rope_table){0};
}

int nb_rope_table_reserve(struct nb_rope_table *t, const struct nb_arch *arch, int64_t capacity,
                          struct nb_err *err)
{
    if (capacity <= t->capacity) return 0;
    const size_t half = (size_t)arch->head_dim / 2;
    size_t floats;
    nb_rope_table_release(t);
    if (nb_mul((size_t)capacity, half, &floats)) {
        t->cos_t = nb_alloc(floats, sizeof *t->cos_t);
        t->sin_t = nb_alloc(floats, sizeof *t->sin_t);
        t->inv_freq = nb_alloc(half, sizeof *t->inv_freq);
    }
    if (!t->cos_t || !t->sin_t || !t->inv_freq) {
        nb_rope_table_release(t);
        return nb_fail(err, NB_E_NOMEM, "no memory for the rotary table of %" PRId64 " positions",
                       capacity);
    }
    t->capacity = capacity;
    return 0;
}

static bool same_frequencies(const struct nb_arch *arch, int64_t a, int64_t b)
{
    if (arch->rope.kind != NB_ROPE_DYNAMIC) return true;
    return a == b || (a <= arch->max_position && b <= arch->max_position);
}

void nb_rope_table_fill(struct nb_rope_table *t, const struct nb_arch *arch, int64_t first,
                        int64_t n, int64_t length)
{
    const int64_t half = arch->head_dim / 2;
    const bool same = t->length > 0 && same_frequencies(arch, t->length, length);
    if (same && t->first == first && n <= t->n) return;
    if (!same) nb_rope_frequencies(arch, length, t->inv_freq, &t->scaling);
    for (int64_t p = 0; p < n; p++) {
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)((float)(first + p) * (float)t->inv_freq[i]);
            t->cos_t[p * half + i] = (float)cos(angle) * (float)t->scaling;
            t->sin_t[p * half + i] = (float)sin(angle) * (float)t->scaling;
        }
    }
    t->first = first;
    t->n = n;
    t->length = length;
}
