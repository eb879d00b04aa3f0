/* SPDX-License-Identifier: Apache-2.0
 *
 * sample.c - one token from logits: greedy, or drawn after temperature, top-k, top-p and min-p.
 *
 * Nothing is sorted: the smallest probability kept is found by partitioning (quickselect), by count
 * for top-k and by mass for top-p. The draw runs over rising ids, so the same seed gives the same
 * token. */
#include <math.h>

#include "engine/engine.h"

static int32_t greedy(const float *logits, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return (int32_t)best;
}

/* Reorders p: entries > pivot first, then those equal to it, then the rest. */
static void partition(float *p, int64_t n, float pivot, int64_t *n_above, int64_t *n_equal)
{
    int64_t above = 0, equal = 0;
    for (int64_t i = 0; i < n; i++) { /* p[0, above) above, p[above, above + equal) equal */
        float v = p[i];
        if (v < pivot) continue;
        p[i] = p[above + equal];
        p[above + equal] = v;
        if (v > pivot) {
            p[above + equal] = p[above];
            p[above] = v;
            above++;
        } else {
            equal++;
        }
    }
    *n_above = above;
    *n_equal = equal;
}

static double sum_of(const float *p, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)p[i];
    return sum;
}

/* The largest t such that the entries >= t reach `goal`, counted (by_mass false) or summed.
 * Reorders p. */
static float threshold(float *p, int64_t n, double goal, bool by_mass)
{
    while (n > 1) {
        float a = p[0], b = p[n / 2], c = p[n - 1];
        float pivot = a > b ? (b > c ? b : a > c ? c : a) : (a > c ? a : b > c ? c : b);
        int64_t above, equal;
        partition(p, n, pivot, &above, &equal);
        double upper = by_mass ? sum_of(p, above) : (double)above;
        if (above && upper >= goal) {
            n = above;
            continue;
        }
        double middle = by_mass ? (double)pivot * (double)equal : (double)equal;
        if (upper + middle >= goal || above + equal == n) return pivot;
        goal -= upper + middle;
        p += above + equal;
        n -= above + equal;
    }
    return p[0];
}

int32_t nb_sample(const float *logits, int64_t n, const struct nb_sampling *s, struct nb_rng *rng,
                  float *scratch)
{
    const int32_t best = greedy(logits, n);
    if (!(s->temperature > 0)) return best;
    const double top = (double)logits[best], inverse = 1.0 / s->temperature;
    float least = 0;
    double mass = 0;
    for (int64_t i = 0; i < n; i++) {
        scratch[i] = (float)exp(((double)logits[i] - top) * inverse);
        if (!(scratch[i] >= 0)) scratch[i] = 0; /* NaN is never drawn */
    }
    int64_t kept = n;
    if (s->top_k > 0 && s->top_k < n) {
        least = threshold(scratch, n, (double)s->top_k, false);
        kept = 0;
        for (int64_t i = 0; i < n; i++) {
            if (scratch[i] >= least) scratch[kept++] = scratch[i];
        }
    }
    if (s->top_p < 1) {
        float t = threshold(scratch, kept, s->top_p * sum_of(scratch, kept), true);
        least = t > least ? t : least;
    }
    if (s->min_p > 0 && (float)s->min_p > least)
        least = (float)s->min_p; /* the largest probability stands at 1 */
    for (int64_t i = 0; i < n; i++) {
        float p = (float)exp(((double)logits[i] - top) * inverse);
        scratch[i] = p >= least ? p : 0;
        mass += (double)scratch[i];
    }
    double at = nb_rng_uniform(rng) * mass;
    int32_t drawn = best;
    for (int64_t i = 0; i < n; i++) {
        if (!(scratch[i] > 0)) continue;
        drawn = (int32_t)i;
        at -= (double)scratch[i];
        if (at < 0) break;
    }
    return drawn;
}
