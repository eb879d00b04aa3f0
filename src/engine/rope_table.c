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

static void release(struct nb_rope_angles *a)
{
    nb_free(a->cos_t);
    nb_free(a->sin_t);
    nb_free(a->inv_freq);
}

void nb_rope_table_release(struct nb_rope_table *t)
{
    release(&t->all);
    release(&t->local);
    *t = (struct nb_rope_table){0};
}

static bool take(struct nb_rope_angles *a, int64_t capacity, size_t half)
{
    size_t floats;
    if (!nb_mul((size_t)capacity, half, &floats)) return false;
    a->cos_t = nb_alloc(floats, sizeof *a->cos_t);
    a->sin_t = nb_alloc(floats, sizeof *a->sin_t);
    a->inv_freq = nb_alloc(half, sizeof *a->inv_freq);
    return a->cos_t && a->sin_t && a->inv_freq;
}

int nb_rope_table_reserve(struct nb_rope_table *t, const struct nb_arch *arch, int64_t capacity,
                          struct nb_err *err)
{
    if (capacity <= t->capacity) return 0;
    const size_t half = (size_t)arch->rotary_dim / 2;
    nb_rope_table_release(t);
    if (!take(&t->all, capacity, half) || (arch->local_rope && !take(&t->local, capacity, half))) {
        nb_rope_table_release(t);
        return nb_fail(err, NB_E_NOMEM, "no memory for the rotary table of %" PRId64 " positions",
                       capacity);
    }
    t->capacity = capacity;
    return 0;
}

/* Does rope mean the same for sequences of a and of b tokens? */
static bool same_rope(const struct nb_arch *arch, const struct nb_rope *rope, int64_t a, int64_t b)
{
    if (rope->kind == NB_ROPE_DYNAMIC)
        return a == b || (a <= arch->max_position && b <= arch->max_position);
    if (rope->kind == NB_ROPE_LONGROPE)
        return (a <= rope->original_max_position) == (b <= rope->original_max_position);
    return true;
}

static bool same_frequencies(const struct nb_arch *arch, int64_t a, int64_t b)
{
    return same_rope(arch, &arch->rope, a, b) &&
           (!arch->local_rope || same_rope(arch, &arch->rope_local, a, b));
}

static void fill(struct nb_rope_angles *a, int64_t half, int64_t first, int64_t n)
{
    for (int64_t p = 0; p < n; p++) {
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)((float)(first + p) * (float)a->inv_freq[i]);
            a->cos_t[p * half + i] = (float)cos(angle) * (float)a->scaling;
            a->sin_t[p * half + i] = (float)sin(angle) * (float)a->scaling;
        }
    }
}

void nb_rope_table_fill(struct nb_rope_table *t, const struct nb_arch *arch, int64_t first,
                        int64_t n, int64_t length)
{
    const int64_t half = arch->rotary_dim / 2;
    const bool same = t->length > 0 && same_frequencies(arch, t->length, length);
    if (same && t->first == first && n <= t->n) return;
    struct {
        struct nb_rope_angles *angles;
        const struct nb_rope *rope;
    } parts[] = {{&t->all, &arch->rope}, {&t->local, &arch->rope_local}};
    for (int i = 0; i < (arch->local_rope ? 2 : 1); i++) {
        struct nb_rope_angles *a = parts[i].angles;
        if (!same) nb_rope_frequencies(arch, parts[i].rope, length, a->inv_freq, &a->scaling);
        fill(a, half, first, n);
    }
    t->first = first;
    t->n = n;
    t->length = length;
}
