/* SPDX-License-Identifier: Apache-2.0
 *
 * rng.c - see rng.h. */
#include "base/rng.h"

#include <math.h>

void nb_rng_init(struct nb_rng *r, uint64_t seed)
{
    r->state = seed;
}

uint64_t nb_rng_next(struct nb_rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t nb_rng_below(struct nb_rng *r, uint64_t n)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % n;
    uint64_t v;
    do {
        v = nb_rng_next(r);
    } while (v >= limit);
    return v % n;
}

double nb_rng_uniform(struct nb_rng *r)
{
    return (double)(nb_rng_next(r) >> 11) * 0x1p-53;
}

double nb_rng_normal(struct nb_rng *r)
{
    double u = 1.0 - nb_rng_uniform(r);
    double v = nb_rng_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}
